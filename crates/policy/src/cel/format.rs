//! Named formats (`k8s.io/apiserver/pkg/cel/library/format.go`); the texts are those of apimachinery's `util/validation`.

use std::sync::LazyLock;

use super::{time, url::Url};

/// A check of text by name.
#[derive(Debug)]
pub struct Format {
    pub(super) name: &'static str,
    /// What is wrong with a text.
    pub(super) check: fn(&str) -> Vec<String>,
    /// What its regular expression is reckoned to be as long as.
    pub(super) regex_chars: u64,
}

/// The formats that functions `format.<name>()` give.
pub(super) const NAMES: [&str; 13] = [
    "dns1123Label",
    "dns1123Subdomain",
    "dns1035Label",
    "qualifiedName",
    "dns1123LabelPrefix",
    "dns1123SubdomainPrefix",
    "dns1035LabelPrefix",
    "labelValue",
    "uri",
    "uuid",
    "byte",
    "date",
    "datetime",
];

const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const LABEL_TEXT: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must \
                          start and end with an alphanumeric character";
const SUBDOMAIN_TEXT: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or \
                              '.', and must start and end with an alphanumeric character";
const SUBDOMAIN: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const OLD_LABEL: &str = "[a-z]([-a-z0-9]*[a-z0-9])?";
const OLD_LABEL_TEXT: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an \
                              alphabetic character, and end with an alphanumeric character";
const QUALIFIED: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const QUALIFIED_TEXT: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
                              alphanumeric character";
const LABEL_VALUE: &str = "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?";
const LABEL_VALUE_TEXT: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or \
                                '.', and must start and end with an alphanumeric character";
/// `strfmt.UUIDPattern` and `strfmt.DateTimePattern` are so long.
const UUID_CHARS: u64 = 77;
const DATE_TIME_CHARS: u64 = 79;

static FORMATS: LazyLock<Vec<Format>> = LazyLock::new(|| {
    let one = |name, regex_chars, check| Format { name, check, regex_chars };
    vec![
        one("dns1123Label", 30, label),
        one("dns1123Subdomain", 60, subdomain),
        one("dns1035Label", 30, old_label),
        one("qualifiedName", 60, qualified),
        one("dns1123LabelPrefix", 30, |text| label(&masked(text))),
        one("dns1123SubdomainPrefix", 60, |text| subdomain(&masked(text))),
        one("dns1035LabelPrefix", 30, |text| old_label(&masked(text))),
        one("labelValue", 40, label_value),
        one("uri", 1103, |text| Url::parse(text).err().into_iter().collect()),
        one("uuid", UUID_CHARS, |text| said(is_uuid(text), "does not match the UUID format")),
        one("byte", 84, |text| said(is_base64(text), "invalid base64")),
        one("date", DATE_TIME_CHARS, |text| said(time::date(text).is_some(), "invalid date")),
        one("datetime", DATE_TIME_CHARS, |text| said(time::timestamp(text).is_some(), "invalid datetime")),
    ]
});

impl Format {
    pub(super) fn named(name: &str) -> Option<&'static Self> {
        FORMATS.iter().find(|format| format.name == name)
    }
}

fn said(holds: bool, text: &str) -> Vec<String> {
    if holds { Vec::new() } else { vec![text.to_owned()] }
}

/// A prefix may end with a dash.
fn masked(text: &str) -> String {
    match text.strip_suffix('-') {
        Some(rest) if !rest.is_empty() => format!("{rest}a"),
        _ => text.to_owned(),
    }
}

fn too_long(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

fn shaped(text: &str, max: usize, fits: bool, shape: &str, examples: &[&str], regex: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if text.len() > max {
        wrong.push(too_long(max));
    }
    if !fits {
        let examples: Vec<_> = examples.iter().map(|example| format!("'{example}'")).collect();
        wrong.push(format!("{shape} (e.g. {}, regex used for validation is '{regex}')", examples.join(",  or ")));
    }
    wrong
}

fn is_label(text: &str, first: fn(u8) -> bool) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let ends = bytes.first().is_some_and(|b| first(*b)) && bytes.last().is_some_and(|b| alphanumeric(*b));
    ends && bytes.iter().all(|b| alphanumeric(*b) || *b == b'-')
}

fn label(text: &str) -> Vec<String> {
    let fits = is_label(text, |b| b.is_ascii_lowercase() || b.is_ascii_digit());
    shaped(text, 63, fits, LABEL_TEXT, &["my-name", "123-abc"], LABEL)
}

fn subdomain(text: &str) -> Vec<String> {
    let fits = text.split('.').all(|part| is_label(part, |b| b.is_ascii_lowercase() || b.is_ascii_digit()));
    shaped(text, 253, fits, SUBDOMAIN_TEXT, &["example.com"], SUBDOMAIN)
}

fn old_label(text: &str) -> Vec<String> {
    let fits = is_label(text, |b| b.is_ascii_lowercase());
    shaped(text, 63, fits, OLD_LABEL_TEXT, &["my-name", "abc-123"], OLD_LABEL)
}

fn is_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    let ends = [bytes.first(), bytes.last()].into_iter().all(|b| b.is_some_and(u8::is_ascii_alphanumeric));
    ends && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
}

fn qualified(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let name = match text.split_once('/') {
        None => text,
        Some((_, rest)) if rest.contains('/') => {
            let shape = format!("a qualified name {QUALIFIED_TEXT}");
            let mut list = shaped("", 63, false, &shape, &["MyName", "my.name", "123-abc"], QUALIFIED);
            if let Some(text) = list.first_mut() {
                text.push_str(" with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')");
            }
            return list;
        }
        Some((prefix, name)) => {
            if prefix.is_empty() {
                wrong.push("prefix part must be non-empty".to_owned());
            } else {
                wrong.extend(subdomain(prefix).into_iter().map(|text| format!("prefix part {text}")));
            }
            name
        }
    };
    if name.is_empty() {
        wrong.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        wrong.push(format!("name part {}", too_long(63)));
    }
    if !is_name(name) {
        let shape = format!("name part {QUALIFIED_TEXT}");
        wrong.extend(shaped("", 63, false, &shape, &["MyName", "my.name", "123-abc"], QUALIFIED));
    }
    wrong
}

fn label_value(text: &str) -> Vec<String> {
    shaped(text, 63, text.is_empty() || is_name(text), LABEL_VALUE_TEXT, &["MyValue", "my_value", "12345"], LABEL_VALUE)
}

fn is_uuid(text: &str) -> bool {
    let hex: Vec<u8> = text.bytes().filter(|b| *b != b'-').collect();
    let dashes: Vec<usize> = text.bytes().enumerate().filter(|(_, b)| *b == b'-').map(|(at, _)| at).collect();
    hex.len() == 32 && hex.iter().all(u8::is_ascii_hexdigit) && (dashes.is_empty() || dashes == [8, 13, 18, 23])
}

fn is_base64(text: &str) -> bool {
    use base64::{Engine, engine::general_purpose::STANDARD};
    STANDARD.decode(text).is_ok()
}
