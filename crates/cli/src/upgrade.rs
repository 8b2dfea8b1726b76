//! `skep upgrade plan`: which versions a cluster goes through, what is replaced, in which order, and what stands in the way.
//!
//! The rules are those of Kubernetes' version skew policy and of Cluster API: a control plane goes up one minor version at a
//! time and before its workers, which may be three minor versions older and never newer. Nothing is written.

use std::fmt::Write;

use anyhow::{Context, Result};
use api::{
    cluster::Cluster,
    cluster_class::ClusterClass,
    condition,
    control_plane::KubeadmControlPlane,
    machine::{Machine, MachineDeployment, RolloutStrategyType},
    machine_pool::MachinePool,
    names::{CLUSTER_LABEL, CONTROL_PLANE_LABEL, PAUSED_ANNOTATION},
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{Api, api::ListParams};

use crate::{
    DONE, FAILED, NOT_FOUND, Target,
    output::{self, Colour},
};

/// Minor versions that a kubelet may be older than its API server.
const SKEW_MAX: u64 = 3;
/// Steps of a plan; more are an error.
const STEPS_MAX: usize = 20;

#[derive(clap::Args)]
pub struct Upgrade {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Show the versions and the order of an upgrade, and what stands in its way
    Plan(Arguments),
}

#[derive(clap::Args)]
struct Arguments {
    /// Name of the cluster; all of the namespace if none is given
    cluster: Option<String>,
    /// The version to go to; the next minor version if none is given
    #[arg(long, value_name = "VERSION", value_parser = parse)]
    to: Option<Version>,
    #[command(flatten)]
    target: Target,
}

/// A version; without a patch number where the user has to choose one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Version {
    major: u64,
    minor: u64,
    patch: Option<u64>,
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.patch {
            Some(patch) => write!(f, "v{}.{}.{patch}", self.major, self.minor),
            None => write!(f, "v{}.{}.x", self.major, self.minor),
        }
    }
}

fn parse(text: &str) -> Result<Version, String> {
    let wrong = || format!("{text} is no version: write it as v1.35.1");
    let plain = text.trim_start_matches('v');
    let plain = plain.split(['-', '+']).next().unwrap_or_default();
    let mut numbers = plain.split('.').map(str::parse::<u64>);
    match (numbers.next(), numbers.next(), numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor)), Some(Ok(patch)), None) => Ok(Version { major, minor, patch: Some(patch) }),
        _ => Err(wrong()),
    }
}

/// A cluster as it is.
struct Seen {
    cluster: Cluster,
    control_plane: Option<KubeadmControlPlane>,
    deployments: Vec<MachineDeployment>,
    pools: Vec<MachinePool>,
    machines: Vec<Machine>,
    /// What its class offers; empty if that is not said.
    offered: Vec<Version>,
}

#[derive(Debug, Default, PartialEq)]
struct Plan {
    from: Option<Version>,
    steps: Vec<Version>,
    obstacles: Vec<String>,
}

pub async fn run(upgrade: Upgrade) -> Result<u8> {
    let What::Plan(arguments) = upgrade.what;
    let client = arguments.target.client().await?;
    let namespace = &arguments.target.namespace;
    let clusters = Api::<Cluster>::namespaced(client.clone(), namespace).list(&ListParams::default()).await;
    let mut clusters = clusters.with_context(|| format!("list the clusters of {namespace}"))?.items;
    clusters.retain(|cluster| {
        arguments.cluster.as_ref().is_none_or(|wanted| Some(wanted) == cluster.metadata.name.as_ref())
    });
    if clusters.is_empty() {
        let which = arguments.cluster.as_ref().map_or("no cluster".to_owned(), |name| format!("no cluster {name}"));
        output::progress(&format!("there is {which} in namespace {namespace}"));
        return Ok(NOT_FOUND);
    }
    let mut code = DONE;
    for cluster in clusters {
        let seen = look(&client, namespace, cluster).await?;
        let plan = plan(&seen, arguments.to);
        if !plan.obstacles.is_empty() {
            code = FAILED;
        }
        output::line(&told(&seen, &plan));
    }
    Ok(code)
}

