//! What must hold before a set makes a machine, or replaces one: workers come when the control plane stands still, and in a
//! version that can join it.
//!
//! The control plane is read by contract. Of one whose kind no provider here knows nothing is read, and nothing is held:
//! upstream does so where a control plane has no version.
//!
//! Source: kubernetes-sigs/cluster-api core/reconcilers/machineset/machineset_preflight.go,
//! docs/book/src/developer/providers/contracts/control-plane.md.

use api::{cluster::Cluster, names, version};
use semver::Version;

use super::Seen;
use crate::{external::External, owner};

const STABLE: &str = "ControlPlaneIsStable";
const KUBERNETES: &str = "KubernetesVersionSkew";
const KUBEADM: &str = "KubeadmVersionSkew";
const CONTROL_PLANE: &str = "ControlPlaneVersionSkew";
/// Minor versions that a kubelet may be behind the API server (kubernetes.io/releases/version-skew-policy).
const SKEW_MAX: u64 = 3;

/// What is seen of the control plane of a set's cluster.
#[derive(Default)]
pub enum ControlPlane {
    /// The cluster names none, or one of a kind that no provider here knows.
    #[default]
    Unknown,
    Missing,
    Found(Box<External>),
}

/// `Err` says what does not hold.
pub fn check(seen: &Seen) -> Result<(), String> {
    let Some(cluster) = &seen.cluster else {
        return Err(format!("Cluster {} does not exist", seen.set.spec.cluster_name));
    };
    let skipped = skipped(seen);
    let skips = |check: &str| skipped.split(',').map(str::trim).any(|one| one == "All" || one == check);
    if skips("All") {
        return Ok(());
    }
    let control_plane = match &seen.control_plane {
        ControlPlane::Unknown => return Ok(()),
        ControlPlane::Missing => return Err("the control plane does not exist".to_owned()),
        ControlPlane::Found(control_plane) => control_plane,
    };
    let Some(theirs) = control_plane.read::<String>("/spec/version") else { return Ok(()) };
    let version = parsed(&theirs, &control_plane.resource.kind)?;
    let mut troubles = Vec::new();
    let mut hold = |check: &str, trouble: Option<String>| {
        if let Some(trouble) = trouble.filter(|_| !skips(check)) {
            troubles.push(format!("{trouble} (\"{check}\" preflight check failed)"));
        }
    };
    hold(STABLE, unstable(cluster, control_plane, (&theirs, &version)));
    if let Some(own) = seen.set.spec.template.spec.version.as_deref() {
        let minors = (parsed(own, "MachineSet")?.minor, version.minor);
        let both = format!("MachineSet version {own} and control plane version {theirs}");
        hold(
            KUBERNETES,
            kubernetes(minors).map(|why| format!("{both} do not conform to the Kubernetes version skew policy: {why}")),
        );
        let kubeadm = joins_with_kubeadm(seen) && minors.0 != minors.1;
        hold(
            KUBEADM,
            kubeadm.then(|| format!("{both} differ by more than the patch: kubeadm joins no other minor version")),
        );
        let behind = cluster.spec.topology.is_some() && own != theirs;
        hold(
            CONTROL_PLANE,
            behind.then(|| format!("{both} are not the same yet: the topology is to bring it to the MachineSet")),
        );
    }
    if troubles.is_empty() { Ok(()) } else { Err(troubles.join("; ")) }
}

/// The checks that are not made, with commas between them.
fn skipped(seen: &Seen) -> &str {
    let of = |meta| owner::annotation_of(meta, names::SKIP_PREFLIGHT_ANNOTATION).filter(|list| !list.is_empty());
    let template = || of(&seen.bootstrap_template.as_ref()?.meta);
    of(&seen.set.metadata).or_else(template).unwrap_or_default()
}

/// Why the control plane does not stand still.
fn unstable(cluster: &Cluster, control_plane: &External, (wanted, version): (&str, &Version)) -> Option<String> {
    let it = format!("{} {}", control_plane.resource.kind, control_plane.key());
    if let Some(topology) = &cluster.spec.topology {
        let step = owner::annotation_of(&cluster.metadata, names::TOPOLOGY_UPGRADE_STEP_ANNOTATION);
        let step = step.filter(|step| !step.is_empty());
        if topology.version != wanted && step != Some(wanted) {
            return Some(format!("{it} has a pending version upgrade to {}", step.unwrap_or(&topology.version)));
        }
    }
    let running = running(control_plane);
    if running.is_empty() {
        return Some(format!("{it} is provisioning"));
    }
    let old = running.iter().find(|old| version::parse(old).is_some_and(|old| is_ahead(version, &old)))?;
    Some(format!("{it} is upgrading from {old} to {wanted}"))
}

