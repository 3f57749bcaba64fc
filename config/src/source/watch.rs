//! Watching directories: a thread that reads them again when something in them changed.
//!
//! The kernel's notifications make it quick and a slow poll makes it certain: network file systems, exhausted inotify
//! limits and links to files elsewhere notify nobody. It is the directory that is watched, never a file: editors and Kubernetes replace
//! files by renaming others over them, and the watch of a replaced file stays with the old one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use notify::event::{EventKind, ModifyKind, RenameMode};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};

use super::directory::{is_leftover, is_manifest};
use super::settle::{Change, Settle};
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

/// Whether the burst that a state of the files belongs to is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// More may follow within the burst. What is there is whole, as far as anybody knows.
    Glance,
    Settled,
}

impl Watch {
    /// Calls `changed` on a thread of its own with the whole new state whenever it differs from the last, `known` at
    /// first: what changed since `known` was read is not missed. A change is read 100 ms after the last of a burst, 1 s after
    /// its first at most.
    pub fn start(
        source: Directory,
        known: Files,
        mut changed: impl FnMut(Files) + Send + 'static,
    ) -> std::io::Result<Self> {
        Self::begin(source, known, false, move |files, _| changed(files))
    }

    /// The same, and also calls `changed` in the middle of a burst, a few milliseconds after files were renamed into place or
    /// removed and as long as no other is being written. Once the burst is over it is called again, also where nothing more changed.
    pub fn start_glancing(
        source: Directory,
        known: Files,
        changed: impl FnMut(Files, Moment) + Send + 'static,
    ) -> std::io::Result<Self> {
        Self::begin(source, known, true, changed)
    }

