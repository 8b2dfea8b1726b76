//! Ports: addresses out of subnets, security groups, and who uses them.

use std::{net::IpAddr, sync::Arc};

use serde_json::{Map, Value, json};

use super::groups;
use crate::cloud::{
    address::{self, bits},
    fault::{Fault, Result},
    generic::{self, invalid},
    http::Caller,
    kind::Kind,
    state::State,
    table::{Row, flag, text, values},
};

/// Addresses of one port (Neutron's `max_fixed_ips_per_port`).
pub const FIXED_IPS_LIMIT: usize = 5;

pub fn create(state: &mut State, caller: &Caller, row: &mut Row) -> Result<()> {
    let network = generic::seen(state, caller, Kind::Network, text(row, "network_id"))?;
    let id = text(row, "id").to_owned();
    let mac = match row.get("mac_address").and_then(Value::as_str) {
        Some("~auto") | None => {
            let r = state.random();
            format!("fa:16:3e:{:02x}:{:02x}:{:02x}", r & 0xff, (r >> 8) & 0xff, (r >> 16) & 0xff)
        }
        Some(mac) => {
            let used =
                state.table(Kind::Port).find("mac_address", mac).any(|p| text(p, "network_id") == text(&network, "id"));
            if used {
                let message = format!(
                    "Unable to complete operation for network {}. The mac address {mac} is in use.",
                    text(&network, "id")
                );
                return Err(Fault::conflict("MacAddressInUse", message));
            }
            mac.to_owned()
        }
    };
    row.insert("mac_address".into(), json!(mac));
    if !flag(&network, "port_security_enabled") {
        row.insert("port_security_enabled".into(), json!(false));
    }
    let asked = row.get("fixed_ips").cloned().unwrap_or_default();
    let fixed = allocate(state, &network, &id, &asked)?;
    row.insert("fixed_ips".into(), fixed);
    security_groups(state, caller, row)?;
    row.insert(
        "status".into(),
        json!(if text(row, "device_owner").starts_with("network:") { "ACTIVE" } else { "DOWN" }),
    );
    row.insert("binding:vif_type".into(), json!("unbound"));
    row.insert("binding:vif_details".into(), json!({}));
    row.insert("dns_assignment".into(), json!([]));
    Ok(())
}

/// Gives the port its groups: those asked for, or the project's default one.
fn security_groups(state: &State, caller: &Caller, row: &mut Row) -> Result<()> {
    let secured = flag(row, "port_security_enabled");
    let asked = row.get("security_groups").cloned().unwrap_or_default();
    let groups = match asked {
        Value::String(_) if !secured || text(row, "device_owner").starts_with("network:") => json!([]),
        Value::String(_) => json!([groups::default_of(state, text(row, "project_id")).unwrap_or_default()]),
        Value::Null => json!([]),
        Value::Array(ids) => {
            if !secured && !ids.is_empty() {
                let message = "Port Security must be enabled in order to have allowed address pairs or security groups on a port.";
                return Err(Fault::conflict("PortSecurityAndIPRequiredForSecurityGroups", message));
            }
            if ids.len() > generic::LIST_LIMIT {
                return Err(invalid("security_groups", "too many groups"));
            }
            for id in &ids {
                let id = id.as_str().unwrap_or_default();
                generic::seen(state, caller, Kind::SecurityGroup, id)?;
            }
            Value::Array(ids)
        }
        other => return Err(invalid("security_groups", &format!("'{other}' is not a list"))),
    };
    row.insert("security_groups".into(), groups);
    Ok(())
}

