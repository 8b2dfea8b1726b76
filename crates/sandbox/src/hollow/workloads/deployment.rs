//! ReplicaSets for Deployments: a new one for a new template, scaled up while the old ones go down.
//!
//! Source: kubernetes/kubernetes pkg/controller/deployment (sync.go, rolling.go, recreate.go, util).

use std::collections::BTreeMap;

use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::{Pod, PodTemplateSpec},
};
use kube::ResourceExt;
use serde_json::json;

use super::{
    observed::{Observed, controller_of, is_controlled_by},
    plan::{Plan, Target, Write},
    pods,
};

mod status;

const COMPONENT: &str = "deployment-controller";
pub const HASH_LABEL: &str = "pod-template-hash";
const REVISION: &str = "deployment.kubernetes.io/revision";
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const MAX: &str = "deployment.kubernetes.io/max-replicas";
/// Annotations of a Deployment that are not its ReplicaSets'.
const OWN: [&str; 5] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    "deployment.kubernetes.io/revision-history",
    DESIRED,
    MAX,
];
const HISTORY_LIMIT: i32 = 10;

pub fn plan(seen: &Observed, plan: &mut Plan) {
    for deployment in seen.deployments.iter().filter(|deployment| !pods::is_deleted(*deployment)) {
        let Some(rollout) = Rollout::new(seen, deployment) else { continue };
        rollout.plan(plan);
    }
}

/// One Deployment and what it has.
struct Rollout<'a> {
    seen: &'a Observed,
    deployment: &'a Deployment,
    /// Of all, old and new, by age.
    sets: Vec<&'a ReplicaSet>,
    new: Option<&'a ReplicaSet>,
    want: i32,
    max_surge: i32,
    max_unavailable: i32,
    recreate: bool,
}

fn size(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0)
}

fn number(object: &impl ResourceExt, annotation: &str) -> Option<i32> {
    object.annotations().get(annotation)?.parse().ok()
}

/// The template of a set as its Deployment has it.
fn plain(template: Option<&PodTemplateSpec>) -> Option<PodTemplateSpec> {
    let mut template = template?.clone();
    if let Some(labels) = template.metadata.as_mut().and_then(|metadata| metadata.labels.as_mut()) {
        labels.remove(HASH_LABEL);
    }
    Some(template)
}

impl<'a> Rollout<'a> {
    fn new(seen: &'a Observed, deployment: &'a Deployment) -> Option<Self> {
        let spec = deployment.spec.as_ref()?;
        let owned = |set: &&ReplicaSet| is_controlled_by(&set.metadata, &deployment.metadata);
        let mut sets: Vec<&ReplicaSet> = seen.replica_sets.iter().filter(owned).collect();
        sets.sort_by_key(|set| (set.metadata.creation_timestamp.clone(), set.name_any()));
        let template = plain(Some(&spec.template));
        let is_new = |set: &&&ReplicaSet| plain(set.spec.as_ref().and_then(|spec| spec.template.as_ref())) == template;
        let new = sets.iter().find(is_new).copied();
        let want = spec.replicas.unwrap_or(1);
        let recreate = spec.strategy.as_ref().and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate");
        let rolling = spec.strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
        let mut max_surge = pods::share(rolling.and_then(|rolling| rolling.max_surge.as_ref()), want, true);
        let mut max_unavailable =
            pods::share(rolling.and_then(|rolling| rolling.max_unavailable.as_ref()), want, false);
        if max_surge == 0 && max_unavailable == 0 {
            max_unavailable = 1;
        }
        if recreate {
            (max_surge, max_unavailable) = (0, 0);
        }
        let max_unavailable = max_unavailable.min(want);
        Some(Self { seen, deployment, sets, new, want, max_surge, max_unavailable, recreate })
    }

    fn plan(&self, plan: &mut Plan) {
        let before = plan.writes.len();
        let spec = self.deployment.spec.as_ref();
        let paused = spec.and_then(|spec| spec.paused) == Some(true);
        let scaled = self
            .sets
            .iter()
            .any(|set| size(set) > 0 && number(*set, DESIRED).is_some_and(|desired| desired != self.want));
        if paused || scaled {
            self.scale(plan);
        } else if !self.sync_new(plan) {
            // Its ReplicaSet comes first.
        } else if self.recreate {
            self.recreate(plan);
        } else {
            self.roll(plan);
        }
        if self.is_complete() && !paused {
            self.clean_up(plan);
        }
        // A status is written at a version: not beside another write to the same object.
        let target = Target::of(self.deployment);
        let written = |write: &Write| matches!(write, Write::Patch { target: other, .. } if *other == target);
        if !plan.writes[before..].iter().any(written) {
            status::plan(self, plan);
        }
    }

