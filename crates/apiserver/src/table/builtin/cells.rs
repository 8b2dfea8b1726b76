//! What Kubernetes computes for the cells of its own kinds.

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::super::{age as human, since};

pub(super) fn text(text: impl Into<String>) -> Value {
    Value::String(text.into())
}

fn str_at<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn list_at<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn int_at(value: &Value, pointer: &str) -> i64 {
    value.pointer(pointer).and_then(Value::as_i64).unwrap_or_default()
}

fn none_if_empty(value: String) -> Value {
    text(if value.is_empty() { "<none>".to_owned() } else { value })
}

pub(super) fn path_text(object: &Value, pointer: &str) -> Value {
    match object.pointer(pointer) {
        Some(Value::String(value)) => text(value),
        None | Some(Value::Null) => text(""),
        Some(other) => text(other.to_string()),
    }
}

pub(super) fn or(object: &Value, pointer: &str, otherwise: &str) -> Value {
    match path_text(object, pointer) {
        Value::String(value) if value.is_empty() => text(otherwise),
        value => value,
    }
}

pub(super) fn or_none(object: &Value, pointer: &str) -> Value {
    or(object, pointer, "<none>")
}

pub(super) fn int(object: &Value, pointer: &str) -> Value {
    int_at(object, pointer).into()
}

pub(super) fn flag(object: &Value, pointer: &str) -> Value {
    object.pointer(pointer).and_then(Value::as_bool).unwrap_or_default().into()
}

pub(super) fn flag_text(object: &Value, pointer: &str) -> Value {
    text(if object.pointer(pointer) == Some(&Value::Bool(true)) { "True" } else { "False" })
}

/// How many entries the maps or lists have together.
pub(super) fn count(object: &Value, pointers: &[&str]) -> Value {
    let lengths = pointers.iter().map(|pointer| match object.pointer(pointer) {
        Some(Value::Object(fields)) => fields.len(),
        Some(Value::Array(list)) => list.len(),
        _ => 0,
    });
    lengths.sum::<usize>().into()
}

pub(super) fn age(object: &Value, pointer: &str, now: Timestamp) -> Value {
    text(since(str_at(object, pointer), now).unwrap_or_else(|| "<unknown>".to_owned()))
}

pub(super) fn optional_age(object: &Value, pointer: &str, now: Timestamp) -> Value {
    text(since(str_at(object, pointer), now).unwrap_or_else(|| "<none>".to_owned()))
}

/// The age of the first of these moments that is set.
pub(super) fn first_age(object: &Value, pointers: &[&str], now: Timestamp) -> Value {
    let found = pointers.iter().find_map(|pointer| since(str_at(object, pointer), now));
    text(found.unwrap_or_else(|| "<unknown>".to_owned()))
}

pub(super) fn trimmed(object: &Value, pointer: &str) -> Value {
    text(str_at(object, pointer).trim())
}

pub(super) fn ratio(object: &Value, part: &str, whole: &str) -> Value {
    text(format!("{}/{}", int_at(object, part), int_at(object, whole)))
}

fn pairs(fields: &Map<String, Value>) -> String {
    let pairs: Vec<_> = fields.iter().map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect();
    pairs.join(",")
}

pub(super) fn labels(value: Option<&Value>) -> Value {
    none_if_empty(value.and_then(Value::as_object).map(pairs).unwrap_or_default())
}

/// A LabelSelector, or the plain map that older kinds have, as text.
pub(super) fn selector(value: Option<&Value>) -> Value {
    let Some(Value::Object(fields)) = value else { return text("<none>") };
    if !fields.contains_key("matchLabels") && !fields.contains_key("matchExpressions") {
        return labels(value);
    }
    let mut parts: Vec<String> = Vec::new();
    if let Some(Value::Object(labels)) =
        fields.get("matchLabels").filter(|l| l.as_object().is_some_and(|l| !l.is_empty()))
    {
        parts.push(pairs(labels));
    }
    for rule in fields.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
        let key = str_at(rule, "/key");
        let values: Vec<_> = list_at(rule, "/values").iter().filter_map(Value::as_str).collect();
        parts.push(match str_at(rule, "/operator") {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        });
    }
    none_if_empty(parts.join(","))
}

