//! JSON as Go's `encoding/json` writes and reads it.

use super::{View, deeper, view};
use crate::template::{
    error::{Error, Result},
    text::float_text,
    value::Value,
};

/// Lists and maps may lie so deep in one another where JSON is read: `serde_json`'s own limit.
pub const DEEP_MAX: usize = 127;

#[derive(Clone, Copy, Default)]
pub struct Style {
    /// `<`, `>` and `&` are escaped, as Go does unless it is told not to.
    pub for_html: bool,
    /// Two spaces for each level, and a line for each item.
    pub pretty: bool,
}

/// # Errors
/// A number that JSON has no text for, or values that are nested too deeply.
pub fn text(value: &Value, style: Style) -> Result<String> {
    let mut out = String::new();
    write(&mut out, value, style, 0)?;
    Ok(out)
}

fn write(out: &mut String, value: &Value, style: Style, depth: usize) -> Result<()> {
    let inner = deeper(depth)?;
    match view(value) {
        View::Null => out.push_str("null"),
        View::Bool(truth) => out.push_str(if truth { "true" } else { "false" }),
        View::Whole(number) => out.push_str(&number.to_string()),
        View::Float(float) => out.push_str(&number(float)?),
        View::Text(text) => write_text(out, &text, style.for_html),
        View::List(items) if items.is_empty() => out.push_str("[]"),
        View::Map(entries) if entries.is_empty() => out.push_str("{}"),
        View::List(items) => {
            for (index, item) in items.iter().enumerate() {
                out.push(if index == 0 { '[' } else { ',' });
                new_line(out, style, inner);
                write(out, item, style, inner)?;
            }
            new_line(out, style, depth);
            out.push(']');
        }
        View::Map(entries) => {
            for (index, (key, value)) in entries.iter().enumerate() {
                out.push(if index == 0 { '{' } else { ',' });
                new_line(out, style, inner);
                write_text(out, key, style.for_html);
                out.push_str(if style.pretty { ": " } else { ":" });
                write(out, value, style, inner)?;
            }
            new_line(out, style, depth);
            out.push('}');
        }
    }
    Ok(())
}

fn new_line(out: &mut String, style: Style, depth: usize) {
    if style.pretty {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth));
    }
}

/// A float: with an exponent only where it is very small or large.
pub fn number(float: f64) -> Result<String> {
    if !float.is_finite() {
        return Error::call(format!("json: unsupported value: {}", float_text(float, 'g', None)));
    }
    let size = float.abs();
    if size == 0.0 || (1e-6..1e21).contains(&size) {
        return Ok(float_text(float, 'f', None));
    }
    Ok(float_text(float, 'e', None).replace("e-0", "e-"))
}

fn write_text(out: &mut String, text: &str, for_html: bool) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\0'..='\x1f' | '\u{2028}' | '\u{2029}' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            '<' | '>' | '&' if for_html => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            _ => out.push(c),
        }
    }
    out.push('"');
}

/// Numbers become floats, as they do in Go where no type says otherwise.
///
/// # Errors
/// What is wrong with the text.
pub fn read(text: &str) -> Result<Value> {
    match serde_json::from_str(text) {
        Ok(json) => Ok(super::of_json(&crate::setting::floated(json))),
        Err(error) => Error::call(error.to_string()),
    }
}
