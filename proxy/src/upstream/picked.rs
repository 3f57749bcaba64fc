//! A chosen endpoint, for one attempt: counts as in flight there, and is told how the attempt went.
//!
//! Owns what an outcome says about the endpoint. What follows from it is the endpoint's (`endpoint`, `ejection`). What is told here is what the
//! endpoint did and nothing else: whoever invents an answer, or gives up for another's sake, dismisses it.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use outrigger_config::model::{Ejection, EjectionErrors};
use tokio::time::Instant;

use super::ejection::{Outcome, Probe};
use super::{Blame, Endpoint, SendError};
use crate::failure::{Reason, grpc, grpc_status};
use crate::field::Known;
use crate::policy::fault::were_corrupted;
use crate::policy::retry::is_gateway_error;

/// Counts as a request in flight until it is dropped.
#[derive(Debug)]
pub struct Picked {
    endpoint: Arc<Endpoint>,
    /// It is the one that finds out whether the endpoint is well again.
    probe: Option<Probe>,
    at: Instant,
    told: Cell<Told>,
}

#[derive(Clone, Copy, Debug)]
enum Told {
    Nothing,
    /// It answered in that time; how the call ends is in its trailers.
    Begun(Duration),
    All,
}

impl Picked {
    pub(super) fn new(endpoint: Arc<Endpoint>, probe: Option<Probe>, at: Instant) -> Self {
        endpoint.begin();
        Self { endpoint, probe, at, told: Cell::new(Told::Nothing) }
    }

    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// It answered: `latency` is from sending the request to the response's headers, which are `known` to be what they are.
    pub fn answered(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        known: Known,
        latency: Duration,
        now: Instant,
    ) {
        // An app that is not there answers fast through whatever stands before it.
        if is_gateway_error(status) {
            self.endpoint.failed(latency, now);
        } else {
            self.endpoint.succeeded(latency, now);
        }
        let code = if known.has(Known::GRPC_STATUS) { grpc_status(headers) } else { None };
        if code.is_none() && status == StatusCode::OK && self.probe.is_none() && known.has(Known::GRPC) {
            return self.told.set(Told::Begun(latency));
        }
        self.tell(|rules| outcome(status, code, rules), latency, now);
    }

    /// How a gRPC call ended, where its headers did not say it.
    pub fn ended(&self, trailers: &HeaderMap) {
        if let Told::Begun(latency) = self.told.get() {
            let code = grpc_status(trailers);
            if code.is_none() && were_corrupted(trailers) {
                return self.dismiss();
            }
            self.tell(|rules| outcome(StatusCode::OK, code, rules), latency, Instant::now());
        }
    }

    /// Its answer broke off.
    pub fn broke_off(&self) {
        if let Told::Begun(latency) = self.told.get() {
            self.tell(|_| Outcome::Failure, latency, Instant::now());
        }
    }

    /// It did not answer, after `latency`.
    pub fn broke(&self, error: &SendError, latency: Duration, now: Instant) {
        match error.blame {
            Blame::Reason => {}
            Blame::Unreached => return self.unreached(latency, now),
            Blame::Nothing => {
                self.endpoint.failed(latency, now);
                return self.dismiss();
            }
        }
        match error.reason {
            Reason::ConnectFailed
            | Reason::ConnectTimeout
            | Reason::UpstreamTlsFailed
            | Reason::DnsFailed => self.unreached(latency, now),
            // Ours.
            Reason::Overloaded | Reason::Internal => self.dismiss(),
            reason if reason.is_injected() => self.dismiss(),
            _ => self.failed(latency, now),
        }
    }

    /// It did what it was asked for, after `latency`.
    pub fn observe(&self, latency: Duration, now: Instant) {
        self.endpoint.succeeded(latency, now);
        self.tell(|_| Outcome::Success, latency, now);
    }

    /// It failed, after `latency`: that may raise its estimate and never lowers it.
    pub fn failed(&self, latency: Duration, now: Instant) {
        self.endpoint.failed(latency, now);
        self.tell(|_| Outcome::Failure, latency, now);
    }

    /// No connection to it stands, after `latency`.
    pub fn unreached(&self, latency: Duration, now: Instant) {
        self.endpoint.failed(latency, now);
        self.tell(|_| Outcome::Unreached, latency, now);
    }

    /// The proxy in front of it refused, after `latency`, so that it is not asked for more than it can do: that ejects nobody, and never lowers its estimate.
    pub fn shed(&self, latency: Duration, now: Instant) {
        self.endpoint.failed(latency, now);
        self.dismiss();
    }

    /// Nothing is to be learned from this attempt.
    pub fn dismiss(&self) {
        if let Some(probe) = self.probe.filter(|_| !matches!(self.told.get(), Told::All)) {
            self.endpoint.withdraw(probe, Instant::now());
        }
        self.told.set(Told::All);
    }

    fn tell(&self, outcome: impl FnOnce(&Ejection) -> Outcome, latency: Duration, now: Instant) {
        if !matches!(self.told.replace(Told::All), Told::All) {
            self.endpoint.tell(outcome, latency, self.probe, now);
        }
    }

    /// Dropped without a word: the caller gave up.
    #[cold]
    fn abandoned(&self) {
        let now = Instant::now();
        let elapsed = now.saturating_duration_since(self.at);
        if self.endpoint.is_slow(elapsed) {
            self.failed(elapsed, now);
        } else {
            self.dismiss();
        }
    }
}

impl Drop for Picked {
    fn drop(&mut self) {
        self.endpoint.end();
        if matches!(self.told.get(), Told::Nothing) {
            self.abandoned();
        }
    }
}

fn outcome(status: StatusCode, code: Option<u16>, rules: &Ejection) -> Outcome {
    let failed = match rules.errors {
        EjectionErrors::Gateway => is_gateway_error(status) || code == Some(grpc::UNAVAILABLE),
        EjectionErrors::Server => {
            status.is_server_error()
                || matches!(code, Some(grpc::UNKNOWN | grpc::INTERNAL | grpc::UNAVAILABLE | grpc::DATA_LOSS))
        }
    };
    if failed { Outcome::Failure } else { Outcome::Success }
}
