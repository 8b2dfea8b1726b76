//! A cluster of a ClusterClass, from its topology to its end.

use std::{cell::Cell, collections::BTreeMap, time::Duration};

use api::{
    cluster::Cluster, cluster_class::ClusterClass, condition, control_plane::KubeadmControlPlane,
    health_check::MachineHealthCheck, kubeadm::KubeadmConfig, machine::MachineDeployment, machine_pool::MachinePool,
    openstack_machine::OpenStackMachineTemplate, openstack_machine_pool::OpenStackMachinePool,
};
use kube::{Api, api::ListParams, core::DynamicObject, discovery};
use serde_json::{Value, json};
use testkit::{Shape, World};

/// All machines are ready, of this version, and as many.
async fn ready(world: &World, count: usize, version: &str) -> bool {
    let machines = world.machines().await;
    let fits = |machine: &api::machine::Machine| {
        let conditions = machine.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        machine.spec.version.as_deref() == Some(version)
            && machine.metadata.deletion_timestamp.is_none()
            && condition::is_true(conditions, "Ready")
    };
    machines.len() == count && machines.iter().all(fits)
}

async fn reconciled(world: &World) -> Option<String> {
    let cluster = world.api::<Cluster>().get("topo").await.unwrap();
    let conditions = cluster.status.unwrap_or_default().conditions;
    condition::get(&conditions, "TopologyReconciled").map(|found| found.reason.clone())
}

/// Every object of our groups, by kind and name, with its version.
async fn versions(world: &World) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let found = discovery::Discovery::new(world.client.clone()).run().await.unwrap();
    for group in found.groups().filter(|group| group.name().ends_with("x-k8s.io")) {
        for (resource, _) in group.recommended_resources() {
            let api = Api::<DynamicObject>::all_with(world.client.clone(), &resource);
            for object in api.list(&ListParams::default()).await.unwrap() {
                let key = format!("{} {}", resource.kind, object.metadata.name.unwrap_or_default());
                all.insert(key, object.metadata.resource_version.unwrap_or_default());
            }
        }
    }
    all
}

/// Once nothing is on its way, nothing is written for ten minutes.
async fn rests(world: &World) {
    let quiet = async || {
        let before = versions(world).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        before == versions(world).await
    };
    world.until("nothing is on its way", quiet).await;
    let before = versions(world).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(before, versions(world).await);
}

#[tokio::test(start_paused = true)]
async fn a_topology_becomes_a_cluster_that_follows_it() {
    let world = World::start(7).await;
    world.create_topology("topo", Shape { control_plane: 1, workers: 2, version: "v1.34.2".into() }).await;
    world.available("topo").await;
    world.until("three machines are ready", async || ready(&world, 3, "v1.34.2").await).await;
    assert_eq!(reconciled(&world).await.as_deref(), Some("ReconcileSucceeded"));
    let deployments = world.api::<MachineDeployment>();
    let name = deployments.list(&ListParams::default()).await.unwrap().items[0].metadata.name.clone().unwrap();
    let checks = world.api::<MachineHealthCheck>().list(&ListParams::default()).await.unwrap().items;
    assert_eq!(checks.len(), 1, "the class' health check is there");

    // A settled topology writes nothing.
    rests(&world).await;

    // A variable rolls the workers, and only them.
    let machines: Vec<String> =
        world.machines().await.into_iter().filter_map(|machine| machine.metadata.name).collect();
    world
        .patch::<Cluster>(
            "topo",
            json!({"spec": {"topology": {"variables": [{"name": "flavor", "value": "m1.large"}]}}}),
        )
        .await;
    let rolled = async || {
        let now: Vec<String> = world.machines().await.into_iter().filter_map(|machine| machine.metadata.name).collect();
        ready(&world, 3, "v1.34.2").await && now.iter().filter(|name| machines.contains(name)).count() == 1
    };
    world.until("the workers are others", rolled).await;
    let templates = world.api::<OpenStackMachineTemplate>();
    let unused = async || {
        let all =
            templates.list(&ListParams::default().labels("topology.cluster.x-k8s.io/deployment-name")).await.unwrap();
        all.items.len() == 1
    };
    world.until("the old template is gone", unused).await;

    // A version goes to the control plane first.
    world.patch::<Cluster>("topo", json!({"spec": {"topology": {"version": "v1.35.0"}}})).await;
    let first = async || {
        let plane = world.api::<KubeadmControlPlane>().list(&ListParams::default()).await.unwrap().items.remove(0);
        let workers = deployments.get(&name).await.unwrap();
        let (plane, workers) = (plane.spec.version, workers.spec.template.spec.version.unwrap_or_default());
        assert!(plane == "v1.35.0" || workers == "v1.34.2", "workers are ahead: {plane} {workers}");
        workers == "v1.35.0"
    };
    world.until("the workers follow", first).await;
    world.until("all machines are of the new version", async || ready(&world, 3, "v1.35.0").await).await;
    world
        .until("the upgrade is told to be over", async || {
            reconciled(&world).await.as_deref() == Some("ReconcileSucceeded")
        })
        .await;

    // Other workers are made, and go again.
    let own = |name: &str| json!({"class": "worker", "name": name, "replicas": 1});
    let workers = |list: Value| json!({"spec": {"topology": {"workers": {"machineDeployments": list}}}});
    world.patch::<Cluster>("topo", workers(json!([own("md-0"), own("md-1")]))).await;
    world
        .until("there are other workers", async || {
            ready(&world, 3, "v1.35.0").await
                && deployments.list(&ListParams::default()).await.unwrap().items.len() == 2
        })
        .await;
    world.patch::<Cluster>("topo", workers(json!([own("md-1")]))).await;
    world
        .until("the first workers are gone", async || {
            ready(&world, 2, "v1.35.0").await && deployments.get_opt(&name).await.unwrap().is_none()
        })
        .await;

    // What cannot be is told, and changes nothing.
    world
        .patch::<Cluster>("topo", json!({"spec": {"topology": {"variables": [{"name": "flavor", "value": 7}]}}}))
        .await;
    world
        .until("the wrong variable is told of", async || reconciled(&world).await.as_deref() == Some("ReconcileFailed"))
        .await;
    assert!(ready(&world, 2, "v1.35.0").await);

    world.delete("topo").await;
    world.until("the cluster is gone", async || world.api::<Cluster>().get_opt("topo").await.unwrap().is_none()).await;
    world.until("nothing of it is left", async || world.in_cloud().await.is_empty()).await;
    let own = ListParams::default().labels("topology.cluster.x-k8s.io/owned");
    world.until("its templates are gone", async || templates.list(&own).await.unwrap().items.is_empty()).await;
    world.shutdown().await;
}

