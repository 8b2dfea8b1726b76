//! What makes commits durable. An engine keeps the latest values and the revision; versions, events and order are the
//! core's. It is used by one thread at a time, and knows nothing of readers.

mod file;
mod memory;
mod sqlite;
mod wal;

use crate::{KeyValue, Op, Revision};

pub use self::{
    file::{Examined, examine, read_file, write_file},
    memory::Memory,
    sqlite::{Options, Sqlite, lock},
};

pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// One commit as an engine writes it. Keys do not repeat within a commit.
#[derive(Clone, Debug)]
pub struct Record {
    pub revision: Revision,
    pub changes: Vec<Change>,
}

#[derive(Clone, Debug)]
pub struct Change {
    pub op: Op,
    /// For a put: the commit that made the key.
    pub created: Revision,
}

/// What an engine held when it was opened.
#[derive(Debug, Default)]
pub struct Loaded {
    pub revision: Revision,
    /// In any order.
    pub items: Vec<KeyValue>,
}

pub trait Engine: Send + 'static {
    /// Everything it holds; called once, first.
    fn load(&mut self) -> Result<Loaded, Error>;

    /// Writes all records or none, in order, and returns when they would survive a loss of power.
    fn append(&mut self, records: &[Record]) -> Result<(), Error>;

    /// The last revision held: what the core asks after a failed [`Engine::append`].
    fn revision(&mut self) -> Result<Revision, Error>;

    /// Gives space back where that is cheap.
    fn compact(&mut self) -> Result<(), Error>;
}
