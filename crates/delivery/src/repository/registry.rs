//! What is asked of a registry: manifests and blobs by digest, signatures, and what there is.

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use helm::version::Version;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde::Deserialize;

use super::{
    ANSWER_BYTES_MAX, ARCHIVE_BYTES_MAX, Access, Credentials, Fetched, digest,
    error::{Class, Error, Result, of_json},
    index::{Entry, Index},
    oci::{self, Challenge, Manifest, Reference, Token},
    signature,
    wire::{Ask, Wire, address, is_same_place, next, taken},
};

/// Pages of a listing, of names or of tags.
const PAGES_MAX: usize = 100;
/// Charts of a registry that are listed.
pub const CHARTS_MAX: usize = 2_000;
/// Versions of a chart that are told of: the highest. A registry does not say when they were made but in each manifest.
pub const VERSIONS_MAX: usize = 10;
/// `Chart.yaml` as a registry keeps it.
pub const CONFIG_BYTES_MAX: usize = 1 << 20;
/// Charts that are looked at side by side.
const SIDE_BY_SIDE: usize = 4;

/// A manifest as a registry has it.
pub struct Written {
    pub digest: String,
    pub bytes: Bytes,
    pub manifest: Manifest,
}

/// What is spoken to one registry.
pub struct Session<'a> {
    pub access: &'a Access,
    wire: &'a Wire,
    authorization: Option<HeaderValue>,
}

impl<'a> Session<'a> {
    pub fn new(access: &'a Access, wire: &'a Wire) -> Self {
        Self { access, wire, authorization: None }
    }

    fn origin(&self, host: &str) -> String {
        format!("{}://{host}", if self.access.plain_http { "http" } else { "https" })
    }

    pub fn url(&self, reference: &Reference, what: &str, which: &str) -> String {
        format!("{}/v2/{}/{what}/{which}", self.origin(&reference.host), reference.path)
    }

