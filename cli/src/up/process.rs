//! A child process of the mesh: started so that it cannot outlive us, its output merged line by line, ended in order.

use std::cell::RefCell;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join_all;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::task::{JoinHandle, spawn_local};

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
    said: Rc<RefCell<Said>>,
    copying: Vec<JoinHandle<()>>,
}

/// What its output tells of its end.
#[derive(Debug, Default)]
struct Said {
    /// It wrote that an address is in use.
    in_use: bool,
    /// The last line of its standard error, cut to [`LAST_WORDS`].
    last: String,
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
        let said = Rc::new(RefCell::default());
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let out =
            out.map(|out| spawn_local(copy_lines(out, spec.name.clone(), log.clone(), said.clone(), false)));
        let err =
            err.map(|err| spawn_local(copy_lines(err, spec.name.clone(), log.clone(), said.clone(), true)));
        Ok(Self {
            child,
            group: Pid::from_raw(pid as i32),
            said,
            copying: out.into_iter().chain(err).collect(),
        })
    }

    pub fn pid(&self) -> i32 {
        self.group.as_raw()
    }

    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Once it has ended: the last line it wrote to its standard error, and whether it complained of an address in use, in the words of the
    /// operating system that every language's runtime repeats.
    pub async fn last_words(&mut self) -> (String, bool) {
        // What it wrote may still be in the pipes; whoever it left behind may hold them open.
        let _ = tokio::time::timeout(Duration::from_millis(100), join_all(&mut self.copying)).await;
        let said = self.said.borrow();
        (said.last.clone(), said.in_use)
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

/// Longest last words kept, in characters.
const LAST_WORDS: usize = 200;

async fn copy_lines(
    stream: impl AsyncRead + Unpin,
    name: String,
    log: Log,
    said: Rc<RefCell<Said>>,
    is_error: bool,
) {
    use tokio::io::AsyncReadExt;

    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut reader).take(LINE).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                let text = String::from_utf8_lossy(&line);
                let text = text.trim_end_matches(['\n', '\r']);
                log.line(&name, text);
                let mut said = said.borrow_mut();
                said.in_use |= IN_USE.iter().any(|words| text.contains(words));
                if is_error && !text.trim().is_empty() {
                    said.last = text.trim().chars().take(LAST_WORDS).collect();
                }
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
