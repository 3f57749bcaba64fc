//! What goes wrong on purpose, and only that: [`Faults`] are those of one route, or of one port of a workload.
//!
//! Owns what is done to a call: whether (`experiment`, whose `dice` are thrown), and how (`answer`, `shape`). Where a policy says nothing there is no `Faults`, and
//! nothing is asked. Whatever is invented here says so, in the answer, the log and the metrics, and tells nobody anything about an endpoint: breakers and
//! the estimates of balancing never hear of it.

mod accept;
mod answer;
mod bytes;
mod dice;
mod experiment;
mod glance;
mod shape;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Request, Response};
use outrigger_config::model::access::{Call, Caller};
use outrigger_config::model::{Fault, FaultAt, FaultEffect, FaultEnd, GivenFault, Origin, SpiffeId};
use smallvec::SmallVec;
use tokio::time::{Instant, sleep_until};

use crate::body::Body;
use crate::downstream::Connection;
use crate::exchange::Authority;
use crate::failure::{Asker, Failure, Reason, grpc, is_grpc};
use crate::identity::Peer;
use crate::policy::deadline::Deadline;
use crate::telemetry::{Direction, Record};
use crate::upstream::SendError;
use crate::worker::Worker;
pub use answer::Reset;
use answer::{Injected, grpc_status};
pub use bytes::Connected;
use dice::Throw;
pub use experiment::{Busy, Done, Ending, Experiment, Experiments, Kind};
use glance::Glance;
use shape::Shape;
pub use shape::{Flow, Pass, were_corrupted};

/// The experiments that concern one route or port.
#[derive(Debug)]
pub struct Faults {
    /// One, or at a port those of several Services.
    experiments: SmallVec<[Arc<Experiment>; 1]>,
    behind_retries: bool,
    /// One of them wants to know how calls end.
    watches: bool,
}

impl Faults {
    /// `None` where there are none.
    pub fn new(experiments: impl IntoIterator<Item = Arc<Experiment>>) -> Option<Arc<Self>> {
        let experiments: SmallVec<[Arc<Experiment>; 1]> = experiments.into_iter().collect();
        let behind_retries =
            experiments.iter().any(|experiment| experiment.model.at == FaultAt::CallerBehindRetries);
        let watches = experiments.iter().any(|experiment| experiment.watches());
        (!experiments.is_empty()).then(|| Arc::new(Self { experiments, behind_retries, watches }))
    }

    /// Whether attempts are hit instead of requests.
    pub fn is_behind_retries(&self) -> bool {
        self.behind_retries
    }

    /// What a request is to be hit by before anything is done about it; almost always nothing, and then nothing waits and nothing is allocated. `held` is
    /// there afterwards where its end is somebody's business.
    pub fn before(
        self: &Arc<Self>,
        request: &Request<Body>,
        connection: &Connection,
        held: &mut Option<Box<Held>>,
    ) -> Option<Box<Hit>> {
        let hit = if self.behind_retries { None } else { self.attempt(request, connection) };
        if self.behind_retries || self.watches || hit.is_some() {
            *held = Some(Box::new(Held::new(self)));
        }
        hit
    }

    /// What happens to one attempt, where attempts are hit.
    pub fn attempt(&self, request: &Request<Body>, connection: &Connection) -> Option<Box<Hit>> {
        self.throw(&Asked {
            request: Some(request),
            headers: request.headers(),
            peer: &connection.peer,
            direction: connection.direction,
            worker: &connection.worker,
        })
    }

