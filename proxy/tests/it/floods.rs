//! Clients of a gateway who mean harm over HTTP/2, and what they cost: their own connection, and nobody else anything (requirements 5.3).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use outrigger_config::model::{
    ClusterName, Gateway, GatewayListener, GatewayPort, GatewayProtocol, HostPattern, Listener, Origin,
    ProxySettings, Resource, UpstreamHttp,
};
use outrigger_proxy::app::{self, Running, Setup};
use outrigger_proxy::discovery::{Own, Source};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};

use super::harness::*;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const ENHANCE_YOUR_CALM: u32 = 0xb;
/// `GET http://g/` and `POST http://g/`.
const GET: &[u8] = b"\x82\x86\x84\x01\x01g";
const POST: &[u8] = b"\x83\x86\x84\x01\x01g";
/// A whole request.
const WHOLE: u8 = 0x5;
/// A request whose body comes.
const BEGUN: u8 = 0x4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A gateway of one worker in front of `app`.
pub async fn gateway(app: SocketAddr, http: UpstreamHttp) -> (Running, SocketAddr) {
    let port = ports::free();
    let cluster = ClusterName::outbound(80, "", "g");
    let listener = GatewayListener {
        name: "http".into(),
        hostname: HostPattern::Any,
        protocol: GatewayProtocol::Http { routes: "gateway".into() },
        origin: Origin::new("Gateway", "default", "g", "spec.listeners[0]"),
    };
    let resources = vec![
        Resource::Listener(Listener::Gateway(Gateway {
            namespace: "default".into(),
            name: "g".into(),
            ports: vec![GatewayPort { port, listeners: vec![listener] }],
            settings: ProxySettings::default(),
        })),
        table_of("gateway", vec![route("/", &cluster)]),
        cluster_of(&cluster, None, http),
        endpoints_of(&cluster, &[app]),
    ];
    let mut setup = Setup::new(Own::Gateway { namespace: "default".into(), name: "g".into() });
    setup.workers = Some(1);
    setup.gateway = vec![LOOPBACK];
    let running = app::start(setup, |_| Ok((Source::fixed(resources), None))).expect("it starts");
    let at = (LOOPBACK, port).into();
    within("the gateway listens", async {
        while TcpStream::connect(at).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    (running, at)
}

/// A client whose frames are written by hand.
struct Raw {
    write: OwnedWriteHalf,
    read: OwnedReadHalf,
    input: Vec<u8>,
}

impl Raw {
    /// `settings`: the payload of its first frame.
    async fn connect(at: SocketAddr, settings: &[u8]) -> Self {
        Self::over(TcpStream::connect(at).await.expect("it listens"), settings).await
    }

    async fn over(stream: TcpStream, settings: &[u8]) -> Self {
        let (read, write) = stream.into_split();
        let mut raw = Self { write, read, input: Vec::new() };
        raw.put(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        raw.put(&frame(SETTINGS, 0, 0, settings)).await;
        raw
    }

    async fn put(&mut self, bytes: &[u8]) {
        self.write.write_all(bytes).await.expect("it is open");
    }

    /// The next frame: kind, stream and payload. `None`: it ended.
    async fn next(&mut self) -> Option<(u8, u32, Vec<u8>)> {
        next(&mut self.read, &mut self.input).await
    }

    /// Waits until everything that was written has been looked at.
    async fn settle(&mut self) {
        self.put(&frame(PING, 0, 0, b"settled?")).await;
        within("its answer", async { while self.next().await.expect("it goes on").0 != PING {} }).await;
    }
}

async fn next(read: &mut OwnedReadHalf, input: &mut Vec<u8>) -> Option<(u8, u32, Vec<u8>)> {
    loop {
        if let Some(head) = input.first_chunk::<9>() {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let (kind, stream) = (head[3], u32::from_be_bytes([head[5], head[6], head[7], head[8]]));
            if input.len() >= 9 + length {
                let rest = input.split_off(9 + length);
                let payload = std::mem::replace(input, rest).split_off(9);
                return Some((kind, stream, payload));
            }
        }
        let mut more = [0; 16 * 1024];
        match read.read(&mut more).await {
            Ok(count @ 1..) => input.extend_from_slice(&more[..count]),
            _ => return None,
        }
    }
}

/// What the connection is said to end by, should it end; `None`: it just did.
async fn goodbye(read: &mut OwnedReadHalf, input: &mut Vec<u8>) -> Option<u32> {
    while let Some((kind, _, payload)) = next(read, input).await {
        if kind == GOAWAY {
            return Some(u32::from_be_bytes([payload[4], payload[5], payload[6], payload[7]]));
        }
    }
    None
}

/// Asks the same worker one thing after the other until it is told to stop; how often it was answered.
fn others(at: SocketAddr) -> (Arc<AtomicBool>, tokio::task::JoinHandle<usize>) {
    let stop = Arc::new(AtomicBool::new(false));
    let told = stop.clone();
    let asking = tokio::spawn(async move {
        let mut client = Http2::connect(at).await;
        let mut answers = 0;
        while !told.load(Ordering::Relaxed) {
            assert_eq!(client.get("http://g/").await.status, 200);
            answers += 1;
        }
        answers
    });
    (stop, asking)
}

/// Answers at once, but for `POST`, whose answer does not come.
async fn patient() -> (SocketAddr, Arc<AtomicUsize>) {
    let begun = Arc::new(AtomicUsize::new(0));
    let count = begun.clone();
    let at = app(move |request: Request<Incoming>| {
        let count = count.clone();
        async move {
            if request.method() == http::Method::POST {
                count.fetch_add(1, Ordering::Relaxed);
                std::future::pending::<()>().await;
            }
            Response::new(text("ok"))
        }
    })
    .await;
    (at, begun)
}

/// CVE-2019-9512, -9513, -9515, -9518, CVE-2023-44487, CVE-2024-27316, CVE-2025-8671 and their like: whoever sends as fast as he can is told to calm down, and who
/// shares his worker is served meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_end_their_own_connection_and_others_are_served() {
    let (app, _) = patient().await;
    let (_gateway, at) = gateway(app, UpstreamHttp::Http1).await;
    // Streams that were opened before, and what is sent over and over; `n` counts.
    type Flood = fn(n: u32) -> Vec<u8>;
    let floods: &[(&str, Flood)] = &[
        ("pings", |_| frame(PING, 0, 0, &[0; 8])),
        ("settings", |n| frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, n as u8])),
        ("empty data", |_| frame(DATA, 0, 1, &[])),
        ("padding", |_| frame(DATA, 0x8, 1, &[1, 0])),
        ("windows", |_| frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
        ("windows of a stream", |_| frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])),
        ("priorities", |n| frame(PRIORITY, 0, 2 * (n % 1000) + 1, &[0; 5])),
        ("frames nobody knows", |_| frame(0x33, 0, 0, b"?")),
        ("resets of nothing", |_| frame(RST_STREAM, 0, 3, &[0, 0, 0, 8])),
        ("continuation", |n| match n {
            0 => frame(HEADERS, 0, 5, POST),
            _ => frame(CONTINUATION, 0, 5, &[]),
        }),
        ("a block without end", |n| match n {
            0 => frame(HEADERS, 0, 5, POST),
            _ => frame(CONTINUATION, 0, 5, &[0; 16_000]),
        }),
        ("requests and resets", |n| {
            let id = 2 * n + 5;
            [frame(HEADERS, BEGUN, id, POST), frame(RST_STREAM, 0, id, &[0, 0, 0, 8])].concat()
        }),
        ("more requests than may be", |n| frame(HEADERS, BEGUN, 2 * n + 5, POST)),
        ("requests that make us reset them", |n| {
            let id = 2 * n + 5;
            [frame(HEADERS, BEGUN, id, POST), frame(WINDOW_UPDATE, 0, id, &[0; 4])].concat()
        }),
    ];
    let (stop, asking) = others(at);
    for (what, flood) in floods {
        let mut raw = Raw::connect(at, &[]).await;
        raw.put(&frame(HEADERS, BEGUN, 1, POST)).await;
        raw.put(&[frame(HEADERS, BEGUN, 3, POST), frame(RST_STREAM, 0, 3, &[0, 0, 0, 8])].concat()).await;
        raw.settle().await;
        let Raw { mut write, mut read, mut input } = raw;
        let flood = *flood;
        let flooding = tokio::spawn(async move {
            let mut n = 0;
            loop {
                let mut bytes = Vec::new();
                while bytes.len() < 64 * 1024 {
                    bytes.extend(flood(n));
                    n += 1;
                }
                if write.write_all(&bytes).await.is_err() {
                    return;
                }
            }
        });
        let ended = within(what, goodbye(&mut read, &mut input)).await;
        flooding.abort();
        assert_eq!(ended, Some(ENHANCE_YOUR_CALM), "{what}");
    }
    stop.store(true, Ordering::Relaxed);
    let answers = asking.await.expect("all are answered");
    assert!(answers > 0, "others are served meanwhile");
}

