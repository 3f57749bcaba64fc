//! Puts the pieces together and opens the ports.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use outrigger_config::model::Root;
use outrigger_config::xds::pb::discovery::aggregated_discovery_service_server::AggregatedDiscoveryServiceServer;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use crate::ads::Ads;
use crate::api::{self, Api};
use crate::ca::{Admission, Ca, Certificates, Directory, Entrance, Own, TokenSigner, seconds};
use crate::experiments::Experiments;
use crate::metrics::Metrics;
use crate::proxies::Proxies;
use crate::rate_limit::{Callers, RateLimits, Store};
use crate::source::Source;
use crate::tls;
use crate::view::View;

/// Where manifests are and where to listen. Port 0 takes any free one.
#[derive(Clone, Debug)]
pub struct Config {
    /// Directories and files, read as one whole.
    pub manifests: Vec<PathBuf>,
    pub address: IpAddr,
    /// Default 15010: discovery in plaintext, which is for loopback.
    pub ads_port: Option<u16>,
    /// Default 15014.
    pub metrics_port: u16,
    /// Default 15080.
    pub api_port: u16,
    /// Certificates, and discovery for those who say who they are; `None` for a control plane without either.
    pub identity: Option<Identity>,
    /// Redis in which shared limits are counted, together with other control planes: `redis://[USER:PASSWORD@]HOST:PORT[/DB]`. `None`: in this process.
    pub limits: Option<String>,
    /// Where it is written down which experiments run since when, and which were stopped; `None`: nowhere, so that a restart forgets it.
    pub experiments: Option<PathBuf>,
}

/// What makes a control plane a certification authority.
#[derive(Clone, Debug)]
pub struct Identity {
    pub ca: CaOrigin,
    /// Key that proxies' tokens are signed with (PKCS #8, P-256, PEM); made where there is none.
    pub token_key: PathBuf,
    /// Default port 15012.
    pub listen: SocketAddr,
    /// DNS names in the control plane's own certificate, besides its SPIFFE id and its address.
    pub names: Vec<String>,
}

#[derive(Clone, Debug)]
pub enum CaOrigin {
    /// Kept in a directory, and made there if there is none.
    Directory(PathBuf),
    /// What signs, with its roots; and its key.
    Files { certificates: PathBuf, key: PathBuf },
}

/// A dead connection is found within 15 s.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// A proxy opens one stream of discovery a connection; on another it asks for limits, some of them at a time.
const STREAMS_A_CONNECTION: u32 = 128;
/// How long open connections get to end when the control plane does.
const GRACE: Duration = Duration::from_secs(2);

/// A control plane whose ports are open.
#[derive(Debug)]
pub struct Control {
    ads: Option<TcpListener>,
    metrics: TcpListener,
    api: TcpListener,
    secure: Option<(TcpListener, ServerConfig)>,
    parts: Parts,
}

#[derive(Debug)]
struct Parts {
    source: Source,
    service: Ads,
    pages: Api,
    counts: Arc<Metrics>,
    limits: RateLimits,
    authority: Option<Authority>,
    closing: watch::Sender<bool>,
}

/// The CA at work.
#[derive(Clone, Debug)]
struct Authority {
    ca: Arc<Ca>,
    own: Arc<Own>,
    admission: Arc<Admission>,
}

impl Authority {
    async fn open(identity: &Identity, view: &View, now: SystemTime) -> io::Result<Self> {
        let life = view.registry().certificate_lifetime();
        let ca = match &identity.ca {
            CaOrigin::Directory(path) => Ca::open(Arc::new(Directory::open(path)?), life).await?,
            CaOrigin::Files { certificates, key } => Ca::given(certificates, key).await?,
        };
        ca.look(life, |_| false, now).await?;
        let own = Own::new(&[identity.listen.ip()], &identity.names).map_err(io::Error::other)?;
        if let Err(error) = own.keep(&ca, view.registry().trust_domain(), life, now) {
            // Discovery in plaintext does not depend on it, and `outrigger ca` may mend it meanwhile.
            tracing::error!("the CA: {error}");
        }
        let reviewer = TokenSigner::open(&identity.token_key)?.reviewer();
        let admission = Arc::new(Admission::new(Arc::new(reviewer)));
        Ok(Self { ca: Arc::new(ca), own: Arc::new(own), admission })
    }

    /// Does what time and others bring, once a second. What fails is tried again, and said once.
    async fn keep(
        &self,
        source: &Source,
        views: &watch::Receiver<Arc<View>>,
        proxies: &Proxies,
        metrics: &Metrics,
    ) {
        let (mut said, mut warned) = (String::new(), false);
        loop {
            let present = self.ca.present();
            source.believe(present.roots().clone());
            metrics.roots.set(present.roots().len() as i64);
            let gauge = |at| i64::try_from(seconds(at)).unwrap_or(i64::MAX);
            metrics.ca_expires(gauge(present.root_until()), gauge(present.until()));
            let left = present.until().duration_since(SystemTime::now()).unwrap_or_default();
            if left < SOON && !warned {
                tracing::warn!(days = left.as_secs() / 86_400, "what the CA signs with ends soon");
            }
            warned = left < SOON;
            tokio::time::sleep(LOOK).await;
            let (view, now) = (views.borrow().clone(), SystemTime::now());
            let life = view.registry().certificate_lifetime();
            let heard = |roots: &[Root]| **view.roots() == *roots && proxies.have_bundle_of(&view);
            let mut outcome = self.ca.look(life, heard, now).await.map_err(|error| error.to_string());
            if outcome.is_ok() {
                let kept = self.own.keep(&self.ca, view.registry().trust_domain(), life, now);
                outcome = kept.map_err(|error| error.to_string());
            }
            match outcome {
                Ok(()) => said.clear(),
                Err(error) if error != said => {
                    tracing::error!("the CA: {error}");
                    said = error;
                }
                Err(_) => {}
            }
        }
    }
}

