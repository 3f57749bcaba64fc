//! A cap with a queue: places, shared by all workers, handed on in the order in which they were asked for.
//!
//! One word says how many places are taken and how many wait, and is changed by compare-exchange; the queue behind it is locked by those alone who
//! wait and by who hands a place on to them. Whoever comes while others wait waits behind them. Never knows what a place is for, nor how
//! many there are: that is asked each time, because a policy may change it.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use parking_lot::Mutex;
use tokio::sync::oneshot;

#[derive(Debug, Default)]
pub(super) struct Gate {
    /// Taken (high half) and waiting (low half).
    word: AtomicU64,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<(u64, oneshot::Sender<()>)>,
    next: u64,
}

const TAKEN: u64 = 1 << 32;

impl Gate {
    pub fn taken(&self) -> u32 {
        (self.word.load(Ordering::Relaxed) >> 32) as u32
    }

    pub fn waiting(&self) -> u32 {
        self.word.load(Ordering::Relaxed) as u32
    }

    /// A place at once, if one is free and nobody waits for it. Whoever has it gives it back by [`Self::leave`].
    pub fn enter(&self, cap: u32) -> bool {
        let entered = self.word.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |word| {
            is_free(word, cap).then_some(word + TAKEN)
        });
        entered.is_ok()
    }

    /// A place although there may be none.
    pub fn force(&self) {
        self.word.fetch_add(TAKEN, Ordering::AcqRel);
    }

    /// A place in the queue, or beyond it if there is one by now.
    pub fn join(&self, cap: u32) -> Waiting<'_> {
        let mut queue = self.queue.lock();
        let entered = self.word.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |word| {
            Some(if is_free(word, cap) { word + TAKEN } else { word + 1 })
        });
        let before = entered.expect("the closure always returns a value");
        let (wake, woken) = oneshot::channel();
        let id = queue.next;
        queue.next += 1;
        if is_free(before, cap) {
            // The receiver is there, so that it cannot fail.
            let _ = wake.send(());
        } else {
            queue.waiting.push_back((id, wake));
        }
        Waiting { gate: self, id, woken, cap, entered: false }
    }

    /// Gives a place back: to whoever waits the longest, unless there are more taken than `cap`.
    pub fn leave(&self, cap: u32) {
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            if word as u32 != 0 && word >> 32 <= u64::from(cap) {
                return self.hand_on(cap);
            }
            match self.word.compare_exchange_weak(word, word - TAKEN, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => word = now,
            }
        }
    }

    /// Lets in who waits, after the cap was raised.
    pub fn admit(&self, cap: u32) {
        let mut queue = self.queue.lock();
        while self.taken() < cap {
            let Some((_, wake)) = queue.waiting.pop_front() else { return };
            self.word.fetch_add(TAKEN - 1, Ordering::AcqRel);
            let _ = wake.send(());
        }
    }

    #[cold]
    fn hand_on(&self, cap: u32) {
        let mut queue = self.queue.lock();
        match queue.waiting.pop_front() {
            Some((_, wake)) => {
                self.word.fetch_sub(1, Ordering::AcqRel);
                // Who waits no longer took itself out of the queue before.
                let _ = wake.send(());
            }
            None => {
                drop(queue);
                self.leave(cap);
            }
        }
    }
}

/// Whether there is a place for somebody who comes now: none is waited for, and not all are taken.
fn is_free(word: u64, cap: u32) -> bool {
    word as u32 == 0 && word >> 32 < u64::from(cap)
}

/// Waits for a place; ready when it is there, and whoever was waiting then has to give it back. Dropped before, it leaves the queue.
#[derive(Debug)]
pub(super) struct Waiting<'a> {
    gate: &'a Gate,
    id: u64,
    woken: oneshot::Receiver<()>,
    cap: u32,
    entered: bool,
}

impl Future for Waiting<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // The sender is dropped only after it was used.
        let woken = Pin::new(&mut self.woken).poll(cx);
        woken.map(|_| self.entered = true)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.entered {
            return;
        }
        let mut queue = self.gate.queue.lock();
        match queue.waiting.iter().position(|(id, _)| *id == self.id) {
            Some(at) => {
                queue.waiting.remove(at);
                self.gate.word.fetch_sub(1, Ordering::AcqRel);
            }
            None => {
                drop(queue);
                self.gate.leave(self.cap);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    fn is_ready(waiting: &mut Waiting<'_>) -> bool {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        Pin::new(waiting).poll(&mut cx).is_ready()
    }

    #[test]
    fn places_are_handed_on_in_turn_and_nobody_jumps_the_queue() {
        let gate = Gate::default();
        assert!(gate.enter(1));
        assert!(!gate.enter(1));
        let (mut first, mut second) = (gate.join(1), gate.join(1));
        assert!(!is_ready(&mut first) && !is_ready(&mut second));
        gate.leave(1);
        assert!(!gate.enter(1), "it is the first one's");
        assert!(is_ready(&mut first) && !is_ready(&mut second));
        gate.leave(1);
        assert!(is_ready(&mut second));
        assert_eq!((gate.taken(), gate.waiting()), (1, 0));
        gate.leave(1);
        assert_eq!(gate.taken(), 0);
    }

    #[test]
    fn who_gives_up_waiting_loses_no_place() {
        let gate = Gate::default();
        assert!(gate.enter(1));
        let (first, mut second) = (gate.join(1), gate.join(1));
        drop(first);
        assert_eq!(gate.waiting(), 1);
        let third = gate.join(1);
        gate.leave(1);
        assert!(is_ready(&mut second));
        gate.leave(1);
        // It was handed the place and never looked.
        drop(third);
        assert_eq!((gate.taken(), gate.waiting()), (0, 0));
    }

    #[test]
    fn a_cap_may_change_under_those_who_wait() {
        let gate = Gate::default();
        (0..3).for_each(|_| assert!(gate.enter(3)));
        let mut waiting: Vec<_> = (0..4).map(|_| gate.join(3)).collect();
        gate.admit(5);
        assert_eq!(waiting.iter_mut().filter_map(|w| is_ready(w).then_some(())).count(), 2);
        assert_eq!((gate.taken(), gate.waiting()), (5, 2));
        // Lowered: places are not handed on until there are few enough.
        (0..4).for_each(|_| gate.leave(1));
        assert_eq!((gate.taken(), gate.waiting()), (1, 2));
        gate.leave(1);
        assert_eq!((gate.taken(), gate.waiting()), (1, 1));
    }

    /// Several threads that come, wait, give up and leave at random: never more inside than may be, and nobody is forgotten.
    #[test]
    fn many_threads_keep_the_cap_and_all_get_through() {
        let gate = Arc::new(Gate::default());
        let inside = Arc::new(AtomicU64::new(0));
        let threads: Vec<_> = (0..4u64)
            .map(|seed| {
                let (gate, inside) = (Arc::clone(&gate), Arc::clone(&inside));
                std::thread::spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("it starts");
                    let mut rng = SmallRng::seed_from_u64(seed);
                    runtime.block_on(async {
                        for _ in 0..3_000 {
                            if !gate.enter(2) {
                                let waiting = gate.join(2);
                                if rng.random_bool(0.2) {
                                    drop(waiting);
                                    continue;
                                }
                                waiting.await;
                            }
                            assert!(inside.fetch_add(1, Ordering::SeqCst) < 2);
                            std::thread::yield_now();
                            inside.fetch_sub(1, Ordering::SeqCst);
                            gate.leave(2);
                        }
                    });
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().expect("it does not panic"));
        assert_eq!((gate.taken(), gate.waiting()), (0, 0));
    }
}
