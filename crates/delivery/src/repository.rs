//! Where charts come from: repositories of Helm (`index.yaml` and archives over HTTP) and registries (OCI).
//!
//! Nothing that is fetched is believed beyond its limits and its digest. A repository belongs to whoever has its credentials:
//! what is kept of it is found with the same credentials only.

mod cache;
pub mod digest;
mod error;
pub mod index;
mod oci;
pub mod signature;

use std::{fmt, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, Uri, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};
use transport::{Transport, TransportError};

use self::{
    cache::Cache,
    oci::{Challenge, Manifest, Reference, Token},
};
pub use self::{
    error::{Class, Error, Result},
    index::{Entry, Index, Missing},
};

/// The largest index that is read, in bytes: some tens of thousands of versions.
pub const INDEX_BYTES_MAX: usize = 32 << 20;
/// The largest archive of a chart, in bytes. What it unpacks to is limited by `helm`.
pub const ARCHIVE_BYTES_MAX: usize = 20 << 20;
/// Manifests of registries and tokens, in bytes.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// A repository that has not answered after this time is not waited for.
pub const TIMEOUT: Duration = Duration::from_secs(30);
const REDIRECTS_MAX: usize = 10;
/// Fetches at once, of all repositories.
const FETCHES_MAX: usize = 16;
/// How long an index is taken for what the repository has.
const INDEX_LIFE: Duration = Duration::from_secs(60);
const INDEXES_BYTES_MAX: usize = 64 << 20;
/// How long an archive is taken for what its address has.
const ARCHIVE_LIFE: Duration = Duration::from_secs(600);
const ARCHIVES_BYTES_MAX: usize = 64 << 20;
const AGENT: &str = "skep";

/// What a repository wants to know of whoever fetches.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Credentials {
    Basic { user: String, password: String },
    Bearer(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

impl Credentials {
    fn header(&self) -> Option<HeaderValue> {
        let text = match self {
            Self::Basic { user, password } => format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))),
            Self::Bearer(token) => format!("Bearer {token}"),
        };
        let mut value = HeaderValue::try_from(text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

/// How a repository is reached.
#[derive(Clone)]
pub struct Access {
    /// Whose trust and proxies are its own.
    pub transport: Arc<dyn Transport>,
    pub credentials: Option<Credentials>,
    /// Registries without TLS.
    pub plain_http: bool,
    /// Whoever has signed with one of these (PEM) is believed; if there is none, everybody is.
    pub keys: Vec<String>,
}

impl Access {
    pub fn new(transport: Arc<dyn Transport>) -> Self {
        Self { transport, credentials: None, plain_http: false, keys: Vec::new() }
    }

    fn key(&self, url: &str) -> Key {
        Key { url: url.to_owned(), credentials: self.credentials.clone(), keys: self.keys.clone() }
    }
}

/// Under what an answer is kept.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    url: String,
    credentials: Option<Credentials>,
    keys: Vec<String>,
}

/// An archive, and the digest that names it for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    pub archive: Bytes,
    /// Of the archive: `sha256:` and hexadecimal digits.
    pub digest: String,
}

/// Fetches and keeps. One for all apps of all clusters.
pub struct Repositories {
    indexes: Cache<Key, Arc<Index>>,
    archives: Cache<Key, Arc<Fetched>>,
    turns: tokio::sync::Semaphore,
}

impl Default for Repositories {
    fn default() -> Self {
        Self {
            indexes: Cache::new(INDEX_LIFE, INDEXES_BYTES_MAX),
            archives: Cache::new(ARCHIVE_LIFE, ARCHIVES_BYTES_MAX),
            turns: tokio::sync::Semaphore::new(FETCHES_MAX),
        }
    }
}

