//! What is asked of one server: actions, metadata, tags, interfaces, volumes.

use serde_json::{Value, json};

use super::{devices, servers, show};
use crate::cloud::{
    block_storage,
    fault::{Fault, Result},
    generic,
    http::{Caller, Reply, Request, visible},
    kind::Kind,
    state::State,
    table::{Row, list, text, values},
};

pub fn handle(state: &mut State, request: &Request, caller: &Caller, row: &Row, rest: &[&str]) -> Result<Reply> {
    let id = text(row, "id");
    match (request.method.as_str(), rest) {
        ("POST", ["action"]) => action(state, request, row),
        ("GET", ["metadata"]) => Ok(Reply::one(200, "metadata", row.get("metadata").cloned().unwrap_or_default())),
        ("POST" | "PUT", ["metadata"]) => {
            let mut all = servers::metadata(request.body.get("metadata"))?;
            if request.method == http::Method::POST {
                let mut old = row.get("metadata").and_then(Value::as_object).cloned().unwrap_or_default();
                old.extend(all);
                all = servers::metadata(Some(&Value::Object(old)))?;
            }
            state.set(Kind::Server, id, json!({ "metadata": all }));
            Ok(Reply::one(200, "metadata", Value::Object(all)))
        }
        ("DELETE", ["metadata", key]) => {
            let mut all = row.get("metadata").and_then(Value::as_object).cloned().unwrap_or_default();
            all.remove(*key).ok_or_else(|| Fault::not_found("MetadataNotFound", "Metadata item was not found"))?;
            state.set(Kind::Server, id, json!({ "metadata": all }));
            Ok(Reply::empty(204))
        }
        (_, ["tags"]) => generic::tags(state, request, Kind::Server, id, None),
        (_, ["tags", tag]) => generic::tags(state, request, Kind::Server, id, Some(tag)),
        (_, ["os-interface", rest @ ..]) => interfaces(state, request, caller, id, rest),
        (_, ["os-volume_attachments", rest @ ..]) => volumes(state, request, caller, id, rest),
        ("GET", ["os-security-groups"]) => {
            let ids: Vec<String> =
                devices::ports_of(state, id).iter().flat_map(|p| values(p, "security_groups[]")).collect();
            let groups = ids.iter().filter_map(|g| state.get(Kind::SecurityGroup, g));
            let groups: Vec<Value> = groups.map(|g| json!({"id": text(&g, "id"), "name": text(&g, "name"), "description": text(&g, "description"), "tenant_id": text(&g, "project_id"), "rules": []})).collect();
            Ok(Reply::one(200, "security_groups", json!(groups)))
        }
        ("GET", ["ips"]) => {
            let view = show::view(state, request, caller, row);
            Ok(Reply::one(200, "addresses", view.get("addresses").cloned().unwrap_or_default()))
        }
        ("GET", ["os-instance-actions"]) => Ok(Reply::ok(json!({"instanceActions": []}))),
        ("GET", ["diagnostics"]) => Ok(Reply::ok(json!({}))),
        _ => Err(Fault::no_route()),
    }
}

fn action(state: &mut State, request: &Request, row: &Row) -> Result<Reply> {
    let id = text(row, "id");
    let name = request.body.as_object().and_then(|b| b.keys().next()).cloned().unwrap_or_default();
    let status = text(row, "status");
    let wrong = || {
        let message =
            format!("Cannot '{name}' instance {id} while it is in vm_state {}", text(row, "OS-EXT-STS:vm_state"));
        Fault::conflict("InstanceInvalidState", message)
    };
    let now = state.options.now_text();
    let fields = match (name.as_str(), status) {
        ("os-getConsoleOutput", _) => {
            let text = row.get("~console").and_then(Value::as_str).unwrap_or_default();
            let wanted = request.body.get(&name).and_then(|b| b.get("length")).and_then(Value::as_u64);
            let lines: Vec<&str> = text.lines().collect();
            let skip = wanted.map_or(0, |n| lines.len().saturating_sub(usize::try_from(n).unwrap_or(usize::MAX)));
            return Ok(Reply::ok(json!({"output": lines.get(skip..).unwrap_or_default().join("\n")})));
        }
        ("os-stop", "ACTIVE") => {
            json!({"status": "SHUTOFF", "OS-EXT-STS:vm_state": "stopped", "OS-EXT-STS:power_state": 4})
        }
        ("os-start", "SHUTOFF") => {
            json!({"status": "ACTIVE", "OS-EXT-STS:vm_state": "active", "OS-EXT-STS:power_state": 1})
        }
        ("reboot", "ACTIVE") => json!({"~boots": crate::cloud::table::number(row, "~boots") + 1}),
        ("reboot", "SHUTOFF") => {
            json!({"status": "ACTIVE", "OS-EXT-STS:vm_state": "active", "OS-EXT-STS:power_state": 1})
        }
        ("lock", _) => json!({"~locked": true}),
        ("unlock", _) => json!({"~locked": false}),
        ("forceDelete", _) => {
            servers::delete(state, id);
            return Ok(Reply::empty(202));
        }
        ("addSecurityGroup" | "removeSecurityGroup", _) => return group(state, request, row, &name),
        ("os-stop" | "os-start" | "reboot", _) => return Err(wrong()),
        _ => return Err(Fault::bad(format!("There is no such action: {name}. Or this cloud does not have it"))),
    };
    state.set(Kind::Server, id, fields);
    state.set(Kind::Server, id, json!({ "updated": now }));
    Ok(Reply::empty(202))
}

