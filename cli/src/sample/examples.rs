//! The manifests of docs/examples: all are read without a finding, and what they run is a command line of ours.

use std::path::{Path, PathBuf};

use clap::Parser;
use outrigger_config::manifest::{Manifest, parse};

fn manifests() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples");
    let entries =
        |path: &Path| std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    let folders = entries(&root).into_iter().filter(|path| path.is_dir());
    let files = folders.flat_map(|folder| entries(&folder));
    files.filter(|path| path.extension().is_some_and(|extension| extension == "yaml")).collect()
}

#[test]
fn every_manifest_is_read_and_every_sample_it_runs_exists() {
    let mut samples = 0;
    let manifests = manifests();
    assert!(manifests.len() >= 7, "{manifests:?}");
    for path in manifests {
        let name = path.display().to_string();
        let parsed = parse(&std::fs::read(&path).unwrap(), &name);
        assert!(parsed.diagnostics.is_empty(), "{:?}", parsed.diagnostics);
        assert!(!parsed.objects.is_empty(), "{name}");
        for object in parsed.objects {
            let Manifest::Workload(workload) = object.manifest else { continue };
            let command = workload.spec.command;
            if command.first().is_some_and(|program| program == "outrigger") {
                samples += 1;
                assert!(crate::Cli::try_parse_from(&command).is_ok(), "{name}: {command:?}");
            }
        }
    }
    assert!(samples >= 8, "{samples}");
}
