//! Who may count, where callers have to say who they are.
//!
//! Owns what is remembered of judged tokens: a proxy asks many times a second, and judging a token takes longer than counting. What a caller counts is its
//! namespace's own, so that nobody uses up the limits of others.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use outrigger_config::xds::certificates::bearer;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use tonic::Status;
use tonic::metadata::MetadataMap;

use crate::ca::Admission;

#[derive(Debug)]
pub struct Callers {
    admission: Arc<Admission>,
    judged: Mutex<HashMap<[u8; 32], Judged>>,
}

#[derive(Debug)]
struct Judged {
    namespace: Arc<str>,
    until: Instant,
}

/// How long a judgement is believed, and so how long a token may outlive its end here.
const BELIEVED: Duration = Duration::from_secs(60);
/// Tokens remembered; 100 bytes each.
const MOST: usize = 40_000;

impl Callers {
    pub fn new(admission: Arc<Admission>) -> Self {
        Self { admission, judged: Mutex::default() }
    }

    /// The namespace of whoever calls.
    pub async fn namespace(
        &self,
        metadata: &MetadataMap,
        peer: Option<SocketAddr>,
    ) -> Result<Arc<str>, Status> {
        let token: Option<[u8; 32]> = bearer(metadata).map(|token| Sha256::digest(token).into());
        let now = Instant::now();
        if let Some(token) = &token
            && let Some(known) = self.judged.lock().get(token)
            && now < known.until
        {
            return Ok(known.namespace.clone());
        }
        let caller = self.admission.caller(metadata, peer).await.map_err(|why| {
            tracing::warn!(
                ?peer,
                reason = why.reason(),
                "a caller of the rate limit call was turned away: {why}"
            );
            why.status()
        })?;
        let namespace = caller.role.namespace().clone();
        if let Some(token) = token {
            let mut judged = self.judged.lock();
            if judged.len() >= MOST {
                judged.retain(|_, known| now < known.until);
            }
            if judged.len() < MOST {
                judged.insert(token, Judged { namespace: namespace.clone(), until: now + BELIEVED });
            }
        }
        Ok(namespace)
    }
}
