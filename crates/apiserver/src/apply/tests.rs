use serde_json::{Value, json};

use super::{managers::UPDATE_MANAGERS_LIMIT, *};
use crate::schema::builtin;

const T1: &str = "2026-01-01T00:00:01Z";
const T2: &str = "2026-01-01T00:00:02Z";
const T3: &str = "2026-01-01T00:00:03Z";

fn deployment(spec: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": spec})
}

fn containers(list: Value) -> Value {
    deployment(json!({"template": {"spec": {"containers": list}}}))
}

fn run(live: Option<&Value>, config: Value, manager: &str, force: bool, now: &str) -> Result<Value, ApplyError> {
    let schema = builtin("apps", "v1", "Deployment").unwrap();
    apply(ApplyInput {
        live,
        config: &config,
        manager,
        force,
        subresource: "",
        api_version: "apps/v1",
        now,
        schema: &schema,
    })
}

fn update(old: Option<&Value>, mut new: Value, manager: &str, now: &str) -> Value {
    let schema = builtin("apps", "v1", "Deployment").unwrap();
    track_update(old, &mut new, manager, "", "apps/v1", now, &schema);
    new
}

fn fields(object: &Value, manager: &str) -> Value {
    let list = object["metadata"]["managedFields"].as_array().unwrap();
    let found: Vec<_> = list.iter().filter(|entry| entry["manager"] == manager).collect();
    match found[..] {
        [] => Value::Null,
        [entry] => entry["fieldsV1"].clone(),
        _ => panic!("{manager} is there twice: {list:?}"),
    }
}

fn edit(object: &Value, change: impl FnOnce(&mut Value)) -> Value {
    let mut object = object.clone();
    change(&mut object);
    object
}

#[test]
fn what_is_applied_is_owned() {
    let made =
        run(None, containers(json!([{"name": "a", "image": "1", "ports": [{"containerPort": 80}]}])), "m", false, T1);
    let made = made.unwrap();
    let entry = &made["metadata"]["managedFields"][0];
    assert_eq!(
        *entry,
        json!({"manager": "m", "operation": "Apply", "apiVersion": "apps/v1", "time": T1, "fieldsType": "FieldsV1",
            "fieldsV1": {"f:spec": {"f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {".": {}, "f:name": {},
                "f:image": {}, "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {},
                    "f:containerPort": {}}}}}}}}}})
    );
    let again = run(
        Some(&made),
        containers(json!([{"name": "a", "image": "1", "ports": [{"containerPort": 80}]}])),
        "m",
        false,
        T2,
    );
    assert_eq!(update(None, made.clone(), "m", T2), made, "an object made by apply is not taken for an update");
    assert_eq!(again.unwrap(), made, "the same again changes nothing, not even the time");
}

#[test]
fn fields_that_are_no_longer_applied_go() {
    let live = run(
        None,
        containers(json!([{"name": "a", "image": "1", "args": ["x"]}, {"name": "b", "image": "1"}])),
        "m",
        false,
        T1,
    );
    let mut live = live.unwrap();
    live["spec"]["template"]["spec"]["containers"][1]["terminationMessagePath"] = json!("defaulted");
    live["spec"]["replicas"] = json!(1);
    let next = run(Some(&live), containers(json!([{"name": "a", "image": "2"}])), "m", false, T2).unwrap();
    assert_eq!(
        next["spec"],
        json!({"replicas": 1, "template": {"spec": {"containers": [{"name": "a", "image": "2"}]}}})
    );
    assert_eq!(next["metadata"]["managedFields"][0]["time"], T2);
    let emptied = run(Some(&next), deployment(json!({})), "m", false, T3).unwrap();
    assert_eq!(emptied["spec"], json!({"replicas": 1}), "what nobody ever owned stays");
}

#[test]
fn an_applier_that_lets_go_of_all_metadata_leaves_the_name() {
    let labelled = edit(&deployment(json!({"paused": true})), |o| o["metadata"]["labels"] = json!({"a": "b"}));
    let mut live = run(None, labelled, "m", false, T1).unwrap();
    live["metadata"]["uid"] = json!("u");
    let next = run(Some(&live), deployment(json!({"paused": true})), "m", false, T2).unwrap();
    assert_eq!((&next["metadata"]["name"], &next["metadata"]["uid"]), (&json!("d"), &json!("u")));
    assert!(next["metadata"].get("labels").is_none());
}

