//! What a configuration waits for, and the user data that comes out of it.

use api::{
    cluster::{ClusterInitialization, ClusterNetwork, ClusterSpec, ClusterStatus, Endpoint, NetworkRanges},
    cluster_configuration::{Arg, ClusterConfiguration, ControlPlaneComponent},
    kubeadm::KubeadmConfigSpec,
    machine::{Bootstrap, MachineSpec, MachineStatus, NodeRef},
    node_configuration::{InitConfiguration, JoinConfiguration, NodeRegistration},
};
use serde_json::{Value, json};

use super::*;
use crate::machine_set::tests::{brief, now, placed};

const TOKEN: &str = "abcdef.0123456789abcdef";

fn registration() -> Option<NodeRegistration> {
    let args = vec![Arg { name: "provider-id".into(), value: "openstack:///'{{ ds.meta_data.instance_id }}'".into() }];
    Some(NodeRegistration { name: Some("{{ local_hostname }}".into()), kubelet_extra_args: args, ..Default::default() })
}

fn seen(version: &str, control_plane: bool, initialized: bool) -> Seen {
    let mut machine = placed(Machine::new("m", MachineSpec::default()), "u-m");
    machine.spec.cluster_name = "demo".into();
    machine.spec.version = Some(version.into());
    if control_plane {
        owner::label(&mut machine.metadata, names::CONTROL_PLANE_LABEL, "");
    }
    let ranges = |block: &str| Some(NetworkRanges { cidr_blocks: vec![block.into()] });
    let spec = ClusterSpec {
        control_plane_endpoint: Some(Endpoint { host: Some("127.0.0.9".into()), port: Some(6443) }),
        cluster_network: Some(ClusterNetwork {
            pods: ranges("10.1.0.0/16"),
            services: ranges("10.2.0.0/16"),
            service_domain: Some("cluster.local".into()),
            ..Default::default()
        }),
        ..Default::default()
    };
    let mut cluster = placed(Cluster::new("demo", spec), "u-demo");
    cluster.status = Some(ClusterStatus {
        initialization: Some(ClusterInitialization {
            infrastructure_provisioned: Some(true),
            control_plane_initialized: initialized.then_some(true),
        }),
        ..Default::default()
    });
    let spec = if control_plane && !initialized {
        let manager = ControlPlaneComponent {
            extra_args: vec![Arg { name: "cloud-provider".into(), value: "external".into() }],
            ..Default::default()
        };
        KubeadmConfigSpec {
            cluster_configuration: Some(ClusterConfiguration {
                controller_manager: Some(manager),
                ..Default::default()
            }),
            init_configuration: Some(InitConfiguration { node_registration: registration(), ..Default::default() }),
            ..Default::default()
        }
    } else {
        let join = JoinConfiguration { node_registration: registration(), ..Default::default() };
        KubeadmConfigSpec { join_configuration: Some(join), ..Default::default() }
    };
    let mut config = placed(KubeadmConfig::new("m", spec), "u-config");
    owner::ensure(&mut config.metadata, owner::reference(&machine, true));
    owner::label(&mut config.metadata, names::CLUSTER_LABEL, "demo");
    let secret = |purpose: Purpose| {
        let data = [("tls.crt", "public"), ("tls.key", "private")]
            .map(|(key, half)| (key.to_owned(), ByteString(format!("{half} {purpose:?}\n").into_bytes())));
        (purpose, Arc::new(Secret { data: Some(data.into()), ..Default::default() }))
    };
    Seen {
        config: Arc::new(config),
        machine: Some(Arc::new(machine)),
        cluster: Some(Arc::new(cluster)),
        certificates: certificates::PURPOSES.into_iter().map(secret).collect(),
        data: None,
        locked: true,
        control_plane_version: None,
    }
}

/// A machine that joins and has been given its token.
fn joining(version: &str, control_plane: bool) -> Seen {
    let mut seen = seen(version, control_plane, true);
    let ca = certificates::generate(
        Purpose::Ca,
        Some(api::cluster_configuration::EncryptionAlgorithm::ECDSAP256),
        None,
        now().0,
    );
    let data = [("tls.crt".to_owned(), ByteString(ca.unwrap().public.into_bytes()))];
    let held = seen.certificates.iter_mut().find(|(purpose, _)| *purpose == Purpose::Ca).unwrap();
    Arc::make_mut(&mut held.1).data.as_mut().unwrap().extend(data);
    let mut after = seen.config.as_ref().clone();
    discover(&seen, &mut after, TOKEN).unwrap();
    seen.config = Arc::new(after);
    seen
}

