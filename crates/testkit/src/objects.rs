//! The objects of a cluster, as the published template has them.

use serde_json::{Value, json};

/// What a cluster is to have.
#[derive(Clone, Debug)]
pub struct Shape {
    pub control_plane: u32,
    pub workers: u32,
    /// Such as `v1.34.2`.
    pub version: String,
}

impl Default for Shape {
    fn default() -> Self {
        Self { control_plane: 1, workers: 1, version: "v1.34.2".to_owned() }
    }
}

const INFRASTRUCTURE: &str = "infrastructure.cluster.x-k8s.io";
const BOOTSTRAP: &str = "bootstrap.cluster.x-k8s.io";
const CONTROL_PLANE: &str = "controlplane.cluster.x-k8s.io";

/// Secret, network, control plane `<name>-cp`, workers `<name>-md`, and the Cluster last.
pub fn cluster(name: &str, shape: Shape, clouds_yaml: &str, cloud: &str, external_network: &str) -> Vec<Value> {
    let Shape { control_plane, workers, version } = shape;
    let object = |group: &str, kind: &str, name: String, spec: Value| json!({"apiVersion": format!("{group}/v1beta2"), "kind": kind, "metadata": {"name": name}, "spec": spec});
    let reference = |group: &str, kind: &str, name: &str| json!({"apiGroup": group, "kind": kind, "name": name});
    let (cp, md) = (format!("{name}-cp"), format!("{name}-md"));
    let provider = json!([{"name": "provider-id", "value": "openstack:///'{{ ds.meta_data.instance_id }}'"}]);
    let registration = json!({"nodeRegistration": {"name": "{{ local_hostname }}", "kubeletExtraArgs": provider}});
    let machine = || {
        json!({"template": {"spec": {
            "flavor": {"filter": {"name": "m1.medium"}}, "image": {"filter": {"name": "ubuntu-2404-kube"}},
        }}})
    };
    let labels = json!({"cluster.x-k8s.io/cluster-name": name, "cluster.x-k8s.io/deployment-name": md});
    vec![
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": format!("{name}-cloud-config")},
               "stringData": {"clouds.yaml": clouds_yaml, "cacert": "\n"}}),
        object(
            INFRASTRUCTURE,
            "OpenStackCluster",
            name.into(),
            json!({
                "identityRef": {"name": format!("{name}-cloud-config"), "cloudName": cloud},
                "apiServer": {"managedLoadBalancer": {"enabled": true}},
                "externalNetwork": {"id": external_network},
                "managedSecurityGroups": {"allowAllInClusterTraffic": true},
                "managedSubnets": [{"cidr": "10.6.0.0/24", "dnsNameservers": ["192.0.2.53"]}],
            }),
        ),
        object(INFRASTRUCTURE, "OpenStackMachineTemplate", cp.clone(), machine()),
        object(INFRASTRUCTURE, "OpenStackMachineTemplate", md.clone(), machine()),
        object(
            BOOTSTRAP,
            "KubeadmConfigTemplate",
            md.clone(),
            json!({"template": {"spec": {"joinConfiguration": registration}}}),
        ),
        object(
            CONTROL_PLANE,
            "KubeadmControlPlane",
            cp.clone(),
            json!({
                "replicas": control_plane, "version": version,
                "kubeadmConfigSpec": {"initConfiguration": registration, "joinConfiguration": registration},
                "machineTemplate": {"spec": {"infrastructureRef": reference(INFRASTRUCTURE, "OpenStackMachineTemplate", &cp)}},
            }),
        ),
        object(
            "cluster.x-k8s.io",
            "MachineDeployment",
            md.clone(),
            json!({
                "clusterName": name, "replicas": workers, "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {
                    "clusterName": name, "version": version,
                    "bootstrap": {"configRef": reference(BOOTSTRAP, "KubeadmConfigTemplate", &md)},
                    "infrastructureRef": reference(INFRASTRUCTURE, "OpenStackMachineTemplate", &md),
                }},
            }),
        ),
        object(
            "cluster.x-k8s.io",
            "Cluster",
            name.into(),
            json!({
                "infrastructureRef": reference(INFRASTRUCTURE, "OpenStackCluster", name),
                "controlPlaneRef": reference(CONTROL_PLANE, "KubeadmControlPlane", &cp),
                "clusterNetwork": {"pods": {"cidrBlocks": ["192.168.0.0/16"]}, "serviceDomain": "cluster.local"},
            }),
        ),
    ]
}

