//! One request through all of admission, in the order that [`crate::admission`] tells.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde_json::Value;
use tokio::time::Instant;

use super::{
    Operation, Request,
    matching::Subject,
    mutations, plugins, policies,
    registry::Registry,
    webhooks::{self, Hook},
};
use crate::{
    decode,
    kinds::Kind,
    object,
    rest::scale_view,
    status::{Error, Result},
    write::{self, Scope},
};

/// Admission of one request takes no longer than this; each webhook has a time of its own within it.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Who changes may be asked once more, not more often.
const ROUNDS: usize = 2;

/// What is to be told about a request besides the decision.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub warnings: Vec<String>,
    /// For the audit log.
    pub annotations: BTreeMap<String, String>,
}

impl Findings {
    pub fn add(&mut self, other: Self) {
        self.warnings.extend(other.warnings);
        self.annotations.extend(other.annotations);
    }

    fn tell(self, scope: &mut Scope) {
        for warning in self.warnings {
            if !scope.warnings.contains(&warning) {
                scope.warnings.push(warning);
            }
        }
        scope.annotations.extend(self.annotations);
    }
}

/// Who is asked again after others have changed what they saw.
#[derive(Debug, Default)]
pub(crate) struct Reinvocation {
    again: bool,
    previous: BTreeSet<String>,
    required: BTreeSet<String>,
    /// What the last of them left.
    last: Option<Value>,
    should: bool,
}

impl Reinvocation {
    /// Whether it is somebody's turn: in the first round everybody's.
    pub fn wants(&self, id: &str) -> bool {
        !self.again || self.required.contains(id)
    }

    pub fn invoked(&mut self, id: &str) {
        self.previous.insert(id.to_owned());
    }

    /// Something changed: those who saw it before see it again.
    pub fn changed(&mut self) {
        self.required.append(&mut self.previous);
        self.should = true;
    }

    fn begin(&mut self, round: usize, object: Option<&Value>) {
        self.again = round > 0;
        if self.again && self.last.as_ref() != object {
            self.required.append(&mut self.previous);
        }
    }
}

/// Makes of what a webhook or a policy left an object as if it had come from outside: of the right types, without unknown
/// fields, with its defaults.
pub(crate) fn reshape(kind: &Kind, subresource: &str, object: &mut Value) -> Result<()> {
    if !subresource.is_empty() && subresource != "status" {
        return Ok(());
    }
    write::check_type(object, &kind.api_version(), &kind.kind).map_err(|wrong| Error::internal(wrong.reason()))?;
    write::fit(kind, object).map_err(Error::internal)?;
    decode::fill(kind, object);
    decode::drop_empty(kind, object);
    if let Some(schema) = kind.schema() {
        schema.prune(object);
        schema.default(object);
    }
    Ok(())
}

/// Lets everybody change an object who may; none if it is being deleted. True: it was changed.
pub(crate) async fn mutate(scope: &mut Scope, request: &Request, object: Option<&mut Value>) -> Result<bool> {
    if scope.admitted {
        return Ok(false);
    }
    let start = Instant::now();
    let outcome = change(scope, request, object).await;
    let metrics = &scope.server.state().metrics;
    metrics.admitted("admit", request.operation.as_str(), outcome.is_err(), start.elapsed());
    outcome
}

/// Asks policies and webhooks about what is sent to a subresource: a CREATE of a binding, a token or an eviction, or a CONNECT.
/// The plugins are asked about what it comes to.
pub(crate) async fn subresource(scope: &mut Scope, operation: Operation, body: &mut Value) -> Result<()> {
    let registry = scope.server.hooks();
    if registry.is_empty() {
        return Ok(());
    }
    let request = scope.admission_request(operation, None);
    let (server, kind) = (scope.server.clone(), scope.kind.clone());
    let subject = Subject::new(&server, &kind, &request);
    let mut findings = Findings::default();
    let outcome = by_hooks(&registry, &subject, body, &mut findings).await;
    findings.tell(scope);
    outcome.map_err(|error| told(error, scope))
}

async fn by_hooks(registry: &Registry, subject: &Subject<'_>, body: &mut Value, findings: &mut Findings) -> Result<()> {
    let deadline = Instant::now() + TIMEOUT;
    let hooks: Vec<&Hook> = registry.mutating.values().flat_map(|hooks| hooks.iter()).collect();
    let mut seen = Some(&mut *body);
    webhooks::mutate(&hooks, subject, &mut seen, &mut Reinvocation::default(), deadline, findings).await?;
    policies::validate(registry, subject, Some(body), findings).await?;
    let hooks: Vec<&Hook> = registry.validating.values().flat_map(|hooks| hooks.iter()).collect();
    webhooks::validate(&hooks, subject, Some(body), deadline, findings).await
}

