//! One operation at a time: the first machine, one more, one less, or the next one to replace.

use std::collections::{BTreeMap, BTreeSet};

use api::{
    cluster::Cluster,
    in_place::is_under_way,
    kubeadm::{KubeadmConfig, KubeadmConfigSpec},
    machine::{Bootstrap, Machine, MachineDeletion, MachineSpec},
    meta::{ContractRef, Time},
    names,
};
use control::EventType;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::core::ObjectMeta;
use serde_json::json;

use super::{
    ControlPlanePlan, Seen,
    deletion::{self, Next},
    expiry, in_place, kubeadm_config, machines,
    preflight::{self, Operation},
    remediation::{self, Decision, Verdict},
};
use crate::{
    machine,
    machine_set::{clone, renamed},
    naming::{self, MACHINE_NAME_MAX},
    owner,
};

/// Some machine is not as it is declared, and the API is there to be told.
pub fn is_due(seen: &Seen, now: &Time) -> bool {
    seen.initialized && seen.machines.iter().any(|machine| outdated(seen, machine, now).is_some())
}

/// As many machines as declared, all of them as declared and well.
pub fn is_complete(seen: &Seen, now: &Time) -> bool {
    let wanted = usize::try_from(seen.control_plane.spec.replicas.unwrap_or(1)).unwrap_or(1);
    let settled = |machine: &Machine| {
        machine.metadata.deletion_timestamp.is_none()
            && !is_under_way(&machine.metadata)
            && outdated(seen, machine, now).is_none()
            && preflight::is_healthy(seen, machine)
    };
    seen.initialized && seen.machines.len() == wanted && seen.machines.iter().all(|machine| settled(machine))
}

/// Plans the next operation; `Err` says what holds it back.
pub fn step(
    seen: &Seen,
    cluster: &Cluster,
    decision: Option<&Decision>,
    now: &Time,
    plan: &mut ControlPlanePlan,
) -> Result<(), String> {
    let control_plane = seen.control_plane.as_ref();
    let wanted = usize::try_from(control_plane.spec.replicas.unwrap_or(1)).unwrap_or(1);
    let unfinished = unfinished(seen);
    if let Some(name) = unfinished.first() {
        // A create that was cut short comes first, so that it is never done twice.
        return create(seen, cluster, name, now, plan);
    }
    if seen.machines.is_empty() {
        return create(seen, cluster, &new_name(seen)?, now, plan);
    }
    let stray = deletion::stray(seen);
    if let Ok(Some((name, change))) = stray {
        plan.etcd = Some(change);
        return Err(format!("Removing etcd member {name}, which has no corresponding Machine"));
    }
    match deletion::step(seen, &mut plan.local)? {
        Next::Ask(change) => {
            plan.etcd = Some(change);
            return Err("Waiting for the etcd member of a deleting Machine to be removed".to_owned());
        }
        Next::Replace => return create(seen, cluster, &new_name(seen)?, now, plan),
        Next::Nothing => {}
    }
    if in_place::complete(seen, plan)? {
        return Ok(());
    }
    if let Some(decision) = decision
        && let Verdict::Replaced(_) = decision.verdict
    {
        return remediate(seen, decision, plan);
    }
    if let Some(machine) = seen.machines.iter().find(|machine| is_under_way(&machine.metadata)) {
        return Err(format!("Waiting for in-place update of Machine {} to complete", name_of(machine)));
    }
    let started = control_plane.status.as_ref().and_then(|status| status.initialization.as_ref());
    if started.is_none_or(|started| started.control_plane_initialized != Some(true)) {
        return Err("Waiting for the first control plane machine to be initialized".to_owned());
    }
    let outdated: Vec<&Machine> =
        seen.machines.iter().map(AsRef::as_ref).filter(|machine| outdated(seen, machine, now).is_some()).collect();
    let have = seen.machines.len();
    let up = if outdated.is_empty() {
        match have.cmp(&wanted) {
            std::cmp::Ordering::Equal => return stray.map(drop),
            std::cmp::Ordering::Less => true,
            std::cmp::Ordering::Greater => false,
        }
    } else {
        have < wanted + surge(seen)
    };
    if up {
        checked(seen, cluster, Operation::Up, plan)?;
        return create(seen, cluster, &new_name(seen)?, now, plan);
    }
    let Some(machine) = removable(seen, &outdated) else { return Ok(()) };
    if have - outdated.len() < wanted && in_place::is_eligible(seen, machine, now) {
        match preflight::check(seen, cluster, Operation::Update(machine)) {
            Ok(()) if in_place::begin(seen, machine, plan)? => return Ok(()),
            Ok(()) => {}
            // What is not well is this one: it is replaced.
            Err(_) if preflight::check(seen, cluster, Operation::Down(machine)).is_ok() => {}
            Err(_) => return checked(seen, cluster, Operation::Update(machine), plan),
        }
    }
    // One that is not well may go: it is what stands in the way.
    checked(seen, cluster, Operation::Down(machine), plan)?;
    remove(seen, machine, plan);
    Ok(())
}

