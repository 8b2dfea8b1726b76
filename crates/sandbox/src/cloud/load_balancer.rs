//! Octavia v2: load balancers and what hangs below them. One change at a time: whatever is changed makes the whole
//! load balancer `PENDING_UPDATE`, and until it is `ACTIVE` again other changes are refused with 409.

use std::{net::IpAddr, sync::Arc};

use serde_json::{Map, Value, json};

use super::{
    fault::{Fault, Result},
    generic::{self, invalid},
    http::{Caller, Reply, Request, Service, listed, select, shown},
    injection::Built,
    kind::Kind,
    network::ports::{self, Wanted},
    state::State,
    table::{Row, number, text},
};

pub fn handle(state: &mut State, request: &Request) -> Result<Reply> {
    let caller = request.caller()?;
    let path: Vec<&str> = request.path.iter().map(String::as_str).collect();
    let ["v2" | "v2.0", "lbaas" | "octavia", rest @ ..] = path.as_slice() else { return Err(Fault::no_route()) };
    match (request.method.as_str(), rest) {
        ("GET", ["providers"]) => {
            let provider =
                |name: &String| json!({"name": name, "description": format!("The sandbox's {name} provider")});
            Ok(Reply::ok(json!({ "providers": state.options.lb_providers.iter().map(provider).collect::<Vec<_>>() })))
        }
        ("GET", ["flavors"]) => {
            let flavor = |name: &String| json!({"id": flavor_id(name), "name": name, "description": "", "enabled": true, "flavor_profile_id": null});
            Ok(Reply::ok(json!({ "flavors": state.options.lb_flavors.iter().map(flavor).collect::<Vec<_>>() })))
        }
        ("GET", ["flavorprofiles" | "availabilityzones" | "availabilityzoneprofiles" | "amphorae" | "l7policies"]) => {
            let many = match rest.first().copied().unwrap_or_default() {
                "availabilityzones" => "availability_zones",
                "availabilityzoneprofiles" => "availability_zone_profiles",
                other => other,
            };
            Ok(Reply::ok(json!({ many: [] })))
        }
        (_, ["quotas", rest @ ..]) => quotas(state, request, &caller, rest),
        (_, ["pools", pool, "members", rest @ ..]) => members(state, request, &caller, pool, rest),
        (_, [collection, rest @ ..]) => {
            let kind = Kind::of(Service::LoadBalancer, collection).filter(|k| *k != Kind::Member);
            object(state, request, &caller, kind.ok_or_else(Fault::no_route)?, rest)
        }
        _ => Err(Fault::no_route()),
    }
}

/// The same in every sandbox.
fn flavor_id(name: &str) -> String {
    uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_DNS, format!("{name}.lb-flavor.sandbox").as_bytes()).to_string()
}

fn object(state: &mut State, request: &Request, caller: &Arc<Caller>, kind: Kind, rest: &[&str]) -> Result<Reply> {
    let meta = kind.meta();
    match (request.method.as_str(), rest) {
        ("GET", []) => {
            let rows = select(state, request, kind, None)?;
            listed(state, request, meta.many, rows.iter().map(|r| view(state, kind, r)).collect())
        }
        ("GET", [id]) => {
            let row = generic::seen(state, caller, kind, id)?;
            Ok(Reply::one(200, meta.one, Value::Object(view(state, kind, &row))))
        }
        ("POST", []) => {
            let body = request.object(meta.one)?.clone();
            let row = create(state, caller, kind, &body, None)?;
            Ok(Reply::one(201, meta.one, Value::Object(row)))
        }
        ("PUT", [id]) => {
            let row = update(state, caller, kind, id, &request.object(meta.one)?.clone())?;
            Ok(Reply::one(200, meta.one, Value::Object(row)))
        }
        ("DELETE", [id]) => {
            let row = generic::changeable(state, caller, kind, id)?;
            delete(state, kind, &row, request.is_set("cascade"))?;
            Ok(Reply::empty(204))
        }
        ("GET", [id, "status" | "statuses"]) if kind == Kind::LoadBalancer => {
            let row = generic::seen(state, caller, kind, id)?;
            let tree = json!({"id": id, "name": text(&row, "name"), "provisioning_status": text(&row, "provisioning_status"), "operating_status": text(&row, "operating_status"), "listeners": []});
            Ok(Reply::one(200, "statuses", json!({ "loadbalancer": tree })))
        }
        ("GET", [id, "stats"]) => {
            generic::seen(state, caller, kind, id)?;
            let stats = json!({"active_connections": 0, "bytes_in": 0, "bytes_out": 0, "request_errors": 0, "total_connections": 0});
            Ok(Reply::one(200, "stats", stats))
        }
        ("PUT", [id, "failover"]) if kind == Kind::LoadBalancer => {
            generic::changeable(state, caller, kind, id)?;
            change(state, id, "PENDING_UPDATE", true)?;
            Ok(Reply::empty(202))
        }
        (_, [] | [_]) => Err(Fault::method()),
        _ => Err(Fault::no_route()),
    }
}

