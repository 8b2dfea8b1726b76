//! Functions over strings. Positions and lengths are in bytes, as in Go; what would cut a character is refused.

use super::casts;
use crate::template::{
    Scope,
    error::{Error, Result},
    function::{Args, Function},
    value::{Entries, TEXT_MAP, Value},
};

pub const FUNCTIONS: &[Function] = &[
    Function { name: "abbrev", takes: "is", run: |_, args| abbreviated(0, args.int(0), args.text(1)) },
    Function { name: "abbrevboth", takes: "iis", run: |_, args| abbreviated(args.int(0), args.int(1), args.text(2)) },
    Function { name: "camelcase", takes: "s", run: |_, args| Ok(words::pascal_case(args.text(0)).into()) },
    Function { name: "cat", takes: "a*", run: cat },
    Function { name: "contains", takes: "ss", run: |_, args| Ok(args.text(1).contains(args.text(0)).into()) },
    Function { name: "hasPrefix", takes: "ss", run: |_, args| Ok(args.text(1).starts_with(args.text(0)).into()) },
    Function { name: "hasSuffix", takes: "ss", run: |_, args| Ok(args.text(1).ends_with(args.text(0)).into()) },
    Function { name: "hello", takes: "", run: |_, _| Ok(Value::text("Hello!")) },
    Function { name: "indent", takes: "is", run: |scope, args| Ok(indented(scope, &args)?.into()) },
    Function { name: "initials", takes: "s", run: |_, args| Ok(initials(args.text(0)).into()) },
    Function { name: "join", takes: "sa", run: join },
    Function { name: "kebabcase", takes: "s", run: |_, args| Ok(words::joined(args.text(0), '-').into()) },
    Function { name: "lower", takes: "s", run: |_, args| Ok(args.text(0).to_lowercase().into()) },
    Function { name: "nindent", takes: "is", run: |scope, args| Ok(format!("\n{}", indented(scope, &args)?).into()) },
    Function {
        name: "nospace",
        takes: "s",
        run: |_, args| Ok(args.text(0).split_whitespace().collect::<String>().into()),
    },
    Function {
        name: "plural",
        takes: "ssi",
        run: |_, args| Ok(Value::Str(args.shared_text(usize::from(args.int(2) != 1)))),
    },
    Function { name: "quote", takes: "a*", run: |_, args| quoted(&args, |text| crate::template::text::quoted(&text)) },
    Function { name: "repeat", takes: "is", run: repeat },
    Function { name: "replace", takes: "sss", run: replace },
    Function { name: "snakecase", takes: "s", run: |_, args| Ok(words::joined(args.text(0), '_').into()) },
    Function { name: "split", takes: "ss", run: |_, args| Ok(numbered(go_split(args.text(1), args.text(0), -1))) },
    Function {
        name: "splitList",
        takes: "ss",
        run: |_, args| Ok(Value::texts(go_split(args.text(1), args.text(0), -1))),
    },
    Function {
        name: "splitn",
        takes: "sis",
        run: |_, args| Ok(numbered(go_split(args.text(2), args.text(0), args.int(1)))),
    },
    Function { name: "squote", takes: "a*", run: |_, args| quoted(&args, |text| format!("'{text}'")) },
    Function { name: "substr", takes: "iis", run: substr },
    Function { name: "swapcase", takes: "s", run: |_, args| Ok(words::swapped(args.text(0)).into()) },
    Function { name: "title", takes: "s", run: |_, args| Ok(words::title(args.text(0)).into()) },
    Function { name: "toString", takes: "a", run: |_, args| Ok(casts::text(args.at(0))?.into()) },
    Function { name: "toStrings", takes: "a", run: |_, args| Ok(Value::texts(casts::texts(args.at(0))?)) },
    Function { name: "trim", takes: "s", run: |_, args| Ok(Value::text(args.text(0).trim())) },
    Function { name: "trimAll", takes: "ss", run: trim_all },
    Function { name: "trimall", takes: "ss", run: trim_all },
    Function {
        name: "trimPrefix",
        takes: "ss",
        run: |_, args| Ok(Value::text(args.text(1).strip_prefix(args.text(0)).unwrap_or(args.text(1)))),
    },
    Function {
        name: "trimSuffix",
        takes: "ss",
        run: |_, args| Ok(Value::text(args.text(1).strip_suffix(args.text(0)).unwrap_or(args.text(1)))),
    },
    Function { name: "trunc", takes: "is", run: trunc },
    Function { name: "untitle", takes: "s", run: |_, args| Ok(words::untitle(args.text(0)).into()) },
    Function { name: "upper", takes: "s", run: |_, args| Ok(args.text(0).to_uppercase().into()) },
    Function { name: "wrap", takes: "is", run: |scope, args| wrapped(scope, (args.int(0), false), "\n", args.text(1)) },
    Function {
        name: "wrapWith",
        takes: "iss",
        run: |scope, args| wrapped(scope, (args.int(0), true), args.text(1), args.text(2)),
    },
];

