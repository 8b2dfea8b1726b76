//! Somebody else who is asked whether a request may be made (`apiserver/plugin/pkg/authorizer/webhook`): a SubjectAccessReview
//! over HTTPS, whose answer is kept for a while.
//!
//! Left out: the label selectors of requests (they only make a question narrower), and calling again what failed.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
    time::Duration,
};

use parking_lot::Mutex;
use policy::{
    cel::{Budget, Decl, Merge, Program, Type, Value as Cel},
    rbac::Attributes,
};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Question, Verdict};
use crate::{
    object::text_at,
    trace::{self, Span},
    webhook::Endpoint,
};

/// Answers that are kept of each webhook.
const ANSWERS_MAX: usize = 8192;
/// The answer to a question of more bytes is not kept (upstream's `maxControlledAttrCacheSize`).
const QUESTION_BYTES_MAX: usize = 10_000;
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

static SPEC: LazyLock<Arc<Decl>> = LazyLock::new(|| {
    let text = || Arc::new(Decl::string(None));
    let texts = || Arc::new(Decl::list(text(), None, Merge::Atomic));
    let object = |fields: Vec<(&str, Arc<Decl>)>, min_bytes: u64| {
        Arc::new(Decl::object(fields.into_iter().map(|(name, decl)| (name.into(), decl)), min_bytes))
    };
    let requirement = || object(vec![("key", text()), ("operator", text()), ("values", texts())], 2);
    let selector = || {
        let requirements = Arc::new(Decl::list(requirement(), None, Merge::Atomic));
        object(vec![("rawSelector", text()), ("requirements", requirements)], 2)
    };
    let plain = ["namespace", "verb", "group", "version", "resource", "subresource", "name"];
    let mut resource: Vec<_> = plain.map(|name| (name, text())).into();
    resource.extend([("fieldSelector", selector()), ("labelSelector", selector())]);
    object(
        vec![
            ("user", text()),
            ("uid", text()),
            ("groups", texts()),
            ("extra", Arc::new(Decl::map(texts(), None))),
            ("resourceAttributes", object(resource, 2)),
            ("nonResourceAttributes", object(vec![("path", text()), ("verb", text())], 2)),
        ],
        2,
    )
});

/// An expression over the question that says whether a webhook is to be asked.
pub(super) struct Condition(Program);

impl Condition {
    pub fn compile(source: &str) -> Result<Self, String> {
        let program = Program::compile(source, &[("request", Type::of(&SPEC))]);
        let program = program.map_err(|error| format!("compilation failed: {error}"))?;
        if !matches!(program.output(), Type::Bool) {
            return Err("must evaluate to bool".to_owned());
        }
        Ok(Self(program))
    }

    fn holds(&self, spec: &Value) -> Result<bool, String> {
        let value = Cel::of(spec, &SPEC).map_err(|fault| fault.to_string())?;
        match self.0.evaluate(&[value], Budget::CALL).result.map_err(|fault| fault.to_string())? {
            Cel::Bool(holds) => Ok(holds),
            _ => Err("it is neither true nor false".to_owned()),
        }
    }
}

pub(super) struct Settings {
    pub name: String,
    pub endpoint: Endpoint,
    /// Of authorization.k8s.io.
    pub version: &'static str,
    pub denies_on_failure: bool,
    pub timeout: Duration,
    /// None: answers are not kept.
    pub allowed_ttl: Option<Duration>,
    pub refused_ttl: Option<Duration>,
    pub conditions: Vec<Condition>,
}

pub(super) struct Webhook {
    settings: Settings,
    answers: Mutex<HashMap<Vec<u8>, (Instant, Verdict)>>,
}

impl Webhook {
    pub fn new(settings: Settings) -> Self {
        Self { settings, answers: Mutex::default() }
    }

