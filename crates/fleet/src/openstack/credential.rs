//! Credentials that end: users are told before the cloud refuses them.
//!
//! Keystone tells when an application credential ends, and lets its owner read that by the credential itself, a restricted one too
//! (Identity API v3, `GET /v3/users/{user}/application_credentials/{id}`). Passwords are asked nothing about.

use std::time::Duration;

use api::{
    condition::{self, Statement},
    openstack_cluster::OpenStackCluster,
};
use control::{EventType, Plan};
use jiff::{SignedDuration, Timestamp, civil::DateTime, tz::TimeZone};
use openstack::{Auth, Query, identity::ApplicationCredential};
use tokio::time::Instant;

use super::{
    scope::{AUTHENTICATED, Scope},
    stop::Result,
};

/// Between two questions when a credential ends: that may change, if seldom.
const ASK_PAUSE: Duration = Duration::from_secs(24 * 60 * 60);
/// Users are told so long before.
const NOTICE: SignedDuration = SignedDuration::from_hours(14 * 24);
const ENDING: &str = "CredentialsEndSoon";

/// What the cloud told last of one set of credentials. Whoever asks holds it, so that all clusters that share them cause one question.
pub type End = tokio::sync::Mutex<Told>;

#[derive(Default)]
pub struct Told {
    asked: Option<Instant>,
    pub at: Option<Timestamp>,
}

/// What to say of credentials that end soon; nothing of others.
pub async fn ending(scope: &Scope, now: Timestamp) -> Result<Option<Statement>> {
    Ok(end(scope).await?.and_then(|end| statement(scope, end, now)))
}

fn statement(scope: &Scope, end: Timestamp, now: Timestamp) -> Option<Statement> {
    let (cloud, secret) = (&scope.cloud.cloud().name, &scope.secret);
    // The time and not how long: the same is said until another is true.
    let message = format!(
        "The application credential of cloud {cloud} in Secret {secret} ends at {end}: make another and write it into the Secret before"
    );
    (end.duration_since(now) < NOTICE).then(|| Statement { message, ..Statement::yes(AUTHENTICATED, ENDING) })
}

async fn end(scope: &Scope) -> Result<Option<Timestamp>> {
    let Auth::ApplicationCredential { id, name, .. } = &scope.cloud.cloud().auth else { return Ok(None) };
    let mut told = scope.end.lock().await;
    if told.asked.is_some_and(|asked| asked.elapsed() < ASK_PAUSE) {
        return Ok(told.at);
    }
    match ask(scope, id.as_deref(), name.as_deref()).await {
        Ok(found) => told.at = found.and_then(|found| time(&found.expires_at?)),
        Err(error) if error.is_put_off() => return Err(error.into()),
        // Rules of access may keep a credential from reading itself. Calls are the cluster's own controller's to judge.
        Err(error) => tracing::debug!(%error, secret = scope.secret, "the cloud does not say when the credentials end"),
    }
    told.asked = Some(Instant::now());
    Ok(told.at)
}

async fn ask(scope: &Scope, id: Option<&str>, name: Option<&str>) -> openstack::Result<Option<ApplicationCredential>> {
    let user = scope.cloud.access().await?.user_id.clone();
    match id {
        Some(id) => scope.cloud.get_in(&user, id).await.map(Some),
        None => {
            let named =
                scope.cloud.list_in::<ApplicationCredential>(&user, &Query::new().with_some("name", name)).await?;
            Ok(named.into_iter().find(|one| Some(one.name.as_str()) == name))
        }
    }
}

/// Keystone writes times in UTC, most without saying so.
fn time(text: &str) -> Option<Timestamp> {
    let here = || text.parse::<DateTime>().ok()?.to_zoned(TimeZone::UTC).ok().map(|time| time.timestamp());
    text.parse().ok().or_else(here)
}

/// An event for what the condition newly says.
pub fn tell(before: &OpenStackCluster, after: &OpenStackCluster, plan: &mut Plan) {
    let said = |infra: &OpenStackCluster| {
        let conditions = infra.status.as_ref().map_or(&[][..], |status| &status.conditions);
        condition::get(conditions, AUTHENTICATED).filter(|one| one.reason == ENDING).map(|one| one.message.clone())
    };
    if let Some(message) = said(after).filter(|message| said(before).as_ref() != Some(message)) {
        plan.event(before, EventType::Warning, ENDING, message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_and_without_their_zone() {
        let wanted: Timestamp = "2026-12-01T10:00:00Z".parse().unwrap();
        for text in ["2026-12-01T10:00:00.000000", "2026-12-01T10:00:00", "2026-12-01T10:00:00Z"] {
            assert_eq!(time(text), Some(wanted), "{text}");
        }
        assert_eq!(time("soon"), None);
    }

    #[test]
    fn what_a_condition_says_anew_is_told_by_one_event() {
        let infra = |reason: &str, message: &str| {
            let mut infra = OpenStackCluster::default();
            let statement = Statement { message: message.into(), ..Statement::yes(AUTHENTICATED, reason) };
            let now = api::meta::Time(Timestamp::UNIX_EPOCH);
            condition::set(&mut infra.status.get_or_insert_default().conditions, statement, None, &now);
            infra
        };
        let events = |before: &OpenStackCluster, after: &OpenStackCluster| {
            let mut plan = Plan::nothing();
            tell(before, after, &mut plan);
            !plan.steps.is_empty()
        };
        let (well, first, second) = (infra("Succeeded", ""), infra(ENDING, "at 1"), infra(ENDING, "at 2"));
        assert!(events(&well, &first) && events(&first, &second));
        assert!(!events(&first, &first) && !events(&first, &well) && !events(&well, &well));
    }
}
