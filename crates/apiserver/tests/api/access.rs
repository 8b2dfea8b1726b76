use axum::body::Body;
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{Method, Request};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use apiserver::{Options, Profile, Server, ServiceAccountKeys, User};

use crate::support::{Answer, delete, eventually, get, merge, post, put, send_as, server, server_with};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

async fn as_user(server: &Server, user: &User, method: Method, path: &str, body: &Value) -> Answer {
    send_as(server, user, method, path, "application/json", body.to_string()).await
}

async fn code(server: &Server, user: &User, method: Method, path: &str) -> u16 {
    as_user(server, user, method, path, &json!({"metadata": {"name": "x"}})).await.code
}

/// Two tenants, each with a namespace in which its group may edit.
pub async fn tenants(server: &Server) -> (User, User) {
    for tenant in ["acme", "umbrella"] {
        post(server, "/api/v1/namespaces", &json!({"metadata": {"name": tenant}})).await;
        let binding = json!({
            "metadata": {"name": "editors"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "admin"},
            "subjects": [{"kind": "Group", "name": format!("{tenant}-admins")}],
        });
        let made = post(server, &format!("{RBAC}/namespaces/{tenant}/rolebindings"), &binding).await;
        assert_eq!(made.code, 201, "{:?}", made.status());
    }
    (User::new("anna", ["acme-admins"]), User::new("ulf", ["umbrella-admins"]))
}

#[tokio::test]
async fn tenants_do_not_see_or_touch_each_others_things() {
    let server = server().await;
    let (anna, ulf) = tenants(&server).await;
    let maps = |namespace: &str| format!("/api/v1/namespaces/{namespace}/configmaps");
    assert_eq!(code(&server, &anna, Method::POST, &maps("acme")).await, 201);
    assert_eq!(code(&server, &anna, Method::GET, &format!("{}/x", maps("acme"))).await, 200);
    for method in [Method::GET, Method::DELETE] {
        assert_eq!(code(&server, &ulf, method.clone(), &format!("{}/x", maps("acme"))).await, 403);
        assert_eq!(code(&server, &ulf, method, &maps("acme")).await, 403);
    }
    assert_eq!(code(&server, &ulf, Method::GET, "/api/v1/configmaps").await, 403);
    assert_eq!(code(&server, &ulf, Method::GET, &format!("{}?watch=true", maps("acme"))).await, 403);
    assert_eq!(code(&server, &ulf, Method::GET, "/api/v1/namespaces").await, 403);
    assert_eq!(code(&server, &ulf, Method::GET, "/api/v1/namespaces/acme").await, 403);
    assert_eq!(code(&server, &ulf, Method::GET, "/api/v1/namespaces/umbrella").await, 200);
    let refused = as_user(&server, &ulf, Method::GET, &format!("{}/x", maps("acme")), &Value::Null).await;
    let text = "configmaps \"x\" is forbidden: User \"ulf\" cannot get resource \"configmaps\" in API group \"\" in the \
                namespace \"acme\"";
    assert_eq!(refused.status(), (403, "Forbidden".into(), text.into()));
}

#[tokio::test]
async fn nobody_grants_what_they_do_not_hold() {
    let server = server().await;
    let (anna, _) = tenants(&server).await;
    let roles = format!("{RBAC}/namespaces/acme/roles");
    let role = |resource: &str, verb: &str| json!({"metadata": {"name": "r"}, "rules": [{"apiGroups": [""], "resources": [resource], "verbs": [verb]}]});
    assert_eq!(as_user(&server, &anna, Method::POST, &roles, &role("configmaps", "get")).await.code, 201);
    let mut more = role("nodes", "get");
    let refused = as_user(&server, &anna, Method::PUT, &format!("{roles}/r"), &more).await;
    assert_eq!(refused.code, 403);
    assert!(refused.status().2.contains("is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"nodes\"], Verbs:[\"get\"]}"));
    more["metadata"]["name"] = "r2".into();
    assert_eq!(post(&server, &roles, &more).await.code, 201);
    let bind = |role: &str| json!({"metadata": {"name": role}, "roleRef": {"kind": "ClusterRole", "name": role}, "subjects": [{"kind": "User", "name": "anna"}]});
    let bindings = format!("{RBAC}/namespaces/acme/rolebindings");
    assert_eq!(as_user(&server, &anna, Method::POST, &bindings, &bind("view")).await.code, 201);
    assert_eq!(as_user(&server, &anna, Method::POST, &bindings, &bind("cluster-admin")).await.code, 403);
    let mut moved = bind("view");
    moved["roleRef"]["name"] = "edit".into();
    assert_eq!(put(&server, &format!("{bindings}/view"), &moved).await.code, 422);
}