/// A field of all containers of a pod template.
pub(super) fn containers(object: &Value, field: &str) -> Value {
    let spec = object.pointer("/spec/template/spec").or_else(|| object.pointer("/template/spec"));
    let list = spec.map_or(&[][..], |spec| list_at(spec, "/containers"));
    let names: Vec<_> = list.iter().filter_map(|container| container.get(field)?.as_str()).collect();
    text(names.join(","))
}

pub(super) fn phase(object: &Value) -> Value {
    if object.pointer("/metadata/deletionTimestamp").is_some() {
        return text("Terminating");
    }
    path_text(object, "/status/phase")
}

pub(super) fn access_modes(object: &Value, pointer: &str) -> Value {
    let short = |mode: &Value| match mode.as_str() {
        Some("ReadWriteOnce") => Some("RWO"),
        Some("ReadOnlyMany") => Some("ROX"),
        Some("ReadWriteMany") => Some("RWX"),
        Some("ReadWriteOncePod") => Some("RWOP"),
        _ => None,
    };
    let modes: Vec<_> = list_at(object, pointer).iter().filter_map(short).collect();
    text(modes.join(","))
}

pub(super) fn claim(object: &Value) -> Value {
    match object.pointer("/spec/claimRef") {
        Some(claim @ Value::Object(_)) => text(format!("{}/{}", str_at(claim, "/namespace"), str_at(claim, "/name"))),
        _ => text(""),
    }
}

pub(super) fn role(object: &Value) -> Value {
    text(format!("{}/{}", str_at(object, "/roleRef/kind"), str_at(object, "/roleRef/name")))
}

pub(super) fn subjects(object: &Value, kind: &str) -> Value {
    let names: Vec<_> = list_at(object, "/subjects")
        .iter()
        .filter(|subject| str_at(subject, "/kind") == kind)
        .map(|subject| match kind {
            "ServiceAccount" => format!("{}/{}", str_at(subject, "/namespace"), str_at(subject, "/name")),
            _ => str_at(subject, "/name").to_owned(),
        })
        .collect();
    text(names.join(", "))
}

pub(super) fn param_kind(object: &Value) -> Value {
    match object.pointer("/spec/paramKind") {
        Some(kind @ Value::Object(_)) => text(format!("{}/{}", str_at(kind, "/apiVersion"), str_at(kind, "/kind"))),
        _ => text("<unset>"),
    }
}

pub(super) fn param_ref(object: &Value) -> Value {
    match object.pointer("/spec/paramRef") {
        Some(param @ Value::Object(_)) => {
            let (namespace, name) = (str_at(param, "/namespace"), str_at(param, "/name"));
            text(if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") })
        }
        _ => text("<unset>"),
    }
}

pub(super) fn involved(object: &Value, pointer: &str) -> Value {
    let kind = str_at(object, &format!("{pointer}/kind")).to_ascii_lowercase();
    let name = str_at(object, &format!("{pointer}/name"));
    text(if name.is_empty() { kind } else { format!("{kind}/{name}") })
}

pub(super) fn event_source(object: &Value) -> Value {
    let (component, host) = (str_at(object, "/source/component"), str_at(object, "/source/host"));
    let component = if component.is_empty() { str_at(object, "/reportingComponent") } else { component };
    text(if host.is_empty() { component.to_owned() } else { format!("{component}, {host}") })
}

pub(super) fn event_count(object: &Value) -> Value {
    let counts = ["/series/count", "/count", "/deprecatedCount"].map(|pointer| int_at(object, pointer));
    counts.into_iter().find(|count| *count > 0).unwrap_or(1).into()
}

pub(super) fn node_status(object: &Value) -> Value {
    let ready = list_at(object, "/status/conditions").iter().find(|condition| str_at(condition, "/type") == "Ready");
    let mut status = match ready.map(|condition| str_at(condition, "/status")) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if object.pointer("/spec/unschedulable") == Some(&Value::Bool(true)) {
        status.push_str(",SchedulingDisabled");
    }
    text(status)
}

pub(super) fn node_roles(object: &Value) -> Value {
    let labels = object.pointer("/metadata/labels").and_then(Value::as_object);
    let mut roles: Vec<&str> = labels
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => Some(role),
            None => value.as_str().filter(|_| key == "kubernetes.io/role"),
        })
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    roles.dedup();
    none_if_empty(roles.join(","))
}

pub(super) fn node_address(object: &Value, type_: &str) -> Value {
    let found = list_at(object, "/status/addresses").iter().find(|address| str_at(address, "/type") == type_);
    none_if_empty(found.map(|address| str_at(address, "/address").to_owned()).unwrap_or_default())
}

