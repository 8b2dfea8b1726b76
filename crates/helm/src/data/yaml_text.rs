//! YAML as go-yaml v2 writes it, by way of JSON as `sigs.k8s.io/yaml` does, and as v3 writes it without that way: which style a text
//! is written in, where a long one is broken, how keys are sorted.

use std::{cmp::Ordering, sync::Arc};

use super::{
    View, deeper, view,
    yaml::{Resolved, resolved},
};
use crate::functions::time::Time;
use crate::template::{
    error::{Error, Result},
    text::float_text,
    value::Value,
};

/// Texts are broken at a space behind this column.
const WIDTH: usize = 80;
/// A key that is longer (in bytes) is written with a question mark.
const KEY_MAX: usize = 128;
const INDENT: usize = 2;

/// Whose ways are followed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// go-yaml v2, by way of JSON.
    Second,
    /// go-yaml v3: lists lie deeper than their keys, lines are as long as they are, and types are Go's.
    Third,
}

/// A value as a document, with a line feed at its end.
///
/// # Errors
/// What it cannot be written for: not-a-number, control characters, too deep.
pub fn text(value: &Value) -> Result<String> {
    document(value, Manner::Second)
}

/// The same as `toYamlPretty` writes it.
///
/// # Errors
/// That it is too deep.
pub fn pretty_text(value: &Value) -> Result<String> {
    document(value, Manner::Third)
}

fn document(value: &Value, manner: Manner) -> Result<String> {
    let mut writer = Writer { out: String::new(), column: 0, fresh: true, manner };
    writer.node(value, None, 0)?;
    if !writer.out.ends_with('\n') || writer.column > 0 {
        writer.out.push('\n');
    }
    Ok(writer.out)
}

struct Writer {
    out: String,
    /// In characters.
    column: usize,
    /// Nothing but white space and dashes stand on the line so far.
    fresh: bool,
    manner: Manner,
}

type Entry = (Arc<str>, Value);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    Sequence,
    Mapping,
}

impl Writer {
    fn put(&mut self, c: char) {
        self.out.push(c);
        self.column += 1;
    }

    fn line(&mut self) {
        self.out.push('\n');
        self.column = 0;
    }

    /// To where a node at `indent` starts, on a line of its own unless this one is still free.
    fn indent(&mut self, indent: usize) {
        if !self.fresh || self.column > indent {
            self.line();
        }
        while self.column < indent {
            self.put(' ');
        }
        self.fresh = true;
    }

    /// A space before what follows, unless the line just started.
    fn space(&mut self) {
        if self.column > 0 && !self.out.ends_with(' ') {
            self.put(' ');
        }
    }

    /// A node inside of a collection at `indent`, or the root.
    fn node(&mut self, value: &Value, within: Option<(Within, usize)>, depth: usize) -> Result<()> {
        let depth = deeper(depth)?;
        // Where lines of a scalar go on.
        let inner = within.map_or(INDENT, |(_, indent)| indent + INDENT);
        let child = within.map_or(0, |(_, indent)| indent + INDENT);
        let plain = |writer: &mut Self, text: &str| {
            writer.space();
            text.chars().for_each(|c| writer.put(c));
            writer.fresh = false;
        };
        if let (Manner::Third, Some(time)) = (self.manner, Time::read(value)) {
            plain(self, &time.formatted("2006-01-02T15:04:05.999999999Z07:00"));
            return Ok(());
        }
        match self.seen(value) {
            View::Null => plain(self, "null"),
            View::Bool(truth) => plain(self, if truth { "true" } else { "false" }),
            View::Whole(number) => plain(self, &number.to_string()),
            View::Float(number) if self.manner == Manner::Third => plain(self, &plain_number(number)),
            View::Float(number) => plain(self, &number_text(number)?),
            View::Text(text) => self.scalar(&text, inner, false)?,
            View::List(items) if items.is_empty() => plain(self, "[]"),
            View::Map(entries) if entries.is_empty() => plain(self, "{}"),
            View::List(items) => {
                let indent = match within {
                    // A list in a map starts where its key does.
                    Some((Within::Mapping, indent)) if self.manner == Manner::Second => indent,
                    _ => child,
                };
                for item in &items {
                    self.indent(indent);
                    self.put('-');
                    self.node(item, Some((Within::Sequence, indent)), depth)?;
                }
            }
            View::Map(mut entries) => {
                if !matches!((self.manner, value), (Manner::Third, Value::Struct(_))) {
                    entries = sorted(entries, self.manner);
                }
                for (key, value) in &entries {
                    self.indent(child);
                    if key.len() > KEY_MAX || key.contains(is_break) {
                        self.put('?');
                        self.scalar(key, child + INDENT, false)?;
                        self.indent(child);
                    } else {
                        self.scalar(key, child + INDENT, true)?;
                    }
                    self.put(':');
                    self.fresh = false;
                    self.node(value, Some((Within::Mapping, child)), depth)?;
                }
            }
        }
        Ok(())
    }