impl Repositories {
    /// What the repository at `url` has.
    ///
    /// # Errors
    /// Why it cannot be told.
    pub async fn index(&self, access: &Access, url: &str) -> Result<Arc<Index>> {
        let url = format!("{}/index.yaml", url.trim_end_matches('/'));
        let fetch = async || {
            let text = self.get(access, &url, "*/*", INDEX_BYTES_MAX).await?;
            let bytes = text.len();
            // Megabytes of YAML are nothing to hold up others with.
            let read = tokio::task::spawn_blocking(move || Index::parse(&text)).await;
            let index = match read {
                Ok(Ok(index)) => index,
                Ok(Err(why)) => return Err(Error::new(Class::Unusable, &url, why)),
                Err(ended) => return Err(Error::new(Class::Unusable, &url, format!("reading it ended: {ended}"))),
            };
            Ok((Arc::new(index), bytes))
        };
        self.indexes.get(&access.key(&url), fetch).await
    }

    /// The chart's archive at an address: `http://`, `https://` or `oci://`. `expected` is its digest, if it is known.
    ///
    /// # Errors
    /// Why there is none, or that it is not what it should be.
    pub async fn archive(&self, access: &Access, url: &str, expected: Option<&str>) -> Result<Arc<Fetched>> {
        let fetch = async || {
            let archive = match Reference::parse(url) {
                Ok(reference) => self.pull(access, &reference).await?,
                Err(error) if url.starts_with(oci::SCHEME) => return Err(error),
                Err(_) if !access.keys.is_empty() => {
                    let what = "signatures are looked for in registries only (oci://), and this repository demands one";
                    return Err(Error::new(Class::Untrusted, url, what));
                }
                Err(_) => self.get(access, url, "*/*", ARCHIVE_BYTES_MAX).await?,
            };
            let (digest, bytes) = (digest::of(&archive), archive.len());
            Ok((Arc::new(Fetched { archive, digest }), bytes))
        };
        let fetched = self.archives.get(&access.key(url), fetch).await?;
        match expected.filter(|expected| !expected.is_empty() && !digest::matches(&fetched.archive, expected)) {
            Some(expected) => {
                let what = format!("the archive has the digest {} and not {expected}", fetched.digest);
                Err(Error::new(Class::Untrusted, url, what))
            }
            None => Ok(fetched),
        }
    }

    /// The archive in an artefact of a registry; each part has the digest it is asked for by.
    async fn pull(&self, access: &Access, reference: &Reference) -> Result<Bytes> {
        let mut session = Session { access, authorization: None };
        let (named, manifest) = self.manifest(&mut session, reference).await?;
        let unusable = |what: String| Error::new(Class::Unusable, reference.to_string(), what);
        if !access.keys.is_empty() {
            self.check(&mut session, reference, &named).await?;
        }
        let layer = manifest.chart().map_err(unusable)?;
        if layer.size > ARCHIVE_BYTES_MAX as u64 {
            return Err(unusable(format!(
                "the chart has {} bytes, and at most {ARCHIVE_BYTES_MAX} are taken",
                layer.size
            )));
        }
        self.blob(&mut session, reference, &layer.digest, ARCHIVE_BYTES_MAX).await
    }

    /// A manifest, and its digest.
    async fn manifest(&self, session: &mut Session<'_>, reference: &Reference) -> Result<(String, Manifest)> {
        let url = session.url(reference, "manifests", reference.version());
        let bytes = self.ask(session, &url, oci::MANIFESTS, ANSWER_BYTES_MAX).await?;
        let named = digest::of(&bytes);
        if reference.digest.as_ref().is_some_and(|digest| *digest != named) {
            let what = format!("the manifest has the digest {named}");
            return Err(Error::new(Class::Untrusted, reference.to_string(), what));
        }
        let read = serde_json::from_slice(&bytes)
            .map_err(|error| Error::new(Class::Unusable, &url, format!("the manifest cannot be read: {error}")))?;
        Ok((named, read))
    }

