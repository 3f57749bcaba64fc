//! One exchange as a stream of an HTTP/2 connection, from its request to the end of its response.
//!
//! Runs in the task of whoever sends: no task, channel or queue of its own, but for a request's body that is still on its way when the response
//! begins. Owns the judgement whether an endpoint processed a request that failed.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, header};
use http_body::{Body as _, Frame, SizeHint};
use outrigger_http2::{Code, Error, RecvStream, SendStream};
use tokio::task::AbortHandle;

use super::pump::Pump;
use super::{Sender, Slot, head};
use crate::body::{Body, BodyError};
use crate::bytestream::Stream as Bytestream;
use crate::downstream::Interim;
use crate::failure::{Failure, Reason};
use crate::upgrade::Upgrade;
use crate::upstream::connect::{MAX_HEADER_BYTES, MAX_HEADERS};
use crate::upstream::lent::{Lent, LentHead};
use crate::upstream::replay::Budget;
use crate::upstream::{Blame, Endpoint, SendError};

/// What became of a request.
pub(in crate::upstream) enum Sent {
    Done(Result<Response<Body>, SendError>),
    /// The connection was going away before it was processed. Another one can be tried at once: nothing is wrong with the endpoint.
    Gone(Box<Request<Body>>),
}

/// Sends `request` as a stream of its own and waits for its response's headers. Dropping it resets the stream.
pub(in crate::upstream) async fn send(
    (mut sender, slot): (Sender, Slot),
    request: Lent<'_>,
    endpoint: &Endpoint,
    budget: &Rc<Budget>,
    interim: Option<&Interim>,
) -> Sent {
    if !is_ready(&mut sender, endpoint).await {
        // It was never sent; the connection takes nobody else down with it.
        slot.close_connection();
        return Sent::Gone(request.take());
    }
    let protocol = request.extensions().get::<hyper::ext::Protocol>();
    if protocol.is_some() && !sender.takes_extended_connect() {
        let detail = format!("{} does not offer extended CONNECT (RFC 8441)", endpoint.address);
        return Sent::Done(Err(SendError::unsent(
            Failure::new(Reason::UpgradeFailed, detail),
            request.take(),
        )));
    }
    let returned = request.returned();
    let (mut head, body) = request.take().into_parts();
    head::make(&mut head);
    let connect = head.method == Method::CONNECT;
    let bodiless = body.is_end_stream();
    let protocol = head.extensions.get::<hyper::ext::Protocol>().map(|protocol| protocol.as_ref());
    let (stream, recv) = sender.send(&head.method, &head.uri, protocol, &head.headers, bodiless && !connect);
    drop(sender);
    let head = LentHead::new(head, returned);
    let mut exchange = Exchange { recv, pump: None, stream: None };
    if connect || bodiless {
        exchange.stream = Some(stream);
    } else {
        exchange.pump = Some(Pump::new(body, stream, budget));
    }
    let waiting = slot.waiting();
    let answer = poll_fn(|cx| exchange.poll(cx, interim)).await;
    drop(waiting);
    let error = match answer {
        Ok(response) => return Sent::Done(receive(response, exchange, connect, slot, endpoint)),
        Err(Broken::Body(error)) => {
            return Sent::Done(Err(SendError::lost(error.reason(), error.to_string())));
        }
        Err(Broken::Stream(error)) => error,
    };
    let (reason, detail) = (reason(&error), format!("{}: {error}", endpoint.address));
    if !error.is_unprocessed() {
        return Sent::Done(Err(SendError::lost(reason, detail)));
    }
    let Some(body) = exchange.into_body() else {
        let error = SendError::lost(reason, detail);
        return Sent::Done(Err(SendError { unprocessed: true, blame: Blame::Nothing, ..error }));
    };
    let request = head.with(body);
    if let Error::GoneAway(_) = error {
        slot.close_connection();
        return Sent::Gone(request);
    }
    let error = SendError::unsent(Failure::new(reason, detail), request);
    Sent::Done(Err(SendError { blame: Blame::Nothing, ..error }))
}

/// Waits until a stream may be opened, should the peer have lowered its limit just now, or not read what it is sent. Almost always it may. `false`: not on
/// this connection any more.
async fn is_ready(sender: &mut Sender, endpoint: &Endpoint) -> bool {
    match poll_fn(|cx| Poll::Ready(sender.poll_ready(cx))).await {
        Poll::Ready(ready) => ready.is_ok(),
        Poll::Pending => match tokio::time::timeout(STUCK, poll_fn(|cx| sender.poll_ready(cx))).await {
            Ok(ready) => ready.is_ok(),
            Err(_) => {
                tracing::warn!(endpoint = %endpoint.address, "an HTTP/2 connection opens no stream any more, and is left");
                false
            }
        },
    }
}

/// Opens a stream that carries a connection of HTTP/1.1, for as long as that lasts. `Err`: there is none to be had on this connection any more.
pub(in crate::upstream) async fn carry(
    (mut sender, slot): (Sender, Slot),
    endpoint: &Endpoint,
) -> Result<Bytestream, ()> {
    if !is_ready(&mut sender, endpoint).await {
        slot.close_connection();
        return Err(());
    }
    let target = Uri::from_static(CARRIED);
    let (send, recv) = sender.send(&Method::CONNECT, &target, None, &HeaderMap::new(), false);
    Ok(Bytestream::asking(send, recv, slot))
}

