//! The MachineDeployment controller: one MachineSet for each version of the template, rolled over within limits.
//!
//! Source: kubernetes-sigs/cluster-api core/reconcilers/machinedeployment.

mod history;
mod in_place;
mod paused;
mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use api::{
    cluster::Cluster,
    conversion,
    machine::{
        Machine, MachineDeployment, MachineSet, MachineSetSpec, MachineTemplate, RollingUpdate, RolloutStrategy,
        RolloutStrategyType,
    },
    meta::{TemplateMeta, Time},
    names,
};
use control::{EventType, Key, Outcome, Plan, Reconcile, Result};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::core::ObjectMeta;

use crate::{
    Context, adoption,
    extension::GO_ON_S,
    in_place::RETRY_S,
    naming::{self, Suffixes},
    owner, propagation, unacted,
};

/// Longest name of a set: its machines' names add a suffix.
const SET_NAME_MAX: usize = 57;
/// Longest pause until a machine has been ready for long enough or a rollout time has come.
const PAUSE_S: u64 = 30;
/// Labels that a set gives its machines, whatever the deployment's template says.
const OWN_LABELS: [&str; 3] = [names::TEMPLATE_HASH_LABEL, names::DEPLOYMENT_LABEL, names::CLUSTER_LABEL];
/// Annotations of a deployment that are not its sets': numbers and revisions are reckoned for each.
const OWN_PREFIX: &str = "machinedeployment.clusters.x-k8s.io/";
const OWN: [&str; 5] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    conversion::DATA_ANNOTATION,
    names::DISABLE_MACHINE_CREATE_ANNOTATION,
    names::LABELS_FROM_OWNER_ANNOTATION,
    names::ANNOTATIONS_FROM_OWNER_ANNOTATION,
];

pub struct MachineDeployments(pub Arc<Context>);

pub struct Seen {
    pub deployment: Arc<MachineDeployment>,
    pub cluster: Option<Arc<Cluster>>,
    /// Those that the deployment controls, oldest first.
    pub sets: Vec<Arc<MachineSet>>,
    /// Sets that its selector names, that nobody controls and that may be adopted now.
    pub orphans: Vec<Arc<MachineSet>>,
    pub machines: Vec<Arc<Machine>>,
    pub suffixes: Suffixes,
    /// What extensions say of updating machines in place; nothing unless there is one that could.
    pub in_place: in_place::Asked,
}

impl Reconcile for MachineDeployments {
    const NAME: &'static str = "machinedeployment";
    type Seen = Seen;
    type Plan = Plan;

    async fn observe(&self, key: &Key) -> Result<Option<Seen>> {
        let caches = &self.0.caches;
        let Some(deployment) = caches.deployments.get(key) else { return Ok(None) };
        let (namespace, cluster) = (key.namespace.as_str(), deployment.spec.cluster_name.as_str());
        let mut machines = caches.machines.in_cluster(namespace, cluster);
        let mut sets = caches.sets.in_cluster(namespace, cluster);
        let cluster = caches.cluster(namespace, cluster);
        let fits = |meta: &ObjectMeta| adoption::selects(&deployment.spec.selector, meta);
        let client = self.0.writer.client();
        let orphans = adoption::orphans(client, deployment.as_ref(), cluster.as_deref(), &sets, fits).await?;
        sets.retain(|set| owner::is_controlled_by(&set.metadata, &deployment.metadata));
        sets.sort_by_key(|set| {
            (set.metadata.creation_timestamp.as_ref().map(|time| time.0), revision(set.as_ref()), Key::of(set.as_ref()))
        });
        machines.retain(|machine| sets.iter().any(|set| owner::is_controlled_by(&machine.metadata, &set.metadata)));
        let suffixes = Suffixes::seeded((self.0.random)());
        let held = owner::is_paused(cluster.as_deref(), &deployment.metadata) || deployment.spec.paused == Some(true);
        let in_place = in_place::Asked::default();
        let mut seen = Seen { deployment, cluster, sets, orphans, machines, suffixes, in_place };
        if !held {
            in_place::ask(&self.0, &mut seen, &Time(self.0.writer.clock().now())).await?;
        }
        Ok(Some(seen))
    }

    fn plan(&self, seen: &Seen, now: Timestamp) -> Plan {
        plan(seen, &Time(now))
    }

    async fn act(&self, _: &Key, _: &Seen, plan: Plan) -> Result<Outcome> {
        self.0.writer.execute(plan).await
    }
}

