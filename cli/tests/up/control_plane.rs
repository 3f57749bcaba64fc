//! The control plane of a mesh that carries load: away, killed, back again, and what it sends.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::rt::TokioIo;
use nix::sys::signal::Signal;
use outrigger_config::model::ResourceKind;
use outrigger_config::xds::certificates::{AUTHORIZATION, authorization};
use outrigger_config::xds::pb::discovery::DeltaDiscoveryRequest;
use outrigger_config::xds::pb::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use outrigger_config::xds::{Node, Refusal, Role, Unsupported, names, refusal};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::Service;
use tonic::transport::{Channel, Endpoint};

use crate::THREE;
use crate::bookinfo::{only_answers, send_reviews_to, version};
use crate::support::load::{Load, Shape};
use crate::support::{Mesh, curl, metric_at, send_signal};

/// Ends the control plane without a goodbye and waits until `up` has put another one in its place.
fn kill_control(mesh: &Mesh) {
    let pid = mesh.control_pid();
    send_signal(pid, Signal::SIGKILL);
    mesh.await_that("another control plane took its place", || {
        let control = mesh.control();
        control["pid"].as_i64() != Some(pid.into()) && control["restarts"].as_i64() > Some(0)
    });
}

#[test]
fn a_control_plane_killed_under_load_fails_no_request_and_its_successor_is_followed() {
    let mesh = Mesh::of_example("bookinfo");
    let load = Load::start(Shape::get(mesh.gateway(), "/productpage", 16));
    for wanted in ["reviews-v1", "reviews-v2", "reviews-v3"] {
        let before = load.so_far().ok;
        mesh.await_that("load flows", || load.so_far().ok > before + 100);
        kill_control(&mesh);
        send_reviews_to(&mesh, wanted);
        mesh.await_that("an edit made after its return takes effect", || only_answers(&load, wanted));
    }
    load.finish().assert_no_failure();
}

#[test]
fn a_sidecar_that_starts_while_the_control_plane_is_away_serves_from_its_copy() {
    let mesh = Mesh::of_example("bookinfo");
    let page = format!("http://{}/productpage", mesh.gateway());
    assert_eq!(curl(&[&page]).0, 200);
    let productpage = mesh.instance("productpage-v1-0");
    let address = productpage["address"].as_str().expect("an address").to_owned();
    mesh.await_that("what its sidecar uses is in its copy", || {
        let copy = fs::read(mesh.folder_of(&address).join("configuration")).unwrap_or_default();
        ["outbound|9080||reviews", "outbound|9080||details"]
            .iter()
            .all(|name| copy.windows(name.len()).any(|bytes| bytes == name.as_bytes()))
    });
    // Held, so that `up` does not put another one in its place.
    let control = mesh.control_pid();
    send_signal(control, Signal::SIGSTOP);
    let sidecar = productpage["sidecar_pid"].as_i64().expect("a pid");
    send_signal(sidecar as i32, Signal::SIGKILL);
    mesh.await_that("another sidecar is ready", || {
        let report = mesh.instance("productpage-v1-0");
        report["state"] == "Ready" && report["sidecar_pid"].as_i64().is_some_and(|now| now != sidecar)
    });
    let load = Load::start(Shape::get(mesh.gateway(), "/productpage", 8));
    mesh.await_that("pages with reviews and details come", || {
        let bodies = load.so_far().bodies;
        bodies.len() > 100
            && bodies.iter().all(|page| {
                version(page).is_some() && String::from_utf8_lossy(page).to_lowercase().contains("paperback")
            })
    });
    let text = String::from_utf8_lossy(&mesh.outrigger(&["status"]).stdout).into_owned();
    assert!(text.contains("control plane: does not answer"), "{text}");
    send_reviews_to(&mesh, "reviews-v1");
    send_signal(control, Signal::SIGCONT);
    mesh.await_that("what was edited meanwhile takes effect", || only_answers(&load, "reviews-v1"));
    load.finish().assert_no_failure();
}

/// Sums a counter of the control plane over the labels given.
fn sent(mesh: &Mesh, kind: &str) -> f64 {
    let url = mesh.control()["metrics"].as_str().expect("a metrics URL").to_owned();
    metric_at(&url, "outrigger_control_resources_sent_total", &[&format!("kind=\"{kind}\"")])
}

