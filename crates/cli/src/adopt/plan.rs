//! What is to be made of a cluster, as a pure function of what there is.

use std::collections::{BTreeMap, BTreeSet};

use api::cluster_configuration::ClusterConfiguration;
use openstack::block_storage::Volume;
use serde_json::{Map, Value, json};

use super::{
    Keys, OWNER_KEY,
    look::{Member, Seen},
};

mod objects;

/// What the provider writes into descriptions.
const MARK: &str = "Created by cluster-api-provider-openstack cluster ";
/// Longest name of a machine.
const NAME_MAX: usize = 63;
/// An object that others belong to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    Cluster,
    ControlPlane,
    Deployment(String),
    Set(String),
    Machine(String),
}

/// An object to be made. Owners are earlier in the list; one of them may be the controller.
#[derive(Debug)]
pub struct Made {
    pub object: Value,
    pub owners: Vec<(Owner, bool)>,
    pub is: Option<Owner>,
}

impl Made {
    pub fn name(&self) -> String {
        self.object["metadata"]["name"].as_str().unwrap_or_default().to_owned()
    }

    pub fn told(&self) -> String {
        format!("{} {}", self.object["kind"].as_str().unwrap_or_default(), self.name())
    }
}

/// What the cluster is to be called, and what its controllers are to know.
pub struct Terms<'a> {
    pub namespace: &'a str,
    pub name: &'a str,
    pub keys: &'a Keys,
    pub clouds_yaml: &'a str,
    pub cloud_name: &'a str,
}

/// What a volume is to be called, and to bear.
pub struct Renamed {
    pub id: String,
    pub was: String,
    pub name: String,
    pub metadata: BTreeMap<String, String>,
}

#[derive(Default)]
pub struct Plan {
    pub objects: Vec<Made>,
    /// Servers by id and name that nothing says whose they are.
    pub unmarked: Vec<(String, String)>,
    /// Volumes that servers boot from.
    pub unmarked_volumes: Vec<Renamed>,
    /// Why it cannot be done.
    pub obstacles: Vec<String>,
    /// What a user should know.
    pub notes: Vec<String>,
    /// `<namespace>-<cluster>`.
    pub resource: String,
    summary: Vec<String>,
}

pub fn of(adopt: &Terms<'_>, seen: &Seen) -> Plan {
    let mut plan = Plan { resource: format!("{}-{}", adopt.namespace, adopt.name), ..Plan::default() };
    let (control, workers): (Vec<&Member>, Vec<&Member>) = seen.members.iter().partition(|member| member.control_plane);
    members(seen, &mut plan);
    let configuration = configuration(seen, &mut plan);
    let host = endpoint(seen, &mut plan);
    let first = control.first().copied();
    for (what, of) in [
        ("version", control.iter().map(|one| one.version.as_str()).collect::<BTreeSet<_>>()),
        ("flavour", control.iter().map(|one| one.flavor.as_str()).collect()),
    ] {
        if of.len() > 1 {
            let all = of.into_iter().collect::<Vec<_>>().join(", ");
            plan.obstacles
                .push(format!("control plane nodes differ in {what} ({all}): some would be replaced at once"));
        }
    }
    let (Some(first), Some(host)) = (first, host) else {
        if first.is_none() {
            plan.obstacles.push("no node has the label node-role.kubernetes.io/control-plane".to_owned());
        }
        return plan;
    };
    objects::cluster(adopt, seen, &host, &mut plan);
    objects::control_plane(adopt, seen, first, &control, configuration, &mut plan);
    for group in objects::grouped(adopt, &workers) {
        objects::deployment(adopt, seen, &group, &mut plan);
    }
    plan.summary.insert(0, format!("cluster {}/{}: API at {}:{}", adopt.namespace, adopt.name, host.0, host.1));
    plan
}

