//! Over a socket pair of the kernel where its limits matter, over a scripted connection where each write has to be seen.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

use super::flusher::LINGER;
use super::stream::{BUFFER, LARGE};
use super::{Coalesced, Flusher};

/// What happens to the connection below, in order.
#[derive(Debug, PartialEq, Eq)]
enum Event {
    Write(usize),
    Flush,
    Shutdown,
}

/// A connection that does as it is told.
#[derive(Clone, Debug, Default)]
struct Scripted(Rc<RefCell<Script>>);

#[derive(Debug, Default)]
struct Script {
    events: Vec<Event>,
    sent: Vec<u8>,
    /// How much the next writes take; without one: everything.
    takes: VecDeque<Result<usize, io::ErrorKind>>,
    /// Takes nothing until it is opened.
    stuck: bool,
    /// Takes one write each time it is opened.
    sticks: bool,
    writer: Option<Waker>,
    closed: bool,
}

impl Scripted {
    fn stick(&self) {
        self.0.borrow_mut().stuck = true;
    }

    fn open(&self) {
        let mut script = self.0.borrow_mut();
        script.stuck = false;
        if let Some(writer) = script.writer.take() {
            writer.wake();
        }
    }

    fn events(&self) -> Vec<Event> {
        std::mem::take(&mut self.0.borrow_mut().events)
    }

    fn sent(&self) -> usize {
        self.0.borrow().sent.len()
    }

    fn waits(&self, cx: &Context<'_>) -> bool {
        let mut script = self.0.borrow_mut();
        // As a socket: who asked last is woken.
        script.writer = Some(cx.waker().clone());
        script.stuck
    }
}

