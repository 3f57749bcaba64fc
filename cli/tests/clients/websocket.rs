//! A WebSocket between Python's `websockets` and the echo. What each check expects stands in `scripts/websocket_client.py`.

use crate::scene::{Scene, has, output};

fn check(name: &str) {
    if has(&["python"]) {
        let scene = Scene::shared();
        assert_eq!(output(scene.python("websocket_client.py").arg(name)), "done\n");
    }
}

#[test]
fn messages_of_every_length_come_back() {
    check("echo");
}

#[test]
fn neither_direction_holds_up_the_other() {
    check("both_ways");
}

#[test]
fn close_codes_reach_the_other_end() {
    check("closing");
}
