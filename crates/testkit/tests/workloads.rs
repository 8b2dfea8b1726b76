//! What becomes of workloads in a cluster of hollow machines: they are scheduled, rolled, moved and told of.

use api::machine::Machine;
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        batch::v1::Job,
        core::v1::{ConfigMap, Event, Node, PersistentVolumeClaim, Pod, Secret, Service},
        discovery::v1::{Endpoint, EndpointSlice},
        storage::v1::StorageClass,
    },
    kube_aggregator::pkg::apis::apiregistration::v1::APIService,
};
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams},
    core::GroupVersionKind,
};
use openstack::{
    Query,
    block_storage::Volume,
    load_balancer::{LoadBalancer, Member, Pool},
    network::FloatingIp,
};
use serde_json::{Value, json};
use testkit::{Shape, World};

fn deployment(name: &str, replicas: u32, container: Value) -> Deployment {
    serde_json::from_value(json!({
        "metadata": {"name": name}, "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container]}},
        },
    }))
    .unwrap()
}

async fn cluster(seed: u64, workers: u32) -> (World, Client) {
    let world = World::start(seed).await;
    world.create("demo", Shape { control_plane: 1, workers, version: "v1.34.2".into() }).await;
    world.available("demo").await;
    let client = world.workload("demo").await;
    (world, client)
}

async fn pods(client: &Client, app: &str) -> Vec<Pod> {
    let params = ListParams::default().labels(&format!("app={app}"));
    Api::<Pod>::namespaced(client.clone(), "default").list(&params).await.unwrap().items
}

fn is_true(deployment: &Deployment, type_: &str, reason: &str) -> bool {
    let conditions = deployment.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut found = conditions.filter(|condition| condition.type_ == type_ && condition.status == "True");
    found.any(|condition| condition.reason.as_deref() == Some(reason))
}

/// The version of all that the cluster holds: it changes with each write.
async fn version(client: &Client) -> Option<String> {
    let nodes = Api::<Node>::all(client.clone()).list(&ListParams::default()).await.unwrap();
    nodes.metadata.resource_version
}

