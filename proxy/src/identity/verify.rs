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

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};

    use super::*;

    const BEGIN: u64 = 1_800_000_000;
    const END: u64 = BEGIN + 3_600;

    /// A leaf with these names, and the root that signed it.
    fn signed(names: &[&str]) -> (CertificateDer<'static>, Arc<RootCertStore>) {
        let root_key = KeyPair::generate().expect("randomness");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&root_key).expect("it can be signed").der().clone();
        let issuer = Issuer::new(params, root_key);
        let key = KeyPair::generate().expect("randomness");
        let mut params = CertificateParams::default();
        params.subject_alt_names =
            names.iter().map(|name| SanType::URI((*name).try_into().expect("ASCII"))).collect();
        let at = |seconds| (UNIX_EPOCH + Duration::from_secs(seconds)).into();
        (params.not_before, params.not_after) = (at(BEGIN), at(END));
        let leaf = params.signed_by(&key, &issuer);
        let mut roots = RootCertStore::empty();
        roots.add(root).expect("a root");
        (leaf.expect("it can be signed").der().clone(), Arc::new(roots))
    }

    fn provider() -> Arc<CryptoProvider> {
        Arc::new(rustls::crypto::aws_lc_rs::default_provider())
    }

    /// What caller and callee make of a certificate at a time, and what either makes of it once a session was resumed.
    fn judged(
        leaf: &CertificateDer<'_>,
        roots: &Arc<RootCertStore>,
        id: &str,
        now: u64,
    ) -> [Result<(), String>; 3] {
        let provider = provider();
        let at = UnixTime::since_unix_epoch(Duration::from_secs(now));
        let id: SpiffeId = id.parse().expect("an id");
        let callee = Callee::new(roots.clone(), id.clone(), &provider);
        let name = ServerName::try_from("any.test").expect("a name");
        let callee = callee.verify_server_cert(leaf, &[], &name, &[], at).map(|_| ());
        let callers = Callers::new(roots.clone(), "td", &provider).expect("there is a root");
        let caller = callers.verify_client_cert(leaf, &[], at).map(|_| ());
        let resumed =
            peer(Some(std::slice::from_ref(leaf)), Some(&id), UNIX_EPOCH + Duration::from_secs(now));
        let word = |error: Error| Cause::of(&error).word().to_owned();
        [
            callee.map_err(word),
            caller.map_err(word),
            resumed.map(|_| ()).map_err(|cause| cause.word().to_owned()),
        ]
    }

    const ID: &str = "spiffe://td/ns/a/sa/b";

    #[test]
    fn clocks_may_differ_by_a_minute_and_not_a_second_more() {
        let (leaf, roots) = signed(&[ID]);
        for (now, want) in [
            (BEGIN - 61, Err("not_yet_valid")),
            (BEGIN - 60, Ok(())),
            (BEGIN, Ok(())),
            (END, Ok(())),
            (END + 60, Ok(())),
            (END + 61, Err("expired")),
        ] {
            let want = want.map_err(str::to_owned);
            let age = now as i64 - BEGIN as i64;
            assert_eq!(judged(&leaf, &roots, ID, now), [(); 3].map(|()| want.clone()), "{age} s");
        }
    }

    #[test]
    fn a_name_counts_where_it_is_the_only_one_and_the_one_that_is_meant() {
        let (leaf, roots) = signed(&[ID, "spiffe://td/ns/a/sa/c"]);
        for verdict in judged(&leaf, &roots, ID, BEGIN) {
            assert_eq!(verdict, Err("not_one_uri_san".to_owned()), "of two names none counts");
        }
        let (leaf, roots) = signed(&["spiffe://td/ns/a/sa/c"]);
        let [callee, caller, resumed] = judged(&leaf, &roots, ID, BEGIN);
        assert_eq!((callee, resumed), (Err("wrong_identity".to_owned()), Err("wrong_identity".to_owned())));
        assert_eq!(caller, Ok(()), "whoever calls may be anybody of the trust domain");
    }
}