async fn look(client: &kube::Client, namespace: &str, cluster: Cluster) -> Result<Seen> {
    let name = cluster.metadata.name.clone().unwrap_or_default();
    let own = ListParams::default().labels(&format!("{CLUSTER_LABEL}={name}"));
    let told = |what: &str| format!("list the {what} of cluster {name}");
    let planes = Api::<KubeadmControlPlane>::namespaced(client.clone(), namespace).list(&own).await;
    let deployments = Api::<MachineDeployment>::namespaced(client.clone(), namespace).list(&own).await;
    let pools = Api::<MachinePool>::namespaced(client.clone(), namespace).list(&own).await;
    let machines = Api::<Machine>::namespaced(client.clone(), namespace).list(&own).await;
    let class = cluster.spec.topology.as_ref().map(|topology| {
        let place = topology.class_ref.namespace.clone().unwrap_or_else(|| namespace.to_owned());
        (place, topology.class_ref.name.clone())
    });
    let mut offered = Vec::new();
    if let Some((place, class)) = class {
        let found = Api::<ClusterClass>::namespaced(client.clone(), &place).get_opt(&class).await;
        let found = found.with_context(|| format!("read ClusterClass {place}/{class}"))?;
        let versions = serde_json::to_value(found)?;
        let versions = versions.pointer("/spec/kubernetesVersions").and_then(|list| list.as_array()).cloned();
        offered = versions.unwrap_or_default().iter().filter_map(|one| parse(one.as_str()?).ok()).collect();
    }
    Ok(Seen {
        control_plane: planes.with_context(|| told("control planes"))?.items.into_iter().next(),
        deployments: deployments.with_context(|| told("MachineDeployments"))?.items,
        pools: pools.with_context(|| told("MachinePools"))?.items,
        machines: machines.with_context(|| told("machines"))?.items,
        offered,
        cluster,
    })
}

fn plan(seen: &Seen, to: Option<Version>) -> Plan {
    let mut plan = Plan::default();
    let Some(control_plane) = &seen.control_plane else {
        plan.obstacles.push("it has no KubeadmControlPlane: its control plane is upgraded by whoever made it".into());
        return plan;
    };
    let Ok(from) = parse(&control_plane.spec.version) else {
        plan.obstacles.push(format!("its version {} cannot be read", control_plane.spec.version));
        return plan;
    };
    plan.from = Some(from);
    let newer = seen.offered.iter().copied().filter(|offered| *offered > from);
    let next = newer.min().unwrap_or(Version { minor: from.minor + 1, patch: None, ..from });
    match steps(from, to.unwrap_or(next), &seen.offered) {
        Ok(steps) => plan.steps = steps,
        Err(why) => plan.obstacles.push(why),
    }
    obstacles(seen, control_plane, &plan.steps, &mut plan.obstacles);
    plan
}

/// The versions on the way, the last one among them.
fn steps(from: Version, to: Version, offered: &[Version]) -> Result<Vec<Version>, String> {
    if to.major != from.major {
        return Err(format!("{from} cannot become {to}: another major version"));
    }
    if to < from {
        return Err(format!("{from} cannot become {to}: versions only go up"));
    }
    if !offered.is_empty() && !offered.contains(&to) && to != from {
        let all: Vec<String> = offered.iter().map(ToString::to_string).collect();
        return Err(format!("{to} is not offered by the ClusterClass ({})", all.join(", ")));
    }
    if to.minor.saturating_sub(from.minor) > STEPS_MAX as u64 {
        return Err(format!("{to} is more than {STEPS_MAX} minor versions away"));
    }
    let mut steps = Vec::new();
    for minor in from.minor + 1..to.minor {
        let best = offered.iter().copied().filter(|one| (one.major, one.minor) == (from.major, minor)).max();
        if best.is_none() && !offered.is_empty() {
            return Err(format!("the ClusterClass offers no v{}.{minor}, which is on the way to {to}", from.major));
        }
        steps.push(best.unwrap_or(Version { major: from.major, minor, patch: None }));
    }
    if to != from {
        steps.push(to);
    }
    Ok(steps)
}

fn is_paused(annotations: Option<&std::collections::BTreeMap<String, String>>) -> bool {
    annotations.is_some_and(|all| all.contains_key(PAUSED_ANNOTATION))
}

fn obstacles(seen: &Seen, control_plane: &KubeadmControlPlane, steps: &[Version], found: &mut Vec<String>) {
    if seen.cluster.spec.paused == Some(true) || is_paused(seen.cluster.metadata.annotations.as_ref()) {
        found.push("the cluster is paused".into());
    }
    if is_paused(control_plane.metadata.annotations.as_ref()) {
        found.push("the control plane is paused".into());
    }
    for machine in &seen.machines {
        let name = machine.metadata.name.as_deref().unwrap_or_default();
        let plane = machine.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(CONTROL_PLANE_LABEL));
        if machine.metadata.deletion_timestamp.is_some() {
            found.push(format!("machine {name} is being deleted"));
            continue;
        }
        let conditions = machine.status.as_ref().map_or(&[][..], |status| &status.conditions);
        if plane && !condition::is_true(conditions, "Ready") {
            let why = condition::get(conditions, "Ready").map_or("", |ready| ready.message.as_str());
            let why = why.lines().next().unwrap_or_default();
            found.push(format!("control plane machine {name} is not ready: {why}"));
        }
    }
    for deployment in &seen.deployments {
        let name = deployment.metadata.name.as_deref().unwrap_or_default();
        let spec = &deployment.spec;
        if spec.paused == Some(true) || is_paused(deployment.metadata.annotations.as_ref()) {
            found.push(format!("MachineDeployment {name} is paused: its machines stay as they are"));
        }
        if strategy(deployment) == RolloutStrategyType::OnDelete {
            found.push(format!("MachineDeployment {name} replaces machines only when somebody deletes them"));
        }
        let own = spec.template.spec.version.as_deref().and_then(|text| parse(text).ok());
        if let (Some(own), Some(first)) = (own, steps.first())
            && first.minor.saturating_sub(own.minor) > SKEW_MAX
        {
            found.push(format!("MachineDeployment {name} is {own}: too old beside {first}, upgrade it first"));
        }
    }
}

