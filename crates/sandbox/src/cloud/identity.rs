//! Keystone v3: who may ask. Tokens carry their own content and a signature, so that none needs to be kept.

use std::sync::Arc;

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

use super::{
    fault::{Fault, Result},
    generic,
    http::{Caller, Reply, Request, Service, select, shown},
    kind::Kind,
    options::Options,
    state::State,
    table::{Row, flag, list, text},
};

pub const DOMAIN: &str = "default";
/// Members and administrators: the two roles that exist.
pub const ROLES: [(&str, &str); 2] =
    [("6d656d626572000000000000000000aa", "member"), ("61646d696e00000000000000000000aa", "admin")];

/// The key that tokens, passwords and secrets are signed with.
pub struct Signer(hmac::Key);

impl Signer {
    pub fn new(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    pub fn sign(&self, what: &str, text: &str) -> String {
        URL_SAFE_NO_PAD.encode(hmac::sign(&self.0, format!("{what}\0{text}").as_bytes()))
    }

    fn agrees(&self, what: &str, text: &str, signature: &str) -> bool {
        let Ok(signature) = URL_SAFE_NO_PAD.decode(signature) else { return false };
        hmac::verify(&self.0, format!("{what}\0{text}").as_bytes(), &signature).is_ok()
    }

    /// What the token says, if it is ours and has not ended.
    fn open(&self, token: &str, now: Timestamp) -> Option<Opened> {
        let (content, signature) = token.split_once('.')?;
        if !self.agrees("token", content, signature) {
            return None;
        }
        let content: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(content).ok()?).ok()?;
        let ends = Timestamp::from_second(content.get("e")?.as_i64()?).ok()?;
        let part = |key: &str| content.get(key).and_then(Value::as_str).map(str::to_owned);
        let (user, project) = (part("u")?, part("p")?);
        (now < ends).then_some(Opened { user, project, ends, credential: part("c").unwrap_or_default() })
    }
}

struct Opened {
    user: String,
    project: String,
    ends: Timestamp,
    /// Id of the application credential that it was issued for.
    credential: String,
}

impl Opened {
    /// Tokens go with the application credential that they were issued for.
    fn holds(&self, state: &State) -> bool {
        self.credential.is_empty() || state.get(Kind::ApplicationCredential, &self.credential).is_some()
    }
}

/// Who a token's bearer is. The user must still exist and have a role in the project.
pub fn caller(state: &State, signer: &Signer, token: &str) -> Option<Arc<Caller>> {
    let opened = signer.open(token, state.options.now()).filter(|opened| opened.holds(state))?;
    let credential = state.get(Kind::ApplicationCredential, &opened.credential);
    let restricted = credential.is_some_and(|credential| !flag(&credential, "unrestricted"));
    let (user, project) = (opened.user, opened.project);
    let row = state.get(Kind::User, &user)?;
    let roles = roles(&row, &project);
    if !flag(&row, "enabled") || (!project.is_empty() && roles.is_empty()) {
        return None;
    }
    Some(Arc::new(Caller { admin: roles.iter().any(|r| r == "admin"), user, project, restricted }))
}

