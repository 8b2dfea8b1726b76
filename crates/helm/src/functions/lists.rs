//! Functions over lists. None changes the list that it is given.

use super::casts;
use crate::template::{
    Scope,
    comparison::deeply_equal,
    error::{Error, Result},
    function::{Args, Function},
    value::{ANY_LIST, INT_LIST, LIST_LIST, Value},
};

pub const FUNCTIONS: &[Function] = &[
    Function { name: "append", takes: "aa", run: |_, args| push(args) },
    Function { name: "chunk", takes: "ia", run: |_, args| chunk(&args) },
    Function { name: "compact", takes: "a", run: |_, args| compact(&args) },
    Function { name: "concat", takes: "a*", run: concat },
    Function {
        name: "first",
        takes: "a",
        run: |_, args| Ok(items(&args, 0, "find first on")?.first().cloned().unwrap_or(Value::Nil)),
    },
    Function { name: "has", takes: "aa", run: |_, args| has(&args) },
    Function { name: "initial", takes: "a", run: |_, args| initial(&args) },
    Function {
        name: "last",
        takes: "a",
        run: |_, args| Ok(items(&args, 0, "find last on")?.pop().unwrap_or(Value::Nil)),
    },
    Function { name: "list", takes: "a*", run: |_, args| Ok(Value::list(args.0)) },
    Function { name: "mustAppend", takes: "aa", run: |_, args| push(args) },
    Function { name: "mustChunk", takes: "ia", run: |_, args| chunk(&args) },
    Function { name: "mustCompact", takes: "a", run: |_, args| compact(&args) },
    Function {
        name: "mustFirst",
        takes: "a",
        run: |_, args| Ok(items(&args, 0, "find first on")?.first().cloned().unwrap_or(Value::Nil)),
    },
    Function { name: "mustHas", takes: "aa", run: |_, args| has(&args) },
    Function { name: "mustInitial", takes: "a", run: |_, args| initial(&args) },
    Function {
        name: "mustLast",
        takes: "a",
        run: |_, args| Ok(items(&args, 0, "find last on")?.pop().unwrap_or(Value::Nil)),
    },
    Function { name: "mustPrepend", takes: "aa", run: |_, args| prepend(args) },
    Function { name: "mustPush", takes: "aa", run: |_, args| push(args) },
    Function { name: "mustRest", takes: "a", run: |_, args| rest(&args) },
    Function { name: "mustReverse", takes: "a", run: |_, args| reverse(&args) },
    Function { name: "mustSlice", takes: "aa*", run: |_, args| slice(&args) },
    Function { name: "mustUniq", takes: "a", run: |_, args| uniq(&args) },
    Function { name: "mustWithout", takes: "aa*", run: |_, args| without(&args) },
    Function { name: "prepend", takes: "aa", run: |_, args| prepend(args) },
    Function { name: "push", takes: "aa", run: |_, args| push(args) },
    Function { name: "rest", takes: "a", run: |_, args| rest(&args) },
    Function { name: "reverse", takes: "a", run: |_, args| reverse(&args) },
    Function { name: "slice", takes: "aa*", run: |_, args| slice(&args) },
    Function { name: "sortAlpha", takes: "a", run: sort_alpha },
    Function { name: "tuple", takes: "a*", run: |_, args| Ok(Value::list(args.0)) },
    Function { name: "uniq", takes: "a", run: |_, args| uniq(&args) },
    Function {
        name: "until",
        takes: "i",
        run: |scope, args| {
            let end = args.int(0);
            steps(scope, 0, end, if end < 0 { -1 } else { 1 }).map(ints)
        },
    },
    Function {
        name: "untilStep",
        takes: "iii",
        run: |scope, args| steps(scope, args.int(0), args.int(1), args.int(2)).map(ints),
    },
    Function { name: "without", takes: "aa*", run: |_, args| without(&args) },
];

/// The items of an argument that has to be a list.
fn items(args: &Args, index: usize, doing: &str) -> Result<Vec<Value>> {
    let value = args.at(index);
    match value.items() {
        Some(items) => Ok(items),
        None if value.is_nil() => Error::call("runtime error: invalid memory address or nil pointer dereference"),
        None => Error::call(format!("Cannot {doing} type {}", value.kind())),
    }
}

fn push(mut args: Args) -> Result<Value> {
    let mut list = items(&args, 0, "push on")?;
    list.push(args.take(1));
    Ok(Value::list(list))
}

fn prepend(mut args: Args) -> Result<Value> {
    let mut list = items(&args, 0, "prepend on")?;
    list.insert(0, args.take(1));
    Ok(Value::list(list))
}

fn rest(args: &Args) -> Result<Value> {
    let mut list = items(args, 0, "find rest on")?;
    if list.is_empty() {
        return Ok(Value::absent_list(&ANY_LIST));
    }
    list.remove(0);
    Ok(Value::list(list))
}

