//! The audit policy (audit.k8s.io/v1 Policy): read, checked, and asked about requests; the first rule that fits decides.

use policy::User;
use serde::{Deserialize, Serialize};

use crate::{field::FieldError, path::Resource};

/// Rules of a policy.
pub(crate) const RULES_MAX: usize = 1000;

/// What is wrong with a policy.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    #[error("it is no audit.k8s.io/v1 Policy: {0}")]
    Form(String),
    #[error("{0}")]
    Invalid(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) enum Level {
    None,
    Metadata,
    Request,
    RequestResponse,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) enum Stage {
    RequestReceived,
    ResponseStarted,
    ResponseComplete,
    Panic,
}

const LEVELS: [(&str, Level); 4] = [
    ("None", Level::None),
    ("Metadata", Level::Metadata),
    ("Request", Level::Request),
    ("RequestResponse", Level::RequestResponse),
];
const STAGES: [(&str, Stage); 4] = [
    ("RequestReceived", Stage::RequestReceived),
    ("ResponseStarted", Stage::ResponseStarted),
    ("ResponseComplete", Stage::ResponseComplete),
    ("Panic", Stage::Panic),
];

impl Level {
    pub(super) fn as_str(self) -> &'static str {
        LEVELS.iter().find(|(_, level)| *level == self).map_or("None", |(name, _)| name)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    #[serde(default)]
    #[expect(dead_code, reason = "may be there, and means nothing")]
    metadata: serde_json::Value,
    rules: Vec<FileRule>,
    #[serde(default)]
    omit_stages: Vec<String>,
    #[serde(default)]
    omit_managed_fields: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FileRule {
    #[serde(default)]
    level: String,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    user_groups: Vec<String>,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    resources: Vec<GroupResources>,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default, rename = "nonResourceURLs")]
    non_resource_urls: Vec<String>,
    #[serde(default)]
    omit_stages: Vec<String>,
    omit_managed_fields: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct GroupResources {
    #[serde(default)]
    group: String,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    resource_names: Vec<String>,
}

struct Rule {
    level: Level,
    omitted: Vec<Stage>,
    omit_managed: bool,
    said: FileRule,
}

pub(super) struct Policy {
    rules: Vec<Rule>,
}

/// A request, as far as a policy looks at it.
pub(super) struct Asked<'a> {
    pub user: &'a User,
    pub verb: &'a str,
    pub target: Option<&'a Resource>,
    pub path: &'a str,
}

fn stages(names: &[String], path: &str, errors: &mut Vec<FieldError>) -> Vec<Stage> {
    let mut found = Vec::new();
    for (at, name) in names.iter().enumerate() {
        match STAGES.iter().find(|(known, _)| known == name) {
            Some((_, stage)) => found.push(*stage),
            None => {
                let list = STAGES.map(|(name, _)| name).join(",");
                let path = format!("{path}[{at}]");
                errors.push(FieldError::invalid(path, name.as_str(), format!("allowed stages are {list}")));
            }
        }
    }
    found
}

