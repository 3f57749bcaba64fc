//! The disk copy: the last good configuration, from which a proxy starts while its control plane is away.
//!
//! Owns the file: what is in it, that it is whole, who may read it (0600) and how large it may be. Never decides what is current:
//! whatever a source says replaces it. A file that cannot be read is a warning and no more. Private keys of listeners go into it only
//! where the directory is in memory, as Kubernetes mounts secrets; elsewhere HTTPS listeners wait for the control plane.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use outrigger_config::model::{DestinationName, Resource};
use outrigger_config::xds::{self, pb};
use prost::Message;
use sha2::{Digest, Sha256};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::apply::Remembered;
use crate::mesh::{Content, Known, Mesh, Shelved};
use crate::storage;

/// The copy of one proxy.
#[derive(Debug)]
pub struct Cache {
    file: PathBuf,
    /// Whose copy it is; another proxy's is not taken.
    node: String,
    keeps_keys: bool,
    remembered: Remembered,
}

/// First bytes of the file; the digit is the format.
const MAGIC: &[u8; 16] = b"outrigger copy 1";
const DIGEST: usize = 32;
/// Largest file written or read. Bytes.
const MAX_BYTES: usize = 64 << 20;
/// A change is written when no other has followed it for this long,
const QUIET: Duration = Duration::from_secs(1);
/// or after this long in any case.
const LATEST: Duration = Duration::from_secs(5);
/// How often an unchanged copy is marked as still true.
const TOUCH: Duration = Duration::from_secs(300);

