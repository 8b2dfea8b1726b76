//! Machines of nobody, and Secrets that others made.

use super::*;

/// Two of three machines are nobody's, and the last of them is changed.
fn orphaned(change: impl FnOnce(&mut Machine)) -> Seen {
    let mut seen = running(3);
    seen.orphans = seen.machines.split_off(1);
    for machine in &mut seen.orphans {
        Arc::make_mut(machine).metadata.owner_references = None;
    }
    change(Arc::make_mut(seen.orphans.last_mut().unwrap()));
    seen
}

#[test]
fn machines_of_nobody_are_adopted_and_none_is_made_beside_them() {
    let seen = orphaned(|machine| machine.metadata.deletion_timestamp = Some(now()));
    let plan = plan(&seen, &now());
    let told = brief(&plan.local);
    let names: Vec<_> = seen.orphans.iter().map(|machine| rollout::name_of(machine)).collect();
    for name in &names {
        assert!(told.contains(&format!("event SuccessfulAdopt: Adopted Machine {name}")), "{told}");
    }
    let changes: Vec<_> = plan
        .local
        .steps
        .iter()
        .filter_map(|step| match step {
            Step::Update(change) if names.contains(&change.key.name.as_str()) => change.main.clone(),
            _ => None,
        })
        .collect();
    let owners = |change: &serde_json::Value| change["metadata"]["ownerReferences"].clone();
    assert_eq!(changes.len(), 2, "{told}");
    assert!(changes.iter().all(|change| owners(change)[0]["uid"] == "u-cp" && owners(change)[0]["controller"] == true));
    assert!(!told.contains("create") && plan.keys.is_empty() && !plan.kubeconfig, "{told}");
}

#[test]
fn of_machines_that_cannot_be_adopted_it_is_said_why_and_nothing_is_done() {
    let refused = |why: &str, change: fn(&mut Machine)| {
        let told = text(&orphaned(change));
        assert!(told.contains("event AdoptionFailed: Could not adopt Machine ") && told.contains(why), "{told}");
        assert!(!told.contains("create") && !told.contains("Adopted"), "{told}");
    };
    let skew = "its version v1.32.0 is more than one minor version away from v1.34.2 of the KubeadmControlPlane";
    refused(skew, |machine| machine.spec.version = Some("v1.32.0".into()));
    refused("its spec.bootstrap.configRef names no KubeadmConfig", |machine| {
        machine.spec.bootstrap.config_ref.as_mut().unwrap().kind = "TalosConfig".into();
    });
    refused("does not exist", |machine| machine.metadata.name = Some("other".into()));
    for version in [None, Some("v1.33.9"), Some("v1.35.0-rc.1")] {
        let told = text(&orphaned(|machine| machine.spec.version = version.map(str::to_owned)));
        assert!(!told.contains("AdoptionFailed"), "{version:?}: {told}");
    }
}

#[test]
fn a_control_plane_of_which_another_object_controls_a_machine_is_left_alone() {
    let mut seen = seen(3);
    seen.foreign = vec!["m9".into()];
    let told = text(&seen);
    assert!(told.contains("Machine m9 of the control plane is controlled by another object"), "{told}");
    assert!(!told.contains("create"), "{told}");
}

#[test]
fn secrets_of_cluster_api_s_type_become_the_control_plane_s_own_and_others_stay_their_maker_s() {
    let mut seen = running(1);
    let old = owner::reference(seen.cluster.as_deref().unwrap(), true);
    let made = |name: &str, type_: &str| {
        let mut secret = placed(Secret { type_: Some(type_.into()), ..Secret::default() }, name);
        secret.metadata.name = Some(name.into());
        secret.metadata.owner_references = Some(vec![old.clone()]);
        Arc::new(secret)
    };
    seen.certificates[0].1 = made("demo-ca", names::SECRET_TYPE);
    seen.certificates[1].1 = made("demo-etcd", "Opaque");
    let told = brief(&plan(&seen, &now()).local);
    let lines: Vec<_> = told.lines().filter(|line| line.starts_with("update Secret")).collect();
    assert!(matches!(lines[..], [line] if line.contains("demo-ca") && line.contains("u-cp")), "{told}");
    assert!(!lines[0].contains("u-demo"), "{told}");
}
