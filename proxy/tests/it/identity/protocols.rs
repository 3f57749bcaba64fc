//! Every protocol inside mTLS, between two sidecars.

use outrigger_config::model::{MtlsMode, Protocol};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::super::harness::*;
use super::super::http1::read_message;
use super::super::tunnels::{ASK, upgrading};
use super::*;

fn xfcc(body: &str) -> Vec<&str> {
    body.lines().filter(|line| line.to_lowercase().starts_with("x-forwarded-client-cert")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_stay_what_they_are_inside_mtls_and_the_app_is_told_who_calls() {
    let (_authority, caller_files, callee_files) = mesh();
    let (callee, at) = callee_as(&callee_files, MtlsMode::Strict, Protocol::Http, echo().await).await;
    let caller = caller_as(&caller_files, meshed(&Service::new("reviews:9080", &[at]), CALLEE), |_| {}).await;

    let mut http1 = Http1::connect(caller.outbound[0]).await;
    let request = http::Request::get("http://reviews:9080/a")
        .header("host", "reviews:9080")
        .header("x-forwarded-client-cert", "URI=spiffe://cluster.local/ns/default/sa/admin")
        .body(text(""))
        .expect("valid");
    let answer = Answer::read(http1.send(request).await).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.body.starts_with("GET /a HTTP/1.1\n"), "{}", answer.body);
    let said = xfcc(&answer.body);
    let [said] = said[..] else { panic!("{said:?}") };
    assert!(
        said.contains(&format!("By={CALLEE};Hash=")) && said.ends_with(&format!(";URI={CALLER}")),
        "{said}"
    );
    let hash = said.split("Hash=").nth(1).and_then(|rest| rest.split(';').next()).expect("a hash");
    assert!(hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit()), "{said}");

    let answer = Http2::connect(caller.outbound[0]).await.get("http://reviews:9080/b").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.body.starts_with("GET http://reviews:9080/b HTTP/2.0\n"), "{}", answer.body);
    assert_eq!(xfcc(&answer.body).len(), 1);

    let (edge, seen) = only_edge(&caller);
    assert_eq!(edge.peer.as_ref().map(|peer| peer.as_str()), Some(CALLEE));
    assert_eq!((edge.plaintext, seen.connections), (None, 2));
    let negotiated = seen.negotiated.expect("mTLS");
    assert_eq!(negotiated.key_exchange, "X25519MLKEM768");
    assert!(negotiated.cipher.starts_with("TLS13_"), "{negotiated:?}");
    let (edge, _) = only_edge(&callee);
    assert_eq!(edge.peer.as_ref().map(|peer| peer.as_str()), Some(CALLER));
    let opened = "outrigger_connections_opened_total{direction=\"inbound\",tls=";
    assert_eq!(metric(&callee, &format!("{opened}\"mutual\"}}")).await, 2);
    assert_eq!(metric(&callee, &format!("{opened}\"none\"}}")).await, 0);
    assert!(metric(&callee, "outrigger_certificate_expiry_timestamp_seconds").await > 1_700_000_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tcp_is_wrapped_with_half_close_and_a_silent_client_may_wait_for_the_server() {
    let (_authority, caller_files, callee_files) = mesh();
    let app = bytes_app(|mut stream: TcpStream| async move {
        let _ = stream.write_all(b"220 ready\r\n").await;
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all).await;
        let _ = stream.write_all(format!("{} bytes", all.len()).as_bytes()).await;
    })
    .await;
    for mode in [MtlsMode::Strict, MtlsMode::Permissive] {
        let (_callee, at) = callee_as(&callee_files, mode, Protocol::Tcp, app).await;
        let service = Service::new("db:6379", &[at]).protocol(Protocol::Tcp);
        let name = service.name.clone();
        let caller = caller_as(&caller_files, meshed(&service, CALLEE), |setup| {
            setup.service_addresses = vec![((LOOPBACK, 0).into(), name)];
        })
        .await;
        let mut stream = TcpStream::connect(caller.service_addresses[0]).await.expect("it listens");
        let mut banner = [0; 11];
        within("the banner", stream.read_exact(&mut banner)).await.expect("whole");
        assert_eq!(&banner, b"220 ready\r\n");
        stream.write_all(&vec![7; 1 << 20]).await.expect("taken");
        stream.shutdown().await.expect("ended");
        let mut answer = String::new();
        within("the answer", stream.read_to_string(&mut answer)).await.expect("an orderly end");
        assert_eq!(answer, format!("{} bytes", 1 << 20));
        assert_eq!(only_edge(&caller).0.plaintext, None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_passes_mtls() {
    let (_authority, caller_files, callee_files) = mesh();
    let (_callee, at) = callee_as(&callee_files, MtlsMode::Strict, Protocol::Http, upgrading().await).await;
    let caller = caller_as(&caller_files, meshed(&Service::new("chat:80", &[at]), CALLEE), |_| {}).await;
    let mut stream = TcpStream::connect(caller.outbound[0]).await.expect("it listens");
    stream.write_all(format!("{ASK}early").as_bytes()).await.expect("taken");
    let (head, _) = read_message(&mut stream).await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    let mut back = [0; 5];
    within("the echo", stream.read_exact(&mut back)).await.expect("whole");
    assert_eq!(&back, b"early");
    assert_eq!(only_edge(&caller).0.plaintext, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_through_connect_goes_on_inside_mtls() {
    let (_authority, caller_files, callee_files) = mesh();
    let (_callee, at) = callee_as(&callee_files, MtlsMode::Strict, Protocol::Http, upgrading().await).await;
    let (_echo, echo_at) = callee_as(&callee_files, MtlsMode::Strict, Protocol::Http, echo().await).await;
    let resources = [
        meshed(&Service::new("chat:80", &[at]), CALLEE),
        meshed(&Service::new("echo:80", &[echo_at]), CALLEE),
    ];
    let caller = caller_as(&caller_files, resources.concat(), |_| {}).await;
    let connect = async |name: &str| {
        let mut stream = TcpStream::connect(caller.outbound[0]).await.expect("it listens");
        let ask = format!("CONNECT {name}:80 HTTP/1.1\r\nHost: {name}:80\r\n\r\n");
        stream.write_all(ask.as_bytes()).await.expect("taken");
        let (head, _) = read_message(&mut stream).await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        stream
    };
    let one = Http1::over(connect("echo").await).await.get("/one", "echo").await;
    let two = Http2::over(connect("echo").await).await.get("http://echo:80/two").await;
    for (answer, line) in [(one, "GET /one HTTP/1.1"), (two, "GET http://echo:80/two HTTP/2.0")] {
        assert!(answer.body.starts_with(line), "{}", answer.body);
        assert_eq!(xfcc(&answer.body).len(), 1, "{}", answer.body);
        assert!(answer.body.contains(&format!("URI={CALLER}")), "{}", answer.body);
    }
    let mut stream = connect("chat").await;
    stream.write_all(format!("{ASK}ping").as_bytes()).await.expect("taken");
    let (head, _) = read_message(&mut stream).await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    let mut back = [0; 4];
    within("the echo", stream.read_exact(&mut back)).await.expect("whole");
    assert_eq!(&back, b"ping");
    assert!(caller.shared.identity.edges.all().iter().all(|(edge, _)| edge.plaintext.is_none()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_is_not_who_it_should_be_gets_nothing() {
    let (authority, caller_files, callee_files) = mesh();
    let (app, reached) = counting().await;
    let (callee, at) = callee_as(&callee_files, MtlsMode::Permissive, Protocol::Http, app).await;
    let failed = |cause: &str| {
        format!("outrigger_tls_handshake_failures_total{{direction=\"outbound\",reason=\"{cause}\"}}")
    };
    // Another identity than announced, and an instance that has no sidecar at all.
    for (at, id, cause) in [(at, CALLER, "wrong_identity"), (app, CALLEE, "protocol")] {
        let service = Service::new("reviews:9080", &[at]);
        let caller = caller_as(&caller_files, meshed(&service, id), |_| {}).await;
        let answer =
            Http1::connect(caller.outbound[0]).await.get("http://reviews:9080/", "reviews:9080").await;
        assert_eq!((answer.status, answer.reason()), (503, "upstream_tls_failed"), "{answer:?}");
        assert!(metric(&caller, &failed(cause)).await > 0, "{cause}: {}", answer.body);
    }
    // The one without a sidecar read a ClientHello and no request.
    let reached_plain = reached.load(std::sync::atomic::Ordering::SeqCst);
    // A caller without an identity of its own does not fall back either.
    let service = Service::new("reviews:9080", &[at]);
    let mut resources = vec![inbound(&[], ProxySettings::default())];
    resources.extend(meshed(&service, CALLEE));
    let mut setup = Setup::new(Own::Sidecar);
    setup.outbound = vec![(LOOPBACK, 0).into()];
    let nobody = app::start(setup, |_| Ok((Source::fixed(resources), None))).expect("it starts");
    let answer = Http1::connect(nobody.outbound[0]).await.get("http://reviews:9080/", "reviews:9080").await;
    assert_eq!((answer.status, answer.reason()), (503, "upstream_tls_failed"), "{answer:?}");
    assert!(answer.body.contains("given no identity"), "{}", answer.body);
    // One the callee does not believe learns so with its first request.
    let stranger = Authority::new("stranger");
    let files = Files::new();
    files.write(&stranger.leaf(CALLER), &[&authority]);
    let stranger = caller_as(&files, meshed(&service, CALLEE), |_| {}).await;
    let answer = Http1::connect(stranger.outbound[0]).await.get("http://reviews:9080/", "reviews:9080").await;
    assert_eq!((answer.status, answer.reason()), (503, "upstream_tls_failed"), "{answer:?}");
    let answer = Http2::connect(stranger.outbound[0]).await.get("http://reviews:9080/").await;
    assert_eq!((answer.status, answer.reason()), (503, "upstream_tls_failed"), "{answer:?}");
    assert_eq!(reached.load(std::sync::atomic::Ordering::SeqCst), reached_plain);
    drop(callee);
}
