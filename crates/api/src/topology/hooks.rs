//! What a topology asks of runtime extensions: pure, so that asking and answering is another's work. Who computes a
//! topology gets [`TopologyError::Ask`] back, puts the question, adds the answer, and computes again.
//!
//! Source: kubernetes-sigs/cluster-api api/runtime/hooks/v1alpha1, exp/topology/desiredstate/lifecycle_hooks.go.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::TopologyError;
use crate::names::{PENDING_HOOKS_ANNOTATION, digest};

/// Group and version of requests and responses.
pub const VERSION: &str = "hooks.runtime.cluster.x-k8s.io/v1alpha1";
/// Characters of what tells questions apart.
const DIGEST_CHARS: usize = 13;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    BeforeClusterCreate,
    AfterControlPlaneInitialized,
    BeforeClusterUpgrade,
    BeforeControlPlaneUpgrade,
    AfterControlPlaneUpgrade,
    BeforeWorkersUpgrade,
    AfterWorkersUpgrade,
    AfterClusterUpgrade,
    BeforeClusterDelete,
    GeneratePatches,
    ValidateTopology,
    DiscoverVariables,
    GenerateUpgradePlan,
    CanUpdateMachine,
    CanUpdateMachineSet,
    UpdateMachine,
}

impl Hook {
    pub const ALL: [Self; 16] = [
        Self::BeforeClusterCreate,
        Self::AfterControlPlaneInitialized,
        Self::BeforeClusterUpgrade,
        Self::BeforeControlPlaneUpgrade,
        Self::AfterControlPlaneUpgrade,
        Self::BeforeWorkersUpgrade,
        Self::AfterWorkersUpgrade,
        Self::AfterClusterUpgrade,
        Self::BeforeClusterDelete,
        Self::GeneratePatches,
        Self::ValidateTopology,
        Self::DiscoverVariables,
        Self::GenerateUpgradePlan,
        Self::CanUpdateMachine,
        Self::CanUpdateMachineSet,
        Self::UpdateMachine,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::BeforeClusterCreate => "BeforeClusterCreate",
            Self::AfterControlPlaneInitialized => "AfterControlPlaneInitialized",
            Self::BeforeClusterUpgrade => "BeforeClusterUpgrade",
            Self::BeforeControlPlaneUpgrade => "BeforeControlPlaneUpgrade",
            Self::AfterControlPlaneUpgrade => "AfterControlPlaneUpgrade",
            Self::BeforeWorkersUpgrade => "BeforeWorkersUpgrade",
            Self::AfterWorkersUpgrade => "AfterWorkersUpgrade",
            Self::AfterClusterUpgrade => "AfterClusterUpgrade",
            Self::BeforeClusterDelete => "BeforeClusterDelete",
            Self::GeneratePatches => "GeneratePatches",
            Self::ValidateTopology => "ValidateTopology",
            Self::DiscoverVariables => "DiscoverVariables",
            Self::GenerateUpgradePlan => "GenerateUpgradePlan",
            Self::CanUpdateMachine => "CanUpdateMachine",
            Self::CanUpdateMachineSet => "CanUpdateMachineSet",
            Self::UpdateMachine => "UpdateMachine",
        }
    }

    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|hook| hook.name() == name)
    }
}

/// What is to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    pub hook: Hook,
    /// One handler; none: all of the hook, one after the other.
    pub handler: Option<String>,
    /// Without `apiVersion`, `kind` and `settings`.
    pub request: Value,
    /// A map of texts that wins over that of the extension, or null.
    pub settings: Value,
}

impl Question {
    /// Tells questions apart. A hook that is put to all asks one thing at a time.
    pub fn key(&self) -> String {
        match &self.handler {
            None => self.hook.name().to_owned(),
            Some(handler) => {
                let content = json!([self.request, self.settings]).to_string();
                format!("{} {handler} {}", self.hook.name(), digest(&[&content], DIGEST_CHARS))
            }
        }
    }
}

/// What is known of extensions.
#[derive(Clone, Debug, Default)]
pub struct Runtime {
    /// There are extensions at all: then what is to be asked later is noted.
    pub any: bool,
    /// Those that somebody answers for this cluster.
    pub handled: BTreeSet<Hook>,
    /// By the question's key: the response, or why there is none.
    pub answers: BTreeMap<String, Result<Value, String>>,
}

impl Runtime {
    /// The answer to a question.
    ///
    /// # Errors
    /// It has to be asked first, or there is none.
    pub fn answer(&self, question: Question) -> Result<&Value, TopologyError> {
        match self.answers.get(&question.key()) {
            Some(Ok(response)) => Ok(response),
            Some(Err(why)) => Err(TopologyError::Extension(why.clone())),
            None => Err(TopologyError::Ask(Box::new(question))),
        }
    }
}