#[test]
fn what_others_own_stays_and_conflicts() {
    let live = run(None, deployment(json!({"replicas": 3, "paused": true})), "a", false, T1).unwrap();
    let shared = run(Some(&live), deployment(json!({"replicas": 3})), "b", false, T2).unwrap();
    assert_eq!(fields(&shared, "b"), json!({"f:spec": {"f:replicas": {}}}), "equal values are owned together");

    let error = run(Some(&shared), deployment(json!({"replicas": 4})), "b", false, T3).unwrap_err();
    assert_eq!(error.to_string(), "Apply failed with 1 conflict: conflict with \"a\": .spec.replicas");
    let given_up = run(Some(&shared), deployment(json!({"paused": true})), "a", false, T3).unwrap();
    assert_eq!(given_up["spec"]["replicas"], 3, "the other owner keeps it");
    assert_eq!(fields(&given_up, "a"), json!({"f:spec": {"f:paused": {}}}));
    let free = run(Some(&given_up), deployment(json!({"replicas": 4})), "b", false, T3).unwrap();
    assert_eq!(free["spec"]["replicas"], 4);

    let forced = run(Some(&shared), deployment(json!({"replicas": 5})), "c", true, T3).unwrap();
    assert_eq!(forced["spec"]["replicas"], 5);
    assert_eq!(fields(&forced, "b"), Value::Null, "who owns nothing any more is gone");
    assert_eq!(fields(&forced, "a"), json!({"f:spec": {"f:paused": {}}}));
}

#[test]
fn several_conflicts_are_listed_by_manager() {
    let live = update(None, deployment(json!({"replicas": 3, "paused": true})), "kubectl-create", T1);
    let live = run(Some(&live), deployment(json!({"minReadySeconds": 3})), "z", false, T2).unwrap();
    let config = deployment(json!({"replicas": 1, "paused": false, "minReadySeconds": 1}));
    let error = run(Some(&live), config, "m", false, T3).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Apply failed with 3 conflicts: conflicts with \"kubectl-create\" using apps/v1:\n- .spec.paused\n- .spec.replicas\n\
         conflicts with \"z\":\n- .spec.minReadySeconds"
    );
    let ApplyError::Conflicts(conflicts) = error else { panic!() };
    assert_eq!(conflicts[0].message(), "conflict with \"kubectl-create\" using apps/v1");
    assert_eq!(conflicts[0].path, ".spec.paused");
}

#[test]
fn lists_merge_in_the_order_of_the_configuration() {
    let live = update(None, containers(json!([{"name": "s"}, {"name": "a"}, {"name": "t"}, {"name": "b"}])), "u", T1);
    let next = run(
        Some(&live),
        containers(json!([{"name": "b"}, {"name": "n"}, {"name": "a", "image": "1"}])),
        "m",
        false,
        T2,
    );
    let next = next.unwrap();
    let names: Vec<_> =
        next["spec"]["template"]["spec"]["containers"].as_array().unwrap().iter().map(|c| &c["name"]).collect();
    assert_eq!(names, ["s", "t", "b", "n", "a"]);
}

