//! Versions and what is demanded of them, as Masterminds' semver reads and compares them: partial versions are versions,
//! pre-releases are only taken where one is named.

use std::{cmp::Ordering, sync::LazyLock};

use regex::Regex;

/// Texts longer than these are refused, as there.
const VERSION_BYTES_MAX: usize = 256;
const CONSTRAINT_BYTES_MAX: usize = 512;
const GROUPS_MAX: usize = 32;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    pub major: u64,
    pub minor: u64,
    pub patch: u64,
    pub pre: String,
    pub metadata: String,
    pub original: String,
}

const TAIL: &str = r"(?:-([0-9A-Za-z\-]+(?:\.[0-9A-Za-z\-]+)*))?(?:\+([0-9A-Za-z\-]+(?:\.[0-9A-Za-z\-]+)*))?";

// These expressions are constants, and a test reads each of them.
static LOOSE: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(&format!(r"^v?([0-9]+)(?:\.([0-9]+))?(?:\.([0-9]+))?{TAIL}$")).ok());
const PARTIAL: &str = r"v?([0-9|xX*]+)(\.[0-9|xX*]+)?(\.[0-9|xX*]+)?(-[0-9A-Za-z\-]+(?:\.[0-9A-Za-z\-]+)*)?(\+[0-9A-Za-z\-]+(?:\.[0-9A-Za-z\-]+)*)?";
const OPERATORS: &str = r"=||!=|>|<|>=|=>|<=|=<|~|~>|\^";
static ONE: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(&format!(r"^\s*({OPERATORS})\s*({PARTIAL})\s*$")).ok());
static EACH: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(&format!(r"(?:{OPERATORS})\s*(?:{PARTIAL})")).ok());
static ALL: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let one = format!(r"(?:{OPERATORS})\s*(?:{PARTIAL})\s*");
    Regex::new(&format!(r"^(?:\s*{one})(?:(?:\s+|,\s*){one})*$")).ok()
});
static RANGE: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(&format!(r"\s*(?<from>{PARTIAL})\s+-\s+(?<to>{PARTIAL})\s*")).ok());

impl Version {
    /// # Errors
    /// That the text is no version, in the words of semver.
    pub fn parse(text: &str) -> Result<Self, String> {
        const INVALID: &str = "invalid semantic version";
        if text.len() > VERSION_BYTES_MAX {
            return Err(format!("version string is too long (max {VERSION_BYTES_MAX} bytes)"));
        }
        let found = LOOSE.as_ref().and_then(|loose| loose.captures(text)).ok_or(INVALID)?;
        let part = |index: usize| found.get(index).map_or("", |part| part.as_str());
        let number = |index: usize| -> Result<u64, String> {
            match part(index) {
                "" => Ok(0),
                digits if digits.len() > 1 && digits.starts_with('0') => {
                    Err("version segment starts with 0".to_owned())
                }
                digits => digits.parse().map_err(|_| format!("error parsing version segment: {digits}")),
            }
        };
        let led = |part: &str| part.len() > 1 && part.starts_with('0') && part.bytes().all(|b| b.is_ascii_digit());
        let version = Self {
            major: number(1)?,
            minor: number(2)?,
            patch: number(3)?,
            pre: part(4).to_owned(),
            metadata: part(5).to_owned(),
            original: text.to_owned(),
        };
        if version.pre.split('.').any(led) {
            return Err("version segment starts with 0".to_owned());
        }
        Ok(version)
    }

    pub fn compare(&self, other: &Self) -> Ordering {
        let numbers = |version: &Self| (version.major, version.minor, version.patch);
        let pre = || match (self.pre.is_empty(), other.pre.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => compare_pre(&self.pre, &other.pre),
        };
        numbers(self).cmp(&numbers(other)).then_with(pre)
    }

    pub fn text(&self) -> String {
        let mut text = format!("{}.{}.{}", self.major, self.minor, self.patch);
        if !self.pre.is_empty() {
            text.push_str(&format!("-{}", self.pre));
        }
        if !self.metadata.is_empty() {
            text.push_str(&format!("+{}", self.metadata));
        }
        text
    }
}

