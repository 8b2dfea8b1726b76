//! Servers: from BUILD to ACTIVE or ERROR, their ports and volumes, and how they are shown.

use std::sync::Arc;

use base64::Engine as _;
use serde_json::{Map, Value, json};

use super::{
    actions,
    devices::{attach_ports, attach_volumes, ports_of, release},
    links,
    show::view,
};
use crate::cloud::{
    fault::{Fault, Result},
    generic,
    http::{Caller, Reply, Request, next_link, page, visible},
    injection::{Built, End},
    kind::Kind,
    network::groups,
    state::State,
    table::{Row, flag, list, number, text, values},
};

/// Base64 characters, as Nova's schema has it.
pub const USER_DATA_LIMIT: usize = 65_535;
/// Pairs of metadata, and characters of a value.
pub const METADATA_LIMIT: usize = 128;
pub const METADATA_VALUE_LIMIT: usize = 255;

pub fn handle(state: &mut State, request: &Request, caller: &Arc<Caller>, rest: &[&str]) -> Result<Reply> {
    match (request.method.as_str(), rest) {
        ("GET", []) => all(state, request, caller, false),
        ("GET", ["detail"]) => all(state, request, caller, true),
        ("POST", []) => create(state, request, caller),
        (_, [id, rest @ ..]) => {
            let row = state.get(Kind::Server, id).filter(|r| visible(caller, r)).ok_or_else(|| missing(id))?;
            match (request.method.as_str(), rest) {
                ("GET", []) => Ok(Reply::one(200, "server", Value::Object(view(state, request, caller, &row)))),
                ("PUT", []) => {
                    let body = request.object("server")?;
                    if let Some(name) = body.get("name").and_then(Value::as_str) {
                        state.set(
                            Kind::Server,
                            id,
                            json!({"name": checked_name(name)?, "updated": state.options.now_text()}),
                        );
                    }
                    let row = state.get(Kind::Server, id).unwrap_or(row);
                    Ok(Reply::one(200, "server", Value::Object(view(state, request, caller, &row))))
                }
                ("DELETE", []) => {
                    delete(state, id);
                    Ok(Reply::empty(204))
                }
                (_, rest) => actions::handle(state, request, caller, &row, rest),
            }
        }
        _ => Err(Fault::method()),
    }
}

pub fn missing(id: &str) -> Fault {
    Fault::not_found("InstanceNotFound", format!("Instance {id} could not be found."))
}

/// The one name that a pattern can match.
fn whole_name(pattern: &str) -> Option<String> {
    let plain = pattern.replace('\\', "");
    Some(plain.strip_prefix('^')?.strip_suffix('$')?.to_owned())
}

/// Nova reads names as regular expressions; the forms that people use are anchors and a part of the name.
fn name_matches(pattern: &str, name: &str) -> bool {
    if let Some(whole) = whole_name(pattern) {
        return whole == name;
    }
    let plain = pattern.replace('\\', "");
    match (plain.strip_prefix('^'), plain.strip_suffix('$')) {
        (Some(start), _) => name.starts_with(start.trim_end_matches(".*")),
        (None, Some(end)) => name.ends_with(end),
        (None, None) => name.contains(plain.as_str()),
    }
}

