//! Experiments as our own messages: of a route, of what becomes of connections, of each port of the listener `inbound`.
//!
//! All of it, in our words. What Envoy's fault filter can say of a route's stands beside it (`route::fault`).

use std::sync::Arc;

use http::StatusCode;
use prost::{Enumeration, Message};

use super::at::{At, Unsupported};
use super::{access, fields, own, pb};
use crate::model::{self, FaultDelay, FaultEffect, FaultEnd, Fraction};

#[derive(Clone, PartialEq, Message)]
pub struct Faults {
    #[prost(enumeration = "own::FaultAt", tag = "1")]
    pub at: i32,
    #[prost(message, repeated, tag = "2")]
    pub faults: Vec<Fault>,
    #[prost(fixed64, optional, tag = "3")]
    pub seed: Option<u64>,
    #[prost(message, optional, tag = "4")]
    pub active_for: Option<pb::Duration>,
    /// Milliseconds since 1970.
    #[prost(uint64, optional, tag = "5")]
    pub since: Option<u64>,
    /// `share` is the part that has to succeed.
    #[prost(message, optional, tag = "6")]
    pub stop_if: Option<own::Within>,
    #[prost(message, optional, tag = "7")]
    pub origin: Option<own::Origin>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Fault {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, repeated, tag = "2")]
    pub from: Vec<access::PeerMatch>,
    #[prost(message, repeated, tag = "3")]
    pub matches: Vec<access::CallMatch>,
    /// Millionths.
    #[prost(uint32, tag = "4")]
    pub share: u32,
    #[prost(message, optional, tag = "5")]
    pub delay: Option<Delay>,
    #[prost(message, optional, tag = "6")]
    pub end: Option<End>,
    #[prost(uint64, optional, tag = "7")]
    pub throttle: Option<u64>,
    #[prost(uint64, optional, tag = "8")]
    pub cut: Option<u64>,
    /// Instead of the four before.
    #[prost(message, optional, tag = "9")]
    pub by_headers: Option<Ceiling>,
    #[prost(bool, tag = "10")]
    pub corrupt_trailers: bool,
    /// Instead of all others.
    #[prost(message, optional, tag = "11")]
    pub slow_accept: Option<Delay>,
    /// 0: any number.
    #[prost(uint32, tag = "12")]
    pub at_most: u32,
}

/// Fixed: `long`. Uniform: from `short` to `long`. Exponential: of mean `short`, at most `long`.
#[derive(Clone, PartialEq, Message)]
pub struct Delay {
    #[prost(enumeration = "Shape", tag = "1")]
    pub shape: i32,
    #[prost(message, optional, tag = "2")]
    pub short: Option<pb::Duration>,
    #[prost(message, optional, tag = "3")]
    pub long: Option<pb::Duration>,
}

#[derive(Clone, PartialEq, Message)]
pub struct End {
    #[prost(enumeration = "EndKind", tag = "1")]
    pub kind: i32,
    /// HTTP's or gRPC's.
    #[prost(uint32, tag = "2")]
    pub status: u32,
}

