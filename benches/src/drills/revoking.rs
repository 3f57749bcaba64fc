//! Access taken away: from the edited policy to the end of everything the caller has open, in a mesh with identities.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Row, address};
use crate::ground::{Ground, PATIENCE, Programs};

const PROMISE: Duration = Duration::from_secs(5);

/// Two callers; `echo` speaks HTTP, and to `raw` everything is bytes. Somebody has to be at the door of a mesh.
const MESH: &str = "\
apiVersion: v1
kind: Service
metadata: {name: echo}
spec: {selector: {app: echo}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: raw}
spec: {selector: {app: raw}, ports: [{name: tcp, port: 9000, targetPort: 8080}]}
---
apiVersion: outrigger.dev/v1alpha1
kind: Workload
metadata: {name: echo, labels: {app: echo}}
spec: {ports: [{name: http, port: 8080}], command: [outrigger, sample, echo]}
---
apiVersion: outrigger.dev/v1alpha1
kind: Workload
metadata: {name: raw, labels: {app: raw}}
spec: {ports: [{name: tcp, port: 8080, appProtocol: tcp}], command: [outrigger, sample, echo]}
---
apiVersion: outrigger.dev/v1alpha1
kind: Workload
metadata: {name: stays}
spec: {serviceAccount: stays, command: [sleep, infinity]}
---
apiVersion: outrigger.dev/v1alpha1
kind: Workload
metadata: {name: leaves}
spec: {serviceAccount: leaves, command: [sleep, infinity]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: front}
spec: {gatewayClassName: outrigger, listeners: [{name: http, port: 8080, protocol: HTTP}]}
";

pub async fn run(programs: &Programs) -> anyhow::Result<Vec<Row>> {
    let ground = Ground::new(programs)?;
    ground.write("mesh.yaml", MESH)?;
    ground.write("policy.yaml", &policy("rules: [{}]"))?;
    let up = ground.up().await?;
    let status = up.status().await?;
    let address = |instance: &str| address(&status, instance);
    let (stays, leaves) = (address("stays-0")?, address("leaves-0")?);
    let (echo, raw) = (address("echo-0")?, address("raw-0")?);

    let mut other = Open::through(stays).await?;
    let revoked = Open::through(leaves).await?;
    let begun = ground
        .write("policy.yaml", &policy("rules: [{}, {action: Deny, from: [{serviceAccounts: [leaves]}]}]"))?;
    revoked.ended().await?;
    let access = begun.elapsed();
    other.works().await.context("another caller was touched")?;

    let mut plaintext = (upgraded(direct(echo).await?).await?, upgraded(direct(raw).await?).await?);
    let begun = ground.write("policy.yaml", &policy("mtls: {mode: Strict}"))?;
    ended(&mut plaintext.0).await?;
    ended(&mut plaintext.1).await?;
    let strict = begun.elapsed();
    other.works().await.context("mTLS was touched")?;
    drop(up);
    Ok(vec![
        Row {
            promise: "a revoked caller's HTTP/2 stream, tunnel and TCP connection end, others do not",
            within: PROMISE,
            measured: access,
        },
        Row {
            promise: "from Permissive to Strict, plaintext connections end",
            within: PROMISE,
            measured: strict,
        },
    ])
}

fn policy(spec: &str) -> String {
    format!(
        "apiVersion: outrigger.dev/v1alpha1\nkind: AccessPolicy\nmetadata: {{name: p}}\nspec: {{{spec}}}\n"
    )
}

/// What one caller has open.
struct Open {
    /// An answer that is waited for.
    stream: tokio::task::JoinHandle<()>,
    tunnel: TcpStream,
    bytes: TcpStream,
}

impl Open {
    async fn through(caller: IpAddr) -> anyhow::Result<Self> {
        let io = TokioIo::new(connected(caller, "echo.default:80").await?);
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await?;
        tokio::spawn(connection);
        let stream = tokio::spawn(async move {
            let request = Request::get("http://echo.default/delay/600000").body(Empty::<Bytes>::new());
            // 403, or a reset: it is over either way.
            let _ = sender.send_request(request.expect("a valid request")).await;
        });
        let mut open = Self {
            stream,
            tunnel: upgraded(connected(caller, "echo.default:80").await?).await?,
            bytes: upgraded(connected(caller, "raw.default:9000").await?).await?,
        };
        // The stream has been opened, too, when bytes that were sent later have come back.
        open.works().await?;
        Ok(open)
    }

    async fn works(&mut self) -> anyhow::Result<()> {
        ensure!(!self.stream.is_finished(), "the stream has ended");
        for stream in [&mut self.tunnel, &mut self.bytes] {
            stream.write_all(b"ping").await?;
            let mut back = [0; 4];
            timeout(PATIENCE, stream.read_exact(&mut back)).await??;
            ensure!(&back == b"ping", "other bytes came back");
        }
        Ok(())
    }

    async fn ended(mut self) -> anyhow::Result<()> {
        timeout(PATIENCE, self.stream).await??;
        ended(&mut self.tunnel).await?;
        ended(&mut self.bytes).await
    }
}

async fn ended(stream: &mut TcpStream) -> anyhow::Result<()> {
    let end = timeout(PATIENCE, stream.read(&mut [0; 16])).await?;
    ensure!(matches!(end, Ok(0) | Err(_)), "bytes came instead of the end");
    Ok(())
}

/// As the sidecar's own app reaches a service.
async fn connected(caller: IpAddr, service: &str) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect((caller, 15001)).await?;
    stream.write_all(format!("CONNECT {service} HTTP/1.1\r\nHost: {service}\r\n\r\n").as_bytes()).await?;
    let head = head(&mut stream).await?;
    ensure!(head.starts_with("HTTP/1.1 200"), "{head}");
    Ok(stream)
}

/// Past every sidecar but the callee's.
async fn direct(callee: IpAddr) -> anyhow::Result<TcpStream> {
    Ok(TcpStream::connect(SocketAddr::from((callee, 8080))).await?)
}

/// The echo sample sends everything back from here on.
async fn upgraded(mut stream: TcpStream) -> anyhow::Result<TcpStream> {
    stream.set_nodelay(true)?;
    let ask = b"GET /upgrade HTTP/1.1\r\nHost: echo\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
    stream.write_all(ask).await?;
    let head = head(&mut stream).await?;
    ensure!(head.starts_with("HTTP/1.1 101"), "{head}");
    Ok(stream)
}

/// A head, byte by byte: what follows is not ours.
async fn head(stream: &mut TcpStream) -> anyhow::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(timeout(PATIENCE, stream.read_u8()).await??);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}
