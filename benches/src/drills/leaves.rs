//! Certificates of the shortest life there is, under the load of two programs that nobody here wrote.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::time::{Instant, sleep, timeout};

use super::{Row, address};
use crate::ground::{Ground, PATIENCE, Programs};

/// How long h2load and wrk run: six lives.
const LOAD: Duration = Duration::from_secs(60);
/// Of 10 s a leaf is replaced after half, give or take a tenth of that; the rest is asking for it and looking at the wire.
const REPLACED: Duration = Duration::from_millis(6_500);
const LOOK: Duration = Duration::from_millis(100);

const MESH: &str = "\
apiVersion: outrigger.dev/v1alpha1
kind: Mesh
metadata: {name: default}
spec: {certificate: {lifetime: 10s}, mtls: {mode: Strict}}
---
apiVersion: v1
kind: Service
metadata: {name: echo}
spec: {selector: {app: echo}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: outrigger.dev/v1alpha1
kind: Workload
metadata: {name: echo, labels: {app: echo}}
spec: {ports: [{name: http, port: 8080}], command: [outrigger, sample, echo]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: front}
spec: {gatewayClassName: outrigger, listeners: [{name: http, port: 8080, protocol: HTTP}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: front}
spec: {parentRefs: [{name: front}], rules: [{backendRefs: [{name: echo, port: 80}]}]}
";

pub async fn run(programs: &Programs) -> anyhow::Result<Vec<Row>> {
    let ground = Ground::new(programs)?;
    ground.write("mesh.yaml", MESH)?;
    let up = ground.up().await?;
    let status = up.status().await?;
    let url = status["gateways"][0]["urls"][0].as_str().context("the gateway has a URL")?;
    let callee = format!("{}:8080", address(&status, "echo-0")?);
    let seconds = LOAD.as_secs().to_string();
    // Answers take their time, so that streams and connections are open while leaves change.
    let url = format!("{}/delay/50", url.trim_end_matches('/'));
    let h2load = load("h2load", format!("-D {seconds} -c 8 -m 8 {url}"));
    let wrk = load("wrk", format!("-d {seconds}s -t 1 -c 8 --timeout 20s {url}"));
    let (h2load, wrk, longest) = tokio::try_join!(h2load, wrk, longest(&callee))?;
    ensure!(h2load.contains(" 0 failed, 0 errored, 0 timeout"), "{h2load}");
    ensure!(h2load.contains(" 2xx, 0 3xx, 0 4xx, 0 5xx") && !h2load.contains("codes: 0 2xx"), "{h2load}");
    ensure!(wrk.contains("requests in") && !wrk.contains(" 0 requests in"), "{wrk}");
    ensure!(!wrk.contains("Socket errors") && !wrk.contains("Non-2xx"), "{wrk}");
    Ok(vec![Row {
        promise: "a leaf of 10 s is another one on the wire, no request of h2load and wrk failing in a minute",
        within: REPLACED,
        measured: longest,
    }])
}

/// What a program that loads says at its end.
async fn load(program: &str, arguments: String) -> anyhow::Result<String> {
    let mut command = tokio::process::Command::new(program);
    let output = command.args(arguments.split(' ')).stdin(Stdio::null()).kill_on_drop(true).output();
    let output = timeout(LOAD + PATIENCE, output).await.with_context(|| format!("{program} does not end"))?;
    let output = output.with_context(|| format!("starting {program}"))?;
    ensure!(output.status.success(), "{program}: {output:?}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The longest time for which the callee showed the same certificate, looked at while the load runs.
async fn longest(callee: &str) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let (mut last, mut since, mut longest) = (None, begun, Duration::ZERO);
    while begun.elapsed() < LOAD {
        let at = callee.to_owned();
        let serial = tokio::task::spawn_blocking(move || serial(&at)).await??;
        if last.as_ref() != Some(&serial) {
            (last, since) = (Some(serial), Instant::now());
        }
        longest = longest.max(since.elapsed());
        sleep(LOOK).await;
    }
    Ok(longest)
}

/// Of the certificate that a callee shows whoever calls, before it asks for the caller's.
fn serial(callee: &str) -> anyhow::Result<String> {
    let shown = Command::new("sh")
        .args([
            "-c",
            "openssl s_client -connect \"$0\" -tls1_3 </dev/null 2>&1 | openssl x509 -noout -serial",
            callee,
        ])
        .output()
        .context("starting sh")?;
    let text = String::from_utf8_lossy(&shown.stdout).trim().to_owned();
    ensure!(text.starts_with("serial="), "{callee} showed no certificate: {shown:?}");
    Ok(text)
}
