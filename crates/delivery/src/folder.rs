//! A folder of charts on this machine as a repository of Helm: by the index that lies in it, as [`crate::mirror`] writes it, or else by one
//! that is made of the charts that lie there, archives (`.tgz`) and folders with a `Chart.yaml`.
//!
//! It is looked at whenever it is asked for, so charts are offered as soon as they are copied into it. What has not changed is not read
//! again. Links lead nowhere: what is offered is what lies there.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use bytes::Bytes;
use helm::chart::FILES_MAX;
use jiff::Timestamp;
use serde_json::Value as Json;
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;

use crate::{
    embedded::{CHARTS_MAX, DEEP_MAX, Error, Result, files, name_of},
    package::{CHART, Package, index},
    repository::{ARCHIVE_BYTES_MAX, INDEX_BYTES_MAX},
    served::INDEX,
};

/// Archives in a folder without an index.
pub const ARCHIVES_MAX: usize = 10_000;
/// Files and folders that are looked at beside the charts.
const NAMES_MAX: usize = 100_000;

pub struct Folder {
    path: PathBuf,
    /// By name in the folder. Whoever looks at the folder has it alone.
    known: Arc<Mutex<BTreeMap<String, Lying>>>,
}

/// A chart that lies in the folder.
struct Lying {
    /// Of its names, sizes and times: as long as it is the same, so is the chart.
    mark: [u8; 32],
    made: Timestamp,
    /// Its file in the index, and what that says of it; none if it is no chart, which has been told.
    chart: Option<(String, Json)>,
    is_folder: bool,
    /// Another one has its name and version.
    is_second: bool,
}

impl Lying {
    fn offered(&self) -> Option<&(String, Json)> {
        self.chart.as_ref().filter(|_| !self.is_second)
    }
}

impl Folder {
    /// # Errors
    /// That it is no folder.
    pub fn open(path: &Path) -> Result<Self> {
        let failed = |source| Error::File { path: path.to_owned(), source };
        if !std::fs::metadata(path).map_err(failed)?.is_dir() {
            return Err(failed(ErrorKind::NotADirectory.into()));
        }
        Ok(Self { path: path.to_owned(), known: Arc::default() })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it has an index of its own.
    pub fn has_index(&self) -> bool {
        is_file(&self.path.join(INDEX))
    }

    /// The text of an index of what lies there, and how many charts it names.
    ///
    /// # Errors
    /// That the folder cannot be read, or has more in it than is read.
    pub async fn index(&self) -> Result<(String, usize)> {
        self.look(|_, known| {
            let all: Vec<_> = known.values().filter_map(|one| Some((one.made, &one.offered()?.1))).collect();
            // The same charts are the same text, whenever they are asked for.
            let latest = all.iter().map(|(made, _)| *made).max().unwrap_or(Timestamp::UNIX_EPOCH);
            let text = index(all.iter().map(|(_, entry)| (*entry).clone()), &latest.to_string());
            let text = text.map_err(|what| Error::Chart { folder: INDEX.into(), what })?;
            if text.len() > INDEX_BYTES_MAX {
                let what = format!("has an index of {} bytes, and at most {INDEX_BYTES_MAX} are read", text.len());
                return Err(Error::Limit(what));
            }
            Ok((text, all.len()))
        })
        .await
    }

    /// The chart of a folder in it, packed, by its file in the index; none if there is no such.
    ///
    /// # Errors
    /// As of [`Folder::index`]; or that it is no chart any more.
    pub async fn packed(&self, file: &str) -> Result<Option<Bytes>> {
        let file = file.to_owned();
        self.look(move |path, known| {
            let is_it = |one: &Lying| one.is_folder && one.offered().is_some_and(|(own, _)| *own == file);
            let Some((name, _)) = known.iter().find(|(_, one)| is_it(one)) else { return Ok(None) };
            pack(&path.join(name)).map(|package| Some(package.archive))
        })
        .await
    }

    /// Finds what lies there now, and has it asked. It goes on when nobody waits for it any more, so that the next one finds it done.
    async fn look<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Path, &BTreeMap<String, Lying>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (path, mut known) = (self.path.clone(), self.known.clone().lock_owned().await);
        let work = tokio::task::spawn_blocking(move || {
            *known = found(&path, &mut known)?;
            ask(&path, &known)
        });
        work.await.unwrap_or_else(|ended| Err(Error::Limit(format!("looking at the folder ended: {ended}"))))
    }
}

fn is_file(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|about| about.is_file())
}

