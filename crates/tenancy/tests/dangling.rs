//! Apps of clusters that go, beside a real API server.

use std::{sync::Arc, time::Duration};

use api::{app::App, cluster::Cluster};
use apiserver::{Options as ServerOptions, Server, User};
use control::{Clock, Figures};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::json;
use store::{Embedded, Limits};
use tenancy::{Installation, Options, Tenancy};

async fn eventually<F: Future<Output = bool>>(what: &str, is_so: impl Fn() -> F) {
    for _ in 0..600 {
        if is_so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    panic!("never: {what}");
}

#[tokio::test(start_paused = true)]
async fn apps_that_hold_up_the_end_of_their_cluster_are_counted_until_they_are_gone() {
    let crds = api::crd::all().into_iter().map(|crd| serde_json::to_value(crd).unwrap()).collect();
    let options = ServerOptions { crds, ..ServerOptions::default() };
    let server = Server::start(Arc::new(Embedded::memory(Limits::default())), options).await.unwrap();
    let client = Client::new(server.service_as(User::master("test")), "default");
    let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": "org-acme"}})).unwrap();
    Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
    let figures = Figures::default();
    let tenancy = Tenancy::start(Options {
        client: client.clone(),
        clock: Clock::system(),
        installation: Installation { base_domain: "test".to_owned(), registry_domain: "test".to_owned() },
        figures: figures.clone(),
        concurrency: 2,
        longest: Default::default(),
    });
    let (clusters, apps) =
        (Api::<Cluster>::namespaced(client.clone(), "org-acme"), Api::<App>::namespaced(client.clone(), "org-acme"));
    let cluster = json!({
        "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Cluster",
        "metadata": {"name": "w1", "labels": {"cluster-apps-operator.giantswarm.io/watching": ""}},
        "spec": {"controlPlaneEndpoint": {"host": "192.0.2.1", "port": 6443}},
    });
    clusters.create(&PostParams::default(), &serde_json::from_value(cluster).unwrap()).await.unwrap();
    let app = json!({
        "apiVersion": "application.giantswarm.io/v1alpha1", "kind": "App",
        "metadata": {"name": "w1-hello", "labels": {"giantswarm.io/cluster": "w1"}, "finalizers": ["test/held"]},
        "spec": {"catalog": "c", "name": "hello", "namespace": "web", "version": "1.0.0", "kubeConfig": {"inCluster": false}},
    });
    apps.create(&PostParams::default(), &serde_json::from_value(app).unwrap()).await.unwrap();
    eventually("the cluster is held", async || !clusters.get("w1").await.unwrap().finalizers().is_empty()).await;
    const NAME: &str = "cluster_apps_operator_cluster_dangling_apps{cluster_id=\"w1\"}";
    assert!(!figures.text().contains(NAME), "it does not go");
    clusters.delete("w1", &DeleteParams::default()).await.unwrap();
    eventually("the app is counted", async || figures.text().contains(&format!("{NAME} 1\n"))).await;
    let free = json!({"metadata": {"finalizers": null}});
    apps.patch("w1-hello", &PatchParams::default(), &Patch::Merge(&free)).await.unwrap();
    eventually("the cluster is gone", async || clusters.get_opt("w1").await.unwrap().is_none()).await;
    eventually("nothing is counted", async || !figures.text().contains(NAME)).await;
    tenancy.shutdown().await;
    assert_eq!(figures.text(), "");
}
