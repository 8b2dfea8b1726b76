//! The objects of a cluster that is adopted, those first that others belong to.

use std::collections::{BTreeMap, BTreeSet};

use api::{
    cluster_configuration::ClusterConfiguration,
    names::{
        CLONED_FROM_KIND_ANNOTATION, CLONED_FROM_NAME_ANNOTATION, CLUSTER_LABEL, CONTROL_PLANE_LABEL,
        CONTROL_PLANE_NAME_LABEL, DEPLOYMENT_LABEL, KUBEADM_CLUSTER_CONFIGURATION_ANNOTATION, MACHINE_FINALIZER,
        MACHINE_SET_FINALIZER, MOVE_LABEL, OPENSTACK_MACHINE_FINALIZER, REVISION_ANNOTATION, SECRET_TYPE, SET_LABEL,
        TEMPLATE_HASH_LABEL,
    },
};
use openstack::network::Port;
use serde_json::{Map, Value, json};

use super::{
    super::{
        FILES,
        look::{Member, Seen},
    },
    MARK, Made, Owner, Plan, Terms,
};

const CORE: &str = "cluster.x-k8s.io";
const BOOTSTRAP: &str = "bootstrap.cluster.x-k8s.io";
const CONTROL_PLANE: &str = "controlplane.cluster.x-k8s.io";
const INFRASTRUCTURE: &str = "infrastructure.cluster.x-k8s.io";
const CLEANUP_HOOK: &str = "pre-terminate.delete.hook.machine.cluster.x-k8s.io/kcp-cleanup";
/// In the names and labels of what is adopted.
const HASH: &str = "adopted";

/// Workers that are alike.
pub struct Group<'a> {
    name: String,
    members: Vec<&'a Member>,
}

fn metadata(adopt: &Terms<'_>, name: &str) -> Value {
    json!({"name": name, "labels": {CLUSTER_LABEL: adopt.name}})
}

fn reference(group: &str, kind: &str, name: &str) -> Value {
    json!({"apiGroup": group, "kind": kind, "name": name})
}

fn object(group: &str, kind: &str, metadata: Value, spec: Value) -> Value {
    json!({"apiVersion": format!("{group}/v1beta2"), "kind": kind, "metadata": metadata, "spec": spec})
}

fn secret(metadata: Value, type_: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": type_, "stringData": data})
}

/// Cluster, its keys and credentials, and its network.
pub fn cluster(adopt: &Terms<'_>, seen: &Seen, host: &(String, u16), plan: &mut Plan) {
    let name = adopt.name;
    let networking = &seen.configuration["networking"];
    let mut network = Map::new();
    for (field, from) in [("pods", "podSubnet"), ("services", "serviceSubnet")] {
        if let Some(blocks) = networking[from].as_str().filter(|blocks| !blocks.is_empty()) {
            let blocks: Vec<&str> = blocks.split(',').map(str::trim).collect();
            network.insert(field.to_owned(), json!({ "cidrBlocks": blocks }));
        }
    }
    if let Some(domain) = networking["dnsDomain"].as_str() {
        network.insert("serviceDomain".to_owned(), domain.into());
    }
    let mut spec = json!({
        "paused": true,
        "controlPlaneEndpoint": {"host": host.0, "port": host.1},
        "controlPlaneRef": reference(CONTROL_PLANE, "KubeadmControlPlane", &control_plane_name(adopt)),
        "infrastructureRef": reference(INFRASTRUCTURE, "OpenStackCluster", name),
    });
    if !network.is_empty() {
        spec["clusterNetwork"] = network.into();
    }
    plan.objects.push(Made {
        object: object(CORE, "Cluster", metadata(adopt, name), spec),
        owners: Vec::new(),
        is: Some(Owner::Cluster),
    });
    let credentials = json!({"clouds.yaml": adopt.clouds_yaml});
    let mut credentials = secret(metadata(adopt, &format!("{name}-cloud-config")), "Opaque", credentials);
    credentials["metadata"]["labels"][MOVE_LABEL] = "true".into();
    // Nobody owns them: a deletion in the foreground takes what the cluster owns first, and they are needed to its end.
    plan.objects.push(Made { object: credentials, owners: Vec::new(), is: None });
    for (key, purpose, ..) in FILES {
        let (public, private) = adopt.keys.get(key).cloned().unwrap_or_default();
        let data = json!({"tls.crt": public, "tls.key": private});
        let keys = secret(metadata(adopt, &purpose.secret_name(name)), SECRET_TYPE, data);
        plan.objects.push(Made { object: keys, owners: vec![(Owner::Cluster, false)], is: None });
    }
    let infra = infrastructure(adopt, seen, host, plan);
    let owners = vec![(Owner::Cluster, true)];
    let infra = object(INFRASTRUCTURE, "OpenStackCluster", metadata(adopt, name), infra);
    plan.objects.push(Made { object: infra, owners, is: None });
}

