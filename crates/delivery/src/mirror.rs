//! Charts of a catalog copied to a place of one's own: a folder, which any HTTP server makes a repository of, or a registry.
//!
//! What is copied is what the index promises, by digest; what is there already is not fetched again. A copy that is cut off is gone
//! on with by the same call: archives get their names when they are whole, and the index comes last.

use std::{
    collections::BTreeMap,
    io::Write,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use helm::{
    data,
    version::{Constraints, Version},
};
use jiff::Timestamp;
use serde_json::{Map, Value as Json};

use crate::{
    package::{Package, index},
    repository::{
        self, ARCHIVE_BYTES_MAX, Access, Entry, INDEX_BYTES_MAX, Repositories, digest, grant, joined, push::Artefact,
    },
    served::INDEX,
};

/// Versions that one call copies.
pub const VERSIONS_MAX: usize = 10_000;

/// What is to be copied of a chart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub name: String,
    /// As Helm reads them (`>=1.2 <2`); empty: any that is no pre-release.
    pub versions: String,
    /// Of those that fit, the highest.
    pub count: usize,
}

/// Where to.
pub enum Target<'a> {
    Folder(&'a Path),
    /// `oci://`, and how it is reached.
    Registry {
        access: &'a Access,
        url: &'a str,
    },
}

/// A version that is at the target now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    pub name: String,
    pub version: String,
    /// Of the archive: `sha256:` and hexadecimal digits.
    pub digest: String,
    /// It was not there before.
    pub fresh: bool,
    /// Signatures of it that came with it, or were there.
    pub signatures: usize,
}

