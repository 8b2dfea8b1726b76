//! EndpointSlices: the pods behind a Service.
//!
//! Source: kubernetes/kubernetes pkg/controller/endpointslice, staging/src/k8s.io/endpointslice.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        core::v1::{ObjectReference, Pod, Service, ServicePort, ServiceSpec},
        discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice},
    },
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};
use kube::ResourceExt;
use serde_json::json;

use super::{
    observed::{Observed, is_controlled_by},
    plan::Plan,
    pods,
};

pub const SERVICE_LABEL: &str = "kubernetes.io/service-name";
const MANAGER_LABEL: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";
const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";
/// Endpoints of one slice.
const ENDPOINTS_MAX: usize = 100;

pub fn plan(seen: &Observed, plan: &mut Plan) {
    for service in seen.services.iter().filter(|service| !pods::is_deleted(*service)) {
        let Some(spec) = &service.spec else { continue };
        let Some(selector) = spec.selector.as_ref().filter(|selector| !selector.is_empty()) else { continue };
        if spec.type_.as_deref() != Some("ExternalName") {
            of_one(seen, service, spec, selector, plan);
        }
    }
}

/// What one slice is to have.
#[derive(Default)]
struct Wanted {
    ports: Vec<EndpointPort>,
    endpoints: Vec<Endpoint>,
}

fn of_one(
    seen: &Observed,
    service: &Service,
    spec: &ServiceSpec,
    selector: &BTreeMap<String, String>,
    plan: &mut Plan,
) {
    let chosen = |pod: &&Pod| {
        let has = |(key, value): (&String, &String)| pod.labels().get(key) == Some(value);
        pod.namespace() == service.namespace() && !pods::has_ended(pod) && selector.iter().all(has)
    };
    let mut groups: Vec<Wanted> = Vec::new();
    for pod in seen.pods.iter().filter(chosen) {
        let Some(endpoint) = endpoint(seen, service, spec, pod) else { continue };
        // Pods that call another port by the name are in slices of their own.
        let ports = ports(spec, pod);
        let room = |wanted: &&mut Wanted| wanted.ports == ports && wanted.endpoints.len() < ENDPOINTS_MAX;
        match groups.iter_mut().find(room) {
            Some(wanted) => wanted.endpoints.push(endpoint),
            None => groups.push(Wanted { ports, endpoints: vec![endpoint] }),
        }
    }
    if groups.is_empty() {
        groups.push(Wanted::default());
    }
    let labels = labels(service, spec);
    let own = |slice: &&EndpointSlice| {
        slice.labels().get(MANAGER_LABEL).map(String::as_str) == Some(MANAGER)
            && is_controlled_by(&slice.metadata, &service.metadata)
    };
    let mut slices = seen.slices.iter().filter(own);
    for wanted in groups {
        match slices.next() {
            Some(slice) => {
                let same = slice.endpoints.as_deref().unwrap_or_default() == wanted.endpoints
                    && slice.ports.as_deref().unwrap_or_default() == wanted.ports
                    && *slice.labels() == labels;
                if !same {
                    let labels = json!({"labels": labels});
                    let patch = json!({"metadata": labels, "endpoints": wanted.endpoints, "ports": wanted.ports});
                    plan.patch(slice, patch);
                }
            }
            None => plan.create(&slice(service, labels.clone(), wanted)),
        }
    }
    slices.for_each(|slice| plan.delete(slice));
}

fn labels(service: &Service, spec: &ServiceSpec) -> BTreeMap<String, String> {
    let mut labels = service.labels().clone();
    labels.insert(SERVICE_LABEL.into(), service.name_any());
    labels.insert(MANAGER_LABEL.into(), MANAGER.into());
    if spec.cluster_ip.as_deref() == Some("None") {
        labels.insert(HEADLESS_LABEL.into(), String::new());
    }
    labels
}

fn slice(service: &Service, labels: BTreeMap<String, String>, wanted: Wanted) -> EndpointSlice {
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(pods::generate_name(&service.name_any())),
            namespace: service.namespace(),
            labels: Some(labels),
            owner_references: Some(pods::owner(service)),
            ..ObjectMeta::default()
        },
        address_type: "IPv4".into(),
        endpoints: Some(wanted.endpoints),
        ports: Some(wanted.ports),
    }
}

fn endpoint(seen: &Observed, service: &Service, spec: &ServiceSpec, pod: &Pod) -> Option<Endpoint> {
    let address = pod.status.as_ref()?.pod_ip.clone().filter(|ip| !ip.is_empty())?;
    let serving = pods::is_ready(pod);
    let terminating = pods::is_deleted(pod);
    let ready = spec.publish_not_ready_addresses == Some(true) || (serving && !terminating);
    let node_name = pods::node(pod).map(str::to_owned);
    let node = node_name.as_deref().and_then(|name| seen.node(name));
    let named = pod.spec.as_ref().filter(|pod| pod.subdomain.as_deref() == Some(service.name_any().as_str()));
    Some(Endpoint {
        addresses: vec![address],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: named.and_then(|pod| pod.hostname.clone()),
        zone: node.and_then(|node| node.labels().get("topology.kubernetes.io/zone").cloned()),
        node_name,
        target_ref: Some(ObjectReference {
            kind: Some("Pod".into()),
            name: Some(pod.name_any()),
            namespace: pod.namespace(),
            uid: pod.uid(),
            ..ObjectReference::default()
        }),
        ..Endpoint::default()
    })
}

/// The ports of a Service as a pod has them; one that the pod does not name is left out.
fn ports(spec: &ServiceSpec, pod: &Pod) -> Vec<EndpointPort> {
    let number = |port: &ServicePort| match &port.target_port {
        Some(IntOrString::Int(number)) if *number > 0 => Some(*number),
        Some(IntOrString::String(name)) => {
            let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
            let mut ports = containers.flat_map(|container| container.ports.iter().flatten());
            ports.find(|found| found.name.as_ref() == Some(name)).map(|found| found.container_port)
        }
        _ => Some(port.port),
    };
    let read = |port: &ServicePort| {
        Some(EndpointPort {
            app_protocol: port.app_protocol.clone(),
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(number(port)?),
            protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
        })
    };
    spec.ports.iter().flatten().filter_map(read).collect()
}

#[cfg(test)]
mod tests;
