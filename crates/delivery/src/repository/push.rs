//! Charts that are put into a registry.
//!
//! Source: OCI Distribution Specification 1.1 ("Push"); helm.sh/helm/v3 pkg/registry.

use bytes::Bytes;
use http::{HeaderValue, Method, Response, header};
use serde_json::{Value as Json, json};

use super::{
    ANSWER_BYTES_MAX, ARCHIVE_BYTES_MAX, Access, Repositories, digest,
    error::{Class, Error, Result},
    oci::{self, Layer, MANIFEST, Reference},
    registry::{CONFIG_BYTES_MAX, Place, Session, Written, followed},
    signature::{PAYLOAD_BYTES_MAX, SIGNATURES_MAX},
    wire::Ask,
};

/// Parts of an artefact that is handed over: the chart, its provenance, and what others may add.
const PARTS_MAX: usize = 8;

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
        session.name(&reference, manifest(chart, &config), MANIFEST).await?;
        Ok(true)
    }

    /// The digests of the manifest and of the archive of a chart in a registry; none if there is no such, or no chart.
    ///
    /// # Errors
    /// Why it cannot be told.
    pub async fn digests(&self, access: &Access, url: &str) -> Result<Option<[String; 2]>> {
        let found = there(Session::new(access, &self.wire).written(&Reference::parse(url)?).await)?;
        Ok(found.and_then(|found| Some([found.digest, found.manifest.chart().ok()?.digest.clone()])))
    }

    /// Puts a chart of a registry into another as it is, to the byte, with the signatures of it: how many these are. What is there already is
    /// not put again. The signatures come before it, so that nobody finds it without.
    ///
    /// # Errors
    /// Why it could not be, or what else is there under this version.
    pub async fn hand_over(&self, (from, source): (&Access, &str), (to, target): (&Access, &str)) -> Result<usize> {
        let (source, target) = (Reference::parse(source)?, Reference::parse(target)?);
        let (mut reading, mut writing) = (Session::new(from, &self.wire), Session::new(to, &self.wire));
        let chart = reading.written(&source).await?;
        if !from.keys.is_empty() {
            reading.check(&source, &chart.digest).await?;
        }
        let archive =
            &chart.manifest.chart().map_err(|what| Error::new(Class::Unusable, source.to_string(), what))?.digest;
        let signed = there(reading.written(&source.signatures(&chart.digest)).await)?;
        let before = there(writing.written(&target).await)?;
        if let Some(before) = before.as_ref().filter(|before| before.digest != chart.digest) {
            let what = match before.manifest.chart() {
                Ok(own) if own.digest == *archive && signed.is_none() => return Ok(0),
                Ok(own) if own.digest == *archive => {
                    "this chart is there with another manifest, which its signatures are not of: remove it there, and copy it again"
                }
                _ => "another artefact is there under this version: remove it there if it is not wanted",
            };
            return Err(Error::new(Class::Untrusted, target.to_string(), what));
        }
        let count = match &signed {
            Some(signed) => {
                sign(&mut reading, &source, &mut writing, &target.signatures(&chart.digest), signed).await?
            }
            None => 0,
        };
        if before.is_none() {
            let limits = (PARTS_MAX, ARCHIVE_BYTES_MAX);
            carry(&mut reading, &source, &mut writing, &target, &chart, limits).await?;
        }
        Ok(count)
    }
}

/// What is there; none where nothing is.
fn there(found: Result<Written>) -> Result<Option<Written>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.class == Class::Missing => Ok(None),
        Err(error) => Err(error),
    }
}

/// Puts signatures beside a chart, unless they are there; those that others have put there stay.
async fn sign(
    reading: &mut Session<'_>,
    source: &Reference,
    writing: &mut Session<'_>,
    target: &Reference,
    signed: &Written,
) -> Result<usize> {
    // Two of one payload differ in their annotations.
    let has = |all: &[Layer], one: &Layer| {
        all.iter().any(|other| other.digest == one.digest && other.annotations == one.annotations)
    };
    let own = &signed.manifest.layers;
    if let Some(before) = there(writing.written(target).await)? {
        let others = &before.manifest.layers;
        if own.iter().all(|one| has(others, one)) {
            return Ok(own.len());
        }
        if !others.iter().all(|other| has(own, other)) {
            let what = "other signatures are there, and those of the source are not put in their place: sign it there, or remove them";
            return Err(Error::new(Class::Untrusted, target.to_string(), what));
        }
    }
    carry(reading, source, writing, target, signed, (SIGNATURES_MAX, PAYLOAD_BYTES_MAX)).await?;
    Ok(own.len())
}

/// Puts an artefact under a name, as it is: its parts first.
async fn carry(
    reading: &mut Session<'_>,
    source: &Reference,
    writing: &mut Session<'_>,
    target: &Reference,
    artefact: &Written,
    (parts_max, bytes_max): (usize, usize),
) -> Result<()> {
    let layers = &artefact.manifest.layers;
    if layers.len() > parts_max {
        let what = format!("it has {} parts, and at most {parts_max} are copied", layers.len());
        return Err(Error::new(Class::Unusable, source.to_string(), what));
    }
    let parts = layers.iter().map(|layer| (layer, bytes_max)).chain([(&artefact.manifest.config, CONFIG_BYTES_MAX)]);
    for (part, bytes_max) in parts {
        let blob = reading.blob(source, &part.digest, bytes_max).await?;
        writing.upload(target, &blob).await?;
    }
    writing.name(target, artefact.bytes.clone(), artefact.manifest.kind()).await
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

    async fn name(&mut self, reference: &Reference, manifest: Bytes, kind: &'static str) -> Result<()> {
        let url = self.url(reference, "manifests", reference.version());
        self.write(Method::PUT, &url, kind, manifest).await.map(drop)
    }

    async fn write(&mut self, method: Method, url: &str, kind: &'static str, body: Bytes) -> Result<Response<Bytes>> {
        let mut ask = Ask { method, body, ..Ask::get(url, "*/*", ANSWER_BYTES_MAX) };
        ask.headers.push((header::CONTENT_TYPE, HeaderValue::from_static(kind)));
        ask.headers.push((header::CONTENT_LENGTH, ask.body.len().into()));
        self.ask(&ask).await
    }
}
