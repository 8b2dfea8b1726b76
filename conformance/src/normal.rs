//! Takes out of an answer what two servers cannot have in common: see "What is not compared" in README.md.

use std::{collections::HashMap, sync::LazyLock};

use jiff::{SignedDuration, Timestamp};
use regex::{Captures, Regex};
use serde_json::{Map, Value};

fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).expect("written here")
}

static UID: LazyLock<Regex> =
    LazyLock::new(|| regex(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"));
static TIME: LazyLock<Regex> = LazyLock::new(|| regex(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"));
/// Each server has its own certificates of the users.
static CERTIFICATE: LazyLock<Regex> = LazyLock::new(|| regex(r"X509SHA256=[0-9a-f]{64}"));
static PRINTED: LazyLock<Regex> = LazyLock::new(|| regex("Invalid value: [\\[{\"]"));
static KEY_ID: LazyLock<Regex> = LazyLock::new(|| regex(r"^[\w-]{43}$"));
static TOKEN: LazyLock<Regex> = LazyLock::new(|| regex(r"\beyJ[\w-]+\.[\w-]+\.[\w-]+"));
static AGE: LazyLock<Regex> = LazyLock::new(|| regex(r"^\d+(s|m|m\d+s)$"));
static CURRENT: LazyLock<Regex> = LazyLock::new(|| regex(r"current: \d+"));
/// A number, but not one within a uid.
static NUMBER: LazyLock<Regex> = LazyLock::new(|| regex(&format!(r"{}|\b\d{{2,}}\b", UID.as_str())));
/// How far from now a time must be to be the case's own and not the server's.
const AROUND_NOW: SignedDuration = SignedDuration::from_hours(24 * 370);

/// One server's side of one case: the same value always gets the same placeholder.
pub struct Normal {
    address: String,
    now: Timestamp,
    uids: HashMap<String, String>,
    versions: HashMap<String, String>,
    names: HashMap<String, String>,
    /// What the case itself sends stays as it is.
    sent: String,
}

impl Normal {
    pub fn new(address: &str, now: Timestamp) -> Self {
        Self {
            address: address.to_owned(),
            now,
            uids: HashMap::new(),
            versions: HashMap::new(),
            names: HashMap::new(),
            sent: String::new(),
        }
    }

    /// What goes to the server from now on is the case's own.
    pub fn sends(&mut self, text: &str) {
        self.sent.push_str(text);
        self.sent.push('\n');
    }

    /// An answer, or a line of a watch.
    pub fn body(&mut self, mut value: Value) -> Value {
        self.learn(&value);
        Self::settle(&mut value);
        let kind = value["kind"].as_str().unwrap_or_default().to_owned();
        let is_bookmark = value["type"] == "BOOKMARK";
        if value.get("items").is_some() || kind == "Table" || kind.ends_with("List") {
            shared_version(&mut value["metadata"]);
        }
        if is_bookmark {
            shared_version(&mut value["object"]["metadata"]);
        }
        for table in [value.clone(), value["object"].clone()] {
            if table["kind"] == "Table" {
                let place = if kind == "Table" { &mut value } else { &mut value["object"] };
                shared_version(&mut place["metadata"]);
                ages(place);
            }
        }
        self.walk("", &mut value);
        value
    }

    /// Entries of managedFields have the order of their times, which are whole seconds: two writes of one case may or may
    /// not fall into the same one. Columns of built-in tables are described in prose.
    fn settle(value: &mut Value) {
        match value {
            Value::Array(items) => items.iter_mut().for_each(Self::settle),
            Value::Object(fields) => {
                if let Some(Value::Array(entries)) = fields.get_mut("managedFields") {
                    entries.sort_by_cached_key(|entry| {
                        ["operation", "manager", "subresource", "apiVersion"].map(|key| entry[key].to_string())
                    });
                }
                if fields.get("causes").is_some_and(Value::is_array) {
                    settle_causes(fields);
                }
                if let Some(Value::Array(columns)) = fields.get_mut("columnDefinitions") {
                    columns.iter_mut().for_each(|column| column["description"] = "<prose>".into());
                }
                fields.values_mut().for_each(Self::settle);
            }
            _ => {}
        }
    }

    /// Names that the server made up.
    fn learn(&mut self, value: &Value) {
        match value {
            Value::Array(items) => items.iter().for_each(|v| self.learn(v)),
            Value::Object(fields) => {
                if let (Some(Value::String(prefix)), Some(Value::String(name))) =
                    (fields.get("generateName"), fields.get("name"))
                    && name.len() >= 5
                    && name.len() <= prefix.len() + 5
                    && prefix.starts_with(&name[..name.len() - 5])
                {
                    let n = self.names.len() + 1;
                    let placeholder = format!("{}<made {n}>", &name[..name.len() - 5]);
                    self.names.entry(name.clone()).or_insert(placeholder);
                }
                fields.values().for_each(|v| self.learn(v));
            }
            _ => {}
        }
    }

    fn walk(&mut self, key: &str, value: &mut Value) {
        match value {
            Value::Array(items) => items.iter_mut().for_each(|v| self.walk(key, v)),
            Value::Object(fields) => fields.iter_mut().for_each(|(key, v)| self.walk(key, v)),
            Value::String(text) => *text = self.field(key, text),
            _ => {}
        }
    }

    fn field(&mut self, key: &str, text: &str) -> String {
        match key {
            "resourceVersion" if !matches!(text, "" | "0") && !text.starts_with('<') => {
                let n = self.versions.len() + 1;
                self.versions.entry(text.to_owned()).or_insert_with(|| format!("<version {n}>")).clone()
            }
            "kid" if KEY_ID.is_match(text) => "<key>".to_owned(),
            "continue" if !text.is_empty() => "<continue>".to_owned(),
            "message" => {
                let text = self.text(&sorted_values(text));
                let versions = &self.versions;
                NUMBER.replace_all(&text, |c: &Captures<'_>| versions.get(&c[0]).map_or(&c[0], |v| v).to_owned()).into()
            }
            _ => self.text(text),
        }
    }

    /// A text, wherever it stands.
    pub fn text(&mut self, text: &str) -> String {
        let mut text = text.replace(&self.address, "<address>");
        for (name, placeholder) in &self.names {
            if text.contains(name.as_str()) {
                text = text.replace(name.as_str(), placeholder);
            }
        }
        let (uids, sent) = (&mut self.uids, &self.sent);
        let text = UID.replace_all(&text, |c: &Captures<'_>| {
            if sent.contains(&c[0]) && !uids.contains_key(&c[0]) {
                return c[0].to_owned();
            }
            let n = uids.len() + 1;
            uids.entry(c[0].to_owned()).or_insert_with(|| format!("<uid {n}>")).clone()
        });
        let now = self.now;
        let text = TIME.replace_all(&text, |c: &Captures<'_>| {
            let time: Option<Timestamp> = c[0].parse().ok();
            if time.is_none_or(|time| time.duration_since(now).abs() > AROUND_NOW) {
                return c[0].to_owned();
            }
            // The number of digits is part of the form.
            format!("<time{}>", c.get(1).map_or("", |digits| if digits.len() == 7 { ", 6 digits" } else { ", digits" }))
        });
        let text = CERTIFICATE.replace_all(&text, "X509SHA256=<digest>");
        let text = TOKEN.replace_all(&text, "<token>");
        CURRENT.replace_all(&text, "current: <version>").into_owned()
    }
}

/// Go walks maps in no order, and looks at some things twice.
fn settle_causes(details: &mut Map<String, Value>) {
    if let Some(Value::Array(causes)) = details.get_mut("causes") {
        causes.sort_by_cached_key(Value::to_string);
        causes.dedup();
    }
}

/// The same for the message that lists them: its parts in the order of their letters.
fn sorted_message(text: &str) -> String {
    match text.split_once(" is invalid: [") {
        Some((head, tail)) if tail.ends_with(']') => {
            let mut parts: Vec<&str> = tail.trim_end_matches(']').split(", ").collect();
            parts.sort_unstable();
            parts.dedup();
            format!("{head} is invalid: [{}]", parts.join(", "))
        }
        _ => text.to_owned(),
    }
}

/// Values that a message shows as JSON, with their fields in the order of their names: Go has them in that of its types.
fn sorted_values(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(found) = PRINTED.find(rest) {
        let start = found.end() - 1;
        out.push_str(&rest[..start]);
        let mut values = serde_json::Deserializer::from_str(&rest[start..]).into_iter::<Value>();
        match values.next() {
            Some(Ok(Value::String(inner))) if inner.starts_with('{') => {
                let sorted = serde_json::from_str::<Value>(&inner).map_or(inner, |value| value.to_string());
                out.push_str(&Value::String(sorted).to_string());
            }
            Some(Ok(value)) => out.push_str(&value.to_string()),
            _ => {
                out.push_str(&rest[start..=start]);
                rest = &rest[start + 1..];
                continue;
            }
        }
        rest = &rest[start + values.byte_offset()..];
    }
    out.push_str(rest);
    sorted_message(&out)
}

/// The version of a whole list: what other cases write moves it.
fn shared_version(metadata: &mut Value) {
    if let Some(Value::String(version)) = metadata.get_mut("resourceVersion")
        && !matches!(version.as_str(), "" | "0")
    {
        "<list version>".clone_into(version);
    }
}

fn ages(table: &mut Value) {
    for row in table["rows"].as_array_mut().into_iter().flatten() {
        for cell in row["cells"].as_array_mut().into_iter().flatten() {
            if cell.as_str().is_some_and(|text| AGE.is_match(text)) {
                *cell = "<age>".into();
            }
        }
    }
}

/// Events of a watch in the order of their objects' names; those of one object stay in theirs.
pub fn sort_events(events: &mut [Value]) {
    let name = |event: &Value| -> Map<String, Value> {
        let metadata = &event["object"]["metadata"];
        let mut key = Map::new();
        key.insert("bookmark".to_owned(), (event["type"] == "BOOKMARK").into());
        key.insert("namespace".to_owned(), metadata["namespace"].clone());
        key.insert("name".to_owned(), metadata["name"].clone());
        key
    };
    events.sort_by_cached_key(|event| Value::Object(name(event)).to_string());
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn normal() -> Normal {
        Normal::new("127.0.0.1:1", "2026-01-01T00:00:00Z".parse().unwrap())
    }

    #[test]
    fn the_same_value_gets_the_same_placeholder() {
        let mut normal = normal();
        let uid = "01234567-89ab-cdef-0123-456789abcdef";
        let one = json!({"metadata": {"uid": uid, "resourceVersion": "41", "generateName": "a-", "name": "a-x7b2c"}});
        let two = json!({"message": format!("{uid} a-x7b2c 41"), "metadata": {"resourceVersion": "42"}});
        assert_eq!(
            normal.body(one),
            json!({"metadata": {"uid": "<uid 1>", "resourceVersion": "<version 1>", "generateName": "a-",
                "name": "a-<made 1>"}})
        );
        let message = "<uid 1> a-<made 1> <version 1>";
        assert_eq!(normal.body(two), json!({"message": message, "metadata": {"resourceVersion": "<version 2>"}}));
    }

    #[test]
    fn a_version_within_a_uid_is_none() {
        let mut normal = normal();
        let uid = "11111111-2222-3333-4444-555555555555";
        normal.sends(uid);
        normal.body(json!({"metadata": {"resourceVersion": "3333"}}));
        let told = normal.body(json!({"message": format!("uid {uid} at 3333")}));
        assert_eq!(told, json!({"message": format!("uid {uid} at <version 1>")}));
    }

    #[test]
    fn what_the_case_says_itself_is_compared() {
        let mut normal = normal();
        let uid = "01234567-89ab-cdef-0123-456789abcdef";
        normal.sends(uid);
        assert_eq!(normal.text(&format!("{uid} 2001-01-01T00:00:00Z")), format!("{uid} 2001-01-01T00:00:00Z"));
        assert_eq!(normal.text("2026-01-01T00:00:00.123456Z"), "<time, 6 digits>");
    }
}