    pub async fn authorize(&self, question: &Question<'_>) -> Verdict {
        let spec = spec_of(question);
        match self.matches(&spec) {
            Ok(true) => {}
            Ok(false) => return Verdict::NoOpinion(String::new()),
            Err(why) => return self.failed(&format!("a match condition: {why}")),
        }
        let key = spec.to_string().into_bytes();
        if let Some(kept) = self.kept(&key) {
            return kept;
        }
        let status = match self.ask(&spec).await {
            Ok(status) => status,
            Err(why) => return self.failed(&why),
        };
        let said = |key: &str| status.get(key) == Some(&Value::Bool(true));
        let reason = text_at(&status, &["reason"]).to_owned();
        let verdict = match (said("allowed"), said("denied")) {
            (_, true) => Verdict::Deny(reason),
            (true, false) => Verdict::Allow(reason),
            (false, false) => Verdict::NoOpinion(reason),
        };
        let ttl = if said("allowed") { self.settings.allowed_ttl } else { self.settings.refused_ttl };
        if let Some(ttl) = ttl.filter(|_| key.len() < QUESTION_BYTES_MAX) {
            self.keep(key, verdict.clone(), ttl);
        }
        verdict
    }

    /// One condition that does not hold is enough; otherwise one that cannot be evaluated is a failure.
    fn matches(&self, spec: &Value) -> Result<bool, String> {
        let mut fault = None;
        for condition in &self.settings.conditions {
            match condition.holds(spec) {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(why) => fault = fault.or(Some(why)),
            }
        }
        fault.map_or(Ok(true), Err)
    }

    async fn ask(&self, spec: &Value) -> Result<Value, String> {
        let Settings { name, endpoint, version, timeout, .. } = &self.settings;
        let api_version = format!("authorization.k8s.io/{version}");
        let mut spec = spec.clone();
        if *version == "v1beta1"
            && let Some(fields) = spec.as_object_mut()
        {
            // The one field that has another name there.
            let groups = fields.remove("groups").unwrap_or_default();
            fields.insert("group".to_owned(), groups);
        }
        let review = json!({"kind": "SubjectAccessReview", "apiVersion": api_version, "metadata": {}, "spec": spec});
        let mut span = trace::child(|| "Call authorization webhook".to_owned(), trace::Kind::Client);
        if let Some(span) = &mut span {
            span.text("webhook", name);
        }
        let call = || endpoint.post(None, review.to_string().into_bytes(), None, ANSWER_BYTES_MAX);
        let called = tokio::time::timeout(*timeout, trace::within(span.as_ref().map(Span::context), call)).await;
        let called = called.map_err(|_| format!("no answer within {} s", timeout.as_secs_f64()))?;
        let bytes = called.map_err(|error| error.text(&endpoint.url(None)))?;
        let mut answer: Value = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
        let (found, kind) = (text_at(&answer, &["apiVersion"]), text_at(&answer, &["kind"]));
        if found != api_version || kind != "SubjectAccessReview" {
            return Err(format!("the answer is a {kind:?} of {found:?}, not a SubjectAccessReview of {api_version:?}"));
        }
        Ok(answer.get_mut("status").map(Value::take).unwrap_or_default())
    }

    fn failed(&self, why: &str) -> Verdict {
        let name = &self.settings.name;
        tracing::warn!(name, why, "an authorizer could not be asked");
        match self.settings.denies_on_failure {
            true => Verdict::Deny(format!("authorizer {name:?} could not be asked")),
            false => Verdict::NoOpinion(String::new()),
        }
    }

    fn kept(&self, key: &[u8]) -> Option<Verdict> {
        let answers = self.answers.lock();
        answers.get(key).filter(|(until, _)| *until > Instant::now()).map(|(_, verdict)| verdict.clone())
    }

    fn keep(&self, key: Vec<u8>, verdict: Verdict, ttl: Duration) {
        let now = Instant::now();
        let mut answers = self.answers.lock();
        if answers.len() >= ANSWERS_MAX && !answers.contains_key(&key) {
            answers.retain(|_, (until, _)| *until > now);
        }
        if answers.len() >= ANSWERS_MAX
            && let Some(first) = answers.iter().min_by_key(|(_, (until, _))| *until).map(|(key, _)| key.clone())
        {
            answers.remove(&first);
        }
        answers.insert(key, (now + ttl, verdict));
    }
}

