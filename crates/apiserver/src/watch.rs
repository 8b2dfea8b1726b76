//! Watch: the store's events as a stream of lines, or of frames in protobuf (meta/v1 WatchEvent), with bookmarks, selectors and initial events.

use std::{collections::VecDeque, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{FutureExt, Stream, StreamExt};
use serde_json::{Value, json};
use store::{Event, KeyValue, Revision, WatchItem};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    body::Media,
    convert,
    kinds::Kind,
    metrics::WatchMetrics,
    negotiate::{Answer, Form},
    path::Query,
    protobuf,
    read::{self, Subject, parse_revision, partial_metadata, served_bytes},
    rest::served_value,
    selector::Selector,
    server::Server,
    status::{Error, Result},
    table::{self, Column, IncludeObject},
    write::store_error,
};

/// A watch without a timeout of its own ends after this.
const TIMEOUT_S: u64 = 3600;
/// Nor does any go on longer.
const TIMEOUT_S_MAX: u64 = 24 * 3600;
/// How often a watcher that allows it learns how far it is.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);
/// And once more so long before the end: it comes back from where it is told to be, however quiet its kind was.
const BOOKMARK_BEFORE_END: Duration = Duration::from_secs(2);
/// Events that are put into one frame if they are there at once.
const FRAME_EVENTS_MAX: usize = 256;

/// Marks the bookmark behind the initial events.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

pub(crate) struct Watcher {
    server: Server,
    kind: Arc<Kind>,
    selector: Selector,
    form: Form,
    media: Media,
    include: IncludeObject,
    columns: Vec<Column>,
    columns_sent: bool,
    counts: WatchMetrics,
    bookmarks: bool,
    source: Option<store::Watch>,
    /// Nothing up to here is shown: a watch may ask for what is yet to come.
    floor: Revision,
    ready: VecDeque<Bytes>,
    /// Events that are converted before they can be shown.
    waiting: Vec<Event>,
    next_bookmark: Pin<Box<Sleep>>,
    deadline: Pin<Box<Sleep>>,
}

/// Opens a watch; what can be refused is refused before the first byte.
pub(crate) async fn open(
    server: &Server,
    kind: &Arc<Kind>,
    namespace: &str,
    query: &Query,
    Answer { form, media, .. }: Answer,
) -> Result<Watcher> {
    let subject = Subject::new(server, kind, namespace, query)?;
    let range = subject.range();
    let timeout_s = query.number("timeoutSeconds")?.and_then(|s| u64::try_from(s).ok()).filter(|s| *s > 0);
    let version = query.text("resourceVersion").map(parse_revision).transpose().map_err(Error::internal_plain)?;
    let initial = query.optional_flag("sendInitialEvents");
    read::reach(server, query).await;
    let current = server.store().revision();
    let end = Instant::now() + Duration::from_secs(timeout_s.unwrap_or(TIMEOUT_S).min(TIMEOUT_S_MAX));
    let mut watcher = Watcher {
        server: server.clone(),
        kind: Arc::clone(kind),
        selector: Selector::default(),
        form,
        media,
        include: read::include_object(query)?,
        columns: if form == Form::Table { kind.columns().into_owned() } else { Vec::new() },
        columns_sent: false,
        counts: server.state().metrics.watch(kind),
        bookmarks: query.flag("allowWatchBookmarks"),
        source: None,
        floor: version.filter(|version| *version > current).unwrap_or_default(),
        ready: VecDeque::new(),
        waiting: Vec::new(),
        next_bookmark: Box::pin(tokio::time::sleep_until(next_bookmark(end))),
        deadline: Box::pin(tokio::time::sleep_until(end)),
    };
    let from_now = version.is_none_or(|v| v.0 == 0);
    let after = if initial.unwrap_or(from_now) {
        let listed = read::list(&subject, &Query::default()).await?;
        for kv in &listed.items {
            let line = watcher.line("ADDED", kv, kv.modified)?;
            watcher.ready.push_back(line);
        }
        if initial == Some(true) && watcher.bookmarks {
            let line = watcher.bookmark(listed.revision, true)?;
            watcher.ready.push_back(line);
        }
        listed.revision
    } else if from_now {
        current
    } else {
        version.unwrap_or(current).min(current)
    };
    watcher.selector = subject.selector;
    match server.store().watch(range, after) {
        Ok(source) => watcher.source = Some(source),
        Err(store::Error::Compacted { requested, compacted }) => watcher.expire(Some((requested, compacted))),
        Err(error) => return Err(store_error(error)),
    }
    Ok(watcher)
}

