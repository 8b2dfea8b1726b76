//! `format` of strings and numbers. Known here are the formats that CRDs may use (upstream:
//! `apiextensions-apiserver/pkg/apiserver/validation/formats.go`), but for isbn*, creditcard and ssn, which are published
//! and not checked; unknown ones mean nothing, as upstream.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    sync::LazyLock,
};

use base64::Engine;
use regex::Regex;
use serde_json::{Number, Value};

use super::Type;

const STRINGS: [&str; 26] = [
    "bsonobjectid",
    "uri",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "cidr",
    "mac",
    "uuid",
    "uuid3",
    "uuid4",
    "uuid5",
    "isbn",
    "isbn10",
    "isbn13",
    "creditcard",
    "ssn",
    "hexcolor",
    "rgbcolor",
    "byte",
    "password",
    "date",
    "duration",
    "datetime",
    "k8sshortname",
    "k8slongname",
];

fn normal(name: &str) -> String {
    name.replace('-', "")
}

/// The formats of a schema, and of all that lies below it, that say nothing of values of their type, in their order; each once.
pub(crate) fn unknown(schema: &Value, found: &mut Vec<String>) {
    let Some(map) = schema.as_object() else { return };
    if let Some(format) = map.get("format").and_then(Value::as_str).filter(|format| !format.is_empty()) {
        let name = map.get("type").and_then(Value::as_str).unwrap_or_default();
        let type_ = Type::ALL.into_iter().find(|type_| type_.name() == name);
        if !is_known(type_, format) && !found.iter().any(|known| known == format) {
            found.push(format.to_owned());
        }
    }
    super::parse::each_below(map, |inner| unknown(inner, found));
}

/// Whether the format says anything of values of this type.
pub(super) fn is_known(type_: Option<Type>, name: &str) -> bool {
    match type_ {
        None | Some(Type::String) => STRINGS.contains(&normal(name).as_str()),
        Some(Type::Integer) => matches!(name, "int32" | "int64"),
        Some(Type::Number) => matches!(name, "float" | "double"),
        Some(Type::Object | Type::Array | Type::Boolean) => false,
    }
}

pub(super) fn fits(format: &str, number: &Number) -> bool {
    let whole = number.as_i64().map(i128::from).or(number.as_u64().map(i128::from));
    match format {
        "int32" => whole.is_none_or(|value| i32::try_from(value).is_ok()),
        "int64" => whole.is_none_or(|value| i64::try_from(value).is_ok()),
        _ => true,
    }
}

macro_rules! pattern {
    ($name:ident, $text:literal) => {
        static $name: LazyLock<Regex> = LazyLock::new(|| Regex::new($text).expect("a literal that a test compiles"));
    };
}

pattern!(BSON, "^[0-9a-fA-F]{24}$");
pattern!(EMAIL, r"^[^@\s<>,;]+@[^@\s<>,;]+$");
pattern!(HEX_COLOR, "^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$");
pattern!(RGB_COLOR, r"^rgb\(\s*(\d{1,3})\s*,\s*(\d{1,3})\s*,\s*(\d{1,3})\s*\)$");
pattern!(
    MAC,
    "^([0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}(([:-][0-9a-fA-F]{2}){2})?|[0-9a-fA-F]{4}([.][0-9a-fA-F]{4}){2,3})$"
);
pattern!(
    DURATION,
    r"^[-+]?(0|(\d+(\.\d*)?|\.\d+)\s*(ns|us|µs|ms|s|m|h|d|w|(nano|micro|milli)(second)?s?|seconds?|minutes?|hours?|days?|weeks?))+$"
);
pattern!(QUANTITY, r"^[+-]?(\d+(\.\d*)?|\.\d+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?\d+)?$");
pattern!(URI, r"^([a-zA-Z][a-zA-Z0-9+.-]*:\S+|/\S*)$");

/// Hexadecimal digits in groups of 8, 4, 4, 4 and 12, with or without dashes; `version` is the third group's first digit.
fn is_uuid(text: &str, version: Option<char>) -> bool {
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    let dashes_fit = text.char_indices().all(|(at, c)| c != '-' || matches!(at, 8 | 12 | 13 | 16 | 17 | 18 | 20..=23));
    let variant = matches!(version, Some('4' | '5'));
    digits.len() == 32
        && digits.bytes().all(|c| c.is_ascii_hexdigit())
        && dashes_fit
        && version.is_none_or(|version| digits.chars().nth(12) == Some(version))
        && (!variant || digits.chars().nth(16).is_some_and(|c| "89abAB".contains(c)))
}

