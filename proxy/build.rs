//! How the program is linked, as a release for Linux.
//!
//! What a sidecar runs of libraries that come compiled lies side by side: by `layout.ld`, which `cargo xtask layout` makes (xtask/src/layout.rs). The kernel
//! maps a program in pieces of 64 KiB around what runs, and they are most of a sidecar's memory.
//!
//! Its relocations are nearly half a megabyte of it, all of which is read at each start and stays in the memory of each sidecar. Packed (DT_RELR) they are
//! some kilobytes. Loaders know that from glibc 2.36 on; a program needs at least the glibc it was built with, so what is here decides.

use std::env;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=layout.ld");
    let is = |variable: &str, value: &str| env::var(variable).is_ok_and(|found| found == value);
    if !is("PROFILE", "release") || !is("CARGO_CFG_TARGET_OS", "linux") {
        return;
    }
    let here = env::var("CARGO_MANIFEST_DIR").expect("cargo names the crate's folder");
    println!("cargo:rustc-link-arg-bins=-Wl,-T,{here}/layout.ld");
    let native = env::var("HOST").ok() == env::var("TARGET").ok();
    if native && is("CARGO_CFG_TARGET_ENV", "gnu") && glibc() >= Some((2, 36)) {
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

fn glibc() -> Option<(u32, u32)> {
    let said = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?;
    let said = String::from_utf8(said.stdout).ok()?;
    let (major, minor) = said.trim().strip_prefix("glibc ")?.split_once('.')?;
    Some((major.parse().ok()?, minor.split('.').next()?.parse().ok()?))
}
