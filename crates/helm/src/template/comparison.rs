//! `eq`, `lt` and what follows from them, and Go's `reflect.DeepEqual`.

use std::{cmp::Ordering, rc::Rc, slice::from_ref};

use super::{
    error::{Error, Result},
    format::{self, NESTING_MAX},
    value::Value,
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bool,
    Int,
    Uint,
    Float,
    Text,
    Other,
}

fn kind(value: &Value) -> Kind {
    match value {
        Value::Bool(_) => Kind::Bool,
        Value::Int(_) | Value::Int64(_) => Kind::Int,
        Value::Uint64(_) | Value::Uint8(_) => Kind::Uint,
        Value::Float(_) => Kind::Float,
        Value::Str(_) => Kind::Text,
        _ => Kind::Other,
    }
}

fn whole(value: &Value) -> i128 {
    match value {
        Value::Int(number) | Value::Int64(number) => i128::from(*number),
        Value::Uint64(number) => i128::from(*number),
        Value::Uint8(number) => i128::from(*number),
        _ => 0,
    }
}

fn incompatible<T>(left: &Value, right: &Value) -> Result<T> {
    let (left, right) = (left.type_name(), right.type_name());
    Error::call(format!("incompatible types for comparison: {left} and {right}"))
}

/// How two basic values of comparable types stand to one another; nothing for not-a-number.
fn compared(left: &Value, right: &Value) -> Result<Option<Ordering>> {
    match (left, right) {
        (Value::Float(left), Value::Float(right)) => Ok(left.partial_cmp(right)),
        (Value::Str(left), Value::Str(right)) => Ok(Some(left.as_bytes().cmp(right.as_bytes()))),
        (Value::Bool(left), Value::Bool(right)) => Ok(Some(left.cmp(right))),
        _ if matches!((kind(left), kind(right)), (Kind::Int | Kind::Uint, Kind::Int | Kind::Uint)) => {
            Ok(Some(whole(left).cmp(&whole(right))))
        }
        _ => incompatible(left, right),
    }
}

/// Whether the first is one of the others.
///
/// # Errors
/// That types cannot be compared.
pub fn equal(first: &Value, others: &[Value]) -> Result<bool> {
    if others.is_empty() {
        return Error::call("missing argument for comparison");
    }
    for other in others {
        if equal_to(first, other)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn equal_to(left: &Value, right: &Value) -> Result<bool> {
    let kinds = (kind(left), kind(right));
    if kinds != (Kind::Other, Kind::Other) {
        if left.is_nil() || right.is_nil() {
            return Ok(false);
        }
        return Ok(compared(left, right)? == Some(Ordering::Equal));
    }
    if left.is_nil() || right.is_nil() {
        let absent = |value: &Value| value.is_nil() || matches!(value, Value::List(list) if list.absent);
        return Ok(absent(left) == absent(right));
    }
    if left.kind() != right.kind() {
        let (shown, right_shown) = (format::printf("%s", from_ref(left))?, format::shown(right)?);
        let (left, right) = (left.type_name(), right.type_name());
        return Error::call(format!("non-comparable types {shown}: {left}, {right}: {right_shown}"));
    }
    match (left, right) {
        (Value::Struct(left), Value::Struct(right)) => Ok(Rc::ptr_eq(left, right)),
        _ => Error::call(format!(
            "non-comparable type {}: {}",
            format::printf("%s", from_ref(right))?,
            right.type_name()
        )),
    }
}

/// # Errors
/// That types cannot be compared.
pub fn less(left: &Value, right: &Value) -> Result<bool> {
    for value in [left, right] {
        if kind(value) == Kind::Other {
            return Error::call("invalid type for comparison");
        }
    }
    if kind(left) == Kind::Bool && kind(right) == Kind::Bool {
        return Error::call("invalid type for comparison");
    }
    Ok(compared(left, right)? == Some(Ordering::Less))
}

/// As `reflect.DeepEqual`: types count too.
///
/// # Errors
/// That they are nested too deeply.
pub fn deeply_equal(left: &Value, right: &Value) -> Result<bool> {
    deeply(left, right, 0)
}

fn deeply(left: &Value, right: &Value, depth: usize) -> Result<bool> {
    if depth > NESTING_MAX {
        return Error::limit(format!("values are nested more than {NESTING_MAX} deep"));
    }
    Ok(match (left, right) {
        (Value::None | Value::Nil, Value::None | Value::Nil) => true,
        (Value::Bool(left), Value::Bool(right)) => left == right,
        (Value::Int(left), Value::Int(right)) | (Value::Int64(left), Value::Int64(right)) => left == right,
        (Value::Uint64(left), Value::Uint64(right)) => left == right,
        (Value::Uint8(left), Value::Uint8(right)) => left == right,
        #[expect(clippy::float_cmp, reason = "as Go compares them")]
        (Value::Float(left), Value::Float(right)) => left == right,
        (Value::Str(left), Value::Str(right)) => left == right,
        (Value::Bytes(left), Value::Bytes(right)) => left == right,
        (Value::List(left), Value::List(right)) => {
            if left.ty.name != right.ty.name || left.absent != right.absent || left.items.len() != right.items.len() {
                return Ok(false);
            }
            for (left, right) in left.items.iter().zip(&right.items) {
                if !deeply(left, right, depth + 1)? {
                    return Ok(false);
                }
            }
            true
        }
        (Value::Map(left), Value::Map(right)) => {
            if Rc::ptr_eq(left, right) {
                return Ok(true);
            }
            let (entries, others) = (left.entries.borrow(), right.entries.borrow());
            if left.ty.name != right.ty.name || entries.len() != others.len() {
                return Ok(false);
            }
            for ((key, left), (other, right)) in entries.iter().zip(others.iter()) {
                if key != other || !deeply(left, right, depth + 1)? {
                    return Ok(false);
                }
            }
            true
        }
        (Value::Struct(left), Value::Struct(right)) => {
            if left.ty.name != right.ty.name || left.fields.len() != right.fields.len() {
                return Ok(false);
            }
            for (left, right) in left.fields.iter().zip(&right.fields) {
                if !deeply(&left.value, &right.value, depth + 1)? {
                    return Ok(false);
                }
            }
            true
        }
        _ => false,
    })
}
