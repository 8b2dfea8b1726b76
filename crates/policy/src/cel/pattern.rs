//! Regular expressions in Go's syntax (RE2), matched by an engine whose syntax differs a little.

use regex::Regex;

/// A compiled expression may take this much memory.
pub const SIZE_BYTES_MAX: usize = 1 << 18;

/// A compiled expression with what it costs to use.
#[derive(Debug)]
pub(super) struct Pattern {
    pub regex: Regex,
    /// Of the source.
    pub chars: u64,
    /// Steps that a byte of text may take, roughly: the larger the program, the worse its worst case.
    pub weight: u64,
}

impl Pattern {
    pub fn new(text: &str) -> Result<Self, regex::Error> {
        let chars = text.chars().count() as u64;
        let sizes = [(1 << 13, 1), (1 << 15, 8), (SIZE_BYTES_MAX, 64)];
        let mut failed = None;
        for (bytes, weight) in sizes {
            match go_regex(text, bytes) {
                Ok(regex) => return Ok(Self { regex, chars, weight }),
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.unwrap_or(regex::Error::CompiledTooBig(SIZE_BYTES_MAX)))
    }
}

/// Compiles an expression in Go's syntax. Left out: `\Q…\E`, and classes of Unicode by property.
pub fn go_regex(text: &str, size_bytes_max: usize) -> Result<Regex, regex::Error> {
    regex::RegexBuilder::new(&translated(text)).size_limit(size_bytes_max).build()
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
            let regex = go_regex(pattern, SIZE_BYTES_MAX).unwrap();
            assert!(regex.is_match(fits), "{pattern} {fits}");
            assert!(!regex.is_match(does_not), "{pattern} {does_not}");
        }
        assert!(go_regex("(", SIZE_BYTES_MAX).is_err());
    }
}
