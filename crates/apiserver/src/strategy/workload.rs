//! Kinds of the workload profile whose objects the server itself completes or keeps in order.

use serde_json::{Value, json};

use super::{Cx, Right, Strategy, Subresource, plain, zero_status};
use crate::{
    field::FieldError,
    names::NameRule,
    object::{at, default_at, set_at, text_at},
    status::{Error, Result},
};

mod defaults;

pub(crate) static NODE: Strategy = Strategy { fields: &["spec.unschedulable"], status_on_create: true, ..plain() };

pub(crate) static POD: Strategy = Strategy {
    returns_deleted: true,
    fields: &[
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.nominatedNodeName",
    ],
    subresources: &[
        Subresource { name: "binding", kind: Some(("", "v1", "Binding")), verbs: &["create"] },
        Subresource { name: "log", kind: None, verbs: &["get"] },
        Subresource { name: "portforward", kind: Some(("", "v1", "PodPortForwardOptions")), verbs: &["create", "get"] },
        Subresource { name: "eviction", kind: Some(("policy", "v1", "Eviction")), verbs: &["create"] },
    ],
    generation: true,
    create: |_, pod| {
        defaults::pod_spec(pod, &["spec"]);
        ask_for_limits(pod);
        default_at(pod, &["spec", "enableServiceLinks"], true.into());
        Ok(())
    },
    prepare: |_, pod| {
        default_at(pod, &["spec", "priority"], 0.into());
        default_at(pod, &["spec", "preemptionPolicy"], "PreemptLowerPriority".into());
        tolerate_lost_nodes(pod);
        default_at(pod, &["spec", "serviceAccountName"], "default".into());
        let account = text_at(pod, &["spec", "serviceAccountName"]).to_owned();
        set_at(pod, &["spec", "serviceAccount"], account.into());
        let qos = defaults::qos_class(pod);
        set_at(pod, &["status"], json!({"phase": "Pending", "qosClass": qos}));
    },
    check: check_pod,
    ..plain()
};

/// What a container of a pod may use it asks for, unless it says otherwise.
fn ask_for_limits(pod: &mut Value) {
    for key in ["/spec/containers", "/spec/initContainers"] {
        for container in pod.pointer_mut(key).and_then(Value::as_array_mut).into_iter().flatten() {
            let limits =
                at(container, &["resources", "limits"]).and_then(Value::as_object).cloned().unwrap_or_default();
            for (name, amount) in limits {
                default_at(container, &["resources", "requests", &name], amount);
            }
        }
    }
}

/// A pod may stay for five minutes on a node that is lost, unless it says otherwise (admission DefaultTolerationSeconds).
fn tolerate_lost_nodes(pod: &mut Value) {
    const SECONDS: u32 = 300;
    let said = at(pod, &["spec", "tolerations"]).and_then(Value::as_array).cloned().unwrap_or_default();
    let mut list = said.clone();
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let covers = |toleration: &Value| {
            let (own, effect) = (text_at(toleration, &["key"]), text_at(toleration, &["effect"]));
            matches!(effect, "" | "NoExecute") && (own == key || own.is_empty())
        };
        if !said.iter().any(covers) {
            list.push(json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS}));
        }
    }
    if list.len() > said.len() {
        set_at(pod, &["spec", "tolerations"], list.into());
    }
}

