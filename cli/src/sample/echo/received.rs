//! What was received, as JSON: the request's head, and its body by length and CRC-32.

use bytes::Buf;
use http::{HeaderMap, Request};
use http_body_util::BodyExt;
use hyper::body::Body as HttpBody;
use serde_json::{Value, json};

use crate::sample::listen::Peer;
use crate::sample::listen::wire::Head;

/// The head of a request.
#[derive(Debug)]
pub struct Described {
    method: String,
    target: String,
    authority: Option<String>,
    path: String,
    query: Option<String>,
    version: String,
    headers: Vec<(String, String)>,
    /// Whether names have their case and fields their order; else lower case, grouped by name.
    as_received: bool,
    peer: Option<String>,
}

impl Described {
    pub fn of<B>(request: &Request<B>) -> Self {
        let (headers, uri) = (request.headers(), request.uri());
        let head = request.extensions().get::<Head>().filter(|head| same_fields(head, headers));
        Self {
            method: request.method().to_string(),
            target: uri.to_string(),
            authority: uri.authority().map(ToString::to_string),
            path: uri.path().to_owned(),
            query: uri.query().map(str::to_owned),
            version: format!("{:?}", request.version()),
            headers: head.map_or_else(|| fields(headers), |head| head.0.clone()),
            as_received: head.is_some(),
            peer: request.extensions().get::<Peer>().map(|peer| peer.0.to_string()),
        }
    }

    pub fn to_json(&self, instance: &str, body: &Swallowed) -> Value {
        json!({
            "instance": instance,
            "method": self.method,
            "target": self.target,
            "authority": self.authority,
            "path": self.path,
            "query": self.query,
            "version": self.version,
            "headers": self.headers,
            "headersAsReceived": self.as_received,
            "body": body.to_json(),
            "trailers": fields(&body.trailers),
            "peer": self.peer,
        })
    }
}

/// Kept bytes that began in the middle of something parse as another head, if as any: that one is not shown.
fn same_fields(head: &Head, headers: &HeaderMap) -> bool {
    let Head(kept) = head;
    kept.len() == headers.len()
        && kept.iter().all(|(name, value)| {
            headers
                .get_all(name)
                .iter()
                .any(|seen| String::from_utf8_lossy(seen.as_bytes()) == value.as_str())
        })
}

fn fields(headers: &HeaderMap) -> Vec<(String, String)> {
    let field = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    headers.iter().map(field).collect()
}

/// A body that was read to its end and forgotten.
#[derive(Debug, Default)]
pub struct Swallowed {
    length: u64,
    crc32: crc32fast::Hasher,
    trailers: HeaderMap,
}

impl Swallowed {
    pub async fn whole<B: HttpBody + Unpin>(mut body: B) -> Result<Self, B::Error> {
        let mut swallowed = Self::default();
        while let Some(frame) = body.frame().await.transpose()? {
            match frame.into_data() {
                Ok(mut data) => {
                    swallowed.length += data.remaining() as u64;
                    while data.has_remaining() {
                        let chunk = data.chunk();
                        swallowed.crc32.update(chunk);
                        data.advance(chunk.len());
                    }
                }
                Err(frame) => swallowed.trailers.extend(frame.into_trailers().unwrap_or_default()),
            }
        }
        Ok(swallowed)
    }

    pub fn to_json(&self) -> Value {
        json!({"length": self.length, "crc32": format!("{:08x}", self.crc32.clone().finalize())})
    }
}
