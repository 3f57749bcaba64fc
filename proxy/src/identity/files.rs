//! Certificate, key and trust bundle from files that somebody else renews.
//!
//! Owns looking at them: each second, by content, so that a renewal is seen however it was put in place (written, renamed, a symbolic link swapped).
//! Half a renewal (a certificate without its key) is waited out: what was before stays in use.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::{Bundle, Identity, Svid};

/// Where they are; all PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// Leaf first.
    pub certificate: PathBuf,
    pub key: PathBuf,
    pub trust_bundle: PathBuf,
}

/// How often they are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// More is no certificate. Bytes.
const LARGEST: u64 = 1 << 20;

/// Contents as they were found.
#[derive(Default)]
struct Found {
    svid: Vec<u8>,
    key: Vec<u8>,
    bundle: Vec<u8>,
}

impl Files {
    pub(super) async fn follow(self, identity: Arc<Identity>) {
        let mut last = Found::default();
        let mut said = None;
        loop {
            let error = self.look(&identity, &mut last).err();
            if let Some(error) = &error
                && said.as_ref() != Some(error)
            {
                identity.failed(error.clone());
            }
            said = error;
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Takes up what has changed. Each is small and local, so that reading them blocks nobody for long.
    fn look(&self, identity: &Identity, last: &mut Found) -> Result<(), String> {
        let bundle = read(&self.trust_bundle)?;
        if bundle != last.bundle {
            let roots = Bundle::from_pem(&bundle).map_err(|error| at(&self.trust_bundle, &error))?;
            identity.set_bundle(roots);
            last.bundle = bundle;
        }
        let (svid, key) = (read(&self.certificate)?, read(&self.key)?);
        if svid != last.svid || key != last.key {
            let new = Svid::from_pem(&svid, &key, &identity.provider)
                .map_err(|error| at(&self.certificate, &error))?;
            identity.set_svid(new);
            (last.svid, last.key) = (svid, key);
        }
        Ok(())
    }
}

/// The whole file, if it has the size of one of these.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, String> {
    use io::Read;
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes));
    match read {
        Ok(_) if bytes.len() as u64 > LARGEST => Err(at(path, &"it is too large")),
        Ok(_) => Ok(bytes),
        Err(error) => Err(at(path, &error)),
    }
}

fn at(path: &Path, what: &dyn std::fmt::Display) -> String {
    format!("{}: {what}", path.display())
}
