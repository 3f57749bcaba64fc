//! gRPC as the Python library speaks it, on both ends. What each check expects stands in `scripts/grpc_client.py`.

use crate::scene::{Scene, has, output};

fn check(name: &str) {
    if has(&["python"]) {
        let scene = Scene::shared();
        assert_eq!(output(scene.python("grpc_client.py").arg(name)), "done\n");
    }
}

#[test]
fn all_four_shapes_pass() {
    check("shapes");
}

#[test]
fn metadata_and_trailers_pass_both_ways_bytes_and_all() {
    check("metadata");
}

#[test]
fn deadlines_hold_and_the_server_learns_of_them() {
    check("deadlines");
}

#[test]
fn a_cancelled_call_is_cancelled_at_the_server() {
    check("cancellation");
}

#[test]
fn messages_of_four_mebibytes_pass() {
    check("large");
}

#[test]
fn statuses_keep_their_words_and_details() {
    check("statuses");
}

#[test]
fn what_the_mesh_refuses_has_a_status_and_a_reason() {
    check("refusals");
}

#[test]
fn hundreds_of_streams_are_open_at_once() {
    check("many");
}
