//! Nova v2.1: servers, and what they are made of.

mod actions;
mod devices;
pub mod servers;
mod show;

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{
    Options,
    fault::{Fault, Result},
    generic,
    http::{Caller, Reply, Request, Service, listed, page, select, shown, visible},
    kind::Kind,
    state::State,
    table::{Row, number, text},
};

/// The highest microversion that is spoken: 2.90.
pub const MICROVERSION_MAX: u16 = 90;

pub fn handle(state: &mut State, request: &Request) -> Result<Reply> {
    let path: Vec<&str> = request.path.iter().map(String::as_str).collect();
    let caller = request.caller()?;
    let [version, rest @ ..] = path.as_slice() else { return Err(Fault::no_route()) };
    if *version != "v2.1" {
        return Err(Fault::no_route());
    }
    // Old catalogs have the project in the path.
    let rest = match rest {
        [project, rest @ ..] if *project == caller.project => rest,
        rest => rest,
    };
    match (request.method.as_str(), rest) {
        (_, ["servers", rest @ ..]) => servers::handle(state, request, &caller, rest),
        (_, ["flavors", rest @ ..]) => flavors(state, request, &caller, rest),
        (_, ["os-keypairs", rest @ ..]) => keypairs(state, request, &caller, rest),
        (_, ["os-server-groups", rest @ ..]) => server_groups(state, request, &caller, rest),
        (_, ["os-volumes_boot"]) => Err(Fault::no_route()),
        ("GET", ["os-availability-zone"]) => Ok(Reply::ok(zones(state, false))),
        ("GET", ["os-availability-zone", "detail"]) if caller.admin => Ok(Reply::ok(zones(state, true))),
        ("GET", ["limits"]) => limits(state, request, &caller),
        (_, ["os-quota-sets", rest @ ..]) => quotas(state, request, &caller, rest),
        ("GET", ["extensions"]) => Ok(Reply::ok(json!({"extensions": []}))),
        ("GET", ["os-hypervisors"] | ["os-hypervisors", "detail"]) if caller.admin => Ok(Reply::ok(hypervisors(state))),
        ("GET", ["os-services"]) if caller.admin => Ok(Reply::ok(services(state))),
        ("GET", ["os-aggregates"]) if caller.admin => Ok(Reply::ok(json!({"aggregates": []}))),
        ("GET", ["os-hypervisors" | "os-services" | "os-aggregates", ..] | ["os-availability-zone", _])
            if !caller.admin =>
        {
            Err(Fault::forbidden("Policy doesn't allow this to be performed."))
        }
        _ => Err(Fault::no_route()),
    }
}

fn zones(state: &State, detail: bool) -> Value {
    let zone = |name: &String| {
        let hosts: Map<String, Value> = state
            .options
            .hosts(name)
            .map(|h| (h, json!({"nova-compute": {"available": true, "active": true, "updated_at": null}})))
            .collect();
        let available = !state.injection.is_down(name);
        json!({"zoneName": name, "zoneState": {"available": available}, "hosts": if detail { json!(hosts) } else { Value::Null }})
    };
    json!({"availabilityZoneInfo": state.options.zone_names().iter().map(zone).collect::<Vec<_>>()})
}

fn hosts(state: &State) -> Vec<(String, String)> {
    let zones = state.options.zone_names();
    zones.iter().flat_map(|z| state.options.hosts(z).map(|h| (z.clone(), h))).collect()
}

fn hypervisors(state: &State) -> Value {
    let one = |(index, (_, host)): (usize, (String, String))| {
        let used = state.used(&host);
        json!({"id": uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_DNS, host.as_bytes()), "hypervisor_hostname": host,
               "state": "up", "status": "enabled", "hypervisor_type": "sandbox", "host_ip": format!("127.0.0.{}", index + 1),
               "vcpus": state.options.host_vcpus, "vcpus_used": used.cores, "memory_mb": state.options.host_ram_mib,
               "memory_mb_used": used.ram_mib, "running_vms": state.table(Kind::Server).count("~host", &host),
               "hypervisor_version": 1, "service": {"id": index, "host": host, "disabled_reason": null}})
    };
    json!({"hypervisors": hosts(state).into_iter().enumerate().map(one).collect::<Vec<_>>()})
}

