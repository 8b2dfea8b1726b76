//! Workers: MachineDeployments with their templates, and MachinePools with the objects that they are made of.

use serde_json::{Map, Value, json};

use super::{
    Generator, Group, SUFFIX_CHARS, TopologyError, Workers, either, joined,
    objects::{TIMEOUTS, contract_reference},
    over, put, text, upgrade,
};
use crate::names::digest;

/// What topology and class may both say of machines; the topology wins.
const MACHINE_FIELDS: [&str; 4] = ["failureDomain", "minReadySeconds", "readinessGates", "taints"];

impl Generator<'_> {
    fn base(&self, own: &Value) -> String {
        format!("{}-{}", self.cluster_name(), text(own, "/name"))
    }

    /// The reference of workers to one of the things that they are made from.
    pub(super) fn workers_holder(
        &self,
        group: Group,
        own: &Value,
        class: &Value,
        path: &str,
    ) -> Result<Value, TopologyError> {
        let (name, path) = (self.workers_name(group, own, class)?, format!("spec.template.spec.{path}"));
        Ok(self.holder("cluster.x-k8s.io/v1beta2", group.kind(), &name, &path))
    }

    pub(super) fn workers_name(&self, group: Group, own: &Value, class: &Value) -> Result<String, TopologyError> {
        let topology = text(own, "/name");
        if let Some(current) = self.seen.made(group, topology) {
            return Ok(text(current, "/metadata/name").to_owned());
        }
        let what = match group {
            Group::Deployments => "deployment",
            Group::Pools => "pool",
        };
        let random = digest(&[self.uid(), what, topology], SUFFIX_CHARS);
        let data = json!({group.variable(): {"topologyName": topology}});
        self.name(&class["naming"], &self.base(own), data, &random)
    }

    fn group_label(group: Group, own: &Value) -> Map<String, Value> {
        Map::from_iter([(group.label().to_owned(), Value::from(text(own, "/name")))])
    }

    /// Labels and annotations of workers, and of their machines.
    pub(super) fn workers_metadata(
        &self,
        group: Group,
        own: &Value,
        class: &Value,
    ) -> (Map<String, Value>, Map<String, Value>) {
        let mut labels = over(&[&own["metadata"]["labels"], &class["metadata"]["labels"]]);
        labels.extend(Self::group_label(group, own));
        labels.extend(self.labels());
        let mut annotations = over(&[&own["metadata"]["annotations"], &class["metadata"]["annotations"]]);
        annotations.retain(|name, _| !upgrade::STEERING.contains(&name.as_str()));
        (labels, annotations)
    }

    /// The workers' object, without what only one group has.
    fn machines(
        &self,
        group: Group,
        own: &Value,
        class: &Value,
        version: &str,
        parts: [&Value; 2],
    ) -> Result<Value, TopologyError> {
        let name = self.workers_name(group, own, class)?;
        let (labels, annotations) = self.workers_metadata(group, own, class);
        let [bootstrap, infrastructure] = parts.map(contract_reference);
        let mut machine = json!({
            "clusterName": self.cluster_name(), "version": version,
            "bootstrap": {"configRef": bootstrap}, "infrastructureRef": infrastructure,
        });
        for field in MACHINE_FIELDS {
            put(&mut machine, &[field], either(&own[field], &class[field]));
        }
        for field in TIMEOUTS {
            put(&mut machine, &["deletion", field], either(&own["deletion"][field], &class["deletion"][field]));
        }
        let mut metadata = json!({ "labels": labels });
        put(&mut metadata, &["annotations"], (!annotations.is_empty()).then(|| annotations.clone().into()));
        let mut spec = json!({"clusterName": self.cluster_name(), "template": {"metadata": metadata, "spec": machine}});
        put(&mut spec, &["replicas"], either(&own["replicas"], &Value::Null));
        let like = json!({"apiVersion": "cluster.x-k8s.io/v1beta2"});
        let mut object = self.object(&like, group.kind(), &name, labels, annotations, spec);
        let mut owner = self.owner();
        owner["controller"] = false.into();
        object["metadata"]["ownerReferences"] = json!([owner]);
        Ok(object)
    }

    pub(super) fn deployment(
        &self,
        own: &Value,
        class: &Value,
        version: &str,
        bootstrap: &Value,
        infrastructure: &Value,
    ) -> Result<Workers, TopologyError> {
        let (group, base) = (Group::Deployments, self.base(own));
        let label = || Self::group_label(group, own);
        let (bootstrap, infrastructure) =
            (self.template(bootstrap, &base, label()), self.template(infrastructure, &base, label()));
        let mut selector = label();
        selector.extend(self.labels());
        let mut object = self.machines(group, own, class, version, [&bootstrap, &infrastructure])?;
        let spec = &mut object["spec"];
        put(spec, &["selector", "matchLabels"], Some(selector.clone().into()));
        put(spec, &["rollout", "after"], either(&own["rollout"]["after"], &Value::Null));
        put(spec, &["rollout", "strategy"], either(&own["rollout"]["strategy"], &class["rollout"]["strategy"]));
        put(spec, &["deletion", "order"], either(&own["deletion"]["order"], &class["deletion"]["order"]));
        let (own_health, class_health) = (&own["healthCheck"]["remediation"], &class["healthCheck"]["remediation"]);
        put(spec, &["remediation", "maxInFlight"], either(&own_health["maxInFlight"], &class_health["maxInFlight"]));
        let name = text(&object, "/metadata/name");
        let health_check = self.health_check(name, selector, &own["healthCheck"], &class["healthCheck"]);
        let topology = text(own, "/name").to_owned();
        Ok(Workers { group, topology, bootstrap, infrastructure, object, health_check })
    }

    /// It stays, whatever becomes of what it says: its servers are replaced.
    pub(super) fn pool_infrastructure_name(&self, own: &Value) -> String {
        let topology = text(own, "/name");
        let known = self.seen.made(Group::Pools, topology);
        match known.map_or("", |pool| text(pool, "/spec/template/spec/infrastructureRef/name")) {
            "" => joined(&self.base(own), &digest(&[self.uid(), "pool-infrastructure", topology], SUFFIX_CHARS)),
            known => known.to_owned(),
        }
    }

    /// A pool names objects, not templates: its servers, which follow what is said of them, and the configuration of its
    /// machines, which is rendered once: another makes another, and with it other machines.
    pub(super) fn pool(
        &self,
        own: &Value,
        class: &Value,
        version: &str,
        bootstrap: &Value,
        infrastructure: &Value,
    ) -> Result<Workers, TopologyError> {
        let group = Group::Pools;
        let part = |template: &Value| {
            let mut object = self.made_from(template, "");
            object["metadata"]["ownerReferences"] = json!([self.second_owner()]);
            object["metadata"]["labels"][group.label()] = own["name"].clone();
            object
        };
        let (mut bootstrap, mut infrastructure) = (part(bootstrap), part(infrastructure));
        bootstrap["metadata"]["name"] = self.of_content(&self.base(own), &bootstrap).into();
        infrastructure["metadata"]["name"] = self.pool_infrastructure_name(own).into();
        let mut object = self.machines(group, own, class, version, [&bootstrap, &infrastructure])?;
        put(&mut object["spec"], &["failureDomains"], either(&own["failureDomains"], &class["failureDomains"]));
        let topology = text(own, "/name").to_owned();
        Ok(Workers { group, topology, bootstrap, infrastructure, object, health_check: None })
    }
}