/// The spec of the review, with every text that a user and a resource have.
fn spec_of(question: &Question<'_>) -> Value {
    let user = question.user;
    let mut spec = json!({"user": user.name, "uid": user.uid, "groups": user.groups, "extra": user.extra});
    match question.wanted {
        Attributes::Resource { verb, group, resource, subresource, namespace, name } => {
            spec["resourceAttributes"] = json!({
                "namespace": namespace, "verb": verb, "group": group, "version": question.version,
                "resource": resource, "subresource": subresource, "name": name,
            });
            let requirements = requirements(question.field_selector);
            if !requirements.is_empty() {
                spec["resourceAttributes"]["fieldSelector"] = json!({"requirements": requirements});
            }
        }
        Attributes::Path { verb, path } => spec["nonResourceAttributes"] = json!({"path": path, "verb": verb}),
    }
    spec
}

/// What a field selector wants, part by part; a part that is not understood is left out.
fn requirements(selector: &str) -> Vec<Value> {
    let part = |part: &str| {
        let (key, value, operator) = match part.split_once("!=") {
            Some((key, value)) => (key, value, "NotIn"),
            None => {
                let (key, value) = part.split_once('=')?;
                (key, value.strip_prefix('=').unwrap_or(value), "In")
            }
        };
        Some(json!({"key": key, "operator": operator, "values": [value]}))
    };
    selector.split(',').filter_map(part).collect()
}

#[cfg(test)]
mod tests {
    use policy::User;

    use super::*;

    #[test]
    fn a_question_holds_all_that_conditions_may_speak_of() {
        let user = User::new("anna", ["acme"]);
        let wanted = Attributes::Resource {
            verb: "list",
            group: "",
            resource: "pods",
            subresource: "",
            namespace: "a",
            name: "",
        };
        let question =
            Question { user: &user, wanted, version: "v1", field_selector: "spec.nodeName=n,status.phase!=X" };
        let spec = spec_of(&question);
        let requirements = &spec["resourceAttributes"]["fieldSelector"]["requirements"];
        assert_eq!(requirements[1], json!({"key": "status.phase", "operator": "NotIn", "values": ["X"]}));
        for (condition, holds) in [
            ("request.resourceAttributes.verb == 'list' && request.user == 'anna'", true),
            ("request.resourceAttributes.subresource == 'x'", false),
            ("has(request.nonResourceAttributes)", false),
            ("'acme' in request.groups && size(request.extra) == 0", true),
            ("request.resourceAttributes.fieldSelector.requirements.exists(r, r.key == 'spec.nodeName')", true),
        ] {
            assert_eq!(Condition::compile(condition).unwrap().holds(&spec), Ok(holds), "{condition}");
        }
    }

    #[test]
    fn answers_are_kept_up_to_a_number() {
        let text = "{current-context: c, contexts: [{name: c, context: {cluster: k}}], clusters: [{name: k, cluster: \
                    {server: 'https://a'}}]}";
        let endpoint = Endpoint::of_kubeconfig(text, std::path::Path::new("/"), &|_| Err(String::new())).unwrap();
        let webhook = Webhook::new(Settings {
            name: "a".to_owned(),
            endpoint,
            version: "v1",
            denies_on_failure: true,
            timeout: Duration::from_secs(1),
            allowed_ttl: None,
            refused_ttl: None,
            conditions: Vec::new(),
        });
        for i in 0..=ANSWERS_MAX {
            let ttl = Duration::from_secs(60 + i as u64);
            webhook.keep(i.to_be_bytes().to_vec(), Verdict::Allow(String::new()), ttl);
        }
        assert_eq!(webhook.answers.lock().len(), ANSWERS_MAX);
        assert_eq!(webhook.kept(&0_usize.to_be_bytes()), None);
        assert_eq!(webhook.kept(&1_usize.to_be_bytes()), Some(Verdict::Allow(String::new())));
    }
}
