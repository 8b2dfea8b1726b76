//! What is wrong with a value, told as `santhosh-tekuri/jsonschema` tells it: a tree of places and reasons.

use serde_json::Value as Json;

use crate::template::text::{float_text, quoted};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Plain,
    /// Several at one place.
    Group,
    /// Behind a reference: not told if there is but one.
    Reference,
}

#[derive(Clone, Debug)]
pub struct Finding {
    /// A JSON pointer into the values.
    pub at: String,
    pub what: String,
    pub kind: Kind,
    pub causes: Vec<Finding>,
}

impl Finding {
    pub fn of(at: String, what: impl Into<String>, causes: Vec<Self>) -> Self {
        Self { at, what: what.into(), kind: Kind::Plain, causes }
    }

    /// A list of lines, without an end.
    pub fn told(&self) -> String {
        let mut lines = Vec::new();
        let top = if self.kind == Kind::Group { &self.causes[..] } else { std::slice::from_ref(self) };
        top.iter().for_each(|cause| cause.tell(0, &mut lines));
        lines.join("\n")
    }

    fn tell(&self, depth: usize, lines: &mut Vec<String>) {
        let mut inner = depth;
        if self.kind != Kind::Reference || self.causes.len() != 1 {
            lines.push(format!("{}- at {}: {}", "  ".repeat(depth), quote(&self.at), self.what));
            inner += 1;
        }
        self.causes.iter().for_each(|cause| cause.tell(inner, lines));
    }
}

pub fn quote(text: &str) -> String {
    // The last quote is looked at too: of a backslash before it, half is gone then.
    let quoted = quoted(text).replace("\\\"", "\"").replace('\'', "\\'");
    format!("'{}'", quoted.get(1..quoted.len() - 1).unwrap_or_default())
}

pub fn quotes<'t>(texts: impl IntoIterator<Item = &'t str>) -> String {
    texts.into_iter().map(quote).collect::<Vec<_>>().join(", ")
}

/// A plain value.
pub fn shown(value: &Json) -> String {
    match value {
        Json::String(text) => quote(text),
        Json::Array(_) | Json::Object(_) => "value".to_owned(),
        Json::Null => "<nil>".to_owned(),
        other => other.to_string(),
    }
}

/// A count as it is written in English.
pub fn count(number: usize) -> String {
    grouped(&number.to_string())
}

fn grouped(digits: &str) -> String {
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A number as it is written in English: `1,500.5`, `1.5×10⁰⁷`.
pub fn number(value: &Json) -> String {
    let text = float_text(value.as_f64().unwrap_or_default(), 'g', None);
    if let Some((digits, exponent)) = text.split_once('e') {
        let raised = |c: char| c.to_digit(10).and_then(|digit| "⁰¹²³⁴⁵⁶⁷⁸⁹".chars().nth(digit as usize));
        let sign = if exponent.starts_with('-') { "⁻" } else { "" };
        return format!("{digits}×10{sign}{}", exponent.chars().filter_map(raised).collect::<String>());
    }
    let (sign, size) = text.strip_prefix('-').map_or(("", text.as_str()), |size| ("-", size));
    match size.split_once('.') {
        Some((whole, fraction)) => format!("{sign}{}.{fraction}", grouped(whole)),
        None => format!("{sign}{}", grouped(size)),
    }
}