/// A pod's spec stays as it is, but for images and a few more (`ValidatePodUpdate`).
fn check_pod(cx: &Cx<'_>, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if at(new, &["spec", "containers"]).and_then(Value::as_array).is_none_or(Vec::is_empty) {
        errors.push(FieldError::required("spec.containers", ""));
    }
    let Some(old) = old else { return errors };
    if cx.subresource.is_empty() && at(new, &["spec"]) != at(old, &["spec"]) {
        let strip = |pod: &Value| {
            let mut spec = pod.get("spec").cloned().unwrap_or_default();
            for key in ["activeDeadlineSeconds", "terminationGracePeriodSeconds", "tolerations", "schedulingGates"] {
                spec.as_object_mut().map(|s| s.remove(key));
            }
            for list in ["containers", "initContainers"] {
                for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                    container.as_object_mut().map(|c| c.remove("image"));
                }
            }
            spec
        };
        if strip(new) != strip(old) {
            let text = "pod updates may not change fields other than `spec.containers[*].image`,\
                        `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to \
                        existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was \
                        previously negative)";
            errors.push(FieldError::forbidden("spec", text));
        }
    }
    errors
}

pub(crate) static SERVICE: Strategy = Strategy {
    create_on_update: true,
    returns_deleted: true,
    names: NameRule::Label,
    fields: &["spec.clusterIP", "spec.type"],
    create: |_, service| {
        defaults::service(service);
        Ok(())
    },
    prepare: zero_status,
    update: |cx, service, old| {
        if cx.subresource.is_empty() {
            for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                if let Some(value) = at(old, &["spec", field])
                    && at(service, &["spec", field]).is_none_or(|v| v.is_null() || v == "")
                {
                    set_at(service, &["spec", field], value.clone());
                }
            }
            defaults::service(service);
        }
        Ok(())
    },
    check: |_, new, old| {
        let mut errors = Vec::new();
        if let Some(ip) = old.and_then(|old| at(old, &["spec", "clusterIP"])).filter(|ip| ip.as_str() != Some(""))
            && at(new, &["spec", "clusterIP"]) != Some(ip)
            && text_at(new, &["spec", "type"]) != "ExternalName"
        {
            let value = at(new, &["spec", "clusterIP"]).cloned().unwrap_or_default();
            errors.push(FieldError::invalid("spec.clusterIPs[0]", value, "may not change once set"));
        }
        errors
    },
    ..plain()
};

/// What runs pods: counts the changes of its spec and fills in what Kubernetes fills in.
pub(crate) static WORKLOAD: Strategy = Strategy {
    generation: true,
    fields: &["status.successful", "metadata.name"],
    create: |cx, object| {
        defaults::workload(&cx.kind.kind, object);
        Ok(())
    },
    prepare: zero_status,
    update: |cx, object, _| {
        if cx.subresource.is_empty() {
            defaults::workload(&cx.kind.kind, object);
        }
        Ok(())
    },
    check: check_workload,
    ..plain()
};

fn check_workload(cx: &Cx<'_>, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if matches!(cx.kind.kind.as_ref(), "Job" | "CronJob" | "ReplicationController") {
        return errors;
    }
    let selector = at(new, &["spec", "selector"]);
    let labels = at(new, &["spec", "template", "metadata", "labels"]);
    let parsed = selector.map(crate::selector::Labels::from_value);
    match parsed {
        Some(Ok(parsed)) if !parsed.is_empty() => {
            if !parsed.matches(|key| labels.and_then(|l| l.get(key)).and_then(Value::as_str)) {
                let value = labels.cloned().unwrap_or_default();
                let text = "`selector` does not match template `labels`";
                errors.push(FieldError::invalid("spec.template.metadata.labels", value, text));
            }
        }
        _ => errors.push(FieldError::required("spec.selector", "")),
    }
    if let Some(old) = old
        && at(old, &["spec", "selector"]) != selector
    {
        let value = selector.cloned().unwrap_or_default();
        errors.push(FieldError::invalid("spec.selector", value, "field is immutable"));
    }
    errors
}

