//! Servers of the rate limit call, `envoy.service.ratelimit.v3.RateLimitService`, and the one connection to each.
//!
//! Owns what is known of a server's state: one that does not answer is asked now and then and fails all other questions at once, so that nobody waits for it.
//! Never decides what becomes of a request.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;

use outrigger_config::model::LimitServer;
use outrigger_config::xds::pb::ratelimit::rate_limit_response::Code;
use outrigger_config::xds::pb::ratelimit::rate_limit_service_client::RateLimitServiceClient;
use outrigger_config::xds::pb::ratelimit::{RateLimitRequest, RateLimitResponse};
use outrigger_config::xds::pb::ratelimit_descriptor::RateLimitDescriptor;
use outrigger_config::xds::rate_limit::TAKES_BACK;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tonic::Request;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;

use super::door::{Door, Through};
use crate::discovery::Dial;
use crate::dns::Resolver;

/// All that are known, made when a limit first names them; those that no limit names any more are forgotten.
#[derive(Debug)]
pub struct Servers {
    dns: Arc<Resolver>,
    /// The control plane; `None` where the configuration is read from files.
    home: Option<(Vec<Arc<str>>, Dial)>,
    /// For those that are named.
    through: Option<Through>,
    known: Mutex<HashMap<Option<Arc<str>>, Weak<Server>>>,
    runtime: tokio::runtime::Handle,
}

impl Servers {
    /// Has to be called on the background runtime, which the connections live on.
    pub fn new(dns: Arc<Resolver>, home: Option<(Vec<Arc<str>>, Dial)>) -> Self {
        let runtime = tokio::runtime::Handle::current();
        Self { dns, home, through: None, known: Mutex::default(), runtime }
    }

    /// The same, with those the mesh has called through it.
    pub fn through(self, through: Option<Through>) -> Self {
        Self { through, ..self }
    }

    pub(super) fn runtime(&self) -> tokio::runtime::Handle {
        self.runtime.clone()
    }

    pub(super) fn of(&self, wanted: &LimitServer) -> Arc<Server> {
        let mut known = self.known.lock();
        if let Some(server) = known.get(&wanted.address).and_then(Weak::upgrade) {
            return server;
        }
        known.retain(|_, server| server.strong_count() > 0);
        let (addresses, dial) = match (&wanted.address, &self.home) {
            (Some(address), _) => (vec![address.clone()], Dial { dns: self.dns.clone(), secure: None }),
            (None, Some((addresses, dial))) => (addresses.clone(), dial.clone()),
            (None, None) => {
                tracing::warn!(
                    "a limit is to be counted by the control plane, and this proxy has none: name a server in rateLimit.server"
                );
                (Vec::new(), Dial { dns: self.dns.clone(), secure: None })
            }
        };
        let through = wanted.address.as_ref().and(self.through.clone());
        let server = Arc::new(Server::new(&addresses, Door { dial, through }, &self.runtime));
        known.insert(wanted.address.clone(), Arc::downgrade(&server));
        server
    }
}

/// One server, or several that count together.
#[derive(Debug)]
pub struct Server {
    replicas: Vec<(Arc<str>, RateLimitServiceClient<Channel>)>,
    dial: Dial,
    /// Which of them is asked. The same at all proxies as long as it answers: each may count in its own memory.
    current: AtomicUsize,
    /// When the first is tried again, in milliseconds since `born`.
    back_from: AtomicU64,
    /// Questions in a row without an answer.
    failures: AtomicU32,
    /// Until then nothing is asked, in milliseconds since `born`.
    away_until: AtomicU64,
    /// It was one of ours that answered last.
    takes_back: AtomicBool,
    signature: Mutex<Option<(Instant, MetadataMap)>>,
    places: Semaphore,
    born: Instant,
}

/// Questions at a time. More than that wait for a server that is too slow for them.
const PLACES: usize = 1_024;
/// So many questions in a row without an answer, and nobody waits for it.
const PATIENCE: u32 = 3;
/// Milliseconds from one question to the next while it is away.
const PAUSE: u64 = 250;
/// Milliseconds after which the first replica is tried again.
const RETURN: u64 = 10_000;
/// How long a token is shown before it is read again.
const SIGNED: Duration = Duration::from_secs(10);

/// What a server says of one descriptor. Times in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    pub fits: bool,
    pub remaining: u32,
    /// Until the unit ends, or until what was refused will be there.
    pub reset: u64,
    /// It is one of ours, which takes unused hits back.
    pub takes_back: bool,
}

/// It did not answer.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    #[error("no server is known")]
    Nowhere,
    #[error("it does not answer")]
    Away,
    #[error("{PLACES} questions are open")]
    Busy,
    #[error("no answer within {0:?}")]
    Late(Duration),
    #[error("{0}")]
    Failed(String),
}

impl Server {
    fn new(addresses: &[Arc<str>], door: Door, runtime: &tokio::runtime::Handle) -> Self {
        let _entered = runtime.enter();
        let client = |address: &Arc<str>| match Dial::endpoint(address) {
            Ok(endpoint) => {
                let channel = endpoint.connect_with_connector_lazy(door.clone());
                Some((
                    address.clone(),
                    RateLimitServiceClient::new(channel).max_decoding_message_size(MESSAGE),
                ))
            }
            Err(error) => {
                tracing::warn!(%error, "no limits are counted there");
                None
            }
        };
        Self {
            replicas: addresses.iter().filter_map(client).collect(),
            dial: door.dial,
            current: AtomicUsize::new(0),
            back_from: AtomicU64::new(0),
            failures: AtomicU32::new(0),
            away_until: AtomicU64::new(0),
            takes_back: AtomicBool::new(false),
            signature: Mutex::new(None),
            places: Semaphore::new(PLACES),
            born: Instant::now(),
        }
    }

