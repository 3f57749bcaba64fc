//! A connection that speaks HTTP: its codec, with all limits, and each request on its way to the exchange.
//!
//! Every server codec is made here or in `http2`, so that none is made without its timer and limits. An exchange gets our body, and the
//! client's side of a tunnel if it asks for one.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use http::header::UPGRADE;
use http::{HeaderMap, Method, Request, Response};
use outrigger_http1::Refusal;
use outrigger_http1::server::{After, Broken, Next};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use super::carrier::{self, Carrier};
use super::patience::{Late, Timer};
use super::{Connection, Interim, Stream, connect, http2};
use crate::body::Body;
use crate::exchange::{self, Outgoing};
use crate::failure::{Asker, Failure, Reason};
use crate::policy::fault::Reset;
use crate::telemetry::{OpenConnection, Record};
use crate::upgrade::Upgrade;

/// A connection that is found to carry HTTP, with all that lasts as long as it does. What found it out is over: a connection at rest does not hold it.
pub struct Http {
    carries: Carries,
    /// As open.
    counted: Option<OpenConnection>,
}

enum Carries {
    Requests(Box<dyn Stream>, Rc<Connection>),
    Connections(Carrier),
}

/// Requests are served until either side ends the connection.
pub type Served = Pin<Box<dyn Future<Output = ()>>>;

impl Http {
    /// One kind of stream for the codecs: the program has each of them once, and the call costs nothing beside a system call.
    pub fn new(io: impl Stream, connection: Rc<Connection>) -> Self {
        Self { carries: Carries::Requests(Box::new(io), connection), counted: None }
    }

    /// Each stream of it is a connection of HTTP/1.1.
    pub fn carrier(carrier: Carrier) -> Self {
        Self { carries: Carries::Connections(carrier), counted: None }
    }

    /// Counted as open as long as it lasts.
    pub fn counted(self, counted: OpenConnection) -> Self {
        Self { counted: Some(counted), ..self }
    }

    pub fn serve(self) -> Served {
        let Self { carries, counted } = self;
        match carries {
            Carries::Requests(io, connection) if connection.http2 => {
                Box::pin(http2::serve(io, connection, counted))
            }
            Carries::Requests(io, connection) => Box::pin(serve_http1(io, connection, counted)),
            Carries::Connections(carrier) => Box::pin(carrier::serve(carrier, counted)),
        }
    }
}

async fn serve_http1(io: Box<dyn Stream>, connection: Rc<Connection>, _counted: Option<OpenConnection>) {
    let mut codec = Codec::new(io, connection.worker.pools.spare().clone(), LIMITS);
    let end = {
        let mut over = connection.over();
        let mut exchanges = pin!(exchanges(&mut codec, &connection));
        poll_fn(|cx| {
            if over.poll(cx).is_ready() {
                return Poll::Ready(End::Drained);
            }
            exchanges.as_mut().poll(cx)
        })
        .await
    };
    Box::pin(take_leave(end, codec, &connection)).await;
}

/// One request after the other, until the connection ends.
async fn exchanges(codec: &mut Codec, connection: &Rc<Connection>) -> End {
    let mut timer = Timer::start(&connection.worker.timers);
    loop {
        let next = poll_fn(|cx| {
            if let Poll::Ready(next) = codec.poll_request(cx) {
                return Poll::Ready(Ok(next));
            }
            if codec.has_begun() {
                connection.pulse.head_begins();
            }
            timer.poll(cx, &connection.pulse).map(|late| Err(End::Late(late)))
        });
        let request = match next.await {
            Ok(Next::Request(request)) => request,
            Ok(Next::Refused(refusal)) => return End::Refused(refusal),
            Ok(Next::End) => return End::Closed { unread: false },
            Ok(Next::Broken(_)) => return End::Broken { reset: false },
            Err(end) => return end,
        };
        // Boxed: a connection that waits for its next request is not as large as one that is answered.
        let request = Box::new(request.map(Body::asked));
        if let Err(end) = Box::pin(one(codec, request, connection)).await {
            return end;
        }
    }
}

type Codec = outrigger_http1::server::Connection<Box<dyn Stream>>;

/// One request and its response.
async fn one(codec: &mut Codec, request: Box<Request<Body>>, connection: &Rc<Connection>) -> Result<(), End> {
    let may_leave = *request.method() == Method::CONNECT || request.headers().contains_key(UPGRADE);
    let (promise, tunnel) = may_leave.then(Upgrade::promised).unzip();
    let interim = codec.interim().map_or(Interim::Nowhere, Interim::Http1);
    let response = answered(codec, request, tunnel, interim, connection).await?;
    if is_reset(&response) {
        return Err(End::Broken { reset: true });
    }
    let after = codec.answer(response).await.map_err(|broken| match broken {
        Broken::Body { looks_whole, .. } => End::Broken { reset: looks_whole },
        Broken::Io(_) | Broken::Length => End::Broken { reset: false },
    })?;
    match after {
        After::Next => Ok(()),
        After::Close { unread } => Err(End::Closed { unread }),
        After::Tunnel => {
            if let (Some(promise), Some((io, unread))) = (promise, codec.take()) {
                promise.socket(io, unread);
            }
            Err(End::Left)
        }
    }
}