fn members(state: &mut State, request: &Request, caller: &Arc<Caller>, pool: &str, rest: &[&str]) -> Result<Reply> {
    generic::seen(state, caller, Kind::Pool, pool)?;
    let kind = Kind::Member;
    let one = |state: &State, id: &str| {
        let row = generic::seen(state, caller, kind, id)?;
        if text(&row, "~pool_id") == pool { Ok(row) } else { Err(generic::missing(kind, id)) }
    };
    match (request.method.as_str(), rest) {
        ("GET", []) => {
            let rows = select(state, request, kind, Some(("~pool_id", pool)))?;
            listed(state, request, "members", rows.iter().map(|r| view(state, kind, r)).collect())
        }
        ("GET", [id]) => Ok(Reply::one(200, "member", Value::Object(view(state, kind, &*one(state, id)?)))),
        ("POST", []) => {
            let body = request.object("member")?.clone();
            Ok(Reply::one(201, "member", Value::Object(create(state, caller, kind, &body, Some(pool))?)))
        }
        ("PUT", [id]) => {
            one(state, id)?;
            Ok(Reply::one(
                200,
                "member",
                Value::Object(update(state, caller, kind, id, &request.object("member")?.clone())?),
            ))
        }
        ("DELETE", [id]) => {
            let row = one(state, id)?;
            delete(state, kind, &row, false)?;
            Ok(Reply::empty(204))
        }
        _ => Err(Fault::method()),
    }
}

/// The load balancer that a row belongs to, its own id for a load balancer.
fn root(state: &State, kind: Kind, row: &Row) -> String {
    let of_pool =
        |id: &str| state.get(Kind::Pool, id).map(|p| text(&p, "loadbalancer_id").to_owned()).unwrap_or_default();
    match kind {
        Kind::LoadBalancer => text(row, "id").to_owned(),
        Kind::Member => of_pool(text(row, "~pool_id")),
        Kind::HealthMonitor => of_pool(text(row, "pool_id")),
        _ => text(row, "loadbalancer_id").to_owned(),
    }
}

/// Makes a load balancer busy with a change, unless it already is.
fn begin(state: &mut State, id: &str, status: &str) -> Result<()> {
    change(state, id, status, false)
}

fn change(state: &mut State, id: &str, status: &str, failover: bool) -> Result<()> {
    let row = state.get(Kind::LoadBalancer, id).ok_or_else(|| generic::missing(Kind::LoadBalancer, id))?;
    let now = text(&row, "provisioning_status");
    // What is in ERROR can be deleted or failed over, and nothing else.
    if now.starts_with("PENDING") || (now == "ERROR" && status == "PENDING_UPDATE" && !failover) {
        let message = format!("Load Balancer {id} is immutable and cannot be updated.");
        return Err(Fault::conflict("ImmutableObject", message));
    }
    state.set(Kind::LoadBalancer, id, json!({ "provisioning_status": status }));
    let slow = state.injection.slow(Built::LoadBalancer, text(&row, "name"));
    state.schedule(Kind::LoadBalancer, id, state.options.lb_latency / 4 + slow);
    Ok(())
}