fn all(state: &State, request: &Request, caller: &Caller, detail: bool) -> Result<Reply> {
    let everybody = caller.admin && (request.is_set("all_tenants") || request.is_set("all_projects"));
    let project = request.query("project_id").or(request.query("tenant_id"));
    let table = state.table(Kind::Server);
    let project = if everybody { project } else { Some(caller.project.as_str()) };
    // Who names a server wholly is not made to wait for all others.
    let mut rows: Vec<Arc<Row>> = match (request.query("name").and_then(whole_name), project) {
        (Some(name), project) => {
            let mut rows: Vec<_> = table.find("name", &name).cloned().collect();
            rows.retain(|row| project.is_none_or(|project| text(row, "project_id") == project));
            rows
        }
        (None, Some(project)) => table.find("project_id", project).cloned().collect(),
        (None, None) => table.all().cloned().collect(),
    };
    if let Some(since) = request.query("changes-since") {
        let since: jiff::Timestamp =
            since.parse().map_err(|_| Fault::bad("Invalid input for query parameters changes-since."))?;
        let gone = state.tombstones().filter(|r| everybody || text(r, "project_id") == caller.project).cloned();
        rows.extend(gone.map(|r| {
            let mut r = Row::clone(&r);
            r.insert("status".into(), json!("DELETED"));
            Arc::new(r)
        }));
        rows.retain(|r| text(r, "updated").parse::<jiff::Timestamp>().is_ok_and(|t| t >= since));
    }
    let has_tags = |r: &Row, name: &str, all: bool, want: bool| {
        request.query(name).is_none_or(|wanted| {
            let have = values(r, "tags[]");
            let mut wanted = wanted.split(',');
            let found = if all {
                wanted.all(|t| have.iter().any(|h| h == t))
            } else {
                wanted.any(|t| have.iter().any(|h| h == t))
            };
            found == want
        })
    };
    let is =
        |r: &Row, query: &str, field: &str| request.query(query).is_none_or(|v| text(r, field).eq_ignore_ascii_case(v));
    rows.retain(|r| {
        request.query("name").is_none_or(|p| name_matches(p, text(r, "name")))
            && is(r, "status", "status")
            && is(r, "uuid", "id")
            && is(r, "host", "~host")
            && is(r, "flavor", "~flavor_id")
            && is(r, "image", "~image_id")
            && is(r, "key_name", "key_name")
            && is(r, "availability_zone", "OS-EXT-AZ:availability_zone")
            && has_tags(r, "tags", true, true)
            && has_tags(r, "tags-any", false, true)
            && has_tags(r, "not-tags", true, false)
            && has_tags(r, "not-tags-any", false, false)
            && request.query("ip").is_none_or(|ip| {
                let mut ports = state.table(Kind::Port).find("device_id", text(r, "id"));
                ports.any(|p| {
                    values(p, "fixed_ips[].ip_address").iter().any(|a| a.contains(ip.trim_matches(['^', '$'])))
                })
            })
    });
    // Nova lists the newest first.
    rows.reverse();
    let (rows, next) = page(request, rows)?;
    let show = |r: &Arc<Row>| {
        if detail {
            Value::Object(view(state, request, caller, r))
        } else {
            json!({"id": text(r, "id"), "name": text(r, "name"), "links": links(&state.options, "servers", text(r, "id"))})
        }
    };
    let mut body = json!({"servers": rows.iter().map(show).collect::<Vec<_>>()});
    if let Some(marker) = next {
        body["servers_links"] = json!([{"rel": "next", "href": next_link(state, request, &marker)}]);
    }
    Ok(Reply::ok(body))
}

fn checked_name(name: &str) -> Result<String> {
    let name = name.trim();
    if name.is_empty() || name.len() > generic::TEXT_LIMIT {
        return Err(Fault::bad(format!(
            "Invalid input for field/attribute name. Value: {name}. The name has 1 to 255 characters"
        )));
    }
    Ok(name.to_owned())
}

const KNOWN: &[&str] = &[
    "name",
    "flavorRef",
    "imageRef",
    "networks",
    "key_name",
    "user_data",
    "metadata",
    "availability_zone",
    "security_groups",
    "config_drive",
    "tags",
    "block_device_mapping_v2",
    "min_count",
    "max_count",
    "adminPass",
    "OS-DCF:diskConfig",
    "description",
    "return_reservation_id",
    "hostname",
    "accessIPv4",
    "accessIPv6",
];

