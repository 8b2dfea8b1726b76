//! Text (cel-go `common/stdlib`, `ext/strings.go`, `ext/formatting.go`). Places in a text are counted in characters.

use super::{Fault, Function, List, Meter, Opaque, Result, Text, Value, convert, time};

pub(super) fn find(name: &str) -> Option<Function> {
    Some(match name {
        "contains" => |meter, args| holds(meter, args, |text, part| text.contains(part)),
        "startsWith" => |meter, args| holds(meter, args, |text, part| text.starts_with(part)),
        "endsWith" => |meter, args| holds(meter, args, |text, part| text.ends_with(part)),
        "lowerAscii" => |meter, args| map(meter, args, str::to_ascii_lowercase),
        "upperAscii" => |meter, args| map(meter, args, str::to_ascii_uppercase),
        "trim" => |meter, args| map(meter, args, |text| text.trim().to_owned()),
        "strings.quote" => |meter, args| map(meter, args, quoted),
        "charAt" => |meter, args| match args {
            [Value::String(text), Value::Int(at)] => {
                meter.work(text.as_str().len() as u64 / 8)?;
                let out = || Fault::failed(format!("index out of range: {at}"));
                let at = usize::try_from(*at).map_err(|_| out())?;
                match text.as_str().chars().nth(at) {
                    Some(found) => Ok(Value::text(found.to_string())),
                    None if at == text.as_str().chars().count() => Ok(Value::text("")),
                    None => Err(out()),
                }
            }
            _ => Err(Fault::overload()),
        },
        "replace" => replace,
        "split" => split,
        "substring" => substring,
        "join" => join,
        "format" => format,
        _ => return None,
    })
}

fn holds<'v>(meter: &mut Meter, args: &[Value<'v>], f: fn(&str, &str) -> bool) -> Result<Value<'v>> {
    let [Value::String(text), Value::String(part)] = args else { return Err(Fault::overload()) };
    meter.work(text.as_str().len() as u64 / 16)?;
    Ok(Value::Bool(f(text.as_str(), part.as_str())))
}

fn map<'v>(meter: &mut Meter, args: &[Value<'v>], f: fn(&str) -> String) -> Result<Value<'v>> {
    let [Value::String(text)] = args else { return Err(Fault::overload()) };
    meter.make(text.as_str().len())?;
    Ok(Value::text(f(text.as_str())))
}

fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// `indexOf` and `lastIndexOf` of texts.
pub(super) fn index_of<'v>(meter: &mut Meter, args: &[Value<'v>], last: bool) -> Result<Value<'v>> {
    let (text, part, offset) = match args {
        [Value::String(text), Value::String(part)] => (text.as_str(), part.as_str(), None),
        [Value::String(text), Value::String(part), Value::Int(at)] => (text.as_str(), part.as_str(), Some(*at)),
        _ => return Err(Fault::overload()),
    };
    meter.work(text.len() as u64 / 4)?;
    let chars = text.chars().count();
    if part.is_empty() {
        let end = i64::try_from(chars).unwrap_or(i64::MAX);
        return Ok(Value::Int(offset.unwrap_or(if last { end } else { 0 })));
    }
    let out = |at: i64| Fault::failed(format!("index out of range: {at}"));
    let byte = |at: i64| {
        let place = usize::try_from(at).ok().filter(|place| *place < chars.max(1))?;
        text.char_indices().map(|(byte, _)| byte).chain([text.len()]).nth(place)
    };
    let found = match (offset, last) {
        (None, false) => text.find(part),
        (None, true) => text.rfind(part),
        (Some(at), false) => {
            let from = byte(at).ok_or_else(|| out(at))?;
            text[from..].find(part).map(|found| found + from)
        }
        (Some(at), true) => {
            let from = byte(at).ok_or_else(|| out(at))?;
            text.match_indices(part).map(|(found, _)| found).take_while(|found| *found <= from).last()
        }
    };
    Ok(Value::Int(match found {
        Some(byte) => i64::try_from(text[..byte].chars().count()).unwrap_or(i64::MAX),
        None => -1,
    }))
}

fn replace<'v>(meter: &mut Meter, args: &[Value<'v>]) -> Result<Value<'v>> {
    let (text, from, to, limit) = match args {
        [Value::String(text), Value::String(from), Value::String(to)] => (text, from, to, -1),
        [Value::String(text), Value::String(from), Value::String(to), Value::Int(limit)] => (text, from, to, *limit),
        _ => return Err(Fault::overload()),
    };
    let (text, from, to) = (text.as_str(), from.as_str(), to.as_str());
    meter.work(text.len() as u64 / 8)?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let count = text.matches(from).count().min(limit);
    meter.make(text.len().saturating_add(count.saturating_mul(to.len())))?;
    Ok(Value::text(text.replacen(from, to, limit)))
}

