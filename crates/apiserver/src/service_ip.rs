//! Addresses of services: each that is in use is an IPAddress object, written in the same commit as its service, so two
//! services never get the same one and nothing is scanned to find a free one (KEP-1880).

use std::net::Ipv4Addr;

use bytes::Bytes;
use serde_json::{Value, json};
use store::Op;

use crate::{
    field::FieldError,
    kinds::Kind,
    object::{self, set_at, text_at},
    status::{Error, Result},
    write::{Scope, get, rfc3339},
};

/// How often a random address is tried before the range counts as full.
const TRIES_MAX: usize = 128;

/// The addresses that services are given, as in `10.96.0.0/12`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceRange {
    first: u32,
    count: u32,
}

#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "{0:?} is no range of service addresses: it must be IPv4 in the form 10.96.0.0/12, with a prefix of 8 to 28 bits"
)]
pub struct ServiceRangeError(String);

impl std::str::FromStr for ServiceRange {
    type Err = ServiceRangeError;

    fn from_str(text: &str) -> Result<Self, ServiceRangeError> {
        let parse = || {
            let (address, bits) = text.split_once('/')?;
            let (address, bits): (Ipv4Addr, u32) = (address.parse().ok()?, bits.parse().ok()?);
            let count = (8..=28).contains(&bits).then(|| 1_u32 << (32 - bits))?;
            Some(Self { first: address.to_bits() & !(count - 1), count })
        };
        parse().ok_or_else(|| ServiceRangeError(text.to_owned()))
    }
}

impl ServiceRange {
    fn contains(self, address: Ipv4Addr) -> bool {
        address.to_bits().checked_sub(self.first).is_some_and(|offset| offset < self.count)
    }

    /// Neither the network's own address, nor the first ones, which are asked for by number, nor the broadcast address.
    fn pick(self, random: u128) -> Ipv4Addr {
        let low = 16.min(self.count / 4);
        let span = u128::from(self.count - low - 1);
        let offset = u32::try_from(random % span).unwrap_or(0);
        Ipv4Addr::from_bits(self.first + low + offset)
    }
}

fn is_service(kind: &Kind) -> bool {
    kind.group.is_empty() && kind.plural == "services"
}

fn key(address: &str) -> String {
    format!("{}networking.k8s.io/ipaddresses/{address}", crate::kinds::ROOT)
}

/// Gives a new service its address; the operation that reserves it.
pub(crate) async fn assign(scope: &Scope, service: &mut Value) -> Result<Option<Op>> {
    let Some(range) = scope.server.state().service_range.filter(|_| is_service(&scope.kind)) else { return Ok(None) };
    let asked = text_at(service, &["spec", "clusterIP"]).to_owned();
    if text_at(service, &["spec", "type"]) == "ExternalName" {
        return Ok(None);
    }
    if asked == "None" {
        set_at(service, &["spec", "clusterIPs"], json!(["None"]));
        object::default_at(service, &["spec", "ipFamilies"], json!(["IPv4"]));
        object::default_at(service, &["spec", "ipFamilyPolicy"], "SingleStack".into());
        return Ok(None);
    }
    let address = if asked.is_empty() { free(scope, range).await? } else { check(scope, range, &asked).await? };
    set_at(service, &["spec", "clusterIP"], address.as_str().into());
    set_at(service, &["spec", "clusterIPs"], json!([address]));
    set_at(service, &["spec", "ipFamilies"], json!(["IPv4"]));
    object::default_at(service, &["spec", "ipFamilyPolicy"], "SingleStack".into());
    let reservation = json!({
        "metadata": {
            "name": address, "uid": scope.server.new_uid(), "creationTimestamp": rfc3339(scope.server.now()),
            "labels": {
                "ipaddress.kubernetes.io/ip-family": "IPv4",
                "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
            },
        },
        "spec": {"parentRef": {
            "group": "", "resource": "services", "namespace": scope.namespace, "name": object::name(service),
        }},
    });
    let head = object::head("networking.k8s.io/v1", "IPAddress");
    Ok(Some(Op::Put { key: key(&address).into(), value: object::encode(&head, &reservation).into() }))
}

async fn free(scope: &Scope, range: ServiceRange) -> Result<String> {
    for _ in 0..TRIES_MAX {
        let address = range.pick((scope.server.state().options.random)()).to_string();
        if get(&scope.server, key(&address)).await?.is_none() {
            return Ok(address);
        }
    }
    Err(Error::internal("failed to allocate a serviceIP: range is full"))
}

async fn check(scope: &Scope, range: ServiceRange, asked: &str) -> Result<String> {
    let refuse = |why: &str| {
        let error =
            FieldError::invalid("spec.clusterIPs", json!([asked]), format!("failed to allocate IP {asked}: {why}"));
        Error::invalid("", "Service", &scope.name, &[error])
    };
    let address: Ipv4Addr = asked.parse().map_err(|_| refuse("it is no IPv4 address"))?;
    if !range.contains(address) {
        return Err(refuse("the provided network does not match the current range"));
    }
    let address = address.to_string();
    match get(&scope.server, key(&address)).await? {
        Some(_) => Err(refuse("provided IP is already allocated")),
        None => Ok(address),
    }
}

/// What gives a service's address back when the service goes.
pub(crate) fn release(kind: &Kind, stored: &[u8]) -> Option<Op> {
    if !is_service(kind) {
        return None;
    }
    let service: Value = serde_json::from_slice(stored).ok()?;
    let address: Ipv4Addr = text_at(&service, &["spec", "clusterIP"]).parse().ok()?;
    Some(Op::Delete { key: Bytes::from(key(&address.to_string())) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_and_others_refused() {
        let range: ServiceRange = "10.96.0.5/28".parse().unwrap();
        assert_eq!(range, ServiceRange { first: Ipv4Addr::new(10, 96, 0, 0).to_bits(), count: 16 });
        for random in 0..100 {
            let address = range.pick(random);
            assert!(range.contains(address) && !address.octets().ends_with(&[15]) && address.octets()[3] >= 4);
        }
        for bad in ["", "10.0.0.0", "10.0.0.0/7", "10.0.0.0/29", "fd00::/108", "x/12"] {
            assert!(bad.parse::<ServiceRange>().is_err(), "{bad}");
        }
    }
}
