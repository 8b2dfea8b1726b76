//! What watchers of the same have in common: an event is selected and encoded once for all of them.
//!
//! A view is a range, a selector, a kind in one version, and a form. Whoever comes to an event first encodes it, and it is kept until
//! all others that watch the same view have taken it; those that lag too far behind encode it for themselves. What is not the same for
//! all (tables tell ages, and their columns once), or comes from outside (webhooks that convert), is not shared.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::{Value, json};
use store::{Event, KeyValue, Revision};

use crate::{
    body::Media,
    convert,
    kinds::Kind,
    negotiate::Form,
    protobuf,
    read::{partial_metadata, served_bytes},
    rest::served_value,
    selector::Selector,
    status::{Error, Result},
};

/// Bytes of lines that one view keeps for those that have not taken them.
const VIEW_BYTES_MAX: usize = 1 << 20;
/// And those that all views of a server keep.
const VIEWS_BYTES_MAX: usize = 32 << 20;

/// What a watcher is shown, without what it did when.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    /// The kind's address: it stays its own while the view holds the kind.
    kind: usize,
    range: Bytes,
    selector: Selector,
    shape: Shape,
}

/// How it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Shape {
    pub form: Form,
    pub media: Media,
}

/// The views of one server that somebody watches.
#[derive(Debug, Default)]
pub(crate) struct Views {
    known: Mutex<HashMap<Key, Weak<View>>>,
    kept_bytes: Arc<AtomicUsize>,
}

impl Views {
    /// A seat at the view of `kind` in a `shape` of what lies in the range from `range` on and is selected.
    pub(crate) fn join(&self, kind: &Arc<Kind>, range: &Bytes, selector: Selector, shape: Shape) -> Seat {
        let key = Key { kind: Arc::as_ptr(kind).addr(), range: range.clone(), selector, shape };
        let mut known = self.known.lock();
        if let Some(view) = known.get(&key).and_then(Weak::upgrade) {
            return Seat(view);
        }
        if known.len() == known.capacity() {
            known.retain(|_, view| view.strong_count() > 0);
        }
        let view = Arc::new(View {
            kind: Arc::clone(kind),
            selector: key.selector.clone(),
            shape,
            recent: Mutex::default(),
            kept_bytes: Arc::clone(&self.kept_bytes),
        });
        known.insert(key, Arc::downgrade(&view));
        Seat(view)
    }
}

#[derive(Debug)]
struct View {
    kind: Arc<Kind>,
    selector: Selector,
    shape: Shape,
    recent: Mutex<Recent>,
    /// Of all views.
    kept_bytes: Arc<AtomicUsize>,
}

/// Lines that some watchers have taken and others have not, in the order of revisions.
#[derive(Debug, Default)]
struct Recent {
    lines: VecDeque<Kept>,
    bytes: usize,
}

#[derive(Debug)]
struct Kept {
    event: Event,
    /// None: it is not selected.
    line: Option<Bytes>,
    /// How many are still to take it.
    left: usize,
}

impl Kept {
    fn bytes(&self) -> usize {
        let (value, prev) = match &self.event {
            Event::Put { item, prev } => (item.value.len(), prev.as_ref().map_or(0, |prev| prev.value.len())),
            Event::Delete { prev, .. } => (0, prev.value.len()),
        };
        self.line.as_ref().map_or(0, Bytes::len) + value + prev + self.event.key().len() + size_of::<Self>()
    }
}

/// Whether two events are one. Revisions alone do not tell: a store that was restored counts anew.
fn is_same(a: &Event, b: &Event) -> bool {
    let bytes = |a: &Bytes, b: &Bytes| (a.as_ptr() == b.as_ptr() && a.len() == b.len()) || a == b;
    let items = |a: &KeyValue, b: &KeyValue| {
        a.modified == b.modified && a.created == b.created && bytes(&a.key, &b.key) && bytes(&a.value, &b.value)
    };
    match (a, b) {
        (Event::Put { item: a, prev: None }, Event::Put { item: b, prev: None }) => items(a, b),
        (Event::Put { item: a, prev: Some(c) }, Event::Put { item: b, prev: Some(d) }) => items(a, b) && items(c, d),
        (Event::Delete { revision: a, prev: c }, Event::Delete { revision: b, prev: d }) => a == b && items(c, d),
        _ => false,
    }
}

