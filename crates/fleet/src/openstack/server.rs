//! A server with its ports and volumes, for a machine or a bastion: each is looked for before it is made, in the order
//! ports, volumes, server, so that a crash in between is picked up where it was.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use api::{
    openstack_cluster::OpenStackClusterStatus,
    openstack_machine::{
        BlockDevice as WantedDevice, BlockDeviceType, MachineResources, OpenStackMachineSpec, PortResource,
        ResolvedMachine, SchedulerHintType, VolumeAvailabilityZone, VolumeZoneSource,
    },
    openstack_reference::{PortOpts, ResolvedFixedIp, ResolvedPort, SubnetParam},
};
use openstack::{
    Query,
    block_storage::{Volume, VolumeDraft},
    compute::{BlockDevice, Server, ServerDraft, ServerNetwork},
    network::{AddressPair, FixedIp, Network, Port, PortDraft, Trunk, TrunkDraft},
};
use serde_json::{Map, Value, json};

use super::{
    find, names,
    scope::Scope,
    stop::{Result, Stop, blocked, pace, wait},
};

/// Before a volume that could not be made is made anew.
const VOLUME_PAUSE: Duration = Duration::from_secs(10);
/// Between two looks whether a network has a subnet.
const SUBNET_PAUSE: Duration = Duration::from_secs(5);

/// What a server is to be.
pub struct Wanted<'a> {
    pub name: &'a str,
    pub spec: &'a OpenStackMachineSpec,
    pub cluster: &'a OpenStackClusterStatus,
    /// Where ports go that name no network; all subnets of the cluster's network if there is none.
    pub primary_subnet: Option<&'a SubnetParam>,
    /// Further metadata of the server.
    pub metadata: BTreeMap<String, String>,
    /// Empty: the cloud chooses.
    pub zone: Option<&'a str>,
    /// Managed groups, beside those of the spec.
    pub groups: Vec<String>,
    /// Base64.
    pub user_data: Option<String>,
    /// How long it has been under way.
    pub age: Duration,
}

/// The server by the id that is remembered, else by name and mark: what is remembered may have been deleted by somebody, and
/// another been made since.
pub async fn find(scope: &Scope, id: Option<&str>, name: &str) -> Result<Option<Server>> {
    if let Some(id) = id.filter(|id| !id.is_empty())
        && let Some(server) = scope.cloud.look::<Server>(id).await?.filter(is_there)
    {
        return Ok(Some(server));
    }
    Ok(named(scope, name).await?.into_iter().find(is_there))
}

fn is_there(server: &Server) -> bool {
    server.status != "DELETED"
}

/// Servers of that name with our mark.
async fn named(scope: &Scope, name: &str) -> Result<Vec<Server>> {
    // Nova reads the name as a regular expression.
    let mut found = scope.cloud.list::<Server>(&Query::by_name(&format!("^{}$", name.replace('.', "\\.")))).await?;
    found.retain(|s| s.name == name && s.metadata.get(names::OWNER_KEY) == Some(&scope.resource));
    Ok(found)
}

/// Makes what is missing and returns the server. Ids are in `resolved` and `resources` as soon as they are known.
pub async fn ensure(
    scope: &Scope,
    wanted: &Wanted<'_>,
    resolved: &mut ResolvedMachine,
    resources: &mut MachineResources,
) -> Result<Server> {
    if let Some(server) = find(scope, None, wanted.name).await? {
        return Ok(server);
    }
    resolve(scope, wanted, resolved).await?;
    let ports = ports(scope, resolved, resources).await?;
    let devices = devices(scope, wanted, resolved).await?;
    let spec = wanted.spec;
    let hints = hints(spec, resolved);
    let mut metadata: BTreeMap<String, String> =
        spec.server_metadata.iter().map(|m| (m.key.clone(), m.value.clone())).collect();
    metadata.extend(wanted.metadata.clone());
    metadata.insert(names::OWNER_KEY.to_owned(), scope.resource.clone());
    let mut tags: Vec<String> = scope.tags.iter().chain(&spec.tags).cloned().collect();
    tags.sort();
    tags.dedup();
    let draft = ServerDraft {
        name: wanted.name.to_owned(),
        flavor_ref: resolved.flavor_id.clone().unwrap_or_default(),
        image_ref: resolved.image_id.clone().filter(|_| spec.root_volume.is_none()),
        key_name: spec.ssh_key_name.clone().filter(|k| !k.is_empty()),
        user_data: wanted.user_data.clone(),
        availability_zone: wanted.zone.filter(|z| !z.is_empty()).map(str::to_owned),
        networks: ports.into_iter().map(|id| ServerNetwork { port: Some(id), uuid: None }).collect(),
        metadata,
        tags,
        config_drive: spec.config_drive,
        block_device_mapping_v2: devices,
        scheduler_hints: hints,
    };
    let made: Server = scope.cloud.create(&draft).await?;
    // The answer to a create holds little but the id.
    Ok(Server { name: wanted.name.to_owned(), status: "BUILD".to_owned(), ..made })
}

