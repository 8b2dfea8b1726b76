//! The KubeadmConfig controller: turns a machine's bootstrap configuration into user data.
//!
//! Source: kubernetes-sigs/cluster-api bootstrap/kubeadm/reconcilers/kubeadmconfig.

mod cloud_config;
mod ignition;
pub(crate) mod kubeadm;
mod lock;
#[cfg(test)]
mod tests;
mod token;

use std::{collections::BTreeMap, sync::Arc};

use api::{
    cluster::Cluster,
    condition::{self, Statement},
    kubeadm::{BootstrapFormat, ContentFormat, KubeadmConfig, KubeadmConfigInitialization, SecretSource},
    machine::Machine,
    meta::Time,
    names::{self, Purpose},
    node_configuration::{BootstrapTokenDiscovery, JoinControlPlane, NodeTaint},
    topology::template::{self, TemplateError},
};
use control::{Error, Key, Outcome, Plan, Reconcile, Result, bounded};
use jiff::Timestamp;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{Api, Client, core::ObjectMeta};
use serde_json::json;

use self::{cloud_config::FileEntry, kubeadm::KubeadmApi, lock::Lock};
use crate::{Context, certificates, cluster::is_valid, machine_pool, owner, unacted};

const PAUSE_S: u64 = 15;
/// What holds once the user data is there.
const AVAILABLE: [&str; 3] = ["DataSecretAvailable", "CertificatesAvailable", "Ready"];
/// Exit marker that the infrastructure may look for (contract of bootstrap providers).
const SUCCESS: &str = "echo success > /run/cluster-api/bootstrap-success.complete";

pub struct KubeadmConfigs(pub Arc<Context>);

pub struct Seen {
    pub config: Arc<KubeadmConfig>,
    /// That of the configuration, or one as those of its pool: it never has a node, so that its token stays alive.
    pub machine: Option<Arc<Machine>>,
    pub cluster: Option<Arc<Cluster>>,
    /// The cluster's key pairs that exist, by purpose.
    pub certificates: Vec<(Purpose, Arc<Secret>)>,
    pub data: Option<Arc<Secret>>,
    /// Some machine of the cluster holds the lock on initialization.
    pub locked: bool,
    /// The version of the control plane, for files that are templates; none if it is not known.
    pub control_plane_version: Option<String>,
}

/// What to do, and the configuration as it is to be written afterwards.
pub struct ConfigPlan {
    pub action: Action,
    pub local: Plan,
}

pub enum Action {
    /// Nothing outside the Management API.
    None,
    /// Take the lock on initialization, then store the user data.
    Init,
    /// Make a token in the workload cluster and write it into the configuration.
    IssueToken,
    /// Store the user data of a machine that joins.
    Join,
    /// Keep the token alive until the machine has joined.
    RefreshToken,
    /// The control plane runs: others may initialize nothing any more, but the lock has no use.
    ReleaseLock,
}

impl Reconcile for KubeadmConfigs {
    const NAME: &'static str = "kubeadmconfig";
    type Seen = Seen;
    type Plan = ConfigPlan;

