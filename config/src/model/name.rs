//! Names of resources and of what they stand for. xDS names follow Istio's, so that its tools can read ours.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Serialize, Serializer};

/// Where an application wants to go, as it said it: a host name in lower case or an IP address, and a port.
///
/// Its listener resource is called `outbound|HOST:PORT`; IPv6 addresses stand in brackets.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DestinationName {
    host: Arc<str>,
    port: u16,
}

impl DestinationName {
    /// Lower-cases the host and drops one trailing dot. `None` for an empty host or port 0, for a host of over
    /// 253 bytes (RFC 1035 §2.3.4) or one with bytes no host name or IP address has.
    pub fn new(host: &str, port: u16) -> Option<Self> {
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        let host = host.strip_suffix('.').unwrap_or(host);
        if port == 0 || host.is_empty() || host.len() > 253 {
            return None;
        }
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Some(Self::ip(ip, port));
        }
        let named = host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
        named.then(|| Self { host: host.to_ascii_lowercase().into(), port })
    }

    /// An IPv4-mapped IPv6 address is taken for the IPv4 address it maps.
    pub fn ip(ip: IpAddr, port: u16) -> Self {
        Self { host: ip.to_canonical().to_string().into(), port }
    }

    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address, where the destination was named by one.
    pub fn as_ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// `outbound|HOST:PORT`
    pub fn resource_name(&self) -> String {
        format!("outbound|{self}")
    }

    /// The reverse of [`Self::resource_name`].
    pub fn from_resource_name(name: &str) -> Option<Self> {
        name.strip_prefix("outbound|")?.parse().ok()
    }
}

/// `HOST:PORT`, IPv6 in brackets.
impl fmt::Display for DestinationName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not HOST:PORT")]
pub struct NotADestination(String);

impl FromStr for DestinationName {
    type Err = NotADestination;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.rsplit_once(':')
            .and_then(|(host, port)| Self::new(host, port.parse().ok()?))
            .ok_or_else(|| NotADestination(text.into()))
    }
}

impl Serialize for DestinationName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            pub fn new(name: impl Into<Arc<str>>) -> Self {
                Self(name.into())
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(name: &str) -> Self {
                Self(name.into())
            }
        }
    )*};
}

names! {
    /// `outbound|9080|SUBSET|reviews.default.svc.cluster.local` (the subset is empty today), `outbound|9080||10.1.2.3`
    /// for one instance addressed directly. Its endpoints resource has the same name.
    ClusterName
    /// `outbound|9080|reviews.default.svc.cluster.local`, `gateway|NAMESPACE/NAME|PORT|LISTENER`: shared by all aliases of a service.
    RouteTableName
    /// `NAMESPACE/NAME` of a TLS secret.
    SecretName
}

impl ClusterName {
    /// `outbound|PORT|SUBSET|HOST`
    pub fn outbound(port: u16, subset: &str, host: &str) -> Self {
        Self(format!("outbound|{port}|{subset}|{host}").into())
    }

    /// `inbound|PORT||`
    pub fn inbound(port: u16) -> Self {
        Self(format!("inbound|{port}||").into())
    }

    /// Whether it is the app behind a sidecar.
    pub fn is_inbound(&self) -> bool {
        self.0.starts_with("inbound|")
    }
}

/// A Service of the registry; stands in the `service` label of metrics as `name.namespace`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct ServiceRef {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl ServiceRef {
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// The reverse of `Display`. Service names have no dot (RFC 1035 labels), so the first one divides.
    pub fn parse(text: &str) -> Option<Self> {
        let (name, namespace) = text.split_once('.')?;
        (!name.is_empty() && !namespace.is_empty()).then(|| Self::new(namespace, name))
    }
}

/// `reviews.default`
impl fmt::Display for ServiceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.name, self.namespace)
    }
}

/// One app instance as the mesh knows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct WorkloadRef {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
    /// With the trust domain and the namespace it makes the SPIFFE id.
    pub service_account: Arc<str>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_have_one_spelling() {
        for (given, want) in [
            ("Reviews.Default:9080", Some("reviews.default:9080")),
            ("reviews.:80", Some("reviews:80")),
            ("[::1]:80", Some("[::1]:80")),
            ("[::ffff:10.0.0.1]:80", Some("10.0.0.1:80")),
            ("10.0.0.1:80", Some("10.0.0.1:80")),
            ("reviews:0", None),
            (":80", None),
            ("reviews", None),
            ("a b:80", None),
            ("a|b:80", None), // the separator of resource names
        ] {
            let got = given.parse::<DestinationName>().ok();
            assert_eq!(got.as_ref().map(ToString::to_string).as_deref(), want, "{given}");
            if let Some(name) = got {
                assert_eq!(DestinationName::from_resource_name(&name.resource_name()), Some(name));
            }
        }
    }
}
