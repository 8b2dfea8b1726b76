//! Limit ranges (core/v1 `LimitRange`): what containers ask for if they do not say it, and what they, pods and claims may ask for
//! (upstream: `plugin/pkg/admission/limitranger`). And the index of what limits a namespace, followed as it is written.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde_json::{Map, Value};

use super::{Operation, matching::Subject, quantity::Amount, quota::pod_resources};
use crate::{
    object::{at, set_at, text_at},
    status::Result,
};

const ANNOTATION: &str = "kubernetes.io/limit-ranger";

/// The quotas (by name) and limit ranges of namespaces.
#[derive(Clone, Debug, Default)]
pub(crate) struct Limits {
    quotas: Arc<BTreeMap<String, BTreeSet<String>>>,
    ranges: Arc<BTreeMap<String, BTreeMap<String, Arc<Value>>>>,
}

impl Limits {
    /// Takes a quota or a limit range in, or out (`None`).
    pub fn take_in(&mut self, plural: &str, namespace: &str, name: &str, object: Option<Value>) {
        if plural == "resourcequotas" {
            let quotas = Arc::make_mut(&mut self.quotas);
            match object {
                Some(_) => drop(quotas.entry(namespace.to_owned()).or_default().insert(name.to_owned())),
                None => {
                    let names = quotas.entry(namespace.to_owned()).or_default();
                    names.remove(name);
                    if names.is_empty() {
                        quotas.remove(namespace);
                    }
                }
            }
            return;
        }
        let ranges = Arc::make_mut(&mut self.ranges);
        let own = ranges.entry(namespace.to_owned()).or_default();
        match object {
            Some(range) => drop(own.insert(name.to_owned(), Arc::new(range))),
            None => drop(own.remove(name)),
        }
        if own.is_empty() {
            ranges.remove(namespace);
        }
    }

    /// The names of the quotas of a namespace.
    pub fn quotas(&self, namespace: &str) -> Vec<String> {
        self.quotas.get(namespace).into_iter().flatten().cloned().collect()
    }

    fn ranges(&self, namespace: &str) -> Vec<Arc<Value>> {
        self.ranges.get(namespace).into_iter().flat_map(BTreeMap::values).cloned().collect()
    }
}

fn entries(range: &Value) -> impl Iterator<Item = &Value> {
    at(range, &["spec", "limits"]).and_then(Value::as_array).into_iter().flatten()
}

fn amounts<'v>(item: &'v Value, key: &str) -> impl Iterator<Item = (&'v String, Amount)> + use<'v> {
    let list = item.get(key).and_then(Value::as_object).into_iter().flatten();
    list.filter_map(|(name, value)| Some((name, Amount::read(value)?)))
}

fn containers<'v>(pod: &'v Value, key: &str) -> &'v [Value] {
    at(pod, &["spec", key]).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Gives a new pod's containers what they do not ask for themselves.
pub(crate) fn mutate(subject: &Subject<'_>, pod: &mut Value) {
    let request = subject.request;
    if !(is_pod(subject) && request.operation == Operation::Create) {
        return;
    }
    for range in subject.server.limits().ranges(&request.namespace) {
        let mut told = Vec::new();
        for (key, title) in [("containers", "container"), ("initContainers", "init container")] {
            let Some(list) = pod.pointer_mut(&format!("/spec/{key}")).and_then(Value::as_array_mut) else { continue };
            for container in list {
                complete(&range, container, title, &mut told);
            }
        }
        if !told.is_empty() {
            let text = format!("LimitRanger plugin set: {}", told.join("; "));
            set_at(pod, &["metadata", "annotations", ANNOTATION], text.into());
        }
    }
}

fn complete(range: &Value, container: &mut Value, title: &str, told: &mut Vec<String>) {
    let name = text_at(container, &["name"]).to_owned();
    let mut set = |defaults: &str, key: &str| {
        let mut names = Vec::new();
        for entry in entries(range).filter(|entry| text_at(entry, &["type"]) == "Container") {
            for (resource, value) in entry.get(defaults).and_then(Value::as_object).into_iter().flatten() {
                if at(container, &["resources", key, resource]).is_none() {
                    set_at(container, &["resources", key, resource], value.clone());
                    names.push(resource.clone());
                }
            }
        }
        names.sort_unstable();
        names.join(", ")
    };
    let limits = set("default", "limits");
    let requests = set("defaultRequest", "requests");
    for (names, what) in [(requests, "request"), (limits, "limit")] {
        if !names.is_empty() {
            told.push(format!("{names} {what} for {title} {name}"));
        }
    }
}

fn is_pod(subject: &Subject<'_>) -> bool {
    let request = subject.request;
    request.group.is_empty() && request.resource == "pods" && request.subresource.is_empty()
}

