//! Strings and numbers as Go writes and reads them (`strconv`).

/// As `strconv.Quote`.
pub fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        escape(&mut out, c, '"');
    }
    out.push('"');
    out
}

/// As `strconv.QuoteRune`.
pub fn quoted_char(c: char) -> String {
    let mut out = String::from("'");
    escape(&mut out, c, '\'');
    out.push('\'');
    out
}

fn escape(out: &mut String, c: char, quote: char) {
    use std::fmt::Write;
    match c {
        '\\' => out.push_str("\\\\"),
        _ if c == quote => {
            out.push('\\');
            out.push(c);
        }
        _ if is_printable(c) => out.push(c),
        '\x07' => out.push_str("\\a"),
        '\x08' => out.push_str("\\b"),
        '\x0c' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\x0b' => out.push_str("\\v"),
        '\0'..='\x1f' | '\x7f' => drop(write!(out, "\\x{:02x}", u32::from(c))),
        '\u{10000}'.. => drop(write!(out, "\\U{:08x}", u32::from(c))),
        _ => drop(write!(out, "\\u{:04x}", u32::from(c))),
    }
}

/// Letters, marks, numbers, punctuation, symbols and the space: `unicode.IsPrint`.
pub fn is_printable(c: char) -> bool {
    if c.is_ascii() {
        return (' '..='~').contains(&c);
    }
    // The standard library knows, but only says it so: behind another character it escapes what cannot be printed.
    let mut pair = String::from("a");
    pair.push(c);
    pair.escape_debug().count() == 2
}

/// What a quoted, raw or character constant says; nothing if it is malformed.
pub fn unquoted(text: &str) -> Option<String> {
    let quote = text.chars().next()?;
    let inner = text.strip_prefix(quote)?.strip_suffix(quote)?;
    match quote {
        '`' => return Some(inner.replace('\r', "")),
        '"' | '\'' => {}
        _ => return None,
    }
    let mut out = String::new();
    let mut rest = inner;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            '\\' => {
                let (c, left) = unescaped(rest, quote)?;
                out.push(c);
                rest = left;
            }
            '\n' => return None,
            _ if c == quote => return None,
            _ => out.push(c),
        }
    }
    Some(out)
}

/// The character behind a backslash, and what follows it. Bytes that are no characters (`\xff`) cannot be had here.
fn unescaped(rest: &str, quote: char) -> Option<(char, &str)> {
    let c = rest.chars().next()?;
    let left = &rest[c.len_utf8()..];
    let plain = match c {
        'a' => '\x07',
        'b' => '\x08',
        'f' => '\x0c',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\x0b',
        '\\' => '\\',
        '\'' | '"' if c == quote => c,
        'x' => return coded(left, 2, 16).filter(|(c, _)| c.is_ascii()),
        'u' => return coded(left, 4, 16),
        'U' => return coded(left, 8, 16),
        '0'..='7' => return coded(rest, 3, 8).filter(|(c, _)| c.is_ascii()),
        _ => return None,
    };
    Some((plain, left))
}

fn coded(text: &str, digits: usize, base: u32) -> Option<(char, &str)> {
    let number = text.get(..digits)?;
    if !number.chars().all(|c| c.is_digit(base)) {
        return None;
    }
    Some((char::from_u32(u32::from_str_radix(number, base).ok()?)?, &text[digits..]))
}

/// A whole number as Go's `ParseInt(text, 0, 64)` reads it: sign, base by prefix, `_` where Go allows it. Wide enough for both
/// signed and unsigned.
pub fn whole(text: &str) -> Option<i128> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let (base, body) = match lower.get(..2) {
        Some("0x") => (16, &digits[2..]),
        Some("0o") => (8, &digits[2..]),
        Some("0b") => (2, &digits[2..]),
        _ if digits.len() > 1 && digits.starts_with('0') => (8, &digits[1..]),
        _ => (10, digits),
    };
    let misplaced = body.contains("__") || body.ends_with('_') || (base == 10 && body.starts_with('_'));
    if body.is_empty() || misplaced || body.starts_with(['+', '-']) {
        return None;
    }
    let number = i128::from_str_radix(&body.replace('_', ""), base).ok()?;
    Some(if negative { -number } else { number })
}

/// As `strconv.ParseFloat` reads it; hexadecimal mantissas are not known here.
pub fn float(text: &str) -> Option<f64> {
    let body = text.trim_start_matches(['+', '-']);
    if body.is_empty() || text.len() - body.len() > 1 {
        return None;
    }
    let number: f64 = match body.to_ascii_lowercase().as_str() {
        "inf" | "infinity" => f64::INFINITY,
        "nan" => f64::NAN,
        _ if body.starts_with(|c: char| c.is_ascii_digit() || c == '.') => {
            body.parse().ok().filter(|n: &f64| n.is_finite())?
        }
        _ => return None,
    };
    Some(if text.starts_with('-') { -number } else { number })
}

/// A float with Go's verbs: `e`, `f`, `g` (and `E`, `G`), shortest without a precision. The sign is in it.
pub fn float_text(number: f64, verb: char, precision: Option<usize>) -> String {
    if number.is_nan() {
        return "NaN".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let text = match verb.to_ascii_lowercase() {
        'f' => match precision {
            Some(precision) => format!("{number:.precision$}"),
            None => format!("{number}"),
        },
        'e' => exponential(number, precision),
        _ => general(number, precision),
    };
    if verb.is_ascii_uppercase() { text.to_uppercase() } else { text }
}

fn exponential(number: f64, precision: Option<usize>) -> String {
    let text = match precision {
        Some(precision) => format!("{number:.precision$e}"),
        None => format!("{number:e}"),
    };
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, digits) = match exponent.strip_prefix('-') {
        Some(digits) => ('-', digits),
        None => ('+', exponent),
    };
    format!("{mantissa}e{sign}{digits:0>2}")
}

/// `%g`: with an exponent where it is below -4 or not below the precision, which is 6 for the shortest form.
fn general(number: f64, precision: Option<usize>) -> String {
    let digits = precision.map(|precision| precision.max(1));
    let scientific = match digits {
        Some(digits) => format!("{number:.*e}", digits - 1),
        None => format!("{number:e}"),
    };
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let mantissa = if mantissa.contains('.') { mantissa.trim_end_matches('0').trim_end_matches('.') } else { mantissa };
    let threshold = digits.map_or(SHORTEST_PRECISION, |digits| i32::try_from(digits).unwrap_or(i32::MAX));
    if exponent < -4 || exponent >= threshold {
        let (sign, size) = if exponent < 0 { ('-', -exponent) } else { ('+', exponent) };
        return format!("{mantissa}e{sign}{size:02}");
    }
    let significant = mantissa.chars().filter(char::is_ascii_digit).count();
    let decimals = i32::try_from(significant).unwrap_or(0) - 1 - exponent;
    format!("{number:.*}", usize::try_from(decimals).unwrap_or(0))
}

const SHORTEST_PRECISION: i32 = 6;