fn roles(user: &Row, project: &str) -> Vec<String> {
    let all = user.get("~roles").and_then(|r| r.get(project)).and_then(Value::as_array);
    all.map(|l| l.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect()).unwrap_or_default()
}

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
        return issue(state, request, signer);
    }
    let caller = request.caller()?;
    match (request.method.as_str(), rest) {
        ("GET" | "HEAD", ["auth", "tokens"]) => {
            let subject = request.headers.get("x-subject-token").and_then(|v| v.to_str().ok()).unwrap_or_default();
            let opened = signer.open(subject, state.options.now()).filter(|opened| opened.holds(state));
            let Opened { user, project, ends, credential } =
                opened.ok_or_else(|| Fault::not_found("", "Could not find token."))?;
            let method = if credential.is_empty() { "password" } else { "application_credential" };
            let body = token_body(state, &user, &project, ends, (method, &credential))?;
            Ok(Reply { headers: vec![("x-subject-token", subject.to_owned())], ..Reply::ok(body) })
        }
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

fn own_projects(state: &State, user: &str) -> Result<Reply> {
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

/// What is the same in every sandbox: the domain, the roles, the region, services and endpoints.
fn fixed(state: &State, caller: &Caller, rest: &[&str]) -> Result<Reply> {
    let domain = json!({"id": DOMAIN, "name": "Default", "enabled": true, "description": "The default domain", "options": {}, "tags": [], "links": {}});
    let region = json!({"id": state.options.region, "description": "", "parent_region_id": null, "links": {}});
    let role = |(id, name): &(&str, &str)| json!({"id": id, "name": name, "domain_id": null, "description": null, "options": {}, "links": {}});
    let service = |s: &Service| json!({"id": service_id(*s), "type": service_type(*s), "name": service_name(*s), "enabled": true, "description": "", "links": {}});
    match rest {
        ["domains"] => Ok(list_reply("domains", &[domain])),
        ["domains", DOMAIN] => Ok(Reply::ok(json!({ "domain": domain }))),
        ["regions"] => Ok(list_reply("regions", &[region])),
        ["regions", id] if *id == state.options.region => Ok(Reply::ok(json!({ "region": region }))),
        ["roles"] => Ok(list_reply("roles", &ROLES.iter().map(role).collect::<Vec<_>>())),
        ["roles", id] => match ROLES.iter().find(|(i, _)| i == id) {
            Some(found) => Ok(Reply::ok(json!({"role": role(found)}))),
            None => Err(Fault::not_found("", format!("Could not find role: {id}."))),
        },
        ["services" | "endpoints", ..] if !caller.admin => {
            Err(Fault::forbidden("You are not authorized to perform the requested action: identity:list_services."))
        }
        ["services"] => Ok(list_reply("services", &Service::ALL.iter().map(service).collect::<Vec<_>>())),
        ["services", id] => match Service::ALL.iter().find(|s| service_id(**s) == *id) {
            Some(found) => Ok(Reply::ok(json!({"service": service(found)}))),
            None => Err(Fault::not_found("", format!("Could not find service: {id}."))),
        },
        ["endpoints"] => {
            let endpoints: Vec<Value> = Service::ALL
                .iter()
                .flat_map(|s| {
                    let mut list = endpoints(state, *s);
                    list.iter_mut().for_each(|e| e["service_id"] = json!(service_id(*s)));
                    list
                })
                .collect();
            Ok(list_reply("endpoints", &endpoints))
        }
        _ => Err(Fault::no_route()),
    }
}

fn stable_id(text: &str) -> String {
    uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_URL, text.as_bytes()).simple().to_string()
}

fn service_id(service: Service) -> String {
    stable_id(service.prefix())
}

fn service_type(service: Service) -> &'static str {
    match service {
        Service::BlockStorage => "volumev3",
        other => other.prefix(),
    }
}

fn service_name(service: Service) -> &'static str {
    match service {
        Service::Identity => "keystone",
        Service::Image => "glance",
        Service::Compute => "nova",
        Service::Network => "neutron",
        Service::LoadBalancer => "octavia",
        Service::BlockStorage => "cinderv3",
    }
}

fn endpoints(state: &State, service: Service) -> Vec<Value> {
    // As real clouds publish them: some with a version, some without.
    let suffix = match service {
        Service::Identity | Service::Image | Service::Network | Service::LoadBalancer => "",
        Service::Compute => "/v2.1",
        Service::BlockStorage => "/v3",
    };
    let url = format!("{}/{}{suffix}", state.options.public_url, service.prefix());
    let region = &state.options.region;
    ["public", "internal", "admin"]
        .iter()
        .map(|interface| {
            let id = stable_id(&format!("{}/{interface}", service.prefix()));
            json!({"id": id, "interface": interface, "region": region, "region_id": region, "url": url, "enabled": true, "links": {}})
        })
        .collect()
}

