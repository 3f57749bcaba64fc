//! Load at a fixed rate, whatever becomes of the requests: an open loop, as many callers make it who know nothing of each other.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::ensure;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::client::Client;

/// What became of one request.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    pub begun: Instant,
    pub took: Duration,
    pub ok: bool,
}

pub struct Load {
    answers: Arc<Mutex<Vec<Answer>>>,
    ticking: JoinHandle<()>,
}

impl Load {
    /// `rate` requests a second, each over a connection that no other uses at that time.
    pub fn start(server: SocketAddr, rate: u32) -> Self {
        let answers = Arc::new(Mutex::new(Vec::new()));
        let idle: Arc<Mutex<Vec<Client>>> = Arc::default();
        let log = Arc::clone(&answers);
        let ticking = tokio::spawn(async move {
            let mut ticks = interval(Duration::from_secs(1) / rate);
            // After the machine was busy elsewhere, what is owed comes at once.
            ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
            loop {
                ticks.tick().await;
                let (log, idle) = (Arc::clone(&log), Arc::clone(&idle));
                tokio::spawn(async move {
                    let begun = Instant::now();
                    let ok = timeout(PATIENCE, once(server, &idle)).await.is_ok_and(|done| done.is_ok());
                    let answer = Answer { begun, took: begun.elapsed(), ok };
                    log.lock().expect("nobody panics with it").push(answer);
                });
            }
        });
        Self { answers, ticking }
    }

    /// The requests that began within this time and have ended.
    pub fn between(&self, from: Instant, to: Instant) -> Vec<Answer> {
        let answers = self.answers.lock().expect("nobody panics with it");
        answers.iter().filter(|answer| (from..to).contains(&answer.begun)).copied().collect()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.ticking.abort();
    }
}

/// How long a caller waits: longer than either proxy lets a request take.
pub const PATIENCE: Duration = Duration::from_secs(6);

async fn once(server: SocketAddr, idle: &Mutex<Vec<Client>>) -> anyhow::Result<()> {
    let kept = idle.lock().expect("nobody panics with it").pop();
    let mut client = match kept.filter(Client::is_open) {
        Some(client) => client,
        None => Client::connect(server).await?,
    };
    let (status, _) = client.get("/").await?;
    idle.lock().expect("nobody panics with it").push(client);
    ensure!(status == 200, "{status}");
    Ok(())
}
