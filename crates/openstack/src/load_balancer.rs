//! Octavia v2.

use crate::resource::Writes;

wire! {
    pub struct LoadBalancer {
        pub id: String,
        pub name: String,
        pub description: String,
        pub project_id: String,
        /// `PENDING_CREATE`, `PENDING_UPDATE`, `PENDING_DELETE`, `ACTIVE`, `ERROR`, `DELETED`. Only `ACTIVE` and `ERROR`
        /// take changes; the others answer 409.
        pub provisioning_status: String,
        /// `ONLINE`, `OFFLINE`, `DEGRADED`, `ERROR`, `NO_MONITOR`, `DRAINING`.
        pub operating_status: String,
        pub vip_address: String,
        pub vip_port_id: String,
        pub vip_subnet_id: String,
        pub vip_network_id: String,
        pub provider: String,
        pub flavor_id: String,
        pub availability_zone: String,
        pub listeners: Vec<Id>,
        pub pools: Vec<Id>,
        pub tags: Vec<String>,
        pub created_at: String,
    }

    pub struct Id {
        pub id: String,
    }

    pub struct Listener {
        pub id: String,
        pub name: String,
        pub provisioning_status: String,
        pub operating_status: String,
        pub protocol: String,
        pub protocol_port: u16,
        pub default_pool_id: String,
        pub allowed_cidrs: Vec<String>,
        pub loadbalancers: Vec<Id>,
        pub tags: Vec<String>,
    }

    pub struct Pool {
        pub id: String,
        pub name: String,
        pub provisioning_status: String,
        pub operating_status: String,
        pub protocol: String,
        pub lb_algorithm: String,
        pub healthmonitor_id: String,
        pub listeners: Vec<Id>,
        pub loadbalancers: Vec<Id>,
        pub members: Vec<Id>,
        pub tags: Vec<String>,
    }

    pub struct Member {
        pub id: String,
        pub name: String,
        pub provisioning_status: String,
        pub operating_status: String,
        pub address: String,
        pub protocol_port: u16,
        pub subnet_id: String,
        pub weight: Option<u32>,
        pub tags: Vec<String>,
    }

    pub struct HealthMonitor {
        pub id: String,
        pub name: String,
        pub provisioning_status: String,
        #[serde(rename = "type")]
        pub kind: String,
        pub delay: u32,
        pub timeout: u32,
        pub max_retries: u32,
        pub max_retries_down: u32,
        pub pools: Vec<Id>,
        pub tags: Vec<String>,
    }

    pub struct Provider {
        pub name: String,
        pub description: String,
    }

    pub struct Flavor {
        pub id: String,
        pub name: String,
        pub enabled: Option<bool>,
    }
}

resource!(LoadBalancer, LoadBalancer, "lbaas/loadbalancers", "loadbalancer", "loadbalancers");
resource!(Listener, LoadBalancer, "lbaas/listeners", "listener", "listeners");
resource!(Pool, LoadBalancer, "lbaas/pools", "pool", "pools");
resource!(Member, LoadBalancer, "lbaas/pools/{}/members", "member", "members");
resource!(HealthMonitor, LoadBalancer, "lbaas/healthmonitors", "healthmonitor", "healthmonitors");
resource!(Provider, LoadBalancer, "lbaas/providers", "provider", "providers");
resource!(Flavor, LoadBalancer, "lbaas/flavors", "flavor", "flavors");
named!(LoadBalancer, Listener, Pool, Member, HealthMonitor, Flavor);

draft! {
    pub struct LoadBalancerDraft {
        pub name: String,
        pub description: String,
        pub vip_subnet_id: Option<String>,
        pub vip_network_id: Option<String>,
        pub vip_address: Option<String>,
        pub provider: Option<String>,
        pub flavor_id: Option<String>,
        pub availability_zone: Option<String>,
        pub tags: Vec<String>,
    }

    pub struct ListenerDraft {
        pub name: String,
        pub description: String,
        pub loadbalancer_id: String,
        /// `TCP`, `HTTP`, `HTTPS`, `UDP`, ...
        pub protocol: String,
        pub protocol_port: Option<u16>,
        pub default_pool_id: Option<String>,
        pub allowed_cidrs: Vec<String>,
        pub tags: Vec<String>,
    }

    pub struct PoolDraft {
        pub name: String,
        pub description: String,
        pub listener_id: Option<String>,
        pub loadbalancer_id: Option<String>,
        pub protocol: String,
        /// `ROUND_ROBIN`, `LEAST_CONNECTIONS`, `SOURCE_IP`, `SOURCE_IP_PORT`.
        pub lb_algorithm: String,
        pub tags: Vec<String>,
    }

    /// Lives inside a pool: `create_in(pool_id, ..)`.
    pub struct MemberDraft {
        pub name: String,
        pub address: String,
        pub protocol_port: Option<u16>,
        pub subnet_id: Option<String>,
        pub weight: Option<u32>,
        pub tags: Vec<String>,
    }

    pub struct HealthMonitorDraft {
        pub name: String,
        pub pool_id: String,
        /// `TCP`, `HTTP`, `HTTPS`, `PING`, ...
        #[serde(rename = "type")]
        pub kind: String,
        /// Seconds.
        pub delay: Option<u32>,
        /// Seconds; not above `delay`.
        pub timeout: Option<u32>,
        pub max_retries: Option<u32>,
        pub max_retries_down: Option<u32>,
        pub tags: Vec<String>,
    }
}

impl Writes<LoadBalancer> for LoadBalancerDraft {}
impl Writes<Listener> for ListenerDraft {}
impl Writes<Pool> for PoolDraft {}
impl Writes<Member> for MemberDraft {}
impl Writes<HealthMonitor> for HealthMonitorDraft {}

impl LoadBalancer {
    /// Whether it takes changes now.
    pub fn is_mutable(&self) -> bool {
        matches!(self.provisioning_status.as_str(), "ACTIVE" | "ERROR")
    }
}
