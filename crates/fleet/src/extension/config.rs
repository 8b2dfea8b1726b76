//! The ExtensionConfig controller: asks each server what it handles, and gives it the authority that it is trusted by.
//!
//! Source: kubernetes-sigs/cluster-api core/reconcilers/extensionconfig.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use api::{
    condition::{self, Statement},
    extension::{ExtensionConfig, ExtensionHandler, FailurePolicy, GroupVersionHook},
    meta::Time,
    names,
    topology::hooks::{self, Hook},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use control::{Error, Key, Outcome, Plan, Reconcile, Result};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use serde_json::{Value, json};

use super::{Extensions, TIMEOUT_MAX_S, TIMEOUT_S, exchange::CallError};
use crate::owner;

/// A server may have become another.
const AGAIN_S: u64 = 10 * 60;
/// One that could not be asked.
const RETRY_S: u64 = 10;
/// Handlers of one server.
const HANDLERS_MAX: usize = 512;
/// The authority in a Secret.
const AUTHORITY: &str = "ca.crt";
/// Longest name of a DNS label.
const LABEL_CHARS_MAX: usize = 63;

pub struct ExtensionConfigs(pub Arc<Extensions>);

pub struct Seen {
    config: Arc<ExtensionConfig>,
    /// In base64: the authority that it is to have, if an annotation names a Secret; or why there is none.
    authority: Option<std::result::Result<String, String>>,
}

impl Reconcile for ExtensionConfigs {
    const NAME: &'static str = "extensionconfig";
    type Seen = Seen;
    type Plan = Plan;

    async fn observe(&self, key: &Key) -> Result<Option<Seen>> {
        let Some(config) = self.0.caches.extensions.get(key) else { return Ok(None) };
        let authority = match owner::annotation_of(&config.metadata, names::INJECT_CA_ANNOTATION) {
            Some(secret) => Some(self.authority(secret).await?),
            None => None,
        };
        Ok(Some(Seen { config, authority }))
    }

    fn plan(&self, seen: &Seen, now: Timestamp) -> Plan {
        plan(seen, &Time(now))
    }

    async fn act(&self, _: &Key, seen: &Seen, plan: Plan) -> Result<Outcome> {
        let config = seen.config.as_ref();
        let quiet = config.metadata.deletion_timestamp.is_some() || owner::is_paused(None, &config.metadata);
        let wrong = matches!(seen.authority, Some(Err(_)));
        if !plan.steps.is_empty() || quiet || wrong {
            return self.0.writer.execute(plan).await;
        }
        let found = self.discover(config).await;
        let failed = found.is_err();
        let mut plan = Plan::nothing();
        plan.update(config, &told(config, found, &Time(self.0.clock.now())));
        if failed {
            plan.wait("the extension's server", RETRY_S)
        } else {
            plan.wait("what it may come to handle", AGAIN_S)
        };
        self.0.writer.execute(plan).await
    }
}

/// What needs no server: its authority, and that it is paused.
fn plan(seen: &Seen, now: &Time) -> Plan {
    let config = seen.config.as_ref();
    let mut plan = Plan::nothing();
    if config.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    let mut after = config.clone();
    let paused = owner::is_paused(None, &config.metadata);
    let generation = config.metadata.generation;
    let status = after.status.get_or_insert_default();
    let statement = Statement::of("Paused", paused, ("Paused", "NotPaused"), "");
    condition::set(&mut status.conditions, statement, generation, now);
    match &seen.authority {
        Some(Ok(authority)) if !paused => after.spec.client_config.ca_bundle = Some(authority.clone()),
        Some(Err(why)) if !paused => {
            let statement = Statement::no("Discovered", "NotDiscovered", why.clone());
            condition::set(&mut status.conditions, statement, generation, now);
            plan.wait("the Secret with its authority", RETRY_S);
        }
        _ => {}
    }
    plan.update(config, &after);
    plan
}

/// The config with what came of asking its server.
fn told(
    config: &ExtensionConfig,
    found: std::result::Result<Vec<ExtensionHandler>, String>,
    now: &Time,
) -> ExtensionConfig {
    let mut after = config.clone();
    let status = after.status.get_or_insert_default();
    let statement = match found {
        Ok(handlers) => {
            status.handlers = handlers;
            Statement::yes("Discovered", "Discovered")
        }
        Err(why) => Statement::no("Discovered", "NotDiscovered", format!("Error in discovery: {why}")),
    };
    condition::set(&mut status.conditions, statement, config.metadata.generation, now);
    after
}

impl ExtensionConfigs {
    /// The authority in a Secret that is named as `namespace/name`.
    async fn authority(&self, secret: &str) -> Result<std::result::Result<String, String>> {
        let Some((namespace, name)) =
            secret.split_once('/').filter(|(namespace, name)| !namespace.is_empty() && !name.is_empty())
        else {
            return Ok(Err(format!("secret name {secret:?} must be in the form <namespace>/<name>")));
        };
        let found = Api::<Secret>::namespaced(self.0.client.clone(), namespace).get_opt(name).await;
        let found = found.map_err(|error| Error::api("get", format!("Secret {secret}"), error))?;
        let Some(found) = found else { return Ok(Err(format!("Secret {secret} does not exist"))) };
        let authority = found.data.and_then(|mut data| data.remove(AUTHORITY));
        Ok(authority
            .map(|bytes| STANDARD.encode(bytes.0))
            .ok_or_else(|| format!("Secret {secret} does not contain a {AUTHORITY:?} entry")))
    }

