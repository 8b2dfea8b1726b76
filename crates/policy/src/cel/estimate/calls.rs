//! What calls cost at worst, and how large their results are.

use super::{super::cost::REGEX_FACTOR, Estimate, Expr, Kind, LIST, Range, STRING_FACTOR, Type, UNKNOWN, Value};

/// A cost, and the size of the result if it is known.
type Call = (Range, Option<Range>);

/// `MaxNameFormatRegexSize`.
const FORMAT_REGEX_CHARS: f64 = 128.0;

impl Estimate<'_> {
    pub(super) fn function(
        &mut self,
        expr: &Expr,
        name: &str,
        overload: &str,
        target: Option<&Expr>,
        args: &[Expr],
    ) -> Call {
        self.lists(overload, target, args)
            .or_else(|| self.kubernetes(name, overload, target, args))
            .or_else(|| self.equality(name, args))
            .unwrap_or_else(|| self.standard(expr, overload, target, args))
    }

    /// A number that is written out; what is negative counts as none.
    fn literal(expr: Option<&Expr>, or: u64) -> u64 {
        match expr.map(|expr| &expr.kind) {
            Some(Kind::Const(Value::Int(value))) => u64::try_from(*value).unwrap_or(0),
            _ => or,
        }
    }

    fn lists(&mut self, overload: &str, target: Option<&Expr>, args: &[Expr]) -> Option<Call> {
        #[expect(clippy::cast_precision_loss, reason = "as upstream calculates")]
        let made = |factor: u64, size: Range| {
            let cost = size.scaled(factor as f64).plus(Range::fixed(1 + LIST));
            Some((cost, Some(size)))
        };
        match (overload, target, args) {
            ("list_slice", Some(list), [from, to]) => {
                let most = self.size_or_unknown(list).max;
                let (from, to) = (Self::literal(Some(from), 0), Self::literal(Some(to), most));
                made(1, Range::fixed(to.saturating_sub(from)))
            }
            ("lists_range", None, [end]) => made(1, Range::fixed(Self::literal(Some(end), u64::MAX))),
            ("list_reverse", Some(list), []) => made(1, self.size_or_unknown(list)),
            ("list_flatten" | "list_flatten_int", Some(list), args) => {
                let depth = args.first().map_or(1, |depth| Self::literal(Some(depth), u64::MAX));
                made(depth, self.size_or_unknown(list))
            }
            ("list_distinct", Some(list), []) => {
                let size = self.size_or_unknown(list);
                made(2, size.times(size))
            }
            ("list_sets_contains_list" | "list_sets_intersects_list" | "list_sets_equivalent_list", None, [a, b]) => {
                let factor = if overload == "list_sets_equivalent_list" { 2.0 } else { 1.0 };
                let pairs = self.size_or_unknown(a).times(self.size_or_unknown(b));
                Some((pairs.scaled(factor).plus(Range::fixed(1)), None))
            }
            (other, Some(list), args) => {
                let by = if other.ends_with("_sort") {
                    list
                } else if other.ends_with("_sortByAssociatedKeys") {
                    args.first()?
                } else {
                    return None;
                };
                let size = self.size_or_unknown(by);
                let text = other.contains("string") || other.contains("bytes");
                let factor = if text { 2.0 + STRING_FACTOR } else { 2.0 };
                let pairs = size.times(size);
                Some((pairs.scaled(factor).plus(Range::fixed(1 + LIST)), Some(pairs)))
            }
            _ => None,
        }
    }

    fn kubernetes(&mut self, name: &str, overload: &str, target: Option<&Expr>, args: &[Expr]) -> Option<Call> {
        let one = Some((Range::fixed(1), None));
        match (name, target, args) {
            ("isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf", Some(target), _) => {
                let size = self.size_or_unknown(target);
                let Some((of, item)) = self.item(target) else { return Some((size.scaled(STRING_FACTOR), None)) };
                let mut each = Range::fixed(1);
                if matches!(of, Type::String | Type::Bytes) {
                    each = each.plus(item.scaled(STRING_FACTOR));
                }
                Some((size.times(each), None))
            }
            ("url", None, [text]) => Some((self.text(text, 1.0), Some(self.size_or_unknown(text)))),
            ("lowerAscii" | "upperAscii" | "substring" | "trim", Some(text), _) => {
                Some((self.text(text, 1.0), Some(self.size_or_unknown(text))))
            }
            ("replace", Some(text), [from, to, ..]) => {
                let size = self.size_or_unknown(text);
                let (from, to) = (self.size_or_unknown(from), self.size_or_unknown(to));
                Some((size.scaled(2.0 * STRING_FACTOR), Some(replaced(size, from, to))))
            }
            ("split", Some(text), args) => {
                let size = self.size_or_unknown(text);
                let max = match args.get(1).map(|limit| &limit.kind) {
                    Some(Kind::Const(Value::Int(limit))) => u64::try_from(*limit).unwrap_or(u64::MAX),
                    _ => size.max,
                };
                Some((size.scaled(2.0 * STRING_FACTOR), Some(Range { min: 0, max })))
            }
            ("join", Some(list), args) => {
                let count = self.size_or_unknown(list);
                let mut size = self.item(list).map_or(Range::fixed(0), |(_, item)| count.times(item));
                if let Some(by) = args.first() {
                    let gaps = Range { min: count.min.saturating_sub(1), max: count.max.saturating_sub(1) };
                    size = size.plus(self.size_or_unknown(by).times(gaps));
                }
                Some((size.scaled(STRING_FACTOR), Some(size)))
            }
            ("find" | "findAll", Some(text), [pattern, ..]) => {
                let size = self.size_or_unknown(text);
                Some((self.regex(text, pattern), Some(Range { min: 0, max: size.max })))
            }
            ("ip", _, _) if overload == "cidr_ip" => one,
            (
                "cidr" | "isIP" | "isCIDR" | "ip" | "quantity" | "isQuantity" | "semver" | "isSemver",
                None,
                [text, ..],
            ) => Some((self.text(text, 1.0), None)),
            ("ip.isCanonical", None, [text]) => Some((self.text(text, 2.0), None)),
            ("containsIP" | "containsCIDR", _, [other]) => {
                let bytes = Range { min: 4, max: 16 };
                let mut cost = bytes.plus(bytes).scaled(STRING_FACTOR);
                if name == "containsCIDR" {
                    cost = cost.plus(bytes.scaled(STRING_FACTOR)).plus(Range::fixed(1));
                }
                if overload.ends_with("_string") {
                    cost = cost.plus(self.text(other, 1.0));
                }
                Some((cost, None))
            }
            ("validate", Some(_), [text]) => {
                let cost = self.text(text, 1.0).scaled(FORMAT_REGEX_CHARS * REGEX_FACTOR);
                Some((cost, None))
            }
            (
                "masked"
                | "prefixLength"
                | "family"
                | "isUnspecified"
                | "isLoopback"
                | "isLinkLocalMulticast"
                | "isLinkLocalUnicast"
                | "isGlobalUnicast"
                | "format.named"
                | "sign"
                | "asInteger"
                | "isInteger"
                | "asApproximateFloat"
                | "isGreaterThan"
                | "isLessThan"
                | "compareTo"
                | "add"
                | "sub"
                | "major"
                | "minor"
                | "patch"
                | "getScheme"
                | "getHostname"
                | "getHost"
                | "getPort"
                | "getEscapedPath"
                | "getQuery",
                ..,
            ) => one,
            _ => None,
        }
    }

    /// Values of the Kubernetes libraries are compared at once.
    fn equality(&mut self, name: &str, args: &[Expr]) -> Option<Call> {
        let [a, b] = args else { return None };
        let (Type::Opaque(of), Type::Opaque(other)) = (self.type_(a), self.type_(b)) else { return None };
        let at_once = name == "_==_" && of == other && *of != super::super::types::URL;
        at_once.then_some((Range::fixed(1), None))
    }

    fn regex(&mut self, text: &Expr, pattern: &Expr) -> Range {
        let chars = self.size_or_unknown(text).plus(Range::fixed(1)).scaled(STRING_FACTOR);
        chars.times(self.size_or_unknown(pattern).scaled(REGEX_FACTOR))
    }

    fn standard(&mut self, expr: &Expr, overload: &str, target: Option<&Expr>, args: &[Expr]) -> Call {
        match (overload, target, args) {
            ("string_format", Some(text), _) => (self.text(text, 1.0), None),
            ("string_to_bytes", _, [text]) => {
                let size = self.size_or_unknown(text);
                let made = Range { min: size.min, max: size.max.saturating_mul(4) };
                (size.scaled(STRING_FACTOR), Some(made))
            }
            ("bytes_to_string", _, [bytes]) => {
                let size = self.size_or_unknown(bytes);
                (size.scaled(STRING_FACTOR), Some(Range { min: size.min / 4, max: size.max }))
            }
            ("strings_quote", _, [text]) => {
                let size = self.size_or_unknown(text);
                let made = Range { min: size.min.saturating_add(2), max: size.max.saturating_mul(2).saturating_add(2) };
                (size.scaled(STRING_FACTOR), Some(made))
            }
            ("starts_with_string" | "ends_with_string", _, [part]) => (self.text(part, 1.0), None),
            ("in_list", _, [_, list]) => (self.size_or_unknown(list), None),
            ("matches_string", Some(text), [pattern]) => (self.regex(text, pattern), None),
            ("contains_string", Some(text), [part]) => {
                let cost = self.text(text, 1.0).times(self.text(part, 1.0));
                (cost, None)
            }
            ("add_string" | "add_bytes" | "add_list", _, [a, b]) => {
                let size = self.size_or_unknown(a).plus(self.size_or_unknown(b));
                self.join_entries(expr, a, b);
                let cost = if overload == "add_list" { Range::fixed(1) } else { size.scaled(STRING_FACTOR) };
                (cost, Some(size))
            }
            (
                "less_string"
                | "greater_string"
                | "less_equals_string"
                | "greater_equals_string"
                | "less_bytes"
                | "greater_bytes"
                | "less_equals_bytes"
                | "greater_equals_bytes"
                | "equals"
                | "not_equals",
                _,
                [a, b],
            ) => {
                let max = self.size_or_unknown(a).max.min(self.size_or_unknown(b).max);
                (Range { min: u64::from(max > 0), max }.scaled(STRING_FACTOR), None)
            }
            _ => (Range::fixed(1), None),
        }
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "as upstream")]
fn parts(size: u64, each: u64) -> u64 {
    (size as f64 / each as f64).ceil() as u64
}

/// The size of a text after replacing.
fn replaced(size: Range, from: Range, to: Range) -> Range {
    let (mut count, mut kept) = (Range::fixed(0), Range::fixed(0));
    if from.min == 0 {
        count.max = size.max.saturating_add(1);
        kept.max = size.max;
    } else if to.max <= from.min {
        kept.max = size.max;
    } else {
        count.max = parts(size.max, from.min);
    }
    if from.max == 0 {
        count.min = size.min.saturating_add(1);
        kept.min = size.min;
    } else if from.max <= to.min {
        kept.min = size.min;
    } else if from != UNKNOWN {
        count.min = parts(size.min, from.max);
    }
    count.times(to).plus(kept)
}
