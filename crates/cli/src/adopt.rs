//! `skep adopt`: a kubeadm cluster that exists comes under the platform, machine by machine, and none is replaced.
//!
//! What is made is what a move would have brought here: the objects of the cluster without their status, paused; the
//! controllers find servers, nodes and etcd members again by their names and marks. So all that is asked of a cluster is that
//! its servers, its kubeadm configuration and its keys can be read. A run that is cut off is repeated; `--go` ends the pause.
//!
//! Left out: several control plane versions at once, external etcd: they are told as obstacles.

mod look;
mod plan;

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::{Context, Result, bail, ensure};
use api::{
    cluster::Cluster,
    machine::Machine,
    names::{CLUSTER_LABEL, Purpose},
};
use k8s_openapi::{api::core::v1::Node, apimachinery::pkg::apis::meta::v1::OwnerReference};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams, PostParams},
    core::GroupVersionKind,
};
use openstack::{Query, Service};
use serde_json::json;

use self::plan::{Made, Owner};
use crate::{
    DONE, FAILED, Target,
    doctor::{self, Place},
    output,
};

/// On what was made here: the same command takes it for its own.
const ADOPTED: &str = "adopt.skep.dev/cluster";
/// What the provider knows servers by.
const OWNER_KEY: &str = "k8s-clusterapi-cluster";
/// Files of a key, in bytes.
const KEY_MAX: u64 = 64 * 1024;

#[derive(clap::Args)]
pub struct Arguments {
    /// What the cluster is to be called here
    name: String,
    /// Kubeconfig of the cluster's administrator: /etc/kubernetes/admin.conf of a control plane node
    #[arg(long, value_name = "FILE")]
    workload_kubeconfig: PathBuf,
    /// Copy of /etc/kubernetes/pki of a control plane node
    #[arg(long, value_name = "FOLDER", required_unless_present = "go")]
    pki: Option<PathBuf>,
    #[command(flatten)]
    place: Place,
    /// Say what would be made and what stands in the way, and change nothing
    #[arg(long, conflicts_with = "go")]
    dry_run: bool,
    /// End the pause of a cluster that has been adopted
    #[arg(long)]
    go: bool,
    #[command(flatten)]
    target: Target,
}

/// The cluster's key pairs, certificate (or public key) and key, as PEM.
pub type Keys = BTreeMap<&'static str, (String, String)>;

/// Where kubeadm has them, by the purpose of their Secrets.
const FILES: [(&str, Purpose, &str, &str); 4] = [
    ("ca", Purpose::Ca, "ca.crt", "ca.key"),
    ("etcd", Purpose::Etcd, "etcd/ca.crt", "etcd/ca.key"),
    ("proxy", Purpose::FrontProxy, "front-proxy-ca.crt", "front-proxy-ca.key"),
    ("sa", Purpose::ServiceAccount, "sa.pub", "sa.key"),
];

/// An adoption.
pub struct Adopt {
    pub management: Client,
    pub workload: Client,
    pub cloud: openstack::Client,
    pub namespace: String,
    pub name: String,
    pub keys: Keys,
    /// Credentials that the controllers are to have, and the cloud's name in them.
    pub clouds_yaml: String,
    pub cloud_name: String,
    pub dry_run: bool,
}

pub async fn run(arguments: Arguments) -> Result<u8> {
    let management = arguments.target.client().await?;
    let there = Target {
        kubeconfig: Some(arguments.workload_kubeconfig.clone()),
        namespace: arguments.target.namespace.clone(),
    };
    let workload = there.client().await.context("reach the cluster that is to be adopted")?;
    let namespace = arguments.target.namespace.clone();
    if arguments.go {
        go(&management, &workload, &namespace, &arguments.name, &mut |word| output::line(word)).await?;
        return Ok(DONE);
    }
    let (clouds_yaml, cloud_name) = doctor::credentials(&arguments.place)?;
    let cloud = doctor::cloud(&arguments.place)?;
    let adopt = Adopt {
        keys: keys(&arguments.pki.unwrap_or_default())?,
        cloud: openstack::Client::connect(cloud, doctor::options()?).context("set up a client of the cloud")?,
        name: arguments.name,
        dry_run: arguments.dry_run,
        management,
        workload,
        namespace,
        clouds_yaml,
        cloud_name,
    };
    let free = adopt.run(&mut |word| output::line(word)).await?;
    Ok(if free { DONE } else { FAILED })
}

fn keys(folder: &std::path::Path) -> Result<Keys> {
    let read = |file: &str| -> Result<String> {
        let path = folder.join(file);
        let told = || format!("read {}: copy /etc/kubernetes/pki of a control plane node", path.display());
        let size = std::fs::metadata(&path).with_context(told)?.len();
        ensure!(size <= KEY_MAX, "{} is no key: it has {size} bytes", path.display());
        std::fs::read_to_string(&path).with_context(told)
    };
    FILES.iter().map(|(purpose, _, public, private)| Ok((*purpose, (read(public)?, read(private)?)))).collect()
}