pub(super) fn pod_ready(object: &Value) -> Value {
    let statuses = list_at(object, "/status/containerStatuses");
    let ready = statuses.iter().filter(|status| status.get("ready") == Some(&Value::Bool(true))).count();
    text(format!("{ready}/{}", list_at(object, "/spec/containers").len()))
}

/// Why one container is not simply running.
fn container_reason(status: &Value) -> Option<String> {
    let waiting = str_at(status, "/state/waiting/reason");
    if !waiting.is_empty() {
        return Some(waiting.to_owned());
    }
    let terminated = status.pointer("/state/terminated")?;
    let reason = str_at(terminated, "/reason");
    if !reason.is_empty() {
        return Some(reason.to_owned());
    }
    Some(match int_at(terminated, "/signal") {
        0 => format!("ExitCode:{}", int_at(terminated, "/exitCode")),
        signal => format!("Signal:{signal}"),
    })
}

pub(super) fn pod_reason(object: &Value) -> String {
    let own = str_at(object, "/status/reason");
    let mut reason = if own.is_empty() { str_at(object, "/status/phase") } else { own }.to_owned();
    let gated = list_at(object, "/status/conditions").iter().any(|condition| {
        str_at(condition, "/type") == "PodScheduled" && str_at(condition, "/reason") == "SchedulingGated"
    });
    if gated {
        "SchedulingGated".clone_into(&mut reason);
    }
    let init = list_at(object, "/status/initContainerStatuses");
    let mut initializing = false;
    for (index, status) in init.iter().enumerate() {
        let done = int_at(status, "/state/terminated/exitCode") == 0 && status.pointer("/state/terminated").is_some();
        if done || status.get("started") == Some(&Value::Bool(true)) {
            continue;
        }
        initializing = true;
        reason = match container_reason(status).filter(|reason| reason != "PodInitializing") {
            Some(why) => format!("Init:{why}"),
            None => format!("Init:{index}/{}", list_at(object, "/spec/initContainers").len()),
        };
        break;
    }
    if !initializing {
        let statuses = list_at(object, "/status/containerStatuses");
        let mut running = false;
        for status in statuses.iter().rev() {
            match container_reason(status) {
                Some(why) => reason = why,
                None => running |= status.get("ready") == Some(&Value::Bool(true)),
            }
        }
        if reason == "Completed" && running {
            let ready = list_at(object, "/status/conditions")
                .iter()
                .any(|condition| str_at(condition, "/type") == "Ready" && str_at(condition, "/status") == "True");
            (if ready { "Running" } else { "NotReady" }).clone_into(&mut reason);
        }
    }
    if object.pointer("/metadata/deletionTimestamp").is_some() {
        reason = match own {
            "NodeLost" => "Unknown",
            _ if matches!(reason.as_str(), "Succeeded" | "Failed" | "Completed") => return reason,
            _ => "Terminating",
        }
        .to_owned();
    }
    reason
}

pub(super) fn pod_restarts(object: &Value, now: Timestamp) -> Value {
    let statuses = list_at(object, "/status/containerStatuses");
    let restarts: i64 = statuses.iter().map(|status| int_at(status, "/restartCount")).sum();
    let finished = statuses.iter().map(|status| str_at(status, "/lastState/terminated/finishedAt")).max();
    match finished.and_then(|at| since(at, now)) {
        Some(ago) if restarts > 0 => text(format!("{restarts} ({ago} ago)")),
        _ => text(restarts.to_string()),
    }
}

pub(super) fn pod_gates(object: &Value) -> Value {
    let gates = list_at(object, "/spec/readinessGates");
    if gates.is_empty() {
        return text("<none>");
    }
    let conditions = list_at(object, "/status/conditions");
    let open = gates.iter().filter(|gate| {
        conditions.iter().any(|condition| {
            condition.get("type") == gate.get("conditionType") && str_at(condition, "/status") == "True"
        })
    });
    text(format!("{}/{}", open.count(), gates.len()))
}

/// The addresses of a load balancer.
pub(super) fn balancer(object: &Value) -> String {
    let address = |entry: &Value| {
        let ip = str_at(entry, "/ip");
        if ip.is_empty() { str_at(entry, "/hostname").to_owned() } else { ip.to_owned() }
    };
    let found: Vec<_> = list_at(object, "/status/loadBalancer/ingress").iter().map(address).collect();
    found.join(",")
}

