//! Which functions a sidecar runs, so that the linker puts them side by side.
//!
//! The kernel maps a program in pieces of 64 KiB around what runs. What a sidecar runs at its start and for requests is a quarter of the
//! program, but lay in nearly all of these pieces; they are most of a sidecar's memory. Training says it of what is compiled for a build that ships, exactly
//! (`training.rs`). What comes compiled, the standard and the C library and aws-lc, counts nothing: `cargo xtask layout` looks at it with callgrind, in
//! the sidecars of `bench memory`, and writes proxy/layout.ld. There the compiler's hashes, which change with each version of it, are left out, and it need not be
//! made again with every change: what the list has too many costs some pages, what it lacks a piece each.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::exec::{self, command, root, target};
use crate::{bench, debian, shipped};

pub fn run() -> Result<()> {
    debian::ensure()?;
    bench::build(&["outrigger", "outrigger-benches"])?;
    let folder = target("layout");
    // With the names of its functions, which what ships has not.
    let mut build = shipped::command("outrigger-proxy", "-C strip=none")?;
    exec::run(build.env("CARGO_TARGET_DIR", &folder))?;
    let program = folder.join(shipped::host()?).join("release/outrigger-proxy");
    let seen = folder.join("seen");
    if seen.exists() {
        fs::remove_dir_all(&seen)?;
    }
    fs::create_dir(&seen)?;
    let traced = folder.join("traced");
    fs::write(&traced, traced_program(&program, &seen))?;
    fs::set_permissions(&traced, fs::Permissions::from_mode(0o755))?;
    let mut bench = command(target("quick/outrigger-bench"), &[]);
    bench.arg("--outrigger").arg(target("quick/outrigger")).arg("--proxy").arg(&traced);
    // That it keeps no promise under callgrind is no failure here.
    let status = bench.args(["memory", "--services=21", "--requests=200"]).status()?;
    ensure!(status.code().is_some_and(|code| code < 2), "the sidecars to look at did not run: {status}");
    let functions = functions(&seen)?;
    ensure!(functions.len() > 500, "callgrind saw {} functions only", functions.len());
    fs::write(root().join("proxy/layout.ld"), script("run", &functions))?;
    println!("proxy/layout.ld: {} functions", functions.len());
    Ok(())
}

/// The sidecar under callgrind, which writes what it has seen now and then: the bench kills its sidecars.
fn traced_program(program: &Path, seen: &Path) -> String {
    format!(
        "#!/bin/sh\nexec valgrind --quiet --tool=callgrind --demangle=no --dump-every-bb=10000000 \\\n  \
         --callgrind-out-file='{}/%p' '{}' \"$@\"\n",
        seen.display(),
        program.display()
    )
}

/// The names of the functions that ran, as patterns.
fn functions(seen: &Path) -> Result<BTreeSet<String>> {
    let mut functions = BTreeSet::new();
    for file in fs::read_dir(seen)? {
        let text = fs::read_to_string(file?.path()).context("reading what callgrind saw")?;
        for line in text.lines() {
            // A name is written out where it is mentioned first, be it as the caller or as what is called.
            let line = line.strip_prefix('c').unwrap_or(line);
            let Some((_number, name)) = line.strip_prefix("fn=(").and_then(|rest| rest.split_once(") "))
            else {
                continue;
            };
            functions.extend(pattern(name));
        }
    }
    Ok(functions)
}

/// None for what has no name, and for what is counted in training. Names of the C library and of assembler may stand in the script, but match nothing:
/// these have no section for each function.
fn pattern(name: &str) -> Option<String> {
    // Callgrind numbers the levels of a recursion, the optimizer its copies.
    let name = name.split('\'').next()?;
    let name = name.split(".llvm.").next()?;
    // What has no name is called by its address. This compiler mangles so what it compiles here; the standard library's begin with `_R`.
    let named = !name.starts_with("0x") && !name.starts_with("_ZN");
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'$'));
    (named && plain).then(|| without_versions(name))
}

/// With `*` for what the names of the standard library (`Cs…_`, a hash of the crate) and of aws-lc (`aws_lc_0_39_1_`) have of a version.
fn without_versions(name: &str) -> String {
    if let Some((before, after)) = name.split_once("aws_lc_") {
        return format!(
            "{before}aws_lc_*{}",
            after.trim_start_matches(|c: char| c.is_ascii_digit() || c == '_')
        );
    }
    let Some(mangled) = name.strip_prefix("_R") else { return name.to_owned() };
    let mut pattern = String::from("_R");
    let mut rest = mangled;
    while let Some((before, after)) = rest.split_once("Cs") {
        let Some((hash, tail)) = after.split_once('_') else { break };
        if !hash.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            break;
        }
        pattern.push_str(before);
        pattern.push_str("Cs*_");
        rest = tail;
    }
    pattern + rest
}

/// For the linker, with these functions in a section before all others.
pub fn script(section: &str, functions: &BTreeSet<String>) -> String {
    let mut script = format!(
        "/* What a sidecar runs at its start and for requests, to lie side by side in the program.\n   \
         Made by xtask/src/layout.rs, which says why. */\n\
         SECTIONS {{\n  .text.{section} : {{\n    *(\n"
    );
    for function in functions {
        script.push_str(&format!("      .text.{function}\n"));
        if ["_R", "_ZN"].iter().any(|mangled| function.starts_with(mangled)) {
            // What the compiler takes for hot, and for cold.
            script.push_str(&format!("      .text.hot.{function}\n      .text.unlikely.{function}\n"));
        }
    }
    script + "    )\n  }\n}\nINSERT BEFORE .text;\n"
}
