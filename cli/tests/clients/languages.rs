//! HTTP clients of languages: what each does by default with the variables of an app of the mesh.

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
