//! The kinds of objects as data: where they live, what they are called, which fields they take.

use super::http::Service;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Project,
    User,
    ApplicationCredential,
    Image,
    Flavor,
    Keypair,
    ServerGroup,
    Server,
    Network,
    Subnet,
    Router,
    Port,
    FloatingIp,
    SecurityGroup,
    SecurityGroupRule,
    Trunk,
    LoadBalancer,
    Listener,
    Pool,
    Member,
    HealthMonitor,
    Volume,
    VolumeType,
    Snapshot,
    /// What an administrator changed of a project's quotas; the id is `<service>/<project>`.
    Quota,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Text,
    /// Text or null.
    Maybe,
    Flag,
    Number,
    List,
    Object,
    Any,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Create,
    Both,
}

/// A field that a user may send.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    pub name: &'static str,
    pub kind: Type,
    /// JSON; empty if the field is required at creation.
    pub default: &'static str,
    pub access: Access,
}

pub struct Meta {
    /// The first part of its keys in the store, and the table's name.
    pub key: &'static str,
    pub service: Service,
    /// As in paths.
    pub collection: &'static str,
    pub one: &'static str,
    pub many: &'static str,
    /// As in messages.
    pub label: &'static str,
    pub fields: &'static [Field],
    pub indexed: &'static [&'static str],
    /// Its name among the quotas; empty if none.
    pub quota: &'static str,
}

const fn f(name: &'static str, kind: Type, default: &'static str, access: Access) -> Field {
    Field { name, kind, default, access }
}

use Access::{Both, Create};
use Type::{Any, Flag, List, Maybe, Number, Object, Text};

const NAME: Field = f("name", Text, "\"\"", Both);
const DESCRIPTION: Field = f("description", Text, "\"\"", Both);
const UP: Field = f("admin_state_up", Flag, "true", Both);
const TAGS: Field = f("tags", List, "[]", Both);

const NETWORK: &[Field] = &[
    NAME,
    DESCRIPTION,
    UP,
    f("shared", Flag, "false", Both),
    f("router:external", Flag, "false", Both),
    f("is_default", Flag, "false", Both),
    f("mtu", Number, "1442", Both),
    f("port_security_enabled", Flag, "true", Both),
    f("availability_zone_hints", List, "[]", Create),
    f("provider:network_type", Text, "\"geneve\"", Create),
    f("provider:physical_network", Maybe, "null", Create),
    f("provider:segmentation_id", Any, "null", Create),
    f("dns_domain", Text, "\"\"", Both),
    f("qos_policy_id", Maybe, "null", Both),
    f("vlan_transparent", Any, "null", Create),
];

const SUBNET: &[Field] = &[
    NAME,
    DESCRIPTION,
    f("network_id", Text, "", Create),
    f("cidr", Maybe, "null", Create),
    f("ip_version", Number, "4", Create),
    f("gateway_ip", Any, "\"~auto\"", Both),
    f("enable_dhcp", Flag, "true", Both),
    f("dns_nameservers", List, "[]", Both),
    f("host_routes", List, "[]", Both),
    f("allocation_pools", Any, "\"~auto\"", Both),
    f("ipv6_address_mode", Maybe, "null", Create),
    f("ipv6_ra_mode", Maybe, "null", Create),
    f("service_types", List, "[]", Both),
    f("dns_publish_fixed_ip", Flag, "false", Both),
];

const ROUTER: &[Field] = &[
    NAME,
    DESCRIPTION,
    UP,
    f("external_gateway_info", Any, "null", Both),
    f("routes", List, "[]", Both),
    f("distributed", Flag, "false", Both),
    f("ha", Flag, "false", Both),
    f("availability_zone_hints", List, "[]", Create),
    f("flavor_id", Maybe, "null", Create),
];

