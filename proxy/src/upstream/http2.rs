//! One HTTP/2 connection to an endpoint: its streams, its keep-alive, its end.
//!
//! Here is known whether the endpoint processed a stream (REFUSED_STREAM, GOAWAY), the request's head is still at hand when it did not, and
//! an exchange needs no task and no channel of its own. A stream is opened only with a [`Slot`], and there are as many as the peer allows.

mod head;
mod pump;
mod stream;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use outrigger_http2::{Error, Limits, Pings, client};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::io::InspectReader;

use super::Endpoint;
use super::caps::Place;
use super::connect::Transport;
use crate::coalesce::{Coalesced, Flusher};
use crate::failure::{Failure, Reason};
use crate::identity::is_refusal;

pub(crate) use stream::Received;
pub(super) use stream::{Sent, carry, send};

/// How many requests count on one connection that is being opened, before any was: what RFC 9113 §6.5.2 recommends as the least a peer should allow.
pub(super) const EXPECTED_LIMIT: usize = 100;

/// A ping goes out this long after the last one was answered, with or without streams (design.md section 5), to proxies of the mesh. Apps
/// get none: gRPC servers take a second ping within five minutes, with nothing sent in between, for abuse, and end the connection with
/// everybody's calls (gRFC A8, "Server Enforcement"). What is dead there is found by TCP (`connect`).
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// A connection whose ping is not answered for this long is dead.
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// How long requests may wait on a connection of which nothing is heard, neither answers nor the bodies of others, before the next ones go over another: an endpoint whose
/// packets are lost is met by the timeout of that one's opening, and left for another endpoint.
pub(super) const SILENCE: Duration = Duration::from_secs(4);

/// A connection. Closed by dropping it: its streams end first.
#[derive(Debug)]
pub(super) struct Http2 {
    sender: Sender,
    state: Rc<State>,
}

#[derive(Debug)]
struct State {
    /// Streams in use.
    streams: Cell<usize>,
    /// Streams opened so far.
    opened: Cell<u32>,
    /// When the last stream ended.
    idle_since: Cell<Instant>,
    /// Requests of which no answer has begun.
    waiting: Cell<usize>,
    /// Whether anything came since it was last looked at.
    heard: Cell<bool>,
    /// Nothing came for [`SILENCE`], although answers are awaited: it may be dead, and until something comes no other request shall wait with them.
    silent: Cell<bool>,
    /// No new stream can be opened: it is closed, or going away.
    closed: Cell<bool>,
    /// Among the connections of its cluster; not counted while it is silent, or the connection that takes its place could not be opened.
    place: RefCell<Option<Place>>,
    /// Told when a slot becomes free, when a silent connection speaks again, and when it ends.
    changed: Rc<Notify>,
}

impl State {
    /// Something came, or, if it is nothing, the end.
    fn hear(&self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.heard.set(true);
        if self.set_silent(false) {
            self.changed.notify_waiters();
        }
    }

    /// Returns whether it was.
    fn set_silent(&self, silent: bool) -> bool {
        let was = self.silent.replace(silent);
        if was != silent
            && let Some(place) = &*self.place.borrow()
        {
            if silent { place.lend() } else { place.reclaim() }
        }
        was
    }
}

