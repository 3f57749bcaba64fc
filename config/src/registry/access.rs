//! AccessPolicies as the registry knows them, and the workloads they are about.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::model::{AccessMode, AccessRule, MtlsMode, Origin};
use crate::resolve::precedence::Seniority;

use super::instance::Workload;
use super::lower::{Labels, LoweredWorkload};
use super::select::{Carriers, carriers_of};
use super::{Id, Registry};

#[derive(Clone, Debug, PartialEq)]
pub struct AccessPolicy {
    pub namespace: Arc<str>,
    pub seniority: Seniority,
    /// Empty: all workloads of the namespace.
    pub(super) selector: Labels,
    pub mtls: MtlsSection,
    pub mode: AccessMode,
    /// Without the trust domains that go without saying.
    pub rules: Vec<AccessRule>,
    pub origin: Origin,
}

/// `mtls`; absent it says nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MtlsSection {
    pub mode: Option<MtlsMode>,
    pub ports: Vec<PortMtls>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct PortMtls {
    pub port: u16,
    pub mode: MtlsMode,
    /// `spec.mtls.ports[0]`
    pub field: Arc<str>,
}

impl AccessPolicy {
    /// Whether it is about chosen workloads, and not about all of its namespace.
    pub fn selects(&self) -> bool {
        !self.selector.is_empty()
    }
}

/// All AccessPolicies, and which of them are about whom.
#[derive(Debug, Default)]
pub(super) struct AccessPolicies {
    pub all: BTreeMap<Id, Arc<AccessPolicy>>,
    /// Those without a selector, oldest first.
    by_namespace: HashMap<Arc<str>, Vec<Arc<AccessPolicy>>>,
    /// Those that select, by the workload they select, oldest first.
    by_workload: HashMap<Id, Vec<Arc<AccessPolicy>>>,
}

impl AccessPolicies {
    pub fn insert(&mut self, policy: AccessPolicy) {
        let id = (policy.namespace.clone(), policy.origin.name.clone());
        self.all.insert(id, Arc::new(policy));
    }

    /// Finds out who is selected. Called once all policies are in.
    pub fn select(&mut self, carriers: &Carriers<'_>) {
        let mut policies: Vec<_> = self.all.values().cloned().collect();
        policies.sort_by(|a, b| a.seniority.cmp(&b.seniority));
        for policy in policies {
            if !policy.selects() {
                self.by_namespace.entry(policy.namespace.clone()).or_default().push(policy);
                continue;
            }
            for LoweredWorkload { workload, .. } in carriers_of(&policy.selector, &policy.namespace, carriers)
            {
                let id = (workload.namespace.clone(), workload.name.clone());
                self.by_workload.entry(id).or_default().push(policy.clone());
            }
        }
    }

    /// The policies that choose this workload, oldest first.
    pub fn selecting(&self, workload: &Id) -> &[Arc<AccessPolicy>] {
        self.by_workload.get(workload).map(Vec::as_slice).unwrap_or_default()
    }

    pub fn of_namespace(&self, namespace: &str) -> &[Arc<AccessPolicy>] {
        self.by_namespace.get(namespace).map(Vec::as_slice).unwrap_or_default()
    }
}

impl Registry {
    /// The AccessPolicies about a workload: those that select it, then those of its whole namespace, each the oldest first.
    pub(crate) fn access_policies<'r>(
        &'r self,
        workload: &Workload,
    ) -> impl Iterator<Item = &'r Arc<AccessPolicy>> {
        let selecting = self.access.selecting(&(workload.namespace.clone(), workload.name.clone()));
        selecting.iter().chain(self.access.of_namespace(&workload.namespace))
    }

    /// The workloads that a policy is about, templates included.
    pub(super) fn workloads_under<'r>(
        &'r self,
        policy: &'r AccessPolicy,
    ) -> impl Iterator<Item = &'r Arc<Workload>> {
        self.workloads
            .iter()
            .filter(move |(id, workload)| {
                workload.namespace == policy.namespace
                    && (!policy.selects()
                        || self
                            .access
                            .selecting(id)
                            .iter()
                            .any(|selecting| selecting.origin == policy.origin))
            })
            .map(|(_, workload)| workload)
    }
}
