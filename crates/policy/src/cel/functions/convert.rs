//! Conversions between types.

use super::{Fault, Function, Meter, Opaque, Result, Text, Value, mismatch, overflow, time, unsigned_overflow};

pub(super) fn find(name: &str) -> Option<Function> {
    Some(match name {
        "bool" => |_, args| match args {
            [value @ Value::Bool(_)] => Ok(value.clone()),
            [value @ Value::String(text)] => match text.as_str() {
                "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Value::Bool(true)),
                "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Value::Bool(false)),
                _ => Err(mismatch(value, "bool")),
            },
            [value] => Err(mismatch(value, "bool")),
            _ => Err(Fault::overload()),
        },
        "bytes" => |meter, args| match args {
            [value @ Value::Bytes(_)] => Ok(value.clone()),
            [Value::String(text)] => {
                meter.make(text.as_str().len())?;
                Ok(Value::Bytes(text.as_str().as_bytes().into()))
            }
            [value] => Err(mismatch(value, "bytes")),
            _ => Err(Fault::overload()),
        },
        "double" => |_, args| match args {
            [Value::String(text)] => match text.as_str().parse() {
                Ok(value) => Ok(Value::Double(value)),
                Err(_) => Err(mismatch(&args[0], "double")),
            },
            [value] => super::number(value).map(Value::Double).ok_or_else(|| mismatch(value, "double")),
            _ => Err(Fault::overload()),
        },
        "int" => int,
        "uint" => uint,
        "string" => string,
        "duration" => |_, args| match args {
            [value @ Value::Duration(_)] => Ok(value.clone()),
            [Value::Int(seconds)] => seconds.checked_mul(time::SECOND).map(Value::Duration).ok_or_else(overflow),
            [value @ Value::String(text)] => time::duration(text.as_str())
                .map(Value::Duration)
                .ok_or_else(|| mismatch(value, "google.protobuf.Duration")),
            [value] => Err(mismatch(value, "google.protobuf.Duration")),
            _ => Err(Fault::overload()),
        },
        "timestamp" => |_, args| match args {
            [value @ Value::Timestamp(_)] => Ok(value.clone()),
            [Value::Int(seconds)] => jiff::Timestamp::from_second(*seconds)
                .ok()
                .filter(|stamp| time::in_range(*stamp))
                .map(Value::Timestamp)
                .ok_or_else(|| Fault::failed("timestamp overflow")),
            [value @ Value::String(text)] => time::timestamp(text.as_str())
                .map(Value::Timestamp)
                .ok_or_else(|| mismatch(value, "google.protobuf.Timestamp")),
            [value] => Err(mismatch(value, "google.protobuf.Timestamp")),
            _ => Err(Fault::overload()),
        },
        _ => return None,
    })
}

#[expect(clippy::cast_possible_truncation, reason = "checked to be in range")]
fn int<'v>(_: &mut Meter, args: &[Value<'v>]) -> Result<Value<'v>> {
    match args {
        [value @ Value::Int(_)] => Ok(value.clone()),
        [Value::Uint(value)] => i64::try_from(*value).map(Value::Int).map_err(|_| overflow()),
        // The bounds themselves are out of range, for not all near them can be told apart.
        [Value::Double(value)] if *value > -9_223_372_036_854_775_808.0 && *value < 9_223_372_036_854_775_807.0 => {
            Ok(Value::Int(*value as i64))
        }
        [Value::Double(_)] => Err(overflow()),
        [Value::Duration(nanos)] => Ok(Value::Int(*nanos)),
        [Value::Timestamp(stamp)] => Ok(Value::Int(stamp.as_nanosecond().div_euclid(1_000_000_000) as i64)),
        [value @ Value::String(text)] => text.as_str().parse().map(Value::Int).map_err(|_| mismatch(value, "int")),
        [value] => Err(mismatch(value, "int")),
        _ => Err(Fault::overload()),
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be in range")]
fn uint<'v>(_: &mut Meter, args: &[Value<'v>]) -> Result<Value<'v>> {
    match args {
        [value @ Value::Uint(_)] => Ok(value.clone()),
        [Value::Int(value)] => u64::try_from(*value).map(Value::Uint).map_err(|_| unsigned_overflow()),
        [Value::Double(value)] if *value >= 0.0 && *value < 18_446_744_073_709_551_615.0 => {
            Ok(Value::Uint(*value as u64))
        }
        [Value::Double(_)] => Err(unsigned_overflow()),
        [value @ Value::String(text)] => text.as_str().parse().map(Value::Uint).map_err(|_| mismatch(value, "uint")),
        [value] => Err(mismatch(value, "uint")),
        _ => Err(Fault::overload()),
    }
}

fn string<'v>(meter: &mut Meter, args: &[Value<'v>]) -> Result<Value<'v>> {
    let [value] = args else { return Err(Fault::overload()) };
    Ok(Value::String(match value {
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Int(_) | Value::Uint(_) | Value::Double(_) => Text::from(super::shown(value)),
        Value::Bytes(bytes) => {
            meter.make(bytes.len())?;
            let text = std::str::from_utf8(bytes);
            text.map_err(|_| Fault::failed("invalid UTF-8 in bytes, cannot convert to string"))?.to_owned().into()
        }
        Value::Duration(nanos) => time::duration_text(*nanos).into(),
        Value::Timestamp(stamp) => time::timestamp_text(*stamp).into(),
        Value::Opaque(Opaque::Ip(ip)) => ip.to_string().into(),
        Value::Opaque(Opaque::Cidr(ip, bits)) => format!("{ip}/{bits}").into(),
        other => return Err(mismatch(other, "string")),
    }))
}

/// A number as Go's `strconv.FormatFloat(value, 'g', -1, 64)` writes it.
pub(super) fn double(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let magnitude = value.abs();
    if magnitude != 0.0 && !(1e-4..1e21).contains(&magnitude) {
        let text = format!("{value:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |rest| ('-', rest));
        return format!("{digits}e{sign}{exponent:0>2}");
    }
    format!("{value}")
}
