//! Whether a request that failed is sent again, and how long later.
//!
//! Owns the judgement: what is a failure, what may be repeated, what the endpoint asks for. Never sends anything and never counts an
//! attempt: that is the loop in `exchange::attempts`, with the budget in `upstream::budget`.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, Method, StatusCode, header};
use outrigger_config::model::{self, Backoff, HeaderMatch, RetryBudget, RetryOn};
use rand::RngExt;
use rand::rngs::SmallRng;

use crate::failure::{Reason, grpc_status, is_grpc};
use crate::field::Known;
use crate::upstream::SendError;

/// Carries, from the second attempt on, the number of the attempt that this is: the next hop then repeats nothing by its own policy.
pub const ATTEMPT: HeaderName = HeaderName::from_static("x-outrigger-attempt");
/// gRPC's word for how long to wait, milliseconds; a negative one forbids another attempt (gRPC A6).
const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// 502, 503 or 504: the endpoint, or something before it, could not answer.
pub const fn is_gateway_error(status: StatusCode) -> bool {
    matches!(status.as_u16(), 502..=504)
}

/// A route's retries.
#[derive(Debug)]
pub struct RetryPolicy {
    model: Arc<model::Retry>,
    conditions: Conditions,
    /// Whether the end of a gRPC call may have to be seen before its beginning goes to the caller.
    reads_trailers: bool,
}

/// A set of [`RetryOn`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Conditions(u16);

impl Conditions {
    fn of(on: impl IntoIterator<Item = RetryOn>) -> Self {
        Self(on.into_iter().fold(0, |set, condition| set | Self::bit(condition)))
    }

    const fn bit(condition: RetryOn) -> u16 {
        1 << condition as u16
    }

    const fn has(self, condition: RetryOn) -> bool {
        self.0 & Self::bit(condition) != 0
    }
}

/// Why a request that failed is not sent again, although a policy names its failure. The `cause` label of
/// `outrigger_retries_suppressed_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suppressed {
    /// All attempts were made.
    Attempts,
    /// It may have been processed, and its method says that twice is not the same as once.
    NotIdempotent,
    /// Too much of its body has gone to be kept.
    BodyTooLarge,
    /// The hop before repeats it already.
    RetryOfRetry,
    /// The endpoint asked for a longer wait than the policy allows, or for none at all.
    RetryAfter,
    /// It could not end in time.
    Deadline,
    /// The destination got as many repetitions as it may.
    Budget,
    /// As many are under way as `maxRetries` of a circuit breaker allows.
    Cap,
    /// It failed when the caller had got the beginning of the answer.
    ResponseBegun,
}

impl Suppressed {
    pub const ALL: [Self; 9] = [
        Self::Attempts,
        Self::NotIdempotent,
        Self::BodyTooLarge,
        Self::RetryOfRetry,
        Self::RetryAfter,
        Self::Deadline,
        Self::Budget,
        Self::Cap,
        Self::ResponseBegun,
    ];

    pub const fn label(self) -> &'static str {
        match self {
            Self::Attempts => "attempts",
            Self::NotIdempotent => "not_idempotent",
            Self::BodyTooLarge => "body_too_large",
            Self::RetryOfRetry => "retry_of_retry",
            Self::RetryAfter => "retry_after",
            Self::Deadline => "deadline",
            Self::Budget => "budget",
            Self::Cap => "cap",
            Self::ResponseBegun => "response_begun",
        }
    }
}

/// What became of asking a second endpoint while the first one was silent. The `outcome` label of `outrigger_hedges_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hedge {
    /// The second one's answer was taken.
    Won,
    /// The first one's, after all.
    Lost,
    /// Neither had a good one.
    Failed,
    /// Not sent: the request's body has not come whole, or is too large.
    Body,
    /// Not sent: there is no other endpoint, or all attempts were made.
    Endpoint,
    /// Not sent: it could not end in time.
    Deadline,
    /// Not sent: the destination got as many repetitions as it may.
    Budget,
}

impl Hedge {
    pub const ALL: [Self; 7] =
        [Self::Won, Self::Lost, Self::Failed, Self::Body, Self::Endpoint, Self::Deadline, Self::Budget];

    pub const fn label(self) -> &'static str {
        match self {
            Self::Won => "won",
            Self::Lost => "lost",
            Self::Failed => "failed",
            Self::Body => "body",
            Self::Endpoint => "endpoint",
            Self::Deadline => "deadline",
            Self::Budget => "budget",
        }
    }
}

/// Whether a request may be repeated after it was processed, by what its failure is judged by; `None` is yes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Eligible {
    http: Option<Suppressed>,
    grpc: Option<Suppressed>,
}

impl Eligible {
    pub fn at_all(self) -> bool {
        self.http.is_none() || self.grpc.is_none()
    }

    pub fn check(self, failed: Failed) -> Result<(), Suppressed> {
        let forbidden = if failed.grpc { self.grpc } else { self.http };
        forbidden.map_or(Ok(()), Err)
    }
}

/// A failure that a policy names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed {
    /// What the endpoint asked for.
    after: Option<After>,
    /// It was judged by a gRPC status.
    grpc: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    Wait(Duration),
    Never,
}

impl RetryPolicy {
    pub fn compile(model: Arc<model::Retry>) -> Self {
        let conditions = Conditions::of(model.on.iter().copied());
        let reads_trailers = model.on.iter().any(|condition| condition.grpc_status().is_some());
        Self { model, conditions, reads_trailers }
    }

    /// Attempts after the first.
    pub fn attempts(&self) -> usize {
        self.model.attempts.into()
    }

