//! What the metrics and the access log say of one exchange, or of one TCP connection.
//!
//! Filled along the way by whoever learns something, written once, by `Drop`: an ending nobody thought of is counted too, as a client
//! that went away, which is what drops an exchange half-way. Formats nothing, and copies names only while the log is on.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderValue, Method, StatusCode, Uri, Version};
use outrigger_config::model::{ClusterName, Origin};
use tokio::time::Instant;

use super::Telemetry;
use super::access_log::Line;
use super::cells::Worker;
use super::metrics::{Outcome, Peer, RouteMetrics, ServiceMetrics, Way};
use crate::failure::{Failure, Reason};
use crate::upstream::Address;

#[derive(Debug)]
pub struct Record {
    telemetry: Arc<Telemetry>,
    worker: Worker,
    begun: Instant,
    ended: Option<Instant>,
    kind: Kind,
    /// That it began with.
    service: Arc<ServiceMetrics>,
    route: Option<Arc<RouteMetrics>>,
    peer: Peer,
    status: Option<StatusCode>,
    grpc: Option<u16>,
    failure: Option<Failure>,
    complete: bool,
    attempts: u32,
    /// Bytes each way that are counted here.
    bytes: [u64; 2],
    /// Those that are counted elsewhere.
    seen: Option<Rc<Seen>>,
    /// A policy in mode Audit or Observe would have refused it, or a fault hit it.
    audited: bool,
    /// Present while the log may want a line of it.
    noted: Option<Box<Noted>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Http,
    Tcp,
}

#[derive(Debug, Default)]
struct Seen {
    request: Cell<u64>,
    response: Cell<u64>,
}

/// What only the log needs. Shares the request's bytes.
#[derive(Debug, Default)]
pub(super) struct Noted {
    pub head: Option<(Method, Uri, Version)>,
    pub host: Option<Box<str>>,
    pub request_id: Option<RequestId>,
    pub peer: Option<Arc<str>>,
    pub client: Option<std::net::SocketAddr>,
    pub origin: Option<Arc<Origin>>,
    /// What a policy in mode Audit would have refused it for.
    pub audit: Option<Arc<str>>,
    pub limited: Option<Limited>,
    /// `NAMESPACE/POLICY FAULT` that hit it.
    pub fault: Option<Box<str>>,
    pub cluster: Option<ClusterName>,
    pub endpoint: Option<Address>,
}

/// Of a request.
#[derive(Debug)]
pub enum RequestId {
    Received(HeaderValue),
    /// A UUID.
    Made(u128),
}

