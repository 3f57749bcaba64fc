//! The way to a server that is named by its address: through the mesh where the mesh has it, with mTLS and to a ready endpoint as all calls of the workload go; else
//! straight there, in plaintext.
//!
//! Owns that choice, made anew for each connection. A name nobody could be asked about is not called at all: in plaintext it might be the wrong way.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Weak;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use outrigger_config::model::DestinationName;
use tonic::codegen::Service;

use crate::discovery::{Connection, Dial};
use crate::mesh::{Lookup, Mesh};
use crate::upstream::connect::open_tcp;

#[derive(Clone, Debug)]
pub struct Door {
    pub dial: Dial,
    /// `None`: nothing there is in the mesh.
    pub through: Option<Through>,
}

/// Weak: what the mesh holds leads here.
#[derive(Clone, Debug)]
pub struct Through {
    pub mesh: Weak<Mesh>,
    /// Where this proxy takes what its workload calls.
    pub outbound: SocketAddr,
}

/// To ourselves.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

impl Through {
    /// Whether the mesh has it.
    async fn has(&self, uri: &Uri) -> Result<bool, String> {
        let Some(mesh) = self.mesh.upgrade() else { return Err("the proxy ends".into()) };
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let name: DestinationName =
            authority.parse().map_err(|_| format!("{authority} is no destination"))?;
        match mesh.destination(&name).await {
            Lookup::Known(_) => Ok(true),
            Lookup::Unknown => Ok(false),
            Lookup::Unavailable => Err(format!("the control plane could not be asked about {name}")),
        }
    }
}

impl Service<Uri> for Door {
    type Response = TokioIo<Connection>;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let Self { mut dial, through } = self.clone();
        Box::pin(async move {
            if let Some(through) = through
                && through.has(&uri).await?
            {
                let stream = open_tcp(through.outbound, CONNECT_TIMEOUT).await?;
                return Ok(TokioIo::new(Connection::Plain(stream)));
            }
            dial.call(uri).await
        })
    }
}
