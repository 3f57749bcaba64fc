//! Two are drawn by weight, the one expected to cost less gets the request: finds the fast ones without herding to the one fastest, as
//! choosing the minimum does.

use std::sync::Arc;

use rand::rngs::SmallRng;

use super::Pool;
use super::group::Fits;
use crate::upstream::Endpoint;

pub(super) fn choose<'s>(pool: &Pool<'s>, fits: &Fits<'_>, rng: &mut SmallRng) -> Option<&'s Arc<Endpoint>> {
    let first = pool.draw(fits, rng)?;
    if pool.group.members.len() == 1 {
        return Some(first);
    }
    let other = |endpoint: &Endpoint| endpoint.id != first.id && fits(endpoint);
    let Some(second) = pool.draw(&other, rng) else { return Some(first) };
    let cost = |endpoint: &Endpoint, other: &Endpoint| {
        endpoint.cost(other, endpoint.part(pool.slow_start, pool.now), pool.now)
    };
    // A tie goes to the first, which was drawn at random.
    Some(if cost(second, first) < cost(first, second) { second } else { first })
}
