//! curl: every HTTP version, and what HTTP/1 has besides requests with a body.

use std::process::Command;

use serde_json::Value;

use crate::scene::{Scene, has, output};

/// What curl printed with `--include`.
#[derive(Debug)]
struct Reply {
    /// Status lines and fields of every head, `100 Continue` and the proxy's answer to CONNECT among them; the last is the answer's.
    heads: Vec<String>,
    body: String,
}

impl Reply {
    fn head(&self) -> &str {
        self.heads.last().expect("an answer")
    }

    fn field(&self, name: &str) -> Option<&str> {
        let named = |line: &&str| line.split_once(':').is_some_and(|(n, _)| n.eq_ignore_ascii_case(name));
        Some(self.head().lines().find(named)?.split_once(':')?.1.trim())
    }

    /// What the echo says it received.
    fn echoed(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// The values of a request's field, in any case, as the echo received them.
fn received<'a>(echoed: &'a Value, name: &str) -> Vec<&'a str> {
    let fields = echoed["headers"].as_array().expect("fields");
    let named = |field: &&Value| field[0].as_str().is_some_and(|n| n.eq_ignore_ascii_case(name));
    fields.iter().filter(named).filter_map(|field| field[1].as_str()).collect()
}

fn curl(scene: &Scene, arguments: &[&str]) -> Command {
    let mut command = scene.command("curl");
    command.args(["--silent", "--show-error", "--include"]).args(arguments);
    command
}

fn ask(scene: &Scene, arguments: &[&str]) -> Reply {
    let mut rest = output(&mut curl(scene, arguments));
    let mut heads = Vec::new();
    while rest.starts_with("HTTP/")
        && let Some(end) = rest.find("\r\n\r\n")
    {
        heads.push(rest[..end].to_owned());
        rest = rest[end + 4..].to_owned();
    }
    Reply { heads, body: rest }
}

#[test]
fn each_version_of_http_is_the_apps_too() {
    if !has(&["curl"]) {
        return;
    }
    let scene = Scene::shared();
    let direct = format!("http://{}/a%20b/../c?q=1&q=2", scene.address("echo"));
    for (version, line, seen) in [
        ("--http1.0", "HTTP/1.0 200 OK", "HTTP/1.1"), // 1.0 is of one hop (RFC 9110 §2.5)
        ("--http1.1", "HTTP/1.1 200 OK", "HTTP/1.1"),
        ("--http2-prior-knowledge", "HTTP/2 200", "HTTP/2.0"),
    ] {
        // By its own address; the proxy variables name no exception for it.
        let reply = ask(&scene, &[version, "--noproxy", "*", "--path-as-is", &direct]);
        assert!(reply.head().starts_with(line), "{version}: {reply:?}");
        let echoed = reply.echoed();
        assert_eq!(echoed["version"], seen, "{version}");
        assert_eq!(echoed["path"], "/a%20b/../c", "{version}: a path is not ours to tidy up");
        assert_eq!(echoed["query"], "q=1&q=2", "{version}");
        assert_eq!(reply.field("proxy-status"), None, "{version}: it is the app's answer");
    }
}

#[test]
fn the_proxy_variables_lead_to_services_by_name_and_by_address() {
    if !has(&["curl"]) {
        return;
    }
    let scene = Scene::shared();
    let by_address = format!("http://{}/", scene.address("echo"));
    for (url, host) in [
        ("http://echo/", "echo"),
        ("http://echo:80/", "echo"),
        ("http://echo.default/", "echo.default"),
        ("http://ECHO.default.svc.cluster.local/", "ECHO.default.svc.cluster.local"),
        (&by_address, scene.variable("ECHO_SERVICE_HOST")),
    ] {
        let reply = ask(&scene, &[url]);
        assert!(reply.head().starts_with("HTTP/1.1 200"), "{url}: {reply:?}");
        let echoed = reply.echoed();
        // The target is the app's own again, not the absolute form a proxy is given.
        assert_eq!(echoed["target"], "/", "{url}");
        // curl leaves the port out where it is 80.
        let said = received(&echoed, "host")[0];
        assert_eq!(said.split(':').next(), Some(host), "{url}: {echoed}");
    }
    let reply = ask(&scene, &["http://nowhere.default.svc.cluster.local/"]);
    assert!(reply.head().starts_with("HTTP/1.1 503"), "{reply:?}");
    assert!(reply.field("proxy-status").is_some_and(|status| status.contains("dns_failed")), "{reply:?}");
}

