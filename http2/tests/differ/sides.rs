//! Both servers over memory, polled by hand: each reads all of every request, and answers when it is whole.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, Response};
use outrigger_http2::{Limits, Outlet, Protocol, RecvStream, SendStream, Space, server};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub const LIMITS: Limits = Limits {
    stream_window: 65_535,
    connection_window: 1024 * 1024,
    lent: 0,
    streams: 200,
    header_list: 64 * 1024,
    unseen_resets: 1_000,
    faulty_streams: 1_000,
    idle_frames: 1_000,
};

/// A client's preface and SETTINGS.
pub const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A request as its reader understood it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub line: String,
    pub fields: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
    pub trailers: Option<Vec<(String, Vec<u8>)>>,
    pub whole: bool,
}

fn fields(headers: &HeaderMap) -> Vec<(String, Vec<u8>)> {
    let mut fields: Vec<_> =
        headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect();
    // By name; those of one name in their order.
    fields.sort_by(|(a, _), (b, _)| a.cmp(b));
    fields
}

fn head<T>(request: &Request<T>, protocol: Option<&str>) -> Seen {
    let line = format!("{} {} {protocol:?}", request.method(), request.uri());
    Seen { line, fields: fields(request.headers()), ..Seen::default() }
}

fn cx() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

#[derive(Clone, Default)]
struct Pipe(Rc<RefCell<(BytesMut, BytesMut)>>);

impl AsyncRead for Pipe {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let incoming = &mut self.0.borrow_mut().0;
        if incoming.is_empty() {
            return Poll::Pending;
        }
        let now = buf.remaining().min(incoming.len());
        buf.put_slice(&incoming.split_to(now));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().1.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Outlet for Pipe {
    fn write(&self, head: &[u8], data: &[u8]) {
        let out = &mut self.0.borrow_mut().1;
        out.extend_from_slice(head);
        out.extend_from_slice(data);
    }

    fn waiting(&self) -> usize {
        0
    }

    fn want_room(&self, _: Option<&Waker>) {}
}

/// What a side wrote.
#[derive(Debug, Default)]
struct Wrote {
    resets: Vec<u32>,
    answers: Vec<u32>,
    gone: Option<u32>,
}

impl Wrote {
    fn take(&mut self, pipe: &Pipe) {
        let mut out = std::mem::take(&mut pipe.0.borrow_mut().1);
        while out.len() >= 9 {
            let length = u32::from_be_bytes([0, out[0], out[1], out[2]]) as usize;
            let frame = out.split_to(9 + length);
            let word =
                |at: usize| u32::from_be_bytes([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]]);
            match frame[3] {
                1 => self.answers.push(word(5)),
                3 => self.resets.push(word(5)),
                7 if word(13) != 0 => self.gone = self.gone.or(Some(word(13))),
                _ => {}
            }
        }
    }
}

/// Ours.
pub struct Ours {
    pipe: Pipe,
    connection: server::Connection<Pipe>,
    under_way: Vec<(u32, SendStream, RecvStream)>,
    requests: BTreeMap<u32, Seen>,
    wrote: Wrote,
    ended: bool,
}

impl Ours {
    pub fn new() -> Self {
        let pipe = Pipe::default();
        let connection =
            server::Connection::new(pipe.clone(), Rc::new(pipe.clone()), Rc::<Space>::default(), LIMITS);
        let mut ours = Self {
            pipe,
            connection,
            under_way: Vec::new(),
            requests: BTreeMap::new(),
            wrote: Wrote::default(),
            ended: false,
        };
        ours.feed(HELLO, 0);
        ours
    }

    /// Streams it answered, by itself or for who accepted them.
    pub fn answers(&self) -> &[u32] {
        &self.wrote.answers
    }

    /// `id`: the stream that a request is of, should these bytes end one's head.
    pub fn feed(&mut self, bytes: &[u8], id: u32) {
        self.pipe.0.borrow_mut().0.extend_from_slice(bytes);
        while !self.ended {
            match self.connection.poll_accept(&mut cx()) {
                Poll::Ready(Some(Ok((request, send)))) => {
                    let protocol = request.extensions().get::<Protocol>().map(|p| p.0.clone());
                    let protocol = protocol.as_deref().map(String::from_utf8_lossy);
                    let seen = head(&request, protocol.as_deref());
                    self.requests.insert(id, seen);
                    self.under_way.push((id, send, request.into_body()));
                }
                Poll::Ready(_) => self.ended = true,
                Poll::Pending if self.pipe.0.borrow().0.is_empty() => break,
                Poll::Pending => {}
            }
        }
        let requests = &mut self.requests;
        self.under_way.retain_mut(|(id, send, recv)| {
            let seen = requests.get_mut(id).expect("it was accepted");
            loop {
                match recv.poll_data(&mut cx()) {
                    Poll::Ready(Some(Ok(data))) => {
                        recv.release(data.len());
                        seen.body.extend_from_slice(&data);
                    }
                    Poll::Ready(None) => {
                        seen.whole = true;
                        seen.trailers = recv.take_trailers().map(|trailers| fields(&trailers));
                        let _ = send.respond(&mut Response::new(()).into_parts().0, true);
                        return false;
                    }
                    Poll::Ready(Some(Err(_))) => return false,
                    Poll::Pending => return true,
                }
            }
        });
        self.wrote.take(&self.pipe);
    }
}

