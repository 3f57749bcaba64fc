//! Faults that a policy puts into calls on purpose: which calls, how often, and what happens to them.
//!
//! Owns what an experiment says. Never throws the dice and keeps no time: that is the proxy's.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use serde::{Serialize, Serializer};

use super::access::{Call, Caller, canonical};
use super::{CallMatch, Fraction, Origin, PeerMatch};

/// One policy's faults, begun and ended together.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Faults {
    pub at: FaultAt,
    /// Each throws dice of its own; what they do adds up, and the first that ends a call ends it.
    pub faults: Vec<Fault>,
    /// What all dice are thrown by; `None`: other ones in each process.
    pub seed: Option<u64>,
    /// From the moment a proxy first has it, or from `since`. `None`: as long as the policy is there. 1 s to 7 days.
    pub active_for: Option<Duration>,
    /// When the control plane first had it; milliseconds since 1970. `None` where nobody remembers that.
    pub since: Option<u64>,
    pub stop_if: Option<StopIf>,
    /// The policy and `spec.fault`.
    pub origin: Origin,
}

/// Which proxy does it, and when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub enum FaultAt {
    /// The caller's, once a request, before anything is sent or sent again.
    #[default]
    Caller,
    /// The caller's, with each attempt: what a retry heals is healed.
    CallerBehindRetries,
    /// That of the workload, before its app.
    Callee,
}

impl FaultAt {
    pub const fn word(self) -> &'static str {
        match self {
            Self::Caller => "Caller",
            Self::CallerBehindRetries => "CallerBehindRetries",
            Self::Callee => "Callee",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fault {
    /// Unique within its policy. Printable ASCII.
    pub name: Arc<str>,
    /// Callers that meet one of these; none is no condition.
    pub from: Vec<PeerMatch>,
    /// Requests that meet one of these; none is no condition. Connections that carry no HTTP meet those without conditions on HTTP.
    pub matches: Vec<CallMatch>,
    /// Of what matches, how much is hit.
    pub share: Fraction,
    /// Calls hit at the same time by one proxy; what comes on top is let alone. `None`: any number. At least 1.
    pub at_most: Option<u32>,
    pub effect: FaultEffect,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum FaultEffect {
    Given(GivenFault),
    /// What the request's own headers ask for, within these bounds.
    ByHeaders(FaultCeiling),
    /// Connections wait so long before anything is done about them. At the callee alone.
    SlowAccept(FaultDelay),
}

/// At least one of its fields says something.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct GivenFault {
    pub delay: Option<FaultDelay>,
    pub end: Option<FaultEnd>,
    /// Bytes a second of the answer; at least 1.
    pub throttle: Option<u64>,
    /// The answer breaks off after so many bytes of its body.
    pub cut: Option<u64>,
    /// The values of the answer's trailers are made unusable.
    pub corrupt_trailers: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub enum FaultDelay {
    Fixed(Duration),
    /// Evenly between both.
    Uniform {
        min: Duration,
        max: Duration,
    },
    /// Mostly short and sometimes long, as waiting times are; what is drawn beyond `max` is `max`.
    Exponential {
        mean: Duration,
        max: Duration,
    },
}

impl FaultDelay {
    pub const LONGEST: Duration = Duration::from_secs(3600);

    /// `None` outside the bounds: 1 ms to an hour, the lesser first.
    pub fn checked(self) -> Option<Self> {
        let fits = |given: Duration| given >= Duration::from_millis(1) && given <= Self::LONGEST;
        let holds = match self {
            Self::Fixed(delay) => fits(delay),
            Self::Uniform { min, max } => max >= min && fits(max),
            Self::Exponential { mean, max } => fits(mean) && max >= mean && fits(max),
        };
        holds.then_some(self)
    }
}

/// How a call ends without its callee.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum FaultEnd {
    /// 200 to 599; a gRPC caller gets the gRPC status that stands for it.
    Http(#[serde(serialize_with = "number")] StatusCode),
    /// 1 to 16. Requests that are no gRPC calls do not meet it.
    Grpc(u16),
    /// The caller's connection, over HTTP/2 its stream, is reset.
    Reset,
    /// As if nobody listened there.
    Refuse,
}

/// How far headers may go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FaultCeiling {
    /// `None`: no delay by header.
    pub delay: Option<Duration>,
    pub abort: bool,
    /// Bytes a second at least; `None`: no throttle by header.
    pub throttle: Option<u64>,
}

/// When an experiment has done enough harm.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct StopIf {
    /// Of the answers that are not injected, fewer than these succeed.
    pub below: Fraction,
    /// 1 s to 5 min; default 10 s.
    pub interval: Duration,
    /// With fewer answers within `interval` nothing is concluded. 1 to 10,000; default 20.
    pub min_requests: u32,
}

impl StopIf {
    pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(10);
    pub const DEFAULT_MIN_REQUESTS: u32 = 20;
}

impl Faults {
    pub const MOST: usize = 16;
    pub const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

    /// `NAMESPACE/NAME` of the policy.
    pub fn policy(&self) -> String {
        format!("{}/{}", self.origin.namespace, self.origin.name)
    }

