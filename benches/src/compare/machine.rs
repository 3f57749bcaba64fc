//! The machine: which core who has, how many files may be open, and whether somebody else is at work.

use std::fs;
use std::time::Duration;

use anyhow::{Context, ensure};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;
use tokio::time::sleep;

use super::proxies::PROXY_CPU;

/// Of the load and of the app behind the proxies; inherited by whatever is started.
const OTHER_CPU: usize = 1;

/// Keeps this process, and what it starts, off the proxies' core, and lets it open as many files as it may. Before any thread is started.
pub fn prepare() -> anyhow::Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(OTHER_CPU)?;
    sched_setaffinity(Pid::from_raw(0), &cpus)
        .with_context(|| format!("no core {OTHER_CPU}; the proxies have core {PROXY_CPU} to themselves"))?;
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    Ok(())
}

/// Fails where so many connections cannot be open at once.
pub fn can_open(connections: usize) -> anyhow::Result<()> {
    let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
    ensure!(
        connections as u64 + 1_000 < limit,
        "{limit} files may be open here: too few for {connections} connections"
    );
    Ok(())
}

/// The share of all cores, in percent, that is busy while nothing of ours is: looked at for `time`.
pub async fn busy_elsewhere(time: Duration) -> anyhow::Result<f64> {
    let (busy, all) = ticks()?;
    sleep(time).await;
    let (busy_then, all_then) = ticks()?;
    let passed = (all_then - all).max(1.0);
    Ok((busy_then - busy) * 100.0 / passed)
}

/// Of all cores since the machine started: busy, and all of it.
fn ticks() -> anyhow::Result<(f64, f64)> {
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().context("/proc/stat is empty")?;
    let numbers: Vec<f64> = line
        .split_whitespace()
        .skip(1)
        .take(8)
        .map(str::parse)
        .collect::<Result<_, _>>()
        .context("/proc/stat")?;
    // user nice system idle iowait irq softirq steal (proc(5)); stolen time is somebody else's work as well.
    let all: f64 = numbers.iter().sum();
    let idle: f64 = numbers.iter().skip(3).take(2).sum();
    Ok((all - idle, all))
}

/// Processor and kernel, in one line.
pub fn description() -> String {
    let model = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = model.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{}, Linux {}", model.map_or("?", |(_, name)| name), kernel.trim())
}
