//! The tables of cluster.x-k8s.io and addons.cluster.x-k8s.io.

use serde_json::{Value, json};

use super::{
    engine::{
        How, Rule, also, completed, conditions, domains, each, hub_only, moved, own, part, reference, seconds,
        spoke_only, template_reference,
    },
    status,
};

/// Time limits of a machine's deletion.
pub(super) const DELETION: &[Rule] = &[
    seconds("nodeDrainTimeout", "deletion.nodeDrainTimeoutSeconds"),
    seconds("nodeVolumeDetachTimeout", "deletion.nodeVolumeDetachTimeoutSeconds"),
    seconds("nodeDeletionTimeout", "deletion.nodeDeletionTimeoutSeconds"),
];

const UNHEALTHY: &[Rule] = &[seconds("timeout", "timeoutSeconds")];

/// The same in MachineHealthChecks, classes and topologies.
const CHECKS: &[Rule] = &[
    moved("enable", "enabled"),
    moved("maxUnhealthy", "remediation.triggerIf.unhealthyLessThanOrEqualTo"),
    moved("unhealthyRange", "remediation.triggerIf.unhealthyInRange"),
    template_reference("remediationTemplate", "remediation.templateRef"),
    seconds("nodeStartupTimeout", "checks.nodeStartupTimeoutSeconds"),
    each("unhealthyConditions", "checks.unhealthyNodeConditions", UNHEALTHY),
    each("unhealthyMachineConditions", "checks.unhealthyMachineConditions", UNHEALTHY),
];

const ROLLING: &[Rule] = &[
    moved("strategy.type", "rollout.strategy.type"),
    moved("strategy.rollingUpdate.maxSurge", "rollout.strategy.rollingUpdate.maxSurge"),
    moved("strategy.rollingUpdate.maxUnavailable", "rollout.strategy.rollingUpdate.maxUnavailable"),
    moved("strategy.rollingUpdate.deletePolicy", "deletion.order"),
    completed(typed_strategy),
];

/// A strategy has a type; v1beta1 filled it in.
fn typed_strategy(hub: &mut Value) {
    if let Some(strategy) = hub.pointer_mut("/rollout/strategy").and_then(Value::as_object_mut) {
        strategy.entry("type").or_insert_with(|| "RollingUpdate".into());
    }
}

pub(super) const STATUS: &[Rule] = &[
    moved("v1beta2.conditions", "conditions"),
    spoke_only("v1beta2"),
    own("failureReason", status::nothing),
    own("failureMessage", status::nothing),
    hub_only("deprecated"),
];

/// Counters that v1beta1 tells twice.
pub(super) const COUNTERS: &[Rule] = &[
    moved("v1beta2.upToDateReplicas", "upToDateReplicas"),
    moved("v1beta2.readyReplicas", "readyReplicas"),
    moved("v1beta2.availableReplicas", "availableReplicas"),
    own("readyReplicas", status::ready_replicas),
    also(STATUS),
];

const VARIABLE: &[Rule] = &[spoke_only("definitionFrom")];

const CONTROL_PLANE_TOPOLOGY: &[Rule] = &[
    also(DELETION),
    part("machineHealthCheck", "healthCheck", CHECKS),
    each("variables.overrides", "variables.overrides", VARIABLE),
];

const DEPLOYMENT_TOPOLOGY: &[Rule] = &[
    also(DELETION),
    also(ROLLING),
    moved("strategy.remediation.maxInFlight", "healthCheck.remediation.maxInFlight"),
    spoke_only("strategy"),
    part("machineHealthCheck", "healthCheck", CHECKS),
    each("variables.overrides", "variables.overrides", VARIABLE),
];

const POOL_TOPOLOGY: &[Rule] = &[also(DELETION), each("variables.overrides", "variables.overrides", VARIABLE)];

const TOPOLOGY: &[Rule] = &[
    moved("class", "classRef.name"),
    moved("classNamespace", "classRef.namespace"),
    spoke_only("rolloutAfter"),
    each("variables", "variables", VARIABLE),
    part("controlPlane", "controlPlane", CONTROL_PLANE_TOPOLOGY),
    each("workers.machineDeployments", "workers.machineDeployments", DEPLOYMENT_TOPOLOGY),
    each("workers.machinePools", "workers.machinePools", POOL_TOPOLOGY),
];

