//! What `format` asks of texts. Drafts from 2019-09 on ask nothing: there it is a word for people.

use std::net::{Ipv4Addr, Ipv6Addr};

use jiff::civil;

use crate::{functions::expressions, version};

type Check = fn(&str) -> Result<(), String>;

/// Formats that are not named ask nothing either, as in the library.
const FORMATS: &[(&str, Check)] = &[
    ("date", date),
    ("date-time", date_time),
    ("duration", duration),
    ("email", email),
    ("hostname", hostname),
    ("ipv4", ipv4),
    ("ipv6", ipv6),
    ("iri", uri),
    ("iri-reference", uri_reference),
    ("json-pointer", pointer),
    ("regex", |text| expressions::built(text).map(drop)),
    ("semver", |text| version::Version::parse(text).map(drop).map_err(|_| "is no version".to_owned())),
    ("time", time),
    ("uri", uri),
    ("uri-reference", uri_reference),
    ("uuid", uuid),
];

/// Why a text is not of a format.
pub fn wrong(format: &str, text: &str) -> Option<String> {
    let (_, check) = FORMATS.iter().find(|(known, _)| *known == format)?;
    check(text).err()
}

fn fail(what: &str) -> Result<(), String> {
    Err(what.to_owned())
}

fn ipv4(text: &str) -> Result<(), String> {
    let parts: Vec<&str> = text.split('.').collect();
    if parts.len() != 4 {
        return fail("expected four decimals");
    }
    if parts.iter().any(|part| part.len() > 1 && part.starts_with('0')) {
        return fail("leading zeros");
    }
    text.parse::<Ipv4Addr>().map(drop).map_err(|_| "decimal must be between 0 and 255".to_owned())
}

fn ipv6(text: &str) -> Result<(), String> {
    if !text.contains(':') {
        return fail("missing colon");
    }
    text.parse::<Ipv6Addr>().map(drop).map_err(|error| error.to_string())
}

fn hostname(text: &str) -> Result<(), String> {
    let text = text.strip_suffix('.').unwrap_or(text);
    if text.len() > 253 {
        return fail("more than 253 characters long");
    }
    for label in text.split('.') {
        if label.is_empty() || label.len() > 63 {
            return fail("label must be 1 to 63 characters long");
        }
        if label.starts_with('-') {
            return fail("label starts with hyphen");
        }
        if label.ends_with('-') {
            return fail("label ends with hyphen");
        }
        if let Some(c) = label.chars().find(|c| !c.is_ascii_alphanumeric() && *c != '-') {
            return Err(format!("invalid character {}", crate::template::text::quoted_char(c)));
        }
    }
    Ok(())
}

fn email(text: &str) -> Result<(), String> {
    if text.len() > 255 {
        return fail("more than 255 characters long");
    }
    let Some((local, domain)) = text.rsplit_once('@') else { return fail("missing @") };
    if local.len() > 64 {
        return fail("local part more than 64 characters long");
    }
    if local.starts_with('.') {
        return fail("starts with dot");
    }
    if local.ends_with('.') {
        return fail("ends with dot");
    }
    if local.contains("..") {
        return fail("consecutive dots");
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || ".!#$%&'*+-/=?^_`{|}~".contains(c);
    let is_quoted = local.len() > 1 && local.starts_with('"') && local.ends_with('"');
    if let Some(c) = local.chars().find(|c| !is_quoted && !plain(*c)) {
        return Err(format!("invalid character {}", crate::template::text::quoted_char(c)));
    }
    hostname(domain).map_err(|what| format!("invalid domain: {what}"))
}

fn date(text: &str) -> Result<(), String> {
    let number = |range: std::ops::Range<usize>| {
        text.get(range).filter(|part| part.bytes().all(|b| b.is_ascii_digit()))?.parse::<i16>().ok()
    };
    let parts = || Some((number(0..4)?, i8::try_from(number(5..7)?).ok()?, i8::try_from(number(8..10)?).ok()?));
    match parts() {
        Some((year, month, day)) if text.len() == 10 && &text[4..5] == "-" && &text[7..8] == "-" => {
            civil::Date::new(year, month, day).map(drop).map_err(|_| "day out of range".to_owned())
        }
        _ => fail("is no date as 2006-01-02"),
    }
}

/// As `10:20:30.5Z` or `10:20:30+02:00`.
fn time(text: &str) -> Result<(), String> {
    const SHAPE: &str = "is no time as 15:04:05Z";
    if text.len() < 9 {
        return fail("less than 9 characters long");
    }
    let pair =
        |at: usize| text.get(at..at + 2).filter(|part| part.bytes().all(|b| b.is_ascii_digit()))?.parse::<u8>().ok();
    let (Some(hour), Some(minute), Some(second)) = (pair(0), pair(3), pair(6)) else { return fail(SHAPE) };
    if text.get(2..3) != Some(":") || text.get(5..6) != Some(":") {
        return fail(SHAPE);
    }
    let mut rest = &text[8..];
    if let Some(fraction) = rest.strip_prefix('.') {
        let left = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
        if left.len() == fraction.len() {
            return fail("no digits in second fraction");
        }
        rest = left;
    }
    let offset = match rest.as_bytes() {
        [b'z' | b'Z'] => 0,
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let at = text.len() - rest.len();
            let (Some(hours), Some(minutes)) = (pair(at + 1), pair(at + 4)) else { return fail(SHAPE) };
            if hours > 23 || minutes > 59 {
                return fail("hour/min in offset out of range");
            }
            let size = i32::from(hours) * 60 + i32::from(minutes);
            if *sign == b'+' { size } else { -size }
        }
        _ => return fail("offset must be Z or 6 characters long"),
    };
    if hour > 23 || minute > 59 || second > 60 {
        return fail("hour/min/sec out of range");
    }
    let utc = (i32::from(hour) * 60 + i32::from(minute) - offset).rem_euclid(24 * 60);
    if second == 60 && utc != 23 * 60 + 59 { fail("invalid leap second") } else { Ok(()) }
}

