//! Keystone v3: who may ask.

mod catalog;
mod credential;
mod token;
mod users;

use serde_json::{Value, json};

use self::{
    catalog::{catalog, fixed},
    credential::credentials,
    users::{assignments, objects, own_projects},
};
pub use self::{
    token::{Signer, caller},
    users::{password_end, project_row, user_row},
};
use super::{
    fault::{Fault, Result},
    http::{Reply, Request},
    kind::Kind,
    state::State,
};

pub const DOMAIN: &str = "default";

/// Members and administrators: the two roles that exist.
pub const ROLES: [(&str, &str); 2] =
    [("6d656d626572000000000000000000aa", "member"), ("61646d696e00000000000000000000aa", "admin")];

pub fn versions(state: &State) -> Value {
    json!({"versions": {"values": [version(state)]}})
}

fn version(state: &State) -> Value {
    let href = format!("{}/identity/v3/", state.options.public_url);
    json!({"id": "v3.14", "status": "stable", "updated": "2020-04-07T00:00:00Z", "links": [{"rel": "self", "href": href}],
           "media-types": [{"base": "application/json", "type": "application/vnd.openstack.identity-v3+json"}]})
}

pub fn handle(state: &mut State, request: &Request, signer: &Signer) -> Result<Reply> {
    let path: Vec<&str> = request.path.iter().map(String::as_str).collect();
    let ["v3", rest @ ..] = path.as_slice() else { return Err(Fault::no_route()) };
    if rest.is_empty() {
        return Ok(Reply::ok(json!({ "version": version(state) })));
    }
    if let ("POST", ["auth", "tokens"]) = (request.method.as_str(), rest) {
        return token::issue(state, request, signer);
    }
    let caller = request.caller()?;
    match (request.method.as_str(), rest) {
        ("GET" | "HEAD", ["auth", "tokens"]) => token::show(state, request, signer),
        ("GET", ["auth", "catalog"]) => Ok(Reply::ok(json!({ "catalog": catalog(state) }))),
        ("GET", ["auth", "projects"]) => own_projects(state, &caller.user.clone()),
        ("GET", ["users", user, "projects"]) if *user == caller.user || caller.admin => own_projects(state, user),
        (_, ["users", user, "application_credentials", rest @ ..]) => {
            credentials(state, request, &caller, signer, user, rest)
        }
        ("GET", ["projects"]) if !caller.admin => own_projects(state, &caller.user.clone()),
        (_, [collection @ ("projects" | "users"), rest @ ..]) => {
            let kind = if *collection == "projects" { Kind::Project } else { Kind::User };
            objects(state, request, &caller, signer, kind, rest)
        }
        ("GET", ["role_assignments"]) if caller.admin => Ok(assignments(state, request)),
        ("GET", rest) => fixed(state, &caller, rest),
        _ => Err(Fault::no_route()),
    }
}

fn list_reply(many: &str, rows: &[Value]) -> Reply {
    Reply::ok(json!({ many: rows, "links": {"next": null, "self": null, "previous": null} }))
}
