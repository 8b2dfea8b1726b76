//! Where a pod may be because of the pods that are there: topology spread, affinity and anti-affinity between pods.
//!
//! Source: kubernetes/kubernetes pkg/scheduler/framework/plugins (podtopologyspread, interpodaffinity).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Pod, PodAffinityTerm, PodSpec, Taint, TopologySpreadConstraint, WeightedPodAffinityTerm,
};
use kube::{
    ResourceExt,
    core::{Selector, SelectorExt},
};

use super::{Place, affinity, filters::Refusal};
use crate::hollow::workloads::{observed::Observed, pods};

/// Which pods are meant by a term, and what counts as their place.
struct Term {
    namespaces: Option<Vec<String>>,
    selector: Selector,
    key: String,
    weight: i32,
}

impl Term {
    fn new(seen: &Observed, owner: &Pod, term: &PodAffinityTerm, weight: i32) -> Self {
        let mut namespaces = term.namespaces.clone().unwrap_or_default();
        let mut all = false;
        match &term.namespace_selector {
            Some(selector) => {
                all = *selector == Default::default();
                let meant = seen.namespaces.iter().filter(|namespace| pods::is_selected(selector, *namespace));
                namespaces.extend(meant.map(ResourceExt::name_any));
            }
            None if namespaces.is_empty() => namespaces.extend(owner.namespace()),
            None => {}
        }
        let selector = match &term.label_selector {
            Some(selector) => with_keys(pods::selector(selector), owner, term.match_label_keys.as_deref()),
            // None selects nothing.
            None => [("", "")].into_iter().collect(),
        };
        Self { namespaces: (!all).then_some(namespaces), selector, key: term.topology_key.clone(), weight }
    }

    fn means(&self, pod: &Pod) -> bool {
        let namespace = pod.namespace().unwrap_or_default();
        self.namespaces.as_ref().is_none_or(|all| all.contains(&namespace)) && self.selector.matches(pod.labels())
    }
}

/// A selector with the labels of the pod that it is of (KEP-3243).
fn with_keys(mut selector: Selector, pod: &Pod, keys: Option<&[String]>) -> Selector {
    for key in keys.into_iter().flatten() {
        if let Some(value) = pod.labels().get(key) {
            selector.extend([(key.clone(), value.clone())].into_iter().collect::<Selector>());
        }
    }
    selector
}

/// A term, and the domains that have pods which it means.
struct Sought<'a> {
    term: Term,
    domains: Vec<&'a str>,
}

impl<'a> Sought<'a> {
    fn new(term: Term, places: &[Place<'a>]) -> Self {
        let having = places.iter().filter(|place| place.pods.iter().any(|pod| term.means(pod)));
        let domains = having.filter_map(|place| place.domain(&term.key)).collect();
        Self { term, domains }
    }

    fn is_met(&self, place: &Place<'_>) -> bool {
        place.domain(&self.term.key).is_some_and(|domain| self.domains.contains(&domain))
    }
}

/// What the pods that are there say to one that is not.
pub struct Neighbours<'a> {
    near: Vec<Sought<'a>>,
    /// No pod is like that yet but this one.
    is_first: bool,
    far: Vec<Sought<'a>>,
    /// Domains (key, value) whose pods want to be without this one.
    shunned: Vec<(String, &'a str)>,
    preferred: Vec<Sought<'a>>,
    spreads: Vec<Spread<'a>>,
}

fn anti(spec: &PodSpec) -> Option<&Vec<PodAffinityTerm>> {
    let anti = spec.affinity.as_ref()?.pod_anti_affinity.as_ref()?;
    anti.required_during_scheduling_ignored_during_execution.as_ref()
}

/// Terms with their weights, negative for what is to be far.
fn preferred(seen: &Observed, pod: &Pod, spec: &PodSpec) -> Vec<Term> {
    let weigh = |list: Option<&Vec<WeightedPodAffinityTerm>>, sign: i32| -> Vec<Term> {
        let list = list.into_iter().flatten();
        list.map(|term| Term::new(seen, pod, &term.pod_affinity_term, sign * term.weight)).collect()
    };
    let Some(affinity) = &spec.affinity else { return Vec::new() };
    let near = affinity.pod_affinity.as_ref();
    let near = near.and_then(|near| near.preferred_during_scheduling_ignored_during_execution.as_ref());
    let far = affinity.pod_anti_affinity.as_ref();
    let far = far.and_then(|far| far.preferred_during_scheduling_ignored_during_execution.as_ref());
    let mut all = weigh(near, 1);
    all.extend(weigh(far, -1));
    all
}

impl<'a> Neighbours<'a> {
    pub fn new(seen: &Observed, places: &[Place<'a>], pod: &Pod, spec: &'a PodSpec) -> Self {
        let terms = |list: Option<&Vec<PodAffinityTerm>>| -> Vec<Sought<'a>> {
            let terms = list.into_iter().flatten().map(|term| Term::new(seen, pod, term, 0));
            terms.map(|term| Sought::new(term, places)).collect()
        };
        let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.pod_affinity.as_ref());
        let near = affinity.and_then(|near| near.required_during_scheduling_ignored_during_execution.as_ref());
        let near = terms(near);
        let is_first = near.iter().all(|sought| sought.domains.is_empty() && sought.term.means(pod));
        let hard = |constraint: &&TopologySpreadConstraint| constraint.when_unsatisfiable == "DoNotSchedule";
        let constraints: Vec<_> = spec.topology_spread_constraints.iter().flatten().filter(hard).collect();
        let keys: Vec<&str> = constraints.iter().map(|constraint| constraint.topology_key.as_str()).collect();
        let spread = |constraint: &&'a TopologySpreadConstraint| Spread::new(constraint, &keys, places, pod, spec);
        let preferred = preferred(seen, pod, spec).into_iter().map(|term| Sought::new(term, places));
        Self {
            near,
            is_first,
            far: terms(anti(spec)),
            shunned: shunned(seen, places, pod),
            preferred: preferred.collect(),
            spreads: constraints.iter().map(spread).collect(),
        }
    }

