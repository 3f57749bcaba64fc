//! Endpoints that go without a word, and requests that wait for one to come.

use std::time::Duration;

use anyhow::{Context, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::Row;
use crate::app::App;
use crate::client::{self, Client};
use crate::ground::{Ground, PATIENCE, Programs};
use crate::manifests;

/// `kill -9` of one app of three under `outrigger up`, until the gateway no longer counts it among the healthy.
pub async fn dies(programs: &Programs) -> anyhow::Result<Vec<Row>> {
    let ground = Ground::new(programs)?;
    ground.write("mesh.yaml", THREE)?;
    let mesh = ground.up().await?;
    let status = mesh.status().await?;
    let admin = status["gateways"][0]["metrics"]
        .as_str()
        .and_then(|url| url.strip_prefix("http://")?.strip_suffix(":15020/metrics"))
        .context("the gateway has an address")?;
    let admin = format!("{admin}:15000").parse()?;
    let url = status["gateways"][0]["urls"][0].as_str().context("the gateway has a URL")?;
    let front = url.trim_start_matches("http://").parse()?;
    // The first request brings the cluster.
    let (code, _) = client::get(front, "/").await?;
    ensure!(code == 200, "{code} through the gateway");
    ensure!(healthy(admin).await? == 3, "three endpoints are healthy");
    let pid = status["workloads"][0]["pid"].as_i64().context("an app has a pid")?;
    let begun = Instant::now();
    kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGKILL)?;
    while healthy(admin).await? == 3 {
        ensure!(begun.elapsed() < PATIENCE, "the dead endpoint stays");
        sleep(Duration::from_millis(2)).await;
    }
    Ok(vec![Row {
        promise: "an app that was killed is out of its callers' choice (outrigger up)",
        within: Duration::from_secs(1),
        measured: begun.elapsed(),
    }])
}

/// Endpoints that the proxy with this admin port would choose from.
async fn healthy(admin: std::net::SocketAddr) -> anyhow::Result<usize> {
    let (_, clusters) = client::get(admin, "/clusters").await?;
    let clusters: Value = serde_json::from_slice(&clusters).context("reading /clusters")?;
    let endpoints = clusters["clusters"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|cluster| cluster["endpoints"].as_array().into_iter().flatten());
    Ok(endpoints.filter(|endpoint| endpoint["health"] == "Healthy").count())
}

/// A request to a service without an endpoint: answered at once when one comes, and refused when none does.
pub async fn none_ready(programs: &Programs) -> anyhow::Result<Vec<Row>> {
    let ground = Ground::new(programs)?;
    let app = (ground.ip(10), 8080).into();
    let _app = App::http(app, "here").await?;
    ground.write("caller.yaml", &manifests::workload("caller", ground.ip(2)))?;
    ground.write("late.yaml", &manifests::service("late", "http", 80, &[]))?;
    let _control = ground.control().await?;
    let _sidecar = ground.ready_sidecar("caller", 2).await?;
    let uri = "http://late.default.svc.cluster.local/";

    let begun = Instant::now();
    let (status, body) = client::get(ground.outbound(2), uri).await?;
    let refused = begun.elapsed();
    ensure!(status == 503, "{status} {}", String::from_utf8_lossy(&body));

    let mut client = Client::connect(ground.outbound(2)).await?;
    let waiting = tokio::spawn(async move { client.get(uri).await });
    sleep(Duration::from_millis(500)).await;
    let there = ground.write("late.yaml", &manifests::service("late", "http", 80, &[app]))?;
    let (status, body) = waiting.await??;
    ensure!(status == 200, "{status} {}", String::from_utf8_lossy(&body));
    Ok(vec![
        Row {
            promise: "503 where no endpoint is ready, after 3 s of waiting",
            within: Duration::from_millis(3_100),
            measured: refused,
        },
        Row {
            promise: "a request that waits for an endpoint is answered once there is one",
            within: Duration::from_secs(1),
            measured: there.elapsed(),
        },
    ])
}

const THREE: &str = "\
apiVersion: v1
kind: Service
metadata: {name: echo}
spec: {selector: {app: echo}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: outrigger.dev/v1alpha1
kind: Workload
metadata: {name: echo, labels: {app: echo}}
spec:
  replicas: 3
  ports: [{name: http, port: 8080}]
  command: [outrigger, sample, echo]
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: front}
spec:
  gatewayClassName: outrigger
  listeners: [{name: http, port: 8080, protocol: HTTP}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: echo}
spec:
  parentRefs: [{name: front}]
  rules: [{backendRefs: [{name: echo, port: 80}]}]
";
