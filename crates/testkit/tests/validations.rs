//! What the OpenStack provider's kinds accept and refuse, asked of the API server: schemas, CEL rules and admission together.
//!
//! Source of the cases: kubernetes-sigs/cluster-api-provider-openstack test/e2e/suites/apivalidations and pkg/webhooks.

#[path = "validations/core.rs"]
mod core;

use std::sync::Arc;

use api::admission;
use apiserver::{Admission, Denied, FieldError, FieldErrorKind, Operation, Request, Server, User, Warning};
use kube::{
    Api, Client,
    api::{DynamicObject, Patch, PatchParams, PostParams},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::{Value, json};
use store::{Embedded, Limits};

const CASES: &str = include_str!("validations/cases.txt");

/// The rules of `api`, as the binary puts them in.
struct Rules;

#[async_trait::async_trait]
impl Admission for Rules {
    async fn mutate(&self, request: &Request, object: &mut Value) -> Result<Vec<Warning>, Denied> {
        if request.subresource.is_empty() {
            admission::default(&request.group, &request.kind, object, request.old.as_deref());
        }
        Ok(Vec::new())
    }

    async fn validate(&self, request: &Request, object: &Value) -> Result<Vec<Warning>, Denied> {
        if !request.subresource.is_empty() || request.operation == Operation::Delete {
            return Ok(Vec::new());
        }
        let problems = admission::validate(&request.group, &request.kind, object, request.old.as_deref());
        if problems.is_empty() {
            return Ok(Vec::new());
        }
        let error = |problem: admission::Problem| FieldError {
            kind: match problem.kind {
                admission::ProblemKind::Required => FieldErrorKind::Required,
                admission::ProblemKind::Invalid => FieldErrorKind::Invalid,
                admission::ProblemKind::Forbidden => FieldErrorKind::Forbidden,
                admission::ProblemKind::Duplicate => FieldErrorKind::Duplicate,
            },
            path: problem.path,
            value: problem.value,
            detail: problem.detail,
        };
        Err(Denied::Invalid(problems.into_iter().map(error).collect()))
    }
}

struct Case<'a> {
    accepted: bool,
    kind: &'a str,
    first: Value,
    status: Option<Value>,
    then: Option<Value>,
    message: &'a str,
}

fn read(line: &str) -> Case<'_> {
    let mut parts = line.splitn(3, " | ");
    let (verdict, kind) = parts.next().unwrap().split_once(' ').unwrap();
    let (before, then) = match parts.next().unwrap().split_once(" => ") {
        Some((before, then)) => (before, Some(then)),
        None => (line.split(" | ").nth(1).unwrap(), None),
    };
    let (first, status) = before.split_once(" ; ").map_or((before, None), |(first, status)| (first, Some(status)));
    let json = |text: &str| serde_json::from_str(text).unwrap_or_else(|error| panic!("{line}: {error}"));
    Case {
        accepted: verdict == "+",
        kind,
        first: json(first),
        status: status.map(json),
        then: then.map(json),
        message: parts.next().unwrap_or_default(),
    }
}

