//! YAML 1.1 as go-yaml v2 reads it, by way of JSON as `sigs.k8s.io/yaml` does: all numbers become floats, all keys text.

use std::{collections::HashMap, sync::Arc};

use granit_parser::{Event, Parser, ScalarStyle};

pub use super::yaml_text::{pretty_text, text};
use super::{DEEP_MAX, NODES_MAX, copied};
use crate::template::{
    error::{Class, Error, Result},
    text::{float, float_text, whole},
    value::{Entries, Value},
};

/// The first document of a text; nil if there is none.
///
/// # Errors
/// What is wrong with the text, or that it is beyond a limit.
pub fn read(text: &str) -> Result<Value> {
    let mut reader = Reader { events: Parser::new_from_str(text), anchors: HashMap::new(), nodes: 0 };
    loop {
        match reader.next()? {
            Event::StreamEnd => return Ok(Value::Nil),
            Event::DocumentStart(..) => {
                let first = reader.next()?;
                return reader.node(first, 0);
            }
            _ => {}
        }
    }
}

/// Read as a map, with the words of `sigs.k8s.io/yaml` for what is not one.
///
/// # Errors
/// What is wrong with the text.
pub fn read_map(text: &str) -> Result<Entries> {
    const WHAT: &str = "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal";
    match read_told(text)? {
        Value::Map(map) => Ok(map.entries.take()),
        Value::Nil | Value::None => Ok(Entries::new()),
        other => Error::call(format!("{WHAT} {} into Go value of type map[string]interface {{}}", json_kind(&other))),
    }
}

/// The same for a list; nothing for null.
///
/// # Errors
/// What is wrong with the text.
pub fn read_list(text: &str) -> Result<Option<Value>> {
    const WHAT: &str = "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal";
    match read_told(text)? {
        list @ Value::List(_) => Ok(Some(list)),
        Value::Nil | Value::None => Ok(None),
        other => Error::call(format!("{WHAT} {} into Go value of type []interface {{}}", json_kind(&other))),
    }
}

fn read_told(text: &str) -> Result<Value> {
    read(text).map_err(|error| error.of(|what| format!("error converting YAML to JSON: {what}")))
}

pub(crate) fn json_kind(value: &Value) -> &'static str {
    match value {
        Value::Str(_) => "string",
        Value::Bool(_) => "bool",
        Value::Map(_) => "object",
        Value::List(_) => "array",
        _ => "number",
    }
}

struct Reader<'t> {
    events: Parser<'t, granit_parser::StrInput<'t>>,
    anchors: HashMap<usize, Value>,
    nodes: usize,
}

impl<'t> Reader<'t> {
    fn next(&mut self) -> Result<Event<'t>> {
        match self.events.next_event() {
            Some(Ok((Event::Comment(..), _))) => self.next(),
            Some(Ok((event, _))) => Ok(event),
            Some(Err(error)) => {
                Err(Error::new(Class::Call, format!("yaml: line {}: {}", error.marker().line(), error.info())))
            }
            None => Ok(Event::StreamEnd),
        }
    }

    fn count(&mut self, nodes: usize) -> Result<()> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > NODES_MAX {
            return Error::limit(format!("yaml: more than {NODES_MAX} nodes"));
        }
        Ok(())
    }

    fn node(&mut self, event: Event<'t>, depth: usize) -> Result<Value> {
        if depth >= DEEP_MAX + usize::from(!matches!(event, Event::SequenceStart(..) | Event::MappingStart(..))) {
            return Error::limit(format!("yaml: more than {DEEP_MAX} levels deep"));
        }
        self.count(1)?;
        let (value, anchor) = match event {
            Event::Alias(anchor) => {
                let Some(value) = self.anchors.get(&anchor).cloned() else {
                    return Error::call("yaml: an anchor's value contains itself");
                };
                self.count(size(&value))?;
                return copied(&value);
            }
            Event::Scalar(text, style, anchor, tag) => {
                let tag = tag.as_ref().map(|tag| tag.core_suffix().unwrap_or(tag.suffix()).to_owned());
                (scalar(&text, style, tag.as_deref())?, anchor)
            }
            Event::SequenceStart(_, anchor, _) => (self.sequence(depth)?, anchor),
            Event::MappingStart(_, anchor, _) => (self.mapping(depth)?, anchor),
            _ => return Error::call("yaml: a value is missing"),
        };
        if anchor > 0 {
            self.anchors.insert(anchor, copied(&value)?);
        }
        Ok(value)
    }

    fn sequence(&mut self, depth: usize) -> Result<Value> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                Event::SequenceEnd => return Ok(Value::list(items)),
                event => items.push(self.node(event, depth + 1)?),
            }
        }
    }

    fn mapping(&mut self, depth: usize) -> Result<Value> {
        let mut entries = Entries::new();
        loop {
            let event = match self.next()? {
                Event::MappingEnd => return Ok(Value::map(entries)),
                event => event,
            };
            let merges = matches!(&event, Event::Scalar(text, ScalarStyle::Plain, ..) if text == "<<");
            let key = self.node(event, depth + 1)?;
            let event = self.next()?;
            let value = self.node(event, depth + 1)?;
            if merges {
                merge(&mut entries, &value)?;
            } else {
                entries.insert(key_text(&key)?, value);
            }
        }
    }
}