fn create(
    state: &mut State,
    caller: &Caller,
    kind: Kind,
    body: &Map<String, Value>,
    pool: Option<&str>,
) -> Result<Row> {
    if kind == Kind::LoadBalancer && (body.contains_key("listeners") || body.contains_key("pools")) {
        return Err(Fault::bad("Creating a load balancer together with its listeners is not supported here"));
    }
    let mut row = generic::build(state, caller, kind, body)?;
    row.insert("provisioning_status".into(), json!("PENDING_CREATE"));
    row.insert("operating_status".into(), json!("OFFLINE"));
    match kind {
        Kind::LoadBalancer => vip(state, caller, &mut row)?,
        Kind::Listener => listener(state, caller, &row)?,
        Kind::Pool => new_pool(state, caller, &mut row)?,
        Kind::Member => {
            let pool = pool.unwrap_or_default();
            row.insert("~pool_id".into(), json!(pool));
            member(state, pool, &row)?;
        }
        _ => monitor(state, caller, &row)?,
    }
    if kind == Kind::LoadBalancer {
        let id = text(&row, "id").to_owned();
        let slow = state.injection.slow(Built::LoadBalancer, text(&row, "name"));
        state.schedule(kind, &id, state.options.lb_latency + slow);
    } else {
        let root = root(state, kind, &row);
        begin(state, &root, "PENDING_UPDATE")?;
    }
    let shown = view(state, kind, &row);
    let (id, listener) = (text(&row, "id").to_owned(), text(&row, "listener_id").to_owned());
    row.remove("listener_id");
    state.put(kind, row);
    if kind == Kind::Pool && !listener.is_empty() {
        state.set(Kind::Listener, &listener, json!({"default_pool_id": id, "provisioning_status": "PENDING_UPDATE"}));
    }
    Ok(shown)
}

fn vip(state: &mut State, caller: &Caller, row: &mut Row) -> Result<()> {
    let given = |key: &str| row.get(key).and_then(Value::as_str).map(str::to_owned);
    let provider = given("provider").unwrap_or_else(|| state.options.lb_providers.first().cloned().unwrap_or_default());
    if !state.options.lb_providers.contains(&provider) {
        return Err(Fault::bad(format!("Provider '{provider}' is not enabled.")));
    }
    if let Some(flavor) = given("flavor_id")
        && !state.options.lb_flavors.iter().any(|name| flavor_id(name) == flavor)
    {
        return Err(Fault::bad(format!("Validation failure: Invalid flavor_id {flavor}.")));
    }
    if let Some(zone) = given("availability_zone") {
        return Err(Fault::bad(format!("Validation failure: Invalid availability_zone {zone}.")));
    }
    let (id, project) = (text(row, "id").to_owned(), text(row, "project_id").to_owned());
    let not_found = |what: &str, id: &str| Fault::bad(format!("{what} {id} not found."));
    let port = if let Some(port) = given("vip_port_id") {
        let port = generic::changeable(state, caller, Kind::Port, &port).map_err(|_| not_found("Port", &port))?;
        if !text(&port, "device_id").is_empty() {
            return Err(Fault::conflict(
                "PortInUse",
                format!("Port {} is already used by another device.", text(&port, "id")),
            ));
        }
        let fields = json!({"device_id": format!("lb-{id}"), "device_owner": "Octavia", "status": "ACTIVE"});
        state.set(Kind::Port, text(&port, "id"), fields);
        row.insert("~own_port".into(), json!(false));
        port
    } else {
        let subnet = given("vip_subnet_id");
        let network = match (&subnet, given("vip_network_id")) {
            (Some(s), _) => {
                let subnet = generic::seen(state, caller, Kind::Subnet, s).map_err(|_| not_found("Subnet", s))?;
                text(&subnet, "network_id").to_owned()
            }
            (None, Some(n)) => {
                generic::seen(state, caller, Kind::Network, &n).map_err(|_| not_found("Network", &n))?;
                n
            }
            (None, None) => {
                return Err(Fault::bad(
                    "Validation failure: VIP must contain one of: vip_port_id, vip_network_id, vip_subnet_id.",
                ));
            }
        };
        let fixed_ips = match (subnet, given("vip_address")) {
            (Some(s), Some(ip)) => json!([{"subnet_id": s, "ip_address": ip}]),
            (Some(s), None) => json!([{ "subnet_id": s }]),
            (None, Some(ip)) => json!([{ "ip_address": ip }]),
            (None, None) => json!("~auto"),
        };
        let name = format!("octavia-lb-{id}");
        let device = format!("lb-{id}");
        ports::make(
            state,
            &Wanted {
                project: &project,
                network: &network,
                name: &name,
                device_id: &device,
                device_owner: "Octavia",
                fixed_ips,
            },
        )?
    };
    let Some((address, subnet)) = ports::first_address(&port) else {
        return Err(Fault::bad("Validation failure: the VIP port has no address."));
    };
    row.insert("provider".into(), json!(provider));
    row.insert("vip_address".into(), json!(address));
    row.insert("vip_subnet_id".into(), json!(subnet));
    row.insert("vip_port_id".into(), json!(text(&port, "id")));
    row.insert("vip_network_id".into(), json!(text(&port, "network_id")));
    Ok(())
}

