//! Connections that are accepted slowly: the caller stands at the door before anybody asks who it is.

use std::time::Duration;

use outrigger_config::model::FaultEffect;
use outrigger_config::model::access::Caller;
use tokio::time::sleep;

use super::{Busy, Faults, Kind};
use crate::downstream::Arrival;
use crate::drain::{Phase, Watch};

/// How long a new connection waits.
#[derive(Debug)]
pub struct Slow {
    pub wait: Duration,
    /// `NAMESPACE/POLICY FAULT`, of the last one that hit.
    pub name: String,
    _busy: Vec<Busy>,
}

impl Slow {
    /// Waits. Whether there is still somebody to serve it then: a proxy that ends serves nobody.
    pub async fn over(self, mut drain: Watch) -> bool {
        tokio::select! {
            () = sleep(self.wait) => true,
            () = drain.reached(Phase::Ended) => false,
        }
    }
}

impl Faults {
    /// What a connection waits for before its first byte is read; `None`: nothing.
    pub fn accept(&self, arrival: &Arrival) -> Option<Slow> {
        let caller = Caller { identity: None, address: arrival.peer.address.ip().to_canonical() };
        let mut slow: Option<Slow> = None;
        for experiment in self.experiments.iter().filter(|experiment| experiment.is_active()) {
            for (index, fault) in experiment.model.faults.iter().enumerate() {
                let FaultEffect::SlowAccept(delay) = &fault.effect else { continue };
                if !fault.concerns(caller, None) {
                    continue;
                }
                let mut throw = experiment.throw(index);
                if !throw.hits(fault.share) {
                    continue;
                }
                let Some(busy) = experiment.enter(index) else { continue };
                experiment.count(index, Kind::Accept, arrival.worker.id);
                let slow = slow.get_or_insert_with(|| Slow {
                    wait: Duration::ZERO,
                    name: String::new(),
                    _busy: Vec::new(),
                });
                slow.wait += throw.delay(*delay);
                slow.name = format!("{} {}", experiment.model.policy(), fault.name);
                slow._busy.push(busy);
            }
        }
        slow
    }
}
