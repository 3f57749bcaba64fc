//! Bodies made on the fly: any number of bytes from one static block, and one with trailers.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use crate::sample::body::{Body, BoxError};

/// `length` bytes of the repeated alphabet; `chunked` keeps the length from the receiver.
pub fn bytes(length: u64, chunked: bool) -> Response<Body> {
    let body = Alphabet { left: length, chunked }.map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    if !chunked {
        response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
    }
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    response
}

/// A short body, its CRC-32 and a mark as trailers. HTTP/1 clients get them only with `TE: trailers`.
pub fn with_trailers() -> Response<Body> {
    const TEXT: &[u8] = b"trailers follow\n";
    let mut trailers = HeaderMap::new();
    let crc = format!("{:08x}", crc32fast::hash(TEXT));
    trailers.insert("x-crc32", HeaderValue::from_str(&crc).expect("hexadecimal digits are a header value"));
    trailers.insert("x-finished", HeaderValue::from_static("yes"));
    // A stream of frames has no length, which HTTP/1 needs to be without to carry trailers (RFC 9112 §7.1.2).
    let frames = [Frame::data(Bytes::from_static(TEXT)), Frame::trailers(trailers)];
    let body = StreamBody::new(futures_util::stream::iter(frames.map(Ok::<_, BoxError>)));
    let mut response = Response::new(body.boxed_unsync());
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response.headers_mut().insert(header::TRAILER, HeaderValue::from_static("x-crc32, x-finished"));
    response
}

struct Alphabet {
    left: u64,
    chunked: bool,
}

/// A whole number of alphabets, so that every block continues the one before.
static BLOCK: LazyLock<Bytes> = LazyLock::new(|| (b'a'..=b'z').cycle().take(26 * 2520).collect());

impl HttpBody for Alphabet {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let now = usize::try_from(self.left).unwrap_or(usize::MAX).min(BLOCK.len());
        self.left -= now as u64;
        Poll::Ready(Some(Ok(Frame::data(BLOCK.slice(..now)))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        if self.chunked { SizeHint::default() } else { SizeHint::with_exact(self.left) }
    }
}
