//! Where the state of a CA is kept, so that any number of control planes and commands work on one.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::state::State;
use crate::file;

/// A state, and what tells it from the next.
#[derive(Clone, Debug)]
pub struct Stored {
    pub state: State,
    pub revision: Revision,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision(Arc<str>);

/// Keeps a state that several processes read and write.
#[tonic::async_trait]
pub trait CaStore: Send + Sync + fmt::Debug + 'static {
    /// `None` where nothing is kept yet.
    async fn load(&self) -> io::Result<Option<Stored>>;

    /// Replaces what `load` gave; `None` for nothing. False where somebody else was faster: load again.
    async fn replace(&self, expected: Option<&Revision>, state: &State) -> io::Result<bool>;
}

/// A directory: `ca.json`, readable by its owner alone and replaced as a whole, and beside it `roots.pem`, the roots that are believed,
/// for whoever has to begin somewhere.
#[derive(Clone, Debug)]
pub struct Directory {
    path: PathBuf,
}

const STATE: &str = "ca.json";
const ROOTS: &str = "roots.pem";
const LOCK: &str = "lock";

/// Bytes; some roots of 2 KiB each, twice with their keys.
const LARGEST: u64 = 1 << 20;

impl Directory {
    /// Made, for its owner alone, if it is not there.
    pub fn open(path: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| named(path, &error))?;
        Ok(Self { path: path.to_owned() })
    }

    /// The roots that are believed, in PEM.
    pub fn roots_file(&self) -> PathBuf {
        Self::roots_in(&self.path)
    }

    /// The same of a directory that need not be there yet.
    pub fn roots_in(path: &Path) -> PathBuf {
        path.join(ROOTS)
    }

    fn read(&self) -> io::Result<Option<Stored>> {
        let path = self.path.join(STATE);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(named(&path, &error)),
        };
        let about = file.metadata()?;
        if about.permissions().mode() & 0o077 != 0 {
            let text = format!("{}: others may read the keys in it; chmod 600", path.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        if about.len() > LARGEST {
            return Err(wrong(&path, "it is too large"));
        }
        let text = fs::read(&path).map_err(|error| named(&path, &error))?;
        let state = State::from_json(&text).map_err(|error| wrong(&path, &error.to_string()))?;
        Ok(Some(Stored { state, revision: revision(&text) }))
    }

    /// Whoever died between the two files left the roots of the state before.
    fn mend(&self, state: &State) -> io::Result<()> {
        if self.has_roots_of(state)? {
            return Ok(());
        }
        let _lock = self.lock()?;
        match self.read()? {
            Some(stored) if !self.has_roots_of(&stored.state)? => self.put_roots(&stored.state),
            _ => Ok(()),
        }
    }

    fn has_roots_of(&self, state: &State) -> io::Result<bool> {
        let pem = pem(state)?;
        Ok(fs::read(self.roots_file()).is_ok_and(|there| there == pem.as_bytes()))
    }

    fn put_roots(&self, state: &State) -> io::Result<()> {
        self.put(ROOTS, 0o644, pem(state)?.as_bytes())
    }

    /// Held until it is dropped, and by nobody who died.
    fn lock(&self) -> io::Result<File> {
        let path = self.path.join(LOCK);
        let options = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let lock = options.map_err(|error| named(&path, &error))?;
        lock.lock()?;
        Ok(lock)
    }

    fn write(&self, expected: Option<&Revision>, state: &State) -> io::Result<bool> {
        let _lock = self.lock()?;
        if self.read()?.map(|stored| stored.revision).as_ref() != expected {
            return Ok(false);
        }
        self.put(STATE, 0o600, &state.to_json())?;
        self.put_roots(state)?;
        File::open(&self.path)?.sync_all()?;
        Ok(true)
    }

    /// Called under the lock.
    fn put(&self, name: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        file::replace(&self.path.join(name), mode, content)
    }
}

#[tonic::async_trait]
impl CaStore for Directory {
    async fn load(&self) -> io::Result<Option<Stored>> {
        let this = self.clone();
        let load = move || {
            let stored = this.read()?;
            if let Some(stored) = &stored {
                this.mend(&stored.state)?;
            }
            Ok(stored)
        };
        tokio::task::spawn_blocking(load).await.map_err(io::Error::other)?
    }

    async fn replace(&self, expected: Option<&Revision>, state: &State) -> io::Result<bool> {
        let (this, expected, state) = (self.clone(), expected.cloned(), state.clone());
        tokio::task::spawn_blocking(move || this.write(expected.as_ref(), &state))
            .await
            .map_err(io::Error::other)?
    }
}

fn pem(state: &State) -> io::Result<String> {
    let roots = state.roots().map_err(io::Error::other)?;
    Ok(roots.iter().map(|root| root.pem()).collect())
}

fn revision(text: &[u8]) -> Revision {
    Revision(Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect::<String>().into())
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn wrong(path: &Path, what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{}: {what}", path.display()))
}

#[cfg(test)]
mod tests;