#[tokio::test]
async fn roles_with_the_label_are_added_to_those_that_aggregate() {
    let server = server().await;
    let (anna, _) = tenants(&server).await;
    let role = json!({
        "metadata": {"name": "widgets", "labels": {"rbac.authorization.k8s.io/aggregate-to-admin": "true"}},
        "rules": [{"apiGroups": ["example.com"], "resources": ["widgets"], "verbs": ["get"]}],
    });
    let path = "/apis/example.com/v1/namespaces/acme/widgets/x";
    assert_eq!(code(&server, &anna, Method::GET, path).await, 403);
    post(&server, &format!("{RBAC}/clusterroles"), &role).await;
    eventually(&server, "the right is there", async || code(&server, &anna, Method::GET, path).await == 404).await;
    delete(&server, &format!("{RBAC}/clusterroles/widgets")).await;
    eventually(&server, "the right is gone", async || code(&server, &anna, Method::GET, path).await == 403).await;
}

#[tokio::test]
async fn who_may_patch_but_not_create_makes_nothing_by_apply() {
    let server = server().await;
    let role = json!({
        "metadata": {"name": "patcher"},
        "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["patch"]}],
    });
    post(&server, &format!("{RBAC}/clusterroles"), &role).await;
    let binding = json!({
        "metadata": {"name": "p"}, "roleRef": {"kind": "ClusterRole", "name": "patcher"},
        "subjects": [{"kind": "User", "name": "pat"}],
    });
    post(&server, &format!("{RBAC}/clusterrolebindings"), &binding).await;
    let pat = User::new("pat", Vec::<String>::new());
    let maps = "/api/v1/namespaces/default/configmaps";
    let apply = async || {
        let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"a": "b"}});
        let path = format!("{maps}/m?fieldManager=pat");
        send_as(&server, &pat, Method::PATCH, &path, "application/apply-patch+yaml", body.to_string()).await
    };
    let refused = apply().await;
    assert!(refused.status().2.contains("cannot create resource \"configmaps\""), "{:?}", refused.status());
    post(&server, maps, &json!({"metadata": {"name": "m"}})).await;
    assert_eq!(apply().await.code, 200);
}

/// A request with a bearer token (or none), as it comes over a socket.
async fn with_token(server: &Server, token: Option<&str>, path: &str) -> Answer {
    let mut request = Request::get(path);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let (parts, body) = server.router().oneshot(request.body(Body::empty()).unwrap()).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes().to_vec();
    Answer { code: parts.status.as_u16(), headers: parts.headers, body }
}

async fn with_keys() -> Server {
    let keys = ServiceAccountKeys {
        signing_key_pem: rcgen::KeyPair::generate().unwrap().serialize_pem(),
        verifying_keys_pem: Vec::new(),
        issuer: "https://kubernetes.default.svc".to_owned(),
        ..ServiceAccountKeys::default()
    };
    server_with(Options {
        service_account: Some(keys),
        bootstrap_tokens: true,
        profile: Profile::Workload,
        ..Options::default()
    })
    .await
}

