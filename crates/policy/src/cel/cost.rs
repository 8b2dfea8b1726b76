//! What a call costs when it runs: the units and factors of kube-apiserver (cel-go `interpreter/runtimecost.go`,
//! `common/cost.go`, `ext/lists.go`; `k8s.io/apiserver/pkg/cel/library/cost.go`).

use super::value::{Key, List, Map, Opaque, Value};

pub(super) const SELECT: u64 = 1;
pub(super) const LIST: u64 = 10;
pub(super) const MAP: u64 = 30;
pub(super) const STRUCT: u64 = 40;
/// An authorization: two in one expression are what a call may cost.
const CHECK: u64 = 350_000;
pub(super) const STRING_FACTOR: f64 = 0.1;
pub(super) const REGEX_FACTOR: f64 = 0.25;

/// How the cost of a call follows from its arguments and its result.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Charge {
    One,
    /// The first argument once, times so much.
    Scan(f64),
    /// The result once, times so much.
    Output(f64),
    Regex,
    /// The length of the second argument.
    InList,
    /// The shorter of two.
    Least,
    /// Both.
    Both,
    /// Each with each, as text.
    Contains,
    /// A network and an address (or network), which may still be text.
    ContainsIp {
        text: bool,
    },
    ContainsCidr {
        text: bool,
    },
    Validate,
    /// Everything in the first argument.
    Everything,
    /// A list as long as the result.
    NewList,
    Flatten,
    /// Each item of that argument with each other.
    Pairs(usize),
    /// Each of the first with each of the second, times so much.
    Sets(u64),
    /// An authorization.
    Check,
    /// A selector, which is parsed.
    Selector,
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "sizes are small"
)]
pub(super) fn scaled(size: u64, factor: f64) -> u64 {
    (size as f64 * factor).ceil() as u64
}

impl Charge {
    /// `overload`: the only one that fits, or nothing if it is known when it runs.
    pub fn of(function: &str, overload: Option<&str>) -> Self {
        match function {
            "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" => return Self::Everything,
            "url" | "lowerAscii" | "upperAscii" | "substring" | "trim" | "cidr" | "isIP" | "isCIDR" | "quantity"
            | "isQuantity" | "semver" | "isSemver" => return Self::Scan(STRING_FACTOR),
            "ip" if overload != Some("cidr_ip") => return Self::Scan(STRING_FACTOR),
            "replace" | "split" | "ip.isCanonical" => return Self::Scan(2.0 * STRING_FACTOR),
            "join" => return Self::Output(2.0 * STRING_FACTOR),
            "find" | "findAll" => return Self::Regex,
            "containsIP" => return Self::ContainsIp { text: overload == Some("cidr_contains_ip_string") },
            "containsCIDR" => return Self::ContainsCidr { text: overload == Some("cidr_contains_cidr_string") },
            "validate" => return Self::Validate,
            "check" => return Self::Check,
            "fieldSelector" | "labelSelector" => return Self::Selector,
            "jsonpatch.escapeKey" => return Self::Scan(STRING_FACTOR),
            _ => {}
        }
        match overload.unwrap_or_default() {
            "starts_with_string" | "ends_with_string" | "string_to_bytes" | "bytes_to_string" | "strings_quote"
            | "string_format" => Self::Scan(STRING_FACTOR),
            "in_list" => Self::InList,
            "less_string"
            | "greater_string"
            | "less_equals_string"
            | "greater_equals_string"
            | "less_bytes"
            | "greater_bytes"
            | "less_equals_bytes"
            | "greater_equals_bytes"
            | "equals"
            | "not_equals" => Self::Least,
            "add_string" | "add_bytes" => Self::Both,
            "matches_string" => Self::Regex,
            "contains_string" => Self::Contains,
            "list_slice" | "lists_range" | "list_reverse" => Self::NewList,
            "list_flatten" | "list_flatten_int" => Self::Flatten,
            "list_distinct" => Self::Pairs(0),
            "list_sets_contains_list" | "list_sets_intersects_list" => Self::Sets(1),
            "list_sets_equivalent_list" => Self::Sets(2),
            other if other.starts_with("list_") && other.ends_with("_sort") => Self::Pairs(0),
            other if other.ends_with("_sortByAssociatedKeys") => Self::Pairs(1),
            _ => Self::One,
        }
    }

