//! A connection as all share it that have to do with it: its owner, the body that is read from it, the rest that is written to it.

use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite};

use crate::decode::{Decoder, Piece};
use crate::input::Input;
use crate::output::Output;
use crate::refusal::Refusal;
use crate::spare::Spare;

#[derive(Debug)]
pub(crate) struct Channel<T> {
    /// `None` when it was closed or taken for a tunnel.
    pub io: Option<T>,
    pub input: Input,
    pub output: Output,
    /// Of the message that is being read.
    pub decoder: Decoder,
    /// Of the exchange it carries: whoever has an older one has nothing to do with it any more.
    pub serial: u32,
    /// Bytes of trailers.
    pub most: usize,
    pub spare: Rc<Spare>,
    /// Server: the client waits for a 100 before it sends the body.
    pub expects: bool,
    /// Server: the final response has begun; nothing interim may go out.
    pub answering: bool,
    /// Client: the response allows another exchange.
    pub keeps: bool,
    /// Client: the request was sent whole.
    pub sent: bool,
    /// Client: of the rest of a request, which is to hear that the connection is gone.
    pub rest: Option<Waker>,
}

impl<T> Channel<T> {
    pub fn new(io: T, most: usize, spare: Rc<Spare>) -> Self {
        Self {
            io: Some(io),
            input: Input::default(),
            output: Output::default(),
            decoder: Decoder::Ended,
            serial: 0,
            most,
            spare,
            expects: false,
            answering: false,
            keeps: false,
            sent: false,
            rest: None,
        }
    }

    /// The next piece, of what is here.
    pub fn next(&mut self) -> Result<Piece, Refusal> {
        self.decoder.next(&mut self.input, self.most)
    }
}

impl<T> Drop for Channel<T> {
    fn drop(&mut self) {
        self.spare.rests(&mut self.input.flows);
    }
}

impl<T: AsyncRead + Unpin> Channel<T> {
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(io) = &mut self.io else { return Poll::Ready(Err(io::ErrorKind::NotConnected.into())) };
        self.input.poll_fill(io, cx, &self.spare, self.decoder.want())
    }
}

impl<T: AsyncWrite + Unpin> Channel<T> {
    /// Writes all there is, through every layer below.
    pub fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(io) = &mut self.io else { return Poll::Ready(Err(io::ErrorKind::NotConnected.into())) };
        std::task::ready!(self.output.poll_write(io, cx, &self.spare))?;
        std::pin::Pin::new(io).poll_flush(cx)
    }
}
