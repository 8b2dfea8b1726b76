//! The OpenStackMachineTemplate controller: says what machines of a template have, so that an autoscaler knows it of a set
//! that has none.
//!
//! Source: kubernetes-sigs/cluster-api-provider-openstack controllers/openstackmachinetemplate_controller.go; Cluster API's
//! contract of InfraMachineTemplate, "autoscaling from zero". A template does not change and a flavour does not either, so
//! each is asked for once.

use std::{collections::BTreeMap, sync::Arc};

use api::{
    cluster::Cluster,
    condition::{self, Statement},
    meta::Time,
    openstack_cluster::OpenStackCluster,
    openstack_machine::{
        OpenStackMachineSpec, OpenStackMachineTemplate, OpenStackMachineTemplateStatus, TemplateNodeInfo,
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
        Ok(Some(Seen { template, cluster, infra_cluster }))
    }

    fn plan(&self, seen: &Seen, _: Timestamp) -> Work {
        plan(seen)
    }

    async fn act(&self, key: &Key, seen: &Seen, work: Work) -> control::Result<Outcome> {
        match (work, &seen.cluster, &seen.infra_cluster) {
            (Work::Look, Some(cluster), Some(infra)) => self.look(key, &seen.template, cluster, infra).await,
            (Work::Wait, ..) => Ok(Outcome::waiting("the infrastructure of the cluster", PAUSE_S)),
            _ => Ok(Outcome::Settled),
        }
    }
}

pub fn plan(seen: &Seen) -> Work {
    let template = &seen.template;
    let known = template.status.as_ref().is_some_and(|status| condition::is_true(&status.conditions, KNOWN));
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

impl Templates {
    async fn look(
        &self,
        key: &Key,
        template: &OpenStackMachineTemplate,
        cluster: &Cluster,
        infra: &OpenStackCluster,
    ) -> control::Result<Outcome> {
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
