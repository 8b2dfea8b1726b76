//! What is said of a cluster, as values of charts. Pure.

use std::{collections::BTreeMap, fmt, net::Ipv4Addr};

use api::{cluster::Cluster, openstack_cluster::OpenStackCluster};
use ipnet::Ipv4Net;
use serde::Deserialize;
use serde_json::{Value as Json, json};

/// The address of the cluster's DNS is this one of the range of its services.
const DNS_OCTET: u8 = 10;
const SERVICES_DEFAULT: &str = "10.96.0.0/12";
const PODS_DEFAULT: &str = "10.1.0.0/16";

/// What is the same for all clusters of an installation.
#[derive(Clone, Debug)]
pub struct Installation {
    /// Clusters have their names below it.
    pub base_domain: String,
    /// Where images come from.
    pub registry_domain: String,
}

/// Why nothing can be said yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    Goes,
    Paused,
    Missing(String),
    Range(String),
    Clouds(String),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Goes => f.write_str("the cluster goes"),
            Self::Paused => f.write_str("the cluster is paused"),
            Self::Missing(what) => write!(f, "{what} is not there yet"),
            Self::Range(range) => {
                write!(
                    f,
                    "spec.clusterNetwork.services: {range} is no IPv4 network whose last number is 0, so its DNS has no address"
                )
            }
            Self::Clouds(why) => write!(f, "clouds.yaml of the cluster's identity: {why}"),
        }
    }
}

/// All that the values are made of.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    namespace: String,
    id: String,
    provider: &'static str,
    pods: String,
    services: String,
    dns: Ipv4Addr,
    authority: Option<String>,
    installation: [String; 2],
    cloud: Told,
}

/// What the cloud's own controller in the cluster is told.
#[derive(Clone, Debug, PartialEq)]
enum Told {
    Nothing,
    Config(Json),
    /// Until the network is there.
    NothingYet,
    /// Whose credentials are missing.
    Unknown(String),
}

