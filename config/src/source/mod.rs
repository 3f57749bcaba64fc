//! Where manifests come from: directories and files, read as a whole and watched.
//!
//! Owns which files count, how large they may be, and when a change is ready to be read. Never parses: what a file
//! says is the manifest reader's, and what becomes of a file that says nothing sensible is the registry's.

mod directory;
mod settle;
mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use directory::Directory;
pub use watch::{Moment, Watch};

/// Largest file read. Bytes. A ConfigMap holds 1 MiB at most, a generated file of 5,000 services some 3 MiB.
pub const MAX_FILE_BYTES: u64 = 16 << 20;
/// Most files read from all paths together.
pub const MAX_FILES: usize = 50_000;
/// All files together. Bytes.
pub const MAX_TOTAL_BYTES: u64 = 256 << 20;

/// The name under which [`Files`] says that a limit was passed and files were left out.
pub const LIMIT: &str = "(limit)";

/// What every file said at one moment, by the name it is reported under.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    files: BTreeMap<Arc<str>, Content>,
}

/// One file. A text that did not change between two readings is the same `Arc`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    Text(Arc<str>),
    /// There, or expected to be, but not to be had; the text says why. What it said before stays in force.
    Unreadable(Arc<str>),
}

impl Files {
    /// By name, in alphabetical order.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Content)> {
        self.files.iter()
    }

    pub fn get(&self, name: &str) -> Option<&Content> {
        self.files.get(name)
    }

    pub fn len(&self) -> usize {
        self.files.len()
    }

    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    pub fn insert(&mut self, name: impl Into<Arc<str>>, content: Content) {
        self.files.insert(name.into(), content);
    }
}

/// Texts that never were files, such as a manifest a command generates.
impl<N: Into<Arc<str>>, T: Into<Arc<str>>> FromIterator<(N, T)> for Files {
    fn from_iter<I: IntoIterator<Item = (N, T)>>(texts: I) -> Self {
        Self {
            files: texts.into_iter().map(|(name, text)| (name.into(), Content::Text(text.into()))).collect(),
        }
    }
}