/// RFC 7396.
fn merge(target: &mut Value, change: &Value) {
    let Value::Object(change) = change else {
        *target = change.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (name, value) in change {
        match value {
            Value::Null => drop(target.as_object_mut().unwrap().remove(name)),
            value => merge(&mut target[name], value),
        }
    }
}

/// Kind, version, whether it is a template, and the smallest spec.
fn smallest(kind: &str) -> (&'static str, &'static str, bool, Value) {
    let identity = json!({"name": "creds", "cloudName": "openstack"});
    let cluster = json!({ "identityRef": identity });
    let machine = json!({"flavor": {"filter": {"name": "f"}}, "image": {"filter": {"name": "i"}}});
    let server = json!({
        "flavor": "f", "image": {"filter": {"name": "i"}}, "identityRef": identity, "sshKeyName": "k",
        "ports": [{"network": {"id": "06c32c52-f207-4f6a-a769-bbcbe5a43f5c"}}],
    });
    match kind {
        "cluster" => ("OpenStackCluster", "v1beta2", false, cluster),
        "clustertemplate" => ("OpenStackClusterTemplate", "v1beta2", true, cluster),
        "machine" => ("OpenStackMachine", "v1beta2", false, machine),
        "machinetemplate" => ("OpenStackMachineTemplate", "v1beta2", true, machine),
        "pooltemplate" => ("OpenStackMachinePoolTemplate", "v1beta2", true, json!({"template": {"spec": machine}})),
        "server" => ("OpenStackServer", "v1alpha1", false, server),
        other => panic!("no kind {other}"),
    }
}

/// What came of a case; the message of a refusal.
async fn run(client: &Client, case: &Case<'_>, name: String) -> Result<(), String> {
    let (kind, version, template, mut spec) = smallest(case.kind);
    let group = "infrastructure.cluster.x-k8s.io";
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    let api = Api::<DynamicObject>::namespaced_with(client.clone(), "default", &resource);
    let wrapped = |spec: &Value| if template { json!({"template": {"spec": spec}}) } else { spec.clone() };
    merge(&mut spec, &case.first);
    let object = json!({
        "apiVersion": format!("{group}/{version}"), "kind": kind, "metadata": {"name": name}, "spec": wrapped(&spec),
    });
    let made = api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await;
    let Some(then) = &case.then else { return made.map(drop).map_err(|error| error.to_string()) };
    made.unwrap_or_else(|error| panic!("{name} is to be made: {error}"));
    if let Some(status) = &case.status {
        let change = Patch::Merge(json!({ "status": status }));
        api.patch_status(&name, &PatchParams::default(), &change).await.unwrap();
    }
    let change = Patch::Merge(json!({"spec": wrapped(then), "metadata": {"labels": {"changed": "yes"}}}));
    api.patch(&name, &PatchParams::default(), &change).await.map(drop).map_err(|error| error.to_string())
}

#[tokio::test]
async fn published_cases_are_accepted_and_refused_as_published() {
    let crds = api::crd::all().iter().map(|crd| serde_json::to_value(crd).unwrap()).collect();
    let options = apiserver::Options { crds, admission: vec![Arc::new(Rules)], ..Default::default() };
    let server = Server::start(Arc::new(Embedded::memory(Limits::default())), options).await.unwrap();
    let client = Client::new(server.service_as(User::master("test")), "default");
    let mut wrong = Vec::new();
    let lines = CASES.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    for (index, line) in lines.enumerate() {
        let case = read(line);
        match (run(&client, &case, format!("case-{index}")).await, case.accepted) {
            (Ok(()), true) => {}
            (Ok(()), false) => wrong.push(format!("accepted: {line}")),
            (Err(message), true) => wrong.push(format!("refused: {line}\n    {message}")),
            (Err(message), false) if message.contains(case.message) && !case.message.is_empty() => {}
            (Err(message), false) => wrong.push(format!("refused with other words: {line}\n    {message}")),
        }
    }
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
    server.shutdown().await;
}

#[tokio::test]
async fn what_is_left_out_is_filled_in() {
    let crds = api::crd::all().iter().map(|crd| serde_json::to_value(crd).unwrap()).collect();
    let options = apiserver::Options { crds, admission: vec![Arc::new(Rules)], ..Default::default() };
    let server = Server::start(Arc::new(Embedded::memory(Limits::default())), options).await.unwrap();
    let client = Client::new(server.service_as(User::master("test")), "default");
    let api = Api::<api::openstack_cluster::OpenStackCluster>::namespaced(client, "default");
    let identity = json!({"name": "creds", "cloudName": "openstack"});
    let machine = json!({"flavor": {"filter": {"name": "f"}}, "image": {"filter": {"name": "i"}}});
    let spec = json!({"identityRef": identity, "apiServer": {"managedLoadBalancer": {}}, "bastion": {"spec": machine}});
    let object = serde_json::from_value(json!({"metadata": {"name": "full"}, "spec": spec})).unwrap();
    let made = api.create(&PostParams::default(), &object).await.unwrap().spec;
    assert_eq!(made.identity_ref.type_, Some(api::openstack_reference::IdentityType::Secret));
    assert_eq!(made.api_server.unwrap().managed_load_balancer.unwrap().enabled, Some(true));
    assert_eq!(made.bastion.unwrap().enabled, Some(true));
    let object =
        serde_json::from_value(json!({"metadata": {"name": "bare"}, "spec": {"identityRef": identity}})).unwrap();
    let bare = api.create(&PostParams::default(), &object).await.unwrap().spec;
    assert!(bare.api_server.is_none() && bare.bastion.is_none());
    server.shutdown().await;
}
