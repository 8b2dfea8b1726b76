//! Which apps care for what: where they go, what they take values from, whose chart they wait for.

use std::{
    collections::{BTreeSet, HashMap},
    hash::Hash,
};

use api::app::{App, ConfigKind, ConfigRefs};
use control::Key;
use kube::ResourceExt;
use parking_lot::Mutex;

use super::dependencies;
use crate::target::Place;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Interest {
    Place(Place),
    Values(ConfigKind, Key),
    /// In whatever namespace it is.
    Catalog(String),
    /// Another app, whose state it waits for.
    App(Key),
}

/// Kept up to date by whoever sees apps change.
#[derive(Default)]
pub struct Interests(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    of: HashMap<Key, Vec<Interest>>,
    by: HashMap<Interest, BTreeSet<Key>>,
}

impl Interests {
    /// `app` is none when it is gone. Returns where it went and nobody goes any more.
    pub fn update(&self, key: &Key, app: Option<&App>) -> Option<Place> {
        let fresh = app.map(interests).unwrap_or_default();
        let mut inner = self.0.lock();
        let old = inner.of.remove(key).unwrap_or_default();
        for interest in old.iter().filter(|old| !fresh.contains(old)) {
            if let Some(keys) = inner.by.get_mut(interest) {
                keys.remove(key);
                if keys.is_empty() {
                    inner.by.remove(interest);
                }
            }
        }
        for interest in &fresh {
            inner.by.entry(interest.clone()).or_default().insert(key.clone());
        }
        let place = old.into_iter().find_map(|interest| match interest {
            Interest::Place(place) => Some(place),
            _ => None,
        });
        if !fresh.is_empty() {
            inner.of.insert(key.clone(), fresh);
        }
        place.filter(|place| !inner.by.contains_key(&Interest::Place(place.clone())))
    }

    pub fn of(&self, interest: &Interest) -> Vec<Key> {
        self.0.lock().by.get(interest).map(|keys| keys.iter().cloned().collect()).unwrap_or_default()
    }
}

fn interests(app: &App) -> Vec<Interest> {
    let namespace = app.namespace().unwrap_or_default();
    let mut all: Vec<Interest> = Place::of(app).map(Interest::Place).into_iter().collect();
    all.push(Interest::Catalog(app.spec.catalog.clone()));
    let refs = [&app.spec.config, &app.spec.user_config].into_iter().flatten();
    all.extend(refs.flat_map(referenced).map(|(kind, key)| Interest::Values(kind, key)));
    all.extend(
        app.extra_configs().iter().map(|extra| Interest::Values(extra.kind, Key::new(&extra.namespace, &extra.name))),
    );
    let awaited = dependencies::names(app).map(|name| Interest::App(Key::new(&namespace, name)));
    all.extend(awaited);
    all
}

/// The objects that hold values.
pub fn referenced(refs: &ConfigRefs) -> impl Iterator<Item = (ConfigKind, Key)> {
    let both = [(ConfigKind::ConfigMap, &refs.config_map), (ConfigKind::Secret, &refs.secret)];
    both.into_iter().filter_map(|(kind, object)| {
        let object = object.as_ref().filter(|object| !object.name.is_empty())?;
        Some((kind, Key::new(&object.namespace, &object.name)))
    })
}
