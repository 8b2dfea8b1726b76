//! Pods with names of their own, made and replaced in order, and their claims.
//!
//! Source: kubernetes/kubernetes pkg/controller/statefulset (stateful_set_control.go, stateful_set_utils.go).

use k8s_openapi::api::{
    apps::v1::{ControllerRevision, StatefulSet, StatefulSetSpec, StatefulSetStatus},
    core::v1::{PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume},
};
use kube::ResourceExt;
use serde_json::{Value, json};

use super::{
    history::{self, History},
    observed::Observed,
    plan::{Plan, value},
    pods,
};

const COMPONENT: &str = "statefulset-controller";
const HISTORY_LIMIT: i32 = 10;
const NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";
const INDEX_LABEL: &str = "apps.kubernetes.io/pod-index";

pub fn plan(seen: &Observed, plan: &mut Plan) {
    for set in seen.stateful_sets.iter().filter(|set| !pods::is_deleted(*set)) {
        let Some(spec) = set.spec.as_ref().filter(|_| !plan.is_adopting(set)) else { continue };
        let history = History::of(seen, set, &spec.template);
        let Some(update) = history.current else {
            history.create(set, set.status.as_ref().and_then(|status| status.collision_count), plan);
            continue;
        };
        let told = set.status.as_ref().and_then(|status| status.current_revision.clone());
        let old = history.old.iter().find(|revision| Some(revision.name_any()) == told).copied();
        let one = Ordered { seen, set, spec, update, current: old.unwrap_or(update) };
        one.step(plan);
        one.claims_that_go(plan);
        let status = one.status(plan);
        if set.status.as_ref() != Some(&status) {
            plan.status(&StatefulSet { status: Some(status), ..set.clone() });
        }
        let pods: Vec<&Pod> = seen.pods_of(&set.metadata).collect();
        history.clean_up(spec.revision_history_limit.unwrap_or(HISTORY_LIMIT), &pods, plan);
    }
}

struct Ordered<'a> {
    seen: &'a Observed,
    set: &'a StatefulSet,
    spec: &'a StatefulSetSpec,
    /// The revision that pods are brought to, and the one that they come from.
    update: &'a ControllerRevision,
    current: &'a ControllerRevision,
}

