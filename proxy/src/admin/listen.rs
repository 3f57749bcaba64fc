//! The sockets of the proxy's own ports.
//!
//! Owns accepting and the limits of whoever connects: 64 connections at once, 2 min each.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::answer::answer;
use super::{ADMIN, AppProbes, Endpoint, METRICS, State};

/// Connections served at once; more wait.
const CONNECTIONS: usize = 64;

/// Whoever holds a place without asking anything loses it after this.
const LONGEST: Duration = Duration::from_secs(120);

/// Waiting connections the kernel holds.
const BACKLOG: i32 = 128;

pub fn bind(address: SocketAddr) -> anyhow::Result<std::net::TcpListener> {
    listening(address).with_context(|| format!("cannot listen on {address}"))
}

fn listening(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // `[::]` is all addresses of both families.
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Serves both ports as long as the process lives.
pub async fn serve(admin: std::net::TcpListener, metrics: std::net::TcpListener, state: State) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    let state = Arc::new(state);
    let probes = state.probes.clone();
    tokio::join!(
        accept(admin, ADMIN, AppProbes::default(), state.clone(), connections.clone()),
        accept(metrics, METRICS, probes, state, connections),
    );
}

async fn accept(
    socket: std::net::TcpListener,
    endpoints: &'static [Endpoint],
    probes: AppProbes,
    state: Arc<State>,
    connections: Arc<Semaphore>,
) {
    let socket = match TcpListener::from_std(socket) {
        Ok(socket) => socket,
        Err(error) => return tracing::error!(%error, "the admin port cannot be watched"),
    };
    loop {
        let Ok(permit) = connections.clone().acquire_owned().await else { return };
        let stream = match socket.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the admin port cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (state, probes) = (state.clone(), probes.clone());
        tokio::spawn(async move {
            let _permit = permit;
            let service = service_fn(|request: Request<Incoming>| {
                let (head, _) = request.into_parts();
                let (state, probes) = (state.clone(), probes.clone());
                async move {
                    let probed = probes.answer(&head, state.pod).await;
                    Ok::<_, Infallible>(probed.unwrap_or_else(|| answer(&head, endpoints, &state)))
                }
            });
            let mut http = hyper::server::conn::http1::Builder::new();
            http.timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(10))
                .max_buf_size(64 * 1024);
            let serving = http.serve_connection(TokioIo::new(stream), service);
            let _ = tokio::time::timeout(LONGEST, serving).await;
        });
    }
}
