//! The values of an App, put together of layers: the catalog's, the app's, the user's, and what is between them by priority.
//!
//! Source: giantswarm/app pkg/values. `ConfigMaps` and `Secrets` are merged apart; where the release is made, secret values go over the others.

use std::collections::BTreeMap;

use api::app::{App, Catalog, ConfigKind, ConfigRefs, ExtraConfig, ObjectRef, Quoted};
use helm::values::{self, Table};

/// The priorities of extra values that come after the catalog's, after the app's and after the user's end here.
const ENDS: [i32; 3] = [50, 100, 150];

/// On a Catalog: the beginning of the names of ConfigMaps beside it, one for each chart (`<it>-<chart>-values`), which lie right above
/// the catalog's own values. What is not there is nothing.
pub const APP_VALUES: &str = "delivery.skep.dev/app-values";

/// On a Catalog: charts, separated by commas, that are not given the values of the cluster (`<id>-cluster-values`), since they refuse
/// values that they do not know.
pub const WITHOUT_CLUSTER_VALUES: &str = "delivery.skep.dev/without-cluster-values";

/// Whose values a layer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Catalog,
    /// The catalog's for this chart: may be missing.
    CatalogApp,
    App,
    User,
    Extra,
}

/// An object with values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    pub level: Level,
    pub object: ObjectRef,
}

/// What an object holds, by key.
pub type Contents = BTreeMap<String, String>;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// `words`: the published kind of error.
    #[error("{words}: {kind} {} in namespace {} not found", Quoted(&.object.name), Quoted(&.object.namespace))]
    NotFound { words: &'static str, kind: &'static str, object: ObjectRef, level: Level },
    #[error("parsing error: {0}")]
    Parsing(String),
}

const fn told(kind: ConfigKind) -> &'static str {
    match kind {
        ConfigKind::ConfigMap => "configmap",
        ConfigKind::Secret => "secret",
    }
}

/// The layers of one kind, the lowest first. References without a name are none.
pub fn layers(app: &App, catalog: &Catalog, kind: ConfigKind) -> Vec<Layer> {
    let of = |refs: &Option<ConfigRefs>| {
        let refs = refs.as_ref()?;
        match kind {
            ConfigKind::ConfigMap => refs.config_map.clone(),
            ConfigKind::Secret => refs.secret.clone(),
        }
    };
    let mut extra: Vec<&ExtraConfig> = app.extra_configs().iter().filter(|extra| extra.kind == kind).collect();
    // Zero stands for the default; those of one priority stay as they were written.
    let priority = |extra: &ExtraConfig| if extra.priority == 0 { 25 } else { extra.priority };
    extra.sort_by_key(|extra| priority(extra));
    let fixed = [
        (Level::Catalog, of(&catalog.spec.config)),
        (Level::App, of(&app.spec.config)),
        (Level::User, of(&app.spec.user_config)),
    ];
    let mut layers = Vec::new();
    let mut start = 0;
    let of_chart = catalog.metadata.annotations.as_ref().and_then(|all| all.get(APP_VALUES));
    let of_chart = of_chart.filter(|prefix| !prefix.is_empty() && kind == ConfigKind::ConfigMap).map(|prefix| Layer {
        level: Level::CatalogApp,
        object: ObjectRef {
            name: format!("{prefix}-{}-values", app.spec.name),
            namespace: catalog.metadata.namespace.clone().unwrap_or_default(),
        },
    });
    for ((level, object), end) in fixed.into_iter().zip(ENDS) {
        layers.extend(object.filter(|object| !object.name.is_empty()).map(|object| Layer { level, object }));
        layers.extend(of_chart.clone().filter(|_| level == Level::Catalog));
        let here = extra.iter().filter(|extra| start < priority(extra) && priority(extra) <= end);
        layers.extend(here.map(|extra| Layer {
            level: Level::Extra,
            object: ObjectRef { name: extra.name.clone(), namespace: extra.namespace.clone() },
        }));
        start = end;
    }
    let without = catalog.metadata.annotations.as_ref().and_then(|all| all.get(WITHOUT_CLUSTER_VALUES));
    if without.is_some_and(|charts| charts.split(',').any(|chart| chart.trim() == app.spec.name)) {
        let cluster_values = app.cluster_values();
        layers.retain(|layer| layer.object.name != cluster_values);
    }
    layers
}

