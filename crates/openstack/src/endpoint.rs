//! Services, their versioned endpoints, and microversions. Pure: the requests are made in `client`.

use std::{fmt, str::FromStr};

use http::Uri;
use serde_json::Value;

/// A service that is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Service {
    Identity,
    Image,
    Compute,
    Network,
    LoadBalancer,
    BlockStorage,
}

impl Service {
    pub const ALL: [Self; 6] =
        [Self::Identity, Self::Image, Self::Compute, Self::Network, Self::LoadBalancer, Self::BlockStorage];

    /// The types that catalogs use for it, the usual one first (service-types-authority has the aliases).
    pub fn types(self) -> &'static [&'static str] {
        match self {
            Self::Identity => &["identity"],
            Self::Image => &["image"],
            Self::Compute => &["compute"],
            Self::Network => &["network"],
            Self::LoadBalancer => &["load-balancer"],
            Self::BlockStorage => &["block-storage", "volumev3", "block-store", "volume"],
        }
    }

    /// The key of a clouds.yaml that overrides the catalog: `<this>_endpoint_override`.
    pub fn override_keys(self) -> &'static [&'static str] {
        match self {
            Self::Identity => &["identity"],
            Self::Image => &["image"],
            Self::Compute => &["compute"],
            Self::Network => &["network"],
            Self::LoadBalancer => &["load_balancer"],
            Self::BlockStorage => &["block_storage", "volumev3", "volume"],
        }
    }

    pub(crate) fn major(self) -> u32 {
        match self {
            Self::Identity | Self::BlockStorage => 3,
            _ => 2,
        }
    }

    /// The version's usual place below an unversioned endpoint, where discovery yields nothing.
    pub(crate) fn usual_version(self) -> &'static str {
        match self {
            Self::Identity | Self::BlockStorage => "v3",
            Self::Image => "v2",
            Self::Compute => "v2.1",
            Self::Network | Self::LoadBalancer => "v2.0",
        }
    }

    /// The microversion header's value for this service, if it has microversions that are used here.
    pub(crate) fn microversion_type(self) -> Option<&'static str> {
        match self {
            Self::Compute => Some("compute"),
            _ => None,
        }
    }

    /// The highest microversion whose bodies this crate has been written for.
    pub(crate) fn written_for(self) -> Microversion {
        match self {
            Self::Compute => Microversion(2, 90),
            _ => Microversion::NONE,
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.types().first().copied().unwrap_or("service"))
    }
}

/// `major.minor`; [`Microversion::NONE`] stands for a service without them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Microversion(pub u16, pub u16);

impl Microversion {
    pub const NONE: Self = Self(0, 0);
}

impl fmt::Display for Microversion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

impl FromStr for Microversion {
    type Err = ();

    fn from_str(s: &str) -> Result<Self, ()> {
        let (major, minor) = s.split_once('.').ok_or(())?;
        Ok(Self(major.parse().map_err(|_| ())?, minor.parse().map_err(|_| ())?))
    }
}

/// One entry of a version document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    pub major: u32,
    pub minor: u32,
    /// Of the link called `self`, without scheme and host: those are often a backend's.
    pub path: Option<String>,
    pub min: Microversion,
    pub max: Microversion,
}

/// Reads `{"versions": [..]}`, `{"versions": {"values": [..]}}` or `{"version": {..}}`.
pub(crate) fn versions(document: &Value) -> Vec<Version> {
    let list: Vec<&Value> = match (document.get("versions"), document.get("version")) {
        (Some(Value::Array(list)), _) => list.iter().collect(),
        (Some(Value::Object(o)), _) => {
            o.get("values").and_then(Value::as_array).map(|l| l.iter().collect()).unwrap_or_default()
        }
        (_, Some(one)) => vec![one],
        _ => Vec::new(),
    };
    list.into_iter().filter_map(version).collect()
}

fn version(entry: &Value) -> Option<Version> {
    let (major, minor) = version_segment(entry.get("id")?.as_str()?)?;
    let microversion = |keys: [&str; 2]| {
        keys.iter().find_map(|k| entry.get(*k)?.as_str()?.parse::<Microversion>().ok()).unwrap_or_default()
    };
    let links = entry.get("links").and_then(Value::as_array);
    let path = links
        .and_then(|l| l.iter().find(|link| link.get("rel").and_then(Value::as_str) == Some("self")))
        .and_then(|link| link.get("href")?.as_str()?.parse::<Uri>().ok())
        .map(|uri| uri.path().trim_end_matches('/').to_owned());
    Some(Version {
        major,
        minor,
        path,
        min: microversion(["min_version", "min_version"]),
        max: microversion(["version", "max_version"]),
    })
}

