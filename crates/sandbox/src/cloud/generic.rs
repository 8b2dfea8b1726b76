//! Create, update and tags for the kinds that are described by their fields: one code path for Neutron and Octavia.

use serde_json::{Map, Value, json};

use super::{
    fault::{Fault, Result},
    http::{Caller, Request, owned, visible},
    kind::{Access, Field, Kind, Type},
    state::State,
    table::Row,
};

/// The longest name or description.
pub const TEXT_LIMIT: usize = 255;
/// The most elements of a list field.
pub const LIST_LIMIT: usize = 200;
/// Tags of one object, and the longest one, as Neutron has them.
pub const TAGS_LIMIT: usize = 50;
pub const TAG_LIMIT: usize = 255;

fn check(field: &Field, value: &Value) -> Result<()> {
    let fits = match field.kind {
        Type::Text => value.is_string(),
        Type::Maybe => value.is_string() || value.is_null(),
        Type::Flag => value.is_boolean(),
        Type::Number => value.is_i64() || value.is_null(),
        Type::List => value.is_array() || value.is_null(),
        Type::Object => value.is_object() || value.is_null(),
        Type::Any => true,
    };
    if !fits {
        let reason = format!("'{value}' is not of the type that the attribute takes");
        return Err(invalid(field.name, &reason));
    }
    if value.as_str().is_some_and(|s| s.len() > TEXT_LIMIT) {
        return Err(invalid(field.name, &format!("the text exceeds maximum length of {TEXT_LIMIT}")));
    }
    if value.as_array().is_some_and(|l| l.len() > LIST_LIMIT) {
        return Err(invalid(field.name, &format!("the list has more than {LIST_LIMIT} elements")));
    }
    Ok(())
}

pub fn invalid(name: &str, reason: &str) -> Fault {
    Fault::bad(format!("Invalid input for {name}. Reason: {reason}."))
}

pub fn invalid_input(message: impl std::fmt::Display) -> Fault {
    Fault::new(http::StatusCode::BAD_REQUEST, "InvalidInput", format!("Invalid input for operation: {message}."))
}

/// Strings for flags and numbers, as the command line sends them now and then.
fn coerce(field: &Field, value: &Value) -> Value {
    match (field.kind, value) {
        (Type::Flag, Value::String(s)) if s.eq_ignore_ascii_case("true") => json!(true),
        (Type::Flag, Value::String(s)) if s.eq_ignore_ascii_case("false") => json!(false),
        (Type::Number, Value::String(s)) => s.parse::<i64>().map(|n| json!(n)).unwrap_or_else(|_| value.clone()),
        (Type::List, Value::Null) => json!([]),
        (Type::Object, Value::Null) => json!({}),
        _ => value.clone(),
    }
}

/// A new row out of a request's body: its fields checked, the others at their defaults, an owner and an id.
pub fn build(state: &mut State, caller: &Caller, kind: Kind, body: &Map<String, Value>) -> Result<Row> {
    let meta = kind.meta();
    let mut row = Row::new();
    let mut project = caller.project.clone();
    for (name, value) in body {
        match name.as_str() {
            "tenant_id" | "project_id" => {
                let wanted = value.as_str().unwrap_or(&caller.project);
                if wanted != caller.project && !caller.admin {
                    return Err(Fault::forbidden("The caller may not act for another project"));
                }
                project = wanted.to_owned();
            }
            name => {
                let Some(field) = meta.fields.iter().find(|f| f.name == name) else {
                    return Err(Fault::bad(format!("Unrecognized attribute(s) '{name}'")));
                };
                let value = coerce(field, value);
                check(field, &value)?;
                row.insert(name.to_owned(), value);
            }
        }
    }
    for field in meta.fields {
        if row.contains_key(field.name) {
            continue;
        }
        if field.default.is_empty() {
            let message = format!("Failed to parse request. Required attribute '{}' not specified", field.name);
            return Err(Fault::bad(message));
        }
        row.insert(field.name.to_owned(), serde_json::from_str(field.default).unwrap_or(Value::Null));
    }
    state.check_quota(kind, &project)?;
    let now = state.options.now_text();
    row.insert("id".into(), json!(state.uuid()));
    row.insert("project_id".into(), json!(project));
    row.insert("tenant_id".into(), json!(project));
    row.insert("created_at".into(), json!(now));
    row.insert("updated_at".into(), json!(now));
    if meta.service == super::http::Service::Network {
        row.insert("revision_number".into(), json!(1));
    }
    row.entry("tags").or_insert_with(|| json!([]));
    check_tags(&row)?;
    Ok(row)
}

/// The row as it is after an update; fields that may not change are refused.
pub fn change(state: &State, kind: Kind, old: &Row, body: &Map<String, Value>) -> Result<Row> {
    let mut row = old.clone();
    for (name, value) in body {
        let Some(field) = kind.meta().fields.iter().find(|f| f.name == name) else {
            return Err(Fault::bad(format!("Unrecognized attribute(s) '{name}'")));
        };
        if field.access == Access::Create {
            return Err(Fault::bad(format!("Cannot update read-only attribute {name}")));
        }
        let value = coerce(field, value);
        check(field, &value)?;
        row.insert(name.clone(), value);
    }
    check_tags(&row)?;
    touch(state, &mut row);
    Ok(row)
}

