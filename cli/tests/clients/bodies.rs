//! Bodies far larger than any buffer: they pass, and neither sidecar grows with them.

use std::fs;
use std::time::Duration;

use crate::scene::{Scene, has, output};

/// Bytes each way.
const LENGTH: u64 = 1_000_000_000;

/// Ten seconds on two free cores; far more where others work, too.
const PATIENCE: Duration = Duration::from_secs(400);

/// How much a sidecar's peak memory may grow over both, in MB. Measured: see the line the test prints.
const GROWTH: f64 = 32.0;

#[test]
fn a_gigabyte_each_way_leaves_memory_flat() {
    if !has(&["curl"]) {
        return;
    }
    let scene = Scene::shared();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("body");
    // Sparse: nothing is written, it reads as zeros.
    fs::File::create(&file).and_then(|file| file.set_len(LENGTH)).expect("a file");
    let base = format!("http://{}", scene.address("echo"));
    let sidecars = ["caller-0", "echo-0"].map(|instance| {
        let pid = scene.mesh.instance(instance)["sidecar_pid"].as_i64().expect("a pid");
        (instance, pid, peak(pid))
    });
    let begun = std::time::SystemTime::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut up = scene.command_within(PATIENCE, "curl");
            up.args(["--silent", "--show-error", "--noproxy", "*", "-H", "Expect:"]);
            let said = output(up.arg("--upload-file").arg(&file).arg(format!("{base}/upload")));
            let said: serde_json::Value = serde_json::from_str(&said).expect("JSON");
            assert_eq!(said["body"]["length"], LENGTH);
        });
        scope.spawn(|| {
            let mut down = scene.command_within(PATIENCE, "curl");
            down.args(["--silent", "--show-error", "--noproxy", "*", "--http2-prior-knowledge"]);
            down.args(["--output", "/dev/null", "--write-out", "%{size_download}"]);
            let said = output(down.arg(format!("{base}/bytes/{LENGTH}")));
            assert_eq!(said, LENGTH.to_string());
        });
    });
    println!("both took {:?}", begun.elapsed().unwrap_or_default());
    for (instance, pid, before) in sidecars {
        let grown = peak(pid) - before;
        println!("{instance}: peak memory {before:.1} MB before, {grown:.1} MB more after");
        assert!(grown < GROWTH, "{instance} grew by {grown} MB from {before} MB");
    }
}

/// Largest resident size so far, in MB.
fn peak(pid: i64) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number") / 1000.0
}
