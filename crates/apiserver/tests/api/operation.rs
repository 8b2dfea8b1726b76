//! What those who run a server see: audit, metrics, health.

use std::path::Path;

use apiserver::{Audit, AuditLog, AuditWebhook, Batching, Encryption, Options, Rotation, Server, User};
use axum::body::Body;
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{Method, Request};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::{
    hook,
    support::{delete, get, merge, post, put, raw, send_as, server, server_with},
};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const SECRETS: &str = "/api/v1/namespaces/default/secrets";

const POLICY: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: None, nonResourceURLs: [/livez*]}
- {level: Metadata, resources: [{group: '', resources: [secrets]}]}
- {level: RequestResponse, omitManagedFields: true, resources: [{group: '', resources: [configmaps]}], verbs: [create, watch]}
- {level: Request, verbs: [patch]}
- {level: Metadata, verbs: [get], omitStages: []}
";

async fn audited(folder: &Path) -> Server {
    let log = AuditLog::file(&folder.join("audit.log"), Rotation::default()).unwrap();
    let audit = Audit::new(POLICY, log).unwrap();
    server_with(Options { audit: Some(audit), ..Options::default() }).await
}

fn events(folder: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join("audit.log")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn the_audit_log_tells_who_did_what_and_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let server = audited(folder.path()).await;
    let anna = User::new("anna", ["acme"]);
    post(&server, MAPS, &json!({"metadata": {"name": "m"}, "data": {"a": "b"}})).await;
    post(&server, SECRETS, &json!({"metadata": {"name": "s"}, "stringData": {"p": "hunter2"}})).await;
    get(&server, &format!("{SECRETS}/s")).await;
    merge(&server, &format!("{MAPS}/m"), &json!({"data": {"a": "c"}})).await;
    get(&server, "/livez").await;
    send_as(&server, &anna, Method::GET, &format!("{MAPS}/m"), "", Body::empty()).await;
    let request = Request::get(format!("{MAPS}/m")).header("audit-id", "mine").header("x-forwarded-for", "10.1.2.3, x");
    let answer = raw(&server, &User::master("root"), request.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.headers()["audit-id"], "mine");
    delete(&server, &format!("{MAPS}/m")).await;
    server.shutdown().await;
    let text = std::fs::read_to_string(folder.path().join("audit.log")).unwrap();
    assert!(!text.contains("hunter2") && !text.contains("aHVudGVyMg"), "{text}");
    let events = events(folder.path());
    let seen: Vec<_> = events.iter().map(|e| (e["verb"].as_str().unwrap(), e["level"].as_str().unwrap())).collect();
    let wanted = [
        ("create", "RequestResponse"),
        ("create", "Metadata"),
        ("get", "Metadata"),
        ("patch", "Request"),
        ("get", "Metadata"),
        ("get", "Metadata"),
    ];
    assert_eq!(seen, wanted);
    let made = &events[0];
    assert_eq!(
        (&made["kind"], &made["apiVersion"], &made["stage"]),
        (&"Event".into(), &"audit.k8s.io/v1".into(), &"ResponseComplete".into())
    );
    assert_eq!(made["requestObject"]["data"], json!({"a": "b"}));
    assert!(made["responseObject"]["metadata"]["uid"].is_string());
    assert_eq!(made["responseObject"]["metadata"].get("managedFields"), None);
    assert_eq!(made["responseStatus"]["code"], 201);
    assert_eq!(made["objectRef"], json!({"apiVersion": "v1", "namespace": "default", "resource": "configmaps"}));
    assert_eq!((&made["userAgent"], &made["user"]["username"]), (&json!("test/1"), &json!("test")));
    assert_eq!(events[3]["requestObject"], json!({"data": {"a": "c"}}));
    assert_eq!(events[3].get("responseObject"), None);
    let refused = &events[4];
    assert_eq!((&refused["user"]["username"], &refused["responseStatus"]["code"]), (&json!("anna"), &json!(403)));
    assert_eq!(refused["responseStatus"]["reason"], "Forbidden");
    assert_eq!(refused["annotations"]["authorization.k8s.io/decision"], "forbid");
    assert_eq!((&events[5]["auditID"], &events[5]["sourceIPs"]), (&json!("mine"), &json!(["10.1.2.3"])));
}