#[test]
fn updates_take_what_they_change() {
    let made = update(
        None,
        deployment(json!({"replicas": 1, "template": {"metadata": {"labels": {"a": "b"}}}})),
        "create",
        T1,
    );
    assert_eq!(
        fields(&made, "create"),
        json!({"f:spec": {"f:replicas": {}, "f:template": {"f:metadata": {"f:labels": {".": {}, "f:a": {}}}}}})
    );
    let unchanged = update(Some(&made), edit(&made, |o| o["metadata"]["resourceVersion"] = json!("7")), "other", T2);
    assert_eq!(unchanged["metadata"]["managedFields"], made["metadata"]["managedFields"]);

    let scaled = update(Some(&made), edit(&made, |o| o["spec"]["replicas"] = json!(2)), "hpa", T2);
    assert_eq!(fields(&scaled, "hpa"), json!({"f:spec": {"f:replicas": {}}}));
    assert!(fields(&scaled, "create")["f:spec"].get("f:replicas").is_none());
    let entry = &scaled["metadata"]["managedFields"][0];
    assert_eq!((&entry["manager"], &entry["time"]), (&json!("create"), &json!(T1)), "only the writer's time moves");

    let removed = update(Some(&scaled), edit(&scaled, |o| o["spec"] = json!({"replicas": 2})), "other", T3);
    assert_eq!(fields(&removed, "create"), Value::Null);
    let without = edit(&scaled, |o| drop(o["metadata"].as_object_mut().unwrap().remove("managedFields")));
    assert_eq!(update(Some(&scaled), without, "old-client", T3), scaled, "leaving managers out does not remove them");
}

#[test]
fn managed_fields_can_be_edited_and_forgotten() {
    let live = run(None, deployment(json!({"replicas": 1})), "a", false, T1).unwrap();
    let renamed = edit(&live, |o| o["metadata"]["managedFields"][0]["manager"] = json!("b"));
    let live = update(Some(&live), renamed, "x", T2);
    assert_eq!((fields(&live, "a"), fields(&live, "b")), (Value::Null, json!({"f:spec": {"f:replicas": {}}})));
    let forgotten = update(Some(&live), edit(&live, |o| o["metadata"]["managedFields"] = json!([{}])), "x", T3);
    assert!(forgotten["metadata"].get("managedFields").is_none());
    let applied = run(Some(&forgotten), deployment(json!({"replicas": 1})), "a", false, T3).unwrap();
    assert_eq!(fields(&applied, "before-first-apply"), json!({"f:spec": {"f:replicas": {}}}));
}