impl Recent {
    fn position(&self, event: &Event) -> Option<usize> {
        let revision = event.revision();
        let first = self.lines.partition_point(|kept| kept.event.revision() < revision);
        let same = self.lines.range(first..).take_while(|kept| kept.event.revision() == revision);
        same.enumerate().find(|(_, kept)| is_same(&kept.event, event)).map(|(at, _)| first + at)
    }

    /// What another has made of the event.
    fn take(&mut self, event: &Event, total: &AtomicUsize) -> Option<Option<Bytes>> {
        let at = self.position(event)?;
        let kept = self.lines.get_mut(at)?;
        kept.left -= 1;
        if kept.left > 0 {
            return Some(kept.line.clone());
        }
        self.drop_at(at, total).map(|kept| kept.line)
    }

    fn drop_at(&mut self, at: usize, total: &AtomicUsize) -> Option<Kept> {
        let kept = self.lines.remove(at)?;
        self.bytes -= kept.bytes();
        total.fetch_sub(kept.bytes(), Ordering::Relaxed);
        Some(kept)
    }

    /// Keeps a line for `left` others, and lets go of the oldest ones if there are too many.
    fn keep(&mut self, event: &Event, line: Option<Bytes>, left: usize, total: &AtomicUsize) {
        let kept = Kept { event: event.clone(), line, left };
        let bytes = kept.bytes();
        if bytes > VIEW_BYTES_MAX || left == 0 || self.position(event).is_some() {
            return;
        }
        while self.bytes + bytes > VIEW_BYTES_MAX && self.drop_at(0, total).is_some() {}
        if total.load(Ordering::Relaxed) + bytes > VIEWS_BYTES_MAX {
            return;
        }
        let at = self.lines.partition_point(|other| other.event.revision() <= kept.event.revision());
        self.lines.insert(at, kept);
        self.bytes += bytes;
        total.fetch_add(bytes, Ordering::Relaxed);
    }

    fn clear(&mut self, total: &AtomicUsize) {
        total.fetch_sub(self.bytes, Ordering::Relaxed);
        *self = Self::default();
    }
}

/// One watcher's place at a view.
#[derive(Debug)]
pub(crate) struct Seat(Arc<View>);

impl Seat {
    pub(super) fn kind(&self) -> &Arc<Kind> {
        &self.0.kind
    }

    pub(super) fn form(&self) -> Form {
        self.0.shape.form
    }

    pub(super) fn media(&self) -> Media {
        self.0.shape.media
    }

    /// The event as a line; none: it is not selected, before or after. Not for tables.
    pub(super) fn line(&self, event: &Event) -> Result<Option<Bytes>> {
        let view = &*self.0;
        let others = Arc::strong_count(&self.0) - 1;
        if others == 0 || convert::waits(&view.kind) {
            return self.encode(event);
        }
        if let Some(line) = view.recent.lock().take(event, &view.kept_bytes) {
            return Ok(line);
        }
        let line = self.encode(event)?;
        view.recent.lock().keep(event, line.clone(), others, &view.kept_bytes);
        Ok(line)
    }

    fn encode(&self, event: &Event) -> Result<Option<Bytes>> {
        let Some(change) = Change::of(event, &self.0.selector)? else { return Ok(None) };
        self.object_line(change.event, change.object, change.revision).map(Some)
    }

