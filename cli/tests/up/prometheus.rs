//! Real Prometheus (Debian's package) beside a running mesh: it scrapes every proxy and the control plane, and
//! promtool has nothing to say of what they answer.

use std::fs::{self, File};
use std::io::Write;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::ports;
use crate::support::{Mesh, curl, peers};

#[test]
fn prometheus_scrapes_a_live_mesh_and_promtool_has_nothing_to_say() {
    let test = "prometheus_scrapes_a_live_mesh_and_promtool_has_nothing_to_say";
    if !peers::present(test, &["prometheus", "promtool"]) {
        return;
    }
    let mesh = Mesh::of_example("bookinfo");
    // Several outcomes first, so that no page is empty.
    for (path, expected) in [("/productpage", 200), ("/nowhere", 404)] {
        let (status, page) = curl(&[&format!("http://{}{path}", mesh.gateway())]);
        assert_eq!(status, expected, "{page}");
    }
    let pages = metrics_pages(&mesh);
    for url in &pages {
        let (status, page) = curl(&[url]);
        assert_eq!(status, 200, "{url}");
        assert!(page.contains("outrigger_"), "{url} has metrics of ours: {page}");
        assert_eq!(promtool(&page), "", "{url}\n{page}");
    }
    let prometheus = Prometheus::start(&pages);
    mesh.await_that("every target is up", || {
        let up = prometheus.query("up == 1");
        up.len() == pages.len()
    });
    // Six instances of the example and one gateway saw the request for the page.
    mesh.await_that("the requests of one page are counted", || {
        let services = prometheus
            .query(r#"sum by (service) (outrigger_requests_total{direction="outbound",code="200"}) >= 1"#);
        let seen = |name: &str| services.iter().any(|sample| sample["metric"]["service"] == name);
        seen("details.default") && seen("reviews.default")
    });
    let gateway = prometheus.query(r#"outrigger_requests_total{direction="gateway",code="200"}"#);
    assert!(gateway.iter().any(|sample| sample["metric"]["service"] == "productpage.default"), "{gateway:?}");
    let reasons = prometheus.query(r#"sum by (reason) (outrigger_requests_total{reason!=""})"#);
    assert!(
        matches!(reasons.as_slice(), [only] if only["metric"]["reason"] == "no_route"),
        "only the page that is not there failed: {reasons:?}"
    );
    for name in [
        "outrigger_request_duration_seconds_bucket",
        "outrigger_bytes_total",
        "outrigger_connections",
        "outrigger_connections_opened_total",
        "outrigger_attempts_total",
        "outrigger_endpoints",
        "outrigger_config_age_seconds",
        "outrigger_control_objects",
        "outrigger_control_acks_total",
    ] {
        assert!(!prometheus.query(name).is_empty(), "{name} was scraped from somewhere");
    }
}

/// What `promtool check metrics` prints of a page, on either stream.
fn promtool(page: &str) -> String {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool starts");
    promtool.stdin.take().expect("piped").write_all(page.as_bytes()).expect("promtool reads");
    let output = promtool.wait_with_output().expect("promtool ends");
    let said = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&said).into_owned() + if output.status.success() { "" } else { "(it failed)" }
}

/// The metrics pages of all sidecars, all gateways and the control plane.
fn metrics_pages(mesh: &Mesh) -> Vec<String> {
    let status = mesh.status().expect("a status");
    let mut pages = Vec::new();
    for list in ["workloads", "gateways"] {
        for one in status[list].as_array().expect("a list") {
            pages.push(one["metrics"].as_str().expect("a metrics URL").to_owned());
        }
    }
    assert!(pages.len() >= 7, "the example has six instances and a gateway: {status}");
    pages.push(status["control"]["metrics"].as_str().expect("a metrics URL").to_owned());
    pages
}

struct Prometheus {
    process: Child,
    api: String,
    folder: tempfile::TempDir,
}

impl Prometheus {
    /// One target a page, each scraped once a second.
    fn start(pages: &[String]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let targets: Vec<_> = pages
            .iter()
            .map(|page| page.strip_prefix("http://").and_then(|page| page.strip_suffix("/metrics")))
            .map(|target| target.expect("http://HOST:PORT/metrics"))
            .collect();
        // JSON is YAML, too.
        let config = serde_json::json!({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
            "scrape_configs": [{"job_name": "outrigger", "static_configs": [{"targets": targets}]}],
        });
        let file = folder.path().join("prometheus.yml");
        fs::write(&file, config.to_string()).expect("written");
        // Prometheus cannot say which free port it took.
        let address = format!("127.0.0.1:{}", ports::free());
        let log = File::create(folder.path().join("log")).expect("a log");
        let process = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("prometheus starts");
        Self { process, api: format!("http://{address}/api/v1/query"), folder }
    }

    /// The samples of an instant query; none while Prometheus is not there yet.
    fn query(&self, query: &str) -> Vec<Value> {
        let (status, text) = curl(&["--get", "--data-urlencode", &format!("query={query}"), &self.api]);
        match status {
            200 => {
                let answer: Value = serde_json::from_str(&text).expect("JSON");
                answer["data"]["result"].as_array().cloned().expect("a vector")
            }
            // Not listening yet, or still reading its store.
            0 | 503 => Vec::new(),
            other => panic!("{other}: {text}"),
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            eprintln!("--- log of prometheus\n{log}");
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
