//! An app with all that its values come from, as it is and as it is to be.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use api::app::{App, CATALOG_NAMESPACES, Catalog, ConfigKind, ConfigRefs, ObjectRef, Quoted};
use delivery::{
    app::values::{self, Contents, Layer, Level},
    chart::decision,
};
use helm::values::Table;
use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Secret},
};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::{Value as Json, json};

use super::{namespace, told};

/// As this program calls itself in what it writes.
const MANAGER: &str = "skep";
/// On the user's values that were made here, which go with their app.
pub const MADE_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "skep");
/// The key that values are under in objects that are made here.
const KEY: &str = "values";
pub const KINDS: [ConfigKind; 2] = [ConfigKind::ConfigMap, ConfigKind::Secret];

pub const fn word(kind: ConfigKind) -> &'static str {
    match kind {
        ConfigKind::ConfigMap => "ConfigMap",
        ConfigKind::Secret => "Secret",
    }
}

/// What the objects hold that are named by an app.
type Held = BTreeMap<(ConfigKind, String, String), Contents>;

#[derive(Clone)]
pub struct State {
    pub app: App,
    pub catalog: Catalog,
    held: Held,
}

fn slot(kind: ConfigKind, object: &ObjectRef) -> (ConfigKind, String, String) {
    (kind, object.namespace.clone(), object.name.clone())
}

/// The catalog of that name: in this namespace, or where catalogs are looked for.
pub async fn catalog(client: &Client, name: &str, namespace: Option<&str>) -> Result<Catalog> {
    let places = namespace.map_or_else(|| CATALOG_NAMESPACES.to_vec(), |own| vec![own]);
    for place in &places {
        let found = Api::<Catalog>::namespaced(client.clone(), place).get_opt(name).await;
        if let Some(found) = found.with_context(|| format!("read catalog {place}/{name}"))? {
            return Ok(found);
        }
    }
    bail!("there is no catalog {name} in namespace {}; see: skep catalog list", places.join(" or "));
}

/// What an object holds; none if it is not there.
pub async fn contents(client: &Client, kind: ConfigKind, object: &ObjectRef) -> Result<Option<Contents>> {
    let (name, place) = (&object.name, &object.namespace);
    let what = || format!("read {} {place}/{name}", word(kind));
    Ok(match kind {
        ConfigKind::ConfigMap => {
            let found = Api::<ConfigMap>::namespaced(client.clone(), place).get_opt(name).await.with_context(what)?;
            found.map(|found| found.data.unwrap_or_default())
        }
        ConfigKind::Secret => {
            let found = Api::<Secret>::namespaced(client.clone(), place).get_opt(name).await.with_context(what)?;
            let text = |value: ByteString| String::from_utf8_lossy(&value.0).into_owned();
            found.map(|found| found.data.unwrap_or_default().into_iter().map(|(key, data)| (key, text(data))).collect())
        }
    })
}

impl State {
    pub fn new(app: App, catalog: Catalog) -> Self {
        Self { app, catalog, held: Held::new() }
    }

    pub async fn read(client: &Client, app: App) -> Result<Self> {
        let catalog = catalog(client, &app.spec.catalog, app.spec.catalog_namespace.as_deref()).await?;
        let mut state = Self::new(app, catalog);
        for (kind, layer) in state.layers() {
            if let Some(found) = contents(client, kind, &layer.object).await? {
                state.held.insert(slot(kind, &layer.object), found);
            }
        }
        Ok(state)
    }

    /// Where the values come from, the lowest first: later ones go over earlier ones, and Secrets over ConfigMaps.
    pub fn layers(&self) -> Vec<(ConfigKind, Layer)> {
        let of = |kind| values::layers(&self.app, &self.catalog, kind).into_iter().map(move |layer| (kind, layer));
        KINDS.into_iter().flat_map(of).collect()
    }

    pub fn held(&self, kind: ConfigKind, layer: &Layer) -> Option<&Contents> {
        self.held.get(&slot(kind, &layer.object))
    }

    /// The values of all layers of one kind for which this holds.
    pub fn merged(&self, kind: ConfigKind, is_meant: impl Fn(&Layer) -> bool) -> Result<Table> {
        let mut layers = values::layers(&self.app, &self.catalog, kind);
        layers.retain(is_meant);
        let find = |object: &ObjectRef| self.held.get(&slot(kind, object)).cloned();
        Ok(values::merged(&layers, kind, find)?.unwrap_or_default())
    }