/// A hook that holds something back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocking {
    pub hook: Hook,
    pub message: String,
    pub retry_after_s: u64,
}

/// The hooks of one computation.
#[derive(Clone, Debug)]
pub struct Calls<'a> {
    runtime: &'a Runtime,
    cluster: Value,
    pending: BTreeSet<String>,
    pub blocking: Vec<Blocking>,
}

impl<'a> Calls<'a> {
    pub fn of(runtime: &'a Runtime, cluster: &Value) -> Self {
        let text = cluster["metadata"]["annotations"][PENDING_HOOKS_ANNOTATION].as_str().unwrap_or_default();
        let pending = text.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        Self { runtime, cluster: shown(cluster), pending, blocking: Vec::new() }
    }

    /// The request about the cluster with further fields.
    pub fn request(&self, fields: Value) -> Value {
        let mut request = json!({ "cluster": self.cluster });
        if let (Some(all), Value::Object(fields)) = (request.as_object_mut(), fields) {
            all.extend(fields);
        }
        request
    }

    pub fn runtime(&self) -> &'a Runtime {
        self.runtime
    }

    pub fn is_pending(&self, hook: Hook) -> bool {
        self.pending.contains(hook.name())
    }

    /// Notes that hooks are to be called later, if there is anybody who could be.
    pub fn expect(&mut self, hooks: &[Hook]) {
        if self.runtime.any {
            self.pending.extend(hooks.iter().map(|hook| hook.name().to_owned()));
        }
    }

    /// The value of the annotation that notes what is to be called; none: nothing is.
    pub fn noted(&self) -> Option<String> {
        let names: Vec<&str> = self.pending.iter().map(String::as_str).collect();
        (!names.is_empty()).then(|| names.join(","))
    }

    /// Whether everybody who handles a hook lets the topology go on.
    ///
    /// # Errors
    /// They have to be asked first, or one failed.
    pub fn passes(&mut self, hook: Hook, fields: Value) -> Result<bool, TopologyError> {
        if !self.runtime.handled.contains(&hook) {
            return Ok(true);
        }
        let question = Question { hook, handler: None, request: self.request(fields), settings: Value::Null };
        let response = self.runtime.answer(question)?;
        let retry_after_s = response["retryAfterSeconds"].as_u64().unwrap_or(0);
        if retry_after_s > 0 {
            let message = response["message"].as_str().unwrap_or_default().to_owned();
            self.blocking.push(Blocking { hook, message, retry_after_s });
        }
        Ok(retry_after_s == 0)
    }

    /// The same for a hook that is called only if that was noted; the note goes when it passes.
    ///
    /// # Errors
    /// As [`Self::passes`].
    pub fn passes_if_noted(&mut self, hook: Hook, fields: Value) -> Result<bool, TopologyError> {
        let passes = !self.is_pending(hook) || self.passes(hook, fields)?;
        if passes {
            self.pending.remove(hook.name());
        }
        Ok(passes)
    }

    /// Calls a hook that holds nothing back, if that was noted.
    ///
    /// # Errors
    /// As [`Self::passes`].
    pub fn tell_if_noted(&mut self, hook: Hook) -> Result<(), TopologyError> {
        let before = self.blocking.len();
        if self.is_pending(hook) {
            self.passes(hook, json!({}))?;
            self.blocking.truncate(before);
            self.pending.remove(hook.name());
        }
        Ok(())
    }
}

/// What blocks, as conditions say it. `what`: what is held back.
pub fn told(blocking: &[Blocking], what: &str) -> String {
    let each = blocking.iter().map(|one| match one.message.as_str() {
        "" => one.hook.name().to_owned(),
        message => format!("{}: {message}", one.hook.name()),
    });
    format!("Following hooks are blocking {what}: {}", each.collect::<Vec<_>>().join("; "))
}

/// The cluster as extensions see it: without what only the API server needs.
fn shown(cluster: &Value) -> Value {
    let mut cluster = cluster.clone();
    if let Some(metadata) = cluster["metadata"].as_object_mut() {
        metadata.remove("managedFields");
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
        }
    }
    cluster
}

/// Whether a cluster that is to be deleted may go: what the hooks before it say.
///
/// # Errors
/// They have to be asked first, or one failed.
pub fn before_delete(runtime: &Runtime, cluster: &Value) -> Result<Vec<Blocking>, TopologyError> {
    let mut calls = Calls::of(runtime, cluster);
    calls.passes(Hook::BeforeClusterDelete, json!({}))?;
    Ok(calls.blocking)
}
