//! The ClusterClass controller: says which variables a class has, and that its references can be followed. Extensions may
//! bring along variables for their patches.
//!
//! Source: kubernetes-sigs/cluster-api core/reconcilers/clusterclass.

use std::sync::Arc;

use api::{
    cluster_class::ClusterClass,
    condition::{self, Statement},
    meta::Time,
    topology::discovery::{self, discovered},
};
use control::{Key, Outcome, Plan, Reconcile, Result};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::templates;
use crate::{
    Context,
    extension::{GO_ON_S, Pass, UNREACHED, UNREACHED_S},
    external::value,
    owner, unacted,
};

/// An extension that failed is asked again, and one that did not may say something else later.
const RETRY_S: u64 = 10;
const AGAIN_S: u64 = 10 * 60;

pub struct Classes(pub Arc<Context>);

/// A class, and what extensions say of its patches.
pub struct Seen {
    pub class: Arc<ClusterClass>,
    /// By patch: the variables, or why they are not known.
    pub found: Vec<(String, std::result::Result<Vec<Value>, String>)>,
    /// The rest is asked by the next reconcile.
    pub put_off: bool,
    /// An extension was not reached, which is to be ignored.
    pub unreached: bool,
}

impl Reconcile for Classes {
    const NAME: &'static str = "clusterclass";
    type Seen = Seen;
    type Plan = Plan;

    async fn observe(&self, key: &Key) -> Result<Option<Seen>> {
        let Some(class) = self.0.caches.classes.get(key) else { return Ok(None) };
        let (mut found, mut put_off, mut unreached, pass) = (Vec::new(), false, false, Pass::begin());
        let quiet = class.metadata.deletion_timestamp.is_some() || owner::is_paused(None, &class.metadata);
        let patches = if quiet { Vec::new() } else { discovery::questions(&value(class.as_ref())) };
        for (name, question) in patches {
            let Some(answer) = self.0.extensions.ask(key, &question, &pass).await.transpose() else {
                put_off = true;
                break;
            };
            let is_unreached = answer.as_ref().is_ok_and(|response| response[UNREACHED] == true);
            unreached |= is_unreached;
            let answer = match is_unreached {
                true => Ok(known(&class, &name)),
                false => answer.and_then(|response| discovered(&response)),
            };
            let failed = answer.is_err();
            found.push((name, answer));
            if failed {
                break;
            }
        }
        Ok(Some(Seen { class, found, put_off, unreached }))
    }

    fn plan(&self, seen: &Seen, now: Timestamp) -> Plan {
        plan(seen, &Time(now))
    }

    async fn act(&self, _: &Key, seen: &Seen, mut plan: Plan) -> Result<Outcome> {
        templates::adopt(&self.0.caches, &seen.class, &mut plan);
        self.0.writer.execute(plan).await
    }
}

/// The variables that a patch has brought along so far.
pub(super) fn known(class: &ClusterClass, patch: &str) -> Vec<Value> {
    let mut found = Vec::new();
    for variable in class.status.iter().flat_map(|status| &status.variables) {
        let definitions = variable["definitions"].as_array().into_iter().flatten();
        found.extend(definitions.filter(|one| one["from"] == patch).map(|definition| {
            json!({"name": variable["name"], "required": definition["required"], "schema": definition["schema"]})
        }));
    }
    found
}

pub(super) fn plan(seen: &Seen, now: &Time) -> Plan {
    let class = seen.class.as_ref();
    let mut plan = Plan::nothing();
    if class.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    let mut after = class.clone();
    let generation = class.metadata.generation;
    let status = after.status.get_or_insert_default();
    let paused = owner::is_paused(None, &class.metadata);
    let mut set = |statement| condition::set(&mut status.conditions, statement, generation, now);
    set(Statement::of("Paused", paused, ("Paused", "NotPaused"), ""));
    if !paused {
        let failed =
            seen.found.iter().find_map(|(patch, found)| Some(format!("patch {patch}: {}", found.as_ref().err()?)));
        set(Statement::yes("RefVersionsUpToDate", "RefVersionsUpToDate"));
        match failed {
            // What was found before stays.
            None if seen.put_off => {
                plan.wait("a runtime extension", GO_ON_S);
            }
            Some(why) => {
                set(Statement::no("VariablesReady", "VariableDiscoveryFailed", why));
                plan.wait("a runtime extension", RETRY_S);
            }
            None => {
                set(Statement::yes("VariablesReady", "VariablesReady"));
                status.variables = discovery::all(&value(class), &seen.found);
                if seen.unreached {
                    plan.wait("a runtime extension that was not reached", UNREACHED_S);
                } else if !seen.found.is_empty() {
                    plan.wait("what extensions may come to say", AGAIN_S);
                }
            }
        }
    }
    status.observed_generation = generation;
    let observed = class.status.as_ref().and_then(|status| status.observed_generation);
    unacted::tell(class, observed, Vec::new(), &mut plan);
    plan.update(class, &after);
    plan
}
