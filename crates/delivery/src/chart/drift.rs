//! Drift: what others have changed of a settled release is told, and put back where its Chart does not say otherwise.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use api::app::{Chart, DRIFT_ANNOTATION, Drift, Quoted};
use control::{Class, EventType, Key, Outcome, Plan, Result, Writer, bounded};
use jiff::Timestamp;
use kube::ResourceExt;
use parking_lot::Mutex;

use super::controller::{Charts, MANAGER, RESYNC_S, Seen};
use crate::{
    app::{chart::owner, controller::is_left_alone},
    release::{self, Difference, Field, Id, Installed, Verdict},
    target::Place,
};

/// Reasons of events.
const INVALID: &str = "InvalidDrift";
const UNKNOWN: &str = "DriftUnknown";
const DETECTED: &str = "DriftDetected";
const CORRECTED: &str = "DriftCorrected";
const RETURNS: &str = "DriftReturns";
/// So often in a row a field is put back: then whoever changes it has his way.
const RETURNS_MAX: u8 = 2;
/// So many fields of a release are counted, and so many left to others. Those beyond are put back each time.
const FIELDS_MAX: usize = 1_000;
/// A message names so many objects, and so many fields of each.
const OBJECTS_TOLD: usize = 3;
const FIELDS_TOLD: usize = 3;
/// A path comes from keys of objects, which may be long: so many bytes of it are told.
const PATH_BYTES_TOLD: usize = 80;
/// So long may one look take: others wait for whoever looks.
const LOOK_LIMIT: Duration = Duration::from_secs(60);
/// While another release of the same cluster is looked at, this one waits so long, and twice as long each time.
const TURN: Duration = Duration::from_secs(5);

/// Which releases have been looked at, and what of them is left to others. It ends with the process.
#[derive(Default)]
pub struct Looks {
    known: Mutex<HashMap<Key, Known>>,
    /// Clusters whose objects are read right now: one release at a time of each.
    busy: Mutex<HashSet<Place>>,
}

#[derive(Default)]
struct Known {
    app: Option<Key>,
    /// Of the release that all this is about.
    revision: i64,
    next: Timestamp,
    /// The last wait for its cluster's turn.
    waited: Duration,
    /// How often fields were put back, one look after the other.
    returns: BTreeMap<Field, u8>,
    /// They are not put back any more.
    left: BTreeSet<Field>,
    /// By reason: what stays as it is until somebody does something about it is told once.
    told: BTreeMap<&'static str, String>,
    is_drifted: bool,
}

/// What one look at a release found, but for what is no drift.
#[derive(Debug, Default, PartialEq)]
struct Found<'d> {
    /// To be put back, with the fields that are not left to others.
    wrong: Vec<(&'d Difference, Vec<&'d str>)>,
    /// Those that were put back in vain, and are from now on left to others.
    returned: Vec<(&'d Difference, Vec<&'d str>)>,
    /// Some are left to others, now or since an earlier look.
    has_left: bool,
}

/// A cluster's turn, until it is dropped.
struct Turn<'l>(&'l Looks, Place);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.busy.lock().remove(&self.1);
    }
}

impl Looks {
    pub fn forget(&self, key: &Key) {
        self.known.lock().remove(key);
    }

    /// Apps whose releases have been looked at, and whether they are other than declared.
    pub fn drifted(&self) -> Vec<(Key, bool)> {
        let known = self.known.lock();
        known.values().filter_map(|known| Some((known.app.clone()?, known.is_drifted))).collect()
    }

    /// How long until a release's next look. A new revision begins anew.
    fn left(&self, key: &Key, app: Option<Key>, revision: i64, now: Timestamp) -> Option<Duration> {
        let mut all = self.known.lock();
        let known = all.entry(key.clone()).or_default();
        if known.revision != revision {
            *known = Known { revision, next: slot(key, now), ..Known::default() };
        }
        known.app = app;
        Duration::try_from(known.next.duration_since(now)).ok().filter(|left| !left.is_zero())
    }

    fn turn(&self, place: &Place) -> Option<Turn<'_>> {
        self.busy.lock().insert(place.clone()).then(|| Turn(self, place.clone()))
    }

    fn with<R>(&self, key: &Key, change: impl FnOnce(&mut Known) -> R) -> R {
        change(self.known.lock().entry(key.clone()).or_default())
    }
}

