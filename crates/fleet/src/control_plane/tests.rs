//! What a control plane does next, as text.

mod adoption;
mod members;
mod replacement;

use api::{
    cluster::{ClusterInitialization, ClusterSpec, ClusterStatus, Endpoint, FailureDomain},
    cluster_configuration::ClusterConfiguration,
    condition::{self, Statement},
    control_plane::{
        KubeadmControlPlaneInitialization, KubeadmControlPlaneRollingUpdate, KubeadmControlPlaneRollout,
        KubeadmControlPlaneSpec, KubeadmControlPlaneStatus, KubeadmControlPlaneStrategy,
    },
    kubeadm::KubeadmConfigSpec,
    machine::NodeRef,
    meta::{ContractRef, Gate, GatePolarity, TemplateMeta},
};
use control::Step;
use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::json;

use super::*;
use crate::machine_set::tests::{brief, external, now, placed};

fn seen(replicas: i32) -> Seen {
    let infrastructure_ref =
        ContractRef { api_group: "x.example".into(), kind: "InfraTemplate".into(), name: "t".into() };
    let mut spec = KubeadmControlPlaneSpec {
        replicas: Some(replicas),
        version: "v1.34.2".into(),
        kubeadm_config_spec: Some(KubeadmConfigSpec {
            cluster_configuration: Some(ClusterConfiguration::default()),
            ..Default::default()
        }),
        ..Default::default()
    };
    spec.machine_template.spec.infrastructure_ref = infrastructure_ref;
    let mut control_plane = placed(KubeadmControlPlane::new("cp", spec), "u-cp");
    control_plane.metadata.finalizers = Some(vec![names::CONTROL_PLANE_FINALIZER.into()]);
    let mut cluster = placed(Cluster::new("demo", ClusterSpec::default()), "u-demo");
    cluster.spec.control_plane_endpoint = Some(Endpoint { host: Some("127.0.0.9".into()), port: Some(6443) });
    cluster.status = Some(ClusterStatus {
        initialization: Some(ClusterInitialization {
            infrastructure_provisioned: Some(true),
            control_plane_initialized: None,
        }),
        failure_domains: ["az1", "az2", "az3"]
            .map(|name| FailureDomain { name: name.into(), control_plane: Some(true), attributes: BTreeMap::new() })
            .to_vec(),
        ..Default::default()
    });
    let mut template = external("InfraTemplate", "t", json!({}));
    owner::ensure(&mut template.meta, owner::reference(&cluster, false));
    owner::ensure(&mut control_plane.metadata, owner::reference(&cluster, true));
    let secret = |purpose: Purpose| (purpose, Arc::new(Secret::default()));
    Seen {
        cluster: Some(Arc::new(cluster)),
        machines: Vec::new(),
        observed: Vec::new(),
        orphans: Vec::new(),
        foreign: Vec::new(),
        others: 0,
        configs: BTreeMap::new(),
        infrastructures: BTreeMap::new(),
        template: Some(template),
        certificates: certificates::PURPOSES.into_iter().map(secret).collect(),
        // Made by somebody else, so that its age is nobody's business here.
        kubeconfig: Some(Arc::new(Secret::default())),
        nodes: BTreeMap::new(),
        pods: Ok(BTreeMap::new()),
        etcd: None,
        fresh: true,
        initialized: false,
        connected: false,
        suffixes: Suffixes::seeded(0),
        in_place: Default::default(),
        control_plane: Arc::new(control_plane),
    }
}

fn spec(seen: &mut Seen) -> &mut KubeadmControlPlaneSpec {
    &mut Arc::get_mut(&mut seen.control_plane).unwrap().spec
}

fn configuration(seen: &mut Seen) -> &mut KubeadmConfigSpec {
    spec(seen).kubeadm_config_spec.as_mut().unwrap()
}

