//! The default cluster roles and bindings (`plugin/pkg/auth/authorizer/rbac/bootstrappolicy`), as data: those that people
//! and clients rely on. Left out: the roles of Kubernetes' own controllers one by one.

use serde_json::{Map, Value, json};

use crate::kinds::builtin::Profile;

/// Verbs, groups, resources; each a list with spaces between (`-` is the core group).
type Grant = (&'static str, &'static str, &'static str);

struct Role {
    name: &'static str,
    /// `aggregate-to-<...>` label.
    aggregate_to: &'static str,
    /// Selects the roles whose rules it has.
    aggregates: &'static str,
    grants: &'static [Grant],
    /// Paths that may be read.
    paths: &'static [&'static str],
    /// The workload profile alone.
    workload: bool,
}

const NONE: Role = Role { name: "", aggregate_to: "", aggregates: "", grants: &[], paths: &[], workload: false };
const READ: &str = "get list watch";
const WRITE: &str = "create delete deletecollection patch update";
const ALL: &str = "create delete deletecollection get list patch update watch";

const NAMESPACED_CORE: &str = "configmaps endpoints persistentvolumeclaims persistentvolumeclaims/status pods \
                               replicationcontrollers replicationcontrollers/scale serviceaccounts services \
                               services/status bindings events limitranges namespaces/status pods/log pods/status \
                               replicationcontrollers/status resourcequotas resourcequotas/status namespaces";
const WORKLOADS: &str = "controllerrevisions daemonsets daemonsets/status deployments deployments/scale \
                         deployments/status replicasets replicasets/scale replicasets/status statefulsets \
                         statefulsets/scale statefulsets/status";

