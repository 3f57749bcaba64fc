//! What becomes of calls whose message never comes.

use std::sync::atomic::{AtomicBool, Ordering};

use http_body::Frame;
use outrigger_config::registry::Registry;
use outrigger_config::xds::Role;
use outrigger_config::xds::certificates::AUTHORIZATION;
use tokio::sync::watch;
use tonic::codegen::Bytes;
use tonic::{Code, Status};

use super::*;
use crate::ca::{Ca, Directory, TokenReviewer};
use crate::view::View;

/// A message that begins with the head of one of 100 bytes, and of which no more comes.
#[derive(Clone, Default)]
struct Endless {
    read: Arc<AtomicBool>,
}

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.read.swap(true, Ordering::SeqCst) {
            return Poll::Pending;
        }
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[0, 0, 0, 0, 100, 0x0a])))))
    }
}

/// Takes a token for the name of a workload; `stranger` is none.
#[derive(Debug)]
struct Names;

#[tonic::async_trait]
impl TokenReviewer for Names {
    async fn review(&self, token: &str) -> Result<Caller, Refusal> {
        if token == "stranger" {
            return Err(Refusal::TokenInvalid(token.to_owned()));
        }
        let role = Role::Sidecar { namespace: "default".into(), workload: token.into() };
        Ok(Caller { role, service_account: "default".into() })
    }
}

async fn entrance() -> (Entrance, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let ca = Ca::open(Arc::new(Directory::open(directory.path()).unwrap()), Duration::from_secs(3_600));
    let ca = Arc::new(ca.await.unwrap());
    let (_, views) = watch::channel(Arc::new(View::first(Arc::new(Registry::default()), Arc::default())));
    let metrics = Arc::new(Metrics::new());
    let certificates = Certificates::new(ca, views, metrics.clone());
    tokio::time::pause();
    (Entrance::new(certificates, Arc::new(Admission::new(Arc::new(Names))), metrics), directory)
}

/// The status, and how long it took; whether anything of the message was read.
async fn call(entrance: &Entrance, token: Option<&str>) -> (Code, Duration, bool) {
    let body = Endless::default();
    let read = body.read.clone();
    let mut request = http::Request::post("/istio.v1.auth.IstioCertificateService/CreateCertificate");
    if let Some(token) = token {
        request = request.header(AUTHORIZATION, format!("Bearer {token}"));
    }
    let mut request = request.body(Body::new(body)).unwrap();
    let peer: SocketAddr = "10.0.0.1:4000".parse().unwrap();
    request.extensions_mut().insert(TcpConnectInfo { local_addr: None, remote_addr: Some(peer) });
    let begun = Instant::now();
    let answer = entrance.clone().call(request).await.expect("it answers");
    let status = Status::from_header_map(answer.headers()).expect("in the head");
    (status.code(), begun.elapsed(), read.load(Ordering::SeqCst))
}

#[tokio::test]
async fn nobody_is_listened_to_before_it_is_known_who_it_is() {
    let (entrance, _directory) = entrance().await;
    for token in [None, Some("stranger")] {
        assert_eq!(call(&entrance, token).await, (Code::Unauthenticated, Duration::ZERO, false), "{token:?}");
    }
    // Nor whoever asks too often: what it may have under way at once is bounded by that.
    let all = (0..2 * CALLER_BURST as usize).map(|_| call(&entrance, Some("web")));
    let all = futures_util::future::join_all(all).await;
    let refused: Vec<_> = all.iter().filter(|(code, ..)| *code == Code::ResourceExhausted).collect();
    assert_eq!(refused.len(), CALLER_BURST as usize, "{all:?}");
    assert!(refused.iter().all(|(_, after, read)| after.is_zero() && !read), "{all:?}");
    assert_eq!(entrance.metrics.certificates("too_many").get() as usize, refused.len());
}

#[tokio::test]
async fn a_message_that_never_comes_whole_is_not_waited_for() {
    let (entrance, _directory) = entrance().await;
    let (code, after, read) = call(&entrance, Some("web")).await;
    assert_eq!((code, after.as_secs(), read), (Code::DeadlineExceeded, CALL.as_secs(), true));
    assert_eq!(entrance.metrics.certificates("too_slow").get(), 1);
}
