//! `skep store`: checks, backups, and moves from one place to another.

use std::{collections::BTreeMap, fmt::Write as _, path::PathBuf, time::Instant};

use anyhow::{Context, Result, anyhow, bail};
use apiserver::check_stored;
use store::{
    At, Etcd, Revision, Snapshot, Store,
    engine::{self, Examined},
    snapshot::{Difference, UNFINISHED},
};

use crate::{
    place::{EtcdArguments, FILE, Place},
    state,
};

/// How far above those of a backup resource versions go on after a restore: more than were made since it was taken.
const REVISION_GAP: u64 = 1_000_000_000;
/// Lines of one kind that are printed.
const LINES_MAX: usize = 50;

#[derive(clap::Subcommand)]
pub enum Command {
    /// Read everything in a store or a backup and say what is wrong; changes nothing
    Check(Check),
    /// Write the state of a store into one file; servers may run meanwhile
    Backup(Backup),
    /// Make a store out of a backup; no server may run
    Restore(Restore),
    /// Move a store from a file to etcd, or back; no server may run
    Migrate(Migrate),
}

#[derive(clap::Args)]
pub struct Check {
    /// A file, or etcd://HOST:PORT[,HOST:PORT...][/PREFIX]
    #[arg(default_value_t = default_place())]
    place: Place,
    #[command(flatten)]
    etcd: EtcdArguments,
}

#[derive(clap::Args)]
pub struct Backup {
    /// The file that is made
    backup: PathBuf,
    /// The store: a file, or etcd://HOST:PORT[,HOST:PORT...][/PREFIX]
    #[arg(long, value_name = "STORE", default_value_t = default_place())]
    from: Place,
    /// Take the state at this revision, which etcd must still have (with etcd only)
    #[arg(long)]
    revision: Option<u64>,
    #[command(flatten)]
    etcd: EtcdArguments,
}

#[derive(clap::Args)]
pub struct Restore {
    backup: PathBuf,
    /// The store that is made: a file, or etcd://HOST:PORT[,HOST:PORT...][/PREFIX]
    #[arg(long, value_name = "STORE", default_value_t = default_place())]
    to: Place,
    /// Put away what is there: a file is renamed, in etcd everything under the prefix is removed
    #[arg(long)]
    replace: bool,
    /// How far above those of the backup resource versions go on
    #[arg(long, default_value_t = REVISION_GAP)]
    revision_gap: u64,
    #[command(flatten)]
    etcd: EtcdArguments,
}

#[derive(clap::Args)]
pub struct Migrate {
    /// The store that is: a file, or etcd://HOST:PORT[,HOST:PORT...][/PREFIX]
    #[arg(long, value_name = "STORE")]
    from: Place,
    /// The store that is to be
    #[arg(long, value_name = "STORE")]
    to: Place,
    /// Put away what is there: a file is renamed, in etcd everything under the prefix is removed
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    etcd: EtcdArguments,
}

fn default_place() -> Place {
    Place::File(state::default_folder().join(FILE))
}

pub async fn run(command: Command) -> Result<u8> {
    match command {
        Command::Check(arguments) => check(arguments).await,
        Command::Backup(arguments) => backup(arguments).await.map(|()| 0),
        Command::Restore(arguments) => restore(arguments).await.map(|()| 0),
        Command::Migrate(arguments) => migrate(arguments).await.map(|()| 0),
    }
}

#[expect(clippy::print_stdout, reason = "what was found is the command's output")]
fn say(line: &str) {
    println!("{line}");
}

/// Objects of each kind, as `configmaps: 3, secrets: 1`.
fn counts(snapshot: &Snapshot) -> String {
    let mut by_kind: BTreeMap<String, usize> = BTreeMap::new();
    for item in &snapshot.items {
        let key = String::from_utf8_lossy(&item.key);
        let mut parts = key.strip_prefix("/registry/").unwrap_or_default().split('/');
        let kind = match (parts.next(), parts.next()) {
            (Some("core"), Some(plural)) => plural.to_owned(),
            (Some(group), Some(plural)) => format!("{plural}.{group}"),
            _ => "records of the installation".to_owned(),
        };
        *by_kind.entry(kind).or_default() += 1;
    }
    let mut text = String::new();
    for (kind, count) in by_kind {
        let _ = write!(text, "{}{kind}: {count}", if text.is_empty() { "" } else { ", " });
    }
    text
}

