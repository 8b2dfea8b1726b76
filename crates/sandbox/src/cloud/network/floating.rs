//! Floating IPs: addresses of an external network, tied to ports that a router reaches.

use serde_json::{Map, Value, json};

use super::{
    ports::{self, Wanted},
    routers,
};
use crate::cloud::{
    fault::{Fault, Result},
    generic,
    http::Caller,
    kind::Kind,
    state::State,
    table::{Row, flag, text, values},
};

const OWNER: &str = "network:floatingip";

pub fn create(state: &mut State, caller: &Caller, row: &mut Row) -> Result<()> {
    let network = generic::seen(state, caller, Kind::Network, text(row, "floating_network_id"))?;
    let bad = |message: String| {
        Fault::new(http::StatusCode::BAD_REQUEST, "BadRequest", format!("Bad floatingip request: {message}."))
    };
    if !flag(&network, "router:external") {
        return Err(bad(format!("Network {} is not a valid external network", text(&network, "id"))));
    }
    let given = |key: &str| row.get(key).and_then(Value::as_str).map(str::to_owned);
    let fixed_ips = match (given("floating_ip_address"), given("subnet_id")) {
        (Some(ip), _) => json!([{"ip_address": ip}]),
        (None, Some(subnet)) => json!([{"subnet_id": subnet}]),
        (None, None) => json!("~auto"),
    };
    let id = text(row, "id").to_owned();
    let port = ports::make(
        state,
        &Wanted {
            project: "",
            network: text(&network, "id"),
            name: "",
            device_id: &id,
            device_owner: OWNER,
            fixed_ips,
        },
    )?;
    let Some((address, _)) = ports::first_address(&port) else {
        return Err(bad(format!("Network {} does not contain any IPv4 subnet", text(&network, "id"))));
    };
    row.insert("floating_ip_address".into(), json!(address));
    row.insert("router_id".into(), Value::Null);
    row.insert("status".into(), json!("DOWN"));
    row.remove("subnet_id");
    associate(state, caller, row)
}

pub fn update(state: &mut State, caller: &Caller, row: &mut Row, body: &Map<String, Value>) -> Result<()> {
    if !body.contains_key("port_id") {
        return Ok(());
    }
    if !body.contains_key("fixed_ip_address") {
        row.insert("fixed_ip_address".into(), Value::Null);
    }
    associate(state, caller, row)
}

/// Brings address, router and status in line with the row's `port_id`.
fn associate(state: &mut State, caller: &Caller, row: &mut Row) -> Result<()> {
    let Some(port) = row.get("port_id").and_then(Value::as_str).map(str::to_owned) else {
        row.extend(free().into_iter().map(|(k, v)| (k.to_owned(), v)));
        return Ok(());
    };
    let port = generic::changeable(state, caller, Kind::Port, &port)?;
    let port_id = text(&port, "id");
    let external = text(row, "floating_network_id").to_owned();
    let bad = |message: String| {
        Fault::new(http::StatusCode::BAD_REQUEST, "BadRequest", format!("Bad floatingip request: {message}."))
    };
    let wanted = row.get("fixed_ip_address").and_then(Value::as_str).map(str::to_owned);
    let pairs: Vec<(String, String)> =
        values(&port, "fixed_ips[].ip_address").into_iter().zip(values(&port, "fixed_ips[].subnet_id")).collect();
    let chosen = match wanted {
        Some(ip) => pairs.into_iter().find(|(have, _)| *have == ip),
        None => ports::first_address(&port),
    };
    let Some((ip, subnet)) = chosen else {
        return Err(bad(format!("Port {port_id} does not have the fixed IP, or has none")));
    };
    let mut others = state.table(Kind::FloatingIp).find("port_id", port_id);
    if others.any(|f| {
        text(f, "id") != text(row, "id")
            && text(f, "fixed_ip_address") == ip
            && text(f, "floating_network_id") == external
    }) {
        let message = format!(
            "Cannot associate floating IP {} ({}) with port {port_id} using fixed IP {ip}, as that fixed IP already has a floating IP on external network {external}.",
            text(row, "floating_ip_address"),
            text(row, "id"),
        );
        return Err(Fault::conflict("FloatingIPPortAlreadyAssociated", message));
    }
    let Some(router) = routers::between(state, &subnet, &external) else {
        let message = format!(
            "External network {external} is not reachable from subnet {subnet}.  Therefore, cannot associate Port {port_id} with a Floating IP."
        );
        return Err(Fault::not_found("ExternalGatewayForFloatingIPNotFound", message));
    };
    row.insert("port_id".into(), json!(port_id));
    row.insert("fixed_ip_address".into(), json!(ip));
    row.insert("router_id".into(), json!(router));
    row.insert("~subnet_id".into(), json!(subnet));
    row.insert("status".into(), json!("ACTIVE"));
    Ok(())
}

fn free() -> [(&'static str, Value); 5] {
    [
        ("port_id", Value::Null),
        ("fixed_ip_address", Value::Null),
        ("router_id", Value::Null),
        ("~subnet_id", Value::Null),
        ("status", json!("DOWN")),
    ]
}

/// Frees the floating IPs of a port that goes away.
pub fn forget_port(state: &mut State, port: &str) {
    let ids: Vec<String> =
        state.table(Kind::FloatingIp).find("port_id", port).map(|f| text(f, "id").to_owned()).collect();
    for id in ids {
        state.set(Kind::FloatingIp, &id, Value::Object(free().into_iter().map(|(k, v)| (k.to_owned(), v)).collect()));
    }
}

pub fn delete(state: &mut State, id: &str) -> Result<()> {
    let ports: Vec<String> = state
        .table(Kind::Port)
        .find("device_id", id)
        .filter(|p| text(p, "device_owner") == OWNER)
        .map(|p| text(p, "id").to_owned())
        .collect();
    for port in ports {
        ports::remove(state, &port);
    }
    Ok(())
}

pub fn show(state: &State, row: &mut Row) {
    let port = row.get("port_id").and_then(Value::as_str).and_then(|p| state.get(Kind::Port, p));
    let details = port.map(|p| {
        json!({"name": text(&p, "name"), "network_id": text(&p, "network_id"), "mac_address": text(&p, "mac_address"),
               "admin_state_up": true, "status": text(&p, "status"), "device_id": text(&p, "device_id"),
               "device_owner": text(&p, "device_owner")})
    });
    row.insert("port_details".into(), details.unwrap_or_default());
    row.insert("port_forwardings".into(), json!([]));
}
