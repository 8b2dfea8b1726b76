//! Faults that the cloud is told to have, as data: which calls fail and how, what is built badly or slowly, which servers
//! end, which zones are down, what quotas and microversions there are. They can be changed while the cloud runs
//! ([`super::Cloud::set_faults`], `PUT /sandbox/faults`), and end with the process.
//!
//! What happens by chance is a function of the cloud's seed, the rule, what is called or built, and how often that has been
//! before: two runs that make the same calls in another order fail in the same places.

mod rules;

use std::{
    collections::{HashMap, HashSet},
    hash::{Hash, Hasher},
    time::Duration,
};

use http::{Method, StatusCode};

pub use self::rules::{
    BuildRule, Built, CallRule, DELAY_LIMIT_MS, Effect, End, FAULTS_LIMIT_BYTES, Faults, LifeRule, RULE_TEXT_LIMIT,
    RULES_LIMIT, When, ZoneRule,
};
use super::{
    fault::Fault,
    http::{Caller, Request, Service},
    table::{Row, text},
};

/// Tokens that are remembered as expired.
const EXPIRED_LIMIT: usize = 10_000;
/// Calls and things that are counted for chances.
const COUNTS_LIMIT: usize = 100_000;

/// What becomes of a call.
#[derive(Default)]
pub struct Strike {
    pub delay: Duration,
    pub error: Option<Fault>,
    /// Done, and not answered; whether the connection breaks.
    pub lost: Option<bool>,
}

