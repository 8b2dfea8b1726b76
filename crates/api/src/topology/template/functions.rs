//! The functions of templates: Go's own, and those of sprig that ask nothing of the outside.

use std::cmp::Ordering;

use serde_json::{Map, Value};

use super::{Result, TemplateError, failed, version};

/// What a value is as text.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(text).collect::<Vec<_>>().join(" ")),
        Value::Object(fields) => {
            let fields: Vec<_> = fields.iter().map(|(name, value)| format!("{name}:{}", text(value))).collect();
            format!("map[{}]", fields.join(" "))
        }
        Value::Number(number) => match number.as_f64() {
            Some(whole) if number.as_i64().is_none() && number.as_u64().is_none() => whole.to_string(),
            _ => number.to_string(),
        },
        other => other.to_string(),
    }
}

pub(super) fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}

fn number(value: &Value) -> i64 {
    match value {
        Value::Number(number) => number.as_i64().or_else(|| number.as_f64().map(|number| number as i64)).unwrap_or(0),
        Value::String(text) => text.parse().unwrap_or(0),
        Value::Bool(value) => (*value).into(),
        _ => 0,
    }
}

fn compare(left: &Value, right: &Value) -> Result<Ordering> {
    let order = match (left, right) {
        (Value::Number(left), Value::Number(right)) => left.as_f64().partial_cmp(&right.as_f64()),
        (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
        _ => None,
    };
    order.ok_or_else(|| TemplateError::Run(format!("incompatible types for comparison: {left} and {right}")))
}

fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => left.as_f64() == right.as_f64(),
        _ => left == right,
    }
}

/// The arguments of a call: as many as are asked for.
struct Arguments<'a>(&'a str, &'a [Value]);

impl Arguments<'_> {
    fn at(&self, index: usize) -> Result<&Value> {
        let count = self.1.len();
        self.1
            .get(index)
            .ok_or_else(|| TemplateError::Run(format!("wrong number of arguments for {}: {count} are too few", self.0)))
    }

    fn text(&self, index: usize) -> Result<String> {
        Ok(match self.at(index)? {
            Value::Null => String::new(),
            value => text(value),
        })
    }

    fn list(&self, index: usize) -> Result<Vec<Value>> {
        match self.at(index)? {
            Value::Array(items) => Ok(items.clone()),
            Value::Null => Ok(Vec::new()),
            other => failed(format!("{}: {} is no list", self.0, text(other))),
        }
    }

    fn last(&self) -> Result<&Value> {
        self.at(self.1.len().saturating_sub(1))
    }
}

pub(super) fn call(name: &str, arguments: Vec<Value>) -> Result<Value> {
    let given = Arguments(name, &arguments);
    if let Some(value) = texts(&given)? {
        return Ok(value);
    }
    if let Some(value) = collections(&given)? {
        return Ok(value);
    }
    Ok(match name {
        "not" => (!is_true(given.at(0)?)).into(),
        "eq" => {
            let first = given.at(0)?;
            given.at(1)?;
            arguments.iter().skip(1).any(|other| equal(first, other)).into()
        }
        "ne" => (!equal(given.at(0)?, given.at(1)?)).into(),
        "lt" => compare(given.at(0)?, given.at(1)?)?.is_lt().into(),
        "le" => compare(given.at(0)?, given.at(1)?)?.is_le().into(),
        "gt" => compare(given.at(0)?, given.at(1)?)?.is_gt().into(),
        "ge" => compare(given.at(0)?, given.at(1)?)?.is_ge().into(),
        "default" => match arguments.get(1) {
            Some(value) if is_true(value) => value.clone(),
            _ => given.at(0)?.clone(),
        },
        "empty" => (!is_true(given.at(0)?)).into(),
        "coalesce" => arguments.iter().find(|value| is_true(value)).cloned().unwrap_or(Value::Null),
        "ternary" => given.at(if is_true(given.at(2)?) { 0 } else { 1 })?.clone(),
        "fail" => return failed(given.text(0)?),
        "required" => match given.at(1)? {
            Value::Null => return failed(given.text(0)?),
            value => value.clone(),
        },
        "int" | "int64" | "atoi" => number(given.at(0)?).into(),
        "add" => arguments.iter().map(number).fold(0_i64, i64::wrapping_add).into(),
        "add1" => number(given.at(0)?).wrapping_add(1).into(),
        "sub" => number(given.at(0)?).wrapping_sub(number(given.at(1)?)).into(),
        "mul" => arguments.iter().map(number).fold(1_i64, i64::wrapping_mul).into(),
        "div" | "mod" => {
            let (left, right) = (number(given.at(0)?), number(given.at(1)?));
            let value = if name == "div" { left.checked_div(right) } else { left.checked_rem(right) };
            value.ok_or_else(|| TemplateError::Run("division by zero".to_owned()))?.into()
        }
        "max" => arguments.iter().map(number).max().unwrap_or(0).into(),
        "min" => arguments.iter().map(number).min().unwrap_or(0).into(),
        "semver" => {
            let text = given.text(0)?;
            version(&text).ok_or_else(|| TemplateError::Run(format!("{text:?} is no semantic version")))?
        }
        "semverCompare" => satisfies(&given.text(0)?, &given.text(1)?)?.into(),
        _ => return failed(not_defined(name)),
    })
}

