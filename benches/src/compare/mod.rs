//! Ours beside HAProxy, nginx and Envoy: the same traffic through each, one worker each, on one core.
//!
//! The figure is CPU time, because it holds on a busy machine where throughput does not. All proxies of a scenario are up at once and
//! loaded in turn, in several rounds; medians count. Every answer is checked, and one that is wrong makes that proxy's figure a failure.

mod backend;
mod certificates;
mod connections;
mod h2load;
mod idle;
pub mod machine;
mod plot;
mod proxies;
mod rate;
mod report;
mod result;
mod scenario;
mod wire;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::time::sleep;

use self::backend::Backend;
use self::certificates::Certificates;
use self::proxies::{Built, PROXIES, Proxy, Running};
use self::result::{Cell, Results, Row, Settings};
use self::scenario::{Load, SCENARIOS, Scenario};
use crate::ground::{Ground, Programs};

/// Compare with other proxies, in CPU time and memory
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only these scenarios (--list names them); without any, all of them.
    names: Vec<String>,
    /// Only these proxies, with commas between.
    #[arg(long, value_delimiter = ',')]
    proxies: Vec<String>,
    /// How often each is measured, in turn with all others; the median counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Of each measurement.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Connections held open by the idle scenarios.
    #[arg(long, default_value_t = 5_000)]
    idle: usize,
    /// Name scenarios and proxies, and end.
    #[arg(long)]
    list: bool,
    /// Measure nothing: print the tables of the runs before.
    #[arg(long)]
    report: bool,
    /// Where results are kept: compare.json, compare.md, compare.svg.
    #[arg(long, default_value = "target/bench", value_name = "DIR")]
    output: PathBuf,
    /// Envoy's program, if it is to be compared with.
    #[arg(long, value_name = "FILE")]
    envoy: Option<PathBuf>,
}

/// Before each measurement: long enough for a proxy that opens a connection with mTLS for every stream of the first burst.
const WARM_UP: Duration = Duration::from_millis(500);
/// Looked at for somebody else's work.
const LOOK: Duration = Duration::from_millis(200);
/// A proxy that has started is at rest then.
const AT_REST: Duration = Duration::from_secs(3);

/// Whether everything could be measured and every target was met.
pub async fn run(programs: &Programs, args: Args) -> anyhow::Result<bool> {
    if args.list {
        for scenario in &SCENARIOS {
            println!("{:10} {} ({})", scenario.name, scenario.what, scenario.unit.name());
        }
        println!("proxies: {}", PROXIES.map(Proxy::name).join(", "));
        return Ok(true);
    }
    let scenarios = chosen(SCENARIOS, |scenario| scenario.name, &args.names)?;
    let proxies = chosen(PROXIES, |proxy| proxy.name(), &args.proxies)?;
    let without_envoy = !proxies.iter().any(|proxy| matches!(proxy, Proxy::Envoy | Proxy::EnvoyMesh));
    ensure!(args.envoy.is_some() || without_envoy, "envoy and envoy-mesh need --envoy FILE");
    let built = Built { ours: programs.proxy.clone(), envoy: args.envoy.clone().unwrap_or_default() };
    fs::create_dir_all(&args.output)?;
    let file = args.output.join("compare.json");
    let mut results = Results::read(&file)?;
    if !args.report {
        results.machine = machine::description();
        for proxy in &proxies {
            results.versions.insert(proxy.name().to_owned(), proxy.version(&built)?);
        }
        for scenario in scenarios {
            let proxies: Vec<_> =
                proxies.iter().copied().filter(|proxy| proxy.has(scenario.setting)).collect();
            let row = measure(scenario, &proxies, programs, &built, &args)
                .await
                .with_context(|| format!("scenario {}", scenario.name))?;
            results.scenarios.insert(scenario.name.to_owned(), row);
            // What was measured stays, should a later scenario fail.
            results.write(&file)?;
        }
    }
    let (targets, met) = report::targets(&results);
    let text = format!(
        "{}\n\n{}\n\n{targets}\n\n{}",
        report::medians(&results),
        report::ratios(&results),
        report::notes(&results)
    );
    println!("{text}");
    fs::write(args.output.join("compare.md"), text)?;
    fs::write(args.output.join("compare.svg"), plot::svg(&results))?;
    let failed =
        results.scenarios.values().flat_map(|row| row.proxies.values()).any(|cell| cell.failed.is_some());
    Ok(met && !failed)
}

fn chosen<T: Copy, const N: usize>(
    all: [T; N],
    name: impl Fn(&T) -> &'static str,
    wanted: &[String],
) -> anyhow::Result<Vec<T>> {
    for one in wanted {
        ensure!(
            all.iter().any(|known| name(known) == one),
            "no {one}; there are {}",
            all.iter().map(&name).collect::<Vec<_>>().join(", ")
        );
    }
    Ok(all
        .into_iter()
        .filter(|one| wanted.is_empty() || wanted.iter().any(|name_| name_ == name(one)))
        .collect())
}

