//! The controller of what machines are made from (OpenStackMachineTemplate, OpenStackMachinePool): says what such a machine has, so
//! that an autoscaler knows it of a set or pool that has none.
//!
//! Source: kubernetes-sigs/cluster-api-provider-openstack controllers/openstackmachinetemplate_controller.go; Cluster API's
//! contract of InfraMachineTemplate, "autoscaling from zero"; kubernetes/autoscaler cloudprovider/clusterapi, which reads
//! `status.capacity` and `status.nodeInfo` of whatever `infrastructureRef` names, a pool too. A flavour does not change, and a
//! template but in the address pairs of its ports, so each is asked for once. Pairs that change are given to the machines that were
//! made from the template; upstream leaves those of control planes out.

use std::{collections::BTreeMap, marker::PhantomData, sync::Arc};

use api::{
    cluster::Cluster,
    condition::{self, Statement},
    meta::{Condition, Time},
    names::CLONED_FROM_NAME_ANNOTATION,
    openstack_cluster::OpenStackCluster,
    openstack_machine::{OpenStackMachine, OpenStackMachineSpec, OpenStackMachineTemplate, TemplateNodeInfo},
    openstack_machine_pool::OpenStackMachinePool,
};
use control::{Cache, Cached, Key, Outcome, Plan, Reconcile};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use openstack::compute::Flavor;

use super::{Shared, find, names, passes::Aim, stop::Result};
use crate::{Caches, machine_deployment::fingerprint, owner};

const KNOWN: &str = "CapacityKnown";
/// Pause while the cluster's infrastructure is waited for.
const PAUSE_S: u64 = 15;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// What machines are made from.
pub trait Template: Cached + kube::Resource<DynamicType = ()> + serde::Serialize + PartialEq + Clone {
    const NAME: &'static str;

    fn cache(caches: &Caches) -> &Cache<Self>;
    /// The name of its cluster, if it belongs to one.
    fn cluster(&self, caches: &Caches, namespace: &str) -> Option<String>;
    fn machine(&self) -> &OpenStackMachineSpec;
    fn conditions(&self) -> &[Condition];
    /// Whether it was looked at since it changed.
    fn is_seen(&self) -> bool;
    /// Writes what was found, if anything was, and returns the conditions.
    fn tell(&mut self, found: Option<Found>) -> &mut Vec<Condition>;
}

/// What a machine has.
pub struct Found {
    capacity: BTreeMap<String, IntOrString>,
    node_info: Option<TemplateNodeInfo>,
}

impl Template for OpenStackMachineTemplate {
    const NAME: &'static str = "openstackmachinetemplate";

    fn cache(caches: &Caches) -> &Cache<Self> {
        &caches.openstack_templates
    }

    /// Those of a ClusterClass belong to no cluster: patches may yet change them.
    fn cluster(&self, _: &Caches, _: &str) -> Option<String> {
        owner::owner_of_kind(&self.metadata, "Cluster").map(|owner| owner.name.clone())
    }

    fn machine(&self) -> &OpenStackMachineSpec {
        &self.spec.template.spec
    }

    fn conditions(&self) -> &[Condition] {
        self.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default()
    }

    fn is_seen(&self) -> bool {
        condition::get(self.conditions(), KNOWN)
            .is_some_and(|known| known.observed_generation == self.metadata.generation)
    }

    fn tell(&mut self, found: Option<Found>) -> &mut Vec<Condition> {
        let status = self.status.get_or_insert_default();
        if let Some(found) = found {
            (status.capacity, status.node_info) = (found.capacity, found.node_info);
        }
        &mut status.conditions
    }
}

impl Template for OpenStackMachinePool {
    const NAME: &'static str = "openstackmachinepoolcapacity";

    fn cache(caches: &Caches) -> &Cache<Self> {
        &caches.openstack_machine_pools
    }

    fn cluster(&self, caches: &Caches, namespace: &str) -> Option<String> {
        let pool = owner::owner_of_kind(&self.metadata, "MachinePool")?;
        Some(caches.machine_pools.get(&Key::new(namespace, pool.name.as_str()))?.spec.cluster_name.clone())
    }

