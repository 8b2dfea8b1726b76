//! The OpenStack provider's kinds: what no schema says, and what may change in an object that exists.
//!
//! Source: kubernetes-sigs/cluster-api-provider-openstack pkg/webhooks.

use serde_json::Value;

use super::{Problem, immutable::first_difference};
use crate::names::MANAGED_BY_ANNOTATION;

const GROUP: &str = "infrastructure.cluster.x-k8s.io";
const FIXED: &str = "cannot be modified";
/// Lists of rules in `spec.managedSecurityGroups`.
const RULES: [&str; 3] =
    ["clusterNodesSecurityGroupRules", "controlPlaneNodesSecurityGroupRules", "workerNodesSecurityGroupRules"];
/// A topology's controller that only asks what would become of a template; counts in dry runs alone.
pub const TOPOLOGY_DRY_RUN_ANNOTATION: &str = "topology.cluster.x-k8s.io/dry-run";

pub(super) fn check(group: &str, kind: &str, object: &Value, old: Option<&Value>, problems: &mut Vec<Problem>) {
    if group != GROUP {
        return;
    }
    match kind {
        "OpenStackCluster" => {
            remotes(&object["spec"]["managedSecurityGroups"], problems);
            families(&object["spec"]["managedSubnets"], problems);
            if let Some(old) = old {
                cluster(old, object, problems);
                managed(old, object, problems);
            }
        }
        "OpenStackMachine" => match old {
            None => machine(&object["spec"], problems),
            Some(old) => {
                let part = |object: &Value| {
                    without_pairs(without(&object["spec"], &["providerID", "instanceID", "identityRef"]))
                };
                fixed("spec", &part(old), &part(object), problems);
            }
        },
        "OpenStackServer" => match old {
            None => machine(&object["spec"], problems),
            Some(old) => {
                let detail = "OpenStackServer spec field is immutable. Please create a new resource instead.";
                if old["spec"] != object["spec"] {
                    problems.push(Problem::forbidden("spec", detail));
                }
            }
        },
        "OpenStackMachineTemplate" => template(kind, object, old, problems),
        "OpenStackMachinePool" => pool(object, problems),
        "OpenStackMachinePoolTemplate" => pool_template(kind, object, old, problems),
        "OpenStackClusterTemplate" => {
            if let Some(old) = old {
                kept("OpenStackClusterTemplate", &spec_of(old), &spec_of(object), object, problems);
            }
        }
        _ => {}
    }
}

/// Who manages the infrastructure itself keeps it: without the annotation all would be made a second time here (Cluster API:
/// labels and annotations, "once set, cannot be removed").
fn managed(old: &Value, new: &Value, problems: &mut Vec<Problem>) {
    let has = |object: &Value| object["metadata"]["annotations"].get(MANAGED_BY_ANNOTATION).is_some();
    if has(old) && !has(new) && new["metadata"]["deletionTimestamp"].is_null() {
        let detail = "cannot be removed: its infrastructure is managed by another system";
        problems.push(Problem::forbidden(&format!("metadata.annotations[{MANAGED_BY_ANNOTATION}]"), detail));
    }
}

fn spec_of(template: &Value) -> Value {
    template.pointer("/spec/template/spec").cloned().unwrap_or_default()
}

fn template(kind: &str, object: &Value, old: Option<&Value>, problems: &mut Vec<Problem>) {
    match old {
        None if !object["spec"]["template"]["spec"]["providerID"].is_null() => {
            problems.push(Problem::forbidden("spec.template.spec.providerID", "cannot be set in templates"));
        }
        None => {}
        Some(old) => kept(kind, &without_pairs(spec_of(old)), &without_pairs(spec_of(object)), object, problems),
    }
}

/// A pool's template may change: its servers are replaced.
fn pool(object: &Value, problems: &mut Vec<Problem>) {
    let spec = spec_of(object);
    machine(&spec, problems);
    if !spec["providerID"].is_null() {
        problems.push(Problem::forbidden("spec.template.spec.providerID", "cannot be set in templates"));
    }
    if !object["spec"]["serverGroup"].is_null() && !spec["serverGroup"].is_null() {
        let detail = "cannot be set: spec.template.spec.serverGroup names the group";
        problems.push(Problem::forbidden("spec.serverGroup", detail));
    }
    super::machines::rolling(&object["spec"]["strategy"]["rollingUpdate"], "spec.strategy.rollingUpdate", problems);
}

/// What a class makes pools from.
fn pool_template(kind: &str, object: &Value, old: Option<&Value>, problems: &mut Vec<Problem>) {
    if let Some(old) = old {
        kept(kind, &spec_of(old), &spec_of(object), object, problems);
        return;
    }
    let mut found = Vec::new();
    pool(&object["spec"]["template"], &mut found);
    if !object.pointer("/spec/template/spec/providerIDList").is_none_or(Value::is_null) {
        found.push(Problem::forbidden("spec.providerIDList", "cannot be set in templates"));
    }
    let there = |problem: Problem| Problem { path: format!("spec.template.{}", problem.path), ..problem };
    problems.extend(found.into_iter().map(there));
    super::labels::metadata(&object["spec"]["template"]["metadata"], "spec.template.metadata", problems);
}