/// One scenario with all proxies, in rounds.
async fn measure(
    scenario: Scenario,
    proxies: &[Proxy],
    programs: &Programs,
    built: &Built,
    args: &Args,
) -> anyhow::Result<Row> {
    let ground = Ground::new(programs)?;
    let certificates = Certificates::make(&ground.path("certificates"))?;
    let _backend = Backend::start(&ground).await?;
    let bench = Bench { scenario, ground: &ground, certificates: &certificates, built, args };
    let mut cells: Vec<(Proxy, Cell)> = proxies.iter().map(|proxy| (*proxy, Cell::default())).collect();
    let mut up = Vec::new();
    if bench.keeps() {
        for proxy in proxies {
            up.push(bench.start(*proxy).await);
        }
    }
    let mut busy_elsewhere = 0.0_f64;
    for round in 0..args.rounds.max(1) {
        // Nobody is always first.
        for turn in 0..cells.len() {
            let index = (turn + round) % cells.len();
            let (proxy, cell) = &mut cells[index];
            if cell.failed.is_some() {
                continue;
            }
            busy_elsewhere = busy_elsewhere.max(machine::busy_elsewhere(LOOK).await?);
            let measured = match up.get(index) {
                Some(Ok(running)) => {
                    bench.once(running, cell).await.map_err(|error| (error, running.log_text()))
                }
                Some(Err(error)) => Err((anyhow::anyhow!("{error:#}"), String::new())),
                None => bench.afresh(*proxy, cell).await.map_err(|error| (error, String::new())),
            };
            match measured {
                Ok(value) => {
                    cell.values.push(value);
                    eprintln!("{} {}: {}: {value:.2}", scenario.name, round + 1, proxy.name());
                }
                Err((error, log)) => {
                    eprintln!("{} {}: {}: FAILED: {error:#}\n{log}", scenario.name, round + 1, proxy.name());
                    cell.failed = Some(format!("{error:#}").lines().next().unwrap_or_default().to_owned());
                }
            }
        }
    }
    let profile = if programs.quick { "quick" } else { "release" };
    Ok(Row {
        what: scenario.what.to_owned(),
        unit: scenario.unit.name().to_owned(),
        settings: Settings {
            profile: profile.to_owned(),
            rounds: args.rounds,
            seconds: args.seconds,
            busy_elsewhere,
        },
        proxies: cells.into_iter().map(|(proxy, cell)| (proxy.name().to_owned(), cell)).collect(),
    })
}

/// One scenario on its ground.
struct Bench<'a> {
    scenario: Scenario,
    ground: &'a Ground,
    certificates: &'a Certificates,
    built: &'a Built,
    args: &'a Args,
}

impl Bench<'_> {
    /// Whether proxies stay up from round to round; what memory they keep is told by a fresh one.
    fn keeps(&self) -> bool {
        !matches!(self.scenario.load, Load::Idle | Load::Start | Load::Program)
    }

    async fn start(&self, proxy: Proxy) -> anyhow::Result<Running> {
        proxy.start(self.ground, self.certificates, self.built, self.scenario.setting).await
    }

    /// CPU time for each, or bytes for it; latencies go into the cell.
    async fn once(&self, running: &Running, cell: &mut Cell) -> anyhow::Result<f64> {
        self.load(running, WARM_UP, &mut Cell::default()).await.context("warming up")?;
        let before = running.cpu()?;
        let done = self.load(running, Duration::from_secs_f64(self.args.seconds), cell).await?;
        let cpu = (running.cpu()? - before).as_secs_f64();
        Ok(match self.scenario.load {
            Load::Closed { body, .. } if self.scenario.unit.more_is_better() => {
                (done * body.answered()) as f64 / 1e6 / cpu
            }
            _ => cpu * 1e6 / done as f64,
        })
    }

    /// Loads a proxy for `time`; returns how many requests were answered.
    async fn load(&self, running: &Running, time: Duration, cell: &mut Cell) -> anyhow::Result<u64> {
        let setting = self.scenario.setting;
        match self.scenario.load {
            Load::Closed { connections, streams, body } => {
                let shape = h2load::Shape { connections, streams, body };
                h2load::run(self.ground, running.at, setting, shape, time).await
            }
            Load::Rate { connections, per_second } => {
                let latencies = rate::run(running.at, connections, per_second, time).await?;
                cell.p50.push(latencies.quantile(0.5));
                cell.p99.push(latencies.quantile(0.99));
                Ok(latencies.count())
            }
            Load::Connections { tls } => {
                connections::run(running.at, self.certificates, running.proxy.alpn(setting), tls, time).await
            }
            Load::Idle | Load::Start | Load::Program => anyhow::bail!("nothing is loaded here"),
        }
    }

    /// What memory tells, of a proxy that has just been started.
    async fn afresh(&self, proxy: Proxy, _: &mut Cell) -> anyhow::Result<f64> {
        let mebi = 1024.0 * 1024.0;
        if self.scenario.load == Load::Program {
            let program = proxy.program(self.built);
            return Ok(fs::metadata(&program)?.len() as f64 / mebi);
        }
        let running = self.start(proxy).await?;
        if self.scenario.load == Load::Start {
            sleep(AT_REST).await;
            return Ok(running.resident()?.all);
        }
        machine::can_open(self.args.idle)?;
        idle::run(&running, self.certificates, self.scenario.setting, self.args.idle)
            .await
            .with_context(|| running.log_text())
    }
}