/// A part of a text, from one byte to another.
fn part(text: &str, from: i128, to: i128) -> Result<Value> {
    let bounds = (usize::try_from(from), usize::try_from(to));
    let (Ok(from), Ok(to)) = bounds else {
        return Error::call(format!(
            "runtime error: slice bounds out of range [{}:]",
            if from < 0 { from } else { to }
        ));
    };
    if to > text.len() {
        return Error::call(format!("runtime error: slice bounds out of range [:{to}] with length {}", text.len()));
    }
    if from > to {
        return Error::call(format!("runtime error: slice bounds out of range [{from}:{to}]"));
    }
    match text.get(from..to) {
        Some(part) => Ok(Value::text(part)),
        None => Error::call(format!("bytes {from} to {to} of {text:?} are not whole characters")),
    }
}

fn length(text: &str) -> i128 {
    i128::try_from(text.len()).unwrap_or(i128::MAX)
}

fn trunc(_: &mut Scope<'_>, args: Args) -> Result<Value> {
    let (count, text) = (i128::from(args.int(0)), args.text(1));
    let length = length(text);
    if count < 0 && length + count > 0 {
        return part(text, length + count, length);
    }
    if count >= 0 && length > count {
        return part(text, 0, count);
    }
    Ok(Value::text(text))
}

fn substr(_: &mut Scope<'_>, args: Args) -> Result<Value> {
    let (start, end, text) = (i128::from(args.int(0)), i128::from(args.int(1)), args.text(2));
    let length = length(text);
    if start < 0 {
        return part(text, 0, end);
    }
    part(text, start, if end < 0 || end > length { length } else { end })
}

fn abbreviated(offset: i64, width: i64, text: &str) -> Result<Value> {
    let (offset, width, length) = (i128::from(offset), i128::from(width), length(text));
    if width < 4 || (offset > 0 && width < 7) || length <= width {
        return Ok(Value::text(text));
    }
    let offset = offset.min(length);
    let offset = if length - offset < width - 3 { length - (width - 3) } else { offset };
    let told = |before: &str, part: Result<Value>, after: &str| -> Result<Value> {
        Ok(format!("{before}{}{after}", part?.as_str().unwrap_or_default()).into())
    };
    if offset <= 4 {
        return told("", part(text, 0, width - 3), "...");
    }
    if width < 7 {
        return Ok(Value::text(""));
    }
    if offset + width - 3 < length {
        let rest = part(text, offset, length)?;
        let width = i64::try_from(width - 3).unwrap_or(i64::MAX);
        return told("...", abbreviated(0, width, rest.as_str().unwrap_or_default()), "");
    }
    told("...", part(text, length - (width - 3), length), "")
}

fn indented(scope: &mut Scope<'_>, args: &Args) -> Result<String> {
    let Ok(spaces) = usize::try_from(args.int(0)) else { return Error::call("strings: negative Repeat count") };
    let text = args.text(1);
    scope.run.charge(spaces.saturating_mul(text.matches('\n').count() + 1))?;
    let pad = " ".repeat(spaces);
    let mut out = String::with_capacity(text.len() + spaces * 8);
    for (index, line) in text.split('\n').enumerate() {
        if index > 0 {
            out.push('\n');
        }
        out.push_str(&pad);
        out.push_str(line);
    }
    Ok(out)
}

fn repeat(scope: &mut Scope<'_>, args: Args) -> Result<Value> {
    let Ok(count) = usize::try_from(args.int(0)) else { return Error::call("strings: negative Repeat count") };
    scope.run.charge(count.saturating_mul(args.text(1).len()))?;
    Ok(args.text(1).repeat(count).into())
}

fn replace(scope: &mut Scope<'_>, args: Args) -> Result<Value> {
    let (old, new, text) = (args.text(0), args.text(1), args.text(2));
    scope.run.charge(text.matches(old).count().saturating_mul(new.len()))?;
    Ok(text.replace(old, new).into())
}

fn quoted(args: &Args, quote: impl Fn(String) -> String) -> Result<Value> {
    let mut out = String::new();
    for value in args.rest(0).iter().filter(|value| !value.is_nil()) {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(&quote(casts::text(value)?));
    }
    Ok(out.into())
}

