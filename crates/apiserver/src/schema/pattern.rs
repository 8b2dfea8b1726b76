//! `pattern` of strings: regular expressions in Go's syntax (RE2).

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

    pub fn compile(text: &str) -> Result<Regex, regex::Error> {
        policy::cel::go_regex(text, SIZE_LIMIT_BYTES)
    }

    /// None: the expression is not valid.
    pub fn matches(&self, text: &str) -> Option<bool> {
        self.compiled.get_or_init(|| Self::compile(&self.text).ok()).as_ref().map(|regex| regex.is_match(text))
    }
}

/// What is wrong with an expression in the words of Go's `regexp/syntax`, where they have a word for it.
pub(super) fn go_error(text: &str, error: &regex::Error) -> String {
    let told = error.to_string();
    let reason = told.rsplit("error: ").next().unwrap_or_default();
    let go = |why: &str, part: &str| format!("error parsing regexp: {why}: `{part}`");
    let from = |mark: char| text.rfind(mark).map_or(text, |at| &text[at..]);
    match reason {
        "unclosed group" => go("missing closing )", text),
        "unopened group" => go("unexpected )", text),
        "unclosed character class" => go("missing closing ]", from('[')),
        reason if reason.starts_with("look-around") => {
            let at = ["(?=", "(?!", "(?<"].iter().find(|mark| text.contains(**mark));
            go("invalid or unsupported Perl syntax", at.copied().unwrap_or("(?"))
        }
        _ => told,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_told_in_the_words_of_go() {
        for (text, told) in [
            ("(", "missing closing ): `(`"),
            ("a)", "unexpected ): `a)`"),
            ("a[b", "missing closing ]: `[b`"),
            ("(?=x)", "invalid or unsupported Perl syntax: `(?=`"),
        ] {
            let error = Pattern::compile(text).unwrap_err();
            assert_eq!(go_error(text, &error), format!("error parsing regexp: {told}"));
        }
    }
}
