//! Updates of machines that stay, by runtime extensions: what owners of machines share.
//!
//! The protocol of annotations, in order: the owner marks the Machine; writes what is wanted into its infrastructure and
//! its bootstrap configuration, and marks them; writes the Machine, and notes that `UpdateMachine` is to be called. The
//! Machine's controller calls until that is done, and takes the marks away. A crash at any line is gone on from.
//!
//! Source: kubernetes-sigs/cluster-api docs/proposals/20240807-in-place-updates-implementation-notes.md.

use api::{
    condition::{self, Statement},
    in_place::{self, Objects},
    machine::Machine,
    meta::ConditionStatus,
    names,
    topology::hooks::Hook,
};
use control::{Error, Plan, Result};
use kube::{
    Api, Client,
    api::{DynamicObject, Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::{
    Context,
    extension::{Extensions, Pass},
    external::External,
};

/// Pause until an extension that failed is asked again.
pub const RETRY_S: u64 = 10;

/// Of an infrastructure machine's spec, what does not come from its template (contract of infrastructure providers).
const INFRASTRUCTURE_OWN: [&str; 2] = ["/providerID", "/failureDomain"];
/// The same of a bootstrap configuration: how the machine found its cluster.
const BOOTSTRAP_OWN: [&str; 1] = ["/joinConfiguration/discovery"];

/// What an extension says of an update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It makes all that differs.
    Can,
    /// It does not, or the update cannot be written: the machines are replaced.
    Cannot(String),
    /// Nobody can tell now.
    Unknown(String),
    /// It is asked in the next reconcile.
    Later,
}

/// A clone as it is to be once its machine has been updated: of `template`, and marked.
pub fn desired_infrastructure(current: &External, template: &External) -> Value {
    desired(current, template, &INFRASTRUCTURE_OWN)
}

/// The same of a bootstrap configuration.
pub fn desired_bootstrap(current: &External, template: &External) -> Value {
    desired(current, template, &BOOTSTRAP_OWN)
}

fn desired(current: &External, template: &External, own: &[&str]) -> Value {
    let mut object = current.value().clone();
    let mut spec = template.value().pointer("/spec/template/spec").cloned().unwrap_or_else(|| json!({}));
    for pointer in own {
        if let (Some(value), None) = (current.value()["spec"].pointer(pointer), spec.pointer(pointer)) {
            put(&mut spec, pointer, value.clone());
        }
    }
    object["spec"] = spec;
    let annotations = &mut object["metadata"]["annotations"];
    if !annotations.is_object() {
        *annotations = json!({});
    }
    annotations[names::UPDATE_IN_PROGRESS_ANNOTATION] = "".into();
    annotations[names::CLONED_FROM_NAME_ANNOTATION] = template.key().name.into();
    annotations[names::CLONED_FROM_KIND_ANNOTATION] =
        format!("{}.{}", template.resource.kind, template.resource.group).into();
    object
}

/// Sets a field, with the objects around it; nothing where something else stands in their place.
fn put(object: &mut Value, pointer: &str, value: Value) {
    let mut place = object;
    for name in pointer.split('/').skip(1) {
        let Some(fields) = place.as_object_mut() else { return };
        place = fields.entry(name).or_insert_with(|| json!({}));
    }
    *place = value;
}

/// Writes what a clone is to be.
pub fn write(current: &External, desired: &Value, plan: &mut Plan) {
    plan.update_external(&current.resource, current.value(), desired);
}

/// A clone as the API has it, and what it would make of it if `desired` were written: with its defaults. The inner `Err`
/// says why that cannot be.
pub async fn tried(
    client: &Client,
    current: &External,
    desired: &Value,
) -> Result<std::result::Result<(Value, Value), String>> {
    let same = || Ok(Ok((current.value().clone(), desired.clone())));
    if current.value()["spec"] == desired["spec"] {
        return same();
    }
    let mut plan = Plan::nothing();
    write(current, desired, &mut plan);
    let change = plan.steps.pop().and_then(|step| match step {
        control::Step::Update(change) => change.main,
        _ => None,
    });
    let Some(change) = change else { return same() };
    let key = current.key();
    let failed = |error| Error::api("try", format!("{} {key}", current.resource.kind), error);
    let api = Api::<DynamicObject>::namespaced_with(client.clone(), &key.namespace, &current.resource);
    let present = api.get(&key.name).await.map_err(failed)?;
    let params = PatchParams { dry_run: true, ..PatchParams::default() };
    match api.patch(&key.name, &params, &Patch::Merge(change)).await {
        Ok(made) => Ok(Ok((crate::external::value(&present), crate::external::value(&made)))),
        Err(kube::Error::Api(status)) if matches!(status.code, 403 | 422) => {
            Ok(Err(format!("{} {} cannot become what is wanted: {}", current.resource.kind, key.name, status.message)))
        }
        Err(error) => Err(failed(error)),
    }
}

/// The UpToDate condition of a machine whose update is under way, for its owner to say.
pub fn updating(machine: &Machine) -> Option<Statement> {
    if !in_place::is_under_way(&machine.metadata) {
        return None;
    }
    let conditions = machine.status.as_ref().map_or(&[][..], |status| &status.conditions);
    let told = condition::get(conditions, "Updating").filter(|told| told.status == ConditionStatus::True);
    let told = told.map(|told| told.message.as_str()).filter(|told| !told.is_empty());
    Some(Statement::no("UpToDate", "Updating", format!("* {}", told.unwrap_or("In-place update in progress"))))
}

/// Asks the handler of a hook whether it makes the one of the other.
pub async fn ask(
    context: &Context,
    about: &control::Key,
    (hook, handler): (Hook, &str),
    current: &Objects<'_>,
    desired: &Objects<'_>,
    pass: &Pass,
) -> Verdict {
    let question = in_place::can_update(hook, handler, current, desired);
    let response = match context.extensions.ask(about, &question, pass).await {
        Ok(Some(response)) => response,
        Ok(None) => return Verdict::Later,
        Err(why) => return Verdict::Unknown(why),
    };
    match in_place::covers(&question, &response) {
        Ok(Ok(())) => Verdict::Can,
        Ok(Err(why)) => {
            tracing::info!(%about, why, "machines are replaced instead of updated in place");
            Verdict::Cannot(why)
        }
        Err(why) => Verdict::Unknown(format!("extension handler {handler:?} answered {}: {why}", hook.name())),
    }
}

/// The handler of a hook for a namespace. Where there is none at all, nothing is looked up.
pub async fn handler(
    extensions: &Extensions,
    hook: Hook,
    namespace: &str,
) -> std::result::Result<Option<String>, String> {
    if !extensions.handles(hook) {
        return Ok(None);
    }
    extensions.sole(hook, namespace).await
}
