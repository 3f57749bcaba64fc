//! What is known of one connection from a client, and where its requests go.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::header::{CONNECTION, HeaderValue};
use http::{Request, Response};
use outrigger_config::model::{DestinationName, Egress};

use super::mtls::Caller;
use super::patience::{InFlight, Pulse};
use crate::body::Body;
use crate::drain::{self, Active, Phase};
use crate::exchange::{Authority, address_value};
use crate::failure::{Failure, Reason};
use crate::identity::Peer;
use crate::mesh::{Destination, GatewayPortSlot, ListenerTls, Lookup, Slot};
use crate::policy::access::Admitted;
use crate::telemetry::{Direction, OpenConnection, Record, ServiceMetrics, Tls};
use crate::timers::Sleep;
use crate::worker::Worker;

/// Where a connection came in.
#[derive(Clone, Debug)]
pub struct Arrival {
    pub worker: Rc<Worker>,
    pub direction: Direction,
    pub peer: Peer,
    /// The port the client reached, as it knows it.
    pub port: u16,
    /// TLS was opened here, with a certificate of the gateway. That of the mesh is nothing the app needs to know.
    pub secure: bool,
    /// Who it is, where TLS of the mesh was opened here.
    pub caller: Option<Rc<Caller>>,
}

impl Arrival {
    /// The connection, counted as open until the guard is dropped.
    pub fn count(&self, tls: Tls) -> OpenConnection {
        self.worker.shared.telemetry.metrics.connection(self.worker.id, self.direction, tls)
    }

    /// Lets in what it carries as bytes; `None` where nobody has to be asked.
    pub fn admit(&self, record: &mut Record) -> Result<Option<Admitted>, Failure> {
        if self.direction != Direction::Inbound {
            return Ok(None);
        }
        self.worker.access.admit_bytes(&self.peer, self.port, record).map(Some)
    }

    /// Whether what it carries may be bytes.
    pub fn may_carry(&self) -> bool {
        self.direction != Direction::Inbound || self.worker.access.may_carry(&self.peer, self.port)
    }
}

/// Where the requests of a connection go.
#[derive(Clone, Debug)]
pub enum Towards {
    /// One destination of the mesh, whatever the requests say.
    Slot(Arc<Slot>),
    /// One destination that does not change.
    Fixed(Arc<Destination>),
    /// What a gateway's port has for the host.
    Gateway(Arc<GatewayPortSlot>),
    /// Each request names its destination: the client uses us as its HTTP proxy.
    Asked,
    /// Nowhere: each request is told so.
    Nowhere(Failure),
}

/// A connection that carries HTTP.
#[derive(Debug)]
pub struct Connection {
    pub worker: Rc<Worker>,
    pub direction: Direction,
    pub peer: Peer,
    /// The peer's address as it stands in `x-forwarded-for`.
    pub client_address: HeaderValue,
    pub port: u16,
    secure: bool,
    /// Who asks, where it is proven.
    pub caller: Option<Rc<Caller>>,
    pub(super) http2: bool,
    towards: Towards,
    /// Counts requests that name no destination.
    pub unaddressed: Arc<ServiceMetrics>,
    pub(super) pulse: Arc<Pulse>,
    pub(super) draining: Cell<bool>,
    closing: Cell<bool>,
    /// The destination named last: a client that uses us as its proxy seldom changes it from one request to the next.
    named: RefCell<Option<Box<Last>>>,
    /// Watched over while its requests are judged one by one.
    admitted: Option<Admitted>,
}

/// From the end of a peer's access to that of its connection: its exchanges end by themselves, each in its own way.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// The end of a connection that is neither its client's doing nor its own.
pub(super) struct Over<'a> {
    connection: &'a Connection,
    /// Outbound connections do not take part in one.
    drain: Option<drain::Place>,
    /// Set when its peer's access has ended.
    last_words: Option<Box<Sleep>>,
}

