//! Until an endpoint answers: which one, over which version, how often, and within what time.
//!
//! Without a policy only a request is tried again that certainly was not processed and is whole: the endpoint could not be reached, refused the
//! stream, or the request was handed back unsent. Retry policies (conditions, budget, replay) have their place here.

use std::time::Duration;

use http::{Request, Response, Version};
use outrigger_config::model::{Timeouts, UpstreamHttp};
use smallvec::SmallVec;
use tokio::time::{Instant, timeout_at};

use super::outgoing::Held;
use super::{headers, is_extended_connect, is_http2};
use crate::body::Body;
use crate::downstream::Connection;
use crate::failure::{Failure, Reason, is_grpc};
use crate::route::Upstream;
use crate::upstream::{Cluster, EndpointId, HttpVersionChoice, Picked, SendError};

/// Attempts after the first (design.md section 5).
const MORE: usize = 2;

pub async fn run(
    request: Request<Body>,
    upstream: &Upstream,
    timeouts: Timeouts,
    connection: &Connection,
    held: &mut Held,
) -> Result<Response<Body>, Failure> {
    match timeouts.request {
        None => each(request, upstream, timeouts.backend_request, connection, held).await,
        Some(limit) => {
            let deadline = held.record.begun() + limit;
            let attempts = each(request, upstream, timeouts.backend_request, connection, held);
            match timeout_at(deadline, attempts).await {
                Ok(result) => result,
                Err(_) => Err(Failure::new(Reason::RequestTimeout, format!("no response within {limit:?}"))),
            }
        }
    }
}

async fn each(
    mut request: Request<Body>,
    upstream: &Upstream,
    limit: Option<Duration>,
    connection: &Connection,
    held: &mut Held,
) -> Result<Response<Body>, Failure> {
    let cluster = &upstream.cluster;
    let settings = cluster.settings();
    let version = version(&request, settings.http);
    if version == HttpVersionChoice::Http1 && is_http2(request.version()) {
        headers::join_cookies(request.headers_mut());
    }
    let worker = &connection.worker;
    let mut tried: SmallVec<[EndpointId; MORE + 1]> = SmallVec::new();
    loop {
        let picked = pick(cluster, connection, &tried).await?;
        held.record.attempt(&settings.name, &picked.endpoint().address);
        let begun = Instant::now();
        let sending = worker.pools.send(cluster, picked.endpoint(), version, request);
        let sent = match limit {
            None => sending.await,
            Some(limit) => match timeout_at(begun + limit, sending).await {
                Ok(sent) => sent,
                Err(_) => Err(late(limit, &picked)),
            },
        };
        let now = Instant::now();
        let error = match sent {
            Ok(response) => {
                upstream.attempts.count(worker.id, None);
                picked.observe(now - begun, now);
                held.picked = Some(picked);
                return Ok(response);
            }
            Err(error) => error,
        };
        // What the client did wrong is not the endpoint's failure.
        if let Some(reason) = held.request_body_failed() {
            return Err(Failure { reason, detail: Some(error.detail) });
        }
        upstream.attempts.count(worker.id, Some(error.reason));
        picked.failed(now - begun, now);
        tried.push(picked.endpoint().id);
        match error {
            SendError { unsent: Some(unsent), .. } if tried.len() <= MORE => request = *unsent,
            error => return Err(error.into()),
        }
    }
}

/// A usable endpoint, waited for if there is none (design.md section 5: at most 3 s).
async fn pick(cluster: &Cluster, connection: &Connection, tried: &[EndpointId]) -> Result<Picked, Failure> {
    let now = || connection.worker.with_rng(|rng| cluster.pick(Instant::now(), rng, tried));
    if let Ok(picked) = now() {
        return Ok(picked);
    }
    let refused = |why: &dyn std::fmt::Display| {
        let name = &cluster.settings().name;
        Failure::new(Reason::NoEndpoint, format!("no endpoint of {name} became ready within {WAIT:?}: {why}"))
    };
    cluster.ready(Instant::now() + WAIT).await.map_err(|why| refused(&why))?;
    now().map_err(|why| refused(&why))
}

const WAIT: Duration = Cluster::DEFAULT_WAIT;

fn late(limit: Duration, picked: &Picked) -> SendError {
    SendError {
        reason: Reason::AttemptTimeout,
        detail: format!("{} did not answer within {limit:?}", picked.endpoint().address).into(),
        unsent: None,
        unprocessed: false,
    }
}

fn version(request: &Request<Body>, http: UpstreamHttp) -> HttpVersionChoice {
    // An upgrade is a thing of HTTP/1, an extended CONNECT one of HTTP/2.
    if request.version() < Version::HTTP_2 && request.headers().contains_key(http::header::UPGRADE) {
        return HttpVersionChoice::Http1;
    }
    let two = match http {
        UpstreamHttp::Http2 => true,
        UpstreamHttp::AsReceived => is_http2(request.version()),
        UpstreamHttp::Http1 => is_extended_connect(request) || is_grpc(request.headers()),
    };
    if two { HttpVersionChoice::Http2 } else { HttpVersionChoice::Http1 }
}
