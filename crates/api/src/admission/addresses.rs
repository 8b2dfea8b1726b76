//! Claims of addresses, and addresses.
//!
//! Source: kubernetes-sigs/cluster-api core/webhooks/admission/ipaddress.go and ipaddressclaim.go.

use std::net::IpAddr;

use serde_json::Value;

use super::Problem;

/// Neither may change once it is there.
fn fixed(kind: &str, object: &Value, old: &Value, problems: &mut Vec<Problem>) {
    if object["spec"] != old["spec"] {
        problems.push(Problem::forbidden("spec", format!("{kind} spec is immutable")));
    }
}

pub(super) fn claim(object: &Value, old: Option<&Value>, problems: &mut Vec<Problem>) {
    if let Some(old) = old {
        fixed("IPAddressClaim", object, old, problems);
    }
}

pub(super) fn address(object: &Value, old: Option<&Value>, problems: &mut Vec<Problem>) {
    if let Some(old) = old {
        return fixed("IPAddress", object, old, problems);
    }
    let spec = &object["spec"];
    let read = |field: &str| spec[field].as_str().map(str::parse::<IpAddr>);
    let found = read("address");
    if let Some(Err(_)) = &found {
        problems.push(Problem::invalid("spec.address", &spec["address"], "not a valid IP address"));
    }
    let prefix = spec["prefix"].as_i64().unwrap_or_default();
    if prefix < 0 {
        problems.push(Problem::invalid("spec.prefix", &spec["prefix"], "prefix cannot be negative"));
    }
    let most = match found {
        Some(Ok(IpAddr::V4(_))) => Some((32, "IPv4")),
        Some(Ok(IpAddr::V6(_))) => Some((128, "IPv6")),
        _ => None,
    };
    if let Some((_, family)) = most.filter(|(most, _)| prefix > *most) {
        let detail = format!("prefix is too large for an {family} address");
        problems.push(Problem::invalid("spec.prefix", &spec["prefix"], detail));
    }
    if let Some(Err(_)) = read("gateway").filter(|_| spec["gateway"] != "") {
        problems.push(Problem::invalid("spec.gateway", &spec["gateway"], "not a valid IP address"));
    }
}

/// What is wrong with a new address, given the claim that it is for.
pub fn for_claim(address: &Value, claim: &Value) -> Option<Problem> {
    let (own, asked) = (&address["spec"]["poolRef"], &claim["spec"]["poolRef"]);
    let detail = "the referenced pool is different from the pool referenced by the claim this address should fulfill";
    (own != asked).then(|| Problem::invalid("spec.poolRef", own, detail))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::admission::validate;

    fn problems(kind: &str, object: &Value, old: Option<&Value>) -> Vec<String> {
        let found = validate("ipam.cluster.x-k8s.io", kind, object, old);
        found.into_iter().map(|problem| format!("{}: {}", problem.path, problem.detail)).collect()
    }

    #[test]
    fn an_address_is_one_with_a_prefix_of_its_family() {
        let of = |address: &str, prefix: i64, gateway: &str| {
            problems("IPAddress", &json!({"spec": {"address": address, "prefix": prefix, "gateway": gateway}}), None)
        };
        assert_eq!(of("10.0.0.4", 32, "10.0.0.1"), [""; 0]);
        assert_eq!(of("fd00::4", 128, ""), [""; 0]);
        assert_eq!(of("10.0.0.4", 33, "10.0.0.1"), ["spec.prefix: prefix is too large for an IPv4 address"]);
        assert_eq!(of("fd00::4", 129, "fd00::1"), ["spec.prefix: prefix is too large for an IPv6 address"]);
        assert_eq!(of("10.0.0.4", -1, "10.0.0.1"), ["spec.prefix: prefix cannot be negative"]);
        let both = ["spec.address: not a valid IP address", "spec.gateway: not a valid IP address"];
        assert_eq!(of("10.0.0", 24, "gate"), both);
    }

    #[test]
    fn neither_changes_and_an_address_is_of_its_claims_pool() {
        let of = |pool: &str| json!({"spec": {"address": "10.0.0.4", "prefix": 24, "poolRef": {"name": pool}}});
        assert_eq!(problems("IPAddress", &of("b"), Some(&of("a"))), ["spec: IPAddress spec is immutable"]);
        assert_eq!(problems("IPAddressClaim", &of("b"), Some(&of("a"))), ["spec: IPAddressClaim spec is immutable"]);
        assert_eq!(problems("IPAddressClaim", &of("a"), Some(&of("a"))), [""; 0]);
        assert_eq!(for_claim(&of("a"), &of("a")), None);
        assert_eq!(for_claim(&of("b"), &of("a")).unwrap().path, "spec.poolRef");
    }
}
