//! What `print`, `printf` and `println` make of values: Go's package `fmt`.

use super::{
    error::{Error, Result},
    text::{float_text, quoted, quoted_char},
    value::{List, Map, Struct, Value},
};

/// A width or a precision may be so large: Go's own limit.
const WIDTH_MAX: usize = 1_000_000;
/// Values may lie so deep in one another where they are written or compared.
pub const NESTING_MAX: usize = 1_000;

/// As `fmt.Sprint`: a space between operands when neither is a string.
///
/// # Errors
/// That values are nested too deeply.
pub fn print(values: &[Value]) -> Result<String> {
    let mut out = String::new();
    for (index, value) in values.iter().enumerate() {
        let is_text = |value: &Value| matches!(value, Value::Str(_));
        if index > 0 && !is_text(value) && !is_text(&values[index - 1]) {
            out.push(' ');
        }
        show(&mut out, value)?;
    }
    Ok(out)
}

/// As `fmt.Sprintln`.
///
/// # Errors
/// That values are nested too deeply.
pub fn println(values: &[Value]) -> Result<String> {
    let mut out = String::new();
    for (index, value) in values.iter().enumerate() {
        if index > 0 {
            out.push(' ');
        }
        show(&mut out, value)?;
    }
    out.push('\n');
    Ok(out)
}

/// A value as `%v`.
///
/// # Errors
/// That it is nested too deeply.
pub fn show(out: &mut String, value: &Value) -> Result<()> {
    match value {
        Value::Str(text) => out.push_str(text),
        Value::Int(number) | Value::Int64(number) => out.push_str(&number.to_string()),
        _ => Directive::plain('v').value(out, value, 0)?,
    }
    Ok(())
}

/// # Errors
/// That it is nested too deeply.
pub fn shown(value: &Value) -> Result<String> {
    let mut out = String::new();
    show(&mut out, value)?;
    Ok(out)
}

/// As `fmt.Sprintf`; what is wrong with the format or its arguments is told in the text, as there.
///
/// # Errors
/// That values are nested too deeply.
pub fn printf(format: &str, values: &[Value]) -> Result<String> {
    let mut printer = Printer { rest: format, values, next: 0, reordered: false, good_index: true, out: String::new() };
    printer.run()?;
    Ok(printer.out)
}

#[derive(Default, Clone)]
struct Directive {
    verb: char,
    plus: bool,
    minus: bool,
    sharp: bool,
    /// `%+v`: names of fields.
    named: bool,
    /// `%#v`: as Go source.
    source: bool,
    space: bool,
    zero: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

struct Printer<'a> {
    rest: &'a str,
    values: &'a [Value],
    next: usize,
    reordered: bool,
    good_index: bool,
    out: String,
}

