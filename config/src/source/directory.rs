//! Reading directories and files of manifests.
//!
//! In a directory every `.yaml`, `.yml` and `.json` file counts, as it does for `kubectl apply -f`; directories below it do not, so that they can
//! hold what is meant for somebody else. Names that begin with a dot do not count either: they are hidden files, and what is behind the
//! links of a Kubernetes volume, which would be read twice. Nor do editors' leftovers. A path that names a file is read
//! whatever it is called.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{Content, Files, LIMIT, MAX_FILE_BYTES, MAX_FILES, MAX_TOTAL_BYTES};

/// One or more directories or files, and what is remembered of them between two readings.
#[derive(Debug)]
pub struct Directory {
    paths: Vec<PathBuf>,
    seen: BTreeMap<PathBuf, Seen>,
}

impl Directory {
    pub fn new(paths: impl IntoIterator<Item = impl Into<PathBuf>>) -> Self {
        Self { paths: paths.into_iter().map(Into::into).collect(), seen: BTreeMap::new() }
    }

    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// Reads everything; blocks on the file system. Files whose metadata did not change are not read again. Never
    /// fails as a whole: what cannot be read is [`Content::Unreadable`] under its own name.
    pub fn read(&mut self) -> Files {
        let mut reading = Reading { before: std::mem::take(&mut self.seen), ..Reading::default() };
        for path in &self.paths {
            reading.path(path, Named::ByUser);
        }
        self.seen = reading.seen;
        reading.files
    }
}

/// A file as it was last read.
#[derive(Clone, Debug)]
struct Seen {
    stamp: Stamp,
    /// A change within the clock's granularity of the reading would leave the stamp as it is.
    settled: bool,
    text: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// Coarser than the time stamps of any file system in use (FAT: 2 s).
const STAMP_GRANULARITY: Duration = Duration::from_secs(3);

#[derive(Clone, Copy, PartialEq)]
enum Named {
    ByUser,
    ByDirectory,
}

#[derive(Default)]
struct Reading {
    before: BTreeMap<PathBuf, Seen>,
    seen: BTreeMap<PathBuf, Seen>,
    files: Files,
    bytes: u64,
}

impl Reading {
    fn path(&mut self, path: &Path, named: Named) {
        // Follows links: Kubernetes volumes consist of them.
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            // Between the listing and now the file was deleted or renamed, or a link has no target.
            Err(e) if e.kind() == io::ErrorKind::NotFound && named == Named::ByDirectory => return,
            Err(e) => return self.unreadable(path, e.to_string()),
        };
        if metadata.is_dir() {
            if named == Named::ByUser {
                self.directory(path);
            }
            return;
        }
        if named == Named::ByDirectory && !is_manifest(path) {
            return;
        }
        if !metadata.is_file() {
            return self.unreadable(path, "neither a file nor a directory");
        }
        self.file(path, &metadata);
    }

    fn directory(&mut self, path: &Path) {
        let entries = match fs::read_dir(path).and_then(Iterator::collect::<io::Result<Vec<_>>>) {
            Ok(entries) => entries,
            Err(e) => return self.unreadable(path, e.to_string()),
        };
        let mut names: Vec<_> = entries.into_iter().map(|entry| entry.file_name()).collect();
        names.sort_unstable();
        for name in names {
            if !is_leftover(&name) {
                self.path(&path.join(&name), Named::ByDirectory);
            }
        }
    }

    fn file(&mut self, path: &Path, metadata: &Metadata) {
        if self.files.len() >= MAX_FILES {
            return self.over(format!("more than {MAX_FILES} files"));
        }
        let stamp = Stamp::of(metadata);
        let known = self.before.remove(path);
        let seen = match known {
            Some(seen) if seen.settled && seen.stamp == stamp => seen,
            known => {
                let text = match read_text(path) {
                    Ok(text) => text,
                    Err(reason) => return self.unreadable(path, reason),
                };
                let text = match known {
                    Some(seen) if *seen.text == *text => seen.text,
                    _ => text.into(),
                };
                Seen { settled: has_settled(metadata), stamp, text }
            }
        };
        self.bytes += seen.text.len() as u64;
        if self.bytes > MAX_TOTAL_BYTES {
            return self.over(format!("more than {} MiB of manifests", MAX_TOTAL_BYTES >> 20));
        }
        self.files.insert(name_of(path), Content::Text(seen.text.clone()));
        self.seen.insert(path.to_owned(), seen);
    }

    fn unreadable(&mut self, path: &Path, reason: impl Into<Arc<str>>) {
        self.files.insert(name_of(path), Content::Unreadable(reason.into()));
    }

    /// One line for all that is too much, instead of one a file.
    fn over(&mut self, reason: String) {
        self.files.insert(LIMIT, Content::Unreadable(format!("{reason}; the rest is not read").into()));
    }
}