fn surge(seen: &mut Seen, surge: i32) {
    let update = KubeadmControlPlaneRollingUpdate { max_surge: Some(IntOrString::Int(surge)) };
    let strategy = KubeadmControlPlaneStrategy { rolling_update: Some(update), ..Default::default() };
    spec(seen).rollout = Some(KubeadmControlPlaneRollout { strategy: Some(strategy), ..Default::default() });
}

/// Machine names have random ends: here they are the order in which they were made.
fn text(seen: &Seen) -> String {
    let plan = plan(seen, &now());
    let told = brief(&plan.local);
    let mut lines: Vec<&str> = told.lines().filter(|line| !line.starts_with("update")).collect();
    let keys = plan.keys.iter().map(|purpose| format!("key {}", purpose.secret_name("demo")));
    let mut keys: Vec<String> = keys.chain(plan.kubeconfig.then(|| "kubeconfig".to_owned())).collect();
    if let Some(change) = &plan.etcd {
        let remove = change.remove.map(|id| format!("etcd: remove {id}"));
        keys.extend(change.leadership.as_ref().map(|(from, to)| format!("etcd: {from} hands over to {to}")));
        keys.extend(remove);
    }
    lines.splice(0..0, keys.iter().map(String::as_str));
    lines.join("\n")
}

/// Carries the plan out; what was made is well at once.
fn step(seen: &mut Seen, turn: i64) -> String {
    seen.suffixes = Suffixes::seeded(u64::try_from(turn).unwrap());
    let plan = plan(seen, &now());
    let mut said = Vec::new();
    for step in &plan.local.steps {
        match step {
            Step::Create { resource, key, body } if resource.kind == "Machine" => {
                let machine: Machine = serde_json::from_value(body.clone()).unwrap();
                let mut machine = placed(machine, &format!("u-{}", key.name));
                machine.metadata.creation_timestamp = Some(Time(now().0 + SignedDuration::from_secs(turn)));
                said.push(format!(
                    "+{turn} {} {}",
                    machine.spec.version.as_deref().unwrap(),
                    machine.spec.failure_domain.as_deref().unwrap_or("-")
                ));
                seen.machines.push(Arc::new(machine));
            }
            Step::Create { resource, key, body } if resource.kind == "KubeadmConfig" => {
                let config: KubeadmConfig = serde_json::from_value(body.clone()).unwrap();
                seen.configs.insert(key.name.clone(), Arc::new(config));
            }
            Step::Create { resource, key, body } => {
                let mut infrastructure = external(&resource.kind, &key.name, body.clone());
                infrastructure.meta = serde_json::from_value(body["metadata"].clone()).unwrap();
                seen.infrastructures.insert(key.name.clone(), infrastructure);
            }
            Step::Delete { key, .. } => {
                let turn_of = |machine: &Machine| {
                    let made = machine.metadata.creation_timestamp.as_ref().unwrap();
                    made.0.duration_since(now().0).as_secs()
                };
                let gone = seen.machines.iter().find(|machine| rollout::name_of(machine) == key.name).unwrap();
                said.push(format!("-{}", turn_of(gone)));
                seen.machines.retain(|machine| rollout::name_of(machine) != key.name);
                seen.configs.remove(&key.name);
                seen.infrastructures.remove(&key.name);
            }
            _ => {}
        }
    }
    well(seen);
    said.join(" ")
}

