//! Admission policies and their bindings, and what validating ones decide
//! (`apiserver/pkg/admission/plugin/policy/{generic,validating}`).

use std::{collections::BTreeMap, sync::Arc};

use policy::cel::{MESSAGE_BYTES_MAX, Value as Cel};
use serde_json::Value;

use super::{
    chain::Findings,
    expression::{
        Activation, Authorizer, Conditions, Expression, Facts, POLICY_COST_MAX, Scope, Variable, request_value,
    },
    matching::{Constraints, Subject, matches_labels, texts},
    registry::Registry,
};
use crate::{
    kinds::{Kind, split_api_version},
    object::{self, at, text_at},
    rest,
    selector::Labels,
    status::{Cause, Error, Result},
    write,
};

/// Values of audit annotations are cut off behind this.
const ANNOTATION_BYTES_MAX: usize = 10 * 1024;
/// What the expressions of mutations come to.
pub(crate) const OBJECT: &str = "Object";
pub(crate) const PATCHES: &str = "list(JSONPatch)";

/// A policy of either sort, compiled.
#[derive(Debug)]
pub(crate) struct Policy {
    pub name: String,
    constraints: Constraints,
    pub conditions: Conditions,
    pub ignores_failures: bool,
    /// apiVersion and kind.
    pub param_kind: Option<(String, String)>,
    pub variables: Vec<Variable>,
    validations: Vec<Validation>,
    annotations: Vec<(String, Expression)>,
    pub mutations: Vec<Mutation>,
    pub reinvocable: bool,
}

#[derive(Debug)]
struct Validation {
    expression: Expression,
    message: String,
    message_expression: Option<Expression>,
    reason: &'static str,
}

/// How an object is changed.
#[derive(Debug)]
pub(crate) enum Mutation {
    /// Fields that are laid over it.
    Apply(Expression),
    /// Operations of a JSON patch.
    Patch(Expression),
}

/// Puts a policy into force.
#[derive(Debug)]
pub(crate) struct Binding {
    pub name: String,
    pub policy: String,
    constraints: Option<Constraints>,
    params: Option<ParamRef>,
    actions: Vec<String>,
}

#[derive(Debug)]
struct ParamRef {
    name: String,
    namespace: String,
    selector: Result<Labels, String>,
    denies: bool,
}

pub(crate) fn scope(params: bool, authorizer: bool, variables: &[Variable]) -> Scope {
    Scope::new(params, authorizer, false).with_variables(variables)
}

pub(crate) fn patch_scope(params: bool, variables: &[Variable]) -> Scope {
    Scope::new(params, true, true).with_variables(variables)
}

/// The variables of a policy; each may speak of those before it.
pub(crate) fn variables(spec: &Value, params: bool) -> Vec<Variable> {
    let mut variables = Vec::new();
    for variable in spec.get("variables").and_then(Value::as_array).into_iter().flatten() {
        let source = text_at(variable, &["expression"]);
        let expression = Expression::compile(source, &scope(params, true, &variables), &[]);
        variables.push(Variable { name: text_at(variable, &["name"]).to_owned(), expression });
    }
    variables
}

fn list<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

impl Policy {
    pub fn read(policy: &Value) -> Self {
        let nothing = Value::Null;
        let spec = policy.get("spec").unwrap_or(&nothing);
        let param_kind = at(spec, &["paramKind"]).filter(|kind| kind.is_object());
        let params = param_kind.is_some();
        let variables = variables(spec, params);
        let usual = scope(params, true, &variables);
        let messages = scope(params, false, &variables);
        let patches = patch_scope(params, &variables);
        let validation = |validation: &Value| Validation {
            expression: Expression::compile(text_at(validation, &["expression"]), &usual, &["bool"]),
            message: text_at(validation, &["message"]).trim().to_owned(),
            message_expression: Some(text_at(validation, &["messageExpression"]))
                .filter(|source| !source.is_empty())
                .map(|source| Expression::compile(source, &messages, &["string"])),
            reason: match text_at(validation, &["reason"]) {
                "Unauthorized" => "Unauthorized",
                "Forbidden" => "Forbidden",
                "RequestEntityTooLarge" => "RequestEntityTooLarge",
                _ => "Invalid",
            },
        };
        let annotation = |annotation: &Value| {
            let source = text_at(annotation, &["valueExpression"]).trim();
            (text_at(annotation, &["key"]).to_owned(), Expression::compile(source, &usual, &["string", "null"]))
        };
        let mutation = |mutation: &Value| match text_at(mutation, &["patchType"]) {
            "JSONPatch" => {
                let source = text_at(mutation, &["jsonPatch", "expression"]).trim();
                Mutation::Patch(Expression::compile(source, &patches, &[PATCHES]))
            }
            _ => {
                let source = text_at(mutation, &["applyConfiguration", "expression"]).trim();
                Mutation::Apply(Expression::compile(source, &patches, &[OBJECT]))
            }
        };
        Self {
            name: object::name(policy).to_owned(),
            constraints: Constraints::of_policy(spec.get("matchConstraints")),
            conditions: Conditions::read(spec, params),
            ignores_failures: text_at(spec, &["failurePolicy"]) == "Ignore",
            param_kind: param_kind
                .map(|kind| (text_at(kind, &["apiVersion"]).to_owned(), text_at(kind, &["kind"]).to_owned())),
            validations: list(spec, "validations").iter().map(validation).collect(),
            annotations: list(spec, "auditAnnotations").iter().map(annotation).collect(),
            mutations: list(spec, "mutations").iter().map(mutation).collect(),
            reinvocable: text_at(spec, &["reinvocationPolicy"]) == "IfNeeded",
            variables,
        }
    }
}