/// A template is replaced, never changed.
fn kept(kind: &str, old: &Value, new: &Value, object: &Value, problems: &mut Vec<Problem>) {
    if old != new {
        let detail = format!("{kind} spec.template.spec field is immutable. Please create a new resource instead.");
        problems.push(Problem::invalid("spec.template.spec", &object["spec"]["template"]["spec"], detail));
    }
}

/// A new server's devices and ports.
fn machine(spec: &Value, problems: &mut Vec<Problem>) {
    let list = |name: &str| spec[name].as_array().cloned().unwrap_or_default();
    if !spec["rootVolume"].is_null() && list("additionalBlockDevices").iter().any(|device| device["name"] == "root") {
        let detail = "cannot contain a device named \"root\" when rootVolume is set";
        problems.push(Problem::forbidden("spec.additionalBlockDevices", detail));
    }
    for port in list("ports") {
        if port["enablePortSecurity"] == false && port["securityGroups"].as_array().is_some_and(|list| !list.is_empty())
        {
            let detail = "cannot have security groups when EnablePortSecurity is set to false";
            problems.push(Problem::forbidden("spec.ports", detail));
        }
    }
}

/// A rule of a security group is about one kind of remote.
fn remotes(managed: &Value, problems: &mut Vec<Problem>) {
    for list in RULES {
        for (index, rule) in managed[list].as_array().into_iter().flatten().enumerate() {
            let set =
                ["remoteManagedGroups", "remoteGroupID", "remoteIPPrefix"].iter().filter(|one| !rule[**one].is_null());
            if set.count() > 1 {
                let path = format!("spec.managedSecurityGroups.{list}[{index}]");
                let detail = "only one of remoteManagedGroups, remoteGroupID, or remoteIPPrefix can be set";
                problems.push(Problem::forbidden(&path, detail));
            }
        }
    }
}

/// Two subnets are for two IP versions.
fn families(subnets: &Value, problems: &mut Vec<Problem>) {
    let six = |subnet: &Value| subnet["cidr"].as_str().is_some_and(|cidr| cidr.contains(':'));
    if let [first, second, ..] = subnets.as_array().map_or(&[][..], Vec::as_slice)
        && six(first) == six(second)
    {
        problems.push(Problem::forbidden("spec.managedSubnets", "cannot hold two subnets of one IP version"));
    }
}

fn fixed(path: &str, old: &Value, new: &Value, problems: &mut Vec<Problem>) {
    if let Some(path) = first_difference(path, old, new) {
        problems.push(Problem::forbidden(&path, FIXED));
    }
}

fn without(spec: &Value, names: &[&str]) -> Value {
    let mut spec = spec.clone();
    if let Value::Object(fields) = &mut spec {
        for name in names {
            fields.remove(*name);
        }
    }
    spec
}

/// Takes fields away below an object that may be absent; one that is left empty then counts as absent.
fn drop_in(spec: &mut Value, parent: &[&str], names: &[&str]) {
    let Some((first, rest)) = parent.split_first() else {
        *spec = without(spec, names);
        return;
    };
    let Some(child) = spec.get_mut(*first) else { return };
    drop_in(child, rest, names);
    if child.as_object().is_some_and(serde_json::Map::is_empty)
        && let Value::Object(fields) = spec
    {
        fields.remove(*first);
    }
}

/// Address pairs of ports may change.
fn without_pairs(mut spec: Value) -> Value {
    for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        *port = without(port, &["allowedAddressPairs"]);
    }
    spec
}

fn cluster(old: &Value, new: &Value, problems: &mut Vec<Problem>) {
    let mut before = without(
        &old["spec"],
        &[
            "identityRef",
            "bastion",
            "controlPlaneAvailabilityZones",
            "controlPlaneOmitAvailabilityZone",
            "primarySubnet",
        ],
    );
    let mut after = without(
        &new["spec"],
        &[
            "identityRef",
            "bastion",
            "controlPlaneAvailabilityZones",
            "controlPlaneOmitAvailabilityZone",
            "primarySubnet",
        ],
    );
    let bastion = &old["spec"]["bastion"];
    if new["spec"]["bastion"].is_null() && !bastion.is_null() && bastion["enabled"] != false {
        problems.push(Problem::forbidden("spec.bastion", "cannot be removed before disabling it"));
    }
    let mut both = |parent: &[&str], names: &[&str]| {
        drop_in(&mut before, parent, names);
        drop_in(&mut after, parent, names);
    };
    // A host, once there is one, stays.
    if old["spec"]["controlPlaneEndpoint"]["host"].as_str().is_none_or(str::is_empty) {
        both(&[], &["controlPlaneEndpoint"]);
    }
    let access = &old["spec"]["apiServer"];
    if access["enableFloatingIP"] == false {
        if access["fixedIP"].as_str().is_none_or(str::is_empty) {
            both(&["apiServer"], &["fixedIP"]);
        }
        if access["port"].is_null() {
            both(&["apiServer"], &["port"]);
        }
    }
    if !access["managedLoadBalancer"].is_null() && !new["spec"]["apiServer"]["managedLoadBalancer"].is_null() {
        both(&["apiServer", "managedLoadBalancer"], &["allowedCIDRs", "monitor"]);
    }
    // The address that the API has already may be written down.
    let current = &old["status"]["apiServerManagedLoadBalancer"]["ip"];
    if !current.is_null() && new["spec"]["apiServer"]["floatingIP"] == *current {
        both(&["apiServer"], &["floatingIP"]);
    }
    if !new["spec"]["managedSecurityGroups"].is_null() {
        both(&["managedSecurityGroups"], &RULES);
        both(&["managedSecurityGroups"], &["allowAllInClusterTraffic"]);
    }
    subnets(&mut before, &mut after, problems);
    named_by_id(old, &mut before, &mut after);
    fixed("spec", &before, &after, problems);
}

