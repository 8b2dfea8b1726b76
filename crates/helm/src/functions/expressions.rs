//! Regular expressions in Go's syntax, on the `regex` crate: linear in time as Go's are.

use regex::Regex;

use super::State;
use crate::template::{
    Scope,
    error::{Error, Result},
    function::{Args, Function},
    value::{TEXT_LIST, Value},
};

/// A compiled expression may be so large, in bytes.
const COMPILED_BYTES_MAX: usize = 1024 * 1024;
/// Expressions that are kept compiled in one run.
const KEPT_MAX: usize = 256;

pub const FUNCTIONS: &[Function] = &[
    Function { name: "mustRegexFind", takes: "ss", run: find },
    Function { name: "mustRegexFindAll", takes: "ssi", run: find_all },
    Function {
        name: "mustRegexMatch",
        takes: "ss",
        run: |scope, args| Ok(compiled(scope, args.text(0))?.is_match(args.text(1)).into()),
    },
    Function { name: "mustRegexReplaceAll", takes: "sss", run: replace_all },
    Function { name: "mustRegexReplaceAllLiteral", takes: "sss", run: replace_all_literal },
    Function { name: "mustRegexSplit", takes: "ssi", run: split },
    Function {
        name: "regexFind",
        takes: "ss",
        run: |scope, args| told(args.shared_text(0).as_ref(), find(scope, args)),
    },
    Function {
        name: "regexFindAll",
        takes: "ssi",
        run: |scope, args| told(args.shared_text(0).as_ref(), find_all(scope, args)),
    },
    Function {
        name: "regexMatch",
        takes: "ss",
        run: |scope, args| Ok(compiled(scope, args.text(0)).is_ok_and(|regex| regex.is_match(args.text(1))).into()),
    },
    Function { name: "regexQuoteMeta", takes: "s", run: |_, args| Ok(quote_meta(args.text(0)).into()) },
    Function {
        name: "regexReplaceAll",
        takes: "sss",
        run: |scope, args| told(args.shared_text(0).as_ref(), replace_all(scope, args)),
    },
    Function {
        name: "regexReplaceAllLiteral",
        takes: "sss",
        run: |scope, args| told(args.shared_text(0).as_ref(), replace_all_literal(scope, args)),
    },
    Function {
        name: "regexSplit",
        takes: "ssi",
        run: |scope, args| told(args.shared_text(0).as_ref(), split(scope, args)),
    },
];

/// The functions without `must` panic with a text of their own.
fn told(expression: &str, done: Result<Value>) -> Result<Value> {
    let quoted = if expression.contains('`') { format!("{expression:?}") } else { format!("`{expression}`") };
    done.map_err(|error| {
        error.of(|what| match what.starts_with("error parsing regexp") {
            true => format!("regexp: Compile({quoted}): {what}"),
            false => what.to_owned(),
        })
    })
}

fn compiled(scope: &mut Scope<'_>, expression: &str) -> Result<Regex> {
    let state = State::of(scope.run)?;
    if let Some(regex) = state.regexes.get(expression) {
        return Ok(regex.clone());
    }
    let regex = built(expression).or_else(Error::call)?;
    if state.regexes.len() < KEPT_MAX {
        state.regexes.insert(expression.to_owned(), regex.clone());
    }
    Ok(regex)
}

/// # Errors
/// What is wrong with it, or that it is too large.
pub fn built(expression: &str) -> Result<Regex, String> {
    let built = regex::RegexBuilder::new(&translated(expression)).size_limit(COMPILED_BYTES_MAX).build();
    built.map_err(|error| format!("error parsing regexp: {error}: `{expression}`"))
}

