//! What is to be done about a Chart, from what it says and how its release stands. Source: giantswarm/chart-operator, the release resource.

use std::time::Duration;

use api::app::{ATOMIC_ANNOTATION, Chart, ChartSpec, flag};
use helm::values::Table;
use jiff::Timestamp;
use kube::ResourceExt;
use serde_json::{Number, Value as Json};
use sha2::{Digest, Sha256};

use crate::release::{Status, storage::Head};

pub use crate::app::chart::{PAUSE_REASON, PAUSED};
pub const CORDON_REASON: &str = "chart-operator.giantswarm.io/cordon-reason";
pub const CORDON_UNTIL: &str = "chart-operator.giantswarm.io/cordon-until";
/// The hash of the values that were tried last.
pub const CHECKSUM: &str = "chart-operator.giantswarm.io/values-md5-checksum";
pub const FORCE: &str = "chart-operator.giantswarm.io/force-helm-upgrade";
pub const ROLLBACKS: &str = "chart-operator.giantswarm.io/rollback-count";
/// So often what somebody began and did not end is rolled back.
pub const ROLLBACKS_MAX: u32 = 3;
/// After so many failures in a row it is tried slowly.
pub const FAILURES_MAX: usize = 5;
/// Pauses before what failed is tried again.
const RETRY_MIN: Duration = Duration::from_secs(30);
const RETRY_SLOW: Duration = Duration::from_secs(600);

/// How a release stands, by its history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The newest revision; zero if there is none.
    pub revision: i64,
    pub status: Option<Status>,
    /// Revisions that failed, one after the other, at the end.
    pub failures: usize,
    /// The newest that failed.
    failed: Option<i64>,
    /// When the newest was written last.
    modified: Option<Timestamp>,
}

impl Standing {
    /// `heads`: the oldest first.
    pub fn of(heads: &[Head]) -> Self {
        let last = heads.last();
        Self {
            revision: last.map_or(0, |last| last.version),
            status: last.map(|last| last.status),
            failures: heads.iter().rev().take_while(|head| head.status == Status::Failed).count(),
            failed: heads.iter().rev().find(|head| head.status == Status::Failed).map(|head| head.version),
            modified: last.and_then(|last| last.modified),
        }
    }

    /// Tells a try after a failure from the one that failed, and is the same for whoever goes on with it.
    pub fn token(&self) -> String {
        self.failed.map(|revision| format!("after-{revision}")).unwrap_or_default()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Paused,
    Cordoned,
    Uninstall,
    /// As it is wished.
    Settled,
    /// It failed, and is tried again then.
    Later(Duration),
    Deploy,
}

/// Decides. `hash` is that of the values as they are now.
pub fn decide(chart: &Chart, standing: &Standing, hash: &str, now: Timestamp) -> Decision {
    let annotations = chart.annotations();
    let goes = chart.metadata.deletion_timestamp.is_some();
    // What waits for other apps waits no longer when it goes.
    let waits = annotations.contains_key(PAUSE_REASON);
    if annotations.get(PAUSED).is_some_and(|paused| paused == "true") && !(goes && waits) {
        return Decision::Paused;
    }
    if goes {
        return Decision::Uninstall;
    }
    if annotations.contains_key(CORDON_REASON) && annotations.contains_key(CORDON_UNTIL) {
        return Decision::Cordoned;
    }
    let status = chart.status.clone().unwrap_or_default();
    let is_of_this = status.release.revision == Some(standing.revision)
        && status.version == chart.spec.version
        && annotations.get(CHECKSUM).map(String::as_str).unwrap_or_default() == hash;
    match standing.status {
        Some(Status::Deployed) if is_of_this && status.release.status == Status::Deployed.text() => Decision::Settled,
        // What failed is to be undone at once, and not to be tried again.
        Some(Status::Failed) if is_of_this && !is_atomic(chart) => {
            // What took long before it failed has not waited by that.
            let ended = status.release.last_deployed.map(|at| at.0).max(standing.modified);
            let since =
                ended.map_or(Duration::MAX, |at| Duration::try_from(now.duration_since(at)).unwrap_or_default());
            match pause(standing.failures).checked_sub(since) {
                Some(left) if !left.is_zero() => Decision::Later(left),
                _ => Decision::Deploy,
            }
        }
        _ => Decision::Deploy,
    }
}

/// Whether what fails is undone. What was written past admission counts for nothing.
pub fn is_atomic(chart: &Chart) -> bool {
    flag(chart.annotations(), ATOMIC_ANNOTATION).unwrap_or_default()
}

/// Tells one try of a Chart from the next. Where failures are undone there is one for each content of its spec (the values are in the
/// request themselves), so that the release knows what has failed, over its rollback too; else one after each failure.
pub fn token(chart: &Chart, standing: &Standing) -> String {
    if !is_atomic(chart) {
        return standing.token();
    }
    let spec = ChartSpec { config: None, ..chart.spec.clone() };
    let text = serde_json::to_string(&spec).unwrap_or_default();
    let digits: String = Sha256::digest(text).iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("atomic-{digits}")
}

fn pause(failures: usize) -> Duration {
    if failures >= FAILURES_MAX {
        return RETRY_SLOW;
    }
    let doublings = u32::try_from(failures.saturating_sub(1)).unwrap_or_default();
    RETRY_MIN * 2_u32.pow(doublings)
}

/// The values of the ConfigMap with those of the Secret over them. Whole numbers are such, as the published controller hands them to Helm.
pub fn merged(mut values: Table, secret: Table) -> Table {
    helm::values::overlay(&mut values, secret);
    whole(&mut values);
    values
}

fn whole(values: &mut Table) {
    for value in values.values_mut() {
        match value {
            Json::Number(number) => {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_precision_loss,
                    reason = "tried on the next line"
                )]
                if let Some(float) = number.as_f64().filter(|_| number.is_f64())
                    && (float as i64) as f64 == float
                {
                    *number = Number::from(float as i64);
                }
            }
            Json::Object(inner) => whole(inner),
            _ => {}
        }
    }
}