fn check_rule(rule: &FileRule, path: &str, errors: &mut Vec<FieldError>) -> Level {
    let level = LEVELS.iter().find(|(known, _)| *known == rule.level);
    match level {
        None if rule.level.is_empty() => errors.push(FieldError::required(format!("{path}.level"), "")),
        None => {
            let levels = LEVELS.map(|(name, _)| name);
            errors.push(FieldError::not_supported(format!("{path}.level"), rule.level.as_str(), &levels));
        }
        Some(_) => {}
    }
    for (at, url) in rule.non_resource_urls.iter().enumerate().filter(|(_, url)| *url != "*") {
        let path = format!("{path}.nonResourceURLs[{at}]");
        if !url.starts_with('/') {
            let text = "non-resource URL rules must begin with a '/' character";
            errors.push(FieldError::invalid(path.as_str(), url.as_str(), text));
        }
        if url.strip_suffix('*').unwrap_or(url).contains('*') {
            let text = "non-resource URL wildcards '*' must be the final character of the rule";
            errors.push(FieldError::invalid(path, url.as_str(), text));
        }
    }
    for resources in &rule.resources {
        let group = &resources.group;
        if !group.is_empty() && group != "*" {
            let wrong = crate::names::subdomain(group);
            if !wrong.is_empty() {
                let path = format!("{path}.resources.group");
                errors.push(FieldError::invalid(path, group.as_str(), wrong.join(",")));
            }
        }
        if !resources.resource_names.is_empty() && resources.resources.is_empty() {
            let names = serde_json::json!(resources.resource_names);
            let text = "using resourceNames requires at least one resource";
            errors.push(FieldError::invalid(format!("{path}.resources.resourceNames"), names, text));
        }
    }
    let regular = !rule.resources.is_empty() || !rule.namespaces.is_empty();
    if regular && !rule.non_resource_urls.is_empty() {
        let urls = serde_json::json!(rule.non_resource_urls);
        let text = "rules cannot apply to both regular resources and non-resource URLs";
        errors.push(FieldError::invalid(format!("{path}.nonResourceURLs"), urls, text));
    }
    level.map_or(Level::None, |(_, level)| *level)
}

impl Policy {
    pub(super) fn parse(text: &str) -> Result<Self, PolicyError> {
        let file: File = serde_saphyr::from_str(text).map_err(|error| PolicyError::Form(error.to_string()))?;
        if (file.api_version.as_str(), file.kind.as_str()) != ("audit.k8s.io/v1", "Policy") {
            return Err(PolicyError::Form(format!("it says apiVersion {:?}, kind {:?}", file.api_version, file.kind)));
        }
        if file.rules.is_empty() {
            return Err(PolicyError::Invalid("rules: there are none, so nothing would be told".to_owned()));
        }
        if file.rules.len() > RULES_MAX {
            return Err(PolicyError::Invalid(format!("rules: {} are more than {RULES_MAX}", file.rules.len())));
        }
        let mut errors = Vec::new();
        let everywhere = stages(&file.omit_stages, "omitStages", &mut errors);
        let rules = file.rules.into_iter().enumerate().map(|(at, said)| {
            let path = format!("rules[{at}]");
            let level = check_rule(&said, &path, &mut errors);
            let mut omitted = stages(&said.omit_stages, &format!("{path}.omitStages"), &mut errors);
            omitted.extend_from_slice(&everywhere);
            Rule { level, omitted, omit_managed: said.omit_managed_fields.unwrap_or(file.omit_managed_fields), said }
        });
        let rules = rules.collect();
        if errors.is_empty() {
            return Ok(Self { rules });
        }
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        Err(PolicyError::Invalid(texts.join("; ")))
    }

    /// The level, the stages that are left out, and whether managed fields are.
    pub(super) fn decide(&self, asked: &Asked<'_>) -> (Level, Vec<Stage>, bool) {
        let rule = self.rules.iter().find(|rule| rule.said.fits(asked));
        rule.map_or((Level::None, Vec::new(), false), |rule| (rule.level, rule.omitted.clone(), rule.omit_managed))
    }
}

fn has(list: &[String], value: &str) -> bool {
    list.iter().any(|own| own == value)
}

impl FileRule {
    fn fits(&self, asked: &Asked<'_>) -> bool {
        if !self.users.is_empty() && !has(&self.users, &asked.user.name)
            || !self.user_groups.is_empty() && !asked.user.groups.iter().any(|group| has(&self.user_groups, group))
            || !self.verbs.is_empty() && !has(&self.verbs, asked.verb)
        {
            return false;
        }
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            return asked.target.is_some_and(|target| self.fits_resource(target));
        }
        if !self.non_resource_urls.is_empty() {
            return asked.target.is_none() && self.non_resource_urls.iter().any(|url| url_fits(url, asked.path));
        }
        true
    }

    fn fits_resource(&self, target: &Resource) -> bool {
        if !self.namespaces.is_empty() && !has(&self.namespaces, &target.namespace) {
            return false;
        }
        self.resources.is_empty() || self.resources.iter().any(|resources| resources.fits(target))
    }
}

