//! Requests and replies as the services see them: who asks, for what, and how lists are cut into pages.

use std::{collections::HashMap, sync::Arc};

use http::{HeaderMap, Method, StatusCode};
use serde_json::{Map, Value, json};

use super::{
    fault::{Fault, Result},
    kind::{Kind, Type},
    state::State,
    table::{Row, text, values},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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

    /// Its part of the cloud's URL, and its name in the catalog.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Image => "image",
            Self::Compute => "compute",
            Self::Network => "network",
            Self::LoadBalancer => "load-balancer",
            Self::BlockStorage => "volume",
        }
    }

    pub fn key(self) -> &'static str {
        self.prefix()
    }
}

/// Who asks, and what for.
pub struct Request {
    pub service: Service,
    pub method: Method,
    /// Behind the service's prefix: `["v2.0", "networks"]`.
    pub path: Vec<String>,
    pub query: Vec<(String, String)>,
    pub headers: HeaderMap,
    pub body: Value,
    /// The size and SHA-512 of a body that is not JSON (an image's data).
    pub upload: Option<(u64, String)>,
    pub caller: Option<Arc<Caller>>,
    /// Minor microversion; 1 if the caller asks for none.
    pub microversion: u16,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    pub user: String,
    pub project: String,
    pub admin: bool,
    /// Asks by an application credential that may not make or delete others.
    pub restricted: bool,
}

impl Request {
    pub fn caller(&self) -> Result<Arc<Caller>> {
        self.caller.clone().ok_or_else(Fault::unauthorized)
    }

    pub fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// Whether a flag of the query is set (`all_tenants=1`, `cascade=true`).
    pub fn is_set(&self, name: &str) -> bool {
        self.query(name).is_some_and(|v| matches!(v.to_ascii_lowercase().as_str(), "" | "1" | "true" | "yes" | "on"))
    }

    /// The object in the body under `key`.
    pub fn object(&self, key: &str) -> Result<&Map<String, Value>> {
        self.body
            .get(key)
            .and_then(Value::as_object)
            .ok_or_else(|| Fault::bad(format!("Invalid input: the body has no object '{key}'")))
    }
}

pub struct Reply {
    pub status: StatusCode,
    pub body: Option<Value>,
    pub headers: Vec<(&'static str, String)>,
}

impl Reply {
    pub fn new(status: u16, body: Value) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { status, body: Some(body), headers: Vec::new() }
    }

    pub fn ok(body: Value) -> Self {
        Self::new(200, body)
    }

    pub fn one(status: u16, key: &str, value: Value) -> Self {
        Self::new(status, json!({ key: value }))
    }

    pub fn empty(status: u16) -> Self {
        Self { body: None, ..Self::new(status, Value::Null) }
    }
}

