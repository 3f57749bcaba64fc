//! The inbound side of a workload: which ports its app has, and where the app listens.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use outrigger_config::model::{Mtls, ProxySettings, WorkloadRef};

use super::Slot;
use crate::policy::access::Ports;

#[derive(Clone, Debug)]
pub struct Inbound {
    pub workload: WorkloadRef,
    /// By the port callers see.
    pub ports: BTreeMap<u16, Arc<InboundPort>>,
    /// Of ports the workload does not declare.
    pub mtls: Mtls,
    /// Who may call them.
    pub access: Arc<Ports>,
    pub settings: ProxySettings,
}

#[derive(Clone, Debug)]
pub struct InboundPort {
    pub port: u16,
    /// Where the app listens.
    pub app: SocketAddr,
    pub mtls: Mtls,
    /// One route, to the app. The slot outlives updates of the port.
    pub destination: Arc<Slot>,
}