/// Looks up image, flavor, server group, networks and security groups, once.
async fn resolve(scope: &Scope, wanted: &Wanted<'_>, resolved: &mut ResolvedMachine) -> Result<()> {
    let (cloud, spec) = (&scope.cloud, wanted.spec);
    if resolved.flavor_id.is_none() {
        resolved.flavor_id = Some(find::flavor(cloud, &spec.flavor).await?.id);
    }
    if resolved.image_id.is_none() {
        resolved.image_id = Some(find::image(scope, &spec.image).await?.id);
    }
    if let (None, Some(group)) = (&resolved.server_group_id, &spec.server_group) {
        resolved.server_group_id = Some(find::server_group(cloud, group).await?.id);
    }
    if !resolved.ports.is_empty() {
        return Ok(());
    }
    let mut groups = wanted.groups.clone();
    for param in &spec.security_groups {
        groups.push(find::security_group(cloud, param).await?.id);
    }
    groups.sort();
    groups.dedup();
    let default = [PortOpts::default()];
    let asked = if spec.ports.is_empty() { &default[..] } else { &spec.ports[..] };
    let mut ports = Vec::new();
    for (index, port) in asked.iter().enumerate() {
        ports.push(resolve_port(scope, wanted, port, index, &groups).await?);
    }
    resolved.ports = ports;
    Ok(())
}

async fn resolve_port(
    scope: &Scope,
    wanted: &Wanted<'_>,
    port: &PortOpts,
    index: usize,
    groups: &[String],
) -> Result<ResolvedPort> {
    let cloud = &scope.cloud;
    let home = wanted.cluster.network.as_ref();
    let network_id = match (&port.network, home) {
        (Some(param), _) => find::network(cloud, param, "ports.network").await?.id,
        (None, Some(home)) => home.id.clone(),
        (None, None) => return blocked("DependencyFailed", "the cluster has no network"),
    };
    let mut fixed_ips = Vec::new();
    for ip in &port.fixed_ips {
        let subnet = match &ip.subnet {
            Some(param) => Some(find::subnet(cloud, param, Some(&network_id), "ports.fixedIPs.subnet").await?.id),
            None => None,
        };
        fixed_ips.push(ResolvedFixedIp { subnet, ip_address: ip.ip_address.clone() });
    }
    if fixed_ips.is_empty()
        && let Some(home) = home.filter(|h| h.id == network_id)
    {
        let subnets = match wanted.primary_subnet.filter(|_| port.network.is_none()) {
            Some(param) => vec![find::subnet(cloud, param, Some(&network_id), "primarySubnet").await?.id],
            None => home.subnets.iter().map(|s| s.id.clone()).collect(),
        };
        fixed_ips = subnets.into_iter().map(|id| ResolvedFixedIp { subnet: Some(id), ip_address: None }).collect();
    }
    let mut security_groups = Vec::new();
    if port.enable_port_security != Some(false) {
        for param in &port.security_groups {
            security_groups.push(find::security_group(cloud, param).await?.id);
        }
        if security_groups.is_empty() {
            security_groups = groups.to_vec();
        }
    }
    let suffix = port.name_suffix.clone().filter(|s| !s.is_empty()).unwrap_or_else(|| index.to_string());
    let mut tags: Vec<String> = scope.tags.iter().chain(&wanted.spec.tags).chain(&port.tags).cloned().collect();
    tags.sort();
    tags.dedup();
    Ok(ResolvedPort {
        name: format!("{}-{suffix}", wanted.name),
        network_id,
        fixed_ips,
        security_groups,
        tags,
        trunk: port.trunk.or(wanted.spec.trunk),
        admin_state_up: port.admin_state_up,
        allowed_address_pairs: port.allowed_address_pairs.clone(),
        description: port.description.clone(),
        enable_port_security: port.enable_port_security,
        host_id: port.host_id.clone(),
        mac_address: port.mac_address.clone(),
        profile: port.profile.clone(),
        propagate_uplink_status: port.propagate_uplink_status,
        value_specs: port.value_specs.clone(),
        vnic_type: port.vnic_type.clone(),
    })
}

