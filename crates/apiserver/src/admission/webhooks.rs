//! Admission webhooks (admission.k8s.io `AdmissionReview`): what each is asked, and what its answer means
//! (`apiserver/pkg/admission/plugin/webhook`).

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use serde_json::{Value, json};
use store::SharedStore;
use tokio::time::Instant;

use super::{
    chain::{Findings, Reinvocation},
    expression::{Authorizer, Conditions, Facts, request_value},
    matching::{Constraints, Subject, texts},
};
use crate::{
    decode,
    kinds::Kind,
    object::{at, text_at},
    patch,
    status::{Error, Result},
    trace::{self, Span},
    webhook::Endpoint,
};

/// An answer may have so many bytes: a patch may replace the whole of the largest object.
pub(crate) const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;
/// What a webhook is given if its configuration does not say it.
const TIMEOUT_S: u64 = 10;

/// One webhook of a configuration, ready to be called.
#[derive(Debug)]
pub(crate) struct Hook {
    /// Of the configuration, the webhook and its place.
    pub id: String,
    pub name: String,
    constraints: Constraints,
    conditions: Conditions,
    ignores_failures: bool,
    pub reinvocable: bool,
    dry_runs: bool,
    timeout_s: u64,
    /// The version of the review that it takes.
    version: Option<&'static str>,
    endpoint: Result<Endpoint, String>,
}

/// The webhooks of a configuration.
pub(crate) fn read(configuration: &Value) -> Vec<Hook> {
    let name = crate::object::name(configuration);
    let list = configuration.get("webhooks").and_then(Value::as_array).into_iter().flatten();
    list.enumerate().map(|(place, hook)| Hook::read(name, place, hook)).collect()
}

/// Why a webhook's word does not count, or counts against the request.
enum Refusal {
    /// It could not be asked: its failure policy decides.
    Failed(String),
    /// It said no, or was not to be asked.
    Denied(Error),
}

/// What a webhook that lets a request through has to say.
#[derive(Debug, Default)]
struct Answer {
    patch: Option<Value>,
}

impl Hook {
    fn read(configuration: &str, place: usize, hook: &Value) -> Self {
        let name = text_at(hook, &["name"]).to_owned();
        let known = |version: &String| match version.as_str() {
            "v1" => Some("v1"),
            "v1beta1" => Some("v1beta1"),
            _ => None,
        };
        Self {
            id: format!("{configuration}/{name}/{place}"),
            constraints: Constraints::of_webhook(hook),
            conditions: Conditions::read(hook, false),
            ignores_failures: text_at(hook, &["failurePolicy"]) == "Ignore",
            reinvocable: text_at(hook, &["reinvocationPolicy"]) == "IfNeeded",
            dry_runs: matches!(text_at(hook, &["sideEffects"]), "None" | "NoneOnDryRun"),
            timeout_s: hook.get("timeoutSeconds").and_then(Value::as_u64).unwrap_or(TIMEOUT_S),
            version: texts(hook.get("admissionReviewVersions")).iter().find_map(known),
            endpoint: Endpoint::of(hook.get("clientConfig").unwrap_or(&Value::Null)),
            name,
        }
    }

    /// What it is to be asked, if it is to be asked at all.
    async fn invocation(&self, subject: &Subject<'_>, object: Option<&Value>) -> Result<Option<Invocation>> {
        let Some(kind) = self.constraints.matches(subject, object).await? else { return Ok(None) };
        let object = subject.any_in_version(&kind, object).await?;
        let old = subject.any_in_version(&kind, subject.old.as_deref()).await?;
        let request = request_value(subject, &kind);
        if !self.conditions.is_empty() {
            let facts = Facts {
                object: object.clone().unwrap_or_default(),
                old: old.clone().unwrap_or_default(),
                namespace: Value::Null,
                request: request.clone(),
                params: Value::Null,
                authorizer: Authorizer::new(subject.server, subject.request),
            };
            match facts.settled(|facts| self.conditions.hold(facts)).await {
                Ok(true) => {}
                Ok(false) => return Ok(None),
                Err(_) if self.ignores_failures => return Ok(None),
                Err(why) => return Err(subject.forbidden(facts.object.is_object().then_some(&facts.object), why)),
            }
        }
        Ok(Some(Invocation { kind, object, old, request }))
    }

