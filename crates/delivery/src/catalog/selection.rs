//! Which versions of a chart a catalog offers.

use std::{cmp::Ordering, collections::BTreeSet};

use api::admission::labels;
use helm::version::Version;
use jiff::Timestamp;

use crate::repository::Entry;

/// Versions of a chart that are offered, the newest; the highest is always one more of them.
pub const VERSIONS_MAX: usize = 5;
/// What one version may say, in bytes as it lies in memory: an object has to hold it.
/// Annotations of an object have 256 KiB, and the metadata that an index points at may have its share of them.
pub const ENTRY_BYTES_MAX: usize = 192 << 10;

/// A version that is offered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Chosen<'a> {
    pub entry: &'a Entry,
    /// It is the highest.
    pub latest: bool,
}

/// The name of the AppCatalogEntry.
pub fn name(catalog: &str, entry: &Entry) -> String {
    format!("{catalog}-{}-{}", entry.name, entry.version)
}

/// The newest versions and the highest; those that no object can be made of are told of in `refused`.
pub fn choose<'a>(catalog: &str, versions: &'a [Entry], refused: &mut Vec<String>) -> Vec<Chosen<'a>> {
    let mut names = BTreeSet::new();
    let mut fitting = Vec::new();
    for entry in versions {
        match refusal(catalog, entry) {
            Some(why) => refused.push(why),
            // What stands twice is offered once, as it stands first.
            None if names.insert(&entry.version) => fitting.push(Read::of(entry)),
            None => {}
        }
    }
    // What does not say when it was made is older than what does.
    fitting.sort_by(|one, other| other.created.cmp(&one.created).then_with(|| one.by_version(other)));
    let highest = highest(&fitting);
    let chosen = |(at, read): (usize, &Read<'a>)| {
        let latest = highest == Some(at);
        (at < VERSIONS_MAX || latest).then_some(Chosen { entry: read.entry, latest })
    };
    fitting.iter().enumerate().filter_map(chosen).collect()
}

/// A version with what it is compared by, read once: indexes have tens of thousands.
struct Read<'a> {
    entry: &'a Entry,
    created: Option<Timestamp>,
    version: Option<Version>,
}

impl<'a> Read<'a> {
    fn of(entry: &'a Entry) -> Self {
        Self { entry, created: entry.created(), version: Version::parse(&entry.version).ok() }
    }

    /// The highest first; what is no version comes last.
    fn by_version(&self, other: &Self) -> Ordering {
        match (&self.version, &other.version) {
            (Some(own), Some(theirs)) => theirs.compare(own),
            (own, theirs) => own.is_none().cmp(&theirs.is_none()),
        }
    }
}