/// The mark of a port; a description of the spec's goes in front of it.
fn port_description(scope: &Scope, port: &ResolvedPort) -> String {
    match port.description.as_deref().filter(|d| !d.is_empty()) {
        Some(text) => format!("{text} ({})", scope.description()),
        None => scope.description(),
    }
}

fn is_ours(scope: &Scope, description: &str) -> bool {
    let mark = scope.description();
    description == mark || description.ends_with(&format!("({mark})"))
}

async fn ports(scope: &Scope, resolved: &ResolvedMachine, resources: &mut MachineResources) -> Result<Vec<String>> {
    let mut ids = Vec::new();
    for port in &resolved.ports {
        let query = Query::by_name(&port.name).with("network_id", &port.network_id);
        let found = scope.cloud.list::<Port>(&query).await?;
        let found = found.into_iter().find(|p| p.name == port.name && is_ours(scope, &p.description));
        let made = match found {
            Some(port) if has_address(&port) => port,
            found => {
                if port.fixed_ips.is_empty() {
                    has_subnet(scope, &port.network_id, &port.name).await?;
                }
                if let Some(without) = found {
                    scope.cloud.remove::<Port>(&without.id).await?;
                    resources.ports.retain(|p| p.id != without.id);
                }
                scope.cloud.create::<Port>(&port_draft(scope, port)).await?
            }
        };
        if !resources.ports.iter().any(|p| p.id == made.id) {
            resources.ports.push(PortResource { id: made.id.clone() });
        }
        scope.tag::<Port>(&made.id, &made.tags, &port.tags).await?;
        if port.trunk == Some(true) {
            trunk(scope, port, &made.id).await?;
        }
        ids.push(made.id);
    }
    Ok(ids)
}

/// Nova takes a port without an address only if it is to have none, or gets one where the server comes to be.
fn has_address(port: &Port) -> bool {
    !port.fixed_ips.is_empty() || !port.device_id.is_empty() || matches!(&*port.ip_allocation, "none" | "deferred")
}

/// A port that is made while there is no subnet never gets an address.
async fn has_subnet(scope: &Scope, network: &str, port: &str) -> Result<()> {
    match scope.cloud.look::<Network>(network).await? {
        Some(network) if network.subnets.is_empty() => {
            wait("InstanceNotReady", format!("a subnet in network {}, for port {port}", network.name), SUBNET_PAUSE)
        }
        _ => Ok(()),
    }
}

/// Gives ports that exist the address pairs that the spec asks for now: the one thing that may change in them.
pub async fn pair(
    scope: &Scope,
    spec: &OpenStackMachineSpec,
    resolved: &mut ResolvedMachine,
    resources: &MachineResources,
) -> Result<()> {
    for (index, asked) in spec.ports.iter().enumerate() {
        let (Some(made), Some(resolved)) = (resources.ports.get(index), resolved.ports.get_mut(index)) else {
            continue;
        };
        let Some(port) = scope.cloud.look::<Port>(&made.id).await? else { continue };
        let wanted: Vec<AddressPair> = asked.allowed_address_pairs.iter().map(address_pair).collect();
        // Neutron fills in the port's own address where none is given.
        let plain = |pair: &AddressPair| {
            let mac = if pair.mac_address.is_empty() { &port.mac_address } else { &pair.mac_address };
            (pair.ip_address.clone(), mac.to_ascii_lowercase())
        };
        let set = |pairs: &[AddressPair]| pairs.iter().map(plain).collect::<BTreeSet<_>>();
        if set(&wanted) != set(&port.allowed_address_pairs) {
            let fields = json!({ "allowed_address_pairs": wanted });
            scope.cloud.update::<Port>(&made.id, &fields).await?;
        }
        resolved.allowed_address_pairs.clone_from(&asked.allowed_address_pairs);
    }
    Ok(())
}

