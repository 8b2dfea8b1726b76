//! TOML as `BurntSushi/toml` writes it, and read by the crate `toml`. Why that crate does not write: docs/decisions/charts.md.

use std::sync::Arc;

use ::toml::{
    Table, Value as Toml,
    value::{Datetime, Offset},
};
use jiff::civil;

use super::deeper;
use crate::{
    functions::time::Time,
    template::{
        error::{Error, Result},
        text::float_text,
        value::{Entries, MAP_LIST, TEXT_MAP, Value},
    },
};

/// A text that is read may be so long, in bytes.
pub const TEXT_BYTES_MAX: usize = 1_000_000;

/// What a text holds. How deep it may be is the crate's limit: 80 in a list, in a key, or in the name of a table.
///
/// # Errors
/// What is wrong with it, or that it is beyond a limit.
pub fn read(text: &str) -> Result<Entries> {
    if text.len() > TEXT_BYTES_MAX {
        return Error::limit(format!("toml: more than {TEXT_BYTES_MAX} bytes"));
    }
    match text.parse::<Table>() {
        Ok(table) => Ok(entries(table)),
        Err(error) => Error::call(format!("toml: {}", error.message())),
    }
}

fn entries(table: Table) -> Entries {
    table.into_iter().map(|(key, value)| (Arc::from(key), value_of(value))).collect()
}

fn value_of(value: Toml) -> Value {
    match value {
        Toml::String(text) => text.into(),
        Toml::Integer(number) => Value::Int64(number),
        Toml::Float(number) => Value::Float(number),
        Toml::Boolean(truth) => truth.into(),
        Toml::Datetime(time) => time_of(time).map_or(Value::Nil, Value::from),
        Toml::Array(items) => {
            // What `[[name]]` makes is a list of tables to Go, and a list of anything else is one of anything.
            let tables = !items.is_empty() && items.iter().all(Toml::is_table);
            let items = items.into_iter().map(value_of).collect();
            if tables { Value::typed_list(&MAP_LIST, items) } else { Value::list(items) }
        }
        Toml::Table(table) => Value::map(entries(table)),
    }
}

/// Dates and times without a zone have one that says so.
fn time_of(time: Datetime) -> Option<Time> {
    let date = match time.date {
        Some(date) => civil::Date::new(
            i16::try_from(date.year).ok()?,
            i8::try_from(date.month).ok()?,
            i8::try_from(date.day).ok()?,
        )
        .ok()?,
        None => civil::date(0, 1, 1),
    };
    let clock = match time.time {
        Some(time) => {
            let part = |part: u8| i8::try_from(part).ok();
            let nanoseconds = i32::try_from(time.nanosecond.unwrap_or(0)).ok()?;
            civil::Time::new(part(time.hour)?, part(time.minute)?, part(time.second.unwrap_or(0))?, nanoseconds).ok()?
        }
        None => civil::Time::midnight(),
    };
    let (offset_s, zone) = match (time.offset, time.date, time.time) {
        (Some(Offset::Z), ..) => (0, "UTC"),
        (Some(Offset::Custom { minutes: 0 }), ..) => (0, "UTC"),
        (Some(Offset::Custom { minutes }), ..) => (i32::from(minutes) * 60, ""),
        (None, Some(_), Some(_)) => (0, LOCAL[0].0),
        (None, Some(_), None) => (0, LOCAL[1].0),
        (None, None, _) => (0, LOCAL[2].0),
    };
    Time::told(date.to_datetime(clock), offset_s, zone.into())
}

/// The zones of what has none, and how it is written.
const LOCAL: [(&str, &str); 3] = [
    ("datetime-local", "2006-01-02T15:04:05.999999999"),
    ("date-local", "2006-01-02"),
    ("time-local", "15:04:05.999999999"),
];

/// What Go's runtime says of a document that is nothing.
pub const NO_VALUE: &str = "reflect: call of reflect.Value.Type on zero Value";

/// A value as a document.
///
/// # Errors
/// What it cannot be written for: a null in a list, a document that is a list of tables, too deep.
pub fn text(value: &Value) -> Result<String> {
    if value.is_nil() {
        return Error::call(NO_VALUE);
    }
    let mut writer = Writer { out: String::new(), keys: Vec::new() };
    writer.entry(value, 0)?;
    Ok(writer.out)
}

/// What a value is to TOML.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Nothing,
    Plain,
    Table,
    Tables,
}

/// Looks into all lists: a null in one is an error wherever it is.
fn shape(value: &Value, depth: usize) -> Result<Shape> {
    let depth = deeper(depth)?;
    Ok(match value {
        Value::None | Value::Nil => Shape::Nothing,
        // A chart's annotations, which are nil where there are none: templates see no other map of that type.
        Value::Map(map) if map.ty.name == TEXT_MAP.name && map.entries.borrow().is_empty() => Shape::Nothing,
        Value::Map(_) => Shape::Table,
        Value::Struct(_) if Time::read(value).is_none() => Shape::Table,
        Value::List(list) if list.absent => Shape::Nothing,
        Value::List(list) if !list.items.is_empty() => {
            let mut tables = true;
            for item in &list.items {
                match shape(item, depth)? {
                    Shape::Nothing => return Error::call("toml: cannot encode array with nil element"),
                    shape => tables &= shape == Shape::Table,
                }
            }
            if tables { Shape::Tables } else { Shape::Plain }
        }
        _ => Shape::Plain,
    })
}

struct Writer {
    out: String,
    /// Where the writer is.
    keys: Vec<Arc<str>>,
}