static ROLES: &[Role] = &[
    Role { name: "cluster-admin", grants: &[("*", "*", "*")], paths: &["*"], ..NONE },
    Role { name: "admin", aggregates: "admin", ..NONE },
    Role { name: "edit", aggregates: "edit", aggregate_to: "admin", ..NONE },
    Role { name: "view", aggregates: "view", aggregate_to: "edit", ..NONE },
    Role {
        name: "system:aggregate-to-admin",
        aggregate_to: "admin",
        grants: &[
            ("create", "authorization.k8s.io", "localsubjectaccessreviews"),
            (ALL, "rbac.authorization.k8s.io", "roles rolebindings"),
        ],
        ..NONE
    },
    Role {
        name: "system:aggregate-to-edit",
        aggregate_to: "edit",
        grants: &[
            (READ, "-", "pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy"),
            ("impersonate", "-", "serviceaccounts"),
            (WRITE, "-", "pods pods/attach pods/exec pods/portforward pods/proxy"),
            ("create", "-", "pods/eviction"),
            (
                WRITE,
                "-",
                "configmaps events persistentvolumeclaims replicationcontrollers replicationcontrollers/scale secrets \
                 serviceaccounts services services/proxy",
            ),
            ("create", "-", "serviceaccounts/token"),
            (
                WRITE,
                "apps",
                "daemonsets deployments deployments/rollback deployments/scale replicasets replicasets/scale statefulsets statefulsets/scale",
            ),
            (WRITE, "autoscaling", "horizontalpodautoscalers"),
            (WRITE, "batch", "cronjobs jobs"),
            (WRITE, "policy", "poddisruptionbudgets"),
            (WRITE, "networking.k8s.io", "ingresses networkpolicies"),
            (ALL, "coordination.k8s.io", "leases"),
        ],
        ..NONE
    },
    Role {
        name: "system:aggregate-to-view",
        aggregate_to: "view",
        grants: &[
            (READ, "-", NAMESPACED_CORE),
            (READ, "discovery.k8s.io", "endpointslices"),
            (READ, "events.k8s.io", "events"),
            (READ, "apps", WORKLOADS),
            (READ, "autoscaling", "horizontalpodautoscalers horizontalpodautoscalers/status"),
            (READ, "batch", "cronjobs cronjobs/status jobs jobs/status"),
            (READ, "policy", "poddisruptionbudgets poddisruptionbudgets/status"),
            (READ, "networking.k8s.io", "ingresses ingresses/status networkpolicies"),
        ],
        ..NONE
    },
    Role {
        name: "system:discovery",
        paths: &[
            "/api",
            "/api/*",
            "/apis",
            "/apis/*",
            "/healthz",
            "/livez",
            "/openapi",
            "/openapi/*",
            "/readyz",
            "/version",
            "/version/",
        ],
        ..NONE
    },
    Role {
        name: "system:public-info-viewer",
        paths: &["/healthz", "/livez", "/readyz", "/version", "/version/"],
        ..NONE
    },
    Role {
        name: "system:basic-user",
        grants: &[
            ("create", "authorization.k8s.io", "selfsubjectaccessreviews selfsubjectrulesreviews"),
            ("create", "authentication.k8s.io", "selfsubjectreviews"),
        ],
        ..NONE
    },
    Role {
        name: "system:auth-delegator",
        grants: &[
            ("create", "authentication.k8s.io", "tokenreviews"),
            ("create", "authorization.k8s.io", "subjectaccessreviews"),
        ],
        ..NONE
    },
    Role {
        name: "system:monitoring",
        paths: &["/healthz", "/healthz/*", "/livez", "/livez/*", "/metrics", "/readyz", "/readyz/*"],
        ..NONE
    },
    Role {
        name: "system:node",
        grants: &[
            ("create", "authentication.k8s.io", "tokenreviews"),
            ("create", "authorization.k8s.io", "localsubjectaccessreviews subjectaccessreviews"),
            (READ, "-", "services"),
            ("create get list watch", "-", "nodes"),
            ("patch update", "-", "nodes nodes/status"),
            ("create patch update", "-", "events"),
            (READ, "-", "pods"),
            ("create delete", "-", "pods"),
            ("patch update", "-", "pods/status"),
            ("create", "-", "pods/eviction serviceaccounts/token"),
            (READ, "-", "configmaps secrets"),
            ("get", "-", "persistentvolumeclaims persistentvolumes"),
            ("create get list watch", "certificates.k8s.io", "certificatesigningrequests"),
            ("create delete get patch update", "coordination.k8s.io", "leases"),
            ("get", "storage.k8s.io", "volumeattachments"),
            ("create delete get patch update", "storage.k8s.io", "csinodes"),
            (READ, "storage.k8s.io", "csidrivers"),
            (READ, "node.k8s.io", "runtimeclasses"),
        ],
        workload: true,
        ..NONE
    },
    Role {
        name: "system:node-bootstrapper",
        grants: &[("create get list watch", "certificates.k8s.io", "certificatesigningrequests")],
        workload: true,
        ..NONE
    },
    Role {
        name: "system:node-proxier",
        grants: &[
            ("list watch", "-", "endpoints services"),
            (READ, "-", "nodes"),
            ("create patch update", "- events.k8s.io", "events"),
            ("list watch", "discovery.k8s.io", "endpointslices"),
        ],
        workload: true,
        ..NONE
    },
    Role {
        name: "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
        grants: &[("create", "certificates.k8s.io", "certificatesigningrequests/nodeclient")],
        workload: true,
        ..NONE
    },
    Role {
        name: "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
        grants: &[("create", "certificates.k8s.io", "certificatesigningrequests/selfnodeclient")],
        workload: true,
        ..NONE
    },
    Role { name: "system:kube-dns", grants: &[("list watch", "-", "endpoints services")], workload: true, ..NONE },
    Role { name: "system:kube-controller-manager", grants: &[("*", "*", "*")], workload: true, ..NONE },
    Role {
        name: "system:kube-scheduler",
        grants: &[
            ("create patch update", "- events.k8s.io", "events"),
            ("create get list update watch", "coordination.k8s.io", "leases"),
            (READ, "-", "namespaces nodes persistentvolumeclaims persistentvolumes replicationcontrollers services"),
            ("delete get list watch", "-", "pods"),
            ("create", "-", "bindings pods/binding"),
            ("patch update", "-", "persistentvolumeclaims persistentvolumes pods/status"),
            (READ, "apps", "replicasets statefulsets"),
            (READ, "policy", "poddisruptionbudgets"),
            (READ, "storage.k8s.io", "csidrivers csinodes csistoragecapacities storageclasses volumeattachments"),
            ("create", "authentication.k8s.io", "tokenreviews"),
            ("create", "authorization.k8s.io", "subjectaccessreviews"),
        ],
        workload: true,
        ..NONE
    },
];

