//! What rendered text consists of: the objects in the order in which they are installed, and the hooks.

use std::{cmp::Ordering, sync::LazyLock};

use regex::Regex;

use crate::{
    data,
    error::{Error, Result},
    rendering::Rendered,
    template::value::{Entries, Value},
};

/// Kinds in the order in which they are installed; what is not named comes behind them.
const INSTALL_ORDER: &[&str] = &[
    "PriorityClass",
    "Namespace",
    "NetworkPolicy",
    "ResourceQuota",
    "LimitRange",
    "PodSecurityPolicy",
    "PodDisruptionBudget",
    "ServiceAccount",
    "Secret",
    "SecretList",
    "ConfigMap",
    "StorageClass",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "CustomResourceDefinition",
    "ClusterRole",
    "ClusterRoleList",
    "ClusterRoleBinding",
    "ClusterRoleBindingList",
    "Role",
    "RoleList",
    "RoleBinding",
    "RoleBindingList",
    "Service",
    "DaemonSet",
    "Pod",
    "ReplicationController",
    "ReplicaSet",
    "Deployment",
    "HorizontalPodAutoscaler",
    "StatefulSet",
    "Job",
    "CronJob",
    "IngressClass",
    "Ingress",
    "APIService",
];

/// Kinds in the order in which they are removed: the other way round, but that a service goes before what it leads to.
const REMOVAL_ORDER: &[&str] = &[
    "APIService",
    "Ingress",
    "IngressClass",
    "Service",
    "CronJob",
    "Job",
    "StatefulSet",
    "HorizontalPodAutoscaler",
    "Deployment",
    "ReplicaSet",
    "ReplicationController",
    "Pod",
    "DaemonSet",
    "RoleBindingList",
    "RoleBinding",
    "RoleList",
    "Role",
    "ClusterRoleBindingList",
    "ClusterRoleBinding",
    "ClusterRoleList",
    "ClusterRole",
    "CustomResourceDefinition",
    "PersistentVolumeClaim",
    "PersistentVolume",
    "StorageClass",
    "ConfigMap",
    "SecretList",
    "Secret",
    "ServiceAccount",
    "PodDisruptionBudget",
    "PodSecurityPolicy",
    "LimitRange",
    "ResourceQuota",
    "NetworkPolicy",
    "Namespace",
    "PriorityClass",
];

const EVENTS: &[&str] = &[
    "pre-install",
    "post-install",
    "pre-delete",
    "post-delete",
    "pre-upgrade",
    "post-upgrade",
    "pre-rollback",
    "post-rollback",
    "test",
];

/// An object of a release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The path of the template that it comes from.
    pub path: String,
    pub kind: String,
    /// YAML, one document.
    pub content: String,
}

/// An object that is made when something happens to the release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    pub manifest: Manifest,
    pub name: String,
    /// As `pre-install`.
    pub events: Vec<String>,
    /// Lighter ones go first.
    pub weight: i64,
    /// As `hook-succeeded`.
    pub delete_policies: Vec<String>,
    /// When its logs are told; the same words.
    pub output_log_policies: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifests {
    pub objects: Vec<Manifest>,
    pub hooks: Vec<Hook>,
    /// `NOTES.txt` of the chart and of those that it depends on, by path.
    pub notes: Vec<(String, String)>,
}

/// Takes rendered text apart.
///
/// # Errors
/// That a document is no YAML.
pub fn sorted(rendered: &Rendered) -> Result<Manifests> {
    let mut manifests = Manifests::default();
    for (path, text) in rendered {
        if path.ends_with("NOTES.txt") {
            manifests.notes.push((path.clone(), text.clone()));
            continue;
        }
        for content in documents(text) {
            read(path, content, &mut manifests)?;
        }
    }
    manifests.objects.sort_by(|left, right| by_kind(&left.kind, &right.kind, INSTALL_ORDER));
    manifests.hooks.sort_by(|left, right| by_kind(&left.manifest.kind, &right.manifest.kind, INSTALL_ORDER));
    Ok(manifests)
}

/// Puts objects, given by path and then as they stand in their files, in the order in which they are removed.
pub fn sort_for_removal(objects: &mut [Manifest]) {
    objects.sort_by(|left, right| by_kind(&left.kind, &right.kind, REMOVAL_ORDER));
}

// A constant; a test reads it.
static SEPARATOR: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"(?-u:(?:^|\s*\n)---\s*)").ok());

/// The documents of a text, without white space around them.
fn documents(text: &str) -> Vec<&str> {
    let text = text.trim();
    let parts: Vec<&str> = match &*SEPARATOR {
        Some(separator) => separator.split(text).collect(),
        None => vec![text],
    };
    parts.into_iter().filter(|part| !part.is_empty()).map(str::trim).collect()
}