fn strategy(deployment: &MachineDeployment) -> RolloutStrategyType {
    let rollout = deployment.spec.rollout.as_ref();
    rollout.and_then(|rollout| rollout.strategy.as_ref()).map(|strategy| strategy.type_).unwrap_or_default()
}

fn limit(value: Option<&IntOrString>, default: &str) -> String {
    match value {
        Some(IntOrString::Int(count)) => count.to_string(),
        Some(IntOrString::String(text)) => text.clone(),
        None => default.to_owned(),
    }
}

/// The plan as a person reads it.
fn told(seen: &Seen, plan: &Plan) -> String {
    let mut out = String::new();
    let name = seen.cluster.metadata.name.as_deref().unwrap_or_default();
    let namespace = seen.cluster.metadata.namespace.as_deref().unwrap_or_default();
    let from = plan.from.map_or_else(|| "of an unknown version".to_owned(), |from| from.to_string());
    let _ = writeln!(out, "Cluster {namespace}/{name} is {from}");
    if let (Some(control_plane), [_, ..]) = (&seen.control_plane, &plan.steps[..]) {
        for (index, step) in plan.steps.iter().enumerate() {
            let _ = writeln!(out, "  step {} of {}: {step}", index + 1, plan.steps.len());
            order(seen, control_plane, *step, &mut out);
        }
        let how = match (&seen.cluster.spec.topology, plan.steps.first()) {
            (Some(_), Some(first)) => {
                let patch = format!("{{\"spec\":{{\"topology\":{{\"version\":\"{first}\"}}}}}}");
                format!("kubectl -n {namespace} patch cluster {name} --type merge -p '{patch}'")
            }
            _ => format!("set the version of {} first, and of the others when it is done", of(control_plane)),
        };
        let _ = writeln!(out, "  begin with: {how}");
    } else if plan.obstacles.is_empty() {
        let _ = writeln!(out, "  it is there already");
    }
    for obstacle in &plan.obstacles {
        let _ = writeln!(out, "  {}", output::coloured(&format!("! {obstacle}"), Colour::Red));
    }
    out.truncate(out.trim_end().len());
    out
}

fn of(control_plane: &KubeadmControlPlane) -> String {
    format!("KubeadmControlPlane {}", control_plane.metadata.name.as_deref().unwrap_or_default())
}

fn machines(count: i32) -> String {
    if count == 1 { "1 machine".to_owned() } else { format!("{count} machines") }
}

/// What makes the pool's servers.
fn name_of(pool: &MachinePool) -> &str {
    &pool.spec.template.spec.infrastructure_ref.name
}

fn order(seen: &Seen, control_plane: &KubeadmControlPlane, step: Version, out: &mut String) {
    let replicas = control_plane.spec.replicas.unwrap_or(1);
    let rolling = control_plane.spec.rollout.as_ref().and_then(|rollout| rollout.strategy.as_ref());
    let surge = rolling.and_then(|strategy| strategy.rolling_update.as_ref()?.max_surge.as_ref());
    let how = match limit(surge, "1").as_str() {
        "0" => "one at a time, the old one goes first",
        _ => "one at a time, the new one comes first",
    };
    let _ = writeln!(out, "    1  {}: {}, {how}", of(control_plane), machines(replicas));
    let _ = writeln!(out, "    2  kube-proxy, and CoreDNS if its version is set");
    let mut index = 3;
    for deployment in &seen.deployments {
        let spec = &deployment.spec;
        if spec.template.spec.version.as_deref().and_then(|own| parse(own).ok()).is_some_and(|own| own >= step) {
            continue;
        }
        let update = spec.rollout.as_ref().and_then(|rollout| rollout.strategy.as_ref()?.rolling_update.as_ref());
        let surge = limit(update.and_then(|update| update.max_surge.as_ref()), "1");
        let missing = limit(update.and_then(|update| update.max_unavailable.as_ref()), "0");
        let _ = writeln!(
            out,
            "    {index}  MachineDeployment {}: {}, up to {surge} more and {missing} missing meanwhile",
            deployment.metadata.name.as_deref().unwrap_or_default(),
            machines(spec.replicas.unwrap_or(1)),
        );
        index += 1;
    }
    for pool in &seen.pools {
        let spec = &pool.spec;
        if spec.template.spec.version.as_deref().and_then(|own| parse(own).ok()).is_some_and(|own| own >= step) {
            continue;
        }
        let (name, count) = (pool.metadata.name.as_deref().unwrap_or_default(), spec.replicas.unwrap_or(1));
        let how = format!("as {} {} says", spec.template.spec.infrastructure_ref.kind, name_of(pool));
        let _ = writeln!(out, "    {index}  MachinePool {name}: {}, {how}", machines(count));
        index += 1;
    }
}