fn services(state: &State) -> Value {
    let one = |(zone, host): (String, String)| {
        json!({"id": uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_DNS, host.as_bytes()), "binary": "nova-compute", "host": host,
               "zone": zone, "state": "up", "status": "enabled", "updated_at": state.options.now_text(), "forced_down": false,
               "disabled_reason": null})
    };
    json!({"services": hosts(state).into_iter().map(one).collect::<Vec<_>>()})
}

fn flavors(state: &mut State, request: &Request, caller: &Arc<Caller>, rest: &[&str]) -> Result<Reply> {
    let base = state.options.clone();
    let view = |row: &Row| {
        let mut row = shown(row);
        row.remove("project_id");
        row.insert("swap".into(), if request.microversion >= 75 { json!(0) } else { json!("") });
        if request.microversion < 61 {
            row.remove("extra_specs");
        }
        if request.microversion < 55 {
            row.remove("description");
        }
        row.insert("links".into(), links(&base, "flavors", text(&row, "id")));
        row
    };
    match (request.method.as_str(), rest) {
        ("GET", [] | ["detail"]) => {
            let rows = select(state, request, Kind::Flavor, None)?;
            let least = |key: &str| request.query(key).and_then(|v| v.parse::<i64>().ok()).unwrap_or(0);
            let (ram, disk) = (least("minRam"), least("minDisk"));
            let rows = rows.iter().filter(|r| number(r, "ram") >= ram && number(r, "disk") >= disk);
            let mut rows: Vec<Row> = rows.map(|r| view(r)).collect();
            if rest.is_empty() {
                rows.iter_mut()
                    .for_each(|r| r.retain(|k, _| matches!(k.as_str(), "id" | "name" | "links" | "description")));
            }
            listed(state, request, "flavors", rows)
        }
        ("GET", [id]) => {
            let row = generic::seen(state, caller, Kind::Flavor, id)?;
            Ok(Reply::one(200, "flavor", Value::Object(view(&row))))
        }
        ("GET", [id, "os-extra_specs"]) => {
            let row = generic::seen(state, caller, Kind::Flavor, id)?;
            Ok(Reply::one(200, "extra_specs", row.get("extra_specs").cloned().unwrap_or_else(|| json!({}))))
        }
        ("GET", [id, "os-flavor-access"]) => {
            generic::seen(state, caller, Kind::Flavor, id)?;
            Ok(Reply::ok(json!({"flavor_access": []})))
        }
        (_, [_, ..] | []) if !caller.admin => Err(Fault::forbidden("Policy doesn't allow this to be performed.")),
        ("POST", []) => {
            let body = request.object("flavor")?;
            let row = new_flavor(state, body)?;
            let id = text(&row, "id").to_owned();
            state.put(Kind::Flavor, row);
            let row = generic::seen(state, caller, Kind::Flavor, &id)?;
            Ok(Reply::one(200, "flavor", Value::Object(view(&row))))
        }
        ("POST", [id, "os-extra_specs"]) => {
            let row = generic::seen(state, caller, Kind::Flavor, id)?;
            let mut specs = row.get("extra_specs").and_then(Value::as_object).cloned().unwrap_or_default();
            specs.extend(request.object("extra_specs")?.clone());
            state.set(Kind::Flavor, id, json!({ "extra_specs": specs }));
            Ok(Reply::one(200, "extra_specs", Value::Object(specs)))
        }
        ("DELETE", [id]) => {
            generic::seen(state, caller, Kind::Flavor, id)?;
            state.remove(Kind::Flavor, id);
            Ok(Reply::empty(202))
        }
        _ => Err(Fault::method()),
    }
}

fn new_flavor(state: &mut State, body: &Map<String, Value>) -> Result<Row> {
    let name = body.get("name").and_then(Value::as_str).filter(|n| !n.is_empty() && n.len() <= generic::TEXT_LIMIT);
    let name = name.ok_or_else(|| generic::invalid("name", "a flavor has a name"))?;
    let count = |key: &str| {
        let value = body.get(key).and_then(|v| v.as_i64().or_else(|| v.as_str()?.parse().ok()));
        value.filter(|n| *n >= 0).ok_or_else(|| generic::invalid(key, "a number is needed"))
    };
    if state.table(Kind::Flavor).count("name", name) > 0 {
        return Err(Fault::conflict("FlavorExists", format!("Flavor with name {name} already exists.")));
    }
    let asked = body.get("id").and_then(Value::as_str).filter(|id| *id != "auto").map(str::to_owned);
    let id = asked.unwrap_or_else(|| state.uuid());
    let public = body.get("os-flavor-access:is_public").and_then(Value::as_bool).unwrap_or(true);
    let description = body.get("description").cloned().unwrap_or_default();
    Ok(flavor_row(&id, name, [count("vcpus")?, count("ram")?, count("disk").unwrap_or(0)], public, description))
}

