//! Which cloud, and with which credentials: `clouds.yaml` as the OpenStack SDK reads it.
//!
//! <https://docs.openstack.org/openstacksdk/latest/user/config/configuration.html>. Nothing here reads the environment
//! or the disk by itself: [`Search`] is told of both. Not supported, and refused by name: vendor profiles, client
//! certificates, and auth types other than password, application credentials and a ready token.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::endpoint::Service;

pub mod successor;

/// The largest clouds.yaml or CA bundle that is read.
pub const FILE_LIMIT_BYTES: u64 = 1024 * 1024;
/// The largest number of clouds in one file.
pub const CLOUDS_LIMIT: usize = 256;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{place} is not a clouds.yaml: {what}")]
    Format { place: String, what: String },
    #[error("{place} is larger than {FILE_LIMIT_BYTES} bytes")]
    TooLarge { place: String },
    #[error("cannot read {place}")]
    Read {
        place: String,
        #[source]
        source: std::io::Error,
    },
    #[error("no cloud named {name:?} in {place}; it has {present}")]
    NoSuchCloud { name: String, place: String, present: String },
    #[error("no clouds.yaml found; looked for {looked}. Write one, or name it in OS_CLIENT_CONFIG_FILE")]
    NotFound { looked: String },
    #[error("{place} holds several clouds ({present}): name one with --os-cloud or OS_CLOUD")]
    Ambiguous { place: String, present: String },
    #[error("cloud {cloud:?}: {what}")]
    Setting { cloud: String, what: String },
}

/// A user or project by id or by name; a name belongs to a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    pub id: Option<String>,
    pub name: Option<String>,
    pub domain_id: Option<String>,
    pub domain_name: Option<String>,
}

/// A secret that does not print itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden(pub(crate) String);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<hidden>")
    }
}

/// What a token is scoped to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The application credential's own project, or no scope.
    Implied,
    Project(Named),
    Domain {
        id: Option<String>,
        name: Option<String>,
    },
    System,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    Password { user: Named, password: Hidden, scope: Scope },
    ApplicationCredential { id: Option<String>, name: Option<String>, user: Option<Named>, secret: Hidden },
    Token { token: Hidden, scope: Scope },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Interface {
    #[default]
    Public,
    Internal,
    Admin,
}

impl Interface {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Internal => "internal",
            Self::Admin => "admin",
        }
    }
}

/// One cloud, ready to be spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cloud {
    pub name: String,
    pub auth_url: String,
    pub auth: Auth,
    pub region: Option<String>,
    pub interface: Interface,
    /// `false`: the cloud's owner asked to accept any certificate. A caller decides whether to follow.
    pub verify: bool,
    /// PEM.
    pub ca_pem: Option<Vec<u8>>,
    /// The CA bundle's path as the file says; [`Search`] reads it into `ca_pem`.
    pub ca_path: Option<PathBuf>,
    pub overrides: BTreeMap<Service, String>,
}

impl Cloud {
    /// Reads one cloud out of a clouds.yaml's bytes, as a Secret carries it (`clouds.yaml`, and `cacert` in PEM).
    /// `name` may be left out when the file holds one cloud only.
    pub fn from_yaml(yaml: &[u8], name: Option<&str>, ca_pem: Option<&[u8]>) -> Result<Self, Error> {
        let place = "the clouds.yaml";
        let file = parse(yaml, place)?;
        let mut cloud = pick(&file, name, place)?;
        if let Some(pem) = ca_pem.filter(|p| !p.trim_ascii().is_empty()) {
            cloud.ca_pem = Some(pem.to_vec());
        }
        Ok(cloud)
    }