/// A class of pools for the class `base`: their template, and a patch for their flavour and image.
async fn offer_pools(world: &World) {
    let api_version = "infrastructure.cluster.x-k8s.io/v1beta2";
    let kind = "OpenStackMachinePoolTemplate";
    let machine =
        json!({"flavor": {"filter": {"name": "m1.medium"}}, "image": {"filter": {"name": "ubuntu-2404-kube"}}});
    let servers = json!({"serverGroup": {"policy": "soft-anti-affinity"}, "template": {"spec": machine}});
    let template = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "pool"}, "spec": {"template": {"spec": servers}}});
    world.apply(&template).await;
    let class = world.api::<ClusterClass>().get("base").await.unwrap();
    let mut spec = Value::from(class.spec.fields);
    spec["workers"]["machinePools"] = json!([{
        "class": "servers", "bootstrap": spec["workers"]["machineDeployments"][0]["bootstrap"],
        "infrastructure": {"templateRef": {"apiVersion": api_version, "kind": kind, "name": "pool"}},
        "metadata": {"labels": {"node-role.kubernetes.io/pool": "yes"}},
    }]);
    let replace =
        |path: &str, template: &str| json!({"op": "replace", "path": path, "valueFrom": {"template": template}});
    let tags = "['{{ .builtin.machinePool.topologyName }}']";
    let patch = json!({"name": "pools", "definitions": [{
        "selector": {"apiVersion": api_version, "kind": kind, "matchResources": {"machinePoolClass": {"names": ["servers"]}}},
        "jsonPatches": [
            replace("/spec/template/spec/template/spec/flavor/filter/name", "{{ .flavor }}"),
            {"op": "add", "path": "/spec/template/spec/template/spec/tags", "valueFrom": {"template": tags}},
        ],
    }]});
    spec["patches"].as_array_mut().unwrap().push(patch);
    world.patch::<ClusterClass>("base", json!({ "spec": spec })).await;
}