/// All machines have nodes and run all components; the first one has initialized the control plane.
fn well(seen: &mut Seen) {
    for machine in &mut seen.machines {
        let machine = Arc::make_mut(machine);
        let node_ref = Some(NodeRef { name: rollout::name_of(machine).into() });
        let status = machine.status.get_or_insert_default();
        status.node_ref = node_ref;
        for component in ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd"] {
            let name = format!("{component}-{}", machine.metadata.name.as_deref().unwrap());
            let status = json!({"conditions": [{"type": "Ready", "status": "True"}]});
            let pod = serde_json::from_value(json!({"metadata": {"name": name}, "status": status})).unwrap();
            seen.pods.as_mut().unwrap().insert(name, pod);
        }
        machine.spec.provider_id = Some("x".into());
        for type_ in [
            "APIServerPodHealthy",
            "ControllerManagerPodHealthy",
            "SchedulerPodHealthy",
            "EtcdPodHealthy",
            "EtcdMemberHealthy",
        ] {
            condition::set(&mut status.conditions, Statement::yes(type_, "Running"), None, &now());
        }
    }
    let names: Vec<_> = seen.machines.iter().map(|machine| rollout::name_of(machine)).collect();
    seen.etcd = (!names.is_empty()).then(|| Ok(Arc::new(etcd::look::tests::well(&names))));
    let control_plane = Arc::make_mut(&mut seen.control_plane);
    let initialization = KubeadmControlPlaneInitialization { control_plane_initialized: Some(true) };
    control_plane.status =
        Some(KubeadmControlPlaneStatus { initialization: Some(initialization), ..Default::default() });
}

/// Steps from `turn` on until nothing is planned any more.
fn settle(seen: &mut Seen, turn: i64) -> String {
    let steps = (turn..turn + 20).map(|turn| step(seen, turn)).take_while(|said| !said.is_empty());
    steps.collect::<Vec<_>>().join("; ")
}

/// A control plane of so many machines that are well.
fn running(replicas: i32) -> Seen {
    let mut seen = seen(replicas);
    settle(&mut seen, 1);
    assert_eq!(seen.machines.len(), usize::try_from(replicas).unwrap());
    seen
}

#[test]
fn keys_come_first_then_the_endpoint_then_the_first_machine() {
    let mut seen = seen(3);
    let cluster = seen.cluster.clone().unwrap();
    let mut waiting = cluster.as_ref().clone();
    waiting.status = None;
    seen.cluster = Some(Arc::new(waiting));
    assert_eq!(text(&seen), "waits 60 s: Waiting for Cluster infrastructure to be ready");
    let mut waiting = cluster.as_ref().clone();
    waiting.spec.control_plane_endpoint = None;
    seen.cluster = Some(Arc::new(waiting));
    assert_eq!(text(&seen), "waits 60 s: Waiting for Cluster to have a valid spec.controlPlaneEndpoint");
    let all = std::mem::take(&mut seen.certificates);
    assert_eq!(
        text(&seen),
        "\
key demo-ca\n\
key demo-etcd\n\
key demo-proxy\n\
key demo-sa\n\
settled"
    );
    seen.certificates = all;
    seen.cluster = Some(cluster);
    seen.kubeconfig = None;
    assert_eq!(
        text(&seen),
        "\
kubeconfig\n\
create KubeadmConfig cp-kmcgb\n\
create Infra cp-kmcgb\n\
create Machine cp-kmcgb\n\
event SuccessfulCreate: Created Machine cp-kmcgb\n\
settled"
    );
}

#[test]
fn a_key_pair_whose_secret_is_gone_is_made_again_before_anything_else() {
    let mut seen = seen(3);
    seen.certificates.retain(|(purpose, _)| *purpose != Purpose::Etcd);
    assert_eq!(
        text(&seen),
        "\
key demo-etcd\n\
settled"
    );
}

#[test]
fn machines_come_one_at_a_time_and_are_spread_over_the_failure_domains() {
    let mut seen = seen(4);
    assert_eq!(settle(&mut seen, 1), "+1 v1.34.2 az1; +2 v1.34.2 az2; +3 v1.34.2 az3; +4 v1.34.2 az1");
    assert_eq!(text(&seen), "waits 60 s: the control plane's health");
    let first = seen.configs[rollout::name_of(&seen.machines[0])].spec.clone();
    assert!(first.cluster_configuration.is_some() && first.join_configuration.is_none());
    let second = seen.configs[rollout::name_of(&seen.machines[1])].spec.clone();
    assert!(second.init_configuration.is_none() && second.join_configuration.is_some());
}

