//! Neutron v2.0: one path for its kinds, with what is particular to each in the modules below.

mod floating;
pub mod groups;
pub mod ports;
pub mod routers;
mod subnets;

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{
    fault::{Fault, Result},
    generic,
    http::{Caller, Reply, Request, Service, listed, select, shown},
    kind::Kind,
    state::State,
    table::{Row, flag, text},
};

/// The extensions whose behaviour is here.
const EXTENSIONS: &[(&str, &str)] = &[
    ("router", "Neutron L3 Router"),
    ("external-net", "Neutron external network"),
    ("security-group", "security-group"),
    ("port-security", "Port Security"),
    ("allowed-address-pairs", "Allowed Address Pairs"),
    ("binding", "Port Binding"),
    ("standard-attr-tag", "Tag support for resources with standard attribute"),
    ("standard-attr-timestamp", "Resource timestamps"),
    ("standard-attr-description", "standard-attr-description"),
    ("standard-attr-revisions", "Resource revision numbers"),
    ("availability_zone", "Availability Zone"),
    ("network_availability_zone", "Network Availability Zone"),
    ("router_availability_zone", "Router Availability Zone"),
    ("quotas", "Quota management support"),
    ("quota_details", "Quota details management support"),
    ("net-mtu", "Network MTU"),
    ("net-mtu-writable", "Network MTU (writable)"),
    ("trunk", "Trunk Extension"),
    ("pagination", "Pagination support"),
    ("sorting", "Sorting support"),
];

pub fn handle(state: &mut State, request: &Request) -> Result<Reply> {
    let path: Vec<&str> = request.path.iter().map(String::as_str).collect();
    let caller = request.caller()?;
    let [version, rest @ ..] = path.as_slice() else { return Err(Fault::no_route()) };
    if *version != "v2.0" {
        return Err(Fault::no_route());
    }
    match (request.method.as_str(), rest) {
        ("GET", ["extensions"]) => {
            let extension = |(alias, name): &(&str, &str)| json!({"alias": alias, "name": name, "description": name, "links": [], "updated": "2016-01-01T10:00:00-00:00"});
            Ok(Reply::ok(json!({ "extensions": EXTENSIONS.iter().map(extension).collect::<Vec<_>>() })))
        }
        ("GET", ["extensions", alias]) => match EXTENSIONS.iter().find(|(a, _)| a == alias) {
            Some((alias, name)) => Ok(Reply::one(
                200,
                "extension",
                json!({"alias": alias, "name": name, "description": name, "links": []}),
            )),
            None => Err(Fault::not_found("ExtensionNotFound", format!("Extension with alias {alias} does not exist"))),
        },
        ("GET", ["availability_zones"]) => {
            let zone =
                |name: &String, resource: &str| json!({"name": name, "resource": resource, "state": "available"});
            let zones: Vec<Value> =
                state.options.zone_names().iter().flat_map(|z| [zone(z, "network"), zone(z, "router")]).collect();
            Ok(Reply::ok(json!({ "availability_zones": zones })))
        }
        (_, ["quotas", rest @ ..]) => quotas(state, request, &caller, rest),
        (
            "GET",
            [
                "agents"
                | "network-ip-availabilities"
                | "subnetpools"
                | "address-scopes"
                | "address-groups"
                | "rbac-policies"
                | "qos",
            ],
        ) => {
            let many = rest.first().copied().unwrap_or_default().replace('-', "_");
            Ok(Reply::ok(json!({ many: [] })))
        }
        (_, ["subnetpools" | "address-scopes" | "address-groups" | "agents", id]) => {
            Err(Fault::not_found("HTTPNotFound", format!("{id} could not be found.")))
        }
        (_, [collection, rest @ ..]) => {
            // Paths may end in `.json`.
            let Some(kind) = Kind::of(Service::Network, collection.trim_end_matches(".json")) else {
                return Err(Fault::no_route());
            };
            object(state, request, &caller, kind, rest)
        }
        _ => Err(Fault::no_route()),
    }
}

