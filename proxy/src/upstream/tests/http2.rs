//! HTTP/2 to endpoints: what the tests of it are made of, and the tests by what they are about.

mod bodies;
mod connections;
mod refusals;
mod silence;

use std::cell::{Cell, RefCell};

use http::HeaderMap;
use http_body::Frame;
use rand::RngExt as _;

use super::*;
use crate::failure::Reason;
use crate::upstream::http2::SILENCE;

/// An HTTP/2 server; `answer` is told the number of the connection (from 1).
async fn http2_server<F, R>(build: impl Fn(&mut h2::server::Builder) + 'static, answer: F) -> SocketAddr
where
    F: Fn(usize, Request<h2::RecvStream>, h2::server::SendResponse<Bytes>) -> R + Clone + 'static,
    R: Future<Output = ()> + 'static,
{
    let (listener, address) = listen().await;
    tokio::task::spawn_local(async move {
        for number in 1.. {
            let (stream, _) = listener.accept().await.expect("it accepts");
            let answer = answer.clone();
            let mut builder = h2::server::Builder::new();
            build(&mut builder);
            tokio::task::spawn_local(async move {
                let Ok(mut connection) = builder.handshake(stream).await else { return };
                while let Some(Ok((request, respond))) = connection.accept().await {
                    tokio::task::spawn_local(answer(number, request, respond));
                }
            });
        }
    });
    address
}

fn reply(mut respond: h2::server::SendResponse<Bytes>, body: impl Into<Bytes>) {
    let mut stream = respond.send_response(Response::new(()), false).expect("the stream is open");
    stream.send_data(body.into(), true).expect("the stream is open");
}

/// A server that never answers.
pub(super) async fn silent() -> SocketAddr {
    http2_server(
        |_| {},
        |_, request, respond| async move {
            let _held = (request, respond);
            std::future::pending().await
        },
    )
    .await
}

/// Reads a request's whole body, giving its room back.
async fn whole(mut body: h2::RecvStream) -> Bytes {
    let mut read = Vec::new();
    while let Some(Ok(data)) = body.data().await {
        body.flow_control().release_capacity(data.len()).expect("it was received");
        read.extend_from_slice(&data);
    }
    read.into()
}

/// A body in pieces.
fn pieces(data: &Bytes, rng: &mut SmallRng) -> Body {
    let mut rest = data.clone();
    let mut frames = Vec::new();
    while !rest.is_empty() {
        let piece = rest.split_to(rng.random_range(1..=rest.len()));
        frames.push(Ok(Frame::data(piece)));
    }
    Body::wrapped(http_body_util::StreamBody::new(futures_util::stream::iter(frames)))
}

/// A connection whose frames are written by hand (RFC 9113 §4.1), past its preface and SETTINGS.
struct Frames(TcpStream);

impl Frames {
    async fn over(mut stream: TcpStream) -> Self {
        let mut preface = [0; 24];
        stream.read_exact(&mut preface).await.expect("a preface");
        let mut frames = Self(stream);
        frames.write(4, 0, 0, &[]).await;
        frames
    }

    async fn write(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        self.0.write_all(&frame).await.expect("open");
    }

    /// The next frame's kind, flags, stream and payload; `None` at the end.
    async fn read(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        self.0.read_exact(&mut payload).await.ok()?;
        Some((head[3], head[4], u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload))
    }

    /// Reads on until a request's last frame; its stream and body.
    async fn request(&mut self) -> (u32, Vec<u8>) {
        let mut body = Vec::new();
        loop {
            let (kind, flags, stream, payload) = self.read().await.expect("a request comes");
            if kind == 0 {
                body.extend(payload);
            }
            // HEADERS or DATA with END_STREAM.
            if kind <= 1 && flags & 1 == 1 {
                return (stream, body);
            }
        }
    }

    /// `:status: 200`, and the end.
    async fn answer(&mut self, stream: u32) {
        self.write(1, 0x5, stream, &[0x88]).await;
    }

    async fn go_away(&mut self, last: u32) {
        let mut payload = last.to_be_bytes().to_vec();
        payload.extend([0; 4]);
        self.write(7, 0, 0, &payload).await;
    }
}
