//! How the requests of a cluster are spread over its endpoints, and which endpoints are asked whether they are well.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use serde::{Serialize, Serializer};

use super::Origin;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Balance {
    pub algorithm: Algorithm,
    /// What a request's hash is made of, where `algorithm` goes by one. Empty: what its route says.
    pub hash: Vec<HashOn>,
    /// A new endpoint begins with a part of its share. `None`: with all of it.
    pub slow_start: Option<SlowStart>,
    /// The zone requests come from: endpoints in it, or meant for it, are preferred. `None`: zones do not matter.
    pub zone: Option<Arc<str>>,
    /// A client's later requests go where its first one went.
    pub session: Option<SessionCookie>,
    /// Asks the endpoints of [`super::Health::Unknown`]. `None`: they are taken to be well.
    pub health_check: Option<Arc<HealthCheck>>,
    /// The section that says so; `None` for the defaults.
    pub origin: Option<Origin>,
}

/// How an endpoint is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub enum Algorithm {
    /// Two are drawn by weight, the one expected to answer sooner under its load gets the request.
    #[default]
    PeakEwma,
    /// `choices` are drawn by weight, the one with the fewest requests for its weight gets the request.
    LeastRequest {
        /// 2 to 10; default 2.
        choices: u8,
    },
    RoundRobin,
    Random,
    /// The first endpoint on a ring of hashes at or behind the request's own (Karger and others, 1997).
    RingHash {
        /// Places of an endpoint of weight 1, while `max_size` allows it. Default 1,024; 1 to 8,388,608.
        min_size: u32,
        /// Places of all endpoints. Default 65,536; `min_size` to 8,388,608.
        max_size: u32,
    },
    /// A table of equal shares looked up by the request's hash (Eisenbud and others, 2016).
    Maglev {
        /// A prime, 2 to 5,000,011. Default 65,537.
        table_size: u32,
    },
}

impl Algorithm {
    pub const DEFAULT_CHOICES: u8 = 2;
    pub const MAX_CHOICES: u8 = 10;
    pub const DEFAULT_RING: (u32, u32) = (1_024, 65_536);
    /// Envoy's own bound.
    pub const LARGEST_RING: u32 = 8 * 1_024 * 1_024;
    pub const DEFAULT_TABLE: u32 = 65_537;
    /// Envoy's own bound.
    pub const LARGEST_TABLE: u32 = 5_000_011;

    /// Whether it goes by a request's hash.
    pub fn hashes(self) -> bool {
        matches!(self, Self::RingHash { .. } | Self::Maglev { .. })
    }

    /// Whether `size` can be a Maglev table's: a prime within the bounds.
    pub fn is_table_size(size: u32) -> bool {
        let divides = |divisor: &u32| size.is_multiple_of(*divisor);
        let candidates = || (2..).take_while(|divisor: &u32| u64::from(*divisor).pow(2) <= u64::from(size));
        (2..=Self::LARGEST_TABLE).contains(&size) && !candidates().any(|divisor| divides(&divisor))
    }

    /// As manifests and the admin port write it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::PeakEwma => "PeakEWMA",
            Self::LeastRequest { .. } => "LeastRequest",
            Self::RoundRobin => "RoundRobin",
            Self::Random => "Random",
            Self::RingHash { .. } => "RingHash",
            Self::Maglev { .. } => "Maglev",
        }
    }
}

/// One thing a request's hash is made of; what the request lacks adds nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HashOn {
    pub input: HashInput,
    /// Nothing behind it counts once there is a hash.
    pub terminal: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum HashInput {
    /// Repeated lines count one by one, in any order.
    #[serde(serialize_with = "as_str")]
    Header(HeaderName),
    /// One with a `ttl` is made where the request brings none.
    Cookie(HashCookie),
    /// The client's IP address.
    Source,
    /// The first parameter of this name.
    Query(Arc<str>),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HashCookie {
    pub name: Arc<str>,
    /// `None`: never made by the proxy. 0: for as long as the client's session lasts.
    pub ttl: Option<Duration>,
    /// Of the cookie that is made; `None` leaves it to the client.
    pub path: Option<Arc<str>>,
}

/// A cookie the proxy sets, which names the endpoint that answered without telling its address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SessionCookie {
    pub name: Arc<str>,
    /// 0: for as long as the client's session lasts.
    pub ttl: Duration,
    /// Default `/`.
    pub path: Arc<str>,
}

impl SessionCookie {
    pub const DEFAULT_NAME: &'static str = "outrigger-session";
}

/// A new endpoint's share rises evenly from `min_percent` to all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct SlowStart {
    /// Default 30 s; 1 ms to 1 h.
    pub window: Duration,
    /// Default 10; 1 to 100.
    pub min_percent: u8,
}

impl Default for SlowStart {
    fn default() -> Self {
        Self { window: Duration::from_secs(30), min_percent: 10 }
    }
}

/// Asking endpoints whether they are well. The defaults are those of Kubernetes' readiness probes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HealthCheck {
    pub probe: HealthProbe,
    /// From one question to the next, ± 10 %. Default 10 s; 10 ms to 1 h.
    pub interval: Duration,
    /// For the answer. Default 1 s; 1 ms to 60 s.
    pub timeout: Duration,
    /// Failures in a row that make an endpoint unusable. Default 3; 1 to 100.
    pub unhealthy_threshold: u8,
    /// Successes in a row that make it usable again. Default 1; 1 to 100. The first answer of all decides by itself.
    pub healthy_threshold: u8,
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self {
            probe: HealthProbe::Tcp,
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(1),
            unhealthy_threshold: 3,
            healthy_threshold: 1,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum HealthProbe {
    /// A connection, with TLS where requests have it.
    Tcp,
    Http {
        /// With its query.
        path: Arc<str>,
        /// `None`: the cluster's own name.
        host: Option<Arc<str>>,
        /// Statuses of the well, from..until. Default 200..400.
        expected: Vec<(u16, u16)>,
    },
    /// `grpc.health.v1.Health/Check`
    Grpc {
        /// Empty: the server as a whole.
        service: Arc<str>,
    },
}

impl HealthProbe {
    pub const DEFAULT_EXPECTED: (u16, u16) = (200, 400);
}

fn as_str<S: Serializer>(name: &HeaderName, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_have_the_size_of_a_prime() {
        for (size, fits) in [
            (0, false),
            (1, false),
            (2, true),
            (4, false),
            (251, true),
            (65_536, false),
            (65_537, true),
            (Algorithm::LARGEST_TABLE, true),
            (5_000_077, false /* a prime beyond the bound */),
        ] {
            assert_eq!(Algorithm::is_table_size(size), fits, "{size}");
        }
    }
}
