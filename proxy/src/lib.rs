//! The data plane: one proxy, as a sidecar beside an app or as a gateway in front of the mesh.
//!
//! The modules read in the order of a request: `downstream` (a connection arrives, its protocol is found, requests are
//! read) → `exchange` (one request, whole) → `route` (which cluster) → `upstream` (which endpoint, which connection).
//! Beside them: `mesh` (what is known, live), `discovery` (how it becomes known), `storage` (what is kept of it), `coalesce` (how HTTP/2 is written), `timers` (who waits how long), `canary` (whether traffic is redirected here),
//! `telemetry`, `admin`, `drain`, `failure`.

pub mod admin;
pub mod app;
pub mod ask;
pub mod body;
mod bytestream;
pub mod canary;
pub mod coalesce;
pub mod discovery;
pub mod dns;
pub mod downstream;
pub mod drain;
pub mod exchange;
pub mod failure;
mod field;
mod grpc_health;
pub mod identity;
pub mod mesh;
pub mod options;
pub mod policy;
pub mod route;
pub mod runtime;
mod socket;
pub mod storage;
pub mod telemetry;
pub mod timers;
pub mod upgrade;
pub mod upstream;
pub mod worker;

/// Runs a proxy until it is told to end; for `main`.
pub fn start(options: options::Options) -> anyhow::Result<()> {
    let mut setup = options.setup()?;
    setup.log = admin::Log::install()?;
    if let Err(error) = runtime::small_pages() {
        tracing::warn!(%error, "memory may come in huge pages");
    }
    app::start(setup, |shared| options.supply(shared))?.wait()
}
