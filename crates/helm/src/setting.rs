//! `--set` and its kin: `a.b[0]=x,c={d,e}` put into values.

use serde_json::Value as Json;

use crate::{
    error::{Error, Result},
    template::text::{quoted, quoted_char},
    values::Table,
};

/// An index of a list may be so large, and keys may lie so deep in one another: Helm's own limits.
pub const INDEX_MAX: usize = 65_536;
pub const DEEP_MAX: usize = 30;
/// A setting may be so long, in bytes.
pub const SETTING_BYTES_MAX: usize = 1024 * 1024;

/// What stands behind a `=`.
pub enum Kind<'f> {
    /// `--set`: truths, whole numbers and null are what they look like.
    Typed,
    /// `--set-string`
    Text,
    /// `--set-json`
    Json,
    /// `--set-literal`: all of the rest, as it is.
    Literal,
    /// `--set-file`: what a file of that name holds.
    File(&'f dyn Fn(&str) -> Result<String, String>),
}

/// Puts a setting into values.
///
/// # Errors
/// What is wrong with it, as Helm says it.
pub fn set(values: &mut Table, setting: &str, kind: &Kind<'_>) -> Result<()> {
    if setting.len() > SETTING_BYTES_MAX {
        return Err(Error::Limit(format!("a setting has more than {SETTING_BYTES_MAX} bytes")));
    }
    let mut reader = Reader { rest: setting, kind };
    loop {
        match reader.key(values, 0) {
            Ok(()) => {}
            Err(Stop::End) => return Ok(()),
            Err(Stop::Wrong(what)) => return Err(Error::Values(what)),
        }
    }
}

enum Stop {
    /// The setting is over.
    End,
    Wrong(String),
}

fn wrong<T>(what: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::Wrong(what.into()))
}

fn converted<T>(value: &Json, to: &str) -> Result<T, Stop> {
    let from = match value {
        Json::Null => "nil",
        Json::Bool(_) => "bool",
        Json::Number(number) if number.is_f64() => "float64",
        Json::Number(_) => "int64",
        Json::String(_) => "string",
        Json::Array(_) => "[]interface {}",
        Json::Object(_) => "map[string]interface {}",
    };
    wrong(format!("unable to parse key: interface conversion: interface {{}} is {from}, not {to}"))
}

/// A key that is empty is not set.
fn put(table: &mut Table, key: &str, value: Json) {
    if !key.is_empty() {
        table.insert(key.to_owned(), value);
    }
}

fn put_at(list: &mut Vec<Json>, index: usize, value: Json) -> Result<(), Stop> {
    if index > INDEX_MAX {
        return wrong(format!("index of {index} is greater than maximum supported index of {INDEX_MAX}"));
    }
    if list.len() <= index {
        list.resize(index + 1, Json::Null);
    }
    list[index] = value;
    Ok(())
}

struct Reader<'t, 'k> {
    rest: &'t str,
    kind: &'k Kind<'k>,
}

impl Reader<'_, '_> {
    fn next(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(c)
    }

    /// The text before the next of `stops`, and which that is. A backslash makes what follows it plain, but in literals.
    fn until(&mut self, stops: &str) -> (String, Option<char>) {
        let escapes = !matches!(self.kind, Kind::Literal);
        let mut text = String::new();
        while let Some(c) = self.next() {
            if stops.contains(c) {
                return (text, Some(c));
            }
            if c != '\\' || !escapes {
                text.push(c);
                continue;
            }
            match self.next() {
                Some(c) => text.push(c),
                None => break,
            }
        }
        (text, None)
    }

    fn key(&mut self, table: &mut Table, level: usize) -> Result<(), Stop> {
        let stops = if matches!(self.kind, Kind::Literal) { "=[." } else { "=[,." };
        let (key, stop) = self.until(stops);
        match stop {
            None if key.is_empty() => Err(Stop::End),
            None => wrong(format!("key {} has no value", quoted(&key))),
            Some('[') => {
                let index = self.index()?;
                let mut list = match table.get(&key) {
                    None => Vec::new(),
                    Some(Json::Array(list)) => list.clone(),
                    Some(other) => return converted(other, "[]interface {}"),
                };
                let done = self.item(&mut list, index, level);
                put(table, &key, Json::Array(list));
                done
            }
            Some('=') => self.assign(|value| {
                put(table, &key, value);
                Ok(())
            }),
            Some('.') => {
                if level >= DEEP_MAX {
                    return wrong(format!(
                        "value name nested level is greater than maximum supported nested level of {DEEP_MAX}"
                    ));
                }
                let mut inner = match table.get(&key) {
                    None => Table::new(),
                    Some(Json::Object(inner)) => inner.clone(),
                    Some(other) => return converted(other, "map[string]interface {}"),
                };
                let done = self.key(&mut inner, level + 1);
                if inner.is_empty() && done.is_ok() {
                    return wrong(format!("key map {} has no value", quoted(&key)));
                }
                if !inner.is_empty() {
                    put(table, &key, Json::Object(inner));
                }
                done
            }
            Some(_) => {
                put(table, &key, Json::String(String::new()));
                wrong(format!("key {} has no value (cannot end with ,)", quoted(&key)))
            }
        }
    }

