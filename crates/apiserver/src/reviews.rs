//! Questions that are answered and not stored: may somebody do something, who is it (authorization.k8s.io,
//! authentication.k8s.io).

use std::collections::BTreeMap;

use policy::{
    User,
    rbac::{Attributes, Rule},
};
use serde_json::{Value, json};

use crate::{
    authn,
    authz::{self, Question, Verdict},
    field::FieldError,
    kinds::Kind,
    object::text_at,
    server::Server,
    status::{Error, Result},
    write::rfc3339,
};

pub(crate) async fn answer(
    server: &Server,
    user: &User,
    kind: &Kind,
    namespace: &str,
    mut review: Value,
) -> Result<Value> {
    let status = match kind.kind.as_ref() {
        "SelfSubjectReview" => {
            json!({"userInfo": user})
        }
        "SelfSubjectAccessReview" => access(server, user, &review).await?,
        "SubjectAccessReview" => access(server, &asked_user(&review)?, &review).await?,
        "LocalSubjectAccessReview" => {
            if text_at(&review, &["spec", "resourceAttributes", "namespace"]) != namespace {
                let asked = review.pointer("/spec/resourceAttributes/namespace").cloned().unwrap_or_default();
                return Err(invalid("spec.resourceAttributes.namespace", asked, "must match metadata.namespace"));
            }
            access(server, &asked_user(&review)?, &review).await?
        }
        "SelfSubjectRulesReview" => rules(server, user, &review)?,
        "TokenReview" => token(server, &review).await?,
        _ => return Err(Error::no_such_path()),
    };
    if review.get("metadata").is_none_or(|m| !m.is_object()) {
        review["metadata"] = json!({});
    }
    if kind.kind == "SelfSubjectReview" {
        review["metadata"]["creationTimestamp"] = rfc3339(server.now()).into();
    }
    if kind.kind == "SelfSubjectRulesReview" {
        review["spec"] = json!({});
    }
    review["status"] = status;
    Ok(review)
}

/// Upstream names the group of what is wrong, but not its kind.
fn invalid(path: &str, value: Value, why: &str) -> Error {
    Error::invalid("authorization.k8s.io", "", "", &[FieldError::invalid(path, value, why)])
}

fn asked_user(review: &Value) -> Result<User> {
    let spec = review.get("spec").cloned().unwrap_or_default();
    let texts = |value: Option<&Value>| {
        let list = value.and_then(Value::as_array).into_iter().flatten();
        list.filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()
    };
    let user = User {
        name: text_at(&spec, &["user"]).to_owned(),
        uid: text_at(&spec, &["uid"]).to_owned(),
        groups: texts(spec.get("groups")),
        extra: BTreeMap::new(),
    };
    if user.name.is_empty() && user.groups.is_empty() {
        return Err(invalid("spec.user", "".into(), "at least one of user or group must be specified"));
    }
    Ok(user)
}

async fn access(server: &Server, user: &User, review: &Value) -> Result<Value> {
    let spec = review.get("spec").cloned().unwrap_or_default();
    let resource = spec.get("resourceAttributes").filter(|a| a.is_object());
    let path = spec.get("nonResourceAttributes").filter(|a| a.is_object());
    let wanted = match (resource, path) {
        (Some(a), None) => Attributes::Resource {
            verb: text_at(a, &["verb"]),
            group: text_at(a, &["group"]),
            resource: text_at(a, &["resource"]),
            subresource: text_at(a, &["subresource"]),
            namespace: text_at(a, &["namespace"]),
            name: text_at(a, &["name"]),
        },
        (None, Some(a)) => Attributes::Path { verb: text_at(a, &["verb"]), path: text_at(a, &["path"]) },
        (Some(_), Some(path)) => {
            let text = "cannot be specified in combination with resourceAttributes";
            let printed = json!({"Path": text_at(path, &["path"]), "Verb": text_at(path, &["verb"])});
            return Err(invalid("spec.nonResourceAttributes", printed, text));
        }
        (None, None) => {
            let text = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            return Err(invalid("spec.resourceAttributes", Value::Null, text));
        }
    };
    let selector = resource.map_or("", |a| text_at(a, &["fieldSelector", "rawSelector"]));
    let version = resource.map_or("", |a| text_at(a, &["version"]));
    Ok(match authz::decide(server, &Question { user, wanted, version, field_selector: selector }).await {
        Verdict::Allow(reason) if reason.is_empty() => json!({"allowed": true}),
        Verdict::Allow(reason) => json!({"allowed": true, "reason": reason}),
        Verdict::Deny(reason) if reason.is_empty() => json!({"allowed": false, "denied": true}),
        Verdict::Deny(reason) => json!({"allowed": false, "denied": true, "reason": reason}),
        Verdict::NoOpinion(reason) if reason.is_empty() => json!({"allowed": false}),
        Verdict::NoOpinion(reason) => json!({"allowed": false, "reason": reason}),
    })
}

fn rules(server: &Server, user: &User, review: &Value) -> Result<Value> {
    let namespace = text_at(review, &["spec", "namespace"]);
    if namespace.is_empty() {
        return Err(Error::bad_request("no namespace on request"));
    }
    let mut rules = server.state().access.read().rbac.rules_for(user, namespace);
    rules.sort();
    rules.dedup();
    let (paths, resources): (Vec<Rule>, Vec<Rule>) = rules.into_iter().partition(|r| !r.non_resource_urls.is_empty());
    let mut status = json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false});
    if authz::asks_webhooks(server) {
        status["incomplete"] = true.into();
        status["evaluationError"] = "webhook authorizer does not support user rule resolution".into();
    }
    if server.state().options.node_authorizer && authz::node::is_node(user) {
        status["incomplete"] = true.into();
        status["evaluationError"] = "node authorizer does not support user rule resolution".into();
    }
    Ok(status)
}

async fn token(server: &Server, review: &Value) -> Result<Value> {
    let token = text_at(review, &["spec", "token"]);
    if token.is_empty() {
        return Err(Error::bad_request("token is required for TokenReview in authentication"));
    }
    let audiences = review.pointer("/spec/audiences").and_then(Value::as_array).into_iter().flatten();
    let audiences: Vec<String> = audiences.filter_map(Value::as_str).map(str::to_owned).collect();
    Ok(match authn::bearer(server, token, &audiences).await? {
        Some((user, audiences)) => json!({"authenticated": true, "user": user, "audiences": audiences}),
        None => {
            let meant = authn::audiences(token);
            let for_others = !meant.is_empty() && authn::bearer(server, token, &meant).await?.is_some();
            let own = server.state().keys.as_ref().map(|keys| keys.audiences.clone()).unwrap_or_default();
            let wanted = if audiences.is_empty() { &own } else { &audiences };
            let why = format!("token audiences {meant:?} is invalid for the target audiences {wanted:?}");
            let error = match for_others {
                true => format!("[invalid bearer token, {why}]"),
                false => "invalid bearer token".to_owned(),
            };
            json!({"user": {}, "error": error})
        }
    })
}
