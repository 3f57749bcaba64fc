//! Attempts that go wrong on purpose, so that retries are put to the test.
//!
//! An attempt that is hit is one like any other to the policy that judges it: its time runs, its condition is named or not. Only the endpoint it was meant for never
//! hears of it, and nobody hears anything about the endpoint.

use std::time::Duration;

use http::{Request, Response};
use tokio::time::{Instant, sleep_until};

use super::Attempts;
use crate::body::Body;
use crate::exchange::outgoing::Held;
use crate::failure::Asker;
use crate::policy::fault::Hit;
use crate::upstream::{HttpVersionChoice, Picked, SendError};

pub(super) use crate::policy::fault::is_injected;

impl Attempts<'_> {
    /// What happens to an attempt.
    pub(super) fn hit(&self, request: &Request<Body>) -> Option<Box<Hit>> {
        self.faults?.attempt(request, self.connection)
    }

    /// For two at a time.
    pub(super) async fn attempt_or_fault(
        &self,
        request: Box<Request<Body>>,
        picked: &Picked,
        version: HttpVersionChoice,
        held: &Held,
    ) -> Result<Response<Body>, SendError> {
        match self.hit(&request) {
            None => self.attempt(request, picked, version, held, Instant::now(), Duration::ZERO).await,
            Some(hit) => self.faulty(hit, request, picked, version, held).await,
        }
    }

    pub(super) async fn faulty(
        &self,
        hit: Box<Hit>,
        request: Box<Request<Body>>,
        picked: &Picked,
        version: HttpVersionChoice,
        held: &Held,
    ) -> Result<Response<Body>, SendError> {
        let begun = Instant::now();
        let worker = self.connection.worker.id;
        if !hit.delay.is_zero() {
            let until = begun + hit.delay;
            if let Some((at, late)) = self.until(begun).filter(|(at, _)| *at < until) {
                sleep_until(at).await;
                picked.dismiss();
                let error = late.error(picked);
                self.upstream.attempts.count(worker, Some(error.reason));
                return Err(error);
            }
            sleep_until(until).await;
        }
        let Some(end) = hit.ends() else {
            let now = Instant::now();
            let sent = self.attempt(request, picked, version, held, now, now - begun).await;
            return sent.map(|response| hit.shaped(response));
        };
        picked.dismiss();
        let asker = Asker::new(request.method(), request.headers(), self.connection.tells_details());
        let sent = hit.attempted(end, asker, request);
        self.upstream.attempts.count(worker, Some(hit.reason(end)));
        sent
    }
}