    /// What a value is to the library.
    fn seen<'v>(&self, value: &'v Value) -> View<'v> {
        match value {
            Value::List(list) if self.manner == Manner::Third => View::List(list.items.clone()),
            Value::Bytes(_) if self.manner == Manner::Third => View::List(value.items().unwrap_or_default()),
            Value::Struct(object) if self.manner == Manner::Third => {
                let shown = object.fields.iter().filter(|field| !field.name.starts_with(char::is_lowercase));
                View::Map(shown.map(|field| (field.name.to_lowercase().into(), field.value.clone())).collect())
            }
            value => view(value),
        }
    }

    /// The column behind which lines are broken.
    fn width(&self) -> usize {
        if self.manner == Manner::Third { usize::MAX } else { WIDTH }
    }

    fn scalar(&mut self, text: &str, indent: usize, key: bool) -> Result<()> {
        if let (Manner::Second, Some(c)) = (self.manner, text.chars().find(|c| !is_readable(*c))) {
            return Error::call(format!("yaml: control characters are not allowed: {c:?}"));
        }
        let shape = Shape::of(text, self.manner);
        let is_text = matches!(resolved(text), Resolved::Text) && !is_sexagesimal(text);
        if text.contains('\n') && shape.literal && !key {
            self.literal(text, indent);
            return Ok(());
        } else if text.contains('\n') || !is_text {
            self.double_quoted(text, indent, key);
        } else if shape.plain && !(text.is_empty() && key) {
            self.broken(text, indent, key, None);
        } else if shape.single_quoted {
            self.broken(text, indent, key, Some('\''));
        } else {
            self.double_quoted(text, indent, key);
        }
        self.fresh = false;
        Ok(())
    }

    /// Plain, or in single quotes. No line feeds are in it; other breaks may be.
    fn broken(&mut self, text: &str, indent: usize, key: bool, quote: Option<char>) {
        self.space();
        if let Some(quote) = quote {
            self.put(quote);
        }
        let mut spaces = false;
        let mut characters = text.char_indices().peekable();
        while let Some((at, c)) = characters.next() {
            if c == ' ' {
                let next_is_space = matches!(characters.peek(), Some((_, ' ')));
                let inside = quote.is_none() || (at > 0 && at < text.len() - 1);
                if !key && !spaces && self.column > self.width() && inside && !next_is_space {
                    self.fresh = false;
                    self.indent(indent);
                } else {
                    self.put(' ');
                }
                spaces = true;
                continue;
            }
            if Some(c) == quote {
                self.put(c);
            }
            self.put(c);
            spaces = false;
        }
        if let Some(quote) = quote {
            self.put(quote);
        }
    }

    fn double_quoted(&mut self, text: &str, indent: usize, key: bool) {
        self.space();
        self.put('"');
        let mut spaces = false;
        let mut characters = text.char_indices().peekable();
        while let Some((at, c)) = characters.next() {
            if c == ' ' {
                if !key && !spaces && self.column > self.width() && at > 0 && at < text.len() - 1 {
                    self.fresh = false;
                    self.indent(indent);
                    if matches!(characters.peek(), Some((_, ' '))) {
                        self.put('\\');
                    }
                } else {
                    self.put(' ');
                }
                spaces = true;
                continue;
            }
            spaces = false;
            if is_printable(c) && !is_break(c) && c != '"' && c != '\\' {
                self.put(c);
            } else {
                self.put('\\');
                escaped(c).chars().for_each(|c| self.put(c));
            }
        }
        self.put('"');
    }

    fn literal(&mut self, text: &str, indent: usize) {
        self.space();
        self.put('|');
        if text.starts_with(' ') || text.starts_with(is_break) {
            self.put('2');
        }
        let mut from_end = text.chars().rev();
        match (from_end.next().is_some_and(is_break), from_end.next()) {
            (false, _) => self.put('-'),
            (true, None) => self.put('+'),
            (true, Some(c)) if is_break(c) => self.put('+'),
            _ => {}
        }
        self.line();
        let mut starts = true;
        for c in text.chars() {
            if is_break(c) {
                self.out.push(c);
                self.column = 0;
                starts = true;
                continue;
            }
            if starts {
                (0..indent).for_each(|_| self.put(' '));
            }
            self.put(c);
            starts = false;
        }
        // What follows starts on the line that the text's last break has begun, if it has.
        self.fresh = starts;
    }
}

