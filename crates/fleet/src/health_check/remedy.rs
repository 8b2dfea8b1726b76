//! Remediation by somebody else: an object made from a template, with the machine's name, asks for it.
//!
//! Source: kubernetes-sigs/cluster-api docs/proposals/20191030-machine-health-checking.md (external remediation).

use std::collections::BTreeMap;

use api::{condition::Statement, machine::Machine, names, topology::RemediationTemplateRef};
use control::{Key, Plan};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, ListParams},
    core::GroupVersionKind,
};

use super::TEMPLATE_PAUSE_S;
use crate::{external::External, machine_set, owner};

/// Requests that are read at once. There is one for each machine at most.
const REQUESTS_MAX: u32 = 10_000;

pub struct Remedy {
    /// `Err` says why there is none.
    pub template: std::result::Result<External, String>,
    /// What the template is cloned into.
    pub resource: ApiResource,
    pub requests: BTreeMap<String, External>,
}

impl Remedy {
    pub async fn find(client: &Client, namespace: &str, reference: &RemediationTemplateRef) -> Self {
        let (group, version) = reference.api_version.split_once('/').unwrap_or(("", &reference.api_version));
        // Plurals by the contract: https://cluster-api.sigs.k8s.io/developer/providers/contracts/overview
        let resource = |kind: &str| ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        let (from, to) = (resource(&reference.kind), resource(machine_set::clone_kind(&reference.kind)));
        let template =
            Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &from).get(&reference.name).await;
        let params = ListParams::default().limit(REQUESTS_MAX);
        let requests = Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &to).list(&params).await;
        let kind = &to.kind;
        let found = requests.map_err(|error| format!("Cannot list {kind}: {error}"));
        let template = template.map_err(|error| {
            format!("Error retrieving remediation template {} {namespace}/{}: {error}", reference.kind, reference.name)
        });
        let (template, requests) = match (template, found) {
            (Ok(template), Ok(requests)) => (Ok(External::from_dynamic(&from, template)), requests.items),
            (Err(why), requests) => (Err(why), requests.map(|list| list.items).unwrap_or_default()),
            (_, Err(why)) => (Err(why), Vec::new()),
        };
        let requests = requests
            .into_iter()
            .map(|request| (request.metadata.name.clone().unwrap_or_default(), External::from_dynamic(&to, request)));
        Self { template, requests: requests.collect(), resource: to }
    }

    /// Asks for the machine's remediation, unless that has been done; what the machine has to say about it.
    pub fn request(&self, machine: &Machine, plan: &mut Plan) -> Option<Statement> {
        let key = Key::of(machine);
        if self.requests.contains_key(&key.name) {
            return None;
        }
        let template = match &self.template {
            Ok(template) => template,
            Err(why) => {
                plan.wait("the template for remediation", TEMPLATE_PAUSE_S);
                return Some(Statement::no("ExternallyRemediated", "RemediationTemplateNotFound", why.as_str()));
            }
        };
        let labels = [(names::CLUSTER_LABEL.to_owned(), machine.spec.cluster_name.clone())].into();
        let maker = owner::reference(machine, false);
        let body = machine_set::clone(template, &key.name, &key.namespace, &labels, &maker);
        plan.create_external(&self.resource, key, body);
        Some(Statement::no("ExternallyRemediated", "WaitingForRemediation", ""))
    }

    /// The machine is well again: nobody is to replace it.
    pub fn withdraw(&self, machine: &Machine, plan: &mut Plan) {
        let request = machine.metadata.name.as_ref().and_then(|name| self.requests.get(name));
        if let Some(request) = request.filter(|request| !request.deleting()) {
            plan.delete_external(&request.resource, &request.meta);
        }
    }
}
