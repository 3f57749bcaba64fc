//! How soon a sidecar serves: beside a control plane, and from its disk copy without one.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::time::{Instant, sleep};

use super::Row;
use crate::app::App;
use crate::client;
use crate::ground::{Ground, PATIENCE, Programs};
use crate::manifests;

/// No figure is promised elsewhere: a pod waits for its sidecar before its app starts, and nobody should notice.
const START: Duration = Duration::from_millis(500);

pub async fn start(programs: &Programs) -> anyhow::Result<Vec<Row>> {
    let ground = Ground::new(programs)?;
    ground.write("mesh.yaml", &manifests::workload("caller", ground.ip(2)))?;
    let _control = ground.control().await?;
    let mut command = ground.sidecar("caller", 2)?;
    let begun = Instant::now();
    let _sidecar = ground.start_ready(&mut command, "caller", 2).await?;
    Ok(vec![Row { promise: "a sidecar is ready, from its start", within: START, measured: begun.elapsed() }])
}

pub async fn disk_copy(programs: &Programs) -> anyhow::Result<Vec<Row>> {
    let ground = Ground::new(programs)?;
    let app = (ground.ip(10), 8080).into();
    let _app = App::http(app, "here").await?;
    let mesh = manifests::workload("caller", ground.ip(2)) + &manifests::service("echo", "http", 80, &[app]);
    ground.write("mesh.yaml", &mesh)?;
    let control = ground.control().await?;
    std::fs::create_dir(ground.path("identity"))?;
    let sidecar = || {
        let mut command = ground.sidecar("caller", 2)?;
        command.arg("--state-dir").arg(ground.path("state"));
        command.arg("--identity-dir").arg(ground.path("identity"));
        anyhow::Ok(command)
    };
    let first = ground.start_ready(&mut sidecar()?, "caller", 2).await?;
    let uri = "http://echo.default.svc.cluster.local/";
    let (status, _) = client::get(ground.outbound(2), uri).await?;
    ensure!(status == 200, "{status} beside the control plane");
    // The copy is written a moment after what it copies was applied.
    let begun = Instant::now();
    while !kept(&ground.path("state"), "echo")? {
        ensure!(begun.elapsed() < PATIENCE, "nothing of the service is in the disk copy");
        sleep(Duration::from_millis(20)).await;
    }
    drop(control);
    drop(first);
    let mut again = sidecar()?;
    let begun = Instant::now();
    let _second = ground.start(&mut again, "caller")?;
    loop {
        if let Ok((200, _)) = client::get(ground.outbound(2), uri).await {
            break;
        }
        ensure!(begun.elapsed() < PATIENCE, "it does not serve from its disk copy");
        sleep(Duration::from_millis(2)).await;
    }
    Ok(vec![Row {
        promise: "a sidecar restarted without a control plane answers",
        within: START,
        measured: begun.elapsed(),
    }])
}

/// Whether any file of the copy speaks of `name`.
fn kept(folder: &Path, name: &str) -> anyhow::Result<bool> {
    for file in std::fs::read_dir(folder).context("reading the disk copy")? {
        let bytes = std::fs::read(file?.path()).unwrap_or_default();
        if bytes.windows(name.len()).any(|window| window == name.as_bytes()) {
            return Ok(true);
        }
    }
    Ok(false)
}
