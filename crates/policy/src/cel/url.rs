//! URLs as Go's `net/url` reads them (`url.ParseRequestURI`).

use std::collections::BTreeMap;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    pub(super) scheme: String,
    /// With the port.
    pub(super) host: String,
    /// Still escaped.
    pub(super) path: String,
    pub(super) query: String,
    fragment: String,
    user: String,
}

impl Url {
    /// An absolute URL, or an absolute path.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("parse {text:?}: {why}");
        if text.is_empty() {
            return Err(wrong("empty url"));
        }
        if text.bytes().any(|b| b < 0x20 || b == 0x7f) {
            return Err(wrong("net/url: invalid control character in URL"));
        }
        let (before, fragment) = text.split_once('#').unwrap_or((text, ""));
        // Asked for as a request, a fragment is part of the path; as a link it is not. Both must hold.
        let (scheme, rest) = scheme(before).map_err(wrong)?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        if !rest.starts_with('/') && (scheme.is_empty() || rest.is_empty()) {
            return Err(wrong("invalid URI for request"));
        }
        let (user, host, path) = match rest.strip_prefix("//") {
            Some(rest) if !scheme.is_empty() || !rest.starts_with('/') => {
                let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
                let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
                check_host(host).map_err(|why| wrong(&why))?;
                (user, host, path)
            }
            // Without a path, what follows the scheme is opaque.
            _ if !rest.starts_with('/') => ("", "", ""),
            _ => ("", "", rest),
        };
        for part in [path, fragment] {
            if let Some(bad) = bad_escape(part) {
                return Err(wrong(&format!("invalid URL escape {bad:?}")));
            }
        }
        Ok(Self {
            scheme: scheme.to_ascii_lowercase(),
            host: host.to_owned(),
            path: escaped(path),
            query: query.to_owned(),
            fragment: fragment.to_owned(),
            user: user.to_owned(),
        })
    }

    pub(super) fn hostname(&self) -> &str {
        let host = match self.host.rfind(':') {
            Some(at) if !self.host[at..].contains(']') => &self.host[..at],
            _ => &self.host,
        };
        host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
    }

    pub(super) fn port(&self) -> &str {
        match self.host.rfind(':') {
            Some(at) if !self.host[at..].contains(']') => &self.host[at + 1..],
            _ => "",
        }
    }

    /// The parameters, in order of their names; those that are not well formed are left out.
    pub(super) fn query(&self) -> BTreeMap<String, Vec<String>> {
        let mut map: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for pair in self.query.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';')) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            if let (Some(key), Some(value)) = (unescaped(key), unescaped(value)) {
                map.entry(key).or_default().push(value);
            }
        }
        map
    }
}

fn scheme(text: &str) -> Result<(&str, &str), &'static str> {
    for (at, c) in text.char_indices() {
        match c {
            'a'..='z' | 'A'..='Z' => {}
            '0'..='9' | '+' | '-' | '.' if at > 0 => {}
            ':' if at == 0 => return Err("missing protocol scheme"),
            ':' => return Ok((&text[..at], &text[at + 1..])),
            _ => return Ok(("", text)),
        }
    }
    Ok(("", text))
}

fn check_host(host: &str) -> Result<(), String> {
    let port = if let Some(rest) = host.strip_prefix('[') {
        rest.split_once(']').ok_or("missing ']' in host")?.1
    } else {
        host.rfind(':').map_or("", |at| &host[at..])
    };
    let digits = port.strip_prefix(':');
    if !port.is_empty() && !digits.is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_digit())) {
        return Err(format!("invalid port {port:?} after host"));
    }
    let fits = |c: char| c.is_alphanumeric() || "-_.~!$&'()*+,;=:[]<>\"%".contains(c);
    match host.chars().find(|c| !fits(*c)) {
        Some(bad) => Err(format!("invalid character {:?} in host name", bad.to_string())),
        None => bad_escape(host).map_or(Ok(()), |bad| Err(format!("invalid URL escape {bad:?}"))),
    }
}

/// A percent sign that two hexadecimal digits do not follow.
fn bad_escape(text: &str) -> Option<&str> {
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        let after = &rest[at + 1..];
        if after.len() < 2 || !after.bytes().take(2).all(|b| b.is_ascii_hexdigit()) {
            let end = rest[at..].char_indices().map(|(i, c)| i + c.len_utf8()).take(3).last().unwrap_or(0);
            return Some(&rest[at..at + end]);
        }
        rest = &after[2..];
    }
    None
}

/// What may not stand in a path as it is becomes an escape.
fn escaped(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@%!'()*[]".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

fn unescaped(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let digits = [bytes.next()?, bytes.next()?];
                out.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
            }
            other => out.push(other),
        }
    }
    String::from_utf8(out).ok()
}
