//! The revisions of a MachineDeployment: the MachineSets that are kept of it.

use anyhow::{Context, Result, bail};
use api::{
    machine::{MachineDeployment, MachineSet, MachineTemplate},
    names::{CLUSTER_LABEL, DEPLOYMENT_LABEL, REVISION_ANNOTATION, TEMPLATE_HASH_LABEL, TOPOLOGY_OWNED_LABEL},
};
use kube::{
    Api, Client, Resource,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::json;

use super::{Named, Object, find};
use crate::{DONE, NOT_FOUND, Output, output};

#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    named: Named,
    /// Show what this revision's machines are made from
    #[arg(long)]
    revision: Option<i64>,
}

#[derive(clap::Args)]
pub struct Undo {
    #[command(flatten)]
    named: Named,
    /// The revision to go back to; the one before the present one if none is given
    #[arg(long)]
    to_revision: Option<i64>,
}

fn revision(object: &impl Resource) -> i64 {
    let annotations = object.meta().annotations.as_ref();
    annotations.and_then(|all| all.get(REVISION_ANNOTATION)).and_then(|text| text.parse().ok()).unwrap_or(0)
}

struct History {
    deployment: MachineDeployment,
    /// By revision, the oldest first.
    sets: Vec<MachineSet>,
}

/// `None` after saying that there is no such deployment.
async fn read(client: &Client, named: &Named) -> Result<Option<History>> {
    let Object::Deployment(name) = &named.object else {
        bail!("{} keeps no revisions: only machinedeployments do", named.object);
    };
    let namespace = &named.target.namespace;
    let api = Api::<MachineDeployment>::namespaced(client.clone(), namespace);
    let Some(deployment) = find(named, &api, name).await? else { return Ok(None) };
    let params = ListParams::default().labels(&format!("{DEPLOYMENT_LABEL}={name}"));
    let sets = Api::<MachineSet>::namespaced(client.clone(), namespace).list(&params).await;
    let mut sets = sets.with_context(|| format!("list the MachineSets of {}", named.object))?.items;
    sets.retain(|set| {
        set.metadata.owner_references.iter().flatten().any(|owner| Some(&owner.uid) == deployment.metadata.uid.as_ref())
    });
    sets.sort_by_key(revision);
    Ok(Some(History { deployment, sets }))
}

pub async fn show(arguments: Arguments) -> Result<u8> {
    let client = arguments.named.target.client().await?;
    let Some(history) = read(&client, &arguments.named).await? else { return Ok(NOT_FOUND) };
    if let Some(number) = arguments.revision {
        let Some(set) = history.sets.iter().find(|set| revision(*set) == number) else {
            output::progress(&format!("revision {number} of {} is not kept", arguments.named.object));
            return Ok(NOT_FOUND);
        };
        output::document(&template(&set.spec.template, &history.deployment.spec.template), Output::Yaml)?;
        return Ok(DONE);
    }
    output::line(&output::table(&rows(&history)));
    Ok(DONE)
}

