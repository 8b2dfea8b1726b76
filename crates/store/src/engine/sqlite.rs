use std::{path::Path, time::Duration};

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior, params};

use super::{Engine, Error, Loaded, Record};
use crate::{KeyValue, Op, Revision};

/// "Skep" in ASCII: marks the file as ours (`PRAGMA application_id`).
const APPLICATION_ID: i32 = 0x536b_6570;
/// The layout of the tables (`PRAGMA user_version`).
const LAYOUT: i32 = 1;
/// The log is cut back to this size when it has grown beyond it.
const WAL_LIMIT_BYTES: u32 = 16 << 20;
const PAGE_BYTES: u64 = 4096;
/// How long an opener waits for a process that is just ending.
const LOCK_WAIT: Duration = Duration::from_secs(1);

const TABLES: &str = "
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

/// One SQLite file: write-ahead log, synced at each append, locked against a second process.
#[derive(Debug)]
pub struct Sqlite {
    connection: Connection,
}

#[derive(Debug, thiserror::Error)]
enum Unusable {
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
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(LOCK_WAIT)?;
        // Exclusive: a second process is refused instead of served another history; WAL then needs no shared memory file.
        connection.pragma_update(None, "locking_mode", "exclusive")?;
        let journal: String = connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
        if !journal.eq_ignore_ascii_case("wal") {
            return Err(Unusable::Journal(journal).into());
        }
        connection.pragma_update(None, "synchronous", "full")?;
        connection.pragma_update(None, "journal_size_limit", WAL_LIMIT_BYTES)?;
        let pages = u32::try_from(options.file_bytes.div_ceil(PAGE_BYTES)).unwrap_or(u32::MAX - 1);
        connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?;
        prepare(&mut connection)?;
        Ok(Self { connection })
    }
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
    let check: String = transaction.query_row("pragma quick_check(1)", [], |row| row.get(0))?;
    if check != "ok" {
        return Err(Unusable::Damaged(check).into());
    }
    transaction.commit()?;
    Ok(())
}

fn to_integer(revision: Revision) -> Result<i64, Unusable> {
    i64::try_from(revision.0).map_err(|_| Unusable::Revision(revision.0))
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
        let mut statement = self.connection.prepare("select key, value, created, modified from item")?;
        let rows = statement.query_map([], |row| {
            Ok(KeyValue {
                key: row.get::<_, Vec<u8>>(0)?.into(),
                value: row.get::<_, Vec<u8>>(1)?.into(),
                created: Revision(row.get::<_, i64>(2)?.unsigned_abs()),
                modified: Revision(row.get::<_, i64>(3)?.unsigned_abs()),
            })
        })?;
        let items = rows.collect::<Result<Vec<_>, _>>()?;
        Ok(Loaded { revision, items })
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
