//! What a catalog's repositories want to know, and whose signatures they are to bear: a Secret beside the Catalog
//! (docs/decisions/repositories.md), since the published kind has no field for it.

use std::{collections::BTreeMap, sync::Arc};

use api::app::Catalog;
use k8s_openapi::api::core::v1::Secret;
use serde::Deserialize;
use transport::Transport;

use super::{Access, Credentials, error::of_json, oci, signature, wire};

/// On the Secret: the name of the Catalog that it is for. Without it a Secret is for none, whatever its name is.
pub const CATALOG_LABEL: &str = "application.giantswarm.io/catalog";
/// Public keys that charts are to be signed with, in one Secret.
pub const KEYS_MAX: usize = 16;
/// What the names of such keys end with, as `cosign generate-key-pair` names them.
const KEY_SUFFIX: &str = ".pub";
/// Whose certificates are believed besides those that the process believes, as Secrets of TLS name them.
const CA: &str = "ca.crt";
/// `kubectl create secret docker-registry`
const DOCKER: &str = ".dockerconfigjson";

/// The name of the Secret of a Catalog, in the Catalog's namespace.
pub fn secret_name(catalog: &str) -> String {
    format!("{catalog}-credentials")
}

/// How an address is reached for a catalog: that of one of its repositories, or of what is fetched from there. What the Secret says for
/// all of it is said to the hosts of the catalog's repositories alone: an index, or whoever writes a Chart, may name any other.
/// `secret` is the one of [`secret_name`], if there is one.
///
/// # Errors
/// What of the Secret cannot be used: nothing is fetched with half of what was meant.
pub fn access(
    transport: Arc<dyn Transport>,
    catalog: &Catalog,
    secret: Option<&Secret>,
    url: &str,
) -> Result<Access, String> {
    let mut access =
        Access { home: Some(url.to_owned()), plain_http: is_on_this_machine(url), ..Access::new(transport) };
    let name = catalog.metadata.name.as_deref().unwrap_or_default();
    let label = |secret: &&Secret| secret.metadata.labels.as_ref()?.get(CATALOG_LABEL).cloned();
    let Some(secret) = secret.filter(|secret| label(secret).as_deref() == Some(name)) else { return Ok(access) };
    let wrong = |what: String| format!("secret {}: {what}", secret_name(name));
    let mut texts = BTreeMap::new();
    for (key, value) in secret.data.iter().flatten() {
        let text = std::str::from_utf8(&value.0).map_err(|_| wrong(format!("{key} is no text")))?;
        texts.insert(key.as_str(), text);
    }
    for (key, text) in &texts {
        match *key {
            "username" | "password" | "token" | DOCKER => {}
            CA => {
                let trusting = access.transport.trusting(text.as_bytes());
                access.transport = trusting.map_err(|error| wrong(format!("{CA}: {error}")))?;
                access.ca_pem = Some((*text).to_owned());
            }
            key if key.ends_with(KEY_SUFFIX) && signature::is_key(text) => access.keys.push((*text).to_owned()),
            key if key.ends_with(KEY_SUFFIX) => {
                return Err(wrong(format!("{key} is no public key in PEM that signatures can be checked with")));
            }
            key => {
                let known =
                    "username and password, token, .dockerconfigjson, ca.crt, and keys whose names end with .pub";
                return Err(wrong(format!("{key} is not acted upon: expected {known}")));
            }
        }
    }
    if access.keys.len() > KEYS_MAX {
        return Err(wrong(format!("there are {} public keys, and at most {KEYS_MAX} are taken", access.keys.len())));
    }
    access.credentials = credentials(&texts, url, is_of(catalog, url)).map_err(wrong)?;
    Ok(access)
}

/// Whether an address is at the host of one of the catalog's repositories.
fn is_of(catalog: &Catalog, url: &str) -> bool {
    // Of a registry, host and port count; nothing is asked yet.
    let place = |url: &str| wire::address(&url.replacen(oci::SCHEME, "https://", 1)).ok();
    let is_there = |repository: &str| {
        let same = place(repository).zip(place(url)).is_some_and(|(home, at)| wire::is_same_place(&home, &at));
        same && is_registry(repository) == is_registry(url)
    };
    let repositories = catalog.spec.repositories.iter().map(|repository| repository.url.as_str());
    repositories.chain([catalog.spec.storage.url.as_str()]).any(is_there)
}

