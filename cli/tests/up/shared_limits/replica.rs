//! A sidecar in this process before one app, and whoever calls it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use outrigger_config::resolve::Subscriber;
use outrigger_proxy::app::{self, Running, Setup};
use outrigger_proxy::discovery::{Own, Source};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::within;
use crate::ports;
use crate::support::metric_at;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Answers every request with 200.
pub async fn app() -> SocketAddr {
    let listener = TcpListener::bind((LOOPBACK, 0)).await.expect("a port");
    let at = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                while read_head(&mut stream).await.is_some() {
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                    if stream.get_mut().write_all(answer).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    at
}

/// The lines up to an empty one; `None` at the end.
async fn read_head(stream: &mut BufReader<TcpStream>) -> Option<Vec<String>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => return Some(lines),
            text => lines.push(text.to_owned()),
        }
    }
}

pub struct Replica {
    running: Running,
    _manifests: TempDir,
    /// Where its workload is called.
    pub at: SocketAddr,
    /// The same by a port that carries bytes.
    pub tcp: SocketAddr,
}

impl Replica {
    /// With one limit, counted by `server`.
    pub async fn start(app: SocketAddr, server: SocketAddr, limit: &str) -> Self {
        let (port, tcp) = (ports::free(), ports::free());
        let manifests = tempfile::tempdir().expect("a directory");
        let text = format!(
            "apiVersion: outrigger.dev/v1alpha1\nkind: Workload\nmetadata: {{name: w, labels: {{app: w}}}}\nspec:\n  address: 127.0.0.1\n  ports:\n  \
             - {{name: http, port: {port}, appPort: {}, appProtocol: http}}\n  \
             - {{name: tcp, port: {tcp}, appPort: {}, appProtocol: tcp}}\n---\n\
             apiVersion: v1\nkind: Service\nmetadata: {{name: s}}\nspec:\n  selector: {{app: w}}\n  ports:\n  \
             - {{name: http, port: 80, targetPort: {port}, appProtocol: http}}\n  \
             - {{name: tcp, port: 90, targetPort: {tcp}, appProtocol: tcp}}\n---\n\
             apiVersion: outrigger.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: p}}\nspec:\n  targetRefs: [{{kind: Service, name: s}}]\n  \
             rateLimit:\n    server: {{address: '{server}'}}\n    limits: [{limit}]\n",
            app.port(),
            app.port()
        );
        std::fs::write(manifests.path().join("all.yaml"), text).expect("it can be written");
        let mut setup = Setup::new(Own::Sidecar);
        setup.workers = Some(1);
        setup.inbound_listen = Some(LOOPBACK);
        let paths = vec![manifests.path().to_owned()];
        // It has a runtime of its own, which must not be made within another.
        let running = tokio::task::spawn_blocking(move || {
            app::start(setup, move |_| Ok((Source::files(paths, Subscriber::sidecar("default", "w"))?, None)))
        });
        let running = running.await.expect("no panic").expect("it starts");
        let mut offered = running.offered.clone();
        let offers = within(
            "its ports",
            offered.wait_for(|offers| [port, tcp].iter().all(|port| offers.contains_key(port))),
        );
        let offers = offers.await.expect("it runs");
        let at = |port| offers[&port][0].clone().expect("it could be bound");
        let (at, tcp) = (at(port), at(tcp));
        drop(offers);
        Self { running, _manifests: manifests, at, tcp }
    }

    pub fn metric(&self, name: &str) -> f64 {
        metric_at(&format!("http://{}/metrics", self.running.metrics), name, &[])
    }
}

/// An HTTP/1 client on one connection.
pub struct Client(BufReader<TcpStream>);

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    head: Vec<String>,
}

impl Answer {
    /// Empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        let of = |line: &'_ String| line.split_once(':').map(|(found, _)| found.eq_ignore_ascii_case(name));
        let line = self.head.iter().find(|line| of(line) == Some(true));
        line.and_then(|line| line.split_once(':')).map_or("", |(_, value)| value.trim())
    }
}

impl Client {
    pub async fn connect(to: SocketAddr) -> Self {
        let stream = within("a connection", TcpStream::connect(to)).await.expect("it listens");
        stream.set_nodelay(true).expect("a socket");
        Self(BufReader::new(stream))
    }

    /// Whether a connection reaches the app; else it is reset, perhaps before it stood.
    pub async fn carried(to: SocketAddr) -> bool {
        let asked = async {
            let mut stream = BufReader::new(TcpStream::connect(to).await.ok()?);
            stream.get_mut().write_all(b"GET / HTTP/1.1\r\nhost: s\r\n\r\n").await.ok()?;
            read_head(&mut stream).await
        };
        within("an answer or an end", asked).await.is_some()
    }

    pub async fn get(&mut self) -> u16 {
        self.answer().await.status
    }

    pub async fn answer(&mut self) -> Answer {
        self.ask("").await
    }

    pub async fn get_as(&mut self, user: &str) -> u16 {
        self.ask(&format!("x-user: {user}\r\n")).await.status
    }

    async fn ask(&mut self, headers: &str) -> Answer {
        let request = format!("GET / HTTP/1.1\r\nhost: s\r\n{headers}\r\n");
        self.0.get_mut().write_all(request.as_bytes()).await.expect("it reads");
        let head = within("an answer", read_head(&mut self.0)).await.expect("it answers");
        let status = head[0].split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        let answer = Answer { status, head };
        let length = answer.header("content-length").parse().expect("a length");
        let mut body = vec![0; length];
        within("the body", self.0.read_exact(&mut body)).await.expect("it is whole");
        answer
    }
}
