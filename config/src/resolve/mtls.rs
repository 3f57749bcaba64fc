//! Whether callers of a workload's port have to prove who they are.

use std::sync::Arc;

use crate::model::{Mtls, MtlsMode};
use crate::registry::{AccessPolicy, Registry, Workload};

impl Registry {
    /// The most specific word counts: a policy that selects the workload before one of its namespace, in each a port's own mode before that of all
    /// ports, of two alike the older one's; then the Mesh's. `port: None` is any port the workload does not declare.
    pub(super) fn mtls(&self, workload: &Workload, port: Option<u16>) -> Mtls {
        self.access_policies(workload)
            .filter_map(|policy| Some((standing(policy, port)?, policy)))
            // The first of several, which is the oldest.
            .min_by_key(|((rank, ..), policy)| (!policy.selects(), *rank))
            .map(|((_, mode, field), policy)| Mtls { mode, origin: Some(policy.origin.at(&field)) })
            .unwrap_or_else(|| self.mesh_mtls().clone())
    }
}

/// How near a policy's word is to the port, and what it says.
fn standing(policy: &AccessPolicy, port: Option<u16>) -> Option<(u8, MtlsMode, Arc<str>)> {
    let section = &policy.mtls;
    let own = section.ports.iter().find(|own| Some(own.port) == port);
    let own = own.map(|own| (0, own.mode, own.field.clone()));
    own.or_else(|| Some((1, section.mode?, "spec.mtls.mode".into())))
}
