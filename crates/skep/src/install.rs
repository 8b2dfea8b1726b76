//! `skep install`: what a Kubernetes needs so that Skep's controllers can work beside it.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::{Context, Result};
use base64::{Engine, engine::general_purpose::STANDARD};
use k8s_openapi::{
    ByteString,
    api::core::v1::{Namespace, Secret, ServiceAccount},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, Config, ResourceExt,
    api::{DynamicObject, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    core::{ApiResource, GroupVersionKind, ObjectMeta},
};
use serde_json::{Value, json};

use crate::{
    rights::{self, MANAGER},
    settings::{self, Common},
    state::Credential,
    webhooks,
};

/// Where everything lies that is not of the whole cluster.
pub const NAMESPACE: &str = "skep-system";
/// The service account, the Deployment, the Role and its binding.
const NAME: &str = "skep";
/// The authority of the webhooks and the names that they are called by; the Service, and the two configurations.
const WEBHOOKS: &str = "skep-webhooks";
/// The ConfigMap with what must not be deleted yet, and its key.
const SETTINGS: &str = "skep-settings";
/// Where the settings' files are in the pod.
const FOLDER: &str = "/etc/skep";
/// Where `skep controllers` listens if nothing else is said.
pub const PORT: u16 = 9443;
const TIMEOUT_S: u32 = 10;

#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    target: Target,
    /// Host or address and port at which the API server reaches `skep controllers`, where these run outside of the cluster
    #[arg(long, value_name = "HOST:PORT")]
    reach: Option<String>,
    /// Image whose entry point is skep: the controllers are started in the cluster
    #[arg(long, conflicts_with = "reach")]
    image: Option<String>,
    // The kinds of deletion rules become rights; with an image all of it goes to the controllers.
    #[command(flatten)]
    common: Common,
}

/// A Kubernetes that is not ours.
#[derive(clap::Args)]
pub struct Target {
    /// Kubeconfig of the Kubernetes (default: that of kubectl, or of the pod)
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// Context in the kubeconfig
    #[arg(long)]
    context: Option<String>,
}

impl Target {
    pub async fn client(&self) -> Result<Client> {
        client(self.config().await?)
    }

    pub async fn config(&self) -> Result<Config> {
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        let mut config = match &self.kubeconfig {
            Some(path) => {
                let kubeconfig =
                    Kubeconfig::read_from(path).with_context(|| format!("read the kubeconfig {}", path.display()))?;
                Config::from_custom_kubeconfig(kubeconfig, &options).await.context("use the kubeconfig")?
            }
            None if self.context.is_some() => {
                Config::from_kubeconfig(&options).await.context("find the context in kubectl's kubeconfig")?
            }
            None => Config::infer().await.context("find a kubeconfig: name one with --kubeconfig")?,
        };
        cli::reach_directly(&mut config);
        Ok(config)
    }
}

pub fn client(config: Config) -> Result<Client> {
    Client::try_from(config).context("make a client of the Kubernetes API")
}

