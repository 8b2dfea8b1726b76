//! Server-side apply and `metadata.managedFields` (KEP-555): who owns which field, what an applied configuration changes, and
//! where it conflicts. Pure: nothing here knows of requests.
//!
//! Upstream: `structured-merge-diff/merge/update.go`, `apimachinery/pkg/util/managedfields`. Left out: conversion of owned
//! paths between the versions of a kind (paths are taken as they were written).

mod managers;
mod set;
mod typed;

use std::fmt;

use serde_json::{Value, json};

use self::{
    managers::{BEFORE_FIRST_APPLY, Manager, Operation},
    set::Set,
};
use crate::schema::{Node, Schema};

/// Where `kubectl apply` without `--server-side` keeps what it applied last.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
const KUBECTL: &str = "kubectl";

pub struct ApplyInput<'a> {
    /// None: the object is to be made.
    pub live: Option<&'a Value>,
    /// What is applied, unknown fields pruned already, and without what writes to this (sub)resource do not reach: a field
    /// that is there is owned.
    pub config: &'a Value,
    pub manager: &'a str,
    /// Take fields from other managers instead of failing.
    pub force: bool,
    /// Empty for the object itself.
    pub subresource: &'a str,
    pub api_version: &'a str,
    /// RFC 3339.
    pub now: &'a str,
    pub schema: &'a Schema,
}

/// A field that another manager owns with another value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The manager as upstream words it: `"name" using v1`.
    pub manager: String,
    /// As in `.spec.containers[name="x"].image`.
    pub path: String,
}

