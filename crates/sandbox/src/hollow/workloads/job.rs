//! Pods that are run until enough of them have succeeded.
//!
//! Source: kubernetes/kubernetes pkg/controller/job, pkg/controller/ttlafterfinished. Left out: podFailurePolicy,
//! successPolicy and backoffLimitPerIndex. Finished pods are counted as long as they are there: nothing holds them back with
//! a finalizer.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::{
        batch::v1::{Job, JobCondition, JobSpec, JobStatus, UncountedTerminatedPods},
        core::v1::{EnvVar, Pod},
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::ResourceExt;

use super::{observed::Observed, plan::Plan, pods};

const COMPONENT: &str = "job-controller";
const INDEX: &str = "batch.kubernetes.io/job-completion-index";
const BACKOFF_LIMIT: i32 = 6;
/// Pauses after a pod that failed: doubled each time.
const BACKOFF_MIN_S: i64 = 10;
const BACKOFF_MAX_S: i64 = 600;

pub fn plan(seen: &Observed, plan: &mut Plan) {
    for job in &seen.jobs {
        let Some(spec) = job.spec.as_ref().filter(|_| !pods::is_deleted(job)) else { continue };
        if spec.managed_by.as_ref().is_some_and(|name| name != "kubernetes.io/job-controller") {
            continue;
        }
        match finished_at(job) {
            Some(at) => end(seen, job, spec, at, plan),
            None => Running::new(seen, job, spec).plan(plan),
        }
    }
}

pub fn condition<'a>(job: &'a Job, type_: &str) -> Option<&'a JobCondition> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == type_ && condition.status == "True")
}

/// When it was done with, for better or worse.
pub fn finished_at(job: &Job) -> Option<Timestamp> {
    let last = condition(job, "Complete").or_else(|| condition(job, "Failed"))?;
    Some(last.last_transition_time.as_ref().map_or(Timestamp::MIN, |time| time.0))
}

/// A finished job has no pods that run, and goes when its time is over.
fn end(seen: &Observed, job: &Job, spec: &JobSpec, at: Timestamp, plan: &mut Plan) {
    seen.pods_of(&job.metadata).filter(|pod| pods::is_active(pod)).for_each(|pod| plan.delete(pod));
    if let Some(ttl_s) = spec.ttl_seconds_after_finished {
        let end = at.saturating_add(SignedDuration::from_secs(i64::from(ttl_s))).unwrap_or(Timestamp::MAX);
        if end <= seen.now { plan.delete(job) } else { plan.wake_at(end) }
    }
}

struct Running<'a> {
    seen: &'a Observed,
    job: &'a Job,
    spec: &'a JobSpec,
    pods: Vec<&'a Pod>,
    parallel: i32,
    limit: i32,
    indexed: bool,
}

fn index(pod: &Pod) -> Option<i32> {
    pod.annotations().get(INDEX)?.parse().ok()
}

fn ended_at(pod: &Pod) -> Option<Timestamp> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    let ends =
        statuses.iter().filter_map(|container| container.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref());
    ends.map(|time| time.0).max()
}

/// Numbers in short: `0-2,4`.
fn ranges(numbers: &BTreeSet<i32>) -> String {
    let mut runs: Vec<(i32, i32)> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == *number => *last = *number,
            _ => runs.push((*number, *number)),
        }
    }
    let told =
        runs.iter().map(|(first, last)| if first == last { first.to_string() } else { format!("{first}-{last}") });
    told.collect::<Vec<_>>().join(",")
}

impl<'a> Running<'a> {
    fn new(seen: &'a Observed, job: &'a Job, spec: &'a JobSpec) -> Self {
        Self {
            seen,
            job,
            spec,
            pods: seen.pods_of(&job.metadata).collect(),
            parallel: spec.parallelism.unwrap_or(1),
            limit: spec.backoff_limit.unwrap_or(BACKOFF_LIMIT),
            indexed: spec.completion_mode.as_deref() == Some("Indexed"),
        }
    }

    fn count(&self, is: impl Fn(&Pod) -> bool) -> i32 {
        pods::count(self.pods.iter().copied(), is)
    }

    /// Indexes that are done.
    fn done(&self) -> BTreeSet<i32> {
        let succeeded = self.pods.iter().filter(|pod| pods::phase(pod) == "Succeeded");
        let end = self.spec.completions.unwrap_or(0);
        succeeded.filter_map(|pod| index(pod)).filter(|index| *index < end).collect()
    }

