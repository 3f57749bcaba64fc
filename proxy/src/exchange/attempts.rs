//! Until an endpoint answers: which one, over which version, how often, and within what time.
//!
//! Without a policy only a request is tried again that certainly was not processed and is whole: the endpoint could not be reached, refused the
//! stream, or the request was handed back unsent. So is a safe one without a body that met an idle connection just being closed. A policy adds
//! failures that may have been processed; for those the head and, up to a limit, the body are kept from the beginning. Every repetition draws on the
//! destination's budget, whoever asks for it, unless the endpoint was not even reached.

mod fault;
mod hedge;

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Request, Response, Version};
use http_body::{Body as _, Frame};
use http_body_util::BodyExt as _;
use outrigger_config::model::{self, HashOn, Retry, RetryBudget, UpstreamHttp};
use smallvec::SmallVec;
use tokio::time::{Instant, sleep, timeout};

use super::outgoing::Held;
use super::replay::Replay;
use super::{is_extended_connect, is_http2};
use crate::body::{Body, BodyError};
use crate::downstream::Connection;
use crate::failure::{self, Failure, Reason};
use crate::field::Known;
use crate::policy::deadline::{Bound, Deadline};
use crate::policy::fault::Faults;
use crate::policy::retry::{ATTEMPT, Eligible, Failed, RetryPolicy, Suppressed, is_gateway_error};
use crate::route::{Route, Upstream};
use crate::upstream::{
    Affinity, Asked, Cluster, EndpointId, HttpVersionChoice, Kind, NoEndpoint, Part, Picked, Returned,
    RouteLimits, SendError, To,
};

/// What this hop has taken of a deadline at least by the time of its first attempt, for which the clock is not read again.
const LEAST_TAKEN: Duration = Duration::from_micros(1);

/// Attempts after the first, without a policy (design.md section 5).
const MORE: usize = Retry::DEFAULT_ATTEMPTS as usize;

/// The attempts of one request.
pub struct Attempts<'a> {
    upstream: &'a Upstream,
    policy: Option<&'a RetryPolicy>,
    caps: Option<&'a Arc<RouteLimits>>,
    /// Those that hit attempts.
    faults: Option<&'a Faults>,
    /// The attempt that was made last was hit: its endpoint was not asked.
    injected: bool,
    /// Of the attempt that is made, if it is not the first.
    retrying: Option<Part>,
    hash: &'a [HashOn],
    settings: Arc<model::Cluster>,
    /// Of one attempt.
    limit: Option<Duration>,
    deadline: Deadline,
    /// Of all of them.
    bound: Option<Bound>,
    connection: &'a Connection,
    /// Of the request.
    known: Known,
    tried: SmallVec<[EndpointId; MORE + 1]>,
    /// Which endpoint the request belongs to, where its cluster goes by that.
    affinity: Affinity,
    /// Whether the policy may repeat this request; without a policy there is nothing to ask.
    eligible: Eligible,
    /// What is needed to begin again, where the policy may ask for that.
    original: Option<Original>,
    /// The head of the attempt that was made last, where that is kept.
    returned: Returned,
    /// Whether an attempt may have been processed.
    processed: bool,
}

/// A request as it was before its first attempt, but for the head where it comes back with each attempt.
struct Original {
    /// Where two attempts may be under way at a time, or an attempt end without having been one.
    copy: Option<Box<Parts>>,
    /// `None` for a request without one.
    body: Option<Replay>,
}

/// Why there may be another attempt.
enum Cause {
    /// Nothing happened; where the request came back whole it is here. `unreached`: there was not even a connection, so that the endpoint
    /// carried no load and another attempt adds none.
    Unprocessed { request: Option<Box<Request<Body>>>, unreached: bool },
    /// An idle connection ended under it; see [`SendError::again`].
    Stale(Box<Request<Body>>),
    /// The policy names this failure.
    Named(Failed),
}

