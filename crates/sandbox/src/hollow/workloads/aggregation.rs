//! Whether the Service behind an APIService can be reached.
//!
//! A hollow pod answers nothing, so only what the sandbox answers itself ([`super::metrics`]) becomes Available.
//!
//! Source: kubernetes/kube-aggregator pkg/controllers/status/remote.

use k8s_openapi::{
    api::{core::v1::Service, discovery::v1::EndpointSlice},
    apimachinery::pkg::apis::meta::v1::Time,
    kube_aggregator::pkg::apis::apiregistration::v1::{
        APIService, APIServiceCondition, APIServiceSpec, APIServiceStatus, ServiceReference,
    },
};
use kube::ResourceExt;

use super::{endpoints::SERVICE_LABEL, metrics, observed::Observed, plan::Plan, pods};

const AVAILABLE: &str = "Available";
/// Of a Service, if an APIService names none.
const PORT: i32 = 443;

pub fn plan(seen: &Observed, plan: &mut Plan) {
    for registered in seen.api_services.iter().filter(|registered| !pods::is_deleted(*registered)) {
        let Some((spec, reference)) = remote(registered) else { continue };
        let (reason, message) = match check(seen, spec, reference) {
            Ok(()) => ("Passed", "all checks passed".to_owned()),
            Err(failure) => failure,
        };
        let status = if reason == "Passed" { "True" } else { "False" };
        let old = registered.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let old = old.into_iter().find(|condition| condition.type_ == AVAILABLE);
        let since = old.filter(|old| old.status == status).and_then(|old| old.last_transition_time.clone());
        let condition = APIServiceCondition {
            type_: AVAILABLE.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_transition_time: Some(since.unwrap_or(Time(seen.now))),
        };
        if old != Some(&condition) {
            let status = Some(APIServiceStatus { conditions: Some(vec![condition]) });
            plan.status(&APIService { status, ..registered.clone() });
        }
    }
}

/// None of a group of the API server's own.
fn remote(registered: &APIService) -> Option<(&APIServiceSpec, &ServiceReference)> {
    let spec = registered.spec.as_ref()?;
    Some((spec, spec.service.as_ref()?))
}

/// What is wrong: a reason and a message.
fn check(seen: &Observed, spec: &APIServiceSpec, to: &ServiceReference) -> Result<(), (&'static str, String)> {
    let (name, namespace) = (to.name.as_deref().unwrap_or_default(), to.namespace.as_deref().unwrap_or_default());
    let is = |found: &&Service| {
        found.metadata.name.as_deref() == Some(name) && found.metadata.namespace.as_deref() == Some(namespace)
    };
    let what = format!("service/{name} in \"{namespace}\"");
    let Some(service) = seen.services.iter().find(is) else {
        return Err(("ServiceNotFound", format!("{what} is not present")));
    };
    let of_service = |slice: &&EndpointSlice| {
        let of = slice.labels().get(SERVICE_LABEL).map(String::as_str);
        slice.metadata.namespace.as_deref() == Some(namespace) && of == Some(name)
    };
    let slices: Vec<&EndpointSlice> = seen.slices.iter().filter(of_service).collect();
    let port = to.port.unwrap_or(PORT);
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let listening = ports.into_iter().find(|found| found.port == port);
    let port_name = listening.and_then(|found| found.name.clone()).unwrap_or_default();
    let ready = slices.iter().any(|slice| has_ready_endpoint(slice, &port_name));
    let type_ = service.spec.as_ref().and_then(|spec| spec.type_.as_deref());
    if matches!(type_, None | Some("ClusterIP")) {
        if listening.is_none() {
            return Err(("ServicePortError", format!("{what} is not listening on port {port}")));
        }
        if slices.is_empty() {
            return Err(("EndpointsNotFound", format!("cannot find endpointslices for {what}")));
        }
        if !ready {
            let why = format!("endpointslices for {what} have no addresses with port name \"{port_name}\"");
            return Err(("MissingEndpoints", why));
        }
    }
    let (group, version) = (spec.group.as_deref().unwrap_or_default(), spec.version.as_deref().unwrap_or_default());
    if ready && metrics::answers(group, version) {
        return Ok(());
    }
    let url = format!("https://{name}.{namespace}.svc:{port}/apis/{group}/{version}");
    let why = format!("failing or missing response from {url}: nothing runs in the pods of a hollow cluster");
    Err(("FailedDiscoveryCheck", why))
}