pub fn plan(seen: &Seen, now: &Time) -> Plan {
    let deployment = seen.deployment.as_ref();
    let mut plan = Plan::nothing();
    let mut after = deployment.clone();
    let deleting = deployment.metadata.deletion_timestamp.is_some();
    let held = owner::is_paused(seen.cluster.as_deref(), &deployment.metadata);
    if deleting {
        if held {
            // Moved to another manager, perhaps: its machines must stay.
            return plan;
        }
        if !owner::has_finalizer(&deployment.metadata, names::MACHINE_DEPLOYMENT_FINALIZER) {
            return plan;
        }
        for set in seen.sets.iter().filter(|set| set.metadata.deletion_timestamp.is_none()) {
            plan.delete(set.as_ref());
        }
        if seen.sets.is_empty() {
            owner::remove_finalizer(&mut after.metadata, names::MACHINE_DEPLOYMENT_FINALIZER);
            plan.update(deployment, &after);
            return plan;
        }
    } else if !held {
        owner::add_finalizer(&mut after.metadata, names::MACHINE_DEPLOYMENT_FINALIZER);
        owner::label(&mut after.metadata, names::CLUSTER_LABEL, deployment.spec.cluster_name.as_str());
        if let Some(cluster) = &seen.cluster {
            owner::ensure(&mut after.metadata, owner::reference(cluster.as_ref(), false));
        }
        if owner::has_finalizer(&deployment.metadata, names::MACHINE_DEPLOYMENT_FINALIZER) {
            if !seen.orphans.is_empty() {
                adopt(seen, &mut plan);
            } else if deployment.spec.paused == Some(true) {
                hold(seen, now, &mut plan, &mut after);
            } else {
                roll(seen, now, &mut plan, &mut after);
            }
        }
    }
    unacted::tell(
        deployment,
        deployment.status.as_ref().and_then(|status| status.observed_generation),
        Vec::new(),
        &mut plan,
    );
    // Its own pause is one of rollouts: the condition is about what nobody looks after.
    status::set(seen, &mut after, held, now);
    plan.update(deployment, &after);
    plan
}

/// Takes over the sets of nobody that the selector names. Which of them is the current one is seen with them.
fn adopt(seen: &Seen, plan: &mut Plan) {
    let deployment = seen.deployment.as_ref();
    for set in &seen.orphans {
        let name = deployment.metadata.name.clone().unwrap_or_default();
        adoption::adopt(deployment, set.as_ref(), |meta| owner::label(meta, names::DEPLOYMENT_LABEL, name), plan);
    }
}

/// The set that has the current template; `None` if it has to be made.
pub fn current(seen: &Seen, now: &Time) -> Option<Arc<MachineSet>> {
    let after = seen.deployment.spec.rollout.as_ref().and_then(|rollout| rollout.after.as_ref());
    let due = after.filter(|after| after.0 <= now.0);
    let fresh = |set: &MachineSet| {
        due.is_none_or(|due| set.metadata.creation_timestamp.as_ref().is_some_and(|made| made.0 >= due.0))
    };
    let mut found = seen.sets.iter().filter(|set| {
        set.metadata.deletion_timestamp.is_none()
            && fresh(set)
            && difference(&seen.deployment.spec.template, &set.spec.template).is_none()
    });
    found.next_back().cloned()
}

