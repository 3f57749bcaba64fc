//! Choosing an endpoint among those of a cluster.
//!
//! Owns the immutable set of endpoints a choice is made from, with the tables its algorithm needs, made when the endpoints change; one file
//! an algorithm. A choice takes no lock and allocates nothing. Never keeps state of its own but the turn of a round: what is known about an
//! endpoint stands in the endpoint, shared by all workers.

pub mod affinity;
mod group;
mod least_request;
mod maglev;
mod no_endpoint;
mod peak_ewma;
mod ring_hash;
mod round_robin;
mod session;
mod zone;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::fast::RandomState;
use outrigger_config::model::{Algorithm, Balance, SlowStart};
use rand::rngs::SmallRng;
use tokio::time::Instant;

use super::endpoint::Usable;
use super::{Endpoint, EndpointId};
use group::{Fits, Group, takes_turn};
pub use no_endpoint::NoEndpoint;
use zone::Zones;

/// What a request wants of the endpoint it goes to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked<'a> {
    /// None of these while there is another one: earlier attempts failed there.
    pub avoid: &'a [EndpointId],
    /// Where the algorithm goes by one.
    pub hash: Option<u64>,
    /// The endpoint of the client's session.
    pub session: Option<u64>,
}

/// The endpoints of a cluster at one time.
#[derive(Debug, Default)]
pub struct EndpointSet {
    shared: Arc<Shared>,
    /// Those that get something new: the usable ones that are not ejected; or else all usable ones; or else those that drain.
    zones: Zones,
    /// Indices of those that are ejected, and wait for a probe.
    out: Box<[u32]>,
    /// Whether those get nothing.
    ejects: bool,
}

/// What stays the same while endpoints are only ejected and come back, which requests make happen: they may not pay for new tables.
#[derive(Debug, Default)]
struct Shared {
    all: Box<[Arc<Endpoint>]>,
    /// Indices into `all` of the usable ones, or, where none is, of those that drain; ejected or not.
    usable: Box<[u32]>,
    algorithm: Algorithm,
    own_zone: Option<Arc<str>>,
    slow_start: Option<SlowStart>,
    table: Table,
    /// Indices into `all` by the name an endpoint has in session cookies.
    sessions: HashMap<u64, u32, RandomState>,
}

/// What the algorithms that go by a hash look it up in.
#[derive(Debug, Default)]
enum Table {
    #[default]
    None,
    Ring(ring_hash::Ring),
    Maglev(maglev::Maglev),
}

/// Whose turn it is, counted by all workers together; outlives the sets.
pub type Turn = AtomicU64;

impl EndpointSet {
    /// `ejects`: whether those that are ejected get nothing.
    pub(super) fn new(all: Vec<Arc<Endpoint>>, balance: &Balance, ejects: bool) -> Self {
        let usable_as = |usable: Usable| -> Vec<u32> {
            (0..).zip(&all).filter(|(_, endpoint)| endpoint.usable() == usable).map(|(i, _)| i).collect()
        };
        let mut usable = usable_as(Usable::Yes);
        if usable.is_empty() {
            usable = usable_as(Usable::Draining);
        }
        let hashes = balance.algorithm.hashes();
        let table = match balance.algorithm {
            Algorithm::RingHash { min_size, max_size } => {
                Table::Ring(ring_hash::Ring::new(&all, &usable, min_size, max_size))
            }
            Algorithm::Maglev { table_size } => Table::Maglev(maglev::Maglev::new(&all, &usable, table_size)),
            Algorithm::PeakEwma
            | Algorithm::LeastRequest { .. }
            | Algorithm::RoundRobin
            | Algorithm::Random => Table::None,
        };
        let sessions = match &balance.session {
            Some(_) => usable.iter().map(|index| (session::name(&all[*index as usize]), *index)).collect(),
            None => HashMap::default(),
        };
        let shared = Shared {
            usable: usable.into(),
            algorithm: balance.algorithm,
            // Who wants the same endpoint every time wants it wherever it is, and at once.
            own_zone: balance.zone.clone().filter(|_| !hashes),
            slow_start: balance.slow_start.filter(|_| !hashes),
            table,
            sessions,
            all: all.into(),
        };
        Self::of(Arc::new(shared), ejects)
    }

    /// The same endpoints after one was ejected or came back.
    pub(super) fn regrouped(&self, ejects: bool) -> Self {
        Self::of(self.shared.clone(), ejects)
    }