/// What the request of such a stream names; the callee does not look at it.
const CARRIED: &str = "http1:0";

fn receive(
    response: Response<()>,
    exchange: Exchange,
    connect: bool,
    slot: Slot,
    endpoint: &Endpoint,
) -> Result<Response<Body>, SendError> {
    let (count, size) = head::size(response.headers());
    if count > MAX_HEADERS || size > MAX_HEADER_BYTES {
        let detail = format!(
            "{} answered with {count} headers of {size} bytes in all; {MAX_HEADERS} and {MAX_HEADER_BYTES} are accepted",
            endpoint.address
        );
        return Err(SendError::lost(Reason::ResponseHeadersTooLarge, detail));
    }
    let Exchange { pump, stream, recv } = exchange;
    let stream = match stream {
        Some(stream) if connect && response.status().is_success() => {
            return Ok(response.map(|()| Body::upgrade(Upgrade::stream(stream, recv, Some(slot)))));
        }
        stream => stream,
    };
    let left = response.headers().get(header::CONTENT_LENGTH).and_then(|n| n.to_str().ok()?.parse().ok());
    Ok(response.map(|()| {
        if recv.is_end_stream() && pump.is_none() {
            return Body::empty();
        }
        // The endpoint answers while it still reads: from here on the two directions have nothing to do with each other.
        let upload = pump.map(|mut pump| {
            tokio::task::spawn_local(async move {
                if let Err(Broken::Body(_)) = poll_fn(|cx| pump.poll(cx)).await {
                    pump.stream.reset(Code::CANCEL);
                }
            })
            .abort_handle()
        });
        Body::http2(Received { recv, ended: false, left, upload, _stream: stream, _slot: slot })
    }))
}

/// Both directions of a stream until the response's headers.
struct Exchange {
    recv: RecvStream,
    pump: Option<Pump>,
    /// The sending half, where there is no body: of a CONNECT, or of what has ended already.
    stream: Option<SendStream>,
}

pub(super) enum Broken {
    /// The request's body failed: the client is gone.
    Body(BodyError),
    Stream(Error),
}

impl Exchange {
    /// The request's body as it was at the beginning, if all of it is still here.
    fn into_body(self) -> Option<Body> {
        match self.pump {
            None => Some(Body::empty()),
            Some(mut pump) => match pump.kept {
                Some(kept) => Some(kept.rewind(0, pump.body)),
                None => pump.body.rewind().then_some(pump.body),
            },
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        interim: Option<&Interim>,
    ) -> Poll<Result<Response<()>, Broken>> {
        if let Some(pump) = &mut self.pump
            && !pump.done
            && let Poll::Ready(result) = pump.poll(cx)
        {
            match result {
                Ok(()) => {}
                Err(Broken::Body(error)) => {
                    pump.stream.reset(Code::CANCEL);
                    return Poll::Ready(Err(Broken::Body(error)));
                }
                // The response says better what happened: the endpoint may have answered and then reset the rest (RFC 9113 §8.1).
                Err(Broken::Stream(_)) => {}
            }
        }
        let response = loop {
            match ready!(self.recv.poll_response(cx)) {
                Ok(response) if response.status().is_informational() => {
                    if let Some(interim) = interim.filter(|_| response.status() != StatusCode::CONTINUE) {
                        interim.pass(response);
                    }
                }
                response => break response,
            }
        };
        if let (Some(pump), Ok(_)) = (&mut self.pump, &response) {
            // Whatever happens now, the endpoint has begun to process it: only a policy may send it again.
            pump.kept = None;
            if pump.done {
                self.stream = self.pump.take().map(|pump| pump.stream);
            }
        }
        Poll::Ready(response.map_err(Broken::Stream))
    }
}

/// The body of a response. Dropped before its end, it resets the stream, and with it what is left of the request's body.
#[derive(Debug)]
pub(crate) struct Received {
    recv: RecvStream,
    ended: bool,
    /// From `Content-Length`, so that the next hop can announce it too.
    left: Option<u64>,
    upload: Option<AbortHandle>,
    /// The sending half, which has nothing to send any more.
    _stream: Option<SendStream>,
    _slot: Slot,
}

impl Received {
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        match ready!(self.recv.poll_data(cx)) {
            Some(Ok(data)) => {
                // Room is given back as data is taken: it is taken only as fast as it goes on.
                self.recv.release(data.len());
                self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Some(Err(error)) => self.end(Some(Err(BodyError::Stream(error)))),
            None => {
                let trailers = self.recv.take_trailers();
                self.end(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
            }
        }
    }

    fn end(
        &mut self,
        frame: Option<Result<Frame<Bytes>, BodyError>>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.ended = true;
        Poll::Ready(frame)
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.ended || self.recv.is_end_stream()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        if let Some(upload) = &self.upload {
            upload.abort();
        }
    }
}

fn reason(error: &Error) -> Reason {
    match error {
        // What came is no HTTP/2.
        Error::Refused(_) => Reason::UpstreamProtocolError,
        Error::Reset(_) | Error::GoneAway(_) | Error::Connection(..) | Error::Io(_) | Error::Closed => {
            Reason::UpstreamReset
        }
    }
}

/// A stream that cannot be opened for this long, although there was a slot for it, means that the connection is stuck.
const STUCK: Duration = Duration::from_secs(10);
