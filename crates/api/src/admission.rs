//! Defaults and validation that a schema cannot express: what the published webhooks do, as pure functions.
//!
//! Source: kubernetes-sigs/cluster-api core/webhooks, controlplane/kubeadm/webhooks; the OpenStack provider's
//! pkg/webhooks.

pub mod addresses;
pub mod app;
mod bootstrap;
pub mod class;
pub mod control_plane;
mod extension;
mod immutable;
pub mod labels;
mod machines;
pub mod openstack;
pub mod selection;
pub mod topology;

use serde_json::{Value, json};

pub(crate) use self::immutable::first_difference;
use crate::{
    names::{AUTOSCALER_MAX_ANNOTATION, AUTOSCALER_MIN_ANNOTATION, CLUSTER_LABEL, DEPLOYMENT_LABEL, SET_LABEL},
    version,
};

/// How long a health check gives a node to appear if it does not say, in seconds.
pub const STARTUP_TIMEOUT_S: i32 = 600;
/// How long the deletion of a Machine waits for the deletion of its node if it does not say, in seconds.
pub const NODE_DELETION_TIMEOUT_S: i32 = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProblemKind {
    Required,
    Invalid,
    Forbidden,
    Duplicate,
}

/// One thing that is wrong with an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    pub kind: ProblemKind,
    /// As in `spec.replicas`.
    pub path: String,
    pub value: Option<Value>,
    pub detail: String,
}

impl Problem {
    fn new(kind: ProblemKind, path: &str, value: &Value, detail: impl Into<String>) -> Self {
        Self { kind, path: path.to_owned(), value: Some(value.clone()), detail: detail.into() }
    }

    fn invalid(path: &str, value: &Value, detail: impl Into<String>) -> Self {
        Self::new(ProblemKind::Invalid, path, value, detail)
    }

    fn forbidden(path: &str, detail: impl Into<String>) -> Self {
        Self { kind: ProblemKind::Forbidden, path: path.to_owned(), value: None, detail: detail.into() }
    }

    fn required(path: &str, detail: impl Into<String>) -> Self {
        Self { kind: ProblemKind::Required, path: path.to_owned(), value: None, detail: detail.into() }
    }
}

/// Fills in what the user left out. An object of a kind that is not ours stays as it is, and so does what is of a type
/// that the schema will refuse. `old` is what stands so far.
pub fn default(group: &str, kind: &str, object: &mut Value, old: Option<&Value>) {
    match (group, kind) {
        ("cluster.x-k8s.io", "Machine") => {
            version(object, "/spec/version");
            label_cluster(object);
            fill(object, &["spec", "deletion", "nodeDeletionTimeoutSeconds"], NODE_DELETION_TIMEOUT_S);
        }
        ("cluster.x-k8s.io", "MachineDeployment") => {
            replicas(object, old);
            version(object, "/spec/template/spec/version");
            label_cluster(object);
            fill(object, &["spec", "rollout", "strategy", "type"], "RollingUpdate");
            if object.pointer("/spec/rollout/strategy/type").is_some_and(|type_| type_ == "RollingUpdate") {
                fill(object, &["spec", "rollout", "strategy", "rollingUpdate", "maxSurge"], 1);
                fill(object, &["spec", "rollout", "strategy", "rollingUpdate", "maxUnavailable"], 0);
            }
            select(object, DEPLOYMENT_LABEL);
        }
        ("cluster.x-k8s.io", "MachineSet") => {
            replicas(object, old);
            version(object, "/spec/template/spec/version");
            label_cluster(object);
            select(object, SET_LABEL);
        }
        ("cluster.x-k8s.io", "MachinePool") => {
            replicas(object, old);
            version(object, "/spec/template/spec/version");
            label_cluster(object);
            let deletion = ["spec", "template", "spec", "deletion", "nodeDeletionTimeoutSeconds"];
            fill(object, &deletion, NODE_DELETION_TIMEOUT_S);
        }
        ("cluster.x-k8s.io", "MachineHealthCheck") => {
            label_cluster(object);
            fill(object, &["spec", "checks", "nodeStartupTimeoutSeconds"], STARTUP_TIMEOUT_S);
        }
        ("runtime.cluster.x-k8s.io", "ExtensionConfig") => extension::default(object),
        ("addons.cluster.x-k8s.io", "ClusterResourceSet") => fill(object, &["spec", "strategy"], "ApplyOnce"),
        ("controlplane.cluster.x-k8s.io", "KubeadmControlPlane") => {
            fill(object, &["spec", "replicas"], 1);
            version(object, "/spec/version");
            set(object, &["spec", "rollout", "strategy", "type"], "RollingUpdate".into());
            fill(object, &["spec", "rollout", "strategy", "rollingUpdate", "maxSurge"], 1);
        }
        _ => {}
    }
}

