//! Whether a peer is believed: its chain leads to the trust bundle, and its one SPIFFE id is the one that is meant.
//!
//! Owns the two verifiers that rustls asks, and the look at a peer whose session was resumed, of which rustls asks nobody. Host names play no
//! part. Never decides whether somebody known may call (`policy`).

use std::sync::Arc;
use std::time::SystemTime;

use outrigger_config::model::SpiffeId;
use outrigger_config::xds::certificates::{CONTROL_NAMESPACE, CONTROL_SERVICE_ACCOUNT};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
};

use super::svid::is_self_issued;
use super::{Cause, Leaf, SKEW};

/// The callee, as its caller checks it: it is exactly who the mesh says it is.
#[derive(Debug)]
pub struct Callee {
    anchors: Anchors,
    id: SpiffeId,
}

impl Callee {
    pub fn new(roots: Arc<RootCertStore>, id: SpiffeId, provider: &CryptoProvider) -> Self {
        Self { anchors: Anchors::new(roots, provider), id }
    }
}

impl ServerCertVerifier for Callee {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.anchors.signed(leaf, chain, now)?;
        let found = Leaf::read(leaf).map_err(Cause::into_error)?;
        if found.id == self.id {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(Cause::WrongIdentity.into_error())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.anchors.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.anchors.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.anchors.algorithms.supported_schemes()
    }
}

/// Callers, as a callee checks them: anybody of its trust domain. Who of them may call is asked for each request.
#[derive(Debug)]
pub struct Callers {
    chain: Arc<dyn ClientCertVerifier>,
    trust_domain: Box<str>,
}

impl Callers {
    /// Fails where there is no root to believe.
    pub fn new(
        roots: Arc<RootCertStore>,
        trust_domain: &str,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, rustls::server::VerifierBuilderError> {
        let chain = WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
            // Callers need no list of roots to choose their only certificate by, and outsiders need not see one.
            .clear_root_hint_subjects()
            .build()?;
        Ok(Self { chain, trust_domain: trust_domain.into() })
    }
}

impl ClientCertVerifier for Callers {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        about(leaf, now, |now| self.chain.verify_client_cert(leaf, chain, now).map(|_| ()))?;
        let found = Leaf::read(leaf).map_err(Cause::into_error)?;
        if found.id.trust_domain() == &*self.trust_domain {
            Ok(ClientCertVerified::assertion())
        } else {
            Err(Cause::OtherTrustDomain.into_error())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// The control plane, as a proxy checks it: its certificate is signed by a root of the mesh, for the name that was dialled or for its own id.
#[derive(Debug)]
pub struct ControlPlane {
    anchors: Anchors,
}

impl ControlPlane {
    pub fn new(roots: Arc<RootCertStore>, provider: &CryptoProvider) -> Self {
        Self { anchors: Anchors::new(roots, provider) }
    }
}

impl ServerCertVerifier for ControlPlane {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = self.anchors.signed(leaf, chain, now)?;
        // Its own id goes to nobody else, so whoever has it may be called by any name.
        let is_control = Leaf::read(leaf)
            .is_ok_and(|found| found.id.account() == Some((CONTROL_NAMESPACE, CONTROL_SERVICE_ACCOUNT)));
        if !is_control {
            rustls::client::verify_server_name(&parsed, name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.anchors.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.anchors.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.anchors.algorithms.supported_schemes()
    }
}

/// The roots that a server's chain has to lead to, and the signatures that count.
#[derive(Debug)]
struct Anchors {
    roots: Arc<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Anchors {
    fn new(roots: Arc<RootCertStore>, provider: &CryptoProvider) -> Self {
        Self { roots, algorithms: provider.signature_verification_algorithms }
    }

    fn signed<'a>(
        &self,
        leaf: &'a CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ParsedCertificate<'a>, Error> {
        let parsed = ParsedCertificate::try_from(leaf)?;
        about(leaf, now, |now| {
            rustls::client::verify_server_cert_signed_by_trust_anchor(
                &parsed,
                &self.roots,
                chain,
                now,
                self.algorithms.all,
            )
        })?;
        Ok(parsed)
    }
}

/// What is known of a peer after a handshake, new or resumed. A resumed session brings the certificate of the first one along, which may have
/// expired since; `expected` is who it has to be.
pub fn peer(
    certificates: Option<&[CertificateDer<'_>]>,
    expected: Option<&SpiffeId>,
    now: SystemTime,
) -> Result<Leaf, Cause> {
    let leaf = certificates.and_then(<[_]>::first).ok_or(Cause::NoCertificate)?;
    let leaf = Leaf::read(leaf)?;
    if expected.is_some_and(|expected| *expected != leaf.id) {
        return Err(Cause::WrongIdentity);
    }
    if leaf.not_after + SKEW < now {
        return Err(Cause::Expired);
    }
    if leaf.not_before > now + SKEW {
        return Err(Cause::NotYetValid);
    }
    Ok(leaf)
}

/// Asks again with the clock moved by [`SKEW`] where only the time was wrong.
fn about(
    leaf: &CertificateDer<'_>,
    now: UnixTime,
    check: impl Fn(UnixTime) -> Result<(), Error>,
) -> Result<(), Error> {
    use CertificateError as E;
    let moved = |seconds| UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
    let skew = SKEW.as_secs();
    let error = match check(now) {
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    let again = match &error {
        Error::InvalidCertificate(E::Expired | E::ExpiredContext { .. }) => {
            check(moved(now.as_secs().saturating_sub(skew)))
        }
        Error::InvalidCertificate(E::NotValidYet | E::NotValidYetContext { .. }) => {
            check(moved(now.as_secs() + skew))
        }
        // Told apart, because it says what to look at: nobody signed it, or somebody we do not know.
        Error::InvalidCertificate(_) if is_self_issued(leaf) => return Err(Cause::SelfSigned.into_error()),
        // A root of the same name with another key: an authority that was made anew, or somebody who pretends.
        Error::InvalidCertificate(E::BadSignature) => return Err(E::UnknownIssuer.into()),
        _ => return Err(error),
    };
    again.map_err(|_| error)
}
