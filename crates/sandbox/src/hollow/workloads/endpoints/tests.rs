use serde_json::{Value, json};

use super::*;

const NOW: &str = "2026-01-01T00:00:00Z";

fn service(change: impl FnOnce(&mut Value)) -> Value {
    let mut service = json!({
        "kind": "Service", "metadata": {"name": "web", "namespace": "default", "uid": "s", "labels": {"team": "a"}},
        "spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}]},
    });
    change(&mut service);
    service
}

fn pod(name: &str, port: u16, ready: bool) -> Value {
    json!({
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": name, "labels": {"app": "web"}},
        "spec": {"nodeName": "w", "containers": [{"name": "a", "ports": [{"name": "http", "containerPort": port}]}]},
        "status": {"phase": "Running", "podIP": format!("10.0.0.{}", name.len()), "conditions": [
            {"type": "Ready", "status": if ready { "True" } else { "False" }}]},
    })
}

fn node() -> Value {
    json!({"kind": "Node", "metadata": {"name": "w", "labels": {"topology.kubernetes.io/zone": "z"}}})
}

fn planned(objects: &[Value]) -> Plan {
    let mut made = Plan::default();
    plan(&Observed::of(NOW, objects), &mut made);
    made
}

fn created(plan: &Plan) -> Vec<Value> {
    let create = |write: &super::super::plan::Write| match write {
        super::super::plan::Write::Create(object) => Some(object.clone()),
        _ => None,
    };
    plan.writes.iter().filter_map(create).collect()
}

#[test]
fn a_service_has_the_addresses_and_ports_of_its_pods() {
    let slices = created(&planned(&[service(|_| ()), node(), pod("p", 8080, true), pod("pp", 8080, false)]));
    let [slice] = &slices[..] else { panic!("{slices:?}") };
    let labels = json!({"team": "a", SERVICE_LABEL: "web", MANAGER_LABEL: MANAGER});
    assert_eq!((&slice["metadata"]["generateName"], &slice["metadata"]["labels"]), (&json!("web-"), &labels));
    assert_eq!(slice["ports"], json!([{"name": "http", "port": 8080, "protocol": "TCP"}]));
    let first = &slice["endpoints"][0];
    assert_eq!(
        (&first["addresses"], &first["zone"], &first["nodeName"]),
        (&json!(["10.0.0.1"]), &json!("z"), &json!("w"))
    );
    assert_eq!(first["targetRef"], json!({"kind": "Pod", "name": "p", "namespace": "default", "uid": "p"}));
    let ready = |at: usize| slice["endpoints"][at]["conditions"]["ready"].clone();
    assert_eq!((ready(0), ready(1)), (json!(true), json!(false)));
}

#[test]
fn a_slice_is_written_when_it_changes_and_only_then() {
    let mut slice = created(&planned(&[service(|_| ()), node(), pod("p", 80, true)])).remove(0);
    slice["metadata"]["name"] = "web-1".into();
    let told = |pods: Vec<Value>| planned(&[vec![service(|_| ()), node(), slice.clone()], pods].concat()).told();
    assert!(told(vec![pod("p", 80, true)]).is_empty());
    assert!(told(vec![pod("p", 80, false)])[0].starts_with("patch EndpointSlice web-1"));
    let gone = told(vec![]);
    assert!(gone[0].contains("\"endpoints\":[]"), "{gone:?}");
}

#[test]
fn slices_have_an_end_and_other_ports_are_in_others() {
    let many: Vec<_> = (0..=ENDPOINTS_MAX)
        .map(|number| {
            let mut pod = pod("p", 80, true);
            pod["metadata"]["name"] = format!("p-{number}").into();
            pod
        })
        .collect();
    assert_eq!(created(&planned(&[vec![service(|_| ())], many[1..].to_vec()].concat())).len(), 1);
    assert_eq!(created(&planned(&[vec![service(|_| ())], many].concat())).len(), 2);
    assert_eq!(created(&planned(&[service(|_| ()), pod("p", 80, true), pod("pp", 81, true)])).len(), 2);
}

#[test]
fn headless_ones_are_marked_and_those_without_selector_are_left_alone() {
    let headless = created(&planned(&[service(|service| service["spec"]["clusterIP"] = "None".into())]));
    assert_eq!(headless[0]["metadata"]["labels"][HEADLESS_LABEL], "");
    assert!(planned(&[service(|service| service["spec"]["selector"] = Value::Null)]).writes.is_empty());
    assert!(planned(&[service(|service| service["spec"]["type"] = "ExternalName".into())]).writes.is_empty());
}
