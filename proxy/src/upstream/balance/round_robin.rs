//! One after the other, by weight.
//!
//! A round is laid out when the endpoints change: each endpoint has places by its weight, spread evenly over the round, so that no endpoint gets
//! its whole share in a row.

use std::sync::Arc;

use rand::rngs::SmallRng;

use super::group::Fits;
use super::{Pool, Turn, next};
use crate::upstream::Endpoint;

/// Places of a round, each an index into the set.
#[derive(Debug, Default)]
pub(super) struct Round(Box<[u32]>);

/// Places an endpoint has on average at most, which bounds how exactly a round shows weights.
const PLACES: u64 = 32;

impl Round {
    pub(super) fn new(all: &[Arc<Endpoint>], members: &[u32]) -> Self {
        let weight = |index: &u32| u64::from(all[*index as usize].weight());
        let divisor = members.iter().map(weight).fold(0, gcd).max(1);
        let total: u64 = members.iter().map(|index| weight(index) / divisor).sum();
        let most = PLACES * members.len() as u64;
        let places = |index: &u32| {
            let exact = weight(index) / divisor;
            if total <= most { exact } else { (exact * most / total).max(1) }
        };
        let mut round: Vec<(f64, u32)> = members
            .iter()
            .flat_map(|index| {
                let places = places(index);
                (0..places).map(move |place| ((place as f64 + 0.5) / places as f64, *index))
            })
            .collect();
        round.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        Self(round.into_iter().map(|(_, index)| index).collect())
    }
}

/// Turns that are let pass at most before anyone is taken.
const PASSES: usize = 64;

pub(super) fn choose<'s>(
    pool: &Pool<'s>,
    turn: &Turn,
    fits: &Fits<'_>,
    rng: &mut SmallRng,
) -> Option<&'s Arc<Endpoint>> {
    let round = &pool.group.round.0;
    if round.is_empty() {
        return None;
    }
    for _ in 0..PASSES {
        let endpoint = &pool.all[round[(next(turn) % round.len() as u64) as usize] as usize];
        if fits(endpoint) && pool.takes_turn(endpoint, rng) {
            return Some(endpoint);
        }
    }
    pool.any(fits, rng)
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