/// `shape` is vCPUs, MiB of memory, GiB of disk.
pub fn flavor_row(id: &str, name: &str, shape: [i64; 3], public: bool, description: Value) -> Row {
    let [vcpus, ram, disk] = shape;
    let row = json!({
        "id": id, "name": name, "vcpus": vcpus, "ram": ram, "disk": disk, "OS-FLV-EXT-DATA:ephemeral": 0,
        "rxtx_factor": 1.0, "os-flavor-access:is_public": public, "OS-FLV-DISABLED:disabled": false,
        "description": description, "extra_specs": {}, "~public": public,
    });
    row.as_object().cloned().unwrap_or_default()
}

pub fn links(options: &Options, collection: &str, id: &str) -> Value {
    let base = format!("{}/compute", options.public_url);
    json!([{"rel": "self", "href": format!("{base}/v2.1/{collection}/{id}")}, {"rel": "bookmark", "href": format!("{base}/{collection}/{id}")}])
}

fn keypairs(state: &mut State, request: &Request, caller: &Arc<Caller>, rest: &[&str]) -> Result<Reply> {
    let id = |name: &str| format!("{}/{name}", caller.user);
    let missing =
        |name: &str| Fault::not_found("KeypairNotFound", format!("Keypair {name} not found for user {}", caller.user));
    match (request.method.as_str(), rest) {
        ("GET", []) => {
            let rows: Vec<Arc<Row>> = state.table(Kind::Keypair).find("~user_id", &caller.user).cloned().collect();
            let (rows, _) = page(request, rows)?;
            let one = |r: &Arc<Row>| json!({"keypair": {"name": text(r, "name"), "public_key": text(r, "public_key"), "fingerprint": text(r, "fingerprint"), "type": "ssh"}});
            Ok(Reply::ok(json!({"keypairs": rows.iter().map(one).collect::<Vec<_>>()})))
        }
        ("GET", [name]) => {
            let row = state.get(Kind::Keypair, &id(name)).ok_or_else(|| missing(name))?;
            let mut row = shown(&row);
            row.insert("id".into(), json!(row.get("~seq").cloned().unwrap_or(json!(1))));
            Ok(Reply::one(200, "keypair", Value::Object(row)))
        }
        ("POST", []) => {
            let mut body = request.object("keypair")?.clone();
            let given = body.get("public_key").and_then(Value::as_str).is_some_and(|key| !key.trim().is_empty());
            // Nova generates key pairs up to 2.91.
            let made = if given || request.microversion >= 92 { None } else { Some(ssh_key()?) };
            if let Some((public, _)) = &made {
                body.insert("public_key".into(), json!(public));
            }
            let row = new_keypair(state, caller, &body)?;
            let status = if request.microversion >= 2 { 201 } else { 200 };
            let mut answer = shown(&row);
            answer.remove("id");
            if let Some((_, private)) = made {
                answer.insert("private_key".into(), json!(private));
            }
            state.put(Kind::Keypair, row);
            Ok(Reply::one(status, "keypair", Value::Object(answer)))
        }
        ("DELETE", [name]) => {
            state.get(Kind::Keypair, &id(name)).ok_or_else(|| missing(name))?;
            state.remove(Kind::Keypair, &id(name));
            Ok(Reply::empty(if request.microversion >= 2 { 204 } else { 202 }))
        }
        _ => Err(Fault::method()),
    }
}

