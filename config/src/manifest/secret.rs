//! Kubernetes `Secret` (v1), for the certificates of listeners that terminate TLS.
//!
//! Its content is never printed: `Debug` shows names and lengths.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::{Check, Findings};
use super::metadata::Metadata;
use super::path::FieldPath;
use super::value::{Rejected, text_serde};

/// The type of secrets that hold a certificate and its key.
pub const TLS_TYPE: &str = "kubernetes.io/tls";
/// Kubernetes' own bound on all of a Secret's data; bytes.
const MAX_BYTES: usize = 1 << 20;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Secret {
    pub metadata: Metadata,
    /// Default `Opaque`. Listeners use `kubernetes.io/tls`.
    #[serde(rename = "type", default = "opaque")]
    pub kind: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub data: BTreeMap<String, SecretBytes>,
    /// As text; wins over `data` of the same name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub string_data: BTreeMap<String, SecretText>,
    /// Kubernetes' concern: whether the object may change.
    #[serde(default, skip_serializing)]
    pub immutable: super::field::Ignored,
}

fn opaque() -> String {
    "Opaque".to_owned()
}

/// Base64 in the text.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretBytes(Vec<u8>);

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct SecretText(String);

impl Secret {
    /// The content under a name, from `stringData` or `data`.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        match self.string_data.get(name) {
            Some(text) => Some(text.0.as_bytes()),
            None => self.data.get(name).map(|bytes| &*bytes.0),
        }
    }

    /// PEM certificates, leaf first, and the PEM key. `None` unless this is a TLS secret: those have both.
    pub fn tls(&self) -> Option<(&[u8], &[u8])> {
        (self.kind == TLS_TYPE).then_some(())?;
        self.get("tls.crt").zip(self.get("tls.key"))
    }
}

impl Check for Secret {
    fn check(&self, at: &FieldPath, findings: &mut Findings) {
        let (data, string_data) = (at.key("data"), at.key("stringData"));
        let bytes: usize = self.data.values().map(|v| v.0.len()).sum();
        if bytes + self.string_data.values().map(|v| v.0.len()).sum::<usize>() > MAX_BYTES {
            findings.error(data, format!("a Secret holds at most {MAX_BYTES} bytes"));
            return;
        }
        if self.kind != TLS_TYPE {
            return;
        }
        for (name, begins) in [("tls.crt", "-----BEGIN CERTIFICATE-----"), ("tls.key", "PRIVATE KEY-----")] {
            let as_text = self.string_data.contains_key(name) || self.data.is_empty();
            let list = if as_text { &string_data } else { &data };
            match self.get(name) {
                None => {
                    findings.error(list.key(name), format!("is required with type {TLS_TYPE}, and missing"))
                }
                Some(content) if !contains(content, begins.as_bytes()) => {
                    findings.error(list.key(name), format!("is not PEM: no line with {begins:?}"));
                }
                Some(_) => {}
            }
        }
    }
}

fn contains(content: &[u8], wanted: &[u8]) -> bool {
    content.windows(wanted.len()).any(|window| window == wanted)
}

impl TryFrom<&str> for SecretBytes {
    type Error = Rejected;

    fn try_from(text: &str) -> Result<SecretBytes, Rejected> {
        // Block scalars and `base64` without -w0 put line breaks in.
        let compact: String = text.split_ascii_whitespace().collect();
        STANDARD.decode(compact).map(SecretBytes).map_err(|error| {
            // What was found is a secret, however it is misspelt.
            Rejected::hidden("base64", error.to_string())
        })
    }
}

/// As in a manifest. Only for writing a manifest: see `Debug` for what may be shown.
impl fmt::Display for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(&self.0))
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({} bytes)", self.0.len())
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({} bytes)", self.0.len())
    }
}

text_serde!(SecretBytes, "base64", { "contentEncoding": "base64" });