/// Where the highest version stands: without what makes it a pre-release, since that is often a hash; the newest of those that
/// are equally high. If none is a version, the newest.
fn highest(newest_first: &[Read<'_>]) -> Option<usize> {
    let mut best: Option<(usize, Version)> = None;
    for (at, read) in newest_first.iter().enumerate() {
        let Some(version) = &read.version else { continue };
        let version = Version { pre: String::new(), ..version.clone() };
        if best.as_ref().is_none_or(|(_, best)| version.compare(best) == Ordering::Greater) {
            best = Some((at, version));
        }
    }
    best.map(|(at, _)| at).or((!newest_first.is_empty()).then_some(0))
}

/// Why no object can be made of a version.
fn refusal(catalog: &str, entry: &Entry) -> Option<String> {
    if entry.weight() > ENTRY_BYTES_MAX {
        let start = |text: &str| text.chars().take(100).collect::<String>();
        let (name, version) = (start(&entry.name), start(&entry.version));
        return Some(format!("{name} {version} says more than {ENTRY_BYTES_MAX} bytes"));
    }
    let of = |what: &str, wrong: Vec<String>| {
        let why = wrong.into_iter().next()?;
        Some(format!("{} {}: {what} {why}", entry.name, entry.version))
    };
    if entry.name.is_empty() {
        return Some(format!("an app without a name in version {}", entry.version));
    }
    of("the name as a label", labels::value(&entry.name))
        .or_else(|| of("the version as a label", labels::value(&entry.version)))
        .or_else(|| of("the name of the AppCatalogEntry", labels::subdomain(&name(catalog, entry))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(version: &str, day: u32) -> Entry {
        let created = if day == 0 { String::new() } else { format!("2026-01-{day:02}T00:00:00Z") };
        Entry { name: "hello".into(), version: version.into(), created, ..Entry::default() }
    }

    fn chosen(versions: &[(&str, u32)]) -> (Vec<String>, String, Vec<String>) {
        let versions: Vec<Entry> = versions.iter().map(|(version, day)| entry(version, *day)).collect();
        let mut refused = Vec::new();
        let chosen = choose("stable", &versions, &mut refused);
        let latest = chosen.iter().filter(|one| one.latest).map(|one| one.entry.version.clone()).collect();
        (chosen.iter().map(|one| one.entry.version.clone()).collect(), latest, refused)
    }

    #[test]
    fn the_newest_five_are_offered_and_always_the_highest() {
        let (versions, latest, _) =
            chosen(&[("2.0.0", 1), ("1.0.0", 2), ("1.0.1", 3), ("1.0.2", 4), ("1.0.3", 5), ("1.0.4", 6), ("1.0.5", 7)]);
        assert_eq!(versions, ["1.0.5", "1.0.4", "1.0.3", "1.0.2", "1.0.1", "2.0.0"]);
        assert_eq!(latest, "2.0.0");
    }

    #[test]
    fn the_highest_is_known_without_its_pre_release_and_the_newest_of_equals() {
        assert_eq!(chosen(&[("1.0.0", 1), ("1.0.0-abc", 2)]).1, "1.0.0-abc");
        assert_eq!(chosen(&[("1.0.0", 2), ("1.0.0-abc", 1)]).1, "1.0.0");
        assert_eq!(chosen(&[("1.9.0", 2), ("v1.10.0", 1)]).1, "v1.10.0");
        assert_eq!(chosen(&[("none", 1), ("neither", 2)]).1, "neither");
        assert_eq!(chosen(&[("none", 2), ("0.0.0", 1)]).1, "0.0.0");
        assert_eq!(chosen(&[]).1, "");
    }

    #[test]
    fn without_a_date_a_version_is_older_and_the_higher_is_newer() {
        let (versions, ..) = chosen(&[("1.0.0", 0), ("1.2.0", 0), ("0.1.0", 1), ("0.1.0", 2)]);
        assert_eq!(versions, ["0.1.0", "1.2.0", "1.0.0"]);
    }

    #[test]
    fn versions_that_no_object_can_be_made_of_are_refused_plainly_and_the_others_offered() {
        let long = format!("1.0.0-{}", "a".repeat(58));
        let (versions, latest, refused) = chosen(&[("1.0.0", 1), ("9.0.0+b", 2), ("9.0.0-RC1", 3), (&long, 4)]);
        assert_eq!((versions, latest.as_str()), (vec!["1.0.0".to_owned()], "1.0.0"));
        assert!(refused[0].starts_with("hello 9.0.0+b: the version as a label a valid label"), "{refused:?}");
        assert!(refused[1].starts_with("hello 9.0.0-RC1: the name of the AppCatalogEntry a lowercase RFC 1123"));
        assert!(refused[2].ends_with("the version as a label must be no more than 63 bytes"));
        let fits = format!("1.0.0-{}", "a".repeat(57));
        assert_eq!(chosen(&[(&fits, 1)]).2.len(), 0);
        // An object's name has 253 bytes.
        let mut refused = Vec::new();
        let of = |length: usize| "c".repeat(length - "-hello-1.0.0".len());
        assert_eq!(choose(&of(253), &[entry("1.0.0", 1)], &mut refused).len(), 1);
        assert_eq!(choose(&of(254), &[entry("1.0.0", 1)], &mut refused).len(), 0);
        assert!(refused[0].ends_with("must be no more than 253 bytes"));
        let large = Entry { description: "d".repeat(ENTRY_BYTES_MAX), ..entry("1.0.0", 1) };
        assert_eq!(choose("stable", &[large], &mut refused).len(), 0);
        let nameless = Entry { name: String::new(), ..entry("1.0.0", 1) };
        assert_eq!(choose("stable", &[nameless], &mut refused).len(), 0);
    }
}
