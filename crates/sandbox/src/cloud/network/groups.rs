//! Security groups and their rules.

use ipnet::IpNet;
use serde_json::{Map, Value, json};

use crate::cloud::{
    fault::{Fault, Result},
    generic::{self, invalid, invalid_input},
    http::Caller,
    kind::Kind,
    state::State,
    table::{Row, text},
};

const DEFAULT: &str = "default";

pub fn default_of(state: &State, project: &str) -> Option<String> {
    let mut groups = state.table(Kind::SecurityGroup).find("project_id", project);
    groups.find(|g| text(g, "name") == DEFAULT).map(|g| text(g, "id").to_owned())
}

/// Each project has a default group from its first call on.
pub fn ensure_default(state: &mut State, project: &str) {
    if project.is_empty() || default_of(state, project).is_some() {
        return;
    }
    let system = Caller { user: String::new(), project: project.to_owned(), admin: true, restricted: false };
    let body = json!({"name": DEFAULT, "description": "Default security group"});
    let Ok(mut row) = generic::build(state, &system, Kind::SecurityGroup, body.as_object().unwrap_or(&Map::new()))
    else {
        return;
    };
    let id = text(&row, "id").to_owned();
    open(state, &mut row);
    for ethertype in ["IPv4", "IPv6"] {
        rule(state, &row, "ingress", ethertype, Some(&id));
    }
    state.put(Kind::SecurityGroup, row);
}

pub fn create(state: &mut State, row: &mut Row) -> Result<()> {
    if text(row, "name") == DEFAULT {
        return Err(Fault::conflict("SecurityGroupDefaultAlreadyExists", "Default security group already exists."));
    }
    open(state, row);
    Ok(())
}

/// The rules that let everything out.
fn open(state: &mut State, group: &mut Row) {
    group.insert("shared".into(), json!(false));
    for ethertype in ["IPv4", "IPv6"] {
        rule(state, group, "egress", ethertype, None);
    }
}

fn rule(state: &mut State, group: &Row, direction: &str, ethertype: &str, remote_group: Option<&str>) {
    let id = state.uuid();
    let now = state.options.now_text();
    let row = json!({
        "id": id, "security_group_id": text(group, "id"), "project_id": text(group, "project_id"),
        "tenant_id": text(group, "project_id"), "direction": direction, "ethertype": ethertype, "protocol": null,
        "port_range_min": null, "port_range_max": null, "remote_group_id": remote_group, "remote_ip_prefix": null,
        "remote_address_group_id": null, "normalized_cidr": null, "belongs_to_default_sg": text(group, "name") == DEFAULT,
        "description": null, "created_at": now, "updated_at": now, "revision_number": 0, "tags": [],
    });
    if let Value::Object(row) = row {
        state.put(Kind::SecurityGroupRule, row);
    }
}

pub fn update(old: &Row, body: &Map<String, Value>) -> Result<()> {
    if text(old, "name") == DEFAULT && body.contains_key("name") {
        return Err(Fault::conflict(
            "SecurityGroupCannotUpdateDefault",
            "Updating default security group not allowed.",
        ));
    }
    Ok(())
}

pub fn delete(state: &mut State, caller: &Caller, id: &str) -> Result<()> {
    if state.table(Kind::Port).count("security_groups[]", id) > 0 {
        return Err(Fault::conflict("SecurityGroupInUse", format!("Security Group {id} in use.")));
    }
    let group = generic::seen(state, caller, Kind::SecurityGroup, id)?;
    if text(&group, "name") == DEFAULT && !caller.admin {
        return Err(Fault::conflict(
            "SecurityGroupCannotRemoveDefault",
            "Insufficient rights for removing default security group.",
        ));
    }
    let rules = |state: &State, field: &str| -> Vec<String> {
        state.table(Kind::SecurityGroupRule).find(field, id).map(|r| text(r, "id").to_owned()).collect()
    };
    for rule in rules(state, "security_group_id").into_iter().chain(rules(state, "remote_group_id")) {
        state.remove(Kind::SecurityGroupRule, &rule);
    }
    Ok(())
}

const PROTOCOLS: &[&str] = &[
    "ah",
    "any",
    "dccp",
    "egp",
    "esp",
    "gre",
    "hopopt",
    "icmp",
    "igmp",
    "ip",
    "ipip",
    "ipv6-encap",
    "ipv6-frag",
    "ipv6-icmp",
    "icmpv6",
    "ipv6-nonxt",
    "ipv6-opts",
    "ipv6-route",
    "ospf",
    "pgm",
    "rsvp",
    "sctp",
    "tcp",
    "udp",
    "udplite",
    "vrrp",
];