fn compare_pre(left: &str, right: &str) -> Ordering {
    let (mut lefts, mut rights) = (left.split('.'), right.split('.'));
    loop {
        let order = match (lefts.next(), rights.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => Ordering::Less,
            (Some(_), None) => Ordering::Greater,
            (Some(left), Some(right)) => match (left.parse::<u64>(), right.parse::<u64>()) {
                (Ok(left), Ok(right)) => left.cmp(&right),
                (Ok(_), Err(_)) => Ordering::Less,
                (Err(_), Ok(_)) => Ordering::Greater,
                (Err(_), Err(_)) => left.cmp(right),
            },
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

/// What is demanded of a version: one of the groups, and all in it.
#[derive(Clone, Debug)]
pub struct Constraints {
    groups: Vec<Vec<Constraint>>,
}

#[derive(Clone, Debug)]
struct Constraint {
    operator: String,
    version: Version,
    /// Parts that were left out, or are an `x`.
    dirty: bool,
    minor_dirty: bool,
    patch_dirty: bool,
}

impl Constraints {
    /// # Errors
    /// That the text is none, in the words of semver.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > CONSTRAINT_BYTES_MAX {
            return Err(format!("constraint string is too long (max {CONSTRAINT_BYTES_MAX} bytes)"));
        }
        let (Some(all), Some(each), Some(range)) = (&*ALL, &*EACH, &*RANGE) else {
            return Err("the expressions for constraints are malformed".to_owned());
        };
        let text = range.replace_all(text, ">= $from, <= $to ");
        let groups: Vec<&str> = text.split("||").collect();
        if groups.len() > GROUPS_MAX {
            return Err(format!("too many constraint groups (max {GROUPS_MAX})"));
        }
        let group = |group: &&str| {
            if !all.is_match(group) {
                return Err(format!("improper constraint: {}", crate::template::text::quoted(group)));
            }
            each.find_iter(group).map(|found| Constraint::parse(found.as_str())).collect()
        };
        Ok(Self { groups: groups.iter().map(group).collect::<Result<_, _>>()? })
    }

    pub fn accepts(&self, version: &Version) -> bool {
        self.groups.iter().any(|group| {
            let pre = group.iter().any(|constraint| !constraint.version.pre.is_empty());
            group.iter().all(|constraint| constraint.accepts(version, pre))
        })
    }
}

impl Constraint {
    fn parse(text: &str) -> Result<Self, String> {
        let improper = || format!("improper constraint: {}", crate::template::text::quoted(text));
        let found = ONE.as_ref().and_then(|one| one.captures(text)).ok_or_else(improper)?;
        let part = |index: usize| found.get(index).map_or("", |part| part.as_str());
        let open = |part: &str| matches!(part.trim_start_matches('.'), "" | "x" | "X" | "*");
        let pre = part(6);
        let (version, minor_dirty, patch_dirty) = if open(part(3)) {
            (format!("0.0.0{pre}"), false, false)
        } else if open(part(4)) {
            (format!("{}.0.0{pre}", part(3)), true, false)
        } else if open(part(5)) {
            (format!("{}{}.0{pre}", part(3), part(4)), false, true)
        } else {
            (part(2).to_owned(), false, false)
        };
        let dirty = open(part(3)) || open(part(4)) || open(part(5));
        let version = Version::parse(&version).map_err(|_| "constraint parser error".to_owned())?;
        Ok(Self { operator: part(1).to_owned(), version, dirty, minor_dirty, patch_dirty })
    }

    fn accepts(&self, version: &Version, pre: bool) -> bool {
        if !version.pre.is_empty() && !pre {
            return false;
        }
        let order = version.compare(&self.version);
        match self.operator.as_str() {
            "!=" => self.differs(version),
            ">" => self.is_below(version),
            "<" => order == Ordering::Less,
            ">=" | "=>" => order != Ordering::Less,
            "<=" | "=<" => self.is_at_least(version),
            "~" | "~>" => self.is_near(version),
            "^" => self.is_compatible(version),
            _ if self.dirty => self.is_near(version),
            _ => order == Ordering::Equal,
        }
    }

    fn differs(&self, version: &Version) -> bool {
        let own = &self.version;
        if self.dirty {
            if own.major != version.major {
                return true;
            }
            if self.minor_dirty {
                return false;
            }
            if own.minor != version.minor || (own.patch != version.patch && !self.patch_dirty) {
                return true;
            }
            if self.patch_dirty {
                let pre = !version.pre.is_empty() || !own.pre.is_empty();
                return pre && compare_pre(&version.pre, &own.pre) != Ordering::Equal;
            }
        }
        version.compare(own) != Ordering::Equal
    }

    fn is_below(&self, version: &Version) -> bool {
        let own = &self.version;
        if self.dirty && version.major != own.major {
            return version.major > own.major;
        }
        match (self.minor_dirty, self.patch_dirty) {
            (true, _) => false,
            (_, true) => version.minor > own.minor,
            _ => version.compare(own) == Ordering::Greater,
        }
    }

    fn is_at_least(&self, version: &Version) -> bool {
        let own = &self.version;
        if !self.dirty {
            return version.compare(own) != Ordering::Greater;
        }
        version.major < own.major || (version.major == own.major && (version.minor <= own.minor || self.minor_dirty))
    }

    /// `~`: the same minor version, or major where no minor is given.
    fn is_near(&self, version: &Version) -> bool {
        let own = &self.version;
        if version.compare(own) == Ordering::Less {
            return false;
        }
        if (own.major, own.minor, own.patch) == (0, 0, 0) && !self.minor_dirty && !self.patch_dirty {
            return true;
        }
        version.major == own.major && (version.minor == own.minor || self.minor_dirty)
    }

    /// `^`: the first part that is not 0 is the same.
    fn is_compatible(&self, version: &Version) -> bool {
        let own = &self.version;
        if version.compare(own) == Ordering::Less || version.major != own.major {
            return false;
        }
        if own.major > 0 || self.minor_dirty {
            return true;
        }
        if own.minor > 0 || self.patch_dirty {
            return version.minor == own.minor;
        }
        version.minor == 0 && version.patch == own.patch
    }
}

/// Whether a version is in a range; what cannot be read is not.
pub fn is_in_range(range: &str, version: &str) -> bool {
    match (Version::parse(version), Constraints::parse(range)) {
        (Ok(version), Ok(range)) => range.accepts(&version),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_expressions_can_be_read() {
        for expression in [&LOOSE, &ONE, &EACH, &ALL, &RANGE] {
            assert!(expression.is_some());
        }
    }

    #[test]
    fn versions_are_in_ranges_as_in_semver() {
        for (range, version, expected) in [
            (">=1.2 <2 || ~3", "1.9.9", true),
            (">=1.2 <2 || ~3", "2.0.0", false),
            (">=1.2 <2 || ~3", "3.7.0", true),
            ("^0.2", "0.2.9", true),
            ("^0.2", "0.3.0", false),
            (">=1.19-0", "v1.30.0-gke.100", true),
            (">=1.19", "v1.30.0-gke.100", false),
            ("1.2 - 1.4", "1.4.0", true),
            ("1.x", "1.99.0", true),
            ("!=1.2", "1.2.7", false),
            ("*", "0.0.1", true),
        ] {
            assert_eq!(is_in_range(range, version), expected, "{range} {version}");
        }
    }

    #[test]
    fn too_long_texts_are_refused() {
        let longest = format!("1.0.0-{}", "a".repeat(VERSION_BYTES_MAX - 6));
        assert!(Version::parse(&longest).is_ok());
        assert!(Version::parse(&format!("{longest}a")).is_err());
        let longest = format!("1{}", " ".repeat(CONSTRAINT_BYTES_MAX - 1));
        assert!(Constraints::parse(&longest).is_ok());
        assert!(Constraints::parse(&format!("{longest} ")).is_err());
        let most = ["1"; GROUPS_MAX].join("||");
        assert!(Constraints::parse(&most).is_ok());
        assert!(Constraints::parse(&format!("{most}||1")).is_err());
    }
}
