//! What the proxy says about itself: metrics, and the access log.
//!
//! Read `record` first: one [`Record`] an exchange gathers what both need and writes it when it is dropped. `cells` and `family` are how
//! counting stays cheap and bounded, `metrics` the families, `exposition` their text form. Nothing here takes part in a decision.

pub mod access_log;
mod cells;
mod exposition;
mod family;
pub mod metrics;
mod record;

use std::sync::Arc;

pub use access_log::AccessLog;
pub use cells::Worker;
pub use exposition::{CONTENT_TYPE, Gauge, Text};
pub use metrics::{
    Attempts, CircuitMetrics, Denials, Direction, FaultMetrics, LimitMetrics, Metrics, OpenConnection, Peer,
    RouteMetrics, ServiceMetrics, Tls, Way,
};
pub use record::{ByteCount, Record, RequestId, uuid};

/// Both, as they are handed down.
#[derive(Debug)]
pub struct Telemetry {
    pub metrics: Arc<Metrics>,
    pub access_log: AccessLog,
}

impl Telemetry {
    /// The log is written to standard output.
    pub fn new(workers: usize) -> Arc<Self> {
        let metrics = Metrics::new(workers);
        let access_log = AccessLog::new(metrics.clone(), Box::new(std::io::stdout()));
        Arc::new(Self { metrics, access_log })
    }
}
