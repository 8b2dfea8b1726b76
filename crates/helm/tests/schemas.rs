//! Limits of `values.schema.json`: what is at each goes through, what is one beyond it is refused.

use std::collections::BTreeMap;

use helm::{
    Error,
    chart::{Chart, Files},
    schema::{DEEP_MAX, FOUND_BYTES_MAX, PATTERNS_MAX, SCHEMA_BYTES_MAX, STEPS_MAX, check},
    values::Table,
};
use serde_json::{Value, json};

fn checked(schema: &Value, values: Value) -> helm::Result<()> {
    checked_text(schema.to_string(), values)
}

fn checked_text(schema: String, values: Value) -> helm::Result<()> {
    let chart = "apiVersion: v2\nname: c\nversion: 1.0.0\n";
    let files = [("Chart.yaml", chart.to_owned()), ("values.schema.json", schema)];
    let files: Files = files.into_iter().map(|(path, text)| (path.to_owned(), text.into_bytes().into())).collect();
    let Value::Object(values) = values else { panic!("values are a table") };
    check(&Chart::load(&files)?, &values)
}

fn is_limit(done: helm::Result<()>) -> bool {
    matches!(done, Err(Error::Limit(_)))
}

#[test]
fn a_check_takes_only_so_many_steps() {
    let schema = json!({"properties": {"a": {"items": {"type": "null"}}}});
    // The values, the list, and each item.
    let values = |steps: usize| json!({"a": vec![Value::Null; steps - 2]});
    assert_eq!(checked(&schema, values(STEPS_MAX)), Ok(()));
    assert!(is_limit(checked(&schema, values(STEPS_MAX + 1))));
}

#[test]
fn schemas_that_double_themselves_end() {
    let twice =
        |next: usize| json!({"anyOf": [{"$ref": format!("#/$defs/x{next}")}, {"$ref": format!("#/$defs/x{next}")}]});
    let mut defs: BTreeMap<String, Value> = (0..60).map(|at| (format!("x{at}"), twice(at + 1))).collect();
    defs.insert("x60".to_owned(), json!(false));
    assert!(is_limit(checked(&json!({"$ref": "#/$defs/x0", "$defs": defs}), json!({}))));
}

#[test]
fn items_are_compared_only_so_often() {
    let schema = json!({"properties": {"a": {"uniqueItems": true}}});
    let values = |items: usize| json!({"a": (0..items).collect::<Vec<_>>()});
    // The values, the list, and each pair.
    let steps = |items: usize| 2 + items * (items - 1) / 2;
    let most = (2..).take_while(|items| steps(*items) <= STEPS_MAX).last().unwrap();
    assert_eq!(checked(&schema, values(most)), Ok(()));
    assert!(is_limit(checked(&schema, values(most + 1))));
}

#[test]
fn schemas_are_applied_only_so_deep_in_one_another() {
    let chained = |depth: usize| {
        let of = |at: usize| {
            if at < depth { json!({"$ref": format!("#/$defs/x{}", at + 1)}) } else { json!({"minProperties": 0}) }
        };
        let defs: BTreeMap<String, Value> = (1..=depth).map(|at| (format!("x{at}"), of(at))).collect();
        checked(&json!({"$ref": "#/$defs/x1", "$defs": defs}), json!({}))
    };
    assert_eq!(chained(DEEP_MAX), Ok(()));
    assert!(is_limit(chained(DEEP_MAX + 1)));
}

#[test]
fn a_schema_has_only_so_many_patterns_and_bytes() {
    let patterns = |count: usize| {
        let map: BTreeMap<String, Value> = (0..count).map(|at| (format!("^p{at}$"), json!(true))).collect();
        checked(&json!({"patternProperties": map}), json!({}))
    };
    assert_eq!(patterns(PATTERNS_MAX), Ok(()));
    assert!(is_limit(patterns(PATTERNS_MAX + 1)));
    let long = |bytes: usize| checked_text(format!("{{}}{}", " ".repeat(bytes - 2)), json!({}));
    assert_eq!(long(SCHEMA_BYTES_MAX), Ok(()));
    assert!(is_limit(long(SCHEMA_BYTES_MAX + 1)));
}

#[test]
fn what_is_wrong_takes_only_so_many_bytes_to_tell() {
    let named = |told: usize| {
        let name = "x".repeat(told - "additional properties '' not allowed".len());
        checked(&json!({"additionalProperties": false}), json!({name: 1}))
    };
    assert!(matches!(named(FOUND_BYTES_MAX), Err(Error::Values(_))));
    assert!(is_limit(named(FOUND_BYTES_MAX + 1)));
    let many = json!({"x".repeat(1024 * 1024): vec![0; 1000]});
    assert!(is_limit(checked(&json!({"additionalProperties": {"items": false}}), many)));
}

#[test]
fn many_schemas_below_a_long_name_are_looked_through() {
    let inner: BTreeMap<String, Value> =
        (0..50_000).map(|at| (format!("p{at}"), json!({"$id": format!("i{at}")}))).collect();
    let schema = json!({"properties": {"x".repeat(1024 * 1024): {"properties": inner}}});
    assert_eq!(checked(&schema, json!({})), Ok(()));
}

#[test]
fn nothing_is_fetched() {
    for url in
        ["http://example.com/x.json", "https://json-schema.org/draft/2020-12/schema", "file:///etc/passwd", "x.json"]
    {
        let told = checked(&json!({"$ref": url}), json!({})).unwrap_err().to_string();
        assert!(told.contains("not fetched"), "{told}");
    }
    assert!(checked(&json!({"$schema": "http://example.com/meta"}), Table::new().into()).is_err());
}