#[tokio::test(start_paused = true)]
async fn a_deployment_becomes_available_is_rolled_and_rests() {
    let (world, client) = cluster(81, 2).await;
    assert_eq!(
        Api::<Pod>::all(client.clone()).list(&ListParams::default()).await.unwrap().items.len(),
        4,
        "a cluster without workloads has the pods of its control plane alone"
    );
    let deployments = Api::<Deployment>::namespaced(client.clone(), "default");
    let web = deployment("web", 3, json!({"name": "a", "image": "nginx:1"}));
    deployments.create(&PostParams::default(), &web).await.unwrap();
    let available = async |replicas: i32| {
        let status = deployments.get("web").await.unwrap().status.unwrap_or_default();
        status.available_replicas == Some(replicas) && status.updated_replicas == Some(replicas)
    };
    world.until("three are available", async || available(3).await).await;
    world
        .until("it says so", async || {
            let web = deployments.get("web").await.unwrap();
            is_true(&web, "Available", "MinimumReplicasAvailable")
                && is_true(&web, "Progressing", "NewReplicaSetAvailable")
        })
        .await;
    let first = pods(&client, "web").await;
    assert_eq!(first.len(), 3);
    for pod in &first {
        let (spec, status) = (pod.spec.clone().unwrap(), pod.status.clone().unwrap());
        assert_eq!(status.phase.as_deref(), Some("Running"));
        assert!(spec.node_name.unwrap().contains("md"), "workers alone take pods");
        assert!(pod.labels().contains_key("pod-template-hash"));
        assert_ne!(status.pod_ip, status.host_ip);
    }
    let roll = json!({"spec": {"template": {"spec": {"containers": [{"name": "a", "image": "nginx:2"}]}}}});
    deployments.patch("web", &PatchParams::default(), &Patch::Strategic(&roll)).await.unwrap();
    world
        .until("all pods are of the new image", async || {
            let pods = pods(&client, "web").await;
            let new = |pod: &Pod| pod.spec.as_ref().unwrap().containers[0].image.as_deref() == Some("nginx:2");
            pods.len() == 3 && pods.iter().all(new) && available(3).await
        })
        .await;
    let rolled = deployments.get("web").await.unwrap();
    assert_eq!(rolled.annotations()["deployment.kubernetes.io/revision"], "2");
    let addon = Api::<Deployment>::namespaced(client.clone(), "kube-system");
    world
        .until("the cluster's own addons run beside it", async || {
            let status = addon.get("coredns").await.unwrap().status.unwrap_or_default();
            status.available_replicas == Some(2)
        })
        .await;
    // What the upgrade of the image left is written by now.
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    let before = version(&client).await;
    tokio::time::sleep(std::time::Duration::from_secs(1800)).await;
    assert_eq!(before, version(&client).await, "what is settled is not written");
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn what_asks_for_more_than_the_nodes_have_stays_pending_with_the_reason() {
    let (world, client) = cluster(82, 2).await;
    let deployments = Api::<Deployment>::namespaced(client.clone(), "default");
    let big = json!({"name": "a", "image": "a", "resources": {"requests": {"cpu": "100"}}});
    deployments.create(&PostParams::default(), &deployment("big", 1, big)).await.unwrap();
    let nameless = deployment("nameless", 1, json!({"name": "a", "image": "No Image"}));
    deployments.create(&PostParams::default(), &nameless).await.unwrap();
    let want = "0/3 nodes are available: 1 node(s) had untolerated taint {node-role.kubernetes.io/control-plane: }, \
                2 Insufficient cpu. preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling.";
    world
        .until("the pod says why it has no node", async || {
            let status = pods(&client, "big").await.pop().and_then(|pod| pod.status).unwrap_or_default();
            let told = status.conditions.into_iter().flatten().any(|condition| {
                condition.reason.as_deref() == Some("Unschedulable") && condition.message.as_deref() == Some(want)
            });
            status.phase.as_deref() == Some("Pending") && told
        })
        .await;
    let events = Api::<Event>::namespaced(client.clone(), "default");
    world
        .until("an event says so too", async || {
            let events = events.list(&ListParams::default()).await.unwrap();
            let failed = |event: &Event| event.reason.as_deref() == Some("FailedScheduling");
            events.items.iter().filter(|event| failed(event)).all(|event| event.message.as_deref() == Some(want))
                && events.items.iter().any(failed)
        })
        .await;
    world
        .until("an image without a name is told", async || {
            let status = pods(&client, "nameless").await.pop().and_then(|pod| pod.status).unwrap_or_default();
            let state = status.container_statuses.into_iter().flatten().next().and_then(|container| container.state);
            let reason = state.and_then(|state| state.waiting).and_then(|waiting| waiting.reason);
            reason.as_deref() == Some("InvalidImageName")
        })
        .await;
    assert!(!is_true(&deployments.get("big").await.unwrap(), "Available", "MinimumReplicasAvailable"));
    let needy = json!({"name": "a", "image": "a", "envFrom": [{"configMapRef": {"name": "settings"}}]});
    deployments.create(&PostParams::default(), &deployment("needy", 1, needy)).await.unwrap();
    let waits = async || {
        let status = pods(&client, "needy").await.pop().and_then(|pod| pod.status).unwrap_or_default();
        let state = status.container_statuses.into_iter().flatten().next().and_then(|container| container.state);
        state.and_then(|state| state.waiting).and_then(|waiting| waiting.reason)
    };
    world
        .until("what it needs and is not there is told", async || {
            waits().await.as_deref() == Some("CreateContainerConfigError")
        })
        .await;
    let settings: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "settings"}})).unwrap();
    let maps = Api::<ConfigMap>::namespaced(client.clone(), "default");
    maps.create(&PostParams::default(), &settings).await.unwrap();
    world
        .until("it runs once it is there", async || {
            is_true(&deployments.get("needy").await.unwrap(), "Available", "MinimumReplicasAvailable")
        })
        .await;
    // A pod that its owner does not mean any more is replaced, and stays.
    let pod = pods(&client, "needy").await.pop().unwrap().name_any();
    let relabelled = json!({"metadata": {"labels": {"app": "aside"}}});
    let all = Api::<Pod>::namespaced(client.clone(), "default");
    all.patch(&pod, &PatchParams::default(), &Patch::Merge(&relabelled)).await.unwrap();
    world
        .until("another took its place", async || {
            let others = pods(&client, "needy").await;
            others.len() == 1 && others[0].name_any() != pod
        })
        .await;
    assert!(all.get(&pod).await.unwrap().owner_references().is_empty());
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn pods_of_a_machine_that_is_drained_or_lost_are_made_anew_elsewhere() {
    let (world, client) = cluster(83, 2).await;
    let deployments = Api::<Deployment>::namespaced(client.clone(), "default");
    let web = deployment("web", 4, json!({"name": "a", "image": "nginx"}));
    deployments.create(&PostParams::default(), &web).await.unwrap();
    let ready = async || {
        let status = deployments.get("web").await.unwrap().status.unwrap_or_default();
        status.available_replicas == Some(4) && pods(&client, "web").await.len() == 4
    };
    world.until("all run", ready).await;
    let machines = world.api::<Machine>();
    let machine = world.machines().await.into_iter().find(|machine| machine.name_any().contains("md")).unwrap();
    let node = machine.status.as_ref().unwrap().node_ref.as_ref().unwrap().name.clone();
    let on = async |node: &str| {
        let pods = pods(&client, "web").await;
        pods.iter().filter(|pod| pod.spec.as_ref().unwrap().node_name.as_deref() == Some(node)).count()
    };
    assert!(on(&node).await > 0);
    machines.delete(&machine.name_any(), &Default::default()).await.unwrap();
    world.until("the machine is gone", async || machines.get_opt(&machine.name_any()).await.unwrap().is_none()).await;
    world.until("the pods are elsewhere", async || ready().await && on(&node).await == 0).await;

    // A machine whose server goes without a word: its pods leave after five minutes, and end with the node.
    world.until("another took its place", async || world.nodes("demo").await.len() == 3).await;
    let nodes = Api::<Node>::all(client.clone());
    let lost = pods(&client, "web").await[0].spec.clone().unwrap().node_name.unwrap();
    let server = nodes.get(&lost).await.unwrap().status.unwrap().node_info.unwrap().system_uuid;
    world.tenant().delete::<openstack::compute::Server>(&server).await.unwrap();
    world
        .until("its pods run elsewhere", async || {
            let pods = pods(&client, "web").await;
            let elsewhere = |pod: &&Pod| {
                let spec = pod.spec.as_ref().unwrap();
                spec.node_name.as_deref() != Some(lost.as_str()) && pod.metadata.deletion_timestamp.is_none()
            };
            pods.iter().filter(elsewhere).count() == 4
        })
        .await;
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn ordered_sets_jobs_schedules_services_and_budgets_do_what_they_say() {
    let (world, client) = cluster(84, 2).await;
    let template = |app: &str, policy: &str, code: &str| {
        json!({
            "metadata": {"labels": {"app": app}, "annotations": {"hollow.skep.dev/exit-code": code}},
            "spec": {"restartPolicy": policy, "containers": [{"name": "a", "image": "a", "ports": [{"name": "p", "containerPort": 80}]}]},
        })
    };
    let mut db = template("db", "Always", "");
    db["metadata"]["annotations"] = Value::Null;
    let task = template("task", "Never", "0");
    for object in [
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "db"}, "spec": {
            "clusterIP": "None", "selector": {"app": "db"}, "ports": [{"name": "p", "port": 1, "targetPort": "p"}]}}),
        json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db"}, "spec": {
            "replicas": 3, "serviceName": "db", "selector": {"matchLabels": {"app": "db"}}, "template": db}}),
        json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "db"}, "spec": {
            "maxUnavailable": 1, "selector": {"matchLabels": {"app": "db"}}}}),
        json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "good"}, "spec": {
            "completions": 3, "parallelism": 2, "template": task}}),
        json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "bad"}, "spec": {
            "backoffLimit": 1, "template": template("bad", "Never", "1")}}),
        json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "often"}, "spec": {
            "schedule": "*/5 * * * *", "jobTemplate": {"spec": {"template": task}}}}),
    ] {
        create(&client, &object).await;
    }
    let status = async |kind: &str, name: &str| read(&client, kind, name).await["status"].clone();
    world.until("the StatefulSet is ready", async || status("StatefulSet", "db").await["readyReplicas"] == 3).await;
    assert_eq!(
        pods(&client, "db").await.iter().map(ResourceExt::name_any).collect::<Vec<_>>(),
        ["db-0", "db-1", "db-2"]
    );
    world
        .until("the budget allows one to go", async || {
            status("PodDisruptionBudget", "db").await["disruptionsAllowed"] == 1
        })
        .await;
    let slices = Api::<EndpointSlice>::namespaced(client.clone(), "default");
    world
        .until("the Service has all of them", async || {
            let slices = slices.list(&ListParams::default().labels("kubernetes.io/service-name=db")).await.unwrap();
            let endpoints = slices.items.iter().flat_map(|slice| slice.endpoints.iter().flatten());
            let ready = |found: &&Endpoint| found.conditions.as_ref().is_some_and(|found| found.ready == Some(true));
            endpoints.filter(ready).count() == 3
        })
        .await;
    let has = |status: &Value, type_: &str, reason: &str| {
        let mut conditions = status["conditions"].as_array().into_iter().flatten();
        conditions.any(|one| one["type"] == type_ && one["reason"] == reason)
    };
    world.until("one Job is done", async || has(&status("Job", "good").await, "Complete", "CompletionsReached")).await;
    world
        .until("the other has failed", async || has(&status("Job", "bad").await, "Failed", "BackoffLimitExceeded"))
        .await;
    assert_eq!(status("Job", "good").await["succeeded"], 3);
    assert_eq!(status("Job", "bad").await["failed"], 2);
    world
        .until("the CronJob has run", async || status("CronJob", "often").await["lastSuccessfulTime"].is_string())
        .await;
    tokio::time::sleep(std::time::Duration::from_secs(3600)).await;
    let jobs = Api::<Job>::namespaced(client.clone(), "default").list(&ListParams::default()).await.unwrap();
    assert_eq!(jobs.iter().filter(|job| job.name_any().starts_with("often-")).count(), 3, "the history has an end");
    world.shutdown().await;
}

