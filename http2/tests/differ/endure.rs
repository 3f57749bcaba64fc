//! Any bytes to our server and to our client, whose peers read nothing of what they are answered and whose users nothing of what comes.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;
use http::{HeaderMap, Method, Uri};
use outrigger_http2::{Outlet, RecvStream, SendStream, Space, client, server};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::sides::LIMITS;

/// Nothing panics, everything comes to an end, and no more is held than what the documentation says.
pub fn endure(bytes: &[u8]) {
    serve(bytes);
    ask(bytes);
}

/// [`outrigger_http2::STUCK`], and what the answers to one more read may be: no frame has an answer larger than itself but an empty one of SETTINGS, which has
/// as large a one, and those of 64 KiB of small updates of windows are told at most once for each frame.
const MOST_ANSWERED: usize = (128 + 4 * 64) * 1024;

fn serve(bytes: &[u8]) {
    let pipe = Pipe::new(bytes);
    let mut connection =
        server::Connection::new(pipe.clone(), Rc::new(pipe.clone()), Rc::<Space>::default(), LIMITS);
    let mut held = Vec::new();
    for _ in 0..=pipe.turns() {
        match connection.poll_accept(&mut cx()) {
            Poll::Ready(Some(Ok((request, send)))) => held.push((send, request.into_body())),
            Poll::Ready(_) => break,
            Poll::Pending => {}
        }
    }
    assert!(held.len() <= pipe.turns());
    check(&pipe, held);
}

fn ask(bytes: &[u8]) {
    let pipe = Pipe::new(bytes);
    let (mut sender, mut connection) =
        client::Connection::new(pipe.clone(), Rc::new(pipe.clone()), Rc::<Space>::default(), LIMITS);
    let (uri, headers) = (Uri::from_static("http://app.test/"), HeaderMap::new());
    let mut held = Vec::new();
    for nth in 0..=pipe.turns() {
        if connection.poll(&mut cx()).is_ready() {
            break;
        }
        if held.len() < 5 && matches!(sender.poll_ready(&mut cx()), Poll::Ready(Ok(()))) {
            held.push(sender.send(&Method::POST, &uri, None, &headers, nth % 2 == 0));
        }
    }
    check(&pipe, held);
}

fn check(pipe: &Pipe, held: Vec<(SendStream, RecvStream)>) {
    let mut unread = 0;
    for (_, mut recv) in held {
        while let Poll::Ready(Some(Ok(data))) = recv.poll_data(&mut cx()) {
            unread += data.len();
        }
        let _ = recv.poll_response(&mut cx());
        let _ = recv.take_trailers();
    }
    assert!(unread <= (LIMITS.connection_window + LIMITS.lent) as usize, "{unread} bytes are held");
    let answered = pipe.0.borrow().out;
    assert!(answered <= MOST_ANSWERED, "{answered} bytes of answers");
}

fn cx() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

#[derive(Clone)]
struct Pipe(Rc<RefCell<Ends>>);

struct Ends {
    incoming: BytesMut,
    /// Bytes that were written.
    out: usize,
}

impl Pipe {
    fn new(bytes: &[u8]) -> Self {
        Self(Rc::new(RefCell::new(Ends { incoming: bytes.into(), out: 0 })))
    }

    /// More than it takes to read all of it: a frame has nine bytes, and each can be a request.
    fn turns(&self) -> usize {
        self.0.borrow().incoming.len() / 9 + 10
    }
}

impl AsyncRead for Pipe {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let incoming = &mut self.0.borrow_mut().incoming;
        let now = buf.remaining().min(incoming.len());
        buf.put_slice(&incoming.split_to(now));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        panic!("everything goes to the outlet")
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
        self.0.borrow_mut().out += head.len() + data.len();
    }

    fn waiting(&self) -> usize {
        self.0.borrow().out
    }

    fn want_room(&self, _: Option<&Waker>) {}
}
