//! Circuit breaking: how much may be under way to a cluster at a time, and when one of its endpoints gets nothing for a while.

use std::time::Duration;

use serde::Serialize;

use super::{Fraction, Origin};

/// Of a cluster, shared by all that a calling process sends there. The default has no caps and ejects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CircuitBreaker {
    pub caps: Caps,
    /// `None`: no endpoint is ever ejected.
    pub ejection: Option<Ejection>,
    /// Default: none.
    pub adaptive: Option<Adaptive>,
    /// The section that says so; `None` for the defaults.
    pub origin: Option<Origin>,
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        Self { caps: Caps::default(), ejection: Some(Ejection::default()), adaptive: None, origin: None }
    }
}

/// Whether a rule acts, or only counts what it would have done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub enum BreakerMode {
    #[default]
    Enforce,
    Observe,
}

impl BreakerMode {
    pub const fn label(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Observe => "observe",
        }
    }
}

/// How much may be under way at a time; `None` is no cap. What is over one is refused as `overloaded`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Caps {
    pub mode: BreakerMode,
    /// Connections to all endpoints together, idle ones included.
    pub connections: Option<u32>,
    /// Requests that wait for one of the `connections`; where these are not capped, while theirs is being opened.
    pub pending: Option<u32>,
    /// Requests sent and not answered to the end.
    pub requests: Option<u32>,
    /// Of these, those that are not sent for the first time.
    pub retries: Option<u32>,
    /// A connection is closed after as many.
    pub requests_per_connection: Option<u32>,
}

impl Caps {
    /// Where `connections` is set and `pending` is not.
    pub const DEFAULT_PENDING: u32 = 1024;
}

/// A cap on requests under way that follows their latencies: as many as are answered without waiting for each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Adaptive {
    pub mode: BreakerMode,
    /// The cap is never lower; at least 1.
    pub least: u32,
    /// Nor higher; at least `least`.
    pub most: u32,
    /// The section that says so.
    pub origin: Option<Origin>,
}

impl Adaptive {
    pub const DEFAULT_LEAST: u32 = 3;
    pub const DEFAULT_MOST: u32 = 1_000;
}

/// Caps on what takes one route, beside those of the clusters it leads to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RouteCaps {
    pub mode: BreakerMode,
    pub pending: Option<u32>,
    pub requests: Option<u32>,
    pub retries: Option<u32>,
    /// The section that says so.
    pub origin: Option<Origin>,
}

/// When an endpoint is taken out, for how long, and how it comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Ejection {
    pub mode: BreakerMode,
    /// Which answers are failures.
    pub errors: EjectionErrors,
    /// Failures in a row, of any kind. Default 5; 1 to [`Self::MAX_CONSECUTIVE`].
    pub consecutive_errors: Option<u8>,
    /// Connections in a row that could not be opened. Default 3; as above.
    pub connect_failures: Option<u8>,
    pub success_rate: Option<SuccessRate>,
    /// Default: none.
    pub slow_calls: Option<SlowCalls>,
    /// The first ejection; doubled with each one that follows. Default 10 s; 1 ms to an hour, as `max`.
    pub base: Duration,
    /// Default 5 min.
    pub max: Duration,
    /// How far the time is moved at random, to both sides. Default a half.
    pub jitter: Fraction,
    /// Of the endpoints that are ready, how many may be out at once; one may always, but the last never. Default a half.
    pub max_ejected: Fraction,
    /// Until an endpoint that is back gets its full share. Default 10 s; 0 for at once; at most an hour.
    pub ramp: Duration,
}

/// What counts as an endpoint's failure, beside no answer at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub enum EjectionErrors {
    /// 502, 503 and 504, and gRPC's UNAVAILABLE.
    #[default]
    Gateway,
    /// Every 5xx, and of gRPC also UNKNOWN, INTERNAL and DATA_LOSS.
    Server,
}

/// Ejects an endpoint when fewer than `below` of its calls within `interval` succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct SuccessRate {
    /// Default 80 %.
    pub below: Fraction,
    /// Default 10 s; 1 s to 5 min.
    pub interval: Duration,
    /// With fewer calls nothing is concluded. Default 10; 1 to [`Self::MAX_REQUESTS`].
    pub min_requests: u32,
}

impl SuccessRate {
    pub const MAX_REQUESTS: u32 = 10_000;
}

impl Default for SuccessRate {
    fn default() -> Self {
        Self { below: Fraction::FOUR_FIFTHS, interval: Duration::from_secs(10), min_requests: 10 }
    }
}

/// Ejects an endpoint when at least `share` of its calls within `interval` take longer than `longer_than`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct SlowCalls {
    /// Until the response's headers; 1 ms to an hour.
    pub longer_than: Duration,
    /// Default a half.
    pub share: Fraction,
    /// Default 10 s; 1 s to 5 min.
    pub interval: Duration,
    /// Default 10; as in [`SuccessRate`].
    pub min_requests: u32,
}

impl SlowCalls {
    pub const DEFAULT_SHARE: Fraction = Fraction::HALF;
}

impl Ejection {
    pub const MAX_CONSECUTIVE: u8 = 100;
    pub const MAX_TIME: Duration = Duration::from_secs(3_600);
    pub const INTERVALS: std::ops::RangeInclusive<Duration> =
        Duration::from_secs(1)..=Duration::from_secs(300);
}

impl Default for Ejection {
    /// design.md section 5.
    fn default() -> Self {
        Self {
            mode: BreakerMode::Enforce,
            errors: EjectionErrors::Gateway,
            consecutive_errors: Some(5),
            connect_failures: Some(3),
            success_rate: Some(SuccessRate::default()),
            slow_calls: None,
            base: Duration::from_secs(10),
            max: Duration::from_secs(300),
            jitter: Fraction::HALF,
            max_ejected: Fraction::HALF,
            ramp: Duration::from_secs(10),
        }
    }
}