/// The faults, and what they have done.
#[derive(Default)]
pub struct Injection {
    faults: Faults,
    seed: u64,
    /// How often each rule has matched and struck: by list and place in it.
    rules: HashMap<(&'static str, usize), (u32, u32)>,
    /// How often something was drawn for.
    drawn: HashMap<u64, u32>,
    expired: HashSet<u64>,
    expirations: u64,
    /// Servers that are going to end.
    ending: HashMap<String, End>,
}

impl Injection {
    pub fn new(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    pub fn set(&mut self, faults: Faults) {
        self.faults = faults;
        self.rules.clear();
        self.ending.clear();
    }

    /// How often the rules of a list have struck, in their order.
    pub fn struck(&self, list: &'static str) -> Vec<u32> {
        let count = match list {
            "calls" => self.faults.calls.len(),
            "builds" => self.faults.builds.len(),
            _ => self.faults.lives.len(),
        };
        (0..count).map(|index| self.rules.get(&(list, index)).map_or(0, |(_, struck)| *struck)).collect()
    }

    /// What becomes of a call.
    pub fn strike(&mut self, request: &Request, administrator: bool) -> Strike {
        let mut strike = Strike::default();
        for index in 0..self.faults.calls.len() {
            let Some(rule) = self.faults.calls.get(index) else { break };
            if (administrator && !rule.administrators) || !matches(rule, request) {
                continue;
            }
            let (when, effect) = (rule.when.clone(), rule.effect.clone());
            let Some(draw) = self.draw("calls", index, &when, &shape(request)) else { continue };
            match effect {
                Effect::Delay { min_ms, max_ms } => {
                    let spread = max_ms.saturating_sub(min_ms) as f64 * draw;
                    strike.delay += Duration::from_millis(min_ms + spread as u64);
                    continue;
                }
                Effect::Error { status, message, retry_after_s } => {
                    strike.error = Some(error(status, message, retry_after_s));
                }
                Effect::Lost { broken } => strike.lost = Some(broken),
                Effect::Expire {} => self.expire(request),
            }
            break;
        }
        strike.delay = strike.delay.min(Duration::from_millis(DELAY_LIMIT_MS));
        strike
    }

    fn expire(&mut self, request: &Request) {
        let Some(token) = request.headers.get("x-auth-token") else { return };
        if self.expired.len() >= EXPIRED_LIMIT {
            self.expired.clear();
        }
        self.expired.insert(hash(&token.as_bytes()));
        self.expirations += 1;
    }

    /// How often a token has been made to end.
    pub fn expirations(&self) -> u64 {
        self.expirations
    }

    pub fn is_expired(&self, token: &str) -> bool {
        !self.expired.is_empty() && self.expired.contains(&hash(&token.as_bytes()))
    }

    /// How much longer something takes that is built or changed.
    pub fn slow(&mut self, what: Built, name: &str) -> Duration {
        let mut slow = 0;
        for index in 0..self.faults.builds.len() {
            let Some(rule) = self.faults.builds.get(index) else { break };
            if rule.slow_ms > 0 && rule.what == what && begins(rule.name.as_ref(), name) {
                let (when, ms) = (rule.when.clone(), rule.slow_ms);
                // Drawn under another name than the error: one rule may have both.
                if self.draw("builds", index, &when, &format!("slow {name}")).is_some() {
                    slow += ms;
                }
            }
        }
        Duration::from_millis(slow.min(DELAY_LIMIT_MS))
    }

    /// The error that something ends in that was built.
    pub fn fails(&mut self, what: Built, name: &str) -> Option<String> {
        for index in 0..self.faults.builds.len() {
            let Some(rule) = self.faults.builds.get(index) else { break };
            let concerned = rule.what == what && begins(rule.name.as_ref(), name);
            let (Some(error), true) = (rule.error.clone(), concerned) else { continue };
            let when = rule.when.clone();
            if self.draw("builds", index, &when, name).is_some() {
                return Some(error);
            }
        }
        None
    }

    /// Decides what becomes of a server that has become ACTIVE, and after what time.
    pub fn begin_life(&mut self, server: &Row) -> Option<Duration> {
        let name = text(server, "name");
        for index in 0..self.faults.lives.len() {
            let Some(rule) = self.faults.lives.get(index) else { break };
            if !begins(rule.name.as_ref(), name) {
                continue;
            }
            let (when, after, end) = (rule.when.clone(), Duration::from_millis(rule.after_ms), rule.end);
            if self.draw("lives", index, &when, name).is_some() {
                self.ending.insert(text(server, "id").to_owned(), end);
                return Some(after);
            }
        }
        None
    }

    pub fn end_life(&mut self, server: &str) -> Option<End> {
        self.ending.remove(server)
    }

    pub fn is_down(&self, zone: &str) -> bool {
        self.faults.zones_down.iter().any(|rule| rule.name == zone)
    }

    pub fn quota(&self, resource: &str) -> Option<i64> {
        self.faults.quotas.get(resource).copied()
    }

    /// Some if the rule strikes now: a number from 0 to 1 to draw further from.
    fn draw(&mut self, list: &'static str, index: usize, when: &When, what: &str) -> Option<f64> {
        let (matched, struck) = self.rules.entry((list, index)).or_default();
        *matched = matched.saturating_add(1);
        if *matched <= when.skip || when.count.is_some_and(|count| *struck >= count) {
            return None;
        }
        if self.drawn.len() >= COUNTS_LIMIT {
            self.drawn.clear();
        }
        let key = hash(&(list, index, what));
        let times = self.drawn.entry(key).or_default();
        *times += 1;
        let number = mix(self.seed ^ key ^ u64::from(*times).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        if unit(number) >= when.chance {
            return None;
        }
        *struck = struck.saturating_add(1);
        Some(unit(mix(number)))
    }
}

fn begins(start: Option<&String>, name: &str) -> bool {
    start.is_none_or(|start| name.starts_with(start.as_str()))
}

fn matches(rule: &CallRule, request: &Request) -> bool {
    rule.service.as_deref().is_none_or(|service| service == request.service.prefix())
        && (rule.methods.is_empty() || rule.methods.iter().any(|method| method == request.method.as_str()))
        && rule.path.as_deref().is_none_or(|path| request.path.iter().any(|segment| segment == path))
}

/// Service, method and path without ids: what calls are counted by.
fn shape(request: &Request) -> String {
    let mut shape = format!("{} {}", request.service.prefix(), request.method);
    for segment in &request.path {
        let id = segment.len() >= 32 && segment.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
        shape.push('/');
        shape.push_str(if id { "*" } else { segment });
    }
    shape
}

fn error(status: u16, message: Option<String>, retry_after_s: Option<u32>) -> Fault {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let usual = match status.as_u16() {
        401 => "The request you have made requires authentication.",
        409 => "The resource is in use.",
        413 | 429 => "This request was rate-limited.",
        500 => "Unexpected API Error.",
        503 => "Service Unavailable",
        _ => status.canonical_reason().unwrap_or("Error"),
    };
    let fault = Fault::new(status, "InternalServerError", message.unwrap_or_else(|| usual.to_owned()));
    Fault { retry_after_s, ..fault }
}

/// Whether a request is an administrator's: by its caller, or by the name that logs in.
pub fn is_administrator(request: &Request, caller: Option<&Caller>, administrator: &str) -> bool {
    if request.service == Service::Identity && request.method == Method::POST {
        let name = request.body.pointer("/auth/identity/password/user/name").and_then(serde_json::Value::as_str);
        if let Some(name) = name {
            return name == administrator;
        }
    }
    caller.is_some_and(|caller| caller.admin)
}

/// FNV-1a over what `Hash` writes: the same in each process, which the standard library does not promise.
struct Fnv(u64);

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        mix(self.0)
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = Fnv(0xcbf2_9ce4_8422_2325);
    value.hash(&mut hasher);
    hasher.finish()
}

/// SplitMix64's last steps.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn unit(number: u64) -> f64 {
    (number >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chances_do_not_depend_on_the_order_of_other_calls() {
        let when = When { chance: 0.5, ..When::default() };
        let run = |order: &[&str], seed: u64| {
            let mut injection = Injection::new(seed);
            let mut struck: Vec<String> = Vec::new();
            for what in order {
                if injection.draw("calls", 0, &when, what).is_some() {
                    struck.push((*what).to_owned());
                }
            }
            struck.sort();
            struck
        };
        let one = run(&["a", "b", "a", "c", "b", "a", "d", "e"], 1);
        assert_eq!(one, run(&["a", "a", "a", "e", "d", "c", "b", "b"], 1));
        assert!((2..9).any(|seed| run(&["a", "b", "a", "c", "b", "a", "d", "e"], seed) != one));
    }

    #[test]
    fn a_rule_begins_after_what_it_skips_and_ends_with_its_count() {
        let mut injection = Injection::new(1);
        let when = When { skip: 2, count: Some(3), ..When::default() };
        let struck: Vec<bool> = (0..8).map(|_| injection.draw("calls", 0, &when, "a").is_some()).collect();
        assert_eq!(struck, [false, false, true, true, true, false, false, false]);
    }
}