    pub fn amount(self, args: &[Value<'_>], result: &Value<'_>) -> u64 {
        let size = |at: usize| args.get(at).map_or(1, Value::size);
        let text = |size: u64| scaled(size, STRING_FACTOR);
        match self {
            Self::One => 1,
            Self::Scan(factor) => scaled(size(0), factor),
            Self::Output(factor) => scaled(result.size(), factor),
            Self::Regex => text(size(0) + 1).saturating_mul(scaled(size(1), REGEX_FACTOR)),
            Self::InList => size(1),
            // Only `==` of the Kubernetes libraries' own values is one; `!=` is not.
            Self::Least => match args.first() {
                Some(Value::Opaque(_)) => 1,
                _ => text(size(0).min(size(1))),
            },
            Self::Both => text(size(0) + size(1)),
            Self::Contains => text(size(0)).saturating_mul(text(size(1))),
            Self::ContainsIp { text: parse } => text(size(0) * 2) + if parse { text(size(1)) } else { 0 },
            Self::ContainsCidr { text: parse } => {
                text(size(0) * 2) + text(size(0)) + 1 + if parse { text(size(1)) } else { 0 }
            }
            Self::Validate => {
                let regex = match args.first() {
                    Some(Value::Opaque(Opaque::Format(format))) => format.regex_chars,
                    _ => 1,
                };
                text(size(1) + 1).saturating_mul(scaled(regex, REGEX_FACTOR))
            }
            Self::Everything => args.first().map_or(1, everything),
            Self::NewList => result.size() + 1 + LIST,
            Self::Flatten => {
                let depth = match args.get(1) {
                    Some(Value::Int(depth)) => u64::try_from(*depth).unwrap_or(0),
                    _ => 1,
                };
                size(0).saturating_mul(depth) + 1 + LIST
            }
            Self::Pairs(at) => {
                let first = match args.get(at) {
                    Some(Value::List(list)) => list.get(0).and_then(Result::ok),
                    _ => None,
                };
                let factor = match first {
                    Some(Value::String(_) | Value::Bytes(_)) => 2.0 + STRING_FACTOR,
                    _ => 2.0,
                };
                scaled(size(at).saturating_mul(size(at)), factor) + 1 + LIST
            }
            Self::Check => CHECK,
            Self::Selector => LIST + text(size(1)) + scaled(scaled(size(1), 0.5), (LIST + STRUCT) as f64),
            Self::Sets(factor) => size(0).saturating_mul(size(1)).saturating_mul(factor) + 1,
        }
    }
}

/// The cost of a walk over all of a value.
fn everything(value: &Value<'_>) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "sizes are small"
    )]
    let floor = |bytes: usize| (bytes as f64 * STRING_FACTOR) as u64;
    match value {
        Value::String(text) => floor(text.as_str().len()),
        Value::Bytes(bytes) => floor(bytes.len()),
        // Items of data are looked at as they lie there; that one text costs as another does is all that matters.
        Value::List(List::Data(items, ..)) => {
            items.iter().map(|item| item.as_str().map_or(1, |text| floor(text.len()))).sum()
        }
        Value::List(List::Made(items)) => items.iter().map(everything).sum(),
        Value::Map(Map::Made(map)) => {
            map.iter().map(|(key, value)| everything(&Key::value(key)) + everything(value)).sum()
        }
        Value::Map(map @ Map::Data(..)) => map.len() as u64,
        _ => 1,
    }
}
