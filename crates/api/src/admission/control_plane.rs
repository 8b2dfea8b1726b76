//! KubeadmControlPlanes and their templates.
//!
//! Source: kubernetes-sigs/cluster-api controlplane/kubeadm/webhooks/admission.

use serde_json::{Value, json};

use super::{Problem, bootstrap, check_version, immutable, labels, numbers};

/// Days that an own authority is good for if nothing is said.
const AUTHORITY_DAYS: i64 = 3650;
const SKIP_COREDNS_ANNOTATION: &str = "controlplane.cluster.x-k8s.io/skip-coredns";
/// What may change in a KubeadmControlPlane's spec: a path and, after a `*`, everything below it.
const MUTABLE: [&str; 57] = [
    "kubeadmConfigSpec.clusterConfiguration.etcd",
    "kubeadmConfigSpec.clusterConfiguration.etcd.*",
    "kubeadmConfigSpec.clusterConfiguration.dns",
    "kubeadmConfigSpec.clusterConfiguration.dns.*",
    "kubeadmConfigSpec.clusterConfiguration.imageRepository",
    "kubeadmConfigSpec.clusterConfiguration.featureGates",
    "kubeadmConfigSpec.clusterConfiguration.featureGates.*",
    "kubeadmConfigSpec.clusterConfiguration.apiServer",
    "kubeadmConfigSpec.clusterConfiguration.apiServer.*",
    "kubeadmConfigSpec.clusterConfiguration.controllerManager",
    "kubeadmConfigSpec.clusterConfiguration.controllerManager.*",
    "kubeadmConfigSpec.clusterConfiguration.scheduler",
    "kubeadmConfigSpec.clusterConfiguration.scheduler.*",
    "kubeadmConfigSpec.clusterConfiguration.certificateValidityPeriodDays",
    "kubeadmConfigSpec.clusterConfiguration.encryptionAlgorithm",
    "kubeadmConfigSpec.initConfiguration.nodeRegistration",
    "kubeadmConfigSpec.initConfiguration.nodeRegistration.*",
    "kubeadmConfigSpec.initConfiguration.patches.directory",
    "kubeadmConfigSpec.initConfiguration.patches",
    "kubeadmConfigSpec.initConfiguration.skipPhases",
    "kubeadmConfigSpec.initConfiguration.bootstrapTokens",
    "kubeadmConfigSpec.initConfiguration.localAPIEndpoint",
    "kubeadmConfigSpec.initConfiguration.localAPIEndpoint.*",
    "kubeadmConfigSpec.initConfiguration.timeouts",
    "kubeadmConfigSpec.initConfiguration.timeouts.*",
    "kubeadmConfigSpec.joinConfiguration.nodeRegistration",
    "kubeadmConfigSpec.joinConfiguration.nodeRegistration.*",
    "kubeadmConfigSpec.joinConfiguration.patches.directory",
    "kubeadmConfigSpec.joinConfiguration.patches",
    "kubeadmConfigSpec.joinConfiguration.skipPhases",
    "kubeadmConfigSpec.joinConfiguration.caCertPath",
    "kubeadmConfigSpec.joinConfiguration.controlPlane",
    "kubeadmConfigSpec.joinConfiguration.controlPlane.*",
    "kubeadmConfigSpec.joinConfiguration.discovery",
    "kubeadmConfigSpec.joinConfiguration.discovery.*",
    "kubeadmConfigSpec.joinConfiguration.timeouts",
    "kubeadmConfigSpec.joinConfiguration.timeouts.*",
    "kubeadmConfigSpec.bootCommands",
    "kubeadmConfigSpec.preKubeadmCommands",
    "kubeadmConfigSpec.postKubeadmCommands",
    "kubeadmConfigSpec.files",
    "kubeadmConfigSpec.verbosity",
    "kubeadmConfigSpec.users",
    "kubeadmConfigSpec.ntp",
    "kubeadmConfigSpec.ntp.*",
    "kubeadmConfigSpec.ignition",
    "kubeadmConfigSpec.ignition.*",
    "kubeadmConfigSpec.diskSetup",
    "kubeadmConfigSpec.diskSetup.*",
    "kubeadmConfigSpec.format",
    "kubeadmConfigSpec.mounts",
    "machineTemplate.metadata",
    "machineTemplate.metadata.*",
    "machineTemplate.spec",
    "machineTemplate.spec.*",
    "replicas",
    "version",
];
/// Those of which all may change, below the spec itself.
const MUTABLE_PARTS: [&str; 3] = ["remediation", "machineNaming", "rollout"];

