//! The rules of faults, as they are written and read, and their limits.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::cloud::http::Service;

/// Rules of each list.
pub const RULES_LIMIT: usize = 64;
/// The longest text of a rule, in bytes.
pub const RULE_TEXT_LIMIT: usize = 255;
/// The longest delay that a rule may ask for.
pub const DELAY_LIMIT_MS: u64 = 3_600_000;
/// The longest body of `PUT /sandbox/faults`, in bytes.
pub const FAULTS_LIMIT_BYTES: usize = 64 * 1024;

/// Everything that goes wrong. The default is that nothing does.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Faults {
    /// The first rule that strikes decides; delays add up.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<CallRule>,
    /// What is being built: ends in error, or takes long.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub builds: Vec<BuildRule>,
    /// What becomes of servers that have become ACTIVE.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lives: Vec<LifeRule>,
    /// Availability zones that are down: nothing is placed in them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub zones_down: Vec<ZoneRule>,
    /// Limits of all projects, by the services' names of resources (`instances`, `port`, `volumes`, ...).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub quotas: BTreeMap<String, i64>,
    /// The highest minor microversion of Nova.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compute_microversion_max: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct CallRule {
    /// By its prefix (`compute`, `network`, `load-balancer`, `volume`, `image`, `identity`); all if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// All if there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// A part of the path, between slashes (`servers`, `ports`, `action`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Strikes administrators' calls too, among them those of hollow machines.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub administrators: bool,
    #[serde(default)]
    pub when: When,
    pub effect: Effect,
}

/// How often a rule strikes; always, if nothing is said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct When {
    /// From 0 to 1.
    pub chance: f64,
    /// Matches that pass before it begins.
    pub skip: u32,
    /// It strikes so often at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
}

impl Default for When {
    fn default() -> Self {
        Self { chance: 1.0, skip: 0, count: None }
    }
}

impl When {
    pub fn chance(chance: f64) -> Self {
        Self { chance, ..Self::default() }
    }