/// The same in the syntax of the `regex` crate: Perl's classes are of ASCII in Go, and brackets in brackets are nothing special.
fn translated(expression: &str) -> String {
    let mut out = String::with_capacity(expression.len() + 16);
    let mut rest = expression;
    let mut in_class = false;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            '\\' => {
                if let Some(literal) = rest.strip_prefix('Q').filter(|_| !in_class) {
                    let end = literal.find("\\E");
                    out.push_str(&regex::escape(&literal[..end.unwrap_or(literal.len())]));
                    rest = end.map_or("", |end| &literal[end + 2..]);
                    continue;
                }
                let Some(escaped) = rest.chars().next() else {
                    out.push(c);
                    break;
                };
                rest = &rest[escaped.len_utf8()..];
                let class = match escaped {
                    'd' => "[0-9]",
                    'D' => "[^0-9]",
                    'w' => "[0-9A-Za-z_]",
                    'W' => "[^0-9A-Za-z_]",
                    's' => r"[\t\n\x0c\r ]",
                    'S' => r"[^\t\n\x0c\r ]",
                    'b' if !in_class => r"(?-u:\b)",
                    _ => {
                        out.push('\\');
                        out.push(escaped);
                        continue;
                    }
                };
                out.push_str(class);
            }
            '[' if !in_class => {
                in_class = true;
                out.push('[');
                for start in ["^", "]"] {
                    if let Some(left) = rest.strip_prefix(start) {
                        out.push_str(if start == "]" { "\\]" } else { start });
                        rest = left;
                    }
                }
            }
            '[' if rest.starts_with(':') => {
                let end = rest.find(":]").map_or(0, |end| end + 2);
                out.push('[');
                out.push_str(&rest[..end]);
                rest = &rest[end..];
            }
            '[' | '&' | '~' if in_class => {
                out.push('\\');
                out.push(c);
            }
            ']' if in_class => {
                in_class = false;
                out.push(']');
            }
            _ => out.push(c),
        }
    }
    out
}

fn find(scope: &mut Scope<'_>, args: Args) -> Result<Value> {
    let regex = compiled(scope, args.text(0))?;
    Ok(Value::text(regex.find(args.text(1)).map_or("", |found| found.as_str())))
}

fn find_all(scope: &mut Scope<'_>, args: Args) -> Result<Value> {
    let regex = compiled(scope, args.text(0))?;
    let most = usize::try_from(args.int(2)).unwrap_or(usize::MAX);
    let found: Vec<_> = regex.find_iter(args.text(1)).take(most).map(|found| Value::text(found.as_str())).collect();
    Ok(if found.is_empty() { Value::absent_list(&TEXT_LIST) } else { Value::typed_list(&TEXT_LIST, found) })
}

fn replace_all(scope: &mut Scope<'_>, args: Args) -> Result<Value> {
    let regex = compiled(scope, args.text(0))?;
    let (text, with) = (args.text(1), args.text(2));
    // Each match may be repeated by each reference to it.
    let references = with.matches('$').count().saturating_mul(text.len());
    scope.run.charge((regex.find_iter(text).count()).saturating_mul(with.len().saturating_add(references)))?;
    Ok(regex.replace_all(text, with).into_owned().into())
}

fn replace_all_literal(scope: &mut Scope<'_>, args: Args) -> Result<Value> {
    let regex = compiled(scope, args.text(0))?;
    let (text, with) = (args.text(1), args.text(2));
    scope.run.charge(regex.find_iter(text).count().saturating_mul(with.len()))?;
    Ok(regex.replace_all(text, regex::NoExpand(with)).into_owned().into())
}

fn split(scope: &mut Scope<'_>, args: Args) -> Result<Value> {
    let regex = compiled(scope, args.text(0))?;
    let (text, most) = (args.text(1), args.int(2));
    if most == 0 {
        return Ok(Value::absent_list(&TEXT_LIST));
    }
    if !args.text(0).is_empty() && text.is_empty() {
        return Ok(Value::texts([String::new()]));
    }
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let mut parts = Vec::new();
    let (mut from, mut end) = (0, 0);
    for found in regex.find_iter(text) {
        if parts.len() + 1 == most {
            break;
        }
        end = found.start();
        if found.end() != 0 {
            parts.push(text[from..end].to_owned());
        }
        from = found.end();
    }
    if end != text.len() {
        parts.push(text[from..].to_owned());
    }
    Ok(Value::texts(parts))
}

fn quote_meta(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if r"\.+*?()|[]{}^$".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}
