//! Reconciles that end soon although the cloud is slow, and go on where they were put off.

use std::collections::HashMap;

use control::Key;
use openstack::Pass;
use parking_lot::Mutex;

use super::stop::{self, Stop};

/// What is done for an object: making it and deleting it never share what they have seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aim {
    Ensure,
    Delete,
}

/// A kind, and an object of it.
type Whose = (&'static str, Key);

/// What a pass is for: its aim, and whether it looks for what was made twice.
type For = (Aim, bool);

/// Passes that are under way or were put off. In memory only: who starts anew looks anew.
#[derive(Default)]
pub struct Passes(Mutex<HashMap<Whose, (For, Pass)>>);

impl Passes {
    /// Who looks for what was made twice uses no answers from before it began to.
    pub fn begin(&self, kind: &'static str, key: &Key, aim: Aim, doubts: bool) {
        let mut all = self.0.lock();
        let whose = (kind, key.clone());
        let pass = match all.get(&whose) {
            Some((before, pass)) if *before == (aim, doubts) => pass.again(),
            _ => Pass::default(),
        };
        all.insert(whose, ((aim, doubts), pass));
    }

    /// The pass that is under way.
    pub fn current(&self, kind: &'static str, key: &Key) -> Pass {
        self.0.lock().get(&(kind, key.clone())).map(|(_, pass)| pass.clone()).unwrap_or_default()
    }

    /// Keeps what was seen if the pass is to go on: it was put off, or a question failed in a way that may pass. After everything
    /// else, and a change that failed above all, the cloud is looked at anew.
    pub fn end<T>(&self, kind: &'static str, key: &Key, done: &stop::Result<T>) {
        fn goes_on(stop: &Stop) -> bool {
            match stop {
                Stop::Aside(stop) => goes_on(stop),
                stop => stop.found_nothing(),
            }
        }
        if !done.as_ref().is_err_and(goes_on) {
            self.0.lock().remove(&(kind, key.clone()));
        }
    }
}
