//! A destination as connections and exchanges use it: handles instead of names.

use std::sync::Arc;
use std::time::Duration;

use outrigger_config::model::{HostPattern, Origin, Protocol, ServiceRef};

use crate::policy::fault::Faults;
use crate::policy::rate_limit::Limits;
use crate::route::{Split, Table, Upstream};
use crate::telemetry::ServiceMetrics;

/// What one destination means at one time; also the inbound side of a port, and what stands behind a gateway's listener.
#[derive(Clone, Debug)]
pub struct Destination {
    /// `None` where an instance or something outside the registry is addressed.
    pub service: Option<ServiceRef>,
    pub protocol: Protocol,
    /// For HTTP. Shared by all names of the same service.
    pub routes: Arc<Table>,
    /// For TLS that is not opened here: the first whose SNI matches; then `tcp`.
    pub tls: Vec<TlsRoute>,
    /// For everything else.
    pub tcp: Backends,
    pub metrics: Arc<ServiceMetrics>,
    /// How much the workload takes on here, where this is its inbound side.
    pub limits: Option<Arc<Limits>>,
    pub origin: Option<Origin>,
    /// From the disk copy, after it had expired, because no source can be asked.
    pub stale: bool,
}

#[derive(Clone, Debug)]
pub struct TlsRoute {
    pub sni: HostPattern,
    pub backends: Backends,
    pub origin: Origin,
}

/// Clusters of which a connection goes to one, drawn by weight.
#[derive(Clone, Debug, Default)]
pub struct Backends {
    upstreams: Box<[Upstream]>,
    split: Split,
    idle: Option<Duration>,
    faults: Option<Arc<Faults>>,
}

impl Destination {
    /// Where a TLS connection that names `sni` goes; one that names none goes where TCP goes.
    pub fn tls(&self, sni: Option<&str>) -> &Backends {
        sni.and_then(|sni| self.tls.iter().find(|route| route.sni.matches(sni)))
            .map_or(&self.tcp, |route| &route.backends)
    }
}

impl Backends {
    /// `idle`: how long a connection may carry nothing; `None`: as long as it likes.
    pub fn new(weighted: Vec<(Upstream, u32)>, idle: Option<Duration>) -> Self {
        let split = Split::new(weighted.iter().map(|(_, weight)| *weight));
        let upstreams = weighted.into_iter().map(|(upstream, _)| upstream).collect();
        Self { upstreams, split, idle, faults: None }
    }

    pub fn with_faults(self, faults: Option<Arc<Faults>>) -> Self {
        Self { faults, ..self }
    }

    /// What goes wrong with its connections on purpose.
    pub fn faults(&self) -> Option<&Arc<Faults>> {
        self.faults.as_ref()
    }

    pub fn idle(&self) -> Option<Duration> {
        self.idle
    }

    /// `random(n)` is a number below `n`. `None` where nothing has any weight.
    pub fn draw(&self, random: impl FnOnce(u64) -> u64) -> Option<&Upstream> {
        self.split.draw(random).map(|index| &self.upstreams[index])
    }

    pub fn iter(&self) -> impl Iterator<Item = &Upstream> {
        self.upstreams.iter()
    }
}
