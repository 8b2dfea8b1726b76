//! What calls do. Each function looks at the values it gets, as calls on dynamic values are known only then.

use std::{cmp::Ordering, collections::BTreeMap, sync::Arc};

use super::{
    authorizer,
    eval::{Fault, Meter},
    format::Format,
    message,
    quantity::Quantity,
    time,
    value::{Key, List, Map, Opaque, Text, Value},
};

mod convert;
mod lists;
mod net;
pub(super) mod regex;
mod stamps;
mod text;
mod units;

pub(super) type Result<T> = std::result::Result<T, Fault>;
pub(super) type Function = for<'v> fn(&mut Meter, &[Value<'v>]) -> Result<Value<'v>>;

/// The function of that name.
pub(super) fn find(name: &str) -> Option<Function> {
    operator(name)
        .or_else(|| convert::find(name))
        .or_else(|| text::find(name))
        .or_else(|| lists::find(name))
        .or_else(|| regex::function(name))
        .or_else(|| net::find(name))
        .or_else(|| units::find(name))
        .or_else(|| stamps::find(name))
        .or_else(|| authorizer::find(name))
        .or_else(|| message::find(name))
}

fn operator(name: &str) -> Option<Function> {
    Some(match name {
        "!_" => |_, args| match args {
            [Value::Bool(value)] => Ok(Value::Bool(!value)),
            _ => Err(Fault::overload()),
        },
        "-_" => |_, args| match args {
            [Value::Int(value)] => value.checked_neg().map(Value::Int).ok_or_else(overflow),
            [Value::Double(value)] => Ok(Value::Double(-value)),
            _ => Err(Fault::overload()),
        },
        "_==_" => |meter, args| match args {
            [a, b] => equal(meter, a, b).map(Value::Bool),
            _ => Err(Fault::overload()),
        },
        "_!=_" => |meter, args| match args {
            [a, b] => equal(meter, a, b).map(|equal| Value::Bool(!equal)),
            _ => Err(Fault::overload()),
        },
        "_<_" => |meter, args| ordered(meter, args, Ordering::is_lt),
        "_<=_" => |meter, args| ordered(meter, args, Ordering::is_le),
        "_>_" => |meter, args| ordered(meter, args, Ordering::is_gt),
        "_>=_" => |meter, args| ordered(meter, args, Ordering::is_ge),
        "_+_" => add,
        "_-_" => subtract,
        "_*_" => |_, args| match args {
            [Value::Int(a), Value::Int(b)] => a.checked_mul(*b).map(Value::Int).ok_or_else(overflow),
            [Value::Uint(a), Value::Uint(b)] => a.checked_mul(*b).map(Value::Uint).ok_or_else(unsigned_overflow),
            [Value::Double(a), Value::Double(b)] => Ok(Value::Double(a * b)),
            _ => Err(Fault::overload()),
        },
        "_/_" => |_, args| match args {
            [Value::Int(_), Value::Int(0)] | [Value::Uint(_), Value::Uint(0)] => Err(Fault::failed("division by zero")),
            [Value::Int(a), Value::Int(b)] => a.checked_div(*b).map(Value::Int).ok_or_else(overflow),
            [Value::Uint(a), Value::Uint(b)] => a.checked_div(*b).map(Value::Uint).ok_or_else(unsigned_overflow),
            [Value::Double(a), Value::Double(b)] => Ok(Value::Double(a / b)),
            _ => Err(Fault::overload()),
        },
        "_%_" => |_, args| match args {
            [Value::Int(_), Value::Int(0)] | [Value::Uint(_), Value::Uint(0)] => Err(Fault::failed("modulus by zero")),
            [Value::Int(a), Value::Int(b)] => a.checked_rem(*b).map(Value::Int).ok_or_else(overflow),
            [Value::Uint(a), Value::Uint(b)] => a.checked_rem(*b).map(Value::Uint).ok_or_else(unsigned_overflow),
            _ => Err(Fault::overload()),
        },
        "@in" => |meter, args| match args {
            [item, Value::List(list)] => lists::includes(meter, list, item).map(Value::Bool),
            [key, Value::Map(map)] => Ok(Value::Bool(Key::of(key).is_some_and(|key| map.find(&key).is_some()))),
            _ => Err(Fault::overload()),
        },
        "size" => |_, args| match args {
            [value @ (Value::String(_) | Value::Bytes(_) | Value::List(_) | Value::Map(_))] => Ok(count(value.size())),
            _ => Err(Fault::overload()),
        },
        "type" => |_, args| args.first().map(|value| Value::Type(value.type_())).ok_or_else(Fault::overload),
        "dyn" => |_, args| args.first().cloned().ok_or_else(Fault::overload),
        _ => return None,
    })
}

