//! A process that is kept running: started, watched, started again with backoff when it ends.

use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::output::Log;
use super::process::{Backoff, Process, Spec};
use super::readiness::Standing;

/// Where it is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition {
    pub pid: Option<i32>,
    pub ready: bool,
    /// Starts after the first.
    pub restarts: u32,
}

impl Condition {
    /// As the table shows it.
    pub fn word(self) -> &'static str {
        match self {
            Self { ready: true, .. } => "Ready",
            Self { pid: None, restarts: 1.., .. } => "Restarting",
            Self { restarts: 0, .. } => "Starting",
            Self { .. } => "NotReady",
        }
    }
}

/// Ends its process when stopped, or (at once) when dropped.
#[derive(Debug)]
pub struct Kept {
    condition: watch::Receiver<Condition>,
    stop: mpsc::Sender<Duration>,
    task: JoinHandle<()>,
}

impl Kept {
    pub fn start(spec: Spec, standing: Standing, log: Log) -> Self {
        let (report, condition) = watch::channel(Condition { pid: None, ready: false, restarts: 0 });
        let (stop, stopped) = mpsc::channel(1);
        let task = tokio::task::spawn_local(keep(spec, standing, log, report, stopped));
        Self { condition, stop, task }
    }

    pub fn condition(&self) -> Condition {
        *self.condition.borrow()
    }

    /// Until the condition is another one than was last seen here.
    pub async fn changed(&mut self) {
        if self.condition.changed().await.is_err() {
            // Nothing is left to change; whoever waits is told by other means.
            std::future::pending::<()>().await;
        }
        self.condition.borrow_and_update();
    }

    /// SIGTERM, and SIGKILL after `grace`.
    pub async fn stop(mut self, grace: Duration) {
        let _ = self.stop.send(grace).await;
        let _ = (&mut self.task).await;
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn keep(
    spec: Spec,
    standing: Standing,
    log: Log,
    report: watch::Sender<Condition>,
    mut stopped: mpsc::Receiver<Duration>,
) {
    let mut backoff = Backoff::default();
    loop {
        let begun = Instant::now();
        match Process::start(&spec, &log) {
            Ok(mut process) => {
                report.send_modify(|now| now.pid = Some(process.pid()));
                tokio::select! {
                    status = process.wait() => match status {
                        Ok(status) => log.say(&format!("{} ended: {}", spec.name, describe(status))),
                        Err(error) => log.say(&format!("{} is lost: {error}", spec.name)),
                    },
                    () = watch_readiness(standing.clone(), &report) => {}
                    grace = stopped.recv() => {
                        process.stop(grace.unwrap_or_default()).await;
                        report.send_modify(|now| (now.pid, now.ready) = (None, false));
                        return;
                    }
                }
                // Whatever it forked ends with it.
                process.stop(Duration::ZERO).await;
            }
            Err(error) => log.say(&format!("{} cannot be started: {error}", spec.name)),
        }
        report.send_modify(|now| (now.pid, now.ready) = (None, false));
        let wait = backoff.next(begun.elapsed());
        log.say(&format!("{} starts again in {wait:?}", spec.name));
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = stopped.recv() => return,
        }
        report.send_modify(|now| now.restarts += 1);
    }
}

/// Probes as long as the process lives.
async fn watch_readiness(mut standing: Standing, report: &watch::Sender<Condition>) {
    let check = standing.check();
    tokio::time::sleep(standing.initial_delay()).await;
    loop {
        standing.record(check.probe().await);
        report
            .send_if_modified(|now| std::mem::replace(&mut now.ready, standing.ready()) != standing.ready());
        tokio::time::sleep(standing.pause()).await;
    }
}

fn describe(status: std::process::ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;

    match status.signal().map(Signal::try_from) {
        Some(Ok(signal)) => format!("killed by {signal}"),
        _ => status.to_string(),
    }
}
