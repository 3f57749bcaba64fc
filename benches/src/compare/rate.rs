//! Requests at a fixed rate, whatever the answers do, and how long each took from when it was due.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::wire::Wire;

/// All latencies of one run, sorted.
#[derive(Clone, Debug)]
pub struct Latencies(Vec<Duration>);

impl Latencies {
    pub fn count(&self) -> u64 {
        self.0.len() as u64
    }

    /// In microseconds; `share` from 0 to 1.
    pub fn quantile(&self, share: f64) -> f64 {
        let at = ((self.0.len() as f64 * share) as usize).min(self.0.len().saturating_sub(1));
        self.0.get(at).map_or(0.0, |latency| latency.as_secs_f64() * 1e6)
    }
}

/// Connections take turns; one that still waits for an answer sends its next request when that has come, and its time counts.
pub async fn run(
    at: SocketAddr,
    connections: usize,
    per_second: u32,
    time: Duration,
) -> anyhow::Result<Latencies> {
    let mut tasks = JoinSet::new();
    let mut turns = Vec::new();
    for _ in 0..connections {
        let (due, mut turn) = mpsc::unbounded_channel::<Instant>();
        turns.push(due);
        let mut wire = Wire::plain(at).await?;
        wire.keep().await?;
        tasks.spawn(async move {
            let mut latencies = Vec::new();
            while let Some(due) = turn.recv().await {
                wire.keep().await?;
                latencies.push(due.elapsed());
            }
            anyhow::Ok(latencies)
        });
    }
    // A thread of its own sleeps to within 0.1 ms; timers of the runtime are ten times as coarse.
    let metronome = thread::spawn(move || {
        let (begun, step) = (Instant::now(), Duration::from_secs(1) / per_second);
        let mut due = begun;
        for turn in turns.iter().cycle() {
            if due.duration_since(begun) > time {
                break;
            }
            thread::sleep(due.saturating_duration_since(Instant::now()));
            // Its task has ended: what it returned says why.
            let _ = turn.send(due);
            due += step;
        }
    });
    let mut all = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        all.extend(ended??);
    }
    metronome.join().ok().context("the metronome ended badly")?;
    ensure!(!all.is_empty(), "no request was made");
    all.sort_unstable();
    Ok(Latencies(all))
}
