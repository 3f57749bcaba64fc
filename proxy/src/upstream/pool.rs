//! The connections of one worker, by endpoint.
//!
//! Owns which connection carries a request, and how long one is kept that carries none. Local to its worker: nothing here is
//! shared, locked or sent. Never chooses an endpoint (`balance`) and never decides to try again what may have been processed.

mod carry;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::Either;
use http::{Request, Response};
use outrigger_config::model::Multiplex;
use outrigger_http1::Spare;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::Instant;

use self::carry::Busy;
use super::caps::Place;
use super::connect::{self, Transport};
use super::endpoint::Address;
use super::http1::{self, Http1};
use super::http2::{self, Http2, Sent};
use super::lent::{Lent, Returned};
use super::replay::Budget;
use super::tls;
use super::{Blame, Endpoint, EndpointId, HttpVersionChoice, SendError};
use super::{Circuit, Cluster, Kind, Part, RouteLimits};
use crate::body::Body;
use crate::coalesce::Flusher;
use crate::dns::Resolver;
use crate::downstream::Interim;
use crate::failure::{Failure, Reason};
use crate::identity::edges::{Edge, Negotiated, Why};
use crate::identity::{Identity, Token};
use crate::policy::deadline::Told;
use crate::telemetry::{self, Direction, Metrics};

/// One a worker.
#[derive(Debug)]
pub struct Pools {
    /// By endpoint; whoever was put there last is taken first, so that what is not needed becomes old.
    http1: RefCell<ById<Vec<Idle>>>,
    /// Those of them that another one carries.
    carried: RefCell<ById<Vec<Idle>>>,
    http2: RefCell<ById<Rc<Group>>>,
    carriers: RefCell<ById<Rc<Group>>>,
    dns: Arc<Resolver>,
    identity: Arc<Identity>,
    metrics: Arc<Metrics>,
    worker: telemetry::Worker,
    /// Request bodies kept in case they have to be sent again.
    kept: Rc<Budget>,
    /// Whether the pod's traffic is redirected: then the app is called from a loopback address.
    captured: bool,
    flusher: Rc<Flusher>,
    /// What HTTP/1 connections need for a moment only.
    spare: Rc<Spare>,
    sweeping: Cell<bool>,
    /// Clusters whose caps may want a connection back.
    watched: RefCell<Vec<std::sync::Weak<Circuit>>>,
    me: Weak<Self>,
}

/// Where a request goes.
#[derive(Clone, Copy)]
pub struct To<'a> {
    pub cluster: &'a Arc<Cluster>,
    pub endpoint: &'a Arc<Endpoint>,
    /// Of the route, where it has caps of its own.
    pub route: Option<&'a Arc<RouteLimits>>,
    /// The cluster's.
    pub idle_timeout: Duration,
    /// Where interim responses go; nowhere for who does not care.
    pub interim: Option<&'a Interim>,
    /// The cluster's.
    pub multiplex: Multiplex,
    /// Gets the request's head, where it may have to be sent again.
    pub returned: Option<&'a Returned>,
    /// What the endpoint is told behind the request's own fields.
    pub told: Option<&'a Told>,
}

/// Our own numbers: nobody outside can choose them to collide.
type ById<T> = HashMap<EndpointId, T, foldhash::fast::RandomState>;

#[derive(Debug)]
struct Idle {
    connection: Http1,
    since: Instant,
    until: Instant,
}

/// The HTTP/2 connections to one endpoint.
#[derive(Debug)]
struct Group {
    connections: RefCell<Vec<Http2>>,
    /// The connection that is being opened, if any.
    opening: RefCell<Option<Rc<Opening>>>,
    /// Something happened a waiter may want to know: a slot is free, a connection stands, or none could be opened.
    changed: Rc<Notify>,
    idle_timeout: Cell<Duration>,
    /// How many streams a connection may carry in its life.
    most: Cell<u32>,
    circuit: Arc<Circuit>,
    /// How many streams the last connection allowed; a guess before there was one.
    limit: Cell<usize>,
    /// What we would like to speak, best first.
    offered: &'static [Token],
    /// The endpoint took the second best; it is not asked again before.
    declined: Cell<Option<Instant>>,
    busy: Busy,
}

/// What HTTP/2 connections of apps offer.
const HTTP2: &[Token] = &[Token::Http2];

/// A connection on its way, and how many requests count on it.
#[derive(Debug)]
struct Opening {
    awaited_by: Cell<usize>,
    outcome: RefCell<Option<Result<(), Failure>>>,
}

