//! Faults as Envoy's fault filter has them, configured on the route.
//!
//! It has one fixed delay, one abort and one throttle for whatever its headers match, before its retries. An experiment that says more, or that would end by itself, is not
//! given to Envoy at all: one that goes on for ever is another one. Read, each of the three is a fault with dice of its own, as they are there.

use std::collections::HashMap;
use std::time::Duration;

use http::StatusCode;

use super::super::at::{At, Unsupported, take};
use super::super::faults::http_status;
use super::super::fields;
use super::super::pb::fault::{self as proto, fault_abort::ErrorType};
use super::super::pb::fault_common::{
    FaultDelay as Delay, FaultRateLimit as RateLimit, fault_delay::FaultDelaySecifier as DelayKind,
    fault_rate_limit::FixedLimit, fault_rate_limit::LimitType,
};
use super::super::pb::{self, route::HeaderMatcher};
use super::matches::{header_matcher, header_value};
use crate::model::{
    Among, CallMatch, Fault, FaultAt, FaultCeiling, FaultDelay, FaultEffect, FaultEnd, Faults, Fraction,
    GivenFault, HeaderMatch, HeaderTest, Origin, StringMatch,
};

const FILTER: &str = "envoy.filters.http.fault";
const METHOD: &str = ":method";

/// Whether Envoy's filter says all of it.
pub(in crate::xds) fn says_all(faults: &Faults) -> bool {
    encode(faults).is_some()
}

/// `None` where Envoy's words do not say all of it.
pub(super) fn encode(faults: &Faults) -> Option<(String, pb::Any)> {
    let ends = faults.active_for.is_some() || faults.stop_if.is_some();
    if faults.at != FaultAt::Caller || ends {
        return None;
    }
    let first = faults.faults.first()?;
    let mut message = proto::HttpFault { headers: headers(&first.matches)?, ..Default::default() };
    for fault in &faults.faults {
        let FaultEffect::Given(given) = &fault.effect else { return None };
        let unknown = given.cut.is_some() || given.corrupt_trailers;
        if !fault.from.is_empty() || fault.matches != first.matches || unknown {
            return None;
        }
        let several = [given.delay.is_some(), given.end.is_some(), given.throttle.is_some()];
        // It throws for each of them apart.
        if several.iter().filter(|given| **given).count() > 1 && fault.share != Fraction::ALL {
            return None;
        }
        if let Some(delay) = given.delay {
            let FaultDelay::Fixed(fixed) = delay else { return None };
            let delay = Delay {
                percentage: percent(fault.share),
                fault_delay_secifier: Some(DelayKind::FixedDelay(fields::duration(fixed))),
            };
            once(&mut message.delay, delay)?;
        }
        if let Some(end) = given.end {
            let error_type = match end {
                FaultEnd::Http(status) => ErrorType::HttpStatus(status.as_u16().into()),
                FaultEnd::Grpc(status) => ErrorType::GrpcStatus(status.into()),
                FaultEnd::Reset | FaultEnd::Refuse => return None,
            };
            let abort = proto::FaultAbort {
                percentage: percent(fault.share),
                error_type: Some(error_type),
                ..Default::default()
            };
            once(&mut message.abort, abort)?;
        }
        if let Some(throttle) = given.throttle {
            let limit_kbps = (throttle % 1024 == 0).then_some(throttle / 1024)?;
            let limit = RateLimit {
                percentage: percent(fault.share),
                limit_type: Some(LimitType::FixedLimit(FixedLimit { limit_kbps })),
            };
            once(&mut message.response_rate_limit, limit)?;
        }
    }
    // It counts the calls of all that it does together.
    if let Some(most) = first.at_most {
        message.max_active_faults = Some(pb::UInt32Value { value: most });
    }
    if faults.faults.len() > 1 && faults.faults.iter().any(|fault| fault.at_most.is_some()) {
        return None;
    }
    Some((FILTER.to_owned(), fields::pack(&message)))
}

fn once<T>(place: &mut Option<T>, value: T) -> Option<()> {
    place.replace(value).is_none().then_some(())
}

