//! Lists, sets, maps and optionals (cel-go `ext/lists.go`, `ext/sets.go`, `cel/library.go`;
//! `k8s.io/apiserver/pkg/cel/library/lists.go`).

use std::cmp::Ordering;

use super::{Fault, Function, Key, List, Meter, Result, Value, compare, count, equal, text};
use crate::cel::decl::Merge;

pub(super) fn find(name: &str) -> Option<Function> {
    Some(match name {
        "isSorted" => |meter, args| {
            let list = list(args)?;
            let mut before: Option<Value<'_>> = None;
            for item in list.iter() {
                let item = item?;
                if let Some(before) = &before
                    && compare(meter, before, &item)? == Some(Ordering::Greater)
                {
                    return Ok(Value::Bool(false));
                }
                before = Some(item);
            }
            Ok(Value::Bool(true))
        },
        "sum" => sum,
        "min" => |meter, args| extreme(meter, args, "min", Ordering::Greater),
        "max" => |meter, args| extreme(meter, args, "max", Ordering::Less),
        "indexOf" => |meter, args| match args {
            [Value::List(list), item] => position(meter, list, item, false),
            _ => text::index_of(meter, args, false),
        },
        "lastIndexOf" => |meter, args| match args {
            [Value::List(list), item] => position(meter, list, item, true),
            _ => text::index_of(meter, args, true),
        },
        "slice" => |meter, args| match args {
            [Value::List(list), Value::Int(start), Value::Int(end)] => slice(meter, list, *start, *end),
            _ => Err(Fault::overload()),
        },
        "flatten" => |meter, args| match args {
            [Value::List(list)] => flatten(meter, list, 1),
            [Value::List(_), Value::Int(depth)] if *depth < 0 => Err(Fault::failed("level must be non-negative")),
            [Value::List(list), Value::Int(depth)] => flatten(meter, list, *depth),
            _ => Err(Fault::overload()),
        },
        "sort" => |meter, args| {
            let list = list(args)?;
            sorted(meter, list, list)
        },
        "@sortByAssociatedKeys" => |meter, args| match args {
            [Value::List(list), Value::List(keys)] => sorted(meter, list, keys),
            _ => Err(Fault::overload()),
        },
        "lists.range" => |meter, args| match args {
            [Value::Int(end)] => {
                let end = usize::try_from(*end).unwrap_or(0);
                meter.make(end.saturating_mul(size_of::<Value<'_>>()))?;
                Ok(Value::made((0..end).map(|n| count(n as u64)).collect()))
            }
            _ => Err(Fault::overload()),
        },
        "reverse" => |meter, args| match args {
            [Value::List(list)] => {
                made(meter, list.len())?;
                Ok(Value::made(list.iter().rev().collect::<Result<_>>()?))
            }
            _ => Err(Fault::overload()),
        },
        "distinct" => distinct,
        "sets.contains" => |meter, args| match args {
            [Value::List(all), Value::List(some)] => contains(meter, all, some).map(Value::Bool),
            _ => Err(Fault::overload()),
        },
        "sets.equivalent" => |meter, args| match args {
            [Value::List(a), Value::List(b)] => Ok(Value::Bool(contains(meter, a, b)? && contains(meter, b, a)?)),
            _ => Err(Fault::overload()),
        },
        "sets.intersects" => |meter, args| match args {
            [Value::List(a), Value::List(b)] => {
                for item in b.iter() {
                    if includes(meter, a, &item?)? {
                        return Ok(Value::Bool(true));
                    }
                }
                Ok(Value::Bool(false))
            }
            _ => Err(Fault::overload()),
        },
        "optional.of" => |_, args| args.first().cloned().map(Value::some).ok_or_else(Fault::overload),
        "optional.ofNonZeroValue" => |_, args| match args {
            [value] if is_zero(value) => Ok(Value::Optional(None)),
            [value] => Ok(Value::some(value.clone())),
            _ => Err(Fault::overload()),
        },
        "optional.none" => |_, _| Ok(Value::Optional(None)),
        "hasValue" => |_, args| match args {
            [Value::Optional(value)] => Ok(Value::Bool(value.is_some())),
            _ => Err(Fault::overload()),
        },
        "value" => |_, args| match args {
            [Value::Optional(Some(value))] => Ok(Value::clone(value)),
            [Value::Optional(None)] => Err(Fault::failed("optional.none() dereference")),
            _ => Err(Fault::overload()),
        },
        "or" => |_, args| match args {
            [some @ Value::Optional(Some(_)), _] => Ok(some.clone()),
            [Value::Optional(None), other] => Ok(other.clone()),
            _ => Err(Fault::overload()),
        },
        "orValue" => |_, args| match args {
            [Value::Optional(Some(value)), _] => Ok(Value::clone(value)),
            [Value::Optional(None), other] => Ok(other.clone()),
            _ => Err(Fault::overload()),
        },
        _ => return None,
    })
}

fn list<'r, 'v>(args: &'r [Value<'v>]) -> Result<&'r List<'v>> {
    match args {
        [Value::List(list)] => Ok(list),
        _ => Err(Fault::overload()),
    }
}

fn made(meter: &mut Meter, items: usize) -> Result<()> {
    meter.make(items.saturating_mul(size_of::<Value<'_>>()))
}

fn is_zero(value: &Value<'_>) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Int(value) | Value::Duration(value) => *value == 0,
        Value::Uint(value) => *value == 0,
        Value::Double(value) => *value == 0.0,
        Value::String(text) => text.as_str().is_empty(),
        Value::Bytes(bytes) => bytes.is_empty(),
        Value::List(list) => list.len() == 0,
        Value::Map(map) => map.len() == 0,
        Value::Optional(inner) => inner.is_none(),
        Value::Message(message) => message.fields.is_empty(),
        Value::Timestamp(_) | Value::Type(_) | Value::Opaque(_) => false,
    }
}

fn sum<'v>(meter: &mut Meter, args: &[Value<'v>]) -> Result<Value<'v>> {
    let mut total: Option<Value<'v>> = None;
    for item in list(args)?.iter() {
        let item = item?;
        meter.work(1)?;
        total = Some(match total {
            None => item,
            Some(total) => super::add(meter, &[total, item])?,
        });
    }
    // The sum of nothing is an int's unless the type says otherwise, which is gone by now; all zeros are equal.
    Ok(total.unwrap_or(Value::Int(0)))
}