    pub fn times(count: u32) -> Self {
        Self { count: Some(count), ..Self::default() }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Effect {
    /// The call is not done and answered so, in the form that the service gives its errors.
    Error {
        /// 400 to 599.
        status: u16,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after_s: Option<u32>,
    },
    /// The call is done and its answer lost: a proxy's 504, or a connection that breaks.
    Lost { broken: bool },
    /// The call is done later, by a time between the two.
    Delay { min_ms: u64, max_ms: u64 },
    /// The caller's token is not valid any more.
    Expire {},
}

impl CallRule {
    /// A rule for the calls of all services but administrators'.
    pub fn all(when: When, effect: Effect) -> Self {
        Self { service: None, methods: Vec::new(), path: None, administrators: false, when, effect }
    }

    /// A rule for calls of one method on what a service keeps in a collection.
    pub fn on(service: &str, method: &str, path: &str, when: When, effect: Effect) -> Self {
        Self {
            service: Some(service.to_owned()),
            methods: vec![method.to_owned()],
            path: Some(path.to_owned()),
            ..Self::all(when, effect)
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Built {
    Server,
    LoadBalancer,
    Volume,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct BuildRule {
    pub what: Built,
    /// What the name begins with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default)]
    pub when: When,
    /// It ends in error, with this for a server's fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// It takes so much longer; a load balancer also for each change.
    #[serde(default)]
    pub slow_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum End {
    Vanish,
    Shutoff,
    Error,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct LifeRule {
    /// What the server's name begins with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default)]
    pub when: When,
    /// After it has become ACTIVE.
    pub after_ms: u64,
    pub end: End,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ZoneRule {
    pub name: String,
    /// What becomes of the servers that run there; nothing if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<End>,
}

const METHODS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];

impl Faults {
    /// What is wrong with them: limits, chances, names of services and methods.
    pub fn check(&self) -> Result<(), String> {
        let counts = [self.calls.len(), self.builds.len(), self.lives.len(), self.zones_down.len(), self.quotas.len()];
        if counts.iter().any(|count| *count > RULES_LIMIT) {
            return Err(format!("there are more than {RULES_LIMIT} rules of a kind"));
        }
        self.calls.iter().try_for_each(CallRule::check)?;
        for rule in &self.builds {
            chance(&rule.when)?;
            short("name", rule.name.as_ref())?;
            short("error", rule.error.as_ref())?;
            delay(rule.slow_ms)?;
        }
        for rule in &self.lives {
            chance(&rule.when)?;
            short("name", rule.name.as_ref())?;
            delay(rule.after_ms)?;
        }
        self.zones_down.iter().try_for_each(|rule| short("name", Some(&rule.name)))?;
        self.quotas.keys().try_for_each(|name| short("a quota's name", Some(name)))?;
        match self.compute_microversion_max {
            Some(0) => Err("the lowest microversion is 2.1".to_owned()),
            _ => Ok(()),
        }
    }
}

impl CallRule {
    fn check(&self) -> Result<(), String> {
        chance(&self.when)?;
        short("path", self.path.as_ref())?;
        let known = Service::ALL.map(Service::prefix);
        if let Some(service) = self.service.as_deref().filter(|service| !known.contains(service)) {
            return Err(format!("there is no service {service:?}; there are {}", known.join(", ")));
        }
        if let Some(other) = self.methods.iter().find(|method| !METHODS.contains(&method.as_str())) {
            return Err(format!("{other:?} is none of {}", METHODS.join(", ")));
        }
        match &self.effect {
            Effect::Error { status, message, retry_after_s } => {
                short("message", message.as_ref())?;
                delay(u64::from(retry_after_s.unwrap_or_default()) * 1000)?;
                if (400..600).contains(status) { Ok(()) } else { Err(format!("{status} is no status of an error")) }
            }
            Effect::Delay { min_ms, max_ms } if min_ms > max_ms => {
                Err("a delay's minMs is larger than its maxMs".to_owned())
            }
            Effect::Delay { max_ms, .. } => delay(*max_ms),
            Effect::Lost { .. } | Effect::Expire {} => Ok(()),
        }
    }
}

fn short(what: &str, text: Option<&String>) -> Result<(), String> {
    match text {
        Some(text) if text.len() > RULE_TEXT_LIMIT => Err(format!("{what} is longer than {RULE_TEXT_LIMIT} bytes")),
        _ => Ok(()),
    }
}

fn delay(ms: u64) -> Result<(), String> {
    if ms > DELAY_LIMIT_MS { Err(format!("a delay is longer than {DELAY_LIMIT_MS} ms")) } else { Ok(()) }
}

fn chance(when: &When) -> Result<(), String> {
    if (0.0..=1.0).contains(&when.chance) { Ok(()) } else { Err("a chance is from 0 to 1".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(effect: Effect) -> CallRule {
        CallRule::all(When::default(), effect)
    }

    #[test]
    fn faults_have_limits() {
        let down = rule(Effect::Error { status: 503, message: None, retry_after_s: None });
        let with = |calls| Faults { calls, ..Faults::default() };
        assert!(with(vec![down.clone(); RULES_LIMIT]).check().is_ok());
        assert!(with(vec![down.clone(); RULES_LIMIT + 1]).check().is_err());
        let late = |max_ms| with(vec![rule(Effect::Delay { min_ms: 0, max_ms })]);
        assert!(late(DELAY_LIMIT_MS).check().is_ok());
        assert!(late(DELAY_LIMIT_MS + 1).check().is_err());
        let long = |bytes| with(vec![CallRule { path: Some("x".repeat(bytes)), ..down.clone() }]);
        assert!(long(RULE_TEXT_LIMIT).check().is_ok());
        assert!(long(RULE_TEXT_LIMIT + 1).check().is_err());
        let odd = with(vec![CallRule { service: Some("dns".into()), ..down }]);
        assert!(odd.check().unwrap_err().contains("load-balancer"));
    }

    #[test]
    fn faults_are_read_as_they_are_documented_and_nothing_else() {
        let read = |text: &str| serde_json::from_str::<Faults>(text);
        let text = r#"{"calls": [{"service": "compute", "methods": ["POST"], "path": "servers", "when": {"chance": 0.5},
            "effect": {"error": {"status": 429, "retryAfterS": 3}}}, {"effect": {"lost": {"broken": true}}},
            {"effect": {"expire": {}}, "when": {"skip": 2, "count": 1}}],
            "builds": [{"what": "loadBalancer", "slowMs": 60000}, {"what": "server", "error": "No valid host was found."}],
            "lives": [{"name": "demo-md", "afterMs": 5, "end": "vanish"}],
            "zonesDown": [{"name": "az1", "running": "shutoff"}], "quotas": {"instances": 3},
            "computeMicroversionMax": 52}"#;
        let faults = read(text).unwrap();
        assert_eq!(read(&serde_json::to_string(&faults).unwrap()).unwrap(), faults);
        assert_eq!(faults.calls[2].when, When { chance: 1.0, skip: 2, count: Some(1) });
        assert!(read(r#"{"call": []}"#).is_err());
        assert!(read(r#"{"calls": [{"effect": {"explode": {}}}]}"#).is_err());
    }
}
