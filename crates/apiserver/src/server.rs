//! One API server: its options, its state, how it starts and stops, and the ways to call it.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use axum::{Router, extract::Request as HttpRequest, response::Response};
use jiff::Timestamp;
use parking_lot::{Mutex, RwLock};
use policy::User;
use serde_json::Value;
use store::{Revision, SharedStore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    access::Access,
    admission::{Admission, limits::Limits, registry::Registry},
    aggregation::{self, Registration},
    audit::Audit,
    authz::Authorization,
    bootstrap,
    catalog::Catalog,
    collector::Collector,
    crd,
    fairness::{Fairness, RequestLimits},
    health::Ending,
    http,
    kinds::{builtin::Profile, split_key},
    metrics::{Metered, Metrics},
    oidc::{Anonymous, Authentication},
    seal::{Encryption, Sealed},
    service_ip::ServiceRange,
    token::Keys,
    trace::Tracing,
};

pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// How service account tokens are signed and checked.
#[derive(Clone, Default)]
pub struct ServiceAccountKeys {
    /// RSA (at least 2048 bits) or EC P-256, in PEM (PKCS#1, SEC1 or PKCS#8).
    pub signing_key_pem: String,
    /// Further keys whose tokens are accepted, in PEM, any number in each: `PUBLIC KEY`, private keys, certificates.
    pub verifying_keys_pem: Vec<String>,
    /// The `iss` of tokens: `https://kubernetes.default.svc`.
    pub issuer: String,
    /// Issuers whose tokens are still accepted.
    pub further_issuers: Vec<String>,
    /// What tokens are for if they name no audience, and what this server takes; empty: the issuer.
    pub audiences: Vec<String>,
    /// No token lives longer, whatever is asked for, in seconds; none: as long as is asked for.
    pub token_lifetime_s_max: Option<i64>,
    /// Where others are told to read the public keys; none: at this server.
    pub key_set_url: Option<String>,
}

#[derive(Clone)]
pub struct Options {
    pub clock: Clock,
    pub profile: Profile,
    /// The authority whose client certificates the listener checks; published as Kubernetes does, for extensions.
    pub client_ca_pem: Option<String>,
    /// None: no service account tokens are issued or accepted.
    pub service_account: Option<ServiceAccountKeys>,
    /// Whether secrets `kube-system/bootstrap-token-*` let nodes in.
    pub bootstrap_tokens: bool,
    pub admission: Vec<Arc<dyn Admission>>,
    /// Who decides on requests before RBAC does.
    pub authorizers: Vec<Arc<dyn crate::Authorizer>>,
    /// Who is asked after these, in place of the node authorizer and RBAC.
    pub authorization: Option<Arc<Authorization>>,
    /// Whether members of `system:nodes` may do what their node needs and no more (Node authorizer, NodeRestriction).
    pub node_authorizer: bool,
    /// CRDs that are made or brought up to date at start.
    pub crds: Vec<Value>,
    /// Who converts between versions of kinds in this process; none: the webhooks that CRDs name.
    pub conversion: Option<Arc<dyn crate::Conversion>>,
    /// Who goes on as `system:anonymous` without credentials, unless `authentication` says so.
    pub anonymous: Anonymous,
    /// Foreign issuers whose tokens are believed; none: no tokens but the server's own.
    pub authentication: Option<Arc<Authentication>>,
    /// What services get their addresses from; none: they get none.
    pub service_range: Option<ServiceRange>,
    /// What `/version` says, as in `v1.36.0`.
    pub version: String,
    /// Requests in progress, watches not counted.
    pub limits: RequestLimits,
    /// Who did what is told here; none: nowhere.
    pub audit: Option<Arc<Audit>>,
    /// Which requests are traced, and where to; none: none.
    pub tracing: Option<Arc<Tracing>>,
    /// What is encrypted in the store; none: nothing.
    pub encryption: Option<Arc<Encryption>>,
    /// Controllers that something else runs in place of the server.
    pub disabled_controllers: Vec<crate::Controller>,
    /// Streams into pods; none: there are no nodes that run them.
    pub forward: Option<Arc<dyn crate::Forward>>,
    /// What containers have written; none: there are no nodes that run them.
    pub logs: Option<Arc<dyn crate::Logs>>,
    /// Who answers for groups that APIServices name; none: nobody does.
    pub aggregated: Option<Arc<dyn crate::Backend>>,
    /// What others in this process add to `/metrics`: families in OpenMetrics' text form, without its end. Of other names than the server's.
    pub figures: Vec<Arc<dyn Fn() -> String + Send + Sync>>,
    /// Random numbers for uids and made-up names; a seeded source makes them repeatable.
    pub random: Arc<dyn Fn() -> u128 + Send + Sync>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            clock: Arc::new(wall_clock),
            profile: Profile::Management,
            client_ca_pem: None,
            service_account: None,
            bootstrap_tokens: false,
            admission: Vec::new(),
            authorizers: Vec::new(),
            authorization: None,
            node_authorizer: false,
            crds: Vec::new(),
            conversion: None,
            anonymous: Anonymous::Everywhere,
            authentication: None,
            service_range: None,
            version: "v1.36.0".to_owned(),
            limits: RequestLimits::default(),
            audit: None,
            tracing: None,
            encryption: None,
            disabled_controllers: Vec::new(),
            forward: None,
            logs: None,
            aggregated: None,
            figures: Vec::new(),
            random: Arc::new(rand::random),
        }
    }
}