/// Of managed subnets only the name servers change; a subnet is known by its CIDR.
fn subnets(before: &mut Value, after: &mut Value, problems: &mut Vec<Problem>) {
    const PATH: &str = "spec.managedSubnets";
    let list = |spec: &Value| spec["managedSubnets"].as_array().cloned().unwrap_or_default();
    let (old, new) = (list(before), list(after));
    if old.is_empty() || new.is_empty() {
        return;
    }
    if old.len() != new.len() {
        problems.push(Problem::forbidden(PATH, "cannot add or remove subnets"));
        drop_in(before, &[], &["managedSubnets"]);
        drop_in(after, &[], &["managedSubnets"]);
        return;
    }
    for subnet in new.iter().filter(|subnet| !old.iter().any(|known| known["cidr"] == subnet["cidr"])) {
        let cidr = subnet["cidr"].as_str().unwrap_or_default();
        let detail = format!("cannot change subnet CIDR from existing value to {cidr}");
        problems.push(Problem::forbidden(PATH, detail));
    }
    for spec in [before, after] {
        for subnet in spec["managedSubnets"].as_array_mut().into_iter().flatten() {
            *subnet = without(subnet, &["dnsNameservers"]);
        }
    }
}

/// What was named by a filter may be named by its id: the one that the status tells.
fn named_by_id(old: &Value, before: &mut Value, after: &mut Value) {
    let status = &old["status"]["network"];
    if before["network"].is_null() || after["network"].is_null() || status.is_null() {
        return;
    }
    let list = |spec: &Value| spec["subnets"].as_array().cloned().unwrap_or_default();
    let (was, is) = (list(before), list(after));
    let known = status["subnets"].as_array().cloned().unwrap_or_default();
    let same = |(was, is): (&Value, &Value)| match (&was["filter"], &is["id"]) {
        (filter, id) if !filter.is_null() && !id.is_null() && is["filter"].is_null() => {
            known.iter().any(|one| one["name"] == filter["name"] && one["id"] == *id)
        }
        _ => was == is,
    };
    if was.len() == is.len() && !known.is_empty() && was.iter().zip(&is).all(same) {
        drop_in(before, &[], &["subnets"]);
        drop_in(after, &[], &["subnets"]);
    }
    if after["network"]["id"] == status["id"] {
        drop_in(before, &[], &["network"]);
        drop_in(after, &[], &["network"]);
    }
}

/// Whether a change of a template is only asked about, by a topology's controller.
pub fn is_topology_dry_run(kind: &str, object: &Value, dry_run: bool) -> bool {
    let kinds = matches!(kind, "OpenStackMachineTemplate" | "OpenStackServer");
    kinds && dry_run && object["metadata"]["annotations"][TOPOLOGY_DRY_RUN_ANNOTATION].is_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_cluster_whose_infrastructure_another_system_manages_stays_its_until_it_is_deleted() {
        let with = |by: Value| json!({"metadata": {"annotations": {MANAGED_BY_ANNOTATION: by}}, "spec": {}});
        let without = json!({"metadata": {"annotations": {"a": "b"}}, "spec": {}});
        let told = |old: &Value, new: &Value| {
            let mut problems = Vec::new();
            check(GROUP, "OpenStackCluster", new, Some(old), &mut problems);
            problems.into_iter().map(|problem| problem.path).collect::<Vec<_>>()
        };
        let path = "metadata.annotations[cluster.x-k8s.io/managed-by]";
        assert_eq!(told(&with("terraform".into()), &without), [path]);
        assert_eq!(told(&with("".into()), &json!({"metadata": {}, "spec": {}})), [path]);
        assert_eq!(told(&with("terraform".into()), &with("another".into())), [""; 0]);
        assert_eq!(told(&without, &with("terraform".into())), [""; 0]);
        let goes = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": {}});
        assert_eq!(told(&with("terraform".into()), &goes), [""; 0]);
    }
}
