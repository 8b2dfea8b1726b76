//! The tables of bootstrap.cluster.x-k8s.io and controlplane.cluster.x-k8s.io.

use serde_json::{Value, json};

use super::{
    clusters::{COUNTERS, STATUS},
    engine::{
        Rule, also, args, completed, conditions, derived, each, hub_only, moved, own, part, put, reference, seconds,
        spoke_only,
    },
    status,
};

const CLUSTER_CONFIGURATION: &[Rule] = &[
    spoke_only("apiVersion"),
    spoke_only("kind"),
    spoke_only("clusterName"),
    spoke_only("kubernetesVersion"),
    spoke_only("networking"),
    args("apiServer.extraArgs"),
    args("controllerManager.extraArgs"),
    args("scheduler.extraArgs"),
    args("etcd.local.extraArgs"),
];

const INIT_CONFIGURATION: &[Rule] = &[
    spoke_only("apiVersion"),
    spoke_only("kind"),
    args("nodeRegistration.kubeletExtraArgs"),
    each("bootstrapTokens", "bootstrapTokens", &[seconds("ttl", "ttlSeconds")]),
];

const JOIN_CONFIGURATION: &[Rule] =
    &[spoke_only("apiVersion"), spoke_only("kind"), args("nodeRegistration.kubeletExtraArgs")];

const SPEC: &[Rule] = &[
    seconds(
        "clusterConfiguration.apiServer.timeoutForControlPlane",
        "initConfiguration.timeouts.controlPlaneComponentHealthCheckSeconds",
    ),
    seconds("joinConfiguration.discovery.timeout", "joinConfiguration.timeouts.tlsBootstrapSeconds"),
    hub_only("initConfiguration.timeouts"),
    hub_only("joinConfiguration.timeouts"),
    part("clusterConfiguration", "clusterConfiguration", CLUSTER_CONFIGURATION),
    part("initConfiguration", "initConfiguration", INIT_CONFIGURATION),
    part("joinConfiguration", "joinConfiguration", JOIN_CONFIGURATION),
    spoke_only("useExperimentalRetryJoin"),
    completed(join_waits_as_long),
];

/// v1beta1 has one time limit for the first control plane and those that join.
fn join_waits_as_long(spec: &mut Value) {
    const LIMIT: &str = "/initConfiguration/timeouts/controlPlaneComponentHealthCheckSeconds";
    if let Some(limit) = spec.pointer(LIMIT).cloned() {
        put(spec, "joinConfiguration.timeouts.controlPlaneComponentHealthCheckSeconds", limit);
    }
}

pub(super) const CONFIG: &[Rule] = &[
    part("spec", "spec", SPEC),
    part(
        "status",
        "status",
        &[
            moved("ready", "initialization.dataSecretCreated"),
            conditions(&[
                ("Ready", "Ready"),
                ("CertificatesAvailable", "CertificatesAvailable"),
                ("DataSecretAvailable", "DataSecretAvailable"),
            ]),
            also(STATUS),
        ],
    ),
];

pub(super) const CONFIG_TEMPLATE: &[Rule] = &[part("spec.template.spec", "spec.template.spec", SPEC)];

const ROLLOUT: &[Rule] = &[
    moved("rolloutAfter", "rollout.after"),
    moved("rolloutBefore", "rollout.before"),
    moved("rolloutStrategy", "rollout.strategy"),
    moved("machineNamingStrategy", "machineNaming"),
    moved("remediationStrategy.maxRetry", "remediation.maxRetry"),
    seconds("remediationStrategy.minHealthyPeriod", "remediation.minHealthyPeriodSeconds"),
    seconds("remediationStrategy.retryPeriod", "remediation.retryPeriodSeconds"),
    spoke_only("remediationStrategy"),
    completed(typed_strategy),
];

/// There is one strategy; v1beta1 filled it in.
fn typed_strategy(spec: &mut Value) {
    if let Some(strategy) = spec.pointer_mut("/rollout/strategy").and_then(Value::as_object_mut) {
        strategy.entry("type").or_insert_with(|| json!("RollingUpdate"));
    }
}

const MACHINE_TEMPLATE: &[Rule] = &[
    reference("infrastructureRef", "spec.infrastructureRef"),
    moved("readinessGates", "spec.readinessGates"),
    moved("taints", "spec.taints"),
    seconds("nodeDrainTimeout", "spec.deletion.nodeDrainTimeoutSeconds"),
    seconds("nodeVolumeDetachTimeout", "spec.deletion.nodeVolumeDetachTimeoutSeconds"),
    seconds("nodeDeletionTimeout", "spec.deletion.nodeDeletionTimeoutSeconds"),
];

pub(super) const CONTROL_PLANE: &[Rule] = &[
    part(
        "spec",
        "spec",
        &[
            part("kubeadmConfigSpec", "kubeadmConfigSpec", SPEC),
            part("machineTemplate", "machineTemplate", MACHINE_TEMPLATE),
            also(ROLLOUT),
        ],
    ),
    part(
        "status",
        "status",
        &[
            moved("initialized", "initialization.controlPlaneInitialized"),
            derived("ready", status::some_ready),
            own("updatedReplicas", status::updated_replicas),
            own("unavailableReplicas", status::unavailable_replicas),
            moved("lastRemediation.timestamp", "lastRemediation.time"),
            conditions(&[
                ("Ready", "Available"),
                ("Available", "Initialized"),
                ("CertificatesAvailable", "CertificatesAvailable"),
                ("ControlPlaneComponentsHealthy", "ControlPlaneComponentsHealthy"),
                ("EtcdClusterHealthy", "EtcdClusterHealthy"),
                ("MachinesReady", "MachinesReady"),
                ("MachinesSpecUpToDate", "MachinesUpToDate"),
            ]),
            also(COUNTERS),
        ],
    ),
];

pub(super) const CONTROL_PLANE_TEMPLATE: &[Rule] = &[part(
    "spec.template.spec",
    "spec.template.spec",
    &[
        part("kubeadmConfigSpec", "kubeadmConfigSpec", SPEC),
        part("machineTemplate", "machineTemplate", MACHINE_TEMPLATE),
        also(ROLLOUT),
    ],
)];
