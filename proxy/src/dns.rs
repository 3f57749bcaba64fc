//! Addresses of names outside the mesh.
//!
//! Owns the lookups, their cache (TTL obeyed, bounded) and the last good answer, which stands in while DNS does not answer.
//! One a proxy, shared by the workers; the queries run on the runtime it was given, so that a worker never waits for anything
//! but the answer. Names of the mesh never come here: their endpoints are pushed.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ResolverConfig, ResolverOpts};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use tokio::runtime::Handle;
use tokio::sync::OnceCell;
use tokio::time::Instant;

use crate::failure::{Failure, Reason};

#[derive(Debug)]
pub struct Resolver {
    source: Source,
    runtime: Handle,
    /// Made at the first lookup: most proxies never leave the mesh.
    client: OnceCell<Client>,
    last_good: Mutex<HashMap<Box<str>, Answer>>,
}

#[derive(Debug)]
enum Source {
    /// `/etc/resolv.conf` and `/etc/hosts`, as the apps beside us see them.
    System,
    Given(Box<(ResolverConfig, ResolverOpts)>),
}

struct Client(TokioResolver);

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

#[derive(Clone, Debug)]
struct Answer {
    addresses: Arc<[IpAddr]>,
    at: Instant,
}

impl Resolver {
    /// Asks the servers of `/etc/resolv.conf`, after `/etc/hosts`. Queries run on `runtime`.
    pub fn system(runtime: Handle) -> Arc<Self> {
        Self::new(Source::System, runtime)
    }

    /// Asks the given servers.
    pub fn with(config: ResolverConfig, options: ResolverOpts, runtime: Handle) -> Arc<Self> {
        Self::new(Source::Given(Box::new((config, options))), runtime)
    }

    fn new(source: Source, runtime: Handle) -> Arc<Self> {
        Arc::new(Self { source, runtime, client: OnceCell::new(), last_good: Mutex::default() })
    }

    /// All addresses of `host`, at least one; IPv6 first where both families have some. At most [`PATIENCE`].
    pub async fn addresses(self: &Arc<Self>, host: &str) -> Result<Arc<[IpAddr]>, Failure> {
        if let Ok(address) = host.parse() {
            return Ok([address].into());
        }
        let (resolver, name) = (Arc::clone(self), host.to_owned());
        // Not cut short when the request that asked is cancelled: the answer serves the next one.
        let lookup = self.runtime.spawn(async move {
            let answer = match tokio::time::timeout(PATIENCE, resolver.look_up(&name)).await {
                Ok(answer) => answer.map_err(|error| resolver.failed(&name, &error)),
                Err(_) => {
                    let detail = format!("{name}: no answer from DNS within {PATIENCE:?}");
                    Err(Failure::new(Reason::DnsFailed, detail))
                }
            };
            answer.or_else(|failure| resolver.fallback(&name).ok_or(failure))
        });
        lookup.await.unwrap_or_else(|error| Err(Failure::new(Reason::Internal, error.to_string())))
    }

    async fn look_up(&self, host: &str) -> Result<Arc<[IpAddr]>, NetError> {
        let client = self.client.get_or_try_init(|| async { self.connect() }).await?;
        let addresses: Arc<[IpAddr]> = client.0.lookup_ip(host).await?.iter().collect();
        if addresses.is_empty() {
            return Err(NetError::Message("it has no address"));
        }
        self.remember(host, &addresses);
        Ok(addresses)
    }

    fn connect(&self) -> Result<Client, NetError> {
        let mut builder = match &self.source {
            Source::System => TokioResolver::builder_tokio()?,
            Source::Given(given) => {
                TokioResolver::builder_with_config(given.0.clone(), TokioRuntimeProvider::default())
                    .with_options(given.1.clone())
            }
        };
        let options = builder.options_mut();
        options.cache_size = CACHED as u64;
        options.timeout = options.timeout.min(Duration::from_secs(2));
        // A name that appears is found soon, even where its zone says otherwise.
        options.negative_max_ttl = Some(Duration::from_secs(5));
        Ok(Client(builder.build()?))
    }

    fn remember(&self, host: &str, addresses: &Arc<[IpAddr]>) {
        let answer = Answer { addresses: Arc::clone(addresses), at: Instant::now() };
        let mut last_good = self.last_good.lock().unwrap_or_else(PoisonError::into_inner);
        if last_good.len() >= CACHED && !last_good.contains_key(host) {
            let oldest = last_good.iter().min_by_key(|(_, answer)| answer.at).map(|(host, _)| host.clone());
            oldest.map(|host| last_good.remove(&host));
        }
        last_good.insert(host.into(), answer);
    }

    /// The last good answer, unless DNS itself said since that the name is gone, or it is too old.
    fn fallback(&self, host: &str) -> Option<Arc<[IpAddr]>> {
        let last_good = self.last_good.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = last_good.get(host).filter(|answer| answer.at.elapsed() < STALE)?;
        Some(Arc::clone(&answer.addresses))
    }

    fn failed(&self, host: &str, error: &NetError) -> Failure {
        if error.is_nx_domain() || error.is_no_records_found() {
            self.last_good.lock().unwrap_or_else(PoisonError::into_inner).remove(host);
            return Failure::new(Reason::DnsFailed, format!("{host}: DNS knows no address of this name"));
        }
        Failure::new(Reason::DnsFailed, format!("{host}: {error}"))
    }
}

/// Longest that a lookup may take, all servers and attempts included.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// For how long an answer that cannot be renewed is used.
const STALE: Duration = Duration::from_secs(60 * 60);

/// Names kept, each with its addresses.
const CACHED: usize = 1024;

#[cfg(test)]
pub(crate) mod tests;