/// The document as cloud-init reads it, and kubeadm's documents in it.
fn read(text: &str, path: &str) -> (Value, Vec<Value>) {
    assert!(text.starts_with("## template: jinja\n#cloud-config\n\nwrite_files:\n-   path: "), "{text}");
    let document: Value = serde_saphyr::from_str(text).unwrap();
    let file = document["write_files"].as_array().unwrap().iter().find(|file| file["path"] == path).unwrap();
    let content = file["content"].as_str().unwrap();
    let parts = content.split("---\n").filter(|part| !part.trim().is_empty());
    let parts = parts.map(|part| serde_saphyr::from_str(part).unwrap()).collect();
    (document, parts)
}

fn paths(document: &Value) -> Vec<&str> {
    document["write_files"].as_array().unwrap().iter().map(|file| file["path"].as_str().unwrap()).collect()
}

fn waits(seen: &Seen) -> String {
    brief(&plan(seen, &now()).local)
}

fn user_data(seen: &Seen, sources: &Sources) -> Result<String, String> {
    super::user_data(seen, sources).map(|data| data.text)
}

#[test]
fn the_user_data_of_the_first_machine_begins_as_kubeadm_and_cloud_init_want_it() {
    let text = user_data(&seen("v1.34.2", true, false), &Sources::new()).unwrap();
    assert_eq!(
        text,
        "\
## template: jinja
#cloud-config

write_files:
-   path: /etc/kubernetes/pki/ca.crt
    owner: root:root
    permissions: '0640'
    content: |
      public Ca
-   path: /etc/kubernetes/pki/ca.key
    owner: root:root
    permissions: '0600'
    content: |
      private Ca
-   path: /etc/kubernetes/pki/etcd/ca.crt
    owner: root:root
    permissions: '0640'
    content: |
      public Etcd
-   path: /etc/kubernetes/pki/etcd/ca.key
    owner: root:root
    permissions: '0600'
    content: |
      private Etcd
-   path: /etc/kubernetes/pki/front-proxy-ca.crt
    owner: root:root
    permissions: '0640'
    content: |
      public FrontProxy
-   path: /etc/kubernetes/pki/front-proxy-ca.key
    owner: root:root
    permissions: '0600'
    content: |
      private FrontProxy
-   path: /etc/kubernetes/pki/sa.pub
    owner: root:root
    permissions: '0640'
    content: |
      public ServiceAccount
-   path: /etc/kubernetes/pki/sa.key
    owner: root:root
    permissions: '0600'
    content: |
      private ServiceAccount
-   path: /run/kubeadm/kubeadm.yaml
    owner: root:root
    permissions: '0640'
    content: |
      ---
      apiVersion: kubeadm.k8s.io/v1beta4
      clusterName: demo
      controlPlaneEndpoint: 127.0.0.9:6443
      controllerManager:
        extraArgs:
        - name: cloud-provider
          value: external
      kind: ClusterConfiguration
      kubernetesVersion: v1.34.2
      networking:
        dnsDomain: cluster.local
        podSubnet: 10.1.0.0/16
        serviceSubnet: 10.2.0.0/16
      ---
      apiVersion: kubeadm.k8s.io/v1beta4
      kind: InitConfiguration
      nodeRegistration:
        kubeletExtraArgs:
        - name: provider-id
          value: openstack:///'{{ ds.meta_data.instance_id }}'
        name: \"{{ local_hostname }}\"
-   path: /run/cluster-api/placeholder
    owner: root:root
    permissions: '0640'
    content: |
      This placeholder file is used to create the /run/cluster-api sub directory
runcmd:
  - 'kubeadm init --config /run/kubeadm/kubeadm.yaml && echo success > /run/cluster-api/bootstrap-success.complete'
"
    );
}