pub(super) const CLUSTER: &[Rule] = &[
    reference("spec.controlPlaneRef", "spec.controlPlaneRef"),
    reference("spec.infrastructureRef", "spec.infrastructureRef"),
    part("spec.topology", "spec.topology", TOPOLOGY),
    part(
        "status",
        "status",
        &[
            moved("infrastructureReady", "initialization.infrastructureProvisioned"),
            moved("controlPlaneReady", "initialization.controlPlaneInitialized"),
            domains("failureDomains"),
            moved("v1beta2.controlPlane", "controlPlane"),
            moved("v1beta2.workers", "workers"),
            conditions(&[
                ("Ready", "Available"),
                ("ControlPlaneInitialized", "ControlPlaneInitialized"),
                ("ControlPlaneReady", "ControlPlaneAvailable"),
                ("InfrastructureReady", "InfrastructureReady"),
                ("TopologyReconciled", "TopologyReconciled"),
            ]),
            also(STATUS),
        ],
    ),
];

const MACHINE_SPEC: &[Rule] = &[
    reference("bootstrap.configRef", "bootstrap.configRef"),
    reference("infrastructureRef", "infrastructureRef"),
    also(DELETION),
];

/// A node, by its name alone in v1beta2.
const NODE: How = How::Mapped {
    up: |node| Some(json!({"name": node.get("name")?})),
    down: |node| {
        let mut node = node.clone();
        node["apiVersion"] = "v1".into();
        node["kind"] = "Node".into();
        Some(node)
    },
};

pub(super) const MACHINE: &[Rule] = &[
    part("spec", "spec", &[also(MACHINE_SPEC), hub_only("minReadySeconds")]),
    part(
        "status",
        "status",
        &[
            moved("bootstrapReady", "initialization.bootstrapDataSecretCreated"),
            moved("infrastructureReady", "initialization.infrastructureProvisioned"),
            Rule { spoke: "nodeRef", hub: "nodeRef", how: NODE },
            hub_only("failureDomain"),
            conditions(&[
                ("Ready", "Ready"),
                ("BootstrapReady", "BootstrapConfigReady"),
                ("InfrastructureReady", "InfrastructureReady"),
                ("NodeHealthy", "NodeHealthy"),
                ("HealthCheckSucceeded", "HealthCheckSucceeded"),
                ("OwnerRemediated", "OwnerRemediated"),
            ]),
            also(STATUS),
        ],
    ),
];

pub(super) const ADDRESS_CLAIM: &[Rule] =
    &[part("status", "status", &[conditions(&[("Ready", "Ready")]), also(STATUS)])];

const NAMING: Rule = moved("machineNamingStrategy", "machineNaming");

pub(super) const MACHINE_SET: &[Rule] = &[
    part(
        "spec",
        "spec",
        &[
            moved("deletePolicy", "deletion.order"),
            NAMING,
            moved("minReadySeconds", "template.spec.minReadySeconds"),
            part("template.spec", "template.spec", MACHINE_SPEC),
        ],
    ),
    part(
        "status",
        "status",
        &[
            own("fullyLabeledReplicas", status::replicas),
            own("availableReplicas", status::available_replicas),
            conditions(&[("Ready", "MachinesReady"), ("MachinesReady", "MachinesReady")]),
            also(COUNTERS),
        ],
    ),
];

pub(super) const MACHINE_DEPLOYMENT: &[Rule] = &[
    part(
        "spec",
        "spec",
        &[
            also(ROLLING),
            moved("strategy.remediation.maxInFlight", "remediation.maxInFlight"),
            moved("rolloutAfter", "rollout.after"),
            spoke_only("strategy"),
            spoke_only("progressDeadlineSeconds"),
            spoke_only("revisionHistoryLimit"),
            NAMING,
            moved("minReadySeconds", "template.spec.minReadySeconds"),
            part("template.spec", "template.spec", MACHINE_SPEC),
        ],
    ),
    part(
        "status",
        "status",
        &[
            own("availableReplicas", status::available_replicas),
            own("updatedReplicas", status::updated_replicas),
            own("unavailableReplicas", status::unavailable_replicas),
            conditions(&[("Ready", "Available"), ("Available", "Available"), ("MachineSetReady", "MachinesReady")]),
            also(COUNTERS),
        ],
    ),
];