fn cat(_: &mut Scope<'_>, args: Args) -> Result<Value> {
    let mut parts = Vec::new();
    for value in args.rest(0).iter().filter(|value| !value.is_nil()) {
        parts.push(crate::template::format::shown(value)?);
    }
    Ok(parts.join(" ").into())
}

fn join(scope: &mut Scope<'_>, args: Args) -> Result<Value> {
    let texts = casts::texts(args.at(1))?;
    scope.run.charge(texts.len().saturating_mul(args.text(0).len()))?;
    Ok(texts.join(args.text(0)).into())
}

/// As `strings.SplitN`: no more parts than `most`, unless that is negative; an empty separator splits characters.
pub fn go_split(text: &str, separator: &str, most: i64) -> Vec<String> {
    if most == 0 {
        return Vec::new();
    }
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    if !separator.is_empty() {
        return text.splitn(most, separator).map(str::to_owned).collect();
    }
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if parts.len() + 1 == most {
            parts.push(rest.to_owned());
            break;
        }
        parts.push(c.to_string());
        rest = &rest[c.len_utf8()..];
    }
    parts
}

fn numbered(parts: Vec<String>) -> Value {
    let entries = parts.into_iter().enumerate().map(|(index, part)| (format!("_{index}").into(), part.into()));
    Value::typed_map(&TEXT_MAP, entries.collect::<Entries>())
}

fn trim_all(_: &mut Scope<'_>, args: Args) -> Result<Value> {
    Ok(Value::text(args.text(1).trim_matches(|c| args.text(0).contains(c))))
}

fn initials(text: &str) -> String {
    text.split_whitespace().filter_map(|word| word.chars().next()).collect()
}

/// Lines of a width at most; with it goes whether words that are longer are cut.
fn wrapped(scope: &mut Scope<'_>, (width, cuts): (i64, bool), separator: &str, text: &str) -> Result<Value> {
    let width = usize::try_from(width).unwrap_or(1).max(1);
    let separator = if separator.is_empty() { "\n" } else { separator };
    scope.run.charge((text.len() / width + 1).saturating_mul(separator.len()))?;
    let mut out = String::new();
    let mut rest = text;
    while rest.len() > width {
        if let Some(left) = rest.strip_prefix(' ') {
            rest = left;
            continue;
        }
        // A word may end right behind the width.
        let end = width + 1;
        let (line, left) = match rest.as_bytes()[..end].iter().rposition(|b| *b == b' ') {
            Some(space) => (rest.get(..space), rest.get(space + 1..)),
            None if cuts => (rest.get(..width), rest.get(width..)),
            None => match rest.as_bytes()[width..].iter().position(|b| *b == b' ') {
                Some(space) => (rest.get(..width + space), rest.get(width + space + 1..)),
                None => break,
            },
        };
        let (Some(line), Some(left)) = (line, left) else {
            return Error::call(format!("{width} bytes of {rest:?} are not whole characters"));
        };
        out.push_str(line);
        out.push_str(separator);
        rest = left;
    }
    out.push_str(rest);
    Ok(out.into())
}

/// Words and their cases, as `strings`, `goutils` and `xstrings` see them.
pub mod words {
    /// As `strings.Title`: the first letter of what follows a separator.
    pub fn title(text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut before = ' ';
        for c in text.chars() {
            let separates = if before.is_ascii() {
                !(before.is_ascii_alphanumeric() || before == '_')
            } else {
                !before.is_alphanumeric() && before.is_whitespace()
            };
            if separates {
                out.extend(c.to_uppercase());
            } else {
                out.push(c);
            }
            before = c;
        }
        out
    }

    pub fn untitle(text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut next = true;
        for c in text.chars() {
            if c.is_whitespace() {
                next = true;
                out.push(c);
            } else if next {
                next = false;
                out.extend(c.to_lowercase());
            } else {
                out.push(c);
            }
        }
        out
    }

    pub fn swapped(text: &str) -> String {
        let swap = |c: char| -> String {
            if c.is_uppercase() { c.to_lowercase().collect() } else { c.to_uppercase().collect() }
        };
        text.chars().map(swap).collect()
    }

    fn connects(c: char) -> bool {
        c == '-' || c == '_' || c.is_whitespace()
    }

    fn upper(c: char) -> char {
        c.to_uppercase().next().unwrap_or(c)
    }

    fn lower(c: char) -> char {
        c.to_lowercase().next().unwrap_or(c)
    }