#[tokio::test]
async fn a_webhook_takes_audit_events_in_batches_and_again_if_it_must() {
    let (sender, mut lists) = tokio::sync::mpsc::unbounded_channel::<Value>();
    let calls = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let take = move |body: bytes::Bytes| async move {
        if calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0 {
            return http::StatusCode::SERVICE_UNAVAILABLE;
        }
        sender.send(serde_json::from_slice(&body).unwrap()).unwrap();
        http::StatusCode::OK
    };
    let hook = hook::serve(axum::Router::new().route("/audit", axum::routing::post(take)), &[]).await;
    let kubeconfig = json!({
        "current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "k"}}],
        "clusters": [{"name": "k", "cluster": {"server": hook.url("/audit"), "certificate-authority-data": hook.ca}}],
    });
    let soon = std::time::Duration::from_millis(1);
    let batching = Batching { buffer_events: 3, batch_events: 2, wait: soon * 60_000, backoff: soon };
    let none = |_: &Path| Err(String::new());
    let webhook = AuditWebhook::new(&kubeconfig.to_string(), Path::new("/"), &none, batching).unwrap();
    let policy =
        "{apiVersion: audit.k8s.io/v1, kind: Policy, omitStages: [RequestReceived], rules: [{level: Metadata}]}";
    let audit = Audit::with(policy, None, Some(webhook)).unwrap();
    let server = server_with(Options { audit: Some(std::sync::Arc::clone(&audit)), ..Options::default() }).await;
    for name in ["a", "b"] {
        get(&server, &format!("{MAPS}/{name}")).await;
    }
    let list = lists.recv().await.unwrap();
    assert_eq!((&list["kind"], &list["apiVersion"]), (&json!("EventList"), &json!("audit.k8s.io/v1")));
    let names: Vec<_> = list["items"].as_array().unwrap().iter().map(|event| &event["objectRef"]["name"]).collect();
    assert_eq!(names, ["a", "b"]);
    get(&server, &format!("{MAPS}/c")).await;
    // A policy that says nothing any more is followed from the next request on; a wrong one is not taken.
    assert!(audit.replace("{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: Loud}]}").is_err());
    audit.replace("{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: None}]}").unwrap();
    get(&server, &format!("{MAPS}/d")).await;
    // What waits when the server ends is sent.
    server.shutdown().await;
    let list = lists.recv().await.unwrap();
    assert_eq!(list["items"].as_array().unwrap().len(), 1, "{list}");
    assert_eq!(list["items"][0]["objectRef"]["name"], "c");
}

#[tokio::test]
async fn what_admission_tells_the_audit_log_is_told_of_refusals_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let server = audited(folder.path()).await;
    let admission = "/apis/admissionregistration.k8s.io/v1";
    let policy = json!({"metadata": {"name": "p.example.com"}, "spec": {
        "matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["*"], "operations": ["CREATE"], "resources": ["configmaps"]}]},
        "validations": [{"expression": "false"}],
        "auditAnnotations": [{"key": "seen", "valueExpression": "string(object.metadata.name)"}],
    }});
    assert_eq!(post(&server, &format!("{admission}/validatingadmissionpolicies"), &policy).await.code, 201);
    let binding =
        json!({"metadata": {"name": "b"}, "spec": {"policyName": "p.example.com", "validationActions": ["Deny"]}});
    assert_eq!(post(&server, &format!("{admission}/validatingadmissionpolicybindings"), &binding).await.code, 201);
    assert_eq!(post(&server, MAPS, &json!({"metadata": {"name": "m"}})).await.code, 422);
    server.shutdown().await;
    let events = events(folder.path());
    let refused = events.iter().find(|event| event["objectRef"]["resource"] == "configmaps").unwrap();
    assert_eq!(refused["responseStatus"]["code"], 422);
    assert_eq!(refused["annotations"]["p.example.com/seen"], "m");
}

