//! HTTP clients and servers of languages, as each is by default.

use crate::scene::{Scene, has, output};

#[test]
fn pythons_requests_calls_by_its_proxy_variables() {
    if has(&["python"]) {
        let scene = Scene::shared();
        let before = scene.arrived("echo-0");
        assert_eq!(output(&mut scene.python("requests_client.py")), "done\n");
        assert!(scene.arrived("echo-0") > before);
    }
}

#[test]
fn nodes_http_http2_and_fetch_call_by_service_variables() {
    if has(&["node"]) {
        let scene = Scene::shared();
        assert_eq!(output(&mut scene.node("client.js")), "done\n");
    }
}

#[test]
fn an_app_on_nodes_server_that_closes_resting_connections_loses_no_post() {
    if has(&["node", "python"]) {
        let scene = Scene::shared();
        let before = scene.arrived("node-0");
        assert_eq!(output(&mut scene.python("pausing_client.py")), "done\n");
        assert_eq!(scene.arrived("node-0"), before + 50.0, "each was sent once");
    }
}

#[test]
fn an_app_on_pythons_server_that_speaks_http_1_0_is_called_as_any() {
    if has(&["curl", "python"]) {
        let scene = Scene::shared();
        let url = format!("http://{}/client.js", scene.address("files"));
        let file = include_str!("scripts/client.js");
        let curl = |arguments: &[&str]| {
            let mut command = scene.command("curl");
            output(command.args(["--silent", "--show-error", "--noproxy", "*"]).args(arguments))
        };
        for version in ["--http1.0", "--http1.1"] {
            assert!(curl(&[version, &url]) == file, "{version}");
            let head = curl(&[version, "--head", &url]).to_lowercase();
            assert!(head.contains(&format!("content-length: {}\r\n", file.len())), "{version}: {head}");
        }
        // It closes after each answer; the client's own connection is kept all the same.
        let quiet = ["-o", "/dev/null", "-o", "/dev/null", "-w", "%{http_code} %{num_connects} "];
        assert_eq!(curl(&[&quiet[..], &[&url, &url]].concat()), "200 1 200 0 ");
    }
}