impl Pools {
    /// `dns` finds the endpoints that are names, `identity` is who calls; `captured`: whether the pod's traffic is redirected to
    /// this proxy.
    pub fn new(
        dns: Arc<Resolver>,
        identity: Arc<Identity>,
        metrics: Arc<Metrics>,
        worker: telemetry::Worker,
        captured: bool,
        flusher: Rc<Flusher>,
    ) -> Rc<Self> {
        Rc::new_cyclic(|me| Self {
            http1: RefCell::default(),
            carried: RefCell::default(),
            http2: RefCell::default(),
            carriers: RefCell::default(),
            dns,
            identity,
            metrics,
            worker,
            kept: Rc::default(),
            captured,
            flusher,
            spare: Spare::new(),
            sweeping: Cell::new(false),
            watched: RefCell::default(),
            me: me.clone(),
        })
    }

    /// Sends `request` to `endpoint` and returns its response when its headers are here; its body streams.
    ///
    /// Dropping the future, or the response's body before its end, cancels: HTTP/1 closes the connection, HTTP/2 resets the stream.
    pub fn send<'a>(
        &'a self,
        cluster: &'a Arc<Cluster>,
        endpoint: &'a Arc<Endpoint>,
        http: HttpVersionChoice,
        request: Request<Body>,
    ) -> impl Future<Output = Result<Response<Body>, SendError>> {
        let settings = cluster.settings();
        let (idle_timeout, multiplex) = (settings.idle_timeout, settings.multiplex);
        let to = To {
            cluster,
            endpoint,
            route: None,
            idle_timeout,
            multiplex,
            interim: None,
            returned: None,
            told: None,
        };
        self.send_at(Instant::now(), to, http, Box::new(request))
    }

    /// The same, for who knows what time it is, and a route that may have caps of its own.
    pub fn send_at(
        &self,
        now: Instant,
        to: To<'_>,
        http: HttpVersionChoice,
        request: Box<Request<Body>>,
    ) -> impl Future<Output = Result<Response<Body>, SendError>> {
        let request = Lent::new(request, to.returned);
        match http {
            HttpVersionChoice::Http1 => Either::Left(self.send_http1(now, to, request)),
            HttpVersionChoice::Http2 => Either::Right(self.send_http2(to, request)),
        }
    }

    /// A connection of its own, for TCP.
    pub async fn open_tcp(&self, cluster: &Cluster, endpoint: &Endpoint) -> Result<Transport, Failure> {
        let _pending = Part::take(Kind::Pending, cluster.circuit(), None)?;
        Ok(self.open(cluster, endpoint, &[Token::Tcp]).await?.0)
    }

    /// Towards an endpoint of the mesh with mTLS, in which `inside` is spoken; towards any other in plaintext.
    async fn open(
        &self,
        cluster: &Cluster,
        endpoint: &Endpoint,
        offered: &[Token],
    ) -> Result<(Transport, Token), Failure> {
        let place = self.place(cluster.circuit()).await;
        let stream = self.open_socket(cluster, endpoint).await?;
        let Some(id) = endpoint.identity.as_ref().filter(|_| endpoint.meshed) else {
            self.note(cluster, endpoint, &stream, None);
            return Ok((Transport::plain(stream, place), offered[offered.len() - 1]));
        };
        // Boxed, because most connections that are opened for TCP are not of this kind and a handshake is large.
        match Box::pin(tls::open(stream, &self.identity, id, offered)).await {
            Ok((stream, taken, negotiated)) => {
                self.note(cluster, endpoint, stream.get_ref().0.stream(), Some(negotiated));
                Ok((Transport::tls(stream, place), taken))
            }
            Err(failure) => {
                self.metrics.handshake_failed(self.worker, Direction::Outbound, failure.cause);
                let detail = format!("no mTLS with {} as {id}: {failure}", endpoint.address);
                Err(Failure::new(Reason::UpstreamTlsFailed, detail))
            }
        }
    }

    /// A place for one more connection, waited for if a cap is reached.
    async fn place(&self, circuit: &Arc<Circuit>) -> Place {
        let most = circuit.most_connections();
        if most != u32::MAX {
            self.watch(circuit);
        }
        if let Some(place) = circuit.socket() {
            return place;
        }
        let waiting = circuit.in_use.sockets.join(most, None);
        if !self.close_one(circuit) {
            circuit.reclaim();
        }
        waiting.await;
        Place::of_socket(circuit)
    }

    /// Closes connections when another worker wants them, as long as there is anything of the cluster.
    fn watch(&self, circuit: &Arc<Circuit>) {
        let mut watched = self.watched.borrow_mut();
        watched.retain(|known| known.strong_count() > 0);
        if watched.iter().any(|known| std::ptr::eq(known.as_ptr(), Arc::as_ptr(circuit))) {
            return;
        }
        watched.push(Arc::downgrade(circuit));
        let (pools, circuit, mut reclaims) = (self.me.clone(), Arc::downgrade(circuit), circuit.reclaims());
        tokio::task::spawn_local(async move {
            while reclaims.changed().await.is_ok() {
                let (Some(pools), Some(circuit)) = (pools.upgrade(), circuit.upgrade()) else { return };
                let wanted = circuit.in_use.sockets.waiting();
                (0..wanted).all(|_| pools.close_one(&circuit));
            }
        });
    }

    /// Closes a connection of the cluster: one that carries nothing, or else an HTTP/2 connection when its streams have ended.
    fn close_one(&self, circuit: &Arc<Circuit>) -> bool {
        for idle in self.http1.borrow_mut().values_mut() {
            if let Some(at) = idle.iter().position(|idle| idle.connection.is_of(circuit)) {
                idle.remove(at);
                return true;
            }
        }
        if self.close_carrier(circuit) {
            return true;
        }
        let http2 = self.http2.borrow();
        let groups = || http2.values().filter(|group| Arc::ptr_eq(&group.circuit, circuit));
        let idle = groups().any(|group| group.give_up(|connection| connection.idle_since().is_some()));
        idle || groups().any(|group| group.give_up(|_| true))
    }

    fn note(
        &self,
        cluster: &Cluster,
        endpoint: &Endpoint,
        stream: &TcpStream,
        negotiated: Option<Negotiated>,
    ) {
        let settings = cluster.settings();
        // The way from an inbound proxy to its own app is within the pod.
        if settings.name.is_inbound() {
            return;
        }
        let plaintext = match negotiated {
            Some(_) => None,
            None if settings.service.is_none() && endpoint.workload.is_none() => Some(Why::OutsideMesh),
            None => Some(Why::EndpointUnmeshed),
        };
        let address = stream.peer_addr().ok();
        let edge = Edge {
            direction: Direction::Outbound,
            peer: endpoint.identity.clone().filter(|_| negotiated.is_some()),
            address: address.map(|address| address.ip().to_canonical()),
            workload: endpoint.workload.clone(),
            port: address.map_or(0, |address| address.port()),
            plaintext,
        };
        self.identity.edges.note(edge, negotiated);
    }

    async fn open_socket(&self, cluster: &Cluster, endpoint: &Endpoint) -> Result<TcpStream, Failure> {
        let settings = cluster.settings();
        let timeout = settings.connect_timeout;
        match &endpoint.address {
            Address::Socket(address) if self.captured && settings.name.is_inbound() => {
                connect::open_app(*address, timeout).await
            }
            Address::Socket(address) => connect::open_tcp(*address, timeout).await,
            Address::Name { host, port } => {
                let addresses = self.dns.addresses(host).await?;
                let addresses: Vec<_> = addresses.iter().map(|ip| SocketAddr::new(*ip, *port)).collect();
                connect::open_any(&addresses, timeout).await
            }
        }
    }

    async fn send_http1(
        &self,
        mut now: Instant,
        To { cluster, endpoint, route, idle_timeout, multiplex, interim, returned, told }: To<'_>,
        mut request: Lent<'_>,
    ) -> Result<Response<Body>, SendError> {
        http1::frame(&mut request);
        let carrier = self.carrier(cluster, endpoint, multiplex, &request, now);
        let circuit = cluster.circuit();
        let mut place = match circuit.exchange() {
            Ok(place) => place,
            // Boxed here and below is what happens once a connection, or where there are too few, so that not every request in flight
            // is as large.
            Err(most) => match Box::pin(queue(circuit, route, most)).await {
                Ok(place) => {
                    now = Instant::now();
                    Some(place)
                }
                Err(failure) => return Err(SendError::unsent(failure, request.take())),
            },
        };
        loop {
            let carrier = carrier.as_ref().filter(|carrier| carrier.is_open(now));
            while let Some((mut connection, rested)) = self.idle(endpoint.id, carrier.is_some(), now) {
                connection.occupy(place);
                let copy = if rested >= RISKY { http1::safe_copy(&request) } else { None };
                match connection.send(request, told, Some(rested), idle_timeout, endpoint, interim).await {
                    // It was closed at this very moment: not a byte went out, so that any request can take the next connection.
                    Err(SendError { unsent: Some(unsent), .. }) => request = Lent::new(unsent, returned),
                    Err(error) if copy.is_some() && error.reason == Reason::UpstreamReset => {
                        return Err(SendError { again: copy, ..error });
                    }
                    done => return done,
                }
                place = circuit.exchange_again();
                now = Instant::now();
            }
            let opened = match carrier {
                Some(carrier) => Box::pin(self.open_carried(carrier, cluster, endpoint, route)).await,
                None => Box::pin(self.open_http1(cluster, endpoint, route)).await.map(Some),
            };
            match opened {
                Ok(Some(mut connection)) => {
                    connection.occupy(place);
                    return connection.send(request, told, None, idle_timeout, endpoint, interim).await;
                }
                // It carries none.
                Ok(None) => now = Instant::now(),
                Err(failure) => return Err(SendError::unsent(failure, request.take())),
            }
        }
    }

    async fn open_http1(
        &self,
        cluster: &Cluster,
        endpoint: &Endpoint,
        route: Option<&Arc<RouteLimits>>,
    ) -> Result<Http1, Failure> {
        let circuit = cluster.circuit();
        let capped = circuit.most_connections() != u32::MAX;
        // Where connections are capped those wait that have no place for one; whoever opens one has its place.
        let _pending = if capped { None } else { Some(Part::take(Kind::Pending, circuit, route)?) };
        let most = circuit.rules().caps.requests_per_connection.unwrap_or(u32::MAX);
        let circuit = capped.then(|| Arc::clone(circuit));
        let home = Home { pools: self.me.clone(), endpoint: endpoint.id, circuit, carried: false };
        let (transport, _) = self.open(cluster, endpoint, &[Token::Http11]).await?;
        Ok(Http1::over(transport, Rc::clone(&self.spare), home, most))
    }

    /// What all HTTP/1 connections of this worker share, clients' as well.
    pub fn spare(&self) -> &Rc<Spare> {
        &self.spare
    }

    /// What bodies of requests are kept on account of.
    pub(crate) fn kept(&self) -> &Rc<Budget> {
        &self.kept
    }

    /// The idle connection used last that can still be used, and for how long it was idle.
    fn idle(&self, endpoint: EndpointId, carried: bool, now: Instant) -> Option<(Http1, Duration)> {
        let mut all = if carried { &self.carried } else { &self.http1 }.borrow_mut();
        let idle = all.get_mut(&endpoint)?;
        while let Some(Idle { connection, since, until }) = idle.pop() {
            let rested = now.duration_since(since);
            // Of one that is carried the kernel is not asked.
            let trusted = !carried && connection.is_proven() && rested < WARM;
            if now < until && connection.is_open() && (trusted || connection.is_quiet()) {
                return Some((connection, rested));
            }
        }
        None
    }

    async fn send_http2(
        &self,
        To { cluster, endpoint, route, interim, returned, told, .. }: To<'_>,
        mut request: Lent<'_>,
    ) -> Result<Response<Body>, SendError> {
        if let Some(told) = told {
            told.insert(request.headers_mut());
        }
        let group = self.group(cluster, endpoint.id, HTTP2);
        for _ in 0..MOVES {
            let slot = match group.free_slot() {
                Some(slot) => slot,
                None => match Box::pin(self.slot(&group, cluster, endpoint, route)).await {
                    Ok(Some(slot)) => slot,
                    Ok(None) => break,
                    Err(failure) => return Err(SendError::unsent(failure, request.take())),
                },
            };
            match http2::send(slot, request, endpoint, &self.kept, interim).await {
                Sent::Done(result) => return result,
                Sent::Gone(unsent) => request = Lent::new(unsent, returned),
            }
        }
        let detail = format!("{} closes every connection before it takes a request", endpoint.address);
        let error = SendError::unsent(Failure::new(Reason::UpstreamReset, detail), request.take());
        Err(SendError { blame: Blame::Unreached, ..error })
    }

    fn group(&self, cluster: &Cluster, endpoint: EndpointId, offered: &'static [Token]) -> Rc<Group> {
        let mut all = if offered == HTTP2 { &self.http2 } else { &self.carriers }.borrow_mut();
        let group = all.entry(endpoint).or_insert_with(|| {
            Rc::new(Group {
                connections: RefCell::default(),
                opening: RefCell::default(),
                changed: Rc::new(Notify::new()),
                idle_timeout: Cell::new(Duration::ZERO),
                most: Cell::new(u32::MAX),
                circuit: Arc::clone(cluster.circuit()),
                limit: Cell::new(http2::EXPECTED_LIMIT),
                offered,
                declined: Cell::new(None),
                busy: Busy::default(),
            })
        });
        Rc::clone(group)
    }

    /// A place on one of the group's connections; opens another connection when all are full.
    async fn slot(
        &self,
        group: &Rc<Group>,
        cluster: &Arc<Cluster>,
        endpoint: &Arc<Endpoint>,
        route: Option<&Arc<RouteLimits>>,
    ) -> Result<Option<(http2::Sender, http2::Slot)>, Failure> {
        let settings = cluster.settings();
        group.idle_timeout.set(settings.idle_timeout);
        if group.offered == HTTP2 {
            // What a carrier carries is counted there.
            group.most.set(settings.circuit_breaker.caps.requests_per_connection.unwrap_or(u32::MAX));
        }
        let _pending = Part::take(Kind::Pending, cluster.circuit(), route)?;
        let mut awaited: Option<Rc<Opening>> = None;
        let mut opened = 0;
        loop {
            // Registered before looking, so that nothing that happens meanwhile is missed.
            let changed = group.changed.notified();
            if let Some(slot) = group.free_slot() {
                return Ok(Some(slot));
            }
            if group.declined.get().is_some_and(|until| Instant::now() < until) {
                return Ok(None);
            }
            match awaited.as_ref().map(|opening| opening.outcome.borrow().clone()) {
                Some(Some(Err(failure))) => return Err(failure),
                Some(None) => {}
                // It stands, and others took what it had.
                Some(Some(Ok(()))) if opened >= MOVES => {
                    let detail = format!("{} allows too few HTTP/2 streams", endpoint.address);
                    return Err(Failure::new(Reason::Overloaded, detail));
                }
                None | Some(Some(Ok(()))) => {
                    opened += 1;
                    awaited = Some(self.opening(group, cluster, endpoint));
                }
            }
            changed.await;
        }
    }

    /// The connection to wait for: the one being opened, or another one when enough requests count on that.
    fn opening(&self, group: &Rc<Group>, cluster: &Arc<Cluster>, endpoint: &Arc<Endpoint>) -> Rc<Opening> {
        if let Some(opening) = &*group.opening.borrow()
            && opening.awaited_by.get() < group.limit.get()
        {
            opening.awaited_by.set(opening.awaited_by.get() + 1);
            return Rc::clone(opening);
        }
        self.open_http2(group, cluster, endpoint)
    }

    /// Opens a connection in a task of its own: whoever asked for it may be cancelled, others wait for it too.
    fn open_http2(&self, group: &Rc<Group>, cluster: &Arc<Cluster>, endpoint: &Arc<Endpoint>) -> Rc<Opening> {
        let opening = Rc::new(Opening { awaited_by: Cell::new(1), outcome: RefCell::default() });
        *group.opening.borrow_mut() = Some(Rc::clone(&opening));
        let (group, cluster, endpoint) = (Rc::clone(group), Arc::clone(cluster), Arc::clone(endpoint));
        let (pools, opened) = (self.me.clone(), Rc::clone(&opening));
        tokio::task::spawn_local(async move {
            let Some(pools) = pools.upgrade() else { return };
            let connection = match pools.open(&cluster, &endpoint, group.offered).await {
                Ok((transport, Token::Http11)) => {
                    pools.decline(&group, &cluster, &endpoint, transport);
                    Ok(None)
                }
                Ok((transport, taken)) => {
                    let timeout = cluster.settings().connect_timeout;
                    let flusher = pools.flusher.clone();
                    let limits = if taken == Token::Carried { connect::CARRIER } else { connect::HTTP2 };
                    let changed = Rc::clone(&group.changed);
                    Http2::over(transport, flusher, changed, timeout, limits, &endpoint).await.map(Some)
                }
                Err(failure) => Err(failure),
            };
            let outcome = connection.map(|connection| {
                if let Some(connection) = connection {
                    group.limit.set(connection.limit());
                    group.connections.borrow_mut().push(connection);
                }
            });
            *opened.outcome.borrow_mut() = Some(outcome);
            group.opening.borrow_mut().take_if(|current| Rc::ptr_eq(current, &opened));
            group.changed.notify_waiters();
            pools.sweep();
        });
        opening
    }

    /// Starts the one task that closes what was idle for too long; it ends when nothing is left to watch.
    fn sweep(&self) {
        if self.sweeping.replace(true) {
            return;
        }
        let pools = self.me.clone();
        tokio::task::spawn_local(async move {
            loop {
                tokio::time::sleep(SWEEP).await;
                let Some(pools) = pools.upgrade() else { return };
                if !pools.close_idle(Instant::now()) {
                    pools.sweeping.set(false);
                    return;
                }
            }
        });
    }

    /// Returns whether any connection is left.
    fn close_idle(&self, now: Instant) -> bool {
        let keep = |all: &RefCell<ById<Vec<Idle>>>| {
            let mut all = all.borrow_mut();
            all.retain(|_, idle| {
                idle.retain(|idle| now < idle.until && idle.connection.is_open());
                !idle.is_empty()
            });
            !all.is_empty()
        };
        // Those that are carried before what carries them.
        let kept = [keep(&self.http1), keep(&self.carried)];
        let groups = [self.keep_groups(&self.http2, now), self.keep_groups(&self.carriers, now)];
        kept.into_iter().chain(groups).any(|any| any)
    }

    fn keep_groups(&self, groups: &RefCell<ById<Rc<Group>>>, now: Instant) -> bool {
        let mut groups = groups.borrow_mut();
        groups.retain(|_, group| {
            let timeout = group.idle_timeout.get();
            let mut connections = group.connections.borrow_mut();
            connections.retain(|connection| {
                let idle = connection.idle_since().is_some_and(|since| now.duration_since(since) >= timeout);
                !(idle || connection.is_closed())
            });
            !connections.is_empty() || Rc::strong_count(group) > 1
        });
        !groups.is_empty()
    }
}

