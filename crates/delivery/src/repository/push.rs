//! Charts that are put into a registry.
//!
//! Source: OCI Distribution Specification 1.1 ("Push"); helm.sh/helm/v3 pkg/registry.

use bytes::Bytes;
use http::{HeaderValue, Method, Response, header};
use serde_json::{Value as Json, json};

use super::{
    ANSWER_BYTES_MAX, Access, Repositories, digest,
    error::{Class, Error, Result},
    oci::{self, Reference},
    registry::{Place, Session, followed},
    wire::Ask,
};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A chart as registries keep it.
pub struct Artefact<'a> {
    pub name: &'a str,
    pub version: &'a str,
    /// What its `Chart.yaml` says, as JSON.
    pub metadata: Json,
    pub archive: Bytes,
    /// When it was made, in RFC 3339; empty if that is not known.
    pub created: &'a str,
}

impl Repositories {
    /// The digest of the archive that a registry has of a chart in this version; none if it has none.
    ///
    /// # Errors
    /// Why it cannot be told.
    pub async fn holds(&self, access: &Access, url: &str, (name, version): (&str, &str)) -> Result<Option<String>> {
        let reference = Reference::parse(&format!("{}:{version}", Place::parse(url)?.chart(name)?))?;
        match Session::new(access, &self.wire).manifest(&reference).await {
            Ok((_, there)) => Ok(Some(there.chart().map(|layer| layer.digest.clone()).unwrap_or_default())),
            Err(error) if error.class == Class::Missing => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Puts a chart below `url` (`oci://`), unless it is there: whether it was put. The manifest comes last, so that nothing is there by
    /// halves.
    ///
    /// # Errors
    /// Why it could not be, or that another one is there under this version.
    pub async fn push(&self, access: &Access, url: &str, chart: &Artefact<'_>) -> Result<bool> {
        let reference = Reference::parse(&format!("{}:{}", Place::parse(url)?.chart(chart.name)?, chart.version))?;
        match self.holds(access, url, (chart.name, chart.version)).await? {
            None => {}
            Some(digest) if digest::matches(&chart.archive, &digest) => return Ok(false),
            Some(_) => {
                let what = "another artefact is there under this version: remove it there if it is not wanted";
                return Err(Error::new(Class::Untrusted, reference.to_string(), what));
            }
        }
        let mut session = Session::new(access, &self.wire);
        let config = Bytes::from(chart.metadata.to_string());
        for blob in [&config, &chart.archive] {
            session.upload(&reference, blob).await?;
        }
        session.name(&reference, manifest(chart, &config)).await?;
        Ok(true)
    }
}

fn manifest(chart: &Artefact<'_>, config: &Bytes) -> Bytes {
    let part = |kind: &str, data: &Bytes| json!({"mediaType": kind, "digest": digest::of(data), "size": data.len()});
    let mut annotations = json!({
        "org.opencontainers.image.title": chart.name,
        "org.opencontainers.image.version": chart.version,
    });
    if !chart.created.is_empty() {
        annotations[oci::CREATED] = chart.created.into();
    }
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": part(oci::CONFIG, config),
        "layers": [part(oci::CHARTS[0], &chart.archive)],
        "annotations": annotations,
    });
    manifest.to_string().into()
}

impl Session<'_> {
    /// A blob in one piece, unless it is there.
    async fn upload(&mut self, of: &Reference, blob: &Bytes) -> Result<()> {
        let named = digest::of(blob);
        let url = self.url(of, "blobs", &named);
        let asked = Ask { method: Method::HEAD, ..Ask::get(&url, "*/*", ANSWER_BYTES_MAX) };
        match self.ask(&asked).await {
            Ok(_) => return Ok(()),
            Err(error) if error.class == Class::Missing => {}
            Err(error) => return Err(error),
        }
        let url = self.url(of, "blobs", "uploads/");
        let begun = self.write(Method::POST, &url, "application/octet-stream", Bytes::new()).await?;
        let place = begun.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
        let place =
            place.ok_or_else(|| Error::new(Class::Unusable, &url, "it does not say where to put what is uploaded"))?;
        let place = followed(&url, place)?;
        let joint = if place.contains('?') { '&' } else { '?' };
        let place = format!("{place}{joint}digest={}", super::encoded(&named));
        self.write(Method::PUT, &place, "application/octet-stream", blob.clone()).await.map(drop)
    }

    async fn name(&mut self, reference: &Reference, manifest: Bytes) -> Result<()> {
        let url = self.url(reference, "manifests", reference.version());
        self.write(Method::PUT, &url, MANIFEST, manifest).await.map(drop)
    }

    async fn write(&mut self, method: Method, url: &str, kind: &'static str, body: Bytes) -> Result<Response<Bytes>> {
        let mut ask = Ask { method, body, ..Ask::get(url, "*/*", ANSWER_BYTES_MAX) };
        ask.headers.push((header::CONTENT_TYPE, HeaderValue::from_static(kind)));
        ask.headers.push((header::CONTENT_LENGTH, ask.body.len().into()));
        self.ask(&ask).await
    }
}