pub(super) fn service_external(object: &Value) -> Value {
    let own: Vec<_> = list_at(object, "/spec/externalIPs").iter().filter_map(Value::as_str).collect();
    match str_at(object, "/spec/type") {
        "ExternalName" => path_text(object, "/spec/externalName"),
        "LoadBalancer" => {
            let mut all = balancer(object);
            if !own.is_empty() {
                all = if all.is_empty() { own.join(",") } else { format!("{all},{}", own.join(",")) };
            }
            text(if all.is_empty() { "<pending>".to_owned() } else { all })
        }
        _ => none_if_empty(own.join(",")),
    }
}

pub(super) fn service_ports(object: &Value) -> Value {
    let port = |port: &Value| {
        let (number, node, protocol) = (int_at(port, "/port"), int_at(port, "/nodePort"), str_at(port, "/protocol"));
        if node > 0 { format!("{number}:{node}/{protocol}") } else { format!("{number}/{protocol}") }
    };
    let ports: Vec<_> = list_at(object, "/spec/ports").iter().map(port).collect();
    none_if_empty(ports.join(","))
}

/// The first three of a list, and how many more there are.
fn first_three(all: &[String]) -> Value {
    let shown = all.iter().take(3).cloned().collect::<Vec<_>>().join(",");
    if all.len() > 3 { text(format!("{shown} + {} more...", all.len() - 3)) } else { none_if_empty(shown) }
}

pub(super) fn endpoints(object: &Value) -> Value {
    let mut all = Vec::new();
    for subset in list_at(object, "/subsets") {
        let ports = list_at(subset, "/ports");
        for address in list_at(subset, "/addresses") {
            let ip = str_at(address, "/ip");
            if ports.is_empty() {
                all.push(ip.to_owned());
            }
            all.extend(ports.iter().map(|port| format!("{ip}:{}", int_at(port, "/port"))));
        }
    }
    first_three(&all)
}

pub(super) fn slice_ports(object: &Value) -> Value {
    let ports: Vec<_> = list_at(object, "/ports")
        .iter()
        .map(|port| port.get("port").and_then(Value::as_i64).map_or_else(|| "*".to_owned(), |port| port.to_string()))
        .collect();
    if ports.is_empty() { text("<unset>") } else { first_three(&ports) }
}

pub(super) fn slice_endpoints(object: &Value) -> Value {
    let addresses = list_at(object, "/endpoints").iter().flat_map(|endpoint| list_at(endpoint, "/addresses"));
    let all: Vec<_> = addresses.filter_map(|address| Some(address.as_str()?.to_owned())).collect();
    if all.is_empty() { text("<unset>") } else { first_three(&all) }
}

pub(super) fn quota(object: &Value, limits: bool) -> Value {
    let hard = object.pointer("/status/hard").and_then(Value::as_object);
    let used = |name: &str| {
        let used = object.pointer("/status/used").and_then(|used| used.get(name)?.as_str());
        used.unwrap_or("0").to_owned()
    };
    let parts: Vec<_> = hard
        .into_iter()
        .flatten()
        .filter(|(name, _)| name.starts_with("limits.") == limits)
        .map(|(name, hard)| format!("{name}: {}/{}", used(name), hard.as_str().unwrap_or_default()))
        .collect();
    text(parts.join(", "))
}

pub(super) fn controller(object: &Value) -> Value {
    let owners = list_at(object, "/metadata/ownerReferences");
    let Some(owner) = owners.iter().find(|owner| owner.get("controller") == Some(&Value::Bool(true))) else {
        return text("<none>");
    };
    let group = str_at(owner, "/apiVersion").split_once('/').map_or("", |(group, _)| group);
    let kind = str_at(owner, "/kind").to_ascii_lowercase();
    let kind = if group.is_empty() { kind } else { format!("{kind}.{group}") };
    text(format!("{kind}/{}", str_at(owner, "/name")))
}

fn condition<'a>(object: &'a Value, type_: &str) -> Option<&'a Value> {
    let mut all = list_at(object, "/status/conditions").iter();
    all.find(|condition| str_at(condition, "/type") == type_ && str_at(condition, "/status") == "True")
}