/// A row without what is the cloud's own.
pub fn shown(row: &Row) -> Row {
    row.iter().filter(|(k, _)| !k.starts_with('~')).map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// Whether the caller may see a row: its project's, everybody's, or all for an administrator.
pub fn visible(caller: &Caller, row: &Row) -> bool {
    caller.admin || text(row, "project_id") == caller.project || super::table::flag(row, "~public")
}

/// Whether the caller may change it.
pub fn owned(caller: &Caller, row: &Row) -> bool {
    caller.admin || text(row, "project_id") == caller.project
}

const PAGING: &[&str] = &[
    "limit",
    "marker",
    "sort",
    "sort_key",
    "sort_dir",
    "fields",
    "all_tenants",
    "all_projects",
    "page_reverse",
    "offset",
    "with_count",
    "cascade",
    "is_public",
    "changes-since",
    "changes-before",
    "deleted",
    "ip",
    "ip6",
    "type",
    "detailed",
    "fixed_ips",
    "tags",
    "tags-any",
    "not-tags",
    "not-tags-any",
    "tag",
    "visibility",
    "member_status",
    "os_hidden",
    "host",
    "security_groups",
    "reservation_id",
    "include_links",
    "minRam",
    "minDisk",
    "tenant_id",
    "user_id",
];

/// The rows of a kind that the caller may see and that pass the query's filters, oldest first.
pub fn select(state: &State, request: &Request, kind: Kind, scope: Option<(&str, &str)>) -> Result<Vec<Arc<Row>>> {
    let caller = request.caller()?;
    let table = state.table(kind);
    let meta = kind.meta();
    let mut filters: HashMap<String, Vec<String>> = HashMap::new();
    for (name, value) in &request.query {
        let name = match name.as_str() {
            "tenant_id" => "project_id",
            "fixed_ips" => match value.split_once('=') {
                Some((part, value)) => {
                    let field = format!("fixed_ips[].{part}");
                    filters.entry(field).or_default().push(value.to_owned());
                    continue;
                }
                None => return Err(Fault::bad(format!("Invalid input for fixed_ips. Reason: '{value}'."))),
            },
            "security_groups" if kind == Kind::Port => "security_groups[]",
            name if PAGING.contains(&name) => continue,
            name => name,
        };
        filters.entry(name.to_owned()).or_default().push(value.clone());
    }
    if let Some((field, value)) = scope {
        filters.entry(field.to_owned()).or_default().push(value.to_owned());
    }
    let types: HashMap<&str, Type> = meta.fields.iter().map(|f| (f.name, f.kind)).collect();
    let passes = |row: &Row| {
        filters.iter().all(|(field, wanted)| {
            // Most filters are for one text in one field: no copies for those.
            let flag = types.get(field.as_str()) == Some(&Type::Flag);
            if let (Some(Value::String(have)), false) = (row.get(field), flag) {
                return wanted.iter().any(|w| w == have);
            }
            let have = values(row, field);
            let empty = have.is_empty() && !field.contains("[]");
            let same = |w: &String| match flag {
                true => have.first().is_some_and(|h| is_true(h) == is_true(w)),
                false => have.contains(w) || (empty && w.is_empty()),
            };
            wanted.iter().any(same)
        })
    };
    let wanted = |row: &&Arc<Row>| visible(&caller, row) && passes(row) && has_tags(row, request);
    // The narrowest index decides which rows are looked at.
    let indexed = filters.iter().filter(|(f, _)| table.is_indexed(f));
    let size = |(f, vs): &(&String, &Vec<String>)| vs.iter().map(|v| table.count(f, v)).sum::<usize>();
    if let Some(ids) = filters.get("id") {
        return Ok(ids.iter().filter_map(|id| table.get(id)).filter(wanted).cloned().collect());
    }
    let sets: Vec<_> = if let Some((field, values)) = indexed.min_by_key(size) {
        values.iter().map(|value| table.sequences(field, value)).collect()
    } else if caller.admin {
        return Ok(table.all().filter(wanted).cloned().collect());
    } else {
        vec![table.sequences("project_id", &caller.project), table.sequences("~public", "true")]
    };
    let mut sequences: Vec<u64> = sets.iter().flatten().flat_map(|set| set.iter().copied()).collect();
    if sets.len() > 1 {
        sequences.sort_unstable();
        sequences.dedup();
    }
    Ok(sequences.into_iter().filter_map(|sequence| table.at(sequence)).filter(wanted).cloned().collect())
}

fn is_true(text: &str) -> bool {
    matches!(text.to_ascii_lowercase().as_str(), "true" | "1" | "yes" | "on")
}

/// `tags` (all of them), `tags-any`, `not-tags`, `not-tags-any`, as Neutron, Nova and Octavia have them; Glance's `tag`.
fn has_tags(row: &Row, request: &Request) -> bool {
    let have = values(row, "tags[]");
    request.query.iter().all(|(name, value)| {
        let mut wanted = value.split(',').filter(|t| !t.is_empty());
        let has = |t: &str| have.iter().any(|h| h == t);
        match name.as_str() {
            "tags" | "tag" => wanted.all(has),
            "tags-any" => wanted.any(has),
            "not-tags" => !wanted.all(has),
            "not-tags-any" => !wanted.any(has),
            _ => true,
        }
    })
}

/// Pages longer than this are not served, whatever the limit asked for (`max_limit` of Nova, `osapi_max_limit` of Cinder).
pub const PAGE_LIMIT: usize = 1_000;

/// One page of the rows, and the marker of the next.
pub fn page<T: AsRef<Row>>(request: &Request, mut rows: Vec<T>) -> Result<(Vec<T>, Option<String>)> {
    let sort = request.query("sort_key").or(request.query("sort").map(|s| s.split([',', ':']).next().unwrap_or(s)));
    if let Some(key) = sort {
        let descending =
            request.query("sort_dir").or(request.query("sort").and_then(|s| s.split(':').nth(1))) == Some("desc");
        let value = |row: &T| row.as_ref().get(key).map(ToString::to_string).unwrap_or_default();
        rows.sort_by(|a, b| if descending { value(b).cmp(&value(a)) } else { value(a).cmp(&value(b)) });
    }
    if let Some(marker) = request.query("marker") {
        let found = rows.iter().position(|r| text(r.as_ref(), "id") == marker || text(r.as_ref(), "name") == marker);
        let Some(at) = found else {
            return Err(Fault::bad(format!("marker [{marker}] not found")));
        };
        rows.drain(..=at);
    }
    let limit = match request.query("limit") {
        None => PAGE_LIMIT,
        Some(text) => {
            let limit: usize =
                text.parse().map_err(|_| Fault::bad(format!("limit param must be an integer: {text}")))?;
            if limit == 0 { PAGE_LIMIT } else { limit.min(PAGE_LIMIT) }
        }
    };
    let mut next = None;
    if rows.len() > limit {
        rows.truncate(limit);
        next = rows.last().map(|r| text(r.as_ref(), "id").to_owned());
    }
    Ok((rows, next))
}

/// The next page's link, with the query as it was but for the marker.
pub fn next_link(state: &State, request: &Request, marker: &str) -> String {
    let mut link = format!("{}/{}/{}?", state.options.public_url, request.service.prefix(), request.path.join("/"));
    for (name, value) in request.query.iter().filter(|(n, _)| n != "marker") {
        let encode = |s: &str| percent(s);
        link.push_str(&format!("{}={}&", encode(name), encode(value)));
    }
    link.push_str(&format!("marker={}", percent(marker)));
    link
}

fn percent(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// A list's reply: `{many: [..], many_links: [..]}`.
pub fn listed(state: &State, request: &Request, many: &str, rows: Vec<Row>) -> Result<Reply> {
    let (rows, next) = page(request, rows.into_iter().map(Holder).collect())?;
    let fields: Vec<&str> =
        request.query.iter().filter(|(n, _)| n == "fields").flat_map(|(_, v)| v.split(',')).collect();
    let cut = |row: Row| {
        if fields.is_empty() {
            Value::Object(row)
        } else {
            Value::Object(row.into_iter().filter(|(k, _)| fields.contains(&k.as_str())).collect())
        }
    };
    let mut body = json!({ many: rows.into_iter().map(|h| cut(h.0)).collect::<Vec<_>>() });
    if let Some(marker) = next {
        body[format!("{many}_links")] = json!([{"rel": "next", "href": next_link(state, request, &marker)}]);
    }
    Ok(Reply::ok(body))
}

/// A row by value that can be paged.
pub struct Holder(pub Row);

impl AsRef<Row> for Holder {
    fn as_ref(&self) -> &Row {
        &self.0
    }
}