/// The next look: each release has its own seconds of [`RESYNC_S`], so that not all are looked at at once.
fn slot(key: &Key, now: Timestamp) -> Timestamp {
    let mut hash = DefaultHasher::new();
    key.hash(&mut hash);
    let period = RESYNC_S.cast_signed();
    let phase = (hash.finish() % RESYNC_S).cast_signed();
    let begun = (now.as_second() - phase).div_euclid(period);
    Timestamp::from_second((begun + 1) * period + phase).unwrap_or(Timestamp::MAX)
}

/// What has run to its end and is gone is not made again: nobody knows what it did.
fn runs_once(id: &Id) -> bool {
    matches!((id.group.as_str(), id.kind.as_str()), ("batch", "Job") | ("", "Pod"))
}

impl Known {
    /// Sorts out what a look found, and remembers what is left to others from now on.
    fn judge<'d>(&mut self, drift: &'d [Difference]) -> Found<'d> {
        let mut found = Found::default();
        let mut fields = BTreeSet::new();
        for one in drift {
            match one.verdict {
                Verdict::Made if !runs_once(&one.id) => found.wrong.push((one, Vec::new())),
                Verdict::Changed => {}
                _ => continue,
            }
            let (mut wrong, mut returned) = (Vec::new(), Vec::new());
            for change in &one.changes {
                let field = Field { id: one.id.clone(), path: change.path.clone() };
                if self.left.contains(&field) {
                    found.has_left = true;
                } else if self.left.len() < FIELDS_MAX
                    && self.returns.get(&field).is_some_and(|count| *count >= RETURNS_MAX)
                {
                    self.left.insert(field);
                    returned.push(change.path.as_str());
                } else {
                    fields.insert(field);
                    wrong.push(change.path.as_str());
                }
            }
            if !wrong.is_empty() {
                found.wrong.push((one, wrong));
            }
            if !returned.is_empty() {
                found.has_left = true;
                found.returned.push((one, returned));
            }
        }
        // What was as declared this time counts anew.
        self.returns.retain(|field, _| fields.contains(field));
        found
    }

    /// What was told of the last look is over.
    fn settle(&mut self) {
        self.is_drifted = false;
        self.told.retain(|reason, _| *reason == INVALID);
    }

    fn corrected(&mut self, found: &Found<'_>) {
        for (one, paths) in &found.wrong {
            for path in paths {
                let field = Field { id: one.id.clone(), path: (*path).to_owned() };
                if self.returns.len() < FIELDS_MAX || self.returns.contains_key(&field) {
                    let count = self.returns.entry(field).or_default();
                    *count = count.saturating_add(1);
                }
            }
        }
    }
}

/// Objects with their fields, as far as they are told. Values are not.
fn listed(all: &[(&Difference, Vec<&str>)]) -> String {
    let mut told: Vec<String> = all.iter().take(OBJECTS_TOLD).map(|(one, paths)| object(one, paths)).collect();
    if all.len() > OBJECTS_TOLD {
        told.push(format!("{} more objects", all.len() - OBJECTS_TOLD));
    }
    told.join(", ")
}

fn object(one: &Difference, paths: &[&str]) -> String {
    let Id { kind, namespace, name, .. } = &one.id;
    let place = if namespace.is_empty() { name.clone() } else { format!("{namespace}/{name}") };
    if one.verdict == Verdict::Made {
        return format!("{kind} {place} (was gone)");
    }
    let short = |path: &&str| path[..path.floor_char_boundary(PATH_BYTES_TOLD)].to_owned();
    let mut fields: Vec<String> = paths.iter().take(FIELDS_TOLD).map(short).collect();
    if paths.len() > FIELDS_TOLD {
        fields.push(format!("{} more", paths.len() - FIELDS_TOLD));
    }
    format!("{kind} {place} ({})", fields.join(", "))
}