/// A ClusterClass `base` with a variable for the workers' flavour, its templates, credentials, and a Cluster of it.
pub fn topology(name: &str, shape: Shape, clouds_yaml: &str, cloud: &str, external_network: &str) -> Vec<Value> {
    let Shape { control_plane, workers, version } = shape;
    let template = |group: &str, kind: &str, spec: Value| json!({"apiVersion": format!("{group}/v1beta2"), "kind": kind, "metadata": {"name": "base"}, "spec": {"template": {"spec": spec}}});
    let named = |group: &str, kind: &str| json!({"templateRef": {"apiVersion": format!("{group}/v1beta2"), "kind": kind, "name": "base"}});
    let provider = json!([{"name": "provider-id", "value": "openstack:///'{{ ds.meta_data.instance_id }}'"}]);
    let registration = json!({"nodeRegistration": {"name": "{{ local_hostname }}", "kubeletExtraArgs": provider}});
    let machine =
        json!({"flavor": {"filter": {"name": "m1.medium"}}, "image": {"filter": {"name": "ubuntu-2404-kube"}}});
    let machines = named(INFRASTRUCTURE, "OpenStackMachineTemplate");
    let flavor = json!({
        "name": "flavor",
        "definitions": [{
            "selector": {
                "apiVersion": format!("{INFRASTRUCTURE}/v1beta2"), "kind": "OpenStackMachineTemplate",
                "matchResources": {"machineDeploymentClass": {"names": ["worker"]}},
            },
            "jsonPatches": [{"op": "replace", "path": "/spec/template/spec/flavor/filter/name", "valueFrom": {"template": "{{ .flavor }}"}}],
        }],
    });
    vec![
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": format!("{name}-cloud-config")},
               "stringData": {"clouds.yaml": clouds_yaml}}),
        template(
            INFRASTRUCTURE,
            "OpenStackClusterTemplate",
            json!({
                "identityRef": {"name": format!("{name}-cloud-config"), "cloudName": cloud},
                "apiServer": {"managedLoadBalancer": {"enabled": true}},
                "externalNetwork": {"id": external_network},
                "managedSecurityGroups": {"allowAllInClusterTraffic": true},
                "managedSubnets": [{"cidr": "10.6.0.0/24"}],
            }),
        ),
        template(
            CONTROL_PLANE,
            "KubeadmControlPlaneTemplate",
            json!({"kubeadmConfigSpec": {"initConfiguration": registration, "joinConfiguration": registration}}),
        ),
        template(INFRASTRUCTURE, "OpenStackMachineTemplate", machine),
        template(BOOTSTRAP, "KubeadmConfigTemplate", json!({ "joinConfiguration": registration })),
        json!({
            "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "ClusterClass", "metadata": {"name": "base"},
            "spec": {
                "infrastructure": named(INFRASTRUCTURE, "OpenStackClusterTemplate"),
                "controlPlane": {
                    "templateRef": named(CONTROL_PLANE, "KubeadmControlPlaneTemplate")["templateRef"], "machineInfrastructure": machines,
                },
                "workers": {"machineDeployments": [{
                    "class": "worker", "bootstrap": named(BOOTSTRAP, "KubeadmConfigTemplate"), "infrastructure": machines,
                    "healthCheck": {"checks": {"unhealthyNodeConditions": [{"type": "Ready", "status": "False", "timeoutSeconds": 300}]}},
                }]},
                "variables": [{"name": "flavor", "required": false, "schema": {"openAPIV3Schema": {"type": "string", "default": "m1.small"}}}],
                "patches": [flavor],
            },
        }),
        json!({
            "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Cluster", "metadata": {"name": name},
            "spec": {"topology": {
                "classRef": {"name": "base"}, "version": version, "controlPlane": {"replicas": control_plane},
                "workers": {"machineDeployments": [{"class": "worker", "name": "md-0", "replicas": workers}]},
            }},
        }),
    ]
}
