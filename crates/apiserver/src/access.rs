//! The roles and bindings of this cluster, indexed for [`policy::rbac`].

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, LazyLock},
};

use policy::rbac::{Rbac, Rule, Subject};
use serde_json::Value;

use crate::{
    object::text_at,
    selector::Labels,
    strategy::access::{role_ref, rules_of},
};

pub(crate) const GROUP: &str = "rbac.authorization.k8s.io";

#[derive(Default)]
pub(crate) struct Access {
    pub rbac: Rbac,
    /// Labels and own rules of cluster roles, for aggregation.
    cluster_roles: BTreeMap<String, ClusterRole>,
}

struct ClusterRole {
    labels: BTreeMap<String, String>,
    rules: Arc<[Rule]>,
    /// The selectors of its `aggregationRule`.
    aggregates: Vec<Labels>,
}

impl Access {
    pub(crate) fn take_in(&mut self, plural: &str, namespace: &str, name: &str, object: Option<&Value>) {
        match (plural, object) {
            ("roles" | "clusterroles", Some(role)) => {
                let rules = shared(name, rules_of(role));
                if plural == "clusterroles" {
                    self.take_in_cluster_role(name, role, Arc::clone(&rules));
                }
                self.rbac.put_role(namespace, name, rules);
            }
            ("roles" | "clusterroles", None) => {
                self.cluster_roles.remove(name);
                self.rbac.remove_role(namespace, name);
            }
            ("rolebindings" | "clusterrolebindings", Some(binding)) => {
                self.rbac.put_binding(namespace, name, subjects(binding), role_ref(binding));
            }
            ("rolebindings" | "clusterrolebindings", None) => self.rbac.remove_binding(namespace, name),
            _ => {}
        }
    }

    fn take_in_cluster_role(&mut self, name: &str, role: &Value, rules: Arc<[Rule]>) {
        let labels = role.pointer("/metadata/labels").and_then(Value::as_object).into_iter().flatten();
        let labels = labels.filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect();
        let selectors = role.pointer("/aggregationRule/clusterRoleSelectors").and_then(Value::as_array);
        let aggregates = selectors.into_iter().flatten().filter_map(|s| Labels::from_value(s).ok()).collect();
        self.cluster_roles.insert(name.to_owned(), ClusterRole { labels, rules, aggregates });
    }

    /// The cluster roles whose rules are not what their aggregation makes them, with the rules that they are to have.
    pub(crate) fn unaggregated(&self) -> Vec<(String, Vec<Rule>)> {
        let mut found = Vec::new();
        for (name, role) in self.cluster_roles.iter().filter(|(_, role)| !role.aggregates.is_empty()) {
            let all = self.cluster_roles.iter().map(|(name, role)| (name.as_str(), &role.labels, &*role.rules));
            let selects = |labels: &BTreeMap<String, String>| role.aggregates.iter().any(|s| s.matches_map(labels));
            let rules = policy::rbac::aggregate(selects, name, all);
            if *rules != *role.rules {
                found.push((name.clone(), rules));
            }
        }
        found
    }
}

/// The rules, which all servers of the process share if they are those of a default role.
fn shared(name: &str, rules: Vec<Rule>) -> Arc<[Rule]> {
    static DEFAULTS: LazyLock<HashMap<String, Arc<[Rule]>>> = LazyLock::new(|| {
        let roles = crate::bootstrap::default_roles();
        roles.into_iter().map(|role| (crate::object::name(&role).to_owned(), rules_of(&role).into())).collect()
    });
    match DEFAULTS.get(name) {
        Some(known) if **known == *rules => Arc::clone(known),
        _ => rules.into(),
    }
}

fn subjects(binding: &Value) -> Vec<Subject> {
    let list = binding.get("subjects").and_then(Value::as_array).into_iter().flatten();
    list.filter_map(|subject| {
        let name = text_at(subject, &["name"]);
        match text_at(subject, &["kind"]) {
            "User" => Some(Subject::User(name.into())),
            "Group" => Some(Subject::Group(name.into())),
            "ServiceAccount" => {
                let namespace = text_at(subject, &["namespace"]);
                Some(Subject::User(format!("system:serviceaccount:{namespace}:{name}").into()))
            }
            _ => None,
        }
    })
    .collect()
}