/// Turns what was asked for into addresses. `"~auto"`: one of a version-4 subnet and one of a version-6 subnet.
pub fn allocate(state: &mut State, network: &Row, port: &str, asked: &Value) -> Result<Value> {
    let network_id = text(network, "id").to_owned();
    let subnets: Vec<Arc<Row>> = state.table(Kind::Subnet).find("network_id", &network_id).cloned().collect();
    let mut taken: Vec<Value> = Vec::new();
    match asked {
        Value::Array(wanted) => {
            if wanted.len() > FIXED_IPS_LIMIT {
                return Err(invalid("fixed_ips", "Exceeded maximum amount of fixed ips per port"));
            }
            for one in wanted {
                taken.push(allocate_one(state, &network_id, &subnets, port, one, &taken)?);
            }
        }
        Value::Null => {}
        _ => {
            for version in [4, 6] {
                let candidates: Vec<_> =
                    subnets.iter().filter(|s| crate::cloud::table::number(s, "ip_version") == version).collect();
                if candidates.is_empty() {
                    continue;
                }
                let Some(found) = candidates.iter().find_map(|s| Some((free(state, &network_id, s, port)?, *s))) else {
                    return Err(exhausted(&network_id));
                };
                taken.push(json!({"subnet_id": text(found.1, "id"), "ip_address": found.0}));
            }
        }
    }
    Ok(Value::Array(taken))
}

fn exhausted(network: &str) -> Fault {
    Fault::conflict("IpAddressGenerationFailure", format!("No more IP addresses available on network {network}."))
}

fn allocate_one(
    state: &mut State,
    network: &str,
    subnets: &[Arc<Row>],
    port: &str,
    wanted: &Value,
    taken: &[Value],
) -> Result<Value> {
    let subnet_id = wanted.get("subnet_id").and_then(Value::as_str);
    let ip = wanted.get("ip_address").and_then(Value::as_str);
    let subnet = match subnet_id {
        Some(id) => Some(subnets.iter().find(|s| text(s, "id") == id).ok_or_else(|| {
            let message =
                format!("Failed to create port on network {network}, because fixed_ips included invalid subnet {id}.");
            invalid_subnet(message)
        })?),
        None => None,
    };
    let Some(ip) = ip else {
        let subnet = subnet.ok_or_else(|| invalid("fixed_ips", "neither subnet_id nor ip_address is given"))?;
        let address = free(state, network, subnet, port).ok_or_else(|| exhausted(network))?;
        return Ok(json!({"subnet_id": text(subnet, "id"), "ip_address": address}));
    };
    let address: IpAddr = ip.parse().map_err(|_| invalid("fixed_ips", &format!("'{ip}' is not a valid IP address")))?;
    let holds = |s: &&Arc<Row>| address::cidr(s).is_some_and(|net| net.contains(&address));
    let subnet = match subnet {
        Some(subnet) => holds(&subnet).then_some(subnet),
        None => subnets.iter().find(holds),
    };
    let Some(subnet) = subnet else {
        let message = format!("IP address {ip} is not a valid IP for the specified subnet.");
        return Err(Fault::new(http::StatusCode::BAD_REQUEST, "InvalidIpForSubnet", message));
    };
    let held_twice = taken.iter().any(|t| t.get("ip_address").and_then(Value::as_str) == Some(ip));
    if held_twice || state.holder(network, bits(address)).is_some_and(|holder| holder != port) {
        return Err(address_in_use(network, ip));
    }
    Ok(json!({"subnet_id": text(subnet, "id"), "ip_address": address}))
}

fn invalid_subnet(message: String) -> Fault {
    Fault::new(http::StatusCode::BAD_REQUEST, "InvalidInput", message)
}

pub fn address_in_use(network: &str, ip: &str) -> Fault {
    let message = format!("Unable to complete operation for network {network}. The IP address {ip} is in use.");
    Fault::conflict("IpAddressInUse", message)
}