fn extreme<'v>(meter: &mut Meter, args: &[Value<'v>], name: &str, replaces: Ordering) -> Result<Value<'v>> {
    let mut best: Option<Value<'v>> = None;
    for item in list(args)?.iter() {
        let item = item?;
        best = Some(match best {
            Some(best) if compare(meter, &best, &item)? != Some(replaces) => best,
            _ => item,
        });
    }
    best.ok_or_else(|| Fault::failed(format!("{name} called on empty list")))
}

fn position<'v>(meter: &mut Meter, list: &List<'v>, item: &Value<'v>, last: bool) -> Result<Value<'v>> {
    let mut found = -1;
    for (at, other) in list.iter().enumerate() {
        if equal(meter, &other?, item)? {
            found = i64::try_from(at).unwrap_or(i64::MAX);
            if !last {
                break;
            }
        }
    }
    Ok(Value::Int(found))
}

fn slice<'v>(meter: &mut Meter, list: &List<'v>, start: i64, end: i64) -> Result<Value<'v>> {
    let (Ok(from), Ok(to)) = (usize::try_from(start), usize::try_from(end)) else {
        return Err(Fault::failed(format!("cannot slice({start}, {end}), negative indexes not supported")));
    };
    if from > to {
        return Err(Fault::failed(format!(
            "cannot slice({start}, {end}), start index must be less than or equal to end index"
        )));
    }
    if to > list.len() {
        return Err(Fault::failed(format!("cannot slice({start}, {end}), list is length {}", list.len())));
    }
    made(meter, to - from)?;
    let items = (from..to).filter_map(|at| list.get(at)).collect::<Result<_>>()?;
    Ok(Value::made(items))
}

/// Lists within lists may be this deep.
const FLATTEN_DEPTH_MAX: i64 = 64;

fn flatten<'v>(meter: &mut Meter, list: &List<'v>, depth: i64) -> Result<Value<'v>> {
    let mut out = Vec::new();
    spread(meter, list, depth.min(FLATTEN_DEPTH_MAX), &mut out)?;
    Ok(Value::made(out))
}

fn spread<'v>(meter: &mut Meter, list: &List<'v>, depth: i64, out: &mut Vec<Value<'v>>) -> Result<()> {
    made(meter, list.len())?;
    for item in list.iter() {
        match item? {
            Value::List(inner) if depth > 0 => spread(meter, &inner, depth - 1, out)?,
            other => out.push(other),
        }
    }
    Ok(())
}

