//! `index.yaml`: which versions of which charts a repository has.
//!
//! Source: helm.sh/helm/v3 pkg/repo/index.go.

use std::{cmp::Ordering, collections::BTreeMap};

use helm::version::Version;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer};

use super::error::of_yaml;

/// Keys, values, lists and maps of one index: fifty for each of eighty thousand versions.
const NODES_MAX: usize = 4_000_000;

/// One version of a chart.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Entry {
    #[serde(deserialize_with = "lenient")]
    pub name: String,
    #[serde(deserialize_with = "lenient")]
    pub version: String,
    #[serde(deserialize_with = "lenient")]
    pub app_version: String,
    #[serde(deserialize_with = "lenient")]
    pub api_version: String,
    #[serde(deserialize_with = "lenient")]
    pub description: String,
    #[serde(deserialize_with = "lenient")]
    pub home: String,
    #[serde(deserialize_with = "lenient")]
    pub icon: String,
    #[serde(deserialize_with = "lenient")]
    pub created: String,
    /// SHA-256 of the archive in hexadecimal digits, with `sha256:` before it or not.
    #[serde(deserialize_with = "lenient")]
    pub digest: String,
    #[serde(deserialize_with = "lenient")]
    pub keywords: Vec<String>,
    /// Where the archive is; those without a scheme are below the repository.
    #[serde(deserialize_with = "lenient")]
    pub urls: Vec<String>,
    #[serde(deserialize_with = "lenient")]
    pub annotations: BTreeMap<String, String>,
}

/// RFC 3339 has years of four digits and no others.
pub fn timestamp(text: &str) -> Option<Timestamp> {
    text.parse().ok().filter(|_| text.starts_with(|first: char| first.is_ascii_digit()))
}

/// A null is nothing.
fn lenient<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(source: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(source)?.unwrap_or_default())
}

impl Entry {
    /// When this version was made; none if the index does not say so in RFC 3339.
    pub fn created(&self) -> Option<Timestamp> {
        timestamp(&self.created)
    }

    /// As [`Index::weight`].
    pub fn weight(&self) -> usize {
        let texts = [
            &self.name,
            &self.version,
            &self.app_version,
            &self.api_version,
            &self.description,
            &self.home,
            &self.icon,
            &self.created,
            &self.digest,
        ];
        // An allocation costs more than it holds.
        let held = |text: &String| if text.capacity() == 0 { 0 } else { text.capacity() + 16 };
        let listed = |list: &Vec<String>| list.iter().map(|text| held(text) + 24).sum::<usize>();
        let noted = self.annotations.iter().map(|(key, value)| held(key) + held(value) + 64).sum::<usize>();
        let own = size_of::<Self>() + listed(&self.keywords) + listed(&self.urls) + noted;
        own + texts.into_iter().map(held).sum::<usize>()
    }

    /// Highest version first; what is no version comes last.
    pub fn by_version(&self, other: &Self) -> Ordering {
        match (Version::parse(&self.version), Version::parse(&other.version)) {
            (Ok(own), Ok(theirs)) => theirs.compare(&own),
            (Ok(_), Err(_)) => Ordering::Less,
            (Err(_), Ok(_)) => Ordering::Greater,
            (Err(_), Err(_)) => other.version.cmp(&self.version),
        }
    }
}

/// The versions of each chart, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Index {
    pub entries: BTreeMap<String, Vec<Entry>>,
}

/// What an index does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Any chart.
    All,
    Chart,
    Version,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct File {
    #[serde(rename = "apiVersion", deserialize_with = "lenient")]
    api_version: String,
    #[serde(deserialize_with = "lenient")]
    entries: BTreeMap<String, Option<Vec<Option<Entry>>>>,
}

