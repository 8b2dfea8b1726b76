//! Workers: rollouts and back.

use std::{collections::BTreeSet, time::Duration};

use api::{
    condition,
    machine::{MachineDeployment, MachineSet},
    names::{OUTDATED_TAINT, SET_LABEL},
    openstack_machine::OpenStackMachineTemplate,
};
use hyper::Method;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{
    Api, ResourceExt,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
    core::GroupVersionKind,
};
use openstack::{Query, Service};
use sandbox::cloud::End;
use serde_json::json;
use testkit::{Shape, Shares, World};

/// Revisions of the sets with their machines, the oldest revision first: `1:0 2:3`.
async fn sets(world: &World) -> String {
    let mut sets = world.api::<MachineSet>().list(&Default::default()).await.unwrap().items;
    let revision = |set: &MachineSet| {
        let annotations = set.metadata.annotations.as_ref().unwrap();
        annotations["machinedeployment.clusters.x-k8s.io/revision"].parse::<i64>().unwrap()
    };
    sets.sort_by_key(revision);
    let told = sets.iter().map(|set| {
        let replicas = set.status.as_ref().and_then(|status| status.replicas).unwrap_or(0);
        format!("{}:{replicas}", revision(set))
    });
    told.collect::<Vec<_>>().join(" ")
}

/// The outdated nodes, of all.
async fn outdated(world: &World) -> (usize, usize) {
    let nodes = world.nodes("demo").await;
    let tainted = nodes.iter().filter(|node| {
        let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
        taints.into_iter().flatten().any(|taint| taint.key == OUTDATED_TAINT && taint.effect == "PreferNoSchedule")
    });
    (tainted.count(), nodes.len())
}

