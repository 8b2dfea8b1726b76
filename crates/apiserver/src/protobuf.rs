//! Bodies in protobuf, which stock clients send and want for built-in kinds (client-go, controller-runtime): requests are
//! read into the same values as JSON, answers are written from them.
//!
//! The wire form is a magic number and a `runtime.Unknown` around the message. The messages are a table of facts.

pub(crate) mod write;

use std::{
    collections::{BTreeMap, HashMap},
    sync::LazyLock,
};

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::body::DEPTH_MAX;

const MAGIC: &[u8] = b"k8s\0";
const NO_MAGIC: &str = "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]";

/// How a field lies on the wire and in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    One,
    List,
    Map,
    /// Written even if it is zero.
    Present,
    /// Its fields are the message's own.
    Inline,
}

#[derive(Clone, Copy, Debug)]
struct Field {
    name: &'static str,
    mark: Mark,
    kind: &'static str,
}

/// The fields of each message, in the order in which they are written.
type Messages = HashMap<&'static str, BTreeMap<u64, Field>>;

static MESSAGES: LazyLock<Messages> = LazyLock::new(|| {
    let lines = include_str!("protobuf/messages.txt").lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| {
            let mut words = line.split(' ');
            Some((words.next()?, words.filter_map(field).collect()))
        })
        .collect()
});

/// `name=number`, a mark and a type.
fn field(word: &'static str) -> Option<(u64, Field)> {
    let (name, rest) = word.split_once('=')?;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = rest.split_at(digits);
    let (mark, kind) = match rest.as_bytes().first()? {
        b'*' => (Mark::List, &rest[1..]),
        b'%' => (Mark::Map, &rest[1..]),
        b'?' => (Mark::Present, &rest[1..]),
        b'<' => (Mark::Inline, &rest[1..]),
        _ => (Mark::One, rest),
    };
    Some((number.parse().ok()?, Field { name, mark, kind }))
}

/// Reads an object, or a list of objects, in its envelope; errors are a text alone.
pub fn parse(bytes: &[u8]) -> Result<Value, String> {
    let body = bytes.strip_prefix(MAGIC).ok_or(NO_MAGIC)?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    for item in items(body) {
        match item? {
            (1, Wire::Bytes(type_meta)) => {
                for item in items(type_meta) {
                    match item? {
                        (1, Wire::Bytes(b)) => api_version = text(b)?,
                        (2, Wire::Bytes(b)) => kind = text(b)?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(b)) => raw = b,
            _ => {}
        }
    }
    let knows = |kind: &str| MESSAGES.contains_key(message_name(&api_version, kind).as_str());
    let mut object = match kind.strip_suffix("List").filter(|item| knows(item)) {
        _ if knows(&kind) => read(&message_name(&api_version, &kind), raw, 0)?,
        Some(item) => list(&message_name(&api_version, item), raw)?,
        None => return Err(format!("no kind \"{kind}\" of \"{api_version}\" is known in protobuf; send JSON")),
    };
    object.insert("apiVersion".to_owned(), api_version.into());
    object.insert("kind".to_owned(), kind.into());
    Ok(Value::Object(object))
}

/// Reads the frames of a watch: values with `type` and `object`. What is no whole frame any more is left.
pub fn events(mut bytes: &[u8]) -> Result<Vec<Value>, String> {
    let mut events = Vec::new();
    while let Some((frame, rest)) = frame(bytes) {
        bytes = rest;
        let mut event = Map::new();
        for item in items(frame) {
            match item? {
                (1, Wire::Bytes(b)) => drop(event.insert("type".to_owned(), text(b)?.into())),
                (2, Wire::Bytes(raw)) => {
                    for item in items(raw) {
                        if let (1, Wire::Bytes(b)) = item? {
                            event.insert("object".to_owned(), parse(b)?);
                        }
                    }
                }
                _ => {}
            }
        }
        events.push(Value::Object(event));
    }
    Ok(events)
}

/// The first frame of a stream and what is behind it: four bytes of length, most significant first, and as many bytes.
pub fn frame(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_be_bytes(*length).try_into().ok()?)
}

/// Every list has its metadata as field 1 and its items as field 2.
fn list(item: &str, bytes: &[u8]) -> Result<Map<String, Value>, String> {
    let (mut metadata, mut entries) = (Map::new(), Vec::new());
    for found in items(bytes) {
        match found? {
            (1, Wire::Bytes(b)) => metadata = read("meta.v1.ListMeta", b, 1)?,
            (2, Wire::Bytes(b)) => entries.push(Value::Object(read(item, b, 1)?)),
            _ => {}
        }
    }
    Ok(Map::from_iter([("metadata".to_owned(), metadata.into()), ("items".to_owned(), entries.into())]))
}

/// `core.v1.Pod`, `apps.v1.Deployment`, `rbac.v1.Role`.
fn message_name(api_version: &str, kind: &str) -> String {
    let (group, version) = crate::kinds::split_api_version(api_version);
    let meta = format!("meta.v1.{kind}");
    // Answers of all groups are of v1, as are the kinds of core.
    let is_common = matches!(group, "" | "meta.k8s.io") && MESSAGES.contains_key(meta.as_str());
    if is_common || kind == "DeleteOptions" {
        return meta;
    }
    let package = match group {
        "" => "core",
        group => group.split('.').next().unwrap_or_default(),
    };
    format!("{package}.{version}.{kind}")
}

enum Wire<'a> {
    Number(u64),
    Fixed(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message, in the order of the wire.
fn items(mut rest: &[u8]) -> impl Iterator<Item = Result<(u64, Wire<'_>), String>> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let item = item(&mut rest);
        if item.is_none() {
            rest = &[];
        }
        Some(item.ok_or_else(|| "the protobuf message is cut off or malformed".to_owned()))
    })
}

