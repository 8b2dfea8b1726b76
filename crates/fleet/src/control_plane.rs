//! The KubeadmControlPlane controller: certificates, the administrator's kubeconfig, and the machines that serve the
//! API, one operation at a time.
//!
//! Source: kubernetes-sigs/cluster-api controlplane/kubeadm/reconcilers/kubeadmcontrolplane.

mod addons;
mod adoption;
mod conditions;
mod deletion;
mod etcd;
mod expiry;
mod in_place;
mod kubeadm_config;
mod machines;
mod preflight;
mod remediation;
mod rights;
mod rollout;
mod sight;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc};

use api::{
    cluster::Cluster,
    cluster_configuration::ClusterConfiguration,
    control_plane::KubeadmControlPlane,
    kubeadm::KubeadmConfig,
    machine::Machine,
    meta::Time,
    names::{self, Purpose},
};
use control::{Error, EventType, Key, Outcome, Plan, Reconcile, Result};
use jiff::Timestamp;
use k8s_openapi::{
    ByteString,
    api::core::v1::{Node, Pod, Secret},
};
use kube::core::ObjectMeta;

pub use self::machines::NODE_ROLE;
use self::sight::{End, Sight};
use crate::{
    Context, adoption::orphans, bootstrap, certificates, external::External, naming::Suffixes, owner, unacted,
    workload::Probe,
};

/// Pause while something is waited for whose end no event tells.
const PAUSE_S: u64 = 2;
/// Pause while the static pods of a new machine come up.
const HEALTH_PAUSE_S: u64 = 1;
/// Pause while something is not well that was, or that does not come up.
const TROUBLE_PAUSE_S: u64 = 10;
/// After this time a new machine counts as one that does not come up.
const STARTS_S: i64 = 600;
/// In a settled state the pods are looked at this often.
const SETTLED_PAUSE_S: u64 = 60;

pub struct ControlPlanes {
    context: Arc<Context>,
    sight: Sight,
}

pub struct Seen {
    pub control_plane: Arc<KubeadmControlPlane>,
    pub cluster: Option<Arc<Cluster>>,
    /// Those that the control plane controls, oldest first, with what is known of them now.
    pub machines: Vec<Arc<Machine>>,
    /// The same as they were read.
    pub observed: Vec<Arc<Machine>>,
    /// Machines of the control plane that nobody controls and that may be adopted now.
    pub orphans: Vec<Arc<Machine>>,
    /// Names of the machines of the control plane that others control.
    pub foreign: Vec<String>,
    /// Workers and machines of nobody: a control plane goes last.
    pub others: usize,
    /// Clones that carry the control plane's label by their name, and those of the machines by the machine's.
    pub configs: BTreeMap<String, Arc<KubeadmConfig>>,
    pub infrastructures: BTreeMap<String, External>,
    pub template: Option<External>,
    pub certificates: Vec<(Purpose, Arc<Secret>)>,
    pub kubeconfig: Option<Arc<Secret>>,
    /// The nodes of the machines, as far as they are known, by name.
    pub nodes: BTreeMap<String, Arc<Node>>,
    /// The static pods, by name; `Err` says why they are not known.
    pub pods: std::result::Result<BTreeMap<String, Pod>, String>,
    /// The members of its own etcd; `Err` says why they are not known. None before there is one.
    pub etcd: Option<std::result::Result<Arc<etcd::Look>, String>>,
    /// The workload cluster answered a short while ago.
    pub fresh: bool,
    /// The API answers and kubeadm has left its configuration there.
    pub initialized: bool,
    /// There is a connection to the workload cluster; one that is made wakes the control plane.
    pub connected: bool,
    pub suffixes: Suffixes,
    /// What an extension says of updating a machine in place; nothing unless there is one that could.
    pub in_place: in_place::Asked,
}

