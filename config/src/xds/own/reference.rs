//! What a resource names: the object it was made of, a service, a workload.

use prost::Message;

use crate::model;

#[derive(Clone, PartialEq, Message)]
pub struct Origin {
    #[prost(string, tag = "1")]
    pub kind: String,
    #[prost(string, tag = "2")]
    pub namespace: String,
    #[prost(string, tag = "3")]
    pub name: String,
    #[prost(string, tag = "4")]
    pub field: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct ServiceRef {
    #[prost(string, tag = "1")]
    pub namespace: String,
    #[prost(string, tag = "2")]
    pub name: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct WorkloadRef {
    #[prost(string, tag = "1")]
    pub namespace: String,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(string, tag = "3")]
    pub service_account: String,
}

impl From<&model::Origin> for Origin {
    fn from(origin: &model::Origin) -> Self {
        Self {
            kind: origin.kind.to_string(),
            namespace: origin.namespace.to_string(),
            name: origin.name.to_string(),
            field: origin.field.to_string(),
        }
    }
}

impl From<Origin> for model::Origin {
    fn from(origin: Origin) -> Self {
        Self {
            kind: origin.kind.into(),
            namespace: origin.namespace.into(),
            name: origin.name.into(),
            field: origin.field.into(),
        }
    }
}

impl From<&model::ServiceRef> for ServiceRef {
    fn from(service: &model::ServiceRef) -> Self {
        Self { namespace: service.namespace.to_string(), name: service.name.to_string() }
    }
}

impl From<ServiceRef> for model::ServiceRef {
    fn from(service: ServiceRef) -> Self {
        Self { namespace: service.namespace.into(), name: service.name.into() }
    }
}

impl From<&model::WorkloadRef> for WorkloadRef {
    fn from(workload: &model::WorkloadRef) -> Self {
        Self {
            namespace: workload.namespace.to_string(),
            name: workload.name.to_string(),
            service_account: workload.service_account.to_string(),
        }
    }
}

impl From<WorkloadRef> for model::WorkloadRef {
    fn from(workload: WorkloadRef) -> Self {
        Self {
            namespace: workload.namespace.into(),
            name: workload.name.into(),
            service_account: workload.service_account.into(),
        }
    }
}
