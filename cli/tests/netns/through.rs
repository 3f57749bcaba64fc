//! Traffic that is redirected through real sidecars: who reaches whom, by which way, and what a proxy does where rules are missing.

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use socket2::SockRef;
use tokio::time::Instant;

use crate::network::{self, Namespace, Pod};
use crate::sidecar::{APP, Mesh, PATIENCE, Tool, curl, say, service};
use crate::witness::Witness;

macro_rules! under_each_tool {
    ($($test:ident)*) => {
        mod nft { $(#[test] fn $test() { super::$test(super::Tool::Nft, concat!("nft::", stringify!($test))) })* }
        mod iptables { $(#[test] fn $test() { super::$test(super::Tool::Iptables, concat!("iptables::", stringify!($test))) })* }
    };
}

under_each_tool! {
    curl_reaches_a_service_by_its_address_through_both_sidecars
    a_pod_reaches_itself_and_nobody_reaches_the_proxys_own_ports
    a_server_that_speaks_first_is_heard_on_an_undeclared_port
    what_the_mesh_does_not_know_passes_or_is_refused_and_what_is_excluded_goes_past
    a_proxy_is_ready_only_while_everything_is_redirected
    a_grpc_client_reaches_a_service_by_its_address
}

fn curl_reaches_a_service_by_its_address_through_both_sidecars(tool: Tool, test: &str) {
    let Some(mesh) = Mesh::running(test, tool) else { return };
    let mut seen = 0.0;
    for (name, last) in [("echo", 10), ("echo6", 11)] {
        for (number, ip) in service(last).into_iter().enumerate() {
            let url = format!("http://{}/hello", SocketAddr::new(ip, 80));
            let (code, said) = curl(&mesh.client.namespace, &[&url]);
            assert_eq!(code, 0, "{url}: {said}\n{}", mesh.logs());
            let answer: serde_json::Value = serde_json::from_str(&said).expect("the app answers JSON");
            assert_eq!(answer["path"], "/hello", "{answer}");
            seen += 1.0;
            let (caller, callee) = mesh.requests(&mesh.client, name);
            assert_eq!((caller, callee), (number as f64 + 1.0, seen), "{url}\n{}", mesh.logs());
        }
    }
    // A body each way, and HTTP/2 without a word of warning.
    let url = "http://10.96.0.10/upload";
    let body = mesh.log("echo-app").display().to_string();
    let (code, said) =
        curl(&mesh.client.namespace, &["--http2-prior-knowledge", "--data-binary", &format!("@{body}"), url]);
    assert!(code == 0 && said.contains("crc32"), "{said}\n{}", mesh.logs());
    let (code, said) = curl(&mesh.client.namespace, &["http://10.96.0.10/bytes/1000000"]);
    assert_eq!((code, said.len()), (0, 1_000_000));
}

fn a_pod_reaches_itself_and_nobody_reaches_the_proxys_own_ports(tool: Tool, test: &str) {
    let Some(mesh) = Mesh::running(test, tool) else { return };
    let Mesh { echo, outside, client, .. } = &mesh;
    // By its Service: out through its own sidecar and in through it again.
    for url in ["http://10.96.0.10/", "http://[fd96::10]/"] {
        let (code, said) = curl(&echo.namespace, &[url]);
        assert_eq!(code, 0, "{url}: {said}\n{}", mesh.logs());
    }
    assert_eq!(mesh.requests(echo, "echo"), (2.0, 2.0));
    // By its own address: undisturbed.
    let (code, said) = curl(&echo.namespace, &[&format!("http://{}:8080/", echo.v4)]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(mesh.requests(echo, "echo"), (2.0, 2.0));
    // A port that the workload does not declare is the app's, too, whoever calls, and wherever the app listens.
    let _undeclared = Witness::new(&echo.namespace, 8081);
    for from in [client, outside] {
        for to in [SocketAddr::from((echo.v4, 8081)), (echo.v6, 8081).into()] {
            let (code, said) = curl(&from.namespace, &[&format!("http://{to}/")]);
            assert_eq!((code, said.as_str()), (0, "8081 direct"), "{to}\n{}", mesh.logs());
        }
    }

    let opened = || mesh.metric(echo, "outrigger_connections_opened_total", &[]);
    let before = opened();
    let mut refused = 0.0;
    for from in [outside, client, echo] {
        for port in [15000, 15001, 15006, 15019] {
            for to in [SocketAddr::from((echo.v4, port)), (echo.v6, port).into()] {
                let stream = from.namespace.enter(|| TcpStream::connect(to));
                let answer =
                    stream.ok().and_then(|stream| say(stream, b"hello, is there anybody who answers?\n"));
                assert_eq!(answer.unwrap_or_default(), "", "{to} answered");
                refused += 1.0;
            }
        }
    }
    // The app's own way to ask the proxy for itself.
    for to in ["127.0.0.1:15001", "127.0.0.1:15006", "127.0.0.1:15019", &format!("{}:15006", echo.v4)] {
        let (code, said) = curl(
            &echo.namespace,
            &["--noproxy", "", "--proxy", "http://127.0.0.1:15001", &format!("http://{to}/")],
        );
        assert!(code != 0 || !said.contains("\"path\""), "{to}: {said}");
        refused += 1.0;
    }
    // A foreign connection to the canary is met in silence.
    for to in ["127.0.0.1:15019", "[::1]:15019"] {
        let (code, said) = curl(&echo.namespace, &[&format!("http://{to}/")]);
        assert!(code == 52 || code == 56, "{code} {said}");
    }
    // None of them went in a circle: each is a handful of connections at most, and all is well.
    assert!(opened() - before <= 4.0 * refused, "{} connections for {refused}", opened() - before);
    mesh.await_ready(echo);
    assert_eq!(curl(&client.namespace, &["http://10.96.0.10/"]).0, 0);
}

fn a_server_that_speaks_first_is_heard_on_an_undeclared_port(tool: Tool, test: &str) {
    let Some(mesh) = Mesh::running(test, tool) else { return };
    let _greeter = Greeter::new(&mesh.echo);
    for ip in service(10) {
        let to = SocketAddr::new(ip, 7000);
        let first = greeted(&mesh.client.namespace, to);
        eprintln!("{tool:?} {to}: first banner after {first:?}; promised 500 ms");
        assert!(first <= 10 * Duration::from_millis(500), "{first:?}\n{}", mesh.logs());
        // Without memory none could come before the client was silent for 100 ms; a busy machine may need several to show it.
        mesh.await_that("a later banner comes at once", || {
            let later = greeted(&mesh.client.namespace, to);
            eprintln!("{tool:?} {to}: later banner after {later:?}");
            later < Duration::from_millis(100)
        });
    }
}

fn what_the_mesh_does_not_know_passes_or_is_refused_and_what_is_excluded_goes_past(tool: Tool, test: &str) {
    let Some(mesh) = Mesh::running(test, tool) else { return };
    let Mesh { client, outside, .. } = &mesh;
    let _unknown = Witness::new(&outside.namespace, 8080);
    let _excluded = Witness::new(&outside.namespace, 9090);
    let opened = || mesh.metric(client, "outrigger_connections_opened_total", &["direction=\"outbound\""]);
    let targets = |port| [SocketAddr::from((outside.v4, port)), (outside.v6, port).into()];
    for to in targets(8080) {
        let before = opened();
        let (code, said) = curl(&client.namespace, &[&format!("http://{to}/")]);
        assert_eq!((code, said.as_str()), (0, "8080 direct"), "{to}\n{}", mesh.logs());
        assert_eq!(opened() - before, 1.0, "{to} went past the sidecar");
    }

    mesh.write(
        "egress.yaml",
        "apiVersion: outrigger.dev/v1alpha1\nkind: Mesh\nmetadata: {name: default}\nspec: {egress: {mode: RegistryOnly}}\n",
    );
    for to in targets(8080) {
        mesh.await_that("the unknown is refused", || {
            let (_, said) = curl(&client.namespace, &["--include", &format!("http://{to}/")]);
            assert!(said.contains("8080 direct") || said.contains("unknown_destination"), "{said}");
            said.contains("unknown_destination")
        });
    }
    assert_eq!(curl(&client.namespace, &["http://10.96.0.10/"]).0, 0, "the mesh's own is not refused");

    mesh.capture(client, &["apply", "--exclude-outbound-ports=9090"]);
    mesh.capture(&mesh.echo, &["apply", "--exclude-inbound-ports=8080"]);
    let before = opened();
    for to in targets(9090) {
        let (code, said) = curl(&client.namespace, &[&format!("http://{to}/")]);
        assert_eq!((code, said.as_str()), (0, "9090 direct"), "{to}");
    }
    let cidrs = format!("--exclude-outbound-cidrs={}/32,{}", outside.v4, outside.v6);
    mesh.capture(client, &["apply", &cidrs]);
    for to in targets(8080) {
        let (code, said) = curl(&client.namespace, &[&format!("http://{to}/")]);
        assert_eq!((code, said.as_str()), (0, "8080 direct"), "{to}");
    }
    assert_eq!(opened(), before, "what is excluded met the sidecar");
    // Excluded at the callee: the caller's sidecar reaches the app itself.
    let inbound = || mesh.metric(&mesh.echo, "outrigger_requests_total", &["direction=\"inbound\""]);
    let before = inbound();
    assert_eq!(curl(&outside.namespace, &[&format!("http://{}:8080/", mesh.echo.v4)]).0, 0);
    assert_eq!(inbound(), before);
    mesh.await_ready(client);
}

fn a_proxy_is_ready_only_while_everything_is_redirected(tool: Tool, test: &str) {
    let Some(mut mesh) = Mesh::new(test, tool) else { return };
    mesh.start_echo();
    mesh.start_sidecar("echo");
    let pod = &mesh.echo;
    let run = "; run `outrigger capture apply`\n";
    let says = |readiness: &str, wanted: &[&str]| {
        let lines: Vec<&str> = readiness.split_inclusive('\n').collect();
        let fits = |(line, wanted): (&&str, &&str)| line.starts_with(wanted) && line.ends_with(run);
        lines.len() == wanted.len() && lines.iter().zip(wanted).all(fits)
    };
    mesh.await_readiness(pod, |said| {
        says(said, &["IPv4 connections are not redirected: ", "IPv6 connections are not redirected: "])
    });
    for (args, flushed, wanted) in [
        (&["apply"][..], None, &[][..]),
        // A pod with an IPv6 address needs IPv6.
        (&["apply", "--ipv6=off"], None, &["IPv6 connections are not redirected: "][..]),
        (&["apply"], Some((true, "output")), &["IPv6 connections are not redirected: "]),
        (&["apply"], Some((false, "outbound")), &["IPv4 connections of the app are not redirected: "]),
        (&["apply"], Some((false, "inbound")), &["IPv4 connections to the pod are not redirected: "]),
        (
            &["remove"],
            None,
            &["IPv4 connections are not redirected: ", "IPv6 connections are not redirected: "],
        ),
        // Loaded again, it recovers by itself.
        (&["apply"], None, &[]),
    ] {
        mesh.capture(pod, args);
        if let Some((ipv6, chain)) = flushed {
            mesh.await_ready(pod);
            mesh.flush(pod, ipv6, chain);
        }
        if wanted.is_empty() {
            mesh.await_ready(pod);
        } else {
            mesh.await_readiness(pod, |said| says(said, wanted));
        }
    }
    // What was never ready and became so serves.
    assert_eq!(curl(&mesh.outside.namespace, &[&format!("http://{}:8080/", mesh.echo.v4)]).0, 0);
}

fn a_grpc_client_reaches_a_service_by_its_address(tool: Tool, test: &str) {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/peers/venv/bin/python");
    if !python.is_file() {
        return network::skip(test, "Python with grpcio is missing: `cargo xtask peers`");
    }
    let Some(mut mesh) = Mesh::running(test, tool) else { return };
    let host = mesh.echo.v4.to_string();
    mesh.start("chat", "echo", APP, &["sample", "chat", "server", "--host", &host, "--port", "50051"]);
    let at = SocketAddr::from((mesh.echo.v4, 50051));
    mesh.await_that("the app listens", || mesh.echo.namespace.enter(|| TcpStream::connect(at).is_ok()));
    // The messages of chat.proto by hand: author and text are fields 1 and 2.
    let script = r#"
import sys, grpc
for target in sys.argv[1:]:
    with grpc.insecure_channel(target) as channel:
        plain = lambda data: data
        say = channel.unary_unary("/chat.v1.Chat/Say", plain, plain)
        reply, call = say.with_call(b"\x0a\x02me\x12\x02hi", timeout=60)
        assert b"hi" in reply and call.code() is grpc.StatusCode.OK, reply
        room = channel.stream_stream("/chat.v1.Chat/Room", plain, plain)
        messages = [b"\x0a\x02me\x12\x03one", b"\x0a\x02me\x12\x03two"]
        replies = list(room(iter(messages), timeout=60))
        assert len(replies) == 2 and b"two" in replies[1], replies
        fail = channel.unary_stream("/chat.v1.Chat/Fail", plain, plain)
        try:
            list(fail(b"\x08\x07", timeout=60))
            raise SystemExit("a failing call succeeded")
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.PERMISSION_DENIED, error
    print(target, "ok")
"#;
    let targets = ["10.96.0.10:50051", "[fd96::10]:50051"];
    let mut client = mesh.client.namespace.command_as(APP, &python);
    let output = client.args(["-c", script]).args(targets).output().expect("nsenter starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{}", mesh.logs());
    assert_eq!(mesh.requests(&mesh.client, "echo"), (6.0, 6.0));
}

/// A server that says who it is before it is asked anything.
struct Greeter {
    listener: TcpListener,
    thread: Option<std::thread::JoinHandle<()>>,
}

const BANNER: &str = "220 greeter\n";

impl Greeter {
    fn new(pod: &Pod) -> Self {
        let at = SocketAddr::from((pod.v4, 7000));
        let listener = pod.namespace.enter(|| TcpListener::bind(at)).expect("the port is free");
        let accepting = listener.try_clone().expect("a descriptor is free");
        let thread = std::thread::spawn(move || {
            while let Ok((mut stream, _)) = accepting.accept() {
                let mut line = String::new();
                // The proxy may only have asked who speaks first.
                let _ = stream.write_all(BANNER.as_bytes());
                let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
                let _ = BufReader::new(&stream).read_line(&mut line);
                let _ = stream.write_all(line.to_uppercase().as_bytes());
            }
        });
        Self { listener, thread: Some(thread) }
    }
}

impl Drop for Greeter {
    fn drop(&mut self) {
        // Wakes the thread out of accept.
        let _ = SockRef::from(&self.listener).shutdown(Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// How long a connection waits for the banner; what is said then is answered, too.
#[track_caller]
fn greeted(from: &Namespace, to: SocketAddr) -> Duration {
    let begun = Instant::now();
    let stream = from.enter(|| TcpStream::connect(to)).expect("the sidecar accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
    let mut lines = BufReader::new(&stream).lines();
    let banner = lines.next().expect("a banner").expect("in time");
    let after = begun.elapsed();
    assert_eq!(banner, BANNER.trim());
    (&stream).write_all(b"hello\n").expect("it reads");
    assert_eq!(lines.next().expect("an answer").expect("in time"), "HELLO");
    after
}
