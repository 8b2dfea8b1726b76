//! Rules about what must not be deleted yet: an object of one kind stays for as long as there are objects of another
//! kind that depend on it, as a Go template over the two says.
//!
//! Source: giantswarm deletion-blocker-operator: the rules' form, the finalizer, the minute between two looks. Two things
//! differ: all rules about a kind are one controller's (with one finalizer for all, a rule that holds nothing would let go
//! of what another one holds), and a field that a dependent does not have makes it no dependent, not an error for ever.

mod watched;

use std::{collections::HashMap, sync::Arc};

use api::topology::template::{self, TemplateError};
use control::{Event, EventType, Key, Life, Outcome, Plan, Queue, Reconcile, Result, Runner, Step, Writer};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{ApiResource, DynamicObject};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::json;

use self::watched::Watched;
use crate::Options;

/// On every object of a kind that a rule is about.
pub const FINALIZER: &str = "deletion-blocker-operator.finalizers.giantswarm.io";
/// Rules of one installation.
pub const RULES_MAX: usize = 64;
/// A file of rules may be so long.
pub const FILE_BYTES_MAX: usize = 1024 * 1024;
/// Names of dependents that an event tells.
const NAMES_MAX: usize = 5;
/// Pause until what is held back is looked at again if nothing changes before.
const RETRY_S: u64 = 60;

/// A kind as a rule names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Kind {
    /// Empty for the core group.
    #[serde(default)]
    pub group: String,
    pub version: String,
    pub kind: String,
    /// The plural, as in `machinesets`.
    pub resource: String,
}

impl Kind {
    fn resource(&self) -> ApiResource {
        let (group, version) = (self.group.clone(), self.version.clone());
        let api_version = if group.is_empty() { version.clone() } else { format!("{group}/{version}") };
        ApiResource { group, version, api_version, kind: self.kind.clone(), plural: self.resource.clone() }
    }
}

/// `managed` is held back for as long as `query` is `true` of it and one of the `dependent`s in its namespace.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// A Go template over `.managed` and `.dependent`.
    pub query: String,
    pub managed: Kind,
    pub dependent: Kind,
}

/// Why a file of rules is not taken.
#[derive(Debug, thiserror::Error)]
pub enum RuleError {
    #[error("the rules cannot be read: a list of query, managed and dependent is expected")]
    Form(#[source] serde_saphyr::Error),
    #[error("rule {index}: its query is no template: correct it")]
    Query {
        index: usize,
        #[source]
        source: TemplateError,
    },
    #[error("the rules have more than {FILE_BYTES_MAX} bytes")]
    Long,
    #[error("there are {0} rules, more than {RULES_MAX}")]
    Many(usize),
}

/// The rules of a file.
///
/// # Errors
/// What is wrong with them, with the rule's number from 0.
pub fn read(text: &str) -> std::result::Result<Vec<Rule>, RuleError> {
    if text.len() > FILE_BYTES_MAX {
        return Err(RuleError::Long);
    }
    let rules: Vec<Rule> = serde_saphyr::from_str(text).map_err(RuleError::Form)?;
    if rules.len() > RULES_MAX {
        return Err(RuleError::Many(rules.len()));
    }
    for (index, rule) in rules.iter().enumerate() {
        template::check(&rule.query).map_err(|source| RuleError::Query { index, source })?;
    }
    Ok(rules)
}

/// Starts a watch of each kind, and a controller of each kind that is managed. They begin when their kinds are served.
pub(crate) fn start(options: &Options, writer: &Writer, life: &Life) {
    let mut kinds: HashMap<Kind, Arc<Watched>> = HashMap::new();
    for kind in options.deletion_rules.iter().flat_map(|rule| [&rule.managed, &rule.dependent]) {
        kinds.entry(kind.clone()).or_insert_with(|| Arc::new(Watched::new(kind.resource())));
    }
    let mut managed: HashMap<Kind, Vec<Rule>> = HashMap::new();
    for rule in &options.deletion_rules {
        managed.entry(rule.managed.clone()).or_default().push(rule.clone());
    }
    for (kind, rules) in managed {
        let runner = Runner::new(options.concurrency, writer).measured(&options.longest);
        let own = kinds[&kind].clone();
        let rules = rules.into_iter().map(|rule| (kinds[&rule.dependent].clone(), rule)).collect();
        let held = Held { own, rules, writer: writer.clone(), told: Mutex::default() };
        held.feed(&runner.queue());
        let all: Vec<_> = held.rules.iter().map(|(of, _)| of.clone()).chain([held.own.clone()]).collect();
        let filled = async move {
            for one in all {
                one.filled().await;
            }
            true
        };
        life.spawn_if(filled, runner, held);
    }
    for watched in kinds.into_values() {
        life.task(watched.follow(options.client.clone()));
    }
}

/// The controller of one kind that rules are about.
struct Held {
    own: Arc<Watched>,
    /// With the dependents of each.
    rules: Vec<(Arc<Watched>, Rule)>,
    writer: Writer,
    /// What was said of an object last, so that a minute later it is not said again.
    told: Mutex<HashMap<Key, String>>,
}

struct Seen {
    resource: ApiResource,
    object: Arc<DynamicObject>,
    /// Why it is not let go: the kinds and names of dependents, or what is wrong with a rule. None while it is to stay.
    holders: Vec<String>,
}

impl Held {
    fn feed(&self, queue: &Queue) {
        let own = queue.clone();
        self.own.on_change(move |object| own.add(watched::key(object)));
        for (dependents, _) in &self.rules {
            let (queue, managed) = (queue.clone(), self.own.clone());
            dependents.on_change(move |object| {
                for waiting in managed.deleting(object.metadata.namespace.as_deref().unwrap_or_default()) {
                    queue.add(waiting);
                }
            });
        }
    }

