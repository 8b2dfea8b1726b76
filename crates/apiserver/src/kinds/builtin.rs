//! The built-in kinds, as data. One row is all that a kind needs, but for the few with rules of their own.

use std::sync::{Arc, OnceLock};

use super::{Convert, Kind, Scale, Shape, Storage, Text};
use crate::{
    aggregation,
    strategy::{self, Strategy},
};

/// Which built-in kinds a server has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Profile {
    /// What controllers and people need of a management cluster: no nodes, no pods.
    Management,
    /// The kinds of a cluster that runs workloads, as well.
    Workload,
}

struct Row {
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
    short: &'static [&'static str],
    categories: &'static [&'static str],
    namespaced: bool,
    status: bool,
    scale: bool,
    review: bool,
    workload: bool,
    strategy: &'static Strategy,
    stored_as: Option<(&'static str, Convert, Convert)>,
}

const fn row(group: &'static str, version: &'static str, kind: &'static str, plural: &'static str) -> Row {
    Row {
        group,
        version,
        kind,
        plural,
        short: &[],
        categories: &[],
        namespaced: true,
        status: false,
        scale: false,
        review: false,
        workload: false,
        strategy: &strategy::PLAIN,
        stored_as: None,
    }
}

impl Row {
    const fn short(mut self, names: &'static [&'static str]) -> Self {
        self.short = names;
        self
    }

    /// In `kubectl get all`.
    const fn all(mut self) -> Self {
        self.categories = &["all"];
        self
    }

    const fn categories(mut self, names: &'static [&'static str]) -> Self {
        self.categories = names;
        self
    }

    const fn cluster(mut self) -> Self {
        self.namespaced = false;
        self
    }

    const fn status(mut self) -> Self {
        self.status = true;
        self
    }

    const fn scale(mut self) -> Self {
        self.scale = true;
        self
    }

    const fn review(mut self) -> Self {
        self.review = true;
        self
    }

    const fn workload(mut self) -> Self {
        self.workload = true;
        self
    }

    const fn by(mut self, strategy: &'static Strategy) -> Self {
        self.strategy = strategy;
        self
    }

    /// Shows the objects of another group (same plural, version v1).
    const fn stored_as(mut self, group: &'static str, from: Convert, to: Convert) -> Self {
        self.stored_as = Some((group, from, to));
        self
    }
}

const ADMISSION: &str = "admissionregistration.k8s.io";
const AUTHN: &str = "authentication.k8s.io";
const AUTHZ: &str = "authorization.k8s.io";
const RBAC: &str = "rbac.authorization.k8s.io";
const STORAGE: &str = "storage.k8s.io";

