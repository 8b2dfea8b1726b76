//! Configurations of webhooks, and admission policies with their bindings. What they do is in [`crate::admission`].

use policy::rbac::Attributes;
use serde_json::Value;

use super::{Cx, Strategy, plain, zero_status};
use crate::{
    admission::check,
    kinds::split_api_version,
    object::{self, at, text_at},
    status::{Error, Result},
};

pub(crate) static VALIDATING_WEBHOOKS: Strategy = Strategy {
    generation: true,
    unconditional_update: false,
    check: |_, new, old| check::check_webhooks(new, old, false),
    ..plain()
};

pub(crate) static MUTATING_WEBHOOKS: Strategy =
    Strategy { check: |_, new, old| check::check_webhooks(new, old, true), ..VALIDATING_WEBHOOKS };

pub(crate) static VALIDATING_POLICY: Strategy = Strategy {
    generation: true,
    unconditional_update: false,
    create: |cx, new| may_read_params(cx, new, None),
    prepare: zero_status,
    update: |cx, new, old| may_read_params(cx, new, Some(old)),
    check: |cx, new, old| match cx.subresource {
        "status" => Vec::new(),
        _ => check::check_policy(new, old, false),
    },
    ..plain()
};

pub(crate) static MUTATING_POLICY: Strategy =
    Strategy { prepare: |_, _| {}, check: |_, new, old| check::check_policy(new, old, true), ..VALIDATING_POLICY };

pub(crate) static VALIDATING_BINDING: Strategy = Strategy {
    generation: true,
    unconditional_update: false,
    create: |cx, new| may_read_referred(cx, new, None, "validatingadmissionpolicies"),
    update: |cx, new, old| may_read_referred(cx, new, Some(old), "validatingadmissionpolicies"),
    check: |_, new, _| check::check_binding(new, false),
    ..plain()
};

pub(crate) static MUTATING_BINDING: Strategy = Strategy {
    create: |cx, new| may_read_referred(cx, new, None, "mutatingadmissionpolicies"),
    update: |cx, new, old| may_read_referred(cx, new, Some(old), "mutatingadmissionpolicies"),
    check: |_, new, _| check::check_binding(new, true),
    ..VALIDATING_BINDING
};

/// Group and plural of a kind; stars where it is not known.
fn resource(cx: &Cx<'_>, kind: &Value) -> (String, String) {
    let (group, version) = split_api_version(text_at(kind, &["apiVersion"]));
    let found = cx.server.catalog().find_kind(group, version, text_at(kind, &["kind"]));
    (group.to_owned(), found.map_or_else(|| "*".to_owned(), |kind| kind.plural.to_string()))
}

fn is_allowed(cx: &Cx<'_>, wanted: &Attributes<'_>) -> bool {
    cx.user.is_master() || cx.server.state().access.read().rbac.authorize(cx.user, wanted).is_allowed()
}

/// As Go prints a user.
fn printed(cx: &Cx<'_>) -> String {
    let user = cx.user;
    let extra: Vec<String> = user.extra.iter().map(|(key, values)| format!("{key}:[{}]", values.join(" "))).collect();
    format!("&{{{} {} [{}] map[{}]}}", user.name, user.uid, user.groups.join(" "), extra.join(" "))
}

/// Whoever makes a policy must be able to read what it takes its parameters from: its messages may tell of them.
fn may_read_params(cx: &Cx<'_>, new: &Value, old: Option<&Value>) -> Result<()> {
    let Some(kind) = at(new, &["spec", "paramKind"]).filter(|kind| kind.is_object()) else { return Ok(()) };
    if old.is_some_and(|old| at(old, &["spec", "paramKind"]) == Some(kind)) {
        return Ok(());
    }
    let (group, plural) = resource(cx, kind);
    let wanted = Attributes::Resource {
        verb: "get",
        group: &group,
        resource: &plural,
        subresource: "",
        namespace: "*",
        name: "*",
    };
    if is_allowed(cx, &wanted) {
        return Ok(());
    }
    let (kind, api_version) = (text_at(kind, &["kind"]), text_at(kind, &["apiVersion"]));
    let why = format!(
        "user {} must have \"get\" permission on all objects of the referenced paramKind (kind={kind}, apiVersion={api_version})",
        printed(cx)
    );
    Err(Error::forbidden(&cx.kind.group, &cx.kind.plural, object::name(new), why))
}

/// The same of a binding, and of the parameters that it names. The policy is looked up among those that are in force.
fn may_read_referred(cx: &Cx<'_>, new: &Value, old: Option<&Value>, policies: &str) -> Result<()> {
    let Some(reference) = at(new, &["spec", "paramRef"]).filter(|reference| reference.is_object()) else {
        return Ok(());
    };
    let same = |old: &Value| {
        at(old, &["spec", "paramRef"]) == Some(reference)
            && text_at(old, &["spec", "policyName"]) == text_at(new, &["spec", "policyName"])
    };
    if old.is_some_and(same) {
        return Ok(());
    }
    let policy = text_at(new, &["spec", "policyName"]);
    let found = cx.server.hooks().param_kind(policies, policy);
    let (group, plural) = match &found {
        Some(Some((api_version, kind))) => resource(cx, &serde_json::json!({"apiVersion": api_version, "kind": kind})),
        _ => ("*".to_owned(), "*".to_owned()),
    };
    let name = text_at(reference, &["name"]);
    let verb = if name.is_empty() { "list" } else { "get" };
    let wanted = Attributes::Resource {
        verb,
        group: &group,
        resource: &plural,
        subresource: "",
        namespace: text_at(reference, &["namespace"]),
        name,
    };
    if is_allowed(cx, &wanted) {
        return Ok(());
    }
    let why = match found {
        None => format!(
            "unable to get policy {policy} to determine minimum required permissions and user {} does not have {verb:?} \
             permission for all groups, versions and resources",
            printed(cx)
        ),
        Some(_) => {
            format!("user {} does not have {verb:?} permission on the object referenced by paramRef", printed(cx))
        }
    };
    Err(Error::forbidden(&cx.kind.group, &cx.kind.plural, object::name(new), why))
}
