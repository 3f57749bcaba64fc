//! Who may call: refusals on the wire, and what becomes of what is open when the rules change. The callee reads manifests, as in its file mode; without
//! identities callers are told apart by where they come from, with them (`identities`) by who they prove to be.

mod identities;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use http::{Request, Response};
use http_body::Frame;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use outrigger_config::resolve::Subscriber;
use outrigger_proxy::app::{self, Running, Setup};
use outrigger_proxy::discovery::{Own, Source};
use outrigger_proxy::identity::Provision;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use super::harness::*;
use super::http1::read_message;

/// Two callers that a rule can tell apart.
const FRIEND: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1));
const FOE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

struct Callee {
    running: Running,
    manifests: TempDir,
    /// HTTP and TCP.
    http: SocketAddr,
    tcp: SocketAddr,
}

impl Callee {
    /// Before an app for each of two ports.
    async fn start(http_app: SocketAddr, tcp_app: SocketAddr, policy: &str) -> Self {
        Self::with_identity(None, http_app, tcp_app, policy).await
    }

    async fn with_identity(
        identity: Option<Provision>,
        http_app: SocketAddr,
        tcp_app: SocketAddr,
        policy: &str,
    ) -> Self {
        let (http, tcp) = (ports::free(), ports::free());
        let manifests = tempfile::tempdir().expect("a directory");
        let workload = format!(
            "apiVersion: outrigger.dev/v1alpha1\nkind: Workload\nmetadata: {{name: w, labels: {{app: w}}}}\nspec:\n  address: 127.0.0.1\n  ports:\n  \
             - {{name: http, port: {http}, appPort: {}, appProtocol: http}}\n  \
             - {{name: tcp, port: {tcp}, appPort: {}, appProtocol: tcp}}\n",
            http_app.port(),
            tcp_app.port()
        );
        std::fs::write(manifests.path().join("workload.yaml"), workload).expect("it can be written");
        write(&manifests, policy);
        let mut setup = Setup::new(Own::Sidecar);
        setup.workers = Some(2);
        setup.inbound_listen = Some(LOOPBACK);
        setup.identity = identity;
        let paths = vec![manifests.path().to_owned()];
        let running = app::start(setup, move |_| {
            Ok((Source::files(paths, Subscriber::sidecar("default", "w"))?, None))
        });
        let running = running.expect("it starts");
        let (http, tcp) = (offered(&running, http).await, offered(&running, tcp).await);
        Self { running, manifests, http, tcp }
    }

    fn from(&self, from: IpAddr) -> Way {
        Way { from, http: self.http, tcp: self.tcp }
    }

    async fn metric(&self, name: &str, labels: &[&str]) -> u64 {
        let text = Http1::connect(self.running.metrics).await.get("/metrics", "proxy").await.body;
        let of = |line: &&str| line.starts_with(name) && labels.iter().all(|label| line.contains(label));
        text.lines().filter(of).map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    }
}

/// How a caller reaches the two ports.
#[derive(Clone, Copy)]
struct Way {
    from: IpAddr,
    http: SocketAddr,
    tcp: SocketAddr,
}

impl Way {
    async fn http(self) -> TcpStream {
        connect(self.from, self.http).await
    }

    async fn tcp(self) -> TcpStream {
        connect(self.from, self.tcp).await
    }
}

/// Replaces the policies, as an editor or a deployment does.
fn write(manifests: &TempDir, policy: &str) {
    let (path, new) = (manifests.path().join("policy.yaml"), manifests.path().join(".new"));
    std::fs::write(&new, policy).expect("it can be written");
    std::fs::rename(new, path).expect("it can be replaced");
}

fn policy(spec: &str) -> String {
    format!(
        "apiVersion: outrigger.dev/v1alpha1\nkind: AccessPolicy\nmetadata: {{name: p}}\nspec: {{{spec}}}\n"
    )
}

async fn connect(from: IpAddr, to: SocketAddr) -> TcpStream {
    try_connect(from, to).await.expect("it listens")
}

