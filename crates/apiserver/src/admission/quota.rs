//! Resource quotas (core/v1 `ResourceQuota`): what a namespace may hold. The usage that a quota's status tells is written in the
//! same commit as the object that is counted, so it is never wrong, and two requests cannot both take what is left.
//!
//! Upstream: `apiserver/pkg/admission/plugin/resourcequota`, `kubernetes/pkg/quota/v1/evaluator`. Left out: claims of devices,
//! volume attributes classes, and the scope `CrossNamespacePodAffinity`, whose quotas count nothing.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::{Map, Value, json};
use store::{Expect, KeyValue, Op};

use super::quantity::Amount;
use crate::{
    kinds::{Kind, ROOT},
    object::{self, at, set_at, text_at},
    rest,
    server::Server,
    status::{Error, Result},
    write::{self, RETRIES_MAX, Scope},
};

type Usage = BTreeMap<String, Amount>;

/// Kinds of the core group that are counted by their plural alone as well.
const PLAIN: [&str; 7] =
    ["configmaps", "persistentvolumeclaims", "pods", "replicationcontrollers", "resourcequotas", "secrets", "services"];
/// What pods ask for, and by which names it is counted.
const COMPUTE: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

/// What is written together with an object that quotas count.
#[derive(Debug, Default)]
pub(crate) struct Charge {
    pub guard: Vec<(Bytes, Expect)>,
    pub ops: Vec<Op>,
}

fn add(usage: &mut Usage, name: impl Into<String>, amount: Amount) {
    let entry = usage.entry(name.into()).or_default();
    *entry = entry.plus(amount);
}

/// What an object counts as.
fn usage(kind: &Kind, object: &Value) -> Usage {
    let mut usage = Usage::new();
    let counted = match kind.group.is_empty() {
        true => format!("count/{}", kind.plural),
        false => format!("count/{}.{}", kind.plural, kind.group),
    };
    add(&mut usage, counted, Amount::count(1));
    if !kind.group.is_empty() {
        return usage;
    }
    match &*kind.plural {
        "pods" => pod(&mut usage, object),
        plural if PLAIN.contains(&plural) => add(&mut usage, plural, Amount::count(1)),
        _ => {}
    }
    match &*kind.plural {
        "services" => service(&mut usage, object),
        "persistentvolumeclaims" => claim(&mut usage, object),
        _ => {}
    }
    usage
}

fn service(usage: &mut Usage, service: &Value) {
    let ports = at(service, &["spec", "ports"]).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let fixed = ports.iter().filter(|port| port.get("nodePort").and_then(Value::as_i64).unwrap_or(0) != 0).count();
    let unallocated = at(service, &["spec", "allocateLoadBalancerNodePorts"]) == Some(&Value::Bool(false));
    let (balancers, node_ports) = match text_at(service, &["spec", "type"]) {
        "NodePort" => (0, ports.len()),
        "LoadBalancer" => (1, if unallocated { fixed } else { ports.len() }),
        _ => (0, 0),
    };
    add(usage, "services.loadbalancers", Amount::count(balancers));
    add(usage, "services.nodeports", Amount::count(node_ports));
}

fn claim(usage: &mut Usage, claim: &Value) {
    let class = text_at(claim, &["spec", "storageClassName"]);
    let asked = at(claim, &["spec", "resources", "requests", "storage"]).and_then(Amount::read);
    if let Some(asked) = asked {
        add(usage, "requests.storage", asked);
    }
    if !class.is_empty() {
        add(usage, format!("{class}.storageclass.storage.k8s.io/persistentvolumeclaims"), Amount::count(1));
        if let Some(asked) = asked {
            add(usage, format!("{class}.storageclass.storage.k8s.io/requests.storage"), asked);
        }
    }
}