pub fn control_plane(object: &Value, old: Option<&Value>, problems: &mut Vec<Problem>) {
    let spec = &object["spec"];
    let template = &spec["machineTemplate"];
    replicas(spec, problems);
    for field in ["apiGroup", "kind", "name"] {
        let value = &template["spec"]["infrastructureRef"][field];
        if value.as_str().is_none_or(str::is_empty) {
            let path = format!("spec.machineTemplate.infrastructure.{field}");
            problems.push(Problem::invalid(&path, value, "cannot be empty"));
        }
    }
    labels::taints(&template["spec"]["taints"], false, "spec.machineTemplate.spec.taints", problems);
    labels::metadata(&template["metadata"], "spec.machineTemplate.metadata", problems);
    check_version(&spec["version"], "spec.version", problems);
    rollout(spec, spec["replicas"].as_i64(), "spec", problems);
    labels::naming(&spec["machineNaming"], "kubeadmControlPlane", "spec.machineNaming", problems);
    cluster_configuration(spec, old.map(|old| &old["spec"]), "spec", problems);
    bootstrap::check(&spec["kubeadmConfigSpec"], true, "spec.kubeadmConfigSpec", problems);
    let Some(old) = old else { return };
    let mut changed = Vec::new();
    changes("", &old["spec"], spec, &mut changed);
    for path in changed.iter().filter(|path| !is_mutable(path)) {
        problems.push(Problem::forbidden(&format!("spec.{path}"), "cannot be modified"));
    }
    if object["metadata"]["annotations"][SKIP_COREDNS_ANNOTATION].is_null() {
        coredns(&old["spec"], spec, problems);
    }
    version(&old["spec"]["version"], &spec["version"], problems);
}

pub fn template(object: &Value, old: Option<&Value>, problems: &mut Vec<Problem>) {
    let template = &object["spec"]["template"];
    let spec = &template["spec"];
    let path = "spec.template.spec";
    if let Some(old) = old {
        if let Some(at) = immutable::first_difference(path, &old["spec"]["template"]["spec"], spec) {
            let detail = format!(
                "KubeadmControlPlaneTemplate spec.template.spec field is immutable. Please create new resource instead. Diff: {at}"
            );
            problems.push(Problem::invalid(path, &Value::from(at), detail));
        }
        return;
    }
    rollout(spec, None, path, problems);
    labels::naming(&spec["machineNaming"], "kubeadmControlPlane", &format!("{path}.machineNaming"), problems);
    let machines = &spec["machineTemplate"];
    labels::taints(&machines["spec"]["taints"], false, &format!("{path}.machineTemplate.spec.taints"), problems);
    labels::metadata(&machines["metadata"], &format!("{path}.machineTemplate.metadata"), problems);
    cluster_configuration(spec, None, path, problems);
    bootstrap::check(&spec["kubeadmConfigSpec"], true, &format!("{path}.kubeadmConfigSpec"), problems);
    labels::metadata(&template["metadata"], "spec.template.metadata", problems);
}

/// What a KubeadmControlPlane cannot be scaled to; `object` has the replicas already.
pub fn scale(object: &Value) -> Option<&'static str> {
    let wanted = object["spec"]["replicas"].as_i64().unwrap_or(1);
    if wanted <= 0 {
        return Some("replicas should be greater than zero");
    }
    (wanted % 2 == 0 && !is_external(&object["spec"]))
        .then_some("replicas cannot be an even number when etcd is stacked")
}

fn is_external(spec: &Value) -> bool {
    !spec["kubeadmConfigSpec"]["clusterConfiguration"]["etcd"]["external"].is_null()
}

fn replicas(spec: &Value, problems: &mut Vec<Problem>) {
    let Some(wanted) = spec["replicas"].as_i64() else {
        return problems.push(Problem::required("spec.replicas", "is required"));
    };
    if wanted <= 0 {
        problems.push(Problem::forbidden("spec.replicas", "cannot be less than or equal to 0"));
    }
    if wanted % 2 == 0 && !is_external(spec) {
        problems.push(Problem::forbidden("spec.replicas", "cannot be an even number when etcd is stacked"));
    }
}