fn resource(kind: &str) -> ApiResource {
    let (group, version) = match kind {
        "Service" => ("", "v1"),
        "StatefulSet" => ("apps", "v1"),
        "PodDisruptionBudget" => ("policy", "v1"),
        _ => ("batch", "v1"),
    };
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
}

async fn create(client: &Client, object: &Value) {
    let api =
        Api::<DynamicObject>::namespaced_with(client.clone(), "default", &resource(object["kind"].as_str().unwrap()));
    api.create(&PostParams::default(), &serde_json::from_value(object.clone()).unwrap()).await.unwrap();
}

async fn read(client: &Client, kind: &str, name: &str) -> Value {
    let api = Api::<DynamicObject>::namespaced_with(client.clone(), "default", &resource(kind));
    api.get(name).await.unwrap().data
}

/// The cluster's own access to its cloud, as the OpenStack cloud controller manager reads it.
fn cloud_config(world: &World) -> Secret {
    let text = |key: &str| {
        let line = world.clouds_yaml().lines().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix(':'));
        line.unwrap_or_default().trim().trim_matches(['"', '\'']).to_owned()
    };
    let conf = format!(
        "[Global]\nauth-url={}\nusername={}\npassword={}\ntenant-name={}\ndomain-name=Default\n",
        text("auth_url"),
        text("username"),
        text("password"),
        text("project_name")
    );
    let secret = json!({"metadata": {"name": "cloud-config"}, "stringData": {"cloud.conf": conf}});
    serde_json::from_value(secret).unwrap()
}