impl<'a> Ordered<'a> {
    fn first(&self) -> i32 {
        self.spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0)
    }

    fn size(&self) -> i32 {
        self.spec.replicas.unwrap_or(1)
    }

    fn in_order(&self) -> bool {
        self.spec.pod_management_policy.as_deref() != Some("Parallel")
    }

    fn strategy(&self) -> (bool, i32, i32) {
        let strategy = self.spec.update_strategy.as_ref();
        let on_delete = strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete");
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let partition = rolling.and_then(|rolling| rolling.partition).unwrap_or(0);
        let missing = pods::share(rolling.and_then(|rolling| rolling.max_unavailable.as_ref()), self.size(), true);
        (on_delete, partition, missing.max(1))
    }

    fn ordinal(&self, pod: &Pod) -> Option<i32> {
        pod.name_any().strip_prefix(&self.set.name_any())?.strip_prefix('-')?.parse().ok()
    }

    fn own(&self) -> Vec<(i32, &'a Pod)> {
        let all = self.seen.pods_of(&self.set.metadata);
        let mut all: Vec<_> = all.filter_map(|pod| Some((self.ordinal(pod)?, pod))).collect();
        all.sort_by_key(|(ordinal, _)| *ordinal);
        all
    }

    fn is_available(&self, pod: &Pod) -> bool {
        pods::phase(pod) == "Running" && pods::is_available(pod, self.spec.min_ready_seconds, self.seen.now)
    }

    fn is_healthy(&self, pod: &Pod) -> bool {
        !pods::is_deleted(pod) && self.is_available(pod)
    }

    fn step(&self, plan: &mut Plan) {
        let own = self.own();
        let range = self.first()..self.first().saturating_add(self.size());
        for ordinal in range.clone() {
            let pod = own.iter().find(|(found, _)| *found == ordinal).map(|(_, pod)| *pod);
            match pod {
                None => {
                    self.create(ordinal, plan);
                    if self.in_order() {
                        return;
                    }
                }
                Some(pod) if pods::has_ended(pod) && !pods::is_deleted(pod) => {
                    let message = format!(
                        "StatefulSet {}/{} is recreating {} Pod {}",
                        pod.namespace().unwrap_or_default(),
                        self.set.name_any(),
                        pods::phase(pod).to_lowercase(),
                        pod.name_any()
                    );
                    plan.event(self.set, self.seen.now, (COMPONENT, "Warning", "RecreatingTerminatedPod"), message);
                    plan.delete(pod);
                    return;
                }
                // Also one that never will be healthy: whoever mends its template deletes it by hand, as in life.
                Some(pod) if self.in_order() && !self.is_healthy(pod) => return,
                Some(_) => {}
            }
        }
        for (_, pod) in own.iter().rev().filter(|(ordinal, _)| !range.contains(ordinal)) {
            if !pods::is_deleted(*pod) {
                self.delete(pod, plan);
            }
            if self.in_order() {
                return;
            }
        }
        self.roll(&own, plan);
    }

    /// Replaces pods of another revision, the highest first, as many as may be missing at a time.
    fn roll(&self, own: &[(i32, &Pod)], plan: &mut Plan) {
        let (on_delete, partition, missing) = self.strategy();
        if on_delete {
            return;
        }
        let range = self.first() + partition..self.first().saturating_add(self.size());
        let mut room = missing;
        for (_, pod) in own.iter().rev().filter(|(ordinal, _)| range.contains(ordinal)) {
            let stale = pod.labels().get(history::HASH_LABEL) != Some(&self.update.name_any());
            if !stale && self.is_healthy(pod) {
                continue;
            }
            if stale && !pods::is_deleted(*pod) {
                self.delete(pod, plan);
            }
            room -= 1;
            if room <= 0 {
                return;
            }
        }
    }

    fn delete(&self, pod: &Pod, plan: &mut Plan) {
        plan.delete(pod);
        let (set, name) = (self.set.name_any(), pod.name_any());
        let message = format!("delete Pod {name} in StatefulSet {set} successful");
        plan.event(self.set, self.seen.now, (COMPONENT, "Normal", "SuccessfulDelete"), message);
    }

    /// The revision that a new pod is of: in a rollout from above, those below stay as they were.
    fn revision(&self, ordinal: i32) -> &'a ControllerRevision {
        let (on_delete, partition, _) = self.strategy();
        let status = self.set.status.clone().unwrap_or_default();
        let kept = match partition {
            0 => status.current_replicas.unwrap_or(0),
            partition => partition,
        };
        let old = !on_delete && ordinal < self.first() + kept;
        if old { self.current } else { self.update }
    }

    fn create(&self, ordinal: i32, plan: &mut Plan) {
        let revision = self.revision(ordinal);
        let template = revision.data.as_ref().and_then(|data| data.0.pointer("/spec/template").cloned());
        let mut template = template.unwrap_or_default();
        if let Some(object) = template.as_object_mut() {
            object.remove("$patch");
        }
        let Ok(template) = serde_json::from_value::<PodTemplateSpec>(template) else { return };
        let name = format!("{}-{ordinal}", self.set.name_any());
        let mut pod = pods::from_template(self.set, &template);
        pod.metadata.name = Some(name.clone());
        let labels = pod.metadata.labels.get_or_insert_default();
        labels.insert(NAME_LABEL.into(), name.clone());
        labels.insert(INDEX_LABEL.into(), ordinal.to_string());
        labels.insert(history::HASH_LABEL.into(), revision.name_any());
        let spec = pod.spec.get_or_insert_default();
        spec.hostname = Some(name.clone());
        spec.subdomain = self.spec.service_name.clone();
        let volumes = spec.volumes.get_or_insert_default();
        for template in self.spec.volume_claim_templates.iter().flatten() {
            let volume = template.name_any();
            volumes.retain(|other| other.name != volume);
            let claim_name = format!("{volume}-{name}");
            let source = PersistentVolumeClaimVolumeSource { claim_name: claim_name.clone(), read_only: None };
            volumes.push(Volume { name: volume, persistent_volume_claim: Some(source), ..Volume::default() });
            let there = |claim: &PersistentVolumeClaim| {
                claim.name_any() == claim_name && claim.namespace() == self.set.namespace()
            };
            if !self.seen.claims.iter().any(there) {
                plan.create(&self.claim(template, &claim_name));
            }
        }
        plan.create(&pod);
        let message = format!("create Pod {name} in StatefulSet {} successful", self.set.name_any());
        plan.event(self.set, self.seen.now, (COMPONENT, "Normal", "SuccessfulCreate"), message);
    }

    fn claim(&self, template: &PersistentVolumeClaim, name: &str) -> PersistentVolumeClaim {
        let mut claim = PersistentVolumeClaim { spec: template.spec.clone(), ..PersistentVolumeClaim::default() };
        claim.metadata.name = Some(name.to_owned());
        claim.metadata.namespace = self.set.namespace();
        claim.metadata.annotations = template.metadata.annotations.clone();
        let mut labels = template.metadata.labels.clone().unwrap_or_default();
        labels.extend(self.spec.selector.match_labels.clone().unwrap_or_default());
        claim.metadata.labels = Some(labels);
        claim
    }

    /// Claims go with their set, or with their pod, if the set says so.
    fn claims_that_go(&self, plan: &mut Plan) {
        let policy = self.spec.persistent_volume_claim_retention_policy.clone().unwrap_or_default();
        let deletes = |when: Option<&String>| when.map(String::as_str) == Some("Delete");
        let own = self.own();
        let range = self.first()..self.first().saturating_add(self.size());
        for template in self.spec.volume_claim_templates.iter().flatten() {
            let prefix = format!("{}-{}-", template.name_any(), self.set.name_any());
            let mine = self.seen.claims.iter().filter(|claim| claim.namespace() == self.set.namespace());
            for claim in mine {
                let Some(ordinal) = claim.name_any().strip_prefix(&prefix).and_then(|rest| rest.parse::<i32>().ok())
                else {
                    continue;
                };
                let wanted: Vec<Value> = if deletes(policy.when_deleted.as_ref()) {
                    pods::owner(self.set).iter().map(value).collect()
                } else {
                    Vec::new()
                };
                let set = |uid: &str| Some(uid) == self.set.metadata.uid.as_deref();
                let owned = claim.owner_references().iter().any(|owner| set(&owner.uid));
                if owned == wanted.is_empty() {
                    let mut owners: Vec<Value> =
                        claim.owner_references().iter().filter(|owner| !set(&owner.uid)).map(value).collect();
                    owners.extend(wanted);
                    plan.patch(claim, json!({"metadata": {"ownerReferences": owners}}));
                }
                let gone = !range.contains(&ordinal) && !own.iter().any(|(other, _)| *other == ordinal);
                if gone && deletes(policy.when_scaled.as_ref()) && !pods::is_deleted(claim) {
                    plan.delete(claim);
                }
            }
        }
    }

    fn status(&self, plan: &mut Plan) -> StatefulSetStatus {
        let own = self.own();
        let old = self.set.status.clone().unwrap_or_default();
        let all = || own.iter().map(|(_, pod)| *pod);
        let of = |revision: &ControllerRevision| {
            let name = revision.name_any();
            pods::count(all(), |pod| !pods::is_deleted(pod) && pod.labels().get(history::HASH_LABEL) == Some(&name))
        };
        let ready = pods::count(all(), |pod| pods::phase(pod) == "Running" && pods::is_ready(pod));
        let (current, updated) = (of(self.current), of(self.update));
        let done = updated == self.size() && ready == self.size() && self.strategy().1 == 0;
        let some = |count: i32| (count > 0).then_some(count);
        let later = all().filter_map(|pod| pods::available_at(pod, self.spec.min_ready_seconds));
        if let Some(next) = later.filter(|at| *at > self.seen.now).min() {
            plan.wake_at(next);
        }
        StatefulSetStatus {
            observed_generation: self.set.metadata.generation,
            replicas: pods::count(all(), |_| true),
            ready_replicas: some(ready),
            available_replicas: Some(pods::count(all(), |pod| self.is_available(pod))),
            current_replicas: some(if done { updated } else { current }),
            updated_replicas: some(updated),
            current_revision: Some(if done { self.update.name_any() } else { self.current.name_any() }),
            update_revision: Some(self.update.name_any()),
            collision_count: Some(old.collision_count.unwrap_or(0)),
            conditions: old.conditions,
        }
    }
}

#[cfg(test)]
mod tests;
