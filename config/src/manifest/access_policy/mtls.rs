//! Whether callers have to prove who they are.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::manifest::check::{Check, Findings};
use crate::manifest::path::FieldPath;
use crate::manifest::value::Port;

/// `mode`, `ports` or both.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MtlsSection {
    /// Of all ports that `ports` does not name. Absent: as a less specific policy or the Mesh says, Permissive without any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<MtlsMode>,
    /// Ports with a mode of their own; at most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortMtls>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PortMtls {
    /// Of the workload, as callers see it.
    pub port: Port,
    pub mode: MtlsMode,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum MtlsMode {
    /// Mesh TLS and nothing else: plaintext is refused before a byte of it reaches the app.
    Strict,
    /// Mesh TLS where the caller offers it, else whatever it sends. The default.
    #[default]
    Permissive,
    /// Mesh TLS is not opened here.
    Disabled,
}

impl Check for MtlsSection {
    fn check(&self, at: &FieldPath, findings: &mut Findings) {
        if self.mode.is_none() && self.ports.is_empty() {
            findings.error(at.clone(), "one of these is required: mode, ports");
        }
        let ports = at.key("ports");
        findings.at_most(&ports, self.ports.len(), 64);
        findings.unique(&ports, &self.ports, "port", |port| Some(port.port));
    }
}