#[test]
fn init_has_both_documents_in_the_version_that_the_release_reads() {
    let path = "/run/kubeadm/kubeadm.yaml";
    for (version, kubeadm) in [("v1.34.2", "kubeadm.k8s.io/v1beta4"), ("v1.30.1", "kubeadm.k8s.io/v1beta3")] {
        let text = user_data(&seen(version, true, false), &Sources::new()).unwrap();
        let (document, parts) = read(&text, path);
        assert_eq!(document["runcmd"], json!([format!("kubeadm init --config {path} && {SUCCESS}")]));
        let args = |name: &str, value: &str| match kubeadm {
            "kubeadm.k8s.io/v1beta4" => json!([{"name": name, "value": value}]),
            _ => json!({ name: value }),
        };
        let cluster = json!({
            "apiVersion": kubeadm, "kind": "ClusterConfiguration", "clusterName": "demo",
            "controlPlaneEndpoint": "127.0.0.9:6443", "kubernetesVersion": version,
            "controllerManager": {"extraArgs": args("cloud-provider", "external")},
            "networking": {"dnsDomain": "cluster.local", "podSubnet": "10.1.0.0/16", "serviceSubnet": "10.2.0.0/16"},
        });
        let init = json!({
            "apiVersion": kubeadm, "kind": "InitConfiguration",
            "nodeRegistration": {
                "name": "{{ local_hostname }}",
                "kubeletExtraArgs": args("provider-id", "openstack:///'{{ ds.meta_data.instance_id }}'"),
            },
        });
        assert_eq!(parts, [cluster, init]);
    }
}

#[test]
fn a_control_plane_machine_that_joins_gets_keys_and_token_and_a_worker_the_token_alone() {
    let path = "/run/kubeadm/kubeadm-join-config.yaml";
    for (version, kubeadm) in [("v1.34.2", "kubeadm.k8s.io/v1beta4"), ("v1.30.1", "kubeadm.k8s.io/v1beta3")] {
        for control_plane in [true, false] {
            let text = user_data(&joining(version, control_plane), &Sources::new()).unwrap();
            let (document, parts) = read(&text, path);
            assert_eq!(document["runcmd"], json!([format!("kubeadm join --config {path} && {SUCCESS}")]));
            let [join] = parts.as_slice() else { panic!("one document: {parts:?}") };
            assert_eq!((&join["apiVersion"], &join["kind"]), (&json!(kubeadm), &json!("JoinConfiguration")));
            let token = &join["discovery"]["bootstrapToken"];
            assert_eq!((&token["token"], &token["apiServerEndpoint"]), (&json!(TOKEN), &json!("127.0.0.9:6443")));
            assert!(token["caCertHashes"][0].as_str().unwrap().starts_with("sha256:"));
            assert_eq!(join.get("controlPlane").is_some(), control_plane);
            let taints = &join["nodeRegistration"]["taints"];
            let pki = paths(&document).iter().filter(|path| path.starts_with("/etc/kubernetes/pki/")).count();
            if control_plane {
                assert_eq!((taints, pki), (&Value::Null, 8));
            } else {
                assert_eq!(taints, &json!([{"key": names::UNINITIALIZED_TAINT, "effect": "NoSchedule"}]));
                assert_eq!((pki, text.contains("private")), (0, false));
            }
        }
    }
}

#[test]
fn one_thing_after_the_other_is_waited_for() {
    let mut lone = seen("v1.34.2", true, false);
    lone.machine = None;
    assert_eq!(waits(&lone), "waits 15 s: Waiting for a Machine or a MachinePool to own this configuration");
    let mut early = seen("v1.34.2", true, false);
    Arc::make_mut(early.cluster.as_mut().unwrap()).status = None;
    assert_eq!(waits(&early), "waits 15 s: Waiting for Cluster status.infrastructureReady to be true");
    assert_eq!(
        waits(&seen("v1.34.2", false, false)),
        "waits 15 s: Waiting for Cluster control plane to be initialized"
    );
    let mut keyless = seen("v1.34.2", true, false);
    keyless.certificates.retain(|(purpose, _)| matches!(purpose, Purpose::Ca | Purpose::Etcd));
    assert_eq!(waits(&keyless), "waits 15 s: Waiting for the certificates demo-proxy, demo-sa to exist");
    let action = |seen: &Seen| plan(seen, &now()).action;
    assert!(matches!(action(&seen("v1.34.2", true, false)), Action::Init));
    assert!(matches!(action(&seen("v1.34.2", true, true)), Action::IssueToken));
    assert!(matches!(action(&joining("v1.34.2", false)), Action::Join));
}