/// One machine, or what the autoscaler may go on from: the least of a new set, and of one that is handed over to it what
/// it has, within the bounds. Stays absent, to be refused, if a bound is no number.
fn replicas(object: &mut Value, old: Option<&Value>) {
    if object.pointer("/spec/replicas").is_some_and(|replicas| !replicas.is_null()) {
        return;
    }
    let annotations = object.pointer("/metadata/annotations");
    let bound = |key: &str| annotations.and_then(|all| all.get(key)).and_then(Value::as_str);
    let wanted = match (bound(AUTOSCALER_MIN_ANNOTATION), bound(AUTOSCALER_MAX_ANNOTATION)) {
        (Some(min), Some(max)) => {
            let (Ok(min), Ok(max)) = (min.parse::<i32>(), max.parse::<i32>()) else { return };
            let stands = old.and_then(|old| old.pointer("/spec/replicas")).and_then(Value::as_i64);
            stands.map_or(i64::from(min), |stands| stands.min(max.into()).max(min.into()))
        }
        _ => 1,
    };
    fill(object, &["spec", "replicas"], wanted);
}

/// The field at a path, made with its parents where they are absent; `None` if a parent is no object.
fn field<'a>(object: &'a mut Value, path: &[&str]) -> Option<&'a mut Value> {
    let mut at = object;
    for name in path {
        if at.is_null() {
            *at = json!({});
        }
        at = at.as_object_mut()?.entry(*name).or_insert(Value::Null);
    }
    Some(at)
}

/// Sets a field that is absent.
fn fill(object: &mut Value, path: &[&str], value: impl Into<Value>) {
    if let Some(field) = field(object, path).filter(|field| field.is_null()) {
        *field = value.into();
    }
}

fn set(object: &mut Value, path: &[&str], value: Value) {
    if let Some(field) = field(object, path) {
        *field = value;
    }
}

/// A version gets its `v`; one that is absent stays so.
fn version(object: &mut Value, pointer: &str) {
    let Some(field) = object.pointer_mut(pointer) else { return };
    if let Some(text) = field.as_str().filter(|text| !text.is_empty() && !text.starts_with('v')) {
        *field = format!("v{text}").into();
    }
}

fn label_cluster(object: &mut Value) {
    if let Some(cluster @ Value::String(_)) = object.pointer("/spec/clusterName").cloned() {
        set(object, &["metadata", "labels", CLUSTER_LABEL], cluster);
    }
}

/// An empty selector selects by the object's own name and cluster; the template is labelled to match.
fn select(object: &mut Value, label: &str) {
    let Some(cluster @ Value::String(_)) = object.pointer("/spec/clusterName").cloned() else { return };
    let Some(name @ Value::String(_)) = object.pointer("/metadata/name").cloned() else { return };
    let Some(Value::Object(selector)) = field(object, &["spec", "selector"]).map(|selector| {
        if selector.is_null() {
            *selector = json!({});
        }
        selector
    }) else {
        return;
    };
    selector.retain(|_, part| !part.is_null());
    let empty = |part: Option<&Value>| match part {
        Some(Value::Object(map)) => map.is_empty(),
        Some(Value::Array(list)) => list.is_empty(),
        part => part.is_none(),
    };
    if empty(selector.get("matchLabels")) && empty(selector.get("matchExpressions")) {
        set(object, &["spec", "selector", "matchLabels", label], name.clone());
        set(object, &["spec", "template", "metadata", "labels", label], name);
    }
    set(object, &["spec", "selector", "matchLabels", CLUSTER_LABEL], cluster.clone());
    set(object, &["spec", "template", "metadata", "labels", CLUSTER_LABEL], cluster);
}

