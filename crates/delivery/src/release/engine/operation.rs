//! What is done with a release and how far it is: kept with the release, so that anybody can go on.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use sha2::{Digest, Sha256};

use super::{Options, Request};
use crate::release::{
    chart,
    hooks::{Place, ordered},
    record::{Release, Status},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    Install,
    Upgrade,
    Rollback,
    Uninstall,
}

/// Each begins when the one before is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// The hooks that come first.
    Before,
    Apply,
    Wait,
    /// The hooks that come last.
    After,
    Finish,
    /// Something failed: what has to be tidied up is.
    Fail,
    Ended,
}

/// In what tells requests apart: what is asked for stands before it, which try it is after it.
const BEFORE_TOKEN: char = '/';

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    pub kind: Kind,
    /// Tells requests apart.
    pub request: String,
    pub options: Options,
    /// When all of it began: tells its hooks from those of an earlier try.
    pub begun: Timestamp,
    pub step: Step,
    /// When the step, or the hook, began.
    pub since: Timestamp,
    /// Of the hooks of the step.
    pub hooks: Place,
    /// The revisions that the cluster may hold objects of, the oldest first.
    pub previous: Vec<i64>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The event whose hook failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_in: Option<Step>,
    /// Why it undoes another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
}

impl Operation {
    /// Whether this is what is requested. Another token is another try, which is for what has ended: what is under way is gone on with.
    pub fn is_of(&self, request: &str) -> bool {
        let content = |request: &str| request.split(BEFORE_TOKEN).next().map(str::to_owned);
        self.request == request || self.step != Step::Ended && content(&self.request) == content(request)
    }

    pub fn new(kind: Kind, request: String, options: Options, release: &Release, now: Timestamp) -> Self {
        let mut operation = Self {
            kind,
            request,
            options,
            begun: now,
            step: Step::Before,
            since: now,
            hooks: Place::default(),
            previous: Vec::new(),
            error: None,
            failed_in: None,
            cause: None,
        };
        if !operation.has_hooks(release) {
            operation.step = Step::Apply;
        }
        operation
    }

    /// Whose hooks a step runs.
    pub fn event(&self, step: Step) -> Option<&'static str> {
        match (step, self.kind) {
            (Step::Before, Kind::Install) => Some("pre-install"),
            (Step::Before, Kind::Upgrade) => Some("pre-upgrade"),
            (Step::Before, Kind::Rollback) => Some("pre-rollback"),
            (Step::Before, Kind::Uninstall) => Some("pre-delete"),
            (Step::After, Kind::Install) => Some("post-install"),
            (Step::After, Kind::Upgrade) => Some("post-upgrade"),
            (Step::After, Kind::Rollback) => Some("post-rollback"),
            (Step::After, Kind::Uninstall) => Some("post-delete"),
            _ => None,
        }
    }

    fn has_hooks(&self, release: &Release) -> bool {
        let event = if self.options.no_hooks { None } else { self.event(self.step) };
        event.is_some_and(|event| !ordered(release, event, &[]).is_empty())
    }

    /// Goes to the next step in which there is something to do.
    pub fn advance(&mut self, release: &Release, now: Timestamp) {
        loop {
            self.step = match self.step {
                Step::Before => Step::Apply,
                Step::Apply => Step::Wait,
                Step::Wait => Step::After,
                Step::After => Step::Finish,
                last => last,
            };
            let is_empty = match self.step {
                Step::Wait => !self.options.wait && !self.options.atomic,
                Step::After => !self.has_hooks(release),
                _ => false,
            };
            if !is_empty {
                break;
            }
        }
        (self.since, self.hooks) = (now, Place::default());
    }

    pub fn is_late(&self, now: Timestamp) -> bool {
        let limit = i64::try_from(self.options.timeout_s).unwrap_or(i64::MAX);
        now.as_second().saturating_sub(self.since.as_second()) >= limit
    }

    /// The status of a release that this is done with.
    pub fn pending(&self) -> Status {
        match self.kind {
            Kind::Install => Status::PendingInstall,
            Kind::Upgrade => Status::PendingUpgrade,
            Kind::Rollback => Status::PendingRollback,
            Kind::Uninstall => Status::Uninstalling,
        }
    }
}

fn text(sum: Sha256) -> String {
    sum.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

fn told(parts: &[&str]) -> Sha256 {
    let mut sum = Sha256::new();
    for part in parts {
        sum.update(part.len().to_le_bytes());
        sum.update(part);
    }
    sum
}

/// Chart and values, and after [`BEFORE_TOKEN`] the token: not how it is to be done.
pub fn digest(request: &Request<'_>) -> String {
    let values = Json::Object(request.values.clone()).to_string();
    let mut sum = told(&["deploy", request.name, request.namespace, &values]);
    chart::sum(request.chart.chart(), &mut sum);
    format!("{}{BEFORE_TOKEN}{}", text(sum), request.token)
}

pub fn rollback_digest(name: &str, namespace: &str, to: Option<i64>, token: &str) -> String {
    let sum = told(&["rollback", name, namespace, &to.unwrap_or_default().to_string()]);
    format!("{}{BEFORE_TOKEN}{token}", text(sum))
}
