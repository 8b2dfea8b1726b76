//! `fieldPath` of a rule: `.a.b` and `['c']`, checked against the schema (upstream: `ValidFieldPath`).

use super::super::{Additional, Node};

/// The path as errors print it; None if it leads nowhere.
pub(super) fn normal(text: &str, node: &Node) -> Option<String> {
    let mut out = String::new();
    let mut node = node;
    let mut rest = text;
    while !rest.is_empty() {
        let name;
        if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[', ']']).unwrap_or(after.len());
            name = after[..end].to_owned();
            rest = &after[end..];
        } else {
            let after = rest.strip_prefix("['")?;
            let (unquoted, end) = quoted(after)?;
            name = unquoted;
            rest = after[end..].strip_prefix(']')?;
        }
        if name.is_empty() {
            return None;
        }
        if node.properties.is_empty() {
            let Additional::Of(inner) = &node.additional else { return None };
            node = inner;
            out.push_str(&format!("[{name}]"));
        } else {
            node = node.property(&name)?;
            if !out.is_empty() {
                out.push('.');
            }
            out.push_str(&name);
        }
    }
    (!out.is_empty()).then_some(out)
}

/// Up to the closing quote, escapes undone, and where it ends.
fn quoted(text: &str) -> Option<(String, usize)> {
    let mut out = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\'' => return Some((out, at + 1)),
            '\\' => out.push(match chars.next()?.1 {
                'a' => '\u{7}',
                'b' => '\u{8}',
                'f' => '\u{c}',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'v' => '\u{b}',
                c @ ('\'' | '\\') => c,
                _ => return None,
            }),
            c => out.push(c),
        }
    }
    None
}