pub(crate) static CSR: Strategy = Strategy {
    asks: |_, subresource, _, old| match (subresource, old) {
        ("approval", Some(old)) => signers(old, "approve").into(),
        ("status", Some(old)) => signers(old, "sign").into(),
        _ => Vec::new(),
    },
    fields: &["spec.signerName"],
    subresources: &[Subresource { name: "approval", kind: None, verbs: &["get", "patch", "update"] }],
    create: |cx, request| {
        // Who asks is what the server says, never what the request says.
        let user = cx.user;
        for (key, value) in [
            ("username", Value::from(user.name.as_str())),
            ("uid", user.uid.as_str().into()),
            ("groups", user.groups.clone().into()),
            ("extra", json!(user.extra)),
        ] {
            set_at(request, &["spec", key], value);
        }
        set_at(request, &["status"], json!({}));
        Ok(())
    },
    update: |cx, request, old| -> Result<()> {
        if let Some(spec) = old.get("spec") {
            set_at(request, &["spec"], spec.clone());
        }
        match cx.subresource {
            // Approval decides the conditions; it issues nothing.
            "approval" => {
                may_use_signer(cx, old, "approve")?;
                let certificate = at(old, &["status", "certificate"]).cloned();
                if let Some(status) = request.get_mut("status").and_then(Value::as_object_mut) {
                    match certificate {
                        Some(certificate) => status.insert("certificate".into(), certificate),
                        None => status.remove("certificate"),
                    };
                }
            }
            // Status issues; it neither approves nor denies.
            "status" => {
                let issues = at(request, &["status", "certificate"]) != at(old, &["status", "certificate"]);
                if issues {
                    may_use_signer(cx, old, "sign")?;
                }
                keep_decisions(request, old);
            }
            _ => {}
        }
        for condition in at_mut(request, &["status", "conditions"]).and_then(Value::as_array_mut).into_iter().flatten()
        {
            default_at(condition, &["lastUpdateTime"], cx.now.to_string().into());
            default_at(condition, &["lastTransitionTime"], cx.now.to_string().into());
        }
        Ok(())
    },
    check: |_, new, _| {
        let mut errors = Vec::new();
        for field in ["request", "signerName", "usages"] {
            if at(new, &["spec", field]).is_none_or(Value::is_null) {
                errors.push(FieldError::required(format!("spec.{field}"), ""));
            }
        }
        errors
    },
    ..plain()
};

/// Who approves or signs needs the right to that for the request's signer: by its name, or by its domain with `/*`
/// (admission plugins CertificateApproval and CertificateSigning).
fn may_use_signer(cx: &Cx<'_>, request: &Value, verb: &'static str) -> Result<()> {
    if signers(request, verb).iter().any(|right| cx.has(right)) {
        return Ok(());
    }
    let signer = text_at(request, &["spec", "signerName"]);
    let why = format!("user not permitted to {verb} requests with signerName {signer:?}");
    Err(Error::forbidden("certificates.k8s.io", "certificatesigningrequests", crate::object::name(request), why))
}

fn signers(request: &Value, verb: &'static str) -> [Right; 2] {
    let signer = text_at(request, &["spec", "signerName"]);
    let domain = signer.split_once('/').map(|(domain, _)| format!("{domain}/*")).unwrap_or_default();
    [signer.to_owned(), domain].map(|name| Right {
        verb,
        group: "certificates.k8s.io",
        resource: "signers".to_owned(),
        namespace: String::new(),
        name,
    })
}

fn at_mut<'a>(object: &'a mut Value, path: &[&str]) -> Option<&'a mut Value> {
    path.iter().try_fold(object, |value, key| value.get_mut(*key))
}

fn keep_decisions(request: &mut Value, old: &Value) {
    let decided = |condition: &Value| matches!(text_at(condition, &["type"]), "Approved" | "Denied");
    let list =
        |object: &Value| at(object, &["status", "conditions"]).and_then(Value::as_array).cloned().unwrap_or_default();
    let mut conditions: Vec<Value> = list(old).into_iter().filter(|c| decided(c)).collect();
    conditions.extend(list(request).into_iter().filter(|c| !decided(c)));
    if !conditions.is_empty() {
        set_at(request, &["status", "conditions"], conditions.into());
    }
}
