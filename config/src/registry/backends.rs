//! References: to the Service behind a route, to a listener's certificate, and the grants they need.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use crate::model::{ClusterName, Secret, ServiceRef};

use super::{BackendRef, BackendTo, CertificateRef, Gateway, Registry, Route, Service};

/// Why a reference leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    NoSuchService(ServiceRef),
    NoSuchPort {
        service: ServiceRef,
        port: u16,
        ports: Vec<u16>,
    },
    External(ServiceRef),
    UnknownKind {
        group: Arc<str>,
        kind: Arc<str>,
    },
    NotASecret {
        kind: Arc<str>,
    },
    NoSuchSecret {
        namespace: Arc<str>,
        name: Arc<str>,
    },
    NotGranted {
        kind: &'static str,
        namespace: Arc<str>,
        name: Arc<str>,
        from: &'static str,
        from_namespace: Arc<str>,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchService(service) => {
                write!(f, "Service {}/{} does not exist", service.namespace, service.name)
            }
            Self::NoSuchPort { service, port, ports } => {
                write!(f, "Service {}/{} has no port {port}; it has ", service.namespace, service.name)?;
                match ports.as_slice() {
                    [] => f.write_str("none"),
                    [first, rest @ ..] => {
                        write!(f, "{first}")?;
                        rest.iter().try_for_each(|port| write!(f, ", {port}"))
                    }
                }
            }
            Self::External(service) => write!(
                f,
                "Service {}/{} is a name outside the mesh (ExternalName); a Gateway leads to Services inside only",
                service.namespace, service.name
            ),
            Self::UnknownKind { group, kind } if group.is_empty() => {
                write!(f, "{kind} is no kind of backend; Service is")
            }
            Self::UnknownKind { group, kind } => {
                write!(f, "{group}/{kind} is no kind of backend; Service is")
            }
            Self::NotASecret { kind } => write!(f, "{kind} holds no certificate; a Secret does"),
            Self::NoSuchSecret { namespace, name } => {
                write!(f, "Secret {namespace}/{name} of type kubernetes.io/tls does not exist")
            }
            Self::NotGranted { kind, namespace, name, from, from_namespace } => write!(
                f,
                "{kind} {namespace}/{name} is in another namespace, and no ReferenceGrant there allows {from} of {from_namespace} to refer to it"
            ),
        }
    }
}

impl Problem {
    pub(super) fn no_such_port(service: &Service, port: u16) -> Self {
        let ports = service.ports.iter().map(|port| port.number).collect();
        Self::NoSuchPort { service: service.id.clone(), port, ports }
    }
}

/// What ReferenceGrants allow.
#[derive(Debug, Default)]
pub(super) struct Grants {
    /// By the namespace of what is referred to.
    by_namespace: HashMap<Arc<str>, Vec<Grant>>,
}

/// One `from` with one `to`.
#[derive(Debug)]
pub(super) struct Grant {
    pub from_kind: &'static str,
    pub from_namespace: Arc<str>,
    pub to_kind: &'static str,
    /// `None`: all of the kind.
    pub to_name: Option<Arc<str>>,
}

impl Grants {
    pub fn insert(&mut self, namespace: &Arc<str>, grant: Grant) {
        self.by_namespace.entry(namespace.clone()).or_default().push(grant);
    }

    fn allow(&self, from: (&str, &str), to: (&str, &str, &str)) -> bool {
        let (to_kind, to_namespace, to_name) = to;
        from.1 == to_namespace
            || self.by_namespace.get(to_namespace).into_iter().flatten().any(|grant| {
                (grant.from_kind, &*grant.from_namespace) == from
                    && grant.to_kind == to_kind
                    && grant.to_name.as_ref().is_none_or(|name| **name == *to_name)
            })
    }
}

impl Registry {
    /// The cluster a backend reference leads to. Inside the mesh another namespace's Service needs no grant, since every
    /// workload may call it anyway; through a Gateway it does (GEP-1426, "Namespace boundaries").
    pub(crate) fn backend(
        &self,
        route: &Route,
        reference: &BackendRef,
        in_mesh: bool,
    ) -> Result<ClusterName, Problem> {
        let (id, port) = match &reference.to {
            BackendTo::Service { service, port } => (service, *port),
            BackendTo::Unknown { group, kind, .. } => {
                return Err(Problem::UnknownKind { group: group.clone(), kind: kind.clone() });
            }
        };
        let from = (route.kind.as_str(), &*route.namespace);
        // Before anything is said of the Service: its namespace's business stays there.
        if !in_mesh && !self.grants.allow(from, ("Service", &id.namespace, &id.name)) {
            return Err(Problem::NotGranted {
                kind: "Service",
                namespace: id.namespace.clone(),
                name: id.name.clone(),
                from: route.kind.as_str(),
                from_namespace: route.namespace.clone(),
            });
        }
        let service = self.services.get(id).ok_or_else(|| Problem::NoSuchService(id.clone()))?;
        if service.external().is_some() && !in_mesh {
            return Err(Problem::External(id.clone()));
        }
        let service = self.meant_by(service);
        if service.external().is_some() {
            return Ok(cluster(service, port));
        }
        match service.port(port) {
            Some(_) => Ok(cluster(service, port)),
            None => Err(Problem::no_such_port(service, port)),
        }
    }

    pub(crate) fn certificate(
        &self,
        gateway: &Gateway,
        reference: &CertificateRef,
    ) -> Result<&Secret, Problem> {
        let (namespace, name) = (&reference.namespace, &reference.name);
        if let Some(kind) = &reference.other_kind {
            return Err(Problem::NotASecret { kind: kind.clone() });
        }
        if !self.grants.allow(("Gateway", &gateway.namespace), ("Secret", namespace, name)) {
            return Err(Problem::NotGranted {
                kind: "Secret",
                namespace: namespace.clone(),
                name: name.clone(),
                from: "Gateway",
                from_namespace: gateway.namespace.clone(),
            });
        }
        self.tls_secret(namespace, name)
            .ok_or_else(|| Problem::NoSuchSecret { namespace: namespace.clone(), name: name.clone() })
    }
}

fn cluster(service: &Service, port: u16) -> ClusterName {
    ClusterName::outbound(port, "", &service.host)
}
