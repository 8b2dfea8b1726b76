//! Rows of one kind, found by id, in order of creation, and by the fields that the kind indexes.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use serde_json::{Map, Value};

/// An object as the API shows it. Keys that begin with `~` are the cloud's own and are never shown.
pub type Row = Map<String, Value>;

pub const SEQUENCE: &str = "~seq";

#[derive(Default)]
pub struct Table {
    rows: BTreeMap<u64, Arc<Row>>,
    ids: HashMap<String, u64>,
    indices: HashMap<&'static str, HashMap<String, BTreeSet<u64>>>,
}

/// A string field; empty if it is absent or something else.
pub fn text<'a>(row: &'a Row, field: &str) -> &'a str {
    row.get(field).and_then(Value::as_str).unwrap_or_default()
}

pub fn number(row: &Row, field: &str) -> i64 {
    row.get(field).and_then(Value::as_i64).unwrap_or_default()
}

pub fn flag(row: &Row, field: &str) -> bool {
    row.get(field).and_then(Value::as_bool).unwrap_or_default()
}

pub fn list<'a>(row: &'a Row, field: &str) -> &'a [Value] {
    row.get(field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// The values at `field`: `name`, `tags[]` (of a list), `fixed_ips[].subnet_id` (of objects in a list).
pub fn values(row: &Row, field: &str) -> Vec<String> {
    let scalar = |v: &Value| match v {
        Value::String(s) => Some(s.clone()),
        Value::Bool(b) => Some(b.to_string()),
        Value::Number(n) => Some(n.to_string()),
        _ => None,
    };
    match field.split_once("[]") {
        None => row.get(field).and_then(scalar).into_iter().collect(),
        Some((name, "")) => list(row, name).iter().filter_map(scalar).collect(),
        Some((name, rest)) => {
            let inner = rest.trim_start_matches('.');
            list(row, name).iter().filter_map(|v| v.get(inner).and_then(scalar)).collect()
        }
    }
}

impl Table {
    pub fn new(indexed: &[&'static str]) -> Self {
        Self { indices: indexed.iter().map(|f| (*f, HashMap::new())).collect(), ..Self::default() }
    }

    pub fn get(&self, id: &str) -> Option<&Arc<Row>> {
        self.rows.get(self.ids.get(id)?)
    }

    /// The row of an order number.
    pub fn at(&self, sequence: u64) -> Option<&Arc<Row>> {
        self.rows.get(&sequence)
    }

    /// All rows, oldest first.
    pub fn all(&self) -> impl DoubleEndedIterator<Item = &Arc<Row>> {
        self.rows.values()
    }

    /// The rows whose indexed field has the value, oldest first.
    pub fn find(&self, field: &str, value: &str) -> impl DoubleEndedIterator<Item = &Arc<Row>> {
        self.sequences(field, value).into_iter().flatten().filter_map(|s| self.rows.get(s))
    }

    pub fn count(&self, field: &str, value: &str) -> usize {
        self.sequences(field, value).map_or(0, BTreeSet::len)
    }

    /// The order numbers of the rows whose field has the value; `None` if no row has it or the field is not indexed.
    pub fn sequences(&self, field: &str, value: &str) -> Option<&BTreeSet<u64>> {
        self.indices.get(field)?.get(value)
    }

    pub fn is_indexed(&self, field: &str) -> bool {
        self.indices.contains_key(field)
    }

    /// Puts a row with its `id` and [`SEQUENCE`]; returns the one it replaces.
    pub fn put(&mut self, row: Row) -> Option<Arc<Row>> {
        let id = text(&row, "id").to_owned();
        let sequence = row.get(SEQUENCE).and_then(Value::as_u64).unwrap_or_default();
        let old = self.remove(&id);
        self.index(&row, sequence, true);
        self.ids.insert(id, sequence);
        self.rows.insert(sequence, Arc::new(row));
        old
    }

    pub fn remove(&mut self, id: &str) -> Option<Arc<Row>> {
        let sequence = self.ids.remove(id)?;
        let old = self.rows.remove(&sequence)?;
        self.index(&old, sequence, false);
        Some(old)
    }

    fn index(&mut self, row: &Row, sequence: u64, add: bool) {
        for (field, index) in &mut self.indices {
            for value in values(row, field) {
                if add {
                    index.entry(value).or_default().insert(sequence);
                } else if let Some(set) = index.get_mut(&value) {
                    set.remove(&sequence);
                    if set.is_empty() {
                        index.remove(&value);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(value: Value) -> Row {
        value.as_object().cloned().unwrap()
    }

    #[test]
    fn indices_follow_changes_and_deletions() {
        let mut table = Table::new(&["name", "fixed_ips[].subnet_id", "tags[]"]);
        table.put(row(json!({"id": "a", "~seq": 1, "name": "x", "tags": ["t"], "fixed_ips": [{"subnet_id": "s"}]})));
        table.put(row(json!({"id": "b", "~seq": 2, "name": "x"})));
        assert_eq!(table.count("name", "x"), 2);
        assert_eq!(table.find("fixed_ips[].subnet_id", "s").count(), 1);
        table.put(row(json!({"id": "a", "~seq": 1, "name": "y"})));
        assert_eq!((table.count("name", "x"), table.count("name", "y"), table.count("tags[]", "t")), (1, 1, 0));
        table.remove("b");
        assert_eq!(table.count("name", "x"), 0);
        assert!(table.get("b").is_none());
    }
}