#[test]
fn a_subresource_is_a_manager_of_its_own() {
    let schema = builtin("apps", "v1", "Deployment").unwrap();
    let live = run(None, deployment(json!({"replicas": 1})), "m", false, T1).unwrap();
    let mut next = edit(&live, |o| o["status"] = json!({"replicas": 1}));
    track_update(Some(&live), &mut next, "m", "status", "apps/v1", T2, &schema);
    let list = next["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!(list.len(), 2);
    assert_eq!((&list[1]["subresource"], &list[1]["operation"]), (&json!("status"), &json!("Update")));
    let config = edit(&deployment(json!({"replicas": 1})), |o| o["status"] = json!({"replicas": 2}));
    let from_main = run(Some(&next), config.clone(), "n", false, T3).unwrap();
    assert_eq!(from_main["status"], json!({"replicas": 1}), "the object itself does not reach its status");
    assert_eq!(fields(&from_main, "n"), json!({"f:spec": {"f:replicas": {}}}));

    let input = ApplyInput {
        live: Some(&next),
        config: &config,
        manager: "n",
        force: false,
        subresource: "status",
        api_version: "apps/v1",
        now: T3,
        schema: &schema,
    };
    let text =
        "Apply failed with 1 conflict: conflict with \"m\" with subresource \"status\" using apps/v1: .status.replicas";
    assert_eq!(apply(input).unwrap_err().to_string(), text);
}

#[test]
fn kubectl_takes_over_from_client_side_apply() {
    let text = deployment(json!({"replicas": 1, "paused": true})).to_string();
    let annotated =
        |spec: Value| edit(&deployment(spec), |o| o["metadata"]["annotations"] = json!({LAST_APPLIED: text}));
    let live = update(
        None,
        annotated(json!({"replicas": 1, "paused": true, "minReadySeconds": 1})),
        "kubectl-client-side-apply",
        T1,
    );
    let taken = run(Some(&live), deployment(json!({"replicas": 2, "paused": true})), "kubectl", false, T2).unwrap();
    assert_eq!(taken["spec"]["replicas"], 2);
    let kept: Value = serde_json::from_str(taken["metadata"]["annotations"][LAST_APPLIED].as_str().unwrap()).unwrap();
    assert_eq!(kept["spec"]["replicas"], 2, "the annotation follows");
    assert_eq!(kept["metadata"].get("annotations"), None);
    assert!(run(Some(&live), deployment(json!({"minReadySeconds": 2})), "kubectl", false, T2).is_err());
    assert!(run(Some(&live), deployment(json!({"replicas": 2})), "someone", false, T2).is_err());
}

#[test]
fn lists_that_cannot_be_merged_are_refused() {
    let refused = |list: Value| run(None, containers(list), "m", false, T1).map_err(|error| error.to_string());
    let path = ".spec.template.spec.containers";
    assert_eq!(
        refused(json!([{"name": "a"}, {"name": "a"}])).unwrap_err(),
        format!("{path}: duplicate entries for key [name=\"a\"]")
    );
    assert_eq!(
        refused(json!([{"name": "a", "image": 1, "nope": 2}])).unwrap_err(),
        format!(
            "errors:\n  {path}[name=\"a\"].image: expected string, got &value.valueUnstructured{{Value:1}}\n  \
             {path}[name=\"a\"].nope: field not declared in schema"
        )
    );
    assert!(refused(json!([{"image": "1"}])).is_ok(), "a key of a built-in list may be left out; validation finds it");
}

#[test]
fn sets_and_atomic_values_keep_their_owners() {
    let with = |finalizers: Value| edit(&deployment(json!({})), |o| o["metadata"]["finalizers"] = finalizers);
    let live = run(None, with(json!(["x", "y"])), "a", false, T1).unwrap();
    let live = run(Some(&live), with(json!(["z", "y"])), "b", false, T2).unwrap();
    assert_eq!(live["metadata"]["finalizers"], json!(["x", "z", "y"]));
    let live = run(Some(&live), with(json!([])), "a", false, T3).unwrap();
    assert_eq!(live["metadata"]["finalizers"], json!(["z", "y"]));

    let selector = |labels: Value| deployment(json!({"selector": {"matchLabels": labels}}));
    let live = run(None, selector(json!({"a": "1"})), "a", false, T1).unwrap();
    assert_eq!(fields(&live, "a"), json!({"f:spec": {"f:selector": {}}}), "a selector is one value");
    assert!(run(Some(&live), selector(json!({"b": "1"})), "b", false, T2).is_err());
}

#[test]
fn custom_kinds_without_a_schema_merge_maps() {
    let schema = Schema::parse(&json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})).unwrap();
    let go = |live: Option<&Value>, config: Value, manager: &str| {
        apply(ApplyInput {
            live,
            config: &config,
            manager,
            force: false,
            subresource: "",
            api_version: "g/v1",
            now: T1,
            schema: &schema,
        })
    };
    let live = go(None, json!({"spec": {"a": {"b": 1}, "list": [1]}}), "x").unwrap();
    assert_eq!(fields(&live, "x"), json!({"f:spec": {".": {}, "f:a": {".": {}, "f:b": {}}, "f:list": {}}}));
    let live = go(Some(&live), json!({"spec": {"a": {"c": 2}}}), "y").unwrap();
    assert_eq!(live["spec"], json!({"a": {"b": 1, "c": 2}, "list": [1]}));
    let live = go(Some(&live), json!({"spec": {}}), "x").unwrap();
    assert_eq!(live["spec"], json!({"a": {"c": 2}}));
}

