//! `CreateCertificate`: a certificate for the identity that the caller's token speaks for.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use outrigger_config::model::SpiffeId;
use outrigger_config::xds::certificates::{
    CONTROL_NAMESPACE, CONTROL_SERVICE_ACCOUNT, CertificateRequest, CertificateResponse, CertificateService,
};
use outrigger_config::xds::pb;
use rcgen::SanType;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::keeper::Ca;
use super::refusal::Refusal;
use super::token::Caller;
use super::{Leaf, csr};
use crate::metrics::Metrics;
use crate::view::View;

/// Shorter ones than this are not given, whatever is asked for: there would be no time to renew them.
const LEAST_LIFE: Duration = Duration::from_secs(10);

/// Serves callers that [`Entrance`](super::Entrance) has let in, and no others.
#[derive(Debug)]
pub struct Certificates {
    ca: Arc<Ca>,
    views: watch::Receiver<Arc<View>>,
    metrics: Arc<Metrics>,
}

impl Certificates {
    pub fn new(ca: Arc<Ca>, views: watch::Receiver<Arc<View>>, metrics: Arc<Metrics>) -> Self {
        Self { ca, views, metrics }
    }

    fn issue(
        &self,
        caller: &Caller,
        request: &CertificateRequest,
        now: SystemTime,
    ) -> Result<(SpiffeId, Leaf), Refusal> {
        let (namespace, account) = (&**caller.role.namespace(), &*caller.service_account);
        // A workload that could have it would be taken for the control plane by every proxy.
        if (namespace, account) == (CONTROL_NAMESPACE, CONTROL_SERVICE_ACCOUNT) {
            return Err(Refusal::Reserved);
        }
        if let Some(metadata) = &request.metadata {
            nothing_in(metadata)?;
        }
        let registry = self.views.borrow().registry().clone();
        let id = SpiffeId::new(registry.trust_domain(), namespace, account)
            .map_err(|error| Refusal::TokenInvalid(error.to_string()))?;
        let key = csr::key_of(&request.csr, &id)?;
        let longest = registry.certificate_lifetime();
        let life = match u64::try_from(request.validity_duration) {
            Ok(0) | Err(_) => longest,
            Ok(wanted) => Duration::from_secs(wanted).clamp(LEAST_LIFE, longest),
        };
        let name = id.as_str().try_into().map_err(|_| Refusal::Unavailable("not ASCII".into()))?;
        let leaf = self
            .ca
            .sign(&key, vec![SanType::URI(name)], life, now)
            .map_err(|error| Refusal::Unavailable(error.to_string()))?;
        Ok((id, leaf))
    }
}

/// Istio's agents send fields that are empty; one that says something asks for something.
fn nothing_in(metadata: &pb::Struct) -> Result<(), Refusal> {
    for (name, value) in &metadata.fields {
        if pb::core_value::text(value) != Some("") {
            return Err(Refusal::Metadata(name.chars().take(100).collect()));
        }
    }
    Ok(())
}

#[tonic::async_trait]
impl CertificateService for Certificates {
    async fn create_certificate(
        &self,
        request: Request<CertificateRequest>,
    ) -> Result<Response<CertificateResponse>, Status> {
        let caller = request.extensions().get::<Caller>();
        let issued = caller.ok_or(Refusal::NoToken).and_then(|caller| {
            self.issue(caller, request.get_ref(), SystemTime::now())
                .inspect_err(|why| tracing::warn!(%caller, reason = why.reason(), "no certificate: {why}"))
        });
        match issued {
            Ok((id, leaf)) => {
                self.metrics.certificates("issued").inc();
                tracing::debug!(%id, "certificate issued");
                Ok(Response::new(CertificateResponse { cert_chain: leaf.pem() }))
            }
            Err(why) => {
                self.metrics.certificates(why.reason()).inc();
                Err(why.status())
            }
        }
    }
}