#[test]
fn an_instance_that_comes_and_goes_sends_endpoints_alone_and_only_to_its_callers() {
    let mesh = Mesh::of_example("bookinfo");
    let page = format!("http://{}/productpage", mesh.gateway());
    for _ in 0..20 {
        assert_eq!(curl(&[&page]).0, 200);
    }
    let others = ["listener", "route_table", "cluster", "secret"];
    let before: Vec<f64> = others.iter().map(|kind| sent(&mesh, kind)).collect();
    let endpoints_before = sent(&mesh, "endpoints");
    assert!(before[0] > 0.0 && endpoints_before > 0.0, "{before:?} {endpoints_before}");
    // Its app dies: not ready, ready again. Of all proxies only those of reviews-v2 and v3 call ratings.
    let pid = mesh.instance("ratings-v1-0")["pid"].as_i64().expect("a pid");
    send_signal(pid as i32, Signal::SIGKILL);
    mesh.await_that("another app is ready", || {
        let report = mesh.instance("ratings-v1-0");
        report["state"] == "Ready" && report["pid"].as_i64().is_some_and(|now| now != pid)
    });
    mesh.await_that("its callers have heard twice", || sent(&mesh, "endpoints") >= endpoints_before + 4.0);
    let after: Vec<f64> = others.iter().map(|kind| sent(&mesh, kind)).collect();
    assert_eq!(before, after, "{others:?}");
    assert_eq!(sent(&mesh, "endpoints"), endpoints_before + 4.0, "two changes, to two callers");
}

#[test]
fn what_a_proxy_refuses_is_shown_with_the_line_of_its_object() {
    let mesh = Mesh::of_manifests(THREE);
    let line = 1 + THREE.lines().position(|line| line.contains("backendRefs")).expect("the route");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    // As a proxy of another make would: it asks for the gateway's routes, with the gateway's token, and cannot use them.
    let control = mesh.control();
    let gateway = mesh.gateway().ip().to_string();
    let plane = Plane {
        address: control["discovery"].as_str().expect("an address").parse().expect("an address"),
        roots: Path::new(control["ca_dir"].as_str().expect("a folder")).join("roots.pem"),
        token: fs::read_to_string(mesh.folder_of(&gateway).join("token")).expect("a token"),
    };
    let node = Node::new(Role::Gateway { namespace: "default".into(), name: "front".into() }, None);
    let refusing = runtime.spawn(refuse(plane, node, "gateway|default/front|8080|http"));
    mesh.await_that("status says who refused what", || {
        let output = mesh.outrigger(&["status"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(!refusing.is_finished(), "the scripted proxy ended");
        output.status.code() == Some(1)
            && text.contains("HTTPRoute default/echo spec.rules[0]")
            && text.contains("mesh.yaml:")
            && text.contains("is refused by router~")
            && text.contains("too clever for us")
    });
    let problems = mesh.status().expect("a status")["problems"].clone();
    let place = problems[0]["place"].as_str().expect("a place");
    assert!(place.ends_with(&format!("mesh.yaml:{line}")), "{place}, not line {line}");
    refusing.abort();
}

/// How a control plane is reached.
#[derive(Clone)]
struct Plane {
    address: SocketAddr,
    roots: PathBuf,
    token: String,
}

impl Plane {
    async fn connect(self) -> Channel {
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_file_iter(&self.roots).expect("a file of roots") {
            roots.add(root.expect("a certificate")).expect("a root");
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let dial = Dial { connector: TlsConnector::from(Arc::new(config)), address: self.address };
        Endpoint::from_static("http://control").connect_with_connector(dial).await.expect("a connection")
    }
}

#[derive(Clone)]
struct Dial {
    connector: TlsConnector,
    address: SocketAddr,
}

impl Service<Uri> for Dial {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self { connector, address } = self.clone();
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            Ok(TokioIo::new(connector.connect(address.ip().into(), stream).await?))
        })
    }
}

/// Subscribes to a route table of a gateway and refuses what it is sent, for as long as it is let.
async fn refuse(plane: Plane, node: Node, table: &str) {
    let authorization = authorization(&plane.token).expect("a token");
    let channel = plane.connect().await;
    let (requests, outgoing) = mpsc::channel(4);
    let first = DeltaDiscoveryRequest {
        node: Some(node.to_message()),
        type_url: names::type_url(ResourceKind::RouteTable).into(),
        resource_names_subscribe: vec![table.into()],
        ..Default::default()
    };
    requests.send(first).await.expect("room");
    let mut stream = tonic::Request::new(ReceiverStream::new(outgoing));
    stream.metadata_mut().insert(AUTHORIZATION, authorization);
    let mut responses = AggregatedDiscoveryServiceClient::new(channel)
        .delta_aggregated_resources(stream)
        .await
        .expect("a stream")
        .into_inner();
    while let Ok(Some(response)) = responses.message().await {
        let name = &response.resources.first().expect("the table is there").name;
        let why = Unsupported {
            path: "virtual_hosts[0].routes[0].match".into(),
            reason: "too clever for us".into(),
        };
        let answer = DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            error_detail: Some(refusal::to_status(&[Refusal::new(name, why)])),
            ..Default::default()
        };
        requests.send(answer).await.expect("room");
    }
}
