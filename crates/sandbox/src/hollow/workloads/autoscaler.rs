//! What a HorizontalPodAutoscaler tells in a cluster that measures nothing: it keeps its target between its limits, and says
//! that it has no metrics.
//!
//! Source: kubernetes/kubernetes pkg/controller/podautoscaler/horizontal.go.

use k8s_openapi::{
    api::autoscaling::v2::{
        HorizontalPodAutoscaler, HorizontalPodAutoscalerCondition, HorizontalPodAutoscalerSpec,
        HorizontalPodAutoscalerStatus, MetricSpec,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{Resource, ResourceExt};
use serde_json::json;

use super::{
    observed::Observed,
    plan::{Plan, Target, Write},
    pods,
};

const COMPONENT: &str = "horizontal-pod-autoscaler";

pub fn plan(seen: &Observed, plan: &mut Plan) {
    for scaler in seen.autoscalers.iter().filter(|scaler| !pods::is_deleted(*scaler)) {
        let spec = &scaler.spec;
        let status = status(seen, scaler, spec, plan);
        if scaler.status.as_ref() != Some(&status) {
            plan.status(&HorizontalPodAutoscaler { status: Some(status), ..scaler.clone() });
        }
    }
}

/// What is scaled, with the size that it is to have and the one that it has.
fn target(
    seen: &Observed,
    scaler: &HorizontalPodAutoscaler,
    spec: &HorizontalPodAutoscalerSpec,
) -> Option<(Target, i32, i32)> {
    let reference = &spec.scale_target_ref;
    fn one<K: Resource<DynamicType = ()>>(
        list: &[K],
        namespace: Option<String>,
        name: &str,
        sizes: impl Fn(&K) -> (Option<i32>, i32),
    ) -> Option<(Target, i32, i32)> {
        let found = list.iter().find(|one| one.name_any() == name && one.namespace() == namespace)?;
        let (wanted, has) = sizes(found);
        Some((Target::of(found), wanted.unwrap_or(1), has))
    }
    let (namespace, name) = (scaler.namespace(), reference.name.as_str());
    match reference.kind.as_str() {
        "Deployment" => one(&seen.deployments, namespace, name, |one| {
            let has = one.status.as_ref().and_then(|status| status.replicas).unwrap_or(0);
            (one.spec.as_ref().and_then(|spec| spec.replicas), has)
        }),
        "ReplicaSet" => one(&seen.replica_sets, namespace, name, |one| {
            let has = one.status.as_ref().map_or(0, |status| status.replicas);
            (one.spec.as_ref().and_then(|spec| spec.replicas), has)
        }),
        "StatefulSet" => one(&seen.stateful_sets, namespace, name, |one| {
            let has = one.status.as_ref().map_or(0, |status| status.replicas);
            (one.spec.as_ref().and_then(|spec| spec.replicas), has)
        }),
        _ => None,
    }
}

fn status(
    seen: &Observed,
    scaler: &HorizontalPodAutoscaler,
    spec: &HorizontalPodAutoscalerSpec,
    plan: &mut Plan,
) -> HorizontalPodAutoscalerStatus {
    let old = scaler.status.clone().unwrap_or_default();
    let mut conditions = Conditions { seen, list: old.conditions.clone().unwrap_or_default() };
    let mut status = HorizontalPodAutoscalerStatus { observed_generation: scaler.metadata.generation, ..old };
    let Some((target, wanted, has)) = target(seen, scaler, spec) else {
        let reference = &spec.scale_target_ref;
        let what = format!("{}s.apps \"{}\" not found", reference.kind.to_lowercase(), reference.name);
        let message = format!("the HPA controller was unable to get the target's current scale: {what}");
        conditions.set("AbleToScale", "False", "FailedGetScale", &message);
        plan.event(scaler, seen.now, (COMPONENT, "Warning", "FailedGetScale"), what);
        status.conditions = Some(conditions.list);
        return status;
    };
    let (least, most) = (spec.min_replicas.unwrap_or(1), spec.max_replicas);
    status.current_replicas = Some(has);
    conditions.set(
        "AbleToScale",
        "True",
        "SucceededGetScale",
        "the HPA controller was able to get the target's current scale",
    );
    let limited = if wanted == 0 {
        let message = "scaling is disabled since the replica count of the target is zero";
        conditions.set("ScalingActive", "False", "ScalingDisabled", message);
        None
    } else if wanted > most {
        Some((most, "TooManyReplicas", "the desired replica count is more than the maximum replica count"))
    } else if wanted < least {
        Some((least, "TooFewReplicas", "the desired replica count is less than the minimum replica count"))
    } else {
        let (reason, message) = unmeasured(spec.metrics.as_deref().unwrap_or_default());
        conditions.set("ScalingActive", "False", reason, &message);
        plan.event(scaler, seen.now, (COMPONENT, "Warning", reason), message);
        None
    };
    status.desired_replicas = limited.map_or(wanted, |(size, ..)| size);
    if let Some((size, reason, message)) = limited {
        conditions.set("ScalingLimited", "True", reason, message);
        status.last_scale_time = Some(Time(seen.now));
        plan.writes.push(Write::Patch { target, patch: json!({"spec": {"replicas": size}}) });
        let why = if size == most { "above maxReplicas" } else { "below minReplicas" };
        let message = format!("New size: {size}; reason: Current number of replicas {why}");
        plan.event(scaler, seen.now, (COMPONENT, "Normal", "SuccessfulRescale"), message);
    }
    status.conditions = Some(conditions.list);
    status
}

/// Nobody measures what hollow pods use: what the controller says of the first metric.
fn unmeasured(metrics: &[MetricSpec]) -> (&'static str, String) {
    let Some(metric) = metrics.first() else {
        return (
            "InvalidMetricSourceType",
            "the HPA was unable to compute the replica count: no metrics are named".into(),
        );
    };
    let (reason, what) = match metric.type_.as_str() {
        "Resource" | "ContainerResource" => {
            let name = metric.resource.as_ref().map(|resource| resource.name.clone());
            let name = name.or_else(|| metric.container_resource.as_ref().map(|resource| resource.name.clone()));
            let name = name.unwrap_or_default();
            let text = format!(
                "failed to get {name} utilization: unable to get metrics for resource {name}: unable to fetch metrics from \
                 resource metrics API: the server could not find the requested resource (get pods.metrics.k8s.io)"
            );
            ("FailedGetResourceMetric", text)
        }
        "Pods" => ("FailedGetPodsMetric", custom("custom")),
        "Object" => ("FailedGetObjectMetric", custom("custom")),
        "External" => ("FailedGetExternalMetric", custom("external")),
        _ => ("InvalidMetricSourceType", format!("unknown metric source type {:?}", metric.type_)),
    };
    (reason, format!("the HPA was unable to compute the replica count: {what}"))
}

fn custom(kind: &str) -> String {
    format!("unable to fetch metrics from {kind} metrics API: no {kind} metrics API ({kind}.metrics.k8s.io) registered")
}

struct Conditions<'a> {
    seen: &'a Observed,
    list: Vec<HorizontalPodAutoscalerCondition>,
}

impl Conditions<'_> {
    fn set(&mut self, type_: &str, status: &str, reason: &str, message: &str) {
        let old = self.list.iter().find(|found| found.type_ == type_ && found.status == status);
        let since = old.and_then(|old| old.last_transition_time.clone());
        let condition = HorizontalPodAutoscalerCondition {
            type_: type_.into(),
            status: status.into(),
            reason: Some(reason.into()),
            message: Some(message.into()),
            last_transition_time: Some(since.unwrap_or(Time(self.seen.now))),
        };
        match self.list.iter_mut().find(|found| found.type_ == type_) {
            Some(old) => *old = condition,
            None => self.list.push(condition),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const NOW: &str = "2026-01-01T00:00:00Z";

    fn planned(objects: &[Value]) -> Plan {
        let mut made = Plan::default();
        plan(&Observed::of(NOW, objects), &mut made);
        made
    }

    fn objects(replicas: i32) -> [Value; 2] {
        let metric = json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}});
        [
            json!({"kind": "HorizontalPodAutoscaler", "metadata": {"name": "web", "namespace": "default", "uid": "h"},
                "spec": {"minReplicas": 2, "maxReplicas": 5, "metrics": [metric],
                    "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}}}),
            json!({"kind": "Deployment", "metadata": {"name": "web", "namespace": "default"},
                "spec": {"replicas": replicas, "selector": {}, "template": {}}, "status": {"replicas": replicas}}),
        ]
    }

    fn reason(status: &Value, type_: &str) -> String {
        let found = status["conditions"].as_array().unwrap().iter().find(|found| found["type"] == type_);
        found
            .map(|found| format!("{} {}", found["status"].as_str().unwrap(), found["reason"].as_str().unwrap()))
            .unwrap_or_default()
    }

    #[test]
    fn a_target_is_kept_between_the_limits() {
        for (replicas, want, limited) in [(1, 2, "True TooFewReplicas"), (9, 5, "True TooManyReplicas")] {
            let plan = planned(&objects(replicas));
            assert_eq!(plan.told()[0], format!("patch Deployment web {{\"spec\":{{\"replicas\":{want}}}}}"));
            let status = plan.status_of("HorizontalPodAutoscaler");
            assert_eq!((&status["currentReplicas"], &status["desiredReplicas"]), (&json!(replicas), &json!(want)));
            assert_eq!(reason(&status, "ScalingLimited"), limited);
        }
    }

    #[test]
    fn it_says_that_nothing_is_measured_and_rests() {
        let plan = planned(&objects(3));
        assert_eq!(plan.told(), ["status HorizontalPodAutoscaler web"]);
        let status = plan.status_of("HorizontalPodAutoscaler");
        assert_eq!(reason(&status, "AbleToScale"), "True SucceededGetScale");
        assert_eq!(reason(&status, "ScalingActive"), "False FailedGetResourceMetric");
        let mut told = objects(3);
        told[0]["status"] = status;
        assert!(planned(&told).told().is_empty());
        let zero = planned(&objects(0)).status_of("HorizontalPodAutoscaler");
        assert_eq!(reason(&zero, "ScalingActive"), "False ScalingDisabled");
    }

    #[test]
    fn a_target_that_is_not_there_is_told() {
        let plan = planned(&objects(3)[..1]);
        assert_eq!(reason(&plan.status_of("HorizontalPodAutoscaler"), "AbleToScale"), "False FailedGetScale");
        assert_eq!(plan.events(), ["FailedGetScale"]);
    }
}
