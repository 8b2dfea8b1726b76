//! What is there beside what is to be there: what an upgrade would change, and what others have changed since.

use serde_json::{Map, Value as Json, json};

use super::{
    apply::{Applying, Owner, guarded, is_kept},
    chart,
    cluster::{Cluster, Mode, Target},
    engine::{Engine, Request},
    error::{Error, Result},
    merge::Extent,
    object::{Id, objects},
    record::Status,
};

/// So many fields of one object are named.
const CHANGES_MAX: usize = 1_000;
/// What a cluster writes into every object, which says nothing of its content.
const NOT_TOLD: &[&str] = &["managedFields", "resourceVersion", "generation", "uid", "creationTimestamp"];

/// Where Secrets have their values, and where `kubectl apply` repeats them.
const SECRET_FIELDS: &[&str] = &["data", "stringData"];
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
const HIDDEN: &str = "(hidden)";

/// What becomes of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Same,
    /// It is not there.
    Made,
    Changed,
    /// It is in no manifest any more.
    Deleted,
    /// The same, but it is to be kept.
    Kept,
}

/// A field that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// As `spec.template.spec.containers[0].image`.
    pub path: String,
    pub from: Option<Json>,
    pub to: Option<Json>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub id: Id,
    pub verdict: Verdict,
    /// Of Secrets, without values.
    pub changes: Vec<Change>,
    /// The whole object as it is, without what says nothing of its content; none if it is not there. Of Secrets, without values.
    pub before: Option<Json>,
    /// The same, as it would be; none if it is deleted.
    pub after: Option<Json>,
}

impl Engine {
    /// What an installation or an upgrade would change. Nothing is written.
    ///
    /// # Errors
    /// What would keep it from beginning.
    pub async fn diff(&self, request: &Request<'_>) -> Result<Vec<Difference>> {
        chart::complete(request.chart.chart())?;
        let (heads, last) = self.latest(request.name, request.namespace).await?;
        self.cluster().discover().await?;
        let prepared = self.prepare(request, &heads, last.as_ref()).await?;
        self.applying(&prepared, request.options).differences().await
    }

    /// What differs between the objects of a release and its manifest.
    ///
    /// # Errors
    /// That there is no such release, or that the cluster does not say.
    pub async fn drift(&self, name: &str, namespace: &str) -> Result<Vec<Difference>> {
        let targets = self.deployed(name, namespace).await?;
        drifting(self.cluster(), Owner { name, namespace }, &targets).differences().await
    }

    /// Puts the objects of a release back to what its manifest says. What others added stays.
    ///
    /// # Errors
    /// What could not be put back.
    pub async fn correct(&self, name: &str, namespace: &str) -> Result<()> {
        let targets = self.deployed(name, namespace).await?;
        drifting(self.cluster(), Owner { name, namespace }, &targets).carry_out().await
    }

    async fn deployed(&self, name: &str, namespace: &str) -> Result<Vec<Target>> {
        match self.latest(name, namespace).await?.1.map(|last| last.release) {
            Some(last) if last.info.status == Status::Deployed => {
                self.cluster().targets(objects(&last.manifest)?, namespace).await
            }
            Some(last) => Err(Error::Invalid(format!("release {name} is {}, not deployed", last.info.status.text()))),
            None => Err(Error::NotFound(name.to_owned())),
        }
    }
}

/// The manifest upon itself: nothing of it is new.
fn drifting<'a>(cluster: &'a Cluster, owner: Owner<'a>, targets: &'a Vec<Target>) -> Applying<'a> {
    let old = std::slice::from_ref(targets);
    Applying { cluster, owner, old, new: targets, extent: Extent::Whole, force: false, take_ownership: false }
}

