//! What a Deployment tells of its rollout.

use jiff::SignedDuration;
use k8s_openapi::{
    api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::ResourceExt;

use super::{Rollout, available, size};
use crate::hollow::workloads::plan::Plan;

pub fn plan(rollout: &Rollout<'_>, plan: &mut Plan) {
    let deployment = rollout.deployment;
    let old = deployment.status.clone().unwrap_or_default();
    let mut status = counts(rollout, &old);
    let mut conditions = Conditions { rollout, list: old.conditions.clone().unwrap_or_default() };
    let enough = status.available_replicas.unwrap_or(0) >= rollout.want - rollout.max_unavailable;
    let (truth, reason, message) = if enough {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    conditions.set("Available", truth, reason, message.to_owned(), false);
    conditions.progress(&old, &status, plan);
    conditions.failure();
    let list = conditions.list;
    status.conditions = (!list.is_empty()).then_some(list);
    if deployment.status.as_ref() != Some(&status) {
        plan.status(&Deployment { status: Some(status), ..deployment.clone() });
    }
}

fn counts(rollout: &Rollout<'_>, old: &DeploymentStatus) -> DeploymentStatus {
    let some = |count: i32| (count > 0).then_some(count);
    let sum = |of: &dyn Fn(&ReplicaSet) -> i32| rollout.sets.iter().map(|set| of(set)).sum::<i32>();
    let told = |set: &ReplicaSet| set.status.clone().unwrap_or_default();
    let running = sum(&available);
    DeploymentStatus {
        observed_generation: rollout.deployment.metadata.generation,
        replicas: some(sum(&|set| told(set).replicas)),
        updated_replicas: some(rollout.new.map_or(0, |new| told(new).replicas)),
        ready_replicas: some(sum(&|set| told(set).ready_replicas.unwrap_or(0))),
        available_replicas: some(running),
        unavailable_replicas: some(sum(&size) - running),
        terminating_replicas: Some(sum(&|set| told(set).terminating_replicas.unwrap_or(0))),
        collision_count: old.collision_count,
        conditions: None,
    }
}

struct Conditions<'a> {
    rollout: &'a Rollout<'a>,
    list: Vec<DeploymentCondition>,
}

impl Conditions<'_> {
    fn get(&self, type_: &str) -> Option<&DeploymentCondition> {
        self.list.iter().find(|condition| condition.type_ == type_)
    }

    /// `fresh`: it counts as written anew though it says the same.
    fn set(&mut self, type_: &str, status: &str, reason: &str, message: String, fresh: bool) {
        let now = Some(Time(self.rollout.seen.now));
        let old = self.get(type_);
        let same = old.is_some_and(|old| old.status == status && old.reason.as_deref() == Some(reason));
        if same && !fresh {
            return;
        }
        let since = old.filter(|old| old.status == status).and_then(|old| old.last_transition_time.clone());
        let condition = DeploymentCondition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_transition_time: since.or_else(|| now.clone()),
            last_update_time: now,
        };
        match self.list.iter_mut().find(|condition| condition.type_ == type_) {
            Some(old) => *old = condition,
            None => self.list.push(condition),
        }
    }

    fn progress(&mut self, old: &DeploymentStatus, new: &DeploymentStatus, plan: &mut Plan) {
        const TYPE: &str = "Progressing";
        let (rollout, spec) = (self.rollout, self.rollout.deployment.spec.clone().unwrap_or_default());
        // The highest number is how the API says that there is no deadline.
        let Some(deadline_s) = Some(spec.progress_deadline_seconds.unwrap_or(600)).filter(|s| *s != i32::MAX) else {
            self.list.retain(|condition| condition.type_ != TYPE);
            return;
        };
        if spec.paused == Some(true) {
            if self.get(TYPE).and_then(|found| found.reason.as_deref()) != Some("ProgressDeadlineExceeded") {
                self.set(TYPE, "Unknown", "DeploymentPaused", "Deployment is paused".into(), false);
            }
            return;
        }
        if self.get(TYPE).and_then(|found| found.reason.as_deref()) == Some("DeploymentPaused") {
            self.set(TYPE, "Unknown", "DeploymentResumed", "Deployment is resumed".into(), false);
        }
        let number = |count: Option<i32>| count.unwrap_or(0);
        let reason = self.get(TYPE).and_then(|found| found.reason.clone());
        let settled = new.replicas == new.updated_replicas && reason.as_deref() == Some("NewReplicaSetAvailable");
        if settled {
            return;
        }
        let name = rollout.new.map(ResourceExt::name_any);
        let about = |said: &str| match &name {
            Some(name) => format!("ReplicaSet \"{name}\" {said}"),
            None => format!("Deployment \"{}\" {said}", rollout.deployment.name_any()),
        };
        let complete = [new.updated_replicas, new.replicas, new.available_replicas]
            .into_iter()
            .all(|count| number(count) == rollout.want);
        let behind = |status: &DeploymentStatus| number(status.replicas) - number(status.updated_replicas);
        let progressing = number(new.updated_replicas) > number(old.updated_replicas)
            || behind(new) < behind(old)
            || number(new.ready_replicas) > number(old.ready_replicas)
            || number(new.available_replicas) > number(old.available_replicas);
        if complete && name.is_some() {
            self.set(TYPE, "True", "NewReplicaSetAvailable", about("has successfully progressed."), false);
        } else if progressing {
            self.set(TYPE, "True", "ReplicaSetUpdated", about("is progressing."), true);
        } else if reason.is_none() || reason.as_deref() == Some("NewReplicaSetAvailable") {
            let (reason, message) = match &name {
                Some(name) => ("NewReplicaSetCreated", format!("Created new replica set \"{name}\"")),
                None => ("ReplicaSetUpdated", about("is progressing.")),
            };
            self.set(TYPE, "True", reason, message, false);
        }
        self.deadline(i64::from(deadline_s), &about("has timed out progressing."), plan);
    }

    fn deadline(&mut self, deadline_s: i64, message: &str, plan: &mut Plan) {
        let Some(condition) = self.get("Progressing").filter(|found| {
            !matches!(found.reason.as_deref(), Some("NewReplicaSetAvailable" | "ProgressDeadlineExceeded"))
        }) else {
            return;
        };
        let Some(since) = condition.last_update_time.as_ref().map(|time| time.0) else { return };
        let end = since.saturating_add(SignedDuration::from_secs(deadline_s)).unwrap_or(since);
        if end > self.rollout.seen.now {
            plan.wake_at(end);
        } else {
            self.set("Progressing", "False", "ProgressDeadlineExceeded", message.to_owned(), false);
        }
    }

    /// What the sets say that could not be made.
    fn failure(&mut self) {
        let failures = self.rollout.sets.iter().flat_map(|set| set.status.iter().flat_map(|status| &status.conditions));
        let failure =
            failures.flatten().find(|condition| condition.type_ == "ReplicaFailure" && condition.status == "True");
        match failure {
            None => self.list.retain(|condition| condition.type_ != "ReplicaFailure"),
            Some(failure) => {
                let reason = failure.reason.clone().unwrap_or_default();
                let message = failure.message.clone().unwrap_or_default();
                let changed = self.get("ReplicaFailure").is_some_and(|old| old.message.as_ref() != Some(&message));
                self.set("ReplicaFailure", "True", &reason, message, changed);
            }
        }
    }
}
