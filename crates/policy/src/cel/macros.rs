//! Macros: calls that stand for trees (cel-spec, "Macros"; cel-go `parser/macro.go`, `ext/comprehensions.go`,
//! `ext/lists.go`, `cel/library.go`). What they expand to is part of what an expression costs.

use super::{
    ast::{Expr, Fold, Kind, Name},
    lexer::Issue,
    parser::Parser,
    value::Value,
};

type Result<T> = std::result::Result<T, Issue>;

/// The accumulator of a comprehension: no source can name it.
pub(super) const ACCU: &str = "@result";
const UNUSED: &str = "#unused";
const SORT_INPUT: &str = "@__sortBy_input__";

/// `name(args)`.
pub(super) fn global(parser: &mut Parser, at: u32, name: Name, args: Vec<Expr>) -> Result<Expr> {
    if &*name == "has" && args.len() == 1 {
        let arg = args.into_iter().next().expect("counted right above");
        return match arg.kind {
            Kind::Select { operand, field, test_only: false } => {
                parser.make(at, Kind::Select { operand, field, test_only: true })
            }
            _ => Err(Issue::new(arg.at, "invalid argument to has() macro")),
        };
    }
    parser.make(at, Kind::Call { target: None, function: name, args })
}

/// `target.name(args)`.
pub(super) fn member(parser: &mut Parser, at: u32, target: Expr, name: Name, args: Vec<Expr>) -> Result<Expr> {
    let two = |args: &[Expr]| args.len() >= 3;
    let kind = match (&*name, args.len()) {
        ("all", 2 | 3) => Folding::All,
        ("exists", 2 | 3) => Folding::Exists,
        ("exists_one", 2 | 3) | ("existsOne", 3) => Folding::ExistsOne,
        ("map", 2 | 3) => Folding::Map,
        ("filter", 2) => Folding::Filter,
        ("transformList", 3 | 4) => Folding::List,
        ("transformMap", 3 | 4) => Folding::Entries,
        ("transformMapEntry", 3 | 4) => Folding::Merge,
        ("optMap", 2) => return optional(parser, at, target, args, true),
        ("optFlatMap", 2) => return optional(parser, at, target, args, false),
        ("sortBy", 2) => return sort_by(parser, at, target, args),
        _ => {
            return parser.make(at, Kind::Call { target: Some(Box::new(target)), function: name, args });
        }
    };
    let has_two = two(&args) && !matches!(kind, Folding::Map);
    fold(parser, at, target, args, kind, has_two)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Folding {
    All,
    Exists,
    ExistsOne,
    Map,
    Filter,
    List,
    Entries,
    Merge,
}

fn variable(expr: &Expr) -> Result<Name> {
    match &expr.kind {
        Kind::Ident(name) if &**name != ACCU => Ok(name.clone()),
        _ => Err(Issue::new(expr.at, "argument must be a simple name")),
    }
}

fn constant(parser: &mut Parser, at: u32, value: Value<'static>) -> Result<Expr> {
    parser.make(at, Kind::Const(value))
}

fn fold(parser: &mut Parser, at: u32, range: Expr, args: Vec<Expr>, kind: Folding, two: bool) -> Result<Expr> {
    let mut args = args.into_iter();
    let mut next = || args.next().ok_or_else(|| Issue::new(at, "missing argument"));
    let var = variable(&next()?)?;
    let var2 = if two {
        let second = next()?;
        let name = variable(&second)?;
        if name == var {
            return Err(Issue::new(second.at, format!("duplicate variable name: {name}")));
        }
        Some(name)
    } else {
        None
    };
    let first = next()?;
    let second = args.next();
    let accu_name: Name = ACCU.into();
    let accu = |parser: &mut Parser| parser.ident(at, &accu_name);
    let yes = |parser: &mut Parser| constant(parser, at, Value::Bool(true));
    let (init, condition, step, result);
    match kind {
        Folding::All | Folding::Exists => {
            let all = kind == Folding::All;
            init = constant(parser, at, Value::Bool(all))?;
            let mut seen = accu(parser)?;
            if !all {
                seen = parser.call(at, "!_", vec![seen])?;
            }
            condition = parser.call(at, "@not_strictly_false", vec![seen])?;
            let so_far = accu(parser)?;
            step = parser.call(at, if all { "_&&_" } else { "_||_" }, vec![so_far, first])?;
            result = accu(parser)?;
        }
        Folding::ExistsOne => {
            init = constant(parser, at, Value::Int(0))?;
            condition = yes(parser)?;
            let so_far = accu(parser)?;
            let one = constant(parser, at, Value::Int(1))?;
            let more = parser.call(at, "_+_", vec![so_far, one])?;
            let same = accu(parser)?;
            step = parser.call(at, "_?_:_", vec![first, more, same])?;
            let found = accu(parser)?;
            let one = constant(parser, at, Value::Int(1))?;
            result = parser.call(at, "_==_", vec![found, one])?;
        }
        Folding::Map | Folding::Filter | Folding::List | Folding::Entries | Folding::Merge => {
            let maps = matches!(kind, Folding::Entries | Folding::Merge);
            init = parser.make(at, if maps { Kind::Map(Vec::new()) } else { Kind::List(Vec::new()) })?;
            condition = yes(parser)?;
            let (filter, value) = match (kind, second) {
                (Folding::Filter, _) => (Some(first), parser.ident(at, &var)?),
                (_, Some(value)) => (Some(first), value),
                (_, None) => (None, first),
            };
            let so_far = accu(parser)?;
            let more = match kind {
                Folding::Entries => {
                    let key = parser.ident(at, &var)?;
                    parser.call(at, "cel.@mapInsert", vec![so_far, key, value])?
                }
                Folding::Merge => parser.call(at, "cel.@mapInsert", vec![so_far, value])?,
                _ => {
                    let item = parser.make(at, Kind::List(vec![(value, false)]))?;
                    parser.call(at, "_+_", vec![so_far, item])?
                }
            };
            step = match filter {
                None => more,
                Some(filter) => {
                    let same = accu(parser)?;
                    parser.call(at, "_?_:_", vec![filter, more, same])?
                }
            };
            result = accu(parser)?;
        }
    }
    parser.make(at, Kind::Fold(Box::new(Fold { range, var, var2, accu: accu_name, init, condition, step, result })))
}

/// A name for a value within an expression.
fn bind(parser: &mut Parser, at: u32, name: Name, value: Expr, result: Expr) -> Result<Expr> {
    let range = parser.make(at, Kind::List(Vec::new()))?;
    let condition = constant(parser, at, Value::Bool(false))?;
    let step = parser.ident(at, &name)?;
    let fold = Fold { range, var: UNUSED.into(), var2: None, accu: name, init: value, condition, step, result };
    parser.make(at, Kind::Fold(Box::new(fold)))
}

/// `optMap` and `optFlatMap`.
fn optional(parser: &mut Parser, at: u32, target: Expr, args: Vec<Expr>, wrap: bool) -> Result<Expr> {
    let [var, body] = <[Expr; 2]>::try_from(args).map_err(|_| Issue::new(at, "missing argument"))?;
    let name = variable(&var)?;
    let method = |parser: &mut Parser, target: Expr, name: &str| {
        let kind = Kind::Call { target: Some(Box::new(target)), function: name.into(), args: Vec::new() };
        parser.make(at, kind)
    };
    let has = method(parser, target.clone(), "hasValue")?;
    let value = method(parser, target, "value")?;
    let mut some = bind(parser, at, name, value, body)?;
    if wrap {
        some = parser.call(at, "optional.of", vec![some])?;
    }
    let none = parser.call(at, "optional.none", Vec::new())?;
    parser.call(at, "_?_:_", vec![has, some, none])
}

fn sort_by(parser: &mut Parser, at: u32, target: Expr, args: Vec<Expr>) -> Result<Expr> {
    let input: Name = SORT_INPUT.into();
    let range = parser.ident(at, &input)?;
    let keys = fold(parser, at, range, args, Folding::Map, false)?;
    let of = parser.ident(at, &input)?;
    let kind = Kind::Call { target: Some(Box::new(of)), function: "@sortByAssociatedKeys".into(), args: vec![keys] };
    let sorted = parser.make(at, kind)?;
    bind(parser, at, input, target, sorted)
}