    fn throw(&self, asked: &Asked<'_>) -> Option<Box<Hit>> {
        let mut hit = None;
        for experiment in self.experiments.iter().filter(|experiment| experiment.is_active()) {
            for (index, fault) in experiment.model.faults.iter().enumerate() {
                if !asked.meets(fault, experiment.glance(index)) {
                    continue;
                }
                // First whether: there is nothing to prepare for what is not hit.
                let (mut throw, mut entered) = (experiment.throw(index), None);
                match &fault.effect {
                    FaultEffect::Given(given) => {
                        if throw.hits(fault.share) {
                            let thrown = (&mut throw, &mut entered);
                            Hit::strike(&mut hit, experiment, index, given, thrown, asked.worker);
                        }
                    }
                    FaultEffect::ByHeaders(ceiling) => {
                        for (share, given) in answer::asked(asked.headers, ceiling, fault.share) {
                            if throw.hits(share) {
                                let thrown = (&mut throw, &mut entered);
                                Hit::strike(&mut hit, experiment, index, &given, thrown, asked.worker);
                            }
                        }
                    }
                    FaultEffect::SlowAccept(_) => {}
                }
                if let (Some(hit), Some(entered)) = (&mut hit, entered) {
                    hit.busy.push(entered);
                }
                if hit.as_ref().is_some_and(|hit| hit.end.is_some()) {
                    return hit;
                }
            }
        }
        hit.filter(|hit| !hit.is_nothing())
    }
}

/// A call that may be hit.
struct Asked<'a> {
    /// `None` for a connection that carries bytes.
    request: Option<&'a Request<Body>>,
    headers: &'a HeaderMap,
    peer: &'a Peer,
    direction: Direction,
    worker: &'a Worker,
}

impl Asked<'_> {
    fn meets(&self, fault: &Fault, glance: &Glance) -> bool {
        match self.request {
            Some(_) => {
                if let Some(told) = glance.meets(self.headers) {
                    return told;
                }
            }
            None if *glance == Glance::None || fault.is_http() => return false,
            None => {}
        }
        let of_grpc =
            matches!(&fault.effect, FaultEffect::Given(GivenFault { end: Some(FaultEnd::Grpc(_)), .. }));
        if of_grpc && !is_grpc(self.headers) {
            return false;
        }
        let own;
        let identity = match self.direction {
            Direction::Inbound => self.peer.identity.as_ref(),
            // Nobody has to prove to itself who it is.
            Direction::Outbound | Direction::Gateway if fault.from.is_empty() => None,
            Direction::Outbound | Direction::Gateway => {
                own = self.own_identity();
                own.as_ref()
            }
        };
        let address: IpAddr = self.peer.address.ip().to_canonical();
        let call = self.request.map(|request| {
            // Not looked for where nobody asks for it.
            let hosts = fault.matches.iter().any(|to| !to.hosts.is_empty());
            let (path, host) = (request.uri().path(), hosts.then(|| Authority::of(request).host()));
            Call {
                method: request.method(),
                path: if path.is_empty() { "/" } else { path },
                host: host.unwrap_or_default(),
                headers: Some(self.headers),
            }
        });
        fault.concerns(Caller { identity, address }, call.as_ref())
    }

    /// As whom this proxy calls: as its certificate says, or without one as its configuration does.
    fn own_identity(&self) -> Option<SpiffeId> {
        if let Some(svid) = self.worker.shared.identity.svid() {
            return Some(svid.leaf.id.clone());
        }
        let inbound = self.worker.inbound.borrow();
        let inbound = inbound.as_ref()?;
        let (workload, domain) = (&inbound.workload, &inbound.settings.trust_domain);
        format!("spiffe://{domain}/ns/{}/sa/{}", workload.namespace, workload.service_account).parse().ok()
    }
}

/// All that is done to one call.
#[derive(Debug, Default)]
pub struct Hit {
    pub delay: Duration,
    end: Option<FaultEnd>,
    shape: Shape,
    /// `NAMESPACE/POLICY FAULT`, of the last one that hit.
    pub name: String,
    origin: Option<Origin>,
    busy: SmallVec<[Busy; 1]>,
}

impl Hit {
    /// Adds what is given to `hit`, unless the fault has its hand in as many calls as it may.
    #[cold]
    fn strike(
        hit: &mut Option<Box<Self>>,
        experiment: &Arc<Experiment>,
        index: usize,
        given: &GivenFault,
        (throw, entered): (&mut Throw, &mut Option<Busy>),
        worker: &Worker,
    ) {
        if entered.is_none() {
            *entered = experiment.enter(index);
        }
        if entered.is_some() {
            let delay = given.delay.map(|delay| throw.delay(delay)).unwrap_or_default();
            hit.get_or_insert_default().add(experiment, index, given, delay, worker);
        }
    }