fn not_defined(name: &str) -> String {
    format!("function {name:?} not defined")
}

/// Whether there is such a function: one that is has something to say about arguments that are missing.
pub(super) fn is_known(name: &str) -> bool {
    matches!(name, "and" | "or")
        || !matches!(call(name, Vec::new()), Err(TemplateError::Run(why)) if why == not_defined(name))
}

/// Functions of texts.
fn texts(given: &Arguments<'_>) -> Result<Option<Value>> {
    let all = || given.1.iter().map(text).collect::<Vec<_>>();
    Ok(Some(match given.0 {
        "print" => all().concat().into(),
        "println" => format!("{}\n", all().join(" ")).into(),
        "printf" => printf(&given.text(0)?, given.1.get(1..).unwrap_or_default())?.into(),
        "toString" => given.text(0)?.into(),
        "quote" => all().iter().map(|text| format!("{text:?}")).collect::<Vec<_>>().join(" ").into(),
        "squote" => all().iter().map(|text| format!("'{text}'")).collect::<Vec<_>>().join(" ").into(),
        "cat" => all().join(" ").into(),
        "trim" => given.text(0)?.trim().into(),
        "trimAll" => {
            let (cut, text) = (given.text(0)?, given.text(1)?);
            text.trim_matches(|c| cut.contains(c)).into()
        }
        "trimPrefix" => {
            let (cut, text) = (given.text(0)?, given.text(1)?);
            text.strip_prefix(cut.as_str()).unwrap_or(&text).into()
        }
        "trimSuffix" => {
            let (cut, text) = (given.text(0)?, given.text(1)?);
            text.strip_suffix(cut.as_str()).unwrap_or(&text).into()
        }
        "upper" => given.text(0)?.to_uppercase().into(),
        "lower" => given.text(0)?.to_lowercase().into(),
        "contains" => given.text(1)?.contains(&given.text(0)?).into(),
        "hasPrefix" => given.text(1)?.starts_with(&given.text(0)?).into(),
        "hasSuffix" => given.text(1)?.ends_with(&given.text(0)?).into(),
        "replace" => given.text(2)?.replace(&given.text(0)?, &given.text(1)?).into(),
        "trunc" => {
            let (length, text) = (number(given.at(0)?), given.text(1)?);
            let kept = usize::try_from(length.unsigned_abs()).unwrap_or(usize::MAX);
            let count = text.chars().count();
            match length < 0 {
                true => text.chars().skip(count.saturating_sub(kept)).collect::<String>().into(),
                false => text.chars().take(kept).collect::<String>().into(),
            }
        }
        "indent" | "nindent" => {
            let width = usize::try_from(number(given.at(0)?)).unwrap_or(0).min(super::OUTPUT_BYTES_MAX / 64);
            let pad = " ".repeat(width);
            let lines: Vec<_> = given.text(1)?.split('\n').map(|line| format!("{pad}{line}")).collect();
            let start = if given.0 == "nindent" { "\n" } else { "" };
            format!("{start}{}", lines.join("\n")).into()
        }
        "b64enc" => encode(given.text(0)?.as_bytes()).into(),
        "toJson" => given.at(0)?.to_string().into(),
        "regexMatch" => pattern(&given.text(0)?)?.is_match(&given.text(1)?).into(),
        "regexReplaceAll" => {
            let (pattern, text, by) = (pattern(&given.text(0)?)?, given.text(1)?, given.text(2)?);
            pattern.replace_all(&text, by.as_str()).into_owned().into()
        }
        "splitList" => {
            let (separator, text) = (given.text(0)?, given.text(1)?);
            text.split(separator.as_str()).map(Value::from).collect()
        }
        "join" => {
            let items: Vec<_> = given.list(1)?.iter().map(text).collect();
            items.join(&given.text(0)?).into()
        }
        _ => return Ok(None),
    }))
}

