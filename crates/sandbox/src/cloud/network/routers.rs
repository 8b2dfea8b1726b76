//! Routers: the gateway to an external network, and the interfaces to subnets. Both are ports.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::ports::{self, Wanted};
use crate::cloud::{
    fault::{Fault, Result},
    generic::{self, invalid},
    http::Caller,
    kind::Kind,
    state::State,
    table::{Row, flag, text, values},
};

const GATEWAY: &str = "network:router_gateway";
const INTERFACE: &str = "network:router_interface";

pub fn create(state: &mut State, caller: &Caller, row: &mut Row) -> Result<()> {
    row.insert("status".into(), json!("ACTIVE"));
    row.insert("availability_zones".into(), json!(state.options.zone_names()));
    let wanted = row.get("external_gateway_info").cloned().unwrap_or_default();
    set_gateway(state, caller, row, &wanted)
}

pub fn update(state: &mut State, caller: &Caller, old: &Row, row: &mut Row, body: &Map<String, Value>) -> Result<()> {
    let Some(wanted) = body.get("external_gateway_info") else { return Ok(()) };
    let id = text(old, "id");
    let now = old.get("external_gateway_info").and_then(|g| g.get("network_id")).and_then(Value::as_str);
    let then = wanted.get("network_id").and_then(Value::as_str);
    if now.is_some() && now == then {
        row.insert("external_gateway_info".into(), old.get("external_gateway_info").cloned().unwrap_or_default());
        return Ok(());
    }
    if let Some(network) = now
        && state.table(Kind::FloatingIp).find("router_id", id).next().is_some()
    {
        let message = format!(
            "Gateway cannot be updated for router {id}, since a gateway to external network {network} is required by one or more floating IPs."
        );
        return Err(Fault::conflict("RouterExternalGatewayInUseByFloatingIp", message));
    }
    drop_gateway(state, id);
    set_gateway(state, caller, row, wanted)
}

fn set_gateway(state: &mut State, caller: &Caller, row: &mut Row, wanted: &Value) -> Result<()> {
    let Some(wanted) = wanted.as_object().filter(|w| !w.is_empty()) else {
        row.insert("external_gateway_info".into(), Value::Null);
        return Ok(());
    };
    let network = wanted
        .get("network_id")
        .and_then(Value::as_str)
        .ok_or_else(|| invalid("external_gateway_info", "network_id is missing"))?;
    let network = generic::seen(state, caller, Kind::Network, network)?;
    if !flag(&network, "router:external") {
        let message = format!("Bad router request: Network {} is not an external network.", text(&network, "id"));
        return Err(Fault::new(http::StatusCode::BAD_REQUEST, "BadRequest", message));
    }
    let router = text(row, "id").to_owned();
    let port = ports::make(
        state,
        &Wanted {
            project: "",
            network: text(&network, "id"),
            name: "",
            device_id: &router,
            device_owner: GATEWAY,
            fixed_ips: wanted.get("external_fixed_ips").cloned().unwrap_or(json!("~auto")),
        },
    )?;
    let info = json!({
        "network_id": text(&network, "id"),
        "enable_snat": wanted.get("enable_snat").and_then(Value::as_bool).unwrap_or(true),
        "external_fixed_ips": port.get("fixed_ips").cloned().unwrap_or_default(),
    });
    row.insert("external_gateway_info".into(), info);
    Ok(())
}

fn drop_gateway(state: &mut State, router: &str) {
    for port in ports_of(state, router, GATEWAY) {
        ports::remove(state, text(&port, "id"));
    }
}

fn ports_of(state: &State, router: &str, owner: &str) -> Vec<Arc<Row>> {
    state.table(Kind::Port).find("device_id", router).filter(|p| text(p, "device_owner") == owner).cloned().collect()
}

pub fn show(_: &State, row: &mut Row) {
    row.entry("external_gateway_info").or_insert(Value::Null);
}

/// The router between a subnet and an external network, if there is one.
pub fn between(state: &State, subnet: &str, external: &str) -> Option<String> {
    let interfaces = state.table(Kind::Port).find("fixed_ips[].subnet_id", subnet);
    interfaces
        .filter(|p| text(p, "device_owner") == INTERFACE)
        .map(|p| text(p, "device_id"))
        .find(|router| {
            let gateway = state
                .get(Kind::Router, router)
                .and_then(|r| Some(r.get("external_gateway_info")?.get("network_id")?.as_str()?.to_owned()));
            gateway.as_deref() == Some(external)
        })
        .map(str::to_owned)
}