/// What is wrong with the object, as it is to be stored; `old` is what it replaces.
pub fn validate(group: &str, kind: &str, object: &Value, old: Option<&Value>) -> Vec<Problem> {
    let mut problems = Vec::new();
    let at = |pointer: &str| object.pointer(pointer).unwrap_or(&Value::Null);
    match (group, kind) {
        ("cluster.x-k8s.io", "Cluster") => cluster(object, old, &mut problems),
        ("cluster.x-k8s.io", "Machine") => machines::machine(object, &mut problems),
        ("cluster.x-k8s.io", "MachineSet") => machines::set(kind, object, &mut problems),
        ("cluster.x-k8s.io", "MachineDeployment") => machines::deployment(object, &mut problems),
        ("cluster.x-k8s.io", "MachinePool") => machines::pool(object, &mut problems),
        ("cluster.x-k8s.io", "ClusterClass") => problems.extend(class::validate(object, old)),
        ("runtime.cluster.x-k8s.io", "ExtensionConfig") => extension::validate(object, &mut problems),
        ("cluster.x-k8s.io", "MachineHealthCheck") => selection::health_check(object, &mut problems),
        ("cluster.x-k8s.io", "MachineDrainRule") => selection::drain_rule(object, &mut problems),
        ("addons.cluster.x-k8s.io", "ClusterResourceSet") => selection::resource_set(object, old, &mut problems),
        ("ipam.cluster.x-k8s.io", "IPAddressClaim") => addresses::claim(object, old, &mut problems),
        ("ipam.cluster.x-k8s.io", "IPAddress") => addresses::address(object, old, &mut problems),
        ("controlplane.cluster.x-k8s.io", "KubeadmControlPlane") => {
            control_plane::control_plane(object, old, &mut problems);
        }
        ("controlplane.cluster.x-k8s.io", "KubeadmControlPlaneTemplate") => {
            control_plane::template(object, old, &mut problems);
        }
        ("bootstrap.cluster.x-k8s.io", "KubeadmConfig") => {
            bootstrap::check(at("/spec"), false, "spec", &mut problems);
        }
        ("bootstrap.cluster.x-k8s.io", "KubeadmConfigTemplate") => {
            bootstrap::check(at("/spec/template/spec"), false, "spec.template.spec", &mut problems);
            labels::metadata(at("/spec/template/metadata"), "spec.template.metadata", &mut problems);
        }
        _ => openstack::check(group, kind, object, old, &mut problems),
    }
    if let Some(old) = old {
        immutable::check(group, kind, old, object, &mut problems);
    }
    problems
}

/// Rules of a Cluster apart from its topology.
fn cluster(object: &Value, old: Option<&Value>, problems: &mut Vec<Problem>) {
    labels::name(object, problems);
    let spec = &object["spec"];
    let was = |field: &str| old.is_some_and(|old| !old["spec"][field].is_null());
    for field in ["infrastructureRef", "controlPlaneRef"] {
        if spec[field].is_null() && was(field) {
            problems.push(Problem::forbidden(&format!("spec.{field}"), "cannot be removed"));
        }
    }
    if ["controlPlaneRef", "infrastructureRef", "topology"].iter().all(|field| spec[*field].is_null()) {
        let detail = "one of spec.controlPlaneRef, spec.infrastructureRef or spec.topology must be set";
        problems.push(Problem::forbidden("spec", detail));
    }
    for field in ["pods", "services"] {
        let blocks = spec["clusterNetwork"][field]["cidrBlocks"].as_array();
        for (index, block) in blocks.into_iter().flatten().enumerate() {
            let text = block.as_str().unwrap_or_default();
            if text.parse::<ipnet::IpNet>().is_err() {
                let path = format!("spec.clusterNetwork.{field}.cidrBlocks[{index}]");
                problems.push(Problem::invalid(&path, block, format!("invalid CIDR address: {text}")));
            }
        }
    }
}

