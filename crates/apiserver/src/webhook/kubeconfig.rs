//! Webhooks that are named by a kubeconfig, as those that authorize and those that take audit events are: its current context
//! says where they are, whom to trust, and as whom to call.

use std::path::Path;

use base64::{Engine, engine::general_purpose::STANDARD};
use http::HeaderValue;
use parking_lot::Mutex;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde::Deserialize;

use super::{Endpoint, Place, caller::Caller};

/// Reads a file that a configuration names.
pub type ReadFile<'a> = &'a dyn Fn(&Path) -> Result<String, String>;

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct File {
    #[serde(default)]
    current_context: String,
    #[serde(default)]
    clusters: Vec<NamedCluster>,
    #[serde(default)]
    users: Vec<NamedUser>,
    #[serde(default)]
    contexts: Vec<NamedContext>,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    user: User,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Context {
    cluster: String,
    user: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
struct Cluster {
    server: String,
    certificate_authority: String,
    certificate_authority_data: String,
    tls_server_name: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
struct User {
    client_certificate: String,
    client_certificate_data: String,
    client_key: String,
    client_key_data: String,
    token: String,
    #[serde(rename = "tokenFile")]
    token_file: String,
    username: String,
    password: String,
}

/// What is given, in place or in a file beside the kubeconfig.
struct Reader<'a> {
    folder: &'a Path,
    read: ReadFile<'a>,
}

impl Reader<'_> {
    fn pem(&self, data: &str, file: &str, what: &str) -> Result<String, String> {
        if data.is_empty() {
            return if file.is_empty() { Ok(String::new()) } else { self.file(file) };
        }
        let bytes = STANDARD.decode(data).map_err(|error| format!("{what}: it is not base64: {error}"))?;
        String::from_utf8(bytes).map_err(|_| format!("{what}: it is not PEM"))
    }

    fn file(&self, path: &str) -> Result<String, String> {
        (self.read)(&self.folder.join(path))
    }
}

impl Endpoint {
    /// From the text of a kubeconfig that lies in `folder`. Refused, as is every field that is not followed: plain HTTP,
    /// certificates that nobody checks, proxies, and credentials that a program makes.
    pub fn of_kubeconfig(text: &str, folder: &Path, read: ReadFile<'_>) -> Result<Self, String> {
        // What a parser shows of the text could be a credential.
        let told = |error: serde_saphyr::Error| error.to_string().lines().next().unwrap_or_default().to_owned();
        let file: File = serde_saphyr::from_str(text).map_err(told)?;
        let context = file.contexts.iter().find(|context| context.name == file.current_context);
        let context =
            &context.ok_or_else(|| format!("current-context: there is no {:?}", file.current_context))?.context;
        let cluster = file.clusters.iter().find(|cluster| cluster.name == context.cluster);
        let cluster = &cluster.ok_or_else(|| format!("contexts: there is no cluster {:?}", context.cluster))?.cluster;
        let nobody = User::default();
        let user = match file.users.iter().find(|user| user.name == context.user) {
            Some(found) => &found.user,
            None if context.user.is_empty() => &nobody,
            None => return Err(format!("contexts: there is no user {:?}", context.user)),
        };
        let reader = Reader { folder, read };
        let (place, path) = place(cluster)?;
        let authority = reader.pem(
            &cluster.certificate_authority_data,
            &cluster.certificate_authority,
            "certificate-authority-data",
        )?;
        let caller = Caller { authority: authority.into_bytes(), identity: identity(&reader, user)? };
        let tls = Ok(caller.config()?);
        let authorization = authorization(&reader, user)?;
        Ok(Self { place, path, tls, authorization, agent: "kube-apiserver", idle: Mutex::default() })
    }
}

fn place(cluster: &Cluster) -> Result<(Place, String), String> {
    let server = &cluster.server;
    let uri: http::Uri = server.parse().map_err(|error| format!("server {server:?}: {error}"))?;
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
    if uri.scheme_str() != Some("https") || host.is_empty() {
        return Err(format!("server {server:?}: it must be https://host[:port][/path]"));
    }
    let certified = match cluster.tls_server_name.as_str() {
        "" => host.clone(),
        name => name.to_owned(),
    };
    let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
    let place = Place::Url { host, port: uri.port_u16().unwrap_or(443), authority, certified };
    Ok((place, uri.path().to_owned()))
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn identity(reader: &Reader<'_>, user: &User) -> Result<Option<Identity>, String> {
    let certificate = reader.pem(&user.client_certificate_data, &user.client_certificate, "client-certificate-data")?;
    let key = reader.pem(&user.client_key_data, &user.client_key, "client-key-data")?;
    if certificate.is_empty() && key.is_empty() {
        return Ok(None);
    }
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect();
    let chain = chain.map_err(|error| format!("client-certificate: {error}"))?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| format!("client-key: {error}"))?;
    Ok(Some((chain, key)))
}

fn authorization(reader: &Reader<'_>, user: &User) -> Result<Option<HeaderValue>, String> {
    let token = match (user.token.as_str(), user.token_file.as_str()) {
        ("", "") => String::new(),
        ("", file) => reader.file(file)?.trim().to_owned(),
        (token, _) => token.to_owned(),
    };
    let text = match (token.as_str(), user.username.as_str()) {
        ("", "") => return Ok(None),
        ("", name) => format!("Basic {}", STANDARD.encode(format!("{name}:{}", user.password))),
        (token, _) => format!("Bearer {token}"),
    };
    let mut value = HeaderValue::from_str(&text).map_err(|_| "the credentials are no text for a header".to_owned())?;
    value.set_sensitive(true);
    Ok(Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "
apiVersion: v1
kind: Config
current-context: c
contexts: [{name: c, context: {cluster: k, user: u}}]
clusters: [{name: k, cluster: {server: 'https://a.example.com:8443/authorize', certificate-authority-data: ''}}]
users: [{name: u, user: {tokenFile: token}}]
";

    fn endpoint(text: &str) -> Result<Endpoint, String> {
        Endpoint::of_kubeconfig(text, Path::new("/etc/x"), &|path| {
            (path == Path::new("/etc/x/token"))
                .then(|| "t\n".to_owned())
                .ok_or_else(|| format!("no {}", path.display()))
        })
    }

    #[test]
    fn a_kubeconfig_says_where_a_webhook_is_and_who_calls() {
        let found = endpoint(CONFIG).unwrap();
        assert_eq!(found.url(None), "https://a.example.com:8443/authorize");
        assert_eq!(found.authorization.unwrap(), "Bearer t");
    }

    #[test]
    fn what_is_not_followed_is_refused() {
        for (from, to, wanted) in [
            ("https://a", "http://a", "it must be https"),
            ("current-context: c", "current-context: d", "there is no \"d\""),
            ("cluster: k,", "cluster: l,", "no cluster \"l\""),
            ("user: u}", "user: v}", "no user \"v\""),
            ("tokenFile: token", "tokenFile: other", "no /etc/x/other"),
            ("tokenFile: token", "exec: {command: x}", "exec"),
            ("certificate-authority-data: ''", "insecure-skip-tls-verify: true", "insecure-skip-tls-verify"),
            ("certificate-authority-data: ''", "certificate-authority-data: '*'", "not base64"),
        ] {
            let error = endpoint(&CONFIG.replace(from, to)).unwrap_err();
            assert!(error.contains(wanted) && !error.contains("current-context: c\n"), "{to}: {error}");
        }
    }
}
