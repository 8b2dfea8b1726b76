//! What a node may do (`plugin/pkg/auth/authorizer/node`): its own Node, its lease, the pods that are bound to it and what those
//! refer to; anything else of the role system:node uniformly.
//!
//! Upstream keeps a graph; here the pods of one namespace are read when a node asks for something in it. Left out: resource
//! slices and claims, pod certificate requests, and secrets that only a persistent volume names.

use std::sync::LazyLock;

use policy::{
    User,
    rbac::{Attributes, Rule},
};
use serde_json::Value;
use store::{At, Range};

use super::{Question, Verdict};
use crate::{
    kinds::ROOT,
    object::{self, decode_kv, text_at},
    rest::after_key,
    server::Server,
    status::Result,
    strategy::access::rules_of,
    write::get,
};

const PREFIX: &str = "system:node:";
const GROUP: &str = "system:nodes";
pub(super) const LEASES: &str = "kube-node-lease";
/// Pods that are read at once.
const PODS_READ: usize = 500;
/// Marks a pod that a node made itself; it gives no right to what it names.
pub(super) const MIRROR: &str = "kubernetes.io/config.mirror";

/// Whether a user is a node, if perhaps one without a name.
pub(crate) fn is_node(user: &User) -> bool {
    user.name.starts_with(PREFIX) && user.is_in(GROUP)
}

/// The node that a user is.
pub(crate) fn name_of(user: &User) -> Option<&str> {
    user.name.strip_prefix(PREFIX).filter(|_| user.is_in(GROUP))
}

fn no(why: impl Into<String>) -> Verdict {
    Verdict::NoOpinion(why.into())
}

fn yes() -> Verdict {
    Verdict::Allow(String::new())
}

pub(super) async fn authorize(server: &Server, question: &Question<'_>) -> Verdict {
    let Some(node) = name_of(question.user).filter(|node| !node.is_empty()) else {
        return no(format!("unknown node for user {:?}", question.user.name));
    };
    let Attributes::Resource { verb, group, resource, subresource, namespace, name } = question.wanted else {
        return by_role(&question.wanted);
    };
    let whole = subresource.is_empty();
    match (group, resource) {
        ("", "secrets" | "configmaps") => match verb {
            "get" | "list" | "watch" if !whole => no("cannot read subresource"),
            "get" | "list" | "watch" if namespace.is_empty() => no("can only read namespaced object of this type"),
            "get" | "list" | "watch" => related(server, node, resource, namespace, name).await,
            _ => no("can only read resources of this type"),
        },
        ("", "persistentvolumeclaims") if subresource == "status" => match verb {
            "update" | "patch" => related(server, node, resource, namespace, name).await,
            _ => no("can only get/update/patch this type"),
        },
        ("", "persistentvolumeclaims" | "persistentvolumes") | ("storage.k8s.io", "volumeattachments") => match verb {
            "get" if whole => related(server, node, resource, namespace, name).await,
            "get" => no("cannot get subresource"),
            _ => no("can only get individual resources of this type"),
        },
        ("", "serviceaccounts") => match (verb, subresource) {
            ("get", "") => related(server, node, resource, namespace, name).await,
            ("create", "token") if !name.is_empty() => related(server, node, resource, namespace, name).await,
            ("create", _) if !name.is_empty() => no("can only create token subresource of serviceaccount"),
            _ => no("can only create tokens for individual service accounts"),
        },
        ("coordination.k8s.io", "leases") => match verb {
            "get" | "create" | "update" | "patch" | "delete" if namespace != LEASES => {
                no(format!("can only access leases in the {LEASES:?} system namespace"))
            }
            "create" => yes(),
            "get" | "update" | "patch" | "delete" if name == node => yes(),
            "get" | "update" | "patch" | "delete" => {
                no("can only access node lease with the same name as the requesting node")
            }
            _ => no("can only get, create, update, patch, or delete a node lease"),
        },
        ("storage.k8s.io", "csinodes") => match verb {
            "get" | "create" | "update" | "patch" | "delete" if !whole => no("cannot authorize CSINode subresources"),
            "create" => yes(),
            "get" | "update" | "patch" | "delete" if name == node => yes(),
            "get" | "update" | "patch" | "delete" => {
                no("can only access CSINode with the same name as the requesting node")
            }
            _ => no("can only get, create, update, patch, or delete a CSINode"),
        },
        ("", "nodes") => nodes(node, verb, subresource, name),
        ("", "pods") => pods(server, node, question).await,
        _ => by_role(&question.wanted),
    }
}

fn nodes(node: &str, verb: &str, subresource: &str, name: &str) -> Verdict {
    match (subresource, verb) {
        // Whose object it is, admission sees.
        ("", "create" | "update" | "patch") | ("status", "update" | "patch") => yes(),
        ("", "get" | "list" | "watch") => match name {
            own if own == node => yes(),
            "" => no(format!("node '{node}' cannot read all nodes, only its own Node object")),
            other => no(format!("node '{node}' cannot read '{other}', only its own Node object")),
        },
        _ => no(""),
    }
}

