use std::{
    fs::{File, OpenOptions},
    path::Path,
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior, params};

use super::{Engine, Error, Loaded, Record, wal};
use crate::{KeyValue, Op, Revision};

/// "Skep" in ASCII: marks the file as ours (`PRAGMA application_id`).
pub(super) const APPLICATION_ID: i32 = 0x536b_6570;
/// The layout of the tables (`PRAGMA user_version`).
pub(super) const LAYOUT: i32 = 1;
/// The log is cut back to this size when it has grown beyond it.
const WAL_LIMIT_BYTES: u32 = 16 << 20;
const PAGE_BYTES: u64 = 4096;
/// How long a commit waits for a process that looks at the file.
const BUSY_WAIT: Duration = Duration::from_secs(5);

pub(super) const TABLES: &str = "
    create table item (key blob primary key, value blob not null, created integer not null, modified integer not null);
    create table clock (revision integer not null);
    insert into clock values (0);
";

#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The database file grows no larger; commits that need more fail.
    pub file_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { file_bytes: 64 << 30 }
    }
}

/// One SQLite file: write-ahead log, synced at each append. A file beside it is locked against a second writer; others may
/// read meanwhile, which is how backups are taken.
#[derive(Debug)]
pub struct Sqlite {
    connection: Connection,
    _lock: File,
}

/// Keeps every other writer away from the store in `path` for as long as the file is held.
pub fn lock(path: &Path) -> Result<File, Error> {
    let mut name = path.as_os_str().to_owned();
    name.push("-lock");
    let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&name)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(std::fs::TryLockError::WouldBlock) => Err(Unusable::Locked.into()),
        Err(std::fs::TryLockError::Error(error)) => Err(error.into()),
    }
}

#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    #[error("another process has it open")]
    Locked,
    #[error("it is a backup: make a store of it with `skep store restore`")]
    Sealed,
    #[error(
        "its log is damaged: {commits} commits that were made behind byte {at} cannot be read. Restore a backup; or, to go on without them, truncate {wal} to {at} bytes"
    )]
    Lost { commits: u64, at: u64, wal: String },
    #[error("the file belongs to another application (application id {0:#x})")]
    Foreign(i32),
    #[error("the file has layout {found}, this program reads {LAYOUT}")]
    Layout { found: i32 },
    #[error("SQLite refused journal mode WAL and uses {0:?}")]
    Journal(String),
    #[error("SQLite answered to the integrity check: {0}")]
    Damaged(String),
    #[error("revision {0} does not fit SQLite's integers")]
    Revision(u64),
}

impl Sqlite {
    /// Opens the file, or makes it (its folder must exist).
    pub fn open(path: &Path, options: Options) -> Result<Self, Error> {
        let lock = lock(path)?;
        look_at_log(path)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY_WAIT)?;
        let journal: String = connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
        if !journal.eq_ignore_ascii_case("wal") {
            return Err(Unusable::Journal(journal).into());
        }
        connection.pragma_update(None, "synchronous", "full")?;
        connection.pragma_update(None, "journal_size_limit", WAL_LIMIT_BYTES)?;
        let pages = u32::try_from(options.file_bytes.div_ceil(PAGE_BYTES)).unwrap_or(u32::MAX - 1);
        connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?;
        prepare(&mut connection)?;
        Ok(Self { connection, _lock: lock })
    }
}

/// Says what SQLite will leave out of the log, and refuses if that had been acknowledged.
fn look_at_log(path: &Path) -> Result<(), Error> {
    let log_path = wal::path(path);
    let Some(log) = wal::read(&log_path)? else { return Ok(()) };
    if log.dropped_commits > 1 {
        let wal = log_path.display().to_string();
        return Err(Unusable::Lost { commits: log.dropped_commits, at: log.good_bytes, wal }.into());
    }
    if log.dropped_frames > 0 {
        tracing::warn!(
            path = %path.display(), pages = log.dropped_frames, kept_commits = log.commits,
            "the store's log ends in a commit that is not whole, and that nobody was told of: it is dropped"
        );
    }
    Ok(())
}

/// Makes the tables of a new file; refuses a file that is not ours or is damaged.
fn prepare(connection: &mut Connection) -> Result<(), Error> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Exclusive)?;
    let id: i32 = transaction.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let layout: i32 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let tables: u32 = transaction.query_row("select count(*) from sqlite_schema", [], |row| row.get(0))?;
    if id == 0 && layout == 0 && tables == 0 {
        transaction.execute_batch(TABLES)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", LAYOUT)?;
    } else if id != APPLICATION_ID {
        return Err(Unusable::Foreign(id).into());
    } else if layout != LAYOUT {
        return Err(Unusable::Layout { found: layout }.into());
    }
    if transaction.table_exists(None, "seal")? {
        return Err(Unusable::Sealed.into());
    }
    let check: String = transaction.query_row("pragma quick_check(1)", [], |row| row.get(0))?;
    if check != "ok" {
        return Err(Unusable::Damaged(check).into());
    }
    transaction.commit()?;
    Ok(())
}

pub(super) fn to_integer(revision: Revision) -> Result<i64, Unusable> {
    i64::try_from(revision.0).map_err(|_| Unusable::Revision(revision.0))
}

/// Every item, in the order of keys.
pub(super) fn read_items(connection: &Connection) -> Result<Vec<KeyValue>, rusqlite::Error> {
    let mut statement = connection.prepare("select key, value, created, modified from item order by key")?;
    let rows = statement.query_map([], |row| {
        Ok(KeyValue {
            key: row.get::<_, Vec<u8>>(0)?.into(),
            value: row.get::<_, Vec<u8>>(1)?.into(),
            created: Revision(row.get::<_, i64>(2)?.unsigned_abs()),
            modified: Revision(row.get::<_, i64>(3)?.unsigned_abs()),
        })
    })?;
    rows.collect()
}

fn write(transaction: &Transaction<'_>, records: &[Record]) -> Result<(), Error> {
    let mut put = transaction.prepare_cached(
        "insert into item (key, value, created, modified) values (?1, ?2, ?3, ?4)
         on conflict (key) do update set value = ?2, created = ?3, modified = ?4",
    )?;
    let mut delete = transaction.prepare_cached("delete from item where key = ?1")?;
    for record in records {
        let revision = to_integer(record.revision)?;
        for change in &record.changes {
            match &change.op {
                Op::Put { key, value } => {
                    put.execute(params![&key[..], &value[..], to_integer(change.created)?, revision])?
                }
                Op::Delete { key } => delete.execute(params![&key[..]])?,
            };
        }
    }
    if let Some(last) = records.last() {
        let mut clock = transaction.prepare_cached("update clock set revision = ?1")?;
        clock.execute(params![to_integer(last.revision)?])?;
    }
    Ok(())
}

impl Engine for Sqlite {
    fn load(&mut self) -> Result<Loaded, Error> {
        let revision = self.revision()?;
        Ok(Loaded { revision, items: read_items(&self.connection)? })
    }

    fn append(&mut self, records: &[Record]) -> Result<(), Error> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        write(&transaction, records)?;
        transaction.commit()?;
        Ok(())
    }

    fn revision(&mut self) -> Result<Revision, Error> {
        let mut statement = self.connection.prepare_cached("select revision from clock")?;
        let revision: i64 = statement.query_row([], |row| row.get(0))?;
        Ok(Revision(revision.unsigned_abs()))
    }

    fn compact(&mut self) -> Result<(), Error> {
        // Moves the log into the database file; the free pages inside that file are used again by later commits.
        self.connection.query_row("pragma wal_checkpoint(truncate)", [], |_| Ok(()))?;
        Ok(())
    }
}