impl Binding {
    pub fn read(binding: &Value) -> Self {
        let spec = |key: &str| at(binding, &["spec", key]).filter(|value| !value.is_null());
        let params = spec("paramRef").map(|reference| ParamRef {
            name: text_at(reference, &["name"]).to_owned(),
            namespace: text_at(reference, &["namespace"]).to_owned(),
            selector: reference
                .get("selector")
                .map_or_else(|| Ok(Labels::default()), Labels::from_value)
                .map_err(|error| error.to_string()),
            denies: text_at(reference, &["parameterNotFoundAction"]) == "Deny",
        });
        Self {
            name: object::name(binding).to_owned(),
            policy: text_at(binding, &["spec", "policyName"]).to_owned(),
            constraints: spec("matchResources").map(|resources| Constraints::of_policy(Some(resources))),
            params,
            actions: texts(spec("validationActions")),
        }
    }
}

/// A policy with a binding and a parameter that is about a request.
pub(crate) struct Invocation<'r> {
    pub policy: &'r Policy,
    pub binding: &'r Binding,
    /// In the version that the policy wants.
    pub kind: Arc<Kind>,
    /// Null if there is none.
    pub params: Value,
}

/// A policy that cannot be evaluated for a request: what is wrong with it, or with its binding.
pub(crate) struct Broken<'r> {
    pub policy: &'r Policy,
    pub binding: Option<&'r Binding>,
    pub why: String,
}

type Policies = BTreeMap<String, Arc<Policy>>;
type Bindings = BTreeMap<(String, String), Arc<Binding>>;

/// The policies that are about a request, in the order of their names.
pub(crate) async fn relevant<'r>(
    policies: &'r Policies,
    bindings: &'r Bindings,
    subject: &Subject<'_>,
    object: Option<&Value>,
) -> (Vec<Invocation<'r>>, Vec<Broken<'r>>) {
    let (mut found, mut broken) = (Vec::new(), Vec::new());
    for (name, policy) in policies {
        let first = (name.clone(), String::new());
        let bound = bindings.range(first..).take_while(|((of, _), _)| of == name);
        let bound: Vec<&Binding> = bound.map(|(_, binding)| &**binding).collect();
        if bound.is_empty() {
            continue;
        }
        let policy = &**policy;
        let mut complain = |binding: Option<&'r Binding>, why: String| {
            let of = if binding.is_some() { "binding" } else { "policy" };
            broken.push(Broken { policy, binding, why: format!("failed to configure {of}: {why}") });
        };
        let kind = match policy.constraints.matches(subject, object).await {
            Err(error) => {
                complain(None, error.to_string());
                continue;
            }
            Ok(None) => continue,
            Ok(Some(kind)) => kind,
        };
        let param_kind = match find_param_kind(subject, policy) {
            Err(why) => {
                complain(None, why);
                continue;
            }
            Ok(param_kind) => param_kind,
        };
        for binding in bound {
            match &binding.constraints {
                None => {}
                Some(constraints) => match constraints.matches(subject, object).await {
                    Err(error) => {
                        complain(Some(binding), error.to_string());
                        continue;
                    }
                    Ok(None) => continue,
                    Ok(Some(_)) => {}
                },
            }
            match params(subject, param_kind.as_deref(), binding).await {
                Err(why) => complain(Some(binding), why),
                Ok(list) => found.extend(list.into_iter().map(|params| Invocation {
                    policy,
                    binding,
                    kind: Arc::clone(&kind),
                    params,
                })),
            }
        }
    }
    (found, broken)
}

