//! `outrigger identity`: who every workload is, and whether its calls are protected.
//!
//! Each proxy of the mesh is asked on its admin port; nothing is kept. With `--strict-report`: which callers Strict would turn away, from what
//! was seen since the proxies started. Exit code 1 if there are any, or if a proxy has no certificate it can use.

mod edges;
mod workloads;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use futures_util::future::join_all;
use serde::{Deserialize, Serialize};

use crate::http::get_json;
use crate::output::{self, Format};
use crate::up::MeshReport;
use crate::up::socket;

/// Show who every workload is, and whether its calls are protected.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The directory the mesh was started with; not needed when only one mesh runs.
    manifests: Option<PathBuf>,
    /// Second byte of its loopback network.
    #[arg(long)]
    network: Option<u8>,
    /// Show what would break if Strict were switched on, from the connections seen so far.
    #[arg(long)]
    strict_report: bool,
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
}

/// One proxy, and what it says of itself.
#[derive(Clone, Debug, Serialize)]
pub struct Proxy {
    /// `NAMESPACE/NAME`
    pub workload: String,
    pub address: String,
    /// Why it could not be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unreachable: Option<String>,
    #[serde(flatten)]
    pub said: Said,
}

/// As `/identity` of a proxy answers. Times are seconds since 1970.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Said {
    pub configured: bool,
    pub svid: Option<Svid>,
    pub roots: usize,
    pub renewals: u64,
    /// Whether a restart finds the certificate again.
    pub kept: Option<bool>,
    pub why_not_kept: Option<String>,
    pub error: Option<String>,
    pub edges: Vec<Edge>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Svid {
    pub id: String,
    pub serial: String,
    pub issuer: String,
    pub not_before: u64,
    pub not_after: u64,
}

/// One pair of ends, as one of them saw it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Edge {
    pub direction: String,
    pub peer: Option<String>,
    pub workload: Option<String>,
    pub address: Option<String>,
    pub port: u16,
    pub mtls: bool,
    pub why_plaintext: Option<String>,
    pub key_exchange: Option<String>,
    pub cipher: Option<String>,
    pub connections: u64,
    pub resumed: u64,
    pub first: u64,
    pub last: u64,
}

/// What one proxy may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let run_dir = socket::choose(args.network, args.manifests.as_deref()).await?;
        let mesh = socket::status(&run_dir).await?;
        let proxies = ask_all(&mesh).await;
        let well = if args.strict_report {
            let refused = edges::refused_by_strict(&proxies);
            let seen = edges::callers_seen(&proxies);
            output::print(args.output, &refused, |refused| edges::strict_table(refused, seen))?;
            // Of whom nothing is known, nothing good is known.
            let silent = proxies.iter().filter_map(|proxy| Some((proxy, proxy.unreachable.as_ref()?)));
            let mut all_asked = true;
            for (proxy, why) in silent {
                eprintln!("outrigger: {} could not be asked who calls it: {why}", proxy.workload);
                all_asked = false;
            }
            refused.is_empty() && all_asked
        } else {
            output::print(args.output, &proxies, |proxies| {
                workloads::table(proxies) + &edges::table(proxies)
            })?;
            proxies.iter().all(workloads::is_well)
        };
        Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}

/// Sidecars and gateways, by name.
async fn ask_all(mesh: &MeshReport) -> Vec<Proxy> {
    let workloads = mesh.workloads.iter().map(|workload| {
        (format!("{}/{}", workload.namespace, workload.name), workload.address.clone(), &workload.admin)
    });
    let gateways = mesh.gateways.iter().map(|gateway| {
        let address = host(&gateway.admin);
        (format!("{}/{}", gateway.namespace, gateway.name), address, &gateway.admin)
    });
    let asked = workloads.chain(gateways).map(|(workload, address, admin)| async move {
        let (said, unreachable) = match get_json(admin, "/identity", PATIENCE).await {
            Ok(said) => (said, None),
            Err(error) => (Said::default(), Some(format!("{error:#}"))),
        };
        Proxy { workload, address, unreachable, said }
    });
    join_all(asked).await
}

fn host(url: &str) -> String {
    let rest = url.trim_start_matches("http://");
    rest.rsplit_once(':').map_or(rest, |(host, _)| host).to_owned()
}

/// Who has which address.
fn names(proxies: &[Proxy]) -> BTreeMap<&str, &str> {
    proxies.iter().map(|proxy| (&*proxy.address, &*proxy.workload)).collect()
}
