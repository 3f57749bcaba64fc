//! How a proxy asks for its certificate: `istio.v1.auth.IstioCertificateService/CreateCertificate`.
//!
//! The field's de-facto call, so that another CA can serve our proxies and ours can serve others. It goes over TLS to [`PORT`], with the
//! caller's token as `authorization: Bearer TOKEN` ([`authorization`]); so do streams of discovery there. Owns the messages and both ends
//! of the call; who may have which certificate is the business of the CA.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tonic::body::Body;
use tonic::client::{Grpc, GrpcService};
use tonic::codegen::{Body as HttpBody, Bytes, Service, StdError, http};
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::server::{NamedService, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use super::pb;

/// Discovery and certificates over TLS. Istio's number.
pub const PORT: u16 = 15012;

/// The audience a token has to be made for to be taken by the control plane.
pub const AUDIENCE: &str = "outrigger-control";

/// The service account the control plane itself has; its certificate names `spiffe://TRUST_DOMAIN/ns/outrigger-system/sa/outrigger-control`
/// and goes to nobody else.
pub const CONTROL_NAMESPACE: &str = "outrigger-system";
pub const CONTROL_SERVICE_ACCOUNT: &str = "outrigger-control";

/// Largest request served and, by [`CertificateServiceServer`], read. Bytes.
pub const MAX_REQUEST: usize = 64 << 10;

#[derive(Clone, PartialEq, prost::Message)]
pub struct CertificateRequest {
    /// PKCS #10, PEM. A CA takes the public key out of it and nothing else; ours refuses one that asks for more than it would get.
    #[prost(string, tag = "1")]
    pub csr: String,
    /// Seconds; the CA may grant less. 0 leaves it to the CA. A leaf's life is counted from when it is received: its NotBefore is earlier.
    #[prost(int64, tag = "3")]
    pub validity_duration: i64,
    #[prost(message, optional, tag = "4")]
    pub metadata: Option<pb::Struct>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct CertificateResponse {
    /// PEM, one certificate each, leaf first. Istio's CA appends the root; whoever verifies has its own.
    #[prost(string, repeated, tag = "1")]
    pub cert_chain: Vec<String>,
}

/// `Bearer TOKEN`, never printed. `None` for what no header can hold.
pub fn authorization(token: &str) -> Option<MetadataValue<Ascii>> {
    let mut value: MetadataValue<Ascii> = format!("Bearer {}", token.trim()).parse().ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The token of a call; `None` where there is none.
pub fn bearer(metadata: &MetadataMap) -> Option<&str> {
    let value = metadata.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim()).filter(|token| !token.is_empty())
}

/// The metadata key [`authorization`] belongs to.
pub const AUTHORIZATION: &str = "authorization";

const SERVICE: &str = "istio.v1.auth.IstioCertificateService";
const CREATE_CERTIFICATE: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";

/// The calling end.
#[derive(Clone, Debug)]
pub struct CertificateServiceClient<T> {
    inner: Grpc<T>,
}

impl<T> CertificateServiceClient<T>
where
    T: GrpcService<Body>,
    T::Error: Into<StdError>,
    T::ResponseBody: HttpBody<Data = Bytes> + Send + 'static,
    <T::ResponseBody as HttpBody>::Error: Into<StdError> + Send,
{
    pub fn new(channel: T) -> Self {
        Self { inner: Grpc::new(channel) }
    }

    pub async fn create_certificate(
        &mut self,
        request: Request<CertificateRequest>,
    ) -> Result<Response<CertificateResponse>, Status> {
        let ready = self.inner.ready().await;
        ready.map_err(|error| Status::unavailable(format!("the CA is not reached: {}", error.into())))?;
        let path = http::uri::PathAndQuery::from_static(CREATE_CERTIFICATE);
        self.inner.unary(request, path, ProstCodec::default()).await
    }
}

/// The answering end.
#[tonic::async_trait]
pub trait CertificateService: Send + Sync + 'static {
    async fn create_certificate(
        &self,
        request: Request<CertificateRequest>,
    ) -> Result<Response<CertificateResponse>, Status>;
}

/// Puts a [`CertificateService`] on a server.
#[derive(Debug)]
pub struct CertificateServiceServer<T>(Arc<T>);

impl<T> CertificateServiceServer<T> {
    pub fn new(service: T) -> Self {
        Self(Arc::new(service))
    }
}

impl<T> Clone for CertificateServiceServer<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> NamedService for CertificateServiceServer<T> {
    const NAME: &'static str = SERVICE;
}

impl<T, B> Service<http::Request<B>> for CertificateServiceServer<T>
where
    T: CertificateService,
    B: HttpBody + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let service = self.0.clone();
        Box::pin(async move {
            if request.uri().path() != CREATE_CERTIFICATE {
                return Ok(Status::unimplemented("only CreateCertificate is served").into_http());
            }
            let codec = ProstCodec::<CertificateResponse, CertificateRequest>::default();
            let mut grpc =
                tonic::server::Grpc::new(codec).apply_max_message_size_config(Some(MAX_REQUEST), None);
            Ok(grpc.unary(CreateCertificate(service), request).await)
        })
    }
}

struct CreateCertificate<T>(Arc<T>);

impl<T: CertificateService> UnaryService<CertificateRequest> for CreateCertificate<T> {
    type Response = CertificateResponse;
    type Future = Pin<Box<dyn Future<Output = Result<Response<CertificateResponse>, Status>> + Send>>;

    fn call(&mut self, request: Request<CertificateRequest>) -> Self::Future {
        let service = self.0.clone();
        Box::pin(async move { service.create_certificate(request).await })
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    /// The other side is often somebody else's: the numbers are what both agree on.
    #[test]
    fn messages_have_the_fields_of_the_call() {
        let request = CertificateRequest { csr: "x".into(), validity_duration: 3, metadata: None };
        assert_eq!(request.encode_to_vec(), [0x0a, 1, b'x', 0x18, 3]);
        let response = CertificateResponse { cert_chain: vec!["a".into(), "b".into()] };
        assert_eq!(response.encode_to_vec(), [0x0a, 1, b'a', 0x0a, 1, b'b']);
    }

    #[test]
    fn a_token_is_read_back_and_anything_else_is_none() {
        let mut metadata = MetadataMap::new();
        assert_eq!(bearer(&metadata), None);
        metadata.insert(AUTHORIZATION, authorization("a.b.c\n").unwrap());
        assert_eq!(bearer(&metadata), Some("a.b.c"));
        assert!(!format!("{metadata:?}").contains("a.b.c"));
        for other in ["Basic YTpi", "Bearer", "Bearer  ", "a.b.c"] {
            metadata.insert(AUTHORIZATION, other.parse().unwrap());
            assert_eq!(bearer(&metadata), None, "{other}");
        }
        assert!(authorization("a\nb").is_none());
    }
}