    async fn discover(&self, config: &ExtensionConfig) -> std::result::Result<Vec<ExtensionHandler>, String> {
        let name = config.metadata.name.as_deref().unwrap_or_default();
        let asked = self.0.post(config, "Discovery", "", json!({}), Duration::from_secs(TIMEOUT_S)).await;
        let response = asked.map_err(|error| match error {
            CallError::Exchange(why) | CallError::Config(why) => {
                format!("failed to discover extension {name:?}: {why}")
            }
        })?;
        if response["status"] != "Success" {
            let message = response["message"].as_str().unwrap_or_default();
            return Err(format!("failed to discover extension {name:?}: got failure response with message: {message}"));
        }
        read(name, &response).map_err(|why| format!("failed to discover extension {name:?}: {why}"))
    }
}

/// The handlers of a response to discovery.
fn read(extension: &str, response: &Value) -> std::result::Result<Vec<ExtensionHandler>, String> {
    let list = response["handlers"].as_array().map_or(&[][..], Vec::as_slice);
    if list.len() > HANDLERS_MAX {
        return Err(format!("it has more than {HANDLERS_MAX} handlers"));
    }
    let mut names = BTreeSet::new();
    let mut handlers = Vec::with_capacity(list.len());
    for handler in list {
        let name = handler["name"].as_str().unwrap_or_default();
        let wrong = |why: &str| Err(format!("handler {name:?}: {why}"));
        let is_label = !name.is_empty()
            && name.len() <= LABEL_CHARS_MAX
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
            && !name.starts_with('-')
            && !name.ends_with('-');
        if !is_label {
            return wrong("the name is no DNS label");
        }
        if !names.insert(name) {
            return wrong("the name is there twice");
        }
        let timeout = handler["timeoutSeconds"].as_i64().unwrap_or(TIMEOUT_S.cast_signed());
        if !(0..=TIMEOUT_MAX_S).contains(&timeout) {
            return wrong("timeoutSeconds must be between 0 and 30");
        }
        let policy = match handler["failurePolicy"].as_str() {
            None | Some("Fail") => FailurePolicy::Fail,
            Some("Ignore") => FailurePolicy::Ignore,
            Some(_) => return wrong("failurePolicy must equal \"Ignore\" or \"Fail\""),
        };
        let text = |field: &str| handler["requestHook"][field].as_str().unwrap_or_default().to_owned();
        let request_hook = GroupVersionHook { api_version: text("apiVersion"), hook: text("hook") };
        if request_hook.api_version != hooks::VERSION || Hook::of(&request_hook.hook).is_none() {
            return wrong(&format!("hook {}/{} is not known here", request_hook.api_version, request_hook.hook));
        }
        handlers.push(ExtensionHandler {
            failure_policy: Some(policy),
            name: format!("{name}.{extension}"),
            request_hook,
            timeout_seconds: i32::try_from(timeout).ok().filter(|seconds| *seconds > 0),
        });
    }
    Ok(handlers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_it_handles_is_checked() {
        let hook = |hook: &str| json!({"apiVersion": hooks::VERSION, "hook": hook});
        let one = json!({"name": "a", "requestHook": hook("GeneratePatches"), "failurePolicy": "Ignore", "timeoutSeconds": 5});
        let found = read("ext", &json!({"handlers": [one, {"name": "b", "requestHook": hook("BeforeClusterCreate")}]}))
            .unwrap();
        assert_eq!((found[0].name.as_str(), found[0].timeout_seconds), ("a.ext", Some(5)));
        assert_eq!((found[1].failure_policy, found[1].timeout_seconds), (Some(FailurePolicy::Fail), Some(10)));
        for (handlers, wanted) in [
            (json!([one, one]), "twice"),
            (json!([{"name": "A", "requestHook": hook("GeneratePatches")}]), "no DNS label"),
            (json!([{"name": "a", "requestHook": hook("NoSuch")}]), "not known"),
            (json!([{"name": "a", "requestHook": {"apiVersion": "x/v9", "hook": "GeneratePatches"}}]), "not known"),
            (json!([{"name": "a", "requestHook": hook("GeneratePatches"), "timeoutSeconds": 31}]), "between 0 and 30"),
            (json!([{"name": "a", "requestHook": hook("GeneratePatches"), "failurePolicy": "Maybe"}]), "failurePolicy"),
            (json!(vec![one.clone(); HANDLERS_MAX + 1]), "more than 512"),
        ] {
            let refused = read("ext", &json!({ "handlers": handlers })).unwrap_err();
            assert!(refused.contains(wanted), "{refused}");
        }
    }
}
