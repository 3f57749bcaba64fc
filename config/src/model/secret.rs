//! A certificate chain with its key, for listeners that terminate TLS.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::SecretName;
use super::version::Version;

#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    pub name: SecretName,
    /// PEM, leaf first.
    pub certificate_chain: Arc<str>,
    /// PEM. Never printed, never in a dump.
    pub private_key: Arc<str>,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Dumps and versions see that the key changed, never the key.
impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut out = serializer.serialize_struct("Secret", 3)?;
        out.serialize_field("name", &self.name)?;
        out.serialize_field("certificate_chain", &self.certificate_chain)?;
        out.serialize_field("private_key_version", &Version::of(&self.private_key).to_string())?;
        out.end()
    }
}