    fn holders(&self, object: &DynamicObject) -> Vec<String> {
        let managed = serde_json::to_value(object).unwrap_or_default();
        let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
        let mut holders = Vec::new();
        for (dependents, rule) in &self.rules {
            for dependent in dependents.in_namespace(namespace) {
                let data = json!({"managed": managed, "dependent": dependent.as_ref()});
                let who = format!("{} {}", rule.dependent.kind, dependent.metadata.name.as_deref().unwrap_or_default());
                match template::render(&rule.query, &data) {
                    Ok(said) if said.trim() == "true" => holders.push(who),
                    Ok(_) => {}
                    Err(error) if error.is_of_absent() => {}
                    Err(error) => holders.push(format!("{who} (the rule's query fails: {error})")),
                }
            }
        }
        holders.sort();
        holders.dedup();
        holders
    }
}

impl Reconcile for Held {
    const NAME: &'static str = "deletionrules";
    type Seen = Seen;
    type Plan = Plan;

    async fn observe(&self, key: &Key) -> Result<Option<Seen>> {
        let Some(object) = self.own.get(key) else {
            self.told.lock().remove(key);
            return Ok(None);
        };
        let leaves = object.metadata.deletion_timestamp.is_some();
        let holders = if leaves { self.holders(&object) } else { Vec::new() };
        Ok(Some(Seen { resource: self.own.resource().clone(), object, holders }))
    }

    fn plan(&self, seen: &Seen, _: Timestamp) -> Plan {
        plan(seen)
    }

