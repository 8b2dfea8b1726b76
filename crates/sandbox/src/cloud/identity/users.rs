//! Users and projects, and who has which role where.

use std::sync::Arc;

use jiff::SignedDuration;
use serde_json::{Map, Value, json};

use super::{DOMAIN, ROLES, list_reply, token::Signer};
use crate::cloud::{
    fault::{Fault, Result},
    generic,
    http::{Caller, Reply, Request, select, shown},
    kind::Kind,
    options::Options,
    state::State,
    table::{Row, text},
};

pub fn objects(
    state: &mut State,
    request: &Request,
    caller: &Caller,
    signer: &Signer,
    kind: Kind,
    rest: &[&str],
) -> Result<Reply> {
    let meta = kind.meta();
    let missing = |id: &str| Fault::not_found("", format!("Could not find {}: {id}.", meta.one));
    let forbidden =
        || Fault::forbidden(format!("You are not authorized to perform the requested action: identity:{}.", meta.one));
    match (request.method.as_str(), rest) {
        ("GET", []) if caller.admin => {
            let rows = select(state, request, kind, None)?;
            Ok(list_reply(meta.many, &rows.iter().map(|r| Value::Object(shown(r))).collect::<Vec<_>>()))
        }
        ("GET", [id]) => {
            let row = state.get(kind, id).ok_or_else(|| missing(id))?;
            if !caller.admin && *id != caller.user && *id != caller.project {
                return Err(forbidden());
            }
            Ok(Reply::one(200, meta.one, Value::Object(shown(&row))))
        }
        _ if !caller.admin => Err(forbidden()),
        ("POST", []) => {
            let body = request.object(meta.one)?.clone();
            let row = new_object(state, signer, kind, &body)?;
            state.put(kind, row.clone());
            Ok(Reply::one(201, meta.one, Value::Object(shown(&row))))
        }
        ("PATCH", [id]) => {
            state.get(kind, id).ok_or_else(|| missing(id))?;
            let mut fields = Map::new();
            for (key, value) in request.object(meta.one)? {
                match key.as_str() {
                    "name" | "description" | "enabled" | "email" => drop(fields.insert(key.clone(), value.clone())),
                    "password" if kind == Kind::User => {
                        let sealed = signer.sign(&format!("password/{id}"), value.as_str().unwrap_or_default());
                        fields.insert("~password".into(), json!(sealed));
                        fields.insert("password_expires_at".into(), password_end(&state.options));
                    }
                    other => return Err(Fault::bad(format!("{other} cannot be changed here"))),
                }
            }
            state.set(kind, id, Value::Object(fields));
            let row = state.get(kind, id).ok_or_else(|| missing(id))?;
            Ok(Reply::one(200, meta.one, Value::Object(shown(&row))))
        }
        ("DELETE", [id]) => {
            state.get(kind, id).ok_or_else(|| missing(id))?;
            state.remove(kind, id);
            Ok(Reply::empty(204))
        }
        (method, [project, "users", user, "roles", rest @ ..]) if kind == Kind::Project => {
            grant(state, method, project, user, rest)
        }
        _ => Err(Fault::no_route()),
    }
}

fn new_object(state: &mut State, signer: &Signer, kind: Kind, body: &Map<String, Value>) -> Result<Row> {
    let given = |key: &str| body.get(key).and_then(Value::as_str).unwrap_or_default();
    let name = given("name");
    if name.is_empty() || name.len() > generic::TEXT_LIMIT {
        return Err(Fault::bad("'name' is a required property of 1 to 255 characters"));
    }
    if state.table(kind).count("name", name) > 0 {
        let label = kind.meta().label;
        let message =
            format!("Conflict occurred attempting to store {label} - Duplicate entry found with name {name}.");
        return Err(Fault::conflict("", message));
    }
    let id = state.uuid().replace('-', "");
    let mut row = if kind == Kind::Project {
        project_row(&id, name)
    } else {
        let mut row = user_row(signer, &id, name, given("password"), given("default_project_id"), json!({}));
        row.insert("password_expires_at".into(), password_end(&state.options));
        row
    };
    row.insert("description".into(), json!(given("description")));
    row.insert("enabled".into(), body.get("enabled").cloned().unwrap_or(json!(true)));
    Ok(row)
}

pub fn project_row(id: &str, name: &str) -> Row {
    let row = json!({"id": id, "name": name, "domain_id": DOMAIN, "parent_id": DOMAIN, "enabled": true, "is_domain": false, "description": "", "options": {}, "tags": [], "links": {}});
    row.as_object().cloned().unwrap_or_default()
}