static ROWS: &[Row] = &[
    row("", "v1", "Namespace", "namespaces").short(&["ns"]).cluster().status().by(&strategy::NAMESPACE),
    row("", "v1", "ConfigMap", "configmaps").short(&["cm"]).by(&strategy::CONFIG_MAP),
    row("", "v1", "Secret", "secrets").by(&strategy::SECRET),
    row("", "v1", "Event", "events").short(&["ev"]).by(&strategy::EVENT),
    row("", "v1", "ServiceAccount", "serviceaccounts").short(&["sa"]).by(&strategy::SERVICE_ACCOUNT),
    row("events.k8s.io", "v1", "Event", "events").short(&["ev"]).by(&strategy::EVENT_V1).stored_as(
        "",
        strategy::event_from_core,
        strategy::event_to_core,
    ),
    row("coordination.k8s.io", "v1", "Lease", "leases").by(&strategy::CONDITIONAL),
    row(RBAC, "v1", "Role", "roles").by(&strategy::ROLE),
    row(RBAC, "v1", "RoleBinding", "rolebindings").by(&strategy::BINDING),
    row(RBAC, "v1", "ClusterRole", "clusterroles").cluster().by(&strategy::ROLE),
    row(RBAC, "v1", "ClusterRoleBinding", "clusterrolebindings").cluster().by(&strategy::BINDING),
    row("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions")
        .short(&["crd", "crds"])
        .categories(&["api-extensions"])
        .cluster()
        .status()
        .by(&strategy::CRD),
    row(aggregation::GROUP, "v1", "APIService", aggregation::PLURAL)
        .cluster()
        .categories(&["api-extensions"])
        .status()
        .workload()
        .by(&strategy::API_SERVICE),
    row(ADMISSION, "v1", "ValidatingWebhookConfiguration", "validatingwebhookconfigurations")
        .cluster()
        .categories(&["api-extensions"])
        .by(&strategy::VALIDATING_WEBHOOKS),
    row(ADMISSION, "v1", "MutatingWebhookConfiguration", "mutatingwebhookconfigurations")
        .cluster()
        .categories(&["api-extensions"])
        .by(&strategy::MUTATING_WEBHOOKS),
    row(ADMISSION, "v1", "ValidatingAdmissionPolicy", "validatingadmissionpolicies")
        .cluster()
        .categories(&["api-extensions"])
        .status()
        .by(&strategy::VALIDATING_POLICY),
    row(ADMISSION, "v1", "ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings")
        .cluster()
        .categories(&["api-extensions"])
        .by(&strategy::VALIDATING_BINDING),
    row(ADMISSION, "v1", "MutatingAdmissionPolicy", "mutatingadmissionpolicies")
        .cluster()
        .categories(&["api-extensions"])
        .by(&strategy::MUTATING_POLICY),
    row(ADMISSION, "v1", "MutatingAdmissionPolicyBinding", "mutatingadmissionpolicybindings")
        .cluster()
        .categories(&["api-extensions"])
        .by(&strategy::MUTATING_BINDING),
    row(AUTHN, "v1", "TokenReview", "tokenreviews").cluster().review(),
    row(AUTHN, "v1", "SelfSubjectReview", "selfsubjectreviews").cluster().review(),
    row(AUTHZ, "v1", "SubjectAccessReview", "subjectaccessreviews").cluster().review(),
    row(AUTHZ, "v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews").cluster().review(),
    row(AUTHZ, "v1", "SelfSubjectRulesReview", "selfsubjectrulesreviews").cluster().review(),
    row(AUTHZ, "v1", "LocalSubjectAccessReview", "localsubjectaccessreviews").review(),
    row("", "v1", "Node", "nodes").short(&["no"]).cluster().status().workload().by(&strategy::NODE),
    row("", "v1", "Pod", "pods").short(&["po"]).all().status().workload().by(&strategy::POD),
    row("", "v1", "Service", "services").short(&["svc"]).all().status().workload().by(&strategy::SERVICE),
    row("", "v1", "Endpoints", "endpoints").short(&["ep"]).workload(),
    row("", "v1", "PersistentVolume", "persistentvolumes")
        .short(&["pv"])
        .cluster()
        .status()
        .workload()
        .by(&strategy::RETURNED),
    row("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims")
        .short(&["pvc"])
        .status()
        .workload()
        .by(&strategy::RETURNED),
    row("", "v1", "ReplicationController", "replicationcontrollers")
        .short(&["rc"])
        .all()
        .status()
        .scale()
        .workload()
        .by(&strategy::WORKLOAD),
    row("", "v1", "PodTemplate", "podtemplates").workload().by(&strategy::RETURNED),
    row("", "v1", "LimitRange", "limitranges").short(&["limits"]).by(&strategy::LIMIT_RANGE),
    row("", "v1", "ResourceQuota", "resourcequotas").short(&["quota"]).status().by(&strategy::RETURNED),
    row("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices").workload().by(&strategy::GENERATION),
    row("apps", "v1", "Deployment", "deployments")
        .short(&["deploy"])
        .all()
        .status()
        .scale()
        .workload()
        .by(&strategy::WORKLOAD),
    row("apps", "v1", "ReplicaSet", "replicasets")
        .short(&["rs"])
        .all()
        .status()
        .scale()
        .workload()
        .by(&strategy::WORKLOAD),
    row("apps", "v1", "StatefulSet", "statefulsets")
        .short(&["sts"])
        .all()
        .status()
        .scale()
        .workload()
        .by(&strategy::WORKLOAD),
    row("apps", "v1", "DaemonSet", "daemonsets").short(&["ds"]).all().status().workload().by(&strategy::WORKLOAD),
    row("apps", "v1", "ControllerRevision", "controllerrevisions").workload(),
    row("batch", "v1", "Job", "jobs").all().status().workload().by(&strategy::WORKLOAD),
    row("batch", "v1", "CronJob", "cronjobs").short(&["cj"]).all().status().workload().by(&strategy::WORKLOAD),
    row("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
        .short(&["hpa"])
        .all()
        .status()
        .workload(),
    row("certificates.k8s.io", "v1", "CertificateSigningRequest", "certificatesigningrequests")
        .short(&["csr"])
        .cluster()
        .status()
        .workload()
        .by(&strategy::CSR),
    row(STORAGE, "v1", "StorageClass", "storageclasses").short(&["sc"]).cluster().workload().by(&strategy::RETURNED),
    row(STORAGE, "v1", "CSINode", "csinodes").cluster().workload().by(&strategy::RETURNED),
    row(STORAGE, "v1", "CSIDriver", "csidrivers").cluster().workload().by(&strategy::RETURNED),
    row(STORAGE, "v1", "CSIStorageCapacity", "csistoragecapacities").workload(),
    row(STORAGE, "v1", "VolumeAttachment", "volumeattachments").cluster().status().workload().by(&strategy::RETURNED),
    row("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses")
        .short(&["pc"])
        .cluster()
        .workload()
        .by(&strategy::GENERATION),
    row("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets")
        .short(&["pdb"])
        .status()
        .workload()
        .by(&strategy::GENERATION),
    row("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies")
        .short(&["netpol"])
        .workload()
        .by(&strategy::GENERATION),
    row("networking.k8s.io", "v1", "Ingress", "ingresses")
        .short(&["ing"])
        .status()
        .workload()
        .by(&strategy::GENERATION),
    row("networking.k8s.io", "v1", "IngressClass", "ingressclasses").cluster().workload().by(&strategy::GENERATION),
    row("networking.k8s.io", "v1", "IPAddress", "ipaddresses").short(&["ip"]).cluster().workload(),
    row("node.k8s.io", "v1", "RuntimeClass", "runtimeclasses").cluster().workload(),
];

impl Row {
    fn kind(&self) -> Kind {
        let (group, convert) = match self.stored_as {
            Some((group, from, to)) => (group, Some((from, to))),
            None => (self.group, None),
        };
        let own = |list: &'static [&'static str]| list.iter().map(|s| Text::Borrowed(*s)).collect();
        let path = |keys: [&'static str; 2]| keys.map(Text::Borrowed).to_vec();
        let scale = self.scale.then(|| Scale {
            spec_replicas: path(["spec", "replicas"]),
            status_replicas: path(["status", "replicas"]),
            selector: Some(path(["spec", "selector"])),
        });
        Kind {
            group: self.group.into(),
            version: self.version.into(),
            kind: self.kind.into(),
            list_kind: format!("{}List", self.kind).into(),
            plural: self.plural.into(),
            singular: self.kind.to_ascii_lowercase().into(),
            short_names: own(self.short),
            categories: own(self.categories),
            namespaced: self.namespaced,
            status: self.status,
            scale,
            review: self.review,
            strategy: self.strategy,
            storage: Storage { group: group.into(), plural: self.plural.into() },
            convert,
            storage_api_version: super::api_version(group, self.version).into(),
            shape: Shape::Builtin(OnceLock::new()),
            custom: None,
            head: Box::default(),
            storage_head: Box::default(),
        }
        .with_heads()
    }
}

/// The built-in kinds of a profile, in the order of the table.
pub(crate) fn kinds(profile: Profile) -> Vec<Arc<Kind>> {
    let rows = ROWS.iter().filter(|row| profile == Profile::Workload || !row.workload);
    rows.map(|row| Arc::new(row.kind())).collect()
}