    fn begin(
        mut source: Directory,
        known: Files,
        glances: bool,
        changed: impl FnMut(Files, Moment) + Send + 'static,
    ) -> std::io::Result<Self> {
        // One waiting signal says as much as a thousand; the bound is for bursts of thousands of files.
        let (signals, inbox) = mpsc::sync_channel(16);
        let stirred = signals.clone();
        let thread = thread::Builder::new().name("watch-files".into()).spawn(move || {
            let eyes = Eyes::open(source.paths(), stirred);
            run(&mut source, known, &inbox, eyes, glances, changed);
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
    glances: bool,
    mut changed: impl FnMut(Files, Moment),
) {
    let clock = Clock::start();
    let mut settle = Settle::default();
    // The first look comes at once: something may have changed before the watch stood.
    settle.stir(clock.now(), Change::Part);
    let mut poll = clock.now() + POLL;
    // A glance was reported of a burst that goes on.
    let mut unsettled = false;
    loop {
        let glance = settle.glance().filter(|_| glances);
        let next = [settle.due(), glance].into_iter().flatten().fold(poll, Duration::min);
        match inbox.recv_timeout(next.saturating_sub(clock.now())) {
            Ok(Signal::Stirred) => {
                let now = clock.now();
                eyes.seen.take().for_each(|change| settle.stir(now, change));
            }
            Ok(Signal::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {}
        }
        let now = clock.now();
        let settled = settle.due().is_some_and(|due| due <= now);
        if !settled && glances && settle.glance().is_some_and(|due| due <= now) {
            let files = source.read();
            // What was begun to be written meanwhile may have been read by halves.
            eyes.seen.take().for_each(|change| settle.stir(now, change));
            let whole = settle.glance().is_some();
            settle.glanced(now, clock.now());
            if whole && files != known {
                unsettled = true;
                known = files.clone();
                changed(files, Moment::Glance);
            }
            continue;
        }
        if !settled && now < poll {
            continue;
        }
        poll = now + POLL;
        let files = source.read();
        if settled {
            settle.calm();
            if files != known || unsettled {
                unsettled = false;
                known = files.clone();
                changed(files, Moment::Settled);
            }
        } else if files != known {
            // Nobody told us: the watch may be gone with a directory that was replaced. What was found may be half
            // written; it is read again once it had the time to become whole.
            eyes.reopen(source.paths());
            settle.stir(now, Change::Part);
        }
    }
}

/// The kernel's notifications, as far as they are to be had.
struct Eyes {
    watcher: Option<RecommendedWatcher>,
    stirred: SyncSender<Signal>,
    seen: Arc<Seen>,
}

/// The kinds of change since it was last asked. Kept beside the signals, of which any but the first may be lost.
#[derive(Debug, Default)]
struct Seen {
    whole: AtomicBool,
    part: AtomicBool,
    aside: AtomicBool,
}

impl Seen {
    fn note(&self, change: Change) {
        self.flag(change).store(true, Ordering::Release);
    }

    fn take(&self) -> impl Iterator<Item = Change> {
        let seen = |change: &Change| self.flag(*change).swap(false, Ordering::AcqRel);
        [Change::Whole, Change::Part, Change::Aside].into_iter().filter(seen)
    }

    fn flag(&self, change: Change) -> &AtomicBool {
        match change {
            Change::Whole => &self.whole,
            Change::Part => &self.part,
            Change::Aside => &self.aside,
        }
    }
}

impl Eyes {
    fn open(paths: &[PathBuf], stirred: SyncSender<Signal>) -> Self {
        let mut eyes = Self { watcher: None, stirred, seen: Arc::default() };
        eyes.reopen(paths);
        eyes
    }

    fn reopen(&mut self, paths: &[PathBuf]) {
        let (stirred, seen, named) = (self.stirred.clone(), self.seen.clone(), paths.to_vec());
        self.watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // An error (an overflowing queue) may stand for any change. Reading is not one: it would wake us forever.
            let change = match &event {
                Ok(event) if event.kind.is_access() => return,
                Ok(event) => change_of(event, &named),
                Err(_) => Change::Part,
            };
            seen.note(change);
            let _ = stirred.try_send(Signal::Stirred);
        })
        .ok();
        let Some(watcher) = &mut self.watcher else { return };
        for path in paths {
            // What cannot be watched (a directory that is not there yet, too many watches) is left to the poll.
            let directory = if path.is_dir() { path } else { directory_of(path) };
            let _ = watcher.watch(directory, RecursiveMode::NonRecursive);
        }
    }
}

fn change_of(event: &notify::Event, named: &[PathBuf]) -> Change {
    let leftover = |path: &PathBuf| path.file_name().is_some_and(is_leftover);
    let counts = |path: &PathBuf| is_manifest(path) || named.contains(path);
    match event.kind {
        _ if event.paths.iter().all(leftover) => Change::Aside,
        EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(RenameMode::To | RenameMode::Both)) => {
            Change::Whole
        }
        // The other half of a rename says where to, unless that is out of sight; then it is a removal.
        EventKind::Modify(ModifyKind::Name(RenameMode::From)) => Change::Whole,
        _ if event.paths.iter().any(counts) => Change::Part,
        _ => Change::Aside,
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
        let (a, b) = (dir.path().join("a.yaml"), dir.path().join("b.yaml"));
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

    #[test]
    fn what_is_renamed_into_place_or_removed_is_seen_before_the_burst_is_over() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a.yaml"), dir.path().join("b.yaml"));
        let mut source = Directory::new([dir.path()]);
        let known = source.read();
        let (sender, states) = mpsc::channel();
        let watch = Watch::start_glancing(source, known, move |files, moment| {
            sender.send((files, moment)).unwrap();
        })
        .unwrap();
        let next = || states.recv_timeout(POLL * 4).expect("a change is seen");

        fs::write(&a, "written in place").unwrap();
        let (files, moment) = next();
        assert_eq!(moment, Moment::Settled, "a file being written may be half written");
        assert!(has(&files, &a, "written in place"));

        fs::write(dir.path().join("b.new"), "whole").unwrap();
        fs::rename(dir.path().join("b.new"), &b).unwrap();
        for want in [Moment::Glance, Moment::Settled] {
            let (files, moment) = next();
            assert_eq!(moment, want);
            assert!(has(&files, &b, "whole"));
        }
        fs::remove_file(&b).unwrap();
        for want in [Moment::Glance, Moment::Settled] {
            let (files, moment) = next();
            assert_eq!((moment, files.len()), (want, 1));
        }
        drop(watch);
    }
}
