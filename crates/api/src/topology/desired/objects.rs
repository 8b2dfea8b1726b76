//! The objects themselves, made of patched templates and of what topology and class say.

use serde_json::{Map, Value, json};

use super::{Generator, NAME_MAX, SUFFIX_CHARS, TopologyError, either, joined, over, put, template, text};
use crate::names::{
    CLONED_FROM_KIND_ANNOTATION, CLONED_FROM_NAME_ANNOTATION, CLUSTER_LABEL, CONTROL_PLANE_LABEL, TOPOLOGY_OWNED_LABEL,
    digest,
};

/// Content is told apart by more than names.
const CONTENT_CHARS: usize = 10;
pub(super) const TIMEOUTS: [&str; 3] =
    ["nodeDrainTimeoutSeconds", "nodeVolumeDetachTimeoutSeconds", "nodeDeletionTimeoutSeconds"];

/// A reference to an object by its group, kind and name.
pub(super) fn contract_reference(object: &Value) -> Value {
    let group = text(object, "/apiVersion").split_once('/').map_or("", |(group, _)| group);
    json!({"apiGroup": group, "kind": object["kind"], "name": object["metadata"]["name"]})
}

impl Generator<'_> {
    pub(super) fn owner(&self) -> Value {
        json!({
            "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Cluster", "name": self.cluster_name(), "uid": self.uid(),
            "controller": true, "blockOwnerDeletion": true,
        })
    }

    /// The Cluster as an owner beside the controller of an object.
    pub(super) fn second_owner(&self) -> Value {
        json!({
            "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Cluster", "name": self.cluster_name(), "uid": self.uid(),
        })
    }

    /// Labels of everything that the topology owns.
    pub(super) fn labels(&self) -> Map<String, Value> {
        Map::from_iter([
            (CLUSTER_LABEL.to_owned(), self.cluster_name().into()),
            (TOPOLOGY_OWNED_LABEL.to_owned(), "".into()),
        ])
    }

    pub(super) fn object(
        &self,
        like: &Value,
        kind: &str,
        name: &str,
        labels: Map<String, Value>,
        annotations: Map<String, Value>,
        spec: Value,
    ) -> Value {
        let mut all = labels;
        all.extend(self.labels());
        let mut metadata =
            json!({"name": name, "namespace": self.seen.cluster["metadata"]["namespace"], "labels": all});
        if !annotations.is_empty() {
            metadata["annotations"] = annotations.into();
        }
        json!({"apiVersion": like["apiVersion"], "kind": kind, "metadata": metadata, "spec": spec})
    }

    /// Where an object was made from.
    pub(super) fn cloned(template: &Value) -> Map<String, Value> {
        let group = text(template, "/apiVersion").split_once('/').map_or("", |(group, _)| group);
        Map::from_iter([
            (CLONED_FROM_NAME_ANNOTATION.to_owned(), template["metadata"]["name"].clone()),
            (CLONED_FROM_KIND_ANNOTATION.to_owned(), format!("{}.{group}", text(template, "/kind")).into()),
        ])
    }

    /// A name by the class' naming template, or by the usual one.
    pub(super) fn name(
        &self,
        template: &Value,
        usual: &str,
        data: Value,
        random: &str,
    ) -> Result<String, TopologyError> {
        let Some(text) = template["template"].as_str().filter(|text| !text.is_empty()) else {
            return Ok(joined(usual, random));
        };
        let mut data = data;
        data["cluster"] = json!({"name": self.cluster_name()});
        data["random"] = random.into();
        let name = template::render(text, &data)
            .map_err(|error| TopologyError::Template(format!("naming template: {error}")))?;
        Ok(if name.len() <= NAME_MAX { name } else { joined(&name, &digest(&[&name], SUFFIX_CHARS)) })
    }

    pub(super) fn infrastructure(&self, template: &Value) -> Result<Value, TopologyError> {
        let known = text(&self.seen.cluster, "/spec/infrastructureRef/name");
        let random = digest(&[self.uid(), "infrastructure"], SUFFIX_CHARS);
        let name = match known {
            "" => self.name(
                &self.seen.class["spec"]["infrastructure"]["naming"],
                self.cluster_name(),
                json!({}),
                &random,
            )?,
            known => known.to_owned(),
        };
        Ok(self.made_from(template, &name))
    }

    pub(super) fn made_from(&self, template: &Value, name: &str) -> Value {
        let inner = &template["spec"]["template"];
        let kind = text(template, "/kind").trim_end_matches("Template");
        let mut annotations = over(&[&inner["metadata"]["annotations"]]);
        annotations.extend(Self::cloned(template));
        let labels = over(&[&inner["metadata"]["labels"]]);
        let mut object = self.object(
            template,
            kind,
            name,
            labels,
            annotations,
            either(&inner["spec"], &json!({})).unwrap_or_default(),
        );
        object["metadata"]["ownerReferences"] = json!([self.owner()]);
        object
    }

    /// A name that another content makes another. Cluster and base count too: cluster `a` with workers `b-c` reads like `a-b`
    /// with workers `c`, and long names are cut.
    pub(super) fn of_content(&self, base: &str, object: &Value) -> String {
        let content = json!([object["apiVersion"], object["kind"], object["spec"]]).to_string();
        joined(base, &digest(&[self.cluster_name(), base, &content], CONTENT_CHARS))
    }

    /// A template for machines: its name follows from what is in it, and from nothing else that a move would change.
    pub(super) fn template(&self, template: &Value, base: &str, labels: Map<String, Value>) -> Value {
        let mut object = self.object(
            template,
            text(template, "/kind"),
            "",
            labels,
            Self::cloned(template),
            template["spec"].clone(),
        );
        object["metadata"]["name"] = self.of_content(base, &object).into();
        object["metadata"]["ownerReferences"] = json!([self.second_owner()]);
        object
    }

    pub(super) fn control_plane_name(&self) -> Result<String, TopologyError> {
        let known = text(&self.seen.cluster, "/spec/controlPlaneRef/name");
        if !known.is_empty() {
            return Ok(known.to_owned());
        }
        let random = digest(&[self.uid(), "control-plane"], SUFFIX_CHARS);
        self.name(&self.seen.class["spec"]["controlPlane"]["naming"], self.cluster_name(), json!({}), &random)
    }

    pub(super) fn control_plane_metadata(&self) -> Value {
        let (own, class) =
            (&self.topology["controlPlane"]["metadata"], &self.seen.class["spec"]["controlPlane"]["metadata"]);
        json!({"labels": over(&[&own["labels"], &class["labels"]]), "annotations": over(&[&own["annotations"], &class["annotations"]])})
    }

    pub(super) fn control_plane(&self, template: &Value, machines: Option<&Value>) -> Result<Value, TopologyError> {
        let (own, class) = (&self.topology["controlPlane"], &self.seen.class["spec"]["controlPlane"]);
        let metadata = self.control_plane_metadata();
        let mut object = self.made_from(template, &self.control_plane_name()?);
        for part in ["labels", "annotations"] {
            let all = over(&[&object["metadata"][part], &metadata[part]]);
            put(&mut object, &["metadata", part], (!all.is_empty()).then(|| all.into()));
        }
        let spec = &mut object["spec"];
        put(spec, &["version"], Some(self.upgrade.control_plane.clone().into()));
        put(spec, &["replicas"], either(&own["replicas"], &Value::Null));
        put(spec, &["rollout", "after"], either(&own["rollout"]["after"], &Value::Null));
        if let Some(machines) = machines {
            put(spec, &["machineTemplate", "spec", "infrastructureRef"], Some(contract_reference(machines)));
            let given = spec["machineTemplate"]["metadata"].clone();
            let labels = over(&[&self.labels().into(), &metadata["labels"], &given["labels"]]);
            let annotations = over(&[&metadata["annotations"], &given["annotations"]]);
            put(spec, &["machineTemplate", "metadata", "labels"], Some(labels.into()));
            put(
                spec,
                &["machineTemplate", "metadata", "annotations"],
                (!annotations.is_empty()).then(|| annotations.into()),
            );
        }
        for field in ["readinessGates", "taints"] {
            put(spec, &["machineTemplate", "spec", field], either(&own[field], &class[field]));
        }
        for field in TIMEOUTS {
            put(
                spec,
                &["machineTemplate", "spec", "deletion", field],
                either(&own["deletion"][field], &class["deletion"][field]),
            );
        }
        Ok(object)
    }

    pub(super) fn holder(&self, api_version: &str, kind: &str, name: &str, path: &str) -> Value {
        let namespace = &self.seen.cluster["metadata"]["namespace"];
        json!({"apiVersion": api_version, "kind": kind, "namespace": namespace, "name": name, "fieldPath": path})
    }

    /// The Cluster's reference to a part, as what holds the part's template.
    pub(super) fn cluster_holder(&self, path: &str) -> Value {
        self.holder("cluster.x-k8s.io/v1beta2", "Cluster", self.cluster_name(), path)
    }

    /// The control plane's reference to the template of its machines. `template`: of the control plane.
    pub(super) fn machines_holder(&self, template: &Value) -> Result<Value, TopologyError> {
        let (kind, name) = (text(template, "/kind").trim_end_matches("Template"), self.control_plane_name()?);
        let path = "spec.machineTemplate.spec.infrastructureRef";
        Ok(self.holder(text(template, "/apiVersion"), kind, &name, path))
    }

    pub(super) fn control_plane_health_check(&self, control_plane: &Value) -> Option<Value> {
        let (own, class) = (&self.topology["controlPlane"], &self.seen.class["spec"]["controlPlane"]);
        let selector = Map::from_iter([
            (CLUSTER_LABEL.to_owned(), self.cluster_name().into()),
            (CONTROL_PLANE_LABEL.to_owned(), "".into()),
        ]);
        self.health_check(text(control_plane, "/metadata/name"), selector, &own["healthCheck"], &class["healthCheck"])
    }

    /// The topology's own checks take the place of the class', unless they are switched off.
    pub(super) fn health_check(
        &self,
        name: &str,
        selector: Map<String, Value>,
        own: &Value,
        class: &Value,
    ) -> Option<Value> {
        let is_given = |health: &Value| !health["checks"].is_null() || !health["remediation"].is_null();
        let health = if is_given(own) { own } else { class };
        if own["enabled"] == false || !is_given(health) {
            return None;
        }
        let mut spec = json!({"clusterName": self.cluster_name(), "selector": {"matchLabels": selector}});
        put(&mut spec, &["checks"], either(&health["checks"], &Value::Null));
        for field in ["triggerIf", "templateRef"] {
            put(&mut spec, &["remediation", field], either(&health["remediation"][field], &Value::Null));
        }
        let like = json!({"apiVersion": "cluster.x-k8s.io/v1beta2"});
        let mut object = self.object(&like, "MachineHealthCheck", name, Map::new(), Map::new(), spec);
        object["metadata"]["ownerReferences"] = json!([self.second_owner()]);
        Some(object)
    }
}
