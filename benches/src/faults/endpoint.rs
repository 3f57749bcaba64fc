//! An app as a process of its own, which can be stopped and told how to fail: `outrigger-bench … endpoint ADDRESS`.
//!
//! Written by hand on bytes: a reset, a silence and a count of every request that arrived are what it is for. Port 8080 of its address is the app,
//! port 8081 sets what it does (`GET /resets`) and tells how many requests it read (`GET /count`).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::client;
use crate::ground::{Ground, Process, Programs};

/// How an endpoint behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    Well,
    /// Reads a request and resets the connection.
    Resets,
    /// Answers 503 at once.
    Unavailable,
    /// Answers after [`SLOW`].
    Slow,
    /// Reads and never answers.
    Silent,
}

impl Mode {
    const ALL: [Self; 5] = [Self::Well, Self::Resets, Self::Unavailable, Self::Slow, Self::Silent];

    fn path(self) -> &'static str {
        match self {
            Self::Well => "/well",
            Self::Resets => "/resets",
            Self::Unavailable => "/unavailable",
            Self::Slow => "/slow",
            Self::Silent => "/silent",
        }
    }
}

/// Within every timeout, and far from what the others need.
pub const SLOW: Duration = Duration::from_millis(500);

const APP_PORT: u16 = 8080;
const CONTROL_PORT: u16 = 8081;

/// Be an endpoint that fails as it is told
#[derive(Debug, clap::Args)]
pub struct Args {
    address: IpAddr,
}

#[derive(Debug, Default)]
struct State {
    mode: AtomicU8,
    read: AtomicU64,
}

/// Serves until the process is ended.
pub async fn run(args: Args) -> anyhow::Result<bool> {
    let state = Arc::new(State::default());
    let app = TcpListener::bind((args.address, APP_PORT)).await?;
    let control = TcpListener::bind((args.address, CONTROL_PORT)).await?;
    loop {
        let (stream, is_app) = tokio::select! {
            accepted = app.accept() => (accepted?.0, true),
            accepted = control.accept() => (accepted?.0, false),
        };
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            // A connection that breaks is its client's affair.
            let _ = if is_app { serve(stream, &state).await } else { obey(stream, &state).await };
        });
    }
}

async fn serve(mut stream: TcpStream, state: &State) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut read = Vec::new();
    while let Some(_head) = head(&mut stream, &mut read).await? {
        state.read.fetch_add(1, Ordering::Relaxed);
        match Mode::ALL[usize::from(state.mode.load(Ordering::Relaxed))] {
            Mode::Well => answer(&mut stream, "200 OK", "ok").await?,
            Mode::Resets => return stream.set_zero_linger(),
            Mode::Unavailable => answer(&mut stream, "503 Service Unavailable", "no").await?,
            Mode::Slow => {
                tokio::time::sleep(SLOW).await;
                answer(&mut stream, "200 OK", "ok").await?;
            }
            // Until the caller gives up.
            Mode::Silent => {
                stream.read_u8().await?;
                return Ok(());
            }
        }
    }
    Ok(())
}

async fn obey(mut stream: TcpStream, state: &State) -> std::io::Result<()> {
    let mut read = Vec::new();
    while let Some(head) = head(&mut stream, &mut read).await? {
        let path = head.split(' ').nth(1).unwrap_or_default();
        let mode = Mode::ALL.iter().position(|mode| mode.path() == path);
        if let Some(mode) = mode {
            state.mode.store(mode as u8, Ordering::Relaxed);
        }
        let known = mode.is_some() || path == "/count";
        let status = if known { "200 OK" } else { "404 Not Found" };
        answer(&mut stream, status, &state.read.load(Ordering::Relaxed).to_string()).await?;
    }
    Ok(())
}

/// The next request's head; `None` at the end of the connection. Requests have no bodies here.
async fn head(stream: &mut TcpStream, read: &mut Vec<u8>) -> std::io::Result<Option<String>> {
    loop {
        if let Some(end) = read.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            let head = read.drain(..end + 4).collect::<Vec<_>>();
            return Ok(Some(String::from_utf8_lossy(&head).into_owned()));
        }
        if stream.read_buf(read).await? == 0 {
            return Ok(None);
        }
    }
}

async fn answer(stream: &mut TcpStream, status: &str, body: &str) -> std::io::Result<()> {
    let text = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(text.as_bytes()).await
}

/// The process, from outside.
pub struct Endpoint {
    pub process: Process,
    pub address: SocketAddr,
    control: SocketAddr,
}

impl Endpoint {
    pub async fn start(ground: &Ground, programs: &Programs, host: u8) -> anyhow::Result<Self> {
        let ip = ground.ip(host);
        let mut command = std::process::Command::new(std::env::current_exe()?);
        command.arg("--outrigger").arg(&programs.outrigger).arg("--proxy").arg(&programs.proxy);
        command.args(["endpoint", &ip.to_string()]);
        let process = ground.start(&mut command, &format!("endpoint-{host}"))?;
        let endpoint = Self { process, address: (ip, APP_PORT).into(), control: (ip, CONTROL_PORT).into() };
        endpoint.process.listens(endpoint.control).await?;
        Ok(endpoint)
    }

    pub async fn set(&self, mode: Mode) -> anyhow::Result<()> {
        self.ask(mode.path()).await.map(drop)
    }

    /// Requests it has read since it began.
    pub async fn count(&self) -> anyhow::Result<u64> {
        self.ask("/count").await
    }

    async fn ask(&self, path: &str) -> anyhow::Result<u64> {
        let (status, body) = client::get(self.control, path).await?;
        ensure!(status == 200, "{status} for {path}");
        std::str::from_utf8(&body)?.parse().context("a number")
    }
}
