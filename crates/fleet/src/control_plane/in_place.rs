//! Control plane machines that an extension updates instead of their being replaced: one at a time, while all are well.
//!
//! Source: kubernetes-sigs/cluster-api controlplane/kubeadm/reconcilers/kubeadmcontrolplane/inplace.go,
//! inplace_canupdatemachine.go, inplace_trigger.go.

use std::sync::Arc;

use api::{
    in_place::{Objects, expect, is_marked, is_pending, mark},
    kubeadm::{KubeadmConfig, KubeadmConfigSpec},
    machine::Machine,
    meta::Time,
    names,
    topology::hooks::Hook,
};
use control::{EventType, Key, Plan, Result};

use super::{
    ControlPlanePlan, Seen, kubeadm_config,
    rollout::{self, name_of},
};
use crate::{
    Context,
    extension::{GO_ON_S, Pass},
    external,
    in_place::{self, RETRY_S, Verdict},
    owner,
};

/// What is known of extensions.
#[derive(Default)]
pub struct Asked {
    /// Somebody may say that machines can be updated, or it is not known who.
    pub handled: bool,
    /// What was said about a machine.
    pub verdict: Option<(String, Verdict)>,
}

/// What is written of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// That it is to be updated.
    Mark(String),
    /// What it is to become; what belongs to it is written before.
    Become(String),
}

/// Asks about the machine that would be replaced next, if somebody could update it.
pub async fn ask(context: &Context, seen: &mut Seen, now: &Time) -> Result<()> {
    let hook = Hook::CanUpdateMachine;
    if !context.extensions.handles(hook) || seen.control_plane.metadata.deletion_timestamp.is_some() {
        return Ok(());
    }
    let pass = Pass::begin();
    let namespace = seen.control_plane.metadata.namespace.clone().unwrap_or_default();
    let handler = in_place::handler(&context.extensions, hook, &namespace).await;
    if handler == Ok(None) {
        return Ok(());
    }
    seen.in_place.handled = true;
    let Some(name) = super::plan(seen, now).asks else { return Ok(()) };
    let verdict = match handler {
        Ok(handler) => about(context, seen, &name, &handler.unwrap_or_default(), &pass).await?,
        Err(why) => Verdict::Unknown(why),
    };
    seen.in_place.verdict = Some((name, verdict));
    Ok(())
}

async fn about(context: &Context, seen: &Seen, name: &str, handler: &str, pass: &Pass) -> Result<Verdict> {
    let missing = || Verdict::Cannot("not all of its objects are there".to_owned());
    let Some(machine) = seen.machines.iter().find(|machine| name_of(machine) == name) else { return Ok(missing()) };
    let (Some(template), Some(infrastructure), Some(config)) =
        (&seen.template, seen.infrastructures.get(name), seen.configs.get(name))
    else {
        return Ok(missing());
    };
    let wanted = in_place::desired_infrastructure(infrastructure, template);
    let tried = in_place::tried(context.writer.client(), infrastructure, &wanted).await?;
    let (present, infrastructure) = match tried {
        Ok(pair) => pair,
        Err(why) => return Ok(Verdict::Cannot(why)),
    };
    let [current, desired] =
        [machine.as_ref().clone(), updated_machine(seen, machine)].map(|machine| external::value(&machine));
    let joined = |config: &KubeadmConfig| {
        let spec = without_discovery(rollout::comparable(as_join(config.spec.clone())));
        external::value(&KubeadmConfig { spec, ..config.clone() })
    };
    let configs = [joined(config), joined(&updated_config(seen, config))];
    let current = Objects { main: &current, infrastructure: &present, bootstrap: Some(&configs[0]) };
    let desired = Objects { main: &desired, infrastructure: &infrastructure, bootstrap: Some(&configs[1]) };
    let key = Key::of(machine.as_ref());
    Ok(in_place::ask(context, &key, (Hook::CanUpdateMachine, handler), &current, &desired, pass).await)
}

/// How the machine found its cluster is no extension's business.
fn without_discovery(mut spec: KubeadmConfigSpec) -> KubeadmConfigSpec {
    if let Some(join) = &mut spec.join_configuration {
        join.discovery = None;
    }
    spec
}

/// The configuration of a machine that initialized the cluster, as if it had joined it.
fn as_join(mut spec: KubeadmConfigSpec) -> KubeadmConfigSpec {
    let Some(init) = spec.init_configuration.take() else { return rollout::for_join(spec) };
    let join = spec.join_configuration.get_or_insert_default();
    join.node_registration = init.node_registration;
    join.patches = init.patches;
    join.skip_phases = init.skip_phases;
    join.timeouts = init.timeouts;
    join.control_plane.get_or_insert_default().local_api_endpoint = init.local_api_endpoint;
    rollout::for_join(spec)
}

