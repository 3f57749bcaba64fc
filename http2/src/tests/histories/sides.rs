//! Both implementations, used in one way.

use std::future::poll_fn;

use bytes::Bytes;
use http::HeaderMap;

use crate::{Code, Error};

/// How a stream ended before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    Reset(u32),
    /// Certainly not looked at.
    GoneAway,
    /// The connection ended, or somebody else said why.
    Otherwise,
}

impl From<Error> for Broken {
    fn from(error: Error) -> Self {
        match error {
            Error::Reset(code) | Error::Refused(code) => Self::Reset(code.0),
            Error::GoneAway(_) => Self::GoneAway,
            Error::Connection(code, why) => panic!("the connection broke the protocol: {code}, {why}"),
            Error::Io(_) | Error::Closed => Self::Otherwise,
        }
    }
}

impl From<h2::Error> for Broken {
    fn from(error: h2::Error) -> Self {
        assert!(!(error.is_go_away() && error.is_library()), "we broke the protocol: {error}");
        match error.reason() {
            _ if error.is_go_away() => Self::GoneAway,
            Some(reason) => Self::Reset(reason.into()),
            None => Self::Otherwise,
        }
    }
}

pub trait Sends {
    async fn data(&mut self, data: Bytes, end: bool) -> Result<(), Broken>;
    fn trailers(&mut self, trailers: HeaderMap) -> Result<(), Broken>;
    fn reset(&mut self, code: u32);
}

impl Sends for crate::SendStream {
    async fn data(&mut self, mut data: Bytes, end: bool) -> Result<(), Broken> {
        Ok(poll_fn(|cx| self.poll_send(cx, &mut data, end)).await?)
    }

    fn trailers(&mut self, trailers: HeaderMap) -> Result<(), Broken> {
        Ok(crate::SendStream::trailers(self, &trailers)?)
    }

    fn reset(&mut self, code: u32) {
        crate::SendStream::reset(self, Code(code));
    }
}

impl Sends for h2::SendStream<Bytes> {
    async fn data(&mut self, mut data: Bytes, end: bool) -> Result<(), Broken> {
        while !data.is_empty() {
            self.reserve_capacity(data.len());
            if self.capacity() == 0 {
                match poll_fn(|cx| self.poll_capacity(cx)).await {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(error.into()),
                    None => return Err(Broken::Otherwise),
                }
            }
            let part = data.split_to(self.capacity().min(data.len()));
            let last = end && data.is_empty();
            if !part.is_empty() {
                self.send_data(part, last)?;
            }
            if last {
                return Ok(());
            }
        }
        if end {
            self.send_data(Bytes::new(), true)?;
        }
        Ok(())
    }

    fn trailers(&mut self, trailers: HeaderMap) -> Result<(), Broken> {
        Ok(self.send_trailers(trailers)?)
    }

    fn reset(&mut self, code: u32) {
        self.send_reset(code.into());
    }
}

pub trait Receives {
    /// Whether it tells which fields are sensitive.
    const SENSITIVE: bool;

    async fn data(&mut self) -> Option<Result<Bytes, Broken>>;
    fn release(&mut self, bytes: usize);
    async fn trailers(&mut self) -> Result<Option<HeaderMap>, Broken>;
}

impl Receives for crate::RecvStream {
    const SENSITIVE: bool = true;

    async fn data(&mut self) -> Option<Result<Bytes, Broken>> {
        poll_fn(|cx| self.poll_data(cx)).await.map(|data| Ok(data?))
    }

    fn release(&mut self, bytes: usize) {
        crate::RecvStream::release(self, bytes);
    }

    async fn trailers(&mut self) -> Result<Option<HeaderMap>, Broken> {
        Ok(self.take_trailers())
    }
}

impl Receives for h2::RecvStream {
    const SENSITIVE: bool = false;

    async fn data(&mut self) -> Option<Result<Bytes, Broken>> {
        h2::RecvStream::data(self).await.map(|data| Ok(data?))
    }

    fn release(&mut self, bytes: usize) {
        // Of a stream that is over, which it says is a mistake.
        let _ = self.flow_control().release_capacity(bytes);
    }

    async fn trailers(&mut self) -> Result<Option<HeaderMap>, Broken> {
        Ok(h2::RecvStream::trailers(self).await?)
    }
}
