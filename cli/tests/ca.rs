//! `outrigger ca`, as a shell sees it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use assert_cmd::Command;
use serde_json::Value;

/// Exit code, standard output and standard error of `outrigger ca …` in `directory`.
fn ca(directory: &Path, arguments: &str) -> (i32, String, String) {
    let mut command = Command::cargo_bin("outrigger").unwrap();
    let output = command.current_dir(directory).arg("ca").args(arguments.split(' ')).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn done(directory: &Path, arguments: &str) -> String {
    let (code, out, error) = ca(directory, arguments);
    assert_eq!(code, 0, "{arguments}: {error}");
    out
}

fn refused(directory: &Path, arguments: &str, want: &str) {
    let (code, out, error) = ca(directory, arguments);
    assert!((code, &*out) == (1, "") && error.contains(want), "{arguments}: {code} {out} {error}");
}

fn roots(directory: &Path) -> usize {
    done(directory, "export-root --ca-dir ca").matches("BEGIN CERTIFICATE").count()
}

/// Two CAs as files, by the program's own hand: the roots, and what signs, of two directories.
fn import_own(directory: &Path, from: &str, to: &str) -> (i32, String, String) {
    let state: Value =
        serde_json::from_slice(&fs::read(directory.join(from).join("ca.json")).unwrap()).unwrap();
    let authority = &state["authorities"][0];
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    fs::write(directory.join("c.pem"), text(&authority["chain"][0]) + &text(&authority["root"])).unwrap();
    fs::write(directory.join("c.key"), text(&authority["key"])).unwrap();
    ca(directory, &format!("import --ca-dir {to} --cert c.pem --key c.key"))
}

/// As a control plane would make it.
fn make(directory: &Path, name: &str) {
    use outrigger_control::ca::{Authority, CaStore, Directory, State};

    let now = std::time::SystemTime::now();
    let state = State::new(Authority::make(now).unwrap(), std::time::Duration::from_secs(86_400));
    let store = Directory::open(&directory.join(name)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert!(runtime.block_on(store.replace(None, &state)).unwrap());
}

#[test]
fn a_root_is_replaced_by_hand_step_by_step() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    refused(at, "show --ca-dir ca", "not a directory");
    assert!(!at.join("ca").exists(), "looking makes nothing");
    make(at, "ca");
    refused(at, "rotate-root --ca-dir ca --phase sign", "begins with `add`");
    let before = done(at, "export-root --ca-dir ca");

    let out = done(at, "rotate-root --ca-dir ca --phase add");
    assert!(out.contains("by hand") && out.contains("10 min"), "{out}");
    assert_eq!(roots(at), 2);
    refused(at, "rotate-root --ca-dir ca", "is under way");
    refused(at, "rotate-root --ca-dir ca --phase sign", "wait");
    refused(at, "rotate-root --ca-dir ca --phase remove", "does not sign yet");
    done(at, "rotate-root --ca-dir ca --phase sign --force");
    refused(at, "rotate-root --ca-dir ca --phase remove", "may be in use");
    let report: Value = serde_json::from_str(&done(at, "show --ca-dir ca -o json")).unwrap();
    assert_eq!(report["rotation"]["automatic"], false);
    assert_eq!((&report["roots"][0]["signs"], &report["roots"][1]["signs"]), (&false.into(), &true.into()));
    assert!(!report.to_string().contains("PRIVATE"));

    done(at, "rotate-root --ca-dir ca --phase remove --force");
    assert_eq!(roots(at), 1);
    assert_ne!(done(at, "export-root --ca-dir ca"), before);
    let table = done(at, "show --ca-dir ca");
    assert!(table.contains("Outrigger root") && !table.contains("Rotation"), "{table}");
}

#[test]
fn a_given_authority_becomes_the_first_the_next_or_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    make(at, "one");
    make(at, "two");
    let (code, out, error) = import_own(at, "one", "ca");
    assert!(code == 0 && out.contains("from now on"), "{out}{error}");
    assert_eq!(fs::metadata(at.join("ca/ca.json")).unwrap().permissions().mode() & 0o777, 0o600);
    let (code, out, _) = import_own(at, "one", "ca");
    assert!(code == 0 && out.contains("believed already"), "{out}");
    assert_eq!(roots(at), 1);
    let (code, out, _) = import_own(at, "two", "ca");
    assert!(code == 0 && out.contains("by the control plane"), "{out}");
    assert_eq!(roots(at), 2);
    fs::write(at.join("c.key"), "no key").unwrap();
    refused(at, "import --ca-dir ca --cert c.pem --key c.key", "c.pem with c.key: not a private key");
    refused(at, "import --ca-dir ca --cert gone.pem --key c.key", "reading gone.pem");
}

#[test]
fn tokens_are_signed_with_a_key_that_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    refused(at, "token --token-key token.key --workload a", "token.key");
    outrigger_control::ca::TokenSigner::open(&at.join("token.key")).unwrap();
    let token = done(at, "token --token-key token.key --workload a --life 5m");
    assert_eq!(token.trim().split('.').count(), 3, "{token}");
}
