//! What a node may write of what it is allowed to touch (admission plugin NodeRestriction): its own Node, without labels that
//! would draw work to it, mirror pods, the status of its pods, its lease.

use async_trait::async_trait;
use policy::User;
use serde_json::Value;

use super::node::{LEASES, MIRROR, is_node, name_of, refers_to_anything};
use crate::{
    admission::{Admission, Denied, Operation, Request, Warning},
    kinds::ROOT,
    object::{self, at, decode_kv, text_at},
    server::Server,
    status::{Error, Result},
    write::get,
};

/// Rules on what nodes write; part of a server whose node authorizer is on.
pub(crate) struct NodeRestriction;

#[async_trait]
impl Admission for NodeRestriction {
    fn concerns(&self, request: &Request) -> bool {
        is_node(&request.user)
    }

    async fn validate(&self, request: &Request, object: &Value) -> Result<Vec<Warning>, Denied> {
        check(request, object).map(|()| Vec::new()).map_err(Denied::Forbidden)
    }
}

fn check(request: &Request, object: &Value) -> Result<(), String> {
    let Some(node) = name_of(&request.user).filter(|name| !name.is_empty()) else {
        return Err(format!("could not determine node from user {:?}", request.user.name));
    };
    let spoken = |path: &[&str]| text_at(object, path).to_owned();
    match (request.group.as_str(), request.resource.as_str(), request.subresource.as_str()) {
        ("", "nodes", _) => check_node(node, request, object),
        ("", "pods", "") => match request.operation {
            Operation::Create => check_mirror_pod(node, object),
            Operation::Delete if spoken(&["spec", "nodeName"]) == node => Ok(()),
            Operation::Delete => Err(format!("node {node:?} can only delete pods with spec.nodeName set to itself")),
            Operation::Connect => Ok(()),
            Operation::Update => {
                Err(format!("unexpected operation \"UPDATE\", node {node:?} can only create and delete mirror pods"))
            }
        },
        ("", "pods", "status") => {
            let old = request.old.as_deref().unwrap_or(object);
            if text_at(old, &["spec", "nodeName"]) != node {
                let why = "can only update pod status for pods with spec.nodeName set to itself";
                return Err(format!("node {node:?} {why}"));
            }
            if at(old, &["metadata", "labels"]) != at(object, &["metadata", "labels"]) {
                return Err(format!("node {node:?} cannot update labels through pod status"));
            }
            Ok(())
        }
        ("", "pods", "eviction") if spoken(&["spec", "nodeName"]) == node => Ok(()),
        ("", "pods", "eviction") => Err(format!("node {node} can only evict pods with spec.nodeName set to itself")),
        ("", "pods", other) => {
            Err(format!("unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed"))
        }
        ("", "persistentvolumeclaims", sub) if sub != "status" => Err("may only update PVC status".to_owned()),
        ("coordination.k8s.io", "leases", _) if request.namespace != LEASES => {
            Err(format!("can only access leases in the {LEASES:?} system namespace"))
        }
        ("coordination.k8s.io", "leases", _) if object::name(object) != node => {
            Err("can only access node lease with the same name as the requesting node".to_owned())
        }
        ("storage.k8s.io", "csinodes", _) if object::name(object) != node => {
            Err("can only access CSINode with the same name as the requesting node".to_owned())
        }
        ("certificates.k8s.io", "certificatesigningrequests", "") if request.operation == Operation::Create => {
            check_request(node, object)
        }
        _ => Ok(()),
    }
}

fn check_node(node: &str, request: &Request, object: &Value) -> Result<(), String> {
    if object::name(object) != node {
        return Err(format!("node {node:?} is not allowed to modify node {:?}", object::name(object)));
    }
    let labels = |object: Option<&Value>| {
        let labels = object.and_then(|object| at(object, &["metadata", "labels"])).and_then(Value::as_object);
        labels.cloned().unwrap_or_default()
    };
    let (new, old) = (labels(Some(object)), labels(request.old.as_deref()));
    let mut forbidden: Vec<&str> = new
        .iter()
        .filter(|(key, value)| old.get(*key) != Some(*value))
        .map(|(key, _)| key.as_str())
        .chain(old.keys().filter(|key| !new.contains_key(*key)).map(String::as_str))
        .filter(|key| is_reserved(key))
        .collect();
    forbidden.sort_unstable();
    let list = forbidden.join(", ");
    match request.operation {
        Operation::Create if at(object, &["spec", "configSource"]).is_some_and(|source| !source.is_null()) => {
            Err(format!("node {node:?} is not allowed to create pods with a non-nil configSource"))
        }
        Operation::Create if !forbidden.is_empty() => {
            Err(format!("node {node:?} is not allowed to set the following labels: {list}"))
        }
        Operation::Update => {
            let old = request.old.as_deref().unwrap_or(&Value::Null);
            let differs = |path: &[&str]| {
                let of = |object| at(object, path).filter(|value: &&Value| !value.is_null());
                of(object) != of(old)
            };
            if at(object, &["spec", "configSource"]).is_some_and(|s| !s.is_null()) && differs(&["spec", "configSource"])
            {
                return Err(format!(
                    "node {node:?} is not allowed to update configSource to a new non-nil configSource"
                ));
            }
            if differs(&["spec", "taints"]) {
                return Err(format!("node {node:?} is not allowed to modify taints"));
            }
            if differs(&["metadata", "ownerReferences"]) {
                return Err(format!("node {node:?} is not allowed to modify ownerReferences"));
            }
            match forbidden.is_empty() {
                true => Ok(()),
                false => Err(format!("is not allowed to modify labels: {list}")),
            }
        }
        _ => Ok(()),
    }
}

