//! Store files as a whole: looked at while a server has them open, written in one go, sealed as backups.

use std::{fs, path::Path};

use rusqlite::{Connection, OpenFlags, config::DbConfig, params};

use super::{
    Error,
    sqlite::{APPLICATION_ID, LAYOUT, TABLES, Unusable, read_items, to_integer},
    wal,
};
use crate::{Revision, Snapshot};

/// Lines that SQLite's integrity check says at most.
const PROBLEMS_MAX: u32 = 20;
/// A backup's seal: what it was when it was written.
const SEAL: &str = "create table seal (items integer not null, sha256 text not null, taken_at text not null);";

/// What a look at a file found.
#[derive(Debug, Default)]
pub struct Examined {
    /// None if it cannot be read as a store at all.
    pub snapshot: Option<Snapshot>,
    /// Of a backup: when it was taken.
    pub taken_at: Option<String>,
    /// What is wrong.
    pub problems: Vec<String>,
    /// What is worth saying, though not wrong.
    pub notes: Vec<String>,
}

/// Opens a file to read, which changes nothing of it, not even its log.
fn open(path: &Path) -> Result<Connection, Error> {
    // The shared index of the log is made if it is not there, so "read only" would be refused.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.pragma_update(None, "query_only", true)?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    let id: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let layout: i32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if id != APPLICATION_ID {
        return Err(Unusable::Foreign(id).into());
    }
    if layout != LAYOUT {
        return Err(Unusable::Layout { found: layout }.into());
    }
    Ok(connection)
}

fn snapshot(connection: &Connection) -> Result<Snapshot, Error> {
    let revision: i64 = connection.query_row("select revision from clock", [], |row| row.get(0))?;
    Ok(Snapshot { revision: Revision(revision.unsigned_abs()), items: read_items(connection)? })
}

fn seal(connection: &Connection) -> Result<Option<(i64, String, String)>, Error> {
    if !connection.table_exists(None, "seal")? {
        return Ok(None);
    }
    let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
    Ok(Some(connection.query_row("select items, sha256, taken_at from seal", [], row)?))
}

/// What is wrong with the seal, if anything.
fn broken_seal(seal: &(i64, String, String), snapshot: &Snapshot) -> Option<String> {
    let (items, sha256, _) = seal;
    let now = snapshot.sha256();
    (*sha256 != now).then(|| {
        format!(
            "the seal does not hold: {items} items with SHA-256 {sha256} were written, there are {} with {now}",
            snapshot.items.len()
        )
    })
}

/// The state in a file, or in a backup whose seal holds; a server may have the file open.
pub fn read_file(path: &Path) -> Result<Snapshot, Error> {
    let connection = open(path)?;
    // One transaction: everything is of one revision.
    connection.execute_batch("begin")?;
    let snapshot = snapshot(&connection)?;
    if let Some(seal) = seal(&connection)?
        && let Some(why) = broken_seal(&seal, &snapshot)
    {
        return Err(Unusable::Damaged(why).into());
    }
    Ok(snapshot)
}

/// Looks at everything in a file.
pub fn examine(path: &Path) -> Examined {
    let mut found = Examined::default();
    if let Err(error) = look(path, &mut found) {
        found.problems.push(format!("it cannot be read: {error}"));
    }
    if let Some(snapshot) = &found.snapshot {
        found.problems.extend(snapshot.problems());
    }
    found
}

fn look(path: &Path, found: &mut Examined) -> Result<(), Error> {
    if let Some(log) = wal::read(&wal::path(path))? {
        let (frames, commits, at) = (log.dropped_frames, log.dropped_commits, log.good_bytes);
        if commits > 1 {
            found
                .problems
                .push(format!("the log is damaged behind byte {at}: {commits} commits that were made cannot be read"));
        } else if frames > 0 {
            found
                .notes
                .push(format!("the log ends in a commit that is not whole ({frames} pages); nobody was told of it"));
        }
    }
    let connection = open(path)?;
    connection.execute_batch("begin")?;
    let mut statement = connection.prepare(&format!("pragma integrity_check({PROBLEMS_MAX})"))?;
    for line in statement.query_map([], |row| row.get::<_, String>(0))? {
        let line = line?;
        if line != "ok" {
            found.problems.push(format!("SQLite's integrity check: {line}"));
        }
    }
    let state = snapshot(&connection)?;
    if let Some(seal) = seal(&connection)? {
        found.problems.extend(broken_seal(&seal, &state));
        found.taken_at = Some(seal.2);
    }
    found.snapshot = Some(state);
    Ok(())
}

/// Writes a state into a new file, whole or not at all; as a backup if it is said when it was taken. The revision of the
/// file is `revision`; those of the items stay.
pub fn write_file(path: &Path, snapshot: &Snapshot, revision: Revision, taken_at: Option<&str>) -> Result<(), Error> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let fresh = Path::new(&name);
    // Left by a run that was cut off.
    let _ = fs::remove_file(fresh);
    // Holds secrets: the owner's only, before there is anything in it.
    {
        use std::os::unix::fs::OpenOptionsExt;
        fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(fresh)?;
    }
    let written = fill(fresh, snapshot, revision, taken_at).and_then(|()| {
        // A link is not made over what is there.
        fs::hard_link(fresh, path)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::File::open(folder)?.sync_all()?;
        Ok(())
    });
    let _ = fs::remove_file(fresh);
    written
}

fn fill(path: &Path, snapshot: &Snapshot, revision: Revision, taken_at: Option<&str>) -> Result<(), Error> {
    let mut connection = Connection::open(path)?;
    connection.pragma_update(None, "synchronous", "full")?;
    let transaction = connection.transaction()?;
    transaction.execute_batch(TABLES)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", LAYOUT)?;
    {
        let mut put =
            transaction.prepare("insert into item (key, value, created, modified) values (?1, ?2, ?3, ?4)")?;
        for item in &snapshot.items {
            let (created, modified) = (to_integer(item.created)?, to_integer(item.modified)?);
            put.execute(params![&item.key[..], &item.value[..], created, modified])?;
        }
    }
    transaction.execute("update clock set revision = ?1", [to_integer(revision)?])?;
    if let Some(taken_at) = taken_at {
        transaction.execute_batch(SEAL)?;
        let sealed = Snapshot { revision, items: snapshot.items.clone() };
        let items = i64::try_from(snapshot.items.len())?;
        transaction.execute("insert into seal values (?1, ?2, ?3)", params![items, sealed.sha256(), taken_at])?;
    }
    transaction.commit()?;
    connection.close().map_err(|(_, error)| error)?;
    Ok(())
}
