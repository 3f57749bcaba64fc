//! Counters the workers add to without meeting each other.
//!
//! A count is one cell a worker, each on a cache line of its own; whoever reads adds them up. Adding is one relaxed atomic addition
//! on a line no other worker writes. Counts only grow while the process lives; nothing resets one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The cell a thread adds to. Any thread may use any; two that share one only slow each other down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Worker(pub usize);

#[derive(Debug)]
pub struct Counter(Box<[Cell]>);

#[derive(Debug, Default)]
#[repr(align(64))]
struct Cell(AtomicU64);

impl Counter {
    pub(super) fn new(workers: usize) -> Self {
        Self((0..workers.max(1)).map(|_| Cell::default()).collect())
    }

    pub fn add(&self, worker: Worker, n: u64) {
        self.0[worker.0 % self.0.len()].0.fetch_add(n, Ordering::Relaxed);
    }

    pub fn total(&self) -> u64 {
        self.0.iter().map(|cell| cell.0.load(Ordering::Relaxed)).fold(0, u64::wrapping_add)
    }
}

/// How many there are now: what began minus what ended.
#[derive(Debug)]
pub struct Level {
    pub(super) opened: std::sync::Arc<Counter>,
    closed: Counter,
}

impl Level {
    pub(super) fn new(workers: usize) -> Self {
        Self { opened: Counter::new(workers).into(), closed: Counter::new(workers) }
    }

    pub fn open(&self, worker: Worker) {
        self.opened.add(worker, 1);
    }

    pub fn close(&self, worker: Worker) {
        self.closed.add(worker, 1);
    }

    pub fn now(&self) -> u64 {
        // Read in this order the difference cannot be negative.
        let closed = self.closed.total();
        self.opened.total().saturating_sub(closed)
    }
}

/// Upper bounds of the buckets of a duration, in seconds; with `+Inf` they are 12 (requirements 6.4).
pub const BUCKETS: [f64; 11] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0];

const BUCKET_MICROS: [u64; BUCKETS.len()] =
    [500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 5_000_000];

#[derive(Debug)]
pub struct Histogram(Box<[Cells]>);

#[derive(Debug, Default)]
#[repr(align(64))]
struct Cells {
    buckets: [AtomicU64; BUCKETS.len() + 1],
    micros: AtomicU64,
}

impl Histogram {
    pub(super) fn new(workers: usize) -> Self {
        Self((0..workers.max(1)).map(|_| Cells::default()).collect())
    }

    pub fn observe(&self, worker: Worker, duration: Duration) {
        let cells = &self.0[worker.0 % self.0.len()];
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKET_MICROS.partition_point(|bound| *bound < micros);
        cells.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        cells.micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// Observations a bucket, not cumulated, and the sum of all in seconds.
    pub fn read(&self) -> ([u64; BUCKETS.len() + 1], f64) {
        let mut counts = [0; BUCKETS.len() + 1];
        let mut micros = 0_u64;
        for cells in &self.0 {
            for (count, bucket) in counts.iter_mut().zip(&cells.buckets) {
                *count += bucket.load(Ordering::Relaxed);
            }
            micros = micros.wrapping_add(cells.micros.load(Ordering::Relaxed));
        }
        (counts, micros as f64 / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_add_to_one_total() {
        let (counter, level) = (Counter::new(2), Level::new(2));
        std::thread::scope(|scope| {
            for worker in 0..4 {
                let (counter, level) = (&counter, &level);
                scope.spawn(move || {
                    for _ in 0..10_000 {
                        counter.add(Worker(worker), 2);
                        level.open(Worker(worker));
                        level.close(Worker(worker + 1));
                    }
                    level.open(Worker(worker));
                });
            }
        });
        assert_eq!(counter.total(), 80_000);
        assert_eq!(level.now(), 4);
    }

    #[test]
    fn a_bucket_holds_what_is_at_most_its_bound() {
        for (bound, micros) in BUCKETS.iter().zip(BUCKET_MICROS) {
            assert_eq!((bound * 1e6).round() as u64, micros);
        }
        let histogram = Histogram::new(1);
        for micros in [0, 500, 501, 5_000_000, 5_000_001] {
            histogram.observe(Worker(0), Duration::from_micros(micros));
        }
        let (counts, sum) = histogram.read();
        assert_eq!(counts, [2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert!((sum - 10.001002).abs() < 1e-9, "{sum}");
    }
}
