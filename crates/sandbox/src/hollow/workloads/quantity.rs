//! Amounts of resources.
//!
//! Source: k8s.io/apimachinery/pkg/api/resource (the forms of a quantity).

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Container, PodSpec},
    apimachinery::pkg::api::resource::Quantity,
};

/// Amounts in thousandths, by resource.
pub type Amounts = BTreeMap<String, i128>;

/// In thousandths, rounded up; 0 if it is no quantity.
pub fn milli(quantity: &Quantity) -> i128 {
    let text = quantity.0.trim();
    let end = text.find(|letter: char| !matches!(letter, '0'..='9' | '.' | '+' | '-')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let factor = match suffix {
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "" => 1.0,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => f64::from(1 << 10),
        "Mi" => f64::from(1 << 20),
        "Gi" => f64::from(1 << 30),
        "Ti" => 2f64.powi(40),
        "Pi" => 2f64.powi(50),
        "Ei" => 2f64.powi(60),
        // 1e3, 1E-3.
        exponent => match exponent.strip_prefix(['e', 'E']).and_then(|power| power.parse().ok()) {
            Some(power) => 10f64.powi(power),
            None => 0.0,
        },
    };
    let number: f64 = number.parse().unwrap_or(0.0);
    // Numbers that a double has no place for saturate; what is asked for of them is more than any node has.
    #[allow(clippy::cast_possible_truncation)]
    let milli = (number * factor * 1e3 - 1e-6).ceil() as i128;
    milli.max(0)
}

pub fn amounts(quantities: Option<&BTreeMap<String, Quantity>>) -> Amounts {
    quantities.into_iter().flatten().map(|(name, quantity)| (name.clone(), milli(quantity))).collect()
}

pub fn add(sum: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        *sum.entry(name.clone()).or_default() += amount;
    }
}

fn most(sum: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        let entry = sum.entry(name.clone()).or_default();
        *entry = (*entry).max(*amount);
    }
}

pub fn asked(container: &Container) -> Amounts {
    amounts(container.resources.as_ref().and_then(|resources| resources.requests.as_ref()))
}

/// What a pod asks of its node: its containers together, or the most of those that run before them (KEP-753).
pub fn requests(pod: &PodSpec) -> Amounts {
    let mut running = Amounts::new();
    let mut peak = Amounts::new();
    for container in pod.init_containers.iter().flatten() {
        if container.restart_policy.as_deref() == Some("Always") {
            add(&mut running, &asked(container));
            most(&mut peak, &running);
        } else {
            let mut beside = running.clone();
            add(&mut beside, &asked(container));
            most(&mut peak, &beside);
        }
    }
    for container in &pod.containers {
        add(&mut running, &asked(container));
    }
    most(&mut running, &peak);
    let whole = pod.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    running.extend(amounts(whole));
    add(&mut running, &amounts(pod.overhead.as_ref()));
    running
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn quantities_are_read_in_all_their_forms() {
        for (text, want) in [
            ("1", 1000),
            ("100m", 100),
            ("0.5", 500),
            ("1500u", 2),
            ("1Ki", 1_024_000),
            ("1.5Gi", 1_610_612_736_000),
            ("2e3", 2_000_000),
            ("1E", 1_000_000_000_000_000_000_000),
            ("nonsense", 0),
            ("", 0),
        ] {
            assert_eq!(milli(&Quantity(text.into())), want, "{text}");
        }
    }

    #[test]
    fn a_pod_asks_for_its_containers_or_for_the_most_of_what_runs_before_them() {
        let container = |cpu: &str| json!({"name": "a", "resources": {"requests": {"cpu": cpu}}});
        let sidecar = |cpu: &str| {
            let mut sidecar = container(cpu);
            sidecar["restartPolicy"] = "Always".into();
            sidecar
        };
        let cpu = |spec: serde_json::Value| requests(&serde_json::from_value(spec).unwrap())["cpu"];
        assert_eq!(cpu(json!({"containers": [container("1"), container("500m")]})), 1500);
        assert_eq!(cpu(json!({"initContainers": [container("3")], "containers": [container("1")]})), 3000);
        let with_sidecar = json!({"initContainers": [sidecar("1"), container("3")], "containers": [container("1")]});
        assert_eq!(cpu(with_sidecar), 4000);
        assert_eq!(cpu(json!({"containers": [container("1")], "overhead": {"cpu": "1"}})), 2000);
    }
}
