//! Every field of every `spec` is acted upon, refused with a condition, or told to be stored only: a new one has to be
//! put into one of the two tables.

use std::collections::BTreeSet;

use api::cluster::{Cluster, ClusterNetwork, ClusterSpec};
use serde_json::Value;

use super::*;

/// Pointers of what controllers act upon or refuse; `/*` stands for the items of a list, and `/**` for all below.
const ACTED: &[(&str, &[&str])] = &[
    (
        "Cluster",
        &[
            "/spec/availabilityGates/**",
            "/spec/clusterNetwork/pods/**",
            "/spec/clusterNetwork/serviceDomain",
            "/spec/clusterNetwork/services/**",
            "/spec/controlPlaneEndpoint/**",
            "/spec/controlPlaneRef/**",
            "/spec/infrastructureRef/**",
            "/spec/paused",
            "/spec/topology/classRef/**",
            "/spec/topology/controlPlane/**",
            "/spec/topology/variables/**",
            "/spec/topology/version",
            "/spec/topology/workers/machineDeployments/**",
            "/spec/topology/workers/machinePools/**",
        ],
    ),
    (
        "ClusterClass",
        &[
            "/spec/availabilityGates/**",
            "/spec/controlPlane/**",
            "/spec/infrastructure/**",
            "/spec/kubernetesVersions",
            "/spec/patches/**",
            "/spec/upgrade/**",
            "/spec/variables/**",
            "/spec/workers/machineDeployments/**",
            "/spec/workers/machinePools/**",
        ],
    ),
    (
        "MachinePool",
        &[
            "/spec/clusterName",
            "/spec/failureDomains",
            "/spec/providerIDList",
            "/spec/replicas",
            "/spec/template/metadata/**",
        ],
    ),
    (
        "OpenStackMachinePool",
        &["/spec/deletion/order", "/spec/providerIDList", "/spec/serverGroup/policy", "/spec/strategy/**"],
    ),
    (
        "ExtensionConfig",
        &[
            "/spec/clientConfig/caBundle",
            "/spec/clientConfig/service/**",
            "/spec/clientConfig/url",
            "/spec/namespaceSelector/**",
            "/spec/settings",
        ],
    ),
    ("KubeadmControlPlaneTemplate", &["/spec/template/metadata/**"]),
    ("OpenStackClusterTemplate", &["/spec/template/metadata/**"]),
    ("OpenStackMachinePoolTemplate", &["/spec/template/metadata/**"]),
    (
        "Machine",
        &[
            "/spec/bootstrap/**",
            "/spec/clusterName",
            "/spec/deletion/nodeDeletionTimeoutSeconds",
            "/spec/deletion/nodeDrainTimeoutSeconds",
            "/spec/deletion/nodeVolumeDetachTimeoutSeconds",
            "/spec/failureDomain",
            "/spec/infrastructureRef/**",
            "/spec/minReadySeconds",
            "/spec/providerID",
            "/spec/readinessGates/**",
            "/spec/taints/**",
            "/spec/version",
        ],
    ),
    (
        "MachineSet",
        &[
            "/spec/clusterName",
            "/spec/deletion/order",
            "/spec/machineNaming/template",
            "/spec/replicas",
            "/spec/selector/**",
            "/spec/template/metadata/**",
        ],
    ),
    (
        "MachineDeployment",
        &[
            "/spec/clusterName",
            "/spec/deletion/order",
            "/spec/machineNaming/template",
            "/spec/paused",
            "/spec/remediation/maxInFlight",
            "/spec/replicas",
            "/spec/rollout/after",
            "/spec/rollout/strategy/**",
            "/spec/selector/**",
            "/spec/template/metadata/**",
        ],
    ),
    (
        "MachineHealthCheck",
        &[
            "/spec/checks/nodeStartupTimeoutSeconds",
            "/spec/checks/unhealthyMachineConditions/**",
            "/spec/checks/unhealthyNodeConditions/**",
            "/spec/clusterName",
            "/spec/remediation/templateRef/**",
            "/spec/remediation/triggerIf/**",
            "/spec/selector/**",
        ],
    ),
    ("MachineDrainRule", &["/spec/drain/behavior", "/spec/drain/order", "/spec/machines/**", "/spec/pods/**"]),
    ("ClusterResourceSet", &["/spec/clusterSelector/**", "/spec/resources/**", "/spec/strategy"]),
    ("ClusterResourceSetBinding", &["/spec/bindings/**", "/spec/clusterName"]),
    (
        // What is here reaches the user data: see `each_field_of_a_configuration_reaches_the_user_data`.
        "KubeadmConfig",
        &[
            "/spec/bootCommands",
            "/spec/clusterConfiguration/**",
            "/spec/diskSetup/**",
            "/spec/files/**",
            "/spec/format",
            "/spec/ignition/**",
            "/spec/initConfiguration/**",
            "/spec/joinConfiguration/**",
            "/spec/mounts",
            "/spec/ntp/**",
            "/spec/postKubeadmCommands",
            "/spec/preKubeadmCommands",
            "/spec/users/**",
            "/spec/verbosity",
        ],
    ),
    ("OpenStackClusterIdentity", &["/spec/namespaceSelector/**", "/spec/secretRef/**"]),
    (
        "OpenStackFloatingIPPool",
        &[
            "/spec/floatingIPNetwork/**",
            "/spec/identityRef/**",
            "/spec/maxIPs",
            "/spec/preAllocatedFloatingIPs",
            "/spec/reclaimPolicy",
        ],
    ),
    // What else it has is a machine's (`OpenStackServerSpec::as_machine`).
    (
        "OpenStackServer",
        &["/spec/availabilityZone", "/spec/flavor", "/spec/flavorID", "/spec/identityRef/**", "/spec/userDataRef/**"],
    ),
    // `gateway` is the pool's to tell, for those who have use for it.
    ("IPAddress", &["/spec/address", "/spec/claimRef/**", "/spec/gateway", "/spec/poolRef/**", "/spec/prefix"]),
    ("IPAddressClaim", &["/spec/clusterName", "/spec/poolRef/**"]),
    (
        "Image",
        &[
            "/spec/cloudCredentialsRef/**",
            "/spec/import/**",
            "/spec/managedOptions/onDelete",
            "/spec/managementPolicy",
            // Unpacking and hashes are refused: condition Progressing.
            "/spec/resource/**",
            "/spec/resyncPeriod",
        ],
    ),
    ("KubeadmConfigTemplate", &["/spec/template/metadata/**"]),
    (
        "KubeadmControlPlane",
        &[
            "/spec/machineNaming/template",
            "/spec/machineTemplate/metadata/**",
            "/spec/machineTemplate/spec/deletion/nodeDeletionTimeoutSeconds",
            "/spec/machineTemplate/spec/deletion/nodeDrainTimeoutSeconds",
            "/spec/machineTemplate/spec/deletion/nodeVolumeDetachTimeoutSeconds",
            "/spec/machineTemplate/spec/infrastructureRef/**",
            "/spec/machineTemplate/spec/readinessGates/**",
            "/spec/machineTemplate/spec/taints/**",
            "/spec/remediation/**",
            "/spec/replicas",
            "/spec/rollout/after",
            "/spec/rollout/before/certificatesExpiryDays",
            "/spec/rollout/strategy/**",
            "/spec/version",
        ],
    ),
    (
        "OpenStackCluster",
        &[
            "/spec/apiServer/enableFloatingIP",
            "/spec/apiServer/fixedIP",
            "/spec/apiServer/floatingIP",
            "/spec/apiServer/managedLoadBalancer/additionalPorts",
            "/spec/apiServer/managedLoadBalancer/allowedCIDRs",
            "/spec/apiServer/managedLoadBalancer/availabilityZone",
            "/spec/apiServer/managedLoadBalancer/enabled",
            "/spec/apiServer/managedLoadBalancer/flavor",
            "/spec/apiServer/managedLoadBalancer/monitor/**",
            "/spec/apiServer/managedLoadBalancer/network/**",
            "/spec/apiServer/managedLoadBalancer/provider",
            "/spec/apiServer/managedLoadBalancer/subnets/**",
            "/spec/apiServer/port",
            "/spec/bastion/availabilityZone",
            "/spec/bastion/enabled",
            "/spec/bastion/floatingIP",
            "/spec/controlPlaneAvailabilityZones",
            "/spec/controlPlaneEndpoint/**",
            "/spec/controlPlaneOmitAvailabilityZone",
            "/spec/enableExternalNetwork",
            "/spec/externalNetwork/**",
            "/spec/identityRef/**",
            "/spec/managedNetwork/enablePortSecurity",
            "/spec/managedNetwork/mtu",
            "/spec/managedRouter/externalIPs/**",
            "/spec/managedSecurityGroups/**",
            "/spec/managedSubnets/*/allocationPools/**",
            "/spec/managedSubnets/*/cidr",
            "/spec/managedSubnets/*/dnsNameservers",
            "/spec/network/**",
            "/spec/primarySubnet/**",
            "/spec/router/**",
            "/spec/subnets/**",
            "/spec/tags",
        ],
    ),
    (
        "OpenStackMachine",
        &[
            "/spec/additionalBlockDevices/**",
            "/spec/configDrive",
            "/spec/flavor/**",
            // Refused in a bastion.
            "/spec/floatingIPPoolRef/**",
            "/spec/identityRef/**",
            "/spec/image/**",
            "/spec/ports/*/adminStateUp",
            "/spec/ports/*/allowedAddressPairs/**",
            "/spec/ports/*/description",
            "/spec/ports/*/enablePortSecurity",
            "/spec/ports/*/fixedIPs/**",
            "/spec/ports/*/hostID",
            "/spec/ports/*/macAddress",
            "/spec/ports/*/nameSuffix",
            "/spec/ports/*/network/**",
            "/spec/ports/*/profile/ovsHWOffload",
            "/spec/ports/*/profile/trustedVF",
            "/spec/ports/*/propagateUplinkStatus",
            "/spec/ports/*/securityGroups/**",
            "/spec/ports/*/tags",
            "/spec/ports/*/trunk",
            "/spec/ports/*/valueSpecs/**",
            "/spec/ports/*/vnicType",
            "/spec/providerID",
            "/spec/rootVolume/**",
            "/spec/schedulerHintAdditionalProperties/**",
            "/spec/securityGroups/**",
            "/spec/serverGroup/**",
            "/spec/serverMetadata/**",
            "/spec/sshKeyName",
            "/spec/tags",
            "/spec/trunk",
        ],
    ),
];