fn summary(snapshot: &Snapshot) -> String {
    let bytes: usize = snapshot.items.iter().map(|item| item.key.len() + item.value.len()).sum();
    format!("{} objects, {} KiB, at revision {}", snapshot.items.len(), bytes / 1024, snapshot.revision)
}

async fn check(arguments: Check) -> Result<u8> {
    let mut found = match &arguments.place {
        Place::File(path) if !path.exists() => bail!("there is no {}", path.display()),
        Place::File(path) => engine::examine(path),
        Place::Etcd(address) => {
            let mut options = arguments.etcd.options(address)?;
            if !Etcd::exists(&options).await? {
                bail!("there is no store at {}", arguments.place);
            }
            options.compact_interval = None;
            examine_etcd(&Etcd::open(options).await?).await?
        }
    };
    if let Some(snapshot) = &found.snapshot {
        say(&format!("{}: {}", arguments.place, summary(snapshot)));
        say(&format!("  {}", counts(snapshot)));
        for item in &snapshot.items {
            if let Err(why) = check_stored(&item.key, &item.value) {
                found.problems.push(format!("{}: {why}", item.key.escape_ascii()));
            }
            if item.key == UNFINISHED {
                found.problems.push("a restore or a move into it did not come to its end".to_owned());
            }
        }
        if let Some(taken_at) = &found.taken_at {
            say(&format!("  a backup, taken at {taken_at}, SHA-256 {}", snapshot.sha256()));
        }
    }
    for note in &found.notes {
        say(&format!("  note: {note}"));
    }
    for problem in found.problems.iter().take(LINES_MAX) {
        say(&format!("  WRONG: {problem}"));
    }
    if found.problems.is_empty() {
        say("  nothing is wrong");
        return Ok(0);
    }
    say(&format!("  {} things are wrong", found.problems.len()));
    Ok(1)
}

async fn examine_etcd(store: &Etcd) -> Result<Examined> {
    let snapshot = Snapshot::take(store, At::Latest).await?;
    let mut found = Examined { problems: snapshot.problems(), ..Examined::default() };
    let (members, alarms) = store.members().await;
    for (endpoint, member) in members {
        match member {
            Ok(member) => {
                let role = if member.leads { ", leads" } else { "" };
                let size = member.size_bytes >> 20;
                found.notes.push(format!("member {endpoint}: etcd {}, {size} MiB{role}", member.version));
                found.problems.extend(member.errors.iter().map(|error| format!("member {endpoint}: {error}")));
                if !member.has_leader {
                    found.problems.push(format!("member {endpoint} has no leader"));
                }
            }
            Err(error) => found.problems.push(format!("member {endpoint}: {error}")),
        }
    }
    found.problems.extend(alarms?);
    found.snapshot = Some(snapshot);
    Ok(found)
}

/// The state of a place that may be in use.
async fn take(place: &Place, etcd: &EtcdArguments, revision: Option<u64>) -> Result<Snapshot> {
    match place {
        Place::File(_) if revision.is_some() => bail!("a file has its last revision only: --revision is for etcd"),
        Place::File(path) => engine::read_file(path).map_err(|error| anyhow!("read {}: {error}", path.display())),
        Place::Etcd(address) => {
            let mut options = etcd.options(address)?;
            if !Etcd::exists(&options).await? {
                bail!("there is no store at {place}");
            }
            options.compact_interval = None;
            let store = Etcd::open(options).await?;
            let at = revision.map_or(At::Latest, |revision| At::Exact(Revision(revision)));
            Ok(Snapshot::take(&store, at).await?)
        }
    }
}

async fn backup(arguments: Backup) -> Result<()> {
    let began = Instant::now();
    let snapshot = take(&arguments.from, &arguments.etcd, arguments.revision).await?;
    refuse_unfinished(&snapshot)?;
    let path = &arguments.backup;
    let now = jiff::Timestamp::now().to_string();
    engine::write_file(path, &snapshot, snapshot.revision, Some(&now))
        .map_err(|error| anyhow!("write {}: {error}", path.display()))?;
    let read = engine::read_file(path).map_err(|error| anyhow!("read {} back: {error}", path.display()))?;
    if read != snapshot {
        bail!("{} does not hold what was written", path.display());
    }
    say(&format!("{}: {}, in {:.1} s", path.display(), summary(&snapshot), began.elapsed().as_secs_f64()));
    say(&format!("  SHA-256 {}", snapshot.sha256()));
    Ok(())
}

