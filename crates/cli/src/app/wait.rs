//! Waiting until an app is as it is wished, with a word on what became of it so far.

use std::time::{Duration, Instant};

use anyhow::Result;
use api::app::{ATOMIC_ANNOTATION, App, AppStatus, flag};
use delivery::app::dependencies;
use futures::{StreamExt, pin_mut};
use kube::{
    Api, Client, ResourceExt,
    api::ListParams,
    runtime::{WatchStreamExt, watcher},
};

use super::{namespace, told};
use crate::{DONE, FAILED, TIMED_OUT, output};

/// A word at least this often while nothing changes.
const WORD_EVERY: Duration = Duration::from_secs(10);

/// For how long.
#[derive(clap::Args)]
pub struct Waiting {
    /// Wait until it is done (this is the default)
    #[arg(long, overrides_with = "no_wait")]
    wait: bool,
    /// Return at once
    #[arg(long, overrides_with = "wait")]
    no_wait: bool,
    /// Wait no longer, in seconds
    #[arg(long = "timeout", value_name = "SECONDS", default_value_t = 300)]
    pub timeout_s: u64,
}

impl Waiting {
    pub fn is_asked(&self) -> bool {
        !self.no_wait
    }
}

/// How an app stands, seen from what is waited for.
#[derive(Debug, PartialEq)]
pub enum Standing {
    Deployed,
    /// What keeps it from being so; only a change will mend it, or patience.
    Failed(String),
    /// So far.
    Waiting(String),
}

/// Judges. `before` is the status that the app had when it was changed: as long as it has that, nobody has acted upon the change.
pub fn standing(app: &App, before: Option<&AppStatus>) -> Standing {
    let Some(status) = app.status.as_ref().filter(|status| Some(*status) != before) else {
        return Standing::Waiting("the app to be acted upon".to_owned());
    };
    let bare = |version: &str| version.strip_prefix('v').unwrap_or(version).to_owned();
    let (word, reason) =
        (status.release.status.as_str(), status.release.reason.as_deref().unwrap_or_default().trim_end());
    let with_reason = |word: &str| if reason.is_empty() { word.to_owned() } else { format!("{word}: {reason}") };
    match word {
        "" => Standing::Waiting("the app to be acted upon".to_owned()),
        "deployed" if bare(&status.version) == bare(&app.spec.version) => Standing::Deployed,
        "deployed" => Standing::Waiting(format!("version {} instead of {}", app.spec.version, status.version)),
        "unknown" | "superseded" | "uninstalled" | "uninstalling" => Standing::Waiting(with_reason(word)),
        pending if pending.starts_with("pending-") => Standing::Waiting(with_reason(pending)),
        failed => Standing::Failed(with_reason(failed)),
    }
}

/// Waits until the app is deployed; the exit code.
pub async fn until_deployed(client: &Client, app: &App, before: Option<&AppStatus>, waiting: &Waiting) -> Result<u8> {
    let limit = Duration::from_secs(waiting.timeout_s);
    let apps = Api::<App>::namespaced(client.clone(), &namespace(app));
    let config = watcher::Config::default().fields(&format!("metadata.name={}", app.name_any()));
    let events = watcher(apps, config).default_backoff();
    pin_mut!(events);
    let started = Instant::now();
    let (mut said, mut last) = (String::new(), app.clone());
    loop {
        let left = limit.saturating_sub(started.elapsed());
        if left.is_zero() {
            output::progress(&format!("{} is not deployed after {} s: {said}", told(app), waiting.timeout_s));
            output::progress(&format!("see: skep app show {} -n {}", app.name_any(), namespace(app)));
            return Ok(TIMED_OUT);
        }
        match tokio::time::timeout(left.min(WORD_EVERY), events.next()).await {
            Ok(Some(Ok(watcher::Event::Apply(found) | watcher::Event::InitApply(found)))) => last = found,
            Ok(Some(Ok(watcher::Event::Delete(_)))) => {
                output::progress(&format!("{} was deleted meanwhile", told(app)));
                return Ok(FAILED);
            }
            // The watcher starts again by itself.
            Ok(Some(_)) => continue,
            Ok(None) => anyhow::bail!("the watch of {} ended", told(app)),
            Err(_) => said.clear(),
        }
        // What is older than what was written.
        if last.metadata.generation < app.metadata.generation {
            continue;
        }
        let word = match standing(&last, before) {
            Standing::Deployed => {
                let version = last.status.map(|status| status.version).unwrap_or_default();
                output::line(&format!("{} is deployed, version {version}", told(app)));
                return Ok(DONE);
            }
            Standing::Failed(why) => {
                output::progress(&format!("{} is not deployed: {why}", told(app)));
                let is_atomic = flag(last.annotations(), ATOMIC_ANNOTATION).unwrap_or_default();
                let again = if is_atomic { "" } else { "it is tried again from time to time; " };
                output::progress(&format!("{again}what is wrong can be mended with: skep app upgrade"));
                return Ok(FAILED);
            }
            Standing::Waiting(on) => match awaited(client, &last).await {
                Some(others) => format!("apps that it depends on: {others}"),
                None => on,
            },
        };
        if word != said {
            output::progress(&format!("  {:>4} s  waiting for {word}", started.elapsed().as_secs()));
            said = word;
        }
    }
}

/// Those that it depends on and that are not there, as far as they can be read.
async fn awaited(client: &Client, app: &App) -> Option<String> {
    dependencies::names(app).next()?;
    let apps = Api::<App>::namespaced(client.clone(), &namespace(app)).list(&ListParams::default()).await.ok()?;
    let find = |name: &str| apps.items.iter().find(|other| other.name_any() == name).cloned().map(Into::into);
    let releases = match dependencies::names_releases(app) {
        true => dependencies::releases(client, &namespace(app)).await.ok()?,
        false => Default::default(),
    };
    let missing = dependencies::missing(app, &releases, find);
    (!missing.is_empty()).then(|| missing.join(", "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status(word: &str, version: &str, reason: &str) -> AppStatus {
        let release = json!({"status": word, "reason": reason, "lastDeployed": "2026-03-01T12:00:00Z"});
        serde_json::from_value(json!({"appVersion": "1", "version": version, "release": release})).unwrap()
    }

    fn app(status: Option<AppStatus>) -> App {
        let mut app = App::new("hello", api::app::AppSpec { version: "v1.1.0".into(), ..Default::default() });
        app.status = status;
        app
    }

    #[test]
    fn an_app_is_deployed_when_it_says_so_of_the_version_that_is_wished() {
        let judged = |word, version, reason| standing(&app(Some(status(word, version, reason))), None);
        assert_eq!(judged("deployed", "1.1.0", ""), Standing::Deployed);
        let waiting = |text: &str| Standing::Waiting(text.into());
        assert_eq!(judged("deployed", "1.0.0", ""), waiting("version v1.1.0 instead of 1.0.0"));
        assert_eq!(judged("pending-upgrade", "1.1.0", "pods"), waiting("pending-upgrade: pods"));
        let failed = Standing::Failed("app-version-not-found: no app `hello`".into());
        assert_eq!(judged("app-version-not-found", "", "no app `hello`"), failed);
        assert_eq!(standing(&app(None), None), waiting("the app to be acted upon"));
    }

    #[test]
    fn what_was_said_before_a_change_says_nothing_of_it() {
        for word in ["deployed", "failed"] {
            let before = status(word, "1.1.0", "");
            let waiting = Standing::Waiting("the app to be acted upon".into());
            assert_eq!(standing(&app(Some(before.clone())), Some(&before)), waiting);
        }
    }
}