#[tokio::test]
async fn a_watch_is_told_of_when_it_begins_and_when_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let server = audited(folder.path()).await;
    let watch = Request::get(format!("{MAPS}?watch=true")).body(Body::empty()).unwrap();
    let answer = raw(&server, &User::master("root"), watch).await;
    let open = get(&server, "/metrics").await;
    let line = "apiserver_longrunning_requests{component=\"apiserver\",group=\"\",resource=\"configmaps\",scope=\"namespace\",\
                subresource=\"\",verb=\"WATCH\",version=\"v1\"}";
    assert!(String::from_utf8_lossy(&open.body).contains(&format!("{line} 1\n")));
    drop(answer);
    assert!(String::from_utf8_lossy(&get(&server, "/metrics").await.body).contains(&format!("{line} 0\n")));
    server.shutdown().await;
    let stages: Vec<_> =
        events(folder.path()).into_iter().filter(|e| e["verb"] == "watch").map(|e| e["stage"].clone()).collect();
    assert_eq!(stages, ["ResponseStarted", "ResponseComplete"]);
}

#[tokio::test]
async fn a_caller_who_is_not_believed_or_acts_as_another_is_told_of() {
    let folder = tempfile::tempdir().unwrap();
    let server = audited(folder.path()).await;
    let ask = async |request: http::request::Builder| {
        server.router().oneshot(request.body(Body::empty()).unwrap()).await.unwrap().status().as_u16()
    };
    assert_eq!(ask(Request::get(MAPS).header("authorization", "Bearer nonsense")).await, 401);
    assert_eq!(ask(Request::get(MAPS).header("impersonate-user", "root")).await, 403);
    server.shutdown().await;
    let events = events(folder.path());
    // Lists are no verb of the policy.
    assert_eq!(events, Vec::<Value>::new());
    let again = audited(folder.path()).await;
    let ask = async |request: http::request::Builder| {
        again.router().oneshot(request.body(Body::empty()).unwrap()).await.unwrap().status().as_u16()
    };
    assert_eq!(ask(Request::get(format!("{MAPS}/m")).header("authorization", "Bearer nonsense")).await, 401);
    again.shutdown().await;
    let events = self::events(folder.path());
    assert_eq!(events[0]["responseStatus"]["message"], "Authentication failed, attempted: bearer");
}

