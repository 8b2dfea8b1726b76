//! Role-based access control (rbac.authorization.k8s.io/v1): an index over roles and bindings, and questions to it.
//!
//! The index is updated one object at a time, and a question costs what the caller's own bindings cost, not what the
//! cluster holds. Semantics follow `plugin/pkg/auth/authorizer/rbac` and `pkg/registry/rbac/validation` of Kubernetes.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use crate::User;

mod cover;

pub use cover::uncovered;

/// One entry of a role's `rules`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rule {
    pub verbs: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub api_groups: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resource_names: Vec<String>,
    #[serde(rename = "nonResourceURLs", skip_serializing_if = "Vec::is_empty")]
    pub non_resource_urls: Vec<String>,
}

/// What a request wants to do.
#[derive(Clone, Copy, Debug)]
pub enum Attributes<'a> {
    Resource {
        verb: &'a str,
        group: &'a str,
        resource: &'a str,
        /// Empty for the resource itself.
        subresource: &'a str,
        /// Empty for all namespaces, and for kinds of cluster scope.
        namespace: &'a str,
        /// Empty where the request names no object.
        name: &'a str,
    },
    Path {
        verb: &'a str,
        path: &'a str,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The text says which binding allowed it.
    Allowed(String),
    NoOpinion,
}

impl Decision {
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allowed(_))
    }
}

impl Rule {
    pub fn allows(&self, wanted: &Attributes<'_>) -> bool {
        match *wanted {
            Attributes::Resource { verb, group, resource, subresource, name, .. } => {
                self.verb_matches(verb)
                    && has(&self.api_groups, group)
                    && self.resource_matches(resource, subresource)
                    && (self.resource_names.is_empty() || self.resource_names.iter().any(|n| n == name))
            }
            Attributes::Path { verb, path } => {
                self.verb_matches(verb) && self.non_resource_urls.iter().any(|url| url_covers(url, path))
            }
        }
    }

    fn verb_matches(&self, verb: &str) -> bool {
        has(&self.verbs, verb)
    }

    fn resource_matches(&self, resource: &str, subresource: &str) -> bool {
        self.resources.iter().any(|own| {
            own == "*"
                || match own.split_once('/') {
                    None => subresource.is_empty() && own == resource,
                    Some((base, sub)) => {
                        !subresource.is_empty() && sub == subresource && (base == "*" || base == resource)
                    }
                }
        })
    }
}

/// Whether `list` holds `wanted` or the wildcard.
fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|own| own == "*" || own == wanted)
}

/// Whether the pattern `url` (exact, or a prefix with a final `*`) takes in `path`.
fn url_covers(url: &str, path: &str) -> bool {
    match url.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => url == path,
    }
}

/// Who a binding is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    User(Box<str>),
    Group(Box<str>),
}

/// What a binding binds to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RoleRef {
    /// A ClusterRole, else a Role in the binding's own namespace.
    pub cluster: bool,
    pub name: Box<str>,
}

/// The namespace (empty: cluster scope) and the name of a role or a binding.
pub type Key = (Box<str>, Box<str>);

#[derive(Clone, Debug)]
struct Binding {
    subjects: Vec<Subject>,
    role: RoleRef,
}

/// All roles and bindings of one cluster.
#[derive(Debug, Default)]
pub struct Rbac {
    roles: HashMap<Key, Arc<[Rule]>>,
    bindings: HashMap<Key, Binding>,
    /// Subject -> namespace of the binding (empty: cluster scope) -> names of the bindings.
    by_subject: HashMap<Subject, HashMap<Box<str>, HashSet<Box<str>>>>,
}

impl Rbac {
    /// Takes in a Role (`namespace` not empty) or a ClusterRole (empty).
    pub fn put_role(&mut self, namespace: &str, name: &str, rules: impl Into<Arc<[Rule]>>) {
        self.roles.insert((namespace.into(), name.into()), rules.into());
    }

    pub fn remove_role(&mut self, namespace: &str, name: &str) {
        self.roles.remove(&(namespace.into(), name.into()));
    }

    /// Takes in a RoleBinding (`namespace` not empty) or a ClusterRoleBinding (empty).
    pub fn put_binding(&mut self, namespace: &str, name: &str, subjects: Vec<Subject>, role: RoleRef) {
        self.remove_binding(namespace, name);
        for subject in &subjects {
            let names = self.by_subject.entry(subject.clone()).or_default().entry(namespace.into()).or_default();
            names.insert(name.into());
        }
        self.bindings.insert((namespace.into(), name.into()), Binding { subjects, role });
    }

    pub fn remove_binding(&mut self, namespace: &str, name: &str) {
        let Some(old) = self.bindings.remove(&(namespace.into(), name.into())) else { return };
        for subject in old.subjects {
            let Some(by_namespace) = self.by_subject.get_mut(&subject) else { continue };
            if let Some(names) = by_namespace.get_mut(namespace) {
                names.remove(name);
                if names.is_empty() {
                    by_namespace.remove(namespace);
                }
            }
            if by_namespace.is_empty() {
                self.by_subject.remove(&subject);
            }
        }
    }

    /// The rules of a role; `None` if there is no such role.
    pub fn role(&self, namespace: &str, role: &RoleRef) -> Option<&Arc<[Rule]>> {
        let namespace = if role.cluster { "" } else { namespace };
        self.roles.get(&(namespace.into(), role.name.clone()))
    }