    async fn blob(&self, session: &mut Session<'_>, of: &Reference, digest: &str, bytes_max: usize) -> Result<Bytes> {
        let Some(digits) = digest::parse(digest) else {
            return Err(Error::new(Class::Unusable, of.to_string(), format!("{digest:?} is no digest")));
        };
        let url = session.url(of, "blobs", &format!("sha256:{digits}"));
        let bytes = self.ask(session, &url, "*/*", bytes_max).await?;
        if !digest::matches(&bytes, digest) {
            let what = format!("what came has the digest {} and not {digest}", digest::of(&bytes));
            return Err(Error::new(Class::Untrusted, url, what));
        }
        Ok(bytes)
    }

    /// Looks for a signature of the manifest of this digest by one of the keys: an artefact beside it, as cosign keeps them.
    async fn check(&self, session: &mut Session<'_>, reference: &Reference, named: &str) -> Result<()> {
        let untrusted = |what: String| Error::new(Class::Untrusted, reference.to_string(), what);
        let beside = Reference { tag: Some(signature::tag(named)), digest: None, ..reference.clone() };
        let manifest = match self.manifest(session, &beside).await {
            Ok((_, manifest)) => manifest,
            Err(error) if error.class == Class::Missing => return Err(untrusted("it is not signed".to_owned())),
            Err(error) => return Err(error),
        };
        for (layer, told) in signature::candidates(&manifest.layers) {
            let payload = self.blob(session, reference, &layer.digest, signature::PAYLOAD_BYTES_MAX).await?;
            if signature::is_of(&payload, named)
                && session.access.keys.iter().any(|key| signature::verifies(key, &payload, told))
            {
                return Ok(());
            }
        }
        Err(untrusted("no signature of it is by one of the keys that are trusted".to_owned()))
    }

    /// Asks a registry; once more with what it demands.
    async fn ask(&self, session: &mut Session<'_>, url: &str, accept: &str, bytes_max: usize) -> Result<Bytes> {
        let access = session.access;
        let response = self.send(access, url, accept, session.authorization.as_ref(), bytes_max).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return taken(url, response);
        }
        let challenges = response.headers().get_all(header::WWW_AUTHENTICATE).iter();
        let challenge = challenges.filter_map(|value| value.to_str().ok()).find_map(Challenge::parse);
        let own = access.credentials.as_ref().and_then(Credentials::header);
        session.authorization = match challenge {
            Some(Challenge::Basic) => own,
            Some(Challenge::Bearer(realm)) => {
                let answer = self.send(access, &realm, "application/json", own.as_ref(), ANSWER_BYTES_MAX).await?;
                let token: Token = serde_json::from_slice(&taken(&realm, answer)?).map_err(|error| {
                    Error::new(Class::Unusable, &realm, format!("the token cannot be read: {error}"))
                })?;
                Credentials::Bearer(token.text()).header()
            }
            None => None,
        };
        if session.authorization.is_none() {
            return taken(url, response);
        }
        let response = self.send(access, url, accept, session.authorization.as_ref(), bytes_max).await?;
        taken(url, response)
    }

    /// What is at an address of a repository.
    async fn get(&self, access: &Access, url: &str, accept: &str, bytes_max: usize) -> Result<Bytes> {
        let own = access.credentials.as_ref().and_then(Credentials::header);
        taken(url, self.send(access, url, accept, own.as_ref(), bytes_max).await?)
    }

    /// The answer, wherever the address leads to. Other hosts do not get the credentials.
    async fn send(
        &self,
        access: &Access,
        url: &str,
        accept: &str,
        authorization: Option<&HeaderValue>,
        bytes_max: usize,
    ) -> Result<Response<Bytes>> {
        let unreachable = |what: String| Error::new(Class::Unreachable, url, what);
        let Ok(_turn) = self.turns.acquire().await else {
            return Err(unreachable("nothing is fetched any more".into()));
        };
        let first = address(url)?;
        let mut at = first.clone();
        let walk = async {
            for _ in 0..=REDIRECTS_MAX {
                let mut request =
                    Request::get(at.clone()).header(header::ACCEPT, accept).header(header::USER_AGENT, AGENT);
                if let Some(host) = at.authority() {
                    request = request.header(header::HOST, host.as_str());
                }
                if let Some(value) = authorization.filter(|_| is_same_place(&at, &first)) {
                    request = request.header(header::AUTHORIZATION, value);
                }
                let request =
                    request.body(Bytes::new()).map_err(|error| Error::new(Class::Address, url, error.to_string()))?;
                let response = access.transport.send(request, bytes_max).await.map_err(|error| failed(url, &error))?;
                let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
                match location.filter(|_| response.status().is_redirection()) {
                    Some(location) => at = next(url, &at, location)?,
                    None => return Ok(response),
                }
            }
            Err(Error::new(Class::Unusable, url, format!("it leads on more than {REDIRECTS_MAX} times")))
        };
        match tokio::time::timeout(TIMEOUT, walk).await {
            Ok(answer) => answer,
            Err(_) => Err(unreachable(format!("there was no whole answer within {} s", TIMEOUT.as_secs()))),
        }
    }
}

