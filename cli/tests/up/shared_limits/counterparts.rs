//! What the sidecars and our servers meet, beside Redis: Envoy, and a server of the rate limit call that is not ours.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use outrigger_control::rate_limit::{Store, serve};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};

use super::replica::app;
use super::within;
use crate::ports;

/// One of ours, in this process, in plaintext.
pub async fn limit_server(redis: Option<&str>) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let at = listener.local_addr().expect("bound");
    let store = redis.map_or_else(Store::memory, |url| Store::redis(url).expect("a valid URL"));
    tokio::spawn(serve(listener, None, store, std::future::pending()));
    at
}

/// Ended when dropped.
struct Process(Child);

impl Process {
    /// Started, and there when it accepts connections.
    async fn start(what: &str, command: &mut Command, port: u16) -> Self {
        let mut process =
            Self(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("it starts"));
        within(what, async {
            while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_err() {
                assert!(matches!(process.0.try_wait(), Ok(None)), "{what} ended");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        process
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Where `cargo xtask peers` puts what it fetches.
pub fn fetched(program: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/peers/venv/bin").join(program)
}

/// Before an app, with its own rate limit filter.
pub struct Envoy {
    pub at: SocketAddr,
    _process: Process,
    _folder: TempDir,
}

impl Envoy {
    /// `limit`: requests a day, counted by `server`.
    pub async fn start(server: SocketAddr, limit: u32) -> Self {
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, ports::free()));
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("envoy.json");
        std::fs::write(&file, config(at, app().await, server, limit).to_string()).expect("written");
        let mut command = Command::new(fetched("envoy"));
        command.args([
            "--concurrency",
            "1",
            "--disable-hot-restart",
            "--log-level",
            "error",
            "--config-path",
        ]);
        command.arg(file);
        Self { at, _process: Process::start("Envoy", &mut command, at.port()).await, _folder: folder }
    }
}

fn config(at: SocketAddr, app: SocketAddr, server: SocketAddr, limit: u32) -> Value {
    let ty = |path: &str| format!("type.googleapis.com/envoy.{path}");
    let filter = |name: &str, path: &str, mut config: Value| {
        config["@type"] = ty(path).into();
        json!({"name": format!("envoy.filters.http.{name}"), "typed_config": config})
    };
    let address =
        |of: SocketAddr| json!({"socket_address": {"address": of.ip().to_string(), "port_value": of.port()}});
    let cluster = |name: &str, to: SocketAddr, version: &str| {
        json!({
            "name": name,
            "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(to)}}]}]},
            "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": ty("extensions.upstreams.http.v3.HttpProtocolOptions"),
                "explicit_http_config": {version: {}},
            }},
        })
    };
    // A limit that a call carries is read from metadata, which a filter before sets.
    let metadata = json!({"metadata": [{"metadata_namespace": "limits", "value": {"day": {"requests_per_unit": limit, "unit": "DAY"}}}]});
    let limits = json!({
        "domain": "envoy",
        "failure_mode_deny": true,
        "timeout": "5s",
        "enable_x_ratelimit_headers": "DRAFT_VERSION_03",
        "rate_limit_service": {"transport_api_version": "V3", "grpc_service": {"envoy_grpc": {"cluster_name": "limits"}}},
    });
    let filters = json!([
        filter("set_metadata", "extensions.filters.http.set_metadata.v3.Config", metadata),
        filter("ratelimit", "extensions.filters.http.ratelimit.v3.RateLimit", limits),
        filter("router", "extensions.filters.http.router.v3.Router", json!({})),
    ]);
    let rate_limits = json!([{
        "actions": [{"generic_key": {"descriptor_value": "all"}}, {"remote_address": {}}],
        "limit": {"dynamic_metadata": {"metadata_key": {"key": "limits", "path": [{"key": "day"}]}}},
    }]);
    let route = json!({"match": {"prefix": "/"}, "route": {"cluster": "app", "rate_limits": rate_limits}});
    let manager = json!({
        "@type": ty("extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "in",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": filters,
    });
    json!({"static_resources": {
        "listeners": [{"name": "in", "address": address(at), "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}]}],
        "clusters": [cluster("app", app, "http_protocol_options"), cluster("limits", server, "http2_protocol_options")],
    }})
}

/// A server in Python, which writes down what it is asked.
pub struct Foreign {
    pub at: SocketAddr,
    folder: TempDir,
    _process: Process,
}

impl Foreign {
    pub async fn start(python: &Path) -> Self {
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, ports::free()));
        let folder = tempfile::tempdir().expect("a folder");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/up/shared_limits/foreign_server.py");
        let mut command = Command::new(python);
        command.arg(script).arg(at.to_string()).arg(folder.path());
        let process = Process::start("the Python server", &mut command, at.port()).await;
        Self { at, folder, _process: process }
    }

    /// What it was asked, in order: `key`, `hits`, `back`.
    pub fn told(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.folder.path().join("calls")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}