fn initial(args: &Args) -> Result<Value> {
    let mut list = items(args, 0, "find initial on")?;
    Ok(if list.pop().is_none() { Value::absent_list(&ANY_LIST) } else { Value::list(list) })
}

fn reverse(args: &Args) -> Result<Value> {
    let mut list = items(args, 0, "find reverse on")?;
    list.reverse();
    Ok(Value::list(list))
}

fn compact(args: &Args) -> Result<Value> {
    let mut list = items(args, 0, "compact on")?;
    list.retain(|item| !casts::is_empty(item));
    Ok(Value::list(list))
}

fn holds(list: &[Value], wanted: &Value) -> Result<bool> {
    for item in list {
        if deeply_equal(wanted, item)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn uniq(args: &Args) -> Result<Value> {
    let mut kept: Vec<Value> = Vec::new();
    for item in items(args, 0, "find uniq on")? {
        if !holds(&kept, &item)? {
            kept.push(item);
        }
    }
    Ok(Value::list(kept))
}

fn without(args: &Args) -> Result<Value> {
    let mut kept = Vec::new();
    for item in items(args, 0, "find without on")? {
        if !holds(args.rest(1), &item)? {
            kept.push(item);
        }
    }
    Ok(Value::list(kept))
}

fn has(args: &Args) -> Result<Value> {
    if args.at(1).is_nil() {
        return Ok(false.into());
    }
    Ok(holds(&items(args, 1, "find has on")?, args.at(0))?.into())
}

fn slice(args: &Args) -> Result<Value> {
    let value = args.at(0);
    let Some(list) = value.items() else {
        return match value {
            Value::None | Value::Nil => Error::call("runtime error: invalid memory address or nil pointer dereference"),
            _ => Error::call(format!("list should be type of slice or array but {}", value.kind())),
        };
    };
    if list.is_empty() {
        return Ok(Value::Nil);
    }
    let index = |at: usize, or: usize| match args.rest(1).get(at) {
        Some(value) => usize::try_from(casts::int(value)).ok(),
        None => Some(or),
    };
    match (index(0, 0), index(1, list.len())) {
        (Some(from), Some(to)) if from <= to && to <= list.len() => {
            let ty = if let Value::List(list) = value { list.ty } else { &ANY_LIST };
            Ok(Value::typed_list(ty, list[from..to].to_vec()))
        }
        _ => Error::call("reflect.Value.Slice: slice index out of bounds"),
    }
}

fn concat(scope: &mut Scope<'_>, args: Args) -> Result<Value> {
    let mut joined = Vec::new();
    for value in args.rest(0) {
        match value.items() {
            Some(mut items) => {
                scope.run.charge(items.len() * size_of::<Value>())?;
                joined.append(&mut items);
            }
            None if value.is_nil() => {
                return Error::call("runtime error: invalid memory address or nil pointer dereference");
            }
            None => return Error::call(format!("Cannot concat type {} as list", value.kind())),
        }
    }
    Ok(if joined.is_empty() { Value::absent_list(&ANY_LIST) } else { Value::list(joined) })
}

fn chunk(args: &Args) -> Result<Value> {
    let list = items(args, 1, "chunk")?;
    let Some(size) = usize::try_from(args.int(0)).ok().filter(|size| *size > 0) else {
        return Error::call("runtime error: makeslice: len out of range");
    };
    Ok(Value::typed_list(&LIST_LIST, list.chunks(size).map(|chunk| Value::list(chunk.to_vec())).collect()))
}

fn sort_alpha(_: &mut Scope<'_>, args: Args) -> Result<Value> {
    let mut texts = casts::texts(args.at(0))?;
    if args.at(0).is_nil() {
        texts.push("<nil>".to_owned());
    }
    texts.sort();
    Ok(Value::texts(texts))
}

pub fn ints(numbers: Vec<i64>) -> Value {
    Value::typed_list(&INT_LIST, numbers.into_iter().map(Value::Int).collect())
}

/// From `start` to before `stop`.
///
/// # Errors
/// That there are too many.
pub fn steps(scope: &mut Scope<'_>, start: i64, stop: i64, step: i64) -> Result<Vec<i64>> {
    if (stop < start) == (step >= 0) || step == 0 {
        return Ok(Vec::new());
    }
    let count = (i128::from(stop) - i128::from(start)).unsigned_abs().div_ceil(i128::from(step).unsigned_abs());
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    scope.run.charge(count.saturating_mul(size_of::<Value>()))?;
    let mut numbers = Vec::with_capacity(count);
    let mut at = start;
    for _ in 0..count {
        numbers.push(at);
        at = at.saturating_add(step);
    }
    Ok(numbers)
}