/// As RFC 9562 writes it.
pub fn uuid(id: u128) -> [u8; 36] {
    let (mut text, mut at) = ([b'-'; 36], 0);
    for (index, byte) in id.to_be_bytes().iter().enumerate() {
        // The dashes are there already.
        at += usize::from(matches!(index, 4 | 6 | 8 | 10));
        text[at] = HEX[usize::from(byte >> 4)];
        text[at + 1] = HEX[usize::from(byte & 15)];
        at += 2;
    }
    text
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Which limit had no room.
#[derive(Debug)]
pub(super) struct Limited {
    pub limit: Arc<str>,
    pub key: u64,
    pub observed: bool,
}

impl Record {
    /// An exchange, from its head on. `service` is what it is addressed to, as far as that is known before a route is found.
    pub fn http<B>(
        telemetry: &Arc<Telemetry>,
        worker: Worker,
        service: &Arc<ServiceMetrics>,
        request: &http::Request<B>,
    ) -> Self {
        let mut record = Self::new(telemetry, worker, service, Kind::Http);
        if let Some(noted) = &mut record.noted {
            noted.head = Some((request.method().clone(), request.uri().clone(), request.version()));
        }
        record
    }

    /// A TCP connection or a tunnel's bytes. Counted in bytes and attempts, not in requests.
    pub fn tcp(telemetry: &Arc<Telemetry>, worker: Worker, service: &Arc<ServiceMetrics>) -> Self {
        Self::new(telemetry, worker, service, Kind::Tcp)
    }

    fn new(telemetry: &Arc<Telemetry>, worker: Worker, service: &Arc<ServiceMetrics>, kind: Kind) -> Self {
        Self {
            worker,
            begun: Instant::now(),
            ended: None,
            kind,
            service: service.clone(),
            route: None,
            peer: Peer::UNKNOWN,
            status: None,
            grpc: None,
            failure: None,
            complete: false,
            attempts: 0,
            bytes: [0; 2],
            seen: None,
            audited: false,
            noted: telemetry.access_log.is_on().then(Box::default),
            telemetry: telemetry.clone(),
        }
    }

    pub fn begun(&self) -> Instant {
        self.begun
    }

    /// It is dropped now, which saves looking at the clock.
    pub fn ends(&mut self, now: Instant) {
        self.ended = Some(now);
    }

    /// Who called, where it was verified.
    pub fn peer(&mut self, peer: Peer, workload: &Arc<str>) {
        self.peer = peer;
        self.note(|noted| noted.peer = Some(workload.clone()));
    }

    /// Where the connection came from.
    pub fn client(&mut self, client: std::net::SocketAddr) {
        self.note(|noted| noted.client = Some(client));
    }

    /// The host asked for, without port, where the request's own head does not say it (`Host` of HTTP/1, a TCP destination, SNI).
    pub fn host(&mut self, host: &str) {
        self.note(|noted| noted.host = Some(host.into()));
    }

    /// The id made or found on the way.
    pub fn request_id(&mut self, id: impl FnOnce() -> RequestId) {
        self.note(|noted| noted.request_id = Some(id()));
    }

    /// The route that took it; its service replaces the one it began with.
    pub fn route(&mut self, route: &Arc<RouteMetrics>, origin: &Arc<Origin>) {
        self.route = Some(route.clone());
        self.note(|noted| noted.origin = Some(origin.clone()));
    }

    /// It goes on although a policy would refuse it if it were enforced.
    pub fn audited(&mut self, why: Arc<str>) {
        self.audited = true;
        self.note(|noted| noted.audit = Some(why));
    }

    /// A limit, `NAMESPACE/POLICY LIMIT`, refuses it, or would if it were enforced. `key`: a hash of what it is counted by; 0 where everything is counted
    /// together.
    pub fn limited(&mut self, limit: &Arc<str>, key: u64, observed: bool) {
        self.audited |= observed;
        self.note(|noted| noted.limited = Some(Limited { limit: limit.clone(), key, observed }));
    }

    /// A fault, `NAMESPACE/POLICY FAULT`, hit it.
    pub fn fault(&mut self, fault: &str) {
        self.audited = true;
        self.note(|noted| noted.fault = Some(fault.into()));
    }

    /// Why the proxy answers by itself, if it does.
    pub fn reason(&self) -> Option<Reason> {
        self.failure.as_ref().map(|failure| failure.reason)
    }

    /// An attempt begins; the last one stands in the log.
    pub fn attempt(&mut self, cluster: &ClusterName, endpoint: &Address) {
        self.attempts += 1;
        self.note(|noted| {
            noted.cluster = Some(cluster.clone());
            noted.endpoint = Some(endpoint.clone());
        });
    }

    /// Which of two endpoints asked at a time gave the answer, where it is not the one named last.
    pub fn answered_by(&mut self, endpoint: &Address) {
        self.note(|noted| noted.endpoint = Some(endpoint.clone()));
    }

    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The status sent to the client.
    pub fn status(&mut self, status: StatusCode) {
        self.status = Some(status);
    }

    /// The gRPC status, from headers or trailers.
    pub fn grpc_status(&mut self, status: u16) {
        self.grpc = Some(status);
    }

    /// The proxy answers by itself, or cuts the answer short. The first failure stands.
    pub fn fail(&mut self, failure: &Failure) {
        self.failure.get_or_insert_with(|| failure.clone());
    }

    /// Everything was sent. Without this call a record that is dropped says `client_closed`.
    pub fn complete(&mut self) {
        self.complete = true;
    }

    pub fn bytes(&mut self, way: Way, n: u64) {
        self.service().bytes(self.worker, way, n);
        self.bytes[way as usize] += n;
    }

    /// Counts one way on, apart from this record: a body that is read elsewhere, one half of a relay.
    pub fn count(&mut self, way: Way) -> ByteCount {
        let seen = self.seen.get_or_insert_with(Rc::default).clone();
        ByteCount { service: self.service().clone(), worker: self.worker, way, seen }
    }

    fn service(&self) -> &Arc<ServiceMetrics> {
        self.route.as_ref().map_or(&self.service, |route| &route.service)
    }

    fn note(&mut self, note: impl FnOnce(&mut Noted)) {
        if let Some(noted) = &mut self.noted {
            note(noted);
        }
    }
}

impl Seen {
    fn of(&self, way: Way, n: u64) {
        let cell = match way {
            Way::Request => &self.request,
            Way::Response => &self.response,
        };
        cell.set(cell.get() + n);
    }
}

/// Bytes of one way of one record. The metric has them at once, so that a connection of hours is seen while it lasts.
#[derive(Debug)]
pub struct ByteCount {
    service: Arc<ServiceMetrics>,
    worker: Worker,
    way: Way,
    seen: Rc<Seen>,
}

impl ByteCount {
    pub fn add(&self, n: u64) {
        self.service.bytes(self.worker, self.way, n);
        self.seen.of(self.way, n);
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if !self.complete && self.failure.is_none() {
            self.failure = Some(Reason::ClientClosed.into());
        }
        let reason = self.failure.as_ref().map(|failure| failure.reason);
        let duration = self.ended.unwrap_or_else(Instant::now) - self.begun;
        if self.kind == Kind::Http {
            let code = self.status.map_or_else(|| reason.map_or(0, |r| r.status().as_u16()), |s| s.as_u16());
            let outcome = Outcome { peer: self.peer, code, grpc: self.grpc, reason };
            match &self.route {
                Some(route) => route.ended(self.worker, outcome, duration),
                None => self.service.ended_unrouted(self.worker, outcome, duration),
            }
        }
        let Some(noted) = self.noted.take() else { return };
        let failure = self.failure.take();
        let seen = self.seen.as_ref().map_or((0, 0), |seen| (seen.request.get(), seen.response.get()));
        let [request, response] = self.bytes;
        let (request_bytes, response_bytes) = (request + seen.0, response + seen.1);
        self.telemetry.access_log.offer(self.worker, reason.is_some() || self.audited, || Line {
            time: std::time::SystemTime::now(),
            duration,
            service: self.service().clone(),
            route: self.route.clone(),
            status: self.status,
            grpc: self.grpc,
            failure,
            attempts: self.attempts,
            request_bytes,
            response_bytes,
            noted,
        });
    }
}

#[cfg(test)]
mod tests;
