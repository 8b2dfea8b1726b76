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
    Auth, Client, Cloud as Where, Local, Options, Query,
    identity::{ApplicationCredential, ApplicationCredentialDraft},
};
use sandbox::cloud::Options as CloudSettings;
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
    let (made, auth) = make(user, name, ends, false).await;
    (made, json!({"clouds": {"c": {"auth_type": "v3applicationcredential", "auth": auth}}}).to_string())
}

/// An application credential that may make others, in a clouds.yaml with comments.
async fn issue_unrestricted(user: &Client, ends: Timestamp) -> (String, String) {
    let (made, auth) = make(user, "first", Some(ends), true).await;
    let [url, id, secret] = ["auth_url", "application_credential_id", "application_credential_secret"]
        .map(|key| auth[key].as_str().unwrap().to_owned());
    let yaml = format!(
        "# kept by the platform team\nclouds:\n  c:\n    auth_type: v3applicationcredential  # of the robot\n    auth:\n      auth_url: {url}\n      application_credential_id: {id}  # first\n      application_credential_secret: {secret}\n"
    );
    (made, yaml)
}

async fn make(user: &Client, name: &str, ends: Option<Timestamp>, unrestricted: bool) -> (String, Value) {
    let draft = ApplicationCredentialDraft {
        name: name.into(),
        description: "of the robot".into(),
        expires_at: ends.map(|ends| ends.to_string()),
        unrestricted: Some(unrestricted),
        ..Default::default()
    };
    let id = user.access().await.unwrap().user_id.clone();
    let made: ApplicationCredential = user.create_in(&id, &draft).await.unwrap();
    let auth = json!({
        "auth_url": "http://cloud.test/identity", "application_credential_id": made.id,
        "application_credential_secret": made.secret,
    });
    (made.id, auth)
}

fn days(days: i64) -> Timestamp {
    (Timestamp::now() + SignedDuration::from_hours(24 * days)).round(Unit::Second).unwrap()
}

/// A second cluster beside the one of [`World::objects`], with the same Secret.
fn another(objects: &[Value]) -> Vec<Value> {
    let mut other = objects.to_vec();
    other.retain(|object| ["OpenStackCluster", "Cluster"].contains(&object["kind"].as_str().unwrap()));
    for object in &mut other {
        object["metadata"]["name"] = "other".into();
        if object["kind"] == "Cluster" {
            object["spec"]["infrastructureRef"]["name"] = "other".into();
            object["spec"].as_object_mut().unwrap().remove("controlPlaneRef");
            object["spec"]["controlPlaneEndpoint"] = json!({"host": "192.0.2.1", "port": 6443});
        }
    }
    other
}

async fn other_cluster(world: &World, is: impl Fn(&OpenStackCluster) -> bool) {
    let wanted = await_condition(world.api::<OpenStackCluster>(), "other", |cluster: Option<&OpenStackCluster>| {
        cluster.is_some_and(&is)
    });
    tokio::time::timeout(LIMIT, wanted).await.expect("the other cluster is as wanted").unwrap();
}

