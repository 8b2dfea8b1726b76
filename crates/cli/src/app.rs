//! `skep app`: what an App asks for, what became of it, and how it is changed. Everything is read and written with the user's own rights;
//! what is in the cluster that an app goes to is reached with the kubeconfig that the App names, as the controllers do.

mod diff;
mod history;
mod install;
mod list;
mod restoration;
mod show;
mod state;
mod target;
mod test;
mod uninstall;
mod upgrade;
mod values;
mod wait;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use api::app::App;
use kube::{Api, Client, ResourceExt, api::ListParams};

use crate::{Charts, output};

pub use self::{
    install::{offered, pick},
    show::{events_by_time, fields, seen_at},
    state::{catalog, plain},
    target::{credentials, fetch},
};

#[derive(clap::Args)]
pub struct Apps {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Install a chart of a catalog in a cluster
    Install(Box<install::Arguments>),
    /// Change an app's version or its values
    Upgrade(Box<upgrade::Arguments>),
    /// List apps with what became of them
    #[command(visible_alias = "ls")]
    List(list::Arguments),
    /// Show an app: what it asks for, what became of it, where its values come from
    Show(show::Arguments),
    /// Show an app's values
    Values(values::Arguments),
    /// Show what an app would change in its cluster, or what others have changed there
    Diff(Box<diff::Arguments>),
    /// List the revisions of an app's release
    History(history::Arguments),
    /// Set version and values of an app back to those of a revision
    Rollback(history::Rollback),
    /// Run the tests of an app's release in its cluster, as `helm test` does
    Test(test::Arguments),
    /// Remove an app from its cluster
    Uninstall(uninstall::Arguments),
}

/// Where apps are.
#[derive(clap::Args)]
struct Place {
    /// Kubeconfig of the management cluster [default: $KUBECONFIG, then ~/.skep/kubeconfig, then ~/.kube/config]
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// Namespace of the App in the management cluster
    #[arg(short, long)]
    namespace: Option<String>,
}

impl Place {
    async fn client(&self) -> Result<Client> {
        crate::connect(self.kubeconfig.as_deref()).await
    }
}

/// One app.
#[derive(clap::Args)]
struct Named {
    /// Name of the App
    name: String,
    #[command(flatten)]
    place: Place,
}

pub async fn run(apps: Apps, charts: Charts) -> Result<u8> {
    match apps.what {
        What::Install(arguments) => install::run(*arguments).await,
        What::Upgrade(arguments) => upgrade::run(*arguments, charts).await,
        What::List(arguments) => list::run(arguments).await,
        What::Show(arguments) => show::run(arguments, charts).await,
        What::Values(arguments) => values::run(arguments).await,
        What::Diff(arguments) => diff::run(*arguments, charts).await,
        What::History(arguments) => history::run(arguments, charts).await,
        What::Rollback(arguments) => history::roll_back(arguments, charts).await,
        What::Test(arguments) => test::run(arguments, charts).await,
        What::Uninstall(arguments) => uninstall::run(arguments).await,
    }
}

/// The app of that name; without a namespace, the only one of that name. `None` after saying that there is none.
async fn find(client: &Client, named: &Named) -> Result<Option<App>> {
    let name = &named.name;
    if let Some(namespace) = &named.place.namespace {
        let found = Api::<App>::namespaced(client.clone(), namespace).get_opt(name).await;
        let found = found.with_context(|| format!("read app {namespace}/{name}"))?;
        if found.is_none() {
            output::progress(&format!("there is no app {name} in namespace {namespace}"));
        }
        return Ok(found);
    }
    let params = ListParams::default().fields(&format!("metadata.name={name}"));
    let found = Api::<App>::all(client.clone()).list(&params).await;
    let mut found = found.with_context(|| format!("look for app {name} in all namespaces (or pass -n)"))?.items;
    if found.len() > 1 {
        let places: Vec<String> = found.iter().filter_map(ResourceExt::namespace).collect();
        bail!("there is an app {name} in several namespaces ({}): pass one with -n", places.join(", "));
    }
    if found.is_empty() {
        output::progress(&format!("there is no app {name}; see: skep app list"));
    }
    Ok(found.pop())
}

fn namespace(app: &App) -> String {
    app.namespace().unwrap_or_default()
}

/// As in `app org-acme/hello`.
fn told(app: &App) -> String {
    format!("app {}/{}", namespace(app), app.name_any())
}