impl Over<'_> {
    /// Ready when a drain is over; or when its peer may do nothing here any more, and what it was doing had a moment to end by itself. Before that the peer
    /// is told that the connection ends, so that what it asks next comes on another one and is answered there.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let connection = self.connection;
        if let Some(drain) = &self.drain {
            let phase = drain.poll(cx);
            if phase == Phase::Ended {
                return Poll::Ready(());
            }
            if phase == Phase::Draining {
                connection.draining.set(true);
            }
        }
        if let Some(last_words) = &mut self.last_words {
            return last_words.poll(cx);
        }
        let Some(admitted) = &connection.admitted else { return Poll::Pending };
        ready!(admitted.poll_revoked(cx));
        connection.draining.set(true);
        self.last_words.insert(Box::new(connection.worker.timers.sleep(LAST_WORDS))).poll(cx)
    }
}

/// A destination as it was written, and what it is.
type Last = (Box<str>, Named);

#[derive(Clone, Debug)]
enum Named {
    Mesh(Arc<Slot>),
    Outside(DestinationName),
}

impl Connection {
    pub fn new(arrival: &Arrival, towards: Towards, http2: bool) -> Rc<Self> {
        let worker = arrival.worker.clone();
        let judged = arrival.direction == Direction::Inbound && !matches!(towards, Towards::Nowhere(_));
        Rc::new(Self {
            admitted: judged.then(|| worker.access.watch(&arrival.peer, arrival.port)),
            unaddressed: worker.unaddressed(arrival.direction),
            direction: arrival.direction,
            peer: arrival.peer.clone(),
            client_address: address_value(arrival.peer.address.ip()),
            port: arrival.port,
            secure: arrival.secure,
            caller: arrival.caller.clone(),
            http2,
            towards,
            pulse: Pulse::new(!http2),
            draining: Cell::new(false),
            closing: Cell::new(false),
            named: RefCell::default(),
            worker,
        })
    }