fn create(state: &mut State, request: &Request, caller: &Arc<Caller>) -> Result<Reply> {
    let body = request.object("server")?.clone();
    if let Some(unknown) = body.keys().find(|k| !KNOWN.contains(&k.as_str())) {
        let message = format!("Additional properties are not allowed ('{unknown}' was unexpected)");
        return Err(Fault::bad(format!("Invalid input for field/attribute server. {message}")));
    }
    let count = |key: &str| body.get(key).and_then(|v| v.as_i64().or_else(|| v.as_str()?.parse().ok()));
    if count("min_count").unwrap_or(1) != 1 || count("max_count").unwrap_or(1) != 1 {
        return Err(Fault::bad("Invalid input: this cloud makes one server per request (min_count, max_count)"));
    }
    if body.contains_key("tags") && request.microversion < 52 {
        return Err(Fault::bad("Additional properties are not allowed ('tags' was unexpected)"));
    }
    let hints = request.body.get("os:scheduler_hints").or_else(|| request.body.get("OS-SCH-HNT:scheduler_hints"));
    let hints = hints.and_then(Value::as_object).cloned().unwrap_or_default();
    groups::ensure_default(state, &caller.project);
    let id = state.uuid();
    let row = draft(state, caller, &id, &body, &hints)?;
    state.put(Kind::Server, row);
    attach_ports(state, request, caller, &id, &body)?;
    attach_volumes(state, caller, &id, &body)?;
    let slow = state.injection.slow(Built::Server, body.get("name").and_then(Value::as_str).unwrap_or_default());
    state.schedule(Kind::Server, &id, state.options.boot_latency + slow);
    let password = state.random();
    let answer = json!({
        "id": id, "links": links(&state.options, "servers", &id), "OS-DCF:diskConfig": "MANUAL",
        "adminPass": format!("{password:x}"), "security_groups": [{"name": "default"}],
    });
    Ok(Reply::one(202, "server", answer))
}

fn draft(
    state: &mut State,
    caller: &Caller,
    id: &str,
    body: &Map<String, Value>,
    hints: &Map<String, Value>,
) -> Result<Row> {
    let given = |key: &str| body.get(key).and_then(Value::as_str).filter(|s| !s.is_empty());
    let name = checked_name(given("name").unwrap_or_default())?;
    let flavor_ref = given("flavorRef").map(|r| r.rsplit('/').next().unwrap_or(r)).unwrap_or_default();
    let flavor = state
        .get(Kind::Flavor, flavor_ref)
        .ok_or_else(|| Fault::bad(format!("Flavor {flavor_ref} could not be found.")))?;
    let image = match given("imageRef").map(|r| r.rsplit('/').next().unwrap_or(r)) {
        Some(image) => {
            let found = state.get(Kind::Image, image).filter(|r| visible(caller, r));
            let found = found.ok_or_else(|| Fault::bad("Can not find requested image"))?;
            if text(&found, "status") != "active" {
                return Err(Fault::bad(format!("Image {image} is not active.")));
            }
            check_fits(&flavor, &found)?;
            image.to_owned()
        }
        None if list(body, "block_device_mapping_v2").is_empty() => {
            return Err(Fault::bad("Invalid imageRef provided."));
        }
        None => String::new(),
    };
    if let Some(key) = given("key_name")
        && state.get(Kind::Keypair, &format!("{}/{key}", caller.user)).is_none()
    {
        return Err(Fault::bad("Invalid key_name provided."));
    }
    let user_data = given("user_data").map(str::to_owned);
    if let Some(data) = &user_data {
        if data.len() > USER_DATA_LIMIT {
            return Err(Fault::bad(format!(
                "Invalid input for field/attribute user_data. It is longer than {USER_DATA_LIMIT} characters"
            )));
        }
        let decoded = base64::engine::general_purpose::STANDARD.decode(data.replace('\n', ""));
        decoded.map_err(|_| Fault::bad("Userdata content must be base64 encoded."))?;
    }
    let metadata = metadata(body.get("metadata"))?;
    let zone = given("availability_zone").map(str::to_owned);
    if let Some(zone) = zone.as_deref().and_then(|z| z.split(':').next())
        && !state.options.zone_names().iter().any(|z| z == zone)
    {
        return Err(Fault::bad("The requested availability zone is not available"));
    }
    let group = hints.get("group").and_then(Value::as_str).map(str::to_owned);
    if let Some(group) = &group
        && state.get(Kind::ServerGroup, group).is_none_or(|g| !visible(caller, &g))
    {
        return Err(Fault::bad(format!("Instance group {group} could not be found.")));
    }
    check_quota(state, caller, &flavor)?;
    let tags: Vec<&str> = list(body, "tags").iter().filter_map(Value::as_str).collect();
    if tags.len() > generic::TAGS_LIMIT {
        return Err(Fault::bad(format!("Number of tags exceeds {}", generic::TAGS_LIMIT)));
    }
    let now = state.options.now_text();
    let row = json!({
        "id": id, "name": name, "status": "BUILD", "tenant_id": caller.project, "project_id": caller.project,
        "user_id": caller.user, "metadata": metadata, "tags": tags, "key_name": given("key_name"),
        "created": now, "updated": now, "config_drive": if body.get("config_drive").is_some_and(truthy) { "True" } else { "" },
        "OS-EXT-STS:task_state": "scheduling", "OS-EXT-STS:vm_state": "building", "OS-EXT-STS:power_state": 0,
        "OS-EXT-AZ:availability_zone": zone.as_deref().and_then(|z| z.split(':').next()).unwrap_or_default(),
        "~zone": zone, "~flavor_id": text(&flavor, "id"), "~image_id": image, "~user_data": user_data, "~group": group,
        "~host": "", "~vcpus": number(&flavor, "vcpus"), "~ram": number(&flavor, "ram"), "~disk": number(&flavor, "disk"),
        "~flavor_name": text(&flavor, "name"), "~description": given("description"),
        "~hostname": given("hostname").map_or_else(|| hostname(&name), str::to_owned),
    });
    Ok(row.as_object().cloned().unwrap_or_default())
}

