//! Admission webhooks: real ones, over TLS, that do as their path says.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use apiserver::{Options, Profile, Server};
use axum::{Json, Router, extract::Path, response::IntoResponse, routing::post as on_post};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::Method;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::{
    hook::{Hook, serve},
    support::{Answer, delete, get, merge, post, put, send, server, server_with, workload_server},
};

const MUTATING: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
const VALIDATING: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

type Seen = Arc<Mutex<Vec<Value>>>;

fn answer(review: &Value, mut response: Value) -> axum::response::Response {
    response["uid"] = review["request"]["uid"].clone();
    Json(json!({"kind": "AdmissionReview", "apiVersion": review["apiVersion"], "response": response})).into_response()
}

fn patch(review: &Value, operations: Value) -> axum::response::Response {
    let patch = STANDARD.encode(operations.to_string());
    answer(review, json!({"allowed": true, "patchType": "JSONPatch", "patch": patch}))
}

async fn act(seen: Seen, path: String, review: Value) -> axum::response::Response {
    let request = review["request"].clone();
    seen.lock().push(request.clone());
    let count = request["object"]["data"].as_object().map_or(0, serde_json::Map::len);
    match path.as_str() {
        "allow" => answer(&review, json!({"allowed": true, "warnings": ["mind the gap"]})),
        "deny" => answer(&review, json!({"allowed": false, "status": {"message": "not today", "code": 403, "reason": "Forbidden"}})),
        "deny-silently" => answer(&review, json!({"allowed": false})),
        "label" => patch(&review, json!([{"op": "add", "path": "/metadata/labels", "value": {"seen": "yes"}}])),
        "count" => patch(&review, json!([{"op": "add", "path": "/data/count", "value": count.to_string()}])),
        "unknown" => patch(&review, json!([{"op": "add", "path": "/unknown", "value": 1}, {"op": "add", "path": "/immutable", "value": false}])),
        "invalid" => patch(&review, json!([{"op": "replace", "path": "/data", "value": {"a b": "x"}}])),
        "misfit" => patch(&review, json!([{"op": "replace", "path": "/data", "value": [1]}])),
        "misplaced" => patch(&review, json!([{"op": "replace", "path": "/a/b/c", "value": 1}])),
        "garbage" => "what?".into_response(),
        "other-uid" => Json(json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": {"uid": "x", "allowed": true}})).into_response(),
        "huge" => format!("\"{}\"", "x".repeat(9 << 20)).into_response(),
        "broken" => (http::StatusCode::INTERNAL_SERVER_ERROR, "oh no").into_response(),
        "slow" => std::future::pending().await,
        _ => http::StatusCode::NOT_FOUND.into_response(),
    }
}

async fn hook() -> (Hook, Seen) {
    let seen = Seen::default();
    let app = {
        let seen = Arc::clone(&seen);
        Router::new().route(
            "/{path}",
            on_post(move |Path(path): Path<String>, Json(review): Json<Value>| act(seen, path, review)),
        )
    };
    (serve(app, &["hooks.default.svc"]).await, seen)
}

fn webhook(hook: &Hook, path: &str, more: Value) -> Value {
    let mut webhook = json!({
        "name": format!("{path}.example.com"), "clientConfig": hook.config(&format!("/{path}")), "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "rules": [{"operations": ["CREATE", "UPDATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}],
    });
    for (key, value) in more.as_object().unwrap() {
        webhook[key] = value.clone();
    }
    webhook
}

async fn configure(server: &Server, path: &str, name: &str, webhooks: Vec<Value>) {
    let made = post(server, path, &json!({"metadata": {"name": name}, "webhooks": webhooks})).await;
    assert_eq!(made.code, 201, "{:?}", made.status());
}

async fn make(server: &Server, name: &str) -> Answer {
    post(server, MAPS, &json!({"metadata": {"name": name}, "data": {"k": "v"}})).await
}

