//! Two byte streams tied together: what one side sends, the other receives, until both have ended.
//!
//! An end in one direction is passed on as an end in that direction only (half-close); a reset of one side resets the other.
//! No limit on idle time. Never looks at the bytes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::connect::Transport;

/// Streams that can be ended so that the peer sees an error instead of an orderly end.
pub trait Resettable {
    /// Makes the coming drop a reset.
    fn reset(&mut self);
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
        let one = forth.poll(cx, &mut a, &mut b)?;
        let other = back.poll(cx, &mut b, &mut a).map_err(|(error, reading)| (error, !reading))?;
        match (one, other) {
            (Poll::Ready(()), Poll::Ready(())) => Poll::Ready(Ok(())),
            _ => Poll::Pending,
        }
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
    /// Read but not written yet.
    held: Vec<u8>,
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

impl Way {
    /// The error's flag says whether the source failed.
    fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
    ) -> Result<Poll<()>, (io::Error, bool)>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        match self.advance(cx, from, to) {
            Poll::Ready(Ok(())) => Ok(Poll::Ready(())),
            Poll::Ready(Err(error)) => Err(error),
            Poll::Pending => Ok(Poll::Pending),
        }
    }

    fn advance<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
    ) -> Poll<Result<(), (io::Error, bool)>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            while !self.held.is_empty() {
                let written =
                    ready!(Pin::new(&mut *to).poll_write(cx, &self.held)).map_err(|e| (e, false))?;
                if written == 0 {
                    return Poll::Ready(Err((io::ErrorKind::WriteZero.into(), false)));
                }
                self.held.drain(..written);
            }
            self.held = Vec::new();
            match self.state {
                State::Open => {
                    // On the stack, so that a tunnel at rest keeps no buffer.
                    let mut chunk = [0; CHUNK];
                    let mut buf = ReadBuf::new(&mut chunk);
                    match Pin::new(&mut *from).poll_read(cx, &mut buf).map_err(|e| (e, true))? {
                        Poll::Pending => {
                            ready!(Pin::new(&mut *to).poll_flush(cx)).map_err(|e| (e, false))?;
                            return Poll::Pending;
                        }
                        Poll::Ready(()) if buf.filled().is_empty() => self.state = State::Ending,
                        Poll::Ready(()) => {
                            self.carried += buf.filled().len() as u64;
                            self.write(cx, to, buf.filled()).map_err(|e| (e, false))?;
                        }
                    }
                }
                State::Ending => {
                    ready!(Pin::new(&mut *to).poll_shutdown(cx)).map_err(|e| (e, false))?;
                    self.state = State::Ended;
                }
                State::Ended => return Poll::Ready(Ok(())),
            }
        }
    }

    /// Writes what goes and keeps the rest.
    fn write<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut W,
        data: &[u8],
    ) -> io::Result<()> {
        let written = match Pin::new(to).poll_write(cx, data) {
            Poll::Ready(Ok(written)) => written,
            Poll::Ready(Err(error)) => return Err(error),
            Poll::Pending => 0,
        };
        self.held.extend_from_slice(&data[written..]);
        Ok(())
    }
}