/// Changes in the Management API, and keys to make first.
#[derive(Default)]
pub struct ControlPlanePlan {
    pub local: Plan,
    pub keys: Vec<Purpose>,
    pub kubeconfig: bool,
    /// A rollout is under way: the workload cluster is told what is declared before a machine joins it.
    pub rollout: bool,
    /// All is as declared: kube-proxy and CoreDNS may follow.
    pub addons: bool,
    /// What etcd is asked before anything else is done.
    pub etcd: Option<etcd::Change>,
    /// API servers whose certificates are to be looked at.
    pub expiries: Vec<expiry::Unread>,
    /// A machine is made, which ends a remediation that waited for it.
    pub creates: bool,
    /// A machine is deleted because it is ill.
    pub remediates: bool,
    /// What is not well, so that nothing more is done: said in an event, once for each new answer.
    pub unwell: Option<String>,
    /// The machine that an extension is asked about first: whether it can be updated in place.
    pub asks: Option<String>,
    /// Machines that are to be updated in place: what their owner writes now.
    pub updates: Vec<in_place::Change>,
}

impl Reconcile for ControlPlanes {
    const NAME: &'static str = "kubeadmcontrolplane";
    type Seen = Seen;
    type Plan = ControlPlanePlan;

    async fn observe(&self, key: &Key) -> Result<Option<Seen>> {
        let caches = &self.context.caches;
        let Some(control_plane) = caches.control_planes.get(key) else { return Ok(None) };
        let now = self.context.writer.clock().now();
        let namespace = key.namespace.as_str();
        let owning = owner::owner_of_kind(&control_plane.metadata, "Cluster");
        let cluster = owning.and_then(|owner| caches.cluster(namespace, &owner.name));
        let name = owning.map(|owner| owner.name.clone()).unwrap_or_default();
        let (mut machines, others): (Vec<_>, Vec<_>) = caches
            .machines
            .in_cluster(namespace, &name)
            .into_iter()
            .partition(|machine| owner::is_controlled_by(&machine.metadata, &control_plane.metadata));
        machines.sort_by_key(|machine| {
            (machine.metadata.creation_timestamp.as_ref().map(|time| time.0), Key::of(machine.as_ref()))
        });
        let is_ours = |meta: &ObjectMeta| owner::label_of(meta, names::CONTROL_PLANE_LABEL).is_some();
        let client = self.context.writer.client();
        let orphans = orphans(client, control_plane.as_ref(), cluster.as_deref(), &others, is_ours).await?;
        let is_foreign =
            |machine: &&Arc<Machine>| is_ours(&machine.metadata) && owner::controller(&machine.metadata).is_some();
        let foreign = others.iter().filter(is_foreign).map(|machine| rollout::name_of(machine).to_owned()).collect();
        let label = Some(key.name.as_str());
        let mine = |meta: &ObjectMeta| owner::label_of(meta, names::CONTROL_PLANE_NAME_LABEL) == label;
        let reference = &control_plane.spec.machine_template.spec.infrastructure_ref;
        let kind = reference.kind.strip_suffix("Template").unwrap_or(&reference.kind);
        let certificates = certificates::PURPOSES
            .into_iter()
            .chain([Purpose::EtcdClient])
            .filter_map(|purpose| Some((purpose, caches.secret(namespace, &purpose.secret_name(&name))?)));
        let target = Key::new(namespace, name.as_str());
        // One that goes is asked nothing: its API goes with it, and 200 that do not answer would hold up all others.
        let goes = control_plane.metadata.deletion_timestamp.is_some();
        let runs = machines.iter().any(|machine| {
            machine.spec.provider_id.is_some()
                || machine.status.as_ref().is_some_and(|status| status.node_ref.is_some())
        });
        let pods = if runs && !goes {
            match self.context.workloads.control_plane_pods(&target).await {
                Ok(pods) => Ok(pods.into_iter().filter_map(|pod| Some((pod.metadata.name.clone()?, pod))).collect()),
                Err(error) => Err(error.chain()),
            }
        } else {
            Ok(BTreeMap::new())
        };
        let node = |machine: &Arc<Machine>| {
            let name = machine.status.as_ref()?.node_ref.as_ref()?.name.clone();
            let node = self.context.workloads.node_named(&target, &name)?;
            Some((name, node))
        };
        let nodes = machines.iter().filter_map(node).collect();
        let before = control_plane.status.as_ref().and_then(|status| status.initialization.as_ref());
        let initialized = before.is_some_and(|before| before.control_plane_initialized == Some(true))
            || (!goes
                && self.context.workloads.probe(&target) == Some(Probe::Succeeded)
                && self.context.workloads.is_initialized(&target).await?);
        let fresh = match &pods {
            Ok(_) => {
                self.sight.answers(&target, now);
                true
            }
            Err(_) => self.sight.is_fresh(&target, now),
        };
        if goes {
            self.sight.forget(&target);
        }
        let mut configs: BTreeMap<String, Arc<KubeadmConfig>> = caches
            .configs
            .in_cluster(namespace, &name)
            .into_iter()
            .filter(|config| mine(&config.metadata))
            .map(|config| (Key::of(config.as_ref()).name, config))
            .collect();
        let mut infrastructures: BTreeMap<String, External> = caches
            .kinds
            .in_cluster(&reference.api_group, kind, namespace, &name)
            .into_iter()
            .filter(|infrastructure| mine(&infrastructure.meta))
            .map(|infrastructure| (infrastructure.key().name, infrastructure))
            .collect();
        adoption::add_parts(caches, machines.iter().chain(&orphans), &mut configs, &mut infrastructures);
        let mut seen = Seen {
            cluster,
            orphans,
            foreign,
            others: others.len(),
            configs,
            infrastructures,
            template: caches.external(namespace, Some(reference)),
            certificates: certificates.collect(),
            etcd: None,
            fresh,
            kubeconfig: caches.secret(namespace, &Purpose::Kubeconfig.secret_name(&name)),
            nodes,
            pods,
            initialized,
            connected: self.context.workloads.client(&target).is_some(),
            suffixes: Suffixes::seeded((self.context.random)()),
            in_place: in_place::Asked::default(),
            observed: machines.clone(),
            machines,
            control_plane,
        };
        if !goes {
            seen.etcd = self.look(&target, &seen, now).await;
        }
        seen.machines = machines::updated(&seen, None, &Time(now)).into_iter().map(Arc::new).collect();
        in_place::ask(&self.context, &mut seen, &Time(now)).await?;
        Ok(Some(seen))
    }

