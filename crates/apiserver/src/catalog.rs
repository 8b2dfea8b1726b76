//! All kinds that a server serves: the built-in ones, shared by every server of the process, and those of CRDs.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    sync::{Arc, LazyLock},
};

use crate::{
    aggregation::Registration,
    kinds::{
        Kind,
        builtin::{self, Profile},
        version_rank,
    },
};

/// The built-in half.
struct Base {
    kinds: Vec<Arc<Kind>>,
    /// By group, version and plural.
    by_plural: HashMap<(String, String, String), Arc<Kind>>,
}

impl Base {
    fn new(profile: Profile) -> Self {
        let kinds = builtin::kinds(profile);
        let by_plural = kinds
            .iter()
            .map(|kind| ((kind.group.to_string(), kind.version.to_string(), kind.plural.to_string()), Arc::clone(kind)))
            .collect();
        Self { kinds, by_plural }
    }

    fn of(profile: Profile) -> &'static Self {
        static MANAGEMENT: LazyLock<Base> = LazyLock::new(|| Base::new(Profile::Management));
        static WORKLOAD: LazyLock<Base> = LazyLock::new(|| Base::new(Profile::Workload));
        match profile {
            Profile::Management => &MANAGEMENT,
            Profile::Workload => &WORKLOAD,
        }
    }
}

/// What a CRD adds.
#[derive(Clone, Debug)]
pub(crate) struct CustomKinds {
    pub group: String,
    /// The versions that are served, preferred first.
    pub served: Vec<Arc<Kind>>,
    pub namespaced: bool,
    /// Being deleted: nothing new may be created.
    pub terminating: bool,
}

/// A group as discovery shows it.
pub(crate) struct Group {
    pub name: String,
    /// Preferred first, each with its kinds.
    pub versions: Vec<(String, Vec<Arc<Kind>>)>,
    /// Those of APIServices that are not the server's own, preferred first.
    pub registered: Vec<Arc<Registration>>,
}

/// A snapshot; a new one is made when a CRD or an APIService changes.
#[derive(Clone)]
pub(crate) struct Catalog {
    base: &'static Base,
    /// By the name of the CRD.
    custom: Arc<BTreeMap<String, Arc<CustomKinds>>>,
    /// Group -> names of the CRDs in it.
    groups: Arc<BTreeMap<String, Vec<String>>>,
    /// By the name of the APIService.
    registered: Arc<BTreeMap<String, Arc<Registration>>>,
    /// Changes with every snapshot.
    pub generation: u64,
}

impl Catalog {
    pub(crate) fn new(profile: Profile) -> Self {
        Self {
            base: Base::of(profile),
            custom: Arc::default(),
            groups: Arc::default(),
            registered: Arc::default(),
            generation: 0,
        }
    }

    pub(crate) fn find(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Kind>> {
        let key = (group.to_owned(), version.to_owned(), plural.to_owned());
        if let Some(kind) = self.base.by_plural.get(&key) {
            return Some(Arc::clone(kind));
        }
        let custom = self.custom.get(&format!("{plural}.{group}"))?;
        custom.served.iter().find(|kind| kind.version == version).cloned()
    }

    /// By apiVersion and kind, as references and manifests name it.
    pub(crate) fn find_kind(&self, group: &str, version: &str, kind: &str) -> Option<Arc<Kind>> {
        let matches = |k: &&Arc<Kind>| k.group == group && k.version == version && k.kind == kind;
        if let Some(found) = self.base.kinds.iter().find(matches) {
            return Some(Arc::clone(found));
        }
        self.customs_of(group).flat_map(|custom| &custom.served).find(matches).cloned()
    }

    /// Any version of a kind, preferred first.
    pub(crate) fn find_any_version(&self, group: &str, kind: &str) -> Option<Arc<Kind>> {
        let matches = |k: &&Arc<Kind>| k.group == group && k.kind == kind;
        if let Some(found) = self.base.kinds.iter().find(matches) {
            return Some(Arc::clone(found));
        }
        self.customs_of(group).flat_map(|custom| &custom.served).find(matches).cloned()
    }

    /// The kind whose objects lie under this group (`core`: the core group) and plural in the store.
    pub(crate) fn find_stored(&self, group: &str, plural: &str) -> Option<Arc<Kind>> {
        let group = if group == "core" { "" } else { group };
        let stored = |k: &&Arc<Kind>| k.group == group && k.plural == plural && k.convert.is_none();
        if let Some(found) = self.base.kinds.iter().find(stored) {
            return Some(Arc::clone(found));
        }
        self.custom.get(&format!("{plural}.{group}"))?.served.first().cloned()
    }

    fn customs_of(&self, group: &str) -> impl Iterator<Item = &Arc<CustomKinds>> {
        self.groups.get(group).into_iter().flatten().filter_map(|name| self.custom.get(name))
    }

    pub(crate) fn custom(&self, crd: &str) -> Option<&Arc<CustomKinds>> {
        self.custom.get(crd)
    }

    /// The CRDs of a group.
    pub(crate) fn customs(&self, group: &str) -> impl Iterator<Item = (&String, &Arc<CustomKinds>)> {
        self.groups.get(group).into_iter().flatten().filter_map(|name| Some((name, self.custom.get(name)?)))
    }

    pub(crate) fn has_builtin_group(&self, group: &str) -> bool {
        self.base.kinds.iter().any(|kind| kind.group == group)
    }

    /// The other kinds and versions that show the same objects.
    pub(crate) fn equivalents(&self, kind: &Kind) -> Vec<Arc<Kind>> {
        let other = |other: &&Arc<Kind>| {
            other.storage == kind.storage && (other.group != kind.group || other.version != kind.version)
        };
        match &kind.custom {
            Some(custom) => self
                .custom
                .get(&custom.crd)
                .into_iter()
                .flat_map(|kinds| &kinds.served)
                .filter(other)
                .cloned()
                .collect(),
            None => self.base.kinds.iter().filter(other).cloned().collect(),
        }
    }

    /// With a CRD put in, or taken out (`None`).
    pub(crate) fn with(&self, crd: &str, kinds: Option<CustomKinds>) -> Self {
        let mut custom = (*self.custom).clone();
        match kinds {
            Some(kinds) => custom.insert(crd.to_owned(), Arc::new(kinds)),
            None => custom.remove(crd),
        };
        let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, kinds) in &custom {
            groups.entry(kinds.group.clone()).or_default().push(name.clone());
        }
        let (custom, groups) = (Arc::new(custom), Arc::new(groups));
        Self { custom, groups, generation: self.generation + 1, ..self.clone() }
    }

