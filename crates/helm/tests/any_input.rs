//! Whatever a chart brings: an answer or an error, and never a panic.

use std::sync::Arc;

use helm::{
    chart::{Chart, Files, ignore},
    release::{Capabilities, Release},
    render, schema,
    values::Table,
    world::World,
};
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

/// Functions on two texts, `.Values.a` and `.Values.b`.
const TEMPLATES: &[&str] = &[
    "{{ toDate .Values.a .Values.b }}",
    "{{ mustToDate .Values.a .Values.b }}",
    "{{ date .Values.a (toDate .Values.a .Values.b) }}",
    "{{ dateInZone .Values.a 1700000000 .Values.b }}",
    "{{ dateModify .Values.a now }}{{ durationRound .Values.b }}",
    "{{ fromToml .Values.a | toToml }}",
    "{{ fromToml .Values.a | toYamlPretty }}",
    "{{ toYamlPretty .Values }}{{ toToml .Values }}",
    "{{ decryptAES .Values.a .Values.b }}",
];

fn files(extra: &[(&str, &str)]) -> Files {
    let chart = [("Chart.yaml", "apiVersion: v2\nname: c\nversion: 1.0.0\n")];
    chart.iter().chain(extra).map(|(path, text)| ((*path).to_owned(), Arc::from(text.as_bytes()))).collect()
}

fn rendered(template: &str, set: &Table) {
    let chart = Chart::load(&files(&[("templates/t", template)])).unwrap();
    let release = Release { name: "r".to_owned(), namespace: "ns".to_owned(), revision: 1, is_upgrade: false };
    let world = World::without_cluster(Timestamp::UNIX_EPOCH, |bytes| bytes.fill(7), |_| Err("no keys".to_owned()));
    drop(render(&chart, set, &release, &Capabilities::of("v1.36.0", Vec::new()), world));
}

/// Texts that are nearly layouts, times, TOML, or base64.
fn texts() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        Just("2006-01-02"),
        Just("15:04:05"),
        Just(".000"),
        Just("Z07:00"),
        Just("-0700"),
        Just("MST"),
        Just("__2"),
        Just("002"),
        Just("Jan"),
        Just("PM"),
        Just("2020"),
        Just("GMT+3"),
        Just("+25:61"),
        Just("é"),
        Just("."),
        Just(","),
        Just("0"),
        Just("99999999999"),
        Just(" "),
        Just("a = "),
        Just("[x]\n"),
        Just("[[x]]\n"),
        Just("\n"),
        Just("{a = 1}"),
        Just("'"),
        Just("\""),
        Just("1979-05-27T07:32:00"),
        Just("AAAA"),
        Just("=="),
        Just("h"),
        Just("-"),
    ];
    prop_oneof![prop::collection::vec(part, 0..8).prop_map(|parts| parts.concat()), ".{0,12}"]
}

fn leaves() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,6}".prop_map(Value::from),
        prop::sample::select(
            &["object", "array", "string", "#", "#/a/0", "#a", "x.json#/b", "http://x/y", "urn:x", "ipv4", "(", "%"][..]
        )
        .prop_map(Value::from),
    ]
}

const KEYWORDS: &[&str] = &[
    "$schema",
    "$id",
    "id",
    "$ref",
    "$dynamicRef",
    "$dynamicAnchor",
    "$anchor",
    "$recursiveRef",
    "$recursiveAnchor",
    "$defs",
    "definitions",
    "type",
    "enum",
    "const",
    "items",
    "prefixItems",
    "additionalItems",
    "contains",
    "minContains",
    "maxContains",
    "properties",
    "patternProperties",
    "additionalProperties",
    "propertyNames",
    "required",
    "dependencies",
    "dependentRequired",
    "dependentSchemas",
    "allOf",
    "anyOf",
    "oneOf",
    "not",
    "if",
    "then",
    "else",
    "unevaluatedProperties",
    "unevaluatedItems",
    "minimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxItems",
    "uniqueItems",
    "pattern",
    "format",
    "a",
    "b",
];

fn schemas() -> impl Strategy<Value = Value> {
    let key = prop::sample::select(KEYWORDS).prop_map(str::to_owned);
    leaves().prop_recursive(5, 48, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key.clone(), inner, 0..6).prop_map(|map| json!(map)),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn functions_on_texts_do_not_panic(a in texts(), b in texts()) {
        let set = Table::from_iter([("a".to_owned(), a.into()), ("b".to_owned(), b.into())]);
        TEMPLATES.iter().for_each(|template| rendered(template, &set));
    }

    #[test]
    fn schemas_do_not_panic(schema in schemas(), values in schemas()) {
        let text = schema.to_string();
        let chart = Chart::load(&files(&[("values.schema.json", &text)])).unwrap();
        drop(schema::check(&chart, values.as_object().unwrap_or(&Table::new())));
    }

    #[test]
    fn rules_of_what_is_ignored_do_not_panic(rules in r"([*?\[\]^\\!/a.\-]{0,8}\n){0,4}", path in r"[a/.*\[é]{1,10}") {
        drop(ignore::kept(&files(&[(".helmignore", &rules), (&path, "")])));
    }
}