fn group(state: &mut State, request: &Request, row: &Row, action: &str) -> Result<Reply> {
    let name = request.body.get(action).and_then(|b| b.get("name")).and_then(Value::as_str).unwrap_or_default();
    let mut groups = state.table(Kind::SecurityGroup).find("project_id", text(row, "project_id"));
    let found = groups.find(|g| text(g, "name") == name || text(g, "id") == name).map(|g| text(g, "id").to_owned());
    drop(groups);
    let found =
        found.ok_or_else(|| Fault::not_found("SecurityGroupNotFound", format!("Security group {name} not found.")))?;
    for port in devices::ports_of(state, text(row, "id")) {
        let mut ids = values(&port, "security_groups[]");
        ids.retain(|g| *g != found);
        if action == "addSecurityGroup" {
            ids.push(found.clone());
        }
        state.set(Kind::Port, text(&port, "id"), json!({ "security_groups": ids }));
    }
    Ok(Reply::empty(202))
}

fn interfaces(state: &mut State, request: &Request, caller: &Caller, server: &str, rest: &[&str]) -> Result<Reply> {
    let show = |port: &Row| {
        json!({"port_id": text(port, "id"), "net_id": text(port, "network_id"), "mac_addr": text(port, "mac_address"),
               "port_state": text(port, "status"), "fixed_ips": port.get("fixed_ips").cloned().unwrap_or_default(), "tag": null})
    };
    match (request.method.as_str(), rest) {
        ("GET", []) => {
            let ports = devices::ports_of(state, server);
            Ok(Reply::one(200, "interfaceAttachments", ports.iter().map(|p| show(p)).collect()))
        }
        ("POST", []) => {
            let body = request.object("interfaceAttachment")?;
            let given = |key: &str| body.get(key).and_then(Value::as_str);
            let ip = list(body, "fixed_ips").first().and_then(|f| f.get("ip_address")).and_then(Value::as_str);
            let port = devices::attach_port(state, caller, server, given("port_id"), given("net_id"), ip, &[])?;
            if let Some(row) = state.get(Kind::Server, server).filter(|s| text(s, "status") == "ACTIVE") {
                state.set(Kind::Port, &port, json!({"status": "ACTIVE", "binding:host_id": text(&row, "~host")}));
            }
            let port = generic::seen(state, caller, Kind::Port, &port)?;
            Ok(Reply::one(200, "interfaceAttachment", show(&port)))
        }
        (method, [port]) => {
            let found = devices::ports_of(state, server).into_iter().find(|p| text(p, "id") == *port);
            let found = found
                .ok_or_else(|| Fault::not_found("PortNotFound", format!("Port {port} is not attached to {server}.")))?;
            match method {
                "GET" => Ok(Reply::one(200, "interfaceAttachment", show(&found))),
                "DELETE" => {
                    devices::detach_port(state, &found);
                    Ok(Reply::empty(202))
                }
                _ => Err(Fault::method()),
            }
        }
        _ => Err(Fault::no_route()),
    }
}

fn volumes(state: &mut State, request: &Request, caller: &Caller, server: &str, rest: &[&str]) -> Result<Reply> {
    let show = |v: &Row| json!({"id": text(v, "id"), "volumeId": text(v, "id"), "serverId": server, "device": text(v, "~device"), "tag": null, "delete_on_termination": crate::cloud::table::flag(v, "~ends_with_server"), "attachment_id": text(v, "id"), "bdm_uuid": text(v, "id")});
    match (request.method.as_str(), rest) {
        ("GET", []) => {
            let volumes = state.table(Kind::Volume).find("~server_id", server);
            Ok(Reply::one(200, "volumeAttachments", volumes.map(|v| show(v)).collect()))
        }
        ("POST", []) => {
            let body = request.object("volumeAttachment")?;
            let volume = body.get("volumeId").and_then(Value::as_str).unwrap_or_default();
            let found = state.get(Kind::Volume, volume).filter(|v| visible(caller, v));
            let found = found
                .ok_or_else(|| Fault::not_found("VolumeNotFound", format!("Volume {volume} could not be found.")))?;
            if text(&found, "status") != "available" {
                return Err(Fault::bad(format!(
                    "Invalid volume: volume {volume} status must be available. Currently in {}",
                    text(&found, "status")
                )));
            }
            block_storage::attach(state, volume, server, false);
            let found = generic::seen(state, caller, Kind::Volume, volume)?;
            Ok(Reply::one(200, "volumeAttachment", show(&found)))
        }
        (method, [volume]) => {
            let found = state.get(Kind::Volume, volume).filter(|v| text(v, "~server_id") == server);
            let found =
                found.ok_or_else(|| Fault::not_found("VolumeNotFound", format!("volume_id not found: {volume}")))?;
            match method {
                "GET" => Ok(Reply::one(200, "volumeAttachment", show(&found))),
                "DELETE" => {
                    block_storage::detach(state, volume);
                    Ok(Reply::empty(202))
                }
                _ => Err(Fault::method()),
            }
        }
        _ => Err(Fault::no_route()),
    }
}
