//! Cinder v3: volumes, their snapshots and their types.

pub mod snapshots;

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{
    fault::{Fault, Result},
    generic,
    http::{Caller, Reply, Request, Service, listed, select, shown, visible},
    injection::Built,
    kind::Kind,
    state::State,
    table::{Row, flag, number, text},
};

/// GiB of one volume.
pub const SIZE_LIMIT: i64 = 64 * 1024;

pub fn handle(state: &mut State, request: &Request) -> Result<Reply> {
    let caller = request.caller()?;
    let path: Vec<&str> = request.path.iter().map(String::as_str).collect();
    let rest = match path.as_slice() {
        ["v3", project, rest @ ..] if *project == caller.project => rest,
        ["v3", rest @ ..] => rest,
        _ => return Err(Fault::no_route()),
    };
    match (request.method.as_str(), rest) {
        ("GET", ["volumes"] | ["volumes", "detail"]) => list(state, request, &caller, rest.len() == 2),
        ("POST", ["volumes"]) => {
            let id = make(state, &caller, &request.object("volume")?.clone())?;
            let row = generic::seen(state, &caller, Kind::Volume, &id)?;
            Ok(Reply::one(202, "volume", Value::Object(view(&row))))
        }
        (_, ["volumes", id, rest @ ..]) => volume(state, request, &caller, id, rest),
        (_, ["types", rest @ ..]) => types(state, request, &caller, rest),
        ("GET", ["limits"]) => {
            let absolute = json!({
                "maxTotalVolumes": state.quota("volume", &caller.project, "volumes"),
                "totalVolumesUsed": state.table(Kind::Volume).count("project_id", &caller.project),
                "maxTotalVolumeGigabytes": state.quota("volume", &caller.project, "gigabytes"),
                "totalGigabytesUsed": state.gigabytes(&caller.project),
                "maxTotalSnapshots": state.quota("volume", &caller.project, "snapshots"),
                "totalSnapshotsUsed": state.table(Kind::Snapshot).count("project_id", &caller.project), "maxTotalBackups": 0, "totalBackupsUsed": 0,
                "maxTotalBackupGigabytes": 0, "totalBackupGigabytesUsed": 0,
            });
            Ok(Reply::ok(json!({"limits": {"rate": [], "absolute": absolute}})))
        }
        (_, ["snapshots", rest @ ..]) => snapshots::handle(state, request, &caller, rest),
        ("GET", ["backups", ..]) => Ok(Reply::ok(json!({"backups": []}))),
        ("GET", ["os-availability-zone"]) => {
            let zone = |z: &String| json!({"zoneName": z, "zoneState": {"available": true}});
            let zones: Vec<Value> = state.options.zone_names().iter().map(zone).collect();
            Ok(Reply::ok(json!({ "availabilityZoneInfo": zones })))
        }
        (_, ["os-quota-sets", project]) => quotas(state, request, &caller, project),
        ("GET", ["extensions"]) => Ok(Reply::ok(json!({"extensions": []}))),
        _ => Err(Fault::no_route()),
    }
}

fn view(row: &Row) -> Row {
    let mut row = shown(row);
    row.remove("project_id");
    row
}

fn list(state: &State, request: &Request, caller: &Caller, detail: bool) -> Result<Reply> {
    let everybody = caller.admin && request.is_set("all_tenants");
    let scope = (!everybody).then_some(("project_id", caller.project.as_str()));
    let rows = select(state, request, Kind::Volume, scope)?;
    let cut = |row: &Row| {
        let mut row = view(row);
        if !detail {
            row.retain(|k, _| matches!(k.as_str(), "id" | "name" | "links"));
        }
        row
    };
    listed(state, request, "volumes", rows.iter().map(|r| cut(r)).collect())
}

