//! A connection of another proxy whose streams are connections of HTTP/1.1: each is served as if it had come by itself.
//!
//! Only between proxies that proved who they are and agreed on it (`outrigger-http/1.1-h2`). Owns when it goes away; what a stream carries is `http`'s
//! business, which knows no difference.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, ready};

use http::{Method, Response, StatusCode};
use outrigger_http2::server::{Accepted, Connection as Codec};
use outrigger_http2::{Code, Limits};

use super::http::{Http, MAX_HEADER_BYTES};
use super::http2::{self, MAX_STREAMS};
use super::patience::Timer;
use super::{Arrival, Connection, Stream, Towards};
use crate::bytestream;
use crate::coalesce::Coalesced;
use crate::telemetry::OpenConnection;
use crate::upstream::http2::keep_alive;

/// One that is agreed on.
pub struct Carrier {
    io: Box<dyn Stream>,
    arrival: Box<Arrival>,
    towards: Towards,
    /// Of the whole: each stream has one of its own.
    connection: Rc<Connection>,
}

impl Carrier {
    pub fn new(io: impl Stream, arrival: Box<Arrival>, towards: Towards) -> Self {
        let connection = Connection::new(&arrival, towards.clone(), true);
        Self { io: Box::new(io), arrival, towards, connection }
    }
}

/// Serves its streams until either side ends the connection.
pub async fn serve(carrier: Carrier, _counted: Option<OpenConnection>) {
    let Carrier { io, arrival, towards, connection } = carrier;
    let flusher = connection.worker.flusher.clone();
    let space = flusher.space();
    let io = Coalesced::new(io, flusher);
    let outlet = io.outlet();
    let mut codec = Codec::new(io, outlet, space, limits());
    let mut dead = pin!(keep_alive(codec.pings()));
    let mut timer = Timer::start(&connection.worker.timers);
    let mut over = connection.over();
    let mut leaving = false;
    poll_fn(|cx| {
        if over.poll(cx).is_ready() || dead.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let late = timer.poll(cx, &connection.pulse).is_ready();
        if (late || connection.draining.get()) && !std::mem::replace(&mut leaving, true) {
            codec.leave();
        }
        loop {
            match ready!(codec.poll_accept(cx)) {
                Some(Ok(accepted)) => carry(accepted, &arrival, &towards, &connection),
                Some(Err(error)) => {
                    tracing::debug!(%error, client = %connection.peer.address, "a connection that carries others ended");
                    return Poll::Ready(());
                }
                None => return Poll::Ready(()),
            }
        }
    })
    .await;
}

/// One stream, from its opening on.
fn carry((request, mut send): Accepted, arrival: &Arrival, towards: &Towards, carrier: &Rc<Connection>) {
    if *request.method() != Method::CONNECT {
        return send.reset(Code::PROTOCOL_ERROR);
    }
    let (mut head, ()) = Response::new(()).into_parts();
    head.status = StatusCode::OK;
    if send.respond(&mut head, false).is_err() {
        return;
    }
    let stream = bytestream::Stream::new(send, request.into_body(), None);
    let served = Http::new(stream, Connection::new(arrival, towards.clone(), false)).serve();
    // The whole is not idle while it carries anything.
    let open = carrier.begin();
    tokio::task::spawn_local(async move {
        served.await;
        drop(open);
    });
}

fn limits() -> Limits {
    Limits {
        stream_window: 64 * 1024,
        // None waits for what another one's reader leaves lying.
        connection_window: MAX_STREAMS * 64 * 1024,
        header_list: MAX_HEADER_BYTES,
        ..http2::limits(crate::telemetry::Direction::Inbound)
    }
}