/// All of Envoy's have to hold, of ours one of each kind.
fn headers(matches: &[CallMatch]) -> Option<Vec<HeaderMatcher>> {
    let matches = match matches {
        [] => return Some(Vec::new()),
        [one] => one,
        _ => return None,
    };
    let CallMatch { ports, methods, paths, calls, hosts, headers } = matches;
    let rest_is_empty = ports.is_empty() && paths.is_empty() && calls.is_empty() && hosts.is_empty();
    let single = methods.is.len() <= 1 && headers.is.len() <= 1;
    if !rest_is_empty || !single || !methods.is_not.is_empty() || !headers.is_not.is_empty() {
        return None;
    }
    let method = methods.is.iter().map(|method| header_matcher(METHOD, &StringMatch::Exact(method.clone())));
    let header = headers.is.iter().map(|test| match test {
        HeaderTest::Present(name) => HeaderMatcher {
            name: name.to_string(),
            header_match_specifier: Some(pb::route::header_matcher::HeaderMatchSpecifier::PresentMatch(true)),
            ..Default::default()
        },
        HeaderTest::Value(test) => header_matcher(test.name.as_str(), &test.value),
    });
    Some(method.chain(header).collect())
}

fn percent(share: Fraction) -> Option<pb::percent::FractionalPercent> {
    fields::fraction(share)?.default_value
}

/// Takes the filter's configuration out of those of a route; `origin` is the route's.
pub(super) fn take_out(
    configs: &mut HashMap<String, pb::Any>,
    origin: &Origin,
    at: &At<'_>,
) -> Result<Option<Faults>, Unsupported> {
    let ours = |(_, any): &(&String, &pb::Any)| any.type_url == <proto::HttpFault as prost::Name>::type_url();
    let Some(name) = configs.iter().find(ours).map(|(name, _)| name.clone()) else { return Ok(None) };
    let any = configs.remove(&name).unwrap_or_default();
    let at = at.key("typed_per_filter_config", &name);
    decode(fields::unpack(&any, &at)?, origin, &at)
}

