//! What functions make of values that are not of the type they want: `spf13/cast`, and sprig's own.

use crate::template::{
    error::Result,
    format::shown,
    text::{float, whole},
    value::Value,
};

/// What cannot be a number is 0.
#[expect(clippy::cast_possible_wrap, reason = "as Go converts")]
pub fn int(value: &Value) -> i64 {
    match value {
        Value::Int(number) | Value::Int64(number) => *number,
        Value::Uint64(number) => *number as i64,
        Value::Uint8(number) => i64::from(*number),
        Value::Float(number) => truncated(*number),
        Value::Str(text) => {
            whole(without_zero_decimals(text)).and_then(|number| i64::try_from(number).ok()).unwrap_or(0)
        }
        Value::Bool(truth) => i64::from(*truth),
        _ => 0,
    }
}

/// As a processor converts: what does not fit is the smallest number.
#[expect(clippy::cast_possible_truncation, reason = "checked before")]
pub fn truncated(number: f64) -> i64 {
    if (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&number) { number as i64 } else { i64::MIN }
}

/// `1.00` is 1.
fn without_zero_decimals(text: &str) -> &str {
    match text.rsplit_once('.') {
        Some((before, zeros)) if !zeros.is_empty() && zeros.bytes().all(|b| b == b'0') => before,
        _ => text,
    }
}

#[expect(clippy::cast_precision_loss, reason = "as Go converts")]
pub fn float64(value: &Value) -> f64 {
    match value {
        Value::Float(number) => *number,
        Value::Str(text) => float(text).unwrap_or(0.0),
        Value::Uint64(number) => *number as f64,
        other => int(other) as f64,
    }
}

/// sprig's `strval`: bytes as text, all else as `%v`.
///
/// # Errors
/// That it is nested too deeply.
pub fn text(value: &Value) -> Result<String> {
    match value {
        Value::Str(text) => Ok(text.to_string()),
        Value::Bytes(bytes) => Ok(String::from_utf8_lossy(bytes).into_owned()),
        other => shown(other),
    }
}

/// sprig's `strslice`: a list without what is nil, or the value alone.
///
/// # Errors
/// That something is nested too deeply.
pub fn texts(value: &Value) -> Result<Vec<String>> {
    match (value.items(), value) {
        (Some(items), _) => items.iter().filter(|item| !item.is_nil()).map(text).collect(),
        (None, Value::None | Value::Nil) => Ok(Vec::new()),
        (None, other) => Ok(vec![text(other)?]),
    }
}

/// sprig's `empty`.
pub fn is_empty(value: &Value) -> bool {
    !value.truth()
}
