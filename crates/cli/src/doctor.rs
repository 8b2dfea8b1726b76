//! `skep doctor`: whether a cloud can carry clusters, line by line, with what to do about what is missing.

use std::path::PathBuf;

use anyhow::{Context, Result};
use openstack::{
    Client, Cloud, Query, Service,
    compute::{AvailabilityZone, Flavor, Limits},
    image::Image,
    load_balancer::LoadBalancer,
    network::Network,
};
use serde_json::json;

use crate::{
    DONE, FAILED, Output,
    output::{self, Colour},
};

/// The smallest flavor that kubeadm's preflight check takes for a control plane.
const VCPUS_MIN: u32 = 2;
const RAM_MIN_MIB: u64 = 1700;
/// Machines of a small cluster: 3 and 3.
const SERVERS_MIN: i64 = 6;

/// Which cloud.
#[derive(clap::Args)]
pub struct Place {
    /// Cloud in clouds.yaml
    #[arg(long, env = "OS_CLOUD")]
    cloud: Option<String>,
    /// A clouds.yaml in place of those that OpenStack's clients look for
    #[arg(long, env = "OS_CLIENT_CONFIG_FILE")]
    clouds_yaml: Option<PathBuf>,
}

#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    place: Place,
    /// Image that the machines are to boot from
    #[arg(long)]
    image: Option<String>,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

/// One thing that was looked at.
struct Check {
    what: &'static str,
    ok: bool,
    found: String,
    /// What to do if it is missing.
    mend: String,
}

impl Check {
    fn new(what: &'static str, ok: bool, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { what, ok, found: found.into(), mend: mend.into() }
    }

    fn of<T>(
        what: &'static str,
        looked: &openstack::Result<T>,
        judge: impl Fn(&T) -> (bool, String),
        mend: &str,
    ) -> Self {
        match looked {
            Ok(value) => {
                let (ok, found) = judge(value);
                Self::new(what, ok, found, mend)
            }
            Err(error) => Self::new(what, false, chain(error), mend),
        }
    }
}

pub async fn run(arguments: Arguments) -> Result<u8> {
    let cloud = cloud(&arguments.place)?;
    let client = Client::connect(cloud, options()?).context("set up a client of the cloud")?;
    let checks = examine(&client, arguments.image.as_deref()).await;
    let healthy = checks.iter().all(|check| check.ok);
    if arguments.output == Output::Table {
        for check in &checks {
            let mark = if check.ok {
                output::coloured("ok     ", Colour::Green)
            } else {
                output::coloured("missing", Colour::Red)
            };
            output::line(&format!("{mark}  {:<20} {}", check.what, check.found));
            if !check.ok {
                output::line(&output::coloured(&format!("         {:<20} -> {}", "", check.mend), Colour::Faint));
            }
        }
        let verdict = if healthy { "This cloud can carry clusters." } else { "This cloud cannot carry clusters yet." };
        output::line(verdict);
    } else {
        let rows: Vec<_> = checks
            .iter()
            .map(|check| json!({"check": check.what, "ok": check.ok, "found": check.found, "do": (!check.ok).then_some(&check.mend)}))
            .collect();
        output::document(&json!({"ok": healthy, "checks": rows}), arguments.output)?;
    }
    Ok(if healthy { DONE } else { FAILED })
}

/// The clouds.yaml that was named, for controllers to use, and the cloud in it.
pub fn credentials(place: &Place) -> Result<(String, String)> {
    let path = place.clouds_yaml.as_ref().context("pass --clouds-yaml: the controllers get the credentials in it")?;
    let name = place.cloud.clone().context("pass --cloud: the cloud in clouds.yaml")?;
    Ok((std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?, name))
}

pub fn cloud(place: &Place) -> Result<Cloud> {
    if let Some(path) = &place.clouds_yaml {
        let yaml = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
        return Ok(Cloud::from_yaml(&yaml, place.cloud.as_deref(), None)?);
    }
    let variables = |name: &str| std::env::var(name).ok();
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let current_dir = std::env::current_dir().context("find the current folder")?;
    let search = openstack::clouds::Search { variable: &variables, current_dir: &current_dir, home: home.as_deref() };
    Ok(search.cloud(place.cloud.as_deref())?)
}

/// How clouds are reached from here: through the proxies that the environment names.
pub fn options() -> Result<openstack::Options> {
    let proxies = openstack::Proxies::from_variables(&|name| std::env::var(name).ok())?;
    Ok(openstack::Options { proxies, ..Default::default() })
}