    pub fn budget(&self) -> &RetryBudget {
        &self.model.budget
    }

    /// How long an answer is awaited before another endpoint is asked as well.
    pub fn hedge(&self) -> Option<model::Hedge> {
        self.model.hedge
    }

    /// Which failures of this request may lead to another attempt; asked before the first.
    pub fn eligible(&self, method: &Method, headers: &HeaderMap, known: Known) -> Eligible {
        let repeated = (!self.model.of_retries && known.has(Known::ATTEMPT) && is_repeated(headers))
            .then_some(Suppressed::RetryOfRetry);
        let none = (self.model.attempts == 0).then_some(Suppressed::Attempts);
        let unsafe_method = (!self.model.methods.allow(method)).then_some(Suppressed::NotIdempotent);
        let call = (!self.reads_trailers || !known.has(Known::GRPC)).then_some(Suppressed::NotIdempotent);
        Eligible { http: none.or(repeated).or(unsafe_method), grpc: none.or(repeated).or(call) }
    }

    /// Whether an attempt without a response failed in a way the policy names.
    pub fn judge_error(&self, error: &SendError) -> Option<Failed> {
        let connect = matches!(
            error.reason,
            Reason::ConnectFailed
                | Reason::ConnectTimeout
                | Reason::UpstreamTlsFailed
                | Reason::DnsFailed
                | Reason::FaultRefused
        );
        let reset = matches!(error.reason, Reason::UpstreamReset | Reason::FaultReset);
        let on = self.conditions;
        let status = error.reason.status();
        let named = (connect && on.has(RetryOn::ConnectFailure))
            || (reset && on.has(RetryOn::Reset))
            || (error.unprocessed && on.has(RetryOn::RefusedStream))
            || (error.unsent.is_some() && on.has(RetryOn::ResetBeforeRequest))
            || self.names_status(status);
        named.then_some(Failed { after: None, grpc: false })
    }

    /// Whether a response is a failure the policy names, as far as its headers show.
    pub fn judge_head(&self, status: StatusCode, headers: &HeaderMap) -> Option<Failed> {
        let by_header = |wanted: &HeaderMatch| {
            let mut values = headers.get_all(&wanted.name).iter();
            values.any(|value| value.to_str().is_ok_and(|value| wanted.value.matches(value)))
        };
        if self.names_status(status)
            || self.model.statuses.contains(&status)
            || self.model.headers.iter().any(by_header)
        {
            return Some(Failed { after: asked_for(headers), grpc: false });
        }
        self.judge_grpc(headers)
    }

    /// Whether these headers or trailers hold a gRPC status the policy names.
    pub fn judge_grpc(&self, headers: &HeaderMap) -> Option<Failed> {
        if !self.reads_trailers {
            return None;
        }
        let status = grpc_status(headers)?;
        let named = self.model.on.iter().any(|condition| condition.grpc_status() == Some(status));
        named.then(|| Failed { after: asked_for(headers), grpc: true })
    }

    /// Whether an answer that breaks off is a failure the policy names.
    pub fn judge_break(&self) -> Option<Failed> {
        self.judge_error(&SendError::lost(Reason::UpstreamReset, ""))
    }

    /// Whether the trailers of this response have to be seen, if they come at once, before its head goes on.
    pub fn waits_for_trailers(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        self.reads_trailers
            && status == StatusCode::OK
            && is_grpc(headers)
            && !headers.contains_key("grpc-status")
    }

    fn names_status(&self, status: StatusCode) -> bool {
        (status.is_server_error() && self.conditions.has(RetryOn::ServerError))
            || (is_gateway_error(status) && self.conditions.has(RetryOn::GatewayError))
    }

    /// How long before repetition `n` (from 1): at random, and not before the endpoint wants it.
    pub fn wait(&self, n: usize, failed: Failed, rng: &mut SmallRng) -> Result<Duration, Suppressed> {
        match failed.after {
            Some(After::Never) => Err(Suppressed::RetryAfter),
            Some(After::Wait(wait)) if wait > self.model.max_retry_after => Err(Suppressed::RetryAfter),
            // Everybody was told the same: some jitter on top keeps them apart.
            Some(After::Wait(wait)) => Ok(wait + jitter(&self.model.backoff, 1, rng)),
            None => Ok(jitter(&self.model.backoff, n, rng)),
        }
    }
}

/// A random part of base × 2^(n-1), at most max.
fn jitter(backoff: &Backoff, n: usize, rng: &mut SmallRng) -> Duration {
    let doublings = u32::try_from(n.saturating_sub(1)).unwrap_or(u32::MAX).min(31);
    let most = backoff.base.saturating_mul(1 << doublings).min(backoff.max);
    most.mul_f64(rng.random())
}

/// Whether another hop repeats this request already.
fn is_repeated(headers: &HeaderMap) -> bool {
    let number = headers.get(ATTEMPT).and_then(|value| value.to_str().ok()?.parse::<u32>().ok());
    number.is_some_and(|number| number > 1)
}

/// What the endpoint says about when to try again. `Retry-After` in seconds or as a date (RFC 9110 §10.2.3).
fn asked_for(headers: &HeaderMap) -> Option<After> {
    if let Some(pushback) = headers.get(PUSHBACK) {
        let wait = pushback.to_str().ok().and_then(|text| text.trim().parse::<u64>().ok());
        return Some(wait.map_or(After::Never, |ms| After::Wait(Duration::from_millis(ms))));
    }
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(After::Wait(Duration::from_secs(seconds)));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(After::Wait(date.duration_since(std::time::SystemTime::now()).unwrap_or_default()))
}

#[cfg(test)]
mod tests;
