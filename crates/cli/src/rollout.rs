//! `skep rollout`: the words of `clusterctl alpha rollout` and of `kubectl rollout`, for MachineDeployments and
//! KubeadmControlPlanes.

mod history;
mod progress;

use std::fmt::Display;

use anyhow::{Context, Result, bail};
use api::{
    control_plane::KubeadmControlPlane,
    machine::{MachineDeployment, Rollout as DeploymentRollout},
    names::{PAUSED_ANNOTATION, TOPOLOGY_OWNED_LABEL},
};
use jiff::Timestamp;
use kube::{
    Api, Resource,
    api::{Patch, PatchParams},
};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::{DONE, NOT_FOUND, Target, output};

#[derive(clap::Args)]
pub struct Rollout {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// List the revisions that are kept, or show one
    History(history::Arguments),
    /// Go back to an earlier revision
    Undo(history::Undo),
    /// Wait until a rollout is complete
    Status(progress::Arguments),
    /// Replace all machines, one after another
    Restart(Named),
    /// Hold rollouts
    Pause(Named),
    /// Let rollouts go on
    Resume(Named),
}

#[derive(clap::Args)]
pub struct Named {
    /// machinedeployment/NAME (md/NAME) or kubeadmcontrolplane/NAME (kcp/NAME)
    #[arg(value_name = "KIND/NAME", value_parser = parse)]
    object: Object,
    #[command(flatten)]
    target: Target,
}

#[derive(Clone, Debug, PartialEq)]
enum Object {
    Deployment(String),
    ControlPlane(String),
}

impl Display for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Deployment(name) => write!(f, "machinedeployment/{name}"),
            Self::ControlPlane(name) => write!(f, "kubeadmcontrolplane/{name}"),
        }
    }
}

fn parse(text: &str) -> Result<Object, String> {
    let Some((kind, name)) = text.split_once('/').filter(|(_, name)| !name.is_empty()) else {
        return Err("say which kind too: machinedeployment/NAME or kubeadmcontrolplane/NAME".to_owned());
    };
    match kind.to_ascii_lowercase().as_str() {
        "machinedeployment" | "machinedeployments" | "md" => Ok(Object::Deployment(name.to_owned())),
        "kubeadmcontrolplane" | "kubeadmcontrolplanes" | "kcp" => Ok(Object::ControlPlane(name.to_owned())),
        _ => Err(format!("{kind} has no rollouts: only machinedeployment and kubeadmcontrolplane have")),
    }
}