/// What is replaced by itself is replaced long before.
const SOON: Duration = Duration::from_secs(60 * 86_400);

/// How often the state of the CA is looked at.
const LOOK: Duration = Duration::from_secs(1);

impl Control {
    /// Reads all manifests, then opens the ports: whoever can connect is answered from the whole. A port that is taken is an error.
    pub async fn open(config: &Config) -> io::Result<Self> {
        let listen = async |port: u16| bind(SocketAddr::new(config.address, port)).await;
        let counts = Arc::new(Metrics::new());
        let store = match &config.limits {
            Some(url) => Store::redis(url).map_err(io::Error::other)?,
            None => Store::memory(),
        };
        let limits = RateLimits::new(Arc::new(store), counts.limits.clone());
        let (paths, read_counts) = (config.manifests.clone(), counts.clone());
        let file = config.experiments.clone();
        let start = move || {
            let experiments = Arc::new(Experiments::open(file.as_deref())?);
            Source::start(&paths, read_counts, experiments)
        };
        let (source, views) = tokio::task::spawn_blocking(start).await.map_err(io::Error::other)??;
        let proxies = Arc::new(Proxies::default());
        let (closing, is_closing) = watch::channel(false);
        let now = SystemTime::now();
        let view = views.borrow().clone();
        let (authority, secure) = match &config.identity {
            None => (None, None),
            Some(identity) => {
                let authority = Authority::open(identity, &view, now).await?;
                source.believe(authority.ca.present().roots().clone());
                let tls = tls::config(authority.own.clone()).map_err(io::Error::other)?;
                (Some(authority), Some((bind(identity.listen).await?, tls)))
            }
        };
        let service = Ads::new(views.clone(), proxies.clone(), counts.clone(), is_closing.clone());
        let manifests = config.manifests.iter().map(|path| path.display().to_string()).collect();
        let ca = authority.as_ref().map(|authority| authority.ca.clone());
        let stopper = source.stopper();
        let pages = Api { views, proxies, manifests, started: now, ca, closing: is_closing, stopper };
        let ads = match config.ads_port {
            Some(port) => Some(listen(port).await?),
            None => None,
        };
        Ok(Self {
            ads,
            metrics: listen(config.metrics_port).await?,
            api: listen(config.api_port).await?,
            secure,
            parts: Parts { source, service, pages, counts, limits, authority, closing },
        })
    }

    /// Of discovery in plaintext; `None` where there is none.
    pub fn ads_address(&self) -> io::Result<Option<SocketAddr>> {
        self.ads.as_ref().map(TcpListener::local_addr).transpose()
    }

    pub fn metrics_address(&self) -> io::Result<SocketAddr> {
        self.metrics.local_addr()
    }

    pub fn api_address(&self) -> io::Result<SocketAddr> {
        self.api.local_addr()
    }

    /// Of certificates and discovery over TLS; `None` without an identity.
    pub fn secure_address(&self) -> io::Result<Option<SocketAddr>> {
        self.secure.as_ref().map(|(listener, _)| listener.local_addr()).transpose()
    }

    /// Serves until `end` resolves; then streams are closed, which proxies answer by connecting again elsewhere.
    pub async fn run(self, end: impl Future<Output = ()>) -> io::Result<()> {
        let Parts { source, service, pages, counts, limits, authority, closing } = self.parts;
        let (views, proxies) = (pages.views.clone(), pages.proxies.clone());
        let mut servers = JoinSet::new();
        let ended = |mut closing: watch::Receiver<bool>| async move {
            // The sender lives until all servers have ended.
            let _ = closing.wait_for(|closing| *closing).await;
        };
        let builder = || {
            Server::builder()
                .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
                .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
                .max_concurrent_streams(STREAMS_A_CONNECTION)
        };
        if let (Some(Authority { ca, admission, .. }), Some((listener, tls))) = (&authority, self.secure) {
            let certificates = Certificates::new(ca.clone(), views.clone(), counts.clone());
            let entrance = Entrance::new(certificates, admission.clone(), counts.clone());
            let secure = builder()
                .add_service(AggregatedDiscoveryServiceServer::new(service.admitting(admission.clone())))
                .add_service(entrance)
                .add_service(limits.admitting(Arc::new(Callers::new(admission.clone()))).service())
                .serve_with_incoming_shutdown(tls::incoming(listener, tls), ended(closing.subscribe()));
            servers.spawn(async { secure.await.map_err(io::Error::other) });
        }
        if let Some(listener) = self.ads {
            let ads = builder()
                .add_service(AggregatedDiscoveryServiceServer::new(service))
                .add_service(limits.service())
                .serve_with_incoming_shutdown(
                    TcpIncoming::from(listener).with_nodelay(Some(true)),
                    ended(closing.subscribe()),
                );
            servers.spawn(async { ads.await.map_err(io::Error::other) });
        }
        for (listener, router) in
            [(self.metrics, api::metrics(counts.clone())), (self.api, api::router(pages))]
        {
            let end = ended(closing.subscribe());
            servers.spawn(async { axum::serve(listener, router).with_graceful_shutdown(end).await });
        }
        let keep = async {
            match &authority {
                Some(authority) => authority.keep(&source, &views, &proxies, &counts).await,
                None => std::future::pending().await,
            }
        };
        let outcome = tokio::select! {
            () = end => Ok(()),
            () = keep => Ok(()),
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

async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .map_err(|e| io::Error::new(e.kind(), format!("cannot listen on {address}: {e}")))
}