fn split<'v>(meter: &mut Meter, args: &[Value<'v>]) -> Result<Value<'v>> {
    let (text, by, limit) = match args {
        [Value::String(text), Value::String(by)] => (text, by, -1),
        [Value::String(text), Value::String(by), Value::Int(limit)] => (text, by, *limit),
        _ => return Err(Fault::overload()),
    };
    let (text, by) = (text.as_str(), by.as_str());
    meter.work(text.len() as u64 / 8)?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let parts: Vec<&str> = if limit == 0 {
        Vec::new()
    } else if by.is_empty() {
        // Go takes the text apart into characters, the rest in one piece.
        let mut ends: Vec<usize> = text.char_indices().map(|(at, _)| at).skip(1).take(limit - 1).collect();
        ends.push(text.len());
        let mut start = 0;
        let pieces = ends.into_iter().map(|end| &text[std::mem::replace(&mut start, end)..end]);
        pieces.filter(|piece| !piece.is_empty()).collect()
    } else {
        text.splitn(limit, by).collect()
    };
    meter.make(parts.iter().map(|part| part.len() + size_of::<Value<'_>>()).sum())?;
    Ok(Value::made(parts.into_iter().map(|part| Value::text(part.to_owned())).collect()))
}

fn substring<'v>(meter: &mut Meter, args: &[Value<'v>]) -> Result<Value<'v>> {
    let (text, start, end) = match args {
        [Value::String(text), Value::Int(start)] => (text, *start, None),
        [Value::String(text), Value::Int(start), Value::Int(end)] => (text, *start, Some(*end)),
        _ => return Err(Fault::overload()),
    };
    let text = text.as_str();
    meter.make(text.len())?;
    let chars = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
    let Some(end) = end.or_else(|| (0..=chars).contains(&start).then_some(chars)) else {
        return Err(Fault::failed(format!("index out of range: {start}")));
    };
    if start > end {
        return Err(Fault::failed(format!("invalid substring range. start: {start}, end: {end}")));
    }
    if start < 0 || start > chars {
        return Err(Fault::failed(format!("index out of range: {start}")));
    }
    if end < 0 || end > chars {
        return Err(Fault::failed(format!("index out of range: {end}")));
    }
    let (skip, take) = (usize::try_from(start).unwrap_or(0), usize::try_from(end - start).unwrap_or(0));
    Ok(Value::text(text.chars().skip(skip).take(take).collect::<String>()))
}

fn join<'v>(meter: &mut Meter, args: &[Value<'v>]) -> Result<Value<'v>> {
    let (list, by) = match args {
        [Value::List(list)] => (list, ""),
        [Value::List(list), Value::String(by)] => (list, by.as_str()),
        _ => return Err(Fault::overload()),
    };
    let mut out = String::new();
    for (at, item) in list.iter().enumerate() {
        let item = item?;
        let Value::String(text) = &item else { return Err(Fault::overload()) };
        meter.make(text.as_str().len() + by.len())?;
        if at > 0 {
            out.push_str(by);
        }
        out.push_str(text.as_str());
    }
    Ok(Value::text(out))
}

/// A clause may ask for so many digits at most.
const PRECISION_MAX: usize = 1000;

fn format<'v>(meter: &mut Meter, args: &[Value<'v>]) -> Result<Value<'v>> {
    let [Value::String(text), Value::List(list)] = args else { return Err(Fault::overload()) };
    let mut out = String::new();
    let mut chars = text.as_str().chars().peekable();
    let mut next = 0;
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        if chars.next_if_eq(&'%').is_some() {
            out.push('%');
            continue;
        }
        let mut precision = None;
        if chars.next_if_eq(&'.').is_some() {
            let mut digits = String::new();
            while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            let value = digits.parse::<usize>().ok().filter(|value| *value <= PRECISION_MAX);
            precision = Some(value.ok_or_else(|| Fault::failed("error while parsing precision"))?);
        }
        let clause = chars.next().ok_or_else(|| Fault::failed("unexpected end of string"))?;
        let item = list.get(next).ok_or_else(|| Fault::failed(format!("index {next} out of range")))??;
        next += 1;
        let shown = clause_text(clause, precision, &item)?;
        meter.make(shown.len())?;
        out.push_str(&shown);
    }
    meter.make(out.len())?;
    Ok(Value::text(out))
}

