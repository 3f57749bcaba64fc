//! `cargo xtask bench WHAT`: builds the programs and measures them (benches/README.md).
//!
//! What is compared with others, and what memory is promised of, is the proxy as it is shipped (`shipped.rs`), which takes twenty times as long to
//! build as with the profile `quick`, as all else is built. `--quick` builds that one so, too.

use anyhow::Result;

use crate::exec::{self, cargo, command, target};
use crate::{debian, peers, shipped};

/// Everything after `bench` is the harness's own command line.
pub fn run(arguments: &[String]) -> Result<()> {
    let what = arguments.first().map(String::as_str);
    let beside_envoy = matches!(what, Some("compare" | "faults"));
    if what == Some("compare") {
        debian::ensure_compared()?;
    }
    if beside_envoy {
        peers::ensure()?;
    }
    if what == Some("micro") {
        build(&["outrigger-benches"])?;
        return exec::run(command(target("quick/outrigger-micro"), &[]).args(&arguments[1..]));
    }
    let quick = arguments.iter().any(|argument| argument == "--quick");
    build(&["outrigger", "outrigger-benches"])?;
    let proxy = match what {
        Some("compare" | "memory" | "limits") if !quick => shipped::proxy()?,
        _ => {
            build(&["outrigger-proxy"])?;
            target("quick/outrigger-proxy")
        }
    };
    let mut bench = command(target("quick/outrigger-bench"), &[]);
    bench.arg("--outrigger").arg(target("quick/outrigger"));
    bench.arg("--proxy").arg(proxy);
    bench.args(arguments);
    if beside_envoy {
        bench.arg("--envoy").arg(peers::envoy()?);
    }
    exec::run(&mut bench)
}

pub fn build(packages: &[&str]) -> Result<()> {
    let mut build = cargo(&["build", "--locked", "--profile", "quick"]);
    exec::run(build.args(packages.iter().flat_map(|package| ["--package", package])))
}