fn next_bookmark(end: Instant) -> Instant {
    let now = Instant::now();
    let last = end.checked_sub(BOOKMARK_BEFORE_END).filter(|last| *last > now);
    last.map_or(now + BOOKMARK_INTERVAL, |last| last.min(now + BOOKMARK_INTERVAL))
}

impl Watcher {
    pub(crate) fn content_type(&self) -> &'static str {
        match self.media {
            Media::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
            Media::Json | Media::Yaml => "application/json",
        }
    }

    /// The lines, until the timeout, the end of the server or of the connection, or a history that was lost.
    pub(crate) fn into_stream(
        self,
        draining: CancellationToken,
    ) -> impl Stream<Item = Result<Bytes, std::convert::Infallible>> + Send {
        futures::stream::unfold((self, draining), |(mut watcher, draining)| async move {
            let frame = tokio::select! {
                biased;
                frame = watcher.frame() => frame?,
                () = draining.cancelled() => return None,
            };
            Some((Ok(frame), (watcher, draining)))
        })
    }

    /// The next lines; `None` at the end.
    async fn frame(&mut self) -> Option<Bytes> {
        loop {
            if let Some(first) = self.ready.pop_front() {
                if self.ready.is_empty() {
                    return Some(first);
                }
                let mut frame = Vec::from(first);
                for line in self.ready.drain(..) {
                    frame.extend_from_slice(&line);
                }
                return Some(frame.into());
            }
            let source = self.source.as_mut()?;
            let stop = self.server.state().stop.clone();
            tokio::select! {
                biased;
                item = source.next() => self.take(item),
                () = &mut self.next_bookmark => {
                    if self.bookmarks {
                        source.progress();
                    }
                    let next = next_bookmark(self.deadline.deadline());
                    self.next_bookmark.as_mut().reset(next);
                }
                () = &mut self.deadline => return None,
                () = stop.cancelled() => return None,
            }
            self.take_what_is_there();
            for event in std::mem::take(&mut self.waiting) {
                let converted = convert::event(&self.kind, event).await;
                self.show(converted);
            }
        }
    }

    /// Adds what needs no waiting to the frame.
    fn take_what_is_there(&mut self) {
        while self.ready.len() + self.waiting.len() < FRAME_EVENTS_MAX {
            let Some(item) = self.source.as_mut().and_then(|source| source.next().now_or_never()) else { return };
            self.take(item);
        }
    }

    fn take(&mut self, item: Option<WatchItem>) {
        match item {
            None => self.source = None,
            Some(WatchItem::Compacted) => self.expire(None),
            Some(WatchItem::Bookmark(revision)) => {
                self.ready.extend(self.bookmark(revision, false));
            }
            Some(WatchItem::Event(event)) if convert::waits(&self.kind) => self.waiting.push(event),
            Some(WatchItem::Event(event)) => self.show(Ok(event)),
        }
    }

    fn show(&mut self, event: Result<Event>) {
        match event.and_then(|event| self.event(event)) {
            Ok(Some(line)) => self.ready.push_back(line),
            Ok(None) => {}
            Err(error) => {
                self.end(&error);
            }
        }
    }

    fn expire(&mut self, versions: Option<(Revision, Revision)>) {
        let text = match versions {
            Some((requested, compacted)) => format!("too old resource version: {requested} ({compacted})"),
            None => "The resourceVersion for the provided watch is too old.".to_owned(),
        };
        self.end(&Error::expired(text));
    }

    fn end(&mut self, error: &Error) {
        self.ready.extend(self.encoded("ERROR", &error.to_value()));
        self.source = None;
    }

    /// An event as this watcher sees it: an object that comes to satisfy the selector is added, one that ceases to is
    /// deleted.
    fn event(&mut self, event: Event) -> Result<Option<Bytes>> {
        if event.revision() <= self.floor {
            return Ok(None);
        }
        let (kind, object, revision) = match event {
            Event::Put { item, prev } => {
                let now = self.selector.matches(&item.value)?;
                let before = match &prev {
                    Some(prev) => self.selector.matches(&prev.value)?,
                    None => false,
                };
                let revision = item.modified;
                match (before, now, prev) {
                    (false, true, _) => ("ADDED", item, revision),
                    (true, true, _) => ("MODIFIED", item, revision),
                    (true, false, Some(prev)) => ("DELETED", prev, revision),
                    _ => return Ok(None),
                }
            }
            Event::Delete { revision, prev } => {
                if !self.selector.matches(&prev.value)? {
                    return Ok(None);
                }
                ("DELETED", prev, revision)
            }
        };
        self.line(kind, &object, revision).map(Some)
    }

    fn line(&mut self, event: &str, kv: &KeyValue, revision: Revision) -> Result<Bytes> {
        let line = if (self.form, self.media) == (Form::Object, Media::Json) {
            let mut out = Vec::with_capacity(kv.value.len() + 96);
            out.extend_from_slice(format!("{{\"type\":\"{event}\",\"object\":").as_bytes());
            served_bytes(&self.kind, &kv.value, revision, &mut out)?;
            out.extend_from_slice(b"}\n");
            out.into()
        } else {
            let kv = KeyValue { modified: revision, ..kv.clone() };
            let mut object = served_value(&self.kind, &kv)?;
            let view = match self.form {
                Form::Object => object,
                Form::Metadata => partial_metadata(&mut object),
                Form::Table => self.table(&object, revision),
            };
            self.encoded(event, &view)?
        };
        self.counts.sent(line.len());
        Ok(line)
    }

    /// An event of the watch in its media type.
    fn encoded(&self, event: &str, object: &Value) -> Result<Bytes> {
        if self.media == Media::Protobuf {
            let frame = protobuf::write::event(event, object);
            return frame
                .map(Bytes::from)
                .ok_or_else(|| Error::internal("an object of the watch has no protobuf form"));
        }
        Ok(format!("{}\n", json!({"type": event, "object": object})).into())
    }

    /// A table of one row; the columns are told once.
    fn table(&mut self, object: &Value, revision: Revision) -> Value {
        let metadata = json!({"resourceVersion": revision.to_string()});
        let mut table = table::table(&self.columns, &[object], self.include, self.server.now(), metadata);
        if std::mem::replace(&mut self.columns_sent, true) {
            table["columnDefinitions"] = Value::Null;
        }
        table
    }

    fn bookmark(&self, revision: Revision, initial_end: bool) -> Result<Bytes> {
        let mut metadata = json!({"resourceVersion": revision.to_string()});
        if initial_end {
            metadata["annotations"] = json!({INITIAL_EVENTS_END: "true"});
        }
        let (kind, api_version) = match self.form {
            Form::Object => (self.kind.kind.as_ref(), self.kind.api_version()),
            Form::Metadata => ("PartialObjectMetadata", "meta.k8s.io/v1".to_owned()),
            Form::Table => ("Table", "meta.k8s.io/v1".to_owned()),
        };
        let mut object = json!({"kind": kind, "apiVersion": api_version, "metadata": metadata});
        if self.form == Form::Table {
            object["columnDefinitions"] = Value::Null;
            object["rows"] = json!([]);
        }
        self.encoded("BOOKMARK", &object)
    }
}
