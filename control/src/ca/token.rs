//! Who a caller is: tokens, and whoever judges them.
//!
//! On Kubernetes a token is the pod's own and the API server judges it; outside, `outrigger up` signs one for each proxy
//! ([`TokenSigner`]) and the control plane knows the key ([`SignedTokens`]). Both stand behind [`TokenReviewer`].
//!
//! A signed token is a JWT (RFC 7519, ES256) made for [`AUDIENCE`]; the claim `outrigger.dev` says whose it is.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use outrigger_config::xds::Role;
use outrigger_config::xds::certificates::AUDIENCE;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use serde::{Deserialize, Serialize};

use super::refusal::Refusal;

/// Whom a token speaks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Caller {
    /// The workload or gateway whose proxy it is.
    pub role: Role,
    pub service_account: Arc<str>,
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.role {
            Role::Sidecar { .. } => "workload",
            Role::Gateway { .. } => "gateway",
        };
        write!(f, "{kind} {}/{}", self.role.namespace(), self.role.name())
    }
}

/// Judges tokens.
#[tonic::async_trait]
pub trait TokenReviewer: Send + Sync + fmt::Debug + 'static {
    async fn review(&self, token: &str) -> Result<Caller, Refusal>;
}

/// Clocks may differ by this much.
const LEEWAY: Duration = Duration::from_secs(60);

/// Longest token read. Bytes; those of Kubernetes have about 1,200.
const LONGEST: usize = 8 << 10;

/// Who signed: nothing is decided by it, people read it.
const ISSUER: &str = "outrigger";

#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: Audience,
    iat: u64,
    nbf: u64,
    exp: u64,
    #[serde(rename = "outrigger.dev")]
    subject: Subject,
}

/// One or several (RFC 7519 §4.1.3).
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Subject {
    namespace: Arc<str>,
    service_account: Arc<str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    workload: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<Arc<str>>,
}

/// Signs tokens with a key from a file.
pub struct TokenSigner {
    key: EncodingKey,
    /// The public half, for [`SignedTokens`].
    public: Vec<u8>,
}

impl fmt::Debug for TokenSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSigner")
    }
}

impl TokenSigner {
    /// The key of `file` (PKCS #8 in PEM, P-256); made, and readable by its owner alone, where there is none.
    pub fn open(file: &Path) -> io::Result<Self> {
        match Self::existing(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            known => return known,
        }
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(io::Error::other)?;
        match keep(file, &key.serialize_pem()) {
            Ok(()) => Ok(Self::of(&key)),
            // Somebody else was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Self::existing(file),
            Err(error) => Err(io::Error::new(error.kind(), format!("{}: {error}", file.display()))),
        }
    }

    /// The key of `file`, which has to be there and to be its owner's alone: whoever reads it may be any proxy.
    pub fn existing(file: &Path) -> io::Result<Self> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", file.display()));
        let mut opened = File::open(file).map_err(named)?;
        if opened.metadata().map_err(named)?.permissions().mode() & 0o077 != 0 {
            let text = format!("{}: others may read the key in it; chmod 600", file.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        let mut pem = String::new();
        opened.read_to_string(&mut pem).map_err(named)?;
        Ok(Self::of(&key_pair(&pem, file)?))
    }

    fn of(key: &KeyPair) -> Self {
        let public = key.public_key_raw().to_vec();
        Self { key: EncodingKey::from_ec_der(&key.serialize_der()), public }
    }

    /// A token for the control plane that is good for `life`.
    pub fn sign(&self, caller: &Caller, life: Duration) -> io::Result<String> {
        self.sign_for(caller, AUDIENCE, SystemTime::now(), life)
    }

    /// Of which others than the control plane, and other times than now, are for tests.
    pub fn sign_for(
        &self,
        caller: &Caller,
        audience: &str,
        now: SystemTime,
        life: Duration,
    ) -> io::Result<String> {
        let now = seconds(now);
        let (workload, gateway) = match &caller.role {
            Role::Sidecar { workload, .. } => (Some(workload.clone()), None),
            Role::Gateway { name, .. } => (None, Some(name.clone())),
        };
        let claims = Claims {
            iss: ISSUER.to_owned(),
            aud: Audience::One(audience.to_owned()),
            iat: now,
            nbf: now,
            exp: now.saturating_add(life.as_secs()),
            subject: Subject {
                namespace: caller.role.namespace().clone(),
                service_account: caller.service_account.clone(),
                workload,
                gateway,
            },
        };
        encode(&Header::new(Algorithm::ES256), &claims, &self.key).map_err(io::Error::other)
    }

    pub fn reviewer(&self) -> SignedTokens {
        SignedTokens { key: DecodingKey::from_ec_der(&self.public) }
    }
}

/// Judges the tokens of one [`TokenSigner`].
pub struct SignedTokens {
    key: DecodingKey,
}

impl fmt::Debug for SignedTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SignedTokens")
    }
}