async fn pods(server: &Server, node: &str, question: &Question<'_>) -> Verdict {
    let Attributes::Resource { verb, subresource, namespace, name, .. } = question.wanted else { return no("") };
    match (subresource, verb) {
        ("", "get") => related(server, node, "pods", namespace, name).await,
        ("", "list" | "watch") => {
            let asks = |part: &str| {
                let value = part.strip_prefix("spec.nodeName=").map(|rest| rest.strip_prefix('=').unwrap_or(rest));
                value == Some(node)
            };
            if question.field_selector.split(',').any(|part| asks(part.trim())) {
                return yes();
            }
            match name {
                "" => no("can only list/watch pods with spec.nodeName field selector"),
                name => related(server, node, "pods", namespace, name).await,
            }
        }
        // Which pods these are, admission sees.
        ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => yes(),
        _ => no(""),
    }
}

/// What every node may do alike.
fn by_role(wanted: &Attributes<'_>) -> Verdict {
    static RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| {
        let roles = crate::bootstrap::default_roles();
        let role = roles.iter().find(|role| object::name(role) == "system:node");
        let mut rules = role.map(rules_of).unwrap_or_default();
        // What is decided by relation is not granted to all.
        rules.retain(|rule| !rule.resources.iter().any(|r| matches!(r.as_str(), "secrets" | "configmaps")));
        rules
    });
    if RULES.iter().any(|rule| rule.allows(wanted)) { yes() } else { no("") }
}

async fn related(server: &Server, node: &str, plural: &str, namespace: &str, name: &str) -> Verdict {
    if name.is_empty() {
        return no("No Object name found");
    }
    match is_related(server, node, plural, namespace, name).await {
        Ok(true) => yes(),
        Ok(false) => no(format!("no relationship found between node '{node}' and this object")),
        Err(error) => {
            tracing::warn!(%error, node, "what a node may read could not be found out");
            no(format!("no relationship found between node '{node}' and this object"))
        }
    }
}

async fn is_related(server: &Server, node: &str, plural: &str, namespace: &str, name: &str) -> Result<bool> {
    match plural {
        "pods" => {
            let Some(kv) = get(server, format!("{ROOT}core/pods/{namespace}/{name}")).await? else { return Ok(false) };
            Ok(text_at(&decode_kv(&kv)?, &["spec", "nodeName"]) == node)
        }
        "volumeattachments" => {
            let key = format!("{ROOT}storage.k8s.io/volumeattachments/{name}");
            let Some(kv) = get(server, key).await? else { return Ok(false) };
            Ok(text_at(&decode_kv(&kv)?, &["spec", "nodeName"]) == node)
        }
        "persistentvolumes" => {
            let Some(kv) = get(server, format!("{ROOT}core/persistentvolumes/{name}")).await? else { return Ok(false) };
            let volume = decode_kv(&kv)?;
            let claim = |key: &str| text_at(&volume, &["spec", "claimRef", key]).to_owned();
            let (namespace, claim) = (claim("namespace"), claim("name"));
            if namespace.is_empty() || claim.is_empty() {
                return Ok(false);
            }
            pod_refers(server, node, "persistentvolumeclaims", &namespace, &claim).await
        }
        _ => pod_refers(server, node, plural, namespace, name).await,
    }
}

/// Whether a pod on the node refers to an object of its namespace.
async fn pod_refers(server: &Server, node: &str, plural: &str, namespace: &str, name: &str) -> Result<bool> {
    let mut range = Range::prefix(format!("{ROOT}core/pods/{namespace}/"));
    let mut at = At::Latest;
    loop {
        let page = server.store().range(range.clone(), at, PODS_READ).await.map_err(crate::write::store_error)?;
        for kv in &page.items {
            let pod = decode_kv(kv)?;
            let own = text_at(&pod, &["spec", "nodeName"]) == node;
            let mirror = pod.pointer("/metadata/annotations").and_then(|a| a.get(MIRROR)).is_some();
            if own && !mirror && refers(&pod, plural, name) {
                return Ok(true);
            }
        }
        let Some(last) = page.items.last().filter(|_| page.remaining > 0) else { return Ok(false) };
        range.start = after_key(&last.key);
        at = At::Exact(page.revision);
    }
}

fn list<'a>(value: &'a Value, path: &str) -> impl Iterator<Item = &'a Value> {
    value.pointer(path).and_then(Value::as_array).into_iter().flatten()
}

const CONTAINERS: [&str; 3] = ["/spec/containers", "/spec/initContainers", "/spec/ephemeralContainers"];

