//! Values encrypted at rest (apiserver.config.k8s.io/v1 EncryptionConfiguration), at the border to the store: what lies in the
//! engine is sealed, everybody above sees what was written. Values of other kinds pass as they are.
//!
//! Providers: `aesgcm` (AES-128/192/256-GCM with random nonces; rotate a key before some 2^32 writes) and `identity`. The first
//! provider's first key writes, all read. Left out and refused: `aescbc` (not authenticated), `secretbox` and `kms`. A value is
//! bound to its key in the store, so that none can be put in another's place.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use async_trait::async_trait;
use aws_lc_rs::{
    aead::{Aad, LessSafeKey, NONCE_LEN, Nonce},
    rand::{SecureRandom, SystemRandom},
};
use bytes::Bytes;
use futures::Stream;
use parking_lot::RwLock;
use store::{
    At, Commit, Event, Guard, KeyValue, Op, Page, Range, Revision, SharedStore, Store, Watch, WatchItem, watch,
};

use crate::kinds::split_key;

mod config;

pub use config::EncryptionError;

/// How every sealed value begins; the version of the format, the key's name and a colon follow.
const SEALED: &[u8] = b"k8s:enc:";
const AESGCM: &[u8] = b"k8s:enc:aesgcm:v1:";
/// Keys of one configuration.
pub(crate) const KEYS_MAX: usize = 100;

struct Key {
    name: String,
    key: LessSafeKey,
}

enum Provider {
    Identity,
    AesGcm(Vec<Key>),
}

/// `group` and `plural` that providers are for; `*` is any.
#[derive(Debug, PartialEq, Eq)]
struct Resource {
    group: String,
    plural: String,
}

struct Rule {
    resources: Vec<Resource>,
    providers: Vec<Provider>,
}

/// What is encrypted with which keys; may be replaced while the server runs.
pub struct Encryption {
    rules: RwLock<Arc<Vec<Rule>>>,
}

impl Encryption {
    /// `config`: YAML or JSON of an EncryptionConfiguration.
    pub fn new(config: &str) -> Result<Arc<Self>, EncryptionError> {
        Ok(Arc::new(Self { rules: RwLock::new(Arc::new(config::parse(config)?)) }))
    }

    /// Takes a new configuration; the old one stays if that is wrong.
    pub fn replace(&self, config: &str) -> Result<(), EncryptionError> {
        let rules = Arc::new(config::parse(config)?);
        *self.rules.write() = rules;
        Ok(())
    }

    fn none() -> Arc<Self> {
        Arc::new(Self { rules: RwLock::default() })
    }
}

impl Resource {
    fn covers(&self, group: &str, plural: &str) -> bool {
        (self.group == "*" || self.group == group) && (self.plural == "*" || self.plural == plural)
    }
}

/// Who seals the values of a key; none: nobody.
fn providers<'a>(rules: &'a [Rule], key: &[u8]) -> &'a [Provider] {
    let Some((group, plural, ..)) = split_key(key) else { return &[] };
    let group = if group == "core" { "" } else { group };
    let rule = rules.iter().find(|rule| rule.resources.iter().any(|resource| resource.covers(group, plural)));
    rule.map_or(&[], |rule| &rule.providers)
}

fn seal(rules: &[Rule], key: &[u8], value: Bytes) -> store::Result<Bytes> {
    let Some(Provider::AesGcm(keys)) = providers(rules, key).first() else { return Ok(value) };
    let Some(first) = keys.first() else { return Ok(value) };
    let failed = || unreadable(key, "it could not be encrypted");
    let mut nonce = [0; NONCE_LEN];
    SystemRandom::new().fill(&mut nonce).map_err(|_| failed())?;
    let mut body = value.to_vec();
    let tag = first.key.seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(key), &mut body);
    let tag = tag.map_err(|_| failed())?;
    Ok([AESGCM, first.name.as_bytes(), b":", &nonce, &body, tag.as_ref()].concat().into())
}

fn unreadable(key: &[u8], why: &str) -> store::Error {
    store::Error::Unreadable { key: String::from_utf8_lossy(key).into_owned(), why: why.to_owned() }
}

fn open(rules: &[Rule], key: &[u8], value: Bytes) -> store::Result<Bytes> {
    if !value.starts_with(SEALED) {
        let providers = providers(rules, key);
        // Plain values may be read where nothing is encrypted, or where it is said that they may.
        if providers.is_empty() || providers.iter().any(|provider| matches!(provider, Provider::Identity)) {
            return Ok(value);
        }
        return Err(unreadable(
            key,
            "it is not encrypted, and provider identity is not in the encryption configuration",
        ));
    }
    let Some(rest) = value.strip_prefix(AESGCM) else {
        return Err(unreadable(key, "it is encrypted in a way that this server does not know"));
    };
    let Some(colon) = rest.iter().position(|byte| *byte == b':') else {
        return Err(unreadable(key, "it is encrypted and cut off"));
    };
    let (name, sealed) = (&rest[..colon], &rest[colon + 1..]);
    let keys = providers(rules, key).iter().filter_map(|provider| match provider {
        Provider::AesGcm(keys) => Some(keys),
        Provider::Identity => None,
    });
    let shown = String::from_utf8_lossy(name);
    let mut found = false;
    for key_of_name in keys.flatten().filter(|key| key.name.as_bytes() == name) {
        found = true;
        let Some((nonce, body)) = sealed.split_at_checked(NONCE_LEN) else { continue };
        let Ok(nonce) = Nonce::try_assume_unique_for_key(nonce) else { continue };
        let mut body = body.to_vec();
        if let Ok(plain) = key_of_name.key.open_in_place(nonce, Aad::from(key), &mut body) {
            let length = plain.len();
            body.truncate(length);
            return Ok(body.into());
        }
    }
    Err(unreadable(
        key,
        &match found {
            true => format!(
                "key {shown:?} of aesgcm does not open it: it is another key than then, or the value was changed"
            ),
            false => {
                format!("it is encrypted with key {shown:?} of aesgcm, which is not in the encryption configuration")
            }
        },
    ))
}

