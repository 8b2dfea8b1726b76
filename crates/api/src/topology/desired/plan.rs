//! The way from one version to another: which versions the control plane goes through, and which of them the workers.
//!
//! Source: kubernetes-sigs/cluster-api exp/topology/desiredstate/upgrade_plan.go.

use serde_json::{Value, json};

use super::{Seen, TopologyError, items, plan_extension, text};
use crate::{
    topology::hooks::{Calls, Hook, Question},
    version::numbers,
};

/// A kubelet may be so many minor versions behind its API server (Kubernetes' version skew policy).
const SKEW_MAX: u64 = 3;
/// An extension may plan so many steps.
const STEPS_MAX: usize = 100;

/// Versions that are to be gone through yet, the last of them the wanted one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub control_plane: Vec<String>,
    pub workers: Vec<String>,
}

fn read(version: &str) -> Result<[u64; 3], TopologyError> {
    numbers(version).ok_or_else(|| TopologyError::Version(format!("{version:?} is no semantic version")))
}

fn wrong<T>(why: impl Into<String>) -> Result<T, TopologyError> {
    Err(TopologyError::Version(why.into()))
}

/// The lowest version that workers are to have; none: there are no workers.
pub(super) fn lowest_worker(seen: &Seen) -> Option<String> {
    let versions = seen.deployments.iter().chain(&seen.pools).map(|one| text(one, "/spec/template/spec/version"));
    versions.filter(|version| !version.is_empty()).min_by_key(|version| numbers(version)).map(str::to_owned)
}

/// The way from what is there to the wanted version.
///
/// # Errors
/// There is none, or an extension has to be asked for it first.
pub(super) fn plan(seen: &Seen, wanted: &str, current: &str, calls: &Calls<'_>) -> Result<Plan, TopologyError> {
    let workers = lowest_worker(seen);
    if current == wanted && workers.as_deref().is_none_or(|workers| workers == wanted) {
        return Ok(Plan::default());
    }
    let mut plan = match plan_extension(&seen.class) {
        Some(handler) => asked(handler, wanted, current, workers.as_deref(), calls)?,
        None if current == wanted => Plan::default(),
        None => {
            let offered = items(&seen.class, "/spec/kubernetesVersions");
            let control_plane = match offered.is_empty() {
                true => one_step(wanted, current)?,
                false => offered_steps(offered, wanted, current)?,
            };
            Plan { control_plane, workers: Vec::new() }
        }
    };
    check_control_plane(&plan.control_plane, wanted, current)?;
    match workers.filter(|workers| workers != wanted) {
        Some(workers) => complete_workers(&mut plan, wanted, current, &workers)?,
        None if plan.workers.is_empty() => {}
        None => return wrong("invalid workers upgrade plan: there are no workers, or they have the version already"),
    }
    Ok(plan)
}