    async fn observe(&self, key: &Key) -> Result<Option<Seen>> {
        let caches = &self.0.caches;
        let Some(config) = caches.configs.get(key) else { return Ok(None) };
        let namespace = key.namespace.as_str();
        let machine = owner::owner_of_kind(&config.metadata, "Machine");
        let machine = machine.and_then(|owner| caches.machines.get(&Key::new(namespace, owner.name.as_str())));
        let pool = owner::owner_of_kind(&config.metadata, "MachinePool");
        let pool = pool.and_then(|owner| caches.machine_pools.get(&Key::new(namespace, owner.name.as_str())));
        let cluster = owner::label_of(&config.metadata, names::CLUSTER_LABEL).unwrap_or_default();
        let certificates = certificates::PURPOSES
            .into_iter()
            .chain([Purpose::EtcdClient])
            .filter_map(|purpose| Some((purpose, caches.secret(namespace, &purpose.secret_name(cluster))?)));
        let cluster_object = caches.cluster(namespace, cluster);
        let reference = cluster_object.as_ref().and_then(|found| found.spec.control_plane_ref.as_ref());
        let is_template = |file: &api::kubeadm::File| file.content_format == Some(ContentFormat::Template);
        let asked = reference.filter(|_| config.spec.files.iter().any(is_template));
        let control_plane_version =
            asked.and_then(|reference| caches.external(namespace, Some(reference))?.read("/spec/version"));
        Ok(Some(Seen {
            control_plane_version,
            certificates: certificates.collect(),
            data: caches.secret(namespace, &key.name),
            locked: caches.config_maps.get(&lock::key(&Key::new(namespace, cluster))).is_some(),
            cluster: cluster_object,
            machine: machine.or_else(|| pool.map(|pool| Arc::new(machine_pool::as_machine(&pool)))),
            config,
        }))
    }

    fn plan(&self, seen: &Seen, now: Timestamp) -> ConfigPlan {
        plan(seen, &Time(now))
    }

    async fn act(&self, key: &Key, seen: &Seen, plan: ConfigPlan) -> Result<Outcome> {
        let context = &self.0;
        let cluster = Key::new(key.namespace.as_str(), name(seen.cluster.as_deref().map(|cluster| &cluster.metadata)));
        let now = Time(context.writer.clock().now());
        let client = context.writer.client();
        match plan.action {
            Action::None => {}
            Action::Init => {
                let machine = name(seen.machine.as_deref().map(|machine| &machine.metadata));
                let owner = seen.cluster.as_deref().ok_or_else(|| Error::bug("no cluster to initialize"))?;
                if let Lock::HeldBy(other) = lock::take(client, owner, machine).await? {
                    let on = format!("Machine {other} to initialize the control plane");
                    return context.writer.execute(Plan::waiting(on, PAUSE_S)).await;
                }
                return self.store(seen, plan.local).await;
            }
            Action::IssueToken => {
                let workload = context.workloads.try_client(&cluster).await?;
                let token = token::generate()?;
                bounded(&cluster, token::store(&workload, &token, &now)).await??;
                let mut after = seen.config.as_ref().clone();
                discover(seen, &mut after, &token)?;
                let mut local = plan.local;
                local.update(seen.config.as_ref(), &after);
                return context.writer.execute(local).await;
            }
            Action::Join => return self.store(seen, plan.local).await,
            Action::RefreshToken => {
                let workload = context.workloads.try_client(&cluster).await?;
                let held = held_token(&seen.config).unwrap_or_default();
                if !bounded(&cluster, token::refresh(&workload, &held, &now)).await?? {
                    // Expired before the machine came: a new one, and user data with it.
                    let mut after = seen.config.as_ref().clone();
                    forget_token(&mut after);
                    let mut local = plan.local;
                    local.update(seen.config.as_ref(), &after);
                    return context.writer.execute(local).await;
                }
            }
            Action::ReleaseLock => lock::release(client, &cluster).await?,
        }
        context.writer.execute(plan.local).await
    }
}

