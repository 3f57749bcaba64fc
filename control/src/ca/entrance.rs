//! The door before the CA: who calls is known, and found not to call too often, before a byte of the call's message is read.
//!
//! Owns the judgement of a call's head and how long its message may take. So what strangers send is never held, and what a caller sends is
//! bounded by how often it may ask. Never looks at a request's content (`certificates`).

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use outrigger_config::xds::certificates::CertificateServiceServer;
use tokio::time::{Instant, timeout};
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::metadata::MetadataMap;
use tonic::server::NamedService;
use tonic::transport::server::TcpConnectInfo;

use super::admission::Admission;
use super::certificates::Certificates;
use super::limit::Limit;
use super::refusal::Refusal;
use super::token::Caller;
use crate::metrics::Metrics;

/// A proxy asks once in half a life, which is 5 s at the least; a crash loop asks more often.
const CALLER_RATE: f64 = 1.0;
const CALLER_BURST: f64 = 20.0;

/// From a call's head to its answer (design.md 5, slow clients).
const CALL: Duration = Duration::from_secs(10);

/// `CreateCertificate` on a server.
#[derive(Clone, Debug)]
pub struct Entrance {
    admission: Arc<Admission>,
    callers: Arc<Limit<Caller>>,
    metrics: Arc<Metrics>,
    inner: CertificateServiceServer<Certificates>,
}

impl Entrance {
    pub fn new(certificates: Certificates, admission: Arc<Admission>, metrics: Arc<Metrics>) -> Self {
        let callers = Arc::new(Limit::new(CALLER_RATE, CALLER_BURST));
        Self { admission, callers, metrics, inner: CertificateServiceServer::new(certificates) }
    }

    async fn caller(&self, head: &MetadataMap, peer: Option<SocketAddr>) -> Result<Caller, Refusal> {
        let caller = self.admission.caller(head, peer).await;
        let caller = caller.inspect_err(|why| tracing::debug!(?peer, reason = why.reason(), "refused"))?;
        if !self.callers.admits(caller.clone(), Instant::now()) {
            tracing::warn!(%caller, reason = Refusal::TooMany.reason(), "no certificate");
            return Err(Refusal::TooMany);
        }
        Ok(caller)
    }

    async fn answer(mut self, mut request: http::Request<Body>) -> Result<http::Response<Body>, Infallible> {
        let peer = request.extensions().get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr);
        let head = MetadataMap::from_headers(request.headers().clone());
        let why = match self.caller(&head, peer).await {
            Ok(caller) => {
                request.extensions_mut().insert(caller);
                match timeout(CALL, self.inner.call(request)).await {
                    Ok(answer) => return answer,
                    Err(_) => Refusal::TooSlow(CALL.as_secs()),
                }
            }
            Err(why) => why,
        };
        self.metrics.certificates(why.reason()).inc();
        Ok(why.status().into_http())
    }
}

impl NamedService for Entrance {
    const NAME: &'static str = <CertificateServiceServer<Certificates> as NamedService>::NAME;
}

impl Service<http::Request<Body>> for Entrance {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.clone().answer(request))
    }
}

#[cfg(test)]
mod tests;