/// What `<<` brings takes the place of what was there before it, and gives way to what comes after.
fn merge(entries: &mut Entries, value: &Value) -> Result<()> {
    const WHAT: &str = "yaml: map merge requires map or sequence of maps as the value";
    let mut take = |value: &Value| match value {
        Value::Map(map) => {
            entries.extend(map.entries.borrow().iter().map(|(key, value)| (key.clone(), value.clone())));
            Ok(())
        }
        _ => Error::call(WHAT),
    };
    match value {
        Value::List(list) => list.items.iter().rev().try_for_each(take),
        value => take(value),
    }
}

fn key_text(key: &Value) -> Result<Arc<str>> {
    match key {
        Value::Str(text) => Ok(text.clone()),
        Value::Bool(truth) => Ok(truth.to_string().into()),
        Value::Float(number) if number.fract() == 0.0 && number.abs() < 1e18 => Ok(format!("{number}").into()),
        #[expect(clippy::cast_possible_truncation, reason = "keys are written with single precision")]
        Value::Float(number) => Ok(float_text(f64::from(*number as f32), 'g', None).into()),
        Value::Nil | Value::None => Error::call("unsupported map key of type: %!s(<nil>)"),
        _ => Error::call("yaml: invalid map key"),
    }
}

fn size(value: &Value) -> usize {
    match value {
        Value::List(list) => 1 + list.items.iter().map(size).sum::<usize>(),
        Value::Map(map) => 1 + map.entries.borrow().values().map(size).sum::<usize>(),
        _ => 1,
    }
}

/// What a plain scalar stands for.
pub(super) enum Resolved {
    Null,
    Bool(bool),
    /// An integer that fits 64 bits, signed or not.
    Whole(i128),
    Float(f64),
    Timestamp,
    Text,
}

