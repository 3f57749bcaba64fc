//! Why somebody gets no certificate, or no stream: one word each, for the caller, the log and the metric.

use tonic::{Code, Status};

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("no token: a call needs `authorization: Bearer TOKEN`")]
    NoToken,
    #[error("the token is not one of this mesh: {0}")]
    TokenInvalid(String),
    #[error("the token is for {found:?}, not for {wanted:?}")]
    TokenAudience { found: Vec<String>, wanted: &'static str },
    #[error("the token has expired {0} s ago")]
    TokenExpired(u64),
    #[error("the token is good in {0} s at the earliest: do the clocks differ?")]
    TokenNotYet(u64),
    #[error("the token belongs to {0}")]
    OtherWorkload(String),
    #[error("the token entitles to another identity than {0}")]
    OtherIdentity(String),
    #[error("the identity of the control plane is nobody else's")]
    Reserved,
    #[error("the request has metadata {0:?}, which is not supported")]
    Metadata(String),
    #[error("the CSR is not readable: {0}")]
    CsrUnreadable(String),
    #[error("the CSR is not signed with its own key")]
    CsrSignature,
    #[error(
        "the CSR has a key that is not taken ({0}); P-256, P-384, Ed25519 and RSA of 2048 to 4096 bits are"
    )]
    CsrKey(String),
    #[error("the CSR asks for more than it would get: {0}")]
    CsrAsksMore(String),
    #[error("too many requests; try again in a second")]
    TooMany,
    #[error("the request has not come whole within {0} s")]
    TooSlow(u64),
    #[error("{0}")]
    Unavailable(String),
}

impl Refusal {
    /// Stable: first in the message, `result` label of `outrigger_control_certificates_total`, field of the log.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::NoToken => "no_token",
            Self::TokenInvalid(_) => "token_invalid",
            Self::TokenAudience { .. } => "token_audience",
            Self::TokenExpired(_) => "token_expired",
            Self::TokenNotYet(_) => "token_not_yet_valid",
            Self::OtherWorkload(_) => "other_workload",
            Self::OtherIdentity(_) => "other_identity",
            Self::Reserved => "reserved_identity",
            Self::Metadata(_) => "metadata",
            Self::CsrUnreadable(_) => "csr_unreadable",
            Self::CsrSignature => "csr_signature",
            Self::CsrKey(_) => "csr_key",
            Self::CsrAsksMore(_) => "csr_asks_more",
            Self::TooMany => "too_many",
            Self::TooSlow(_) => "too_slow",
            Self::Unavailable(_) => "unavailable",
        }
    }

    pub fn status(&self) -> Status {
        let code = match self {
            Self::NoToken
            | Self::TokenInvalid(_)
            | Self::TokenAudience { .. }
            | Self::TokenExpired(_)
            | Self::TokenNotYet(_) => Code::Unauthenticated,
            Self::OtherWorkload(_) | Self::OtherIdentity(_) | Self::Reserved | Self::CsrAsksMore(_) => {
                Code::PermissionDenied
            }
            Self::Metadata(_) | Self::CsrUnreadable(_) | Self::CsrSignature | Self::CsrKey(_) => {
                Code::InvalidArgument
            }
            Self::TooMany => Code::ResourceExhausted,
            Self::TooSlow(_) => Code::DeadlineExceeded,
            Self::Unavailable(_) => Code::Unavailable,
        };
        Status::new(code, format!("{}: {self}", self.reason()))
    }
}