fn items<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn check_version(version: &Value, path: &str, problems: &mut Vec<Problem>) {
    if let Some(text) = version.as_str()
        && numbers(text).is_none()
    {
        problems.push(Problem::invalid(path, version, "must be a valid semantic version"));
    }
}

/// Major, minor and patch of a version that is written with its `v`.
fn numbers(text: &str) -> Option<[u64; 3]> {
    version::numbers(text).filter(|_| text.starts_with('v'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment() -> Value {
        json!({"metadata": {"name": "md"}, "spec": {"clusterName": "demo", "selector": {"matchLabels": null}, "template": {"spec": {
            "clusterName": "demo", "version": "1.32.0", "bootstrap": {"dataSecretName": "x"},
        }}}})
    }

    #[test]
    fn an_empty_selector_selects_the_deployments_own_machines() {
        let mut object = deployment();
        default("cluster.x-k8s.io", "MachineDeployment", &mut object, None);
        assert_eq!(object["spec"]["selector"]["matchLabels"], json!({DEPLOYMENT_LABEL: "md", CLUSTER_LABEL: "demo"}));
        assert_eq!(object["spec"]["template"]["spec"]["version"], "v1.32.0");
        assert_eq!(object["spec"]["replicas"], 1);
        assert_eq!(validate("cluster.x-k8s.io", "MachineDeployment", &object, None), []);
        let once = object.clone();
        default("cluster.x-k8s.io", "MachineDeployment", &mut object, None);
        assert_eq!(object, once, "defaulting twice changes nothing more");
    }

    #[test]
    fn control_planes_are_checked() {
        let reference =
            json!({"apiGroup": "infrastructure.cluster.x-k8s.io", "kind": "OpenStackMachineTemplate", "name": "a"});
        let machines = json!({"spec": {"infrastructureRef": reference}});
        let object = |replicas: i64, version: &str| json!({"spec": {"replicas": replicas, "version": version, "machineTemplate": machines}});
        let problems = |new: &Value, old: Option<&Value>| -> Vec<String> {
            let found = validate("controlplane.cluster.x-k8s.io", "KubeadmControlPlane", new, old);
            found.into_iter().map(|problem| format!("{:?} {}", problem.kind, problem.path)).collect()
        };
        assert_eq!(problems(&object(3, "v1.32.0"), None), Vec::<String>::new());
        assert_eq!(problems(&object(2, "v1.32.0"), None), ["Forbidden spec.replicas"]);
        assert_eq!(problems(&object(0, "v1.32.0"), None), ["Forbidden spec.replicas"; 2]);
        assert_eq!(problems(&object(1, "1.32"), None), ["Invalid spec.version"]);
        let last = object(1, "v1.4294967295.0");
        assert_eq!(problems(&last, Some(&last)), Vec::<String>::new());
        let beyond = object(1, "v1.18446744073709551615.0");
        assert_eq!(problems(&beyond, Some(&beyond)), ["Invalid spec.version"]);
        let old = object(1, "v1.32.4");
        assert_eq!(problems(&object(1, "v1.33.0"), Some(&old)), Vec::<String>::new());
        assert_eq!(problems(&object(1, "v1.34.0"), Some(&old)), ["Forbidden spec.version"]);
        assert_eq!(problems(&object(1, "v1.32.3"), Some(&old)), ["Forbidden spec.version"]);
    }

    #[test]
    fn an_object_of_wrong_types_is_left_for_the_schema_to_refuse() {
        for kind in ["MachineDeployment", "MachineSet", "Machine", "KubeadmControlPlane"] {
            for object in [
                json!("text"),
                json!({"spec": "text"}),
                json!({"spec": {"rollout": 1, "selector": [], "template": 7}}),
                json!({"spec": {"clusterName": "c", "selector": {"matchLabels": 1}}, "metadata": 3}),
            ] {
                for group in ["cluster.x-k8s.io", "controlplane.cluster.x-k8s.io"] {
                    let mut object = object.clone();
                    default(group, kind, &mut object, None);
                    validate(group, kind, &object, Some(&json!(1)));
                }
            }
        }
    }

    #[test]
    fn defaulting_leaves_no_nulls() {
        for kind in ["MachineDeployment", "MachineSet", "Machine"] {
            let mut object = json!({"metadata": {"name": "a"}, "spec": {"clusterName": "c"}});
            default("cluster.x-k8s.io", kind, &mut object, None);
            assert!(!object.to_string().contains("null"), "{kind}: {object}");
        }
    }

    #[test]
    fn replicas_begin_where_the_autoscaler_may_take_over() {
        let replicas = |kind: &str, bounds: Option<(&str, &str)>, given: Option<i64>, old: Option<i64>| {
            let mut object = json!({"metadata": {"annotations": {}}, "spec": {}});
            if let Some((min, max)) = bounds {
                let key = |end: &str| format!("cluster.x-k8s.io/cluster-api-autoscaler-node-group-{end}-size");
                object["metadata"]["annotations"] = json!({key("min"): min, key("max"): max});
            }
            object["spec"]["replicas"] = json!(given);
            let old = old.map(|replicas| json!({"spec": {"replicas": replicas}}));
            default("cluster.x-k8s.io", kind, &mut object, old.as_ref());
            object["spec"]["replicas"].as_i64()
        };
        for kind in ["MachineDeployment", "MachineSet"] {
            assert_eq!(replicas(kind, None, None, Some(5)), Some(1), "without it, as ever");
            assert_eq!(replicas(kind, Some(("0", "5")), None, None), Some(0));
            assert_eq!(replicas(kind, Some(("2", "5")), None, None), Some(2));
            assert_eq!(replicas(kind, Some(("2", "5")), None, Some(1)), Some(2));
            assert_eq!(replicas(kind, Some(("2", "5")), None, Some(4)), Some(4));
            assert_eq!(replicas(kind, Some(("2", "5")), None, Some(9)), Some(5));
            assert_eq!(replicas(kind, Some(("2", "5")), Some(9), None), Some(9), "the user's word");
            assert_eq!(replicas(kind, Some(("few", "5")), None, None), None);
            let annotations = json!({AUTOSCALER_MIN_ANNOTATION: "few"});
            let problems = validate("cluster.x-k8s.io", kind, &json!({"metadata": {"annotations": annotations}}), None);
            assert!(problems.iter().any(|problem| problem.path == "spec.replicas"), "{problems:?}");
        }
    }

    #[test]
    fn a_machine_pool_has_one_configuration_and_one_cluster() {
        let pool = |kind: &str, cluster: &str| {
            let bootstrap = json!({"configRef": {"kind": kind, "name": "mp"}});
            let mut pool = json!({"spec": {
                "clusterName": "demo", "template": {"spec": {"clusterName": cluster, "bootstrap": bootstrap, "version": "1.34.2"}},
            }});
            default("cluster.x-k8s.io", "MachinePool", &mut pool, None);
            pool
        };
        let wrong = |pool: &Value| {
            let found = validate("cluster.x-k8s.io", "MachinePool", pool, None);
            found.into_iter().map(|problem| problem.path).collect::<Vec<_>>()
        };
        let good = pool("KubeadmConfig", "demo");
        assert_eq!((&good["spec"]["replicas"], wrong(&good)), (&json!(1), Vec::new()));
        assert_eq!(good["spec"]["template"]["spec"]["version"], "v1.34.2");
        assert_eq!(good["spec"]["template"]["spec"]["deletion"]["nodeDeletionTimeoutSeconds"], 10);
        assert_eq!(wrong(&pool("KubeadmConfig", "other")), ["spec.clusterName"]);
        assert_eq!(wrong(&pool("KubeadmConfigTemplate", "demo")), ["spec.template.spec.bootstrap.configRef.kind"]);
        // Its machines would be refused, one after the other.
        let mut tainted = good.clone();
        tainted["spec"]["template"]["spec"]["taints"] = json!([{"key": "node.cluster.x-k8s.io/uninitialized"}]);
        assert_eq!(wrong(&tainted), ["spec.template.spec.taints[0].key"]);
        let mut named = good;
        named["metadata"]["name"] = "a".repeat(64).into();
        assert_eq!(wrong(&named), ["metadata.name"]);
    }
}
