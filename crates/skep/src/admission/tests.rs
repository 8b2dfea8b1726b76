use std::sync::Arc;

use apiserver::{Options, Server, User};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;
use store::{Embedded, Limits};

use super::*;

/// An API server with the rules, as the binary puts them together.
async fn server() -> (Server, Client) {
    let rules = Arc::new(Rules::default());
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
        old: Some(class("base", "OpenStackClusterTemplate").into()),
        options: Value::Null,
    };
    let rules = Rules { client: OnceLock::from(client.clone()), ..Rules::default() };
    assert!(rules.validate(&many, &Value::Null).await.is_err(), "one of many that are deleted at once");
    classes.delete("other", &DeleteParams::default()).await.unwrap();
    clusters.delete("a", &DeleteParams::default()).await.unwrap();
    classes.delete("base", &DeleteParams::default()).await.unwrap();
    server.shutdown().await;
}

fn app(name: &str, namespace: &str, spec: Value) -> Value {
    let mut app = json!({"apiVersion": "application.giantswarm.io/v1alpha1", "kind": "App",
        "metadata": {"name": name, "namespace": namespace, "labels": {"giantswarm.io/cluster": "demo"}},
        "spec": {"catalog": "giantswarm", "name": "hello", "namespace": "hello", "version": "v1.2.0", "kubeConfig": {"inCluster": false}}});
    json_patch::merge(&mut app["spec"], &spec);
    app
}

#[tokio::test]
async fn apps_are_completed_and_judged_by_what_stands_beside_them() {
    let (server, client) = server().await;
    let dynamic = |kind: &str| {
        let kind = kube::core::GroupVersionKind::gvk("application.giantswarm.io", "v1alpha1", kind);
        kube::core::ApiResource::from_gvk(&kind)
    };
    let of = |kind: &str, namespace: &str| {
        Api::<kube::core::DynamicObject>::namespaced_with(client.clone(), namespace, &dynamic(kind))
    };
    let made = |value: Value| serde_json::from_value::<kube::core::DynamicObject>(value).unwrap();
    let params = PostParams::default();
    let namespaces = Api::<k8s_openapi::api::core::v1::Namespace>::all(client.clone());
    namespaces
        .create(&params, &serde_json::from_value(json!({"metadata": {"name": "org-acme"}})).unwrap())
        .await
        .unwrap();
    let apps = of("App", "org-acme");
    let create = async |app: Value| {
        apps.create(&params, &made(app)).await.map_err(|error| match error {
            kube::Error::Api(status) => (status.code, status.message),
            other => panic!("{other}"),
        })
    };

    let hook =
        "admission webhook \"apps.app-admission-controller.giantswarm.io\" denied the request: validation error: ";
    let secret = json!({"kubeConfig": {"secret": {"name": "k", "namespace": "org-acme"}}});
    let refused = create(app("hello", "org-acme", secret.clone())).await.unwrap_err();
    assert_eq!(refused, (400, format!("{hook}catalog `giantswarm` not found")));

    let repository = json!({"type": "helm", "URL": "https://example.com/"});
    let catalog = json!({"apiVersion": "application.giantswarm.io/v1alpha1", "kind": "Catalog", "metadata": {"name": "giantswarm"},
        "spec": {"title": "t", "description": "d", "logoURL": "", "storage": repository, "repositories": [repository]}});
    of("Catalog", "default").create(&params, &made(catalog)).await.unwrap();
    let refused = create(app("hello", "org-acme", json!({}))).await.unwrap_err();
    assert_eq!(refused, (400, format!("{hook}namespace is not specified for kubeconfig secret ``")));

    let kubeconfig = json!({"metadata": {"name": "demo-kubeconfig"}});
    let secrets = Api::<k8s_openapi::api::core::v1::Secret>::namespaced(client.clone(), "org-acme");
    secrets.create(&params, &serde_json::from_value(kubeconfig).unwrap()).await.unwrap();
    let entry = json!({"apiVersion": "application.giantswarm.io/v1alpha1", "kind": "AppCatalogEntry",
        "metadata": {"name": "giantswarm-hello-1.2.0"},
        "spec": {"appName": "hello", "appVersion": "1", "version": "1.2.0", "catalog": {"name": "giantswarm", "namespace": ""},
            "dateCreated": "2026-01-01T00:00:00Z", "dateUpdated": "2026-01-01T00:00:00Z", "restrictions": {"clusterSingleton": true}}});
    of("AppCatalogEntry", "default").create(&params, &made(entry)).await.unwrap();
    let stored = create(app("hello", "org-acme", json!({"config": null}))).await.unwrap();
    assert_eq!(stored.metadata.labels.unwrap()["app.kubernetes.io/name"], "hello");
    let spec = &stored.data["spec"];
    assert_eq!(spec["kubeConfig"]["secret"], json!({"name": "demo-kubeconfig", "namespace": "org-acme"}));
    assert_eq!(spec["extraConfigs"][0]["name"], "demo-cluster-values");
    assert_eq!(spec["config"], Value::Null, "a null is kept, as published");

    let refused = create(app("second", "org-acme", json!({}))).await.unwrap_err();
    assert_eq!(refused, (400, format!("{hook}app `hello` can only be installed once in cluster `demo`")));
    let moved = json!({"spec": {"namespace": "other"}});
    let refused = apps.patch("hello", &PatchParams::default(), &Patch::Merge(&moved)).await.unwrap_err();
    let words = "target namespace for app `hello` cannot be changed from `hello` to `other`";
    assert!(matches!(refused, kube::Error::Api(status) if status.message == format!("{hook}{words}")));
    let drift = |mode: &str| Patch::Merge(json!({"metadata": {"annotations": {"delivery.skep.dev/drift": mode}}}));
    apps.patch("hello", &PatchParams::default(), &drift("warn")).await.unwrap();
    let refused = apps.patch("hello", &PatchParams::default(), &drift("later")).await.unwrap_err();
    let words = "annotation `delivery.skep.dev/drift` is `later`: it has to be one of `correct`, `warn`, `ignore`";
    assert!(matches!(refused, kube::Error::Api(status) if status.message == format!("{hook}{words}")));
    server.shutdown().await;
}