/// How often a request changes to another connection of its endpoint before that is called a failure.
const MOVES: usize = 4;

impl Group {
    /// Closes the first connection that is `fit` for it, when its streams have ended.
    fn give_up(&self, fit: impl Fn(&Http2) -> bool) -> bool {
        let mut connections = self.connections.borrow_mut();
        match connections.iter().position(fit) {
            Some(at) => {
                connections.remove(at);
                true
            }
            None => false,
        }
    }

    fn free_slot(&self) -> Option<(http2::Sender, http2::Slot)> {
        let mut connections = self.connections.borrow_mut();
        connections.retain(|connection| !connection.is_closed());
        connections.iter().find_map(|connection| connection.slot(self.most.get()))
    }
}

/// Waits for a place for an exchange, together with everybody else who does.
async fn queue(
    circuit: &Arc<Circuit>,
    route: Option<&Arc<RouteLimits>>,
    most: u32,
) -> Result<Place, Failure> {
    let pending = Part::take(Kind::Pending, circuit, route)?;
    circuit.in_use.exchanges.join(most, Some(pending)).await;
    Ok(Place::of_exchange(circuit))
}

/// An idle connection this fresh is used without asking the kernel whether it is still open, if it was used again before: the call
/// costs a system call a request, and an endpoint that closes a connection does so at once or after having kept it for a while.
const WARM: Duration = Duration::from_millis(20);