    /// An object that is not a table's, as a line.
    pub(super) fn object_line(&self, event: &str, kv: &KeyValue, revision: Revision) -> Result<Bytes> {
        let View { kind, shape, .. } = &*self.0;
        if (shape.form, shape.media) == (Form::Object, Media::Json) {
            let mut out = Vec::with_capacity(kv.value.len() + 96);
            out.extend_from_slice(b"{\"type\":\"");
            out.extend_from_slice(event.as_bytes());
            out.extend_from_slice(b"\",\"object\":");
            served_bytes(kind, &kv.value, revision, &mut out)?;
            out.extend_from_slice(b"}\n");
            return Ok(out.into());
        }
        let kv = KeyValue { modified: revision, ..kv.clone() };
        let mut object = served_value(kind, &kv)?;
        if shape.form == Form::Metadata {
            object = partial_metadata(&mut object);
        }
        self.encoded(event, &object)
    }

    /// An event of the watch in its media type.
    pub(super) fn encoded(&self, event: &str, object: &Value) -> Result<Bytes> {
        if self.media() == Media::Protobuf {
            let frame = protobuf::write::event(event, object);
            return frame
                .map(Bytes::from)
                .ok_or_else(|| Error::internal("an object of the watch has no protobuf form"));
        }
        Ok(format!("{}\n", json!({"type": event, "object": object})).into())
    }

    /// The event as those see it who watch this.
    pub(super) fn change<'a>(&self, event: &'a Event) -> Result<Option<Change<'a>>> {
        Change::of(event, &self.0.selector)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // Whoever goes takes nothing any more: what waits for them would stay.
        self.0.recent.lock().clear(&self.0.kept_bytes);
    }
}

/// An event under a selector: an object that comes to satisfy it is added, one that ceases to is deleted.
pub(super) struct Change<'a> {
    pub event: &'static str,
    pub object: &'a KeyValue,
    pub revision: Revision,
}