/// Parts that are another kind's `spec`: what is made of them tells of their fields.
const SHARED: &[(&str, &str, &str)] = &[
    ("MachineSet", "/spec/template/spec", "Machine"),
    ("MachineDeployment", "/spec/template/spec", "Machine"),
    ("MachinePool", "/spec/template/spec", "Machine"),
    ("OpenStackMachinePool", "/spec/template/spec", "OpenStackMachine"),
    ("OpenStackMachinePoolTemplate", "/spec/template/spec/template/spec", "OpenStackMachine"),
    ("OpenStackMachinePoolTemplate", "/spec/template/spec", "OpenStackMachinePool"),
    ("KubeadmConfigTemplate", "/spec/template/spec", "KubeadmConfig"),
    ("KubeadmControlPlane", "/spec/kubeadmConfigSpec", "KubeadmConfig"),
    ("KubeadmControlPlaneTemplate", "/spec/template/spec/kubeadmConfigSpec", "KubeadmConfig"),
    ("KubeadmControlPlaneTemplate", "/spec/template/spec", "KubeadmControlPlane"),
    ("OpenStackMachineTemplate", "/spec/template/spec", "OpenStackMachine"),
    ("OpenStackClusterTemplate", "/spec/template/spec/bastion/spec", "OpenStackMachine"),
    ("OpenStackClusterTemplate", "/spec/template/spec", "OpenStackCluster"),
    ("OpenStackCluster", "/spec/bastion/spec", "OpenStackMachine"),
    // Where they are of a name and kind.
    ("OpenStackServer", "/spec", "OpenStackMachine"),
];