    fn plan(&self, seen: &Seen, now: Timestamp) -> ControlPlanePlan {
        plan(seen, &Time(now))
    }

    async fn act(&self, _: &Key, seen: &Seen, mut plan: ControlPlanePlan) -> Result<Outcome> {
        let now = self.context.writer.clock().now();
        // All at once, on as many cores as there are: RSA takes a twentieth of a second each.
        let (algorithm, days) = key_options(&seen.control_plane);
        let make = |purpose| tokio::task::spawn_blocking(move || certificates::generate(purpose, algorithm, days, now));
        let made: Vec<_> = std::mem::take(&mut plan.keys).into_iter().map(|purpose| (purpose, make(purpose))).collect();
        for (purpose, pair) in made {
            let pair = pair.await.map_err(|error| Error::bug(format!("making keys ended early: {error}")))??;
            let data = [("tls.crt", pair.public), ("tls.key", pair.private)];
            plan.local.create(&secret(seen, purpose, &data));
        }
        if plan.kubeconfig {
            let secret = self.kubeconfig(seen, now).await?;
            plan.local.create_or_replace(&secret, seen.kubeconfig.as_deref());
        }
        if let (true, Some(cluster)) = (plan.rollout, &seen.cluster) {
            let version = &seen.control_plane.spec.version;
            rights::grant(&self.context.workloads, &Key::of(cluster.as_ref()), version).await?;
            kubeadm_config::publish(&self.context.workloads, cluster, &seen.control_plane).await?;
        }
        // Leadership moves before the machine goes. A member is removed after what is known of it was told, which an etcd that
        // refuses for long must not hold up.
        let (before, after) = match plan.etcd.take() {
            Some(change) if change.remove.is_some() => (None, Some(change)),
            change => (change, None),
        };
        if let (Some(change), Some(cluster)) = (&before, &seen.cluster) {
            self.etcd(&Key::of(cluster.as_ref()), &seen.certificates).await?.change(change).await?;
        }
        self.read_expiries(seen, &plan.expiries, &mut plan.local).await;
        let outcome = self.context.writer.execute(plan.local).await?;
        if let (Some(change), Some(cluster)) = (&after, &seen.cluster) {
            self.etcd(&Key::of(cluster.as_ref()), &seen.certificates).await?.change(change).await?;
        }
        if let (true, Some(cluster)) = (plan.addons, &seen.cluster) {
            addons::upgrade(&self.context.workloads, &Key::of(cluster.as_ref()), &seen.control_plane).await?;
        }
        Ok(outcome)
    }
}