impl KubeadmConfigs {
    /// Renders the user data, stores it, and only then says that it is there.
    async fn store(&self, seen: &Seen, mut local: Plan) -> Result<Outcome> {
        let client = self.0.writer.client();
        let config = seen.config.as_ref();
        let now = Time(self.0.writer.clock().now());
        let mut after = config.clone();
        let rendered = match sources(client, config).await {
            Ok(sources) => user_data(seen, &sources).map_err(|why| Error::blocked("DataSecretGenerationFailed", why)),
            Err(error) => Err(error),
        };
        let generation = config.metadata.generation;
        let status = after.status.get_or_insert_default();
        status.observed_generation = generation;
        match rendered {
            Ok(data) => {
                // Nothing has been observed yet of what is rendered now.
                let unknown = data.unknown.iter().map(|field| format!("{ADDITIONAL}: {field}"));
                unacted::say(config, unread(seen).into_iter().chain(unknown).collect(), &mut local);
                local.create_or_replace(&data_secret(seen, data), seen.data.as_deref());
                status.initialization = Some(KubeadmConfigInitialization { data_secret_created: Some(true) });
                status.data_secret_name = config.metadata.name.clone();
                for type_ in AVAILABLE {
                    let reason = if type_ == "Ready" { "Ready" } else { "Available" };
                    condition::set(&mut status.conditions, Statement::yes(type_, reason), generation, &now);
                }
                local.update(config, &after);
                self.0.writer.execute(local).await
            }
            Err(error) => {
                let why = error.chain();
                for type_ in ["DataSecretAvailable", "Ready"] {
                    let statement = Statement::no(type_, "NotAvailable", why.as_str());
                    condition::set(&mut status.conditions, statement, generation, &now);
                }
                local.update(config, &after);
                self.0.writer.execute(local).await?;
                Err(error)
            }
        }
    }
}

pub fn plan(seen: &Seen, now: &Time) -> ConfigPlan {
    let config = seen.config.as_ref();
    let mut after = config.clone();
    let mut local = Plan::nothing();
    let paused = owner::is_paused(seen.cluster.as_deref(), &config.metadata);
    let decided = if paused || config.metadata.deletion_timestamp.is_some() {
        Ok(Action::None)
    } else {
        decide(seen, &mut after)
    };
    let generation = config.metadata.generation;
    let created = is_created(config);
    let restored = !paused && is_created(&after);
    let status = after.status.get_or_insert_default();
    let told = condition::get(&status.conditions, "Paused").and_then(|paused| paused.observed_generation);
    // A move left the conditions behind.
    let restored = restored && condition::get(&status.conditions, "Ready").is_none();
    let mut set = |statement| condition::set(&mut status.conditions, statement, generation, now);
    set(Statement::of("Paused", paused, ("Paused", "NotPaused"), ""));
    if restored {
        for type_ in AVAILABLE {
            set(Statement::yes(type_, if type_ == "Ready" { "Ready" } else { "Available" }));
        }
    }
    if !paused {
        unacted::tell(config, told, Vec::new(), &mut local);
    }
    let action = match decided {
        Ok(action) => action,
        Err(wait) => {
            if !created {
                set(Statement::no("DataSecretAvailable", "NotAvailable", wait.as_str()));
                set(Statement::no("Ready", "NotReady", wait.as_str()));
            }
            local.wait(wait, PAUSE_S);
            Action::None
        }
    };
    if matches!(action, Action::RefreshToken) {
        local.wait("the machine to join", token::RECHECK_S);
    }
    if !matches!(action, Action::IssueToken) {
        local.update(config, &after);
    }
    ConfigPlan { action, local }
}

