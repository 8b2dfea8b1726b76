//! MachinePools: servers of one kind that come, are replaced and go as one.

use api::{
    cluster::Cluster,
    condition,
    health_check::MachineHealthCheck,
    machine::Machine,
    machine_pool::{MachinePool, MachinePoolPhase},
    names,
    openstack_machine::OpenStackMachine,
    openstack_machine_pool::OpenStackMachinePool,
};
use openstack::{Query, compute::ServerGroup};
use serde_json::{Value, json};
use testkit::{Shape, World};

const VERSION: &str = "v1.34.2";

/// A pool `pool` of the cluster: the machines' configuration, the servers, and the MachinePool.
fn pool(cluster: &str, replicas: u32) -> [Value; 3] {
    let object = |api: &str, kind: &str, spec: Value| json!({"apiVersion": api, "kind": kind, "metadata": {"name": "pool"}, "spec": spec});
    let provider = json!([{"name": "provider-id", "value": "openstack:///'{{ ds.meta_data.instance_id }}'"}]);
    let infrastructure = "infrastructure.cluster.x-k8s.io";
    let bootstrap = "bootstrap.cluster.x-k8s.io";
    let reference = |group: &str, kind: &str| json!({"apiGroup": group, "kind": kind, "name": "pool"});
    [
        object(
            &format!("{bootstrap}/v1beta2"),
            "KubeadmConfig",
            json!({"joinConfiguration": {"nodeRegistration": {"name": "{{ local_hostname }}", "kubeletExtraArgs": provider}}}),
        ),
        object(
            &format!("{infrastructure}/v1beta2"),
            "OpenStackMachinePool",
            json!({"template": {"spec": {
                "flavor": {"filter": {"name": "m1.medium"}}, "image": {"filter": {"name": "ubuntu-2404-kube"}},
            }}}),
        ),
        object(
            "cluster.x-k8s.io/v1beta2",
            "MachinePool",
            json!({
                "clusterName": cluster, "replicas": replicas,
                "template": {
                    "metadata": {"labels": {"node-role.kubernetes.io/pool": "yes"}},
                    "spec": {
                        "clusterName": cluster, "version": VERSION,
                        "bootstrap": {"configRef": reference(bootstrap, "KubeadmConfig")},
                        "infrastructureRef": reference(infrastructure, "OpenStackMachinePool"),
                    },
                },
            }),
        ),
    ]
}

async fn status(world: &World) -> api::machine_pool::MachinePoolStatus {
    world.api::<MachinePool>().get("pool").await.unwrap().status.unwrap_or_default()
}

/// Ready and up to date, and not more.
async fn settled(world: &World, replicas: usize) -> bool {
    let status = status(world).await;
    let count = i32::try_from(replicas).unwrap();
    status.phase == Some(MachinePoolPhase::Running)
        && [status.replicas, status.ready_replicas, status.up_to_date_replicas] == [Some(count); 3]
        && status.node_refs.len() == replicas
        && names(world).await.len() == replicas
}

async fn names(world: &World) -> Vec<String> {
    let machines = world.machines().await;
    let mine = machines.into_iter().filter(|machine| {
        machine
            .metadata
            .labels
            .as_ref()
            .is_some_and(|labels| labels.get(names::POOL_LABEL).is_some_and(|of| of == "pool"))
    });
    let mut names: Vec<String> = mine.filter_map(|machine| machine.metadata.name).collect();
    names.sort();
    names
}

async fn groups(world: &World) -> Vec<ServerGroup> {
    world.tenant().list::<ServerGroup>(&Query::new()).await.unwrap()
}