impl<'a> Attempts<'a> {
    pub fn new(
        upstream: &'a Upstream,
        route: &'a Route,
        known: Known,
        deadline: Deadline,
        connection: &'a Connection,
    ) -> Self {
        Self {
            upstream,
            policy: route.retry.as_ref(),
            caps: route.caps.as_ref(),
            faults: route.faults.as_deref().filter(|faults| faults.is_behind_retries()),
            injected: false,
            retrying: None,
            hash: &route.hash,
            settings: upstream.cluster.settings(),
            limit: route.timeouts.backend_request,
            deadline,
            bound: deadline.of_response(),
            connection,
            known,
            tried: SmallVec::new(),
            affinity: Affinity::default(),
            eligible: Eligible::default(),
            original: None,
            returned: Returned::default(),
            processed: false,
        }
    }

    /// Borrowed, and the request boxed: a future keeps what it is given beside what it makes of it, once a level. `now` is read again after each wait.
    pub async fn run(
        &mut self,
        mut request: Box<Request<Body>>,
        held: &mut Held,
        mut now: Instant,
    ) -> Result<Response<Body>, Failure> {
        let cluster = &self.upstream.cluster;
        let version = version(&request, self.known, self.settings.http);
        if let Some(bound) = self.bound.filter(|bound| bound.forbids(now)) {
            return Err(bound.failure("attempt"));
        }
        held.parts[0] = Some(Part::take(Kind::Requests, cluster.circuit(), self.caps)?);
        held.admission = cluster.circuit().admit()?;
        let client = self.connection.peer.address.ip();
        self.affinity = self
            .connection
            .worker
            .with_rng(|rng| Affinity::of(&request, &self.settings.balance, self.hash, client, rng));
        cluster.sent.request(now);
        if let Some(policy) = self.policy {
            self.eligible = policy.eligible(request.method(), request.headers(), self.known);
            if self.eligible.at_all() {
                request = self.keep(request);
            }
        }
        loop {
            let picked = match self.pick_now(now) {
                Ok(picked) => picked,
                Err(_) => {
                    let picked = Box::pin(self.pick()).await?;
                    now = Instant::now();
                    picked
                }
            };
            self.tried.push(picked.endpoint().id);
            held.record.attempt(&self.settings.name, &picked.endpoint().address);
            let (mut sent, picked) = match self.hedge_after(&request) {
                None => match self.hit(&request) {
                    None => {
                        (self.attempt(request, &picked, version, held, now, Duration::ZERO).await, picked)
                    }
                    Some(hit) => (Box::pin(self.faulty(hit, request, &picked, version, held)).await, picked),
                },
                // Boxed: it is two attempts in size.
                Some(after) => {
                    let hedged = Box::pin(self.hedged(after, request, picked, version, held)).await;
                    self.took(hedged, held)
                }
            };
            // What the client did wrong is not the endpoint's failure.
            if let (Err(error), Some(reason)) = (&sent, held.request_body_failed()) {
                return Err(Failure { reason, detail: Some(error.detail.clone()) });
            }
            self.injected = self.faults.is_some() && fault::is_injected(&sent);
            let mut cause = self.judge(&mut sent);
            if cause.is_none()
                && let (Ok(response), Some(policy)) = (&mut sent, self.policy)
                && policy.waits_for_trailers(response.status(), response.headers())
            {
                cause = Box::pin(look_ahead(response, policy, &picked)).await.map(Cause::Named);
            }
            let Some(cause) = cause else { return self.done(sent, picked, held) };
            match self.again(cause) {
                Ok((wait, next)) => {
                    drop((sent, picked));
                    if !wait.is_zero() {
                        Box::pin(sleep(wait)).await;
                    }
                    request = next;
                    now = Instant::now();
                }
                Err(why) => {
                    self.upstream.attempts.suppressed(self.connection.worker.id, why);
                    return self.done(sent, picked, held).map_err(|failure| explained(failure, why));
                }
            }
        }
    }

