//! A server of Envoy's rate limit call, `envoy.service.ratelimit.v3.RateLimitService`, for limits that several proxies share.
//!
//! Owns the counting alone: what is limited, and to how much, each call says itself (`descriptors[].limit`, as Envoy's `rate_limits[].limit` fills it); a
//! descriptor without a limit is allowed. Keeps nothing but what the [`Store`] keeps, so that any number of servers may run on one Redis. The control plane
//! has one on its ports for discovery; `outrigger ratelimit` is one by itself.

mod callers;
mod counts;
mod store;
#[cfg(test)]
mod tests;
mod window;

use std::fmt::Write;
use std::io;
use std::sync::Arc;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use outrigger_config::xds::pb::ratelimit::rate_limit_response::{
    Code, DescriptorStatus, RateLimit, rate_limit,
};
use outrigger_config::xds::pb::ratelimit::rate_limit_service_server::{
    RateLimitService, RateLimitServiceServer,
};
use outrigger_config::xds::pb::ratelimit::{RateLimitRequest, RateLimitResponse};
use outrigger_config::xds::pb::ratelimit_descriptor::RateLimitDescriptor;
use outrigger_config::xds::pb::{self, percent::RateLimitUnit};
use outrigger_config::xds::rate_limit::TAKES_BACK;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tonic::metadata::MetadataValue;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

pub use callers::Callers;
pub use counts::Counts;
pub use store::{Store, StoreError};
use window::Ask;

/// Serves until `end`, in plaintext and to everybody; and on `metrics` the page for Prometheus.
pub async fn serve(
    listener: TcpListener,
    metrics: Option<TcpListener>,
    store: Store,
    end: impl Future<Output = ()>,
) -> io::Result<()> {
    let registry = prometheus::Registry::new();
    let limits = RateLimits::new(Arc::new(store), Counts::new(&registry));
    let calls = Server::builder()
        .http2_keepalive_interval(Some(std::time::Duration::from_secs(10)))
        .add_service(limits.service())
        .serve_with_incoming_shutdown(TcpIncoming::from(listener).with_nodelay(Some(true)), end);
    let page = async {
        let Some(listener) = metrics else { return std::future::pending().await };
        let page = async move || ([(CONTENT_TYPE, "text/plain; version=0.0.4")], counts::page(&registry));
        axum::serve(listener, Router::new().route("/metrics", get(page))).await
    };
    tokio::select! {
        done = calls => done.map_err(io::Error::other),
        done = page => done,
    }
}

/// Bytes of a call at most.
const MESSAGE: usize = 64 * 1024;
/// Descriptors of a call at most.
const DESCRIPTORS: usize = 64;

/// The call, answered from a store.
#[derive(Clone, Debug)]
pub struct RateLimits {
    store: Arc<Store>,
    counts: Counts,
    /// Whoever calls has to say who it is; `None` where everybody may count.
    callers: Option<Arc<Callers>>,
}

impl RateLimits {
    pub fn new(store: Arc<Store>, counts: Counts) -> Self {
        Self { store, counts, callers: None }
    }

    /// The same for a port where callers count for their own namespace.
    pub fn admitting(&self, callers: Arc<Callers>) -> Self {
        Self { callers: Some(callers), ..self.clone() }
    }

    pub fn service(self) -> RateLimitServiceServer<Self> {
        RateLimitServiceServer::new(self).max_decoding_message_size(MESSAGE)
    }

    async fn answer(&self, request: Request<RateLimitRequest>) -> Result<RateLimitResponse, Status> {
        let namespace = match &self.callers {
            Some(callers) => Some(callers.namespace(request.metadata(), request.remote_addr()).await?),
            None => None,
        };
        let request = request.into_inner();
        if request.domain.is_empty() || request.descriptors.is_empty() {
            return Err(Status::invalid_argument("domain and descriptors are required"));
        }
        if request.descriptors.len() > DESCRIPTORS {
            return Err(Status::invalid_argument(format!("more than {DESCRIPTORS} descriptors")));
        }
        let mut asks = Vec::new();
        for descriptor in &request.descriptors {
            asks.extend(ask(namespace.as_deref().unwrap_or_default(), &request, descriptor)?);
        }
        let answers = match asks.is_empty() {
            true => Vec::new(),
            // Whether to go on without an answer is for the caller to say.
            false => self.store.take(&asks).await.map_err(|error| {
                tracing::warn!(%error, "a limit could not be counted");
                Status::unavailable(error.to_string())
            })?,
        };
        let mut counted = asks.iter().zip(answers);
        let mut statuses = Vec::with_capacity(request.descriptors.len());
        for descriptor in &request.descriptors {
            let Some(limit) = &descriptor.limit else {
                statuses.push(DescriptorStatus { code: Code::Ok as i32, ..DescriptorStatus::default() });
                continue;
            };
            let Some((_, answer)) = counted.next() else {
                return Err(Status::internal("the store answered less than it was asked"));
            };
            let unit = unit_of(limit.unit)?;
            statuses.push(DescriptorStatus {
                code: if answer.fits { Code::Ok } else { Code::OverLimit } as i32,
                current_limit: Some(RateLimit {
                    name: String::new(),
                    requests_per_unit: limit.requests_per_unit,
                    unit: unit.0 as i32,
                }),
                limit_remaining: answer.remaining,
                duration_until_reset: Some(pb::Duration {
                    seconds: i64::try_from(answer.reset / 1_000).unwrap_or(i64::MAX),
                    nanos: (answer.reset % 1_000) as i32 * 1_000_000,
                }),
                quota: None,
            });
        }
        let over = statuses.iter().any(|status| status.code == Code::OverLimit as i32);
        let overall_code = if over { Code::OverLimit } else { Code::Ok } as i32;
        Ok(RateLimitResponse { overall_code, statuses, ..RateLimitResponse::default() })
    }
}

