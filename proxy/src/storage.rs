//! What a proxy keeps in files across its restarts: whether a place is in memory, and how a file is put there whole.
//!
//! Never decides what is kept, nor where: `discovery::cache` and `identity::kept` do.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::sys::statfs::{TMPFS_MAGIC, statfs};

/// Whether what is written to this directory stays in memory (tmpfs). Private keys go nowhere else. Fails where there is no such directory.
pub fn is_in_memory(directory: &Path) -> io::Result<bool> {
    Ok(statfs(directory)?.filesystem_type() == TMPFS_MAGIC)
}

/// Puts a file with this content, readable by its owner alone (0600), in place of the one that is there: who reads sees the old or the new, never
/// a part.
pub(crate) fn replace(file: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let beside = file.with_extension("new");
    let _ = fs::remove_file(&beside);
    let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    for part in parts {
        out.write_all(part)?;
    }
    out.sync_data()?;
    fs::rename(&beside, file)
}
