//! A process that is kept running: started, watched, started again with backoff when it ends.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::output::Log;
use super::process::{Backoff, Process, Spec};
use super::readiness::Standing;

/// Where it is at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    pub pid: Option<i32>,
    pub ready: bool,
    /// Starts after the first.
    pub restarts: u32,
    /// Why it is not ready: how it ended last, or what a probe says of it.
    pub why: Option<Arc<str>>,
}

impl Condition {
    /// As the table shows it.
    pub fn word(&self) -> &'static str {
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
        let (report, condition) = watch::channel(Condition::default());
        let (stop, stopped) = mpsc::channel(1);
        let task = tokio::task::spawn_local(keep(spec, standing, log, report, stopped));
        Self { condition, stop, task }
    }

    pub fn condition(&self) -> Condition {
        self.condition.borrow().clone()
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
        let why = match Process::start(&spec, &log) {
            Ok(mut process) => {
                report.send_modify(|now| now.pid = Some(process.pid()));
                let status = tokio::select! {
                    status = process.wait() => status,
                    never = watch_readiness(standing.clone(), &report) => match never {},
                    grace = stopped.recv() => {
                        process.stop(grace.unwrap_or_default()).await;
                        report.send_modify(|now| (now.pid, now.ready) = (None, false));
                        return;
                    }
                };
                // Whatever it forked ends with it.
                process.stop(Duration::ZERO).await;
                let mut why = match status {
                    Ok(status) => format!("ended: {}", describe(status)),
                    Err(error) => format!("is lost: {error}"),
                };
                if process.missed_an_address() {
                    why.push_str(": an address it wants is in use; ");
                    why.push_str(&spec.advice_in_use);
                }
                why
            }
            Err(error) => format!("cannot be started: {error}"),
        };
        log.say(&format!("{} {why}", spec.name));
        report.send_modify(|now| (now.pid, now.ready, now.why) = (None, false, Some(why.into())));
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
async fn watch_readiness(mut standing: Standing, report: &watch::Sender<Condition>) -> Infallible {
    let check = standing.check();
    let begun = Instant::now();
    tokio::time::sleep(standing.initial_delay()).await;
    loop {
        let result = check.probe().await;
        standing.record(result.is_ok());
        report.send_if_modified(|now| {
            let before = (now.ready, now.why.clone());
            now.ready = standing.ready();
            match result {
                _ if now.ready => now.why = None,
                // How the process before this one ended says more, until this one has had its time.
                Err(why) if now.why.is_none() || begun.elapsed() > STARTING => now.why = Some(why.into()),
                _ => {}
            }
            before != (now.ready, now.why.clone())
        });
        tokio::time::sleep(standing.pause()).await;
    }
}

/// What a process gets to become ready before its probes are the reason why it is not.
const STARTING: Duration = Duration::from_secs(5);

fn describe(status: std::process::ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;

    match status.signal().map(Signal::try_from) {
        Some(Ok(signal)) => format!("killed by {signal}"),
        _ => status.to_string(),
    }
}
