//! Faults of connections that carry anything but HTTP.

use std::sync::Arc;

use http::HeaderMap;
use outrigger_config::model::FaultEnd;
use smallvec::SmallVec;
use tokio::time::{Instant, sleep_until};

use super::shape::{Flow, Shape};
use super::{Asked, Busy, Faults, Hit};
use crate::downstream::Arrival;
use crate::failure::{Failure, Reason};
use crate::telemetry::Record;

/// What is to be done to a connection that is let go on.
#[derive(Debug)]
pub struct Connected {
    /// Reset both sides as soon as it stands.
    pub reset: Option<Failure>,
    /// How its bytes reach the caller.
    pub flow: Option<Box<Flow>>,
    /// Faults have their hand in it until it is over.
    pub busy: SmallVec<[Busy; 1]>,
}

impl Faults {
    /// What happens to a connection before anybody is dialled for it, or to one attempt to dial. `Err`: it is as if nobody listened.
    pub async fn connection(
        self: &Arc<Self>,
        arrival: &Arrival,
        record: &mut Record,
    ) -> Result<Option<Box<Connected>>, Failure> {
        let headers = HeaderMap::new();
        let asked = Asked {
            request: None,
            headers: &headers,
            peer: &arrival.peer,
            direction: arrival.direction,
            worker: &arrival.worker,
        };
        let Some(hit) = self.throw(&asked) else { return Ok(None) };
        record.fault(&hit.name);
        if !hit.delay.is_zero() {
            sleep_until(Instant::now() + hit.delay).await;
        }
        if hit.end == Some(FaultEnd::Refuse) {
            return Err(hit.failure(Reason::FaultRefused));
        }
        Ok(Some(Box::new(hit.connected())))
    }
}

impl Hit {
    fn connected(self) -> Connected {
        let reset = (self.end == Some(FaultEnd::Reset)).then(|| self.failure(Reason::FaultReset));
        let shaped = self.shape != Shape::default();
        let flow = shaped.then(|| Box::new(Flow::new(self.shape)));
        Connected { reset, flow, busy: self.busy }
    }
}