/// What came of it. What could not be copied keeps nothing else from being.
#[derive(Debug, Default)]
pub struct Report {
    pub copied: Vec<Copied>,
    pub failed: Vec<Error>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Repository(#[from] repository::Error),
    #[error("{chart}: {what}")]
    Chart { chart: String, what: String },
    #[error("cannot write {}", .path.display())]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

type Result<T, E = Error> = std::result::Result<T, E>;

/// One version at the source.
struct Source {
    name: String,
    version: String,
    url: String,
    /// Empty if the index does not say.
    digest: String,
    created: String,
}

/// Copies what is wanted of the catalog at `url`. `now` is what an index is said to be of.
///
/// # Errors
/// That the source cannot be read at all, or the target's index not be written. What is wrong with single versions is in the report.
pub async fn mirror(
    repositories: &Repositories,
    (access, url): (&Access, &str),
    wanted: &[Wanted],
    target: &Target<'_>,
    now: Timestamp,
) -> Result<Report> {
    let mut report = Report::default();
    let _alone = match target {
        Target::Folder(folder) => Some(alone(folder)?),
        Target::Registry { .. } => None,
    };
    let sources = sources(repositories, (access, url), wanted, &mut report.failed).await?;
    let mut entries = Vec::new();
    for source in &sources {
        let done = match target {
            Target::Registry { access: own, url } => pass(repositories, access, source, (own, url)).await,
            Target::Folder(folder) => shelve(repositories, access, source, folder).await.map(|(package, fresh)| {
                let created = if source.created.is_empty() { now.to_string() } else { source.created.clone() };
                entries.push(package.entry(&created, &package.file()));
                Copied::of(&package, fresh)
            }),
        };
        match done {
            Ok(copied) => report.copied.push(copied),
            Err(error) => report.failed.push(error),
        }
    }
    if let Target::Folder(folder) = target {
        list(folder, entries, now)?;
    }
    Ok(report)
}

impl Copied {
    fn of(package: &Package, fresh: bool) -> Self {
        let Package { name, version, digest, .. } = package.clone();
        Self { name, version, digest, fresh, signatures: 0 }
    }
}

/// Keeps others from writing to the folder meanwhile, also those that end without a word.
fn alone(folder: &Path) -> Result<std::fs::File> {
    let failed = |source| Error::File { path: folder.to_owned(), source };
    std::fs::create_dir_all(folder).map_err(failed)?;
    let held = std::fs::File::open(folder).map_err(failed)?;
    match held.try_lock() {
        Ok(()) => Ok(held),
        Err(std::fs::TryLockError::Error(source)) => Err(failed(source)),
        Err(std::fs::TryLockError::WouldBlock) => {
            let what = "charts are being copied here already: try again when that has ended".to_owned();
            Err(Error::Chart { chart: folder.display().to_string(), what })
        }
    }
}

/// The versions that are wanted, by what the source has.
async fn sources(
    repositories: &Repositories,
    (access, url): (&Access, &str),
    wanted: &[Wanted],
    failed: &mut Vec<Error>,
) -> Result<Vec<Source>> {
    let index = match grant::is_registry(url) {
        true => None,
        false => Some(repositories.index(access, url).await?),
    };
    let mut found = Vec::new();
    for want in wanted {
        let chart =
            if want.versions.is_empty() { want.name.clone() } else { format!("{} {}", want.name, want.versions) };
        let wrong = |what: &str| Error::Chart { chart: chart.clone(), what: what.to_owned() };
        let versions = match &index {
            None => repositories.versions(access, url, &want.name).await.map_err(Error::from).map(|all| {
                let at = |version: String| Source {
                    url: format!("{}/{}:{version}", url.trim_end_matches('/'), want.name),
                    name: want.name.clone(),
                    version,
                    digest: String::new(),
                    created: String::new(),
                };
                all.into_iter().map(at).collect()
            }),
            Some(index) => match index.entries.get(&want.name) {
                None => Err(wrong(&format!("{url} has no such chart"))),
                Some(all) => Ok(all.iter().filter_map(|entry| Source::of(entry, url)).collect()),
            },
        };
        match versions.and_then(|all: Vec<Source>| fitting(want, all).map_err(|what| wrong(&what))) {
            Ok(fits) if fits.is_empty() => failed.push(wrong("no version of it fits")),
            Ok(fits) => found.extend(fits),
            Err(error) => failed.push(error),
        }
    }
    if found.len() > VERSIONS_MAX {
        let what = format!("{} versions are wanted, and at most {VERSIONS_MAX} are copied by one call", found.len());
        return Err(Error::Chart { chart: url.to_owned(), what });
    }
    Ok(found)
}

impl Source {
    fn of(entry: &Entry, repository: &str) -> Option<Self> {
        Some(Self {
            url: joined(repository, entry.urls.first()?),
            name: entry.name.clone(),
            version: entry.version.clone(),
            digest: entry.digest.clone(),
            created: entry.created.clone(),
        })
    }

    fn wrong(&self, what: impl Into<String>) -> Error {
        Error::Chart { chart: format!("{} {}", self.name, self.version), what: what.into() }
    }

    async fn fetch(&self, repositories: &Repositories, access: &Access) -> Result<Package> {
        let fetched = repositories.archive(access, &self.url, Some(&self.digest)).await?;
        let package = Package::read(fetched.archive.clone()).map_err(|what| self.wrong(what))?;
        self.check(package)
    }

    /// A chart is what it is listed as.
    fn check(&self, package: Package) -> Result<Package> {
        let bare = |version: &str| version.strip_prefix('v').unwrap_or(version).to_owned();
        if package.name == self.name && bare(&package.version) == bare(&self.version) {
            return Ok(package);
        }
        Err(self.wrong(format!("the archive at {} is of {} {}", self.url, package.name, package.version)))
    }
}

/// The highest versions that fit.
fn fitting(want: &Wanted, all: Vec<Source>) -> Result<Vec<Source>, String> {
    let text = if want.versions.is_empty() { ">=0.0.0" } else { want.versions.as_str() };
    let range = Constraints::parse(text)?;
    let read = |source: Source| Some((Version::parse(&source.version).ok()?, source));
    // What is asked for by its very name is meant, a pre-release or not.
    let is_named = |source: &Source| source.version == want.versions;
    let mut fits: Vec<(Version, Source)> = all
        .into_iter()
        .filter_map(read)
        .filter(|(version, source)| is_named(source) || range.accepts(version))
        .collect();
    fits.sort_by(|(one, _), (other, _)| other.compare(one));
    fits.dedup_by(|(_, one), (_, other)| one.version == other.version);
    Ok(fits.into_iter().map(|(_, source)| source).take(want.count).collect())
}

/// Copies a version into a folder; whether it was not there.
async fn shelve(
    repositories: &Repositories,
    access: &Access,
    source: &Source,
    folder: &Path,
) -> Result<(Package, bool)> {
    // Names of files come of archives, which `Package` has judged, or are not looked for.
    let is_plain = |text: &str| !text.is_empty() && !text.contains(['/', '\\']) && !text.starts_with('.');
    if !source.digest.is_empty() && is_plain(&source.name) && is_plain(&source.version) {
        let path = folder.join(format!("{}-{}.tgz", source.name, source.version));
        if let Some(package) = held(&path, &source.digest) {
            return Ok((source.check(package)?, false));
        }
    }
    let package = source.fetch(repositories, access).await?;
    let path = folder.join(package.file());
    if held(&path, &package.digest).is_some() {
        return Ok((package, false));
    }
    replace(&path, &package.archive)?;
    Ok((package, true))
}

/// The chart in a file, if it is the one of this digest.
fn held(path: &Path, expected: &str) -> Option<Package> {
    if std::fs::metadata(path).ok()?.len() > ARCHIVE_BYTES_MAX as u64 {
        return None;
    }
    let bytes = Bytes::from(std::fs::read(path).ok()?);
    if !digest::matches(&bytes, expected) {
        return None;
    }
    Package::read(bytes).ok()
}

/// Copies a version into a registry.
async fn pass(
    repositories: &Repositories,
    access: &Access,
    source: &Source,
    (own, url): (&Access, &str),
) -> Result<Copied> {
    if grant::is_registry(&source.url) {
        return hand_over(repositories, access, source, (own, url)).await;
    }
    if let Some(digits) = digest::parse(&source.digest) {
        let digest = format!("sha256:{digits}");
        if repositories.holds(own, url, (&source.name, &source.version)).await? == Some(digest.clone()) {
            let (name, version) = (source.name.clone(), source.version.clone());
            return Ok(Copied { name, version, digest, fresh: false, signatures: 0 });
        }
    }
    let package = source.fetch(repositories, access).await?;
    let chart = Artefact {
        name: &package.name,
        version: &package.version,
        metadata: Json::Object(package.metadata.clone()),
        archive: package.archive.clone(),
        created: &source.created,
    };
    let fresh = repositories.push(own, url, &chart).await?;
    Ok(Copied::of(&package, fresh))
}

/// Copies a version from a registry to another, as it is: signatures are of all of it.
async fn hand_over(
    repositories: &Repositories,
    access: &Access,
    source: &Source,
    (own, url): (&Access, &str),
) -> Result<Copied> {
    let target = format!("{}/{}:{}", url.trim_end_matches('/'), source.name, source.version);
    let Some([manifest, archive]) = repositories.digests(access, &source.url).await? else {
        return Err(source.wrong(format!("there is no chart at {}", source.url)));
    };
    let before = repositories.digests(own, &target).await?;
    let fresh = before.is_none();
    // What is there was looked at when it came there.
    if before.is_none_or(|[there, _]| there != manifest) && source.fetch(repositories, access).await?.digest != archive
    {
        return Err(source.wrong(format!("{} came to name another archive meanwhile: copy it again", source.url)));
    }
    let signatures = repositories.hand_over((access, &source.url), (own, &target)).await?;
    Ok(Copied { name: source.name.clone(), version: source.version.clone(), digest: archive, fresh, signatures })
}

/// Writes the folder's index: what it had, as long as the archive is there, and what was copied over it. It is left as it is if
/// nothing of it changes.
fn list(folder: &Path, entries: Vec<Json>, now: Timestamp) -> Result<()> {
    let path = folder.join(INDEX);
    let before = known(&path)?;
    let key = |entry: &Json| ["name", "version"].map(|field| entry[field].as_str().unwrap_or_default().to_owned());
    let is_there = |entry: &Json| {
        let file = entry["urls"][0].as_str().unwrap_or_default();
        !file.contains(['/', '\\']) && folder.join(file).is_file()
    };
    let mut all: BTreeMap<[String; 2], Json> =
        before.iter().filter(|entry| is_there(entry)).map(|entry| (key(entry), entry.clone())).collect();
    let old = all.clone();
    for mut entry in entries {
        // When an index does not say when a chart was made, it was made when it was copied first.
        if let Some(known) = old.get(&key(&entry)).filter(|known| known["digest"] == entry["digest"]) {
            entry["created"] = known["created"].clone();
        }
        all.insert(key(&entry), entry);
    }
    if all == old && old.len() == before.len() && path.is_file() {
        return Ok(());
    }
    let wrong = |what: String| Error::Chart { chart: path.display().to_string(), what };
    let text = index(all.into_values(), &now.to_string()).map_err(wrong)?;
    replace(&path, text.as_bytes())
}

/// The entries of an index that was written here.
fn known(path: &Path) -> Result<Vec<Json>> {
    let failed = |source| Error::File { path: path.to_owned(), source };
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let wrong = |what: String| Error::Chart { chart: path.display().to_string(), what };
    if text.len() > INDEX_BYTES_MAX {
        return Err(wrong(format!("it has {} bytes, and at most {INDEX_BYTES_MAX} are read", text.len())));
    }
    let read = data::yaml::read_map(&text).map_err(|error| wrong(format!("it is no index: {error}")))?;
    let read: Map<String, Json> = data::json_map(&read);
    let entries = read.get("entries").and_then(Json::as_object).ok_or_else(|| wrong("it is no index".to_owned()))?;
    Ok(entries.values().filter_map(Json::as_array).flatten().cloned().collect())
}

/// Puts a file there whole: beside it first, safe on the disk, and then in its place.
fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let beside = path.with_added_extension("part");
    let failed = |source| Error::File { path: path.to_owned(), source };
    let write = || {
        let mut file = std::fs::File::create(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&beside, path)?;
        match path.parent() {
            Some(folder) => std::fs::File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    };
    write().map_err(failed)
}

#[cfg(test)]
mod tests;
