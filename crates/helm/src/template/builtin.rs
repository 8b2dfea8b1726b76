//! The functions that Go's templates have of themselves (`text/template/funcs.go`). `and` and `or` are in the execution.

use super::{
    Scope, comparison,
    error::{Error, Result},
    format,
    function::{Args, Function},
    text::is_printable,
    value::{List, Value},
};
use std::rc::Rc;

pub const FUNCTIONS: &[Function] = &[
    Function { name: "call", takes: "vv*", run: call },
    Function { name: "eq", takes: "vv*", run: |_, args| Ok(comparison::equal(args.at(0), args.rest(1))?.into()) },
    Function { name: "ge", takes: "vv", run: |_, args| Ok((!comparison::less(args.at(0), args.at(1))?).into()) },
    Function { name: "gt", takes: "vv", run: |_, args| Ok((!less_or_equal(&args)?).into()) },
    Function { name: "html", takes: "a*", run: |_, args| Ok(escaped_for_html(&joined(args)?).into()) },
    Function { name: "index", takes: "vv*", run: index },
    Function { name: "js", takes: "a*", run: |_, args| Ok(escaped_for_js(&joined(args)?).into()) },
    Function { name: "le", takes: "vv", run: |_, args| Ok(less_or_equal(&args)?.into()) },
    Function { name: "len", takes: "v", run: length },
    Function { name: "lt", takes: "vv", run: |_, args| Ok(comparison::less(args.at(0), args.at(1))?.into()) },
    Function { name: "ne", takes: "vv", run: |_, args| Ok((!comparison::equal(args.at(0), args.rest(1))?).into()) },
    Function { name: "not", takes: "v", run: |_, args| Ok((!args.at(0).truth()).into()) },
    Function { name: "print", takes: "a*", run: |_, args| Ok(format::print(args.rest(0))?.into()) },
    Function { name: "printf", takes: "sa*", run: |_, args| Ok(format::printf(args.text(0), args.rest(1))?.into()) },
    Function { name: "println", takes: "a*", run: |_, args| Ok(format::println(args.rest(0))?.into()) },
    Function { name: "slice", takes: "vv*", run: slice },
    Function { name: "urlquery", takes: "a*", run: |_, args| Ok(escaped_for_query(&joined(args)?).into()) },
];

fn call(_: &mut Scope<'_>, args: Args) -> Result<Value> {
    match args.at(0) {
        Value::None | Value::Nil => Error::call("call of nil"),
        value => Error::call(format!("non-function of type {}", value.type_name())),
    }
}

fn less_or_equal(args: &Args) -> Result<bool> {
    Ok(comparison::less(args.at(0), args.at(1))? || comparison::equal(args.at(0), args.rest(1))?)
}

/// What escaping functions make of their arguments before they escape.
fn joined(args: Args) -> Result<String> {
    format::print(args.rest(0))
}

fn position(index: &Value, most: usize) -> Result<usize> {
    let number = match index {
        Value::Int(number) | Value::Int64(number) => i128::from(*number),
        Value::Uint64(number) => i128::from(*number),
        Value::Uint8(number) => i128::from(*number),
        Value::None | Value::Nil => return Error::call("cannot index slice/array with nil"),
        _ => return Error::call(format!("cannot index slice/array with type {}", index.type_name())),
    };
    match usize::try_from(number) {
        Ok(position) if position <= most => Ok(position),
        _ => Error::call(format!("index out of range: {number}")),
    }
}

/// Go's index may be the length, and then `reflect` panics.
const BEYOND: &str = "reflect: slice index out of range";

fn index(_: &mut Scope<'_>, args: Args) -> Result<Value> {
    let mut value = args.at(0).clone();
    if value.is_nil() {
        return Error::call("index of untyped nil");
    }
    for index in args.rest(1) {
        value = match &value {
            Value::None | Value::Nil => return Error::call("index of nil pointer"),
            Value::List(list) => match list.items.get(position(index, list.items.len())?) {
                Some(item) => item.clone(),
                None => return Error::call(BEYOND),
            },
            Value::Bytes(bytes) => match bytes.get(position(index, bytes.len())?) {
                Some(byte) => Value::Uint8(*byte),
                None => return Error::call(BEYOND),
            },
            Value::Str(text) => match text.as_bytes().get(position(index, text.len())?) {
                Some(byte) => Value::Uint8(*byte),
                None => return Error::call("reflect: string index out of range"),
            },
            Value::Map(map) => match index {
                Value::Str(key) => map.get(key).unwrap_or_else(map.ty.zero),
                Value::None | Value::Nil => return Error::call("value is nil; should be of type string"),
                _ => return Error::call(format!("value has type {}; should be string", index.type_name())),
            },
            _ => return Error::call(format!("can't index item of type {}", value.type_name())),
        };
    }
    Ok(value)
}

fn slice(_: &mut Scope<'_>, args: Args) -> Result<Value> {
    let indexes = args.rest(1);
    let length = match args.at(0) {
        Value::None | Value::Nil => return Error::call("slice of untyped nil"),
        _ if indexes.len() > 3 => return Error::call(format!("too many slice indexes: {}", indexes.len())),
        Value::Str(_) if indexes.len() == 3 => return Error::call("cannot 3-index slice a string"),
        Value::Str(text) => text.len(),
        Value::List(list) => list.items.len(),
        Value::Bytes(bytes) => bytes.len(),
        value => return Error::call(format!("can't slice item of type {}", value.type_name())),
    };
    let mut bounds = [0, length, length];
    for (bound, index) in bounds.iter_mut().zip(indexes) {
        *bound = position(index, length)?;
    }
    let [from, to, most] = bounds;
    if from > to {
        return Error::call(format!("invalid slice index: {from} > {to}"));
    }
    if to > most {
        return Error::call(format!("invalid slice index: {to} > {most}"));
    }
    Ok(match args.at(0) {
        Value::Str(text) => match text.get(from..to) {
            Some(text) => Value::text(text),
            None => return Error::call(format!("bytes {from} to {to} of {text:?} are not whole characters")),
        },
        Value::List(list) => {
            Value::List(Rc::new(List { ty: list.ty, items: list.items[from..to].to_vec(), absent: false }))
        }
        Value::Bytes(bytes) => Value::Bytes(bytes[from..to].into()),
        _ => Value::Nil,
    })
}

fn length(_: &mut Scope<'_>, args: Args) -> Result<Value> {
    let length = match args.at(0) {
        Value::Str(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
        Value::List(list) => list.items.len(),
        Value::Map(map) => map.entries.borrow().len(),
        Value::None | Value::Nil => return Error::call("len of nil pointer"),
        value => return Error::call(format!("len of type {}", value.type_name())),
    };
    Ok(Value::Int(i64::try_from(length).unwrap_or(i64::MAX)))
}

fn escaped_for_html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\0' => out.push('\u{fffd}'),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            _ => out.push(c),
        }
    }
    out
}

fn escaped_for_js(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\'' => out.push_str("\\'"),
            '"' => out.push_str("\\\""),
            '<' | '>' | '&' | '=' | '\0'..='\x1f' => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            _ if c.is_ascii() || is_printable(c) => out.push(c),
            _ => out.push_str(&format!("\\u{:04X}", u32::from(c))),
        }
    }
    out
}

/// As `url.QueryEscape`.
pub fn escaped_for_query(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            b' ' => out.push('+'),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