pub fn interface(
    state: &mut State,
    caller: &Caller,
    id: &str,
    action: &str,
    body: &Map<String, Value>,
) -> Result<Value> {
    let router = generic::changeable(state, caller, Kind::Router, id)?;
    let bad = |message: String| {
        Fault::new(http::StatusCode::BAD_REQUEST, "BadRequest", format!("Bad router request: {message}."))
    };
    let given = |key: &str| body.get(key).and_then(Value::as_str);
    let port = match given("port_id") {
        Some(port) => Some(generic::changeable(state, caller, Kind::Port, port)?),
        None => None,
    };
    let subnet = match (given("subnet_id"), &port) {
        (Some(subnet), _) => subnet.to_owned(),
        (None, Some(port)) => {
            values(port, "fixed_ips[].subnet_id").into_iter().next().ok_or_else(|| bad("Port has no address".into()))?
        }
        (None, None) => return Err(bad("Either subnet_id or port_id must be specified".into())),
    };
    let subnet = generic::seen(state, caller, Kind::Subnet, &subnet)?;
    let done = if action == "add_router_interface" {
        add(state, &router, &subnet, port)?
    } else {
        remove(state, &router, &subnet)?
    };
    Ok(json!({
        "id": id, "tenant_id": text(&router, "project_id"), "project_id": text(&router, "project_id"),
        "port_id": done, "network_id": text(&subnet, "network_id"), "subnet_id": text(&subnet, "id"),
        "subnet_ids": [text(&subnet, "id")],
    }))
}

fn add(state: &mut State, router: &Row, subnet: &Row, port: Option<Arc<Row>>) -> Result<String> {
    let (id, subnet_id) = (text(router, "id"), text(subnet, "id"));
    let bad = |message: String| {
        Fault::new(http::StatusCode::BAD_REQUEST, "BadRequest", format!("Bad router request: {message}."))
    };
    let there = |p: &Arc<Row>| text(p, "device_id") == id && text(p, "device_owner") == INTERFACE;
    if state.table(Kind::Port).find("fixed_ips[].subnet_id", subnet_id).any(there) {
        return Err(bad(format!("Router already has a port on subnet {subnet_id}")));
    }
    if let Some(port) = port {
        if !text(&port, "device_id").is_empty() {
            let message = format!("Port {} is already in use.", text(&port, "id"));
            return Err(Fault::conflict("PortInUse", message));
        }
        let port_id = text(&port, "id").to_owned();
        state.set(Kind::Port, &port_id, json!({"device_id": id, "device_owner": INTERFACE, "status": "ACTIVE"}));
        return Ok(port_id);
    }
    let Some(gateway) = subnet.get("gateway_ip").and_then(Value::as_str) else {
        return Err(bad(format!("Subnet for router interface must have a gateway IP: {subnet_id}")));
    };
    let port = ports::make(
        state,
        &Wanted {
            project: text(router, "project_id"),
            network: text(subnet, "network_id"),
            name: "",
            device_id: id,
            device_owner: INTERFACE,
            fixed_ips: json!([{"subnet_id": subnet_id, "ip_address": gateway}]),
        },
    )?;
    Ok(text(&port, "id").to_owned())
}

fn remove(state: &mut State, router: &Row, subnet: &Row) -> Result<String> {
    let (id, subnet_id) = (text(router, "id"), text(subnet, "id"));
    let port = state
        .table(Kind::Port)
        .find("fixed_ips[].subnet_id", subnet_id)
        .find(|p| text(p, "device_id") == id && text(p, "device_owner") == INTERFACE)
        .map(|p| text(p, "id").to_owned());
    let Some(port) = port else {
        let message = format!("Router {id} has no interface on subnet {subnet_id}");
        return Err(Fault::not_found("RouterInterfaceNotFoundForSubnet", message));
    };
    let needed = state.table(Kind::FloatingIp).find("router_id", id).any(|f| text(f, "~subnet_id") == subnet_id);
    if needed {
        let message = format!(
            "Router interface for subnet {subnet_id} on router {id} cannot be deleted, as it is required by one or more floating IPs."
        );
        return Err(Fault::conflict("RouterInterfaceInUseByFloatingIP", message));
    }
    ports::remove(state, &port);
    Ok(port)
}

pub fn delete(state: &mut State, id: &str) -> Result<()> {
    if !ports_of(state, id, INTERFACE).is_empty() {
        return Err(Fault::conflict("RouterInUse", format!("Router {id} still has ports")));
    }
    if state.table(Kind::FloatingIp).count("router_id", id) > 0 {
        return Err(Fault::conflict("RouterInUse", format!("Router {id} still has floating IPs")));
    }
    drop_gateway(state, id);
    Ok(())
}