/// What lies in a folder, as far as it was not known before.
fn found(folder: &Path, before: &mut BTreeMap<String, Lying>) -> Result<BTreeMap<String, Lying>> {
    let failed = |source| Error::File { path: folder.to_owned(), source };
    let (mut names, mut charts, mut archives) = (BTreeSet::new(), 0, 0);
    let limit = |what: &str| Error::Limit(format!("{} has more than {what}", folder.display()));
    for (count, entry) in std::fs::read_dir(folder).map_err(failed)?.enumerate() {
        if count == NAMES_MAX {
            return Err(limit(&format!("{NAMES_MAX} files and folders")));
        }
        let path = entry.map_err(failed)?.path();
        let name = name_of(&path);
        let is_archive = name.ends_with(".tgz") && is_file(&path);
        let is_chart = !is_archive && is_folder(&path) && is_file(&path.join(CHART));
        if name.starts_with('.') || !(is_archive || is_chart) {
            continue;
        }
        let (counted, max) = if is_chart { (&mut charts, CHARTS_MAX) } else { (&mut archives, ARCHIVES_MAX) };
        *counted += 1;
        if *counted > max {
            let what = if is_chart { "folders of charts: pack some of them" } else { "archives: split them" };
            return Err(limit(&format!("{max} {what}")));
        }
        // Archives are offered before folders: they are what was packed on purpose.
        names.insert((is_chart, name));
    }
    let (mut all, mut taken) = (BTreeMap::new(), BTreeSet::new());
    for (is_chart, name) in names {
        let path = folder.join(&name);
        let known = before.remove(&name).filter(|known| known.is_folder == is_chart);
        let mut one = look_at(&path, &name, is_chart, known);
        let is_second = one.chart.as_ref().is_some_and(|(_, entry)| {
            let version = ["name", "version"].map(|field| entry[field].as_str().unwrap_or_default().to_owned());
            !taken.insert(version)
        });
        if is_second && !one.is_second {
            let path = path.display();
            tracing::warn!(%path, "this chart is not offered: another one there has its name and version");
        }
        one.is_second = is_second;
        all.insert(name, one);
    }
    Ok(all)
}

/// One that cannot be offered keeps no other from being; it is told once, until it changes.
fn look_at(path: &Path, name: &str, is_folder: bool, known: Option<Lying>) -> Lying {
    let (mark, made, unfit) = match mark(path) {
        Ok((mark, made)) => (mark, made, None),
        Err(error) => (Sha256::digest(error.to_string()).into(), Timestamp::UNIX_EPOCH, Some(error)),
    };
    if let Some(known) = known.filter(|known| known.mark == mark) {
        return known;
    }
    let read = match unfit {
        Some(source) => Err(Error::File { path: path.to_owned(), source }),
        None => read(path, name, is_folder, made),
    };
    let chart = read.inspect_err(|error| {
        let source = std::error::Error::source(error).map(ToString::to_string);
        tracing::warn!(path = %path.display(), %error, source, "this chart is not offered");
    });
    Lying { mark, made, chart: chart.ok(), is_folder, is_second: false }
}

fn is_folder(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|about| about.is_dir())
}

/// Its file in the index, and what that says of it.
fn read(path: &Path, name: &str, is_folder: bool, made: Timestamp) -> Result<(String, Json)> {
    let (file, package) = match is_folder {
        true => pack(path).map(|package| (package.file(), package))?,
        false => (name.to_owned(), archive(path, name)?),
    };
    let entry = package.entry(&made.to_string(), &file);
    Ok((file, entry))
}

fn pack(path: &Path) -> Result<Package> {
    let wrong = |what: String| Error::Chart { folder: path.display().to_string(), what };
    Package::pack(&files(path)?).map_err(wrong)
}

fn archive(path: &Path, name: &str) -> Result<Package> {
    let wrong = |what: String| Error::Chart { folder: name.to_owned(), what };
    // An address is made of it.
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte)) {
        return Err(wrong("names of archives consist of letters, digits, '-', '_', '.' and '+'".into()));
    }
    let failed = |source| Error::File { path: path.to_owned(), source };
    let size = std::fs::metadata(path).map_err(failed)?.len();
    if size > ARCHIVE_BYTES_MAX as u64 {
        return Err(wrong(format!("it has {size} bytes, and at most {ARCHIVE_BYTES_MAX} are taken")));
    }
    Package::read(std::fs::read(path).map_err(failed)?.into()).map_err(wrong)
}

/// What tells that a chart is still the same, and when it was made: of a folder, when the newest of it was.
fn mark(path: &Path) -> std::io::Result<([u8; 32], Timestamp)> {
    let (mut sum, mut made, mut files) = (Sha256::new(), SystemTime::UNIX_EPOCH, 0);
    walk(path, 0, &mut |path, about| {
        files += 1;
        if files > FILES_MAX {
            return Err(std::io::Error::other(format!("it has more than {FILES_MAX} files")));
        }
        let changed = about.modified()?;
        made = made.max(changed);
        let since = changed.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
        sum.update(format!("{} {} {since}\n", path.display(), about.len()));
        Ok(())
    })?;
    // To the second, as indexes have times.
    let made = Timestamp::try_from(made).ok().and_then(|made| Timestamp::from_second(made.as_second()).ok());
    Ok((sum.finalize().into(), made.unwrap_or(Timestamp::UNIX_EPOCH)))
}

fn walk(
    path: &Path,
    depth: usize,
    see: &mut impl FnMut(&Path, &std::fs::Metadata) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let about = std::fs::symlink_metadata(path)?;
    if !about.is_dir() {
        return see(path, &about);
    }
    if depth > DEEP_MAX {
        return Err(std::io::Error::other(format!("{} lies more than {DEEP_MAX} folders deep", path.display())));
    }
    let entries = std::fs::read_dir(path)?.take(FILES_MAX + 1);
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    paths.sort();
    paths.iter().try_for_each(|path| walk(path, depth + 1, see))
}

#[cfg(test)]
mod tests;
