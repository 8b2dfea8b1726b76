//! Columns of the built-in kinds, as kube-apiserver prints them (upstream: `pkg/printers/internalversion/printers.go`).

mod cells;

use jiff::Timestamp;
use serde_json::Value;

use self::cells::{self as cell, age, count, first_age, int, or_none, path_text, text};
use super::{Column, Source};

type Compute = fn(&Value, Timestamp) -> Value;
/// Name, type, priority, cell.
type Row = (&'static str, &'static str, i32, Compute);

const AGE: Row = ("Age", "string", 0, |o, now| age(o, "/metadata/creationTimestamp", now));
const CREATED_AT: Row = ("Created At", "date", 0, |o, _| path_text(o, "/metadata/creationTimestamp"));
const CONTAINERS: Row = ("Containers", "string", 1, |o, _| cell::containers(o, "name"));
const IMAGES: Row = ("Images", "string", 1, |o, _| cell::containers(o, "image"));
const SELECTOR: Row = ("Selector", "string", 1, |o, _| cell::selector(o.pointer("/spec/selector")));

/// Kinds by group and name. A kind that is not here has its age alone.
static TABLES: &[(&str, &str, &[Row])] = &[
    ("", "Namespace", &[("Status", "string", 0, |o, _| path_text(o, "/status/phase")), AGE]),
    ("", "ConfigMap", &[("Data", "string", 0, |o, _| count(o, &["/data", "/binaryData"])), AGE]),
    (
        "",
        "Secret",
        &[("Type", "string", 0, |o, _| path_text(o, "/type")), ("Data", "string", 0, |o, _| count(o, &["/data"])), AGE],
    ),
    ("", "ServiceAccount", &[AGE]),
    ("", "Event", EVENT),
    ("events.k8s.io", "Event", EVENT_V1),
    ("", "Node", NODE),
    ("", "Pod", POD),
    ("", "Service", SERVICE),
    ("", "Endpoints", &[("Endpoints", "string", 0, |o, _| cell::endpoints(o)), AGE]),
    ("", "PersistentVolume", PERSISTENT_VOLUME),
    ("", "PersistentVolumeClaim", PERSISTENT_VOLUME_CLAIM),
    ("", "ReplicationController", REPLICAS),
    (
        "",
        "PodTemplate",
        &[
            ("Containers", "string", 0, |o, _| cell::containers(o, "name")),
            ("Images", "string", 0, |o, _| cell::containers(o, "image")),
            ("Pod Labels", "string", 0, |o, _| cell::labels(o.pointer("/template/metadata/labels"))),
        ],
    ),
    ("", "LimitRange", &[CREATED_AT]),
    (
        "",
        "ResourceQuota",
        &[
            ("Request", "string", 0, |o, _| cell::quota(o, false)),
            ("Limit", "string", 0, |o, _| cell::quota(o, true)),
            AGE,
        ],
    ),
    ("coordination.k8s.io", "Lease", &[("Holder", "string", 0, |o, _| path_text(o, "/spec/holderIdentity")), AGE]),
    ("rbac.authorization.k8s.io", "Role", &[CREATED_AT]),
    ("rbac.authorization.k8s.io", "ClusterRole", &[CREATED_AT]),
    ("rbac.authorization.k8s.io", "RoleBinding", BINDING),
    ("rbac.authorization.k8s.io", "ClusterRoleBinding", BINDING),
    ("apiextensions.k8s.io", "CustomResourceDefinition", &[CREATED_AT]),
    ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration", WEBHOOKS),
    ("admissionregistration.k8s.io", "MutatingWebhookConfiguration", WEBHOOKS),
    (
        "admissionregistration.k8s.io",
        "ValidatingAdmissionPolicy",
        &[
            ("Validations", "integer", 0, |o, _| count(o, &["/spec/validations"])),
            ("ParamKind", "string", 0, |o, _| cell::param_kind(o)),
            AGE,
        ],
    ),
    (
        "admissionregistration.k8s.io",
        "ValidatingAdmissionPolicyBinding",
        &[
            ("PolicyName", "string", 0, |o, _| path_text(o, "/spec/policyName")),
            ("ParamRef", "string", 0, |o, _| cell::param_ref(o)),
            AGE,
        ],
    ),
    (
        "discovery.k8s.io",
        "EndpointSlice",
        &[
            ("AddressType", "string", 0, |o, _| path_text(o, "/addressType")),
            ("Ports", "string", 0, |o, _| cell::slice_ports(o)),
            ("Endpoints", "string", 0, |o, _| cell::slice_endpoints(o)),
            AGE,
        ],
    ),
    ("apps", "Deployment", DEPLOYMENT),
    ("apps", "ReplicaSet", REPLICAS),
    (
        "apps",
        "StatefulSet",
        &[
            ("Ready", "string", 0, |o, _| cell::ratio(o, "/status/readyReplicas", "/spec/replicas")),
            AGE,
            CONTAINERS,
            IMAGES,
        ],
    ),
    ("apps", "DaemonSet", DAEMON_SET),
    (
        "apps",
        "ControllerRevision",
        &[
            ("Controller", "string", 0, |o, _| cell::controller(o)),
            ("Revision", "string", 0, |o, _| int(o, "/revision")),
            AGE,
        ],
    ),
    ("batch", "Job", JOB),
    ("batch", "CronJob", CRON_JOB),
    (
        "autoscaling",
        "HorizontalPodAutoscaler",
        &[
            ("Reference", "string", 0, |o, _| cell::scale_target(o)),
            ("MinPods", "string", 0, |o, _| int(o, "/spec/minReplicas")),
            ("MaxPods", "string", 0, |o, _| int(o, "/spec/maxReplicas")),
            ("Replicas", "string", 0, |o, _| int(o, "/status/currentReplicas")),
            AGE,
        ],
    ),
    ("certificates.k8s.io", "CertificateSigningRequest", SIGNING_REQUEST),
    (
        "policy",
        "PodDisruptionBudget",
        &[
            ("Min Available", "string", 0, |o, _| cell::or(o, "/spec/minAvailable", "N/A")),
            ("Max Unavailable", "string", 0, |o, _| cell::or(o, "/spec/maxUnavailable", "N/A")),
            ("Allowed Disruptions", "integer", 0, |o, _| int(o, "/status/disruptionsAllowed")),
            AGE,
        ],
    ),
    (
        "scheduling.k8s.io",
        "PriorityClass",
        &[
            ("Value", "integer", 0, |o, _| int(o, "/value")),
            ("Global-Default", "boolean", 0, |o, _| cell::flag(o, "/globalDefault")),
            AGE,
            ("PreemptionPolicy", "string", 0, |o, _| path_text(o, "/preemptionPolicy")),
        ],
    ),
    (
        "storage.k8s.io",
        "StorageClass",
        &[
            ("Name", "string", 0, |o, _| cell::storage_class(o)),
            ("Provisioner", "string", 0, |o, _| path_text(o, "/provisioner")),
            ("ReclaimPolicy", "string", 0, |o, _| path_text(o, "/reclaimPolicy")),
            ("VolumeBindingMode", "string", 0, |o, _| path_text(o, "/volumeBindingMode")),
            ("AllowVolumeExpansion", "string", 0, |o, _| cell::flag(o, "/allowVolumeExpansion")),
            AGE,
        ],
    ),
    ("storage.k8s.io", "CSINode", &[("Drivers", "integer", 0, |o, _| count(o, &["/spec/drivers"])), AGE]),
    (
        "storage.k8s.io",
        "VolumeAttachment",
        &[
            ("Attacher", "string", 0, |o, _| path_text(o, "/spec/attacher")),
            ("PV", "string", 0, |o, _| path_text(o, "/spec/source/persistentVolumeName")),
            ("Node", "string", 0, |o, _| path_text(o, "/spec/nodeName")),
            ("Attached", "boolean", 0, |o, _| cell::flag(o, "/status/attached")),
            AGE,
        ],
    ),
    (
        "storage.k8s.io",
        "CSIDriver",
        &[
            ("AttachRequired", "boolean", 0, |o, _| cell::or(o, "/spec/attachRequired", "true")),
            ("PodInfoOnMount", "boolean", 0, |o, _| cell::flag(o, "/spec/podInfoOnMount")),
            ("StorageCapacity", "boolean", 0, |o, _| cell::flag(o, "/spec/storageCapacity")),
            AGE,
        ],
    ),
    (
        "networking.k8s.io",
        "NetworkPolicy",
        &[("Pod-Selector", "string", 0, |o, _| cell::selector(o.pointer("/spec/podSelector"))), AGE],
    ),
    (
        "networking.k8s.io",
        "Ingress",
        &[
            ("Class", "string", 0, |o, _| or_none(o, "/spec/ingressClassName")),
            ("Hosts", "string", 0, |o, _| cell::ingress_hosts(o)),
            ("Address", "string", 0, |o, _| text(cell::balancer(o))),
            ("Ports", "string", 0, |o, _| cell::ingress_ports(o)),
            AGE,
        ],
    ),
    (
        "networking.k8s.io",
        "IngressClass",
        &[
            ("Controller", "string", 0, |o, _| path_text(o, "/spec/controller")),
            ("Parameters", "string", 0, |o, _| cell::ingress_parameters(o)),
            AGE,
        ],
    ),
    ("node.k8s.io", "RuntimeClass", &[("Handler", "string", 0, |o, _| path_text(o, "/handler")), AGE]),
    (
        "apiregistration.k8s.io",
        "APIService",
        &[
            ("Service", "string", 0, |o, _| cell::api_service(o)),
            ("Available", "string", 0, |o, _| cell::api_service_available(o)),
            AGE,
        ],
    ),
];