#[tokio::test]
async fn a_webhook_is_asked_and_its_no_is_told() {
    let server = server().await;
    let (hook, seen) = hook().await;
    configure(&server, VALIDATING, "a", vec![webhook(&hook, "allow", json!({}))]).await;
    let made = make(&server, "a").await;
    assert_eq!((made.code, made.warnings()), (201, vec!["299 - \"mind the gap\""]));
    let request = seen.lock().pop().unwrap();
    assert_eq!(request["kind"], json!({"group": "", "version": "v1", "kind": "ConfigMap"}));
    assert_eq!(request["resource"], json!({"group": "", "version": "v1", "resource": "configmaps"}));
    assert_eq!(
        (&request["operation"], &request["name"], &request["namespace"]),
        (&json!("CREATE"), &json!("a"), &json!("default"))
    );
    assert_eq!(request["userInfo"]["username"], "test");
    assert_eq!((&request["dryRun"], &request["oldObject"]), (&json!(false), &Value::Null));
    assert_eq!(request["options"]["kind"], "CreateOptions");
    assert_eq!(request["object"]["metadata"]["uid"], made.json()["metadata"]["uid"], "validation sees what is stored");
    assert_eq!(merge(&server, &format!("{MAPS}/a"), &json!({"data": {"k": "w"}})).await.code, 200);
    let request = seen.lock().pop().unwrap();
    assert_eq!((&request["oldObject"]["data"]["k"], &request["object"]["data"]["k"]), (&json!("v"), &json!("w")));
    configure(&server, VALIDATING, "b", vec![webhook(&hook, "deny", json!({}))]).await;
    let text = "admission webhook \"deny.example.com\" denied the request: not today";
    assert_eq!(make(&server, "b").await.status(), (403, "Forbidden".into(), text.into()));
    assert_eq!(get(&server, &format!("{MAPS}/b")).await.code, 404);
    assert_eq!(delete(&server, &format!("{VALIDATING}/b")).await.code, 200);
    configure(&server, MUTATING, "b", vec![webhook(&hook, "deny-silently", json!({}))]).await;
    let text = "admission webhook \"deny-silently.example.com\" denied the request without explanation";
    assert_eq!(make(&server, "b").await.status(), (400, String::new(), text.into()));
    let own = get(&server, VALIDATING).await.json();
    assert_eq!(own["items"][0]["webhooks"][0]["timeoutSeconds"], 10, "defaults are set");
    assert_eq!(delete(&server, &format!("{MUTATING}/b")).await.code, 200);
    assert_eq!(make(&server, "b").await.code, 201, "what is gone is not asked");
}

#[tokio::test]
async fn what_a_webhook_makes_of_an_object_is_decoded_anew() {
    let server = server().await;
    let (hook, _) = hook().await;
    configure(&server, MUTATING, "m", vec![webhook(&hook, "label", json!({})), webhook(&hook, "unknown", json!({}))])
        .await;
    let made = make(&server, "a").await;
    assert_eq!(made.code, 201, "{:?}", made.status());
    let object = made.json();
    assert_eq!(object["metadata"]["labels"], json!({"seen": "yes"}));
    assert_eq!((object.get("unknown"), &object["immutable"]), (None, &json!(false)));
    assert!(!object["metadata"]["managedFields"].to_string().contains("f:seen"), "nobody owns what a webhook sets");
    let wrong = [
        ("invalid", 422, "ConfigMap \"b\" is invalid: data[a b]: Invalid value: \"a b\""),
        (
            "misfit",
            500,
            "Internal error occurred: json: cannot unmarshal array into Go struct field ConfigMap.data of type map[string]string",
        ),
        ("misplaced", 500, "Internal error occurred: replace operation does not apply: doc is missing path"),
    ];
    for (path, code, text) in wrong {
        assert_eq!(delete(&server, &format!("{MUTATING}/m")).await.code, 200);
        configure(&server, MUTATING, "m", vec![webhook(&hook, path, json!({}))]).await;
        let refused = make(&server, "b").await;
        assert_eq!(refused.code, code, "{path}");
        assert!(refused.status().2.contains(text), "{path}: {:?}", refused.status());
    }
}

#[tokio::test]
async fn those_who_want_it_see_what_others_made_later() {
    let server = server().await;
    let (hook, seen) = hook().await;
    let again = json!({"reinvocationPolicy": "IfNeeded"});
    configure(&server, MUTATING, "a", vec![webhook(&hook, "count", again), webhook(&hook, "label", json!({}))]).await;
    let made = make(&server, "a").await.json();
    let asked: Vec<bool> = seen.lock().iter().map(|r| r["object"]["metadata"].get("labels").is_some()).collect();
    assert_eq!(asked, [false, false, true], "the first one is asked once more, the second is not");
    assert_eq!(made["data"]["count"], "2");
}

