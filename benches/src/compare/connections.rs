//! A connection for each request, plain or with a TLS handshake of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::ensure;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use super::certificates::Certificates;
use super::scenario::Tls;
use super::wire::Wire;

/// At a time.
const TASKS: usize = 16;

/// Opens connections for `time`, one request on each, and returns how many. Each is checked for having been resumed, or not.
pub async fn run(
    at: SocketAddr,
    certificates: &Certificates,
    alpn: &str,
    tls: Tls,
    time: Duration,
) -> anyhow::Result<u64> {
    let (mutual, resumed) = match tls {
        Tls::None | Tls::Server => (false, false),
        Tls::Mutual { resumed } => (true, resumed),
    };
    let done = Arc::new(AtomicU64::new(0));
    let until = Instant::now() + time;
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        // A session of its own for each: two tasks never take the same ticket.
        let config = certificates.client(alpn, mutual, resumed)?;
        let connector = TlsConnector::from(Arc::new(config));
        let done = done.clone();
        tasks.spawn(async move {
            if resumed {
                Wire::tls(at, &connector).await?.last().await?;
            }
            while Instant::now() < until {
                if tls == Tls::None {
                    Wire::plain(at).await?.last().await?;
                } else {
                    let mut wire = Wire::tls(at, &connector).await?;
                    ensure!(
                        wire.resumed() == resumed,
                        "a session was resumed that should not have been, or was not"
                    );
                    wire.last().await?;
                }
                done.fetch_add(1, Ordering::Relaxed);
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(done.load(Ordering::Relaxed))
}