async fn examine(client: &Client, image: Option<&str>) -> Vec<Check> {
    let access = client.access().await;
    let mut checks = vec![Check::of(
        "credentials",
        &access,
        |_| (true, "the identity service gives a token".into()),
        "check auth_url, user, password and project in clouds.yaml; an application credential must not have expired",
    )];
    if access.is_err() {
        return checks;
    }
    for (what, service) in [
        ("compute", Service::Compute),
        ("network", Service::Network),
        ("image", Service::Image),
        ("load balancer", Service::LoadBalancer),
        ("block storage", Service::BlockStorage),
    ] {
        let mend = match service {
            Service::LoadBalancer => {
                "without Octavia a cluster has one control plane machine and its floating IP: create it with --no-load-balancer"
            }
            Service::BlockStorage => "without Cinder machines have no volumes; leave rootVolume out",
            _ => "ask the cloud's operator: this service is not in the catalog of the region",
        };
        let endpoint = client.endpoint(service).await;
        checks.push(Check::of(what, &endpoint, |url| (true, url.clone()), mend));
    }
    let networks = client.list::<Network>(&Query::new().with("router:external", true)).await;
    checks.push(Check::of(
        "external network",
        &networks,
        |networks| {
            let names: Vec<_> = networks.iter().map(|network| format!("{} ({})", network.name, network.id)).collect();
            (!names.is_empty(), if names.is_empty() { "none".into() } else { names.join(", ") })
        },
        "floating IPs come from an external network: ask the operator to share one with the project",
    ));
    let flavors = client.list::<Flavor>(&Query::new()).await;
    checks.push(Check::of(
        "flavor",
        &flavors,
        |flavors| {
            let fit: Vec<_> =
                flavors.iter().filter(|flavor| flavor.vcpus >= VCPUS_MIN && flavor.ram >= RAM_MIN_MIB).collect();
            let names: Vec<_> = fit.iter().take(5).map(|flavor| flavor.name.as_str()).collect();
            (!fit.is_empty(), format!("{} of {} fit a control plane: {}", fit.len(), flavors.len(), names.join(", ")))
        },
        "a control plane machine needs 2 vCPUs and 2 GiB of memory",
    ));
    let images = client.list::<Image>(&image.map_or_else(Query::new, Query::by_name)).await;
    checks.push(Check::of(
        "image",
        &images,
        |images| {
            let usable: Vec<_> =
                images.iter().filter(|image| image.status == "active").map(|image| image.name.as_str()).collect();
            let shown: Vec<_> = usable.iter().take(5).copied().collect();
            (!usable.is_empty(), format!("{} usable: {}", usable.len(), shown.join(", ")))
        },
        "upload an image with kubeadm, kubelet and containerd in it: see docs/guides/your-openstack.md",
    ));
    let zones = client.list::<AvailabilityZone>(&Query::new()).await;
    checks.push(Check::of(
        "zones",
        &zones,
        |zones| {
            let names: Vec<_> =
                zones.iter().filter(|zone| zone.state.available).map(|zone| zone.name.as_str()).collect();
            (!names.is_empty(), names.join(", "))
        },
        "no availability zone takes servers: ask the operator",
    ));
    let limits = client.compute_limits().await;
    checks.push(Check::of(
        "quota",
        &limits,
        quota,
        "ask for a larger quota: 6 servers and 12 vCPUs carry a small cluster",
    ));
    let balancers = client.list::<LoadBalancer>(&Query::new()).await;
    checks.push(Check::of(
        "load balancer use",
        &balancers,
        |balancers| (true, format!("{} in this project", balancers.len())),
        "the project's role must let it use Octavia (load-balancer_member)",
    ));
    checks
}

fn quota(limits: &Limits) -> (bool, String) {
    // -1 is no limit.
    let left = |max: i64, used: i64| if max < 0 { i64::MAX } else { max - used };
    let servers = left(limits.max_total_instances, limits.total_instances_used);
    let cores = left(limits.max_total_cores, limits.total_cores_used);
    let ram = left(limits.max_total_ram, limits.total_ram_used);
    let shown = |left: i64| if left == i64::MAX { "unlimited".to_owned() } else { left.to_string() };
    let text = format!("left: {} servers, {} vCPUs, {} MiB", shown(servers), shown(cores), shown(ram));
    (servers >= SERVERS_MIN && cores >= SERVERS_MIN * 2, text)
}

fn chain(error: &openstack::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}
