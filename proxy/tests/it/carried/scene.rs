//! An exchange written down byte by byte, played with connections of their own and with carried ones.

use std::net::SocketAddr;
use std::sync::Arc;

use outrigger_config::model::{MtlsMode, Multiplex, Protocol, Resource};
use outrigger_proxy::app::Running;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Barrier, mpsc};

use super::super::harness::*;
use super::super::identity::pki::Files;
use super::super::identity::{CALLEE, callee_as, caller_as, mesh, meshed, metric};

/// What one side does.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    Send(&'static str),
    /// Reads until what was read ends so.
    Until(&'static str),
    /// Ends its side.
    Shut,
    /// Reads to the end, or until it is reset.
    End,
}

use Step::{End, Send, Shut, Until};

/// Plays one side; returns all that was read, `read` before it.
pub async fn play(stream: &mut TcpStream, read: String, steps: &[Step]) -> String {
    let mut read = read.into_bytes();
    for step in steps {
        match step {
            // A peer that has answered early may be gone.
            Send(bytes) => drop(stream.write_all(bytes.as_bytes()).await),
            Until(end) => {
                while !read.ends_with(end.as_bytes()) {
                    match within(end, stream.read_u8()).await {
                        Ok(byte) => read.push(byte),
                        Err(error) => panic!("{error} before {end:?}: {}", String::from_utf8_lossy(&read)),
                    }
                }
            }
            Shut => drop(stream.shutdown().await),
            End => {
                let _ = within("the end", stream.read_to_end(&mut read)).await;
            }
        }
    }
    String::from_utf8(read).expect("text")
}

/// Two sidecars, and an app behind them.
pub struct Mesh {
    pub callee: Running,
    pub caller: Running,
}

/// Of the callee: connections with mTLS that came in.
pub const OPENED: &str = "outrigger_connections_opened_total{direction=\"inbound\",tls=\"mutual\"}";

pub fn multiplexed(mut resources: Vec<Resource>, multiplex: Multiplex) -> Vec<Resource> {
    for resource in &mut resources {
        if let Resource::Cluster(cluster) = resource {
            cluster.multiplex = multiplex;
        }
    }
    resources
}

impl Mesh {
    /// `app:80` leads to `app`.
    pub async fn start(files: &(Files, Files), multiplex: Multiplex, app: SocketAddr) -> Self {
        let (callee, at) = callee_as(&files.1, MtlsMode::Strict, Protocol::Http, app).await;
        let resources = multiplexed(meshed(&Service::new("app:80", &[at]), CALLEE), multiplex);
        let caller = caller_as(&files.0, resources, |_| {}).await;
        Self { callee, caller }
    }

    pub fn at(&self) -> SocketAddr {
        self.caller.outbound[0]
    }
}

pub fn files() -> (Files, Files) {
    let (_authority, caller, callee) = mesh();
    (caller, callee)
}

/// An app that answers two at a time where it is asked for `/warm`, and else plays its part; returns what it read.
pub async fn acting(steps: &'static [Step]) -> (SocketAddr, mpsc::UnboundedReceiver<String>) {
    let (logs, read) = mpsc::unbounded_channel();
    let both = Arc::new(Barrier::new(2));
    let at = bytes_app(move |mut stream| {
        let (logs, both) = (logs.clone(), both.clone());
        async move {
            loop {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let Ok(byte) = stream.read_u8().await else { return };
                    head.push(byte);
                }
                if !head.starts_with(b"GET /warm ") {
                    let head = String::from_utf8(head).expect("text");
                    logs.send(play(&mut stream, head, steps).await).ok();
                    return;
                }
                both.wait().await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            }
        }
    })
    .await;
    (at, read)
}

/// Two requests at a time; what they came over at the callee.
pub async fn warm(mesh: &Mesh) -> u64 {
    let one = || async {
        let answer = Http1::connect(mesh.at()).await.get("/warm", "app:80").await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "ok"));
    };
    tokio::join!(one(), one());
    metric(&mesh.callee, OPENED).await
}

/// Plays both sides, with connections of their own and with carried ones, and holds what each of them reads against the other time. Returns what the app
/// and the client read.
pub async fn same_both_ways(client: &'static [Step], app: &'static [Step]) -> (String, String) {
    let files = files();
    let mut before = None;
    for (multiplex, connections) in [(Multiplex::Never, 2), (Multiplex::Always, 1)] {
        let (at, mut read) = acting(app).await;
        let mesh = Mesh::start(&files, multiplex, at).await;
        assert_eq!(warm(&mesh).await, connections, "{multiplex:?}");
        let mut stream = TcpStream::connect(mesh.at()).await.expect("it listens");
        let answer = play(&mut stream, String::new(), client).await;
        drop(stream);
        let asked = within("what the app read", read.recv()).await.expect("it read something");
        let got = (undated(&asked), undated(&answer));
        assert_eq!(metric(&mesh.callee, OPENED).await, connections, "nothing else was opened");
        match &before {
            None => before = Some(got),
            Some(before) => assert_eq!(before, &got, "carried, it is another thing"),
        }
    }
    before.expect("it was played")
}

/// Without `Date`, which tells one time from the other.
fn undated(text: &str) -> String {
    let dated = |line: &&str| !line.to_ascii_lowercase().starts_with("date: ");
    text.split_inclusive("\r\n").filter(dated).collect()
}
