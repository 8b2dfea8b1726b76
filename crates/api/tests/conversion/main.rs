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

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn objects_survive_the_way_there_and_back(seed in any::<u64>()) {
        thread_local!(static SCHEMAS: Schemas = Schemas::new());
        let wrong: Vec<String> =
            SCHEMAS.with(|schemas| schemas.kinds().iter().flat_map(|kind| check(kind, schemas, seed)).collect());
        prop_assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}
