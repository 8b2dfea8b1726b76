//! Who decides, as a file says it (AuthorizationConfiguration of apiserver.config.k8s.io): read and checked in upstream's words
//! (`apiserver/pkg/apis/apiserver/validation`). Left out and refused: ABAC, InClusterConfig.

use std::{path::Path, sync::Arc, time::Duration};

use parking_lot::RwLock;
use serde::Deserialize;
use serde_json::Value;

use super::webhook::{Condition, Webhook};
use crate::{
    field::FieldError,
    names,
    webhook::{Endpoint, ReadFile},
};

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum AuthorizationError {
    #[error("it is no apiserver.config.k8s.io/v1 AuthorizationConfiguration: {0}")]
    Form(String),
    #[error("{0}")]
    Invalid(String),
}

/// Authorizers of one file.
const AUTHORIZERS_MAX: usize = 32;
/// Conditions of one of them (upstream's limit).
const CONDITIONS_MAX: usize = 64;
const TIMEOUT_MAX: Duration = Duration::from_secs(30);
const KINDS: [&str; 5] = ["AlwaysAllow", "AlwaysDeny", "Node", "RBAC", "Webhook"];

pub(super) enum Step {
    AlwaysAllow,
    AlwaysDeny,
    Node,
    Rbac,
    Webhook(Box<Webhook>),
}

/// Who is asked, in order; may be replaced while the server runs.
pub struct Authorization {
    steps: RwLock<Arc<Vec<Step>>>,
}

impl Authorization {
    /// `config`: YAML or JSON of an AuthorizationConfiguration; `read`: reads the kubeconfigs that it names, and what those name.
    pub fn new(config: &str, read: ReadFile<'_>) -> Result<Arc<Self>, AuthorizationError> {
        Ok(Arc::new(Self { steps: RwLock::new(Arc::new(parse(config, read)?)) }))
    }

    /// Takes a new configuration; the old one stays if that is wrong. What webhooks said before is asked again.
    pub fn replace(&self, config: &str, read: ReadFile<'_>) -> Result<(), AuthorizationError> {
        let steps = Arc::new(parse(config, read)?);
        *self.steps.write() = steps;
        Ok(())
    }

    pub(super) fn steps(&self) -> Arc<Vec<Step>> {
        Arc::clone(&self.steps.read())
    }

