//! How a sidecar ends: soon when nothing is open, and by its deadline whatever is.

use std::time::Duration;

use anyhow::ensure;
use nix::sys::signal::Signal;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use super::Row;
use crate::app::App;
use crate::ground::{Ground, Programs};
use crate::manifests;

const WINDOW: Duration = Duration::from_secs(1);
const DEADLINE: Duration = Duration::from_secs(3);
/// A pause of 0.2 s without a request is waited for, and the process has to end.
const SLACK: Duration = Duration::from_millis(500);

pub async fn run(programs: &Programs) -> anyhow::Result<Vec<Row>> {
    Ok(vec![
        Row {
            promise: "an idle sidecar ends after its window of 1 s",
            within: WINDOW + SLACK,
            measured: ending(programs, false).await?,
        },
        Row {
            promise: "a sidecar ends by its deadline of 3 s, an exchange stuck in it",
            within: DEADLINE + SLACK,
            measured: ending(programs, true).await?,
        },
    ])
}

/// From SIGTERM to the end of the process; with `stuck`, while a request to its app is never answered.
async fn ending(programs: &Programs, stuck: bool) -> anyhow::Result<Duration> {
    let ground = Ground::new(programs)?;
    let _app = App::silent((ground.ip(10), 8080).into()).await?;
    let workload = manifests::workload("callee", ground.ip(2))
        .replace("ports:", &format!("appAddress: \"{}\", ports:", ground.ip(10)));
    ground.write("mesh.yaml", &workload)?;
    let _control = ground.control().await?;
    let mut command = ground.sidecar("callee", 2)?;
    command.arg("--inbound-listen");
    command.args(["--drain-window", &format!("{}s", WINDOW.as_secs())]);
    command.args(["--drain-deadline", &format!("{}s", DEADLINE.as_secs())]);
    let mut sidecar = ground.start_ready(&mut command, "callee", 2).await?;
    let mut open: Option<TcpStream> = None;
    if stuck {
        let mut stream = TcpStream::connect((ground.ip(2), 8080)).await?;
        tokio::io::AsyncWriteExt::write_all(&mut stream, b"GET / HTTP/1.1\r\nhost: callee\r\n\r\n").await?;
        // The app has it once it was accepted; there is no answer to wait for.
        sleep(Duration::from_millis(300)).await;
        open = Some(stream);
    }
    let begun = Instant::now();
    sidecar.signal(Signal::SIGTERM)?;
    sidecar.ended().await?;
    let took = begun.elapsed();
    ensure!(took >= WINDOW, "callers had only {took:?} to hear of it");
    drop(open);
    Ok(took)
}
