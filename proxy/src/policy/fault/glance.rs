//! What of a fault's conditions can be told at a glance, made once a policy: nearly all requests meet none, and pay for nothing closer.

use http::{HeaderMap, HeaderName};
use outrigger_config::model::{Fault, FaultEffect, FaultEnd, GivenFault, HeaderTest};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Glance {
    /// No call: connections meet it, before there is any.
    None,
    /// Every request.
    All,
    /// Only requests with such a field; the rest has to be looked at.
    With(HeaderName),
    /// It has to be looked at.
    Closer,
}

impl Glance {
    pub fn of(fault: &Fault) -> Self {
        match &fault.effect {
            FaultEffect::SlowAccept(_) => return Self::None,
            FaultEffect::Given(GivenFault { end: Some(FaultEnd::Grpc(_)), .. }) => return Self::Closer,
            FaultEffect::Given(_) | FaultEffect::ByHeaders(_) => {}
        }
        match &*fault.matches {
            [] if fault.from.is_empty() => Self::All,
            [call] => match &*call.headers.is {
                [HeaderTest::Value(test)] => Self::With(test.name.clone()),
                [HeaderTest::Present(name)] => name.parse().map_or(Self::Closer, Self::With),
                _ => Self::Closer,
            },
            _ => Self::Closer,
        }
    }

    /// Whether a request meets the fault, where that can be told.
    pub fn meets(&self, headers: &HeaderMap) -> Option<bool> {
        match self {
            Self::None => Some(false),
            Self::All => Some(true),
            Self::With(name) if !headers.contains_key(name) => Some(false),
            Self::With(_) | Self::Closer => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Method};
    use outrigger_config::model::access::{Call, Caller};
    use outrigger_config::model::{Among, CallMatch, FaultDelay, Fraction, HeaderMatch, StringMatch};

    use super::*;

    fn among<T>(is: impl IntoIterator<Item = T>) -> Among<T> {
        Among { is: is.into_iter().collect(), is_not: Vec::new() }
    }

    fn with(tests: impl IntoIterator<Item = HeaderTest>) -> CallMatch {
        CallMatch { headers: among(tests), ..CallMatch::default() }
    }

    fn value(name: &'static str) -> HeaderTest {
        let value = StringMatch::Exact("1".into());
        HeaderTest::Value(HeaderMatch { name: HeaderName::from_static(name), value })
    }

    fn fault(matches: Vec<CallMatch>, effect: FaultEffect) -> Fault {
        Fault { name: "f".into(), from: Vec::new(), matches, share: Fraction::ALL, at_most: None, effect }
    }

    #[test]
    fn what_is_told_at_a_glance_is_what_a_close_look_says() {
        let given = || FaultEffect::Given(GivenFault { cut: Some(1), ..GivenFault::default() });
        let absent = Among { is: Vec::new(), is_not: vec![value("x-a")] };
        let lists = [
            (vec![], Glance::All),
            (vec![with([value("x-a")])], Glance::With(HeaderName::from_static("x-a"))),
            (vec![with([HeaderTest::Present("x-a".into())])], Glance::With(HeaderName::from_static("x-a"))),
            (vec![with([value("x-a"), value("x-b")])], Glance::Closer), // one of them is enough
            (vec![with([value("x-a")]), with([value("x-b")])], Glance::Closer),
            (vec![CallMatch { headers: absent, ..CallMatch::default() }], Glance::Closer),
            (vec![CallMatch { methods: among(["POST".into()]), ..CallMatch::default() }], Glance::Closer),
        ];
        for (matches, expected) in lists {
            let fault = fault(matches, given());
            let glance = Glance::of(&fault);
            assert_eq!(glance, expected, "{fault:?}");
            for names in [&[][..], &["x-a"], &["x-b"], &["x-a", "x-b"], &["accept"]] {
                let mut headers = HeaderMap::new();
                for name in names {
                    headers.insert(*name, HeaderValue::from_static("1"));
                }
                let call = Call { method: &Method::GET, path: "/", host: "h", headers: Some(&headers) };
                let caller = Caller { identity: None, address: [127, 0, 0, 1].into() };
                if let Some(told) = glance.meets(&headers) {
                    assert_eq!(told, fault.concerns(caller, Some(&call)), "{names:?}: {fault:?}");
                }
            }
        }
    }

    #[test]
    fn what_hits_connections_is_met_by_no_call_and_what_ends_grpc_not_by_all() {
        let slow = FaultEffect::SlowAccept(FaultDelay::Fixed(std::time::Duration::from_secs(1)));
        assert_eq!(Glance::of(&fault(vec![], slow)), Glance::None);
        let grpc = GivenFault { end: Some(FaultEnd::Grpc(14)), ..GivenFault::default() };
        assert_eq!(Glance::of(&fault(vec![], FaultEffect::Given(grpc))), Glance::Closer);
    }
}
