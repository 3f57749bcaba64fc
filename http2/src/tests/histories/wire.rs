//! What is between the two sides: bytes that come in pieces and late, and frames that the h2 crate never writes by itself.
//!
//! Towards our side, DATA and HEADERS are padded, header blocks cut into CONTINUATION, and PING, PRIORITY, empty DATA, frames nobody knows and SETTINGS of
//! the header table put between; what answers those goes no further. Padding takes window of which the sender knows nothing: it is kept back of
//! what our side announced before. Counts what both windows of the connection have to be.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf};

use crate::frame::{self, HEAD, Head, flag, kind};
use crate::{FULL, Outlet};

/// Our end of the wire, and where our side writes.
#[derive(Clone, Default)]
pub struct Near(Rc<RefCell<Inner>>);

#[derive(Default)]
struct Inner {
    incoming: BytesMut,
    ended: bool,
    reader: Option<Waker>,
    out: BytesMut,
    shut: bool,
    /// Who waits for something to leave.
    writer: Option<Waker>,
    /// Who waits for room.
    room: Option<Waker>,
}

impl AsyncRead for Near {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let inner = &mut *self.0.borrow_mut();
        if inner.incoming.is_empty() && !inner.ended {
            inner.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let now = buf.remaining().min(inner.incoming.len());
        buf.put_slice(&inner.incoming.split_to(now));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Near {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        panic!("everything goes to the outlet")
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let inner = &mut *self.0.borrow_mut();
        inner.shut = true;
        wake(&mut inner.writer);
        Poll::Ready(Ok(()))
    }
}

impl Outlet for Near {
    fn write(&self, head: &[u8], data: &[u8]) {
        let inner = &mut *self.0.borrow_mut();
        inner.out.extend_from_slice(head);
        inner.out.extend_from_slice(data);
        wake(&mut inner.writer);
    }

    fn waiting(&self) -> usize {
        self.0.borrow().out.len()
    }

    fn want_room(&self, driver: Option<&Waker>) {
        self.0.borrow_mut().room = driver.cloned();
    }
}

impl Near {
    fn push(&self, bytes: &[u8]) {
        let inner = &mut *self.0.borrow_mut();
        inner.incoming.extend_from_slice(bytes);
        wake(&mut inner.reader);
    }