impl Printer<'_> {
    fn run(&mut self) -> Result<()> {
        while let Some(percent) = self.rest.find('%') {
            self.out.push_str(&self.rest[..percent]);
            self.rest = &self.rest[percent + 1..];
            self.directive()?;
        }
        self.out.push_str(self.rest);
        if !self.reordered && self.next < self.values.len() {
            self.out.push_str("%!(EXTRA ");
            for (index, value) in self.values[self.next..].iter().enumerate() {
                if index > 0 {
                    self.out.push_str(", ");
                }
                tell(&mut self.out, value)?;
            }
            self.out.push(')');
        }
        Ok(())
    }

    fn take(&mut self, c: char) -> bool {
        match self.rest.strip_prefix(c) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn flags(&mut self) -> Directive {
        let mut directive = Directive::default();
        while let Some(c) = self.rest.chars().next() {
            match c {
                '+' => directive.plus = true,
                '-' => directive.minus = true,
                '#' => directive.sharp = true,
                ' ' => directive.space = true,
                '0' => directive.zero = true,
                _ => break,
            }
            self.rest = &self.rest[1..];
        }
        directive
    }

    fn number(&mut self) -> Option<usize> {
        let digits = self.rest.len() - self.rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let number = self.rest[..digits].parse().ok().filter(|number| *number <= WIDTH_MAX);
        self.rest = &self.rest[digits..];
        number
    }

    /// `[n]`: which argument is next. What is wrong with it is told when the verb is reached.
    fn index(&mut self) -> bool {
        let Some(inner) = self.rest.strip_prefix('[') else { return false };
        self.reordered = true;
        let Some(close) = inner.find(']') else {
            self.rest = inner;
            self.good_index = false;
            return false;
        };
        let number = inner[..close].parse::<usize>().ok();
        self.rest = &inner[close + 1..];
        match number {
            Some(number) if (1..=self.values.len()).contains(&number) => {
                self.next = number - 1;
                true
            }
            _ => {
                self.good_index = false;
                true
            }
        }
    }

    /// An argument that is a width or a precision.
    fn star(&mut self) -> Option<i64> {
        let value = self.values.get(self.next);
        self.next += usize::from(value.is_some());
        match value {
            Some(Value::Int(number) | Value::Int64(number)) if number.unsigned_abs() <= WIDTH_MAX as u64 => {
                Some(*number)
            }
            _ => None,
        }
    }

    fn directive(&mut self) -> Result<()> {
        self.good_index = true;
        let mut directive = self.flags();
        let mut indexed = self.index();
        if self.take('*') {
            match self.star() {
                Some(width) => {
                    directive.minus |= width < 0;
                    directive.width = usize::try_from(width.unsigned_abs()).ok();
                }
                None => self.out.push_str("%!(BADWIDTH)"),
            }
            indexed = false;
        } else {
            directive.width = self.number();
            if indexed && directive.width.is_some() {
                self.good_index = false;
            }
        }
        if self.take('.') {
            if indexed {
                self.good_index = false;
            }
            indexed = self.index();
            if self.take('*') {
                match self.star() {
                    Some(precision) => directive.precision = usize::try_from(precision).ok(),
                    None => self.out.push_str("%!(BADPREC)"),
                }
                indexed = false;
            } else {
                directive.precision = Some(self.number().unwrap_or(0));
            }
        }
        if !indexed {
            self.index();
        }
        let Some(verb) = self.rest.chars().next() else {
            self.out.push_str("%!(NOVERB)");
            return Ok(());
        };
        self.rest = &self.rest[verb.len_utf8()..];
        directive.verb = verb;
        if directive.minus {
            directive.zero = false;
        }
        if verb == 'v' {
            directive.source = std::mem::take(&mut directive.sharp);
            directive.named = std::mem::take(&mut directive.plus);
        }
        if verb == '%' {
            self.out.push('%');
        } else if !self.good_index {
            self.out.push_str(&format!("%!{verb}(BADINDEX)"));
        } else if let Some(value) = self.values.get(self.next) {
            self.next += 1;
            directive.value(&mut self.out, value, 0)?;
        } else {
            self.out.push_str(&format!("%!{verb}(MISSING)"));
        }
        Ok(())
    }
}

/// `type=value`.
fn tell(out: &mut String, value: &Value) -> Result<()> {
    if value.is_nil() {
        out.push_str("<nil>");
        return Ok(());
    }
    out.push_str(&value.type_name());
    out.push('=');
    show(out, value)
}

impl Directive {
    fn plain(verb: char) -> Self {
        Self { verb, ..Self::default() }
    }

    fn pad(&self, out: &mut String, text: &str) {
        let missing = self.width.map_or(0, |width| width.saturating_sub(text.chars().count()));
        if self.minus {
            out.push_str(text);
        }
        let with = if self.zero { '0' } else { ' ' };
        out.extend(std::iter::repeat_n(with, missing));
        if !self.minus {
            out.push_str(text);
        }
    }

    fn bad(&self, out: &mut String, value: &Value) -> Result<()> {
        out.push_str("%!");
        out.push(self.verb);
        out.push('(');
        tell(out, value)?;
        out.push(')');
        Ok(())
    }