fn text(entries: &Entries, key: &str) -> String {
    crate::chart::metadata::text(
        entries
            .get(key)
            .map(|value| data::json_map(&Entries::from([(key.into(), value.clone())])))
            .as_ref()
            .and_then(|map| map.get(key)),
    )
}

fn table(entries: &Entries, key: &str) -> Entries {
    match entries.get(key) {
        Some(Value::Map(map)) => map.entries.borrow().clone(),
        _ => Entries::new(),
    }
}

fn read(path: &str, content: &str, into: &mut Manifests) -> Result<()> {
    let head = data::yaml::read_map(content)
        .map_err(|error| Error::Template(format!("YAML parse error on {path}: {error}")))?;
    let metadata = table(&head, "metadata");
    let annotations = table(&metadata, "annotations");
    let manifest = Manifest { path: path.to_owned(), kind: text(&head, "kind"), content: content.to_owned() };
    if !annotations.contains_key("helm.sh/hook") {
        into.objects.push(manifest);
        return Ok(());
    }
    let listed = |key: &str| -> Vec<String> {
        let text = if annotations.contains_key(key) { text(&annotations, key) } else { return Vec::new() };
        text.split(',').map(|part| part.trim().to_lowercase()).collect()
    };
    let known = |event: String| -> Option<String> {
        let event = if event == "test-success" { "test".to_owned() } else { event };
        EVENTS.contains(&event.as_str()).then_some(event)
    };
    // A hook of an event that is not known is left out, as Helm does.
    if let Some(events) = listed("helm.sh/hook").into_iter().map(known).collect() {
        into.hooks.push(Hook {
            name: text(&metadata, "name"),
            events,
            weight: text(&annotations, "helm.sh/hook-weight").parse().unwrap_or(0),
            delete_policies: listed("helm.sh/hook-delete-policy"),
            output_log_policies: listed("helm.sh/hook-output-log-policy"),
            manifest,
        });
    }
    Ok(())
}

fn by_kind(left: &str, right: &str, order: &[&str]) -> Ordering {
    let place = |kind: &str| order.iter().position(|known| *known == kind);
    match (place(left), place(right)) {
        (Some(left), Some(right)) => left.cmp(&right),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => left.cmp(right),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Manifests {
        sorted(&Rendered::from([("c/templates/a".to_owned(), text.to_owned())])).unwrap()
    }

    #[test]
    fn documents_are_sorted_by_kind_and_stay_in_order_within_one() {
        let text = "kind: Deployment\nn: 1\n---\nkind: Zebra\n---\nkind: Service\n---\nkind: Ant\n---\nkind: Deployment\nn: 2\n";
        let kinds: Vec<String> = of(text).objects.into_iter().map(|object| object.content).collect();
        assert_eq!(
            kinds,
            ["kind: Service", "kind: Deployment\nn: 1", "kind: Deployment\nn: 2", "kind: Ant", "kind: Zebra"]
        );
    }

    #[test]
    fn what_is_removed_goes_the_other_way_round_and_services_go_first() {
        let (mut installed, mut removed) = (INSTALL_ORDER.to_vec(), REMOVAL_ORDER.to_vec());
        removed.reverse();
        for order in [&mut installed, &mut removed] {
            order.retain(|kind| *kind != "Service");
        }
        assert_eq!(installed, removed);
        let mut objects = of("kind: Deployment\n---\nkind: Service\n---\nkind: Zebra\n---\nkind: Ingress\n").objects;
        sort_for_removal(&mut objects);
        let kinds: Vec<String> = objects.into_iter().map(|object| object.kind).collect();
        assert_eq!(kinds, ["Ingress", "Service", "Deployment", "Zebra"]);
    }

    #[test]
    fn hooks_have_their_events_weight_and_policies() {
        let text = "kind: Job\nmetadata:\n  name: j\n  annotations:\n    helm.sh/hook: pre-install, Post-Upgrade\n    helm.sh/hook-weight: \"-5\"\n    helm.sh/hook-delete-policy: hook-succeeded,before-hook-creation\n";
        let found = of(text);
        assert!(found.objects.is_empty());
        let [hook] = &found.hooks[..] else { panic!("{found:?}") };
        assert_eq!((hook.name.as_str(), hook.weight), ("j", -5));
        assert_eq!(hook.events, ["pre-install", "post-upgrade"]);
        assert_eq!(hook.delete_policies, ["hook-succeeded", "before-hook-creation"]);
    }

    #[test]
    fn what_is_no_yaml_is_told_with_its_path() {
        let rendered = Rendered::from([("c/templates/a".to_owned(), "a: [".to_owned())]);
        assert!(sorted(&rendered).unwrap_err().to_string().starts_with("YAML parse error on c/templates/a: "));
    }
}