/// What the containers of a pod ask for together, or (`limits`) may use.
pub(crate) fn pod_resources(pod: &Value, key: &str) -> Usage {
    let list = |field: &str| at(pod, &["spec", field]).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let of = |container: &Value| -> Usage {
        let resources = at(container, &["resources", key]).and_then(Value::as_object).into_iter().flatten();
        resources.filter_map(|(name, value)| Some((name.clone(), Amount::read(value)?))).collect()
    };
    let (mut sum, mut sidecars, mut most) = (Usage::new(), Usage::new(), Usage::new());
    for container in list("containers") {
        of(container).into_iter().for_each(|(name, amount)| add(&mut sum, name, amount));
    }
    for container in list("initContainers") {
        let mut own = of(container);
        if text_at(container, &["restartPolicy"]) == "Always" {
            own.iter().for_each(|(name, amount)| add(&mut sum, name.as_str(), *amount));
            own.into_iter().for_each(|(name, amount)| add(&mut sidecars, name, amount));
            own = sidecars.clone();
        } else {
            sidecars.iter().for_each(|(name, amount)| add(&mut own, name.as_str(), *amount));
        }
        for (name, amount) in own {
            let entry = most.entry(name).or_default();
            *entry = entry.max(amount);
        }
    }
    for (name, amount) in most {
        let entry = sum.entry(name).or_default();
        *entry = entry.max(amount);
    }
    let whole = at(pod, &["spec", "resources", key]).and_then(Value::as_object).into_iter().flatten();
    sum.extend(whole.filter_map(|(name, value)| Some((name.clone(), Amount::read(value)?))));
    sum
}

fn pod(usage: &mut Usage, pod: &Value) {
    // One that has ended takes nothing any more.
    if matches!(text_at(pod, &["status", "phase"]), "Failed" | "Succeeded") {
        return;
    }
    add(usage, "pods", Amount::count(1));
    for (name, amount) in pod_resources(pod, "requests") {
        if COMPUTE.contains(&name.as_str()) || name.starts_with("hugepages-") {
            add(usage, name.as_str(), amount);
        }
        add(usage, format!("requests.{name}"), amount);
    }
    for (name, amount) in pod_resources(pod, "limits") {
        add(usage, format!("limits.{name}"), amount);
    }
}

/// Whether a quota with scopes is about an object; only pods have any.
fn in_scope(quota: &Value, kind: &Kind, object: &Value) -> bool {
    let scopes = at(quota, &["spec", "scopes"]).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let selected = at(quota, &["spec", "scopeSelector", "matchExpressions"]).and_then(Value::as_array);
    let selected = selected.map_or(&[][..], Vec::as_slice);
    if scopes.is_empty() && selected.is_empty() {
        return true;
    }
    if !(kind.group.is_empty() && kind.plural == "pods") {
        return false;
    }
    let is = |scope: &str| match scope {
        "Terminating" => at(object, &["spec", "activeDeadlineSeconds"]).and_then(Value::as_i64).is_some(),
        "NotTerminating" => at(object, &["spec", "activeDeadlineSeconds"]).and_then(Value::as_i64).is_none(),
        "BestEffort" => is_best_effort(object),
        "NotBestEffort" => !is_best_effort(object),
        "PriorityClass" => !text_at(object, &["spec", "priorityClassName"]).is_empty(),
        _ => false,
    };
    let holds = |entry: &Value| {
        let scope = text_at(entry, &["scopeName"]);
        let class = text_at(object, &["spec", "priorityClassName"]);
        let named = || super::matching::texts(entry.get("values")).iter().any(|value| value == class);
        match text_at(entry, &["operator"]) {
            "In" => scope == "PriorityClass" && named(),
            "NotIn" => scope == "PriorityClass" && !named(),
            "DoesNotExist" => !is(scope),
            _ => is(scope),
        }
    };
    scopes.iter().all(|scope| is(scope.as_str().unwrap_or_default())) && selected.iter().all(holds)
}

fn is_best_effort(pod: &Value) -> bool {
    pod_resources(pod, "requests").is_empty() && pod_resources(pod, "limits").is_empty()
}

fn amounts(quota: &Value, path: &[&str]) -> Usage {
    let list = at(quota, path).and_then(Value::as_object).into_iter().flatten();
    list.filter_map(|(name, value)| Some((name.clone(), Amount::read(value)?))).collect()
}

fn printed(usage: &Usage) -> String {
    let list: Vec<String> = usage.iter().map(|(name, amount)| format!("{name}={amount}")).collect();
    list.join(",")
}

/// Whether the status tells the usage of all that the spec limits.
fn is_counted(quota: &Value) -> bool {
    let hard = at(quota, &["spec", "hard"]);
    let used = at(quota, &["status", "used"]);
    let names = hard.and_then(Value::as_object).into_iter().flatten();
    at(quota, &["status", "hard"]) == hard
        && names.into_iter().all(|(name, _)| used.is_some_and(|used| used.get(name).is_some()))
}

