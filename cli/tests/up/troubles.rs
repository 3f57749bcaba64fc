//! What `outrigger up` and those beside it say when something is wrong.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

use crate::support::{Mesh, OUTRIGGER, run_root};

/// `outrigger ARGUMENTS` where no mesh runs but those it starts.
fn alone(run_root: &Path, arguments: &[&str]) -> Output {
    Command::new(OUTRIGGER).args(arguments).env("XDG_RUNTIME_DIR", run_root).output().expect("outrigger runs")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn commands_without_a_mesh_say_how_to_start_one() {
    let root = run_root();
    for arguments in [&["status"][..], &["down"], &["restart", "echo"]] {
        let output = alone(root.path(), arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
        assert!(
            String::from_utf8_lossy(&output.stderr).contains("`outrigger up DIR` starts one"),
            "{output:?}"
        );
        assert!(output.stdout.is_empty(), "errors go to stderr: {output:?}");
    }
    for misuse in [&["up"][..], &["restart"], &["status", "--output", "xml"], &["up", "--network", "7", "."]]
    {
        assert_eq!(alone(root.path(), misuse).status.code(), Some(2), "{misuse:?}");
    }
    let missing = alone(root.path(), &["up", "no/such/folder"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(said(&missing).contains("no/such/folder"), "{missing:?}");
}

#[test]
fn a_mesh_that_does_not_become_ready_is_described_by_detach() {
    let root = run_root();
    let manifests = root.path().join("mesh.yaml");
    fs::write(
        &manifests,
        "apiVersion: outrigger.dev/v1alpha1\nkind: Workload\nmetadata: {name: echo}\nspec:\n  replicaz: 3\n",
    )
    .expect("written");
    let output =
        alone(root.path(), &["up", "--detach", "--timeout", "3", manifests.to_str().expect("a path")]);
    let again = alone(root.path(), &["status", "-o", "yaml"]);
    let down = alone(root.path(), &["down"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = said(&output);
    assert!(text.contains("mesh.yaml:5:3: spec.replicaz: unknown field; did you mean `replicas`?"), "{text}");
    assert!(text.contains("not everything is ready") && text.contains("Log: "), "{text}");
    assert!(said(&again).contains("replicaz"), "it goes on in the background: {again:?}");
    assert!(down.status.success(), "{down:?}");
    assert_eq!(alone(root.path(), &["status"]).status.code(), Some(1), "down returns when it is down");
}

#[test]
fn a_mesh_that_cannot_start_in_the_background_says_why() {
    let mesh = Mesh::of_manifests(crate::THREE);
    let network = mesh.status().expect("a status")["network"].as_str().expect("a network").to_owned();
    let second = network.split('.').nth(1).expect("127.N").to_owned();
    let root = run_root();
    let manifests = mesh.manifests.to_str().expect("a path");
    // Another user's mesh, as far as it can see: no lock in common, but the addresses.
    let output = alone(root.path(), &["up", "--detach", "--network", &second, manifests]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(said(&output).contains(&format!("127.{second}.0.0/16 is in use")), "{output:?}");
}

#[test]
fn an_unknown_workload_is_answered_with_those_there_are() {
    let mesh = Mesh::of_manifests(crate::THREE);
    let output = mesh.outrigger(&["restart", "ekko"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = said(&output);
    assert!(text.contains("\"ekko\"") && text.contains("there are echo"), "{text}");
}

/// A Workload `app` whose command is `command`, as JSON.
fn workload(name: &str, port: &str, command: &[&str]) -> String {
    let command = serde_json::to_string(command).expect("strings");
    format!(
        "---\napiVersion: outrigger.dev/v1alpha1\nkind: Workload\nmetadata: {{name: {name}}}\nspec:\n  ports: [{port}]\n  command: {command}\n"
    )
}

#[test]
fn a_workload_that_does_not_become_ready_says_why() {
    let echo = |host: &str, port: &str| format!("exec outrigger sample echo --host {host} --port {port}");
    let troubles = [
        workload("exits", "{port: 8080}", &["sh", "-c", "echo no luck today >&2; exit 3"]),
        workload("missing", "{port: 8080}", &["no-such-program"]),
        workload("wildcard", "{port: 8080}", &["sh", "-c", &echo("0.0.0.0", "8080")]),
        workload("localhost", "{port: 8080}", &["sh", "-c", &echo("127.0.0.1", "0")]),
        workload("fine", "{port: 8080, appPort: auto}", &["sh", "-c", &echo("0.0.0.0", "$PORT")]),
    ];
    let mesh = Mesh::of_manifests_unready(&troubles.concat());
    let wanted = [
        "exits-0: Restarting: ended: exit status: 3: no luck today",
        "starting \"no-such-program\": No such file or directory",
        "needs `appPort: auto` or another number in spec.ports of Workload default/wildcard",
        "localhost-0: NotReady: nothing accepts at 127.",
        "it listens at 127.0.0.1:",
    ];
    mesh.await_that("every reason is shown", || {
        let output = mesh.outrigger(&["status"]);
        let text = said(&output);
        output.status.code() == Some(1) && wanted.iter().all(|wanted| text.contains(wanted))
    });
    assert_eq!(mesh.instance("fine-0")["state"], "Ready");
    let restarted = mesh.outrigger(&["restart", "fine"]);
    assert!(restarted.status.success(), "the others' trouble is not its own: {restarted:?}");
}

#[test]
fn a_port_that_is_taken_is_named_and_taken_up_when_it_is_free() {
    let holder = TcpListener::bind("0.0.0.0:0").expect("a port");
    let port = holder.local_addr().expect("bound").port();
    let text = crate::THREE.replace("port: 8080, protocol: HTTP", &format!("port: {port}, protocol: HTTP"));
    let mesh = Mesh::of_manifests_unready(&text);
    mesh.await_that("status names the port", || {
        let text = said(&mesh.outrigger(&["status"]));
        text.contains("front: ") && text.contains(&format!(":{port}")) && text.contains("in use")
    });
    drop(holder);
    mesh.wait_ready();
}
