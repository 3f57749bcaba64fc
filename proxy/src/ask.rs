//! `outrigger-proxy drain` and `shutdown`: asks the proxy that runs beside it, through its admin port.
//!
//! The sidecar's image holds this program and nothing else, so what a container's hook calls has to be it. Blocking and without a
//! runtime: one short question to loopback.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, bail};

/// A question to a running proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::Subcommand)]
pub enum Ask {
    /// Take leave of those who call: the inbound side drains, the app's own calls go on
    Drain(Where),
    /// Drain, then end
    Shutdown(Where),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::Args)]
pub struct Where {
    /// Admin port of the proxy
    #[arg(long, value_name = "ADDR:PORT", default_value_t = (Ipv4Addr::LOCALHOST, 15000).into())]
    pub admin: SocketAddr,
}

impl Ask {
    /// Asks and waits for the answer, not for the drain.
    pub fn run(self) -> anyhow::Result<()> {
        let (admin, path) = match self {
            Ask::Drain(at) => (at.admin, "/drain"),
            Ask::Shutdown(at) => (at.admin, "/shutdown"),
        };
        let answer = post(admin, path).with_context(|| format!("asking the proxy at {admin}"))?;
        let status = answer.split(' ').nth(1).unwrap_or_default();
        if status != "200" {
            bail!("the proxy at {admin} answered {:?}", answer.lines().next().unwrap_or_default());
        }
        Ok(())
    }
}

/// Longer than a proxy under load takes to answer on its admin port, shorter than any grace period.
const PATIENCE: Duration = Duration::from_secs(5);
/// Of an answer, bytes.
const MOST: u64 = 64 * 1024;

fn post(admin: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&admin, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nhost: {admin}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.take(MOST).read_to_string(&mut answer)?;
    Ok(answer)
}