    fn machine(&self) -> &OpenStackMachineSpec {
        &self.spec.template.spec
    }

    fn conditions(&self) -> &[Condition] {
        self.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default()
    }

    /// Its generation goes on with each server that comes or goes.
    fn is_seen(&self) -> bool {
        let seen = self.status.as_ref().and_then(|status| status.capacity_template_hash.as_deref());
        seen == Some(hash(self.machine()).as_str())
    }

    fn tell(&mut self, found: Option<Found>) -> &mut Vec<Condition> {
        let hash = hash(self.machine());
        let status = self.status.get_or_insert_default();
        status.capacity_template_hash = Some(hash);
        if let Some(found) = found {
            (status.capacity, status.node_info) = (found.capacity, found.node_info);
        }
        &mut status.conditions
    }
}

/// Of what a look asks for.
fn hash(spec: &OpenStackMachineSpec) -> String {
    fingerprint(&(&spec.flavor, &spec.image, &spec.root_volume, &spec.identity_ref))
}

pub struct Templates<T>(Arc<Shared>, PhantomData<fn() -> T>);

impl<T> Templates<T> {
    pub fn new(shared: Arc<Shared>) -> Self {
        Self(shared, PhantomData)
    }
}

pub struct Seen<T> {
    pub template: Arc<T>,
    /// Those that were made from it, and stay when it changes.
    pub machines: Vec<Arc<OpenStackMachine>>,
    pub cluster: Option<Arc<Cluster>>,
    pub infra_cluster: Option<Arc<OpenStackCluster>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    Nothing,
    /// The cluster has no infrastructure yet that says which cloud it is.
    Wait,
    Look,
}

impl<T: Template> Reconcile for Templates<T> {
    const NAME: &'static str = T::NAME;
    type Seen = Seen<T>;
    type Plan = Work;

    async fn observe(&self, key: &Key) -> control::Result<Option<Seen<T>>> {
        let caches = &self.0.caches;
        let Some(template) = T::cache(caches).get(key) else { return Ok(None) };
        let name = template.cluster(caches, &key.namespace).unwrap_or_default();
        let cluster = caches.cluster(&key.namespace, &name);
        let reference = cluster.as_ref().and_then(|cluster| cluster.spec.infrastructure_ref.clone());
        let infra_cluster = reference
            .and_then(|reference| caches.openstack_clusters.get(&Key::new(key.namespace.as_str(), reference.name)));
        let mut machines = caches.openstack_machines.in_cluster(&key.namespace, &name);
        machines.retain(|machine| {
            owner::annotation_of(&machine.metadata, CLONED_FROM_NAME_ANNOTATION) == Some(&key.name)
                && machine.metadata.deletion_timestamp.is_none()
        });
        Ok(Some(Seen { template, machines, cluster, infra_cluster }))
    }

    fn plan(&self, seen: &Seen<T>, _: Timestamp) -> Work {
        plan(seen)
    }

    async fn act(&self, key: &Key, seen: &Seen<T>, work: Work) -> control::Result<Outcome> {
        match (work, &seen.cluster, &seen.infra_cluster) {
            (Work::Look, Some(cluster), Some(infra)) => self.look(key, seen, cluster, infra).await,
            (Work::Wait, ..) => Ok(Outcome::waiting("the infrastructure of the cluster", PAUSE_S)),
            _ => Ok(Outcome::Settled),
        }
    }
}

pub fn plan<T: Template>(seen: &Seen<T>) -> Work {
    let template = seen.template.as_ref();
    let known = condition::is_true(template.conditions(), KNOWN) && template.is_seen();
    let Some(cluster) = &seen.cluster else { return Work::Nothing };
    if known
        || template.meta().deletion_timestamp.is_some()
        || cluster.metadata.deletion_timestamp.is_some()
        || owner::is_paused(Some(cluster), template.meta())
    {
        return Work::Nothing;
    }
    if seen.infra_cluster.is_some() { Work::Look } else { Work::Wait }
}