const PROTOCOLS: &[&str] =
    &["TCP", "UDP", "HTTP", "HTTPS", "TERMINATED_HTTPS", "SCTP", "PROXY", "PROXYV2", "PROMETHEUS"];
const ALGORITHMS: &[&str] = &["ROUND_ROBIN", "LEAST_CONNECTIONS", "SOURCE_IP", "SOURCE_IP_PORT"];

fn one_of(row: &Row, field: &str, known: &[&str]) -> Result<()> {
    if known.contains(&text(row, field)) {
        return Ok(());
    }
    Err(invalid(field, &format!("'{}' is none of {}", text(row, field), known.join(", "))))
}

fn port_number(row: &Row) -> Result<()> {
    let port = number(row, "protocol_port");
    if (1..=65535).contains(&port) { Ok(()) } else { Err(invalid("protocol_port", &format!("'{port}' is not a port"))) }
}

fn listener(state: &State, caller: &Caller, row: &Row) -> Result<()> {
    one_of(row, "protocol", PROTOCOLS)?;
    port_number(row)?;
    let balancer = generic::changeable(state, caller, Kind::LoadBalancer, text(row, "loadbalancer_id"))?;
    check_cidrs(row)?;
    if !text(row, "default_pool_id").is_empty() {
        generic::seen(state, caller, Kind::Pool, text(row, "default_pool_id"))?;
    }
    let port = number(row, "protocol_port");
    let udp = |r: &Row| matches!(text(r, "protocol"), "UDP" | "SCTP");
    let mut others = state.table(Kind::Listener).find("loadbalancer_id", text(&balancer, "id"));
    if others.any(|l| number(l, "protocol_port") == port && udp(l) == udp(row)) {
        let message = format!(
            "Another Listener on this Load Balancer is already using protocol {} and protocol_port {port}",
            text(row, "protocol")
        );
        return Err(Fault::conflict("DuplicateListenerEntry", message));
    }
    Ok(())
}

fn check_cidrs(row: &Row) -> Result<()> {
    for cidr in super::table::list(row, "allowed_cidrs") {
        let text = cidr.as_str().unwrap_or_default();
        if text.parse::<ipnet::IpNet>().is_err() {
            return Err(invalid("allowed_cidrs", &format!("'{text}' is not a CIDR")));
        }
    }
    Ok(())
}

fn new_pool(state: &State, caller: &Caller, row: &mut Row) -> Result<()> {
    one_of(row, "protocol", PROTOCOLS)?;
    one_of(row, "lb_algorithm", ALGORITHMS)?;
    let (listener, balancer) = (text(row, "listener_id").to_owned(), text(row, "loadbalancer_id").to_owned());
    if !listener.is_empty() {
        let found = generic::changeable(state, caller, Kind::Listener, &listener)?;
        if !text(&found, "default_pool_id").is_empty() {
            let message = format!("Listener {listener} already has a default pool");
            return Err(Fault::conflict("DuplicatePoolEntry", message));
        }
        row.insert("loadbalancer_id".into(), json!(text(&found, "loadbalancer_id")));
    } else if balancer.is_empty() {
        return Err(Fault::bad("Validation failure: Must provide at least one of: loadbalancer_id, listener_id"));
    } else {
        generic::changeable(state, caller, Kind::LoadBalancer, &balancer)?;
    }
    Ok(())
}

fn member(state: &State, pool: &str, row: &Row) -> Result<()> {
    port_number(row)?;
    let address: Option<IpAddr> = text(row, "address").parse().ok();
    address.ok_or_else(|| invalid("address", &format!("'{}' is not an IP address", text(row, "address"))))?;
    if let Some(subnet) = row.get("subnet_id").and_then(Value::as_str) {
        state.get(Kind::Subnet, subnet).ok_or_else(|| Fault::bad(format!("Subnet {subnet} not found.")))?;
    }
    let mut others = state.table(Kind::Member).find("~pool_id", pool);
    if others.any(|m| {
        text(m, "address") == text(row, "address") && number(m, "protocol_port") == number(row, "protocol_port")
    }) {
        let message = format!(
            "Another member on this pool is already using ip {} on protocol_port {}",
            text(row, "address"),
            number(row, "protocol_port")
        );
        return Err(Fault::conflict("DuplicateMember", message));
    }
    Ok(())
}

