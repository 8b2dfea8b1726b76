//! Defaults and validation that a schema cannot express: what the published webhooks do, as pure functions.
//!
//! Source: kubernetes-sigs/cluster-api core/webhooks, controlplane/kubeadm/webhooks; the OpenStack provider's
//! pkg/webhooks.

pub mod addresses;
mod immutable;
pub mod openstack;
pub mod selection;
pub mod topology;

use serde_json::{Value, json};

use crate::names::{AUTOSCALER_MAX_ANNOTATION, AUTOSCALER_MIN_ANNOTATION, CLUSTER_LABEL, DEPLOYMENT_LABEL, SET_LABEL};

/// Longest name of a cluster: it becomes a label value.
const CLUSTER_NAME_MAX: usize = 63;
/// How long a health check gives a node to appear if it does not say, in seconds.
pub const STARTUP_TIMEOUT_S: i32 = 600;

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
        }
        ("cluster.x-k8s.io", "MachineDeployment") => {
            replicas(object, old);
            version(object, "/spec/template/spec/version");
            label_cluster(object);
            let strategy = ["spec", "rollout", "strategy"];
            fill(object, &strategy, json!({ "type": "RollingUpdate" }));
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
        ("cluster.x-k8s.io", "MachineHealthCheck") => {
            label_cluster(object);
            fill(object, &["spec", "checks", "nodeStartupTimeoutSeconds"], STARTUP_TIMEOUT_S);
        }
        ("addons.cluster.x-k8s.io", "ClusterResourceSet") => fill(object, &["spec", "strategy"], "ApplyOnce"),
        ("controlplane.cluster.x-k8s.io", "KubeadmControlPlane") => {
            fill(object, &["spec", "replicas"], 1);
            version(object, "/spec/version");
            fill(object, &["spec", "rollout", "strategy"], json!({ "type": "RollingUpdate" }));
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
    if let Some(text) = field.as_str().filter(|text| text.starts_with(|first: char| first.is_ascii_digit())) {
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
        ("cluster.x-k8s.io", "Cluster") => {
            let name = at("/metadata/name").as_str().unwrap_or_default();
            if name.len() > CLUSTER_NAME_MAX {
                let detail = format!("must be no more than {CLUSTER_NAME_MAX} characters");
                problems.push(Problem::invalid("metadata.name", at("/metadata/name"), detail));
            }
            for field in ["pods", "services"] {
                let blocks =
                    at(&format!("/spec/clusterNetwork/{field}/cidrBlocks")).as_array().cloned().unwrap_or_default();
                for (index, block) in blocks.iter().enumerate() {
                    if block.as_str().is_none_or(|text| text.parse::<ipnet::IpNet>().is_err()) {
                        let path = format!("spec.clusterNetwork.{field}.cidrBlocks[{index}]");
                        problems.push(Problem::invalid(&path, block, "must be a valid CIDR block, e.g. 10.0.0.0/16"));
                    }
                }
            }
        }
        ("cluster.x-k8s.io", "Machine") => {
            bootstrap(at("/spec/bootstrap"), "spec.bootstrap", &mut problems);
            check_version(at("/spec/version"), "spec.version", &mut problems);
        }
        ("cluster.x-k8s.io", "MachineDeployment" | "MachineSet") => {
            check_version(at("/spec/template/spec/version"), "spec.template.spec.version", &mut problems);
            bootstrap(at("/spec/template/spec/bootstrap"), "spec.template.spec.bootstrap", &mut problems);
            selected(object, &mut problems);
            let (cluster, own) = (at("/spec/clusterName"), at("/spec/template/spec/clusterName"));
            if !own.is_null() && own != cluster {
                let detail = format!("must match spec.clusterName {cluster}");
                problems.push(Problem::invalid("spec.template.spec.clusterName", own, detail));
            }
            rolling(at("/spec/rollout/strategy/rollingUpdate"), &mut problems);
            let bounds = at("/metadata/annotations");
            if at("/spec/replicas").is_null() && !bounds[AUTOSCALER_MIN_ANNOTATION].is_null() {
                let detail = "must be set: the annotations of the autoscaler are no numbers";
                problems.push(Problem::required("spec.replicas", detail));
            }
        }
        // Served because clusterctl lists them; refused because nobody would make their machines.
        ("cluster.x-k8s.io", "MachinePool") if old.is_none() => {
            let detail = "MachinePools are not supported yet: use a MachineDeployment";
            problems.push(Problem::forbidden("spec", detail));
        }
        ("cluster.x-k8s.io", "MachineHealthCheck") => selection::health_check(object, &mut problems),
        ("cluster.x-k8s.io", "MachineDrainRule") => selection::drain_rule(object, &mut problems),
        ("addons.cluster.x-k8s.io", "ClusterResourceSet") => selection::resource_set(object, old, &mut problems),
        ("ipam.cluster.x-k8s.io", "IPAddressClaim") => addresses::claim(object, old, &mut problems),
        ("ipam.cluster.x-k8s.io", "IPAddress") => addresses::address(object, old, &mut problems),
        ("controlplane.cluster.x-k8s.io", "KubeadmControlPlane") => control_plane(object, old, &mut problems),
        ("bootstrap.cluster.x-k8s.io", "KubeadmConfig") => kubeadm(at("/spec"), "spec", &mut problems),
        ("bootstrap.cluster.x-k8s.io", "KubeadmConfigTemplate") => {
            kubeadm(at("/spec/template/spec"), "spec.template.spec", &mut problems);
        }
        _ => openstack::check(group, kind, object, old, &mut problems),
    }
    if let Some(old) = old {
        immutable::check(group, kind, old, object, &mut problems);
    }
    problems
}

fn bootstrap(bootstrap: &Value, path: &str, problems: &mut Vec<Problem>) {
    if bootstrap["configRef"].is_null() && bootstrap["dataSecretName"].is_null() {
        problems.push(Problem::required(
            path,
            "expected either spec.bootstrap.dataSecretName or spec.bootstrap.configRef to be populated",
        ));
    }
}

fn check_version(version: &Value, path: &str, problems: &mut Vec<Problem>) {
    if let Some(text) = version.as_str()
        && numbers(text).is_none()
    {
        problems.push(Problem::invalid(path, version, "must be a valid semantic version, e.g. v1.32.0"));
    }
}

/// Major, minor and patch of a semantic version with its `v`.
fn numbers(text: &str) -> Option<[u64; 3]> {
    let core = text.strip_prefix('v')?.split(['-', '+']).next()?;
    let mut parts = core.split('.').map(|part| part.parse().ok());
    let found = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(found)
}

fn selected(object: &Value, problems: &mut Vec<Problem>) {
    let labels = &object["spec"]["template"]["metadata"]["labels"];
    for (key, value) in object["spec"]["selector"]["matchLabels"].as_object().into_iter().flatten() {
        if labels.get(key) != Some(value) {
            let detail =
                format!("must match spec.selector: the label {key}={} is missing", value.as_str().unwrap_or_default());
            problems.push(Problem::invalid("spec.template.metadata.labels", labels, detail));
        }
    }
}

fn rolling(update: &Value, problems: &mut Vec<Problem>) {
    let zero = |value: &Value| value == 0 || value == "0" || value == "0%";
    if zero(&update["maxSurge"]) && zero(&update["maxUnavailable"]) {
        let path = "spec.rollout.strategy.rollingUpdate.maxUnavailable";
        problems.push(Problem::invalid(path, &update["maxUnavailable"], "may not be 0 when maxSurge is 0"));
    }
    for field in ["maxSurge", "maxUnavailable"] {
        if let Some(text) = update[field].as_str()
            && text.strip_suffix('%').is_none_or(|digits| digits.parse::<u32>().is_err())
        {
            let path = format!("spec.rollout.strategy.rollingUpdate.{field}");
            problems.push(Problem::invalid(&path, &update[field], "must be an integer or a percentage, e.g. 25%"));
        }
    }
}

fn control_plane(object: &Value, old: Option<&Value>, problems: &mut Vec<Problem>) {
    let spec = &object["spec"];
    let replicas = spec["replicas"].as_i64().unwrap_or(1);
    let external = !spec["kubeadmConfigSpec"]["clusterConfiguration"]["etcd"]["external"].is_null();
    if replicas == 0 {
        problems.push(Problem::forbidden("spec.replicas", "cannot be 0"));
    } else if replicas < 0 {
        problems.push(Problem::invalid("spec.replicas", &spec["replicas"], "cannot be negative"));
    } else if replicas % 2 == 0 && !external {
        problems.push(Problem::forbidden("spec.replicas", "cannot be an even number when etcd is stacked"));
    }
    check_version(&spec["version"], "spec.version", problems);
    let surge = &spec["rollout"]["strategy"]["rollingUpdate"]["maxSurge"];
    let path = "spec.rollout.strategy.rollingUpdate.maxSurge";
    match surge.as_i64().or_else(|| surge.as_str()?.parse().ok()) {
        Some(0) if replicas < 3 => {
            problems.push(Problem::required(
                path,
                "when KubeadmControlPlane is configured to scale-in, replica count needs to be at least 3",
            ));
        }
        Some(0 | 1) => {}
        _ if surge.is_null() => {}
        _ => problems.push(Problem::invalid(path, surge, "value must be 1 or 0")),
    }
    if let Some(template) = spec["machineNaming"]["template"].as_str()
        && !template.contains(".random")
    {
        let path = "spec.machineNaming.template";
        problems.push(Problem::invalid(
            path,
            &spec["machineNaming"]["template"],
            "invalid template, {{ .random }} is missing",
        ));
    }
    kubeadm(&spec["kubeadmConfigSpec"], "spec.kubeadmConfigSpec", problems);
    let Some(old) = old else { return };
    let was_external = !old["spec"]["kubeadmConfigSpec"]["clusterConfiguration"]["etcd"]["external"].is_null();
    if was_external != external {
        let path = "spec.kubeadmConfigSpec.clusterConfiguration.etcd";
        problems.push(Problem::forbidden(path, "cannot change between external and local etcd"));
    }
    coredns(old, spec, problems);
    let read = |value: &Value| value["spec"]["version"].as_str().and_then(numbers);
    if let (Some(from), Some(to)) = (read(old), read(object)) {
        if to < from {
            let detail = format!(
                "cannot update Kubernetes version from {} to a lower one",
                old["spec"]["version"].as_str().unwrap_or_default()
            );
            problems.push(Problem::forbidden("spec.version", detail));
        } else if to[0] != from[0] || to[1] > from[1] + 1 {
            let (from, to) = (&old["spec"]["version"], &spec["version"]);
            let detail = format!("cannot update Kubernetes version from {from} to {to}: one minor version at a time");
            problems.push(Problem::forbidden("spec.version", detail));
        }
    }
}

/// CoreDNS goes up only: its Corefile is carried along, and never back. What is no version cannot be compared.
fn coredns(old: &Value, spec: &Value, problems: &mut Vec<Problem>) {
    const POINTER: &str = "/kubeadmConfigSpec/clusterConfiguration/dns/imageTag";
    let tag = |spec: &Value| spec.pointer(POINTER).and_then(Value::as_str).map(str::to_owned);
    let (Some(from), Some(to)) = (tag(&old["spec"]), tag(spec)) else { return };
    let version = |tag: &str| numbers(&format!("v{}", tag.trim_start_matches('v').replace('_', "-")));
    let Some(least) = version(&from).filter(|_| from != to) else { return };
    let path = "spec.kubeadmConfigSpec.clusterConfiguration.dns.imageTag";
    let detail = match version(&to) {
        None => format!("failed to parse CoreDNS target version {to:?}"),
        Some(wanted) if wanted < least => format!("cannot migrate CoreDNS up to '{to}' from '{from}'"),
        Some(_) => return,
    };
    problems.push(Problem::invalid(path, &Value::from(to), detail));
}

/// Rules of a KubeadmConfigSpec wherever it stands.
fn kubeadm(spec: &Value, path: &str, problems: &mut Vec<Problem>) {
    let mut paths = std::collections::BTreeSet::new();
    for (index, file) in spec["files"].as_array().into_iter().flatten().enumerate() {
        let at = format!("{path}.files[{index}]");
        if !file["content"].is_null() && !file["contentFrom"].is_null() {
            problems.push(Problem::invalid(
                &at,
                file,
                "only one of content or contentFrom may be specified for a single file",
            ));
        }
        if let Some(name) = file["path"].as_str()
            && !paths.insert(name)
        {
            problems.push(Problem::new(ProblemKind::Duplicate, &format!("{at}.path"), &file["path"], ""));
        }
    }
    for (index, user) in spec["users"].as_array().into_iter().flatten().enumerate() {
        if !user["passwd"].is_null() && !user["passwdFrom"].is_null() {
            let at = format!("{path}.users[{index}]");
            problems.push(Problem::invalid(
                &at,
                &user["name"],
                "only one of passwd or passwdFrom may be specified for a single user",
            ));
        }
    }
    if spec["format"] == "ignition" {
        for field in ["diskSetup", "mounts"] {
            if field == "mounts" && !spec[field].is_null() {
                problems.push(Problem::forbidden(
                    &format!("{path}.{field}"),
                    "cannot be set when format is set to ignition",
                ));
            }
        }
    } else if !spec["ignition"].is_null() {
        problems.push(Problem::invalid(
            &format!("{path}.format"),
            &spec["format"],
            "must be set to ignition when ignition is set",
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coredns_goes_up_only() {
        let of = |tag: &str| json!({"spec": {"version": "v1.34.2", "kubeadmConfigSpec": {"clusterConfiguration": {"dns": {"imageTag": tag}}}}});
        for (from, to, good) in [
            ("v1.12.1", "v1.13.0", true),
            ("v1.12.1", "1.12.1_build.2", true),
            ("v1.12.1", "v1.11.3", false),
            ("v1.12.1", "latest", false),
            ("latest", "v1.11.3", true),
        ] {
            let mut problems = Vec::new();
            coredns(&of(from), &of(to)["spec"], &mut problems);
            assert_eq!(problems.is_empty(), good, "{from} to {to}");
        }
    }

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
        let object = |replicas: i64, version: &str| json!({"spec": {"replicas": replicas, "version": version}});
        let problems = |new: &Value, old: Option<&Value>| -> Vec<String> {
            let found = validate("controlplane.cluster.x-k8s.io", "KubeadmControlPlane", new, old);
            found.into_iter().map(|problem| format!("{:?} {}", problem.kind, problem.path)).collect()
        };
        assert_eq!(problems(&object(3, "v1.32.0"), None), Vec::<String>::new());
        assert_eq!(problems(&object(2, "v1.32.0"), None), ["Forbidden spec.replicas"]);
        assert_eq!(problems(&object(0, "v1.32.0"), None), ["Forbidden spec.replicas"]);
        assert_eq!(problems(&object(1, "1.32"), None), ["Invalid spec.version"]);
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
    fn a_machine_pool_is_refused_and_says_what_to_use() {
        let problems = validate("cluster.x-k8s.io", "MachinePool", &json!({"spec": {"clusterName": "demo"}}), None);
        assert_eq!(problems.len(), 1);
        assert!(problems[0].detail.contains("use a MachineDeployment"));
    }
}
