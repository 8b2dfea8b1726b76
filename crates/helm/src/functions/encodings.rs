//! Texts that stand for others: base64, base32, JSON, TOML, YAML.

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::{
    data::{
        json::{self, Style},
        toml, yaml,
    },
    template::{
        error::{Class, Error, Result},
        function::Function,
        value::{Entries, Value},
    },
};

const COMPACT: Style = Style { for_html: true, pretty: false };
const PRETTY: Style = Style { for_html: true, pretty: true };
const RAW: Style = Style { for_html: false, pretty: false };

pub const FUNCTIONS: &[Function] = &[
    Function { name: "b32dec", takes: "s", run: |_, args| base32_decoded(args.text(0)) },
    Function { name: "b32enc", takes: "s", run: |_, args| Ok(base32_encoded(args.text(0).as_bytes()).into()) },
    Function { name: "b64dec", takes: "s", run: |_, args| base64_decoded(args.text(0)) },
    Function { name: "b64enc", takes: "s", run: |_, args| Ok(STANDARD.encode(args.text(0)).into()) },
    Function {
        name: "fromJson",
        takes: "s",
        run: |_, args| {
            Ok(map_or_error(json::read(args.text(0)).and_then(|value| table(value, "json: cannot unmarshal"))))
        },
    },
    Function {
        name: "fromJsonArray",
        takes: "s",
        run: |_, args| Ok(list_or_error(json::read(args.text(0)).and_then(array))),
    },
    Function { name: "fromToml", takes: "s", run: |_, args| Ok(map_or_error(toml::read(args.text(0)))) },
    Function { name: "fromYaml", takes: "s", run: |_, args| Ok(map_or_error(yaml::read_map(args.text(0)))) },
    Function { name: "fromYamlArray", takes: "s", run: |_, args| Ok(list_or_error(yaml::read_list(args.text(0)))) },
    Function { name: "mustFromJson", takes: "s", run: |_, args| json::read(args.text(0)) },
    Function { name: "mustToJson", takes: "a", run: |_, args| Ok(json::text(args.at(0), COMPACT)?.into()) },
    Function { name: "mustToPrettyJson", takes: "a", run: |_, args| Ok(json::text(args.at(0), PRETTY)?.into()) },
    Function { name: "mustToRawJson", takes: "a", run: |_, args| Ok(json::text(args.at(0), RAW)?.into()) },
    Function { name: "toJson", takes: "a", run: |_, args| or_empty(json::text(args.at(0), COMPACT)) },
    Function { name: "toPrettyJson", takes: "a", run: |_, args| or_empty(json::text(args.at(0), PRETTY)) },
    Function { name: "toRawJson", takes: "a", run: |_, args| Ok(json::text(args.at(0), RAW)?.into()) },
    Function { name: "toToml", takes: "a", run: |_, args| or_told(toml::text(args.at(0))) },
    Function { name: "toYaml", takes: "a", run: |_, args| or_empty(yaml::text(args.at(0)).map(without_line_feed)) },
    Function {
        name: "toYamlPretty",
        takes: "a",
        run: |_, args| or_empty(yaml::pretty_text(args.at(0)).map(without_line_feed)),
    },
];

fn without_line_feed(mut text: String) -> String {
    if text.ends_with('\n') {
        text.pop();
    }
    text
}

/// What cannot be written is nothing; limits stay limits.
fn or_empty(text: Result<String>) -> Result<Value> {
    match text {
        Ok(text) => Ok(text.into()),
        Err(error) if error.class() == Class::Limit => Err(error),
        Err(_) => Ok(Value::text("")),
    }
}

/// What cannot be written is told in its place; limits and failures stay what they are.
fn or_told(text: Result<String>) -> Result<Value> {
    match text {
        Err(error) if error.class() != Class::Limit && error.text() != toml::NO_VALUE => Ok(Value::text(error.text())),
        text => Ok(text?.into()),
    }
}