/// Whether a label is not for a node to set on itself.
fn is_reserved(label: &str) -> bool {
    const OWN: [&str; 13] = [
        "kubernetes.io/hostname",
        "kubernetes.io/arch",
        "kubernetes.io/os",
        "beta.kubernetes.io/arch",
        "beta.kubernetes.io/os",
        "beta.kubernetes.io/instance-type",
        "node.kubernetes.io/instance-type",
        "failure-domain.beta.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone",
        "failure-domain.kubernetes.io/region",
        "failure-domain.kubernetes.io/zone",
        "topology.kubernetes.io/region",
        "topology.kubernetes.io/zone",
    ];
    let domain = label.split_once('/').map(|(domain, _)| domain).unwrap_or_default();
    let within = |parent: &str| domain.strip_suffix(parent).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    if within("node-restriction.kubernetes.io") {
        return true;
    }
    let kubelets = OWN.contains(&label) || within("kubelet.kubernetes.io") || within("node.kubernetes.io");
    (within("kubernetes.io") || within("k8s.io")) && !kubelets
}

fn check_mirror_pod(node: &str, pod: &Value) -> Result<(), String> {
    if pod.pointer("/metadata/annotations").and_then(|a| a.get(MIRROR)).is_none() {
        return Err(format!("pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"));
    }
    if text_at(pod, &["spec", "nodeName"]) != node {
        return Err(format!("node {node:?} can only create pods with spec.nodeName set to itself"));
    }
    let owners = at(pod, &["metadata", "ownerReferences"]).and_then(Value::as_array).cloned().unwrap_or_default();
    let itself = |owner: &Value| {
        text_at(owner, &["apiVersion"]) == "v1"
            && text_at(owner, &["kind"]) == "Node"
            && text_at(owner, &["name"]) == node
    };
    match &owners[..] {
        [] => {}
        [owner] if !itself(owner) => {
            return Err(format!("node {node:?} can only create pods with an owner reference set to itself"));
        }
        [owner] if owner.get("controller") != Some(&Value::Bool(true)) => {
            return Err(format!("node {node:?} can only create pods with a controller owner reference set to itself"));
        }
        [owner] if owner.get("blockOwnerDeletion") == Some(&Value::Bool(true)) => {
            return Err(format!("node {node:?} must not set blockOwnerDeletion on an owner reference"));
        }
        [_] => {}
        _ => {
            return Err(format!("node {node:?} can only create pods with a single owner reference set to itself"));
        }
    }
    match refers_to_anything(pod) {
        None | Some("serviceaccounts") if text_at(pod, &["spec", "serviceAccountName"]) == "default" => Ok(()),
        None => Ok(()),
        Some(what) => Err(format!("node {node:?} can not create pods that reference {what}")),
    }
}

/// A request for a kubelet's client certificate must be for the node itself.
fn check_request(node: &str, request: &Value) -> Result<(), String> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let signer = text_at(request, &["spec", "signerName"]);
    if !matches!(signer, "kubernetes.io/kubelet-serving" | "kubernetes.io/kube-apiserver-client-kubelet") {
        return Ok(());
    }
    let pem = STANDARD.decode(text_at(request, &["spec", "request"])).unwrap_or_default();
    let name = (|| {
        let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).ok()?;
        let (_, request) = <x509_parser::certification_request::X509CertificationRequest<'_> as
            x509_parser::prelude::FromDer<_>>::from_der(&pem.contents).ok()?;
        let subject = &request.certification_request_info.subject;
        Some(subject.iter_common_name().next()?.as_str().ok()?.to_owned())
    })();
    match name {
        None => Err("unable to parse csr: the request holds no certificate request in PEM".to_owned()),
        Some(name) if name == format!("system:node:{node}") => Ok(()),
        Some(_) => Err(format!("can only create a node CSR with CN=system:node:{node}")),
    }
}

/// Tokens of service accounts that a node asks for are bound to pods that run on it.
pub(crate) async fn token(server: &Server, user: &User, namespace: &str, name: &str, request: &Value) -> Result<()> {
    if !server.state().options.node_authorizer || !is_node(user) {
        return Ok(());
    }
    let refuse = |why: &str| Err(Error::forbidden("", "serviceaccounts", name, why));
    let reference = request.pointer("/spec/boundObjectRef").unwrap_or(&Value::Null);
    if text_at(reference, &["kind"]) != "Pod" || text_at(reference, &["name"]).is_empty() {
        return refuse("node requested token not bound to a pod");
    }
    let uid = text_at(reference, &["uid"]);
    if uid.is_empty() {
        return refuse("node requested token with a pod binding without a uid");
    }
    let pod_name = text_at(reference, &["name"]);
    let Some(kv) = get(server, format!("{ROOT}core/pods/{namespace}/{pod_name}")).await? else {
        return Err(Error::not_found("", "pods", pod_name));
    };
    let pod = decode_kv(&kv)?;
    if object::uid(&pod) != uid {
        return refuse(&format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been \
             deleted and then recreated"
        ));
    }
    if Some(text_at(&pod, &["spec", "nodeName"])) != name_of(user) {
        return refuse("node requested token bound to a pod scheduled on a different node");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_sets_its_own_labels_and_not_the_systems() {
        for own in ["a", "example.com/a", "kubernetes.io/hostname", "node.kubernetes.io/x", "a.kubelet.kubernetes.io/x"]
        {
            assert!(!is_reserved(own), "{own}");
        }
        for reserved in [
            "node-role.kubernetes.io/control-plane",
            "kubernetes.io/x",
            "a.k8s.io/x",
            "node-restriction.kubernetes.io/x",
            "a.node-restriction.kubernetes.io/x",
        ] {
            assert!(is_reserved(reserved), "{reserved}");
        }
    }
}