#[test]
fn connect_is_looked_into() {
    if !has(&["curl"]) {
        return;
    }
    let scene = Scene::shared();
    let before = scene.arrived("echo-0");
    let proxy = scene.variable("http_proxy").to_owned();
    for (version, seen) in [("--http1.1", "HTTP/1.1"), ("--http2-prior-knowledge", "HTTP/2.0")] {
        let reply = ask(&scene, &[version, "--proxytunnel", "--proxy", &proxy, "http://echo:80/tunnel"]);
        assert_eq!(reply.heads.len(), 2, "the proxy's 200 and the app's: {reply:?}");
        let echoed = reply.echoed();
        assert_eq!(echoed["path"], "/tunnel", "{version}");
        assert_eq!(echoed["version"], seen);
        // Seen as a request, so it is one of the mesh: it has an id.
        assert_eq!(received(&echoed, "x-request-id").len(), 1, "{echoed}");
    }
    assert_eq!(scene.arrived("echo-0"), before + 2.0);
}

#[test]
fn a_connection_is_kept_alive_for_the_next_request() {
    if !has(&["curl"]) {
        return;
    }
    let scene = Scene::shared();
    let url = format!("http://{}/", scene.address("echo"));
    let opened = "%{num_connects} ";
    let mut one = scene.command("curl");
    one.args(["--silent", "--noproxy", "*", "--output", "/dev/null", "--write-out", opened]);
    let said = output(one.args(["-o", "/dev/null", "-o", "/dev/null", &url, &url, &url]));
    assert_eq!(said, "1 0 0 ", "connections opened for each of three requests");

    // HTTP/1.0 asks for it by name, and is told.
    let keep = ["--http1.0", "--noproxy", "*", "-H", "Connection: keep-alive"];
    let reply = ask(&scene, &[&keep[..], &[&url]].concat());
    assert_eq!(reply.field("connection").map(str::to_lowercase).as_deref(), Some("keep-alive"), "{reply:?}");
    let reply = ask(&scene, &["--noproxy", "*", "-H", "Connection: close", &url]);
    assert_eq!(reply.field("connection").map(str::to_lowercase).as_deref(), Some("close"), "{reply:?}");
}

#[test]
fn bodies_go_up_with_and_without_a_length() {
    if !has(&["curl"]) {
        return;
    }
    let scene = Scene::shared();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("body");
    let body: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    std::fs::write(&file, &body).expect("written");
    let crc32 = format!("{:08x}", crc32fast::hash(&body));
    let from = format!("@{}", file.display());
    for (how, length, interim) in [
        // curl asks first (`Expect: 100-continue`) where a body is longer than 1 MiB.
        (&["--http1.1"][..], Some("3000000"), true),
        (&["--http1.1", "-H", "Expect:"], Some("3000000"), false),
        (&["--http1.1", "-H", "Transfer-Encoding: chunked"], None, true),
        (&["--http1.0"], Some("3000000"), false),
        (&["--http2-prior-knowledge", "--noproxy", "*"], Some("3000000"), false),
    ] {
        let url = format!("http://{}/received", scene.address("echo"));
        let reply = ask(&scene, &[how, &["--data-binary", &from, &url]].concat());
        let echoed = reply.echoed();
        assert_eq!(echoed["body"]["length"], 3_000_000, "{how:?}");
        assert_eq!(echoed["body"]["crc32"], crc32.as_str(), "{how:?}");
        assert_eq!(received(&echoed, "content-length").first().copied(), length, "{how:?}");
        let waited = reply.heads.iter().any(|head| head.starts_with("HTTP/1.1 100"));
        assert_eq!(waited, interim, "{how:?}: {:?}", reply.heads);
        // It was answered here; the next hop's body follows at once.
        assert!(received(&echoed, "expect").is_empty(), "{how:?}: {echoed}");
    }
    let unsized_upload = ["--http2-prior-knowledge", "--noproxy", "*", "-T", "-"];
    let url = format!("http://{}/received", scene.address("echo"));
    let mut command = curl(&scene, &[&unsized_upload[..], &[&url]].concat());
    let said = output(command.stdin(std::fs::File::open(&file).expect("written")));
    assert!(said.contains(&crc32), "{said}");
}

#[test]
fn answers_without_a_body_end_at_their_head() {
    if !has(&["curl"]) {
        return;
    }
    let scene = Scene::shared();
    let base = format!("http://{}", scene.address("echo"));
    for version in ["--http1.0", "--http1.1", "--http2-prior-knowledge"] {
        let common = [version, "--noproxy", "*"];
        let reply = ask(&scene, &[&common[..], &["--head", &format!("{base}/bytes/12345")]].concat());
        assert_eq!(reply.field("content-length"), Some("12345"), "{version}: the length a GET would have");
        assert_eq!(reply.body, "");
        for status in ["204", "304"] {
            let reply = ask(&scene, &[&common[..], &[&format!("{base}/status/{status}")]].concat());
            assert!(reply.head().contains(&format!(" {status}")), "{version}: {reply:?}");
            assert_eq!((reply.body.as_str(), reply.field("transfer-encoding")), ("", None), "{version}");
        }
    }
}

