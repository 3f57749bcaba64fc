//! Towards an endpoint: connections that streams are opened on.

use std::fmt;
use std::rc::Rc;
use std::task::{Context, Poll};

use http::{HeaderMap, Method, Uri};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::connection::{self, Pings};
use crate::core::{Outlet, Shared};
use crate::ends::{RecvStream, SendStream, ends};
use crate::error::Error;
use crate::settings::Limits;
use crate::space::Space;

/// Has to be polled for anything to come.
pub struct Connection<T>(connection::Connection<T>);

impl<T: AsyncRead + AsyncWrite + Unpin> Connection<T> {
    /// Says hello. What is written goes to `outlet`, which is `io`'s.
    pub fn new(io: T, outlet: Rc<dyn Outlet>, space: Rc<Space>, limits: Limits) -> (Sender, Self) {
        let connection = connection::Connection::new(io, outlet, space, limits, true);
        let shared = connection.shared.clone();
        shared.borrow_mut().senders += 1;
        (Sender(shared), Self(connection))
    }

    /// Ready when it is over: in order, or not.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.0.poll(cx)
    }

    pub fn pings(&self) -> Pings {
        Pings(self.0.shared.clone())
    }
}

/// Opens streams. A connection without one ends when its streams have.
pub struct Sender(Shared);

impl Sender {
    /// Waits until a stream may be opened. `Err`: there will be none any more.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.0.borrow_mut().poll_open(cx)
    }

    /// Streams the peer allows at a time; none before it said so.
    pub fn limit(&self) -> usize {
        self.0.borrow().peer.streams
    }

    /// The peer's first frame was SETTINGS.
    pub fn is_settled(&self) -> bool {
        self.0.borrow().settled
    }

    /// The peer takes extended CONNECT (RFC 8441).
    pub fn takes_extended_connect(&self) -> bool {
        self.0.borrow().peer.extended_connect
    }

    /// Opens a stream, right after [`Self::poll_ready`] said so. `end`: there is no body.
    pub fn send(
        &mut self,
        method: &Method,
        uri: &Uri,
        protocol: Option<&[u8]>,
        headers: &HeaderMap,
        end: bool,
    ) -> (SendStream, RecvStream) {
        let mut core = self.0.borrow_mut();
        let key = core.open(method, uri, protocol, headers, end);
        core.streams[key].handles = 2;
        drop(core);
        ends(&self.0, key)
    }
}

impl Clone for Sender {
    fn clone(&self) -> Self {
        self.0.borrow_mut().senders += 1;
        Self(self.0.clone())
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        let mut core = self.0.borrow_mut();
        core.senders -= 1;
        if core.senders == 0 {
            core.maybe_over();
        }
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sender")
    }
}
