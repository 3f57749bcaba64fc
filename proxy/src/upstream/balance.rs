//! Choosing an endpoint among those of a cluster.
//!
//! Owns the algorithms, one variant each, and the immutable set of endpoints they choose from. Takes no lock and allocates
//! nothing. Never keeps state of its own: what is known about an endpoint stands in the endpoint, shared by all workers.

use std::fmt;
use std::sync::Arc;

use outrigger_config::model::Health;
use rand::RngExt;
use rand::rngs::SmallRng;
use tokio::time::Instant;

use super::{Endpoint, EndpointId};

/// How an endpoint is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// Two are drawn by weight, the one expected to cost less gets the request: finds the fast ones without herding to
    /// the one fastest, as choosing the minimum does.
    PowerOfTwoChoices,
}

/// The endpoints of a cluster at one time.
#[derive(Debug, Default)]
pub struct EndpointSet {
    all: Box<[Arc<Endpoint>]>,
    /// Indices into `all` of those that may get something new: the healthy ones, or, where none is, the draining ones.
    usable: Box<[u32]>,
    /// Running sums of the weights of `usable`; empty where all weights are equal.
    weights: Box<[u64]>,
    /// Those that are ejected, and wait for a probe.
    out: Box<[u32]>,
}

impl EndpointSet {
    /// `enforced`: whether those that are ejected get nothing.
    pub(super) fn new(all: Vec<Arc<Endpoint>>, enforced: bool) -> Self {
        let those = |fit: &dyn Fn(&Endpoint) -> bool| -> Box<[u32]> {
            (0..).zip(&all).filter(|(_, endpoint)| fit(endpoint)).map(|(i, _)| i).collect()
        };
        let of = |health: Health| move |endpoint: &Endpoint| endpoint.health() == health;
        let out = those(&|endpoint| endpoint.breaker.is_out());
        let mut usable = match enforced && !out.is_empty() {
            true => those(&|endpoint| endpoint.health() == Health::Healthy && !endpoint.breaker.is_out()),
            false => those(&of(Health::Healthy)),
        };
        if usable.is_empty() {
            usable = those(&of(Health::Healthy));
        }
        if usable.is_empty() {
            usable = those(&of(Health::Draining));
        }
        let weight = |index: &u32| u64::from(all[*index as usize].weight());
        let equal = usable.windows(2).all(|pair| weight(&pair[0]) == weight(&pair[1]));
        let mut sum = 0;
        let weights = if equal {
            Box::default()
        } else {
            usable
                .iter()
                .map(|index| {
                    sum += weight(index);
                    sum
                })
                .collect()
        };
        Self { all: all.into(), usable, weights, out }
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Endpoint>> {
        self.all.iter()
    }

    pub fn len(&self) -> usize {
        self.all.len()
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Those that are ejected.
    pub(super) fn out(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.out.iter().map(|index| &self.all[*index as usize])
    }

    pub(super) fn has_out(&self) -> bool {
        !self.out.is_empty()
    }

    /// Whether one may get something new.
    pub fn is_usable(&self) -> bool {
        !self.usable.is_empty()
    }

    /// Avoids those in `avoid` while there is another one.
    pub(super) fn pick(
        &self,
        algorithm: Algorithm,
        now: Instant,
        rng: &mut SmallRng,
        avoid: &[EndpointId],
    ) -> Option<&Arc<Endpoint>> {
        match algorithm {
            Algorithm::PowerOfTwoChoices => self.power_of_two(now, rng, avoid),
        }
    }

    fn power_of_two(&self, now: Instant, rng: &mut SmallRng, avoid: &[EndpointId]) -> Option<&Arc<Endpoint>> {
        let first = self.draw(rng, avoid, None)?;
        let Some(second) = self.draw(rng, avoid, Some(first.id)) else { return Some(first) };
        // A tie goes to the first, which was drawn at random.
        Some(if second.cost(now) < first.cost(now) { second } else { first })
    }

    /// One endpoint by weight, neither `avoid`ed nor `other` while there is a third.
    fn draw(
        &self,
        rng: &mut SmallRng,
        avoid: &[EndpointId],
        other: Option<EndpointId>,
    ) -> Option<&Arc<Endpoint>> {
        let fits = |endpoint: &Arc<Endpoint>| Some(endpoint.id) != other && !avoid.contains(&endpoint.id);
        // One in two of two endpoints is the other one, so that drawing again seldom fails this often.
        for _ in 0..8 {
            let endpoint = self.draw_any(rng)?;
            if fits(endpoint) {
                return Some(endpoint);
            }
        }
        let begin = rng.random_range(0..self.usable.len());
        let from_anywhere =
            || self.usable[begin..].iter().chain(&self.usable[..begin]).map(|i| &self.all[*i as usize]);
        from_anywhere().find(|endpoint| fits(endpoint)).or_else(|| {
            // All are to be avoided: one of those is better than none, but no second one is worth looking for.
            if other.is_some() { None } else { from_anywhere().next() }
        })
    }

    fn draw_any(&self, rng: &mut SmallRng) -> Option<&Arc<Endpoint>> {
        let place = match self.weights.last() {
            _ if self.usable.is_empty() => return None,
            None => rng.random_range(0..self.usable.len()),
            Some(&total) => {
                let ticket = rng.random_range(0..total);
                self.weights.partition_point(|&sum| sum <= ticket)
            }
        };
        Some(&self.all[self.usable[place] as usize])
    }
}

/// No endpoint may get a request: how many there are, and why each of them may not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoEndpoint {
    /// Whether the endpoints of the cluster were received at all.
    known: bool,
    total: usize,
    /// The first few.
    unusable: Vec<(String, Health)>,
}

impl NoEndpoint {
    pub(super) fn of(set: &EndpointSet, known: bool) -> Self {
        let unusable = set
            .iter()
            .take(SHOWN)
            .map(|endpoint| (endpoint.address.to_string(), endpoint.health()))
            .collect();
        Self { known, total: set.len(), unusable }
    }
}

/// Endpoints named in a [`NoEndpoint`]: enough to know where to look, bounded for a service of thousands.
const SHOWN: usize = 4;

impl fmt::Display for NoEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.known {
            return f.write_str("its endpoints are not known yet");
        }
        match self.total {
            0 => return f.write_str("it has no endpoints"),
            1 => f.write_str("its one endpoint is not usable")?,
            n => write!(f, "none of its {n} endpoints is usable")?,
        }
        for (index, (address, health)) in self.unusable.iter().enumerate() {
            let why = match health {
                Health::Healthy => "became usable just now",
                Health::Draining => "is draining",
                Health::Unhealthy => "is not ready",
            };
            write!(f, "{}{address} {why}", if index == 0 { ": " } else { ", " })?;
        }
        match self.total.saturating_sub(self.unusable.len()) {
            0 => Ok(()),
            more => write!(f, ", and {more} more"),
        }
    }
}

impl std::error::Error for NoEndpoint {}
