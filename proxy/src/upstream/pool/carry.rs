//! HTTP/1.1 connections to an endpoint of the mesh that share one of HTTP/2, each a stream of it.
//!
//! Owns when that is worth it, and what becomes of an endpoint that does not know of it. Above a stream nothing is different from a connection of its
//! own: the codec, the pool and the exchange are those of HTTP/1.1.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, header};
use outrigger_config::model::Multiplex;
use tokio::time::Instant;

use super::super::RouteLimits;
use super::super::connect::Transport;
use super::super::http1::Http1;
use super::super::{Circuit, Cluster, Endpoint, http2};
use super::{Group, Home, MOVES, Pools};
use crate::body::Body;
use crate::failure::{Failure, Reason};
use crate::identity::Token;

/// Best first.
const OFFERED: &[Token] = &[Token::Carried, Token::Http11];

/// An endpoint that does not know of it is not asked again before.
const DECLINED: Duration = Duration::from_secs(60);

/// A request to an endpoint whose connections may be carried, until its answer begins.
pub(super) struct Carrier {
    group: Rc<Group>,
    /// It is worth it.
    wanted: bool,
}

impl Carrier {
    /// It is worth it, and the endpoint knows of it as far as is known.
    pub fn is_open(&self, now: Instant) -> bool {
        self.wanted && self.group.declined.get().is_none_or(|until| now >= until)
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        self.group.busy.ends();
    }
}

/// Whether so many requests go to an endpoint at a time that what they cost together is less than what each costs apart: then their frames share
/// records and system calls. Judged by each [`BLOCK`] of requests for the next: by how many of them were under way at a time, and by how soon they followed
/// each other, because those that wait for a slow app share nothing.
#[derive(Debug, Default)]
pub(super) struct Busy {
    in_flight: Cell<u32>,
    /// Of the block that goes on: when it began, its requests, and how many were under way as each of them began, in all.
    begun: Cell<Option<Instant>>,
    seen: Cell<u32>,
    sum: Cell<u32>,
    busy: Cell<bool>,
}

/// Requests that are judged together.
const BLOCK: u32 = 64;

/// So many under way at a time, and it begins; fewer than the second, and it ends. Measured: docs/performance.md.
const MANY: [u32; 2] = [6, 4];

/// A block that takes longer is one of few requests, or of a slow app.
const SOON: Duration = Duration::from_millis(16);

impl Busy {
    fn begins(&self, now: Instant) -> bool {
        let in_flight = self.in_flight.get() + 1;
        self.in_flight.set(in_flight);
        let begun = self.begun.get().unwrap_or(now);
        let (seen, sum) = (self.seen.get() + 1, self.sum.get() + in_flight);
        if seen < BLOCK {
            self.begun.set(Some(begun));
            self.seen.set(seen);
            self.sum.set(sum);
        } else {
            let many = MANY[usize::from(self.busy.get())];
            self.busy.set(sum >= many * BLOCK && now.duration_since(begun) <= SOON);
            self.begun.set(None);
            self.seen.set(0);
            self.sum.set(0);
        }
        self.busy.get()
    }

    fn ends(&self) {
        self.in_flight.set(self.in_flight.get() - 1);
    }
}

impl Pools {
    /// What may carry a request, if anything may.
    pub(super) fn carrier(
        &self,
        cluster: &Cluster,
        endpoint: &Endpoint,
        multiplex: Multiplex,
        request: &Request<Body>,
        now: Instant,
    ) -> Option<Carrier> {
        if multiplex == Multiplex::Never || !endpoint.meshed || endpoint.identity.is_none() {
            return None;
        }
        // What leaves HTTP may last for hours and carry anything: it has a connection of its own.
        if request.method() == Method::CONNECT || request.headers().contains_key(header::UPGRADE) {
            return None;
        }
        let group = self.group(cluster, endpoint.id, OFFERED);
        let wanted = group.busy.begins(now) || multiplex == Multiplex::Always;
        Some(Carrier { group, wanted })
    }

