//! Glance v2. An upload's size and hash are kept; its bytes are not, since nothing boots from them. What is to be downloaded
//! is not fetched: the image is active after a while, without a size.

use serde_json::{Map, Value, json};

use super::{
    fault::{Fault, Result},
    generic,
    http::{Caller, Reply, Request, owned, page, select, shown, visible},
    kind::Kind,
    state::State,
    table::{Row, SEQUENCE, number, text},
};

const WEB_DOWNLOAD: &str = "web-download";

pub fn handle(state: &mut State, request: &Request) -> Result<Reply> {
    let caller = request.caller()?;
    let path: Vec<&str> = request.path.iter().map(String::as_str).collect();
    let ["v2", rest @ ..] = path.as_slice() else { return Err(Fault::no_route()) };
    match (request.method.as_str(), rest) {
        ("GET", ["images"]) => list(state, request),
        ("POST", ["images"]) => {
            let body = request.body.as_object().ok_or_else(|| Fault::bad("The body is not an object"))?.clone();
            let row = create(state, &caller, &body)?;
            Ok(Reply::new(201, Value::Object(view(&row))))
        }
        ("GET", ["schemas", "image"]) => {
            Ok(Reply::ok(json!({"name": "image", "properties": {}, "additionalProperties": {"type": "string"}})))
        }
        ("GET", ["schemas", "images"]) => Ok(Reply::ok(json!({"name": "images", "properties": {}}))),
        ("GET", ["info", "stores"]) => Err(Fault::no_route()),
        ("GET", ["info", "import"]) => {
            Ok(Reply::ok(json!({"import-methods": {"description": "", "type": "array", "value": [WEB_DOWNLOAD]}})))
        }
        (_, ["images", id, rest @ ..]) => {
            let row = state.get(Kind::Image, id).filter(|r| visible(&caller, r));
            let row = row.ok_or_else(|| Fault::not_found("ImageNotFound", format!("No image found with ID {id}")))?;
            if request.method != http::Method::GET && !owned(&caller, &row) {
                return Err(Fault::forbidden(format!("You are not permitted to modify image {id}.")));
            }
            one(state, request, &caller, &row, rest)
        }
        _ => Err(Fault::no_route()),
    }
}

fn view(row: &Row) -> Row {
    let mut row = shown(row);
    row.remove("project_id");
    row
}

fn list(state: &State, request: &Request) -> Result<Reply> {
    let mut rows = select(state, request, Kind::Image, None)?;
    if let Some(visibility) = request.query("visibility").filter(|v| *v != "all") {
        rows.retain(|r| text(r, "visibility") == visibility);
    }
    if !request.is_set("os_hidden") {
        rows.retain(|r| !super::table::flag(r, "os_hidden"));
    }
    // Glance lists the newest first.
    rows.sort_by_key(|r| std::cmp::Reverse(number(r, SEQUENCE)));
    let (rows, next) = page(request, rows)?;
    let mut body = json!({
        "images": rows.iter().map(|r| Value::Object(view(r))).collect::<Vec<_>>(), "first": "/v2/images", "schema": "/v2/schemas/images",
    });
    if let Some(marker) = next {
        let limit = request.query("limit").unwrap_or_default();
        body["next"] = json!(format!("/v2/images?limit={limit}&marker={marker}"));
    }
    Ok(Reply::ok(body))
}

fn create(state: &mut State, caller: &Caller, body: &Map<String, Value>) -> Result<Row> {
    let visibility = body.get("visibility").and_then(Value::as_str).unwrap_or("shared");
    if !matches!(visibility, "shared" | "private" | "public" | "community") {
        return Err(Fault::bad(format!("Invalid visibility value: {visibility}")));
    }
    if visibility == "public" && !caller.admin {
        return Err(Fault::forbidden("You are not authorized to complete publicize_image action."));
    }
    if body.len() > generic::LIST_LIMIT {
        return Err(Fault::new(
            http::StatusCode::PAYLOAD_TOO_LARGE,
            "Limit",
            "The limit on image properties is exceeded",
        ));
    }
    let read_only = ["status", "owner", "size", "checksum", "created_at", "updated_at"];
    let given = read_only.iter().find(|k| body.contains_key(**k) && (**k != "owner" || !caller.admin));
    if let Some(key) = given {
        return Err(Fault::forbidden(format!("Attribute '{key}' is read-only.")));
    }
    state.check_quota(Kind::Image, &caller.project)?;
    let asked =
        body.get("id").and_then(Value::as_str).filter(|id| uuid::Uuid::parse_str(id).is_ok()).map(str::to_owned);
    let id = asked.unwrap_or_else(|| state.uuid());
    if state.get(Kind::Image, &id).is_some() {
        return Err(Fault::conflict("Duplicate", format!("Image ID {id} already exists!")));
    }
    let mut row = image_row(&id, "", &caller.project, &state.options.now_text());
    row.extend(body.iter().map(|(k, v)| (k.clone(), v.clone())));
    row.insert("id".into(), json!(id));
    row.insert("visibility".into(), json!(visibility));
    row.insert("~public".into(), json!(matches!(visibility, "public" | "community")));
    state.put(Kind::Image, row.clone());
    Ok(row)
}