    fn value(&self, out: &mut String, value: &Value, depth: usize) -> Result<()> {
        if depth > NESTING_MAX {
            return Error::limit(format!("values are nested more than {NESTING_MAX} deep"));
        }
        match self.verb {
            'T' => {
                Self { verb: 's', ..self.clone() }.text(out, &value.type_name());
                return Ok(());
            }
            'p' => return self.bad(out, value),
            _ => {}
        }
        match value {
            Value::None | Value::Nil => match self.verb {
                'v' if self.source && depth > 0 => out.push_str("interface {}(nil)"),
                'v' => self.pad(out, "<nil>"),
                _ => out.push_str(&format!("%!{}(<nil>)", self.verb)),
            },
            Value::Bool(truth) if matches!(self.verb, 'v' | 't') => self.pad(out, &truth.to_string()),
            Value::Bool(_) => return self.bad(out, value),
            Value::Int(number) | Value::Int64(number) => return self.whole(out, value, i128::from(*number)),
            Value::Uint64(number) => return self.whole(out, value, i128::from(*number)),
            Value::Uint8(number) => return self.whole(out, value, i128::from(*number)),
            Value::Float(number) => return self.float(out, value, *number),
            Value::Str(text) => match self.verb {
                'v' if self.source => self.pad(out, &quoted(text)),
                'v' | 's' | 'q' | 'x' | 'X' => self.text(out, text),
                _ => return self.bad(out, value),
            },
            Value::Bytes(bytes) => return self.bytes(out, value, bytes, depth),
            Value::List(list) => return self.list(out, list, depth),
            Value::Map(map) => return self.map(out, map, depth),
            Value::Struct(object) => return self.structure(out, object, depth),
        }
        Ok(())
    }

    fn list(&self, out: &mut String, list: &List, depth: usize) -> Result<()> {
        let (between, close) = if self.source { (", ", '}') } else { (" ", ']') };
        if self.source {
            out.push_str(list.ty.name);
            if list.absent {
                out.push_str("(nil)");
                return Ok(());
            }
        }
        out.push(if self.source { '{' } else { '[' });
        for (index, item) in list.items.iter().enumerate() {
            if index > 0 {
                out.push_str(between);
            }
            self.value(out, item, depth + 1)?;
        }
        out.push(close);
        Ok(())
    }

    fn map(&self, out: &mut String, map: &Map, depth: usize) -> Result<()> {
        let (open, between, close) = if self.source { ('{', ", ", '}') } else { ('[', " ", ']') };
        out.push_str(if self.source { map.ty.name } else { "map" });
        out.push(open);
        for (index, (key, item)) in map.entries.borrow().iter().enumerate() {
            if index > 0 {
                out.push_str(between);
            }
            self.value(out, &Value::Str(key.clone()), depth + 1)?;
            out.push(':');
            self.value(out, item, depth + 1)?;
        }
        out.push(close);
        Ok(())
    }

    fn structure(&self, out: &mut String, object: &Struct, depth: usize) -> Result<()> {
        if let (Some(text), 'v' | 's' | 'q' | 'x' | 'X', false) = (object.ty.text, self.verb, self.source) {
            self.text(out, &text(object));
            return Ok(());
        }
        if object.pointer {
            if depth > 0 {
                // Go prints an address, which is never the same twice.
                out.push_str("0xc000000000");
                return Ok(());
            }
            out.push('&');
        }
        if self.source {
            out.push_str(object.ty.name);
        }
        out.push('{');
        for (index, field) in object.fields.iter().enumerate() {
            if index > 0 {
                out.push_str(if self.source { ", " } else { " " });
            }
            if self.named || self.source {
                out.push_str(field.name);
                out.push(':');
            }
            self.value(out, &field.value, depth + 1)?;
        }
        out.push('}');
        Ok(())
    }

    fn bytes(&self, out: &mut String, value: &Value, bytes: &[u8], depth: usize) -> Result<()> {
        match self.verb {
            's' | 'q' | 'x' | 'X' => self.text(out, &String::from_utf8_lossy(bytes)),
            'v' | 'd' => {
                out.push('[');
                for (index, byte) in bytes.iter().enumerate() {
                    if index > 0 {
                        out.push(' ');
                    }
                    self.value(out, &Value::Uint8(*byte), depth + 1)?;
                }
                out.push(']');
            }
            _ => return self.bad(out, value),
        }
        Ok(())
    }