    /// Reads a cloud out of `OS_*` variables, as an openrc file sets them. `None` if there is no `OS_AUTH_URL`.
    pub fn from_variables(get: &dyn Fn(&str) -> Option<String>) -> Result<Option<Self>, Error> {
        let get = |name: &str| get(name).filter(|v| !v.is_empty());
        if get("OS_AUTH_URL").is_none() {
            return Ok(None);
        }
        let mut auth = Map::new();
        for key in AUTH_KEYS {
            let variable = format!("OS_{}", key.to_ascii_uppercase());
            if let Some(value) = get(&variable) {
                auth.insert((*key).to_owned(), Value::String(value));
            }
        }
        if let (None, Some(tenant)) = (auth.get("project_name"), get("OS_TENANT_NAME")) {
            auth.insert("project_name".to_owned(), Value::String(tenant));
        }
        let mut entry = Map::from_iter([("auth".to_owned(), Value::Object(auth))]);
        for (key, variable) in [
            ("region_name", "OS_REGION_NAME"),
            ("interface", "OS_INTERFACE"),
            ("cacert", "OS_CACERT"),
            ("auth_type", "OS_AUTH_TYPE"),
        ] {
            if let Some(value) = get(variable) {
                entry.insert(key.to_owned(), Value::String(value));
            }
        }
        if get("OS_INSECURE").is_some_and(|v| matches!(v.to_ascii_lowercase().as_str(), "1" | "true" | "yes")) {
            entry.insert("verify".to_owned(), Value::Bool(false));
        }
        cloud("envvars", &Value::Object(entry)).map(Some)
    }
}

const AUTH_KEYS: &[&str] = &[
    "auth_url",
    "username",
    "user_id",
    "password",
    "user_domain_name",
    "user_domain_id",
    "project_name",
    "project_id",
    "project_domain_name",
    "project_domain_id",
    "domain_id",
    "domain_name",
    "default_domain",
    "system_scope",
    "token",
    "application_credential_id",
    "application_credential_name",
    "application_credential_secret",
];

/// Where clouds.yaml is looked for.
pub struct Search<'a> {
    /// The environment; only the composition root passes the real one.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    pub current_dir: &'a Path,
    pub home: Option<&'a Path>,
}

impl Search<'_> {
    /// Finds and reads a cloud: `name`, or `OS_CLOUD`, or `OS_*` variables, or the only cloud of the file.
    /// The order is the SDK's: `OS_CLIENT_CONFIG_FILE`, the current folder, `~/.config/openstack`, `/etc/openstack`;
    /// a `secure.yaml` found by the same order is merged over it.
    pub fn cloud(&self, name: Option<&str>) -> Result<Cloud, Error> {
        let from_variable = (self.variable)("OS_CLOUD").filter(|v| !v.is_empty());
        let name = name.map(str::to_owned).or(from_variable);
        if name.as_deref().is_none_or(|n| n == "envvars")
            && let Some(cloud) = Cloud::from_variables(self.variable)?
        {
            return self.with_ca(cloud, Path::new("."));
        }
        let places = self.places("clouds", "OS_CLIENT_CONFIG_FILE");
        let Some(path) = places.iter().find(|p| p.is_file()) else {
            let looked = places.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ");
            return Err(Error::NotFound { looked });
        };
        let place = path.display().to_string();
        let mut file = parse(&read(path)?, &place)?;
        if let Some(secure) = self.places("secure", "OS_CLIENT_SECURE_FILE").iter().find(|p| p.is_file()) {
            merge(&mut file, parse(&read(secure)?, &secure.display().to_string())?);
        }
        let cloud = pick(&file, name.as_deref(), &place)?;
        self.with_ca(cloud, path.parent().unwrap_or(Path::new(".")))
    }

    fn places(&self, stem: &str, variable: &str) -> Vec<PathBuf> {
        let mut folders = vec![self.current_dir.to_owned()];
        folders.extend(self.home.map(|h| h.join(".config/openstack")));
        folders.push(PathBuf::from("/etc/openstack"));
        let named = (self.variable)(variable).filter(|v| !v.is_empty()).map(PathBuf::from);
        let found = folders.iter().flat_map(|f| [f.join(format!("{stem}.yaml")), f.join(format!("{stem}.yml"))]);
        named.into_iter().chain(found).collect()
    }

    fn with_ca(&self, mut cloud: Cloud, base: &Path) -> Result<Cloud, Error> {
        if let Some(path) = &cloud.ca_path {
            let path = match (path.strip_prefix("~"), self.home) {
                (Ok(rest), Some(home)) => home.join(rest),
                _ => base.join(path),
            };
            cloud.ca_pem = Some(read(&path)?);
        }
        Ok(cloud)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let place = path.display().to_string();
    let failed = |source| Error::Read { place: place.clone(), source };
    if std::fs::metadata(path).map_err(failed)?.len() > FILE_LIMIT_BYTES {
        return Err(Error::TooLarge { place });
    }
    std::fs::read(path).map_err(|source| Error::Read { place: path.display().to_string(), source })
}