/// `roles`: project id -> list of role names.
pub fn user_row(signer: &Signer, id: &str, name: &str, password: &str, project: &str, roles: Value) -> Row {
    let row = json!({
        "id": id, "name": name, "domain_id": DOMAIN, "enabled": true, "default_project_id": project, "description": "",
        "options": {}, "links": {}, "password_expires_at": null,
        "~password": signer.sign(&format!("password/{id}"), password), "~roles": roles,
    });
    row.as_object().cloned().unwrap_or_default()
}

/// When a password ends that is set now.
pub fn password_end(options: &Options) -> Value {
    let life = options.password_life.and_then(|life| SignedDuration::try_from(life).ok());
    let end = life.and_then(|life| options.now().checked_add(life).ok());
    end.map_or(Value::Null, |end| json!(end.strftime("%Y-%m-%dT%H:%M:%S.000000").to_string()))
}

pub fn own_projects(state: &State, user: &str) -> Result<Reply> {
    let user =
        state.get(Kind::User, user).ok_or_else(|| Fault::not_found("", format!("Could not find user: {user}.")))?;
    let ids = user
        .get("~roles")
        .and_then(Value::as_object)
        .map(|r| r.keys().cloned().collect::<Vec<_>>())
        .unwrap_or_default();
    let rows: Vec<Value> =
        ids.iter().filter_map(|id| state.get(Kind::Project, id)).map(|p| Value::Object(shown(&p))).collect();
    Ok(list_reply("projects", &rows))
}

/// Who has which role in which project.
pub fn assignments(state: &State, request: &Request) -> Reply {
    let wanted = |query: &str, id: &str| request.query(query).is_none_or(|w| w == id);
    let mut found = Vec::new();
    for user in state.table(Kind::User).all().filter(|u| wanted("user.id", text(u, "id"))) {
        let projects = user.get("~roles").and_then(Value::as_object).into_iter().flatten();
        for (project, _) in projects.filter(|(p, _)| wanted("scope.project.id", p)) {
            for name in roles(user, project) {
                let id = ROLES.iter().find(|(_, n)| *n == name).map(|(id, _)| *id).unwrap_or_default();
                if wanted("role.id", id) {
                    found.push(json!({"user": {"id": text(user, "id")}, "role": {"id": id}, "scope": {"project": {"id": project}}, "links": {}}));
                }
            }
        }
    }
    list_reply("role_assignments", &found)
}

fn grant(state: &mut State, method: &str, project: &str, user: &str, rest: &[&str]) -> Result<Reply> {
    let row =
        state.get(Kind::User, user).ok_or_else(|| Fault::not_found("", format!("Could not find user: {user}.")))?;
    state
        .get(Kind::Project, project)
        .ok_or_else(|| Fault::not_found("", format!("Could not find project: {project}.")))?;
    let mut have = roles(&row, project);
    let ("PUT" | "DELETE" | "GET", [role]) = (method, rest) else {
        let list: Vec<Value> = ROLES
            .iter()
            .filter(|(_, n)| have.iter().any(|r| r == n))
            .map(|(id, n)| json!({"id": id, "name": n}))
            .collect();
        return if method == "GET" && rest.is_empty() {
            Ok(list_reply("roles", &list))
        } else {
            Err(Fault::no_route())
        };
    };
    let name = ROLES.iter().find(|(id, _)| id == role).map(|(_, n)| *n);
    let name = name.ok_or_else(|| Fault::not_found("", format!("Could not find role: {role}.")))?;
    let has = have.iter().any(|r| r == name);
    match method {
        "GET" if has => return Ok(Reply::empty(204)),
        "DELETE" if has => have.retain(|r| r != name),
        "PUT" if !has => have.push(name.to_owned()),
        "PUT" => return Ok(Reply::empty(204)),
        _ => return Err(Fault::not_found("", "Could not find role assignment.")),
    }
    let mut all = row.get("~roles").and_then(Value::as_object).cloned().unwrap_or_default();
    if have.is_empty() {
        all.remove(project);
    } else {
        all.insert(project.to_owned(), json!(have));
    }
    state.set(Kind::User, user, json!({ "~roles": all }));
    Ok(Reply::empty(204))
}

pub fn roles(user: &Row, project: &str) -> Vec<String> {
    let all = user.get("~roles").and_then(|r| r.get(project)).and_then(Value::as_array);
    all.map(|l| l.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect()).unwrap_or_default()
}

pub fn find_user(state: &State, wanted: &Value) -> Option<Arc<Row>> {
    let given = |key: &str| wanted.get(key).and_then(Value::as_str);
    match given("id") {
        Some(id) => state.get(Kind::User, id),
        None => state.table(Kind::User).find("name", given("name")?).next().cloned(),
    }
}

pub fn find_project(state: &State, wanted: &Value) -> Option<Arc<Row>> {
    let given = |key: &str| wanted.get(key).and_then(Value::as_str);
    match given("id") {
        Some(id) => state.get(Kind::Project, id),
        None => state.table(Kind::Project).find("name", given("name")?).next().cloned(),
    }
}