pub(super) fn job_status(object: &Value) -> Value {
    let states = [
        ("Complete", "Complete"),
        ("Failed", "Failed"),
        ("SuccessCriteriaMet", "SuccessCriteriaMet"),
        ("FailureTarget", "FailureTarget"),
        ("Suspended", "Suspended"),
    ];
    if let Some((_, name)) = states.iter().take(2).find(|(type_, _)| condition(object, type_).is_some()) {
        return text(*name);
    }
    if object.pointer("/metadata/deletionTimestamp").is_some() {
        return text("Terminating");
    }
    let other = states.iter().skip(2).rev().find(|(type_, _)| condition(object, type_).is_some());
    text(other.map_or("Running", |(_, name)| name))
}

pub(super) fn job_completions(object: &Value) -> Value {
    let done = int_at(object, "/status/succeeded");
    match object.pointer("/spec/completions").and_then(Value::as_i64) {
        Some(wanted) => text(format!("{done}/{wanted}")),
        None => match int_at(object, "/spec/parallelism") {
            parallel if parallel > 1 => text(format!("{done}/1 of {parallel}")),
            _ => text(format!("{done}/1")),
        },
    }
}

pub(super) fn job_duration(object: &Value, now: Timestamp) -> Value {
    let moment = |pointer| str_at(object, pointer).parse::<Timestamp>().ok();
    let Some(start) = moment("/status/startTime") else { return text("") };
    let end = moment("/status/completionTime").unwrap_or(now);
    text(human(end.as_second() - start.as_second()))
}

pub(super) fn scale_target(object: &Value) -> Value {
    let target = "/spec/scaleTargetRef";
    text(format!("{}/{}", str_at(object, &format!("{target}/kind")), str_at(object, &format!("{target}/name"))))
}

pub(super) fn requested_duration(object: &Value) -> Value {
    match object.pointer("/spec/expirationSeconds").and_then(Value::as_i64) {
        Some(seconds) => text(human(seconds)),
        None => text("<none>"),
    }
}

pub(super) fn signing_condition(object: &Value) -> Value {
    let has = |type_: &str| list_at(object, "/status/conditions").iter().any(|entry| str_at(entry, "/type") == type_);
    let mut parts = Vec::new();
    parts.push(match (has("Approved"), has("Denied")) {
        (_, true) => "Denied",
        (true, false) => "Approved",
        _ => "Pending",
    });
    if has("Failed") {
        parts.push("Failed");
    }
    if !str_at(object, "/status/certificate").is_empty() {
        parts.push("Issued");
    }
    text(parts.join(","))
}

pub(super) fn storage_class(object: &Value) -> Value {
    let annotations = object.pointer("/metadata/annotations");
    let is_default = annotations
        .and_then(|annotations| annotations.get("storageclass.kubernetes.io/is-default-class"))
        .is_some_and(|value| value == "true");
    let name = str_at(object, "/metadata/name");
    text(if is_default { format!("{name} (default)") } else { name.to_owned() })
}

pub(super) fn ingress_hosts(object: &Value) -> Value {
    let hosts: Vec<_> = list_at(object, "/spec/rules")
        .iter()
        .map(|rule| str_at(rule, "/host").to_owned())
        .filter(|host| !host.is_empty())
        .collect();
    if hosts.is_empty() { text("*") } else { first_three(&hosts) }
}

pub(super) fn ingress_ports(object: &Value) -> Value {
    text(if list_at(object, "/spec/tls").is_empty() { "80" } else { "80, 443" })
}

pub(super) fn ingress_parameters(object: &Value) -> Value {
    let Some(parameters) = object.pointer("/spec/parameters").filter(|value| value.is_object()) else {
        return text("<none>");
    };
    let (kind, group, name) =
        (str_at(parameters, "/kind"), str_at(parameters, "/apiGroup"), str_at(parameters, "/name"));
    text(if group.is_empty() { format!("{kind}/{name}") } else { format!("{kind}.{group}/{name}") })
}

pub(super) fn api_service(object: &Value) -> Value {
    match object.pointer("/spec/service").filter(|value| value.is_object()) {
        Some(service) => text(format!("{}/{}", str_at(service, "/namespace"), str_at(service, "/name"))),
        None => text("Local"),
    }
}

pub(super) fn api_service_available(object: &Value) -> Value {
    let found = list_at(object, "/status/conditions").iter().find(|entry| str_at(entry, "/type") == "Available");
    match found.map(|entry| (str_at(entry, "/status"), str_at(entry, "/reason"))) {
        Some(("True", _)) => text("True"),
        Some((status, reason)) => text(format!("{status} ({reason})")),
        None => text("Unknown"),
    }
}