fn parse(yaml: &[u8], place: &str) -> Result<Value, Error> {
    if yaml.len() as u64 > FILE_LIMIT_BYTES {
        return Err(Error::TooLarge { place: place.to_owned() });
    }
    let format = |what: String| Error::Format { place: place.to_owned(), what };
    let value: Value = serde_saphyr::from_slice(yaml).map_err(|_| {
        // The parser's own text quotes the line, which may hold a password.
        format("it does not parse as YAML".to_owned())
    })?;
    match value.get("clouds") {
        Some(Value::Object(clouds)) if clouds.len() <= CLOUDS_LIMIT => Ok(value),
        Some(Value::Object(_)) => Err(format(format!("it holds more than {CLOUDS_LIMIT} clouds"))),
        _ => Err(format("it has no mapping `clouds`".to_owned())),
    }
}

/// Lays `over` on top of `base`, mapping by mapping.
fn merge(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                merge(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over,
    }
}

fn pick(file: &Value, name: Option<&str>, place: &str) -> Result<Cloud, Error> {
    let empty = Map::new();
    let clouds = file.get("clouds").and_then(Value::as_object).unwrap_or(&empty);
    let present = || clouds.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    let name = match (name, clouds.len()) {
        (Some(name), _) => name,
        (None, 1) => clouds.keys().next().map(String::as_str).unwrap_or_default(),
        (None, _) => return Err(Error::Ambiguous { place: place.to_owned(), present: present() }),
    };
    let Some(entry) = clouds.get(name) else {
        return Err(Error::NoSuchCloud { name: name.to_owned(), place: place.to_owned(), present: present() });
    };
    cloud(name, entry)
}

/// A scalar as people write it: ids of digits only come out of YAML as numbers.
fn text<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<String>, D::Error> {
    Ok(match Option::<Value>::deserialize(d)? {
        Some(Value::String(s)) if !s.is_empty() => Some(s),
        Some(Value::Number(n)) => Some(n.to_string()),
        Some(Value::Bool(b)) => Some(b.to_string()),
        _ => None,
    })
}