#[test]
fn updaters_have_a_limit() {
    let mut live = update(None, deployment(json!({"replicas": 0})), "m00", "2026-01-01T00:00:00Z");
    for n in 1..=UPDATE_MANAGERS_LIMIT {
        let next = edit(&live, |o| o["metadata"]["labels"][format!("l{n}")] = json!("x"));
        live = update(Some(&live), next, &format!("m{n:02}"), &format!("2026-01-01T00:00:{n:02}Z"));
    }
    let list = live["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!(list.len(), UPDATE_MANAGERS_LIMIT);
    assert_eq!(list[0]["manager"], "ancient-changes");
    assert_eq!(list[0]["fieldsV1"]["f:metadata"]["f:labels"]["f:l1"], json!({}));
    assert_eq!(list[0]["fieldsV1"]["f:spec"]["f:replicas"], json!({}));
}

mod random {
    use proptest::prelude::*;

    use super::*;

    /// Specs with a list of maps, a set of labels and a scalar or two.
    fn config() -> impl Strategy<Value = Value> {
        let image = prop::option::of(0..3u8);
        let container = (prop::sample::select(vec!["a", "b", "c"]), image);
        let containers = prop::option::of(prop::collection::vec(container, 1..4));
        let labels = prop::option::of(prop::collection::btree_map(prop::sample::select(vec!["x", "y"]), 0..2u8, 1..3));
        let finalizers = prop::collection::btree_set(prop::sample::select(vec!["f", "g", "h"]), 0..3);
        (containers, labels, finalizers, prop::option::of(0..3u8)).prop_map(|(list, labels, finalizers, replicas)| {
            // Empty maps and lists are owned in ways of their own, which these properties are not about.
            let mut object = deployment(json!({"paused": true}));
            if let Some(mut list) = list {
                let mut seen = std::collections::BTreeSet::new();
                list.retain(|(name, _)| seen.insert(*name));
                let list = list.into_iter().map(|(name, image)| match image {
                    Some(image) => json!({"name": name, "image": format!("i{image}")}),
                    None => json!({"name": name}),
                });
                object["spec"]["template"]["spec"]["containers"] = list.collect();
            }
            if let Some(labels) = labels {
                object["metadata"]["labels"] =
                    labels.into_iter().map(|(k, v)| (k.to_owned(), json!(v.to_string()))).collect();
            }
            if !finalizers.is_empty() {
                object["metadata"]["finalizers"] = finalizers.into_iter().collect();
            }
            if let Some(replicas) = replicas {
                object["spec"]["replicas"] = json!(replicas);
            }
            object
        })
    }

    fn owned(object: &Value, manager: &str) -> Set {
        let list = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
        let found = list.iter().find(|entry| entry["manager"] == manager);
        found.map(|entry| Set::from_fields(&entry["fieldsV1"]).unwrap()).unwrap_or_default()
    }

    fn wanted(config: &Value) -> Set {
        let schema = builtin("apps", "v1", "Deployment").unwrap();
        let mut set = typed::fields_of(Some(schema.root()), config);
        managers::strip(&mut set);
        set
    }

    fn has_all(set: &Set, part: &Set) -> bool {
        let mut rest = part.clone();
        rest.subtract(set);
        rest.is_empty()
    }

    proptest! {
        #[test]
        fn a_forced_configuration_is_there_and_owned(steps in prop::collection::vec((0..3u8, config(), any::<bool>()), 1..12)) {
            let mut live: Option<Value> = None;
            for (time, (who, config, update_instead)) in steps.into_iter().enumerate() {
                let (manager, now) = (format!("m{who}"), format!("2026-01-01T00:00:{time:02}Z"));
                if update_instead {
                    live = Some(update(live.as_ref(), config, &format!("u{who}"), &now));
                    continue;
                }
                let next = run(live.as_ref(), config.clone(), &manager, true, &now).unwrap();
                prop_assert!(has_all(&wanted(&next), &wanted(&config)), "{next} lacks a part of {config}");
                prop_assert_eq!(owned(&next, &manager), wanted(&config));
                let merged = typed::merge(Some(builtin("apps", "v1", "Deployment").unwrap().root()), &next, &config);
                prop_assert_eq!(&merged, &next, "the values are those of the configuration");
                let again = run(Some(&next), config, &manager, false, "2027-01-01T00:00:00Z").unwrap();
                prop_assert_eq!(&again, &next, "applying again changes nothing and conflicts with nobody");
                live = Some(next);
            }
        }

        #[test]
        fn a_lone_applier_leaves_nothing_behind(configs in prop::collection::vec(config(), 1..6)) {
            let mut live: Option<Value> = None;
            for config in configs {
                let next = run(live.as_ref(), config.clone(), "m", false, T1).unwrap();
                prop_assert_eq!(wanted(&next), wanted(&config));
                live = Some(next);
            }
        }
    }
}
