//! Interim responses (RFC 9110 §15.2) on their way to the client that waits for the final one.
//!
//! Owns what of them goes on, whichever codecs are on the two sides. 100 is none of them: each hop says that itself, once a request's body is wanted.

use http::Response;

use super::Stream;
use crate::exchange::strip_interim;

/// Where those to one request go. Written by whoever drives the exchange, so that what has been handed on leaves before anything that follows.
#[derive(Debug)]
pub enum Interim {
    /// HTTP/1.0 has none.
    Nowhere,
    Http1(outrigger_http1::server::Interim<Box<dyn Stream>>),
    Http2(outrigger_http2::Interim),
}

impl Interim {
    pub fn pass(&self, mut response: Response<()>) {
        strip_interim(response.headers_mut());
        match self {
            Self::Nowhere => {}
            Self::Http1(client) => client.pass(&response),
            Self::Http2(client) => client.pass(&response),
        }
    }
}
