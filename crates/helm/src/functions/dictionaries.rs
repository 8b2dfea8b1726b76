//! Functions over maps. `set`, `unset` and `merge` change the map that they are given.

use std::rc::Rc;

use super::casts;
use crate::{
    data,
    template::{
        Scope,
        error::{Error, Result},
        format::NESTING_MAX,
        function::{Args, Function},
        value::{Entries, Map, Value},
    },
};

pub const FUNCTIONS: &[Function] = &[
    Function { name: "deepCopy", takes: "a", run: |_, args| data::copied(args.at(0)) },
    Function { name: "dict", takes: "a*", run: dict },
    Function { name: "dig", takes: "a*", run: dig },
    Function {
        name: "get",
        takes: "ms",
        run: |_, args| Ok(args.map(0).and_then(|map| map.get(args.text(1))).unwrap_or_else(|| Value::text(""))),
    },
    Function {
        name: "hasKey",
        takes: "ms",
        run: |_, args| Ok(args.map(0).is_some_and(|map| map.get(args.text(1)).is_some()).into()),
    },
    Function { name: "keys", takes: "m*", run: keys },
    Function { name: "merge", takes: "mm*", run: |scope, args| merged(scope, args, false) },
    Function { name: "mergeOverwrite", takes: "mm*", run: |scope, args| merged(scope, args, true) },
    Function { name: "mustDeepCopy", takes: "a", run: |_, args| data::copied(args.at(0)) },
    Function { name: "mustMerge", takes: "mm*", run: |scope, args| merged(scope, args, false) },
    Function { name: "mustMergeOverwrite", takes: "mm*", run: |scope, args| merged(scope, args, true) },
    Function { name: "omit", takes: "ms*", run: |_, args| Ok(kept(&args, |named| !named)) },
    Function { name: "pick", takes: "ms*", run: |_, args| Ok(kept(&args, |named| named)) },
    Function {
        name: "pluck",
        takes: "sm*",
        run: |_, args| {
            let found = args.rest(1).iter().filter_map(|map| map.as_map()?.get(args.text(0)));
            Ok(Value::list(found.collect()))
        },
    },
    Function { name: "set", takes: "msa", run: set },
    Function { name: "unset", takes: "ms", run: unset },
    Function {
        name: "values",
        takes: "m",
        run: |_, args| {
            Ok(Value::list(args.map(0).map(|map| map.entries.borrow().values().cloned().collect()).unwrap_or_default()))
        },
    },
];

fn dict(_: &mut Scope<'_>, args: Args) -> Result<Value> {
    let mut entries = Entries::new();
    for pair in args.rest(0).chunks(2) {
        let [key, rest @ ..] = pair else { continue };
        let key = match key {
            Value::Str(text) => text.clone(),
            other => casts::text(other)?.into(),
        };
        entries.insert(key, rest.first().cloned().unwrap_or_else(|| Value::text("")));
    }
    Ok(Value::map(entries))
}

fn set(scope: &mut Scope<'_>, mut args: Args) -> Result<Value> {
    let (key, value) = (args.shared_text(1), args.take(2));
    let Some(map) = args.map(0) else { return Error::call("assignment to entry in nil map") };
    scope.run.changes(map);
    map.entries.borrow_mut().insert(key, value);
    Ok(args.take(0))
}

fn unset(_: &mut Scope<'_>, mut args: Args) -> Result<Value> {
    if let Some(map) = args.map(0) {
        let removed = map.entries.borrow_mut().remove(args.text(1));
        drop(removed);
    }
    Ok(args.take(0))
}

fn keys(_: &mut Scope<'_>, args: Args) -> Result<Value> {
    let mut keys = Vec::new();
    for map in args.rest(0).iter().filter_map(Value::as_map) {
        keys.extend(map.entries.borrow().keys().map(ToString::to_string));
    }
    Ok(Value::texts(keys))
}

fn kept(args: &Args, keep: impl Fn(bool) -> bool) -> Value {
    let named = |key: &str| args.rest(1).iter().any(|name| name.as_str() == Some(key));
    let Some(map) = args.map(0) else { return Value::map(Entries::new()) };
    let entries = map.entries.borrow();
    let entries = entries.iter().filter(|(key, _)| keep(named(key)));
    Value::map(entries.map(|(key, value)| (key.clone(), value.clone())).collect())
}

fn dig(_: &mut Scope<'_>, args: Args) -> Result<Value> {
    let values = args.rest(0);
    let [path @ .., default, dict] = values else { return Error::call("dig needs at least three arguments") };
    if path.is_empty() {
        return Error::call("dig needs at least three arguments");
    }
    let converted = |value: &Value, to: &str| {
        let from = if value.is_nil() { "nil".to_owned() } else { value.type_name() };
        Error::call(format!("interface conversion: interface {{}} is {from}, not {to}"))
    };
    let mut value = dict.clone();
    for key in path {
        let Value::Map(map) = &value else { return converted(&value, "map[string]interface {}") };
        let Value::Str(key) = key else { return converted(key, "string") };
        let Some(found) = map.get(key) else { return Ok(default.clone()) };
        value = found;
    }
    Ok(value)
}

fn merged(scope: &mut Scope<'_>, mut args: Args, overwrite: bool) -> Result<Value> {
    let target = match args.map(0) {
        Some(map) => map.clone(),
        None => {
            args.0[0] = Value::map(Entries::new());
            match args.map(0) {
                Some(map) => map.clone(),
                None => return Ok(Value::Nil),
            }
        }
    };
    for source in args.rest(1).iter().filter_map(Value::as_map) {
        merge(scope, &target, source, overwrite, 0)?;
    }
    Ok(args.take(0))
}

/// As mergo does: maps are merged in place, what is empty is filled, and the rest stays unless it is to be overwritten.
fn merge(scope: &mut Scope<'_>, target: &Rc<Map>, source: &Rc<Map>, overwrite: bool, depth: usize) -> Result<()> {
    if Rc::ptr_eq(target, source) {
        return Ok(());
    }
    if depth > NESTING_MAX {
        return Error::limit(format!("values are nested more than {NESTING_MAX} deep"));
    }
    scope.run.changes(target);
    let entries: Vec<_> = source.entries.borrow().iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    scope.run.charge(entries.len() * size_of::<Value>())?;
    for (key, value) in entries {
        let known = target.get(&key);
        if value.is_nil() {
            if overwrite {
                target.entries.borrow_mut().insert(key, value);
            }
            continue;
        }
        if let (Value::Map(source), Some(Value::Map(target))) = (&value, &known) {
            merge(scope, target, source, overwrite, depth + 1)?;
            if !target.entries.borrow().is_empty() {
                continue;
            }
        }
        if overwrite || known.as_ref().is_none_or(casts::is_empty) {
            target.entries.borrow_mut().insert(key, value);
        }
    }
    Ok(())
}
