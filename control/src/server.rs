//! Puts the pieces together and opens the ports.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use outrigger_config::xds::pb::discovery::aggregated_discovery_service_server::AggregatedDiscoveryServiceServer;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use crate::ads::Ads;
use crate::api::{self, Api};
use crate::metrics::Metrics;
use crate::proxies::Proxies;
use crate::source::Source;

/// Where manifests are and where to listen. Port 0 takes any free one.
#[derive(Clone, Debug)]
pub struct Config {
    /// Directories and files, read as one whole.
    pub manifests: Vec<PathBuf>,
    pub address: IpAddr,
    /// Default 15010: discovery in plaintext, which is for loopback.
    pub ads_port: u16,
    /// Default 15014.
    pub metrics_port: u16,
    /// Default 15080.
    pub api_port: u16,
}

/// A dead connection is found within 15 s.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// A proxy opens one stream a connection; a few more for tools.
const STREAMS_A_CONNECTION: u32 = 16;
/// How long open connections get to end when the control plane does.
const GRACE: Duration = Duration::from_secs(2);

/// A control plane whose ports are open.
#[derive(Debug)]
pub struct Control {
    ads: TcpListener,
    metrics: TcpListener,
    api: TcpListener,
    parts: Parts,
}

#[derive(Debug)]
struct Parts {
    source: Source,
    service: Ads,
    pages: Api,
    counts: Arc<Metrics>,
    closing: watch::Sender<bool>,
}

impl Control {
    /// Reads all manifests, then opens the ports: whoever can connect is answered from the whole. A port that is taken is an error.
    pub async fn open(config: &Config) -> io::Result<Self> {
        let listen = async |port: u16| {
            let address = SocketAddr::new(config.address, port);
            TcpListener::bind(address)
                .await
                .map_err(|e| io::Error::new(e.kind(), format!("cannot listen on {address}: {e}")))
        };
        let counts = Arc::new(Metrics::new());
        let (paths, read_counts) = (config.manifests.clone(), counts.clone());
        let (source, views) = tokio::task::spawn_blocking(move || Source::start(&paths, read_counts))
            .await
            .map_err(io::Error::other)??;
        let proxies = Arc::new(Proxies::default());
        let (closing, is_closing) = watch::channel(false);
        let service = Ads::new(views.clone(), proxies.clone(), counts.clone(), is_closing.clone());
        let manifests = config.manifests.iter().map(|path| path.display().to_string()).collect();
        let pages = Api { views, proxies, manifests, started: SystemTime::now(), closing: is_closing };
        Ok(Self {
            ads: listen(config.ads_port).await?,
            metrics: listen(config.metrics_port).await?,
            api: listen(config.api_port).await?,
            parts: Parts { source, service, pages, counts, closing },
        })
    }

    pub fn ads_address(&self) -> io::Result<SocketAddr> {
        self.ads.local_addr()
    }

    pub fn metrics_address(&self) -> io::Result<SocketAddr> {
        self.metrics.local_addr()
    }

    pub fn api_address(&self) -> io::Result<SocketAddr> {
        self.api.local_addr()
    }

    /// Serves until `end` resolves; then streams are closed, which proxies answer by connecting again elsewhere.
    pub async fn run(self, end: impl Future<Output = ()>) -> io::Result<()> {
        let Parts { source, service, pages, counts, closing } = self.parts;
        let mut servers = JoinSet::new();
        let ended = |mut closing: watch::Receiver<bool>| async move {
            // The sender lives until all servers have ended.
            let _ = closing.wait_for(|closing| *closing).await;
        };
        let ads = Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .max_concurrent_streams(STREAMS_A_CONNECTION)
            .add_service(AggregatedDiscoveryServiceServer::new(service))
            .serve_with_incoming_shutdown(
                TcpIncoming::from(self.ads).with_nodelay(Some(true)),
                ended(closing.subscribe()),
            );
        servers.spawn(async { ads.await.map_err(io::Error::other) });
        for (listener, router) in [(self.metrics, api::metrics(counts)), (self.api, api::router(pages))] {
            let end = ended(closing.subscribe());
            servers.spawn(async { axum::serve(listener, router).with_graceful_shutdown(end).await });
        }
        let outcome = tokio::select! {
            () = end => Ok(()),
            // None of them ends by itself.
            Some(early) = servers.join_next() => early.map_err(io::Error::other).and_then(|result| result),
        };
        closing.send_replace(true);
        let all = async { while servers.join_next().await.is_some() {} };
        // What is still open after it belongs to clients that do not read.
        let _ = tokio::time::timeout(GRACE, all).await;
        drop(source);
        outcome
    }
}
