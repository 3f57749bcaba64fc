//! Who opens the streams of a history, and who accepts them: either implementation as either side.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Context;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use tokio::io::DuplexStream;
use tokio::task::spawn_local;
use tokio::time::{Instant, Sleep, sleep_until};

use super::plan::{End, History};
use super::run::Run;
use super::wire::Near;
use super::{FOREVER, Opener};
use crate::core::Shared;
use crate::{Space, client, server};

pub fn ours_asks(near: Near, history: &History, run: &Run) -> (Opener, Shared) {
    let (sender, mut connection) =
        client::Connection::new(near.clone(), Rc::new(near), Rc::<Space>::default(), history.ours);
    let shared = connection.pings().0;
    run.beside(async move { poll_fn(|cx| connection.poll(cx)).await.expect("an orderly end") });
    (Opener::Ours(sender), shared)
}

pub fn ours_serves(near: Near, history: &History, run: &Rc<Run>, begun: Instant) -> Shared {
    let mut connection =
        server::Connection::new(near.clone(), Rc::new(near), Rc::<Space>::default(), history.ours);
    let shared = connection.pings().0;
    let leave = leave_at(history, begun);
    let beside = run.clone();
    let run = run.clone();
    beside.beside(async move {
        let mut leave = Box::pin(sleep_until(leave));
        let mut left = false;
        loop {
            let accepted = poll_fn(|cx| {
                if !left && leave.as_mut().poll(cx).is_ready() {
                    left = true;
                    connection.leave();
                }
                connection.poll_accept(cx)
            });
            let Some(accepted) = accepted.await else { return };
            let (request, mut send) = accepted.expect("an orderly connection");
            let (head, recv) = request.into_parts();
            let answering = run.clone();
            run.beside(async move {
                let respond = |response: Response<()>, end: bool| {
                    send.respond(&mut response.into_parts().0, end)?;
                    Ok(send)
                };
                answering.answer(Request::from_parts(head, ()), recv, respond).await;
            });
        }
    });
    shared
}

pub async fn theirs_asks(io: DuplexStream, history: &History, begun: Instant) -> Opener {
    let theirs = &history.theirs;
    let mut builder = h2::client::Builder::new();
    builder
        .initial_window_size(theirs.stream_window)
        .initial_connection_window_size(theirs.connection_window)
        .header_table_size(theirs.table)
        .initial_max_send_streams(0)
        .max_concurrent_reset_streams(10_000)
        .data_frame_budget(usize::MAX)
        .enable_push(false);
    let (sender, mut connection) = builder.handshake(io).await.expect("it begins");
    let mut windows = Windows::new(history, begun);
    spawn_local(poll_fn(move |cx| {
        windows.poll(cx, |window| connection.set_initial_window_size(window));
        Pin::new(&mut connection).poll(cx)
    }));
    Opener::Theirs(sender)
}

pub fn theirs_serves(io: DuplexStream, history: &History, run: &Rc<Run>, begun: Instant) {
    let theirs = &history.theirs;
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(theirs.stream_window)
        .initial_connection_window_size(theirs.connection_window)
        .header_table_size(theirs.table)
        .max_concurrent_streams(theirs.streams)
        .max_concurrent_reset_streams(10_000)
        .max_pending_accept_reset_streams(10_000)
        .data_frame_budget(usize::MAX);
    let handshake = builder.handshake::<_, Bytes>(io);
    let leave = leave_at(history, begun);
    let (mut windows, run) = (Windows::new(history, begun), run.clone());
    spawn_local(async move {
        let Ok(mut connection) = handshake.await else { return };
        let mut leave = Box::pin(sleep_until(leave));
        let mut left = false;
        loop {
            let accepted = poll_fn(|cx| {
                if !left && leave.as_mut().poll(cx).is_ready() {
                    left = true;
                    connection.graceful_shutdown();
                }
                windows.poll(cx, |window| connection.set_initial_window_size(window));
                connection.poll_accept(cx)
            });
            let Some(Ok((request, mut respond))) = accepted.await else { return };
            let (head, recv) = request.into_parts();
            let answering = run.clone();
            run.beside(async move {
                let respond = |response: Response<()>, end: bool| Ok(respond.send_response(response, end)?);
                answering.answer(Request::from_parts(head, ()), recv, respond).await;
            });
        }
    });
}

fn leave_at(history: &History, begun: Instant) -> Instant {
    match history.end {
        Some((at, End::Leave)) => begun + Duration::from_millis(at),
        _ => begun + FOREVER,
    }
}

/// The windows that the h2 crate's side announces one after the other.
struct Windows {
    begun: Instant,
    left: Vec<(u64, u32)>,
    next: Pin<Box<Sleep>>,
}

impl Windows {
    fn new(history: &History, begun: Instant) -> Self {
        let mut left = history.theirs.windows.clone();
        left.reverse();
        Self { begun, left, next: Box::pin(sleep_until(begun)) }
    }

    /// `set` refuses while one is not answered yet: then it is tried again.
    fn poll(&mut self, cx: &mut Context<'_>, mut set: impl FnMut(u32) -> Result<(), h2::Error>) {
        while let Some((at, window)) = self.left.last().copied()
            && self.next.as_mut().poll(cx).is_ready()
        {
            let at = self.begun + Duration::from_millis(at);
            if at <= Instant::now() && set(window).is_ok() {
                self.left.pop();
            }
            self.next.as_mut().reset(at.max(Instant::now() + Duration::from_millis(1)));
        }
    }
}