pub async fn run(arguments: Arguments) -> Result<u8> {
    let rules = arguments.common.fleet()?.deletion_rules;
    arguments.common.app_security()?;
    let client = arguments.target.client().await?;
    let version = client.apiserver_version().await.context("reach the Kubernetes API")?;
    eprintln!("Kubernetes {}", version.git_version);
    let namespace = Namespace {
        metadata: ObjectMeta { name: Some(NAMESPACE.to_owned()), ..ObjectMeta::default() },
        ..Namespace::default()
    };
    apply(&client, &named("v1", "Namespace", &namespace)?).await?;
    let account = ServiceAccount {
        metadata: ObjectMeta {
            name: Some(NAME.to_owned()),
            namespace: Some(NAMESPACE.to_owned()),
            ..ObjectMeta::default()
        },
        ..ServiceAccount::default()
    };
    apply(&client, &named("v1", "ServiceAccount", &account)?).await?;
    rights::grant(&client, Some(&account), &rules).await.context("grant the controllers their rights")?;
    let names = match &arguments.reach {
        Some(reach) => vec![host(reach)?],
        None => vec![format!("{WEBHOOKS}.{NAMESPACE}.svc")],
    };
    let authority = authority(&client, &names).await?;
    let reached = |path: &str| reached(arguments.reach.as_deref(), path, &authority);
    for crd in api::crd::all() {
        if is_of_others(&client, &crd).await? {
            eprintln!("{} is there already and not Skep's: it is left alone, with its controller.", crd.name_any());
            continue;
        }
        let mut crd = serde_json::to_value(crd).context("write a definition")?;
        crd["spec"]["conversion"] = json!({
            "strategy": "Webhook",
            "webhook": {"conversionReviewVersions": ["v1"], "clientConfig": reached(webhooks::CONVERT)},
        });
        apply(&client, &named("apiextensions.k8s.io/v1", "CustomResourceDefinition", &crd)?).await?;
    }
    for (kind, path) in
        [("MutatingWebhookConfiguration", webhooks::MUTATE), ("ValidatingWebhookConfiguration", webhooks::VALIDATE)]
    {
        apply(&client, &configuration(kind, reached(path))).await?;
    }
    for object in in_cluster(arguments.reach.is_none(), arguments.image.as_deref(), &arguments.common)? {
        apply(&client, &object).await?;
    }
    eprintln!("Skep's kinds, rights and webhooks are installed.");
    match (&arguments.reach, &arguments.image) {
        (Some(reach), _) => {
            let port = reach.rsplit_once(':').map_or("", |(_, port)| port);
            eprintln!("Start the controllers:  skep controllers --listen 0.0.0.0:{port}");
        }
        (None, None) => eprintln!(
            "Start the controllers in the cluster, as service account {NAMESPACE}/{NAME}, or say --image or --reach."
        ),
        (None, Some(_)) => eprintln!("They start as Deployment {NAMESPACE}/{NAME}."),
    }
    Ok(0)
}

/// Whether somebody else has brought this kind: images of the cloud have a project of their own.
async fn is_of_others(client: &Client, crd: &CustomResourceDefinition) -> Result<bool> {
    if crd.name_any() != fleet::openstack::IMAGES_CRD {
        return Ok(false);
    }
    let definitions = Api::<CustomResourceDefinition>::all(client.clone());
    let found = definitions.get_opt(&crd.name_any()).await.context("look for the definition of images")?;
    Ok(found.is_some_and(|found| !found.labels().contains_key(api::names::PROVIDER_LABEL)))
}

/// The host of `HOST:PORT`.
fn host(reach: &str) -> Result<String> {
    let (host, port) = reach.rsplit_once(':').with_context(|| format!("--reach {reach}: it has no port"))?;
    port.parse::<u16>().with_context(|| format!("--reach {reach}: {port} is no port"))?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    anyhow::ensure!(!host.is_empty(), "--reach {reach}: it has no host");
    Ok(host.to_owned())
}

/// An object with its type, which Kubernetes' own types leave to their name.
fn named(version: &str, kind: &str, object: &impl serde::Serialize) -> Result<Value> {
    let mut object = serde_json::to_value(object).with_context(|| format!("write a {kind}"))?;
    object["apiVersion"] = version.into();
    object["kind"] = kind.into();
    Ok(object)
}

