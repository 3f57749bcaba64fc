//! Certificates from an authority: asked for at the start, renewed, waited for, and kept across restarts.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use outrigger_config::model::{Root, TrustBundle};
use outrigger_config::xds::certificates::{
    CertificateRequest, CertificateResponse, CertificateService, CertificateServiceServer, bearer,
};
use outrigger_proxy::identity::{self, Kept, Provision, Secure, Svid};
use tonic::{Response, Status};

use super::super::harness::*;
use super::pki::{Authority, Files, Wanted};
use super::*;

/// A certificate authority that does as it is told.
struct Ca {
    authority: Authority,
    /// Answers `UNAVAILABLE`.
    away: AtomicBool,
    /// Of what it signs, in seconds.
    life: AtomicI64,
    asked: AtomicUsize,
}

struct Service(Arc<Ca>);

#[tonic::async_trait]
impl CertificateService for Service {
    async fn create_certificate(
        &self,
        request: tonic::Request<CertificateRequest>,
    ) -> Result<Response<CertificateResponse>, Status> {
        let ca = &self.0;
        ca.asked.fetch_add(1, Ordering::SeqCst);
        if bearer(request.metadata()) != Some("let-me-in") {
            return Err(Status::unauthenticated("the token is not known"));
        }
        if ca.away.load(Ordering::SeqCst) {
            return Err(Status::unavailable("away"));
        }
        let wanted = Wanted::new(&[CALLER]).valid(-300, ca.life.load(Ordering::SeqCst));
        let leaf = ca.authority.answer(&request.into_inner().csr, &wanted);
        Ok(Response::new(CertificateResponse { cert_chain: vec![leaf, ca.authority.pem.clone()] }))
    }
}

impl Ca {
    /// Serves over TLS as the control plane called `uri`.
    async fn start(life: i64, uri: &str) -> (Arc<Self>, SocketAddr) {
        let ca = Arc::new(Self {
            authority: Authority::new("root"),
            away: AtomicBool::new(false),
            life: AtomicI64::new(life),
            asked: AtomicUsize::new(0),
        });
        let config = pki::server(&ca.authority.leaf(uri));
        let served = ca.clone();
        let at = bytes_app(move |stream| {
            let (acceptor, ca) = (tokio_rustls::TlsAcceptor::from(config.clone()), served.clone());
            async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = TowerToHyperService::new(CertificateServiceServer::new(Service(ca)));
                let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let _ = builder.serve_connection(TokioIo::new(stream), service).await;
            }
        })
        .await;
        (ca, at)
    }
}

const CONTROL: &str = "spiffe://cluster.local/ns/outrigger-system/sa/outrigger-control";

/// Where a proxy of this test has its files.
struct Place {
    files: Files,
    at: SocketAddr,
    kept: Option<PathBuf>,
}

impl Place {
    fn new(ca: &Ca, at: SocketAddr) -> Self {
        let files = Files::new();
        files.roots(&[&ca.authority]);
        let place = Self { files, at, kept: None };
        place.token("let-me-in");
        place
    }

    fn token(&self, token: &str) {
        std::fs::write(self.files.path("token"), format!("{token}\n")).expect("it can be written");
    }

    fn start(&self, resources: Vec<Resource>) -> Running {
        let mut all = vec![inbound(&[], ProxySettings::default())];
        all.extend(resources);
        let mut setup = Setup::new(Own::Sidecar);
        setup.identity = Some(Provision::Authority(identity::Authority {
            addresses: vec![self.at.to_string().into()],
            secure: Secure { roots: self.files.path("roots.pem"), token: Some(self.files.path("token")) },
            kept: Kept::new(self.kept.clone(), "workload default/caller"),
        }));
        app::start(setup, |_| Ok((Source::fixed(all), None))).expect("it starts")
    }
}

async fn ready(running: &Running) -> (u16, String) {
    let answer = Http1::connect(running.metrics).await.get("/healthz/ready", "metrics").await;
    (answer.status, answer.body)
}