    async fn ask(
        &self,
        subject: &Subject<'_>,
        invocation: &Invocation,
        mutating: bool,
        deadline: Instant,
    ) -> (Findings, Result<Answer, Refusal>) {
        let mut findings = Findings::default();
        let answer = self.exchange(subject, invocation, mutating, deadline, &mut findings).await;
        (findings, answer)
    }

    async fn exchange(
        &self,
        subject: &Subject<'_>,
        invocation: &Invocation,
        mutating: bool,
        deadline: Instant,
        findings: &mut Findings,
    ) -> Result<Answer, Refusal> {
        if subject.request.dry_run && !self.dry_runs {
            let why = format!("admission webhook {:?} does not support dry run", self.name);
            return Err(Refusal::Denied(Error::bad_request(why)));
        }
        let Some(version) = self.version else {
            let why = "could not create admission objects: webhook does not accept known AdmissionReview versions (v1, v1beta1)";
            return Err(Refusal::Failed(why.to_owned()));
        };
        let review = format!("admission.k8s.io/{version}");
        let uid = uuid::Uuid::new_v4().to_string();
        let mut request = invocation.request.clone();
        request["uid"] = uid.as_str().into();
        request["object"] = invocation.object.clone().unwrap_or_default();
        request["oldObject"] = invocation.old.clone().unwrap_or_default();
        if request.get("options").is_none() {
            request["options"] = Value::Null;
        }
        let body = json!({"kind": "AdmissionReview", "apiVersion": review, "request": request});
        let mut span = self.span(subject, mutating);
        let body = body.to_string().into_bytes();
        let call = || self.call(subject.server.store(), body, deadline);
        let answered = trace::within(span.as_ref().map(Span::context), call).await;
        if let (Some(span), Err(why)) = (&mut span, &answered) {
            span.failed(why);
        }
        drop(span);
        let answered = answered.map_err(|why| Refusal::Failed(format!("failed to call webhook: {why}")))?;
        let invalid = |why: String| Refusal::Failed(format!("received invalid webhook response: {why}"));
        let response = verified(&answered, &uid, &review, mutating).map_err(invalid)?;
        for (key, value) in response.get("auditAnnotations").and_then(Value::as_object).into_iter().flatten() {
            let value = value.as_str().unwrap_or_default().to_owned();
            findings.annotations.insert(format!("{}/{key}", self.name), value);
        }
        findings.warnings.extend(texts(response.get("warnings")));
        if response.get("allowed") != Some(&Value::Bool(true)) {
            return Err(Refusal::Denied(self.denied(response)));
        }
        self.patch(response)
    }

    fn span(&self, subject: &Subject<'_>, mutating: bool) -> Option<Span> {
        let name = if mutating { "Call mutating webhook" } else { "Call validating webhook" };
        let mut span = trace::child(|| name.to_owned(), trace::Kind::Client)?;
        span.text("configuration", self.id.split('/').next().unwrap_or_default());
        span.text("webhook", &self.name);
        span.text("resource", &subject.request.resource);
        span.text("subresource", &subject.request.subresource);
        Some(span)
    }

    async fn call(&self, store: &SharedStore, body: Vec<u8>, deadline: Instant) -> Result<Value, String> {
        let endpoint = self.endpoint.as_ref().map_err(Clone::clone)?;
        let own = Instant::now() + Duration::from_secs(self.timeout_s);
        let asked = endpoint.post(Some(store), body, Some(self.timeout_s), ANSWER_BYTES_MAX);
        let url = endpoint.url(Some(self.timeout_s));
        let bytes = match tokio::time::timeout_at(own.min(deadline), asked).await {
            Ok(answer) => answer.map_err(|error| error.text(&url))?,
            Err(_) => return Err(format!("Post {url:?}: context deadline exceeded")),
        };
        serde_json::from_slice(&bytes)
            .map_err(|_| format!("couldn't get version/kind; json parse error: {}", decode::json_fault(&bytes)))
    }