fn has_ready_endpoint(slice: &EndpointSlice, port_name: &str) -> bool {
    let ready = |conditions: Option<bool>| conditions != Some(false);
    let mut endpoints = slice.endpoints.iter().flatten();
    let mut ports = slice.ports.iter().flatten();
    endpoints.any(|endpoint| ready(endpoint.conditions.as_ref().and_then(|conditions| conditions.ready)))
        && ports.any(|port| port.name.as_deref().unwrap_or_default() == port_name && port.port.is_some())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const NOW: &str = "2026-01-01T00:00:00Z";

    fn registered(group: &str) -> Value {
        json!({"kind": "APIService", "metadata": {"name": format!("v1beta1.{group}")}, "spec": {"group": group,
            "version": "v1beta1", "groupPriorityMinimum": 100, "versionPriority": 100,
            "service": {"namespace": "kube-system", "name": "metrics-server", "port": 443}}})
    }

    fn service(type_: &str, port: i32) -> Value {
        json!({"kind": "Service", "metadata": {"name": "metrics-server", "namespace": "kube-system"},
            "spec": {"type": type_, "ports": [{"name": "https", "port": port}]}})
    }

    fn slice(ready: bool) -> Value {
        json!({"kind": "EndpointSlice", "addressType": "IPv4", "ports": [{"name": "https", "port": 4443}],
            "metadata": {"name": "metrics-server-x", "namespace": "kube-system",
                "labels": {"kubernetes.io/service-name": "metrics-server"}},
            "endpoints": [{"addresses": ["10.244.0.2"], "conditions": {"ready": ready}}]})
    }

    fn planned(objects: &[Value]) -> Plan {
        let mut made = Plan::default();
        plan(&Observed::of(NOW, objects), &mut made);
        made
    }

    fn told(objects: &[Value]) -> String {
        let condition = planned(objects).status_of("APIService")["conditions"][0].clone();
        let text = |key: &str| condition[key].as_str().unwrap_or_default().to_owned();
        format!("{} {}", text("status"), text("reason"))
    }

    #[test]
    fn a_group_is_available_when_the_pods_are_ready_that_the_sandbox_answers_for() {
        let metrics = || registered("metrics.k8s.io");
        for (objects, want) in [
            (vec![metrics()], "False ServiceNotFound"),
            (vec![metrics(), service("ClusterIP", 80)], "False ServicePortError"),
            (vec![metrics(), service("ClusterIP", 443)], "False EndpointsNotFound"),
            (vec![metrics(), service("ClusterIP", 443), slice(false)], "False MissingEndpoints"),
            (vec![metrics(), service("ExternalName", 443)], "False FailedDiscoveryCheck"),
            (vec![metrics(), service("ClusterIP", 443), slice(true)], "True Passed"),
            (vec![registered("x.example.com"), service("ClusterIP", 443), slice(true)], "False FailedDiscoveryCheck"),
        ] {
            assert_eq!(told(&objects), want);
        }
    }

    #[test]
    fn what_is_told_is_told_once_and_keeps_the_time_of_the_change() {
        let mut objects = vec![registered("metrics.k8s.io")];
        objects[0]["status"] = planned(&objects).status_of("APIService");
        assert!(planned(&objects).told().is_empty());
        objects.push(service("ClusterIP", 443));
        objects[0]["status"]["conditions"][0]["lastTransitionTime"] = "2025-01-01T00:00:00Z".into();
        let condition = planned(&objects).status_of("APIService")["conditions"][0].clone();
        assert_eq!(condition["lastTransitionTime"], "2025-01-01T00:00:00Z", "it was not available before either");
    }

    #[test]
    fn groups_of_the_api_server_are_left_alone() {
        let mut local = registered("x.example.com");
        local["spec"].as_object_mut().unwrap().remove("service");
        assert!(planned(&[local]).told().is_empty());
    }
}
