//! One script of faults, met by ours and by Envoy with its recommended settings: what callers saw of it, and what it added to the load.
//!
//! Each fault has proxies of its own, each of these three endpoints, processes that a signal stops (`endpoint`), and the same open loop of requests before it
//! (`load`); so no fault finds what an earlier one left behind, and all happen at the same time. Attempts are counted where they arrive.

pub mod endpoint;
mod load;
mod proxies;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use futures_util::future::try_join_all;
use nix::sys::signal::Signal;
use tokio::time::{Instant, sleep, sleep_until};

use crate::ground::{Ground, Process, Programs};
use endpoint::{Endpoint, Mode};
use load::{Answer, Load, PATIENCE};
use proxies::Proxy;

/// Run one script of faults against ours and against Envoy
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Envoy's program; `cargo xtask bench faults` knows where it is.
    #[arg(long, value_name = "FILE")]
    envoy: PathBuf,
    /// Requests a second.
    #[arg(long, default_value_t = 100)]
    rate: u32,
    /// How long each fault lasts.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// How long an endpoint that is well again is watched, at most, until it has its share.
    #[arg(long, default_value_t = 90)]
    patience: u64,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Nothing,
    /// SIGSTOP of one of the three: the kernel goes on accepting for it.
    Stopped,
    One(Mode),
    All(Mode),
}

const FAULTS: [(&str, Fault); 7] = [
    ("none", Fault::Nothing),
    ("one stopped (SIGSTOP)", Fault::Stopped),
    ("one resets", Fault::One(Mode::Resets)),
    ("one answers 503", Fault::One(Mode::Unavailable)),
    ("one slow (0.5 s)", Fault::One(Mode::Slow)),
    ("all answer 503", Fault::All(Mode::Unavailable)),
    ("all read and never answer", Fault::All(Mode::Silent)),
];

/// What one fault did to the callers of one proxy.
struct Row {
    answers: Vec<Answer>,
    /// Those that began at least [`SETTLED`] after the fault.
    settled: Vec<Answer>,
    /// What arrived at the endpoints.
    attempts: u64,
    /// What arrived at the failing one.
    wasted: Option<u64>,
    /// Until it got a quarter of the requests again; `None`: not within the patience.
    back: Option<Option<Duration>>,
}

/// From when on a fault should be known.
const SETTLED: Duration = Duration::from_secs(5);

/// Before the first fault: connections stand, and averages mean something.
const WARM_UP: Duration = Duration::from_secs(5);

pub async fn run(programs: &Programs, args: Args) -> anyhow::Result<bool> {
    ensure!(args.rate > 0, "--rate 0 measures nothing");
    let ground = Ground::new(programs)?;
    let mut hosts = (10..).step_by(4);
    let mut running = Vec::new();
    for (name, fault) in FAULTS {
        for proxy in [Proxy::Ours, Proxy::Envoy] {
            let host = hosts.next().context("there are 255 addresses")?;
            let scene = Scene::start(proxy, &ground, programs, &args, host).await?;
            let args = &args;
            running.push(async move { anyhow::Ok((name, proxy, scene.suffer(fault, args).await?)) });
        }
    }
    println!("{} requests a second; each fault lasts {} s.\n", args.rate, args.seconds);
    println!(
        "| fault | proxy | succeeded | from 5 s on | p50 ms | p99 ms | added load | sent to the failing one | its share is back after |"
    );
    println!("|---|---|--:|--:|--:|--:|--:|--:|--:|");
    for (name, proxy, row) in try_join_all(running).await? {
        print(name, proxy, &row, args.patience);
    }
    Ok(true)
}

/// One proxy, its endpoints, and its load.
struct Scene {
    endpoints: Vec<Endpoint>,
    load: Load,
    _proxy: Process,
}

impl Scene {
    async fn start(
        proxy: Proxy,
        ground: &Ground,
        programs: &Programs,
        args: &Args,
        host: u8,
    ) -> anyhow::Result<Self> {
        let mut endpoints = Vec::new();
        for n in 1..=3 {
            endpoints.push(Endpoint::start(ground, programs, host + n).await?);
        }
        let (process, at) = proxy.start(ground, programs, &args.envoy, host, &endpoints).await?;
        Ok(Self { endpoints, load: Load::start(at, args.rate), _proxy: process })
    }