#[tokio::test]
async fn a_service_accounts_token_is_good_while_the_account_stands() {
    let server = with_keys().await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    post(&server, accounts, &json!({"metadata": {"name": "bot"}})).await;
    let request = json!({"spec": {"expirationSeconds": 600}});
    let answer = post(&server, &format!("{accounts}/bot/token"), &request).await;
    assert_eq!(answer.code, 201, "{:?}", answer.status());
    let token = answer.json()["status"]["token"].as_str().unwrap().to_owned();
    let path = "/api/v1/namespaces/default/configmaps";
    let refused = with_token(&server, Some(&token), path).await;
    assert_eq!(refused.code, 403);
    assert!(refused.status().2.contains("User \"system:serviceaccount:default:bot\" cannot list"));
    let binding = json!({
        "metadata": {"name": "bot"}, "roleRef": {"kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "ServiceAccount", "name": "bot", "namespace": "default"}],
    });
    post(&server, &format!("{RBAC}/namespaces/default/rolebindings"), &binding).await;
    assert_eq!(with_token(&server, Some(&token), path).await.code, 200);
    let review = json!({"spec": {"token": token}});
    let review = post(&server, "/apis/authentication.k8s.io/v1/tokenreviews", &review).await.json();
    assert_eq!(review["status"]["user"]["username"], "system:serviceaccount:default:bot");
    assert_eq!(
        post(&server, &format!("{accounts}/bot/token"), &json!({"spec": {"expirationSeconds": 599}})).await.code,
        422
    );
    delete(&server, &format!("{accounts}/bot")).await;
    assert_eq!(with_token(&server, Some(&token), path).await.code, 401);
    assert_eq!(with_token(&server, Some("nonsense"), path).await.code, 401);
    assert_eq!(with_token(&server, Some(&"a".repeat(20_000)), path).await.code, 401);
}

#[tokio::test]
async fn a_token_ends_with_its_time() {
    let clock = std::sync::Arc::new(std::sync::atomic::AtomicI64::new(1_800_000_000));
    let keys = ServiceAccountKeys {
        signing_key_pem: rcgen::KeyPair::generate().unwrap().serialize_pem(),
        verifying_keys_pem: Vec::new(),
        issuer: "us".to_owned(),
        ..ServiceAccountKeys::default()
    };
    let read = clock.clone();
    let now = move || jiff::Timestamp::from_second(read.load(std::sync::atomic::Ordering::Relaxed)).unwrap();
    let options = Options { clock: std::sync::Arc::new(now), service_account: Some(keys), ..Options::default() };
    let server = server_with(options).await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    post(&server, accounts, &json!({"metadata": {"name": "bot"}})).await;
    let token = post(&server, &format!("{accounts}/bot/token"), &json!({})).await.json()["status"]["token"].clone();
    let token = token.as_str().unwrap();
    clock.fetch_add(3659, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(with_token(&server, Some(token), "/api/v1").await.code, 200);
    clock.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(with_token(&server, Some(token), "/api/v1").await.code, 401);
}

#[tokio::test]
async fn a_bootstrap_token_lets_a_node_ask_for_its_certificate_and_no_more() {
    let server = with_keys().await;
    let encode = |text: &str| STANDARD.encode(text);
    let secret = |expiration: &str| {
        json!({
            "metadata": {"name": "bootstrap-token-abcdef"}, "type": "bootstrap.kubernetes.io/token",
            "data": {
                "token-id": encode("abcdef"), "token-secret": encode("0123456789abcdef"),
                "usage-bootstrap-authentication": encode("true"), "expiration": encode(expiration),
                "auth-extra-groups": encode("system:bootstrappers:kubeadm:default-node-token,system:masters"),
            },
        })
    };
    let path = "/api/v1/namespaces/kube-system/secrets";
    assert_eq!(post(&server, path, &secret("2999-01-01T00:00:00Z")).await.code, 201);
    let token = Some("abcdef.0123456789abcdef");
    let refused = with_token(&server, token, "/api/v1/nodes").await;
    assert!(
        refused.status().2.contains("User \"system:bootstrap:abcdef\" cannot list resource \"nodes\""),
        "{:?}",
        refused.status()
    );
    assert_eq!(with_token(&server, Some("abcdef.0123456789abcdee"), "/api/v1/nodes").await.code, 401);
    put(&server, &format!("{path}/bootstrap-token-abcdef"), &secret("2000-01-01T00:00:00Z")).await;
    assert_eq!(with_token(&server, token, "/api/v1/nodes").await.code, 401);
}

#[tokio::test]
async fn nobody_in_particular_sees_health_and_what_is_granted_to_them() {
    let server = server().await;
    assert_eq!(with_token(&server, None, "/healthz").await.code, 200);
    assert_eq!(with_token(&server, None, "/version").await.code, 200);
    let refused = with_token(&server, None, "/apis").await;
    assert_eq!(refused.status().2, "forbidden: User \"system:anonymous\" cannot get path \"/apis\"");
    let info = "/api/v1/namespaces/kube-public/configmaps/cluster-info";
    assert_eq!(with_token(&server, None, info).await.code, 403);
    let role = json!({
        "metadata": {"name": "info"},
        "rules": [{"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["cluster-info"], "verbs": ["get"]}],
    });
    post(&server, &format!("{RBAC}/namespaces/kube-public/roles"), &role).await;
    let binding = json!({
        "metadata": {"name": "info"}, "roleRef": {"kind": "Role", "name": "info"},
        "subjects": [{"kind": "User", "name": "system:anonymous"}],
    });
    post(&server, &format!("{RBAC}/namespaces/kube-public/rolebindings"), &binding).await;
    assert_eq!(with_token(&server, None, info).await.code, 404);
    let closed = server_with(Options { anonymous: apiserver::Anonymous::Refused, ..Options::default() }).await;
    assert_eq!(with_token(&closed, None, "/healthz").await.status().0, 401);
}

#[tokio::test]
async fn reviews_say_who_may_do_what() {
    let server = server().await;
    let (anna, ulf) = tenants(&server).await;
    let authz = "/apis/authorization.k8s.io/v1";
    let attributes = json!({"namespace": "acme", "verb": "create", "resource": "configmaps"});
    let own = json!({"spec": {"resourceAttributes": attributes}});
    let path = format!("{authz}/selfsubjectaccessreviews");
    assert_eq!(as_user(&server, &anna, Method::POST, &path, &own).await.json()["status"]["allowed"], true);
    assert_eq!(as_user(&server, &ulf, Method::POST, &path, &own).await.json()["status"]["allowed"], false);
    let other = json!({"spec": {"user": "x", "groups": ["acme-admins"], "resourceAttributes": attributes}});
    assert_eq!(post(&server, &format!("{authz}/subjectaccessreviews"), &other).await.json()["status"]["allowed"], true);
    assert_eq!(as_user(&server, &anna, Method::POST, &format!("{authz}/subjectaccessreviews"), &other).await.code, 403);
    let local = format!("{authz}/namespaces/acme/localsubjectaccessreviews");
    assert_eq!(as_user(&server, &anna, Method::POST, &local, &other).await.json()["status"]["allowed"], true);
    let wrong = format!("{authz}/namespaces/umbrella/localsubjectaccessreviews");
    assert_eq!(post(&server, &wrong, &other).await.code, 422);
    let rules = json!({"spec": {"namespace": "acme"}});
    let rules = as_user(&server, &anna, Method::POST, &format!("{authz}/selfsubjectrulesreviews"), &rules).await.json();
    assert!(rules["status"]["resourceRules"].as_array().unwrap().len() > 5);
    let me =
        as_user(&server, &anna, Method::POST, "/apis/authentication.k8s.io/v1/selfsubjectreviews", &json!({})).await;
    assert_eq!(me.json()["status"]["userInfo"]["username"], "anna");
    assert_eq!(get(&server, &format!("{authz}/selfsubjectaccessreviews")).await.code, 405);
}

#[tokio::test]
async fn who_asks_for_a_certificate_is_written_down_by_the_server() {
    let server = with_keys().await;
    let csrs = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let csr = json!({
        "metadata": {"name": "c"},
        "spec": {"request": "aGVsbG8=", "signerName": "kubernetes.io/kube-apiserver-client-kubelet", "usages": ["client auth"], "username": "root"},
        "status": {"certificate": "Zm9yZ2Vk"},
    });
    let made = post(&server, csrs, &csr).await;
    assert_eq!(made.code, 201, "{:?}", made.status());
    assert_eq!(made.json()["spec"]["username"], "test");
    assert_eq!(made.json()["status"], json!({}));
    let approved = json!({"status": {"conditions": [{"type": "Approved", "status": "True", "reason": "Test"}], "certificate": "Zm9yZ2Vk"}});
    let answer = merge(&server, &format!("{csrs}/c/approval"), &approved).await;
    assert_eq!(answer.json()["status"]["conditions"][0]["type"], "Approved");
    assert_eq!(answer.json()["status"].get("certificate"), None);
    let role = json!({
        "metadata": {"name": "approver"},
        "rules": [{"apiGroups": ["certificates.k8s.io"], "resources": ["certificatesigningrequests/*", "*/approval"], "verbs": ["*"]}],
    });
    post(&server, &format!("{RBAC}/clusterroles"), &role).await;
    let binding = json!({
        "metadata": {"name": "a"}, "roleRef": {"kind": "ClusterRole", "name": "approver"},
        "subjects": [{"kind": "User", "name": "amy"}],
    });
    post(&server, &format!("{RBAC}/clusterrolebindings"), &binding).await;
    let amy = User::new("amy", Vec::<String>::new());
    let path = format!("{csrs}/c/approval");
    let by_amy = async || {
        let body =
            json!({"status": {"conditions": [{"type": "Denied", "status": "True", "reason": "Amy"}]}}).to_string();
        send_as(&server, &amy, Method::PATCH, &path, "application/merge-patch+json", body).await
    };
    assert!(by_amy().await.status().2.ends_with(
        "user not permitted to approve requests with signerName \"kubernetes.io/kube-apiserver-client-kubelet\""
    ));
    let signers = json!([{
        "apiGroups": ["certificates.k8s.io"], "resources": ["signers", "*/approval"], "verbs": ["approve", "patch"],
        "resourceNames": ["kubernetes.io/*", "c"],
    }]);
    merge(&server, &format!("{RBAC}/clusterroles/approver"), &json!({"rules": signers})).await;
    assert_eq!(by_amy().await.code, 200);
    merge(&server, &path, &approved).await;
    let issued = json!({"status": {"conditions": [], "certificate": "aGVsbG8="}});
    let answer = merge(&server, &format!("{csrs}/c/status"), &issued).await.json();
    assert_eq!(answer["status"]["certificate"], "aGVsbG8=");
    assert_eq!(answer["status"]["conditions"][0]["type"], "Approved");
}

#[tokio::test]
async fn who_may_impersonate_acts_as_another_and_nobody_else_does() {
    let server = server().await;
    let (anna, _) = tenants(&server).await;
    let role = json!({
        "metadata": {"name": "support"},
        "rules": [{"apiGroups": [""], "resources": ["users"], "resourceNames": ["anna"], "verbs": ["impersonate"]}],
    });
    post(&server, &format!("{RBAC}/clusterroles"), &role).await;
    let binding = json!({
        "metadata": {"name": "support"}, "roleRef": {"kind": "ClusterRole", "name": "support"},
        "subjects": [{"kind": "User", "name": "system:anonymous"}],
    });
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let ask = async |headers: &[(&str, &str)]| {
        let mut request = Request::post(path).header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = server.router().oneshot(request.body(Body::from("{}")).unwrap()).await.unwrap();
        let code = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (code, serde_json::from_slice::<Value>(&body).unwrap())
    };
    assert_eq!(ask(&[("impersonate-user", "anna")]).await.0, 403);
    post(&server, &format!("{RBAC}/clusterrolebindings"), &binding).await;
    let (code, me) = ask(&[("impersonate-user", "anna")]).await;
    assert_eq!((code, &me["status"]["userInfo"]["username"]), (201, &json!("anna")));
    assert_eq!(ask(&[("impersonate-user", "root")]).await.0, 403);
    assert_eq!(ask(&[("impersonate-user", "anna"), ("impersonate-group", "system:masters")]).await.0, 403);
    assert_eq!(ask(&[("impersonate-group", "system:masters")]).await.0, 400);
    assert_eq!(ask(&[("impersonate-user", "anna"), ("impersonate-extra-a", "b")]).await.0, 403);
    drop(anna);
}
