//! What must not panic, and must not fail inside, whatever comes in: each function takes any bytes. libFuzzer drives them
//! (`fuzz/run`), and the tests replay the kept inputs with random changes.
//!
//! The API server is asked as a client asks it, without sockets, so that all of its layers are under test. Writes are dry
//! runs: the same input always meets the same server.

use std::sync::{Arc, LazyLock};

use apiserver::{Options, Profile, Server, User};
use axum::body::Body;
use http::{Method, Request, Uri};
use http_body_util::BodyExt;
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use policy::cel::{Budget, Decl, Program, Type, Value};
use serde_json::json;
use store::{Embedded, Limits};
use tokio::runtime::Runtime;

/// A function, by the name of its program and of the folder with its inputs.
pub type Target = fn(&[u8]);

pub const TARGETS: &[(&str, Target)] = &[
    ("path", path),
    ("json", json),
    ("yaml", yaml),
    ("protobuf", protobuf),
    ("patch", patch),
    ("selector", selector),
    ("cel", cel),
];

/// Where objects are made; the first byte of an input picks one.
const COLLECTIONS: [&str; 8] = [
    "/api/v1/namespaces/default/configmaps",
    "/api/v1/namespaces/default/secrets",
    "/api/v1/namespaces/default/services",
    "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "/apis/apps/v1/namespaces/default/deployments",
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
    "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies",
    THINGS,
];
const THINGS: &str = "/apis/fuzz.example.com/v1/namespaces/default/things";
const PATCHES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

struct World {
    runtime: Runtime,
    server: Server,
    user: Arc<User>,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime without threads");
    let server = runtime.block_on(async {
        let options = Options { profile: Profile::Workload, ..Options::default() };
        Server::start(Arc::new(Embedded::memory(Limits::default())), options).await.expect("a server in memory")
    });
    let world = World { runtime, server, user: Arc::new(User::master("fuzz")) };
    for (collection, object) in objects() {
        let made = world.ask(Method::POST, collection, "application/json", object.to_string().into_bytes());
        assert!(made.is_some_and(|(code, _)| code == 201), "{collection}: {object}");
    }
    world
});

/// What patches are applied to: an object of a built-in kind, and of one with a schema of its own.
fn objects() -> Vec<(&'static str, serde_json::Value)> {
    let text = json!({"type": "string", "maxLength": 100});
    let item = json!({"type": "object", "required": ["name"], "properties": {"name": text, "value": {"x-kubernetes-int-or-string": true}}});
    let list = json!({"type": "array", "maxItems": 10, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"], "items": item});
    let rule =
        json!({"rule": "!has(self.text) || self.text.size() < 50", "messageExpression": "'too long: ' + self.text"});
    let spec = json!({"type": "object", "x-kubernetes-validations": [rule], "properties": {
        "text": text, "list": list, "number": {"type": "integer", "minimum": 0, "default": 1, "nullable": true},
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": text},
        "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}});
    let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}});
    let names = json!({"kind": "Thing", "plural": "things"});
    let versions = json!([{"name": "v1", "served": true, "storage": true, "schema": schema}]);
    let crd = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "things.fuzz.example.com"},
        "spec": {"group": "fuzz.example.com", "scope": "Namespaced", "names": names, "versions": versions}});
    let thing = json!({"apiVersion": "fuzz.example.com/v1", "kind": "Thing", "metadata": {"name": "a"},
        "spec": {"text": "x", "list": [{"name": "a", "value": 1}, {"name": "b", "value": "2"}], "set": ["a", "b"], "any": {"x": [1]}}});
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "labels": {"x": "y"}},
        "spec": {"clusterIP": "None", "ports": [{"name": "a", "port": 1}, {"name": "b", "port": 2}]}});
    vec![(COLLECTIONS[5], crd), (THINGS, thing), (COLLECTIONS[2], service)]
}

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const PROTOBUF_OR_JSON: &str = "application/vnd.kubernetes.protobuf,application/json";