impl<T: Template> Templates<T> {
    async fn look(
        &self,
        key: &Key,
        seen: &Seen<T>,
        cluster: &Cluster,
        infra: &OpenStackCluster,
    ) -> control::Result<Outcome> {
        let template = seen.template.as_ref();
        let now = Time(self.0.writer.clock().now());
        let doubts = self.0.begin(T::NAME, key, Aim::Ensure);
        let done = self.read(key, template.machine(), cluster, infra).await;
        self.0.end(T::NAME, key, &done, doubts);
        let statement = match &done {
            Ok(_) => Statement::yes(KNOWN, KNOWN),
            Err(stop) => {
                let (reason, message) = stop.told();
                Statement::no(KNOWN, reason, message)
            }
        };
        let (found, failed) = match done {
            Ok(found) => (Some(found), None),
            Err(stop) => (None, Some(stop)),
        };
        let mut after = template.clone();
        condition::set(after.tell(found), statement, template.meta().generation, &now);
        let mut plan = Plan::nothing();
        // Once for each change: what somebody gives a machine afterwards stays.
        for machine in seen.machines.iter().filter(|_| !template.is_seen()) {
            plan.update(machine.as_ref(), &paired(machine, template.machine()));
        }
        plan.update(template, &after);
        let written = self.0.writer.execute(plan).await?;
        failed.map_or(Ok(written), super::stop::Stop::outcome)
    }

    async fn read(
        &self,
        key: &Key,
        spec: &OpenStackMachineSpec,
        cluster: &Cluster,
        infra: &OpenStackCluster,
    ) -> Result<Found> {
        let identity = spec.identity_ref.as_ref().unwrap_or(&infra.spec.identity_ref);
        let resource = names::resource(&key.namespace, cluster.metadata.name.as_deref().unwrap_or_default());
        let scope = self.0.scopes.open(&key.namespace, identity, resource, Vec::new()).await?;
        let scope = self.0.during(T::NAME, key, scope);
        let flavor = find::flavor(&scope.cloud, &spec.flavor).await?;
        let image = find::image(&scope, &spec.image).await?;
        let system = Some(image.os_type).filter(|system| !system.is_empty());
        Ok(Found {
            capacity: capacity(&flavor, spec),
            node_info: system.map(|system| TemplateNodeInfo { operating_system: Some(system) }),
        })
    }
}

/// The machine with the address pairs that the template has for its ports, in their order.
fn paired(machine: &OpenStackMachine, template: &OpenStackMachineSpec) -> OpenStackMachine {
    let mut after = machine.clone();
    for (port, wanted) in after.spec.ports.iter_mut().zip(&template.ports) {
        port.allowed_address_pairs.clone_from(&wanted.allowed_address_pairs);
    }
    after
}

/// Resources by name, as nodes have them.
fn capacity(flavor: &Flavor, spec: &OpenStackMachineSpec) -> BTreeMap<String, IntOrString> {
    let root = spec.root_volume.as_ref().and_then(|volume| u64::try_from(volume.size_gi_b).ok());
    let disk = root.filter(|size| *size > 0).unwrap_or(flavor.disk);
    let all = [
        ("cpu", flavor.vcpus.to_string(), flavor.vcpus > 0),
        ("memory", binary(flavor.ram.saturating_mul(MIB)), flavor.ram > 0),
        ("ephemeral-storage", binary(flavor.ephemeral.saturating_mul(GIB)), flavor.ephemeral > 0),
        ("storage", binary(disk.saturating_mul(GIB)), disk > 0),
    ];
    let there = all.into_iter().filter(|(.., there)| *there);
    there.map(|(name, value, _)| (name.to_owned(), IntOrString::String(value))).collect()
}

