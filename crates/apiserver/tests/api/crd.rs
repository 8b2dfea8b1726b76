use http::Method;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api,
    runtime::{conditions, wait::await_condition},
};
use serde_json::{Value, json};

use apiserver::{Options, Server};

use crate::support::{client, delete, eventually, get, merge, post, put, send, server, server_with};

const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const WIDGETS: &str = "/apis/example.com/v1/namespaces/default/widgets";

pub fn widgets() -> Value {
    let spec = json!({
        "type": "object", "required": ["size"],
        "properties": {
            "size": {"type": "integer", "minimum": 0, "maximum": 9},
            "color": {"type": "string", "default": "red"},
        },
    });
    let schema = json!({"openAPIV3Schema": {
        "type": "object",
        "properties": {
            "spec": spec,
            "status": {"type": "object", "properties": {"size": {"type": "integer"}, "selector": {"type": "string"}}},
        },
    }});
    let scale = json!({
        "specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size", "labelSelectorPath": ".status.selector",
    });
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"kind": "Widget", "plural": "widgets", "shortNames": ["wd"], "categories": ["all"]},
            "versions": [
                {"name": "v1", "served": true, "storage": true, "schema": schema,
                 "subresources": {"status": {}, "scale": scale}},
                {"name": "v1beta1", "served": true, "storage": false, "schema": schema, "deprecated": true,
                 "subresources": {"status": {}}},
            ],
        },
    })
}

async fn with_widgets() -> Server {
    server_with(Options { crds: vec![widgets()], ..Options::default() }).await
}

fn widget(name: &str, size: i64) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name}, "spec": {"size": size}})
}

#[tokio::test]
async fn a_crd_is_established_and_served_at_once() {
    let server = server().await;
    let made = post(&server, CRDS, &widgets()).await;
    assert_eq!(made.code, 201, "{:?}", made.status());
    assert_eq!(made.json()["status"]["storedVersions"], json!(["v1"]));
    let stands = get(&server, &format!("{CRDS}/widgets.example.com")).await.json();
    assert_eq!(stands["status"]["acceptedNames"]["listKind"], "WidgetList");
    let crds: Api<CustomResourceDefinition> = Api::all(client(&server));
    await_condition(crds, "widgets.example.com", conditions::is_crd_established()).await.unwrap();
    let resources = get(&server, "/apis/example.com/v1").await.json();
    let names: Vec<_> = resources["resources"].as_array().unwrap().iter().map(|r| r["name"].clone()).collect();
    assert_eq!(names, ["widgets", "widgets/status", "widgets/scale"]);
    assert_eq!(post(&server, WIDGETS, &widget("a", 1)).await.code, 201);
}

#[tokio::test]
async fn objects_of_a_crd_are_defaulted_pruned_and_validated() {
    let server = with_widgets().await;
    let mut object = widget("a", 3);
    object["spec"]["bogus"] = 1.into();
    let made = post(&server, WIDGETS, &object).await;
    assert_eq!(made.json()["spec"], json!({"size": 3, "color": "red"}));
    assert_eq!(made.json()["metadata"]["generation"], 1);
    assert_eq!(made.warnings(), ["299 - \"unknown field \\\"spec.bogus\\\"\""]);
    let strict = post(&server, &format!("{WIDGETS}?fieldValidation=Strict"), &object).await;
    assert_eq!(strict.code, 400);
    let text =
        "Widget in version \"v1\" cannot be handled as a Widget: strict decoding error: unknown field \"spec.bogus\"";
    assert_eq!(strict.status().2, text);
    let ignored = put(&server, &format!("{WIDGETS}/a?fieldValidation=Ignore"), &object).await;
    assert!(ignored.warnings().is_empty());
    let wrong = post(&server, WIDGETS, &json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "b"}, "spec": {"size": 10, "color": 1}})).await;
    assert_eq!(wrong.code, 422);
    let causes = wrong.json()["details"]["causes"].clone();
    let fields: Vec<_> = causes.as_array().unwrap().iter().map(|c| c["field"].clone()).collect();
    assert!(fields.contains(&json!("spec.size")) && fields.contains(&json!("spec.color")), "{fields:?}");
    let missing = post(
        &server,
        WIDGETS,
        &json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "b"}, "spec": {}}),
    )
    .await;
    assert_eq!(missing.status().2, "Widget.example.com \"b\" is invalid: spec.size: Required value");
}

