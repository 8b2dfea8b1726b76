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
