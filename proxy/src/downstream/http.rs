//! A connection that speaks HTTP: its codec, with all limits, and each request on its way to the exchange.
//!
//! Every server codec is made here, in [`http1`] and [`http2`], so that none is made without its timer and limits. hyper's types end
//! here: an exchange gets our body, and the client's side of a tunnel if it asks for one.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::time::Duration;

use http::header::{CONNECTION, HeaderValue, UPGRADE};
use http::{HeaderMap, Method, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::patience::{Late, Timer, Watched};
use super::tunnel::Ends;
use super::{Connection, Stream, connect};
use crate::body::Body;
use crate::coalesce::Coalesced;
use crate::drain::Phase;
use crate::exchange::{self, Outgoing};
use crate::failure::{Asker, Failure, Reason};
use crate::policy::fault::Reset;
use crate::runtime::LocalExecutor;
use crate::telemetry::{Direction, Record};
use crate::upgrade::Upgrade;

/// Serves requests until either side ends the connection.
pub async fn serve(io: impl Stream, connection: Rc<Connection>) {
    // One kind of stream for the codecs: the program has each of them once, and the call costs nothing beside a system call.
    let io: Box<dyn Stream> = Box::new(io);
    // Boxed, so that what lasts is not as large as the largest thing that may come before it.
    if connection.http2 {
        Box::pin(serve_http2(io, connection)).await;
    } else {
        Box::pin(serve_http1(io, connection)).await;
    }
}

async fn serve_http1(io: Box<dyn Stream>, connection: Rc<Connection>) {
    let ends = Ends::with_connection();
    let service = service_fn(|request| handle(request, connection.clone(), ends));
    let io = TokioIo::new(Watched::new(io, connection.pulse.clone()));
    let mut codec = http1().serve_connection(io, service).with_upgrades();
    let mut timer = Timer::start();
    let mut drained = pin!(drained(&connection));
    let end = poll_fn(|cx| {
        if drained.as_mut().poll(cx).is_ready() {
            return End::Drained.into();
        }
        if let std::task::Poll::Ready(result) = Pin::new(&mut codec).poll(cx) {
            return End::Codec(result).into();
        }
        timer.poll(cx, &connection.pulse).map(End::Late)
    })
    .await;
    let Some(parts) = codec.into_parts() else { return };
    Box::pin(take_leave(end, parts.io.into_inner().into_inner(), &connection)).await;
}

/// What is left to say and to hear when an HTTP/1 codec is done.
async fn take_leave(end: End, mut io: Box<dyn Stream>, connection: &Connection) {
    match end {
        End::Drained | End::Late(Late::Idle) => {}
        End::Codec(Ok(())) => {
            if connection.unread.get() {
                linger(&mut io).await;
            }
        }
        End::Codec(Err(_)) if connection.broken_off.get() => io.reset(),
        End::Codec(Err(error)) => {
            if let Some(reason) = malformed(&error) {
                // The codec answered it already.
                count_refused(connection, &Failure::new(reason, error.to_string()));
                linger(&mut io).await;
            }
        }
        End::Late(Late::Head) => {
            let failure = Failure::from(Reason::RequestHeadersTimeout);
            count_refused(connection, &failure);
            let asker = Asker::new(&Method::GET, &HeaderMap::new(), connection.tells_details());
            let answer = written(failure.response(asker)).await;
            if io.write_all(&answer).await.is_ok() && io.shutdown().await.is_ok() {
                linger(&mut io).await;
            }
        }
    }
}

async fn serve_http2(io: Box<dyn Stream>, connection: Rc<Connection>) {
    let service = service_fn(|request| handle(request, connection.clone(), Ends::with_stream()));
    let io = Coalesced::new(io, connection.worker.flusher.clone());
    let io = TokioIo::new(Watched::new(io, connection.pulse.clone()));
    let mut codec = pin!(http2(connection.direction).serve_connection(io, service));
    let mut timer = Timer::start();
    let mut drained = pin!(drained(&connection));
    let mut leaving = false;
    poll_fn(|cx| {
        if drained.as_mut().poll(cx).is_ready() {
            return ().into();
        }
        let late = timer.poll(cx, &connection.pulse).is_ready();
        if (late || connection.draining.get()) && !std::mem::replace(&mut leaving, true) {
            // Twice GOAWAY, the first without an end, so that what the client sends meanwhile is served (RFC 9113 §6.8).
            codec.as_mut().graceful_shutdown();
        }
        codec.as_mut().poll(cx).map(|result| {
            if let Err(error) = result {
                tracing::debug!(%error, client = %connection.peer.address, "an HTTP/2 connection ended");
            }
        })
    })
    .await;
}

enum End {
    Codec(Result<(), hyper::Error>),
    Late(Late),
    Drained,
}

/// Resolves when the connection has to end, whatever is going on: a drain is over, or its peer may do nothing here any more.
async fn drained(connection: &Connection) {
    tokio::select! {
        biased;
        () = connection.revoked() => {}
        () = drain_over(connection) => {}
    }
}

/// Resolves when a drain is over; notes when it begins. Outbound connections do not take part in one.
async fn drain_over(connection: &Connection) {
    if !connection.drains() {
        return std::future::pending().await;
    }
    let mut watch = connection.worker.shared.drain.watch();
    watch.reached(Phase::Draining).await;
    connection.draining.set(true);
    watch.reached(Phase::Ended).await;
}

/// Boxed: a codec moves it about.
type Answer = Pin<Box<dyn Future<Output = Result<Response<Outgoing>, BrokenOff>>>>;

fn handle(mut request: Request<Incoming>, connection: Rc<Connection>, ends: Ends) -> Answer {
    let connect = *request.method() == Method::CONNECT;
    if connect && connection.is_asked() && !exchange::is_extended_connect(&request) {
        return Box::pin(async move { Ok(connect::answer(request, connection, ends).await) });
    }
    let tunnel = (connect || request.headers().contains_key(UPGRADE))
        .then(|| Upgrade::downstream(hyper::upgrade::on(&mut request), ends));
    let request = Box::new(request.map(Body::from_incoming));
    Box::pin(async move {
        let response = exchange::serve(request, tunnel, &connection).await;
        if response.extensions().get::<Reset>().is_some() {
            connection.broken_off.set(true);
            return Err(BrokenOff);
        }
        Ok(response)
    })
}

/// Makes a codec give up a request without an answer: over HTTP/2 its stream, over HTTP/1 its connection.
#[derive(Debug, thiserror::Error)]
#[error("reset on purpose")]
struct BrokenOff;

/// The HTTP/1 codec. Limits of design.md section 5; how long a client may take is `patience`'s.
fn http1() -> hyper::server::conn::http1::Builder {
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // Its own would be a timer made and dropped for each request, and would end idle connections.
        .header_read_timeout(None)
        // A client may end its side when it has said everything: `printf … | nc -N`.
        .half_close(true)
        .preserve_header_case(true)
        .title_case_headers(true)
        .max_headers(exchange::MAX_HEADERS)
        .max_header_size(MAX_HEADER_BYTES)
        .max_buf_size(MAX_HEADER_BYTES);
    builder
}

/// The HTTP/2 codec. A gateway's clients are further away, so they get larger windows.
fn http2(direction: Direction) -> hyper::server::conn::http2::Builder<LocalExecutor> {
    let (stream, connection) = match direction {
        Direction::Gateway => (256 * 1024, 4 * 1024 * 1024),
        Direction::Inbound | Direction::Outbound => (64 * 1024, 1024 * 1024),
    };
    // Requests cancelled before they were looked at, and frames for streams that are over (in the connection's life): at the figure the codec ends
    // the connection, with everybody's streams. A caller's sidecar carries many clients on one connection: all its streams may be cancelled at once.
    let (cancelled, late) = match direction {
        Direction::Gateway => (20, 1024),
        Direction::Inbound | Direction::Outbound => (2 * MAX_STREAMS as usize, 16 * 1024),
    };
    let mut builder = hyper::server::conn::http2::Builder::new(LocalExecutor);
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(stream)
        .initial_connection_window_size(connection)
        .adaptive_window(false)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_BYTES as u32)
        .max_send_buf_size(64 * 1024)
        .max_pending_accept_reset_streams(cancelled)
        .max_local_error_reset_streams(late)
        .keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(20))
        .enable_connect_protocol();
    builder
}