impl World {
    /// Code and body of the answer, if this is a request at all; the body of a watch is not read.
    fn ask(&self, method: Method, path: &str, media: &str, body: Vec<u8>) -> Option<(u16, Vec<u8>)> {
        let uri = path.parse::<Uri>().ok()?;
        let accept = if media == PROTOBUF { PROTOBUF_OR_JSON } else { "*/*" };
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header("content-type", media)
            .header("accept", accept)
            .body(Body::from(body));
        let request = request.ok()?;
        self.runtime.block_on(async {
            let watches = request.uri().query().is_some_and(|query| query.contains("watch"));
            let (parts, body) = self.server.call_as(Arc::clone(&self.user), request).await.into_parts();
            let read =
                if watches { Vec::new() } else { body.collect().await.expect("a whole answer").to_bytes().to_vec() };
            Some((parts.status.as_u16(), read))
        })
    }

    fn check(&self, method: Method, path: &str, media: &str, body: &[u8]) {
        let Some((_, answer)) = self.ask(method.clone(), path, media, body.to_vec()) else { return };
        let text = match answer.starts_with(b"k8s\0") {
            true => apiserver::protobuf::parse(&answer).expect("an answer that can be read").to_string(),
            false => String::from_utf8_lossy(&answer).into_owned(),
        };
        // Kubernetes answers some bad patches with 500 as well, but not as its own fault.
        assert!(!text.contains("\"reason\":\"InternalError\""), "{method} {path}: {text}");
    }
}

fn pick<T: Copy>(of: &[T], input: &[u8]) -> Option<T> {
    of.get(usize::from(*input.first()?) % of.len()).copied()
}

/// Any path and query.
pub fn path(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    WORLD.check(Method::GET, &format!("/{}", text.trim_start_matches('/')), "", b"");
}

fn create(input: &[u8], media: &str, head: &[u8]) {
    let Some(collection) = pick(&COLLECTIONS, input) else { return };
    let body = [head, input.get(1..).unwrap_or_default()].concat();
    WORLD.check(Method::POST, &format!("{collection}?dryRun=All"), media, &body);
}

pub fn json(input: &[u8]) {
    create(input, "application/json", b"");
}

pub fn yaml(input: &[u8]) {
    create(input, "application/yaml", b"");
}

/// What follows the magic number.
pub fn protobuf(input: &[u8]) {
    create(input, PROTOBUF, b"k8s\0");
}

/// The first byte picks the kind of patch, and of object.
pub fn patch(input: &[u8]) {
    let (Some(media), Some(first)) = (pick(&PATCHES, input), input.first()) else { return };
    let collection = if first / 4 % 2 == 0 { THINGS } else { COLLECTIONS[2] };
    let apply = if media.starts_with("application/apply") { "&fieldManager=fuzz&force=true" } else { "" };
    let path = format!("{collection}/a?dryRun=All{apply}");
    WORLD.check(Method::PATCH, &path, media, input.get(1..).unwrap_or_default());
}

/// Labels, then fields.
pub fn selector(input: &[u8]) {
    let text = percent_encode(input, NON_ALPHANUMERIC);
    for key in ["labelSelector", "fieldSelector"] {
        WORLD.check(Method::GET, &format!("{THINGS}?{key}={text}"), "", b"");
    }
}

/// An expression, over a value of no type.
pub fn cel(input: &[u8]) {
    let Ok(source) = std::str::from_utf8(input) else { return };
    let any = Decl::any();
    let variables = [("self", Type::Dyn)];
    let Ok(program) = Program::compile(source, &variables) else { return };
    let data = json!({"text": "abc", "list": [1, 2, 3], "map": {"a": "b"}, "number": 5, "time": "2024-01-01T00:00:00Z", "ip": "10.0.0.1"});
    let Ok(value) = Value::of(&data, &any) else { return };
    let outcome = program.evaluate(&[value], Budget::CALL);
    drop(outcome);
}
