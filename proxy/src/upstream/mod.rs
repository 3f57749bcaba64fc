//! Towards the endpoints: which one (`cluster`, `balance`), over which connection (`pool`), and how it is opened (`connect`).
//!
//! What the rest of the proxy uses, in the order of a request:
//! 1. [`Cluster::ready`] waits for a usable endpoint, [`Cluster::pick`] chooses one and counts the request there until the
//!    returned [`Picked`] is dropped (keep it until the response's body ended); tell it the outcome (`answered`, `broke`, ...), from which
//!    the balancer and the ejection of endpoints learn, or `dismiss` it.
//! 2. [`Pools::send`] sends the request to that endpoint and returns its response, whose body gives the connection back when it
//!    ended. Framing is done here: `Host` and `:authority`, the target's form, connection-level headers of the other version.
//! 3. After a 101, or a 2xx to CONNECT, [`crate::upgrade::take`] takes the tunnel out of the response.
//!
//! For TCP: [`Pools::open_tcp`] and [`relay`]. Cancelling is dropping: of the future of `send`, or of the response's body.
//! Never retries what may have been processed: [`SendError`] says what is known, and the caller decides.

mod adaptive;
mod balance;
mod budget;
mod caps;
mod circuit;
mod cluster;
pub mod connect;
mod ejection;
mod endpoint;
mod gate;
pub mod health;
pub(crate) mod http1;
pub(crate) mod http2;
mod latencies;
mod lent;
mod picked;
mod pool;
pub mod relay;
pub(crate) mod replay;
mod tls;

#[cfg(test)]
mod tests;

pub use adaptive::Admission;
pub use balance::affinity::Affinity;
pub use balance::{Asked, EndpointSet, NoEndpoint};
pub use budget::Sent;
pub use caps::{Cap, Kind, Part, RouteLimits, Use};
pub use circuit::Circuit;
pub use cluster::Cluster;
pub use ejection::EjectionReason;
pub use endpoint::{Address, Checks, Ejected, EjectedState, Endpoint, EndpointId, Usable};
pub use latencies::Latencies;
pub use lent::Returned;
pub use picked::Picked;
pub use pool::{Pools, To};

use std::fmt;

use http::Request;

use crate::body::Body;
use crate::failure::{Failure, Reason};

/// Which HTTP a request goes upstream in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HttpVersionChoice {
    Http1,
    Http2,
}

/// Why there is no response.
#[derive(Debug)]
pub struct SendError {
    pub reason: Reason,
    /// Which endpoint, and what happened there; for operators.
    pub detail: Box<str>,
    /// The request, whole, if it was not processed and nothing of its body is lost: it may be sent again whatever its method.
    pub unsent: Option<Box<Request<Body>>>,
    /// The endpoint certainly did not process it: nothing was written, or it said so (REFUSED_STREAM, GOAWAY).
    /// True whenever `unsent` is `Some`; also without it, when the body was already streaming out.
    pub unprocessed: bool,
    /// A copy of the request where a connection that had been idle ended without a word of an answer: most likely the endpoint closed it before
    /// the request came. It is safe and has no body, so that it may be sent again even if it was read (RFC 9112 §9.3.1).
    pub again: Option<Box<Request<Body>>>,
    pub blame: Blame,
}

/// What a failed attempt says about its endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// What its reason says.
    Reason,
    /// A connection that had just been opened ended before it took anything: as good as none.
    Unreached,
    /// Nothing: it refused in an orderly way, or closed a connection that nobody used.
    Nothing,
}

impl SendError {
    fn unsent(failure: Failure, request: Box<Request<Body>>) -> Self {
        let Failure { reason, detail } = failure;
        let detail = detail.unwrap_or_default();
        Self { reason, detail, unsent: Some(request), unprocessed: true, again: None, blame: Blame::Reason }
    }

    /// Nobody was asked.
    pub(crate) fn injected(failure: Failure) -> Self {
        let Failure { reason, detail } = failure;
        Self::lost(reason, detail.unwrap_or_default())
    }

    pub(crate) fn lost(reason: Reason, detail: impl Into<Box<str>>) -> Self {
        let detail = detail.into();
        Self { reason, detail, unsent: None, unprocessed: false, again: None, blame: Blame::Reason }
    }
}

impl From<SendError> for Failure {
    fn from(error: SendError) -> Self {
        Self::new(error.reason, error.detail)
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.detail)
    }
}

impl std::error::Error for SendError {}
