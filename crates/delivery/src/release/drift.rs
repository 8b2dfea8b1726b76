//! What others have changed of a release since it was deployed, and putting it back.

use std::collections::BTreeSet;

use serde_json::{Map, Value as Json};

use super::{
    apply::{Applying, Owner, all, guarded, is_going},
    cluster::{Cluster, Mode, Target},
    comparison::{Difference, Verdict},
    engine::Engine,
    error::{Error, Result},
    merge::{Extent, keep_servers_own},
    object::{Id, objects},
    record::{Release, Status},
};

/// A field of an object, by its path as in [`super::Change`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Field {
    pub id: Id,
    pub path: String,
}

/// The manifest of a deployed release, and what is in the cluster of it.
pub struct Installed<'e> {
    cluster: &'e Cluster,
    name: String,
    namespace: String,
    targets: Vec<Target>,
    /// Objects whose kinds are not served: they are not there.
    unserved: Vec<(Id, Json)>,
}

impl Engine {
    /// A release that is deployed, to be compared with what is there. `version`: its newest revision, where it is known.
    ///
    /// # Errors
    /// That there is no such release, or that the cluster does not say.
    pub async fn installed(&self, name: &str, namespace: &str, version: Option<i64>) -> Result<Installed<'_>> {
        let release = match version {
            Some(version) => self.revision(name, namespace, version).await?,
            None => self.last(name, namespace).await?,
        };
        let release = release.ok_or_else(|| Error::NotFound(name.to_owned()))?;
        let Release { name, namespace, info, manifest, .. } = release;
        if info.status != Status::Deployed {
            return Err(Error::Invalid(format!("release {name} is {}, not deployed", info.status.text())));
        }
        let objects = objects(&manifest)?;
        let every: Vec<(Id, Json)> = objects.iter().map(|object| (object.id.clone(), object.json.clone())).collect();
        let targets = self.known_targets(objects, &namespace).await?;
        // What a target is in may be written in no manifest.
        let is_served = |id: &Id| {
            let same = |one: &Id| (&one.group, &one.kind, &one.name) == (&id.group, &id.kind, &id.name);
            targets.iter().any(|target| same(target.id()))
        };
        let unserved = every.into_iter().filter(|(id, _)| !is_served(id)).collect();
        Ok(Installed { cluster: self.cluster(), name, namespace, targets, unserved })
    }

    /// What differs between the objects of a release and its manifest.
    ///
    /// # Errors
    /// As of [`Engine::installed`].
    pub async fn drift(&self, name: &str, namespace: &str) -> Result<Vec<Difference>> {
        self.installed(name, namespace, None).await?.drift().await
    }

    /// Puts the objects of a release back to what its manifest says. What others added stays.
    ///
    /// # Errors
    /// What could not be put back.
    pub async fn correct(&self, name: &str, namespace: &str) -> Result<()> {
        let installed = self.installed(name, namespace, None).await?;
        let every: BTreeSet<Id> = installed.targets.iter().map(|target| target.id().clone()).collect();
        installed.put_back(&every, &BTreeSet::new()).await
    }
}

impl Installed<'_> {
    /// The manifest upon itself: nothing of it is new.
    fn applying<'a>(&'a self, old: &'a [Vec<Target>]) -> Applying<'a> {
        Applying {
            cluster: self.cluster,
            owner: Owner { name: &self.name, namespace: &self.namespace },
            old,
            new: &self.targets,
            extent: Extent::Whole,
            force: false,
            take_ownership: false,
        }
    }

    /// What differs between the objects and the manifest, in its order; those that are the same are named too.
    ///
    /// # Errors
    /// That the cluster does not say.
    pub async fn drift(&self) -> Result<Vec<Difference>> {
        let old = [self.targets.clone()];
        let mut found = self.applying(&old).differences().await?;
        let missing = |(id, json): &(Id, Json)| Difference::of(id, Verdict::Made, None, Some(json.clone()));
        found.extend(self.unserved.iter().map(missing));
        Ok(found)
    }

    /// Puts these objects back to what the manifest says, in its order, but for some fields. What others added stays.
    ///
    /// # Errors
    /// All that could not be put back; the rest is.
    pub async fn put_back(&self, drifted: &BTreeSet<Id>, spared: &BTreeSet<Field>) -> Result<()> {
        let old = [self.targets.clone()];
        let applying = self.applying(&old);
        let chosen: Vec<&Target> = self.targets.iter().filter(|target| drifted.contains(target.id())).collect();
        let mut results = Vec::new();
        for batch in chosen.chunk_by(|left, right| left.id().kind == right.id().kind) {
            let calls = batch.iter().map(|target| {
                let spared = spared.iter().filter(|field| field.id == *target.id()).map(|field| field.path.as_str());
                applying.put_but(target, spared.collect())
            });
            results.extend(self.cluster.each(calls.collect()).await);
            if matches!(results.last(), Some(Err(Error::Silent { .. }))) {
                break;
            }
        }
        let unserved = self.unserved.iter().filter(|(id, _)| drifted.contains(id));
        results.extend(unserved.map(|(id, _)| Err(Error::Invalid(format!("{id}: its kind is not served")))));
        all(results)
    }
}

