//! The service account of each organization's namespace, and its rights there: the releases that the organization's apps make in the
//! management cluster are made with them.
//!
//! Source: giantswarm/rbac-operator (`automation` accounts). Organizations themselves are not known yet: their namespaces are, by name.

use std::sync::Arc;

use api::app::{MANAGED_BY_LABEL, ORGANIZATION_PREFIX};
use control::{Cache, Key, Outcome, Plan, Queue, Reconcile, Result, Writer};
use jiff::Timestamp;
use k8s_openapi::api::{
    core::v1::{Namespace, ServiceAccount},
    rbac::v1::{RoleBinding, RoleRef, Subject},
};
use kube::{
    Client,
    core::{ObjectMeta, PartialObjectMeta},
    runtime::watcher,
};

/// As the published controller calls itself.
const MANAGER: &str = "rbac-operator";

/// Who is to have which rights.
#[derive(Clone, Debug)]
pub struct Automation {
    /// Name of the service account.
    pub account: String,
    /// Name of the ClusterRole that it is bound to in its namespace, and of the binding. Somebody else makes it.
    pub role: String,
}

pub struct Organizations {
    writer: Writer,
    namespaces: Arc<Cache<PartialObjectMeta<Namespace>>>,
    accounts: Arc<Cache<ServiceAccount>>,
    bindings: Arc<Cache<RoleBinding>>,
    automation: Automation,
}

pub struct Seen {
    namespace: String,
    account: Option<Arc<ServiceAccount>>,
    binding: Option<Arc<RoleBinding>>,
}

impl Organizations {
    pub fn start(client: &Client, writer: Writer, automation: Automation, queue: &Queue) -> Self {
        let called = |name: &str| watcher::Config::default().fields(&format!("metadata.name={name}"));
        let namespaces = Cache::start(client.clone(), watcher::Config::default(), &writer);
        let accounts = Cache::start(client.clone(), called(&automation.account), &writer);
        let bindings = Cache::start(client.clone(), called(&automation.role), &writer);
        namespaces.feed(queue);
        feed_namespace(&accounts, queue);
        feed_namespace(&bindings, queue);
        Self { writer, namespaces, accounts, bindings, automation }
    }

    pub async fn synced(&self) {
        self.namespaces.synced().await;
        self.accounts.synced().await;
        self.bindings.synced().await;
    }
}

fn feed_namespace<K: control::Cached>(objects: &Cache<K>, queue: &Queue) {
    let queue = queue.clone();
    objects.on_change(move |object| queue.add(Key::new("", object.meta().namespace.clone().unwrap_or_default())));
}

impl Reconcile for Organizations {
    const NAME: &'static str = "organizations";
    type Seen = Seen;
    type Plan = Plan;

    async fn observe(&self, key: &Key) -> Result<Option<Seen>> {
        let found = self.namespaces.get(key).filter(|namespace| namespace.metadata.deletion_timestamp.is_none());
        if !key.name.starts_with(ORGANIZATION_PREFIX) || found.is_none() {
            return Ok(None);
        }
        let at = |name: &str| Key::new(&key.name, name);
        let account = self.accounts.get(&at(&self.automation.account));
        let binding = self.bindings.get(&at(&self.automation.role));
        Ok(Some(Seen { namespace: key.name.clone(), account, binding }))
    }

    /// What is there already is left as it is: an administrator may have said who else has the rights, or that nobody has.
    fn plan(&self, seen: &Seen, _: Timestamp) -> Plan {
        let mut plan = Plan::nothing();
        if seen.account.is_none() {
            let metadata = metadata(&seen.namespace, &self.automation.account);
            plan.create(&ServiceAccount { metadata, ..ServiceAccount::default() });
        }
        if seen.binding.is_none() {
            plan.create(&binding(&seen.namespace, &self.automation));
        }
        plan
    }

    async fn act(&self, _: &Key, _: &Seen, plan: Plan) -> Result<Outcome> {
        self.writer.execute(plan).await
    }
}

fn binding(namespace: &str, automation: &Automation) -> RoleBinding {
    RoleBinding {
        metadata: metadata(namespace, &automation.role),
        role_ref: RoleRef {
            api_group: Some("rbac.authorization.k8s.io".to_owned()),
            kind: "ClusterRole".to_owned(),
            name: automation.role.clone(),
        },
        subjects: Some(vec![Subject {
            kind: "ServiceAccount".to_owned(),
            name: automation.account.clone(),
            namespace: Some(namespace.to_owned()),
            ..Subject::default()
        }]),
    }
}

fn metadata(namespace: &str, name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(namespace.to_owned()),
        labels: Some([(MANAGED_BY_LABEL.to_owned(), MANAGER.to_owned())].into()),
        ..ObjectMeta::default()
    }
}