fn rollout(spec: &Value, replicas: Option<i64>, path: &str, problems: &mut Vec<Problem>) {
    let strategy = &spec["rollout"]["strategy"];
    if strategy.is_null() {
        return;
    }
    if strategy["type"] != "RollingUpdate" {
        let detail = "only RollingUpdate is supported";
        problems.push(Problem::required(&format!("{path}.rollout.strategy.type"), detail));
    }
    let surge = &strategy["rollingUpdate"]["maxSurge"];
    let at = format!("{path}.rollout.strategy.rollingUpdate");
    match surge.as_i64().or_else(|| surge.as_str()?.parse().ok()) {
        Some(0) if replicas.is_some_and(|replicas| replicas < 3) => problems.push(Problem::required(
            &at,
            "when KubeadmControlPlane is configured to scale-in, replica count needs to be at least 3",
        )),
        Some(0 | 1) => {}
        _ if surge.is_null() => {}
        _ => problems.push(Problem::required(&format!("{at}.maxSurge"), "value must be 1 or 0")),
    }
    validity(spec, path, problems);
}

/// A certificate does not outlive its authority, nor is it replaced as soon as it is made.
fn validity(spec: &Value, path: &str, problems: &mut Vec<Problem>) {
    let configuration = &spec["kubeadmConfigSpec"]["clusterConfiguration"];
    let days = &configuration["certificateValidityPeriodDays"];
    let Some(own) = days.as_i64().filter(|own| *own != 0) else { return };
    let at = format!("{path}.kubeadmConfigSpec.clusterConfiguration.certificateValidityPeriodDays");
    let detail = match configuration["caCertificateValidityPeriodDays"].as_i64().filter(|days| *days != 0) {
        Some(most) if own > most => {
            format!("must be less than or equal to caCertificateValidityPeriodDays ({most})")
        }
        None if own > AUTHORITY_DAYS => {
            format!(
                "must be less than or equal to the default value of caCertificateValidityPeriodDays ({AUTHORITY_DAYS})"
            )
        }
        _ => String::new(),
    };
    if !detail.is_empty() {
        problems.push(Problem::invalid(&at, days, detail));
    }
    let before = &spec["rollout"]["before"]["certificatesExpiryDays"];
    if before.as_i64().is_some_and(|before| before >= own) {
        let detail = format!("must be less than certificateValidityPeriodDays ({own})");
        problems.push(Problem::invalid(&format!("{path}.rollout.before.certificatesExpiryDays"), before, detail));
    }
}

fn cluster_configuration(spec: &Value, old: Option<&Value>, path: &str, problems: &mut Vec<Problem>) {
    let path = format!("{path}.kubeadmConfigSpec.clusterConfiguration");
    let configuration = &spec["kubeadmConfigSpec"]["clusterConfiguration"];
    let (dns, etcd) = (&configuration["dns"]["imageTag"], &configuration["etcd"]);
    let is_tag = |tag: &str| tag.chars().all(|one| one.is_ascii_alphanumeric() || "-_.".contains(one));
    for (field, tag) in [("dns.imageTag", dns), ("etcd.local.imageTag", &etcd["local"]["imageTag"])] {
        if let Some(text) = tag.as_str().filter(|text| !is_tag(text)) {
            problems.push(Problem::forbidden(&format!("{path}.{field}"), format!("tag {text} is invalid")));
        }
    }
    if let Some(text) = dns.as_str().filter(|text| !text.is_empty() && tag_numbers(text).is_none()) {
        let detail = format!("failed to parse CoreDNS version: {text:?} has no version");
        problems.push(Problem::invalid("dns.imageTag", dns, detail));
    }
    if !etcd["local"].is_null() && !etcd["external"].is_null() {
        let detail = "cannot have both external and local etcd";
        problems.push(Problem::forbidden(&format!("{path}.etcd.local"), detail));
    }
    if old.is_some_and(|old| is_external(old) != is_external(spec)) {
        let detail = "cannot change between external and local etcd";
        problems.push(Problem::forbidden(&format!("{path}.etcd.external"), detail));
    }
}

/// The numbers of an image's tag; what it has none of is 0.
fn tag_numbers(tag: &str) -> Option<[u64; 3]> {
    let core = tag.strip_prefix('v').unwrap_or(tag).split(['_', '-', '+']).next()?;
    let mut parts = core.split('.').map(|part| part.parse::<u64>().ok());
    let found = [parts.next()??, parts.next().unwrap_or(Some(0))?, parts.next().unwrap_or(Some(0))?];
    parts.next().is_none().then_some(found)
}