fn catalog(state: &State) -> Value {
    let entry = |s: &Service| json!({"id": service_id(*s), "type": service_type(*s), "name": service_name(*s), "endpoints": endpoints(state, *s)});
    Service::ALL.iter().map(entry).collect()
}

fn issue(state: &State, request: &Request, signer: &Signer) -> Result<Reply> {
    let auth = request.object("auth")?;
    let identity = auth.get("identity").cloned().unwrap_or_default();
    let method = identity.get("methods").and_then(|m| m.get(0)).and_then(Value::as_str).unwrap_or_default().to_owned();
    let given = identity.get(&method).cloned().unwrap_or_default();
    let mut credential = String::new();
    let (user, mut project) = match method.as_str() {
        "password" => {
            let wanted = given.get("user").cloned().unwrap_or_default();
            let user = find_user(state, &wanted).ok_or_else(Fault::unauthorized)?;
            let password = wanted.get("password").and_then(Value::as_str).unwrap_or_default();
            let what = format!("password/{}", text(&user, "id"));
            let ended = time(text(&user, "password_expires_at")).is_some_and(|end| end <= state.options.now());
            if ended || !signer.agrees(&what, password, text(&user, "~password")) {
                return Err(Fault::unauthorized());
            }
            let home = text(&user, "default_project_id").to_owned();
            (user, home)
        }
        "token" => {
            let token = given.get("id").and_then(Value::as_str).unwrap_or_default();
            let opened = signer.open(token, state.options.now()).filter(|opened| opened.holds(state));
            let opened = opened.ok_or_else(Fault::unauthorized)?;
            credential = opened.credential;
            (state.get(Kind::User, &opened.user).ok_or_else(Fault::unauthorized)?, opened.project)
        }
        "application_credential" => {
            let row = find_credential(state, &given).ok_or_else(Fault::unauthorized)?;
            let secret = given.get("secret").and_then(Value::as_str).unwrap_or_default();
            let what = format!("secret/{}", text(&row, "id"));
            let ended = end_of(&row).is_some_and(|end| end <= state.options.now());
            if ended || !signer.agrees(&what, secret, text(&row, "~secret")) {
                return Err(Fault::unauthorized());
            }
            let user = state.get(Kind::User, text(&row, "~user_id")).ok_or_else(Fault::unauthorized)?;
            text(&row, "id").clone_into(&mut credential);
            (user, text(&row, "project_id").to_owned())
        }
        _ => return Err(Fault::unauthorized()),
    };
    match auth.get("scope") {
        None => {}
        Some(Value::String(s)) if s == "unscoped" => project = String::new(),
        Some(scope) if method != "application_credential" => {
            let Some(wanted) = scope.get("project") else {
                // Domain and system scope: administrators get a token of their project.
                let body = issue_for(state, signer, &user, &project, (&method, &credential))?;
                return if roles(&user, &project).iter().any(|r| r == "admin") {
                    Ok(body)
                } else {
                    Err(Fault::unauthorized())
                };
            };
            let found = find_project(state, wanted).ok_or_else(Fault::unauthorized)?;
            project = text(&found, "id").to_owned();
        }
        Some(_) => {}
    }
    issue_for(state, signer, &user, &project, (&method, &credential))
}

fn issue_for(
    state: &State,
    signer: &Signer,
    user: &Row,
    project: &str,
    (method, credential): (&str, &str),
) -> Result<Reply> {
    if !flag(user, "enabled") || (!project.is_empty() && roles(user, project).is_empty()) {
        return Err(Fault::unauthorized());
    }
    let life = SignedDuration::try_from(state.options.token_life).unwrap_or(SignedDuration::from_hours(1));
    let own = state.get(Kind::ApplicationCredential, credential).and_then(|row| end_of(&row));
    let ends = state.options.now() + life;
    let ends = own.map_or(ends, |own| own.min(ends));
    // Two tokens of one second differ: one may be made to end early.
    let now = state.options.now().as_nanosecond() ^ i128::from(state.injection.expirations());
    let mut content = json!({"u": text(user, "id"), "p": project, "e": ends.as_second(), "n": now.to_string()});
    if !credential.is_empty() {
        content["c"] = credential.into();
    }
    let content = content.to_string();
    let content = URL_SAFE_NO_PAD.encode(content);
    let token = format!("{content}.{}", signer.sign("token", &content));
    let body = token_body(state, text(user, "id"), project, ends, (method, credential))?;
    Ok(Reply { headers: vec![("x-subject-token", token)], ..Reply::new(201, body) })
}