    fn index(&mut self) -> Result<usize, Stop> {
        let (text, stop) = self.until("]");
        if stop.is_none() {
            return wrong("error parsing index: EOF");
        }
        match text.parse::<i64>() {
            Ok(index) => usize::try_from(index).or_else(|_| wrong(format!("negative {index} index not allowed"))),
            Err(_) => wrong(format!("error parsing index: strconv.Atoi: parsing {}: invalid syntax", quoted(&text))),
        }
    }

    /// What follows `[index]`.
    fn item(&mut self, list: &mut Vec<Json>, index: usize, level: usize) -> Result<(), Stop> {
        let (text, stop) = self.until("[.=");
        if !text.is_empty() {
            let letters: Vec<String> = text.chars().map(quoted_char).collect();
            return wrong(format!("unexpected data at end of array index: [{}]", letters.join(" ")));
        }
        let known = list.get(index).cloned();
        match stop {
            None => Err(Stop::End),
            Some('=') => self.assign(|value| put_at(list, index, value)).or_else(|stop| match stop {
                // A list takes nothing for an empty text.
                Stop::End => Ok(()),
                wrong => Err(wrong),
            }),
            Some('[') => {
                let next = self.index()?;
                let mut inner = match known {
                    None | Some(Json::Null) => Vec::new(),
                    Some(Json::Array(inner)) => inner,
                    Some(other) => return converted(&other, "[]interface {}"),
                };
                self.item(&mut inner, next, level)?;
                put_at(list, index, Json::Array(inner))
            }
            Some(_) => {
                let was_there = known.is_some();
                let mut inner = match known {
                    Some(Json::Object(inner)) => inner,
                    _ => Table::new(),
                };
                let done = self.key(&mut inner, level);
                if done.is_ok() || was_there {
                    put_at(list, index, Json::Object(inner))?;
                }
                done
            }
        }
    }

    /// Reads a value and gives it to `put`; the end, where there was nothing to read.
    fn assign(&mut self, mut put: impl FnMut(Json) -> Result<(), Stop>) -> Result<(), Stop> {
        match self.kind {
            Kind::Literal => {
                let text = std::mem::take(&mut self.rest);
                put(Json::String(text.to_owned()))
            }
            Kind::Json => {
                if self.is_over() {
                    return put(Json::Null);
                }
                let mut values = serde_json::Deserializer::from_str(self.rest).into_iter::<Json>();
                let value = match values.next() {
                    Some(Ok(value)) => floated(value),
                    Some(Err(error)) => return wrong(error.to_string()),
                    None => return wrong("unexpected end of JSON input"),
                };
                self.rest = &self.rest[values.byte_offset()..];
                put(value)?;
                self.is_over();
                Ok(())
            }
            _ if self.rest.is_empty() => {
                put(Json::String(String::new()))?;
                Err(Stop::End)
            }
            _ => {
                let Some(inner) = self.rest.strip_prefix('{') else {
                    let (text, _) = self.until(",");
                    let value = self.read(&text)?;
                    return put(value);
                };
                self.rest = inner;
                let list = self.list()?;
                put(Json::Array(list))
            }
        }
    }

    /// Whether nothing follows but blanks and a comma, which are taken.
    fn is_over(&mut self) -> bool {
        self.rest = self.rest.trim_start();
        match self.rest.strip_prefix(',') {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => self.rest.is_empty(),
        }
    }

    fn list(&mut self) -> Result<Vec<Json>, Stop> {
        let mut list = Vec::new();
        loop {
            let (text, stop) = self.until(",}");
            match stop {
                None => return wrong("list must terminate with '}'"),
                Some('}') => {
                    self.rest = self.rest.strip_prefix(',').unwrap_or(self.rest);
                    list.push(self.read(&text)?);
                    return Ok(list);
                }
                Some(_) => list.push(self.read(&text)?),
            }
        }
    }

    fn read(&self, text: &str) -> Result<Json, Stop> {
        match self.kind {
            Kind::Typed => Ok(typed(text)),
            Kind::File(file) => file(text).map(Json::String).map_err(Stop::Wrong),
            _ => Ok(Json::String(text.to_owned())),
        }
    }
}

fn typed(text: &str) -> Json {
    let number = || if text.starts_with('0') && text != "0" { None } else { text.parse::<i64>().ok() };
    match text.to_ascii_lowercase().as_str() {
        "true" => Json::Bool(true),
        "false" => Json::Bool(false),
        "null" => Json::Null,
        _ => number().map_or_else(|| Json::String(text.to_owned()), Json::from),
    }
}

/// With all numbers as floats, as Go reads JSON.
pub fn floated(value: Json) -> Json {
    match value {
        Json::Number(number) => number.as_f64().and_then(serde_json::Number::from_f64).map_or(Json::Null, Json::Number),
        Json::Array(items) => items.into_iter().map(floated).collect(),
        Json::Object(entries) => entries.into_iter().map(|(key, value)| (key, floated(value))).collect(),
        other => other,
    }
}