impl Adopt {
    /// Makes the objects, paused; false if something stands in the way, and nothing was made then.
    pub async fn run(&self, say: &mut (dyn FnMut(&str) + Send)) -> Result<bool> {
        let seen = look::all(self).await?;
        let terms = plan::Terms {
            namespace: &self.namespace,
            name: &self.name,
            keys: &self.keys,
            clouds_yaml: &self.clouds_yaml,
            cloud_name: &self.cloud_name,
        };
        let plan = plan::of(&terms, &seen);
        say(&plan::told(&plan));
        if !plan.obstacles.is_empty() {
            say("nothing was made: see what stands in the way");
            return Ok(false);
        }
        if self.dry_run {
            say(&format!("{} objects would be made; nothing was changed", plan.objects.len()));
            return Ok(true);
        }
        let mut uids: BTreeMap<Owner, OwnerReference> = BTreeMap::new();
        for made in &plan.objects {
            let there = self.make(made, &uids).await?;
            // The Cluster is first, and fails if its name or namespace cannot be: then no server has a mark of it. Its machines
            // come after the marks, for `--go` asks for nothing but machines.
            if made.is == Some(Owner::Cluster) {
                self.mark(&plan).await?;
            }
            if let Some(owner) = &made.is {
                let meta = there.metadata;
                let reference = OwnerReference {
                    api_version: made.object["apiVersion"].as_str().unwrap_or_default().to_owned(),
                    kind: made.object["kind"].as_str().unwrap_or_default().to_owned(),
                    name: meta.name.unwrap_or_default(),
                    uid: meta.uid.unwrap_or_default(),
                    block_owner_deletion: Some(true),
                    controller: None,
                };
                uids.insert(owner.clone(), reference);
            }
        }
        say(&format!(
            "{} objects are here, and the cluster is paused: look at them, then run the same command with --go",
            plan.objects.len()
        ));
        Ok(true)
    }

    async fn mark(&self, plan: &plan::Plan) -> Result<()> {
        for (server, name) in &plan.unmarked {
            let body = json!({"metadata": {OWNER_KEY: plan.resource}});
            let path = format!("servers/{server}/metadata");
            let marked = self.cloud.raw(Service::Compute, http::Method::POST, &path, &Query::new(), Some(&body)).await;
            marked.with_context(|| format!("mark server {name} as the cluster's"))?;
        }
        for volume in &plan.unmarked_volumes {
            let body = json!({"volume": {"name": volume.name, "metadata": volume.metadata}});
            let path = format!("volumes/{}", volume.id);
            let marked =
                self.cloud.raw(Service::BlockStorage, http::Method::PUT, &path, &Query::new(), Some(&body)).await;
            marked.with_context(|| format!("mark volume {} as the cluster's", volume.was))?;
        }
        Ok(())
    }

    /// Makes the object, or finds what an earlier run made.
    async fn make(&self, made: &Made, uids: &BTreeMap<Owner, OwnerReference>) -> Result<DynamicObject> {
        let mut object: DynamicObject =
            serde_json::from_value(made.object.clone()).context("an object of the plan cannot be read")?;
        let what = made.told();
        let annotations = object.metadata.annotations.get_or_insert_default();
        annotations.insert(ADOPTED.to_owned(), self.name.clone());
        object.metadata.namespace = Some(self.namespace.clone());
        let owners = made.owners.iter().filter_map(|(owner, controller)| {
            Some(OwnerReference { controller: Some(*controller), ..uids.get(owner)?.clone() })
        });
        let owners: Vec<_> = owners.collect();
        object.metadata.owner_references = (!owners.is_empty()).then_some(owners);
        let api = api_of(&self.management, &self.namespace, &made.object);
        match api.create(&PostParams::default(), &object).await {
            Ok(there) => Ok(there),
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let there = api.get(&made.name()).await.with_context(|| format!("read {what}"))?;
                let ours = there.metadata.annotations.as_ref().and_then(|all| all.get(ADOPTED)) == Some(&self.name);
                if !ours {
                    bail!("{what} is there already, and was not made by an adoption: choose another name");
                }
                Ok(there)
            }
            Err(error) => Err(error).with_context(|| format!("make {what}")),
        }
    }
}

fn api_of(client: &Client, namespace: &str, object: &serde_json::Value) -> Api<DynamicObject> {
    let text = |key: &str| object[key].as_str().unwrap_or_default();
    let (group, version) = text("apiVersion").split_once('/').unwrap_or(("", text("apiVersion")));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, text("kind")));
    Api::namespaced_with(client.clone(), namespace, &resource)
}

/// Ends the pause of an adopted cluster, if each of its nodes has its Machine.
pub async fn go(
    management: &Client,
    workload: &Client,
    namespace: &str,
    name: &str,
    say: &mut (dyn FnMut(&str) + Send),
) -> Result<()> {
    let clusters = Api::<Cluster>::namespaced(management.clone(), namespace);
    let cluster = clusters.get_opt(name).await.with_context(|| format!("read cluster {namespace}/{name}"))?;
    let adopted = |cluster: &Cluster| {
        let annotations = cluster.metadata.annotations.as_ref();
        annotations.is_some_and(|all| all.get(ADOPTED).is_some_and(|of| of == name))
    };
    ensure!(
        cluster.as_ref().is_some_and(adopted),
        "cluster {namespace}/{name} has not been adopted: run this without --go"
    );
    let nodes = Api::<Node>::all(workload.clone()).list(&ListParams::default()).await.context("list nodes")?.items;
    let own = ListParams::default().labels(&format!("{CLUSTER_LABEL}={name}"));
    let machines = Api::<Machine>::namespaced(management.clone(), namespace).list(&own).await;
    let machines = machines.context("list machines")?.items;
    let known = |node: &&Node| {
        let id = node.spec.as_ref().and_then(|spec| spec.provider_id.as_ref());
        machines.iter().any(|machine| id.is_some() && machine.spec.provider_id.as_ref() == id)
    };
    let strange: Vec<&str> =
        nodes.iter().filter(|node| !known(node)).filter_map(|node| node.metadata.name.as_deref()).collect();
    ensure!(
        strange.is_empty(),
        "nodes without a Machine would be left alone or removed: {}: adopt again first",
        strange.join(", ")
    );
    let patch = json!({"spec": {"paused": null}});
    let sent = clusters.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
    sent.with_context(|| format!("let cluster {namespace}/{name} go on"))?;
    say(&format!("cluster {namespace}/{name} goes on with {} machines", machines.len()));
    Ok(())
}
