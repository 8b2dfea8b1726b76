//! Get and list: stored bytes copied out, decoded only where a conversion, a table or a selector asks for it.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::{At, KeyValue, Range, Revision};

use crate::{
    convert,
    field::FieldError,
    kinds::Kind,
    negotiate::Form,
    object,
    path::Query,
    rest::{after_key, served_value},
    selector::{Fields, Labels, Selector},
    server::Server,
    status::{Error, Result},
    table::{self, IncludeObject},
    write::store_error,
};

/// Keys that are read at once while a selector is at work.
const SCAN_ITEMS: usize = 1000;
/// A list without a limit of its own is cut off here, as if it had asked for it.
pub const LIST_ITEMS_MAX: usize = 100_000;

/// An object as it is served, in JSON.
pub(crate) fn served_bytes(kind: &Kind, stored: &[u8], revision: Revision, out: &mut Vec<u8>) -> Result<()> {
    if object::write_served(out, &kind.head, stored, revision) {
        return Ok(());
    }
    let kv = KeyValue {
        key: bytes::Bytes::new(),
        value: bytes::Bytes::copy_from_slice(stored),
        created: revision,
        modified: revision,
    };
    let object = served_value(kind, &kv)?;
    serde_json::to_writer(out, &object).map_err(Error::internal)
}

/// The same as an item of a list.
fn item_bytes(kind: &Kind, stored: &[u8], revision: Revision, out: &mut Vec<u8>) -> Result<()> {
    if kind.is_custom() {
        return served_bytes(kind, stored, revision, out);
    }
    if object::write_untyped(out, &kind.head, stored, revision) {
        return Ok(());
    }
    let mut whole = Vec::new();
    served_bytes(kind, stored, revision, &mut whole)?;
    let mut object: Value = serde_json::from_slice(&whole).map_err(Error::internal)?;
    if let Some(fields) = object.as_object_mut() {
        fields.remove("kind");
        fields.remove("apiVersion");
    }
    serde_json::to_writer(out, &object).map_err(Error::internal)
}

/// PartialObjectMetadata of an object.
pub(crate) fn partial_metadata(object: &mut Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"].take()})
}

pub(crate) fn include_object(query: &Query) -> Result<IncludeObject> {
    match query.text("includeObject") {
        None | Some("Metadata") => Ok(IncludeObject::Metadata),
        Some("None") => Ok(IncludeObject::None),
        Some("Object") => Ok(IncludeObject::Object),
        Some(other) => {
            let why = format!("Invalid value: {other:?}: must be 'Metadata', 'Object', 'None', or empty");
            Err(Error::bad_request(format!("Unable to convert to Table as requested: includeObject: {why}")))
        }
    }
}

/// Which objects a list or a watch is of.
pub(crate) struct Subject<'a> {
    pub server: &'a Server,
    pub kind: &'a Kind,
    /// Empty: all.
    pub namespace: &'a str,
    pub selector: Selector,
}

impl<'a> Subject<'a> {
    pub(crate) fn new(server: &'a Server, kind: &'a Kind, namespace: &'a str, query: &Query) -> Result<Self> {
        let fields = query.text("fieldSelector").unwrap_or_default();
        // Stored as events of the core group, where this has another name.
        let fields = match kind.group.as_ref() {
            "events.k8s.io" => fields.replace("regarding.", "involvedObject."),
            _ => fields.to_owned(),
        };
        let selector = Selector {
            labels: Labels::parse(query.text("labelSelector").unwrap_or_default())?,
            fields: Fields::parse(&fields, &kind.selectable_fields())?,
        };
        Ok(Self { server, kind, namespace, selector })
    }

    /// The keys that can hold them.
    pub(crate) fn range(&self) -> Range {
        let storage = &self.kind.storage;
        match self.selector.fields.name() {
            Some(name) if !self.kind.namespaced || !self.namespace.is_empty() => {
                Range::key(storage.key(self.namespace, name))
            }
            _ => Range::prefix(storage.prefix_in(self.namespace)),
        }
    }
}

/// A token that goes on with a list: which revision (0: the latest), and behind which key.
#[derive(Serialize, Deserialize)]
struct Continue {
    v: String,
    rv: i64,
    start: String,
}