async fn scale(world: &World, replicas: u32) {
    let scale = kube::api::Patch::Merge(json!({"spec": {"replicas": replicas}}));
    world.api::<MachinePool>().patch_scale("pool", &Default::default(), &scale).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_autoscaler_knows_what_a_machine_of_a_pool_has_that_has_none() {
    let world = World::start(67).await;
    world.create("demo", Shape { control_plane: 1, workers: 0, version: VERSION.into() }).await;
    world.available("demo").await;
    for object in pool("demo", 0) {
        world.apply(&object).await;
    }
    let told = async || {
        let pool = world.api::<OpenStackMachinePool>().get("pool").await.unwrap();
        serde_json::to_value(pool.status.unwrap_or_default().capacity).unwrap()
    };
    // As the stock cluster-autoscaler reads it: of what `infrastructureRef` names, strings alone.
    let medium = json!({"cpu": "2", "memory": "4Gi", "storage": "40Gi"});
    world.until("the pool says what its machines would have", async || told().await == medium).await;
    let flavor = json!({"spec": {"template": {"spec": {"flavor": {"filter": {"name": "m1.large"}}}}}});
    world.patch::<OpenStackMachinePool>("pool", flavor).await;
    world.until("it says what the larger ones have", async || told().await["cpu"] == "4").await;
    assert!(names(&world).await.is_empty());
    scale(&world, 1).await;
    world.until("the pool runs", async || settled(&world, 1).await).await;
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_pool_is_made_scaled_rolled_out_healed_and_deleted() {
    let mut world = World::start(61).await;
    world.create("demo", Shape { control_plane: 1, workers: 1, version: VERSION.into() }).await;
    for object in pool("demo", 3) {
        world.apply(&object).await;
    }
    world.until("the pool runs", async || settled(&world, 3).await).await;
    world.available("demo").await;
    let object = world.api::<MachinePool>().get("pool").await.unwrap();
    assert_eq!(object.spec.provider_id_list.len(), 3);
    assert!(condition::is_true(&object.status.unwrap().conditions, "Available"));
    let nodes = world.nodes("demo").await;
    let of_pool = nodes.iter().filter(|node| {
        node.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key("node-role.kubernetes.io/pool"))
    });
    assert_eq!((of_pool.count(), nodes.len()), (3, 5));
    let workers = world.api::<Cluster>().get("demo").await.unwrap().status.unwrap().workers.unwrap();
    assert_eq!((workers.desired_replicas, workers.ready_replicas), (Some(4), Some(4)));
    let group = groups(&world).await.remove(0);
    assert_eq!((group.members.len(), group.name.ends_with("/pool/pool")), (3, true), "{group:?}");

    // New machines join with a token that lives as long as the pool does.
    tokio::time::sleep(std::time::Duration::from_secs(3600)).await;
    world.restart_controllers().await;
    scale(&world, 4).await;
    world.until("there is one more", async || settled(&world, 4).await).await;
    let first = names(&world).await.remove(0);
    let mark = json!({"metadata": {"annotations": {names::DELETE_MACHINE_ANNOTATION: "now"}}});
    world.patch::<Machine>(&first, mark).await;
    scale(&world, 2).await;
    world.until("two have gone", async || settled(&world, 2).await).await;
    assert!(!names(&world).await.contains(&first));

    // Another flavour: all are replaced, one more than is wanted at a time.
    let before = names(&world).await;
    let flavor = json!({"spec": {"template": {"spec": {"flavor": {"filter": {"name": "m1.small"}}}}}});
    world.patch::<OpenStackMachinePool>("pool", flavor).await;
    let replaced = async || {
        let now = names(&world).await;
        assert!(now.len() <= 4, "two, one more, and one that goes: {now:?}");
        settled(&world, 2).await && before.iter().all(|old| !now.contains(old))
    };
    world.until("all are of the new flavour", replaced).await;

    // One that is not healthy is replaced.
    let check = json!({
        "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "MachineHealthCheck", "metadata": {"name": "pool"},
        "spec": {
            "clusterName": "demo", "selector": {"matchLabels": {names::POOL_LABEL: "pool"}},
            "checks": {"unhealthyNodeConditions": [{"type": "Ready", "status": "Unknown", "timeoutSeconds": 60}]},
        },
    });
    world.apply(&check).await;
    let sick = names(&world).await.remove(0);
    let remediate = json!({"metadata": {"annotations": {names::REMEDIATE_ANNOTATION: ""}}});
    world.patch::<Machine>(&sick, remediate).await;
    let healed = async || settled(&world, 2).await && !names(&world).await.contains(&sick);
    world.until("the sick one is replaced", healed).await;
    let checked = world.api::<MachineHealthCheck>().get("pool").await.unwrap().status.unwrap();
    assert_eq!(checked.expected_machines, Some(2));

    // One whose server's object was deleted by hand goes, and one takes its place.
    let before = names(&world).await;
    world.api::<OpenStackMachine>().delete(&before[0], &Default::default()).await.unwrap();
    let replaced = async || settled(&world, 2).await && !names(&world).await.contains(&before[0]);
    world.until("what was deleted by hand is replaced once", replaced).await;
    assert!(names(&world).await.contains(&before[1]));
    assert_eq!(world.nodes("demo").await.len(), 4);

    world.api::<MachinePool>().delete("pool", &Default::default()).await.unwrap();
    let gone = async || {
        world.api::<MachinePool>().get_opt("pool").await.unwrap().is_none()
            && world.api::<OpenStackMachinePool>().get_opt("pool").await.unwrap().is_none()
    };
    world.until("the pool is gone", gone).await;
    assert_eq!((names(&world).await.len(), groups(&world).await.len(), world.nodes("demo").await.len()), (0, 0, 2));
    world.delete("demo").await;
    world.until("nothing is left", async || world.in_cloud().await.is_empty()).await;
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_cluster_takes_its_pools_along_whatever_state_they_are_in() {
    let world = World::start(62).await;
    world.create("demo", Shape { control_plane: 1, workers: 0, version: VERSION.into() }).await;
    for object in pool("demo", 2) {
        world.apply(&object).await;
    }
    world.until("servers of the pool are on their way", async || names(&world).await.len() == 2).await;
    world.delete("demo").await;
    let gone = async || {
        world.in_cloud().await.is_empty()
            && world.api::<MachinePool>().list(&Default::default()).await.unwrap().items.is_empty()
            && world.api::<OpenStackMachinePool>().list(&Default::default()).await.unwrap().items.is_empty()
    };
    world.until("nothing is left", gone).await;
    world.shutdown().await;
}
