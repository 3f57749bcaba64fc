//! The programs as they ship: built with the `release` profile, for what the proxy does under load (`training.rs`), and linked statically.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::exec::{self, cargo, target};
use crate::training;

/// Both programs; says where they are, one in a line.
pub fn run() -> Result<()> {
    let proxy = proxy()?;
    // By itself: built together, dependencies may have other features than in training, and what was counted would be somebody else's.
    exec::run(&mut command("outrigger", "")?)?;
    println!("{}\n{}", proxy.display(), place("outrigger")?.display());
    Ok(())
}

/// The proxy alone, and where it is.
pub fn proxy() -> Result<PathBuf> {
    exec::run(&mut command("outrigger-proxy", &training::flags()?)?)?;
    place("outrigger-proxy")
}

/// A build that has not begun, so that more can be set. `flags` are the compiler's.
pub fn command(package: &str, flags: &str) -> Result<Command> {
    // The target has to be named, or build scripts and macros would be linked statically, too, and fail.
    let mut build = cargo(&["build", "--locked", "--release", "--target", &host()?, "--package", package]);
    let given = std::env::var("RUSTFLAGS").unwrap_or_default();
    build.env("RUSTFLAGS", format!("{given} -C target-feature=+crt-static {flags}").trim());
    Ok(build)
}

fn place(program: &str) -> Result<PathBuf> {
    Ok(target(&format!("{}/release/{program}", host()?)))
}

/// The platform of this machine, in cargo's words.
pub fn host() -> Result<String> {
    let said = exec::said(&mut exec::command(rustc(), &["-vV"]))?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc does not name its host")?.to_owned())
}

pub fn rustc() -> std::ffi::OsString {
    std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())
}
