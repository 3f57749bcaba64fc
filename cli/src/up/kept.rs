//! A process that is kept running: started, watched, started again with backoff when it ends.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::listening;
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
    /// Its start takes longer than a start should.
    pub overdue: bool,
    /// Why it is not ready: how it ended last, or what a probe says of it.
    pub why: Option<Arc<str>>,
}

impl Condition {
    /// As the table shows it.
    pub fn word(&self) -> &'static str {
        match self {
            Self { ready: true, .. } => "Ready",
            Self { pid: None, restarts: 1.., .. } => "Restarting",
            Self { restarts: 0, overdue: false, .. } => "Starting",
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
                let pid = process.pid();
                report.send_modify(|now| now.pid = Some(pid));
                let status = tokio::select! {
                    status = process.wait() => status,
                    never = watch_readiness(standing.clone(), pid, &report) => match never {},
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
                let (last_words, in_use) = process.last_words().await;
                if !last_words.is_empty() {
                    why.push_str(&format!(": {last_words}"));
                }
                if in_use {
                    why.push_str(&format!(" ({})", spec.advice_in_use));
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
async fn watch_readiness(
    mut standing: Standing,
    group: i32,
    report: &watch::Sender<Condition>,
) -> Infallible {
    let check = standing.check();
    tokio::time::sleep(standing.initial_delay()).await;
    let begun = Instant::now();
    loop {
        let result = check.probe().await;
        standing.record(result.is_ok());
        let overdue = begun.elapsed() > STARTING;
        let why = match result {
            _ if standing.ready() => None,
            Ok(()) => Some("its probe succeeds, but not often enough in a row yet".to_owned()),
            Err(why) if overdue => Some(why + &elsewhere(group, check.target())),
            Err(why) => Some(why),
        };
        report.send_if_modified(|now| {
            let before = now.clone();
            (now.ready, now.overdue) = (standing.ready(), overdue && !standing.ready());
            // How the process before this one ended says more, until this one has had its time.
            if now.ready || now.why.is_none() || overdue {
                now.why = why.map(Into::into);
            }
            *now != before
        });
        tokio::time::sleep(standing.pause(overdue)).await;
    }
}

/// Where an app listens that does not accept where it should.
fn elsewhere(group: i32, target: Option<SocketAddr>) -> String {
    let found = listening::addresses(group);
    match target {
        Some(target) if !found.is_empty() && !found.contains(&target) => {
            let found: Vec<String> = found.iter().map(ToString::to_string).collect();
            format!(
                "; it listens at {}: tell it $(HOST) and $(PORT), or its port in `appPort` if it listens on every address",
                found.join(", ")
            )
        }
        _ => String::new(),
    }
}

/// What a process gets to become ready before that is a problem.
const STARTING: Duration = Duration::from_secs(10);

fn describe(status: std::process::ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;

    match status.signal().map(Signal::try_from) {
        Some(Ok(signal)) => format!("killed by {signal}"),
        _ => status.to_string(),
    }
}
