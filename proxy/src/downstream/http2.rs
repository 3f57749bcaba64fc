//! A connection that speaks HTTP/2: each request of it is a task of its own, from its head to the end of its answer.
//!
//! Owns the codec's limits, and when it goes away. Never looks into a request.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderValue};
use http::{Method, Request};
use http_body::Body as _;
use outrigger_http2::server::Connection as Codec;
use outrigger_http2::{Code, Error, Limits, Protocol, RecvStream, SendStream};

use super::http::{MAX_HEADER_BYTES, handle, is_reset, linger};
use super::patience::Timer;
use super::resets::Resets;
use super::{Connection, Interim, Stream};
use crate::body::Body;
use crate::coalesce::Coalesced;
use crate::exchange::Outgoing;
use crate::telemetry::{Direction, OpenConnection};
use crate::upgrade::Upgrade;
use crate::upstream::http2::keep_alive;

/// Serves requests until either side ends the connection.
pub async fn serve(io: Box<dyn Stream>, connection: Rc<Connection>, _counted: Option<OpenConnection>) {
    let flusher = connection.worker.flusher.clone();
    let space = flusher.space();
    let io = Coalesced::new(io, flusher);
    let outlet = io.outlet();
    let mut codec = Codec::new(io, outlet, space, limits(connection.direction));
    let mut dead = pin!(keep_alive(codec.pings()));
    let mut timer = Timer::start(&connection.worker.timers);
    let mut over = connection.over();
    let mut leaving = false;
    let resets = matches!(connection.direction, Direction::Gateway).then(Rc::<Resets>::default);
    let broken = poll_fn(|cx| {
        if over.poll(cx).is_ready() || dead.as_mut().poll(cx).is_ready() {
            return false.into();
        }
        if resets.as_ref().is_some_and(|resets| resets.are_too_many()) {
            codec.refuse(Code::ENHANCE_YOUR_CALM, "too many requests that are reset at once");
        }
        let late = timer.poll(cx, &connection.pulse).is_ready();
        if (late || connection.draining.get()) && !std::mem::replace(&mut leaving, true) {
            // Twice GOAWAY, the first without an end, so that what the client sends meanwhile is served (RFC 9113 §6.8).
            codec.leave();
        }
        loop {
            match ready!(codec.poll_accept(cx)) {
                Some(Ok((request, send))) => {
                    tokio::task::spawn_local(answer(request, send, connection.clone(), resets.clone()));
                }
                Some(Err(error)) => {
                    tracing::debug!(%error, client = %connection.peer.address, "an HTTP/2 connection ended");
                    return matches!(error, Error::Connection(..)).into();
                }
                None => return false.into(),
            }
        }
    })
    .await;
    if broken {
        Box::pin(linger(codec.io())).await;
    }
}

/// One request. Ends early when its stream does: whoever is not there any more gets no answer made.
async fn answer(
    request: Request<RecvStream>,
    mut send: SendStream,
    connection: Rc<Connection>,
    resets: Option<Rc<Resets>>,
) {
    let begun = resets.as_ref().map(|resets| resets.begin());
    let connect = *request.method() == Method::CONNECT;
    let (mut head, recv) = request.into_parts();
    if let Some(Protocol(protocol)) = head.extensions.remove()
        && let Ok(protocol) = std::str::from_utf8(&protocol)
    {
        head.extensions.insert(hyper::ext::Protocol::from(protocol));
    }
    let (body, recv) = if connect { (Body::empty(), Some(recv)) } else { (Body::stream(recv), None) };
    let (promise, tunnel) = connect.then(Upgrade::promised).unzip();
    let method = head.method.clone();
    let request = Box::new(Request::from_parts(head, body));
    let response = {
        let interim = Interim::Http2(send.interim());
        let mut handled = pin!(handle(request, tunnel, interim, &connection));
        let response = poll_fn(|cx| match handled.as_mut().poll(cx) {
            Poll::Ready(response) => Poll::Ready(Some(response)),
            Poll::Pending => send.poll_reset(cx).map(|_| None),
        });
        let response = response.await;
        // Whoever was still reading its body learned of it first, and has made an answer.
        if let (Some(resets), Some(begun)) = (resets, begun)
            && let Poll::Ready(Error::Reset(_)) = poll_fn(|cx| Poll::Ready(send.poll_reset(cx))).await
        {
            resets.reset(begun);
        }
        match response {
            Some(response) => response,
            None => return,
        }
    };
    if is_reset(&response) {
        return send.reset(Code::INTERNAL_ERROR);
    }
    let (mut head, mut body) = response.into_parts();
    if let (Some(promise), Some(recv), true) = (promise, recv, head.status.is_success()) {
        // It has no content, and no length of any (RFC 9110 §9.3.6).
        head.headers.remove(CONTENT_LENGTH);
        if send.respond(&mut head, false).is_ok() {
            promise.stream(send, recv);
        }
        return;
    }
    let end = body.is_end_stream();
    if !end
        && method != Method::HEAD
        && !head.headers.contains_key(CONTENT_LENGTH)
        && let Some(length) = body.size_hint().exact()
    {
        head.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    if send.respond(&mut head, end).is_err() || end {
        return;
    }
    let mut held = Bytes::new();
    poll_fn(|cx| poll_body(cx, &mut body, &mut held, &mut send)).await;
}

/// Writes the body of an answer, no more of it than the client has room for.
fn poll_body(cx: &mut Context<'_>, body: &mut Outgoing, held: &mut Bytes, send: &mut SendStream) -> Poll<()> {
    loop {
        if !held.is_empty() {
            let end = body.is_end_stream();
            if ready!(send.poll_send(cx, held, end)).is_err() || end {
                return Poll::Ready(());
            }
        }
        if send.poll_reset(cx).is_ready() {
            return Poll::Ready(());
        }
        let frame = match ready!(Pin::new(&mut *body).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(_)) => {
                send.reset(Code::INTERNAL_ERROR);
                return Poll::Ready(());
            }
            None => {
                let _ = send.end();
                return Poll::Ready(());
            }
        };
        match frame.into_data() {
            Ok(data) if data.is_empty() && body.is_end_stream() => {
                let _ = send.end();
                return Poll::Ready(());
            }
            Ok(data) => *held = data,
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    let _ = send.trailers(&trailers);
                    return Poll::Ready(());
                }
            }
        }
    }
}

/// A gateway's clients are further away, so they get larger windows.
pub(super) fn limits(direction: Direction) -> Limits {
    let (stream_window, connection_window, lent) = match direction {
        Direction::Gateway => (256 * 1024, 4 * 1024 * 1024, 0),
        Direction::Inbound | Direction::Outbound => (64 * 1024, 1024 * 1024, 16 * 1024 * 1024),
    };
    // A caller's sidecar carries many clients on one connection: all its streams may be cancelled at once.
    let (unseen_resets, faulty_streams, idle_frames) = match direction {
        Direction::Gateway => (20, 1024, 1_000),
        Direction::Inbound | Direction::Outbound => (2 * MAX_STREAMS as usize, 16 * 1024, 10_000),
    };
    Limits {
        stream_window,
        connection_window,
        lent,
        streams: MAX_STREAMS,
        header_list: MAX_HEADER_BYTES,
        unseen_resets,
        faulty_streams,
        idle_frames,
    }
}

/// At a time on one connection.
pub(super) const MAX_STREAMS: u32 = 200;