fn rows(history: &History) -> Vec<Vec<String>> {
    let heads = ["REVISION", "MACHINESET", "REPLICAS", "VERSION", "INFRASTRUCTURE", "BOOTSTRAP"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    let newest = revision(&history.deployment);
    for set in &history.sets {
        let spec = &set.spec.template.spec;
        let number = revision(set);
        let bootstrap = spec.bootstrap.config_ref.as_ref().map(|config| config.name.clone());
        rows.push(vec![
            if number == newest { format!("{number} (now)") } else { number.to_string() },
            set.metadata.name.clone().unwrap_or_default(),
            set.status.as_ref().and_then(|status| status.replicas).unwrap_or(0).to_string(),
            spec.version.clone().unwrap_or_else(|| "-".to_owned()),
            spec.infrastructure_ref.name.clone(),
            bootstrap.unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    rows
}

/// What the deployment's template is to be, to have the set's machines.
fn template(of_set: &MachineTemplate, now: &MachineTemplate) -> MachineTemplate {
    let mut template = of_set.clone();
    let own = |key: &str| now.metadata.as_ref().is_some_and(|meta| meta.labels.contains_key(key));
    if let Some(meta) = &mut template.metadata {
        // What the controller added.
        meta.labels.remove(TEMPLATE_HASH_LABEL);
        for key in [DEPLOYMENT_LABEL, CLUSTER_LABEL] {
            if !own(key) {
                meta.labels.remove(key);
            }
        }
    }
    template
}

/// The set to go back to; `Err` says why there is none.
fn target(history: &History, wanted: Option<i64>) -> Result<&MachineSet> {
    let newest = revision(&history.deployment);
    let name = history.deployment.metadata.name.as_deref().unwrap_or_default();
    let kept = || {
        let all: Vec<_> = history.sets.iter().map(|set| revision(set).to_string()).collect();
        if all.is_empty() { "none".to_owned() } else { all.join(", ") }
    };
    let found = match wanted.filter(|wanted| *wanted != 0) {
        Some(wanted) => history.sets.iter().find(|set| revision(*set) == wanted),
        None => history.sets.iter().rev().find(|set| revision(*set) < newest),
    };
    match (found, wanted) {
        (Some(set), _) => Ok(set),
        (None, Some(wanted)) if wanted != 0 => {
            bail!("revision {wanted} of machinedeployment/{name} is not kept (these are: {})", kept())
        }
        (None, _) => bail!("no revision of machinedeployment/{name} before the present one is kept"),
    }
}

pub async fn undo(arguments: Undo) -> Result<u8> {
    let named = &arguments.named;
    let client = named.target.client().await?;
    let Some(history) = read(&client, named).await? else { return Ok(NOT_FOUND) };
    let deployment = &history.deployment;
    let meta = &deployment.metadata;
    if meta.labels.as_ref().is_some_and(|labels| labels.contains_key(TOPOLOGY_OWNED_LABEL)) {
        bail!("{} is made by a topology: change the topology of its Cluster", named.object);
    }
    if deployment.spec.paused == Some(true) {
        bail!("{0} is paused: `skep rollout resume {0}` first", named.object);
    }
    let set = target(&history, arguments.to_revision)?;
    let wanted = template(&set.spec.template, &deployment.spec.template);
    let number = revision(set);
    if wanted == deployment.spec.template {
        output::line(&format!("{} is as revision {number} already", named.object));
        return Ok(DONE);
    }
    for reference in wanted.spec.bootstrap.config_ref.iter().chain([&wanted.spec.infrastructure_ref]) {
        exists(&client, &named.target.namespace, reference).await?;
    }
    // Whole, and only if it is still what was looked at.
    let patch: json_patch::Patch = serde_json::from_value(json!([
        { "op": "test", "path": "/metadata/uid", "value": meta.uid },
        { "op": "test", "path": "/metadata/generation", "value": meta.generation },
        { "op": "replace", "path": "/spec/template", "value": wanted },
    ]))?;
    let api = Api::<MachineDeployment>::namespaced(client, &named.target.namespace);
    let name = meta.name.as_deref().unwrap_or_default();
    let sent = api.patch(name, &PatchParams::default(), &Patch::Json::<()>(patch)).await;
    sent.with_context(|| format!("change {} back to revision {number}", named.object))?;
    output::line(&format!("{} goes back to revision {number}", named.object));
    Ok(DONE)
}

async fn exists(client: &Client, namespace: &str, reference: &api::meta::ContractRef) -> Result<()> {
    let group = kube::discovery::group(client, &reference.api_group).await;
    let group = group.with_context(|| format!("look for the kinds of {}", reference.api_group))?;
    let kind = group.recommended_kind(&reference.kind);
    let (resource, _) = kind.with_context(|| format!("{}.{} is not served", reference.kind, reference.api_group))?;
    let api = Api::<kube::api::DynamicObject>::namespaced_with(client.clone(), namespace, &resource);
    let found = api.get_metadata_opt(&reference.name).await;
    let found = found.with_context(|| format!("read {} {namespace}/{}", reference.kind, reference.name))?;
    if found.is_none() {
        bail!("{} {namespace}/{} of that revision is gone: make it again first", reference.kind, reference.name);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use api::machine::{MachineDeploymentSpec, MachineSetSpec};

    use super::*;

    fn set(number: i64, version: &str) -> MachineSet {
        let mut set = MachineSet::new(&format!("md-{number}"), MachineSetSpec::default());
        set.metadata.annotations = Some([(REVISION_ANNOTATION.to_owned(), number.to_string())].into());
        set.spec.template.spec.version = Some(version.to_owned());
        let labels = [(TEMPLATE_HASH_LABEL, "1"), (DEPLOYMENT_LABEL, "md"), (CLUSTER_LABEL, "c"), ("tier", "web")];
        let meta = set.spec.template.metadata.get_or_insert_default();
        meta.labels = labels.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        set
    }

    fn history(numbers: &[i64]) -> History {
        let mut deployment = MachineDeployment::new("md", MachineDeploymentSpec::default());
        let newest = numbers.last().copied().unwrap_or(0).to_string();
        deployment.metadata.annotations = Some([(REVISION_ANNOTATION.to_owned(), newest)].into());
        History { deployment, sets: numbers.iter().map(|number| set(*number, &format!("v1.{number}.0"))).collect() }
    }

    #[test]
    fn the_revision_before_the_present_one_is_taken_unless_another_is_named() {
        let history = history(&[2, 3, 5]);
        let taken = |wanted| target(&history, wanted).map(revision).map_err(|error| error.to_string());
        assert_eq!(taken(None), Ok(3));
        assert_eq!(taken(Some(0)), Ok(3), "as kubectl has it");
        assert_eq!(taken(Some(2)), Ok(2));
        assert_eq!(taken(Some(4)), Err("revision 4 of machinedeployment/md is not kept (these are: 2, 3, 5)".into()));
        let only = self::history(&[5]);
        assert!(target(&only, None).unwrap_err().to_string().contains("before the present one"));
    }

    #[test]
    fn what_the_controller_added_to_a_set_is_not_brought_back() {
        let mut now = MachineTemplate::default();
        let labels = |template: &MachineTemplate| {
            template.metadata.as_ref().unwrap().labels.keys().cloned().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(labels(&template(&set(1, "v1").spec.template, &now)), "tier");
        now.metadata.get_or_insert_default().labels.insert(CLUSTER_LABEL.to_owned(), "c".to_owned());
        assert_eq!(labels(&template(&set(1, "v1").spec.template, &now)), "cluster.x-k8s.io/cluster-name tier");
    }

    #[test]
    fn the_list_says_which_revision_is_the_present_one() {
        let rows = rows(&history(&[1, 2]));
        assert_eq!(rows[1][..2], ["1", "md-1"]);
        assert_eq!(rows[2][..2], ["2 (now)", "md-2"]);
    }
}