/// An RSA key as Nova generates it: the public half as OpenSSH writes it (RFC 4253, section 6.6), the private one in PEM.
fn ssh_key() -> Result<(String, String)> {
    use base64::Engine as _;
    use rcgen::PublicKeyData as _;
    use x509_parser::{prelude::FromDer, public_key::PublicKey, x509::SubjectPublicKeyInfo};
    let failed =
        || Fault::new(http::StatusCode::INTERNAL_SERVER_ERROR, "computeFault", "The key pair could not be generated.");
    let key = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048);
    let key = key.map_err(|_| failed())?;
    let info = key.subject_public_key_info();
    let (_, info) = SubjectPublicKeyInfo::from_der(&info).map_err(|_| failed())?;
    let Ok(PublicKey::RSA(public)) = info.parsed() else { return Err(failed()) };
    let mut blob = Vec::new();
    for part in [b"ssh-rsa".as_slice(), public.exponent, public.modulus] {
        blob.extend_from_slice(&u32::try_from(part.len()).unwrap_or_default().to_be_bytes());
        blob.extend_from_slice(part);
    }
    let encoded = base64::engine::general_purpose::STANDARD.encode(blob);
    Ok((format!("ssh-rsa {encoded} Generated-by-Nova"), key.serialize_pem()))
}

/// The longest public key, in bytes.
pub const PUBLIC_KEY_LIMIT: usize = 16 * 1024;

fn new_keypair(state: &mut State, caller: &Caller, body: &Map<String, Value>) -> Result<Row> {
    use base64::Engine as _;
    let given = |key: &str| body.get(key).and_then(Value::as_str).unwrap_or_default();
    let (name, public_key) = (given("name"), given("public_key").trim());
    if name.is_empty() || name.len() > generic::TEXT_LIMIT || name.contains('/') {
        return Err(Fault::bad("Keypair data is invalid: Keypair name contains unsafe characters"));
    }
    if public_key.is_empty() {
        return Err(Fault::bad("Invalid input for field/attribute keypair. 'public_key' is a required property"));
    }
    if public_key.len() > PUBLIC_KEY_LIMIT {
        return Err(Fault::bad("Keypair data is invalid: the public key is too long"));
    }
    let blob =
        public_key.split_whitespace().nth(1).and_then(|b| base64::engine::general_purpose::STANDARD.decode(b).ok());
    let blob = blob.ok_or_else(|| Fault::bad("Keypair data is invalid: failed to generate fingerprint"))?;
    let id = format!("{}/{name}", caller.user);
    if state.get(Kind::Keypair, &id).is_some() {
        return Err(Fault::conflict("KeyPairExists", format!("Key pair '{name}' already exists.")));
    }
    state.check_quota(Kind::Keypair, &caller.project)?;
    // Nova prints the MD5 form; the modern one names its hash.
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &blob);
    let fingerprint = format!("SHA256:{}", base64::engine::general_purpose::STANDARD_NO_PAD.encode(digest));
    let row = json!({
        "id": id, "name": name, "public_key": public_key, "fingerprint": fingerprint, "type": "ssh",
        "user_id": caller.user, "~user_id": caller.user, "created_at": state.options.now_text(), "deleted": false,
    });
    Ok(row.as_object().cloned().unwrap_or_default())
}

const POLICIES: &[&str] = &["affinity", "anti-affinity", "soft-affinity", "soft-anti-affinity"];

fn server_groups(state: &mut State, request: &Request, caller: &Arc<Caller>, rest: &[&str]) -> Result<Reply> {
    let view = |state: &State, row: &Row| {
        let mut row = shown(row);
        let members = state.table(Kind::Server).find("~group", text(&row, "id"));
        let members: Vec<Value> = members.map(|s| json!(text(s, "id"))).collect();
        row.insert("members".into(), json!(members));
        if request.microversion < 64 {
            let policy = row.remove("policy").unwrap_or_default();
            row.insert("policies".into(), json!([policy]));
            row.insert("metadata".into(), json!({}));
            row.remove("rules");
        }
        Value::Object(row)
    };
    match (request.method.as_str(), rest) {
        ("GET", []) => {
            let all = caller.admin && request.is_set("all_projects");
            let rows: Vec<Arc<Row>> = if all {
                state.table(Kind::ServerGroup).all().cloned().collect()
            } else {
                state.table(Kind::ServerGroup).find("project_id", &caller.project).cloned().collect()
            };
            let (rows, _) = page(request, rows)?;
            Ok(Reply::ok(json!({"server_groups": rows.iter().map(|r| view(state, r)).collect::<Vec<_>>()})))
        }
        ("POST", []) => {
            let body = request.object("server_group")?;
            let name =
                body.get("name").and_then(Value::as_str).filter(|n| !n.is_empty() && n.len() <= generic::TEXT_LIMIT);
            let name = name.ok_or_else(|| generic::invalid("name", "a server group has a name"))?.to_owned();
            let policy = match request.microversion < 64 {
                true => body.get("policies").and_then(|policies| policies.get(0)),
                false => body.get("policy"),
            };
            let policy = policy.and_then(Value::as_str).unwrap_or_default();
            if !POLICIES.contains(&policy) {
                return Err(generic::invalid("policy", &format!("'{policy}' is not one of {POLICIES:?}")));
            }
            state.check_quota(Kind::ServerGroup, &caller.project)?;
            let id = state.uuid();
            let row = json!({"id": id, "name": name, "policy": policy, "rules": {}, "project_id": caller.project, "user_id": caller.user});
            let row = row.as_object().cloned().unwrap_or_default();
            let answer = view(state, &row);
            state.put(Kind::ServerGroup, row);
            Ok(Reply::one(200, "server_group", answer))
        }
        (method, [id]) => {
            let row = state.get(Kind::ServerGroup, id).filter(|r| visible(caller, r));
            let row = row.ok_or_else(|| {
                Fault::not_found("InstanceGroupNotFound", format!("Instance group {id} could not be found."))
            })?;
            match method {
                "GET" => Ok(Reply::one(200, "server_group", view(state, &row))),
                "DELETE" => {
                    state.remove(Kind::ServerGroup, id);
                    Ok(Reply::empty(204))
                }
                _ => Err(Fault::method()),
            }
        }
        _ => Err(Fault::no_route()),
    }
}

