//! What hangs on a server: ports and volumes, tied to it and freed again.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::servers::truthy;
use crate::cloud::{
    block_storage,
    fault::{Fault, Result},
    http::{Caller, Request, visible},
    kind::Kind,
    network::ports,
    state::State,
    table::{Row, flag, list, text},
};

/// Ports and volumes of one server.
pub const DEVICES_LIMIT: usize = 32;

pub fn attach_ports(
    state: &mut State,
    request: &Request,
    caller: &Caller,
    server: &str,
    body: &Map<String, Value>,
) -> Result<()> {
    let wanted: Vec<Value> = match body.get("networks") {
        Some(Value::String(s)) if s == "none" => return Ok(()),
        Some(Value::Array(list)) if !list.is_empty() => list.clone(),
        None if request.microversion >= 37 => {
            return Err(Fault::bad("Invalid input for field/attribute server. 'networks' is a required property"));
        }
        _ => {
            let own = state.table(Kind::Network).find("project_id", &caller.project);
            let own: Vec<String> =
                own.filter(|n| !flag(n, "router:external")).map(|n| text(n, "id").to_owned()).collect();
            match own.as_slice() {
                [] => return Ok(()),
                [one] => vec![json!({ "uuid": one })],
                _ => {
                    let message = "Multiple possible networks found, use a Network ID to be more specific.";
                    return Err(Fault::conflict("NetworkAmbiguous", message));
                }
            }
        }
    };
    if wanted.len() > DEVICES_LIMIT {
        return Err(Fault::bad(format!("A server has at most {DEVICES_LIMIT} networks")));
    }
    let names: Vec<&str> =
        list(body, "security_groups").iter().filter_map(|g| g.get("name").and_then(Value::as_str)).collect();
    for one in &wanted {
        let given = |key: &str| one.get(key).and_then(Value::as_str);
        attach_port(state, caller, server, given("port"), given("uuid"), given("fixed_ip"), &names)?;
    }
    Ok(())
}

/// Ties a port to a server: one that exists, or a new one on a network, which is then deleted with the server.
pub fn attach_port(
    state: &mut State,
    caller: &Caller,
    server: &str,
    port: Option<&str>,
    network: Option<&str>,
    ip: Option<&str>,
    group_names: &[&str],
) -> Result<String> {
    let zone = state.get(Kind::Server, server).map(|s| text(&s, "OS-EXT-AZ:availability_zone").to_owned());
    let owner = format!("compute:{}", zone.filter(|z| !z.is_empty()).unwrap_or_else(|| "nova".to_owned()));
    if let Some(port) = port {
        let found = state.get(Kind::Port, port).filter(|p| visible(caller, p));
        let found = found.ok_or_else(|| Fault::bad(format!("Port {port} could not be found.")))?;
        if !text(&found, "device_id").is_empty() {
            return Err(Fault::conflict("PortInUse", format!("Port {port} is still in use.")));
        }
        if list(&found, "fixed_ips").is_empty() {
            return Err(Fault::bad(format!("Port {port} requires a FixedIP in order to be used.")));
        }
        state.set(Kind::Port, port, json!({"device_id": server, "device_owner": owner}));
        return Ok(port.to_owned());
    }
    let network = network.ok_or_else(|| Fault::bad("Bad networks format: network uuid or port is needed"))?;
    let found = state.get(Kind::Network, network).filter(|n| visible(caller, n));
    found.ok_or_else(|| Fault::bad(format!("Network {network} could not be found.")))?;
    let mut body = json!({"network_id": network, "device_id": server, "device_owner": owner});
    if let Some(ip) = ip {
        body["fixed_ips"] = json!([{ "ip_address": ip }]);
    }
    if !group_names.is_empty() {
        body["security_groups"] = json!(group_ids(state, caller, group_names)?);
    }
    let made = crate::cloud::network::create(state, caller, Kind::Port, body.as_object().unwrap_or(&Map::new()))?;
    let id = text(&made, "id").to_owned();
    state.set(Kind::Port, &id, json!({"~owned": true}));
    Ok(id)
}