fn volume(state: &mut State, request: &Request, caller: &Arc<Caller>, id: &str, rest: &[&str]) -> Result<Reply> {
    let row = state.get(Kind::Volume, id).filter(|r| visible(caller, r));
    let row = row.ok_or_else(|| Fault::not_found("VolumeNotFound", format!("Volume {id} could not be found.")))?;
    match (request.method.as_str(), rest) {
        ("GET", []) => Ok(Reply::one(200, "volume", Value::Object(view(&row)))),
        ("PUT", []) => {
            let body = request.object("volume")?;
            let mut fields = Map::new();
            for key in ["name", "description"] {
                if let Some(value) = body.get(key).filter(|v| v.as_str().is_none_or(|s| s.len() <= generic::TEXT_LIMIT))
                {
                    fields.insert(key.into(), value.clone());
                }
            }
            if let Some(metadata) = body.get("metadata") {
                let is_text = metadata.as_object().is_some_and(|all| all.values().all(Value::is_string));
                if !is_text {
                    return Err(Fault::bad("Invalid input for field/attribute metadata: it is no object of strings."));
                }
                fields.insert("metadata".into(), metadata.clone());
            }
            state.set(Kind::Volume, id, Value::Object(fields));
            let row = generic::seen(state, caller, Kind::Volume, id)?;
            Ok(Reply::one(200, "volume", Value::Object(view(&row))))
        }
        ("DELETE", []) => {
            let has_snapshots = state.table(Kind::Snapshot).count("volume_id", id) > 0;
            if has_snapshots || !matches!(text(&row, "status"), "available" | "error") {
                return Err(Fault::bad(
                    "Invalid volume: Volume status must be available or error or error_restoring or error_extending or error_managing and must not be migrating, attached, belong to a group, have snapshots, awaiting a transfer, or be disassociated from snapshots after volume transfer.",
                ));
            }
            state.set(Kind::Volume, id, json!({"status": "deleting"}));
            state.schedule(Kind::Volume, id, state.options.delete_latency);
            Ok(Reply::empty(202))
        }
        ("GET", ["metadata"]) => Ok(Reply::one(200, "metadata", row.get("metadata").cloned().unwrap_or_default())),
        ("POST", ["action"]) => {
            let size = request.body.get("os-extend").and_then(|b| b.get("new_size")).and_then(Value::as_i64);
            let size = size.ok_or_else(|| Fault::bad("There is no such action, or this cloud does not have it"))?;
            if size <= number(&row, "size") || size > SIZE_LIMIT {
                return Err(Fault::bad(
                    "Invalid input received: New size for extend must be greater than current size.",
                ));
            }
            state.set(Kind::Volume, id, json!({ "size": size }));
            Ok(Reply::empty(202))
        }
        _ => Err(Fault::no_route()),
    }
}

/// Creates a volume; its id.
pub fn make(state: &mut State, caller: &Caller, body: &Map<String, Value>) -> Result<String> {
    let given = |key: &str| body.get(key).and_then(Value::as_str).filter(|s| !s.is_empty());
    let snapshot = given("snapshot_id").map(|id| snapshots::source(state, caller, id)).transpose()?;
    let size = body.get("size").and_then(|v| v.as_i64().or_else(|| v.as_str()?.parse().ok()));
    let least = snapshot.as_ref().map(|row| number(row, "size"));
    if let (Some(size), Some(least)) = (size, least)
        && size < least
    {
        let why = format!("Volume size '{size}'GB cannot be smaller than the snapshot size {least}GB. ");
        return Err(Fault::bad(format!("Invalid input received: {why}They must be >= original snapshot size.")));
    }
    let size = size.or(least);
    let size = size.filter(|s| (1..=SIZE_LIMIT).contains(s));
    let size = size.ok_or_else(|| Fault::bad("Invalid input received: Volume size must be a positive integer"))?;
    let name = given("name").unwrap_or_default();
    if name.len() > generic::TEXT_LIMIT {
        return Err(Fault::bad("Name has more than 255 characters."));
    }
    let kind = match given("volume_type") {
        Some(kind) => kind.to_owned(),
        None => state.options.volume_types.first().cloned().unwrap_or_default(),
    };
    let found =
        state.table(Kind::VolumeType).get(&kind).or_else(|| state.table(Kind::VolumeType).find("name", &kind).next());
    let Some(kind) = found.map(|k| text(k, "name").to_owned()) else {
        return Err(Fault::not_found("VolumeTypeNotFound", format!("Volume type {kind} could not be found.")));
    };
    let zones = state.options.zone_names();
    let zone = given("availability_zone").map_or_else(|| zones.first().cloned().unwrap_or_default(), str::to_owned);
    if !zones.contains(&zone) {
        return Err(Fault::bad(format!("Availability zone '{zone}' is invalid.")));
    }
    let mut image = Value::Null;
    if let Some(id) = given("imageRef") {
        let found = state.get(Kind::Image, id).filter(|r| visible(caller, r));
        let found = found
            .ok_or_else(|| Fault::bad(format!("Invalid image identifier or unable to access requested image: {id}")))?;
        if number(&found, "min_disk") > size {
            return Err(Fault::bad(format!(
                "Invalid input received: Volume size {size}GB cannot be smaller than the image minDisk size {}GB.",
                number(&found, "min_disk")
            )));
        }
        image = json!({"image_id": id, "image_name": text(&found, "name")});
    }
    state.check_quota(Kind::Volume, &caller.project)?;
    let (limit, have) = (state.quota("volume", &caller.project, "gigabytes"), state.gigabytes(&caller.project));
    if limit >= 0 && have + size > limit {
        let message = format!(
            "VolumeSizeExceedsAvailableQuota: Requested volume or snapshot exceeds allowed gigabytes quota. Requested {size}G, quota is {limit}G and {have}G has been consumed."
        );
        return Err(Fault::new(http::StatusCode::PAYLOAD_TOO_LARGE, "OverLimit", message));
    }
    let id = state.uuid();
    let now = state.options.now_text();
    let row = json!({
        "id": id, "name": name, "description": given("description"), "status": "creating", "size": size,
        "volume_type": kind, "availability_zone": zone, "bootable": if image.is_null() { "false" } else { "true" },
        "metadata": body.get("metadata").cloned().unwrap_or_else(|| json!({})), "attachments": [], "encrypted": false,
        "multiattach": false, "snapshot_id": given("snapshot_id"), "source_volid": null, "consistencygroup_id": null,
        "replication_status": null, "migration_status": null, "created_at": now, "updated_at": now,
        "user_id": caller.user, "project_id": caller.project, "os-vol-tenant-attr:tenant_id": caller.project, "links": [],
        "volume_image_metadata": image,
    });
    let mut row = row.as_object().cloned().unwrap_or_default();
    if row.get("volume_image_metadata").is_some_and(Value::is_null) {
        row.remove("volume_image_metadata");
    }
    state.put(Kind::Volume, row);
    let slow = state.injection.slow(Built::Volume, name);
    state.schedule(Kind::Volume, &id, state.options.volume_latency + slow);
    Ok(id)
}