fn address_pair(pair: &api::openstack_reference::AddressPair) -> AddressPair {
    AddressPair { ip_address: pair.ip_address.clone(), mac_address: pair.mac_address.clone().unwrap_or_default() }
}

fn port_draft(scope: &Scope, port: &ResolvedPort) -> PortDraft {
    let fixed = |f: &ResolvedFixedIp| FixedIp {
        subnet_id: f.subnet.clone().unwrap_or_default(),
        ip_address: f.ip_address.clone().unwrap_or_default(),
    };
    let mut profile = Map::new();
    if let Some(asked) = &port.profile {
        if asked.ovs_hw_offload == Some(true) {
            profile.insert("capabilities".into(), json!(["switchdev"]));
        }
        if asked.trusted_vf == Some(true) {
            profile.insert("trusted".into(), json!(true));
        }
    }
    let unsecured = port.enable_port_security == Some(false);
    PortDraft {
        name: port.name.clone(),
        description: port_description(scope, port),
        network_id: port.network_id.clone(),
        admin_state_up: port.admin_state_up,
        mac_address: port.mac_address.clone(),
        fixed_ips: port.fixed_ips.iter().map(fixed).collect(),
        security_groups: if unsecured {
            Some(Vec::new())
        } else {
            (!port.security_groups.is_empty()).then(|| port.security_groups.clone())
        },
        allowed_address_pairs: port.allowed_address_pairs.iter().map(address_pair).collect(),
        port_security_enabled: port.enable_port_security,
        host_id: port.host_id.clone(),
        vnic_type: port.vnic_type.clone(),
        binding_profile: profile,
        propagate_uplink_status: port.propagate_uplink_status,
        value_specs: port.value_specs.iter().map(|v| (v.key.clone(), v.value.clone())).collect(),
    }
}

async fn trunk(scope: &Scope, port: &ResolvedPort, id: &str) -> Result<()> {
    let trunk = match scope.own::<Trunk>(&port.name, Query::new().with("port_id", id)).await? {
        Some(trunk) => trunk,
        None => {
            let draft =
                TrunkDraft { name: port.name.clone(), description: scope.description(), port_id: id.to_owned() };
            scope.cloud.create(&draft).await?
        }
    };
    scope.tag::<Trunk>(&trunk.id, &trunk.tags, &port.tags).await
}

fn volume_name(server: &str, device: &str) -> String {
    format!("{server}-{device}")
}

async fn own_volumes(scope: &Scope, name: &str) -> Result<Vec<Volume>> {
    let found = scope.cloud.list::<Volume>(&Query::by_name(name)).await?;
    let ours = |v: &Volume| v.name == name && v.metadata.get(names::OWNER_KEY) == Some(&scope.resource);
    Ok(found.into_iter().filter(ours).collect())
}

fn volume_zone(zone: Option<&VolumeAvailabilityZone>, server: Option<&str>) -> Option<String> {
    let zone = zone?;
    match zone.from {
        Some(VolumeZoneSource::Machine) => server.map(str::to_owned),
        _ => zone.name.clone(),
    }
}

/// What becomes of the root volume and the further devices.
async fn devices(scope: &Scope, wanted: &Wanted<'_>, resolved: &ResolvedMachine) -> Result<Vec<BlockDevice>> {
    let spec = wanted.spec;
    let gib = |n: i32| u64::try_from(n).unwrap_or_default();
    let mut devices = Vec::new();
    if let Some(root) = &spec.root_volume {
        let draft = VolumeDraft {
            name: volume_name(wanted.name, "root"),
            size: Some(gib(root.size_gi_b)),
            image_ref: resolved.image_id.clone(),
            volume_type: root.type_.clone(),
            availability_zone: volume_zone(root.availability_zone.as_ref(), wanted.zone),
            ..Default::default()
        };
        let id = volume(scope, draft, wanted.age).await?;
        devices.push(attached(id, Some(0), None));
    } else if !spec.additional_block_devices.is_empty() {
        devices.push(BlockDevice {
            source_type: "image".to_owned(),
            destination_type: "local".to_owned(),
            uuid: resolved.image_id.clone(),
            boot_index: Some(0),
            delete_on_termination: Some(true),
            ..Default::default()
        });
    }
    for device in &spec.additional_block_devices {
        devices.push(further(scope, wanted, device).await?);
    }
    Ok(devices)
}