fn overflow() -> Fault {
    Fault::failed("integer overflow")
}

fn unsigned_overflow() -> Fault {
    Fault::failed("unsigned integer overflow")
}

fn count<'v>(size: u64) -> Value<'v> {
    Value::Int(i64::try_from(size).unwrap_or(i64::MAX))
}

/// A value as messages show it.
pub(super) fn shown(value: &Value<'_>) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Uint(value) => value.to_string(),
        Value::Double(value) => convert::double(*value),
        Value::String(text) => text.as_str().to_owned(),
        other => other.type_().name().to_owned(),
    }
}

/// A map of these entries. Fails if a key is there twice or cannot be one.
pub(super) fn map_of<'v>(pairs: Vec<(Value<'v>, Value<'v>)>) -> Result<Value<'v>> {
    let mut map = BTreeMap::new();
    for (key, value) in pairs {
        let by = Key::of(&key).ok_or_else(|| Fault::failed(format!("unsupported key type: {}", key.type_().name())))?;
        if map.insert(by, value).is_some() {
            return Err(Fault::failed(format!("Failed with repeated key: {}", shown(&key))));
        }
    }
    Ok(Value::Map(Map::Made(Arc::new(map))))
}

#[expect(clippy::cast_precision_loss, reason = "as numbers of different types compare in CEL")]
fn number(value: &Value<'_>) -> Option<f64> {
    match value {
        Value::Int(value) => Some(*value as f64),
        Value::Uint(value) => Some(*value as f64),
        Value::Double(value) => Some(*value),
        _ => None,
    }
}

/// How two values compare; None if they do not (or if one is not a number).
pub(super) fn compare(meter: &mut Meter, a: &Value<'_>, b: &Value<'_>) -> Result<Option<Ordering>> {
    meter.work(1)?;
    Ok(match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        (Value::Int(a), Value::Int(b)) => Some(a.cmp(b)),
        (Value::Uint(a), Value::Uint(b)) => Some(a.cmp(b)),
        (Value::Int(a), Value::Uint(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
        (Value::Uint(a), Value::Int(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
        (Value::String(a), Value::String(b)) => {
            meter.work(a.as_str().len().min(b.as_str().len()) as u64 / 16)?;
            Some(a.as_str().cmp(b.as_str()))
        }
        (Value::Bytes(a), Value::Bytes(b)) => {
            meter.work(a.len().min(b.len()) as u64 / 16)?;
            Some(a.cmp(b))
        }
        (Value::Duration(a), Value::Duration(b)) => Some(a.cmp(b)),
        (Value::Timestamp(a), Value::Timestamp(b)) => Some(a.cmp(b)),
        (a, b) => match (number(a), number(b)) {
            (Some(a), Some(b)) => a.partial_cmp(&b),
            _ => return Err(Fault::overload()),
        },
    })
}

fn ordered<'v>(meter: &mut Meter, args: &[Value<'v>], holds: fn(Ordering) -> bool) -> Result<Value<'v>> {
    match args {
        [a, b] => Ok(Value::Bool(compare(meter, a, b)?.is_some_and(holds))),
        _ => Err(Fault::overload()),
    }
}