    fn text(&self, out: &mut String, text: &str) {
        let cut = |text: &str| match self.precision {
            Some(precision) => text.chars().take(precision).collect(),
            None => text.to_owned(),
        };
        match self.verb {
            'q' => {
                let text = cut(text);
                let raw = self.sharp && !text.contains('`') && text.chars().all(|c| c == '\t' || !c.is_control());
                self.pad(out, &if raw { format!("`{text}`") } else { quoted(&text) });
            }
            'x' | 'X' => {
                let bytes = &text.as_bytes()[..text.len().min(self.precision.unwrap_or(usize::MAX))];
                let mut hex = String::new();
                for (index, byte) in bytes.iter().enumerate() {
                    if self.space && index > 0 {
                        hex.push(' ');
                    }
                    if self.sharp && (self.space || index == 0) {
                        hex.push_str("0x");
                    }
                    hex.push_str(&format!("{byte:02x}"));
                }
                self.pad(out, &if self.verb == 'X' { hex.to_uppercase() } else { hex });
            }
            _ => self.pad(out, &cut(text)),
        }
    }

    fn whole(&self, out: &mut String, value: &Value, number: i128) -> Result<()> {
        let size = number.unsigned_abs();
        let (prefix, digits) = match self.verb {
            'v' | 'd' => ("", size.to_string()),
            'b' => (if self.sharp { "0b" } else { "" }, format!("{size:b}")),
            'o' => (if self.sharp { "0" } else { "" }, format!("{size:o}")),
            'O' => ("0o", format!("{size:o}")),
            'x' => (if self.sharp { "0x" } else { "" }, format!("{size:x}")),
            'X' => (if self.sharp { "0X" } else { "" }, format!("{size:X}")),
            'c' => {
                self.pad(out, &character(number).to_string());
                return Ok(());
            }
            'q' => {
                self.pad(out, &quoted_char(character(number)));
                return Ok(());
            }
            'U' => {
                let named =
                    if self.sharp { format!("U+{size:04X} '{}'", character(number)) } else { format!("U+{size:04X}") };
                self.pad(out, &named);
                return Ok(());
            }
            _ => return self.bad(out, value),
        };
        if self.source && matches!(value, Value::Uint64(_) | Value::Uint8(_)) {
            self.pad(out, &format!("0x{size:x}"));
            return Ok(());
        }
        let sign = self.sign(number < 0);
        let mut digits = digits;
        match self.precision {
            Some(0) if size == 0 => digits.clear(),
            Some(precision) => digits = format!("{digits:0>precision$}"),
            None if self.zero => {
                let width = self.width.unwrap_or(0).saturating_sub(sign.len());
                digits = format!("{digits:0>width$}");
            }
            None => {}
        }
        Self { zero: false, ..self.clone() }.pad(out, &format!("{sign}{prefix}{digits}"));
        Ok(())
    }

    fn sign(&self, negative: bool) -> &'static str {
        match (negative, self.plus, self.space) {
            (true, ..) => "-",
            (false, true, _) => "+",
            (false, false, true) => " ",
            _ => "",
        }
    }

    fn float(&self, out: &mut String, value: &Value, number: f64) -> Result<()> {
        let (verb, precision) = match self.verb {
            'v' => ('g', self.precision),
            'g' | 'G' => (self.verb, self.precision),
            'e' | 'E' | 'f' => (self.verb, Some(self.precision.unwrap_or(6))),
            'F' => ('f', Some(self.precision.unwrap_or(6))),
            _ => return self.bad(out, value),
        };
        let text = float_text(number, verb, precision);
        let (sign, digits) = match text.strip_prefix('-') {
            Some(digits) => ("-", digits),
            None => (self.sign(false), text.trim_start_matches('+')),
        };
        let sign = if number.is_infinite() && number > 0.0 && !self.space { "+" } else { sign };
        let zero = self.zero && number.is_finite();
        if zero {
            let width = self.width.unwrap_or(0).saturating_sub(sign.len());
            out.push_str(&format!("{sign}{digits:0>width$}"));
        } else {
            Self { zero: false, ..self.clone() }.pad(out, &format!("{sign}{digits}"));
        }
        Ok(())
    }
}

fn character(number: i128) -> char {
    u32::try_from(number).ok().and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER)
}
