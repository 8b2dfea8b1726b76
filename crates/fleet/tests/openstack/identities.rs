//! Credentials that lie in another namespace, and credentials that change.

use api::{condition, openstack_cluster::OpenStackCluster, openstack_identity::OpenStackClusterIdentity};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use openstack::{
    Client, Cloud as Where, Local, Options,
    identity::{ApplicationCredential, ApplicationCredentialDraft},
};
use serde_json::{Value, json};

use crate::world::{World, is_ready as is_up, message, quick};

fn is_ready(cluster: &OpenStackCluster) -> bool {
    cluster.status.as_ref().is_some_and(|status| condition::is_true(&status.conditions, "Ready"))
}

fn refusal(cluster: &OpenStackCluster) -> String {
    message(&cluster.status.clone().unwrap_or_default().conditions, "OpenStackAuthenticationSucceeded")
}

async fn patch<K>(api: Api<K>, name: &str, change: Value)
where
    K: kube::Resource + Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    api.patch(name, &PatchParams::default(), &Patch::Merge(&change)).await.unwrap();
}

#[tokio::test]
async fn an_identity_lends_its_credentials_to_the_namespaces_that_it_selects() {
    let world = World::start(quick(), &[]).await;
    let mut objects = world.objects(|cluster| {
        cluster["spec"]["identityRef"] = json!({"type": "ClusterIdentity", "name": "shared", "cloudName": "c"});
    });
    let mut secret = objects.remove(0);
    world.apply(&objects).await;
    world
        .infra_cluster(|cluster| {
            refusal(cluster).contains("OpenStackClusterIdentity shared (identityRef) does not exist")
        })
        .await;

    let identity = json!({
        "metadata": {"name": "shared"},
        "spec": {"secretRef": {"name": "keys", "namespace": "vault"}, "namespaceSelector": {"matchLabels": {"cloud": "yes"}}},
    });
    let identities = Api::<OpenStackClusterIdentity>::all(world.client.clone());
    identities.create(&PostParams::default(), &serde_json::from_value(identity).unwrap()).await.unwrap();
    let namespaces = Api::<Namespace>::all(world.client.clone());
    let vault = json!({"metadata": {"name": "vault"}});
    namespaces.create(&PostParams::default(), &serde_json::from_value(vault).unwrap()).await.unwrap();
    secret["metadata"]["name"] = "keys".into();
    let secrets = Api::<Secret>::namespaced(world.client.clone(), "vault");
    secrets.create(&PostParams::default(), &serde_json::from_value(secret).unwrap()).await.unwrap();
    world.infra_cluster(|cluster| refusal(cluster).contains("may not be used in namespace default")).await;
    assert_eq!(world.inventory().await["networks"], 0);

    // A selector that is wider, or is left out, lets in.
    patch(identities, "shared", json!({"spec": {"namespaceSelector": null}})).await;
    world.infra_cluster(is_ready).await;
    world.delete().await;
    assert!(world.inventory().await.values().all(|count| *count == 0));
}

#[tokio::test]
async fn a_namespace_that_gets_the_label_is_let_in() {
    let world = World::start(quick(), &[]).await;
    let objects = world.objects(|cluster| {
        cluster["spec"]["identityRef"] = json!({"type": "ClusterIdentity", "name": "shared", "cloudName": "c"});
    });
    let identity = json!({
        "metadata": {"name": "shared"},
        "spec": {
            "secretRef": {"name": "demo-cloud-config", "namespace": "default"},
            "namespaceSelector": {"matchExpressions": [{"key": "cloud", "operator": "In", "values": ["yes"]}]},
        },
    });
    let identities = Api::<OpenStackClusterIdentity>::all(world.client.clone());
    identities.create(&PostParams::default(), &serde_json::from_value(identity).unwrap()).await.unwrap();
    world.apply(&objects).await;
    world.infra_cluster(|cluster| refusal(cluster).contains("may not be used in namespace default")).await;
    let label = json!({"metadata": {"labels": {"cloud": "yes"}}});
    patch(Api::<Namespace>::all(world.client.clone()), "default", label).await;
    world.infra_cluster(is_ready).await;
}

#[tokio::test]
async fn credentials_that_are_changed_are_used_at_once() {
    let world = World::start(quick(), &[]).await;
    let mut objects = world.objects(|_| ());
    let right = objects[0]["stringData"]["clouds.yaml"].as_str().unwrap().to_owned();
    objects[0]["stringData"]["clouds.yaml"] = right.replace("password: sandbox", "password: of-old").into();
    world.apply(&objects).await;
    world.infra_cluster(|cluster| refusal(cluster).starts_with("OpenStackAuthenticationFailed: ")).await;
    patch(world.api::<Secret>(), "demo-cloud-config", json!({"stringData": {"clouds.yaml": right}})).await;
    world.infra_cluster(is_ready).await;
}

#[tokio::test]
async fn an_application_credential_is_rotated_while_its_cluster_lives() {
    let world = World::start(quick(), &[]).await;
    let yaml = world.cloud.clouds_yaml("c");
    let user = Where::from_yaml(yaml.as_bytes(), Some("c"), None).unwrap();
    let user = Client::new(
        user,
        Local::shared::<axum::body::Body, axum::body::Body>(world.cloud.router()),
        Options::default(),
    );
    let id = user.access().await.unwrap().user_id.clone();
    let issue = async |name: &str| {
        let draft = ApplicationCredentialDraft { name: name.into(), ..Default::default() };
        let made: ApplicationCredential = user.create_in(&id, &draft).await.unwrap();
        let auth = json!({
            "auth_url": "http://cloud.test/identity", "application_credential_id": made.id,
            "application_credential_secret": made.secret,
        });
        (made.id, json!({"clouds": {"c": {"auth_type": "v3applicationcredential", "auth": auth}}}).to_string())
    };
    let (first, yaml) = issue("first").await;
    let mut objects = world.objects(|_| ());
    objects[0]["stringData"]["clouds.yaml"] = yaml.into();
    world.apply(&objects).await;
    world.machine(is_up).await;

    // The old one goes as soon as the Secret holds the new one: its tokens go with it.
    let (_, yaml) = issue("second").await;
    patch(world.api::<Secret>(), "demo-cloud-config", json!({"stringData": {"clouds.yaml": yaml}})).await;
    user.delete_in::<ApplicationCredential>(&id, &first).await.unwrap();
    let bastion = json!({"spec": {"bastion": {"enabled": true, "spec": {
        "flavor": {"filter": {"name": "m1.small"}}, "image": {"filter": {"name": "ubuntu-2404-kube"}},
    }}}});
    patch(world.api::<OpenStackCluster>(), "demo", bastion).await;
    let has_bastion = |cluster: &OpenStackCluster| {
        is_ready(cluster) && cluster.status.as_ref().is_some_and(|status| status.bastion.is_some())
    };
    world.infra_cluster(has_bastion).await;
    world.delete().await;
    assert!(world.inventory().await.values().all(|count| *count == 0));
}
