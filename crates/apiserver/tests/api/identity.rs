//! Nodes, authorizers that are put in, and tokens that are bound or lie in secrets.

use std::sync::Arc;

use apiserver::{Attributes, Authorizer, Options, Profile, Question, Server, ServiceAccountKeys, User, Verdict};
use axum::body::Body;
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use http::{Method, Request};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::support::{Answer, delete, eventually, get, merge, post, send_as, server_with};

const CORE: &str = "/api/v1";

fn keys() -> (ServiceAccountKeys, rcgen::KeyPair) {
    let pair = rcgen::KeyPair::generate().unwrap();
    let keys = ServiceAccountKeys {
        signing_key_pem: pair.serialize_pem(),
        issuer: "https://kubernetes.default.svc".to_owned(),
        ..ServiceAccountKeys::default()
    };
    (keys, pair)
}

async fn cluster() -> (Server, rcgen::KeyPair) {
    let (keys, pair) = keys();
    let options = Options {
        profile: Profile::Workload,
        node_authorizer: true,
        service_account: Some(keys),
        ..Options::default()
    };
    (server_with(options).await, pair)
}

fn node(name: &str) -> User {
    User::new(format!("system:node:{name}"), ["system:nodes"])
}

async fn ask(server: &Server, user: &User, method: Method, path: &str, body: Value) -> Answer {
    let content_type = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
    let body = if body.is_null() { Body::empty() } else { body.to_string().into() };
    send_as(server, user, method, path, content_type, body).await
}

async fn read(server: &Server, user: &User, path: &str) -> (u16, String) {
    let answer = ask(server, user, Method::GET, path, Value::Null).await;
    let text = if answer.code == 403 { answer.status().2 } else { String::new() };
    (answer.code, text)
}

async fn bearer(server: &Server, token: &str, path: &str) -> u16 {
    let request = Request::get(path).header("authorization", format!("Bearer {token}")).body(Body::empty()).unwrap();
    server.router().oneshot(request).await.unwrap().status().as_u16()
}

fn pod(name: &str, node: &str, secret: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {
        "nodeName": node, "serviceAccountName": "bot", "containers": [{"name": "c", "image": "i"}],
        "volumes": [{"name": "v", "secret": {"secretName": secret}}],
    }})
}

#[tokio::test]
async fn a_node_reads_what_its_pods_name_and_nothing_of_others() {
    let (server, _) = cluster().await;
    let secrets = format!("{CORE}/namespaces/default/secrets");
    for name in ["mine", "theirs"] {
        assert_eq!(post(&server, &secrets, &json!({"metadata": {"name": name}})).await.code, 201);
    }
    post(&server, &format!("{CORE}/namespaces/default/serviceaccounts"), &json!({"metadata": {"name": "bot"}})).await;
    for (name, on, secret) in [("p1", "n1", "mine"), ("p2", "n2", "theirs")] {
        let made = post(&server, &format!("{CORE}/namespaces/default/pods"), &pod(name, on, secret)).await;
        assert_eq!(made.code, 201, "{:?}", made.status());
    }
    let n1 = node("n1");
    assert_eq!(read(&server, &n1, &format!("{secrets}/mine")).await.0, 200);
    let refused = "secrets \"theirs\" is forbidden: User \"system:node:n1\" cannot get resource \"secrets\" in API group \"\" in \
                   the namespace \"default\": no relationship found between node 'n1' and this object";
    assert_eq!(read(&server, &n1, &format!("{secrets}/theirs")).await, (403, refused.to_owned()));
    assert_eq!(read(&server, &n1, &secrets).await.0, 403);
    assert_eq!(read(&server, &n1, &format!("{secrets}?fieldSelector=metadata.name=mine")).await.0, 200);
    let pods = format!("{CORE}/namespaces/default/pods");
    assert_eq!(read(&server, &n1, &format!("{pods}/p1")).await.0, 200);
    assert_eq!(read(&server, &n1, &format!("{pods}/p2")).await.0, 403);
    assert_eq!(read(&server, &n1, &format!("{CORE}/pods?fieldSelector=spec.nodeName=n1")).await.0, 200);
    let (code, why) = read(&server, &n1, &format!("{CORE}/pods?fieldSelector=spec.nodeName=n2")).await;
    assert!(code == 403 && why.ends_with("can only list/watch pods with spec.nodeName field selector"), "{why}");
    // The pod goes, and the right with it.
    delete(&server, &format!("{pods}/p1?gracePeriodSeconds=0")).await;
    assert_eq!(read(&server, &n1, &format!("{secrets}/mine")).await.0, 403);
}