    fn denied(&self, response: &Value) -> Error {
        let by = format!("admission webhook {:?} denied the request", self.name);
        let result = at(response, &["status"]).filter(|status| status.is_object()).cloned().unwrap_or_default();
        let (message, reason) = (text_at(&result, &["message"]), text_at(&result, &["reason"]));
        let text = match (message, reason) {
            ("", "") => format!("{by} without explanation"),
            ("", reason) => format!("{by}: {reason}"),
            (message, _) => format!("{by}: {message}"),
        };
        Error::from_status(&result, text)
    }

    fn patch(&self, response: &Value) -> Result<Answer, Refusal> {
        use base64::{Engine, engine::general_purpose::STANDARD};
        let text = text_at(response, &["patch"]);
        if text.is_empty() {
            return Ok(Answer::default());
        }
        let undecodable =
            |why: String| Refusal::Failed(format!("received undecodable patch in webhook response: {why}"));
        let bytes = STANDARD.decode(text).map_err(|error| undecodable(error.to_string()))?;
        if text_at(response, &["patchType"]) != "JSONPatch" && at(response, &["patchType"]).is_some() {
            return Err(Refusal::Failed(format!("unsupported patch type {:?}", text_at(response, &["patchType"]))));
        }
        let patch: Value = serde_json::from_slice(&bytes).map_err(|_| undecodable(decode::json_fault(&bytes)))?;
        match &patch {
            Value::Array(operations) if operations.is_empty() => Ok(Answer::default()),
            Value::Array(_) => Ok(Answer { patch: Some(patch) }),
            Value::Null => Ok(Answer::default()),
            other => {
                let found = match other {
                    Value::Object(_) => "object",
                    Value::String(_) => "string",
                    Value::Number(_) => "number",
                    _ => "bool",
                };
                Err(undecodable(format!("json: cannot unmarshal {found} into Go value of type jsonpatch.Patch")))
            }
        }
    }

    /// What becomes of the request if the webhook's word does not count.
    fn settle(&self, refusal: Refusal) -> Result<()> {
        match refusal {
            Refusal::Denied(error) => Err(error),
            Refusal::Failed(why) if self.ignores_failures => {
                tracing::warn!(webhook = self.name, why, "an admission webhook failed, which its policy lets pass");
                Ok(())
            }
            Refusal::Failed(why) => Err(Error::internal(format!("failed calling webhook {:?}: {why}", self.name))),
        }
    }
}

struct Invocation {
    kind: Arc<Kind>,
    object: Option<Value>,
    old: Option<Value>,
    request: Value,
}

/// The response of a review, which must be the answer to this question.
fn verified<'r>(review: &'r Value, uid: &str, version: &str, mutating: bool) -> Result<&'r Value, String> {
    let response = at(review, &["response"]).filter(|response| response.is_object());
    let response = response.ok_or("webhook response was absent")?;
    if version.ends_with("v1beta1") {
        return Ok(response);
    }
    let found = text_at(response, &["uid"]);
    if found != uid {
        return Err(format!("expected response.uid={uid:?}, got {found:?}"));
    }
    let (api, kind) = (text_at(review, &["apiVersion"]), text_at(review, &["kind"]));
    if api != version || kind != "AdmissionReview" {
        let (group, plain) = crate::kinds::split_api_version(api);
        return Err(format!(
            "expected webhook response of {version}, Kind=AdmissionReview, got {group}/{plain}, Kind={kind}"
        ));
    }
    let patch = !text_at(response, &["patch"]).is_empty();
    let patch_type = at(response, &["patchType"]).filter(|found| !found.is_null());
    match (mutating, patch, patch_type) {
        (true, true, None) => Err("webhook returned response.patch but not response.patchType".to_owned()),
        (true, false, Some(_)) => Err("webhook returned response.patchType but not response.patch".to_owned()),
        (true, _, Some(Value::String(text))) if text.is_empty() => {
            Err("webhook returned invalid response.patchType of \"\"".to_owned())
        }
        (false, true, _) => Err("validating webhook may not return response.patch".to_owned()),
        (false, _, Some(_)) => Err("validating webhook may not return response.patchType".to_owned()),
        _ => Ok(response),
    }
}

fn timed_out() -> Error {
    Error::timeout("Timeout: request did not complete within requested timeout")
}

