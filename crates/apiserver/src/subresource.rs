//! The subresources that are created: a token of a service account, a pod's place on a node, a pod's eviction.

use serde_json::{Value, json};

use crate::{
    admission::{Operation, chain},
    body, kinds,
    object::{self, decode_kv, text_at},
    rest::{self, DeleteOptions, Edit},
    selector::Labels,
    status::{Cause, Error, Result},
    write::{Scope, check_type, rfc3339},
};

mod token;

pub(crate) async fn create(scope: &mut Scope, mut body: Value) -> Result<Value> {
    if body.is_object() {
        chain::subresource(scope, Operation::Create, &mut body).await?;
    }
    match scope.subresource.as_str() {
        "token" => token::create(scope, body).await,
        "binding" => bind(scope, body).await,
        "eviction" => evict(scope, body).await,
        _ => Err(Error::no_such_path()),
    }
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
