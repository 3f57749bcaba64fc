//! The task that writes out what a turn left in buffers.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use outrigger_http2::Space;
use tokio::time::Sleep;

use super::stream::BUFFER;

/// One a worker. Its task starts with the first mark and ends with the worker.
#[derive(Default)]
pub struct Flusher {
    marked: RefCell<Vec<Rc<dyn Marked>>>,
    started: Cell<bool>,
    task: RefCell<Option<Waker>>,
    /// Buffers nobody uses: a connection at rest has none.
    spare: RefCell<Vec<Vec<u8>>>,
    /// Connections that were dropped with bytes in them.
    left: Cell<usize>,
    space: Rc<Space>,
}

/// A connection as the flusher sees it.
pub(super) trait Marked {
    /// It is in the list no longer: what happens from now on marks it again.
    fn unmark(&self);
    /// Writes until nothing is left to do (an error ends it too), or the socket takes no more.
    fn poll_out(&self, cx: &mut Context<'_>) -> Poll<()>;
    /// It waits for its socket, with this waker; `None` when it does no longer.
    fn block(&self, by: Option<&Waker>);
    /// Nobody but the flusher knows it any more.
    fn is_left(&self) -> bool;
    /// Gives up what could not be written.
    fn discard(&self);
}

/// How long the bytes of a dropped connection may take to leave.
pub(super) const LINGER: Duration = Duration::from_secs(2);
/// Dropped connections a worker keeps at most to write out their bytes; each holds 64 KiB and what TLS made of as much.
const LEFT: usize = 256;
/// Buffers kept for the next turn, 64 KiB each at most.
const SPARE: usize = 16;

impl Flusher {
    /// Has `connection` written out at the end of this turn.
    pub(super) fn mark(self: &Rc<Self>, connection: Rc<dyn Marked>) {
        let mut marked = self.marked.borrow_mut();
        marked.push(connection);
        if marked.len() > 1 {
            return;
        }
        if !self.started.replace(true) {
            // Its own budget would be the next turn's problem: it has to get through its list.
            tokio::task::spawn_local(tokio::task::unconstrained(Rc::clone(self).run()));
        } else if let Some(task) = &*self.task.borrow() {
            task.wake_by_ref();
        }
    }

    /// What the connections of this worker read into.
    pub fn space(&self) -> Rc<Space> {
        self.space.clone()
    }

    pub(super) fn buffer(&self) -> Vec<u8> {
        self.spare.borrow_mut().pop().unwrap_or_default()
    }

    pub(super) fn give_back(&self, mut buffer: Vec<u8>) {
        let mut spare = self.spare.borrow_mut();
        if spare.len() < SPARE && buffer.capacity() <= 2 * BUFFER {
            buffer.clear();
            spare.push(buffer);
        }
    }

    #[cfg(test)]
    pub(super) fn spares(&self) -> usize {
        self.spare.borrow().len()
    }

    /// Whether one more dropped connection may leave its bytes here.
    pub(super) fn take_left(&self) -> bool {
        let room = self.left.get() < LEFT;
        self.left.set(self.left.get() + usize::from(room));
        room
    }

    pub(super) fn drop_left(&self) {
        self.left.set(self.left.get() - 1);
    }

    async fn run(self: Rc<Self>) {
        let mut stood_back = false;
        let mut turn = Vec::new();
        let mut blocked = FuturesUnordered::new();
        poll_fn(|cx| {
            self.wake_by(cx.waker());
            if !self.marked.borrow().is_empty() {
                // The turn is not over when the first one marks itself: once more behind all who run already.
                if !std::mem::replace(&mut stood_back, true) {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                stood_back = false;
                std::mem::swap(&mut turn, &mut *self.marked.borrow_mut());
                for connection in turn.drain(..) {
                    connection.unmark();
                    if connection.poll_out(cx).is_pending() {
                        connection.block(Some(cx.waker()));
                        blocked.push(Blocked { connection, patience: None });
                    }
                }
            }
            // Each is polled with a waker of its own, so that one socket that can be written to does not mean looking at all.
            while let Poll::Ready(Some(())) = blocked.poll_next_unpin(cx) {}
            Poll::<()>::Pending
        })
        .await;
    }

    fn wake_by(&self, waker: &Waker) {
        let mut task = self.task.borrow_mut();
        if !task.as_ref().is_some_and(|task| task.will_wake(waker)) {
            *task = Some(waker.clone());
        }
    }
}

impl fmt::Debug for Flusher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flusher").field("marked", &self.marked.borrow().len()).finish_non_exhaustive()
    }
}

/// A connection whose socket takes nothing at the moment.
struct Blocked {
    connection: Rc<dyn Marked>,
    /// There once nobody waits for the bytes any more.
    patience: Option<Pin<Box<Sleep>>>,
}

impl Future for Blocked {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if this.connection.poll_out(cx).is_ready() {
            this.connection.block(None);
            return Poll::Ready(());
        }
        this.connection.block(Some(cx.waker()));
        if this.connection.is_left() {
            let patience = this.patience.get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER)));
            if patience.as_mut().poll(cx).is_ready() {
                this.connection.discard();
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }
}
