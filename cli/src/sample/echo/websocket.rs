//! A WebSocket that echoes every message (RFC 6455; over HTTP/2 by extended CONNECT, RFC 8441).
//!
//! Messages may have 16 MiB, in one frame or many, and come back as one frame. Pings are answered, text must be UTF-8,
//! and a peer that breaks the protocol is told so by the close code. No extension is agreed on.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use sha1::{Digest, Sha1};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::sample::body::{self, Body};
use crate::sample::listen::Stop;

mod frame;

use frame::{Frame, FrameError, Opcode, Sender};

/// Answers the handshake and leaves the echo running.
pub fn accept(mut request: Request<Incoming>, stop: &Stop) -> Response<Body> {
    let mut response = match handshake(&request) {
        Ok(response) => response,
        Err(Refusal::Version) => {
            let mut refusal = body::text(StatusCode::UPGRADE_REQUIRED, "only version 13 is spoken\n");
            refusal.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static(VERSION));
            return refusal;
        }
        Err(Refusal::Malformed(why)) => return body::text(StatusCode::BAD_REQUEST, why),
    };
    // An echo speaks whatever subprotocol is named first.
    let first = request.headers().get(header::SEC_WEBSOCKET_PROTOCOL).and_then(|value| value.to_str().ok());
    let first = first.and_then(|list| HeaderValue::from_str(list.split(',').next()?.trim()).ok());
    if let Some(protocol) = first {
        response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    let (upgrade, stopping) = (hyper::upgrade::on(&mut request), stop.clone());
    stop.spawn(async move {
        if let Ok(upgraded) = upgrade.await {
            serve(TokioIo::new(upgraded), &stopping).await;
        }
    });
    response
}

/// Why a handshake fails.
enum Refusal {
    /// Another version of the protocol is asked for.
    Version,
    /// What is missing or wrong.
    Malformed(&'static str),
}

fn handshake<B>(request: &Request<B>) -> Result<Response<Body>, Refusal> {
    let headers = request.headers();
    let refuse = |why| Err(Refusal::Malformed(why));
    let extended = request.extensions().get::<hyper::ext::Protocol>();
    if request.method() == Method::CONNECT
        && extended.is_some_and(|protocol| protocol.as_str() == "websocket")
    {
        return Ok(Response::new(body::empty()));
    }
    if request.method() != Method::GET || request.version() != Version::HTTP_11 {
        return refuse("a WebSocket begins with GET over HTTP/1.1 or an extended CONNECT over HTTP/2\n");
    }
    if !has_token(headers, &header::CONNECTION, "upgrade")
        || !has_token(headers, &header::UPGRADE, "websocket")
    {
        return refuse("expected Connection: Upgrade and Upgrade: websocket\n");
    }
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != VERSION) {
        return Err(Refusal::Version);
    }
    let Some(key) = headers.get(header::SEC_WEBSOCKET_KEY).filter(|key| is_key(key)) else {
        return refuse("Sec-WebSocket-Key is not 16 bytes in base64\n");
    };
    let mut response = Response::new(body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept_value(key));
    Ok(response)
}

/// The proof that the key was read (RFC 6455 §4.2.2).
fn accept_value(key: &HeaderValue) -> HeaderValue {
    let digest = Sha1::new().chain_update(key.as_bytes()).chain_update(GUID).finalize();
    HeaderValue::from_str(&BASE64.encode(digest)).expect("base64 is a header value")
}

fn is_key(key: &HeaderValue) -> bool {
    BASE64.decode(key.as_bytes()).is_ok_and(|bytes| bytes.len() == 16)
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|list| list.split(',')).any(|item| item.trim().eq_ignore_ascii_case(token))
}

const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const VERSION: &str = "13";