/// Ties a volume to a server; it is in use when it is made.
pub fn attach(state: &mut State, volume: &str, server: &str, ends_with_server: bool) {
    let creating = state.get(Kind::Volume, volume).is_some_and(|v| text(&v, "status") == "creating");
    let count = state.table(Kind::Volume).count("~server_id", server);
    let letter = char::from(b'a' + u8::try_from(count % 26).unwrap_or(0));
    let device = format!("/dev/vd{letter}");
    let now = state.options.now_text();
    state.set(Kind::Volume, volume, json!({
        "status": if creating { "creating" } else { "in-use" }, "~server_id": server, "~ends_with_server": ends_with_server,
        "~device": device,
        "attachments": [{"server_id": server, "attachment_id": volume, "id": volume, "volume_id": volume, "device": device, "host_name": null, "attached_at": now}],
    }));
}

pub fn detach(state: &mut State, volume: &str) {
    let fields = json!({"status": "available", "~server_id": null, "~ends_with_server": false, "attachments": []});
    state.set(Kind::Volume, volume, fields);
}

pub fn advance(state: &mut State, id: &str) {
    let Some(row) = state.get(Kind::Volume, id) else { return };
    match text(&row, "status") {
        "creating" => {
            if state.injection.fails(Built::Volume, text(&row, "name")).is_some() {
                state.set(Kind::Volume, id, json!({"status": "error"}));
                return;
            }
            let attached = !text(&row, "~server_id").is_empty();
            state.set(Kind::Volume, id, json!({"status": if attached { "in-use" } else { "available" }}));
        }
        "deleting" => state.remove(Kind::Volume, id),
        _ => {}
    }
}

fn types(state: &mut State, request: &Request, caller: &Caller, rest: &[&str]) -> Result<Reply> {
    match (request.method.as_str(), rest) {
        ("GET", []) => {
            let rows = select(state, request, Kind::VolumeType, None)?;
            listed(state, request, "volume_types", rows.iter().map(|r| shown(r)).collect())
        }
        ("GET", [id]) => {
            let first = state.options.volume_types.first().cloned().unwrap_or_default();
            let id = if *id == "default" { first.as_str() } else { id };
            let found =
                state.table(Kind::VolumeType).get(id).or_else(|| state.table(Kind::VolumeType).find("name", id).next());
            let found = found.filter(|r| visible(caller, r) || flag(r, "~public"));
            let found = found.ok_or_else(|| {
                Fault::not_found("VolumeTypeNotFound", format!("Volume type {id} could not be found."))
            })?;
            Ok(Reply::one(200, "volume_type", Value::Object(shown(found))))
        }
        ("GET", [_, "extra_specs"]) => Ok(Reply::ok(json!({"extra_specs": {}}))),
        _ => Err(Fault::forbidden("Policy doesn't allow volume_extension:types_manage to be performed.")),
    }
}

fn quotas(state: &mut State, request: &Request, caller: &Caller, project: &str) -> Result<Reply> {
    if project != caller.project && !caller.admin {
        return Err(Fault::forbidden("Policy doesn't allow volume_extension:quotas:show to be performed."));
    }
    match request.method.as_str() {
        "GET" => {}
        "PUT" if caller.admin => super::set_quota(state, Service::BlockStorage, project, request.object("quota_set")?)?,
        _ => return Err(Fault::forbidden("Policy doesn't allow volume_extension:quotas:update to be performed.")),
    }
    let count = state.table(Kind::Volume).count("project_id", project) as i64;
    let one = |name: &str, used: i64| {
        let limit = state.quota("volume", project, name);
        if request.is_set("usage") { json!({"limit": limit, "in_use": used, "reserved": 0}) } else { json!(limit) }
    };
    let snapshots = state.table(Kind::Snapshot).count("project_id", project) as i64;
    let set = json!({"id": project, "volumes": one("volumes", count), "snapshots": one("snapshots", snapshots), "gigabytes": one("gigabytes", state.gigabytes(project))});
    Ok(Reply::one(200, "quota_set", set))
}
