//! Benches that answer one question each about what every request pays, with allocations counted: `cargo xtask bench micro`.
//!
//! Configuration comes from manifests, as a proxy in file mode resolves it. Times are of this machine and this build; allocations hold anywhere.
//! The system's allocator stands in for the proxy's own, so that it can be counted; of all threads.

mod exchange;
mod parts;
mod policies;

use std::alloc::System;
use std::hint::black_box;
use std::time::Duration;

use clap::Parser;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tokio::time::Instant;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

#[derive(Debug, Parser)]
#[command(name = "outrigger-micro", about = "What every request pays, piece by piece")]
struct Cli {
    /// Only this many exchanges through a whole proxy, and nothing else: what callgrind counts (README.md).
    #[arg(long, value_name = "N")]
    exchanges: Option<u64>,
    /// Only this many connections, each after one exchange, and the end of the process with all of them open: what dhat counts (README.md).
    #[arg(long, value_name = "N")]
    idle: Option<usize>,
    /// What a TrafficPolicy of the service says, such as `retry: {}`; for --exchanges.
    #[arg(long, value_name = "SECTIONS", requires = "exchanges")]
    policy: Option<String>,
    /// Of these exchanges: under all policies of the column `ours-in-use` of the comparison, through a gateway or (`--under none`) a callee's sidecar.
    #[arg(long, requires = "exchanges", conflicts_with = "policy")]
    in_use: bool,
    /// Endpoints of the service, of which one is chosen each time; for --exchanges.
    #[arg(long, value_name = "N", default_value_t = 1, requires = "exchanges", value_parser = clap::value_parser!(u8).range(1..=50))]
    endpoints: u8,
    /// Of these exchanges: through a callee's sidecar under one policy, `none` among them, instead of through a gateway.
    #[arg(long, value_name = "POLICY", requires = "exchanges", conflicts_with = "policy")]
    under: Option<String>,
}

/// For each bench.
const TIME: Duration = Duration::from_millis(500);

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    if let Some(exchanges) = cli.exchanges {
        let mut more = if cli.in_use { policies::IN_USE.to_owned() } else { String::new() };
        if let Some(sections) = &cli.policy {
            more.push_str(&policies::of_app(sections));
        }
        let mut through = match &cli.under {
            Some(policy) => policies::under(policy, &more)?,
            None => exchange::Through::with(cli.endpoints, &more)?,
        };
        return (0..exchanges).try_for_each(|_| through.once());
    }
    if let Some(connections) = cli.idle {
        let through = exchange::Through::start()?;
        let _open = through.open(connections)?;
        // Without dropping anything.
        std::process::exit(0);
    }
    println!("{:44} {:>10} {:>12} {:>8} {:>8}", "", "ns", "allocations", "bytes", "");
    parts::run()?;
    let mut through = exchange::Through::start()?;
    // Connections and pools are there afterwards.
    for _ in 0..1_000 {
        through.once()?;
    }
    report("exchange: HTTP/1.1 through a gateway, loopback", exchange::MOST, || {
        through.once().expect("it was answered before");
    });
    let before = exchange::wakeups()?;
    for _ in 0..1_000 {
        through.once()?;
    }
    // One request at a time, so that the worker has to wait for each and for its answer.
    let each = (exchange::wakeups()? - before) as f64 / 1_000.0;
    println!("{:44} {each:10.2} wake-ups of the worker", "exchange: one at a time");
    for (policy, _) in policies::POLICIES {
        let mut through = policies::under(policy, "")?;
        for _ in 0..1_000 {
            through.once()?;
        }
        report(&format!("exchange: a callee's, under {policy}"), exchange::MOST + 6.0, || {
            through.once().expect("it was answered before");
        });
    }
    Ok(())
}

/// Runs `once` again and again, and prints what one run costs. `most` allocations are expected; more are marked.
fn report(name: &str, most: f64, mut once: impl FnMut()) {
    for _ in 0..100 {
        once();
    }
    let region = Region::new(ALLOCATOR);
    let begun = Instant::now();
    let mut runs = 0_u64;
    while begun.elapsed() < TIME {
        for _ in 0..100 {
            black_box(&mut once)();
        }
        runs += 100;
    }
    let (took, change) = (begun.elapsed(), region.change());
    let each = |count: usize| count as f64 / runs as f64;
    let allocations = each(change.allocations + change.reallocations);
    let verdict = if allocations > most { "MORE THAN EXPECTED" } else { "" };
    let nanoseconds = took.as_nanos() as f64 / runs as f64;
    println!(
        "{name:44} {nanoseconds:10.1} {allocations:12.2} {:8.0} {verdict}",
        each(change.bytes_allocated)
    );
}

/// What the tests count, they count for the whole process: one at a time.
#[cfg(test)]
fn alone() -> std::sync::MutexGuard<'static, ()> {
    static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