fn object(state: &mut State, request: &Request, caller: &Arc<Caller>, kind: Kind, rest: &[&str]) -> Result<Reply> {
    let meta = kind.meta();
    if caller.project.is_empty() && !caller.admin {
        return Err(Fault::unauthorized());
    }
    groups::ensure_default(state, &caller.project);
    match (request.method.as_str(), rest) {
        ("GET", []) => {
            let rows = select(state, request, kind, None)?;
            let rows = rows.iter().map(|r| view(state, kind, r)).collect();
            listed(state, request, meta.many, rows)
        }
        ("GET", [id]) => {
            let row = generic::seen(state, caller, kind, id)?;
            Ok(Reply::one(200, meta.one, Value::Object(view(state, kind, &row))))
        }
        ("POST", []) => match request.body.get(meta.many).and_then(Value::as_array) {
            Some(bodies) => {
                if bodies.len() > generic::LIST_LIMIT {
                    return Err(generic::invalid(meta.many, "too many objects in one request"));
                }
                let mut made = Vec::new();
                for body in bodies {
                    let body = body.as_object().ok_or_else(|| generic::invalid(meta.many, "not a list of objects"))?;
                    made.push(Value::Object(create(state, caller, kind, body)?));
                }
                Ok(Reply::one(201, meta.many, Value::Array(made)))
            }
            None => {
                let made = create(state, caller, kind, request.object(meta.one)?)?;
                Ok(Reply::one(201, meta.one, Value::Object(made)))
            }
        },
        ("PUT", [id]) => {
            let changed = update(state, caller, kind, id, request.object(meta.one)?)?;
            Ok(Reply::one(200, meta.one, Value::Object(changed)))
        }
        ("DELETE", [id]) => {
            generic::changeable(state, caller, kind, id)?;
            delete(state, caller, kind, id)?;
            Ok(Reply::empty(204))
        }
        ("PUT", [id, action @ ("add_router_interface" | "remove_router_interface")]) if kind == Kind::Router => {
            let body = request.body.as_object().cloned().unwrap_or_default();
            routers::interface(state, caller, id, action, &body).map(Reply::ok)
        }
        ("GET" | "PUT" | "DELETE", [id, "tags"]) => generic::tags(state, request, kind, id, None),
        ("GET" | "PUT" | "DELETE", [id, "tags", tag]) => generic::tags(state, request, kind, id, Some(tag)),
        ("GET", [id, "get_subports"]) if kind == Kind::Trunk => {
            let row = generic::seen(state, caller, kind, id)?;
            Ok(Reply::one(200, "sub_ports", row.get("sub_ports").cloned().unwrap_or_else(|| json!([]))))
        }
        (_, [] | [_]) => Err(Fault::method()),
        _ => Err(Fault::no_route()),
    }
}

fn view(state: &State, kind: Kind, row: &Row) -> Row {
    let mut row = shown(row);
    match kind {
        Kind::Network => {
            let subnets = state.table(Kind::Subnet).find("network_id", text(&row, "id"));
            let subnets: Vec<Value> = subnets.map(|s| json!(text(s, "id"))).collect();
            row.insert("subnets".into(), json!(subnets));
        }
        Kind::SecurityGroup => {
            let rules = state.table(Kind::SecurityGroupRule).find("security_group_id", text(&row, "id"));
            let rules: Vec<Value> = rules.map(|r| Value::Object(shown(r))).collect();
            row.insert("security_group_rules".into(), json!(rules));
        }
        Kind::Router => routers::show(state, &mut row),
        Kind::FloatingIp => floating::show(state, &mut row),
        _ => {}
    }
    row
}

/// Creates one object and shows it.
pub fn create(state: &mut State, caller: &Caller, kind: Kind, body: &Map<String, Value>) -> Result<Row> {
    let mut row = generic::build(state, caller, kind, body)?;
    match kind {
        Kind::Network => create_network(state, caller, &mut row)?,
        Kind::Subnet => subnets::create(state, caller, &mut row)?,
        Kind::Router => routers::create(state, caller, &mut row)?,
        Kind::Port => ports::create(state, caller, &mut row)?,
        Kind::FloatingIp => floating::create(state, caller, &mut row)?,
        Kind::SecurityGroup => groups::create(state, &mut row)?,
        Kind::SecurityGroupRule => groups::create_rule(state, caller, &mut row)?,
        Kind::Trunk => {
            let port = generic::changeable(state, caller, Kind::Port, text(&row, "port_id"))?;
            if state.table(Kind::Trunk).count("port_id", text(&port, "id")) > 0 {
                let message = format!("Port {} is in use by another trunk.", text(&port, "id"));
                return Err(Fault::conflict("TrunkPortInUse", message));
            }
            row.insert("status".into(), json!("ACTIVE"));
        }
        _ => return Err(Fault::method()),
    }
    let id = text(&row, "id").to_owned();
    state.put(kind, row);
    let row = state.get(kind, &id).ok_or_else(|| generic::missing(kind, &id))?;
    Ok(view(state, kind, &row))
}