/// What comes next; `Err` says what is waited for.
fn decide(seen: &Seen, after: &mut KubeadmConfig) -> Result<Action, String> {
    let config = seen.config.as_ref();
    let machine = seen.machine.as_ref().ok_or("Waiting for a Machine or a MachinePool to own this configuration")?;
    let cluster = seen.cluster.as_ref().ok_or("Waiting for the Cluster to exist")?;
    let started = cluster.status.as_ref().and_then(|status| status.initialization.clone()).unwrap_or_default();
    let initialized = started.control_plane_initialized == Some(true);
    let control_plane = owner::label_of(&machine.metadata, names::CONTROL_PLANE_LABEL).is_some();
    owner::label(&mut after.metadata, names::CLUSTER_LABEL, machine.spec.cluster_name.as_str());
    if machine.spec.bootstrap.data_secret_name.is_some() && !is_created(config) {
        // Moved from another management cluster: the data is there, only the status was not moved.
        let status = after.status.get_or_insert_default();
        status.data_secret_name = machine.spec.bootstrap.data_secret_name.clone();
        status.initialization = Some(KubeadmConfigInitialization { data_secret_created: Some(true) });
        return Ok(Action::None);
    }
    if is_created(config) {
        let joined = machine.status.as_ref().is_some_and(|status| status.node_ref.is_some());
        if joined || machine.metadata.deletion_timestamp.is_some() {
            let init = control_plane && config.spec.join_configuration.is_none();
            return Ok(if init && initialized && seen.locked { Action::ReleaseLock } else { Action::None });
        }
        return match held_token(config) {
            Some(_) => Ok(Action::RefreshToken),
            // The token was given up: a new one makes new user data.
            None if config.spec.join_configuration.is_some() && !uses_file(config) => Ok(Action::IssueToken),
            None => Ok(Action::None),
        };
    }
    if started.infrastructure_provisioned != Some(true) {
        return Err("Waiting for Cluster status.infrastructureReady to be true".to_owned());
    }
    if !initialized {
        if !control_plane {
            return Err("Waiting for Cluster control plane to be initialized".to_owned());
        }
        certificates_ready(seen)?;
        return Ok(Action::Init);
    }
    certificates_ready(seen)?;
    if held_token(config).is_none() && !uses_file(config) {
        return Ok(Action::IssueToken);
    }
    Ok(Action::Join)
}

fn certificates_ready(seen: &Seen) -> Result<(), String> {
    let (made, given) = certificates::needed(seen.config.spec.cluster_configuration.as_ref());
    let missing: Vec<_> = made
        .into_iter()
        .chain(given.iter().copied())
        .filter(|purpose| !seen.certificates.iter().any(|(have, _)| have == purpose))
        .map(|purpose| purpose.secret_name(name(seen.cluster.as_deref().map(|cluster| &cluster.metadata))))
        .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(format!("Waiting for the certificates {} to exist", missing.join(", ")))
    }
}

fn is_created(config: &KubeadmConfig) -> bool {
    let started = config.status.as_ref().and_then(|status| status.initialization.as_ref());
    started.is_some_and(|started| started.data_secret_created == Some(true))
}

fn held_token(config: &KubeadmConfig) -> Option<String> {
    config.spec.join_configuration.as_ref()?.discovery.as_ref()?.bootstrap_token.as_ref()?.token.clone()
}

fn uses_file(config: &KubeadmConfig) -> bool {
    let discovery = config.spec.join_configuration.as_ref().and_then(|join| join.discovery.as_ref());
    discovery.is_some_and(|discovery| discovery.file.is_some())
}

fn forget_token(config: &mut KubeadmConfig) {
    let discovery = config.spec.join_configuration.as_mut().and_then(|join| join.discovery.as_mut());
    if let Some(token) = discovery.and_then(|discovery| discovery.bootstrap_token.as_mut()) {
        token.token = None;
    }
    if let Some(status) = &mut config.status {
        status.initialization = None;
    }
}

/// Writes where and how to join into the configuration.
fn discover(seen: &Seen, after: &mut KubeadmConfig, token: &str) -> Result<()> {
    let cluster = seen.cluster.as_deref().and_then(endpoint);
    let join = after.spec.join_configuration.get_or_insert_default();
    let discovery = join.discovery.get_or_insert_default();
    let bootstrap = discovery.bootstrap_token.get_or_insert_with(BootstrapTokenDiscovery::default);
    bootstrap.token = Some(token.to_owned());
    bootstrap.api_server_endpoint = bootstrap.api_server_endpoint.clone().or(cluster);
    if bootstrap.ca_cert_hashes.is_empty() && bootstrap.unsafe_skip_ca_verification != Some(true) {
        let ca = pem(seen, Purpose::Ca, "tls.crt").map_err(|why| Error::blocked("CertificatesCorrupted", why))?;
        bootstrap.ca_cert_hashes = certificates::public_key_hashes(&ca)?;
    }
    Ok(())
}