fn sorted<'v>(meter: &mut Meter, list: &List<'v>, keys: &List<'v>) -> Result<Value<'v>> {
    if list.len() != keys.len() {
        return Err(Fault::failed(format!(
            "@sortByAssociatedKeys() expected a list of the same size as the associated keys list, but got {} and {} elements respectively",
            list.len(),
            keys.len()
        )));
    }
    made(meter, list.len() * 2)?;
    let pairs: Result<Vec<_>> = keys.iter().zip(list.iter()).map(|(key, item)| Ok((key?, item?))).collect();
    let mut pairs = pairs?;
    let mut failed = None;
    pairs.sort_by(|(a, _), (b, _)| match compare(meter, a, b) {
        Ok(order) => order.unwrap_or(Ordering::Equal),
        Err(fault) => {
            failed = Some(fault);
            Ordering::Equal
        }
    });
    match failed {
        Some(Fault::OverBudget) => Err(Fault::OverBudget),
        Some(_) => Err(Fault::failed("list elements must be comparable")),
        None => Ok(Value::made(pairs.into_iter().map(|(_, item)| item).collect())),
    }
}

fn distinct<'v>(meter: &mut Meter, args: &[Value<'v>]) -> Result<Value<'v>> {
    let mut out: Vec<Value<'v>> = Vec::new();
    for item in list(args)?.iter() {
        let item = item?;
        let mut seen = false;
        for other in &out {
            seen |= equal(meter, other, &item)?;
        }
        if !seen {
            made(meter, 1)?;
            out.push(item);
        }
    }
    Ok(Value::made(out))
}

/// Whether an item is in a list.
pub(super) fn includes(meter: &mut Meter, list: &List<'_>, item: &Value<'_>) -> Result<bool> {
    for other in list.iter() {
        if equal(meter, &other?, item)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn contains(meter: &mut Meter, all: &List<'_>, some: &List<'_>) -> Result<bool> {
    for item in some.iter() {
        if !includes(meter, all, &item?)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What tells the items of a map-like list apart.
fn identity<'v>(item: &Value<'v>, keys: &[Box<str>]) -> Result<Vec<Option<Value<'v>>>> {
    let Value::Map(map) = item else { return Ok(Vec::new()) };
    let field = |name: &str| {
        let escaped = crate::cel::escape(name).unwrap_or_else(|| name.to_owned());
        map.find(&Key::String(escaped.into())).transpose()
    };
    keys.iter().map(|name| field(name)).collect()
}

fn same_identity(meter: &mut Meter, a: &[Option<Value<'_>>], b: &[Option<Value<'_>>]) -> Result<bool> {
    for pair in a.iter().zip(b) {
        let same = match pair {
            (Some(a), Some(b)) => equal(meter, a, b)?,
            (None, None) => true,
            _ => false,
        };
        if !same {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Sets are equal in any order, as are lists by key; others item by item.
pub(super) fn equal_lists(meter: &mut Meter, a: &List<'_>, b: &List<'_>) -> Result<bool> {
    if a.len() != b.len() {
        return Ok(false);
    }
    match (a, b) {
        (List::Data(_, _, Merge::Set), _) => contains(meter, a, b),
        (List::Data(_, _, Merge::Map(keys)), _) => {
            for theirs in b.iter() {
                let theirs = theirs?;
                let wanted = identity(&theirs, keys)?;
                let mut found = false;
                for mine in a.iter() {
                    let mine = mine?;
                    if same_identity(meter, &identity(&mine, keys)?, &wanted)? {
                        found = equal(meter, &mine, &theirs)?;
                        break;
                    }
                }
                if !found {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        _ => {
            for (a, b) in a.iter().zip(b.iter()) {
                if !equal(meter, &a?, &b?)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
    }
}

/// Sets add up without doubles; in lists by key, the second's items stand in for the first's.
pub(super) fn add<'v>(meter: &mut Meter, a: &List<'v>, b: &List<'v>) -> Result<Value<'v>> {
    made(meter, a.len() + b.len())?;
    let mut items: Vec<Value<'v>> = a.iter().collect::<Result<_>>()?;
    match a {
        List::Data(_, _, Merge::Set) => {
            for item in b.iter() {
                let item = item?;
                if !includes(meter, a, &item)? {
                    items.push(item);
                }
            }
        }
        List::Data(_, _, Merge::Map(keys)) => {
            for item in b.iter() {
                let item = item?;
                let wanted = identity(&item, keys)?;
                let mut place = None;
                for (at, mine) in items.iter().enumerate() {
                    if same_identity(meter, &identity(mine, keys)?, &wanted)? {
                        place = Some(at);
                        break;
                    }
                }
                match place.and_then(|at| items.get_mut(at)) {
                    Some(mine) => *mine = item,
                    None => items.push(item),
                }
            }
        }
        _ => items.extend(b.iter().collect::<Result<Vec<_>>>()?),
    }
    Ok(Value::made(items))
}
