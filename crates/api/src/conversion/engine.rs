//! Runs a table of rules over an object, one way or the other.

use serde_json::{Map, Value, json};

use super::status;
use crate::meta::go_duration;

/// What becomes of a field. Paths are names with dots between them, from the object or part that the table is about.
#[derive(Debug)]
pub(super) struct Rule {
    pub spoke: &'static str,
    pub hub: &'static str,
    pub how: How,
}

#[derive(Debug)]
pub(super) enum How {
    /// Another name or place.
    Same,
    /// A duration in Go's words (`1m30s`), and a number of seconds.
    Seconds,
    /// What is said of the opposite.
    Not,
    /// Command line arguments: a map, and a list of names and values.
    Args,
    /// Failure domains: a map, and a list with names.
    Domains,
    /// A reference: with a version and a namespace, and with a group alone.
    Reference,
    /// A reference: with a namespace, and without.
    TemplateReference,
    /// An object whose fields have rules of their own.
    Part(&'static [Rule]),
    /// A list of such.
    Each(&'static [Rule]),
    /// Rules that several tables share.
    Also(&'static [Rule]),
    /// There is nothing like it in v1beta2.
    SpokeOnly,
    /// There is nothing like it in v1beta1.
    HubOnly,
    /// v1beta1 tells it of what v1beta2 tells otherwise: made from the whole v1beta2 part.
    Derived(fn(&Value) -> Option<Value>),
    /// As `Derived`; where nothing is made, v1beta2 keeps what v1beta1 says in `deprecated.v1beta1`, under the same name.
    Own(fn(&Value) -> Option<Value>),
    /// As `Own`: conditions of v1beta1, each made from one of v1beta2: their types.
    Conditions(&'static [(&'static str, &'static str)]),
    /// Two functions.
    Mapped { up: fn(&Value) -> Option<Value>, down: fn(&Value) -> Option<Value> },
    /// What is left to do once a v1beta2 part is complete.
    Completed(fn(&mut Value)),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// From v1beta1 to v1beta2.
    Up,
    Down,
    /// v1beta1 stays, with what its own defaulting fills in.
    Tidy,
}

/// What rules know besides the object's body.
pub(super) struct Cx<'a> {
    pub namespace: &'a str,
}

pub(super) const fn moved(spoke: &'static str, hub: &'static str) -> Rule {
    Rule { spoke, hub, how: How::Same }
}

pub(super) const fn seconds(spoke: &'static str, hub: &'static str) -> Rule {
    Rule { spoke, hub, how: How::Seconds }
}

pub(super) const fn not(spoke: &'static str, hub: &'static str) -> Rule {
    Rule { spoke, hub, how: How::Not }
}

pub(super) const fn args(path: &'static str) -> Rule {
    Rule { spoke: path, hub: path, how: How::Args }
}

pub(super) const fn domains(path: &'static str) -> Rule {
    Rule { spoke: path, hub: path, how: How::Domains }
}

pub(super) const fn reference(spoke: &'static str, hub: &'static str) -> Rule {
    Rule { spoke, hub, how: How::Reference }
}

pub(super) const fn template_reference(spoke: &'static str, hub: &'static str) -> Rule {
    Rule { spoke, hub, how: How::TemplateReference }
}

pub(super) const fn part(spoke: &'static str, hub: &'static str, rules: &'static [Rule]) -> Rule {
    Rule { spoke, hub, how: How::Part(rules) }
}

pub(super) const fn each(spoke: &'static str, hub: &'static str, rules: &'static [Rule]) -> Rule {
    Rule { spoke, hub, how: How::Each(rules) }
}

pub(super) const fn also(rules: &'static [Rule]) -> Rule {
    Rule { spoke: "", hub: "", how: How::Also(rules) }
}

pub(super) const fn spoke_only(spoke: &'static str) -> Rule {
    Rule { spoke, hub: "", how: How::SpokeOnly }
}

pub(super) const fn hub_only(hub: &'static str) -> Rule {
    Rule { spoke: "", hub, how: How::HubOnly }
}

pub(super) const fn derived(spoke: &'static str, make: fn(&Value) -> Option<Value>) -> Rule {
    Rule { spoke, hub: "", how: How::Derived(make) }
}

pub(super) const fn own(spoke: &'static str, make: fn(&Value) -> Option<Value>) -> Rule {
    Rule { spoke, hub: "", how: How::Own(make) }
}

pub(super) const fn conditions(pairs: &'static [(&'static str, &'static str)]) -> Rule {
    Rule { spoke: "conditions", hub: "", how: How::Conditions(pairs) }
}

pub(super) const fn completed(complete: fn(&mut Value)) -> Rule {
    Rule { spoke: "", hub: "", how: How::Completed(complete) }
}

/// The object, or part of one, in the other version.
pub(super) fn run(rules: &[Rule], value: &Value, direction: Direction, cx: &Cx<'_>) -> Value {
    if !value.is_object() {
        return value.clone();
    }
    let mut rest = value.clone();
    let mut placed = Vec::new();
    collect(rules, value, direction, cx, &mut rest, &mut placed);
    for (path, value) in placed {
        put(&mut rest, path, value);
    }
    if direction == Direction::Up {
        complete(rules, &mut rest);
        keep(rules, value, &mut rest);
    }
    rest
}

/// Takes out what has a rule, and tells where it goes.
fn collect(
    rules: &[Rule],
    whole: &Value,
    direction: Direction,
    cx: &Cx<'_>,
    rest: &mut Value,
    placed: &mut Vec<(&'static str, Value)>,
) {
    for rule in rules {
        let (from, to) = match direction {
            Direction::Up => (rule.spoke, rule.hub),
            Direction::Down => (rule.hub, rule.spoke),
            Direction::Tidy => (rule.spoke, rule.spoke),
        };
        match (&rule.how, direction) {
            (How::Also(rules), _) => collect(rules, whole, direction, cx, rest, placed),
            (How::SpokeOnly | How::Derived(_) | How::Own(_) | How::Conditions(_), Direction::Up)
            | (How::HubOnly, Direction::Down) => drop(take(rest, from)),
            (How::Derived(make), Direction::Down) => placed.extend(make(whole).map(|value| (to, value))),
            (How::Own(_) | How::Conditions(_), Direction::Down) => {
                let shown = status::shown(made(&rule.how, whole), status::said(whole, to));
                placed.extend(shown.map(|value| (to, value)));
            }
            (
                How::SpokeOnly | How::HubOnly | How::Derived(_) | How::Own(_) | How::Conditions(_) | How::Completed(_),
                _,
            ) => {}
            (how, _) => {
                let taken = take(rest, from);
                placed.extend(taken.and_then(|value| map(how, &value, direction, cx)).map(|value| (to, value)));
            }
        }
    }
}

fn complete(rules: &[Rule], hub: &mut Value) {
    for rule in rules {
        match rule.how {
            How::Also(rules) => complete(rules, hub),
            How::Completed(complete) => complete(hub),
            _ => {}
        }
    }
}

/// What v1beta1 tells of what v1beta2 does.
fn made(how: &How, hub: &Value) -> Option<Value> {
    match how {
        How::Own(make) => make(hub),
        How::Conditions(pairs) => status::legacy(pairs, hub),
        _ => None,
    }
}

/// Keeps in a v1beta2 part, once it is complete, what v1beta1 says and is not made of it.
fn keep(rules: &[Rule], spoke: &Value, hub: &mut Value) {
    for rule in rules {
        match rule.how {
            How::Also(rules) => keep(rules, spoke, hub),
            How::Own(_) | How::Conditions(_) => {
                let told = spoke.get(rule.spoke);
                if let Some(said) = told.and_then(|told| status::kept(made(&rule.how, hub).as_ref(), told)) {
                    put(hub, &format!("{}.{}", status::OWN, rule.spoke), said);
                }
            }
            _ => {}
        }
    }
}

/// The value in the other version; none if there it cannot be said.
fn map(how: &How, value: &Value, direction: Direction, cx: &Cx<'_>) -> Option<Value> {
    use Direction::{Down, Tidy, Up};
    match (how, direction) {
        (How::Part(rules), _) => {
            let part = run(rules, value, direction, cx);
            let emptied = is_empty(&part) && !is_empty(value);
            (!emptied).then_some(part)
        }
        (How::Each(rules), _) => Some(match value.as_array() {
            Some(list) => list.iter().map(|one| run(rules, one, direction, cx)).collect(),
            None => value.clone(),
        }),
        (How::Reference, Up) => Some(group_reference(value)),
        (How::Reference, Down) => Some(versioned_reference(value, cx)),
        (How::TemplateReference, Up) => Some(without_namespace(value)),
        (How::TemplateReference, Down) | (How::Reference | How::TemplateReference, Tidy) => {
            Some(in_namespace(value, cx))
        }
        (_, Tidy) => Some(value.clone()),
        (How::Seconds, Up) => value.as_str().and_then(duration_s).map(Value::from),
        (How::Seconds, Down) => {
            value.as_i64().filter(|seconds| *seconds >= 0).map(|seconds| go_duration(seconds).into())
        }
        (How::Not, _) => value.as_bool().map(|value| (!value).into()),
        (How::Args, Up) => Some(named_list(value, |name, value| json!({"name": name, "value": value}))),
        (How::Args, Down) => named_map(value, |entry| entry.get("value").cloned().unwrap_or_else(|| "".into())),
        (How::Domains, Up) => Some(named_list(value, |name, value| {
            let mut domain = if value.is_object() { value.clone() } else { json!({}) };
            domain["name"] = name.into();
            domain
        })),
        (How::Domains, Down) => named_map(value, |entry| {
            let mut domain = entry.clone();
            drop(domain.as_object_mut().and_then(|fields| fields.remove("name")));
            domain
        }),
        (How::Mapped { up, .. }, Up) => up(value),
        (How::Mapped { down, .. }, Down) => down(value),
        _ => Some(value.clone()),
    }
}

fn is_empty(value: &Value) -> bool {
    value.as_object().is_some_and(Map::is_empty)
}

/// Takes a field out, and the parents that have nothing else.
pub(super) fn take(value: &mut Value, path: &str) -> Option<Value> {
    let fields = value.as_object_mut()?;
    match path.split_once('.') {
        None => fields.remove(path),
        Some((first, rest)) => {
            let taken = take(fields.get_mut(first)?, rest)?;
            if fields.get(first).is_some_and(is_empty) {
                fields.remove(first);
            }
            Some(taken)
        }
    }
}

/// Puts a value at a path; what is there already keeps its other fields.
pub(super) fn put(at: &mut Value, path: &str, value: Value) {
    if !at.is_object() {
        *at = json!({});
    }
    let Some(fields) = at.as_object_mut() else { return };
    match path.split_once('.') {
        Some((first, rest)) => put(fields.entry(first).or_insert(Value::Null), rest, value),
        None => match (fields.get_mut(path), value) {
            (Some(Value::Object(there)), Value::Object(value)) => overlay(there, value),
            (_, value) => drop(fields.insert(path.to_owned(), value)),
        },
    }
}

fn overlay(there: &mut Map<String, Value>, value: Map<String, Value>) {
    for (name, value) in value {
        match (there.get_mut(&name), value) {
            (Some(Value::Object(there)), Value::Object(value)) => overlay(there, value),
            (_, value) => drop(there.insert(name, value)),
        }
    }
}

/// The version of the contract's older half that a group's kinds have.
fn spoke_api_version(group: &str) -> String {
    if group.is_empty() { super::SPOKE.to_owned() } else { format!("{group}/{}", super::SPOKE) }
}

fn group_reference(value: &Value) -> Value {
    let mut out = Map::new();
    if let Some(api_version) = value["apiVersion"].as_str() {
        out.insert("apiGroup".into(), api_version.rsplit_once('/').map_or("", |(group, _)| group).into());
    }
    copy(value, &["kind", "name"], &mut out);
    out.into()
}

fn versioned_reference(value: &Value, cx: &Cx<'_>) -> Value {
    let mut out = Map::new();
    if let Some(group) = value["apiGroup"].as_str() {
        out.insert("apiVersion".into(), spoke_api_version(group).into());
    }
    copy(value, &["kind", "name"], &mut out);
    in_namespace(&out.into(), cx)
}

fn without_namespace(value: &Value) -> Value {
    let mut out = Map::new();
    copy(value, &["apiVersion", "kind", "name"], &mut out);
    out.into()
}

fn in_namespace(value: &Value, cx: &Cx<'_>) -> Value {
    let mut out = value.clone();
    if out.is_object() && out.get("namespace").is_none() && !cx.namespace.is_empty() {
        out["namespace"] = cx.namespace.into();
    }
    out
}

fn copy(from: &Value, names: &[&str], to: &mut Map<String, Value>) {
    let found = names.iter().filter_map(|name| Some(((*name).to_owned(), from.get(*name)?.clone())));
    to.extend(found);
}

fn named_list(value: &Value, make: impl Fn(&str, &Value) -> Value) -> Value {
    let mut entries: Vec<_> = value.as_object().into_iter().flatten().collect();
    entries.sort_by_key(|(name, _)| *name);
    entries.into_iter().map(|(name, value)| make(name, value)).collect()
}

fn named_map(value: &Value, make: impl Fn(&Value) -> Value) -> Option<Value> {
    let entries = value.as_array()?.iter();
    let named = entries.filter_map(|entry| Some((entry.get("name")?.as_str()?.to_owned(), make(entry))));
    Some(Value::Object(named.collect()))
}

/// Whole seconds of a duration as Go writes them (`time.ParseDuration`); none if it is none, is negative, or does not
/// fit 32 bits.
pub fn duration_s(text: &str) -> Option<i64> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(0);
    }
    let mut nanoseconds = 0_f64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest.get(..end)?.parse().ok()?;
        rest = rest.get(end..)?;
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match rest.get(..end)? {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        nanoseconds += number * unit;
        rest = rest.get(end..)?;
    }
    let seconds = (nanoseconds / 1e9).trunc();
    (seconds <= f64::from(i32::MAX)).then_some(seconds as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_go() {
        for (text, seconds) in
            [("0", 0), ("0s", 0), ("10s", 10), ("1m30s", 90), ("1.5h", 5400), ("1500ms", 1), ("2h3m", 7380)]
        {
            assert_eq!(duration_s(text), Some(seconds), "{text}");
        }
        for text in ["", "s", "10", "-5s", "1d", "99999999h", "1..5s"] {
            assert_eq!(duration_s(text), None, "{text}");
        }
        for (seconds, text) in [(0, "0s"), (59, "59s"), (300, "5m0s"), (3600, "1h0m0s"), (7384, "2h3m4s")] {
            assert_eq!(go_duration(seconds), text);
            assert_eq!(duration_s(text), Some(seconds));
        }
    }

    #[test]
    fn a_field_is_taken_with_the_parents_that_it_leaves_empty() {
        let mut value = json!({"a": {"b": {"c": 1}}, "d": {"e": {}, "f": 2}});
        assert_eq!(take(&mut value, "a.b.c"), Some(json!(1)));
        assert_eq!(take(&mut value, "d.f"), Some(json!(2)));
        assert_eq!(take(&mut value, "d.x.y"), None);
        assert_eq!(value, json!({"d": {"e": {}}}));
        put(&mut value, "d.e.g", json!(3));
        assert_eq!(value, json!({"d": {"e": {"g": 3}}}));
    }
}
