//! Some are drawn by weight, the one with the fewest requests for its weight gets the next.

use std::sync::Arc;

use outrigger_config::model::Algorithm;
use rand::rngs::SmallRng;
use smallvec::SmallVec;

use super::Pool;
use super::group::Fits;
use crate::upstream::{Endpoint, EndpointId};

/// What is drawn stands on the stack.
const MOST: usize = Algorithm::MAX_CHOICES as usize;

pub(super) fn choose<'s>(
    pool: &Pool<'s>,
    choices: u8,
    fits: &Fits<'_>,
    rng: &mut SmallRng,
) -> Option<&'s Arc<Endpoint>> {
    let mut best = pool.draw(fits, rng)?;
    let load = |endpoint: &Endpoint| endpoint.load(endpoint.part(pool.slow_start, pool.now));
    let draws = usize::from(choices).min(pool.group.members.len());
    let mut drawn: SmallVec<[EndpointId; MOST]> = SmallVec::from_slice(&[best.id]);
    while drawn.len() < draws {
        let other = |endpoint: &Endpoint| !drawn.contains(&endpoint.id) && fits(endpoint);
        let Some(next) = pool.draw(&other, rng) else { break };
        drawn.push(next.id);
        // A tie goes to the earlier, which was drawn at random.
        if load(next) < load(best) {
            best = next;
        }
    }
    Some(best)
}