    /// As the client speaks to us.
    pub fn scheme(&self) -> &'static str {
        if self.secure { "https" } else { "http" }
    }

    /// Who calls from outside must not read about endpoints and policies; our own app and those of the mesh may.
    pub fn tells_details(&self) -> bool {
        self.direction == Direction::Outbound || self.caller.is_some()
    }

    pub fn is_asked(&self) -> bool {
        matches!(self.towards, Towards::Asked)
    }

    /// Whether the inbound side of a drain concerns it.
    pub fn drains(&self) -> bool {
        self.direction != Direction::Outbound
    }

    pub fn begin(&self) -> InFlight {
        self.pulse.begin()
    }

    pub fn active(&self) -> Option<Active> {
        self.drains().then(|| self.worker.shared.drain.enter())
    }

    /// Lets a request in; `None` where nobody has to be asked.
    pub fn admit(&self, request: &Request<Body>, record: &mut Record) -> Result<Option<Admitted>, Failure> {
        if self.direction != Direction::Inbound {
            return Ok(None);
        }
        self.worker.access.admit(&self.peer, self.port, request, record).map(Some)
    }

    /// What ends it whatever is going on.
    pub(super) fn over(&self) -> Over<'_> {
        let drain = self.drains().then(|| self.worker.drained.enter());
        Over { connection: self, drain, last_words: None }
    }

    /// Whether there is nothing between it and its client but TCP, so that to close it says all there is to say. False says that it is not known.
    pub(super) fn is_bare(&self) -> bool {
        self.direction == Direction::Gateway && !self.secure
    }

    /// The next response is the last one (HTTP/1).
    pub fn close_after(&self) {
        self.closing.set(true);
    }

    /// What the connection itself has to say with a response.
    pub fn last_word(&self, response: &mut Response<Body>) {
        if (self.draining.get() || self.closing.get()) && !self.http2 {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }

    /// The snapshot this request runs on.
    pub async fn destination(&self, request: &Request<Body>) -> Result<Arc<Destination>, Failure> {
        match &self.towards {
            Towards::Fixed(destination) => Ok(destination.clone()),
            Towards::Slot(slot) => slot
                .current()
                .ok_or_else(|| Failure::new(Reason::UnknownDestination, "it was removed from the mesh")),
            Towards::Gateway(port) => self.listener(port, Authority::of(request).host()),
            Towards::Asked => match self.asked_again(request) {
                Some(destination) => Ok(destination),
                // Boxed: it is seldom needed, and larger than all of the rest.
                None => Box::pin(self.asked(request)).await,
            },
            Towards::Nowhere(failure) => Err(failure.clone()),
        }
    }

    fn listener(&self, port: &GatewayPortSlot, host: &str) -> Result<Arc<Destination>, Failure> {
        let port = port.current().ok_or(Reason::NoRoute)?;
        let fits = |tls: &ListenerTls| match tls {
            ListenerTls::None => !self.secure,
            ListenerTls::Terminate(_) => self.secure,
            ListenerTls::Passthrough => false,
        };
        let listener = port
            .listeners
            .iter()
            .find(|listener| listener.http && fits(&listener.tls) && listener.hostname.matches(host))
            .ok_or(Reason::NoRoute)?;
        Ok(listener.destination.clone())
    }

    /// What the request before it named, too, if that is in the mesh.
    fn asked_again(&self, request: &Request<Body>) -> Option<Arc<Destination>> {
        if request.uri().scheme() == Some(&http::uri::Scheme::HTTPS) {
            return None;
        }
        match &*self.named.borrow() {
            Some(named) => match &**named {
                (last, Named::Mesh(slot)) if **last == *Authority::of(request).as_str() => slot.current(),
                _ => None,
            },
            None => None,
        }
    }

    async fn asked(&self, request: &Request<Body>) -> Result<Arc<Destination>, Failure> {
        let absolute = request.uri().authority().is_some();
        if request.uri().scheme() == Some(&http::uri::Scheme::HTTPS) && !self.http2 {
            return Err(Failure::new(Reason::BadRequest, "https through a proxy begins with CONNECT"));
        }
        let authority = Authority::of(request);
        let known = self
            .named
            .borrow()
            .as_deref()
            .and_then(|(last, named)| (**last == *authority.as_str()).then(|| named.clone()));
        let named = match known {
            Some(named) => named,
            None => {
                let name = authority.destination(80).ok_or_else(|| {
                    Failure::new(Reason::BadRequest, "the request names no valid host and port")
                })?;
                let name = self.worker.shared.listening.meant_by(name);
                let named = match look_up(&self.worker, &name).await? {
                    Some(slot) => Named::Mesh(slot),
                    // A request without a proxy's form may come from ourselves, by a name that leads back to us.
                    None if !absolute => {
                        let why = "it is no name of the mesh, and the request is not one for a proxy";
                        return Err(Failure::new(Reason::UnknownDestination, why));
                    }
                    None => Named::Outside(name),
                };
                *self.named.borrow_mut() = Some(Box::new((authority.as_str().into(), named.clone())));
                named
            }
        };
        match named {
            Named::Mesh(slot) => match slot.current() {
                Some(destination) => Ok(destination),
                None => {
                    *self.named.borrow_mut() = None;
                    Err(Failure::new(Reason::UnknownDestination, "it was removed from the mesh"))
                }
            },
            Named::Outside(name) => Ok(self.worker.outside(&name)),
        }
    }
}

/// What the mesh has by this name. `None`: it is outside, and may be called.
pub async fn look_up(worker: &Worker, name: &DestinationName) -> Result<Option<Arc<Slot>>, Failure> {
    match worker.shared.mesh.destination(name).await {
        Lookup::Known(slot) => Ok(Some(slot)),
        Lookup::Unavailable => {
            let why = format!("the control plane could not be asked about {name} within 1 s");
            Err(Failure::new(Reason::ConfigUnavailable, why))
        }
        Lookup::Unknown => outside(worker, name).map(|()| None),
    }
}

/// Whether a destination the mesh does not know may be called.
pub fn outside(worker: &Worker, name: &DestinationName) -> Result<(), Failure> {
    if let Some(ip) = name.as_ip()
        && worker.shared.listening.is_ours(SocketAddr::new(ip, name.port()))
    {
        return Err(Failure::new(Reason::LoopDetected, format!("{name} is this proxy itself")));
    }
    match worker.shared.mesh.settings().egress {
        Egress::AllowAny => Ok(()),
        Egress::RegistryOnly => {
            let why = format!("the mesh does not know {name}, and its egress is RegistryOnly");
            Err(Failure::new(Reason::UnknownDestination, why))
        }
    }
}
