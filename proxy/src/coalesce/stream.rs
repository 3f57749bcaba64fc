//! A connection whose writes wait for the end of the turn.

use std::cell::RefCell;
use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use outrigger_http2::Outlet;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::flusher::{Flusher, Marked};

/// Reads as the connection below does; writes into a buffer. The flusher alone polls the connection for writing.
pub struct Coalesced<T: AsyncWrite + Unpin + 'static> {
    shared: Rc<Shared<T>>,
    flusher: Rc<Flusher>,
}

/// Bytes that wait at most.
pub(super) const BUFFER: usize = 64 * 1024;
/// A write of this size gains nothing by a copy.
pub(super) const LARGE: usize = 16 * 1024;

struct Shared<T> {
    state: RefCell<State<T>>,
    flusher: std::rc::Weak<Flusher>,
}

struct State<T> {
    io: T,
    buffer: Vec<u8>,
    /// Whose turn it is when there is room, or an error.
    task: Option<Waker>,
    waits: bool,
    marked: bool,
    /// How the flusher waits for the socket.
    blocked: Option<Waker>,
    end: End,
    /// The flusher's business alone.
    left: bool,
}

/// How far a connection is on its way to its end.
#[derive(Debug)]
enum End {
    Open,
    /// After the last byte its writing side is closed.
    Closing,
    Closed,
    /// Nothing can be written; the error is for whoever calls next.
    Failed(Option<io::Error>),
}

impl<T: AsyncWrite + Unpin + 'static> Coalesced<T> {
    pub fn new(io: T, flusher: Rc<Flusher>) -> Self {
        let state = State {
            io,
            buffer: Vec::new(),
            task: None,
            waits: false,
            marked: false,
            blocked: None,
            end: End::Open,
            left: false,
        };
        Self {
            shared: Rc::new(Shared { state: RefCell::new(state), flusher: Rc::downgrade(&flusher) }),
            flusher,
        }
    }

    /// Bytes of memory its buffer has.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.shared.state.borrow().buffer.capacity()
    }

    fn mark(&self, state: &mut State<T>) {
        if state.blocked.is_none() && !std::mem::replace(&mut state.marked, true) {
            self.flusher.mark(self.shared.clone());
        }
    }

    /// For the frames of an HTTP/2 connection. Knows the connection only as long as it lives.
    pub fn outlet(&self) -> Rc<dyn Outlet> {
        Rc::new(Frames { shared: Rc::downgrade(&self.shared), flusher: self.flusher.clone() })
    }
}

struct Frames<T> {
    shared: std::rc::Weak<Shared<T>>,
    flusher: Rc<Flusher>,
}

impl<T: AsyncWrite + Unpin + 'static> Outlet for Frames<T> {
    fn write(&self, head: &[u8], data: &[u8]) {
        let Some(shared) = self.shared.upgrade() else { return };
        let state = &mut *shared.state.borrow_mut();
        if !matches!(state.end, End::Open) {
            return;
        }
        if state.buffer.capacity() == 0 {
            state.buffer = self.flusher.buffer();
        }
        state.buffer.extend_from_slice(head);
        state.buffer.extend_from_slice(data);
        if state.blocked.is_none() && !std::mem::replace(&mut state.marked, true) {
            self.flusher.mark(shared.clone());
        }
    }

    fn waiting(&self) -> usize {
        self.shared.upgrade().map_or(0, |shared| shared.state.borrow().waiting())
    }

    fn want_room(&self, driver: Option<&Waker>) {
        let Some(shared) = self.shared.upgrade() else { return };
        let state = &mut *shared.state.borrow_mut();
        state.waits = true;
        if let Some(driver) = driver
            && !state.task.as_ref().is_some_and(|task| task.will_wake(driver))
        {
            state.task = Some(driver.clone());
        }
    }
}

impl<T: AsyncWrite + Unpin> State<T> {
    fn waiting(&self) -> usize {
        self.buffer.len()
    }

    /// Writes what waits. What left is not kept, however much is added before the rest could follow.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut written = 0;
        let drained = loop {
            let rest = &self.buffer[written..];
            if rest.is_empty() {
                break Poll::Ready(Ok(()));
            }
            match Pin::new(&mut self.io).poll_write(cx, rest) {
                Poll::Ready(Ok(0)) => break Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(n)) => written += n,
                Poll::Ready(Err(error)) => break Poll::Ready(Err(error)),
                Poll::Pending => break Poll::Pending,
            }
        };
        self.buffer.drain(..written);
        drained
    }

    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.poll_drain(cx))?;
        std::task::ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        if let End::Closing = self.end {
            std::task::ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
            self.end = End::Closed;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes what the socket takes at once; what it does not take is the flusher's. Not while that one waits for the socket: a socket
    /// wakes only the last who asked.
    fn write_now(&mut self) {
        if self.blocked.is_some() {
            return;
        }
        if let Poll::Ready(Err(error)) = self.poll_drain(&mut Context::from_waker(Waker::noop())) {
            self.fail(error);
        }
    }

    fn fail(&mut self, error: io::Error) {
        self.end = End::Failed(Some(error));
        self.buffer = Vec::new();
        self.wake();
    }

    fn error(&mut self) -> Option<io::Error> {
        match &mut self.end {
            End::Failed(error) => Some(error.take().unwrap_or_else(|| io::ErrorKind::BrokenPipe.into())),
            _ => None,
        }
    }

    fn wake(&mut self) {
        self.waits = false;
        if let Some(task) = self.task.take() {
            task.wake();
        }
    }

    fn wake_later(&mut self, cx: &Context<'_>) {
        if !self.task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            self.task = Some(cx.waker().clone());
        }
    }
}