/// What a write costs the quotas of its namespace. Refused if there is not enough left. `old`: what stands.
pub(crate) async fn charge(scope: &Scope, key: &str, new: Option<&[u8]>, old: Option<&[u8]>) -> Result<Charge> {
    let mut charge = Charge::default();
    let kind = &scope.kind;
    let names = scope.server.limits().quotas(&scope.namespace);
    if !kind.namespaced
        || names.is_empty()
        || kind.plural == "events"
        || (new.is_some() && old.is_some() && !varies(kind))
    {
        return Ok(charge);
    }
    let read = |bytes: Option<&[u8]>| bytes.and_then(|bytes| serde_json::from_slice::<Value>(bytes).ok());
    let (new, old) = (read(new), read(old));
    for name in names {
        let quota_key = format!("{ROOT}core/resourcequotas/{}/{name}", scope.namespace);
        if quota_key == key {
            continue;
        }
        let Some(mut kv) = write::get(&scope.server, quota_key.clone()).await? else { continue };
        let mut quota = object::decode_kv(&kv)?;
        if at(&quota, &["status", "used"]).is_none_or(Value::is_null) {
            Box::pin(recount(&scope.server, &scope.namespace, &name, false)).await?;
            let Some(counted) = write::get(&scope.server, quota_key.clone()).await? else { continue };
            quota = object::decode_kv(&counted)?;
            kv = counted;
        }
        if let Some(used) = charged(scope, &quota, new.as_ref(), old.as_ref())? {
            for (name, amount) in used {
                set_at(&mut quota, &["status", "used", &name], amount.to_string().into());
            }
            charge.put(&kv, &quota);
        }
    }
    Ok(charge)
}

impl Charge {
    fn put(&mut self, base: &KeyValue, quota: &Value) {
        self.guard.push((base.key.clone(), Expect::ModifiedAt(base.modified)));
        let head = object::head("v1", "ResourceQuota");
        self.ops.push(Op::Put { key: base.key.clone(), value: object::encode(&head, quota).into() });
    }

    pub fn is_about(&self, key: &[u8]) -> bool {
        self.guard.iter().any(|(own, _)| own == key)
    }
}

/// Whether a change of an object may change what it counts as.
fn varies(kind: &Kind) -> bool {
    kind.group.is_empty() && matches!(&*kind.plural, "pods" | "services" | "persistentvolumeclaims")
}

/// The usage that changes, if any does.
fn charged(scope: &Scope, quota: &Value, new: Option<&Value>, old: Option<&Value>) -> Result<Option<Usage>> {
    let kind = &scope.kind;
    let hard = amounts(quota, &["status", "hard"]);
    let of = |object: Option<&Value>| match object.filter(|object| in_scope(quota, kind, object)) {
        Some(object) => usage(kind, object).into_iter().filter(|(name, _)| hard.contains_key(name)).collect(),
        None => Usage::new(),
    };
    let (after, before) = (of(new), of(old));
    let name = object::name(quota);
    let forbidden = |why: String| Error::forbidden(&kind.group, &kind.plural, &scope.name, why);
    if let (Some(new), None) = (new.filter(|new| kind.plural == "pods" && in_scope(quota, kind, new)), old) {
        let missing = unspecified(new, &hard);
        if !missing.is_empty() {
            return Err(forbidden(format!("failed quota: {name}: must specify {}", missing.join("; "))));
        }
    }
    let used = amounts(quota, &["status", "used"]);
    let mut changed = Usage::new();
    let (mut asked, mut taken, mut most) = (Usage::new(), Usage::new(), Usage::new());
    let names: std::collections::BTreeSet<&String> = after.keys().chain(before.keys()).collect();
    for name in names {
        let now = used.get(name).copied().unwrap_or_default();
        let (plus, minus) =
            (after.get(name).copied().unwrap_or_default(), before.get(name).copied().unwrap_or_default());
        if plus == minus {
            continue;
        }
        let delta = plus.minus(minus);
        if delta.is_zero() {
            changed.insert(name.clone(), now.minus(minus.minus(plus)));
            continue;
        }
        let next = now.plus(delta);
        let limit = hard.get(name).copied().unwrap_or_default();
        if next.exceeds(limit) {
            asked.insert(name.clone(), delta);
            taken.insert(name.clone(), now);
            most.insert(name.clone(), limit);
        }
        changed.insert(name.clone(), next);
    }
    if !asked.is_empty() && scope.subresource != "status" {
        let (asked, taken, most) = (printed(&asked), printed(&taken), printed(&most));
        return Err(forbidden(format!("exceeded quota: {name}, requested: {asked}, used: {taken}, limited: {most}")));
    }
    Ok(Some(changed).filter(|changed| !changed.is_empty()))
}

