//! Machines, MachineSets and MachineDeployments.
//!
//! Source: kubernetes-sigs/cluster-api core/webhooks/admission/{machine,machineset,machinedeployment}.go.

use serde_json::{Value, json};

use super::{Problem, check_version, labels, selection};
use crate::names::{AUTOSCALER_MIN_ANNOTATION, CONTROL_PLANE_LABEL, POOL_LABEL, SKIP_PREFLIGHT_ANNOTATION};

const PREFLIGHT_CHECKS: [&str; 5] =
    ["All", "ControlPlaneIsStable", "ControlPlaneVersionSkew", "KubeadmVersionSkew", "KubernetesVersionSkew"];

pub fn machine(object: &Value, problems: &mut Vec<Problem>) {
    let spec = &object["spec"];
    let labelled = |label: &str| !object["metadata"]["labels"][label].is_null();
    // The bootstrap data of a pool's machines is the pool's.
    if !labelled(POOL_LABEL) {
        bootstrap(&spec["bootstrap"], "spec", problems);
    }
    check_version(&spec["version"], "spec.version", problems);
    labels::taints(&spec["taints"], !labelled(CONTROL_PLANE_LABEL), "spec.taints", problems);
}

/// What MachineSets and MachineDeployments have in common.
pub fn set(kind: &str, object: &Value, problems: &mut Vec<Problem>) {
    let spec = &object["spec"];
    let template = &spec["template"];
    bootstrap(&template["spec"]["bootstrap"], "spec.template.spec", problems);
    selected(kind, object, problems);
    skipped(object, problems);
    counted(object, problems);
    same_cluster(spec, problems);
    check_version(&template["spec"]["version"], "spec.template.spec.version", problems);
    labels::naming(&spec["machineNaming"], "machineSet", "spec.machineNaming", problems);
    labels::taints(&template["spec"]["taints"], true, "spec.template.spec.taints", problems);
    labels::metadata(&template["metadata"], "spec.template.metadata", problems);
}

pub fn deployment(object: &Value, problems: &mut Vec<Problem>) {
    labels::name(object, problems);
    set("MachineDeployment", object, problems);
    let update = &object["spec"]["rollout"]["strategy"]["rollingUpdate"];
    rolling(update, "spec.rollout.strategy.rollingUpdate", problems);
    let most = &object["spec"]["remediation"]["maxInFlight"];
    number(most, "spec.remediation.maxInFlight", problems);
}

pub fn pool(object: &Value, problems: &mut Vec<Problem>) {
    labels::name(object, problems);
    let spec = &object["spec"];
    let template = &spec["template"]["spec"];
    check_version(&template["version"], "spec.template.spec.version", problems);
    bootstrap(&template["bootstrap"], "spec.template.spec", problems);
    same_cluster(spec, problems);
    // Whose machines are cloned from templates is a set: a pool has one configuration for all.
    let kind = &template["bootstrap"]["configRef"]["kind"];
    if kind.as_str().is_some_and(|kind| kind.ends_with("Template")) {
        let detail = "must be a configuration, such as a KubeadmConfig: a pool has one for all its machines";
        problems.push(Problem::invalid("spec.template.spec.bootstrap.configRef.kind", kind, detail));
    }
    labels::taints(&template["taints"], true, "spec.template.spec.taints", problems);
    labels::metadata(&spec["template"]["metadata"], "spec.template.metadata", problems);
    counted(object, problems);
}

/// Some number of machines came of it.
fn counted(object: &Value, problems: &mut Vec<Problem>) {
    let bounds = &object["metadata"]["annotations"];
    if object["spec"]["replicas"].is_null() && !bounds[AUTOSCALER_MIN_ANNOTATION].is_null() {
        let detail = "must be set: the annotations of the autoscaler are no numbers";
        problems.push(Problem::required("spec.replicas", detail));
    }
}

fn same_cluster(spec: &Value, problems: &mut Vec<Problem>) {
    let cluster = &spec["clusterName"];
    if *cluster != spec["template"]["spec"]["clusterName"] {
        let detail = "spec.clusterName and spec.template.spec.clusterName must be set to the same value";
        problems.push(Problem::invalid("spec.clusterName", cluster, detail));
    }
}

fn bootstrap(bootstrap: &Value, path: &str, problems: &mut Vec<Problem>) {
    if bootstrap["configRef"].is_null() && bootstrap["dataSecretName"].is_null() {
        let detail =
            format!("expected either {path}.bootstrap.dataSecretName or {path}.bootstrap.configRef to be populated");
        problems.push(Problem::required(&format!("{path}.bootstrap"), detail));
    }
}

fn selected(kind: &str, object: &Value, problems: &mut Vec<Problem>) {
    let selector = &object["spec"]["selector"];
    let before = problems.len();
    selection::selector(selector, "spec.selector", problems);
    if problems.len() > before {
        return;
    }
    let own = &object["spec"]["template"]["metadata"]["labels"];
    if selection::matches(selector, own) {
        return;
    }
    let detail = format!("must match spec.selector {:?}", selection::text(selector));
    let path = "spec.template.metadata.labels";
    problems.push(match kind {
        "MachineSet" => Problem::invalid(path, own, detail),
        _ => Problem::forbidden(path, detail),
    });
}

fn skipped(object: &Value, problems: &mut Vec<Problem>) {
    let list = object["metadata"]["annotations"][SKIP_PREFLIGHT_ANNOTATION].as_str();
    let Some(list) = list.filter(|list| !list.is_empty()) else { return };
    let unknown: Vec<&str> = list.split(',').map(str::trim).filter(|one| !PREFLIGHT_CHECKS.contains(one)).collect();
    if !unknown.is_empty() {
        let path = format!("metadata.annotations.{SKIP_PREFLIGHT_ANNOTATION}");
        let detail = format!("skipped preflight check(s) must be among: [{}]", PREFLIGHT_CHECKS.join(" "));
        problems.push(Problem::invalid(&path, &json!(unknown), detail));
    }
}

pub(super) fn rolling(update: &Value, path: &str, problems: &mut Vec<Problem>) {
    for field in ["maxUnavailable", "maxSurge"] {
        number(&update[field], &format!("{path}.{field}"), problems);
    }
    // Published for numbers alone; with two of 0% nothing would ever roll either.
    let zero = |value: &Value| value == 0 || value == "0%";
    if zero(&update["maxSurge"]) && zero(&update["maxUnavailable"]) {
        let detail = "maxUnavailable and maxSurge cannot both be 0";
        problems.push(Problem::invalid(path, &update["maxSurge"], detail));
    }
}

/// A number or a percentage.
pub(super) fn number(value: &Value, path: &str, problems: &mut Vec<Problem>) {
    if value.as_str().is_some_and(|text| selection::percentage(text).is_none()) {
        let detail = "must be either an int or a percentage: invalid value for IntOrString: invalid type: string is not a percentage";
        problems.push(Problem::invalid(path, value, detail));
    }
}