fn monitor(state: &State, caller: &Caller, row: &Row) -> Result<()> {
    one_of(row, "type", &["TCP", "HTTP", "HTTPS", "PING", "TLS-HELLO", "UDP-CONNECT", "SCTP"])?;
    let pool = generic::changeable(state, caller, Kind::Pool, text(row, "pool_id"))?;
    if number(row, "timeout") > number(row, "delay") {
        return Err(Fault::bad("Validation failure: 'timeout' must not be larger than 'delay'"));
    }
    if state.table(Kind::HealthMonitor).count("pool_id", text(&pool, "id")) > 0 {
        let message = "This pool already has a health monitor";
        return Err(Fault::conflict("DuplicateHealthMonitor", message));
    }
    Ok(())
}

fn update(state: &mut State, caller: &Caller, kind: Kind, id: &str, body: &Map<String, Value>) -> Result<Row> {
    let old = generic::changeable(state, caller, kind, id)?;
    let root = root(state, kind, &old);
    begin(state, &root, "PENDING_UPDATE")?;
    let old = generic::changeable(state, caller, kind, id)?;
    let mut row = generic::change(state, kind, &old, body)?;
    if kind == Kind::Listener {
        check_cidrs(&row)?;
        if !text(&row, "default_pool_id").is_empty() {
            generic::seen(state, caller, Kind::Pool, text(&row, "default_pool_id"))?;
        }
    }
    row.insert("provisioning_status".into(), json!("PENDING_UPDATE"));
    let shown = view(state, kind, &row);
    state.put(kind, row);
    Ok(shown)
}

fn delete(state: &mut State, kind: Kind, row: &Row, cascade: bool) -> Result<()> {
    let id = text(row, "id");
    if kind == Kind::LoadBalancer {
        let children = state.table(Kind::Listener).count("loadbalancer_id", id)
            + state.table(Kind::Pool).count("loadbalancer_id", id);
        if children > 0 && !cascade {
            return Err(Fault::bad(format!("Validation failure: Cannot delete Load Balancer {id} - it has children")));
        }
        return begin(state, id, "PENDING_DELETE");
    }
    if kind == Kind::Pool && cascade {
        return Err(Fault::bad("cascade is for load balancers"));
    }
    let root = root(state, kind, row);
    begin(state, &root, "PENDING_UPDATE")?;
    state.set(kind, id, json!({"provisioning_status": "PENDING_DELETE"}));
    Ok(())
}

/// Ids of the rows of a kind below others.
fn below(state: &State, kind: Kind, field: &str, parents: &[String]) -> Vec<String> {
    parents.iter().flat_map(|p| state.table(kind).find(field, p)).map(|r| text(r, "id").to_owned()).collect()
}

/// Finishes the change that a load balancer is busy with.
pub fn advance(state: &mut State, id: &str) {
    let Some(row) = state.get(Kind::LoadBalancer, id) else { return };
    let root = [id.to_owned()];
    let pools = below(state, Kind::Pool, "loadbalancer_id", &root);
    let children = [
        (Kind::Listener, below(state, Kind::Listener, "loadbalancer_id", &root)),
        (Kind::Member, below(state, Kind::Member, "~pool_id", &pools)),
        (Kind::HealthMonitor, below(state, Kind::HealthMonitor, "pool_id", &pools)),
        (Kind::Pool, pools),
    ];
    if text(&row, "provisioning_status") == "PENDING_DELETE" {
        for (kind, ids) in children {
            ids.iter().for_each(|child| state.remove(kind, child));
        }
        let port = text(&row, "vip_port_id");
        if row.get("~own_port").and_then(Value::as_bool).unwrap_or(true) {
            ports::remove(state, port);
        } else {
            state.set(Kind::Port, port, json!({"device_id": "", "device_owner": "", "status": "DOWN"}));
        }
        state.remove(Kind::LoadBalancer, id);
        return;
    }
    if text(&row, "provisioning_status") == "PENDING_CREATE"
        && state.injection.fails(Built::LoadBalancer, text(&row, "name")).is_some()
    {
        state.set(Kind::LoadBalancer, id, json!({"provisioning_status": "ERROR", "operating_status": "ERROR"}));
        return;
    }
    if !text(&row, "provisioning_status").starts_with("PENDING") {
        return;
    }
    for (kind, ids) in children {
        for child in ids {
            let status = state.get(kind, &child).map(|r| text(&r, "provisioning_status").to_owned());
            match status.as_deref() {
                Some("PENDING_DELETE") => remove_child(state, kind, &child),
                Some(s) if s.starts_with("PENDING") => {
                    let operating = if kind == Kind::Member { "NO_MONITOR" } else { "ONLINE" };
                    state.set(kind, &child, json!({"provisioning_status": "ACTIVE", "operating_status": operating}));
                }
                _ => {}
            }
        }
    }
    state.set(Kind::LoadBalancer, id, json!({"provisioning_status": "ACTIVE", "operating_status": "ONLINE"}));
}

