//! Rules about ClusterClasses: what one may say, and how it may change while clusters are made from it.
//!
//! Source: kubernetes-sigs/cluster-api core/webhooks/admission/clusterclass.go and patch_validation.go,
//! internal/topology/check.

mod patches;
mod variables;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Problem, items, labels, machines::rolling, numbers as version_numbers, topology::is_autoscaled};
use crate::topology::template;

/// Clusters that a refused deletion names.
const SHOWN_MAX: usize = 3;
/// Lists of worker classes, with what their objects are called and the variable that naming templates know them by.
const WORKERS: [(&str, &str, &str); 2] =
    [("machineDeployments", "MachineDeployment", "machineDeployment"), ("machinePools", "MachinePool", "machinePool")];

/// What is wrong with a class in itself, and with its change from `old`; of Clusters that use it `for_clusters` tells.
pub fn validate(class: &Value, old: Option<&Value>) -> Vec<Problem> {
    let mut problems = Vec::new();
    templates(class, &mut problems);
    for (list, kind, _) in WORKERS {
        unique(class, list, kind, &mut problems);
    }
    for own in items(class, "/spec/workers/machineDeployments") {
        let path = format!("spec.workers.machineDeployments[{}].rollout.strategy.rollingUpdate", name(own));
        rolling(&own["rollout"]["strategy"]["rollingUpdate"], &path, &mut problems);
    }
    health_checks(class, &mut problems);
    marks(&class["spec"]["controlPlane"], "spec.controlPlane", "metadata", &mut problems);
    for (list, ..) in WORKERS {
        for own in items(class, &format!("/spec/workers/{list}")) {
            marks(own, &format!("spec.workers.{list}[{}]", name(own)), "template.metadata", &mut problems);
        }
    }
    naming(class, &mut problems);
    variables::check(class, &mut problems);
    patches::check(class, &mut problems);
    versions(class, &mut problems);
    if let Some(old) = old {
        problems.extend(compatible(old, class));
    }
    problems
}

/// What is wrong with the variables of a class.
pub fn variables(class: &Value) -> Vec<Problem> {
    let mut problems = Vec::new();
    variables::check(class, &mut problems);
    problems
}

/// What a change of a class would break in the Clusters that use it.
pub fn for_clusters(class: &Value, old: &Value, clusters: &[Value]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let offered = items(class, "/spec/kubernetesVersions");
    for cluster in clusters {
        let (topology, own) = (&cluster["spec"]["topology"], cluster_name(cluster));
        if !offered.is_empty() && !offered.contains(&topology["version"]) {
            let version = topology["version"].as_str().unwrap_or_default();
            let detail = format!("Kubernetes Version {version} is used by Cluster {own:?} but not set in ClusterClass");
            problems.push(Problem::forbidden("spec.kubernetesVersions", detail));
        }
        for (list, kind, _) in WORKERS {
            for workers in items(topology, &format!("/workers/{list}")) {
                let is_there = |class: &Value| of_name(class, list, name(workers)).is_some();
                if is_there(old) && !is_there(class) {
                    let detail = format!(
                        "{kind}Class {:?} cannot be deleted because it is used by Cluster {own:?}",
                        name(workers)
                    );
                    problems.push(Problem::forbidden(&format!("spec.workers.{list}"), detail));
                }
            }
        }
        for (index, workers) in items(topology, "/workers/machineDeployments").iter().enumerate() {
            let of = of_name(class, "machineDeployments", name(workers)).unwrap_or(&Value::Null);
            if !workers["replicas"].is_null() && is_autoscaled(of) {
                let path = format!("spec.topology.workers.machineDeployments[{index}].replicas");
                let detail = format!("is set in Cluster {own:?}, which the annotations of the autoscaler forbid");
                problems.push(Problem::invalid(&path, &workers["replicas"], detail));
            }
        }
    }
    dropped_health_checks(class, old, clusters, &mut problems);
    problems
}