fn find_param_kind(subject: &Subject<'_>, policy: &Policy) -> Result<Option<Arc<Kind>>, String> {
    let Some((api_version, kind)) = &policy.param_kind else { return Ok(None) };
    let (group, version) = split_api_version(api_version);
    match subject.server.catalog().find_kind(group, version, kind) {
        Some(found) => Ok(Some(found)),
        None => {
            let shown = if group.is_empty() { format!("/{version}") } else { api_version.clone() };
            Err(format!("failed to find resource referenced by paramKind: '{shown}, Kind={kind}'"))
        }
    }
}

/// The parameters that a binding names; one that is null if it names none.
async fn params(subject: &Subject<'_>, kind: Option<&Kind>, binding: &Binding) -> Result<Vec<Value>, String> {
    let (Some(kind), Some(reference)) = (kind, &binding.params) else { return Ok(vec![Value::Null]) };
    let mut namespace = "";
    if kind.namespaced {
        namespace = match (reference.namespace.as_str(), subject.namespace_name()) {
            ("", "") => {
                let why = "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources";
                return Err(why.to_owned());
            }
            ("", own) => own,
            (said, _) => said,
        };
    } else if !reference.namespace.is_empty() {
        return Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".to_owned());
    }
    let text = |error: Error| error.to_string();
    let mut found = Vec::new();
    if reference.name.is_empty() {
        let selector = reference.selector.as_ref().map_err(Clone::clone)?;
        let take = |kv| {
            let param = rest::served_value(kind, &kv)?;
            if matches_labels(selector, &param) {
                found.push(param);
            }
            Ok(())
        };
        rest::for_each(subject.server, kind, namespace, take).await.map_err(text)?;
    } else {
        let key = kind.storage.key(namespace, &reference.name);
        if let Some(kv) = write::get(subject.server, key).await.map_err(text)? {
            found.push(rest::served_value(kind, &kv).map_err(text)?);
        }
    }
    if found.is_empty() && reference.denies {
        return Err("no params found for policy binding with `Deny` parameterNotFoundAction".to_owned());
    }
    Ok(found)
}

/// What the expressions of an invocation speak of.
pub(crate) async fn facts(invocation: &Invocation<'_>, subject: &Subject<'_>, object: Option<&Value>) -> Result<Facts> {
    let namespaced = !subject.kind.is_namespace() && !subject.request.namespace.is_empty();
    Ok(Facts {
        object: subject.any_in_version(&invocation.kind, object).await?.unwrap_or_default(),
        old: subject.any_in_version(&invocation.kind, subject.old.as_deref()).await?.unwrap_or_default(),
        namespace: if namespaced { subject.namespace().await?.clone() } else { Value::Null },
        request: request_value(subject, &invocation.kind),
        params: invocation.params.clone(),
        authorizer: Authorizer::new(subject.server, subject.request),
    })
}

/// Somebody's no.
struct Denial<'r> {
    policy: &'r Policy,
    binding: Option<&'r Binding>,
    message: String,
    reason: &'static str,
}

/// What one validation, or what comes before them, says against a request.
struct Objection {
    index: usize,
    message: String,
    reason: &'static str,
}

/// Asks the validating policies.
pub(crate) async fn validate(
    registry: &Registry,
    subject: &Subject<'_>,
    object: Option<&Value>,
    findings: &mut Findings,
) -> Result<()> {
    if registry.policies.is_empty() || registry.bindings.is_empty() {
        return Ok(());
    }
    let (invocations, broken) = relevant(&registry.policies, &registry.bindings, subject, object).await;
    let mut denials: Vec<Denial<'_>> = broken
        .into_iter()
        .filter(|broken| !broken.policy.ignores_failures)
        .map(|broken| Denial { policy: broken.policy, binding: broken.binding, message: broken.why, reason: "" })
        .collect();
    let mut annotations: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for invocation in &invocations {
        let (policy, binding) = (invocation.policy, invocation.binding);
        let facts = facts(invocation, subject, object).await?;
        for objection in facts.settled(|facts| evaluate(policy, facts)).await {
            for action in &binding.actions {
                match action.as_str() {
                    "Deny" => denials.push(Denial {
                        policy,
                        binding: Some(binding),
                        message: objection.message.clone(),
                        reason: objection.reason,
                    }),
                    "Warn" => findings.warnings.push(format!(
                        "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {}",
                        policy.name, binding.name, objection.message
                    )),
                    _ => {
                        let value = serde_json::json!([{
                            "message": objection.message, "policy": binding.policy, "binding": binding.name,
                            "expressionIndex": objection.index, "validationActions": binding.actions,
                        }]);
                        let key = "validation.policy.admission.k8s.io/validation_failure";
                        findings.annotations.insert(key.to_owned(), value.to_string());
                    }
                }
            }
        }
        match facts.settled(|facts| annotate(policy, facts)).await {
            Ok(found) => {
                for (key, value) in found {
                    let values = annotations.entry(format!("{}/{key}", policy.name)).or_default();
                    if !values.contains(&value) {
                        values.push(value);
                    }
                }
            }
            Err(_) if policy.ignores_failures => {}
            Err(message) => denials.push(Denial { policy, binding: Some(binding), message, reason: "" }),
        }
    }
    findings.annotations.extend(annotations.into_iter().map(|(key, values)| (key, values.join(", "))));
    match denials.first() {
        None => Ok(()),
        Some(denial) => Err(denied(subject, object, denial)),
    }
}