    /// Asks; once more with what the registry demands.
    pub async fn ask(&mut self, ask: &Ask<'_>) -> Result<Response<Bytes>> {
        let response = self.wire.send(self.access, ask, self.authorization.as_ref()).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return taken(ask.url, response);
        }
        let challenges = response.headers().get_all(header::WWW_AUTHENTICATE).iter();
        let challenge = challenges.filter_map(|value| value.to_str().ok()).find_map(Challenge::parse);
        let own = self.access.authorization(ask.url);
        self.authorization = match challenge {
            Some(Challenge::Basic) => own,
            Some(Challenge::Bearer(realm)) => {
                // Credentials that came over TLS do not leave without.
                next(ask.url, &address(ask.url)?, &realm)?;
                let wanted = Ask::get(&realm, "application/json", ANSWER_BYTES_MAX);
                let answer = taken(&realm, self.wire.send(self.access, &wanted, own.as_ref()).await?)?;
                let token: Token = serde_json::from_slice(answer.body()).map_err(|error| {
                    Error::new(Class::Unusable, &realm, format!("the token cannot be read: {}", of_json(&error)))
                })?;
                Credentials::Bearer(token.text()).header()
            }
            None => None,
        };
        if self.authorization.is_none() {
            return taken(ask.url, response);
        }
        taken(ask.url, self.wire.send(self.access, ask, self.authorization.as_ref()).await?)
    }

    async fn get(&mut self, url: &str, accept: &'static str, bytes_max: usize) -> Result<Bytes> {
        Ok(self.ask(&Ask::get(url, accept, bytes_max)).await?.into_body())
    }

    /// The archive in an artefact; each part has the digest it is asked for by.
    pub async fn pull(&mut self, reference: &Reference) -> Result<Fetched> {
        let (named, manifest) = self.manifest(reference).await?;
        let unusable = |what: String| Error::new(Class::Unusable, reference.to_string(), what);
        if !self.access.keys.is_empty() {
            self.check(reference, &named).await?;
        }
        let layer = manifest.chart().map_err(unusable)?;
        if layer.size > ARCHIVE_BYTES_MAX as u64 {
            return Err(unusable(format!(
                "the chart has {} bytes, and at most {ARCHIVE_BYTES_MAX} are taken",
                layer.size
            )));
        }
        let archive = self.blob(reference, &layer.digest, ARCHIVE_BYTES_MAX).await?;
        Ok(Fetched { digest: digest::of(&archive), archive })
    }

    /// A manifest, and its digest.
    pub async fn manifest(&mut self, reference: &Reference) -> Result<(String, Manifest)> {
        let Written { digest, manifest, .. } = self.written(reference).await?;
        Ok((digest, manifest))
    }

    pub async fn written(&mut self, reference: &Reference) -> Result<Written> {
        let url = self.url(reference, "manifests", reference.version());
        let bytes = self.get(&url, oci::MANIFESTS, ANSWER_BYTES_MAX).await?;
        let named = digest::of(&bytes);
        if reference.digest.as_ref().is_some_and(|digest| *digest != named) {
            let what = format!("the manifest has the digest {named}");
            return Err(Error::new(Class::Untrusted, reference.to_string(), what));
        }
        let manifest = serde_json::from_slice(&bytes).map_err(|error| {
            Error::new(Class::Unusable, &url, format!("the manifest cannot be read: {}", of_json(&error)))
        })?;
        Ok(Written { digest: named, bytes, manifest })
    }

    pub async fn blob(&mut self, of: &Reference, digest: &str, bytes_max: usize) -> Result<Bytes> {
        let Some(digits) = digest::parse(digest) else {
            return Err(Error::new(Class::Unusable, of.to_string(), format!("{digest:?} is no digest")));
        };
        let url = self.url(of, "blobs", &format!("sha256:{digits}"));
        let bytes = self.get(&url, "*/*", bytes_max).await?;
        if !digest::matches(&bytes, digest) {
            let what = format!("what came has the digest {} and not {digest}", digest::of(&bytes));
            return Err(Error::new(Class::Untrusted, url, what));
        }
        Ok(bytes)
    }

    /// Looks for a signature of the manifest of this digest by one of the keys: an artefact beside it, as cosign keeps them.
    pub async fn check(&mut self, reference: &Reference, named: &str) -> Result<()> {
        let untrusted = |what: String| Error::new(Class::Untrusted, reference.to_string(), what);
        let manifest = match self.manifest(&reference.signatures(named)).await {
            Ok((_, manifest)) => manifest,
            Err(error) if error.class == Class::Missing => return Err(untrusted("it is not signed".to_owned())),
            Err(error) => return Err(error),
        };
        for (layer, told) in signature::candidates(&manifest.layers) {
            let payload = self.blob(reference, &layer.digest, signature::PAYLOAD_BYTES_MAX).await?;
            let keys = &self.access.keys;
            if signature::is_of(&payload, named) && keys.iter().any(|key| signature::verifies(key, &payload, told)) {
                return Ok(());
            }
        }
        Err(untrusted("no signature of it is by one of the keys that are trusted".to_owned()))
    }

    /// All pages of a listing, put together by `read`; each page says where the next one is (RFC 8288).
    async fn pages<T: for<'de> Deserialize<'de>>(
        &mut self,
        url: String,
        mut read: impl FnMut(T) -> Result<bool>,
    ) -> Result<()> {
        let mut at = url.clone();
        for _ in 0..PAGES_MAX {
            let answer = self.ask(&Ask::get(&at, "application/json", ANSWER_BYTES_MAX)).await?;
            let page = serde_json::from_slice(answer.body()).map_err(|error| {
                Error::new(Class::Unusable, &at, format!("the list cannot be read: {}", of_json(&error)))
            })?;
            if !read(page)? {
                return Ok(());
            }
            match following(answer.headers()) {
                Some(link) => at = followed(&at, link)?,
                None => return Ok(()),
            }
        }
        Err(Error::new(Class::Unusable, url, format!("the list has more than {PAGES_MAX} pages")))
    }

    /// The names below a path of all that the registry has. Not all registries tell: it is no part of what they have to.
    async fn names(&mut self, place: &Place) -> Result<Vec<String>> {
        let mut found = Vec::new();
        let below = if place.path.is_empty() { String::new() } else { format!("{}/", place.path) };
        let url = format!("{}/v2/_catalog?n=1000", self.origin(&place.host));
        let listed = self.pages(url, |page: Names| {
            let names = page.repositories.unwrap_or_default();
            // What lies deeper is in no address that an app of the catalog has.
            let here = names.iter().filter_map(|name| name.strip_prefix(&below)).filter(|name| !name.contains('/'));
            found.extend(here.map(str::to_owned));
            if found.len() > CHARTS_MAX {
                let what = format!("the registry has more than {CHARTS_MAX} charts below this path");
                return Err(Error::new(Class::Unusable, place.to_string(), what));
            }
            Ok(true)
        });
        match listed.await {
            Ok(()) => {}
            Err(error) if matches!(error.class, Class::Missing | Class::Denied) => {
                let what =
                    format!("the registry does not list what it has ({error}): apps of it can be made all the same");
                return Err(Error::new(error.class, place.to_string(), what));
            }
            Err(error) => return Err(error),
        }
        found.sort();
        found.dedup();
        Ok(found)
    }

    /// Tags that are versions, as versions: the highest come first.
    async fn versions(&mut self, place: &Place, name: &str) -> Result<Vec<String>> {
        let reference = place.chart(name)?;
        let mut found: Vec<(Version, String)> = Vec::new();
        let url = self.url(&reference, "tags", "list?n=1000");
        let read = |page: Tags| {
            for tag in page.tags.unwrap_or_default() {
                // Helm writes the + of a version, which tags cannot have, as _.
                let text = tag.replace('_', "+");
                found.extend(Version::parse(&text).ok().map(|version| (version, text)));
            }
            Ok(true)
        };
        self.pages(url, read).await?;
        found.sort_by(|(one, _), (other, _)| other.compare(one));
        Ok(found.into_iter().map(|(_, text)| text).collect())
    }

    /// What the registry says of a version of a chart; none if the artefact is no chart.
    async fn entry(&mut self, place: &Place, name: &str, version: &str) -> Result<Option<Entry>> {
        let reference = Reference { tag: Some(version.replace('+', "_")), ..place.chart(name)? };
        let (_, manifest) = self.manifest(&reference).await?;
        let Ok(layer) = manifest.chart() else { return Ok(None) };
        let config = self.blob(&reference, &manifest.config.digest, CONFIG_BYTES_MAX).await?;
        let mut entry: Entry = serde_json::from_slice(&config).map_err(|error| {
            Error::new(
                Class::Unusable,
                reference.to_string(),
                format!("the chart's metadata cannot be read: {}", of_json(&error)),
            )
        })?;
        name.clone_into(&mut entry.name);
        version.clone_into(&mut entry.version);
        entry.digest.clone_from(&layer.digest);
        entry.urls = vec![reference.to_string()];
        entry.created = manifest.annotations.get(oci::CREATED).cloned().unwrap_or_default();
        Ok(Some(entry))
    }
}