async fn apply(client: &Client, object: &Value) -> Result<()> {
    let object: DynamicObject = serde_json::from_value(object.clone()).context("read an object")?;
    let types = object.types.clone().unwrap_or_default();
    let (group, version) = types.api_version.split_once('/').unwrap_or(("", &types.api_version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &types.kind));
    let api: Api<DynamicObject> = match object.namespace() {
        Some(namespace) => Api::namespaced_with(client.clone(), &namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let (kind, name) = (types.kind, object.name_any());
    let applied = api.patch(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&object)).await;
    applied.with_context(|| format!("apply {kind} {name}"))?;
    Ok(())
}

/// The authority of the webhooks' certificates, made once: every process of the controllers signs its own by it.
async fn authority(client: &Client, names: &[String]) -> Result<Credential> {
    let secrets = Api::<Secret>::namespaced(client.clone(), NAMESPACE);
    let found = secrets.get_opt(WEBHOOKS).await.with_context(|| format!("get Secret {NAMESPACE}/{WEBHOOKS}"))?;
    let names = names.join(",").into_bytes();
    if let Some(mut secret) = found {
        let (authority, _) = read(&secret)?;
        let data = secret.data.get_or_insert_default();
        if data.get("names").map(|names| &names.0) != Some(&names) {
            data.insert("names".to_owned(), ByteString(names));
            let replaced = secrets.replace(WEBHOOKS, &PostParams::default(), &secret).await;
            replaced.with_context(|| format!("replace Secret {NAMESPACE}/{WEBHOOKS}"))?;
        }
        return Ok(authority);
    }
    let made = Credential::authority("skep-webhooks")?;
    let data = [
        ("ca.crt", made.certificate.clone().into_bytes()),
        ("ca.key", made.key.clone().into_bytes()),
        ("names", names),
    ];
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(WEBHOOKS.to_owned()),
            namespace: Some(NAMESPACE.to_owned()),
            ..ObjectMeta::default()
        },
        data: Some(data.into_iter().map(|(key, value)| (key.to_owned(), ByteString(value))).collect()),
        ..Secret::default()
    };
    let created = secrets.create(&PostParams::default(), &secret).await;
    created.with_context(|| format!("create Secret {NAMESPACE}/{WEBHOOKS}"))?;
    Ok(made)
}

/// The authority of an installation and the names that its webhooks are called by.
pub async fn installed(client: &Client) -> Result<(Credential, Vec<String>)> {
    let secrets = Api::<Secret>::namespaced(client.clone(), NAMESPACE);
    let found = secrets.get_opt(WEBHOOKS).await.with_context(|| format!("get Secret {NAMESPACE}/{WEBHOOKS}"))?;
    read(&found.with_context(|| format!("there is no Secret {NAMESPACE}/{WEBHOOKS}: run `skep install` first"))?)
}

fn read(secret: &Secret) -> Result<(Credential, Vec<String>)> {
    let text = |key: &str| {
        let value = secret.data.as_ref().and_then(|data| data.get(key));
        let value = value
            .with_context(|| format!("Secret {NAMESPACE}/{WEBHOOKS} has no {key}: delete it and run `skep install`"))?;
        String::from_utf8(value.0.clone()).with_context(|| format!("Secret {NAMESPACE}/{WEBHOOKS}: {key} is no text"))
    };
    let names = text("names")?.split(',').map(str::to_owned).collect();
    Ok((Credential { certificate: text("ca.crt")?, key: text("ca.key")? }, names))
}

/// How the API server reaches a webhook.
fn reached(reach: Option<&str>, path: &str, authority: &Credential) -> Value {
    let bundle = STANDARD.encode(&authority.certificate);
    match reach {
        Some(reach) => json!({"url": format!("https://{reach}{path}"), "caBundle": bundle}),
        None => {
            let service = json!({"namespace": NAMESPACE, "name": WEBHOOKS, "path": path, "port": 443});
            json!({"service": service, "caBundle": bundle})
        }
    }
}