#[tokio::test]
async fn the_status_is_a_world_of_its_own_and_only_the_spec_counts_generations() {
    let server = with_widgets().await;
    let mut object = widget("a", 1);
    object["status"] = json!({"size": 7});
    assert_eq!(post(&server, WIDGETS, &object).await.json().get("status"), None);
    let path = format!("{WIDGETS}/a");
    let patch = json!({"status": {"size": 2}, "spec": {"size": 5}, "metadata": {"labels": {"a": "b"}}});
    let changed = merge(&server, &format!("{path}/status"), &patch).await.json();
    assert_eq!((&changed["status"]["size"], &changed["spec"]["size"]), (&json!(2), &json!(1)));
    assert_eq!((&changed["metadata"]["generation"], changed["metadata"].get("labels")), (&json!(1), None));
    let changed = merge(&server, &path, &patch).await.json();
    assert_eq!((&changed["status"]["size"], &changed["spec"]["size"]), (&json!(2), &json!(5)));
    assert_eq!((&changed["metadata"]["generation"], &changed["metadata"]["labels"]["a"]), (&json!(2), &json!("b")));
}

#[tokio::test]
async fn the_scale_reads_and_writes_the_replicas() {
    let server = with_widgets().await;
    post(&server, WIDGETS, &widget("a", 1)).await;
    merge(&server, &format!("{WIDGETS}/a/status"), &json!({"status": {"size": 1, "selector": "a=b"}})).await;
    let path = format!("{WIDGETS}/a/scale");
    let scale = get(&server, &path).await.json();
    assert_eq!((&scale["kind"], &scale["spec"]["replicas"]), (&json!("Scale"), &json!(1)));
    assert_eq!(scale["status"], json!({"replicas": 1, "selector": "a=b"}));
    assert_eq!(merge(&server, &path, &json!({"spec": {"replicas": 4}})).await.json()["spec"]["replicas"], 4);
    let mut put_scale = get(&server, &path).await.json();
    put_scale["spec"]["replicas"] = 5.into();
    assert_eq!(put(&server, &path, &put_scale).await.code, 200);
    assert_eq!(put(&server, &path, &put_scale).await.code, 409);
    assert_eq!(merge(&server, &path, &json!({"spec": {"replicas": -1}})).await.code, 422);
    assert_eq!(merge(&server, &path, &json!({"spec": {"replicas": 10}})).await.code, 422);
    assert_eq!(get(&server, &format!("{WIDGETS}/a")).await.json()["spec"]["size"], 5);
}

#[tokio::test]
async fn every_served_version_shows_the_same_objects() {
    let server = with_widgets().await;
    post(&server, WIDGETS, &widget("a", 1)).await;
    let path = "/apis/example.com/v1beta1/namespaces/default/widgets";
    let old = get(&server, &format!("{path}/a")).await;
    assert_eq!(old.json()["apiVersion"], "example.com/v1beta1");
    assert_eq!(old.warnings(), ["299 - \"example.com/v1beta1 Widget is deprecated; use example.com/v1 Widget\""]);
    assert_eq!(get(&server, path).await.json()["items"][0]["apiVersion"], "example.com/v1beta1");
    let mut object = widget("b", 2);
    object["apiVersion"] = "example.com/v1beta1".into();
    assert_eq!(post(&server, path, &object).await.json()["apiVersion"], "example.com/v1beta1");
    assert_eq!(get(&server, &format!("{WIDGETS}/b")).await.json()["apiVersion"], "example.com/v1");
    let group = get(&server, "/apis/example.com").await.json();
    assert_eq!(group["preferredVersion"]["version"], "v1");
}

