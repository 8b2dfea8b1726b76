//! The ClusterClass controller: says which variables a class has, and that its references can be followed.
//!
//! Source: kubernetes-sigs/cluster-api core/reconcilers/clusterclass.

use std::sync::Arc;

use api::{
    cluster_class::ClusterClass,
    condition::{self, Statement},
    meta::Time,
};
use control::{Key, Outcome, Plan, Reconcile, Result};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{Context, owner, unacted};

/// Rules in CEL, which are not evaluated for variables.
const RULES: &str = "x-kubernetes-validations";

pub struct Classes(pub Arc<Context>);

impl Reconcile for Classes {
    const NAME: &'static str = "clusterclass";
    type Seen = Arc<ClusterClass>;
    type Plan = Plan;

    async fn observe(&self, key: &Key) -> Result<Option<Arc<ClusterClass>>> {
        Ok(self.0.caches.classes.get(key))
    }

    fn plan(&self, seen: &Arc<ClusterClass>, now: Timestamp) -> Plan {
        plan(seen, &Time(now))
    }

    async fn act(&self, _: &Key, _: &Arc<ClusterClass>, plan: Plan) -> Result<Outcome> {
        self.0.writer.execute(plan).await
    }
}

pub(super) fn plan(class: &ClusterClass, now: &Time) -> Plan {
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
        set(Statement::yes("VariablesReady", "VariablesReady"));
        set(Statement::yes("RefVersionsUpToDate", "RefVersionsUpToDate"));
        let variables = class.spec.fields.get("variables").and_then(Value::as_array).into_iter().flatten();
        status.variables = variables.map(variable).collect();
    }
    status.observed_generation = generation;
    let observed = class.status.as_ref().and_then(|status| status.observed_generation);
    let rules = class.spec.fields.get("variables").is_some_and(|variables| variables.to_string().contains(RULES));
    let partly = if rules { vec![format!("{RULES} of spec.variables")] } else { Vec::new() };
    unacted::tell(class, observed, partly, &mut plan);
    plan.update(class, &after);
    plan
}

fn variable(variable: &Value) -> Value {
    let definition = json!({"from": "inline", "required": variable["required"] == true, "schema": variable["schema"]});
    json!({"name": variable["name"], "definitionsConflict": false, "definitions": [definition]})
}
