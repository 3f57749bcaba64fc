//! `adaptive` of `circuitBreaker` and of `concurrency`.

use crate::manifest::traffic_policy::AdaptiveSection;
use crate::manifest::value::Cap;
use crate::model::{Adaptive, BreakerMode, Origin};

pub(super) fn adaptive(manifest: AdaptiveSection, mode: BreakerMode, section: &Origin) -> Adaptive {
    let least = manifest.min_requests.map_or(Adaptive::DEFAULT_LEAST, Cap::get);
    Adaptive {
        mode,
        least,
        most: manifest.max_requests.map_or(Adaptive::DEFAULT_MOST.max(least), Cap::get),
        origin: Some(section.at(&format!("{}.adaptive", section.field))),
    }
}
