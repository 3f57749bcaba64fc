//! The proof that the pod's traffic is redirected to this proxy.
//!
//! Redirection is loaded by somebody else (`outrigger capture apply`) and can be missing, half there or flushed later; the proxy may not
//! look at rules, so it looks at what they do. It calls itself at port 15019 with a nonce and must meet itself: from loopback, which
//! the canary's rule sends to the outbound port, and at the pod's own address, which the rules for calls to oneself send to the inbound
//! port. Owns these calls and what is missing while one fails. Cannot see the one rule that only packets from outside pass.

mod addresses;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use crate::admin::Condition;
use crate::telemetry::Direction;

pub use addresses::{Addresses, has_ipv6};

/// The port that means the canary.
pub const PORT: u16 = 15019;

/// Ports of a captured pod that are the proxy's own: admin, outbound, inbound, canary, metrics. What arrives for one of them, redirected, is
/// no traffic of the app.
pub const OWN_PORTS: [u16; 5] = [15000, 15001, 15006, PORT, 15020];

/// Calls of ours that are on their way, by nonce.
#[derive(Debug, Default)]
pub struct Canary(Mutex<HashMap<Nonce, oneshot::Sender<Met>>>);

type Nonce = [u8; 16];

/// Where one of our calls arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Met {
    at: Direction,
    original: SocketAddr,
}

/// What a call shows when it arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Half {
    /// The app's calls come to us.
    Outbound,
    /// Calls to the pod's address come to us.
    Inbound,
}

/// Says in a packet dump whose connection it is; then follow the bytes of the nonce.
const GREETING: &[u8; 17] = b"outrigger-canary ";

/// From connecting to meeting. Everything happens inside the kernel and this process.
const PATIENCE: Duration = Duration::from_secs(2);

/// Between two looks while something is missing.
const AGAIN: Duration = Duration::from_millis(250);

/// Looks in a row that must fail before what was proven counts as lost: one may fail because the machine is busy.
const LOST: u32 = 3;

impl Canary {
    /// Whether a redirected connection is a call to the canary. Port 15019 of some other host is that host's.
    pub fn is_called(arrived: Direction, original: SocketAddr) -> bool {
        original.port() == PORT && (arrived != Direction::Outbound || original.ip().is_loopback())
    }

    /// Takes a connection to the canary. One that brings no nonce of ours is closed; nothing is ever answered or passed on.
    pub async fn meet(&self, mut stream: TcpStream, at: Direction, original: SocketAddr) {
        let mut said = [0; GREETING.len() + size_of::<Nonce>()];
        let Ok(Ok(_)) = timeout(PATIENCE, stream.read_exact(&mut said)).await else { return };
        let Some(nonce) = said.strip_prefix(GREETING) else { return };
        if let Some(caller) = self.0.lock().remove(nonce) {
            // Whoever called has stopped waiting.
            let _ = caller.send(Met { at, original });
        }
    }

    /// Looks again and again, and tells `condition`. `every`: how long what was proven is believed.
    pub async fn watch(self: Arc<Self>, condition: Condition, addresses: Addresses, every: Duration) {
        let mut proven = None;
        // What was never proven needs no second failure to be missing.
        let mut failed = LOST - 1;
        loop {
            let missing = self.missing(&addresses).await;
            if missing.is_empty() {
                if proven.replace(true) != Some(true) {
                    tracing::info!("the pod's traffic is redirected to this proxy");
                }
                failed = 0;
                condition.holds();
                sleep(every).await;
                continue;
            }
            failed = failed.saturating_add(1);
            if failed >= LOST {
                if proven.replace(false) != Some(false) {
                    tracing::warn!("{}", missing.join("; "));
                }
                condition.fails(missing.join("\n"));
            }
            sleep(AGAIN).await;
        }
    }

    /// What is not redirected, in words.
    async fn missing(&self, addresses: &Addresses) -> Vec<String> {
        let pod = match addresses.now() {
            Ok(pod) => pod,
            Err(error) => return vec![format!("the addresses of the pod cannot be listed: {error}")],
        };
        // An IPv6-only pod has 127.0.0.1, too, and its apps may call IPv4.
        let v4 = self.family("IPv4", Some(Ipv4Addr::LOCALHOST.into()), pod.v4.map(IpAddr::from));
        let v6 = self.family("IPv6", pod.v6.map(|_| Ipv6Addr::LOCALHOST.into()), pod.v6.map(IpAddr::from));
        let (v4, v6) = tokio::join!(v4, v6);
        v4.into_iter().chain(v6).collect()
    }

    async fn family(&self, family: &str, loopback: Option<IpAddr>, pod: Option<IpAddr>) -> Option<String> {
        let calls = [(Half::Outbound, loopback), (Half::Inbound, pod)];
        let calls = calls.into_iter().filter_map(|(half, ip)| Some(self.call(half, ip?)));
        let failed: Vec<(Half, Missed)> = join_all(calls).await.into_iter().flatten().collect();
        let what = match failed.as_slice() {
            [] => return None,
            [(Half::Outbound, _)] => " of the app",
            [(Half::Inbound, _)] => " to the pod",
            _ => "",
        };
        let why: Vec<_> = failed.iter().map(|(_, why)| why.to_string()).collect();
        let why = why.join(", ");
        Some(format!("{family} connections{what} are not redirected: {why}; run `outrigger capture apply`"))
    }

    /// Why a call did not arrive where it should, if it did not.
    async fn call(&self, half: Half, ip: IpAddr) -> Option<(Half, Missed)> {
        let to = SocketAddr::new(ip, PORT);
        let nonce: Nonce = rand::random();
        let (caller, met) = oneshot::channel();
        self.0.lock().insert(nonce, caller);
        let result = timeout(PATIENCE, reach(to, nonce, met)).await;
        self.0.lock().remove(&nonce);
        let missed = match result {
            Ok(Ok(met)) if met == (Met { at: half.direction(), original: to }) => return None,
            Ok(Ok(met)) => Missed::Elsewhere(to, met),
            Ok(Err(error)) => Missed::Failed(to, error),
            Err(_) => Missed::Silence(to),
        };
        Some((half, missed))
    }
}

async fn reach(to: SocketAddr, nonce: Nonce, met: oneshot::Receiver<Met>) -> io::Result<Met> {
    let mut stream = TcpStream::connect(to).await?;
    stream.write_all(&[&GREETING[..], &nonce].concat()).await?;
    match met.await {
        Ok(met) => Ok(met),
        // The sender stays in the table as long as this waits.
        Err(_) => std::future::pending().await,
    }
}

impl Half {
    fn direction(self) -> Direction {
        match self {
            Self::Outbound => Direction::Outbound,
            Self::Inbound => Direction::Inbound,
        }
    }
}

#[derive(Debug)]
enum Missed {
    Failed(SocketAddr, io::Error),
    /// Nobody answers, or somebody who is not us.
    Silence(SocketAddr),
    Elsewhere(SocketAddr, Met),
}

impl fmt::Display for Missed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(to, error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                write!(f, "no rule answers for {to}")
            }
            Self::Failed(to, error) => write!(f, "{to} cannot be reached ({error})"),
            Self::Silence(to) => {
                write!(f, "a call to {to} did not come back to this proxy within {PATIENCE:?}")
            }
            Self::Elsewhere(to, met) => {
                write!(f, "a call to {to} came back as one to {} on the {:?} port", met.original, met.at)
            }
        }
    }
}

#[cfg(test)]
mod tests;
