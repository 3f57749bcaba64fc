//! The end of an exchange: its response on the way to the client.
//!
//! Owns what has to live until the last byte went out (the record, the endpoint's count, the connection's) and the limits that hold
//! while the body flows. One type for the codec, so that no response is boxed.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::Instant;

use super::received::Fate;
use super::tunnel::Opened;
use crate::body::{Body, BodyError};
use crate::downstream::{Connection, InFlight, Interim};
use crate::drain::Active;
use crate::failure::{Failure, Reason, grpc_status, is_grpc};
use crate::field::Known;
use crate::mesh::Destination;
use crate::policy::access::Admitted;
use crate::policy::deadline::{Bound, Deadline};
use crate::policy::fault;
use crate::policy::rate_limit::Counted;
use crate::policy::retry::{Eligible, Failed, RetryPolicy, Suppressed};
use crate::route::{Action, Route, Target};
use crate::telemetry::{Record, Way, Worker};
use crate::timers::{Sleep, Timers};
use crate::upstream::{Admission, Part, Picked};

/// A response's body with everything its end is told to.
#[derive(Debug)]
pub struct Outgoing {
    body: Body,
    /// Gone to the tunnel where the response opened one.
    held: Option<Box<Held>>,
}

/// What an exchange holds until its response ended. Boxed, because it moves from the exchange to the body that the codec reads.
#[derive(Debug)]
pub struct Held {
    pub record: Record,
    pub(super) interim: Interim,
    /// Counts as in flight at its endpoint until dropped.
    pub picked: Option<Picked>,
    /// Counts towards the caps on requests, and on retries, until dropped.
    pub(super) parts: [Option<Part>; 2],
    /// Counts towards the adaptive cap until dropped.
    pub(super) admission: Option<Admission>,
    /// May go on while it is not revoked.
    pub(super) admitted: Option<Admitted>,
    /// Counts against the workload's limits until dropped.
    pub(super) counted: Option<Counted>,
    /// Wants to know how it ends.
    pub(super) fault: Option<Box<fault::Held>>,
    pub(super) tunnel: Option<Box<Opened>>,
    pub(super) request_body: Option<Rc<Cell<Fate>>>,
    /// Whether the answer is one of gRPC, where it came from an endpoint.
    grpc: Option<bool>,
    /// What of it would have been repeated, had it failed before its answer began.
    pub(super) repeatable: Option<Eligible>,
    /// Whose policy says so, and which of its backends answered.
    pub(super) route: Option<(Arc<Route>, usize)>,
    worker: Worker,
    limits: Option<Limits>,
    in_flight: InFlight,
    _active: Option<Active>,
}

impl Held {
    pub(super) fn begin(
        connection: &Rc<Connection>,
        interim: Interim,
        destination: Option<&Arc<Destination>>,
        request: &Request<Body>,
    ) -> Box<Self> {
        let telemetry = &connection.worker.shared.telemetry;
        let service = destination.map_or(&connection.unaddressed, |destination| &destination.metrics);
        let mut record = Record::http(telemetry, connection.worker.id, service, request);
        record.client(connection.peer.address);
        if let Some(caller) = &connection.caller {
            record.peer(caller.label, &caller.name);
        }
        Box::new(Self {
            record,
            interim,
            picked: None,
            parts: [None, None],
            admission: None,
            admitted: None,
            counted: None,
            fault: None,
            tunnel: None,
            request_body: None,
            grpc: None,
            repeatable: None,
            route: None,
            worker: connection.worker.id,
            limits: None,
            in_flight: connection.begin(),
            _active: connection.active(),
        })
    }

    /// Why the request's body did not come whole, if it is its client's doing.
    pub(super) fn request_body_failed(&self) -> Option<Reason> {
        match self.request_body.as_ref()?.get() {
            Fate::Stalled => Some(Reason::RequestBodyStalled),
            Fate::Broken => Some(Reason::ClientClosed),
            Fate::Malformed => Some(Reason::BadRequest),
            Fate::Reading | Fate::Whole => None,
        }
    }

    /// The head of the answer is on its way; a fault may have a hand in what follows.
    pub(super) fn tell_fault(&mut self, response: &mut Response<Body>) {
        if let Some(fault) = &mut self.fault {
            fault.tell(response, &mut self.record);
        }
    }

    /// Whether a fault held it up, so that what came late says nothing about an endpoint.
    pub(super) fn was_delayed(&self) -> bool {
        self.fault.as_ref().is_some_and(|fault| fault.was_delayed())
    }

    /// The limits that go on behind the head: of the pauses of a stream, and of the whole.
    pub(super) fn limit(
        &mut self,
        response: &Response<Body>,
        known: Known,
        idle: Option<Duration>,
        deadline: &Deadline,
        timers: &Rc<Timers>,
    ) {
        let grpc = known.has(Known::GRPC);
        self.grpc = Some(grpc);
        if response.body().is_end_stream() {
            return;
        }
        // Nobody knows beforehand when it ends: events, gRPC, anything without a length.
        let stream = grpc || !known.has(Known::CONTENT_LENGTH);
        let (pause, end) = (idle.filter(|_| stream), deadline.of_body(stream));
        if pause.is_some() || end.is_some() {
            self.limits = Some(Limits { pause, end, grpc, timers: timers.clone(), set: None, moved: false });
        }
    }