/// CoreDNS goes up only: its Corefile is carried along, and never back.
fn coredns(old: &Value, spec: &Value, problems: &mut Vec<Problem>) {
    const POINTER: &str = "/kubeadmConfigSpec/clusterConfiguration/dns/imageTag";
    let tag =
        |spec: &Value| spec.pointer(POINTER).and_then(Value::as_str).filter(|tag| !tag.is_empty()).map(str::to_owned);
    let (Some(from), Some(to)) = (tag(old), tag(spec)) else { return };
    let path = "spec.kubeadmConfigSpec.clusterConfiguration.dns.imageTag";
    let Some(least) = tag_numbers(&from) else {
        let detail = format!("failed to parse current CoreDNS version: {from:?} has no version");
        return problems.push(Problem::invalid(path, &json!(from), detail));
    };
    let Some(wanted) = tag_numbers(&to) else {
        let detail = format!("failed to parse target CoreDNS version: {to:?} has no version");
        return problems.push(Problem::invalid(path, &json!(to), detail));
    };
    if wanted < least {
        let text = |[a, b, c]: [u64; 3]| format!("{a}.{b}.{c}");
        let (to, from) = (text(wanted), text(least));
        let detail = format!("cannot migrate CoreDNS up to '{to}' from '{from}': it goes up only");
        problems.push(Problem::forbidden(path, detail));
    }
}

/// One minor version at a time, and none back: the published provider lets one go back, and the etcd members of a newer
/// version with it.
fn version(old: &Value, new: &Value, problems: &mut Vec<Problem>) {
    let read = |value: &Value| value.as_str().and_then(numbers);
    let (Some(from), Some(to)) = (read(old), read(new)) else { return };
    if to < from || to[0] != from[0] || to[1] > from[1] + 1 {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let detail = format!("cannot update Kubernetes version from {} to {}", text(old), text(new));
        problems.push(Problem::forbidden("spec.version", detail));
    }
}

/// The paths of what a merge patch from the old to the new would have.
fn changes(path: &str, old: &Value, new: &Value, out: &mut Vec<String>) {
    let empty = serde_json::Map::new();
    let Value::Object(new) = new else {
        if old != new {
            out.push(path.to_owned());
        }
        return;
    };
    let old = old.as_object().unwrap_or(&empty);
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    out.extend(old.keys().filter(|name| !new.contains_key(*name)).map(|name| below(name)));
    for (name, value) in new {
        let before = old.get(name).unwrap_or(&Value::Null);
        if before != value {
            changes(&below(name), before, value, out);
        }
    }
}

fn is_mutable(path: &str) -> bool {
    let first = path.split('.').next().unwrap_or_default();
    MUTABLE_PARTS.contains(&first)
        || MUTABLE.iter().any(|allowed| match allowed.strip_suffix(".*") {
            Some(above) => path.strip_prefix(above).is_some_and(|rest| rest.starts_with('.')),
            None => path == *allowed,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coredns_goes_up_only() {
        let of = |tag: &str| json!({"kubeadmConfigSpec": {"clusterConfiguration": {"dns": {"imageTag": tag}}}});
        for (from, to, good) in [
            ("v1.12.1", "v1.13.0", true),
            ("v1.12.1", "1.12.1_build.2", true),
            ("v1.12.1", "v1.11.3", false),
            ("v1.12.1", "latest", false),
            ("latest", "v1.11.3", false),
        ] {
            let mut problems = Vec::new();
            coredns(&of(from), &of(to), &mut problems);
            assert_eq!(problems.is_empty(), good, "{from} to {to}");
        }
    }

    #[test]
    fn a_scale_keeps_etcd_able_to_vote() {
        let of = |replicas: i64, etcd: Value| {
            scale(
                &json!({"spec": {"replicas": replicas, "kubeadmConfigSpec": {"clusterConfiguration": {"etcd": etcd}}}}),
            )
        };
        let external = json!({"external": {"endpoints": ["https://e"]}});
        assert_eq!(of(3, Value::Null), None);
        assert_eq!(of(2, external), None);
        assert_eq!(of(2, Value::Null), Some("replicas cannot be an even number when etcd is stacked"));
        assert_eq!(of(0, Value::Null), Some("replicas should be greater than zero"));
    }

    #[test]
    fn what_changes_is_told_by_its_path() {
        let mut out = Vec::new();
        let old = json!({"a": {"b": 1, "c": [1]}, "d": "x", "e": {"f": 1}});
        let new = json!({"a": {"b": 1, "c": [2]}, "e": {"f": 1}, "g": {"h": {"i": 1}, "j": {}}});
        changes("", &old, &new, &mut out);
        assert_eq!(out, ["d", "a.c", "g.h.i"]);
    }
}
