//! One request, whole: the function every request walks through. Read it first.
//!
//! Owns the order of things. What each step means is a file of its own: the route (`route/`), the endpoint and its connection
//! (`upstream/`), the fields of the head (`headers`), a copy for somebody else (`mirror`), what leaves HTTP (`tunnel`), the end (`outgoing`).
//! Never knows how the connection found its destination or which codec carries the bytes.

mod attempts;
mod headers;
mod mirror;
mod outgoing;
mod received;
mod replay;
mod tunnel;

use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use http::{Method, Request, Response, StatusCode, Version, header};
use outrigger_config::model::RequestHead;
use tokio::time::Instant;

pub use outgoing::Outgoing;

use crate::body::Body;
use crate::downstream::{Connection, Interim};
use crate::failure::{Asker, Failure, Reason};
use crate::field::Known;
use crate::mesh::Destination;
use crate::policy::access::Admitted;
use crate::policy::deadline::Deadline;
use crate::route::cors::{self, Cors};
use crate::route::{self, Action, Route, Target};
use crate::upgrade::Upgrade;
use attempts::Attempts;
pub use headers::{Authority, MAX_HEADERS, address_value, strip_interim};
use outgoing::Held;
pub(crate) use replay::Attempt;
use tunnel::Tunnel;

/// Answers one request; never fails, because a failure is an answer too.
///
/// `client` is the client's side of the tunnel that an upgrade or CONNECT asks for; `interim` where interim responses go.
pub async fn serve(
    request: Box<Request<Body>>,
    client: Option<Upgrade>,
    interim: Interim,
    connection: &Rc<Connection>,
) -> Response<Outgoing> {
    let known = Known::of(request.headers());
    let asker = Asker::known(request.method(), known, connection.tells_details());
    let found = match headers::one_host(&request, known) {
        Ok(()) => connection.destination(&request).await,
        Err(failure) => Err(failure),
    };
    let mut held = Held::begin(connection, interim, found.as_ref().ok(), &request);
    headers::note_request_id(&request, known, &mut held.record);
    let answer = match found {
        Ok(destination) => run(request, known, client, &destination, connection, &mut held).await,
        Err(failure) => Err(failure),
    };
    let mut response = answer.unwrap_or_else(|failure| {
        held.record.fail(&failure);
        if failure.reason.status().is_client_error() && is_form(failure.reason) {
            // What is wrong with this request may be wrong with where the next one begins.
            connection.close_after();
        }
        failure.response(asker)
    });
    held.tell_fault(&mut response);
    if let Some(counted) = &held.counted {
        counted.tell(&mut response);
    }
    connection.last_word(&mut response);
    Outgoing::of(response, held)
}