fn pattern(text: &str) -> Result<regex::Regex> {
    regex::RegexBuilder::new(text)
        .size_limit(256 * 1024)
        .build()
        .map_err(|error| TemplateError::Run(format!("{text:?} is no regular expression: {error}")))
}

/// Functions of lists and maps.
fn collections(given: &Arguments<'_>) -> Result<Option<Value>> {
    Ok(Some(match given.0 {
        "len" => match given.at(0)? {
            Value::String(text) => text.len().into(),
            Value::Array(items) => items.len().into(),
            Value::Object(fields) => fields.len().into(),
            other => return failed(format!("len of {}", text(other))),
        },
        "index" => {
            let mut value = given.at(0)?.clone();
            for key in given.1.get(1..).unwrap_or_default() {
                value = match (value, key) {
                    (Value::Array(items), Value::Number(index)) => {
                        let index = index.as_u64().and_then(|index| usize::try_from(index).ok());
                        let found = index.and_then(|index| items.get(index).cloned());
                        found.ok_or_else(|| TemplateError::Run(format!("index out of range: {key}")))?
                    }
                    (Value::Object(fields), key) => fields.get(&text(key)).cloned().unwrap_or(Value::Null),
                    (other, _) => return failed(format!("can't index {}", text(&other))),
                };
            }
            value
        }
        "list" | "tuple" => given.1.to_vec().into(),
        "first" => given.list(0)?.first().cloned().unwrap_or(Value::Null),
        "last" => given.list(0)?.last().cloned().unwrap_or(Value::Null),
        "rest" => given.list(0)?.into_iter().skip(1).collect(),
        "append" => {
            let mut items = given.list(0)?;
            items.push(given.at(1)?.clone());
            items.into()
        }
        "concat" => {
            let mut items = Vec::new();
            for index in 0..given.1.len() {
                items.extend(given.list(index)?);
            }
            items.into()
        }
        "uniq" => {
            let mut items = Vec::new();
            for item in given.list(0)? {
                if !items.contains(&item) {
                    items.push(item);
                }
            }
            items.into()
        }
        "has" => given.list(1)?.contains(given.at(0)?).into(),
        "dict" => {
            let mut fields = Map::new();
            for pair in given.1.chunks(2) {
                let [key, rest @ ..] = pair else { continue };
                fields.insert(text(key), rest.first().cloned().unwrap_or_else(|| "".into()));
            }
            fields.into()
        }
        "get" => given.at(0)?.get(given.text(1)?).cloned().unwrap_or_else(|| "".into()),
        "hasKey" => given.at(0)?.get(given.text(1)?).is_some().into(),
        "keys" => {
            let fields = given.last()?.as_object().cloned().unwrap_or_default();
            fields.keys().map(|name| Value::from(name.as_str())).collect()
        }
        _ => return Ok(None),
    }))
}