macro_rules! texts {
    ($(#[$meta:meta])* struct $name:ident { $($(#[$f:meta])* $field:ident,)* }) => {
        $(#[$meta])*
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct $name { $($(#[$f])* #[serde(deserialize_with = "text")] $field: Option<String>,)* }
    };
}

texts! {
    struct RawAuth {
        auth_url, username, user_id, password, user_domain_name, user_domain_id, project_name, project_id,
        #[serde(alias = "tenant_name")] tenant_name,
        project_domain_name, project_domain_id, domain_id, domain_name, default_domain, default_domain_id, system_scope,
        token, application_credential_id, application_credential_name, application_credential_secret,
    }
}

texts! {
    struct RawCloud { auth_type, region_name, interface, endpoint_type, cacert, verify, insecure, profile, cloud, cert, key, identity_api_version, }
}

fn cloud(name: &str, entry: &Value) -> Result<Cloud, Error> {
    let setting = |what: &str| Error::Setting { cloud: name.to_owned(), what: what.to_owned() };
    let raw = RawCloud::deserialize(entry).map_err(|_| setting("it is not a mapping of settings"))?;
    let auth = entry.get("auth").cloned().unwrap_or(Value::Null);
    let auth: RawAuth = if auth.is_null() {
        RawAuth::default()
    } else {
        RawAuth::deserialize(auth).map_err(|_| setting("`auth` is not a mapping of settings"))?
    };
    if raw.profile.is_some() || raw.cloud.is_some() {
        return Err(setting("vendor profiles (`profile`) are not supported: write the settings out"));
    }
    if raw.cert.is_some() || raw.key.is_some() {
        return Err(setting("client certificates (`cert`, `key`) are not supported"));
    }
    if raw.identity_api_version.as_deref().is_some_and(|v| !v.starts_with('3')) {
        return Err(setting("only version 3 of the identity API is supported (`identity_api_version`)"));
    }
    let auth_url = auth.auth_url.clone().ok_or_else(|| setting("`auth.auth_url` is missing"))?;
    let uri: http::Uri = auth_url.parse().map_err(|_| setting("`auth.auth_url` is not a URL"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none() {
        return Err(setting("`auth.auth_url` is not an http or https URL"));
    }
    let interface = raw.interface.or(raw.endpoint_type);
    let interface = match interface.as_deref().map(|i| i.trim_end_matches("URL")) {
        None | Some("public") => Interface::Public,
        Some("internal") => Interface::Internal,
        Some("admin") => Interface::Admin,
        Some(_) => return Err(setting("`interface` is none of public, internal, admin")),
    };
    let is = |v: &Option<String>, words: [&str; 2]| {
        v.as_deref().is_some_and(|v| words.contains(&v.to_ascii_lowercase().as_str()))
    };
    let overrides = Service::ALL
        .into_iter()
        .filter_map(|service| {
            let url =
                service.override_keys().iter().find_map(|k| entry.get(format!("{k}_endpoint_override"))?.as_str())?;
            Some((service, url.to_owned()))
        })
        .collect();
    Ok(Cloud {
        name: name.to_owned(),
        auth_url,
        auth: credentials(auth, raw.auth_type.as_deref()).map_err(|what| setting(&what))?,
        region: raw.region_name,
        interface,
        verify: !(is(&raw.verify, ["false", "no"]) || is(&raw.insecure, ["true", "yes"])),
        ca_pem: None,
        ca_path: raw.cacert.map(PathBuf::from),
        overrides,
    })
}

fn credentials(raw: RawAuth, auth_type: Option<&str>) -> Result<Auth, String> {
    let default_domain = raw.default_domain_id.clone().or(raw.default_domain.clone());
    let domain = |id: Option<String>, name: Option<String>, needed: bool| match (id, name) {
        (None, None) if needed => (default_domain.clone(), None),
        other => other,
    };
    let (domain_id, domain_name) = domain(raw.user_domain_id, raw.user_domain_name, raw.username.is_some());
    let user = Named { id: raw.user_id, name: raw.username, domain_id, domain_name };
    let project_name = raw.project_name.or(raw.tenant_name);
    let scope = if raw.project_id.is_some() || project_name.is_some() {
        let (domain_id, domain_name) = domain(raw.project_domain_id, raw.project_domain_name, project_name.is_some());
        Scope::Project(Named { id: raw.project_id, name: project_name, domain_id, domain_name })
    } else if raw.system_scope.is_some() {
        Scope::System
    } else if raw.domain_id.is_some() || raw.domain_name.is_some() {
        Scope::Domain { id: raw.domain_id, name: raw.domain_name }
    } else {
        Scope::Implied
    };
    let has_application_credential =
        raw.application_credential_id.is_some() || raw.application_credential_name.is_some();
    match auth_type {
        None if has_application_credential => {}
        None if raw.token.is_some() && raw.password.is_none() => {
            return Ok(Auth::Token { token: Hidden(raw.token.unwrap_or_default()), scope });
        }
        None | Some("password" | "v3password") => {
            if user.id.is_none() && user.name.is_none() {
                return Err("`auth.username` or `auth.user_id` is missing".to_owned());
            }
            let password = raw.password.ok_or("`auth.password` is missing")?;
            return Ok(Auth::Password { user, password: Hidden(password), scope });
        }
        Some("token" | "v3token") => {
            let token = raw.token.ok_or("`auth.token` is missing")?;
            return Ok(Auth::Token { token: Hidden(token), scope });
        }
        Some("v3applicationcredential") => {}
        Some(other) => {
            return Err(format!("auth_type {other:?} is not supported: use password or v3applicationcredential"));
        }
    }
    let secret = raw.application_credential_secret.ok_or("`auth.application_credential_secret` is missing")?;
    let id = raw.application_credential_id;
    if id.is_none() && (raw.application_credential_name.is_none() || (user.id.is_none() && user.name.is_none())) {
        return Err("an application credential is given by id, or by name with its user".to_owned());
    }
    let user = id.is_none().then_some(user);
    Ok(Auth::ApplicationCredential { id, name: raw.application_credential_name, user, secret: Hidden(secret) })
}

#[cfg(test)]
mod tests;
