//! Watching directories: a thread that reads them again when something in them changed.
//!
//! The kernel's notifications make it quick and a slow poll makes it certain: network file systems, exhausted inotify
//! limits and links to files elsewhere notify nobody. It is the directory that is watched, never a file: editors and Kubernetes replace
//! files by renaming others over them, and the watch of a replaced file stays with the old one.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};

use super::settle::Settle;
use super::{Directory, Files};

/// How often everything is looked at without having been asked to.
pub const POLL: Duration = Duration::from_secs(5);

/// A running watch; ends, and waits for its thread, when dropped.
#[derive(Debug)]
pub struct Watch {
    signals: SyncSender<Signal>,
    thread: Option<JoinHandle<()>>,
}

enum Signal {
    Stirred,
    Stop,
}

impl Watch {
    /// Calls `changed` on a thread of its own with the whole new state whenever it differs from the last, `known` at
    /// first: what changed since `known` was read is not missed. A change is read 100 ms after the last of a burst, 1 s after
    /// its first at most.
    pub fn start(
        mut source: Directory,
        known: Files,
        changed: impl FnMut(Files) + Send + 'static,
    ) -> std::io::Result<Self> {
        // One waiting signal says as much as a thousand; the bound is for bursts of thousands of files.
        let (signals, inbox) = mpsc::sync_channel(16);
        let stirred = signals.clone();
        let thread = thread::Builder::new().name("watch-files".into()).spawn(move || {
            let eyes = Eyes::open(source.paths(), stirred);
            run(&mut source, known, &inbox, eyes, changed);
        })?;
        Ok(Self { signals, thread: Some(thread) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // The thread may have ended already, by a panic in `changed`.
        let _ = self.signals.send(Signal::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(
    source: &mut Directory,
    mut known: Files,
    inbox: &Receiver<Signal>,
    mut eyes: Eyes,
    mut changed: impl FnMut(Files),
) {
    let clock = Clock::start();
    let mut settle = Settle::default();
    // The first look comes at once: something may have changed before the watch stood.
    settle.stir(clock.now());
    let mut poll = clock.now() + POLL;
    loop {
        let next = settle.due().unwrap_or(poll).min(poll);
        match inbox.recv_timeout(next.saturating_sub(clock.now())) {
            Ok(Signal::Stirred) => settle.stir(clock.now()),
            Ok(Signal::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {}
        }
        let now = clock.now();
        let noticed = settle.due().is_some_and(|due| due <= now);
        if !noticed && now < poll {
            continue;
        }
        poll = now + POLL;
        let files = source.read();
        if files == known {
            settle = if noticed { Settle::Calm } else { settle };
        } else if noticed {
            settle = Settle::Calm;
            known = files.clone();
            changed(files);
        } else {
            // Nobody told us: the watch may be gone with a directory that was replaced. What was found may be half
            // written; it is read again once it had the time to become whole.
            eyes.reopen(source.paths());
            settle.stir(now);
        }
    }
}

/// The kernel's notifications, as far as they are to be had.
struct Eyes {
    watcher: Option<RecommendedWatcher>,
    stirred: SyncSender<Signal>,
}

impl Eyes {
    fn open(paths: &[PathBuf], stirred: SyncSender<Signal>) -> Self {
        let mut eyes = Self { watcher: None, stirred };
        eyes.reopen(paths);
        eyes
    }

    fn reopen(&mut self, paths: &[PathBuf]) {
        let stirred = self.stirred.clone();
        self.watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // An error (an overflowing queue) may stand for any change. Reading is not one: it would wake us forever.
            if event.map_or(true, |event| !event.kind.is_access()) {
                let _ = stirred.try_send(Signal::Stirred);
            }
        })
        .ok();
        let Some(watcher) = &mut self.watcher else { return };
        for path in paths {
            // What cannot be watched (a directory that is not there yet, too many watches) is left to the poll.
            let _ = if path.is_dir() {
                watcher.watch(path, RecursiveMode::Recursive)
            } else {
                watcher.watch(directory_of(path), RecursiveMode::NonRecursive)
            };
        }
    }
}

fn directory_of(file: &Path) -> &Path {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Time since the watch began. The thread belongs to no runtime, so tokio's clock is not to be had; what is decided by
/// the time is decided in `Settle`, which is told it.
#[expect(clippy::disallowed_types, reason = "a plain thread that waits on files, without a runtime")]
struct Clock(std::time::Instant);

#[expect(clippy::disallowed_types, reason = "a plain thread that waits on files, without a runtime")]
impl Clock {
    fn start() -> Self {
        Self(std::time::Instant::now())
    }

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::Content;
    use super::*;

    /// Waits for a state of the files that satisfies `want`; the poll bounds how long that can take.
    fn await_state(states: &Receiver<Files>, want: impl Fn(&Files) -> bool) -> Files {
        loop {
            let files =
                states.recv_timeout(POLL * 4).expect("a change is seen by the second poll at the latest");
            if want(&files) {
                return files;
            }
        }
    }

    fn has(files: &Files, path: &Path, text: &str) -> bool {
        files.get(path.to_str().unwrap()) == Some(&Content::Text(text.into()))
    }

    #[test]
    fn every_way_a_file_changes_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a.yaml"), dir.path().join("sub/b.yaml"));
        fs::write(&a, "1").unwrap();
        let mut source = Directory::new([dir.path()]);
        let known = source.read();
        let (sender, states) = mpsc::channel();
        // Changed after it was read and before the watch stood.
        fs::write(&a, "2").unwrap();
        let watch = Watch::start(source, known, move |files| sender.send(files).unwrap()).unwrap();
        await_state(&states, |files| has(files, &a, "2"));

        fs::write(dir.path().join("a.tmp"), "3").unwrap();
        fs::rename(dir.path().join("a.tmp"), &a).unwrap();
        await_state(&states, |files| has(files, &a, "3"));

        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(&b, "new").unwrap();
        await_state(&states, |files| has(files, &b, "new"));
        fs::write(&b, "newer").unwrap();
        await_state(&states, |files| has(files, &b, "newer"));

        fs::remove_file(&a).unwrap();
        await_state(&states, |files| files.len() == 1);

        // The whole directory replaced under its name, as `git checkout` and deployments do.
        let aside = dir.path().with_extension("aside");
        fs::rename(dir.path(), &aside).unwrap();
        fs::create_dir(dir.path()).unwrap();
        fs::write(&a, "4").unwrap();
        await_state(&states, |files| has(files, &a, "4") && files.len() == 1);
        fs::write(&a, "5").unwrap();
        await_state(&states, |files| has(files, &a, "5"));
        fs::remove_dir_all(aside).unwrap();

        drop(watch);
        assert!(states.recv().is_err(), "the thread is gone and with it the callback");
    }
}
