//! How a proxy says which resources of a response it refused: the `error_detail` of its NACK.
//!
//! The good resources of a response apply; the NACK names the bad ones, one [`Refusal`] each among the status' details, and
//! says the same in its message for people and other control planes. A client that only has a message (Envoy) is taken to
//! blame the resources its message names, else all of the response.

use prost::{Message, Name};

use super::at::Unsupported;
use super::{fields, pb};

/// One resource, and why it was refused. `type.outrigger.dev/v1.Refusal`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Refusal {
    /// Of the resource.
    #[prost(string, tag = "1")]
    pub name: String,
    /// [`Unsupported::path`]
    #[prost(string, tag = "2")]
    pub path: String,
    #[prost(string, tag = "3")]
    pub reason: String,
}

impl Name for Refusal {
    const NAME: &'static str = "Refusal";
    const PACKAGE: &'static str = "v1";

    fn type_url() -> String {
        "type.outrigger.dev/v1.Refusal".into()
    }
}

impl Refusal {
    pub fn new(name: impl Into<String>, why: Unsupported) -> Self {
        Self { name: name.into(), path: why.path, reason: why.reason }
    }

    /// `PATH: REASON`
    pub fn why(&self) -> String {
        Unsupported { path: self.path.clone(), reason: self.reason.clone() }.to_string()
    }
}

/// Refusals named one by one; the message names these and counts the others.
const NAMED: usize = 10;
/// Refusals that go along as details. A NACK has to fit into the 8 KiB or so that many servers read of a status.
const DETAILED: usize = 100;

/// The `error_detail` of a NACK. `refusals` must not be empty: that would be an ACK.
pub fn to_status(refusals: &[Refusal]) -> pb::Status {
    let mut message: Vec<_> =
        refusals.iter().take(NAMED).map(|refusal| format!("{}: {}", refusal.name, refusal.why())).collect();
    if refusals.len() > NAMED {
        message.push(format!("and {} more", refusals.len() - NAMED));
    }
    pb::Status {
        code: INVALID_ARGUMENT,
        message: message.join("; "),
        details: refusals.iter().take(DETAILED).map(fields::pack).collect(),
    }
}

/// `google.rpc.Code`
const INVALID_ARGUMENT: i32 = 3;

/// Which of the resources in the refused response are to blame. `names` are all it held.
pub fn from_status<'n>(status: &pb::Status, names: impl Iterator<Item = &'n str>) -> Vec<Refusal> {
    let at = super::at::At::ROOT;
    let detailed: Vec<Refusal> =
        status.details.iter().filter_map(|any| fields::unpack(any, &at).ok()).collect();
    if !detailed.is_empty() {
        return detailed;
    }
    let refused =
        |name: &str| Refusal { name: name.to_owned(), path: String::new(), reason: status.message.clone() };
    let (named, others): (Vec<_>, Vec<_>) = names.partition(|name| status.message.contains(name));
    let blamed = if named.is_empty() { others } else { named };
    blamed.into_iter().map(refused).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_survive_the_wire() {
        let why = Unsupported { path: "virtual_hosts[0]".into(), reason: "not supported".into() };
        let refusals = [Refusal::new("a", why.clone()), Refusal::new("b", why)];
        let status = to_status(&refusals);
        assert_eq!(status.message, "a: virtual_hosts[0]: not supported; b: virtual_hosts[0]: not supported");
        assert_eq!(from_status(&status, ["a", "b", "c"].into_iter()), refusals);
    }

    #[test]
    fn a_bare_message_blames_whom_it_names_or_all() {
        let blamed = |message: &str| -> Vec<String> {
            let status = pb::Status { message: message.into(), ..Default::default() };
            from_status(&status, ["red", "blue"].into_iter()).into_iter().map(|r| r.name).collect()
        };
        assert_eq!(blamed("Error adding/updating cluster(s) blue: no"), ["blue"]);
        assert_eq!(blamed("no"), ["red", "blue"]);
    }
}