const PORT: &[Field] = &[
    NAME,
    DESCRIPTION,
    f("network_id", Text, "", Create),
    UP,
    f("mac_address", Any, "\"~auto\"", Create),
    f("fixed_ips", Any, "\"~auto\"", Both),
    f("security_groups", Any, "\"~auto\"", Both),
    f("device_id", Text, "\"\"", Both),
    f("device_owner", Text, "\"\"", Both),
    f("allowed_address_pairs", List, "[]", Both),
    f("port_security_enabled", Flag, "true", Both),
    f("binding:host_id", Any, "\"\"", Both),
    f("binding:vnic_type", Text, "\"normal\"", Both),
    f("binding:profile", Object, "{}", Both),
    f("extra_dhcp_opts", List, "[]", Both),
    f("propagate_uplink_status", Flag, "true", Create),
    f("dns_name", Text, "\"\"", Both),
    f("qos_policy_id", Maybe, "null", Both),
];

const FLOATING_IP: &[Field] = &[
    DESCRIPTION,
    f("floating_network_id", Text, "", Create),
    f("floating_ip_address", Maybe, "null", Create),
    f("subnet_id", Maybe, "null", Create),
    f("port_id", Maybe, "null", Both),
    f("fixed_ip_address", Maybe, "null", Both),
    f("dns_name", Text, "\"\"", Create),
    f("dns_domain", Text, "\"\"", Create),
    f("qos_policy_id", Maybe, "null", Both),
];

const SECURITY_GROUP: &[Field] = &[NAME, DESCRIPTION, f("stateful", Flag, "true", Both)];

const SECURITY_GROUP_RULE: &[Field] = &[
    f("security_group_id", Text, "", Create),
    f("description", Maybe, "\"\"", Create),
    f("direction", Text, "", Create),
    f("ethertype", Maybe, "\"IPv4\"", Create),
    f("protocol", Any, "null", Create),
    f("port_range_min", Any, "null", Create),
    f("port_range_max", Any, "null", Create),
    f("remote_group_id", Maybe, "null", Create),
    f("remote_ip_prefix", Maybe, "null", Create),
];

const TRUNK: &[Field] = &[NAME, DESCRIPTION, UP, f("port_id", Text, "", Create), f("sub_ports", List, "[]", Create)];

const LOAD_BALANCER: &[Field] = &[
    NAME,
    DESCRIPTION,
    UP,
    TAGS,
    f("vip_subnet_id", Maybe, "null", Create),
    f("vip_network_id", Maybe, "null", Create),
    f("vip_port_id", Maybe, "null", Create),
    f("vip_address", Maybe, "null", Create),
    f("vip_qos_policy_id", Maybe, "null", Both),
    f("provider", Maybe, "null", Create),
    f("flavor_id", Maybe, "null", Create),
    f("availability_zone", Maybe, "null", Create),
];

const LISTENER: &[Field] = &[
    NAME,
    DESCRIPTION,
    UP,
    TAGS,
    f("loadbalancer_id", Text, "", Create),
    f("protocol", Text, "", Create),
    f("protocol_port", Number, "", Create),
    f("default_pool_id", Maybe, "null", Both),
    f("allowed_cidrs", Any, "null", Both),
    f("connection_limit", Number, "-1", Both),
    f("insert_headers", Object, "{}", Both),
    f("timeout_client_data", Number, "50000", Both),
    f("timeout_member_connect", Number, "5000", Both),
    f("timeout_member_data", Number, "50000", Both),
    f("timeout_tcp_inspect", Number, "0", Both),
];

const POOL: &[Field] = &[
    NAME,
    DESCRIPTION,
    UP,
    TAGS,
    f("loadbalancer_id", Maybe, "null", Create),
    f("listener_id", Maybe, "null", Create),
    f("protocol", Text, "", Create),
    f("lb_algorithm", Text, "", Both),
    f("session_persistence", Any, "null", Both),
];

const MEMBER: &[Field] = &[
    NAME,
    UP,
    TAGS,
    f("address", Text, "", Create),
    f("protocol_port", Number, "", Create),
    f("subnet_id", Maybe, "null", Create),
    f("weight", Number, "1", Both),
    f("backup", Flag, "false", Both),
    f("monitor_address", Maybe, "null", Both),
    f("monitor_port", Any, "null", Both),
];