/// The versions that machines of the control plane have; none before there is one.
fn running(control_plane: &External) -> Vec<String> {
    let listed: Vec<api::machine::VersionReplicas> = control_plane.read("/status/versions").unwrap_or_default();
    if !listed.is_empty() {
        return listed.into_iter().map(|entry| entry.version).collect();
    }
    let one = control_plane.read::<String>("/status/version").filter(|version| !version.is_empty());
    one.into_iter().collect()
}

fn kubernetes((own, theirs): (u64, u64)) -> Option<String> {
    if own > theirs {
        return Some("machines must not be newer than the control plane".to_owned());
    }
    (theirs - own > SKEW_MAX).then(|| format!("machines are more than {SKEW_MAX} minor versions older"))
}

fn joins_with_kubeadm(seen: &Seen) -> bool {
    let config = seen.set.spec.template.spec.bootstrap.config_ref.as_ref();
    config.is_some_and(|config| {
        config.kind == "KubeadmConfigTemplate" && config.api_group == "bootstrap.cluster.x-k8s.io"
    })
}

fn parsed(text: &str, of: &str) -> Result<Version, String> {
    version::parse(text).ok_or_else(|| format!("the version of the {of} cannot be read: {text:?}"))
}

/// Newer, or another build of the same of which nobody can tell.
fn is_ahead(own: &Version, other: &Version) -> bool {
    fn parts(version: &Version) -> impl Iterator<Item = &str> {
        version.build.split('.').filter(|part| !part.is_empty())
    }
    let is_word = |part: &str| part.parse::<u64>().is_err();
    let newer = own.cmp_precedence(other);
    let unlike = || parts(own).zip(parts(other)).find(|(own, other)| own != other);
    newer.then_with(|| own.build.cmp(&other.build)).is_gt()
        || newer.is_eq() && unlike().is_some_and(|(own, other)| is_word(own) && is_word(other))
}

#[cfg(test)]
mod tests {
    use api::meta::ContractRef;
    use serde_json::{Value, json};

    use super::{
        super::tests::{external, seen as of_size, set_of},
        *,
    };

    /// A set of workers with kubeadm, in v1.34.2, whose control plane is this.
    fn seen(control_plane: Value) -> Seen {
        let mut seen = of_size(1);
        let template = ContractRef {
            api_group: "bootstrap.cluster.x-k8s.io".into(),
            kind: "KubeadmConfigTemplate".into(),
            name: "t".into(),
        };
        set_of(&mut seen).spec.template.spec.bootstrap.config_ref = Some(template);
        seen.control_plane = ControlPlane::Found(external("SomeControlPlane", "cp", control_plane).into());
        seen
    }

    fn at(wanted: &str, running: &str) -> Value {
        json!({"spec": {"version": wanted}, "status": {"version": running}})
    }

    /// The checks that fail, and what is said of them.
    fn failed(seen: &Seen) -> (Vec<&'static str>, String) {
        let said = check(seen).err().unwrap_or_default();
        let all = [STABLE, KUBERNETES, KUBEADM, CONTROL_PLANE];
        (all.into_iter().filter(|check| said.contains(&format!("\"{check}\""))).collect(), said)
    }

    fn topology(seen: &mut Seen, version: &str, step: Option<&str>) {
        let mut cluster = seen.cluster.as_deref().unwrap().clone();
        cluster.spec.topology = serde_json::from_value(json!({"classRef": {"name": "c"}, "version": version})).unwrap();
        if let Some(step) = step {
            owner::annotate(&mut cluster.metadata, names::TOPOLOGY_UPGRADE_STEP_ANNOTATION, step);
        }
        seen.cluster = Some(cluster.into());
    }

    #[test]
    fn workers_wait_until_the_control_plane_has_a_machine_and_while_it_is_upgraded() {
        let stable = |control_plane: Value| failed(&seen(control_plane));
        let it = "SomeControlPlane ns/cp is";
        let (checks, said) = stable(json!({"spec": {"version": "v1.34.2"}}));
        assert_eq!((checks, said.starts_with(&format!("{it} provisioning"))), (vec![STABLE], true), "{said}");
        let (checks, said) = stable(at("v1.34.2", "v1.34.1"));
        assert!(said.starts_with(&format!("{it} upgrading from v1.34.1 to v1.34.2")), "{said}");
        assert_eq!(checks, [STABLE]);
        let mixed = json!({"spec": {"version": "v1.34.2"}, "status": {
            "version": "v1.34.2", "versions": [{"version": "v1.34.2", "replicas": 1}, {"version": "v1.34.1", "replicas": 2}],
        }});
        assert_eq!(stable(mixed).0, [STABLE], "each version counts");
        assert_eq!(stable(at("v1.34.2", "v1.34.2")).1, "");
        assert_eq!(stable(at("v1.34.2", "v1.34.3")).1, "", "nothing is upgraded to an older version");
        assert_eq!(stable(json!({"status": {}})).1, "", "one without a version says nothing");
        let mut unknown = seen(json!({}));
        unknown.control_plane = ControlPlane::Unknown;
        assert_eq!(failed(&unknown).1, "", "nor does one that nobody here can read");
    }