impl GroupResources {
    fn fits(&self, target: &Resource) -> bool {
        if self.group != "*" && self.group != target.group {
            return false;
        }
        if self.resources.is_empty() {
            return true;
        }
        if !self.resource_names.is_empty() && !has(&self.resource_names, &target.name) {
            return false;
        }
        let (resource, sub) = (&target.resource, &target.subresource);
        self.resources.iter().any(|own| match own.split_once('/') {
            _ if own == "*" => true,
            None => sub.is_empty() && own == resource,
            Some((base, "*")) => base == resource,
            Some(("*", wanted)) => !sub.is_empty() && wanted == sub,
            Some((base, wanted)) => base == resource && wanted == sub,
        })
    }
}

fn url_fits(url: &str, path: &str) -> bool {
    match url.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => url == path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(rules: &str) -> Result<Policy, PolicyError> {
        Policy::parse(&format!("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n{rules}"))
    }

    fn level(rules: &str, user: &User, verb: &str, path: &str) -> Level {
        let target = match crate::path::parse(path).unwrap() {
            crate::path::Target::Resource(target) => Some(target),
            crate::path::Target::Other(_) => None,
        };
        let asked = Asked { user, verb, target: target.as_ref(), path };
        policy(rules).unwrap().decide(&asked).0
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let anna = User::new("anna", ["acme"]);
        let rules = "
- {level: None, nonResourceURLs: [/livez*, /version]}
- {level: Metadata, resources: [{group: '', resources: [secrets, configmaps/*]}]}
- {level: None, users: [anna], verbs: [watch], namespaces: [acme]}
- {level: RequestResponse, userGroups: [acme], resources: [{group: '*', resources: ['*/status', pods], resourceNames: [p]}]}
- {level: Request, resources: [{group: apps}]}
- {level: Metadata, namespaces: ['']}
";
        for (verb, path, wanted) in [
            ("get", "/livez/etcd", Level::None),
            ("get", "/version", Level::None),
            ("get", "/versions", Level::None),
            ("get", "/api/v1/namespaces/a/secrets/s", Level::Metadata),
            ("get", "/api/v1/namespaces/a/configmaps/s", Level::Metadata),
            ("get", "/api/v1/namespaces/a/configmaps/s/x", Level::Metadata),
            ("watch", "/api/v1/namespaces/acme/pods/p", Level::None),
            ("get", "/api/v1/namespaces/acme/pods/p", Level::RequestResponse),
            ("get", "/api/v1/namespaces/acme/pods/q", Level::None),
            ("update", "/apis/x.io/v1/namespaces/a/things/p/status", Level::RequestResponse),
            ("get", "/apis/apps/v1/namespaces/a/deployments/d", Level::Request),
            ("get", "/api/v1/nodes/n", Level::Metadata),
        ] {
            assert_eq!(level(rules, &anna, verb, path), wanted, "{verb} {path}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (rules, wanted) in [
            ("- {users: [a]}", "rules[0].level: Required value"),
            ("- {level: Loud}", "rules[0].level: Unsupported value: \"Loud\""),
            ("- {level: None, nonResourceURLs: [x]}", "must begin with a '/' character"),
            ("- {level: None, nonResourceURLs: ['/a*b']}", "must be the final character"),
            ("- {level: None, nonResourceURLs: [/a], namespaces: [b]}", "cannot apply to both"),
            ("- {level: None, resources: [{resourceNames: [a]}]}", "requires at least one resource"),
            ("- {level: None, resources: [{group: rbac/v1}]}", "rules[0].resources.group: Invalid value: \"rbac/v1\""),
            (
                "- {level: None, omitStages: [Later]}",
                "rules[0].omitStages[0]: Invalid value: \"Later\": allowed stages are",
            ),
            ("- {level: None, unknown: 1}", "unknown"),
            (" []", "there are none"),
        ] {
            let error = policy(rules).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains(wanted), "{rules}: {error}");
        }
        let many = "- {level: None}\n".repeat(RULES_MAX);
        assert!(policy(&many).is_ok());
        assert!(policy(&format!("{many}- {{level: None}}\n")).is_err());
    }
}