/// Whether a pod names an object, which is in its namespace.
pub(super) fn refers(pod: &Value, plural: &str, name: &str) -> bool {
    let is = |value: &Value, path: &str| value.pointer(path).and_then(Value::as_str) == Some(name);
    let containers = || CONTAINERS.iter().flat_map(|path| list(pod, path));
    let volumes = || list(pod, "/spec/volumes");
    let (key_ref, all_ref) = if plural == "secrets" { ("secret", "secret") } else { ("configMap", "configMap") };
    let in_environment = || {
        containers().any(|container| {
            list(container, "/env").any(|e| is(e, &format!("/valueFrom/{key_ref}KeyRef/name")))
                || list(container, "/envFrom").any(|e| is(e, &format!("/{all_ref}Ref/name")))
        })
    };
    match plural {
        "serviceaccounts" => is(pod, "/spec/serviceAccountName"),
        "persistentvolumeclaims" => volumes().any(|volume| {
            let own = format!("{}-{}", object::name(pod), text_at(volume, &["name"]));
            is(volume, "/persistentVolumeClaim/claimName") || (volume.get("ephemeral").is_some() && own == name)
        }),
        "secrets" => {
            const REFERENCES: [&str; 9] = [
                "/secret/secretName",
                "/azureFile/secretName",
                "/cephfs/secretRef/name",
                "/rbd/secretRef/name",
                "/flexVolume/secretRef/name",
                "/iscsi/secretRef/name",
                "/scaleIO/secretRef/name",
                "/storageos/secretRef/name",
                "/csi/nodePublishSecretRef/name",
            ];
            list(pod, "/spec/imagePullSecrets").any(|s| is(s, "/name"))
                || in_environment()
                || volumes().any(|volume| {
                    REFERENCES.iter().any(|path| is(volume, path))
                        || list(volume, "/projected/sources").any(|s| is(s, "/secret/name"))
                })
        }
        "configmaps" => {
            in_environment()
                || volumes().any(|volume| {
                    is(volume, "/configMap/name")
                        || list(volume, "/projected/sources").any(|s| is(s, "/configMap/name"))
                })
        }
        _ => false,
    }
}

/// Whether a pod names anything else than its node.
pub(super) fn refers_to_anything(pod: &Value) -> Option<&'static str> {
    let mut containers = CONTAINERS.iter().flat_map(|path| list(pod, path));
    if !text_at(pod, &["spec", "serviceAccountName"]).is_empty() {
        return Some("serviceaccounts");
    }
    let has = |value: &Value, path: &str| value.pointer(path).is_some_and(|found| !found.is_null());
    let environment = containers.find_map(|container| {
        list(container, "/env").chain(list(container, "/envFrom")).find_map(|e| match e {
            e if has(e, "/valueFrom/secretKeyRef") || has(e, "/secretRef") => Some("secrets"),
            e if has(e, "/valueFrom/configMapKeyRef") || has(e, "/configMapRef") => Some("configmaps"),
            _ => None,
        })
    });
    environment.or_else(|| {
        list(pod, "/spec/volumes").find_map(|volume| match volume {
            v if has(v, "/secret") => Some("secrets"),
            v if has(v, "/configMap") => Some("configmaps"),
            v if has(v, "/persistentVolumeClaim") => Some("persistentvolumeclaims"),
            v if has(v, "/projected") => Some("projected volumes"),
            _ => None,
        })
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_refers_to_what_it_names_and_nothing_else() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {
            "serviceAccountName": "robot",
            "imagePullSecrets": [{"name": "pull"}],
            "containers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "env"}}}], "envFrom": [{"configMapRef": {"name": "cm"}}]}],
            "initContainers": [{"envFrom": [{"secretRef": {"name": "init"}}]}],
            "volumes": [
                {"name": "a", "secret": {"secretName": "vol"}},
                {"name": "b", "projected": {"sources": [{"secret": {"name": "proj"}}, {"configMap": {"name": "root"}}]}},
                {"name": "c", "persistentVolumeClaim": {"claimName": "disk"}},
                {"name": "d", "ephemeral": {}},
            ],
        }});
        for name in ["pull", "env", "init", "vol", "proj"] {
            assert!(refers(&pod, "secrets", name), "{name}");
            assert!(!refers(&pod, "configmaps", name), "{name}");
        }
        for name in ["cm", "root"] {
            assert!(refers(&pod, "configmaps", name), "{name}");
            assert!(!refers(&pod, "secrets", name), "{name}");
        }
        assert!(refers(&pod, "serviceaccounts", "robot") && !refers(&pod, "serviceaccounts", "default"));
        assert!(refers(&pod, "persistentvolumeclaims", "disk") && refers(&pod, "persistentvolumeclaims", "p-d"));
        assert!(!refers(&pod, "persistentvolumeclaims", "p-a"));
    }
}