fn checked(
    seen: &Seen,
    cluster: &Cluster,
    operation: Operation<'_>,
    plan: &mut ControlPlanePlan,
) -> Result<(), String> {
    let checked = preflight::check(seen, cluster, operation);
    // What only takes its time is no trouble.
    plan.unwell = checked.as_ref().err().filter(|why| !why.starts_with("waiting for")).cloned();
    checked
}

/// Deletes a machine that is ill. What is recorded of it comes first: a crash in between repeats the deletion.
fn remediate(seen: &Seen, decision: &Decision, plan: &mut ControlPlanePlan) -> Result<(), String> {
    let machine = seen.machines.iter().find(|machine| name_of(machine) == decision.machine);
    if let Some(machine) = machine {
        plan.remediates = true;
        remove(seen, machine, plan);
    }
    Ok(())
}

fn surge(seen: &Seen) -> usize {
    let strategy = seen.control_plane.spec.rollout.as_ref().and_then(|rollout| rollout.strategy.as_ref());
    let surge = strategy.and_then(|strategy| strategy.rolling_update.as_ref()?.max_surge.as_ref());
    match surge {
        Some(IntOrString::Int(0)) => 0,
        Some(IntOrString::String(text)) if text == "0" => 0,
        _ => 1,
    }
}

/// Clones without a machine.
pub fn unfinished(seen: &Seen) -> Vec<String> {
    let bound: BTreeSet<&str> = seen.machines.iter().map(|machine| name_of(machine)).collect();
    let configs = seen.configs.iter().map(|(name, config)| (name, &config.metadata));
    let infrastructures = seen.infrastructures.iter().map(|(name, infrastructure)| (name, &infrastructure.meta));
    let names: BTreeSet<&String> = configs
        .chain(infrastructures)
        .filter(|(name, meta)| {
            !bound.contains(name.as_str())
                && meta.deletion_timestamp.is_none()
                && owner::owner_of_kind(meta, "Machine").is_none()
        })
        .map(|(name, _)| name)
        .collect();
    names.into_iter().cloned().collect()
}

fn new_name(seen: &Seen) -> Result<String, String> {
    let own = seen.control_plane.metadata.name.as_deref().unwrap_or_default();
    let cluster = seen.cluster.as_ref().and_then(|cluster| cluster.metadata.name.as_deref()).unwrap_or_default();
    let suffix = seen.suffixes.get(0);
    match seen.control_plane.spec.machine_naming.as_ref().and_then(|naming| naming.template.as_deref()) {
        Some(template) => naming::from_template(template, cluster, ("kubeadmControlPlane", own), &suffix),
        None => Ok(naming::with_suffix(own, &suffix, MACHINE_NAME_MAX)),
    }
}