/// Echoes until either side closes or the server stops.
async fn serve<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, stop: &Stop) {
    let payload = match echo(&mut stream, stop).await {
        Ending::Gone => return,
        Ending::Echoed(payload) => payload,
        Ending::Close(code, reason) => close_payload(code, reason),
    };
    let close = Frame { fin: true, opcode: Opcode::Close, payload };
    let farewell = async {
        frame::write(&mut stream, Sender::Server, &close).await?;
        stream.shutdown().await?;
        // Closing while bytes are unread would reset the connection and could take the close frame with it.
        tokio::io::copy(&mut stream.take(MAX_UNREAD), &mut tokio::io::sink()).await
    };
    let _ = timeout(FAREWELL, farewell).await;
}

/// How an echo ends.
#[derive(Debug)]
enum Ending {
    /// The connection is gone.
    Gone,
    /// The peer closed; its code goes back to it.
    Echoed(Bytes),
    /// We close, for this reason.
    Close(u16, &'static str),
}

async fn echo<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, stop: &Stop) -> Ending {
    /// A message of which frames are still missing.
    struct Begun {
        opcode: Opcode,
        payload: BytesMut,
    }
    let mut begun: Option<Begun> = None;
    loop {
        // Only reading may be cut short: half a frame written could not be followed by a close.
        let read = tokio::select! {
            read = frame::read(stream, true, MAX_MESSAGE) => read,
            () = stop.asked() => return Ending::Close(1001, "the server stops"),
        };
        let frame = match read {
            Ok(Some(frame)) => frame,
            Ok(None) | Err(FrameError::Gone) => return Ending::Gone,
            Err(FrameError::Protocol(why)) => return Ending::Close(1002, why),
            Err(FrameError::TooBig) => return Ending::Close(1009, "at most 16 MiB a message"),
        };
        let (opcode, payload) = match (frame.opcode, begun.take()) {
            (Opcode::Close, _) => return closed_by_peer(frame.payload),
            (Opcode::Pong, message) => {
                begun = message;
                continue;
            }
            (Opcode::Ping, message) => {
                begun = message;
                (Opcode::Pong, frame.payload)
            }
            (Opcode::Continuation, None) => return Ending::Close(1002, "a continuation of nothing"),
            (Opcode::Continuation, Some(mut message)) => {
                if message.payload.len() + frame.payload.len() > MAX_MESSAGE {
                    return Ending::Close(1009, "at most 16 MiB a message");
                }
                message.payload.extend_from_slice(&frame.payload);
                if !frame.fin {
                    begun = Some(message);
                    continue;
                }
                (message.opcode, message.payload.freeze())
            }
            (Opcode::Text | Opcode::Binary, Some(_)) => {
                return Ending::Close(1002, "a message within a message");
            }
            (opcode, None) if !frame.fin => {
                begun = Some(Begun { opcode, payload: BytesMut::from(frame.payload) });
                continue;
            }
            (opcode, None) => (opcode, frame.payload),
        };
        if opcode == Opcode::Text && std::str::from_utf8(&payload).is_err() {
            return Ending::Close(1007, "text is UTF-8");
        }
        if frame::write(stream, Sender::Server, &Frame { fin: true, opcode, payload }).await.is_err() {
            return Ending::Gone;
        }
    }
}

fn closed_by_peer(payload: Bytes) -> Ending {
    match *payload {
        [] => Ending::Echoed(Bytes::new()),
        [high, low, ref reason @ ..] => {
            let code = u16::from_be_bytes([high, low]);
            // Codes that may stand in a close frame (RFC 6455 §7.4).
            let allowed = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
            if !allowed {
                Ending::Close(1002, "a close code that may not be sent")
            } else if std::str::from_utf8(reason).is_err() {
                Ending::Close(1007, "a reason is UTF-8")
            } else {
                Ending::Echoed(payload.slice(..2))
            }
        }
        [_] => Ending::Close(1002, "half a close code"),
    }
}

fn close_payload(code: u16, reason: &str) -> Bytes {
    let mut payload = BytesMut::with_capacity(2 + reason.len());
    payload.put_u16(code);
    payload.put_slice(reason.as_bytes());
    payload.freeze()
}

const MAX_MESSAGE: usize = 16 * 1024 * 1024;
const MAX_UNREAD: u64 = 64 * 1024 * 1024;
/// How long a peer may take to finish what it was sending when we closed, and to read that we did.
const FAREWELL: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;
