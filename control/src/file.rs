//! Files that are replaced whole.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Readers, and whoever comes after a crash, see the old file or the new one, never half of it. `mode` is what the file may be used for, less the process's umask.
/// It is written to `NAME.new` beside it first, of which one writer at a time is allowed.
pub fn replace(path: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let beside = path.with_file_name(format!("{}.new", name.display()));
    let named = |error: io::Error| {
        io::Error::new(error.kind(), format!("cannot write {}: {error}", beside.display()))
    };
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(named(error)),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside).map_err(named)?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(named)?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn replaces_what_is_there_and_what_a_crash_left_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        replace(&path, 0o600, b"old").unwrap();
        fs::write(dir.path().join("state.json.new"), b"half of").unwrap();
        replace(&path, 0o600, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn leaves_the_old_one_where_the_new_one_cannot_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        replace(&path, 0o600, b"old").unwrap();
        fs::create_dir(dir.path().join("state.json.new")).unwrap();
        let error = replace(&path, 0o600, b"new").unwrap_err().to_string();
        assert!(error.contains("state.json.new"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"old");
    }
}
