//! Fields of the core's kinds that cannot change once an object exists.

use serde_json::Value;

use super::Problem;

pub fn check(group: &str, kind: &str, old: &Value, new: &Value, problems: &mut Vec<Problem>) {
    let (before, after) = (&old["spec"]["clusterName"], &new["spec"]["clusterName"]);
    if group == "cluster.x-k8s.io" && kind != "Cluster" && before != after {
        problems.push(Problem::forbidden("spec.clusterName", "field is immutable"));
    }
    if kind == "ClusterResourceSetBinding" && !before.is_null() && before != after {
        problems.push(Problem::invalid("spec.clusterName", after, "field is immutable"));
    }
    if matches!(kind, "MachineDeployment" | "MachineSet")
        && group == "cluster.x-k8s.io"
        && old["spec"]["selector"] != new["spec"]["selector"]
    {
        problems.push(Problem::forbidden("spec.selector", "field is immutable"));
    }
}

/// The path of the first field that differs.
pub fn first_difference(path: &str, old: &Value, new: &Value) -> Option<String> {
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
