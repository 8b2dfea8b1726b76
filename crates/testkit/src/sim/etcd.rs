//! What goes wrong with etcd in a step: never so much that most of it is away by our doing. In some steps most of it is away for
//! a while by the fault itself.

use std::time::Duration;

use rand::{Rng, rngs::StdRng};
use sandbox::hollow::{EtcdFault, etcd_calls};

use crate::World;

/// Slower than this, and nobody waits for a member any more.
const SLOW_MS: (u64, u64) = (500, 8_000);
/// Where no machine is, in the network that clusters get.
const NOWHERE: &str = "10.6.0.250";

/// What fails in the etcd of a cluster.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Faults {
    /// The member of one node.
    one: Option<(String, EtcdFault)>,
    /// Members that are down, most of all: there is no quorum until they are back.
    most: Vec<String>,
    /// All members, also those that come.
    all: Option<EtcdFault>,
    /// The member of a node has no space left.
    alarm: Option<String>,
    /// A member is added that never starts: by this one.
    stray: Option<String>,
}

impl Faults {
    /// Faults of a step, and their description. `masters` are the nodes of the control plane; `whole` if nothing else takes one
    /// of them away.
    pub fn draw(rng: &mut StdRng, masters: &[String], whole: bool) -> (Self, String) {
        let mut faults = Self::default();
        if rng.random_bool(0.5) {
            return (faults, String::new());
        }
        let chosen = (!masters.is_empty()).then(|| masters[rng.random_range(0..masters.len())].clone());
        let told = match (rng.random_range(0..8), chosen) {
            // Alone it would be the whole etcd.
            (0..3, Some(node)) if whole && masters.len() >= 3 => {
                faults.one = Some((node.clone(), EtcdFault::Down));
                format!("the member on {node} down")
            }
            (3, Some(node)) => {
                faults.alarm = Some(node.clone());
                format!("an alarm of the member on {node}")
            }
            (4, Some(node)) => {
                faults.stray = Some(node);
                "a member that never starts".to_owned()
            }
            (_, chosen) => {
                let fault = fault(rng);
                let one = rng.random_bool(0.5);
                let of = chosen.filter(|_| one);
                let told = format!("{fault:?} of {}", of.as_deref().unwrap_or("all members"));
                match of {
                    Some(node) => faults.one = Some((node, fault)),
                    None => faults.all = Some(fault),
                }
                told
            }
        };
        (faults, format!("; etcd: {told}"))
    }

    /// In a step without other faults of etcd, most members may be away for a while.
    pub fn draw_most(&mut self, rng: &mut StdRng, masters: &[String], whole: bool) -> String {
        let chosen = rng.random_bool(0.3);
        if !chosen || !whole || masters.is_empty() || *self != Self::default() {
            return String::new();
        }
        let count = rng.random_range(masters.len() / 2 + 1..=masters.len());
        self.most = masters.iter().take(count).cloned().collect();
        format!("; etcd: {count} of {} members down", masters.len())
    }

    pub fn takes_a_member(&self) -> bool {
        matches!(self.one, Some((_, EtcdFault::Down))) || self.takes_most()
    }

    pub fn takes_most(&self) -> bool {
        !self.most.is_empty()
    }

    /// Once, when the step begins.
    pub async fn begin(&self, world: &World) {
        if let Some(node) = &self.alarm {
            let _ = world.hollow.raise_etcd_alarm(node, "NOSPACE").await;
        }
        if let Some(node) = &self.stray {
            let _ = world.hollow.add_etcd_member(node, NOWHERE).await;
        }
    }

    /// Members that have come fail like the others.
    pub fn set(&self, world: &World, masters: &[String]) {
        for node in masters {
            let own = self.one.as_ref().filter(|(name, _)| name == node).map(|(_, fault)| fault);
            let down = self.most.contains(node).then_some(&EtcdFault::Down);
            world.hollow.set_etcd_fault(node, down.or(own).or(self.all.as_ref()).cloned());
        }
    }

    pub async fn end(&mut self, world: &World, masters: &[String]) {
        *self = Self::default();
        self.set(world, masters);
        world.hollow.end_etcd_alarms().await.expect("the store takes what etcd writes");
    }
}

fn fault(rng: &mut StdRng) -> EtcdFault {
    let calls = [etcd_calls::MEMBERS, etcd_calls::REMOVE, etcd_calls::STATUS, etcd_calls::ALARMS, etcd_calls::TRANSFER];
    match rng.random_range(0..4) {
        0 => EtcdFault::Slow(Duration::from_millis(rng.random_range(SLOW_MS.0..=SLOW_MS.1))),
        1 => EtcdFault::Mute,
        _ => EtcdFault::Refuses(calls[rng.random_range(0..calls.len())]),
    }
}
