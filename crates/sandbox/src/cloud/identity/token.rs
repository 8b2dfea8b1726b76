//! Tokens: they carry their own content and a signature, so that none needs to be kept.

use std::sync::Arc;

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{
    DOMAIN, ROLES,
    catalog::{catalog, stable_id},
    credential::{end_of, find_credential, time},
    users::{find_project, find_user, roles},
};
use crate::cloud::{
    fault::{Fault, Result},
    http::{Caller, Reply, Request},
    kind::Kind,
    state::State,
    table::{Row, flag, text},
};

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

pub fn issue(state: &State, request: &Request, signer: &Signer) -> Result<Reply> {
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

/// What the token in `X-Subject-Token` says.
pub fn show(state: &State, request: &Request, signer: &Signer) -> Result<Reply> {
    let subject = request.headers.get("x-subject-token").and_then(|v| v.to_str().ok()).unwrap_or_default();
    let opened = signer.open(subject, state.options.now()).filter(|opened| opened.holds(state));
    let Opened { user, project, ends, credential } =
        opened.ok_or_else(|| Fault::not_found("", "Could not find token."))?;
    let method = if credential.is_empty() { "password" } else { "application_credential" };
    let body = token_body(state, &user, &project, ends, (method, &credential))?;
    Ok(Reply { headers: vec![("x-subject-token", subject.to_owned())], ..Reply::ok(body) })
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