#[tokio::test]
async fn a_crd_that_could_not_be_served_is_refused() {
    let server = with_widgets().await;
    let change = |change: &dyn Fn(&mut Value)| {
        let mut crd = widgets();
        crd["metadata"]["name"] = "gadgets.example.com".into();
        crd["spec"]["names"] = json!({"kind": "Gadget", "plural": "gadgets"});
        change(&mut crd);
        crd
    };
    let cases: [(&str, Value); 6] = [
        ("metadata.name", change(&|c| c["metadata"]["name"] = "other.example.com".into())),
        ("spec.scope", change(&|c| c["spec"]["scope"] = "Galaxy".into())),
        ("spec.versions", change(&|c| c["spec"]["versions"][0]["storage"] = false.into())),
        ("spec.conversion.webhookClientConfig", change(&|c| c["spec"]["conversion"] = json!({"strategy": "Webhook"}))),
        (
            "spec.versions[0].schema.openAPIV3Schema",
            change(&|c| drop(c["spec"]["versions"][0].as_object_mut().unwrap().remove("schema"))),
        ),
        (
            "spec.versions[0].schema.openAPIV3Schema.properties[spec]",
            change(&|c| {
                c["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"] = json!({"properties": {}});
            }),
        ),
    ];
    for (field, crd) in cases {
        let refused = post(&server, CRDS, &crd).await;
        assert_eq!(refused.code, 422, "{field}: {}", refused.json());
        let causes = refused.json()["details"]["causes"].clone();
        let fields: Vec<_> =
            causes.as_array().unwrap().iter().map(|c| c["field"].as_str().unwrap().to_owned()).collect();
        assert!(fields.iter().any(|f| f.starts_with(field)), "{field}: {fields:?}");
    }
    post(&server, CRDS, &change(&|c| c["spec"]["names"]["shortNames"] = json!(["wd"]))).await;
    let taken = get(&server, &format!("{CRDS}/gadgets.example.com")).await.json();
    assert_eq!(taken["status"]["conditions"][0]["reason"], "ShortNamesConflict");
    assert_eq!(taken["status"]["conditions"][1]["status"], "False");
    assert_eq!(get(&server, "/apis/example.com/v1/gadgets").await.code, 404);
    delete(&server, &format!("{CRDS}/widgets.example.com")).await;
    let served = async || get(&server, "/apis/example.com/v1/gadgets").await.code == 200;
    eventually(&server, "the names are free", served).await;
}

#[tokio::test]
async fn a_crd_takes_its_objects_with_it() {
    let server = with_widgets().await;
    let mut held = widget("held", 1);
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    post(&server, WIDGETS, &widget("a", 1)).await;
    post(&server, WIDGETS, &held).await;
    let crd = format!("{CRDS}/widgets.example.com");
    assert_eq!(delete(&server, &crd).await.code, 200);
    assert_eq!(post(&server, WIDGETS, &widget("late", 1)).await.code, 405);
    eventually(&server, "the free object goes", async || get(&server, &format!("{WIDGETS}/a")).await.code == 404).await;
    assert_eq!(get(&server, &crd).await.code, 200);
    merge(&server, &format!("{WIDGETS}/held"), &json!({"metadata": {"finalizers": null}})).await;
    eventually(&server, "the CRD goes", async || get(&server, &crd).await.code == 404).await;
    assert_eq!(get(&server, WIDGETS).await.code, 404);
}

#[tokio::test]
async fn server_side_apply_owns_what_it_says() {
    let server = with_widgets().await;
    let path = format!("{WIDGETS}/a");
    let apply = async |manager: &str, force: bool, object: Value| {
        let path = format!("{path}?fieldManager={manager}&force={force}");
        send(&server, Method::PATCH, &path, "application/apply-patch+yaml", object.to_string()).await
    };
    let made = apply("one", false, widget("a", 1)).await;
    assert_eq!(made.code, 201, "{:?}", made.status());
    let managed = made.json()["metadata"]["managedFields"].clone();
    assert_eq!((&managed[0]["manager"], &managed[0]["operation"]), (&json!("one"), &json!("Apply")));
    let again = apply("one", false, widget("a", 1)).await;
    assert_eq!(again.json()["metadata"]["resourceVersion"], made.json()["metadata"]["resourceVersion"]);
    let conflict = apply("two", false, widget("a", 2)).await;
    assert_eq!((conflict.code, &conflict.json()["reason"]), (409, &json!("Conflict")));
    assert_eq!(conflict.json()["details"]["causes"][0]["field"], ".spec.size");
    let forced = apply("two", true, widget("a", 2)).await;
    assert_eq!((forced.code, &forced.json()["spec"]["size"]), (200, &json!(2)));
    assert_eq!(forced.json()["metadata"]["generation"], 2);
    let nameless =
        send(&server, Method::PATCH, &path, "application/apply-patch+yaml", widget("a", 1).to_string()).await;
    assert_eq!(nameless.code, 422);
}
