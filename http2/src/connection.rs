//! Who reads a connection: one turn takes all frames that are there.
//!
//! Owns what was read and is no whole frame yet, and the end: nothing is closed before the last frame is out.

use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::core::{ALIVE, Core, STUCK, Shared};
use crate::error::{Code, Error};
use crate::frame;
use crate::settings::Limits;
use crate::space::Space;
use crate::stream::remember;

pub(crate) struct Connection<T> {
    io: T,
    pub shared: Shared,
    space: Rc<Space>,
    input: BytesMut,
    /// Bytes of the client's preface that have to come first.
    preface: usize,
}

/// Reads of one turn; then the others of the worker have theirs.
const READS: usize = 8;

impl<T: AsyncRead + AsyncWrite + Unpin> Connection<T> {
    pub fn new(io: T, outlet: Rc<dyn crate::Outlet>, space: Rc<Space>, limits: Limits, client: bool) -> Self {
        let core = Core::new(outlet, limits, client);
        let preface = if client { 0 } else { frame::PREFACE.len() };
        Self { io, shared: Rc::new(core.into()), space, input: BytesMut::new(), preface }
    }

    /// Reads on until there is nothing more. Ready when all is over, and out.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        {
            let mut core = self.shared.borrow_mut();
            remember(&mut core.driver, cx);
            // What came before this turn has been handed out.
            core.unseen_resets = 0;
            core.idle_frames = 0;
        }
        for _ in 0..READS {
            let mut core = self.shared.borrow_mut();
            core.advance();
            if core.is_over() {
                core.end(Error::Closed, Some(Code::NO_ERROR));
            }
            if let Some(error) = core.ended.clone() {
                drop(core);
                return self.poll_close(cx, error);
            }
            if core.outlet.waiting() >= STUCK {
                core.want_room();
                return Poll::Pending;
            }
            drop(core);
            let read = match ready!(self.space.poll_read(&mut self.io, cx, &mut self.input)) {
                Ok(0) => Err((Error::Closed, None)),
                Ok(_) => self.take(),
                Err(error) => Err((error.into(), None)),
            };
            if let Err((error, tell)) = read {
                self.shared.borrow_mut().end(error, tell);
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// For who sees to its end: nothing is read or written here any more.
    pub fn io(&mut self) -> &mut T {
        &mut self.io
    }

    /// Ends it with what GOAWAY says.
    pub fn refuse(&mut self, code: Code, why: &'static str) {
        self.shared.borrow_mut().end(Error::Connection(code, why), Some(code));
    }

    fn take(&mut self) -> Result<(), (Error, Option<Code>)> {
        let fatal = |(code, why)| (Error::Connection(code, why), Some(code));
        if self.preface > 0 {
            let now = self.preface.min(self.input.len());
            let expected = &frame::PREFACE[frame::PREFACE.len() - self.preface..][..now];
            if self.input[..now] != *expected {
                return Err(fatal((Code::PROTOCOL_ERROR, "no HTTP/2 preface")));
            }
            self.input.advance(now);
            self.preface -= now;
        }
        let mut core = self.shared.borrow_mut();
        let taken = core.take_frames(&mut self.input);
        if self.input.is_empty() {
            // Not one reference is left to the space it was read into.
            self.input = BytesMut::new();
        }
        taken.map_err(fatal)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>, error: Error) -> Poll<Result<(), Error>> {
        self.input = BytesMut::new();
        if !matches!(error, Error::Io(_)) {
            // Begins it. Whoever is below sees to what is left, for a moment: nobody waits for a peer that does not read.
            let _ = std::pin::Pin::new(&mut self.io).poll_shutdown(cx);
        }
        Poll::Ready(match error {
            Error::Closed => Ok(()),
            error => Err(error),
        })
    }
}

impl<T> Drop for Connection<T> {
    fn drop(&mut self) {
        self.shared.borrow_mut().end(Error::Closed, Some(Code::NO_ERROR));
    }
}

/// Asks the peer whether it is still there.
#[derive(Debug)]
pub struct Pings(pub(crate) Shared);

impl Pings {
    /// Sends a PING and waits for its answer. `Err`: the connection is over.
    pub async fn ping(&mut self) -> Result<(), Error> {
        let before = {
            let core = self.0.borrow();
            core.write(&frame::ping(false, ALIVE));
            core.pongs
        };
        std::future::poll_fn(|cx| {
            let mut core = self.0.borrow_mut();
            if core.pongs != before {
                return Poll::Ready(Ok(()));
            }
            if let Some(error) = &core.ended {
                return Poll::Ready(Err(error.clone()));
            }
            remember(&mut core.pinger, cx);
            Poll::Pending
        })
        .await
    }
}