#[tokio::test]
async fn a_node_writes_itself_and_its_lease_and_no_other() {
    let (server, _) = cluster().await;
    let (n1, nodes) = (node("n1"), format!("{CORE}/nodes"));
    let make = async |name: &str, labels: Value| {
        ask(&server, &n1, Method::POST, &nodes, json!({"metadata": {"name": name, "labels": labels}})).await
    };
    let refused = make("n2", json!({})).await.status();
    assert_eq!(
        (refused.0, refused.2.as_str()),
        (403, "nodes \"n2\" is forbidden: node \"n1\" is not allowed to modify node \"n2\"")
    );
    let refused = make("n1", json!({"node-role.kubernetes.io/control-plane": ""})).await.status();
    assert!(refused.2.ends_with("is not allowed to set the following labels: node-role.kubernetes.io/control-plane"));
    assert_eq!(make("n1", json!({"kubernetes.io/hostname": "n1"})).await.code, 201);
    assert_eq!(read(&server, &n1, &format!("{nodes}/n1")).await.0, 200);
    let (_, why) = read(&server, &n1, &nodes).await;
    assert!(why.ends_with("node 'n1' cannot read all nodes, only its own Node object"), "{why}");
    let patch = async |path: &str, body: Value| ask(&server, &n1, Method::PATCH, path, body).await.code;
    assert_eq!(patch(&format!("{nodes}/n1/status"), json!({"status": {"conditions": []}})).await, 200);
    let taint = json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}});
    assert_eq!(patch(&format!("{nodes}/n1"), taint).await, 403);
    assert_eq!(post(&server, &nodes, &json!({"metadata": {"name": "n2"}})).await.code, 201);
    assert_eq!(patch(&format!("{nodes}/n2/status"), json!({"status": {}})).await, 403);
    assert_eq!(ask(&server, &n1, Method::DELETE, &format!("{nodes}/n1"), Value::Null).await.code, 403);
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    let lease =
        async |name: &str| ask(&server, &n1, Method::POST, leases, json!({"metadata": {"name": name}})).await.code;
    assert_eq!((lease("n1").await, lease("n2").await), (201, 403));
    assert_eq!(read(&server, &n1, &format!("{leases}/n1")).await.0, 200);
    assert_eq!(read(&server, &n1, &format!("{leases}/n2")).await.0, 403);
    let made = ask(&server, &n1, Method::POST, &format!("{CORE}/namespaces/default/pods"), pod("p", "n1", "s")).await;
    assert!(made.status().2.contains("can only create mirror pods"), "{:?}", made.status());
    // Who is in the group without a node's name is nobody.
    let nameless = User::new("somebody", ["system:nodes"]);
    assert_eq!(read(&server, &nameless, &format!("{nodes}/n1")).await.0, 403);
}

struct Freeze;

#[async_trait::async_trait]
impl Authorizer for Freeze {
    async fn authorize(&self, question: &Question<'_>) -> Verdict {
        match question.wanted {
            Attributes::Resource { verb: "create", .. } if question.user.name == "anna" => {
                Verdict::Deny("the fleet is frozen".to_owned())
            }
            Attributes::Resource { verb: "list", .. } if question.user.name == "ulf" => Verdict::Allow(String::new()),
            _ => Verdict::NoOpinion("freeze has no say".to_owned()),
        }
    }
}