    /// The values that the chart gets.
    pub fn values(&self) -> Result<Table> {
        let what = || format!("put the values of {} together", told(&self.app));
        let all = |kind| self.merged(kind, |_| true).with_context(what);
        Ok(decision::merged(all(ConfigKind::ConfigMap)?, all(ConfigKind::Secret)?))
    }

    /// The object of the user's own values, if the app names one.
    pub fn user_object(&self, kind: ConfigKind) -> Option<&ObjectRef> {
        let refs = self.app.spec.user_config.as_ref()?;
        let found = match kind {
            ConfigKind::ConfigMap => refs.config_map.as_ref(),
            ConfigKind::Secret => refs.secret.as_ref(),
        };
        found.filter(|object| !object.name.is_empty())
    }

    /// The user's own values.
    pub fn user(&self, kind: ConfigKind) -> Result<Table> {
        self.merged(kind, |layer| layer.level == Level::User)
    }

    /// The same app with other values of the user. Without any, an object that is not there stays so.
    pub fn set_user(&mut self, kind: ConfigKind, table: &Table) -> Result<()> {
        let object = match self.user_object(kind) {
            Some(object) => object.clone(),
            None if table.is_empty() => return Ok(()),
            None => {
                let suffix = if kind == ConfigKind::Secret { "user-secrets" } else { "user-values" };
                let name = format!("{}-{suffix}", self.app.name_any());
                let object = ObjectRef { name, namespace: namespace(&self.app) };
                let refs = self.app.spec.user_config.get_or_insert_with(ConfigRefs::default);
                match kind {
                    ConfigKind::ConfigMap => refs.config_map = Some(object.clone()),
                    ConfigKind::Secret => refs.secret = Some(object.clone()),
                }
                object
            }
        };
        let contents = self.held.entry(slot(kind, &object)).or_default();
        let key = contents.keys().next().cloned().unwrap_or_else(|| KEY.to_owned());
        let text = if table.is_empty() { "{}\n".to_owned() } else { values::text(table)? };
        *contents = Contents::from([(key, text)]);
        Ok(())
    }

    #[cfg(test)]
    pub fn rename(&mut self, kind: ConfigKind, from: &str, to: &str) {
        let place = namespace(&self.app);
        let held = self.held.remove(&(kind, place.clone(), from.to_owned()));
        self.held.extend(held.map(|held| ((kind, place, to.to_owned()), held)));
    }