#[tokio::test]
async fn a_webhook_that_fails_is_fatal_or_not_as_its_policy_says() {
    let server = server().await;
    let (hook, _) = hook().await;
    let cases = [
        ("garbage", "failed to call webhook: couldn't get version/kind; json parse error: invalid character 'w' looking for beginning of value".to_owned()),
        ("other-uid", "received invalid webhook response: expected response.uid=".to_owned()),
        ("huge", "the answer has more than 8388608 bytes".to_owned()),
        ("broken", "failed to call webhook: an error on the server (\"oh no\") has prevented the request from succeeding".to_owned()),
        ("nowhere", "failed to call webhook: the server could not find the requested resource".to_owned()),
        ("slow", format!("failed to call webhook: Post \"{}/slow?timeout=1s\": context deadline exceeded", hook.base)),
    ];
    for (path, text) in cases {
        configure(&server, VALIDATING, "v", vec![webhook(&hook, path, json!({"timeoutSeconds": 1}))]).await;
        let refused = make(&server, "x").await;
        let start = format!("Internal error occurred: failed calling webhook \"{path}.example.com\": ");
        let (code, reason, message) = refused.status();
        assert_eq!((code, reason.as_str()), (500, "InternalError"), "{path}");
        assert!(message.starts_with(&start) && message.contains(&text), "{path}: {message}");
        assert_eq!(delete(&server, &format!("{VALIDATING}/v")).await.code, 200);
        let lenient = json!({"timeoutSeconds": 1, "failurePolicy": "Ignore"});
        configure(&server, MUTATING, "v", vec![webhook(&hook, path, lenient)]).await;
        let made = make(&server, path).await;
        assert_eq!(made.code, 201, "{path}: {:?}", made.status());
        assert_eq!(delete(&server, &format!("{MUTATING}/v")).await.code, 200);
    }
}

#[tokio::test]
async fn connections_are_kept_and_nobody_listening_is_an_error() {
    let server = server().await;
    let (hook, _) = hook().await;
    configure(&server, VALIDATING, "v", vec![webhook(&hook, "allow", json!({}))]).await;
    for name in ["a", "b", "c"] {
        assert_eq!(make(&server, name).await.code, 201);
    }
    assert_eq!(hook.connections.load(Ordering::Relaxed), 1);
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut gone = webhook(&hook, "gone", json!({}));
    gone["clientConfig"]["url"] = format!("https://{closed}/gone").into();
    configure(&server, VALIDATING, "w", vec![gone]).await;
    let text = format!(
        "Internal error occurred: failed calling webhook \"gone.example.com\": failed to call webhook: Post \
         \"https://{closed}/gone?timeout=10s\": dial tcp {closed}: connect: connection refused"
    );
    assert_eq!(make(&server, "d").await.status().2, text);
}

