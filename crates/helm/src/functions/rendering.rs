//! Helm's own functions: what renders again, and what fails.

use std::{collections::HashMap, rc::Rc};

use regex::Regex;

use super::All;
use crate::{
    data,
    template::{
        Run, Scope, Text,
        error::{Class, Error, Result},
        function::{Args, Function},
        parse,
        text::quoted,
        value::{Entries, Value},
    },
    world::World,
};

/// A template may include itself so often, as in Helm.
pub const INCLUDES_MAX: usize = 1_000;
/// Texts given to `tpl` that are kept parsed in one run.
const PARSED_MAX: usize = 1_000;
/// What encloses the words of `required` and `fail` until they are told.
pub const WARNING: (&str, &str) = ("HELM_ERR_START", "HELM_ERR_END");

pub const FUNCTIONS: &[Function] = &[
    Function { name: "fail", takes: "s", run: |_, args| refused(args.text(0)) },
    Function { name: "getHostByName", takes: "s", run: |_, _| Ok(Value::text("")) },
    Function { name: "include", takes: "sa", run: include },
    Function {
        name: "lookup",
        takes: "ssss",
        run: |scope, args| {
            let state = State::of(scope.run)?;
            match (state.world.lookup)(args.text(0), args.text(1), args.text(2), args.text(3)) {
                Ok(Some(found)) => Ok(data::of_json(&found)),
                Ok(None) => Ok(Value::map(Entries::new())),
                Err(what) => Error::call(what),
            }
        },
    },
    Function {
        name: "required",
        takes: "sa",
        run: |_, mut args| match args.at(1) {
            Value::None | Value::Nil => refused(args.text(0)),
            Value::Str(text) if text.is_empty() => refused(args.text(0)),
            _ => Ok(args.take(1)),
        },
    },
    Function { name: "tpl", takes: "sa", run: tpl },
];

/// What the functions keep over a run.
pub struct State {
    pub(super) world: World,
    included: HashMap<String, usize>,
    parsed: HashMap<String, Rc<Text>>,
    pub(super) regexes: HashMap<String, Regex>,
    /// Hashes for passwords that were made.
    pub(super) hashes: usize,
    /// Keys that were asked for.
    pub(super) keys: usize,
}

impl State {
    pub fn new(world: World) -> Self {
        Self { world, included: HashMap::new(), parsed: HashMap::new(), regexes: HashMap::new(), hashes: 0, keys: 0 }
    }

    pub(super) fn of(run: &mut Run) -> Result<&mut Self> {
        match run.state.downcast_mut() {
            Some(state) => Ok(state),
            None => Error::call("the run was begun without what Helm's functions keep"),
        }
    }
}

fn refused<T>(words: &str) -> Result<T> {
    let (start, end) = WARNING;
    Error::call(format!("{start}{words}{end}"))
}

fn include(scope: &mut Scope<'_>, mut args: Args) -> Result<Value> {
    let name = args.shared_text(0);
    let included = State::of(scope.run)?.included.entry(name.to_string()).or_default();
    if *included > INCLUDES_MAX {
        return Error::call(format!(
            "rendering template has a nested reference name: {name}: unable to execute template"
        ));
    }
    *included += 1;
    let done = scope.execute(&name, args.take(1));
    if let Some(included) = State::of(scope.run)?.included.get_mut(&*name) {
        *included -= 1;
    }
    Ok(done?.into())
}

fn tpl(scope: &mut Scope<'_>, mut args: Args) -> Result<Value> {
    let text = args.shared_text(0);
    if !text.contains("{{") {
        return Ok(without_no_value(text.to_string()).into());
    }
    let known = State::of(scope.run)?.parsed.get(&*text).cloned();
    let parsed = match known {
        Some(parsed) => parsed,
        None => {
            scope.run.charge(text.len())?;
            let parsed = parse("gotpl", &text, &All);
            let parsed = Rc::new(parsed.map_err(|error| {
                if error.class() == Class::Limit {
                    error
                } else {
                    error.of(|what| format!("cannot parse template {}: {what}", quoted(&text)))
                }
            })?);
            let kept = &mut State::of(scope.run)?.parsed;
            if kept.len() < PARSED_MAX {
                kept.insert(text.to_string(), parsed.clone());
            }
            parsed
        }
    };
    let done = scope
        .execute_text(&parsed, args.take(1))
        .map_err(|error| error.of(|what| format!("error during tpl function execution for {}: {what}", quoted(&text))));
    Ok(without_no_value(done?).into())
}

/// Helm takes out what Go writes for no value.
pub fn without_no_value(text: String) -> String {
    if text.contains("<no value>") { text.replace("<no value>", "") } else { text }
}
