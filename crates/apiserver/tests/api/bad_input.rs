//! Whatever comes in, the answer is Kubernetes' own kind of error, and the server goes on.

use axum::body::Body;
use http::{Method, Request};
use serde_json::{Value, json};

use apiserver::{BODY_BYTES_MAX, DEPTH_MAX, HEADERS_BYTES_MAX, OBJECT_BYTES_MAX, User};

use crate::support::{get, post, raw, send, server, workload_server};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const JSON: &str = "application/json";

#[tokio::test]
async fn broken_bodies_are_bad_requests_and_the_server_goes_on() {
    let server = server().await;
    let deep = format!("{{\"data\":{}{}}}", "[".repeat(DEPTH_MAX), "]".repeat(DEPTH_MAX));
    let cases: [(&str, &str, Vec<u8>, u16, &str); 14] = [
        ("no body", JSON, vec![], 400, "BadRequest"),
        ("not JSON", JSON, b"{".to_vec(), 400, "BadRequest"),
        ("not an object", JSON, b"[]".to_vec(), 400, "BadRequest"),
        ("two objects", JSON, b"{}{}".to_vec(), 400, "BadRequest"),
        ("invalid UTF-8", JSON, b"{\"data\":{\"a\":\"\xff\"}}".to_vec(), 400, "BadRequest"),
        ("too deep", JSON, deep.into_bytes(), 400, "BadRequest"),
        (
            "another kind",
            JSON,
            br#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"x"}}"#.to_vec(),
            400,
            "BadRequest",
        ),
        (
            "an unknown kind",
            JSON,
            br#"{"apiVersion":"v1","kind":"Nope","metadata":{"name":"x"}}"#.to_vec(),
            400,
            "BadRequest",
        ),
        ("a kind of the wrong type", JSON, br#"{"apiVersion":1,"kind":{}}"#.to_vec(), 400, "BadRequest"),
        ("bad YAML", "application/yaml", b"a: [".to_vec(), 400, "BadRequest"),
        ("bad protobuf", "application/vnd.kubernetes.protobuf", b"k8s\0\xff".to_vec(), 400, "BadRequest"),
        ("a form", "application/x-www-form-urlencoded", b"a=b".to_vec(), 415, "UnsupportedMediaType"),
        ("metadata of the wrong type", JSON, br#"{"metadata":"x"}"#.to_vec(), 400, "BadRequest"),
        ("no name", JSON, br#"{"metadata":{}}"#.to_vec(), 422, "Invalid"),
    ];
    for (what, content_type, body, code, reason) in cases {
        let answer = send(&server, Method::POST, MAPS, content_type, body).await;
        let (found, found_reason, message) = answer.status();
        assert_eq!((found, found_reason.as_str()), (code, reason), "{what}: {message}");
        assert_eq!(answer.json()["kind"], "Status", "{what}");
    }
    assert_eq!(post(&server, MAPS, &json!({"metadata": {"name": "fine"}})).await.code, 201);
}

#[tokio::test]
async fn wrong_fields_are_named_with_their_path() {
    let server = workload_server().await;
    let container = json!({"name": "c", "image": "i"});
    let deployment = |change: &dyn Fn(&mut Value)| {
        let mut object = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
            "spec": {
                "selector": {"matchLabels": {"a": "b"}},
                "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [container]}},
            },
        });
        change(&mut object);
        object
    };
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let mistyped = deployment(&|d| d["spec"]["replicas"] = "three".into());
    let (code, _, message) = post(&server, path, &mistyped).await.status();
    assert_eq!(code, 400);
    assert!(message.ends_with("into Go struct field DeploymentSpec.spec.replicas of type int32"), "{message}");
    let cases: [(&str, Value); 3] = [
        ("spec.selector", deployment(&|d| drop(d["spec"].as_object_mut().unwrap().remove("selector")))),
        ("spec.template.metadata.labels", deployment(&|d| d["spec"]["selector"]["matchLabels"]["a"] = "c".into())),
        ("metadata.name", deployment(&|d| d["metadata"]["name"] = "a".repeat(254).into())),
    ];
    for (field, object) in cases {
        let answer = post(&server, path, &object).await;
        assert_eq!(answer.code, 422, "{field}: {}", answer.json());
        let causes = answer.json()["details"]["causes"].clone();
        let fields: Vec<_> =
            causes.as_array().unwrap().iter().map(|c| c["field"].as_str().unwrap().to_owned()).collect();
        assert!(fields.iter().any(|f| f == field), "{field}: {fields:?}");
    }
    let unknown = deployment(&|d| d["spec"]["bogus"] = 1.into());
    let warned = post(&server, path, &unknown).await;
    assert_eq!((warned.code, warned.warnings()), (201, vec!["299 - \"unknown field \\\"spec.bogus\\\"\""]));
    let strict = post(&server, &format!("{path}?fieldValidation=Strict"), &unknown).await;
    assert_eq!(strict.code, 400);
    let twice = br#"{"metadata":{"name":"x"},"data":{"a":"1","a":"2"}}"#.to_vec();
    let strict = send(&server, Method::POST, &format!("{MAPS}?fieldValidation=Strict"), JSON, twice).await;
    assert!(strict.status().2.ends_with("strict decoding error: duplicate field \"data.a\""), "{:?}", strict.status());
    assert_eq!(post(&server, &format!("{path}?fieldValidation=Maybe"), &unknown).await.code, 422);
}

#[tokio::test]
async fn sizes_hold_at_one_more() {
    let server = server().await;
    let too_large = send(&server, Method::POST, MAPS, JSON, vec![b' '; BODY_BYTES_MAX + 1]).await;
    assert_eq!(
        too_large.status(),
        (413, "RequestEntityTooLarge".into(), "Request entity too large: limit is 3145728".into())
    );
    let at_the_limit = send(&server, Method::POST, MAPS, JSON, vec![b' '; BODY_BYTES_MAX]).await;
    assert_eq!(at_the_limit.code, 400);
    let chunks = futures::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b' '; 1 << 20]));
    let endless = send(&server, Method::POST, MAPS, JSON, Body::from_stream(chunks)).await;
    assert_eq!(endless.code, 413);
    let events = "/api/v1/namespaces/default/events";
    let object = |bytes: usize| {
        let about = json!({"kind": "Pod", "name": "p", "namespace": "default"});
        json!({"metadata": {"name": "big"}, "involvedObject": about, "message": "v".repeat(bytes)})
    };
    let refused = post(&server, events, &object(OBJECT_BYTES_MAX)).await;
    assert_eq!((refused.code, refused.json()["message"].as_str()), (500, Some("etcdserver: request is too large")));
    assert_eq!(post(&server, events, &object(1000)).await.code, 201);
    let header = |bytes: usize| Request::get(MAPS).header("x", "v".repeat(bytes)).body(Body::empty()).unwrap();
    let user = User::master("test");
    assert_eq!(raw(&server, &user, header(HEADERS_BYTES_MAX)).await.status(), 431);
    assert_eq!(raw(&server, &user, header(HEADERS_BYTES_MAX - 1)).await.status(), 200);
}