async fn run(
    mut request: Box<Request<Body>>,
    mut known: Known,
    client: Option<Upgrade>,
    destination: &Destination,
    connection: &Rc<Connection>,
    held: &mut Held,
) -> Result<Response<Body>, Failure> {
    let protocols = headers::receive(&mut request, &mut known, connection, &mut held.record)?;
    let admitted = connection.admit(&request, &mut held.record)?;
    // Read again after each wait.
    let mut now = held.record.begun();
    if let Some(limits) = &destination.limits {
        let peer = &connection.peer;
        let worker = connection.worker.id;
        let (counted, passed) = limits.request(worker, peer, &request, &mut held.record);
        let counted = held.counted.insert(counted);
        passed?;
        if let Some(settled) = counted.settled(worker, &mut held.record) {
            settled.await?;
            now = Instant::now();
        }
    }
    let route = find(&request, destination).ok_or(Reason::NoRoute)?.clone();
    held.record.route(&route.metrics, &route.origin);
    let deadline = Deadline::of(request.headers(), known, held.record.begun(), route.timeouts);

    let cors = route.cors.as_ref().map(|rule| (rule, rule.allows(request.headers())));
    if let Some((rule, allowed)) = &cors
        && Cors::is_preflight(request.method(), request.headers())
    {
        return Ok(preflight(rule, allowed.as_ref(), &request));
    }
    if let Some(faults) = &route.faults
        && let Some(hit) = faults.before(&request, connection, &mut held.fault)
        && let Held { record, fault: Some(fault), .. } = &mut *held
    {
        // Boxed: hardly any request is hit.
        let mut befalls = Box::pin(hit.befall(&request, connection, &deadline, record, fault));
        if let Some(answer) = Admitted::bound(admitted.as_ref(), befalls.as_mut()).await? {
            return Ok(answer);
        }
        now = Instant::now();
    }
    let forward = match &route.action {
        Action::Forward(forward) => forward,
        Action::Redirect(redirect) => return redirected(redirect, &request, connection),
    };
    let drawn = forward.split.draw(|total| connection.worker.below(total)).ok_or(Reason::NoBackend)?;
    let backend = &forward.backends[drawn];
    let upstream = match &backend.target {
        Target::Cluster(upstream) => upstream,
        Target::Invalid(why) => return Err(Failure::new(Reason::BackendInvalid, &**why)),
    };

    let edited = route::apply_header_edits(&route.request_headers, request.headers_mut())
        | route::apply_header_edits(&backend.request_headers, request.headers_mut());
    if edited {
        known = Known::of(request.headers());
    }
    headers::rewrite(&mut request, &backend.rewrite)?;
    let tunnel = Tunnel::asked(&mut request, protocols, client);
    received::watch(&mut request, held, &connection.worker.timers);
    mirror::send(&mut request, &route.mirrors, connection);

    let mut response = {
        let mut attempts = Attempts::new(upstream, &route, known, deadline, connection);
        let answered = pin!(attempts.run(request, held, now));
        Admitted::bound(admitted.as_ref(), answered).await?
    };
    held.admitted = admitted;

    let mut known = headers::strip_response(&mut response, connection.direction);
    let edited = route::apply_header_edits(&backend.response_headers, response.headers_mut())
        | route::apply_header_edits(&route.response_headers, response.headers_mut());
    if edited {
        known = Known::of(response.headers());
    }
    if let Some((rule, Some(allowed))) = &cors {
        rule.answer(allowed, response.headers_mut());
    }
    let idle = route.timeouts.stream_idle;
    held.limit(&response, known, idle, &deadline, &connection.worker.timers);
    if held.repeatable.is_some() {
        held.route = Some((route, drawn));
    }
    tunnel.open(&mut response, idle, &deadline, held)?;
    Ok(response)
}

/// The route that takes the request.
fn find<'a>(request: &Request<Body>, destination: &'a Destination) -> Option<&'a Arc<Route>> {
    let path = request.uri().path();
    destination.routes.find(&RequestHead {
        method: request.method(),
        host: Authority::of(request).host(),
        // CONNECT names no path; a rule for all paths takes it.
        path: if path.is_empty() { "/" } else { path },
        query: request.uri().query(),
        headers: request.headers(),
    })
}

fn preflight(rule: &Cors, allowed: Option<&cors::Allowed>, request: &Request<Body>) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    rule.answer_preflight(allowed, request.headers(), response.headers_mut());
    response
}

fn redirected(
    redirect: &outrigger_config::model::Redirect,
    request: &Request<Body>,
    connection: &Connection,
) -> Result<Response<Body>, Failure> {
    let authority = Authority::of(request);
    let seen = route::Seen {
        scheme: connection.scheme(),
        host: authority.host(),
        port: connection.port,
        path: request.uri().path(),
        query: request.uri().query(),
    };
    let location = route::location(redirect, seen)
        .ok_or_else(|| Failure::new(Reason::Internal, "the redirect's words cannot stand in a Location"))?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = redirect.status;
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}

/// Whether a client error says something about the request's form.
fn is_form(reason: Reason) -> bool {
    !matches!(
        reason,
        Reason::NoRoute
            | Reason::AccessDenied
            | Reason::AmbiguousPath
            | Reason::RateLimited
            | Reason::ConcurrencyLimited
    )
}

/// Whether a request's answers may take as long as they like.
fn is_http2(version: Version) -> bool {
    version == Version::HTTP_2
}

fn is_connect<B>(request: &Request<B>) -> bool {
    request.method() == Method::CONNECT
}

/// CONNECT that names a protocol (RFC 8441), as WebSocket over HTTP/2 does.
pub fn is_extended_connect<B>(request: &Request<B>) -> bool {
    is_connect(request) && request.extensions().get::<hyper::ext::Protocol>().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of what a call to an async function is, without calling it.
    fn size<'a, F: Future>(
        _: impl FnOnce(Box<Request<Body>>, Option<Upgrade>, Interim, &'a Rc<Connection>) -> F,
    ) -> usize {
        size_of::<F>()
    }

    /// Every request in flight holds this much, and it is moved when it is spawned or boxed.
    #[test]
    fn an_exchange_is_not_large() {
        let bytes = size(serve);
        assert!(bytes <= 8 * 1024, "{bytes} bytes");
    }
}
