//! Webhooks that decide on requests beside the cluster's own roles.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use apiserver::{Authorization, Options, Profile, Server, User};
use axum::{Router, body::Body, body::Bytes, routing::post as answer_post};
use http::{HeaderMap, Method};
use serde_json::{Value, json};

use crate::{
    hook::{self, Hook},
    support::{post, send_as, server_with},
};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
const BINDINGS: &str = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
const SIGNING: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

/// One that allows what `anna` asks, denies what has `secret` in its name, and has no opinion on all else.
async fn decider(asked: &Arc<AtomicUsize>) -> Hook {
    let asked = Arc::clone(asked);
    let answer = move |headers: HeaderMap, body: Bytes| async move {
        asked.fetch_add(1, Ordering::Relaxed);
        assert_eq!(headers["authorization"], "Bearer who-calls");
        let review: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(review["apiVersion"], "authorization.k8s.io/v1");
        let name = review["spec"]["resourceAttributes"]["name"].as_str().unwrap_or_default().to_owned();
        let status = match review["spec"]["user"].as_str() {
            _ if name.contains("secret") => json!({"allowed": false, "denied": true, "reason": "not that one"}),
            Some("anna") => json!({"allowed": true, "reason": "it is her"}),
            _ => json!({"allowed": false, "reason": "never heard of"}),
        };
        json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "status": status}).to_string()
    };
    hook::serve(Router::new().route("/decide", answer_post(answer)), &[]).await
}

fn configuration(hook: &Hook, more: &str) -> Arc<Authorization> {
    let kubeconfig = json!({
        "current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        "clusters": [{"name": "k", "cluster": {"server": hook.url("/decide"), "certificate-authority-data": hook.ca}}],
        "users": [{"name": "u", "user": {"token": "who-calls"}}],
    });
    let text = format!(
        "
apiVersion: apiserver.config.k8s.io/v1
kind: AuthorizationConfiguration
authorizers:
- type: Webhook
  name: decider
  webhook:
    timeout: 3s
    subjectAccessReviewVersion: v1
    connectionInfo: {{type: KubeConfigFile, kubeConfigFile: /decider}}
    {more}
- {{type: RBAC, name: roles}}
"
    );
    Authorization::new(&text, &|_| Ok(kubeconfig.to_string())).unwrap()
}

async fn decided_by(authorization: Arc<Authorization>, profile: Profile) -> Server {
    server_with(Options { authorization: Some(authorization), profile, ..Options::default() }).await
}

async fn code(server: &Server, user: &User, method: Method, path: &str, body: &Value) -> (u16, String) {
    let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
    let (code, _, message) = send_as(server, user, method, path, "application/json", body).await.status();
    (code, message)
}

#[tokio::test]
async fn a_webhook_allows_denies_or_leaves_it_to_the_roles() {
    let asked = Arc::new(AtomicUsize::new(0));
    let hook = decider(&asked).await;
    let server = decided_by(configuration(&hook, "failurePolicy: Deny"), Profile::Management).await;
    let (anna, bob) = (User::new("anna", ["acme"]), User::new("bob", ["acme"]));
    post(
        &server,
        BINDINGS,
        &json!({"metadata": {"name": "b"}, "subjects": [{"kind": "User", "name": "bob"}],
        "roleRef": {"kind": "ClusterRole", "name": "view"}}),
    )
    .await;
    assert_eq!(asked.load(Ordering::Relaxed), 0, "administrators are not asked about");
    assert_eq!(code(&server, &anna, Method::GET, MAPS, &Value::Null).await.0, 200);
    assert_eq!(code(&server, &bob, Method::GET, MAPS, &Value::Null).await.0, 200);
    let (refused, why) = code(&server, &bob, Method::POST, MAPS, &json!({"metadata": {"name": "m"}})).await;
    assert_eq!(refused, 403);
    assert!(why.ends_with("in the namespace \"default\": never heard of"), "{why}");
    let (refused, why) = code(&server, &anna, Method::GET, &format!("{MAPS}/a-secret"), &Value::Null).await;
    assert_eq!(refused, 403);
    assert!(why.ends_with(": not that one"), "{why}");
    let before = asked.load(Ordering::Relaxed);
    assert_eq!(before, 4);
    assert_eq!(code(&server, &anna, Method::GET, MAPS, &Value::Null).await.0, 200);
    assert_eq!(asked.load(Ordering::Relaxed), before, "the answer is kept");
}