fn remove_child(state: &mut State, kind: Kind, id: &str) {
    if kind == Kind::Pool {
        let pool = [id.to_owned()];
        for listener in below(state, Kind::Listener, "default_pool_id", &pool) {
            state.set(Kind::Listener, &listener, json!({ "default_pool_id": null }));
        }
        for (kind, field) in [(Kind::Member, "~pool_id"), (Kind::HealthMonitor, "pool_id")] {
            below(state, kind, field, &pool).iter().for_each(|child| state.remove(kind, child));
        }
    }
    state.remove(kind, id);
}

fn view(state: &State, kind: Kind, row: &Row) -> Row {
    let mut out = shown(row);
    let id = text(row, "id").to_owned();
    let ids = |kind: Kind, field: &str, of: &str| -> Value {
        state.table(kind).find(field, of).map(|r| json!({"id": text(r, "id")})).collect()
    };
    let parent = |id: &str| if id.is_empty() { json!([]) } else { json!([{ "id": id }]) };
    match kind {
        Kind::LoadBalancer => {
            out.insert("listeners".into(), ids(Kind::Listener, "loadbalancer_id", &id));
            out.insert("pools".into(), ids(Kind::Pool, "loadbalancer_id", &id));
            out.insert("additional_vips".into(), json!([]));
        }
        Kind::Listener => {
            out.remove("loadbalancer_id");
            out.insert("loadbalancers".into(), parent(text(row, "loadbalancer_id")));
            out.insert("l7policies".into(), json!([]));
            out.insert("sni_container_refs".into(), json!([]));
            out.insert("default_tls_container_ref".into(), Value::Null);
        }
        Kind::Pool => {
            out.remove("loadbalancer_id");
            out.remove("listener_id");
            out.insert("loadbalancers".into(), parent(text(row, "loadbalancer_id")));
            let listeners = match text(row, "listener_id") {
                "" => ids(Kind::Listener, "default_pool_id", &id),
                listener => parent(listener),
            };
            out.insert("listeners".into(), listeners);
            out.insert("members".into(), ids(Kind::Member, "~pool_id", &id));
            let monitor =
                state.table(Kind::HealthMonitor).find("pool_id", &id).next().map(|m| text(m, "id").to_owned());
            out.insert("healthmonitor_id".into(), json!(monitor));
        }
        Kind::HealthMonitor => {
            out.insert("pools".into(), parent(text(row, "pool_id")));
            out.remove("pool_id");
        }
        _ => {}
    }
    out
}

const KINDS: [Kind; 5] = [Kind::LoadBalancer, Kind::Listener, Kind::Pool, Kind::Member, Kind::HealthMonitor];

fn quotas(state: &mut State, request: &Request, caller: &Caller, rest: &[&str]) -> Result<Reply> {
    let [project, ..] = rest else { return Err(Fault::no_route()) };
    if *project != caller.project && !caller.admin {
        return Err(Fault::forbidden("Policy does not allow this request to be performed."));
    }
    match request.method.as_str() {
        "GET" => {}
        "PUT" if caller.admin => super::set_quota(state, Service::LoadBalancer, project, request.object("quota")?)?,
        _ => return Err(Fault::forbidden("Policy does not allow this request to be performed.")),
    }
    let one = |k: &Kind| {
        (k.meta().quota.to_owned(), json!(state.quota(Service::LoadBalancer.key(), project, k.meta().quota)))
    };
    Ok(Reply::one(200, "quota", Value::Object(KINDS.iter().map(one).collect())))
}