/// `own`: whether the address is the catalog's own, or one that is told only what was meant for its host by name.
fn credentials(texts: &BTreeMap<&str, &str>, url: &str, own: bool) -> Result<Option<Credentials>, String> {
    let text = |key: &str| texts.get(key).map(|text| text.trim_end_matches('\n').to_owned());
    let found = match (text("username"), text("password"), text("token"), texts.get(DOCKER)) {
        (None, None, None, None) => None,
        (Some(user), Some(password), None, None) => Some(Credentials::Basic { user, password }).filter(|_| own),
        (None, None, Some(token), None) => Some(Credentials::Bearer(token)).filter(|_| own),
        (None, None, None, Some(file)) => docker(file, url)?,
        _ => return Err("expected username and password, or token, or .dockerconfigjson, and one of them".to_owned()),
    };
    match found.as_ref().map(Credentials::header) {
        Some(None) => Err("the credentials have characters that cannot be sent".to_owned()),
        _ => Ok(found),
    }
}

#[derive(Deserialize)]
struct Docker {
    auths: BTreeMap<String, Auth>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Auth {
    username: String,
    password: String,
    auth: String,
}

/// What a `config.json` of docker has for the host of this address; none if it speaks of others.
fn docker(file: &str, url: &str) -> Result<Option<Credentials>, String> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let read: Docker =
        serde_json::from_str(file).map_err(|error| format!("{DOCKER} cannot be read: {}", of_json(&error)))?;
    let host = |address: &str| {
        let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
        rest.split('/').next().unwrap_or_default().to_owned()
    };
    let wanted = host(url);
    let Some((_, auth)) = read.auths.into_iter().find(|(address, _)| host(address) == wanted) else { return Ok(None) };
    if auth.auth.is_empty() {
        return Ok(Some(Credentials::Basic { user: auth.username, password: auth.password }));
    }
    let text = STANDARD.decode(auth.auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    match text.as_deref().and_then(|text| text.split_once(':')) {
        Some((user, password)) => Ok(Some(Credentials::Basic { user: user.to_owned(), password: password.to_owned() })),
        None => Err(format!("{DOCKER}: auth of {wanted} is not user:password in base64")),
    }
}

/// Registries of this machine are asked without TLS, as docker does.
pub fn is_on_this_machine(url: &str) -> bool {
    let rest = url.strip_prefix(oci::SCHEME).unwrap_or_default();
    let place = rest.split('/').next().unwrap_or_default();
    let host = place.rsplit_once(':').map_or(place, |(host, _)| host);
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// Whether an address is that of a registry.
pub fn is_registry(url: &str) -> bool {
    url.starts_with(oci::SCHEME)
}

#[cfg(test)]
mod tests {
    use api::app::Repository;
    use k8s_openapi::ByteString;
    use transport::Local;

    use super::*;

    const KEY: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";

    fn of(data: &[(&str, &str)], label: &str, url: &str) -> Result<Access, String> {
        let mut catalog = Catalog::default();
        catalog.metadata.name = Some("stable".into());
        for url in ["https://charts.test/stable", "oci://r.test/charts", "oci://t.test:5000"] {
            catalog.spec.repositories.push(Repository { type_: "helm".into(), url: url.into() });
        }
        catalog.spec.storage.url = "https://stored.test/charts".into();
        let mut secret = Secret::default();
        secret.metadata.labels = Some([(CATALOG_LABEL.to_owned(), label.to_owned())].into());
        secret.data =
            Some(data.iter().map(|(key, text)| ((*key).to_owned(), ByteString(text.as_bytes().to_vec()))).collect());
        let nobody = axum::Router::new();
        access(Local::shared::<axum::body::Body, axum::body::Body>(nobody), &catalog, Some(&secret), url)
    }

    #[test]
    fn a_secret_of_a_catalog_says_who_asks_and_whose_signatures_count() {
        let url = "https://charts.test/stable";
        let found = of(&[("username", "u"), ("password", "p\n"), ("cosign.pub", KEY)], "stable", url).unwrap();
        assert_eq!(found.credentials, Some(Credentials::Basic { user: "u".into(), password: "p".into() }));
        assert_eq!((found.keys.as_slice(), found.home.as_deref()), ([KEY.to_owned()].as_slice(), Some(url)));
        assert_eq!(of(&[("token", "t")], "stable", url).unwrap().credentials, Some(Credentials::Bearer("t".into())));
        let other = of(&[("token", "t")], "other", url).unwrap();
        assert_eq!(
            (other.credentials, other.keys.len()),
            (None, 0),
            "a secret that is not labelled for it is none of its"
        );
    }

    #[test]
    fn credentials_are_told_to_the_hosts_of_the_catalogs_repositories_alone() {
        let told = |url: &str| of(&[("token", "t")], "stable", url).unwrap().credentials.is_some();
        for own in [
            "https://charts.test/stable/hello-1.0.0.tgz",
            "https://charts.test/elsewhere.tgz",
            "oci://r.test/charts/hello:1.0.0",
            "oci://t.test:5000/hello:1.0.0",
            "https://stored.test/charts/index.yaml",
        ] {
            assert!(told(own), "{own}");
        }
        for other in [
            "https://other.test/hello-1.0.0.tgz",
            "https://charts.test:8443/hello-1.0.0.tgz",
            "http://charts.test/hello-1.0.0.tgz",
            "https://charts.test.other.test/hello.tgz",
            "https://r.test/charts/hello-1.0.0.tgz",
            "oci://t.test/hello:1.0.0",
            "oci://charts.test/hello:1.0.0",
            "no address",
        ] {
            assert!(!told(other), "{other}");
        }
    }

    #[test]
    fn credentials_of_docker_are_for_the_hosts_that_they_name() {
        let file =
            r#"{"auths": {"https://r.test/v1/": {"auth": "dTpw"}, "s.test:5000": {"username": "a", "password": "b"}}}"#;
        let of = |url: &str| of(&[(".dockerconfigjson", file)], "stable", url).unwrap().credentials;
        assert_eq!(of("oci://r.test/charts"), Some(Credentials::Basic { user: "u".into(), password: "p".into() }));
        assert_eq!(of("oci://s.test:5000"), Some(Credentials::Basic { user: "a".into(), password: "b".into() }));
        assert_eq!(of("oci://t.test/charts"), None);
    }

    #[test]
    fn registries_of_this_machine_are_asked_without_tls_and_no_others() {
        for (url, is) in [
            ("oci://127.0.0.1:5000/charts", true),
            ("oci://localhost/charts", true),
            ("oci://[::1]:5000/charts", true),
            ("oci://localhost.test/charts", false),
            ("oci://127.0.0.1.test:5000/charts", false),
            ("oci://r.test/127.0.0.1/charts", false),
        ] {
            assert_eq!(of(&[], "stable", url).unwrap().plain_http, is, "{url}");
        }
    }

    #[test]
    fn what_of_a_secret_is_not_acted_upon_is_refused() {
        let keys: Vec<(String, &str)> = (0..=KEYS_MAX).map(|number| (format!("{number}.pub"), KEY)).collect();
        let keys: Vec<(&str, &str)> = keys.iter().map(|(name, key)| (name.as_str(), *key)).collect();
        for (data, why) in [
            (&[("tls.crt", "x")][..], "tls.crt is not acted upon"),
            (&[("ca.crt", "x")], "ca.crt: cannot set up TLS: no certificate is looked at here"),
            (&[("cosign.pub", "x")], "cosign.pub is no public key"),
            (&[("username", "u")], "expected username and password"),
            (&[("token", "t"), ("username", "u"), ("password", "p")], "and one of them"),
            (&[("token", "a\nb")], "characters that cannot be sent"),
            (&[(".dockerconfigjson", r#"{"auths": "hunter2"}"#)], "cannot be read: line 1, column "),
            (&[(".dockerconfigjson", r#"{"auths": {"r.test": {"auth": "eA=="}}}"#)], "not user:password"),
            (&keys, "17 public keys"),
        ] {
            let error = of(data, "stable", "oci://r.test").err().unwrap();
            assert!(error.starts_with("secret stable-credentials: ") && error.contains(why), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        assert!(of(&keys[..KEYS_MAX], "stable", "oci://r.test").is_ok());
    }
}