fn is_label(label: &str, max: usize) -> bool {
    let inner = |c: u8| c.is_ascii_alphanumeric() || c == b'-';
    !label.is_empty()
        && label.len() <= max
        && label.bytes().all(inner)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

fn is_lower(text: &str) -> bool {
    !text.bytes().any(|c| c.is_ascii_uppercase())
}

fn is_hostname(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    text.len() <= 253 && text.split('.').all(|label| is_label(label, 63))
}

fn is_cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else { return false };
    let plain = !bits.is_empty() && bits.len() <= 3 && bits.bytes().all(|c| c.is_ascii_digit());
    let bits: u8 = bits.parse().unwrap_or(u8::MAX);
    let max = match address.parse() {
        Ok(std::net::IpAddr::V4(_)) => 32,
        Ok(std::net::IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    plain && bits <= max
}

fn is_date_time(text: &str) -> bool {
    // RFC 3339 has an offset; jiff alone would accept forms of RFC 9557 as well.
    let plain = text.bytes().all(|c| c.is_ascii_digit() || b"-:.+TtZz ".contains(&c));
    plain && text.parse::<jiff::Timestamp>().is_ok()
}

pub(super) fn holds(format: &str, text: &str) -> bool {
    match normal(format).as_str() {
        "bsonobjectid" => BSON.is_match(text),
        "uri" => URI.is_match(text),
        "email" => EMAIL.is_match(text),
        "hostname" => is_hostname(text),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => is_cidr(text),
        "mac" => MAC.is_match(text),
        "uuid" => is_uuid(text, None),
        "uuid3" => is_uuid(text, Some('3')),
        "uuid4" => is_uuid(text, Some('4')),
        "uuid5" => is_uuid(text, Some('5')),
        "hexcolor" => HEX_COLOR.is_match(text),
        "rgbcolor" => RGB_COLOR.is_match(text),
        "byte" => base64::engine::general_purpose::STANDARD.decode(text).is_ok(),
        "date" => text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok(),
        "datetime" => is_date_time(text),
        "duration" => DURATION.is_match(text),
        "quantity" => QUANTITY.is_match(text),
        "k8sshortname" => is_label(text, 63) && is_lower(text),
        "k8slongname" => {
            !text.is_empty() && text.len() <= 253 && is_lower(text) && text.split('.').all(|part| is_label(part, 253))
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn formats_tell_right_from_wrong() {
        let cases = [
            ("date-time", "2026-01-02T03:04:05Z", "2026-01-02T03:04:05"),
            ("date-time", "2026-01-02T03:04:05.123456+02:00", "2026-01-02T03:04:05Z[UTC]"),
            ("date", "2026-02-28", "2026-02-30"),
            ("byte", "aGk=", "aGk"),
            ("uuid", "123e4567-e89b-12d3-a456-426614174000", "123e4567-e89b-12d3-a456-42661417400g"),
            ("uuid4", "123e4567-e89b-42d3-a456-426614174000", "123e4567-e89b-12d3-a456-426614174000"),
            ("ipv4", "10.0.0.1", "10.0.0.256"),
            ("ipv6", "fe80::1", "10.0.0.1"),
            ("cidr", "10.0.0.0/8", "10.0.0.0/33"),
            ("cidr", "::/0", "10.0.0.0"),
            ("mac", "00:11:22:33:44:55", "00:11:22:33:44"),
            ("hostname", "a.example.org", "-a.example.org"),
            ("email", "a@b.c", "a@"),
            ("uri", "https://x/y?z", "no scheme"),
            ("duration", "1h30m", "1x"),
            ("duration", "22 ns", "ns"),
            ("hexcolor", "#ffF", "#ff"),
            ("rgbcolor", "rgb(1,2,3)", "rgb(1,2)"),
            ("bsonobjectid", "507f1f77bcf86cd799439011", "507f"),
            ("quantity", "1.5Gi", "1.5gi"),
            ("quantity", "12e6", "twelve"),
            ("k8s-short-name", "a-b", "a.b"),
            ("k8s-long-name", "a.b", "a..b"),
        ];
        for (format, right, wrong) in cases {
            assert!(super::holds(format, right), "{format} {right}");
            assert!(!super::holds(format, wrong), "{format} {wrong}");
        }
    }
}
