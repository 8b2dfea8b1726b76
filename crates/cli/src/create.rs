//! `skep create cluster`: a cluster's objects from a few flags.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use api::{app::WATCHING_LABEL, names::MOVE_LABEL};
use base64::{Engine, engine::general_purpose::STANDARD};
use kube::{
    Client,
    api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::{DONE, Output, TIMED_OUT, Target, harden, output, wait};

/// The field manager of what this command applies.
const MANAGER: &str = "skep";

#[derive(clap::Args)]
pub struct Arguments {
    /// Name of the cluster
    name: String,
    #[command(flatten)]
    target: Target,
    /// Kubernetes version
    #[arg(long, default_value = "v1.34.2")]
    kubernetes_version: String,
    /// Control plane machines (odd)
    #[arg(long, default_value_t = 3)]
    control_plane_machines: u32,
    /// Worker machines, spread over the zones
    #[arg(long, default_value_t = 3)]
    worker_machines: u32,
    /// Availability zones of the workers (comma-separated; none: the cloud decides)
    #[arg(long, value_delimiter = ',')]
    zones: Vec<String>,
    /// Cloud in clouds.yaml
    #[arg(long, env = "OS_CLOUD")]
    cloud: String,
    /// clouds.yaml whose credentials the cluster gets
    #[arg(long, env = "OS_CLIENT_CONFIG_FILE", default_value = "clouds.yaml")]
    clouds_yaml: PathBuf,
    /// Certificate of the cloud's authority, in PEM
    #[arg(long)]
    cacert: Option<PathBuf>,
    /// External network, by id (none: the cloud's only one)
    #[arg(long)]
    external_network: Option<String>,
    /// Image of all machines
    #[arg(long)]
    image: String,
    #[arg(long, default_value = "m1.medium")]
    control_plane_flavor: String,
    #[arg(long, default_value = "m1.medium")]
    worker_flavor: String,
    /// Key pair for SSH
    #[arg(long)]
    ssh_key: Option<String>,
    /// Nodes' network
    #[arg(long, default_value = "10.6.0.0/24")]
    node_cidr: String,
    #[arg(long, default_value = "192.168.0.0/16")]
    pod_cidr: String,
    #[arg(long = "dns", default_value = "1.1.1.1")]
    dns_servers: Vec<String>,
    /// A floating IP on the first control plane machine in place of a load balancer (one machine only)
    #[arg(long)]
    no_load_balancer: bool,
    /// Print the objects instead of applying them
    #[arg(long)]
    dry_run: bool,
    /// Form of what --dry-run prints
    #[arg(short, long, value_enum, default_value = "yaml")]
    output: Output,
    /// Wait until the cluster is Available
    #[arg(long)]
    wait: bool,
    #[arg(long, default_value_t = 1800)]
    timeout_s: u64,
}

pub async fn run(arguments: Arguments) -> Result<u8> {
    let path = &arguments.clouds_yaml;
    let clouds_yaml = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let cacert = match &arguments.cacert {
        Some(path) => Some(std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?),
        None => None,
    };
    if arguments.no_load_balancer && arguments.control_plane_machines != 1 {
        bail!("--no-load-balancer goes with --control-plane-machines 1: a floating IP leads to one machine only");
    }
    let template = ClusterTemplate {
        name: arguments.name.clone(),
        namespace: arguments.target.namespace.clone(),
        kubernetes_version: arguments.kubernetes_version,
        control_plane_machines: arguments.control_plane_machines,
        worker_machines: arguments.worker_machines,
        zones: arguments.zones,
        cloud: arguments.cloud,
        clouds_yaml,
        cacert,
        external_network: arguments.external_network,
        image: arguments.image,
        control_plane_flavor: arguments.control_plane_flavor,
        worker_flavor: arguments.worker_flavor,
        ssh_key: arguments.ssh_key,
        node_cidr: arguments.node_cidr,
        pod_cidr: arguments.pod_cidr,
        dns_servers: arguments.dns_servers,
        load_balancer: !arguments.no_load_balancer,
        encryption_key: rand::random(),
    };
    if arguments.dry_run {
        let objects = template.objects();
        match arguments.output {
            Output::Json | Output::Table => {
                output::document(&json!({"apiVersion": "v1", "kind": "List", "items": objects}), Output::Json)?;
            }
            Output::Yaml => {
                for object in objects {
                    output::line("---");
                    output::document(&object, Output::Yaml)?;
                }
            }
        }
        return Ok(DONE);
    }
    let client = arguments.target.client().await?;
    let fresh = apply(&client, template.objects()).await?;
    output::line(&format!("cluster {} {}", arguments.name, if fresh { "created" } else { "configured" }));
    if arguments.wait {
        let limit = std::time::Duration::from_secs(arguments.timeout_s);
        if !wait::wait_for_cluster(&client, &arguments.target.namespace, &arguments.name, limit).await? {
            output::progress(&format!("cluster {} is not Available after {} s", arguments.name, arguments.timeout_s));
            return Ok(TIMED_OUT);
        }
    }
    Ok(DONE)
}

/// What a cluster's objects are made from.
#[derive(Clone, Debug)]
pub struct ClusterTemplate {
    pub name: String,
    pub namespace: String,
    pub kubernetes_version: String,
    pub control_plane_machines: u32,
    pub worker_machines: u32,
    /// A machine deployment for each; empty: one for all.
    pub zones: Vec<String>,
    pub cloud: String,
    pub clouds_yaml: String,
    pub cacert: Option<String>,
    pub external_network: Option<String>,
    pub image: String,
    pub control_plane_flavor: String,
    pub worker_flavor: String,
    pub ssh_key: Option<String>,
    pub node_cidr: String,
    pub pod_cidr: String,
    pub dns_servers: Vec<String>,
    pub load_balancer: bool,
    /// What secrets are encrypted with where the cluster keeps them; that of a cluster that exists stays.
    pub encryption_key: [u8; 32],
}

impl ClusterTemplate {
    /// Three and three machines in the sandbox cloud's three zones; name and cloud are the caller's.
    pub fn sandbox() -> Self {
        Self {
            name: "demo".into(),
            namespace: "default".into(),
            kubernetes_version: "v1.34.2".into(),
            control_plane_machines: 3,
            worker_machines: 3,
            zones: ["az1", "az2", "az3"].map(str::to_owned).to_vec(),
            cloud: String::new(),
            clouds_yaml: String::new(),
            cacert: None,
            external_network: None,
            image: "ubuntu-2404-kube".into(),
            control_plane_flavor: "m1.medium".into(),
            worker_flavor: "m1.small".into(),
            ssh_key: None,
            node_cidr: "10.6.0.0/24".into(),
            pod_cidr: "192.168.0.0/16".into(),
            dns_servers: vec!["1.1.1.1".into()],
            load_balancer: true,
            encryption_key: rand::random(),
        }
    }

    /// The objects, in the order in which they are applied.
    pub fn objects(&self) -> Vec<Value> {
        let name = &self.name;
        let meta = |name: String| json!({"name": name, "namespace": self.namespace});
        let mut secret = json!({"clouds.yaml": STANDARD.encode(&self.clouds_yaml)});
        if let Some(cacert) = &self.cacert {
            secret["cacert"] = STANDARD.encode(cacert).into();
        }
        let credentials = format!("{name}-cloud-config");
        let mut secret_meta = meta(credentials.clone());
        secret_meta["labels"] = json!({MOVE_LABEL: "true"});
        let control_plane = format!("{name}-control-plane");
        let mut cluster_meta = meta(name.clone());
        cluster_meta["labels"] = json!({WATCHING_LABEL: ""});
        let mut objects = vec![
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": secret_meta, "data": secret}),
            harden::secret(name, &self.namespace, &self.encryption_key),
            json!({
                "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Cluster", "metadata": cluster_meta,
                "spec": {
                    "clusterNetwork": {"pods": {"cidrBlocks": [self.pod_cidr]}, "serviceDomain": "cluster.local"},
                    "controlPlaneRef": {"apiGroup": "controlplane.cluster.x-k8s.io", "kind": "KubeadmControlPlane", "name": control_plane},
                    "infrastructureRef": {"apiGroup": "infrastructure.cluster.x-k8s.io", "kind": "OpenStackCluster", "name": name},
                },
            }),
            self.infrastructure(&credentials, meta(name.clone())),
            json!({
                "apiVersion": "controlplane.cluster.x-k8s.io/v1beta2", "kind": "KubeadmControlPlane",
                "metadata": meta(control_plane.clone()),
                "spec": {
                    "replicas": self.control_plane_machines, "version": self.kubernetes_version,
                    "machineTemplate": {"spec": {"infrastructureRef": template_ref(&control_plane)}},
                    "kubeadmConfigSpec": {
                        "clusterConfiguration": harden::cluster_configuration(&self.kubernetes_version),
                        "files": harden::files(name, &self.kubernetes_version),
                        "initConfiguration": {"nodeRegistration": registration()},
                        "joinConfiguration": {"nodeRegistration": registration()},
                    },
                },
            }),
            self.machine_template(&control_plane, &self.control_plane_flavor),
        ];
        let workers = format!("{name}-md-0");
        objects.push(self.machine_template(&workers, &self.worker_flavor));
        objects.push(json!({
            "apiVersion": "bootstrap.cluster.x-k8s.io/v1beta2", "kind": "KubeadmConfigTemplate", "metadata": meta(workers.clone()),
            "spec": {"template": {"spec": {"joinConfiguration": {"nodeRegistration": registration()}}}},
        }));
        let zones = u32::try_from(self.zones.len()).unwrap_or(u32::MAX).max(1);
        for index in 0..zones {
            // Spread evenly; the first zones get one more.
            let replicas = self.worker_machines / zones + u32::from(index < self.worker_machines % zones);
            let mut spec = json!({
                "clusterName": name, "version": self.kubernetes_version,
                "bootstrap": {"configRef": {"apiGroup": "bootstrap.cluster.x-k8s.io", "kind": "KubeadmConfigTemplate", "name": workers}},
                "infrastructureRef": template_ref(&workers),
            });
            if let Some(zone) = self.zones.get(index as usize) {
                spec["failureDomain"] = zone.as_str().into();
            }
            objects.push(json!({
                "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "MachineDeployment",
                "metadata": meta(format!("{name}-md-{index}")),
                "spec": {"clusterName": name, "replicas": replicas, "selector": {"matchLabels": {}}, "template": {"spec": spec}},
            }));
        }
        objects
    }

    fn infrastructure(&self, credentials: &str, meta: Value) -> Value {
        let mut spec = json!({
            "identityRef": {"name": credentials, "cloudName": self.cloud},
            "apiServer": {"managedLoadBalancer": {"enabled": self.load_balancer}},
            "managedSecurityGroups": {"allowAllInClusterTraffic": true},
            "managedSubnets": [{"cidr": self.node_cidr, "dnsNameservers": self.dns_servers}],
        });
        if let Some(id) = &self.external_network {
            spec["externalNetwork"] = json!({ "id": id });
        }
        json!({"apiVersion": "infrastructure.cluster.x-k8s.io/v1beta2", "kind": "OpenStackCluster", "metadata": meta, "spec": spec})
    }

    fn machine_template(&self, name: &str, flavor: &str) -> Value {
        let mut spec = json!({
            "flavor": {"filter": {"name": flavor}}, "image": {"filter": {"name": self.image}},
        });
        if let Some(key) = &self.ssh_key {
            spec["sshKeyName"] = key.as_str().into();
        }
        json!({
            "apiVersion": "infrastructure.cluster.x-k8s.io/v1beta2", "kind": "OpenStackMachineTemplate",
            "metadata": {"name": name, "namespace": self.namespace}, "spec": {"template": {"spec": spec}},
        })
    }
}

fn template_ref(name: &str) -> Value {
    json!({"apiGroup": "infrastructure.cluster.x-k8s.io", "kind": "OpenStackMachineTemplate", "name": name})
}

/// Node registration as the OpenStack provider's published templates have it.
fn registration() -> Value {
    let mut args = vec![
        json!({"name": "cloud-provider", "value": "external"}),
        json!({"name": "provider-id", "value": "openstack:///'{{ instance_id }}'"}),
    ];
    args.extend(harden::kubelet());
    json!({"name": "{{ local_hostname }}", "kubeletExtraArgs": args})
}

/// Applies objects of our kinds and secrets, server-side; true if the cluster did not exist before.
pub async fn apply(client: &Client, objects: Vec<Value>) -> Result<bool> {
    let mut fresh = false;
    for value in objects {
        let object: DynamicObject = serde_json::from_value(value)?;
        let types = object.types.clone().unwrap_or_default();
        let (group, version) = types.api_version.split_once('/').unwrap_or(("", &types.api_version));
        let resource = ApiResource {
            group: group.to_owned(),
            version: version.to_owned(),
            api_version: types.api_version.clone(),
            kind: types.kind.clone(),
            plural: format!("{}s", types.kind.to_lowercase()),
        };
        let name = object.metadata.name.clone().unwrap_or_default();
        let namespace = object.metadata.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let api = kube::Api::<DynamicObject>::namespaced_with(client.clone(), &namespace, &resource);
        if object.data["immutable"] == true {
            // Made once, and never again.
            match api.create(&PostParams::default(), &object).await {
                Ok(_) => continue,
                Err(kube::Error::Api(status)) if status.code == 409 => continue,
                Err(error) => return Err(error).with_context(|| format!("create {} {namespace}/{name}", types.kind)),
            }
        }
        let applied = api.patch(&name, &PatchParams::apply(MANAGER), &Patch::Apply(&object)).await;
        let applied = applied.with_context(|| format!("apply {} {namespace}/{name}", types.kind))?;
        if types.kind == "Cluster" {
            fresh = applied.metadata.generation == Some(1) && applied.metadata.finalizers.is_none();
        }
    }
    Ok(fresh)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_tells_its_apps_what_it_is() {
        let objects = ClusterTemplate::sandbox().objects();
        let cluster = objects.iter().find(|object| object["kind"] == "Cluster").unwrap();
        assert_eq!(cluster["metadata"]["labels"]["cluster-apps-operator.giantswarm.io/watching"], "");
    }

    #[test]
    fn workers_are_spread_over_the_zones() {
        let template = ClusterTemplate { worker_machines: 5, ..ClusterTemplate::sandbox() };
        let replicas: Vec<_> = template
            .objects()
            .iter()
            .filter(|object| object["kind"] == "MachineDeployment")
            .map(|object| {
                (object["spec"]["template"]["spec"]["failureDomain"].clone(), object["spec"]["replicas"].clone())
            })
            .collect();
        assert_eq!(replicas, [(json!("az1"), json!(2)), (json!("az2"), json!(2)), (json!("az3"), json!(1))]);
    }
}
