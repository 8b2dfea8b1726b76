//! The tables of the OpenStack provider.

use serde_json::{Value, json};

use super::{
    engine::{How, Rule, also, completed, derived, domains, each, hub_only, moved, not, part, spoke_only},
    status,
};

const PORT: &[Rule] = &[not("disablePortSecurity", "enablePortSecurity")];
const RESOLVED: &[Rule] = &[each("ports", "ports", PORT)];

/// By its name, as one text in v1beta1.
const FLAVOR: How = How::Mapped {
    up: |name| Some(json!({"filter": {"name": name}})),
    down: |flavor| flavor.pointer("/filter/name").cloned(),
};

const MACHINE_SPEC: &[Rule] = &[
    // An identifier is taken before a name, as its server is.
    moved("flavorID", "flavor.id"),
    Rule { spoke: "flavor", hub: "flavor", how: FLAVOR },
    each("ports", "ports", PORT),
    completed(one_flavor),
];

/// An identifier says more than a name.
fn one_flavor(spec: &mut Value) {
    if let Some(flavor) = spec.get_mut("flavor").and_then(Value::as_object_mut)
        && flavor.contains_key("id")
    {
        flavor.remove("filter");
    }
}

const CONDITION: &[Rule] = &[spoke_only("severity"), hub_only("observedGeneration"), completed(reasoned)];

/// A condition of v1beta2 has a reason and a message.
fn reasoned(condition: &mut Value) {
    if let Some(fields) = condition.as_object_mut() {
        fields.entry("reason").or_insert_with(|| "NoReasonReported".into());
        fields.entry("message").or_insert_with(|| "".into());
    }
}

const STATUS: &[Rule] = &[
    derived("ready", status::is_ready),
    spoke_only("failureReason"),
    spoke_only("failureMessage"),
    each("conditions", "conditions", CONDITION),
];

pub(super) const MACHINE: &[Rule] = &[
    part("spec", "spec", MACHINE_SPEC),
    part("status", "status", &[also(STATUS), part("resolved", "resolved", RESOLVED)]),
];

pub(super) const MACHINE_TEMPLATE: &[Rule] = &[
    part("spec.template.spec", "spec.template.spec", MACHINE_SPEC),
    each("status.conditions", "status.conditions", CONDITION),
];

const CLUSTER_SPEC: &[Rule] = &[
    moved("networkMTU", "managedNetwork.mtu"),
    not("disablePortSecurity", "managedNetwork.enablePortSecurity"),
    not("disableExternalNetwork", "enableExternalNetwork"),
    moved("externalRouterIPs", "managedRouter.externalIPs"),
    moved("apiServerPort", "apiServer.port"),
    moved("apiServerFixedIP", "apiServer.fixedIP"),
    moved("apiServerFloatingIP", "apiServer.floatingIP"),
    not("disableAPIServerFloatingIP", "apiServer.enableFloatingIP"),
    moved("apiServerLoadBalancer", "apiServer.managedLoadBalancer"),
    moved("managedSecurityGroups.allNodesSecurityGroupRules", "managedSecurityGroups.clusterNodesSecurityGroupRules"),
    part("bastion.spec", "bastion.spec", MACHINE_SPEC),
];

pub(super) const CLUSTER: &[Rule] = &[
    part("spec", "spec", CLUSTER_SPEC),
    part(
        "status",
        "status",
        &[
            also(STATUS),
            domains("failureDomains"),
            moved("apiServerLoadBalancer", "apiServerManagedLoadBalancer"),
            part("bastion.resolved", "bastion.resolved", RESOLVED),
        ],
    ),
];

pub(super) const CLUSTER_TEMPLATE: &[Rule] =
    &[part("spec.template.spec", "spec.template.spec", CLUSTER_SPEC), hub_only("spec.template.metadata")];
