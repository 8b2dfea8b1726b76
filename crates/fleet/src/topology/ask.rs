//! Runtime extensions of a topology: what the plan wants to know is asked before it is made.

use api::topology::{
    TopologyError,
    desired::{desired, plan_extension},
    hooks,
};
use control::{Key, Result};
use serde_json::Value;

use super::Seen;
use crate::{
    Context,
    extension::{Extensions, Pass, UNREACHED},
    owner,
};

/// Whether a class has a part in it that only extensions can tell.
fn asks(class: &Value) -> bool {
    let patches = class.pointer("/spec/patches").and_then(Value::as_array).into_iter().flatten();
    plan_extension(class).is_some() || patches.into_iter().any(|patch| patch["external"].is_object())
}

/// Asks what has to be known, until nothing has or the rest is put off to the next reconcile. A class has so many patches
/// and a cluster so many hooks, so there is an end.
pub(super) async fn ask(context: &Context, key: &Key, seen: &mut Seen) -> Result<()> {
    let cluster = seen.cluster.clone();
    let deleting = cluster.metadata.deletion_timestamp.is_some();
    if owner::is_paused(Some(&cluster), &cluster.metadata) || seen.class.is_none() && !deleting {
        return Ok(());
    }
    if deleting {
        seen.held = Extensions::hold_deletion(&context.caches, &cluster);
        if !seen.held {
            return Ok(());
        }
    }
    seen.state.runtime = context.extensions.runtime(&key.namespace).await?;
    if !deleting && seen.state.runtime.handled.is_empty() && !asks(&seen.state.class) {
        return Ok(());
    }
    let pass = Pass::begin();
    loop {
        let next = match deleting {
            true => hooks::before_delete(&seen.state.runtime, &seen.state.cluster).map(drop),
            false => desired(&seen.state).map(drop),
        };
        let Err(TopologyError::Ask(question)) = next else { break };
        let Some(answer) = context.extensions.ask(key, &question, &pass).await.transpose() else { break };
        seen.unreached |= answer.as_ref().is_ok_and(|answer| answer[UNREACHED] == true);
        seen.state.runtime.answers.insert(question.key(), answer);
    }
    Ok(())
}