/// Whether a value would be written otherwise today.
fn is_stale(rules: &[Rule], key: &[u8], value: &[u8]) -> bool {
    match providers(rules, key).first() {
        Some(Provider::AesGcm(keys)) => {
            let name = keys.first().map(|key| key.name.as_str()).unwrap_or_default();
            let rest = value.strip_prefix(AESGCM).and_then(|rest| rest.strip_prefix(name.as_bytes()));
            rest.is_none_or(|rest| !rest.starts_with(b":"))
        }
        _ => value.starts_with(SEALED),
    }
}

/// A store whose values are sealed.
pub(crate) struct Sealed {
    store: SharedStore,
    encryption: Arc<Encryption>,
}

impl Sealed {
    pub(crate) fn new(store: SharedStore, encryption: Option<Arc<Encryption>>) -> Self {
        Self { store, encryption: encryption.unwrap_or_else(Encryption::none) }
    }

    fn rules(&self) -> Arc<Vec<Rule>> {
        Arc::clone(&self.encryption.rules.read())
    }

    /// Whether what lies at a key is to be written again even if it stays the same: its key is to be replaced.
    pub(crate) async fn is_stale(&self, key: &str) -> store::Result<bool> {
        let rules = self.rules();
        if rules.is_empty() {
            return Ok(false);
        }
        let page = self.store.range(Range::key(key.to_owned()), At::Latest, 1).await?;
        Ok(page.items.first().is_some_and(|kv| is_stale(&rules, &kv.key, &kv.value)))
    }
}

fn opened(rules: &[Rule], mut kv: KeyValue) -> store::Result<KeyValue> {
    kv.value = open(rules, &kv.key, kv.value)?;
    Ok(kv)
}

#[async_trait]
impl Store for Sealed {
    async fn range(&self, range: Range, at: At, limit: usize) -> store::Result<Page> {
        let mut page = self.store.range(range, at, limit).await?;
        let rules = self.rules();
        for kv in &mut page.items {
            kv.value = open(&rules, &kv.key, std::mem::take(&mut kv.value))?;
        }
        Ok(page)
    }

    async fn commit(&self, guard: Guard, mut ops: Vec<Op>) -> store::Result<Commit> {
        let rules = self.rules();
        if !rules.is_empty() {
            for op in &mut ops {
                if let Op::Put { key, value } = op {
                    *value = seal(&rules, key, std::mem::take(value))?;
                }
            }
        }
        Ok(match self.store.commit(guard, ops).await? {
            Commit::Conflict { key, current: Some(current) } => {
                // Who lost is told who won; a value that cannot be read is told when it is read.
                let current = opened(&rules, current).ok();
                Commit::Conflict { key, current }
            }
            other => other,
        })
    }

    fn watch(&self, range: Range, after: Revision) -> store::Result<Watch> {
        let watch = self.store.watch(range, after)?;
        Ok(Watch::new(Reader { watch, encryption: Arc::clone(&self.encryption) }))
    }

    async fn reach(&self, revision: Revision) -> store::Result<()> {
        self.store.reach(revision).await
    }

    async fn compact(&self, below: Revision) -> store::Result<()> {
        self.store.compact(below).await
    }

    fn revision(&self) -> Revision {
        self.store.revision()
    }

    fn compacted(&self) -> Revision {
        self.store.compacted()
    }

    fn size_bytes(&self) -> u64 {
        self.store.size_bytes()
    }
}

struct Reader {
    watch: Watch,
    encryption: Arc<Encryption>,
}

impl watch::Source for Reader {
    fn progress(&self) {
        self.watch.progress();
    }
}

/// A value that cannot be opened stays sealed: whoever shows it finds that it is no object, and ends the watch with an error.
fn shown(rules: &[Rule], kv: KeyValue) -> KeyValue {
    let sealed = kv.clone();
    opened(rules, kv).unwrap_or_else(|error| {
        tracing::error!(%error, "an event cannot be shown");
        sealed
    })
}

impl Stream for Reader {
    type Item = WatchItem;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<WatchItem>> {
        let item = std::task::ready!(Pin::new(&mut self.watch).poll_next(cx));
        let Some(WatchItem::Event(event)) = item else { return Poll::Ready(item) };
        let rules = Arc::clone(&self.encryption.rules.read());
        Poll::Ready(Some(WatchItem::Event(match event {
            Event::Put { item, prev } => {
                Event::Put { item: shown(&rules, item), prev: prev.map(|prev| shown(&rules, prev)) }
            }
            Event::Delete { revision, prev } => Event::Delete { revision, prev: shown(&rules, prev) },
        })))
    }
}

#[cfg(test)]
mod tests;