#[derive(Clone, PartialEq, Message)]
pub struct Ceiling {
    #[prost(message, optional, tag = "1")]
    pub delay: Option<pb::Duration>,
    #[prost(bool, tag = "2")]
    pub abort: bool,
    #[prost(uint64, optional, tag = "3")]
    pub throttle: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum Shape {
    Fixed = 0,
    Uniform = 1,
    Exponential = 2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum EndKind {
    Http = 0,
    Grpc = 1,
    Reset = 2,
    Refuse = 3,
}

pub(super) fn encode(faults: &model::Faults) -> Faults {
    Faults {
        at: own::FaultAt::from(faults.at) as i32,
        faults: faults.faults.iter().map(fault).collect(),
        seed: faults.seed,
        active_for: faults.active_for.map(fields::duration),
        since: faults.since,
        stop_if: faults.stop_if.map(|stop| own::Within {
            share: stop.below.millionths(),
            interval: Some(fields::duration(stop.interval)),
            min_requests: stop.min_requests,
        }),
        origin: Some((&faults.origin).into()),
    }
}

fn fault(fault: &model::Fault) -> Fault {
    let mut own = Fault {
        name: fault.name.to_string(),
        from: fault.from.iter().map(access::peer).collect(),
        matches: fault.matches.iter().map(access::call).collect(),
        share: fault.share.millionths(),
        at_most: fault.at_most.unwrap_or_default(),
        ..Fault::default()
    };
    match &fault.effect {
        FaultEffect::Given(given) => {
            own.delay = given.delay.map(delay);
            own.end = given.end.map(end);
            own.throttle = given.throttle;
            own.cut = given.cut;
            own.corrupt_trailers = given.corrupt_trailers;
        }
        FaultEffect::SlowAccept(slow) => own.slow_accept = Some(delay(*slow)),
        FaultEffect::ByHeaders(ceiling) => {
            own.by_headers = Some(Ceiling {
                delay: ceiling.delay.map(fields::duration),
                abort: ceiling.abort,
                throttle: ceiling.throttle,
            });
        }
    }
    own
}

fn delay(delay: FaultDelay) -> Delay {
    let (shape, short, long) = match delay {
        FaultDelay::Fixed(fixed) => (Shape::Fixed, None, fixed),
        FaultDelay::Uniform { min, max } => (Shape::Uniform, Some(min), max),
        FaultDelay::Exponential { mean, max } => (Shape::Exponential, Some(mean), max),
    };
    Delay { shape: shape as i32, short: short.map(fields::duration), long: Some(fields::duration(long)) }
}

fn end(end: FaultEnd) -> End {
    let (kind, status) = match end {
        FaultEnd::Http(status) => (EndKind::Http, status.as_u16()),
        FaultEnd::Grpc(status) => (EndKind::Grpc, status),
        FaultEnd::Reset => (EndKind::Reset, 0),
        FaultEnd::Refuse => (EndKind::Refuse, 0),
    };
    End { kind: kind as i32, status: status.into() }
}

pub(super) fn decode(own: Faults, at: &At<'_>) -> Result<model::Faults, Unsupported> {
    let faults = own.faults.into_iter().enumerate();
    let active_for = fields::optional_duration(own.active_for, &at.field("active_for"))?;
    Ok(model::Faults {
        at: own::enumeration::<own::FaultAt, _>(own.at, &at.field("at"))?,
        faults: faults
            .map(|(i, fault)| decode_fault(fault, &at.index("faults", i)))
            .collect::<Result<_, _>>()?,
        seed: own.seed,
        active_for,
        since: own.since,
        stop_if: own.stop_if.map(|stop| decode_stop(stop, &at.field("stop_if"))).transpose()?,
        origin: own.origin.ok_or_else(|| at.field("origin").missing())?.into(),
    })
}

pub(super) fn decode_some(
    own: Option<Faults>,
    at: &At<'_>,
) -> Result<Option<Arc<model::Faults>>, Unsupported> {
    own.map(|own| decode(own, at).map(Arc::new)).transpose()
}

fn decode_stop(own: own::Within, at: &At<'_>) -> Result<model::StopIf, Unsupported> {
    let interval_at = at.field("interval");
    let interval = fields::optional_duration(own.interval, &interval_at)?
        .filter(|interval| model::Ejection::INTERVALS.contains(interval))
        .ok_or_else(|| interval_at.refuse("is not within 1 s and 5 min"))?;
    let most = model::SuccessRate::MAX_REQUESTS;
    if !(1..=most).contains(&own.min_requests) {
        return Err(at.field("min_requests").refuse(format!("{} is not 1 to {most}", own.min_requests)));
    }
    Ok(model::StopIf {
        below: share(own.share, &at.field("share"))?,
        interval,
        min_requests: own.min_requests,
    })
}

fn share(millionths: u32, at: &At<'_>) -> Result<Fraction, Unsupported> {
    Fraction::new(millionths, 1_000_000).ok_or_else(|| at.refuse("more than 1000000 millionths"))
}

fn decode_fault(own: Fault, at: &At<'_>) -> Result<model::Fault, Unsupported> {
    if own.name.is_empty() || !own.name.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(at.field("name").refuse("is not a word of printable ASCII"));
    }
    let (from, matches) = (own.from.into_iter().enumerate(), own.matches.into_iter().enumerate());
    let at_least_one = |given: Option<u64>, name| match given {
        Some(0) => Err(at.field(name).refuse("0 lets nothing through")),
        given => Ok(given),
    };
    let effect = match (own.slow_accept, own.by_headers) {
        (Some(slow), _) => FaultEffect::SlowAccept(decode_delay(slow, &at.field("slow_accept"))?),
        (None, Some(ceiling)) => {
            let at = at.field("by_headers");
            let delay = fields::optional_duration(ceiling.delay, &at.field("delay"))?;
            FaultEffect::ByHeaders(model::FaultCeiling {
                delay: delay
                    .map(|delay| checked(FaultDelay::Fixed(delay), &at).map(|_| delay))
                    .transpose()?,
                abort: ceiling.abort,
                throttle: at_least_one(ceiling.throttle, "throttle")?,
            })
        }
        (None, None) => FaultEffect::Given(model::GivenFault {
            delay: own.delay.map(|delay| decode_delay(delay, &at.field("delay"))).transpose()?,
            end: own.end.map(|end| decode_end(&end, &at.field("end"))).transpose()?,
            throttle: at_least_one(own.throttle, "throttle")?,
            cut: own.cut,
            corrupt_trailers: own.corrupt_trailers,
        }),
    };
    Ok(model::Fault {
        name: own.name.into(),
        from: from
            .map(|(i, peer)| access::decode_peer(peer, &at.index("from", i)))
            .collect::<Result<_, _>>()?,
        matches: matches
            .map(|(i, call)| access::decode_call(call, &at.index("matches", i)))
            .collect::<Result<_, _>>()?,
        share: share(own.share, &at.field("share"))?,
        at_most: (own.at_most > 0).then_some(own.at_most),
        effect,
    })
}

fn checked(delay: FaultDelay, at: &At<'_>) -> Result<FaultDelay, Unsupported> {
    delay.checked().ok_or_else(|| at.refuse("is not within 1 ms and 1 h, the lesser before the greater"))
}

fn decode_delay(own: Delay, at: &At<'_>) -> Result<FaultDelay, Unsupported> {
    let shape = Shape::try_from(own.shape).map_err(|_| at.field("shape").unsupported())?;
    let short = fields::optional_duration(own.short, &at.field("short"))?.unwrap_or_default();
    let long = fields::optional_duration(own.long, &at.field("long"))?.unwrap_or_default();
    let delay = match shape {
        Shape::Fixed => FaultDelay::Fixed(long),
        Shape::Uniform => FaultDelay::Uniform { min: short, max: long },
        Shape::Exponential => FaultDelay::Exponential { mean: short, max: long },
    };
    checked(delay, at)
}

fn decode_end(own: &End, at: &At<'_>) -> Result<FaultEnd, Unsupported> {
    let kind = EndKind::try_from(own.kind).map_err(|_| at.field("kind").unsupported())?;
    let status = u16::try_from(own.status).unwrap_or_default();
    let refused = || at.field("status").refuse(format!("{} is not one that can be injected", own.status));
    Ok(match kind {
        EndKind::Http => FaultEnd::Http(http_status(status).ok_or_else(refused)?),
        EndKind::Grpc if (1..=16).contains(&status) => FaultEnd::Grpc(status),
        EndKind::Grpc => return Err(refused()),
        EndKind::Reset => FaultEnd::Reset,
        EndKind::Refuse => FaultEnd::Refuse,
    })
}

/// 200 to 599.
pub(super) fn http_status(status: u16) -> Option<StatusCode> {
    (200..=599).contains(&status).then(|| StatusCode::from_u16(status).ok()).flatten()
}
