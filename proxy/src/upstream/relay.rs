//! Two byte streams tied together: what one side sends, the other receives, until both have ended.
//!
//! An end in one direction is passed on as an end in that direction only (half-close); a reset of one side resets the other.
//! No limit on idle time. Never looks at the bytes.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::connect::Transport;

/// Streams that can be ended so that the peer sees an error instead of an orderly end.
pub trait Resettable {
    /// Makes the coming drop a reset.
    fn reset(&mut self);
}

impl<T: Resettable> Resettable for &mut T {
    fn reset(&mut self) {
        T::reset(self);
    }
}

impl Resettable for TcpStream {
    fn reset(&mut self) {
        // With nothing to linger for, close() sends RST.
        let _ = self.set_zero_linger();
    }
}

impl Resettable for Transport {
    fn reset(&mut self) {
        Transport::reset(self);
    }
}

/// What a relay carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Relayed {
    /// Bytes from the first stream to the second.
    pub sent: u64,
    /// Bytes from the second stream to the first.
    pub received: u64,
}

/// Who broke a relay off, and what had been carried by then.
#[derive(Debug)]
pub struct Broken {
    pub relayed: Relayed,
    pub error: io::Error,
    /// The first stream failed, not the second.
    pub first: bool,
}

/// Carries bytes both ways until both directions ended, or one side broke; then the other one is reset.
pub async fn relay<A, B>(mut a: A, mut b: B) -> Result<Relayed, Broken>
where
    A: AsyncRead + AsyncWrite + Resettable + Unpin,
    B: AsyncRead + AsyncWrite + Resettable + Unpin,
{
    let (mut forth, mut back) = (Way::default(), Way::default());
    let result = std::future::poll_fn(|cx| {
        let forth = forth.poll(cx, &mut a, &mut b)?;
        let back = back.poll(cx, &mut b, &mut a).map_err(|(error, side)| (error, !side))?;
        if forth.is_ready() && back.is_ready() { Poll::Ready(Ok(())) } else { Poll::Pending }
    })
    .await;
    let relayed = Relayed { sent: forth.carried, received: back.carried };
    match result {
        Ok(()) => Ok(relayed),
        Err((error, first)) => {
            a.reset();
            b.reset();
            Err(Broken { relayed, error, first })
        }
    }
}

/// One direction.
#[derive(Debug, Default)]
struct Way {
    /// Read, and found no room yet.
    held: Bytes,
    carried: u64,
    state: State,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Open,
    /// The source ended; that is being passed on.
    Ending,
    Ended,
}

/// Most that is read at once.
const CHUNK: usize = 16 * 1024;

/// Reads in one turn; then the worker's other connections have theirs.
const TURN: usize = 16;

/// What failed: the source, or where it goes.
type Side = bool;
const SOURCE: Side = true;
const SINK: Side = false;

impl Way {
    fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
    ) -> Poll<Result<(), (io::Error, Side)>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let (from, to) = (&mut Pin::new(from), &mut Pin::new(to));
        for _ in 0..TURN {
            while !self.held.is_empty() {
                let written =
                    ready!(to.as_mut().poll_write(cx, &self.held)).map_err(|error| (error, SINK))?;
                if written == 0 {
                    return Poll::Ready(Err((io::ErrorKind::WriteZero.into(), SINK)));
                }
                self.held.advance(written);
            }
            match self.state {
                State::Open => {
                    // On the stack and not even cleared: a tunnel at rest keeps no buffer, one in use needs no allocation.
                    let mut chunk = [MaybeUninit::uninit(); CHUNK];
                    let mut buf = ReadBuf::uninit(&mut chunk);
                    if from.as_mut().poll_read(cx, &mut buf).map_err(|error| (error, SOURCE))?.is_pending() {
                        ready!(to.as_mut().poll_flush(cx)).map_err(|error| (error, SINK))?;
                        return Poll::Pending;
                    }
                    let data = buf.filled();
                    self.carried += data.len() as u64;
                    if data.is_empty() {
                        self.state = State::Ending;
                        continue;
                    }
                    let written = match to.as_mut().poll_write(cx, data).map_err(|error| (error, SINK))? {
                        Poll::Ready(written) => written,
                        Poll::Pending => 0,
                    };
                    if written < data.len() {
                        self.held = Bytes::copy_from_slice(&data[written..]);
                    }
                }
                State::Ending => {
                    ready!(to.as_mut().poll_shutdown(cx)).map_err(|error| (error, SINK))?;
                    self.state = State::Ended;
                }
                State::Ended => return Poll::Ready(Ok(())),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