/// The one place where this crate reads the machine's clock.
fn wall_clock() -> Timestamp {
    Timestamp::now()
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("read the service account keys: {0}")]
    Keys(#[source] crate::token::KeyError),
    #[error("make the objects that every cluster has")]
    Bootstrap(#[source] crate::status::Error),
    #[error("install the CRD {name}")]
    Crd {
        name: String,
        #[source]
        source: crate::status::Error,
    },
    #[error("read the objects that are kept")]
    Load(#[source] crate::status::Error),
}

pub(crate) struct State {
    pub store: SharedStore,
    pub options: Options,
    pub catalog: RwLock<Catalog>,
    pub access: RwLock<Access>,
    /// Webhooks and policies.
    hooks: RwLock<Arc<Registry>>,
    /// Quotas and limit ranges.
    limits: RwLock<Limits>,
    pub keys: Option<Keys>,
    pub service_range: Option<ServiceRange>,
    pub fairness: Fairness,
    pub metrics: Arc<Metrics>,
    pub sealed: Arc<Sealed>,
    pub ending: Ending,
    pub collector: Collector,
    /// The OpenAPI documents that were asked for.
    pub documents: Mutex<HashMap<String, crate::documents::Document>>,
    /// What watchers have in common.
    pub views: crate::watch::Views,
    /// The last revision at which each role, binding and CRD was taken in.
    seen: Mutex<HashMap<Vec<u8>, Revision>>,
    pub stop: CancellationToken,
    tasks: TaskTracker,
}

/// A running API server; clones are the same server. It lives until [`Server::shutdown`].
#[derive(Clone)]
pub struct Server(Arc<State>);

impl Server {
    /// Opens the API over `store`: makes the namespaces, roles and CRDs that are missing, and starts the garbage
    /// collector and what empties namespaces.
    pub async fn start(store: SharedStore, mut options: Options) -> Result<Self, StartError> {
        if options.node_authorizer {
            options.admission.push(Arc::new(crate::authz::restriction::NodeRestriction));
        }
        let keys = options.service_account.as_ref().map(Keys::new).transpose().map_err(StartError::Keys)?;
        let metrics = Arc::new(Metrics::new());
        let sealed = Arc::new(Sealed::new(store, options.encryption.clone()));
        let store: SharedStore = Arc::clone(&sealed) as SharedStore;
        let store: SharedStore = Arc::new(Metered::new(store, Arc::clone(&metrics)));
        let mut state = State {
            catalog: RwLock::new(Catalog::new(options.profile)),
            access: RwLock::default(),
            hooks: RwLock::default(),
            limits: RwLock::default(),
            keys,
            service_range: options.service_range,
            fairness: Fairness::new(options.limits, &metrics),
            ending: Ending::default(),
            metrics,
            sealed,
            collector: Collector::default(),
            documents: Mutex::default(),
            views: crate::watch::Views::default(),
            seen: Mutex::default(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            store,
            options,
        };
        let crds = std::mem::take(&mut state.options.crds);
        let server = Self(Arc::new(state));
        let after = bootstrap::ensure(&server).await.map_err(StartError::Bootstrap)?;
        tracing::debug!(%after, "the objects that every cluster has are there");
        let watch = crate::collector::load(&server).await.map_err(StartError::Load)?;
        // They are in the store then, and not kept here.
        for crd in crds {
            let name = crate::object::name(&crd).to_owned();
            bootstrap::install_crd(&server, &crd).await.map_err(|source| StartError::Crd { name, source })?;
        }
        server.0.tasks.spawn(crate::collector::observe(server.clone(), watch));
        server.0.tasks.spawn(crate::collector::work(server.clone()));
        if let Some(audit) = &server.0.options.audit {
            audit.start();
        }
        if let Some(tracing) = server.0.options.tracing.clone() {
            let (version, stop) = (server.0.options.version.clone(), server.0.stop.clone());
            server.0.tasks.spawn(tracing.export(version, server.new_uid(), stop));
        }
        Ok(server)
    }

    /// The whole API. Who calls is taken from the request's extensions ([`crate::PeerCertificates`]) or its
    /// Authorization header.
    pub fn router(&self) -> Router {
        let server = self.clone();
        Router::new().fallback(move |request: HttpRequest| {
            let server = server.clone();
            async move { http::handle(server, request, None).await }
        })
    }

    /// The whole API for a caller in this process, whose identity is fixed and whose headers are not asked. Give it to
    /// `kube::Client::new`.
    pub fn service_as(&self, user: User) -> Router {
        let server = self.clone();
        let user = Arc::new(user);
        Router::new().fallback(move |request: HttpRequest| {
            let (server, user) = (server.clone(), Arc::clone(&user));
            async move { http::handle(server, request, Some(user)).await }
        })
    }

    /// One request, in process.
    pub async fn call_as(&self, user: Arc<User>, request: HttpRequest) -> Response {
        http::handle(self.clone(), request, Some(user)).await
    }

    /// From now on `/readyz` says that the server is ending, so that load balancers turn elsewhere; all else goes on.
    pub fn announce_end(&self) {
        self.0.ending.0.cancel();
    }

    /// Whether this server does what is to be done once for all servers over a store: garbage collection, the emptying of
    /// namespaces and CRDs, service accounts and their tokens, old events. It does from its start on.
    pub fn collect(&self, works: bool) {
        self.0.collector.set_working(works);
    }

    /// Ends the watches and the background tasks; the store stays.
    pub async fn shutdown(&self) {
        self.announce_end();
        self.0.stop.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
        if let Some(audit) = &self.0.options.audit {
            audit.close().await;
        }
    }

    pub fn store(&self) -> &SharedStore {
        &self.0.store
    }

    pub(crate) fn state(&self) -> &State {
        &self.0
    }

    pub(crate) fn now(&self) -> Timestamp {
        (self.0.options.clock)()
    }

    /// A fresh uid (RFC 9562, version 4).
    pub(crate) fn new_uid(&self) -> String {
        uuid::Builder::from_random_bytes((self.0.options.random)().to_be_bytes()).into_uuid().to_string()
    }

    /// Letters and digits that make no words (`apimachinery/pkg/util/rand`).
    pub(crate) fn new_suffix(&self) -> String {
        const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
        let mut number = (self.0.options.random)();
        let mut letter = || {
            let i = usize::try_from(number % LETTERS.len() as u128).expect("less than the number of letters");
            number /= LETTERS.len() as u128;
            char::from(LETTERS[i])
        };
        (0..crate::names::SUFFIX_BYTES).map(|_| letter()).collect()
    }

    pub(crate) fn catalog(&self) -> Catalog {
        self.0.catalog.read().clone()
    }

    /// What limits namespaces.
    pub(crate) fn limits(&self) -> Limits {
        self.0.limits.read().clone()
    }

    /// The webhooks and policies as they stand.
    pub(crate) fn hooks(&self) -> Arc<Registry> {
        Arc::clone(&self.0.hooks.read())
    }

    /// The keys of the roles, bindings and CRDs that were taken in.
    pub(crate) fn taken_in(&self) -> HashSet<Vec<u8>> {
        self.0.seen.lock().keys().cloned().collect()
    }

    /// Takes a role, binding, CRD, APIService, webhook configuration or policy, as it is since `revision`, into the indexes. Both the
    /// request that wrote it and the
    /// watch bring it here; the older is dropped. `settled`: no older news of the key can follow.
    pub(crate) fn take_in(&self, key: &[u8], revision: Revision, value: Option<&[u8]>, settled: bool) {
        let Some((group, plural, namespace, name)) = split_key(key) else { return };
        let is_crd = plural == "customresourcedefinitions" && group == crd::GROUP;
        let is_admission = group == crate::admission::GROUP;
        let is_limit = group == "core" && matches!(plural, "resourcequotas" | "limitranges");
        let is_registration = (group, plural) == (aggregation::GROUP, aggregation::PLURAL);
        if !is_crd && !is_admission && !is_limit && !is_registration && group != crate::access::GROUP {
            return;
        }
        let mut seen = self.0.seen.lock();
        let known = seen.get(key).is_some_and(|known| *known >= revision);
        if settled && value.is_none() {
            seen.remove(key);
        } else if !known {
            seen.insert(key.to_vec(), revision);
        }
        if known {
            return;
        }
        let object: Option<Value> = value.and_then(|value| serde_json::from_slice(value).ok());
        if is_crd {
            let established = object.as_ref().filter(|definition| crd::is_established(definition));
            let conversion = self.0.options.conversion.as_ref();
            let kinds =
                established.and_then(|definition| crd::compile(definition, Some(&self.0.store), conversion).ok());
            let mut catalog = self.0.catalog.write();
            *catalog = catalog.with(name, kinds);
        } else if is_registration {
            let registration = object.as_ref().and_then(Registration::read);
            let mut catalog = self.0.catalog.write();
            *catalog = catalog.with_registration(name, registration);
        } else if is_limit {
            self.0.limits.write().take_in(plural, namespace, name, object);
        } else if is_admission {
            let mut registry = self.0.hooks.write();
            *registry = Arc::new(registry.with(plural, name, object.as_ref()));
        } else {
            self.0.access.write().take_in(plural, namespace, name, object.as_ref());
        }
    }
}
