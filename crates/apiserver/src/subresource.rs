//! The subresources that are created: a token of a service account, a pod's place on a node, a pod's eviction.

use serde_json::{Value, json};

use crate::{
    body, kinds,
    object::{self, decode_kv, text_at},
    rest::{self, DeleteOptions, Edit},
    selector::Labels,
    status::{Cause, Error, Result},
    token::{Bound, Claims, Reference},
    write::{Scope, check_type, rfc3339},
};

pub(crate) async fn create(scope: &mut Scope, body: Value) -> Result<Value> {
    match scope.subresource.as_str() {
        "token" => token(scope, body).await,
        "binding" => bind(scope, body).await,
        "eviction" => evict(scope, body).await,
        _ => Err(Error::no_such_path()),
    }
}

/// Tokens that are asked for without a lifetime live this long; none lives shorter than [`TOKEN_S_MIN`].
const TOKEN_S: i64 = 3600;
const TOKEN_S_MIN: i64 = 600;
/// Nor longer than a year.
const TOKEN_S_MAX: i64 = 365 * 24 * 3600;

/// authentication.k8s.io/v1 TokenRequest.
async fn token(scope: &Scope, mut request: Value) -> Result<Value> {
    check_type(&mut request, "authentication.k8s.io/v1", "TokenRequest")
        .map_err(|wrong| wrong.into_error(&scope.kind))?;
    let account = scope.current().await?.ok_or_else(|| scope.not_found())?;
    let account = decode_kv(&account)?;
    let Some(keys) = &scope.server.state().keys else {
        return Err(Error::internal("this server has no key to sign service account tokens with"));
    };
    let audiences = request.pointer("/spec/audiences").and_then(Value::as_array).into_iter().flatten();
    let mut audiences: Vec<String> = audiences.filter_map(Value::as_str).map(str::to_owned).collect();
    if audiences.is_empty() {
        audiences.push(keys.issuer().to_owned());
    }
    let asked_s = request.pointer("/spec/expirationSeconds").and_then(Value::as_i64).unwrap_or(TOKEN_S);
    if asked_s < TOKEN_S_MIN {
        let text = "may not specify a duration less than 10 minutes";
        let error = crate::field::FieldError::invalid("spec.expirationSeconds", asked_s, text);
        return Err(Error::invalid("authentication.k8s.io", "TokenRequest", "", &[error]));
    }
    if asked_s > 1 << 32 {
        let text = "may not specify a duration larger than 2^32 seconds";
        let error = crate::field::FieldError::invalid("spec.expirationSeconds", asked_s, text);
        return Err(Error::invalid("authentication.k8s.io", "TokenRequest", "", &[error]));
    }
    let lifetime_s = asked_s.min(TOKEN_S_MAX);
    let now = scope.server.now();
    let mut bound = Bound {
        namespace: scope.namespace.clone(),
        pod: None,
        secret: None,
        serviceaccount: Reference { name: scope.name.clone(), uid: object::uid(&account).to_owned() },
    };
    bind_token(scope, &request, &mut bound).await?;
    let claims = Claims {
        aud: audiences.clone(),
        exp: now.as_second() + lifetime_s,
        iat: now.as_second(),
        iss: keys.issuer().to_owned(),
        jti: scope.server.new_uid(),
        kubernetes: bound,
        nbf: Some(now.as_second()),
        sub: format!("system:serviceaccount:{}:{}", scope.namespace, scope.name),
    };
    let token = keys.sign(&claims).map_err(Error::internal)?;
    let end = now.checked_add(jiff::SignedDuration::from_secs(lifetime_s)).map_err(Error::internal)?;
    if request["spec"].get("expirationSeconds").is_none() {
        request["spec"]["expirationSeconds"] = TOKEN_S.into();
    }
    track(scope, &mut request, "authentication.k8s.io", "TokenRequest");
    let managed = request.pointer("/metadata/managedFields").cloned().unwrap_or_default();
    request["metadata"] = json!({
        "name": scope.name, "namespace": scope.namespace, "creationTimestamp": rfc3339(now),
        "uid": object::uid(&account), "managedFields": managed,
    });
    if request["spec"].get("boundObjectRef").is_none() {
        request["spec"]["boundObjectRef"] = Value::Null;
    }
    request["spec"]["audiences"] = audiences.into();
    request["spec"]["expirationSeconds"] = lifetime_s.into();
    request["status"] = json!({"token": token, "expirationTimestamp": rfc3339(end)});
    Ok(request)
}

/// Says in the answer who set what, as upstream does even where nothing is kept.
pub(crate) fn track(scope: &Scope, object: &mut Value, group: &str, kind: &str) {
    let Some(schema) = crate::schema::builtin(group, "v1", kind) else { return };
    if object.get("metadata").is_none_or(|metadata| !metadata.is_object()) {
        object["metadata"] = json!({});
    }
    let (now, version) = (rfc3339(scope.server.now()), kinds::api_version(group, "v1"));
    crate::apply::track_update(None, object, &scope.manager, &scope.subresource, &version, &now, &schema);
}

