//! Regular expressions (`k8s.io/apiserver/pkg/cel/library/regex.go`).

use super::{Fault, Function, Meter, Result, Text, Value};
use crate::cel::pattern::Pattern;

pub(super) fn function(name: &str) -> Option<Function> {
    Some(match name {
        "matches" => |meter, args| match args {
            [Value::String(text), Value::String(pattern)] => {
                let pattern = compiled(meter, pattern)?;
                matches(meter, text, &pattern)
            }
            _ => Err(Fault::overload()),
        },
        "find" => |meter, args| match args {
            [Value::String(text), Value::String(pattern)] => {
                let pattern = compiled(meter, pattern)?;
                find(meter, text, &pattern)
            }
            _ => Err(Fault::overload()),
        },
        "findAll" => |meter, args| match args {
            [Value::String(text), Value::String(pattern)] => {
                let pattern = compiled(meter, pattern)?;
                find_all(meter, text, &pattern, None)
            }
            [Value::String(text), Value::String(pattern), limit] => {
                let pattern = compiled(meter, pattern)?;
                find_all(meter, text, &pattern, Some(limit))
            }
            _ => Err(Fault::overload()),
        },
        _ => return None,
    })
}

/// Steps that compiling a pattern counts as: it costs far more than the cost model says.
const COMPILE_WORK: u64 = 10_000;

fn compiled(meter: &mut Meter, text: &Text<'_>) -> Result<Pattern> {
    meter.work(COMPILE_WORK + 200 * text.as_str().len() as u64)?;
    Pattern::new(text.as_str()).map_err(|error| Fault::failed(format!("Illegal regex: {error}")))
}

fn look(meter: &mut Meter, text: &Text<'_>, pattern: &Pattern) -> Result<()> {
    meter.work((text.as_str().len() as u64 + 1).saturating_mul(pattern.weight))
}

pub(in crate::cel) fn matches<'v>(meter: &mut Meter, text: &Text<'_>, pattern: &Pattern) -> Result<Value<'v>> {
    look(meter, text, pattern)?;
    Ok(Value::Bool(pattern.regex.is_match(text.as_str())))
}

pub(in crate::cel) fn find<'v>(meter: &mut Meter, text: &Text<'_>, pattern: &Pattern) -> Result<Value<'v>> {
    look(meter, text, pattern)?;
    let found = pattern.regex.find(text.as_str()).map_or("", |found| found.as_str());
    meter.make(found.len())?;
    Ok(Value::text(found.to_owned()))
}

pub(in crate::cel) fn find_all<'v>(
    meter: &mut Meter,
    text: &Text<'_>,
    pattern: &Pattern,
    limit: Option<&Value<'_>>,
) -> Result<Value<'v>> {
    let limit = match limit {
        None => usize::MAX,
        Some(Value::Int(limit)) => usize::try_from(*limit).unwrap_or(usize::MAX),
        Some(_) => return Err(Fault::overload()),
    };
    look(meter, text, pattern)?;
    let mut out = Vec::new();
    for found in pattern.regex.find_iter(text.as_str()).take(limit) {
        meter.make(found.len() + size_of::<Value<'_>>())?;
        out.push(Value::text(found.as_str().to_owned()));
    }
    Ok(Value::made(out))
}
