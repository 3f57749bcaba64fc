//! The examples of `docs/examples` other than Bookinfo, as their READMEs tell to use them.

use std::io::Write;
use std::process::Stdio;

use crate::scene::{Scene, has, output};
use crate::support::{Mesh, OUTRIGGER};

const ANY: &str = "
apiVersion: outrigger.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: any}
spec:
  targetRefs: [{kind: Service, name: chat}]
  loadBalancing: {algorithm: Random}
";

#[test]
fn the_chat_makes_all_kinds_of_calls_through_both_instances_and_the_gateway() {
    // By latency, one of two instances with next to nothing to do may be the better one for as long as anybody looks.
    let mesh = Mesh::of_example_changed("grpc", |manifests| {
        std::fs::write(manifests.join("any.yaml"), ANY).expect("written");
    });
    // The client in the mesh says in its log what it did.
    mesh.await_that("the client had answers to all kinds of calls, of both instances", || {
        let log = mesh.log_text();
        let kinds = ["Say ", "History ", "Upload ", "Room "];
        let answered = |what: &str| log.lines().any(|l| l.starts_with("chat-client-0 ") && l.contains(what));
        kinds.iter().all(|kind| answered(kind)) && answered(" chat-0 ") && answered(" chat-1 ")
    });
    // The same client from outside, through the gateway and its GRPCRoute.
    let address = mesh.gateway().to_string();
    let client = |arguments: &[&str]| {
        let mut command = std::process::Command::new(OUTRIGGER);
        command.args(["sample", "chat", "client", "--address"]).args(arguments);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().to_lowercase().ends_with("_proxy") {
                command.env_remove(name);
            }
        }
        output(&mut command)
    };
    let said = client(&[&address]);
    for kind in ["Say ", "Upload ", "Room "] {
        assert!(said.contains(kind), "{said}");
    }
    let calls = |labels: &[&str]| {
        let url =
            mesh.status().expect("a status")["gateways"][0]["metrics"].as_str().expect("a URL").to_owned();
        crate::support::metric_at(&url, "outrigger_requests_total", labels)
    };
    assert_eq!(calls(&["route=\"chat\"", "grpc_code=\"0\""]), 4.0, "one call of each kind");
}

#[test]
fn redis_is_reached_through_the_mesh_and_the_gateway() {
    if !has(&["redis-server", "redis-cli"]) {
        return;
    }
    let scene = Scene::of(Mesh::of_example("tcp"), "counter-0");
    let mesh = &scene.mesh;
    mesh.await_that("the counter counts", || {
        mesh.log_text().lines().any(|line| line.starts_with("counter-0 "))
    });

    let status = mesh.status().expect("a status");
    let gateway = status["gateways"][0]["urls"][0].as_str().expect("a URL").trim_start_matches("tcp://");
    let (host, port) = gateway.split_once(':').expect("HOST:PORT");
    let from_outside = |arguments: &[&str]| {
        output(std::process::Command::new("redis-cli").args(["-h", host, "-p", port]).args(arguments))
    };
    let visits: u64 = from_outside(&["GET", "visits"]).trim().parse().expect("a number");
    assert!(visits >= 1);

    // As an app of the mesh calls it.
    let own = scene.address("redis");
    let (host, port) = own.split_once(':').expect("HOST:PORT");
    let cli = |arguments: &[&str]| {
        let mut command = scene.command("redis-cli");
        command.args(["-h", host, "-p", port]).args(arguments);
        command
    };
    assert_eq!(output(&mut cli(&["PING"])), "PONG\n");

    // More than any buffer at once, there and back.
    let large = vec![b'x'; 10_000_000];
    let mut set = cli(&["-x", "SET", "large"]);
    let mut set = set.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("redis-cli starts");
    set.stdin.take().expect("a pipe").write_all(&large).expect("it reads");
    assert_eq!(set.wait_with_output().expect("its output").stdout, b"OK\n");
    assert_eq!(from_outside(&["STRLEN", "large"]), "10000000\n");
    assert_eq!(output(&mut cli(&["GET", "large"])).trim_end().len(), large.len());

    // Thousands of commands on their way before the first is answered.
    let mut pipe = cli(&["--pipe"]);
    let mut pipe = pipe.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("redis-cli starts");
    let commands = "*2\r\n$4\r\nINCR\r\n$5\r\nmany1\r\n".repeat(20_000);
    pipe.stdin.take().expect("a pipe").write_all(commands.as_bytes()).expect("it reads");
    let said = String::from_utf8(pipe.wait_with_output().expect("its output").stdout).expect("text");
    assert!(said.contains("errors: 0, replies: 20000"), "{said}");
    assert_eq!(output(&mut cli(&["GET", "many1"])), "20000\n");

    // A connection on which nothing moves until the server has something to say.
    let waiting = cli(&["BLPOP", "jobs", "50"]).stdout(Stdio::piped()).spawn().expect("redis-cli starts");
    mesh.await_that("it waits", || from_outside(&["INFO", "clients"]).contains("blocked_clients:1"));
    from_outside(&["RPUSH", "jobs", "a job"]);
    assert_eq!(waiting.wait_with_output().expect("its output").stdout, b"jobs\na job\n");

    let bytes =
        mesh.metric("redis-0", "outrigger_bytes_total", &["direction=\"inbound\"", "way=\"request\""]);
    assert!(bytes > 10_000_000.0, "all of it went through the sidecar of Redis: {bytes}");
}
