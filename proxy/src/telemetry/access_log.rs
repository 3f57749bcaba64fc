//! The access log: a line of JSON for each exchange, or for those that failed.
//!
//! A worker hands over a record's content and goes on; one thread of the log's own turns it into text and writes. Where it cannot keep up,
//! because its reader does not, lines are dropped and counted: nothing waits for a log. While the mode is `Off` a record
//! gathers nothing for it.

use std::io::{BufWriter, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use http::{StatusCode, Version};
use outrigger_config::model::{self, AccessLogMode, Fraction};
use parking_lot::Mutex;
use rand::RngExt;
use serde::ser::{Serialize, SerializeMap, Serializer};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::cells::Worker;
use super::metrics::{Metrics, RouteMetrics, ServiceMetrics};
use super::record::{Noted, RequestId, uuid};
use crate::failure::Failure;

pub struct AccessLog {
    /// Mode and sampling in one word, so that a worker reads one consistent pair.
    settings: AtomicU64,
    queue: SyncSender<Line>,
    metrics: Arc<Metrics>,
    idle: Mutex<Option<Idle>>,
}

/// What the writing thread gets when the log is first switched on.
struct Idle {
    lines: Receiver<Line>,
    to: Box<dyn Write + Send>,
}

/// Lines that wait for the writer at most; about 1 MiB.
const QUEUE: usize = 2_048;

impl AccessLog {
    /// Off until [`Self::set`] says otherwise.
    pub fn new(metrics: Arc<Metrics>, to: Box<dyn Write + Send>) -> Self {
        let (queue, lines) = sync_channel(QUEUE);
        Self { settings: AtomicU64::new(0), queue, metrics, idle: Mutex::new(Some(Idle { lines, to })) }
    }

    /// Takes effect with the next exchange.
    pub fn set(&self, settings: &model::AccessLog) {
        let mode = match settings.mode {
            AccessLogMode::Off => OFF,
            AccessLogMode::Errors => ERRORS,
            AccessLogMode::All => ALL,
        };
        if mode != OFF {
            self.start();
        }
        self.settings.store(mode << 32 | u64::from(settings.sampling.millionths()), Ordering::Relaxed);
    }

    /// Whether any line may be wanted.
    pub fn is_on(&self) -> bool {
        self.settings.load(Ordering::Relaxed) >> 32 != OFF
    }

    pub(super) fn offer(&self, worker: Worker, failed: bool, line: impl FnOnce() -> Line) {
        let settings = self.settings.load(Ordering::Relaxed);
        let wanted = match settings >> 32 {
            ALL => true,
            ERRORS => failed || sampled(settings as u32),
            _ => false,
        };
        if wanted && self.queue.try_send(line()).is_err() {
            self.metrics.access_log_dropped.add(worker, 1);
        }
    }

    fn start(&self) {
        let Some(idle) = self.idle.lock().take() else { return };
        let spawned = std::thread::Builder::new().name("access-log".into()).spawn(move || write(idle));
        if let Err(error) = spawned {
            // Lines are dropped and counted from here on.
            tracing::error!(%error, "the access log cannot be written");
        }
    }
}

const OFF: u64 = 0;
const ERRORS: u64 = 1;
const ALL: u64 = 2;

fn sampled(millionths: u32) -> bool {
    match millionths {
        0 => false,
        share => rand::rng().random_range(0..Fraction::ALL.millionths()) < share,
    }
}

impl std::fmt::Debug for AccessLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccessLog").field("on", &self.is_on()).finish_non_exhaustive()
    }
}

/// Ends when the log is dropped, or nobody can read it any more.
fn write(Idle { lines, to }: Idle) {
    let mut to = BufWriter::with_capacity(16 * 1024, to);
    while let Ok(line) = lines.recv() {
        let mut written = append(&mut to, &line);
        // Whatever else waits goes out with the same system call.
        while let (Ok(()), Ok(line)) = (&written, lines.try_recv()) {
            written = append(&mut to, &line);
        }
        if let Err(error) = written.and_then(|()| to.flush()) {
            tracing::error!(%error, "the access log cannot be written any more");
            return;
        }
    }
}

