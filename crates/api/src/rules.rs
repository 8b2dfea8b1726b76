//! The rules in CEL that the published CRDs carry: rule and message word for word, for users meet them as errors.
//!
//! Source: `config/crd/bases` of kubernetes-sigs/cluster-api (v1beta2) and of the OpenStack provider (v1beta2).

use serde_json::{Value, json};

/// Where a rule stands: the kinds by the start of their name, and the end of the field's path, in which `[]` is a
/// list's items. A path that starts with a dot is the whole path.
struct Place {
    kinds: &'static [&'static str],
    path: &'static str,
    /// Rule and message.
    rules: &'static [(&'static str, &'static str)],
}

const KUBEADM: &[&str] = &["Kubeadm"];
const OPENSTACK: &[&str] = &["OpenStack"];
const UNIQUE: &str = "self.all(x, self.exists_one(y, x.name == y.name))";
const ZONE: &[(&str, &str)] = &[(
    "!has(self.from) || self.from == 'Name' ? has(self.name) : !has(self.name)",
    "name is required when from is 'Name' or default",
)];
const CLUSTER: &[(&str, &str)] = &[
    (
        "has(self.enableExternalNetwork) && !self.enableExternalNetwork ? !has(self.bastion) || !has(self.bastion.floatingIP) \
         : true",
        "bastion floating IP cannot be set when enableExternalNetwork is false",
    ),
    (
        "has(self.enableExternalNetwork) && !self.enableExternalNetwork ? has(self.apiServer) && \
         has(self.apiServer.enableFloatingIP) && !self.apiServer.enableFloatingIP : true",
        "apiServer.enableFloatingIP cannot be true when enableExternalNetwork is false",
    ),
];

const PLACES: [Place; 16] = [
    Place { kinds: KUBEADM, path: "extraArgs", rules: &[(UNIQUE, "extraArgs name must be unique")] },
    Place { kinds: KUBEADM, path: "kubeletExtraArgs", rules: &[(UNIQUE, "kubeletExtraArgs name must be unique")] },
    Place {
        kinds: KUBEADM,
        path: "diskSetup.partitions[]",
        rules: &[(
            "[has(self.layout),has(self.diskLayout)].filter(x,x==true).size() == 1",
            "exactly one of the fields in [layout diskLayout] must be set",
        )],
    },
    Place {
        kinds: KUBEADM,
        path: "diskLayout[].partitionType",
        rules: &[(
            "self.matches('^(Linux|LinuxSwap|LinuxRAID|LVM|Fat32|NTFS|LinuxExtended|[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12})$')",
            "partitionType must be one of Linux, LinuxSwap, LinuxRAID, LVM, Fat32, NTFS, LinuxExtended or a full GPT partition GUID",
        )],
    },
    Place {
        kinds: &["Cluster", "MachineHealthCheck"],
        path: "unhealthyMachineConditions[].type",
        rules: &[(
            "!(self in ['Ready','Available','HealthCheckSucceeded','OwnerRemediated','ExternallyRemediated'])",
            "type must not be one of: Ready, Available, HealthCheckSucceeded, OwnerRemediated, ExternallyRemediated",
        )],
    },
    Place {
        kinds: &["MachineDrainRule"],
        path: "spec.machines",
        rules: &[("self.all(x, self.exists_one(y, x == y))", "entries in machines must be unique")],
    },
    Place {
        kinds: &["MachineDrainRule"],
        path: "spec.pods",
        rules: &[("self.all(x, self.exists_one(y, x == y))", "entries in pods must be unique")],
    },
    Place { kinds: &["OpenStackCluster"], path: ".spec", rules: CLUSTER },
    Place { kinds: &["OpenStackClusterTemplate"], path: ".spec.template.spec", rules: CLUSTER },
    Place {
        kinds: &["OpenStackCluster"],
        path: "spec.bastion",
        rules: &[("!self.enabled || has(self.spec)", "spec is required if bastion is enabled")],
    },
    Place { kinds: OPENSTACK, path: "storage.volume.availabilityZone", rules: ZONE },
    Place { kinds: OPENSTACK, path: "rootVolume.availabilityZone", rules: ZONE },
    Place {
        kinds: OPENSTACK,
        path: "identityRef",
        rules: &[(
            "(!has(self.region) && !has(oldSelf.region)) || self.region == oldSelf.region",
            "region is immutable",
        )],
    },
    Place {
        kinds: OPENSTACK,
        path: "schedulerHintAdditionalProperties[].value",
        rules: &[
            (
                "has(self.type) && self.type == 'Bool' ? has(self.bool) : !has(self.bool)",
                "bool is required when type is Bool, and forbidden otherwise",
            ),
            (
                "has(self.type) && self.type == 'Number' ? has(self.number) : !has(self.number)",
                "number is required when type is Number, and forbidden otherwise",
            ),
            (
                "has(self.type) && self.type == 'String' ? has(self.string) : !has(self.string)",
                "string is required when type is String, and forbidden otherwise",
            ),
        ],
    },
    Place {
        kinds: &["OpenStackCluster"],
        path: "managedNetwork",
        rules: &[(
            "self == null || has(self.mtu) || has(self.enablePortSecurity)",
            "managedNetwork must not be empty if set",
        )],
    },
    Place {
        kinds: &["OpenStackCluster"],
        path: "managedRouter",
        rules: &[("has(self.externalIPs)", "managedRouter must not be empty if set")],
    },
];