fn attached(id: String, boot_index: Option<i32>, tag: Option<String>) -> BlockDevice {
    BlockDevice {
        source_type: "volume".to_owned(),
        destination_type: "volume".to_owned(),
        uuid: Some(id),
        boot_index,
        delete_on_termination: Some(true),
        tag,
        ..Default::default()
    }
}

async fn further(scope: &Scope, wanted: &Wanted<'_>, device: &WantedDevice) -> Result<BlockDevice> {
    let size = u64::try_from(device.size_gi_b).ok();
    if device.storage.type_ == BlockDeviceType::Local {
        return Ok(BlockDevice {
            source_type: "blank".to_owned(),
            destination_type: "local".to_owned(),
            boot_index: Some(-1),
            volume_size: size,
            delete_on_termination: Some(true),
            tag: Some(device.name.clone()),
            ..Default::default()
        });
    }
    let asked = device.storage.volume.clone().unwrap_or_default();
    let draft = VolumeDraft {
        name: volume_name(wanted.name, &device.name),
        size,
        volume_type: asked.type_.clone(),
        availability_zone: volume_zone(asked.availability_zone.as_ref(), wanted.zone),
        ..Default::default()
    };
    let id = volume(scope, draft, wanted.age).await?;
    Ok(attached(id, Some(-1), Some(device.name.clone())))
}

/// A volume that can be attached: found or made, and waited for.
async fn volume(scope: &Scope, mut draft: VolumeDraft, age: Duration) -> Result<String> {
    let name = draft.name.clone();
    let found = own_volumes(scope, &name).await?.into_iter().next();
    let volume = match found {
        Some(volume) => volume,
        None => {
            draft.description = scope.description();
            draft.metadata.insert(names::OWNER_KEY.to_owned(), scope.resource.clone());
            scope.cloud.create(&draft).await?
        }
    };
    match volume.status.as_str() {
        "available" => Ok(volume.id),
        // Nothing is in it yet: it goes, and is made anew.
        "error" => {
            scope.cloud.remove::<Volume>(&volume.id).await?;
            wait("InstanceCreateFailed", format!("volume {name} to be made anew: it was in error"), VOLUME_PAUSE)
        }
        other => wait("InstanceNotReady", format!("volume {name} to be available (it is {other})"), pace(age)),
    }
}

fn hints(spec: &OpenStackMachineSpec, resolved: &ResolvedMachine) -> Map<String, Value> {
    let mut hints = Map::new();
    for hint in &spec.scheduler_hint_additional_properties {
        let value = &hint.value;
        let value = match value.type_ {
            SchedulerHintType::Bool => json!(value.bool),
            SchedulerHintType::String => json!(value.string),
            SchedulerHintType::Number => json!(value.number),
        };
        hints.insert(hint.name.clone(), value);
    }
    if let Some(group) = &resolved.server_group_id {
        hints.insert("group".to_owned(), json!(group));
    }
    hints
}

/// Takes the server away, then what was made for it. Returns when nothing is left.
pub async fn delete(
    scope: &Scope,
    id: Option<&str>,
    name: &str,
    spec: &OpenStackMachineSpec,
    age: Duration,
) -> Result<()> {
    if let Some(server) = find(scope, id, name).await? {
        if server.task_state.as_deref() != Some("deleting") {
            scope.cloud.remove::<Server>(&server.id).await?;
        }
        return wait("InstanceDeleting", format!("server {name} to be gone"), pace(age));
    }
    let root = spec.root_volume.iter().map(|_| "root".to_owned());
    let further = spec.additional_block_devices.iter().filter(|d| d.storage.type_ == BlockDeviceType::Volume);
    for device in root.chain(further.map(|d| d.name.clone())) {
        for volume in own_volumes(scope, &volume_name(name, &device)).await? {
            match volume.status.as_str() {
                "available" | "error" => drop(scope.cloud.remove::<Volume>(&volume.id).await?),
                other => {
                    return wait(
                        "InstanceDeleting",
                        format!("volume {} to be free (it is {other})", volume.name),
                        pace(age),
                    );
                }
            }
        }
    }
    delete_ports(scope, name, spec).await
}

