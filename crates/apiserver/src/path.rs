//! Request lines read as Kubernetes reads them: path, verb and query parameters (`apiserver/pkg/endpoints/request`).

use http::Method;
use percent_encoding::percent_decode_str;

use crate::status::{Error, Result};

/// What a path points at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A resource, an object or a subresource.
    Resource(Resource),
    /// Anything else: discovery, health, OpenAPI.
    Other(Vec<String>),
}

/// `/apis/<group>/<version>[/namespaces/<namespace>]/<resource>[/<name>[/<subresource>]]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resource {
    /// Empty for the core group.
    pub group: String,
    pub version: String,
    /// Empty for all namespaces and for cluster scope.
    pub namespace: String,
    pub resource: String,
    /// Empty for the collection.
    pub name: String,
    /// Empty for the object itself; may hold slashes (`proxy/a/b`).
    pub subresource: String,
    /// The old form of a watch: `/api/v1/watch/...`.
    pub watch: bool,
}

/// Longer paths are refused.
pub const PATH_BYTES_MAX: usize = 8 * 1024;

pub fn parse(path: &str) -> Result<Target> {
    if path.len() > PATH_BYTES_MAX {
        return Err(Error::bad_request(format!("the path is longer than {PATH_BYTES_MAX} bytes")));
    }
    let mut parts = Vec::new();
    for segment in path.split('/').filter(|s| !s.is_empty()) {
        let text = percent_decode_str(segment)
            .decode_utf8()
            .map_err(|_| Error::bad_request(format!("the path segment {segment:?} is not UTF-8")))?;
        parts.push(text.into_owned());
    }
    let (group, version, rest) = match parts.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["api", version, _, ..] => ("", version, 2),
        ["apis", group, version, _, ..] => (group, version, 3),
        _ => return Ok(Target::Other(parts)),
    };
    let mut found = Resource { group: group.to_owned(), version: version.to_owned(), ..Resource::default() };
    let mut rest: &[String] = &parts[rest..];
    if let [first, tail @ ..] = rest
        && first == "watch"
        && !tail.is_empty()
    {
        found.watch = true;
        rest = tail;
    }
    // `namespaces/x` alone is the object, and so are its own subresources; deeper paths lie in the namespace.
    if let [first, namespace, resource, ..] = rest
        && first == "namespaces"
        && !(rest.len() == 3 && matches!(resource.as_str(), "status" | "finalize"))
    {
        found.namespace.clone_from(namespace);
        rest = &rest[2..];
    }
    if let [resource, tail @ ..] = rest {
        found.resource.clone_from(resource);
        if let [name, sub @ ..] = tail {
            found.name.clone_from(name);
            found.subresource = sub.join("/");
        }
    }
    if found.resource == "namespaces" && found.group.is_empty() && found.namespace.is_empty() {
        // As Kubernetes' own request info has it: a namespace lies in itself where rights are concerned.
        found.namespace.clone_from(&found.name);
    }
    for part in [&found.namespace, &found.name] {
        if part.contains('/') || part.contains('%') || part == "." || part == ".." {
            return Err(Error::bad_request(format!("invalid path segment {part:?}")));
        }
    }
    Ok(Target::Resource(found))
}

/// What is to be done, in the words of RBAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
}

impl Verb {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
        }
    }

    /// `None`: the method means nothing here.
    pub fn of(method: &Method, target: &Resource, watch: bool) -> Option<Self> {
        let named = !target.name.is_empty();
        Some(match *method {
            Method::GET if watch => Self::Watch,
            Method::GET if named => Self::Get,
            Method::GET => Self::List,
            Method::POST => Self::Create,
            Method::PUT => Self::Update,
            Method::PATCH => Self::Patch,
            Method::DELETE if named => Self::Delete,
            Method::DELETE => Self::DeleteCollection,
            _ => return None,
        })
    }
}

/// The query parameters, decoded; a repeated one keeps all of its values.
#[derive(Clone, Debug, Default)]
pub struct Query(Vec<(String, String)>);

/// More parameters than this are refused.
pub const PARAMETERS_MAX: usize = 64;

impl Query {
    pub fn parse(query: Option<&str>) -> Result<Self> {
        let mut pairs = Vec::new();
        for pair in query.unwrap_or_default().split('&').filter(|p| !p.is_empty()) {
            if pairs.len() == PARAMETERS_MAX {
                return Err(Error::bad_request(format!("more than {PARAMETERS_MAX} query parameters")));
            }
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            pairs.push((decode(key)?, decode(value)?));
        }
        Ok(Self(pairs))
    }

