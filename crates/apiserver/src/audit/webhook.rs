//! Audit events to somebody else's server (`apiserver/plugin/pkg/audit/webhook`, buffered): batches over HTTPS, as EventLists.
//!
//! Nobody waits for it: an event that finds no room is lost and counted, and so is a batch that is refused for good or not taken
//! after some tries.

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinHandle,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{AuditError, BUFFER_BYTES};
use crate::{
    metrics::Metrics,
    webhook::{CallError, Endpoint, ReadFile},
};

/// How events are gathered (kube-apiserver's `--audit-webhook-batch-*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batching {
    /// Events that may wait.
    pub buffer_events: usize,
    /// Events of a batch.
    pub batch_events: usize,
    /// A batch that is not full is sent after this.
    pub wait: Duration,
    /// Before a batch is sent again; each time half as long again.
    pub backoff: Duration,
}

impl Default for Batching {
    fn default() -> Self {
        let (wait, backoff) = (Duration::from_secs(30), Duration::from_secs(10));
        Self { buffer_events: 10_000, batch_events: 400, wait, backoff }
    }
}

const TRIES: u32 = 5;
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// What waits when the server ends is sent in this time, or lost.
const END_MAX: Duration = Duration::from_secs(5);

struct Entry {
    event: Bytes,
    metrics: Arc<Metrics>,
    _room: OwnedSemaphorePermit,
}

/// Takes events for a webhook.
pub struct AuditWebhook {
    sender: mpsc::Sender<Entry>,
    queue: Mutex<Option<(mpsc::Receiver<Entry>, Endpoint)>>,
    room: Arc<Semaphore>,
    batching: Batching,
    ending: CancellationToken,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl AuditWebhook {
    /// `kubeconfig`: the text of one, which lies in `folder`; `read`: reads the files that it names.
    pub fn new(kubeconfig: &str, folder: &Path, read: ReadFile<'_>, batching: Batching) -> Result<Self, AuditError> {
        if batching.buffer_events == 0 || batching.batch_events == 0 || batching.wait.is_zero() {
            return Err(AuditError::Webhook("sizes and waits of batches must be greater than 0".to_owned()));
        }
        let endpoint = Endpoint::of_kubeconfig(kubeconfig, folder, read).map_err(AuditError::Webhook)?;
        let (sender, receiver) = mpsc::channel(batching.buffer_events);
        Ok(Self {
            sender,
            queue: Mutex::new(Some((receiver, endpoint))),
            room: Arc::new(Semaphore::new(BUFFER_BYTES)),
            batching,
            ending: CancellationToken::new(),
            task: Mutex::default(),
        })
    }

    /// Begins to send; once.
    pub(super) fn start(&self) {
        let Some((queue, endpoint)) = self.queue.lock().take() else { return };
        let work = run(queue, endpoint, self.batching, self.ending.clone());
        *self.task.lock() = Some(tokio::spawn(work));
    }

    /// False: there is no room.
    pub(super) fn write(&self, event: Bytes, metrics: &Arc<Metrics>) -> bool {
        let bytes = u32::try_from(event.len()).unwrap_or(u32::MAX);
        let Ok(room) = Arc::clone(&self.room).try_acquire_many_owned(bytes) else { return false };
        self.sender.try_send(Entry { event, metrics: Arc::clone(metrics), _room: room }).is_ok()
    }

    /// Sends what waits, and ends.
    pub(super) async fn close(&self) {
        self.ending.cancel();
        let task = self.task.lock().take();
        if let Some(task) = task
            && let Err(error) = task.await
        {
            tracing::error!(%error, "audit events that waited for their webhook were lost");
        }
    }
}

async fn run(mut queue: mpsc::Receiver<Entry>, endpoint: Endpoint, batching: Batching, ending: CancellationToken) {
    let mut batch: Vec<Entry> = Vec::new();
    while !ending.is_cancelled() {
        let first = tokio::select! {
            first = queue.recv() => first,
            () = ending.cancelled() => break,
        };
        let Some(first) = first else { break };
        batch.push(first);
        let until = Instant::now() + batching.wait;
        while batch.len() < batching.batch_events {
            tokio::select! {
                next = queue.recv() => match next {
                    Some(entry) => batch.push(entry),
                    None => break,
                },
                () = tokio::time::sleep_until(until) => break,
                () = ending.cancelled() => break,
            }
        }
        if !ending.is_cancelled() {
            deliver(&endpoint, std::mem::take(&mut batch), batching.backoff, &ending).await;
        }
    }
    let last = async {
        loop {
            while batch.len() < batching.batch_events
                && let Ok(entry) = queue.try_recv()
            {
                batch.push(entry);
            }
            if batch.is_empty() {
                return;
            }
            deliver(&endpoint, std::mem::take(&mut batch), batching.backoff, &ending).await;
        }
    };
    if tokio::time::timeout(END_MAX, last).await.is_err() {
        tracing::error!("audit events that waited for their webhook were lost: it does not answer");
    }
}

/// Sends a batch, more than once if it must be.
async fn deliver(endpoint: &Endpoint, batch: Vec<Entry>, backoff: Duration, ending: &CancellationToken) {
    let body = list(&batch);
    let mut wait = backoff;
    for attempt in 1.. {
        let why = match attempted(endpoint, body.clone()).await {
            Ok(()) => return,
            Err((why, passing)) => {
                if passing && attempt < TRIES && !ending.is_cancelled() {
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        () = ending.cancelled() => {}
                    }
                    wait = wait.mul_f64(1.5);
                    continue;
                }
                why
            }
        };
        for entry in &batch {
            entry.metrics.audited(false);
        }
        tracing::error!(why, lost = batch.len(), "audit events are not taken by their webhook");
        return;
    }
}

/// Why a batch was not taken, and whether that may pass.
async fn attempted(endpoint: &Endpoint, body: Vec<u8>) -> Result<(), (String, bool)> {
    match tokio::time::timeout(CALL_TIMEOUT, endpoint.post(None, body, None, ANSWER_BYTES_MAX)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => {
            let passing = match &error {
                CallError::Exchange(_) => true,
                CallError::Status { code, .. } => *code == 429 || *code >= 500,
            };
            Err((error.text(&endpoint.url(None)), passing))
        }
        Err(_) => Err((format!("no answer within {} s", CALL_TIMEOUT.as_secs()), true)),
    }
}

fn list(batch: &[Entry]) -> Vec<u8> {
    let mut body = br#"{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":["#.to_vec();
    for (i, entry) in batch.iter().enumerate() {
        if i > 0 {
            body.push(b',');
        }
        body.extend_from_slice(entry.event.trim_ascii_end());
    }
    body.extend_from_slice(b"]}");
    body
}