/// `None` where nothing is said, which is how control planes put the filter in place.
pub(in crate::xds) fn decode(
    message: proto::HttpFault,
    origin: &Origin,
    at: &At<'_>,
) -> Result<Option<Faults>, Unsupported> {
    take! { at, message => proto::HttpFault;
        read { delay, abort, response_rate_limit, headers, max_active_faults }
        // Names for Envoy's own runtime and statistics.
        ignore {
            delay_percent_runtime, abort_percent_runtime, delay_duration_runtime, abort_http_status_runtime,
            max_active_faults_runtime, response_rate_limit_percent_runtime, abort_grpc_status_runtime,
            disable_downstream_cluster_stats, filter_metadata
        }
        refuse { upstream_cluster, downstream_nodes }
    };
    let matches = decode_headers(headers, at)?;
    let mut faults = Vec::new();
    let mut add = |name: &str, percentage, effect, at: &At<'_>| {
        let share = fields::optional_percent(percentage, &at.field("percentage"))?.unwrap_or(Fraction::ZERO);
        faults.push(Fault {
            name: name.into(),
            from: Vec::new(),
            matches: matches.iter().cloned().collect(),
            share,
            at_most: None,
            effect,
        });
        Ok(())
    };
    if let Some(delay) = delay {
        let at = at.field("delay");
        let effect = match delay.fault_delay_secifier {
            Some(DelayKind::FixedDelay(fixed)) => {
                let fixed_at = at.field("fixed_delay");
                let fixed = fields::optional_duration(Some(fixed), &fixed_at)?.unwrap_or_default();
                let delay = FaultDelay::Fixed(fixed).checked();
                let delay = delay.ok_or_else(|| fixed_at.refuse("is not within 1 ms and 1 h"))?;
                FaultEffect::Given(GivenFault { delay: Some(delay), ..GivenFault::default() })
            }
            Some(DelayKind::HeaderDelay(_)) => {
                let delay: Option<Duration> = Some(FaultDelay::LONGEST);
                FaultEffect::ByHeaders(FaultCeiling { delay, ..FaultCeiling::default() })
            }
            None => return Err(at.field("fault_delay_secifier").missing()),
        };
        add("delay", delay.percentage, effect, &at)?;
    }
    if let Some(limit) = response_rate_limit {
        let at = at.field("response_rate_limit");
        let effect = match limit.limit_type {
            Some(LimitType::FixedLimit(FixedLimit { limit_kbps })) => {
                let rate = limit_kbps.checked_mul(1024).filter(|rate| *rate > 0);
                let throttle = rate.ok_or_else(|| at.field("fixed_limit").refuse("is not a limit"))?;
                FaultEffect::Given(GivenFault { throttle: Some(throttle), ..GivenFault::default() })
            }
            Some(LimitType::HeaderLimit(_)) => {
                FaultEffect::ByHeaders(FaultCeiling { throttle: Some(1), ..FaultCeiling::default() })
            }
            None => return Err(at.field("limit_type").missing()),
        };
        add("throttle", limit.percentage, effect, &at)?;
    }
    if let Some(abort) = abort {
        let at = at.field("abort");
        if !abort.response_body.is_empty() {
            return Err(at.field("response_body").unsupported());
        }
        let given = |end| FaultEffect::Given(GivenFault { end: Some(end), ..GivenFault::default() });
        let effect = match abort.error_type {
            Some(ErrorType::HttpStatus(status)) => {
                let known: Option<StatusCode> = u16::try_from(status).ok().and_then(http_status);
                let refused = || at.field("http_status").refuse(format!("{status} is not 200 to 599"));
                given(FaultEnd::Http(known.ok_or_else(refused)?))
            }
            Some(ErrorType::GrpcStatus(status @ 1..=16)) => given(FaultEnd::Grpc(status as u16)),
            Some(ErrorType::GrpcStatus(status)) => {
                return Err(at.field("grpc_status").refuse(format!("{status} is not 1 to 16")));
            }
            Some(ErrorType::HeaderAbort(_)) => {
                FaultEffect::ByHeaders(FaultCeiling { abort: true, ..FaultCeiling::default() })
            }
            None => return Err(at.field("error_type").missing()),
        };
        add("abort", abort.percentage, effect, &at)?;
    }
    if let Some(most) = max_active_faults {
        let at = at.field("max_active_faults");
        if most.value == 0 {
            return Err(at.refuse("0 lets nothing happen"));
        }
        match &mut faults[..] {
            [] => {}
            [fault] => fault.at_most = Some(most.value),
            _ => return Err(at.refuse("is of one fault alone here")),
        }
    }
    Ok((!faults.is_empty()).then(|| Faults {
        at: FaultAt::Caller,
        faults,
        seed: None,
        active_for: None,
        since: None,
        stop_if: None,
        origin: origin.clone(),
    }))
}

fn decode_headers(headers: Vec<HeaderMatcher>, at: &At<'_>) -> Result<Option<CallMatch>, Unsupported> {
    if headers.is_empty() {
        return Ok(None);
    }
    let mut matches = CallMatch::default();
    for (i, header) in headers.into_iter().enumerate() {
        let at = at.index("headers", i);
        let name = header.name.clone();
        let value = header_value(header, &at)?;
        if name == METHOD {
            let StringMatch::Exact(method) = value else {
                return Err(at.refuse("a method is compared with one exact token"));
            };
            matches.methods = among(matches.methods, method, &at)?;
        } else {
            let name = fields::header_name(&name, &at.field("name"))?;
            let test = HeaderTest::Value(HeaderMatch { name, value });
            matches.headers = among(matches.headers, test, &at)?;
        }
    }
    Ok(Some(matches))
}

/// Of several of ours one is enough, of Envoy's all have to hold: there can be one.
fn among<T>(before: Among<T>, item: T, at: &At<'_>) -> Result<Among<T>, Unsupported> {
    if !before.is.is_empty() {
        return Err(at.refuse("a second condition of its kind is not supported"));
    }
    Ok(Among { is: vec![item], is_not: Vec::new() })
}