impl Continue {
    fn encode(revision: i64, start: &str) -> String {
        let token = Self { v: "meta.k8s.io/v1".to_owned(), rv: revision, start: start.to_owned() };
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&token).expect("a token always becomes JSON"))
    }

    fn decode(text: &str) -> Result<Self> {
        let not_valid =
            |why: &str| Error::bad_request(format!("invalid continue token: continue key is not valid: {why}"));
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|error| match error {
            base64::DecodeError::InvalidByte(at, _) => not_valid(&format!("illegal base64 data at input byte {at}")),
            _ => not_valid(&format!("illegal base64 data at input byte {}", text.len().saturating_sub(1))),
        })?;
        let first = String::from_utf8_lossy(&bytes).chars().next();
        if first != Some('{') {
            let first = first.unwrap_or_default();
            return Err(not_valid(&format!("invalid character {first:?} looking for beginning of value")));
        }
        let token: Self = serde_json::from_slice(&bytes).map_err(|error| not_valid(&error.to_string()))?;
        if token.v != "meta.k8s.io/v1" {
            return Err(not_valid("server does not recognize this encoded version \"v\""));
        }
        Ok(token)
    }
}

pub(crate) struct Listed {
    pub items: Vec<KeyValue>,
    pub revision: Revision,
    /// Goes on with what lies behind.
    pub next: Option<String>,
    pub remaining: Option<u64>,
}

/// Where a list is to begin and which state it is to show.
fn start(subject: &Subject<'_>, query: &Query, range: &mut Range, limit: usize) -> Result<At> {
    let version = query.text("resourceVersion");
    if let Some(token) = query.text("continue") {
        let token = Continue::decode(token)?;
        if version.is_some_and(|v| v != "0") {
            return Err(Error::bad_request("specifying resource version is not allowed when using continue"));
        }
        let prefix = subject.kind.storage.prefix();
        let next = bytes::Bytes::from(format!("{prefix}{}", token.start));
        // Tokens come from outside: none may lead out of the namespace that the caller may read.
        if !range.contains(&next) {
            return Err(Error::bad_request("continue key is not valid: it lies outside of the list"));
        }
        range.start = next;
        return Ok(u64::try_from(token.rv).ok().filter(|rv| *rv > 0).map_or(At::Latest, |rv| At::Exact(Revision(rv))));
    }
    let Some(asked) = version.map(parse_version).transpose()? else { return Ok(At::Latest) };
    // A version with a limit, and no word on what it means, is meant exactly, as it was before there was such a word.
    let exactly = match query.text("resourceVersionMatch") {
        Some(matching) => matching == "Exact",
        None => asked.0 > 0 && limit > 0,
    };
    let current = subject.server.store().revision();
    if asked > current {
        return Err(Error::future_version(asked.0, current.0));
    }
    Ok(if exactly { At::Exact(asked) } else { At::Latest })
}

pub(crate) fn parse_version(text: &str) -> Result<Revision> {
    parse_revision(text).map_err(|why| Error::bad_request(format!("invalid resource version: {why}")))
}

/// A resourceVersion; the error is the text of the field's.
pub(crate) fn parse_revision(text: &str) -> Result<Revision, String> {
    text.parse().map(Revision).map_err(|_| {
        FieldError::invalid("resourceVersion", text, format!("strconv.ParseUint: parsing {text:?}: invalid syntax"))
            .to_string()
    })
}

/// Another server may have made the version that is asked for: waits for it a little. What does not come is refused later.
pub(crate) async fn reach(server: &Server, query: &Query) {
    let asked = query.text("resourceVersion").and_then(|version| version.parse().ok());
    if let Some(asked) = asked.map(Revision).filter(|asked| *asked > server.store().revision()) {
        let _ = server.store().reach(asked).await;
    }
}

pub(crate) async fn list(subject: &Subject<'_>, query: &Query) -> Result<Listed> {
    let mut listed = list_stored(subject, query).await?;
    listed.items = convert::served(subject.kind, listed.items).await?;
    Ok(listed)
}