/// Names of the server's ports, each with whether it has a trunk.
fn port_names<'a>(name: &'a str, spec: &'a OpenStackMachineSpec) -> impl Iterator<Item = (String, bool)> + 'a {
    (0..spec.ports.len().max(1)).map(move |index| {
        let port = spec.ports.get(index);
        let suffix = port.and_then(|p| p.name_suffix.clone()).filter(|s| !s.is_empty());
        let trunk = port.and_then(|p| p.trunk).or(spec.trunk) == Some(true);
        (format!("{name}-{}", suffix.unwrap_or_else(|| index.to_string())), trunk)
    })
}

async fn own_ports(scope: &Scope, name: &str) -> Result<Vec<Port>> {
    let found = scope.cloud.list::<Port>(&Query::by_name(name)).await?;
    Ok(found.into_iter().filter(|port| port.name == name && is_ours(scope, &port.description)).collect())
}

async fn delete_port(scope: &Scope, id: &str, trunk: bool) -> Result<()> {
    if trunk {
        for trunk in scope.cloud.list::<Trunk>(&Query::new().with("port_id", id)).await? {
            scope.cloud.remove::<Trunk>(&trunk.id).await?;
        }
    }
    scope.cloud.remove::<Port>(id).await?;
    Ok(())
}

async fn delete_ports(scope: &Scope, name: &str, spec: &OpenStackMachineSpec) -> Result<()> {
    for (name, trunk) in port_names(name, spec) {
        for port in own_ports(scope, &name).await? {
            delete_port(scope, &port.id, trunk).await?;
        }
    }
    Ok(())
}

/// Takes away what a cloud made twice for a server that runs: late, when its answer had been given up. `ports` are those in use.
pub async fn delete_doubles(
    scope: &Scope,
    server: &Server,
    spec: &OpenStackMachineSpec,
    ports: &[PortResource],
) -> Result<()> {
    // Told as a fault of the server, it would not be settled, so not be looked at for doubles, so have no fault.
    doubles(scope, server, spec, ports).await.map_err(|stop| Stop::Aside(Box::new(stop)))
}

async fn doubles(scope: &Scope, server: &Server, spec: &OpenStackMachineSpec, ports: &[PortResource]) -> Result<()> {
    for (name, trunk) in port_names(&server.name, spec) {
        for port in own_ports(scope, &name).await? {
            if port.device_id.is_empty() && !ports.iter().any(|used| used.id == port.id) {
                tracing::info!(name, id = port.id, "a port that was made twice is deleted");
                delete_port(scope, &port.id, trunk).await?;
            }
        }
    }
    let root = spec.root_volume.iter().map(|_| "root");
    let further = spec.additional_block_devices.iter().filter(|d| d.storage.type_ == BlockDeviceType::Volume);
    for device in root.chain(further.map(|d| d.name.as_str())) {
        let free = |volume: &Volume| matches!(volume.status.as_str(), "available" | "error");
        for volume in own_volumes(scope, &volume_name(&server.name, device)).await?.into_iter().filter(free) {
            tracing::info!(name = volume.name, id = volume.id, "a volume that was made twice is deleted");
            scope.cloud.remove::<Volume>(&volume.id).await?;
        }
    }
    if !scope.doubts {
        return Ok(());
    }
    for other in named(scope, &server.name).await?.into_iter().filter(|other| other.id != server.id) {
        tracing::info!(name = other.name, id = other.id, "a server that was made twice is deleted");
        scope.cloud.remove::<Server>(&other.id).await?;
    }
    Ok(())
}

/// Takes away the ports of a server that is gone, with their trunks; not those that another has.
pub async fn delete_ports_of(scope: &Scope, gone: &str, ids: &[String]) -> Result<()> {
    let free = |port: &Port| port.device_id.is_empty() || port.device_id == gone;
    for id in ids {
        let Some(port) = scope.cloud.look::<Port>(id).await?.filter(|p| is_ours(scope, &p.description) && free(p))
        else {
            continue;
        };
        for trunk in scope.cloud.list::<Trunk>(&Query::new().with("port_id", &port.id)).await? {
            scope.cloud.remove::<Trunk>(&trunk.id).await?;
        }
        scope.cloud.remove::<Port>(&port.id).await?;
    }
    Ok(())
}