impl ControlPlanes {
    pub fn new(context: Arc<Context>) -> Self {
        Self { context, sight: Sight::default() }
    }

    async fn etcd(&self, cluster: &Key, certificates: &[(Purpose, Arc<Secret>)]) -> Result<etcd::Access> {
        let (public, private) = key_pair(certificates, Purpose::Etcd, &cluster.name)?;
        let now = self.context.writer.clock().now();
        let tls = self.sight.access(cluster, certificates::Pair { public, private }, now)?;
        Ok(etcd::Access::new(etcd::Forwarded(self.context.workloads.try_client(cluster).await?), tls))
    }

    /// Notes when certificates end. What cannot be asked now is asked later: nothing waits for it.
    async fn read_expiries(&self, seen: &Seen, unread: &[expiry::Unread], local: &mut Plan) {
        let Some(cluster) = seen.cluster.as_deref().map(Key::of) else { return };
        let nodes: Vec<_> = unread.iter().map(|unread| unread.node.as_str()).collect();
        self.sight.keep_ends_of(&cluster, &nodes);
        if unread.is_empty() {
            return;
        }
        let now = self.context.writer.clock().now();
        let authority = key_pair(&seen.certificates, Purpose::Ca, &cluster.name);
        let client = self.context.workloads.try_client(&cluster).await;
        let (Ok((authority, _)), Ok(client)) = (authority, client) else { return };
        let read = unread.iter().map(async |unread| {
            let end = match self.sight.end(&cluster, &unread.node, now) {
                End::Known(end) => return Some((unread, end)),
                End::Asked => return None,
                End::Due => expiry::read(&client, unread, &authority).await,
            };
            match end {
                Ok(end) => {
                    self.sight.keep_end(&cluster, &unread.node, now, end);
                    Some((unread, end))
                }
                Err(why) => {
                    tracing::debug!(%cluster, node = unread.node, why, "the end of certificates is not known");
                    None
                }
            }
        });
        for read in futures::future::join_all(read).await {
            match read {
                Some((unread, end)) => local.update(unread.config.as_ref(), &expiry::noted(&unread.config, end)),
                None => local.wait("the end of certificates", sight::READ_EVERY_S),
            };
        }
    }

    /// The members of etcd: asked anew if anything is to be done or is not well, or if that is long ago.
    async fn look(
        &self,
        cluster: &Key,
        seen: &Seen,
        now: Timestamp,
    ) -> Option<std::result::Result<Arc<etcd::Look>, String>> {
        let nodes = machines::nodes(seen);
        if nodes.is_empty() || !machines::has_own_etcd(&seen.control_plane) {
            return None;
        }
        if let Err(why) = &seen.pods {
            return Some(Err(why.clone()));
        }
        let last = self.sight.last(cluster, &nodes, now);
        if let Some(look) = last.filter(|_| preflight::is_settled(seen, &Time(now))) {
            return Some(Ok(look));
        }
        let access = match self.etcd(cluster, &seen.certificates).await {
            Ok(access) => access,
            Err(error) => return Some(Err(error.chain())),
        };
        let look = access.look(&nodes).await.map(Arc::new);
        if let Ok(look) = &look {
            self.sight.keep(cluster, &nodes, look, now);
        }
        Some(look)
    }