#[tokio::test]
async fn a_yaml_bomb_does_not_go_off() {
    let server = server().await;
    let mut bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for (name, before) in "bcdefghij".chars().zip("abcdefghi".chars()) {
        let list = vec![format!("*{before}"); 10].join(", ");
        bomb.push_str(&format!("{name}: &{name} [{list}]\n"));
    }
    assert_eq!(send(&server, Method::POST, MAPS, "application/yaml", bomb).await.code, 400);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let server = server().await;
    let never = Body::from_stream(futures::stream::pending::<Result<Vec<u8>, std::io::Error>>());
    let answer = send(&server, Method::POST, MAPS, JSON, never).await;
    assert_eq!(answer.status().0, 400);
}

#[tokio::test]
async fn parameters_that_mean_nothing_are_refused() {
    let server = server().await;
    for query in [
        "limit=x",
        "labelSelector=a%20b",
        "fieldSelector=metadata.name",
        "continue=nonsense",
        "resourceVersion=x",
        "watch=true&timeoutSeconds=x",
        "a=%ff",
    ] {
        assert_eq!(get(&server, &format!("{MAPS}?{query}")).await.code, 400, "{query}");
    }
    for query in ["resourceVersionMatch=Exact", "resourceVersion=1&resourceVersionMatch=Nearly"] {
        assert_eq!(get(&server, &format!("{MAPS}?{query}")).await.code, 422, "{query}");
    }
    let body = json!({"propagationPolicy": "Sideways"}).to_string();
    assert_eq!(send(&server, Method::DELETE, &format!("{MAPS}/x"), JSON, body).await.code, 422);
    let accept = Request::get(MAPS).header("accept", "text/html").body(Body::empty()).unwrap();
    assert_eq!(raw(&server, &User::master("test"), accept).await.status(), 406);
    let long = format!("{MAPS}?fieldManager={}", "m".repeat(129));
    assert_eq!(post(&server, &long, &json!({"metadata": {"name": "x"}})).await.code, 422);
}

#[tokio::test(start_paused = true)]
async fn a_request_more_than_a_users_share_waits_and_is_then_asked_to_come_again() {
    use tower::ServiceExt;
    let limits = apiserver::RequestLimits { reads: 2, writes: 2 };
    let server = crate::support::server_with(apiserver::Options { limits, ..Default::default() }).await;
    let binding = json!({
        "metadata": {"name": "all"}, "roleRef": {"kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "User", "name": "system:anonymous"}],
    });
    assert_eq!(post(&server, "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", &binding).await.code, 201);
    let never = Body::from_stream(futures::stream::pending::<Result<Vec<u8>, std::io::Error>>());
    let request = Request::post(MAPS).header("content-type", JSON).body(never).unwrap();
    let mut slow = Box::pin(server.router().oneshot(request));
    assert!(futures::FutureExt::now_or_never(&mut slow).is_none());
    let make = async |name: &str| {
        let body = json!({"metadata": {"name": name}}).to_string();
        let request = Request::post(MAPS).header("content-type", JSON).body(Body::from(body)).unwrap();
        let response = server.router().oneshot(request).await.unwrap();
        (response.status().as_u16(), response.headers().contains_key("retry-after"))
    };
    let ask =
        async |path: &str| server.router().oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(make("a").await, (429, true));
    // Reads have seats of their own, and a watch takes none.
    assert_eq!(ask(MAPS).await.status(), 200);
    assert_eq!(ask(&format!("{MAPS}?watch=true")).await.status(), 200);
    drop(slow);
    assert_eq!(make("a").await, (201, false));
}