    fn end(&self) {
        let inner = &mut *self.0.borrow_mut();
        inner.ended = true;
        wake(&mut inner.reader);
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

/// Of the connection as a whole, as the frames say it.
#[derive(Clone, Copy, Debug)]
pub struct Windows {
    pub send: i64,
    pub receive: i64,
}

struct State {
    rng: StdRng,
    windows: Windows,
    /// Bytes of windows that were kept back for padding, by stream.
    kept: HashMap<u32, usize>,
    /// SETTINGS that wait for their ACK, in order: whether they were put in here.
    settings: VecDeque<bool>,
    /// Streams whose sender goes on.
    sending: Vec<u32>,
    table: u32,
}

/// Carries until the wire is cut, which is when its `Near` is told of the end.
pub struct Wire {
    near: Near,
    state: RefCell<State>,
}

impl Wire {
    /// `table`: what the h2 crate's side says of its header table.
    pub fn new(near: Near, seed: u64, table: u32) -> Rc<Self> {
        let state = State {
            rng: StdRng::seed_from_u64(seed),
            windows: Windows { send: 65_535, receive: 65_535 },
            kept: HashMap::new(),
            settings: VecDeque::new(),
            sending: Vec::new(),
            table,
        };
        Rc::new(Self { near, state: state.into() })
    }

    pub fn windows(&self) -> Windows {
        self.state.borrow().windows
    }

    /// `client`: ours is. Ends when both sides have.
    pub async fn carry(&self, far: DuplexStream, client: bool) {
        let (read, write) = tokio::io::split(far);
        tokio::join!(self.down(read, !client), self.up(write, client));
    }

    pub fn cut(&self) {
        self.near.end();
    }

    fn random(&self, most: usize) -> usize {
        self.state.borrow_mut().rng.random_range(0..most)
    }

    async fn pause(&self) {
        if self.random(6) == 0 {
            let millis = self.random(4) as u64;
            tokio::time::sleep(Duration::from_millis(millis)).await;
        }
    }

    /// What a turn moves: few bytes or many.
    fn some(&self) -> usize {
        match self.random(4) {
            0 => 1 + self.random(30),
            1 => 1 + self.random(2_000),
            _ => 1 + self.random(30_000),
        }
    }

    async fn down(&self, mut from: impl AsyncRead + Unpin, preface: bool) {
        let mut input = BytesMut::new();
        let mut preface = if preface { frame::PREFACE.len() } else { 0 };
        loop {
            match from.read_buf(&mut input).await {
                Ok(1..) => {}
                _ => return self.near.end(),
            }
            let mut output = BytesMut::new();
            let now = preface.min(input.len());
            output.extend_from_slice(&input.split_to(now));
            preface -= now;
            while let Some(head) = Head::parse(&input).filter(|_| preface == 0) {
                if input.len() < HEAD + head.length {
                    break;
                }
                input.advance(HEAD);
                let payload = input.split_to(head.length);
                self.mangle(head, &payload, &mut output);
            }
            while !output.is_empty() {
                while self.near.0.borrow().incoming.len() > 100_000 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                let piece = self.some().min(output.len());
                self.near.push(&output.split_to(piece));
                self.pause().await;
            }
        }
    }

    fn mangle(&self, head: Head, payload: &[u8], output: &mut BytesMut) {
        let state = &mut *self.state.borrow_mut();
        let put = |output: &mut BytesMut, kind: u8, flags: u8, stream: u32, payload: &[&[u8]]| {
            let length = payload.iter().map(|part| part.len()).sum();
            output.extend_from_slice(&Head { length, kind, flags, stream }.bytes());
            payload.iter().for_each(|part| output.extend_from_slice(part));
        };
        if head.kind == kind::SETTINGS && !head.has(flag::ACK) {
            state.settings.push_back(false);
        }
        if head.kind == kind::WINDOW_UPDATE && head.stream == 0 {
            state.windows.send += i64::from(frame::bits(payload));
        }
        let mut flags = head.flags;
        match head.kind {
            kind::DATA => {
                let room = |stream: u32| state.kept.get(&stream).copied().unwrap_or(0);
                let most = room(0)
                    .min(room(head.stream))
                    .min(256)
                    .min(frame::MAX_FRAME - head.length.min(frame::MAX_FRAME));
                let padding = if most > 0 { state.rng.random_range(0..=most) } else { 0 };
                state.windows.receive -= (head.length + padding) as i64;
                if padding > 0 {
                    *state.kept.entry(0).or_default() -= padding;
                    *state.kept.entry(head.stream).or_default() -= padding;
                    let zeros = [0; 255];
                    let zeros = &zeros[..padding - 1];
                    flags |= flag::PADDED;
                    put(output, kind::DATA, flags, head.stream, &[&[zeros.len() as u8], payload, zeros]);
                } else {
                    put(output, kind::DATA, flags, head.stream, &[payload]);
                }
            }
            kind::HEADERS if head.has(flag::END_HEADERS) => {
                let cuts = state.rng.random_range(0..3);
                let mut at: Vec<_> = (0..cuts).map(|_| state.rng.random_range(0..=payload.len())).collect();
                at.extend([0, payload.len()]);
                at.sort_unstable();
                let parts: Vec<_> = at.windows(2).map(|at| &payload[at[0]..at[1]]).collect();
                for (n, part) in parts.iter().enumerate() {
                    let last = if n + 1 == parts.len() { flag::END_HEADERS } else { 0 };
                    let padding = state.rng.random_range(0..20_u8);
                    if n > 0 {
                        put(output, kind::CONTINUATION, last, head.stream, &[part]);
                    } else if padding < 10 || part.len() > 16_000 {
                        put(output, kind::HEADERS, flags & flag::END_STREAM | last, head.stream, &[part]);
                    } else {
                        let flags = flags & flag::END_STREAM | last | flag::PADDED;
                        put(
                            output,
                            kind::HEADERS,
                            flags,
                            head.stream,
                            &[&[padding], part, &vec![0; padding.into()]],
                        );
                    }
                }
            }
            _ => put(output, head.kind, flags, head.stream, &[payload]),
        }
        let opens = matches!(head.kind, kind::DATA | kind::HEADERS);
        if opens && !head.has(flag::END_STREAM) && !state.sending.contains(&head.stream) {
            state.sending.push(head.stream);
        } else if (opens && head.has(flag::END_STREAM)) || head.kind == kind::RST_STREAM {
            state.sending.retain(|stream| *stream != head.stream);
        }
        // Not into a header block.
        if matches!(head.kind, kind::HEADERS | kind::CONTINUATION) && !head.has(flag::END_HEADERS) {
            return;
        }
        match state.rng.random_range(0..40) {
            0 => put(output, kind::PING, 0, 0, &[&INJECTED]),
            1 => put(output, 0x20, 0xff, state.rng.random_range(0..9), &[b"nobody knows"]),
            2 if head.stream > 0 => put(output, kind::PRIORITY, 0, head.stream, &[&[0; 5]]),
            3 => {
                if let Some(stream) = state.sending.last()
                    && head.kind != kind::HEADERS
                {
                    put(output, kind::DATA, 0, *stream, &[]);
                }
            }
            4 => {
                // No larger than it announced itself.
                let size = [0, 100, 1_000, 4_096][state.rng.random_range(0..4)].min(state.table);
                output.extend_from_slice(&frame::settings(&[(1, size)]));
                state.settings.push_back(true);
            }
            _ => {}
        }
    }

    async fn up(&self, mut to: impl AsyncWrite + Unpin, preface: bool) {
        let mut input = BytesMut::new();
        let mut preface = if preface { frame::PREFACE.len() } else { 0 };
        loop {
            let some = self.some();
            let more = poll_fn(|cx| {
                let inner = &mut *self.near.0.borrow_mut();
                if inner.out.is_empty() && !inner.shut {
                    inner.writer = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                let now = some.min(inner.out.len());
                input.extend_from_slice(&inner.out.split_to(now));
                if inner.out.len() < FULL {
                    wake(&mut inner.room);
                }
                Poll::Ready(now > 0)
            });
            if !more.await {
                let _ = to.shutdown().await;
                return;
            }
            let mut output = BytesMut::new();
            let now = preface.min(input.len());
            output.extend_from_slice(&input.split_to(now));
            preface -= now;
            while let Some(head) = Head::parse(&input).filter(|_| preface == 0) {
                if input.len() < HEAD + head.length {
                    break;
                }
                let whole = input.split_to(HEAD + head.length);
                self.filter(head, &whole[HEAD..], &mut output);
            }
            // Whoever is gone takes nothing any more; what he said before comes nevertheless.
            let _ = to.write_all(&output).await;
            self.pause().await;
        }
    }

    fn filter(&self, head: Head, payload: &[u8], output: &mut BytesMut) {
        let state = &mut *self.state.borrow_mut();
        match head.kind {
            kind::SETTINGS if head.has(flag::ACK) && state.settings.pop_front() == Some(true) => return,
            kind::PING if head.has(flag::ACK) && *payload == INJECTED => return,
            kind::DATA => state.windows.send -= head.length as i64,
            kind::WINDOW_UPDATE => {
                let by = frame::bits(payload);
                if head.stream == 0 {
                    state.windows.receive += i64::from(by);
                }
                let kept = state.kept.entry(head.stream).or_default();
                let back = state.rng.random_range(0..400.min(by)).min(1_000_u32.saturating_sub(*kept as u32));
                *kept += back as usize;
                output.extend_from_slice(&frame::window_update(head.stream, by - back));
                return;
            }
            _ => {}
        }
        output.extend_from_slice(&head.bytes());
        output.extend_from_slice(payload);
    }
}

const INJECTED: [u8; 8] = *b"injected";
