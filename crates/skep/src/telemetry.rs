//! Logs: to standard error, filtered by `SKEP_LOG`; as text, or a line of JSON for each.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

pub fn start(json: bool) {
    let filter = EnvFilter::try_from_env("SKEP_LOG").unwrap_or_else(|_| EnvFilter::new("warn,kube_client=off"));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(true);
    match json {
        true => logs.json().flatten_event(true).init(),
        false => logs.with_ansi(std::io::stderr().is_terminal()).init(),
    }
}
