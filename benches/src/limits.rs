//! What a rate limit costs the sidecar that enforces it: CPU for a request with none, with one that the instance counts for itself, and with one that a server
//! counts for all instances, each asked for what it allows to many requests.
//!
//! Three callee sidecars stand side by side, the control plane counts for the third, and they take turns: a machine that is busier for a while is so for all.

use std::time::Duration;

use clap::Args as ClapArgs;

use crate::app::App;
use crate::client::{self, Load};
use crate::ground::{Ground, Process, Programs};
use crate::manifests;

/// CPU of a request with a rate limit of each kind
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Turns of each sidecar.
    #[arg(long, default_value_t = 30)]
    rounds: usize,
    /// How long a turn takes.
    #[arg(long, default_value_t = 1_000)]
    milliseconds: u64,
    /// Keep-alive connections.
    #[arg(long, default_value_t = 16)]
    connections: usize,
}

/// More CPU at most than what an instance counts for itself, in per cent.
const PROMISE: f64 = 1.0;

/// More than any machine sends.
const ALLOWED: u32 = 1_000_000;

struct Kind {
    name: &'static str,
    section: Option<String>,
}

pub async fn run(programs: &Programs, args: Args) -> anyhow::Result<bool> {
    let key = "key: [{by: Address}]";
    let limit = |more: &str| Some(format!("{{limits: [{{requests: {ALLOWED}, {key}{more}}}]}}"));
    let kinds = [
        Kind { name: "none", section: None },
        Kind { name: "local", section: limit("") },
        Kind {
            name: "shared",
            section: limit(", scope: Service, shared: {failureMode: Closed, timeout: 5s}"),
        },
    ];
    let ground = Ground::new(programs)?;
    let (mut apps, mut text) = (Vec::new(), String::new());
    for (host, kind) in (10..).step_by(2).zip(&kinds) {
        let Kind { name, section } = kind;
        apps.push(App::http((ground.ip(host + 1), 8080).into(), "ok").await?);
        text += &manifests::selecting(name, name);
        text += &manifests::meshed(name, name, ground.ip(host), ground.ip(host + 1));
        if let Some(section) = section {
            text += &format!(
                "apiVersion: outrigger.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: {name}}}\n\
                 spec: {{targetRefs: [{{kind: Service, name: {name}}}], rateLimit: {section}}}\n---\n"
            );
        }
    }
    ground.write("mesh.yaml", &text)?;
    let _control = ground.control().await?;
    let mut sidecars = Vec::new();
    for (host, kind) in (10..).step_by(2).zip(&kinds) {
        let mut command = ground.sidecar(kind.name, host)?;
        command.args(["--inbound-listen", "--workers", "1"]);
        sidecars.push((kind.name, host, ground.start_ready(&mut command, kind.name, host).await?));
    }
    let mut costs: Vec<Vec<f64>> = vec![Vec::new(); kinds.len()];
    let mut requests = 0;
    // The first round warms up.
    for round in 0..=args.rounds {
        for (index, (_, host, process)) in sidecars.iter().enumerate() {
            let (cost, answers) = turn(&ground, *host, process, &args).await?;
            if round > 0 {
                costs[index].push(cost);
                requests += answers;
            }
        }
    }
    let asked = metric(&ground, sidecars[2].1, "outrigger_limit_asked_total").await?;
    let middle = |costs: &[f64]| {
        let mut sorted = costs.to_vec();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    };
    println!("{:8} {:>18} {:>14} {:>14}", "limit", "CPU us a request", "over none", "over local");
    for ((name, ..), mine) in sidecars.iter().zip(&costs) {
        // Turn by turn: what one round has of noise its neighbours have, too.
        let over = |other: &[f64]| {
            let ratios: Vec<_> = mine.iter().zip(other).map(|(mine, other)| mine / other).collect();
            (middle(&ratios) - 1.0) * 100.0
        };
        println!("{name:8} {:18.2} {:13.2}% {:13.2}%", middle(mine), over(&costs[0]), over(&costs[1]));
    }
    let ratios: Vec<_> = costs[2].iter().zip(&costs[1]).map(|(shared, local)| shared / local).collect();
    let more = (middle(&ratios) - 1.0) * 100.0;
    println!("{requests} requests in {} turns of each; the server was asked {asked} times", args.rounds);
    println!("a shared limit costs {more:.2} % more than a local one; promised: at most {PROMISE} %");
    Ok(more <= PROMISE)
}

/// Microseconds of CPU a request, and how many there were.
async fn turn(ground: &Ground, host: u8, process: &Process, args: &Args) -> anyhow::Result<(f64, usize)> {
    let load = Load::start((ground.ip(host), 8080).into(), "/", args.connections, Duration::ZERO);
    load.flows(args.connections * 10).await?;
    let (before, begun) = (process.cpu()?, load.so_far(<[_]>::len));
    tokio::time::sleep(Duration::from_millis(args.milliseconds)).await;
    let (after, ended) = (process.cpu()?, load.so_far(<[_]>::len));
    load.finish().await?;
    Ok(((after - before).as_secs_f64() * 1e6 / (ended - begun) as f64, ended - begun))
}

async fn metric(ground: &Ground, host: u8, name: &str) -> anyhow::Result<f64> {
    let (_, page) = client::get((ground.ip(host), 15020).into(), "/metrics").await?;
    let text = String::from_utf8_lossy(&page).into_owned();
    let samples = text.lines().filter(|line| line.starts_with(name));
    Ok(samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}
