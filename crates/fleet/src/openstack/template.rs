//! The OpenStackMachineTemplate controller: says what machines of a template have, so that an autoscaler knows it of a set
//! that has none.
//!
//! Source: kubernetes-sigs/cluster-api-provider-openstack controllers/openstackmachinetemplate_controller.go; Cluster API's
//! contract of InfraMachineTemplate, "autoscaling from zero". A flavour does not change, and a template but in the address pairs
//! of its ports, so each is asked for once. Pairs that change are given to the machines that were made from the template; upstream
//! leaves those of control planes out.

use std::{collections::BTreeMap, sync::Arc};

use api::{
    cluster::Cluster,
    condition::{self, Statement},
    meta::Time,
    names::CLONED_FROM_NAME_ANNOTATION,
    openstack_cluster::OpenStackCluster,
    openstack_machine::{
        OpenStackMachine, OpenStackMachineSpec, OpenStackMachineTemplate, OpenStackMachineTemplateStatus,
        TemplateNodeInfo,
    },
};
use control::{Key, Outcome, Plan, Reconcile};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use openstack::compute::Flavor;

use super::{Shared, find, names, passes::Aim, stop::Result};
use crate::owner;

const KNOWN: &str = "CapacityKnown";
/// Pause while the cluster's infrastructure is waited for.
const PAUSE_S: u64 = 15;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

pub struct Templates(pub Arc<Shared>);

pub struct Seen {
    pub template: Arc<OpenStackMachineTemplate>,
    /// Those that were made from it.
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

impl Reconcile for Templates {
    const NAME: &'static str = "openstackmachinetemplate";
    type Seen = Seen;
    type Plan = Work;

    async fn observe(&self, key: &Key) -> control::Result<Option<Seen>> {
        let caches = &self.0.caches;
        let Some(template) = caches.openstack_templates.get(key) else { return Ok(None) };
        // Those of a ClusterClass belong to no cluster: patches may yet change them.
        let cluster = owner::owner_of_kind(&template.metadata, "Cluster");
        let cluster = cluster.and_then(|owner| caches.cluster(&key.namespace, &owner.name));
        let reference = cluster.as_ref().and_then(|cluster| cluster.spec.infrastructure_ref.clone());
        let infra_cluster = reference
            .and_then(|reference| caches.openstack_clusters.get(&Key::new(key.namespace.as_str(), reference.name)));
        let name = cluster.as_ref().and_then(|cluster| cluster.metadata.name.as_deref()).unwrap_or_default();
        let mut machines = caches.openstack_machines.in_cluster(&key.namespace, name);
        machines.retain(|machine| {
            owner::annotation_of(&machine.metadata, CLONED_FROM_NAME_ANNOTATION) == Some(&key.name)
                && machine.metadata.deletion_timestamp.is_none()
        });
        Ok(Some(Seen { template, machines, cluster, infra_cluster }))
    }

    fn plan(&self, seen: &Seen, _: Timestamp) -> Work {
        plan(seen)
    }

    async fn act(&self, key: &Key, seen: &Seen, work: Work) -> control::Result<Outcome> {
        match (work, &seen.cluster, &seen.infra_cluster) {
            (Work::Look, Some(cluster), Some(infra)) => self.look(key, seen, cluster, infra).await,
            (Work::Wait, ..) => Ok(Outcome::waiting("the infrastructure of the cluster", PAUSE_S)),
            _ => Ok(Outcome::Settled),
        }
    }
}

pub fn plan(seen: &Seen) -> Work {
    let template = &seen.template;
    let known = template.status.as_ref().is_some_and(|status| condition::is_true(&status.conditions, KNOWN));
    let known = known && is_seen(template);
    let Some(cluster) = &seen.cluster else { return Work::Nothing };
    if known
        || template.metadata.deletion_timestamp.is_some()
        || cluster.metadata.deletion_timestamp.is_some()
        || owner::is_paused(Some(cluster), &template.metadata)
    {
        return Work::Nothing;
    }
    if seen.infra_cluster.is_some() { Work::Look } else { Work::Wait }
}

/// Whether it was looked at since it changed.
fn is_seen(template: &OpenStackMachineTemplate) -> bool {
    let conditions = template.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    condition::get(conditions, KNOWN).is_some_and(|known| known.observed_generation == template.metadata.generation)
}

impl Templates {
    async fn look(
        &self,
        key: &Key,
        seen: &Seen,
        cluster: &Cluster,
        infra: &OpenStackCluster,
    ) -> control::Result<Outcome> {
        let template = seen.template.as_ref();
        let now = Time(self.0.writer.clock().now());
        let mut after = template.clone();
        let generation = after.metadata.generation;
        let status = after.status.get_or_insert_default();
        let doubts = self.0.begin(Self::NAME, key, Aim::Ensure);
        let done = self.read(key, &template.spec.template.spec, cluster, infra, status).await;
        self.0.end(Self::NAME, key, &done, doubts);
        let statement = match &done {
            Ok(()) => Statement::yes(KNOWN, KNOWN),
            Err(stop) => {
                let (reason, message) = stop.told();
                Statement::no(KNOWN, reason, message)
            }
        };
        condition::set(&mut status.conditions, statement, generation, &now);
        let mut plan = Plan::nothing();
        // Once for each change: what somebody gives a machine afterwards stays.
        for machine in seen.machines.iter().filter(|_| !is_seen(template)) {
            plan.update(machine.as_ref(), &paired(machine, &template.spec.template.spec));
        }
        plan.update(template, &after);
        let written = self.0.writer.execute(plan).await?;
        match done {
            Ok(()) => Ok(written),
            Err(stop) => stop.outcome(),
        }
    }

    async fn read(
        &self,
        key: &Key,
        spec: &OpenStackMachineSpec,
        cluster: &Cluster,
        infra: &OpenStackCluster,
        status: &mut OpenStackMachineTemplateStatus,
    ) -> Result<()> {
        let identity = spec.identity_ref.as_ref().unwrap_or(&infra.spec.identity_ref);
        let resource = names::resource(&key.namespace, cluster.metadata.name.as_deref().unwrap_or_default());
        let scope = self.0.scopes.open(&key.namespace, identity, resource, Vec::new()).await?;
        let scope = self.0.during(Self::NAME, key, scope);
        let flavor = find::flavor(&scope.cloud, &spec.flavor).await?;
        status.capacity = capacity(&flavor, spec);
        let image = find::image(&scope, &spec.image).await?;
        status.node_info =
            (!image.os_type.is_empty()).then_some(TemplateNodeInfo { operating_system: Some(image.os_type) });
        Ok(())
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
