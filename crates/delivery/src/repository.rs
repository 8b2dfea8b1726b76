//! Where charts come from: repositories of Helm (`index.yaml` and archives over HTTP) and registries (OCI).
//!
//! Nothing that is fetched is believed beyond its limits and its digest. A repository belongs to whoever has its credentials:
//! what is kept of it is found with the same credentials and the same trust only.

mod cache;
pub mod digest;
pub(crate) mod error;
pub mod grant;
pub mod index;
mod oci;
pub mod push;
mod registry;
pub mod signature;
mod wire;

use std::{fmt, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};
use transport::Transport;

use self::{
    cache::Cache,
    oci::Reference,
    registry::Session,
    wire::{Ask, Wire, taken},
};
pub use self::{
    error::{Class, Error, Result},
    index::{Entry, Index, Missing},
    registry::{CHARTS_MAX, VERSIONS_MAX},
    wire::TIMEOUT,
};

/// The largest index that is read, in bytes: some tens of thousands of versions.
pub const INDEX_BYTES_MAX: usize = 32 << 20;
/// The largest archive of a chart, in bytes. What it unpacks to is limited by `helm`.
pub const ARCHIVE_BYTES_MAX: usize = 20 << 20;
/// Manifests of registries and tokens, in bytes.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// How long an index is taken for what the repository has.
const INDEX_LIFE: Duration = Duration::from_secs(60);
/// What all indexes may take of memory, as they are when they have been read.
const INDEXES_BYTES_MAX: usize = 128 << 20;
/// Indexes that are read at once: while one is, it takes twice of what it takes afterwards.
const READ_AT_ONCE: usize = 2;
/// How long an archive is taken for what its address has.
const ARCHIVE_LIFE: Duration = Duration::from_secs(600);
const ARCHIVES_BYTES_MAX: usize = 64 << 20;
/// How long what an index points at for further facts is taken for what is there: it is of one version, and stays.
const NOTE_LIFE: Duration = Duration::from_secs(24 * 60 * 60);
const NOTE_BYTES_MAX: usize = 32 << 10;
const NOTES_BYTES_MAX: usize = 16 << 20;

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
    /// What `transport` trusts for this repository alone (PEM).
    pub ca_pem: Option<String>,
    pub credentials: Option<Credentials>,
    /// An address of whom the credentials are for: scheme, host and port count. None: whoever is asked first. An index may name
    /// archives of other hosts, which are none of these.
    pub home: Option<String>,
    /// Registries without TLS.
    pub plain_http: bool,
    /// Whoever has signed with one of these (PEM) is believed; if there is none, everybody is.
    pub keys: Vec<String>,
}

impl Access {
    pub fn new(transport: Arc<dyn Transport>) -> Self {
        Self { transport, ca_pem: None, credentials: None, home: None, plain_http: false, keys: Vec::new() }
    }

    fn key(&self, url: &str) -> Key {
        Key {
            url: url.to_owned(),
            ca_pem: self.ca_pem.clone(),
            credentials: self.credentials.clone(),
            keys: self.keys.clone(),
        }
    }

    /// What this address is told; nothing if the credentials are for others.
    fn authorization(&self, url: &str) -> Option<HeaderValue> {
        let is_home = |home: &String| {
            // A registry is asked over HTTP at the same host.
            let plain = if self.plain_http { "http://" } else { "https://" };
            let home = home.replacen(oci::SCHEME, plain, 1);
            matches!((wire::address(&home), wire::address(url)), (Ok(home), Ok(at)) if wire::is_same_place(&home, &at))
        };
        let own = self.credentials.as_ref().filter(|_| self.home.as_ref().is_none_or(is_home))?;
        own.header()
    }
}

/// Under what an answer is kept.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    url: String,
    ca_pem: Option<String>,
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
    indexes: Cache<Key, Arc<Kept>>,
    archives: Cache<Key, Arc<Fetched>>,
    notes: Cache<Key, Bytes>,
    reading: tokio::sync::Semaphore,
    wire: Wire,
}

/// An index, and by what the repository tells whether it is another now.
struct Kept {
    index: Arc<Index>,
    weight: usize,
    validators: Vec<(HeaderName, HeaderValue)>,
}

impl Kept {
    fn of(index: Index, headers: &HeaderMap) -> Arc<Self> {
        let validators = [(header::ETAG, header::IF_NONE_MATCH), (header::LAST_MODIFIED, header::IF_MODIFIED_SINCE)];
        let told = validators.into_iter().filter_map(|(told, asked)| Some((asked, headers.get(told)?.clone())));
        Arc::new(Self { weight: index.weight(), index: Arc::new(index), validators: told.collect() })
    }
}

impl Default for Repositories {
    fn default() -> Self {
        Self {
            indexes: Cache::new(INDEX_LIFE, INDEXES_BYTES_MAX),
            archives: Cache::new(ARCHIVE_LIFE, ARCHIVES_BYTES_MAX),
            notes: Cache::new(NOTE_LIFE, NOTES_BYTES_MAX),
            reading: tokio::sync::Semaphore::new(READ_AT_ONCE),
            wire: Wire::default(),
        }
    }
}