fn serial(running: &Running) -> String {
    running.shared.identity.svid().map(|svid| svid.leaf.serial.to_string()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_asked_for_and_renewed_at_half_its_life() {
    let (ca, at) = Ca::start(4, CONTROL).await;
    let place = Place::new(&ca, at);
    // What configuration says of the roots counts more than the root that came with the certificate.
    let der = |authority: &Authority| {
        use rustls::pki_types::pem::PemObject;
        let der = rustls::pki_types::CertificateDer::from_pem_slice(authority.pem.as_bytes()).expect("PEM");
        Root::new(der.as_ref())
    };
    let next = Authority::new("next root");
    let bundle = TrustBundle::new("cluster.local", [der(&ca.authority), der(&next)]).expect("roots");
    let running = place.start(vec![Resource::TrustBundle(bundle)]);
    has_identity(&running).await;
    until("both roots", || running.shared.identity.trust_bundle().is_some_and(|bundle| bundle.len() == 2))
        .await;
    let svid = running.shared.identity.svid().expect("one");
    assert_eq!(svid.leaf.id.as_str(), CALLER);
    assert_eq!(svid.key.cert.len(), 1, "nobody is shown the root");
    assert_eq!(ready(&running).await.0, 200);
    let first = serial(&running);
    until("a new certificate", || serial(&running) != first).await;
    assert!(ca.asked.load(Ordering::SeqCst) >= 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authority_that_refuses_or_is_away_is_asked_again_until_it_gives_one() {
    let (ca, at) = Ca::start(4, CONTROL).await;
    let place = Place::new(&ca, at);
    place.token("wrong");
    let running = place.start(Vec::new());
    until("it was refused", || {
        running.shared.identity.unusable().is_some_and(|why| why.contains("the token is not known"))
    })
    .await;
    let (status, why) = ready(&running).await;
    assert_eq!(status, 503);
    assert!(why.contains("no certificate yet") && why.contains("the token is not known"), "{why}");
    place.token("let-me-in");
    has_identity(&running).await;
    // Away while the certificate comes to its end: it is used as long as it is valid, then nothing is, until the authority is back.
    ca.away.store(true, Ordering::SeqCst);
    let expired = ca.authority.sign(&Wanted::new(&[CALLER]).valid(-7200, -3600));
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let expired = Svid::from_pem(expired.certificate.as_bytes(), expired.key.as_bytes(), &provider);
    running.shared.identity.set_svid(expired.expect("readable"));
    assert!(running.shared.identity.unusable().is_some_and(|why| why.contains("has expired")));
    let so_far = ca.asked.load(Ordering::SeqCst);
    until("it asks in vain", || ca.asked.load(Ordering::SeqCst) > so_far).await;
    assert_eq!(ready(&running).await.0, 503);
    ca.away.store(false, Ordering::SeqCst);
    has_identity(&running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authority_that_cannot_prove_itself_gets_no_token() {
    let (ca, at) = Ca::start(60, "spiffe://cluster.local/ns/default/sa/somebody").await;
    let place = Place::new(&ca, at);
    let running = place.start(Vec::new());
    until("it was refused", || {
        running.shared.identity.unusable().is_some_and(|why| why.contains("no TLS with the control plane"))
    })
    .await;
    let (stranger, at) = Ca::start(60, CONTROL).await;
    let place = Place::new(&ca, at);
    let running = place.start(Vec::new());
    until("it was refused", || {
        running.shared.identity.unusable().is_some_and(|why| why.contains("unknown_issuer"))
    })
    .await;
    assert_eq!(ca.asked.load(Ordering::SeqCst) + stranger.asked.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_outlives_its_process_in_memory_and_nowhere_else() {
    let (ca, at) = Ca::start(3600, CONTROL).await;
    let mut place = Place::new(&ca, at);
    let memory = tempfile::Builder::new().prefix("outrigger-test").tempdir_in("/dev/shm").expect("tmpfs");
    place.kept = Some(memory.path().join("kept"));
    let running = place.start(Vec::new());
    has_identity(&running).await;
    let file = memory.path().join("kept/identity");
    until("it is kept", || file.exists()).await;
    assert_eq!(std::fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o600);
    let first = serial(&running);
    assert_eq!(ready(&running).await, (200, "ready\n".to_owned()));
    drop(running);

    ca.away.store(true, Ordering::SeqCst);
    let running = place.start(Vec::new());
    has_identity(&running).await;
    assert_eq!(serial(&running), first, "used again while the authority is away");
    drop(running);

    let disk = Path::new(env!("CARGO_TARGET_TMPDIR"));
    if nix::sys::statfs::statfs(disk)
        .is_ok_and(|found| found.filesystem_type() == nix::sys::statfs::TMPFS_MAGIC)
    {
        eprintln!("SKIPPED: {} is in memory, so nothing can be said about disks", disk.display());
        return;
    }
    ca.away.store(false, Ordering::SeqCst);
    let disk = tempfile::tempdir_in(disk).expect("a directory");
    place.kept = Some(disk.path().to_owned());
    let running = place.start(Vec::new());
    has_identity(&running).await;
    until("it says so", || running.shared.identity.report()["why_not_kept"].is_string()).await;
    let (status, said) = ready(&running).await;
    assert_eq!(status, 200, "{said}");
    assert!(said.starts_with("ready\nbut the certificate is not kept across restarts: "), "{said}");
    assert!(!disk.path().join("identity").exists());
}