    /// As `xstrings.ToPascalCase`.
    pub fn pascal_case(text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let start = text.trim_start_matches(connects);
        let mut characters = start.chars();
        let Some(first) = characters.next() else { return text.to_owned() };
        out.push_str(&text[..text.len() - start.len()]);
        let mut upper_run = first.is_uppercase();
        let mut held = upper(first);
        for c in characters {
            let mut next = c;
            match (connects(held), connects(c)) {
                (true, true) => out.push(held),
                (true, false) => {
                    upper_run = c.is_uppercase();
                    next = upper(c);
                }
                _ => {
                    if upper_run {
                        if c.is_uppercase() {
                            next = lower(c);
                        } else {
                            upper_run = false;
                        }
                    }
                    out.push(held);
                }
            }
            held = next;
        }
        out.push(held);
        out
    }

    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Kind {
        Nothing,
        Number,
        Upper,
        Letters,
        Connector,
        Punctuation,
        Other,
    }

    fn is_letter(c: char) -> bool {
        c.is_alphabetic() && (c.is_uppercase() || c.is_lowercase())
    }

    fn is_punctuation(c: char) -> bool {
        c.is_ascii_punctuation() && !"$+<=>^`|~".contains(c)
    }

    /// The kind of the word that a text starts with, and its length.
    fn word(text: &str) -> (Kind, usize) {
        let Some(first) = text.chars().next() else { return (Kind::Nothing, 0) };
        let run = |accepts: &dyn Fn(char) -> bool| text.len() - text.trim_start_matches(accepts).len();
        let letters = |c: char| is_letter(c) && !c.is_uppercase();
        if connects(first) {
            return (Kind::Connector, run(&connects));
        }
        if is_punctuation(first) {
            return (Kind::Punctuation, run(&is_punctuation));
        }
        if first.is_uppercase() {
            let capitals = run(&char::is_uppercase);
            let rest = &text[capitals..];
            let lower = rest.len() - rest.trim_start_matches(letters).len();
            if text[..capitals].chars().count() == 1 {
                return (Kind::Upper, capitals + lower);
            }
            // The last capital belongs to the word that follows.
            let last = text[..capitals].chars().next_back().map_or(0, char::len_utf8);
            return (Kind::Upper, if lower > 0 { capitals - last } else { capitals });
        }
        if is_letter(first) {
            return (Kind::Letters, run(&letters));
        }
        if first.is_numeric() {
            return (Kind::Number, run(&char::is_numeric));
        }
        let other = |c: char| !(connects(c) || is_letter(c) || c.is_numeric() || is_punctuation(c));
        (Kind::Other, run(&other).max(first.len_utf8()))
    }

    /// Takes the word that a text starts with off it.
    fn next<'t>(rest: &mut &'t str) -> (Kind, &'t str) {
        let text = *rest;
        let (kind, length) = word(text);
        *rest = &text[length..];
        (kind, &text[..length])
    }

    /// As `xstrings.ToSnakeCase` and `ToKebabCase`.
    pub fn joined(text: &str, connector: char) -> String {
        let mut out = String::with_capacity(text.len() + 4);
        let mut rest = text;
        let put = |out: &mut String, kind: Kind, word: &str| {
            if !matches!(kind, Kind::Upper | Kind::Connector) {
                out.push_str(word);
                return;
            }
            for c in word.chars() {
                out.push(if connects(c) { connector } else { lower(c) });
            }
        };
        let (mut kind, mut current) = next(&mut rest);
        while !rest.is_empty() {
            if kind != Kind::Connector {
                put(&mut out, kind, current);
            }
            let (before, last) = (kind, current);
            (kind, current) = next(&mut rest);
            match before {
                Kind::Number => {
                    while matches!(kind, Kind::Letters | Kind::Number) {
                        put(&mut out, kind, current);
                        (kind, current) = next(&mut rest);
                    }
                    if !matches!(kind, Kind::Nothing | Kind::Punctuation | Kind::Connector) {
                        out.push(connector);
                    }
                }
                Kind::Connector => put(&mut out, before, last),
                Kind::Punctuation => {}
                _ if kind != Kind::Number => {
                    if !matches!(kind, Kind::Connector | Kind::Punctuation) {
                        out.push(connector);
                    }
                }
                _ if rest.is_empty() => {}
                _ => {
                    let number = current;
                    (kind, current) = next(&mut rest);
                    if kind != Kind::Letters {
                        put(&mut out, Kind::Number, number);
                        if !matches!(kind, Kind::Connector | Kind::Punctuation) {
                            out.push(connector);
                        }
                        continue;
                    }
                    out.push(connector);
                    put(&mut out, Kind::Number, number);
                    while matches!(kind, Kind::Letters | Kind::Number) {
                        put(&mut out, kind, current);
                        (kind, current) = next(&mut rest);
                    }
                    if !matches!(kind, Kind::Nothing | Kind::Connector | Kind::Punctuation) {
                        out.push(connector);
                    }
                }
            }
        }
        put(&mut out, kind, current);
        out
    }
}