impl<'a> Change<'a> {
    fn of(event: &'a Event, selector: &Selector) -> Result<Option<Self>> {
        let (event, object, revision) = match event {
            Event::Put { item, prev } => {
                let now = selector.matches(&item.value)?;
                let before = match prev {
                    Some(prev) => selector.matches(&prev.value)?,
                    None => false,
                };
                match (before, now, prev) {
                    (false, true, _) => ("ADDED", item, item.modified),
                    (true, true, _) => ("MODIFIED", item, item.modified),
                    (true, false, Some(prev)) => ("DELETED", prev, item.modified),
                    _ => return Ok(None),
                }
            }
            Event::Delete { revision, prev } => {
                if !selector.matches(&prev.value)? {
                    return Ok(None);
                }
                ("DELETED", prev, *revision)
            }
        };
        Ok(Some(Self { event, object, revision }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{catalog::Catalog, kinds::builtin::Profile, selector::Labels};

    const JSON: Shape = Shape { form: Form::Object, media: Media::Json };

    fn config_maps() -> Arc<Kind> {
        Catalog::new(Profile::Management).find("", "v1", "configmaps").unwrap()
    }

    fn put(kind: &Kind, name: &str, labels: &str, revision: u64) -> Event {
        let value = format!("{}\"name\":\"{name}\",\"labels\":{labels}}}}}", kind.storage_head);
        let item = KeyValue {
            key: format!("/registry/core/configmaps/a/{name}").into(),
            value: value.into(),
            created: Revision(revision),
            modified: Revision(revision),
        };
        Event::Put { item, prev: None }
    }

    fn seats(views: &Views, count: usize) -> Vec<Seat> {
        let kind = config_maps();
        (0..count).map(|_| views.join(&kind, &Bytes::from("/a"), Selector::default(), JSON)).collect()
    }

    #[test]
    fn a_line_is_made_once_and_forgotten_when_all_have_it() {
        let views = Views::default();
        let seats = seats(&views, 3);
        let event = put(seats[0].kind(), "x", "{}", 7);
        let lines: Vec<_> = seats.iter().map(|seat| seat.line(&event).unwrap().unwrap()).collect();
        assert!(lines.iter().all(|line| line.as_ptr() == lines[0].as_ptr()));
        assert!(lines[0].starts_with(b"{\"type\":\"ADDED\",\"object\":{\"kind\":\"ConfigMap\""));
        assert_eq!(views.kept_bytes.load(Ordering::Relaxed), 0);
        assert!(seats[0].0.recent.lock().lines.is_empty());
    }

    #[test]
    fn views_that_differ_in_anything_share_nothing() {
        let views = Views::default();
        let kind = config_maps();
        let selector = Selector { labels: Labels::parse("a=1").unwrap(), ..Selector::default() };
        let range = Bytes::from("/a");
        let all: Vec<_> = [
            views.join(&kind, &range, Selector::default(), JSON),
            views.join(&kind, &range, Selector::default(), Shape { form: Form::Metadata, ..JSON }),
            views.join(&kind, &range, Selector::default(), Shape { media: Media::Protobuf, ..JSON }),
            views.join(&kind, &range, selector.clone(), JSON),
            views.join(&kind, &Bytes::from("/b"), Selector::default(), JSON),
        ]
        .into();
        for (i, seat) in all.iter().enumerate() {
            assert!(all[..i].iter().all(|other| !Arc::ptr_eq(&other.0, &seat.0)), "{i}");
        }
        let again = views.join(&kind, &range, selector, JSON);
        assert!(Arc::ptr_eq(&again.0, &all[3].0));
        let event = put(&kind, "x", r#"{"a":"2"}"#, 7);
        assert_eq!((again.line(&event).unwrap(), all[3].line(&event).unwrap()), (None, None));
        assert!(all[0].line(&event).unwrap().is_some());
    }

    #[test]
    fn a_view_keeps_no_more_than_its_limit_and_nothing_for_those_who_left() {
        let views = Views::default();
        let mut seats = seats(&views, 2);
        let long = format!("{{\"a\":\"{}\"}}", "x".repeat(VIEW_BYTES_MAX / 8));
        for revision in 1..=20 {
            let event = put(seats[0].kind(), "x", &long, revision);
            seats[0].line(&event).unwrap();
            assert!(seats[0].0.recent.lock().bytes <= VIEW_BYTES_MAX);
        }
        assert_eq!(seats[0].0.recent.lock().lines.len(), 3, "each counts with its line and its value");
        // Who comes late makes its own of what is gone.
        let first = put(seats[0].kind(), "x", &long, 1);
        assert!(seats[1].line(&first).unwrap().is_some());
        seats.pop();
        assert!(seats[0].0.recent.lock().lines.is_empty() && views.kept_bytes.load(Ordering::Relaxed) == 0);
    }

    #[test]
    fn all_views_together_keep_no_more_than_their_limit() {
        let views = Views::default();
        let seats = seats(&views, 2);
        views.kept_bytes.store(VIEWS_BYTES_MAX, Ordering::Relaxed);
        let event = put(seats[0].kind(), "x", "{}", 1);
        assert!(seats[0].line(&event).unwrap().is_some() && seats[1].line(&event).unwrap().is_some());
        assert!(seats[0].0.recent.lock().lines.is_empty());
        views.kept_bytes.store(0, Ordering::Relaxed);
    }

    #[test]
    fn another_event_of_the_same_revision_is_not_taken_for_the_first() {
        let views = Views::default();
        let seats = seats(&views, 2);
        let (one, other) = (put(seats[0].kind(), "x", "{}", 1), put(seats[0].kind(), "x", r#"{"a":"b"}"#, 1));
        assert_ne!(seats[0].line(&one).unwrap(), seats[1].line(&other).unwrap());
    }

    #[test]
    fn views_that_nobody_watches_are_forgotten() {
        let views = Views::default();
        let kind = config_maps();
        for number in 0..10_000 {
            views.join(&kind, &format!("/{number}").into(), Selector::default(), JSON);
        }
        assert!(views.known.lock().len() < 1_000);
    }
}