fn group_ids(state: &State, caller: &Caller, names: &[&str]) -> Result<Vec<String>> {
    let find = |name: &&str| {
        let mut groups = state.table(Kind::SecurityGroup).find("project_id", &caller.project);
        let found =
            groups.find(|g| text(g, "name") == *name || text(g, "id") == *name).map(|g| text(g, "id").to_owned());
        found.ok_or_else(|| Fault::bad(format!("Security group {name} not found for project {}.", caller.project)))
    };
    names.iter().map(find).collect()
}

pub fn attach_volumes(state: &mut State, caller: &Caller, server: &str, body: &Map<String, Value>) -> Result<()> {
    let devices = list(body, "block_device_mapping_v2");
    if devices.len() > DEVICES_LIMIT {
        return Err(Fault::bad(format!("A server has at most {DEVICES_LIMIT} block devices")));
    }
    let zone =
        state.get(Kind::Server, server).map(|s| text(&s, "OS-EXT-AZ:availability_zone").to_owned()).unwrap_or_default();
    for device in devices {
        let given = |key: &str| device.get(key).and_then(Value::as_str).unwrap_or_default();
        if given("destination_type") != "volume" && given("source_type") != "volume" {
            continue;
        }
        let ends = device.get("delete_on_termination").is_some_and(truthy);
        let volume = match given("source_type") {
            "volume" => {
                let found = state.get(Kind::Volume, given("uuid")).filter(|v| visible(caller, v));
                let found = found.ok_or_else(|| {
                    Fault::bad(format!("Block Device Mapping is Invalid: failed to get volume {}.", given("uuid")))
                })?;
                if text(&found, "status") != "available" {
                    return Err(Fault::bad(format!(
                        "Invalid volume: volume {} status must be 'available'. Currently in '{}'",
                        given("uuid"),
                        text(&found, "status")
                    )));
                }
                given("uuid").to_owned()
            }
            "image" | "blank" => {
                let size = device.get("volume_size").and_then(|v| v.as_i64().or_else(|| v.as_str()?.parse().ok()));
                let size = size.ok_or_else(|| Fault::bad("Block Device Mapping is Invalid: volume_size is needed"))?;
                let mut draft = json!({"size": size, "name": "", "availability_zone": zone});
                if given("source_type") == "image" {
                    draft["imageRef"] = json!(given("uuid"));
                }
                if !given("volume_type").is_empty() {
                    draft["volume_type"] = json!(given("volume_type"));
                }
                block_storage::make(state, caller, draft.as_object().unwrap_or(&Map::new()))?
            }
            other => {
                return Err(Fault::bad(format!(
                    "Block Device Mapping is Invalid: source_type {other:?} is not supported"
                )));
            }
        };
        block_storage::attach(state, &volume, server, ends);
    }
    Ok(())
}

pub fn ports_of(state: &State, server: &str) -> Vec<Arc<Row>> {
    state.table(Kind::Port).find("device_id", server).cloned().collect()
}

/// Frees ports and volumes; deletes those that were made for the server.
pub fn release(state: &mut State, server: &str, volumes: bool) {
    for port in ports_of(state, server) {
        detach_port(state, &port);
    }
    if volumes {
        let ids: Vec<(String, bool)> = state
            .table(Kind::Volume)
            .find("~server_id", server)
            .map(|v| (text(v, "id").to_owned(), flag(v, "~ends_with_server")))
            .collect();
        for (volume, ends) in ids {
            block_storage::detach(state, &volume);
            if ends {
                state.remove(Kind::Volume, &volume);
            }
        }
    }
}

pub fn detach_port(state: &mut State, port: &Row) {
    let id = text(port, "id");
    if flag(port, "~owned") {
        ports::remove(state, id);
    } else {
        let fields = json!({"device_id": "", "device_owner": "", "status": "DOWN", "binding:host_id": "", "binding:vif_type": "unbound"});
        state.set(Kind::Port, id, fields);
    }
}