/// Why a class cannot be deleted, if Clusters use it.
pub fn in_use(clusters: &[Value]) -> Option<String> {
    let named = clusters.iter().take(SHOWN_MAX).map(|cluster| {
        let namespace = cluster.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or_default();
        format!("{namespace}/{}", cluster_name(cluster))
    });
    let mut named = named.collect::<Vec<_>>().join(", ");
    if clusters.len() > SHOWN_MAX {
        named.push_str(&format!(", ... ({} more)", clusters.len() - SHOWN_MAX));
    }
    (!clusters.is_empty()).then(|| format!("ClusterClass cannot be deleted because it is used by Cluster(s): {named}"))
}

/// What stands in the way from one class to another: kinds and groups of what is there stay.
pub fn compatible(old: &Value, class: &Value) -> Vec<Problem> {
    let mut problems = Vec::new();
    for part in ["infrastructure", "controlPlane", "controlPlane/machineInfrastructure"] {
        let at = |class: &Value| class.pointer(&format!("/spec/{part}/templateRef")).cloned().unwrap_or_default();
        let path = format!("spec.{}.templateRef", part.replace('/', "."));
        same_kind(&at(old), &at(class), &path, &mut problems);
    }
    for (list, ..) in WORKERS {
        for (index, own) in items(class, &format!("/spec/workers/{list}")).iter().enumerate() {
            if let Some(before) = of_name(old, list, name(own)) {
                let path = format!("spec.workers.{list}[{index}].infrastructure.templateRef");
                let at = |workers: &Value| workers["infrastructure"]["templateRef"].clone();
                same_kind(&at(before), &at(own), &path, &mut problems);
            }
        }
    }
    problems
}

fn cluster_name(cluster: &Value) -> &str {
    cluster.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default()
}

fn name(workers: &Value) -> &str {
    workers["class"].as_str().unwrap_or_default()
}

fn of_name<'a>(class: &'a Value, list: &str, wanted: &str) -> Option<&'a Value> {
    items(class, &format!("/spec/workers/{list}")).iter().find(|own| name(own) == wanted)
}

fn same_kind(old: &Value, new: &Value, path: &str, problems: &mut Vec<Problem>) {
    let group = |reference: &Value| {
        let version = reference["apiVersion"].as_str().unwrap_or_default();
        version.split_once('/').map_or_else(String::new, |(group, _)| group.to_owned())
    };
    let kind = |reference: &Value| reference["kind"].as_str().unwrap_or_default().to_owned();
    for (field, what, from, to) in
        [("apiVersion", "group of apiVersion", group(old), group(new)), ("kind", "kind", kind(old), kind(new))]
    {
        if from != to {
            let detail = format!(
                "{what} cannot be changed from {from:?} to {to:?} to prevent incompatible changes in the Clusters"
            );
            problems.push(Problem::forbidden(&format!("{path}.{field}"), detail));
        }
    }
}

/// All references to templates, with where they stand.
fn references(class: &Value) -> Vec<(String, &Value)> {
    let spec = &class["spec"];
    let mut found = vec![
        ("spec.infrastructure".to_owned(), &spec["infrastructure"]["templateRef"]),
        ("spec.controlPlane".to_owned(), &spec["controlPlane"]["templateRef"]),
    ];
    let machines = &spec["controlPlane"]["machineInfrastructure"]["templateRef"];
    if !machines.is_null() {
        found.push(("spec.controlPlane.machineInfrastructure".to_owned(), machines));
    }
    for (list, ..) in WORKERS {
        for (index, own) in items(class, &format!("/spec/workers/{list}")).iter().enumerate() {
            for part in ["bootstrap", "infrastructure"] {
                found.push((format!("spec.workers.{list}[{index}].{part}"), &own[part]["templateRef"]));
            }
        }
    }
    found
}

