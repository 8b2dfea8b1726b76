//! How light a server is: starts many in one process and prints the cost of each.

use std::sync::Arc;

use apiserver::{Options, Profile, Server};
use store::{Embedded, Limits};

#[tokio::main]
async fn main() {
    let count: usize = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(200);
    let rss = || {
        let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
        text.split(' ').nth(1).and_then(|n| n.parse::<usize>().ok()).unwrap_or(0) * 4
    };
    let options = Options { profile: Profile::Workload, ..Options::default() };
    let first = Server::start(Arc::new(Embedded::memory(Limits::default())), options.clone()).await.unwrap();
    let (before, start) = (rss(), tokio::time::Instant::now());
    let mut servers = vec![first];
    for _ in 0..count {
        servers.push(Server::start(Arc::new(Embedded::memory(Limits::default())), options.clone()).await.unwrap());
    }
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let elapsed = start.elapsed() - std::time::Duration::from_secs(1);
    #[allow(clippy::print_stdout)]
    {
        println!("{count} servers: {:?} and {} KiB each", elapsed / count as u32, (rss() - before) / count);
        println!("of these in the store: {} KiB", servers[1].store().size_bytes() / 1024);
    }
}
