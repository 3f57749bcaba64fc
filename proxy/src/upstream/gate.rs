//! A cap with a queue: places, shared by all workers, handed on in the order in which they were asked for.
//!
//! One word says how many places are taken and how many wait, and is changed by compare-exchange; the queue behind it is locked by those alone who
//! wait and by who hands a place on to them. Whoever comes while others wait waits behind them. What somebody holds as long as he waits, he holds until the very moment he is
//! handed a place, not until he is told: whoever comes in between finds the queue as long as it is. Never knows what a place is for, nor how
//! many there are: that is asked each time, because a policy may change it.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use parking_lot::Mutex;
use tokio::sync::oneshot;

pub(super) struct Gate<H = ()> {
    /// Taken (high half) and waiting (low half).
    word: AtomicU64,
    queue: Mutex<Queue<H>>,
}

struct Queue<H> {
    waiting: VecDeque<Waiter<H>>,
    next: u64,
}

struct Waiter<H> {
    id: u64,
    wake: oneshot::Sender<()>,
    held: H,
}

impl<H> Waiter<H> {
    fn let_in(self) {
        drop(self.held);
        // Who waits no longer took itself out of the queue before.
        let _ = self.wake.send(());
    }
}

impl<H> Default for Gate<H> {
    fn default() -> Self {
        Self {
            word: AtomicU64::default(),
            queue: Mutex::new(Queue { waiting: VecDeque::default(), next: 0 }),
        }
    }
}

/// What is held may lead back here.
impl<H> fmt::Debug for Gate<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("taken", &self.taken()).field("waiting", &self.waiting()).finish()
    }
}

const TAKEN: u64 = 1 << 32;

impl<H> Gate<H> {
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

    /// A place in the queue, or beyond it if there is one by now. `held` is dropped as soon as there is one.
    pub fn join(&self, cap: u32, held: H) -> Waiting<'_, H> {
        let mut queue = self.queue.lock();
        let entered = self.word.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |word| {
            Some(if is_free(word, cap) { word + TAKEN } else { word + 1 })
        });
        let before = entered.expect("the closure always returns a value");
        let (wake, woken) = oneshot::channel();
        let id = queue.next;
        queue.next += 1;
        let waiter = Waiter { id, wake, held };
        if is_free(before, cap) {
            drop(queue);
            waiter.let_in();
        } else {
            queue.waiting.push_back(waiter);
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
            let Some(waiter) = queue.waiting.pop_front() else { return };
            self.word.fetch_add(TAKEN - 1, Ordering::AcqRel);
            waiter.let_in();
        }
    }

    #[cold]
    fn hand_on(&self, cap: u32) {
        let mut queue = self.queue.lock();
        match queue.waiting.pop_front() {
            Some(waiter) => {
                self.word.fetch_sub(1, Ordering::AcqRel);
                drop(queue);
                waiter.let_in();
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
pub(super) struct Waiting<'a, H = ()> {
    gate: &'a Gate<H>,
    id: u64,
    woken: oneshot::Receiver<()>,
    cap: u32,
    entered: bool,
}

impl<H> Future for Waiting<'_, H> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // The sender is dropped only after it was used.
        let woken = Pin::new(&mut self.woken).poll(cx);
        woken.map(|_| self.entered = true)
    }
}

impl<H> Drop for Waiting<'_, H> {
    fn drop(&mut self) {
        if self.entered {
            return;
        }
        let mut queue = self.gate.queue.lock();
        match queue.waiting.iter().position(|waiter| waiter.id == self.id) {
            Some(at) => {
                let left = queue.waiting.remove(at);
                self.gate.word.fetch_sub(1, Ordering::AcqRel);
                drop(queue);
                drop(left);
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
        let gate = Gate::<()>::default();
        assert!(gate.enter(1));
        assert!(!gate.enter(1));
        let (mut first, mut second) = (gate.join(1, ()), gate.join(1, ()));
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
    fn what_a_waiter_holds_is_let_go_when_the_place_is_handed_to_it() {
        let gate = Gate::default();
        assert!(gate.enter(1));
        let held: [_; 3] = std::array::from_fn(|_| Arc::new(()));
        let counts = || held.each_ref().map(|held| Arc::strong_count(held) - 1);
        let [first, second, third] = held.each_ref().map(|held| gate.join(1, Arc::clone(held)));
        assert_eq!(counts(), [1, 1, 1]);
        gate.leave(1);
        assert_eq!(counts(), [0, 1, 1], "although nobody polled it");
        drop(second);
        assert_eq!(counts(), [0, 0, 1]);
        drop(first);
        assert_eq!(counts(), [0, 0, 0], "whose place is free again");
        drop(third);
        let _free = gate.join(1, Arc::clone(&held[0]));
        assert_eq!(counts(), [0, 0, 0]);
    }

    #[test]
    fn who_gives_up_waiting_loses_no_place() {
        let gate = Gate::<()>::default();
        assert!(gate.enter(1));
        let (first, mut second) = (gate.join(1, ()), gate.join(1, ()));
        drop(first);
        assert_eq!(gate.waiting(), 1);
        let third = gate.join(1, ());
        gate.leave(1);
        assert!(is_ready(&mut second));
        gate.leave(1);
        // It was handed the place and never looked.
        drop(third);
        assert_eq!((gate.taken(), gate.waiting()), (0, 0));
    }

    #[test]
    fn a_cap_may_change_under_those_who_wait() {
        let gate = Gate::<()>::default();
        (0..3).for_each(|_| assert!(gate.enter(3)));
        let mut waiting: Vec<_> = (0..4).map(|_| gate.join(3, ())).collect();
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
        let gate = Arc::new(Gate::<()>::default());
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
                                let waiting = gate.join(2, ());
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
