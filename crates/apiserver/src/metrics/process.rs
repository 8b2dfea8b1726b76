//! The process itself (proc(5)), under the names that every Prometheus client has.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

use super::Fractions;

#[derive(Default)]
pub(super) struct Gauges {
    cpu_seconds: Counter<f64, AtomicU64>,
    resident_bytes: Gauge,
    virtual_bytes: Gauge,
    open_files: Gauge,
    files_max: Gauge,
    start_seconds: Fractions,
}

/// Clock ticks a second: the same on every Linux that is in use (sysconf(3), _SC_CLK_TCK).
const TICKS_PER_SECOND: f64 = 100.0;
const PAGE_BYTES: i64 = 4096;

impl Gauges {
    pub(super) fn register(&self, registry: &mut Registry) {
        let r = registry;
        r.register("process_cpu_seconds", "Processor seconds used", self.cpu_seconds.clone());
        r.register("process_resident_memory_bytes", "Resident memory", self.resident_bytes.clone());
        r.register("process_virtual_memory_bytes", "Address space", self.virtual_bytes.clone());
        r.register("process_open_fds", "Open files", self.open_files.clone());
        r.register("process_max_fds", "Limit of open files", self.files_max.clone());
        r.register("process_start_time_seconds", "Start of the process, since 1970", self.start_seconds.clone());
    }

    /// Reads them anew; what cannot be read stays as it was.
    pub(super) fn read(&self) {
        let file = |name: &str| std::fs::read_to_string(format!("/proc/{name}")).unwrap_or_default();
        let stat = file("self/stat");
        // The name in parentheses may hold anything; fields are counted behind it.
        let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
        let number = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok());
        if let (Some(user), Some(system)) = (number(11), number(12)) {
            let seconds = (user + system) / TICKS_PER_SECOND;
            self.cpu_seconds.inc_by((seconds - self.cpu_seconds.get()).max(0.0));
        }
        let boot = file("stat").lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<f64>().ok());
        if let (Some(boot), Some(start)) = (boot, number(19)) {
            self.start_seconds.set(boot + start / TICKS_PER_SECOND);
        }
        if let Some(bytes) = fields.get(20).and_then(|text| text.parse().ok()) {
            self.virtual_bytes.set(bytes);
        }
        if let Some(pages) = fields.get(21).and_then(|text| text.parse::<i64>().ok()) {
            self.resident_bytes.set(pages.saturating_mul(PAGE_BYTES));
        }
        if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
            self.open_files.set(i64::try_from(files.count()).unwrap_or(i64::MAX));
        }
        let limits = file("self/limits");
        let limit = limits.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next());
        if let Some(limit) = limit.and_then(|text| text.parse().ok()) {
            self.files_max.set(limit);
        }
    }
}