fn roll(seen: &Seen, now: &Time, plan: &mut Plan, after: &mut MachineDeployment) {
    let deployment = seen.deployment.as_ref();
    let wanted = deployment.spec.replicas.unwrap_or(1).max(0);
    if let Some(due) = deployment.spec.rollout.as_ref().and_then(|rollout| rollout.after.as_ref()) {
        let left_s = due.0.duration_since(now.0).as_secs();
        if let Some(left_s) = u64::try_from(left_s).ok().filter(|left_s| *left_s > 0) {
            plan.wait("the time of the rollout", left_s.min(PAUSE_S * 120));
        }
    }
    let Some(current) = current(seen, now) else {
        create(seen, wanted, plan, after);
        return;
    };
    if let Some(why) = seen.in_place.held() {
        plan.wait("an extension", if why.is_some() { RETRY_S } else { GO_ON_S });
        return;
    }
    let number = number(seen, &current);
    owner::annotate(&mut after.metadata, names::REVISION_ANNOTATION, number.to_string());
    let strategy = strategy(deployment);
    let old: Vec<_> = seen.sets.iter().filter(|set| set.metadata.uid != current.metadata.uid).collect();
    let (replicas, intent) = match strategy.type_ {
        RolloutStrategyType::RollingUpdate => {
            let have = current.spec.replicas.unwrap_or(0) + in_place::came(seen, &current).1;
            let limits = limits(strategy.rolling_update.as_ref(), wanted);
            let mut replicas = rolling(seen, &current, &old, (have, wanted), limits);
            let intent = in_place::intent(seen, &current, &old, (have, wanted), &mut replicas);
            (replicas, intent)
        }
        RolloutStrategyType::OnDelete => (on_delete(seen, &old, wanted), in_place::Intent::default()),
    };
    let kept = history::kept(deployment, &old);
    let max = wanted + limits(strategy.rolling_update.as_ref(), wanted).0;
    let step = Sizing { deployment, current: Some((&current, number)), size: (wanted, max), replicas, intent };
    for set in &seen.sets {
        if step.is_history(set) {
            if set.metadata.deletion_timestamp.is_none() && !kept.contains(&set.metadata.uid) {
                plan.delete(set.as_ref());
            } else {
                let mut changed = set.as_ref().clone();
                step.intent.write(&mut changed);
                plan.update(set.as_ref(), &changed);
            }
        } else {
            step.write(set, plan);
        }
    }
}

/// Of a deployment whose rollouts are paused: its size, and what changes in place.
fn hold(seen: &Seen, now: &Time, plan: &mut Plan, after: &mut MachineDeployment) {
    let deployment = seen.deployment.as_ref();
    let wanted = deployment.spec.replicas.unwrap_or(1).max(0);
    let current = current(seen, now);
    let numbered = current.as_ref().map(|current| (current, number(seen, current)));
    if let Some((_, number)) = numbered {
        owner::annotate(&mut after.metadata, names::REVISION_ANNOTATION, number.to_string());
    }
    let strategy = strategy(deployment);
    let surge = limits(strategy.rolling_update.as_ref(), wanted).0;
    let replicas = paused::scale(seen, current.as_ref(), (wanted, surge), strategy.type_);
    let counted = current.as_ref().map(|current| in_place::came(seen, current).0).unwrap_or_default();
    let intent = in_place::Intent { counted, ..in_place::Intent::default() };
    let step = Sizing { deployment, current: numbered, size: (wanted, wanted.saturating_add(surge)), replicas, intent };
    for set in seen.sets.iter().filter(|set| !step.is_history(set)) {
        step.write(set, plan);
    }
}

fn strategy(deployment: &MachineDeployment) -> RolloutStrategy {
    deployment.spec.rollout.as_ref().and_then(|rollout| rollout.strategy.clone()).unwrap_or_default()
}

/// The revision of the current set. An old one that is current again is the newest: what was the newest counts as history.
fn number(seen: &Seen, current: &MachineSet) -> i64 {
    let others = seen.sets.iter().filter(|set| set.metadata.uid != current.metadata.uid);
    let newest = others.map(|set| revision(set.as_ref())).max().unwrap_or(0);
    if revision(current) > newest { revision(current) } else { newest + 1 }
}

/// What is written on the sets in one step.
struct Sizing<'a> {
    deployment: &'a MachineDeployment,
    /// With its revision.
    current: Option<(&'a Arc<MachineSet>, i64)>,
    /// Machines that are wanted, and that there may be at most.
    size: (i32, i32),
    /// Of each set by its UID; one that is not among them stays as large as it is.
    replicas: Vec<(Option<String>, i32)>,
    intent: in_place::Intent,
}