/// At a time on one connection.
const MAX_STREAMS: u32 = 200;

/// Bytes of a head, the same on all four hops.
const MAX_HEADER_BYTES: usize = 64 * 1024;

/// What was wrong with a request that the codec refused by itself.
fn malformed(error: &hyper::Error) -> Option<Reason> {
    if error.is_parse_too_large() {
        Some(Reason::RequestHeadersTooLarge)
    } else if error.is_parse() {
        Some(Reason::BadRequest)
    } else {
        None
    }
}

/// A request that never became one still counts.
fn count_refused(connection: &Connection, failure: &Failure) {
    let (telemetry, worker) = (&connection.worker.shared.telemetry, connection.worker.id);
    let mut record = Record::http(telemetry, worker, &connection.unaddressed, &Request::new(()));
    record.client(connection.peer.address);
    record.status(failure.reason.status());
    record.fail(failure);
}

/// A short response as HTTP/1 bytes, for a connection whose codec is gone.
async fn written(response: Response<Body>) -> Vec<u8> {
    let (mut head, body) = response.into_parts();
    head.headers.insert(CONNECTION, HeaderValue::from_static("close"));
    let reason = head.status.canonical_reason().unwrap_or_default();
    let mut bytes = format!("HTTP/1.1 {} {reason}\r\n", head.status.as_u16()).into_bytes();
    for (name, value) in &head.headers {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    if let Ok(body) = body.collect().await {
        bytes.extend_from_slice(&body.to_bytes());
    }
    bytes
}

/// Reads on for a moment after our side ended: closing with unread bytes would reset the connection, and the client might lose the answer
/// it has not read yet (RFC 9112 §9.6).
async fn linger(io: &mut Box<dyn Stream>) {
    let mut discarded = [0; 4096];
    let read = async { while let Ok(1..) = io.read(&mut discarded).await {} };
    // Whoever goes on sending after that is cut off.
    let _ = tokio::time::timeout(LINGER, read).await;
}

/// Not bounded by bytes: a sender that is slow to look up may have filled both sockets' buffers first.
const LINGER: Duration = Duration::from_secs(2);