fn update(state: &mut State, caller: &Caller, kind: Kind, id: &str, body: &Map<String, Value>) -> Result<Row> {
    let old = generic::changeable(state, caller, kind, id)?;
    let mut row = generic::change(state, kind, &old, body)?;
    match kind {
        Kind::Network => {
            if !caller.admin && (body.contains_key("shared") || body.contains_key("router:external")) {
                return Err(Fault::forbidden("rule:update_network:shared is disallowed by policy"));
            }
            row.insert("~public".into(), json!(flag(&row, "shared") || flag(&row, "router:external")));
        }
        Kind::Subnet => subnets::check(state, &mut row, body.contains_key("allocation_pools"))?,
        Kind::Router => routers::update(state, caller, &old, &mut row, body)?,
        Kind::Port => ports::update(state, caller, &old, &mut row, body)?,
        Kind::FloatingIp => floating::update(state, caller, &mut row, body)?,
        Kind::SecurityGroup => groups::update(&old, body)?,
        _ => {}
    }
    state.put(kind, row);
    let row = state.get(kind, id).ok_or_else(|| generic::missing(kind, id))?;
    Ok(view(state, kind, &row))
}

fn delete(state: &mut State, caller: &Caller, kind: Kind, id: &str) -> Result<()> {
    match kind {
        Kind::Network => delete_network(state, id)?,
        Kind::Subnet => subnets::delete(state, id)?,
        Kind::Router => routers::delete(state, id)?,
        Kind::Port => ports::delete(state, id, true)?,
        Kind::FloatingIp => floating::delete(state, id)?,
        Kind::SecurityGroup => groups::delete(state, caller, id)?,
        _ => {}
    }
    state.remove(kind, id);
    Ok(())
}

fn create_network(state: &State, caller: &Caller, row: &mut Row) -> Result<()> {
    let public = flag(row, "shared") || flag(row, "router:external");
    if public && !caller.admin {
        return Err(Fault::forbidden("rule:create_network:router:external is disallowed by policy"));
    }
    row.insert("~public".into(), json!(public));
    row.insert("status".into(), json!("ACTIVE"));
    row.insert("availability_zones".into(), json!(state.options.zone_names()));
    row.insert("ipv4_address_scope".into(), Value::Null);
    row.insert("ipv6_address_scope".into(), Value::Null);
    Ok(())
}

fn delete_network(state: &mut State, id: &str) -> Result<()> {
    let ports: Vec<String> =
        state.table(Kind::Port).find("network_id", id).map(|p| text(p, "id").to_owned()).take(10).collect();
    if !ports.is_empty() {
        let message = format!(
            "Unable to complete operation on network {id}. There are one or more ports still in use on the network, id for these ports is: {}.",
            ports.join(",")
        );
        return Err(Fault::conflict("NetworkInUse", message));
    }
    let subnets: Vec<String> =
        state.table(Kind::Subnet).find("network_id", id).map(|s| text(s, "id").to_owned()).collect();
    for subnet in subnets {
        state.remove(Kind::Subnet, &subnet);
    }
    Ok(())
}

const KINDS: [Kind; 8] = [
    Kind::Network,
    Kind::Subnet,
    Kind::Router,
    Kind::Port,
    Kind::FloatingIp,
    Kind::SecurityGroup,
    Kind::SecurityGroupRule,
    Kind::Trunk,
];

fn quotas(state: &mut State, request: &Request, caller: &Caller, rest: &[&str]) -> Result<Reply> {
    let service = Service::Network;
    let (project, view) = match rest {
        [project] => (project.trim_end_matches(".json"), "plain"),
        [project, view] => (*project, view.trim_end_matches(".json")),
        _ => return Err(Fault::no_route()),
    };
    if project != caller.project && !caller.admin {
        return Err(Fault::forbidden("rule:get_quota is disallowed by policy"));
    }
    match (request.method.as_str(), view) {
        ("GET", "plain" | "details" | "default") => {}
        ("PUT", "plain") if caller.admin => super::set_quota(state, service, project, request.object("quota")?)?,
        ("DELETE", "plain") if caller.admin => {
            state.remove(Kind::Quota, &format!("{}/{project}", service.key()));
            return Ok(Reply::empty(204));
        }
        _ => return Err(Fault::forbidden("rule:update_quota is disallowed by policy")),
    }
    let quota: Map<String, Value> = KINDS
        .iter()
        .map(|kind| {
            let name = kind.meta().quota;
            let limit = if view == "default" {
                state.options.quotas.get(name).copied().unwrap_or(-1)
            } else {
                state.quota(service.key(), project, name)
            };
            let used = state.table(*kind).count("project_id", project);
            let value =
                if view == "details" { json!({"limit": limit, "used": used, "reserved": 0}) } else { json!(limit) };
            (name.to_owned(), value)
        })
        .collect();
    Ok(Reply::one(200, "quota", Value::Object(quota)))
}