#[tokio::test]
async fn only_requests_that_match_are_sent() {
    let server = server().await;
    let (hook, seen) = hook().await;
    let rule = |operations: Value, groups: Value, resources: Value| json!([{"operations": operations, "apiGroups": groups, "apiVersions": ["*"], "resources": resources}]);
    let maps = rule(json!(["*"]), json!([""]), json!(["configmaps"]));
    let cases = [
        (json!({"rules": maps, "objectSelector": {"matchLabels": {"a": "b"}}}), false),
        (json!({"rules": maps, "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "other"}}}), false),
        (
            json!({"rules": maps, "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "default"}}}),
            true,
        ),
        (
            json!({"rules": maps, "matchConditions": [{"name": "no", "expression": "object.metadata.name == 'other'"}]}),
            false,
        ),
        (
            json!({"rules": maps, "matchConditions": [{"name": "who", "expression": "request.userInfo.username == 'test' && authorizer.requestResource.check('create').allowed()"}]}),
            true,
        ),
        (json!({"rules": rule(json!(["UPDATE"]), json!([""]), json!(["configmaps"]))}), false),
        (json!({"rules": rule(json!(["*"]), json!(["*"]), json!(["*"]))}), true),
        (json!({"rules": rule(json!(["*"]), json!([""]), json!(["configmaps/status"]))}), false),
        (json!({"rules": rule(json!(["*"]), json!([""]), json!(["*/*"]))}), true),
    ];
    for (i, (more, asked)) in cases.into_iter().enumerate() {
        configure(&server, VALIDATING, "v", vec![webhook(&hook, "allow", more.clone())]).await;
        seen.lock().clear();
        let made = make(&server, &format!("m{i}")).await;
        assert_eq!(made.code, 201, "{:?}", made.status());
        assert_eq!(!seen.lock().is_empty(), asked, "{more}");
        assert_eq!(delete(&server, &format!("{VALIDATING}/v")).await.code, 200);
    }
    assert!(seen.lock().iter().all(|request| request["kind"]["kind"] != "ValidatingWebhookConfiguration"));
    let fails = json!({"rules": maps, "matchConditions": [{"name": "bad", "expression": "object.nothing == 'x'"}]});
    configure(&server, VALIDATING, "v", vec![webhook(&hook, "allow", fails)]).await;
    let text =
        "configmaps \"z\" is forbidden: expression 'object.nothing == 'x'' resulted in error: no such key: nothing";
    assert_eq!(make(&server, "z").await.status(), (403, "Forbidden".into(), text.into()));
}

#[tokio::test]
async fn deletions_and_dry_runs_are_told_as_such() {
    let server = server().await;
    let (hook, seen) = hook().await;
    let all =
        json!([{"operations": ["DELETE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}]);
    assert_eq!(make(&server, "a").await.code, 201);
    configure(&server, VALIDATING, "v", vec![webhook(&hook, "deny", json!({"rules": all}))]).await;
    assert_eq!(delete(&server, &format!("{MAPS}/a")).await.code, 403);
    let request = seen.lock().pop().unwrap();
    assert_eq!(
        (&request["operation"], &request["object"], &request["oldObject"]["metadata"]["name"]),
        (&json!("DELETE"), &Value::Null, &json!("a"))
    );
    assert_eq!(request["options"]["kind"], "DeleteOptions");
    assert_eq!(delete(&server, &format!("{VALIDATING}/v")).await.code, 200);
    configure(&server, MUTATING, "m", vec![webhook(&hook, "label", json!({}))]).await;
    let tried = post(&server, &format!("{MAPS}?dryRun=All"), &json!({"metadata": {"name": "b"}})).await;
    assert_eq!((tried.code, &tried.json()["metadata"]["labels"]["seen"]), (201, &json!("yes")));
    assert_eq!(seen.lock().pop().unwrap()["dryRun"], true);
    assert_eq!(get(&server, &format!("{MAPS}/b")).await.code, 404);
}

#[tokio::test]
async fn a_service_is_found_by_its_endpoints() {
    let server = workload_server().await;
    let (hook, _) = hook().await;
    let mut named = webhook(&hook, "allow", json!({}));
    named["clientConfig"] = json!({"caBundle": hook.ca, "service": {"namespace": "default", "name": "hooks", "path": "/allow", "port": 8443}});
    configure(&server, VALIDATING, "v", vec![named]).await;
    let failed = |why: &str| {
        format!(
            "Internal error occurred: failed calling webhook \"allow.example.com\": failed to call webhook: Post \
             \"https://hooks.default.svc:8443/allow?timeout=10s\": {why}"
        )
    };
    assert_eq!(make(&server, "a").await.status().2, failed("service \"hooks\" not found"));
    let service = json!({"metadata": {"name": "hooks"}, "spec": {"ports": [{"port": 8443, "targetPort": 1}]}});
    assert_eq!(post(&server, "/api/v1/namespaces/default/services", &service).await.code, 201);
    assert_eq!(make(&server, "a").await.status().2, failed("no endpoints available for service \"hooks\""));
    let endpoints = json!({"metadata": {"name": "hooks"}, "subsets": [{"addresses": [{"ip": "127.0.0.1"}], "ports": [{"port": hook.port}]}]});
    assert_eq!(post(&server, "/api/v1/namespaces/default/endpoints", &endpoints).await.code, 201);
    let made = make(&server, "a").await;
    // The loopback address is refused as an endpoint by nobody here.
    assert_eq!(made.code, 201, "{:?}", made.status());
}

#[tokio::test]
async fn a_scale_is_shown_as_a_scale() {
    let server = server_with(Options { profile: Profile::Workload, ..Options::default() }).await;
    let (hook, seen) = hook().await;
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let deployment = json!({"metadata": {"name": "d"}, "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": template}});
    let path = "/apis/apps/v1/namespaces/default/deployments";
    assert_eq!(post(&server, path, &deployment).await.code, 201);
    let rules = json!([{"operations": ["*"], "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments/scale"]}]);
    configure(&server, VALIDATING, "v", vec![webhook(&hook, "allow", json!({"rules": rules}))]).await;
    let mut scale = get(&server, &format!("{path}/d/scale")).await.json();
    scale["spec"]["replicas"] = 3.into();
    assert_eq!(put(&server, &format!("{path}/d/scale"), &scale).await.code, 200);
    let request = seen.lock().pop().unwrap();
    assert_eq!(request["kind"], json!({"group": "autoscaling", "version": "v1", "kind": "Scale"}));
    assert_eq!(
        (&request["object"]["spec"]["replicas"], &request["oldObject"]["spec"]["replicas"]),
        (&json!(3), &json!(1))
    );
    assert_eq!(request["subResource"], "scale");
}

#[tokio::test]
async fn configurations_are_checked_as_kubernetes_checks_them() {
    let server = server().await;
    let (hook, _) = hook().await;
    let rule = |key: &str, value: Value| {
        let mut rule = json!({"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]});
        rule[key] = value;
        json!({"rules": [rule]})
    };
    let cases = [
        (
            json!({"name": "short"}),
            "webhooks[0].name: Invalid value: \"short\": should be a domain with at least three segments separated by dots",
        ),
        (
            json!({"sideEffects": null}),
            "webhooks[0].sideEffects: Required value: must specify one of None, NoneOnDryRun",
        ),
        (
            json!({"sideEffects": "Some"}),
            "webhooks[0].sideEffects: Unsupported value: \"Some\": supported values: \"None\", \"NoneOnDryRun\"",
        ),
        (
            json!({"timeoutSeconds": 31}),
            "webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds",
        ),
        (
            json!({"admissionReviewVersions": ["v2"]}),
            "webhooks[0].admissionReviewVersions: Invalid value: [\"v2\"]: must include at least one of v1, v1beta1",
        ),
        (
            rule("operations", json!(["*", "CREATE"])),
            "webhooks[0].rules[0].operations: Invalid value: [\"*\",\"CREATE\"]: if '*' is present, must not specify other operations",
        ),
        (
            rule("resources", json!(["*", "pods"])),
            "webhooks[0].rules[0].resources: Invalid value: [\"*\",\"pods\"]: if '*' is present, must not specify other resources without subresources",
        ),
        (rule("resources", json!(["pods/*", "pods/log"])), "if 'pods/*' is present, must not specify pods/log"),
        (
            json!({"matchConditions": [{"name": "x", "expression": "1"}]}),
            "webhooks[0].matchConditions[0].expression: Invalid value: \"1\": must evaluate to bool but got int",
        ),
        (
            json!({"clientConfig": {}}),
            "webhooks[0].clientConfig: Required value: exactly one of url or service is required",
        ),
    ];
    for (more, text) in cases {
        let body = json!({"metadata": {"name": "v"}, "webhooks": [webhook(&hook, "allow", more)]});
        let refused = send(&server, Method::POST, VALIDATING, "application/json", body.to_string()).await;
        assert_eq!(refused.code, 422);
        assert!(refused.status().2.contains(text), "{text}: {:?}", refused.status());
    }
}

#[tokio::test]
async fn webhooks_are_asked_about_other_versions_if_they_want() {
    let server = server().await;
    let (hook, seen) = hook().await;
    let calls = AtomicUsize::new(0);
    let version = |name: &str, storage: bool| json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}});
    let crd = json!({"metadata": {"name": "boxes.x.example.com"}, "spec": {"group": "x.example.com", "scope": "Namespaced",
        "names": {"kind": "Box", "plural": "boxes"}, "versions": [version("v1", true), version("v2", false)]}});
    assert_eq!(post(&server, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &crd).await.code, 201);
    let rules =
        json!([{"operations": ["*"], "apiGroups": ["x.example.com"], "apiVersions": ["v1"], "resources": ["boxes"]}]);
    for (policy, asked) in [("Exact", 0), ("Equivalent", 1)] {
        configure(
            &server,
            MUTATING,
            "m",
            vec![webhook(&hook, "label", json!({"rules": rules, "matchPolicy": policy}))],
        )
        .await;
        let name = format!("b{}", calls.fetch_add(1, Ordering::Relaxed));
        let object = json!({"apiVersion": "x.example.com/v2", "kind": "Box", "metadata": {"name": name}});
        let made = post(&server, "/apis/x.example.com/v2/namespaces/default/boxes", &object).await;
        assert_eq!((made.code, &made.json()["apiVersion"]), (201, &json!("x.example.com/v2")));
        assert_eq!(made.json()["metadata"].get("labels").is_some(), asked == 1);
        assert_eq!(seen.lock().len(), asked);
        if let Some(request) = seen.lock().pop() {
            assert_eq!(request["object"]["apiVersion"], "x.example.com/v1");
            assert_eq!((&request["kind"]["version"], &request["requestKind"]["version"]), (&json!("v1"), &json!("v2")));
        }
        assert_eq!(delete(&server, &format!("{MUTATING}/m")).await.code, 200);
    }
}
