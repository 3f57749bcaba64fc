//! Protocols on a port that declares none: servers that speak first, and clients that say nothing.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::Row;
use crate::app::App;
use crate::ground::{Ground, PATIENCE, Programs};
use crate::manifests;

const BANNER: &str = "220 welcome\r\n";

pub async fn run(programs: &Programs) -> anyhow::Result<Vec<Row>> {
    let ground = Ground::new(programs)?;
    let server = (ground.ip(10), 7000).into();
    let _server = App::server_first(server, BANNER).await?;
    let mesh = manifests::workload("caller", ground.ip(2))
        + &manifests::service("banner", "undeclared", 7000, &[server]);
    ground.write("mesh.yaml", &mesh)?;
    let _control = ground.control().await?;
    let mut command = ground.sidecar("caller", 2)?;
    let stands_for = SocketAddr::from((ground.ip(20), 7000));
    command.args(["--service-address", &format!("{stands_for}=banner.default.svc.cluster.local:7000")]);
    let _sidecar = ground.start_ready(&mut command, "caller", 2).await?;
    let (first, later) = (banner(stands_for).await?, banner(stands_for).await?);
    Ok(vec![
        Row {
            promise: "the banner of a server that speaks first, on an undeclared port",
            within: Duration::from_millis(500),
            measured: first,
        },
        Row { promise: "the same, once it is known", within: Duration::from_millis(50), measured: later },
    ])
}

/// From the connection to the last byte of the banner.
async fn banner(address: SocketAddr) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let mut stream = TcpStream::connect(address).await?;
    let mut said = vec![0; BANNER.len()];
    timeout(PATIENCE, stream.read_exact(&mut said)).await.context("no banner")??;
    ensure!(said == BANNER.as_bytes(), "another banner");
    Ok(begun.elapsed())
}