#[test]
fn the_second_machine_waits_for_the_first_and_every_other_for_all_to_be_well() {
    let mut seen = seen(3);
    step(&mut seen, 1);
    let initialized = seen.control_plane.clone();
    Arc::make_mut(&mut seen.control_plane).status = None;
    assert_eq!(text(&seen), "waits 60 s: Waiting for the first control plane machine to be initialized");
    seen.control_plane = initialized;
    seen.initialized = true;
    let machine = Arc::make_mut(&mut seen.machines[0]);
    let conditions = &mut machine.status.as_mut().unwrap().conditions;
    condition::set(conditions, Statement::no("EtcdPodHealthy", "Failed", ""), None, &now());
    assert!(text(&seen).starts_with("waits 1 s: "), "{}", text(&seen));
    assert!(!text(&seen).contains("create"));
}

#[test]
fn a_create_that_was_cut_short_is_finished_first() {
    let mut seen = seen(3);
    step(&mut seen, 1);
    let name = rollout::name_of(&seen.machines[0]).to_owned();
    seen.machines.clear();
    seen.infrastructures.clear();
    let told = text(&seen).replace(&name, "cp-1");
    assert_eq!(
        told,
        "\
create Infra cp-1\n\
create Machine cp-1\n\
event SuccessfulCreate: Created Machine cp-1\n\
settled"
    );
}

#[test]
fn a_new_version_rolls_with_one_machine_more() {
    let mut seen = running(3);
    spec(&mut seen).version = "v1.35.0".into();
    assert_eq!(settle(&mut seen, 10), "+10 v1.35.0 az1; -1; +12 v1.35.0 az2; -2; +14 v1.35.0 az3; -3");
    assert!(seen.machines.iter().all(|machine| machine.spec.version.as_deref() == Some("v1.35.0")));
}

#[test]
fn a_new_version_rolls_without_a_surge() {
    let mut seen = running(3);
    surge(&mut seen, 0);
    spec(&mut seen).version = "v1.35.0".into();
    assert_eq!(settle(&mut seen, 10), "-1; +11 v1.35.0 az1; -2; +13 v1.35.0 az2; -3; +15 v1.35.0 az3");
}

#[test]
fn scaling_down_takes_from_the_fullest_domain_what_is_oldest_or_named() {
    let mut seen = running(5);
    spec(&mut seen).replicas = Some(3);
    assert_eq!(settle(&mut seen, 10), "-1; -2");
    let last = Arc::make_mut(seen.machines.last_mut().unwrap());
    owner::annotate(&mut last.metadata, names::DELETE_MACHINE_ANNOTATION, "");
    spec(&mut seen).replicas = Some(1);
    assert_eq!(settle(&mut seen, 20), "-5; -3");
}

#[test]
fn an_outdated_machine_that_is_not_well_goes_first_and_does_not_hold_the_rollout() {
    let mut seen = running(3);
    surge(&mut seen, 0);
    spec(&mut seen).version = "v1.35.0".into();
    let sick = |seen: &mut Seen, index: usize| {
        let machine = Arc::make_mut(&mut seen.machines[index]);
        let conditions = &mut machine.status.as_mut().unwrap().conditions;
        condition::set(conditions, Statement::no("EtcdPodHealthy", "Failed", ""), None, &now());
    };
    sick(&mut seen, 1);
    let name = rollout::name_of(&seen.machines[1]).to_owned();
    assert!(text(&seen).starts_with(&format!("delete Machine {name}\n")), "{}", text(&seen));
    sick(&mut seen, 2);
    assert!(!text(&seen).contains("delete"), "two that are not well: none goes");
}

