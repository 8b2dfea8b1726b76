//! Images that objects stand for.

use api::{condition, openstack_image::Image, openstack_machine::OpenStackMachine};
use kube::{
    ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
    runtime::{conditions::is_deleted, wait::await_condition},
};
use openstack::{Query, compute::Server, image::Image as Found};
use serde_json::{Value, json};

use crate::world::{LIMIT, World, is_ready, message, quick};

fn image(name: &str, spec: Value) -> Value {
    let mut spec = spec;
    spec["cloudCredentialsRef"] = json!({"secretName": "demo-cloud-config", "cloudName": "c"});
    json!({"apiVersion": "openstack.k-orc.cloud/v1alpha1", "kind": "Image", "metadata": {"name": name}, "spec": spec})
}

fn downloaded(name: &str, more: Value) -> Value {
    let mut download = json!({"url": "https://images.test/node.qcow2"});
    download.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
    let content = json!({"diskFormat": "qcow2", "download": download});
    image(
        name,
        json!({"managementPolicy": "managed", "resource": {"name": "node", "tags": ["one"], "content": content}}),
    )
}

async fn until(world: &World, name: &str, is: impl Fn(&Image) -> bool) -> Image {
    let wanted = await_condition(world.api::<Image>(), name, |image: Option<&Image>| image.is_some_and(&is));
    match tokio::time::timeout(LIMIT, wanted).await {
        Ok(found) => found.unwrap().unwrap(),
        Err(_) => panic!("not as wanted: {:#?}", world.api::<Image>().get(name).await.unwrap().status),
    }
}

fn available(image: &Image) -> bool {
    image.status.as_ref().is_some_and(|status| condition::is_true(&status.conditions, "Available"))
}

fn progress(image: &Image) -> String {
    message(&image.status.clone().unwrap_or_default().conditions, "Progressing")
}

async fn delete(world: &World, name: &str) {
    let api = world.api::<Image>();
    let uid = api.get(name).await.unwrap().uid().unwrap();
    api.delete(name, &DeleteParams::default()).await.unwrap();
    tokio::time::timeout(LIMIT, await_condition(api, name, is_deleted(&uid))).await.unwrap().unwrap();
}

async fn in_cloud(world: &World, name: &str) -> Vec<Found> {
    world.admin.list::<Found>(&Query::by_name(name)).await.unwrap()
}

#[tokio::test]
async fn a_machine_waits_for_the_image_that_it_names_and_is_made_of_it() {
    let world = World::start(quick(), &["images"]).await;
    let mut objects = world.objects(|_| ());
    for object in &mut objects {
        if object["kind"] == "OpenStackMachineTemplate" {
            object["spec"]["template"]["spec"]["image"] = json!({"imageRef": {"name": "node-image"}});
        }
    }
    world.apply(&objects).await;
    let waits = world
        .machine(|machine| {
            let status = machine.status.clone().unwrap_or_default();
            message(&status.conditions, "InstanceReady")
                .contains("Image node-image (image.imageRef), which does not exist")
        })
        .await;
    assert!(waits.status.unwrap().instance_id.is_none());
    // The answer to its creation is lost; it is found again by its mark.
    world.apply(&[downloaded("node-image", json!({}))]).await;
    let made = until(&world, "node-image", available).await;
    let machine = world.machine(is_ready).await;
    let found = in_cloud(&world, "node").await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].status.as_str(), found[0].tags.as_slice()), ("active", &["one".to_owned()][..]));
    assert_eq!(made.status.unwrap().id.as_ref(), Some(&found[0].id));
    assert_eq!(machine.status.unwrap().resolved.unwrap().image_id.as_ref(), Some(&found[0].id));

    // What may change in it does.
    let tags = json!({"spec": {"resource": {"tags": ["two"], "protected": true}}});
    world.api::<Image>().patch("node-image", &PatchParams::default(), &Patch::Merge(&tags)).await.unwrap();
    let is = |image: &Image| {
        let shown = image.status.as_ref().and_then(|status| status.resource.clone()).unwrap_or_default();
        shown.tags == ["two"] && shown.protected == Some(true)
    };
    until(&world, "node-image", is).await;
    let open = json!({"spec": {"resource": {"protected": null}}});
    world.api::<Image>().patch("node-image", &PatchParams::default(), &Patch::Merge(&open)).await.unwrap();
    until(&world, "node-image", |image| {
        image.status.as_ref().and_then(|status| status.resource.as_ref()?.protected) == Some(false)
    })
    .await;

    world.delete().await;
    let servers = world.admin.list::<Server>(&Query::new().with("all_tenants", 1)).await.unwrap();
    assert_eq!(servers.len(), 0);
    assert_eq!(world.api::<OpenStackMachine>().list(&Default::default()).await.unwrap().items.len(), 0);
    delete(&world, "node-image").await;
    assert_eq!(in_cloud(&world, "node").await.len(), 0);
}

#[tokio::test]
async fn images_that_exist_are_found_by_filter_or_id_and_stay() {
    let world = World::start(quick(), &[]).await;
    let id = in_cloud(&world, "ubuntu-2404-kube").await[0].id.clone();
    let import = |import: Value| json!({"managementPolicy": "unmanaged", "import": import});
    world
        .apply(&[
            world.objects(|_| ()).remove(0),
            image("by-name", import(json!({"filter": {"name": "ubuntu-2404-kube"}}))),
            image("by-id", import(json!({"id": id}))),
            image("none", import(json!({"filter": {"name": "nobody"}}))),
            image("lost", import(json!({"id": "6f1b5a0e-0000-4000-8000-000000000000"}))),
        ])
        .await;
    for name in ["by-name", "by-id"] {
        let found = until(&world, name, available).await.status.unwrap();
        assert_eq!((found.id, found.resource.unwrap().name), (Some(id.clone()), Some("ubuntu-2404-kube".to_owned())));
        delete(&world, name).await;
    }
    assert_eq!(in_cloud(&world, "ubuntu-2404-kube").await.len(), 1);
    until(&world, "none", |image| {
        progress(image) == "Progressing: Waiting for an image that matches spec.import.filter"
    })
    .await;
    until(&world, "lost", |image| progress(image).starts_with("UnrecoverableError: image 6f1b5a0e")).await;
}

#[tokio::test]
async fn what_the_cloud_cannot_download_by_itself_is_refused_and_nothing_is_made() {
    let world = World::start(quick(), &[]).await;
    let hash = json!({"hash": {"algorithm": "sha256", "value": "00"}});
    world
        .apply(&[
            world.objects(|_| ()).remove(0),
            downloaded("packed", json!({"decompress": "xz"})),
            downloaded("hashed", hash),
        ])
        .await;
    until(&world, "packed", |image| progress(image).contains("download.decompress is not supported")).await;
    until(&world, "hashed", |image| {
        progress(image).starts_with("InvalidConfiguration: spec.resource.content.download.hash")
    })
    .await;
    assert_eq!(in_cloud(&world, "node").await.len(), 0);
    for name in ["packed", "hashed"] {
        delete(&world, name).await;
    }
}