const EVENT: &[Row] = &[
    ("Last Seen", "string", 0, |o, now| {
        first_age(o, &["/series/lastObservedTime", "/lastTimestamp", "/eventTime", "/metadata/creationTimestamp"], now)
    }),
    ("Type", "string", 0, |o, _| path_text(o, "/type")),
    ("Reason", "string", 0, |o, _| path_text(o, "/reason")),
    ("Object", "string", 0, |o, _| cell::involved(o, "/involvedObject")),
    ("Subobject", "string", 1, |o, _| path_text(o, "/involvedObject/fieldPath")),
    ("Source", "string", 1, |o, _| cell::event_source(o)),
    ("Message", "string", 0, |o, _| cell::trimmed(o, "/message")),
    ("First Seen", "string", 1, |o, now| {
        first_age(o, &["/firstTimestamp", "/eventTime", "/metadata/creationTimestamp"], now)
    }),
    ("Count", "string", 1, |o, _| cell::event_count(o)),
    ("Name", "string", 1, |o, _| path_text(o, "/metadata/name")),
];

const EVENT_V1: &[Row] = &[
    ("Last Seen", "string", 0, |o, now| {
        let moments =
            ["/series/lastObservedTime", "/deprecatedLastTimestamp", "/eventTime", "/metadata/creationTimestamp"];
        first_age(o, &moments, now)
    }),
    ("Type", "string", 0, |o, _| path_text(o, "/type")),
    ("Reason", "string", 0, |o, _| path_text(o, "/reason")),
    ("Object", "string", 0, |o, _| cell::involved(o, "/regarding")),
    ("Subobject", "string", 1, |o, _| path_text(o, "/regarding/fieldPath")),
    ("Source", "string", 1, |o, _| path_text(o, "/reportingController")),
    ("Message", "string", 0, |o, _| cell::trimmed(o, "/note")),
    ("First Seen", "string", 1, |o, now| {
        first_age(o, &["/deprecatedFirstTimestamp", "/eventTime", "/metadata/creationTimestamp"], now)
    }),
    ("Count", "string", 1, |o, _| cell::event_count(o)),
    ("Name", "string", 1, |o, _| path_text(o, "/metadata/name")),
];