/// `%s`, `%d`, `%v`, `%q`, `%t` and `%%`, with a width for numbers (`%02d`).
fn printf(format: &str, arguments: &[Value]) -> Result<String> {
    let mut out = String::new();
    let mut arguments = arguments.iter();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut width = String::new();
        while let Some(digit) = chars.next_if(char::is_ascii_digit) {
            width.push(digit);
        }
        let verb = chars.next();
        if verb == Some('%') {
            out.push('%');
            continue;
        }
        let Some(argument) = arguments.next() else { return failed(format!("too few arguments for {format:?}")) };
        let value = match verb {
            Some('s' | 'v' | 't') => text(argument),
            Some('d') => number(argument).to_string(),
            Some('q') => format!("{:?}", text(argument)),
            other => return failed(format!("printf: %{} is not known here", other.unwrap_or(' '))),
        };
        let wide = width.parse::<usize>().unwrap_or(0).min(1024);
        let fill = if width.starts_with('0') && verb == Some('d') { '0' } else { ' ' };
        out.extend(std::iter::repeat_n(fill, wide.saturating_sub(value.chars().count())));
        out.push_str(&value);
    }
    Ok(out)
}

/// Base64 with padding (RFC 4648, section 4).
fn encode(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let at = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for place in 0..4 {
            let letter = (bits >> (18 - 6 * place) & 63) as usize;
            out.push(if place <= chunk.len() { char::from(ALPHABET[letter]) } else { '=' });
        }
    }
    out
}

fn numbers(value: &Value) -> [u64; 3] {
    ["Major", "Minor", "Patch"].map(|part| value[part].as_u64().unwrap_or(0))
}

/// Whether a version is within a range such as `>= 1.31.0, < 2` or `~1.30 || ^1.34.1`.
fn satisfies(range: &str, text: &str) -> Result<bool> {
    let unreadable = |text: &str| TemplateError::Run(format!("{text:?} is no semantic version"));
    let whole = version(text.trim()).ok_or_else(|| unreadable(text))?;
    let found = numbers(&whole);
    // A version before a release is in no range that does not name one (Masterminds/semver).
    let early = |bound: &str| whole["Prerelease"] != "" && !bound.contains('-');
    let part = |part: &str| -> Result<bool> {
        let end = part.find(|c: char| c.is_ascii_digit() || c == 'v').ok_or_else(|| unreadable(part))?;
        let (sign, bound) = part.split_at(end);
        let given = bound.split('-').next().unwrap_or(bound).split('.').count();
        let wanted = numbers(&version(bound.trim()).ok_or_else(|| unreadable(bound))?);
        if early(bound) {
            return Ok(false);
        }
        let [major, minor, _] = wanted;
        let next = |number: u64| number.saturating_add(1);
        Ok(match sign.trim() {
            "" | "=" => found == wanted,
            "!=" => found != wanted,
            ">" => found > wanted,
            ">=" | "=>" => found >= wanted,
            "<" => found < wanted,
            "<=" | "=<" => found <= wanted,
            "~" => found >= wanted && found < if given == 1 { [next(major), 0, 0] } else { [major, next(minor), 0] },
            "^" => found >= wanted && found < if major > 0 { [next(major), 0, 0] } else { [0, next(minor), 0] },
            other => return failed(format!("{other:?} is no comparison of versions")),
        })
    };
    for alternative in range.split("||") {
        // A sign and its version may stand apart.
        let joined = alternative.replace(',', " ");
        let mut parts: Vec<String> = Vec::new();
        for word in joined.split_whitespace() {
            match parts.last_mut().filter(|last| !last.contains(|c: char| c.is_ascii_digit())) {
                Some(last) => last.push_str(word),
                None => parts.push(word.to_owned()),
            }
        }
        let mut holds = true;
        for one in &parts {
            holds &= part(one)?;
        }
        if holds {
            return Ok(true);
        }
    }
    Ok(false)
}
