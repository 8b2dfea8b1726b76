//! What functions there are: names, types and overloads, read from a table once.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
};

use super::{
    authorizer, format,
    types::{self, Type},
};

/// One way to call a function.
#[derive(Clone, Debug)]
pub(super) struct Overload {
    pub id: Arc<str>,
    /// `x.f()` rather than `f(x)`.
    pub member: bool,
    /// With the receiver first.
    pub args: Vec<Type>,
    pub result: Type,
    /// How many type parameters it has; they are numbered from 0.
    pub params: u32,
}

static TABLE: &str = include_str!("library.txt");
const ORDERED: [&str; 8] = ["int", "uint", "double", "bool", "duration", "timestamp", "string", "bytes"];
const SUMMABLE: [&str; 4] = ["int", "uint", "double", "duration"];

/// Only where patches are made.
pub(super) const ESCAPE_KEY: &str = "jsonpatch.escapeKey";

type Functions = HashMap<Box<str>, Vec<Overload>>;

fn functions() -> &'static Functions {
    static FUNCTIONS: OnceLock<Functions> = OnceLock::new();
    FUNCTIONS.get_or_init(|| {
        let mut map = Functions::new();
        for line in TABLE.lines().filter(|line| !line.starts_with('#')) {
            let stands_for = match () {
                () if line.contains("$C") => &ORDERED[..],
                () if line.contains("$S") => &SUMMABLE[..],
                () => &[""][..],
            };
            for name in stands_for {
                add(&mut map, &line.replace("$C", name).replace("$S", name));
            }
        }
        for (name, id) in [("_<_", "less"), ("_<=_", "less_equals"), ("_>_", "greater"), ("_>=_", "greater_equals")] {
            for (of, short) in ORDERED.into_iter().zip(ORDER_NAMES) {
                add(&mut map, &format!("{name} {id}_{short} {of} {of} -> bool"));
            }
            for (a, b) in [("int", "double"), ("int", "uint"), ("uint", "double")] {
                for (a, b) in [(a, b), (b, a)] {
                    add(&mut map, &format!("{name} {id}_{a}_{b} {a} {b} -> bool"));
                }
            }
        }
        for name in format::NAMES {
            add(&mut map, &format!("format.{name} format.{name} -> format"));
        }
        map
    })
}

const ORDER_NAMES: [&str; 8] = ["int64", "uint64", "double", "bool", "duration", "timestamp", "string", "bytes"];

/// The ways to call a function of that name.
pub(super) fn overloads(name: &str) -> Option<&'static [Overload]> {
    functions().get(name).map(Vec::as_slice)
}

fn add(map: &mut Functions, line: &str) {
    let mut words = line.split(' ');
    let (Some(name), Some(id)) = (words.next(), words.next()) else { return };
    let mut params = Vec::new();
    let mut member = false;
    let mut args = Vec::new();
    for word in words.by_ref().take_while(|word| *word != "->") {
        member |= word.starts_with('.');
        args.push(type_(word.trim_start_matches('.'), &mut params));
    }
    let result = type_(words.next().unwrap_or("dyn"), &mut params);
    let params = u32::try_from(params.len()).unwrap_or(0);
    map.entry(name.into()).or_default().push(Overload { id: id.into(), member, args, result, params });
}

fn type_(text: &str, params: &mut Vec<String>) -> Type {
    let Some((outer, inner)) = text.strip_suffix(')').and_then(|text| text.split_once('(')) else {
        return match text {
            "dyn" => Type::Dyn,
            "null" => Type::Null,
            "duration" => Type::Duration,
            "timestamp" => Type::Timestamp,
            "ip" => Type::Opaque(types::IP),
            "cidr" => Type::Opaque(types::CIDR),
            "url" => Type::Opaque(types::URL),
            "quantity" => Type::Opaque(types::QUANTITY),
            "semver" => Type::Opaque(types::SEMVER),
            "format" => Type::Opaque(types::FORMAT),
            "authorizer" => Type::AUTHORIZER,
            "path_check" => Type::Opaque(authorizer::PATH_CHECK),
            "group_check" => Type::Opaque(authorizer::GROUP_CHECK),
            "resource_check" => Type::RESOURCE_CHECK,
            "decision" => Type::Opaque(authorizer::DECISION),
            name => Type::by_name(name).unwrap_or_else(|| {
                let at = params.iter().position(|known| known == name).unwrap_or_else(|| {
                    params.push(name.to_owned());
                    params.len() - 1
                });
                Type::Param(u32::try_from(at).unwrap_or(0))
            }),
        };
    };
    match outer {
        "list" => Type::list(type_(inner, params)),
        "optional" => Type::optional(type_(inner, params)),
        "type" => Type::Type(Arc::new(type_(inner, params))),
        _ => {
            let (key, value) = inner.split_once(',').unwrap_or((inner, "dyn"));
            Type::map(type_(key, params), type_(value, params))
        }
    }
}