    /// A new connection that another one carries. `None`: the endpoint does not know of that.
    pub(super) async fn open_carried(
        &self,
        carrier: &Carrier,
        cluster: &Arc<Cluster>,
        endpoint: &Arc<Endpoint>,
        route: Option<&Arc<RouteLimits>>,
    ) -> Result<Option<Http1>, Failure> {
        let group = &carrier.group;
        for _ in 0..MOVES {
            let slot = match group.free_slot() {
                Some(slot) => slot,
                None => match self.slot(group, cluster, endpoint, route).await? {
                    Some(slot) => slot,
                    None => return Ok(None),
                },
            };
            if let Ok(stream) = http2::carry(slot, endpoint).await {
                let home = self.home(cluster, endpoint, true);
                return Ok(Some(self.over(Transport::carried(stream), home, cluster)));
            }
        }
        let detail = format!("{} closes every connection before it takes a request", endpoint.address);
        Err(Failure::new(Reason::UpstreamReset, detail))
    }

    fn over(&self, transport: Transport, home: Home, cluster: &Cluster) -> Http1 {
        let most = cluster.circuit().rules().caps.requests_per_connection.unwrap_or(u32::MAX);
        Http1::over(transport, Rc::clone(&self.spare), home, most)
    }

    fn home(&self, cluster: &Cluster, endpoint: &Endpoint, carried: bool) -> Home {
        let circuit = cluster.circuit();
        let circuit = (circuit.most_connections() != u32::MAX).then(|| Arc::clone(circuit));
        Home { pools: self.me.clone(), endpoint: endpoint.id, circuit, carried }
    }

    /// The endpoint took HTTP/1.1: the connection is used for that.
    pub(super) fn decline(
        &self,
        group: &Group,
        cluster: &Cluster,
        endpoint: &Endpoint,
        transport: Transport,
    ) {
        group.declined.set(Some(Instant::now() + DECLINED));
        let home = self.home(cluster, endpoint, false);
        let connection = self.over(transport, home.clone(), cluster);
        home.keep(connection, cluster.settings().idle_timeout);
    }

    /// Closes a connection that carries others, and those of them that nobody uses.
    pub(super) fn close_carrier(&self, circuit: &Arc<Circuit>) -> bool {
        let carriers = self.carriers.borrow();
        let of_circuit = |group: &&Rc<Group>| Arc::ptr_eq(&group.circuit, circuit);
        let found = carriers.iter().find(|(_, group)| of_circuit(group) && group.give_up(|_| true));
        if let Some((endpoint, _)) = found {
            self.carried.borrow_mut().remove(endpoint);
        }
        found.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a request is carried, after some that followed each other so soon and were so many at a time.
    fn busy_after(busy: &Busy, requests: u32, at_a_time: u32, apart: Duration) -> bool {
        let mut now = Instant::now();
        let mut carried = false;
        for _ in 0..requests {
            now += apart;
            carried = busy.begins(now);
            if busy.in_flight.get() >= at_a_time {
                busy.ends();
            }
        }
        while busy.in_flight.get() > 0 {
            busy.ends();
        }
        carried
    }

    #[test]
    fn many_requests_in_a_short_time_are_carried_and_no_others() {
        let (soon, late) = (Duration::from_micros(50), Duration::from_millis(1));
        for (at_a_time, apart, want) in [
            (64, soon, true),
            (3, soon, false),
            // They wait for a slow app, and share nothing.
            (64, late, false),
        ] {
            assert_eq!(
                busy_after(&Busy::default(), 4 * BLOCK, at_a_time, apart),
                want,
                "{at_a_time}, {apart:?}"
            );
        }
    }

    #[test]
    fn what_is_between_the_bounds_stays_as_it_was() {
        let (busy, soon) = (Busy::default(), Duration::from_micros(50));
        let between = MANY[1].midpoint(MANY[0]);
        assert!(!busy_after(&busy, 4 * BLOCK, between, soon));
        assert!(busy_after(&busy, 4 * BLOCK, 2 * MANY[0], soon));
        assert!(busy_after(&busy, 4 * BLOCK, between, soon));
        assert!(!busy_after(&busy, 4 * BLOCK, MANY[1] / 2, soon));
    }
}