/// CVE-2023-44487 by a client who waits until each request is being worked on: the app has it, and it is given up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_given_up_as_soon_as_they_are_worked_on_are_bounded() {
    let (app, begun) = patient().await;
    let (_gateway, at) = gateway(app, UpstreamHttp::Http1).await;
    let (stop, asking) = others(at);
    let mut raw = Raw::connect(at, &[]).await;
    let (mut id, mut ended) = (1, None);
    'flood: for _ in 0..100 {
        let ids: Vec<u32> = (0..50).map(|n| id + 2 * n).collect();
        id += 100;
        let mut opened: Vec<u8> = ids.iter().flat_map(|id| frame(HEADERS, BEGUN, *id, POST)).collect();
        opened.extend(frame(PING, 0, 0, b"settled?"));
        if raw.write.write_all(&opened).await.is_err() {
            break;
        }
        loop {
            match within("an answer", raw.next()).await {
                Some((GOAWAY, _, payload)) => {
                    ended = Some(u32::from_be_bytes([payload[4], payload[5], payload[6], payload[7]]));
                    break 'flood;
                }
                Some((PING, ..)) => break,
                Some(_) => {}
                None => break 'flood,
            }
        }
        let resets: Vec<u8> = ids.iter().flat_map(|id| frame(RST_STREAM, 0, *id, &[0, 0, 0, 8])).collect();
        if raw.write.write_all(&resets).await.is_err() {
            break;
        }
    }
    assert_eq!(ended, Some(ENHANCE_YOUR_CALM));
    // 500, and the last round.
    let begun = begun.load(Ordering::Relaxed);
    assert!(begun <= 650, "{begun} requests reached the app");
    stop.store(true, Ordering::Relaxed);
    assert!(asking.await.expect("all are answered") > 0);
}

