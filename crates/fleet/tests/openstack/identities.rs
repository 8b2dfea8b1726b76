//! Credentials that lie in another namespace, and credentials that change.

use std::sync::atomic::Ordering::Relaxed;

use api::{condition, openstack_cluster::OpenStackCluster, openstack_identity::OpenStackClusterIdentity};
use jiff::{SignedDuration, Timestamp, Unit};
use k8s_openapi::api::core::v1::{Event, Namespace, Secret};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
    runtime::wait::await_condition,
};
use openstack::{
    Client, Cloud as Where, Local, Options,
    identity::{ApplicationCredential, ApplicationCredentialDraft},
};
use serde_json::{Value, json};

use crate::world::{LIMIT, World, is_ready as is_up, message, quick};

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

/// The tenant, with a password.
fn person(world: &World) -> Client {
    let yaml = world.cloud.clouds_yaml("c");
    let user = Where::from_yaml(yaml.as_bytes(), Some("c"), None).unwrap();
    let local = Local::shared::<axum::body::Body, axum::body::Body>(world.cloud.router());
    Client::new(user, local, Options::default())
}

/// An application credential: its id, and the clouds.yaml with it.
async fn issue(user: &Client, name: &str, ends: Option<Timestamp>) -> (String, String) {
    let draft = ApplicationCredentialDraft {
        name: name.into(),
        expires_at: ends.map(|ends| ends.to_string()),
        ..Default::default()
    };
    let id = user.access().await.unwrap().user_id.clone();
    let made: ApplicationCredential = user.create_in(&id, &draft).await.unwrap();
    let auth = json!({
        "auth_url": "http://cloud.test/identity", "application_credential_id": made.id,
        "application_credential_secret": made.secret,
    });
    (made.id, json!({"clouds": {"c": {"auth_type": "v3applicationcredential", "auth": auth}}}).to_string())
}

#[tokio::test]
async fn credentials_that_end_soon_are_told_before_they_do_and_asked_about_once_for_all_clusters() {
    let world = World::start(quick(), &[]).await;
    let user = person(&world);
    let days = |days: i64| (Timestamp::now() + SignedDuration::from_hours(24 * days)).round(Unit::Second).unwrap();
    let end = days(13);
    let (_, yaml) = issue(&user, "soon", Some(end)).await;
    let mut objects = world.objects(|_| ());
    objects[0]["stringData"]["clouds.yaml"] = yaml.into();
    let mut other = objects.clone();
    world.apply(&objects).await;
    let told = format!(
        "CredentialsEndSoon: The application credential of cloud c in Secret default/demo-cloud-config ends at {end}"
    );
    world.infra_cluster(|cluster| is_ready(cluster) && refusal(cluster).starts_with(&told)).await;
    let events = async || {
        let events = world.api::<Event>().list(&Default::default()).await.unwrap().items;
        let told = events.into_iter().filter(|event| event.reason.as_deref() == Some("CredentialsEndSoon"));
        told.map(|event| (event.type_.unwrap(), event.count.unwrap_or(1))).collect::<Vec<_>>()
    };
    assert_eq!(events().await, [("Warning".to_owned(), 1)]);

    // Another cluster of the same credentials asks no more.
    other.remove(0);
    other.retain(|object| ["OpenStackCluster", "Cluster"].contains(&object["kind"].as_str().unwrap()));
    for object in &mut other {
        object["metadata"]["name"] = "other".into();
        if object["kind"] == "Cluster" {
            object["spec"]["infrastructureRef"]["name"] = "other".into();
            object["spec"].as_object_mut().unwrap().remove("controlPlaneRef");
            object["spec"]["controlPlaneEndpoint"] = json!({"host": "192.0.2.1", "port": 6443});
        }
    }
    world.apply(&other).await;
    let wanted = await_condition(world.api::<OpenStackCluster>(), "other", |cluster: Option<&OpenStackCluster>| {
        cluster.is_some_and(|cluster| refusal(cluster).starts_with(&told))
    });
    tokio::time::timeout(LIMIT, wanted).await.expect("the other cluster is told it too").unwrap();
    assert_eq!(world.credentials.load(Relaxed), 1);

    // Those that end later are no news.
    let (_, yaml) = issue(&user, "later", Some(days(15))).await;
    patch(world.api::<Secret>(), "demo-cloud-config", json!({"stringData": {"clouds.yaml": yaml}})).await;
    let label = json!({"spec": {"tags": ["another-look"]}});
    patch(world.api::<OpenStackCluster>(), "demo", label).await;
    world.infra_cluster(|cluster| refusal(cluster) == "Succeeded: ").await;
    assert_eq!(events().await, vec![("Warning".to_owned(), 1); 2], "one for each cluster");
}

#[tokio::test]
async fn nothing_is_asked_about_passwords() {
    let world = World::start(quick(), &[]).await;
    world.apply(&world.objects(|_| ())).await;
    world.infra_cluster(is_ready).await;
    assert_eq!(world.credentials.load(Relaxed), 0);
}

#[tokio::test]
async fn an_application_credential_is_rotated_while_its_cluster_lives() {
    let world = World::start(quick(), &[]).await;
    let user = person(&world);
    let id = user.access().await.unwrap().user_id.clone();
    let (first, yaml) = issue(&user, "first", None).await;
    let mut objects = world.objects(|_| ());
    objects[0]["stringData"]["clouds.yaml"] = yaml.into();
    world.apply(&objects).await;
    world.machine(is_up).await;

    // The old one goes as soon as the Secret holds the new one: its tokens go with it.
    let (_, yaml) = issue(&user, "second", None).await;
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