impl Sizing<'_> {
    fn number_of(&self, set: &MachineSet) -> Option<i64> {
        self.current.filter(|(current, _)| current.metadata.uid == set.metadata.uid).map(|(_, number)| number)
    }

    fn target(&self, set: &MachineSet) -> i32 {
        let found = self.replicas.iter().find(|(uid, _)| *uid == set.metadata.uid);
        found.map_or(set.spec.replicas.unwrap_or(0), |(_, replicas)| *replicas)
    }

    /// An old set without machines.
    fn is_history(&self, set: &MachineSet) -> bool {
        let (have, running) = (set.spec.replicas.unwrap_or(0), set.status.as_ref().and_then(|status| status.replicas));
        self.number_of(set).is_none() && have == 0 && self.target(set) == 0 && running.unwrap_or(0) == 0
    }

    fn write(&self, set: &MachineSet, plan: &mut Plan) {
        let (number, target, have) = (self.number_of(set), self.target(set), set.spec.replicas.unwrap_or(0));
        let mut changed = set.clone();
        changed.spec.replicas = Some(target);
        self.intent.write(&mut changed);
        owner::annotate(&mut changed.metadata, names::DESIRED_REPLICAS_ANNOTATION, self.size.0.to_string());
        owner::annotate(&mut changed.metadata, names::MAX_REPLICAS_ANNOTATION, self.size.1.to_string());
        if let Some(number) = number {
            owner::annotate(&mut changed.metadata, names::REVISION_ANNOTATION, number.to_string());
            self.intent.count(&mut changed);
        }
        carry_over(self.deployment, &mut changed);
        if number.is_none() && strategy(self.deployment).type_ == RolloutStrategyType::OnDelete {
            owner::annotate(&mut changed.metadata, names::DISABLE_MACHINE_CREATE_ANNOTATION, "true");
        } else if let Some(annotations) = &mut changed.metadata.annotations {
            // A set that was old may be the current one again.
            annotations.remove(names::DISABLE_MACHINE_CREATE_ANNOTATION);
        }
        if changed.spec.replicas != set.spec.replicas {
            let name = set.metadata.name.as_deref().unwrap_or_default();
            let direction = if target > have { "up" } else { "down" };
            let message = format!("Scaled {direction} MachineSet {name}: {have} -> {target}");
            plan.event(self.deployment, EventType::Normal, "SuccessfulScale", message);
        }
        plan.update(set, &changed);
    }
}

/// Replicas of each set for the next step of a rolling update, of the current set first. `have`: its replicas, with those
/// that came from others.
fn rolling(
    seen: &Seen,
    current: &Arc<MachineSet>,
    old: &[&Arc<MachineSet>],
    (have, wanted): (i32, i32),
    (surge, unavailable): (i32, i32),
) -> Vec<(Option<String>, i32)> {
    let spec = |set: &MachineSet| set.spec.replicas.unwrap_or(0);
    let available = |set: &MachineSet| set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0);
    let total: i32 = old.iter().map(|set| spec(set)).sum::<i32>() + have;
    let occupied_here = have.max(current.status.as_ref().and_then(|status| status.replicas).unwrap_or(0));
    let running: i32 = old.iter().map(|set| occupied(set)).sum::<i32>() + occupied_here;
    let fresh = match have.cmp(&wanted) {
        std::cmp::Ordering::Greater => wanted,
        std::cmp::Ordering::Equal => have,
        std::cmp::Ordering::Less => have + wanted.saturating_add(surge).saturating_sub(running).clamp(0, wanted - have),
    };
    let mut targets = vec![(current.metadata.uid.clone(), fresh)];
    let minimum = wanted - unavailable;
    // Machines that may go without falling below the minimum, should all the new ones that are not available stay so.
    let mut spare = (total - have + fresh) - minimum - (fresh - available(current)).max(0);
    let mut left: Vec<i32> = old.iter().map(|set| spec(set)).collect();
    // What does not serve goes first.
    for (set, left) in old.iter().zip(&mut left) {
        let idle = in_place::idle(seen, set, *left, available(set)).min(spare.max(0));
        *left -= idle;
        spare -= idle;
    }
    let serving: i32 = seen.sets.iter().map(|set| available(set)).sum();
    let mut spare = spare.min(serving - minimum - in_place::leaving(seen, old));
    for left in &mut left {
        let gone = (*left).min(spare.max(0));
        *left -= gone;
        spare -= gone;
    }
    targets.extend(old.iter().zip(left).map(|(set, left)| (set.metadata.uid.clone(), left)));
    targets
}

/// Machines that a set has or is to have: those that are being deleted still take their room.
fn occupied(set: &MachineSet) -> i32 {
    let running = set.status.as_ref().and_then(|status| status.replicas).unwrap_or(0);
    set.spec.replicas.unwrap_or(0).max(running)
}

/// Old machines stay until somebody deletes them; the new set fills what is missing.
fn on_delete(seen: &Seen, old: &[&Arc<MachineSet>], wanted: i32) -> Vec<(Option<String>, i32)> {
    let mut room = wanted;
    let mut targets: Vec<_> = old
        .iter()
        .map(|set| {
            let alive = seen.machines.iter().filter(|machine| {
                owner::is_controlled_by(&machine.metadata, &set.metadata)
                    && machine.metadata.deletion_timestamp.is_none()
            });
            let alive = i32::try_from(alive.count()).unwrap_or(i32::MAX).min(room);
            room -= alive;
            (set.metadata.uid.clone(), alive)
        })
        .collect();
    let is_old = |set: &Arc<MachineSet>| old.iter().any(|other| other.metadata.uid == set.metadata.uid);
    targets.extend(seen.sets.iter().filter(|set| !is_old(set)).map(|set| (set.metadata.uid.clone(), room)));
    targets
}