/// The steps that make one machine, without those that have been done.
fn create(seen: &Seen, cluster: &Cluster, name: &str, now: &Time, plan: &mut ControlPlanePlan) -> Result<(), String> {
    plan.creates = true;
    let plan = &mut plan.local;
    let control_plane = seen.control_plane.as_ref();
    let reference = &control_plane.spec.machine_template.spec.infrastructure_ref;
    let template =
        seen.template.as_ref().ok_or_else(|| format!("{} {} does not exist", reference.kind, reference.name))?;
    let namespace = control_plane.metadata.namespace.clone().unwrap_or_default();
    let own = control_plane.metadata.name.clone().unwrap_or_default();
    let meta = control_plane.spec.machine_template.metadata.clone().unwrap_or_default();
    let mut labels: BTreeMap<String, String> = meta.labels.clone();
    labels.insert(names::CLUSTER_LABEL.into(), cluster.metadata.name.clone().unwrap_or_default());
    labels.insert(names::CONTROL_PLANE_LABEL.into(), String::new());
    labels.insert(names::CONTROL_PLANE_NAME_LABEL.into(), own);
    let maker = owner::reference(control_plane, false);
    let spec = control_plane.spec.kubeadm_config_spec.clone().unwrap_or_default();
    let first = seen.machines.is_empty();
    if !seen.configs.contains_key(name) {
        let metadata = ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(namespace.clone()),
            labels: Some(labels.clone()),
            owner_references: Some(vec![maker.clone()]),
            ..ObjectMeta::default()
        };
        let mut own = if first { for_init(spec.clone()) } else { for_join(spec.clone()) };
        kubeadm_config::open_gates(&mut own.cluster_configuration, &control_plane.spec.version);
        let mut body = json!({ "metadata": metadata });
        // One that says nothing is left out: a spec has at least one field.
        if own != KubeadmConfigSpec::default() {
            body["spec"] = json!(own);
        }
        let resource = kube::api::ApiResource::erase::<KubeadmConfig>(&());
        plan.create_external(&resource, control::Key::new(namespace.as_str(), name), body);
    }
    let kind = reference.kind.strip_suffix("Template").unwrap_or(&reference.kind).to_owned();
    if !seen.infrastructures.contains_key(name) {
        let resource = kube::api::ApiResource {
            plural: format!("{}s", kind.to_lowercase()),
            kind: kind.clone(),
            ..template.resource.clone()
        };
        let body = clone(template, name, &namespace, &labels, &maker);
        plan.create_external(&resource, control::Key::new(namespace.as_str(), name), body);
    }
    let mut annotations = BTreeMap::from([(deletion::CLEANUP_HOOK.to_owned(), String::new())]);
    if let Some(record) = remediation::in_progress(seen) {
        annotations.insert(remediation::FOR.into(), record.text());
    }
    let configuration = serde_json::to_string(&spec.cluster_configuration).unwrap_or_default();
    annotations.insert(names::KUBEADM_CLUSTER_CONFIGURATION_ANNOTATION.into(), configuration);
    let declared = &control_plane.spec.machine_template.spec;
    let mut metadata = machine::metadata(control_plane, control::Key::new(namespace, name), &meta, labels);
    owner::extend(&mut metadata.annotations, &annotations);
    plan.create(&Machine {
        metadata,
        spec: MachineSpec {
            cluster_name: cluster.metadata.name.clone().unwrap_or_default(),
            bootstrap: Bootstrap {
                config_ref: Some(ContractRef {
                    api_group: "bootstrap.cluster.x-k8s.io".into(),
                    kind: "KubeadmConfig".into(),
                    name: name.to_owned(),
                }),
                data_secret_name: None,
            },
            infrastructure_ref: renamed(reference, &kind, name),
            version: Some(control_plane.spec.version.clone()),
            failure_domain: failure_domain(seen, cluster, now),
            deletion: MachineDeletion::completed(declared.deletion.as_ref()),
            readiness_gates: machines::gates(control_plane),
            taints: declared.taints.clone(),
            ..MachineSpec::default()
        },
        status: None,
    });
    plan.event(control_plane, EventType::Normal, "SuccessfulCreate", format!("Created Machine {name}"));
    Ok(())
}

/// The domain for control planes with the fewest machines, counting those that stay first; `None` if the cluster has none.
fn failure_domain(seen: &Seen, cluster: &Cluster, now: &Time) -> Option<String> {
    let domains = cluster.status.as_ref().map(|status| status.failure_domains.as_slice()).unwrap_or_default();
    let count = |name: &str| {
        let there = seen.machines.iter().filter(|machine| machine.spec.failure_domain.as_deref() == Some(name));
        let stay = there.clone().filter(|machine| outdated(seen, machine, now).is_none());
        (stay.count(), there.count())
    };
    domains
        .iter()
        .filter(|domain| domain.control_plane == Some(true))
        .min_by_key(|domain| (count(&domain.name), domain.name.as_str()))
        .map(|domain| domain.name.clone())
}

