//! Until when an exchange has to be over, and what the next hop is told of it.
//!
//! Owns what a route's limits and the caller's own deadline come to together, and the two fields a deadline travels in: `grpc-timeout` of
//! gRPC calls and [`TIMEOUT`]. Both say how much time is left, never a time of day: no two clocks have to agree. Each hop passes on what is
//! left at its own attempt, so that a deadline becomes shorter with every hop and every attempt, and nobody works for a caller who has gone.
//! Never waits and never cancels: that is `exchange`.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use outrigger_config::model::Timeouts;
use tokio::time::Instant;

use crate::failure::{Failure, Reason};
use crate::field::Known;

/// Milliseconds until the response's headers have to be there and, where the response says how long it is, until its end. Received from a
/// caller it is obeyed; it is written on every attempt that has a limit.
pub const TIMEOUT: HeaderName = HeaderName::from_static("x-outrigger-timeout-ms");
/// gRPC's own, for the whole of a call (gRPC over HTTP/2, "Requests").
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// What is left when nothing can be done any more.
pub const TOO_SHORT: Duration = Duration::from_millis(1);

/// When an exchange has to be over. The default never ends one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Deadline {
    /// Of the response's headers; of the whole response where it says how long it is.
    response: Option<Bound>,
    /// Of the last byte, whatever the exchange is.
    whole: Option<Bound>,
    /// The caller gave the call a `grpc-timeout`.
    grpc: bool,
}

/// One point in time, and what put it there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    at: Instant,
    limit: Duration,
    by: By,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// `timeout.request`
    Request,
    /// `timeout.stream`
    Stream,
    Caller,
}

impl Deadline {
    /// Of a request that arrived at `begun`, and is `known` to have what it has.
    pub fn of(headers: &HeaderMap, known: Known, begun: Instant, limits: Timeouts) -> Self {
        let bound = |limit, by| Some(Bound { at: begun + limit, limit, by });
        let (mut caller, mut call) = (None, None);
        if known.has(Known::DEADLINE) {
            (caller, call) = (headers.get(TIMEOUT), headers.get(GRPC_TIMEOUT));
        }
        let caller = caller.and_then(milliseconds);
        let call = call.filter(|_| known.has(Known::GRPC)).and_then(parse_grpc);
        Self {
            response: earlier(
                limits.request.and_then(|limit| bound(limit, By::Request)),
                caller.and_then(|limit| bound(limit, By::Caller)),
            ),
            whole: earlier(
                limits.stream.and_then(|limit| bound(limit, By::Stream)),
                call.and_then(|limit| bound(limit, By::Caller)),
            ),
            grpc: call.is_some(),
        }
    }

    /// Of the response's headers.
    pub fn of_response(&self) -> Option<Bound> {
        earlier(self.response, self.whole)
    }

    /// Of the response's last byte; `stream`: nobody knows beforehand how long it is.
    pub fn of_body(&self, stream: bool) -> Option<Bound> {
        if stream { self.whole } else { self.of_response() }
    }

    /// Tells the next hop how much time is left of this and of the attempt's own `limit`. Returns what is still to be written behind the other fields;
    /// `known` is what these are.
    pub fn write(
        &self,
        headers: &mut HeaderMap,
        known: Known,
        now: Instant,
        limit: Option<Duration>,
        written: &Written,
    ) -> Option<Told> {
        let left = |bound: Bound| bound.at.saturating_duration_since(now);
        if self.grpc
            && let Some(whole) = self.whole
        {
            headers.insert(GRPC_TIMEOUT, grpc(left(whole)));
        }
        let response = self.of_response().map(left).into_iter().chain(limit).min()?;
        let told = written.told(u64::try_from(response.as_millis()).unwrap_or(u64::MAX));
        // What somebody else said of it does not hold any more.
        if known.has(Known::DEADLINE) {
            told.insert(headers);
            return None;
        }
        Some(told)
    }
}

/// What the next hop is told of a deadline. Not in a map of fields, where to put it costs more than all that is done about a deadline otherwise.
#[derive(Clone, Debug)]
pub struct Told(Rc<Telling>);

#[derive(Debug)]
struct Telling {
    milliseconds: u64,
    /// With the end of its line.
    line: Box<str>,
}

impl Told {
    /// As a line of a head of HTTP/1, with its end.
    pub fn line(&self) -> &[u8] {
        self.0.line.as_bytes()
    }

    /// For a head that is written in another way.
    pub fn insert(&self, headers: &mut HeaderMap) {
        headers.insert(TIMEOUT, HeaderValue::from(self.0.milliseconds));
    }
}

/// What a worker told last. Most attempts have the same limit, and begin before a millisecond of it is over.
#[derive(Debug, Default)]
pub struct Written(RefCell<Option<Told>>);

impl Written {
    fn told(&self, milliseconds: u64) -> Told {
        let last = &mut *self.0.borrow_mut();
        match last {
            Some(told) if told.0.milliseconds == milliseconds => told.clone(),
            _ => {
                let line = format!("X-Outrigger-Timeout-Ms: {milliseconds}\r\n").into();
                last.insert(Told(Rc::new(Telling { milliseconds, line }))).clone()
            }
        }
    }
}

impl Bound {
    pub fn at(&self) -> Instant {
        self.at
    }

    /// Whether it is the caller's own, which says nothing about an endpoint that did not meet it.
    pub fn is_callers(&self) -> bool {
        self.by == By::Caller
    }

    /// Whether what would begin at `then` is of no use to anybody.
    pub fn forbids(&self, then: Instant) -> bool {
        self.at.saturating_duration_since(then) < TOO_SHORT
    }

    /// `what` did not come in time.
    pub fn failure(&self, what: &str) -> Failure {
        let limit = self.limit;
        match self.by {
            By::Request => Failure::new(Reason::RequestTimeout, format!("no {what} within {limit:?}")),
            By::Stream => Failure::new(Reason::StreamTimeout, format!("no {what} within {limit:?}")),
            By::Caller => Failure::new(
                Reason::DeadlineExceeded,
                format!("no {what} within the {limit:?} the caller had left"),
            ),
        }
    }
}

fn earlier(one: Option<Bound>, other: Option<Bound>) -> Option<Bound> {
    one.into_iter().chain(other).min_by_key(|bound| bound.at)
}

/// A number too large to be a limit, or none at all, is none.
fn milliseconds(value: &HeaderValue) -> Option<Duration> {
    let number: u32 = value.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_millis(number.into()))
}

/// At most 8 digits and a unit.
fn parse_grpc(value: &HeaderValue) -> Option<Duration> {
    let (unit, digits) = value.as_bytes().split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = digits.iter().fold(0u64, |number, digit| number * 10 + u64::from(digit - b'0'));
    let limit = match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    };
    // Whoever writes years wants no limit, and no sum of times may overflow.
    (limit <= LONGEST).then_some(limit)
}

/// A year.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// In the finest unit that has room for it, so that as little as possible is lost; never more than `left`.
fn grpc(left: Duration) -> HeaderValue {
    const ROOM: u128 = 100_000_000;
    let (number, unit) = match left {
        _ if left.as_micros() < ROOM => (left.as_micros(), 'u'),
        _ if left.as_millis() < ROOM => (left.as_millis(), 'm'),
        _ => (u128::from(left.as_secs()).min(ROOM - 1), 'S'),
    };
    HeaderValue::try_from(format!("{number}{unit}")).expect("digits and a letter")
}

#[cfg(test)]
mod tests;