/// `host:port` of the cluster's API.
pub(crate) fn endpoint(cluster: &Cluster) -> Option<String> {
    let endpoint = cluster.spec.control_plane_endpoint.as_ref().filter(|endpoint| is_valid(endpoint))?;
    let host = endpoint.host.as_deref()?;
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    Some(format!("{host}:{}", endpoint.port?))
}

fn pem(seen: &Seen, purpose: Purpose, key: &str) -> Result<String, String> {
    let (_, secret) = seen
        .certificates
        .iter()
        .find(|(have, _)| *have == purpose)
        .ok_or_else(|| format!("the {purpose:?} key pair does not exist"))?;
    let named = || format!("secret {}", secret.metadata.name.as_deref().unwrap_or_default());
    let value =
        secret.data.as_ref().and_then(|data| data.get(key)).ok_or_else(|| format!("{} lacks {key}", named()))?;
    String::from_utf8(value.0.clone()).map_err(|_| format!("{key} of {} is not PEM", named()))
}

/// Where kubeadm looks for key pairs unless the configuration says otherwise, and what they are called there.
const PKI: &str = "/etc/kubernetes/pki";
const PAIRS: [(Purpose, &str, &str); 4] = [
    (Purpose::Ca, "ca.crt", "ca.key"),
    (Purpose::Etcd, "etcd/ca.crt", "etcd/ca.key"),
    (Purpose::FrontProxy, "front-proxy-ca.crt", "front-proxy-ca.key"),
    (Purpose::ServiceAccount, "sa.pub", "sa.key"),
];

/// The key pairs of a control plane machine, where its configuration wants them.
fn pki(seen: &Seen, files: &mut Vec<FileEntry>) -> Result<(), String> {
    let configuration = seen.config.spec.cluster_configuration.as_ref();
    let folder = configuration.and_then(|found| found.certificates_dir.as_deref()).unwrap_or(PKI).trim_end_matches('/');
    let external = configuration.and_then(|found| found.etcd.as_ref()?.external.as_ref());
    let mut put = |path: &str, permissions: &str, purpose, half| {
        files.push(FileEntry::root(path, permissions, pem(seen, purpose, half)?));
        Ok::<_, String>(())
    };
    for (purpose, public, private) in PAIRS {
        if external.is_some() && purpose == Purpose::Etcd {
            continue;
        }
        put(&format!("{folder}/{public}"), "0640", purpose, "tls.crt")?;
        put(&format!("{folder}/{private}"), "0600", purpose, "tls.key")?;
    }
    if let Some(external) = external {
        put(&external.ca_file, "0640", Purpose::Etcd, "tls.crt")?;
        put(&external.cert_file, "0640", Purpose::EtcdClient, "tls.crt")?;
        put(&external.key_file, "0600", Purpose::EtcdClient, "tls.key")?;
    }
    Ok(())
}

/// Contents that live in secrets, by (secret, key).
type Sources = BTreeMap<(String, String), String>;

/// What a machine boots with.
#[derive(Debug)]
pub struct UserData {
    pub text: String,
    /// As the secret's key `format` has it.
    pub format: &'static str,
    /// Fields of the user's own Ignition configuration that are not known.
    pub unknown: Vec<String>,
}

const ADDITIONAL: &str = "spec.ignition.containerLinuxConfig.additionalConfig";

/// A file's content, of a template that may ask for `.controlPlane.version`.
fn from_template(text: &str, version: Option<&str>) -> Result<String, TemplateError> {
    let data = version.map_or_else(|| json!({}), |version| json!({"controlPlane": {"version": version}}));
    template::render(text, &data)
}