    fn asked(&self) -> Asked<'_> {
        Asked { avoid: &self.tried, hash: self.affinity.hash, session: self.affinity.session }
    }

    fn done(
        &mut self,
        sent: Result<Response<Body>, SendError>,
        picked: Picked,
        held: &mut Held,
    ) -> Result<Response<Body>, Failure> {
        if let Some(head) = self.returned.take() {
            self.connection.worker.pools.spare().give_head(head.headers, head.extensions);
        }
        let mut response = sent?;
        self.affinity.tell(&self.settings.balance, &picked, &mut response);
        if self.policy.is_some() && self.eligible.at_all() && !response.body().is_end_stream() {
            held.repeatable = Some(self.eligible);
        }
        held.picked = Some(picked);
        held.parts[1] = self.retrying.take();
        Ok(response)
    }

    /// Sets aside what another attempt would begin with.
    fn keep(&mut self, mut request: Box<Request<Body>>) -> Box<Request<Body>> {
        let copied = self.faults.is_some() || self.policy.is_some_and(|policy| policy.hedge().is_some());
        let copy = copied.then(|| {
            let (head, body) = std::mem::take(&mut *request).into_parts();
            let copy = Box::new(head.clone());
            *request = Request::from_parts(head, body);
            copy
        });
        let body = (!request.body().is_end_stream()).then(|| {
            let replay = Replay::new(std::mem::take(request.body_mut()), self.connection.worker.pools.kept());
            *request.body_mut() = replay.again().expect("nothing has gone yet");
            replay
        });
        self.original = Some(Original { copy, body });
        request
    }

    /// A usable endpoint, waited for (design.md section 5: at most 3 s).
    async fn pick(&self) -> Result<Picked, Failure> {
        let cluster = &self.upstream.cluster;
        let patience = Instant::now() + WAIT;
        let earlier = self.bound.filter(|bound| bound.at() < patience);
        let refused = |why: &dyn std::fmt::Display| {
            let name = &cluster.settings().name;
            match earlier {
                Some(bound) => {
                    bound.failure(&format!("endpoint of {name} became ready: {why}, and no response"))
                }
                None => Failure::new(
                    Reason::NoEndpoint,
                    format!("no endpoint of {name} became ready within {WAIT:?}: {why}"),
                ),
            }
        };
        let until = earlier.map_or(patience, |bound| bound.at());
        cluster.ready(until).await.map_err(|why| refused(&why))?;
        self.pick_now(Instant::now()).map_err(|why| refused(&why))
    }

    fn pick_now(&self, now: Instant) -> Result<Picked, NoEndpoint> {
        let cluster = &self.upstream.cluster;
        self.connection.worker.with_rng(|rng| cluster.pick(now, rng, self.asked()))
    }

    /// One attempt, which begins now, at `begun`, after it `waited`.
    async fn attempt(
        &self,
        mut request: Box<Request<Body>>,
        picked: &Picked,
        version: HttpVersionChoice,
        held: &Held,
        begun: Instant,
        waited: Duration,
    ) -> Result<Response<Body>, SendError> {
        let (cluster, worker) = (&self.upstream.cluster, &self.connection.worker);
        let watched = self.watched(&request, begun);
        let (headers, then) = (request.headers_mut(), begun + LEAST_TAKEN);
        let told = self.deadline.write(headers, self.known, then, self.limit, &worker.written);
        let (idle_timeout, multiplex) = (self.settings.idle_timeout, self.settings.multiplex);
        let returned = self.original.as_ref().map(|_| &self.returned);
        let (endpoint, told, interim) = (picked.endpoint(), told.as_ref(), Some(&held.interim));
        let route = self.caps;
        let to = To { cluster, endpoint, route, idle_timeout, multiplex, interim, returned, told };
        let mut sending = pin!(worker.pools.send_at(begun, to, version, request));
        let sent = match self.until(begun - waited) {
            None => sending.as_mut().await,
            Some((at, late)) => match worker.timers.before(at, sending.as_mut()).await {
                Some(sent) => sent,
                None => Err(late.error(picked)),
            },
        };
        let now = Instant::now();
        let known = sent.as_ref().map(|response| Known::of(response.headers())).unwrap_or_default();
        if sent.as_ref().is_ok_and(|response| !is_gateway_error(response.status())) {
            if let Some(watched) = watched {
                watched.answered();
            }
            if let Some(admission) = &held.admission {
                admission.answered(now - begun, now);
            }
        }
        match &sent {
            Ok(response) => match proxys_own(response, known) {
                Some(reason) if reason.is_injected() => picked.dismiss(),
                // Believed of a proxy that proved who it is: an app without one must not be able to talk itself out of an ejection.
                Some(reason) if reason.sheds() && picked.endpoint().meshed => {
                    picked.shed(now - begun, now);
                }
                _ => picked.answered(response.status(), response.headers(), known, now - begun, now),
            },
            // What the client did wrong is not the endpoint's failure.
            Err(_) if held.request_body_failed().is_some() => picked.dismiss(),
            // What was held up on purpose had less time than it was meant to have.
            Err(error) if error.reason.is_timeout() && (!waited.is_zero() || held.was_delayed()) => {
                picked.dismiss();
            }
            // Who gives less time than it usually takes learns nothing about the endpoint.
            Err(error)
                if error.reason == Reason::DeadlineExceeded
                    && now - begun < picked.endpoint().estimate(now) * 2 =>
            {
                picked.dismiss();
            }
            Err(error) => picked.broke(error, now - begun, now),
        }
        let reason = sent.as_ref().err().map(|error| error.reason);
        if held.request_body_failed().is_none() || reason.is_none() {
            self.upstream.attempts.count(worker.id, reason);
        }
        sent
    }

    /// When an attempt that began at `begun` is over, and what it is then.
    fn until(&self, begun: Instant) -> Option<(Instant, Late)> {
        let own = self.limit.map(|limit| (begun + limit, Late::Attempt(limit)));
        let all = self.bound.map(|bound| (bound.at(), Late::Exchange(bound)));
        match (own, all) {
            (Some(own), Some(all)) => Some(if own.0 < all.0 { own } else { all }),
            (own, all) => own.or(all),
        }
    }

    /// Whether an attempt failed in a way that allows another one.
    fn judge(&mut self, sent: &mut Result<Response<Body>, SendError>) -> Option<Cause> {
        let error = match sent {
            Err(error) => error,
            Ok(response) => {
                self.processed |= !self.injected;
                return self.policy?.judge_head(response.status(), response.headers()).map(Cause::Named);
            }
        };
        if error.reason == Reason::Overloaded {
            // More of the same would be refused, too, or take the place of others.
            return None;
        }
        self.processed |= !(error.unprocessed || self.injected);
        let whole = self.original.as_ref().is_some_and(|original| original.is_whole());
        if error.unsent.is_some() || (error.unprocessed && whole) {
            let unreached =
                matches!(error.reason, Reason::ConnectFailed | Reason::ConnectTimeout | Reason::FaultRefused);
            Some(Cause::Unprocessed { request: error.unsent.take(), unreached })
        } else if let Some(request) = error.again.take() {
            Some(Cause::Stale(request))
        } else {
            self.policy.and_then(|policy| policy.judge_error(error)).map(Cause::Named)
        }
    }

    /// The next attempt, and how long to wait for it.
    fn again(&mut self, cause: Cause) -> Result<(Duration, Box<Request<Body>>), Suppressed> {
        let worker = &self.connection.worker;
        let made = self.tried.len();
        if made > self.policy.map_or(MORE, RetryPolicy::attempts) {
            return Err(Suppressed::Attempts);
        }
        let original = || {
            let again = self.original.as_ref().and_then(|original| original.again(self.returned.take()));
            again.map(Box::new).ok_or(Suppressed::BodyTooLarge)
        };
        // An attempt that was hit put no load on anybody either.
        let is_free = self.injected || matches!(cause, Cause::Unprocessed { unreached: true, .. });
        let (wait, mut request) = match cause {
            Cause::Unprocessed { request: Some(request), .. } => (Duration::ZERO, request),
            Cause::Unprocessed { request: None, .. } => (Duration::ZERO, original()?),
            Cause::Stale(request) => (Duration::ZERO, request),
            Cause::Named(failed) => {
                let policy = self.policy.expect("only a policy names failures");
                self.eligible.check(failed)?;
                let wait = worker.with_rng(|rng| policy.wait(made, failed, rng))?;
                (wait, original()?)
            }
        };
        let now = Instant::now();
        if self.bound.is_some_and(|bound| bound.forbids(now + wait)) {
            return Err(Suppressed::Deadline);
        }
        let budget = self.policy.map_or(&DEFAULT_BUDGET, RetryPolicy::budget);
        if !is_free && !self.upstream.cluster.sent.repeat(now, budget) {
            return Err(Suppressed::Budget);
        }
        self.retrying = None;
        let part = Part::take(Kind::Retries, self.upstream.cluster.circuit(), self.caps);
        self.retrying = Some(part.map_err(|_| Suppressed::Cap)?);
        if self.processed {
            request.headers_mut().insert(ATTEMPT, HeaderValue::from(made + 1));
        }
        Ok((wait, request))
    }
}

