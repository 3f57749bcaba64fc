//! A body on its way out: collected as far as it is there, written, waited for.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Body;
use smallvec::SmallVec;
use tokio::io::AsyncWrite;

use crate::channel::Channel;
use crate::encode::{Encoder, WrongLength};

#[derive(Debug)]
pub(crate) struct Sending<B> {
    /// `None` once nothing more comes of it, unless it may have to be given back: whoever counts by its end has counted when the peer
    /// sees that.
    pub body: Option<B>,
    encoder: Encoder,
    /// Nothing more comes of the body.
    done: bool,
    /// What was taken of the body before the first byte went out, where that is to be given back.
    pub taken: SmallVec<[Bytes; 1]>,
    keeps: bool,
    /// Trailers were taken, too, so that the body cannot be given back.
    pub lost: bool,
}

/// Why a body did not get out.
#[derive(Debug)]
pub(crate) enum Unsendable<E> {
    Io(io::Error),
    /// Of the body itself.
    Body(E),
    /// It is not as long as its head said.
    Length,
}

impl<E> From<WrongLength> for Unsendable<E> {
    fn from(_: WrongLength) -> Self {
        Self::Length
    }
}

impl<B: Body<Data = Bytes> + Unpin> Sending<B> {
    /// `keeps`: whether it can be given back as long as nothing was written.
    pub fn new(body: B, encoder: Encoder, keeps: bool) -> Self {
        Self { body: Some(body), encoder, done: false, taken: SmallVec::new(), keeps, lost: false }
    }

    pub fn encoder(&self) -> Encoder {
        self.encoder
    }

    /// Ready when all of it is written.
    pub fn poll<T: AsyncWrite + Unpin>(
        &mut self,
        channel: &RefCell<Channel<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Unsendable<B::Error>>> {
        loop {
            let waits = match self.collect(channel, cx) {
                Ok(waits) => waits,
                Err(error) => {
                    // What came before is true all the same.
                    let _ = channel.borrow_mut().poll_write(cx);
                    return Poll::Ready(Err(error));
                }
            };
            if self.done && !self.keeps {
                self.body = None;
            }
            ready!(channel.borrow_mut().poll_write(cx)).map_err(Unsendable::Io)?;
            if self.done {
                return Poll::Ready(Ok(()));
            }
            if waits {
                return Poll::Pending;
            }
        }
    }

    /// Takes what there is while there is room. True if it has to be waited for.
    fn collect<T>(
        &mut self,
        channel: &RefCell<Channel<T>>,
        cx: &mut Context<'_>,
    ) -> Result<bool, Unsendable<B::Error>> {
        let Some(body) = &mut self.body else { return Ok(false) };
        while !self.done && channel.borrow().output.has_room() {
            if self.encoder.is_full() {
                self.done = true;
                if self.encoder != Encoder::None && !body.is_end_stream() {
                    // Its reader has all of it. What stands behind is heard if it is there, and not waited for.
                    let behind = Pin::new(&mut *body).poll_frame(cx);
                    if let Poll::Ready(Some(Ok(frame))) = behind
                        && frame.data_ref().is_some_and(|data| !data.is_empty())
                    {
                        return Err(Unsendable::Length);
                    }
                }
                break;
            }
            // Polled without holding the channel: it may lead back here.
            let frame = match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Pending => return Ok(true),
                Poll::Ready(Some(Err(error))) => return Err(Unsendable::Body(error)),
                Poll::Ready(Some(Ok(frame))) => Some(frame),
                Poll::Ready(None) => None,
            };
            let ended = body.is_end_stream();
            let Channel { output, spare, .. } = &mut *channel.borrow_mut();
            match frame.map(http_body::Frame::into_data) {
                None => {
                    self.done = true;
                    self.encoder.end(output, spare)?;
                }
                Some(Ok(data)) => {
                    if self.keeps && !output.begun {
                        self.taken.push(data.clone());
                    }
                    self.encoder.data(data, output, spare)?;
                    if ended {
                        self.done = true;
                        self.encoder.end(output, spare)?;
                    }
                }
                Some(Err(frame)) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        (self.done, self.lost) = (true, true);
                        self.encoder.trailers(&trailers, output, spare)?;
                    }
                }
            }
        }
        Ok(false)
    }
}
