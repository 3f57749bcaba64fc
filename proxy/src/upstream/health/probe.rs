//! One question to one endpoint.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, TE, USER_AGENT};
use http::{HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt as _, Collected, Limited};
use outrigger_config::model::{HealthProbe, UpstreamHttp};

use crate::body::Body;
use crate::grpc_health;
use crate::upstream::{Cluster, Endpoint, HttpVersionChoice, Pools};

/// Why it is not well, for people.
pub(super) type Unwell = String;

pub(super) async fn ask(
    pools: &Rc<Pools>,
    cluster: &Arc<Cluster>,
    endpoint: &Arc<Endpoint>,
    probe: &HealthProbe,
) -> Result<(), Unwell> {
    match probe {
        HealthProbe::Tcp => match pools.open_tcp(cluster, endpoint).await {
            Ok(_) => Ok(()),
            Err(failure) => Err(failure.to_string()),
        },
        HealthProbe::Http { path, host, expected } => {
            let version = match cluster.settings().http {
                UpstreamHttp::Http2 => HttpVersionChoice::Http2,
                UpstreamHttp::AsReceived | UpstreamHttp::Http1 => HttpVersionChoice::Http1,
            };
            let mut request = request(Method::GET, path, host.as_deref(), cluster)?;
            request.headers_mut().insert(USER_AGENT, HeaderValue::from_static("outrigger-health-check"));
            let response = send(pools, cluster, endpoint, version, request).await?;
            let status = response.status().as_u16();
            // Read to its end, so that the connection can be used again.
            whole(response.into_body(), LONGEST_PAGE).await?;
            match expected.iter().any(|(from, until)| (*from..*until).contains(&status)) {
                true => Ok(()),
                false => Err(format!("it answered {status}")),
            }
        }
        HealthProbe::Grpc { service } => {
            let mut request = request(Method::POST, grpc_health::PATH, None, cluster)?;
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            request.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
            *request.body_mut() = grpc_health::question(service).into();
            let response = send(pools, cluster, endpoint, HttpVersionChoice::Http2, request).await?;
            let (head, body) = response.into_parts();
            if head.status != 200 {
                return Err(format!("it answered {} to a gRPC health check", head.status));
            }
            let body = whole(body, grpc_health::LONGEST_ANSWER).await?;
            let trailers = body.trailers().cloned();
            let judged = grpc_health::judge(&head.headers, trailers.as_ref(), &body.to_bytes());
            judged.map_err(|error| format!("it {error}"))
        }
    }
}

/// Of a page that answers a health check, bytes.
const LONGEST_PAGE: usize = 64 * 1024;

/// `host` is by default the name the cluster's endpoints are reached by.
fn request(
    method: Method,
    path: &str,
    host: Option<&str>,
    cluster: &Cluster,
) -> Result<Request<Body>, Unwell> {
    let name = cluster.settings().name.clone();
    let host = host.or_else(|| name.as_str().rsplit('|').next()).unwrap_or_default();
    let request = Request::builder().method(method).uri(path).header(HOST, host).body(Body::empty());
    request.map_err(|error| format!("it cannot be asked: {error}"))
}

async fn send(
    pools: &Rc<Pools>,
    cluster: &Arc<Cluster>,
    endpoint: &Arc<Endpoint>,
    version: HttpVersionChoice,
    request: Request<Body>,
) -> Result<Response<Body>, Unwell> {
    pools.send(cluster, endpoint, version, request).await.map_err(|error| error.to_string())
}

async fn whole(body: Body, most: usize) -> Result<Collected<Bytes>, Unwell> {
    Limited::new(body, most).collect().await.map_err(|error| format!("no whole answer: {error}"))
}