fn refuse_unfinished(snapshot: &Snapshot) -> Result<()> {
    if snapshot.items.iter().any(|item| item.key == UNFINISHED) {
        bail!("the store is not whole: a restore or a move into it did not come to its end");
    }
    Ok(())
}

async fn restore(arguments: Restore) -> Result<()> {
    let path = &arguments.backup;
    let snapshot = engine::read_file(path).map_err(|error| anyhow!("read {}: {error}", path.display()))?;
    let above = Revision(snapshot.revision.0.saturating_add(arguments.revision_gap));
    put(&snapshot, &arguments.to, &arguments.etcd, above, arguments.replace).await?;
    say(&format!("{}: {}", arguments.to, summary(&snapshot)));
    say(&format!("  every object was read back and is the same; resource versions go on above {above}"));
    Ok(())
}

async fn migrate(arguments: Migrate) -> Result<()> {
    let _lock = match &arguments.from {
        Place::File(path) => {
            Some(engine::lock(path).map_err(|error| anyhow!("{}: {error}: stop the server first", path.display()))?)
        }
        Place::Etcd(_) => None,
    };
    let snapshot = take(&arguments.from, &arguments.etcd, None).await?;
    refuse_unfinished(&snapshot)?;
    put(&snapshot, &arguments.to, &arguments.etcd, snapshot.revision, arguments.replace).await?;
    let after = take(&arguments.from, &arguments.etcd, None).await?;
    if !snapshot.difference(&after).is_none() {
        bail!("{} was written to meanwhile: stop its servers, and move it again with --replace", arguments.from);
    }
    say(&format!("{}: {}", arguments.to, summary(&snapshot)));
    say(&match arguments.to {
        Place::File(_) => {
            "  every object was read back and is the same; resource versions are those that they had".to_owned()
        }
        Place::Etcd(_) => format!(
            "  every object was read back and is the same; resource versions are new, and above {}: clients list again",
            snapshot.revision
        ),
    });
    Ok(())
}

/// Makes a store that holds the snapshot, and reads it back.
async fn put(snapshot: &Snapshot, to: &Place, etcd: &EtcdArguments, above: Revision, replace: bool) -> Result<()> {
    match to {
        Place::File(path) => {
            let fail = |error: engine::Error| anyhow!("{}: {error}", path.display());
            let _lock = engine::lock(path).map_err(|error| fail(error).context("stop the server first"))?;
            if path.exists() {
                if !replace {
                    bail!("{} is there already: put it away with --replace", path.display());
                }
                put_away(path)?;
            }
            engine::write_file(path, snapshot, above, None).map_err(fail)?;
            let read = engine::read_file(path).map_err(fail)?;
            if read.items != snapshot.items {
                bail!("{} does not hold what was written", path.display());
            }
            Ok(())
        }
        Place::Etcd(address) => {
            let mut options = etcd.options(address)?;
            options.above = above;
            options.compact_interval = None;
            if Etcd::exists(&options).await? {
                if !replace {
                    bail!("there is a store at {to} already: remove it with --replace");
                }
                Etcd::erase(&options).await?;
            }
            let store = Etcd::open(options).await?;
            let difference = snapshot.write_into(&store as &dyn Store).await?;
            if difference.is_none() { Ok(()) } else { Err(different(&difference)) }
        }
    }
}

fn different(difference: &Difference) -> anyhow::Error {
    let Difference { missing, added, changed } = difference;
    let first = missing.iter().chain(changed).chain(added).next().map(|key| key.escape_ascii().to_string());
    anyhow!(
        "what was read back is not what was written: {} objects are missing, {} are others, {} are too many (the first: {})",
        missing.len(),
        changed.len(),
        added.len(),
        first.unwrap_or_default()
    )
}

/// Renames a store's file, and what lies beside it.
fn put_away(path: &std::path::Path) -> Result<()> {
    let stamp = jiff::Timestamp::now().as_second();
    // The log goes with its file: the state is in both.
    for suffix in ["", "-wal", "-shm"] {
        let from = PathBuf::from(format!("{}{suffix}", path.display()));
        if from.exists() {
            let to = PathBuf::from(format!("{}.before-{stamp}{suffix}", path.display()));
            std::fs::rename(&from, &to).with_context(|| format!("rename {}", from.display()))?;
            if suffix.is_empty() {
                say(&format!("{} is now {}", from.display(), to.display()));
            }
        }
    }
    Ok(())
}