/// An endpoint may be closing a connection that was idle for so long, and its word of that be still on its way. What is sent over a younger one is not
/// copied: that would cost every request of a busy caller.
pub(super) const RISKY: Duration = Duration::from_millis(50);

/// How often idle connections are looked through. The exact time is checked when one is taken.
const SWEEP: Duration = Duration::from_millis(500);

/// Where an HTTP/1 connection is kept between exchanges.
#[derive(Clone, Debug)]
pub(super) struct Home {
    pools: Weak<Pools>,
    endpoint: EndpointId,
    /// Where connections of the cluster are capped.
    pub(super) circuit: Option<Arc<Circuit>>,
    /// By another connection.
    carried: bool,
}

impl Home {
    pub(super) fn keep(&self, connection: Http1, timeout: Duration) {
        let Some(pools) = self.pools.upgrade() else { return };
        if self.circuit.as_ref().is_some_and(|circuit| circuit.in_use.sockets.waiting() > 0) {
            // Another endpoint of the cluster, or another worker, needs one.
            return;
        }
        let since = Instant::now();
        let idle = Idle { connection, since, until: since + timeout };
        let all = if self.carried { &pools.carried } else { &pools.http1 };
        all.borrow_mut().entry(self.endpoint).or_default().push(idle);
        pools.sweep();
    }
}
