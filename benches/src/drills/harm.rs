//! An experiment that does harm under load: from its file in place to the last request that it spoiled, at each of two callers.

use std::time::Duration;

use anyhow::ensure;
use tokio::time::{Instant, sleep};

use super::Row;
use crate::app::App;
use crate::client::{Answer, Load};
use crate::ground::{Ground, PATIENCE, Programs};
use crate::manifests;

const CONNECTIONS: usize = 25;
const PAUSE: Duration = Duration::from_millis(5);
const URI: &str = "http://front.default.svc.cluster.local/";

/// Half of all calls wait for longer than they have, where nine of ten are to succeed.
const EXPERIMENT: &str = "apiVersion: outrigger.dev/v1alpha1\n\
    kind: TrafficPolicy\n\
    metadata: {name: harmful}\n\
    spec:\n  \
      targetRefs: [{kind: Service, name: front}]\n  \
      timeout: {request: 200ms}\n  \
      fault:\n    \
        stopIf: {successRateBelow: 90}\n    \
        faults: [{percent: 50, delay: {fixed: 10s}}]\n";

pub async fn run(programs: &Programs) -> anyhow::Result<Vec<Row>> {
    let ground = Ground::new(programs)?;
    let app = (ground.ip(10), 8080).into();
    let _app = App::http(app, "fine").await?;
    let callers = [("first", 2), ("second", 3)];
    let mut mesh = manifests::service("front", "http", 80, &[app]);
    for (caller, host) in callers {
        mesh += &manifests::workload(caller, ground.ip(host));
    }
    ground.write("mesh.yaml", &mesh)?;
    let _control = ground.control().await?;
    let (mut sidecars, mut loads) = (Vec::new(), Vec::new());
    for (caller, host) in callers {
        sidecars.push(ground.ready_sidecar(caller, host).await?);
        let load = Load::start(ground.outbound(host), URI, CONNECTIONS, PAUSE);
        load.flows(500).await?;
        ensure!(
            load.so_far(|answers| last_spoiled(answers).is_none()),
            "it fails before anything is done to it"
        );
        loads.push(load);
    }
    let begun = ground.write("harmful.yaml", EXPERIMENT)?;
    let quiet = Duration::from_secs(2);
    let mut measured = Duration::ZERO;
    for load in &loads {
        let last = loop {
            let last = load.so_far(last_spoiled);
            if let Some(last) = last.filter(|last| last.elapsed() > quiet) {
                break last;
            }
            ensure!(begun.elapsed() < PATIENCE, "it goes on, or never began");
            sleep(Duration::from_millis(20)).await;
        };
        measured = measured.max(last.saturating_duration_since(begun));
    }
    // That it is quiet is not for want of requests.
    for load in loads {
        let since =
            |answers: &[Answer]| answers.iter().filter(|answer| answer.begun.elapsed() < quiet).count();
        ensure!(load.so_far(since) > 100, "hardly anybody asks");
    }
    Ok(vec![Row {
        promise: "an experiment that does harm is over (stopIf), 50 connections loading it",
        within: Duration::from_secs(5),
        measured,
    }])
}

/// When the last request began that was not answered well.
fn last_spoiled(answers: &[Answer]) -> Option<Instant> {
    answers.iter().filter(|answer| answer.result.is_err()).map(|answer| answer.begun).max()
}