/// The user data of the machine; `Err` says which field cannot be used.
pub fn user_data(seen: &Seen, sources: &Sources) -> Result<UserData, String> {
    let config = &seen.config.spec;
    let machine = seen.machine.as_ref().ok_or("the configuration has no machine")?;
    let cluster = seen.cluster.as_ref().ok_or("the configuration has no cluster")?;
    let kubernetes = machine.spec.version.as_deref().ok_or("spec.version of the Machine is not set")?;
    let api = KubeadmApi::of(kubernetes)?;
    let control_plane = owner::label_of(&machine.metadata, names::CONTROL_PLANE_LABEL).is_some();
    let token = held_token(&seen.config);
    let joins = token.is_some() || uses_file(&seen.config);
    let mut files = Vec::new();
    if control_plane {
        pki(seen, &mut files)?;
    }
    for file in &config.files {
        let content = match (&file.content, &file.content_from) {
            (Some(content), _) => content.clone(),
            (None, Some(source)) => looked_up(sources, source)?,
            (None, None) => String::new(),
        };
        let content = match file.content_format {
            Some(ContentFormat::Template) => from_template(&content, seen.control_plane_version.as_deref())
                .map_err(|error| format!("file {}: its template fails: {error}", file.path))?,
            _ => content,
        };
        files.push(FileEntry {
            path: file.path.clone(),
            owner: file.owner.clone().unwrap_or_default(),
            permissions: file.permissions.clone().unwrap_or_default(),
            encoding: file.encoding,
            append: file.append.unwrap_or(false),
            content,
        });
    }
    let configuration = if joins {
        join_document(seen, cluster, api, control_plane, &mut files)?
    } else {
        let configuration = config.cluster_configuration.clone().unwrap_or_default();
        let init = config.init_configuration.clone().unwrap_or_default();
        let health_s = init.timeouts.as_ref().and_then(|limits| limits.control_plane_component_health_check_seconds);
        let first = yaml(&kubeadm::cluster_configuration(api, &configuration, cluster, kubernetes, health_s))?;
        let second = yaml(&kubeadm::init_configuration(api, &init))?;
        let (first, second) = (first.trim_start_matches("---\n"), second.trim_start_matches("---\n"));
        format!("---\n{}\n---\n{}\n", first.trim_end(), second.trim_end())
    };
    let mut users = config.users.clone();
    for user in &mut users {
        if let Some(source) = user.passwd_from.take() {
            user.passwd = Some(looked_up(sources, &source)?);
        }
    }
    let verbosity = config.verbosity.map(|level| format!(" --v {level}")).unwrap_or_default();
    let verb = if joins { "join" } else { "init" };
    if config.format == Some(BootstrapFormat::Ignition) {
        let path = ignition::KUBEADM_CONFIG;
        let command = format!("kubeadm {verb} --config {path}{verbosity}");
        let rendered = ignition::render(config, &files, &users, &command, &configuration)?;
        return Ok(UserData { text: rendered.text, format: "ignition", unknown: rendered.warnings });
    }
    let path = if joins { "/run/kubeadm/kubeadm-join-config.yaml" } else { "/run/kubeadm/kubeadm.yaml" };
    files.push(FileEntry::root(path, "0640", configuration));
    let placeholder = "This placeholder file is used to create the /run/cluster-api sub directory\n";
    files.push(FileEntry::root("/run/cluster-api/placeholder", "0640", placeholder));
    let command = format!("kubeadm {verb} --config {path}{verbosity} && {SUCCESS}");
    let text = cloud_config::render(config, &files, &users, &command);
    Ok(UserData { text, format: "cloud-config", unknown: Vec::new() })
}

fn yaml(document: &serde_json::Value) -> Result<String, String> {
    serde_saphyr::to_string(document).map_err(|error| error.to_string())
}