fn item<'a>(rest: &mut &'a [u8]) -> Option<(u64, Wire<'a>)> {
    let tag = varint(rest)?;
    let wire = match tag & 7 {
        0 => Wire::Number(varint(rest)?),
        1 => Wire::Fixed(u64::from_le_bytes(take(rest, 8)?.try_into().ok()?)),
        2 => {
            let length = usize::try_from(varint(rest)?).ok()?;
            Wire::Bytes(take(rest, length)?)
        }
        5 => Wire::Fixed(u64::from(u32::from_le_bytes(take(rest, 4)?.try_into().ok()?))),
        _ => return None,
    };
    Some((tag >> 3, wire))
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    Some(head)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, tail) = rest.split_first()?;
        *rest = tail;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn text(bytes: &[u8]) -> Result<String, String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| "a text of the protobuf message is not UTF-8".to_owned())
}

fn read(message: &str, bytes: &[u8], depth: usize) -> Result<Map<String, Value>, String> {
    if depth >= DEPTH_MAX {
        return Err(format!("exceeded max depth: messages lie more than {DEPTH_MAX} deep"));
    }
    let fields = MESSAGES.get(message).ok_or_else(|| format!("the message {message} is not known; send JSON"))?;
    let mut object = Map::new();
    for item in items(bytes) {
        let (number, wire) = item?;
        let Some(field) = fields.get(&number) else { continue };
        match field.mark {
            Mark::Inline => {
                let Wire::Bytes(inner) = wire else { return Err(mismatch(field)) };
                object.extend(read(field.kind, inner, depth + 1)?);
            }
            Mark::List => {
                let value = value(field, &wire, depth)?;
                let list = object.entry(field.name).or_insert_with(|| Value::Array(Vec::new()));
                if let (Some(list), Some(value)) = (list.as_array_mut(), value) {
                    list.push(value);
                }
            }
            Mark::Map => {
                let Wire::Bytes(entry) = wire else { return Err(mismatch(field)) };
                let (key, value) = map_entry(field, entry, depth)?;
                let map = object.entry(field.name).or_insert_with(|| Value::Object(Map::new()));
                if let Some(map) = map.as_object_mut() {
                    map.insert(key, value);
                }
            }
            Mark::One | Mark::Present => {
                let Some(value) = value(field, &wire, depth)? else { continue };
                if field.mark == Mark::Present || !is_zero(&value) {
                    object.insert(field.name.to_owned(), value);
                }
            }
        }
    }
    Ok(object)
}

fn map_entry(field: &Field, entry: &[u8], depth: usize) -> Result<(String, Value), String> {
    let mut key = String::new();
    let mut found = None;
    for item in items(entry) {
        match item? {
            (1, Wire::Bytes(b)) => key = text(b)?,
            (2, wire) => found = value(field, &wire, depth)?,
            _ => {}
        }
    }
    let empty = if matches!(field.kind, "s" | "b" | "Quantity") { Value::from("") } else { Value::Object(Map::new()) };
    Ok((key, found.unwrap_or(empty)))
}

