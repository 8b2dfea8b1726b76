//! What a cloud holds, as lines of text in which two clusters of the same shape are equal.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use openstack::{
    Client, Cloud, Options, Query,
    block_storage::Volume,
    compute::{Server, ServerGroup},
    load_balancer::{HealthMonitor, Listener, LoadBalancer, Member, Pool},
    network::{FloatingIp, Network, Port, Router, SecurityGroup, SecurityGroupRule, Subnet, Trunk},
};
use regex::{Captures, Regex};

/// Longest time that the cloud may take for what it was asked.
const REST_LIMIT: Duration = Duration::from_secs(20);

/// How many there are of each line.
pub type Counts = BTreeMap<String, usize>;

/// One object: what it is for its whole life, and what it is tied to by now.
struct Item {
    what: String,
    ties: String,
}

/// Everything of a project.
pub struct Inventory {
    items: Vec<Item>,
    suffix: Regex,
}

/// A client of the project in which the sandbox's clusters live.
pub fn tenant(clouds_yaml: &Path, name: &str) -> Result<Client> {
    let yaml = std::fs::read(clouds_yaml).with_context(|| format!("read {}", clouds_yaml.display()))?;
    let cloud = Cloud::from_yaml(&yaml, Some(name), None)?;
    Ok(Client::connect(cloud, Options::default())?)
}

impl Inventory {
    /// Once the cloud has carried out what it was asked for. There is no watch: it is read again and again.
    pub async fn at_rest(cloud: &Client) -> Result<Self> {
        let started = Instant::now();
        loop {
            let inventory = Self::read(cloud).await?;
            let mut busy = inventory.items.iter().filter(|i| i.ties.contains("PENDING_") || i.ties.contains("BUILD"));
            match busy.next() {
                None => return Ok(inventory),
                Some(item) if started.elapsed() > REST_LIMIT => {
                    bail!("after {REST_LIMIT:?} the cloud is still at work: {} | {}", item.what, item.ties)
                }
                Some(_) => {}
            }
        }
    }

    pub async fn read(cloud: &Client) -> Result<Self> {
        let mut items = Vec::new();
        // What an id stands for, in words.
        let mut ids = HashMap::new();
        let mut add = |id: &str, kind: &str, name: &str, ties: String| {
            let what = format!("{kind} {name}");
            ids.insert(id.to_owned(), format!("<{what}>"));
            items.push(Item { what, ties });
        };
        network(cloud, &mut add).await?;
        security(cloud, &mut add).await?;
        load_balancer(cloud, &mut add).await?;
        let all = Query::new();
        for server in cloud.list::<Server>(&all).await? {
            let cluster = server.metadata.get("k8s-clusterapi-cluster").cloned().unwrap_or_default();
            add(&server.id, "server", &server.name, format!("of {cluster}, {}", server.status));
        }
        for volume in cloud.list::<Volume>(&all).await? {
            add(&volume.id, "volume", &volume.name, String::new());
        }
        for group in cloud.list::<ServerGroup>(&all).await? {
            add(&group.id, "server group", &group.name, String::new());
        }
        let id = Regex::new("[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}")?;
        let words = |found: &Captures<'_>| ids.get(&found[0]).cloned().unwrap_or_else(|| "<unknown>".to_owned());
        // Twice: an object's name may have ids in it.
        let name = |text: &str| id.replace_all(&id.replace_all(text, &words), &words).into_owned();
        let items = items.iter().map(|item| Item { what: name(&item.what), ties: name(&item.ties) }).collect();
        // Random ends of the names of machines (crates/fleet/src/naming.rs).
        Ok(Self { items, suffix: Regex::new("-[bcdfghjklmnpqrstvwxz2456789]{5}\\b")? })
    }

    fn counts(&self, cluster: &str, line: impl Fn(&Item) -> String) -> Counts {
        let mut counts = Counts::new();
        for item in self.items.iter().filter(|item| has_word(&item.what, cluster) || has_word(&item.ties, cluster)) {
            let line = line(item).replace(cluster, "CLUSTER");
            *counts.entry(self.suffix.replace_all(&line, "-*").into_owned()).or_default() += 1;
        }
        counts
    }

    /// What a cluster has, and what each thing is tied to.
    pub fn of(&self, cluster: &str) -> Counts {
        self.counts(cluster, |item| format!("{} | {}", item.what, item.ties))
    }

    /// What a cluster has so far: what is not tied yet counts too.
    pub fn so_far(&self, cluster: &str) -> Counts {
        self.counts(cluster, |item| item.what.clone())
    }

    /// Everything.
    pub fn all(&self) -> Counts {
        let mut counts = Counts::new();
        for Item { what, ties } in &self.items {
            *counts.entry(format!("{what} | {ties}")).or_default() += 1;
        }
        counts
    }
}