const HEALTH_MONITOR: &[Field] = &[
    NAME,
    UP,
    TAGS,
    f("pool_id", Text, "", Create),
    f("type", Text, "", Create),
    f("delay", Number, "", Both),
    f("timeout", Number, "", Both),
    f("max_retries", Number, "", Both),
    f("max_retries_down", Number, "3", Both),
    f("url_path", Maybe, "null", Both),
    f("http_method", Maybe, "null", Both),
    f("expected_codes", Maybe, "null", Both),
];

macro_rules! meta {
    ($key:literal, $service:ident, $collection:literal, $one:literal, $many:literal, $label:literal, $fields:expr,
     indexed: [$($index:literal),*] $(, quota: $quota:literal)?) => {
        Meta {
            key: $key,
            service: Service::$service,
            collection: $collection,
            one: $one,
            many: $many,
            label: $label,
            fields: $fields,
            indexed: &["name", "project_id", "~public", $($index),*],
            quota: { let _q = ""; $(let _q = $quota;)? _q },
        }
    };
}

static PROJECT: Meta = meta!("project", Identity, "projects", "project", "projects", "project", &[], indexed: []);
static USER: Meta = meta!("user", Identity, "users", "user", "users", "user", &[], indexed: []);
static APPLICATION_CREDENTIAL: Meta = meta!("application-credential", Identity, "application_credentials",
    "application_credential", "application_credentials", "application credential", &[], indexed: ["~user_id"]);
static IMAGE: Meta =
    meta!("image", Image, "images", "image", "images", "image", &[], indexed: ["tags[]"], quota: "images");
static FLAVOR: Meta = meta!("flavor", Compute, "flavors", "flavor", "flavors", "Flavor", &[], indexed: []);
static KEYPAIR: Meta = meta!("keypair", Compute, "os-keypairs", "keypair", "keypairs", "Keypair", &[],
    indexed: ["~user_id"], quota: "key_pairs");
static SERVER_GROUP: Meta = meta!("server-group", Compute, "os-server-groups", "server_group", "server_groups",
    "Instance group", &[], indexed: [], quota: "server_groups");
static SERVER: Meta = meta!("server", Compute, "servers", "server", "servers", "Instance", &[],
    indexed: ["~group", "~host", "status"], quota: "instances");
static NETWORK_META: Meta = meta!("network", Network, "networks", "network", "networks", "Network", NETWORK,
    indexed: ["tags[]"], quota: "network");
static SUBNET_META: Meta = meta!("subnet", Network, "subnets", "subnet", "subnets", "Subnet", SUBNET,
    indexed: ["network_id", "tags[]"], quota: "subnet");
static ROUTER_META: Meta = meta!("router", Network, "routers", "router", "routers", "Router", ROUTER,
    indexed: ["tags[]"], quota: "router");
static PORT_META: Meta = meta!("port", Network, "ports", "port", "ports", "Port", PORT,
    indexed: ["network_id", "device_id", "security_groups[]", "fixed_ips[].subnet_id", "mac_address", "tags[]"],
    quota: "port");
static FLOATING_IP_META: Meta = meta!("floatingip", Network, "floatingips", "floatingip", "floatingips", "Floating IP",
    FLOATING_IP, indexed: ["description", "port_id", "router_id", "floating_ip_address", "tags[]"], quota: "floatingip");
static SECURITY_GROUP_META: Meta = meta!("security-group", Network, "security-groups", "security_group",
    "security_groups", "Security group", SECURITY_GROUP, indexed: ["tags[]"], quota: "security_group");
static SECURITY_GROUP_RULE_META: Meta = meta!("security-group-rule", Network, "security-group-rules",
    "security_group_rule", "security_group_rules", "Security group rule", SECURITY_GROUP_RULE,
    indexed: ["security_group_id", "remote_group_id"], quota: "security_group_rule");
static TRUNK_META: Meta = meta!("trunk", Network, "trunks", "trunk", "trunks", "Trunk", TRUNK,
    indexed: ["port_id", "tags[]"], quota: "trunk");