fn configuration(kind: &str, client: Value) -> Value {
    // By group and the version that is stored. Images may be another project's, and no rule is about them.
    let mut plurals: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for crd in api::crd::all().into_iter().filter(|crd| crd.name_any() != fleet::openstack::IMAGES_CRD) {
        let stored = crd.spec.versions.into_iter().find(|version| version.storage).map(|version| version.name);
        plurals.entry((crd.spec.group, stored.unwrap_or_default())).or_default().push(crd.spec.names.plural);
    }
    let rule = |((group, version), plurals): (&(String, String), &Vec<String>)| {
        json!({
            "apiGroups": [group], "apiVersions": [version], "operations": ["CREATE", "UPDATE"],
            "resources": plurals, "scope": "*",
        })
    };
    let mut rules: Vec<Value> = plurals.iter().map(rule).collect();
    if kind.starts_with("Validating") {
        rules.push(json!({
            "apiGroups": ["controlplane.cluster.x-k8s.io"], "apiVersions": ["v1beta2"], "operations": ["UPDATE"],
            "resources": ["kubeadmcontrolplanes/scale"], "scope": "*",
        }));
        // A class that clusters are made from stays.
        rules.push(json!({
            "apiGroups": ["cluster.x-k8s.io"], "apiVersions": ["v1beta2"], "operations": ["DELETE"],
            "resources": ["clusterclasses"], "scope": "*",
        }));
    }
    let name = if kind.starts_with("Mutating") { "default.skep.x-k8s.io" } else { "validation.skep.x-k8s.io" };
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": WEBHOOKS},
        "webhooks": [{
            "name": name, "clientConfig": client, "rules": rules, "matchPolicy": "Equivalent", "failurePolicy": "Fail",
            "sideEffects": "None", "admissionReviewVersions": ["v1"], "timeoutSeconds": TIMEOUT_S,
        }],
    })
}

/// What the controllers need where they run in the cluster; the lease is needed everywhere.
fn in_cluster(service: bool, image: Option<&str>, common: &Common) -> Result<Vec<Value>> {
    let meta = |name: &str| json!({"name": name, "namespace": NAMESPACE});
    let labels = json!({"app.kubernetes.io/name": NAME});
    let rule =
        json!({"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update"]});
    let subjects = json!([
        {"kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE},
        {"kind": "Group", "name": rights::CONTROLLERS, "apiGroup": "rbac.authorization.k8s.io"},
    ]);
    let rbac = "rbac.authorization.k8s.io";
    let mut objects = vec![
        json!({"apiVersion": format!("{rbac}/v1"), "kind": "Role", "metadata": meta(NAME), "rules": [rule]}),
        json!({
            "apiVersion": format!("{rbac}/v1"), "kind": "RoleBinding", "metadata": meta(NAME), "subjects": subjects,
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": NAME},
        }),
    ];
    if service {
        let ports = json!([{"name": "webhooks", "port": 443, "targetPort": PORT}]);
        let spec = json!({"selector": labels, "ports": ports});
        objects.push(json!({"apiVersion": "v1", "kind": "Service", "metadata": meta(WEBHOOKS), "spec": spec}));
    }
    if let Some(image) = image {
        let probe = json!({"httpGet": {"path": webhooks::HEALTH, "port": PORT, "scheme": "HTTPS"}});
        let (arguments, files) = inside(common)?;
        let mut container = json!({
            "name": "skep", "image": image, "args": arguments, "ports": [{"containerPort": PORT, "name": "webhooks"}],
            "readinessProbe": probe, "livenessProbe": probe,
            "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
            "securityContext": {
                "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]},
                "runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"},
            },
        });
        let mut volumes = Vec::new();
        if !files.is_empty() {
            objects.push(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta(SETTINGS), "data": files}));
            volumes.push(json!({"name": SETTINGS, "configMap": {"name": SETTINGS}}));
            container["volumeMounts"] = json!([{"name": SETTINGS, "mountPath": FOLDER, "readOnly": true}]);
        }
        let pod = json!({"metadata": {"labels": labels}, "spec": {
            "serviceAccountName": NAME, "containers": [container], "volumes": volumes,
        }});
        let spec = json!({"replicas": 2, "selector": {"matchLabels": labels}, "template": pod});
        objects.push(json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta(NAME), "spec": spec}));
    }
    Ok(objects)
}

