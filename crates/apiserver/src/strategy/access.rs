//! Roles and bindings: nobody may grant what they do not hold (`pkg/registry/rbac/*/policybased`).

use policy::rbac::{RoleRef, Rule};
use serde_json::Value;

use super::{Cx, Right, Strategy, plain};
use crate::{
    field::FieldError,
    kinds::Kind,
    names::NameRule,
    object::{self, at, set_at, text_at},
    status::{Error, Result},
};

const GROUP: &str = "rbac.authorization.k8s.io";

pub(crate) static ROLE: Strategy = Strategy {
    asks: |kind, _, role, _| vec![escalate(kind, role)],
    create_on_update: true,
    names: NameRule::PathSegment,
    create: |cx, role| {
        // Null is nothing to own.
        if role.get("rules").is_some_and(Value::is_null) {
            role.as_object_mut().and_then(|fields| fields.remove("rules"));
        }
        may_grant(cx, role, None)
    },
    prepare: |_, role| default_rules(role),
    update: |cx, role, old| {
        default_rules(role);
        may_grant(cx, role, Some(old))
    },
    check: check_role,
    ..plain()
};

pub(crate) static BINDING: Strategy = Strategy {
    asks: |_, _, binding, _| vec![bind(binding)],
    create_on_update: true,
    names: NameRule::PathSegment,
    create: |cx, binding| {
        default_groups(binding);
        if binding.get("subjects").and_then(Value::as_array).is_some_and(Vec::is_empty) {
            binding.as_object_mut().and_then(|fields| fields.remove("subjects"));
        }
        may_bind(cx, binding, None)
    },
    update: |cx, binding, old| {
        default_groups(binding);
        may_bind(cx, binding, Some(old))
    },
    check: check_binding,
    ..plain()
};

fn default_rules(role: &mut Value) {
    if role.get("rules").and_then(Value::as_array).is_none_or(Vec::is_empty) {
        set_at(role, &["rules"], Value::Null);
    }
}

fn default_groups(binding: &mut Value) {
    if text_at(binding, &["roleRef", "apiGroup"]).is_empty() {
        set_at(binding, &["roleRef", "apiGroup"], GROUP.into());
    }
    for subject in binding.get_mut("subjects").and_then(Value::as_array_mut).into_iter().flatten() {
        if text_at(subject, &["apiGroup"]).is_empty() && matches!(text_at(subject, &["kind"]), "User" | "Group") {
            set_at(subject, &["apiGroup"], GROUP.into());
        }
    }
}

pub(crate) fn rules_of(role: &Value) -> Vec<Rule> {
    let list = role.get("rules").and_then(Value::as_array).into_iter().flatten();
    list.filter_map(|rule| serde_json::from_value(rule.clone()).ok()).collect()
}

pub(crate) fn role_ref(binding: &Value) -> RoleRef {
    RoleRef {
        cluster: text_at(binding, &["roleRef", "kind"]) == "ClusterRole",
        name: text_at(binding, &["roleRef", "name"]).into(),
    }
}

fn may_grant(cx: &Cx<'_>, role: &Value, old: Option<&Value>) -> Result<()> {
    if old.is_some_and(|old| {
        old.get("rules") == role.get("rules") && old.get("aggregationRule") == role.get("aggregationRule")
    }) {
        return Ok(());
    }
    let namespace = object::namespace(role);
    let name = object::name(role);
    if cx.user.is_master() || cx.has(&escalate(cx.kind, role)) {
        return Ok(());
    }
    if role.get("aggregationRule").is_some_and(|a| !a.is_null()) {
        let all = [Rule {
            verbs: vec!["*".into()],
            api_groups: vec!["*".into()],
            resources: vec!["*".into()],
            ..Rule::default()
        }];
        if let Err(why) = holds(cx, namespace, &all) {
            let text = format!("must have cluster-admin privileges to use the aggregationRule: {why}");
            return Err(Error::forbidden(GROUP, &cx.kind.plural, name, text));
        }
    }
    holds(cx, namespace, &rules_of(role)).map_err(|why| Error::forbidden(GROUP, &cx.kind.plural, name, why))
}

fn may_bind(cx: &Cx<'_>, binding: &Value, old: Option<&Value>) -> Result<()> {
    if old.is_some_and(|old| old.get("subjects") == binding.get("subjects")) {
        return Ok(());
    }
    let namespace = object::namespace(binding);
    let role = role_ref(binding);
    let resource = if role.cluster { "clusterroles" } else { "roles" };
    if cx.user.is_master() || cx.has(&bind(binding)) {
        return Ok(());
    }
    let rules = cx.server.state().access.read().rbac.role(namespace, &role).map(|rules| rules.to_vec());
    let Some(rules) = rules else { return Err(Error::not_found(GROUP, resource, &role.name)) };
    let name = object::name(binding);
    holds(cx, namespace, &rules).map_err(|why| Error::forbidden(GROUP, &cx.kind.plural, name, why))
}

/// The right to give a role more than one has oneself.
fn escalate(kind: &Kind, role: &Value) -> Right {
    right("escalate", &kind.plural, object::namespace(role), object::name(role))
}

/// The right to give others a role that one does not hold.
fn bind(binding: &Value) -> Right {
    let role = role_ref(binding);
    right("bind", if role.cluster { "clusterroles" } else { "roles" }, object::namespace(binding), &role.name)
}

fn right(verb: &'static str, resource: &str, namespace: &str, name: &str) -> Right {
    let [resource, namespace, name] = [resource, namespace, name].map(str::to_owned);
    Right { verb, group: GROUP, resource, namespace, name }
}