    /// The first value; `None` if absent or empty.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str()).filter(|v| !v.is_empty())
    }

    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// Narrows a watch to one object, as a path that names one does.
    pub(crate) fn restrict_to_name(&mut self, name: &str) {
        let own = format!("metadata.name={name}");
        match self.0.iter_mut().find(|(key, _)| key == "fieldSelector") {
            Some((_, selector)) => *selector = format!("{selector},{own}"),
            None => self.0.push(("fieldSelector".to_owned(), own)),
        }
    }

    /// As Go's conversion reads it: present without a value is true.
    pub fn flag(&self, key: &str) -> bool {
        self.0.iter().find(|(k, _)| k == key).is_some_and(|(_, v)| !(v == "0" || v.eq_ignore_ascii_case("false")))
    }

    /// `None` if absent.
    pub fn optional_flag(&self, key: &str) -> Option<bool> {
        self.0.iter().any(|(k, _)| k == key).then(|| self.flag(key))
    }

    pub fn number(&self, key: &str) -> Result<Option<i64>> {
        let Some((_, text)) = self.0.iter().find(|(k, _)| k == key) else { return Ok(None) };
        text.parse().map(Some).map_err(|error: std::num::ParseIntError| {
            use std::num::IntErrorKind::{NegOverflow, PosOverflow};
            let why = match error.kind() {
                NegOverflow | PosOverflow => "value out of range",
                _ => "invalid syntax",
            };
            Error::bad_request(format!("strconv.ParseInt: parsing {text:?}: {why}"))
        })
    }

    /// Whether nothing is to be stored.
    pub fn dry_run(&self) -> bool {
        self.all("dryRun").any(|value| value == "All")
    }
}

fn decode(text: &str) -> Result<String> {
    let text = text.replace('+', " ");
    percent_decode_str(&text)
        .decode_utf8()
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| Error::bad_request("a query parameter is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(path: &str) -> Resource {
        match parse(path).unwrap() {
            Target::Resource(found) => found,
            Target::Other(parts) => panic!("{path} is no resource: {parts:?}"),
        }
    }

    fn parts(found: &Resource) -> [&str; 6] {
        [&found.group, &found.version, &found.namespace, &found.resource, &found.name, &found.subresource]
    }

    #[test]
    fn paths_are_taken_apart_as_kubernetes_does() {
        let cases = [
            ("/api/v1/pods", ["", "v1", "", "pods", "", ""]),
            ("/api/v1/namespaces/a/pods/p/status", ["", "v1", "a", "pods", "p", "status"]),
            ("/api/v1/namespaces", ["", "v1", "", "namespaces", "", ""]),
            ("/api/v1/namespaces/a", ["", "v1", "a", "namespaces", "a", ""]),
            ("/api/v1/namespaces/a/finalize", ["", "v1", "a", "namespaces", "a", "finalize"]),
            ("/apis/apps/v1/namespaces/a/deployments/d/scale", ["apps", "v1", "a", "deployments", "d", "scale"]),
            ("/apis/x.io/v1/clusterthings/c", ["x.io", "v1", "", "clusterthings", "c", ""]),
            (
                "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode",
                ["rbac.authorization.k8s.io", "v1", "", "clusterroles", "system:node", ""],
            ),
        ];
        for (path, expected) in cases {
            assert_eq!(parts(&resource(path)), expected, "{path}");
        }
        for path in ["/", "/api", "/api/v1", "/apis/apps", "/apis/apps/v1", "/healthz", "/openapi/v3/apis/apps/v1"] {
            assert!(matches!(parse(path).unwrap(), Target::Other(_)), "{path}");
        }
    }

    #[test]
    fn segments_that_would_leave_the_tree_are_refused() {
        for path in ["/api/v1/namespaces/a%2Fb/pods", "/api/v1/namespaces/../pods", "/api/v1/nodes/%25"] {
            assert_eq!(parse(path).unwrap_err().code(), 400, "{path}");
        }
        assert_eq!(parse("/api/v1/nodes/%ff").unwrap_err().code(), 400);
    }

    #[test]
    fn limits_hold_at_one_more() {
        assert!(parse(&format!("/{}", "a".repeat(PATH_BYTES_MAX - 1))).is_ok());
        assert!(parse(&format!("/{}", "a".repeat(PATH_BYTES_MAX))).is_err());
        let many = |n: usize| vec!["a=1"; n].join("&");
        assert!(Query::parse(Some(&many(PARAMETERS_MAX))).is_ok());
        assert!(Query::parse(Some(&many(PARAMETERS_MAX + 1))).is_err());
    }
}