#[tokio::test]
async fn an_authorizer_that_is_put_in_decides_before_rbac() {
    let server = server_with(Options { authorizers: vec![Arc::new(Freeze)], ..Options::default() }).await;
    let binding = json!({
        "metadata": {"name": "anna"}, "roleRef": {"kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "User", "name": "anna"}],
    });
    post(&server, "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", &binding).await;
    let maps = format!("{CORE}/namespaces/default/configmaps");
    let (anna, ulf) = (User::new("anna", [""; 0]), User::new("ulf", [""; 0]));
    assert_eq!(read(&server, &anna, &maps).await.0, 200);
    let refused = ask(&server, &anna, Method::POST, &maps, json!({"metadata": {"name": "a"}})).await.status();
    assert!(
        refused.0 == 403 && refused.2.ends_with("in the namespace \"default\": the fleet is frozen"),
        "{refused:?}"
    );
    assert_eq!(read(&server, &ulf, &maps).await.0, 200);
    let (code, why) = read(&server, &ulf, &format!("{maps}/a")).await;
    assert!(code == 403 && why.ends_with(": freeze has no say"), "{why}");
    let review = json!({"spec": {"user": "anna", "resourceAttributes": {"verb": "create", "resource": "configmaps"}}});
    let review = post(&server, "/apis/authorization.k8s.io/v1/subjectaccessreviews", &review).await.json();
    assert_eq!(review["status"], json!({"allowed": false, "denied": true, "reason": "the fleet is frozen"}));
}

async fn token(server: &Server, spec: Value) -> Answer {
    post(server, &format!("{CORE}/namespaces/default/serviceaccounts/bot/token"), &json!({"spec": spec})).await
}

#[tokio::test]
async fn a_token_dies_with_the_pod_the_node_or_the_secret_that_it_is_bound_to() {
    let (server, _) = cluster().await;
    let space = format!("{CORE}/namespaces/default");
    post(&server, &format!("{space}/serviceaccounts"), &json!({"metadata": {"name": "bot"}})).await;
    let bound = [
        ("Secret", format!("{space}/secrets"), json!({"metadata": {"name": "x"}})),
        ("Node", format!("{CORE}/nodes"), json!({"metadata": {"name": "x"}})),
        ("Pod", format!("{space}/pods"), pod("x", "x", "s")),
    ];
    for (kind, path, object) in &bound {
        assert_eq!(post(&server, path, object).await.code, 201, "{kind}");
        let reference = json!({"boundObjectRef": {"apiVersion": "v1", "kind": kind, "name": "x"}});
        let made = token(&server, reference).await;
        assert_eq!(made.code, 201, "{:?}", made.status());
        let token = made.json()["status"]["token"].as_str().unwrap().to_owned();
        assert_eq!(bearer(&server, &token, "/version").await, 200, "{kind}");
        delete(&server, &format!("{path}/x?gracePeriodSeconds=0")).await;
        assert_eq!(bearer(&server, &token, "/version").await, 401, "{kind}");
    }
    let other =
        token(&server, json!({"boundObjectRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "x"}})).await;
    assert_eq!(other.status().2, "cannot bind token to object of type apps/v1, Kind=Deployment");
}

#[tokio::test]
async fn keys_are_rotated_without_a_token_being_lost() {
    let (first, pair) = keys();
    let store = Arc::new(store::Embedded::memory(store::Limits::default()));
    let before =
        Server::start(store.clone(), Options { service_account: Some(first), ..Options::default() }).await.unwrap();
    post(&before, &format!("{CORE}/namespaces/default/serviceaccounts"), &json!({"metadata": {"name": "bot"}})).await;
    let old = token(&before, json!({})).await.json()["status"]["token"].as_str().unwrap().to_owned();
    let (mut second, _) = keys();
    second.verifying_keys_pem = vec![pair.public_key_pem()];
    second.token_lifetime_s_max = Some(7200);
    let after =
        Server::start(store.clone(), Options { service_account: Some(second), ..Options::default() }).await.unwrap();
    let new = token(&after, json!({"expirationSeconds": 9000})).await;
    assert_eq!(new.warnings(), ["299 - \"requested expiration of 9000 seconds shortened to 7200 seconds\""]);
    assert_eq!(new.json()["spec"]["expirationSeconds"], 7200);
    let new = new.json()["status"]["token"].as_str().unwrap().to_owned();
    assert_eq!((bearer(&after, &old, "/version").await, bearer(&after, &new, "/version").await), (200, 200));
    assert_eq!(bearer(&before, &new, "/version").await, 401);
    let set = get(&after, "/openid/v1/jwks").await.json();
    assert_eq!(set["keys"].as_array().unwrap().len(), 2);
    let kid = |token: &str| -> Value {
        let header = URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap();
        serde_json::from_slice::<Value>(&header).unwrap()["kid"].clone()
    };
    assert_eq!((&set["keys"][0]["kid"], &set["keys"][1]["kid"]), (&kid(&new), &kid(&old)));
    let (third, _) = keys();
    let gone = Server::start(store, Options { service_account: Some(third), ..Options::default() }).await.unwrap();
    assert_eq!(bearer(&gone, &old, "/version").await, 401);
}

#[tokio::test]
async fn a_token_in_a_secret_is_good_while_the_secret_holds_it() {
    let (server, pair) = cluster().await;
    let space = format!("{CORE}/namespaces/default");
    let account =
        post(&server, &format!("{space}/serviceaccounts"), &json!({"metadata": {"name": "bot"}})).await.json();
    let claims = json!({
        "iss": "kubernetes/serviceaccount", "sub": "system:serviceaccount:default:bot",
        "kubernetes.io/serviceaccount/namespace": "default", "kubernetes.io/serviceaccount/secret.name": "bot-token",
        "kubernetes.io/serviceaccount/service-account.name": "bot",
        "kubernetes.io/serviceaccount/service-account.uid": account["metadata"]["uid"],
    });
    let signer = aws_lc_rs::signature::EcdsaKeyPair::from_pkcs8(
        &aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED_SIGNING,
        &pair.serialize_der(),
    )
    .unwrap();
    let input = [json!({"alg": "ES256"}), claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
    let signature = signer.sign(&aws_lc_rs::rand::SystemRandom::new(), input.as_bytes()).unwrap();
    let token = format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()));
    assert_eq!(bearer(&server, &token, "/version").await, 401);
    let secret = json!({
        "metadata": {"name": "bot-token", "annotations": {"kubernetes.io/service-account.name": "bot"}},
        "type": "kubernetes.io/service-account-token", "data": {"token": STANDARD.encode(&token)},
    });
    assert_eq!(post(&server, &format!("{space}/secrets"), &secret).await.code, 201);
    assert_eq!(bearer(&server, &token, "/version").await, 200);
    let path = format!("{space}/secrets/bot-token");
    let used = get(&server, &path).await.json();
    assert!(used["metadata"]["labels"]["kubernetes.io/legacy-token-last-used"].is_string(), "{used}");
    let invalid = json!({"metadata": {"labels": {"kubernetes.io/legacy-token-invalid-since": "2026-01-01"}}});
    merge(&server, &path, &invalid).await;
    assert_eq!(bearer(&server, &token, "/version").await, 401);
    merge(&server, &path, &json!({"metadata": {"labels": {"kubernetes.io/legacy-token-invalid-since": null}}})).await;
    assert_eq!(bearer(&server, &token, "/version").await, 200);
    merge(&server, &path, &json!({"data": {"token": STANDARD.encode("other")}})).await;
    assert_eq!(bearer(&server, &token, "/version").await, 401);
}

#[tokio::test]
async fn a_review_tells_for_which_audiences_a_token_is_good() {
    let (server, _) = cluster().await;
    post(&server, &format!("{CORE}/namespaces/default/serviceaccounts"), &json!({"metadata": {"name": "bot"}})).await;
    let made = token(&server, json!({"audiences": ["a", "b"]})).await.json()["status"]["token"].clone();
    assert_eq!(bearer(&server, made.as_str().unwrap(), "/version").await, 401);
    let review = async |audiences: Value| {
        let review = json!({"spec": {"token": made, "audiences": audiences}});
        post(&server, "/apis/authentication.k8s.io/v1/tokenreviews", &review).await.json()["status"].clone()
    };
    let status = review(json!(["b", "c"])).await;
    assert_eq!((&status["authenticated"], &status["audiences"]), (&json!(true), &json!(["b"])));
    assert_eq!(review(json!(["c"])).await.get("authenticated"), None);
}

#[tokio::test]
async fn a_secret_for_a_token_is_filled_in_and_goes_with_its_account() {
    let server = {
        let client_ca_pem = Some("authority".to_owned());
        server_with(Options { client_ca_pem, service_account: Some(keys().0), ..Options::default() }).await
    };
    let (accounts, secrets) = ("/api/v1/namespaces/default/serviceaccounts", "/api/v1/namespaces/default/secrets");
    let secret = |name: &str, account: &str| {
        json!({"metadata": {"name": name, "annotations": {"kubernetes.io/service-account.name": account}},
            "type": "kubernetes.io/service-account-token"})
    };
    let made =
        post(&server, accounts, &json!({"metadata": {"name": "robot"}, "secrets": [{"name": "t"}, {"name": "other"}]}))
            .await
            .json();
    assert_eq!(post(&server, secrets, &secret("t", "robot")).await.code, 201);
    let path = format!("{secrets}/t");
    let filled = || async { get(&server, &path).await.json()["data"]["token"].is_string() };
    eventually(&server, "the token is there", filled).await;
    let filled = get(&server, &path).await.json();
    let text = |key: &str| String::from_utf8(STANDARD.decode(filled["data"][key].as_str().unwrap()).unwrap()).unwrap();
    assert_eq!((text("namespace").as_str(), text("ca.crt").as_str()), ("default", "authority"));
    assert_eq!(filled["metadata"]["annotations"]["kubernetes.io/service-account.uid"], made["metadata"]["uid"]);
    let review =
        json!({"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "spec": {"token": text("token")}});
    let said = post(&server, "/apis/authentication.k8s.io/v1/tokenreviews", &review).await.json();
    assert_eq!(said["status"]["user"]["username"], "system:serviceaccount:default:robot", "{said}");
    // An account that goes takes its tokens with it; a token for nobody does not stay.
    post(&server, secrets, &secret("nobodys", "absent")).await;
    post(&server, accounts, &json!({"metadata": {"name": "second"}, "secrets": [{"name": "s"}, {"name": "other"}]}))
        .await;
    post(&server, secrets, &secret("s", "second")).await;
    delete(&server, &format!("{accounts}/robot")).await;
    delete(&server, &format!("{secrets}/s")).await;
    let gone = || async {
        let left = get(&server, &format!("{accounts}/second")).await.json();
        get(&server, &path).await.code == 404
            && get(&server, &format!("{secrets}/nobodys")).await.code == 404
            && left["secrets"] == json!([{"name": "other"}])
    };
    eventually(&server, "what is for nobody goes", gone).await;
}
