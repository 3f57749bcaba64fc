//! The proxy as it ships: built with the `release` profile and linked statically, as deploy/build.sh puts it into the image.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::exec::{self, cargo, target};

/// Builds it, which takes some minutes when something has changed, and says where it is.
pub fn build() -> Result<PathBuf> {
    exec::run(&mut command()?)?;
    Ok(target(&format!("{}/release/outrigger-proxy", host()?)))
}

/// Not yet run, so that what is to be built differently can be set.
pub fn command() -> Result<Command> {
    // The target has to be named, or build scripts and macros would be linked statically, too, and fail.
    let mut build =
        cargo(&["build", "--locked", "--release", "--target", &host()?, "--package", "outrigger-proxy"]);
    let flags = std::env::var("RUSTFLAGS").unwrap_or_default();
    build.env("RUSTFLAGS", format!("{flags} -C target-feature=+crt-static").trim());
    Ok(build)
}

/// The platform of this machine, in cargo's words.
pub fn host() -> Result<String> {
    let output = exec::command(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()), &["-vV"])
        .output()
        .context("cannot start rustc")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let host =
        said.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc does not name its host")?;
    Ok(host.to_owned())
}