impl Cache {
    /// Opens, or makes, the directory and reads what is in it. An error means that nothing can be kept there.
    pub fn open(directory: &Path, node: &str) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let file = directory.join("configuration");
        let keeps_keys = storage::is_in_memory(directory)?;
        let mut cache = Self { file, node: node.to_owned(), keeps_keys, remembered: Remembered::default() };
        match cache.read() {
            Ok(remembered) => cache.remembered = remembered,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(file = %cache.file.display(), %error, "the copy of the configuration is not used");
            }
        }
        Ok(cache)
    }

    /// What was found when it was opened.
    pub fn take_remembered(&mut self) -> Remembered {
        std::mem::take(&mut self.remembered)
    }

    fn read(&self) -> io::Result<Remembered> {
        let file = File::open(&self.file)?;
        let written = file.metadata()?.modified()?;
        let mut bytes = Vec::new();
        file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
        let invalid = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
        if bytes.len() > MAX_BYTES {
            return Err(invalid("it is too large"));
        }
        let rest = bytes.strip_prefix(MAGIC).ok_or_else(|| invalid("it is of another format"))?;
        let (digest, body) = rest.split_at_checked(DIGEST).ok_or_else(|| invalid("it is cut short"))?;
        if digest != Sha256::digest(body).as_slice() {
            return Err(invalid("it is damaged"));
        }
        let copy = Copy::decode(body).map_err(|error| invalid(&error.to_string()))?;
        if copy.node != self.node {
            return Err(invalid(&format!("it belongs to {}", copy.node)));
        }
        let shelf = copy.shelf.into_iter().filter_map(|shelved| {
            let name = DestinationName::from_resource_name(&shelved.name)?;
            let resources = shelved.resources.iter().filter_map(decoded);
            let resources = resources
                .map(|resource| {
                    let version = resource.version();
                    (resource, version)
                })
                .collect();
            Some((
                name,
                Shelved { since: SystemTime::UNIX_EPOCH + Duration::from_secs(shelved.since), resources },
            ))
        });
        Ok(Remembered {
            written: Some(written),
            shelf: shelf.collect(),
            resources: copy.resources.iter().filter_map(decoded).collect(),
        })
    }

    /// Writes what changes, for as long as the process lives.
    pub async fn keep(self, mesh: Arc<Mesh>) {
        let cache = Arc::new(self);
        let mut revision = mesh.inventory().lock().revision.subscribe();
        loop {
            let changed = timeout_at(Instant::now() + TOUCH, revision.changed()).await;
            let result = match changed {
                Ok(Ok(())) => {
                    settle(&mut revision).await;
                    let cache = cache.clone();
                    let copy = cache.copy(&mesh.inventory().lock());
                    tokio::task::spawn_blocking(move || cache.write(&copy)).await
                }
                Ok(Err(_)) => return,
                Err(_) => {
                    let cache = cache.clone();
                    let connected = mesh.inventory().lock().link.connected;
                    tokio::task::spawn_blocking(move || if connected { cache.touch() } else { Ok(()) }).await
                }
            };
            if let Err(error) = result.unwrap_or_else(|error| Err(io::Error::other(error))) {
                tracing::warn!(file = %cache.file.display(), %error, "the copy of the configuration cannot be written");
            }
        }
    }

    /// Everything there is, by reference: encoded elsewhere, as it takes a while.
    fn copy(&self, content: &Content) -> Unwritten {
        let there = content.resources.values().filter_map(|known| match known {
            Known::There { resource, .. } => Some(resource.clone()),
            Known::Absent => None,
        });
        Unwritten {
            resources: there.collect(),
            shelf: content.shelf.iter().map(|(name, shelved)| (name.clone(), shelved.clone())).collect(),
        }
    }

    fn write(&self, copy: &Unwritten) -> io::Result<()> {
        let mut message = Copy {
            node: self.node.clone(),
            resources: copy.resources.iter().filter_map(|resource| self.encoded(resource)).collect(),
            shelf: copy.shelf.iter().map(|(name, shelved)| self.shelved(name, shelved)).collect(),
        };
        if message.encoded_len() > MAX_BYTES {
            message.shelf.clear();
        }
        let body = message.encode_to_vec();
        if body.len() > MAX_BYTES - MAGIC.len() - DIGEST {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("{} bytes", body.len())));
        }
        storage::replace(&self.file, &[MAGIC, &Sha256::digest(&body), &body])
    }

    /// The source is there and says nothing new: the copy is as good as if it were written now.
    fn touch(&self) -> io::Result<()> {
        match OpenOptions::new().append(true).open(&self.file) {
            Ok(file) => file.set_modified(SystemTime::now()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn encoded(&self, resource: &Resource) -> Option<Saved> {
        let is_key = matches!(resource, Resource::Secret(_));
        (self.keeps_keys || !is_key)
            .then(|| Saved { name: resource.name(), resource: Some(xds::encode(resource)) })
    }

    fn shelved(&self, name: &DestinationName, shelved: &Shelved) -> SavedShelf {
        SavedShelf {
            name: name.resource_name(),
            since: shelved.since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs(),
            resources: shelved.resources.iter().filter_map(|(resource, _)| self.encoded(resource)).collect(),
        }
    }
}

/// Until nothing has changed for a while.
async fn settle(revision: &mut tokio::sync::watch::Receiver<u64>) {
    let latest = Instant::now() + LATEST;
    loop {
        let quiet = latest.min(Instant::now() + QUIET);
        match timeout_at(quiet, revision.changed()).await {
            Ok(Ok(())) if Instant::now() < latest => {}
            Ok(Ok(())) | Err(_) => return,
            // Nothing will change any more; it is written at its time all the same.
            Ok(Err(_)) => return sleep_until(quiet).await,
        }
    }
}

fn decoded(saved: &Saved) -> Option<Arc<Resource>> {
    let body = saved.resource.as_ref()?;
    let resource = match xds::decode(body) {
        Ok(resource) => resource,
        Err(why) => {
            tracing::warn!(name = saved.name, %why, "a resource of the copy is not used");
            return None;
        }
    };
    (resource.name() == saved.name).then(|| Arc::new(resource))
}

#[derive(Debug)]
struct Unwritten {
    resources: Vec<Arc<Resource>>,
    shelf: Vec<(DestinationName, Shelved)>,
}

/// The body of the file.
#[derive(Clone, PartialEq, Message)]
struct Copy {
    #[prost(string, tag = "1")]
    node: String,
    #[prost(message, repeated, tag = "2")]
    resources: Vec<Saved>,
    #[prost(message, repeated, tag = "3")]
    shelf: Vec<SavedShelf>,
}

#[derive(Clone, PartialEq, Message)]
struct Saved {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    resource: Option<pb::Any>,
}

/// A destination that expired.
#[derive(Clone, PartialEq, Message)]
struct SavedShelf {
    /// Of its listener.
    #[prost(string, tag = "1")]
    name: String,
    /// Seconds since 1970.
    #[prost(uint64, tag = "2")]
    since: u64,
    #[prost(message, repeated, tag = "3")]
    resources: Vec<Saved>,
}

#[cfg(test)]
mod tests;