async fn change(scope: &mut Scope, request: &Request, object: Option<&mut Value>) -> Result<bool> {
    let registry = scope.server.hooks();
    let chain = scope.server.state().options.admission.clone();
    let chain: Vec<_> = chain.iter().filter(|plugin| plugin.concerns(request)).collect();
    let exempt = is_exempt(request);
    let quiet = exempt || (registry.mutating.is_empty() && registry.mutations.is_empty());
    let (server, kind) = (scope.server.clone(), scope.kind.clone());
    let subject = Subject::new(&server, &kind, request);
    let Some(object) = object else {
        if !quiet {
            let mut findings = Findings::default();
            let deadline = Instant::now() + TIMEOUT;
            let (mut none, mut once) = (None, Reinvocation::default());
            let hooks: Vec<&Hook> = registry.mutating.values().flat_map(|hooks| hooks.iter()).collect();
            let asked = webhooks::mutate(&hooks, &subject, &mut none, &mut once, deadline, &mut findings);
            let asked = asked.await;
            findings.tell(scope);
            asked.map_err(|error| told(error, scope))?;
        }
        return Ok(false);
    };
    let mut changed = plugins::mutate(&subject, object).await?;
    let before = (!quiet || !chain.is_empty()).then(|| object.clone());
    if !quiet && request.operation == Operation::Create && kind.namespaced {
        // Nobody is asked about what cannot be made anyway; without anybody to ask, the commit finds out.
        write::namespace_guard(scope).await?;
    }
    let mut by_policies = Reinvocation::default();
    let mut by_hooks = Reinvocation::default();
    let mut findings = Findings::default();
    let deadline = Instant::now() + TIMEOUT;
    for round in 0..ROUNDS {
        if round > 0 && !(by_policies.should || by_hooks.should) {
            break;
        }
        if round > 0 {
            changed |= plugins::mutate(&subject, object).await?;
        }
        for plugin in &chain {
            let warnings = plugin.mutate(request, object).await.map_err(|denied| denied.into_error(request))?;
            findings.warnings.extend(warnings);
        }
        if quiet {
            break;
        }
        let outcome = async {
            let mut view = viewed(&kind, request, object);
            by_policies.begin(round, Some(&view));
            mutations::mutate(&registry, &subject, &mut view, &mut by_policies).await?;
            by_policies.last = Some(view.clone());
            by_hooks.begin(round, Some(&view));
            let mut seen = Some(&mut view);
            let hooks: Vec<&Hook> = registry.mutating.values().flat_map(|hooks| hooks.iter()).collect();
            webhooks::mutate(&hooks, &subject, &mut seen, &mut by_hooks, deadline, &mut findings).await?;
            by_hooks.last = Some(view.clone());
            unviewed(&kind, request, view, object)
        };
        if let Err(error) = outcome.await {
            findings.tell(scope);
            return Err(told(error, scope));
        }
    }
    findings.tell(scope);
    changed |= before.is_some_and(|before| before != *object);
    if changed {
        reshape(&kind, "", object)?;
    }
    Ok(changed)
}

/// A refusal, with all that was found until then.
fn told(error: Error, scope: &Scope) -> Error {
    error.with_warnings(&scope.warnings).with_annotations(&scope.annotations)
}

/// Asks everybody who may refuse.
pub(crate) async fn validate(scope: &mut Scope, request: &Request, object: Option<&Value>) -> Result<()> {
    if scope.admitted {
        return Ok(());
    }
    let (server, kind) = (scope.server.clone(), scope.kind.clone());
    let subject = Subject::new(&server, &kind, request);
    let mut findings = Findings::default();
    let start = Instant::now();
    let outcome = asked(&subject, object, &mut findings).await;
    let metrics = &server.state().metrics;
    metrics.admitted("validate", request.operation.as_str(), outcome.is_err(), start.elapsed());
    findings.tell(scope);
    outcome.map_err(|error| told(error, scope))
}

async fn asked(subject: &Subject<'_>, object: Option<&Value>, findings: &mut Findings) -> Result<()> {
    let request = subject.request;
    plugins::validate(subject, object)?;
    let shown = object.or(request.old.as_deref());
    if let Some(shown) = shown {
        for plugin in subject.server.state().options.admission.iter().filter(|plugin| plugin.concerns(request)) {
            let warnings = plugin.validate(request, shown).await.map_err(|denied| denied.into_error(request))?;
            findings.warnings.extend(warnings);
        }
    }
    let registry = subject.server.hooks();
    if is_exempt(request) || (registry.validating.is_empty() && registry.policies.is_empty()) {
        return Ok(());
    }
    let view = object.map(|object| viewed(subject.kind, request, object));
    policies::validate(&registry, subject, view.as_ref(), findings).await?;
    let hooks: Vec<&Hook> = registry.validating.values().flat_map(|hooks| hooks.iter()).collect();
    webhooks::validate(&hooks, subject, view.as_ref(), Instant::now() + TIMEOUT, findings).await
}

/// What decides over admission is not itself decided over by it: nobody could mend a webhook that refuses its own change. A
/// binding has been seen as what it is.
fn is_exempt(request: &Request) -> bool {
    request.group == super::GROUP || request.subresource == "binding"
}

/// What is seen of an object: of one that is scaled, its scale.
fn viewed(kind: &Kind, request: &Request, object: &Value) -> Value {
    match (&kind.scale, request.subresource.as_str()) {
        (Some(paths), "scale") => scale_view(paths, object),
        _ => object.clone(),
    }
}

fn unviewed(kind: &Kind, request: &Request, view: Value, object: &mut Value) -> Result<()> {
    match (&kind.scale, request.subresource.as_str()) {
        (Some(paths), "scale") => {
            if view != scale_view(paths, object) {
                let version = object::resource_version(object).to_owned();
                *object = crate::rest::scale_write_back(kind, paths, &view, object)?;
                object::set_at(object, &["metadata", "resourceVersion"], version.into());
            }
        }
        _ => *object = view,
    }
    Ok(())
}