/// The versions of one chart, the highest first.
pub async fn versions(access: &Access, wire: &Wire, url: &str, name: &str) -> Result<Vec<String>> {
    Session::new(access, wire).versions(&Place::parse(url)?, name).await
}

/// An index as the registry would have it: of each chart the highest versions.
pub async fn index(access: &Access, wire: &Wire, url: &str) -> Result<Index> {
    let place = Place::parse(url)?;
    let names = Session::new(access, wire).names(&place).await?;
    let charts = futures::stream::iter(names).map(|name| {
        let place = &place;
        async move {
            // Each has a token of its own.
            let mut session = Session::new(access, wire);
            let mut entries = Vec::new();
            for version in session.versions(place, &name).await?.into_iter().take(VERSIONS_MAX) {
                entries.extend(session.entry(place, &name, &version).await?);
            }
            Ok::<_, Error>((name, entries))
        }
    });
    let charts: Vec<_> = charts.buffer_unordered(SIDE_BY_SIDE).try_collect().await?;
    Ok(Index { entries: charts.into_iter().filter(|(_, entries)| !entries.is_empty()).collect() })
}

/// `oci://host[:port][/path]`: where the charts of a catalog are.
pub struct Place {
    host: String,
    path: String,
}

impl Place {
    pub fn parse(url: &str) -> Result<Self> {
        let wrong = |what: &str| Error::new(Class::Address, url, what);
        let rest = url.strip_prefix(oci::SCHEME).ok_or_else(|| wrong("expected oci://HOST/PATH"))?;
        let (host, path) = rest.trim_end_matches('/').split_once('/').unwrap_or((rest.trim_end_matches('/'), ""));
        let place = Self { host: host.to_owned(), path: path.to_owned() };
        // A chart's name tells that what stands before it can.
        place.chart("a").map_err(|error| wrong(&error.what))?;
        Ok(place)
    }

    /// The artefacts of a chart, without a version.
    pub fn chart(&self, name: &str) -> Result<Reference> {
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{}/{name}", self.path) };
        let any = Reference::parse(&format!("{}{}/{path}:0", oci::SCHEME, self.host))?;
        Ok(Reference { tag: None, ..any })
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}/{}", oci::SCHEME, self.host, self.path)
    }
}

#[derive(Deserialize)]
struct Names {
    repositories: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Tags {
    tags: Option<Vec<String>>,
}

/// Where a registry sends on to: to itself, since what it was told before is told again there.
pub fn followed(url: &str, link: &str) -> Result<String> {
    let at = address(url)?;
    let target = next(url, &at, link)?;
    match is_same_place(&at, &target) {
        true => Ok(target.to_string()),
        false => Err(Error::new(Class::Unusable, url, format!("it leads to {link:?}, which is another host"))),
    }
}

/// `Link: </v2/_catalog?last=x&n=5>; rel="next"`.
fn following(headers: &HeaderMap) -> Option<&str> {
    let link = headers.get(header::LINK)?.to_str().ok()?;
    let (target, parameters) = link.strip_prefix('<')?.split_once('>')?;
    parameters.replace(['"', ' '], "").split(';').any(|one| one == "rel=next").then_some(target)
}