impl<T: AsyncWrite + Unpin> Marked for Shared<T> {
    fn unmark(&self) {
        self.state.borrow_mut().marked = false;
    }

    fn poll_out(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.borrow_mut();
        if matches!(state.end, End::Failed(_)) {
            return Poll::Ready(());
        }
        let result = state.poll_out(cx);
        match result {
            Poll::Ready(Ok(())) => {
                if let Some(flusher) = self.flusher.upgrade() {
                    let buffer = std::mem::take(&mut state.buffer);
                    flusher.give_back(buffer);
                }
            }
            Poll::Ready(Err(error)) => {
                state.fail(error);
                return Poll::Ready(());
            }
            Poll::Pending => {}
        }
        if state.waits && (result.is_ready() || state.waiting() < BUFFER) {
            state.wake();
        }
        result.map(|_| ())
    }

    fn block(&self, by: Option<&Waker>) {
        self.state.borrow_mut().blocked = by.cloned();
    }

    fn is_left(&self) -> bool {
        self.state.borrow().left
    }

    fn discard(&self) {
        self.state.borrow_mut().fail(io::ErrorKind::TimedOut.into());
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        if self.state.get_mut().left
            && let Some(flusher) = self.flusher.upgrade()
        {
            flusher.drop_left();
        }
    }
}

impl<T: AsyncWrite + Unpin + 'static> AsyncWrite for Coalesced<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let state = &mut *self.shared.state.borrow_mut();
        let size: usize = bufs.iter().map(|buf| buf.len()).sum();
        let waiting = state.waiting();
        // Also before a large write that does not fit behind what waits: once that has left, it need not be copied. One that failed holds nothing.
        if waiting >= BUFFER || (size >= LARGE && waiting > 0 && waiting + size > BUFFER) {
            state.write_now();
        }
        if let Some(error) = state.error() {
            return Poll::Ready(Err(error));
        }
        if size >= LARGE && state.waiting() == 0 && state.blocked.is_none() {
            let mut nobody = Context::from_waker(Waker::noop());
            if let Poll::Ready(result) = Pin::new(&mut state.io).poll_write_vectored(&mut nobody, bufs) {
                // TLS may hold some of it back.
                self.mark(state);
                return Poll::Ready(result);
            }
        }
        let room = BUFFER.saturating_sub(state.waiting());
        if room == 0 {
            state.waits = true;
            state.wake_later(cx);
            self.mark(state);
            return Poll::Pending;
        }
        if state.buffer.capacity() == 0 {
            state.buffer = self.flusher.buffer();
        }
        let mut taken = 0;
        for buf in bufs {
            let part = &buf[..buf.len().min(room - taken)];
            state.buffer.extend_from_slice(part);
            taken += part.len();
        }
        self.mark(state);
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// The end of the turn flushes; an error shows at the next call.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.shared.state.borrow_mut().error() {
            Some(error) => Poll::Ready(Err(error)),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let state = &mut *self.shared.state.borrow_mut();
        match &state.end {
            End::Closed => return Poll::Ready(Ok(())),
            End::Failed(_) => return Poll::Ready(state.error().map_or(Ok(()), Err)),
            End::Open | End::Closing => {}
        }
        state.end = End::Closing;
        state.waits = true;
        state.wake_later(cx);
        self.mark(state);
        Poll::Pending
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin + 'static> AsyncRead for Coalesced<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let state = &mut *self.shared.state.borrow_mut();
        let read = Pin::new(&mut state.io).poll_read(cx, buf);
        if read.is_pending() {
            // What had arrived before the connection broke was read first.
            if let Some(error) = state.error() {
                return Poll::Ready(Err(error));
            }
            state.wake_later(cx);
        }
        read
    }
}

impl<T: AsyncWrite + Unpin + 'static> Drop for Coalesced<T> {
    fn drop(&mut self) {
        let state = &mut *self.shared.state.borrow_mut();
        state.task = None;
        let unfinished = state.marked || state.blocked.is_some();
        if !unfinished || matches!(state.end, End::Failed(_)) {
            return;
        }
        state.left = self.flusher.take_left();
        if !state.left {
            state.fail(io::ErrorKind::ConnectionAborted.into());
        }
        if let Some(blocked) = &state.blocked {
            blocked.wake_by_ref();
        }
    }
}

impl<T: AsyncWrite + Unpin + fmt::Debug + 'static> fmt::Debug for Coalesced<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.state.borrow();
        let mut out = f.debug_struct("Coalesced");
        out.field("io", &state.io).field("waiting", &state.waiting()).field("end", &state.end).finish()
    }
}
