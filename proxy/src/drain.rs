//! How a proxy stops: the inbound side first and gently, the outbound side with the process.
//!
//! Owns the phases, their order and the one deadline. Whatever accepts or answers looks at the phase it is shown and acts on it by
//! itself; nothing here touches a connection, so nothing here can fail half-way: a driver that is dropped or stuck leaves the phase as
//! it is, and the process waits for the deadline. Outbound connections never look at it: an app may call others while it finishes.

mod seen;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};

pub use seen::{Place, Seen};

/// What the inbound side (and a gateway) does now. Only ever moves forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    Running,
    /// Everything as before, while those who call this instance learn that it is leaving.
    Announcing,
    /// New connections are refused: a caller that has not heard sends its request elsewhere, for nothing of it has arrived. What is open goes
    /// on: every HTTP/1 answer carries `Connection: close`, every HTTP/2 connection gets the two-step GOAWAY (RFC 9113 §6.8).
    Draining,
    /// What is open is closed. The process ends now if it is to end.
    Ended,
}

/// How long a drain takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How long callers may need to hear of it. Default 5 s; 1 s under `outrigger up`, whose control plane waits for their word.
    pub window: Duration,
    /// From the first signal to the end, the window included. Default 25 s, within Kubernetes' usual 30 s of grace.
    pub deadline: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self { window: Duration::from_secs(5), deadline: Duration::from_secs(25) }
    }
}

/// Shared by everything that starts, obeys or waits for a drain.
#[derive(Debug)]
pub struct Drain {
    timing: Timing,
    phase: watch::Sender<Phase>,
    asked: watch::Sender<Ask>,
    entered: AtomicUsize,
    left: AtomicUsize,
    /// Wakes the driver when nothing is active any more.
    idle: tokio::sync::Notify,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Ask {
    Nothing,
    /// Leave the load balancers, keep the process (`POST /drain`).
    Leave,
    /// Leave and end (SIGTERM, `POST /shutdown`).
    End,
    /// End at once (the second signal).
    Now,
}

impl Drain {
    pub fn new(timing: Timing) -> Arc<Self> {
        Arc::new(Self {
            timing,
            phase: watch::Sender::new(Phase::Running),
            asked: watch::Sender::new(Ask::Nothing),
            entered: AtomicUsize::new(0),
            left: AtomicUsize::new(0),
            idle: tokio::sync::Notify::new(),
        })
    }

    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// For a connection or a listener to await.
    pub fn watch(&self) -> Watch {
        Watch(self.phase.subscribe())
    }

    /// Counts one inbound exchange, tunnel or TCP connection as active until the guard is dropped.
    pub fn enter(self: &Arc<Self>) -> Active {
        self.entered.fetch_add(1, Ordering::Relaxed);
        Active(self.clone())
    }

    pub fn active(&self) -> usize {
        // Read in this order the difference cannot be negative.
        let left = self.left.load(Ordering::Acquire);
        self.entered.load(Ordering::Relaxed).wrapping_sub(left)
    }

    /// Begins a drain after which the process goes on with its outbound side.
    pub fn leave(&self) {
        self.ask(Ask::Leave);
    }

    /// Begins a drain that ends the process. Asked a second time, it ends at once.
    pub fn end(&self) {
        self.asked.send_modify(|asked| *asked = if *asked >= Ask::End { Ask::Now } else { Ask::End });
    }

    /// Begins a drain that ends the process, however often it is asked.
    pub fn shut_down(&self) {
        self.ask(Ask::End);
    }

    fn ask(&self, ask: Ask) {
        self.asked.send_modify(|asked| *asked = (*asked).max(ask));
    }

    /// Walks the phases; returns when the process is to end. The deadline counts from the first request to end (or to leave, for the
    /// inbound side), and holds whatever happens before it.
    pub async fn run(&self) {
        let mut asked = self.asked.subscribe();
        self.reached(&mut asked, Ask::Leave).await;
        let deadline = Instant::now() + self.timing.deadline;
        tokio::select! {
            () = self.walk(deadline) => {}
            () = self.reached(&mut asked, Ask::Now) => {}
        }
        self.enter_phase(Phase::Ended);
        let mut asked = self.asked.subscribe();
        self.reached(&mut asked, Ask::End).await;
    }

    async fn walk(&self, deadline: Instant) {
        self.enter_phase(Phase::Announcing);
        sleep_until(deadline.min(Instant::now() + self.timing.window)).await;
        self.enter_phase(Phase::Draining);
        // At the deadline it is over, idle or not.
        let _ = timeout_at(deadline, self.quiet()).await;
    }

    /// Until nothing has been active for [`QUIET`].
    async fn quiet(&self) {
        loop {
            if self.active() > 0 {
                // Looked at again now and then, because the last to leave may have looked at the phase a moment too early.
                let _ = tokio::time::timeout(QUIET, self.idle.notified()).await;
                continue;
            }
            // The next request of a busy connection may be on its way: the end waits for a pause, not for an instant.
            let entered = self.entered.load(Ordering::Relaxed);
            tokio::time::sleep(QUIET).await;
            if self.active() == 0 && self.entered.load(Ordering::Relaxed) == entered {
                return;
            }
        }
    }

    async fn reached(&self, asked: &mut watch::Receiver<Ask>, ask: Ask) {
        if asked.wait_for(|asked| *asked >= ask).await.is_err() {
            // Cannot be while `self` holds the sender; if it could, the deadline would still end the drain.
            std::future::pending().await
        }
    }

    fn enter_phase(&self, phase: Phase) {
        self.phase.send_if_modified(|current| {
            let later = phase > *current;
            if later {
                tracing::info!(from = ?*current, to = ?phase, active = self.active(), "drain");
                *current = phase;
            }
            later
        });
    }

    /// Turns SIGTERM and SIGINT into a drain that ends the process, a second one into its end. Returns at once.
    pub fn on_signals(self: &Arc<Self>) -> std::io::Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let drain = self.clone();
        tokio::spawn(async move {
            loop {
                let came = tokio::select! { came = term.recv() => came, came = int.recv() => came };
                if came.is_none() {
                    return;
                }
                drain.end();
            }
        });
        Ok(())
    }
}

/// How long nothing may have been active before a drain ends early.
const QUIET: Duration = Duration::from_millis(200);

/// The phase, as one connection or listener sees it.
#[derive(Clone, Debug)]
pub struct Watch(watch::Receiver<Phase>);

impl Watch {
    pub fn phase(&self) -> Phase {
        *self.0.borrow()
    }

    /// The phase it is now; the next change is from there.
    fn phase_and_seen(&mut self) -> Phase {
        *self.0.borrow_and_update()
    }

    /// Resolves when it has changed. False if the drain itself is gone.
    async fn changed(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }

    /// Resolves once the phase is `phase` or later; never, if the drain itself is gone.
    pub async fn reached(&mut self, phase: Phase) {
        if self.0.wait_for(|now| *now >= phase).await.is_err() {
            std::future::pending().await
        }
    }
}

/// One thing the drain waits for.
#[derive(Debug)]
pub struct Active(Arc<Drain>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.left.fetch_add(1, Ordering::Release);
        if self.0.active() == 0 && self.0.phase() >= Phase::Draining {
            self.0.idle.notify_one();
        }
    }
}

#[cfg(test)]
mod tests;