pub fn create_rule(state: &mut State, caller: &Caller, row: &mut Row) -> Result<()> {
    let group = generic::changeable(state, caller, Kind::SecurityGroup, text(row, "security_group_id"))?;
    if !matches!(text(row, "direction"), "ingress" | "egress") {
        return Err(invalid("direction", &format!("'{}' is not in ['ingress', 'egress']", text(row, "direction"))));
    }
    let ethertype = match text(row, "ethertype").to_ascii_lowercase().as_str() {
        "ipv4" | "" => "IPv4",
        "ipv6" => "IPv6",
        other => return Err(invalid("ethertype", &format!("'{other}' is not IPv4 or IPv6"))),
    };
    row.insert("ethertype".into(), json!(ethertype));
    check_protocol(row)?;
    let given =
        |row: &Row, key: &str| row.get(key).and_then(Value::as_str).filter(|s| !s.is_empty()).map(str::to_owned);
    match (given(row, "remote_ip_prefix"), given(row, "remote_group_id")) {
        (Some(_), Some(_)) => {
            let message = "Only remote_ip_prefix or remote_group_id may be provided.";
            return Err(Fault::new(
                http::StatusCode::BAD_REQUEST,
                "SecurityGroupRemoteGroupAndRemoteIpPrefix",
                message,
            ));
        }
        (Some(prefix), None) => {
            let net: Option<IpNet> =
                prefix.parse().ok().or_else(|| prefix.parse::<std::net::IpAddr>().ok().map(IpNet::from));
            let net =
                net.ok_or_else(|| invalid("remote_ip_prefix", &format!("'{prefix}' is not a valid IP subnet")))?;
            if matches!(net, IpNet::V4(_)) != (ethertype == "IPv4") {
                let message = format!("Conflicting value ethertype {ethertype} for CIDR {prefix}");
                return Err(Fault::new(http::StatusCode::BAD_REQUEST, "SecurityGroupRuleParameterConflict", message));
            }
            row.insert("remote_ip_prefix".into(), json!(net.to_string()));
        }
        (None, Some(remote)) => drop(generic::seen(state, caller, Kind::SecurityGroup, &remote)?),
        (None, None) => {}
    }
    let same = [
        "direction",
        "ethertype",
        "protocol",
        "port_range_min",
        "port_range_max",
        "remote_group_id",
        "remote_ip_prefix",
    ];
    let mut rules = state.table(Kind::SecurityGroupRule).find("security_group_id", text(&group, "id"));
    if let Some(twin) = rules.find(|r| same.iter().all(|k| r.get(*k) == row.get(*k))) {
        let message = format!("Security group rule already exists. Rule id is {}.", text(twin, "id"));
        return Err(Fault::conflict("SecurityGroupRuleExists", message));
    }
    row.insert("project_id".into(), json!(text(&group, "project_id")));
    row.insert("tenant_id".into(), json!(text(&group, "project_id")));
    row.insert("normalized_cidr".into(), row.get("remote_ip_prefix").cloned().unwrap_or_default());
    row.insert("remote_address_group_id".into(), Value::Null);
    row.insert("belongs_to_default_sg".into(), json!(text(&group, "name") == DEFAULT));
    Ok(())
}

fn check_protocol(row: &mut Row) -> Result<()> {
    let protocol = match row.get("protocol").cloned().unwrap_or_default() {
        Value::Null => None,
        Value::Number(n) => Some(n.to_string()),
        Value::String(s) if s.is_empty() || s.eq_ignore_ascii_case("any") => None,
        Value::String(s) => Some(s.to_ascii_lowercase()),
        other => return Err(invalid("protocol", &format!("'{other}' is not a protocol"))),
    };
    if let Some(name) = &protocol
        && !PROTOCOLS.contains(&name.as_str())
        && name.parse::<u8>().is_err()
    {
        let message = format!(
            "Security group rule protocol {name} not supported. Only protocol values {PROTOCOLS:?} and integer representations [0 to 255] are supported."
        );
        return Err(Fault::new(http::StatusCode::BAD_REQUEST, "SecurityGroupRuleInvalidProtocol", message));
    }
    row.insert("protocol".into(), json!(protocol));
    let port = |key: &str| -> Result<Option<i64>> {
        match row.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                let number = value.as_i64().or_else(|| value.as_str()?.parse().ok());
                number
                    .filter(|n| (0..=65535).contains(n))
                    .map(Some)
                    .ok_or_else(|| invalid(key, &format!("'{value}' is not a port")))
            }
        }
    };
    let (min, max) = (port("port_range_min")?, port("port_range_max")?);
    let is_icmp = protocol.as_deref().is_some_and(|p| p.contains("icmp") || p == "1" || p == "58");
    let has_ports = protocol
        .as_deref()
        .is_some_and(|p| matches!(p, "tcp" | "udp" | "sctp" | "dccp" | "udplite" | "6" | "17" | "132"));
    if (min.is_some() || max.is_some()) && !has_ports && !is_icmp {
        return Err(invalid_input("Must also specify protocol if port range is given"));
    }
    if has_ports && (min.is_some() != max.is_some() || min > max) {
        let message = "Invalid port range: port_range_min must be <= port_range_max.";
        return Err(Fault::new(http::StatusCode::BAD_REQUEST, "SecurityGroupInvalidPortRange", message));
    }
    row.insert("port_range_min".into(), json!(min));
    row.insert("port_range_max".into(), json!(max));
    Ok(())
}
