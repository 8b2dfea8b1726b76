//! `urlParse` and `urlJoin`, as Go's `net/url` reads and writes.

use crate::template::{
    error::{Error, Result},
    function::{Args, Function},
    value::{Entries, Value},
};

pub const FUNCTIONS: &[Function] = &[
    Function { name: "urlJoin", takes: "m", run: |_, args| Ok(joined(&args)?.into()) },
    Function { name: "urlParse", takes: "s", run: |_, args| parsed(args.text(0)) },
];

fn parsed(text: &str) -> Result<Value> {
    let fail = |what: &str| {
        let quoted = crate::template::text::quoted(text);
        Error::call(format!("unable to parse url: parse {quoted}: {what}"))
    };
    if text.chars().any(|c| c.is_ascii_control()) {
        return fail("net/url: invalid control character in URL");
    }
    let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
    let is_scheme = |scheme: &&str| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    };
    let (scheme, rest) = match rest.split_once(':') {
        Some(("", _)) => return fail("missing protocol scheme"),
        Some((scheme, rest)) if is_scheme(&scheme) => (scheme.to_ascii_lowercase(), rest),
        _ => (String::new(), rest),
    };
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (mut authority, mut path, mut opaque) = ("", rest, "");
    if !rest.starts_with('/') && !scheme.is_empty() {
        (path, opaque) = ("", rest);
    } else if let Some(rest) = rest.strip_prefix("//") {
        let slash = rest.find('/').unwrap_or(rest.len());
        (authority, path) = rest.split_at(slash);
    } else if scheme.is_empty() && rest.split('/').next().is_some_and(|first| first.contains(':')) {
        return fail("first path segment in URL cannot contain colon");
    }
    let (userinfo, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (hostname, port) = match host.strip_prefix('[').and_then(|host| host.split_once(']')) {
        Some((address, rest)) => (address, rest.strip_prefix(':').unwrap_or(rest)),
        None => host.split_once(':').unwrap_or((host, "")),
    };
    if !port.chars().all(|c| c.is_ascii_digit()) {
        let port = crate::template::text::quoted(&format!(":{port}"));
        return fail(&format!("invalid port {port} after host"));
    }
    let Some(path) = unescaped(path) else { return fail("invalid URL escape") };
    let Some(fragment) = unescaped(fragment) else { return fail("invalid URL escape") };
    let parts = [
        ("fragment", fragment.as_str()),
        ("host", host),
        ("hostname", hostname),
        ("opaque", opaque),
        ("path", &path),
        ("query", query),
        ("scheme", &scheme),
        ("userinfo", userinfo),
    ];
    Ok(Value::map(parts.into_iter().map(|(key, part)| (key.into(), Value::text(part))).collect::<Entries>()))
}

fn unescaped(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, left @ ..] = rest {
        rest = left;
        if *byte != b'%' {
            bytes.push(*byte);
            continue;
        }
        let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &rest[2..];
    }
    String::from_utf8(bytes).ok()
}

fn escaped(text: &str, plain: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || plain.as_bytes().contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

fn joined(args: &Args) -> Result<String> {
    let part = |key: &str| -> Result<String> {
        match args.map(0).and_then(|map| map.get(key)) {
            None => Ok(String::new()),
            Some(Value::Str(text)) => Ok(text.to_string()),
            Some(other) => {
                let kind = other.kind();
                Error::call(format!("unable to parse {key} key, must be of type string, but {kind} found"))
            }
        }
    };
    let (scheme, host, path, opaque) = (part("scheme")?, part("host")?, part("path")?, part("opaque")?);
    let (query, fragment, userinfo) = (part("query")?, part("fragment")?, part("userinfo")?);
    let mut out = String::new();
    if !scheme.is_empty() {
        out.push_str(&format!("{scheme}:"));
    }
    if opaque.is_empty() {
        if !(host.is_empty() && userinfo.is_empty() && (scheme.is_empty() || path.is_empty())) {
            out.push_str("//");
            if !userinfo.is_empty() {
                out.push_str(&format!("{userinfo}@"));
            }
            out.push_str(&host);
        }
        let path = escaped(&path, "-_.~$&+,/:;=@!'()*");
        if !path.is_empty() && !path.starts_with('/') && !host.is_empty() {
            out.push('/');
        }
        out.push_str(&path);
    } else {
        out.push_str(&opaque);
    }
    if !query.is_empty() {
        out.push_str(&format!("?{query}"));
    }
    if !fragment.is_empty() {
        out.push_str(&format!("#{}", escaped(&fragment, "-_.~$&+,/:;=?@!'()*")));
    }
    Ok(out)
}