fn date_time(text: &str) -> Result<(), String> {
    match (text.get(..10), text.get(10..11), text.get(11..)) {
        (Some(day), Some("t" | "T"), Some(clock)) => {
            date(day).map_err(|what| format!("invalid date element: {what}"))?;
            time(clock).map_err(|what| format!("invalid time element: {what}"))
        }
        (_, Some(_), _) => fail("11th character must be t or T"),
        _ => fail("less than 20 characters long"),
    }
}

/// `P1Y2M3DT4H5M6S` or `P1W`.
fn duration(text: &str) -> Result<(), String> {
    let Some(rest) = text.strip_prefix('P') else { return fail("must start with P") };
    let (days, clock) = rest.split_once('T').map_or((rest, None), |(days, clock)| (days, Some(clock)));
    if rest.is_empty() {
        return fail("nothing after P");
    }
    if clock == Some("") {
        return fail("no time elements");
    }
    let units = |text: &str, known: &str| {
        let (mut rest, mut known) = (text, known);
        while !rest.is_empty() {
            let unit = rest.trim_start_matches(|c: char| c.is_ascii_digit());
            if unit.len() == rest.len() {
                return fail("missing number");
            }
            let Some(c) = unit.chars().next() else { return fail("missing unit") };
            let Some(at) = known.find(c) else { return fail("invalid unit, or out of order") };
            (known, rest) = (&known[at + 1..], &unit[c.len_utf8()..]);
        }
        Ok(())
    };
    let weeks = days.strip_suffix('W').filter(|_| clock.is_none());
    match weeks {
        Some(weeks) => units(&format!("{weeks}W"), "W"),
        None => units(days, "YMD").and_then(|()| units(clock.unwrap_or_default(), "HMS")),
    }
}

fn uuid(text: &str) -> Result<(), String> {
    let parts: Vec<&str> = text.split('-').collect();
    let lengths = [8, 4, 4, 4, 12];
    if parts.len() != lengths.len() {
        return fail("must have 5 elements");
    }
    for (at, (part, length)) in parts.iter().zip(lengths).enumerate() {
        if part.len() != length {
            return Err(format!("element {} must be {length} characters long", at + 1));
        }
        if let Some(c) = part.chars().find(|c| !c.is_ascii_hexdigit()) {
            return Err(format!("non-hex character {}", crate::template::text::quoted_char(c)));
        }
    }
    Ok(())
}

fn pointer(text: &str) -> Result<(), String> {
    if !text.is_empty() && !text.starts_with('/') {
        return fail("not starting with /");
    }
    let odd = text.split('~').skip(1).any(|part| !part.starts_with(['0', '1']));
    if odd { fail("~ must be followed by 0 or 1") } else { Ok(()) }
}

fn uri(text: &str) -> Result<(), String> {
    uri_reference(text)?;
    let scheme = text.split_once(':').map_or("", |(scheme, _)| scheme);
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    if is_scheme { Ok(()) } else { fail("relative url") }
}

fn uri_reference(text: &str) -> Result<(), String> {
    if text.contains('\\') {
        return fail("contains \\");
    }
    if text.contains(|c: char| c.is_control() || " <>\"{}|^`".contains(c)) {
        return fail("contains what is in no URL");
    }
    let mut escapes = text.split('%').skip(1);
    let is_byte = |part: &str| part.get(..2).is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
    if escapes.all(is_byte) { Ok(()) } else { fail("invalid URL escape") }
}