    async fn suffer(self, fault: Fault, args: &Args) -> anyhow::Result<Row> {
        sleep(WARM_UP).await;
        let (all, bad) = (&self.endpoints, &self.endpoints[1]);
        let (before, begun) = (counts(all).await?, Instant::now());
        match fault {
            Fault::Nothing => {}
            Fault::Stopped => bad.process.signal(Signal::SIGSTOP)?,
            Fault::One(mode) => bad.set(mode).await?,
            Fault::All(mode) => set_all(all, mode).await?,
        }
        sleep_until(begun + Duration::from_secs(args.seconds)).await;
        let ended = Instant::now();
        if fault == Fault::Stopped {
            bad.process.signal(Signal::SIGCONT)?;
            // It reads what was sent to it meanwhile.
            sleep(Duration::from_millis(200)).await;
        }
        let after = counts(all).await?;
        let counted = Instant::now();
        set_all(all, Mode::Well).await?;
        let one = matches!(fault, Fault::Stopped | Fault::One(_));
        let back = match one {
            true => Some(returns(all, Duration::from_secs(args.patience)).await?),
            false => None,
        };
        // The last requests of the fault have ended then.
        sleep_until(counted + PATIENCE).await;
        Ok(Row {
            answers: self.load.between(begun, ended),
            settled: self.load.between(begun + SETTLED, ended),
            attempts: after.iter().sum::<u64>() - before.iter().sum::<u64>(),
            wasted: one.then(|| after[1] - before[1]),
            back,
        })
    }
}

async fn set_all(endpoints: &[Endpoint], mode: Mode) -> anyhow::Result<()> {
    for endpoint in endpoints {
        endpoint.set(mode).await?;
    }
    Ok(())
}

async fn counts(endpoints: &[Endpoint]) -> anyhow::Result<Vec<u64>> {
    let mut counts = Vec::new();
    for endpoint in endpoints {
        counts.push(endpoint.count().await?);
    }
    Ok(counts)
}

/// How long until the second one gets a quarter of what comes within a second.
async fn returns(endpoints: &[Endpoint], patience: Duration) -> anyhow::Result<Option<Duration>> {
    let begun = Instant::now();
    let mut before = counts(endpoints).await?;
    while begun.elapsed() < patience {
        sleep(Duration::from_secs(1)).await;
        let now = counts(endpoints).await?;
        let got = |n: usize| now[n] - before[n];
        if 4 * got(1) >= got(0) + got(1) + got(2) {
            return Ok(Some(begun.elapsed()));
        }
        before = now;
    }
    Ok(None)
}

fn print(fault: &str, proxy: Proxy, row: &Row, patience: u64) {
    let took = |share: f64| {
        let mut times: Vec<_> = row.answers.iter().map(|answer| answer.took).collect();
        times.sort_unstable();
        let at = (times.len() as f64 * share) as usize;
        times.get(at.min(times.len().saturating_sub(1))).map_or(0.0, |time| time.as_secs_f64() * 1e3)
    };
    let added = (row.attempts as f64 / row.answers.len() as f64 - 1.0) * 100.0;
    let back = match row.back {
        None => String::new(),
        Some(Some(time)) => format!("{:.0} s", time.as_secs_f64()),
        Some(None) => format!("not within {patience} s"),
    };
    println!(
        "| {} | {} | {} | {} | {:.1} | {:.0} | {added:+.1} % | {} | {back} |",
        fault,
        proxy.name(),
        succeeded(&row.answers),
        succeeded(&row.settled),
        took(0.5),
        took(0.99),
        row.wasted.map_or(String::new(), |count| count.to_string()),
    );
}

/// Cut off, so that only what is whole is shown as 100 %.
fn succeeded(answers: &[Answer]) -> String {
    let ok = answers.iter().filter(|answer| answer.ok).count();
    let share = (ok as f64 / answers.len().max(1) as f64 * 1e4).floor() / 100.0;
    format!("{share:.2} %")
}
