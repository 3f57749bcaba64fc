use proptest::prelude::*;
use rcgen::{
    CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    PublicKeyData, SanType,
};

use super::*;

fn id() -> SpiffeId {
    "spiffe://cluster.local/ns/default/sa/reviews".parse().unwrap()
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

fn request(change: impl FnOnce(&mut CertificateParams)) -> String {
    request_of(&KeyPair::generate().unwrap(), change)
}

fn request_of(key: &KeyPair, change: impl FnOnce(&mut CertificateParams)) -> String {
    let mut params = CertificateParams::default();
    change(&mut params);
    params.serialize_request(key).unwrap().pem().unwrap()
}

fn reason(pem: &str) -> &'static str {
    key_of(pem, &id()).err().map_or("taken", |why| why.reason())
}

#[test]
fn the_key_is_all_that_is_taken() {
    for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let pem = request_of(&key, |params| params.subject_alt_names = vec![uri(id().as_str())]);
        let taken = key_of(&pem, &id()).unwrap();
        assert_eq!(taken.subject_public_key_info(), key.subject_public_key_info());
    }
}

#[test]
fn who_asks_for_more_gets_nothing() {
    type Change = Box<dyn FnOnce(&mut CertificateParams)>;
    let san = |name: SanType| -> Change { Box::new(|params| params.subject_alt_names.push(name)) };
    let usage = |usage: KeyUsagePurpose| -> Change { Box::new(move |params| params.key_usages.push(usage)) };
    let purpose = |purpose: ExtendedKeyUsagePurpose| -> Change {
        Box::new(move |params| params.extended_key_usages.push(purpose))
    };
    let rows: Vec<(&str, Change, &str)> = vec![
        ("nothing", Box::new(|_| {}), "taken"),
        ("its own identity", san(uri(id().as_str())), "taken"),
        (
            "another service account",
            san(uri("spiffe://cluster.local/ns/default/sa/ratings")),
            "other_identity",
        ),
        ("another namespace", san(uri("spiffe://cluster.local/ns/other/sa/reviews")), "other_identity"),
        ("another trust domain", san(uri("spiffe://other/ns/default/sa/reviews")), "other_identity"),
        ("a host name", san(SanType::DnsName("reviews".try_into().unwrap())), "csr_asks_more"),
        ("an address", san(SanType::IpAddress("10.0.0.1".parse().unwrap())), "csr_asks_more"),
        ("a mailbox", san(SanType::Rfc822Name("a@b".try_into().unwrap())), "csr_asks_more"),
        (
            "to be a CA",
            Box::new(|params| {
                // rcgen writes no basicConstraints into requests.
                let ca = vec![0x30, 0x03, 0x01, 0x01, 0xff];
                params.custom_extensions = vec![CustomExtension::from_oid_content(&[2, 5, 29, 19], ca)];
            }),
            "csr_asks_more",
        ),
        ("to be a leaf", Box::new(|params| params.is_ca = IsCa::ExplicitNoCa), "taken"),
        ("to sign data", usage(KeyUsagePurpose::DigitalSignature), "taken"),
        ("to sign certificates", usage(KeyUsagePurpose::KeyCertSign), "csr_asks_more"),
        ("to revoke", usage(KeyUsagePurpose::CrlSign), "csr_asks_more"),
        ("to be a client", purpose(ExtendedKeyUsagePurpose::ClientAuth), "taken"),
        ("any purpose", purpose(ExtendedKeyUsagePurpose::Any), "csr_asks_more"),
        ("to sign code", purpose(ExtendedKeyUsagePurpose::CodeSigning), "csr_asks_more"),
        (
            "something unknown",
            Box::new(|params| {
                params.custom_extensions = vec![CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0])];
            }),
            "csr_asks_more",
        ),
    ];
    for (what, change, want) in rows {
        assert_eq!(reason(&request(change)), want, "{what}");
    }
}

#[test]
fn weak_and_foreign_keys_are_refused() {
    // Made once by `openssl req -new -newkey rsa:1024 -nodes -subj /CN=x`, and with `-newkey ec -pkeyopt ec_paramgen_curve:secp256k1`.
    assert_eq!(reason(include_str!("rsa1024.pem")), "csr_key");
    assert_eq!(reason(include_str!("secp256k1.pem")), "csr_key");
    assert_eq!(reason(include_str!("rsa2048.pem")), "taken");
}

#[test]
fn it_has_to_be_signed_with_its_own_key() {
    let pem = request(|_| {});
    let mut der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec();
    // The last byte of the signature's second number: still well-formed, no longer right.
    *der.last_mut().unwrap() ^= 1;
    assert_eq!(reason(&armoured(der)), "csr_signature");
}

fn armoured(der: Vec<u8>) -> String {
    outrigger_config::model::Root::new(der).pem().replace("CERTIFICATE", "CERTIFICATE REQUEST")
}

#[test]
fn garbage_has_a_reason() {
    let whole = request(|_| {});
    for text in [
        "",
        "hello",
        "-----BEGIN CERTIFICATE REQUEST-----\n-----END CERTIFICATE REQUEST-----\n",
        "-----BEGIN CERTIFICATE REQUEST-----\nMAA=\n-----END CERTIFICATE REQUEST-----\n",
        "-----BEGIN CERTIFICATE REQUEST-----\n!!!\n-----END CERTIFICATE REQUEST-----\n",
        &whole[..whole.len() / 2],
        &whole.replace("REQUEST", "REQUESTS"),
        &"x".repeat(LONGEST + 1),
    ] {
        assert_eq!(reason(text), "csr_unreadable", "{text:.60}");
    }
}

proptest! {
    /// Whoever sends it.
    #[test]
    fn bytes_are_taken_or_refused_without_a_panic(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        static REQUEST: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| {
            let pem = request(|params| {
                params.subject_alt_names = vec![uri(id().as_str())];
                params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            });
            CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec()
        });
        static KEY: std::sync::LazyLock<SubjectPublicKeyInfo> =
            std::sync::LazyLock::new(|| key_of(&armoured(REQUEST.clone()), &id()).unwrap());
        let mut der = REQUEST.clone();
        for (at, byte) in &damage {
            let at = at.index(der.len());
            der[at] = *byte;
        }
        if let Some(cut) = cut {
            der.truncate(cut.index(der.len()));
        }
        // What is not signed (how many bits of the signature do not count, for one) may be harmed; the key may not.
        let unharmed = der == *REQUEST;
        match key_of(&armoured(der), &id()) {
            Ok(key) => prop_assert_eq!(&key, &*KEY),
            Err(_) => prop_assert!(!unharmed),
        }
    }

    #[test]
    fn text_is_refused_without_a_panic(text in ".{0,300}") {
        prop_assert!(key_of(&text, &id()).is_err());
    }
}
