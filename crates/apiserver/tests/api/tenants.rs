//! What one tenant can learn of another: nothing, by any kind, verb or header that the server has.

use apiserver::{Options, Profile, Server, User};
use axum::body::Body;
use http::{Method, Request};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::{
    access::tenants,
    support::{Answer, get, post, raw, send_as, server_with},
};

/// Everybody may ask these about themselves.
const OF_ONESELF: [&str; 3] = ["selfsubjectaccessreviews", "selfsubjectreviews", "selfsubjectrulesreviews"];

struct Resource {
    /// `/api/v1` or `/apis/GROUP/VERSION`.
    root: String,
    name: String,
    namespaced: bool,
}

/// All that discovery tells of.
async fn resources(server: &Server) -> Vec<Resource> {
    let mut roots = vec!["/api/v1".to_owned()];
    let groups = get(server, "/apis").await.json();
    for version in groups["groups"].as_array().unwrap().iter().flat_map(|group| group["versions"].as_array().unwrap()) {
        roots.push(format!("/apis/{}", version["groupVersion"].as_str().unwrap()));
    }
    let mut found = Vec::new();
    for root in roots {
        for resource in get(server, &root).await.json()["resources"].as_array().unwrap() {
            let name = resource["name"].as_str().unwrap().to_owned();
            found.push(Resource { root: root.clone(), name, namespaced: resource["namespaced"] == true });
        }
    }
    found
}

/// The path of an object, and of its collection.
fn paths(resource: &Resource, namespace: &str, name: &str) -> (String, String) {
    let place = if resource.namespaced { format!("/namespaces/{namespace}") } else { String::new() };
    let (plural, sub) =
        resource.name.split_once('/').map_or((resource.name.as_str(), ""), |(plural, sub)| (plural, sub));
    let collection = format!("{}{place}/{plural}", resource.root);
    let sub = if sub.is_empty() { String::new() } else { format!("/{sub}") };
    (format!("{collection}/{name}{sub}"), collection)
}

async fn ask(server: &Server, user: &User, method: &Method, path: &str) -> Answer {
    let media = if *method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
    send_as(server, user, method.clone(), path, media, "{}").await
}

async fn with_tenants() -> (Server, User, User) {
    let server = server_with(Options { profile: Profile::Workload, ..Options::default() }).await;
    let (anna, ulf) = tenants(&server).await;
    for kind in ["configmaps", "secrets", "serviceaccounts", "services"] {
        let body = json!({"metadata": {"name": "there"}, "spec": {"clusterIP": "None"}});
        let made = post(&server, &format!("/api/v1/namespaces/acme/{kind}"), &body).await;
        assert_eq!(made.code, 201, "{:?}", made.status());
    }
    (server, anna, ulf)
}

#[tokio::test]
async fn no_verb_on_no_kind_reaches_into_another_tenants_namespace() {
    let (server, _, ulf) = with_tenants().await;
    let all = resources(&server).await;
    assert!(all.len() > 80, "only {} resources", all.len());
    let mut asked = 0;
    for resource in all.iter().filter(|resource| resource.namespaced) {
        let (there, collection) = paths(resource, "acme", "there");
        let (missing, _) = paths(resource, "acme", "missing");
        for method in [Method::GET, Method::PUT, Method::PATCH, Method::DELETE, Method::POST] {
            let (a, b) = (ask(&server, &ulf, &method, &there).await, ask(&server, &ulf, &method, &missing).await);
            // A method that a path does not have is no matter of rights.
            assert!(matches!(a.code, 403 | 405), "{method} {there}: {:?}", a.status());
            let text = String::from_utf8(a.body).unwrap().replace("there", "missing");
            assert_eq!(text, String::from_utf8(b.body).unwrap(), "{method} {there} tells whether it is there");
            asked += 1;
        }
        if resource.name.contains('/') {
            continue;
        }
        let everywhere = format!("{}/{}", resource.root, resource.name);
        for path in [&collection, &everywhere] {
            for (method, query) in [
                (Method::GET, ""),
                (Method::GET, "?watch=true"),
                (Method::GET, "?fieldSelector=metadata.name%3Dthere"),
                (Method::GET, "?fieldSelector=metadata.namespace%3Dumbrella"),
                (Method::DELETE, ""),
                (Method::POST, ""),
            ] {
                let answer = ask(&server, &ulf, &method, &format!("{path}{query}")).await;
                assert!(matches!(answer.code, 403 | 405), "{method} {path}{query}: {:?}", answer.status());
                asked += 1;
            }
        }
    }
    assert!(asked > 500, "only {asked} requests");
}

#[tokio::test]
async fn what_belongs_to_no_namespace_is_closed_to_tenants() {
    let (server, _, ulf) = with_tenants().await;
    for resource in resources(&server).await.iter().filter(|resource| !resource.namespaced) {
        let (object, collection) = paths(resource, "", "acme");
        for (method, path) in [
            (Method::GET, &object),
            (Method::PUT, &object),
            (Method::PATCH, &object),
            (Method::DELETE, &object),
            (Method::GET, &collection),
            (Method::POST, &collection),
            (Method::DELETE, &collection),
        ] {
            if OF_ONESELF.contains(&resource.name.as_str()) && method == Method::POST {
                continue;
            }
            let answer = ask(&server, &ulf, &method, path).await;
            assert!(matches!(answer.code, 403 | 405), "{method} {path}: {:?}", answer.status());
        }
    }
}

#[tokio::test]
async fn tenants_cannot_become_each_other() {
    let (server, anna, ulf) = with_tenants().await;
    let path = "/api/v1/namespaces/acme/configmaps";
    assert_eq!(ask(&server, &anna, &Method::GET, path).await.code, 200);
    let headers: [&[(&str, &str)]; 4] = [
        &[("impersonate-user", "anna"), ("impersonate-group", "acme-admins")],
        &[("impersonate-user", "ulf"), ("impersonate-group", "acme-admins")],
        &[("impersonate-user", "system:serviceaccount:acme:there")],
        &[("impersonate-user", "ulf"), ("impersonate-group", "system:masters")],
    ];
    for headers in headers {
        let mut request = Request::get(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = raw(&server, &ulf, request.body(Body::empty()).unwrap()).await;
        let code = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(code, 403, "{headers:?}: {}", String::from_utf8_lossy(&body));
    }
    // Nor ask what others may, nor hand out what they do not hold, nor in the other's namespace.
    let review = json!({"spec": {"user": "anna", "resourceAttributes": {"namespace": "acme", "verb": "get", "resource": "secrets"}}});
    let grant = json!({"metadata": {"name": "g"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "admin"},
        "subjects": [{"kind": "User", "name": "ulf"}]});
    let token = json!({"spec": {"audiences": ["x"]}});
    let cases: [(&str, &Value); 5] = [
        ("/apis/authorization.k8s.io/v1/subjectaccessreviews", &review),
        ("/apis/authorization.k8s.io/v1/namespaces/acme/localsubjectaccessreviews", &review),
        ("/apis/rbac.authorization.k8s.io/v1/namespaces/acme/rolebindings", &grant),
        ("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", &grant),
        ("/api/v1/namespaces/acme/serviceaccounts/there/token", &token),
    ];
    for (path, body) in cases {
        let answer = send_as(&server, &ulf, Method::POST, path, "application/json", body.to_string()).await;
        assert_eq!(answer.code, 403, "{path}: {:?}", answer.status());
    }
}
