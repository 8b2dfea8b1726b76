//! `skep rollout status`: says how far a rollout is, until it is complete.

use std::time::{Duration, Instant};

use anyhow::Result;
use api::{control_plane::KubeadmControlPlane, machine::MachineDeployment};
use kube::Api;

use super::{Named, Object, find};
use crate::{DONE, NOT_FOUND, TIMED_OUT, output};

/// Pause between two looks.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    named: Named,
    /// Say how far it is and return at once
    #[arg(long)]
    no_wait: bool,
    #[arg(long, default_value_t = 1800)]
    timeout_s: u64,
}

/// Numbers of machines, and whether the controller has seen what was asked for last.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    observed: bool,
    wanted: i32,
    total: i32,
    up_to_date: i32,
    available: i32,
}

/// What is waited for; `None` when the rollout is complete.
fn missing(counts: Counts) -> Option<String> {
    let Counts { observed, wanted, total, up_to_date, available } = counts;
    if !observed {
        Some("the controller to see the change".to_owned())
    } else if up_to_date < wanted {
        Some(format!("machines: {up_to_date} of {wanted} are up to date"))
    } else if total > up_to_date {
        Some(format!("{} old machines to go", total - up_to_date))
    } else if total > wanted {
        Some(format!("{} machines too many to go", total - wanted))
    } else if available < wanted {
        Some(format!("machines: {available} of {wanted} are available"))
    } else {
        None
    }
}

pub async fn run(arguments: Arguments) -> Result<u8> {
    let named = &arguments.named;
    let client = named.target.client().await?;
    let started = Instant::now();
    let mut told = String::new();
    loop {
        let namespace = &named.target.namespace;
        let counts = match &named.object {
            Object::Deployment(name) => {
                let api = Api::<MachineDeployment>::namespaced(client.clone(), namespace);
                find(named, &api, name).await?.map(|found| of_deployment(&found))
            }
            Object::ControlPlane(name) => {
                let api = Api::<KubeadmControlPlane>::namespaced(client.clone(), namespace);
                find(named, &api, name).await?.map(|found| of_control_plane(&found))
            }
        };
        let Some(counts) = counts else { return Ok(NOT_FOUND) };
        let Some(word) = missing(counts) else {
            output::line(&format!("{} is rolled out: {} machines", named.object, counts.wanted));
            return Ok(DONE);
        };
        if arguments.no_wait {
            output::line(&format!("{} waits for {word}", named.object));
            return Ok(DONE);
        }
        if started.elapsed().as_secs() >= arguments.timeout_s {
            output::progress(&format!("{} is not rolled out after {} s: {word}", named.object, arguments.timeout_s));
            return Ok(TIMED_OUT);
        }
        if word != told {
            output::progress(&format!("  {:>4} s  waiting for {word}", started.elapsed().as_secs()));
            told = word;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn of_deployment(deployment: &MachineDeployment) -> Counts {
    let status = deployment.status.clone().unwrap_or_default();
    Counts {
        observed: status.observed_generation == deployment.metadata.generation,
        wanted: deployment.spec.replicas.unwrap_or(1),
        total: status.replicas.unwrap_or(0),
        up_to_date: status.up_to_date_replicas.unwrap_or(0),
        available: status.available_replicas.unwrap_or(0),
    }
}

fn of_control_plane(control_plane: &KubeadmControlPlane) -> Counts {
    let status = control_plane.status.clone().unwrap_or_default();
    Counts {
        observed: status.observed_generation == control_plane.metadata.generation,
        wanted: control_plane.spec.replicas.unwrap_or(1),
        total: status.replicas.unwrap_or(0),
        up_to_date: status.up_to_date_replicas.unwrap_or(0),
        available: status.available_replicas.unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollout_is_complete_when_all_machines_are_new_and_available_and_no_old_one_is_left() {
        let done = Counts { observed: true, wanted: 3, total: 3, up_to_date: 3, available: 3 };
        assert_eq!(missing(done), None);
        let word = |counts| missing(counts).unwrap();
        assert_eq!(word(Counts { observed: false, ..done }), "the controller to see the change");
        assert_eq!(word(Counts { up_to_date: 1, ..done }), "machines: 1 of 3 are up to date");
        assert_eq!(word(Counts { total: 4, ..done }), "1 old machines to go");
        assert_eq!(word(Counts { available: 2, ..done }), "machines: 2 of 3 are available");
    }
}
