//! Credentials that end: users are told before the cloud refuses them, and an application credential is renewed where they ask
//! for it (`renewal`).
//!
//! Keystone tells when an application credential ends, and lets its owner read that by the credential itself, a restricted one too
//! (Identity API v3, `GET /v3/users/{user}/application_credentials/{id}`). When a password ends stands in each token.

mod renewal;

use std::time::Duration;

use api::{
    condition::{self, Statement},
    openstack_cluster::OpenStackCluster,
};
use control::{EventType, Plan};
use jiff::{SignedDuration, Timestamp};
use kube::Client;
use openstack::{Auth, Query, identity::ApplicationCredential};
use tokio::time::Instant;

pub use self::renewal::ANNOTATION as RENEW_ANNOTATION;
use self::renewal::Failure;
use super::{
    scope::{AUTHENTICATED, Scope},
    stop::Result,
};

/// Between two questions when a credential ends: that may change, if seldom. What was refused is tried again after it too.
const ASK_PAUSE: Duration = Duration::from_secs(24 * 60 * 60);
/// Between two questions, or two tries to renew a credential, of which the first failed in a way that may pass.
const RETRY_PAUSE: Duration = Duration::from_secs(10 * 60);
/// Users are told so long before.
const NOTICE: SignedDuration = SignedDuration::from_hours(14 * 24);
const ENDING: &str = "CredentialsEndSoon";
const NOT_RENEWED: &str = "CredentialsNotRenewed";
const RENEWED: &str = "CredentialsRenewed";

/// What is known of one set of credentials. Whoever asks or renews holds it, so that all clusters that share them cause it once.
pub type End = tokio::sync::Mutex<Told>;

#[derive(Default)]
pub struct Told {
    /// They are asked about again after this.
    quiet_until: Option<Instant>,
    found: Option<ApplicationCredential>,
    pub at: Option<Timestamp>,
    tried: Option<Tried>,
}

/// A try to renew them.
struct Tried {
    at: Instant,
    pause: Duration,
    /// What the annotation said.
    wish: String,
    /// Nothing if there are new ones, which who has just read the Secret does not know yet.
    why: Option<String>,
}

/// What there is to say: in the condition, and in an event.
#[derive(Default)]
pub struct News {
    pub statement: Option<Statement>,
    pub renewed: Option<String>,
}

/// What to say of credentials that end soon, or that are to be renewed; nothing of others. Renews them when it is time.
pub async fn look(scope: &Scope, client: &Client, now: Timestamp) -> Result<News> {
    let wished = scope.renewal.as_ref().map(|_| "the annotation is about application credentials".to_owned());
    let statement = match &scope.cloud.cloud().auth {
        Auth::ApplicationCredential { id, name, .. } => {
            return application(scope, client, now, id.as_deref(), name.as_deref()).await;
        }
        Auth::Password { .. } => {
            let end = scope.cloud.access().await?.password_expires_at;
            statement(scope, "password", end, wished, now)
        }
        Auth::Token { .. } => statement(scope, "token", None, wished, now),
    };
    Ok(News { statement, ..News::default() })
}

async fn application(
    scope: &Scope,
    client: &Client,
    now: Timestamp,
    id: Option<&str>,
    name: Option<&str>,
) -> Result<News> {
    let mut told = scope.end.lock().await;
    ask_anew(scope, &mut told, id, name).await?;
    let end = told.at;
    let say = |why: Option<String>| {
        let statement = statement(scope, "application credential", end, why, now);
        Ok(News { statement, ..News::default() })
    };
    let Some(wish) = &scope.renewal else { return say(None) };
    let life = match renewal::life(wish) {
        Ok(life) => life,
        Err(why) => return say(Some(why)),
    };
    let Some(found) = told.found.clone() else {
        return say(Some(
            "the cloud does not tell when it ends (access rules may keep it from reading itself)".to_owned(),
        ));
    };
    if found.unrestricted == Some(false) {
        return say(Some(renewal::RESTRICTED.to_owned()));
    }
    if end.is_none_or(|end| end.duration_since(now) >= renewal::window(life)) {
        return Ok(News::default());
    }
    let tried = told.tried.as_ref();
    if let Some(tried) = tried.filter(|tried| tried.wish == *wish && tried.at.elapsed() < tried.pause) {
        return tried.why.clone().map_or_else(|| Ok(News::default()), |why| say(Some(why)));
    }
    let (pause, why, renewed) = match renewal::renew(scope, client, &found, life, now).await {
        Ok(Some(successor)) => (ASK_PAUSE, None, Some(renewed(scope, end, successor))),
        Ok(None) | Err(Failure::Overtaken) => return Ok(News::default()),
        Err(Failure::Stop(stop)) => return Err(stop),
        Err(Failure::Later(why)) => (RETRY_PAUSE, Some(why), None),
        Err(Failure::Refused(why)) => (ASK_PAUSE, Some(why), None),
    };
    told.tried = Some(Tried { at: Instant::now(), pause, wish: wish.clone(), why: why.clone() });
    let statement = why.and_then(|why| statement(scope, "application credential", end, Some(why), now));
    Ok(News { statement, renewed })
}