    fn old(&self) -> impl Iterator<Item = &'a ReplicaSet> + use<'a, '_> {
        let new = self.new.and_then(|new| new.metadata.uid.as_ref());
        self.sets.iter().copied().filter(move |set| set.metadata.uid.as_ref() != new)
    }

    fn total(&self) -> i32 {
        self.sets.iter().map(|set| size(set)).sum()
    }

    /// What the new set is to have while the old ones still have some.
    fn new_size(&self, now: i32) -> i32 {
        if self.recreate {
            return self.want;
        }
        let room = self.want + self.max_surge - self.total();
        if room <= 0 { now } else { now + room.min(self.want - now) }
    }

    fn revision(&self) -> i32 {
        self.old().filter_map(|set| number(set, REVISION)).max().unwrap_or(0) + 1
    }

    /// Annotations of the new set, without the sizes.
    fn annotations(&self, revision: i32) -> BTreeMap<String, String> {
        let own = |key: &str| OWN.contains(&key);
        let all = self.deployment.annotations().iter().filter(|(key, _)| !own(key));
        let mut annotations: BTreeMap<_, _> = all.map(|(key, value)| (key.clone(), value.clone())).collect();
        annotations.insert(REVISION.into(), revision.to_string());
        annotations
    }

    /// Makes the new set, or brings what it carries of its Deployment up to date; false if it was not there.
    fn sync_new(&self, plan: &mut Plan) -> bool {
        let Some(set) = self.new else {
            let waits = self.recreate && (self.total() > 0 || self.old_pods_run());
            if waits {
                return true;
            }
            self.create(plan);
            return false;
        };
        let revision = self.revision().max(number(set, REVISION).unwrap_or(0));
        let want = self.annotations(revision);
        if want.iter().any(|(key, value)| set.annotations().get(key) != Some(value)) {
            plan.patch(set, json!({"metadata": {"annotations": want}}));
        }
        let min_ready_s = self.deployment.spec.as_ref().and_then(|spec| spec.min_ready_seconds);
        if set.spec.as_ref().and_then(|spec| spec.min_ready_seconds) != min_ready_s {
            plan.patch(set, json!({"spec": {"minReadySeconds": min_ready_s}}));
        }
        self.tell_revision(revision, plan);
        true
    }

    fn tell_revision(&self, revision: i32, plan: &mut Plan) {
        if number(self.deployment, REVISION) != Some(revision) {
            plan.patch(self.deployment, json!({"metadata": {"annotations": {REVISION: revision.to_string()}}}));
        }
    }

    fn create(&self, plan: &mut Plan) {
        let Some(spec) = &self.deployment.spec else { return };
        let collisions = self.deployment.status.as_ref().and_then(|status| status.collision_count);
        let hash = pods::hash(&(plain(Some(&spec.template)), collisions));
        let name = format!("{}-{hash}", self.deployment.name_any());
        let taken = self
            .seen
            .replica_sets
            .iter()
            .find(|set| set.name_any() == name && set.namespace() == self.deployment.namespace());
        match taken {
            Some(set) if controller_of(&set.metadata).is_none() => {
                plan.patch(set, json!({"metadata": {"ownerReferences": pods::owner(self.deployment)}}));
                return;
            }
            Some(_) => {
                let mut other = self.deployment.clone();
                other.status.get_or_insert_default().collision_count = Some(collisions.unwrap_or(0) + 1);
                plan.status(&other);
                return;
            }
            None => {}
        }
        let mut template = spec.template.clone();
        let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
        labels.insert(HASH_LABEL.into(), hash.clone());
        let labels = labels.clone();
        let mut selector = spec.selector.clone();
        selector.match_labels.get_or_insert_default().insert(HASH_LABEL.into(), hash);
        let revision = self.revision();
        let replicas = self.new_size(0);
        let mut annotations = self.annotations(revision);
        annotations.extend(self.sizes());
        plan.writes.push(Write::Create(json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {
                "name": name, "namespace": self.deployment.namespace(), "labels": labels, "annotations": annotations,
                "ownerReferences": pods::owner(self.deployment),
            },
            "spec": {
                "replicas": replicas, "minReadySeconds": spec.min_ready_seconds, "selector": selector,
                "template": template,
            },
        })));
        if replicas > 0 {
            let message = format!("Scaled up replica set {name} from 0 to {replicas}");
            plan.event(self.deployment, self.seen.now, (COMPONENT, "Normal", "ScalingReplicaSet"), message);
        }
        self.tell_revision(revision, plan);
    }

    fn sizes(&self) -> [(String, String); 2] {
        [(DESIRED.into(), self.want.to_string()), (MAX.into(), (self.want + self.max_surge).to_string())]
    }

    fn resize(&self, set: &ReplicaSet, to: i32, plan: &mut Plan) {
        let sizes: BTreeMap<String, String> = self.sizes().into();
        let told = sizes.iter().all(|(key, value)| set.annotations().get(key) == Some(value));
        let from = size(set);
        if from == to && told {
            return;
        }
        plan.patch(set, json!({"metadata": {"annotations": sizes}, "spec": {"replicas": to}}));
        if from != to {
            let way = if to > from { "up" } else { "down" };
            let message = format!("Scaled {way} replica set {} from {from} to {to}", set.name_any());
            plan.event(self.deployment, self.seen.now, (COMPONENT, "Normal", "ScalingReplicaSet"), message);
        }
    }

    fn old_pods_run(&self) -> bool {
        self.old().any(|set| self.seen.pods_of(&set.metadata).any(|pod: &Pod| !pods::has_ended(pod)))
    }

    fn recreate(&self, plan: &mut Plan) {
        let mut went = false;
        for set in self.old().filter(|set| size(set) > 0) {
            self.resize(set, 0, plan);
            went = true;
        }
        if let Some(new) = self.new.filter(|_| !went && !self.old_pods_run()) {
            self.resize(new, self.want, plan);
        }
    }

    fn roll(&self, plan: &mut Plan) {
        let Some(new) = self.new else { return };
        let to = if size(new) > self.want { self.want } else { self.new_size(size(new)) };
        if to != size(new) {
            self.resize(new, to, plan);
            return;
        }
        let min_available = self.want - self.max_unavailable;
        let lacking = size(new) - available(new);
        let room = self.total() - min_available - lacking;
        if room <= 0 {
            return;
        }
        // What does not run is no loss; of what does, as much as may be missing.
        let mut sizes: Vec<(&ReplicaSet, i32)> = self.old().map(|set| (set, size(set))).collect();
        let mut cleaned = 0;
        for (set, size) in &mut sizes {
            let down = (*size - available(set)).min(room - cleaned).max(0);
            *size -= down;
            cleaned += down;
        }
        let mut spare = (self.sets.iter().map(|set| available(set)).sum::<i32>() - min_available).min(room - cleaned);
        for (_, size) in &mut sizes {
            let down = (*size).min(spare).max(0);
            *size -= down;
            spare -= down;
        }
        for (set, to) in sizes.into_iter().filter(|(set, to)| size(set) != *to) {
            self.resize(set, to, plan);
        }
    }

    /// A Deployment whose size has changed, or which is paused: what there is, in proportion.
    fn scale(&self, plan: &mut Plan) {
        let active: Vec<&ReplicaSet> = self.sets.iter().copied().filter(|set| size(set) > 0).collect();
        let latest = || self.new.or(self.sets.last().copied());
        let alone = match active.as_slice() {
            [] => latest(),
            [one] => Some(*one),
            _ => None,
        };
        if let Some(set) = alone {
            self.resize(set, self.want, plan);
            return;
        }
        let full = |set: &&ReplicaSet| {
            size(set) == self.want && number(*set, DESIRED) == Some(self.want) && available(set) == self.want
        };
        if self.new.as_ref().is_some_and(full) {
            for set in self.old().filter(|set| size(set) > 0) {
                self.resize(set, 0, plan);
            }
            return;
        }
        if !self.recreate {
            for (set, to) in self.proportions(active) {
                self.resize(set, to, plan);
            }
        }
    }

    /// New sizes; what does not divide goes to the largest.
    fn proportions(&self, mut active: Vec<&'a ReplicaSet>) -> Vec<(&'a ReplicaSet, i32)> {
        let allowed = if self.want > 0 { self.want + self.max_surge } else { 0 };
        let add = allowed - active.iter().map(|set| size(set)).sum::<i32>();
        // Of two of a size the newer one grows, and the older one shrinks.
        if add > 0 {
            active.reverse();
        }
        active.sort_by_key(|set| std::cmp::Reverse(size(set)));
        let told = self.deployment.status.as_ref().and_then(|status| status.replicas).unwrap_or(0);
        let mut added = 0;
        let mut sizes: Vec<(&ReplicaSet, i32)> = Vec::new();
        for set in active {
            let size = i64::from(size(set));
            let before = i64::from(number(set, MAX).unwrap_or(told).max(1));
            let after = i64::from(self.want + self.max_surge);
            let fraction =
                if self.want == 0 { -size } else { (2 * size * after + before).div_euclid(2 * before) - size };
            let left = i64::from(add - added);
            let share = if add > 0 { fraction.clamp(0, left) } else { fraction.clamp(left.min(0), 0) };
            added += i32::try_from(share).unwrap_or(0);
            sizes.push((set, i32::try_from(size + share).unwrap_or(0)));
        }
        if let Some((_, size)) = sizes.first_mut() {
            *size = (*size + add - added).max(0);
        }
        sizes
    }

    fn is_complete(&self) -> bool {
        self.new.is_some_and(|new| size(new) == self.want && available(new) == self.want)
            && self.old().all(|set| size(set) == 0)
    }

    /// Old sets beyond the history that is to be kept.
    fn clean_up(&self, plan: &mut Plan) {
        let limit = self.deployment.spec.as_ref().and_then(|spec| spec.revision_history_limit);
        let limit = usize::try_from(limit.unwrap_or(HISTORY_LIMIT)).unwrap_or(usize::MAX);
        let empty = |set: &&ReplicaSet| {
            let status = set.status.clone().unwrap_or_default();
            size(set) == 0
                && status.replicas == 0
                && !pods::is_deleted(*set)
                && status.observed_generation >= set.metadata.generation
        };
        let mut old: Vec<&ReplicaSet> = self.old().filter(empty).collect();
        old.sort_by_key(|set| number(*set, REVISION));
        let gone = old.len().saturating_sub(limit);
        for set in &old[..gone] {
            plan.delete(*set);
        }
    }
}

#[cfg(test)]
mod tests;
