//! The body of a message that is coming over a connection.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::channel::Channel;
use crate::decode::Piece;
use crate::refusal::Refusal;

/// Reads its connection itself when it is polled: nobody reads ahead of whoever wants it.
pub struct Incoming<T> {
    /// `None` where there is no body.
    channel: Option<Rc<RefCell<Channel<T>>>>,
    serial: u32,
}

/// Why a body ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// It is no valid body.
    #[error("{0}")]
    Refused(Refusal),
    /// The connection failed under it.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The peer ended the connection in the middle of it.
    #[error("the connection ended before the body did")]
    Incomplete,
    /// Its exchange was over before it was read.
    #[error("the exchange is over")]
    Over,
}

impl<T> Incoming<T> {
    pub const fn empty() -> Self {
        Self { channel: None, serial: 0 }
    }

    /// Of the message that `state`, which is `channel`'s, is at.
    pub(crate) fn new(channel: &Rc<RefCell<Channel<T>>>, state: &Channel<T>) -> Self {
        if state.decoder.is_ended() {
            Self::empty()
        } else {
            Self { serial: state.serial, channel: Some(channel.clone()) }
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> http_body::Body for Incoming<T> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(shared) = &self.channel else { return Poll::Ready(None) };
        let mut guard = shared.borrow_mut();
        let channel = &mut *guard;
        if channel.serial != self.serial {
            return Poll::Ready(Some(Err(BodyError::Over)));
        }
        if std::mem::take(&mut channel.expects) && channel.input.is_empty() && !channel.answering {
            let spare = channel.spare.clone();
            channel.output.head(&spare).extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        if !channel.answering
            && !channel.output.is_empty()
            && let Poll::Ready(Err(error)) = channel.poll_write(cx)
        {
            return Poll::Ready(Some(Err(error.into())));
        }
        loop {
            let piece = channel.next().map_err(BodyError::Refused);
            let frame = match piece {
                Ok(Piece::Data(data)) => Some(Ok(Frame::data(data))),
                Ok(Piece::Trailers(trailers)) => Some(Ok(Frame::trailers(trailers))),
                Ok(Piece::End) => None,
                Ok(Piece::More) if channel.input.ended => Some(Err(BodyError::Incomplete)),
                Ok(Piece::More) => match ready!(channel.poll_fill(cx)) {
                    Ok(_) => continue,
                    Err(error) => Some(Err(error.into())),
                },
                Err(error) => Some(Err(error)),
            };
            if channel.decoder.is_ended() {
                channel.spare.rests(&mut channel.input.flows);
                // The connection may carry another message before this is asked again.
                drop(guard);
                self.channel = None;
            }
            return Poll::Ready(frame);
        }
    }

    fn is_end_stream(&self) -> bool {
        self.channel.as_ref().is_none_or(|channel| {
            let channel = channel.borrow();
            channel.serial == self.serial && channel.decoder.is_ended()
        })
    }

    fn size_hint(&self) -> SizeHint {
        let Some(channel) = &self.channel else { return SizeHint::with_exact(0) };
        let channel = channel.borrow();
        match channel.decoder.left() {
            Some(left) if channel.serial == self.serial => SizeHint::with_exact(left),
            _ => SizeHint::default(),
        }
    }
}

impl<T> fmt::Debug for Incoming<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Incoming")
    }
}