fn renewed(scope: &Scope, end: Option<Timestamp>, successor: Timestamp) -> String {
    let (cloud, secret) = (&scope.cloud.cloud().name, &scope.secret);
    let old = end.map(|end| format!(" in place of the one that ends at {end}")).unwrap_or_default();
    let message =
        format!("Secret {secret} has a new application credential for cloud {cloud}{old}: it ends at {successor}");
    tracing::info!(secret, cloud, "an application credential was renewed");
    message
}

/// `why`: the reason that nobody renews what is to be renewed.
fn statement(
    scope: &Scope,
    what: &str,
    end: Option<Timestamp>,
    why: Option<String>,
    now: Timestamp,
) -> Option<Statement> {
    let (cloud, secret) = (&scope.cloud.cloud().name, &scope.secret);
    let is_soon = end.is_some_and(|end| end.duration_since(now) < NOTICE);
    let subject = format!("The {what} of cloud {cloud} in Secret {secret}");
    // The time and not how long: the same is said until another is true.
    let message = match (end, why) {
        (Some(end), None) if is_soon => {
            let set = if what == "password" { "set" } else { "make" };
            format!("{subject} ends at {end}: {set} another and write it into the Secret before")
        }
        (_, None) => return None,
        (Some(end), Some(why)) => format!("{subject} ends at {end} and is not renewed: {why}"),
        (None, Some(why)) => format!("{subject} is not renewed: {why}"),
    };
    let reason = if is_soon { ENDING } else { NOT_RENEWED };
    Some(Statement { message, ..Statement::yes(AUTHENTICATED, reason) })
}

async fn ask_anew(scope: &Scope, told: &mut Told, id: Option<&str>, name: Option<&str>) -> Result<()> {
    if told.quiet_until.is_some_and(|until| Instant::now() < until) {
        return Ok(());
    }
    let mut pause = ASK_PAUSE;
    match ask(scope, id, name).await {
        Ok(found) => {
            told.at = found.as_ref().and_then(ApplicationCredential::ends_at);
            told.found = found;
        }
        Err(error) if error.is_put_off() => return Err(error.into()),
        // Rules of access may keep a credential from reading itself. Calls are the cluster's own controller's to judge.
        Err(error) => {
            tracing::debug!(%error, secret = scope.secret, "the cloud does not say when the credentials end");
            if error.class().is_transient() {
                pause = RETRY_PAUSE;
            }
        }
    }
    told.quiet_until = Some(Instant::now() + pause);
    Ok(())
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

/// Events for what the condition newly says, and for credentials that were renewed.
pub fn tell(before: &OpenStackCluster, after: &OpenStackCluster, renewed: Option<String>, plan: &mut Plan) {
    if let Some(message) = renewed {
        plan.event(before, EventType::Normal, RENEWED, message);
    }
    let said = |infra: &OpenStackCluster| {
        let conditions = infra.status.as_ref().map_or(&[][..], |status| &status.conditions);
        let told = condition::get(conditions, AUTHENTICATED)?;
        let reason = [ENDING, NOT_RENEWED].into_iter().find(|reason| *reason == told.reason)?;
        Some((reason, told.message.clone()))
    };
    if let Some((reason, message)) = said(after).filter(|now| said(before).as_ref() != Some(now)) {
        plan.event(before, EventType::Warning, reason, message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            tell(before, after, None, &mut plan);
            !plan.steps.is_empty()
        };
        let (well, first, second) = (infra("Succeeded", ""), infra(ENDING, "at 1"), infra(ENDING, "at 2"));
        assert!(events(&well, &first) && events(&first, &second));
        assert!(!events(&first, &first) && !events(&first, &well) && !events(&well, &well));
    }
}