pub async fn run(rollout: Rollout) -> Result<u8> {
    match rollout.what {
        What::History(arguments) => history::show(arguments).await,
        What::Undo(arguments) => history::undo(arguments).await,
        What::Status(arguments) => progress::run(arguments).await,
        What::Restart(named) => change(&named, Change::Restart).await,
        What::Pause(named) => change(&named, Change::Pause).await,
        What::Resume(named) => change(&named, Change::Resume).await,
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Change {
    Restart,
    Pause,
    Resume,
}

/// Reads the object; `None` after saying that there is none.
async fn find<K>(named: &Named, api: &Api<K>, name: &str) -> Result<Option<K>>
where
    K: Clone + std::fmt::Debug + DeserializeOwned,
{
    let namespace = &named.target.namespace;
    let found = api.get_opt(name).await.with_context(|| format!("read {} in {namespace}", named.object))?;
    if found.is_none() {
        output::progress(&format!("there is no {} in namespace {namespace}", named.object));
    }
    Ok(found)
}

async fn change(named: &Named, change: Change) -> Result<u8> {
    let client = named.target.client().await?;
    let now = Timestamp::now();
    match &named.object {
        Object::Deployment(name) => {
            let api = Api::<MachineDeployment>::namespaced(client, &named.target.namespace);
            let Some(found) = find(named, &api, name).await? else { return Ok(NOT_FOUND) };
            refuse_topology(named, &found, change)?;
            let after = found.spec.rollout.as_ref().and_then(|rollout: &DeploymentRollout| rollout.after.as_ref());
            let paused = found.spec.paused == Some(true);
            let Some(mut patch) = patch(change, after.map(|time| time.0), paused, now, &named.object)? else {
                return Ok(DONE);
            };
            if let Some(paused) = patch.as_object_mut().and_then(|patch| patch.remove("paused")) {
                patch["spec"] = json!({ "paused": paused });
            }
            send(named, &api, name, patch, change).await
        }
        Object::ControlPlane(name) => {
            let api = Api::<KubeadmControlPlane>::namespaced(client, &named.target.namespace);
            let Some(found) = find(named, &api, name).await? else { return Ok(NOT_FOUND) };
            refuse_topology(named, &found, change)?;
            let after = found.spec.rollout.as_ref().and_then(|rollout| rollout.after.as_ref());
            // It has no field for it: the annotation is what clusterctl uses.
            let annotations = found.metadata.annotations.as_ref();
            let paused = annotations.is_some_and(|annotations| annotations.contains_key(PAUSED_ANNOTATION));
            let Some(mut patch) = patch(change, after.map(|time| time.0), paused, now, &named.object)? else {
                return Ok(DONE);
            };
            if let Some(paused) = patch.as_object_mut().and_then(|patch| patch.remove("paused")) {
                let value = if paused == json!(true) { json!("true") } else { serde_json::Value::Null };
                patch["metadata"] = json!({ "annotations": { PAUSED_ANNOTATION: value } });
            }
            send(named, &api, name, patch, change).await
        }
    }
}

/// A restart of what a topology made would be taken back: the topology has a field for it.
fn refuse_topology(named: &Named, object: &impl Resource, change: Change) -> Result<()> {
    let owned = object.meta().labels.as_ref().is_some_and(|labels| labels.contains_key(TOPOLOGY_OWNED_LABEL));
    if owned && change == Change::Restart {
        bail!("{} is made by a topology: set rollout.after in the topology of its Cluster", named.object);
    }
    Ok(())
}

/// The merge patch, with `paused` beside it if that is to change; `None` after saying that nothing is to be done.
fn patch(
    change: Change,
    after: Option<Timestamp>,
    paused: bool,
    now: Timestamp,
    object: &Object,
) -> Result<Option<serde_json::Value>> {
    match change {
        Change::Restart if paused => bail!("{object} is paused: `skep rollout resume {object}` first"),
        Change::Restart => {
            if let Some(after) = after.filter(|after| *after > now) {
                bail!("{object} is to be rolled out at {after} (spec.rollout.after): take that away first");
            }
            let now = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
            Ok(Some(json!({ "spec": { "rollout": { "after": now } } })))
        }
        Change::Pause | Change::Resume if paused == (change == Change::Pause) => {
            output::line(&format!("{object} {}", if paused { "is paused already" } else { "is not paused" }));
            Ok(None)
        }
        Change::Pause => Ok(Some(json!({ "paused": true }))),
        Change::Resume => Ok(Some(json!({ "paused": null }))),
    }
}

async fn send<K>(named: &Named, api: &Api<K>, name: &str, patch: serde_json::Value, change: Change) -> Result<u8>
where
    K: Clone + std::fmt::Debug + DeserializeOwned,
{
    let sent = api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
    sent.with_context(|| format!("change {} in {}", named.object, named.target.namespace))?;
    let done = match change {
        Change::Restart => "is rolled out again",
        Change::Pause => "is paused",
        Change::Resume => "goes on",
    };
    output::line(&format!("{} {done}", named.object));
    Ok(DONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn objects_are_named_with_their_kind() {
        assert_eq!(parse("md/a"), Ok(Object::Deployment("a".into())));
        assert_eq!(parse("MachineDeployment/a"), Ok(Object::Deployment("a".into())));
        assert_eq!(parse("kubeadmcontrolplane/a"), Ok(Object::ControlPlane("a".into())));
        assert!(parse("a").is_err() && parse("md/").is_err());
        assert!(parse("deployment/a").unwrap_err().contains("deployment has no rollouts"));
    }

    #[test]
    fn a_restart_is_refused_while_paused_or_while_another_one_is_to_come() {
        let (object, now) = (Object::Deployment("a".into()), at("2026-01-01T00:00:00.5Z"));
        let restart =
            |after, paused| patch(Change::Restart, after, paused, now, &object).map_err(|error| error.to_string());
        let sent = restart(Some(at("2025-12-31T00:00:00Z")), false).unwrap().unwrap();
        assert_eq!(sent, json!({ "spec": { "rollout": { "after": "2026-01-01T00:00:00Z" } } }));
        assert!(restart(None, true).unwrap_err().contains("skep rollout resume machinedeployment/a"));
        assert!(restart(Some(at("2026-01-01T00:01:00Z")), false).unwrap_err().contains("2026-01-01T00:01:00Z"));
    }

    #[test]
    fn what_is_so_already_is_not_written() {
        let object = Object::ControlPlane("a".into());
        let change = |change, paused| patch(change, None, paused, at("2026-01-01T00:00:00Z"), &object).unwrap();
        assert_eq!(change(Change::Pause, true), None);
        assert_eq!(change(Change::Resume, false), None);
        assert_eq!(change(Change::Pause, false), Some(json!({ "paused": true })));
        assert_eq!(change(Change::Resume, true), Some(json!({ "paused": null })));
    }
}