/// kubeadm's JoinConfiguration; the kubeconfig that it may want goes to the files.
fn join_document(
    seen: &Seen,
    cluster: &Cluster,
    api: KubeadmApi,
    control_plane: bool,
    files: &mut Vec<FileEntry>,
) -> Result<String, String> {
    let mut join = seen.config.spec.join_configuration.clone().unwrap_or_default();
    if control_plane {
        join.control_plane.get_or_insert_with(JoinControlPlane::default);
    } else {
        let registration = join.node_registration.get_or_insert_default();
        let taints = registration.taints.get_or_insert_default();
        if !taints.iter().any(|taint| taint.key == names::UNINITIALIZED_TAINT) {
            taints.push(NodeTaint {
                effect: "NoSchedule".into(),
                key: names::UNINITIALIZED_TAINT.into(),
                ..NodeTaint::default()
            });
        }
    }
    let given = join.discovery.as_ref().and_then(|discovery| discovery.file.as_ref());
    if let Some((file, given)) = given.and_then(|file| Some((file, file.kube_config.as_ref()?))) {
        let authority = pem(seen, Purpose::Ca, "tls.crt")?;
        let kubeconfig = yaml(&kubeadm::discovery_kubeconfig(given, endpoint(cluster).as_deref(), &authority))?;
        files.push(FileEntry::root(&file.kube_config_path, "0640", kubeconfig));
    }
    yaml(&kubeadm::join_configuration(api, &join))
}

fn looked_up(sources: &Sources, source: &SecretSource) -> Result<String, String> {
    let key = (source.secret.name.clone(), source.secret.key.clone());
    sources.get(&key).cloned().ok_or_else(|| format!("secret {} has no text under the key {}", key.0, key.1))
}

/// Reads the secrets that files and users name.
async fn sources(client: &Client, config: &KubeadmConfig) -> Result<Sources> {
    let files = config.spec.files.iter().filter_map(|file| file.content_from.as_ref());
    let users = config.spec.users.iter().filter_map(|user| user.passwd_from.as_ref());
    let namespace = config.metadata.namespace.as_deref().unwrap_or("default");
    let secrets = Api::<Secret>::namespaced(client.clone(), namespace);
    let mut sources = Sources::new();
    for SecretSource { secret } in files.chain(users) {
        let found = secrets.get_opt(&secret.name).await;
        let found = found.map_err(|source| Error::api("get", format!("secret {namespace}/{}", secret.name), source))?;
        let value = found.and_then(|found| found.data?.remove(&secret.key));
        if let Some(text) = value.and_then(|value| String::from_utf8(value.0).ok()) {
            sources.insert((secret.name.clone(), secret.key.clone()), text);
        }
    }
    Ok(sources)
}

/// Fields that the kubeadm of the machine's version does not have.
fn unread(seen: &Seen) -> Vec<String> {
    let kubernetes = seen.machine.as_ref().and_then(|machine| machine.spec.version.as_deref());
    let api = kubernetes.and_then(|kubernetes| KubeadmApi::of(kubernetes).ok());
    api.map(|api| kubeadm::unread(api, &seen.config.spec)).unwrap_or_default()
}

fn data_secret(seen: &Seen, data: UserData) -> Secret {
    let config = seen.config.as_ref();
    let cluster = name(seen.cluster.as_deref().map(|cluster| &cluster.metadata)).to_owned();
    Secret {
        metadata: ObjectMeta {
            name: config.metadata.name.clone(),
            namespace: config.metadata.namespace.clone(),
            labels: Some([(names::CLUSTER_LABEL.to_owned(), cluster)].into()),
            owner_references: Some(vec![owner::reference(config, true)]),
            ..ObjectMeta::default()
        },
        type_: Some(names::SECRET_TYPE.to_owned()),
        data: Some(
            [
                ("value".to_owned(), ByteString(data.text.into_bytes())),
                ("format".to_owned(), ByteString(data.format.into())),
            ]
            .into(),
        ),
        ..Secret::default()
    }
}

fn name(meta: Option<&ObjectMeta>) -> &str {
    meta.and_then(|meta| meta.name.as_deref()).unwrap_or_default()
}