/// Whether the user holds all of `rules` in `namespace`, else why not.
fn holds(cx: &Cx<'_>, namespace: &str, rules: &[Rule]) -> Result<(), String> {
    let held = cx.server.state().access.read().rbac.rules_for(cx.user, namespace);
    let missing =
        policy::rbac::uncovered(&held, rules).map_err(|parts| format!("the role has too many parts: {parts}"))?;
    if missing.is_empty() {
        return Ok(());
    }
    let groups = cx.user.groups.iter().map(|g| format!("{g:?}")).collect::<Vec<_>>().join(" ");
    let list: String = missing.iter().map(|rule| format!("\n{}", compact(rule))).collect();
    Err(format!(
        "user {:?} (groups=[{groups}]) is attempting to grant RBAC permissions not currently held:{list}",
        cx.user.name
    ))
}

fn compact(rule: &Rule) -> String {
    let lists = [
        ("APIGroups", &rule.api_groups),
        ("Resources", &rule.resources),
        ("ResourceNames", &rule.resource_names),
        ("NonResourceURLs", &rule.non_resource_urls),
        ("Verbs", &rule.verbs),
    ];
    let parts: Vec<_> = lists
        .iter()
        .filter(|(_, list)| !list.is_empty())
        .map(|(title, list)| {
            format!("{title}:[{}]", list.iter().map(|t| format!("{t:?}")).collect::<Vec<_>>().join(" "))
        })
        .collect();
    format!("{{{}}}", parts.join(", "))
}

fn check_role(_: &Cx<'_>, new: &Value, _: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let namespaced = !object::namespace(new).is_empty();
    for (i, rule) in new.get("rules").and_then(Value::as_array).into_iter().flatten().enumerate() {
        let path = format!("rules[{i}]");
        let filled = |key: &str| rule.get(key).and_then(Value::as_array).is_some_and(|list| !list.is_empty());
        if !filled("verbs") {
            errors.push(FieldError::required(format!("{path}.verbs"), "verbs must contain at least one value"));
        }
        if filled("nonResourceURLs") {
            if namespaced {
                let text = "namespaced rules cannot apply to non-resource URLs";
                let value = rule.get("nonResourceURLs").cloned().unwrap_or_default();
                errors.push(FieldError::invalid(format!("{path}.nonResourceURLs"), value, text));
            }
            if filled("apiGroups") || filled("resources") || filled("resourceNames") {
                let text = "rules cannot apply to both regular resources and non-resource URLs";
                let value = rule.get("nonResourceURLs").cloned().unwrap_or_default();
                errors.push(FieldError::invalid(format!("{path}.nonResourceURLs"), value, text));
            }
            continue;
        }
        if !filled("apiGroups") {
            let text = "resource rules must supply at least one api group";
            errors.push(FieldError::required(format!("{path}.apiGroups"), text));
        }
        if !filled("resources") {
            let text = "resource rules must supply at least one resource";
            errors.push(FieldError::required(format!("{path}.resources"), text));
        }
    }
    errors
}

fn check_binding(_: &Cx<'_>, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let namespaced = !object::namespace(new).is_empty();
    if text_at(new, &["roleRef", "apiGroup"]) != GROUP {
        errors.push(FieldError::not_supported("roleRef.apiGroup", text_at(new, &["roleRef", "apiGroup"]), &[GROUP]));
    }
    let kinds: &[&str] = if namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    let kind = text_at(new, &["roleRef", "kind"]);
    if !kinds.contains(&kind) {
        errors.push(FieldError::not_supported("roleRef.kind", kind, kinds));
    }
    if text_at(new, &["roleRef", "name"]).is_empty() {
        errors.push(FieldError::required("roleRef.name", ""));
    }
    if let Some(old) = old
        && old.get("roleRef") != new.get("roleRef")
    {
        // As upstream prints it, whose internal type has no names of its own for JSON.
        let text = |key: &str| text_at(new, &["roleRef", key]);
        let printed = serde_json::json!({"APIGroup": text("apiGroup"), "Kind": text("kind"), "Name": text("name")});
        errors.push(FieldError::invalid("roleRef", printed, "cannot change roleRef"));
    }
    for (i, subject) in new.get("subjects").and_then(Value::as_array).into_iter().flatten().enumerate() {
        let path = format!("subjects[{i}]");
        if text_at(subject, &["name"]).is_empty() {
            errors.push(FieldError::required(format!("{path}.name"), ""));
        }
        match text_at(subject, &["kind"]) {
            "ServiceAccount" => {
                if !namespaced && text_at(subject, &["namespace"]).is_empty() {
                    errors.push(FieldError::required(format!("{path}.namespace"), ""));
                }
                if !text_at(subject, &["apiGroup"]).is_empty() {
                    let group = at(subject, &["apiGroup"]).cloned().unwrap_or_default();
                    errors.push(FieldError::not_supported(format!("{path}.apiGroup"), group, &[""]));
                }
            }
            "User" | "Group" => {
                if text_at(subject, &["apiGroup"]) != GROUP {
                    let group = at(subject, &["apiGroup"]).cloned().unwrap_or_default();
                    errors.push(FieldError::not_supported(format!("{path}.apiGroup"), group, &[GROUP]));
                }
            }
            other => {
                let kinds = ["ServiceAccount", "User", "Group"];
                errors.push(FieldError::not_supported(format!("{path}.kind"), other, &kinds));
            }
        }
    }
    errors
}