#[tokio::test(start_paused = true)]
async fn services_and_claims_get_what_they_ask_for_in_the_cloud_once_there_are_credentials() {
    let (world, client) = cluster(85, 1).await;
    let class = json!({"metadata": {"name": "standard"}, "provisioner": "cinder.csi.openstack.org",
        "reclaimPolicy": "Delete", "volumeBindingMode": "WaitForFirstConsumer"});
    let class: StorageClass = serde_json::from_value(class).unwrap();
    Api::<StorageClass>::all(client.clone()).create(&PostParams::default(), &class).await.unwrap();
    let claims = Api::<PersistentVolumeClaim>::namespaced(client.clone(), "default");
    let claim = json!({"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "storageClassName": "standard", "resources": {"requests": {"storage": "1500Mi"}}}});
    claims.create(&PostParams::default(), &serde_json::from_value(claim).unwrap()).await.unwrap();
    let services = Api::<Service>::namespaced(client.clone(), "default");
    let service = json!({"metadata": {"name": "web"}, "spec": {"type": "LoadBalancer", "selector": {"app": "web"},
        "ports": [{"port": 80}]}});
    services.create(&PostParams::default(), &serde_json::from_value(service).unwrap()).await.unwrap();
    let mut web = deployment("web", 1, json!({"name": "a", "image": "a"}));
    let volume = json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]);
    web.spec.as_mut().unwrap().template.spec.as_mut().unwrap().volumes = serde_json::from_value(volume).unwrap();
    let deployments = Api::<Deployment>::namespaced(client.clone(), "default");
    deployments.create(&PostParams::default(), &web).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(600)).await;
    let cloud = world.tenant();
    let ours = async || {
        let all = cloud.list::<LoadBalancer>(&Query::new()).await.unwrap();
        all.into_iter().find(|balancer| balancer.name == "kube_service_demo_default_web")
    };
    assert!(ours().await.is_none() && cloud.list::<Volume>(&Query::new()).await.unwrap().is_empty());
    let phase = async || claims.get("data").await.unwrap().status.unwrap().phase.unwrap();
    assert_eq!(phase().await, "Pending", "without credentials a claim waits");

    let secrets = Api::<Secret>::namespaced(client.clone(), "kube-system");
    secrets.create(&PostParams::default(), &cloud_config(&world)).await.unwrap();
    world.until("the claim is bound", async || phase().await == "Bound").await;
    let volumes = cloud.list::<Volume>(&Query::new()).await.unwrap();
    let uid = claims.get("data").await.unwrap().uid().unwrap();
    assert_eq!((volumes[0].name.clone(), volumes[0].size), (format!("pvc-{uid}"), 2));
    assert_eq!(volumes[0].metadata["cinder.csi.openstack.org/cluster"], "demo");
    world
        .until("the app runs", async || {
            deployments.get("web").await.unwrap().status.and_then(|status| status.available_replicas) == Some(1)
        })
        .await;
    let ingress = async || {
        let status = services.get("web").await.unwrap().status?.load_balancer?.ingress?;
        status.into_iter().next()?.ip
    };
    world.until("the Service has an address", async || ingress().await.is_some()).await;
    let balancer = ours().await.unwrap();
    assert_eq!(balancer.description, "Kubernetes external service default/web from cluster demo");
    let floating = cloud.list::<FloatingIp>(&Query::new().with("port_id", &balancer.vip_port_id)).await.unwrap();
    assert_eq!(ingress().await, Some(floating[0].floating_ip_address.clone()));
    assert_eq!(floating[0].description, "Floating IP for Kubernetes external service default/web from cluster demo");
    let pools = cloud.list::<Pool>(&Query::new().with("loadbalancer_id", &balancer.id)).await.unwrap();
    let members = cloud.list_in::<Member>(&pools[0].id, &Query::new()).await.unwrap();
    assert_eq!(members.len(), 1, "the worker, and not the control plane");

    services.delete("web", &DeleteParams::default()).await.unwrap();
    deployments.delete("web", &DeleteParams::background()).await.unwrap();
    claims.delete("data", &DeleteParams::default()).await.unwrap();
    world
        .until("nothing of it is left in the cloud", async || {
            let gone = ours().await.is_none() && services.get_opt("web").await.unwrap().is_none();
            gone && cloud.list::<Volume>(&Query::new()).await.unwrap().is_empty()
        })
        .await;
    assert_eq!(cloud.list::<FloatingIp>(&Query::new()).await.unwrap().len(), 1, "that of the API server stays");
    world.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn metrics_are_answered_as_long_as_the_pods_are_ready_that_an_api_service_names() {
    let (world, client) = cluster(93, 1).await;
    let asks = json!({"requests": {"cpu": "100m", "memory": "64Mi"}});
    let server = json!({"name": "a", "image": "metrics-server", "ports": [{"name": "https", "containerPort": 4443}], "resources": asks});
    let deployments = Api::<Deployment>::namespaced(client.clone(), "default");
    deployments.create(&PostParams::default(), &deployment("metrics-server", 1, server)).await.unwrap();
    let service: Service = serde_json::from_value(json!({
        "metadata": {"name": "metrics-server"},
        "spec": {"selector": {"app": "metrics-server"}, "ports": [{"name": "https", "port": 443, "targetPort": "https"}]},
    }))
    .unwrap();
    let made = Api::<Service>::namespaced(client.clone(), "default").create(&PostParams::default(), &service).await;
    let address = made.unwrap().spec.and_then(|spec| spec.cluster_ip).unwrap_or_default();
    assert!(address.parse::<std::net::Ipv4Addr>().is_ok(), "as helm --wait wants it: {address:?}");
    let registered: APIService = serde_json::from_value(json!({
        "metadata": {"name": "v1beta1.metrics.k8s.io"}, "spec": {
            "group": "metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100, "versionPriority": 100,
            "insecureSkipTLSVerify": true, "service": {"namespace": "default", "name": "metrics-server"},
        },
    }))
    .unwrap();
    let services = Api::<APIService>::all(client.clone());
    services.create(&PostParams::default(), &registered).await.unwrap();
    let is = async |status: &str, reason: &str| {
        let found = services.get("v1beta1.metrics.k8s.io").await.unwrap().status.unwrap_or_default();
        let mut conditions = found.conditions.into_iter().flatten();
        conditions.any(|one| one.status == status && one.reason.as_deref() == Some(reason))
    };
    world.until("the API is available", async || is("True", "Passed").await).await;
    let metrics = |kind: &str, plural: &str| {
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("metrics.k8s.io", "v1beta1", kind), plural)
    };
    let nodes = Api::<DynamicObject>::all_with(client.clone(), &metrics("NodeMetrics", "nodes"));
    assert_eq!(nodes.list(&ListParams::default()).await.unwrap().items.len(), 2);
    let pods = Api::<DynamicObject>::namespaced_with(client.clone(), "default", &metrics("PodMetrics", "pods"));
    let own = pods.list(&ListParams::default().labels("app=metrics-server")).await.unwrap();
    assert_eq!(own.items[0].data["containers"][0]["usage"], json!({"cpu": "100m", "memory": "65536Ki"}));
    deployments
        .patch("metrics-server", &PatchParams::default(), &Patch::Merge(json!({"spec": {"replicas": 0}})))
        .await
        .unwrap();
    world.until("it is not any more", async || is("False", "MissingEndpoints").await).await;
    assert!(nodes.list(&ListParams::default()).await.is_err());
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    let before = version(&client).await;
    tokio::time::sleep(std::time::Duration::from_secs(1800)).await;
    assert_eq!(before, version(&client).await, "what is settled is not written");
    world.shutdown().await;
}