const DEFAULT_BUDGET: RetryBudget = RetryBudget::DEFAULT;

impl Original {
    fn is_whole(&self) -> bool {
        self.body.as_ref().is_none_or(Replay::is_whole)
    }

    /// `returned`: the head of the attempt before.
    fn again(&self, returned: Option<Parts>) -> Option<Request<Body>> {
        let head = match &self.copy {
            Some(copy) => Parts::clone(copy),
            None => returned?,
        };
        let body = match &self.body {
            None => Body::empty(),
            Some(replay) => replay.again()?,
        };
        Some(Request::from_parts(head, body))
    }

    /// For an attempt beside the one under way, which has read the whole body.
    fn beside(&self) -> Option<Request<Body>> {
        let body = match &self.body {
            None => Body::empty(),
            Some(replay) => replay.beside()?,
        };
        Some(Request::from_parts(Parts::clone(self.copy.as_ref()?), body))
    }
}

/// What the callee's proxy says itself its app has nothing to do with.
fn proxys_own(response: &Response<Body>, known: Known) -> Option<Reason> {
    // Looked for only in what looks like a failure: of a success the endpoint may have the credit.
    let failed = response.status().is_client_error()
        || response.status().is_server_error()
        || known.has(Known::GRPC_STATUS);
    if failed && known.has(Known::PROXY_STATUS) { failure::proxys_own(response.headers()) } else { None }
}

