//! `skep app uninstall`: the App, its release, and the user's values that were made for it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use api::app::App;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Preconditions},
};

use super::{
    Named, find, namespace,
    state::{self, KINDS, State, plain, word},
    told,
    wait::Waiting,
};
use crate::{DONE, NOT_FOUND, TIMED_OUT, output};

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(500);

#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    named: Named,
    #[command(flatten)]
    waiting: Waiting,
}

pub async fn run(arguments: Arguments) -> Result<u8> {
    let client = arguments.named.place.client().await?;
    let Some(app) = find(&client, &arguments.named).await? else { return Ok(NOT_FOUND) };
    let apps = Api::<App>::namespaced(client.clone(), &namespace(&app));
    let preconditions = Some(Preconditions { uid: app.uid(), resource_version: None });
    let deleted = apps.delete(&app.name_any(), &DeleteParams { preconditions, ..DeleteParams::default() }).await;
    deleted.map_err(plain).with_context(|| format!("delete {}", told(&app)))?;
    let state = State::new(app.clone(), api::app::Catalog::default());
    for kind in KINDS {
        let Some(object) = state.user_object(kind).filter(|object| object.namespace == namespace(&app)) else {
            continue;
        };
        if state::remove(&client, kind, object).await.with_context(|| format!("{} is being removed", told(&app)))? {
            output::progress(&format!("{} {}/{} deleted", word(kind), object.namespace, object.name));
        }
    }
    if !arguments.waiting.is_asked() {
        output::line(&format!("{} is being removed", told(&app)));
        return Ok(DONE);
    }
    let (started, mut said) = (Instant::now(), String::new());
    let gone = |found: &App| found.uid() != app.uid();
    while let Some(found) = apps.get_opt(&app.name_any()).await.map_err(plain)?.filter(|found| !gone(found)) {
        let status = found.status.map(|status| status.release).unwrap_or_default();
        let reason = status.reason.map(|reason| format!(": {reason}")).unwrap_or_default();
        let word = format!("the release to be removed ({}{reason})", status.status);
        if started.elapsed().as_secs() >= arguments.waiting.timeout_s {
            output::progress(&format!(
                "{} is not gone after {} s: it waits for {word}",
                told(&app),
                arguments.waiting.timeout_s
            ));
            return Ok(TIMED_OUT);
        }
        if word != said {
            output::progress(&format!("  {:>4} s  waiting for {word}", started.elapsed().as_secs()));
            said = word;
        }
        tokio::time::sleep(PAUSE).await;
    }
    output::line(&format!("{} removed", told(&app)));
    Ok(DONE)
}
