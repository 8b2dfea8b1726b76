//! What must not be deleted yet.

use api::{kubeadm::KubeadmConfigTemplate, machine::MachineDeployment};
use fleet::deletion_rules::FINALIZER;
use k8s_openapi::api::core::v1::Event;
use kube::ResourceExt;
use testkit::{Shape, World};

const RULES: &str = r#"
- query: '{{ eq .dependent.spec.template.spec.bootstrap.configRef.name .managed.metadata.name }}'
  managed: {group: bootstrap.cluster.x-k8s.io, version: v1beta2, kind: KubeadmConfigTemplate, resource: kubeadmconfigtemplates}
  dependent: {group: cluster.x-k8s.io, version: v1beta2, kind: MachineSet, resource: machinesets}
"#;

#[tokio::test(start_paused = true)]
async fn a_bootstrap_template_stays_until_no_machine_set_names_it() {
    let mut world = World::start(11).await;
    world.hold_back(RULES).await;
    world.create("demo", Shape { control_plane: 1, workers: 1, version: "v1.34.2".into() }).await;
    world.available("demo").await;
    let templates = world.api::<KubeadmConfigTemplate>();
    let name = templates.list(&Default::default()).await.unwrap().items[0].name_any();
    let finalizers = async || {
        let found = templates.get_opt(&name).await.unwrap();
        found.map(|found| found.finalizers().to_vec())
    };
    world.until("it is managed", async || finalizers().await.unwrap().iter().any(|one| one == FINALIZER)).await;

    templates.delete(&name, &Default::default()).await.unwrap();
    let told = async || {
        let events = world.api::<Event>().list(&Default::default()).await.unwrap();
        events.into_iter().filter(|event| event.reason.as_deref() == Some("DeletionBlocked")).collect::<Vec<_>>()
    };
    world.until("it is said why it stays", async || !told().await.is_empty()).await;
    let message = told().await[0].message.clone().unwrap();
    assert!(message.contains("MachineSet") && message.contains("still depend on it"), "{message}");
    tokio::time::sleep(std::time::Duration::from_secs(600)).await;
    assert!(finalizers().await.is_some(), "it stays for as long as the set does");
    assert_eq!(told().await[0].count.unwrap_or(1), 1, "what is known is not said again");

    let deployments = world.api::<MachineDeployment>();
    let deployment = deployments.list(&Default::default()).await.unwrap().items[0].name_any();
    deployments.delete(&deployment, &Default::default()).await.unwrap();
    world.until("it goes with the last set", async || finalizers().await.is_none()).await;

    world.hold_back("[]").await;
    world.delete("demo").await;
    world.shutdown().await;
}
