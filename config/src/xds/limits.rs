//! Limits as our own messages, on each port of the listener `inbound`.
//!
//! Envoy is never given an inbound listener by us (it is served as a gateway only), so none of it has to be said in the words of its local rate limit.

use prost::{Enumeration, Message};

use super::at::{At, Unsupported};
use super::{access, circuit_breaker, fields, own, pb};
use crate::model::{self, KeyPart, LimitUnit, PathTemplate, SharedLimit};

#[derive(Clone, PartialEq, Message)]
pub struct Limits {
    #[prost(message, repeated, tag = "1")]
    pub rates: Vec<RateLimit>,
    #[prost(message, repeated, tag = "2")]
    pub concurrency: Vec<Limit>,
    #[prost(message, optional, tag = "3")]
    pub adaptive: Option<own::Adaptive>,
}

#[derive(Clone, PartialEq, Message)]
pub struct RateLimit {
    #[prost(message, optional, tag = "1")]
    pub limit: Option<Limit>,
    #[prost(bool, tag = "2")]
    pub connections: bool,
    #[prost(uint32, tag = "3")]
    pub cost_fixed: u32,
    #[prost(string, optional, tag = "4")]
    pub cost_header: Option<String>,
    #[prost(uint32, tag = "5")]
    pub cost_most: u32,
    #[prost(enumeration = "own::LimitHeaders", tag = "6")]
    pub headers: i32,
    /// Absent: each instance counts for itself.
    #[prost(message, optional, tag = "7")]
    pub shared: Option<Shared>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Shared {
    #[prost(message, optional, tag = "1")]
    pub service: Option<own::ServiceRef>,
    /// Absent: who sent this.
    #[prost(string, optional, tag = "2")]
    pub server: Option<String>,
    #[prost(string, tag = "3")]
    pub domain: String,
    #[prost(bool, tag = "4")]
    pub strict: bool,
    #[prost(uint32, optional, tag = "5")]
    pub batch: Option<u32>,
    #[prost(message, optional, tag = "6")]
    pub timeout: Option<pb::Duration>,
    #[prost(bool, tag = "7")]
    pub closed: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct Limit {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(bool, tag = "2")]
    pub observe: bool,
    #[prost(message, repeated, tag = "3")]
    pub matches: Vec<access::CallMatch>,
    #[prost(message, repeated, tag = "4")]
    pub key: Vec<Part>,
    #[prost(message, optional, tag = "5")]
    pub allowed: Option<Allowance>,
    #[prost(message, repeated, tag = "6")]
    pub overrides: Vec<Override>,
    #[prost(uint32, tag = "7")]
    pub max_keys: u32,
    #[prost(message, optional, tag = "8")]
    pub origin: Option<own::Origin>,
}

/// A rate, or a number of concurrent requests.
#[derive(Clone, PartialEq, Message)]
pub struct Allowance {
    #[prost(uint32, tag = "1")]
    pub amount: u32,
    #[prost(message, optional, tag = "2")]
    pub per: Option<pb::Duration>,
    #[prost(uint32, tag = "3")]
    pub burst: u32,
}

#[derive(Clone, PartialEq, Message)]
pub struct Override {
    #[prost(message, repeated, tag = "1")]
    pub key: Vec<Value>,
    /// Absent: no limit.
    #[prost(message, optional, tag = "2")]
    pub allowed: Option<Allowance>,
}

/// Absent: any.
#[derive(Clone, PartialEq, Message)]
pub struct Value {
    #[prost(string, optional, tag = "1")]
    pub value: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Part {
    #[prost(enumeration = "PartKind", tag = "1")]
    pub kind: i32,
    #[prost(uint32, tag = "2")]
    pub trusted_hops: u32,
    #[prost(string, tag = "3")]
    pub header: String,
    #[prost(string, repeated, tag = "4")]
    pub templates: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum PartKind {
    Identity = 0,
    Namespace = 1,
    Address = 2,
    Header = 3,
    Path = 4,
    Method = 5,
    GrpcMethod = 6,
}

/// What a limit allows to each of its keys.
trait Allowed: Sized {
    fn encode(&self) -> Allowance;
    fn decode(own: Allowance, at: &At<'_>) -> Result<Self, Unsupported>;
}

impl Allowed for model::Rate {
    fn encode(&self) -> Allowance {
        Allowance { amount: self.tokens, per: Some(fields::duration(self.per)), burst: self.burst }
    }

    fn decode(own: Allowance, at: &At<'_>) -> Result<Self, Unsupported> {
        let per = fields::optional_duration(own.per, &at.field("per"))?.unwrap_or_default();
        model::Rate::new(own.amount, per, own.burst)
            .ok_or_else(|| at.refuse("is not a rate within the bounds"))
    }
}

impl Allowed for u32 {
    fn encode(&self) -> Allowance {
        Allowance { amount: *self, per: None, burst: 0 }
    }

    fn decode(own: Allowance, _: &At<'_>) -> Result<Self, Unsupported> {
        Ok(own.amount)
    }
}

pub(super) fn encode(limits: &model::Limits) -> Option<Limits> {
    let rate = |rate: &model::RateLimit| RateLimit {
        limit: Some(encode_limit(&rate.limit)),
        connections: rate.unit == LimitUnit::Connections,
        cost_fixed: rate.cost.fixed,
        cost_header: rate.cost.header.as_ref().map(|name| name.as_str().to_owned()),
        cost_most: rate.cost.most,
        headers: own::LimitHeaders::from(rate.headers) as i32,
        shared: rate.shared.as_ref().map(encode_shared),
    };
    (!limits.is_empty()).then(|| Limits {
        rates: limits.rates.iter().map(rate).collect(),
        concurrency: limits.concurrency.iter().map(encode_limit).collect(),
        adaptive: limits.adaptive.as_ref().map(circuit_breaker::own_adaptive),
    })
}

fn encode_limit<A: Allowed>(limit: &model::Limit<A>) -> Limit {
    let value = |value: &Option<std::sync::Arc<str>>| Value { value: value.as_deref().map(str::to_owned) };
    let given = |given: &model::LimitOverride<A>| Override {
        key: given.key.iter().map(value).collect(),
        allowed: given.allowed.as_ref().map(Allowed::encode),
    };
    Limit {
        name: limit.name.to_string(),
        observe: limit.mode == model::LimitMode::Observe,
        matches: limit.matches.iter().map(access::call).collect(),
        key: limit.key.iter().map(encode_part).collect(),
        allowed: Some(limit.allowed.encode()),
        overrides: limit.overrides.iter().map(given).collect(),
        max_keys: limit.max_keys,
        origin: Some((&limit.origin).into()),
    }
}

fn encode_shared(shared: &SharedLimit) -> Shared {
    Shared {
        service: Some((&shared.service).into()),
        server: shared.server.address.as_deref().map(str::to_owned),
        domain: shared.server.domain.to_string(),
        strict: shared.strict,
        batch: shared.batch,
        timeout: Some(fields::duration(shared.timeout)),
        closed: !shared.open,
    }
}

fn encode_part(part: &KeyPart) -> Part {
    let of = |kind: PartKind| Part { kind: kind as i32, ..Part::default() };
    match part {
        KeyPart::Identity => of(PartKind::Identity),
        KeyPart::Namespace => of(PartKind::Namespace),
        KeyPart::Address { trusted_hops } => {
            Part { trusted_hops: (*trusted_hops).into(), ..of(PartKind::Address) }
        }
        KeyPart::Header(name) => Part { header: name.as_str().to_owned(), ..of(PartKind::Header) },
        KeyPart::Path(templates) => Part {
            templates: templates.iter().map(|template| template.as_str().to_owned()).collect(),
            ..of(PartKind::Path)
        },
        KeyPart::Method => of(PartKind::Method),
        KeyPart::GrpcMethod => of(PartKind::GrpcMethod),
    }
}

/// Absent: no limits, as before there were any.
pub(super) fn decode(own: Option<Limits>, at: &At<'_>) -> Result<model::Limits, Unsupported> {
    let own = own.unwrap_or_default();
    let rates = own.rates.into_iter().enumerate();
    let concurrency = own.concurrency.into_iter().enumerate();
    Ok(model::Limits {
        rates: rates.map(|(i, rate)| decode_rate(rate, &at.index("rates", i))).collect::<Result<_, _>>()?,
        concurrency: concurrency
            .map(|(i, limit)| decode_limit(limit, &at.index("concurrency", i)))
            .collect::<Result<_, _>>()?,
        adaptive: own
            .adaptive
            .map(|adaptive| circuit_breaker::decode_adaptive(adaptive, &at.field("adaptive")))
            .transpose()?,
    })
}

fn decode_rate(own: RateLimit, at: &At<'_>) -> Result<model::RateLimit, Unsupported> {
    let limit = own.limit.ok_or_else(|| at.field("limit").missing())?;
    let limit: model::Limit<model::Rate> = decode_limit(limit, &at.field("limit"))?;
    let bursts = limit.overrides.iter().filter_map(|given| given.allowed).map(|rate| rate.burst);
    let least = bursts.fold(limit.allowed.burst, u32::min);
    if !(1..=least).contains(&own.cost_most) {
        return Err(at.field("cost_most").refuse("is not within the least burst"));
    }
    if !(1..=own.cost_most).contains(&own.cost_fixed) {
        return Err(at.field("cost_fixed").refuse("is not within the most"));
    }
    let shared = own.shared.map(|shared| decode_shared(shared, &limit, &at.field("shared"))).transpose()?;
    let header = own.cost_header.map(|name| fields::header_name(&name, &at.field("cost_header")));
    Ok(model::RateLimit {
        limit,
        unit: if own.connections { LimitUnit::Connections } else { LimitUnit::Requests },
        cost: model::Cost { fixed: own.cost_fixed, header: header.transpose()?, most: own.cost_most },
        headers: own::enumeration::<own::LimitHeaders, _>(own.headers, &at.field("headers"))?,
        shared,
    })
}

fn decode_shared(
    own: Shared,
    limit: &model::Limit<model::Rate>,
    at: &At<'_>,
) -> Result<SharedLimit, Unsupported> {
    let given = limit.overrides.iter().filter_map(|given| given.allowed);
    if !given.chain([limit.allowed]).all(model::Rate::is_shareable) {
        return Err(at.refuse("is for limits whose rates are of one second, minute, hour or day, at once"));
    }
    let timeout = fields::optional_duration(own.timeout, &at.field("timeout"))?;
    let timeout = timeout.unwrap_or(SharedLimit::DEFAULT_TIMEOUT);
    if !SharedLimit::TIMEOUTS.contains(&timeout) {
        return Err(at.field("timeout").refuse("is not 1 ms to 5 s"));
    }
    if own.domain.is_empty() {
        return Err(at.field("domain").missing());
    }
    if own.batch == Some(0) {
        return Err(at.field("batch").refuse("is not 1 or more"));
    }
    Ok(SharedLimit {
        service: own.service.ok_or_else(|| at.field("service").missing())?.into(),
        server: model::LimitServer { address: own.server.map(Into::into), domain: own.domain.into() },
        strict: own.strict,
        batch: own.batch,
        timeout,
        open: !own.closed,
    })
}

fn decode_limit<A: Allowed>(own: Limit, at: &At<'_>) -> Result<model::Limit<A>, Unsupported> {
    let allowed = own.allowed.ok_or_else(|| at.field("allowed").missing())?;
    let key = own.key.into_iter().enumerate().map(|(i, part)| decode_part(part, &at.index("key", i)));
    let key = key.collect::<Result<Vec<_>, _>>()?;
    let matches = own.matches.into_iter().enumerate();
    let mut overrides = Vec::with_capacity(own.overrides.len());
    for (i, given) in own.overrides.into_iter().enumerate() {
        let at = at.index("overrides", i);
        if given.key.len() != key.len() {
            return Err(at.field("key").refuse("has not one value for each part of the limit's key"));
        }
        overrides.push(model::LimitOverride {
            key: given.key.into_iter().map(|value| value.value.map(Into::into)).collect(),
            allowed: given.allowed.map(|own| A::decode(own, &at.field("allowed"))).transpose()?,
        });
    }
    if !(1..=1_000_000).contains(&own.max_keys) {
        return Err(at.field("max_keys").refuse("is not 1 to 1000000"));
    }
    if own.name.is_empty() || !own.name.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(at.field("name").refuse("is not a word of printable ASCII"));
    }
    Ok(model::Limit {
        name: own.name.into(),
        mode: if own.observe { model::LimitMode::Observe } else { model::LimitMode::Enforce },
        matches: matches
            .map(|(i, call)| access::decode_call(call, &at.index("matches", i)))
            .collect::<Result<_, _>>()?,
        key,
        allowed: A::decode(allowed, &at.field("allowed"))?,
        overrides,
        max_keys: own.max_keys,
        origin: own.origin.ok_or_else(|| at.field("origin").missing())?.into(),
    })
}

fn decode_part(own: Part, at: &At<'_>) -> Result<KeyPart, Unsupported> {
    let kind = PartKind::try_from(own.kind).map_err(|_| at.field("kind").unsupported())?;
    Ok(match kind {
        PartKind::Identity => KeyPart::Identity,
        PartKind::Namespace => KeyPart::Namespace,
        PartKind::Address => {
            let trusted_hops = own.trusted_hops.try_into();
            let refused = |_| at.field("trusted_hops").refuse(format!("{} is too many", own.trusted_hops));
            KeyPart::Address { trusted_hops: trusted_hops.map_err(refused)? }
        }
        PartKind::Header => KeyPart::Header(fields::header_name(&own.header, &at.field("header"))?),
        PartKind::Path => {
            let template = |(i, text): (usize, String)| {
                PathTemplate::new(&text).map_err(|why| at.index("templates", i).refuse(why))
            };
            KeyPart::Path(own.templates.into_iter().enumerate().map(template).collect::<Result<_, _>>()?)
        }
        PartKind::Method => KeyPart::Method,
        PartKind::GrpcMethod => KeyPart::GrpcMethod,
    })
}
