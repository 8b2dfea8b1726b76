//! The differences that are known, each with its reason. The list can only shrink.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// So many rows are allowed.
pub const ROWS_MAX: usize = 20;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// Names of cases that differ for one reason; `*` stands for anything.
    pub cases: Vec<String>,
    pub reason: String,
}

impl Row {
    pub fn covers(&self, name: &str) -> bool {
        self.cases.iter().any(|pattern| covers(pattern, name))
    }
}

pub fn covers(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let mut last: Option<&str> = None;
    for part in parts {
        if let Some(before) = last.replace(part) {
            let Some(at) = rest.find(before) else { return false };
            rest = &rest[at + before.len()..];
        }
    }
    last.map_or(rest.is_empty(), |last| rest.ends_with(last))
}

pub fn load(path: &Path) -> Result<Vec<Row>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let rows: Vec<Row> = serde_saphyr::from_str(&text).with_context(|| format!("read {}", path.display()))?;
    if let Some(row) = rows.iter().find(|row| row.reason.trim().len() < 10) {
        bail!("the known differences {:?} have no reason", row.cases);
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        assert!(covers("a/b", "a/b") && !covers("a/b", "a/bc"));
        assert!(covers("a/*", "a/b/c") && covers("*/c", "a/b/c") && covers("a/*/c", "a/b/c") && covers("*b*", "a/b/c"));
        assert!(!covers("a/*/d", "a/b/c") && !covers("b*", "a/b"));
    }

    #[test]
    fn the_list_is_short_and_gives_reasons() {
        let rows = load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("known.yaml")).unwrap();
        assert!(rows.len() < ROWS_MAX, "{} rows", rows.len());
    }
}
