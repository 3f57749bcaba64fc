//! Why no endpoint was chosen.

use std::fmt;

use super::EndpointSet;
use crate::upstream::Usable;

/// No endpoint may get a request: how many there are, and why each of them may not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoEndpoint {
    /// Whether the endpoints of the cluster were received at all.
    known: bool,
    total: usize,
    /// The first few.
    unusable: Vec<(String, Usable)>,
}

impl NoEndpoint {
    pub(in crate::upstream) fn of(set: &EndpointSet, known: bool) -> Self {
        let unusable = set
            .iter()
            .take(SHOWN)
            .map(|endpoint| (endpoint.address.to_string(), endpoint.usable()))
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
        for (index, (address, usable)) in self.unusable.iter().enumerate() {
            let why = match usable {
                Usable::Yes => "became usable just now",
                Usable::Draining => "is draining",
                Usable::NotReady => "is not ready",
                Usable::FailsChecks => "fails its health checks",
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