async fn try_connect(from: IpAddr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((from, 0).into()).expect("a loopback address");
    socket.connect(to).await
}

/// Whether bytes are refused by a reset, which may be there before the client knows that it is connected.
async fn bytes_are_reset(from: IpAddr, to: SocketAddr) -> bool {
    let sent = async {
        let mut stream = try_connect(from, to).await?;
        stream.write_all(b"hello").await?;
        stream.read(&mut [0; 16]).await
    };
    is_reset(within("an answer", sent).await)
}

/// `/stream` sends back what comes, `/slow` sends a first byte and never ends, `upgrade` is agreed to; anything else is told what it was.
async fn many_things() -> SocketAddr {
    app(|mut request: Request<Incoming>| async move {
        if let Some(protocol) = request.headers().get("upgrade").cloned() {
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let mut io = hyper_util::rt::TokioIo::new(upgrade.await.unwrap());
                let mut buffer = [0; 1024];
                while let Ok(count @ 1..) = io.read(&mut buffer).await {
                    if io.write_all(&buffer[..count]).await.is_err() {
                        return;
                    }
                }
            });
            let response = Response::builder().status(101).header("connection", "upgrade");
            return response.header("upgrade", protocol).body(text("")).unwrap();
        }
        match request.uri().path() {
            "/stream" | "/pkg.Chat/Talk" => {
                let grpc = request.headers().get("content-type").cloned();
                let mut body = request.into_body();
                let (send, back) = frames();
                tokio::spawn(async move {
                    while let Some(Ok(frame)) = body.frame().await {
                        if send.send(frame).await.is_err() {
                            return;
                        }
                    }
                });
                let mut response = Response::new(back);
                response.headers_mut().extend(grpc.map(|kind| (http::header::CONTENT_TYPE, kind)));
                response
            }
            "/slow" => {
                let (send, body) = frames();
                send.send(Frame::data("x".into())).await.unwrap();
                std::mem::forget(send);
                Response::new(body)
            }
            "/never" => std::future::pending().await,
            path => Response::new(text(path.to_owned())),
        }
    })
    .await
}

async fn echoing() -> SocketAddr {
    bytes_app(|stream: TcpStream| async move {
        let (mut read, mut write) = stream.into_split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    })
    .await
}

