//! Which of several policies that concern the same call decides.
//!
//! For each section of a policy on its own: a consumer's before a producer's as a whole, then the most specific target, then the older, then
//! `NAMESPACE/NAME`. Owns that order and the words for it. Never knows what the sections say.

use std::fmt;

use super::precedence::{Reason, Seniority};

/// Whose wish it is. Gateway API calls a route in its Service's namespace the producer's, any other the consumer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// In another namespace than the Service: binds callers in its own namespace alone.
    Consumer,
    /// In the Service's namespace, or for the whole mesh: binds every caller.
    Producer,
}

/// What a policy is attached to, the most specific first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// The `timeouts` a rule of a route carries itself.
    Inline,
    Rule,
    Route,
    ServicePort,
    Service,
    Namespace,
    Mesh,
}

/// A policy's place among those that concern one call; the least decides.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Standing {
    pub side: Side,
    pub reach: Reach,
    pub seniority: Seniority,
}

impl Standing {
    /// Why the first in order of two is the first.
    pub fn reason(&self, other: &Self) -> Why {
        if self.side != other.side {
            Why::Side
        } else if self.reach != other.reach {
            Why::Reach(self.reach.min(other.reach), self.reach.max(other.reach))
        } else {
            Why::Seniority(self.seniority.reason(&other.seniority))
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    Side,
    Reach(Reach, Reach),
    Seniority(Reason),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Side => f.write_str("the caller's namespace goes before the service's"),
            Self::Reach(first, second) => write!(f, "{first} goes before {second}"),
            Self::Seniority(reason) => reason.fmt(f),
        }
    }
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inline => "the rule's own field",
            Self::Rule => "a policy for the rule",
            Self::Route => "a policy for the route",
            Self::ServicePort => "a policy for the service's port",
            Self::Service => "a policy for the service",
            Self::Namespace => "a policy for the namespace",
            Self::Mesh => "a policy for the mesh",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(side: Side, reach: Reach, created: Option<i64>, name: &str) -> Standing {
        Standing { side, reach, seniority: Seniority::new(created, "ns", name) }
    }

    #[test]
    fn who_decides_and_why() {
        use Reach::{Inline, Mesh, Namespace, Route, Rule, Service, ServicePort};
        use Side::{Consumer, Producer};
        for (winner, loser, why) in [
            // A consumer knows what it can wait for, whatever the producer's rule says.
            ((Consumer, Namespace, None, "z"), (Producer, Rule, Some(1), "a"), Why::Side),
            ((Consumer, Service, None, "z"), (Producer, Inline, Some(1), "a"), Why::Side),
            ((Producer, Inline, None, "z"), (Producer, Rule, Some(1), "a"), Why::Reach(Inline, Rule)),
            ((Producer, Rule, None, "z"), (Producer, Route, Some(1), "a"), Why::Reach(Rule, Route)),
            (
                (Producer, Route, None, "z"),
                (Producer, ServicePort, Some(1), "a"),
                Why::Reach(Route, ServicePort),
            ),
            (
                (Producer, ServicePort, None, "z"),
                (Producer, Service, Some(1), "a"),
                Why::Reach(ServicePort, Service),
            ),
            (
                (Producer, Service, None, "z"),
                (Producer, Namespace, Some(1), "a"),
                Why::Reach(Service, Namespace),
            ),
            ((Producer, Namespace, None, "z"), (Producer, Mesh, Some(1), "a"), Why::Reach(Namespace, Mesh)),
            (
                (Consumer, Service, Some(1), "z"),
                (Consumer, Service, Some(2), "a"),
                Why::Seniority(Reason::Older),
            ),
            ((Producer, Service, None, "a"), (Producer, Service, None, "b"), Why::Seniority(Reason::Name)),
        ] {
            let a = standing(winner.0, winner.1, winner.2, winner.3);
            let b = standing(loser.0, loser.1, loser.2, loser.3);
            assert!(a < b, "{winner:?} before {loser:?}");
            assert_eq!(a.reason(&b), why, "{winner:?} before {loser:?}");
            assert_eq!(b.reason(&a), why, "whichever is asked");
        }
    }
}