/// Role, kind of the subject, its names, whether of the workload profile alone.
static BINDINGS: &[(&str, &str, &[&str], bool)] = &[
    ("cluster-admin", "Group", &["system:masters"], false),
    ("system:discovery", "Group", &["system:authenticated"], false),
    ("system:basic-user", "Group", &["system:authenticated"], false),
    ("system:public-info-viewer", "Group", &["system:authenticated", "system:unauthenticated"], false),
    ("system:monitoring", "Group", &["system:monitoring"], false),
    // Bound to nobody, as upstream: the node authorizer gives each node its part.
    ("system:node", "Group", &[], true),
    ("system:node-proxier", "User", &["system:kube-proxy"], true),
    ("system:kube-controller-manager", "User", &["system:kube-controller-manager"], true),
    ("system:kube-scheduler", "User", &["system:kube-scheduler"], true),
];

const GROUP: &str = "rbac.authorization.k8s.io";

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().map(|word| if word == "-" { "" } else { word }).collect()
}

fn rules(role: &Role) -> Vec<Value> {
    let mut rules: Vec<Value> = role
        .grants
        .iter()
        .map(|(verbs, groups, resources)| {
            json!({"verbs": words(verbs), "apiGroups": words(groups), "resources": words(resources)})
        })
        .collect();
    if !role.paths.is_empty() {
        let verbs = if role.paths == ["*"] { "*" } else { "get" };
        rules.push(json!({"verbs": [verbs], "nonResourceURLs": role.paths}));
    }
    // What aggregation would come to, so that a new cluster need not be corrected first.
    if !role.aggregates.is_empty() {
        let mut parts: Vec<_> = ROLES.iter().filter(|r| r.aggregate_to == role.aggregates).collect();
        parts.sort_by_key(|r| r.name);
        for rule in parts.into_iter().flat_map(self::rules) {
            if !rules.contains(&rule) {
                rules.push(rule);
            }
        }
    }
    rules
}

fn role(role: &Role) -> Value {
    let mut labels = Map::from_iter([("kubernetes.io/bootstrapping".to_owned(), Value::from("rbac-defaults"))]);
    let label = |to: &str| format!("{GROUP}/aggregate-to-{to}");
    if !role.aggregate_to.is_empty() {
        labels.insert(label(role.aggregate_to), "true".into());
    }
    let mut object = json!({
        "kind": "ClusterRole", "apiVersion": format!("{GROUP}/v1"),
        "metadata": {"name": role.name, "labels": labels, "annotations": {format!("{GROUP}/autoupdate"): "true"}},
        "rules": rules(role),
    });
    if !role.aggregates.is_empty() {
        let selector = json!({"matchLabels": {label(role.aggregates): "true"}});
        object["aggregationRule"] = json!({"clusterRoleSelectors": [selector]});
    }
    object
}

fn binding(role: &str, kind: &str, names: &[&str]) -> Value {
    let subjects: Vec<Value> =
        names.iter().map(|name| json!({"kind": kind, "apiGroup": GROUP, "name": name})).collect();
    json!({
        "kind": "ClusterRoleBinding", "apiVersion": format!("{GROUP}/v1"),
        "metadata": {
            "name": role, "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
            "annotations": {format!("{GROUP}/autoupdate"): "true"},
        },
        "roleRef": {"kind": "ClusterRole", "apiGroup": GROUP, "name": role},
        "subjects": subjects,
    })
}

/// Plural and object.
pub(super) fn objects(profile: Profile) -> Vec<(&'static str, Value)> {
    let workload = profile == Profile::Workload;
    let roles = ROLES.iter().filter(|r| workload || !r.workload).map(|r| ("clusterroles", role(r)));
    let bindings = BINDINGS.iter().filter(|(.., only)| workload || !only);
    let bindings = bindings.map(|(role, kind, names, _)| ("clusterrolebindings", binding(role, kind, names)));
    roles.chain(bindings).collect()
}
