//! The templates that a DaemonSet or a StatefulSet has had, as ControllerRevisions.
//!
//! Source: kubernetes/kubernetes pkg/controller/history, pkg/controller/daemon/update.go.

use k8s_openapi::{
    api::{
        apps::v1::ControllerRevision,
        core::v1::{Pod, PodTemplateSpec},
    },
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, runtime::RawExtension},
};
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};

use super::{
    observed::{Observed, is_controlled_by},
    plan::{Plan, value},
    pods,
};

pub const HASH_LABEL: &str = "controller-revision-hash";

pub struct History<'a> {
    /// By number, all but the current one.
    pub old: Vec<&'a ControllerRevision>,
    /// That of the template as it is now, if it is there.
    pub current: Option<&'a ControllerRevision>,
    data: Value,
    next: i64,
    seen: &'a Observed,
}

pub fn hash_of(revision: &ControllerRevision) -> String {
    revision.labels().get(HASH_LABEL).cloned().unwrap_or_default()
}

/// What a revision keeps: a patch that brings its template back.
fn data(template: &PodTemplateSpec) -> Value {
    let mut template = value(template);
    template["$patch"] = "replace".into();
    json!({"spec": {"template": template}})
}

impl<'a> History<'a> {
    pub fn of<K: Resource<DynamicType = ()>>(seen: &'a Observed, owner: &K, template: &PodTemplateSpec) -> Self {
        let own = |revision: &&ControllerRevision| is_controlled_by(&revision.metadata, owner.meta());
        let mut all: Vec<&ControllerRevision> = seen.revisions.iter().filter(own).collect();
        all.sort_by_key(|revision| revision.revision);
        let data = data(template);
        let same = |revision: &&&ControllerRevision| revision.data.as_ref().is_some_and(|found| found.0 == data);
        let current = all.iter().rev().find(same).copied();
        let next = all.last().map_or(0, |revision| revision.revision) + 1;
        let uid = current.and_then(|revision| revision.metadata.uid.clone());
        all.retain(|revision| revision.metadata.uid != uid);
        Self { old: all, current, data, next, seen }
    }

    /// Keeps the template as it is now.
    pub fn create<K: Resource<DynamicType = ()>>(&self, owner: &K, collisions: Option<i32>, plan: &mut Plan) {
        let mut salt = collisions.unwrap_or(0);
        let (hash, name) = loop {
            let hash = pods::hash(&(&self.data, salt));
            let name = format!("{}-{hash}", owner.name_any());
            let taken = |other: &ControllerRevision| other.name_any() == name && other.namespace() == owner.namespace();
            if !self.seen.revisions.iter().any(taken) {
                break (hash, name);
            }
            salt += 1;
        };
        let mut labels = match self.data.pointer("/spec/template/metadata/labels") {
            Some(labels) => serde_json::from_value(labels.clone()).unwrap_or_default(),
            None => std::collections::BTreeMap::new(),
        };
        labels.insert(HASH_LABEL.to_owned(), hash);
        plan.create(&ControllerRevision {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: owner.namespace(),
                labels: Some(labels),
                owner_references: Some(pods::owner(owner)),
                ..ObjectMeta::default()
            },
            data: Some(RawExtension(self.data.clone())),
            revision: self.next,
        });
    }

    /// The current template is the newest one: it may be one that came back.
    pub fn renumber(&self, plan: &mut Plan) {
        if let Some(current) = self.current
            && current.revision + 1 < self.next
        {
            plan.patch(current, json!({"revision": self.next}));
        }
    }

    /// Takes away the oldest of those that no pod has.
    pub fn clean_up(&self, limit: i32, pods: &[&Pod], plan: &mut Plan) {
        self.renumber(plan);
        let used = |revision: &&&ControllerRevision| {
            let hash = hash_of(revision);
            let name = revision.name_any();
            pods.iter().any(|pod| pod.labels().get(HASH_LABEL).is_some_and(|own| *own == hash || *own == name))
        };
        let unused: Vec<_> = self.old.iter().filter(|revision| !used(revision)).collect();
        let gone = unused.len().saturating_sub(usize::try_from(limit).unwrap_or(usize::MAX));
        for revision in &unused[..gone] {
            plan.delete(**revision);
        }
    }
}
