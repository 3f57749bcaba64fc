//! Who a callee takes a connection from, and what it says of the others.

use std::io::{self, Write};
use std::path::Path;
use std::pin::Pin;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use outrigger_config::model::{MtlsMode, Protocol};
use rcgen::SanType;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::super::harness::*;
use super::pki::{self, Leaf, Wanted};
use super::*;

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: callee\r\nconnection: close\r\n\r\n";

/// What comes back for a request over TLS; the error where none does.
async fn ask(at: SocketAddr, leaf: Option<&Leaf>, protocols: &[&[u8]]) -> io::Result<String> {
    let stream = TcpStream::connect(at).await.expect("it listens");
    let connector = TlsConnector::from(pki::client(leaf, protocols));
    within("an answer or a refusal", async {
        let mut stream = connector.connect(pki::name(), stream).await?;
        stream.write_all(GET).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    })
    .await
}

/// A name as a web server has it.
fn dns(mut wanted: Wanted<'static>) -> Wanted<'static> {
    wanted.names = vec![SanType::DnsName("caller.default.svc".try_into().expect("ASCII"))];
    wanted
}

fn failures(cause: &str) -> String {
    format!("outrigger_tls_handshake_failures_total{{direction=\"inbound\",reason=\"{cause}\"}}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_refused_for_what_is_wrong_with_it_and_the_right_one_passes() {
    let (authority, _, callee_files) = mesh();
    let (app, reached) = counting().await;
    let (callee, at) = callee_as(&callee_files, MtlsMode::Strict, Protocol::Http, app).await;
    let stranger = Authority::new("stranger");
    let right = || Wanted::new(&[CALLER]);
    let refused = [
        ("no_certificate", None),
        ("self_signed", Some(right().self_signed())),
        ("unknown_issuer", Some(stranger.leaf(CALLER))),
        ("other_trust_domain", Some(authority.leaf("spiffe://elsewhere.test/ns/default/sa/caller"))),
        ("expired", Some(authority.sign(&right().valid(-7200, -3600)))),
        ("expired", Some(authority.sign(&right().valid(-7200, -61)))),
        ("not_yet_valid", Some(authority.sign(&right().valid(3600, 7200)))),
        ("not_yet_valid", Some(authority.sign(&right().valid(120, 7200)))),
        ("not_one_uri_san", Some(authority.sign(&dns(right())))),
        ("not_a_spiffe_id", Some(authority.leaf("https://cluster.local/ns/default/sa/caller"))),
        ("not_one_uri_san", Some(authority.sign(&Wanted::new(&[CALLER, CALLEE])))),
    ];
    let mut times = std::collections::BTreeMap::new();
    for (cause, leaf) in &refused {
        let answer = ask(at, leaf.as_ref(), &[]).await;
        assert!(answer.is_err(), "{cause}: {answer:?}");
        let so_far = times.entry(*cause).or_insert(0);
        *so_far += 1;
        rises_to(&callee, &failures(cause), *so_far).await;
    }
    assert_eq!(reached.load(Ordering::SeqCst), 0, "nothing reached the app");
    // Clocks that differ by a minute are nobody's fault; protocols nobody knows are not ours to judge.
    let passing = [right(), right().valid(-3600, -35), right().valid(58, 3600)];
    for (index, wanted) in passing.iter().enumerate() {
        let answer = ask(at, Some(&authority.sign(wanted)), &[]).await.expect("it passes");
        assert!(answer.ends_with("ok"), "{index}: {answer}");
    }
    let right = authority.leaf(CALLER);
    for protocols in [
        &[][..],
        &[&b"http/1.1"[..]],
        &[&b"istio-http/1.1"[..]],
        &[&b"istio-http/1.0"[..]],
        &[&b"istio"[..]],
        &[&b"mqtt"[..]],
    ] {
        let answer = ask(at, Some(&right), protocols).await.expect("it passes");
        assert!(answer.ends_with("ok"), "{protocols:?}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strict_takes_no_plaintext_and_says_so_to_who_speaks_http() {
    let (_authority, _, callee_files) = mesh();
    let (app, reached) = counting().await;
    let (callee, at) = callee_as(&callee_files, MtlsMode::Strict, Protocol::Http, app).await;
    let answer = Http1::connect(at).await.get("/", "callee").await;
    assert_eq!((answer.status, answer.reason()), (403, "mtls_required"), "{answer:?}");
    let answer = Http2::connect(at).await.get("http://callee/").await;
    assert_eq!((answer.status, answer.reason()), (403, "mtls_required"), "{answer:?}");
    for bytes in [&b"*1\r\n$4\r\nPING\r\n"[..], b"\x16\x03\x01\x00\x04\x02\x00\x00\x00"] {
        let mut stream = TcpStream::connect(at).await.expect("it listens");
        stream.write_all(bytes).await.expect("taken");
        let ended = within("its end", stream.read(&mut [0; 16])).await;
        assert_eq!(ended.expect_err("no orderly end").kind(), io::ErrorKind::ConnectionReset);
    }
    assert_eq!(reached.load(Ordering::SeqCst), 0, "nothing reached the app");
    assert_eq!(callee.shared.identity.edges.all().len(), 0);
}

/// A kubelet has no certificate, and asks the proxy instead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_apps_probes_work_under_strict() {
    let (_authority, _, callee_files) = mesh();
    let app = echo().await;
    let handed = format!(
        r#"{{"/app-health/app/readyz": {{"httpGet": {{"port": {0}, "path": "/ready"}}}}, "/app-health/app/livez": {{"tcpSocket": {{"port": {0}}}}}}}"#,
        app.port()
    );
    let (callee, at) = callee_with(&callee_files, MtlsMode::Strict, Protocol::Http, app, |setup| {
        setup.app_probes = handed.parse().expect("probes");
    })
    .await;
    assert_eq!(Http1::connect(at).await.get("/ready", "callee").await.reason(), "mtls_required");
    for path in ["/app-health/app/readyz", "/app-health/app/livez"] {
        let answer = Http1::connect(callee.metrics).await.get(path, "kubelet").await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hello_that_comes_byte_by_byte_is_recognised() {
    let (authority, _, callee_files) = mesh();
    let right = authority.leaf(CALLER);
    for mode in [MtlsMode::Strict, MtlsMode::Permissive] {
        let (callee, at) = callee_as(&callee_files, mode, Protocol::Http, counting().await.0).await;
        let stream = TcpStream::connect(at).await.expect("it listens");
        stream.set_nodelay(true).expect("an option");
        let connector = TlsConnector::from(pki::client(Some(&right), &[b"istio-http/1.1"]));
        let mut stream =
            within("a handshake", connector.connect(pki::name(), Trickle(stream))).await.expect("it passes");
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"istio-http/1.1"[..]));
        let group = stream.get_ref().1.negotiated_key_exchange_group().map(|group| group.name());
        assert_eq!(group, Some(rustls::NamedGroup::X25519MLKEM768), "its hello spans segments");
        stream.write_all(GET).await.expect("taken");
        // The runtime lets a task do so much at a time; what is left of a record then is not sent by reading.
        stream.flush().await.expect("sent");
        let mut answer = String::new();
        within("the answer", stream.read_to_string(&mut answer)).await.expect("an orderly end");
        assert!(answer.ends_with("ok"), "{mode}: {answer}");
        assert_eq!(only_edge(&callee).0.plaintext, None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn permissive_leaves_tls_of_the_app_untouched_and_counts_plaintext() {
    let (authority, _, callee_files) = mesh();
    let own = Wanted::new(&["https://app.test"]).self_signed();
    let app = tls_app(&own).await;
    for protocol in [Protocol::Detect, Protocol::Tls, Protocol::Tcp, Protocol::Http] {
        let (callee, at) = callee_as(&callee_files, MtlsMode::Permissive, protocol, app).await;
        for protocols in [&[][..], &[&b"h2"[..], b"http/1.1"]] {
            let stream = TcpStream::connect(at).await.expect("it listens");
            stream.set_nodelay(true).expect("an option");
            let connector = TlsConnector::from(pki::client(Some(&authority.leaf(CALLER)), protocols));
            let mut stream = within("a handshake", connector.connect(pki::name(), Trickle(stream)))
                .await
                .expect("the app's");
            let shown = stream.get_ref().1.peer_certificates().expect("one")[0].clone();
            use rustls::pki_types::pem::PemObject;
            let want =
                rustls::pki_types::CertificateDer::from_pem_slice(own.certificate.as_bytes()).expect("PEM");
            assert_eq!(shown, want, "{protocol:?}");
            stream.write_all(b"hello").await.expect("taken");
            stream.flush().await.expect("sent");
            let mut back = [0; 5];
            within("the echo", stream.read_exact(&mut back)).await.expect("whole");
        }
        let (edge, seen) = only_edge(&callee);
        assert_eq!((edge.plaintext, seen.connections), (Some(Why::CallerOwnTls), 2));
    }
    let (callee, at) = callee_as(&callee_files, MtlsMode::Permissive, Protocol::Http, echo().await).await;
    let mut client = Http1::connect(at).await;
    let request =
        http::Request::get("/").header("host", "callee").header("x-forwarded-client-cert", "URI=spiffe://me");
    let answer = Answer::read(client.send(request.body(text("")).expect("valid")).await).await;
    assert_eq!(answer.status, 200);
    assert!(!answer.body.to_lowercase().contains("x-forwarded-client-cert"), "{}", answer.body);
    assert_eq!(only_edge(&callee).0.plaintext, Some(Why::CallerPlaintext));
    assert_eq!(
        metric(&callee, "outrigger_connections_opened_total{direction=\"inbound\",tls=\"none\"}").await,
        1
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disabled_port_opens_no_tls_and_a_server_that_speaks_first_is_heard_without_it() {
    let (authority, _, callee_files) = mesh();
    let own = Wanted::new(&["https://app.test"]).self_signed();
    let (_callee, at) =
        callee_as(&callee_files, MtlsMode::Disabled, Protocol::Tls, tls_app(&own).await).await;
    let stream = TcpStream::connect(at).await.expect("it listens");
    let connector = TlsConnector::from(pki::client(Some(&authority.leaf(CALLER)), &[b"istio"]));
    let refused = within("an end", connector.connect(pki::name(), stream)).await;
    assert!(refused.is_err(), "the app knows nothing of the mesh's protocols");

    let banner = bytes_app(|mut stream: TcpStream| async move {
        let _ = stream.write_all(b"220 ready\r\n").await;
        let _ = stream.read(&mut [0; 1]).await;
    })
    .await;
    for protocol in [Protocol::Tcp, Protocol::Detect] {
        let (_callee, at) = callee_as(&callee_files, MtlsMode::Permissive, protocol, banner).await;
        for _ in 0..2 {
            let mut stream = TcpStream::connect(at).await.expect("it listens");
            let mut first = [0; 11];
            within("the banner", stream.read_exact(&mut first)).await.expect("whole");
            assert_eq!(&first, b"220 ready\r\n");
        }
    }
}

/// As operators would look at it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openssl_and_curl_see_the_same() {
    if peers_missing(&["openssl", "curl"]) {
        return;
    }
    let (authority, _, callee_files) = mesh();
    let (callee, at) = callee_as(&callee_files, MtlsMode::Strict, Protocol::Http, echo().await).await;
    let stranger = Authority::new("stranger");
    let write = |leaf: &Leaf| {
        let files = Files::new();
        files.write(leaf, &[&authority]);
        files
    };
    let right = || Wanted::new(&[CALLER]);
    for (cause, files) in [
        ("", Some(write(&authority.leaf(CALLER)))),
        ("no_certificate", None),
        ("self_signed", Some(write(&right().self_signed()))),
        ("unknown_issuer", Some(write(&stranger.leaf(CALLER)))),
        ("expired", Some(write(&authority.sign(&right().valid(-7200, -3600))))),
        ("not_yet_valid", Some(write(&authority.sign(&right().valid(3600, 7200))))),
        ("not_one_uri_san", Some(write(&authority.sign(&dns(right()))))),
        ("not_a_spiffe_id", Some(write(&authority.leaf("https://cluster.local/ns/default/sa/caller")))),
        ("other_trust_domain", Some(write(&authority.leaf("spiffe://elsewhere.test/ns/default/sa/caller")))),
        ("not_one_uri_san", Some(write(&authority.sign(&Wanted::new(&[CALLER, CALLEE]))))),
    ] {
        let (certificate, key) = match &files {
            Some(files) => (Some(files.path("cert.pem")), Some(files.path("key.pem"))),
            None => (None, None),
        };
        let before = metric(&callee, &failures(cause)).await;
        let (s_client, curl) = tokio::task::spawn_blocking(move || {
            (
                s_client(at, "/", certificate.as_deref(), key.as_deref()),
                curl(&format!("https://{at}/"), certificate.as_deref(), key.as_deref()),
            )
        })
        .await
        .expect("both run");
        if cause.is_empty() {
            assert!(s_client.contains("HTTP/1.1 200 OK"), "{s_client}");
            assert!(curl.contains("x-forwarded-client-cert"), "{curl}");
        } else {
            assert!(!s_client.contains("HTTP/1.1"), "{cause}: {s_client}");
            assert!(!curl.contains("HTTP/"), "{cause}: {curl}");
            rises_to(&callee, &failures(cause), before + 2).await;
        }
    }
    let plaintext = tokio::task::spawn_blocking(move || curl(&format!("http://{at}/"), None, None));
    let plaintext = plaintext.await.expect("it runs");
    assert!(plaintext.starts_with("HTTP/1.1 403") && plaintext.contains("mtls_required"), "{plaintext}");
}

/// Between two sidecars, each with a clock of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sidecars_whose_clocks_differ_by_less_than_a_minute_speak_to_each_other() {
    let authority = Authority::new("root");
    // To the verifier, what a clock ahead of it has signed begins in the future; what one behind it signed has ended already.
    for (caller_valid, callee_valid) in [((58, 3600), (-3600, -35)), ((-3600, -35), (58, 3600))] {
        let files = |id: &str, (from, to)| {
            let files = Files::new();
            files.write(&authority.sign(&Wanted::new(&[id]).valid(from, to)), &[&authority]);
            files
        };
        let callee = files(CALLEE, callee_valid);
        let (_callee, at) = callee_as(&callee, MtlsMode::Strict, Protocol::Http, echo().await).await;
        let caller = files(CALLER, caller_valid);
        let service = meshed(&Service::new("reviews:9080", &[at]), CALLEE);
        let caller = caller_as(&caller, service, |_| {}).await;
        let answer =
            Http1::connect(caller.outbound[0]).await.get("http://reviews:9080/", "reviews:9080").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answer.body.contains(&format!("URI={CALLER}")), "{}", answer.body);
    }
}

pub fn s_client(at: SocketAddr, path: &str, certificate: Option<&Path>, key: Option<&Path>) -> String {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &at.to_string(), "-tls1_3", "-quiet", "-ign_eof"]);
    if let (Some(certificate), Some(key)) = (certificate, key) {
        command.arg("-cert").arg(certificate).arg("-key").arg(key);
    }
    output(command, format!("GET {path} HTTP/1.1\r\nhost: callee\r\nconnection: close\r\n\r\n").as_bytes())
}

pub fn curl(url: &str, certificate: Option<&Path>, key: Option<&Path>) -> String {
    let mut command = Command::new("curl");
    command.args(["-sk", "--max-time", "20", "--http1.1", "-i", "--path-as-is", "--noproxy", "*", url]);
    if let (Some(certificate), Some(key)) = (certificate, key) {
        command.arg("--cert").arg(certificate).arg("--key").arg(key);
    }
    output(command, b"")
}

fn output(mut command: Command, input: &[u8]) -> String {
    let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = pipes.spawn().expect("it was found");
    // It may have ended before it read anything.
    let _ = child.stdin.take().expect("piped").write_all(input);
    let output = child.wait_with_output().expect("it ends");
    [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat()
}

/// A missing counterpart fails the test, unless that was asked for.
pub fn peers_missing(programs: &[&str]) -> bool {
    let missing: Vec<_> =
        programs.iter().filter(|name| Command::new(name).arg("--version").output().is_err()).collect();
    if missing.is_empty() {
        return false;
    }
    let skip = std::env::var_os("OUTRIGGER_SKIP_PEERS").is_some_and(|value| value == "1");
    assert!(skip, "{missing:?} are needed; OUTRIGGER_SKIP_PEERS=1 goes on without");
    eprintln!("SKIPPED: {missing:?} are not there");
    true
}

/// A TLS server of the app's own that sends back what it reads.
async fn tls_app(own: &Leaf) -> SocketAddr {
    let mut config = rustls::ServerConfig::clone(&pki::server(own));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let config = Arc::new(config);
    bytes_app(move |stream| {
        let acceptor = TlsAcceptor::from(config.clone());
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            let mut buffer = [0; 1024];
            while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                let _ = stream.write_all(&buffer[..count]).await;
            }
        }
    })
    .await
}

/// Writes one byte at a time.
struct Trickle(TcpStream);

impl AsyncRead for Trickle {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Trickle {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, &buf[..buf.len().min(1)])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