    async fn kubeconfig(&self, seen: &Seen, now: Timestamp) -> Result<Secret> {
        let cluster = seen.cluster.clone().ok_or_else(|| Error::bug("a kubeconfig is planned for no cluster"))?;
        let name = cluster.metadata.name.clone().unwrap_or_default();
        let endpoint = bootstrap::endpoint(&cluster).ok_or_else(|| Error::bug("a kubeconfig needs an endpoint"))?;
        let (public, private) = key_pair(&seen.certificates, Purpose::Ca, &name)?;
        let algorithm = key_options(&seen.control_plane).0;
        let made = tokio::task::spawn_blocking(move || {
            let ca = certificates::Pair { public, private };
            certificates::kubeconfig(&name, &endpoint, &ca, algorithm, now)
        });
        let text = made.await.map_err(|error| Error::bug(format!("making a kubeconfig ended early: {error}")))??;
        Ok(secret(seen, Purpose::Kubeconfig, &[("value", text)]))
    }
}

/// The certificate and the key of an authority.
fn key_pair(certificates: &[(Purpose, Arc<Secret>)], wanted: Purpose, cluster: &str) -> Result<(String, String)> {
    let read = |key: &str| {
        let (_, secret) = certificates.iter().find(|(purpose, _)| *purpose == wanted)?;
        String::from_utf8(secret.data.as_ref()?.get(key)?.0.clone()).ok()
    };
    read("tls.crt").zip(read("tls.key")).ok_or_else(|| {
        let name = wanted.secret_name(cluster);
        Error::blocked("CertificatesCorrupted", format!("{name} lacks tls.crt or tls.key"))
    })
}

type KeyOptions = (Option<api::cluster_configuration::EncryptionAlgorithm>, Option<i32>);

/// What the user says about keys: their algorithm, and the authorities' validity in days.
fn key_options(control_plane: &KubeadmControlPlane) -> KeyOptions {
    let configuration = cluster_configuration(control_plane);
    let configuration =
        configuration.map(|found| (found.encryption_algorithm, found.ca_certificate_validity_period_days));
    configuration.unwrap_or_default()
}

fn cluster_configuration(control_plane: &KubeadmControlPlane) -> Option<&ClusterConfiguration> {
    control_plane.spec.kubeadm_config_spec.as_ref()?.cluster_configuration.as_ref()
}

/// A secret of the cluster, owned by its control plane.
fn secret(seen: &Seen, purpose: Purpose, data: &[(&str, String)]) -> Secret {
    let cluster = seen.cluster.as_ref().and_then(|cluster| cluster.metadata.name.clone()).unwrap_or_default();
    Secret {
        metadata: ObjectMeta {
            name: Some(purpose.secret_name(&cluster)),
            namespace: seen.control_plane.metadata.namespace.clone(),
            labels: Some([(names::CLUSTER_LABEL.to_owned(), cluster)].into()),
            owner_references: Some(vec![owner::reference(seen.control_plane.as_ref(), true)]),
            ..ObjectMeta::default()
        },
        type_: Some(names::SECRET_TYPE.to_owned()),
        data: Some(data.iter().map(|(key, text)| ((*key).to_owned(), ByteString(text.clone().into_bytes()))).collect()),
        ..Secret::default()
    }
}