fn append(to: &mut impl Write, line: &Line) -> std::io::Result<()> {
    serde_json::to_writer(&mut *to, line).map_err(std::io::Error::from)?;
    to.write_all(b"\n")
}

/// One line, not yet text.
#[derive(Debug)]
pub(super) struct Line {
    pub time: SystemTime,
    pub duration: Duration,
    pub service: Arc<ServiceMetrics>,
    pub route: Option<Arc<RouteMetrics>>,
    pub status: Option<StatusCode>,
    pub grpc: Option<u16>,
    pub failure: Option<Failure>,
    pub attempts: u32,
    pub request_bytes: u64,
    pub response_bytes: u64,
    pub noted: Box<Noted>,
}

/// Fields that say nothing are left out.
impl Serialize for Line {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        let noted = &*self.noted;
        map.serialize_entry("time", &rfc3339(self.time))?;
        map.serialize_entry("direction", self.service.direction.label())?;
        if let Some((method, uri, version)) = &noted.head {
            map.serialize_entry("method", method.as_str())?;
            map.serialize_entry("path", uri.path())?;
            if let Some(host) = noted.host.as_deref().or(uri.host()) {
                map.serialize_entry("host", host)?;
            }
            map.serialize_entry("protocol", protocol(*version))?;
        } else {
            if let Some(host) = &noted.host {
                map.serialize_entry("host", host)?;
            }
            map.serialize_entry("protocol", "TCP")?;
        }
        if let Some(status) = self.status {
            map.serialize_entry("status", &status.as_u16())?;
        }
        if let Some(status) = self.grpc {
            map.serialize_entry("grpc_status", &status)?;
        }
        if let Some(failure) = &self.failure {
            map.serialize_entry("reason", failure.reason.word())?;
            if let Some(detail) = &failure.detail {
                map.serialize_entry("detail", detail)?;
            }
        }
        map.serialize_entry("service", self.service.service())?;
        if let Some(route) = &self.route {
            map.serialize_entry("route", &route.route)?;
        }
        if let Some(origin) = &noted.origin {
            map.serialize_entry("origin", &Shown(origin))?;
        }
        if let Some(audit) = &noted.audit {
            map.serialize_entry("audit", audit)?;
        }
        if let Some(limited) = &noted.limited {
            map.serialize_entry(if limited.observed { "limit_observed" } else { "limit" }, &limited.limit)?;
            if limited.key != 0 {
                map.serialize_entry("limit_key", &format_args!("{:016x}", limited.key))?;
            }
        }
        if let Some(fault) = &noted.fault {
            map.serialize_entry("fault", fault)?;
        }
        if let Some(cluster) = &noted.cluster {
            map.serialize_entry("cluster", cluster)?;
        }
        if let Some(endpoint) = &noted.endpoint {
            map.serialize_entry("endpoint", &Shown(endpoint))?;
        }
        map.serialize_entry("attempts", &self.attempts)?;
        map.serialize_entry("bytes_request", &self.request_bytes)?;
        map.serialize_entry("bytes_response", &self.response_bytes)?;
        map.serialize_entry("duration_ms", &(self.duration.as_micros() as f64 / 1e3))?;
        if let Some(peer) = &noted.peer {
            map.serialize_entry("peer", peer)?;
        }
        if let Some(client) = &noted.client {
            map.serialize_entry("client", client)?;
        }
        if let Some(id) = &noted.request_id {
            match id {
                RequestId::Received(id) => {
                    map.serialize_entry("request_id", &String::from_utf8_lossy(id.as_bytes()))?;
                }
                RequestId::Made(id) => {
                    map.serialize_entry("request_id", &String::from_utf8_lossy(&uuid(*id)))?;
                }
            }
        }
        map.end()
    }
}

struct Shown<T>(T);

impl<T: std::fmt::Display> Serialize for Shown<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}

/// UTC with milliseconds.
fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    // Days since 0000-03-01, so that the leap day is the last of its year (H. Hinnant, "chrono-compatible low-level date algorithms").
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", since.subsec_millis())
}

#[cfg(test)]
mod tests;
