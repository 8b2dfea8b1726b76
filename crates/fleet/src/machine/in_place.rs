//! Has an extension update a machine that its owner has prepared for that, until it says that it is done.
//!
//! The end has an order too: first the Machine's mark goes, then those of what belongs to it, then the note that the
//! extension is to be called. Whatever is cut off in between is ended in this order.
//!
//! Source: kubernetes-sigs/cluster-api core/reconcilers/machine/machine_controller_inplace_update.go.

use api::{
    condition::Statement,
    in_place::{Objects, expect, is_marked, is_pending, is_under_way, mark, update},
    machine::Machine,
    topology::hooks::Hook,
};
use control::{Key, Plan};

use super::Seen;
use crate::{
    Context, external,
    in_place::{self, RETRY_S},
};

/// How far an update is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update {
    /// The owner, or what belongs to the machine, is not ready for it.
    Waits(&'static str),
    /// The extension says when it is to be asked again.
    Goes {
        message: String,
        again_s: u64,
    },
    Failed(String),
    Done,
}

/// What is left of an update that is done, or was given up.
pub fn is_ending(machine: &Machine) -> bool {
    is_pending(&machine.metadata) && !is_marked(&machine.metadata)
}

/// Calls the extension if it is time to; none: nothing is to be updated.
pub async fn drive(context: &Context, key: &Key, seen: &Seen) -> Option<Update> {
    let machine = seen.machine.as_ref();
    let meta = &machine.metadata;
    let held = crate::owner::is_paused(seen.cluster.as_deref(), meta) || seen.cluster.is_none();
    if !is_marked(meta) || meta.deletion_timestamp.is_some() || held {
        return None;
    }
    Some(match ready(seen) {
        Err(update) => update,
        Ok(()) => call(context, key, seen).await,
    })
}

/// Whether the extension may be called; `Err` says what it waits for.
fn ready(seen: &Seen) -> Result<(), Update> {
    let machine = seen.machine.as_ref();
    if !is_pending(&machine.metadata) {
        return Err(Update::Waits("Waiting for the owner of the Machine to prepare the in-place update"));
    }
    let status = machine.status.as_ref();
    let started = status.and_then(|status| status.initialization.clone()).unwrap_or_default();
    if started.infrastructure_provisioned != Some(true)
        || started.bootstrap_data_secret_created != Some(true)
        || status.is_none_or(|status| status.node_ref.is_none())
    {
        return Err(Update::Waits("Waiting for the Machine to be provisioned"));
    }
    let Some(infrastructure) = &seen.infrastructure else {
        return Err(Update::Failed("In-place update not possible: InfraMachine not found".to_owned()));
    };
    let bootstrap = seen.bootstrap.as_ref();
    if !is_marked(&infrastructure.meta) || bootstrap.is_some_and(|bootstrap| !is_marked(&bootstrap.meta)) {
        return Err(Update::Waits("Waiting for InfraMachine and BootstrapConfig to be marked for in-place update"));
    }
    Ok(())
}

async fn call(context: &Context, key: &Key, seen: &Seen) -> Update {
    let failed = |why: String| Update::Failed(format!("UpdateMachine hook failed: {why}"));
    let Some(infrastructure) = &seen.infrastructure else { return failed("no InfraMachine".to_owned()) };
    let extensions = &context.extensions;
    let handler = match in_place::handler(extensions, Hook::UpdateMachine, &key.namespace).await {
        Ok(Some(handler)) => handler,
        Ok(None) => return failed("no extensions registered for UpdateMachine hook".to_owned()),
        Err(why) => return failed(why),
    };
    let machine = external::value(seen.machine.as_ref());
    let desired = Objects {
        main: &machine,
        infrastructure: infrastructure.value(),
        bootstrap: seen.bootstrap.as_ref().map(crate::External::value),
    };
    match extensions.drive(key, &update(&handler, &desired)).await {
        Ok(progress) if progress.again_s > 0 => Update::Goes { message: progress.message, again_s: progress.again_s },
        Ok(_) => Update::Done,
        Err(why) => failed(why),
    }
}

/// Goes on with what the extension said.
pub fn plan(seen: &Seen, after: &mut Machine, plan: &mut Plan) {
    match &seen.update {
        Some(Update::Goes { again_s, .. }) => drop(plan.wait("an in-place update", *again_s)),
        Some(Update::Failed(_)) => drop(plan.wait("the extension of an in-place update", RETRY_S)),
        Some(Update::Done) => mark(&mut after.metadata, false),
        Some(Update::Waits(_)) => {}
        None if is_ending(&seen.machine) => {
            let parts = [&seen.infrastructure, &seen.bootstrap];
            if !parts.into_iter().flatten().any(|part| is_marked(&part.meta) && !part.deleting()) {
                expect(&mut after.metadata, false);
            }
        }
        None => {}
    }
}

/// The Updating condition of a machine as it is to be written.
pub fn statement(seen: &Seen, after: &Machine) -> Statement {
    let type_ = "Updating";
    if !is_under_way(&after.metadata) {
        return Statement::no(type_, "NotUpdating", "");
    }
    let (reason, message) = match &seen.update {
        Some(Update::Failed(why)) => ("InPlaceUpdateFailed", why.clone()),
        Some(Update::Goes { message, .. }) if !message.is_empty() => {
            ("InPlaceUpdating", format!("In-place update in progress: {message}"))
        }
        Some(Update::Waits(what)) => ("InPlaceUpdating", format!("In-place update in progress: {what}")),
        _ => ("InPlaceUpdating", "In-place update in progress".to_owned()),
    };
    Statement { message, ..Statement::yes(type_, reason) }
}