/// A free address of the subnet's pools, going on where the last search ended, so that a full range is not walked anew
/// for each port.
fn free(state: &mut State, network: &str, subnet: &Row, port: &str) -> Option<IpAddr> {
    let v6 = crate::cloud::table::number(subnet, "ip_version") == 6;
    let pools = address::pools(subnet);
    let id = text(subnet, "id");
    let after = *state.cursor(id);
    let spans =
        pools.iter().map(|(a, b)| ((*a).max(after + 1), *b)).chain(pools.iter().map(|(a, b)| (*a, (*b).min(after))));
    for (start, end) in spans {
        let mut at = start;
        while at <= end {
            if state.holder(network, at).is_none_or(|h| h == port) {
                *state.cursor(id) = at;
                return Some(address::address(at, v6));
            }
            at += 1;
        }
    }
    None
}

pub fn update(state: &mut State, caller: &Caller, old: &Row, row: &mut Row, body: &Map<String, Value>) -> Result<()> {
    if body.contains_key("fixed_ips") {
        let network = generic::seen(state, caller, Kind::Network, text(row, "network_id"))?;
        let fixed = allocate(state, &network, text(old, "id"), body.get("fixed_ips").unwrap_or(&Value::Null))?;
        row.insert("fixed_ips".into(), fixed);
    }
    if body.contains_key("security_groups") || body.contains_key("port_security_enabled") {
        security_groups(state, caller, row)?;
    }
    Ok(())
}

/// Deletes what hangs on a port. `by_user`: router and load balancer ports are refused.
pub fn delete(state: &mut State, id: &str, by_user: bool) -> Result<()> {
    let Some(port) = state.get(Kind::Port, id) else { return Ok(()) };
    let owner = text(&port, "device_owner");
    let guarded = matches!(owner, "network:router_interface" | "network:router_gateway" | "network:floatingip");
    if by_user && guarded {
        let message = format!("Port {id} cannot be deleted directly via the port API: has device owner {owner}.");
        return Err(Fault::conflict("ServicePortInUse", message));
    }
    if state.table(Kind::Trunk).count("port_id", id) > 0 {
        return Err(Fault::conflict("PortInUse", format!("Port {id} is currently a parent port for trunk.")));
    }
    super::floating::forget_port(state, id);
    Ok(())
}

/// Removes a port for the service that owns it; nothing if it is gone.
pub fn remove(state: &mut State, id: &str) {
    super::floating::forget_port(state, id);
    state.remove(Kind::Port, id);
}

/// What a service asks for when it makes a port for itself.
pub struct Wanted<'a> {
    pub project: &'a str,
    pub network: &'a str,
    pub name: &'a str,
    pub device_id: &'a str,
    pub device_owner: &'a str,
    /// As in the API; `"~auto"` for whatever is free.
    pub fixed_ips: Value,
}

/// Makes a port on a service's behalf, whoever owns the network.
pub fn make(state: &mut State, wanted: &Wanted<'_>) -> Result<Arc<Row>> {
    let system = Caller { user: String::new(), project: wanted.project.to_owned(), admin: true, restricted: false };
    let body = json!({
        "network_id": wanted.network, "name": wanted.name, "device_id": wanted.device_id,
        "device_owner": wanted.device_owner, "fixed_ips": wanted.fixed_ips, "security_groups": [],
    });
    let mut row = generic::build(state, &system, Kind::Port, body.as_object().unwrap_or(&Map::new()))?;
    create(state, &system, &mut row)?;
    row.insert("status".into(), json!("ACTIVE"));
    let id = text(&row, "id").to_owned();
    state.put(Kind::Port, row);
    state.get(Kind::Port, &id).ok_or_else(|| generic::missing(Kind::Port, &id))
}

/// The first version-4 address of a port, else its first.
pub fn first_address(port: &Row) -> Option<(String, String)> {
    let pairs: Vec<(String, String)> =
        values(port, "fixed_ips[].ip_address").into_iter().zip(values(port, "fixed_ips[].subnet_id")).collect();
    let v4 = pairs.iter().find(|(ip, _)| !ip.contains(':')).cloned();
    v4.or_else(|| pairs.into_iter().next())
}
