//! How much a workload takes on, and from whom: rate limits and caps on concurrent requests, enforced before its own port.
//!
//! Owns what a limit is about and what it is counted by. Never counts: the state of the buckets is the proxy's.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use serde::{Serialize, Serializer};

use super::access::{Call, PathTemplate, canonical};
use super::{Adaptive, CallMatch, Origin, ServiceRef};

/// Those of one port. All of them have to let a request pass.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Limits {
    pub rates: Vec<RateLimit>,
    pub concurrency: Vec<Limit<u32>>,
    /// On what the app is sent at a time.
    pub adaptive: Option<Adaptive>,
}

impl Limits {
    pub fn is_empty(&self) -> bool {
        self.rates.is_empty() && self.concurrency.is_empty() && self.adaptive.is_none()
    }
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RateLimit {
    pub limit: Limit<Rate>,
    pub unit: LimitUnit,
    /// What a request takes; a connection takes 1.
    pub cost: Cost,
    pub headers: LimitHeaders,
    /// Counted over all instances of a Service by a server; `None`: by each instance for itself.
    pub shared: Option<SharedLimit>,
}

/// How a limit is counted by a server of `envoy.service.ratelimit.v3.RateLimitService`. Its rates are of whole units of that call ([`Rate::unit`]), and
/// what may come at once is what one unit has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SharedLimit {
    /// Whose instances are counted together.
    pub service: ServiceRef,
    pub server: LimitServer,
    /// Every request asks for itself; otherwise tokens are leased in batches. Default false.
    pub strict: bool,
    /// Tokens of one lease at most. `None`: 2 % of the limit at our own server, 1 at another one, which takes nothing back. 1 or more.
    pub batch: Option<u32>,
    /// The longest a request waits for the server. Default 100 ms; 1 ms to 5 s.
    pub timeout: Duration,
    /// Whether requests that the server did not decide on in time go on. Default true.
    pub open: bool,
}

impl SharedLimit {
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_millis(100);
    pub const TIMEOUTS: std::ops::RangeInclusive<Duration> =
        Duration::from_millis(1)..=Duration::from_secs(5);
}

/// Who counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct LimitServer {
    /// `HOST:PORT`, in plaintext. `None`: the control plane that the proxy has its configuration from.
    pub address: Option<Arc<str>>,
    /// As the call names what belongs together. Not empty; default `outrigger`.
    pub domain: Arc<str>,
}

impl Default for LimitServer {
    fn default() -> Self {
        Self { address: None, domain: "outrigger".into() }
    }
}

/// A limit that allows `A` to each of its keys.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Limit<A> {
    /// Unique within its policy. Printable ASCII.
    pub name: Arc<str>,
    pub mode: LimitMode,
    /// Requests that meet one of these; none is no condition.
    pub matches: Vec<CallMatch>,
    /// What is counted apart; none: everything is counted together.
    pub key: Vec<KeyPart>,
    pub allowed: A,
    /// The first that fits a key decides.
    pub overrides: Vec<LimitOverride<A>>,
    /// Keys that are remembered at most. 1 to 1,000,000; default 10,000.
    pub max_keys: u32,
    /// The policy and the field of this limit.
    pub origin: Origin,
}

impl<A> Limit<A> {
    pub const DEFAULT_MAX_KEYS: u32 = 10_000;

    /// `NAMESPACE/NAME` of the policy.
    pub fn policy(&self) -> String {
        format!("{}/{}", self.origin.namespace, self.origin.name)
    }

    /// Whether the limit counts this request. Of what can be read in two ways it counts each: nobody gets around a limit by spelling.
    pub fn concerns(&self, call: &Call<'_>) -> bool {
        if self.matches.is_empty() {
            return true;
        }
        match canonical(call.path) {
            Ok(path) => self.matches.iter().any(|to| to.possibly(call, &path)),
            Err(_) => true,
        }
    }
}

/// What a bucket is filled with, and how fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Rate {
    /// For each `per`; 1 or more, and at most a million a second.
    pub tokens: u32,
    /// Whole seconds; 1 s to 24 h; default 1 s.
    pub per: Duration,
    /// What may come at once; 1 or more. Default `tokens`.
    pub burst: u32,
}

impl Rate {
    /// Tokens a second at most: beyond it one is worth less than a microsecond.
    pub const FASTEST: u64 = 1_000_000;
    pub const LONGEST: Duration = Duration::from_secs(24 * 3600);