impl Charts {
    /// Compares a settled release with what is in its cluster, when it is time to.
    pub(super) async fn look(&self, key: &Key, seen: &Seen) -> Result<Outcome> {
        let (looks, now) = (&self.context.looks, self.context.writer.clock().now());
        let app = owner(&seen.chart);
        if let Some(after) = looks.left(key, app.clone(), seen.standing.revision, now) {
            return Ok(next(after));
        }
        let mode = match Drift::of(seen.chart.annotations()) {
            Ok(mode) => {
                looks.with(key, |known| known.told.remove(INVALID));
                mode
            }
            Err(told) => {
                let told = format!("annotation {DRIFT_ANNOTATION} is {}: drift is corrected", Quoted(told));
                self.tell_once(key, seen, INVALID, told).await?;
                Drift::default()
            }
        };
        let app = app.and_then(|app| self.context.caches.apps.get(&app));
        self.keep_values(key, seen).await?;
        if mode == Drift::Ignore || app.is_some_and(|app| is_left_alone(&app, now)) {
            looks.with(key, Known::settle);
        } else {
            let Some(_turn) = looks.turn(&seen.place) else {
                let after = looks.with(key, |known| {
                    known.waited = (known.waited * 2).clamp(TURN, Duration::from_secs(RESYNC_S));
                    known.waited
                });
                return Ok(Outcome::Waiting { on: "another release of its cluster".to_owned(), after });
            };
            match tokio::time::timeout(LOOK_LIMIT, self.compare(key, seen, mode)).await {
                Ok(compared) => compared?,
                Err(_) => {
                    let told = format!("not through within {} s: its cluster answers slowly", LOOK_LIMIT.as_secs());
                    self.tell_once(key, seen, UNKNOWN, told).await?;
                }
            }
        }
        let at = slot(key, now);
        looks.with(key, |known| (known.next, known.waited) = (at, Duration::ZERO));
        Ok(next(Duration::try_from(at.duration_since(now)).unwrap_or_default()))
    }

    async fn compare(&self, key: &Key, seen: &Seen, mode: Drift) -> Result<()> {
        let looks = &self.context.looks;
        let (installed, drift) = match compared(seen).await {
            Ok(compared) => compared,
            Err(error) if error.class() == Class::Retry => return Err(self.failed(&seen.place, error)),
            Err(error) => {
                return self.tell_once(key, seen, UNKNOWN, format!("cannot be compared: {error}")).await;
            }
        };
        if mode == Drift::Warn {
            let found = Known::default().judge(&drift);
            if found.wrong.is_empty() {
                looks.with(key, Known::settle);
                return Ok(());
            }
            looks.with(key, |known| known.is_drifted = true);
            return self.tell_once(key, seen, DETECTED, listed(&found.wrong)).await;
        }
        let (found, left) = looks.with(key, |known| (known.judge(&drift), known.left.clone()));
        if !found.returned.is_empty() {
            let what = format!("put back {RETURNS_MAX} times and changed again, now left: {}", listed(&found.returned));
            self.tell(seen, EventType::Warning, RETURNS, &what).await?;
        }
        if found.wrong.is_empty() {
            looks.with(key, |known| {
                known.settle();
                known.is_drifted = found.has_left;
            });
            return Ok(());
        }
        let wrong = found.wrong.iter().map(|(one, _)| one.id.clone()).collect();
        match installed.put_back(&wrong, &left).await {
            Ok(()) => {
                looks.with(key, |known| {
                    known.settle();
                    known.corrected(&found);
                    known.is_drifted = found.has_left;
                });
                self.tell(seen, EventType::Normal, CORRECTED, &listed(&found.wrong)).await
            }
            // What is on its way out is looked at again when it is gone.
            Err(error) if error.class() == Class::Retry && !matches!(error, release::Error::Going(_)) => {
                Err(self.failed(&seen.place, error))
            }
            Err(error) => {
                looks.with(key, |known| known.is_drifted = true);
                let what = format!("{} cannot be put back: {error}", listed(&found.wrong));
                self.tell_once(key, seen, DETECTED, what).await
            }
        }
    }

    /// A warning that is new.
    async fn tell_once(&self, key: &Key, seen: &Seen, reason: &'static str, message: String) -> Result<()> {
        let is_new = |known: &mut Known| known.told.insert(reason, message.clone()).as_ref() != Some(&message);
        if self.context.looks.with(key, is_new) {
            self.tell(seen, EventType::Warning, reason, &message).await?;
        }
        Ok(())
    }