/// The values of all layers of one kind, later ones over earlier ones; none if there are no layers.
///
/// # Errors
/// Which layer is not there or cannot be read, in the published words.
pub fn merged(
    layers: &[Layer],
    kind: ConfigKind,
    find: impl Fn(&ObjectRef) -> Option<Contents>,
) -> Result<Option<Table>, Error> {
    if layers.is_empty() {
        return Ok(None);
    }
    let mut all = Table::new();
    for layer in layers {
        let level = layer.level;
        let words = match (level, kind) {
            (Level::App, ConfigKind::ConfigMap) => "app config map not found error",
            (Level::App | Level::User, _) => "validation error",
            _ => "not found error",
        };
        let not_found = || Error::NotFound { words, kind: told(kind), object: layer.object.clone(), level };
        let contents = match find(&layer.object) {
            None if layer.level == Level::CatalogApp => continue,
            found => found.ok_or_else(not_found)?,
        };
        for text in texts(layer, kind, &contents)? {
            let read = values::read(text).map_err(|error| Error::Parsing(unparsed(layer, kind, &error)))?;
            values::overlay(&mut all, read);
        }
    }
    Ok(Some(all))
}

/// What of an object is read: its only key, but of extra values all of them.
fn texts<'c>(layer: &Layer, kind: ConfigKind, contents: &'c Contents) -> Result<Vec<&'c String>, Error> {
    if layer.level != Level::Extra && contents.len() != 1 {
        let (name, count) = (Quoted(name(layer.level)), contents.len());
        return Err(Error::Parsing(format!("expected {name} {} has only one key but got {count}", told(kind))));
    }
    Ok(contents.values().collect())
}

/// As it is written to the target cluster.
///
/// # Errors
/// That it cannot be written.
pub fn text(values: &Table) -> control::Result<String> {
    let written = helm::data::yaml::text(&helm::data::of_json(&values.clone().into()));
    written.map_err(|error| control::Error::bug(format!("values cannot be written: {error}")))
}

const fn name(level: Level) -> &'static str {
    match level {
        Level::Catalog | Level::CatalogApp => "catalog",
        Level::App => "app",
        Level::User => "user",
        Level::Extra => "extra",
    }
}

