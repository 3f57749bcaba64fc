//! Connections that are carried as bytes.
//!
//! Owns the choice of an endpoint and the record of the connection; `upstream::relay` carries.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use smallvec::SmallVec;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::Stream;
use super::connection::Arrival;
use super::counted::{Counted, Pauses};
use super::replay::Replay;
use crate::drain::Phase;
use crate::failure::{Failure, Reason};
use crate::mesh::{Backends, Destination};
use crate::policy::fault::Connected;
use crate::telemetry::{Direction, Record, Way};
use crate::upstream::connect::Transport;
use crate::upstream::relay::{Resettable, relay};
use crate::upstream::{Affinity, Asked, Cluster, EndpointId, Picked};

/// A connection to an endpoint, counted there until dropped.
#[derive(Debug)]
pub struct Dialled {
    transport: Transport,
    /// What is to go wrong with it on purpose, where a fault hit the attempt to dial.
    fault: Option<Box<Connected>>,
    _picked: Picked,
}

/// Attempts to connect after the first: a connection that does not stand has carried nothing.
const MORE: usize = 2;

/// Carries a connection to one of the backends until both sides ended; refused, it is reset.
pub async fn carry(
    mut io: impl Stream,
    arrival: &Arrival,
    destination: &Destination,
    backends: &Backends,
    dialled: Option<Box<Replay<Dialled>>>,
) {
    let worker = &arrival.worker;
    let mut record = Record::tcp(&worker.shared.telemetry, worker.id, &destination.metrics);
    record.client(arrival.peer.address);
    if let Some(caller) = &arrival.caller {
        record.peer(caller.label, &caller.name);
    }
    let inbound = arrival.direction != Direction::Outbound;
    let admitted = match arrival.admit(&mut record) {
        Ok(admitted) => admitted,
        Err(failure) => {
            tracing::debug!(client = %arrival.peer.address, %failure, "a connection was refused");
            record.fail(&failure);
            io.reset();
            return;
        }
    };
    if let Some(limits) = &destination.limits
        && let Err(failure) = limits.connection(worker.id, &arrival.peer, &mut record).await
    {
        tracing::debug!(client = %arrival.peer.address, %failure, "a connection was refused");
        record.fail(&failure);
        io.reset();
        return;
    }
    let fault = match backends.faults().filter(|faults| !faults.is_behind_retries()) {
        None => Ok(None),
        Some(faults) => Box::pin(faults.connection(arrival, &mut record)).await,
    };
    let mut fault = match fault {
        Ok(fault) => fault,
        Err(failure) => {
            tracing::debug!(client = %arrival.peer.address, %failure, "a connection was refused");
            record.fail(&failure);
            io.reset();
            return;
        }
    };
    let _active = inbound.then(|| worker.shared.drain.enter());
    let dialled = match dialled {
        Some(dialled) => Ok(dialled),
        None => {
            let dialled = dial(arrival, backends, &mut record).await;
            dialled.map(|dialled| Box::new(Replay::new(Default::default(), dialled)))
        }
    };
    let mut dialled = match dialled {
        Ok(dialled) => dialled,
        Err(failure) => {
            tracing::debug!(client = %arrival.peer.address, %failure, "a connection was refused");
            record.fail(&failure);
            io.reset();
            return;
        }
    };
    if let Some(hit) = dialled.inner_mut().fault.take() {
        fault = Some(hit);
    }
    if let Some(failure) = fault.as_mut().and_then(|fault| fault.reset.take()) {
        record.fail(&failure);
        io.reset();
        dialled.reset();
        return;
    }
    let pauses = Pauses::new(backends.idle());
    let io = Counted::new(io, record.count(Way::Request), record.count(Way::Response), &pauses);
    let _busy = fault.as_mut().map(|fault| std::mem::take(&mut fault.busy));
    let mut io = io.with_flow(fault.and_then(|fault| fault.flow));
    let revoked = async {
        match &admitted {
            Some(admitted) => admitted.revoked().await,
            None => std::future::pending().await,
        }
    };
    let mut drain = worker.shared.drain.watch();
    tokio::select! {
        failure = revoked => {
            record.fail(&failure);
            io.reset();
            dialled.reset();
        }
        result = pauses.bound(relay(&mut io, &mut *dialled)) => match result {
            Some(Ok(_)) => record.complete(),
            Some(Err(_)) if io.was_cut() => record.fail(&Reason::FaultCut.into()),
            Some(Err(broken)) if broken.first => record.fail(&Reason::ClientClosed.into()),
            Some(Err(broken)) => record.fail(&Failure::new(Reason::UpstreamReset, broken.error.to_string())),
            None => record.fail(&Failure::new(Reason::RequestTimeout, "nothing moved for too long")),
        },
        () = drain.reached(Phase::Ended), if inbound => record.fail(&Reason::Draining.into()),
    }
}