/// Whether two values are equal; values of different types are not.
pub(super) fn equal(meter: &mut Meter, a: &Value<'_>, b: &Value<'_>) -> Result<bool> {
    meter.work(1)?;
    Ok(match (a, b) {
        (Value::Null, Value::Null) => true,
        (Value::List(a), Value::List(b)) => return lists::equal_lists(meter, a, b),
        (Value::Map(a), Value::Map(b)) => return equal_maps(meter, a, b),
        (Value::Optional(a), Value::Optional(b)) => match (a, b) {
            (None, None) => true,
            (Some(a), Some(b)) => return equal(meter, a, b),
            _ => false,
        },
        (Value::Type(a), Value::Type(b)) => a.name() == b.name(),
        (Value::Opaque(a), Value::Opaque(b)) => match (a, b) {
            (Opaque::Ip(a), Opaque::Ip(b)) => a == b,
            (Opaque::Cidr(a, n), Opaque::Cidr(b, m)) => a == b && n == m,
            (Opaque::Quantity(a), Opaque::Quantity(b)) => a == b,
            (Opaque::Semver(a), Opaque::Semver(b)) => a.compare(b).is_eq(),
            (Opaque::Url(a), Opaque::Url(b)) => a == b,
            (Opaque::Format(a), Opaque::Format(b)) => a.name == b.name,
            (Opaque::Question(a), Opaque::Question(b)) => Arc::ptr_eq(a, b),
            _ => false,
        },
        (Value::Message(a), Value::Message(b)) => {
            if a.name != b.name || a.fields.len() != b.fields.len() {
                return Ok(false);
            }
            for (name, mine) in &a.fields {
                let Some(theirs) = b.fields.get(name) else { return Ok(false) };
                if !equal(meter, mine, theirs)? {
                    return Ok(false);
                }
            }
            true
        }
        (
            Value::Bool(_)
            | Value::Int(_)
            | Value::Uint(_)
            | Value::Double(_)
            | Value::String(_)
            | Value::Bytes(_)
            | Value::Duration(_)
            | Value::Timestamp(_),
            _,
        ) => matches!(compare(meter, a, b), Ok(Some(Ordering::Equal))),
        _ => false,
    })
}

fn equal_maps(meter: &mut Meter, a: &Map<'_>, b: &Map<'_>) -> Result<bool> {
    if a.len() != b.len() {
        return Ok(false);
    }
    for key in a.keys() {
        let Some(mine) = a.find(&key) else { continue };
        let Some(theirs) = b.find(&key) else { return Ok(false) };
        if !equal(meter, &mine?, &theirs?)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn add<'v>(meter: &mut Meter, args: &[Value<'v>]) -> Result<Value<'v>> {
    let [a, b] = args else { return Err(Fault::overload()) };
    Ok(match (a, b) {
        (Value::Int(a), Value::Int(b)) => Value::Int(a.checked_add(*b).ok_or_else(overflow)?),
        (Value::Uint(a), Value::Uint(b)) => Value::Uint(a.checked_add(*b).ok_or_else(unsigned_overflow)?),
        (Value::Double(a), Value::Double(b)) => Value::Double(a + b),
        (Value::String(a), Value::String(b)) => {
            meter.make(a.as_str().len() + b.as_str().len())?;
            Value::text([a.as_str(), b.as_str()].concat())
        }
        (Value::Bytes(a), Value::Bytes(b)) => {
            meter.make(a.len() + b.len())?;
            Value::Bytes([&**a, &**b].concat().into())
        }
        (Value::List(a), Value::List(b)) => return lists::add(meter, a, b),
        (Value::Duration(a), Value::Duration(b)) => Value::Duration(a.checked_add(*b).ok_or_else(overflow)?),
        (Value::Timestamp(stamp), Value::Duration(nanos)) | (Value::Duration(nanos), Value::Timestamp(stamp)) => {
            Value::Timestamp(time::shift(*stamp, *nanos).ok_or_else(|| Fault::failed("timestamp overflow"))?)
        }
        _ => return Err(Fault::overload()),
    })
}

fn subtract<'v>(_: &mut Meter, args: &[Value<'v>]) -> Result<Value<'v>> {
    let [a, b] = args else { return Err(Fault::overload()) };
    Ok(match (a, b) {
        (Value::Int(a), Value::Int(b)) => Value::Int(a.checked_sub(*b).ok_or_else(overflow)?),
        (Value::Uint(a), Value::Uint(b)) => Value::Uint(a.checked_sub(*b).ok_or_else(unsigned_overflow)?),
        (Value::Double(a), Value::Double(b)) => Value::Double(a - b),
        (Value::Duration(a), Value::Duration(b)) => Value::Duration(a.checked_sub(*b).ok_or_else(overflow)?),
        (Value::Timestamp(stamp), Value::Duration(nanos)) => {
            let moved = nanos.checked_neg().and_then(|nanos| time::shift(*stamp, nanos));
            Value::Timestamp(moved.ok_or_else(|| Fault::failed("timestamp overflow"))?)
        }
        (Value::Timestamp(a), Value::Timestamp(b)) => {
            let nanos = a.as_nanosecond() - b.as_nanosecond();
            Value::Duration(i64::try_from(nanos).map_err(|_| Fault::failed("integer overflow"))?)
        }
        _ => return Err(Fault::overload()),
    })
}

fn mismatch(from: &Value<'_>, to: &str) -> Fault {
    Fault::failed(format!("type conversion error from '{}' to '{to}'", from.type_().name()))
}
