//! Two endpoints at a time: the second one is asked when the first has been silent for a while, and the first good answer is taken.
//!
//! Only where a policy says so, and only requests it lets be processed twice. The one that is not taken is cancelled: over HTTP/1 its connection closes,
//! over HTTP/2 its stream is reset. Each endpoint reads a body of its own, and the second one's begins only once all of it is here, so that the
//! pace of one never holds up the other.

use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, select};
use http::header::UPGRADE;
use http::{HeaderValue, Request, Response};
use outrigger_config::model::Fraction;
use tokio::time::{Instant, timeout};

use super::Attempts;
use crate::body::Body;
use crate::exchange::is_connect;
use crate::exchange::outgoing::Held;
use crate::policy::retry::{ATTEMPT, Hedge, RetryPolicy};
use crate::upstream::{HttpVersionChoice, Latencies, Picked, SendError};

type Sent = Result<Response<Body>, SendError>;

/// A first attempt on its way; counted when it is dropped. One that is given up, for the second one's sake or at a timeout, would have taken at least as long: left
/// out, the slow ones would shorten the wait for those that come after them. But who gives up before that time says nothing.
pub(super) struct Watched<'a> {
    latencies: &'a Latencies,
    share: Fraction,
    begun: Instant,
    answered: bool,
}

impl Watched<'_> {
    /// It has a good answer.
    pub(super) fn answered(mut self) {
        self.answered = true;
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        let now = Instant::now();
        let took = now - self.begun;
        let says = |known: Option<Duration>| known.is_some_and(|known| took >= known);
        if self.answered || says(self.latencies.percentile(self.share, now)) {
            self.latencies.add(took, now);
        }
    }
}

/// What came of it.
pub(super) struct Hedged {
    sent: Sent,
    /// Who sent it.
    picked: Picked,
    /// Who else was asked.
    other: Option<Picked>,
    /// Whether the second one's was taken.
    second: bool,
}

impl Attempts<'_> {
    /// After how long a second endpoint is asked for the same; `None` for never.
    pub(super) fn hedge_after(&self, request: &Request<Body>) -> Option<Duration> {
        let hedge = self.policy.and_then(RetryPolicy::hedge)?;
        let may = self.original.is_some() && !is_connect(request) && !request.headers().contains_key(UPGRADE);
        match hedge.percentile.filter(|_| may) {
            None => may.then_some(hedge.after),
            Some(share) => {
                let known = self.upstream.cluster.latencies().percentile(share, Instant::now());
                known.map(|time| time.max(hedge.after))
            }
        }
    }

    /// Watches how long a first attempt takes, where that decides when a second one is made.
    pub(super) fn watched(&self, request: &Request<Body>, begun: Instant) -> Option<Watched<'_>> {
        let share = self.policy.and_then(RetryPolicy::hedge)?.percentile?;
        let first = self.tried.len() == 1 && !request.headers().contains_key(ATTEMPT);
        first.then(|| Watched { latencies: self.upstream.cluster.latencies(), share, begun, answered: false })
    }

    /// One attempt, or two.
    pub(super) async fn hedged(
        &self,
        after: Duration,
        request: Box<Request<Body>>,
        first: Picked,
        version: HttpVersionChoice,
        held: &Held,
    ) -> Hedged {
        let mut other = None;
        let (sent, second) = {
            let mut one = pin!(self.attempt_or_fault(request, &first, version, held));
            match timeout(after, one.as_mut()).await {
                Ok(sent) => (sent, false),
                Err(_) => match self.beside() {
                    Ok((picked, request)) => {
                        let two = pin!(self.attempt_or_fault(request, other.insert(picked), version, held));
                        match select(one, two).await {
                            Either::Left((sent, _)) if self.is_good(&sent) => (sent, false),
                            Either::Right((sent, _)) if self.is_good(&sent) => (sent, true),
                            Either::Left((sent, two)) => self.better((sent, false), (two.await, true)),
                            Either::Right((sent, one)) => self.better((sent, true), (one.await, false)),
                        }
                    }
                    Err(why) => {
                        self.upstream.attempts.hedged(self.connection.worker.id, why);
                        (one.await, false)
                    }
                },
            }
        };
        match other {
            Some(other) if second => Hedged { sent, picked: other, other: Some(first), second },
            other => Hedged { sent, picked: first, other, second },
        }
    }

    /// Notes who else was asked, and goes on with what was taken.
    pub(super) fn took(&mut self, hedged: Hedged, held: &mut Held) -> (Sent, Picked) {
        let Hedged { sent, picked, other, second } = hedged;
        if let Some(other) = other {
            let asked = if second { &picked } else { &other };
            self.tried.push(asked.endpoint().id);
            held.record.attempt(&self.settings.name, &asked.endpoint().address);
            if !second {
                held.record.answered_by(&picked.endpoint().address);
            }
            // Both may have done what they were asked for.
            self.processed = true;
            let outcome = match self.is_good(&sent) {
                false => Hedge::Failed,
                true if second => Hedge::Won,
                true => Hedge::Lost,
            };
            self.upstream.attempts.hedged(self.connection.worker.id, outcome);
        }
        (sent, picked)
    }

    /// Another endpoint, and the request for it.
    fn beside(&self) -> Result<(Picked, Box<Request<Body>>), Hedge> {
        let policy = self.policy.ok_or(Hedge::Endpoint)?;
        if self.tried.len() > policy.attempts() {
            return Err(Hedge::Endpoint);
        }
        let now = Instant::now();
        if self.bound.is_some_and(|bound| bound.forbids(now)) {
            return Err(Hedge::Deadline);
        }
        let mut request = self.original.as_ref().and_then(|original| original.beside()).ok_or(Hedge::Body)?;
        let picked = self.pick_now(now).map_err(|_| Hedge::Endpoint)?;
        if self.tried.contains(&picked.endpoint().id) {
            return Err(Hedge::Endpoint);
        }
        if !self.upstream.cluster.sent.repeat(now, policy.budget()) {
            return Err(Hedge::Budget);
        }
        request.headers_mut().insert(ATTEMPT, HeaderValue::from(self.tried.len() + 1));
        Ok((picked, Box::new(request)))
    }

    /// An answer that needs no other: none of the failures the policy names.
    fn is_good(&self, sent: &Sent) -> bool {
        sent.as_ref().is_ok_and(|response| {
            let failed = |policy: &RetryPolicy| policy.judge_head(response.status(), response.headers());
            self.policy.and_then(failed).is_none()
        })
    }

    /// Of two, none of which was taken as it came.
    fn better(&self, earlier: (Sent, bool), later: (Sent, bool)) -> (Sent, bool) {
        if self.is_good(&later.0) || earlier.0.is_err() { later } else { earlier }
    }
}
