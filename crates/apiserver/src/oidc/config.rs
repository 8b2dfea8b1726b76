//! AuthenticationConfiguration: read and checked (`apiserver/pkg/apis/apiserver/validation`); what is wrong is told in upstream's
//! words, all of it at once.

use std::sync::LazyLock;

use regex::Regex;
use serde::Deserialize;
use serde_json::json;

use super::{
    Anonymous, ISSUERS_MAX, Issuer,
    claims::{Mapping, Rule, Source},
    expression::{About, Expression},
    keys::KeySource,
};
use crate::field::FieldError;

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum AuthenticationError {
    #[error("it is no apiserver.config.k8s.io/v1 AuthenticationConfiguration: {0}")]
    Form(String),
    #[error("{0}")]
    Invalid(String),
}

/// Rules and mappings of one issuer, of each sort.
const RULES_MAX: usize = 64;

pub(super) struct Configured {
    pub issuers: Vec<Issuer>,
    pub anonymous: Option<Anonymous>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    #[serde(default)]
    jwt: Vec<FileIssuer>,
    anonymous: Option<FileAnonymous>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileAnonymous {
    enabled: bool,
    #[serde(default)]
    conditions: Vec<Condition>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Condition {
    path: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FileIssuer {
    #[serde(default)]
    issuer: Where,
    #[serde(default)]
    claim_validation_rules: Vec<ClaimRule>,
    #[serde(default)]
    claim_mappings: Mappings,
    #[serde(default)]
    user_validation_rules: Vec<UserRule>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Where {
    #[serde(default)]
    url: String,
    #[serde(default, rename = "discoveryURL")]
    discovery_url: Option<String>,
    #[serde(default)]
    certificate_authority: String,
    #[serde(default)]
    audiences: Vec<String>,
    #[serde(default)]
    audience_match_policy: String,
    #[serde(default)]
    egress_selector_type: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ClaimRule {
    #[serde(default)]
    claim: String,
    #[serde(default)]
    required_value: String,
    #[serde(default)]
    expression: String,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UserRule {
    #[serde(default)]
    expression: String,
    #[serde(default)]
    message: String,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mappings {
    #[serde(default)]
    username: ClaimOrExpression,
    #[serde(default)]
    groups: ClaimOrExpression,
    #[serde(default)]
    uid: ClaimOrExpression,
    #[serde(default)]
    extra: Vec<Extra>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClaimOrExpression {
    #[serde(default)]
    claim: String,
    prefix: Option<String>,
    #[serde(default)]
    expression: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Extra {
    #[serde(default)]
    key: String,
    #[serde(default)]
    value_expression: String,
}

type Errors = Vec<FieldError>;

pub(super) fn parse(text: &str, reserved: &[String]) -> Result<Configured, AuthenticationError> {
    let file: File = serde_saphyr::from_str(text).map_err(|error| AuthenticationError::Form(error.to_string()))?;
    let said = (file.api_version.as_str(), file.kind.as_str());
    if said != ("apiserver.config.k8s.io/v1", "AuthenticationConfiguration") {
        return Err(AuthenticationError::Form(format!("it says apiVersion {:?}, kind {:?}", said.0, said.1)));
    }
    let mut errors = Vec::new();
    if file.jwt.len() > ISSUERS_MAX {
        errors.push(FieldError::too_many("jwt", file.jwt.len(), ISSUERS_MAX));
    }
    let mut issuers = Vec::new();
    let (mut urls, mut discoveries) = (Vec::new(), Vec::new());
    for (at, issuer) in file.jwt.iter().enumerate() {
        let path = format!("jwt[{at}]");
        issuers.extend(self::issuer(issuer, &path, reserved, &mut errors));
        if urls.contains(&&issuer.issuer.url) {
            errors.push(FieldError::duplicate(format!("{path}.issuer.url"), issuer.issuer.url.as_str()));
        }
        urls.push(&issuer.issuer.url);
        if let Some(url) = issuer.issuer.discovery_url.as_ref().filter(|url| !url.is_empty()) {
            if discoveries.contains(&url) {
                errors.push(FieldError::duplicate(format!("{path}.issuer.discoveryURL"), url.as_str()));
            }
            discoveries.push(url);
        }
    }
    let anonymous = file.anonymous.map(|anonymous| {
        let paths: Vec<String> = anonymous.conditions.into_iter().map(|condition| condition.path).collect();
        if !anonymous.enabled && !paths.is_empty() {
            let text = "enabled should be set to true when conditions are defined";
            errors.push(FieldError::invalid("anonymous.conditions", json!(paths), text));
        }
        match (anonymous.enabled, paths.is_empty()) {
            (false, _) => Anonymous::Refused,
            (true, true) => Anonymous::Everywhere,
            (true, false) => Anonymous::Paths(paths),
        }
    });
    if errors.is_empty() {
        return Ok(Configured { issuers, anonymous });
    }
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    Err(AuthenticationError::Invalid(texts.join("; ")))
}

/// None: something is wrong, which is in `errors`.
fn issuer(file: &FileIssuer, path: &str, reserved: &[String], errors: &mut Errors) -> Option<Issuer> {
    let before = errors.len();
    check_where(&file.issuer, &format!("{path}.issuer"), reserved, errors);
    let (claim_rules, mut sources) = claim_rules(file, &format!("{path}.claimValidationRules"), errors);
    let path_of = |name: &str| format!("{path}.claimMappings.{name}");
    let mappings = &file.claim_mappings;
    let username = source(&mappings.username, &path_of("username"), true, errors);
    let groups = source(&mappings.groups, &path_of("groups"), false, errors);
    let uid = uid(&mappings.uid, &path_of("uid"), errors);
    let extra = extra(&mappings.extra, &path_of("extra"), errors);
    sources.extend(extra.iter().map(|(_, expression)| expression.source().to_owned()));
    sources.push(mappings.username.expression.clone());
    static EMAIL: LazyLock<[Regex; 2]> = LazyLock::new(|| {
        [r"\bclaims\s*\.\s*\??\s*email\b", r"\bclaims\s*\.\s*\??\s*email_verified\b"]
            .map(|pattern| Regex::new(pattern).expect("a fixed pattern"))
    });
    let [email, verified] = &*EMAIL;
    if email.is_match(&mappings.username.expression) && !sources.iter().any(|source| verified.is_match(source)) {
        let text = "claims.email_verified must be used in claimMappings.username.expression or \
                    claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when claims.email is used in \
                    claimMappings.username.expression";
        let expression = mappings.username.expression.as_str();
        errors.push(FieldError::invalid(path_of("username.expression"), expression, text));
    }
    let user_rules = user_rules(&file.user_validation_rules, &format!("{path}.userValidationRules"), errors);
    let authority = &file.issuer.certificate_authority;
    let keys = KeySource::new(&file.issuer.url, file.issuer.discovery_url.as_deref(), authority);
    let keys = keys.map_err(|why| {
        errors.push(FieldError::invalid(format!("{path}.issuer.certificateAuthority"), "<omitted>", why));
    });
    if errors.len() > before {
        return None;
    }
    let mapping = Mapping { username: username?, groups, uid, extra, claim_rules, user_rules };
    let (url, audiences) = (file.issuer.url.clone(), file.issuer.audiences.clone());
    Some(Issuer { url, audiences, keys: keys.ok()?, mapping })
}

fn check_where(issuer: &Where, path: &str, reserved: &[String], errors: &mut Errors) {
    let at = |name: &str| format!("{path}.{name}");
    match issuer.url.as_str() {
        "" => errors.push(FieldError::required(at("url"), "")),
        url => check_url(url, &at("url"), reserved, errors),
    }
    if let Some(url) = issuer.discovery_url.as_deref().filter(|url| !url.is_empty()) {
        if !issuer.url.is_empty() && url.trim_end_matches('/') == issuer.url.trim_end_matches('/') {
            errors.push(FieldError::invalid(at("discoveryURL"), url, "discoveryURL must be different from URL"));
        }
        check_url(url, &at("discoveryURL"), &[], errors);
    }
    let audiences = &issuer.audiences;
    let policy = issuer.audience_match_policy.as_str();
    if audiences.is_empty() {
        let path = at("audiences");
        errors.push(FieldError::required(path.as_str(), format!("at least one {path} is required")));
    }
    for (i, audience) in audiences.iter().enumerate() {
        let path = format!("{path}.audiences[{i}]");
        if audience.is_empty() {
            errors.push(FieldError::required(path.as_str(), ""));
        }
        if audiences[..i].contains(audience) {
            errors.push(FieldError::duplicate(path, audience.as_str()));
        }
    }
    if audiences.len() > 1 && policy != "MatchAny" {
        let text = "audienceMatchPolicy must be MatchAny for multiple audiences";
        errors.push(FieldError::invalid(at("audienceMatchPolicy"), policy, text));
    }
    if audiences.len() == 1 && !matches!(policy, "" | "MatchAny") {
        let text = "audienceMatchPolicy must be empty or MatchAny for single audience";
        errors.push(FieldError::invalid(at("audienceMatchPolicy"), policy, text));
    }
    if !issuer.egress_selector_type.is_empty() {
        let text = "this server has no egress selectors";
        errors.push(FieldError::forbidden(at("egressSelectorType"), text));
    }
}

fn check_url(url: &str, path: &str, reserved: &[String], errors: &mut Errors) {
    let mut wrong = |text: String| errors.push(FieldError::invalid(path, url, text));
    if reserved.iter().any(|own| own == url) {
        wrong(format!("URL must not overlap with disallowed issuers: [{}]", reserved.join(" ")));
    }
    // The fragment is no part of what is asked for, and is cut off by the parser.
    let (address, fragment) = url.split_once('#').map_or((url, ""), |(address, fragment)| (address, fragment));
    let uri: http::Uri = match address.parse() {
        Ok(uri) => uri,
        Err(error) => return wrong(format!("parse {url:?}: {error}")),
    };
    if uri.scheme_str() != Some("https") {
        wrong("URL scheme must be https".to_owned());
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        wrong("URL must not contain a username or password".to_owned());
    }
    if uri.query().is_some_and(|query| !query.is_empty()) {
        wrong("URL must not contain a query".to_owned());
    }
    if !fragment.is_empty() {
        wrong("URL must not contain a fragment".to_owned());
    }
}

fn compile(source: &str, about: About, rule: bool, path: String, errors: &mut Errors) -> Option<Expression> {
    match Expression::compile(source, about, rule) {
        Ok(expression) => Some(expression),
        Err(why) => {
            errors.push(FieldError::invalid(path, source, why));
            None
        }
    }
}

/// The rules, and the expressions in them.
fn claim_rules(file: &FileIssuer, path: &str, errors: &mut Errors) -> (Vec<Rule>, Vec<String>) {
    let rules = &file.claim_validation_rules;
    if rules.len() > RULES_MAX {
        errors.push(FieldError::too_many(path, rules.len(), RULES_MAX));
    }
    let (mut found, mut sources) = (Vec::new(), Vec::<String>::new());
    for (at, rule) in rules.iter().enumerate() {
        let path = format!("{path}[{at}]");
        match (rule.claim.as_str(), rule.expression.as_str()) {
            ("", "") => errors.push(FieldError::required(path, "claim or expression is required")),
            (claim, "") => {
                if !rule.message.is_empty() {
                    let text = "may not be specified when claim is set";
                    errors.push(FieldError::invalid(format!("{path}.message"), rule.message.as_str(), text));
                }
                if rules[..at].iter().any(|other| other.claim == claim) {
                    errors.push(FieldError::duplicate(format!("{path}.claim"), claim));
                }
                found.push(Rule::Claim { claim: claim.to_owned(), value: rule.required_value.clone() });
            }
            ("", source) => {
                if !rule.required_value.is_empty() {
                    let text = "may not be specified when expression is set";
                    let path = format!("{path}.requiredValue");
                    errors.push(FieldError::invalid(path, rule.required_value.as_str(), text));
                }
                if sources.iter().any(|other| other == source) {
                    errors.push(FieldError::duplicate(format!("{path}.expression"), source));
                    continue;
                }
                sources.push(source.to_owned());
                let expression = compile(source, About::Claims, true, format!("{path}.expression"), errors);
                let message = rule.message.clone();
                found.extend(expression.map(|expression| Rule::Expression { expression, message }));
            }
            (claim, _) => {
                errors.push(FieldError::invalid(path, claim, "claim and expression can't both be set"));
            }
        }
    }
    (found, sources)
}

fn source(from: &ClaimOrExpression, path: &str, required: bool, errors: &mut Errors) -> Option<Source> {
    match (from.claim.as_str(), from.expression.as_str()) {
        ("", "") => {
            if required {
                errors.push(FieldError::required(path, "claim or expression is required"));
            }
            None
        }
        ("", source) => {
            if let Some(prefix) = &from.prefix {
                let text = "may not be specified when expression is set";
                errors.push(FieldError::invalid(format!("{path}.prefix"), prefix.as_str(), text));
            }
            compile(source, About::Claims, false, format!("{path}.expression"), errors).map(Source::Expression)
        }
        (claim, "") => {
            if from.prefix.is_none() {
                let text =
                    "prefix is required when claim is set. It can be set to an empty string to disable prefixing";
                errors.push(FieldError::required(format!("{path}.prefix"), text));
            }
            Some(Source::Claim { claim: claim.to_owned(), prefix: from.prefix.clone().unwrap_or_default() })
        }
        _ => {
            errors.push(FieldError::invalid(path, "", "claim and expression can't both be set"));
            None
        }
    }
}

fn uid(from: &ClaimOrExpression, path: &str, errors: &mut Errors) -> Option<Source> {
    if let Some(prefix) = &from.prefix {
        errors.push(FieldError::forbidden(format!("{path}.prefix"), format!("a uid has no prefix: {prefix:?}")));
    }
    match (from.claim.as_str(), from.expression.as_str()) {
        ("", "") => None,
        ("", source) => {
            compile(source, About::Claims, false, format!("{path}.expression"), errors).map(Source::Expression)
        }
        (claim, "") => Some(Source::Claim { claim: claim.to_owned(), prefix: String::new() }),
        _ => {
            errors.push(FieldError::invalid(path, "", "claim and expression can't both be set"));
            None
        }
    }
}

fn extra(list: &[Extra], path: &str, errors: &mut Errors) -> Vec<(String, Expression)> {
    if list.len() > RULES_MAX {
        errors.push(FieldError::too_many(path, list.len(), RULES_MAX));
    }
    let mut found = Vec::new();
    for (at, extra) in list.iter().enumerate() {
        let (path, key) = (format!("{path}[{at}]"), extra.key.as_str());
        let key_path = format!("{path}.key");
        let (domain, rest) = key.split_once('/').unwrap_or_default();
        if key.is_empty() {
            errors.push(FieldError::required(key_path.as_str(), ""));
        } else if domain.is_empty() || rest.is_empty() || !crate::names::subdomain(domain).is_empty() {
            let text = "must be a domain-prefixed path (such as \"acme.io/foo\")";
            errors.push(FieldError::invalid(key_path.as_str(), key, text));
        }
        if key.chars().any(char::is_uppercase) {
            errors.push(FieldError::invalid(key_path.as_str(), key, "must be lowercase"));
        }
        let within =
            |parent: &str| domain.strip_suffix(parent).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        if within("kubernetes.io") || within("k8s.io") {
            let text = "k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use";
            errors.push(FieldError::invalid(key_path.as_str(), key, text));
        }
        if list[..at].iter().any(|other| other.key == key) {
            errors.push(FieldError::duplicate(key_path, key));
            continue;
        }
        let path = format!("{path}.valueExpression");
        if extra.value_expression.is_empty() {
            errors.push(FieldError::required(path, ""));
            continue;
        }
        let expression = compile(&extra.value_expression, About::Claims, false, path, errors);
        found.extend(expression.map(|expression| (key.to_owned(), expression)));
    }
    found
}

fn user_rules(list: &[UserRule], path: &str, errors: &mut Errors) -> Vec<(Expression, String)> {
    if list.len() > RULES_MAX {
        errors.push(FieldError::too_many(path, list.len(), RULES_MAX));
    }
    let mut found = Vec::new();
    for (at, rule) in list.iter().enumerate() {
        let path = format!("{path}[{at}].expression");
        if rule.expression.is_empty() {
            errors.push(FieldError::required(path, ""));
        } else if list[..at].iter().any(|other| other.expression == rule.expression) {
            errors.push(FieldError::duplicate(path, rule.expression.as_str()));
        } else {
            let expression = compile(&rule.expression, About::User, true, path, errors);
            found.extend(expression.map(|expression| (expression, rule.message.clone())));
        }
    }
    found
}

/// Texts of a document in which something is wrong, for tests.
#[cfg(test)]
pub(super) fn wrong(config: &serde_json::Value) -> String {
    parse(&config.to_string(), &["https://own".to_owned()]).err().map(|error| error.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