    /// By an event of the App and one of the Chart.
    async fn tell(&self, seen: &Seen, kind: EventType, reason: &str, message: &str) -> Result<()> {
        let (chart, writer): (&Chart, &Writer) = (&seen.chart, &self.context.writer);
        if let Some(app) = owner(chart).and_then(|key| self.context.caches.apps.get(&key)) {
            let mut plan = Plan::nothing();
            plan.event(&*app, kind, reason, message);
            writer.execute(plan).await?;
        }
        let mut plan = Plan::nothing();
        plan.event(chart, kind, reason, message);
        let there = Writer::new(seen.client.clone(), MANAGER, writer.clock().clone());
        bounded(&Key::of(chart), there.execute(plan)).await?.map(drop)
    }
}

async fn compared(seen: &Seen) -> release::Result<(Installed<'_>, Vec<Difference>)> {
    let spec = &seen.chart.spec;
    let installed = seen.engine.installed(&spec.name, &spec.namespace, Some(seen.standing.revision)).await?;
    let drift = installed.drift().await?;
    Ok((installed, drift))
}

fn next(after: Duration) -> Outcome {
    Outcome::Waiting { on: "the next look at the release".to_owned(), after }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::Change;

    fn changed(name: &str, paths: impl IntoIterator<Item = String>) -> Difference {
        let id = Id { group: String::new(), kind: "ConfigMap".into(), namespace: "web".into(), name: name.into() };
        let change = |path| Change { path, from: None, to: None };
        let changes = paths.into_iter().map(change).collect();
        Difference { id, verdict: Verdict::Changed, changes, before: None, after: None }
    }

    fn paths(count: usize) -> impl Iterator<Item = String> {
        (0..count).map(|n| format!("data.{n}"))
    }

    #[test]
    fn each_release_has_a_second_of_its_own_and_one_look_in_each_period() {
        let now: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        let seconds = |now: Timestamp| -> HashSet<i64> {
            (0..200)
                .map(|n| slot(&Key::new("org-acme/w1", format!("app-{n}")), now).as_second() - now.as_second())
                .collect()
        };
        let all = seconds(now);
        assert!(all.iter().all(|after| (1..=RESYNC_S.cast_signed()).contains(after)), "{all:?}");
        assert!(all.len() > 100, "they are spread: {}", all.len());
        let key = Key::new("org-acme/w1", "hello");
        let first = slot(&key, now);
        assert_eq!(slot(&key, first).as_second() - first.as_second(), RESYNC_S.cast_signed());
    }

    #[test]
    fn of_more_fields_than_are_counted_the_rest_is_put_back_each_time() {
        let drift = [changed("a", paths(FIELDS_MAX + 1))];
        let mut known = Known::default();
        for _ in 0..RETURNS_MAX {
            let found = known.judge(&drift);
            assert_eq!((found.wrong[0].1.len(), found.returned.len()), (FIELDS_MAX + 1, 0));
            known.corrected(&found);
            assert_eq!(known.returns.len(), FIELDS_MAX);
        }
        for _ in 0..usize::from(u8::MAX) {
            let found = known.judge(&drift);
            assert_eq!(found.wrong[0].1.len(), 1);
            known.corrected(&found);
            assert_eq!((known.left.len(), known.returns.len()), (FIELDS_MAX, 1));
        }
    }

    #[test]
    fn what_is_told_names_a_few_objects_and_fields_and_says_how_many_there_are() {
        let long = "é".repeat(PATH_BYTES_TOLD);
        let few = changed("a", [long.clone()]);
        let short = "é".repeat(PATH_BYTES_TOLD / 2);
        assert_eq!(listed(&[(&few, vec![long.as_str()])]), format!("ConfigMap web/a ({short})"));
        let many = changed("a", paths(5));
        let gone = Difference { verdict: Verdict::Made, changes: Vec::new(), ..changed("b", []) };
        let of_many = || (&many, many.changes.iter().map(|change| change.path.as_str()).collect::<Vec<_>>());
        let text = listed(&[of_many(), (&gone, Vec::new()), of_many(), of_many(), of_many()]);
        let one = "ConfigMap web/a (data.0, data.1, data.2, 2 more)";
        assert_eq!(text, format!("{one}, ConfigMap web/b (was gone), {one}, 2 more objects"));
    }
}