#[test]
fn a_token_is_kept_alive_until_the_machine_has_joined() {
    let mut seen = joining("v1.34.2", false);
    let config = Arc::make_mut(&mut seen.config);
    config.status.get_or_insert_default().initialization =
        Some(KubeadmConfigInitialization { data_secret_created: Some(true) });
    assert!(matches!(plan(&seen, &now()).action, Action::RefreshToken));
    forget_token(Arc::make_mut(&mut seen.config));
    assert!(matches!(plan(&seen, &now()).action, Action::IssueToken), "one that has expired is replaced");
    let mut joined = joining("v1.34.2", false);
    Arc::make_mut(&mut joined.config).status = Some(api::kubeadm::KubeadmConfigStatus {
        initialization: Some(KubeadmConfigInitialization { data_secret_created: Some(true) }),
        ..Default::default()
    });
    let machine = Arc::make_mut(joined.machine.as_mut().unwrap());
    machine.status = Some(MachineStatus { node_ref: Some(NodeRef { name: "m".into() }), ..Default::default() });
    assert!(matches!(plan(&joined, &now()).action, Action::None));
}

#[test]
fn a_configuration_that_was_moved_here_with_its_data_is_not_rendered_again() {
    let mut seen = seen("v1.34.2", true, false);
    Arc::make_mut(seen.machine.as_mut().unwrap()).spec.bootstrap =
        Bootstrap { config_ref: None, data_secret_name: Some("m".into()) };
    let plan = plan(&seen, &now());
    assert!(matches!(plan.action, Action::None));
    let text = plan.local.to_string();
    assert!(text.contains(r#""dataSecretCreated":true"#));
    for type_ in ["Ready", "DataSecretAvailable", "CertificatesAvailable"] {
        assert!(text.contains(&format!(r#""status":"True","type":"{type_}""#)), "{type_}: {text}");
    }
}

#[test]
fn ignition_has_the_same_parts_in_its_own_places() {
    let of = |mut seen: Seen| {
        Arc::make_mut(&mut seen.config).spec.format = Some(BootstrapFormat::Ignition);
        let data = super::user_data(&seen, &Sources::new()).unwrap();
        assert_eq!(data.format, "ignition");
        serde_json::from_str::<Value>(&data.text).unwrap()
    };
    let source = |document: &Value, path: &str| {
        let files = document["storage"]["files"].as_array().unwrap();
        let found = files.iter().find(|file| file["path"] == path)?;
        found["contents"]["source"].as_str().map(str::to_owned)
    };
    let first = of(seen("v1.34.2", true, false));
    for path in ["/etc/kubernetes/pki/ca.key", "/etc/kubernetes/pki/sa.pub"] {
        assert!(source(&first, path).is_some(), "{path}");
    }
    assert!(source(&first, "/etc/kubeadm.yml").unwrap().contains("kind%3A%20InitConfiguration"));
    assert!(source(&first, "/etc/kubeadm.sh").unwrap().contains("kubeadm%20init%20--config%20/etc/kubeadm.yml%0A"));
    let worker = of(joining("v1.34.2", false));
    assert!(source(&worker, "/etc/kubernetes/pki/ca.key").is_none());
    assert!(source(&worker, "/etc/kubeadm.sh").unwrap().contains("kubeadm%20join%20"));
    assert!(source(&worker, "/etc/kubeadm.yml").unwrap().contains("node.cluster.x-k8s.io/uninitialized"));
}

#[test]
fn what_cannot_be_rendered_says_why() {
    assert!(user_data(&seen("1.34", true, false), &Sources::new()).unwrap_err().contains("1.34"));
    let mut keyless = seen("v1.34.2", true, false);
    keyless.certificates.clear();
    assert_eq!(user_data(&keyless, &Sources::new()).unwrap_err(), "the Ca key pair does not exist");
}

/// A value for each field of the schema: texts and numbers that are found again.
fn filled(path: &str, schema: &Value, marks: &mut Vec<(String, String)>) -> Value {
    let number = 1000 + marks.len();
    if let Some(choices) = schema["enum"].as_array() {
        return choices[0].clone();
    }
    if schema["x-kubernetes-int-or-string"] == true {
        return json!(number);
    }
    match schema["type"].as_str() {
        Some("object") => match (&schema["properties"], &schema["additionalProperties"]) {
            (Value::Object(fields), _) => {
                let filled =
                    fields.iter().map(|(name, field)| (name.clone(), filled(&format!("{path}.{name}"), field, marks)));
                Value::Object(filled.collect())
            }
            (_, value) => json!({ "key": filled(path, value, marks) }),
        },
        Some("array") => json!([filled(path, &schema["items"], marks)]),
        Some("boolean") => json!(true),
        Some("integer" | "number") => {
            let days = path.ends_with("Days");
            marks.push((path.to_owned(), if days { format!("{}h0m0s", number * 24) } else { number.to_string() }));
            json!(number)
        }
        _ if schema["format"] == "date-time" => {
            let text = format!("{number}-01-01T00:00:00Z");
            marks.push((path.to_owned(), text.clone()));
            json!(text)
        }
        _ => {
            marks.push((path.to_owned(), format!("mark{number}")));
            json!(format!("mark{number}"))
        }
    }
}

#[test]
fn a_file_that_is_a_template_knows_the_version_of_the_control_plane() {
    let text = |template: &str, version: Option<&str>| {
        let mut seen = seen("v1.34.2", true, false);
        seen.control_plane_version = version.map(str::to_owned);
        let config = Arc::get_mut(&mut seen.config).unwrap();
        config.spec.files = vec![
            serde_json::from_value(json!({"path": "/v", "content": template, "contentFormat": "Template"})).unwrap(),
        ];
        super::user_data(&seen, &Sources::default()).map(|data| data.text)
    };
    let asks = "is {{ if .controlPlane }}{{ .controlPlane.version }}{{ else }}unknown{{ end }}";
    assert!(text(asks, Some("v1.34.2")).unwrap().contains("is v1.34.2\n"));
    assert!(text(asks, None).unwrap().contains("is unknown\n"));
    let error = text("{{ .controlPlane.version }}", None).unwrap_err();
    assert!(error.starts_with("file /v: its template fails: "), "{error}");
}

#[test]
fn an_empty_list_of_taints_reaches_kubeadm() {
    let mut seen = seen("v1.34.2", true, false);
    let config = Arc::get_mut(&mut seen.config).unwrap();
    config.spec.init_configuration.as_mut().unwrap().node_registration.as_mut().unwrap().taints = Some(Vec::new());
    let text = super::user_data(&seen, &Sources::default()).unwrap().text;
    assert!(text.contains("taints: []"), "{text}");
}

#[test]
fn each_field_of_a_configuration_reaches_the_user_data() {
    let crd = serde_json::to_value(<KubeadmConfig as kube::CustomResourceExt>::crd()).unwrap();
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let mut marks = Vec::new();
    let mut value = filled("spec", schema, &mut marks);
    value["format"] = json!("cloud-config");
    value["files"][0]["contentFormat"] = json!("Raw");
    // A file's own content wins over a secret's, and a password over a secret's: the API refuses both at once.
    for part in ["files", "users"] {
        value[part][0].as_object_mut().unwrap().retain(|name, _| !name.ends_with("From"));
    }
    let spec: KubeadmConfigSpec = serde_json::from_value(value).unwrap();
    let text = |joins: bool| {
        let mut seen = seen("v1.34.2", true, joins);
        let mut spec = spec.clone();
        if !joins {
            spec.join_configuration = None;
        }
        Arc::make_mut(&mut seen.config).spec = spec;
        let (_, etcd) = seen.certificates[1].clone();
        seen.certificates.push((Purpose::EtcdClient, etcd));
        user_data(&seen, &Sources::new()).unwrap()
    };
    let text = text(false) + &text(true);
    let missing: Vec<_> = marks
        .iter()
        .filter(|(path, mark)| !text.contains(mark.as_str()) && !path.contains("From.") && !path.contains(".ignition."))
        .map(|(path, _)| path.as_str())
        .collect();
    assert_eq!(missing, Vec::<&str>::new());
}

#[test]
fn pairs_lie_where_the_configuration_wants_them_and_an_etcd_outside_brings_its_own() {
    let mut seen = seen("v1.34.2", true, false);
    let mut configuration = ClusterConfiguration { certificates_dir: Some("/srv/pki/".into()), ..Default::default() };
    let with = |seen: &mut Seen, configuration: &ClusterConfiguration| {
        Arc::make_mut(&mut seen.config).spec.cluster_configuration = Some(configuration.clone());
    };
    with(&mut seen, &configuration);
    let (document, _) = read(&user_data(&seen, &Sources::new()).unwrap(), "/run/kubeadm/kubeadm.yaml");
    let placed = paths(&document).iter().filter(|path| path.starts_with("/srv/pki/")).count();
    assert_eq!(placed, 8);
    configuration.etcd = serde_json::from_value(json!({"external": {
        "endpoints": ["https://etcd:2379"], "caFile": "/e/ca.crt", "certFile": "/e/c.crt", "keyFile": "/e/c.key",
    }}))
    .unwrap();
    with(&mut seen, &configuration);
    assert_eq!(waits(&seen), "waits 15 s: Waiting for the certificates demo-apiserver-etcd-client to exist");
    let (_, etcd) = seen.certificates.iter().find(|(purpose, _)| *purpose == Purpose::Etcd).unwrap().clone();
    seen.certificates.push((Purpose::EtcdClient, etcd));
    let (document, _) = read(&user_data(&seen, &Sources::new()).unwrap(), "/run/kubeadm/kubeadm.yaml");
    let paths = paths(&document);
    assert!(
        ["/e/ca.crt", "/e/c.crt", "/e/c.key"].iter().all(|path| paths.iter().any(|found| found == path)),
        "{paths:?}"
    );
    assert!(!paths.iter().any(|path| path.contains("/etcd/ca")), "{paths:?}");
}

#[test]
fn a_kubeconfig_to_discover_with_is_filled_in_and_written() {
    let mut seen = seen("v1.34.2", false, true);
    let join = json!({"discovery": {"file": {"kubeConfigPath": "/etc/d.conf", "kubeConfig": {"user": {"exec": {"command": "get-token"}}}}}});
    Arc::make_mut(&mut seen.config).spec.join_configuration = Some(serde_json::from_value(join).unwrap());
    let text = user_data(&seen, &Sources::new()).unwrap();
    let (_, parts) = read(&text, "/etc/d.conf");
    let [kubeconfig] = parts.as_slice() else { panic!("one document: {parts:?}") };
    assert_eq!(kubeconfig["clusters"][0]["cluster"]["server"], "https://127.0.0.9:6443");
    assert!(kubeconfig["clusters"][0]["cluster"]["certificate-authority-data"].is_string());
    let exec = &kubeconfig["users"][0]["user"]["exec"];
    assert_eq!((&exec["command"], &exec["interactiveMode"]), (&json!("get-token"), &json!("Never")));
    let (_, parts) = read(&text, "/run/kubeadm/kubeadm-join-config.yaml");
    assert_eq!(parts[0]["discovery"]["file"], json!({"kubeConfigPath": "/etc/d.conf"}));
}

#[test]
fn what_an_older_kubeadm_does_not_read_is_named() {
    let mut seen = seen("v1.30.1", true, false);
    let init = json!({"timeouts": {"discoverySeconds": 5, "controlPlaneComponentHealthCheckSeconds": 90}});
    Arc::make_mut(&mut seen.config).spec.init_configuration = Some(serde_json::from_value(init).unwrap());
    assert_eq!(unread(&seen), ["spec.initConfiguration.timeouts.discoverySeconds (Kubernetes before v1.31)"]);
    let (_, parts) = read(&user_data(&seen, &Sources::new()).unwrap(), "/run/kubeadm/kubeadm.yaml");
    assert_eq!(parts[0]["apiServer"]["timeoutForControlPlane"], "90s");
    Arc::make_mut(seen.machine.as_mut().unwrap()).spec.version = Some("v1.31.0".into());
    assert!(unread(&seen).is_empty());
}
