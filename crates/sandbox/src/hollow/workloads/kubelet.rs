//! What kubelets report of the pods on their nodes. Nothing runs: a pod that may start is Running at once, and one that is not
//! to be started again when it ends (`restartPolicy` other than Always) has ended by the next look.
//!
//! Source: kubernetes/kubernetes pkg/kubelet (kubelet_pods.go, status/generate.go, images/image_manager.go); the grammar of
//! image references is that of distribution/reference.

use std::{collections::BTreeSet, net::IpAddr};

use apiserver::Logs;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::core::v1::{
        Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
        ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodSpec, PodStatus,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::ResourceExt;
use serde_json::Value;

use super::{nodes, observed::Observed, plan::Plan, pods};

mod image;
pub mod needs;

/// With what code the containers of a pod end: of the sandbox alone, for tests of what fails.
pub const EXIT_CODE: &str = "hollow.skep.dev/exit-code";
/// What the containers of a pod write.
const LOG: &str = "hollow.skep.dev/log";
const COMPONENT: &str = "kubelet";
/// What a container ends with that is killed: 128 and SIGKILL.
const KILLED: i32 = 137;
/// Pauses before a container that ended is started again: doubled each time.
const BACKOFF_MIN_S: i64 = 10;
const BACKOFF_MAX_S: i64 = 300;

/// A pod that a kubelet runs from a file: its object is only told.
pub fn is_mirror(pod: &Pod) -> bool {
    pod.annotations().contains_key("kubernetes.io/config.mirror")
}

/// What hollow containers have written: nothing, unless an annotation says what.
pub struct Written;

impl Logs for Written {
    fn of(&self, pod: &Value, _: &str) -> String {
        let text = pod["metadata"]["annotations"][LOG].as_str().unwrap_or_default();
        if text.is_empty() || text.ends_with('\n') { text.to_owned() } else { format!("{text}\n") }
    }
}

pub fn plan(seen: &Observed, plan: &mut Plan) {
    let mut addresses = Addresses::new(seen);
    for pod in &seen.pods {
        let Some(node) = pods::node(pod).and_then(|name| seen.node(name)).filter(|node| nodes::is_heard(node)) else {
            continue;
        };
        if pods::is_deleted(pod) {
            if pods::phase(pod) == "Running" {
                let names = containers(pod).map(|container| container.name.as_str()).collect::<Vec<_>>().join(", ");
                let message = format!("Stopping container {names}");
                plan.event(pod, seen.now, (COMPONENT, "Normal", "Killing"), message);
            }
            plan.delete_now(pod);
            continue;
        }
        let Some(spec) = pod.spec.as_ref().filter(|_| !pods::has_ended(pod) && !is_mirror(pod)) else { continue };
        let address = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
        let address = address.clone().find(|address| address.type_ == "InternalIP").map(|found| found.address.clone());
        let kubelet = Kubelet { seen, pod, spec, address: address.unwrap_or_default() };
        let old = pod.status.clone().unwrap_or_default();
        let starts = pods::phase(pod) == "Pending";
        let new = if starts { kubelet.start(&mut addresses) } else { kubelet.go_on(plan) };
        if let Some(new) = new.filter(|new| *new != old) {
            if starts {
                kubelet.tell_start(&new, plan);
            }
            plan.status(&Pod { status: Some(new), ..pod.clone() });
        }
    }
}

fn containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    pod.spec.iter().flat_map(|spec| &spec.containers)
}

/// The addresses of pods: the lowest that is free of the cluster's network.
struct Addresses {
    taken: BTreeSet<IpAddr>,
    hosts: ipnet::IpAddrRange,
}

impl Addresses {
    fn new(seen: &Observed) -> Self {
        let lives = |pod: &&Pod| !pods::has_ended(pod);
        let own = |pod: &Pod| pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok();
        Self { taken: seen.pods.iter().filter(lives).filter_map(own).collect(), hosts: seen.pod_network.hosts() }
    }

    fn next(&mut self) -> Option<String> {
        let taken = &self.taken;
        let address = self.hosts.find(|address| !taken.contains(address))?;
        Some(address.to_string())
    }
}

/// One pod on its node.
struct Kubelet<'a> {
    seen: &'a Observed,
    pod: &'a Pod,
    spec: &'a PodSpec,
    /// Of the node.
    address: String,
}