impl Index {
    /// # Errors
    /// That the text is no index, and why.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(text).map_err(|_| "the index is not UTF-8".to_owned())?;
        // An alias repeats what is large as often as it likes, and no tool writes one into an index.
        let options = serde_saphyr::options! {
            budget: serde_saphyr::budget! { max_events: 2 * NODES_MAX, max_nodes: NODES_MAX, max_aliases: 0 },
        };
        let file: File = serde_saphyr::from_str_with_options(text, options)
            .map_err(|error| format!("the index cannot be read: {}", of_yaml(&error)))?;
        if file.api_version.is_empty() && file.entries.is_empty() {
            return Err("no API version specified: this is no index of charts".to_owned());
        }
        let whole = |(name, versions): (String, Option<Vec<Option<Entry>>>)| {
            let versions = versions.unwrap_or_default().into_iter().flatten();
            let named = |mut entry: Entry| {
                if entry.name.is_empty() {
                    entry.name.clone_from(&name);
                }
                entry
            };
            let versions: Vec<Entry> = versions.filter(|entry| !entry.version.is_empty()).map(named).collect();
            (name, versions)
        };
        Ok(Self { entries: file.entries.into_iter().map(whole).collect() })
    }

    /// The version of a chart as it is written, or without a `v` before it.
    ///
    /// # Errors
    /// What is missing.
    pub fn find(&self, name: &str, version: &str) -> Result<&Entry, Missing> {
        if self.entries.is_empty() {
            return Err(Missing::All);
        }
        let versions = self.entries.get(name).filter(|versions| !versions.is_empty()).ok_or(Missing::Chart)?;
        let bare = version.strip_prefix('v').unwrap_or(version);
        let of = |wanted: &str| versions.iter().find(|entry| entry.version == wanted);
        of(version).or_else(|| of(bare)).ok_or(Missing::Version)
    }

    /// What it takes of memory, in bytes, as near as can be told: what lists and texts hold, and what maps need for each.
    pub fn weight(&self) -> usize {
        let all = self.entries.iter();
        all.map(|(name, versions)| name.capacity() + 64 + versions.iter().map(Entry::weight).sum::<usize>()).sum()
    }

    /// How many versions there are of all charts.
    pub fn len(&self) -> usize {
        self.entries.values().map(Vec::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "apiVersion: v1
entries:
  hello:
  - {version: 1.2.0, created: '2026-03-01T10:00:00.5Z', digest: abc, urls: [hello-1.2.0.tgz], appVersion: 7, keywords: null}
  - {name: hello, version: v2.0.0-rc.1, urls: ['https://elsewhere.test/hello.tgz'], annotations: {a: b}}
  - null
  - {description: no version}
  empty: null
generated: '2026-03-01T10:00:00Z'
";

    #[test]
    fn versions_are_found_as_they_are_written_or_without_a_v() {
        let index = Index::parse(TEXT.as_bytes()).unwrap();
        let found = |version| index.find("hello", version).map(|entry| entry.version.as_str());
        assert_eq!(found("1.2.0"), Ok("1.2.0"));
        assert_eq!(found("v1.2.0"), Ok("1.2.0"));
        assert_eq!(found("v2.0.0-rc.1"), Ok("v2.0.0-rc.1"));
        assert_eq!(found("2.0.0-rc.1"), Err(Missing::Version));
        assert_eq!(index.find("other", "1.2.0"), Err(Missing::Chart));
        assert_eq!(index.find("empty", "1.2.0"), Err(Missing::Chart));
        assert_eq!(Index::default().find("hello", "1.2.0"), Err(Missing::All));
        assert_eq!(index.len(), 2);
    }

    #[test]
    fn nulls_are_nothing_and_numbers_are_text() {
        let index = Index::parse(TEXT.as_bytes()).unwrap();
        let entry = index.find("hello", "1.2.0").unwrap();
        assert_eq!((entry.name.as_str(), entry.app_version.as_str()), ("hello", "7"));
        assert_eq!(entry.created().unwrap().to_string(), "2026-03-01T10:00:00.5Z");
        assert!(entry.keywords.is_empty());
        assert_eq!(timestamp("-000001-01-01T00:00:00Z"), None);
    }

    #[test]
    fn the_highest_version_is_first() {
        let entry = |version: &str| Entry { version: version.into(), ..Entry::default() };
        let mut all = ["1.9.0", "none", "1.10.0-rc.1", "v1.10.0", "0.1.0"].map(entry);
        all.sort_by(Entry::by_version);
        assert_eq!(all.map(|entry| entry.version), ["v1.10.0", "1.10.0-rc.1", "1.9.0", "0.1.0", "none"]);
    }

    #[test]
    fn pages_that_are_no_index_are_refused() {
        for (text, why) in [
            ("<html><body>not found</body></html>", "cannot be read"),
            ("", "no API version specified"),
            ("{}", "no API version specified"),
            ("entries: []", "cannot be read"),
            ("entries: {a: [[]]}", "cannot be read"),
        ] {
            let error = Index::parse(text.as_bytes()).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
        assert!(Index::parse(b"\xff").unwrap_err().contains("UTF-8"));
        for text in [
            "password: x\nentries: hunter2",
            "hunter2",
            "{hunter2: 1, hunter2: 2}",
            "hunter2: [",
            "entries: {a: [hunter2]}",
        ] {
            let error = Index::parse(text.as_bytes()).unwrap_err();
            assert!(error.contains("is not what is expected") || error.contains("no API version"), "{text}: {error}");
            assert!(!error.contains("hunter2"), "what an address answers is not for those who name it: {error}");
        }
    }

    #[test]
    fn bombs_of_aliases_and_of_depth_are_refused() {
        let alias = "apiVersion: v1\nentries: {a: &a [{version: 1.0.0, description: &d long}], b: *a}\n";
        assert!(Index::parse(alias.as_bytes()).unwrap_err().contains("cannot be read"));
        let deep = format!("apiVersion: v1\nx: {}{}\n", "[".repeat(100_000), "]".repeat(100_000));
        assert!(Index::parse(deep.as_bytes()).unwrap_err().contains("cannot be read"));
    }
}