/// The h2 crate's.
pub struct Theirs {
    pipe: Pipe,
    connection: h2::server::Connection<Pipe, Bytes>,
    under_way: Vec<(u32, h2::server::SendResponse<Bytes>, h2::RecvStream, bool)>,
    requests: BTreeMap<u32, Seen>,
    wrote: Wrote,
    ended: bool,
}

impl Theirs {
    pub fn new() -> Self {
        let pipe = Pipe::default();
        pipe.0.borrow_mut().0.extend_from_slice(HELLO);
        let mut builder = h2::server::Builder::new();
        builder
            .initial_window_size(LIMITS.stream_window)
            .initial_connection_window_size(LIMITS.connection_window)
            .max_concurrent_streams(LIMITS.streams)
            .max_header_list_size(LIMITS.header_list as u32)
            .max_local_error_reset_streams(None)
            .max_pending_accept_reset_streams(LIMITS.unseen_resets)
            .data_frame_budget(usize::MAX)
            .enable_connect_protocol();
        let mut handshake = Box::pin(builder.handshake(pipe.clone()));
        let connection = match handshake.as_mut().poll(&mut cx()) {
            Poll::Ready(Ok(connection)) => connection,
            _ => panic!("the preface is there"),
        };
        let mut theirs = Self {
            pipe,
            connection,
            under_way: Vec::new(),
            requests: BTreeMap::new(),
            wrote: Wrote::default(),
            ended: false,
        };
        theirs.feed(&[]);
        theirs
    }

    pub fn feed(&mut self, bytes: &[u8]) {
        self.pipe.0.borrow_mut().0.extend_from_slice(bytes);
        // What a handler does is written by the connection, and the other way round.
        for _ in 0..4 {
            self.turn();
        }
        self.wrote.take(&self.pipe);
    }

    fn turn(&mut self) {
        while !self.ended {
            match self.connection.poll_accept(&mut cx()) {
                Poll::Ready(Some(Ok((request, send)))) => {
                    let protocol = request.extensions().get::<h2::ext::Protocol>().cloned();
                    let seen = head(&request, protocol.as_ref().map(|protocol| protocol.as_str()));
                    let id = send.stream_id().as_u32();
                    self.requests.insert(id, seen);
                    self.under_way.push((id, send, request.into_body(), false));
                }
                Poll::Ready(_) => self.ended = true,
                Poll::Pending => break,
            }
        }
        let requests = &mut self.requests;
        self.under_way.retain_mut(|(id, send, recv, read)| {
            let seen = requests.get_mut(id).expect("it was accepted");
            while !*read {
                match recv.poll_data(&mut cx()) {
                    Poll::Ready(Some(Ok(data))) => {
                        let _ = recv.flow_control().release_capacity(data.len());
                        seen.body.extend_from_slice(&data);
                    }
                    Poll::Ready(None) => *read = true,
                    Poll::Ready(Some(Err(_))) => return false,
                    Poll::Pending => return true,
                }
            }
            match recv.poll_trailers(&mut cx()) {
                Poll::Ready(Ok(trailers)) => {
                    seen.whole = true;
                    seen.trailers = trailers.map(|trailers| fields(&trailers));
                    let _ = send.send_response(Response::new(()), true);
                    false
                }
                Poll::Ready(Err(_)) => false,
                Poll::Pending => true,
            }
        });
    }
}

macro_rules! side {
    ($side:ty) => {
        impl $side {
            /// The code it ended the connection with.
            pub fn gone(&self) -> Option<u32> {
                self.wrote.gone
            }

            /// Streams it reset.
            pub fn resets(&self) -> &[u32] {
                &self.wrote.resets
            }

            pub fn requests(&self) -> &BTreeMap<u32, Seen> {
                &self.requests
            }

            pub fn describe(&self) -> String {
                format!("{:?}, {:#?}", self.wrote, self.requests)
            }
        }
    };
}

side!(Ours);
side!(Theirs);