fn templates(class: &Value, problems: &mut Vec<Problem>) {
    for (path, reference) in references(class) {
        let text = |field: &str| reference[field].as_str().unwrap_or_default();
        if text("name").is_empty() {
            problems.push(Problem::required(&format!("{path}.templateRef.name"), "template name must be defined"));
        }
        if text("kind").strip_suffix("Template").is_none_or(str::is_empty) {
            let detail = "template kind must be of form \"<name>Template\"";
            problems.push(Problem::invalid(&format!("{path}.templateRef.kind"), &reference["kind"], detail));
        }
        let version = text("apiVersion");
        let at = format!("{path}.templateRef.apiVersion");
        if version.is_empty() {
            problems.push(Problem::required(&at, "template apiVersion must be defined"));
        } else if version.split('/').count() > 2 {
            let detail = "template apiVersion must be a valid Kubernetes apiVersion";
            problems.push(Problem::invalid(&at, &reference["apiVersion"], detail));
        }
    }
}

fn unique(class: &Value, list: &str, kind: &str, problems: &mut Vec<Problem>) {
    let mut known = BTreeSet::new();
    for (index, own) in items(class, &format!("/spec/workers/{list}")).iter().enumerate() {
        if !known.insert(name(own)) {
            let detail =
                format!("{kind} class must be unique. {kind} with class {:?} is defined more than once", name(own));
            problems.push(Problem::invalid(&format!("spec.workers.{list}[{index}].class"), &own["class"], detail));
        }
    }
}

/// Whether a health check says more than whether it is enabled.
pub(super) fn is_defined(health: &Value) -> bool {
    !health["checks"].is_null() || !health["remediation"].is_null()
}

fn health_checks(class: &Value, problems: &mut Vec<Problem>) {
    let control_plane = &class["spec"]["controlPlane"];
    if is_defined(&control_plane["healthCheck"]) {
        let path = "spec.controlPlane.healthCheck";
        health_check(&control_plane["healthCheck"], path, problems);
        if control_plane["machineInfrastructure"]["templateRef"].is_null() {
            let detail = "can be only set if spec.controlPlane.machineInfrastructure is set";
            problems.push(Problem::forbidden(path, detail));
        }
    }
    for own in items(class, "/spec/workers/machineDeployments") {
        let path = format!("spec.workers.machineDeployments[{}].healthCheck", name(own));
        health_check(&own["healthCheck"], &path, problems);
    }
}

/// Taints, labels and annotations that machines are to have: what is wrong with them would be refused later, again and
/// again. `metadata`: what the path of these is called.
pub(super) fn marks(part: &Value, path: &str, metadata: &str, problems: &mut Vec<Problem>) {
    labels::taints(&part["taints"], false, &format!("{path}.taints"), problems);
    labels::metadata(&part["metadata"], &format!("{path}.{metadata}"), problems);
}

/// Bounds of a health check, wherever it is described.
pub(super) fn health_check(health: &Value, path: &str, problems: &mut Vec<Problem>) {
    const STARTUP_MIN_S: i64 = 30;
    let timeout = &health["checks"]["nodeStartupTimeoutSeconds"];
    if timeout.as_i64().is_some_and(|seconds| seconds != 0 && seconds < STARTUP_MIN_S) {
        let path = format!("{path}.checks.nodeStartupTimeoutSeconds");
        problems.push(Problem::invalid(&path, timeout, "must be at least 30s"));
    }
    let remediation = &health["remediation"];
    for (field, value) in [
        ("triggerIf.unhealthyLessThanOrEqualTo", &remediation["triggerIf"]["unhealthyLessThanOrEqualTo"]),
        ("maxInFlight", &remediation["maxInFlight"]),
    ] {
        if let Some(text) = value.as_str()
            && text.strip_suffix('%').is_none_or(|digits| digits.parse::<u32>().is_err())
        {
            let path = format!("{path}.remediation.{field}");
            problems.push(Problem::invalid(&path, value, "must be either an int or a percentage"));
        }
    }
}

