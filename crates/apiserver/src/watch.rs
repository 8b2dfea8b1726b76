//! Watch: the store's events as a stream of lines, or of frames in protobuf (meta/v1 WatchEvent), with bookmarks, selectors and initial events.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{FutureExt, Stream, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use serde_json::{Value, json};
use store::{Event, KeyValue, Revision, WatchItem};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    body::Media,
    convert,
    kinds::Kind,
    metrics::WatchMetrics,
    negotiate::{Answer, Form},
    path::Query,
    read::{self, Subject, parse_revision},
    rest::served_value,
    server::Server,
    status::{Error, Result},
    table::{self, Column, IncludeObject},
    write::store_error,
};

mod view;

pub(crate) use view::Views;
use view::{Change, Seat, Shape};

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

/// What a watch waits for besides events.
enum Alarm {
    Bookmark,
    End,
}

pub(crate) struct Watcher {
    server: Server,
    seat: Seat,
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
    /// They are looked at when they ring, not with each event.
    alarms: FuturesUnordered<BoxFuture<'static, Alarm>>,
    deadline: Instant,
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
    let deadline = Instant::now() + Duration::from_secs(timeout_s.unwrap_or(TIMEOUT_S).min(TIMEOUT_S_MAX));
    let selector = subject.selector.clone();
    let mut watcher = Watcher {
        server: server.clone(),
        seat: server.state().views.join(kind, &range.start, selector, Shape { form, media }),
        include: read::include_object(query)?,
        columns: if form == Form::Table { kind.columns().into_owned() } else { Vec::new() },
        columns_sent: false,
        counts: server.state().metrics.watch(kind),
        bookmarks: query.flag("allowWatchBookmarks"),
        source: None,
        floor: version.filter(|version| *version > current).unwrap_or_default(),
        ready: VecDeque::new(),
        waiting: Vec::new(),
        alarms: FuturesUnordered::new(),
        deadline,
    };
    let from_now = version.is_none_or(|v| v.0 == 0);
    let after = if initial.unwrap_or(from_now) {
        let listed = read::list(&subject, &Query::default()).await?;
        for kv in &listed.items {
            let line = watcher.initial(kv)?;
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
        match self.seat.media() {
            Media::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
            Media::Json | Media::Yaml => "application/json",
        }
    }

    /// The lines, until the timeout, the end of the server or of the connection, or a history that was lost.
    pub(crate) fn into_stream(
        self,
        draining: CancellationToken,
    ) -> impl Stream<Item = Result<Bytes, std::convert::Infallible>> + Send {
        let (stop, deadline) = (self.server.state().stop.clone(), self.deadline);
        let end = async move {
            tokio::select! {
                () = tokio::time::sleep_until(deadline) => {}
                () = stop.cancelled() => {}
                () = draining.cancelled() => {}
            }
            Alarm::End
        };
        self.alarms.push(Box::pin(end));
        self.set_bookmark_alarm();
        futures::stream::unfold(Box::new(self), |mut watcher| async move {
            let frame = watcher.frame().await?;
            Some((Ok(frame), watcher))
        })
    }

    fn set_bookmark_alarm(&self) {
        if self.bookmarks {
            let at = next_bookmark(self.deadline);
            self.alarms.push(Box::pin(tokio::time::sleep_until(at).map(|()| Alarm::Bookmark)));
        }
    }

    /// The next lines; `None` at the end.
    async fn frame(&mut self) -> Option<Bytes> {
        loop {
            if let Some(first) = self.ready.pop_front() {
                if self.ready.is_empty() {
                    return Some(first);
                }
                let size = first.len() + self.ready.iter().map(Bytes::len).sum::<usize>();
                let mut frame = Vec::with_capacity(size);
                frame.extend_from_slice(&first);
                for line in self.ready.drain(..) {
                    frame.extend_from_slice(&line);
                }
                return Some(frame.into());
            }
            let source = self.source.as_mut()?;
            tokio::select! {
                biased;
                item = source.next() => self.take(item),
                alarm = self.alarms.next() => match alarm {
                    Some(Alarm::Bookmark) => {
                        source.progress();
                        self.set_bookmark_alarm();
                    }
                    Some(Alarm::End) | None => return None,
                },
            }
            self.take_what_is_there();
            for event in std::mem::take(&mut self.waiting) {
                let converted = convert::event(self.seat.kind(), event).await;
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
            Some(WatchItem::Event(event)) if convert::waits(self.seat.kind()) => self.waiting.push(event),
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
        self.ready.extend(self.seat.encoded("ERROR", &error.to_value()));
        self.source = None;
    }

    fn event(&mut self, event: Event) -> Result<Option<Bytes>> {
        if event.revision() <= self.floor {
            return Ok(None);
        }
        let line = if self.seat.form() == Form::Table {
            match self.seat.change(&event)? {
                Some(Change { event, object, revision }) => Some(self.table_line(event, object, revision)?),
                None => None,
            }
        } else {
            self.seat.line(&event)?
        };
        if let Some(line) = &line {
            self.counts.sent(line.len());
        }
        Ok(line)
    }

    /// An object that is there already.
    fn initial(&mut self, kv: &KeyValue) -> Result<Bytes> {
        let line = match self.seat.form() {
            Form::Table => self.table_line("ADDED", kv, kv.modified)?,
            Form::Object | Form::Metadata => self.seat.object_line("ADDED", kv, kv.modified)?,
        };
        self.counts.sent(line.len());
        Ok(line)
    }

    fn table_line(&mut self, event: &str, kv: &KeyValue, revision: Revision) -> Result<Bytes> {
        let kv = KeyValue { modified: revision, ..kv.clone() };
        let object = served_value(self.seat.kind(), &kv)?;
        let table = self.table(&object, revision);
        self.seat.encoded(event, &table)
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
        let (kind, api_version) = match self.seat.form() {
            Form::Object => (self.seat.kind().kind.as_ref(), self.seat.kind().api_version()),
            Form::Metadata => ("PartialObjectMetadata", "meta.k8s.io/v1".to_owned()),
            Form::Table => ("Table", "meta.k8s.io/v1".to_owned()),
        };
        let mut object = json!({"kind": kind, "apiVersion": api_version, "metadata": metadata});
        if self.seat.form() == Form::Table {
            object["columnDefinitions"] = Value::Null;
            object["rows"] = json!([]);
        }
        self.seat.encoded("BOOKMARK", &object)
    }
}