/// What a quota counts and the containers of a pod do not say.
fn unspecified(pod: &Value, hard: &Usage) -> Vec<String> {
    let containers = ["initContainers", "containers"].into_iter();
    let containers = containers.filter_map(|key| at(pod, &["spec", key])?.as_array()).flatten();
    let mut missing: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for container in containers {
        for name in hard.keys() {
            let (key, resource) = match name.split_once('.') {
                Some(("requests", resource)) => ("requests", resource),
                Some(("limits", resource)) => ("limits", resource),
                _ => ("requests", name.as_str()),
            };
            if !matches!(resource, "cpu" | "memory") || at(pod, &["spec", "resources", key, resource]).is_some() {
                continue;
            }
            if at(container, &["resources", key, resource]).is_none_or(Value::is_null) {
                missing.entry(name).or_default().push(text_at(container, &["name"]));
            }
        }
    }
    let told = missing.into_iter().map(|(name, mut of)| {
        of.sort_unstable();
        format!("{name} for: {}", of.join(","))
    });
    told.collect()
}

/// Counts what a namespace holds of what a quota limits, and writes it into the status; `again`: even if it is counted.
pub(crate) async fn recount(server: &Server, namespace: &str, name: &str, again: bool) -> Result<()> {
    let catalog = server.catalog();
    let quotas = catalog.find("", "v1", "resourcequotas").ok_or_else(Error::no_such_path)?;
    let user = std::sync::Arc::new(policy::User::master("system:apiserver"));
    for _ in 0..RETRIES_MAX {
        let mut scope = Scope::internal(server, &user, std::sync::Arc::clone(&quotas), namespace, name);
        "status".clone_into(&mut scope.subresource);
        let Some(base) = scope.current().await? else { return Ok(()) };
        let mut quota = object::decode_kv(&base)?;
        if is_counted(&quota) && !again {
            return Ok(());
        }
        let hard = at(&quota, &["spec", "hard"]).and_then(Value::as_object).cloned().unwrap_or_default();
        let mut used: Usage = hard.keys().map(|name| (name.clone(), Amount::default())).collect();
        for kind in catalog.namespaced().iter().filter(|kind| is_counted_kind(kind, &hard)) {
            rest::for_each(server, kind, namespace, |kv| {
                let object = object::decode_kv(&kv)?;
                if in_scope(&quota, kind, &object) {
                    for (name, amount) in usage(kind, &object) {
                        if let Some(entry) = used.get_mut(&name) {
                            *entry = entry.plus(amount);
                        }
                    }
                }
                Ok(())
            })
            .await?;
        }
        let used: Map<String, Value> = used.into_iter().map(|(name, used)| (name, used.to_string().into())).collect();
        set_at(&mut quota, &["status"], json!({"hard": hard, "used": used}));
        let counted = write::Admitted::internal(&scope, quota, Some(&base))?;
        if let write::Outcome::Stored(_) = counted.commit(&scope).await? {
            return Ok(());
        }
    }
    Err(Error::unavailable("the quota changes too often to count what it limits"))
}

fn is_counted_kind(kind: &Kind, hard: &Map<String, Value>) -> bool {
    let counted = match kind.group.is_empty() {
        true => format!("count/{}", kind.plural),
        false => format!("count/{}.{}", kind.plural, kind.group),
    };
    if hard.contains_key(&counted) {
        return true;
    }
    if !kind.group.is_empty() {
        return false;
    }
    hard.keys().map(String::as_str).any(|name| match &*kind.plural {
        "services" => name == "services" || name.starts_with("services."),
        "persistentvolumeclaims" => {
            matches!(name, "persistentvolumeclaims" | "requests.storage")
                || name.contains(".storageclass.storage.k8s.io/")
        }
        "pods" => {
            let compute = COMPUTE.contains(&name) || name.starts_with("hugepages-");
            name == "pods"
                || compute
                || name.starts_with("limits.")
                || (name.starts_with("requests.") && name != "requests.storage")
        }
        plural => name == plural && PLAIN.contains(&plural),
    })
}