/// Whether each node can be a machine.
fn members(seen: &Seen, plan: &mut Plan) {
    let mut names = BTreeSet::new();
    for member in &seen.members {
        let node = &member.node;
        let Some(server) = &member.server else {
            plan.obstacles
                .push(format!("node {node} (provider ID {:?}) has no server in this cloud", member.provider_id));
            continue;
        };
        if !is_name(&server.name) {
            plan.obstacles.push(format!("server {} of node {node} has a name that no object can have", server.name));
        }
        // The cloud lets them, and the controllers know servers by their names.
        if !names.insert(&server.name) {
            plan.obstacles.push(format!("server {} of node {node} has the name of another node's server", server.name));
        }
        if member.image().is_none() {
            let boots = if member.root.is_some() { "boots from a volume" } else { "is" };
            plan.obstacles.push(format!(
                "server {} {boots} of no image that the cloud tells: new machines could not be like it",
                server.name
            ));
        }
        match server.metadata.get(OWNER_KEY) {
            Some(of) if *of == plan.resource => {}
            Some(of) => plan.obstacles.push(format!("server {} is marked as one of {of}", server.name)),
            None => plan.unmarked.push((server.id.clone(), server.name.clone())),
        }
        if let Some(root) = &member.root {
            root_volume(root, &server.name, plan);
        }
    }
}

/// The controllers know a machine's volumes by name and mark.
fn root_volume(root: &Volume, server: &str, plan: &mut Plan) {
    let name = format!("{server}-root");
    match root.metadata.get(OWNER_KEY) {
        Some(of) if *of == plan.resource && root.name == name => return,
        Some(of) if *of != plan.resource => {
            plan.obstacles.push(format!("volume {} of server {server} is marked as one of {of}", root.id));
            return;
        }
        _ => {}
    }
    let mut metadata = root.metadata.clone();
    metadata.insert(OWNER_KEY.to_owned(), plan.resource.clone());
    let was = if root.name.is_empty() { root.id.clone() } else { root.name.clone() };
    plan.unmarked_volumes.push(Renamed { id: root.id.clone(), was, name, metadata });
}

/// A name that a machine can have (RFC 1123).
fn is_name(name: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=NAME_MAX).contains(&name.len()) && name.bytes().all(is_part) && !name.starts_with('-') && !name.ends_with('-')
}

/// kubeadm's own configuration as the platform writes it; its fields of other places are left out.
fn configuration(seen: &Seen, plan: &mut Plan) -> Value {
    const KEPT: [&str; 9] = [
        "apiServer",
        "certificatesDir",
        "controllerManager",
        "dns",
        "encryptionAlgorithm",
        "etcd",
        "featureGates",
        "imageRepository",
        "scheduler",
    ];
    let mut found = Map::new();
    for key in KEPT {
        let value = tidy(seen.configuration[key].clone());
        if !value.is_null() {
            found.insert(key.to_owned(), value);
        }
    }
    if let Some(server) = found.get_mut("apiServer").and_then(Value::as_object_mut) {
        server.remove("timeoutForControlPlane");
    }
    if seen.configuration.pointer("/etcd/external").is_some_and(|external| !external.is_null()) {
        plan.obstacles.push("etcd is outside of the cluster: such clusters are not adopted yet".to_owned());
    }
    found.retain(|_, value| tidy(value.clone()) != Value::Null);
    let value = Value::Object(found);
    match serde_json::from_value::<ClusterConfiguration>(value.clone()) {
        Ok(read) => serde_json::to_value(read).unwrap_or(value),
        Err(error) => {
            plan.obstacles.push(format!("kubeadm's ClusterConfiguration cannot be taken over: {error}"));
            json!({})
        }
    }
}

/// Without what is empty; arguments of v1beta3, a map, as a list.
fn tidy(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let of = |(key, value): (String, Value)| {
                let value = match value {
                    Value::Object(arguments) if key == "extraArgs" => Value::Array(
                        arguments.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect(),
                    ),
                    other => tidy(other),
                };
                (!value.is_null()).then_some((key, value))
            };
            let kept: Map<String, Value> = map.into_iter().filter_map(of).collect();
            if kept.is_empty() { Value::Null } else { Value::Object(kept) }
        }
        Value::Array(list) if list.is_empty() => Value::Null,
        Value::String(text) if text.is_empty() => Value::Null,
        other => other,
    }
}

/// Host and port of the API, as kubeadm tells them.
fn endpoint(seen: &Seen, plan: &mut Plan) -> Option<(String, u16)> {
    let text = seen.configuration["controlPlaneEndpoint"].as_str().unwrap_or_default();
    let (host, port) = text.rsplit_once(':').unwrap_or((text, "6443"));
    let host = host.trim_matches(['[', ']']);
    match port.parse::<u16>() {
        Ok(port) if !host.is_empty() => Some((host.to_owned(), port)),
        _ => {
            plan.obstacles
                .push(format!("kubeadm's controlPlaneEndpoint is {text:?}: set one that outlives every node"));
            None
        }
    }
}