impl Applying<'_> {
    /// What carrying this out would change; the cluster itself says what would be.
    async fn differences(&self) -> Result<Vec<Difference>> {
        let found = self.cluster.each(self.new.iter().map(|target| self.difference(target)).collect()).await;
        let mut found = found.into_iter().collect::<Result<Vec<_>>>()?;
        let gone = self.gone();
        for (target, live) in gone.iter().zip(self.cluster.get_all(&gone).await?) {
            if let Some(live) = live {
                let verdict = if is_kept(&live) { Verdict::Kept } else { Verdict::Deleted };
                found.push(Difference::of(target.id(), verdict, Some(live), None));
            }
        }
        Ok(found)
    }

    async fn difference(&self, target: &Target) -> Result<Difference> {
        let id = target.id();
        let Some(live) = self.cluster.get(target).await? else {
            return Ok(Difference::of(id, Verdict::Made, None, Some(target.object.json.clone())));
        };
        let wanted = self.wanted(target, &live)?;
        let would_be = if wanted == live {
            live.clone()
        } else {
            // Defaults and the forms of quantities are the cluster's business.
            match self.cluster.merge(target, &guarded(&live, &wanted), Mode::Dry).await {
                Ok(would_be) => would_be,
                // What can't be changed is told as it is wished.
                Err(error) if error.code() == Some(422) => wanted,
                Err(error) => return Err(error),
            }
        };
        Ok(Difference::of(id, Verdict::Changed, Some(live), Some(would_be)))
    }
}

impl Difference {
    /// `verdict` is for what is not the same.
    fn of(id: &Id, verdict: Verdict, before: Option<Json>, after: Option<Json>) -> Self {
        let [mut before, mut after] = [before, after].map(|side| side.map(plain));
        let mut changes = Vec::new();
        if before.is_some() && after.is_some() {
            compare("", before.as_ref(), after.as_ref(), &mut changes);
        }
        if id.group.is_empty() && id.kind == "Secret" {
            for change in changes.iter_mut().filter(|change| is_hidden(&change.path)) {
                for side in [&mut change.from, &mut change.to] {
                    *side = side.take().map(|_| json!(HIDDEN));
                }
            }
            hide(before.as_mut(), after.as_mut());
        }
        let is_same = verdict == Verdict::Changed && changes.is_empty();
        let verdict = if is_same { Verdict::Same } else { verdict };
        Self { id: id.clone(), verdict, changes, before, after }
    }
}

fn is_hidden(path: &str) -> bool {
    SECRET_FIELDS
        .iter()
        .any(|field| path.strip_prefix(field).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
        || path.contains(LAST_APPLIED)
}

/// Without what the cluster writes of itself.
fn plain(mut object: Json) -> Json {
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
    }
    if let Some(metadata) = object.get_mut("metadata").and_then(Json::as_object_mut) {
        metadata.retain(|key, _| !NOT_TOLD.contains(&key.as_str()));
    }
    object
}

/// Takes the values out of a Secret, and leaves to be seen which of them differ.
fn hide<'j>(mut before: Option<&'j mut Json>, mut after: Option<&'j mut Json>) {
    for side in [&mut before, &mut after].into_iter().flatten() {
        if let Some(annotations) = side.pointer_mut("/metadata/annotations").and_then(Json::as_object_mut) {
            annotations.remove(LAST_APPLIED);
        }
    }
    for field in SECRET_FIELDS {
        let was = before.as_ref().and_then(|side| side.get(*field)).cloned().unwrap_or_default();
        let will = after.as_ref().and_then(|side| side.get(*field)).cloned().unwrap_or_default();
        let sides = [(&mut before, &will, "(hidden: as it is)"), (&mut after, &was, "(hidden: as it would be)")];
        for (side, other, word) in sides {
            let Some(Json::Object(values)) = side.as_mut().and_then(|side| side.get_mut(*field)) else { continue };
            for (key, value) in values {
                let differs = other.get(key).is_some_and(|other| other != value);
                *value = json!(if differs { word } else { HIDDEN });
            }
        }
    }
}

fn compare(path: &str, from: Option<&Json>, to: Option<&Json>, into: &mut Vec<Change>) {
    if from == to || into.len() >= CHANGES_MAX {
        return;
    }
    let empty = Map::new();
    match (from, to) {
        (Some(Json::Object(from)), Some(Json::Object(to))) => {
            let keys = from.keys().chain(to.keys().filter(|key| !from.contains_key(*key)));
            for key in keys {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                compare(&path, from.get(key), to.get(key), into);
            }
        }
        (Some(Json::Array(from)), Some(Json::Array(to))) => {
            for at in 0..from.len().max(to.len()) {
                compare(&format!("{path}[{at}]"), from.get(at), to.get(at), into);
            }
        }
        // Nothing and an empty table are the same.
        (None, Some(Json::Object(one))) | (Some(Json::Object(one)), None) if *one == empty => {}
        (from, to) => into.push(Change { path: path.to_owned(), from: from.cloned(), to: to.cloned() }),
    }
}
