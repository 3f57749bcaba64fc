//! Who may call whom, in a mesh as a user runs it: certificates of its own CA, rules pushed by its control plane.

use std::fs;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tokio::time::Instant;

use crate::support::{self, Mesh, metric_at};

/// Callers of three identities; `echo` speaks HTTP, and to `raw` everything is bytes.
const MESH: &str = r#"
apiVersion: outrigger.dev/v1alpha1
kind: Mesh
metadata: {name: default}
spec:
  mtls: {mode: Strict}
  accessLog: {mode: All}
---
apiVersion: v1
kind: Service
metadata: {name: echo}
spec:
  selector: {app: echo}
  ports: [{name: http, port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: raw}
spec:
  selector: {app: raw}
  ports: [{name: tcp, port: 9000, targetPort: 8080}]
---
apiVersion: outrigger.dev/v1alpha1
kind: Workload
metadata: {name: echo, labels: {app: echo}}
spec:
  ports: [{name: http, port: 8080}]
  command: [outrigger, sample, echo]
---
apiVersion: outrigger.dev/v1alpha1
kind: Workload
metadata: {name: raw, labels: {app: raw}}
spec:
  ports: [{name: tcp, port: 8080, appProtocol: tcp}]
  command: [outrigger, sample, echo]
---
apiVersion: outrigger.dev/v1alpha1
kind: Workload
metadata: {name: page}
spec: {serviceAccount: page, command: [sleep, infinity]}
---
apiVersion: outrigger.dev/v1alpha1
kind: Workload
metadata: {name: batch}
spec: {serviceAccount: batch, command: [sleep, infinity]}
---
apiVersion: outrigger.dev/v1alpha1
kind: Workload
metadata: {name: guest, namespace: lab}
spec: {serviceAccount: page, command: [sleep, infinity]}
"#;

const CALLERS: [&str; 3] = ["page-0", "batch-0", "guest-0"];

/// Replaces the policy of both apps.
fn policy(mesh: &Mesh, name: &str, spec: &str) {
    let text = format!(
        "apiVersion: outrigger.dev/v1alpha1\nkind: AccessPolicy\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"
    );
    let new = mesh.manifests.join(".policy");
    fs::write(&new, text).expect("written");
    fs::rename(new, mesh.manifests.join("policy.yaml")).expect("renamed");
}

/// curl as the app of an instance would run it, through its sidecar.
fn curl(mesh: &Mesh, caller: &str, arguments: &[&str]) -> Command {
    let address = mesh.instance(caller)["address"].as_str().expect("an address").to_owned();
    let mut command = Command::new("curl");
    command.args(["-s", "-i", "--max-time", "300", "--proxy", &format!("http://{address}:15001")]);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Exit code, and what it wrote.
fn run(mut command: Command) -> (i32, String) {
    let output = command.output().expect("curl runs");
    (
        output.status.code().expect("it ended by itself"),
        String::from_utf8_lossy(&output.stdout).to_lowercase(),
    )
}

/// What a connection that was reset is to curl: before, while or after it sent its request.
const RESET: [i32; 3] = [35, 55, 56];

/// Whether a call gets through, by HTTP/1.1, HTTP/2, gRPC and as bytes; a refusal has to be one, and to say nothing but its word.
fn calls(mesh: &Mesh, caller: &str) -> [bool; 4] {
    let echo = "http://echo.default/x";
    let http2 = ["--proxytunnel", "--http2-prior-knowledge"];
    let http = |arguments: &[&str]| {
        let (code, said) = run(curl(mesh, caller, arguments));
        assert_eq!(code, 0, "{caller} {arguments:?}: {said}");
        assert!(!said.contains("policy"), "only the word is for callers: {said}");
        // The first answer of a tunnel is the sidecar's own.
        said.rsplit("\r\n\r\nhttp/").next().expect("a part").to_owned()
    };
    let judged = |said: String| {
        let allowed = said.contains(" 200");
        assert!(allowed || said.contains(" 403") && said.contains("access_denied"), "{caller}: {said}");
        allowed
    };
    let one = judged(http(&[echo]));
    let two = judged(http(&[&http2[..], &[echo]].concat()));
    let said = http(&[&http2[..], &["-H", "content-type: application/grpc", "-X", "POST", echo]].concat());
    let grpc = !said.contains("grpc-status");
    assert!(grpc || said.contains("grpc-status: 7\r\ngrpc-message: access_denied"), "{caller}: {said}");
    let (code, said) = run(curl(mesh, caller, &["--proxytunnel", "http://raw.default:9000/x"]));
    assert!(code == 0 && said.contains("\"path\"") || RESET.contains(&code), "{caller}: {code} {said}");
    [one, two, grpc, code == 0]
}

/// Of the sidecars of both apps.
fn denials(mesh: &Mesh, labels: &[&str]) -> f64 {
    let of = |instance| {
        let url = mesh.instance(instance)["metrics"].as_str().expect("a URL").to_owned();
        metric_at(&url, "outrigger_access_denied_total", labels)
    };
    of("echo-0") + of("raw-0")
}

#[test]
fn callers_are_told_apart_by_their_certificates_and_a_revoked_one_loses_what_it_has_open() {
    let mesh = Mesh::of_manifests(MESH);
    for caller in CALLERS {
        assert_eq!(calls(&mesh, caller), [true; 4], "{caller}, before there is any rule");
    }
    let rows = [
        ("by-account", "from: [{serviceAccounts: [page]}]", [true, false, false]),
        ("by-namespace", "from: [{namespaces: [lab]}]", [false, false, true]),
        ("by-pattern", "from: [{identities: ['spiffe://cluster.local/ns/*/sa/page']}]", [true, false, true]),
        ("by-denial", "name: no-page, action: Deny, from: [{serviceAccounts: [page]}]", [false, true, true]),
    ];
    for (name, rule, allowed) in rows {
        policy(&mesh, name, &format!("rules: [{{{rule}}}]"));
        // Both sidecars have it once they refuse somebody by its name.
        let refused = CALLERS[allowed.iter().position(|allowed| !allowed).expect("one is refused")];
        let by_it = [&*format!("policy=\"default/{name}\"")];
        for instance in ["echo-0", "raw-0"] {
            let url = mesh.instance(instance)["metrics"].as_str().expect("a URL").to_owned();
            mesh.await_that("the policy is in force", || {
                calls_unjudged(&mesh, refused);
                metric_at(&url, "outrigger_access_denied_total", &by_it) > 0.0
            });
        }
        let before = denials(&mesh, &by_it);
        for (caller, allowed) in CALLERS.into_iter().zip(allowed) {
            assert_eq!(calls(&mesh, caller), [allowed; 4], "{rule}: {caller}");
        }
        let refused = 4 * allowed.iter().filter(|allowed| !**allowed).count();
        assert_eq!(denials(&mesh, &by_it) - before, refused as f64, "{rule}");
    }
    // The operator is told who, and by which rule of which policy.
    let denied = denials(&mesh, &["policy=\"default/by-denial\"", "rule=\"no-page\"", "mode=\"enforce\""]);
    assert!(denied >= 4.0, "{denied}");
    let log = mesh.log_text();
    for words in [
        "refused: spiffe://cluster.local/ns/default/sa/page",
        "is denied by AccessPolicy/default/by-denial spec.rules[0] (no-page)",
        // In the access log, too.
        "\"reason\":\"access_denied\"",
    ] {
        assert!(log.contains(words), "{words} is not in the log");
    }
    revoking(&mesh);
}

/// As [`calls`], without asking what became of it.
fn calls_unjudged(mesh: &Mesh, caller: &str) {
    run(curl(mesh, caller, &["http://echo.default/x"]));
    run(curl(mesh, caller, &["--proxytunnel", "http://raw.default:9000/x"]));
}

/// Calls that are answered in ten minutes: over HTTP/1.1, HTTP/2 and as bytes.
fn waiting(mesh: &Mesh, caller: &str) -> [Child; 3] {
    let urls = ["http://echo.default/delay/600000", "http://raw.default:9000/delay/600000"];
    [&[urls[0]][..], &["--proxytunnel", "--http2-prior-knowledge", urls[0]], &["--proxytunnel", urls[1]]]
        .map(|arguments| curl(mesh, caller, arguments).spawn().expect("curl runs"))
}

/// Requests and connections under way, as the caller's sidecar counts them.
fn in_flight(mesh: &Mesh, caller: &str) -> u64 {
    let address = mesh.instance(caller)["address"].as_str().expect("an address").to_owned();
    let (status, text) = support::curl(&[&format!("http://{address}:15000/clusters")]);
    assert_eq!(status, 200, "{text}");
    let report: Value = serde_json::from_str(&text).expect("JSON");
    let clusters = report["clusters"].as_array().expect("a list");
    let endpoints = clusters.iter().filter_map(|cluster| cluster["endpoints"].as_array()).flatten();
    endpoints.filter_map(|endpoint| endpoint["in_flight"].as_u64()).sum()
}

fn revoking(mesh: &Mesh) {
    policy(mesh, "open", "rules: [{}]");
    mesh.await_that("everybody may call", || CALLERS.iter().all(|caller| calls(mesh, caller) == [true; 4]));
    let (page, mut guest) = (waiting(mesh, "page-0"), waiting(mesh, "guest-0"));
    mesh.await_that("the calls wait for their answers", || {
        ["page-0", "guest-0"].iter().all(|caller| in_flight(mesh, caller) == 3)
    });
    let begun = Instant::now();
    policy(mesh, "home", "rules: [{from: [{namespaces: [default]}]}]");
    mesh.await_that("the revoked calls have ended", || {
        guest.iter_mut().all(|call| call.try_wait().expect("it is ours").is_some())
    });
    eprintln!("what was revoked had ended after {:?} (promised: 5 s)", begun.elapsed());
    let ends = guest.map(|call| {
        let output = call.wait_with_output().expect("its output");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    });
    assert!(ends[0].0 == Some(0) && ends[0].1.contains(" 403 "), "{ends:?}");
    assert!(ends[1].0 == Some(0) && ends[1].1.contains(" 403"), "{ends:?}");
    assert!(ends[2].0.is_some_and(|code| RESET.contains(&code)), "{ends:?}");
    for mut call in page {
        assert!(call.try_wait().expect("it is ours").is_none(), "the others wait on");
        call.kill().expect("it runs");
        call.wait().expect("it is ours");
    }
}
