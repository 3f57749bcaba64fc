//! Towards a client: connections that requests come of.

use std::rc::Rc;
use std::task::{Context, Poll};

use http::Request;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::connection::{self, Pings};
use crate::core::Outlet;
use crate::ends::{RecvStream, SendStream, ends};
use crate::error::{Code, Error};
use crate::settings::Limits;
use crate::space::Space;

/// Has to be polled for anything to come.
pub struct Connection<T>(connection::Connection<T>);

/// A request, and where its answer goes.
pub type Accepted = (Request<RecvStream>, SendStream);

impl<T: AsyncRead + AsyncWrite + Unpin> Connection<T> {
    /// Says hello. What is written goes to `outlet`, which is `io`'s.
    pub fn new(io: T, outlet: Rc<dyn Outlet>, space: Rc<Space>, limits: Limits) -> Self {
        Self(connection::Connection::new(io, outlet, space, limits, false))
    }

    /// The next request, and where its answer goes; `None` when the connection is over.
    pub fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Accepted, Error>>> {
        loop {
            if let Some((key, request)) = self.pop() {
                let (send, recv) = ends(&self.0.shared, key);
                return Poll::Ready(Some(Ok((request.map(|()| recv), send))));
            }
            match self.0.poll(cx) {
                Poll::Ready(Ok(())) => return Poll::Ready(None),
                Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(error))),
                Poll::Pending if self.0.shared.borrow().accepted.is_empty() => return Poll::Pending,
                Poll::Pending => {}
            }
        }
    }

    fn pop(&mut self) -> Option<(usize, Request<()>)> {
        let mut core = self.0.shared.borrow_mut();
        let request = core.accepted.pop_front();
        if core.accepted.is_empty() {
            // A burst leaves nothing behind.
            core.accepted.shrink_to(8);
        }
        request
    }

    /// Takes no more requests than are under way (RFC 9113 §6.8); ends when those are answered.
    pub fn leave(&mut self) {
        self.0.shared.borrow_mut().leave();
    }

    /// Ends it at once, with all its streams, and says why. What is accepted next is that error.
    pub fn refuse(&mut self, code: Code, why: &'static str) {
        self.0.refuse(code, why);
    }

    /// What it was read from, once it is over.
    pub fn io(&mut self) -> &mut T {
        self.0.io()
    }

    pub fn pings(&self) -> Pings {
        Pings(self.0.shared.clone())
    }
}
