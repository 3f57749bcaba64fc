//! What a sidecar keeps in memory: idle, and with ten services in use in a small mesh and in a large one.
//!
//! Two control planes, alike but for the number of services, and a sidecar of each. Both carry the same requests over mTLS, to ten
//! services with three instances each, which have sidecars of their own.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
use comfy_table::Table;
use serde_json::Value;
use tokio::time::sleep;

use crate::app::App;
use crate::client::{self, Client};
use crate::ground::{Ground, Process, Programs, Resident};
use crate::manifests;

/// Print what a sidecar keeps in memory, by the size of the mesh
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Services in the large mesh.
    #[arg(long, default_value_t = 5_000)]
    services: usize,
    /// Requests to each of the ten services.
    #[arg(long, default_value_t = 2_000)]
    requests: usize,
}

/// Services in the small mesh.
const FEW: usize = 20;
const USED: usize = 10;
/// Of each service in use.
const INSTANCES: u8 = 3;
/// Connections of the app at a time.
const CONNECTIONS: usize = 16;

/// MiB, by issue and design: idle at most, and apart at most.
const IDLE_LIMIT: f64 = 15.0;
const DIFFERENCE_LIMIT: f64 = 2.0;

pub async fn run(programs: &Programs, args: Args) -> anyhow::Result<bool> {
    ensure!(args.services > FEW, "the large mesh has more than {FEW} services");
    // A round on ground of its own first: the pages of the program are then in the page cache for both.
    measure(programs, FEW, 1).await?;
    let small = measure(programs, FEW, args.requests).await?;
    let large = measure(programs, args.services, args.requests).await?;
    let mut table = Table::new();
    table.set_header([
        "services",
        "idle RSS",
        "own",
        "RSS with 10 in use",
        "own",
        "resources held",
        "control plane RSS",
    ]);
    for (services, figures) in [(FEW, &small), (args.services, &large)] {
        let mib = |mib: f64| format!("{mib:.1} MiB");
        table.add_row([
            services.to_string(),
            mib(figures.idle.all),
            mib(figures.idle.own),
            mib(figures.used.all),
            mib(figures.used.own),
            figures.resources.to_string(),
            mib(figures.control.all),
        ]);
    }
    println!("{table}");
    let idle = small.idle.all.max(large.idle.all);
    let apart = (large.used.all - small.used.all).abs();
    let rows = [
        ("idle RSS of a sidecar", idle, IDLE_LIMIT),
        ("RSS apart, the same ten services in use", apart, DIFFERENCE_LIMIT),
    ];
    for (what, measured, limit) in rows {
        let verdict = if measured <= limit { "met" } else { "NOT MET" };
        println!("{what}: {measured:.1} MiB (promised: at most {limit:.0}): {verdict}");
    }
    ensure!(
        small.resources == large.resources,
        "the sidecar in the large mesh holds {} resources, not {}",
        large.resources,
        small.resources
    );
    Ok(rows.iter().all(|(_, measured, limit)| measured <= limit))
}

struct Figures {
    idle: Resident,
    used: Resident,
    control: Resident,
    /// Pieces of configuration in the sidecar, by its own account.
    resources: usize,
}

async fn measure(programs: &Programs, services: usize, requests: usize) -> anyhow::Result<Figures> {
    let ground = Ground::new(programs)?;
    let mut mesh = manifests::workload("caller", ground.ip(2));
    let mut apps = Vec::new();
    for n in 0..INSTANCES {
        let app = ground.ip(110 + n);
        apps.push(App::http((app, 8080).into(), "the answer of an app").await?);
        mesh.push_str(&manifests::meshed(&format!("callee-{n}"), "callee", ground.ip(100 + n), app));
    }
    let elsewhere: Vec<SocketAddr> = (120..123).map(|host| (ground.ip(host), 8080).into()).collect();
    for n in 0..services {
        mesh.push_str(&match n < USED {
            true => manifests::selecting(&name(n), "callee"),
            false => manifests::service(&name(n), "http", 80, &elsewhere),
        });
    }
    ground.write("mesh.yaml", &mesh)?;
    let control = ground.control().await?;
    let mut callees = Vec::new();
    for n in 0..INSTANCES {
        let (workload, host) = (format!("callee-{n}"), 100 + n);
        let mut command = ground.sidecar(&workload, host)?;
        let callee = ground.start_ready(command.arg("--inbound-listen"), &workload, host).await?;
        callees.push(callee);
    }
    let sidecar = ground.ready_sidecar("caller", 2).await?;
    let idle = settled(&sidecar).await?;
    let mut clients = tokio::task::JoinSet::new();
    let outbound = ground.outbound(2);
    for _ in 0..CONNECTIONS {
        clients.spawn(async move {
            let mut client = Client::connect(outbound).await?;
            for n in 0..USED * requests.div_ceil(CONNECTIONS) {
                let uri = format!("http://{}.default.svc.cluster.local/", name(n % USED));
                let (status, body) = client.get(&uri).await?;
                ensure!(status == 200, "{status} {}", String::from_utf8_lossy(&body));
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = clients.join_next().await {
        done??;
    }
    let used = settled(&sidecar).await?;
    let (_, dump) = client::get(ground.admin(2), "/config_dump").await?;
    let dump: Value = serde_json::from_slice(&dump).context("reading /config_dump")?;
    let resources = dump["resources"].as_array().context("/config_dump without resources")?.len();
    Ok(Figures { idle, used, control: control.resident()?, resources })
}

fn name(n: usize) -> String {
    format!("service-{n:04}")
}

/// Once two looks a second apart agree within a page or so; what is left to be freed is freed by then.
async fn settled(process: &Process) -> anyhow::Result<Resident> {
    let mut last = process.resident()?;
    for _ in 0..10 {
        sleep(Duration::from_secs(1)).await;
        let now = process.resident()?;
        if (now.all - last.all).abs() < 0.05 {
            return Ok(now);
        }
        last = now;
    }
    Ok(last)
}
