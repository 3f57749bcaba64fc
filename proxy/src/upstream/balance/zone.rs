//! Endpoints near the caller and the others, and how much goes to each.
//!
//! Requests stay near while enough of the near endpoints are usable. Each of them is taken to be able to carry 1.4 times its share (Envoy's
//! overprovisioning factor), so that the first requests leave when less than 5 of 7 are usable; then as many leave as the rest cannot carry, and all of them
//! where none is left. An endpoint is near by the hint of its EndpointSlice where all of them have one, and otherwise by its zone.

use std::sync::Arc;

use outrigger_config::model::Health;
use rand::RngExt;
use rand::rngs::SmallRng;

use super::group::Group;
use crate::upstream::Endpoint;

#[derive(Debug, Default)]
pub(super) struct Zones {
    near: Group,
    far: Group,
    /// Of the requests; 1 where zones do not matter.
    near_share: f32,
}

/// What an endpoint can carry of its own share of the load.
const OVERPROVISIONING: f32 = 1.4;

impl Zones {
    /// `own` is the caller's zone, where zones matter.
    pub(super) fn new(all: &[Arc<Endpoint>], usable: Vec<u32>, own: Option<&str>, in_rounds: bool) -> Self {
        let Some(own) = own else {
            return Self { near: Group::new(all, usable, in_rounds), far: Group::default(), near_share: 1.0 };
        };
        let hinted = all.iter().all(|endpoint| !endpoint.for_zones.is_empty())
            && all.iter().any(|endpoint| endpoint.is_for(own));
        let is_near = |endpoint: &Endpoint| match hinted {
            true => endpoint.is_for(own),
            false => endpoint.zone.as_deref() == Some(own),
        };
        let weight = |endpoint: &Arc<Endpoint>| u64::from(endpoint.weight());
        // One that drains is leaving: what it carried is not missing.
        let there = |endpoint: &&Arc<Endpoint>| is_near(endpoint) && endpoint.health() != Health::Draining;
        let capacity: u64 = all.iter().filter(there).map(weight).sum();
        let (near, far): (Vec<u32>, Vec<u32>) =
            usable.into_iter().partition(|index| is_near(&all[*index as usize]));
        let able: u64 = near.iter().map(|index| weight(&all[*index as usize])).sum();
        Self {
            near_share: match (near.is_empty(), far.is_empty()) {
                (_, true) => 1.0,
                (true, false) => 0.0,
                (false, false) => (OVERPROVISIONING * able as f32 / capacity.max(1) as f32).min(1.0),
            },
            near: Group::new(all, near, in_rounds),
            far: Group::new(all, far, in_rounds),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.near.members.is_empty() && self.far.members.is_empty()
    }

    /// The group this request goes to, and then the one it goes to where that has nobody for it.
    pub(super) fn groups(&self, rng: &mut SmallRng) -> [&Group; 2] {
        if self.near_share >= 1.0 || rng.random::<f32>() < self.near_share {
            [&self.near, &self.far]
        } else {
            [&self.far, &self.near]
        }
    }
}
