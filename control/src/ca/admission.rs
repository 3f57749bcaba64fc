//! Who calls, on the port where that has to be known.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use outrigger_config::xds::Role;
use outrigger_config::xds::certificates::bearer;
use tokio::time::Instant;
use tonic::metadata::MetadataMap;

use super::limit::{self, Limit};
use super::refusal::Refusal;
use super::token::{Caller, TokenReviewer};

/// Judges the tokens of calls, no more of them than one host may reasonably make.
#[derive(Debug)]
pub struct Admission {
    reviewer: Arc<dyn TokenReviewer>,
    hosts: Limit<IpAddr>,
}

/// A host has hundreds of proxies at the most, which all may begin at once and then ask once in hours, or in seconds in tests.
const HOST_RATE: f64 = 100.0;
const HOST_BURST: f64 = 1_000.0;

impl Admission {
    pub fn new(reviewer: Arc<dyn TokenReviewer>) -> Self {
        Self { reviewer, hosts: Limit::new(HOST_RATE, HOST_BURST) }
    }

    pub async fn caller(&self, metadata: &MetadataMap, peer: Option<SocketAddr>) -> Result<Caller, Refusal> {
        if let Some(peer) = peer
            && !self.hosts.admits(limit::host(peer.ip()), Instant::now())
        {
            return Err(Refusal::TooMany);
        }
        let token = bearer(metadata).ok_or(Refusal::NoToken)?;
        self.reviewer.review(token).await
    }
}

impl Caller {
    /// A proxy is told what its own workload or gateway may know, and nothing of another's.
    pub fn may_be(&self, role: &Role) -> Result<(), Refusal> {
        if self.role == *role {
            return Ok(());
        }
        let Self { role, .. } = self;
        Err(Refusal::OtherWorkload(format!("{}/{}", role.namespace(), role.name())))
    }
}