fn read_text(path: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    // A file that grows while it is read must not pass the limit either.
    File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|e| e.to_string())?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(format!("larger than {} MiB", MAX_FILE_BYTES >> 20));
    }
    String::from_utf8(bytes).map_err(|e| format!("not UTF-8 at byte {}", e.utf8_error().valid_up_to()))
}

fn has_settled(metadata: &Metadata) -> bool {
    metadata
        .modified()
        .ok()
        .and_then(|modified| SystemTime::now().duration_since(modified).ok())
        .is_some_and(|age| age > STAMP_GRANULARITY)
}

pub(super) fn is_manifest(path: &Path) -> bool {
    let extension = path.extension().and_then(OsStr::to_str).unwrap_or_default();
    ["yaml", "yml", "json"].iter().any(|known| extension.eq_ignore_ascii_case(known))
}

/// Hidden files, Kubernetes' `..data`, and what editors leave: `x~`, `#x#`, `.x.swp`, `4913`.
pub(super) fn is_leftover(name: &OsStr) -> bool {
    let bytes = name.as_encoded_bytes();
    bytes.starts_with(b".") || bytes.ends_with(b"~") || bytes.starts_with(b"#")
}

fn name_of(path: &Path) -> Arc<str> {
    path.to_string_lossy().into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn names(files: &Files, root: &Path) -> Vec<String> {
        files
            .iter()
            .map(|(name, _)| {
                name.strip_prefix(root.to_str().unwrap()).unwrap().trim_start_matches('/').to_owned()
            })
            .collect()
    }

    #[test]
    fn what_counts_as_a_manifest() {
        let dir = tempfile::tempdir().unwrap();
        for (name, _why) in [
            ("b.yaml", "read"),
            ("a.yml", "read"),
            ("c.JSON", "read in any case"),
            ("sub/d.yaml", "of a directory below"),
            (".hidden.yaml", "hidden"),
            (".b.yaml.swp", "vim"),
            ("b.yaml~", "a backup"),
            ("#b.yaml#", "emacs"),
            ("notes.txt", "no manifest"),
        ] {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        symlink("missing", dir.path().join("dangling.yaml")).unwrap();
        let files = Directory::new([dir.path()]).read();
        assert_eq!(names(&files, dir.path()), ["a.yml", "b.yaml", "c.JSON"]);
    }

    #[test]
    fn a_kubernetes_volume_is_read_once() {
        let dir = tempfile::tempdir().unwrap();
        for (version, text) in [("..2026_1", "one"), ("..2026_2", "two")] {
            fs::create_dir(dir.path().join(version)).unwrap();
            fs::write(dir.path().join(version).join("mesh.yaml"), text).unwrap();
        }
        symlink("..2026_1", dir.path().join("..data")).unwrap();
        symlink("..data/mesh.yaml", dir.path().join("mesh.yaml")).unwrap();
        let mut source = Directory::new([dir.path()]);
        let files = source.read();
        assert_eq!(names(&files, dir.path()), ["mesh.yaml"]);
        symlink("..2026_2", dir.path().join("..data_tmp")).unwrap();
        fs::rename(dir.path().join("..data_tmp"), dir.path().join("..data")).unwrap();
        let (_, content) = source.read().iter().next().map(|(n, c)| (n.clone(), c.clone())).unwrap();
        assert_eq!(content, Content::Text("two".into()));
    }

    #[test]
    fn what_cannot_be_read_is_said_under_its_own_name() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("good.yaml"), "x").unwrap();
        fs::write(dir.path().join("latin1.yaml"), [b'a', 0xe9]).unwrap();
        let huge = File::create(dir.path().join("huge.yaml")).unwrap();
        huge.set_len(MAX_FILE_BYTES + 1).unwrap();
        let missing = dir.path().join("nowhere");
        let files = Directory::new([dir.path(), &missing]).read();
        let said = |name: &str| match files.get(dir.path().join(name).to_str().unwrap()) {
            Some(Content::Unreadable(reason)) => reason.to_string(),
            other => panic!("{name}: {other:?}"),
        };
        assert_eq!(said("latin1.yaml"), "not UTF-8 at byte 1");
        assert_eq!(said("huge.yaml"), "larger than 16 MiB");
        assert!(said("nowhere").contains("No such file"), "{}", said("nowhere"));
        assert_eq!(files.len(), 4, "and the good one is there");
    }

    #[test]
    fn unchanged_texts_are_shared_between_readings() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.yaml");
        fs::write(&path, "x").unwrap();
        let mut source = Directory::new([dir.path()]);
        let text = |files: Files| match files.iter().next() {
            Some((_, Content::Text(text))) => text.clone(),
            other => panic!("{other:?}"),
        };
        let first = text(source.read());
        assert!(Arc::ptr_eq(&first, &text(source.read())));
        // Same length, and the same time stamp as far as a coarse clock can tell.
        let stamp = fs::metadata(&path).unwrap().modified().unwrap();
        fs::write(&path, "y").unwrap();
        File::options().write(true).open(&path).unwrap().set_modified(stamp).unwrap();
        assert_eq!(&*text(source.read()), "y");
    }
}