fn unparsed(layer: &Layer, kind: ConfigKind, error: &helm::Error) -> String {
    match layer.level {
        Level::Extra => {
            let (name, namespace) = (Quoted(&layer.object.name), Quoted(&layer.object.namespace));
            format!("failed to parse {name} in {namespace}, logs: {error}")
        }
        level => format!("failed to parse {} {}, logs: {error}", Quoted(name(level)), told(kind)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn app(spec: &Value) -> App {
        let mut whole = json!({
            "apiVersion": "application.giantswarm.io/v1alpha1", "kind": "App", "metadata": {"name": "a"},
            "spec": {"catalog": "c", "name": "hello", "namespace": "n", "version": "1", "kubeConfig": {"inCluster": true}},
        });
        for (key, value) in spec.as_object().unwrap() {
            whole["spec"][key] = value.clone();
        }
        serde_json::from_value(whole).unwrap()
    }

    fn catalog(config: &Value) -> Catalog {
        let mut catalog = Catalog::default();
        catalog.spec.config = serde_json::from_value(config.clone()).unwrap();
        catalog
    }

    /// Every kind of layer; what is named `b` and a number has it as priority.
    fn whole() -> (App, Catalog) {
        let extra = |name: &str, priority: i32| json!({"name": name, "namespace": "n", "priority": priority});
        let refs = |name: &str| json!({"configMap": {"name": name, "namespace": "n"}});
        let app = app(&json!({
            "config": refs("app"), "userConfig": refs("user"),
            "extraConfigs": [
                extra("b150", 150), extra("b101", 101), extra("b100", 100), extra("b51", 51), extra("b50", 50),
                extra("first", 25), {"name": "second", "namespace": "n"}, extra("zero", 0), extra("b1", 1),
                {"kind": "secret", "name": "hidden", "namespace": "n", "priority": 1},
            ],
        }));
        (app, catalog(&refs("catalog")))
    }

    fn names(layers: &[Layer]) -> Vec<&str> {
        layers.iter().map(|layer| layer.object.name.as_str()).collect()
    }

    #[test]
    fn layers_lie_by_level_and_priority_and_those_of_one_priority_as_they_are_written() {
        let (app, catalog) = whole();
        let maps = layers(&app, &catalog, ConfigKind::ConfigMap);
        let expected =
            ["catalog", "b1", "first", "second", "zero", "b50", "app", "b51", "b100", "user", "b101", "b150"];
        assert_eq!(names(&maps), expected);
        assert_eq!(names(&layers(&app, &catalog, ConfigKind::Secret)), ["hidden"]);
    }

    #[test]
    fn a_catalog_may_have_values_for_each_chart() {
        let (app, mut catalog) = whole();
        catalog.metadata.namespace = Some("default".into());
        catalog.metadata.annotations = Some(BTreeMap::from([(APP_VALUES.to_owned(), "up".to_owned())]));
        let maps = layers(&app, &catalog, ConfigKind::ConfigMap);
        assert_eq!(names(&maps)[..3], ["catalog", "up-hello-values", "b1"]);
        assert_eq!(maps[1].object.namespace, "default");
        assert_eq!(merged(&maps[1..2], ConfigKind::ConfigMap, |_| None), Ok(Some(Table::new())), "it may be missing");
    }

    #[test]
    fn a_catalog_may_keep_the_values_of_the_cluster_from_a_chart() {
        let own = |name: &str| json!({"configMap": {"name": name, "namespace": "n"}, "secret": {"name": name, "namespace": "n"}});
        let mut app = app(&json!({"config": own("a1-cluster-values"), "userConfig": own("user")}));
        app.metadata.namespace = Some("org-acme".into());
        app.metadata.labels = Some(BTreeMap::from([("giantswarm.io/cluster".to_owned(), "a1".to_owned())]));
        let mut catalog = catalog(&json!(null));
        for (charts, expected) in [("other", 2), ("other, hello", 1)] {
            let annotation = (WITHOUT_CLUSTER_VALUES.to_owned(), charts.to_owned());
            catalog.metadata.annotations = Some(BTreeMap::from([annotation]));
            for kind in [ConfigKind::ConfigMap, ConfigKind::Secret] {
                assert_eq!(layers(&app, &catalog, kind).len(), expected, "{charts}");
            }
        }
    }

    #[test]
    fn later_layers_go_over_earlier_ones_and_lists_are_replaced() {
        let (app, catalog) = whole();
        let maps = layers(&app, &catalog, ConfigKind::ConfigMap);
        let text = |name: &str| match name {
            "catalog" => "a: 1\nlist: [1, 2]\nmap: {a: 1, b: 1}\ngone: {deep: 1}\n",
            "app" => "list: []\nmap: {b: 2, c: 2}\n",
            "b100" => "a: false\nmap: {c: b100}\n",
            "user" => "gone: null\n",
            _ => "{}",
        };
        let find = |object: &ObjectRef| Some(Contents::from([("values".to_owned(), text(&object.name).to_owned())]));
        let merged = merged(&maps, ConfigKind::ConfigMap, find).unwrap().unwrap();
        let expected = json!({"a": false, "list": [], "map": {"a": 1.0, "b": 2.0, "c": "b100"}, "gone": null});
        assert_eq!(Value::Object(merged), expected);
    }

    #[test]
    fn without_layers_there_is_nothing() {
        let none = layers(&app(&json!({"config": {}})), &catalog(&json!(null)), ConfigKind::ConfigMap);
        assert_eq!(merged(&none, ConfigKind::ConfigMap, |_| None), Ok(None));
    }

    #[test]
    fn what_is_not_there_or_no_values_is_told_in_the_published_words() {
        let layer = |level| vec![Layer { level, object: ObjectRef { name: "v".into(), namespace: "n".into() } }];
        let with = |level, kind, contents: &[(&str, &str)]| {
            let contents: Contents =
                contents.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect();
            merged(&layer(level), kind, |_| Some(contents.clone())).map_err(|error| error.to_string())
        };
        for (level, kind, words) in [
            (Level::User, ConfigKind::Secret, "validation error: secret"),
            (Level::App, ConfigKind::ConfigMap, "app config map not found error: configmap"),
            (Level::Catalog, ConfigKind::Secret, "not found error: secret"),
        ] {
            let gone = merged(&layer(level), kind, |_| None).unwrap_err();
            assert_eq!(gone.to_string(), format!("{words} `v` in namespace `n` not found"));
        }
        let two = [("a", "{}"), ("b", "{}")];
        let text = "parsing error: expected `catalog` configmap has only one key but got 2";
        assert_eq!(with(Level::Catalog, ConfigKind::ConfigMap, &two), Err(text.into()));
        let text = "parsing error: expected `user` secret has only one key but got 0";
        assert_eq!(with(Level::User, ConfigKind::Secret, &[]), Err(text.into()));
        assert!(with(Level::Extra, ConfigKind::ConfigMap, &two).is_ok(), "extra values have as many keys as they like");
        let wrong = with(Level::App, ConfigKind::ConfigMap, &[("a", "[1]")]).unwrap_err();
        assert!(wrong.starts_with("parsing error: failed to parse `app` configmap, logs: "), "{wrong}");
        let wrong = with(Level::Extra, ConfigKind::ConfigMap, &[("a", "{")]).unwrap_err();
        assert!(wrong.starts_with("parsing error: failed to parse `v` in `n`, logs: "), "{wrong}");
    }
}