    /// What of it concerns one port of a workload; `None` where nothing does.
    pub fn at_port(&self, port: u16) -> Option<Self> {
        let at = |fault: &Fault| {
            let matches: Vec<_> = fault.matches.iter().filter_map(|call| call.at(port)).collect();
            (fault.matches.is_empty() || !matches.is_empty()).then(|| Fault { matches, ..fault.clone() })
        };
        let faults: Vec<_> = self.faults.iter().filter_map(at).collect();
        (!faults.is_empty()).then(|| Self { faults, ..self.clone() })
    }
}

impl Fault {
    /// Whether it may hit this request, or this connection that carries no HTTP (`None`). What cannot be told for certain is let alone: a caller that
    /// proved nothing, a path that can be read in two ways where one is compared.
    pub fn concerns(&self, caller: Caller<'_>, call: Option<&Call<'_>>) -> bool {
        let from = || self.from.iter().any(|peer| peer.surely(caller));
        if !self.from.is_empty() && !from() {
            return false;
        }
        if self.matches.is_empty() {
            return true;
        }
        match call {
            None => self.matches.iter().any(|to| !to.is_http()),
            Some(call) => {
                let compared = self.matches.iter().any(CallMatch::compares_paths);
                let path = compared.then(|| canonical(call.path).ok()).flatten();
                self.matches.iter().any(|to| to.surely(call, path.as_deref()))
            }
        }
    }

    /// Whether only requests can meet it.
    pub fn is_http(&self) -> bool {
        let by_effect = match &self.effect {
            FaultEffect::ByHeaders(_) => true,
            FaultEffect::SlowAccept(_) => false,
            FaultEffect::Given(given) => {
                given.corrupt_trailers || matches!(given.end, Some(FaultEnd::Http(_) | FaultEnd::Grpc(_)))
            }
        };
        by_effect || (!self.matches.is_empty() && self.matches.iter().all(CallMatch::is_http))
    }
}

fn number<S: Serializer>(status: &StatusCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u16(status.as_u16())
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method};

    use super::*;
    use crate::model::{AccessPath, Among, HeaderMatch, HeaderTest, SpiffeId, StringMatch};

    fn fault(from: Vec<PeerMatch>, matches: Vec<CallMatch>) -> Fault {
        let effect = FaultEffect::Given(GivenFault { cut: Some(1), ..GivenFault::default() });
        Fault { name: "f".into(), from, matches, share: Fraction::ALL, at_most: None, effect }
    }

    fn among<T>(is: T) -> Among<T> {
        Among { is: vec![is], is_not: Vec::new() }
    }

    #[test]
    fn only_what_is_certain_is_hit() {
        let jason = HeaderTest::Value(HeaderMatch {
            name: http::HeaderName::from_static("end-user"),
            value: StringMatch::Exact("jason".into()),
        });
        let by_header = fault(vec![], vec![CallMatch { headers: among(jason), ..CallMatch::default() }]);
        let path = AccessPath::prefix("/a").expect("a path");
        let by_path = fault(vec![], vec![CallMatch { paths: among(path), ..CallMatch::default() }]);
        let accounts =
            PeerMatch { home: vec!["td".into()], namespaces: among("shop".into()), ..PeerMatch::default() };
        let by_caller = fault(vec![accounts], vec![]);
        let shop: SpiffeId = "spiffe://td/ns/shop/sa/web".parse().expect("an id");
        let other: SpiffeId = "spiffe://td/ns/other/sa/web".parse().expect("an id");
        let (get, mut headers) = (Method::GET, HeaderMap::new());
        let address = "127.0.0.1".parse().expect("an address");
        let hit = |fault: &Fault, identity: Option<&SpiffeId>, path: &str, headers: &HeaderMap| {
            let call = Call { method: &get, path, host: "a", headers: Some(headers) };
            fault.concerns(Caller { identity, address }, Some(&call))
        };
        assert!(hit(&by_caller, Some(&shop), "/", &headers));
        assert!(!hit(&by_caller, Some(&other), "/", &headers));
        assert!(!hit(&by_caller, None, "/", &headers), "who proved nothing is nobody");
        assert!(hit(&by_path, None, "/a/b", &headers));
        assert!(hit(&by_path, None, "/x/../a", &headers), "in whatever spelling");
        assert!(!hit(&by_path, None, "/a%2fb", &headers), "it can be read in two ways");
        assert!(!hit(&by_path, None, "/ab", &headers));
        assert!(!hit(&by_header, None, "/", &headers));
        headers.insert("end-user", "jason".parse().expect("a value"));
        assert!(hit(&by_header, None, "/", &headers));
        let bytes = |fault: &Fault| fault.concerns(Caller { identity: Some(&shop), address }, None);
        assert!(bytes(&by_caller) && !bytes(&by_path) && !bytes(&by_header));
    }

    #[test]
    fn a_delay_is_within_its_bounds() {
        let s = Duration::from_secs;
        for (delay, want) in [
            (FaultDelay::Fixed(s(7)), true),
            (FaultDelay::Fixed(Duration::ZERO), false),
            (FaultDelay::Fixed(s(3601)), false),
            (FaultDelay::Uniform { min: Duration::ZERO, max: s(1) }, true),
            (FaultDelay::Uniform { min: s(2), max: s(1) }, false),
            (FaultDelay::Exponential { mean: s(1), max: s(30) }, true),
            (FaultDelay::Exponential { mean: s(1), max: Duration::from_millis(999) }, false),
            (FaultDelay::Exponential { mean: Duration::ZERO, max: s(1) }, false),
        ] {
            assert_eq!(delay.checked().is_some(), want, "{delay:?}");
        }
    }
}