#[tokio::test(start_paused = true)]
async fn a_rollout_marks_old_nodes_and_keeps_the_old_set_which_an_undo_takes_again() {
    let world = World::start(41).await;
    world.create("demo", Shape { control_plane: 1, workers: 3, version: "v1.34.2".into() }).await;
    world.available("demo").await;
    let versions = async |version: &str| {
        let machines = world.machines().await;
        let of = machines.iter().filter(|machine| {
            machine.spec.version.as_deref() == Some(version)
                && machine.status.as_ref().is_some_and(|status| condition::is_true(&status.conditions, "Ready"))
        });
        (of.count(), machines.len())
    };
    assert_eq!((sets(&world).await.as_str(), outdated(&world).await), ("1:3", (0, 4)));
    let to = |version: &str| json!({"spec": {"template": {"spec": {"version": version}}}});
    world.patch::<MachineDeployment>("demo-md", to("v1.34.1")).await;
    world.until("nodes of the old revision are marked", async || outdated(&world).await.0 == 3).await;
    world.until("all workers are new", async || versions("v1.34.1").await == (3, 4)).await;
    world.until("no marked node is left", async || outdated(&world).await == (0, 4)).await;
    world.until("the old set is kept", async || sets(&world).await == "1:0 2:3").await;

    world.patch::<MachineDeployment>("demo-md", to("v1.34.2")).await;
    world.until("all workers are old again", async || versions("v1.34.2").await == (4, 4)).await;
    world.until("its own set has them", async || sets(&world).await == "2:0 3:3").await;
    world.delete("demo").await;
    world.until("nothing is left", async || world.machines().await.is_empty() && sets(&world).await.is_empty()).await;
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn machines_and_sets_that_lost_their_owners_are_adopted_and_no_other_is_made() {
    let world = World::start(44).await;
    world.create("demo", Shape { control_plane: 1, workers: 2, version: "v1.34.2".into() }).await;
    world.available("demo").await;
    let names = async || -> BTreeSet<String> { world.machines().await.iter().map(ResourceExt::name_any).collect() };
    let (before, servers) = (names().await, world.in_cloud().await);
    let nobodys = json!({"metadata": {"ownerReferences": null}});
    let sets = world.api::<MachineSet>().list(&Default::default()).await.unwrap().items;
    for set in &sets {
        world.patch::<MachineSet>(&set.name_any(), nobodys.clone()).await;
    }
    for name in &before {
        world.patch::<api::machine::Machine>(name, nobodys.clone()).await;
    }
    let is_controlled = |owners: &[OwnerReference], kind: &str| {
        owners.iter().any(|owner| owner.controller == Some(true) && owner.kind == kind)
    };
    let adopted = async || {
        let sets = world.api::<MachineSet>().list(&Default::default()).await.unwrap().items;
        let kind = |machine: &api::machine::Machine| match machine.labels().contains_key(SET_LABEL) {
            true => "MachineSet",
            false => "KubeadmControlPlane",
        };
        sets.iter().all(|set| is_controlled(set.owner_references(), "MachineDeployment"))
            && world.machines().await.iter().all(|it| is_controlled(it.owner_references(), kind(it)))
    };
    world.until("all have owners again", adopted).await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!((names().await, world.in_cloud().await), (before, servers));
    world.delete("demo").await;
    world.until("nothing is left", async || world.machines().await.is_empty()).await;
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_deployment_tells_of_its_machines_also_where_their_set_had_nothing_new_to_say() {
    let world = World::start(43).await;
    world.create("demo", Shape::default()).await;
    world.available("demo").await;
    let available = async || {
        let deployment = world.api::<MachineDeployment>().get("demo-md").await.unwrap();
        deployment.status.is_some_and(|status| condition::is_true(&status.conditions, "Available"))
    };
    world.until("the deployment is Available", available).await;
    let machines = world.machines().await;
    let worker = machines.iter().find(|machine| machine.name_any().starts_with("demo-md")).unwrap();
    let server = worker.spec.provider_id.as_deref().and_then(|id| id.rsplit('/').next()).unwrap().to_owned();
    world.api_faults.set(Shares { lost: 1.0, of: Some("machinesets"), ..Shares::default() });
    assert!(world.sandbox.end_server(&server, End::Shutoff));
    world.until("the deployment lacks a machine", async || !available().await).await;
    let start = json!({"os-start": null});
    let action = format!("servers/{server}/action");
    world.tenant().raw(Service::Compute, Method::POST, &action, &Query::new(), Some(&start)).await.unwrap();
    world.until("the deployment has it back", available).await;
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn templates_say_what_their_machines_have_and_a_named_machine_goes_first() {
    let world = World::start(42).await;
    world.create("demo", Shape { control_plane: 1, workers: 3, version: "v1.34.2".into() }).await;
    world.available("demo").await;
    let templates = async || world.api::<OpenStackMachineTemplate>().list(&Default::default()).await.unwrap().items;
    let told = async || {
        templates().await.iter().all(|template| {
            let owners = template.metadata.owner_references.as_deref().unwrap_or_default();
            let capacity = template.status.as_ref().map(|status| &status.capacity);
            owners.iter().any(|owner| owner.kind == "Cluster")
                && capacity.is_some_and(|capacity| capacity.contains_key("cpu") && capacity.contains_key("memory"))
        })
    };
    world.until("every template says what its machines have", told).await;

    // What cluster-autoscaler does to take a node away: it marks the machine, and asks for one less.
    let machines = world.machines().await;
    let worker = machines.iter().rfind(|machine| {
        machine.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key("cluster.x-k8s.io/set-name"))
    });
    let name = worker.unwrap().metadata.name.clone().unwrap();
    let mark = json!({"metadata": {"annotations": {"cluster.x-k8s.io/delete-machine": "2026-01-01 00:00:00 UTC"}}});
    world.patch::<api::machine::Machine>(&name, mark).await;
    let scale = kube::api::Patch::Merge(json!({"spec": {"replicas": 2}}));
    world.api::<MachineDeployment>().patch_scale("demo-md", &Default::default(), &scale).await.unwrap();
    world.until("three machines are left", async || world.machines().await.len() == 3).await;
    assert!(world.machines().await.iter().all(|machine| machine.metadata.name.as_ref() != Some(&name)));
    world.shutdown().await;
}

/// All objects of a kind, in a version.
async fn objects(world: &World, (group, kind): (&str, &str), version: &str) -> Vec<DynamicObject> {
    let kind = GroupVersionKind::gvk(group, version, kind);
    let all = Api::<DynamicObject>::all_with(world.client.clone(), &ApiResource::from_gvk(&kind));
    all.list(&Default::default()).await.unwrap().items
}

#[tokio::test(start_paused = true)]
async fn what_others_say_in_v1beta1_outlasts_what_controllers_write_and_costs_them_no_write() {
    const KINDS: [(&str, &str); 6] = [
        ("cluster.x-k8s.io", "Cluster"),
        ("cluster.x-k8s.io", "Machine"),
        ("cluster.x-k8s.io", "MachineSet"),
        ("cluster.x-k8s.io", "MachineDeployment"),
        ("bootstrap.cluster.x-k8s.io", "KubeadmConfig"),
        ("controlplane.cluster.x-k8s.io", "KubeadmControlPlane"),
    ];
    let world = World::start(47).await;
    world.create("demo", Shape { control_plane: 1, workers: 1, version: "v1.34.2".into() }).await;
    world.available("demo").await;
    let rest = Duration::from_secs(10 * 60);
    tokio::time::sleep(rest).await;
    let own = json!({"type": "Backup", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    for (group, kind) in KINDS {
        for object in objects(&world, (group, kind), "v1beta1").await {
            let mut all = object.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
            all.push(own.clone());
            let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1beta1", kind));
            let api = Api::<DynamicObject>::namespaced_with(world.client.clone(), "default", &resource);
            let patch = Patch::Merge(json!({"status": {"conditions": all}}));
            api.patch_status(&object.name_any(), &PatchParams::default(), &patch).await.unwrap();
        }
    }
    let versions = async || {
        let mut found = Vec::new();
        for kind in KINDS {
            let all = objects(&world, kind, "v1beta2").await.into_iter();
            found.extend(all.map(|object| (kind.1, object.name_any(), object.resource_version())));
        }
        found
    };
    let before = versions().await;
    tokio::time::sleep(rest).await;
    assert_eq!(versions().await, before, "nobody writes because of it");

    world.patch::<MachineDeployment>("demo-md", json!({"spec": {"replicas": 2}})).await;
    let known: BTreeSet<(&str, String)> = before.into_iter().map(|(kind, name, _)| (kind, name)).collect();
    world.until("there is one more", async || world.machines().await.len() == 3).await;
    world.available("demo").await;
    tokio::time::sleep(rest).await;
    for kind in KINDS {
        let (hubs, spokes) = (objects(&world, kind, "v1beta2").await, objects(&world, kind, "v1beta1").await);
        for (hub, spoke) in hubs.iter().zip(&spokes) {
            let name = hub.name_any();
            let expected = if known.contains(&(kind.1, name.clone())) { json!([own]) } else { json!(null) };
            assert_eq!(hub.data["status"]["deprecated"]["v1beta1"]["conditions"], expected, "{} {name}", kind.1);
            let shown = spoke.data["status"]["conditions"].as_array().unwrap();
            assert_eq!(shown.contains(&own), !expected.is_null(), "{} {name}", kind.1);
            assert!(shown.iter().any(|one| one["type"] == "Ready" && one["status"] == "True"), "{} {name}", kind.1);
        }
    }
    let workers = &objects(&world, KINDS[3], "v1beta1").await[0].data["status"];
    assert_eq!((&workers["readyReplicas"], &workers["updatedReplicas"]), (&json!(2), &json!(2)));
    world.shutdown().await;
}
