//! Who somebody is: SPIFFE ids, and whether a port insists on knowing.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::Origin;

/// The SPIFFE id of a workload: `spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT`, or one of another system with a path of its own.
///
/// Valid by the SPIFFE-ID standard, sections 2.1 to 2.3: at most 2,048 bytes, a trust domain of lower-case letters, digits, `.`, `-` and `_`, and a
/// path (one without names no workload, X509-SVID section 2) of segments that are neither empty nor dots. Two ids are the same if their bytes are.
/// Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    text: Arc<str>,
    /// Where the path begins, with its slash.
    path: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a SPIFFE id: {why}")]
pub struct NotASpiffeId {
    text: String,
    why: &'static str,
}

impl NotASpiffeId {
    pub const fn why(&self) -> &'static str {
        self.why
    }
}

impl SpiffeId {
    /// In bytes (SPIFFE-ID section 2.3).
    pub const LONGEST: usize = 2_048;

    /// Of a service account of the mesh.
    pub fn new(trust_domain: &str, namespace: &str, service_account: &str) -> Result<Self, NotASpiffeId> {
        let id: Self = format!("{SCHEME}{trust_domain}/ns/{namespace}/sa/{service_account}").parse()?;
        if id.account() != Some((namespace, service_account)) {
            return Err(NotASpiffeId { text: id.to_string(), why: "its parts have slashes of their own" });
        }
        Ok(id)
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn trust_domain(&self) -> &str {
        &self.text[SCHEME.len()..usize::from(self.path)]
    }

    /// With its leading slash.
    pub fn path(&self) -> &str {
        &self.text[usize::from(self.path)..]
    }

    /// Namespace and service account; `None` for an id of another form, which has neither.
    pub fn account(&self) -> Option<(&str, &str)> {
        let (namespace, account) = self.path().strip_prefix("/ns/")?.split_once("/sa/")?;
        (!namespace.contains('/') && !account.contains('/')).then_some((namespace, account))
    }
}

const SCHEME: &str = "spiffe://";

impl FromStr for SpiffeId {
    type Err = NotASpiffeId;

    fn from_str(text: &str) -> Result<Self, NotASpiffeId> {
        let wrong = |why| NotASpiffeId { text: text.chars().take(100).collect(), why };
        if text.len() > Self::LONGEST {
            return Err(wrong("it is longer than 2048 bytes"));
        }
        let rest = text.strip_prefix(SCHEME).ok_or_else(|| wrong("it does not begin with spiffe://"))?;
        let (domain, path) = rest.split_once('/').ok_or_else(|| wrong("it has no path"))?;
        if !is_trust_domain(domain) {
            return Err(wrong("its trust domain is not 1 to 255 of a-z, 0-9, ., - and _"));
        }
        if !path.split('/').all(is_segment) {
            return Err(wrong("its path is not made of segments of A-Z, a-z, 0-9, ., - and _"));
        }
        let path = u16::try_from(SCHEME.len() + domain.len()).map_err(|_| wrong("it is too long"))?;
        Ok(Self { text: text.into(), path })
    }
}

/// Whether this may be the trust domain of an id.
pub fn is_trust_domain(text: &str) -> bool {
    (1..=255).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_'))
}

fn is_segment(segment: &str) -> bool {
    !matches!(segment, "" | "." | "..")
        && segment.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for SpiffeId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

/// Whether callers of a port have to prove who they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub enum MtlsMode {
    /// Mesh TLS and nothing else: plaintext is refused before a byte of it reaches the app.
    Strict,
    /// Mesh TLS where the caller offers it, else whatever it sends. The default.
    #[default]
    Permissive,
    /// Mesh TLS is not opened here; callers that offer it find the app's own port.
    Disabled,
}

impl MtlsMode {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Strict => "Strict",
            Self::Permissive => "Permissive",
            Self::Disabled => "Disabled",
        }
    }
}

impl fmt::Display for MtlsMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The mode of a port, and what decided it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Mtls {
    pub mode: MtlsMode,
    /// The AccessPolicy or Mesh that says so; `None` for the default.
    pub origin: Option<Origin>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_of_the_standard() {
        let long = format!("spiffe://td/{}", "a".repeat(SpiffeId::LONGEST - 12));
        for (text, account) in [
            ("spiffe://cluster.local/ns/default/sa/reviews", Some(Some(("default", "reviews")))),
            ("spiffe://td/ns/a/sa/b.c", Some(Some(("a", "b.c")))),
            ("spiffe://td/workload/9_Z", Some(None)),
            ("spiffe://td/ns/a/sa/b/c", Some(None)),
            ("spiffe://td/ns/a", Some(None)),
            (&long, Some(None)),
            (&format!("{long}a"), None),
            ("spiffe://td", None), // the trust domain itself is no workload
            ("spiffe://td/", None),
            ("spiffe:///ns/a/sa/b", None),
            ("spiffe://TD/ns/a/sa/b", None),
            ("spiffe://td:1/a", None),
            ("spiffe://u@td/a", None),
            ("SPIFFE://td/a", None),
            ("https://td/a", None),
            ("spiffe://td//a", None),
            ("spiffe://td/a/", None),
            ("spiffe://td/a/../b", None),
            ("spiffe://td/./b", None),
            ("spiffe://td/a%2fb", None),
            ("spiffe://td/a?b", None),
            ("spiffe://td/a#b", None),
            ("spiffe://td/é", None),
            ("", None),
        ] {
            let read = text.parse::<SpiffeId>();
            assert_eq!(read.as_ref().ok().map(SpiffeId::account), account, "{text}");
            if let Ok(id) = read {
                assert_eq!(format!("spiffe://{}{}", id.trust_domain(), id.path()), text);
            }
        }
    }

    #[test]
    fn an_account_makes_an_id() {
        let id = SpiffeId::new("cluster.local", "default", "reviews").expect("valid");
        assert_eq!(id.as_str(), "spiffe://cluster.local/ns/default/sa/reviews");
        assert_eq!(id.account(), Some(("default", "reviews")));
        assert_eq!(id.trust_domain(), "cluster.local");
        assert!(SpiffeId::new("", "default", "reviews").is_err());
        assert!(SpiffeId::new("td", "", "reviews").is_err());
        assert!(SpiffeId::new("td", "a/sa/b", "c").is_err());
    }
}
