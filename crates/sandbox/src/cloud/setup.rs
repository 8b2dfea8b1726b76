//! What a new cloud holds, and what goes on after a restart.

use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    compute, identity,
    identity::Signer,
    image,
    kind::Kind,
    network,
    options::Login,
    state::State,
    table::{Row, flag, text},
};

/// Ids of what is set up are made from names, so that they are the same in every sandbox.
fn stable(kind: &str, name: &str) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_DNS, format!("{name}.{kind}.sandbox").as_bytes())
}

pub fn external_network_id() -> String {
    stable("network", "external").to_string()
}

/// Adds what is missing; what a user changed or added stays.
pub fn fill(state: &mut State, signer: &Signer) {
    let options = state.options.clone();
    for (login, role) in [(&options.admin, "admin"), (&options.tenant, "member")] {
        let project = stable("project", &login.project).simple().to_string();
        if state.get(Kind::Project, &project).is_none() {
            state.put(Kind::Project, identity::project_row(&project, &login.project));
        }
        put_user(state, signer, login, &project, role);
    }
    for flavor in &options.flavors {
        let id = stable("flavor", &flavor.name).to_string();
        if state.get(Kind::Flavor, &id).is_none() {
            let shape = [flavor.vcpus, flavor.ram_mib, flavor.disk_gib].map(i64::from);
            state.put(Kind::Flavor, compute::flavor_row(&id, &flavor.name, shape, true, Value::Null));
        }
    }
    let admin = stable("project", &options.admin.project).simple().to_string();
    for spec in &options.images {
        let id = stable("image", &spec.name).to_string();
        if state.get(Kind::Image, &id).is_none() {
            let mut row = image::image_row(&id, &spec.name, &admin, &options.now_text());
            let known = json!({"status": "active", "visibility": "public", "~public": true, "disk_format": "qcow2",
                "container_format": "bare", "size": 1 << 20, "min_disk": spec.min_disk_gib, "min_ram": spec.min_ram_mib,
                "tags": spec.tags});
            row.extend(known.as_object().cloned().unwrap_or_default());
            state.put(Kind::Image, row);
        }
    }
    for name in &options.volume_types {
        let id = stable("volume-type", name).to_string();
        if state.get(Kind::VolumeType, &id).is_none() {
            let row = json!({"id": id, "name": name, "description": null, "is_public": true, "extra_specs": {},
                "os-volume-type-access:is_public": true, "qos_specs_id": null, "~public": true});
            state.put(Kind::VolumeType, row.as_object().cloned().unwrap_or_default());
        }
    }
    external(state, &admin);
    for login in [&options.admin, &options.tenant] {
        let project = stable("project", &login.project).simple().to_string();
        network::groups::ensure_default(state, &project);
    }
}

fn put_user(state: &mut State, signer: &Signer, login: &Login, project: &str, role: &str) {
    let id = stable("user", &login.user).simple().to_string();
    let mut row = identity::user_row(signer, &id, &login.user, &login.password, project, json!({ project: [role] }));
    row.insert("password_expires_at".into(), identity::password_end(&state.options));
    match state.get(Kind::User, &id) {
        None => state.put(Kind::User, row),
        // The password is the options' affair.
        Some(old) if text(&old, "~password") != text(&row, "~password") => {
            let password = ["~password", "password_expires_at"].map(|key| (key.to_owned(), row[key].clone()));
            state.set(Kind::User, &id, Value::Object(password.into_iter().collect()));
        }
        Some(_) => {}
    }
}

fn external(state: &mut State, admin: &str) {
    let id = external_network_id();
    if state.get(Kind::Network, &id).is_some() {
        return;
    }
    let options = state.options.clone();
    let now = options.now_text();
    let pool = options.floating_pool;
    let subnet_id = stable("subnet", "external").to_string();
    let common = json!({"project_id": admin, "tenant_id": admin, "created_at": now, "updated_at": now,
        "revision_number": 1, "description": "", "tags": [], "~public": true});
    let with = |row: Value| -> Row {
        let mut all = common.as_object().cloned().unwrap_or_default();
        all.extend(row.as_object().cloned().unwrap_or_default());
        all
    };
    state.put(Kind::Network, with(json!({
        "id": id, "name": options.external_network, "router:external": true, "shared": false, "is_default": true,
        "admin_state_up": true, "status": "ACTIVE", "mtu": 1500, "port_security_enabled": true,
        "availability_zone_hints": [], "availability_zones": options.zone_names(), "provider:network_type": "flat",
        "provider:physical_network": "public", "provider:segmentation_id": null, "dns_domain": "", "qos_policy_id": null,
        "ipv4_address_scope": null, "ipv6_address_scope": null, "vlan_transparent": null,
    })));
    let hosts: (u32, u32) = (pool.network().into(), pool.broadcast().into());
    let at = |n: u32| std::net::Ipv4Addr::from(n).to_string();
    state.put(
        Kind::Subnet,
        with(json!({
            "id": subnet_id, "name": format!("{}-subnet", options.external_network), "network_id": id,
            "cidr": pool.trunc().to_string(), "ip_version": 4, "gateway_ip": at(hosts.0 + 1), "enable_dhcp": false,
            "dns_nameservers": [], "host_routes": [], "service_types": [], "subnetpool_id": null, "segment_id": null,
            "ipv6_address_mode": null, "ipv6_ra_mode": null, "dns_publish_fixed_ip": false,
            "allocation_pools": [{"start": at(hosts.0 + 2), "end": at(hosts.1 - 1)}],
        })),
    );
}

/// Schedules what was under way when the cloud was closed.
pub fn resume(state: &mut State) {
    let options = state.options.clone();
    begin_again(state, &options);
}

/// Gives all that is under way the time that it takes in a cloud without faults.
pub fn begin_again(state: &mut State, options: &super::Options) {
    let unfinished = |state: &State, kind: Kind, is: fn(&Row) -> bool| -> Vec<String> {
        state.table(kind).all().filter(|r| is(r)).map(|r| text(r, "id").to_owned()).collect()
    };
    for id in unfinished(state, Kind::Server, |r| text(r, "status") == "BUILD" || flag(r, "~deleting")) {
        state.schedule(Kind::Server, &id, options.boot_latency);
    }
    for id in unfinished(state, Kind::LoadBalancer, |r| text(r, "provisioning_status").starts_with("PENDING")) {
        state.schedule(Kind::LoadBalancer, &id, options.lb_latency);
    }
    for id in unfinished(state, Kind::Volume, |r| matches!(text(r, "status"), "creating" | "deleting")) {
        state.schedule(Kind::Volume, &id, options.volume_latency);
    }
    for id in unfinished(state, Kind::Snapshot, |r| matches!(text(r, "status"), "creating" | "deleting")) {
        state.schedule(Kind::Snapshot, &id, options.volume_latency);
    }
    for id in unfinished(state, Kind::Image, |r| text(r, "status") == "importing") {
        state.schedule(Kind::Image, &id, options.volume_latency);
    }
}
