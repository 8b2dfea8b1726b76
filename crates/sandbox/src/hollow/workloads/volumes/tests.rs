use serde_json::{Value, json};

use super::*;

const NOW: &str = "2026-01-01T00:00:00Z";

fn claim(change: impl FnOnce(&mut Value)) -> Value {
    let mut claim = json!({
        "kind": "PersistentVolumeClaim", "metadata": {"name": "data", "namespace": "default", "uid": "c"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2Gi"}}, "storageClassName": "s"},
        "status": {"phase": "Pending"},
    });
    change(&mut claim);
    claim
}

fn volume(change: impl FnOnce(&mut Value)) -> Value {
    let mut volume = json!({
        "kind": "PersistentVolume", "metadata": {"name": "pv", "uid": "v"},
        "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "5Gi"}, "storageClassName": "s"},
        "status": {"phase": "Available"},
    });
    change(&mut volume);
    volume
}

fn class(mode: &str) -> Value {
    json!({"kind": "StorageClass", "metadata": {"name": "s"}, "provisioner": "p.example", "volumeBindingMode": mode})
}

fn planned(objects: &[Value]) -> Plan {
    let mut made = Plan::default();
    plan(&Observed::of(NOW, objects), &mut made);
    made
}

#[test]
fn a_claim_takes_a_volume_that_does_for_it_and_both_say_so() {
    let told = planned(&[claim(|_| ()), volume(|_| ())]).told();
    assert!(told[0].starts_with("patch PersistentVolume pv {\"spec\":{\"claimRef\":{"), "{told:?}");
    let taken =
        || volume(|volume| volume["spec"]["claimRef"] = json!({"uid": "c", "name": "data", "namespace": "default"}));
    let told = planned(&[claim(|_| ()), taken()]).told();
    assert!(
        told[0].starts_with("patch PersistentVolumeClaim data") && told[0].contains("\"volumeName\":\"pv\""),
        "{told:?}"
    );
    assert_eq!(told[1], "status PersistentVolume pv");
    let named = claim(|claim| {
        claim["spec"]["volumeName"] = "pv".into();
        claim["metadata"]["annotations"] = json!({BOUND: "yes"});
    });
    let plan = planned(&[named.clone(), taken()]);
    let status = plan.status_of("PersistentVolumeClaim");
    assert_eq!((&status["phase"], &status["capacity"]["storage"]), (&json!("Bound"), &json!("5Gi")));
    assert_eq!(plan.status_of("PersistentVolume")["phase"], "Bound");
    let mut rests = [named, taken()];
    rests[0]["status"] = status;
    rests[1]["status"] = plan.status_of("PersistentVolume");
    assert!(planned(&rests).writes.is_empty());
    assert_eq!(planned(&rests[..1]).status_of("PersistentVolumeClaim")["phase"], "Lost");
    assert_eq!(planned(&rests[1..]).status_of("PersistentVolume")["phase"], "Released");
}

#[test]
fn a_volume_that_does_not_do_is_not_taken() {
    for change in [
        |volume: &mut Value| volume["spec"]["capacity"]["storage"] = "1Gi".into(),
        |volume: &mut Value| volume["spec"]["accessModes"] = json!(["ReadOnlyMany"]),
        |volume: &mut Value| volume["spec"]["storageClassName"] = "other".into(),
        |volume: &mut Value| volume["spec"]["volumeMode"] = "Block".into(),
        |volume: &mut Value| {
            volume["spec"]["claimRef"] = json!({"uid": "else", "name": "data", "namespace": "default"});
        },
        |volume: &mut Value| volume["spec"]["claimRef"] = json!({"name": "other", "namespace": "default"}),
    ] {
        let told = planned(&[claim(|_| ()), volume(change)]).told();
        assert!(!told.iter().any(|one| one.contains("claimRef")), "{told:?}");
    }
    let kept = volume(|volume| volume["spec"]["claimRef"] = json!({"name": "data", "namespace": "default"}));
    assert!(planned(&[claim(|_| ()), kept]).told()[0].contains("\"uid\":\"c\""));
}

#[test]
fn what_a_claim_waits_for_is_told() {
    assert_eq!(planned(&[claim(|_| ())]).events(), ["FailedBinding"]);
    let outside = planned(&[claim(|_| ()), class("Immediate")]);
    assert_eq!(outside.events(), ["ExternalProvisioning"]);
    assert!(outside.told()[0].contains("\"volume.kubernetes.io/storage-provisioner\":\"p.example\""));
    let late = planned(&[claim(|_| ()), class("WaitForFirstConsumer"), volume(|_| ())]);
    assert_eq!((late.told().len(), late.events()), (0, vec!["WaitForFirstConsumer".to_owned()]));
}
