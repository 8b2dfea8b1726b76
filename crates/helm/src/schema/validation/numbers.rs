//! Numbers, and when values are the same.

use serde_json::{Number, Value as Json};

use super::{Node, Run};
use crate::schema::finding::number;

impl<'s> Run<'_, 's> {
    pub(super) fn number(&mut self, node: &mut Node<'_, 's, '_>) {
        let value = node.value;
        let Some(got) = value.as_f64() else { return };
        // Draft 4 says with a truth value that the limit itself is out.
        let strict = |keyword: &str| node.keywords.get(keyword) == Some(&Json::Bool(true));
        let (least, most) = (strict("exclusiveMinimum"), strict("exclusiveMaximum"));
        let bounds = [
            ("minimum", if least { "exclusiveMinimum" } else { "minimum" }),
            ("maximum", if most { "exclusiveMaximum" } else { "maximum" }),
            ("exclusiveMinimum", "exclusiveMinimum"),
            ("exclusiveMaximum", "exclusiveMaximum"),
        ];
        for (keyword, rule) in bounds {
            let Some(limit) = node.keywords.get(keyword).filter(|limit| limit.is_number()) else { continue };
            let want = limit.as_f64().unwrap_or_default();
            let fits = match rule {
                "minimum" => got >= want,
                "maximum" => got <= want,
                "exclusiveMinimum" => got > want,
                _ => got < want,
            };
            if !fits {
                node.found
                    .push(self.finding(node.scope, format!("{rule}: got {}, want {}", number(value), number(limit))));
            }
        }
        if let (Some(divisor @ Json::Number(of)), Json::Number(told)) = (node.keywords.get("multipleOf"), value)
            && !is_multiple(told, of)
        {
            node.found
                .push(self.finding(node.scope, format!("multipleOf: got {}, want {}", number(value), number(divisor))));
        }
    }
}

/// Computed on decimal digits: 0.3 is a multiple of 0.1.
fn is_multiple(number: &Number, of: &Number) -> bool {
    let exact = || {
        let ((number, scale), (of, of_scale)) = (decimal(number)?, decimal(of)?);
        let most = scale.max(of_scale);
        let scaled = |number: i128, scale: u32| number.checked_mul(10_i128.checked_pow(most - scale)?);
        scaled(number, scale)?.checked_rem(scaled(of, of_scale)?)
    };
    match exact() {
        Some(rest) => rest == 0,
        None => (number.as_f64().unwrap_or_default() / of.as_f64().unwrap_or_default()).fract() == 0.0,
    }
}

/// The digits, and how many of them stand behind the point.
fn decimal(number: &Number) -> Option<(i128, u32)> {
    let text = match number.as_f64() {
        Some(float) if number.is_f64() => format!("{float}"),
        _ => number.to_string(),
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    Some((format!("{whole}{fraction}").parse().ok()?, u32::try_from(fraction.len()).ok()?))
}

/// Numbers are the same whatever they are written as.
pub fn equal(left: &Json, right: &Json) -> bool {
    match (left, right) {
        (Json::Number(left), Json::Number(right)) => match (left.as_i64(), right.as_i64()) {
            (Some(left), Some(right)) => left == right,
            _ => left.as_f64() == right.as_f64(),
        },
        (Json::Array(left), Json::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| equal(left, right))
        }
        (Json::Object(left), Json::Object(right)) => {
            let same = |(key, value): (&String, &Json)| right.get(key).is_some_and(|other| equal(value, other));
            left.len() == right.len() && left.iter().all(same)
        }
        (left, right) => left == right,
    }
}
