//! A schema that has been looked through: which of its parts are schemas, of which draft, and what their references mean.

use std::{borrow::Cow, collections::HashMap};

use regex::Regex;
use serde_json::Value as Json;

use super::{
    PATTERNS_MAX,
    keywords::{Draft, KEYWORDS, Shape, type_of},
};
use crate::{functions::expressions, template::text::quoted};

/// What the schema of a chart is called, as for Helm.
pub const ROOT: &str = "file:///values.schema.json";

/// Drafts by what `$schema` says, without scheme and fragment.
const DRAFTS: &[(&str, Draft)] = &[
    ("json-schema.org/schema", 2020),
    ("json-schema.org/draft/2020-12/schema", 2020),
    ("json-schema.org/draft/2019-09/schema", 2019),
    ("json-schema.org/draft-07/schema", 7),
    ("json-schema.org/draft-06/schema", 6),
    ("json-schema.org/draft-04/schema", 4),
];

/// What a reference is written behind.
const REFERENCES: [&str; 3] = ["$ref", "$dynamicRef", "$recursiveRef"];

pub enum Wrong {
    Schema(String),
    Limit(String),
}

/// A part that has an address of its own, and names in it.
pub struct Resource<'s> {
    url: String,
    pub node: &'s Json,
    pub draft: Draft,
    anchors: HashMap<String, &'s Json>,
    /// Those of `$dynamicAnchor`.
    pub dynamic: HashMap<String, &'s Json>,
}

#[derive(Clone, Copy)]
pub struct Target<'s> {
    /// Nothing: a name that nobody knows, which allows all, as for Helm.
    pub node: Option<&'s Json>,
}

pub struct Document<'s> {
    pub root: &'s Json,
    resources: Vec<Resource<'s>>,
    urls: HashMap<String, usize>,
    /// Where schemas lie: whole pointers would grow with the square of a document that has long names.
    places: Vec<Place<'s>>,
    /// The resource of each schema, by where it lies in memory.
    nodes: HashMap<usize, usize>,
    references: HashMap<(usize, &'static str), Target<'s>>,
    pub patterns: HashMap<&'s str, Regex>,
}

#[derive(Clone, Copy)]
struct Found<'s> {
    node: &'s Json,
    /// An index into the places.
    place: usize,
    resource: usize,
}

/// The part of a pointer, and the place that it starts from.
struct Place<'s> {
    before: Option<usize>,
    part: Cow<'s, str>,
}

fn address(node: &Json) -> usize {
    std::ptr::from_ref(node).addr()
}

impl<'s> Document<'s> {
    pub fn of(root: &'s Json) -> Result<Self, Wrong> {
        let mut document = Self {
            root,
            resources: Vec::new(),
            urls: HashMap::new(),
            places: vec![Place { before: None, part: Cow::Borrowed("") }],
            nodes: HashMap::new(),
            references: HashMap::new(),
            patterns: HashMap::new(),
        };
        document.add_resource(root, ROOT.to_owned(), 2020)?;
        let mut waiting = vec![Found { node: root, place: 0, resource: 0 }];
        let mut written: Vec<(Found<'s>, &'static str)> = Vec::new();
        loop {
            while let Some(found) = waiting.pop() {
                document.look_through(found, &mut waiting, &mut written)?;
            }
            let Some((found, keyword)) = written.pop() else { return Ok(document) };
            if let Some(reference) = found.node.get(keyword).and_then(Json::as_str) {
                let target = document.resolved(&found, reference, &mut waiting)?;
                document.references.insert((address(found.node), keyword), target);
            }
        }
    }