/// Empty where there are no values.
pub fn hash(values: &Table) -> String {
    if values.is_empty() {
        return String::new();
    }
    let text = Json::Object(values.clone()).to_string();
    Sha256::digest(text).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn head(version: i64, status: Status) -> Head {
        Head { name: "hello".into(), namespace: "web".into(), version, status, modified: None }
    }

    fn chart(status: &Json, annotations: &Json) -> Chart {
        serde_json::from_value(json!({
            "apiVersion": "application.giantswarm.io/v1alpha1", "kind": "Chart",
            "metadata": {"name": "hello", "namespace": "giantswarm", "annotations": annotations},
            "spec": {"name": "hello", "namespace": "web", "tarballURL": "u", "version": "1.0.0"},
            "status": status,
        }))
        .unwrap()
    }

    fn status(status: &str, revision: i64) -> Json {
        json!({"version": "1.0.0", "appVersion": "1",
            "release": {"status": status, "revision": revision, "lastDeployed": "2026-03-01T12:00:00Z"}})
    }

    fn decided(chart: &Chart, heads: &[Head], hash: &str, now: &str) -> Decision {
        decide(chart, &Standing::of(heads), hash, now.parse().unwrap())
    }

    const NOON: &str = "2026-03-01T12:00:00Z";

    #[test]
    fn what_is_deployed_as_it_is_wished_is_left_alone() {
        let own = json!({CHECKSUM: "h"});
        let heads = [head(1, Status::Superseded), head(2, Status::Deployed)];
        let settled = chart(&status("deployed", 2), &own);
        assert_eq!(decided(&settled, &heads, "h", NOON), Decision::Settled);
        assert_eq!(decided(&settled, &heads, "other", NOON), Decision::Deploy, "other values");
        assert_eq!(decided(&settled, &[], "h", NOON), Decision::Deploy, "nothing is there");
        let rolled_back = [head(2, Status::Superseded), head(3, Status::Deployed)];
        assert_eq!(decided(&settled, &rolled_back, "h", NOON), Decision::Deploy, "somebody else's revision");
        let mut newer = settled.clone();
        newer.spec.version = "1.1.0".into();
        assert_eq!(decided(&newer, &heads, "h", NOON), Decision::Deploy, "another version");
    }

    #[test]
    fn what_failed_is_tried_again_less_and_less_often_but_at_once_when_it_changes() {
        let failed = chart(&status("failed", 2), &json!({CHECKSUM: "h"}));
        let heads = |count: i64| -> Vec<Head> { (3 - count..3).map(|version| head(version, Status::Failed)).collect() };
        assert_eq!(decided(&failed, &heads(1), "h", NOON), Decision::Later(Duration::from_secs(30)));
        assert_eq!(decided(&failed, &heads(2), "h", NOON), Decision::Later(Duration::from_secs(60)));
        assert_eq!(decided(&failed, &heads(5), "h", NOON), Decision::Later(Duration::from_secs(600)));
        assert_eq!(decided(&failed, &heads(1), "h", "2026-03-01T12:00:30Z"), Decision::Deploy);
        assert_eq!(decided(&failed, &heads(5), "other", NOON), Decision::Deploy);
        let mut slow = heads(1);
        slow[0].modified = "2026-03-01T12:05:00Z".parse().ok();
        let after = decided(&failed, &slow, "h", "2026-03-01T12:05:10Z");
        assert_eq!(after, Decision::Later(Duration::from_secs(20)), "five minutes of trying are no pause");
    }

    #[test]
    fn a_pause_comes_before_all_else_and_a_cordon_before_a_release() {
        let heads = [head(1, Status::Deployed)];
        let mut paused = chart(&status("deployed", 1), &json!({PAUSED: "true"}));
        paused.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(NOON.parse().unwrap()));
        assert_eq!(decided(&paused, &heads, "h", NOON), Decision::Paused);
        paused.annotations_mut().insert(PAUSE_REASON.to_owned(), "Waiting".to_owned());
        assert_eq!(decided(&paused, &heads, "h", NOON), Decision::Uninstall, "it only waited for others");
        paused.annotations_mut().clear();
        assert_eq!(decided(&paused, &heads, "h", NOON), Decision::Uninstall);
        let cordoned = chart(&status("deployed", 1), &json!({CORDON_REASON: "r", CORDON_UNTIL: "u"}));
        assert_eq!(decided(&cordoned, &heads, "h", NOON), Decision::Cordoned);
    }

    #[test]
    fn whoever_goes_on_with_a_try_has_the_token_that_it_began_with() {
        let token = |heads: &[Head]| Standing::of(heads).token();
        let failed = [head(1, Status::Deployed), head(2, Status::Failed)];
        let begun = [head(1, Status::Deployed), head(2, Status::Failed), head(3, Status::PendingUpgrade)];
        let ended = [head(1, Status::Superseded), head(2, Status::Failed), head(3, Status::Deployed)];
        assert_eq!(token(&[]), "");
        assert_eq!([token(&failed), token(&begun), token(&ended)], ["after-2", "after-2", "after-2"]);
    }

    #[test]
    fn an_atomic_try_is_the_same_until_the_spec_changes_but_for_where_values_are() {
        let mut atomic = chart(&json!(null), &json!({ATOMIC_ANNOTATION: "true"}));
        let failed = Standing::of(&[head(1, Status::Deployed), head(2, Status::Failed)]);
        let first = token(&atomic, &Standing::default());
        assert_eq!(first, token(&atomic, &failed));
        let at = json!({"configMap": {"name": "v", "namespace": "n", "resourceVersion": "7"}});
        atomic.spec.config = serde_json::from_value(at).unwrap();
        assert_eq!(first, token(&atomic, &failed), "values that are written again are the same values");
        atomic.spec.upgrade = serde_json::from_value(json!({"timeout": "7m"})).unwrap();
        assert_ne!(first, token(&atomic, &failed));
        assert_eq!(token(&chart(&json!(null), &json!({})), &failed), "after-2");
    }

    #[test]
    fn what_is_to_be_undone_has_no_pause() {
        let failed = chart(&status("failed", 2), &json!({CHECKSUM: "h", ATOMIC_ANNOTATION: "true"}));
        let heads = [head(1, Status::Superseded), head(2, Status::Failed)];
        assert_eq!(decided(&failed, &heads, "h", NOON), Decision::Deploy);
    }

    #[test]
    fn secrets_go_over_the_others_and_whole_numbers_are_whole() {
        let table = |value: Json| value.as_object().unwrap().clone();
        let values = merged(
            table(json!({"a": 1.0, "b": {"c": 1_000_000.0, "d": 0.5}, "list": [1.0]})),
            table(json!({"b": {"d": 2.0}})),
        );
        assert_eq!(Json::Object(values.clone()).to_string(), r#"{"a":1,"b":{"c":1000000,"d":2},"list":[1.0]}"#);
        assert_eq!(hash(&Table::new()), "");
        assert_eq!(hash(&values).len(), 32);
    }
}
