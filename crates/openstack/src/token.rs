//! Keystone tokens: the request's body and the answer's catalog. Pure: the request is made in `client`.

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{
    clouds::{Auth, Interface, Named, Scope},
    endpoint::Service,
    identity,
};

/// A token is renewed this long before it ends, or when a tenth of its life is left if that is shorter.
const RENEW_BEFORE: SignedDuration = SignedDuration::from_mins(5);

/// One endpoint of a catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub service_type: String,
    pub interface: String,
    pub region: String,
    pub url: String,
}

/// What a token gives access to.
#[derive(Clone, Debug)]
pub struct Access {
    pub(crate) token: http::HeaderValue,
    pub(crate) renew_at: Timestamp,
    pub user_id: String,
    pub user_name: String,
    /// Of the user, also where the token was had without it.
    pub password_expires_at: Option<Timestamp>,
    pub project_id: Option<String>,
    pub project_name: Option<String>,
    pub roles: Vec<String>,
    pub expires_at: Timestamp,
    pub catalog: Vec<Endpoint>,
}

impl Access {
    /// The endpoint of a service, as the catalog has it. Without a region, the first one of the interface.
    pub fn endpoint(&self, service: Service, interface: Interface, region: Option<&str>) -> Option<&str> {
        service.types().iter().find_map(|kind| {
            self.catalog
                .iter()
                .find(|e| {
                    e.service_type == *kind && e.interface == interface.as_str() && region.is_none_or(|r| r == e.region)
                })
                .map(|e| e.url.as_str())
        })
    }

    /// Every region that the catalog knows, each once.
    pub fn regions(&self) -> Vec<&str> {
        let mut regions: Vec<&str> = self.catalog.iter().map(|e| e.region.as_str()).collect();
        regions.sort_unstable();
        regions.dedup();
        regions
    }
}

fn named(of: &Named) -> Value {
    let mut out = Map::new();
    if let Some(id) = &of.id {
        out.insert("id".into(), json!(id));
        return Value::Object(out);
    }
    out.insert("name".into(), json!(of.name));
    match (&of.domain_id, &of.domain_name) {
        (Some(id), _) => drop(out.insert("domain".into(), json!({"id": id}))),
        (None, Some(name)) => drop(out.insert("domain".into(), json!({"name": name}))),
        (None, None) => drop(out.insert("domain".into(), json!({"id": "default"}))),
    }
    Value::Object(out)
}

fn scoped(mut auth: Value, scope: &Scope) -> Value {
    let scope = match scope {
        Scope::Implied => return json!({"auth": auth}),
        Scope::Project(project) => json!({"project": named(project)}),
        Scope::Domain { id: Some(id), .. } => json!({"domain": {"id": id}}),
        Scope::Domain { name, .. } => json!({"domain": {"name": name}}),
        Scope::System => json!({"system": {"all": true}}),
    };
    if let Value::Object(auth) = &mut auth {
        auth.insert("scope".into(), scope);
    }
    json!({"auth": auth})
}

/// The body of `POST /v3/auth/tokens`.
pub(crate) fn request(auth: &Auth) -> Value {
    match auth {
        Auth::Password { user, password, scope } => {
            let mut user = named(user);
            user["password"] = json!(password.0);
            scoped(json!({"identity": {"methods": ["password"], "password": {"user": user}}}), scope)
        }
        Auth::Token { token, scope } => {
            scoped(json!({"identity": {"methods": ["token"], "token": {"id": token.0}}}), scope)
        }
        Auth::ApplicationCredential { id, name, user, secret } => {
            let mut credential = json!({"secret": secret.0});
            match (id, user) {
                (Some(id), _) => credential["id"] = json!(id),
                (None, user) => {
                    credential["name"] = json!(name);
                    credential["user"] = user.as_ref().map(named).unwrap_or_default();
                }
            }
            json!({"auth": {"identity": {"methods": ["application_credential"], "application_credential": credential}}})
        }
    }
}

#[derive(Deserialize)]
struct Answer {
    token: Body,
}

#[derive(Deserialize)]
struct Body {
    expires_at: Timestamp,
    #[serde(default)]
    catalog: Vec<CatalogEntry>,
    #[serde(default)]
    user: UserRef,
    #[serde(default)]
    project: Option<Ref>,
    #[serde(default)]
    roles: Vec<Ref>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Ref {
    id: String,
    name: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct UserRef {
    id: String,
    name: String,
    password_expires_at: Option<String>,
}

#[derive(Deserialize)]
struct CatalogEntry {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    endpoints: Vec<CatalogEndpoint>,
}

#[derive(Deserialize)]
struct CatalogEndpoint {
    interface: String,
    url: String,
    #[serde(default)]
    region_id: Option<String>,
    #[serde(default)]
    region: Option<String>,
}

/// Reads the answer of `POST /v3/auth/tokens`.
pub(crate) fn answer(token: &http::HeaderValue, body: &[u8], now: Timestamp) -> Result<Access, serde_json::Error> {
    let Answer { token: body } = serde_json::from_slice(body)?;
    let mut token = token.clone();
    token.set_sensitive(true);
    let life = body.expires_at.duration_since(now);
    let margin = RENEW_BEFORE.min(life / 10).max(SignedDuration::ZERO);
    let catalog = body.catalog.into_iter().flat_map(|entry| {
        let kind = entry.kind;
        entry.endpoints.into_iter().map(move |e| Endpoint {
            service_type: kind.clone(),
            interface: e.interface,
            region: e.region_id.or(e.region).unwrap_or_default(),
            url: e.url,
        })
    });
    let project = body.project.unwrap_or_default();
    let filled = |s: String| (!s.is_empty()).then_some(s);
    Ok(Access {
        token,
        renew_at: body.expires_at - margin,
        user_id: body.user.id,
        user_name: body.user.name,
        password_expires_at: body.user.password_expires_at.as_deref().and_then(identity::time),
        project_id: filled(project.id),
        project_name: filled(project.name),
        roles: body.roles.into_iter().map(|r| r.name).collect(),
        expires_at: body.expires_at,
        catalog: catalog.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_tells_when_its_users_password_ends() {
        let told = |user: Value| {
            let body = json!({"token": {"expires_at": "2026-12-01T10:00:00Z", "user": user}}).to_string();
            let token = http::HeaderValue::from_static("t");
            answer(&token, body.as_bytes(), Timestamp::UNIX_EPOCH).unwrap().password_expires_at
        };
        let end = told(json!({"id": "u", "name": "n", "password_expires_at": "2026-12-24T18:00:00.000000"}));
        assert_eq!(end, Some("2026-12-24T18:00:00Z".parse().unwrap()));
        assert_eq!(told(json!({"id": "u", "name": "n", "password_expires_at": null})), None);
        // A federated user has none.
        assert_eq!(told(json!({"id": "u", "name": "n"})), None);
    }
}