pub fn touch(state: &State, row: &mut Row) {
    row.insert("updated_at".into(), json!(state.options.now_text()));
    if let Some(revision) = row.get("revision_number").and_then(Value::as_i64) {
        row.insert("revision_number".into(), json!(revision + 1));
    }
}

fn check_tags(row: &Row) -> Result<()> {
    let tags = super::table::list(row, "tags");
    if tags.len() > TAGS_LIMIT {
        return Err(invalid("tags", &format!("the number of tags exceeds {TAGS_LIMIT}")));
    }
    match tags.iter().find(|t| t.as_str().is_none_or(|t| t.is_empty() || t.len() > TAG_LIMIT)) {
        Some(tag) => Err(invalid("tags", &format!("'{tag}' is not a tag"))),
        None => Ok(()),
    }
}

/// The row with that id if the caller may see it; the service's own 404 if not.
pub fn seen(state: &State, caller: &Caller, kind: Kind, id: &str) -> Result<std::sync::Arc<Row>> {
    state.get(kind, id).filter(|r| visible(caller, r)).ok_or_else(|| missing(kind, id))
}

/// The row with that id if the caller may change it.
pub fn changeable(state: &State, caller: &Caller, kind: Kind, id: &str) -> Result<std::sync::Arc<Row>> {
    let row = seen(state, caller, kind, id)?;
    if owned(caller, &row) {
        return Ok(row);
    }
    Err(Fault::forbidden(format!("rule:change_{} is disallowed by policy", kind.meta().one)))
}

pub fn missing(kind: Kind, id: &str) -> Fault {
    let label = kind.meta().label;
    let name = match kind {
        Kind::Network => "NetworkNotFound",
        Kind::Subnet => "SubnetNotFound",
        Kind::Port => "PortNotFound",
        Kind::Router => "RouterNotFound",
        Kind::FloatingIp => "FloatingIPNotFound",
        Kind::SecurityGroup => "SecurityGroupNotFound",
        Kind::SecurityGroupRule => "SecurityGroupRuleNotFound",
        Kind::Trunk => "TrunkNotFound",
        _ => "HTTPNotFound",
    };
    let message = match kind {
        Kind::SecurityGroup | Kind::SecurityGroupRule => format!("{label} {id} does not exist"),
        Kind::LoadBalancer | Kind::Listener | Kind::Pool | Kind::Member | Kind::HealthMonitor => {
            format!("{label} {id} not found.")
        }
        _ => format!("{label} {id} could not be found."),
    };
    Fault::not_found(name, message)
}

/// `GET|PUT|DELETE .../{id}/tags[/{tag}]`.
pub fn tags(
    state: &mut State,
    request: &Request,
    kind: Kind,
    id: &str,
    tag: Option<&str>,
) -> Result<super::http::Reply> {
    use super::http::Reply;
    let caller = request.caller()?;
    let row = seen(state, &caller, kind, id)?;
    let have = super::table::values(&row, "tags[]");
    if request.method == http::Method::GET {
        return match tag {
            None => Ok(Reply::ok(json!({ "tags": have }))),
            Some(tag) if have.iter().any(|t| t == tag) => Ok(Reply::empty(204)),
            Some(tag) => Err(Fault::not_found("TagNotFound", format!("Tag {tag} could not be found."))),
        };
    }
    changeable(state, &caller, kind, id)?;
    let want: Vec<String> = match (request.method.as_str(), tag) {
        ("PUT", None) => {
            let list =
                request.body.get("tags").and_then(Value::as_array).ok_or_else(|| invalid("tags", "not a list"))?;
            let mut tags: Vec<String> = list.iter().filter_map(|t| t.as_str().map(str::to_owned)).collect();
            tags.sort();
            tags.dedup();
            tags
        }
        ("PUT", Some(tag)) if have.iter().any(|t| t == tag) => have,
        ("PUT", Some(tag)) => have.into_iter().chain([tag.to_owned()]).collect(),
        ("DELETE", None) => Vec::new(),
        ("DELETE", Some(tag)) if !have.iter().any(|t| t == tag) => {
            return Err(Fault::not_found("TagNotFound", format!("Tag {tag} could not be found.")));
        }
        ("DELETE", Some(tag)) => have.into_iter().filter(|t| t != tag).collect(),
        _ => return Err(Fault::method()),
    };
    let mut changed = Row::clone(&row);
    changed.insert("tags".into(), json!(want));
    check_tags(&changed)?;
    touch(state, &mut changed);
    let body = json!({ "tags": want });
    state.put(kind, changed);
    Ok(match (request.method.as_str(), tag) {
        ("DELETE", _) => Reply::empty(204),
        (_, Some(_)) => Reply::empty(201),
        _ => Reply::ok(body),
    })
}
