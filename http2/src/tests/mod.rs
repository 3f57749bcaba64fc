//! Both sides, byte by byte: what is read is put into a [`Wire`], what is written is taken from it, and nothing moves but when it is polled.

mod bounds;
mod client;
mod flow;
mod histories;
mod server;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use http::Request;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::frame::{self, HEAD, Head, flag, kind};
use crate::hpack::{Encoder, Name};
use crate::{Code, Error, FULL, Limits, Outlet, RecvStream, SendStream, Space, hpack};

/// The peer's end of a connection.
#[derive(Clone, Default)]
struct Wire(Rc<RefCell<Ends>>);

#[derive(Default)]
struct Ends {
    incoming: VecDeque<u8>,
    ended: bool,
    shut: bool,
    out: Vec<u8>,
    /// Nothing leaves: what is written stays.
    stuck: usize,
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let ends = &mut *self.0.borrow_mut();
        if ends.incoming.is_empty() && !ends.ended {
            return Poll::Pending;
        }
        let now = buf.remaining().min(ends.incoming.len());
        let bytes: Vec<u8> = ends.incoming.drain(..now).collect();
        buf.put_slice(&bytes);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        panic!("everything goes to the outlet")
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().shut = true;
        Poll::Ready(Ok(()))
    }
}

impl Outlet for Wire {
    fn write(&self, head: &[u8], data: &[u8]) {
        let ends = &mut *self.0.borrow_mut();
        ends.out.extend_from_slice(head);
        ends.out.extend_from_slice(data);
    }

    fn waiting(&self) -> usize {
        let ends = self.0.borrow();
        if ends.stuck > 0 { ends.stuck + ends.out.len() } else { 0 }
    }

    fn want_room(&self, _: Option<&Waker>) {}
}

/// A frame that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Written {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Wire {
    fn put(&self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let head = Head { length: payload.len(), kind, flags, stream };
        let incoming = &mut self.0.borrow_mut().incoming;
        incoming.extend(head.bytes());
        incoming.extend(payload);
    }

    /// What was written since it was last asked for, but for a client's preface.
    fn written(&self) -> Vec<Written> {
        let out = std::mem::take(&mut self.0.borrow_mut().out);
        let mut rest = out.strip_prefix(frame::PREFACE).unwrap_or(&out);
        let mut frames = Vec::new();
        while let Some(head) = Head::parse(rest) {
            let (frame, more) = rest.split_at(HEAD + head.length);
            frames.push(Written {
                kind: head.kind,
                flags: head.flags,
                stream: head.stream,
                payload: frame[HEAD..].to_vec(),
            });
            rest = more;
        }
        assert!(rest.is_empty(), "half a frame");
        frames
    }

    /// The code of the GOAWAY, if one was written.
    fn gone(&self) -> Option<Code> {
        let frames = self.written();
        let gone = frames.iter().find(|frame| frame.kind == kind::GOAWAY)?;
        Some(Code(frame::bits(&gone.payload[4..])))
    }

    /// Streams that were reset, and how.
    fn resets(&self) -> Vec<(u32, Code)> {
        let frames = self.written().into_iter().filter(|frame| frame.kind == kind::RST_STREAM);
        frames.map(|frame| (frame.stream, Code(frame::bits(&frame.payload)))).collect()
    }
}

const LIMITS: Limits = Limits {
    stream_window: 65_536,
    connection_window: 1024 * 1024,
    lent: 0,
    streams: 200,
    header_list: 64 * 1024,
    unseen_resets: 20,
    faulty_streams: 100,
    idle_frames: 10_000,
};

fn cx() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

/// A header block of these fields.
fn block(encoder: &mut Encoder, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = BytesMut::new();
    let mut to = encoder.block(&mut block);
    for (name, value) in fields {
        match Name::parse(name.as_bytes()) {
            Name::Authority => to.authority(value.as_bytes()),
            Name::Method => to.method(&value.parse().expect("a method")),
            Name::Path => to.path(value.as_bytes()),
            Name::Protocol => to.protocol(value.as_bytes()),
            Name::Scheme => to.scheme(value),
            Name::Status => to.status(value.parse().expect("a status")),
            Name::Header(name) => to.header(&name, &value.parse().expect("a value")),
            Name::Invalid => panic!("no name: {name}"),
        }
    }
    block.to_vec()
}

const GET: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "http"), (":authority", "app.test"), (":path", "/")];
const POST: [(&str, &str); 4] =
    [(":method", "POST"), (":scheme", "http"), (":authority", "app.test"), (":path", "/")];

