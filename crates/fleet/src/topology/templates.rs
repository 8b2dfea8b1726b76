//! The templates that a ClusterClass names are its own: they are moved with it, and go with it.
//!
//! Source: kubernetes-sigs/cluster-api docs/book/src/reference/api/owner-references.md.

use api::{cluster_class::ClusterClass, meta::ContractRef};
use control::{Key, Plan};
use serde_json::Value;

use crate::{Caches, owner};

/// Pause while a template is waited for: it may be a line further down in what a user applies.
const PAUSE_S: u64 = 15;

/// What the class names in its `templateRef`s.
fn named(class: &ClusterClass) -> Vec<ContractRef> {
    fn walk(value: &Value, found: &mut Vec<ContractRef>) {
        match value {
            Value::Object(fields) => {
                for (name, field) in fields {
                    let text = |key: &str| field[key].as_str();
                    if let ("templateRef", Some(version), Some(kind), Some(target)) =
                        (name.as_str(), text("apiVersion"), text("kind"), text("name"))
                    {
                        let group = version.split_once('/').map_or("", |(group, _)| group);
                        let api_group = group.to_owned();
                        found.push(ContractRef { api_group, kind: kind.to_owned(), name: target.to_owned() });
                    } else {
                        walk(field, found);
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| walk(item, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    class.spec.fields.values().for_each(|field| walk(field, &mut found));
    found.sort_by(|a, b| (&a.api_group, &a.kind, &a.name).cmp(&(&b.api_group, &b.kind, &b.name)));
    found.dedup();
    found
}

/// Makes the class an owner of its templates.
pub(super) fn adopt(caches: &Caches, class: &ClusterClass, plan: &mut Plan) {
    if class.metadata.deletion_timestamp.is_some() || owner::is_paused(None, &class.metadata) {
        return;
    }
    let namespace = Key::of(class).namespace;
    for reference in named(class) {
        match caches.kinds.get(&namespace, &reference) {
            Some(template) if !template.deleting() => {
                let mut meta = template.meta.clone();
                owner::ensure(&mut meta, owner::reference(class, false));
                plan.update_metadata(&template.resource, &template.meta, &meta);
            }
            None if caches.kinds.resource(&reference.api_group, &reference.kind).is_some() => {
                plan.wait(format!("{} {}", reference.kind, reference.name), PAUSE_S);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_template_is_named_once() {
        let template =
            |kind: &str| json!({"templateRef": {"apiVersion": "x.example/v1", "kind": kind, "name": "base"}});
        let class = json!({"metadata": {"name": "c"}, "spec": {
            "infrastructure": template("ClusterTemplate"),
            "controlPlane": {
                "templateRef": template("ControlPlaneTemplate")["templateRef"], "machineInfrastructure": template("MachineTemplate"),
            },
            "workers": {"machineDeployments": [{"bootstrap": template("ConfigTemplate"), "infrastructure": template("MachineTemplate")}]},
        }});
        let class: ClusterClass = serde_json::from_value(class).unwrap();
        let found = named(&class);
        let kinds: Vec<&str> = found.iter().map(|reference| reference.kind.as_str()).collect();
        assert_eq!(kinds, ["ClusterTemplate", "ConfigTemplate", "ControlPlaneTemplate", "MachineTemplate"]);
        assert_eq!(found[0].api_group, "x.example");
    }
}