/// What carries the cluster's mark is the platform's, and goes with the cluster; the rest is named, and stays.
fn infrastructure(adopt: &Terms<'_>, seen: &Seen, host: &(String, u16), plan: &mut Plan) -> Value {
    let mark = format!("{MARK}{}", plan.resource);
    let ours = |description: &str| description.starts_with(&mark);
    let mut spec = json!({
        "identityRef": {"name": format!("{}-cloud-config", adopt.name), "cloudName": adopt.cloud_name},
        "controlPlaneEndpoint": {"host": host.0, "port": host.1},
    });
    if let Some(router) = &seen.router
        && let Some(gateway) = &router.external_gateway_info
    {
        spec["externalNetwork"] = json!({"id": gateway.network_id});
    } else {
        spec["enableExternalNetwork"] = false.into();
    }
    match &seen.network {
        Some(network) if ours(&network.description) => {
            let subnet = |subnet: &openstack::network::Subnet| json!({"cidr": subnet.cidr, "dnsNameservers": subnet.dns_nameservers});
            spec["managedSubnets"] = seen.subnets.iter().map(subnet).collect();
            plan.summary.push(format!("network {}: goes with the cluster", network.name));
        }
        Some(network) => {
            spec["network"] = json!({"id": network.id});
            spec["subnets"] = seen.subnets.iter().map(|subnet| json!({"id": subnet.id})).collect();
            if let Some(router) = &seen.router {
                spec["router"] = json!({"id": router.id});
            }
            plan.summary.push(format!("network {}: stays when the cluster is deleted", network.name));
        }
        None => plan.obstacles.push("the control plane nodes have no port in this cloud".to_owned()),
    }
    if managed_groups(seen, &plan.resource) {
        spec["managedSecurityGroups"] = json!({"allowAllInClusterTraffic": true});
    }
    let floating = seen.floating_ips.iter().find(|ip| ip.floating_ip_address == host.0);
    let port = floating.and_then(|ip| ip.port_id.clone());
    let balancer = seen
        .balancers
        .iter()
        .find(|balancer| balancer.vip_address == host.0 || port.as_ref() == Some(&balancer.vip_port_id));
    match balancer {
        Some(balancer) if ours(&balancer.description) => {
            spec["apiServer"] =
                json!({"managedLoadBalancer": {"enabled": true}, "enableFloatingIP": floating.is_some()});
            plan.summary.push(format!("load balancer {}: goes with the cluster", balancer.name));
        }
        Some(balancer) => {
            spec["apiServer"] = json!({"enableFloatingIP": false});
            plan.notes.push(format!(
                "load balancer {} is not the platform's: add new control plane machines to it, and take old ones out, yourself",
                balancer.name
            ));
        }
        None if floating.is_some_and(|ip| ours(&ip.description)) => {}
        None => {
            spec["apiServer"] = json!({"enableFloatingIP": false});
            plan.notes.push(format!(
                "{} leads to the control plane by a way that the platform does not know: keep it",
                host.0
            ));
        }
    }
    spec
}

fn managed_groups(seen: &Seen, resource: &str) -> bool {
    let prefix = format!("k8s-cluster-{resource}-secgroup-");
    let of = |port: &Port| {
        port.security_groups.iter().any(|id| seen.groups.get(id).is_some_and(|group| group.name.starts_with(&prefix)))
    };
    seen.members.iter().flat_map(|member| &member.ports).any(of)
}

fn control_plane_name(adopt: &Terms<'_>) -> String {
    format!("{}-control-plane", adopt.name)
}

/// What machines of the kind are made from.
fn machine_spec(seen: &Seen, member: &Member, resource: &str) -> Value {
    let server = member.server.clone().unwrap_or_default();
    let mut spec = json!({"flavor": {"filter": {"name": member.flavor}}, "image": {"id": member.image()}});
    if let Some(root) = &member.root {
        let zone = match root.availability_zone == server.availability_zone {
            true => json!({"from": "Machine"}),
            false => json!({"from": "Name", "name": root.availability_zone}),
        };
        spec["rootVolume"] = json!({"sizeGiB": root.size, "type": root.volume_type, "availabilityZone": zone});
    }
    if !server.key_name.is_empty() {
        spec["sshKeyName"] = server.key_name.into();
    }
    if !managed_groups(seen, resource) {
        let groups: BTreeSet<&String> = member.ports.iter().flat_map(|port| &port.security_groups).collect();
        if !groups.is_empty() {
            spec["securityGroups"] = groups.into_iter().map(|id| json!({"id": id})).collect();
        }
    }
    spec
}