/// What the request is answered. Apart from `one`, so that it has no room any more when that is written.
async fn answered(
    codec: &mut Codec,
    request: Box<Request<Body>>,
    tunnel: Option<Upgrade>,
    interim: Interim,
    connection: &Rc<Connection>,
) -> Result<Response<Outgoing>, End> {
    let mut handled = pin!(handle(request, tunnel, interim, connection));
    poll_fn(|cx| {
        if let Poll::Ready(response) = handled.as_mut().poll(cx) {
            return Poll::Ready(Ok(response));
        }
        // Whoever is not there any more gets no answer made.
        codec.poll_watch(cx).map(|_| Err(End::Broken { reset: false }))
    })
    .await
}

/// How an HTTP/1 connection came to its end.
#[derive(Debug)]
enum End {
    /// In order. `unread`: the client has sent what nobody read.
    Closed {
        unread: bool,
    },
    /// What came is no request, and the client is to be told.
    Refused(Refusal),
    Late(Late),
    Drained,
    /// Under a request or its response. `reset`: the client would take an orderly end for that of the response.
    Broken {
        reset: bool,
    },
    /// It is a tunnel now, and another's.
    Left,
}

/// What is left to say and to hear when HTTP/1 is over.
async fn take_leave(end: End, mut codec: Codec, connection: &Connection) {
    let unread = match end {
        End::Drained | End::Late(Late::Idle) | End::Left => return,
        End::Broken { reset } => {
            if reset && let Some((mut io, _)) = codec.take() {
                io.reset();
            }
            return;
        }
        End::Closed { unread } => unread,
        End::Refused(refusal) => {
            refuse(&mut codec, Failure::new(reason(refusal), refusal.sentence()), connection).await;
            true
        }
        End::Late(Late::Head) => {
            refuse(&mut codec, Reason::RequestHeadersTimeout.into(), connection).await;
            true
        }
    };
    let Some((mut io, _)) = codec.take() else { return };
    if !unread && connection.is_bare() {
        return;
    }
    if io.shutdown().await.is_ok() && unread {
        linger(&mut io).await;
    }
}

/// Answers what never became a request. It still counts.
async fn refuse(codec: &mut Codec, failure: Failure, connection: &Connection) {
    count_refused(connection, &failure);
    let asker = Asker::new(&Method::GET, &HeaderMap::new(), connection.tells_details());
    // A client that does not read is not waited for.
    let _ = tokio::time::timeout(LINGER, codec.answer(failure.response(asker))).await;
}

/// What a refusal of the codec is in the words of the proxy.
fn reason(refusal: Refusal) -> Reason {
    if refusal.is_too_large() {
        Reason::RequestHeadersTooLarge
    } else if refusal.is_ambiguous() {
        Reason::AmbiguousFraming
    } else {
        Reason::BadRequest
    }
}

/// Whether the request is given up without an answer: over HTTP/2 its stream, over HTTP/1 its connection.
pub(super) fn is_reset(response: &Response<Outgoing>) -> bool {
    response.extensions().get::<Reset>().is_some()
}

pub(super) async fn handle(
    request: Box<Request<Body>>,
    tunnel: Option<Upgrade>,
    interim: Interim,
    connection: &Rc<Connection>,
) -> Response<Outgoing> {
    let connect = *request.method() == Method::CONNECT;
    match tunnel {
        Some(tunnel) if connect && connection.is_asked() && !exchange::is_extended_connect(&request) => {
            Box::pin(connect::answer(*request, tunnel, connection)).await
        }
        tunnel => exchange::serve(request, tunnel, interim, connection).await,
    }
}

/// Of the HTTP/1 codec (design.md section 5); how long a client may take is `patience`'s.
const LIMITS: outrigger_http1::Limits =
    outrigger_http1::Limits { head: MAX_HEADER_BYTES, fields: exchange::MAX_HEADERS };

/// Bytes of a head, the same on all four hops.
pub(super) const MAX_HEADER_BYTES: usize = 64 * 1024;

/// A request that never became one still counts.
fn count_refused(connection: &Connection, failure: &Failure) {
    let (telemetry, worker) = (&connection.worker.shared.telemetry, connection.worker.id);
    let mut record = Record::http(telemetry, worker, &connection.unaddressed, &Request::new(()));
    record.client(connection.peer.address);
    record.status(failure.reason.status());
    record.fail(failure);
}

/// Reads on for a moment after our side ended: closing with unread bytes would reset the connection, and the client might lose the answer
/// it has not read yet (RFC 9112 §9.6).
pub(super) async fn linger(io: &mut (impl AsyncRead + Unpin)) {
    let mut discarded = [0; 4096];
    let read = async { while let Ok(1..) = io.read(&mut discarded).await {} };
    // Whoever goes on sending after that is cut off.
    let _ = tokio::time::timeout(LINGER, read).await;
}

/// Not bounded by bytes: a sender that is slow to look up may have filled both sockets' buffers first.
const LINGER: Duration = Duration::from_secs(2);
