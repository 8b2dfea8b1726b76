//! `pattern` of strings: regular expressions in Go's syntax (RE2), matched by an engine whose syntax differs a little.

use std::sync::{Arc, OnceLock};

use regex::Regex;

/// A compiled expression may take this much memory.
const SIZE_LIMIT_BYTES: usize = 1 << 20;

/// An expression, compiled when first used: most schemas of a process never are.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    pub text: Box<str>,
    compiled: Arc<OnceLock<Option<Regex>>>,
}

impl Pattern {
    pub fn new(text: &str) -> Self {
        Self { text: text.into(), compiled: Arc::default() }
    }

    /// Left out: `\Q…\E`, and classes of Unicode by property.
    pub fn compile(text: &str) -> Result<Regex, regex::Error> {
        regex::RegexBuilder::new(&translated(text)).size_limit(SIZE_LIMIT_BYTES).build()
    }

    /// None: the expression is not valid.
    pub fn matches(&self, text: &str) -> Option<bool> {
        self.compiled.get_or_init(|| Self::compile(&self.text).ok()).as_ref().map(|regex| regex.is_match(text))
    }
}

/// Go's `\d`, `\w` and `\s` are ASCII, and its classes know neither nesting nor set operations.
fn translated(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let mut class = false;
    let mut chars = text.chars().peekable();
    while let Some(next) = chars.next() {
        match next {
            '\\' => match chars.next() {
                Some('d') => out.push_str("[0-9]"),
                Some('D') => out.push_str("[^0-9]"),
                Some('w') => out.push_str("[0-9A-Za-z_]"),
                Some('W') => out.push_str("[^0-9A-Za-z_]"),
                Some('s') => out.push_str(r"[\t\n\f\r ]"),
                Some('S') => out.push_str(r"[^\t\n\f\r ]"),
                escaped => {
                    out.push('\\');
                    out.extend(escaped);
                }
            },
            '[' if !class => {
                class = true;
                out.push('[');
                out.extend(chars.next_if_eq(&'^'));
                // A closing bracket that comes first is a character of the class.
                if chars.next_if_eq(&']').is_some() {
                    out.push_str("\\]");
                }
            }
            '[' if chars.peek() == Some(&':') => {
                // [:alpha:] and its like, to their end.
                out.push('[');
                for inner in chars.by_ref() {
                    out.push(inner);
                    if inner == ']' {
                        break;
                    }
                }
            }
            ']' => {
                class = false;
                out.push(']');
            }
            '[' | '&' | '~' if class => out.extend(['\\', next]),
            '-' if class && chars.next_if_eq(&'-').is_some() => out.push_str("-\\-"),
            _ => out.push(next),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_they_mean_in_go() {
        let cases = [
            (r"^\d+$", "12", "١٢"),
            (r"^[\d.]+$", "1.2", "x"),
            (r"^[^[]+$", "a]", "a["),
            (r"^[a&&b]+$", "&", "c"),
            (r"^[[:alpha:]_]+$", "a_", "a-"),
            (r"^[]a]+$", "]", "b"),
            (r"^\w+\s\S$", "a_1 x", "ä x"),
            (r"^a\[b\]$", "a[b]", "ab"),
            (r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?)\z", "a-b", "a-"),
            (r"^[+--]$", ",", "/"),
        ];
        for (pattern, fits, does_not) in cases {
            let pattern = Pattern::new(pattern);
            assert_eq!(pattern.matches(fits), Some(true), "{} {fits}", pattern.text);
            assert_eq!(pattern.matches(does_not), Some(false), "{} {does_not}", pattern.text);
        }
        assert_eq!(Pattern::new("(").matches("x"), None);
    }
}
