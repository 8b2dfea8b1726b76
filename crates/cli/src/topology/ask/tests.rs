//! Extensions are real servers, over TLS, on this machine.

use std::sync::{Arc, Mutex};

use axum::{Json, Router, extract::Path, routing::post};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use k8s_openapi::ByteString;
use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;

const VERSION: &str = "hooks.runtime.cluster.x-k8s.io/v1alpha1";

/// Requests of an extension, by hook.
type Asked = Arc<Mutex<Vec<(String, Value)>>>;

/// An extension that patches the flavor; its port, its authority, and what it is asked.
async fn serve() -> (u16, String, Asked) {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let tls = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key);
    let tls = TlsAcceptor::from(Arc::new(tls.unwrap()));
    let asked = Asked::default();
    let seen = asked.clone();
    let answer = move |Path((hook, handler)): Path<(String, String)>, Json(request): Json<Value>| async move {
        seen.lock().unwrap().push((hook.clone(), request.clone()));
        let patch = json!({"spec": {"template": {"spec": {"flavor": "large"}}}});
        let patch = ByteString(patch.to_string().into_bytes());
        let items = request["items"].as_array().cloned().unwrap_or_default().into_iter();
        let items = items.filter(|item| item["object"]["kind"] == "OpenStackMachineTemplate");
        let items: Vec<Value> =
            items.map(|item| json!({"uid": item["uid"], "patchType": "JSONMergePatch", "patch": patch})).collect();
        let variables =
            json!([{"name": "size", "required": false, "schema": {"openAPIV3Schema": {"type": "integer"}}}]);
        Json(match (hook.as_str(), handler.as_str()) {
            (_, "refuse") => json!({"status": "Failure", "message": "it is not to be"}),
            ("generatepatches", _) => json!({"status": "Success", "items": items}),
            ("discovervariables", _) => json!({"status": "Success", "variables": variables}),
            _ => json!({"status": "Success"}),
        })
    };
    let router = Router::new().route(&format!("/x/{VERSION}/{{hook}}/{{handler}}"), post(answer));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (tls, router) = (tls.clone(), router.clone());
            tokio::spawn(async move {
                if let Ok(stream) = tls.accept(stream).await {
                    let served = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
                    let _ = served.await;
                }
            });
        }
    });
    (port, made.cert.pem(), asked)
}

fn config(name: &str, port: u16, authority: &str) -> ExtensionConfig {
    let handler = |name: &str, hook: &str| json!({"name": name, "requestHook": {"apiVersion": VERSION, "hook": hook}, "timeoutSeconds": 3, "failurePolicy": "Ignore"});
    let named = |hook: &str| handler(&format!("{}.{name}", hook.to_lowercase()), hook);
    let mut handlers: Vec<Value> =
        ["GeneratePatches", "ValidateTopology", "DiscoverVariables", "BeforeClusterCreate"].map(named).into();
    handlers.push(handler(&format!("refuse.{name}"), "ValidateTopology"));
    serde_json::from_value(json!({
        "apiVersion": "runtime.cluster.x-k8s.io/v1beta2", "kind": "ExtensionConfig", "metadata": {"name": name},
        "spec": {"clientConfig": {"url": format!("https://localhost:{port}/x"), "caBundle": ByteString(authority.as_bytes().to_vec())},
            "settings": {"a": "all"}},
        "status": {"handlers": handlers},
    }))
    .unwrap()
}

/// Those of a management cluster in which nothing else is looked up.
fn extensions(configs: Vec<ExtensionConfig>) -> Extensions {
    let nowhere = Config::new("http://127.0.0.1:1".parse().unwrap());
    let namespaces = [("org".to_owned(), None)].into();
    Extensions { client: Client::try_from(nowhere).unwrap(), configs, namespaces }
}

fn seen(generate: &str, validate: &str) -> desired::Seen {
    let mut seen = desired::Seen::default();
    let mut template = |group: &str, kind: &str, spec: Value| {
        let api_version = format!("{group}.cluster.x-k8s.io/v1beta2");
        let object = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "base", "namespace": "org"}, "spec": {"template": {"spec": spec}}});
        let reference =
            desired::Reference { api_version: api_version.clone(), kind: kind.to_owned(), name: "base".to_owned() };
        seen.templates.insert(reference, object);
        json!({"templateRef": {"apiVersion": api_version, "kind": kind, "name": "base"}})
    };
    let network = template("infrastructure", "OpenStackClusterTemplate", json!({}));
    let plane = template("controlplane", "KubeadmControlPlaneTemplate", json!({"kubeadmConfigSpec": {}}));
    let machine = template("infrastructure", "OpenStackMachineTemplate", json!({"flavor": "small"}));
    let boot = template("bootstrap", "KubeadmConfigTemplate", json!({"joinConfiguration": {}}));
    seen.class = json!({
        "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "ClusterClass", "metadata": {"name": "base", "namespace": "org"},
        "spec": {
            "infrastructure": network,
            "controlPlane": {"templateRef": plane["templateRef"], "machineInfrastructure": machine},
            "workers": {"machineDeployments": [{"class": "worker", "bootstrap": boot, "infrastructure": machine}]},
            "patches": [{"name": "flavors", "external": {"generatePatchesExtension": generate, "validateTopologyExtension": validate,
                "discoverVariablesExtension": "discovervariables.ext", "settings": {"b": "patch"}}}],
        },
    });
    seen.cluster = json!({
        "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Cluster", "metadata": {"name": "a", "namespace": "org"},
        "spec": {"topology": {"classRef": {"name": "base"}, "version": "v1.34.2", "controlPlane": {"replicas": 1},
            "variables": [{"name": "size", "value": 7}],
            "workers": {"machineDeployments": [{"class": "worker", "name": "md-0", "replicas": 1}]}}},
    });
    seen
}