/// `v2.1` -> (2, 1), `v3` -> (3, 0); `None` for anything else.
fn version_segment(segment: &str) -> Option<(u32, u32)> {
    let rest = segment.strip_prefix('v')?;
    let (major, minor) = rest.split_once('.').unwrap_or((rest, "0"));
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Splits an endpoint of a catalog where its version ends, if it has one: (`base`, `version and project`).
pub(crate) fn split_version(url: &str) -> (&str, Option<&str>) {
    let url = url.trim_end_matches('/');
    let start = url.find("://").map_or(0, |i| i + 3);
    let mut end = url.len();
    // The version is the last segment, or the one before a project id.
    for _ in 0..2 {
        let Some(slash) = url.get(start..end).and_then(|s| s.rfind('/')).map(|i| i + start) else { break };
        if url.get(slash + 1..end).is_some_and(|s| version_segment(s).is_some()) {
            return (&url[..slash], Some(&url[slash + 1..]));
        }
        end = slash;
    }
    (url, None)
}

/// The versioned endpoint of an unversioned one, given what discovery found.
pub(crate) fn choose(service: Service, base: &str, found: &[Version]) -> String {
    let base = base.trim_end_matches('/');
    let best = found.iter().filter(|v| v.major == service.major()).max_by_key(|v| {
        // Where several entries share a major version (Glance, Octavia), they share a path too; the lowest minor's
        // link is the one that always works. Compute's v2.0 is the legacy API: prefer v2.1.
        let minor = i64::from(v.minor);
        if service == Service::Compute { minor } else { -minor }
    });
    let fallback = || format!("{base}/{}", service.usual_version());
    let Some(path) = best.and_then(|v| v.path.as_deref()).filter(|p| !p.is_empty()) else { return fallback() };
    let start = base.find("://").map_or(0, |i| i + 3);
    let authority_end = base.get(start..).and_then(|s| s.find('/')).map_or(base.len(), |i| i + start);
    let (authority, base_path) = base.split_at(authority_end);
    match path.rsplit('/').next() {
        // A link that does not know its public prefix: keep the prefix, take the version.
        Some(last) if !path.starts_with(base_path) && version_segment(last).is_some() => format!("{base}/{last}"),
        _ if path.starts_with(base_path) => format!("{authority}{path}"),
        _ => fallback(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn versioned_endpoints_are_split_with_and_without_a_project() {
        assert_eq!(split_version("http://c:8774/v2.1/"), ("http://c:8774", Some("v2.1")));
        assert_eq!(split_version("http://c/volume/v3/0123abc"), ("http://c/volume", Some("v3/0123abc")));
        assert_eq!(split_version("https://c/load-balancer"), ("https://c/load-balancer", None));
        assert_eq!(split_version("http://c:9696/"), ("http://c:9696", None));
    }

    #[test]
    fn unversioned_endpoints_are_resolved_as_real_clouds_publish_them() {
        let link =
            |id: &str, href: &str| json!({"id": id, "status": "CURRENT", "links": [{"rel": "self", "href": href}]});
        let cases = [
            (
                Service::Network,
                "http://c:9696/",
                json!({"versions": [link("v2.0", "http://c:9696/v2.0/")]}),
                "http://c:9696/v2.0",
            ),
            (
                Service::LoadBalancer,
                "https://c/load-balancer",
                json!({"versions": [link("v2.0", "http://10.0.0.1:9876/load-balancer/v2"), link("v2.27", "http://10.0.0.1:9876/load-balancer/v2")]}),
                "https://c/load-balancer/v2",
            ),
            (
                Service::LoadBalancer,
                "https://c/octavia",
                json!({"versions": [link("v2.0", "http://10.0.0.1:9876/v2")]}),
                "https://c/octavia/v2",
            ),
            (
                Service::Image,
                "http://c:9292",
                json!({"versions": [link("v2.16", "http://c:9292/v2/"), link("v2.0", "http://c:9292/v2/")]}),
                "http://c:9292/v2",
            ),
            (
                Service::Compute,
                "http://c/compute",
                json!({"versions": [link("v2.0", "http://c/compute/v2/"), link("v2.1", "http://c/compute/v2.1/")]}),
                "http://c/compute/v2.1",
            ),
            (
                Service::BlockStorage,
                "http://c/volume",
                json!({"versions": [link("v3.0", "http://c/volume/v3/")]}),
                "http://c/volume/v3",
            ),
            (
                Service::Identity,
                "http://c/identity",
                json!({"versions": {"values": [link("v3.14", "http://c/identity/v3/")]}}),
                "http://c/identity/v3",
            ),
            (Service::Network, "http://c:9696", json!({}), "http://c:9696/v2.0"),
        ];
        for (service, base, document, want) in cases {
            assert_eq!(choose(service, base, &versions(&document)), want, "{service} {base}");
        }
    }

    #[test]
    fn microversions_are_ordered_by_number_not_by_text() {
        assert!("2.9".parse::<Microversion>() < "2.52".parse::<Microversion>());
        assert!("2".parse::<Microversion>().is_err());
        let found = versions(&json!({"version": {"id": "v2.1", "version": "2.96", "min_version": "2.1"}}));
        assert_eq!(found[0].max, Microversion(2, 96));
    }
}