/// Whether a cluster's name is part of the text, and not the beginning or the end of another name.
fn has_word(text: &str, name: &str) -> bool {
    text.match_indices(name).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + name.len()..].chars().next();
        !before.is_some_and(char::is_alphanumeric) && !after.is_some_and(char::is_alphanumeric)
    })
}

type Add<'a> = dyn FnMut(&str, &str, &str, String) + Send + 'a;

async fn network(cloud: &Client, add: &mut Add<'_>) -> Result<()> {
    let all = Query::new();
    for network in cloud.list::<Network>(&all).await? {
        add(&network.id, "network", &network.name, String::new());
    }
    for subnet in cloud.list::<Subnet>(&all).await? {
        add(&subnet.id, "subnet", &subnet.name, format!("{} in {}", subnet.cidr, subnet.network_id));
    }
    for router in cloud.list::<Router>(&all).await? {
        let gateway = router.external_gateway_info.map(|gateway| gateway.network_id).unwrap_or_default();
        add(&router.id, "router", &router.name, format!("to {gateway}"));
    }
    for port in cloud.list::<Port>(&all).await? {
        let owner = if port.device_owner.starts_with("compute:") { "compute" } else { &port.device_owner };
        let mut groups = port.security_groups;
        groups.sort();
        // Ports of routers have no name: they are told by what they stand in.
        let name = if port.name.is_empty() { format!("{owner} in {}", port.network_id) } else { port.name };
        let addresses = port.fixed_ips.len();
        let ties =
            format!("in {} of {owner} {} with {groups:?}, {addresses} addresses", port.network_id, port.device_id);
        add(&port.id, "port", &name, ties);
    }
    for ip in cloud.list::<FloatingIp>(&all).await? {
        let port = ip.port_id.unwrap_or_default();
        add(&ip.id, "floating IP", &ip.description, format!("in {} at {port}", ip.floating_network_id));
    }
    for trunk in cloud.list::<Trunk>(&all).await? {
        add(&trunk.id, "trunk", &trunk.name, format!("at {}", trunk.port_id));
    }
    Ok(())
}

async fn security(cloud: &Client, add: &mut Add<'_>) -> Result<()> {
    let all = Query::new();
    for group in cloud.list::<SecurityGroup>(&all).await? {
        add(&group.id, "security group", &group.name, String::new());
    }
    for rule in cloud.list::<SecurityGroupRule>(&all).await? {
        let text = |field: &Option<String>| field.clone().unwrap_or_else(|| "any".to_owned());
        let name = format!(
            "of {}: {} {} {} {:?}-{:?} group {} prefix {}",
            rule.security_group_id,
            rule.direction,
            rule.ethertype,
            text(&rule.protocol),
            rule.port_range_min,
            rule.port_range_max,
            text(&rule.remote_group_id),
            text(&rule.remote_ip_prefix),
        );
        add(&rule.id, "rule", &name, String::new());
    }
    Ok(())
}

async fn load_balancer(cloud: &Client, add: &mut Add<'_>) -> Result<()> {
    let all = Query::new();
    for balancer in cloud.list::<LoadBalancer>(&all).await? {
        let ties = format!("at {}, {}", balancer.vip_port_id, balancer.provisioning_status);
        add(&balancer.id, "load balancer", &balancer.name, ties);
    }
    for listener in cloud.list::<Listener>(&all).await? {
        let ties = format!("{} {} to {}", listener.protocol, listener.protocol_port, listener.default_pool_id);
        add(&listener.id, "listener", &listener.name, ties);
    }
    for pool in cloud.list::<Pool>(&all).await? {
        add(&pool.id, "pool", &pool.name, format!("{} with {}", pool.protocol, pool.healthmonitor_id));
        for member in cloud.list_in::<Member>(&pool.id, &all).await? {
            add(&member.id, "member", &member.name, format!("of {} port {}", pool.id, member.protocol_port));
        }
    }
    for monitor in cloud.list::<HealthMonitor>(&all).await? {
        add(&monitor.id, "health monitor", &monitor.name, monitor.kind);
    }
    Ok(())
}

/// Each line of which there are not as many as expected; empty if all is as it should be.
pub fn differences(expected: &Counts, found: &Counts) -> Vec<String> {
    let lines = expected.keys().chain(found.keys()).collect::<std::collections::BTreeSet<_>>();
    let count = |counts: &Counts, line: &str| counts.get(line).copied().unwrap_or(0);
    lines
        .into_iter()
        .map(|line| (line, count(expected, line), count(found, line)))
        .filter(|(_, expected, found)| expected != found)
        .map(|(line, expected, found)| format!("expected {expected}, found {found}: {line}"))
        .collect()
}

/// Each line of which there are more than expected.
pub fn surplus(expected: &Counts, found: &Counts) -> Vec<String> {
    let more = found.iter().map(|(line, found)| (line, expected.get(line).copied().unwrap_or(0), found));
    more.filter(|(_, expected, found)| *found > expected)
        .map(|(line, expected, found)| format!("expected at most {expected}, found {found}: {line}"))
        .collect()
}
