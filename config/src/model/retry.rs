//! When a request that failed is sent again, how long later, and how often all requests together may be.
//!
//! A request that certainly was not processed is sent again without any of this; here is what a policy adds.

use std::time::Duration;

use http::{Method, StatusCode};
use serde::{Serialize, Serializer};

use super::{Fraction, HeaderMatch};

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Retry {
    /// After the first, those of unprocessed requests included. 0 to 10; default 2.
    pub attempts: u8,
    /// Any of these; ascending, each once.
    pub on: Vec<RetryOn>,
    /// Responses of these statuses, 400 to 599.
    #[serde(serialize_with = "as_numbers")]
    pub statuses: Vec<StatusCode>,
    /// Responses with one of these headers.
    pub headers: Vec<HeaderMatch>,
    pub methods: RetryMethods,
    pub backoff: Backoff,
    pub budget: RetryBudget,
    /// A `Retry-After` or `grpc-retry-pushback-ms` that asks for longer ends the retries. Default 5 s.
    pub max_retry_after: Duration,
    /// Whether a request that the hop before already repeated is repeated here, too.
    pub of_retries: bool,
    /// When a request of which no answer has begun is sent to another endpoint as well, as one of `attempts`. Default: never.
    pub hedge: Option<Hedge>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Hedge {
    /// After so long; beside `percentile` not before.
    pub after: Duration,
    /// After what this share of the cluster's requests of late needed at most, once enough of them are known.
    pub percentile: Option<Fraction>,
}

impl Hedge {
    /// Beside a percentile.
    pub const LEAST: Duration = Duration::from_millis(1);
}

/// What is taken for a failure that another attempt may heal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub enum RetryOn {
    /// Any 5xx response, no response at all included.
    ServerError,
    /// 502, 503, 504, and whatever the proxy itself answers with one of these.
    GatewayError,
    /// No connection to the endpoint.
    ConnectFailure,
    /// The connection or stream ended before the response did begin.
    Reset,
    /// It ended before any byte of the request was sent.
    ResetBeforeRequest,
    /// HTTP/2 `REFUSED_STREAM`.
    RefusedStream,
    /// gRPC status 1.
    Cancelled,
    /// gRPC status 4.
    DeadlineExceeded,
    /// gRPC status 8.
    ResourceExhausted,
    /// gRPC status 13.
    Internal,
    /// gRPC status 14.
    Unavailable,
}

impl RetryOn {
    pub const ALL: [Self; 11] = [
        Self::ServerError,
        Self::GatewayError,
        Self::ConnectFailure,
        Self::Reset,
        Self::ResetBeforeRequest,
        Self::RefusedStream,
        Self::Cancelled,
        Self::DeadlineExceeded,
        Self::ResourceExhausted,
        Self::Internal,
        Self::Unavailable,
    ];

    /// As Envoy's `retry_on` and our manifests spell it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::ServerError => "5xx",
            Self::GatewayError => "gateway-error",
            Self::ConnectFailure => "connect-failure",
            Self::Reset => "reset",
            Self::ResetBeforeRequest => "reset-before-request",
            Self::RefusedStream => "refused-stream",
            Self::Cancelled => "cancelled",
            Self::DeadlineExceeded => "deadline-exceeded",
            Self::ResourceExhausted => "resource-exhausted",
            Self::Internal => "internal",
            Self::Unavailable => "unavailable",
        }
    }

    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|condition| condition.word() == word)
    }

    /// The gRPC status it stands for, if it is one.
    pub const fn grpc_status(self) -> Option<u16> {
        match self {
            Self::Cancelled => Some(1),
            Self::DeadlineExceeded => Some(4),
            Self::ResourceExhausted => Some(8),
            Self::Internal => Some(13),
            Self::Unavailable => Some(14),
            _ => None,
        }
    }
}

/// Which requests may be processed more than once. A gRPC status that a policy names counts for gRPC calls, all of which are POST.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum RetryMethods {
    /// GET, HEAD, OPTIONS, TRACE, PUT and DELETE (RFC 9110 §9.2.2).
    Idempotent,
    /// As Envoy does it.
    Any,
    #[serde(serialize_with = "as_strs")]
    Listed(Vec<Method>),
}

impl RetryMethods {
    pub fn allow(&self, method: &Method) -> bool {
        match self {
            Self::Idempotent => method.is_idempotent(),
            Self::Any => true,
            Self::Listed(methods) => methods.contains(method),
        }
    }
}

/// Before attempt n (the first repetition is 1) it waits a random time up to `base` × 2^(n-1), at most `max`: full jitter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Backoff {
    /// Default 25 ms; 1 ms to 60 s.
    pub base: Duration,
    /// Default 250 ms, or `base` where that is more.
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { base: Duration::from_millis(25), max: Duration::from_millis(250) }
    }
}

/// How many repetitions a calling process may add to the load of one destination, whoever asks for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RetryBudget {
    /// Of the requests within `interval`. Default 20 %.
    pub share: Fraction,
    /// On top of that, on average over `interval`. Default 10; at most 100,000.
    pub per_second: u32,
    /// Default 10 s; 1 s to 60 s.
    pub interval: Duration,
}

impl RetryBudget {
    pub const DEFAULT: Self =
        Self { share: Fraction::ONE_FIFTH, per_second: 10, interval: Duration::from_secs(10) };
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl Retry {
    pub const DEFAULT_ATTEMPTS: u8 = 2;
    pub const MAX_ATTEMPTS: u8 = 10;
    pub const DEFAULT_MAX_RETRY_AFTER: Duration = Duration::from_secs(5);
    /// What `retry: {}` asks for: failures of the way to the app, and answers that say it is somewhere else.
    pub const DEFAULT_ON: [RetryOn; 4] =
        [RetryOn::GatewayError, RetryOn::ConnectFailure, RetryOn::Reset, RetryOn::RefusedStream];
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: Self::DEFAULT_ATTEMPTS,
            on: Self::DEFAULT_ON.into(),
            statuses: Vec::new(),
            headers: Vec::new(),
            methods: RetryMethods::Idempotent,
            backoff: Backoff::default(),
            budget: RetryBudget::default(),
            max_retry_after: Self::DEFAULT_MAX_RETRY_AFTER,
            of_retries: false,
            hedge: None,
        }
    }
}

fn as_numbers<S: Serializer>(statuses: &[StatusCode], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(statuses.iter().map(StatusCode::as_u16))
}

fn as_strs<S: Serializer>(methods: &[Method], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(methods.iter().map(Method::as_str))
}
