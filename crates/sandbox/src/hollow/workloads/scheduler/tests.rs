use serde_json::{Value, json};

use super::*;

const NOW: &str = "2026-01-01T00:00:00Z";

fn node(name: &str, change: impl FnOnce(&mut Value)) -> Value {
    let mut node = json!({
        "kind": "Node", "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}, "spec": {},
        "status": {
            "allocatable": {"cpu": "2", "memory": "4Gi", "pods": "110"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    });
    change(&mut node);
    node
}

fn control_plane(name: &str) -> Value {
    let taint = json!([{"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}]);
    node(name, |node| node["spec"]["taints"] = taint)
}

fn zoned(name: &str, zone: &str) -> Value {
    node(name, |node| node["metadata"]["labels"]["zone"] = zone.into())
}

fn pod(name: &str, spec: Value) -> Value {
    let mut pod = json!({
        "kind": "Pod", "metadata": {"name": name, "namespace": "default", "uid": name, "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "a", "image": "a"}]}, "status": {"phase": "Pending"},
    });
    for (key, value) in spec.as_object().unwrap() {
        pod["spec"][key] = value.clone();
    }
    pod
}

fn asking(cpu: &str) -> Value {
    json!({"containers": [{"name": "a", "image": "a", "resources": {"requests": {"cpu": cpu}}}]})
}

fn planned(objects: &[Value]) -> Plan {
    let mut made = Plan::default();
    plan(&Observed::of(NOW, objects), &mut made);
    made
}

/// What the scheduler says of the pod that it has no node for.
fn message(objects: &[Value]) -> String {
    let plan = planned(objects);
    let condition = plan.status_of("Pod")["conditions"][0].clone();
    assert_eq!(condition["type"], "PodScheduled", "{:?}", plan.told());
    assert_eq!(plan.events(), [FAILED]);
    condition["message"].as_str().unwrap().to_owned()
}

#[test]
fn what_no_node_has_is_told_with_the_reasons_of_all_nodes() {
    let nodes = || vec![control_plane("cp"), node("w-1", |_| ()), node("w-2", |_| ())];
    let with = |pod: Value| {
        let mut all = nodes();
        all.push(pod);
        message(&all)
    };
    let unhelpful =
        |count| format!("preemption: 0/3 nodes are available: {count} Preemption is not helpful for scheduling.");
    let tainted = "1 node(s) had untolerated taint {node-role.kubernetes.io/control-plane: }";
    assert_eq!(
        with(pod("big", asking("100"))),
        format!("0/3 nodes are available: {tainted}, 2 Insufficient cpu. {}", unhelpful(3))
    );
    assert_eq!(
        with(pod("picky", json!({"nodeSelector": {"disk": "ssd"}}))),
        format!(
            "0/3 nodes are available: {tainted}, 2 node(s) didn't match Pod's node affinity/selector. {}",
            unhelpful(3)
        )
    );
    let claim = json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]});
    assert_eq!(
        with(pod("stateful", claim)),
        format!("0/3 nodes are available: persistentvolumeclaim \"data\" not found. {}", unhelpful(3))
    );
    let mut never = asking("100");
    never["preemptionPolicy"] = "Never".into();
    assert!(with(pod("meek", never)).ends_with(". preemption: not eligible due to preemptionPolicy=Never."));
    assert_eq!(message(&[pod("alone", json!({}))]), "no nodes available to schedule pods");
}

#[test]
fn what_other_pods_take_is_not_there_and_pods_that_ended_take_nothing() {
    let mut placed = pod("there", asking("1500m"));
    placed["spec"]["nodeName"] = "w".into();
    let objects = [node("w", |_| ()), placed.clone(), pod("new", asking("1"))];
    let help = "preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.";
    assert_eq!(message(&objects), format!("0/1 nodes are available: 1 Insufficient cpu. {help}"));
    placed["status"]["phase"] = "Succeeded".into();
    assert_eq!(planned(&[node("w", |_| ()), placed, pod("new", asking("1"))]).told(), ["bind new w"]);
}

#[test]
fn two_pods_that_come_together_do_not_take_the_same_room() {
    let objects = [node("w-1", |_| ()), node("w-2", |_| ()), pod("a", asking("1500m")), pod("b", asking("1500m"))];
    assert_eq!(planned(&objects).told(), ["bind a w-1", "bind b w-2"]);
    let full = node("w", |node| node["status"]["allocatable"]["pods"] = "1".into());
    let told = planned(&[full, pod("a", json!({})), pod("b", json!({}))]).told();
    assert_eq!(told, ["bind a w", "status Pod b"]);
}

#[test]
fn a_node_that_is_cordoned_silent_or_taken_by_a_port_is_refused() {
    let cordoned = node("w", |node| node["spec"]["unschedulable"] = true.into());
    assert!(message(&[cordoned.clone(), pod("a", json!({}))]).contains("1 node(s) were unschedulable. "));
    let tolerant = json!({"tolerations": [{"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}]});
    assert_eq!(planned(&[cordoned, pod("a", tolerant)]).told(), ["bind a w"]);
    let silent = node("w", |node| node["status"]["conditions"][0]["status"] = "Unknown".into());
    let text = message(&[silent, pod("a", json!({}))]);
    assert!(text.contains("1 node(s) had untolerated taint {node.kubernetes.io/unreachable: }"), "{text}");
    let port = json!({"containers": [{"name": "a", "image": "a", "ports": [{"containerPort": 80, "hostPort": 80}]}]});
    let mut there = pod("there", port.clone());
    there["spec"]["nodeName"] = "w".into();
    let text = message(&[node("w", |_| ()), there, pod("a", port)]);
    assert!(text.contains("1 node(s) didn't have free ports for the requested pod ports. "), "{text}");
}

#[test]
fn pods_keep_away_from_each_other_or_together_as_they_ask() {
    let term = json!({"labelSelector": {"matchLabels": {"app": "web"}}, "topologyKey": "zone"});
    let apart = json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}});
    let together = json!({"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}});
    let zones = || vec![zoned("a-1", "a"), zoned("a-2", "a"), zoned("b-1", "b")];
    let with = |pods: &[Value]| [zones(), pods.to_vec()].concat();
    let told = planned(&with(&[pod("p", apart.clone()), pod("q", apart.clone())])).told();
    assert_eq!(told, ["bind p a-1", "bind q b-1"]);
    let mut both = with(&[pod("p", apart.clone()), pod("q", apart.clone())]);
    both[3]["spec"]["nodeName"] = "a-1".into();
    both[4]["spec"]["nodeName"] = "b-1".into();
    let shunned = [both.clone(), vec![pod("r", json!({}))]].concat();
    assert!(message(&shunned).contains("3 node(s) didn't satisfy existing pods anti-affinity rules. "));
    let apart = [both, vec![pod("r", apart)]].concat();
    assert!(message(&apart).contains("3 node(s) didn't match pod anti-affinity rules. "));
    let mut one = with(&[pod("p", json!({})), pod("q", together.clone())]);
    one[3]["spec"]["nodeName"] = "b-1".into();
    assert_eq!(planned(&one).told(), ["bind q b-1"]);
    assert_eq!(planned(&with(&[pod("first", together)])).told().len(), 1);
    let stranger = json!({"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"labelSelector": {"matchLabels": {"app": "other"}}, "topologyKey": "zone"}]}}});
    assert!(message(&with(&[pod("p", stranger)])).contains("3 node(s) didn't match pod affinity rules. "));
}

#[test]
fn pods_spread_over_zones_as_evenly_as_they_must() {
    let spread = json!({"topologySpreadConstraints": [{
        "maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "web"}},
    }]});
    let mut there = pod("there", json!({}));
    there["spec"]["nodeName"] = "a-1".into();
    let objects = |b: Value| vec![zoned("a-1", "a"), b, there.clone(), pod("new", spread.clone())];
    assert_eq!(planned(&objects(zoned("b-1", "b"))).told(), ["bind new b-1"]);
    let cordoned = zoned("b-1", "b");
    let full = |mut node: Value| {
        node["spec"]["unschedulable"] = true.into();
        node
    };
    let text = message(&objects(full(cordoned)));
    assert!(
        text.contains("1 node(s) didn't match pod topology spread constraints, 1 node(s) were unschedulable"),
        "{text}"
    );
    let text = message(&[node("bare", |_| ()), pod("new", spread)]);
    assert!(text.contains("(missing required label)"), "{text}");
}

#[test]
fn the_most_important_pod_is_placed_first_and_gates_hold_one_back() {
    let mut low = pod("a-low", asking("2"));
    low["spec"]["priority"] = 1.into();
    let mut high = pod("high", asking("2"));
    high["spec"]["priority"] = 9.into();
    assert_eq!(planned(&[node("w", |_| ()), low, high]).told(), ["bind high w", "status Pod a-low"]);
    let gated = planned(&[node("w", |_| ()), pod("g", json!({"schedulingGates": [{"name": "wait"}]}))]);
    assert_eq!(gated.status_of("Pod")["conditions"][0]["reason"], "SchedulingGated");
}

#[test]
fn a_claim_whose_volume_waits_for_its_pod_is_told_the_node_first() {
    let class = json!({"kind": "StorageClass", "metadata": {"name": "late"}, "provisioner": "x",
        "volumeBindingMode": "WaitForFirstConsumer"});
    let claim = json!({"kind": "PersistentVolumeClaim", "metadata": {"name": "data", "namespace": "default"},
        "spec": {"storageClassName": "late"}, "status": {"phase": "Pending"}});
    let user = pod("p", json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]}));
    let mut objects = vec![node("w", |_| ()), class, claim, user];
    let told = planned(&objects).told();
    let patch = r#"{"metadata":{"annotations":{"volume.kubernetes.io/selected-node":"w"}}}"#;
    assert_eq!(told, [format!("patch PersistentVolumeClaim data {patch}")]);
    objects[2]["metadata"]["annotations"] = json!({"volume.kubernetes.io/selected-node": "w"});
    assert!(planned(&objects).told().is_empty());
    objects[2]["status"]["phase"] = "Bound".into();
    objects[2]["spec"]["volumeName"] = "pv".into();
    assert_eq!(planned(&objects).told(), ["bind p w"]);
    objects.push(json!({"kind": "PersistentVolume", "metadata": {"name": "pv"}, "spec": {"nodeAffinity": {"required":
        {"nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["b"]}]}]}}}}));
    assert!(message(&objects).contains("1 node(s) didn't match PersistentVolume's node affinity"));
    objects[1]["volumeBindingMode"] = "Immediate".into();
    objects[2]["status"]["phase"] = "Pending".into();
    assert!(message(&objects).contains(": pod has unbound immediate PersistentVolumeClaims. "));
}