/// What Nova makes of a display name.
fn hostname(name: &str) -> String {
    let clean = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '-' || c == '.' { c.to_ascii_lowercase() } else { '-' });
    clean.take(63).collect::<String>().trim_matches(['-', '.']).to_owned()
}

pub fn truthy(value: &Value) -> bool {
    value.as_bool().unwrap_or_else(|| value.as_str().is_some_and(|s| s.eq_ignore_ascii_case("true")))
}

fn check_fits(flavor: &Row, image: &Row) -> Result<()> {
    if number(image, "min_ram") > number(flavor, "ram") {
        return Err(Fault::bad("Flavor's memory is too small for requested image."));
    }
    if number(image, "min_disk") > number(flavor, "disk") && number(flavor, "disk") > 0 {
        return Err(Fault::bad("Flavor's disk is too small for requested image."));
    }
    Ok(())
}

pub fn metadata(value: Option<&Value>) -> Result<Map<String, Value>> {
    let map = match value {
        None | Some(Value::Null) => return Ok(Map::new()),
        Some(Value::Object(map)) => map.clone(),
        Some(_) => return Err(Fault::bad("Invalid input for field/attribute metadata.")),
    };
    if map.len() > METADATA_LIMIT {
        return Err(Fault::forbidden(format!("Maximum number of metadata items exceeds {METADATA_LIMIT}")));
    }
    if let Some((key, _)) =
        map.iter().find(|(k, v)| k.len() > 255 || v.as_str().is_none_or(|v| v.len() > METADATA_VALUE_LIMIT))
    {
        return Err(Fault::bad(format!(
            "Invalid input for field/attribute {key}. A value is text of at most 255 characters"
        )));
    }
    Ok(map)
}

fn check_quota(state: &State, caller: &Caller, flavor: &Row) -> Result<()> {
    state.check_quota(Kind::Server, &caller.project)?;
    let used = state.used(&caller.project);
    for (name, have, more) in
        [("cores", used.cores, number(flavor, "vcpus")), ("ram", used.ram_mib, number(flavor, "ram"))]
    {
        let limit = state.quota("compute", &caller.project, name);
        if limit >= 0 && have + more > limit {
            return Err(Fault::forbidden(format!(
                "Quota exceeded for {name}: Requested {more}, but already used {have} of {limit} {name}"
            )));
        }
    }
    Ok(())
}

pub fn delete(state: &mut State, id: &str) {
    let fields = json!({"OS-EXT-STS:task_state": "deleting", "~deleting": true, "updated": state.options.now_text()});
    state.set(Kind::Server, id, fields);
    state.schedule(Kind::Server, id, state.options.delete_latency);
}

