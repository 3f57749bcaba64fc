//! The certificate across restarts: key, chain and roots in one file, in memory only.
//!
//! Owns the file (0600) and the check that it is on a memory-backed file system (tmpfs): a private key never goes to a disk.

use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use super::authority::{Chain, private};
use super::{Bundle, Svid, files};
use crate::storage;

/// Where the file is, and whose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    directory: Option<PathBuf>,
    owner: String,
}

/// Everything that is needed to be somebody, DER.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Material {
    owner: String,
    key: Vec<u8>,
    chain: Vec<Vec<u8>>,
    roots: Vec<Vec<u8>>,
}

impl Kept {
    /// In `directory`, for the proxy called `owner`; without one it is kept nowhere.
    pub fn new(directory: Option<PathBuf>, owner: impl Into<String>) -> Self {
        Self { directory, owner: owner.into() }
    }

    pub(super) fn read(&self) -> Result<Option<Material>, String> {
        let Some(directory) = &self.directory else { return Ok(None) };
        in_memory(directory)?;
        let file = directory.join(FILE);
        match fs::symlink_metadata(&file) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            _ => {}
        }
        let bytes = files::read(&file)?;
        let material: Material =
            serde_json::from_slice(&bytes).map_err(|error| format!("{}: {error}", file.display()))?;
        if material.owner != self.owner {
            return Err(format!("{}: it belongs to {}", file.display(), material.owner));
        }
        Ok(Some(material))
    }

    pub(super) fn write(&self, material: &Material) -> Result<(), String> {
        let Some(directory) = &self.directory else { return Err("no directory is given for it".into()) };
        in_memory(directory)?;
        let material = Material { owner: self.owner.clone(), ..material.clone() };
        let text = serde_json::to_vec(&material).map_err(|error| error.to_string())?;
        let file = directory.join(FILE);
        storage::replace(&file, &[&text]).map_err(|error| format!("{}: {error}", file.display()))
    }
}

const FILE: &str = "identity";

/// Makes the directory if it is not there.
fn in_memory(directory: &Path) -> Result<(), String> {
    let at = |what: &dyn std::fmt::Display| format!("{}: {what}", directory.display());
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(|error| at(&error))?;
    let is_in_memory = storage::is_in_memory(directory).map_err(|error| at(&error))?;
    if is_in_memory { Ok(()) } else { Err(at(&"it is not in memory (tmpfs)")) }
}

impl Material {
    pub(super) fn new(key: Vec<u8>, chain: Chain) -> Self {
        let chain = chain.iter().map(|certificate| certificate.to_vec()).collect();
        Self { owner: String::new(), key, chain, roots: Vec::new() }
    }

    pub(super) fn with_roots(&self, bundle: &Bundle) -> Self {
        Self { roots: bundle.iter().map(|root| root.to_vec()).collect(), ..self.clone() }
    }

    pub(super) fn svid(&self, provider: &CryptoProvider) -> Result<(Svid, Bundle), String> {
        let owned = |all: &[Vec<u8>]| all.iter().cloned().map(CertificateDer::from).collect::<Vec<_>>();
        let svid = Svid::new(owned(&self.chain), private(&self.key)?, provider)
            .map_err(|error| error.to_string())?;
        Ok((svid, Bundle::new(owned(&self.roots))))
    }
}