    pub fn resource(&self, node: &Json) -> &Resource<'s> {
        let at = self.nodes.get(&address(node)).copied().unwrap_or(0);
        self.resources.get(at).unwrap_or(&self.resources[0])
    }

    pub fn target(&self, node: &Json, keyword: &'static str) -> Option<Target<'s>> {
        self.references.get(&(address(node), keyword)).copied()
    }

    fn add_resource(&mut self, node: &'s Json, url: String, fallback: Draft) -> Result<usize, Wrong> {
        let draft = match node.get("$schema").and_then(Json::as_str) {
            None => fallback,
            Some(told) => {
                let plain = told.trim_end_matches('#');
                let plain = plain.strip_prefix("http://").or_else(|| plain.strip_prefix("https://")).unwrap_or(plain);
                match DRAFTS.iter().find(|(known, _)| *known == plain) {
                    Some((_, draft)) => *draft,
                    None => {
                        return Err(Wrong::Schema(format!(
                            "{ROOT} is of the metaschema {}: those of the drafts 4, 6, 7, 2019-09 and 2020-12 are known, and none is fetched",
                            quoted(told)
                        )));
                    }
                }
            }
        };
        let resource = Resource { url, node, draft, anchors: HashMap::new(), dynamic: HashMap::new() };
        self.urls.insert(resource.url.clone(), self.resources.len());
        self.resources.push(resource);
        Ok(self.resources.len() - 1)
    }

    fn place(&mut self, before: usize, part: impl Into<Cow<'s, str>>) -> usize {
        self.places.push(Place { before: Some(before), part: part.into() });
        self.places.len() - 1
    }

    fn pointer(&self, place: usize) -> String {
        let places = std::iter::successors(self.places.get(place), |place| self.places.get(place.before?));
        let mut parts: Vec<String> =
            places.filter(|place| place.before.is_some()).map(|place| format!("/{}", escaped(&place.part))).collect();
        parts.reverse();
        parts.concat()
    }

    fn look_through(
        &mut self,
        mut found: Found<'s>,
        waiting: &mut Vec<Found<'s>>,
        written: &mut Vec<(Found<'s>, &'static str)>,
    ) -> Result<(), Wrong> {
        let node = found.node;
        if self.nodes.contains_key(&address(node)) {
            return Ok(());
        }
        let draft = self.resources[found.resource].draft;
        let Some(keywords) = node.as_object() else {
            self.nodes.insert(address(node), found.resource);
            return match node {
                Json::Bool(_) => Ok(()),
                _ => {
                    let what = format!("got {}, want boolean or object", type_of(node));
                    Err(self.against_metaschema(draft, found.place, &what))
                }
            };
        };
        self.name(&mut found)?;
        self.nodes.insert(address(node), found.resource);
        let draft = self.resources[found.resource].draft;
        for (keyword, _, shape) in KEYWORDS.iter().filter(|(_, since, _)| *since <= draft) {
            let Some(value) = keywords.get(*keyword) else { continue };
            let place = self.place(found.place, *keyword);
            if let Some(what) = shape.wrong(draft, value) {
                return Err(self.against_metaschema(draft, place, &what));
            }
            self.take_patterns(keyword, *shape, value)?;
            for (name, node) in shape.schemas(value) {
                let place = name.map_or(place, |name| self.place(place, name));
                waiting.push(Found { node, place, resource: found.resource });
            }
            if let Some(reference) = REFERENCES.iter().find(|known| *known == keyword) {
                written.push((found, reference));
            }
        }
        Ok(())
    }

    fn against_metaschema(&self, draft: Draft, place: usize, what: &str) -> Wrong {
        let is_of = |(name, known): &&(&str, Draft)| *known == draft && name.contains("draft");
        let name = DRAFTS.iter().find(is_of).map_or("", |(name, _)| name);
        let scheme = if draft >= 2019 { "https" } else { "http" };
        let (of, at) = (quoted(&format!("{ROOT}#")), self.pointer(place));
        Wrong::Schema(format!(
            "{of} is not valid against metaschema: jsonschema validation failed with '{scheme}://{name}#'\n- at '{at}': {what}"
        ))
    }

    fn take_patterns(&mut self, keyword: &str, shape: Shape, value: &'s Json) -> Result<(), Wrong> {
        let patterns: Vec<&'s str> = match value {
            Json::String(pattern) if shape == Shape::Pattern => vec![pattern],
            Json::Object(map) if keyword == "patternProperties" => map.keys().map(String::as_str).collect(),
            _ => Vec::new(),
        };
        for pattern in patterns {
            if self.patterns.contains_key(pattern) {
                continue;
            }
            if self.patterns.len() == PATTERNS_MAX {
                return Err(Wrong::Limit(format!("values.schema.json has more than {PATTERNS_MAX} patterns")));
            }
            let regex = expressions::built(pattern).map_err(|what| {
                Wrong::Schema(format!("invalid regex {} at {}: {what}", quoted(pattern), quoted(&format!("{ROOT}#"))))
            })?;
            self.patterns.insert(pattern, regex);
        }
        Ok(())
    }

    /// Takes in what a schema is called by itself.
    fn name(&mut self, found: &mut Found<'s>) -> Result<(), Wrong> {
        let node = found.node;
        let fallback = self.resources[found.resource].draft;
        let text = |keyword: &str| node.get(keyword).and_then(Json::as_str);
        let id = match fallback {
            4 => text("id"),
            _ => text("$id"),
        };
        // Beside `$ref`, nothing else counts in old drafts.
        let id = id.filter(|_| fallback >= 2019 || node.get("$ref").is_none());
        let (url, fragment) = split(id.unwrap_or_default());
        if !url.is_empty() {
            let joined = join(&self.resources[found.resource].url, url);
            if found.place == 0 {
                self.urls.insert(joined.clone(), 0);
                self.resources[0].url = joined;
            } else {
                if self.urls.contains_key(&joined) {
                    return Err(Wrong::Schema(format!("duplicate id {} in {}", quoted(&joined), quoted(ROOT))));
                }
                found.resource = self.add_resource(node, joined, fallback)?;
            }
        }
        let resource = &mut self.resources[found.resource];
        let (anchor, dynamic) = match resource.draft {
            2020 => (text("$anchor"), text("$dynamicAnchor")),
            2019 => (text("$anchor"), None),
            _ => (Some(fragment), None),
        };
        for name in [anchor, dynamic].into_iter().flatten().filter(|name| !name.is_empty() && !name.starts_with('/')) {
            resource.anchors.insert(name.to_owned(), node);
        }
        if let Some(name) = dynamic {
            resource.dynamic.insert(name.to_owned(), node);
        }
        Ok(())
    }

    fn resolved(
        &mut self,
        found: &Found<'s>,
        reference: &str,
        waiting: &mut Vec<Found<'s>>,
    ) -> Result<Target<'s>, Wrong> {
        let base = &self.resources[self.nodes.get(&address(found.node)).copied().unwrap_or(0)];
        let (url, fragment) = split(reference);
        let url = if url.is_empty() { base.url.clone() } else { join(&base.url, url) };
        if url.starts_with("urn:") && !self.urls.contains_key(&url) {
            return Ok(Target { node: None });
        }
        let Some(mut at) = self.urls.get(&url).copied() else {
            return Err(Wrong::Schema(format!(
                "{} refers to {}, which is not in it: schemas are not fetched",
                quoted(&format!("{ROOT}#{}", self.pointer(found.place))),
                quoted(&url)
            )));
        };
        let resource = &self.resources[at];
        let missing = || {
            let kind = if fragment.is_empty() || fragment.starts_with('/') { "json-pointer" } else { "anchor" };
            Wrong::Schema(format!("{kind} in {} not found", quoted(&format!("{url}#{fragment}"))))
        };
        let fragment = percent_decoded(fragment).ok_or_else(missing)?;
        if !fragment.is_empty() && !fragment.starts_with('/') {
            let node = resource.anchors.get(&fragment).copied().ok_or_else(missing)?;
            return Ok(Target { node: Some(node) });
        }
        let mut node = resource.node;
        for part in fragment.split('/').skip(1) {
            let part = part.replace("~1", "/").replace("~0", "~");
            let below = match node {
                Json::Array(items) => part.parse().ok().and_then(|index: usize| items.get(index)),
                node => node.get(&part),
            };
            node = below.ok_or_else(missing)?;
            at = self.nodes.get(&address(node)).copied().unwrap_or(at);
        }
        // Only what nobody has looked through needs a place.
        if !self.nodes.contains_key(&address(node)) {
            let place = self.place(0, fragment.trim_start_matches('/').to_owned());
            waiting.push(Found { node, place, resource: at });
        }
        Ok(Target { node: Some(node) })
    }
}

/// A part of a pointer.
pub fn escaped(part: &str) -> String {
    part.replace('~', "~0").replace('/', "~1")
}

fn split(reference: &str) -> (&str, &str) {
    reference.split_once('#').unwrap_or((reference, ""))
}

/// A URL seen from another one.
fn join(base: &str, url: &str) -> String {
    let has_scheme = |url: &str| {
        url.split_once(':').is_some_and(|(scheme, _)| {
            scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
        })
    };
    if has_scheme(url) {
        return url.to_owned();
    }
    let Some((scheme, rest)) = base.split_once("://") else { return url.to_owned() };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if let Some(other) = url.strip_prefix("//") {
        return format!("{scheme}://{other}");
    }
    let folder = &path[..path.rfind('/').map_or(0, |at| at)];
    let path = if url.starts_with('/') { url.to_owned() } else { format!("{folder}/{url}") };
    format!("{scheme}://{host}{}", crate::functions::paths::clean(&path))
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, left)) = rest.split_first() {
        rest = left;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, left) = rest.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = left;
    }
    String::from_utf8(bytes).ok()
}
