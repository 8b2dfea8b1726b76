//! Charts whose templates are read once.

use std::sync::Arc;

use helm::{
    Prepared, Rendered,
    chart::{Chart, Files},
    release::{Capabilities, Release},
    render, render_text, render_unchecked, values,
    world::World,
};
use jiff::Timestamp;

const FILES: &[(&str, &str)] = &[
    (
        "Chart.yaml",
        "apiVersion: v2\nname: p\nversion: 1.0.0\ndependencies:\n- {name: s, alias: one, version: 1.0.0, condition: one.on}\n- {name: s, alias: two, version: 1.0.0, condition: two.on}\n",
    ),
    ("values.yaml", "x: 1\none: {on: true, y: a}\ntwo: {on: true, y: b}\n"),
    ("templates/t", "{{ define \"d\" }}{{ .Values.x }}{{ end }}{{ $_ := set .Values \"x\" 9 }}{{ include \"d\" . }}"),
    ("charts/s/Chart.yaml", "apiVersion: v2\nname: s\nversion: 1.0.0\n"),
    ("charts/s/templates/t", "{{ .Template.Name }} {{ .Values.y }}"),
];

fn chart() -> Chart {
    let files: Files = FILES.iter().map(|(path, text)| ((*path).to_owned(), Arc::from(text.as_bytes()))).collect();
    Chart::load(&files).unwrap()
}

fn parts() -> (Release, Capabilities, World) {
    let release = Release { name: "r".to_owned(), namespace: "ns".to_owned(), revision: 1, is_upgrade: false };
    let world = World::without_cluster(Timestamp::UNIX_EPOCH, |bytes| bytes.fill(7), |_| Err("no keys".to_owned()));
    (release, Capabilities::of("v1.36.0", Vec::new()), world)
}

fn of(prepared: &Prepared, set: &str) -> Rendered {
    let (release, capabilities, world) = parts();
    prepared.render(&values::read(set).unwrap(), &release, &capabilities, world).unwrap()
}

fn afresh(set: &str) -> Rendered {
    let (release, capabilities, world) = parts();
    render(&chart(), &values::read(set).unwrap(), &release, &capabilities, world).unwrap()
}

const SETS: &[&str] = &["", "one: {on: false}", "two: {y: c}", "x: 2\none: {on: false}\ntwo: {on: false}", ""];

#[test]
fn a_prepared_chart_becomes_what_one_becomes_that_is_read_anew() {
    let prepared = Prepared::new(chart());
    for set in SETS {
        assert_eq!(of(&prepared, set), afresh(set), "{set}");
    }
}

#[test]
fn what_was_read_is_counted_once_however_often_it_is_rendered() {
    let prepared = Prepared::new(chart());
    assert_eq!(prepared.read_bytes(), 0);
    let sizes = |path: &str| FILES.iter().filter(|(name, _)| *name == path).map(|(_, text)| text.len()).sum::<usize>();
    for _ in 0..2 {
        of(&prepared, "");
        // The chart that is there under two names counts twice.
        assert_eq!(prepared.read_bytes(), sizes("templates/t") + 2 * sizes("charts/s/templates/t"));
    }
}

#[test]
fn a_prepared_chart_is_rendered_by_many_at_once() {
    let prepared = Prepared::new(chart());
    std::thread::scope(|scope| {
        for set in SETS {
            let prepared = &prepared;
            scope.spawn(move || assert_eq!(of(prepared, set), afresh(set), "{set}"));
        }
    });
}

#[test]
fn a_library_is_for_other_charts_and_not_installable_by_itself() {
    let of = |kind: &str| {
        let text = format!("apiVersion: v2\nname: p\nversion: 1.0.0\ntype: {kind}\n");
        let files = [("Chart.yaml", text.as_str()), ("templates/t", "a: 1")];
        let files: Files = files.iter().map(|(path, text)| ((*path).to_owned(), Arc::from(text.as_bytes()))).collect();
        let (release, capabilities, world) = parts();
        let none = values::read("").unwrap();
        let rendered = render(&Chart::load(&files).unwrap(), &none, &release, &capabilities, world);
        rendered.map(|all| all.len()).map_err(|error| error.to_string())
    };
    assert_eq!(of("library"), Err("library charts are not installable".to_owned()));
    assert_eq!((of("application"), of("")), (Ok(1), Ok(1)));
}

#[test]
fn values_are_not_judged_where_that_is_not_wanted() {
    let files = [
        ("Chart.yaml", "apiVersion: v2\nname: p\nversion: 1.0.0\n"),
        ("values.schema.json", "{\"required\": [\"z\"]}"),
        ("templates/t", "{{ .Values.z }}"),
    ];
    let files: Files = files.iter().map(|(path, text)| ((*path).to_owned(), Arc::from(text.as_bytes()))).collect();
    let (chart, none) = (Chart::load(&files).unwrap(), values::read("").unwrap());
    let (release, capabilities, world) = parts();
    let error = render(&chart, &none, &release, &capabilities, world).unwrap_err().to_string();
    assert!(error.starts_with("values don't meet the specifications of the schema(s)"), "{error}");
    let (release, capabilities, world) = parts();
    assert_eq!(render_unchecked(&chart, &none, &release, &capabilities, world).unwrap().len(), 1);
}

#[test]
fn a_template_without_a_chart_has_functions_and_no_data() {
    let of = |text: &str| render_text("name-template", text, parts().2).map_err(|error| error.to_string());
    assert_eq!(of("{{ \"A\" | lower }}-b"), Ok("a-b".to_owned()));
    assert!(of("{{ nope }}").unwrap_err().contains("function \"nope\" not defined"));
    assert!(of("{{ fail \"no\" }}").unwrap_err().contains("no"));
}
