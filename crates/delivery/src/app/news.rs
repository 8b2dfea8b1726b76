//! What of an app has become another, for its events.
//!
//! Source: giantswarm/app-admission-controller pkg/app/validate_app.go. It ends with the process: a first look tells nothing.

use std::collections::HashMap;

use api::app::{App, ConfigRefs, ObjectRef, Quoted};
use control::Key;
use parking_lot::Mutex;

/// By the names of the published messages; none where the app says nothing.
type Facts = [(&'static str, Option<String>); 6];

#[derive(Default)]
pub struct News(Mutex<HashMap<Key, Facts>>);

impl News {
    /// What has changed since the last look, a sentence each.
    pub fn of(&self, key: &Key, app: &App) -> Vec<String> {
        let facts = facts(app);
        let before = self.0.lock().insert(key.clone(), facts.clone());
        let Some(before) = before else { return Vec::new() };
        let changed = facts.into_iter().zip(before).filter(|(now, before)| now != before);
        changed.map(|((name, value), _)| sentence(name, value)).collect()
    }

    pub fn forget(&self, key: &Key) {
        self.0.lock().remove(key);
    }
}

fn facts(app: &App) -> Facts {
    let spec = &app.spec;
    let map = |refs: &Option<ConfigRefs>| refs.as_ref().and_then(|refs| text(refs.config_map.as_ref()));
    let secret = |refs: &Option<ConfigRefs>| refs.as_ref().and_then(|refs| text(refs.secret.as_ref()));
    [
        ("AppCatalog", Some(spec.catalog.clone())),
        ("AppConfigMap", map(&spec.config)),
        ("AppSecret", secret(&spec.config)),
        ("UserConfigMap", map(&spec.user_config)),
        ("UserSecret", secret(&spec.user_config)),
        ("Version", Some(spec.version.clone())),
    ]
}

fn text(object: Option<&ObjectRef>) -> Option<String> {
    object.filter(|object| !object.name.is_empty()).map(|object| format!("{}/{}", object.namespace, object.name))
}

fn sentence(name: &str, value: Option<String>) -> String {
    match value {
        Some(value) => format!("{name} has been changed to {}", Quoted(&value)),
        None => format!("{name} has been reset"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn app(version: &str, user_config: serde_json::Value) -> App {
        serde_json::from_value(json!({
            "apiVersion": "application.giantswarm.io/v1alpha1", "kind": "App", "metadata": {"name": "a"},
            "spec": {"catalog": "default", "name": "a", "namespace": "a", "version": version,
                     "kubeConfig": {"inCluster": true}, "userConfig": user_config},
        }))
        .unwrap()
    }

    #[test]
    fn what_has_changed_is_told_once_and_what_was_there_at_first_never() {
        let (news, key) = (News::default(), Key::new("org", "a"));
        let values = json!({"configMap": {"name": "v", "namespace": "org"}});
        assert!(news.of(&key, &app("1.0.0", json!({}))).is_empty());
        assert_eq!(
            news.of(&key, &app("1.1.0", values.clone())),
            ["UserConfigMap has been changed to `org/v`", "Version has been changed to `1.1.0`"]
        );
        assert!(news.of(&key, &app("1.1.0", values)).is_empty());
        assert_eq!(news.of(&key, &app("1.1.0", json!({}))), ["UserConfigMap has been reset"]);
        news.forget(&key);
        assert!(news.of(&key, &app("2.0.0", json!({}))).is_empty());
    }
}
