//! What a cloud is made of when it is new, and how fast it is.

use std::{collections::BTreeMap, time::Duration};

use ipnet::Ipv4Net;
use jiff::Timestamp;

/// A user and the project it works in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    pub user: String,
    pub password: String,
    pub project: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlavorSpec {
    pub name: String,
    pub vcpus: u32,
    pub ram_mib: u32,
    pub disk_gib: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageSpec {
    pub name: String,
    pub min_disk_gib: u32,
    pub min_ram_mib: u32,
    pub tags: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct Options {
    /// Where the cloud is reached, without a slash at the end; goes into the catalog and links.
    pub public_url: String,
    pub region: String,
    /// Floating IPs and routers' gateways come out of it. A part of 127.0.0.0/8 makes them addresses of this machine.
    pub floating_pool: Ipv4Net,
    pub external_network: String,
    pub zones: u8,
    pub hosts_per_zone: u16,
    pub host_vcpus: i64,
    pub host_ram_mib: i64,
    /// From BUILD to ACTIVE.
    pub boot_latency: Duration,
    /// From DELETE to gone; servers and volumes.
    pub delete_latency: Duration,
    /// From PENDING_CREATE to ACTIVE; a change takes a quarter of it.
    pub lb_latency: Duration,
    pub volume_latency: Duration,
    pub images: Vec<ImageSpec>,
    pub flavors: Vec<FlavorSpec>,
    pub volume_types: Vec<String>,
    pub lb_providers: Vec<String>,
    /// Flavors of load balancers, by name.
    pub lb_flavors: Vec<String>,
    /// By the services' own names (`instances`, `cores`, `ram`, `network`, `port`, `floatingip`, `load_balancer`,
    /// `volumes`, ...); what is not named has no limit.
    pub quotas: BTreeMap<String, i64>,
    pub admin: Login,
    pub tenant: Login,
    pub token_life: Duration,
    /// After it was set, a password ends; none: never.
    pub password_life: Option<Duration>,
    /// Makes ids and addresses the same each time; for tests.
    pub seed: Option<u64>,
    /// The wall clock.
    pub clock: fn() -> Timestamp,
}

fn login(user: &str, project: &str) -> Login {
    Login { user: user.to_owned(), password: "sandbox".to_owned(), project: project.to_owned() }
}

impl Default for Options {
    fn default() -> Self {
        let flavor =
            |name: &str, vcpus, ram_mib, disk_gib| FlavorSpec { name: name.to_owned(), vcpus, ram_mib, disk_gib };
        let quotas = [
            ("instances", 10_000),
            ("cores", 100_000),
            ("ram", 1 << 30),
            ("server_groups", 1000),
            ("server_group_members", 1000),
            ("key_pairs", 100),
            ("metadata_items", 128),
            ("images", 1000),
            ("network", 5000),
            ("subnet", 5000),
            ("router", 5000),
            ("port", 50_000),
            ("floatingip", 10_000),
            ("security_group", 20_000),
            ("security_group_rule", 500_000),
            ("trunk", 10_000),
            ("load_balancer", 5000),
            ("listener", 50_000),
            ("pool", 50_000),
            ("member", 50_000),
            ("health_monitor", 50_000),
            ("volumes", 20_000),
            ("gigabytes", 10_000_000),
        ];
        Self {
            public_url: "http://127.0.0.1:5050".to_owned(),
            region: "RegionOne".to_owned(),
            floating_pool: Ipv4Net::new_assert(std::net::Ipv4Addr::new(127, 24, 0, 0), 16),
            external_network: "public".to_owned(),
            zones: 3,
            hosts_per_zone: 8,
            host_vcpus: 4096,
            host_ram_mib: 16 << 20,
            boot_latency: Duration::from_secs(1),
            delete_latency: Duration::from_millis(300),
            lb_latency: Duration::from_secs(1),
            volume_latency: Duration::from_millis(300),
            images: vec![ImageSpec {
                name: "ubuntu-2404-kube".to_owned(),
                min_disk_gib: 0,
                min_ram_mib: 0,
                tags: Vec::new(),
            }],
            flavors: vec![
                flavor("m1.tiny", 1, 512, 1),
                flavor("m1.small", 1, 2048, 20),
                flavor("m1.medium", 2, 4096, 40),
                flavor("m1.large", 4, 8192, 80),
                flavor("m1.xlarge", 8, 16384, 160),
            ],
            volume_types: vec!["standard".to_owned()],
            lb_providers: vec!["octavia".to_owned(), "amphora".to_owned()],
            lb_flavors: vec!["small".to_owned(), "ha".to_owned()],
            quotas: quotas.into_iter().map(|(name, limit)| (name.to_owned(), limit)).collect(),
            admin: login("admin", "admin"),
            tenant: login("demo", "demo"),
            token_life: Duration::from_secs(24 * 3600),
            password_life: None,
            seed: None,
            clock: Timestamp::now,
        }
    }
}

impl Options {
    pub(super) fn check(&self) -> Result<(), String> {
        if self.public_url.ends_with('/') || !self.public_url.starts_with("http") {
            return Err(format!("public_url {:?} is not a URL without a slash at the end", self.public_url));
        }
        if self.zones == 0 || self.zones > 26 || self.hosts_per_zone == 0 {
            return Err("there must be 1 to 26 zones with a host each".to_owned());
        }
        if self.floating_pool.prefix_len() > 29 {
            return Err(format!("floating_pool {} is smaller than a /29", self.floating_pool));
        }
        if self.admin.user == self.tenant.user || self.admin.project == self.tenant.project {
            return Err("administrator and tenant have the same name".to_owned());
        }
        Ok(())
    }

    pub(super) fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// As Nova, Neutron and Glance write it.
    pub(super) fn now_text(&self) -> String {
        self.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }

    pub(super) fn zone_names(&self) -> Vec<String> {
        (1..=self.zones).map(|z| format!("az{z}")).collect()
    }

    pub(super) fn hosts(&self, zone: &str) -> impl Iterator<Item = String> + use<> {
        let zone = zone.to_owned();
        (1..=self.hosts_per_zone).map(move |n| format!("{zone}/host{n}"))
    }

    pub(super) fn clouds_yaml(&self, name: &str) -> String {
        let Self { public_url, region, tenant, admin, .. } = self;
        let entry = |name: &str, login: &Login| {
            let Login { user, password, project } = login;
            format!(
                "  {name}:\n    region_name: {region}\n    identity_api_version: 3\n    auth:\n      auth_url: {public_url}/identity\n      username: {user}\n      password: {password}\n      project_name: {project}\n      user_domain_name: Default\n      project_domain_name: Default\n"
            )
        };
        format!("clouds:\n{}{}", entry(name, tenant), entry(&format!("{name}-admin"), admin))
    }
}