impl SignedTokens {
    fn judge(&self, token: &str, now: SystemTime) -> Result<Caller, Refusal> {
        if token.len() > LONGEST {
            return Err(Refusal::TokenInvalid(format!("{} bytes are more than {LONGEST}", token.len())));
        }
        let mut only_signature = Validation::new(Algorithm::ES256);
        // Judged below, where the reason can be said.
        only_signature.validate_exp = false;
        only_signature.validate_aud = false;
        only_signature.required_spec_claims.clear();
        let claims: Claims = decode(token, &self.key, &only_signature)
            .map_err(|error| Refusal::TokenInvalid(unfit(error.kind()).to_owned()))?
            .claims;
        let found = match claims.aud {
            Audience::One(one) => vec![one],
            Audience::Several(several) => several,
        };
        if !found.iter().any(|audience| audience == AUDIENCE) {
            return Err(Refusal::TokenAudience { found, wanted: AUDIENCE });
        }
        let (now, leeway) = (seconds(now), LEEWAY.as_secs());
        if now >= claims.exp.saturating_add(leeway) {
            return Err(Refusal::TokenExpired(now - claims.exp));
        }
        if claims.nbf > now.saturating_add(leeway) {
            return Err(Refusal::TokenNotYet(claims.nbf - now));
        }
        let Subject { namespace, service_account, workload, gateway } = claims.subject;
        let role = match (workload, gateway) {
            (Some(workload), None) => Role::Sidecar { namespace, workload },
            (None, Some(name)) => Role::Gateway { namespace, name },
            _ => {
                return Err(Refusal::TokenInvalid("it names neither or both of workload and gateway".into()));
            }
        };
        Ok(Caller { role, service_account })
    }
}

#[tonic::async_trait]
impl TokenReviewer for SignedTokens {
    async fn review(&self, token: &str) -> Result<Caller, Refusal> {
        self.judge(token, SystemTime::now())
    }
}

/// No part of the token is repeated.
fn unfit(kind: &ErrorKind) -> &'static str {
    match kind {
        ErrorKind::InvalidSignature => "its signature is not ours",
        ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName => "it is not signed by ES256",
        ErrorKind::Json(_) => "its claims are not ours",
        _ => "it is not a JWT",
    }
}

/// Whole or not at all: a name for it appears when all of it is written.
fn keep(file: &Path, pem: &str) -> io::Result<()> {
    let beside = file.with_extension(format!("{:08x}.new", rand::random::<u32>()));
    let mut new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    let kept = new.write_all(pem.as_bytes()).and_then(|()| std::fs::hard_link(&beside, file));
    std::fs::remove_file(&beside)?;
    kept
}

fn key_pair(pem: &str, file: &Path) -> io::Result<KeyPair> {
    let wrong =
        |what: String| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {what}", file.display()));
    let key = KeyPair::from_pem(pem).map_err(|error| wrong(format!("not a private key in PEM: {error}")))?;
    if key.algorithm() != &PKCS_ECDSA_P256_SHA256 {
        return Err(wrong("tokens are signed with a P-256 key".into()));
    }
    Ok(key)
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests;