impl AsyncWrite for Scripted {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.waits(cx) {
            return Poll::Pending;
        }
        let mut script = self.0.borrow_mut();
        let n = match script.takes.pop_front() {
            Some(Ok(n)) => n.min(buf.len()),
            Some(Err(error)) => return Poll::Ready(Err(error.into())),
            None => buf.len(),
        };
        script.sent.extend_from_slice(&buf[..n]);
        script.events.push(Event::Write(n));
        script.stuck |= script.sticks;
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().events.push(Event::Flush);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().events.push(Event::Shutdown);
        self.0.borrow_mut().closed = true;
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Scripted {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

fn scripted() -> (Scripted, Coalesced<Scripted>) {
    let io = Scripted::default();
    (io.clone(), Coalesced::new(io, Rc::default()))
}

/// Lets everything run that can.
async fn turn() {
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
}

async fn socket_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let (one, other) = tokio::join!(TcpStream::connect(address), listener.accept());
    (one.expect("connected"), other.expect("accepted").0)
}

fn local(test: impl Future<Output = ()>) {
    run(false, test);
}

fn paused(test: impl Future<Output = ()>) {
    run(true, test);
}

fn run(paused: bool, test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(paused)
        .build_local(tokio::runtime::LocalOptions::default())
        .expect("a runtime");
    runtime.block_on(async { timeout(Duration::from_secs(60), test).await.expect("done in time") });
}

#[test]
fn what_many_tasks_write_in_a_turn_leaves_in_one_write() {
    local(async {
        let (below, io) = scripted();
        let io = Rc::new(RefCell::new(io));
        for _ in 0..20 {
            let io = io.clone();
            // Each flushes for itself, as a codec does.
            spawn_local(async move {
                let mut cx = Context::from_waker(Waker::noop());
                let mut io = io.borrow_mut();
                assert!(Pin::new(&mut *io).poll_write(&mut cx, &[7; 50]).is_ready());
                assert!(Pin::new(&mut *io).poll_flush(&mut cx).is_ready());
            });
        }
        turn().await;
        assert_eq!(below.events(), [Event::Write(1000), Event::Flush]);
    });
}

#[test]
fn a_lone_write_leaves_before_the_worker_rests() {
    // On a paused clock time passes only when nothing can run: a write that waited for anything else would be late.
    paused(async {
        let (below, mut io) = scripted();
        let begun = tokio::time::Instant::now();
        io.write_all(b"hello").await.expect("taken");
        turn().await;
        assert_eq!(below.sent(), 5);
        assert_eq!(begun.elapsed(), Duration::ZERO);
    });
}

#[test]
fn a_full_buffer_is_written_at_once_and_a_stuck_one_makes_the_writer_wait() {
    local(async {
        let (below, mut io) = scripted();
        let piece = vec![1; LARGE - 1];
        let mut cx = Context::from_waker(Waker::noop());
        let mut put = |io: &mut Coalesced<Scripted>| Pin::new(io).poll_write(&mut cx, &piece);
        let mut taken = 0;
        // Nothing else runs meanwhile, the flusher neither.
        for _ in 0..8 {
            let Poll::Ready(Ok(n)) = put(&mut io) else { panic!("the buffer was not written out") };
            taken += n;
        }
        assert!(below.sent() >= taken - BUFFER, "{} of {taken}", below.sent());
        below.stick();
        let mut more = 0;
        while let Poll::Ready(Ok(n)) = put(&mut io) {
            more += n;
            assert!(more <= BUFFER, "it takes without a bound");
        }
        turn().await;
        let mut rest = Box::pin(async {
            io.write_all(&[2; 10]).await.expect("taken");
            io.shutdown().await.expect("ended");
        });
        assert!(futures_util::poll!(&mut rest).is_pending());
        below.open();
        rest.await;
        assert_eq!(below.sent(), taken + more + 10);
        assert_eq!(below.events().pop(), Some(Event::Shutdown));
    });
}

#[test]
fn a_connection_that_is_never_quite_written_out_holds_no_more_for_it() {
    local(async {
        let (below, mut io) = scripted();
        below.0.borrow_mut().sticks = true;
        let mut taken = 0;
        for _ in 0..200 {
            let mut cx = Context::from_waker(Waker::noop());
            while let Poll::Ready(Ok(n)) = Pin::new(&mut io).poll_write(&mut cx, &[1; 8000]) {
                taken += n;
            }
            below.0.borrow_mut().takes.push_back(Ok(5000));
            below.open();
            turn().await;
        }
        assert!(taken > 8 * BUFFER, "{taken}");
        assert!(io.held() <= 2 * BUFFER, "{}", io.held());
    });
}

#[test]
fn a_large_write_passes_the_empty_buffer_by() {
    local(async {
        let (below, mut io) = scripted();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(matches!(Pin::new(&mut io).poll_write(&mut cx, &[3; LARGE]), Poll::Ready(Ok(LARGE))));
        assert_eq!(below.events(), [Event::Write(LARGE)]);
        // Behind something small it waits for its turn: the order is the writer's.
        assert!(matches!(Pin::new(&mut io).poll_write(&mut cx, b"small"), Poll::Ready(Ok(5))));
        assert!(matches!(Pin::new(&mut io).poll_write(&mut cx, &[4; LARGE]), Poll::Ready(Ok(LARGE))));
        assert_eq!(below.events(), []);
        turn().await;
        assert_eq!(below.events(), [Event::Write(LARGE + 5), Event::Flush]);
        assert_eq!(below.0.borrow().sent[LARGE..LARGE + 6], *b"small\x04");
    });
}

#[test]
fn an_error_wakes_the_connection_and_is_returned_once() {
    local(async {
        let (below, mut io) = scripted();
        below.0.borrow_mut().takes.push_back(Err(io::ErrorKind::ConnectionReset));
        io.write_all(b"lost").await.expect("taken");
        // Only by being woken can the reader, to whom nothing comes, learn of it.
        let error = io.read(&mut [0; 10]).await.expect_err("the write failed");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        let error = io.write(b"more").await.expect_err("it failed before");
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        assert!(io.flush().await.is_err());
        assert!(io.shutdown().await.is_err());
    });
}

#[test]
fn a_shutdown_comes_after_the_last_byte() {
    local(async {
        let (below, mut io) = scripted();
        below.0.borrow_mut().takes.extend([Ok(3), Ok(4)]);
        io.write_all(&[5; 20]).await.expect("taken");
        io.shutdown().await.expect("ended");
        let events = [Event::Write(3), Event::Write(4), Event::Write(13), Event::Flush, Event::Shutdown];
        assert_eq!(below.events(), events);
        io.shutdown().await.expect("ended already");
    });
}

#[test]
fn a_dropped_connection_leaves_its_bytes_for_a_moment() {
    paused(async {
        // To one that takes them,
        let (below, mut io) = scripted();
        io.write_all(b"GOAWAY").await.expect("taken");
        drop(io);
        turn().await;
        assert_eq!(below.sent(), 6);
        assert_eq!(Rc::strong_count(&below.0), 1, "the connection is closed");
        // to one that takes them later,
        for stuck_before in [false, true] {
            let (below, mut io) = scripted();
            below.stick();
            io.write_all(b"GOAWAY").await.expect("taken");
            if stuck_before {
                turn().await;
            }
            drop(io);
            sleep(LINGER / 2).await;
            below.open();
            turn().await;
            assert_eq!(below.sent(), 6);
            assert_eq!(Rc::strong_count(&below.0), 1);
        }
        // and not to one that never does.
        let (below, mut io) = scripted();
        below.stick();
        io.write_all(b"GOAWAY").await.expect("taken");
        drop(io);
        sleep(LINGER * 2).await;
        assert_eq!((below.sent(), Rc::strong_count(&below.0)), (0, 1));
    });
}

#[test]
fn those_who_leave_bytes_are_bounded() {
    paused(async {
        let flusher = Rc::<Flusher>::default();
        let all: Vec<_> = (0..1000)
            .map(|_| {
                let below = Scripted::default();
                below.stick();
                below
            })
            .collect();
        for below in &all {
            let mut io = Coalesced::new(below.clone(), flusher.clone());
            io.write_all(b"left behind").await.expect("taken");
        }
        turn().await;
        let kept = all.iter().filter(|below| Rc::strong_count(&below.0) > 1).count();
        assert!((1..=256).contains(&kept), "{kept}");
        sleep(LINGER * 2).await;
        assert!(all.iter().all(|below| Rc::strong_count(&below.0) == 1));
        // There is room again.
        let below = Scripted::default();
        let mut io = Coalesced::new(below.clone(), flusher);
        io.write_all(b"left behind").await.expect("taken");
        drop(io);
        turn().await;
        assert_eq!(below.sent(), 11);
    });
}

#[test]
fn a_peer_that_stops_reading_stops_its_writer_alone() {
    local(async {
        let flusher = Rc::<Flusher>::default();
        let (ours, mut theirs) = socket_pair().await;
        let (other, mut reads) = socket_pair().await;
        let (mut stuck, mut free) = (Coalesced::new(ours, flusher.clone()), Coalesced::new(other, flusher));
        const ALL: usize = 32 << 20;
        let writer = spawn_local(async move {
            for n in 0..ALL / 1000 {
                stuck.write_all(&[n as u8; 1000]).await.expect("written");
            }
            stuck.shutdown().await.expect("ended");
        });
        // Until the kernel's buffers are full and nothing moves.
        for _ in 0..1000 {
            free.write_all(b"x").await.expect("written");
            reads.read_exact(&mut [0]).await.expect("it came");
        }
        assert!(!writer.is_finished());
        let mut read = Vec::new();
        theirs.read_to_end(&mut read).await.expect("read to the end");
        writer.await.expect("it wrote all");
        assert_eq!(read.len(), ALL / 1000 * 1000);
        assert!(read.chunks(1000).enumerate().all(|(n, piece)| piece.iter().all(|byte| *byte == n as u8)));
    });
}

#[test]
fn a_reset_while_bytes_wait_ends_the_connection() {
    local(async {
        let (ours, theirs) = socket_pair().await;
        let mut io = Coalesced::new(ours, Rc::default());
        let (mut reader, mut writer) = tokio::io::split(&mut io);
        let full = async {
            loop {
                if let Err(error) = writer.write_all(&[0; 1000]).await {
                    return error;
                }
            }
        };
        let reset = async {
            turn().await;
            theirs.set_zero_linger().expect("set");
            drop(theirs);
            reader.read(&mut [0; 10]).await
        };
        let (error, read) = tokio::join!(full, reset);
        assert!(read.is_err() || read.is_ok_and(|n| n == 0));
        assert!(
            matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe),
            "{error}"
        );
    });
}

#[test]
fn ten_thousand_dirty_connections_are_all_written_once() {
    local(async {
        let flusher = Rc::<Flusher>::default();
        let all: Vec<_> = (0..10_000)
            .map(|_| {
                let below = Scripted::default();
                (below.clone(), Coalesced::new(below, flusher.clone()))
            })
            .collect();
        let (below, connections): (Vec<_>, Vec<_>) = all.into_iter().unzip();
        for mut io in connections {
            io.write_all(b"one").await.expect("taken");
            io.write_all(b"two").await.expect("taken");
            std::mem::forget(io);
        }
        turn().await;
        assert!(below.iter().all(|below| below.events() == [Event::Write(6), Event::Flush]));
    });
}

#[test]
fn a_connection_at_rest_holds_no_buffer() {
    local(async {
        let flusher = Rc::<Flusher>::default();
        for _ in 0..100 {
            let mut io = Coalesced::new(Scripted::default(), flusher.clone());
            io.write_all(&[0; 5000]).await.expect("taken");
            turn().await;
            assert!(!format!("{io:?}").contains("waiting: 5000"));
            // The next one gets the same memory.
            assert_eq!(flusher.spares(), 1);
            std::mem::forget(io);
        }
    });
}
