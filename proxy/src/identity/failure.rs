//! Why a handshake between two proxies failed: a closed set of words, the same in metrics, logs and answers.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::{CertificateError, Error, OtherError};

/// What was wrong. The word stands in `outrigger_tls_handshake_failures_total{reason}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cause {
    /// The peer showed no certificate.
    NoCertificate,
    /// The peer's certificate is its own issuer.
    SelfSigned,
    /// No root of the trust bundle signed the peer's certificate.
    UnknownIssuer,
    Expired,
    NotYetValid,
    /// The peer's certificate has no URI among its names, or several.
    NotOneUri,
    /// The URI of the peer's certificate is no SPIFFE id.
    NotASpiffeId,
    /// The peer is of another trust domain.
    OtherTrustDomain,
    /// The endpoint is not who it was announced to be.
    WrongIdentity,
    /// The peer's certificate cannot be used for another reason (its form, its signature, its purpose).
    BadCertificate,
    /// The peer refused our certificate, or the handshake.
    RefusedByPeer,
    /// This proxy has no certificate to show.
    NoIdentity,
    /// What the peer sent is no TLS 1.3 handshake of the mesh.
    Protocol,
    /// The peer did not finish in time.
    Timeout,
    /// The connection ended.
    Closed,
}

impl Cause {
    pub const ALL: [Self; 15] = [
        Self::NoCertificate,
        Self::SelfSigned,
        Self::UnknownIssuer,
        Self::Expired,
        Self::NotYetValid,
        Self::NotOneUri,
        Self::NotASpiffeId,
        Self::OtherTrustDomain,
        Self::WrongIdentity,
        Self::BadCertificate,
        Self::RefusedByPeer,
        Self::NoIdentity,
        Self::Protocol,
        Self::Timeout,
        Self::Closed,
    ];

    /// Stable: alerts match on it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::NoCertificate => "no_certificate",
            Self::SelfSigned => "self_signed",
            Self::UnknownIssuer => "unknown_issuer",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::NotOneUri => "not_one_uri_san",
            Self::NotASpiffeId => "not_a_spiffe_id",
            Self::OtherTrustDomain => "other_trust_domain",
            Self::WrongIdentity => "wrong_identity",
            Self::BadCertificate => "bad_certificate",
            Self::RefusedByPeer => "refused_by_peer",
            Self::NoIdentity => "no_identity",
            Self::Protocol => "protocol",
            Self::Timeout => "timeout",
            Self::Closed => "closed",
        }
    }

    /// As rustls wants to hear it from a verifier.
    pub(super) fn into_error(self) -> Error {
        Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(self))))
    }

    pub fn of(error: &Error) -> Self {
        match error {
            Error::InvalidCertificate(error) => Self::of_certificate(error),
            Error::NoCertificatesPresented => Self::NoCertificate,
            Error::AlertReceived(_) => Self::RefusedByPeer,
            _ => Self::Protocol,
        }
    }

    fn of_certificate(error: &CertificateError) -> Self {
        match error {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Self::NotYetValid,
            CertificateError::UnknownIssuer => Self::UnknownIssuer,
            // rustls knows no word for ours and carries it as it is.
            CertificateError::Other(OtherError(ours)) => {
                ours.downcast_ref().copied().unwrap_or(Self::BadCertificate)
            }
            _ => Self::BadCertificate,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl std::error::Error for Cause {}

/// A handshake that failed: why, and what is known of this one case.
#[derive(Debug)]
pub struct HandshakeFailure {
    pub cause: Cause,
    pub detail: String,
}

impl HandshakeFailure {
    pub fn new(cause: Cause, detail: impl Into<String>) -> Self {
        Self { cause, detail: detail.into() }
    }
}

impl From<io::Error> for HandshakeFailure {
    fn from(error: io::Error) -> Self {
        let cause = match rustls_error(&error) {
            Some(error) => Cause::of(error),
            None if error.kind() == io::ErrorKind::TimedOut => Cause::Timeout,
            None => Cause::Closed,
        };
        Self { cause, detail: error.to_string() }
    }
}

impl fmt::Display for HandshakeFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.detail == self.cause.word() {
            f.write_str(&self.detail)
        } else {
            write!(f, "{}: {}", self.cause, self.detail)
        }
    }
}

impl std::error::Error for HandshakeFailure {}

/// What TLS said, where an error of a connection began there.
pub fn rustls_error(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

/// Whether an error, or what caused it, is a peer's refusal of the TLS connection: with TLS 1.3 a caller learns only after its own
/// handshake is over that its certificate was not accepted.
pub fn is_refusal(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let refused = match error.downcast_ref::<io::Error>() {
            Some(error) => match rustls_error(error) {
                Some(error) => matches!(error, Error::AlertReceived(_)),
                // The HTTP/2 codec keeps nothing of an error but its kind and its words.
                None => error.kind() == io::ErrorKind::InvalidData && error.to_string().starts_with(ALERT),
            },
            None => matches!(error.downcast_ref(), Some(Error::AlertReceived(_))),
        };
        if refused {
            return true;
        }
        next = error.source();
    }
    false
}

/// As rustls begins to say it; a test compares.
const ALERT: &str = "received fatal alert";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rustls::AlertDescription;

    use super::*;

    #[test]
    fn every_cause_has_a_word_and_comes_back_from_rustls() {
        let words: BTreeSet<_> = Cause::ALL.iter().map(|cause| cause.word()).collect();
        assert_eq!(words.len(), Cause::ALL.len());
        for cause in Cause::ALL {
            assert_eq!(Cause::of(&cause.into_error()), cause);
        }
    }

    #[test]
    fn a_refusal_is_known_however_it_is_wrapped() {
        let alert = || Error::AlertReceived(AlertDescription::UnknownCA);
        let io = || io::Error::new(io::ErrorKind::InvalidData, alert());
        assert!(is_refusal(&alert()) && is_refusal(&io()));
        assert!(is_refusal(&io::Error::new(io::ErrorKind::InvalidData, io().to_string())));
        assert!(!is_refusal(&io::Error::from(io::ErrorKind::ConnectionReset)));
        assert!(!is_refusal(&Error::DecryptError));
    }
}