const NODE: &[Row] = &[
    ("Status", "string", 0, |o, _| cell::node_status(o)),
    ("Roles", "string", 0, |o, _| cell::node_roles(o)),
    AGE,
    ("Version", "string", 0, |o, _| path_text(o, "/status/nodeInfo/kubeletVersion")),
    ("Internal-IP", "string", 1, |o, _| cell::node_address(o, "InternalIP")),
    ("External-IP", "string", 1, |o, _| cell::node_address(o, "ExternalIP")),
    ("OS-Image", "string", 1, |o, _| cell::or(o, "/status/nodeInfo/osImage", "<unknown>")),
    ("Kernel-Version", "string", 1, |o, _| cell::or(o, "/status/nodeInfo/kernelVersion", "<unknown>")),
    ("Container-Runtime", "string", 1, |o, _| cell::or(o, "/status/nodeInfo/containerRuntimeVersion", "<unknown>")),
];

const POD: &[Row] = &[
    ("Ready", "string", 0, |o, _| cell::pod_ready(o)),
    ("Status", "string", 0, |o, _| text(cell::pod_reason(o))),
    ("Restarts", "string", 0, cell::pod_restarts),
    AGE,
    ("IP", "string", 1, |o, _| or_none(o, "/status/podIP")),
    ("Node", "string", 1, |o, _| or_none(o, "/spec/nodeName")),
    ("Nominated Node", "string", 1, |o, _| or_none(o, "/status/nominatedNodeName")),
    ("Readiness Gates", "string", 1, |o, _| cell::pod_gates(o)),
];