    fn of(shared: Arc<Shared>, ejects: bool) -> Self {
        let Shared { all, usable, algorithm, own_zone, .. } = &*shared;
        let those = |fit: &dyn Fn(&Endpoint) -> bool, among: &mut dyn Iterator<Item = u32>| -> Vec<u32> {
            among.filter(|index| fit(&all[*index as usize])).collect()
        };
        let out = those(&|endpoint| endpoint.breaker.is_out(), &mut (0..all.len() as u32));
        let mut picked_from = those(&|endpoint| endpoint.may_be_picked(ejects), &mut usable.iter().copied());
        if picked_from.is_empty() {
            picked_from = usable.to_vec();
        }
        let in_rounds = *algorithm == Algorithm::RoundRobin;
        let zones = Zones::new(all, picked_from, own_zone.as_deref(), in_rounds);
        Self { zones, out: out.into(), ejects, shared }
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Endpoint>> {
        self.shared.all.iter()
    }

    /// Those that are ejected.
    pub(super) fn out(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.out.iter().map(|index| &self.shared.all[*index as usize])
    }

    pub(super) fn has_out(&self) -> bool {
        !self.out.is_empty()
    }

    pub fn len(&self) -> usize {
        self.shared.all.len()
    }

    pub fn is_empty(&self) -> bool {
        self.shared.all.is_empty()
    }

    /// Whether one may get something new.
    pub fn is_usable(&self) -> bool {
        !self.zones.is_empty()
    }

    /// One that fits all that is asked and may be picked; or else one that may be picked; or else, since all are equally bad, any.
    pub(super) fn pick(
        &self,
        asked: &Asked<'_>,
        turn: &Turn,
        now: Instant,
        rng: &mut SmallRng,
    ) -> Option<&Arc<Endpoint>> {
        let Shared { all, sessions, .. } = &*self.shared;
        let may = |endpoint: &Endpoint| endpoint.may_be_picked(self.ejects);
        let fits = |endpoint: &Endpoint| may(endpoint) && !asked.avoid.contains(&endpoint.id);
        if let Some(session) = asked.session
            && let Some(index) = sessions.get(&session)
            && let endpoint = &all[*index as usize]
            && fits(endpoint)
        {
            return Some(endpoint);
        }
        let found = self.choose(&fits, asked.hash, turn, now, rng);
        if found.is_some() || !self.is_usable() {
            return found;
        }
        let found = match asked.avoid.is_empty() {
            true => None,
            false => self.choose(&may, asked.hash, turn, now, rng),
        };
        found.or_else(|| self.choose(&|_: &Endpoint| true, asked.hash, turn, now, rng))
    }

    fn choose(
        &self,
        fits: &Fits<'_>,
        hash: Option<u64>,
        turn: &Turn,
        now: Instant,
        rng: &mut SmallRng,
    ) -> Option<&Arc<Endpoint>> {
        let Shared { all, algorithm, slow_start, table, .. } = &*self.shared;
        let at = |index: u32| &all[index as usize];
        let by_hash = |fits: &Fits<'_>| match (table, hash) {
            (Table::Ring(ring), Some(hash)) => ring.find(hash, |index| fits(at(index))),
            (Table::Maglev(table), Some(hash)) => table.find(hash, |index| fits(at(index))),
            (Table::None, _) | (_, None) => None,
        };
        if let Some(home) = by_hash(fits).map(at) {
            if takes_turn(home, None, now, rng) {
                return Some(home);
            }
            let other = |endpoint: &Endpoint| endpoint.id != home.id && fits(endpoint);
            return Some(by_hash(&other).map_or(home, at));
        }
        self.zones.groups(rng).into_iter().find_map(|group| {
            let pool = Pool { all, group, slow_start: *slow_start, now };
            match *algorithm {
                Algorithm::PeakEwma => peak_ewma::choose(&pool, fits, rng),
                Algorithm::LeastRequest { choices } => least_request::choose(&pool, choices, fits, rng),
                Algorithm::RoundRobin => round_robin::choose(&pool, turn, fits, rng),
                // Without a hash any endpoint is as good as another.
                Algorithm::Random | Algorithm::RingHash { .. } | Algorithm::Maglev { .. } => {
                    pool.draw(fits, rng)
                }
            }
        })
    }
}

/// What an algorithm chooses from.
struct Pool<'s> {
    all: &'s [Arc<Endpoint>],
    group: &'s Group,
    slow_start: Option<SlowStart>,
    now: Instant,
}

fn next(turn: &Turn) -> u64 {
    turn.fetch_add(1, Ordering::Relaxed)
}

impl<'a> From<&'a [EndpointId]> for Asked<'a> {
    fn from(avoid: &'a [EndpointId]) -> Self {
        Self { avoid, ..Self::default() }
    }
}

impl<'a> From<&'a Vec<EndpointId>> for Asked<'a> {
    fn from(avoid: &'a Vec<EndpointId>) -> Self {
        avoid.as_slice().into()
    }
}

impl<'a, const N: usize> From<&'a [EndpointId; N]> for Asked<'a> {
    fn from(avoid: &'a [EndpointId; N]) -> Self {
        avoid.as_slice().into()
    }
}

#[cfg(test)]
mod tests;