    fn succeeded(&self) -> i32 {
        if self.indexed {
            return i32::try_from(self.done().len()).unwrap_or(i32::MAX);
        }
        self.count(|pod| pods::phase(pod) == "Succeeded")
    }

    fn failed(&self) -> i32 {
        self.count(|pod| pods::phase(pod) == "Failed" || (pods::is_deleted(pod) && !pods::has_ended(pod)))
    }

    fn plan(&self, plan: &mut Plan) {
        let suspended = self.spec.suspend == Some(true);
        let mut status = self.status(suspended);
        let since = status.start_time.as_ref().map_or(self.seen.now, |time| time.0);
        let deadline = self
            .spec
            .active_deadline_seconds
            .map(|seconds| since.saturating_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX));
        if suspended {
            self.active().for_each(|pod| plan.delete(pod));
            self.condition(&mut status, "Suspended", "True", "JobSuspended", "Job suspended", plan);
        } else if let Some((reason, message)) = self.failure(deadline) {
            self.fail(&mut status, reason, message, plan);
        } else if self.is_complete() {
            self.complete(&mut status, plan);
        } else {
            if status.conditions.iter().flatten().any(|found| found.type_ == "Suspended" && found.status == "True") {
                self.condition(&mut status, "Suspended", "False", "JobResumed", "Job resumed", plan);
            }
            if let Some(deadline) = deadline {
                plan.wake_at(deadline);
            }
            self.run(plan);
        }
        if self.job.status.as_ref() != Some(&status) {
            plan.status(&Job { status: Some(status), ..self.job.clone() });
        }
    }

    fn active(&self) -> impl Iterator<Item = &'a Pod> + use<'a, '_> {
        self.pods.iter().copied().filter(|pod| pods::is_active(pod))
    }

    fn is_complete(&self) -> bool {
        match self.spec.completions {
            Some(completions) => self.succeeded() >= completions,
            // A queue of work: one that succeeds knows that nothing is left.
            None => self.succeeded() > 0 && self.active().next().is_none(),
        }
    }

    fn failure(&self, deadline: Option<Timestamp>) -> Option<(&'static str, &'static str)> {
        let restarts: i32 = self
            .active()
            .flat_map(|pod| pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten()))
            .map(|container| container.restart_count)
            .sum();
        let failed = self.count(|pod| pods::phase(pod) == "Failed");
        if failed > self.limit || (restarts > 0 && restarts >= self.limit) {
            return Some(("BackoffLimitExceeded", "Job has reached the specified backoff limit"));
        }
        let late = deadline.is_some_and(|deadline| deadline <= self.seen.now);
        late.then_some(("DeadlineExceeded", "Job was active longer than specified deadline"))
    }

    fn fail(&self, status: &mut JobStatus, reason: &str, message: &str, plan: &mut Plan) {
        self.active().for_each(|pod| plan.delete(pod));
        status.failed = Some(status.failed.unwrap_or(0) + status.active.unwrap_or(0)).filter(|count| *count > 0);
        status.active = None;
        self.condition(status, "FailureTarget", "True", reason, message, plan);
        self.condition(status, "Failed", "True", reason, message, plan);
    }

    fn complete(&self, status: &mut JobStatus, plan: &mut Plan) {
        self.active().for_each(|pod| plan.delete(pod));
        let message = "Reached expected number of succeeded pods";
        self.condition(status, "SuccessCriteriaMet", "True", "CompletionsReached", message, plan);
        self.condition(status, "Complete", "True", "CompletionsReached", message, plan);
        status.completion_time = Some(Time(self.seen.now));
        status.active = None;
    }

    fn condition(
        &self,
        status: &mut JobStatus,
        type_: &str,
        truth: &str,
        reason: &str,
        message: &str,
        plan: &mut Plan,
    ) {
        let list = status.conditions.get_or_insert_default();
        if list.iter().any(|found| found.type_ == type_ && found.status == truth) {
            return;
        }
        list.retain(|found| found.type_ != type_);
        let now = Some(Time(self.seen.now));
        list.push(JobCondition {
            type_: type_.into(),
            status: truth.into(),
            reason: Some(reason.into()),
            message: Some(message.into()),
            last_probe_time: now.clone(),
            last_transition_time: now,
        });
        let event = match type_ {
            "Complete" => ("Normal", "Completed", "Job completed"),
            "Failed" => ("Warning", reason, message),
            "Suspended" if truth == "True" => ("Normal", "Suspended", message),
            "Suspended" => ("Normal", "Resumed", message),
            _ => return,
        };
        plan.event(self.job, self.seen.now, (COMPONENT, event.0, event.1), event.2);
    }

    fn status(&self, suspended: bool) -> JobStatus {
        let old = self.job.status.clone().unwrap_or_default();
        let some = |count: i32| (count > 0).then_some(count);
        let start = if suspended { None } else { old.start_time.clone().or(Some(Time(self.seen.now))) };
        JobStatus {
            active: some(self.count(pods::is_active)),
            ready: Some(self.count(|pod| pods::is_active(pod) && pods::is_ready(pod))),
            succeeded: some(self.succeeded()),
            failed: some(self.failed()),
            terminating: Some(self.count(|pod| pods::is_deleted(pod) && !pods::has_ended(pod))),
            completed_indexes: self.indexed.then(|| ranges(&self.done())).filter(|text| !text.is_empty()),
            uncounted_terminated_pods: Some(UncountedTerminatedPods::default()),
            start_time: start,
            ..old
        }
    }

    /// As many pods as are to run at once, but none before the pause after the last failure is over.
    fn run(&self, plan: &mut Plan) {
        let active = self.count(pods::is_active);
        let want = match self.spec.completions {
            Some(completions) => self.parallel.min(completions - self.succeeded()),
            None if self.succeeded() > 0 => active,
            None => self.parallel,
        };
        let excess = usize::try_from(active - want).unwrap_or(0);
        let mut going: Vec<&Pod> = self.active().collect();
        going.sort_by_cached_key(|pod| pods::deletion_rank(pod));
        going.iter().take(excess).for_each(|pod| plan.delete(*pod));
        let lacking = usize::try_from(want - active).unwrap_or(0);
        // Pods that are going count as those that they are replaced by, unless they may not.
        let lacking = match self.spec.pod_replacement_policy.as_deref() {
            Some("Failed") => {
                let going = self.count(|pod| pods::is_deleted(pod) && !pods::has_ended(pod));
                lacking.saturating_sub(usize::try_from(going).unwrap_or(0))
            }
            _ => lacking,
        };
        if lacking == 0 {
            return;
        }
        if let Some(due) = self.pause_ends().filter(|due| *due > self.seen.now) {
            plan.wake_at(due);
            return;
        }
        let mut indexes = self.free_indexes();
        for _ in 0..lacking.min(pods::BURST) {
            let index = if self.indexed { indexes.next() } else { None };
            if self.indexed && index.is_none() {
                return;
            }
            plan.create(&self.pod(index));
        }
    }

    fn free_indexes(&self) -> impl Iterator<Item = i32> + use<> {
        let mut taken = self.done();
        taken.extend(self.active().filter_map(index));
        (0..self.spec.completions.unwrap_or(0)).filter(move |index| !taken.contains(index))
    }

    fn pause_ends(&self) -> Option<Timestamp> {
        let failed = self.pods.iter().filter(|pod| pods::phase(pod) == "Failed");
        let last = failed.clone().filter_map(|pod| ended_at(pod)).max()?;
        let times = u32::try_from(failed.count()).unwrap_or(1).clamp(1, 10) - 1;
        let pause_s = (BACKOFF_MIN_S << times).min(BACKOFF_MAX_S);
        last.saturating_add(SignedDuration::from_secs(pause_s)).ok()
    }

    fn pod(&self, index: Option<i32>) -> Pod {
        let mut pod = pods::from_template(self.job, &self.spec.template);
        let name = self.job.name_any();
        let uid = self.job.uid().unwrap_or_default();
        let labels: &mut BTreeMap<_, _> = pod.metadata.labels.get_or_insert_default();
        for (key, value) in [("controller-uid", &uid), ("job-name", &name)] {
            labels.insert(key.into(), value.clone());
            labels.insert(format!("batch.kubernetes.io/{key}"), value.clone());
        }
        pod.metadata.generate_name = Some(pods::generate_name(&name));
        if let Some(index) = index {
            labels.insert(INDEX.into(), index.to_string());
            pod.metadata.annotations.get_or_insert_default().insert(INDEX.into(), index.to_string());
            pod.metadata.generate_name = Some(pods::generate_name(&format!("{name}-{index}")));
            let spec = pod.spec.get_or_insert_default();
            spec.hostname.get_or_insert_with(|| format!("{name}-{index}"));
            for container in &mut spec.containers {
                let variable =
                    EnvVar { name: "JOB_COMPLETION_INDEX".into(), value: Some(index.to_string()), ..EnvVar::default() };
                container.env.get_or_insert_default().push(variable);
            }
        }
        pod
    }
}

#[cfg(test)]
mod tests;