/// Whether a pod or a claim keeps to the limits of its namespace.
pub(crate) fn validate(subject: &Subject<'_>, object: Option<&Value>) -> Result<()> {
    let request = subject.request;
    let claim =
        request.group.is_empty() && request.resource == "persistentvolumeclaims" && request.subresource.is_empty();
    let checked = match request.operation {
        Operation::Create => is_pod(subject) || claim,
        Operation::Update => claim,
        Operation::Delete | Operation::Connect => false,
    };
    let Some(object) = object.filter(|_| checked) else { return Ok(()) };
    let mut wrong = Vec::new();
    for range in subject.server.limits().ranges(&request.namespace) {
        for entry in entries(&range) {
            match (text_at(entry, &["type"]), claim) {
                ("Container", false) => {
                    for container in containers(object, "containers").iter().chain(containers(object, "initContainers"))
                    {
                        let of = |key: &str| -> BTreeMap<String, Amount> {
                            let nothing = Value::Object(Map::new());
                            let resources = container.get("resources").unwrap_or(&nothing);
                            amounts(resources, key).map(|(name, amount)| (name.clone(), amount)).collect()
                        };
                        check(entry, "Container", &of("requests"), Some(&of("limits")), &mut wrong);
                    }
                }
                ("Pod", false) => {
                    let (requests, limits) = (pod_resources(object, "requests"), pod_resources(object, "limits"));
                    check(entry, "Pod", &requests, Some(&limits), &mut wrong);
                }
                ("PersistentVolumeClaim", true) => {
                    let nothing = Value::Object(Map::new());
                    let resources = at(object, &["spec", "resources"]).unwrap_or(&nothing);
                    let requests =
                        amounts(resources, "requests").map(|(name, amount)| (name.clone(), amount)).collect();
                    check(entry, "PersistentVolumeClaim", &requests, None, &mut wrong);
                }
                _ => {}
            }
        }
    }
    wrong.dedup();
    match &wrong[..] {
        [] => Ok(()),
        [one] => Err(subject.forbidden(Some(object), one)),
        several => Err(subject.forbidden(Some(object), format!("[{}]", several.join(", ")))),
    }
}

/// `limits`: None where only what is asked for counts.
fn check(
    entry: &Value,
    of: &str,
    requests: &BTreeMap<String, Amount>,
    limits: Option<&BTreeMap<String, Amount>>,
    wrong: &mut Vec<String>,
) {
    let limit_of = |name: &String| limits.and_then(|limits| limits.get(name)).copied();
    for (name, least) in amounts(entry, "min") {
        let start = format!("minimum {name} usage per {of} is {least}");
        match (requests.get(name), limit_of(name)) {
            (None, _) => wrong.push(format!("{start}.  No request is specified")),
            (Some(request), _) if least.exceeds(*request) => wrong.push(format!("{start}, but request is {request}")),
            (_, Some(limit)) if least.exceeds(limit) => wrong.push(format!("{start}, but limit is {limit}")),
            _ => {}
        }
    }
    for (name, most) in amounts(entry, "max") {
        let start = format!("maximum {name} usage per {of} is {most}");
        match (requests.get(name), limit_of(name)) {
            (None, _) if limits.is_none() => wrong.push(format!("{start}.  No request is specified")),
            (_, None) if limits.is_some() => wrong.push(format!("{start}.  No limit is specified")),
            (_, Some(limit)) if limit.exceeds(most) => wrong.push(format!("{start}, but limit is {limit}")),
            (Some(request), _) if request.exceeds(most) => wrong.push(format!("{start}, but request is {request}")),
            _ => {}
        }
    }
    let Some(limits) = limits else { return };
    for (name, ratio) in amounts(entry, "maxLimitRequestRatio") {
        let start = format!("{name} max limit to request ratio per {of} is {ratio}");
        match (requests.get(name).filter(|r| !r.is_zero()), limits.get(name).filter(|l| !l.is_zero())) {
            (None, _) => wrong.push(format!("{start}, but no request is specified or request is 0")),
            (_, None) => wrong.push(format!("{start}, but no limit is specified or limit is 0")),
            (Some(request), Some(limit)) if limit.exceeds_ratio(ratio, *request) => {
                wrong.push(format!("{start}, but provided ratio is {:.6}", limit.ratio(*request)));
            }
            _ => {}
        }
    }
}

/// Defaults that follow from the limits of a limit range (`kubernetes/pkg/apis/core/v1/defaults.go`).
pub(crate) fn default_range(range: &mut Value) {
    let Some(list) = range.pointer_mut("/spec/limits").and_then(Value::as_array_mut) else { return };
    for entry in list.iter_mut().filter(|entry| text_at(entry, &["type"]) == "Container") {
        let of = |entry: &Value, key: &str| entry.get(key).and_then(Value::as_object).cloned().unwrap_or_default();
        let mut limits = of(entry, "default");
        for (name, value) in of(entry, "max") {
            limits.entry(name).or_insert(value);
        }
        let mut requests = of(entry, "defaultRequest");
        for (name, value) in limits.iter().map(|(name, value)| (name.clone(), value.clone())).chain(of(entry, "min")) {
            requests.entry(name).or_insert(value);
        }
        for (key, list) in [("default", limits), ("defaultRequest", requests)] {
            if !list.is_empty() {
                set_at(entry, &[key], list.into());
            }
        }
    }
}
