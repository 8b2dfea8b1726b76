//! What goes wrong in a step, drawn from a seed.

use rand::{Rng, rngs::StdRng};
use sandbox::cloud::{BuildRule, Built, CallRule, Effect, End, Faults, LifeRule, When, ZoneRule};

use super::Wanted;
use crate::Shares;

/// Faults of a step, and their description.
///
/// `victims` are zones that may go down with their servers.
pub fn draw(rng: &mut StdRng, wanted: &Wanted, victims: &[String]) -> (Faults, String) {
    let mut faults = Faults::default();
    let mut told = Vec::new();
    for _ in 0..rng.random_range(0..=3) {
        told.push(one(rng, wanted, victims, &mut faults));
    }
    let told = if told.is_empty() { "no faults".to_owned() } else { told.join(", ") };
    (faults, told)
}

/// What becomes of the controllers' writes in a step, and its description.
pub fn api(rng: &mut StdRng) -> (Shares, String) {
    if rng.random_bool(0.75) {
        return (Shares::default(), String::new());
    }
    let shares = Shares { lost: rng.random_range(0.0..0.2), unanswered: rng.random_range(0.0..0.2), of: None };
    let told = format!("; of writes {:.2} lost and {:.2} unanswered", shares.lost, shares.unanswered);
    (shares, told)
}

fn one(rng: &mut StdRng, wanted: &Wanted, victims: &[String], faults: &mut Faults) -> String {
    match rng.random_range(0..15) {
        0 => {
            let (chance, status) = (rng.random_range(0.05..0.5), [500, 503, 502][rng.random_range(0..3)]);
            let effect = Effect::Error { status, message: None, retry_after_s: None };
            faults.calls.push(CallRule::all(When::chance(chance), effect));
            format!("{status} for {chance:.2} of all calls")
        }
        1 => {
            let (chance, status) = (rng.random_range(0.2..1.0), [500, 503, 504, 409][rng.random_range(0..4)]);
            let effect = Effect::Error { status, message: None, retry_after_s: None };
            let service = service(rng, true);
            faults
                .calls
                .push(CallRule { service: Some(service.to_owned()), ..CallRule::all(When::chance(chance), effect) });
            format!("{status} for {chance:.2} of {service}'s calls")
        }
        2 => {
            let (chance, max_ms) = (rng.random_range(0.1..1.0), rng.random_range(200..20_000));
            faults.calls.push(CallRule::all(When::chance(chance), Effect::Delay { min_ms: 50, max_ms }));
            format!("up to {max_ms} ms for {chance:.2} of all calls")
        }
        // Longer than clients wait: done when nobody listens any more.
        3 => {
            let chance = rng.random_range(0.02..0.15);
            let effect = Effect::Delay { min_ms: 31_000, max_ms: 60_000 };
            faults.calls.push(CallRule::all(When::chance(chance), effect));
            format!("too late answers for {chance:.2} of all calls")
        }
        4 | 5 => {
            let (chance, broken) = (rng.random_range(0.05..0.6), rng.random_bool(0.5));
            let methods = ["POST", "PUT", "DELETE"].map(str::to_owned).to_vec();
            let rule = CallRule { methods, ..CallRule::all(When::chance(chance), Effect::Lost { broken }) };
            faults.calls.push(rule);
            format!("lost answers for {chance:.2} of all changes")
        }
        6 => {
            let chance = rng.random_range(0.02..0.3);
            faults.calls.push(CallRule::all(When::chance(chance), Effect::Expire {}));
            format!("tokens that end for {chance:.2} of all calls")
        }
        7 => {
            let (chance, after) = (rng.random_range(0.1..0.6), rng.random_range(1..20));
            let status = if rng.random_bool(0.7) { 429 } else { 413 };
            let effect = Effect::Error { status, message: None, retry_after_s: Some(after) };
            let service = service(rng, false);
            faults
                .calls
                .push(CallRule { service: Some(service.to_owned()), ..CallRule::all(When::chance(chance), effect) });
            format!("{status} with Retry-After {after} s for {chance:.2} of {service}'s calls")
        }
        8 => {
            let slow_ms = rng.random_range(5_000..90_000);
            faults.builds.push(build(Built::LoadBalancer, When::default(), None, slow_ms));
            format!("load balancers that are busy for {slow_ms} ms")
        }
        9 => {
            let when = When { chance: rng.random_range(0.2..0.8), count: Some(rng.random_range(1..4)), skip: 0 };
            let told = format!("{:.2} of servers without a host, {} at most", when.chance, when.count.unwrap_or(0));
            faults.builds.push(build(Built::Server, when, Some("No valid host was found."), 0));
            told
        }
        10 => {
            let what = if wanted.root_volume { Built::Volume } else { Built::LoadBalancer };
            faults.builds.push(build(what, When::times(1), Some("out of space"), 0));
            format!("a {what:?} in error")
        }
        11 if wanted.zones > 1 => {
            let zone = format!("az{}", rng.random_range(1..=wanted.zones));
            let end = [End::Vanish, End::Error, End::Shutoff][rng.random_range(0..3)];
            // One zone at most takes its servers with it.
            let takes = victims.contains(&zone) && faults.zones_down.iter().all(|rule| rule.running.is_none());
            let running = Some(end).filter(|_| takes && rng.random_bool(0.6));
            let told = format!("{zone} down ({running:?})");
            faults.zones_down.push(ZoneRule { name: zone, running });
            told
        }
        12 => {
            let limit = i64::from(wanted.servers()) - rng.random_range(0..2);
            faults.quotas.insert("instances".to_owned(), limit);
            format!("a quota of {limit} servers")
        }
        13 => {
            let max = rng.random_range(52..79);
            faults.compute_microversion_max = Some(max);
            format!("Nova 2.{max}")
        }
        _ => {
            let end = [End::Vanish, End::Error, End::Shutoff][rng.random_range(0..3)];
            let (count, after_ms) = (rng.random_range(1..3), rng.random_range(0..60_000));
            let name = Some("demo-md".to_owned());
            faults.lives.push(LifeRule { name, when: When::times(count), after_ms, end });
            format!("{count} new workers that end ({end:?}) after {after_ms} ms")
        }
    }
}

fn service(rng: &mut StdRng, identity: bool) -> &'static str {
    let all = ["compute", "network", "load-balancer", "volume", "image", "identity"];
    all[rng.random_range(0..all.len() - usize::from(!identity))]
}

fn build(what: Built, when: When, error: Option<&str>, slow_ms: u64) -> BuildRule {
    BuildRule { what, name: None, when, error: error.map(str::to_owned), slow_ms }
}