fn mismatch(field: &Field) -> String {
    format!("the field {} of the protobuf message is of another type", field.name)
}

/// What JSON leaves out.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

/// `None`: the zero time, which is no time.
fn value(field: &Field, wire: &Wire<'_>, depth: usize) -> Result<Option<Value>, String> {
    let value = match (field.kind, wire) {
        ("s", Wire::Bytes(b)) => text(b)?.into(),
        ("b", Wire::Bytes(b)) => {
            use base64::{Engine, engine::general_purpose::STANDARD};
            STANDARD.encode(b).into()
        }
        ("t", Wire::Number(n)) => (*n != 0).into(),
        ("i", Wire::Number(n)) => n.cast_signed().into(),
        ("d", Wire::Fixed(bits)) => f64::from_bits(*bits).into(),
        ("Time" | "MicroTime", Wire::Bytes(b)) => return time(b, field.kind == "MicroTime"),
        ("Duration", Wire::Bytes(b)) => {
            let nanos = numbers(b)?.first().copied().unwrap_or(0);
            format!("{nanos}ns").into()
        }
        ("Quantity", Wire::Bytes(b)) => first_text(b, 1)?.into(),
        ("IntOrString", Wire::Bytes(b)) => int_or_string(b)?,
        ("Raw", Wire::Bytes(b)) => match first_text(b, 1)?.as_str() {
            "" => Value::Null,
            json => serde_json::from_str(json).map_err(|e| format!("the field {}: {e}", field.name))?,
        },
        ("Strings", Wire::Bytes(b)) => {
            let mut list = Vec::new();
            for item in items(b) {
                if let (1, Wire::Bytes(b)) = item? {
                    list.push(Value::from(text(b)?));
                }
            }
            list.into()
        }
        (message, Wire::Bytes(b)) if message.contains('.') => Value::Object(read(message, b, depth + 1)?),
        _ => return Err(mismatch(field)),
    };
    Ok(Some(value))
}

/// The numbers of fields 1 and 2.
fn numbers(bytes: &[u8]) -> Result<[i64; 2], String> {
    let mut found = [0; 2];
    for item in items(bytes) {
        match item? {
            (1, Wire::Number(n)) => found[0] = n.cast_signed(),
            (2, Wire::Number(n)) => found[1] = n.cast_signed(),
            _ => {}
        }
    }
    Ok(found)
}

fn first_text(bytes: &[u8], wanted: u64) -> Result<String, String> {
    for item in items(bytes) {
        match item? {
            (number, Wire::Bytes(b)) if number == wanted => return text(b),
            _ => {}
        }
    }
    Ok(String::new())
}

fn time(bytes: &[u8], micro: bool) -> Result<Option<Value>, String> {
    let [seconds, nanos] = numbers(bytes)?;
    if seconds == 0 && nanos == 0 {
        return Ok(None);
    }
    let nanos = i32::try_from(nanos).map_err(|_| "a time of the protobuf message is out of range".to_owned())?;
    let time = Timestamp::new(seconds, nanos).map_err(|e| format!("a time of the protobuf message: {e}"))?;
    let format = if micro { "%Y-%m-%dT%H:%M:%S.%6fZ" } else { "%Y-%m-%dT%H:%M:%SZ" };
    Ok(Some(time.strftime(format).to_string().into()))
}