/// Binds the token to the pod or the secret that the request names.
async fn bind_token(scope: &Scope, request: &Value, bound: &mut Bound) -> Result<()> {
    let Some(reference) = request.pointer("/spec/boundObjectRef").filter(|r| !r.is_null()) else { return Ok(()) };
    let (kind, name) = (text_at(reference, &["kind"]), text_at(reference, &["name"]));
    let plural = match kind {
        "Pod" => "pods",
        "Secret" => "secrets",
        "Node" => {
            let key = format!("{}core/nodes/{name}", kinds::ROOT);
            if crate::write::get(&scope.server, key).await?.is_none() {
                return Err(Error::not_found("", "nodes", name));
            }
            return Err(Error::bad_request("this server binds tokens to pods and secrets alone"));
        }
        other => return Err(Error::bad_request(format!("cannot bind token for object of type {other:?}"))),
    };
    let key = format!("{}core/{plural}/{}/{name}", kinds::ROOT, scope.namespace);
    let Some(kv) = crate::write::get(&scope.server, key).await? else {
        return Err(Error::not_found("", plural, name));
    };
    let found = decode_kv(&kv)?;
    let asked = text_at(reference, &["uid"]);
    if !asked.is_empty() && asked != object::uid(&found) {
        let why = format!("the UID in the bound object reference ({asked}) does not match the UID in record");
        return Err(Error::conflict("", plural, name, why));
    }
    let reference = Reference { name: name.to_owned(), uid: object::uid(&found).to_owned() };
    match plural {
        "pods" => bound.pod = Some(reference),
        _ => bound.secret = Some(reference),
    }
    Ok(())
}

fn created() -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201})
}

/// core/v1 Binding.
async fn bind(scope: &mut Scope, mut binding: Value) -> Result<Value> {
    check_type(&mut binding, "v1", "Binding").map_err(|wrong| wrong.into_error(&scope.kind))?;
    let node = text_at(&binding, &["target", "name"]).to_owned();
    if node.is_empty() {
        let error = crate::field::FieldError::required("target.name", "");
        return Err(Error::invalid("", "Binding", &scope.name, &[error]));
    }
    let annotations = binding.pointer("/metadata/annotations").cloned().unwrap_or_default();
    rest::modify(scope, &Edit::Bind { node, annotations }).await?;
    Ok(created())
}

/// policy/v1 Eviction: a deletion that disruption budgets may refuse.
async fn evict(scope: &mut Scope, mut eviction: Value) -> Result<Value> {
    if !eviction.is_object() {
        return Err(body::unrecognized("Eviction", "the body is not a JSON object"));
    }
    check_type(&mut eviction, "policy/v1", "Eviction").map_err(|wrong| wrong.into_error(&scope.kind))?;
    let pod = scope.current().await?.ok_or_else(|| scope.not_found())?;
    let pod = decode_kv(&pod)?;
    let running = !matches!(text_at(&pod, &["status", "phase"]), "Pending" | "Succeeded" | "Failed");
    if running && !object::is_deleting(&pod) {
        take_from_budget(scope, &pod).await?;
    }
    let options = eviction.get("deleteOptions").cloned().unwrap_or_default();
    let mut options = DeleteOptions::read(&options, &crate::path::Query::default())?;
    options.uid.get_or_insert_with(|| object::uid(&pod).to_owned());
    scope.subresource.clear();
    rest::delete(scope, &options).await?;
    Ok(created())
}

/// Takes one from what the pod's budget allows, or refuses.
async fn take_from_budget(scope: &Scope, pod: &Value) -> Result<()> {
    let catalog = scope.server.catalog();
    let Some(kind) = catalog.find("policy", "v1", "poddisruptionbudgets") else { return Ok(()) };
    let labels = pod.pointer("/metadata/labels");
    let mut budgets = Vec::new();
    rest::for_each(&scope.server, &kind, &scope.namespace, |kv| {
        let budget = decode_kv(&kv)?;
        let selector = Labels::from_value(budget.pointer("/spec/selector").unwrap_or(&Value::Null))?;
        if selector.matches(|key| labels.and_then(|l| l.get(key)).and_then(Value::as_str)) {
            budgets.push(object::name(&budget).to_owned());
        }
        Ok(())
    })
    .await?;
    match &budgets[..] {
        [] => Ok(()),
        [name] => {
            let budget = Scope::internal(&scope.server, &scope.user, kind, &scope.namespace, name);
            let refused = || {
                let cause = Cause {
                    reason: "DisruptionBudget".to_owned(),
                    message: format!("The disruption budget {name} does not allow evicting pods at present."),
                    field: String::new(),
                };
                Error::too_many_requests("Cannot evict pod as it would violate the pod's disruption budget.", 0)
                    .with_causes(vec![cause])
            };
            let taken = std::sync::atomic::AtomicBool::new(false);
            let pod_name = object::name(pod).to_owned();
            let now = rfc3339(scope.server.now());
            rest::modify_internal(&budget, |budget| {
                let allowed = budget.pointer("/status/disruptionsAllowed").and_then(Value::as_i64).unwrap_or(0);
                taken.store(allowed > 0, std::sync::atomic::Ordering::Relaxed);
                if allowed > 0 && !scope.dry_run {
                    object::set_at(budget, &["status", "disruptionsAllowed"], (allowed - 1).into());
                    object::set_at(budget, &["status", "disruptedPods", &pod_name], now.as_str().into());
                }
                allowed > 0 && !scope.dry_run
            })
            .await?;
            if taken.into_inner() { Ok(()) } else { Err(refused()) }
        }
        _ => Err(Error::internal(
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
        )),
    }
}