    /// With an APIService put in, or taken out (`None`).
    pub(crate) fn with_registration(&self, name: &str, registration: Option<Registration>) -> Self {
        let mut registered = (*self.registered).clone();
        match registration.filter(|registration| !self.has_builtin_group(&registration.group)) {
            Some(registration) => registered.insert(name.to_owned(), Arc::new(registration)),
            None => registered.remove(name),
        };
        Self { registered: Arc::new(registered), generation: self.generation + 1, ..self.clone() }
    }

    /// Who else answers for a group and version, before a CRD does.
    pub(crate) fn registered(&self, group: &str, version: &str) -> Option<Arc<Registration>> {
        if self.registered.is_empty() {
            return None;
        }
        self.registered.get(&format!("{version}.{group}")).filter(|registered| registered.remote).cloned()
    }

    /// The core group first, then the others: built-in before custom, each by name, and those of APIServices by their priority.
    pub(crate) fn groups(&self) -> Vec<Group> {
        let mut names: Vec<String> = Vec::new();
        for kind in &self.base.kinds {
            if !names.iter().any(|n| *n == kind.group) {
                names.push(kind.group.to_string());
            }
        }
        names.extend(self.groups.keys().filter(|n| !self.has_builtin_group(n)).cloned());
        let mut others: Vec<_> = self.registered.values().collect();
        others.sort_by_key(|other| (Reverse(other.priority.0), &other.group));
        for other in others {
            if !names.contains(&other.group) {
                names.push(other.group.clone());
            }
        }
        names.into_iter().filter_map(|name| self.find_group(&name)).collect()
    }

    fn group(&self, name: String) -> Group {
        let mut versions: BTreeMap<_, (String, Vec<Arc<Kind>>)> = BTreeMap::new();
        let custom = self.customs_of(&name).flat_map(|custom| &custom.served);
        let mut registered: Vec<_> = self.registered.values().filter(|other| other.group == name).cloned().collect();
        registered.sort_by_key(|other| (Reverse(other.priority.1), version_rank(&other.version)));
        for kind in self.base.kinds.iter().filter(|kind| kind.group == name).chain(custom) {
            match registered.iter().position(|other| other.version == kind.version) {
                Some(at) if registered[at].remote => continue,
                Some(at) => drop(registered.remove(at)),
                None => {}
            }
            let entry = versions.entry(version_rank(&kind.version));
            entry.or_insert_with(|| (kind.version.to_string(), Vec::new())).1.push(Arc::clone(kind));
        }
        Group { name, versions: versions.into_values().collect(), registered }
    }

    pub(crate) fn find_group(&self, name: &str) -> Option<Group> {
        let group = self.group(name.to_owned());
        (!group.versions.is_empty() || !group.registered.is_empty()).then_some(group)
    }

    /// Each kind of namespaced object that is stored, once.
    pub(crate) fn namespaced(&self) -> Vec<Arc<Kind>> {
        let base = self.base.kinds.iter().filter(|k| k.namespaced && !k.review && k.convert.is_none()).cloned();
        let custom = self.custom.values().filter(|c| c.namespaced).filter_map(|c| c.served.first().cloned());
        base.chain(custom).collect()
    }
}