const SERVICE: &[Row] = &[
    ("Type", "string", 0, |o, _| path_text(o, "/spec/type")),
    ("Cluster-IP", "string", 0, |o, _| or_none(o, "/spec/clusterIP")),
    ("External-IP", "string", 0, |o, _| cell::service_external(o)),
    ("Port(s)", "string", 0, |o, _| cell::service_ports(o)),
    AGE,
    SELECTOR,
];

const PERSISTENT_VOLUME: &[Row] = &[
    ("Capacity", "string", 0, |o, _| path_text(o, "/spec/capacity/storage")),
    ("Access Modes", "string", 0, |o, _| cell::access_modes(o, "/spec/accessModes")),
    ("Reclaim Policy", "string", 0, |o, _| path_text(o, "/spec/persistentVolumeReclaimPolicy")),
    ("Status", "string", 0, |o, _| cell::phase(o)),
    ("Claim", "string", 0, |o, _| cell::claim(o)),
    ("StorageClass", "string", 0, |o, _| path_text(o, "/spec/storageClassName")),
    ("VolumeAttributesClass", "string", 0, |o, _| cell::or(o, "/spec/volumeAttributesClassName", "<unset>")),
    ("Reason", "string", 0, |o, _| path_text(o, "/status/reason")),
    AGE,
    ("VolumeMode", "string", 1, |o, _| cell::or(o, "/spec/volumeMode", "<unset>")),
];

const PERSISTENT_VOLUME_CLAIM: &[Row] = &[
    ("Status", "string", 0, |o, _| cell::phase(o)),
    ("Volume", "string", 0, |o, _| path_text(o, "/spec/volumeName")),
    ("Capacity", "string", 0, |o, _| path_text(o, "/status/capacity/storage")),
    ("Access Modes", "string", 0, |o, _| cell::access_modes(o, "/status/accessModes")),
    ("StorageClass", "string", 0, |o, _| path_text(o, "/spec/storageClassName")),
    ("VolumeAttributesClass", "string", 0, |o, _| cell::or(o, "/spec/volumeAttributesClassName", "<unset>")),
    AGE,
    ("VolumeMode", "string", 1, |o, _| cell::or(o, "/spec/volumeMode", "<unset>")),
];

const BINDING: &[Row] = &[
    ("Role", "string", 0, |o, _| cell::role(o)),
    AGE,
    ("Users", "string", 1, |o, _| cell::subjects(o, "User")),
    ("Groups", "string", 1, |o, _| cell::subjects(o, "Group")),
    ("ServiceAccounts", "string", 1, |o, _| cell::subjects(o, "ServiceAccount")),
];