fn asked(
    handler: &str,
    wanted: &str,
    current: &str,
    workers: Option<&str>,
    calls: &Calls<'_>,
) -> Result<Plan, TopologyError> {
    let mut fields = json!({"fromControlPlaneKubernetesVersion": current, "toKubernetesVersion": wanted});
    if let Some(workers) = workers {
        fields["fromWorkersKubernetesVersion"] = workers.into();
    }
    // The same question as long as the versions are the same.
    let mut request = calls.request(fields);
    for field in ["resourceVersion", "generation"] {
        request["cluster"]["metadata"].as_object_mut().map(|metadata| metadata.remove(field));
    }
    request["cluster"].as_object_mut().map(|cluster| cluster.remove("status"));
    let hook = Hook::GenerateUpgradePlan;
    let question = Question { hook, handler: Some(handler.to_owned()), request, settings: Value::Null };
    let response = calls.runtime().answer(question)?;
    let versions = |field: &str| {
        let steps = response[field].as_array().into_iter().flatten().take(STEPS_MAX);
        steps.map(|step| step["version"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    Ok(Plan { control_plane: versions("controlPlaneUpgrades"), workers: versions("workersUpgrades") })
}

fn one_step(wanted: &str, current: &str) -> Result<Vec<String>, TopologyError> {
    let (to, from) = (read(wanted)?, read(current)?);
    if to[1] > from[1] + 1 {
        return wrong(format!(
            "there is no way from {current} to {wanted}: the ClusterClass names neither versions nor an extension that plans"
        ));
    }
    Ok(vec![wanted.to_owned()])
}

/// The last of each minor version on the way.
fn offered_steps(offered: &[Value], wanted: &str, current: &str) -> Result<Vec<String>, TopologyError> {
    let (to, from) = (read(wanted)?, read(current)?);
    let mut steps: Vec<(u64, String)> = Vec::new();
    for version in offered.iter().filter_map(Value::as_str) {
        let found = read(version)?;
        if found <= from && version != wanted || found > to {
            continue;
        }
        match steps.last_mut() {
            Some((minor, last)) if *minor == found[1] => *last = version.to_owned(),
            // Of the minor version that is there only the wanted one is of use.
            _ if found[1] == from[1] && to[1] != from[1] => {}
            _ => steps.push((found[1], version.to_owned())),
        }
        if version == wanted {
            break;
        }
    }
    Ok(steps.into_iter().map(|(_, version)| version).collect())
}

fn check_control_plane(steps: &[String], wanted: &str, current: &str) -> Result<(), TopologyError> {
    if current == wanted {
        return match steps.is_empty() {
            true => Ok(()),
            false => wrong("invalid ControlPlane upgrade plan: control plane is already at the desired version"),
        };
    }
    let mut before = (read(current)?, current);
    for (index, step) in steps.iter().enumerate() {
        let found = read(step)?;
        let at = format!("invalid ControlPlane upgrade plan: item {index};");
        if found < before.0 || step == before.1 {
            return wrong(format!("{at} version {step} must be greater than {}", before.1));
        }
        if found[1] > before.0[1] + 1 {
            let next = before.0[1] + 1;
            return wrong(format!("{at} expecting a version with minor v1.{} or v1.{next}, found {step}", next - 1));
        }
        before = (found, step);
    }
    if before.1 != wanted {
        return wrong(format!("invalid ControlPlane upgrade plan: it must end with {wanted}, ends with {}", before.1));
    }
    Ok(())
}

/// Workers go along as seldom as they may; every version of theirs is one of the control plane's.
fn complete_workers(plan: &mut Plan, wanted: &str, current: &str, workers: &str) -> Result<(), TopologyError> {
    let on_the_way = |version: &str| version == current || plan.control_plane.iter().any(|step| step == version);
    let strange: Vec<&str> = plan.workers.iter().map(String::as_str).filter(|version| !on_the_way(version)).collect();
    if !plan.control_plane.is_empty() && !strange.is_empty() {
        return wrong(format!(
            "invalid workers upgrade plan: the control plane does not come to {}",
            strange.join(", ")
        ));
    }
    let (from, to) = (read(workers)?, read(wanted)?);
    if plan.workers.is_empty() {
        let mut at = from[1];
        while to[1] > at + SKEW_MAX {
            at += SKEW_MAX;
            let mut all = plan.control_plane.iter().map(String::as_str).chain([current]);
            let step = all.find(|version| numbers(version).is_some_and(|found| found[1] == at));
            let Some(step) = step else {
                return wrong(format!(
                    "invalid upgrade plan: no version of minor {at}, which workers have to go through"
                ));
            };
            plan.workers.push(step.to_owned());
        }
        plan.workers.push(wanted.to_owned());
    }
    let mut before = (from, workers);
    for (index, step) in plan.workers.iter().enumerate() {
        let found = read(step)?;
        let at = format!("invalid workers upgrade plan, item {index};");
        if found < before.0 || step == before.1 {
            return wrong(format!("{at} version {step} must be greater than {}", before.1));
        }
        if found[1] > before.0[1] + SKEW_MAX {
            return wrong(format!("{at} workers cannot go from {} to {step} at once (version skew)", before.1));
        }
        before = (found, step);
    }
    if before.1 != wanted {
        return wrong(format!("invalid workers upgrade plan; it must end with {wanted}, ends with {}", before.1));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::hooks::Runtime;

    fn seen(workers: &str, class: Value) -> Seen {
        let deployment = json!({"spec": {"template": {"spec": {"version": workers}}}});
        Seen { class, deployments: vec![deployment], ..Seen::default() }
    }

    fn told(seen: &Seen, wanted: &str, current: &str, runtime: &Runtime) -> Result<(String, String), TopologyError> {
        let plan = plan(seen, wanted, current, &Calls::of(runtime, &seen.cluster))?;
        Ok((plan.control_plane.join(" "), plan.workers.join(" ")))
    }

    #[test]
    fn a_class_with_versions_knows_the_way() {
        let offered = ["v1.30.1", "v1.31.0", "v1.31.4", "v1.32.0", "v1.33.2", "v1.34.0"];
        let class = json!({"spec": {"kubernetesVersions": offered}});
        let way = |workers: &str, current: &str, wanted: &str| {
            let (control_plane, workers) =
                told(&seen(workers, class.clone()), wanted, current, &Runtime::default()).unwrap();
            format!("{control_plane} | {workers}")
        };
        assert_eq!(way("v1.30.1", "v1.30.1", "v1.34.0"), "v1.31.4 v1.32.0 v1.33.2 v1.34.0 | v1.33.2 v1.34.0");
        assert_eq!(way("v1.31.0", "v1.31.0", "v1.33.2"), "v1.32.0 v1.33.2 | v1.33.2");
        assert_eq!(way("v1.31.0", "v1.31.0", "v1.31.4"), "v1.31.4 | v1.31.4");
        assert_eq!(way("v1.31.0", "v1.32.0", "v1.32.0"), " | v1.32.0");
        assert_eq!(way("v1.32.0", "v1.32.0", "v1.32.0"), " | ");
        let none = told(&seen("v1.31.0", json!({})), "v1.33.0", "v1.31.0", &Runtime::default());
        assert!(none.unwrap_err().to_string().contains("there is no way"));
    }

    #[test]
    fn an_extension_plans_and_its_plan_is_checked() {
        let class = json!({"spec": {"upgrade": {"external": {"generateUpgradePlanExtension": "plan.ext"}}}});
        let seen = seen("v1.31.0", class);
        let mut runtime = Runtime::default();
        let asked = told(&seen, "v1.33.0", "v1.31.0", &runtime).unwrap_err();
        let TopologyError::Ask(question) = asked else { panic!("{asked}") };
        assert_eq!(question.request["fromWorkersKubernetesVersion"], "v1.31.0");
        let mut answer = |control_plane: &[&str], workers: &[&str]| {
            let steps = |all: &[&str]| all.iter().map(|version| json!({"version": version})).collect::<Vec<_>>();
            let response = json!({"controlPlaneUpgrades": steps(control_plane), "workersUpgrades": steps(workers)});
            runtime.answers.insert(question.key(), Ok(response));
            told(&seen, "v1.33.0", "v1.31.0", &runtime).map_err(|error| error.to_string())
        };
        let good = answer(&["v1.32.0", "v1.33.0"], &["v1.32.0", "v1.33.0"]).unwrap();
        assert_eq!(good, ("v1.32.0 v1.33.0".to_owned(), "v1.32.0 v1.33.0".to_owned()));
        assert_eq!(answer(&["v1.32.0", "v1.33.0"], &[]).unwrap().1, "v1.33.0");
        for (control_plane, workers, wanted) in [
            (&["v1.33.0"][..], &[][..], "minor v1.31 or v1.32"),
            (&["v1.32.0"], &[], "must end with v1.33.0"),
            (&["v1.30.0"], &[], "must be greater"),
            (&["v1.32.0", "v1.33.0"], &["v1.32.5"], "does not come to v1.32.5"),
            (&["v1.32.0", "v1.33.0"], &["v1.32.0"], "must end with"),
            (&["soon"], &[], "no semantic version"),
        ] {
            let refused = answer(control_plane, workers).unwrap_err();
            assert!(refused.contains(wanted), "{refused}");
        }
    }
}