/// The plan as a person reads it.
pub fn told(plan: &Plan) -> String {
    let mut lines = plan.summary.clone();
    lines.extend(plan.objects.iter().map(|made| format!("  {}", made.told())));
    lines.extend(plan.unmarked.iter().map(|(_, name)| format!("  server {name} is marked as the cluster's")));
    lines.extend(
        plan.unmarked_volumes
            .iter()
            .map(|volume| format!("  volume {} is called {} and marked as the cluster's", volume.was, volume.name)),
    );
    lines.extend(plan.notes.iter().map(|note| format!("note: {note}")));
    if plan.obstacles.is_empty() {
        lines.push("no machine would be replaced".to_owned());
    }
    lines.extend(plan.obstacles.iter().map(|obstacle| format!("! {obstacle}")));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use openstack::{
        compute::Server,
        load_balancer::LoadBalancer,
        network::{GatewayInfo, Network, Port, Router, Subnet},
    };

    use super::*;

    fn member(name: &str, control_plane: bool) -> Member {
        let image = json!({"id": "image"});
        let server = Server { id: format!("id-{name}"), name: name.into(), image, ..Server::default() };
        Member {
            node: name.into(),
            provider_id: format!("openstack:///id-{name}"),
            version: "v1.34.1".into(),
            control_plane,
            server: Some(server),
            flavor: "m1.medium".into(),
            root: None,
            ports: vec![Port { network_id: "net".into(), security_groups: vec!["sg".into()], ..Port::default() }],
        }
    }

    fn seen() -> Seen {
        let gateway = GatewayInfo { network_id: "out".into(), ..GatewayInfo::default() };
        Seen {
            members: vec![member("cp", true), member("w1", false), member("w2", false)],
            configuration: json!({
                "controlPlaneEndpoint": "203.0.113.7:6443", "clusterName": "kubernetes", "etcd": {"local": {"dataDir": "/var/lib/etcd"}},
                "apiServer": {"extraArgs": {"profiling": "false"}, "timeoutForControlPlane": "4m0s"}, "dns": {},
                "networking": {"podSubnet": "10.244.0.0/16", "serviceSubnet": "10.96.0.0/12", "dnsDomain": "cluster.local"},
            }),
            cloud_controller: false,
            network: Some(Network { id: "net".into(), name: "mine".into(), ..Network::default() }),
            subnets: vec![Subnet { id: "sub".into(), cidr: "10.0.0.0/24".into(), ..Subnet::default() }],
            router: Some(Router { id: "router".into(), external_gateway_info: Some(gateway), ..Router::default() }),
            groups: BTreeMap::new(),
            balancers: vec![LoadBalancer {
                name: "api".into(),
                vip_address: "203.0.113.7".into(),
                ..Default::default()
            }],
            floating_ips: Vec::new(),
        }
    }

    fn plan(seen: &Seen) -> Plan {
        let keys = Keys::new();
        of(&Terms { namespace: "ns", name: "demo", keys: &keys, clouds_yaml: "", cloud_name: "mine" }, seen)
    }

    fn spec(plan: &Plan, kind: &str) -> Value {
        let made = plan.objects.iter().find(|made| made.object["kind"] == kind);
        made.map(|made| made.object["spec"].clone()).unwrap_or_default()
    }

    #[test]
    fn what_is_not_marked_is_named_by_its_id_and_stays() {
        let found = plan(&seen());
        assert_eq!(found.obstacles, Vec::<String>::new());
        let infra = spec(&found, "OpenStackCluster");
        assert_eq!(infra["network"], json!({"id": "net"}));
        assert_eq!((&infra["router"], &infra["externalNetwork"]), (&json!({"id": "router"}), &json!({"id": "out"})));
        assert!(infra["managedSubnets"].is_null() && infra["managedSecurityGroups"].is_null());
        assert!(found.notes[0].contains("load balancer api is not the platform's"), "{:?}", found.notes);
        assert_eq!(found.unmarked.len(), 3);
        assert_eq!(spec(&found, "OpenStackMachine")["securityGroups"], json!([{"id": "sg"}]));
        let control_plane = spec(&found, "KubeadmControlPlane");
        let kubeadm = &control_plane["kubeadmConfigSpec"]["clusterConfiguration"];
        assert_eq!(kubeadm["apiServer"], json!({"extraArgs": [{"name": "profiling", "value": "false"}]}));
        assert_eq!((&control_plane["replicas"], &kubeadm["dns"]), (&json!(1), &Value::Null));
        assert_eq!(spec(&found, "MachineDeployment")["replicas"], 2);
        assert_eq!(spec(&found, "Cluster")["paused"], true);
        // Owners come before what they own.
        let mut known = BTreeSet::new();
        for made in &found.objects {
            assert!(made.owners.iter().all(|(owner, _)| known.contains(owner)), "{}", made.told());
            known.extend(made.is.clone());
        }
    }

    #[test]
    fn what_is_marked_goes_with_the_cluster() {
        let mut seen = seen();
        let mark = format!("{MARK}ns-demo");
        seen.network.as_mut().unwrap().description = mark.clone();
        seen.balancers[0].description = mark;
        for member in &mut seen.members {
            let server = member.server.as_mut().unwrap();
            server.metadata.insert(OWNER_KEY.into(), "ns-demo".into());
        }
        let infra = spec(&plan(&seen), "OpenStackCluster");
        assert_eq!(infra["managedSubnets"][0]["cidr"], "10.0.0.0/24");
        assert_eq!(infra["apiServer"]["managedLoadBalancer"]["enabled"], true);
        assert!(infra["network"].is_null() && plan(&seen).unmarked.is_empty());
    }

    #[test]
    fn servers_that_boot_from_volumes_are_adopted_with_them() {
        let mut seen = seen();
        let of = |image: &str| Volume {
            id: "v".into(),
            size: 20,
            volume_type: "ssd".into(),
            volume_image_metadata: [("image_id".to_owned(), image.to_owned())].into(),
            ..Volume::default()
        };
        for member in &mut seen.members[1..] {
            member.server.as_mut().unwrap().image = json!("");
            member.root = Some(of("image"));
        }
        let found = plan(&seen);
        assert_eq!(found.obstacles, Vec::<String>::new());
        let template = found.objects.iter().rfind(|made| made.object["kind"] == "OpenStackMachineTemplate").unwrap();
        let spec = &template.object["spec"]["template"]["spec"];
        assert_eq!(spec["image"], json!({"id": "image"}));
        assert_eq!(spec["rootVolume"], json!({"sizeGiB": 20, "type": "ssd", "availabilityZone": {"from": "Machine"}}));
        assert!(told(&found).contains("volume v is called w1-root and marked as the cluster's"), "{}", told(&found));

        // Of one that has both already, nothing is changed; one of another cluster is in the way.
        let root = |seen: &mut Seen, name: &str, of: &str| {
            let root = seen.members[1].root.as_mut().unwrap();
            root.name = name.into();
            root.metadata.insert(OWNER_KEY.into(), of.into());
        };
        root(&mut seen, "w1-root", "ns-demo");
        assert_eq!(plan(&seen).unmarked_volumes.len(), 1);
        root(&mut seen, "w1-root", "ns-other");
        seen.members[2].root.as_mut().unwrap().volume_image_metadata.clear();
        let text = plan(&seen).obstacles.join("\n");
        for part in ["volume v of server w1 is marked as one of ns-other", "server w2 boots from a volume of no image"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn what_would_be_replaced_or_lost_stands_in_the_way() {
        let mut seen = seen();
        seen.members.push(Member { version: "v1.34.2".into(), ..member("cp2", true) });
        seen.members[1].server = None;
        seen.members[2].server.as_mut().unwrap().image = json!("");
        seen.configuration["etcd"] = json!({"external": {"endpoints": ["https://10.0.0.9:2379"]}});
        let text = plan(&seen).obstacles.join("\n");
        for part in ["differ in version", "has no server", "server w2 is of no image", "etcd is outside"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let mut twins = self::seen();
        twins.members[2].server.as_mut().unwrap().name = "w1".into();
        assert_eq!(plan(&twins).obstacles, ["server w1 of node w2 has the name of another node's server"]);
        for (name, good) in
            [("a".repeat(63), true), ("a".repeat(64), false), ("-a".into(), false), ("a-".into(), false)]
        {
            assert_eq!(is_name(&name), good, "{name}");
        }
        seen.configuration["controlPlaneEndpoint"] = Value::Null;
        assert!(plan(&seen).obstacles.iter().any(|why| why.contains("set one that outlives every node")));
    }
}