/// The quotas that Nova knows, and what is used of them.
fn quota(state: &State, project: &str) -> Vec<(&'static str, i64, i64)> {
    let service = Service::Compute.key();
    let count = |kind: Kind| state.table(kind).count("project_id", project) as i64;
    let used = state.used(project);
    [
        ("instances", count(Kind::Server)),
        ("cores", used.cores),
        ("ram", used.ram_mib),
        ("server_groups", count(Kind::ServerGroup)),
        ("server_group_members", 0),
        ("key_pairs", 0),
        ("metadata_items", 0),
    ]
    .into_iter()
    .map(|(name, used)| (name, state.quota(service, project, name), used))
    .collect()
}

fn limits(state: &State, request: &Request, caller: &Caller) -> Result<Reply> {
    let project = request.query("tenant_id").unwrap_or(&caller.project);
    if project != caller.project && !caller.admin {
        return Err(Fault::forbidden("Policy doesn't allow os_compute_api:limits:other_project to be performed."));
    }
    let quota = quota(state, project);
    let get = |name: &str| quota.iter().find(|(n, ..)| *n == name).map_or((-1, 0), |(_, limit, used)| (*limit, *used));
    let absolute = json!({
        "maxTotalInstances": get("instances").0, "totalInstancesUsed": get("instances").1,
        "maxTotalCores": get("cores").0, "totalCoresUsed": get("cores").1,
        "maxTotalRAMSize": get("ram").0, "totalRAMUsed": get("ram").1,
        "maxServerGroups": get("server_groups").0, "totalServerGroupsUsed": get("server_groups").1,
        "maxServerGroupMembers": get("server_group_members").0, "maxTotalKeypairs": get("key_pairs").0,
        "maxServerMeta": get("metadata_items").0,
    });
    Ok(Reply::ok(json!({"limits": {"rate": [], "absolute": absolute}})))
}

fn quotas(state: &mut State, request: &Request, caller: &Caller, rest: &[&str]) -> Result<Reply> {
    let [project, view @ ..] = rest else { return Err(Fault::no_route()) };
    if *project != caller.project && !caller.admin {
        return Err(Fault::forbidden("Policy doesn't allow os_compute_api:os-quota-sets:show to be performed."));
    }
    match (request.method.as_str(), view) {
        ("GET", [] | ["defaults" | "detail"]) => {}
        ("PUT", []) if caller.admin => {
            super::set_quota(state, Service::Compute, project, request.object("quota_set")?)?;
        }
        _ => return Err(Fault::forbidden("Policy doesn't allow os_compute_api:os-quota-sets:update to be performed.")),
    }
    let mut set = Map::new();
    for (name, limit, used) in quota(state, project) {
        let value =
            if view == ["detail"] { json!({"limit": limit, "in_use": used, "reserved": 0}) } else { json!(limit) };
        set.insert(name.to_owned(), value);
    }
    set.insert("id".into(), json!(project));
    Ok(Reply::one(200, "quota_set", Value::Object(set)))
}
