use serde_json::{Value, json};

use super::*;

const NOW: &str = "2026-01-01T00:00:00Z";

#[test]
fn a_cloud_conf_is_read_as_a_clouds_yaml() {
    let text = "# of the cluster\n[Global]\nauth-url = \"http://cloud.test/identity\"\nusername=demo\npassword=\"a=b\"\n\
                tenant-name=p\ndomain-name=Default\nregion=RegionOne\n; more\n[LoadBalancer]\nfloating-network-id=net\n";
    let read = Configuration::read(text);
    assert_eq!(read.get("LoadBalancer", "floating-network-id"), Some("net"));
    assert_eq!(read.get("Global", "none"), None);
    let cloud = read.cloud().unwrap();
    assert_eq!((cloud.auth_url.as_str(), cloud.region.as_deref()), ("http://cloud.test/identity", Some("RegionOne")));
    let application = "[Global]\nauth-url=http://c\napplication-credential-id=i\napplication-credential-secret=s\n";
    let auth = format!("{:?}", Configuration::read(application).cloud().unwrap().auth);
    assert!(auth.starts_with("ApplicationCredential"), "{auth}");
    assert!(Configuration::read("nothing").cloud().is_err());
}

#[test]
fn a_cloud_conf_has_an_end() {
    let with = |bytes: usize| {
        let mut text = "#".repeat(bytes - "\n[Global]\nregion=r".len());
        text.push_str("\n[Global]\nregion=r");
        Configuration::read(&text)
    };
    assert_eq!(with(CONFIGURATION_BYTES_MAX).global("region"), Some("r"));
    assert_eq!(with(CONFIGURATION_BYTES_MAX + 1).global("region"), None);
}

fn service(change: impl FnOnce(&mut Value)) -> Value {
    let mut service = json!({"kind": "Service", "metadata": {"name": "web", "namespace": "default", "uid": "s"},
        "spec": {"type": "LoadBalancer", "ports": [{"port": 80, "nodePort": 30080}]}});
    change(&mut service);
    service
}

fn node(name: &str) -> Value {
    json!({"kind": "Node", "metadata": {"name": name}, "status": {"addresses": [{"type": "InternalIP", "address": name}]}})
}

fn told(objects: &[Value], balanced: &BTreeMap<String, u64>) -> Vec<String> {
    let seen = Observed::of(NOW, objects);
    let short = |task: &Task<'_>| format!("{task:?}").split([' ', '{']).next().unwrap().to_owned();
    tasks(&seen, balanced).iter().map(short).collect()
}

#[test]
fn a_service_is_looked_at_again_when_it_or_the_nodes_change() {
    let objects = [service(|_| ()), node("a")];
    assert_eq!(told(&objects, &BTreeMap::new()), ["Balance"]);
    let seen = Observed::of(NOW, &objects);
    let Some(Task::Balance { digest, .. }) = tasks(&seen, &BTreeMap::new()).pop() else { panic!() };
    let known = BTreeMap::from([("s".to_owned(), digest)]);
    assert!(told(&objects, &known).is_empty());
    assert_eq!(told(&[service(|_| ()), node("a"), node("b")], &known), ["Balance"]);
    assert_eq!(told(&[service(|one| one["spec"]["ports"][0]["port"] = 81.into()), node("a")], &known), ["Balance"]);
    assert!(told(&[service(|one| one["spec"]["loadBalancerClass"] = "other.example/lb".into())], &known).is_empty());
    let gone = service(|one| one["metadata"]["deletionTimestamp"] = NOW.into());
    assert!(told(std::slice::from_ref(&gone), &known).is_empty());
    let mut held = gone;
    held["metadata"]["finalizers"] = json!([FINALIZER]);
    assert_eq!(told(&[held.clone()], &known), ["Free"]);
    held["metadata"]["deletionTimestamp"] = Value::Null;
    held["spec"]["type"] = "ClusterIP".into();
    assert_eq!(told(&[held], &known), ["Free"]);
}

#[test]
fn claims_of_the_driver_get_volumes_and_lose_them() {
    let class = |mode: &str, provisioner: &str| json!({"kind": "StorageClass", "metadata": {"name": "s"}, "provisioner": provisioner, "volumeBindingMode": mode});
    let claim = |annotations: Value| {
        json!({"kind": "PersistentVolumeClaim", "metadata": {"name": "data", "namespace": "default", "uid": "c",
            "annotations": annotations}, "spec": {"storageClassName": "s"}})
    };
    let none = BTreeMap::new();
    assert_eq!(told(&[class("Immediate", volume::DRIVER), claim(json!({}))], &none), ["Provision"]);
    assert!(told(&[class("Immediate", "other.example"), claim(json!({}))], &none).is_empty());
    assert!(told(&[class("WaitForFirstConsumer", volume::DRIVER), claim(json!({}))], &none).is_empty());
    let selected = json!({"volume.kubernetes.io/selected-node": "w"});
    assert_eq!(told(&[class("WaitForFirstConsumer", volume::DRIVER), claim(selected)], &none), ["Provision"]);
    let volume = |policy: &str, phase: &str| {
        json!({"kind": "PersistentVolume", "metadata": {"name": "pvc-c", "annotations": {
            "pv.kubernetes.io/provisioned-by": volume::DRIVER}}, "spec": {"persistentVolumeReclaimPolicy": policy,
            "csi": {"driver": volume::DRIVER, "volumeHandle": "id"}}, "status": {"phase": phase}})
    };
    assert_eq!(told(&[volume("Delete", "Released")], &none), ["Reclaim"]);
    assert!(told(&[volume("Retain", "Released")], &none).is_empty());
    assert!(told(&[volume("Delete", "Bound")], &none).is_empty());
}