/// CVE-2019-9517 and slow readers: answers wait for their windows, nobody else for them, and when the windows open they go on. They hold more than the window of the one
/// connection to the app that all share.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_whose_client_opens_no_window_cost_others_nothing() {
    const ANSWER: usize = 300_000;
    let app = app(|_| async { Response::new(text("x".repeat(ANSWER))) }).await;
    let (_gateway, at) = gateway(app, UpstreamHttp::Http2).await;
    // A window of nothing for each stream.
    let mut raw = Raw::connect(at, &[0, 4, 0, 0, 0, 0]).await;
    for n in 0..100 {
        raw.put(&frame(HEADERS, WHOLE, 2 * n + 1, GET)).await;
    }
    raw.settle().await;
    let mut client = Http2::connect(at).await;
    for _ in 0..20 {
        assert_eq!(client.get("http://g/").await.body.len(), ANSWER);
    }
    // A byte now and then.
    for n in 0..100 {
        raw.put(&frame(WINDOW_UPDATE, 0, 2 * n + 1, &[0, 0, 0, 1])).await;
    }
    let mut bytes: HashMap<u32, usize> = HashMap::new();
    let count = async |raw: &mut Raw, bytes: &mut HashMap<u32, usize>, each: usize| {
        within("all of it", async {
            while (0..100).any(|n| bytes.get(&(2 * n + 1)).is_none_or(|bytes| *bytes < each)) {
                let (kind, stream, payload) = raw.next().await.expect("it goes on");
                if kind == DATA {
                    *bytes.entry(stream).or_default() += payload.len();
                }
            }
        })
        .await;
    };
    count(&mut raw, &mut bytes, 1).await;
    assert!(bytes.values().all(|bytes| *bytes == 1), "{bytes:?}");
    assert_eq!(client.get("http://g/").await.body.len(), ANSWER);
    // All there is.
    raw.put(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0x10, 0, 0])).await;
    raw.put(&frame(WINDOW_UPDATE, 0, 0, &[0x10, 0, 0, 0])).await;
    count(&mut raw, &mut bytes, ANSWER).await;
}

/// What waits for a client that reads nothing is let go of a while after its connection ended, whatever the client does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_never_reads_is_let_go_of() {
    let app = app(|_| async { Response::new(text("x".repeat(8 << 20))) }).await;
    let (_gateway, at) = gateway(app, UpstreamHttp::Http1).await;
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(16 * 1024).expect("it can be set");
    let stream = socket.connect(at).await.expect("it listens");
    let own = stream.local_addr().expect("connected").port();
    // Windows without end: only its socket holds it back.
    let mut raw = Raw::over(stream, &[0, 4, 0x7f, 0xff, 0xff, 0xff]).await;
    raw.put(&frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0, 0])).await;
    for n in 0..4 {
        raw.put(&frame(HEADERS, WHOLE, 2 * n + 1, GET)).await;
    }
    within("its connection is known", async {
        while !is_held(at.port(), own) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    // Data of no stream ends the connection.
    raw.put(&frame(DATA, 0, 0, &[])).await;
    within("it is let go of", async {
        while is_held(at.port(), own) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let mut client = Http2::connect(at).await;
    assert_eq!(client.get("http://g/").await.status, 200);
}

/// Whether a process holds the connection from `from` at `port`; one that the kernel alone still knows has no inode.
fn is_held(port: u16, from: u16) -> bool {
    let table = std::fs::read_to_string("/proc/self/net/tcp").expect("Linux says");
    let ends = format!("{:08X}:{port:04X} {:08X}:{from:04X}", LOCAL, LOCAL);
    table
        .lines()
        .any(|line| line.contains(&ends) && line.split_whitespace().nth(9).is_some_and(|inode| inode != "0"))
}

/// 127.0.0.1 as that table has it.
const LOCAL: u32 = u32::from_le_bytes([127, 0, 0, 1]);