/// Whom the cluster is to the cloud.
#[derive(Clone, Debug)]
pub enum Identity {
    /// clouds.yaml of it.
    Clouds(String),
    /// What is not there.
    Missing(String),
    /// Its credentials are not the tenant's to hand on.
    Shared,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Clouds {
    clouds: BTreeMap<String, Cloud>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Cloud {
    region_name: String,
    auth: Auth,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Auth {
    auth_url: String,
    username: String,
    password: String,
    project_id: String,
    project_name: String,
    user_domain_name: String,
    application_credential_id: String,
    application_credential_secret: String,
}

impl Facts {
    /// `openstack`: the infrastructure, and its identity.
    pub fn of(
        cluster: &Cluster,
        id: &str,
        authority: Option<String>,
        openstack: Option<(&OpenStackCluster, &Identity)>,
        installation: &Installation,
    ) -> Result<Self, Problem> {
        let network = cluster.spec.cluster_network.as_ref();
        let first = |ranges: Option<&api::cluster::NetworkRanges>, or: &str| {
            ranges.and_then(|ranges| ranges.cidr_blocks.first()).map_or_else(|| or.to_owned(), Clone::clone)
        };
        let services = first(network.and_then(|network| network.services.as_ref()), SERVICES_DEFAULT);
        let dns = dns(&services).ok_or_else(|| Problem::Range(services.clone()))?;
        let cloud = match openstack {
            Some((object, Identity::Clouds(clouds))) => {
                cloud_config(object, clouds)?.map_or(Told::NothingYet, Told::Config)
            }
            Some((_, Identity::Missing(what))) => Told::Unknown(what.clone()),
            Some((_, Identity::Shared)) | None => Told::Nothing,
        };
        Ok(Self {
            namespace: cluster.metadata.namespace.clone().unwrap_or_default(),
            id: id.to_owned(),
            provider: if openstack.is_some() { "openstack" } else { "" },
            pods: first(network.and_then(|network| network.pods.as_ref()), PODS_DEFAULT),
            services,
            dns,
            authority,
            installation: [installation.base_domain.clone(), installation.registry_domain.clone()],
            cloud,
        })
    }

    /// What is to be expected and is not there yet; none if the values are whole.
    pub fn lacks(&self) -> Option<String> {
        let authority = self.authority.is_none().then(|| "the cluster's authority".to_owned());
        let cloud = match &self.cloud {
            Told::Nothing | Told::Config(_) => None,
            Told::NothingYet => Some("the cluster's network".to_owned()),
            Told::Unknown(what) => Some(what.clone()),
        };
        let all: Vec<String> = authority.into_iter().chain(cloud).collect();
        (!all.is_empty()).then(|| all.join(", "))
    }

    /// `is_there`: whether they have been told before. None: what was told once is not taken back by what is missing now.
    pub fn cluster_values(&self, is_there: bool) -> Option<String> {
        (self.authority.is_some() || !is_there).then(|| self.all())
    }

    fn all(&self) -> String {
        let dns = self.dns.to_string();
        text(&json!({
            "baseDomain": format!("{}.{}", self.id, self.installation[0]),
            "bootstrapMode": {"enabled": true, "apiServerPodPort": 6443},
            "chartOperator": {"cni": {"install": true}},
            "ciliumNetworkPolicy": {"enabled": true},
            "cluster": {
                "calico": {"CIDR": self.pods},
                "kubernetes": {"API": {"clusterIPRange": self.services}, "DNS": {"IP": dns}},
                "private": false,
            },
            "clusterCA": self.authority.as_deref().unwrap_or_default(),
            "clusterCIDR": "",
            "clusterDNSIP": dns,
            "clusterID": self.id,
            "gcpProject": "",
            "provider": self.provider,
            "subscriptionID": "",
        }))
    }

    pub fn operator_values(&self) -> String {
        text(&json!({
            "app": {"watchNamespace": self.namespace, "workloadClusterID": self.id},
            "provider": {"kind": self.provider},
            "registry": {"domain": self.installation[1]},
        }))
    }

    /// As [`Self::cluster_values`]; and none as long as there are no credentials.
    pub fn secret_values(&self, is_there: bool) -> Option<String> {
        match &self.cloud {
            Told::Config(cloud) => Some(text(&json!({"cloudConfig": cloud}))),
            Told::Nothing => Some(text(&json!({}))),
            Told::NothingYet => (!is_there).then(|| text(&json!({}))),
            Told::Unknown(_) => None,
        }
    }
}

/// YAML of a value that is made of maps, texts and truths.
fn text(value: &Json) -> String {
    // What cannot be YAML is JSON, which is.
    serde_saphyr::to_string(value).unwrap_or_else(|_| value.to_string())
}

/// The tenth address of a range of services.
fn dns(range: &str) -> Option<Ipv4Addr> {
    let range: Ipv4Net = range.parse().ok()?;
    let [a, b, c, d] = range.addr().octets();
    (d == 0).then(|| Ipv4Addr::new(a, b, c, DNS_OCTET))
}

/// None as long as the network is not there.
fn cloud_config(object: &OpenStackCluster, clouds: &str) -> Result<Option<Json>, Problem> {
    // The reader's own words quote the lines around, and passwords are among them.
    let read: Clouds = serde_saphyr::from_str(clouds).map_err(|_| Problem::Clouds("it cannot be read".to_owned()))?;
    let (name, wanted) = (&object.spec.identity_ref.cloud_name, &object.spec.identity_ref.region);
    let cloud = read.clouds.get(name).ok_or_else(|| Problem::Clouds(format!("it has no cloud {name}")))?;
    let Some(status) = &object.status else { return Ok(None) };
    let (Some(network), Some(external)) = (&status.network, &status.external_network) else { return Ok(None) };
    let region = wanted.clone().unwrap_or_else(|| cloud.region_name.clone());
    let auth = &cloud.auth;
    let global = [
        ("auth-url", &auth.auth_url),
        ("username", &auth.username),
        ("password", &auth.password),
        ("tenant-id", &auth.project_id),
        ("tenant-name", &auth.project_name),
        ("domain-name", &auth.user_domain_name),
        ("region", &region),
        ("application-credential-id", &auth.application_credential_id),
        ("application-credential-secret", &auth.application_credential_secret),
    ];
    let global: serde_json::Map<String, Json> = global
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(key, value)| (key.to_owned(), Json::String(value.clone())))
        .collect();
    let subnet = network.subnets.first().map(|subnet| subnet.id.as_str()).unwrap_or_default();
    Ok(Some(json!({
        "global": global,
        "networking": {"ipv6-support-disabled": true, "public-network-name": external.name},
        "loadBalancer": {
            "internal-lb": false, "floating-network-id": external.id, "network-id": network.id, "subnet-id": subnet,
        },
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOUDS: &str = "clouds:\n  c1:\n    region_name: one\n    auth: {auth_url: 'https://keystone.test', username: u, password: s3cret, project_id: p, user_domain_name: d}\n";

    fn installation() -> Installation {
        Installation { base_domain: "k8s.test".into(), registry_domain: "registry.test".into() }
    }

    fn cluster(network: &Json) -> Cluster {
        serde_json::from_value(json!({
            "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Cluster",
            "metadata": {"name": "w1", "namespace": "org-acme"}, "spec": {"clusterNetwork": network},
        }))
        .unwrap()
    }

    fn openstack(status: &Json) -> OpenStackCluster {
        serde_json::from_value(json!({
            "apiVersion": "infrastructure.cluster.x-k8s.io/v1beta2", "kind": "OpenStackCluster", "metadata": {"name": "w1"},
            "spec": {"identityRef": {"name": "cloud", "cloudName": "c1"}}, "status": status,
        }))
        .unwrap()
    }

    fn read(text: &str) -> Json {
        serde_saphyr::from_str(text).unwrap()
    }

    #[test]
    fn a_cluster_is_told_as_published() {
        let cluster = cluster(
            &json!({"services": {"cidrBlocks": ["172.31.0.0/16"]}, "pods": {"cidrBlocks": ["192.168.0.0/16"]}}),
        );
        let facts = Facts::of(&cluster, "w1", Some("PEM".into()), None, &installation()).unwrap();
        let told = read(&facts.cluster_values(true).unwrap());
        assert_eq!(told["clusterDNSIP"], "172.31.0.10");
        assert_eq!(told["cluster"]["calico"]["CIDR"], "192.168.0.0/16");
        assert_eq!((told["baseDomain"].as_str(), told["clusterCA"].as_str()), (Some("w1.k8s.test"), Some("PEM")));
        let told = read(&facts.operator_values());
        assert_eq!(told["app"], json!({"watchNamespace": "org-acme", "workloadClusterID": "w1"}));
        assert_eq!(facts.lacks(), None);
    }

    #[test]
    fn a_range_without_an_address_for_dns_is_named() {
        for range in ["fd00::/108", "10.0.0.16/28", "nonsense"] {
            let cluster = cluster(&json!({"services": {"cidrBlocks": [range]}}));
            let problem = Facts::of(&cluster, "w1", None, None, &installation()).unwrap_err();
            assert_eq!(problem, Problem::Range(range.to_owned()));
        }
        let facts = Facts::of(&cluster(&json!(null)), "w1", None, None, &installation()).unwrap();
        assert_eq!(read(&facts.cluster_values(false).unwrap())["clusterDNSIP"], "10.96.0.10");
    }

    #[test]
    fn the_cloud_is_told_once_its_network_is_there() {
        let plain = cluster(&json!(null));
        let of = |status: &Json, clouds: &str| {
            let object = openstack(status);
            let identity = Identity::Clouds(clouds.to_owned());
            Facts::of(&plain, "w1", Some("PEM".into()), Some((&object, &identity)), &installation())
        };
        let early = of(&json!({}), CLOUDS).unwrap();
        assert_eq!(early.lacks().as_deref(), Some("the cluster's network"));
        assert_eq!(early.secret_values(false).as_deref().map(read), Some(json!({})));
        let status = json!({
            "network": {"id": "n", "name": "net", "subnets": [{"id": "s", "name": "sub", "cidr": "10.0.0.0/24"}]},
            "externalNetwork": {"id": "e", "name": "public"},
        });
        let facts = of(&status, CLOUDS).unwrap();
        let expected = json!({"cloudConfig": {
            "global": {"auth-url": "https://keystone.test", "username": "u", "password": "s3cret", "tenant-id": "p",
                "domain-name": "d", "region": "one"},
            "networking": {"ipv6-support-disabled": true, "public-network-name": "public"},
            "loadBalancer": {"internal-lb": false, "floating-network-id": "e", "network-id": "n", "subnet-id": "s"},
        }});
        assert_eq!(read(&facts.secret_values(true).unwrap()), expected);
        assert_eq!(facts.lacks(), None);
        let problem = of(&status, "clouds: {other: {}}").unwrap_err().to_string();
        assert_eq!(problem, "clouds.yaml of the cluster's identity: it has no cloud c1");
        let broken = of(&status, "clouds: {c1: {auth: {password: s3cret").unwrap_err().to_string();
        assert!(!broken.contains("s3cret"), "{broken}");
    }

    #[test]
    fn what_is_missing_takes_nothing_back_that_was_told() {
        let (plain, object) = (cluster(&json!(null)), openstack(&json!({})));
        let of =
            |identity: Identity| Facts::of(&plain, "w1", None, Some((&object, &identity)), &installation()).unwrap();
        let facts = of(Identity::Missing("Secret org-acme/cloud".into()));
        assert_eq!(facts.lacks().as_deref(), Some("the cluster's authority, Secret org-acme/cloud"));
        assert_eq!((facts.cluster_values(true), facts.secret_values(true)), (None, None));
        assert!(facts.cluster_values(false).is_some());
        assert_eq!(facts.secret_values(false), None, "without credentials there is nothing to tell");
        assert_eq!(of(Identity::Clouds(CLOUDS.into())).secret_values(true), None, "a network that is looked for anew");
        let shared = of(Identity::Shared);
        assert_eq!(shared.lacks().as_deref(), Some("the cluster's authority"));
        assert_eq!(shared.secret_values(true).as_deref().map(read), Some(json!({})));
    }
}