    async fn act(&self, key: &Key, _: &Seen, mut plan: Plan) -> Result<Outcome> {
        if let Outcome::Waiting { on, .. } = &plan.outcome {
            let news = self.told.lock().insert(key.clone(), on.clone()).as_ref() != Some(on);
            if news {
                tracing::info!(kind = self.own.resource().kind, %key, "not deleted: {on}");
            } else {
                plan.steps.retain(|step| !matches!(step, Step::Event(_)));
            }
        }
        self.writer.execute(plan).await
    }
}

fn is_ours(finalizer: &str) -> bool {
    // Those of the past end in a hash of the rule.
    finalizer.strip_prefix(FINALIZER).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn plan(seen: &Seen) -> Plan {
    let (before, mut plan) = (&seen.object.metadata, Plan::nothing());
    let mut after = before.clone();
    let finalizers = after.finalizers.get_or_insert_default();
    if before.deletion_timestamp.is_none() {
        if !finalizers.iter().any(|one| one == FINALIZER) {
            finalizers.push(FINALIZER.to_owned());
            plan.update_metadata(&seen.resource, before, &after);
        }
        return plan;
    }
    if !finalizers.iter().any(|one| is_ours(one)) {
        return plan;
    }
    if seen.holders.is_empty() {
        finalizers.retain(|one| !is_ours(one));
        plan.update_metadata(&seen.resource, before, &after);
        return plan;
    }
    let mut names = seen.holders.iter().take(NAMES_MAX).cloned().collect::<Vec<_>>().join(", ");
    if seen.holders.len() > NAMES_MAX {
        names += &format!(" and {} more", seen.holders.len() - NAMES_MAX);
    }
    let why = format!("{names} still depend on it");
    plan.steps.push(Step::Event(Event {
        about: ObjectReference {
            api_version: Some(seen.resource.api_version.clone()),
            kind: Some(seen.resource.kind.clone()),
            name: before.name.clone(),
            namespace: before.namespace.clone(),
            uid: before.uid.clone(),
            ..Default::default()
        },
        type_: EventType::Warning,
        reason: "DeletionBlocked".to_owned(),
        message: format!("not deleted: {why}"),
    }));
    plan.wait(why, RETRY_S);
    plan
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const EXAMPLE: &str = r#"
- query: '{{ eq .dependent.spec.template.spec.bootstrap.configRef.name .managed.metadata.name }}'
  managed: {group: bootstrap.cluster.x-k8s.io, version: v1beta2, kind: KubeadmConfigTemplate, resource: kubeadmconfigtemplates}
  dependent: {group: cluster.x-k8s.io, version: v1beta2, kind: MachineSet, resource: machinesets}
"#;

    fn object(kind: &str, value: Value) -> Arc<DynamicObject> {
        let mut whole = json!({"apiVersion": "g/v1", "kind": kind, "metadata": {"namespace": "ns", "name": "a"}});
        for (name, part) in value.as_object().unwrap() {
            match name.as_str() {
                "metadata" => whole["metadata"].as_object_mut().unwrap().extend(part.as_object().unwrap().clone()),
                _ => whole[name] = part.clone(),
            }
        }
        Arc::new(serde_json::from_value(whole).unwrap())
    }

    #[test]
    fn rules_are_read_and_bad_ones_refused() {
        let rules = read(EXAMPLE).unwrap();
        assert_eq!(rules[0].managed.resource().api_version, "bootstrap.cluster.x-k8s.io/v1beta2");
        assert!(matches!(read("a: b"), Err(RuleError::Form(_))));
        let broken = EXAMPLE.replace("}}'", "'");
        assert!(matches!(read(&broken), Err(RuleError::Query { index: 0, .. })));
        assert_eq!(read(&EXAMPLE.repeat(RULES_MAX)).unwrap().len(), RULES_MAX);
        assert!(matches!(read(&EXAMPLE.repeat(RULES_MAX + 1)), Err(RuleError::Many(65))));
        let unknown = EXAMPLE.replace("{{ eq ", "{{ nosuch ");
        assert!(matches!(read(&unknown), Err(RuleError::Query { index: 0, .. })));
        let long = format!("{EXAMPLE}#{}", " ".repeat(FILE_BYTES_MAX));
        assert!(matches!(read(&long), Err(RuleError::Long)));
    }

    fn held(rules: &str, dependents: Vec<Arc<DynamicObject>>) -> Held {
        let rule = read(rules).unwrap().remove(0);
        let of = Arc::new(Watched::new(rule.dependent.resource()));
        dependents.into_iter().for_each(|one| of.put(one));
        let own = Arc::new(Watched::new(rule.managed.resource()));
        let service = tower::service_fn(|_: http::Request<kube::client::Body>| async {
            Err::<http::Response<kube::client::Body>, _>(std::io::Error::other("nobody answers"))
        });
        let writer = Writer::new(kube::Client::new(service, "ns"), "test", control::Clock::system());
        Held { own, rules: vec![(of, rule)], writer, told: Mutex::default() }
    }

    #[tokio::test]
    async fn what_a_dependent_names_is_held_and_what_has_no_such_field_is_not() {
        let set = |bootstrap: Value| json!({"spec": {"template": {"spec": {"bootstrap": bootstrap}}}});
        let template = object("KubeadmConfigTemplate", json!({}));
        let holders = |bootstrap: Value| held(EXAMPLE, vec![object("MachineSet", set(bootstrap))]).holders(&template);
        assert_eq!(holders(json!({"configRef": {"name": "a"}})), ["MachineSet a"]);
        assert_eq!(holders(json!({"configRef": {"name": "b"}})), [""; 0]);
        assert_eq!(holders(json!({"dataSecretName": "a"})), [""; 0]);
        let far = json!({"metadata": {"namespace": "other"}, "spec": set(json!({"configRef": {"name": "a"}}))["spec"]});
        assert_eq!(held(EXAMPLE, vec![object("MachineSet", far)]).holders(&template), [""; 0]);
        let query = "eq .dependent.spec.template.spec.bootstrap.configRef.name .managed.metadata.name";
        let failing = EXAMPLE.replace(query, "fail \"no\"");
        let found = held(&failing, vec![object("MachineSet", json!({}))]).holders(&template);
        assert!(found[0].contains("the rule's query fails"), "{found:?}");
    }

    #[test]
    fn a_finalizer_comes_first_and_goes_when_nothing_holds() {
        let resource = read(EXAMPLE).unwrap()[0].managed.resource();
        let plan_of = |metadata: Value, holders: &[&str]| {
            let holders = holders.iter().map(|text| (*text).to_owned()).collect();
            let object = object("KubeadmConfigTemplate", json!({ "metadata": metadata }));
            plan(&Seen { resource: resource.clone(), object, holders })
        };
        let change = |plan: &Plan| match &plan.steps[..] {
            [Step::Update(change)] => change.main.clone().unwrap()["metadata"]["finalizers"].clone(),
            steps => panic!("{steps:?}"),
        };
        assert_eq!(change(&plan_of(json!({"finalizers": ["x"]}), &[])), json!(["x", FINALIZER]));
        assert!(plan_of(json!({"finalizers": [FINALIZER]}), &[]).steps.is_empty(), "nothing is written at rest");
        let leaving =
            |finalizers: Value| json!({"finalizers": finalizers, "deletionTimestamp": "2026-01-01T00:00:00Z"});
        let legacy = format!("{FINALIZER}.0a1b2c3d");
        assert_eq!(change(&plan_of(leaving(json!([FINALIZER, "x", legacy])), &[])), json!(["x"]));
        assert!(plan_of(leaving(json!(["x"])), &["MachineSet a"]).steps.is_empty());
        let blocked = plan_of(leaving(json!([FINALIZER])), &["MachineSet a"]);
        assert_eq!(blocked.outcome, Outcome::waiting("MachineSet a still depend on it", 60));
        assert!(matches!(&blocked.steps[..], [Step::Event(event)] if event.reason == "DeletionBlocked"));
    }
}
