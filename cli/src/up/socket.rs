//! The command socket of a running mesh: how `down`, `restart` and `status` reach it.
//!
//! A Unix socket in the run folder (mode 0700); one JSON line in, JSON lines out, the last one an [`Answer`].

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

use super::mesh::MeshReport;
use super::network::{Network, run_root};

pub const NAME: &str = "up.sock";

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Request {
    Status,
    Restart { workload: String },
    Down,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Answer {
    /// Not the last line: something to show meanwhile.
    Progress(String),
    Status(Box<MeshReport>),
    Done(String),
    Failed(String),
}

/// A request with the way back to who asked.
#[derive(Debug)]
pub struct Asked {
    pub request: Request,
    pub answers: mpsc::Sender<Answer>,
}

/// Serves until dropped; requests arrive one by one at `asked`.
pub fn serve(run_dir: &Path, asked: mpsc::Sender<Asked>) -> anyhow::Result<()> {
    let path = run_dir.join(NAME);
    // Left by a mesh that was killed; the lock of the network says it is gone.
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).with_context(|| format!("listening on {}", path.display()))?;
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::task::spawn_local(converse(stream, asked.clone()));
        }
    });
    Ok(())
}

async fn converse(stream: UnixStream, asked: mpsc::Sender<Asked>) {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    if BufReader::new(read.take(64 * 1024)).read_line(&mut line).await.is_err() {
        return;
    }
    let Ok(request) = serde_json::from_str(&line) else { return };
    let (answers, mut outgoing) = mpsc::channel(16);
    if asked.send(Asked { request, answers }).await.is_err() {
        return;
    }
    while let Some(answer) = outgoing.recv().await {
        let Ok(mut text) = serde_json::to_vec(&answer) else { return };
        text.push(b'\n');
        if write.write_all(&text).await.is_err() {
            return;
        }
    }
}

/// Asks the mesh of `run_dir`; shows progress as it comes and returns the last answer.
pub async fn ask(
    run_dir: &Path,
    request: &Request,
    mut progress: impl FnMut(&str),
) -> anyhow::Result<Answer> {
    let path = run_dir.join(NAME);
    let stream =
        UnixStream::connect(&path).await.with_context(|| format!("connecting to {}", path.display()))?;
    let (read, mut write) = stream.into_split();
    let mut text = serde_json::to_vec(request)?;
    text.push(b'\n');
    write.write_all(&text).await?;
    let mut lines = BufReader::new(read).lines();
    while let Some(line) = lines.next_line().await? {
        match serde_json::from_str(&line)? {
            Answer::Progress(text) => progress(&text),
            last => return Ok(last),
        }
    }
    bail!("the mesh ended before it answered")
}

/// Waits until nothing of the mesh is left, once it has said that it ends.
pub async fn ended(run_dir: &Path) {
    while Network::is_held(run_dir) {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

/// What runs in the mesh of `run_dir`.
pub async fn status(run_dir: &Path) -> anyhow::Result<MeshReport> {
    match ask(run_dir, &Request::Status, |_| {}).await? {
        Answer::Status(mesh) => Ok(*mesh),
        _ => bail!("the mesh did not answer with its status"),
    }
}

/// The run folders of the meshes that can be asked now.
pub fn running() -> anyhow::Result<Vec<PathBuf>> {
    let root = run_root()?;
    let mut found: Vec<PathBuf> = std::fs::read_dir(&root)
        .with_context(|| format!("reading {}", root.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        // One that begins or ends has no socket.
        .filter(|path| Network::is_held(path) && path.join(NAME).exists())
        .collect();
    found.sort();
    Ok(found)
}

/// The one mesh that is meant: of `--network`, or of the directory, or the only one.
pub async fn choose(network: Option<u8>, directory: Option<&Path>) -> anyhow::Result<PathBuf> {
    let mut found = running()?;
    if let Some(second) = network {
        found.retain(|path| path.ends_with(format!("127.{second}")));
    }
    if let Some(directory) = directory {
        let wanted = directory.canonicalize().with_context(|| format!("reading {}", directory.display()))?;
        let mut matching = Vec::new();
        for run_dir in found {
            if let Answer::Status(report) = ask(&run_dir, &Request::Status, |_| {}).await?
                && report.directories.contains(&wanted)
            {
                matching.push(run_dir);
            }
        }
        found = matching;
    }
    match found.as_slice() {
        [] => bail!("no such mesh is running; `outrigger up DIR` starts one"),
        [one] => Ok(one.clone()),
        several => bail!(
            "{} meshes are running; name one with --network: {}",
            several.len(),
            several
                .iter()
                .filter_map(|path| path.file_name()?.to_str()?.strip_prefix("127."))
                .collect::<Vec<_>>()
                .join(", ")
        ),
    }
}