    #[test]
    fn workers_wait_for_a_version_that_the_topology_is_to_bring() {
        let mut seen = seen(at("v1.34.2", "v1.34.2"));
        topology(&mut seen, "v1.35.0", None);
        let (checks, said) = failed(&seen);
        assert_eq!(checks, [STABLE]);
        assert!(said.contains("pending version upgrade to v1.35.0"), "{said}");
        topology(&mut seen, "v1.36.0", Some("v1.35.0"));
        assert!(failed(&seen).1.contains("pending version upgrade to v1.35.0"));
        topology(&mut seen, "v1.36.0", Some("v1.34.2"));
        assert_eq!(failed(&seen).1, "", "a step of the way is as good as its end");
        topology(&mut seen, "v1.34.2", None);
        set_of(&mut seen).spec.template.spec.version = Some("v1.34.1".into());
        assert_eq!(failed(&seen).0, [CONTROL_PLANE]);
    }

    #[test]
    fn workers_join_a_control_plane_of_their_minor_version_with_kubeadm_and_of_three_more_without() {
        let skew = |theirs: &str| failed(&seen(at(theirs, theirs))).0;
        assert_eq!(skew("v1.34.9"), [""; 0]);
        assert_eq!(skew("v1.35.0"), [KUBEADM]);
        assert_eq!(skew("v1.37.0"), [KUBEADM]);
        assert_eq!(skew("v1.38.0"), [KUBERNETES, KUBEADM]);
        assert_eq!(skew("v1.33.0"), [KUBERNETES, KUBEADM]);
        assert_eq!(skew("v1.2.0"), [KUBERNETES, KUBEADM]);
        let mut other = seen(at("v1.37.0", "v1.37.0"));
        set_of(&mut other).spec.template.spec.bootstrap.config_ref.as_mut().unwrap().api_group = "x.example".into();
        assert_eq!(failed(&other).1, "");
        set_of(&mut other).spec.template.spec.version = None;
        assert_eq!(failed(&other).1, "");
    }

    #[test]
    fn checks_are_skipped_by_name_on_the_set_or_on_its_bootstrap_template() {
        let mut seen = seen(at("v1.38.0", "v1.37.0"));
        let skip = |seen: &mut Seen, list: &str| {
            owner::annotate(&mut set_of(seen).metadata, names::SKIP_PREFLIGHT_ANNOTATION, list);
            failed(seen).0
        };
        assert_eq!(skip(&mut seen, ""), [STABLE, KUBERNETES, KUBEADM]);
        assert_eq!(skip(&mut seen, "ControlPlaneIsStable, KubernetesVersionSkew"), [KUBEADM]);
        assert_eq!(skip(&mut seen, "All"), [""; 0]);
        seen.control_plane = ControlPlane::Missing;
        assert_eq!(failed(&seen).1, "");
        skip(&mut seen, "");
        assert!(!failed(&seen).1.is_empty());
        let template = seen.bootstrap_template.as_mut().unwrap();
        owner::annotate(&mut template.meta, names::SKIP_PREFLIGHT_ANNOTATION, "All");
        assert_eq!(failed(&seen).1, "");
    }

    #[test]
    fn versions_are_in_order_and_another_build_is_ahead_where_nobody_can_tell() {
        let ahead = |own: &str, other: &str| is_ahead(&version::parse(own).unwrap(), &version::parse(other).unwrap());
        let in_order =
            ["v1.9.0", "v1.10.0-alpha.2", "1.10.0-alpha.10", "v1.10.0-beta", "v1.10", "v1.10.0+1", "v1.10.0+2"];
        for pair in in_order.windows(2) {
            assert!(ahead(pair[1], pair[0]) && !ahead(pair[0], pair[1]), "{pair:?}");
        }
        assert!(ahead("v1.10.0+a", "v1.10.0+b") && ahead("v1.10.0+b", "v1.10.0+a"));
        assert!(!ahead("v1.10.0", "1.10"));
    }
}
