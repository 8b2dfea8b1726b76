//! One copy of what many servers of a process have: a CRD that hundreds install is parsed, and its rules are compiled, once.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock, Weak},
};

use aws_lc_rs::digest::{SHA256, digest};
use parking_lot::Mutex;
use serde_json::Value;

use super::{Schema, Whole};
use crate::field::FieldError;

type Known = HashMap<[u8; 32], Weak<Whole>>;

fn known() -> &'static Mutex<Known> {
    static KNOWN: OnceLock<Mutex<Known>> = OnceLock::new();
    KNOWN.get_or_init(Mutex::default)
}

/// The schema of that document if some server has it, else what `parse` makes of it.
pub(super) fn schema(
    document: &Value,
    parse: impl FnOnce() -> Result<Schema, Vec<FieldError>>,
) -> Result<Schema, Vec<FieldError>> {
    let Ok(key) = <[u8; 32]>::try_from(digest(&SHA256, document.to_string().as_bytes()).as_ref()) else {
        return parse();
    };
    if let Some(whole) = known().lock().get(&key).and_then(Weak::upgrade) {
        return Ok(Schema { whole });
    }
    let schema = parse()?;
    let mut known = known().lock();
    // What nobody has any more leaves when something new comes.
    known.retain(|_, whole| whole.strong_count() > 0);
    known.insert(key, Arc::downgrade(&schema.whole));
    Ok(schema)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_same_document_is_the_same_schema_while_someone_has_it() {
        let document = json!({"type": "object", "description": "shared once", "properties": {"a": {"type": "string"}}});
        let one = Schema::parse(&document).unwrap();
        let two = Schema::parse(&document.clone()).unwrap();
        assert!(Arc::ptr_eq(&one.whole, &two.whole));
        let other = Schema::parse(&json!({"type": "object", "description": "another"})).unwrap();
        assert!(!Arc::ptr_eq(&one.whole, &other.whole));
        let old = Arc::downgrade(&one.whole);
        drop((one, two));
        assert!(old.upgrade().is_none(), "nothing is kept alive");
        assert!(Schema::parse(&document).is_ok());
    }
}