/// type, intVal, strVal.
fn int_or_string(bytes: &[u8]) -> Result<Value, String> {
    let [kind, number] = numbers(bytes)?;
    Ok(if kind == 0 { number.into() } else { first_text(bytes, 3)?.into() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Field `number` with bytes.
    fn wrap(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, u8::try_from(bytes.len()).unwrap()];
        out.extend_from_slice(bytes);
        out
    }

    fn body(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let type_meta = [wrap(1, api_version.as_bytes()), wrap(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), wrap(1, &type_meta), wrap(2, raw)].concat()
    }

    #[test]
    fn every_type_that_a_field_names_is_known() {
        let simple =
            ["s", "b", "t", "i", "d", "Time", "MicroTime", "Duration", "Quantity", "IntOrString", "Raw", "Strings"];
        for (message, fields) in MESSAGES.iter() {
            for field in fields.values() {
                assert!(simple.contains(&field.kind) || MESSAGES.contains_key(field.kind), "{message}: {field:?}");
            }
        }
    }

    #[test]
    fn a_message_is_read_as_its_json() {
        let metadata =
            [wrap(1, b"x"), wrap(2, b""), wrap(8, b""), wrap(11, &[wrap(1, b"k"), wrap(2, b"v")].concat())].concat();
        let raw = [wrap(1, &metadata), wrap(2, &[wrap(1, b"a"), wrap(2, b"b")].concat())].concat();
        let expected = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "labels": {"k": "v"}}, "data": {"a": "b"},
        });
        assert_eq!(parse(&body("v1", "ConfigMap", &raw)).unwrap(), expected);
    }

    #[test]
    fn what_is_present_stays_even_if_it_is_zero_and_embedded_fields_are_the_messages_own() {
        let deployment = wrap(2, &[0x08, 0x00]);
        assert_eq!(parse(&body("apps/v1", "Deployment", &deployment)).unwrap()["spec"], json!({"replicas": 0}));
        let volume = [wrap(1, b"v"), wrap(2, &wrap(2, &[]))].concat();
        let pod = wrap(2, &wrap(1, &volume));
        let expected = json!({"volumes": [{"name": "v", "emptyDir": {}}]});
        assert_eq!(parse(&body("v1", "Pod", &pod)).unwrap()["spec"], expected);
    }

    /// A value of a message with all its fields.
    fn sample(message: &str, depth: usize) -> Value {
        let mut object = Map::new();
        for field in MESSAGES[message].values() {
            if field.mark == Mark::Inline {
                object.extend(sample(field.kind, depth).as_object().unwrap().clone());
                continue;
            }
            let one = match field.kind {
                "s" => json!("text"),
                "b" => json!("Ynl0ZXM="),
                "t" => json!(true),
                "i" => json!(-7),
                "d" => json!(1.5),
                "Time" => json!("2026-01-02T03:04:05Z"),
                "MicroTime" => json!("2026-01-02T03:04:05.000006Z"),
                "Quantity" => json!("10Mi"),
                "IntOrString" => json!("50%"),
                "Raw" => json!({"a": [1, "b"]}),
                "Strings" => json!(["a", "b"]),
                _ if depth == 4 => continue,
                message => sample(message, depth + 1),
            };
            let value = match field.mark {
                Mark::List => json!([one, one]),
                Mark::Map => json!({"k": one, "l": one}),
                _ => one,
            };
            object.insert(field.name.to_owned(), value);
        }
        Value::Object(object)
    }

    #[test]
    fn what_is_written_is_read_as_it_was() {
        for message in MESSAGES.keys() {
            let value = sample(message, 0);
            let written = write::message(message, value.as_object().unwrap()).unwrap();
            assert_eq!(Value::Object(read(message, &written, 0).unwrap()), value, "{message}");
        }
    }

    #[test]
    fn lists_and_events_are_written_in_their_envelopes() {
        let pod = json!({"metadata": {"name": "a"}, "spec": {"volumes": [{"name": "v", "emptyDir": {}}]}});
        let metadata = json!({"resourceVersion": "7", "remainingItemCount": 0});
        let list = json!({"apiVersion": "v1", "kind": "PodList", "metadata": metadata, "items": [pod, pod]});
        assert_eq!(parse(&write::object(&list).unwrap()).unwrap(), list);
        let status = json!({"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "code": 404});
        let frames = [write::event("ERROR", &status).unwrap(), write::event("DELETED", &list).unwrap()].concat();
        let mut expected = vec![json!({"type": "ERROR", "object": status}), json!({"type": "DELETED", "object": list})];
        expected[0]["object"].as_object_mut().unwrap().remove("metadata");
        let last = frames.len() - 1;
        assert_eq!(events(&frames).unwrap(), expected);
        assert_eq!(events(&frames[..last]).unwrap(), expected[..1]);
        assert_eq!(write::object(&json!({"apiVersion": "example.com/v1", "kind": "Widget"})), None);
    }

    #[test]
    fn broken_messages_are_errors() {
        let good = body("v1", "ConfigMap", &wrap(1, &wrap(1, b"x")));
        for end in 0..good.len() {
            let _ = parse(&good[..end]);
        }
        assert!(parse(b"{}").is_err());
        assert!(parse(&body("v1", "Nonsense", b"")).is_err());
        assert!(parse(&body("v1", "ConfigMap", &[0x0a, 0xff])).is_err());
        assert!(parse(&body("v1", "ConfigMap", &wrap(1, &wrap(1, b"\xff")))).is_err());
    }
}