fn is_reset(read: std::io::Result<usize>) -> bool {
    // A write that comes after it finds the pipe broken.
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
    matches!(read, Err(error) if matches!(error.kind(), ConnectionReset | BrokenPipe))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_refused_is_told_one_word_and_the_operator_the_rule() {
    let rules = "rules: [{name: open, to: [{paths: [{value: /open}]}]}, \
        {name: no-foes, action: Deny, from: [{addresses: [127.0.0.2]}]}]";
    let callee = Callee::start(many_things().await, echoing().await, &policy(rules)).await;
    let mut client = Http1::over(connect(FRIEND, callee.http).await).await;
    for (path, status, reason) in [
        ("/open/x", 200, ""),
        ("/closed", 403, "access_denied"),
        ("//open/../closed", 403, "access_denied"),
        ("/open%2f..%2fclosed", 403, "ambiguous_path"),
        // The connection is as good as before, and the app gets what was sent, not what was compared.
        ("/x/..//open/%61", 200, ""),
    ] {
        let answer = client.get(path, "w").await;
        assert_eq!((answer.status, answer.reason()), (status, reason), "{path}");
        match status {
            200 => assert_eq!(answer.body, path),
            _ => {
                assert_eq!(answer.body, format!("{reason}\n"), "nothing but the word");
                assert!(!answer.header("proxy-status").contains("details"), "{answer:?}");
            }
        }
    }
    let answer = Http1::over(connect(FOE, callee.http).await).await.get("/open", "w").await;
    assert_eq!((answer.status, answer.reason()), (403, "access_denied"));

    let mut client = Http2::over(connect(FRIEND, callee.http).await).await;
    let call = |path: &str| {
        let request = Request::post(format!("http://w{path}")).header("content-type", "application/grpc");
        request.body(text("")).unwrap()
    };
    let answer = Answer::read(client.send(call("/pkg.Chat/Talk")).await).await;
    assert_eq!((answer.status, answer.header("grpc-status")), (200, "7"));
    assert_eq!(answer.header("grpc-message"), "access_denied");
    assert_eq!(client.get("http://w/open").await.status, 200, "other streams run on");

    // Bytes are no request: no rule that asks for paths allows them.
    assert!(bytes_are_reset(FRIEND, callee.tcp).await);

    let denied = "outrigger_access_denied_total";
    assert_eq!(
        callee.metric(denied, &["rule=\"no-foes\"", "policy=\"default/p\"", "mode=\"enforce\""]).await,
        1
    );
    assert_eq!(callee.metric(denied, &["rule=\"none\""]).await, 4);
    assert_eq!(callee.metric(denied, &["rule=\"ambiguous-path\""]).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn audit_counts_what_enforcing_would_refuse_and_refuses_nothing() {
    let rules = "rules: [{name: open, to: [{paths: [{value: /open}]}]}, \
        {name: no-foes, action: Deny, from: [{addresses: [127.0.0.2]}]}]";
    for mode in ["Audit", "Enforce"] {
        let spec = format!("selector: {{matchLabels: {{app: w}}}}, mode: {mode}, {rules}");
        let callee = Callee::start(many_things().await, echoing().await, &policy(&spec)).await;
        let mut refused = 0;
        for from in [FRIEND, FOE] {
            let mut client = Http1::over(connect(from, callee.http).await).await;
            for path in ["/open", "/closed", "/open%2f"] {
                refused += u64::from(client.get(path, "w").await.status == 403);
            }
            refused += u64::from(bytes_are_reset(from, callee.tcp).await);
        }
        let counted = callee.metric("outrigger_access_denied_total", &[&mode.to_lowercase()]).await;
        let want = if mode == "Audit" { (0, 7) } else { (7, 7) };
        assert_eq!((refused, counted), want, "{mode}: (refused, counted)");
    }
}

/// What is revoked ends within 5 s (`cargo xtask bench drills` measures it); here it has ten times that.
async fn soon<T>(what: &str, end: impl Future<Output = T>) -> T {
    let deadline = Duration::from_secs(50);
    tokio::time::timeout(deadline, end).await.unwrap_or_else(|_| panic!("{what}: not within {deadline:?}"))
}

/// One of everything that can be open.
struct OpenCalls {
    http2: (tokio::sync::mpsc::Sender<Frame<bytes::Bytes>>, Incoming),
    grpc: (tokio::sync::mpsc::Sender<Frame<bytes::Bytes>>, Incoming),
    slow: Incoming,
    waiting: JoinSet<Response<Incoming>>,
    websocket: TcpStream,
    tcp: TcpStream,
}

impl OpenCalls {
    async fn start(way: Way) -> Self {
        let mut client = Http2::over(way.http().await).await;
        let (send, body) = frames();
        let response = client.send(Request::post("http://w/stream").body(body).unwrap()).await;
        assert_eq!(response.status(), 200);
        let http2 = (send, response.into_body());
        let (send, body) = frames();
        let request =
            Request::post("http://w/pkg.Chat/Talk").header("content-type", "application/grpc").body(body);
        let grpc = (send, client.send(request.unwrap()).await.into_body());

        let mut client = Http1::over(way.http().await).await;
        let request = Request::get("/slow").header("host", "w").body(text("")).unwrap();
        let mut slow = client.send(request).await.into_body();
        within("the first byte", slow.frame()).await.unwrap().unwrap();

        let mut client = Http1::over(way.http().await).await;
        let mut waiting = JoinSet::new();
        waiting.spawn(async move {
            let request = Request::get("/never").header("host", "w").body(text("")).unwrap();
            client.send(request).await
        });

        let mut websocket = way.http().await;
        let ask = b"GET /chat HTTP/1.1\r\nHost: w\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        websocket.write_all(ask).await.unwrap();
        let (head, _) = read_message(&mut websocket).await;
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");

        let mut open = Self { http2, grpc, slow, waiting, websocket, tcp: way.tcp().await };
        open.works().await;
        open
    }

    /// What goes in comes back.
    async fn works(&mut self) {
        for (send, body) in [&mut self.http2, &mut self.grpc] {
            send.send(Frame::data("again".into())).await.expect("it is read");
            let frame = within("the frame back", body.frame()).await.expect("not the end").expect("no reset");
            assert_eq!(frame.into_data().unwrap(), "again");
        }
        for stream in [&mut self.websocket, &mut self.tcp] {
            stream.write_all(b"again").await.expect("it is read");
            let mut back = [0; 5];
            within("the bytes back", stream.read_exact(&mut back)).await.expect("no reset");
            assert_eq!(&back, b"again");
        }
        assert!(self.waiting.try_join_next().is_none());
    }

    /// Each of them ends, and not as if all had been said.
    async fn end(mut self) {
        for (_send, body) in [&mut self.http2, &mut self.grpc] {
            let end = soon("the stream's reset", body.frame()).await;
            assert!(matches!(end, Some(Err(_))), "{end:?}");
        }
        let end = soon("the answer's end", self.slow.frame()).await;
        assert!(matches!(end, Some(Err(_))), "{end:?}");
        let refused =
            soon("a refusal", self.waiting.join_next()).await.expect("it waits").expect("an answer");
        assert_eq!(refused.status(), 403);
        assert!(is_reset(soon("the tunnel's reset", self.websocket.read(&mut [0; 16])).await));
        assert!(is_reset(soon("the connection's reset", self.tcp.read(&mut [0; 16])).await));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_loses_access_loses_what_is_open_and_nobody_else_does() {
    let both = policy("rules: [{from: [{addresses: [127.0.0.1, 127.0.0.2]}]}]");
    let callee = Callee::start(many_things().await, echoing().await, &both).await;
    let mut friend = OpenCalls::start(callee.from(FRIEND)).await;
    let foe = OpenCalls::start(callee.from(FOE)).await;

    // A change that changes nothing for either.
    write(&callee.manifests, &policy("rules: [{from: [{addresses: [127.0.0.0/8]}]}]"));
    // And one that denies the foe.
    write(&callee.manifests, &policy("rules: [{from: [{addresses: [127.0.0.1]}]}]"));
    foe.end().await;
    friend.works().await;
    assert!(callee.metric("outrigger_access_denied_total", &["rule=\"none\""]).await >= 6);

    // Access to one path alone is revoked: the streams of the others go on.
    let rules = format!(
        "rules: [{{}}, {{action: Deny, to: [{{paths: [{{value: /pkg.Chat}}], ports: [{}]}}]}}]",
        callee.http.port()
    );
    write(&callee.manifests, &policy(&rules));
    let end = within("the stream's reset", friend.grpc.1.frame()).await;
    assert!(matches!(end, Some(Err(_))), "{end:?}");
    let (send, body) = &mut friend.http2;
    send.send(Frame::data("more".into())).await.expect("it is read");
    within("the frame back", body.frame()).await.expect("not the end").expect("no reset");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_permissive_to_strict_plaintext_ends() {
    let callee =
        Callee::start(many_things().await, echoing().await, &policy("mtls: {mode: Permissive}")).await;
    let open = OpenCalls::start(callee.from(FRIEND)).await;
    // Kept alive, with nothing going on.
    let mut idle = connect(FRIEND, callee.http).await;
    idle.write_all(b"GET / HTTP/1.1\r\nHost: w\r\n\r\n").await.unwrap();
    read_message(&mut idle).await;

    write(&callee.manifests, &policy("mtls: {mode: Strict}"));
    open.end().await;
    let end = within("the idle connection's end", idle.read(&mut [0; 16])).await;
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
}
