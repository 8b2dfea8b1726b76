//! Functions over numbers. Whole ones wrap as Go's do; the float ones compute in decimals, as sprig does.

use super::{casts, lists::steps};
use crate::template::{
    Scope,
    error::{Error, Result},
    format::shown,
    function::{Args, Function},
    text::float_text,
    value::Value,
};

pub const FUNCTIONS: &[Function] = &[
    Function { name: "add", takes: "a*", run: |_, args| Ok(folded(0, args.rest(0), i64::wrapping_add)) },
    Function { name: "add1", takes: "a", run: |_, args| Ok(Value::Int64(casts::int(args.at(0)).wrapping_add(1))) },
    Function { name: "add1f", takes: "a", run: |_, args| Ok(decimals(args.at(0), &[Value::Int(1)], Operation::Add)) },
    Function {
        name: "addf",
        takes: "a*",
        run: |_, args| Ok(decimals(&Value::Float(0.0), args.rest(0), Operation::Add)),
    },
    Function { name: "atoi", takes: "s", run: |_, args| Ok(Value::Int(args.text(0).parse().unwrap_or(0))) },
    Function {
        name: "biggest",
        takes: "aa*",
        run: |_, args| Ok(folded(casts::int(args.at(0)), args.rest(1), i64::max)),
    },
    Function { name: "ceil", takes: "a", run: |_, args| Ok(Value::Float(casts::float64(args.at(0)).ceil())) },
    Function { name: "div", takes: "aa", run: |_, args| divided(&args, i64::wrapping_div) },
    Function { name: "divf", takes: "aa*", run: |_, args| divided_decimals(&args) },
    Function { name: "float64", takes: "a", run: |_, args| Ok(Value::Float(casts::float64(args.at(0)))) },
    Function { name: "floor", takes: "a", run: |_, args| Ok(Value::Float(casts::float64(args.at(0)).floor())) },
    Function { name: "int", takes: "a", run: |_, args| Ok(Value::Int(casts::int(args.at(0)))) },
    Function { name: "int64", takes: "a", run: |_, args| Ok(Value::Int64(casts::int(args.at(0)))) },
    Function { name: "max", takes: "aa*", run: |_, args| Ok(folded(casts::int(args.at(0)), args.rest(1), i64::max)) },
    Function { name: "maxf", takes: "aa*", run: |_, args| Ok(extreme(&args, f64::max)) },
    Function { name: "min", takes: "aa*", run: |_, args| Ok(folded(casts::int(args.at(0)), args.rest(1), i64::min)) },
    Function { name: "minf", takes: "aa*", run: |_, args| Ok(extreme(&args, f64::min)) },
    Function { name: "mod", takes: "aa", run: |_, args| divided(&args, i64::wrapping_rem) },
    Function {
        name: "mul",
        takes: "aa*",
        run: |_, args| Ok(folded(casts::int(args.at(0)), args.rest(1), i64::wrapping_mul)),
    },
    Function { name: "mulf", takes: "aa*", run: |_, args| Ok(decimals(args.at(0), args.rest(1), Operation::Multiply)) },
    Function { name: "round", takes: "aif*", run: |_, args| Ok(rounded(&args)) },
    Function { name: "seq", takes: "i*", run: seq },
    Function {
        name: "sub",
        takes: "aa",
        run: |_, args| Ok(Value::Int64(casts::int(args.at(0)).wrapping_sub(casts::int(args.at(1))))),
    },
    Function { name: "subf", takes: "aa*", run: |_, args| Ok(decimals(args.at(0), args.rest(1), Operation::Subtract)) },
    Function {
        name: "toDecimal",
        takes: "a",
        run: |_, args| Ok(Value::Int64(i64::from_str_radix(&shown(args.at(0))?, 8).unwrap_or(0))),
    },
];

fn folded(start: i64, values: &[Value], with: fn(i64, i64) -> i64) -> Value {
    Value::Int64(values.iter().fold(start, |number, value| with(number, casts::int(value))))
}

fn divided(args: &Args, with: fn(i64, i64) -> i64) -> Result<Value> {
    match casts::int(args.at(1)) {
        0 => Error::call("runtime error: integer divide by zero"),
        by => Ok(Value::Int64(with(casts::int(args.at(0)), by))),
    }
}