#[tokio::test]
async fn a_cluster_is_made_of_the_chart_that_its_release_names() {
    let (server, client) = server().await;
    let params = PostParams::default();
    let create = async |namespace: &str, object: Value| {
        let object: kube::core::DynamicObject = serde_json::from_value(object).unwrap();
        let types = object.types.clone().unwrap();
        let (group, version) = types.api_version.rsplit_once('/').unwrap_or(("", &types.api_version));
        let kind = kube::core::ApiResource::from_gvk(&kube::core::GroupVersionKind::gvk(group, version, &types.kind));
        let api = match namespace {
            "" => Api::<kube::core::DynamicObject>::all_with(client.clone(), &kind),
            _ => Api::namespaced_with(client.clone(), namespace, &kind),
        };
        api.create(&params, &object).await.map_err(|error| error.to_string())
    };
    let named = |kind: &str, name: &str| json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}});
    for namespace in ["org-acme", "org-other"] {
        create("", named("Namespace", namespace)).await.unwrap();
    }
    let storage = json!({"type": "helm", "URL": "https://example.com/"});
    for catalog in ["cluster", "stable"] {
        let catalog = json!({"apiVersion": "application.giantswarm.io/v1alpha1", "kind": "Catalog", "metadata": {"name": catalog},
            "spec": {"title": "t", "description": "d", "logoURL": "", "storage": storage, "repositories": [storage]}});
        create("default", catalog).await.unwrap();
    }
    let chart = |name: &str, version: &str, values: (&str, &str)| {
        let mut app =
            app(name, "org-acme", json!({"catalog": "cluster", "name": "cluster-openstack", "version": version}));
        let (namespace, name) = values;
        app["spec"]["userConfig"] = json!({"configMap": {"name": name, "namespace": namespace}});
        app["spec"]["kubeConfig"] = json!({"inCluster": true});
        app["spec"]["namespace"] = "org-acme".into();
        app["metadata"]["labels"] = json!({"app-operator.giantswarm.io/version": "0.0.0"});
        app
    };
    let own = ("org-acme", "demo-userconfig");
    let refused = create("org-acme", chart("demo", "", own)).await.unwrap_err();
    assert!(refused.contains("configmap `demo-userconfig` in namespace `org-acme` not found"), "{refused}");
    create("org-acme", chart("early", "0.1.0", own)).await.expect("one that tells its version needs no values yet");

    let mut values = named("ConfigMap", "demo-userconfig");
    values["data"] = json!({"values": "global: {release: {version: v2.0.0}}"});
    create("org-acme", values.clone()).await.unwrap();
    let refused = create("org-acme", chart("demo", "", own)).await.unwrap_err();
    assert!(refused.contains("releases.release.giantswarm.io \"openstack-2.0.0\" not found"), "{refused}");

    let parts = json!([{"name": "kubernetes", "version": "1.34.2"}, {"name": "cluster-openstack", "version": "0.20.0", "catalog": "stable"}]);
    let mut release = json!({"apiVersion": "release.giantswarm.io/v1alpha1", "kind": "Release", "metadata": {"name": "openstack-2.0.0"},
        "spec": {"apps": [], "components": parts, "date": "2026-01-01T00:00:00Z", "state": "active"}});
    release["spec"]["components"][0]["releaseOperatorDeploy"] = true.into();
    let refused = create("", release.clone()).await.unwrap_err();
    assert!(refused.contains("releaseOperatorDeploy"), "nobody here would deploy it: {refused}");
    release["spec"]["components"][0]["releaseOperatorDeploy"] = false.into();
    create("", release).await.unwrap();
    let made = create("org-acme", chart("demo", "", own)).await.unwrap();
    assert_eq!((&made.data["spec"]["catalog"], &made.data["spec"]["version"]), (&json!("stable"), &json!("0.20.0")));

    create("org-other", values).await.unwrap();
    let refused = create("org-acme", chart("spy", "", ("org-other", "demo-userconfig"))).await.unwrap_err();
    assert!(refused.contains("org-other") && !refused.contains("2.0.0"), "{refused}");
    server.shutdown().await;
}
