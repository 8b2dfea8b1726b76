//! Charts as artefacts of a registry.
//!
//! Source: OCI Distribution Specification 1.1; distribution/distribution docs/spec/auth/token.md; helm.sh/helm/v3 pkg/registry.

use std::{collections::BTreeMap, fmt};

use serde::Deserialize;

use super::{
    error::{Class, Error, Result},
    signature,
};

pub const SCHEME: &str = "oci://";
/// When an artefact was made, among a manifest's annotations: RFC 3339.
pub const CREATED: &str = "org.opencontainers.image.created";
/// What manifests may be; the last is what registries of the past make of them.
pub const MANIFESTS: &str =
    "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json";
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OLD_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// `Chart.yaml` as JSON.
pub const CONFIG: &str = "application/vnd.cncf.helm.config.v1+json";
/// Layers that are a chart's archive.
pub const CHARTS: [&str; 2] = ["application/vnd.cncf.helm.chart.content.v1.tar+gzip", "application/tar+gzip"];

/// `oci://host[:port]/path:tag` or `...@sha256:digits`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// With its port.
    pub host: String,
    pub path: String,
    pub tag: Option<String>,
    pub digest: Option<String>,
}

impl Reference {
    /// # Errors
    /// That it is none.
    pub fn parse(url: &str) -> Result<Self> {
        let wrong = |what: &str| Error::new(Class::Address, url, what);
        let rest = url.strip_prefix(SCHEME).ok_or_else(|| wrong("expected oci://HOST/PATH:TAG"))?;
        let (host, rest) = rest.split_once('/').ok_or_else(|| wrong("there is no path after the host"))?;
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.to_owned())),
            None => (rest, None),
        };
        // Tags have no slash, so that a colon before one is none of a tag.
        let (path, tag) = match rest.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag.to_owned())),
            _ => (rest, None),
        };
        let plain = |text: &str, more: &[u8]| {
            !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || more.contains(&byte))
        };
        if !plain(host, b".-:[]") {
            return Err(wrong("the host has characters that hosts do not have"));
        }
        let is_step = |step: &str| plain(step, b"._-") && step != "." && step != "..";
        if !path.split('/').all(is_step) {
            return Err(wrong("the path consists of letters, digits, '.', '_' and '-' between slashes"));
        }
        // Helm writes the + of a version, which tags cannot have, as _.
        let tag = tag.map(|tag| tag.replace('+', "_"));
        if tag.as_ref().is_some_and(|tag| tag.len() > 128 || !plain(tag, b"._-")) {
            return Err(wrong("the tag consists of up to 128 letters, digits, '.', '_' and '-'"));
        }
        if digest.as_ref().is_some_and(|digest| super::digest::parse(digest).is_none()) {
            return Err(wrong("the digest is not sha256: and 64 hexadecimal digits"));
        }
        if tag.is_none() && digest.is_none() {
            return Err(wrong("there is no version: a tag after ':', or a digest after '@'"));
        }
        Ok(Self { host: host.to_owned(), path: path.to_owned(), tag, digest })
    }

    /// Where the signatures of the artefact there of this digest are.
    pub fn signatures(&self, digest: &str) -> Self {
        Self { tag: Some(signature::tag(digest)), digest: None, ..self.clone() }
    }

    /// By what its manifest is asked for: a digest is surer than a tag.
    pub fn version(&self) -> &str {
        self.digest.as_deref().or(self.tag.as_deref()).unwrap_or_default()
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/{}", self.host, self.path)?;
        self.tag.iter().try_for_each(|tag| write!(f, ":{tag}"))?;
        self.digest.iter().try_for_each(|digest| write!(f, "@{digest}"))
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Manifest {
    /// Empty stands for [`MANIFEST`].
    pub media_type: String,
    pub config: Layer,
    pub layers: Vec<Layer>,
    pub annotations: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Layer {
    pub media_type: String,
    pub digest: String,
    pub size: u64,
    pub annotations: BTreeMap<String, String>,
}

impl Manifest {
    /// As what it is put into a registry.
    pub fn kind(&self) -> &'static str {
        if self.media_type == OLD_MANIFEST { OLD_MANIFEST } else { MANIFEST }
    }

    /// The layer with the chart.
    ///
    /// # Errors
    /// In what the artefact is none of a chart.
    pub fn chart(&self) -> Result<&Layer, String> {
        let mut charts = self.layers.iter().filter(|layer| CHARTS.contains(&layer.media_type.as_str()));
        match (charts.next(), charts.next()) {
            (Some(chart), None) => Ok(chart),
            (Some(_), Some(_)) => Err("the artefact has more than one layer with a chart".to_owned()),
            (None, _) => Err(format!("the artefact has no layer of type {}", CHARTS[0])),
        }
    }
}

/// What a registry asks for in `WWW-Authenticate`.
#[derive(Debug, PartialEq, Eq)]
pub enum Challenge {
    Basic,
    /// The address where a token is had, with its query.
    Bearer(String),
}

impl Challenge {
    /// None if it is neither of the two.
    pub fn parse(header: &str) -> Option<Self> {
        let (scheme, parameters) = header.split_once(' ').unwrap_or((header, ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let (mut realm, mut query) = (None, Vec::new());
        for (name, value) in parameters_of(parameters) {
            match name {
                "realm" => realm = Some(value),
                "service" | "scope" => query.push(format!("{name}={}", super::encoded(value))),
                _ => {}
            }
        }
        let realm = realm?;
        let joint = if realm.contains('?') { '&' } else { '?' };
        Some(Self::Bearer(if query.is_empty() {
            realm.to_owned()
        } else {
            format!("{realm}{joint}{}", query.join("&"))
        }))
    }
}

/// `name="value",...`; values may hold commas.
fn parameters_of(mut text: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    while let Some((name, rest)) = text.split_once('=') {
        let name = name.trim_matches([' ', ',']);
        let (value, rest) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => rest.split_once(',').unwrap_or((rest, "")),
        };
        found.push((name, value));
        text = rest;
    }
    found
}

/// What the address of a [`Challenge::Bearer`] answers.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Token {
    token: String,
    access_token: String,
}

impl Token {
    pub fn text(self) -> String {
        if self.token.is_empty() { self.access_token } else { self.token }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read_and_written() {
        let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
        for (url, path, version) in [
            ("oci://registry.test/charts/hello:1.2.0", "charts/hello", "1.2.0"),
            ("oci://127.0.0.1:5000/hello:v1", "hello", "v1"),
            ("oci://registry.test/a/b/c:1.0.0_build", "a/b/c", "1.0.0_build"),
            (&format!("oci://registry.test/hello@{digest}"), "hello", &digest),
            (&format!("oci://registry.test/hello:1@{digest}"), "hello", &digest),
        ] {
            let reference = Reference::parse(url).unwrap();
            assert_eq!((reference.path.as_str(), reference.version()), (path, version));
            assert_eq!(reference.to_string(), url);
        }
        assert_eq!(Reference::parse("oci://r.test/hello:1.0.0+b").unwrap().version(), "1.0.0_b");
    }

    #[test]
    fn what_is_no_reference_is_refused_with_a_reason() {
        for (url, why) in [
            ("https://registry.test/hello:1", "expected oci://"),
            ("oci://registry.test", "no path"),
            ("oci://registry.test/hello", "no version"),
            ("oci://registry.test:5000/hello", "no version"),
            ("oci://registry.test/../hello:1", "the path"),
            ("oci://registry.test//hello:1", "the path"),
            ("oci://registry.test/hello?x=y:1", "the path"),
            ("oci://user@registry.test/hello:1", "the host"),
            ("oci://registry.test/hello:a b", "the tag"),
            ("oci://registry.test/hello@sha256:12", "the digest"),
            ("oci://registry.test/hello@md5:0123", "the digest"),
        ] {
            let error = Reference::parse(url).unwrap_err();
            assert!(error.what.contains(why), "{url}: {error}");
        }
        let long = |length: usize| Reference::parse(&format!("oci://r.test/hello:{}", "1".repeat(length)));
        assert!(long(128).is_ok() && long(129).is_err());
    }

    #[test]
    fn challenges_say_where_a_token_is_had() {
        let bearer = |header: &str| Challenge::parse(header);
        let header =
            r#"Bearer realm="https://auth.test/token",service="registry.test",scope="repository:a/b:pull,push""#;
        let url = "https://auth.test/token?service=registry.test&scope=repository%3Aa%2Fb%3Apull%2Cpush";
        assert_eq!(bearer(header), Some(Challenge::Bearer(url.to_owned())));
        let short = Challenge::Bearer("https://auth.test/token?x=y&service=s".to_owned());
        assert_eq!(bearer(r#"bearer realm="https://auth.test/token?x=y", service=s"#), Some(short));
        assert_eq!(bearer(r#"Basic realm="x""#), Some(Challenge::Basic));
        assert_eq!(bearer("Negotiate"), None);
        assert_eq!(bearer("Bearer service=x"), None);
    }

    #[test]
    fn an_artefact_has_one_chart() {
        let manifest = |types: &[&str]| {
            let layer = |type_: &&str| Layer { media_type: (*type_).to_owned(), ..Layer::default() };
            Manifest { layers: types.iter().map(layer).collect(), ..Manifest::default() }
        };
        assert!(manifest(&[CHARTS[0], "application/vnd.cncf.helm.chart.provenance.v1.prov"]).chart().is_ok());
        assert!(manifest(&[]).chart().unwrap_err().contains("no layer"));
        assert!(manifest(&CHARTS).chart().unwrap_err().contains("more than one"));
    }
}