pub(super) const MACHINE_POOL: &[Rule] = &[
    part(
        "spec",
        "spec",
        &[
            moved("minReadySeconds", "template.spec.minReadySeconds"),
            part("template.spec", "template.spec", MACHINE_SPEC),
        ],
    ),
    part(
        "status",
        "status",
        &[
            moved("bootstrapReady", "initialization.bootstrapDataSecretCreated"),
            moved("infrastructureReady", "initialization.infrastructureProvisioned"),
            own("availableReplicas", status::available_replicas),
            own("unavailableReplicas", status::unavailable_replicas),
            conditions(&[
                ("Ready", "Available"),
                ("BootstrapReady", "BootstrapConfigReady"),
                ("InfrastructureReady", "InfrastructureReady"),
            ]),
            also(COUNTERS),
        ],
    ),
];

pub(super) const HEALTH_CHECK: &[Rule] = &[
    part("spec", "spec", CHECKS),
    part("status", "status", &[conditions(&[("RemediationAllowed", "RemediationAllowed")]), also(STATUS)]),
];

pub(super) const DRAIN_RULE: &[Rule] = &[];

pub(super) const RESOURCE_SET: &[Rule] =
    &[part("status", "status", &[conditions(&[("ResourcesApplied", "ResourcesApplied")]), also(STATUS)])];

const CLASS_VARIABLE: &[Rule] = &[moved("metadata", "deprecatedV1Beta1Metadata")];

const CONTROL_PLANE_CLASS: &[Rule] = &[
    also(DELETION),
    template_reference("ref", "templateRef"),
    template_reference("machineInfrastructure.ref", "machineInfrastructure.templateRef"),
    moved("namingStrategy", "naming"),
    part("machineHealthCheck", "healthCheck", CHECKS),
];

/// What classes of workers have in common.
const WORKER_CLASS: &[Rule] = &[
    also(DELETION),
    moved("template.metadata", "metadata"),
    template_reference("template.bootstrap.ref", "bootstrap.templateRef"),
    template_reference("template.infrastructure.ref", "infrastructure.templateRef"),
    spoke_only("template"),
    moved("namingStrategy", "naming"),
];

const DEPLOYMENT_CLASS: &[Rule] = &[
    also(WORKER_CLASS),
    also(ROLLING),
    moved("strategy.remediation.maxInFlight", "healthCheck.remediation.maxInFlight"),
    spoke_only("strategy"),
    part("machineHealthCheck", "healthCheck", CHECKS),
];

const EXTERNAL_PATCH: &[Rule] = &[
    moved("external.generateExtension", "external.generatePatchesExtension"),
    moved("external.validateExtension", "external.validateTopologyExtension"),
];

pub(super) const CLASS: &[Rule] = &[
    part(
        "spec",
        "spec",
        &[
            template_reference("infrastructure.ref", "infrastructure.templateRef"),
            moved("infrastructureNamingStrategy", "infrastructure.naming"),
            part("controlPlane", "controlPlane", CONTROL_PLANE_CLASS),
            each("workers.machineDeployments", "workers.machineDeployments", DEPLOYMENT_CLASS),
            each("workers.machinePools", "workers.machinePools", WORKER_CLASS),
            each("variables", "variables", CLASS_VARIABLE),
            each("patches", "patches", EXTERNAL_PATCH),
        ],
    ),
    part(
        "status",
        "status",
        &[
            each("variables", "variables", &[each("definitions", "definitions", CLASS_VARIABLE)]),
            conditions(&[("VariablesReconciled", "VariablesReady"), ("RefVersionsUpToDate", "RefVersionsUpToDate")]),
            also(STATUS),
        ],
    ),
];

pub(super) const EXTENSION: &[Rule] =
    &[part("status", "status", &[conditions(&[("Discovered", "Discovered")]), also(STATUS)])];
