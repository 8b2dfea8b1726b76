//! A chart becomes a release: rendered for the cluster as it is, with what `lookup` finds in it.

use std::{cell::RefCell, collections::HashMap, rc::Rc, sync::Arc};

use helm::{
    Prepared, Rendered,
    chart::Chart,
    manifests::{self, Manifests},
    release::Capabilities,
    values::Table,
    world::{KeyKind, World},
};
use jiff::Timestamp;
use kube::{
    api::{GetParams, ListParams},
    core::Request,
};
use serde_json::Value as Json;

use super::{
    cluster::{Cluster, Served},
    error::{Error, Result},
    object::is_segment,
    record::Hook,
};

/// So many objects may a chart look up, and so many times may it be rendered to find out which.
pub const LOOKUPS_MAX: usize = 64;

type Random = dyn Fn(&mut [u8]) + Send + Sync;
type Keys = dyn Fn(KeyKind) -> Result<Vec<u8>, String> + Send + Sync;

/// Randomness and keys, which charts ask for. From the operating system, or from a seed.
#[derive(Clone)]
pub struct Chance {
    pub random: Arc<Random>,
    pub key: Arc<Keys>,
}

/// What a chart has become.
pub struct Page {
    pub manifest: String,
    pub hooks: Vec<Hook>,
    pub notes: String,
}

/// apiVersion, kind, namespace, name.
type Asked = [String; 4];
type Found = HashMap<Asked, Option<Json>>;

/// Renders. What `lookup` asks for is not there in the first go: it is fetched, and the chart rendered again, until nothing new is asked.
pub async fn rendered(
    cluster: &Cluster,
    chance: &Chance,
    now: Timestamp,
    prepared: &Arc<Prepared>,
    values: &Table,
    release: &helm::release::Release,
) -> Result<Page> {
    let chart = prepared.chart();
    let served = cluster.served().await?;
    let rendering = Arc::new(Rendering {
        chance: chance.clone(),
        now,
        chart: Arc::clone(prepared),
        values: values.clone(),
        release: release.clone(),
        capabilities: Capabilities::of(&served.version, served.api_versions.clone()),
    });
    let mut found = Found::new();
    for _ in 0..=LOOKUPS_MAX {
        let (rendering, known) = (Arc::clone(&rendering), found.clone());
        // A large chart takes a while: others go on meanwhile.
        let once = tokio::task::spawn_blocking(move || rendering.once(known)).await;
        let (page, asked) =
            once.map_err(|error| Error::Invalid(format!("chart {} cannot be rendered: {error}", chart.name())))?;
        if asked.is_empty() {
            return page.map(|page| paged(chart, page));
        }
        if found.len() + asked.len() > LOOKUPS_MAX {
            break;
        }
        for one in asked {
            let object = look_up(cluster, &served, &one).await?;
            found.insert(one, object);
        }
    }
    Err(Error::Limit(format!("chart {} looks up more than {LOOKUPS_MAX} objects", chart.name())))
}

/// All that a chart is rendered with, but for what it looks up.
struct Rendering {
    chance: Chance,
    now: Timestamp,
    chart: Arc<Prepared>,
    values: Table,
    release: helm::release::Release,
    capabilities: Capabilities,
}

impl Rendering {
    /// What it becomes, and what it looked up in vain.
    fn once(&self, known: Found) -> (Result<Manifests>, Vec<Asked>) {
        let Self { chance, now, chart, values, release, capabilities } = self;
        let asked = Rc::new(RefCell::new(Vec::new()));
        let (random, key) = (Arc::clone(&chance.random), Arc::clone(&chance.key));
        let missing = Rc::clone(&asked);
        let world = World {
            now: *now,
            random: Box::new(move |bytes| random(bytes)),
            key: Box::new(move |kind| key(kind)),
            lookup: Box::new(move |api_version, kind, namespace, name| {
                let one = [api_version, kind, namespace, name].map(str::to_owned);
                match known.get(&one) {
                    Some(answer) => Ok(answer.clone()),
                    None => {
                        let mut missing = missing.borrow_mut();
                        if !missing.contains(&one) && missing.len() <= LOOKUPS_MAX {
                            missing.push(one);
                        }
                        Ok(None)
                    }
                }
            }),
        };
        let rendered: Result<Rendered, _> = chart.render(values, release, capabilities, world);
        let page = rendered.and_then(|rendered| manifests::sorted(&rendered)).map_err(Error::from);
        (page, asked.take())
    }
}

/// An object, or a list where there is no name.
async fn look_up(cluster: &Cluster, served: &Served, asked: &Asked) -> Result<Option<Json>> {
    let [api_version, kind, namespace, name] = asked;
    let Some(path) = served.place(api_version, kind, namespace) else { return Ok(None) };
    if !is_segment(name) || !is_segment(namespace) {
        return Err(Error::Invalid(format!("lookup: no object can be called {name:?} in {namespace:?}")));
    }
    let request = Request::new(path);
    let request =
        if name.is_empty() { request.list(&ListParams::default()) } else { request.get(name, &GetParams::default()) };
    let request = request.map_err(|error| Error::Invalid(format!("lookup of {kind} {name}: {error}")))?;
    match cluster.call("look up", format!("{kind} {name:?}"), cluster.client().request(request)).await {
        Ok(object) => Ok(Some(object)),
        Err(error) if error.code() == Some(404) => Ok(None),
        Err(error) => Err(error),
    }
}

fn paged(chart: &Chart, from: Manifests) -> Page {
    let mut manifest = String::new();
    for object in &from.objects {
        manifest.push_str(&format!("---\n# Source: {}\n{}\n", object.path, object.content));
    }
    let own = format!("{}/templates/NOTES.txt", chart.name());
    let notes = from.notes.into_iter().find(|(path, _)| *path == own).map(|(_, text)| text).unwrap_or_default();
    let hooks = from.hooks.into_iter().map(|hook| Hook {
        name: hook.name,
        kind: hook.manifest.kind,
        path: hook.manifest.path,
        manifest: hook.manifest.content,
        events: hook.events,
        weight: hook.weight,
        delete_policies: hook.delete_policies,
        output_log_policies: hook.output_log_policies,
        ..Hook::default()
    });
    Page { manifest, hooks: hooks.collect(), notes }
}
