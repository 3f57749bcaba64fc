//! Who may call a workload: its AccessPolicies in the words a proxy enforces.

use crate::model::{Access, AccessPolicy, AccessRule, PeerMatch};
use crate::registry::{AccessPolicy as Policy, Registry, Workload};

impl Registry {
    /// All policies with rules that are about the workload, in alphabetical order.
    pub(super) fn access(&self, workload: &Workload) -> Access {
        let mut policies: Vec<_> = self
            .access_policies(workload)
            .filter(|policy| !policy.rules.is_empty())
            .map(|policy| self.access_policy(policy))
            .collect();
        policies.sort_by(|a, b| a.origin.name.cmp(&b.origin.name));
        Access { default: self.mesh_access().clone(), policies }
    }

    fn access_policy(&self, policy: &Policy) -> AccessPolicy {
        // Namespaces and service accounts are the mesh's own unless another trust domain is named.
        let at_home = |peer: &PeerMatch| {
            let mut peer = peer.clone();
            if peer.home.is_empty() {
                peer.home.push(self.settings().trust_domain.clone());
            }
            peer
        };
        let rule =
            |rule: &AccessRule| AccessRule { from: rule.from.iter().map(at_home).collect(), ..rule.clone() };
        AccessPolicy {
            mode: policy.mode,
            rules: policy.rules.iter().map(rule).collect(),
            origin: policy.origin.clone(),
        }
    }
}