fn clause_text(clause: char, precision: Option<usize>, value: &Value<'_>) -> Result<String> {
    let wrong = |takes: &str| {
        let name = value.type_().name();
        Fault::failed(format!("error during formatting: {takes}, was given {name}"))
    };
    Ok(match (clause, value) {
        ('s', value) => plain(value)?,
        ('d', Value::Int(value)) => value.to_string(),
        ('d', Value::Uint(value)) => value.to_string(),
        ('d', _) => return Err(wrong("decimal clause can only be used on integers")),
        ('f' | 'e', Value::Double(value)) if !value.is_finite() => convert::double(*value),
        ('f', Value::Double(value)) => format!("{value:.*}", precision.unwrap_or(6)),
        ('e', Value::Double(value)) => scientific(*value, precision.unwrap_or(6)),
        ('f' | 'e', _) => return Err(wrong("fixed-point clause can only be used on doubles")),
        ('b', Value::Bool(value)) => u8::from(*value).to_string(),
        ('b', Value::Int(value)) => signed(*value, |n| format!("{n:b}")),
        ('b', Value::Uint(value)) => format!("{value:b}"),
        ('b', _) => return Err(wrong("only integers and bools can be formatted as binary")),
        ('o', Value::Int(value)) => signed(*value, |n| format!("{n:o}")),
        ('o', Value::Uint(value)) => format!("{value:o}"),
        ('o', _) => return Err(wrong("octal clause can only be used on integers")),
        ('x', Value::Int(value)) => signed(*value, |n| format!("{n:x}")),
        ('X', Value::Int(value)) => signed(*value, |n| format!("{n:X}")),
        ('x', Value::Uint(value)) => format!("{value:x}"),
        ('X', Value::Uint(value)) => format!("{value:X}"),
        ('x', Value::String(text)) => text.as_str().bytes().map(|byte| format!("{byte:02x}")).collect(),
        ('X', Value::String(text)) => text.as_str().bytes().map(|byte| format!("{byte:02X}")).collect(),
        ('x', Value::Bytes(bytes)) => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        ('X', Value::Bytes(bytes)) => bytes.iter().map(|byte| format!("{byte:02X}")).collect(),
        ('x' | 'X', _) => return Err(wrong("only integers, byte buffers, and strings can be formatted as hex")),
        (other, _) => {
            return Err(Fault::failed(format!(
                "could not parse formatting clause: unrecognized formatting clause {other:?}"
            )));
        }
    })
}

fn signed(value: i64, f: fn(u64) -> String) -> String {
    let sign = if value < 0 { "-" } else { "" };
    format!("{sign}{}", f(value.unsigned_abs()))
}

/// As `3.140000×10⁰⁰`.
fn scientific(value: f64, precision: usize) -> String {
    const RAISED: [char; 10] = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];
    let text = format!("{value:.precision$e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = exponent.strip_prefix('-').map_or(("", exponent), |rest| ("⁻", rest));
    let raised: String =
        format!("{exponent:0>2}").chars().filter_map(|c| RAISED.get(usize::try_from(c.to_digit(10)?).ok()?)).collect();
    format!("{digits}×10{sign}{raised}")
}

/// Lists and maps within each other may be shown this deep.
const SHOWN_DEPTH_MAX: usize = 64;

fn plain(value: &Value<'_>) -> Result<String> {
    show(value, false, SHOWN_DEPTH_MAX)
}

fn show(value: &Value<'_>, inner: bool, depth: usize) -> Result<String> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err(Fault::failed("value is nested too deep to be formatted"));
    };
    Ok(match value {
        Value::String(text) if inner => quoted(text.as_str()),
        Value::String(text) => text.as_str().to_owned(),
        Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Uint(value) => value.to_string(),
        Value::Double(value) => convert::double(*value),
        Value::Duration(nanos) => time::duration_text(*nanos),
        Value::Timestamp(stamp) => time::timestamp_text(*stamp),
        Value::Type(type_) => type_.name().to_owned(),
        Value::List(list) => list_text(list, depth)?,
        Value::Map(map) => {
            let entry = |key: super::Key<'_>| {
                let value = map.find(&key).unwrap_or(Ok(Value::Null))?;
                Ok(format!("{}:{}", show(&key.value(), true, depth)?, show(&value, true, depth)?))
            };
            let entries: Vec<String> = map.keys().into_iter().map(entry).collect::<Result<_>>()?;
            format!("{{{}}}", entries.join(", "))
        }
        Value::Opaque(Opaque::Ip(ip)) => ip.to_string(),
        Value::Opaque(Opaque::Cidr(ip, bits)) => format!("{ip}/{bits}"),
        Value::Optional(_) | Value::Opaque(_) | Value::Message(_) => {
            let text = "string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, durations, and timestamps";
            return Err(Fault::failed(format!("error during formatting: {text}, was given {}", value.type_().name())));
        }
    })
}

fn list_text(list: &List<'_>, depth: usize) -> Result<String> {
    let items: Vec<String> = list.iter().map(|item| show(&item?, true, depth)).collect::<Result<_>>()?;
    Ok(format!("[{}]", items.join(", ")))
}

impl<'a> From<&Text<'a>> for Value<'a> {
    fn from(text: &Text<'a>) -> Self {
        Value::String(text.clone())
    }
}