fn denied(subject: &Subject<'_>, object: Option<&Value>, denial: &Denial<'_>) -> Error {
    let by = match denial.binding {
        Some(binding) => {
            format!("ValidatingAdmissionPolicy '{}' with binding '{}'", denial.policy.name, binding.name)
        }
        None => format!("ValidatingAdmissionPolicy '{}'", denial.policy.name),
    };
    let message = format!("{by} denied request: {}", denial.message);
    let (code, reason) = match denial.reason {
        "Forbidden" => (403, "Forbidden"),
        "Unauthorized" => (401, "Unauthorized"),
        "RequestEntityTooLarge" => (413, "RequestEntityTooLarge"),
        _ => (422, "Invalid"),
    };
    let cause = Cause { message: message.clone(), ..Cause::default() };
    subject.forbidden(object, message).recast(code, reason, cause)
}

/// What a policy has against a request.
fn evaluate(policy: &Policy, facts: &Facts) -> Vec<Objection> {
    let failed = |message: String| match policy.ignores_failures {
        true => Vec::new(),
        false => vec![Objection { index: 0, message, reason: "" }],
    };
    match policy.conditions.hold(facts) {
        Ok(true) => {}
        Ok(false) => return Vec::new(),
        Err(why) => return failed(why),
    }
    let activation = Activation::new(facts, &policy.variables, POLICY_COST_MAX);
    let evaluated: Result<Vec<_>, String> =
        policy.validations.iter().map(|validation| activation.evaluate(&validation.expression)).collect();
    let evaluated = match evaluated {
        Ok(evaluated) => evaluated,
        Err(why) => return failed(why),
    };
    let messages = Activation::new(facts, &policy.variables, activation.left());
    let said = policy.validations.iter().map(|validation| match &validation.message_expression {
        None => Ok(None),
        Some(expression) => messages.evaluate(expression).map(Some),
    });
    let said: Result<Vec<_>, String> = said.collect();
    let mut objections = Vec::new();
    for (index, (validation, found)) in policy.validations.iter().zip(evaluated).enumerate() {
        let fault = match (found, &said) {
            (Err(why), _) => Some(why),
            (Ok(_), Err(why)) => Some(format!("failed messageExpression: {why}")),
            (Ok(Cel::Bool(true)), _) => continue,
            _ => None,
        };
        if let Some(message) = fault {
            if !policy.ignores_failures {
                objections.push(Objection { index, message, reason: "" });
            }
            continue;
        }
        let said = said.as_ref().ok().and_then(|said| said.get(index));
        let message = match said {
            Some(Some(Ok(Cel::String(text)))) => {
                let text = text.as_str().trim();
                Some(text).filter(|text| text.len() <= MESSAGE_BYTES_MAX && !text.contains('\n')).unwrap_or_default()
            }
            _ => "",
        };
        let message = match (message, validation.message.as_str()) {
            ("", "") => format!("failed expression: {}", validation.expression.source.trim()),
            ("", message) => message.to_owned(),
            (message, _) => message.to_owned(),
        };
        objections.push(Objection { index, message, reason: validation.reason });
    }
    objections
}

/// What a policy has to say for the audit log.
fn annotate(policy: &Policy, facts: &Facts) -> Result<Vec<(String, String)>, String> {
    if policy.annotations.is_empty() || !matches!(policy.conditions.hold(facts), Ok(true)) {
        return Ok(Vec::new());
    }
    let activation = Activation::new(facts, &policy.variables, POLICY_COST_MAX);
    let mut found = Vec::new();
    for (key, expression) in &policy.annotations {
        if let Cel::String(text) = activation.evaluate(expression)?? {
            let text = text.as_str().trim();
            let end = (0..=text.len().min(ANNOTATION_BYTES_MAX)).rev().find(|end| text.is_char_boundary(*end));
            let text = text.get(..end.unwrap_or(0)).unwrap_or_default();
            if !text.is_empty() {
                found.push((key.clone(), text.to_owned()));
            }
        }
    }
    Ok(found)
}
