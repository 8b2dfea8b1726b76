//! Who owns whom, by uid; only objects that have owners are in it, and those that wait for their dependents.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::object::OwnerReference;

type Key = Box<[u8]>;
type Uid = Box<str>;

/// Deleted owners that are remembered.
const GONE_MAX: usize = 1024;

#[derive(Default)]
pub(super) struct Graph {
    /// The owners of each object that has some, and whether it holds their deletion up.
    owners: HashMap<Key, Vec<(Uid, bool)>>,
    dependents: HashMap<Uid, HashSet<Key>>,
    /// Objects that are being deleted and wait for their dependents.
    waiting: HashMap<Uid, Key>,
    /// Owners that are known to be gone, the latest last: their kind may have gone with them, so nobody could look.
    gone: VecDeque<Uid>,
    /// Namespaces and CRDs that are being deleted.
    pub terminating: HashSet<String>,
    pub terminating_crds: HashSet<String>,
}

impl Graph {
    /// Takes in an object as it is now. True if its owners are not those that were known.
    pub(super) fn put(&mut self, key: &[u8], uid: &str, owners: &[OwnerReference<'_>], waits: bool) -> bool {
        if waits {
            self.waiting.insert(uid.into(), key.into());
        } else if !self.waiting.is_empty() {
            self.waiting.remove(uid);
        }
        let new: Vec<(Uid, bool)> =
            owners.iter().map(|o| (o.uid.as_ref().into(), o.block_owner_deletion.unwrap_or(false))).collect();
        if self.owners.get(key).map_or(new.is_empty(), |known| *known == new) {
            return false;
        }
        self.forget_owners(key);
        for (owner, _) in &new {
            self.dependents.entry(owner.clone()).or_default().insert(key.into());
        }
        if !new.is_empty() {
            self.owners.insert(key.into(), new);
        }
        true
    }

    /// Takes an object out; its dependents, and those of its owners that wait for their dependents.
    pub(super) fn remove(&mut self, key: &[u8], uid: &str) -> (Vec<Key>, Vec<Key>) {
        self.waiting.remove(uid);
        let owners = self.forget_owners(key);
        let waiting = owners.iter().filter_map(|(owner, _)| self.waiting.get(owner).cloned()).collect();
        let dependents = self.dependents_of(uid);
        if !dependents.is_empty() {
            if self.gone.len() == GONE_MAX {
                self.gone.pop_front();
            }
            self.gone.push_back(uid.into());
        }
        (dependents, waiting)
    }

    /// Whether an object of this uid was there and was deleted, not long ago.
    pub(super) fn is_gone(&self, uid: &str) -> bool {
        self.gone.iter().any(|gone| **gone == *uid)
    }

    fn forget_owners(&mut self, key: &[u8]) -> Vec<(Uid, bool)> {
        let owners = self.owners.remove(key).unwrap_or_default();
        for (owner, _) in &owners {
            if let Some(keys) = self.dependents.get_mut(owner) {
                keys.remove(key);
                if keys.is_empty() {
                    self.dependents.remove(owner);
                }
            }
        }
        owners
    }

    pub(super) fn dependents_of(&self, uid: &str) -> Vec<Key> {
        self.dependents.get(uid).into_iter().flatten().cloned().collect()
    }

    /// Those that must be gone before the owner may go.
    pub(super) fn blocking_dependents_of(&self, uid: &str) -> Vec<Key> {
        let blocks = |key: &&Key| {
            self.owners.get(*key).is_some_and(|owners| owners.iter().any(|(owner, block)| **owner == *uid && *block))
        };
        self.dependents.get(uid).into_iter().flatten().filter(blocks).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(uid: &'static str, block: bool) -> OwnerReference<'static> {
        OwnerReference { uid: uid.into(), block_owner_deletion: Some(block), ..OwnerReference::default() }
    }

    #[test]
    fn the_graph_follows_changes_and_forgets_what_is_gone() {
        let mut graph = Graph::default();
        assert!(!graph.put(b"a", "1", &[], false));
        assert!(graph.put(b"b", "2", &[owner("1", true)], false));
        assert!(!graph.put(b"b", "2", &[owner("1", true)], false));
        assert!(graph.put(b"c", "3", &[owner("1", false)], false));
        assert_eq!(graph.dependents_of("1").len(), 2);
        assert_eq!(graph.blocking_dependents_of("1"), vec![Key::from(&b"b"[..])]);
        graph.put(b"a", "1", &[], true);
        assert_eq!(graph.remove(b"b", "2"), (vec![], vec![Key::from(&b"a"[..])]));
        assert_eq!(graph.remove(b"a", "1"), (vec![Key::from(&b"c"[..])], vec![]));
        assert!(graph.is_gone("1") && !graph.is_gone("2"));
        assert!(graph.put(b"c", "3", &[], false));
        assert!(graph.owners.is_empty() && graph.dependents.is_empty() && graph.waiting.is_empty());
    }

    #[test]
    fn no_more_than_the_limit_of_deleted_owners_is_remembered() {
        let mut graph = Graph::default();
        for i in 0..=GONE_MAX {
            let uid = i.to_string();
            let owner = OwnerReference { uid: uid.clone().into(), ..OwnerReference::default() };
            graph.put(uid.as_bytes(), "", &[owner], false);
            graph.remove(b"", &uid);
        }
        assert!(graph.gone.len() == GONE_MAX && !graph.is_gone("0") && graph.is_gone(&GONE_MAX.to_string()));
    }
}
