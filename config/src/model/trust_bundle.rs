//! Whom the mesh believes: the roots that identities are traced to.

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Serialize, Serializer};

/// The root certificates of one trust domain, as a set: while a root is replaced there are two, and what either signed is believed.
///
/// Sent as the secret [`Self::NAME`]. Never empty, in a fixed order and without doubles, so that equal sets have equal versions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TrustBundle {
    trust_domain: Arc<str>,
    roots: Vec<Root>,
}

impl TrustBundle {
    /// What it is called among the secrets; Istio's name. No TLS secret is called so: theirs are `NAMESPACE/NAME`.
    pub const NAME: &'static str = "ROOTCA";

    /// `None` without a root.
    pub fn new(trust_domain: impl Into<Arc<str>>, roots: impl IntoIterator<Item = Root>) -> Option<Self> {
        let mut roots: Vec<_> = roots.into_iter().collect();
        roots.sort();
        roots.dedup();
        (!roots.is_empty()).then(|| Self { trust_domain: trust_domain.into(), roots })
    }

    pub fn trust_domain(&self) -> &Arc<str> {
        &self.trust_domain
    }

    pub fn roots(&self) -> &[Root] {
        &self.roots
    }

    /// All roots, one after the other.
    pub fn pem(&self) -> String {
        self.roots.iter().map(Root::pem).collect()
    }
}

/// One root certificate, in DER. That it is one is known to whoever verifies with it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Root(Arc<[u8]>);

impl Root {
    pub fn new(der: impl Into<Arc<[u8]>>) -> Self {
        Self(der.into())
    }

    pub fn der(&self) -> &[u8] {
        &self.0
    }

    /// RFC 7468, with a line break at its end.
    pub fn pem(&self) -> String {
        let body = STANDARD.encode(&self.0);
        let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
        for line in body.as_bytes().chunks(64) {
            pem.extend(line.iter().map(|byte| char::from(*byte)));
            pem.push('\n');
        }
        pem + "-----END CERTIFICATE-----\n"
    }
}

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Root({} bytes)", self.0.len())
    }
}

/// Base64 of the DER.
impl Serialize for Root {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_is_a_set() {
        let root = |byte: u8| Root::new(vec![byte; 100]);
        let one = TrustBundle::new("cluster.local", [root(2), root(1), root(2)]).unwrap();
        let other = TrustBundle::new("cluster.local", [root(1), root(2)]).unwrap();
        assert_eq!(one, other);
        assert_eq!(one.roots().len(), 2);
        assert_eq!(TrustBundle::new("cluster.local", []), None);
    }
}
