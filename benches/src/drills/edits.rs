//! Edits of manifests under load: from the file in place to the last request that began by the old word.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::time::{Instant, sleep};

use super::Row;
use crate::app::App;
use crate::client::{Answer, Load};
use crate::ground::{Ground, PATIENCE, Programs};
use crate::manifests;

const CONNECTIONS: usize = 50;
const PAUSE: Duration = Duration::from_millis(5);
const URI: &str = "http://front.default.svc.cluster.local/";

pub async fn weight(programs: &Programs) -> anyhow::Result<Vec<Row>> {
    let ground = Ground::new(programs)?;
    let (old, new): (SocketAddr, SocketAddr) = ((ground.ip(10), 8080).into(), (ground.ip(11), 8080).into());
    let (_old, _new) = (App::http(old, "old").await?, App::http(new, "new").await?);
    let mesh = manifests::workload("caller", ground.ip(2))
        + &manifests::service("front", "http", 80, &[old])
        + &manifests::service("old", "http", 80, &[old])
        + &manifests::service("new", "http", 80, &[new]);
    ground.write("mesh.yaml", &mesh)?;
    ground.write("route.yaml", &manifests::split("front", &[("old", 1), ("new", 0)]))?;
    let measured =
        edited(&ground, "route.yaml", &manifests::split("front", &[("old", 0), ("new", 1)])).await?;
    Ok(vec![Row {
        promise: "an edited weight is in force, 50 connections loading it",
        within: Duration::from_secs(1),
        measured,
    }])
}

pub async fn endpoint_moves(programs: &Programs) -> anyhow::Result<Vec<Row>> {
    let ground = Ground::new(programs)?;
    let (old, new): (SocketAddr, SocketAddr) = ((ground.ip(10), 8080).into(), (ground.ip(11), 8080).into());
    let (_old, _new) = (App::http(old, "old").await?, App::http(new, "new").await?);
    ground.write("caller.yaml", &manifests::workload("caller", ground.ip(2)))?;
    ground.write("front.yaml", &manifests::service("front", "http", 80, &[old]))?;
    let measured = edited(&ground, "front.yaml", &manifests::service("front", "http", 80, &[new])).await?;
    Ok(vec![Row {
        promise: "a moved endpoint is in use, 50 connections loading it",
        within: Duration::from_secs(1),
        measured,
    }])
}

/// Brings the mesh up, loads it, writes `file` anew, and says how long the app `old` was still asked. No request may fail.
async fn edited(ground: &Ground, file: &str, text: &str) -> anyhow::Result<Duration> {
    let _control = ground.control().await?;
    let _sidecar = ground.ready_sidecar("caller", 2).await?;
    let load = Load::start(ground.outbound(2), URI, CONNECTIONS, PAUSE);
    load.flows(500).await?;
    ensure!(load.so_far(|answers| answers.iter().all(|answer| body_is(answer, "old"))), "not the old app");
    let edit = ground.write(file, text)?;
    // Until nothing but the new one was heard for as long as the promise is.
    let quiet = Duration::from_secs(1);
    loop {
        let newest = load.so_far(|answers| last_old(answers).unwrap_or(edit));
        let heard = load.so_far(|answers| answers.iter().any(|answer| body_is(answer, "new")));
        if heard && newest.elapsed() > quiet {
            break;
        }
        ensure!(edit.elapsed() < PATIENCE, "the edit is without effect");
        sleep(Duration::from_millis(20)).await;
    }
    let answers = load.finish().await?;
    let last = last_old(&answers).context("the old app was asked before the edit")?;
    Ok(last.saturating_duration_since(edit))
}

/// When the last request began that the app `old` answered.
fn last_old(answers: &[Answer]) -> Option<Instant> {
    answers.iter().filter(|answer| body_is(answer, "old")).map(|answer| answer.begun).max()
}

fn body_is(answer: &Answer, body: &str) -> bool {
    answer.result.as_ref().is_ok_and(|said| **said == *body.as_bytes())
}