impl Repositories {
    /// What the repository at `url` has. A registry (`oci://`) is asked what it has, if it tells: of each chart the
    /// [`VERSIONS_MAX`] highest versions.
    ///
    /// What was read once is asked for again with what the repository named it by (RFC 9110, 13), and is the same object if it is
    /// the same.
    ///
    /// # Errors
    /// Why it cannot be told.
    pub async fn index(&self, access: &Access, url: &str) -> Result<Arc<Index>> {
        let url = url.trim_end_matches('/');
        let is_registry = url.starts_with(oci::SCHEME);
        let url = if is_registry { url.to_owned() } else { format!("{url}/index.yaml") };
        let fetch = async |old: Option<Arc<Kept>>| {
            let kept = match is_registry {
                true => {
                    let read = registry::index(access, &self.wire, &url).await?;
                    // Whoever has what is the same keeps one.
                    match old.filter(|old| *old.index == read) {
                        Some(old) => old,
                        None => Kept::of(read, &HeaderMap::new()),
                    }
                }
                false => self.read(access, &url, old).await?,
            };
            let weight = kept.weight;
            Ok((kept, weight))
        };
        Ok(self.indexes.get(&access.key(&url), fetch).await?.index.clone())
    }

    async fn read(&self, access: &Access, url: &str, old: Option<Arc<Kept>>) -> Result<Arc<Kept>> {
        let mut ask = Ask::get(url, "*/*", INDEX_BYTES_MAX);
        ask.headers.extend(old.iter().flat_map(|old| old.validators.iter().cloned()));
        let response = self.wire.send(access, &ask, access.authorization(url).as_ref()).await?;
        if let Some(old) = old.filter(|_| response.status() == StatusCode::NOT_MODIFIED) {
            return Ok(old);
        }
        let (parts, text) = taken(url, response)?.into_parts();
        let closed = |_| Error::new(Class::Unreachable, url, "nothing is read any more");
        let _turn = self.reading.acquire().await.map_err(closed)?;
        // Megabytes of YAML are nothing to hold up others with.
        match tokio::task::spawn_blocking(move || Index::parse(&text)).await {
            Ok(Ok(index)) => Ok(Kept::of(index, &parts.headers)),
            Ok(Err(why)) => Err(Error::new(Class::Unusable, url, why)),
            Err(ended) => Err(Error::new(Class::Unusable, url, format!("reading it ended: {ended}"))),
        }
    }

    /// The chart's archive at an address: `http://`, `https://` or `oci://`. `expected` is its digest, if it is known.
    ///
    /// # Errors
    /// Why there is none, or that it is not what it should be.
    pub async fn archive(&self, access: &Access, url: &str, expected: Option<&str>) -> Result<Arc<Fetched>> {
        let fetch = async |_| {
            let fetched = match Reference::parse(url) {
                Ok(reference) => Session::new(access, &self.wire).pull(&reference).await?,
                Err(error) if url.starts_with(oci::SCHEME) => return Err(error),
                Err(_) if !access.keys.is_empty() => {
                    let what = "signatures are looked for in registries only (oci://), and this repository demands one";
                    return Err(Error::new(Class::Untrusted, url, what));
                }
                Err(_) => {
                    let archive = self.get(access, url, ARCHIVE_BYTES_MAX).await?;
                    Fetched { digest: digest::of(&archive), archive }
                }
            };
            let bytes = fetched.archive.len();
            Ok((Arc::new(fetched), bytes))
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

    /// A text that the index of `repository` points at. It lies as safely as the index itself: where that came over TLS, so does this.
    ///
    /// # Errors
    /// Why it cannot be had.
    pub async fn note(&self, access: &Access, repository: &str, url: &str) -> Result<Bytes> {
        let index = wire::address(&format!("{}/index.yaml", repository.trim_end_matches('/')))?;
        let url = wire::next(repository, &index, url)?.to_string();
        let access = &Access { home: access.home.clone().or_else(|| Some(repository.to_owned())), ..access.clone() };
        let fetch = async |_| {
            let text = self.get(access, &url, NOTE_BYTES_MAX).await?;
            let bytes = text.len().max(1 << 10);
            Ok((text, bytes))
        };
        self.notes.get(&access.key(&url), fetch).await
    }

    /// The versions that a registry has of a chart, the highest first.
    ///
    /// # Errors
    /// Why it cannot be told.
    pub async fn versions(&self, access: &Access, url: &str, name: &str) -> Result<Vec<String>> {
        registry::versions(access, &self.wire, url, name).await
    }

    /// What is at an address of a repository.
    async fn get(&self, access: &Access, url: &str, bytes_max: usize) -> Result<Bytes> {
        let own = access.authorization(url);
        Ok(taken(url, self.wire.send(access, &Ask::get(url, "*/*", bytes_max), own.as_ref()).await?)?.into_body())
    }
}

/// Where an archive of a repository's index is.
pub fn joined(repository: &str, url: &str) -> String {
    match url.contains("://") {
        true => url.to_owned(),
        false => format!("{}/{}", repository.trim_end_matches('/'), url.trim_start_matches('/')),
    }
}

/// For a query: everything but letters, digits and `-._~` in percents.
fn encoded(text: &str) -> PercentEncode<'_> {
    const KEEP: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    utf8_percent_encode(text, KEEP)
}

#[cfg(test)]
mod bounds;
#[cfg(test)]
pub(crate) mod tests;
