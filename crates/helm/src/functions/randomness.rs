//! What is made by chance, from the bytes that are given.

use std::ops::RangeInclusive;

use base64::{Engine, engine::general_purpose::STANDARD};

use super::State;
use crate::template::{
    Scope,
    error::{Error, Result},
    function::{Args, Function},
    value::Value,
};

/// Where letters and digits are picked from.
const WORDS: RangeInclusive<u8> = b' '..=b'z';

pub const FUNCTIONS: &[Function] = &[
    Function {
        name: "randAlpha",
        takes: "i",
        run: |scope, args| text(scope, &args, WORDS, |c| c.is_ascii_alphabetic()),
    },
    Function {
        name: "randAlphaNum",
        takes: "i",
        run: |scope, args| text(scope, &args, WORDS, |c| c.is_ascii_alphanumeric()),
    },
    Function { name: "randAscii", takes: "i", run: |scope, args| text(scope, &args, 32..=126, |_| true) },
    Function {
        name: "randBytes",
        takes: "i",
        run: |scope, args| {
            let Ok(count) = usize::try_from(args.int(0)) else {
                return Error::call("runtime error: makeslice: len out of range");
            };
            scope.run.charge(count.saturating_mul(2))?;
            let mut bytes = vec![0; count];
            (State::of(scope.run)?.world.random)(&mut bytes);
            Ok(STANDARD.encode(bytes).into())
        },
    },
    Function {
        name: "randInt",
        takes: "ii",
        run: |scope, args| {
            let (low, high) = (args.int(0), args.int(1));
            match u64::try_from(i128::from(high) - i128::from(low)) {
                Ok(span) if span > 0 => {
                    let offset = below(scope, span)?;
                    Ok(Value::Int(low.wrapping_add_unsigned(offset)))
                }
                _ => Error::call("invalid argument to Intn"),
            }
        },
    },
    Function { name: "randNumeric", takes: "i", run: |scope, args| text(scope, &args, WORDS, |c| c.is_ascii_digit()) },
    Function { name: "shuffle", takes: "s", run: shuffle },
    Function { name: "uuidv4", takes: "", run: uuid },
];

/// A number below `end`, each as likely as the others, from as few bytes as Go takes.
fn below(scope: &mut Scope<'_>, end: u64) -> Result<u64> {
    let state = State::of(scope.run)?;
    let bits = u64::BITS - end.saturating_sub(1).leading_zeros();
    let mut bytes = [0; 8];
    let used = usize::try_from(bits.div_ceil(8)).unwrap_or(8);
    let mask = if bits.is_multiple_of(8) { 0xff } else { (1 << (bits % 8)) - 1 };
    loop {
        (state.world.random)(&mut bytes[8 - used..]);
        if let Some(first) = bytes.get_mut(8 - used) {
            *first &= mask;
        }
        let number = u64::from_be_bytes(bytes);
        if number < end {
            return Ok(number);
        }
    }
}

/// Characters of a range that are wanted, from the last to the first, as goutils picks them.
fn text(scope: &mut Scope<'_>, args: &Args, range: RangeInclusive<u8>, wanted: fn(char) -> bool) -> Result<Value> {
    let Ok(count) = usize::try_from(args.int(0)) else { return Ok(Value::text("")) };
    scope.run.charge(count)?;
    let mut picked = Vec::with_capacity(count);
    while picked.len() < count {
        let offset = below(scope, u64::from(range.end() - range.start()) + 1)?;
        let c = char::from(range.start() + u8::try_from(offset).unwrap_or(0));
        if wanted(c) {
            picked.push(c);
        }
    }
    Ok(picked.into_iter().rev().collect::<String>().into())
}

fn shuffle(scope: &mut Scope<'_>, args: Args) -> Result<Value> {
    let mut letters: Vec<char> = args.text(0).chars().collect();
    for last in (1..letters.len()).rev() {
        let other = below(scope, last as u64 + 1)?;
        letters.swap(last, usize::try_from(other).unwrap_or(last));
    }
    Ok(letters.into_iter().collect::<String>().into())
}

fn uuid(scope: &mut Scope<'_>, _: Args) -> Result<Value> {
    let mut bytes = [0; 16];
    (State::of(scope.run)?.world.random)(&mut bytes);
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]).into())
}
