//! What of the redirection is in force, as `outrigger capture show` reports it.

use serde::Serialize;

use super::rules::Family;

/// Our rules of one family as one tool lists them.
#[derive(Debug)]
pub struct Loaded {
    /// The tool that listed them, by the name that `outrigger capture` gives it.
    pub tool: &'static str,
    pub family: Family,
    pub present: Present,
    /// In the tool's own words.
    pub rules: String,
}

/// Which parts work, each looked at from the kernel's hook to the redirection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Present {
    /// The proxy can see for itself that it is captured.
    pub canary: bool,
    /// What the pod sends reaches the proxy.
    pub outbound: bool,
    /// What the pod receives reaches the proxy.
    pub inbound: bool,
    /// What the proxy sends to its own pod is treated as received.
    pub self_calls: bool,
}

impl Present {
    pub fn is_whole(self) -> bool {
        self.canary && self.outbound && self.inbound && self.self_calls
    }

    /// The parts that do not work, in the words of the listing.
    #[cfg(test)]
    pub fn missing(self) -> String {
        let parts = serde_json::to_value(self).expect("four booleans");
        let parts = parts.as_object().expect("a struct").iter();
        parts
            .filter(|(_, works)| *works == false)
            .map(|(name, _)| name.as_str())
            .collect::<Vec<_>>()
            .join(" ")
    }
}
