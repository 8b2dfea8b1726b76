//! Snapshots of volumes.

use serde_json::{Map, Value, json};

use super::view;
use crate::cloud::{
    fault::{Fault, Result},
    generic,
    http::{Caller, Reply, Request, listed, select, visible},
    kind::Kind,
    state::State,
    table::{Row, text},
};

pub fn handle(state: &mut State, request: &Request, caller: &Caller, rest: &[&str]) -> Result<Reply> {
    match (request.method.as_str(), rest) {
        ("GET", [] | ["detail"]) => {
            let everybody = caller.admin && request.is_set("all_tenants");
            let scope = (!everybody).then_some(("project_id", caller.project.as_str()));
            let rows = select(state, request, Kind::Snapshot, scope)?;
            listed(state, request, "snapshots", rows.iter().map(|row| view(row)).collect())
        }
        ("POST", []) => {
            let id = make(state, caller, &request.object("snapshot")?.clone())?;
            let row = generic::seen(state, caller, Kind::Snapshot, &id)?;
            Ok(Reply::one(202, "snapshot", Value::Object(view(&row))))
        }
        (_, [id, rest @ ..]) => one(state, request, caller, id, rest),
        _ => Err(Fault::no_route()),
    }
}

fn found(state: &State, caller: &Caller, id: &str) -> Result<Row> {
    let row = state.get(Kind::Snapshot, id).filter(|row| visible(caller, row));
    let row = row.ok_or_else(|| Fault::not_found("SnapshotNotFound", format!("Snapshot {id} could not be found.")))?;
    Ok(row.as_ref().clone())
}

fn one(state: &mut State, request: &Request, caller: &Caller, id: &str, rest: &[&str]) -> Result<Reply> {
    let row = found(state, caller, id)?;
    match (request.method.as_str(), rest) {
        ("GET", []) => Ok(Reply::one(200, "snapshot", Value::Object(view(&row)))),
        ("GET", ["metadata"]) => Ok(Reply::one(200, "metadata", row.get("metadata").cloned().unwrap_or_default())),
        ("PUT", []) => {
            let body = request.object("snapshot")?;
            let mut fields = Map::new();
            for key in ["name", "description"] {
                if let Some(value) = body.get(key).filter(|v| v.as_str().is_none_or(|s| s.len() <= generic::TEXT_LIMIT))
                {
                    fields.insert(key.into(), value.clone());
                }
            }
            state.set(Kind::Snapshot, id, Value::Object(fields));
            let row = found(state, caller, id)?;
            Ok(Reply::one(200, "snapshot", Value::Object(view(&row))))
        }
        ("DELETE", []) => {
            if !matches!(text(&row, "status"), "available" | "error") {
                return Err(Fault::bad("Invalid snapshot: Snapshot status must be available or error."));
            }
            state.set(Kind::Snapshot, id, json!({"status": "deleting"}));
            state.schedule(Kind::Snapshot, id, state.options.delete_latency);
            Ok(Reply::empty(202))
        }
        _ => Err(Fault::no_route()),
    }
}

fn make(state: &mut State, caller: &Caller, body: &Map<String, Value>) -> Result<String> {
    let given = |key: &str| body.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let name = given("name").unwrap_or_default().to_owned();
    if name.len() > generic::TEXT_LIMIT {
        return Err(Fault::bad("Name has more than 255 characters."));
    }
    let volume =
        given("volume_id").ok_or_else(|| Fault::bad("Invalid input for field/attribute snapshot: volume_id"))?;
    let source = state.get(Kind::Volume, volume).filter(|row| visible(caller, row));
    let source =
        source.ok_or_else(|| Fault::not_found("VolumeNotFound", format!("Volume {volume} could not be found.")))?;
    let forced = body.get("force").is_some_and(|force| force == true || force == "true" || force == "True");
    let status = text(&source, "status");
    if status != "available" && !(forced && status == "in-use") {
        return Err(Fault::bad(format!(
            "Invalid volume: Volume {volume} status must be available, but current status is: {status}."
        )));
    }
    let (size, now) = (source.get("size").cloned().unwrap_or_default(), state.options.now_text());
    state.check_quota(Kind::Snapshot, &caller.project)?;
    let id = state.uuid();
    let row = json!({
        "id": id, "name": name, "description": given("description"), "status": "creating", "size": size,
        "volume_id": volume, "metadata": body.get("metadata").cloned().unwrap_or_else(|| json!({})),
        "created_at": now, "updated_at": now, "user_id": caller.user, "project_id": caller.project,
        "os-extended-snapshot-attributes:progress": "0%",
        "os-extended-snapshot-attributes:project_id": caller.project,
    });
    state.put(Kind::Snapshot, row.as_object().cloned().unwrap_or_default());
    state.schedule(Kind::Snapshot, &id, state.options.volume_latency);
    Ok(id)
}

/// The snapshot that a volume is to be made of.
pub fn source(state: &State, caller: &Caller, id: &str) -> Result<Row> {
    let row = found(state, caller, id)?;
    if text(&row, "status") != "available" {
        return Err(Fault::bad("Invalid snapshot: Originating snapshot status must be one of 'available' values"));
    }
    Ok(row)
}

pub fn advance(state: &mut State, id: &str) {
    let Some(row) = state.get(Kind::Snapshot, id) else { return };
    match text(&row, "status") {
        "creating" => {
            let fields = json!({"status": "available", "os-extended-snapshot-attributes:progress": "100%"});
            state.set(Kind::Snapshot, id, fields);
        }
        "deleting" => state.remove(Kind::Snapshot, id),
        _ => {}
    }
}