#[tokio::test]
async fn extensions_patch_a_plan_and_hooks_of_the_clusters_life_are_not_called() {
    let (port, authority, asked) = serve().await;
    let mut extensions = extensions(vec![config("ext", port, &authority)]);
    let mut seen = seen("generatepatches.ext", "validatetopology.ext");
    discover(&mut extensions, &mut seen.class).await.unwrap().unwrap();
    seen.runtime = extensions.runtime("org").await.unwrap();
    let told = extensions.desired(&mut seen).await;
    let desired = told.desired.unwrap();
    let flavors: Vec<_> =
        desired.objects().iter().filter_map(|object| object.pointer("/spec/template/spec/flavor")).cloned().collect();
    assert_eq!(flavors, ["large", "large"]);
    assert_eq!(told.hooks, ["BeforeClusterCreate"]);
    let asked = asked.lock().unwrap();
    let hooks: Vec<_> = asked.iter().map(|(hook, _)| hook.as_str()).collect();
    assert_eq!(hooks, ["discovervariables", "generatepatches", "validatetopology"]);
    let (_, request) = &asked[1];
    assert_eq!(
        (&request["kind"], &request["settings"]),
        (&json!("GeneratePatchesRequest"), &json!({"a": "all", "b": "patch"}))
    );
    let variables = request["variables"].as_array().unwrap();
    assert!(variables.contains(&json!({"name": "size", "value": 7})), "{variables:?}");
}

#[tokio::test]
async fn an_extension_that_is_not_reached_from_here_is_named_whatever_its_failure_policy_says() {
    let (port, authority, asked) = serve().await;
    let (_, other, _) = serve().await;
    let closed = TcpListener::bind(("127.0.0.1", 0)).await.unwrap().local_addr().unwrap().port();
    for (config, wanted) in
        [(config("ext", closed, &authority), "Connection refused"), (config("ext", port, &other), "certificate")]
    {
        let mut extensions = extensions(vec![config]);
        let mut seen = seen("generatepatches.ext", "validatetopology.ext");
        let why = discover(&mut extensions, &mut seen.class).await.unwrap().unwrap_err();
        let begin = "patch flavors: extension ext could not be asked from here (DiscoverVariables, handler discovervariables.ext)";
        assert!(why.starts_with(begin) && why.contains(wanted), "{why}");
        seen.cluster["spec"]["topology"]["variables"] = Value::Null;
        seen.runtime = extensions.runtime("org").await.unwrap();
        let why = extensions.desired(&mut seen).await.desired.unwrap_err().to_string();
        assert!(why.contains("extension ext could not be asked from here (GeneratePatches"), "{why}");
    }
    assert!(asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn what_an_extension_refuses_cannot_be() {
    let (port, authority, _) = serve().await;
    let mut extensions = extensions(vec![config("ext", port, &authority)]);
    for (validate, wanted) in [
        ("refuse.ext", "got failure response with message: it is not to be"),
        ("generatepatches.ext", "is not one of hook ValidateTopology"),
        ("nobody.ext", "is not registered"),
    ] {
        let mut seen = seen("generatepatches.ext", validate);
        discover(&mut extensions, &mut seen.class).await.unwrap().unwrap();
        seen.runtime = extensions.runtime("org").await.unwrap();
        let why = extensions.desired(&mut seen).await.desired.unwrap_err().to_string();
        assert!(why.contains(wanted), "{why}");
    }
    extensions.configs[0].spec.namespace_selector =
        serde_json::from_value(json!({"matchLabels": {"team": "a"}})).unwrap();
    assert!(extensions.runtime("org").await.unwrap().handled.is_empty());
    let mut seen = seen("generatepatches.ext", "");
    let why = discover(&mut extensions, &mut seen.class).await.unwrap().unwrap_err();
    assert!(why.contains("is not for namespace org"), "{why}");
}
