//! The first use of a service asks the control plane for it, in a mesh of many.

use std::time::Duration;

use anyhow::ensure;
use tokio::time::Instant;

use super::Row;
use crate::app::App;
use crate::client;
use crate::ground::{Ground, Programs};
use crate::manifests;

const SERVICES: usize = 1_000;
const USED: usize = 20;

pub async fn run(programs: &Programs) -> anyhow::Result<Vec<Row>> {
    let ground = Ground::new(programs)?;
    let app = (ground.ip(10), 8080).into();
    let _app = App::http(app, "here").await?;
    let mut mesh = manifests::workload("caller", ground.ip(2));
    for n in 0..SERVICES {
        mesh.push_str(&manifests::service(&format!("service-{n}"), "http", 80, &[app]));
    }
    ground.write("mesh.yaml", &mesh)?;
    let control = ground.control().await?;
    let _sidecar = ground.ready_sidecar("caller", 2).await?;
    let mut slowest = Duration::ZERO;
    for n in 0..USED {
        let uri = format!("http://service-{n}.default.svc.cluster.local/");
        let begun = Instant::now();
        let (status, body) = client::get(ground.outbound(2), &uri).await?;
        slowest = slowest.max(begun.elapsed());
        ensure!(status == 200, "{status} {}", String::from_utf8_lossy(&body));
    }
    drop(control);
    let begun = Instant::now();
    let (status, body) =
        client::get(ground.outbound(2), "http://service-999.default.svc.cluster.local/").await?;
    let refused = begun.elapsed();
    ensure!(status == 503, "{status} {}", String::from_utf8_lossy(&body));
    Ok(vec![
        Row {
            promise: "the first request to a service is answered (on-demand subscription)",
            within: Duration::from_secs(1),
            measured: slowest,
        },
        Row {
            promise: "503 where nobody can be asked, after 1 s of waiting at most",
            within: Duration::from_millis(1_100),
            measured: refused,
        },
    ])
}
