//! The escalation check: nobody grants what they do not hold (`pkg/registry/rbac/validation` `Covers`).

use super::{Rule, has, url_covers};

/// More parts than this in one role are refused: the product of verbs, groups, resources and names.
pub const PARTS_MAX: usize = 100_000;

/// The parts of `wanted` (each with one verb, one group, one resource, one name or one path) that `held` does not cover.
/// `Err` carries the number of parts if it exceeds [`PARTS_MAX`].
pub fn uncovered(held: &[Rule], wanted: &[Rule]) -> Result<Vec<Rule>, usize> {
    let count: usize = wanted.iter().map(parts_count).fold(0, usize::saturating_add);
    if count > PARTS_MAX {
        return Err(count);
    }
    let mut missing: Vec<Rule> = Vec::new();
    for rule in wanted {
        if held.iter().any(|own| covers(own, rule)) {
            continue;
        }
        missing.extend(parts(rule).into_iter().filter(|part| !held.iter().any(|own| covers(own, part))));
    }
    Ok(missing)
}

fn parts_count(rule: &Rule) -> usize {
    let resources =
        rule.api_groups.len().saturating_mul(rule.resources.len()).saturating_mul(rule.resource_names.len().max(1));
    rule.verbs.len().saturating_mul(resources.saturating_add(rule.non_resource_urls.len()))
}

fn parts(rule: &Rule) -> Vec<Rule> {
    let mut parts = Vec::new();
    for verb in &rule.verbs {
        for group in &rule.api_groups {
            for resource in &rule.resources {
                let part = Rule {
                    verbs: vec![verb.clone()],
                    api_groups: vec![group.clone()],
                    resources: vec![resource.clone()],
                    ..Rule::default()
                };
                if rule.resource_names.is_empty() {
                    parts.push(part.clone());
                }
                for name in &rule.resource_names {
                    parts.push(Rule { resource_names: vec![name.clone()], ..part.clone() });
                }
            }
        }
        for url in &rule.non_resource_urls {
            parts.push(Rule { verbs: vec![verb.clone()], non_resource_urls: vec![url.clone()], ..Rule::default() });
        }
    }
    parts
}

/// Whether `own` alone allows everything that `part` allows.
fn covers(own: &Rule, part: &Rule) -> bool {
    let resource = |wanted: &String| {
        own.resources.iter().any(|held| {
            held == "*"
                || held == wanted
                || matches!((held.strip_prefix("*/"), wanted.split_once('/')), (Some(sub), Some((_, s))) if sub == s)
        })
    };
    part.verbs.iter().all(|verb| has(&own.verbs, verb))
        && part.api_groups.iter().all(|group| has(&own.api_groups, group))
        && part.resources.iter().all(resource)
        && (own.resource_names.is_empty()
            || (!part.resource_names.is_empty() && part.resource_names.iter().all(|n| own.resource_names.contains(n))))
        && part.non_resource_urls.iter().all(|url| {
            own.non_resource_urls.iter().any(|held| held == url || url_covers(held, url.trim_end_matches('*')))
        })
}
