//! The Debian packages the tests need: which are missing, and their installation.
//!
//! Installs only as root and only what is missing; an ordinary user is told the one command to run instead.
//! Never starts a service: the tests start their own instances on free ports.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use anyhow::{Context, Result, bail};

use crate::exec::{self, command, run, succeeds};

/// Installs the packages whose programs are missing.
pub fn ensure() -> Result<()> {
    ensure_of(&PROGRAMS)
}

/// The same for the proxies that ours is compared with.
pub fn ensure_compared() -> Result<()> {
    ensure_of(&COMPARED)
}

fn ensure_of(programs: &[(&str, &'static str)]) -> Result<()> {
    let missing = missing(programs);
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(" ");
    if exec::skip_peers() {
        eprintln!(
            "xtask: OUTRIGGER_SKIP_PEERS=1: going on WITHOUT {names}; the tests that need them are skipped"
        );
        return Ok(());
    }
    if !succeeds(&mut command("apt-get", &["--version"])) {
        bail!("these are missing, and this is not a Debian where I could install them: {names}");
    }
    if !is_root() {
        bail!("these Debian packages are missing; install them with\n  sudo apt-get install -y {names}");
    }
    let _quiet = NoServices::set()?;
    run(command("apt-get", &["update", "-q"]).env("DEBIAN_FRONTEND", "noninteractive"))?;
    let mut args = vec!["install", "-q", "-y", "--no-install-recommends"];
    args.extend(&missing);
    run(command("apt-get", &args).env("DEBIAN_FRONTEND", "noninteractive"))?;
    match self::missing(programs).as_slice() {
        [] => Ok(()),
        still => {
            bail!("apt-get is content, but the programs of these are still not found: {}", still.join(" "))
        }
    }
}

/// Packages with at least one program missing, each once.
fn missing(programs: &[(&str, &'static str)]) -> Vec<&'static str> {
    let mut names: Vec<&str> =
        programs.iter().filter(|(program, _)| !exec::on_path(program)).map(|&(_, package)| package).collect();
    // Debian ships the interpreter without the module that fills a new virtual environment.
    if !succeeds(&mut command("python3", &["-c", "import venv, ensurepip"])) {
        names.push("python3-venv");
    }
    names.sort_unstable();
    names.dedup();
    names
}

fn is_root() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().nth(1));
    effective == Some("0")
}

/// Keeps Debian from starting the packages' services while it lives (the policy layer of invoke-rc.d(8)).
/// A policy the machine already has stays as it is.
struct NoServices {
    ours: bool,
}

impl NoServices {
    fn set() -> Result<Self> {
        let path = Path::new(POLICY);
        if path.exists() {
            return Ok(Self { ours: false });
        }
        fs::write(path, "#!/bin/sh\nexit 101\n").with_context(|| format!("cannot write {POLICY}"))?;
        let guard = Self { ours: true };
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
        Ok(guard)
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours
            && let Err(problem) = fs::remove_file(POLICY)
        {
            eprintln!("xtask: cannot remove {POLICY}: {problem}; services will not start until it is gone");
        }
    }
}

const POLICY: &str = "/usr/sbin/policy-rc.d";

/// A program and the package that brings it.
const PROGRAMS: [(&str, &str); 16] = [
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("iptables-restore", "iptables"),
    ("ip6tables-restore", "iptables"),
    ("redis-server", "redis-server"),
    ("redis-cli", "redis-tools"),
    ("prometheus", "prometheus"),
    ("promtool", "prometheus"),
    ("h2load", "nghttp2-client"),
    ("wrk", "wrk"),
    ("nc", "netcat-openbsd"),
    ("curl", "curl"),
    ("node", "nodejs"),
    ("openssl", "openssl"),
    ("unshare", "util-linux"),
    ("valgrind", "valgrind"),
];

/// Of `cargo xtask bench compare` alone.
const COMPARED: [(&str, &str); 4] =
    [("nginx", "nginx"), ("haproxy", "haproxy"), ("h2load", "nghttp2-client"), ("taskset", "util-linux")];
