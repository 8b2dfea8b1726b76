//! Pods that get an owner because its selector means them, and pods that lose theirs because it does not any more.
//!
//! Source: kubernetes/kubernetes pkg/controller/controller_ref_manager.go.

use k8s_openapi::{
    api::core::v1::Pod,
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference},
};
use kube::{Resource, ResourceExt};
use serde_json::json;

use super::{
    observed::{Observed, controller_of, is_controlled_by},
    plan::Plan,
    pods,
};

pub fn plan(seen: &Observed, plan: &mut Plan) {
    let mut adopted = Vec::new();
    for set in &seen.replica_sets {
        of_one(seen, set, set.spec.as_ref().map(|spec| &spec.selector), |_| true, &mut adopted, plan);
    }
    for set in &seen.daemon_sets {
        of_one(seen, set, set.spec.as_ref().map(|spec| &spec.selector), |_| true, &mut adopted, plan);
    }
    for set in &seen.stateful_sets {
        let prefix = format!("{}-", set.name_any());
        let member = |pod: &Pod| pod.name_any().strip_prefix(&prefix).is_some_and(|rest| rest.parse::<u32>().is_ok());
        of_one(seen, set, set.spec.as_ref().map(|spec| &spec.selector), member, &mut adopted, plan);
    }
}

fn of_one<K: Resource<DynamicType = ()>>(
    seen: &Observed,
    owner: &K,
    selector: Option<&LabelSelector>,
    member: impl Fn(&Pod) -> bool,
    adopted: &mut Vec<ObjectMeta>,
    plan: &mut Plan,
) {
    let Some(selector) = selector.filter(|_| !pods::is_deleted(owner)) else { return };
    for pod in seen.pods.iter().filter(|pod| pod.namespace() == owner.namespace() && !pods::is_deleted(*pod)) {
        let meant = pods::is_selected(selector, pod) && member(pod);
        let owners = pod.owner_references();
        if is_controlled_by(&pod.metadata, owner.meta()) {
            if !meant {
                let others = owners.iter().filter(|other| Some(&other.uid) != owner.meta().uid.as_ref());
                write(pod, others.cloned().collect(), plan);
            }
        } else if meant
            && pods::is_active(pod)
            && controller_of(&pod.metadata).is_none()
            && !adopted.contains(&pod.metadata)
        {
            adopted.push(pod.metadata.clone());
            plan.adopting.extend(owner.uid());
            write(pod, owners.iter().cloned().chain(pods::owner(owner)).collect(), plan);
        }
    }
}

fn write(pod: &Pod, owners: Vec<OwnerReference>, plan: &mut Plan) {
    let version = &pod.metadata.resource_version;
    plan.patch(pod, json!({"metadata": {"ownerReferences": owners, "resourceVersion": version}}));
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn set(kind: &str) -> Value {
        json!({"kind": kind, "metadata": {"name": "web", "namespace": "default", "uid": "s"}, "spec": {
            "selector": {"matchLabels": {"app": "web"}}, "template": {}, "serviceName": ""}})
    }

    fn pod(name: &str, app: &str, owner: Option<&str>) -> Value {
        let owner = owner.map(
            |uid| json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "x", "uid": uid, "controller": true}),
        );
        json!({"kind": "Pod", "metadata": {"name": name, "namespace": "default", "uid": name, "labels": {"app": app},
            "ownerReferences": owner.into_iter().collect::<Vec<_>>()}, "status": {"phase": "Running"}})
    }

    fn owners(objects: &[Value]) -> Vec<String> {
        let mut made = Plan::default();
        plan(&Observed::of("2026-01-01T00:00:00Z", objects), &mut made);
        let told = made.writes.iter().filter_map(|write| match write {
            super::super::plan::Write::Patch { target, patch } => {
                let owners = patch.pointer("/metadata/ownerReferences")?.as_array()?;
                let uids: Vec<_> = owners.iter().filter_map(|owner| owner["uid"].as_str()).collect();
                Some(format!("{} [{}]", target.name, uids.join(" ")))
            }
            _ => None,
        });
        told.collect()
    }

    #[test]
    fn pods_follow_the_selector_of_their_owner() {
        assert_eq!(owners(&[set("ReplicaSet"), pod("p", "web", None)]), ["p [s]"]);
        assert_eq!(owners(&[set("ReplicaSet"), pod("p", "other", Some("s"))]), ["p []"]);
        for pod in [pod("p", "web", Some("s")), pod("p", "web", Some("else")), pod("p", "other", None)] {
            assert!(owners(&[set("ReplicaSet"), pod]).is_empty());
        }
        let mut ended = pod("p", "web", None);
        ended["status"]["phase"] = "Failed".into();
        assert!(owners(&[set("DaemonSet"), ended]).is_empty());
    }

    #[test]
    fn an_ordered_set_takes_only_what_is_named_as_its_pods_are() {
        assert_eq!(owners(&[set("StatefulSet"), pod("web-1", "web", None)]), ["web-1 [s]"]);
        assert!(owners(&[set("StatefulSet"), pod("web-a", "web", None)]).is_empty());
    }

    #[test]
    fn a_pod_gets_one_owner_though_two_would_have_it() {
        let mut other = set("ReplicaSet");
        other["metadata"]["uid"] = "t".into();
        other["metadata"]["name"] = "other".into();
        assert_eq!(owners(&[set("ReplicaSet"), other, pod("p", "web", None)]), ["p [s]"]);
    }
}
