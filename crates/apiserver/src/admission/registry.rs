//! The configurations of webhooks and the policies of this cluster, compiled. They are followed as they are written; a
//! request reads nothing of them from the store.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;

use super::{
    policies::{Binding, Policy},
    webhooks::{self, Hook},
};

/// A snapshot; a new one is made when a configuration changes. By names, which is the order in which they are asked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Registry {
    pub mutating: BTreeMap<String, Arc<[Hook]>>,
    pub validating: BTreeMap<String, Arc<[Hook]>>,
    pub policies: BTreeMap<String, Arc<Policy>>,
    /// By the policy that is bound, and the name of the binding.
    pub bindings: BTreeMap<(String, String), Arc<Binding>>,
    pub mutations: BTreeMap<String, Arc<Policy>>,
    pub mutation_bindings: BTreeMap<(String, String), Arc<Binding>>,
}

fn put<T>(map: &mut BTreeMap<String, T>, name: &str, value: Option<T>) {
    match value {
        Some(value) => drop(map.insert(name.to_owned(), value)),
        None => drop(map.remove(name)),
    }
}

fn bind(map: &mut BTreeMap<(String, String), Arc<Binding>>, name: &str, object: Option<&Value>) {
    map.retain(|(_, known), _| known != name);
    if let Some(binding) = object.map(Binding::read) {
        map.insert((binding.policy.clone(), name.to_owned()), Arc::new(binding));
    }
}

impl Registry {
    /// With a configuration put in, or taken out (`None`).
    pub fn with(&self, plural: &str, name: &str, object: Option<&Value>) -> Self {
        let mut next = self.clone();
        let hooks = |object: &Value| -> Arc<[Hook]> { webhooks::read(object).into() };
        let policy = |object: &Value| Arc::new(Policy::read(object));
        match plural {
            "mutatingwebhookconfigurations" => put(&mut next.mutating, name, object.map(hooks)),
            "validatingwebhookconfigurations" => put(&mut next.validating, name, object.map(hooks)),
            "validatingadmissionpolicies" => put(&mut next.policies, name, object.map(policy)),
            "validatingadmissionpolicybindings" => bind(&mut next.bindings, name, object),
            "mutatingadmissionpolicies" => put(&mut next.mutations, name, object.map(policy)),
            "mutatingadmissionpolicybindings" => bind(&mut next.mutation_bindings, name, object),
            _ => {}
        }
        next
    }

    /// Whether nobody is asked.
    pub fn is_empty(&self) -> bool {
        self.mutating.is_empty() && self.validating.is_empty() && self.policies.is_empty() && self.mutations.is_empty()
    }

    /// What a policy takes its parameters from (apiVersion and kind), if it takes any; None if there is no such policy.
    pub fn param_kind(&self, plural: &str, name: &str) -> Option<Option<(String, String)>> {
        let policies = if plural == "mutatingadmissionpolicies" { &self.mutations } else { &self.policies };
        policies.get(name).map(|policy| policy.param_kind.clone())
    }
}
