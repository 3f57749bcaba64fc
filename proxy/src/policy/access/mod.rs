//! Who may call this workload.
//!
//! Owns the enforcement: each request and each connection that carries bytes is judged before anything of it reaches the app, and whatever was let in is
//! judged again as soon as the rules change. What is then denied is ended: a request that waits for its answer gets a refusal, an answer on its way is
//! cut, tunnels and TCP connections are reset, connections whose peer may do nothing any more are closed. What the rules mean is
//! `config::model::access`, which knows neither connections nor time.
//!
//! One a worker, on its thread alone: nothing is judged by rules that this worker has not yet judged everything else by.

mod rules;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use http::header::HOST;
use http::{HeaderValue, Method, Request, Uri};
use slab::Slab;
use tokio::sync::watch;

use crate::body::Body;
use crate::exchange::Authority;
use crate::failure::{Failure, Reason};
use crate::identity::Peer;
use crate::mesh::Inbound;
use crate::telemetry::{self, Record};
pub use rules::{Ports, Rules};

pub struct Access {
    worker: telemetry::Worker,
    inbound: RefCell<watch::Receiver<Option<Arc<Inbound>>>>,
    ports: RefCell<Option<Arc<Ports>>>,
    open: RefCell<Slab<Open>>,
}

/// Something that was let in.
struct Open {
    peer: Peer,
    port: u16,
    what: What,
    /// Set once it may not go on.
    revoked: Option<Failure>,
    waker: Option<Waker>,
}

enum What {
    /// Open for requests.
    Connection,
    /// Bytes that nobody looks into.
    Bytes,
    /// A request, with the parts it is judged by again. They share the request's bytes.
    Request { method: Method, uri: Uri, host: Option<HeaderValue> },
}

impl Access {
    pub fn new(mut inbound: watch::Receiver<Option<Arc<Inbound>>>, worker: telemetry::Worker) -> Rc<Self> {
        let ports = inbound.borrow_and_update().as_ref().map(|inbound| inbound.access.clone());
        Rc::new(Self {
            worker,
            inbound: RefCell::new(inbound),
            ports: RefCell::new(ports),
            open: RefCell::default(),
        })
    }

    /// Judges again whenever the rules change. Ends with whoever tells of them.
    pub async fn follow(self: Rc<Self>) {
        let mut changes = self.inbound.borrow().clone();
        while changes.changed().await.is_ok() {
            self.refresh();
        }
    }

    /// Lets a request in, or says why not.
    pub fn admit(
        self: &Rc<Self>,
        peer: &Peer,
        port: u16,
        request: &Request<Body>,
        record: &mut Record,
    ) -> Result<Admitted, Failure> {
        let audited = self.rules(port)?.request(self.worker, peer, request)?;
        audited.into_iter().for_each(|by| record.audited(by));
        let what = What::Request {
            method: request.method().clone(),
            uri: request.uri().clone(),
            host: request.headers().get(HOST).cloned(),
        };
        Ok(self.enter(peer, port, what))
    }

    /// Lets a connection in that carries bytes, or says why not.
    pub fn admit_bytes(
        self: &Rc<Self>,
        peer: &Peer,
        port: u16,
        record: &mut Record,
    ) -> Result<Admitted, Failure> {
        let audited = self.rules(port)?.bytes(self.worker, peer)?;
        audited.into_iter().for_each(|by| record.audited(by));
        Ok(self.enter(peer, port, What::Bytes))
    }

    /// Whether bytes would be let in; nothing is counted.
    pub fn may_carry(&self, peer: &Peer, port: u16) -> bool {
        self.rules(port).is_ok_and(|rules| rules.may_carry(peer))
    }

    /// Watches over a connection that is open for requests, which are judged one by one.
    pub fn watch(self: &Rc<Self>, peer: &Peer, port: u16) -> Admitted {
        self.enter(peer, port, What::Connection)
    }

    fn enter(self: &Rc<Self>, peer: &Peer, port: u16, what: What) -> Admitted {
        let open = Open { peer: peer.clone(), port, what, revoked: None, waker: None };
        let key = self.open.borrow_mut().insert(open);
        Admitted { access: self.clone(), key }
    }

    /// The rules of a port as they are now.
    fn rules(&self, port: u16) -> Result<Arc<Rules>, Failure> {
        self.refresh();
        let ports = self.ports.borrow();
        let ports = ports.as_ref().ok_or_else(|| {
            Failure::new(Reason::ConfigUnavailable, "nothing is known yet of who may call this workload")
        })?;
        Ok(ports.at(port))
    }

    /// Takes up new rules, if there are any, and judges by them whatever was let in by the old ones.
    fn refresh(&self) {
        let changed = self.inbound.borrow().has_changed().unwrap_or(false);
        if changed {
            let now = self.inbound.borrow_mut().borrow_and_update().as_ref().map(|now| now.access.clone());
            let before = std::mem::replace(&mut *self.ports.borrow_mut(), now.clone());
            if let Some(now) = now
                && before.is_none_or(|before| !Arc::ptr_eq(&before, &now))
            {
                self.judge_again(&now);
            }
        }
    }

    fn judge_again(&self, ports: &Ports) {
        let mut woken = Vec::new();
        for (_, open) in self.open.borrow_mut().iter_mut().filter(|(_, open)| open.revoked.is_none()) {
            let rules = ports.at(open.port);
            let judged = match &open.what {
                What::Connection => rules.connection(&open.peer),
                What::Bytes => rules.bytes(self.worker, &open.peer).map(drop),
                What::Request { method, uri, host } => {
                    let host = host.as_ref().and_then(|host| host.to_str().ok()).unwrap_or_default();
                    let host = uri.authority().map_or(host, |authority| authority.as_str());
                    let host = Authority::parse(host).host();
                    rules.again(self.worker, &open.peer, method, uri.path(), host)
                }
            };
            if let Err(failure) = judged {
                open.revoked = Some(failure);
                woken.extend(open.waker.take());
            }
        }
        if !woken.is_empty() {
            tracing::info!(ended = woken.len(), "access was revoked");
        }
        // Not while the list is borrowed: whoever wakes may look into it at once.
        woken.into_iter().for_each(Waker::wake);
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").field("open", &self.open.borrow().len()).finish_non_exhaustive()
    }
}

/// Was let in, and may go on as long as it is not revoked. Told of until dropped.
pub struct Admitted {
    access: Rc<Access>,
    key: usize,
}

impl Admitted {
    /// Why it may not go on, if so.
    pub fn poll_revoked(&self, cx: &mut Context<'_>) -> Poll<Failure> {
        let mut open = self.access.open.borrow_mut();
        let open = &mut open[self.key];
        if let Some(failure) = &open.revoked {
            return Poll::Ready(failure.clone());
        }
        if !open.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            open.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    pub async fn revoked(&self) -> Failure {
        poll_fn(|cx| self.poll_revoked(cx)).await
    }

    /// Goes on with the work as long as it may. The work is pinned where it was made: taken by value it would take its room twice.
    pub async fn bound<T, F>(admitted: Option<&Self>, mut work: Pin<&mut F>) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        poll_fn(|cx| match admitted.map_or(Poll::Pending, |admitted| admitted.poll_revoked(cx)) {
            Poll::Ready(failure) => Poll::Ready(Err(failure)),
            Poll::Pending => work.as_mut().poll(cx),
        })
        .await
    }
}

impl fmt::Debug for Admitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Admitted").field(&self.key).finish()
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.access.open.borrow_mut().remove(self.key);
    }
}