/// How new machines register. Where a cloud controller manager runs, that says the provider ID.
fn registration(seen: &Seen) -> Value {
    let arguments = if seen.cloud_controller {
        json!([{"name": "cloud-provider", "value": "external"}])
    } else {
        json!([{"name": "provider-id", "value": "openstack:///'{{ ds.meta_data.instance_id }}'"}])
    };
    json!({"nodeRegistration": {"name": "{{ local_hostname }}", "kubeletExtraArgs": arguments}})
}

fn template(adopt: &Terms<'_>, name: &str, spec: &Value) -> Made {
    let spec = json!({"template": {"spec": spec}});
    let object = object(INFRASTRUCTURE, "OpenStackMachineTemplate", metadata(adopt, name), spec);
    Made { object, owners: vec![(Owner::Cluster, false)], is: None }
}

pub fn control_plane(
    adopt: &Terms<'_>,
    seen: &Seen,
    first: &Member,
    all: &[&Member],
    configuration: Value,
    plan: &mut Plan,
) {
    let name = control_plane_name(adopt);
    let spec = machine_spec(seen, first, &plan.resource);
    plan.objects.push(template(adopt, &name, &spec));
    let mut kubeadm = json!({"initConfiguration": registration(seen), "joinConfiguration": registration(seen)});
    let plain = configuration.as_object().is_none_or(Map::is_empty);
    if !plain {
        kubeadm["clusterConfiguration"] = configuration.clone();
    }
    let infra = reference(INFRASTRUCTURE, "OpenStackMachineTemplate", &name);
    plan.objects.push(Made {
        object: object(
            CONTROL_PLANE,
            "KubeadmControlPlane",
            metadata(adopt, &name),
            json!({
                "replicas": all.len(), "version": first.version, "kubeadmConfigSpec": kubeadm,
                "machineTemplate": {"spec": {"infrastructureRef": infra}},
            }),
        ),
        owners: vec![(Owner::Cluster, true)],
        is: Some(Owner::ControlPlane),
    });
    // What the control plane compares with its own: as of a machine that has joined.
    let mut config = kubeadm;
    config.as_object_mut().map(|fields| fields.remove("initConfiguration"));
    config["joinConfiguration"]["controlPlane"] = json!({});
    let recorded: Option<ClusterConfiguration> =
        (!plain).then(|| serde_json::from_value(configuration).unwrap_or_default());
    let recorded = serde_json::to_string(&recorded).unwrap_or_default();
    for member in all {
        let labels = json!({CLUSTER_LABEL: adopt.name, CONTROL_PLANE_LABEL: "", CONTROL_PLANE_NAME_LABEL: name});
        let annotations = json!({CLEANUP_HOOK: "", KUBEADM_CLUSTER_CONFIGURATION_ANNOTATION: recorded});
        let meta = Meta { labels, annotations, template: name.clone(), owner: Owner::ControlPlane };
        machine(adopt, member, &spec, &config, meta, plan);
    }
    plan.summary.push(format!("KubeadmControlPlane {name}: {} machines of {}", all.len(), first.version));
}

/// What an object of a machine carries.
struct Meta {
    labels: Value,
    annotations: Value,
    template: String,
    owner: Owner,
}

/// The machine, its server and its configuration. Its user data is of no more use, and is asked for all the same.
fn machine(adopt: &Terms<'_>, member: &Member, spec: &Value, config: &Value, meta: Meta, plan: &mut Plan) {
    let Some(server) = &member.server else { return };
    let name = server.name.as_str();
    let mut body = json!({
        "clusterName": adopt.name, "version": member.version, "providerID": member.provider_id,
        "bootstrap": {"configRef": reference(BOOTSTRAP, "KubeadmConfig", name), "dataSecretName": name},
        "infrastructureRef": reference(INFRASTRUCTURE, "OpenStackMachine", name),
    });
    if member.control_plane && !server.availability_zone.is_empty() {
        body["failureDomain"] = server.availability_zone.clone().into();
    }
    let of = |finalizers: &[&str], annotations: Value| json!({"name": name, "labels": meta.labels, "annotations": annotations, "finalizers": finalizers});
    plan.objects.push(Made {
        object: object(CORE, "Machine", of(&[MACHINE_FINALIZER], meta.annotations), body),
        owners: vec![(meta.owner, true)],
        is: Some(Owner::Machine(name.to_owned())),
    });
    let owned = || vec![(Owner::Machine(name.to_owned()), true)];
    let cloned = json!({
        CLONED_FROM_NAME_ANNOTATION: meta.template,
        CLONED_FROM_KIND_ANNOTATION: format!("OpenStackMachineTemplate.{INFRASTRUCTURE}"),
    });
    let infra = object(INFRASTRUCTURE, "OpenStackMachine", of(&[OPENSTACK_MACHINE_FINALIZER], cloned), spec.clone());
    plan.objects.push(Made { object: infra, owners: owned(), is: None });
    let config = object(BOOTSTRAP, "KubeadmConfig", of(&[], json!({})), config.clone());
    plan.objects.push(Made { object: config, owners: owned(), is: None });
    let data = json!({"value": "#cloud-config\n# This machine was there before.\n", "format": "cloud-config"});
    plan.objects.push(Made { object: secret(metadata(adopt, name), SECRET_TYPE, data), owners: owned(), is: None });
}