/// Waits a moment for the end of a gRPC call that fails without a message: servers send its headers and trailers together. Whatever
/// came is put back.
async fn look_ahead(response: &mut Response<Body>, policy: &RetryPolicy, picked: &Picked) -> Option<Failed> {
    let body = response.body_mut();
    let first = timeout(TRAILERS_WAIT, body.frame()).await.ok()?;
    let rest = std::mem::take(body);
    let first = first?;
    let trailers = first.as_ref().ok().and_then(Frame::trailers_ref);
    if let Some(trailers) = trailers {
        picked.ended(trailers);
    }
    let failed = trailers.and_then(|trailers| policy.judge_grpc(trailers));
    *body = Body::wrapped(Resumed { first: Some(first), rest });
    failed
}

/// How long the head of a gRPC response is held back for that.
const TRAILERS_WAIT: Duration = Duration::from_millis(100);

/// A body whose first frame was looked at.
struct Resumed {
    first: Option<Result<Frame<Bytes>, BodyError>>,
    rest: Body,
}

impl http_body::Body for Resumed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.first.take() {
            Some(first) => Poll::Ready(Some(first)),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.rest.is_end_stream()
    }
}

const WAIT: Duration = Cluster::DEFAULT_WAIT;

/// Whose time an attempt used up.
enum Late {
    Attempt(Duration),
    Exchange(Bound),
}

impl Late {
    fn error(&self, picked: &Picked) -> SendError {
        let address = &picked.endpoint().address;
        let failure = match self {
            Self::Attempt(limit) => {
                Failure::new(Reason::AttemptTimeout, format!("{address} did not answer within {limit:?}"))
            }
            Self::Exchange(bound) => bound.failure(&format!("response of {address}")),
        };
        let detail = failure.detail.unwrap_or_default();
        SendError::lost(failure.reason, detail)
    }
}

fn explained(failure: Failure, why: Suppressed) -> Failure {
    let detail = failure.detail.unwrap_or_default();
    Failure::new(failure.reason, format!("{detail} (not tried again: {})", why.label()))
}

fn version(request: &Request<Body>, known: Known, http: UpstreamHttp) -> HttpVersionChoice {
    let two = match http {
        UpstreamHttp::Http2 => true,
        UpstreamHttp::AsReceived => is_http2(request.version()),
        UpstreamHttp::Http1 => is_extended_connect(request) || known.has(Known::GRPC),
    };
    // An upgrade is a thing of HTTP/1, an extended CONNECT one of HTTP/2.
    let upgrades =
        || request.version() < Version::HTTP_2 && request.headers().contains_key(http::header::UPGRADE);
    if two && !upgrades() { HttpVersionChoice::Http2 } else { HttpVersionChoice::Http1 }
}
