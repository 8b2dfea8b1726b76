//! Standard output: tables, documents, colour on a terminal only.

use std::io::{IsTerminal, Write};

use anyhow::Result;
use serde::Serialize;

use crate::Output;

/// Writes a line; a reader that has gone away is no error.
pub fn line(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// A text that has its own line ends.
pub fn text(text: &str) {
    let _ = write!(std::io::stdout(), "{text}");
}

/// Progress, for a person who waits.
pub fn progress(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

pub fn document(value: &impl Serialize, output: Output) -> Result<()> {
    match output {
        Output::Yaml => line(serde_saphyr::to_string(value)?.trim_end()),
        Output::Table | Output::Json => line(&serde_json::to_string_pretty(value)?),
    }
    Ok(())
}

/// Columns as wide as their widest cell.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0))
        .collect();
    let mut lines = Vec::new();
    for row in rows {
        let mut text = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            text.push_str(&format!("{cell:<width$}   "));
        }
        lines.push(text.trim_end().to_owned());
    }
    lines.join("\n")
}

#[derive(Clone, Copy)]
pub enum Colour {
    Green,
    Red,
    Yellow,
    Faint,
}

/// The text in colour, if standard output is a terminal and the user does not object (no-color.org).
pub fn coloured(text: &str, colour: Colour) -> String {
    if !std::io::stdout().is_terminal() || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) {
        return text.to_owned();
    }
    let code = match colour {
        Colour::Green => 32,
        Colour::Red => 31,
        Colour::Yellow => 33,
        Colour::Faint => 2,
    };
    format!("\u{1b}[{code}m{text}\u{1b}[0m")
}

/// An age as kubectl prints it: `45s`, `3m12s`, `5h`, `2d`.
pub fn age(seconds: i64) -> String {
    let seconds = seconds.max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => {
            let rest = seconds % 60;
            if rest == 0 { format!("{}m", seconds / 60) } else { format!("{}m{rest}s", seconds / 60) }
        }
        600..10_800 => format!("{}m", seconds / 60),
        10_800..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_end_with_text() {
        let rows = [vec!["NAME".to_owned(), "AGE".to_owned()], vec!["a-long-name".to_owned(), "1s".to_owned()]];
        assert_eq!(table(&rows), "NAME          AGE\na-long-name   1s");
    }

    #[test]
    fn ages_are_short() {
        assert_eq!([0, 119, 120, 192, 900, 10_800, 200_000].map(age), ["0s", "119s", "2m", "3m12s", "15m", "3h", "2d"]);
    }
}
