use std::sync::Arc;

use apiserver::{Options, Server, User};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;
use store::{Embedded, Limits};

use super::*;

/// An API server with the rules, as the binary puts them together.
async fn server() -> (Server, Client) {
    let rules = Arc::new(Rules { client: OnceLock::new() });
    let crds = api::crd::all().into_iter().map(|crd| serde_json::to_value(crd).unwrap());
    let options = Options {
        admission: vec![rules.clone()],
        crds: crds.collect(),
        conversion: Some(Arc::new(Versions)),
        ..Options::default()
    };
    let server = Server::start(Arc::new(Embedded::memory(Limits::default())), options).await.unwrap();
    let client = Client::new(server.service_as(User::master("admin")), "default");
    let _ = rules.client.set(client.clone());
    (server, client)
}

fn class(name: &str, kind: &str) -> Value {
    let named = |kind: &str| json!({"templateRef": {"apiVersion": "infrastructure.cluster.x-k8s.io/v1beta2", "kind": kind, "name": "t"}});
    json!({"apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "ClusterClass", "metadata": {"name": name}, "spec": {
        "infrastructure": named(kind), "controlPlane": named("KubeadmControlPlaneTemplate"),
        "variables": [{"name": "zones", "required": true, "schema": {"openAPIV3Schema": {
            "type": "array", "maxItems": 5, "items": {"type": "string", "maxLength": 20},
            "x-kubernetes-validations": [{"rule": "self.all(a, oldSelf.exists(b, a == b)) || size(self) > size(oldSelf)",
                "messageExpression": "'zones were ' + string(size(oldSelf))"}],
        }}}],
    }})
}

fn cluster(zones: Value) -> Value {
    json!({"apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Cluster", "metadata": {"name": "a"}, "spec": {"topology": {
        "classRef": {"name": "base"}, "version": "v1.34.2", "variables": [{"name": "zones", "value": zones}],
    }}})
}

#[tokio::test]
async fn a_class_and_its_clusters_are_judged_by_one_another() {
    let (server, client) = server().await;
    let classes = Api::<ClusterClass>::namespaced(client.clone(), "default");
    let clusters = Api::<Cluster>::namespaced(client.clone(), "default");
    let made = |value: Value| serde_json::from_value::<ClusterClass>(value).unwrap();
    let params = PostParams::default();
    for class in [class("base", "OpenStackClusterTemplate"), class("other", "OtherTemplate")] {
        classes.create(&params, &made(class)).await.unwrap();
    }
    let mut wrong = class("wrong", "OpenStackClusterTemplate");
    wrong["spec"]["variables"][0]["schema"]["openAPIV3Schema"]["x-kubernetes-validations"][0]["rule"] =
        json!("self.none");
    let refused = classes.create(&params, &made(wrong)).await.unwrap_err().to_string();
    assert!(
        refused.contains("x-kubernetes-validations[0].rule") && refused.contains("compilation failed"),
        "{refused}"
    );

    clusters.create(&params, &serde_json::from_value(cluster(json!(["a", "b"]))).unwrap()).await.unwrap();
    let change = |spec: Value| {
        let (clusters, patch) = (clusters.clone(), Patch::Merge(json!({ "spec": spec })));
        async move { clusters.patch("a", &PatchParams::default(), &patch).await.map_err(|error| error.to_string()) }
    };
    let zones = |zones: Value| json!({"topology": {"variables": [{"name": "zones", "value": zones}]}});
    change(zones(json!(["a", "c", "d"]))).await.unwrap();
    let refused = change(zones(json!(["x"]))).await.unwrap_err();
    assert!(refused.contains("spec.topology.variables[zones]") && refused.contains("zones were 3"), "{refused}");
    let refused = change(json!({"topology": {"classRef": {"name": "other"}}})).await.unwrap_err();
    assert!(refused.contains("spec.infrastructure.templateRef.kind"), "{refused}");
    let refused = change(json!({"topology": {"version": "v1.35.0"}})).await.unwrap_err();
    assert!(refused.contains("version cannot be changed"), "{refused}");

    let patch = Patch::Merge(json!({"spec": {"kubernetesVersions": ["v1.33.0"]}}));
    let refused = classes.patch("base", &PatchParams::default(), &patch).await.unwrap_err().to_string();
    assert!(refused.contains("used by Cluster \"a\""), "{refused}");
    let refused = classes.delete("base", &DeleteParams::default()).await.unwrap_err().to_string();
    assert!(refused.contains("used by Cluster(s): default/a"), "{refused}");
    let many = Request {
        operation: Operation::Delete,
        group: "cluster.x-k8s.io".into(),
        version: "v1beta2".into(),
        kind: "ClusterClass".into(),
        resource: "clusterclasses".into(),
        subresource: String::new(),
        namespace: "default".into(),
        name: String::new(),
        user: User::master("admin"),
        dry_run: false,
        old: Some(class("base", "OpenStackClusterTemplate")),
        options: Value::Null,
    };
    let rules = Rules { client: OnceLock::from(client.clone()) };
    assert!(rules.validate(&many, &Value::Null).await.is_err(), "one of many that are deleted at once");
    classes.delete("other", &DeleteParams::default()).await.unwrap();
    clusters.delete("a", &DeleteParams::default()).await.unwrap();
    classes.delete("base", &DeleteParams::default()).await.unwrap();
    server.shutdown().await;
}