/// The machine would be replaced because it is not as declared, and for no other reason.
pub fn is_eligible(seen: &Seen, machine: &Machine, now: &Time) -> bool {
    let name = name_of(machine);
    let annotated = [names::DELETE_MACHINE_ANNOTATION, names::REMEDIATE_ANNOTATION];
    seen.in_place.handled
        && !annotated.iter().any(|key| owner::annotation_of(&machine.metadata, key).is_some())
        && rollout::due(seen, machine, now).is_none()
        && rollout::outdated(seen, machine, now).is_some()
        && seen.template.is_some()
        && seen.infrastructures.contains_key(name)
        && seen.configs.contains_key(name)
}

/// Marks the machine if it can be updated; false if it has to be replaced, `Err` says what it waits for.
pub fn begin(seen: &Seen, machine: &Machine, plan: &mut ControlPlanePlan) -> std::result::Result<bool, String> {
    let name = name_of(machine);
    let verdict = seen.in_place.verdict.as_ref().filter(|(of, _)| of == name).map(|(_, verdict)| verdict);
    match verdict {
        Some(Verdict::Can) => {
            plan.updates.push(Change::Mark(name.to_owned()));
            Ok(true)
        }
        Some(Verdict::Cannot(_)) => Ok(false),
        Some(Verdict::Unknown(why)) => {
            plan.local.wait("an extension", RETRY_S);
            Err(format!("failed to determine if Machine {name} can be updated in-place: {why}"))
        }
        Some(Verdict::Later) | None => {
            plan.asks = Some(name.to_owned());
            plan.local.wait("an extension", GO_ON_S);
            Err(format!("Waiting to be told whether Machine {name} can be updated in-place"))
        }
    }
}

/// Writes what marked machines are to become; whether there are any. `Err` says what is missing for that.
pub fn complete(seen: &Seen, plan: &mut ControlPlanePlan) -> std::result::Result<bool, String> {
    let marked = |machine: &&Arc<Machine>| {
        let meta = &machine.metadata;
        is_marked(meta) && !is_pending(meta) && meta.deletion_timestamp.is_none()
    };
    let mut found = false;
    for machine in seen.machines.iter().filter(marked) {
        let name = name_of(machine);
        let missing = |what: &str| {
            format!("failed to complete triggering in-place update for Machine {name}: there is no {what}")
        };
        let template = seen.template.as_ref().ok_or_else(|| missing("infrastructure template"))?;
        let infrastructure = seen.infrastructures.get(name).ok_or_else(|| missing("infrastructure machine"))?;
        let config = seen.configs.get(name).ok_or_else(|| missing("KubeadmConfig"))?;
        let wanted = in_place::desired_infrastructure(infrastructure, template);
        in_place::write(infrastructure, &wanted, &mut plan.local);
        let mut after = updated_config(seen, config);
        mark(&mut after.metadata, true);
        plan.local.update(config.as_ref(), &after);
        plan.updates.push(Change::Become(name.to_owned()));
        found = true;
    }
    Ok(found)
}

/// As declared, for a machine that has joined already.
fn updated_config(seen: &Seen, config: &KubeadmConfig) -> KubeadmConfig {
    let mut spec = rollout::for_join(seen.control_plane.spec.kubeadm_config_spec.clone().unwrap_or_default());
    kubeadm_config::open_gates(&mut spec.cluster_configuration, &seen.control_plane.spec.version);
    let found = config.spec.join_configuration.as_ref().and_then(|join| join.discovery.clone());
    if let Some(join) = &mut spec.join_configuration {
        join.discovery = join.discovery.take().or(found);
    }
    KubeadmConfig { spec, ..config.clone() }
}

fn updated_machine(seen: &Seen, machine: &Machine) -> Machine {
    let mut after = machine.clone();
    let spec = &seen.control_plane.spec;
    after.spec.version = Some(spec.version.clone());
    let configuration = spec.kubeadm_config_spec.as_ref().and_then(|spec| spec.cluster_configuration.as_ref());
    let configuration = serde_json::to_string(&configuration).unwrap_or_default();
    owner::annotate(&mut after.metadata, names::KUBEADM_CLUSTER_CONFIGURATION_ANNOTATION, configuration);
    after
}

/// Adds to machines that are going to be written what their updates need.
pub fn apply(seen: &Seen, changes: &[Change], updated: &mut [Machine], plan: &mut Plan) {
    for change in changes {
        let (Change::Mark(name) | Change::Become(name)) = change;
        let Some(machine) = updated.iter_mut().find(|machine| name_of(machine) == name) else { continue };
        match change {
            Change::Mark(_) => mark(&mut machine.metadata, true),
            Change::Become(_) => {
                *machine = updated_machine(seen, machine);
                expect(&mut machine.metadata, true);
                let message = "Machine starting in-place update";
                plan.event(machine, EventType::Normal, "SuccessfulStartInPlaceUpdate", message);
            }
        }
    }
}