    fn see(&mut self, frame: &Frame<Bytes>) {
        if let Some(data) = frame.data_ref() {
            self.record.bytes(Way::Response, data.len() as u64);
        } else if let Some(trailers) = frame.trailers_ref() {
            if let Some(picked) = &self.picked {
                picked.ended(trailers);
            }
            if let Some(fault) = &mut self.fault
                && fault.ended(trailers)
            {
                self.record.fail(&Reason::FaultTrailers.into());
            }
            self.grpc_status(trailers);
            self.too_late(|policy| policy.judge_grpc(trailers));
        }
    }

    /// Counts a failure that another attempt might have healed, but for the beginning of the answer that its caller has.
    fn too_late(&self, failed: impl FnOnce(&RetryPolicy) -> Option<Failed>) {
        if let (Some(eligible), Some((route, backend))) = (self.repeatable, &self.route)
            && let Some(failed) = route.retry.as_ref().and_then(failed)
            && eligible.check(failed).is_ok()
            && let Action::Forward(forward) = &route.action
            && let Target::Cluster(upstream) = &forward.backends[*backend].target
        {
            upstream.attempts.suppressed(self.worker, Suppressed::ResponseBegun);
        }
    }

    fn grpc_status(&mut self, headers: &HeaderMap) {
        if let Some(status) = grpc_status(headers) {
            self.record.grpc_status(status);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let now = Instant::now();
        self.record.ends(now);
        self.in_flight.ends(now);
    }
}

/// What holds for a body.
#[derive(Debug)]
struct Limits {
    /// Between two frames of a stream.
    pause: Option<Duration>,
    end: Option<Bound>,
    /// Its end can be told by trailers.
    grpc: bool,
    timers: Rc<Timers>,
    /// There once the body was waited for: most come with their head, and none of them costs a timer.
    set: Option<Box<Set>>,
    /// A frame came since then.
    moved: bool,
}

#[derive(Debug)]
struct Set {
    pause: Option<Sleep>,
    end: Option<Sleep>,
}

impl Limits {
    /// `moved`: the body gave a frame, rather than nothing. Ready when a limit is exceeded.
    fn poll(&mut self, cx: &mut Context<'_>, moved: bool) -> Poll<Failure> {
        if moved && self.set.is_none() {
            return Poll::Pending;
        }
        let Self { pause, end, ref timers, .. } = *self;
        let set = self.set.get_or_insert_with(|| {
            let pause = pause.map(|after| timers.sleep(after));
            Box::new(Set { pause, end: end.map(|bound| timers.sleep_until(bound.at())) })
        });
        if let (Some(sleep), Some(bound)) = (&mut set.end, end)
            && sleep.poll(cx).is_ready()
        {
            return Poll::Ready(bound.failure("end of the response"));
        }
        let (Some(sleep), Some(after)) = (&mut set.pause, pause) else { return Poll::Pending };
        // Moved once for all frames that came together.
        if std::mem::replace(&mut self.moved, moved) && !moved {
            sleep.reset(Instant::now() + after);
        }
        if moved {
            return Poll::Pending;
        }
        std::task::ready!(sleep.poll(cx));
        let detail = format!("the response did not go on within {after:?}");
        Poll::Ready(Failure::new(Reason::RequestTimeout, detail))
    }
}

impl Outgoing {
    pub(super) fn of(response: Response<Body>, mut held: Box<Held>) -> Response<Self> {
        held.record.status(response.status());
        // What a fault has made of it has to be looked at again.
        let grpc = held.grpc.filter(|_| held.fault.is_none());
        if grpc.unwrap_or_else(|| is_grpc(response.headers())) {
            held.grpc_status(response.headers());
        }
        response.map(|body| match held.tunnel.take() {
            Some(opened) => {
                opened.spawn(held);
                Self { body, held: None }
            }
            None => Self { body, held: Some(held) },
        })
    }

    /// A response nobody keeps a record of.
    pub fn plain(response: Response<Body>) -> Response<Self> {
        response.map(|body| Self { body, held: None })
    }
}

impl http_body::Body for Outgoing {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Self { body, held } = &mut *self;
        let polled = Pin::new(&mut *body).poll_frame(cx);
        let Some(held) = held else { return polled };
        if !matches!(polled, Poll::Ready(None))
            && let Some(admitted) = &held.admitted
            && let Poll::Ready(failure) = admitted.poll_revoked(cx)
        {
            held.record.fail(&failure);
            return Poll::Ready(Some(Err(BodyError::Ended(failure.reason))));
        }
        if let Some(limits) = &mut held.limits
            && !matches!(polled, Poll::Ready(None))
            && let Poll::Ready(failure) = limits.poll(cx, polled.is_ready())
        {
            held.record.fail(&failure);
            if !limits.grpc {
                return Poll::Ready(Some(Err(BodyError::Ended(failure.reason))));
            }
            // The endpoint's stream ends with its body.
            *body = Body::empty();
            held.record.grpc_status(failure.reason.grpc_status());
            return Poll::Ready(Some(Ok(Frame::trailers(failure.trailers()))));
        }
        match &polled {
            Poll::Pending => {}
            Poll::Ready(None) => held.record.complete(),
            Poll::Ready(Some(Ok(frame))) => held.see(frame),
            Poll::Ready(Some(Err(BodyError::Ended(reason)))) if reason.is_injected() => {
                held.record.fail(&(*reason).into());
            }
            Poll::Ready(Some(Err(error))) => {
                if let Some(picked) = &held.picked {
                    picked.broke_off();
                }
                held.too_late(RetryPolicy::judge_break);
                held.record.fail(&Failure::new(Reason::UpstreamReset, error.to_string()));
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        // The codec does not ask again once it knows that the body ended.
        if self.body.is_end_stream()
            && let Some(held) = &mut self.held
        {
            held.record.complete();
        }
    }
}