    /// What is to be written to get here from `before`: by kind and object, whether it is new, and what it is to hold.
    fn changes<'s>(&'s self, before: &'s Self) -> Vec<(ConfigKind, ObjectRef, bool, &'s Contents)> {
        let changed = self.held.iter().filter(|(slot, held)| before.held.get(*slot) != Some(held));
        let told = changed.map(|((kind, namespace, name), held)| {
            let object = ObjectRef { name: name.clone(), namespace: namespace.clone() };
            let is_new = !before.held.contains_key(&slot(*kind, &object));
            (*kind, object, is_new, held)
        });
        told.collect()
    }

    /// Whether nothing is to be written to get here from `before`.
    pub fn is_same(&self, before: &Self) -> bool {
        self.app.spec == before.app.spec && self.changes(before).is_empty()
    }

    /// The objects of the user's values, as they are made.
    pub fn objects(&self) -> Vec<Json> {
        let nothing = Self::new(self.app.clone(), self.catalog.clone());
        self.changes(&nothing).into_iter().map(|(kind, object, _, held)| self.object(kind, &object, held)).collect()
    }

    fn object(&self, kind: ConfigKind, object: &ObjectRef, held: &Contents) -> Json {
        let mut labels = BTreeMap::from([(MADE_BY.0.to_owned(), MADE_BY.1.to_owned())]);
        if !self.app.cluster().is_empty() {
            labels.insert(api::app::CLUSTER_LABEL.to_owned(), self.app.cluster().to_owned());
        }
        let metadata = ObjectMeta {
            name: Some(object.name.clone()),
            namespace: Some(object.namespace.clone()),
            labels: Some(labels),
            ..ObjectMeta::default()
        };
        let mut whole = json!({"apiVersion": "v1", "kind": word(kind), "metadata": metadata});
        whole["data"] = data(kind, held);
        whole
    }

    /// Makes and changes objects so that what was `before` becomes this: the values first, and the App last.
    ///
    /// # Errors
    /// What was not written, and what was.
    pub async fn write(&self, client: &Client, before: &Self) -> Result<()> {
        let changes = self.changes(before);
        if let Some((kind, object)) = self.shared(client, &changes).await? {
            bail!(
                "{} {}/{} holds values of other apps too: nothing was changed; change it itself, or name another one in the App's spec.userConfig",
                word(kind),
                object.namespace,
                object.name
            );
        }
        let mut written = Vec::new();
        for (kind, object, is_new, held) in &changes {
            let place = format!("{} {}/{}", word(*kind), object.namespace, object.name);
            let done = if *is_new {
                self.make(client, *kind, object, held).await
            } else {
                replace(client, *kind, object, held).await
            };
            done.with_context(|| format!("write {place}; {}", so_far(&written)))?;
            written.push(place);
        }
        if self.app.spec == before.app.spec {
            return Ok(());
        }
        let apps = Api::<App>::namespaced(client.clone(), &namespace(&self.app));
        // Somebody else's change since it was read makes a conflict.
        let body = json!({
            "metadata": {"resourceVersion": before.app.resource_version()},
            "spec": {"version": self.app.spec.version, "userConfig": self.app.spec.user_config},
        });
        let patched = apps.patch(&self.app.name_any(), &PatchParams::default(), &Patch::Merge(&body)).await;
        patched.with_context(|| format!("change {}; {}", told(&self.app), so_far(&written)))?;
        Ok(())
    }

    /// An object of those to be changed that other apps name as well.
    async fn shared(
        &self,
        client: &Client,
        changes: &[(ConfigKind, ObjectRef, bool, &Contents)],
    ) -> Result<Option<(ConfigKind, ObjectRef)>> {
        if changes.iter().all(|(_, _, is_new, _)| *is_new) {
            return Ok(None);
        }
        let place = namespace(&self.app);
        let apps = Api::<App>::namespaced(client.clone(), &place).list(&ListParams::default()).await;
        let apps = apps.with_context(|| format!("list the apps of {place}"))?;
        let others = apps.items.into_iter().filter(|other| other.name_any() != self.app.name_any());
        let others: Vec<Self> = others.map(|other| Self::new(other, Catalog::default())).collect();
        let names = |kind: ConfigKind, object: &ObjectRef| {
            others.iter().any(|other| other.layers().iter().any(|(of, layer)| *of == kind && layer.object == *object))
        };
        let found = changes.iter().find(|(kind, object, _, _)| names(*kind, object));
        Ok(found.map(|(kind, object, _, _)| (*kind, object.clone())))
    }

    /// Makes an object for the user's values. One that an app of that name has left behind is taken again, a stranger's is not.
    pub async fn make(&self, client: &Client, kind: ConfigKind, object: &ObjectRef, held: &Contents) -> Result<()> {
        let body = self.object(kind, object, held);
        let made = match kind {
            ConfigKind::ConfigMap => create::<ConfigMap>(client, object, &body).await,
            ConfigKind::Secret => create::<Secret>(client, object, &body).await,
        };
        let Some(labels) = made? else { return Ok(()) };
        if labels.get(MADE_BY.0).is_none_or(|by| by != MADE_BY.1) {
            bail!("it exists already and is not this program's: delete it, or take another name for the app");
        }
        replace(client, kind, object, held).await
    }

    /// Makes everything anew. What was made is removed again if the rest cannot be.
    ///
    /// # Errors
    /// What could not be made, and what could not be removed again.
    pub async fn create(&self, client: &Client) -> Result<App> {
        let nothing = Self::new(self.app.clone(), self.catalog.clone());
        let changes = self.changes(&nothing);
        let mut made = Vec::new();
        let mut failure = None;
        for (kind, object, _, held) in &changes {
            let what = || format!("make {} {}/{}", word(*kind), object.namespace, object.name);
            if let Err(error) = self.make(client, *kind, object, held).await.with_context(what) {
                failure = Some(error);
                break;
            }
            made.push((*kind, object));
        }
        let error = match failure {
            Some(error) => error,
            None => {
                let apps = Api::<App>::namespaced(client.clone(), &namespace(&self.app));
                match apps.create(&PostParams::default(), &self.app).await {
                    Ok(app) => return Ok(app),
                    Err(error) => plain(error).context(format!("make {}", told(&self.app))),
                }
            }
        };
        for (kind, object) in made {
            if let Err(left) = remove(client, kind, object).await {
                return Err(error.context(format!(
                    "{} {}/{} stays and is to be deleted ({left:#})",
                    word(kind),
                    object.namespace,
                    object.name
                )));
            }
        }
        Err(error)
    }
}