    pub fn authorize(&self, user: &User, wanted: &Attributes<'_>) -> Decision {
        if user.is_master() {
            return Decision::Allowed(String::new());
        }
        let namespace = match *wanted {
            Attributes::Resource { namespace, .. } => namespace,
            Attributes::Path { .. } => "",
        };
        let mut allowed = None;
        self.visit(user, namespace, |found| {
            if found.rules.iter().any(|rule| rule.allows(wanted)) {
                allowed = Some(found.reason());
            }
            allowed.is_none()
        });
        allowed.map_or(Decision::NoOpinion, Decision::Allowed)
    }

    /// All rules that hold for `user` in `namespace` (empty: those of cluster scope only).
    pub fn rules_for(&self, user: &User, namespace: &str) -> Vec<Rule> {
        let mut all = Vec::new();
        if user.is_master() {
            all.push(everything());
            all.push(Rule { verbs: star(), non_resource_urls: star(), ..Rule::default() });
        }
        self.visit(user, namespace, |found| {
            all.extend(found.rules.iter().cloned());
            true
        });
        all
    }

    /// Why some of what is bound to `user` could not be asked: roles that are not there, in the words of a refusal; empty:
    /// none are missing.
    pub fn missing_roles(&self, user: &User, namespace: &str) -> String {
        let own = std::iter::once(Subject::User(user.name.as_str().into()));
        let groups = user.groups.iter().map(|group| Subject::Group(group.as_str().into()));
        let mut missing = std::collections::BTreeSet::new();
        for by_namespace in own.chain(groups).filter_map(|subject| self.by_subject.get(&subject)) {
            let spaces: &[&str] = if namespace.is_empty() { &[""] } else { &["", namespace] };
            for space in spaces {
                for name in by_namespace.get(*space).into_iter().flatten() {
                    let binding = self.bindings.get(&((*space).into(), name.clone()));
                    let role = binding.map(|binding| &binding.role).filter(|role| self.role(space, role).is_none());
                    missing.extend(role.map(|role| {
                        let kind = if role.cluster { "clusterrole" } else { "role" };
                        format!("{kind}.rbac.authorization.k8s.io \"{}\" not found", role.name)
                    }));
                }
            }
        }
        let missing: Vec<String> = missing.into_iter().collect();
        match &missing[..] {
            [] => String::new(),
            [one] => format!("RBAC: {one}"),
            many => format!("RBAC: [{}]", many.join(", ")),
        }
    }

    /// Calls `take` for each role that is bound to `user`, until it answers false.
    fn visit(&self, user: &User, namespace: &str, mut take: impl FnMut(Found<'_>) -> bool) {
        let own = std::iter::once(Subject::User(user.name.as_str().into()));
        let groups = user.groups.iter().map(|group| Subject::Group(group.as_str().into()));
        for subject in own.chain(groups) {
            let Some(by_namespace) = self.by_subject.get(&subject) else { continue };
            let spaces: &[&str] = if namespace.is_empty() { &[""] } else { &["", namespace] };
            for space in spaces {
                for name in by_namespace.get(*space).into_iter().flatten() {
                    let key = ((*space).into(), name.clone());
                    let Some(binding) = self.bindings.get(&key) else { continue };
                    let Some(rules) = self.role(space, &binding.role) else { continue };
                    if !take(Found { namespace: space, name, role: &binding.role, subject: &subject, rules }) {
                        return;
                    }
                }
            }
        }
    }
}

struct Found<'a> {
    namespace: &'a str,
    name: &'a str,
    role: &'a RoleRef,
    subject: &'a Subject,
    rules: &'a [Rule],
}

impl Found<'_> {
    fn reason(&self) -> String {
        let binding = if self.namespace.is_empty() {
            format!("ClusterRoleBinding \"{}\"", self.name)
        } else {
            format!("RoleBinding \"{}/{}\"", self.name, self.namespace)
        };
        let role = if self.role.cluster { "ClusterRole" } else { "Role" };
        let subject = match self.subject {
            Subject::User(name) => format!("User \"{name}\""),
            Subject::Group(name) => format!("Group \"{name}\""),
        };
        format!("RBAC: allowed by {binding} of {role} \"{}\" to {subject}", self.role.name)
    }
}

fn star() -> Vec<String> {
    vec!["*".to_owned()]
}

fn everything() -> Rule {
    Rule { verbs: star(), api_groups: star(), resources: star(), ..Rule::default() }
}

/// The rules of an aggregated ClusterRole: those of each role that a selector takes in, in order of names, each once.
pub fn aggregate<'a>(
    selects: impl Fn(&BTreeMap<String, String>) -> bool,
    own_name: &str,
    roles: impl IntoIterator<Item = (&'a str, &'a BTreeMap<String, String>, &'a [Rule])>,
) -> Vec<Rule> {
    let mut taken: Vec<_> =
        roles.into_iter().filter(|(name, labels, _)| *name != own_name && selects(labels)).collect();
    taken.sort_by_key(|(name, ..)| *name);
    let mut rules: Vec<Rule> = Vec::new();
    for rule in taken.iter().flat_map(|(_, _, rules)| rules.iter()) {
        if !rules.contains(rule) {
            rules.push(rule.clone());
        }
    }
    rules
}

#[cfg(test)]
mod tests;
