//! The CA of a running control plane: what signs now, what is believed now, and the steps that time brings.
//!
//! Nothing of it lives here alone: the state is in the store, where other control planes and `outrigger ca` change it too, and is looked
//! at every second. Where certificate and key are given as files, those are looked at, and their owner takes the steps.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use outrigger_config::model::Root;
use rcgen::{PublicKeyData, SanType};

use super::authority::{Authority, Issuer, Leaf, sorted};
use super::state::{State, Step};
use super::store::{CaStore, Revision};
use super::x509::Error;

#[derive(Debug)]
pub struct Ca {
    origin: Origin,
    present: ArcSwap<Present>,
}

#[derive(Debug)]
enum Origin {
    Store(Arc<dyn CaStore>),
    Files { certificates: PathBuf, key: PathBuf },
}

/// What holds until the next look.
#[derive(Debug)]
pub struct Present {
    issuer: Issuer,
    roots: Arc<[Root]>,
    /// No leaf is given a longer one: the old root of a rotation is believed that long.
    longest_life: Duration,
    seen: Seen,
}

/// What tells a state from the next.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Revision(Revision),
    Files(String, String),
}

impl Present {
    pub fn roots(&self) -> &Arc<[Root]> {
        &self.roots
    }

    /// When what signs ends, the root above it included.
    pub fn until(&self) -> SystemTime {
        self.issuer.until()
    }

    pub fn root_until(&self) -> SystemTime {
        self.issuer.root_until()
    }
}

impl Ca {
    /// The CA kept in `store`; a new one where nothing is.
    pub async fn open(store: Arc<dyn CaStore>, life: Duration) -> io::Result<Self> {
        let stored = loop {
            if let Some(stored) = store.load().await? {
                break stored;
            }
            let authority = Authority::make(SystemTime::now()).map_err(io::Error::other)?;
            tracing::info!(root = authority.id, "made a root and an intermediate");
            store.replace(None, &State::new(authority, life)).await?;
        };
        let present = Present::of_state(&stored.state, stored.revision).map_err(io::Error::other)?;
        Ok(Self { origin: Origin::Store(store), present: ArcSwap::from_pointee(present) })
    }

    /// A CA of files: `certificates` in PEM, what signs first, with each root that is to be believed; `key` belongs to the first.
    pub async fn given(certificates: &Path, key: &Path) -> io::Result<Self> {
        let texts = (read(certificates).await?, read_key(key).await?);
        let present = Present::of_files(texts, SystemTime::now()).map_err(|error| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", certificates.display()))
        })?;
        let origin = Origin::Files { certificates: certificates.to_owned(), key: key.to_owned() };
        Ok(Self { origin, present: ArcSwap::from_pointee(present) })
    }

    pub fn present(&self) -> Arc<Present> {
        self.present.load_full()
    }

    /// Signs what the caller is entitled to, which is for others to judge.
    pub fn sign(
        &self,
        key: &impl PublicKeyData,
        names: Vec<SanType>,
        life: Duration,
        now: SystemTime,
    ) -> Result<Leaf, Error> {
        let present = self.present.load();
        present.issuer.sign(key, names, life.min(present.longest_life), now)
    }

    /// Takes up what others have changed, and does what is due.
    ///
    /// `life`: how long leaves are to live now. `all_heard`: whether every proxy there is believes in these roots.
    pub async fn look(
        &self,
        life: Duration,
        all_heard: impl Fn(&[Root]) -> bool + Send,
        now: SystemTime,
    ) -> io::Result<()> {
        match &self.origin {
            Origin::Store(store) => self.look_at(&**store, life, all_heard, now).await,
            Origin::Files { certificates, key } => {
                let texts = (read(certificates).await?, read_key(key).await?);
                if self.present.load().seen != Seen::Files(texts.0.clone(), texts.1.clone()) {
                    let present = Present::of_files(texts, now).map_err(io::Error::other)?;
                    tracing::info!(file = %certificates.display(), "took up the changed certificates of the CA");
                    self.present.store(Arc::new(present));
                }
                Ok(())
            }
        }
    }

    async fn look_at(
        &self,
        store: &dyn CaStore,
        life: Duration,
        all_heard: impl Fn(&[Root]) -> bool + Send,
        now: SystemTime,
    ) -> io::Result<()> {
        // One thing leads to another: a step is taken up where it was taken.
        for _ in 0..MOST_STEPS {
            let stored = store.load().await?.ok_or_else(|| {
                io::Error::new(io::ErrorKind::NotFound, "the state of the CA is gone; what it was goes on")
            })?;
            if self.present.load().seen != Seen::Revision(stored.revision.clone()) {
                let present =
                    Present::of_state(&stored.state, stored.revision.clone()).map_err(io::Error::other)?;
                tracing::info!(roots = present.roots.len(), "took up a new state of the CA");
                self.present.store(Arc::new(present));
            }
            let heard = all_heard(self.present.load().roots());
            let Some((what, next)) = next(&stored.state, life, heard, now).map_err(io::Error::other)? else {
                return Ok(());
            };
            // Where somebody else was faster, that is looked at.
            if store.replace(Some(&stored.revision), &next).await? {
                tracing::info!("{what}");
            }
        }
        Ok(())
    }
}

/// In one look.
const MOST_STEPS: usize = 4;

/// What is to be done now, one thing at a time.
fn next(
    state: &State,
    life: Duration,
    all_heard: bool,
    now: SystemTime,
) -> Result<Option<(&'static str, State)>, Error> {
    if let Some(changed) = state.with_life(life, now) {
        return Ok(Some(("how long leaves may live has changed", changed)));
    }
    if let Some(renewed) = state.renewed(now)? {
        return Ok(Some(("made a new intermediate", renewed)));
    }
    Ok(state.due(all_heard, now).map(|(step, next)| match step {
        Step::Add => ("the new root is believed", next),
        Step::Sign => ("the new root signs", next),
        Step::Remove => ("the old root is believed no longer", next),
    }))
}

impl Present {
    fn of_state(state: &State, revision: Revision) -> Result<Self, Error> {
        Ok(Self {
            issuer: state.issuer()?,
            roots: state.roots()?.into(),
            longest_life: state.life(),
            seen: Seen::Revision(revision),
        })
    }

    fn of_files((certificates, key): (String, String), now: SystemTime) -> Result<Self, Error> {
        let (chain, roots) = sorted(&certificates)?;
        let first = roots.first().ok_or_else(|| {
            Error::Wrong("no root (a certificate issued by itself) is among the certificates".into())
        })?;
        let issuer = Issuer::new(chain, first, &key)?;
        issuer.prove(&roots, now)?;
        Ok(Self {
            issuer,
            roots: roots.iter().map(|root| Root::new(root.as_ref())).collect(),
            // Whoever gives the files knows how long to believe a root.
            longest_life: Duration::MAX,
            seen: Seen::Files(certificates, key),
        })
    }
}

async fn read(path: &Path) -> io::Result<String> {
    tokio::fs::read_to_string(path)
        .await
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

/// A key, which has to be its owner's and at most its group's: whoever reads it may be anybody. A group is let pass because a volume of Kubernetes
/// that is not root's can be given no other way (`fsGroup` with `defaultMode: 0440`).
async fn read_key(path: &Path) -> io::Result<String> {
    let about = tokio::fs::metadata(path).await;
    let about =
        about.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
    if about.permissions().mode() & 0o027 != 0 {
        let text = format!("{}: others may read or change the key in it; chmod 600", path.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    read(path).await
}

#[cfg(test)]
mod tests;