/// Asks the mutating webhooks one after another, each seeing what the one before it made.
pub(crate) async fn mutate(
    hooks: &[&Hook],
    subject: &Subject<'_>,
    object: &mut Option<&mut Value>,
    reinvocation: &mut Reinvocation,
    deadline: Instant,
    findings: &mut Findings,
) -> Result<()> {
    for hook in hooks {
        let Some(invocation) = hook.invocation(subject, object.as_deref()).await? else { continue };
        if !reinvocation.wants(&hook.id) {
            continue;
        }
        let (found, answer) = hook.ask(subject, &invocation, true, deadline).await;
        findings.add(found);
        let changed = match answer {
            Ok(Answer { patch: None }) => Ok(false),
            Ok(Answer { patch: Some(patch) }) => {
                apply(hook, subject, &invocation, &patch, object).await.map_err(Refusal::Denied)
            }
            Err(refusal) => Err(refusal),
        };
        if matches!(changed, Ok(true)) {
            reinvocation.changed();
        }
        if hook.reinvocable {
            reinvocation.invoked(&hook.id);
        }
        if let Err(refusal) = changed {
            hook.settle(refusal)?;
            if Instant::now() >= deadline {
                return Err(timed_out());
            }
        }
    }
    Ok(())
}

/// Whether the patch changed anything.
async fn apply(
    hook: &Hook,
    subject: &Subject<'_>,
    invocation: &Invocation,
    patch: &Value,
    object: &mut Option<&mut Value>,
) -> Result<bool> {
    let (Some(object), Some(before)) = (object.as_deref_mut(), &invocation.object) else {
        let why = format!(
            "admission webhook {:?} attempted to modify the object, which is not supported for this operation",
            hook.name
        );
        return Err(Error::internal(why));
    };
    let mut patched = before.clone();
    patch::json_patch(&mut patched, patch).map_err(Error::internal)?;
    super::chain::reshape(&invocation.kind, &subject.request.subresource, &mut patched)?;
    if patched == *before {
        return Ok(false);
    }
    *object = subject.back_from(&invocation.kind, patched).await?;
    Ok(true)
}

/// Asks the validating webhooks, all at once. Of several refusals the first in order counts.
pub(crate) async fn validate(
    hooks: &[&Hook],
    subject: &Subject<'_>,
    object: Option<&Value>,
    deadline: Instant,
    findings: &mut Findings,
) -> Result<()> {
    let mut relevant = Vec::new();
    for hook in hooks {
        if let Some(invocation) = hook.invocation(subject, object).await? {
            relevant.push((*hook, invocation));
        }
    }
    if relevant.is_empty() {
        return Ok(());
    }
    if Instant::now() >= deadline {
        return Err(timed_out());
    }
    let mut asked = Vec::with_capacity(relevant.len());
    for (hook, invocation) in &relevant {
        asked.push(hook.ask(subject, invocation, false, deadline));
    }
    let mut outcome = Ok(());
    for ((hook, _), (found, answer)) in relevant.iter().zip(join_all(asked).await) {
        findings.add(found);
        if let Err(refusal) = answer {
            outcome = outcome.and(hook.settle(refusal));
        }
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_must_be_to_the_question() {
        let review = |response: Value| json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response});
        let v1 = "admission.k8s.io/v1";
        let cases = [
            (review(json!({"uid": "u", "allowed": true})), true, None),
            (json!({}), true, Some("webhook response was absent")),
            (review(json!({"uid": "x"})), true, Some("expected response.uid=\"u\", got \"x\"")),
            (
                json!({"response": {"uid": "u"}}),
                true,
                Some("expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got /, Kind="),
            ),
            (
                review(json!({"uid": "u", "patch": "W10="})),
                true,
                Some("webhook returned response.patch but not response.patchType"),
            ),
            (
                review(json!({"uid": "u", "patchType": "JSONPatch"})),
                true,
                Some("webhook returned response.patchType but not response.patch"),
            ),
            (
                review(json!({"uid": "u", "patch": "W10="})),
                false,
                Some("validating webhook may not return response.patch"),
            ),
            (
                review(json!({"uid": "u", "patchType": "JSONPatch"})),
                false,
                Some("validating webhook may not return response.patchType"),
            ),
        ];
        for (review, mutating, expected) in cases {
            assert_eq!(verified(&review, "u", v1, mutating).err().as_deref(), expected, "{review}");
        }
    }
}
