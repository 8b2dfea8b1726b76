//! Addresses as numbers, subnets and their pools.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde_json::{Value, json};

use super::table::{Row, list, text};

pub fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => u128::from(u32::from(a)),
        IpAddr::V6(a) => u128::from(a),
    }
}

pub fn address(bits: u128, v6: bool) -> IpAddr {
    if v6 { Ipv6Addr::from(bits).into() } else { Ipv4Addr::from(u32::try_from(bits).unwrap_or(u32::MAX)).into() }
}

/// First and last host address of a subnet.
pub fn hosts(net: IpNet) -> (u128, u128) {
    let (first, last) = (bits(net.network()), bits(net.broadcast()));
    let spare = u128::from(net.max_prefix_len() - net.prefix_len() > 1);
    match net {
        IpNet::V4(_) => (first + spare, last - spare),
        // The all-zeros address is the routers' anycast address; there is no broadcast address.
        IpNet::V6(_) => (first + spare, last),
    }
}

pub fn cidr(subnet: &Row) -> Option<IpNet> {
    text(subnet, "cidr").parse().ok()
}

/// A subnet's allocation pools.
pub fn pools(subnet: &Row) -> Vec<(u128, u128)> {
    let bound = |pool: &Value, key: &str| pool.get(key)?.as_str()?.parse::<IpAddr>().ok().map(bits);
    list(subnet, "allocation_pools").iter().filter_map(|p| Some((bound(p, "start")?, bound(p, "end")?))).collect()
}

/// The pools of a subnet for which none were asked: all hosts without the gateway.
pub fn default_pools(net: IpNet, gateway: Option<IpAddr>) -> Value {
    let v6 = matches!(net, IpNet::V6(_));
    let (first, last) = hosts(net);
    let mut spans = vec![(first, last)];
    if let Some(gateway) = gateway.map(bits).filter(|g| (first..=last).contains(g)) {
        spans = Vec::new();
        if gateway > first {
            spans.push((first, gateway - 1));
        }
        if gateway < last {
            spans.push((gateway + 1, last));
        }
    }
    spans.into_iter().map(|(a, b)| json!({"start": address(a, v6), "end": address(b, v6)})).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_leave_out_network_gateway_and_broadcast() {
        let net = "10.6.0.0/29".parse().unwrap();
        let pools = default_pools(net, Some("10.6.0.1".parse().unwrap()));
        assert_eq!(pools, json!([{"start": "10.6.0.2", "end": "10.6.0.6"}]));
        let pools = default_pools(net, Some("10.6.0.3".parse().unwrap()));
        assert_eq!(pools, json!([{"start": "10.6.0.1", "end": "10.6.0.2"}, {"start": "10.6.0.4", "end": "10.6.0.6"}]));
        let six = default_pools("fd00::/64".parse().unwrap(), None);
        assert_eq!(six, json!([{"start": "fd00::1", "end": "fd00::ffff:ffff:ffff:ffff"}]));
    }
}