#[cfg(test)]
mod tests {
    use api::machine::{MachineSpec, Rollout, RolloutStrategy};

    use super::*;

    fn version(text: &str) -> Version {
        parse(text).unwrap()
    }

    fn way(from: &str, to: &str, offered: &[&str]) -> Result<String, String> {
        let offered: Vec<Version> = offered.iter().map(|one| version(one)).collect();
        let steps = steps(version(from), version(to), &offered)?;
        Ok(steps.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn versions_are_read_as_kubernetes_writes_them() {
        assert_eq!(version("v1.35.1").to_string(), "v1.35.1");
        assert_eq!(version("1.35.1-rc.0+build"), version("v1.35.1"));
        for wrong in ["1.35", "latest", "v1.35.1.2", ""] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn minor_versions_are_taken_one_by_one() {
        assert_eq!(way("v1.34.2", "v1.34.5", &[]), Ok("v1.34.5".into()));
        assert_eq!(way("v1.34.2", "v1.36.1", &[]), Ok("v1.35.x v1.36.1".into()));
        assert_eq!(way("v1.34.2", "v1.34.2", &[]), Ok(String::new()));
        let offered = ["v1.34.2", "v1.35.0", "v1.35.4", "v1.36.1"];
        assert_eq!(way("v1.34.2", "v1.36.1", &offered), Ok("v1.35.4 v1.36.1".into()));
        assert!(way("v1.34.2", "v1.36.2", &offered).unwrap_err().contains("not offered"));
        assert!(way("v1.34.2", "v1.36.1", &["v1.36.1"]).unwrap_err().contains("offers no v1.35"));
        assert!(way("v1.34.2", "v1.33.9", &[]).unwrap_err().contains("only go up"));
        assert!(way("v1.34.2", "v2.0.0", &[]).is_err());
        assert_eq!(way("v1.10.0", "v1.30.0", &[]).map(|way| way.split(' ').count()), Ok(STEPS_MAX));
        assert!(way("v1.10.0", "v1.31.0", &[]).is_err());
    }

    #[test]
    fn what_stands_in_the_way_is_told_and_the_order_has_the_control_plane_first() {
        let mut plane = KubeadmControlPlane::new("cp", Default::default());
        (plane.spec.version, plane.spec.replicas) = ("v1.34.2".into(), Some(3));
        let mut deployment = MachineDeployment::new("md", Default::default());
        deployment.spec.template.spec = MachineSpec { version: Some("v1.31.0".into()), ..Default::default() };
        let on_delete = RolloutStrategy { type_: RolloutStrategyType::OnDelete, rolling_update: None };
        deployment.spec.rollout = Some(Rollout { after: None, strategy: Some(on_delete) });
        let mut machine = Machine::new("cp-1", MachineSpec::default());
        machine.metadata.labels = Some([(CONTROL_PLANE_LABEL.to_owned(), String::new())].into());
        let seen = Seen {
            cluster: Cluster::new("demo", Default::default()),
            control_plane: Some(plane),
            deployments: vec![deployment],
            pools: Vec::new(),
            machines: vec![machine],
            offered: Vec::new(),
        };
        let plan = plan(&seen, None);
        assert_eq!(plan.steps.iter().map(ToString::to_string).collect::<Vec<_>>(), ["v1.35.x"]);
        let text = told(&seen, &plan);
        let parts = [
            "step 1 of 1: v1.35.x",
            "1  KubeadmControlPlane cp: 3 machines, one at a time, the new one comes first",
            "3  MachineDeployment md: 1 machine, up to 1 more and 0 missing meanwhile",
            "control plane machine cp-1 is not ready",
            "only when somebody deletes them",
            "MachineDeployment md is v1.31.0: too old beside v1.35.x",
        ];
        let mut rest = text.as_str();
        for part in parts {
            let at = rest.find(part).unwrap_or_else(|| panic!("{part} is not, or not there, in\n{text}"));
            rest = &rest[at..];
        }
    }
}