fn plain_number(number: f64) -> String {
    match float_text(number, 'g', None).as_str() {
        "NaN" => ".nan".to_owned(),
        "+Inf" => ".inf".to_owned(),
        "-Inf" => "-.inf".to_owned(),
        text => text.to_owned(),
    }
}

fn number_text(number: f64) -> Result<String> {
    let json = super::json::number(number)?;
    // The detour by JSON makes whole numbers of what fits.
    Ok(match resolved(&json) {
        Resolved::Whole(whole) => whole.to_string(),
        _ => float_text(number, 'g', None),
    })
}

fn escaped(c: char) -> String {
    let plain = match c {
        '\0' => '0',
        '\x07' => 'a',
        '\x08' => 'b',
        '\t' => 't',
        '\n' => 'n',
        '\x0b' => 'v',
        '\x0c' => 'f',
        '\r' => 'r',
        '\x1b' => 'e',
        '"' | '\\' => c,
        '\u{85}' => 'N',
        '\u{a0}' => '_',
        '\u{2028}' => 'L',
        '\u{2029}' => 'P',
        _ => {
            let code = u32::from(c);
            return match code {
                0..=0xff => format!("x{code:02X}"),
                0x100..=0xffff => format!("u{code:04X}"),
                _ => format!("U{code:08X}"),
            };
        }
    };
    plain.to_string()
}

