//! Application credentials: each belongs to one user and one project.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    list_reply,
    token::Signer,
    users::{find_user, roles},
};
use crate::cloud::{
    fault::{Fault, Result},
    generic,
    http::{Caller, Reply, Request, shown},
    kind::Kind,
    state::State,
    table::{Row, list, text},
};

/// Application credentials of one user.
pub const CREDENTIALS_LIMIT: usize = 100;

pub fn credentials(
    state: &mut State,
    request: &Request,
    caller: &Caller,
    signer: &Signer,
    user: &str,
    rest: &[&str],
) -> Result<Reply> {
    if caller.user != user && !(caller.admin && request.method == http::Method::GET) {
        return Err(Fault::forbidden(
            "You are not authorized to perform the requested action: identity:application_credentials.",
        ));
    }
    if caller.restricted && request.method != http::Method::GET {
        return Err(Fault::forbidden(
            "You are not authorized to perform the requested action: Using method 'application_credential' is not allowed for managing additional application credentials..",
        ));
    }
    let kind = Kind::ApplicationCredential;
    match (request.method.as_str(), rest) {
        ("GET", []) => {
            let rows = state.table(kind).find("~user_id", user);
            let rows = rows.filter(|r| request.query("name").is_none_or(|n| text(r, "name") == n));
            Ok(list_reply("application_credentials", &rows.map(|r| Value::Object(shown(r))).collect::<Vec<_>>()))
        }
        ("POST", []) => {
            let body = request.object("application_credential")?;
            let name =
                body.get("name").and_then(Value::as_str).filter(|n| !n.is_empty() && n.len() <= generic::TEXT_LIMIT);
            let name = name.ok_or_else(|| Fault::bad("'name' is a required property"))?.to_owned();
            if state.table(kind).find("~user_id", user).any(|c| text(c, "name") == name) {
                let message =
                    "Conflict occurred attempting to store application_credential - Duplicate entry found with name.";
                return Err(Fault::conflict("", message));
            }
            if state.table(kind).count("~user_id", user) >= CREDENTIALS_LIMIT {
                return Err(Fault::forbidden(format!(
                    "Unable to create additional application credentials, maximum of {CREDENTIALS_LIMIT} already exceeded for user."
                )));
            }
            let ends = match body.get("expires_at").filter(|given| !given.is_null()) {
                None => Value::Null,
                Some(given) => {
                    let ends = given.as_str().and_then(time).filter(|ends| *ends > state.options.now());
                    let ends = ends.ok_or_else(|| {
                        Fault::bad(format!(
                            "Invalid input for field 'expires_at': {given} is not a time that is to come."
                        ))
                    })?;
                    json!(ends.strftime("%Y-%m-%dT%H:%M:%S.000000").to_string())
                }
            };
            let secret = body.get("secret").and_then(Value::as_str).map(str::to_owned);
            let secret = secret
                .unwrap_or_else(|| format!("{:016x}{:016x}{:016x}", state.random(), state.random(), state.random()));
            let id = state.uuid().replace('-', "");
            let roles: Vec<Value> = if list(body, "roles").is_empty() {
                let user = state.get(Kind::User, user).map(|u| roles(&u, &caller.project)).unwrap_or_default();
                user.iter().map(|r| json!({ "name": r })).collect()
            } else {
                list(body, "roles").to_vec()
            };
            let row = json!({
                "id": id, "name": name, "description": body.get("description").cloned().unwrap_or_default(), "roles": roles,
                "project_id": caller.project, "unrestricted": body.get("unrestricted").cloned().unwrap_or(json!(false)),
                "expires_at": ends, "~user_id": user, "links": {},
                "~secret": signer.sign(&format!("secret/{id}"), &secret),
            });
            let row = row.as_object().cloned().unwrap_or_default();
            let mut answer = shown(&row);
            answer.insert("secret".into(), json!(secret));
            state.put(kind, row);
            Ok(Reply::one(201, "application_credential", Value::Object(answer)))
        }
        (method, [id]) => {
            let row = state.get(kind, id).filter(|r| text(r, "~user_id") == user);
            let row =
                row.ok_or_else(|| Fault::not_found("", format!("Could not find Application Credential: {id}.")))?;
            match method {
                "GET" => Ok(Reply::one(200, "application_credential", Value::Object(shown(&row)))),
                "DELETE" => {
                    state.remove(kind, id);
                    Ok(Reply::empty(204))
                }
                _ => Err(Fault::method()),
            }
        }
        _ => Err(Fault::no_route()),
    }
}

pub fn find_credential(state: &State, wanted: &Value) -> Option<Arc<Row>> {
    let given = |key: &str| wanted.get(key).and_then(Value::as_str);
    if let Some(id) = given("id") {
        return state.get(Kind::ApplicationCredential, id);
    }
    let user = find_user(state, wanted.get("user")?)?;
    let mut own = state.table(Kind::ApplicationCredential).find("~user_id", text(&user, "id"));
    own.find(|c| Some(text(c, "name")) == given("name")).cloned()
}

/// When an application credential ends, if it does.
pub fn end_of(credential: &Row) -> Option<Timestamp> {
    time(text(credential, "expires_at"))
}

/// Keystone takes times in UTC, with and without saying so.
pub fn time(given: &str) -> Option<Timestamp> {
    let here = || given.parse::<jiff::civil::DateTime>().ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok();
    given.parse().ok().or_else(|| here().map(|time| time.timestamp()))
}