impl Applying<'_> {
    /// As [`Applying::put`], with some fields left as they are.
    async fn put_but(&self, target: &Target, spared: BTreeSet<&str>) -> Result<()> {
        let live = if spared.is_empty() { None } else { self.cluster.get(target).await? };
        let Some(live) = live else { return self.put(target).await };
        if is_going(&live) {
            return Err(Error::Going(target.id().to_string()));
        }
        // Paths are those of what the cluster makes of the manifest: defaults, values of Secrets in their other form.
        let mut wanted = self.would_be(target, &live).await?;
        spare(&mut wanted, &live, &spared);
        if wanted == live {
            return Ok(());
        }
        self.cluster.merge(target, &guarded(&live, &wanted), Mode::Real).await.map(drop)
    }
}

fn spare(wanted: &mut Json, live: &Json, spared: &BTreeSet<&str>) {
    if let (Json::Object(wanted), Json::Object(live)) = (wanted, live) {
        spare_table("", wanted, live, spared);
        keep_servers_own(wanted, live, true);
    }
}

fn spare_table(path: &str, wanted: &mut Map<String, Json>, live: &Map<String, Json>, spared: &BTreeSet<&str>) {
    let keys: BTreeSet<String> = wanted.keys().chain(live.keys()).cloned().collect();
    for key in keys {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        if !spared.contains(path.as_str()) {
            if let (Some(wanted), Some(live)) = (wanted.get_mut(&key), live.get(&key)) {
                spare_value(&path, wanted, live, spared);
            }
        } else if let Some(live) = live.get(&key) {
            wanted.insert(key, live.clone());
        } else {
            wanted.remove(&key);
        }
    }
}

fn spare_value(path: &str, wanted: &mut Json, live: &Json, spared: &BTreeSet<&str>) {
    match (wanted, live) {
        (Json::Object(wanted), Json::Object(live)) => spare_table(path, wanted, live, spared),
        (Json::Array(wanted), Json::Array(live)) => {
            let before = std::mem::take(wanted);
            let mut before = before.into_iter();
            for at in 0..before.len().max(live.len()) {
                let path = format!("{path}[{at}]");
                let (own, there) = (before.next(), live.get(at));
                if spared.contains(path.as_str()) {
                    wanted.extend(there.cloned());
                } else if let Some(mut own) = own {
                    if let Some(there) = there {
                        spare_value(&path, &mut own, there, spared);
                    }
                    wanted.push(own);
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_spared_stays_as_it_is_there_and_the_rest_becomes_as_wanted() {
        let live = json!({
            "metadata": {"name": "a", "resourceVersion": "7", "generation": 1},
            "a": {"left": 1, "back": 1, "theirs": 1}, "list": [{"left": 1, "back": 1}, {"left": 2}, 3], "status": {"x": 1},
        });
        let mut wanted = json!({
            "metadata": {"name": "a", "resourceVersion": "7", "generation": 2},
            "a": {"left": 2, "back": 2, "gone": 2}, "list": [{"left": 9, "back": 2}], "status": {"x": 2},
        });
        spare(&mut wanted, &live, &["a.left", "a.gone", "list[0].left", "list[2]"].into());
        assert_eq!(
            wanted,
            json!({
                "metadata": {"name": "a", "resourceVersion": "7", "generation": 1},
                "a": {"left": 1, "back": 2}, "list": [{"left": 1, "back": 2}, 3], "status": {"x": 1},
            })
        );
    }
}
