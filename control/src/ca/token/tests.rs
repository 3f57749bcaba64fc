use std::os::unix::fs::PermissionsExt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tempfile::TempDir;

use super::*;

fn reviews() -> Caller {
    Caller {
        role: Role::Sidecar { namespace: "default".into(), workload: "reviews-v1".into() },
        service_account: "bookinfo-reviews".into(),
    }
}

fn signer() -> (TempDir, TokenSigner) {
    let dir = TempDir::new().unwrap();
    let signer = TokenSigner::open(&dir.path().join("token.key")).unwrap();
    (dir, signer)
}

const HOUR: Duration = Duration::from_secs(3_600);

#[test]
fn a_token_says_whose_it_is() {
    let (dir, signer) = signer();
    let gateway = Caller {
        role: Role::Gateway { namespace: "edge".into(), name: "ingress".into() },
        service_account: "ingress".into(),
    };
    for caller in [reviews(), gateway] {
        let token = signer.sign(&caller, HOUR).unwrap();
        assert_eq!(signer.reviewer().judge(&token, SystemTime::now()), Ok(caller));
    }
    let key = dir.path().join("token.key");
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    for others in [0o640, 0o604, 0o660] {
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(others)).unwrap();
        let refused = TokenSigner::open(&key).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        assert!(refused.to_string().ends_with("others may read the key in it; chmod 600"), "{refused}");
    }
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o400)).unwrap();
    let again = TokenSigner::open(&key).unwrap();
    let token = again.sign(&reviews(), HOUR).unwrap();
    assert_eq!(signer.reviewer().judge(&token, SystemTime::now()), Ok(reviews()));
}

#[test]
fn each_thing_wrong_with_a_token_has_its_reason() {
    let (_dir, signer) = signer();
    let (_other_dir, other) = self::signer();
    let now = SystemTime::now();
    let signed = |audience, at, life| signer.sign_for(&reviews(), audience, at, life).unwrap();
    let good = signed(AUDIENCE, now, HOUR);
    let [header, claims, signature] = <[&str; 3]>::try_from(good.split('.').collect::<Vec<_>>()).unwrap();
    let unsigned = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
    // The public key as a shared secret, which libraries that take any algorithm fall for.
    let symmetric = encode(
        &Header::new(Algorithm::HS256),
        &serde_json::from_slice::<serde_json::Value>(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap(),
        &EncodingKey::from_secret(&signer.public),
    )
    .unwrap();
    let promoted = URL_SAFE_NO_PAD.encode(
        String::from_utf8(URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap().replace("reviews", "ratings"),
    );
    for (what, token, want) in [
        ("good", good.clone(), None),
        ("another audience", signed("istio-ca", now, HOUR), Some("token_audience")),
        ("expired", signed(AUDIENCE, now - 2 * HOUR, HOUR), Some("token_expired")),
        ("expired within the clocks' difference", signed(AUDIENCE, now - HOUR - LEEWAY / 2, HOUR), None),
        ("of tomorrow", signed(AUDIENCE, now + 24 * HOUR, HOUR), Some("token_not_yet_valid")),
        ("of a clock a little ahead", signed(AUDIENCE, now + LEEWAY / 2, HOUR), None),
        ("of another key", other.sign(&reviews(), HOUR).unwrap(), Some("token_invalid")),
        ("without a signature", format!("{header}.{claims}."), Some("token_invalid")),
        ("that says it needs none", format!("{unsigned}.{claims}."), Some("token_invalid")),
        ("signed with the public key", symmetric, Some("token_invalid")),
        ("changed", format!("{header}.{promoted}.{signature}"), Some("token_invalid")),
        ("not a token", "secret".into(), Some("token_invalid")),
        ("endless", "a".repeat(LONGEST + 1), Some("token_invalid")),
        ("empty", String::new(), Some("token_invalid")),
    ] {
        let reason = signer.reviewer().judge(&token, now).err().map(|why| why.reason());
        assert_eq!(reason, want, "{what}");
    }
}

#[test]
fn what_is_not_a_key_is_named() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("token.key");
    for (content, want) in [
        ("hello".to_owned(), "not a private key"),
        (KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().serialize_pem(), "P-256"),
    ] {
        std::fs::write(&file, content).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let error = TokenSigner::open(&file).unwrap_err().to_string();
        assert!(error.contains(want) && error.contains("token.key"), "{error}");
    }
}
