//! The tokens of the mesh's proxies: each says, signed, whose proxy it is, and is renewed long before it expires.
//!
//! Owns the files they are in (0600, in the proxy's own folder); a proxy reads its file anew for each connection. The control plane
//! knows the key, which lies beside its CA.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use outrigger_control::ca::{Caller, Directory, TokenSigner};
use outrigger_control::file::replace;

use super::output::Log;

/// How long a token is good for. Short, for whoever takes a copy; a proxy that has its certificate needs none for hours.
const LIFE: Duration = Duration::from_secs(3600);
/// How often the clock is looked at: a laptop that slept has tokens that expired meanwhile.
const LOOK: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub struct Tokens {
    signer: TokenSigner,
    handed_out: RefCell<BTreeMap<PathBuf, Token>>,
}

#[derive(Debug)]
struct Token {
    caller: Caller,
    issued: SystemTime,
}

impl Tokens {
    /// With the key in the directory of the CA, both made if they are not there.
    pub fn open(ca: &Path) -> anyhow::Result<Self> {
        let making = || format!("keeping the mesh's certification authority in {}", ca.display());
        Directory::open(ca).with_context(making)?;
        // Where `outrigger control --ca-dir` looks for it.
        let signer = TokenSigner::open(&ca.join("token.key")).with_context(making)?;
        Ok(Self { signer, handed_out: RefCell::default() })
    }

    /// Writes a token for `caller` to `file` and keeps it fresh from now on.
    pub fn hand_out(&self, file: PathBuf, caller: Caller) -> anyhow::Result<()> {
        self.write(&file, &caller).with_context(|| format!("writing {}", file.display()))?;
        self.handed_out.borrow_mut().insert(file, Token { caller, issued: SystemTime::now() });
        Ok(())
    }

    /// Renews it no longer. The file is its owner's to remove.
    pub fn withdraw(&self, file: &Path) {
        self.handed_out.borrow_mut().remove(file);
    }

    /// Renews tokens when half of their life is over, as long as it is let.
    pub async fn keep_fresh(&self, log: Log) {
        loop {
            tokio::time::sleep(LOOK).await;
            self.renew(SystemTime::now(), &log);
        }
    }

    fn renew(&self, now: SystemTime, log: &Log) {
        for (file, token) in self.handed_out.borrow_mut().iter_mut() {
            // A clock that was set back makes an age an error: such a token may be from the future, and is replaced, too.
            if now.duration_since(token.issued).is_ok_and(|age| age < LIFE / 2) {
                continue;
            }
            match self.write(file, &token.caller) {
                Ok(()) => token.issued = now,
                Err(error) => log.say(&format!("renewing {}: {error}", file.display())),
            }
        }
    }

    fn write(&self, file: &Path, caller: &Caller) -> io::Result<()> {
        let token = self.signer.sign(caller, LIFE)?;
        replace(file, 0o600, token.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outrigger_config::xds::Role;
    use outrigger_control::ca::TokenReviewer;

    #[tokio::test]
    async fn a_token_speaks_for_its_proxy_and_is_renewed_at_half_its_life_until_it_is_withdrawn() {
        let folder = tempfile::tempdir().expect("a folder");
        let (ca, file) = (folder.path().join("ca"), folder.path().join("token"));
        let tokens = Tokens::open(&ca).expect("a key");
        let caller = Caller {
            role: Role::Sidecar { namespace: "default".into(), workload: "echo-0".into() },
            service_account: "echo".into(),
        };
        tokens.hand_out(file.clone(), caller.clone()).expect("written");
        let read = || std::fs::read_to_string(&file).expect("a token");
        let first = read();
        // The control plane judges by the same key.
        let reviewer = TokenSigner::open(&ca.join("token.key")).expect("the key").reviewer();
        assert_eq!(reviewer.review(&first).await.expect("a good token"), caller);

        let (now, log) = (SystemTime::now(), Log::new(0));
        tokens.renew(now + LIFE / 3, &log);
        assert_eq!(read(), first, "not yet");
        tokens.renew(now + LIFE, &log);
        let second = read();
        assert_ne!(second, first, "the signature is another one each time");
        assert_eq!(reviewer.review(&second).await.expect("a good token"), caller);
        tokens.withdraw(&file);
        tokens.renew(now + LIFE * 3, &log);
        assert_eq!(read(), second, "nobody's any more");
    }
}