#[test]
fn trailers_reach_those_who_ask_for_them() {
    if !has(&["curl"]) {
        return;
    }
    let scene = Scene::shared();
    let url = format!("http://{}/trailers", scene.address("echo"));
    for how in [&["--http1.1", "-H", "TE: trailers"][..], &["--http2-prior-knowledge"]] {
        let reply = ask(&scene, &[how, &["--noproxy", "*", &url]].concat());
        assert!(reply.body.starts_with("trailers follow\n"), "{how:?}: {reply:?}");
        // curl prints trailers behind the body, as it prints heads.
        assert!(reply.body.to_lowercase().contains("x-finished: yes"), "{how:?}: {reply:?}");
    }
    let reply = ask(&scene, &["--http1.1", "--noproxy", "*", &url]);
    assert_eq!(reply.body, "trailers follow\n", "nobody asked");
}

#[test]
fn fields_arrive_as_they_were_written_but_for_those_of_one_hop() {
    if !has(&["curl"]) {
        return;
    }
    let scene = Scene::shared();
    let url = format!("http://{}/", scene.address("echo"));
    let reply = ask(
        &scene,
        &[
            "--http1.1",
            "--noproxy",
            "*",
            "-H",
            "X-Custom-ID: One, two",
            "-H",
            "SOAPAction: \"urn:x\"",
            "-H",
            "x_under_score: 1",
            "-H",
            "Connection: keep-alive, X-Secret",
            "-H",
            "X-Secret: for this hop",
            "-H",
            "Proxy-Authorization: Basic eA==",
            "-H",
            "Keep-Alive: timeout=5",
            "-H",
            "TE: gzip, trailers",
            &url,
        ],
    );
    let echoed = reply.echoed();
    assert_eq!(echoed["headersAsReceived"], true, "{echoed}");
    let names: Vec<_> =
        echoed["headers"].as_array().expect("fields").iter().filter_map(|field| field[0].as_str()).collect();
    for name in ["Host", "User-Agent", "X-Custom-ID", "SOAPAction", "x_under_score"] {
        assert!(names.contains(&name), "{name} is written as the client wrote it: {names:?}");
    }
    for gone in ["x-secret", "connection", "keep-alive", "proxy-authorization", "proxy-connection"] {
        assert!(received(&echoed, gone).is_empty(), "{gone}: {echoed}");
    }
    assert_eq!(received(&echoed, "te"), ["trailers"], "what this proxy can pass on");

    // Who asked, how, and an id to find it by.
    let forwarded = received(&echoed, "x-forwarded-for");
    assert_eq!(forwarded.len(), 1, "{echoed}");
    assert!(forwarded[0].parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback()), "{echoed}");
    assert_eq!(received(&echoed, "x-forwarded-proto"), ["http"]);
    let id = received(&echoed, "x-request-id")[0];
    assert_eq!((id.len(), id.as_bytes()[14]), (36, b'4'), "a UUID of version 4: {id}");

    // What the app in front was told, it tells on.
    let told =
        ["-H", "x-request-id: mine", "-H", "x-forwarded-for: 192.0.2.7", "-H", "x-forwarded-proto: https"];
    let echoed = ask(&scene, &[&["--noproxy", "*"], &told[..], &[&url]].concat()).echoed();
    assert_eq!(received(&echoed, "x-request-id"), ["mine"]);
    assert_eq!(received(&echoed, "x-forwarded-for"), ["192.0.2.7"]);
    assert_eq!(received(&echoed, "x-forwarded-proto"), ["https"]);
}

#[test]
fn options_asks_about_the_whole_server() {
    if !has(&["curl"]) {
        return;
    }
    let scene = Scene::shared();
    let url = format!("http://{}/", scene.address("echo"));
    let asterisk = ["--noproxy", "*", "-X", "OPTIONS", "--request-target", "*"];
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let echoed = ask(&scene, &[&[version], &asterisk[..], &[&url]].concat()).echoed();
        assert_eq!((&echoed["method"], &echoed["path"]), (&"OPTIONS".into(), &"*".into()), "{version}");
    }
}

#[test]
fn too_big_a_head_is_refused_by_name() {
    if !has(&["curl"]) {
        return;
    }
    let scene = Scene::shared();
    let url = format!("http://{}/", scene.address("echo"));
    let long = format!("X-Long: {}", "a".repeat(70_000));
    let reply = ask(&scene, &["--http1.1", "--noproxy", "*", "-H", &long, &url]);
    assert!(reply.head().starts_with("HTTP/1.1 431"), "{reply:?}");
    let large = format!("X-Large: {}", "a".repeat(50_000));
    let echoed = ask(&scene, &["--http1.1", "--noproxy", "*", "-H", &large, &url]).echoed();
    assert_eq!(received(&echoed, "x-large")[0].len(), 50_000);
}