pub(super) fn resolved(text: &str) -> Resolved {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Resolved::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return Resolved::Bool(true);
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Resolved::Bool(false);
        }
        ".nan" | ".NaN" | ".NAN" => return Resolved::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Resolved::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Resolved::Float(f64::NEG_INFINITY),
        _ => {}
    }
    match text.as_bytes().first() {
        Some(b'.') => float(text).map_or(Resolved::Text, Resolved::Float),
        Some(b'0'..=b'9' | b'+' | b'-') => {
            if is_timestamp(text) {
                return Resolved::Timestamp;
            }
            let plain = text.replace('_', "");
            let fits = |number: &i128| (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(number);
            if let Some(number) =
                whole(&plain).filter(fits).filter(|number| *number <= i64::MAX.into() || !plain.starts_with('+'))
            {
                return Resolved::Whole(number);
            }
            if is_decimal(&plain) {
                return float(&plain).map_or(Resolved::Text, Resolved::Float);
            }
            Resolved::Text
        }
        _ => Resolved::Text,
    }
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`
fn is_decimal(text: &str) -> bool {
    fn digits(text: &str) -> (usize, &str) {
        let rest = text.trim_start_matches(|c: char| c.is_ascii_digit());
        (text.len() - rest.len(), rest)
    }
    let (before, rest) = digits(text.strip_prefix(['-', '+']).unwrap_or(text));
    let (after, rest) = match rest.strip_prefix('.') {
        Some(rest) => digits(rest),
        None => (0, rest),
    };
    if before == 0 && after == 0 {
        return false;
    }
    match rest.strip_prefix(['e', 'E']) {
        Some(rest) => {
            let (exponent, rest) = digits(rest.strip_prefix(['-', '+']).unwrap_or(rest));
            exponent > 0 && rest.is_empty()
        }
        None => rest.is_empty(),
    }
}

/// A date, or a date and a time, in one of the forms that go-yaml knows.
fn is_timestamp(text: &str) -> bool {
    let number = |text: &str, most: u32| {
        (1..=2).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_digit())
            && text.parse().is_ok_and(|n: u32| n <= most)
    };
    let (date, time) = match text.find(['T', 't', ' ']) {
        Some(at) => (&text[..at], Some((&text[at..=at], &text[at + 1..]))),
        None => (text, None),
    };
    let mut parts = date.split('-');
    let year = parts.next().is_some_and(|year| year.len() == 4 && year.bytes().all(|b| b.is_ascii_digit()));
    let month = parts.next().is_some_and(|month| number(month, 12) && month != "0" && month != "00");
    let day = parts.next().is_some_and(|day| number(day, 31) && day != "0" && day != "00");
    if !(year && month && day && parts.next().is_none()) {
        return false;
    }
    let Some((mark, time)) = time else { return true };
    let (time, zoned) = match time.find(['Z', '+', '-']) {
        Some(at) => {
            let zone = &time[at..];
            let offset =
                zone.len() == 6 && zone.as_bytes()[3] == b':' && number(&zone[1..3], 24) && number(&zone[4..], 59);
            (&time[..at], Some(zone == "Z" || offset))
        }
        None => (time, None),
    };
    if (mark == " ") == zoned.is_some() || zoned == Some(false) {
        return false;
    }
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let mut parts = time.split(':');
    let clock = [23, 59, 59].iter().all(|most| parts.next().is_some_and(|part| number(part, *most)));
    clock && parts.next().is_none() && !fraction.is_empty() && fraction.bytes().all(|b| b.is_ascii_digit())
}

#[expect(clippy::cast_precision_loss, reason = "as Go reads numbers")]
fn scalar(text: &str, style: ScalarStyle, tag: Option<&str>) -> Result<Value> {
    let decoded = |kind: &str, tag: &str| Error::call(format!("yaml: cannot decode !!{kind} `{text}` as a !!{tag}"));
    if style != ScalarStyle::Plain && tag.is_none() {
        return Ok(Value::text(text));
    }
    match (tag, resolved(text)) {
        (Some("str"), _) => Ok(Value::text(text)),
        (Some("binary"), _) => {
            use base64::Engine;
            let joined: String = text.split_whitespace().collect();
            match base64::engine::general_purpose::STANDARD.decode(joined) {
                Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned().into()),
                Err(_) => Error::call("yaml: !!binary value contains invalid base64 data"),
            }
        }
        (None | Some("null"), Resolved::Null) => Ok(Value::Nil),
        (None | Some("bool"), Resolved::Bool(truth)) => Ok(Value::Bool(truth)),
        (None | Some("int" | "float"), Resolved::Whole(number)) => Ok(Value::Float(number as f64)),
        (None | Some("float"), Resolved::Float(number)) if number.is_finite() => Ok(Value::Float(number)),
        (None | Some("float"), Resolved::Float(number)) => {
            Error::call(format!("json: unsupported value: {}", float_text(number, 'g', None)))
        }
        (None, _) | (Some("timestamp"), Resolved::Timestamp) => Ok(Value::text(text)),
        (Some(tag @ ("null" | "bool" | "int" | "float" | "timestamp")), resolved) => match resolved {
            Resolved::Null => decoded("null", tag),
            Resolved::Bool(_) => decoded("bool", tag),
            Resolved::Whole(_) => decoded("int", tag),
            Resolved::Float(_) => decoded("float", tag),
            Resolved::Timestamp => decoded("timestamp", tag),
            Resolved::Text => decoded("str", tag),
        },
        (Some(_), _) => Ok(Value::text(text)),
    }
}