    fn add(
        &mut self,
        experiment: &Experiment,
        index: usize,
        given: &GivenFault,
        delay: Duration,
        worker: &Worker,
    ) {
        let fault = &experiment.model.faults[index];
        self.name = format!("{} {}", experiment.model.policy(), fault.name);
        self.origin = Some(experiment.model.origin.at(&format!("spec.fault.faults[{index}]")));
        self.delay += delay;
        self.end = given.end;
        let mut kinds: SmallVec<[Kind; 2]> = SmallVec::new();
        if given.delay.is_some() {
            kinds.push(Kind::Delay);
        }
        match given.end {
            Some(FaultEnd::Http(_) | FaultEnd::Grpc(_)) => kinds.push(Kind::Abort),
            Some(FaultEnd::Reset) => kinds.push(Kind::Reset),
            Some(FaultEnd::Refuse) => kinds.push(Kind::Refuse),
            None => {}
        }
        if given.throttle.is_some() {
            kinds.push(Kind::Throttle);
        }
        if given.cut.is_some() {
            kinds.push(Kind::Cut);
        }
        if given.corrupt_trailers {
            kinds.push(Kind::Trailers);
        }
        kinds.into_iter().for_each(|kind| experiment.count(index, kind, worker.id));
        let corrupt = given.corrupt_trailers;
        self.shape = self.shape.and(Shape { rate: given.throttle, cut: given.cut, corrupt });
    }

    fn is_nothing(&self) -> bool {
        self.delay.is_zero() && self.end.is_none() && self.shape.is_nothing()
    }

    /// What becomes of a request that is hit before anything is done about it: later perhaps, or an answer. `held` is told how its answer has to be changed
    /// ([`Held::tell`]).
    pub async fn befall(
        mut self: Box<Self>,
        request: &Request<Body>,
        connection: &Connection,
        deadline: &Deadline,
        record: &mut Record,
        held: &mut Held,
    ) -> Result<Option<Response<Body>>, Failure> {
        record.fault(&self.name);
        if !self.delay.is_zero() {
            held.delayed = true;
            let until = Instant::now() + self.delay;
            if let Some(bound) = deadline.of_response().filter(|bound| bound.at() < until) {
                sleep_until(bound.at()).await;
                return Err(bound.failure(&format!("response, while {} delayed the request,", self.name)));
            }
            sleep_until(until).await;
        }
        held.shape = self.shape;
        held.busy = std::mem::take(&mut self.busy);
        let Some(end) = self.end else { return Ok(None) };
        let asker = Asker::new(request.method(), request.headers(), connection.tells_details());
        match self.answer(end, asker) {
            Ok(answer) => Ok(Some(answer)),
            Err(failure) => Err(failure),
        }
    }

    pub fn ends(&self) -> Option<FaultEnd> {
        self.end
    }

    /// The word for a call that ends so.
    pub fn reason(&self, end: FaultEnd) -> Reason {
        match end {
            FaultEnd::Http(_) | FaultEnd::Grpc(_) => Reason::FaultAbort,
            FaultEnd::Reset => Reason::FaultReset,
            FaultEnd::Refuse => Reason::FaultRefused,
        }
    }

    pub fn failure(&self, reason: Reason) -> Failure {
        let origin = self.origin.as_ref().map(ToString::to_string).unwrap_or_default();
        Failure::new(reason, format!("fault {} of {origin}", self.name))
    }

    /// `Err` where the answer is one the proxy has for such a failure anyway.
    fn answer(&self, end: FaultEnd, asker: Asker) -> Result<Response<Body>, Failure> {
        let failure = self.failure(self.reason(end));
        match end {
            FaultEnd::Http(status) => Ok(answer::http(status, failure, asker)),
            FaultEnd::Grpc(status) => Ok(answer::grpc(status, failure, asker)),
            FaultEnd::Reset => Ok(answer::reset(failure)),
            FaultEnd::Refuse => Err(failure),
        }
    }