#[tonic::async_trait]
impl RateLimitService for RateLimits {
    async fn should_rate_limit(
        &self,
        request: Request<RateLimitRequest>,
    ) -> Result<Response<RateLimitResponse>, Status> {
        let answer = self.answer(request).await;
        self.counts.keys.set(self.store.keys());
        let count = match &answer {
            Ok(answer) if answer.overall_code == Code::OverLimit as i32 => &self.counts.over_limit,
            Ok(_) => &self.counts.ok,
            Err(status) if status.code() == tonic::Code::Unavailable => &self.counts.unavailable,
            Err(_) => &self.counts.refused,
        };
        count.inc();
        let mut response = Response::new(answer?);
        response.metadata_mut().insert(TAKES_BACK, MetadataValue::from_static("true"));
        Ok(response)
    }
}

/// What a descriptor asks for; `None` where nothing limits it.
fn ask(
    namespace: &str,
    request: &RateLimitRequest,
    descriptor: &RateLimitDescriptor,
) -> Result<Option<(String, Ask)>, Status> {
    let Some(limit) = &descriptor.limit else { return Ok(None) };
    let (_, unit) = unit_of(limit.unit)?;
    let hits = match &descriptor.hits_addend {
        Some(own) => i64::try_from(own.value).ok().filter(|hits| *hits <= i64::from(u32::MAX)),
        // By default a call counts once.
        None => Some(i64::from(request.hits_addend.max(1))),
    };
    let hits = hits.ok_or_else(|| Status::invalid_argument("hits_addend is more than 4294967295"))?;
    let hits = if descriptor.is_negative_hits { -hits } else { hits };
    Ok(Some((
        key(namespace, &request.domain, descriptor, unit),
        Ask { limit: limit.requests_per_unit, unit, hits },
    )))
}

/// What a descriptor is counted by: what it says, hashed, so that nobody reads it in the store. The limit may change while it is counted, its unit may not.
fn key(namespace: &str, domain: &str, descriptor: &RateLimitDescriptor, unit: u64) -> String {
    let mut hash = Sha256::new();
    let entries = descriptor.entries.iter().flat_map(|entry| [&entry.key, &entry.value]);
    for part in [namespace, domain].into_iter().chain(entries.map(String::as_str)) {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.update(unit.to_be_bytes());
    let mut key = String::from("outrigger:limit:");
    for byte in &hash.finalize()[..16] {
        let _ = write!(key, "{byte:02x}");
    }
    key
}

/// A unit in the words of an answer, and in milliseconds. A month has 30 days and a year 365.
fn unit_of(unit: i32) -> Result<(rate_limit::Unit, u64), Status> {
    const SECOND: u64 = 1_000;
    const DAY: u64 = 24 * 3_600 * SECOND;
    Ok(match RateLimitUnit::try_from(unit) {
        Ok(RateLimitUnit::Second) => (rate_limit::Unit::Second, SECOND),
        Ok(RateLimitUnit::Minute) => (rate_limit::Unit::Minute, 60 * SECOND),
        Ok(RateLimitUnit::Hour) => (rate_limit::Unit::Hour, 3_600 * SECOND),
        Ok(RateLimitUnit::Day) => (rate_limit::Unit::Day, DAY),
        Ok(RateLimitUnit::Month) => (rate_limit::Unit::Month, 30 * DAY),
        Ok(RateLimitUnit::Year) => (rate_limit::Unit::Year, 365 * DAY),
        Ok(RateLimitUnit::Unknown) | Err(_) => {
            return Err(Status::invalid_argument(format!("unit {unit} is not known")));
        }
    })
}