    /// `None` outside the bounds.
    pub fn new(tokens: u32, per: Duration, burst: u32) -> Option<Self> {
        let seconds = per.as_secs();
        let whole = per.subsec_nanos() == 0 && seconds >= 1 && per <= Self::LONGEST;
        let fits = whole && tokens >= 1 && burst >= 1 && u64::from(tokens) <= Self::FASTEST * seconds;
        // A bucket that takes longer to fill than anybody waits is a mistake, and its time must not run out of its 64 bits.
        let fills = u128::from(burst) * per.as_nanos() / u128::from(tokens.max(1));
        (fits && fills <= Self::SLOWEST.as_nanos()).then_some(Self { tokens, per, burst })
    }

    /// Whether a server of the rate limit call can count by it: one second, minute, hour or day, and what one of them has at once.
    pub fn is_shareable(self) -> bool {
        self.unit().is_some() && self.burst == self.tokens
    }

    /// As the rate limit call names it.
    pub fn unit(self) -> Option<LimitPer> {
        match self.per.as_secs() {
            1 => Some(LimitPer::Second),
            60 => Some(LimitPer::Minute),
            3_600 => Some(LimitPer::Hour),
            86_400 => Some(LimitPer::Day),
            _ => None,
        }
    }

    /// The longest it may take until an empty bucket is full: a year.
    pub const SLOWEST: Duration = Duration::from_secs(365 * 24 * 3600);
}

/// A unit of the rate limit call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitPer {
    Second,
    Minute,
    Hour,
    Day,
}

/// What is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub enum LimitUnit {
    #[default]
    Requests,
    /// Connections that carry anything but HTTP.
    Connections,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub enum LimitMode {
    #[default]
    Enforce,
    /// What it would refuse is counted and logged, and goes on.
    Observe,
}

/// Which responses carry the fields `RateLimit` and `RateLimit-Policy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub enum LimitHeaders {
    #[default]
    Always,
    /// Only those that refuse.
    Refused,
    Never,
}

/// Tokens a request takes: what its header says, 1 to `most`; `fixed` where it says nothing or no number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// 1 to `most`.
    pub fixed: u32,
    #[serde(serialize_with = "name")]
    pub header: Option<HeaderName>,
    /// At most the least burst of the limit.
    pub most: u32,
}

/// A part of what is counted apart. What a request does not have is an empty value, and counted together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum KeyPart {
    /// The caller's SPIFFE id; empty where none is proven.
    Identity,
    /// Of the caller's identity.
    Namespace,
    /// The client's address, an IPv6 one by its /64: the connection's, or the `trusted_hops`th from the right of `x-forwarded-for`.
    Address {
        trusted_hops: u8,
    },
    #[serde(serialize_with = "part_name")]
    Header(HeaderName),
    /// The first template that fits, not what stands for its variables.
    Path(Vec<PathTemplate>),
    Method,
    /// `/SERVICE/METHOD` of a gRPC call.
    GrpcMethod,
}

/// Another allowance for certain values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LimitOverride<A> {
    /// One for each part of the key, in its order; `None` is any.
    pub key: Vec<Option<Arc<str>>>,
    /// `None`: no limit.
    pub allowed: Option<A>,
}

fn name<S: Serializer>(name: &Option<HeaderName>, serializer: S) -> Result<S::Ok, S::Error> {
    name.as_ref().map(HeaderName::as_str).serialize(serializer)
}

fn part_name<S: Serializer>(name: &HeaderName, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_within_its_bounds() {
        let rate = |tokens, ms, burst| Rate::new(tokens, Duration::from_millis(ms), burst).is_some();
        for (tokens, ms, burst, want, why) in [
            (1, 1_000, 1, true, "the least"),
            (1_000_000, 1_000, 1, true, "the fastest"),
            (1_000_001, 1_000, 1, false, "faster"),
            (60_000_000, 60_000, 1, true, "as fast, by the minute"),
            (0, 1_000, 1, false, "nothing at all"),
            (1, 1_000, 0, false, "a bucket that holds nothing"),
            (1, 1_500, 1, false, "no whole seconds"),
            (1, 0, 1, false, "no time"),
            (1, 86_400_000, 365, true, "a year to fill"),
            (1, 86_400_000, 366, false, "more than that"),
            (1, 86_401_000, 1, false, "more than a day"),
        ] {
            assert_eq!(rate(tokens, ms, burst), want, "{tokens} per {ms} ms, {burst}: {why}");
        }
    }
}
