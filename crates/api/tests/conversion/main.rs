//! Any object that the schemas allow survives the way to the other version and back.

mod objects;

use api::conversion::{HUB, convert, spoke};
use proptest::prelude::*;
use serde_json::{Value, json};

use self::objects::{Kind, Schemas, pruned, with_namespaces};

fn there_and_back(object: &Value, version: &str, back: &str) -> (Value, Value) {
    let there = convert(object, version).unwrap();
    let again = convert(&there, back).unwrap();
    (there, again)
}

/// The first place where two values differ.
fn difference(left: &Value, right: &Value, path: &str) -> Option<String> {
    match (left, right) {
        (Value::Object(left), Value::Object(right)) => {
            let names = left.keys().chain(right.keys());
            names
                .map(|name| {
                    let (left, right) = (left.get(name), right.get(name));
                    match (left, right) {
                        (Some(left), Some(right)) => difference(left, right, &format!("{path}.{name}")),
                        _ => Some(format!("{path}.{name}: {left:?} and {right:?}")),
                    }
                })
                .find_map(|found| found)
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => left
            .iter()
            .zip(right)
            .enumerate()
            .find_map(|(index, (left, right))| difference(left, right, &format!("{path}[{index}]"))),
        _ => (left != right).then(|| format!("{path}: {left} and {right}")),
    }
}

fn check(kind: &Kind, schemas: &Schemas, seed: u64) -> Vec<String> {
    let (mut wrong, older) = (Vec::new(), spoke(&kind.kind));
    let mut same = |left: &Value, right: &Value, about: &str| {
        wrong.extend(difference(left, right, "").map(|found| format!("{} {about}: {found}", kind.kind)));
    };
    // v1beta2 -> v1beta1 -> v1beta2, where nothing was kept before.
    let hub = schemas.object(kind, HUB, seed);
    let (spoke, again) = there_and_back(&hub, older, HUB);
    same(&hub, &again, "v1beta2 there and back");
    // No field is in a place that the other version does not know.
    same(&spoke, &pruned(&spoke, &kind.spoke), "fields of v1beta1");
    // v1beta1 -> v1beta2 -> v1beta1, once v1beta1's own defaults are filled in.
    let given = schemas.object(kind, older, seed);
    let (hub, spoke) = there_and_back(&given, HUB, older);
    same(&hub, &pruned(&hub, &kind.hub), "fields of v1beta2");
    same(&with_namespaces(&given), &spoke, "v1beta1 there and back");
    let (_, again) = there_and_back(&spoke, HUB, older);
    same(&spoke, &again, "v1beta1 again");
    // A change in v1beta1 leaves what only v1beta2 says, and is there.
    let hub = schemas.object(kind, HUB, seed);
    let mut spoke = convert(&hub, older).unwrap();
    spoke["metadata"]["labels"] = json!({"changed": "yes"});
    let mut expected = hub;
    expected["metadata"]["labels"] = spoke["metadata"]["labels"].clone();
    same(&expected, &convert(&spoke, HUB).unwrap(), "with a label more");
    wrong
}

/// What v1beta1 says in its own words is kept where v1beta2 has a place for it.
fn check_words(kind: &Kind, schemas: &Schemas, seed: u64) -> Vec<String> {
    let Some(words) = schemas.words(kind, !seed) else { return Vec::new() };
    let (mut wrong, older) = (Vec::new(), spoke(&kind.kind));
    let mut same = |left: &Value, right: &Value, about: &str| {
        wrong.extend(difference(left, right, "").map(|found| format!("{} {about}: {found}", kind.kind)));
    };
    let mut hub = schemas.object(kind, HUB, seed);
    drop(hub["status"].as_object_mut().unwrap().remove("deprecated"));
    let plain = convert(&hub, older).unwrap();

    // It shows in v1beta1 where nothing is made: as a whole, or the condition of its type.
    let mut told = hub.clone();
    told["status"]["deprecated"] = json!({ "v1beta1": words });
    let shown = convert(&told, older).unwrap();
    let mut expected = plain["status"].clone();
    for (name, value) in &words {
        expected[name] = match (value, &plain["status"][name]) {
            (Value::Array(said), Value::Array(made)) => together(made, said),
            (Value::Array(said), _) => together(said, &[]),
            (_, Value::Null) => value.clone(),
            (_, made) => made.clone(),
        };
    }
    let mut status = shown["status"].clone();
    if let Some(conditions) = status.get("conditions").and_then(Value::as_array) {
        status["conditions"] = together(conditions, &[]);
    }
    if let Some(made) = expected.get("conditions").and_then(Value::as_array) {
        expected["conditions"] = together(made, &[]);
    }
    follow(kind, &mut expected);
    same(&expected, &status, "words shown");

    // What is said in v1beta1 is kept there, and not in the annotation, and leaves no trace when it is taken back.
    let mut spoke = plain.clone();
    for (name, value) in &words {
        // A nought where nothing is counted says nothing, and what is made is no word of others.
        if value.is_number() && (*value == 0 || !spoke["status"][name].is_null()) {
            continue;
        }
        match value {
            Value::Array(_) => {
                let mut own = json!({"type": "Zone", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"});
                own["message"] = seed.to_string().into();
                let mut all = spoke["status"]["conditions"].as_array().cloned().unwrap_or_default();
                all.push(own.clone());
                spoke["status"][name] = all.into();
                told["status"]["deprecated"]["v1beta1"][name] = json!([own]);
            }
            _ => spoke["status"][name] = value.clone(),
        }
    }
    follow(kind, &mut spoke["status"]);
    let kept = convert(&spoke, HUB).unwrap();
    for (name, value) in &words {
        let expected = match spoke["status"][name] == plain["status"][name] {
            true => &Value::Null,
            false if name == "conditions" => &told["status"]["deprecated"]["v1beta1"][name],
            false => value,
        };
        same(expected, &kept["status"]["deprecated"]["v1beta1"][name], "words kept");
    }
    same(&Value::Null, &kept["metadata"]["annotations"], "nothing beside the words");
    let mut taken_back = convert(&kept, older).unwrap();
    same(&spoke["status"], &taken_back["status"], "words again");
    // A status that is empty now is told from none by a note.
    if !plain["status"].is_null() {
        taken_back["status"] = plain["status"].clone();
        same(&hub, &convert(&taken_back, HUB).unwrap(), "words taken back");
    }
    wrong
}

/// The first, and those of the second that are of another type; in no order that matters.
fn together(first: &[Value], second: &[Value]) -> Value {
    let others = second.iter().filter(|one| first.iter().all(|first| first["type"] != one["type"]));
    let mut all: Vec<Value> = first.iter().chain(others).cloned().collect();
    all.sort_by_key(Value::to_string);
    all.into()
}

/// A control plane of v1beta1 is ready as far as its machines are.
fn follow(kind: &Kind, status: &mut Value) {
    if let (true, Some(ready)) = (kind.kind == "KubeadmControlPlane", status["readyReplicas"].as_i64()) {
        status["ready"] = (ready > 0).into();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn objects_survive_the_way_there_and_back(seed in any::<u64>()) {
        thread_local!(static SCHEMAS: Schemas = Schemas::new());
        let wrong: Vec<String> =
            SCHEMAS.with(|schemas| schemas.kinds().iter().flat_map(|kind| check(kind, schemas, seed)).collect());
        prop_assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn what_v1beta1_says_in_its_own_words_is_shown_kept_and_taken_back(seed in any::<u64>()) {
        thread_local!(static SCHEMAS: Schemas = Schemas::new());
        let wrong: Vec<String> =
            SCHEMAS.with(|schemas| schemas.kinds().iter().flat_map(|kind| check_words(kind, schemas, seed)).collect());
        prop_assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}
