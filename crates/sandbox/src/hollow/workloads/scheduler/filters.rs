//! Whether a pod may be on a node: the filters in the scheduler's order; the first that refuses says why.

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, Taint};

use super::{Place, affinity, spread, storage};
use crate::hollow::workloads::{
    observed::Observed,
    quantity::{self, Amounts},
};

pub const UNHELPFUL: &str = "Preemption is not helpful for scheduling";
pub const VICTIMLESS: &str = "No preemption victims found for incoming pod";

/// Why a node does not do.
#[derive(Debug, PartialEq)]
pub struct Refusal {
    pub reasons: Vec<String>,
    /// Whether it would do if other pods went.
    pub resolvable: bool,
}

impl Refusal {
    pub fn fixed(reason: impl Into<String>) -> Result<(), Self> {
        Err(Self { reasons: vec![reason.into()], resolvable: false })
    }

    pub fn for_now(reason: impl Into<String>) -> Result<(), Self> {
        Err(Self { reasons: vec![reason.into()], resolvable: true })
    }
}

/// One pod's question to all nodes.
pub struct Cluster<'a> {
    seen: &'a Observed,
    spec: &'a PodSpec,
    requests: Amounts,
    ports: Vec<Port>,
    pod: &'a Pod,
    neighbours: spread::Neighbours<'a>,
}

impl<'a> Cluster<'a> {
    pub fn new(seen: &'a Observed, places: &'a [Place<'a>], pod: &'a Pod, spec: &'a PodSpec) -> Self {
        let neighbours = spread::Neighbours::new(seen, places, pod, spec);
        Self { seen, spec, requests: quantity::requests(spec), ports: ports(spec), pod, neighbours }
    }

    pub fn check(&self, place: &Place<'_>) -> Result<(), Refusal> {
        accepts(place, self.spec)?;
        self.ports_are_free(place)?;
        self.fits(place)?;
        if !storage::is_reachable(self.seen, self.pod, self.spec, place.node) {
            return Refusal::fixed("node(s) didn't match PersistentVolume's node affinity");
        }
        self.neighbours.check(place)
    }

    /// The weights of what the pod would like to be near to, or far from.
    pub fn preference(&self, place: &Place<'_>) -> i32 {
        self.neighbours.preference(place)
    }

    fn ports_are_free(&self, place: &Place<'_>) -> Result<(), Refusal> {
        let taken = || place.pods.iter().filter_map(|pod| pod.spec.as_ref()).flat_map(ports);
        if !self.ports.is_empty() && taken().any(|port| self.ports.iter().any(|own| own.is_same(&port))) {
            return Refusal::for_now("node(s) didn't have free ports for the requested pod ports");
        }
        Ok(())
    }

    fn fits(&self, place: &Place<'_>) -> Result<(), Refusal> {
        let (mut reasons, mut resolvable) = (Vec::new(), true);
        let pods_max = place.room.get("pods").map_or(i128::MAX, |most| most / 1000);
        if place.pods.len() as i128 + 1 > pods_max {
            reasons.push("Too many pods".to_owned());
        }
        for (name, asked) in self.requests.iter().filter(|(_, asked)| **asked > 0) {
            let room = place.room.get(name).copied().unwrap_or(0);
            if *asked > room - place.used.get(name).copied().unwrap_or(0) {
                reasons.push(format!("Insufficient {name}"));
                resolvable &= *asked <= room;
            }
        }
        if reasons.is_empty() { Ok(()) } else { Err(Refusal { reasons, resolvable }) }
    }
}

/// What a node refuses whoever is on it: DaemonSets ask this alone.
pub fn accepts(place: &Place<'_>, spec: &PodSpec) -> Result<(), Refusal> {
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    let cordon = Taint { key: super::nodes::UNSCHEDULABLE.into(), effect: "NoSchedule".into(), ..Taint::default() };
    let cordoned = place.node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true);
    if cordoned && !affinity::is_tolerated(&cordon, tolerations) {
        return Refusal::fixed("node(s) were unschedulable");
    }
    let refused = |taint: &&Taint| {
        taint.effect != "PreferNoSchedule" && taint.key != cordon.key && !affinity::is_tolerated(taint, tolerations)
    };
    if let Some(taint) = place.taints.iter().find(refused) {
        let value = taint.value.as_deref().unwrap_or_default();
        return Refusal::fixed(format!("node(s) had untolerated taint {{{}: {value}}}", taint.key));
    }
    if !affinity::matches(place.node, spec) {
        return Refusal::fixed("node(s) didn't match Pod's node affinity/selector");
    }
    Ok(())
}

/// Taints that would rather not have the pod.
pub fn unwanted_taints(place: &Place<'_>, spec: &PodSpec) -> usize {
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    let soft = place.taints.iter().filter(|taint| taint.effect == "PreferNoSchedule");
    soft.filter(|taint| !affinity::is_tolerated(taint, tolerations)).count()
}

/// A port of the node.
struct Port {
    number: i32,
    protocol: String,
    address: String,
}

impl Port {
    fn is_same(&self, other: &Self) -> bool {
        let any = |address: &str| matches!(address, "" | "0.0.0.0");
        self.number == other.number
            && self.protocol == other.protocol
            && (any(&self.address) || any(&other.address) || self.address == other.address)
    }
}

fn ports(spec: &PodSpec) -> Vec<Port> {
    let own = |container: &Container| container.ports.clone().unwrap_or_default();
    let all = spec.containers.iter().flat_map(own);
    let read = |port: k8s_openapi::api::core::v1::ContainerPort| {
        let number = port.host_port.filter(|number| *number > 0)?;
        let protocol = port.protocol.unwrap_or_else(|| "TCP".to_owned());
        Some(Port { number, protocol, address: port.host_ip.unwrap_or_default() })
    };
    all.filter_map(read).collect()
}
