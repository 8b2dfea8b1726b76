//! Ports of the nodes for Services that are reached from outside.
//!
//! In life the API server gives them out when a Service is written (kubernetes/kubernetes pkg/registry/core/service/portallocator).

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Service;
use serde_json::json;

use super::{observed::Observed, plan::Plan, pods};

/// Where node ports lie (kube-apiserver's default).
const PORTS: std::ops::RangeInclusive<i32> = 30000..=32767;

fn wants(service: &Service) -> bool {
    let Some(spec) = &service.spec else { return false };
    match spec.type_.as_deref() {
        Some("NodePort") => true,
        Some("LoadBalancer") => spec.allocate_load_balancer_node_ports != Some(false),
        _ => false,
    }
}

pub fn plan(seen: &Observed, plan: &mut Plan) {
    let ports = |service: &Service| service.spec.clone().and_then(|spec| spec.ports).unwrap_or_default();
    let mut taken: BTreeSet<i32> = seen.services.iter().flat_map(ports).filter_map(|port| port.node_port).collect();
    for service in seen.services.iter().filter(|service| wants(service) && !pods::is_deleted(*service)) {
        let mut own = ports(service);
        let mut changed = false;
        for port in own.iter_mut().filter(|port| port.node_port.unwrap_or(0) == 0) {
            let Some(free) = PORTS.clone().find(|port| !taken.contains(port)) else { return };
            taken.insert(free);
            port.node_port = Some(free);
            changed = true;
        }
        if changed {
            let version = &service.metadata.resource_version;
            plan.patch(service, json!({"metadata": {"resourceVersion": version}, "spec": {"ports": own}}));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn service(name: &str, type_: &str, node_port: Option<i32>) -> Value {
        json!({"kind": "Service", "metadata": {"name": name, "namespace": "default"}, "spec": {"type": type_,
            "ports": [{"port": 80, "nodePort": node_port}]}})
    }

    fn planned(objects: &[Value]) -> Vec<String> {
        let mut made = Plan::default();
        plan(&Observed::of("2026-01-01T00:00:00Z", objects), &mut made);
        made.told()
    }

    #[test]
    fn services_that_are_reached_from_outside_get_ports_that_nobody_has() {
        let told = planned(&[
            service("inside", "ClusterIP", None),
            service("has", "NodePort", Some(30000)),
            service("a", "NodePort", None),
            service("b", "LoadBalancer", None),
        ]);
        assert_eq!(told.len(), 2);
        assert!(told[0].starts_with("patch Service a") && told[0].contains("\"nodePort\":30001"), "{told:?}");
        assert!(told[1].starts_with("patch Service b") && told[1].contains("\"nodePort\":30002"), "{told:?}");
        let mut without = service("c", "LoadBalancer", None);
        without["spec"]["allocateLoadBalancerNodePorts"] = false.into();
        assert!(planned(&[without]).is_empty());
    }
}