impl Conflict {
    /// The text of the Status cause.
    pub fn message(&self) -> String {
        format!("conflict with {}", self.manager)
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum ApplyError {
    /// At least one.
    Conflicts(Vec<Conflict>),
    /// What the schema does not take.
    Untyped(Vec<String>),
}

impl fmt::Display for ApplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let conflicts = match self {
            Self::Untyped(faults) => {
                return match &faults[..] {
                    [only] => f.write_str(only),
                    _ => write!(f, "errors:\n  {}", faults.join("\n  ")),
                };
            }
            Self::Conflicts(conflicts) => conflicts,
        };
        if let [only] = &conflicts[..] {
            return write!(f, "Apply failed with 1 conflict: conflict with {}: {}", only.manager, only.path);
        }
        let mut lines = Vec::new();
        let mut last = None;
        for conflict in conflicts {
            if last != Some(&conflict.manager) {
                lines.push(format!("conflicts with {}:", conflict.manager));
                last = Some(&conflict.manager);
            }
            lines.push(format!("- {}", conflict.path));
        }
        write!(f, "Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
    }
}

impl std::error::Error for ApplyError {}

/// Merges a configuration into the live object, and returns what the object becomes, its managedFields included. The live
/// object comes back unchanged when nothing is to change.
pub fn apply(input: ApplyInput<'_>) -> Result<Value, ApplyError> {
    let node: &Node = input.schema.with_metadata();
    let mut config = input.config.clone();
    input.schema.drop_nulls(&mut config);
    managers::take(&mut config);
    let before = input.live.map(managers::entries).and_then(managers::read);
    drop_out_of_reach(&input, before.as_deref().unwrap_or_default(), &mut config);
    let mut faults = Vec::new();
    typed::faults(Some(node), &config, "", &mut faults);
    if !faults.is_empty() {
        return Err(ApplyError::Untyped(faults));
    }
    let applier = Manager::new(input.manager, Operation::Apply, input.api_version, input.subresource);
    let said = typed::fields_of(Some(node), &config);
    let mut wanted = said.clone();
    managers::strip(&mut wanted);

    let mut live = input.live.cloned().unwrap_or_else(|| json!({}));
    managers::take(&mut live);
    let mut all = before.clone().unwrap_or_default();
    if input.live.is_some() && before.is_none() {
        let mut unknown = Manager::new(BEFORE_FIRST_APPLY, Operation::Update, input.api_version, "");
        unknown.fields = typed::fields_of(Some(node), &live);
        managers::strip(&mut unknown.fields);
        input.now.clone_into(&mut unknown.time);
        all.push(unknown);
    }

    let mut merged = typed::merge(Some(node), &live, &config);
    let last = all.iter().find(|manager| manager.is(&applier)).map(|manager| manager.fields.clone());
    if let Some(last) = &last {
        let mut kept = said;
        all.iter().filter(|manager| !manager.is(&applier)).for_each(|other| kept.union(&other.fields));
        typed::remove(Some(node), &mut merged, &dropped(&last.with_parents(), &kept));
    }
    let change = typed::difference(Some(node), Some(&live), Some(&merged));
    let mut written = change.added.clone();
    written.union(&change.modified);
    let conflicts = conflicts(&all, &applier, &written);
    if !input.force {
        let refused = listed(&all, &not_taken_over(&input, &live, &conflicts));
        if !refused.is_empty() {
            return Err(ApplyError::Conflicts(refused));
        }
    }
    for (index, fields) in &conflicts {
        if let Some(manager) = all.get_mut(*index) {
            manager.fields.subtract(fields);
        }
    }
    for manager in all.iter_mut().filter(|manager| !manager.is(&applier)) {
        manager.fields.subtract(&change.removed);
    }
    let same_fields = last.is_some_and(|last| last == wanted);
    if let (true, true, Some(live)) = (change.is_empty(), same_fields, input.live) {
        return Ok(live.clone());
    }
    let before_time =
        all.iter().find(|manager| manager.is(&applier)).map(|manager| manager.time.clone()).unwrap_or_default();
    all.retain(|manager| !manager.is(&applier));
    // The time is that of the last change.
    let time = if change.is_empty() { before_time } else { input.now.to_owned() };
    all.push(Manager { fields: wanted, time, ..applier });
    let mut all: Vec<_> = all.iter().map(Manager::write).collect();
    managers::tidy(&mut all);
    keep_last_applied(&input, &live, &config, &mut merged);
    managers::put(&mut merged, all);
    Ok(merged)
}

/// Lays a configuration over an object, as applying it does, without a word about who owns what. Fails if it touches
/// something that is one value: what it does not say would be lost.
pub(crate) fn lay_over(schema: &Schema, live: &Value, config: &Value) -> Result<Value, String> {
    let root = schema.with_metadata();
    let mut faults = Vec::new();
    typed::faults(Some(root), config, "", &mut faults);
    if !faults.is_empty() {
        return Err(format!("failed to convert patch object to typed object: {}", ApplyError::Untyped(faults)));
    }
    let mut atomics = Vec::new();
    typed::atomics(Some(root), config, "", &mut atomics);
    if !atomics.is_empty() {
        let list = atomics.join(", ");
        return Err(format!("invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {list}"));
    }
    Ok(typed::merge(Some(root), live, config))
}

/// Brings the managedFields of an object up to date that was created, replaced or patched by `manager`. `new` may carry
/// managedFields of its own, which then count instead of the old ones; a list of one empty entry forgets all managers.
pub fn track_update(
    old: Option<&Value>,
    new: &mut Value,
    manager: &str,
    subresource: &str,
    api_version: &str,
    now: &str,
    schema: &Schema,
) {
    let node: &Node = schema.with_metadata();
    let reset = subresource.is_empty() && managers::asks_for_reset(new);
    let said = managers::take(new).filter(|said| !said.is_empty());
    let stands = old.map(managers::entries).filter(|stands| !stands.is_empty());
    // What stands was written here. What is sent instead of it may be anything, and counts if it can be read.
    let sent = said.as_ref().filter(|said| subresource.is_empty() && Some(&said[..]) != stands);
    let sent = sent.and_then(|sent| managers::read(sent));
    let updater = Manager::new(manager, Operation::Update, api_version, subresource);
    let mut all: Vec<Value> = match &sent {
        // Made by `apply`, which has said already who owns what.
        Some(sent) if old.is_none() && matches!(&sent[..], [only] if only.is(&updater.as_applier())) => {
            managers::put(new, said.unwrap_or_default());
            return;
        }
        _ if reset => Vec::new(),
        Some(sent) => sent.iter().map(Manager::write).collect(),
        None => match (said, stands) {
            (Some(said), Some(stands)) if said == stands => said,
            (_, stands) => stands.unwrap_or_default().to_vec(),
        },
    };
    if old.is_some() && all.is_empty() {
        // Nobody was tracked when the object was made, so nobody is from here on (or all were just forgotten).
        return;
    }
    let change = match old {
        Some(old) => typed::change(Some(node), old, new),
        None => typed::change(Some(node), &zero(node, new), new),
    };
    let mut written = change.added;
    written.union(&change.modified);
    managers::strip(&mut written);
    let mut changed = false;
    for entry in &mut all {
        if !updater.is_entry(entry) {
            changed |= managers::subtract(entry, &written);
        }
        changed |= managers::subtract(entry, &change.removed);
    }
    if !written.is_empty() {
        let found = all.iter().position(|entry| updater.is_entry(entry));
        let mut mine = found.and_then(|index| Manager::read(&all.swap_remove(index))).unwrap_or(updater);
        mine.fields.union(&written);
        // Upstream tracks a Scale without saying since when.
        mine.time = if subresource == "scale" { String::new() } else { now.to_owned() };
        all.push(mine.write());
        changed = true;
    }
    if changed || sent.is_some() {
        managers::tidy(&mut all);
    }
    managers::put(new, all);
}

/// Fields that are structs in upstream's Go types, not pointers to them: they are there, empty, in an object that says
/// nothing, so that nobody comes to own them as such.
const STRUCTS: [&str; 24] = [
    "acceptedNames",
    "daemonEndpoints",
    "involvedObject",
    "jobTemplate",
    "kubeletEndpoint",
    "loadBalancer",
    "metadata",
    "names",
    "nodeInfo",
    "podSelector",
    "regarding",
    "resources",
    "roleRef",
    "scaleTargetRef",
    "source",
    "spec",
    "status",
    "strategy",
    "target",
    "targetRef",
    "template",
    "updateStrategy",
    "userInfo",
    "user",
];

/// What a new object is compared with: for built-in kinds, the object that says nothing; for others, nothing.
fn zero(node: &Node, new: &Value) -> Value {
    fn structs(node: &Node, value: &Value) -> Value {
        let fields = value.as_object().into_iter().flatten();
        fields
            .filter_map(|(name, value)| match value {
                // The one list that is merged and written out even if it is empty.
                Value::Array(_) if name == "containers" => Some((name.clone(), json!([]))),
                Value::Object(_) if STRUCTS.contains(&name.as_str()) => {
                    Some((name.clone(), structs(node.property(name)?, value)))
                }
                _ => None,
            })
            .collect()
    }
    if node.name.is_some() { structs(node, new) } else { json!({}) }
}

/// What a write to this (sub)resource does not reach is not owned by the writer either. Whether a kind has a status apart is
/// known of built-in kinds, and seen where somebody has written it; callers that know take it out of the configuration.
fn drop_out_of_reach(input: &ApplyInput<'_>, managers: &[Manager], config: &mut Value) {
    const STATUS: &str = "status";
    let Some(fields) = config.as_object_mut() else { return };
    if input.subresource == STATUS {
        fields.retain(|name, _| matches!(name.as_str(), "apiVersion" | "kind" | "metadata" | STATUS));
        if let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.retain(|name, _| matches!(name.as_str(), "name" | "namespace" | "uid" | "resourceVersion"));
        }
    } else if input.subresource.is_empty() {
        let apart = input.schema.root().name.is_some() || managers.iter().any(|manager| manager.subresource == STATUS);
        if apart {
            fields.remove(STATUS);
        }
    }
}

