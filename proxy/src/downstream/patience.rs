//! How long a client may take: for its next request's head, and between two requests.
//!
//! Owns the limits and the one timer of a connection. A header timer of a codec's own would be made and dropped for each request and
//! also ends connections that are merely idle. Here a head that is there in part notes the time, and a timer is only moved when that head was
//! not complete by the end of the same turn: a client that sends its requests whole costs none.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use crate::timers::{Sleep, Timers};

/// From the first byte of a request to the end of its head, and from the handshake to the first byte (design.md section 5).
pub const HEAD: Duration = Duration::from_secs(10);

/// Between two requests. Longer than the usual client keeps a connection, so that it is the client who closes: closing crosses a
/// request on its way.
pub const IDLE: Duration = Duration::from_secs(15 * 60);

/// Where a connection stands, told by its reads and its exchanges. Only its own worker touches it; atomics because hyper wants
/// a connection that may become a tunnel to be `Send`.
#[derive(Debug)]
pub struct Pulse {
    born: Instant,
    in_flight: AtomicU32,
    /// Milliseconds since `born`, plus 1; 0 while no head has begun.
    head_since: AtomicU64,
    /// Milliseconds since `born`.
    idle_since: AtomicU64,
}

/// What a client did not do in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Late {
    /// It did not finish a head that it began, or never sent one.
    Head,
    /// It had nothing to ask for a long time.
    Idle,
}

impl Pulse {
    /// `heads`: whether a request has a head of its own that the client begins and ends (HTTP/1), and is awaited at once.
    pub fn new(heads: bool) -> Arc<Self> {
        Arc::new(Self {
            born: Instant::now(),
            in_flight: AtomicU32::new(0),
            head_since: AtomicU64::new(if heads { 1 } else { 0 }),
            idle_since: AtomicU64::new(0),
        })
    }

    /// A request's head is here.
    pub fn begin(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.head_since.store(0, Ordering::Relaxed);
        InFlight { pulse: self.clone(), ended: None }
    }

    pub fn is_idle(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) == 0
    }

    /// When to look again, and what will be late then. `None` while an exchange is going on, which has limits of its own.
    pub fn deadline(&self) -> Option<(Instant, Late)> {
        if !self.is_idle() {
            return None;
        }
        Some(match self.head_since.load(Ordering::Relaxed) {
            0 => (self.at(self.idle_since.load(Ordering::Relaxed)) + IDLE, Late::Idle),
            since => (self.at(since - 1) + HEAD, Late::Head),
        })
    }

    /// Something of the next request is here, but not its whole head.
    pub fn head_begins(&self) {
        if self.is_idle() && self.head_since.load(Ordering::Relaxed) == 0 {
            self.head_since.store(self.millis(Instant::now()) + 1, Ordering::Relaxed);
        }
    }

    fn millis(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.born).as_millis() as u64
    }

    fn at(&self, millis: u64) -> Instant {
        self.born + Duration::from_millis(millis)
    }
}

/// An exchange that is not over; dropped when its response ended.
#[derive(Debug)]
pub struct InFlight {
    pulse: Arc<Pulse>,
    ended: Option<Instant>,
}

impl InFlight {
    /// It is dropped now, which saves looking at the clock.
    pub fn ends(&mut self, now: Instant) {
        self.ended = Some(now);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.pulse.in_flight.fetch_sub(1, Ordering::Relaxed) == 1 {
            let now = self.ended.unwrap_or_else(Instant::now);
            self.pulse.idle_since.store(self.pulse.millis(now), Ordering::Relaxed);
        }
    }
}

/// The timer of a connection, moved as seldom as possible.
#[derive(Debug)]
pub struct Timer(Sleep);

impl Timer {
    pub fn start(timers: &Rc<Timers>) -> Self {
        Self(timers.sleep(HEAD))
    }

    /// To be polled after everything else of the turn, by one task. Ready when the client is late.
    pub fn poll(&mut self, cx: &mut Context<'_>, pulse: &Pulse) -> Poll<Late> {
        if let Some((deadline, _)) = pulse.deadline()
            && deadline < self.0.deadline()
        {
            self.0.reset(deadline);
        }
        while self.0.poll(cx).is_ready() {
            let now = Instant::now();
            match pulse.deadline() {
                Some((deadline, late)) if deadline <= now => return Poll::Ready(late),
                Some((deadline, _)) => self.0.reset(deadline),
                // An exchange goes on: whatever comes after it is noticed by its own end.
                None => self.0.reset(now + IDLE),
            }
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    async fn late(timer: &mut Timer, pulse: &Pulse) -> (Late, Duration) {
        let begun = Instant::now();
        let late = poll_fn(|cx| timer.poll(cx, pulse)).await;
        (late, begun.elapsed())
    }

    #[tokio::test(flavor = "local", start_paused = true)]
    async fn a_client_that_sends_nothing_is_late_with_its_head() {
        let pulse = Pulse::new(true);
        let (what, after) = late(&mut Timer::start(&Timers::new()), &pulse).await;
        assert_eq!((what, after.as_secs()), (Late::Head, HEAD.as_secs()));
    }

    #[tokio::test(flavor = "local", start_paused = true)]
    async fn between_requests_it_may_take_longer_but_a_head_that_began_must_end() {
        let pulse = Pulse::new(true);
        let mut timer = Timer::start(&Timers::new());
        drop(pulse.begin());
        tokio::time::sleep(Duration::from_secs(60)).await;
        let mut waiting = std::pin::pin!(late(&mut timer, &pulse));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        pulse.head_begins();
        let (what, after) = waiting.await;
        assert_eq!((what, after.as_secs()), (Late::Head, HEAD.as_secs()));
    }

    #[tokio::test(flavor = "local", start_paused = true)]
    async fn an_idle_client_has_a_bound_and_a_busy_one_has_none() {
        let pulse = Pulse::new(true);
        let mut timer = Timer::start(&Timers::new());
        let busy = pulse.begin();
        let mut waiting = std::pin::pin!(async { poll_fn(|cx| timer.poll(cx, &pulse)).await });
        tokio::select! {
            late = &mut waiting => panic!("{late:?} while an exchange goes on"),
            () = tokio::time::sleep(10 * IDLE) => {}
        }
        drop(busy);
        let ended = Instant::now();
        assert_eq!(waiting.await, Late::Idle);
        assert!(ended.elapsed() >= IDLE && ended.elapsed() <= 2 * IDLE);
    }
}
