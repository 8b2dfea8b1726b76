use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::Stream;

use crate::{KeyValue, Revision};

/// One change of one key. All changes of a commit carry the same revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The key was made (`prev` is none) or written again.
    Put { item: KeyValue, prev: Option<KeyValue> },
    /// The key is gone; `prev` is how it last stood.
    Delete { revision: Revision, prev: KeyValue },
}

impl Event {
    pub fn key(&self) -> &Bytes {
        match self {
            Self::Put { item, .. } => &item.key,
            Self::Delete { prev, .. } => &prev.key,
        }
    }

    pub fn revision(&self) -> Revision {
        match self {
            Self::Put { item, .. } => item.modified,
            Self::Delete { revision, .. } => *revision,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchItem {
    Event(Event),
    /// Every event of the range up to and at this revision has been delivered; answers [`Watch::progress`].
    Bookmark(Revision),
    /// Events were lost to this reader, because it was too slow: the last item. Read the range and watch again.
    Compacted,
}

/// What a store gives as the inside of a [`Watch`].
pub trait Source: Stream<Item = WatchItem> + Send {
    /// Queues one [`WatchItem::Bookmark`] behind the events up to now.
    fn progress(&self);
}

/// The changes to a range: a stream that ends after [`WatchItem::Compacted`], or when the store is closed.
pub struct Watch(Pin<Box<dyn Source>>);

impl Watch {
    pub fn new(source: impl Source + 'static) -> Self {
        Self(Box::pin(source))
    }

    /// Asks for a [`WatchItem::Bookmark`] that says how far this stream is. Requests that were not read yet are merged.
    pub fn progress(&self) {
        self.0.progress();
    }
}

impl Stream for Watch {
    type Item = WatchItem;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<WatchItem>> {
        self.0.as_mut().poll_next(cx)
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watch")
    }
}