/// A quantity as Kubernetes writes it: the largest unit that leaves a whole number.
fn binary(bytes: u64) -> String {
    let (mut left, mut unit) = (bytes, 0);
    const UNITS: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    while left != 0 && left.is_multiple_of(1024) && unit + 1 < UNITS.len() {
        left /= 1024;
        unit += 1;
    }
    format!("{left}{}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pool_is_looked_at_once_and_again_when_its_machines_are_made_otherwise() {
        let mut pool = OpenStackMachinePool::default();
        let seen = |pool: &OpenStackMachinePool| Seen {
            template: Arc::new(pool.clone()),
            machines: Vec::new(),
            cluster: Some(Arc::default()),
            infra_cluster: Some(Arc::default()),
        };
        assert_eq!(plan(&seen(&pool)), Work::Look);
        condition::set(pool.tell(None), Statement::no(KNOWN, "Away", "-"), Some(1), &Time(Timestamp::UNIX_EPOCH));
        assert_eq!(plan(&seen(&pool)), Work::Look, "nothing was found out yet");
        condition::set(pool.tell(None), Statement::yes(KNOWN, KNOWN), Some(1), &Time(Timestamp::UNIX_EPOCH));
        pool.metadata.generation = Some(9);
        pool.spec.provider_id_list = vec!["openstack:///1".into()];
        assert_eq!(plan(&seen(&pool)), Work::Nothing, "a server came");
        pool.spec.template.spec.flavor = serde_json::from_value(json!({"id": "larger"})).unwrap();
        assert_eq!(plan(&seen(&pool)), Work::Look);
    }

    #[test]
    fn a_template_is_looked_at_once_and_again_when_it_changes() {
        let mut template = OpenStackMachineTemplate::default();
        template.metadata.generation = Some(1);
        let seen = |template: &OpenStackMachineTemplate| Seen {
            template: Arc::new(template.clone()),
            machines: Vec::new(),
            cluster: Some(Arc::default()),
            infra_cluster: Some(Arc::default()),
        };
        assert_eq!(plan(&seen(&template)), Work::Look);
        let conditions = &mut template.status.get_or_insert_default().conditions;
        condition::set(conditions, Statement::yes(KNOWN, KNOWN), Some(1), &Time(Timestamp::UNIX_EPOCH));
        assert_eq!(plan(&seen(&template)), Work::Nothing);
        template.metadata.generation = Some(2);
        assert_eq!(plan(&seen(&template)), Work::Look);
    }

    #[test]
    fn ports_of_machines_get_the_address_pairs_of_the_template_s_in_their_order() {
        let spec = |ports: serde_json::Value| -> OpenStackMachineSpec {
            serde_json::from_value(json!({"flavor": {"id": "f"}, "image": {"id": "i"}, "ports": ports})).unwrap()
        };
        let pairs = |ip: &str| json!([{"ipAddress": ip}]);
        let own = json!([{"nameSuffix": "a", "allowedAddressPairs": pairs("10.0.0.1")}, {"nameSuffix": "b"}]);
        let machine = OpenStackMachine { spec: spec(own), ..OpenStackMachine::default() };
        let template = spec(json!([{"nameSuffix": "x"}, {"allowedAddressPairs": pairs("10.0.0.2")}, {}]));
        let wanted = json!([{"nameSuffix": "a"}, {"nameSuffix": "b", "allowedAddressPairs": pairs("10.0.0.2")}]);
        assert_eq!(serde_json::to_value(paired(&machine, &template).spec.ports).unwrap(), wanted);
    }

    #[test]
    fn what_a_flavour_has_is_written_as_nodes_write_it() {
        let flavor = Flavor { vcpus: 4, ram: 8192, disk: 40, ephemeral: 0, ..Flavor::default() };
        let told = |spec: serde_json::Value| {
            serde_json::to_value(capacity(&flavor, &serde_json::from_value(spec).unwrap())).unwrap()
        };
        let spec = json!({"flavor": {"id": "f"}, "image": {"id": "i"}});
        assert_eq!(told(spec.clone()), json!({"cpu": "4", "memory": "8Gi", "storage": "40Gi"}));
        let mut with_volume = spec;
        with_volume["rootVolume"] = json!({"sizeGiB": 1536});
        assert_eq!(told(with_volume)["storage"], "1536Gi");
        assert_eq!([0, 1, 1536, 5 << 20, 1 << 40].map(binary), ["0", "1", "1536", "5Mi", "1Ti"]);
    }
}