impl Kubelet<'_> {
    fn time(&self) -> Time {
        Time(self.seen.now)
    }

    /// A pod that has come to its node.
    fn start(&self, addresses: &mut Addresses) -> Option<PodStatus> {
        let old = self.pod.status.clone().unwrap_or_default();
        if let Some(status) = self.unmounted(&old) {
            return Some(status);
        }
        let init = self.spec.init_containers.as_deref().unwrap_or_default();
        let blocked = init.iter().any(|container| self.obstacle(container).is_some());
        let bad = blocked || self.spec.containers.iter().any(|container| self.obstacle(container).is_some());
        let ip = match &old.pod_ip {
            Some(ip) if !ip.is_empty() => ip.clone(),
            _ if self.spec.host_network == Some(true) => self.address.clone(),
            // A pod waits for an address as it waits for its network.
            _ => addresses.next()?,
        };
        let begun = |container: &Container, is_init: bool| {
            let sidecar = container.restart_policy.as_deref() == Some("Always");
            let state = match (self.obstacle(container), is_init) {
                (Some(obstacle), true) => obstacle,
                _ if blocked => waiting("PodInitializing", None),
                (Some(obstacle), false) => obstacle,
                (None, true) if !sidecar => self.ended(0),
                (None, _) => self.running(),
            };
            self.container(container, state)
        };
        let all = |list: &[Container], is_init: bool, known: Option<Vec<ContainerStatus>>| {
            let known = known.unwrap_or_default();
            let statuses = list.iter().map(|container| {
                let new = begun(container, is_init);
                let same = known.iter().find(|status| status.name == new.name && status.ready && new.ready);
                same.cloned().unwrap_or(new)
            });
            Some(statuses.collect()).filter(|all: &Vec<_>| !all.is_empty())
        };
        let mut status = PodStatus {
            phase: Some(if bad { "Pending" } else { "Running" }.into()),
            host_ip: Some(self.address.clone()),
            host_ips: Some(vec![HostIP { ip: self.address.clone() }]),
            pod_ips: Some(vec![PodIP { ip: ip.clone() }]),
            pod_ip: Some(ip),
            start_time: old.start_time.clone().or_else(|| Some(self.time())),
            observed_generation: self.pod.metadata.generation,
            init_container_statuses: all(init, true, old.init_container_statuses.clone()),
            container_statuses: all(&self.spec.containers, false, old.container_statuses.clone()),
            ..old
        };
        self.conditions(&mut status, !blocked, true);
        Some(status)
    }

    /// What keeps a container from being started.
    fn obstacle(&self, container: &Container) -> Option<ContainerState> {
        if !image::is_reference(container.image.as_deref().unwrap_or_default()) {
            return Some(invalid_image(container));
        }
        let lacks = needs::variables(container).into_iter().find(|need| self.lacks(need))?;
        Some(waiting("CreateContainerConfigError", Some(format!("{} \"{}\" not found", lacks.kind, lacks.name))))
    }

    fn lacks(&self, need: &needs::Need) -> bool {
        self.seen.missing.contains(&need.key(&self.pod.namespace().unwrap_or_default()))
    }

    /// The status of a pod whose volumes are not all there.
    fn unmounted(&self, old: &PodStatus) -> Option<PodStatus> {
        needs::mounts(self.spec).into_iter().find(|(_, need)| self.lacks(need))?;
        let init = self.spec.init_containers.as_deref().unwrap_or_default();
        let reason = if init.is_empty() { "ContainerCreating" } else { "PodInitializing" };
        let all = |list: &[Container]| {
            let statuses = list.iter().map(|container| self.container(container, waiting(reason, None)));
            Some(statuses.collect()).filter(|all: &Vec<_>| !all.is_empty())
        };
        let mut status = PodStatus {
            phase: Some("Pending".into()),
            host_ip: Some(self.address.clone()),
            host_ips: Some(vec![HostIP { ip: self.address.clone() }]),
            start_time: old.start_time.clone().or_else(|| Some(self.time())),
            observed_generation: self.pod.metadata.generation,
            init_container_statuses: all(init),
            container_statuses: all(&self.spec.containers),
            ..old.clone()
        };
        self.conditions(&mut status, init.is_empty(), false);
        Some(status)
    }

    /// The events of a pod that has come to its node.
    fn tell_start(&self, status: &PodStatus, plan: &mut Plan) {
        for (volume, need) in needs::mounts(self.spec).into_iter().filter(|(_, need)| self.lacks(need)) {
            let message =
                format!("MountVolume.SetUp failed for volume \"{volume}\" : {} \"{}\" not found", need.kind, need.name);
            plan.event(self.pod, self.seen.now, (COMPONENT, "Warning", "FailedMount"), message);
        }
        let init = status.init_container_statuses.iter().flatten();
        for container in init.chain(status.container_statuses.iter().flatten()) {
            let waits = container.state.as_ref().and_then(|state| state.waiting.as_ref());
            let told = waits.and_then(|waits| Some((waits.reason.as_deref()?, waits.message.as_deref()?)));
            let (type_, reason, message) = match told {
                Some(("InvalidImageName", message)) => ("Warning", "InspectFailed", message.to_owned()),
                Some((_, message)) => ("Warning", "Failed", format!("Error: {message}")),
                None if waits.is_none() => ("Normal", "Started", format!("Started container {}", container.name)),
                None => continue,
            };
            plan.event(self.pod, self.seen.now, (COMPONENT, type_, reason), message);
        }
    }

    /// A pod that runs: it may end, or start again, or what it waits for may have come.
    fn go_on(&self, plan: &mut Plan) -> Option<PodStatus> {
        let mut status = self.pod.status.clone()?;
        if self.is_late(plan) {
            self.end(&mut status, KILLED);
            status.reason = Some("DeadlineExceeded".into());
            status.message = Some("Pod was active on the node longer than the specified deadline".into());
            return Some(status);
        }
        let code = self.pod.annotations().get(EXIT_CODE).and_then(|code| code.parse::<u8>().ok()).map(i32::from);
        match self.spec.restart_policy.as_deref() {
            Some("Never") => self.end(&mut status, code.unwrap_or(0)),
            Some("OnFailure") if code.unwrap_or(0) == 0 => self.end(&mut status, 0),
            _ => {
                if let Some(code) = code {
                    self.crash(&mut status, code, plan);
                }
                self.conditions(&mut status, true, true);
            }
        }
        Some(status)
    }

    /// Its time to be active is over.
    fn is_late(&self, plan: &mut Plan) -> bool {
        let start = self.pod.status.as_ref().and_then(|status| status.start_time.as_ref());
        let limit = self.spec.active_deadline_seconds.map(SignedDuration::from_secs);
        let Some(end) = start.zip(limit).and_then(|(start, limit)| start.0.saturating_add(limit).ok()) else {
            return false;
        };
        if end > self.seen.now {
            plan.wake_at(end);
        }
        end <= self.seen.now
    }

    fn end(&self, status: &mut PodStatus, code: i32) {
        status.phase = Some(if code == 0 { "Succeeded" } else { "Failed" }.into());
        for container in status.container_statuses.iter_mut().flatten() {
            container.state = Some(self.ended(code));
            container.ready = false;
            container.started = Some(false);
        }
        for (type_, reason) in [("ContainersReady", "PodCompleted"), ("Ready", "PodCompleted")] {
            let reason = if code == 0 { reason } else { "PodFailed" };
            self.condition(status, type_, false, Some((reason, None)));
        }
        if code == 0 {
            self.condition(status, "Initialized", true, Some(("PodCompleted", None)));
        }
    }

    /// Its containers end as soon as they have begun, and begin anew after ever longer pauses.
    fn crash(&self, status: &mut PodStatus, code: i32, plan: &mut Plan) {
        let mut told = false;
        for container in status.container_statuses.iter_mut().flatten() {
            let last = container.last_state.as_ref().and_then(|state| state.terminated.as_ref());
            let ended = last.and_then(|last| last.finished_at.as_ref()).map(|time| time.0);
            let waits = container.state.as_ref().is_some_and(|state| state.waiting.is_some());
            let pause_s = backoff_s(container.restart_count);
            if let Some(ended) = ended.filter(|_| waits) {
                let due = ended.saturating_add(SignedDuration::from_secs(pause_s)).unwrap_or(Timestamp::MAX);
                if due > self.seen.now {
                    plan.wake_at(due);
                    continue;
                }
                container.restart_count = container.restart_count.saturating_add(1);
            }
            let next_s = backoff_s(container.restart_count);
            let due = self.seen.now.saturating_add(SignedDuration::from_secs(next_s)).unwrap_or(Timestamp::MAX);
            plan.wake_at(due);
            let message = format!(
                "back-off {}s restarting failed container={} pod={}_{}({})",
                next_s,
                container.name,
                self.pod.name_any(),
                self.pod.namespace().unwrap_or_default(),
                self.pod.uid().unwrap_or_default()
            );
            container.last_state = Some(self.ended(code));
            container.state = Some(waiting("CrashLoopBackOff", Some(message.clone())));
            container.ready = false;
            container.started = Some(false);
            if !told {
                let message = message.replace("back-off", "Back-off");
                plan.event(self.pod, self.seen.now, (COMPONENT, "Warning", "BackOff"), message);
                told = true;
            }
        }
    }

    fn container(&self, container: &Container, state: ContainerState) -> ContainerStatus {
        let runs = state.running.is_some();
        let image = container.image.clone().unwrap_or_default();
        let over = state.terminated.as_ref().is_some_and(|ended| ended.exit_code == 0);
        ContainerStatus {
            name: container.name.clone(),
            container_id: (runs || over)
                .then(|| format!("hollow://{}", pods::hash(&(self.pod.uid(), &container.name)))),
            image_id: if runs || over { format!("hollow://{image}") } else { String::new() },
            image,
            ready: runs || over,
            started: Some(runs),
            restart_count: 0,
            state: Some(state),
            ..ContainerStatus::default()
        }
    }

    fn running(&self) -> ContainerState {
        let running = ContainerStateRunning { started_at: Some(self.time()) };
        ContainerState { running: Some(running), ..ContainerState::default() }
    }

    fn ended(&self, code: i32) -> ContainerState {
        let ended = ContainerStateTerminated {
            exit_code: code,
            reason: Some(if code == 0 { "Completed" } else { "Error" }.into()),
            started_at: Some(self.time()),
            finished_at: Some(self.time()),
            ..ContainerStateTerminated::default()
        };
        ContainerState { terminated: Some(ended), ..ContainerState::default() }
    }

    /// The conditions that follow from the containers.
    fn conditions(&self, status: &mut PodStatus, initialized: bool, mounted: bool) {
        let unready = status.container_statuses.iter().flatten().filter(|container| !container.ready);
        let names: Vec<&str> = unready.map(|container| container.name.as_str()).collect();
        let message = format!("containers with unready status: [{}]", names.join(" "));
        let why = (!names.is_empty()).then_some(("ContainersNotReady", Some(message)));
        let gates = self.spec.readiness_gates.iter().flatten().map(|gate| gate.condition_type.as_str());
        let met = |gate: &&str| pods::condition(self.pod, gate).is_some_and(|found| found.status == "True");
        let closed: Vec<&str> = gates.filter(|gate| !met(gate)).collect();
        let gate = closed.first().map(|gate| {
            let found = pods::condition(self.pod, gate);
            let text = match found {
                Some(_) => format!("the status of pod readiness gate \"{gate}\" is not \"True\", but False"),
                None => format!("corresponding condition of pod readiness gate \"{gate}\" does not exist."),
            };
            ("ReadinessGatesNotReady", Some(text))
        });
        self.condition(status, "PodReadyToStartContainers", mounted, None);
        let init = (!initialized).then_some(("ContainersNotInitialized", None));
        self.condition(status, "Initialized", initialized, init);
        self.condition(status, "PodScheduled", true, None);
        self.condition(status, "ContainersReady", why.is_none(), why.clone());
        let ready = why.is_none() && gate.is_none();
        self.condition(status, "Ready", ready, why.or(gate));
    }

    fn condition(&self, status: &mut PodStatus, type_: &str, holds: bool, why: Option<(&str, Option<String>)>) {
        let truth = if holds { "True" } else { "False" };
        let (reason, message) = why.map_or((None, None), |(reason, message)| (Some(reason.to_owned()), message));
        let list = status.conditions.get_or_insert_default();
        let old = list.iter().find(|condition| condition.type_ == type_);
        let since = old.filter(|old| old.status == truth).and_then(|old| old.last_transition_time.clone());
        let condition = PodCondition {
            type_: type_.into(),
            status: truth.into(),
            reason,
            message,
            last_transition_time: Some(since.unwrap_or_else(|| self.time())),
            observed_generation: self.pod.metadata.generation,
            ..PodCondition::default()
        };
        match list.iter_mut().find(|condition| condition.type_ == type_) {
            Some(old) => *old = condition,
            None => list.push(condition),
        }
    }
}

fn backoff_s(restarts: i32) -> i64 {
    let doubled = u32::try_from(restarts.clamp(0, 10)).map_or(BACKOFF_MAX_S, |times| BACKOFF_MIN_S << times);
    doubled.min(BACKOFF_MAX_S)
}

fn waiting(reason: &str, message: Option<String>) -> ContainerState {
    let waiting = ContainerStateWaiting { reason: Some(reason.to_owned()), message };
    ContainerState { waiting: Some(waiting), ..ContainerState::default() }
}

fn invalid_image(container: &Container) -> ContainerState {
    let image = container.image.as_deref().unwrap_or_default();
    let message = format!(
        "Failed to apply default image tag \"{image}\": couldn't parse image name \"{image}\": invalid reference format"
    );
    waiting("InvalidImageName", Some(message))
}

#[cfg(test)]
mod tests;
