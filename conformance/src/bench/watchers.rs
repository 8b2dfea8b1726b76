//! Events on their way to many watchers.

use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use http::Method;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;

use super::{
    WATCHED,
    load::{self, Ask, Connector, Figure},
    process,
};

/// Who makes the events.
const WRITERS: usize = 8;
/// Watches that are opened at once.
const OPENERS: usize = 16;

/// Creates `events` objects and waits until each of `watchers` has seen them all, in the order of revisions.
pub async fn run(connector: &Connector, watchers: usize, events: usize) -> Result<Figure> {
    let mut bodies = Vec::with_capacity(watchers);
    while bodies.len() < watchers {
        let now = OPENERS.min(watchers - bodies.len());
        let opened = futures::future::join_all((0..now).map(|_| open(connector))).await;
        for body in opened {
            bodies.push(body?);
        }
    }
    let client_before = process::own_cpu_s()?;
    let start = Instant::now();
    let readers: Vec<_> = bodies.into_iter().map(|(sender, body)| tokio::spawn(read(sender, body, events))).collect();
    let writing = load::run(connector, "writes", WRITERS, events, |n| super::create(WATCHED, n)).await?;
    for reader in readers {
        reader.await.context("a watcher")??;
    }
    Ok(Figure {
        name: format!("events to {watchers} watchers"),
        count: events * watchers,
        took: start.elapsed(),
        latencies: writing.latencies,
        server_cpu_s: 0.0,
        client_cpu_s: process::own_cpu_s()? - client_before,
    })
}

/// The connection lives as long as its sender.
async fn open(connector: &Connector) -> Result<(load::Sender, Incoming)> {
    let mut sender = connector.open().await?;
    let path = format!("/api/v1/namespaces/{WATCHED}/configmaps?watch=true&labelSelector=app%3Dbench");
    let body = Ask::new(Method::GET, path, "", Value::Null).send(&mut sender).await.context("open a watch")?;
    Ok((sender, body))
}

async fn read(_sender: load::Sender, mut body: Incoming, events: usize) -> Result<()> {
    const KEY: &[u8] = b"\"resourceVersion\":\"";
    let (mut seen, mut last, mut rest) = (0, 0_u64, Vec::new());
    while seen < events {
        let Some(frame) = body.frame().await else { bail!("a watch ended after {seen} of {events} events") };
        rest.extend_from_slice(frame.context("read a watch")?.data_ref().map_or(&[][..], |data| &data[..]));
        let mut taken = 0;
        while let Some(length) = line_end(&rest[taken..]) {
            let line = &rest[taken..taken + length];
            taken += length + 1;
            let at = line.windows(KEY.len()).position(|window| window == KEY).context("an event without a revision")?;
            let digits = line[at + KEY.len()..].iter().take_while(|byte| byte.is_ascii_digit());
            let revision = digits.fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
            ensure!(revision > last, "revision {revision} came after {last}");
            last = revision;
            seen += 1;
        }
        rest.drain(..taken);
    }
    Ok(())
}

fn line_end(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|byte| *byte == b'\n')
}