pub fn plan(seen: &Seen, now: &Time) -> ControlPlanePlan {
    let control_plane = seen.control_plane.as_ref();
    let mut plan = ControlPlanePlan::default();
    let mut after = control_plane.clone();
    let Some(cluster) = &seen.cluster else {
        if control_plane.metadata.deletion_timestamp.is_some() {
            // Its cluster is gone: nothing can be left that this control plane made without it.
            owner::remove_finalizer(&mut after.metadata, names::CONTROL_PLANE_FINALIZER);
            plan.local.update(control_plane, &after);
        }
        // Its cluster's controller makes itself the owner, which brings it here again.
        return plan;
    };
    let paused = owner::is_paused(Some(cluster), &control_plane.metadata);
    let deleting = control_plane.metadata.deletion_timestamp.is_some();
    let mut blocked = None;
    let decision = (!paused && !deleting).then(|| remediation::decide(seen, cluster, now)).flatten();
    if paused {
        conditions::set(seen, &mut after, None, None, true, now);
        plan.local.update(control_plane, &after);
        return plan;
    }
    if deleting {
        if delete(seen, &mut plan) {
            owner::remove_finalizer(&mut after.metadata, names::CONTROL_PLANE_FINALIZER);
            plan.local.update(control_plane, &after);
            return plan;
        }
    } else if !owner::has_finalizer(&control_plane.metadata, names::CONTROL_PLANE_FINALIZER) {
        owner::add_finalizer(&mut after.metadata, names::CONTROL_PLANE_FINALIZER);
    } else {
        blocked = advance(seen, cluster, decision.as_ref(), now, &mut plan).err();
    }
    unacted::tell(
        control_plane,
        control_plane.status.as_ref().and_then(|status| status.observed_generation),
        Vec::new(),
        &mut plan.local,
    );
    adopt_template(seen, cluster, &mut plan.local);
    let mut updated = machines::updated(seen, decision.as_ref(), now);
    in_place::apply(seen, &plan.updates, &mut updated, &mut plan.local);
    machines::update(seen, &updated, &mut plan.local);
    conditions::set(seen, &mut after, decision.as_ref(), blocked.as_deref(), false, now);
    remediation::record(seen, decision.as_ref().filter(|_| plan.remediates), plan.creates, &mut after);
    if plan.remediates {
        // What is recorded of a remediation comes before it.
        let mut first = Plan::nothing();
        first.update(control_plane, &after);
        plan.local.steps.splice(0..0, first.steps);
    } else {
        plan.local.update(control_plane, &after);
    }
    if let Some(why) = plan.unwell.take().filter(|why| is_news(seen, why, now)) {
        let why = format!("Waiting for control plane to pass preflight checks to continue reconciliation: {why}");
        plan.local.event(control_plane, EventType::Warning, "ControlPlaneUnhealthy", why);
    }
    if !deleting {
        let pause_s = match &blocked {
            // Etcd has been told, and is asked what came of it.
            _ if plan.etcd.is_some() => Some(HEALTH_PAUSE_S),
            // The cluster's change wakes it, and the connection that is made to the workload cluster.
            Some(_) if seen.machines.is_empty() || !(seen.initialized || seen.connected) => Some(SETTLED_PAUSE_S),
            Some(_) if !seen.initialized => Some(PAUSE_S),
            Some(_) => Some(pause_s(seen, now).min(TROUBLE_PAUSE_S)),
            None => (!seen.machines.is_empty()).then(|| pause_s(seen, now)),
        };
        if let Some(pause_s) = pause_s {
            plan.local.wait(blocked.as_deref().unwrap_or("the control plane's health"), pause_s);
        }
        if let Some(due_s) = remediation::due_in_s(seen, now) {
            plan.local.wait("the retry period of a remediation", due_s);
        }
    }
    plan
}

/// Whether nothing has been said of it yet. Of machines that just start it is not said at all.
fn is_news(seen: &Seen, why: &str, now: &Time) -> bool {
    let told = seen.control_plane.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    pause_s(seen, now) != HEALTH_PAUSE_S && !told.iter().any(|condition| condition.message.contains(why))
}

/// Until the workload cluster is looked at again.
fn pause_s(seen: &Seen, now: &Time) -> u64 {
    let mut unwell = seen.machines.iter().filter(|machine| !preflight::is_healthy(seen, machine)).peekable();
    if unwell.peek().is_none() {
        return SETTLED_PAUSE_S;
    }
    let age_s = |made: &Time| now.0.duration_since(made.0).as_secs();
    let starts =
        |machine: &Arc<Machine>| machine.metadata.creation_timestamp.as_ref().is_none_or(|made| age_s(made) < STARTS_S);
    if unwell.any(starts) { HEALTH_PAUSE_S } else { TROUBLE_PAUSE_S }
}