#[tokio::test]
async fn conditions_say_what_a_webhook_is_asked_about() {
    let asked = Arc::new(AtomicUsize::new(0));
    let hook = decider(&asked).await;
    let more = "failurePolicy: Deny
    matchConditionSubjectAccessReviewVersion: v1
    cacheAuthorizedRequests: false
    matchConditions: [{expression: 'request.user != \"bob\"'}, {expression: 'request.groups[size(request.groups) == 2 ? 0 : 7] == \"acme\"'}]";
    let server = decided_by(configuration(&hook, more), Profile::Management).await;
    for _ in 0..2 {
        assert_eq!(code(&server, &User::new("anna", ["acme"]), Method::GET, MAPS, &Value::Null).await.0, 200);
    }
    assert_eq!(asked.load(Ordering::Relaxed), 2, "answers are not kept");
    assert_eq!(code(&server, &User::new("bob", [""; 0]), Method::GET, MAPS, &Value::Null).await.0, 403);
    // Who has no group cannot be asked about, and that counts as a no.
    let (refused, why) = code(&server, &User::new("anna", [""; 0]), Method::GET, MAPS, &Value::Null).await;
    assert!(refused == 403 && why.contains("authorizer \"decider\" could not be asked"), "{why}");
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn the_failure_policy_says_what_silence_means() {
    let asked = Arc::new(AtomicUsize::new(0));
    let mut hook = decider(&asked).await;
    hook.base = hook.base.replace("127.0.0.1", "localhost");
    for (policy, expected) in [("Deny", 403), ("NoOpinion", 200)] {
        let authorization = configuration(&hook, &format!("failurePolicy: {policy}"));
        let server = decided_by(authorization, Profile::Management).await;
        post(
            &server,
            BINDINGS,
            &json!({"metadata": {"name": "b"}, "subjects": [{"kind": "User", "name": "anna"}],
            "roleRef": {"kind": "ClusterRole", "name": "view"}}),
        )
        .await;
        assert_eq!(code(&server, &User::new("anna", ["acme"]), Method::GET, MAPS, &Value::Null).await.0, expected);
    }
    assert_eq!(asked.load(Ordering::Relaxed), 0, "its certificate is for another name");
}

#[tokio::test]
async fn rights_to_grant_to_bind_and_to_sign_are_asked_of_all() {
    let asked = Arc::new(AtomicUsize::new(0));
    let hook = decider(&asked).await;
    let server = decided_by(configuration(&hook, "failurePolicy: Deny"), Profile::Workload).await;
    let role = |name: &str| json!({"metadata": {"name": name}, "rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]});
    let binding = |name: &str, role: &str| {
        json!({"metadata": {"name": name}, "subjects": [{"kind": "User", "name": "carol"}],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}})
    };
    let anna = User::new("anna", ["acme"]);
    // Her rights are nowhere but in the webhook.
    assert_eq!(code(&server, &anna, Method::POST, ROLES, &role("all")).await.0, 201);
    assert_eq!(code(&server, &anna, Method::POST, BINDINGS, &binding("b", "all")).await.0, 201);
    let request = json!({"metadata": {"name": "r"}, "spec": {"request": "eA==", "signerName": "example.com/s", "usages": ["digital signature"]}});
    let made = post(&server, SIGNING, &request).await;
    assert_eq!(made.code, 201, "{}", made.json());
    let mut approved = made.json();
    approved["status"] = json!({"conditions": [{"type": "Approved", "status": "True", "reason": "r", "message": "m"}]});
    let path = format!("{SIGNING}/r/approval");
    assert_eq!(code(&server, &anna, Method::PUT, &path, &approved).await.0, 200);
    // Nobody lets the secret one be granted.
    assert_eq!(code(&server, &anna, Method::POST, BINDINGS, &binding("c", "a-secret")).await.0, 404);
    post(&server, ROLES, &role("a-secret")).await;
    let (refused, why) = code(&server, &anna, Method::POST, BINDINGS, &binding("c", "a-secret")).await;
    assert!(refused == 403 && why.contains("is attempting to grant RBAC permissions not currently held"), "{why}");
}

#[tokio::test]
async fn expressions_ask_all_that_decide() {
    let asked = Arc::new(AtomicUsize::new(0));
    let hook = decider(&asked).await;
    let server = decided_by(configuration(&hook, "failurePolicy: Deny"), Profile::Management).await;
    let admission = "/apis/admissionregistration.k8s.io/v1";
    let check =
        |name: &str| format!("authorizer.group('').resource('configmaps').name('{name}').check('delete').allowed()");
    let policy = json!({"metadata": {"name": "p"}, "spec": {
        "matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["*"], "operations": ["CREATE"], "resources": ["configmaps"]}]},
        "variables": [{"name": "may", "expression": check("plain")}],
        "validations": [
            {"expression": "variables.may", "message": "may not delete it"},
            {"expression": format!("variables.may ? !{} : true", check("a-secret")), "message": "may delete a secret"},
        ],
    }});
    let made = post(&server, &format!("{admission}/validatingadmissionpolicies"), &policy).await;
    assert_eq!(made.code, 201, "{}", made.json());
    let binding = json!({"metadata": {"name": "b"}, "spec": {"policyName": "p", "validationActions": ["Deny"]}});
    assert_eq!(post(&server, &format!("{admission}/validatingadmissionpolicybindings"), &binding).await.code, 201);
    post(
        &server,
        BINDINGS,
        &json!({"metadata": {"name": "b"}, "subjects": [{"kind": "User", "name": "bob"}],
        "roleRef": {"kind": "ClusterRole", "name": "cluster-admin"}}),
    )
    .await;
    let map = json!({"metadata": {"name": "m"}});
    assert_eq!(code(&server, &User::new("anna", ["acme"]), Method::POST, MAPS, &map).await.0, 201);
    let map = json!({"metadata": {"name": "n"}});
    assert_eq!(
        code(&server, &User::new("bob", ["acme"]), Method::POST, MAPS, &map).await.0,
        201,
        "roles count as well"
    );
}
