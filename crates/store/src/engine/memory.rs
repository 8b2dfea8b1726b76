use super::{Engine, Error, Loaded, Record};
use crate::Revision;

/// Keeps nothing beyond the process: the core's own memory is the store.
#[derive(Debug, Default)]
pub struct Memory {
    revision: Revision,
}

impl Engine for Memory {
    fn load(&mut self) -> Result<Loaded, Error> {
        Ok(Loaded::default())
    }

    fn append(&mut self, records: &[Record]) -> Result<(), Error> {
        if let Some(last) = records.last() {
            self.revision = last.revision;
        }
        Ok(())
    }

    fn revision(&mut self) -> Result<Revision, Error> {
        Ok(self.revision)
    }

    fn compact(&mut self) -> Result<(), Error> {
        Ok(())
    }
}