/// Moves a server on when its time has come: deleted, or built.
pub fn advance(state: &mut State, id: &str) {
    let Some(row) = state.get(Kind::Server, id) else { return };
    if flag(&row, "~deleting") {
        release(state, id, true);
        state.remove(Kind::Server, id);
        return;
    }
    if text(&row, "status") != "BUILD" {
        if let Some(how) = state.injection.end_life(id) {
            end(state, id, how);
        }
        return;
    }
    if let Some(message) = state.injection.fails(Built::Server, text(&row, "name")) {
        release(state, id, false);
        return fail(state, id, &message);
    }
    let now = state.options.now_text();
    let Some((zone, host)) = place(state, &row) else {
        release(state, id, false);
        return fail(state, id, "No valid host was found. There are not enough hosts available.");
    };
    state.set(Kind::Server, id, json!({
        "status": "ACTIVE", "OS-EXT-STS:task_state": null, "OS-EXT-STS:vm_state": "active", "OS-EXT-STS:power_state": 1,
        "OS-EXT-AZ:availability_zone": zone, "~host": host, "updated": now, "OS-SRV-USG:launched_at": now,
    }));
    for port in ports_of(state, id) {
        let fields = json!({"status": "ACTIVE", "binding:host_id": host, "binding:vif_type": "ovs", "device_owner": format!("compute:{zone}")});
        state.set(Kind::Port, text(&port, "id"), fields);
    }
    if let Some(after) = state.injection.begin_life(&row) {
        state.schedule(Kind::Server, id, after);
    }
}

fn fail(state: &mut State, id: &str, message: &str) {
    let now = state.options.now_text();
    let fields = json!({
        "status": "ERROR", "OS-EXT-STS:task_state": null, "OS-EXT-STS:vm_state": "error", "updated": now,
        "fault": {"code": 500, "message": message, "created": now},
    });
    state.set(Kind::Server, id, fields);
}

/// Ends a server that runs, as a host does that is lost.
pub fn end(state: &mut State, id: &str, how: End) {
    let now = state.options.now_text();
    match how {
        End::Vanish => {
            release(state, id, true);
            state.remove(Kind::Server, id);
        }
        End::Shutoff => {
            let fields = json!({
                "status": "SHUTOFF", "OS-EXT-STS:vm_state": "stopped", "OS-EXT-STS:power_state": 4, "updated": now,
            });
            state.set(Kind::Server, id, fields);
        }
        End::Error => fail(state, id, "The host of the instance is down."),
    }
}

/// The host with the most room that satisfies zone and server group: (zone, host).
fn place(state: &State, server: &Row) -> Option<(String, String)> {
    let (zone, forced) = match text(server, "~zone").split_once(':') {
        Some((zone, host)) => (zone, Some(host)),
        None => (text(server, "~zone"), None),
    };
    let group = state.get(Kind::ServerGroup, text(server, "~group"));
    let policy = group.as_ref().map(|g| text(g, "policy")).unwrap_or_default();
    let members = |host: &str| {
        let group = text(server, "~group");
        if group.is_empty() {
            0
        } else {
            state.table(Kind::Server).find("~group", group).filter(|s| text(s, "~host") == host).count()
        }
    };
    let grouped = |host: &str| {
        let elsewhere = || {
            let mut placed = state.table(Kind::Server).find("~group", text(server, "~group"));
            placed.any(|s| !text(s, "~host").is_empty() && text(s, "~host") != host)
        };
        match policy {
            "anti-affinity" => members(host) == 0,
            "affinity" => !elsewhere(),
            _ => true,
        }
    };
    let options = &state.options;
    let fits = |host: &str| {
        let used = state.used(host);
        used.cores + number(server, "~vcpus") <= options.host_vcpus
            && used.ram_mib + number(server, "~ram") <= options.host_ram_mib
    };
    let candidates = super::hosts(state).into_iter().filter(|(z, host)| {
        (zone.is_empty() || z == zone)
            && !state.injection.is_down(z)
            && forced.is_none_or(|f| f == host)
            && fits(host)
            && grouped(host)
    });
    candidates.min_by_key(|(_, host)| {
        let weight = match policy {
            "soft-anti-affinity" => members(host) as i64,
            "soft-affinity" => -(members(host) as i64),
            _ => 0,
        };
        (weight, state.used(host).cores)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_matched_as_nova_users_write_them() {
        for (pattern, name, want) in [
            ("^a-1$", "a-1", true),
            ("^a-1$", "a-10", false),
            ("a", "ba", true),
            ("^a", "ba", false),
            ("b$", "ab", true),
            ("x\\.y", "x.y", true),
        ] {
            assert_eq!(name_matches(pattern, name), want, "{pattern} {name}");
        }
    }

    #[test]
    fn hostnames_are_made_of_names() {
        assert_eq!(hostname("Demo_cp 1."), "demo-cp-1");
    }
}