/// The machine to remove: named by a user, outdated, or not well, in this order, and of the domain that has most.
fn removable<'a>(seen: &'a Seen, outdated: &[&'a Machine]) -> Option<&'a Machine> {
    let all: Vec<&Machine> = seen.machines.iter().map(AsRef::as_ref).collect();
    let named =
        |machine: &&Machine| owner::annotation_of(&machine.metadata, names::DELETE_MACHINE_ANNOTATION).is_some();
    let unwell = |machine: &&Machine| !preflight::is_healthy(seen, machine);
    let candidates: [Vec<&Machine>; 6] = [
        outdated.iter().copied().filter(named).collect(),
        all.iter().copied().filter(named).collect(),
        outdated.iter().copied().filter(unwell).collect(),
        outdated.to_vec(),
        all.iter().copied().filter(unwell).collect(),
        all.clone(),
    ];
    let candidates = candidates.into_iter().find(|candidates| !candidates.is_empty())?;
    let in_domain =
        |machine: &Machine| all.iter().filter(|other| other.spec.failure_domain == machine.spec.failure_domain).count();
    // Oldest first among equals: the list is in that order, and `max_by_key` would take the last.
    candidates.into_iter().rev().max_by_key(|machine| in_domain(machine))
}

/// Deletes the machine; leadership of etcd moves away from it before.
fn remove(seen: &Seen, machine: &Machine, plan: &mut ControlPlanePlan) {
    plan.etcd = deletion::handover(seen, machine);
    plan.local.delete(machine);
    let message = format!("Deleted Machine {}", name_of(machine));
    plan.local.event(seen.control_plane.as_ref(), EventType::Normal, "SuccessfulDelete", message);
}

/// Why the machine has to be replaced; `None` if it is as declared.
pub fn outdated(seen: &Seen, machine: &Machine, now: &Time) -> Option<String> {
    let spec = &seen.control_plane.spec;
    let version = machine.spec.version.as_deref().unwrap_or_default();
    if version != spec.version {
        return Some(format!("Version {version}, {} required", spec.version));
    }
    if let Some(why) = due(seen, machine, now) {
        return Some(why.to_owned());
    }
    if let Some(infrastructure) = seen.infrastructures.get(name_of(machine)) {
        let from = owner::annotation_of(&infrastructure.meta, names::CLONED_FROM_NAME_ANNOTATION);
        let reference = &spec.machine_template.spec.infrastructure_ref;
        if from.is_some_and(|from| from != reference.name) {
            return Some(format!("{} is not up-to-date", infrastructure.resource.kind));
        }
    }
    let wanted = spec.kubeadm_config_spec.clone().unwrap_or_default();
    let made = owner::annotation_of(&machine.metadata, names::KUBEADM_CLUSTER_CONFIGURATION_ANNOTATION);
    let made = made.and_then(|text| serde_json::from_str(text).ok());
    if made.is_some_and(|made: Option<api::cluster_configuration::ClusterConfiguration>| {
        made != wanted.cluster_configuration
    }) {
        return Some("KubeadmConfig is not up-to-date: clusterConfiguration differs".to_owned());
    }
    let config = seen.configs.get(name_of(machine))?;
    let init = config.spec.join_configuration.is_none();
    let (have, wanted) = if init {
        (for_init(config.spec.clone()), for_init(wanted))
    } else {
        (for_join(config.spec.clone()), for_join(wanted))
    };
    // Its cluster configuration was compared above, by what the machine was made from.
    let (have, wanted) = [have, wanted].map(|spec| KubeadmConfigSpec { cluster_configuration: None, ..spec }).into();
    (comparable(have) != comparable(wanted)).then(|| "KubeadmConfig is not up-to-date".to_owned())
}

/// Why its time has come, however it is made.
pub fn due(seen: &Seen, machine: &Machine, now: &Time) -> Option<&'static str> {
    let after = seen.control_plane.spec.rollout.as_ref().and_then(|rollout| rollout.after.as_ref());
    if let Some(after) = after.filter(|after| after.0 <= now.0)
        && machine.metadata.creation_timestamp.as_ref().is_some_and(|made| made.0 < after.0)
    {
        return Some("KubeadmControlPlane spec.rolloutAfter expired");
    }
    expiry::is_near(seen, machine, now).then_some("Certificates will expire soon")
}

/// The configuration of the machine that initializes the control plane.
pub fn for_init(mut spec: KubeadmConfigSpec) -> KubeadmConfigSpec {
    spec.join_configuration = None;
    spec
}

/// The configuration of one that joins it.
pub fn for_join(mut spec: KubeadmConfigSpec) -> KubeadmConfigSpec {
    spec.init_configuration = None;
    // The cluster's configuration stays: it says where key pairs lie and whether etcd is outside.
    spec.join_configuration.get_or_insert_default().control_plane.get_or_insert_default();
    spec
}

/// Without what the bootstrap controller fills in.
pub fn comparable(mut spec: KubeadmConfigSpec) -> KubeadmConfigSpec {
    if let Some(join) = &mut spec.join_configuration {
        if let Some(discovery) = &mut join.discovery {
            discovery.bootstrap_token = None;
            if *discovery == Default::default() {
                join.discovery = None;
            }
        }
        if join.control_plane.as_ref().is_some_and(|control_plane| *control_plane == Default::default()) {
            join.control_plane = None;
        }
    }
    spec
}

pub fn name_of(machine: &Machine) -> &str {
    machine.metadata.name.as_deref().unwrap_or_default()
}