/// The members of `last` that nothing of `kept` is at or below.
fn dropped(last: &Set, kept: &Set) -> Set {
    let mut out = Set::default();
    for (element, child) in last.children() {
        match kept.child(element) {
            Some(kept) => out.put(element.clone(), dropped(child, kept)),
            None => out.put(element.clone(), child.clone()),
        }
    }
    out
}

/// What other managers own of the fields that change.
fn conflicts(all: &[Manager], applier: &Manager, written: &Set) -> Vec<(usize, Set)> {
    all.iter()
        .enumerate()
        .filter(|(_, manager)| !manager.is(applier))
        .map(|(index, manager)| (index, manager.fields.intersection(written)))
        .filter(|(_, fields)| !fields.is_empty())
        .collect()
}

fn listed(all: &[Manager], conflicts: &[(usize, Set)]) -> Vec<Conflict> {
    let mut out: Vec<_> = conflicts
        .iter()
        .filter_map(|(index, fields)| Some((all.get(*index)?.described(), fields)))
        .flat_map(|(manager, fields)| {
            fields.paths().into_iter().map(move |path| Conflict { manager: manager.clone(), path })
        })
        .collect();
    out.sort_by(|a, b| (&a.manager, &a.path).cmp(&(&b.manager, &b.path)));
    out
}

/// The conflicts that stand. `kubectl` may take what it applied itself in the days before server-side apply: the annotation
/// says what that was.
fn not_taken_over(input: &ApplyInput<'_>, live: &Value, conflicts: &[(usize, Set)]) -> Vec<(usize, Set)> {
    let mut standing = conflicts.to_vec();
    if input.manager == KUBECTL
        && let Some(before) = last_applied(live).and_then(|text| serde_json::from_str::<Value>(text).ok())
    {
        let before = typed::fields_of(Some(input.schema.with_metadata()), &before);
        standing.iter_mut().for_each(|(_, fields)| fields.subtract(&before));
    }
    standing
}

fn last_applied(object: &Value) -> Option<&str> {
    object.pointer("/metadata/annotations")?.get(LAST_APPLIED)?.as_str()
}

/// Where the annotation of client-side apply is, server-side apply of kubectl keeps it true, so that both can be used.
fn keep_last_applied(input: &ApplyInput<'_>, live: &Value, config: &Value, merged: &mut Value) {
    if input.manager != KUBECTL || !input.subresource.is_empty() || last_applied(live).is_none() {
        return;
    }
    let mut config = config.clone();
    if let Some(annotations) = config.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.remove(LAST_APPLIED);
    }
    if let Some(annotations) = merged.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.insert(LAST_APPLIED.to_owned(), format!("{config}\n").into());
    }
}

#[cfg(test)]
mod tests;