fn find_user(state: &State, wanted: &Value) -> Option<Arc<Row>> {
    let given = |key: &str| wanted.get(key).and_then(Value::as_str);
    match given("id") {
        Some(id) => state.get(Kind::User, id),
        None => state.table(Kind::User).find("name", given("name")?).next().cloned(),
    }
}

fn find_project(state: &State, wanted: &Value) -> Option<Arc<Row>> {
    let given = |key: &str| wanted.get(key).and_then(Value::as_str);
    match given("id") {
        Some(id) => state.get(Kind::Project, id),
        None => state.table(Kind::Project).find("name", given("name")?).next().cloned(),
    }
}

fn find_credential(state: &State, wanted: &Value) -> Option<Arc<Row>> {
    let given = |key: &str| wanted.get(key).and_then(Value::as_str);
    if let Some(id) = given("id") {
        return state.get(Kind::ApplicationCredential, id);
    }
    let user = find_user(state, wanted.get("user")?)?;
    let mut own = state.table(Kind::ApplicationCredential).find("~user_id", text(&user, "id"));
    own.find(|c| Some(text(c, "name")) == given("name")).cloned()
}

/// When an application credential ends, if it does.
fn end_of(credential: &Row) -> Option<Timestamp> {
    time(text(credential, "expires_at"))
}

/// Keystone takes times in UTC, with and without saying so.
fn time(given: &str) -> Option<Timestamp> {
    let here = || given.parse::<jiff::civil::DateTime>().ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok();
    given.parse().ok().or_else(|| here().map(|time| time.timestamp()))
}

fn token_body(
    state: &State,
    user: &str,
    project: &str,
    ends: Timestamp,
    (method, credential): (&str, &str),
) -> Result<Value> {
    let user = state.get(Kind::User, user).ok_or_else(Fault::unauthorized)?;
    let domain = json!({"id": DOMAIN, "name": "Default"});
    let stamp = |t: Timestamp| t.strftime("%Y-%m-%dT%H:%M:%S.000000Z").to_string();
    let mut token = json!({
        "methods": [method], "user": {"id": text(&user, "id"), "name": text(&user, "name"), "domain": domain,
            "password_expires_at": user.get("password_expires_at")},
        "audit_ids": [stable_id(&format!("{}{}", text(&user, "id"), ends))], "expires_at": stamp(ends), "issued_at": stamp(state.options.now()),
    });
    if let Some(found) = state.get(Kind::ApplicationCredential, credential) {
        token["application_credential"] =
            json!({"id": credential, "name": text(&found, "name"), "restricted": !flag(&found, "unrestricted")});
    }
    if let Some(found) = state.get(Kind::Project, project) {
        let roles = roles(&user, project);
        token["project"] = json!({"id": project, "name": text(&found, "name"), "domain": domain});
        token["roles"] = ROLES
            .iter()
            .filter(|(_, n)| roles.iter().any(|r| r == n))
            .map(|(id, n)| json!({"id": id, "name": n}))
            .collect();
        token["is_domain"] = json!(false);
        token["catalog"] = catalog(state);
    }
    Ok(json!({ "token": token }))
}

fn objects(
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

/// Who has which role in which project.
fn assignments(state: &State, request: &Request) -> Reply {
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

/// Application credentials of one user.
pub const CREDENTIALS_LIMIT: usize = 100;

fn credentials(
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
