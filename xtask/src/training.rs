//! What the proxy does under load and as a sidecar, for the compiler and the linker to build it for that.
//!
//! A proxy that counts what it executes serves the scenarios of `bench compare`, bare and with every policy, for a second each. Of the counts comes
//! a profile, by which the compiler places branches, inlines and orders code in what ships (`-C profile-use`; docs/performance.md says what it
//! brings). Those of the sidecars of `bench memory` also say which functions a sidecar runs: they lie side by side, for the reasons `layout.rs`
//! names. A profile holds for one state of the sources and one compiler, so it is made with each build that ships and kept out of the repository.

use std::collections::BTreeSet;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::exec::{self, command, target};
use crate::{bench, debian, layout, shipped};

/// All that is measured by CPU time.
const SCENARIOS: [&str; 12] = [
    "h1",
    "rate",
    "h2",
    "tls",
    "two-h1",
    "two-h2",
    "bulk",
    "bulk-tls",
    "new",
    "new-tls",
    "handshake",
    "resume",
];

/// The compiler's flags that build by what was counted, which is done first if the proxy has changed.
pub fn flags() -> Result<String> {
    debian::ensure_compared()?;
    let folder = target("training");
    let counting = format!("-C profile-generate={}", folder.join("unused").display());
    let mut build = shipped::command("outrigger-proxy", &counting)?;
    exec::run(build.env("CARGO_TARGET_DIR", &folder))?;
    let program = folder.join(shipped::host()?).join("release/outrigger-proxy");
    let latest = folder.join("latest");
    let made = |path: &Path| fs::metadata(path).and_then(|file| file.modified());
    let stands = match (made(&latest), made(&program)) {
        (Ok(training), Ok(program)) => training > program,
        _ => false,
    };
    if !stands {
        let flags = train(&folder, &program)?;
        fs::write(&latest, flags).context("noting the latest training")?;
    }
    fs::read_to_string(&latest).context("reading which training is the latest")
}

fn train(folder: &Path, program: &Path) -> Result<String> {
    let tool = profdata()?;
    bench::build(&["outrigger", "outrigger-benches"])?;
    let counts = folder.join("counts");
    if counts.exists() {
        fs::remove_dir_all(&counts)?;
    }
    let merged = |name: &str| -> Result<PathBuf> {
        let merged = folder.join(name);
        // With what never ran, which is to be known for it: it is built small.
        exec::run(command(&tool, &["merge", "--output"]).arg(&merged).arg(&counts))?;
        Ok(merged)
    };
    fs::create_dir_all(&counts)?;
    under(folder, program, &counts, &["memory", "--services=21", "--requests=200"])?;
    let sidecar = merged("sidecar.profdata")?;
    let shown = exec::said(command(&tool, &["show", "--all-functions", "--counts"]).arg(&sidecar))?;
    let layout = named(folder, "ld", layout::script("trained", &executed(&shown)?).as_bytes())?;
    let figures = folder.join("figures").display().to_string();
    let compare = ["compare", "--proxies=ours,ours-in-use", "--rounds=1", "--output", &figures];
    under(folder, program, &counts, &[&compare[..], &SCENARIOS].concat())?;
    let profile = named(folder, "profdata", &fs::read(merged("all.profdata")?)?)?;
    Ok(format!("-C profile-use={} -C link-arg=-Wl,-T,{}", profile.display(), layout.display()))
}

/// The bench with the counting program for its proxies.
fn under(folder: &Path, program: &Path, counts: &Path, arguments: &[&str]) -> Result<()> {
    let counting = folder.join("counting");
    fs::write(&counting, counting_program(program, counts))?;
    fs::set_permissions(&counting, fs::Permissions::from_mode(0o755))?;
    let mut load = command(target("quick/outrigger-bench"), &[]);
    load.arg("--outrigger").arg(target("quick/outrigger")).arg("--proxy").arg(&counting).args(arguments);
    // Its figures mean nothing, nor that they miss what is promised.
    let status = load.stdout(Stdio::null()).status().context("cannot start the bench")?;
    ensure!(status.code().is_some_and(|code| code < 2), "{} did not run: {status}", exec::show(&load));
    ended(program)
}

/// By its name, cargo learns that it is another one.
fn named(folder: &Path, kind: &str, content: &[u8]) -> Result<PathBuf> {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    let file = folder.join(format!("{:016x}.{kind}", hasher.finish()));
    fs::write(&file, content).with_context(|| format!("writing {}", file.display()))?;
    Ok(file)
}

/// The functions of which anything was executed, of what `llvm-profdata show` says of each:
///
/// ```text
///   crate.hash-cgu.0;name:
///     Hash: 0x063891fadb3b8e97
///     Counters: 2
///     Block counts: [0, 17]
/// ```
fn executed(shown: &str) -> Result<BTreeSet<String>> {
    let mut executed = BTreeSet::new();
    let mut name = None;
    for line in shown.lines() {
        if let Some(counts) = line.strip_prefix("    Block counts: [") {
            let any = counts.trim_end_matches(']').split(", ").any(|count| !matches!(count, "" | "0"));
            executed.extend(name.take().filter(|_| any));
        } else if let Some(function) = line.strip_prefix("  ").and_then(|line| line.strip_suffix(':')) {
            // Names that are a file's own have it before them.
            name = function.rsplit(';').next().map(str::to_owned);
        }
    }
    ensure!(executed.len() > 1_000, "{} functions only were counted", executed.len());
    Ok(executed)
}

/// The bench kills its proxies, but counts are written at an end in good order: the program loses its parent then, and is told to end.
fn counting_program(program: &Path, counts: &Path) -> String {
    format!(
        "#!/bin/sh\nexport LLVM_PROFILE_FILE='{}/%p.profraw'\nsetpriv --pdeathsig TERM '{}' \"$@\" &\nwait $!\n",
        counts.display(),
        program.display()
    )
}

/// Waits for all that run it, for a minute at most.
fn ended(program: &Path) -> Result<()> {
    let program = &program.canonicalize()?;
    for _ in 0..600 {
        let mut processes = fs::read_dir("/proc")?.flatten();
        if !processes
            .any(|process| fs::read_link(process.path().join("exe")).is_ok_and(|exe| exe == *program))
        {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(100));
    }
    bail!("{} does not end", program.display())
}

/// LLVM's, of the compiler's own version: a part of the toolchain that is not always installed.
fn profdata() -> Result<PathBuf> {
    let root = exec::said(&mut command(shipped::rustc(), &["--print", "sysroot"]))?;
    let program = Path::new(root.trim()).join("lib/rustlib").join(shipped::host()?).join("bin/llvm-profdata");
    if !program.exists() {
        exec::run(&mut command("rustup", &["component", "add", "llvm-tools"]))
            .context("llvm-profdata is missing")?;
    }
    Ok(program)
}
