//! Quantities, versions and named formats (`k8s.io/apiserver/pkg/cel/library/{quantity,semverlib,format}.go`).

use std::{cmp::Ordering, sync::Arc};

use super::{Fault, Format, Function, Opaque, Quantity, Result, Value};
use crate::cel::semver::Semver;

pub(super) fn find(name: &str) -> Option<Function> {
    if let Some(format) = name.strip_prefix("format.").filter(|name| *name != "named") {
        return constant(format);
    }
    Some(match name {
        "quantity" => |_, args| match args {
            [Value::String(text)] => Quantity::parse(text.as_str()).map(made).map_err(Fault::failed),
            _ => Err(Fault::overload()),
        },
        "isQuantity" => |_, args| match args {
            [Value::String(text)] => Ok(Value::Bool(Quantity::parse(text.as_str()).is_ok())),
            _ => Err(Fault::overload()),
        },
        "sign" => |_, args| of(args, |quantity| Ok(Value::Int(quantity.sign()))),
        "asApproximateFloat" => |_, args| of(args, |quantity| Ok(Value::Double(quantity.approximate()))),
        "isInteger" => |_, args| of(args, |quantity| Ok(Value::Bool(quantity.whole().is_some()))),
        "asInteger" => |_, args| {
            of(args, |quantity| {
                let whole = quantity.whole().ok_or_else(|| Fault::failed("cannot convert value to integer"))?;
                Ok(Value::Int(whole))
            })
        },
        "add" => |_, args| calculate(args, Quantity::plus),
        "sub" => |_, args| calculate(args, Quantity::minus),
        "isGreaterThan" => |_, args| Ok(Value::Bool(compare(args)?.is_gt())),
        "isLessThan" => |_, args| Ok(Value::Bool(compare(args)?.is_lt())),
        "compareTo" => |_, args| Ok(Value::Int(compare(args)? as i64)),
        "semver" => |_, args| {
            let (text, normalize) = version_args(args)?;
            Semver::parse(text, normalize).map(|v| Value::Opaque(Opaque::Semver(Arc::new(v)))).map_err(Fault::failed)
        },
        "isSemver" => |_, args| {
            let (text, normalize) = version_args(args)?;
            Ok(Value::Bool(Semver::parse(text, normalize).is_ok()))
        },
        "major" => |_, args| of_version(args, |version| version.major),
        "minor" => |_, args| of_version(args, |version| version.minor),
        "patch" => |_, args| of_version(args, |version| version.patch),
        "format.named" => |_, args| match args {
            [Value::String(name)] => Ok(match Format::named(name.as_str()) {
                Some(format) => Value::some(Value::Opaque(Opaque::Format(format))),
                None => Value::Optional(None),
            }),
            _ => Err(Fault::overload()),
        },
        "validate" => |meter, args| match args {
            [Value::Opaque(Opaque::Format(format)), Value::String(text)] => {
                meter.work(text.as_str().len() as u64)?;
                let wrong = (format.check)(text.as_str());
                if wrong.is_empty() {
                    return Ok(Value::Optional(None));
                }
                Ok(Value::some(Value::made(wrong.into_iter().map(Value::text).collect())))
            }
            _ => Err(Fault::overload()),
        },
        _ => return None,
    })
}

/// `format.dns1123Label()` and its like: no state, so a function for each.
fn constant(name: &str) -> Option<Function> {
    macro_rules! constants {
        ($($name:literal),*) => {
            match name {
                $($name => Some(|_, _| {
                    Format::named($name).map(|f| Value::Opaque(Opaque::Format(f))).ok_or_else(Fault::overload)
                }),)*
                _ => None,
            }
        };
    }
    constants!(
        "dns1123Label",
        "dns1123Subdomain",
        "dns1035Label",
        "qualifiedName",
        "dns1123LabelPrefix",
        "dns1123SubdomainPrefix",
        "dns1035LabelPrefix",
        "labelValue",
        "uri",
        "uuid",
        "byte",
        "date",
        "datetime"
    )
}

fn made<'v>(quantity: Quantity) -> Value<'v> {
    Value::Opaque(Opaque::Quantity(quantity))
}

fn of<'v>(args: &[Value<'v>], f: fn(&Quantity) -> Result<Value<'v>>) -> Result<Value<'v>> {
    match args {
        [Value::Opaque(Opaque::Quantity(quantity))] => f(quantity),
        _ => Err(Fault::overload()),
    }
}

fn calculate<'v>(args: &[Value<'v>], f: fn(Quantity, Quantity) -> Quantity) -> Result<Value<'v>> {
    match args {
        [Value::Opaque(Opaque::Quantity(a)), Value::Opaque(Opaque::Quantity(b))] => Ok(made(f(*a, *b))),
        [Value::Opaque(Opaque::Quantity(a)), Value::Int(b)] => Ok(made(f(*a, Quantity::of(*b)))),
        _ => Err(Fault::overload()),
    }
}

fn compare(args: &[Value<'_>]) -> Result<Ordering> {
    match args {
        [Value::Opaque(Opaque::Quantity(a)), Value::Opaque(Opaque::Quantity(b))] => Ok(a.cmp(b)),
        [Value::Opaque(Opaque::Semver(a)), Value::Opaque(Opaque::Semver(b))] => Ok(a.compare(b)),
        _ => Err(Fault::overload()),
    }
}

fn version_args<'r>(args: &'r [Value<'_>]) -> Result<(&'r str, bool)> {
    match args {
        [Value::String(text)] => Ok((text.as_str(), false)),
        [Value::String(text), Value::Bool(normalize)] => Ok((text.as_str(), *normalize)),
        _ => Err(Fault::overload()),
    }
}

fn of_version<'v>(args: &[Value<'v>], f: fn(&Semver) -> u64) -> Result<Value<'v>> {
    match args {
        [Value::Opaque(Opaque::Semver(version))] => Ok(Value::Int(i64::try_from(f(version)).unwrap_or(i64::MAX))),
        _ => Err(Fault::overload()),
    }
}
