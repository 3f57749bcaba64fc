//! What the tests of manifests share.

use std::fs;
use std::path::{Path, PathBuf};

pub mod json_schema;

/// Every file below a directory of this repository, in order.
pub fn files(directory: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    let mut found = Vec::new();
    let mut left = vec![root];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(&directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display())) {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => left.push(path),
                false => found.push(path),
            }
        }
    }
    found.sort();
    found
}

/// Those of them that hold manifests of the mesh. What Kubernetes runs apps by stands in directories called `kubernetes`.
pub fn manifests(directory: &str) -> Vec<PathBuf> {
    let mut found = files(directory);
    found.retain(|path| !path.iter().any(|part| part == "kubernetes"));
    found.retain(|path| path.extension().is_some_and(|extension| extension == "yaml" || extension == "json"));
    assert!(!found.is_empty(), "no manifests below {directory}");
    found
}
