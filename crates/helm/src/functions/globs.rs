//! Globs over paths, as `gobwas/glob` has them with slashes as separators.

use regex::Regex;

use crate::template::error::{Error, Result};

/// `*` and `?` within a part of the path, `**` over parts, `[...]`, `{a,b}`.
pub struct Glob(Regex);

impl Glob {
    /// # Errors
    /// That the pattern is malformed.
    pub fn parse(pattern: &str) -> Result<Self> {
        let mut out = String::from("(?s)^");
        let mut characters = pattern.chars().peekable();
        let mut braces = 0_usize;
        while let Some(c) = characters.next() {
            match c {
                '*' if characters.peek() == Some(&'*') => {
                    while characters.peek() == Some(&'*') {
                        characters.next();
                    }
                    out.push_str(".*");
                }
                '*' => out.push_str("[^/]*"),
                '?' => out.push_str("[^/]"),
                '[' => {
                    out.push('[');
                    if matches!(characters.peek(), Some('!' | '^')) {
                        characters.next();
                        out.push('^');
                    }
                    loop {
                        match characters.next() {
                            None => return Error::call("syntax error in pattern: a class is not closed"),
                            Some(']') => break,
                            Some('-') => out.push('-'),
                            Some(c) => out.push_str(&regex::escape(&c.to_string())),
                        }
                    }
                    out.push(']');
                }
                '{' => {
                    braces += 1;
                    out.push_str("(?:");
                }
                '}' if braces > 0 => {
                    braces -= 1;
                    out.push(')');
                }
                ',' if braces > 0 => out.push('|'),
                '\\' => out.push_str(&regex::escape(&characters.next().unwrap_or('\\').to_string())),
                _ => out.push_str(&regex::escape(&c.to_string())),
            }
        }
        out.push('$');
        match Regex::new(&out) {
            Ok(regex) => Ok(Self(regex)),
            Err(error) => Error::call(format!("syntax error in pattern: {error}")),
        }
    }

    pub fn matches(&self, path: &str) -> bool {
        self.0.is_match(path)
    }
}