    /// Whether anybody beside the cluster's own roles has a say.
    pub(super) fn asks_others(&self) -> bool {
        !matches!(&self.steps()[..], [Step::Rbac])
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    #[serde(default)]
    authorizers: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    name: String,
    webhook: Option<Settings>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Settings {
    #[serde(rename = "authorizedTTL")]
    authorized_ttl: Option<String>,
    #[serde(rename = "unauthorizedTTL")]
    unauthorized_ttl: Option<String>,
    cache_authorized_requests: Option<bool>,
    cache_unauthorized_requests: Option<bool>,
    timeout: String,
    subject_access_review_version: String,
    match_condition_subject_access_review_version: String,
    failure_policy: String,
    connection_info: Connection,
    match_conditions: Vec<Expression>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Connection {
    #[serde(rename = "type")]
    kind: String,
    kube_config_file: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expression {
    #[serde(default)]
    expression: String,
}

fn parse(text: &str, read: ReadFile<'_>) -> Result<Vec<Step>, AuthorizationError> {
    let file: File = serde_saphyr::from_str(text).map_err(|error| AuthorizationError::Form(error.to_string()))?;
    let version = file.api_version.strip_prefix("apiserver.config.k8s.io/");
    if !matches!(version, Some("v1" | "v1beta1" | "v1alpha1")) || file.kind != "AuthorizationConfiguration" {
        return Err(AuthorizationError::Form(format!("its type is {} {}", file.api_version, file.kind)));
    }
    let mut errors = Vec::new();
    if file.authorizers.is_empty() {
        errors.push(FieldError::required("authorizers", "at least one authorization mode must be defined"));
    }
    if file.authorizers.len() > AUTHORIZERS_MAX {
        errors.push(FieldError::too_many("authorizers", file.authorizers.len(), AUTHORIZERS_MAX));
    }
    let (mut kinds, mut seen) = (Vec::new(), Vec::new());
    let mut steps = Vec::new();
    for (i, entry) in file.authorizers.iter().enumerate() {
        let path = format!("authorizers[{i}]");
        let kind = entry.kind.as_str();
        if kind.is_empty() {
            errors.push(FieldError::required(format!("{path}.type"), ""));
            continue;
        }
        if !KINDS.contains(&kind) {
            errors.push(FieldError::not_supported(format!("{path}.type"), kind, &KINDS));
            continue;
        }
        if kinds.contains(&kind) && kind != "Webhook" {
            errors.push(FieldError::duplicate(format!("{path}.type"), kind));
            continue;
        }
        kinds.push(kind);
        check_name(&entry.name, &seen, &format!("{path}.name"), &mut errors);
        seen.push(entry.name.as_str());
        match (&entry.webhook, kind) {
            (None, "Webhook") => {
                errors.push(FieldError::required(format!("{path}.webhook"), "required when type=Webhook"));
            }
            (Some(settings), "Webhook") => steps.extend(webhook(entry, settings, &path, read, &mut errors)),
            (Some(_), _) => {
                let text = "may only be specified when type=Webhook";
                errors.push(FieldError::invalid(format!("{path}.webhook"), "non-null", text));
            }
            (None, "AlwaysAllow") => steps.push(Step::AlwaysAllow),
            (None, "AlwaysDeny") => steps.push(Step::AlwaysDeny),
            (None, "Node") => steps.push(Step::Node),
            (None, _) => steps.push(Step::Rbac),
        }
    }
    if errors.is_empty() {
        return Ok(steps);
    }
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    Err(AuthorizationError::Invalid(texts.join(", ")))
}

fn check_name(name: &str, seen: &[&str], path: &str, errors: &mut Vec<FieldError>) {
    if name.is_empty() {
        return errors.push(FieldError::required(path, ""));
    }
    if seen.contains(&name) {
        return errors.push(FieldError::duplicate(path, name));
    }
    let wrong = names::subdomain(name);
    if !wrong.is_empty() {
        let text = format!("authorizer name is invalid: {}", wrong.join(", "));
        errors.push(FieldError::invalid(path, name, text));
    }
}

/// A duration as Go writes it: `5m0s`, `1.5s`, `300ms`.
pub(crate) fn go_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        let unit_end = rest[end..].find(|c: char| c.is_ascii_digit() || c == '.').map_or(rest.len(), |at| end + at);
        seconds += number
            * match &rest[end..unit_end] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" => 1e-6,
                "ns" => 1e-9,
                _ => return None,
            };
        rest = &rest[unit_end..];
    }
    if text.is_empty() { None } else { Duration::try_from_secs_f64(seconds).ok() }
}

fn webhook(
    entry: &Entry,
    settings: &Settings,
    path: &str,
    read: ReadFile<'_>,
    errors: &mut Vec<FieldError>,
) -> Option<Step> {
    let before = errors.len();
    let at = |name: &str| format!("{path}.{name}");
    let timeout = match (settings.timeout.as_str(), go_duration(&settings.timeout)) {
        ("", _) => Err(FieldError::required(at("timeout"), "")),
        (_, Some(timeout)) if timeout > Duration::ZERO && timeout <= TIMEOUT_MAX => Ok(timeout),
        (text, _) => Err(FieldError::invalid(at("timeout"), text, "must be > 0s and <= 30s")),
    };
    let timeout = timeout.map_err(|error| errors.push(error)).unwrap_or_default();
    let mut ttl = |name: &str, text: Option<&str>, cached: Option<bool>, usual: u64| {
        let found = text.map_or(Some(Duration::from_secs(usual)), go_duration).filter(|ttl| !ttl.is_zero());
        if found.is_none() {
            errors.push(FieldError::invalid(at(name), text.unwrap_or_default(), "must be > 0s"));
        }
        found.filter(|_| cached != Some(false))
    };
    let allowed_ttl = ttl("authorizedTTL", settings.authorized_ttl.as_deref(), settings.cache_authorized_requests, 300);
    let refused_ttl =
        ttl("unauthorizedTTL", settings.unauthorized_ttl.as_deref(), settings.cache_unauthorized_requests, 30);
    let mut one_of = |name: &str, text: &str, known: &[&str]| match text {
        "" => errors.push(FieldError::required(at(name), "")),
        text if known.contains(&text) => {}
        text => errors.push(FieldError::not_supported(at(name), text, known)),
    };
    one_of("subjectAccessReviewVersion", &settings.subject_access_review_version, &["v1", "v1beta1"]);
    one_of("failurePolicy", &settings.failure_policy, &["NoOpinion", "Deny"]);
    let of_conditions = settings.match_condition_subject_access_review_version.as_str();
    if !(settings.match_conditions.is_empty() && of_conditions.is_empty()) {
        one_of("matchConditionSubjectAccessReviewVersion", of_conditions, &["v1"]);
    }
    let conditions = conditions(&settings.match_conditions, path, errors);
    let endpoint = endpoint(&settings.connection_info, &at("connectionInfo"), read, errors);
    if errors.len() > before {
        return None;
    }
    Some(Step::Webhook(Box::new(Webhook::new(super::webhook::Settings {
        name: entry.name.clone(),
        endpoint: endpoint?,
        version: if settings.subject_access_review_version == "v1" { "v1" } else { "v1beta1" },
        denies_on_failure: settings.failure_policy == "Deny",
        timeout,
        allowed_ttl,
        refused_ttl,
        conditions,
    }))))
}

fn conditions(list: &[Expression], path: &str, errors: &mut Vec<FieldError>) -> Vec<Condition> {
    let place = format!("{path}.matchConditions");
    if list.len() > CONDITIONS_MAX {
        errors.push(FieldError::too_many(place.as_str(), list.len(), CONDITIONS_MAX));
        return Vec::new();
    }
    let mut seen = Vec::new();
    let mut out = Vec::new();
    for (i, Expression { expression }) in list.iter().enumerate() {
        let path = format!("{place}[{i}].expression");
        if expression.trim().is_empty() {
            errors.push(FieldError::required(path, ""));
        } else if seen.contains(&expression) {
            errors.push(FieldError::duplicate(path, expression.as_str()));
        } else {
            match Condition::compile(expression) {
                Ok(condition) => out.push(condition),
                Err(why) => errors.push(FieldError::invalid(path, expression.as_str(), why)),
            }
        }
        seen.push(expression);
    }
    out
}

fn endpoint(connection: &Connection, path: &str, read: ReadFile<'_>, errors: &mut Vec<FieldError>) -> Option<Endpoint> {
    let file_path = format!("{path}.kubeConfigFile");
    let file = connection.kube_config_file.as_deref().unwrap_or_default();
    let error = match connection.kind.as_str() {
        "" => FieldError::required(format!("{path}.type"), ""),
        "KubeConfigFile" if file.is_empty() => FieldError::required(file_path, ""),
        "KubeConfigFile" if !Path::new(file).is_absolute() => {
            FieldError::invalid(file_path, file, "must be an absolute path")
        }
        "KubeConfigFile" => {
            let folder = Path::new(file).parent().unwrap_or(Path::new("/"));
            match read(Path::new(file)).and_then(|text| Endpoint::of_kubeconfig(&text, folder, read)) {
                Ok(endpoint) => return Some(endpoint),
                Err(why) => FieldError::invalid(file_path, file, format!("error loading file: {why}")),
            }
        }
        other => {
            let value = Value::from(other);
            FieldError::not_supported(format!("{path}.type"), value, &["KubeConfigFile"])
        }
    };
    errors.push(error);
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "{type: Webhook, name: hook, webhook: {timeout: 3s, subjectAccessReviewVersion: v1, \
        matchConditionSubjectAccessReviewVersion: v1, failurePolicy: Deny, connectionInfo: {type: KubeConfigFile, \
        kubeConfigFile: /k}, matchConditions: [{expression: has(request.resourceAttributes)}]}}";
    const KUBECONFIG: &str = "{current-context: c, contexts: [{name: c, context: {cluster: k}}], \
        clusters: [{name: k, cluster: {server: 'https://a'}}]}";

    fn told(authorizers: &str) -> String {
        let text = format!(
            "{{apiVersion: apiserver.config.k8s.io/v1, kind: AuthorizationConfiguration, authorizers: [{authorizers}]}}"
        );
        parse(&text, &|_| Ok(KUBECONFIG.to_owned())).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn what_is_wrong_is_told_in_upstreams_words() {
        assert_eq!(told(&format!("{{type: Node, name: node}}, {{type: RBAC, name: rbac}}, {GOOD}")), "");
        for (authorizers, wanted) in [
            (String::new(), "authorizers: Required value: at least one authorization mode must be defined"),
            ("{name: a}".to_owned(), "authorizers[0].type: Required value"),
            ("{type: ABAC, name: a}".to_owned(), "authorizers[0].type: Unsupported value: \"ABAC\""),
            ("{type: RBAC, name: a}, {type: RBAC, name: b}".to_owned(), "[1].type: Duplicate value: \"RBAC\""),
            ("{type: RBAC}".to_owned(), "authorizers[0].name: Required value"),
            ("{type: RBAC, name: A_b}".to_owned(), "authorizer name is invalid: a lowercase RFC 1123 subdomain"),
            (format!("{GOOD}, {GOOD}"), "authorizers[1].name: Duplicate value: \"hook\""),
            ("{type: Webhook, name: a}".to_owned(), "webhook: Required value: required when type=Webhook"),
            (GOOD.replace("3s", "31s"), "timeout: Invalid value: \"31s\": must be > 0s and <= 30s"),
            (GOOD.replace("timeout: 3s", "authorizedTTL: 0s"), "authorizedTTL: Invalid value: \"0s\": must be > 0s"),
            (GOOD.replace("Deny", "Allow"), "failurePolicy: Unsupported value: \"Allow\""),
            (GOOD.replace("/k", "k"), "must be an absolute path"),
            (GOOD.replace("type: KubeConfigFile", "type: InClusterConfig"), "Unsupported value: \"InClusterConfig\""),
            (GOOD.replace("has(request.resourceAttributes)", "request.user"), "must evaluate to bool"),
            (GOOD.replace("has(request.resourceAttributes)", "request.nope == 1"), "undefined field"),
        ] {
            assert!(told(&authorizers).contains(wanted), "{authorizers}: {}", told(&authorizers));
        }
        let many = vec!["{expression: 'request.user == \"a\"'}"; CONDITIONS_MAX + 1].join(", ");
        let many = GOOD.replace("{expression: has(request.resourceAttributes)}", &many);
        assert!(told(&many).contains("Too many: 65: must have at most 64 items"), "{}", told(&many));
        let many: Vec<_> = (0..=AUTHORIZERS_MAX).map(|i| GOOD.replace("name: hook", &format!("name: h{i}"))).collect();
        assert!(told(&many.join(", ")).contains("authorizers: Too many: 33"));
    }

    #[test]
    fn durations_are_gos() {
        for (text, seconds) in [("5m0s", 300.0), ("1.5s", 1.5), ("300ms", 0.3), ("1h1m", 3660.0), ("0", 0.0)] {
            assert_eq!(go_duration(text).unwrap().as_secs_f64(), seconds, "{text}");
        }
        for bad in ["", "1", "s", "1d", "-1s", "1e3s"] {
            assert_eq!(go_duration(bad), None, "{bad}");
        }
    }
}