/// What is spoken to one registry.
struct Session<'a> {
    access: &'a Access,
    authorization: Option<HeaderValue>,
}

impl Session<'_> {
    fn url(&self, reference: &Reference, what: &str, which: &str) -> String {
        let scheme = if self.access.plain_http { "http" } else { "https" };
        format!("{scheme}://{}/v2/{}/{what}/{which}", reference.host, reference.path)
    }
}

/// Where an archive of a repository's index is.
pub fn joined(repository: &str, url: &str) -> String {
    match url.contains("://") {
        true => url.to_owned(),
        false => format!("{}/{}", repository.trim_end_matches('/'), url.trim_start_matches('/')),
    }
}

fn address(url: &str) -> Result<Uri> {
    let uri: Uri = url.parse().map_err(|_| Error::new(Class::Address, url, "this is no address"))?;
    match (uri.scheme_str(), uri.host()) {
        (Some("http" | "https"), Some(_)) => Ok(uri),
        _ => Err(Error::new(Class::Address, url, "expected http://, https:// or oci://")),
    }
}

/// What an address leads to. A way that began with TLS does not go on without.
fn next(url: &str, at: &Uri, location: &str) -> Result<Uri> {
    let wrong = |what: &str| Error::new(Class::Unusable, url, format!("it leads to {location:?}: {what}"));
    let target = match location.contains("://") {
        true => location.to_owned(),
        false => {
            let place =
                format!("{}://{}", at.scheme_str().unwrap_or_default(), at.authority().map_or("", |a| a.as_str()));
            match location.strip_prefix('/') {
                Some(path) => format!("{place}/{path}"),
                None => format!("{place}{}/{location}", at.path().rsplit_once('/').map_or("", |(folder, _)| folder)),
            }
        }
    };
    let target = address(&target).map_err(|_| wrong("this is no address"))?;
    if at.scheme_str() == Some("https") && target.scheme_str() != Some("https") {
        return Err(wrong("without TLS"));
    }
    Ok(target)
}

fn is_same_place(one: &Uri, other: &Uri) -> bool {
    one.scheme() == other.scheme() && one.authority() == other.authority()
}

fn failed(url: &str, error: &TransportError) -> Error {
    let class = match error {
        TransportError::TooLarge { .. } => Class::Unusable,
        _ => Class::Unreachable,
    };
    let mut what = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        what = format!("{what}: {inner}");
        source = inner.source();
    }
    Error::new(class, url, what)
}

/// The body of an answer that is one.
fn taken(url: &str, response: Response<Bytes>) -> Result<Bytes> {
    let status = response.status();
    let class = match status.as_u16() {
        200..300 => return Ok(response.into_body()),
        401 | 403 => Class::Denied,
        404 | 410 => Class::Missing,
        408 | 429 | 500.. => Class::Unreachable,
        _ => Class::Unusable,
    };
    Err(Error::new(class, url, format!("it answers {status}")))
}

/// For a query: everything but letters, digits and `-._~` in percents.
fn encoded(text: &str) -> PercentEncode<'_> {
    const KEEP: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    utf8_percent_encode(text, KEEP)
}

#[cfg(test)]
mod tests;