/// Refuses a connection so that its client sees an error instead of an orderly end.
pub fn refuse(mut io: impl Stream, arrival: &Arrival, failure: &Failure) {
    let worker = &arrival.worker;
    let mut record = Record::tcp(&worker.shared.telemetry, worker.id, &worker.unaddressed(arrival.direction));
    record.client(arrival.peer.address);
    record.fail(failure);
    tracing::debug!(client = %arrival.peer.address, %failure, "a connection was refused");
    io.reset();
}

/// Opens a connection to an endpoint of one of the backends.
pub async fn dial(arrival: &Arrival, backends: &Backends, record: &mut Record) -> Result<Dialled, Failure> {
    let worker = &arrival.worker;
    let upstream = backends.draw(|total| worker.below(total)).ok_or(Reason::NoBackend)?;
    let cluster = &upstream.cluster;
    let settings = cluster.settings();
    let name = &settings.name;
    let hash = Affinity::of_connection(&settings.balance, arrival.peer.address.ip()).hash;
    let mut tried: SmallVec<[EndpointId; MORE + 1]> = SmallVec::new();
    loop {
        let asked = Asked { avoid: &tried, hash, session: None };
        let picked = pick(arrival, cluster, asked).await?;
        record.attempt(name, &picked.endpoint().address);
        let fault = match backends.faults().filter(|faults| faults.is_behind_retries()) {
            None => None,
            Some(faults) => match Box::pin(faults.connection(arrival, record)).await {
                Ok(fault) => fault,
                Err(failure) => {
                    // Nobody was asked: nothing is to be learned of the endpoint.
                    picked.dismiss();
                    upstream.attempts.count(worker.id, Some(failure.reason));
                    tried.push(picked.endpoint().id);
                    if tried.len() > MORE {
                        return Err(failure);
                    }
                    continue;
                }
            },
        };
        let begun = Instant::now();
        match worker.pools.open_tcp(cluster, picked.endpoint()).await {
            Ok(transport) => {
                let now = Instant::now();
                picked.observe(now - begun, now);
                upstream.attempts.count(worker.id, None);
                return Ok(Dialled { transport, fault, _picked: picked });
            }
            Err(failure) => {
                upstream.attempts.count(worker.id, Some(failure.reason));
                if failure.reason == Reason::Overloaded {
                    picked.dismiss();
                    return Err(failure);
                }
                let now = Instant::now();
                picked.unreached(now - begun, now);
                tried.push(picked.endpoint().id);
                if tried.len() > MORE {
                    return Err(failure);
                }
            }
        }
    }
}

async fn pick(arrival: &Arrival, cluster: &Cluster, asked: Asked<'_>) -> Result<Picked, Failure> {
    let now = || arrival.worker.with_rng(|rng| cluster.pick(Instant::now(), rng, asked));
    if let Ok(picked) = now() {
        return Ok(picked);
    }
    let refused = |why: &dyn std::fmt::Display| Failure::new(Reason::NoEndpoint, why.to_string());
    cluster.ready(Instant::now() + Cluster::DEFAULT_WAIT).await.map_err(|why| refused(&why))?;
    now().map_err(|why| refused(&why))
}

impl AsyncRead for Dialled {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_read(cx, buf)
    }
}

impl AsyncWrite for Dialled {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.transport).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_shutdown(cx)
    }
}

impl Resettable for Dialled {
    fn reset(&mut self) {
        self.transport.reset();
    }
}