    /// What comes of an attempt that ends so, with the request where it can be sent again as it is.
    pub fn attempted(
        &self,
        end: FaultEnd,
        asker: Asker,
        request: Box<Request<Body>>,
    ) -> Result<Response<Body>, SendError> {
        if matches!(end, FaultEnd::Http(_) | FaultEnd::Grpc(_)) {
            return self.answer(end, asker).map_err(SendError::injected);
        }
        let mut error = SendError::injected(self.failure(self.reason(end)));
        if end == FaultEnd::Refuse {
            error.unsent = Some(request);
            error.unprocessed = true;
        }
        Err(error)
    }

    /// The answer as its caller gets it. What is done to it goes on to count as something the fault has its hand in.
    pub fn shaped(mut self, mut response: Response<Body>) -> Response<Body> {
        self.shape.head(&mut response);
        let busy = std::mem::take(&mut self.busy);
        response.map(|body| self.shape.body_with(body, busy))
    }
}

/// Whether nobody but us had a hand in what came of an attempt.
pub fn is_injected(sent: &Result<Response<Body>, SendError>) -> bool {
    match sent {
        Ok(response) => response.extensions().get::<Injected>().is_some(),
        Err(error) => error.reason.is_injected(),
    }
}

/// Until an exchange is over: how its answer is changed, and who wants to know how it ended.
#[derive(Debug)]
pub struct Held {
    faults: Arc<Faults>,
    shape: Shape,
    busy: SmallVec<[Busy; 1]>,
    /// It waited; that something came late says nothing about the endpoint.
    delayed: bool,
    told: Told,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Nothing,
    /// A gRPC call whose end is in its trailers.
    Begun,
    All,
}

impl Held {
    fn new(faults: &Arc<Faults>) -> Self {
        let (shape, busy) = (Shape::default(), SmallVec::new());
        Self { faults: faults.clone(), shape, busy, delayed: false, told: Told::Nothing }
    }

    pub fn was_delayed(&self) -> bool {
        self.delayed
    }

    /// The head of the answer goes out.
    pub fn tell(&mut self, response: &mut Response<Body>, record: &mut Record) {
        if let Some(Injected(failure)) = response.extensions_mut().remove::<Injected>() {
            record.fail(&failure);
        }
        if let Some(reason) = record.reason() {
            return self.see(!reason.is_injected(), false);
        }
        let (status, headers) = (response.status(), response.headers());
        match grpc_status(headers) {
            None if is_grpc(headers) && status == http::StatusCode::OK => self.told = Told::Begun,
            Some(code) => self.see(true, is_success(code)),
            None => self.see(true, !status.is_server_error()),
        }
        if self.shape.head(response) {
            record.fail(&Reason::FaultTrailers.into());
        }
        let body = std::mem::take(response.body_mut());
        *response.body_mut() = self.shape.body(body);
    }

    /// The answer ended with these trailers. Whether what they say was made up.
    pub fn ended(&mut self, trailers: &HeaderMap) -> bool {
        let made_up = were_corrupted(trailers);
        if self.told == Told::Begun {
            self.see(!made_up, grpc_status(trailers).is_some_and(is_success));
        }
        made_up
    }

    /// `real`: nothing was invented about it.
    fn see(&mut self, real: bool, succeeded: bool) {
        if std::mem::replace(&mut self.told, Told::All) == Told::All || !real {
            return;
        }
        for experiment in self.faults.experiments.iter().filter(|experiment| experiment.watches()) {
            experiment.saw(succeeded, Instant::now());
        }
    }
}

/// Whoever asked went away before there was an answer, or before a call had ended: it did not get what it came for.
impl Drop for Held {
    fn drop(&mut self) {
        self.see(true, false);
    }
}

/// What says something about the call and not about whether its callee is well.
fn is_success(code: u16) -> bool {
    !matches!(
        code,
        grpc::UNKNOWN | grpc::DEADLINE_EXCEEDED | grpc::INTERNAL | grpc::UNAVAILABLE | grpc::DATA_LOSS
    )
}