/// All leaves of a schema.
fn leaves(path: &str, schema: &Value, found: &mut Vec<String>) {
    let item = &schema["items"];
    if let Some(properties) = schema["properties"].as_object() {
        properties.iter().for_each(|(name, schema)| leaves(&format!("{path}/{name}"), schema, found));
    } else if item["properties"].is_object() {
        leaves(&format!("{path}/*"), item, found);
    } else {
        found.push(path.to_owned());
    }
}

fn lines(table: &[(&'static str, &'static [&'static str])], kind: &str) -> &'static [&'static str] {
    table.iter().find(|(of, _)| *of == kind).map_or(&[][..], |(_, lines)| lines)
}

/// Whether the line of the table of acted fields names the leaf.
fn names(line: &str, leaf: &str) -> bool {
    match line.strip_suffix("/**") {
        Some(parent) => leaf.strip_prefix(parent).is_some_and(|rest| rest.starts_with('/')),
        None => line == leaf,
    }
}

#[test]
fn every_field_is_acted_upon_or_told_of_and_named_once() {
    let mut used = BTreeSet::new();
    let mut wrong = Vec::new();
    // Of the app platform's kinds admission says that nothing acts upon them yet.
    for crd in api::crd::all().into_iter().filter(|crd| !crd.spec.group.ends_with(".giantswarm.io")) {
        let kind = crd.spec.names.kind.clone();
        let crd = serde_json::to_value(&crd).unwrap();
        let mut found = Vec::new();
        leaves("/spec", &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"], &mut found);
        for leaf in found {
            let own = lines(ACTED, &kind).iter().any(|line| names(line, &leaf));
            let shared = SHARED.iter().find(|(of, at, _)| !own && *of == kind && leaf.starts_with(&format!("{at}/")));
            let (of, leaf) =
                shared.map_or((kind.as_str(), leaf.clone()), |(_, at, other)| (*other, leaf.replacen(at, "/spec", 1)));
            let acted = lines(ACTED, of).iter().filter(|line| names(line, &leaf));
            let told = lines(FIELDS, of).iter().filter(|line| names(&format!("{line}/**"), &leaf) || **line == leaf);
            let lines: Vec<_> = acted.chain(told).collect();
            if lines.len() != 1 {
                wrong.push(format!("{of} {leaf}: {lines:?}"));
            }
            used.extend(lines.into_iter().map(|line| (of.to_owned(), *line)));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    for (kind, line) in ACTED.iter().chain(FIELDS).flat_map(|(kind, lines)| lines.iter().map(move |line| (kind, line)))
    {
        assert!(used.contains(&((*kind).to_owned(), *line)), "{kind} has no field {line}");
    }
}

#[test]
fn a_bastion_has_no_object_that_could_tell_of_its_fields() {
    assert!(lines(FIELDS, "OpenStackMachine").is_empty(), "let OpenStackCluster tell of spec.bastion.spec");
}

#[test]
fn a_field_that_is_stored_only_is_told_of_once_a_generation() {
    let network = ClusterNetwork { api_server_port: Some(6444), ..Default::default() };
    let mut cluster = Cluster::new("demo", ClusterSpec { cluster_network: Some(network), ..Default::default() });
    cluster.metadata.generation = Some(2);
    let mut plan = Plan::nothing();
    tell(&cluster, Some(1), Vec::new(), &mut plan);
    assert_eq!(
        plan.to_string(),
        "event Warning FieldNotActedUpon: Stored but not acted upon yet: spec.clusterNetwork.apiServerPort\nsettled"
    );
    let mut plan = Plan::nothing();
    tell(&cluster, Some(2), vec!["spec.other".into()], &mut plan);
    assert!(plan.steps.is_empty());
    tell(&cluster, Some(1), vec!["spec.other".into()], &mut plan);
    assert!(plan.to_string().contains("spec.clusterNetwork.apiServerPort, spec.other"));
}