/// Our server, and a client whose frames are written by hand.
struct Server {
    wire: Wire,
    connection: crate::server::Connection<Wire>,
    encoder: Encoder,
    /// How the connection ended.
    end: Option<Result<(), Error>>,
}

impl Server {
    /// Past the preface and SETTINGS.
    fn new() -> Self {
        Self::with(LIMITS)
    }

    fn with(limits: Limits) -> Self {
        let server = Self::raw(limits);
        server.wire.0.borrow_mut().incoming.extend(frame::PREFACE);
        server.wire.put(kind::SETTINGS, 0, 0, &[]);
        server
    }

    fn raw(limits: Limits) -> Self {
        let wire = Wire::default();
        let space = Rc::<Space>::default();
        let connection = crate::server::Connection::new(wire.clone(), Rc::new(wire.clone()), space, limits);
        Self { wire, connection, encoder: Encoder::new(), end: None }
    }

    fn request(&mut self, stream: u32, end: bool, fields: &[(&str, &str)]) {
        let block = block(&mut self.encoder, fields);
        let flags = flag::END_HEADERS | if end { flag::END_STREAM } else { 0 };
        self.wire.put(kind::HEADERS, flags, stream, &block);
    }

    /// The requests of a turn.
    fn turn(&mut self) -> Vec<(Request<RecvStream>, SendStream)> {
        let mut requests = Vec::new();
        for _ in 0..10_000 {
            if self.end.is_some() {
                break;
            }
            match self.connection.poll_accept(&mut cx()) {
                Poll::Ready(Some(Ok(request))) => requests.push(request),
                Poll::Ready(Some(Err(error))) => self.end = Some(Err(error)),
                Poll::Ready(None) => self.end = Some(Ok(())),
                Poll::Pending if self.wire.0.borrow().incoming.is_empty() => break,
                Poll::Pending if self.wire.waiting() > FULL => break,
                Poll::Pending => {}
            }
        }
        requests
    }
}

/// Our client, and a server whose frames are written by hand.
struct Client {
    wire: Wire,
    connection: crate::client::Connection<Wire>,
    sender: crate::client::Sender,
    encoder: Encoder,
}

impl Client {
    /// Past the server's SETTINGS.
    fn new() -> Self {
        Self::with(LIMITS)
    }

    fn with(limits: Limits) -> Self {
        let wire = Wire::default();
        let space = Rc::<Space>::default();
        let (sender, connection) =
            crate::client::Connection::new(wire.clone(), Rc::new(wire.clone()), space, limits);
        let mut client = Self { wire, connection, sender, encoder: Encoder::new() };
        client.wire.put(kind::SETTINGS, 0, 0, &[]);
        assert!(client.turn().is_pending());
        client.wire.written();
        client
    }

    fn turn(&mut self) -> Poll<Result<(), Error>> {
        for _ in 0..10_000 {
            let polled = self.connection.poll(&mut cx());
            if polled.is_ready() || self.wire.0.borrow().incoming.is_empty() {
                return polled;
            }
        }
        panic!("it does not read on")
    }

    fn send(&mut self, method: &str, end: bool) -> (SendStream, RecvStream) {
        assert!(matches!(self.sender.poll_ready(&mut cx()), Poll::Ready(Ok(()))));
        let uri = "http://app.test/".parse().expect("a URI");
        let headers = http::HeaderMap::new();
        self.sender.send(&method.parse().expect("a method"), &uri, None, &headers, end)
    }

    fn answer(&mut self, stream: u32, end: bool, fields: &[(&str, &str)]) {
        let block = block(&mut self.encoder, fields);
        let flags = flag::END_HEADERS | if end { flag::END_STREAM } else { 0 };
        self.wire.put(kind::HEADERS, flags, stream, &block);
    }
}

/// All data that is here, given back as it is taken.
fn read(recv: &mut RecvStream) -> (Vec<u8>, Option<Result<(), Error>>) {
    let mut all = Vec::new();
    loop {
        match recv.poll_data(&mut cx()) {
            Poll::Ready(Some(Ok(data))) => {
                recv.release(data.len());
                all.extend_from_slice(&data);
            }
            Poll::Ready(Some(Err(error))) => return (all, Some(Err(error))),
            Poll::Ready(None) => return (all, Some(Ok(()))),
            Poll::Pending => return (all, None),
        }
    }
}

/// What a header block that was written says.
fn fields(decoder: &mut hpack::Decoder, frame: &Written) -> Vec<String> {
    let mut fields = Vec::new();
    let limits = hpack::Limits { max_list_size: 1 << 20, max_fields: 1000 };
    let block = Bytes::copy_from_slice(&frame.payload);
    decoder.decode(&block, limits, |field| fields.push(format!("{field:?}"))).expect("a block");
    fields
}