/// An API's own words, without the codes around them.
pub fn plain(error: kube::Error) -> anyhow::Error {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => anyhow::anyhow!("{}", status.message),
        other => other.into(),
    }
}

fn so_far(written: &[String]) -> String {
    match written {
        [] => "nothing was changed".to_owned(),
        some => format!("but {} was changed: repeat the command to finish", some.join(" and ")),
    }
}

fn data(kind: ConfigKind, held: &Contents) -> Json {
    match kind {
        ConfigKind::ConfigMap => json!(held),
        ConfigKind::Secret => {
            let bytes = |text: &String| json!(ByteString(text.as_bytes().to_vec()));
            held.iter().map(|(key, text)| (key.clone(), bytes(text))).collect::<serde_json::Map<_, _>>().into()
        }
    }
}

/// The labels of what is there already.
async fn create<K>(client: &Client, object: &ObjectRef, body: &Json) -> Result<Option<BTreeMap<String, String>>>
where
    K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + serde::Serialize,
{
    let api = Api::<K>::namespaced(client.clone(), &object.namespace);
    match api.create(&PostParams::default(), &serde_json::from_value(body.clone())?).await {
        Ok(_) => Ok(None),
        Err(kube::Error::Api(status)) if status.code == 409 => {
            Ok(Some(api.get(&object.name).await.map_err(plain)?.labels().clone()))
        }
        Err(error) => Err(plain(error)),
    }
}

async fn replace(client: &Client, kind: ConfigKind, object: &ObjectRef, held: &Contents) -> Result<()> {
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    let body = json!({ "data": data(kind, held) });
    let (name, patch) = (&object.name, Patch::Merge(&body));
    let done = match kind {
        ConfigKind::ConfigMap => {
            let api = Api::<ConfigMap>::namespaced(client.clone(), &object.namespace);
            api.patch(name, &params, &patch).await.map(drop)
        }
        ConfigKind::Secret => {
            let api = Api::<Secret>::namespaced(client.clone(), &object.namespace);
            api.patch(name, &params, &patch).await.map(drop)
        }
    };
    done.map_err(plain)
}

/// Removes an object of the user's values that was made here; whether it was.
pub async fn remove(client: &Client, kind: ConfigKind, object: &ObjectRef) -> Result<bool> {
    let what = || format!("delete {} {}/{}", word(kind), object.namespace, object.name);
    match kind {
        ConfigKind::ConfigMap => {
            let api = Api::<ConfigMap>::namespaced(client.clone(), &object.namespace);
            remove_own(&api, &object.name).await.with_context(what)
        }
        ConfigKind::Secret => {
            let api = Api::<Secret>::namespaced(client.clone(), &object.namespace);
            remove_own(&api, &object.name).await.with_context(what)
        }
    }
}

async fn remove_own<K>(api: &Api<K>, name: &str) -> Result<bool>
where
    K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let Some(found) = api.get_metadata_opt(name).await.map_err(plain)? else { return Ok(false) };
    if found.labels().get(MADE_BY.0).is_none_or(|by| by != MADE_BY.1) {
        return Ok(false);
    }
    match api.delete(name, &kube::api::DeleteParams::default()).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
        Err(error) => Err(plain(error)),
    }
}

/// As in `ConfigMap org-acme/hello-user-values (the user's)`.
pub fn layer_told(kind: ConfigKind, layer: &Layer) -> String {
    let of = match layer.level {
        Level::Catalog => "of the catalog",
        Level::CatalogApp => "of the catalog, for this chart",
        Level::App => "of the app",
        Level::User => "the user's",
        Level::Extra => "extra",
    };
    format!("{} {}/{} ({of})", word(kind), layer.object.namespace, layer.object.name)
}

/// For messages: a chart in a catalog.
pub fn chart_told(app: &App) -> String {
    format!("chart {} of catalog {}", Quoted(&app.spec.name), Quoted(&app.spec.catalog))
}
