//! A child process of the mesh: started so that it cannot outlive us, its output merged line by line, ended in order.

use std::cell::Cell;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::rc::Rc;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};

use super::output::Log;

/// What to start.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Prefix of its lines in the merged log.
    pub name: String,
    pub program: OsString,
    pub arguments: Vec<String>,
    pub environment: Vec<(String, OsString)>,
    pub working_directory: Option<PathBuf>,
    /// What to do when it ends because an address it wants is in use.
    pub advice_in_use: String,
}

/// A running child, the leader of a process group of its own.
#[derive(Debug)]
pub struct Process {
    child: Child,
    group: Pid,
    /// It wrote that an address is in use.
    in_use: Rc<Cell<bool>>,
}

impl Process {
    /// Must be called on the main thread: the parent-death signal is sent when the thread that forked ends.
    pub fn start(spec: &Spec, log: &Log) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["exec", "--parent", &std::process::id().to_string(), "--"])
            .arg(&spec.program)
            .args(&spec.arguments)
            .envs(spec.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        if let Some(directory) = &spec.working_directory {
            command.current_dir(directory);
        }
        let mut child = command.spawn()?;
        let pid = child.id().ok_or_else(|| io::Error::other("the process ended at once"))?;
        let in_use = Rc::new(Cell::new(false));
        let copy = |stream: Box<dyn AsyncRead + Unpin>| {
            tokio::task::spawn_local(copy_lines(stream, spec.name.clone(), log.clone(), in_use.clone()));
        };
        if let Some(out) = child.stdout.take() {
            copy(Box::new(out));
        }
        if let Some(err) = child.stderr.take() {
            copy(Box::new(err));
        }
        Ok(Self { child, group: Pid::from_raw(pid as i32), in_use })
    }

    pub fn pid(&self) -> i32 {
        self.group.as_raw()
    }

    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Whether it complained of an address in use, in the words of the operating system, which every language's runtime repeats.
    pub fn missed_an_address(&self) -> bool {
        self.in_use.get()
    }

    /// SIGTERM to its group, and SIGKILL to what is left of it after `grace`.
    pub async fn stop(&mut self, grace: Duration) {
        self.signal(Signal::SIGTERM);
        if tokio::time::timeout(grace, self.child.wait()).await.is_err() {
            self.signal(Signal::SIGKILL);
            let _ = self.child.wait().await;
        }
        // What it forked and left behind is still in its group.
        self.signal(Signal::SIGKILL);
    }

    /// An error means that nobody is left to be told.
    fn signal(&self, signal: Signal) {
        // The group exists from the moment `outrigger exec` made it; before that only the child itself does.
        if killpg(self.group, signal).is_err() && self.child.id().is_some() {
            let _ = nix::sys::signal::kill(self.group, signal);
        }
    }
}

/// How programs say EADDRINUSE.
const IN_USE: [&str; 3] = ["ddress already in use", "ddress in use", "EADDRINUSE"];

/// Longest line kept whole, in bytes; a longer one is cut into several.
const LINE: u64 = 16 * 1024;

async fn copy_lines(stream: Box<dyn AsyncRead + Unpin>, name: String, log: Log, in_use: Rc<Cell<bool>>) {
    use tokio::io::AsyncReadExt;

    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut reader).take(LINE).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                let text = String::from_utf8_lossy(&line);
                if IN_USE.iter().any(|words| text.contains(words)) {
                    in_use.set(true);
                }
                log.line(&name, text.trim_end_matches(['\n', '\r']));
            }
        }
    }
}

/// Time to wait before the next start of something that keeps ending.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(100);
    const MOST: Duration = Duration::from_secs(10);
    /// Whoever ran this long has started well.
    const STEADY: Duration = Duration::from_secs(10);

    /// `ran` is how long the last run lasted.
    pub fn next(&mut self, ran: Duration) -> Duration {
        if ran >= Self::STEADY {
            self.failures = 0;
        }
        let wait = Self::FIRST.saturating_mul(2_u32.saturating_pow(self.failures)).min(Self::MOST);
        self.failures = self.failures.saturating_add(1);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_ten_seconds_and_start_again_after_a_steady_run() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..9).map(|_| backoff.next(Duration::ZERO).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        assert_eq!(backoff.next(Duration::from_secs(11)).as_millis(), 100);
    }
}