fn extreme(args: &Args, with: fn(f64, f64) -> f64) -> Value {
    let pick = |left: f64, right: f64| if left.is_nan() || right.is_nan() { f64::NAN } else { with(left, right) };
    Value::Float(
        args.rest(1).iter().fold(casts::float64(args.at(0)), |number, value| pick(number, casts::float64(value))),
    )
}

fn rounded(args: &Args) -> Value {
    let on = if let Some(Value::Float(on)) = args.rest(2).first() { *on } else { 0.5 };
    let power = 10_f64.powf(casts::float64(args.at(1)));
    let digits = power * casts::float64(args.at(0));
    let round = if digits.fract() >= on { digits.ceil() } else { digits.floor() };
    Value::Float(round / power)
}

fn seq(scope: &mut Scope<'_>, args: Args) -> Result<Value> {
    let numbers: Vec<i64> = (0..args.len()).map(|index| args.int(index)).collect();
    let down = |start: i64, end: i64| if end < start { -1 } else { 1 };
    let numbers = match numbers[..] {
        [end] => steps(scope, 1, end.saturating_add(down(1, end)), down(1, end))?,
        [start, end] => steps(scope, start, end.saturating_add(down(start, end)), down(start, end))?,
        [start, step, end] if end >= start || step <= 0 => {
            steps(scope, start, end.saturating_add(down(start, end)), step)?
        }
        _ => Vec::new(),
    };
    Ok(numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ").into())
}

#[derive(Clone, Copy)]
enum Operation {
    Add,
    Subtract,
    Multiply,
    Divide,
}

/// `number` * 10 ^ -`scale`.
#[derive(Clone, Copy)]
struct Decimal {
    number: i128,
    scale: u32,
}

/// Decimals behind the point of a quotient.
const QUOTIENT_SCALE: u32 = 16;

impl Decimal {
    fn of(float: f64) -> Option<Self> {
        let text = float_text(float, 'f', None);
        let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
        let number = format!("{whole}{fraction}").parse().ok()?;
        Some(Self { number, scale: u32::try_from(fraction.len()).ok()? })
    }

    fn scaled(self, scale: u32) -> Option<i128> {
        self.number.checked_mul(10_i128.checked_pow(scale.checked_sub(self.scale)?)?)
    }

    fn with(self, other: Self, operation: Operation) -> Option<Self> {
        let scale = self.scale.max(other.scale);
        let number = match operation {
            Operation::Add => self.scaled(scale)?.checked_add(other.scaled(scale)?)?,
            Operation::Subtract => self.scaled(scale)?.checked_sub(other.scaled(scale)?)?,
            Operation::Multiply => {
                let number = self.number.checked_mul(other.number)?;
                return Some(Self { number, scale: self.scale.checked_add(other.scale)? });
            }
            Operation::Divide => {
                let number = self
                    .number
                    .checked_mul(10_i128.checked_pow((QUOTIENT_SCALE + other.scale).checked_sub(self.scale)?)?)?;
                let (quotient, rest) = (number.checked_div(other.number)?, number.checked_rem(other.number)?);
                let half = rest.unsigned_abs() * 2 >= other.number.unsigned_abs();
                let away = if (number < 0) == (other.number < 0) { 1 } else { -1 };
                return Some(Self { number: quotient + if half { away } else { 0 }, scale: QUOTIENT_SCALE });
            }
        };
        Some(Self { number, scale })
    }

    fn float(self) -> f64 {
        format!("{}e-{}", self.number, self.scale).parse().unwrap_or(f64::NAN)
    }
}

/// In decimals as long as they fit; then in floats.
fn decimals(first: &Value, others: &[Value], operation: Operation) -> Value {
    let start = casts::float64(first);
    let exact = others
        .iter()
        .try_fold(Decimal::of(start), |sum, value| Some(sum?.with(Decimal::of(casts::float64(value))?, operation)));
    if let Some(Some(exact)) = exact {
        return Value::Float(exact.float());
    }
    Value::Float(others.iter().map(casts::float64).fold(start, |sum, number| match operation {
        Operation::Add => sum + number,
        Operation::Subtract => sum - number,
        Operation::Multiply => sum * number,
        Operation::Divide => sum / number,
    }))
}

fn divided_decimals(args: &Args) -> Result<Value> {
    if args.rest(1).iter().any(|value| casts::float64(value) == 0.0) {
        return Error::call("decimal division by 0");
    }
    Ok(decimals(args.at(0), args.rest(1), Operation::Divide))
}
