//! What was fetched, kept for a while: one fetch for all that ask at once, and no more than so many bytes.

use std::{collections::HashMap, hash::Hash, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{sync::OnceCell, time::Instant};

use super::error::Error;

/// Values by key. Cheap to share; `V` is an `Arc` or as cheap.
pub struct Cache<K, V, E = Error> {
    /// How long a value is what the repository has.
    life: Duration,
    /// What all values may weigh, in bytes.
    bytes_max: usize,
    state: Mutex<State<K, V, E>>,
}

struct State<K, V, E> {
    kept: HashMap<K, Kept<V>>,
    /// One for each key that is being fetched: what comes of it.
    fetches: HashMap<K, Arc<OnceCell<Result<V, E>>>>,
    bytes: usize,
}

struct Kept<V> {
    value: V,
    bytes: usize,
    fetched: Instant,
    used: Instant,
}

impl<K: Clone + Eq + Hash, V: Clone, E: Clone> Cache<K, V, E> {
    pub fn new(life: Duration, bytes_max: usize) -> Self {
        let state = State { kept: HashMap::new(), fetches: HashMap::new(), bytes: 0 };
        Self { life, bytes_max, state: Mutex::new(state) }
    }

    /// What is kept, or what `fetch` brings: a value and its weight. It is given what is kept beyond its life, which may be what
    /// the repository still has. Others that ask for the key meanwhile wait, and get what it brings, also if that is an error:
    /// else those who wait for a host that hangs would each wait in turn. The next one tries again.
    pub async fn get(&self, key: &K, fetch: impl AsyncFnOnce(Option<V>) -> Result<(V, usize), E>) -> Result<V, E> {
        if let Some(value) = self.kept(key) {
            return Ok(value);
        }
        let shared = Arc::clone(self.state.lock().fetches.entry(key.clone()).or_default());
        let done = shared.get_or_init(async || match self.kept(key) {
            Some(value) => Ok(value),
            None => fetch(self.old(key)).await.map(|(value, bytes)| {
                self.keep(key.clone(), value.clone(), bytes);
                value
            }),
        });
        let done = done.await.clone();
        let mut state = self.state.lock();
        if state.fetches.get(key).is_some_and(|own| Arc::ptr_eq(own, &shared)) {
            state.fetches.remove(key);
        }
        done
    }

    fn kept(&self, key: &K) -> Option<V> {
        let now = Instant::now();
        let mut state = self.state.lock();
        let kept = state.kept.get_mut(key).filter(|kept| now.duration_since(kept.fetched) < self.life)?;
        kept.used = now;
        Some(kept.value.clone())
    }

    fn old(&self, key: &K) -> Option<V> {
        self.state.lock().kept.get(key).map(|kept| kept.value.clone())
    }

    fn keep(&self, key: K, value: V, bytes: usize) {
        if bytes > self.bytes_max {
            return;
        }
        let now = Instant::now();
        let mut state = self.state.lock();
        state.bytes += bytes;
        if let Some(before) = state.kept.insert(key, Kept { value, bytes, fetched: now, used: now }) {
            state.bytes -= before.bytes;
        }
        // What nobody has used for longest goes. Few are kept, so that a search costs nothing.
        while state.bytes > self.bytes_max {
            let oldest = state.kept.iter().min_by_key(|(_, kept)| kept.used).map(|(key, _)| key.clone());
            let Some(gone) = oldest.and_then(|key| state.kept.remove(&key)) else { break };
            state.bytes -= gone.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn many_that_ask_at_once_cause_one_fetch() {
        let (cache, fetches) = (Cache::new(Duration::from_secs(60), 100), AtomicUsize::new(0));
        let ask = || {
            cache.get(&"a", async |_| {
                tokio::time::sleep(Duration::from_secs(1)).await;
                fetches.fetch_add(1, Ordering::Relaxed);
                Ok::<_, Infallible>((7, 10))
            })
        };
        let all = futures::future::join_all((0..50).map(|_| ask())).await;
        assert!(all.iter().all(|found| *found == Ok(7)));
        assert_eq!(fetches.load(Ordering::Relaxed), 1);
        assert!(cache.state.lock().fetches.is_empty());
        tokio::time::advance(Duration::from_secs(61)).await;
        ask().await.unwrap();
        assert_eq!(fetches.load(Ordering::Relaxed), 2, "what is old is fetched anew");
        tokio::time::advance(Duration::from_secs(61)).await;
        let old = cache.get(&"a", async |old| Ok::<_, Infallible>((old.unwrap_or_default() + 1, 10))).await;
        assert_eq!(old, Ok(8), "who fetches is given what there was");
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_wait_for_a_fetch_that_fails_fail_with_it() {
        let (cache, fetches) = (Cache::<_, (), _>::new(Duration::from_secs(60), 100), AtomicUsize::new(0));
        let ask = || {
            cache.get(&"a", async |_| {
                tokio::time::sleep(Duration::from_secs(30)).await;
                fetches.fetch_add(1, Ordering::Relaxed);
                Err("it hangs")
            })
        };
        let all = futures::future::join_all((0..50).map(|_| ask())).await;
        assert!(all.iter().all(|found| *found == Err("it hangs")));
        assert_eq!(fetches.load(Ordering::Relaxed), 1);
        // One that is given up is taken over by the next.
        let given_up = tokio::time::timeout(Duration::from_secs(1), ask());
        let (given_up, other) = tokio::join!(given_up, ask());
        assert!(given_up.is_err() && other.is_err());
        assert_eq!(fetches.load(Ordering::Relaxed), 2);
        assert!(cache.state.lock().fetches.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn errors_are_not_kept() {
        let cache = Cache::new(Duration::from_secs(60), 100);
        assert_eq!(cache.get(&1, async |_| Err::<((), usize), _>("no")).await, Err("no"));
        assert_eq!(cache.get(&1, async |_| Ok::<_, &str>(((), 1))).await, Ok(()));
        assert!(cache.state.lock().fetches.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_not_used_for_longest_makes_room() {
        let cache = Cache::new(Duration::from_secs(60), 20);
        for key in [1, 2, 1, 3] {
            tokio::time::advance(Duration::from_secs(1)).await;
            cache.get(&key, async |_| Ok::<_, Infallible>((key, 10))).await.unwrap();
        }
        assert_eq!([1, 2, 3].map(|key| cache.kept(&key)), [Some(1), None, Some(3)]);
        cache.get(&4, async |_| Ok::<_, Infallible>((4, 21))).await.unwrap();
        assert_eq!([1, 3, 4].map(|key| cache.kept(&key)), [Some(1), Some(3), None], "too large to be kept");
        assert_eq!(cache.state.lock().bytes, 20);
    }
}
