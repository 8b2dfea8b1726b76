//! `.helmignore`: which files of a folder are no part of its chart. An archive has been made without them.

use super::Files;
use crate::error::{Error, Result};

/// Such a file may have so many rules.
pub const RULES_MAX: usize = 1_000;
/// A rule may be so long, in characters.
pub const RULE_MAX: usize = 4_096;

const NAME: &str = ".helmignore";
/// What no chart has.
const DEFAULT: &str = "templates/.?*";

/// The files of a folder that its chart consists of, as `helm` reads them.
///
/// # Errors
/// That a rule is malformed, or that it is beyond a limit.
pub fn kept(folder: &Files) -> Result<Files> {
    let text = folder.get(NAME).map(|data| String::from_utf8_lossy(data));
    let rules = rules(text.as_deref().unwrap_or_default())?;
    let is_kept = |path: &str| {
        let path: Vec<char> = path.chars().collect();
        let is_slash = |at: &usize| path[*at] == '/';
        let folders = (0..path.len()).filter(is_slash).map(|at| (&path[..at], true));
        !folders.chain([(&path[..], false)]).any(|(path, is_folder)| ignores(&rules, path, is_folder))
    };
    let plain = |data: &std::sync::Arc<[u8]>| match data.strip_prefix(super::MARK) {
        Some(text) => text.into(),
        None => data.clone(),
    };
    Ok(folder.iter().filter(|(path, _)| is_kept(path)).map(|(path, data)| (path.clone(), plain(data))).collect())
}

fn rules(text: &str) -> Result<Vec<Rule>> {
    let lines = text.strip_prefix('\u{feff}').unwrap_or(text).lines().chain([DEFAULT]);
    let lines = lines.map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut rules = Vec::new();
    for line in lines {
        if rules.len() > RULES_MAX {
            return Err(Error::Limit(format!("{NAME} has more than {RULES_MAX} rules")));
        }
        rules.push(Rule::of(line)?);
    }
    Ok(rules)
}

/// The first rule that has something to say says it: one that is negated ignores what it does not match.
fn ignores(rules: &[Rule], path: &[char], is_folder: bool) -> bool {
    for rule in rules {
        if rule.negated {
            if (rule.of_folders && !is_folder) || !rule.matches(path) {
                return true;
            }
        } else if (is_folder || !rule.of_folders) && rule.matches(path) {
            return true;
        }
    }
    false
}

struct Rule {
    negated: bool,
    of_folders: bool,
    /// Without a slash: of the last part of paths only.
    of_names: bool,
    pattern: Vec<Token>,
}

enum Token {
    /// Any characters but slashes.
    Star,
    /// One character but a slash.
    Any,
    One(char),
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

impl Rule {
    fn of(line: &str) -> Result<Self> {
        let fail = |what: &str| Error::Chart(what.to_owned());
        if line.contains("**") {
            return Err(fail("double-star (**) syntax is not supported"));
        }
        if line.chars().count() > RULE_MAX {
            return Err(Error::Limit(format!("{NAME} has a rule of more than {RULE_MAX} characters")));
        }
        let (negated, rest) = line.strip_prefix('!').map_or((false, line), |rest| (true, rest));
        let (of_folders, rest) = rest.strip_suffix('/').map_or((false, rest), |rest| (true, rest));
        let pattern = pattern(rest.strip_prefix('/').unwrap_or(rest));
        let pattern = pattern.ok_or_else(|| fail("syntax error in pattern"))?;
        Ok(Self { negated, of_folders, of_names: !rest.contains('/'), pattern })
    }

    fn matches(&self, path: &[char]) -> bool {
        let name = path.rsplit(|c| *c == '/').next().unwrap_or_default();
        matches(&self.pattern, if self.of_names { name } else { path })
    }
}

/// A pattern of Go's `path/filepath.Match`; nothing if it is malformed.
fn pattern(text: &str) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        tokens.push(match c {
            '*' => Token::Star,
            '?' => Token::Any,
            '\\' => Token::One(rest.next()?),
            '[' => {
                let negated = rest.next_if_eq(&'^').is_some();
                let mut ranges = Vec::new();
                while ranges.is_empty() || rest.next_if_eq(&']').is_none() {
                    let low = bound(&mut rest)?;
                    let high = if rest.next_if_eq(&'-').is_some() { bound(&mut rest)? } else { low };
                    ranges.push((low, high));
                }
                Token::Class { negated, ranges }
            }
            c => Token::One(c),
        });
    }
    Some(tokens)
}

fn bound(rest: &mut impl Iterator<Item = char>) -> Option<char> {
    match rest.next()? {
        '-' | ']' => None,
        '\\' => rest.next(),
        c => Some(c),
    }
}

fn matches(pattern: &[Token], text: &[char]) -> bool {
    let (mut at, mut done) = (0, 0);
    // Where the last star stands, and how far it reaches: no earlier one has to be tried again.
    let mut star: Option<(usize, usize)> = None;
    while done < text.len() {
        let c = text[done];
        let fits = match pattern.get(at) {
            Some(Token::Star) => {
                star = Some((at, done));
                at += 1;
                continue;
            }
            Some(Token::Any) => c != '/',
            Some(Token::One(wanted)) => c == *wanted,
            Some(Token::Class { negated, ranges }) => {
                ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *negated
            }
            None => false,
        };
        match star {
            _ if fits => (at, done) = (at + 1, done + 1),
            Some((place, reach)) if text[reach] != '/' => {
                star = Some((place, reach + 1));
                (at, done) = (place + 1, reach + 1);
            }
            _ => return false,
        }
    }
    pattern[at..].iter().all(|token| matches!(token, Token::Star))
}
