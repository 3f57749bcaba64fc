//! Endpoints drawn by weight.

use std::sync::Arc;

use outrigger_config::model::SlowStart;
use rand::RngExt;
use rand::rngs::SmallRng;
use tokio::time::Instant;

use super::Pool;
use super::round_robin::Round;
use crate::upstream::Endpoint;

/// Whether an endpoint may be the one.
pub(super) type Fits<'f> = dyn Fn(&Endpoint) -> bool + 'f;

/// Some of the endpoints of a set.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// Indices into the set.
    pub members: Box<[u32]>,
    /// Running sums of the weights of `members`; empty where all weights are equal.
    sums: Box<[u64]>,
    pub round: Round,
}

impl Group {
    pub(super) fn new(all: &[Arc<Endpoint>], members: Vec<u32>, in_rounds: bool) -> Self {
        let weight = |index: &u32| u64::from(all[*index as usize].weight());
        let equal = members.windows(2).all(|pair| weight(&pair[0]) == weight(&pair[1]));
        let mut sum = 0;
        let sums = if equal {
            Box::default()
        } else {
            members
                .iter()
                .map(|index| {
                    sum += weight(index);
                    sum
                })
                .collect()
        };
        let round = if in_rounds { Round::new(all, &members) } else { Round::default() };
        Self { members: members.into(), sums, round }
    }

    /// One by weight.
    fn draw(&self, rng: &mut SmallRng) -> Option<u32> {
        let place = match self.sums.last() {
            _ if self.members.is_empty() => return None,
            None => rng.random_range(0..self.members.len()),
            Some(&total) => {
                let ticket = rng.random_range(0..total);
                self.sums.partition_point(|&sum| sum <= ticket)
            }
        };
        Some(self.members[place])
    }
}

impl<'s> Pool<'s> {
    /// One by weight, and by what a new one may have of its share.
    pub(super) fn draw(&self, fits: &Fits<'_>, rng: &mut SmallRng) -> Option<&'s Arc<Endpoint>> {
        // One in two of two endpoints is the other one, so that drawing again seldom fails this often.
        for _ in 0..8 {
            let endpoint = &self.all[self.group.draw(rng)? as usize];
            if fits(endpoint) && self.takes_turn(endpoint, rng) {
                return Some(endpoint);
            }
        }
        self.any(fits, rng)
    }

    /// Whichever fits, looked for from anywhere.
    pub(super) fn any(&self, fits: &Fits<'_>, rng: &mut SmallRng) -> Option<&'s Arc<Endpoint>> {
        let members = &self.group.members;
        if members.is_empty() {
            return None;
        }
        let begin = rng.random_range(0..members.len());
        let from_anywhere = members[begin..].iter().chain(&members[..begin]);
        from_anywhere.map(|index| &self.all[*index as usize]).find(|endpoint| fits(endpoint))
    }

    pub(super) fn takes_turn(&self, endpoint: &Endpoint, rng: &mut SmallRng) -> bool {
        takes_turn(endpoint, self.slow_start, self.now, rng)
    }
}

/// An endpoint that is new, or was ejected until a moment ago, lets a part of its turns pass.
pub(super) fn takes_turn(
    endpoint: &Endpoint,
    slow_start: Option<SlowStart>,
    now: Instant,
    rng: &mut SmallRng,
) -> bool {
    let part = endpoint.part(slow_start, now);
    part >= 1.0 || rng.random::<f32>() < part
}
