//! Subnets: what they span, and the pools that addresses come out of.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Value, json};

use crate::cloud::{
    address::{self, bits, hosts},
    fault::{Fault, Result},
    generic::{self, invalid, invalid_input},
    http::Caller,
    kind::Kind,
    state::State,
    table::{Row, number, text},
};

pub fn create(state: &mut State, caller: &Caller, row: &mut Row) -> Result<()> {
    let network = generic::changeable(state, caller, Kind::Network, text(row, "network_id"))?;
    let Some(cidr) = row.get("cidr").and_then(Value::as_str).map(str::to_owned) else {
        let message = "Bad subnets request: a subnetpool must be specified in the absence of a cidr.";
        return Err(Fault::new(http::StatusCode::BAD_REQUEST, "BadRequest", message));
    };
    let reason = || invalid("cidr", &format!("'{cidr}' is not a valid IP subnet"));
    let net: IpNet = cidr.parse().map_err(|_| reason())?;
    if net != net.trunc() {
        return Err(invalid(
            "cidr",
            &format!("'{cidr}' isn't a recognized IP subnet cidr, '{}' is recommended", net.trunc()),
        ));
    }
    let version = if matches!(net, IpNet::V4(_)) { 4 } else { 6 };
    if number(row, "ip_version") != version {
        return Err(invalid_input(format!("ip_version {} does not match cidr {cidr}", number(row, "ip_version"))));
    }
    for other in state.table(Kind::Subnet).find("network_id", text(&network, "id")) {
        let overlaps = |o: IpNet| o.contains(&net) || net.contains(&o);
        if address::cidr(other).is_some_and(overlaps) {
            let message = format!(
                "Requested subnet with cidr: {cidr} for network: {} overlaps with another subnet",
                text(&network, "id")
            );
            return Err(invalid_input(message));
        }
    }
    row.insert("~public".into(), network.get("~public").cloned().unwrap_or(json!(false)));
    row.insert("project_id".into(), network.get("project_id").cloned().unwrap_or_default());
    row.insert("tenant_id".into(), network.get("project_id").cloned().unwrap_or_default());
    row.insert("subnetpool_id".into(), Value::Null);
    row.insert("segment_id".into(), Value::Null);
    if row.get("gateway_ip").and_then(Value::as_str) == Some("~auto") {
        let (first, last) = hosts(net);
        let gateway = (first <= last).then(|| address::address(first, version == 6));
        row.insert("gateway_ip".into(), json!(gateway));
    }
    check(state, row, true)
}

/// The gateway and pools are addresses of the subnet, in order.
pub fn check(_: &State, row: &mut Row, pools_are_new: bool) -> Result<()> {
    let Some(net) = address::cidr(row) else { return Ok(()) };
    let gateway = match row.get("gateway_ip") {
        None | Some(Value::Null) => None,
        Some(value) => {
            let parsed: Option<IpAddr> = value.as_str().and_then(|s| s.parse().ok());
            let gateway =
                parsed.ok_or_else(|| invalid("gateway_ip", &format!("'{value}' is not a valid IP address")))?;
            if !net.contains(&gateway) && matches!(net, IpNet::V4(_)) {
                return Err(invalid_input(format!("Gateway is not valid on subnet: {gateway} is not in {net}")));
            }
            Some(gateway)
        }
    };
    if row.get("allocation_pools").and_then(Value::as_str) == Some("~auto") {
        row.insert("allocation_pools".into(), address::default_pools(net, gateway));
    } else if pools_are_new {
        let asked = row.get("allocation_pools").and_then(Value::as_array).map_or(0, Vec::len);
        let pools = address::pools(row);
        if pools.len() != asked {
            return Err(invalid("allocation_pools", "a pool has no valid start and end"));
        }
        let (first, last) = hosts(net);
        for (start, end) in pools {
            if start > end || start < first || end > last {
                let message = format!("The allocation pool is not within the subnet {net}, or ends before it starts");
                return Err(Fault::new(http::StatusCode::BAD_REQUEST, "OutOfBoundsAllocationPool", message));
            }
            if gateway.is_some_and(|g| (start..=end).contains(&bits(g))) {
                let message = "Gateway ip conflicts with allocation pool".to_owned();
                return Err(Fault::conflict("GatewayConflictWithAllocationPools", message));
            }
        }
    }
    Ok(())
}

pub fn delete(state: &State, id: &str) -> Result<()> {
    if state.table(Kind::Port).count("fixed_ips[].subnet_id", id) > 0 {
        let message = format!(
            "Unable to complete operation on subnet {id}: One or more ports have an IP allocation from this subnet."
        );
        return Err(Fault::conflict("SubnetInUse", message));
    }
    Ok(())
}