const WEBHOOKS: &[Row] = &[("Webhooks", "integer", 0, |o, _| count(o, &["/webhooks"])), AGE];

const REPLICAS: &[Row] = &[
    ("Desired", "integer", 0, |o, _| int(o, "/spec/replicas")),
    ("Current", "integer", 0, |o, _| int(o, "/status/replicas")),
    ("Ready", "integer", 0, |o, _| int(o, "/status/readyReplicas")),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

const DEPLOYMENT: &[Row] = &[
    ("Ready", "string", 0, |o, _| cell::ratio(o, "/status/readyReplicas", "/spec/replicas")),
    ("Up-to-date", "string", 0, |o, _| int(o, "/status/updatedReplicas")),
    ("Available", "string", 0, |o, _| int(o, "/status/availableReplicas")),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

const DAEMON_SET: &[Row] = &[
    ("Desired", "integer", 0, |o, _| int(o, "/status/desiredNumberScheduled")),
    ("Current", "integer", 0, |o, _| int(o, "/status/currentNumberScheduled")),
    ("Ready", "integer", 0, |o, _| int(o, "/status/numberReady")),
    ("Up-to-date", "integer", 0, |o, _| int(o, "/status/updatedNumberScheduled")),
    ("Available", "integer", 0, |o, _| int(o, "/status/numberAvailable")),
    ("Node Selector", "string", 0, |o, _| cell::labels(o.pointer("/spec/template/spec/nodeSelector"))),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

const JOB: &[Row] = &[
    ("Status", "string", 0, |o, _| cell::job_status(o)),
    ("Completions", "string", 0, |o, _| cell::job_completions(o)),
    ("Duration", "string", 0, cell::job_duration),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

const CRON_JOB: &[Row] = &[
    ("Schedule", "string", 0, |o, _| path_text(o, "/spec/schedule")),
    ("Timezone", "string", 0, |o, _| or_none(o, "/spec/timeZone")),
    ("Suspend", "boolean", 0, |o, _| cell::flag_text(o, "/spec/suspend")),
    ("Active", "integer", 0, |o, _| count(o, &["/status/active"])),
    ("Last Schedule", "string", 0, |o, now| cell::optional_age(o, "/status/lastScheduleTime", now)),
    AGE,
];

const SIGNING_REQUEST: &[Row] = &[
    AGE,
    ("SignerName", "string", 0, |o, _| or_none(o, "/spec/signerName")),
    ("Requestor", "string", 0, |o, _| path_text(o, "/spec/username")),
    ("RequestedDuration", "string", 0, |o, _| cell::requested_duration(o)),
    ("Condition", "string", 0, |o, _| cell::signing_condition(o)),
];

pub(super) fn columns(group: &str, kind: &str) -> Vec<Column> {
    let rows = TABLES.iter().find(|(g, k, _)| (*g, *k) == (group, kind)).map_or(&[AGE][..], |(_, _, rows)| rows);
    rows.iter()
        .map(|(name, type_, priority, compute)| Column {
            name: (*name).to_owned(),
            type_: (*type_).to_owned(),
            format: if *name == "Name" { "name".to_owned() } else { String::new() },
            description: String::new(),
            priority: *priority,
            source: Source::Function(*compute),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{IncludeObject, table};
    use super::*;

    fn row(group: &str, kind: &str, object: &Value) -> Vec<String> {
        let now = "2026-01-01T00:05:00Z".parse().unwrap();
        let table = table(&columns(group, kind), &[object], IncludeObject::None, now, json!({}));
        let definitions = table["columnDefinitions"].as_array().unwrap();
        let cells = table["rows"][0]["cells"].as_array().unwrap();
        assert_eq!(definitions.len(), cells.len());
        cells.iter().map(|cell| cell.as_str().map_or_else(|| cell.to_string(), ToOwned::to_owned)).collect()
    }

    fn meta(name: &str) -> Value {
        json!({"name": name, "creationTimestamp": "2026-01-01T00:00:00Z"})
    }

    #[test]
    fn empty_objects_of_every_kind_have_a_row() {
        for (group, kind, rows) in TABLES {
            assert!(row(group, kind, &json!({})).len() >= rows.len(), "{kind}");
        }
        assert_eq!(row("x", "Y", &json!({"metadata": meta("n")})), ["n", "5m"]);
        assert_eq!(row("x", "Y", &json!({"metadata": {"name": "n"}})), ["n", "<unknown>"]);
    }

    #[test]
    fn nodes_pods_and_services_read_as_in_kubectl() {
        let mut labels = meta("cp-0");
        labels["labels"] = json!({"node-role.kubernetes.io/control-plane": "", "kubernetes.io/role": "etcd"});
        let node = json!({"metadata": labels, "spec": {"unschedulable": true}, "status": {
            "conditions": [{"type": "Ready", "status": "True"}], "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
            "nodeInfo": {"kubeletVersion": "v1.36.0"}}});
        assert_eq!(
            row("", "Node", &node),
            [
                "cp-0",
                "Ready,SchedulingDisabled",
                "control-plane,etcd",
                "5m",
                "v1.36.0",
                "10.0.0.1",
                "<none>",
                "<unknown>",
                "<unknown>",
                "<unknown>"
            ]
        );
        let pod = json!({"metadata": meta("p"), "spec": {"nodeName": "n", "containers": [{"name": "a"}, {"name": "b"}]},
            "status": {"phase": "Running", "podIP": "10.1.0.1", "containerStatuses": [
                {"name": "a", "ready": true, "restartCount": 0, "state": {"running": {}}},
                {"name": "b", "ready": false, "restartCount": 2, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                    "lastState": {"terminated": {"finishedAt": "2026-01-01T00:04:00Z"}}}]}});
        assert_eq!(
            row("", "Pod", &pod),
            ["p", "1/2", "CrashLoopBackOff", "2 (60s ago)", "5m", "10.1.0.1", "n", "<none>", "<none>"]
        );
        let service = json!({"metadata": meta("s"), "spec": {"type": "NodePort", "clusterIP": "10.0.0.1",
            "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}],
            "selector": {"a": "b"}}});
        assert_eq!(
            row("", "Service", &service),
            ["s", "NodePort", "10.0.0.1", "<none>", "80:30080/TCP,53/UDP", "5m", "a=b"]
        );
        let mut deleting = pod;
        deleting["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:04:00Z");
        assert_eq!(row("", "Pod", &deleting)[2], "Terminating");
    }

    #[test]
    fn workloads_and_events_read_as_in_kubectl() {
        let template = json!({"spec": {"containers": [{"name": "c", "image": "i:1"}]}});
        let deployment = json!({"metadata": meta("d"), "spec": {"replicas": 3, "template": template,
            "selector": {"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "x", "operator": "In", "values": ["1", "2"]}]}},
            "status": {"readyReplicas": 2, "updatedReplicas": 3}});
        assert_eq!(row("apps", "Deployment", &deployment), ["d", "2/3", "3", "0", "5m", "c", "i:1", "a=b,x in (1,2)"]);
        let event = json!({"metadata": meta("e"), "type": "Normal", "reason": "R", "message": "m\n", "count": 3,
            "involvedObject": {"kind": "Pod", "name": "p"}, "lastTimestamp": "2026-01-01T00:04:30Z",
            "source": {"component": "c", "host": "h"}});
        assert_eq!(row("", "Event", &event), ["30s", "Normal", "R", "pod/p", "", "c, h", "m", "5m", "3", "e"]);
        let secret = json!({"metadata": meta("s"), "type": "Opaque", "data": {"a": "", "b": ""}});
        assert_eq!(row("", "Secret", &secret), ["s", "Opaque", "2", "5m"]);
        let binding = json!({"metadata": meta("b"), "roleRef": {"kind": "Role", "name": "r"}, "subjects": [
            {"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "namespace": "n", "name": "s"}]});
        assert_eq!(row("rbac.authorization.k8s.io", "RoleBinding", &binding), ["b", "Role/r", "5m", "u", "", "n/s"]);
    }
}
