//! The loopback network of one mesh: a /16 of 127.0.0.0/8 that no other mesh on this machine uses.
//!
//! Owns which /16 is ours (a lock file held as long as the mesh runs) and hands out its addresses. `.0.1` is kept for the control plane.

use std::fs::{self, File, TryLockError};
use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use outrigger_proxy::storage;

use super::control;

/// First and last second byte tried: 127.64 to 127.127.
const FIRST: u8 = 64;
const LAST: u8 = 127;

/// Held at `.0.1` as long as the mesh runs: other users of the machine have lock files elsewhere, but the same addresses. UDP, as the
/// control plane listens on TCP there, and whether it runs at the moment or not the network is taken.
const MARKER_PORT: u16 = control::API_PORT;

#[derive(Debug)]
pub struct Network {
    second: u8,
    next: u16,
    run_dir: PathBuf,
    /// The lock of the run folder; given up by the operating system whatever ends us.
    _lock: File,
    _marker: UdpSocket,
}

impl Network {
    /// Takes `wanted` or the first free one. The error says who has it.
    pub fn take(root: &Path, wanted: Option<u8>) -> anyhow::Result<Self> {
        if let Some(second) = wanted {
            return Self::try_take(root, second)?
                .with_context(|| format!("127.{second}.0.0/16 is in use by another mesh or program"));
        }
        for second in FIRST..=LAST {
            if let Some(network) = Self::try_take(root, second)? {
                return Ok(network);
            }
        }
        bail!("all of 127.{FIRST}.0.0/16 to 127.{LAST}.0.0/16 are in use");
    }

    fn try_take(root: &Path, second: u8) -> anyhow::Result<Option<Self>> {
        let run_dir = root.join(format!("127.{second}"));
        fs::create_dir_all(&run_dir).with_context(|| format!("creating {}", run_dir.display()))?;
        let lock_path = run_dir.join("lock");
        let lock = File::create(&lock_path).with_context(|| format!("creating {}", lock_path.display()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error).context("locking the run folder"),
        }
        let address = Ipv4Addr::new(127, second, 0, 1);
        let open = || {
            for port in control::PORTS {
                TcpListener::bind((address, port))?;
            }
            UdpSocket::bind((address, MARKER_PORT))
        };
        let marker = match open() {
            Ok(marker) => marker,
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("binding in 127.{second}.0.0/16")),
        };
        Ok(Some(Self { second, next: 0, run_dir, _lock: lock, _marker: marker }))
    }

    /// Whether a mesh holds the lock of this run folder now.
    pub fn is_held(run_dir: &Path) -> bool {
        File::open(run_dir.join("lock"))
            .is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }

    /// Sockets, logs and instance objects of this mesh.
    pub fn run_dir(&self) -> &Path {
        &self.run_dir
    }

    /// Whether keys may be kept in the run folder.
    pub fn is_in_memory(&self) -> bool {
        is_in_memory(&self.run_dir)
    }

    /// Root, intermediate and token key of the mesh. Stays when the mesh ends, so that who was told of a root need not be told again.
    pub fn ca_dir(&self) -> PathBuf {
        self.run_dir.join("ca")
    }

    /// Below it each proxy has a folder of its own.
    pub fn state_dir(&self) -> PathBuf {
        self.run_dir.join("state")
    }

    /// `.0.1`
    pub fn control(&self) -> Ipv4Addr {
        Ipv4Addr::new(127, self.second, 0, 1)
    }

    /// The next address of the network. An address is not given out twice while the mesh runs: a caller may still
    /// hold a connection to the one that had it before.
    pub fn next(&mut self) -> anyhow::Result<Ipv4Addr> {
        // 127.N.1.1 to 127.N.255.254, without .0 and .255 endings: they look like network and broadcast addresses.
        let (third, fourth) = (1 + self.next / 254, 1 + self.next % 254);
        if third > 255 {
            bail!("127.{}.0.0/16 has no address left; restart the mesh", self.second);
        }
        self.next += 1;
        Ok(Ipv4Addr::new(127, self.second, third as u8, fourth as u8))
    }
}

/// `$XDG_RUNTIME_DIR/outrigger`; without it `/run/outrigger` for root, and for others, or where that is not in memory, a folder of the user's own
/// in `/dev/shm`, else in /tmp. In memory if possible, as the keys of proxies are kept nowhere else. Mode 0700.
pub fn run_root() -> anyhow::Result<PathBuf> {
    use std::os::unix::fs::{DirBuilderExt, MetadataExt};

    let uid = nix::unistd::getuid();
    let own = format!("outrigger-{uid}");
    let root = match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(dir) if Path::new(&dir).is_dir() => Path::new(&dir).join("outrigger"),
        _ if uid.is_root() && is_in_memory(Path::new("/run")) => PathBuf::from("/run/outrigger"),
        _ if is_in_memory(Path::new("/dev/shm")) => Path::new("/dev/shm").join(own),
        _ => Path::new("/tmp").join(own),
    };
    match fs::DirBuilder::new().mode(0o700).create(&root) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error).with_context(|| format!("creating {}", root.display())),
    }
    // Where all may write somebody else may have made it first, to read what we write there.
    let owner = fs::symlink_metadata(&root)?;
    if !owner.is_dir() || owner.uid() != uid.as_raw() {
        bail!("{} is not a folder of yours", root.display());
    }
    Ok(root)
}

/// Whether what is written there never reaches a disk (but by swapping).
fn is_in_memory(path: &Path) -> bool {
    storage::is_in_memory(path).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_meshes_get_two_networks_and_a_wanted_one_that_is_taken_is_an_error() {
        let root = tempfile::tempdir().expect("a folder");
        let mut first = Network::take(root.path(), None).expect("a network");
        let second = Network::take(root.path(), None).expect("a network");
        assert_ne!(first.control(), second.control());
        assert!(Network::is_held(first.run_dir()));
        assert!(Network::take(root.path(), Some(first.control().octets()[1])).is_err());

        let (a, b) = (first.next().expect("an address"), first.next().expect("an address"));
        assert_ne!(a, b);
        let run_dir = first.run_dir().to_owned();
        drop(first);
        assert!(!Network::is_held(&run_dir));
    }
}