#[tokio::test]
async fn credentials_that_end_soon_are_told_before_they_do_and_asked_about_once_for_all_clusters() {
    let world = World::start(quick(), &[]).await;
    let user = person(&world);
    let end = days(13);
    let (_, yaml) = issue(&user, "soon", Some(end)).await;
    let mut objects = world.objects(|_| ());
    objects[0]["stringData"]["clouds.yaml"] = yaml.into();
    let other = another(&objects);
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
    world.apply(&other).await;
    other_cluster(&world, |cluster| refusal(cluster).starts_with(&told)).await;
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

const RENEW: &str = "openstack.skep.dev/renew-application-credential";

/// Objects with these credentials, to be renewed as `life` says.
fn renewed_by(world: &World, yaml: &str, life: Option<&str>) -> Vec<Value> {
    let mut objects = world.objects(|_| ());
    objects[0]["stringData"]["clouds.yaml"] = yaml.into();
    if let Some(life) = life {
        objects[0]["metadata"]["annotations"] = json!({RENEW: life});
    }
    objects
}

/// What the Secret holds: its text, and what that says.
async fn held(world: &World) -> (Secret, String, Where) {
    let secret = world.api::<Secret>().get("demo-cloud-config").await.unwrap();
    let text = String::from_utf8(secret.data.as_ref().unwrap()["clouds.yaml"].0.clone()).unwrap();
    let cloud = Where::from_yaml(text.as_bytes(), Some("c"), None).unwrap();
    (secret, text, cloud)
}

async fn credentials(user: &Client) -> Vec<ApplicationCredential> {
    let id = user.access().await.unwrap().user_id.clone();
    user.list_in(&id, &Query::new()).await.unwrap()
}

fn id_of(cloud: &Where) -> &str {
    let Auth::ApplicationCredential { id: Some(id), .. } = &cloud.auth else { panic!("{cloud:?}") };
    id
}

/// A look at the cloud, now.
async fn look(world: &World, name: &str, tag: &str) {
    patch(world.api::<OpenStackCluster>(), name, json!({"spec": {"tags": [tag]}})).await;
    let tag = tag.to_owned();
    let looked = await_condition(world.api::<OpenStackCluster>(), name, move |cluster: Option<&OpenStackCluster>| {
        cluster.is_some_and(|cluster| {
            let status = cluster.status.clone().unwrap_or_default();
            let seen = condition::get(&status.conditions, "Ready").and_then(|one| one.observed_generation);
            cluster.spec.tags == [tag.clone()] && seen == cluster.metadata.generation && is_ready(cluster)
        })
    });
    tokio::time::timeout(LIMIT, looked).await.expect("the cluster is looked at").unwrap();
}

async fn events_of(world: &World, reason: &str) -> Vec<String> {
    let events = world.api::<Event>().list(&Default::default()).await.unwrap().items;
    let told = events.into_iter().filter(|event| event.reason.as_deref() == Some(reason));
    told.map(|event| event.message.unwrap_or_default()).collect()
}

#[tokio::test]
async fn a_credential_that_ends_is_renewed_once_for_all_clusters_and_the_new_one_is_used_from_then_on() {
    let world = World::start(quick(), &[]).await;
    let user = person(&world);
    let (first, yaml) = issue_unrestricted(&user, days(20)).await;
    let objects = renewed_by(&world, &yaml, Some("2160h"));
    world.apply(&objects).await;
    world.apply(&another(&objects)).await;
    world.infra_cluster(|cluster| is_ready(cluster) && refusal(cluster) == "Succeeded: ").await;
    other_cluster(&world, |cluster| refusal(cluster) == "Succeeded: ").await;

    let (secret, text, cloud) = held(&world).await;
    let all = credentials(&user).await;
    let [old, new] = all.as_slice() else { panic!("{:?}", all.iter().map(|one| &one.name).collect::<Vec<_>>()) };
    assert_eq!((old.id.as_str(), new.id.as_str()), (first.as_str(), id_of(&cloud)));
    let uid = secret.metadata.uid.clone().unwrap();
    assert!(new.name.starts_with(&format!("skep:{uid}:default/demo-cloud-config:")), "{}", new.name);
    assert_eq!((new.unrestricted, new.description.as_str()), (Some(true), "of the robot"));
    assert_eq!((&new.roles, &new.project_id), (&old.roles, &old.project_id));
    let life = new.ends_at().unwrap().duration_since(Timestamp::now());
    assert!((life - SignedDuration::from_hours(2160)).abs() < SignedDuration::from_mins(5), "{life}");
    assert_eq!(events_of(&world, "CredentialsRenewed").await.len(), 1);

    // The owner's text stays, but for what is new.
    let wanted = yaml.replace(&format!(": {first}"), &format!(": \"{}\"", new.id));
    let without_secret =
        |text: &str| text.lines().filter(|line| !line.contains("_secret")).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(without_secret(&text), without_secret(&wanted));
    let annotations = secret.metadata.annotations.clone().unwrap();
    assert_eq!(annotations.keys().map(String::as_str).collect::<Vec<_>>(), [RENEW]);

    // The old one may go: nobody needs it any more. And a settled credential is neither asked about again nor written.
    let id = user.access().await.unwrap().user_id.clone();
    user.delete_in::<ApplicationCredential>(&id, &first).await.unwrap();
    look(&world, "demo", "one").await;
    let asked = world.credentials.load(Relaxed);
    look(&world, "demo", "two").await;
    look(&world, "other", "three").await;
    assert_eq!(world.credentials.load(Relaxed), asked);
    let (after, ..) = held(&world).await;
    assert_eq!(after.metadata.resource_version, secret.metadata.resource_version);
    world.delete().await;
}

#[tokio::test]
async fn a_credential_whose_making_was_never_answered_goes_before_the_next_one_is_made() {
    let mut world = World::start(quick(), &["/application_credentials"]).await;
    let user = person(&world);
    let (first, yaml) = issue_unrestricted(&user, days(20)).await;
    world.apply(&renewed_by(&world, &yaml, Some("2160h"))).await;
    let said =
        "CredentialsNotRenewed: The application credential of cloud c in Secret default/demo-cloud-config ends at ";
    world
        .infra_cluster(|cluster| {
            is_ready(cluster) && refusal(cluster).starts_with(said) && refusal(cluster).contains("is tried again")
        })
        .await;
    assert_eq!(held(&world).await.1, yaml);
    let lost = credentials(&user).await.into_iter().find(|one| one.id != first).expect("made all the same").id;

    world.restart().await;
    world.infra_cluster(|cluster| refusal(cluster) == "Succeeded: ").await;
    let (secret, _, cloud) = held(&world).await;
    let all = credentials(&user).await;
    assert_eq!(all.len(), 2, "the first, and the one in the Secret");
    assert!(all.iter().any(|one| one.id == id_of(&cloud)) && all.iter().all(|one| one.id != lost));
    assert_eq!(secret.metadata.annotations.unwrap().len(), 1, "nothing is under way");
}

#[tokio::test]
async fn a_restricted_credential_is_told_to_be_of_no_use_for_renewal() {
    let world = World::start(quick(), &[]).await;
    let user = person(&world);
    let (_, yaml) = issue(&user, "restricted", Some(days(20))).await;
    world.apply(&renewed_by(&world, &yaml, Some("2160h"))).await;
    world
        .infra_cluster(|cluster| {
            let told = refusal(cluster);
            is_ready(cluster)
                && told.starts_with("CredentialsNotRenewed: ")
                && told.contains("openstack application credential create --unrestricted")
        })
        .await;
    assert_eq!(events_of(&world, "CredentialsNotRenewed").await.len(), 1);
    assert_eq!(credentials(&user).await.len(), 1);
    assert_eq!(held(&world).await.1, yaml);
    assert_eq!(world.credentials.load(Relaxed), 1, "what cannot be is not tried");
}

#[tokio::test]
async fn a_life_that_is_none_is_told_and_another_is_followed() {
    let world = World::start(quick(), &[]).await;
    let user = person(&world);
    let (_, yaml) = issue_unrestricted(&user, days(20)).await;
    world.apply(&renewed_by(&world, &yaml, Some("90d"))).await;
    world
        .infra_cluster(|cluster| {
            is_ready(cluster)
                && refusal(cluster).starts_with("CredentialsNotRenewed: ")
                && refusal(cluster).contains("is \"90d\"")
        })
        .await;
    assert_eq!(credentials(&user).await.len(), 1);
    patch(world.api::<Secret>(), "demo-cloud-config", json!({"metadata": {"annotations": {RENEW: "2160h"}}})).await;
    look(&world, "demo", "another").await;
    world.infra_cluster(|cluster| refusal(cluster) == "Succeeded: ").await;
    assert_eq!(credentials(&user).await.len(), 2);
}

#[tokio::test]
async fn a_text_that_cannot_be_changed_is_told_and_no_credential_is_made() {
    let world = World::start(quick(), &[]).await;
    let user = person(&world);
    let (first, yaml) = issue_unrestricted(&user, days(20)).await;
    let yaml = yaml.replace(&format!("_id: {first}  # first"), &format!("_id: !!str {first}"));
    world.apply(&renewed_by(&world, &yaml, Some("2160h"))).await;
    world
        .infra_cluster(|cluster| is_ready(cluster) && refusal(cluster).contains("cannot be replaced in the text"))
        .await;
    assert_eq!(credentials(&user).await.len(), 1);
    assert_eq!(held(&world).await.1, yaml);
}

#[tokio::test]
async fn nothing_is_renewed_that_nobody_wants_renewed_or_that_has_time() {
    let world = World::start(quick(), &[]).await;
    let user = person(&world);
    let (_, yaml) = issue_unrestricted(&user, days(13)).await;
    world.apply(&renewed_by(&world, &yaml, None)).await;
    world.infra_cluster(|cluster| is_ready(cluster) && refusal(cluster).starts_with("CredentialsEndSoon: ")).await;
    assert_eq!((credentials(&user).await.len(), held(&world).await.1), (1, yaml));
    // A third of 30 days is less than the 13 that are left; that it will be renewed is no news.
    patch(world.api::<Secret>(), "demo-cloud-config", json!({"metadata": {"annotations": {RENEW: "720h"}}})).await;
    look(&world, "demo", "again").await;
    world.infra_cluster(|cluster| refusal(cluster) == "Succeeded: ").await;
    assert_eq!(credentials(&user).await.len(), 1);
}

#[tokio::test]
async fn a_password_that_ends_soon_is_told_without_a_question() {
    let life = std::time::Duration::from_secs(13 * 24 * 3600);
    let world = World::start(CloudSettings { password_life: Some(life), ..quick() }, &[]).await;
    let end = person(&world).access().await.unwrap().password_expires_at.unwrap();
    world.apply(&world.objects(|_| ())).await;
    let told =
        format!("CredentialsEndSoon: The password of cloud c in Secret default/demo-cloud-config ends at {end}: ");
    world.infra_cluster(|cluster| is_ready(cluster) && refusal(cluster).starts_with(&told)).await;
    assert_eq!(events_of(&world, "CredentialsEndSoon").await.len(), 1);
    assert_eq!(world.credentials.load(Relaxed), 0);
}