static LOAD_BALANCER_META: Meta = meta!("loadbalancer", LoadBalancer, "loadbalancers", "loadbalancer",
    "loadbalancers", "Load Balancer", LOAD_BALANCER, indexed: ["tags[]", "vip_port_id"], quota: "load_balancer");
static LISTENER_META: Meta = meta!("listener", LoadBalancer, "listeners", "listener", "listeners", "Listener", LISTENER,
    indexed: ["loadbalancer_id", "default_pool_id"], quota: "listener");
static POOL_META: Meta = meta!("pool", LoadBalancer, "pools", "pool", "pools", "Pool", POOL,
    indexed: ["loadbalancer_id"], quota: "pool");
static MEMBER_META: Meta = meta!("member", LoadBalancer, "members", "member", "members", "Member", MEMBER,
    indexed: ["~pool_id"], quota: "member");
static HEALTH_MONITOR_META: Meta = meta!("healthmonitor", LoadBalancer, "healthmonitors", "healthmonitor",
    "healthmonitors", "Health Monitor", HEALTH_MONITOR, indexed: ["pool_id"], quota: "health_monitor");
static VOLUME: Meta = meta!("volume", BlockStorage, "volumes", "volume", "volumes", "Volume", &[],
    indexed: ["~server_id", "status"], quota: "volumes");
static VOLUME_TYPE: Meta = meta!("volume-type", BlockStorage, "types", "volume_type", "volume_types", "Volume type",
    &[], indexed: []);
static SNAPSHOT: Meta = meta!("snapshot", BlockStorage, "snapshots", "snapshot", "snapshots", "Snapshot", &[],
    indexed: ["volume_id", "status"], quota: "snapshots");
static QUOTA: Meta = meta!("quota", Identity, "", "", "", "quota", &[], indexed: []);

impl Kind {
    pub const ALL: [Self; 25] = [
        Self::Project,
        Self::User,
        Self::ApplicationCredential,
        Self::Image,
        Self::Flavor,
        Self::Keypair,
        Self::ServerGroup,
        Self::Server,
        Self::Network,
        Self::Subnet,
        Self::Router,
        Self::Port,
        Self::FloatingIp,
        Self::SecurityGroup,
        Self::SecurityGroupRule,
        Self::Trunk,
        Self::LoadBalancer,
        Self::Listener,
        Self::Pool,
        Self::Member,
        Self::HealthMonitor,
        Self::Volume,
        Self::VolumeType,
        Self::Snapshot,
        Self::Quota,
    ];

    pub fn meta(self) -> &'static Meta {
        match self {
            Self::Project => &PROJECT,
            Self::User => &USER,
            Self::ApplicationCredential => &APPLICATION_CREDENTIAL,
            Self::Image => &IMAGE,
            Self::Flavor => &FLAVOR,
            Self::Keypair => &KEYPAIR,
            Self::ServerGroup => &SERVER_GROUP,
            Self::Server => &SERVER,
            Self::Network => &NETWORK_META,
            Self::Subnet => &SUBNET_META,
            Self::Router => &ROUTER_META,
            Self::Port => &PORT_META,
            Self::FloatingIp => &FLOATING_IP_META,
            Self::SecurityGroup => &SECURITY_GROUP_META,
            Self::SecurityGroupRule => &SECURITY_GROUP_RULE_META,
            Self::Trunk => &TRUNK_META,
            Self::LoadBalancer => &LOAD_BALANCER_META,
            Self::Listener => &LISTENER_META,
            Self::Pool => &POOL_META,
            Self::Member => &MEMBER_META,
            Self::HealthMonitor => &HEALTH_MONITOR_META,
            Self::Volume => &VOLUME,
            Self::VolumeType => &VOLUME_TYPE,
            Self::Snapshot => &SNAPSHOT,
            Self::Quota => &QUOTA,
        }
    }

    /// The kind that a service keeps under a collection's name.
    pub fn of(service: Service, collection: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|k| {
            let meta = k.meta();
            meta.service == service && meta.collection == collection && !collection.is_empty()
        })
    }
}