fn is_break(c: char) -> bool {
    matches!(c, '\r' | '\n' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// What is written as it is.
fn is_printable(c: char) -> bool {
    matches!(c, '\n' | ' '..='~' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fefe}' | '\u{ff00}'..='\u{fffd}')
}

/// What go-yaml accepts when it reads back what JSON has made of a text: JSON leaves these as they are.
fn is_readable(c: char) -> bool {
    c < ' ' || is_printable(c) || matches!(c, '\u{85}' | '\u{10000}'..)
}

/// Which styles a text may be written in.
struct Shape {
    plain: bool,
    single_quoted: bool,
    literal: bool,
}

impl Shape {
    fn of(text: &str, manner: Manner) -> Self {
        if text.is_empty() {
            return Self { plain: true, single_quoted: true, literal: false };
        }
        let mut indicators = text.starts_with("---") || text.starts_with("...");
        let mut tabs = false;
        let (mut breaks, mut special, mut break_space, mut space_break) = (false, false, false, false);
        let (mut before_space, mut before_break, mut after_blank) = (false, false, true);
        let mut characters = text.chars().peekable();
        let mut first = true;
        while let Some(c) = characters.next() {
            let blank_follows = characters.peek().is_none_or(|next| matches!(next, ' ' | '\t'));
            indicators |= match c {
                '#' => first || after_blank,
                ':' => blank_follows,
                '?' | '-' => first && blank_follows,
                ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%' | '@' | '`' => first,
                _ => false,
            };
            if c == '\t' && manner == Manner::Third {
                tabs = true;
            } else {
                special |= !is_printable(c);
            }
            if c == ' ' {
                break_space |= before_break;
            } else if is_break(c) {
                breaks = true;
                space_break |= before_space;
            }
            (before_space, before_break) = (c == ' ', is_break(c));
            after_blank = matches!(c, ' ' | '\t') || is_break(c);
            first = false;
        }
        let edge = |c: char| c == ' ' || is_break(c);
        let edges = text.starts_with(edge) || text.ends_with(edge);
        let odd = space_break || special;
        Self {
            plain: !(edges || breaks || break_space || odd || tabs || indicators),
            single_quoted: !(break_space || odd || tabs),
            literal: !(odd || text.ends_with(' ')),
        }
    }
}

/// `[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?`: YAML 1.1 had such numbers, so texts like them are quoted.
fn is_sexagesimal(text: &str) -> bool {
    let text = text.strip_prefix(['-', '+']).unwrap_or(text);
    let Some((head, rest)) = text.split_once(':') else { return false };
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || b == b'_');
    if !head.starts_with(|c: char| c.is_ascii_digit()) || !digits(head) {
        return false;
    }
    let (parts, fraction) = rest.split_once('.').unwrap_or((rest, ""));
    let minute = |part: &str| matches!(part.as_bytes(), [b'0'..=b'9'] | [b'0'..=b'5', b'0'..=b'9']);
    digits(fraction) && parts.split(':').all(minute)
}

/// In go-yaml's order. That of v2 has circles (a2, a10, a1b), which the standard library's sort may answer with a panic.
fn sorted(entries: Vec<Entry>, manner: Manner) -> Vec<Entry> {
    let ordered = |left: &Entry, right: &Entry| naturally(&left.0, &right.0, manner) != Ordering::Greater;
    if entries.windows(2).all(|pair| ordered(&pair[0], &pair[1])) {
        return entries;
    }
    let mut left = entries;
    let right = left.split_off(left.len() / 2);
    let mut merged = Vec::with_capacity(left.len() + right.len());
    let (left, right) = (sorted(left, manner), sorted(right, manner));
    let (mut left, mut right) = (left.into_iter().peekable(), right.into_iter().peekable());
    while let (Some(first), Some(second)) = (left.peek(), right.peek()) {
        merged.extend(if ordered(first, second) { left.next() } else { right.next() });
    }
    merged.extend(left);
    merged.extend(right);
    merged
}

/// go-yaml's order of keys: numbers in them by their size, letters behind all else, but for v3 before all else behind a digit.
fn naturally(left: &str, right: &str, manner: Manner) -> Ordering {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    for (at, (l, r)) in left.iter().zip(&right).enumerate() {
        if l == r {
            continue;
        }
        match (l.is_alphabetic(), r.is_alphabetic()) {
            (true, true) => return l.cmp(r),
            (l_letter, r_letter) if l_letter != r_letter => {
                let behind_digit = at > 0 && left[at - 1].is_numeric();
                let first = if manner == Manner::Third && behind_digit { l_letter } else { r_letter };
                return if first { Ordering::Less } else { Ordering::Greater };
            }
            _ => {}
        }
        let mut lead = 0_i64;
        if *l == '0' || *r == '0' {
            let before = left[..at].iter().rev().take_while(|c| c.is_ascii_digit());
            lead = i64::from(before.clone().any(|c| *c != '0'));
        }
        let number = |from: &[char]| {
            let digits = from.iter().take_while(|c| c.is_ascii_digit());
            digits.fold((lead, 0), |(number, count), c| {
                let digit = i64::from(c.to_digit(10).unwrap_or(0));
                (number.wrapping_mul(10).wrapping_add(digit), count + 1)
            })
        };
        let (l_number, r_number) = (number(&left[at..]), number(&right[at..]));
        return l_number.cmp(&r_number).then(l.cmp(r));
    }
    left.len().cmp(&right.len())
}