fn table(value: Value, what: &str) -> Result<Entries> {
    match value {
        Value::Map(map) => Ok(map.entries.take()),
        Value::Nil | Value::None => Ok(Entries::new()),
        other => {
            let kind = yaml::json_kind(&other);
            Error::call(format!("{what} {kind} into Go value of type map[string]interface {{}}"))
        }
    }
}

fn array(value: Value) -> Result<Option<Value>> {
    match value {
        Value::List(_) => Ok(Some(value)),
        Value::Nil | Value::None => Ok(None),
        other => {
            let kind = yaml::json_kind(&other);
            Error::call(format!("json: cannot unmarshal {kind} into Go value of type []interface {{}}"))
        }
    }
}

/// Helm tells errors in the map.
fn map_or_error(entries: Result<Entries>) -> Value {
    Value::map(entries.unwrap_or_else(|error| Entries::from([("Error".into(), Value::text(error.text()))])))
}

fn list_or_error(list: Result<Option<Value>>) -> Value {
    match list {
        Ok(Some(list)) => list,
        Ok(None) => Value::absent_list(&crate::template::value::ANY_LIST),
        Err(error) => Value::list(vec![Value::text(error.text())]),
    }
}

pub fn decoded(bytes: Vec<u8>) -> Result<Value> {
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text.into()),
        Err(_) => Error::call("what it decodes to is not UTF-8, and templates hold no other text here"),
    }
}

/// An error is told in the text, as sprig does. Line breaks are skipped.
fn base64_decoded(text: &str) -> Result<Value> {
    base64_bytes(text).map_or_else(|what| Ok(what.into()), decoded)
}

pub fn base64_bytes(text: &str) -> Result<Vec<u8>, String> {
    let joined: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    STANDARD.decode(&joined).map_err(|_| format!("illegal base64 data at input byte {}", wrong_byte(&joined)))
}

/// Where Go sees that a text is no base64.
fn wrong_byte(text: &str) -> usize {
    let is_known = |b: u8| b.is_ascii_alphanumeric() || b == b'+' || b == b'/';
    let bytes = text.as_bytes();
    match bytes.iter().position(|b| !is_known(*b)) {
        Some(at) if bytes[at] != b'=' => at,
        Some(at) if at % 4 < 2 => at,
        Some(at) if at % 4 == 2 && bytes.get(at + 1).is_some_and(|b| *b != b'=') => at + 1,
        Some(at) if at % 4 == 2 && bytes.len() == at + 1 => bytes.len(),
        Some(at) => at + if at % 4 == 2 { 2 } else { 1 },
        None => bytes.len() - bytes.len() % 4,
    }
}

const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

fn base32_encoded(bytes: &[u8]) -> String {
    let mut out = String::new();
    for chunk in bytes.chunks(5) {
        let mut group = [0_u8; 8];
        group[3..3 + chunk.len()].copy_from_slice(chunk);
        let number = u64::from_be_bytes(group);
        let used = (chunk.len() * 8).div_ceil(5);
        for index in 0..8 {
            let digit = usize::try_from(number >> (35 - 5 * index) & 31).unwrap_or(0);
            out.push(if index < used { char::from(BASE32[digit]) } else { '=' });
        }
    }
    out
}

fn base32_decoded(text: &str) -> Result<Value> {
    let joined: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    let digits = joined.trim_end_matches('=');
    let wrong = |at: usize| Ok(format!("illegal base32 data at input byte {at}").into());
    if !joined.len().is_multiple_of(8) || joined.len() - digits.len() > 6 {
        return wrong(digits.len());
    }
    let (mut bytes, mut held, mut bits) = (Vec::new(), 0_u32, 0);
    for (at, byte) in digits.bytes().enumerate() {
        let Some(digit) = BASE32.iter().position(|known| *known == byte) else { return wrong(at) };
        held = held << 5 | u32::try_from(digit).unwrap_or(0);
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from(held >> bits & 0xff).unwrap_or(0));
        }
    }
    decoded(bytes)
}