/// Surge and unavailability in machines; percentages round up and down, and never are both zero.
pub fn limits(update: Option<&RollingUpdate>, wanted: i32) -> (i32, i32) {
    let surge = update.and_then(|update| update.max_surge.as_ref()).map_or(1, |value| resolve(value, wanted, true));
    let unavailable =
        update.and_then(|update| update.max_unavailable.as_ref()).map_or(0, |value| resolve(value, wanted, false));
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable.min(wanted)) }
}

pub fn resolve(value: &IntOrString, of: i32, up: bool) -> i32 {
    match value {
        IntOrString::Int(count) => (*count).max(0),
        IntOrString::String(text) => {
            let percent = text.strip_suffix('%').and_then(|digits| digits.parse::<i64>().ok()).unwrap_or(0).max(0);
            let product = percent * i64::from(of);
            i32::try_from(if up { (product + 99) / 100 } else { product / 100 }).unwrap_or(i32::MAX)
        }
    }
}

fn create(seen: &Seen, wanted: i32, plan: &mut Plan, after: &mut MachineDeployment) {
    let deployment = seen.deployment.as_ref();
    let number = seen.sets.iter().map(|set| revision(set.as_ref())).max().unwrap_or(0) + 1;
    let hash = template_hash(&deployment.spec.template);
    // A rollout time makes a second set of the same template: its hash must differ.
    let taken = |hash: &str| {
        seen.sets.iter().any(|set| owner::label_of(&set.metadata, names::TEMPLATE_HASH_LABEL) == Some(hash))
    };
    let hash = if taken(&hash) { format!("{hash}-{number}") } else { hash };
    let name = naming::with_suffix(
        deployment.metadata.name.as_deref().unwrap_or_default(),
        &seen.suffixes.get(0),
        SET_NAME_MAX,
    );
    let mut template = deployment.spec.template.clone();
    let deployment_name = deployment.metadata.name.clone().unwrap_or_default();
    let meta = template.metadata.get_or_insert_default();
    meta.labels.insert(names::TEMPLATE_HASH_LABEL.into(), hash.clone());
    meta.labels.insert(names::DEPLOYMENT_LABEL.into(), deployment_name.clone());
    meta.labels.insert(names::CLUSTER_LABEL.into(), deployment.spec.cluster_name.clone());
    let labels = meta.labels.clone();
    let mut selector = deployment.spec.selector.clone();
    selector.match_labels.insert(names::TEMPLATE_HASH_LABEL.into(), hash);
    let total: i32 = seen.sets.iter().map(|set| occupied(set)).sum();
    let strategy = strategy(deployment);
    let (surge, _) = limits(strategy.rolling_update.as_ref(), wanted);
    // Those of others may come instead.
    let first = if seen.in_place.handled && total > 0 {
        0
    } else {
        wanted.saturating_add(surge).saturating_sub(total).clamp(0, wanted)
    };
    let replicas = if strategy.type_ == RolloutStrategyType::OnDelete && total > 0 { 0 } else { first };
    let mut metadata = ObjectMeta {
        name: Some(name.clone()),
        namespace: deployment.metadata.namespace.clone(),
        labels: Some(labels),
        owner_references: Some(vec![owner::reference(deployment, true)]),
        finalizers: Some(vec![names::MACHINE_SET_FINALIZER.to_owned()]),
        ..ObjectMeta::default()
    };
    propagation::carry(&mut metadata, Some(&inherited(deployment)));
    owner::annotate(&mut metadata, names::REVISION_ANNOTATION, number.to_string());
    owner::annotate(&mut metadata, names::DESIRED_REPLICAS_ANNOTATION, wanted.to_string());
    owner::annotate(&mut metadata, names::MAX_REPLICAS_ANNOTATION, wanted.saturating_add(surge).to_string());
    owner::annotate(&mut after.metadata, names::REVISION_ANNOTATION, number.to_string());
    plan.create(&MachineSet {
        metadata,
        spec: MachineSetSpec {
            cluster_name: deployment.spec.cluster_name.clone(),
            deletion: deployment.spec.deletion.clone(),
            machine_naming: deployment.spec.machine_naming.clone(),
            replicas: Some(replicas),
            selector,
            template,
        },
        status: None,
    });
    plan.event(deployment, EventType::Normal, "SuccessfulCreate", format!("Created MachineSet {name}"));
}