impl Writer {
    fn line(&mut self) {
        if !self.out.is_empty() {
            self.out.push('\n');
        }
    }

    fn indent(&mut self) {
        self.out.extend(std::iter::repeat_n("  ", self.keys.len().saturating_sub(1)));
    }

    /// The value of the last key, or the document.
    fn entry(&mut self, value: &Value, depth: usize) -> Result<()> {
        let inner = deeper(depth)?;
        match shape(value, depth)? {
            Shape::Nothing => Ok(()),
            Shape::Plain => {
                if let Some(key) = self.keys.last() {
                    let key = key_text(key);
                    self.indent();
                    self.out.push_str(&key);
                    self.out.push_str(" = ");
                }
                self.item(value, depth)?;
                if !self.keys.is_empty() {
                    self.line();
                }
                Ok(())
            }
            Shape::Table => {
                if self.keys.len() == 1 {
                    self.line();
                }
                if !self.keys.is_empty() {
                    self.heading("[", "]");
                }
                self.table(value, inner)
            }
            Shape::Tables => {
                if self.keys.is_empty() {
                    return Error::call("toml: top-level values must be Go maps or structs");
                }
                for item in value.items().unwrap_or_default() {
                    self.line();
                    self.heading("[[", "]]");
                    self.table(&item, inner)?;
                }
                Ok(())
            }
        }
    }

    fn heading(&mut self, before: &str, after: &str) {
        let path: Vec<String> = self.keys.iter().map(|key| key_text(key)).collect();
        self.indent();
        self.out.push_str(&format!("{before}{}{after}\n", path.join(".")));
    }

    fn table(&mut self, value: &Value, depth: usize) -> Result<()> {
        let (plain, tables) = parted(value, depth)?;
        for (key, value) in plain.into_iter().chain(tables) {
            self.keys.push(key);
            self.entry(&value, depth)?;
            self.keys.pop();
        }
        Ok(())
    }

    /// A value on one line.
    fn item(&mut self, value: &Value, depth: usize) -> Result<()> {
        let inner = deeper(depth)?;
        match value {
            Value::Bool(truth) => self.out.push_str(if *truth { "true" } else { "false" }),
            Value::Int(number) | Value::Int64(number) => self.out.push_str(&number.to_string()),
            Value::Uint64(number) => self.out.push_str(&number.to_string()),
            Value::Uint8(number) => self.out.push_str(&number.to_string()),
            Value::Float(number) => self.out.push_str(&number_text(*number)),
            Value::Str(text) => write_quoted(&mut self.out, text),
            Value::None | Value::Nil => {}
            Value::List(_) | Value::Bytes(_) => {
                self.out.push('[');
                for (index, item) in value.items().unwrap_or_default().iter().enumerate() {
                    if index > 0 {
                        self.out.push_str(", ");
                    }
                    self.item(item, inner)?;
                }
                self.out.push(']');
            }
            Value::Map(_) | Value::Struct(_) => match Time::read(value) {
                Some(time) => {
                    let known = LOCAL.iter().find(|(zone, _)| *zone == &*time.zone);
                    let layout = known.map_or("2006-01-02T15:04:05.999999999Z07:00", |(_, layout)| layout);
                    self.out.push_str(&time.formatted(layout));
                }
                None => self.inline(value, inner)?,
            },
        }
        Ok(())
    }

    fn inline(&mut self, value: &Value, depth: usize) -> Result<()> {
        let (plain, tables) = parted(value, depth)?;
        self.out.push('{');
        let count = plain.len() + tables.len();
        for (index, (key, value)) in plain.into_iter().chain(tables).enumerate() {
            // What is nothing is left out, and the comma behind it, but not the one before it.
            if value.is_nil() {
                continue;
            }
            self.out.push_str(&key_text(&key));
            self.out.push_str(" = ");
            self.item(&value, depth)?;
            if index + 1 < count {
                self.out.push_str(", ");
            }
        }
        self.out.push('}');
        Ok(())
    }
}

type Pairs = Vec<(Arc<str>, Value)>;

/// Keys with plain values, and keys with tables.
fn parted(value: &Value, depth: usize) -> Result<(Pairs, Pairs)> {
    let pairs: Pairs = match value {
        Value::Map(map) => map.entries.borrow().iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
        Value::Struct(object) => {
            let shown = object.fields.iter().filter(|field| !field.name.starts_with(char::is_lowercase));
            shown.map(|field| (Arc::from(field.name), field.value.clone())).collect()
        }
        _ => Vec::new(),
    };
    let (mut plain, mut tables) = (Vec::new(), Vec::new());
    for (key, value) in pairs {
        match shape(&value, depth)? {
            Shape::Table | Shape::Tables => tables.push((key, value)),
            Shape::Nothing | Shape::Plain => plain.push((key, value)),
        }
    }
    Ok((plain, tables))
}

fn number_text(number: f64) -> String {
    if number.is_nan() {
        return "nan".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let text = float_text(number, 'g', None);
    if text.contains(['e', '.']) { text } else { format!("{text}.0") }
}

fn key_text(key: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !key.is_empty() && key.chars().all(bare) {
        return key.to_owned();
    }
    let mut out = String::new();
    write_quoted(&mut out, key);
    out
}

fn write_quoted(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\x08' => out.push_str("\\b"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\x0c' => out.push_str("\\f"),
            '\r' => out.push_str("\\r"),
            '\0'..='\x1f' | '\x7f' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            _ => out.push(c),
        }
    }
    out.push('"');
}