#[test]
fn what_the_machines_are_made_of_rolls_and_metadata_does_not() {
    let mut seen = running(1);
    let why = |seen: &Seen| rollout::outdated(seen, &seen.machines[0], &now()).unwrap_or_default();
    assert_eq!(why(&seen), "");
    let meta = TemplateMeta { labels: [("a".to_owned(), "b".to_owned())].into(), ..Default::default() };
    spec(&mut seen).machine_template.metadata = Some(meta);
    assert_eq!(why(&seen), "", "metadata is carried to the machines as they are");
    assert!(plan(&seen, &now()).local.to_string().contains(r#""labels":{"a":"b"}"#));
    let before = configuration(&mut seen).clone();
    configuration(&mut seen).cluster_configuration.as_mut().unwrap().image_repository = Some("r.example".into());
    assert_eq!(why(&seen), "KubeadmConfig is not up-to-date: clusterConfiguration differs");
    *configuration(&mut seen) = before.clone();
    configuration(&mut seen).pre_kubeadm_commands = vec!["true".into()];
    assert_eq!(why(&seen), "KubeadmConfig is not up-to-date");
    *configuration(&mut seen) = before;
    spec(&mut seen).machine_template.spec.infrastructure_ref.name = "t2".into();
    assert_eq!(why(&seen), "Infra is not up-to-date");
    spec(&mut seen).machine_template.spec.infrastructure_ref.name = "t".into();
    let after = |seconds| KubeadmControlPlaneRollout {
        after: Some(Time(now().0 + SignedDuration::from_secs(seconds))),
        ..Default::default()
    };
    spec(&mut seen).rollout = Some(after(100));
    assert_eq!(why(&seen), "", "its time has not come");
    let later = Time(now().0 + SignedDuration::from_secs(200));
    assert!(rollout::outdated(&seen, &seen.machines[0], &later).is_some());
}

#[test]
fn machines_are_ready_when_what_runs_on_them_is_and_those_that_are_there_are_told_without_a_rollout() {
    let mut seen = running(1);
    let gates = |machine: &Machine| -> Vec<String> {
        machine.spec.readiness_gates.iter().map(|gate| gate.condition_type.clone()).collect()
    };
    let told = [
        "NodeKubeadmLabelsAndTaintsSet",
        "APIServerPodHealthy",
        "ControllerManagerPodHealthy",
        "SchedulerPodHealthy",
        "EtcdPodHealthy",
        "EtcdMemberHealthy",
    ];
    assert_eq!(gates(&seen.machines[0]), told);
    let gate = |type_: &str| Gate { condition_type: type_.into(), polarity: Some(GatePolarity::Negative) };
    spec(&mut seen).machine_template.spec.readiness_gates = vec![gate("Broken"), gate("EtcdPodHealthy")];
    assert_eq!(rollout::outdated(&seen, &seen.machines[0], &now()), None);
    let after = &machines::updated(&seen, None, &now())[0];
    assert_eq!(gates(after), [&told[..], &["Broken"]].concat(), "what the control plane says is no gate of the user's");
    let external =
        json!({"etcd": {"external": {"endpoints": ["https://e"], "caFile": "a", "certFile": "b", "keyFile": "c"}}});
    configuration(&mut seen).cluster_configuration = serde_json::from_value(external).unwrap();
    let after = &machines::updated(&seen, None, &now())[0];
    assert_eq!(gates(after), [&told[..4], &["Broken", "EtcdPodHealthy"]].concat());
}

#[test]
fn what_a_deletion_takes_is_carried_to_a_machine_that_goes_and_its_gates_and_labels_are_not() {
    let mut seen = running(2);
    Arc::make_mut(&mut seen.machines[0]).metadata.deletion_timestamp = Some(now());
    let template = &mut spec(&mut seen).machine_template;
    template.metadata = Some(TemplateMeta { labels: [("a".to_owned(), "b".to_owned())].into(), ..Default::default() });
    template.spec.deletion.get_or_insert_default().node_drain_timeout_seconds = Some(1);
    template.spec.readiness_gates = vec![Gate { condition_type: "Mine".into(), polarity: None }];
    let before = seen.machines[0].clone();
    let [goes, stays] = &machines::updated(&seen, None, &now())[..] else { panic!("two machines") };
    for machine in [goes, stays] {
        assert_eq!(machine.spec.deletion.as_ref().unwrap().node_drain_timeout_seconds, Some(1));
    }
    assert_eq!((&goes.metadata, &goes.spec.readiness_gates), (&before.metadata, &before.spec.readiness_gates));
    assert_eq!(owner::label_of(&stays.metadata, "a"), Some("b"));
    seen.machines[1] = Arc::new(stays.clone());
    spec(&mut seen).machine_template.metadata = None;
    assert_eq!(owner::label_of(&machines::updated(&seen, None, &now())[1].metadata, "a"), None);
}

#[test]
fn a_machine_is_made_without_the_words_that_the_control_plane_does_not_say() {
    let mut seen = seen(1);
    spec(&mut seen).kubeadm_config_spec = None;
    let made = |seen: &Seen| {
        let steps = plan(seen, &now()).local.steps.into_iter();
        let mut configs = steps.filter_map(|step| match step {
            Step::Create { resource, body, .. } if resource.kind == "KubeadmConfig" => Some(body),
            _ => None,
        });
        configs.next().unwrap().get("spec").cloned()
    };
    let gates = json!({"featureGates": {"ControlPlaneKubeletLocalMode": true}});
    assert_eq!(made(&seen), Some(json!({ "clusterConfiguration": gates })), "what kubeadm needs in this version");
    spec(&mut seen).version = "v1.36.0".into();
    assert_eq!(made(&seen), None, "a spec of a KubeadmConfig has at least one field");
}

#[test]
fn what_the_bootstrap_controller_fills_in_does_not_roll() {
    let mut seen = running(3);
    let name = rollout::name_of(&seen.machines[1]).to_owned();
    let config = Arc::make_mut(seen.configs.get_mut(&name).unwrap());
    let discovery = config.spec.join_configuration.get_or_insert_default().discovery.get_or_insert_default();
    discovery.bootstrap_token.get_or_insert_default().token = Some("abcdef.0123456789abcdef".into());
    assert_eq!(rollout::outdated(&seen, &seen.machines[1], &now()), None);
}

#[test]
fn a_control_plane_is_deleted_after_the_workers_and_lets_its_machines_infrastructure_go() {
    let mut seen = running(2);
    Arc::make_mut(&mut seen.control_plane).metadata.deletion_timestamp = Some(now());
    seen.others = 3;
    assert_eq!(text(&seen), "waits 2 s: 3 worker machines to go");
    seen.others = 0;
    let told = brief(&plan(&seen, &now()).local);
    assert_eq!(told.matches("delete Machine ").count(), 2);
    let released =
        r#"{"metadata":{"annotations":{"pre-terminate.delete.hook.machine.cluster.x-k8s.io/kcp-cleanup":null}}}"#;
    assert_eq!(told.matches(released).count(), 2, "{told}");
    seen.machines.clear();
    assert_eq!(text(&seen).matches("delete KubeadmConfig").count(), 2, "clones without machines go too");
    seen.configs.clear();
    seen.infrastructures.clear();
    assert_eq!(
        brief(&plan(&seen, &now()).local),
        "\
update KubeadmControlPlane cp {\"metadata\":{\"finalizers\":null}}\n\
settled"
    );
}

#[test]
fn a_paused_control_plane_does_nothing() {
    let mut seen = seen(3);
    let control_plane = Arc::make_mut(&mut seen.control_plane);
    owner::annotate(&mut control_plane.metadata, names::PAUSED_ANNOTATION, "");
    assert_eq!(text(&seen), "settled");
    Arc::make_mut(&mut seen.control_plane).metadata.deletion_timestamp = Some(now());
    assert_eq!(text(&seen), "settled");
}