#[tokio::test(start_paused = true)]
async fn a_pool_of_a_topology_is_made_scaled_upgraded_patched_and_removed() {
    let world = World::start(8).await;
    world.create_topology("topo", Shape { control_plane: 1, workers: 1, version: "v1.34.2".into() }).await;
    offer_pools(&world).await;
    world.available("topo").await;
    let workers = |pools: Value| json!({"spec": {"topology": {"workers": {"machinePools": pools}}}});
    let own = |replicas: u32| json!([{"class": "servers", "name": "mp-0", "replicas": replicas}]);
    world.patch::<Cluster>("topo", workers(own(2))).await;
    world.until("the pool's machines are ready", async || ready(&world, 4, "v1.34.2").await).await;
    world.patch::<Cluster>("topo", workers(own(3))).await;
    world.until("there is one more", async || ready(&world, 5, "v1.34.2").await).await;
    world.patch::<Cluster>("topo", workers(own(2))).await;
    world.until("there is one less", async || ready(&world, 4, "v1.34.2").await).await;
    let pool = async || world.api::<MachinePool>().list(&ListParams::default()).await.unwrap().items.pop();
    let servers = async || world.api::<OpenStackMachinePool>().list(&ListParams::default()).await.unwrap().items;
    let configs = ListParams::default().labels("topology.cluster.x-k8s.io/pool-name=mp-0");
    let configs = async || world.api::<KubeadmConfig>().list(&configs).await.unwrap().items;
    let made = servers().await.remove(0);
    assert_eq!(made.spec.template.spec.tags, ["mp-0"]);
    let counts = world.api::<Cluster>().get("topo").await.unwrap().status.unwrap().workers.unwrap();
    assert_eq!((counts.desired_replicas, counts.ready_replicas), (Some(3), Some(3)));
    assert_eq!(reconciled(&world).await.as_deref(), Some("ReconcileSucceeded"));

    // A settled one writes nothing, and is put right where somebody else changes it.
    rests(&world).await;
    let name = made.metadata.name.unwrap();
    world.patch::<OpenStackMachinePool>(&name, json!({"spec": {"serverGroup": {"policy": "affinity"}}})).await;
    let policy = async || servers().await[0].spec.server_group.clone().unwrap_or_default().policy.as_str();
    world.until("the drift is put right", async || policy().await == "soft-anti-affinity").await;

    // A variable replaces the machines of the pool, whose objects stay.
    let machines: Vec<String> = world.machines().await.into_iter().filter_map(|one| one.metadata.name).collect();
    let large = json!({"spec": {"topology": {"variables": [{"name": "flavor", "value": "m1.large"}]}}});
    world.patch::<Cluster>("topo", large).await;
    let rolled = async || {
        let now: Vec<String> = world.machines().await.into_iter().filter_map(|one| one.metadata.name).collect();
        ready(&world, 4, "v1.34.2").await && now.iter().filter(|name| machines.contains(name)).count() == 1
    };
    world.until("the workers are others", rolled).await;
    assert_eq!(servers().await[0].metadata.name.as_ref(), Some(&name));

    // What they boot with makes another configuration; the old one goes with the last machine of it.
    let old = configs().await.remove(0).metadata.name;
    let machines: Vec<String> = world.machines().await.into_iter().filter_map(|one| one.metadata.name).collect();
    let mut class = world.api::<ClusterClass>().get("base").await.unwrap();
    let add = json!({"op": "add", "path": "/spec/template/spec/preKubeadmCommands", "value": ["true"]});
    let definition = json!({
        "selector": {
            "apiVersion": "bootstrap.cluster.x-k8s.io/v1beta2", "kind": "KubeadmConfigTemplate",
            "matchResources": {"machinePoolClass": {"names": ["servers"]}},
        },
        "jsonPatches": [add],
    });
    let patches = class.spec.fields["patches"].as_array_mut().unwrap();
    patches.push(json!({"name": "commands", "definitions": [definition]}));
    world.patch::<ClusterClass>("base", json!({"spec": {"patches": patches}})).await;
    let rolled = async || {
        let now: Vec<String> = world.machines().await.into_iter().filter_map(|one| one.metadata.name).collect();
        let configs = configs().await;
        ready(&world, 4, "v1.34.2").await
            && now.iter().filter(|name| machines.contains(name)).count() == 2
            && configs.len() == 1
            && configs[0].metadata.name != old
    };
    world.until("the pool's machines boot with something else", rolled).await;

    // A version goes to it after the control plane; what is to come is told.
    world.patch::<Cluster>("topo", json!({"spec": {"topology": {"version": "v1.35.0"}}})).await;
    let told = Cell::new(false);
    let upgraded = async || {
        let plane = world.api::<KubeadmControlPlane>().list(&ListParams::default()).await.unwrap().items.remove(0);
        let workers = pool().await.unwrap().spec.template.spec.version.unwrap_or_default();
        assert!(plane.spec.version == "v1.35.0" || workers == "v1.34.2", "workers are ahead");
        let status = world.api::<Cluster>().get("topo").await.unwrap().status.unwrap();
        let way = status.workers.unwrap_or_default().upgrade_plan;
        told.set(told.get() || way.iter().any(|step| step.version == "v1.35.0"));
        ready(&world, 4, "v1.35.0").await && way.is_empty()
    };
    world.until("all machines are of the new version", upgraded).await;
    assert!(told.get(), "the way of the workers stood in the status");
    world
        .until("the upgrade is told to be over", async || {
            reconciled(&world).await.as_deref() == Some("ReconcileSucceeded")
        })
        .await;

    // It goes, with all that it was made of; and so does one that is there when the cluster goes.
    world.patch::<Cluster>("topo", workers(json!([{"class": "servers", "name": "mp-1", "replicas": 1}]))).await;
    let replaced =
        async || ready(&world, 3, "v1.35.0").await && configs().await.is_empty() && servers().await.len() == 1;
    world.until("the pool is gone, another has come", replaced).await;
    world.delete("topo").await;
    world.until("the cluster is gone", async || world.api::<Cluster>().get_opt("topo").await.unwrap().is_none()).await;
    world.until("nothing of it is left", async || world.in_cloud().await.is_empty()).await;
    world.until("its parts are gone", async || servers().await.is_empty() && pool().await.is_none()).await;
    world.shutdown().await;
}