impl Http2 {
    /// Starts HTTP/2 and waits for the peer's SETTINGS, at most for `timeout`: only then is known how many streams it allows, and
    /// that it speaks HTTP/2 at all. `changed` is told whenever a stream or the connection ends.
    pub(super) async fn over(
        mut transport: Transport,
        flusher: Rc<Flusher>,
        changed: Rc<Notify>,
        timeout: Duration,
        limits: Limits,
        endpoint: &Endpoint,
    ) -> Result<Self, Failure> {
        let failed = |why: &dyn fmt::Display| {
            let detail =
                format!("{} does not speak HTTP/2: {why}; is its port declared rightly?", endpoint.address);
            Failure::new(Reason::UpstreamProtocolError, detail)
        };
        let broken = |error: Error| {
            if let Error::Io(error) = &error
                && is_refusal(&**error)
            {
                let detail = format!("{} does not take our certificate: {error}", endpoint.address);
                return Failure::new(Reason::UpstreamTlsFailed, detail);
            }
            failed(&error)
        };
        let state = Rc::new(State {
            streams: Cell::new(0),
            opened: Cell::new(0),
            waiting: Cell::new(0),
            heard: Cell::new(true),
            silent: Cell::new(false),
            idle_since: Cell::new(Instant::now()),
            closed: Cell::new(false),
            place: RefCell::new(transport.take_place()),
            changed,
        });
        let heard = Rc::clone(&state);
        let transport = InspectReader::new(transport, move |bytes: &[u8]| heard.hear(bytes));
        let space = flusher.space();
        let io = Coalesced::new(transport, flusher);
        let outlet = io.outlet();
        let (sender, mut connection) = client::Connection::new(io, outlet, space, limits);
        let settle = poll_fn(|cx| {
            // Until then no stream may be opened.
            let ended = connection.poll(cx);
            match ended {
                _ if sender.limit() > 0 => Poll::Ready(Ok(())),
                Poll::Ready(Ok(())) => Poll::Ready(Err(failed(&"it closed the connection"))),
                Poll::Ready(Err(error)) => Poll::Ready(Err(broken(error))),
                Poll::Pending => Poll::Pending,
            }
        });
        match tokio::time::timeout(timeout, settle).await {
            Ok(settled) => settled?,
            Err(_) => return Err(failed(&format_args!("no SETTINGS within {timeout:?}"))),
        }
        let pings = endpoint.meshed.then(|| connection.pings());
        let driven = Rc::clone(&state);
        tokio::task::spawn_local(async move {
            tokio::select! {
                result = poll_fn(|cx| connection.poll(cx)) => if let Err(error) = result {
                    tracing::debug!(%error, "an upstream HTTP/2 connection ended");
                },
                () = keep_alive_if(pings) => tracing::debug!("an upstream HTTP/2 connection does not answer pings"),
                () = listen(&driven) => {}
            }
            driven.closed.set(true);
            // What holds an end of a stream may live for longer than there is a connection.
            drop(connection);
            driven.place.take();
            driven.changed.notify_waiters();
        });
        Ok(Self { sender, state })
    }

    /// A place for one more stream, if there is one. After `most` streams there is none any more.
    pub(super) fn slot(&self, most: u32) -> Option<(Sender, Slot)> {
        let state = &self.state;
        if state.closed.get() || state.silent.get() || state.streams.get() >= self.limit() {
            return None;
        }
        state.streams.set(state.streams.get() + 1);
        state.opened.set(state.opened.get().saturating_add(1));
        if state.opened.get() >= most {
            state.closed.set(true);
        }
        Some((self.sender.clone(), Slot { state: Rc::clone(state) }))
    }

    /// Streams the peer allows at a time.
    pub(super) fn limit(&self) -> usize {
        self.sender.limit()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state.closed.get()
    }

    /// Since when it carries nothing.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        (self.state.streams.get() == 0).then(|| self.state.idle_since.get())
    }
}

/// The right to one stream of a connection; given back when dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    state: Rc<State>,
}

/// What opens a stream.
pub(super) type Sender = client::Sender;

impl Slot {
    /// Nothing new goes over this connection any more.
    pub(super) fn close_connection(&self) {
        self.state.closed.set(true);
    }

    /// See [`Http2::slot`].
    pub(crate) fn is_silent(&self) -> bool {
        self.state.silent.get()
    }

    /// From the request on until its answer begins or it is given up.
    pub(crate) fn waiting(&self) -> Waiting {
        self.state.waiting.set(self.state.waiting.get() + 1);
        Waiting(Rc::clone(&self.state))
    }
}

/// A request whose answer has not begun.
#[derive(Debug)]
pub(crate) struct Waiting(Rc<State>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get() - 1);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let state = &self.state;
        state.streams.set(state.streams.get() - 1);
        if state.streams.get() == 0 {
            state.idle_since.set(Instant::now());
        }
        state.changed.notify_one();
    }
}

/// Never ends; sets and clears what [`State::silent`] says.
async fn listen(state: &State) {
    let mut looks = 0;
    loop {
        tokio::time::sleep(SILENCE / 2).await;
        let quiet = !state.heard.replace(false) && state.waiting.get() > 0;
        looks = if quiet { looks + 1 } else { 0 };
        state.set_silent(looks >= 2);
    }
}

async fn keep_alive_if(pings: Option<Pings>) {
    match pings {
        Some(pings) => keep_alive(pings).await,
        None => std::future::pending().await,
    }
}

/// Ends when the peer stopped answering.
pub(crate) async fn keep_alive(mut pings: Pings) {
    loop {
        tokio::time::sleep(PING_INTERVAL).await;
        match tokio::time::timeout(PING_TIMEOUT, pings.ping()).await {
            Ok(Ok(())) => {}
            // The connection ends by itself.
            Ok(Err(_)) => return std::future::pending().await,
            Err(_) => return,
        }
    }
}
