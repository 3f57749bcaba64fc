//! Copies of requests for backends whose answers nobody waits for (Gateway API `HTTPRequestMirrorFilter`).
//!
//! A mirror never delays or fails the request it copies: the body is kept as it passes, up to a bound, and the copy goes out when it
//! is whole. A longer body, or one too many copies at a time, is not mirrored.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::Request;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use outrigger_config::model::Fraction;
use smallvec::SmallVec;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::is_http2;
use crate::body::{Body, BodyError};
use crate::downstream::Connection;
use crate::route::{Mirror, Upstream};
use crate::upstream::HttpVersionChoice;
use crate::worker::Mirroring;

/// Bytes of a body that is mirrored, at most.
const LONGEST: usize = 64 * 1024;

/// A copy's answer is awaited this long, and dropped.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

/// Starts the copies that are drawn for this request. `request` is as the backend will see it.
pub fn send(request: &mut Request<Body>, mirrors: &[Mirror], connection: &Rc<Connection>) {
    if mirrors.is_empty()
        || request.headers().contains_key(http::header::UPGRADE)
        || super::is_connect(request)
    {
        return;
    }
    let mut bodies: SmallVec<[oneshot::Sender<Bytes>; 2]> = SmallVec::new();
    for mirror in mirrors {
        let all = u64::from(Fraction::ALL.millionths());
        if connection.worker.below(all) >= u64::from(mirror.fraction.millionths()) {
            continue;
        }
        let Some(place) = connection.worker.begin_mirror() else { continue };
        let mut copy = Request::new(());
        *copy.method_mut() = request.method().clone();
        *copy.uri_mut() = request.uri().clone();
        *copy.version_mut() = request.version();
        *copy.headers_mut() = request.headers().clone();
        let (whole, body) = oneshot::channel();
        bodies.push(whole);
        tokio::task::spawn_local(one(copy, body, mirror.upstream.clone(), connection.clone(), place));
    }
    if bodies.is_empty() {
        return;
    }
    if request.body().is_end_stream() {
        bodies.into_iter().for_each(|whole| drop(whole.send(Bytes::new())));
        return;
    }
    let tee = Tee { body: std::mem::take(request.body_mut()), kept: BytesMut::new(), copies: bodies };
    *request.body_mut() = Body::wrapped(tee);
}

async fn one(
    copy: Request<()>,
    body: oneshot::Receiver<Bytes>,
    upstream: Upstream,
    connection: Rc<Connection>,
    _place: Mirroring,
) {
    let Ok(body) = body.await else { return };
    let two = is_http2(copy.version());
    let http = upstream.cluster.settings().http;
    let version = match (http, two) {
        (outrigger_config::model::UpstreamHttp::Http2, _)
        | (outrigger_config::model::UpstreamHttp::AsReceived, true) => HttpVersionChoice::Http2,
        _ => HttpVersionChoice::Http1,
    };
    let worker = &connection.worker;
    let Ok(picked) = worker.with_rng(|rng| upstream.cluster.pick(Instant::now(), rng, &[])) else { return };
    // A copy decides nothing.
    picked.dismiss();
    let sent = worker.pools.send(&upstream.cluster, picked.endpoint(), version, copy.map(|()| body.into()));
    let answered = timeout(PATIENCE, async {
        let mut response = sent.await.map_err(|error| error.reason)?;
        // Read to its end, so that the connection can be used again.
        while let Some(Ok(_)) = response.body_mut().frame().await {}
        Ok(())
    });
    match answered.await {
        Ok(Ok(())) => upstream.attempts.count(worker.id, None),
        Ok(Err(reason)) => upstream.attempts.count(worker.id, Some(reason)),
        Err(_) => upstream.attempts.count(worker.id, Some(crate::failure::Reason::AttemptTimeout)),
    }
}

/// A body that is kept as it passes.
struct Tee {
    body: Body,
    kept: BytesMut,
    /// Empty once the body is over the bound.
    copies: SmallVec<[oneshot::Sender<Bytes>; 2]>,
}

impl Tee {
    fn see(&mut self, frame: &Frame<Bytes>) {
        let Some(data) = frame.data_ref() else { return };
        if self.kept.len() + data.len() > LONGEST {
            self.copies.clear();
            self.kept = BytesMut::new();
        }
        if !self.copies.is_empty() {
            self.kept.extend_from_slice(data);
        }
    }

    fn whole(&mut self) {
        let body = std::mem::take(&mut self.kept).freeze();
        for copy in self.copies.drain(..) {
            drop(copy.send(body.clone()));
        }
    }
}

impl http_body::Body for Tee {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                self.see(frame);
                if self.body.is_end_stream() {
                    self.whole();
                }
            }
            Poll::Ready(None) => self.whole(),
            Poll::Ready(Some(Err(_))) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