/// The arguments of the controllers in a pod, and the files that they name.
fn inside(common: &Common) -> Result<(Vec<String>, BTreeMap<String, String>)> {
    let (mut arguments, mut files) = (vec!["controllers".to_owned()], BTreeMap::new());
    for (name, path) in [("deletion-rules", &common.deletion_rules), ("app-security", &common.app_security)] {
        if let Some(path) = path {
            let file = format!("{name}.yaml");
            arguments.extend([format!("--{name}"), format!("{FOLDER}/{file}")]);
            files.insert(file, settings::text(path)?);
        }
    }
    let values = [
        ("base-domain", &common.base_domain),
        ("registry-domain", &common.registry_domain),
        ("watch-filter", &common.watch_filter),
    ];
    for (name, value) in values {
        if let Some(value) = value {
            arguments.extend([format!("--{name}"), value.clone()]);
        }
    }
    for (name, values) in [
        ("additional-sync-machine-labels", &common.additional_sync_machine_labels),
        ("additional-sync-machine-annotations", &common.additional_sync_machine_annotations),
    ] {
        arguments.extend(values.iter().map(|value| format!("--{name}={value}")));
    }
    Ok((arguments, files))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_webhooks_are_reached_is_a_host_and_a_port() {
        assert_eq!(host("skep.example:9443").unwrap(), "skep.example");
        assert_eq!(host("[::1]:9443").unwrap(), "::1");
        for bad in ["skep.example", "skep.example:x", ":9443", "skep.example:99999"] {
            assert!(host(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn webhooks_are_asked_about_every_kind_in_the_version_that_is_stored() {
        let configuration = configuration("ValidatingWebhookConfiguration", json!({}));
        let rules = configuration["webhooks"][0]["rules"].as_array().unwrap();
        for crd in api::crd::all().into_iter().filter(|crd| crd.spec.names.kind != "Image") {
            let asked = rules.iter().any(|rule| {
                rule["apiGroups"][0] == crd.spec.group.as_str()
                    && rule["resources"].as_array().unwrap().contains(&crd.spec.names.plural.as_str().into())
            });
            assert!(asked, "{}", crd.spec.names.kind);
        }
        let deletions: Vec<_> = rules.iter().filter(|rule| rule["operations"][0] == "DELETE").collect();
        assert_eq!((deletions.len(), &deletions[0]["resources"][0]), (1, &json!("clusterclasses")));
    }

    #[test]
    fn controllers_in_a_pod_are_given_what_the_installation_was_given() {
        let folder = tempfile::tempdir().unwrap();
        let app_security = folder.path().join("lists.yaml");
        std::fs::write(&app_security, "userWhitelist: [ci]\n").unwrap();
        let base_domain = Some("example.test".to_owned());
        let common = Common {
            app_security: Some(app_security),
            base_domain,
            additional_sync_machine_labels: vec!["^a/.*".to_owned(), "-b$".to_owned()],
            ..Common::default()
        };
        let objects = in_cluster(true, Some("skep"), &common).unwrap();
        let of = |kind: &str| objects.iter().find(|object| object["kind"] == kind).unwrap();
        assert_eq!(of("ConfigMap")["data"], json!({"app-security.yaml": "userWhitelist: [ci]\n"}));
        let pod = &of("Deployment")["spec"]["template"]["spec"];
        let arguments = [
            "controllers",
            "--app-security",
            "/etc/skep/app-security.yaml",
            "--base-domain",
            "example.test",
            "--additional-sync-machine-labels=^a/.*",
            "--additional-sync-machine-labels=-b$",
        ];
        assert_eq!(pod["containers"][0]["args"], json!(arguments));
        assert_eq!(pod["containers"][0]["volumeMounts"][0]["name"], pod["volumes"][0]["name"]);
        let plain = in_cluster(true, Some("skep"), &Common::default()).unwrap();
        assert!(plain.iter().all(|object| object["kind"] != "ConfigMap"));
    }

    #[test]
    fn a_broken_secret_says_what_to_do() {
        let error = read(&Secret::default()).map(|_| ()).unwrap_err().to_string();
        assert_eq!(error, "Secret skep-system/skep-webhooks has no names: delete it and run `skep install`");
    }
}