/// An image without data: `queued`.
pub fn image_row(id: &str, name: &str, project: &str, now: &str) -> Row {
    let row = json!({
        "id": id, "name": name, "status": "queued", "visibility": "shared", "owner": project, "project_id": project,
        "tags": [], "min_disk": 0, "min_ram": 0, "size": null, "virtual_size": null, "checksum": null,
        "os_hash_algo": null, "os_hash_value": null, "disk_format": null, "container_format": null, "protected": false,
        "os_hidden": false, "created_at": now, "updated_at": now, "file": format!("/v2/images/{id}/file"),
        "self": format!("/v2/images/{id}"), "schema": "/v2/schemas/image",
    });
    row.as_object().cloned().unwrap_or_default()
}

fn one(state: &mut State, request: &Request, caller: &Caller, row: &Row, rest: &[&str]) -> Result<Reply> {
    let id = text(row, "id");
    match (request.method.as_str(), rest) {
        ("GET", []) => Ok(Reply::ok(Value::Object(view(row)))),
        ("PATCH", []) => {
            let ops = request.body.as_array().ok_or_else(|| Fault::bad("The body is not a list of changes"))?;
            let changed = patch(state, caller, row, ops)?;
            state.put(Kind::Image, changed.clone());
            Ok(Reply::ok(Value::Object(view(&changed))))
        }
        ("DELETE", []) => {
            if super::table::flag(row, "protected") {
                return Err(Fault::forbidden(format!("Image {id} is protected and cannot be deleted.")));
            }
            state.remove(Kind::Image, id);
            Ok(Reply::empty(204))
        }
        ("PUT", ["file"]) => {
            let (size, hash) = request.upload.clone().ok_or_else(|| Fault::bad("The request has no image data"))?;
            if text(row, "status") != "queued" {
                return Err(Fault::conflict(
                    "InvalidImageStatusTransition",
                    "Image status transition from active to saving is not allowed",
                ));
            }
            if text(row, "disk_format").is_empty() || text(row, "container_format").is_empty() {
                return Err(Fault::bad("Properties disk_format, container_format must be set prior to saving data."));
            }
            let fields = json!({"status": "active", "size": size, "os_hash_algo": "sha512", "os_hash_value": hash, "updated_at": state.options.now_text()});
            state.set(Kind::Image, id, fields);
            Ok(Reply::empty(204))
        }
        ("POST", ["import"]) => {
            let method = request.body.get("method").cloned().unwrap_or_default();
            let given = |key: &str| method.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
            if given("name") != WEB_DOWNLOAD {
                return Err(Fault::bad(format!("Unknown import method name '{}'.", given("name"))));
            }
            let uri = given("uri");
            if uri.parse::<http::Uri>().map_or(true, |uri| !matches!(uri.scheme_str(), Some("http" | "https"))) {
                return Err(Fault::bad(format!("URI for web-download does not pass filtering: {uri}")));
            }
            if text(row, "status") != "queued" {
                let message = format!("Image {id} is in status {}: its data is imported once", text(row, "status"));
                return Err(Fault::conflict("InvalidImageStatusTransition", message));
            }
            if text(row, "disk_format").is_empty() || text(row, "container_format").is_empty() {
                return Err(Fault::bad("'disk_format' or 'container_format' needs to be set before import"));
            }
            let fields = json!({"status": "importing", "os_glance_importing_to_stores": "", "updated_at": state.options.now_text()});
            state.set(Kind::Image, id, fields);
            state.schedule(Kind::Image, id, state.options.volume_latency);
            Ok(Reply::empty(202))
        }
        ("GET", ["file"]) => {
            Err(Fault::new(http::StatusCode::NOT_IMPLEMENTED, "NotImplemented", "This cloud keeps no image data"))
        }
        ("GET", ["members"]) => Ok(Reply::ok(json!({"members": [], "schema": "/v2/schemas/members"}))),
        (_, ["tags", tag]) => generic::tags(state, request, Kind::Image, id, Some(tag)).map(|_| Reply::empty(204)),
        _ => Err(Fault::no_route()),
    }
}

/// An import has come to its end.
pub fn advance(state: &mut State, id: &str) {
    if state.get(Kind::Image, id).is_some_and(|row| text(&row, "status") == "importing") {
        let fields = json!({"status": "active", "updated_at": state.options.now_text()});
        state.set(Kind::Image, id, fields);
    }
}

fn patch(state: &State, caller: &Caller, row: &Row, ops: &[Value]) -> Result<Row> {
    let mut changed = row.clone();
    if ops.len() > generic::LIST_LIMIT {
        return Err(Fault::bad("Too many changes in one request"));
    }
    for op in ops {
        let given = |key: &str| op.get(key).and_then(Value::as_str).unwrap_or_default();
        let name = given("path").trim_start_matches('/').replace("~1", "/").replace("~0", "~");
        if name.is_empty()
            || name.starts_with('~')
            || matches!(name.as_str(), "id" | "status" | "size" | "project_id" | "owner" | "checksum")
        {
            return Err(Fault::forbidden(format!("Attribute '{name}' is read-only.")));
        }
        match given("op") {
            "remove" => drop(changed.remove(&name)),
            "add" | "replace" => drop(changed.insert(name, op.get("value").cloned().unwrap_or_default())),
            other => return Err(Fault::bad(format!("Unable to find '{other}' in JSON Schema change"))),
        }
    }
    let visibility = text(&changed, "visibility").to_owned();
    if visibility == "public" && text(row, "visibility") != "public" && !caller.admin {
        return Err(Fault::forbidden("You are not authorized to complete publicize_image action."));
    }
    changed.insert("~public".into(), json!(matches!(visibility.as_str(), "public" | "community")));
    changed.insert("updated_at".into(), json!(state.options.now_text()));
    Ok(changed)
}