async fn list_stored(subject: &Subject<'_>, query: &Query) -> Result<Listed> {
    let limit = usize::try_from(query.number("limit")?.unwrap_or(0).max(0)).unwrap_or(0);
    let mut range = subject.range();
    reach(subject.server, query).await;
    let mut at = start(subject, query, &mut range, limit)?;
    // Version 0 is answered out of the cache, which knows no pages.
    let whole = limit == 0 || (query.text("resourceVersion") == Some("0") && query.text("continue").is_none());
    let limit = if whole { LIST_ITEMS_MAX } else { limit.min(LIST_ITEMS_MAX) };
    let everything = subject.selector.is_everything();
    let prefix = subject.kind.storage.prefix();
    let mut items = Vec::new();
    loop {
        let count = if everything { limit - items.len() } else { SCAN_ITEMS };
        let read = subject.server.store().range(range.clone(), at, count).await;
        let page = read.map_err(|error| list_error(error, query, &range, &prefix))?;
        at = At::Exact(page.revision);
        let read = page.items.len();
        let mut taken = 0;
        let mut last = None;
        for kv in page.items {
            taken += 1;
            last = Some(kv.key.clone());
            if everything || subject.selector.matches(&kv.value)? {
                items.push(kv);
            }
            if items.len() == limit {
                break;
            }
        }
        let left = page.remaining + (read - taken) as u64;
        let Some(last) = last.filter(|_| left > 0) else {
            return Ok(Listed { items, revision: page.revision, next: None, remaining: None });
        };
        range.start = after_key(&last);
        if items.len() == limit {
            let revision = i64::try_from(page.revision.0).unwrap_or(i64::MAX);
            let next = Continue::encode(revision, relative(&range.start, &prefix));
            let remaining = everything.then_some(left);
            return Ok(Listed { items, revision: page.revision, next: Some(next), remaining });
        }
    }
}

fn relative<'a>(key: &'a [u8], prefix: &str) -> &'a str {
    let text = std::str::from_utf8(key).unwrap_or_default();
    text.strip_prefix(prefix).unwrap_or_default()
}

fn list_error(error: store::Error, query: &Query, range: &Range, prefix: &str) -> Error {
    match error {
        store::Error::Compacted { .. } if query.text("continue").is_some() => {
            Error::expired_page(Continue::encode(-1, relative(&range.start, prefix)))
        }
        other => store_error(other),
    }
}

impl Listed {
    /// Lists of custom resources say that there is no more, too: theirs is no typed metadata.
    fn metadata(&self, custom: bool) -> Value {
        let mut metadata = json!({"resourceVersion": self.revision.to_string()});
        if custom {
            metadata["continue"] = "".into();
        }
        if let Some(next) = &self.next {
            metadata["continue"] = next.as_str().into();
        }
        if let Some(remaining) = self.remaining {
            metadata["remainingItemCount"] = remaining.into();
        }
        metadata
    }

    /// The list in the form that is wanted, in JSON.
    pub(crate) fn render(&self, subject: &Subject<'_>, form: Form, include: IncludeObject) -> Result<Vec<u8>> {
        let kind = subject.kind;
        match form {
            Form::Object => {
                let size = self.items.iter().map(|kv| kv.value.len() + 64).sum::<usize>();
                let mut out = Vec::with_capacity(size + 256);
                let head = format!(
                    "{{\"kind\":\"{}\",\"apiVersion\":\"{}\",\"metadata\":{},\"items\":[",
                    kind.list_kind,
                    kind.api_version(),
                    self.metadata(kind.is_custom())
                );
                out.extend_from_slice(head.as_bytes());
                for (i, kv) in self.items.iter().enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    item_bytes(kind, &kv.value, kv.modified, &mut out)?;
                }
                out.extend_from_slice(b"]}");
                Ok(out)
            }
            Form::Metadata => {
                let items: Result<Vec<_>> =
                    self.items.iter().map(|kv| Ok(partial_metadata(&mut served_value(kind, kv)?))).collect();
                let list = json!({
                    "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
                    "metadata": self.metadata(false), "items": items?,
                });
                serde_json::to_vec(&list).map_err(Error::internal)
            }
            Form::Table => {
                let objects = self.items.iter().map(|kv| served_value(kind, kv)).collect::<Result<Vec<_>>>()?;
                let objects: Vec<&Value> = objects.iter().collect();
                let now = subject.server.now();
                let table = table::table(&kind.columns(), &objects, include, now, self.metadata(false));
                serde_json::to_vec(&table).map_err(Error::internal)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn continue_tokens_are_read_back_and_others_refused() {
        let token = Continue::decode(&Continue::encode(7, "a/b\0")).unwrap();
        assert_eq!((token.rv, token.start.as_str()), (7, "a/b\0"));
        for bad in ["", "x", "e30"] {
            assert_eq!(Continue::decode(bad).err().map(|e| e.code()), Some(400), "{bad}");
        }
    }
}
