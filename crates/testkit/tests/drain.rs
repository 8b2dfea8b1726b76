//! How machines leave a cluster that has something running.

use api::{condition, machine::Machine};
use k8s_openapi::api::{
    core::v1::{Node, Pod},
    policy::v1::PodDisruptionBudget,
    storage::v1::VolumeAttachment,
};
use kube::Api;
use serde_json::json;
use testkit::{Shape, World};

#[tokio::test(start_paused = true)]
async fn a_machine_waits_for_the_budgets_of_its_pods_and_for_its_volumes() {
    let world = World::start(5).await;
    world.create("demo", Shape { control_plane: 1, workers: 1, version: "v1.34.2".into() }).await;
    world.available("demo").await;
    let machine =
        world.machines().await.into_iter().find(|machine| machine.metadata.name.as_ref().unwrap().contains("md"));
    let machine = machine.unwrap();
    let (name, node) = (machine.metadata.name.unwrap(), machine.status.unwrap().node_ref.unwrap().name);
    let client = world.workload("demo").await;
    let pods = Api::<Pod>::namespaced(client.clone(), "default");
    let pod = json!({"metadata": {"name": "web", "labels": {"app": "web"}}, "spec": {"nodeName": node, "containers": [{"name": "a", "image": "a"}]}});
    pods.create(&Default::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    let budgets = Api::<PodDisruptionBudget>::namespaced(client.clone(), "default");
    let budget =
        json!({"metadata": {"name": "web"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}});
    budgets.create(&Default::default(), &serde_json::from_value(budget).unwrap()).await.unwrap();
    let attachments = Api::<VolumeAttachment>::all(client.clone());
    let attachment = json!({"metadata": {"name": "data"}, "spec": {"attacher": "cinder.csi.openstack.org", "nodeName": node, "source": {"persistentVolumeName": "pv-1"}}});
    attachments.create(&Default::default(), &serde_json::from_value(attachment).unwrap()).await.unwrap();
    let attached = json!({"status": {"attached": true}});
    attachments.patch_status("data", &Default::default(), &kube::api::Patch::Merge(&attached)).await.unwrap();

    let machines = world.api::<Machine>();
    machines.delete(&name, &Default::default()).await.unwrap();
    let says = async |part: &str| {
        let status = machines.get(&name).await.unwrap().status.unwrap();
        condition::get(&status.conditions, "Deleting").is_some_and(|found| found.message.contains(part))
    };
    world
        .until("the budget holds the machine", async || {
            says("Pod default/web: cannot evict pod as it would violate").await
        })
        .await;
    assert_eq!(Api::<Node>::all(client.clone()).get(&node).await.unwrap().spec.unwrap().unschedulable, Some(true));
    budgets.delete("web", &Default::default()).await.unwrap();
    world
        .until("the volume holds the machine", async || says("Volumes without a PersistentVolumeClaim: pv-1").await)
        .await;
    assert!(pods.get_opt("web").await.unwrap().is_none());
    attachments.delete("data", &Default::default()).await.unwrap();
    world.until("the machine is gone", async || machines.get_opt(&name).await.unwrap().is_none()).await;
    world.until("another took its place", async || world.nodes("demo").await.len() == 2).await;
    world.shutdown().await;
}