/// Of a set, and of the deployment: the newest of its sets.
pub fn revision(object: &impl kube::Resource) -> i64 {
    owner::annotation_of(object.meta(), names::REVISION_ANNOTATION).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// What of the two templates calls for new machines; `None` if nothing does.
pub fn difference(wanted: &MachineTemplate, have: &MachineTemplate) -> Option<String> {
    let (wanted, have) = (&wanted.spec, &have.spec);
    let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".into());
    if wanted.version != have.version {
        return Some(format!("Version {}, {} required", shown(&have.version), shown(&wanted.version)));
    }
    if wanted.failure_domain != have.failure_domain {
        let (have, wanted) = (shown(&have.failure_domain), shown(&wanted.failure_domain));
        return Some(format!("Failure domain {have}, {wanted} required"));
    }
    if wanted.bootstrap != have.bootstrap {
        let name = |bootstrap: &api::machine::Bootstrap| {
            bootstrap.config_ref.as_ref().map(|reference| format!("{} {}", reference.kind, reference.name))
        };
        return Some(format!("{}, {} required", shown(&name(&have.bootstrap)), shown(&name(&wanted.bootstrap))));
    }
    if wanted.infrastructure_ref != have.infrastructure_ref {
        let (have, wanted) = (&have.infrastructure_ref, &wanted.infrastructure_ref);
        return Some(format!("{} {}, {} {} required", have.kind, have.name, wanted.kind, wanted.name));
    }
    (wanted.cluster_name != have.cluster_name)
        .then(|| format!("Cluster {}, {} required", have.cluster_name, wanted.cluster_name))
}

/// Labels and annotations that a set has from its deployment, without those that are about the deployment itself or that each
/// set has of its own.
fn inherited(deployment: &MachineDeployment) -> TemplateMeta {
    let mut labels = deployment.spec.template.metadata.as_ref().map(|meta| meta.labels.clone()).unwrap_or_default();
    labels.retain(|key, _| !OWN_LABELS.contains(&key.as_str()));
    let annotations = deployment.metadata.annotations.iter().flatten();
    let annotations = annotations.filter(|(key, _)| !key.starts_with(OWN_PREFIX) && !OWN.contains(&key.as_str()));
    TemplateMeta { labels, annotations: annotations.map(|(key, value)| (key.clone(), value.clone())).collect() }
}

/// Gives the set, an old one too, what changes without replacing machines (Cluster API: in-place propagation).
fn carry_over(deployment: &MachineDeployment, set: &mut MachineSet) {
    let template = &deployment.spec.template;
    propagation::carry(&mut set.metadata, Some(&inherited(deployment)));
    set.spec.deletion = deployment.spec.deletion.clone();
    set.spec.machine_naming = deployment.spec.machine_naming.clone();
    let spec = &mut set.spec.template.spec;
    spec.deletion = template.spec.deletion.clone();
    spec.min_ready_seconds = template.spec.min_ready_seconds;
    spec.readiness_gates = template.spec.readiness_gates.clone();
    spec.taints = template.spec.taints.clone();
    let own = set.spec.template.metadata.get_or_insert_default();
    let mut labels = template.metadata.as_ref().map(|meta| meta.labels.clone()).unwrap_or_default();
    for key in OWN_LABELS {
        if let Some(value) = own.labels.get(key) {
            labels.insert(key.to_owned(), value.clone());
        }
    }
    own.labels = labels;
    own.annotations = template.metadata.as_ref().map(|meta| meta.annotations.clone()).unwrap_or_default();
}

/// A short name of a template: equal templates have equal names.
fn template_hash(template: &MachineTemplate) -> String {
    let mut rolled = template.clone();
    rolled.metadata = None;
    let spec = &mut rolled.spec;
    (spec.deletion, spec.min_ready_seconds) = (None, None);
    spec.readiness_gates.clear();
    spec.taints.clear();
    fingerprint(&rolled)
}

/// A short name of what objects are made from.
pub fn fingerprint(of: &impl serde::Serialize) -> String {
    let text = serde_json::to_vec(of).expect("API types serialize to JSON: string keys only");
    // FNV-1a, 32 bits: stable between releases.
    let hash = text.iter().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    hash.to_string()
}