impl Place {
    fn is(&self, kind: &str, path: &str) -> bool {
        let kinds = self.kinds.iter().any(|start| kind.strip_prefix(start).is_some_and(|rest| self.fits(rest)));
        let ends = path.strip_suffix(self.path).is_some_and(|before| before.is_empty() || before.ends_with('.'));
        kinds && if self.path.starts_with('.') { path == self.path } else { ends }
    }

    /// A whole path is one kind's alone.
    fn fits(&self, rest: &str) -> bool {
        rest.is_empty() || !self.path.starts_with('.')
    }
}

/// Puts the published rules into the schemas of a kind's definition (its `spec`).
pub(crate) fn add(kind: &str, spec: &mut Value) {
    for version in spec["versions"].as_array_mut().into_iter().flatten() {
        if let Some(schema) = version.pointer_mut("/schema/openAPIV3Schema") {
            walk(kind, "", schema);
        }
    }
}

fn walk(kind: &str, path: &str, schema: &mut Value) {
    let rules: Vec<Value> = PLACES
        .iter()
        .filter(|place| place.is(kind, path))
        .flat_map(|place| place.rules)
        .map(|(rule, message)| json!({"rule": rule, "message": message}))
        .collect();
    if !rules.is_empty() {
        schema["x-kubernetes-validations"] = rules.into();
    }
    if let Some(items) = schema.get_mut("items") {
        walk(kind, &format!("{path}[]"), items);
    }
    for (name, field) in schema.get_mut("properties").and_then(Value::as_object_mut).into_iter().flatten() {
        walk(kind, &format!("{path}.{name}"), field);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use crate::crd;

    #[test]
    fn every_published_rule_of_a_field_is_there() {
        let mut counts = BTreeMap::new();
        for crd in crd::all() {
            let text = serde_json::to_string(&crd.spec.versions[0]).unwrap();
            counts.insert(crd.spec.names.kind.clone(), text.matches("\"rule\":").count());
        }
        // As many as `config/crd/bases` have.
        let expected = [
            ("App", 0),
            ("AppCatalogEntry", 0),
            ("Catalog", 0),
            ("Chart", 0),
            ("Cluster", 2),
            ("ClusterClass", 4),
            ("ClusterResourceSet", 0),
            ("ClusterResourceSetBinding", 0),
            ("ExtensionConfig", 0),
            ("IPAddress", 0),
            ("IPAddressClaim", 0),
            ("Image", 10),
            ("KubeadmConfig", 8),
            ("KubeadmConfigTemplate", 8),
            ("KubeadmControlPlane", 8),
            ("KubeadmControlPlaneTemplate", 8),
            ("Machine", 0),
            ("MachineDeployment", 0),
            ("MachineDrainRule", 2),
            ("MachineHealthCheck", 1),
            ("MachinePool", 0),
            ("MachineSet", 0),
            ("OpenStackCluster", 12),
            ("OpenStackClusterTemplate", 12),
            ("OpenStackClusterIdentity", 0),
            ("OpenStackFloatingIPPool", 1),
            ("OpenStackServer", 7),
            ("OpenStackMachine", 6),
            ("OpenStackMachineTemplate", 6),
            ("OpenStackMachinePool", 6),
            ("OpenStackMachinePoolTemplate", 6),
            ("Release", 0),
        ];
        assert_eq!(counts, expected.map(|(kind, count)| (kind.to_owned(), count)).into());
    }
}