    /// Asks about one descriptor, for at most `patience`.
    pub async fn ask(
        &self,
        domain: &str,
        descriptor: RateLimitDescriptor,
        patience: Duration,
    ) -> Result<Answer, Unanswered> {
        let Some((address, client)) = self.replica() else { return Err(Unanswered::Nowhere) };
        let Ok(_place) = self.places.try_acquire() else { return Err(Unanswered::Busy) };
        if !self.may_ask() {
            return Err(Unanswered::Away);
        }
        let answer = match self.call(client, domain, descriptor, patience).await {
            Ok(answer) => answer,
            Err(why) => {
                self.failed(address, &why);
                return Err(why);
            }
        };
        self.takes_back.store(answer.takes_back, Relaxed);
        if self.failures.swap(0, Relaxed) >= PATIENCE {
            self.away_until.store(0, Relaxed);
            tracing::info!(server = %address, "limits are counted again");
        }
        Ok(answer)
    }

    /// Whether it takes unused hits back, as far as is known.
    pub fn takes_back(&self) -> bool {
        self.takes_back.load(Relaxed)
    }

    async fn call(
        &self,
        client: &RateLimitServiceClient<Channel>,
        domain: &str,
        descriptor: RateLimitDescriptor,
        patience: Duration,
    ) -> Result<Answer, Unanswered> {
        let message =
            RateLimitRequest { domain: domain.to_owned(), descriptors: vec![descriptor], hits_addend: 0 };
        let mut request = Request::new(message);
        self.sign(&mut request).map_err(Unanswered::Failed)?;
        // So that it does not count what nobody waits for any more.
        request.set_timeout(patience);
        match timeout(patience, client.clone().should_rate_limit(request)).await {
            Ok(Ok(response)) => {
                let takes_back = response.metadata().contains_key(TAKES_BACK);
                Ok(read(&response.into_inner(), takes_back))
            }
            Ok(Err(status)) => Err(Unanswered::Failed(format!("{}: {}", status.code(), status.message()))),
            Err(_) => Err(Unanswered::Late(patience)),
        }
    }

    /// While it is away one question is asked now and then.
    fn may_ask(&self) -> bool {
        let (now, until) = (self.now(), self.away_until.load(Relaxed));
        until == 0
            || (now >= until
                && self.away_until.compare_exchange(until, now + PAUSE, Relaxed, Relaxed).is_ok())
    }

    fn failed(&self, address: &Arc<str>, why: &Unanswered) {
        let now = self.now();
        if self.replicas.len() > 1 {
            self.current.fetch_add(1, Relaxed);
            self.back_from.store(now + RETURN, Relaxed);
        }
        if self.failures.fetch_add(1, Relaxed) + 1 == PATIENCE {
            self.away_until.store(now + PAUSE, Relaxed);
            tracing::warn!(server = %address, error = %why, "limits are not counted for now");
        }
    }

    fn replica(&self) -> Option<&(Arc<str>, RateLimitServiceClient<Channel>)> {
        let mut current = self.current.load(Relaxed);
        if current > 0 && self.now() >= self.back_from.load(Relaxed) {
            self.current.store(0, Relaxed);
            current = 0;
        }
        let several = self.replicas.len().max(1);
        self.replicas.get(current % several)
    }

    fn sign<T>(&self, request: &mut Request<T>) -> Result<(), String> {
        let mut signature = self.signature.lock();
        match &*signature {
            Some((read, metadata)) if read.elapsed() < SIGNED => *request.metadata_mut() = metadata.clone(),
            _ => {
                self.dial.sign(request)?;
                *signature = Some((Instant::now(), request.metadata().clone()));
            }
        }
        Ok(())
    }

    /// Never 0.
    fn now(&self) -> u64 {
        1 + u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX - 1)
    }
}

/// Bytes of an answer at most.
const MESSAGE: usize = 64 * 1024;

fn read(response: &RateLimitResponse, takes_back: bool) -> Answer {
    let status = response.statuses.first();
    let over = response.overall_code == Code::OverLimit as i32
        || status.is_some_and(|status| status.code == Code::OverLimit as i32);
    let reset = status.and_then(|status| status.duration_until_reset.as_ref());
    let nanos = |reset: &outrigger_config::xds::pb::Duration| {
        let seconds = u64::try_from(reset.seconds).unwrap_or(0).min(LONGEST);
        seconds * 1_000_000_000 + u64::try_from(reset.nanos).unwrap_or(0)
    };
    Answer {
        fits: !over,
        remaining: status.map_or(0, |status| status.limit_remaining),
        // Who does not say when is asked again soon.
        reset: reset.map_or(1_000_000_000, nanos),
        takes_back,
    }
}

/// Seconds. No unit of the call is longer than a year, and none of ours than a day.
const LONGEST: u64 = 366 * 24 * 3_600;