    pub fn check(&self, place: &Place<'_>) -> Result<(), Refusal> {
        for spread in &self.spreads {
            spread.check(place)?;
        }
        let first = |sought: &Sought<'_>| self.is_first && place.domain(&sought.term.key).is_some();
        if !self.near.iter().all(|sought| sought.is_met(place) || first(sought)) {
            return Refusal::fixed("node(s) didn't match pod affinity rules");
        }
        if self.far.iter().any(|sought| sought.is_met(place)) {
            return Refusal::for_now("node(s) didn't match pod anti-affinity rules");
        }
        if self.shunned.iter().any(|(key, value)| place.domain(key) == Some(value)) {
            return Refusal::for_now("node(s) didn't satisfy existing pods anti-affinity rules");
        }
        Ok(())
    }

    pub fn preference(&self, place: &Place<'_>) -> i32 {
        self.preferred.iter().filter(|sought| sought.is_met(place)).map(|sought| sought.term.weight).sum()
    }
}

fn shunned<'a>(seen: &Observed, places: &[Place<'a>], pod: &Pod) -> Vec<(String, &'a str)> {
    let mut shunned = Vec::new();
    for place in places {
        for other in &place.pods {
            for term in other.spec.as_ref().and_then(anti).into_iter().flatten() {
                let term = Term::new(seen, other, term, 0);
                if term.means(pod) {
                    shunned.extend(place.domain(&term.key).map(|value| (term.key.clone(), value)));
                }
            }
        }
    }
    shunned
}

/// A topology spread constraint that must hold.
struct Spread<'a> {
    constraint: &'a TopologySpreadConstraint,
    /// Pods that count, by domain.
    domains: BTreeMap<&'a str, i32>,
    itself: i32,
}

impl<'a> Spread<'a> {
    /// `keys`: those of all constraints of the pod; a node without one of them is of no domain.
    fn new(
        constraint: &'a TopologySpreadConstraint,
        keys: &[&str],
        places: &[Place<'a>],
        pod: &Pod,
        spec: &PodSpec,
    ) -> Self {
        let selector = match &constraint.label_selector {
            Some(selector) => with_keys(pods::selector(selector), pod, constraint.match_label_keys.as_deref()),
            None => [("", "")].into_iter().collect(),
        };
        let ignores = |policy: &Option<String>| policy.as_deref() == Some("Ignore");
        let tolerations = spec.tolerations.as_deref().unwrap_or_default();
        let mut domains = BTreeMap::new();
        for place in places {
            let eligible = ignores(&constraint.node_affinity_policy) || affinity::matches(place.node, spec);
            let hard = |taint: &&Taint| taint.effect != "PreferNoSchedule";
            let tolerated = constraint.node_taints_policy.as_deref() != Some("Honor")
                || place.taints.iter().filter(hard).all(|taint| affinity::is_tolerated(taint, tolerations));
            let Some(domain) = place.domain(&constraint.topology_key) else { continue };
            if eligible && tolerated && keys.iter().all(|key| place.domain(key).is_some()) {
                let counts = |other: &&&Pod| {
                    other.namespace() == pod.namespace()
                        && !pods::is_deleted(**other)
                        && selector.matches(other.labels())
                };
                *domains.entry(domain).or_default() +=
                    i32::try_from(place.pods.iter().filter(counts).count()).unwrap_or(i32::MAX);
            }
        }
        Self { constraint, domains, itself: i32::from(selector.matches(pod.labels())) }
    }

    fn check(&self, place: &Place<'_>) -> Result<(), Refusal> {
        let Some(domain) = place.domain(&self.constraint.topology_key) else {
            return Refusal::fixed("node(s) didn't match pod topology spread constraints (missing required label)");
        };
        let few =
            usize::try_from(self.constraint.min_domains.unwrap_or(1)).is_ok_and(|least| self.domains.len() < least);
        let least = if few { 0 } else { self.domains.values().min().copied().unwrap_or(0) };
        let own = self.domains.get(domain).copied().unwrap_or(0);
        if own + self.itself - least > self.constraint.max_skew {
            return Refusal::for_now("node(s) didn't match pod topology spread constraints");
        }
        Ok(())
    }
}
