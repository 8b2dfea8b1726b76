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

/// Passes that are under way or were put off. In memory only: who starts anew looks anew.
#[derive(Default)]
pub struct Passes(Mutex<HashMap<Whose, (Aim, Pass)>>);

impl Passes {
    pub fn begin(&self, kind: &'static str, key: &Key, aim: Aim) {
        let mut all = self.0.lock();
        let whose = (kind, key.clone());
        let pass = match all.get(&whose) {
            Some((before, pass)) if *before == aim => pass.again(),
            _ => Pass::default(),
        };
        all.insert(whose, (aim, pass));
    }

    /// The pass that is under way.
    pub fn current(&self, kind: &'static str, key: &Key) -> Pass {
        self.0.lock().get(&(kind, key.clone())).map(|(_, pass)| pass.clone()).unwrap_or_default()
    }

    /// Keeps what was seen if the pass is to go on: it was put off, or a question failed in a way that may pass. After everything
    /// else, and a change that failed above all, the cloud is looked at anew.
    pub fn end<T>(&self, kind: &'static str, key: &Key, done: &stop::Result<T>) {
        let goes_on =
            |error: &openstack::Error| error.is_put_off() || (error.is_of_a_read() && error.class().is_transient());
        if !matches!(done, Err(Stop::Cloud(error)) if goes_on(error)) {
            self.0.lock().remove(&(kind, key.clone()));
        }
    }
}