/// A check that Clusters switch on without describing it stays in the class.
fn dropped_health_checks(class: &Value, old: &Value, clusters: &[Value], problems: &mut Vec<Problem>) {
    let relies = |own: &Value| own["healthCheck"]["enabled"] == true && !is_defined(&own["healthCheck"]);
    let is_dropped =
        |before: &Value, now: &Value| is_defined(&before["healthCheck"]) && !is_defined(&now["healthCheck"]);
    let mut tell = |path: String, users: Vec<&str>| {
        if !users.is_empty() {
            let detail =
                format!("healthCheck cannot be deleted because it is used by Cluster(s) {:?}", users.join(","));
            problems.push(Problem::forbidden(&path, detail));
        }
    };
    if is_dropped(&old["spec"]["controlPlane"], &class["spec"]["controlPlane"]) {
        let users = clusters.iter().filter(|cluster| relies(&cluster["spec"]["topology"]["controlPlane"]));
        tell("spec.controlPlane.healthCheck".to_owned(), users.map(cluster_name).collect());
    }
    for own in items(class, "/spec/workers/machineDeployments") {
        let before = of_name(old, "machineDeployments", name(own)).unwrap_or(&Value::Null);
        if !is_dropped(before, own) {
            continue;
        }
        let uses = |cluster: &&Value| {
            let mut workers = items(cluster, "/spec/topology/workers/machineDeployments").iter();
            workers.any(|workers| workers["class"] == own["class"] && relies(workers))
        };
        let path = format!("spec.workers.machineDeployments[{}].healthCheck", name(own));
        tell(path, clusters.iter().filter(uses).map(cluster_name).collect());
    }
}

fn naming(class: &Value, problems: &mut Vec<Problem>) {
    let spec = &class["spec"];
    let mut all = vec![
        ("spec.infrastructure".to_owned(), "InfraCluster", &spec["infrastructure"]["naming"], json!({})),
        ("spec.controlPlane".to_owned(), "ControlPlane", &spec["controlPlane"]["naming"], json!({})),
    ];
    for (list, kind, variable) in WORKERS {
        for own in items(class, &format!("/spec/workers/{list}")) {
            let data = json!({variable: {"topologyName": "topology"}});
            all.push((format!("spec.workers.{list}[{}]", name(own)), kind, &own["naming"], data));
        }
    }
    for (path, kind, naming, mut data) in all {
        let Some(text) = naming["template"].as_str().filter(|text| !text.is_empty()) else { continue };
        data["cluster"] = json!({"name": "cluster"});
        data["random"] = json!("abcde");
        let wrong = match template::render(text, &data) {
            Err(error) => Some(format!("invalid {kind} name template: {error}")),
            Ok(made) => {
                let wrong = labels::subdomain(&made);
                (!wrong.is_empty()).then(|| format!("{}; it makes {made:?}", wrong.join("; ")))
            }
        };
        if let Some(detail) = wrong {
            problems.push(Problem::invalid(&format!("{path}.naming.template"), &naming["template"], detail));
        }
    }
}

/// Versions on offer go up, and leave out no minor version on the way.
fn versions(class: &Value, problems: &mut Vec<Problem>) {
    let mut before: Option<[u64; 3]> = None;
    for (index, version) in items(class, "/spec/kubernetesVersions").iter().enumerate() {
        let path = format!("spec.kubernetesVersions[{index}]");
        let Some(found) = version.as_str().and_then(version_numbers) else {
            problems.push(Problem::invalid(&path, version, "version must be a valid semantic version"));
            continue;
        };
        if let Some(before) = before {
            let text = format!("v{}.{}.{}", before[0], before[1], before[2]);
            // The same with other build metadata may follow.
            let build = found == before && version.as_str().is_some_and(|text| text.contains('+'));
            if found <= before && !build {
                let detail = format!("version must be greater than {text}");
                problems.push(Problem::invalid(&path, version, detail));
            }
            if found[1] != before[1] && found[1] != before[1] + 1 {
                let (here, next) = (before[1], before[1] + 1);
                let detail = format!("expecting a version with minor {here} or {next}, found version {version}");
                problems.push(Problem::invalid(&path, version, detail));
            }
        }
        before = Some(found);
    }
}

#[cfg(test)]
mod tests;
