//! Fields that cannot change once an object exists.

use serde_json::Value;

use super::Problem;

/// Paths below which changes are allowed; everything else in `spec` is fixed.
struct Rule {
    group: &'static str,
    kind: &'static str,
    mutable: &'static [&'static str],
}

const INFRASTRUCTURE: &str = "infrastructure.cluster.x-k8s.io";

/// The kinds whose spec is fixed but for these parts.
const FIXED: [Rule; 4] = [
    Rule {
        group: INFRASTRUCTURE,
        kind: "OpenStackCluster",
        mutable: &[
            "identityRef",
            "bastion",
            "managedSecurityGroups",
            "controlPlaneAvailabilityZones",
            "controlPlaneOmitAvailabilityZone",
            "apiServer.managedLoadBalancer.allowedCIDRs",
            "apiServer.managedLoadBalancer.monitor",
        ],
    },
    Rule {
        group: INFRASTRUCTURE,
        kind: "OpenStackMachine",
        mutable: &["providerID", "instanceID", "identityRef", "ports[].allowedAddressPairs"],
    },
    Rule { group: INFRASTRUCTURE, kind: "OpenStackMachineTemplate", mutable: &[] },
    Rule { group: INFRASTRUCTURE, kind: "OpenStackClusterTemplate", mutable: &[] },
];

/// Fields that may be set once.
const SET_ONCE: [(&str, &str, &str); 3] = [
    (INFRASTRUCTURE, "OpenStackCluster", "controlPlaneEndpoint"),
    (INFRASTRUCTURE, "OpenStackCluster", "apiServer.fixedIP"),
    (INFRASTRUCTURE, "OpenStackCluster", "apiServer.port"),
];

pub fn check(group: &str, kind: &str, old: &Value, new: &Value, problems: &mut Vec<Problem>) {
    let belongs = group == "cluster.x-k8s.io" && kind != "Cluster" || kind == "ClusterResourceSetBinding";
    if belongs {
        let (before, after) = (&old["spec"]["clusterName"], &new["spec"]["clusterName"]);
        if before != after {
            problems.push(Problem::forbidden("spec.clusterName", "field is immutable"));
        }
    }
    if matches!(kind, "MachineDeployment" | "MachineSet")
        && group == "cluster.x-k8s.io"
        && old["spec"]["selector"] != new["spec"]["selector"]
    {
        problems.push(Problem::forbidden("spec.selector", "field is immutable"));
    }
    let Some(rule) = FIXED.iter().find(|rule| rule.group == group && rule.kind == kind) else { return };
    let (mut before, mut after) = (old["spec"].clone(), new["spec"].clone());
    for path in rule.mutable {
        remove(&mut before, path);
        remove(&mut after, path);
    }
    for (_, _, path) in SET_ONCE.iter().filter(|(of, kind, _)| (*of, *kind) == (group, rule.kind)) {
        let pointer = format!("/spec/{}", path.replace('.', "/"));
        if old.pointer(&pointer).is_none_or(Value::is_null) {
            remove(&mut before, path);
            remove(&mut after, path);
        }
    }
    if let Some(path) = first_difference("spec", &before, &after) {
        problems.push(Problem::forbidden(&path, format!("{kind} spec is immutable here")));
    }
    if rule.kind == "OpenStackCluster" && old["spec"]["bastion"]["enabled"] == true && new["spec"]["bastion"].is_null()
    {
        problems.push(Problem::forbidden(
            "spec.bastion",
            "cannot be removed while it is enabled: set enabled to false first",
        ));
    }
}

/// Takes a field away, in each element of what is named `list[]`; parents that are empty then count as absent.
fn remove(value: &mut Value, path: &str) {
    if let Some((list, rest)) = path.split_once("[].")
        && !list.contains('.')
    {
        let elements = value.get_mut(list).and_then(Value::as_array_mut);
        elements.into_iter().flatten().for_each(|element| remove(element, rest));
        return;
    }
    let Some((first, rest)) = path.split_once('.') else {
        if let Value::Object(map) = value {
            map.remove(path);
        }
        return;
    };
    let Value::Object(map) = value else { return };
    if let Some(child) = map.get_mut(first) {
        remove(child, rest);
        if child.as_object().is_some_and(serde_json::Map::is_empty) {
            map.remove(first);
        }
    }
}

/// The path of the first field that differs.
fn first_difference(path: &str, old: &Value, new: &Value) -> Option<String> {
    if old == new {
        return None;
    }
    if let (Value::Object(old), Value::Object(new)) = (old, new) {
        let keys = old.keys().chain(new.keys().filter(|key| !old.contains_key(*key)));
        for key in keys {
            let (old, new) = (old.get(key).unwrap_or(&Value::Null), new.get(key).unwrap_or(&Value::Null));
            if let Some(found) = first_difference(&format!("{path}.{key}"), old, new) {
                return Some(found);
            }
        }
    }
    Some(path.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn paths(kind: &str, old: &Value, new: &Value) -> Vec<String> {
        let mut problems = Vec::new();
        check(INFRASTRUCTURE, kind, old, new, &mut problems);
        problems.into_iter().map(|problem| problem.path).collect()
    }

    #[test]
    fn a_template_never_changes() {
        let (old, new) =
            (json!({"spec": {"template": {"spec": {"a": 1}}}}), json!({"spec": {"template": {"spec": {"a": 2}}}}));
        assert_eq!(paths("OpenStackMachineTemplate", &old, &new), ["spec.template.spec.a"]);
        assert!(paths("OpenStackMachineTemplate", &old, &old).is_empty());
    }

    #[test]
    fn of_a_machines_ports_only_the_address_pairs_change() {
        let machine = |ports: Value| json!({"spec": {"flavor": {"id": "a"}, "ports": ports}});
        let old = machine(json!([{"nameSuffix": "a", "allowedAddressPairs": [{"ipAddress": "10.0.0.1"}]}, {}]));
        let pairs = machine(json!([{"nameSuffix": "a"}, {"allowedAddressPairs": [{"ipAddress": "10.0.0.2"}]}]));
        assert!(paths("OpenStackMachine", &old, &pairs).is_empty());
        for other in
            [json!([{"nameSuffix": "b"}, {}]), json!([{"nameSuffix": "a"}]), json!([{"nameSuffix": "a"}, {}, {}])]
        {
            assert_eq!(paths("OpenStackMachine", &old, &machine(other)), ["spec.ports"]);
        }
        assert_eq!(paths("OpenStackMachine", &old, &json!({"spec": {"flavor": {"id": "a"}}})), ["spec.ports"]);
    }

    #[test]
    fn an_endpoint_is_set_once() {
        let none = json!({"spec": {"identityRef": {"name": "a"}}});
        let set = json!({"spec": {"identityRef": {"name": "a"}, "controlPlaneEndpoint": {"host": "a", "port": 1}}});
        let moved = json!({"spec": {"identityRef": {"name": "b"}, "controlPlaneEndpoint": {"host": "b", "port": 1}}});
        assert!(paths("OpenStackCluster", &none, &set).is_empty());
        assert_eq!(paths("OpenStackCluster", &set, &moved), ["spec.controlPlaneEndpoint.host"]);
    }
}