/// Workers of one flavour, image, root volume, key and version are of one deployment.
pub fn grouped<'a>(adopt: &Terms<'_>, workers: &[&'a Member]) -> Vec<Group<'a>> {
    let mut groups: BTreeMap<[String; 5], Vec<&Member>> = BTreeMap::new();
    for member in workers {
        let Some(server) = &member.server else { continue };
        let image = member.image().unwrap_or_default().to_owned();
        let root = member.root.as_ref().map(|root| format!("{} {}", root.size, root.volume_type)).unwrap_or_default();
        let kind = [member.flavor.clone(), image, root, server.key_name.clone(), member.version.clone()];
        groups.entry(kind).or_default().push(member);
    }
    let name = |index: usize| format!("{}-md-{index}", adopt.name);
    groups.into_values().enumerate().map(|(index, members)| Group { name: name(index), members }).collect()
}

pub fn deployment(adopt: &Terms<'_>, seen: &Seen, group: &Group<'_>, plan: &mut Plan) {
    let (name, Some(first)) = (&group.name, group.members.first()) else { return };
    let spec = machine_spec(seen, first, &plan.resource);
    let config = json!({ "joinConfiguration": registration(seen) });
    plan.objects.push(template(adopt, name, &spec));
    plan.objects.push(Made {
        object: object(
            BOOTSTRAP,
            "KubeadmConfigTemplate",
            metadata(adopt, name),
            json!({"template": {"spec": config}}),
        ),
        owners: vec![(Owner::Cluster, false)],
        is: None,
    });
    let own = json!({CLUSTER_LABEL: adopt.name, DEPLOYMENT_LABEL: name});
    let mut hashed = own.clone();
    hashed[TEMPLATE_HASH_LABEL] = HASH.into();
    let template = |labels: &Value| {
        json!({"metadata": {"labels": labels}, "spec": {
            "clusterName": adopt.name, "version": first.version,
            "bootstrap": {"configRef": reference(BOOTSTRAP, "KubeadmConfigTemplate", name)},
            "infrastructureRef": reference(INFRASTRUCTURE, "OpenStackMachineTemplate", name),
        }})
    };
    let sized = |labels: &Value| {
        json!({
            "clusterName": adopt.name, "replicas": group.members.len(), "selector": {"matchLabels": labels},
            "template": template(labels),
        })
    };
    let revised =
        |name: &str, labels: &Value| json!({"name": name, "labels": labels, "annotations": {REVISION_ANNOTATION: "1"}});
    plan.objects.push(Made {
        object: object(CORE, "MachineDeployment", revised(name, &own), sized(&own)),
        owners: vec![(Owner::Cluster, false)],
        is: Some(Owner::Deployment(name.clone())),
    });
    let set = format!("{name}-{HASH}");
    let mut meta = revised(&set, &hashed);
    meta["finalizers"] = json!([MACHINE_SET_FINALIZER]);
    plan.objects.push(Made {
        object: object(CORE, "MachineSet", meta, sized(&hashed)),
        owners: vec![(Owner::Deployment(name.clone()), true)],
        is: Some(Owner::Set(set.clone())),
    });
    let mut labels = hashed;
    labels[SET_LABEL] = set.clone().into();
    for member in &group.members {
        let (labels, annotations) = (labels.clone(), json!({}));
        let meta = Meta { labels, annotations, template: name.clone(), owner: Owner::Set(set.clone()) };
        machine(adopt, member, &spec, &config, meta, plan);
    }
    plan.summary.push(format!("MachineDeployment {name}: {} machines of {}", group.members.len(), first.version));
}
