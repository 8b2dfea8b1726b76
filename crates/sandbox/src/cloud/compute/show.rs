//! A server as the API shows it.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{devices::ports_of, links};
use crate::cloud::{
    http::{Caller, Request, shown},
    kind::Kind,
    state::State,
    table::{Row, flag, number, text, values},
};

/// A server as `GET /servers/{id}` shows it at the caller's microversion.
pub fn view(state: &State, request: &Request, caller: &Caller, row: &Row) -> Row {
    let version = request.microversion;
    let mut out = shown(row);
    let id = text(row, "id");
    out.remove("project_id");
    out.insert("links".into(), links(&state.options, "servers", id));
    let ports = ports_of(state, id);
    out.insert("addresses".into(), addresses(state, &ports));
    let mut names: Vec<String> = ports.iter().flat_map(|p| values(p, "security_groups[]")).collect();
    names.sort();
    names.dedup();
    let name = |g: &String| state.get(Kind::SecurityGroup, g).map(|g| json!({"name": text(&g, "name")}));
    if text(row, "status") != "ERROR" {
        out.insert("security_groups".into(), names.iter().filter_map(name).collect());
    }
    let flavor = text(row, "~flavor_id");
    out.insert("flavor".into(), if version >= 47 {
        json!({"original_name": text(row, "~flavor_name"), "vcpus": number(row, "~vcpus"), "ram": number(row, "~ram"),
               "disk": number(row, "~disk"), "ephemeral": 0, "swap": 0, "extra_specs": {}})
    } else {
        json!({"id": flavor, "links": links(&state.options, "flavors", flavor)})
    });
    let image = text(row, "~image_id");
    out.insert(
        "image".into(),
        if image.is_empty() {
            json!("")
        } else {
            json!({"id": image, "links": links(&state.options, "images", image)})
        },
    );
    let volumes = state.table(Kind::Volume).find("~server_id", id);
    let volumes: Vec<Value> =
        volumes.map(|v| json!({"id": text(v, "id"), "delete_on_termination": flag(v, "~ends_with_server")})).collect();
    out.insert("os-extended-volumes:volumes_attached".into(), json!(volumes));
    let host = text(row, "~host");
    let host_id = if host.is_empty() {
        String::new()
    } else {
        uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, host.as_bytes()).simple().to_string()
    };
    for (key, value) in [
        ("hostId", json!(host_id)),
        ("accessIPv4", json!("")),
        ("accessIPv6", json!("")),
        ("progress", json!(0)),
        ("OS-DCF:diskConfig", json!("MANUAL")),
    ] {
        out.insert(key.into(), value);
    }
    out.entry("OS-SRV-USG:launched_at").or_insert(Value::Null);
    out.insert("OS-SRV-USG:terminated_at".into(), Value::Null);
    if version < 26 {
        out.remove("tags");
    }
    if version >= 9 {
        out.insert("locked".into(), json!(flag(row, "~locked")));
    }
    if version >= 19 {
        out.insert("description".into(), row.get("~description").cloned().unwrap_or_default());
    }
    if version >= 63 {
        out.insert("trusted_image_certificates".into(), Value::Null);
    }
    if version >= 71 {
        let group = text(row, "~group");
        out.insert("server_groups".into(), if group.is_empty() { json!([]) } else { json!([group]) });
    }
    if version >= 90 || (version >= 3 && caller.admin) {
        out.insert("OS-EXT-SRV-ATTR:hostname".into(), json!(text(row, "~hostname")));
    }
    if caller.admin {
        out.insert("OS-EXT-SRV-ATTR:host".into(), json!(host));
        out.insert("OS-EXT-SRV-ATTR:hypervisor_hostname".into(), json!(host));
        out.insert("OS-EXT-SRV-ATTR:instance_name".into(), json!(format!("instance-{:08x}", number(row, "~seq"))));
        if version >= 3 {
            out.insert("OS-EXT-SRV-ATTR:user_data".into(), row.get("~user_data").cloned().unwrap_or_default());
            for key in ["reservation_id", "kernel_id", "ramdisk_id"] {
                out.insert(format!("OS-EXT-SRV-ATTR:{key}"), json!(""));
            }
            out.insert("OS-EXT-SRV-ATTR:launch_index".into(), json!(0));
            out.insert("OS-EXT-SRV-ATTR:root_device_name".into(), json!("/dev/vda"));
        }
    }
    out
}

/// By network name: the ports' addresses, and the floating ones behind them.
fn addresses(state: &State, ports: &[Arc<Row>]) -> Value {
    let mut all: Map<String, Value> = Map::new();
    for port in ports {
        let network = state.get(Kind::Network, text(port, "network_id"));
        let name = network.as_ref().map(|n| text(n, "name")).unwrap_or_default().to_owned();
        let Value::Array(here) = all.entry(name).or_insert_with(|| json!([])) else { continue };
        let mac = text(port, "mac_address");
        let one = |ip: &str, kind: &str| json!({"addr": ip, "version": if ip.contains(':') { 6 } else { 4 }, "OS-EXT-IPS:type": kind, "OS-EXT-IPS-MAC:mac_addr": mac});
        here.extend(values(port, "fixed_ips[].ip_address").iter().map(|ip| one(ip, "fixed")));
        let floating = state.table(Kind::FloatingIp).find("port_id", text(port, "id"));
        here.extend(floating.map(|f| one(text(f, "floating_ip_address"), "floating")));
    }
    Value::Object(all)
}
