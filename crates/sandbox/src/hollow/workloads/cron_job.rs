//! Jobs at the times of a schedule.
//!
//! Source: kubernetes/kubernetes pkg/controller/cronjob (cronjob_controllerv2.go, utils.go).

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::{
        batch::v1::{CronJob, CronJobSpec, CronJobStatus, Job},
        core::v1::ObjectReference,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::ResourceExt;

use super::{
    job,
    observed::{Observed, is_controlled_by},
    plan::Plan,
    pods,
};

mod schedule;

use schedule::Schedule;

const COMPONENT: &str = "cronjob-controller";
const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
const SUCCESSFUL_LIMIT: i32 = 3;
const FAILED_LIMIT: i32 = 1;
/// Times that were missed and are counted: after a long sleep nobody asks how many exactly.
const MISSED_MAX: usize = 100;

pub fn plan(seen: &Observed, plan: &mut Plan) {
    for cron in &seen.cron_jobs {
        if pods::is_deleted(cron) {
            continue;
        }
        let own = |job: &&Job| is_controlled_by(&job.metadata, &cron.metadata);
        let mut jobs: Vec<&Job> = seen.jobs.iter().filter(own).collect();
        jobs.sort_by_key(|job| job.metadata.creation_timestamp.clone());
        let one = Cron { seen, cron, spec: &cron.spec, jobs };
        one.clean_up(plan);
        let status = one.plan(plan);
        if status != cron.status.clone().unwrap_or_default() {
            plan.status(&CronJob { status: Some(status), ..cron.clone() });
        }
    }
}

struct Cron<'a> {
    seen: &'a Observed,
    cron: &'a CronJob,
    spec: &'a CronJobSpec,
    /// By age.
    jobs: Vec<&'a Job>,
}

impl Cron<'_> {
    fn active(&self) -> impl Iterator<Item = &Job> {
        self.jobs.iter().copied().filter(|job| job::finished_at(job).is_none())
    }

    fn clean_up(&self, plan: &mut Plan) {
        let successful = self.spec.successful_jobs_history_limit.unwrap_or(SUCCESSFUL_LIMIT);
        let failed = self.spec.failed_jobs_history_limit.unwrap_or(FAILED_LIMIT);
        for (type_, limit) in [("Complete", successful), ("Failed", failed)] {
            let done: Vec<&Job> =
                self.jobs.iter().copied().filter(|job| job::condition(job, type_).is_some()).collect();
            let gone = done.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
            done[..gone].iter().filter(|job| !pods::is_deleted(**job)).for_each(|job| plan.delete(*job));
        }
    }

    fn plan(&self, plan: &mut Plan) -> CronJobStatus {
        let old = self.cron.status.clone().unwrap_or_default();
        let reference = |job: &Job| ObjectReference {
            api_version: Some("batch/v1".into()),
            kind: Some("Job".into()),
            name: Some(job.name_any()),
            namespace: job.namespace(),
            uid: job.uid(),
            resource_version: job.resource_version(),
            ..ObjectReference::default()
        };
        // A version that is only newer is no other job.
        let known = |job: &Job| {
            let same = |found: &&ObjectReference| found.uid == job.uid();
            old.active.iter().flatten().find(same).cloned().unwrap_or_else(|| reference(job))
        };
        let active: Vec<_> = self.active().map(known).collect();
        let succeeded = self.jobs.iter().filter_map(|job| job.status.as_ref()?.completion_time.clone()).max();
        let mut status = CronJobStatus {
            active: (!active.is_empty()).then_some(active),
            last_successful_time: succeeded.max(old.last_successful_time.clone()),
            last_schedule_time: old.last_schedule_time.clone(),
        };
        if self.spec.suspend != Some(true) {
            self.run(&mut status, plan);
        }
        status
    }

    fn run(&self, status: &mut CronJobStatus, plan: &mut Plan) {
        let schedule = match Schedule::read(&self.spec.schedule, self.spec.time_zone.as_deref()) {
            Ok(schedule) => schedule,
            Err(error) => {
                let why = (COMPONENT, "Warning", "UnParseableCronJobSchedule");
                plan.event(self.cron, self.seen.now, why, error.to_string());
                return;
            }
        };
        let created = self.cron.metadata.creation_timestamp.as_ref().map_or(self.seen.now, |time| time.0);
        let mut since = status.last_schedule_time.as_ref().map_or(created, |time| time.0);
        let deadline = self.spec.starting_deadline_seconds.map(SignedDuration::from_secs);
        if let Some(earliest) = deadline.and_then(|deadline| self.seen.now.checked_sub(deadline).ok()) {
            since = since.max(earliest);
        }
        let (mut due, mut next) = (None, schedule.next(since));
        for missed in 0.. {
            let Some(at) = next.filter(|at| *at <= self.seen.now) else { break };
            due = Some(at);
            next = if missed < MISSED_MAX { schedule.next(at) } else { schedule.next(self.seen.now) };
        }
        if let Some(next) = next {
            plan.wake_at(next);
        }
        let Some(due) = due else { return };
        let name = format!("{}-{}", self.cron.name_any(), due.as_second() / 60);
        if self.jobs.iter().any(|job| job.name_any() == name) {
            status.last_schedule_time = Some(Time(due));
            return;
        }
        match self.spec.concurrency_policy.as_deref() {
            Some("Forbid") if self.active().next().is_some() => {
                let message = "Not starting job because prior execution is running and concurrency policy is Forbid";
                plan.event(self.cron, self.seen.now, (COMPONENT, "Normal", "JobAlreadyActive"), message);
                return;
            }
            Some("Replace") => self.active().for_each(|job| plan.delete(job)),
            _ => {}
        }
        // That it was started is told when it is there.
        self.start(&name, due, plan);
    }

    fn start(&self, name: &str, due: Timestamp, plan: &mut Plan) {
        let template = &self.spec.job_template;
        let given = template.metadata.clone().unwrap_or_default();
        let mut job = Job { spec: template.spec.clone(), ..Job::default() };
        job.metadata.name = Some(name.to_owned());
        job.metadata.namespace = self.cron.namespace();
        job.metadata.labels = given.labels;
        let mut annotations = given.annotations.unwrap_or_default();
        annotations.insert(SCHEDULED.into(), due.to_string());
        job.metadata.annotations = Some(annotations);
        job.metadata.owner_references = Some(pods::owner(self.cron));
        plan.create(&job);
        let message = format!("Created job {name}");
        plan.event(self.cron, self.seen.now, (COMPONENT, "Normal", "SuccessfulCreate"), message);
    }
}

#[cfg(test)]
mod tests;