#[tokio::test]
async fn figures_have_the_names_that_dashboards_ask_for() {
    let server = server().await;
    for name in ["a", "b"] {
        post(&server, MAPS, &json!({"metadata": {"name": name}})).await;
    }
    get(&server, &format!("{MAPS}/absent")).await;
    get(&server, "/api/v1/namespaces/default/nonsense-1").await;
    let answer = get(&server, "/metrics").await;
    assert_eq!(answer.headers["content-type"], "application/openmetrics-text; version=1.0.0; charset=utf-8");
    let text = String::from_utf8(answer.body).unwrap();
    for line in [
        "apiserver_request_total{code=\"201\",component=\"apiserver\",dry_run=\"\",group=\"\",resource=\"configmaps\",scope=\"resource\",subresource=\"\",verb=\"POST\",version=\"v1\"} 2",
        "apiserver_request_total{code=\"404\",component=\"apiserver\",dry_run=\"\",group=\"\",resource=\"configmaps\",scope=\"resource\",subresource=\"\",verb=\"GET\",version=\"v1\"} 1",
        "apiserver_request_duration_seconds_count{component=\"apiserver\",dry_run=\"\",group=\"\",resource=\"configmaps\",scope=\"resource\",subresource=\"\",verb=\"POST\",version=\"v1\"} 2",
        "apiserver_current_inflight_requests{request_kind=\"readOnly\"} 0",
        "apiserver_storage_objects{resource=\"configmaps\"} 2",
        "apiserver_resource_objects{group=\"\",resource=\"configmaps\"} 2",
        "etcd_request_duration_seconds_count{group=\"\",operation=\"update\",resource=\"configmaps\"} 2",
        "apiserver_admission_step_admission_duration_seconds_count{operation=\"CREATE\",rejected=\"false\",type=\"validate\"}",
        "process_resident_memory_bytes ",
        "process_cpu_seconds_total ",
        "process_start_time_seconds ",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert!(!text.contains("nonsense-1"));
    let anna = User::new("anna", [""; 0]);
    assert_eq!(send_as(&server, &anna, Method::GET, "/metrics", "", Body::empty()).await.code, 403);
    let monitor = User::new("prometheus", ["system:monitoring"]);
    assert_eq!(send_as(&server, &monitor, Method::GET, "/metrics", "", Body::empty()).await.code, 200);
}

#[tokio::test]
async fn events_of_a_watch_are_counted() {
    let server = server().await;
    let watch = Request::get(format!("{MAPS}?watch=true&timeoutSeconds=1")).body(Body::empty()).unwrap();
    let mut answer = raw(&server, &User::master("root"), watch).await.into_body();
    post(&server, MAPS, &json!({"metadata": {"name": "a"}})).await;
    answer.frame().await.unwrap().unwrap();
    let text = String::from_utf8(get(&server, "/metrics").await.body).unwrap();
    assert!(
        text.contains("apiserver_watch_events_total{group=\"\",resource=\"configmaps\",version=\"v1\"} 1"),
        "{text}"
    );
    assert!(text.contains("apiserver_watch_events_sizes_count{group=\"\",resource=\"configmaps\",version=\"v1\"} 1"));
}

#[tokio::test]
async fn health_is_told_check_by_check() {
    let server = server().await;
    let text = async |path: &str| {
        let answer = get(&server, path).await;
        (answer.code, String::from_utf8(answer.body).unwrap())
    };
    assert_eq!(text("/livez").await, (200, "ok".to_owned()));
    assert_eq!(text("/readyz/etcd").await, (200, "ok".to_owned()));
    assert_eq!(text("/readyz/poststarthook/rbac/bootstrap-roles").await.0, 200);
    assert_eq!(text("/readyz/nonsense").await.0, 404);
    let (_, verbose) = text("/livez?verbose&exclude=etcd&exclude=x").await;
    assert!(verbose.starts_with("[+]ping ok\n[+]log ok\n[+]etcd excluded: ok\n"), "{verbose}");
    assert!(
        verbose.ends_with("warn: some health checks cannot be excluded: no matches for \"x\"\nlivez check passed\n")
    );
    server.announce_end();
    let (code, ending) = text("/readyz").await;
    assert_eq!(code, 500);
    assert!(ending.ends_with("[-]shutdown failed: reason withheld\nreadyz check failed\n"), "{ending}");
    assert_eq!(text("/readyz?exclude=shutdown").await.0, 200);
    assert_eq!(text("/livez").await.0, 200);
    assert_eq!(text(MAPS).await.0, 200, "requests go on until the listener ends");
}

fn encryption(keys: &[(&str, u8)], identity: bool) -> std::sync::Arc<Encryption> {
    let keys: Vec<Value> =
        keys.iter().map(|(name, byte)| json!({"name": name, "secret": STANDARD.encode([*byte; 32])})).collect();
    let mut providers = vec![json!({"aesgcm": {"keys": keys}})];
    if identity {
        providers.push(json!({"identity": {}}));
    }
    let config = json!({
        "apiVersion": "apiserver.config.k8s.io/v1", "kind": "EncryptionConfiguration",
        "resources": [{"resources": ["secrets"], "providers": providers}],
    });
    Encryption::new(&config.to_string()).unwrap()
}

/// Whether a text lies in a file, or in the log beside it.
fn holds(folder: &Path, text: &str) -> bool {
    std::fs::read_dir(folder).unwrap().any(|entry| {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        bytes.windows(text.len()).any(|part| part == text.as_bytes())
    })
}

#[tokio::test]
async fn secrets_lie_encrypted_in_the_file_and_keys_are_rotated() {
    let folder = tempfile::tempdir().unwrap();
    let open = async |encryption: Option<std::sync::Arc<Encryption>>| {
        let store = store::Embedded::open(&folder.path().join("test.db"), store::Limits::default()).unwrap();
        Server::start(std::sync::Arc::new(store), Options { encryption, ..Options::default() }).await
    };
    let secret = |name: &str| json!({"metadata": {"name": name}, "data": {"p": STANDARD.encode("hunter2")}});
    let text = STANDARD.encode("hunter2");
    // The plain one from before is still read, and is encrypted when it is written again.
    let server = open(None).await.unwrap();
    assert_eq!(post(&server, SECRETS, &secret("old")).await.code, 201);
    assert!(holds(folder.path(), &text));
    server.shutdown().await;
    drop(server);
    let server = open(Some(encryption(&[("a", 1)], true))).await.unwrap();
    let mut watch = {
        let request = Request::get(format!("{SECRETS}?watch=true")).body(Body::empty()).unwrap();
        raw(&server, &User::master("root"), request).await.into_body()
    };
    assert_eq!(post(&server, SECRETS, &secret("new")).await.code, 201);
    let seen = watch.frame().await.unwrap().unwrap().into_data().unwrap();
    assert!(String::from_utf8_lossy(&seen).contains(&text));
    let listed = get(&server, SECRETS).await.json();
    for item in listed["items"].as_array().unwrap() {
        let name = item["metadata"]["name"].as_str().unwrap();
        assert_eq!(item["data"]["p"], text);
        let mut object = item.clone();
        object["kind"] = "Secret".into();
        object["apiVersion"] = "v1".into();
        let replaced = put(&server, &format!("{SECRETS}/{name}"), &object).await;
        assert_eq!(replaced.code, 200, "{:?}", replaced.status());
        let same = replaced.json()["metadata"]["resourceVersion"] == item["metadata"]["resourceVersion"];
        assert_eq!(same, name == "new", "{name} is written again only if it is to be encrypted");
    }
    let revision = server.store().revision();
    server.store().compact(revision).await.unwrap();
    drop(watch);
    server.shutdown().await;
    drop(server);
    // Another key writes, the old one still reads; without identity no plain value would be.
    let server = open(Some(encryption(&[("b", 2), ("a", 1)], false))).await.unwrap();
    let got = get(&server, &format!("{SECRETS}/old")).await.json();
    assert_eq!(got["data"]["p"], text);
    assert_eq!(put(&server, &format!("{SECRETS}/old"), &got).await.code, 200);
    server.shutdown().await;
    drop(server);
    let refused = open(Some(encryption(&[("b", 2)], false))).await.err().map(|error| format!("{error:?}")).unwrap();
    assert!(refused.contains("/registry/core/secrets/default/new") && refused.contains("key \\\"a\\\""), "{refused}");
}

#[tokio::test]
async fn what_was_encrypted_from_the_beginning_never_lies_open() {
    let folder = tempfile::tempdir().unwrap();
    let store = store::Embedded::open(&folder.path().join("test.db"), store::Limits::default()).unwrap();
    let keys = encryption(&[("a", 1)], false);
    let options = Options { encryption: Some(keys.clone()), ..Options::default() };
    let server = Server::start(std::sync::Arc::new(store), options).await.unwrap();
    let secret = json!({"metadata": {"name": "s"}, "stringData": {"p": "hunter2"}});
    assert_eq!(post(&server, SECRETS, &secret).await.code, 201);
    post(&server, MAPS, &json!({"metadata": {"name": "m"}, "data": {"p": "in the open"}})).await;
    merge(&server, &format!("{SECRETS}/s"), &json!({"stringData": {"p": "hunter3"}})).await;
    for plain in ["hunter2", "hunter3", &STANDARD.encode("hunter2"), &STANDARD.encode("hunter3")] {
        assert!(!holds(folder.path(), plain), "{plain}");
    }
    assert!(holds(folder.path(), "in the open") && holds(folder.path(), "k8s:enc:aesgcm:v1:a:"));
    // A key that is gone while the server runs: the answer says which, of which object.
    let other = json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "EncryptionConfiguration",
        "resources": [{"resources": ["secrets"], "providers": [{"identity": {}}]}]});
    keys.replace(&other.to_string()).unwrap();
    assert!(keys.replace("kind: Nonsense").is_err());
    let (code, _, message) = get(&server, &format!("{SECRETS}/s")).await.status();
    assert_eq!(code, 500);
    assert!(
        message.contains("/registry/core/secrets/default/s") && message.contains("key \"a\" of aesgcm"),
        "{message}"
    );
}
