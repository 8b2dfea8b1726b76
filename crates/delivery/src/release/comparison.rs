//! What is there beside what is to be there.

use serde_json::{Map, Value as Json, json};

use super::{
    apply::{Applying, CONFLICTS_MAX, guarded, is_kept},
    chart,
    cluster::{Mode, Target},
    engine::{Engine, Request},
    error::{Error, Result},
    object::Id,
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
}

impl Applying<'_> {
    /// What carrying this out would change; the cluster itself says what would be.
    pub async fn differences(&self) -> Result<Vec<Difference>> {
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
        let mut last = Error::Changed(id.to_string());
        for _ in 0..CONFLICTS_MAX {
            let Some(live) = self.cluster.get(target).await? else {
                return Ok(Difference::of(id, Verdict::Made, None, Some(target.object.json.clone())));
            };
            match self.would_be(target, &live).await {
                Ok(would_be) => return Ok(Difference::of(id, Verdict::Changed, Some(live), Some(would_be))),
                // Others have written it since it was read.
                Err(error) if error.code() == Some(409) => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    /// What an object that is there would become. Defaults and the forms of quantities are the cluster's business.
    pub async fn would_be(&self, target: &Target, live: &Json) -> Result<Json> {
        let wanted = self.wanted(target, live)?;
        if wanted == *live {
            return Ok(wanted);
        }
        match self.cluster.merge(target, &guarded(live, &wanted), Mode::Dry).await {
            // What can't be changed is told as it is wished.
            Err(error) if error.code() == Some(422) => Ok(wanted),
            would_be => would_be,
        }
    }
}

impl Difference {
    /// `verdict` is for what is not the same.
    pub(super) fn of(id: &Id, verdict: Verdict, before: Option<Json>, after: Option<Json>) -> Self {
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
