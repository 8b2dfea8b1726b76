//! The cluster that an app goes to, reached with the kubeconfig that the App names, and the chart that is to be there.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use api::app::{App, Catalog, Chart, PLATFORM_NAMESPACE};
use control::{Clock, Direct};
use delivery::{
    app::{
        chart,
        source::{self, Source, Way},
    },
    release::{Chance, Difference, Engine, Limits, Options, Release, Request},
    repository::{Access, Repositories, grant},
    target::{self, Place},
};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client, ResourceExt};
use rand::RngCore;

use super::{
    state::{State, chart_told, plain},
    told,
};
use crate::Charts;

pub struct Target {
    pub place: Place,
    client: Client,
    charts: Charts,
    pub engine: Engine,
    /// Of the Chart and the release.
    pub release: String,
    pub namespace: String,
}

impl Target {
    /// Connects with the user's own rights on the Secret of the kubeconfig.
    pub async fn reach(client: &Client, app: &App, charts: Charts) -> Result<Self> {
        let Some(place) = Place::of(app) else {
            bail!("{} does not say which cluster it goes to: set spec.kubeConfig.secret, or inCluster", told(app));
        };
        let client = target::dial(client, &place, &Direct).await;
        let client = client.with_context(|| format!("reach {place}, where {} goes", told(app)))?;
        let chance =
            Chance { random: Arc::new(|bytes| rand::rng().fill_bytes(bytes)), key: Arc::new(crate::template::key) };
        let engine = Engine::new(client.clone(), Clock::system(), chance, Limits::default());
        Ok(Self { place, client, charts, engine, release: chart::name(app), namespace: app.spec.namespace.clone() })
    }

    /// The Chart there.
    pub async fn chart(&self) -> Result<Option<Chart>> {
        let charts = Api::<Chart>::namespaced(self.client.clone(), PLATFORM_NAMESPACE);
        match charts.get_opt(&self.release).await {
            Ok(found) => Ok(found),
            // A cluster that no app ever went to does not know the kind.
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(plain(error).context(format!("read chart {} in {}", self.release, self.place))),
        }
    }

    /// The revisions that are kept of the release, the oldest first.
    pub async fn revisions(&self) -> Result<Vec<Release>> {
        let (name, place) = (&self.release, &self.place);
        let heads = self.engine.history(&self.namespace, Some(name)).await;
        let heads = heads.with_context(|| format!("read the history of release {name} in {place}"))?;
        let mut all = Vec::new();
        for head in heads {
            // One may be pruned meanwhile.
            all.extend(self.engine.revision(name, &self.namespace, head.version).await?);
        }
        Ok(all)
    }

    /// What would change there if the app were like this.
    pub async fn diff(&self, client: &Client, state: &State) -> Result<Vec<Difference>> {
        let archive = archive(client, state, self.charts).await?;
        let values = state.values()?;
        let options = Options { install: true, ..Options::default() };
        let request = Request {
            name: &self.release,
            namespace: &self.namespace,
            chart: &archive,
            values: &values,
            options: &options,
            token: "",
        };
        let found = self.engine.diff(&request).await;
        found.with_context(|| format!("compare {} with {}", told(&state.app), self.place))
    }
}

/// The Secret with what a catalog's repositories want to know; none to whoever may not read it.
pub async fn credentials(client: &Client, catalog: &Catalog) -> Result<Option<Secret>> {
    let (name, place) = (grant::secret_name(&catalog.name_any()), catalog.namespace().unwrap_or_default());
    match Api::<Secret>::namespaced(client.clone(), &place).get_opt(&name).await {
        Ok(found) => Ok(found),
        Err(kube::Error::Api(status)) if status.code == 403 => Ok(None),
        Err(error) => Err(plain(error).context(format!("read secret {place}/{name}"))),
    }
}

/// The chart that the app asks for, prepared.
async fn archive(client: &Client, state: &State, charts: Charts) -> Result<Arc<helm::Prepared>> {
    Ok(Arc::new(helm::Prepared::new(fetch(client, &state.app, &state.catalog, charts).await?)))
}

/// The chart that the app asks for, fetched from its catalog.
pub async fn fetch(client: &Client, app: &App, catalog: &Catalog, charts: Charts) -> Result<helm::chart::Chart> {
    let (transport, secret) = (charts()?, credentials(client, catalog).await?);
    let access =
        |url: &str| -> Result<Access, String> { grant::access(transport.clone(), catalog, secret.as_ref(), url) };
    let repositories = Repositories::default();
    let way = Way { repositories: &repositories, access: &access };
    let what = || format!("fetch version {} of {}", app.spec.version, chart_told(app));
    let Source { url, version } = match source::find(way, app, catalog, None).await {
        Ok(source) => source,
        Err(failure) => return Err(anyhow::anyhow!("{}", failure.reason)).with_context(what),
    };
    let digest = source::digest(way, app, catalog, &Source { url: url.clone(), version }).await;
    let digest = digest.map_err(anyhow::Error::msg).with_context(what)?;
    let reached = access(&url).map_err(anyhow::Error::msg).with_context(what)?;
    let fetched = repositories.archive(&reached, &url, digest.as_deref()).await.with_context(what)?;
    let files = helm::chart::archive::unpack(&fetched.archive).with_context(what)?;
    helm::chart::Chart::load(&files).with_context(what)
}
