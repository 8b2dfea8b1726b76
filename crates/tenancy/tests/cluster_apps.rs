//! Clusters and their apps, beside a real API server.

use std::{sync::Arc, time::Duration};

use api::{app::App, cluster::Cluster, openstack_cluster::OpenStackCluster};
use apiserver::{Options as ServerOptions, Server, User};
use control::{Clock, Figures, Life};
use k8s_openapi::api::{
    core::v1::{ConfigMap, Namespace, Secret, ServiceAccount},
    rbac::v1::RoleBinding,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use store::{Embedded, Limits};
use tenancy::{Automation, Installation, Options};

/// A server with the controllers beside it, and a namespace of an organization.
struct World {
    client: Client,
    figures: Figures,
    tenancy: Life,
    _server: Server,
}

impl World {
    async fn start() -> Self {
        let crds = api::crd::all().into_iter().map(|crd| serde_json::to_value(crd).unwrap()).collect();
        let options = ServerOptions { crds, ..ServerOptions::default() };
        let server = Server::start(Arc::new(Embedded::memory(Limits::default())), options).await.unwrap();
        let client = Client::new(server.service_as(User::master("test")), "org-acme");
        let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": "org-acme"}})).unwrap();
        Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
        let figures = Figures::default();
        let tenancy = tenancy::start(Options {
            client: client.clone(),
            clock: Clock::system(),
            installation: Installation { base_domain: "test".to_owned(), registry_domain: "test".to_owned() },
            automation: Automation { account: "automation".to_owned(), role: "apps".to_owned() },
            figures: figures.clone(),
            concurrency: 2,
            longest: Default::default(),
        });
        Self { client, figures, tenancy, _server: server }
    }

    fn all<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::default_namespaced(self.client.clone())
    }

    async fn make<K>(&self, object: Value)
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + Serialize
            + DeserializeOwned,
    {
        self.all::<K>().create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
    }

    /// With an id of its own.
    async fn cluster(&self, name: &str, id: &str) {
        let cluster = json!({
            "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Cluster",
            "metadata": {"name": name, "labels": {"cluster-apps-operator.giantswarm.io/watching": "", "giantswarm.io/cluster": id}},
            "spec": {"controlPlaneEndpoint": {"host": "192.0.2.1", "port": 6443}},
        });
        self.make::<Cluster>(cluster).await;
    }

    /// On OpenStack, with its network; credentials are in the Secret `cloud`.
    async fn openstack_cluster(&self, name: &str) {
        let meta = json!({"name": name, "labels": {"cluster-apps-operator.giantswarm.io/watching": ""}});
        let group = "infrastructure.cluster.x-k8s.io";
        self.make::<OpenStackCluster>(json!({
            "apiVersion": format!("{group}/v1beta2"), "kind": "OpenStackCluster", "metadata": {"name": name},
            "spec": {"identityRef": {"name": "cloud", "cloudName": "c1"}},
        }))
        .await;
        let status = json!({"status": {
            "network": {"id": "n", "name": "net", "subnets": [{"id": "s", "name": "sub", "cidr": "10.0.0.0/24"}]},
            "externalNetwork": {"id": "e", "name": "public"},
        }});
        let clusters = self.all::<OpenStackCluster>();
        clusters.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
        self.make::<Cluster>(json!({
            "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Cluster", "metadata": meta,
            "spec": {"infrastructureRef": {"apiGroup": group, "kind": "OpenStackCluster", "name": name}},
        }))
        .await;
    }

    async fn credentials(&self, password: &str) {
        let clouds =
            format!("clouds: {{c1: {{auth: {{auth_url: 'https://k.test', username: u, password: {password}}}}}}}");
        self.secret("cloud", &json!({"clouds.yaml": clouds})).await;
    }

    async fn secret(&self, name: &str, data: &Value) {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data});
        let secrets = self.all::<Secret>();
        secrets.patch(name, &PatchParams::apply("test").force(), &Patch::Apply(secret)).await.unwrap();
    }

    /// What apps are told of the cloud.
    async fn cloud(&self, id: &str) -> Option<String> {
        let secret = self.all::<Secret>().get_opt(&format!("{id}-cluster-values")).await.unwrap()?;
        Some(String::from_utf8(secret.data?["values"].0.clone()).unwrap())
    }

    async fn told(&self, id: &str) -> Option<String> {
        let map = self.all::<ConfigMap>().get_opt(&format!("{id}-cluster-values")).await.unwrap()?;
        Some(map.data?["values"].clone())
    }

    /// That is held when it is deleted.
    async fn app(&self, id: &str) {
        let app = json!({
            "apiVersion": "application.giantswarm.io/v1alpha1", "kind": "App",
            "metadata": {"name": format!("{id}-hello"), "labels": {"giantswarm.io/cluster": id}, "finalizers": ["test/held"]},
            "spec": {"catalog": "c", "name": "hello", "namespace": "web", "version": "1.0.0", "kubeConfig": {"inCluster": false}},
        });
        self.make::<App>(app).await;
    }

    async fn free(&self, id: &str) {
        let free = json!({"metadata": {"finalizers": null}});
        let apps = self.all::<App>();
        apps.patch(&format!("{id}-hello"), &PatchParams::default(), &Patch::Merge(&free)).await.unwrap();
    }

    async fn until_held(&self, cluster: &str) {
        let clusters = self.all::<Cluster>();
        let is_held = async || !clusters.get(cluster).await.unwrap().finalizers().is_empty();
        eventually("the cluster is held", is_held).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_account_of_an_organization_and_its_rights_are_made_anew_and_what_is_there_is_left_alone() {
    let world = World::start().await;
    let (accounts, bindings) = (world.all::<ServiceAccount>(), world.all::<RoleBinding>());
    let is_bound = async || bindings.get_opt("apps").await.unwrap().is_some();
    eventually("it is bound", is_bound).await;
    let binding = bindings.get("apps").await.unwrap();
    assert_eq!(binding.role_ref.name, "apps");
    assert_eq!(binding.subjects.unwrap()[0].name, "automation");
    let nobody = Patch::Merge(json!({"subjects": []}));
    bindings.patch("apps", &PatchParams::default(), &nobody).await.unwrap();
    accounts.delete("automation", &DeleteParams::default()).await.unwrap();
    let is_there = async || accounts.get_opt("automation").await.unwrap().is_some();
    eventually("the account is there again", is_there).await;
    assert!(bindings.get("apps").await.unwrap().subjects.unwrap_or_default().is_empty(), "an administrator's wish");
    bindings.delete("apps", &DeleteParams::default()).await.unwrap();
    eventually("it is bound again", is_bound).await;
    world.tenancy.shutdown().await;
}

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
async fn apps_that_hold_up_the_end_of_their_cluster_are_counted_by_its_id_until_they_are_gone() {
    let world = World::start().await;
    let (clusters, figures) = (world.all::<Cluster>(), &world.figures);
    world.cluster("w1", "id1").await;
    world.app("id1").await;
    world.until_held("w1").await;
    const NAME: &str = "cluster_apps_operator_cluster_dangling_apps{cluster_id=\"id1\"}";
    assert!(!figures.text().contains(NAME), "it does not go");
    clusters.delete("w1", &DeleteParams::default()).await.unwrap();
    eventually("the app is counted", async || figures.text().contains(&format!("{NAME} 1\n"))).await;
    world.free("id1").await;
    eventually("the cluster is gone", async || clusters.get_opt("w1").await.unwrap().is_none()).await;
    eventually("nothing is counted", async || !figures.text().contains(NAME)).await;
    world.tenancy.shutdown().await;
    assert_eq!(world.figures.text(), "");
}

#[tokio::test(start_paused = true)]
async fn what_others_have_made_in_place_of_a_clusters_values_becomes_what_it_tells() {
    let world = World::start().await;
    let maps = world.all::<ConfigMap>();
    let made = json!({
        "metadata": {"name": "w1-cluster-values", "labels": {"app.kubernetes.io/managed-by": "skep"}}, "data": {"values": "{}\n"},
    });
    world.make::<ConfigMap>(made).await;
    world.cluster("w1", "w1").await;
    let told = async || maps.get("w1-cluster-values").await.unwrap().data.unwrap()["values"].contains("clusterID: w1");
    eventually("the values are the cluster's", told).await;
    let map = maps.get("w1-cluster-values").await.unwrap();
    assert_eq!(map.labels()["giantswarm.io/managed-by"], "cluster-apps-operator");
    assert_eq!(map.labels()["app.kubernetes.io/managed-by"], "skep", "what it was marked with stays");
    assert_eq!(map.owner_references().len(), 1);
    world.tenancy.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_paused_cluster_that_is_deleted_keeps_its_apps() {
    let world = World::start().await;
    let (clusters, apps) = (world.all::<Cluster>(), world.all::<App>());
    for id in ["w1", "w2"] {
        world.cluster(id, id).await;
        world.app(id).await;
        world.until_held(id).await;
    }
    let pause = |paused: bool| Patch::Merge(json!({"spec": {"paused": paused}}));
    clusters.patch("w1", &PatchParams::default(), &pause(true)).await.unwrap();
    for id in ["w1", "w2"] {
        clusters.delete(id, &DeleteParams::default()).await.unwrap();
    }
    world.free("w2").await;
    eventually("the other is gone", async || clusters.get_opt("w2").await.unwrap().is_none()).await;
    assert!(
        apps.get("w1-hello").await.unwrap().metadata.deletion_timestamp.is_none(),
        "a move deletes a paused cluster"
    );
    clusters.patch("w1", &PatchParams::default(), &pause(false)).await.unwrap();
    eventually("its app goes", async || apps.get("w1-hello").await.unwrap().metadata.deletion_timestamp.is_some())
        .await;
    world.free("w1").await;
    eventually("it is gone", async || clusters.get_opt("w1").await.unwrap().is_none()).await;
    world.tenancy.shutdown().await;
}

/// Sooner than what is missing is looked for again.
async fn soon<F: Future<Output = bool>>(what: &str, is_so: impl Fn() -> F) {
    let limit = Duration::from_secs(60);
    tokio::time::timeout(limit, eventually(what, is_so)).await.unwrap_or_else(|_| panic!("not soon: {what}"));
}

#[tokio::test(start_paused = true)]
async fn new_credentials_and_a_new_authority_are_told_at_once() {
    let world = World::start().await;
    world.secret("w1-ca", &json!({"tls.crt": "one"})).await;
    world.credentials("first").await;
    world.openstack_cluster("w1").await;
    let knows = async |word: &str| world.cloud("w1").await.is_some_and(|told| told.contains(word));
    soon("the first password", async || knows("first").await).await;
    world.credentials("second").await;
    soon("the second password", async || knows("second").await).await;
    world.secret("w1-ca", &json!({"tls.crt": "two"})).await;
    soon("the second authority", async || world.told("w1").await.is_some_and(|told| told.contains("clusterCA: two")))
        .await;
    world.tenancy.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn without_credentials_apps_are_told_nothing_of_the_cloud_and_keep_what_they_know() {
    let world = World::start().await;
    world.secret("w1-ca", &json!({"tls.crt": "one"})).await;
    world.openstack_cluster("w1").await;
    soon("the cluster is told", async || world.told("w1").await.is_some()).await;
    assert_eq!(world.cloud("w1").await, None);
    world.credentials("first").await;
    let knows = async || world.cloud("w1").await.is_some_and(|told| told.contains("first"));
    soon("the password is told", knows).await;
    world.all::<Secret>().delete("cloud", &DeleteParams::default()).await.unwrap();
    world.secret("w1-ca", &json!({"tls.crt": "two"})).await;
    soon("it was looked at since", async || world.told("w1").await.is_some_and(|told| told.contains("clusterCA: two")))
        .await;
    assert!(knows().await, "what a cluster's controller knows is not taken from it");
    world.tenancy.shutdown().await;
}
