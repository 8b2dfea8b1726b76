//! What programs print, without what two servers cannot have in common.

use std::{path::Path, sync::LazyLock};

use jiff::Timestamp;
use regex::Regex;
use serde_json::Value;

use crate::normal::Normal;

/// A pattern and what takes its place, in this order.
static RULES: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    let rule = |pattern: &str, text: &'static str| (Regex::new(pattern).expect("written here"), text);
    vec![
        // What client-go logs.
        rule(r"(?m)^([EWI])\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ ([\w.]+):\d+\]", "$1 $2]"),
        rule(r"\b(LIVE|MERGED)-\d+", "$1"),
        rule(r"kubectl-edit-\d+", "kubectl-edit"),
        rule(r"\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+ [+-]\d{4}", "<time>"),
        rule(r"\b[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d [+-]\d{4}", "<time>"),
        rule(r#"(resourceVersion"?|Resource Version): +"?\d+"?"#, "$1: <version>"),
        rule(r"\b(\d+h)?(\d+m)?\d+s\b", "<age>"),
        // Columns are as wide as what is in them.
        rule(r"(\S)  +", "$1  "),
        rule(r"(?m) +$", ""),
    ]
});

pub struct Text {
    normal: Normal,
    home: String,
}

impl Text {
    pub fn new(address: &str, home: &Path) -> Self {
        Self { normal: Normal::new(address, Timestamp::now()), home: home.display().to_string() }
    }

    pub fn of(&mut self, printed: &str) -> String {
        if let Ok(value) = serde_json::from_str::<Value>(printed)
            && value.is_object()
        {
            return format!("{:#}", self.normal.body(value));
        }
        let mut text = self.normal.text(&printed.replace(&self.home, "<home>"));
        for (pattern, replacement) in RULES.iter() {
            text = pattern.replace_all(&text, *replacement).into_owned();
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_times_and_widths_are_not_compared() {
        let mut text = Text::new("127.0.0.1:1", Path::new("/tmp/x"));
        let table = "NAME    AGE\nweb     1m12s  \n";
        assert_eq!(text.of(table), "NAME  AGE\nweb  <age>\n");
        assert_eq!(text.of("  indented:  x"), "  indented:  x");
        assert_eq!(
            text.of("E1121 17:20:01.123456   12345 reflector.go:99] at 127.0.0.1:1"),
            "E reflector.go] at <address>"
        );
        assert_eq!(
            text.of("--- /tmp/x/LIVE-123/v1.ConfigMap\t2026-11-21 17:20:00.12 +0000"),
            "--- <home>/LIVE/v1.ConfigMap\t<time>"
        );
    }
}