/// The cluster owns the template, so that it moves and goes with it.
fn adopt_template(seen: &Seen, cluster: &Cluster, plan: &mut Plan) {
    if let Some(template) = &seen.template {
        let mut meta = template.meta.clone();
        owner::ensure(&mut meta, owner::reference(cluster, false));
        plan.update_metadata(&template.resource, &template.meta, &meta);
    }
}

/// The next step towards what is declared; `Err` says what it waits for.
fn advance(
    seen: &Seen,
    cluster: &Cluster,
    decision: Option<&remediation::Decision>,
    now: &Time,
    plan: &mut ControlPlanePlan,
) -> Result<(), String> {
    let started = cluster.status.as_ref().and_then(|status| status.initialization.clone()).unwrap_or_default();
    if started.infrastructure_provisioned != Some(true) {
        return Err("Waiting for Cluster infrastructure to be ready".to_owned());
    }
    if !seen.orphans.is_empty() && bootstrap::endpoint(cluster).is_some() {
        return adoption::step(seen, plan);
    }
    if let Some(name) = seen.foreign.first() {
        return Err(format!(
            "Machine {name} of the control plane is controlled by another object: a control plane has one owner"
        ));
    }
    let have = |purpose: &Purpose| seen.certificates.iter().any(|(found, _)| found == purpose);
    let (made, given) = certificates::needed(cluster_configuration(&seen.control_plane));
    plan.keys = made.into_iter().filter(|purpose| !have(purpose)).collect();
    if !plan.keys.is_empty() {
        return Ok(());
    }
    if let Some(missing) = given.iter().find(|purpose| !have(purpose)) {
        let name = missing.secret_name(cluster.metadata.name.as_deref().unwrap_or_default());
        return Err(format!("Waiting for the Secret {name}: an external etcd's certificates are its user's to bring"));
    }
    if bootstrap::endpoint(cluster).is_none() {
        return Err("Waiting for Cluster to have a valid spec.controlPlaneEndpoint".to_owned());
    }
    adoption::take_secrets(seen, plan);
    plan.kubeconfig = match &seen.kubeconfig {
        None => true,
        // Only its own: a kubeconfig that somebody else made is left alone.
        Some(secret) if owner::is_controlled_by(&secret.metadata, &seen.control_plane.metadata) => {
            let text = secret.data.as_ref().and_then(|data| std::str::from_utf8(&data.get("value")?.0).ok());
            text.is_none_or(|text| certificates::is_stale(text, now.0))
        }
        Some(_) => false,
    };
    plan.rollout = rollout::is_due(seen, now);
    rollout::step(seen, cluster, decision, now, plan)?;
    plan.addons = rollout::is_complete(seen, now);
    plan.expiries = expiry::unread(seen);
    Ok(())
}

/// Deletes all machines at once when nothing but the control plane is left; true when none is left.
fn delete(seen: &Seen, plan: &mut ControlPlanePlan) -> bool {
    if seen.others > 0 {
        plan.local.wait(format!("{} worker machines to go", seen.others), PAUSE_S);
        return false;
    }
    for machine in &seen.machines {
        machines::release(machine, &mut plan.local);
        if machine.metadata.deletion_timestamp.is_none() {
            plan.local.delete(machine.as_ref());
        }
    }
    let unbound = rollout::unfinished(seen);
    for name in &unbound {
        if let Some(config) = seen.configs.get(name) {
            plan.local.delete(config.as_ref());
        }
        if let Some(infrastructure) = seen.infrastructures.get(name) {
            plan.local.delete_external(&infrastructure.resource, &infrastructure.meta);
        }
    }
    seen.machines.is_empty() && unbound.is_empty()
}
