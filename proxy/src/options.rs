//! The command line of a proxy, the same for `outrigger proxy`, `outrigger gateway` and `outrigger-proxy`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use outrigger_config::model::DestinationName;
use outrigger_config::resolve::Subscriber;
use outrigger_config::xds::{Node, Role};
use rand::RngExt;

use crate::admin::AppProbes;
use crate::app::{Captured, Setup};
use crate::canary::{Addresses, has_ipv6};
use crate::discovery::{Cache, Dial, Own, Source};
use crate::drain::Timing;
use crate::identity::{Authority, Files, Kept, Provision, Secure};
use crate::worker::Shared;

/// The sidecar of one workload, or a gateway.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Directories (or files) of manifests, resolved by the proxy itself; repeatable.
    #[arg(long, required_unless_present = "control", conflicts_with = "control", value_name = "DIR")]
    pub manifests: Vec<PathBuf>,
    /// A control plane's discovery port; repeatable, they are replicas. Plaintext unless its roots are given (`--control-root`).
    #[arg(long, value_name = "HOST:PORT")]
    pub control: Vec<String>,
    /// Roots the control plane is believed by, PEM: it is asked over TLS then (port 15012), also for this proxy's certificate.
    #[arg(long, value_name = "FILE", requires = "control")]
    pub control_root: Option<PathBuf>,
    /// The token that says which proxy this is; read anew for each connection.
    #[arg(long, value_name = "FILE", requires = "control_root")]
    pub token: Option<PathBuf>,
    /// Where the certificate and its key are kept across restarts, in memory: a directory on tmpfs. Default: nowhere.
    #[arg(long, value_name = "DIR", requires = "control_root")]
    pub identity_dir: Option<PathBuf>,
    /// Where the last good configuration is kept, from which the proxy starts while its control plane is away. Default: nowhere.
    #[arg(long, value_name = "DIR", requires = "control")]
    pub state_dir: Option<PathBuf>,
    /// Namespace of the workload or gateway.
    #[arg(long, default_value = "default")]
    pub namespace: String,
    /// The Workload this proxy stands beside.
    #[arg(long, required_unless_present = "gateway", conflicts_with = "gateway")]
    pub workload: Option<String>,
    /// The Gateway this proxy is.
    #[arg(long)]
    pub gateway: Option<String>,
    /// All traffic of this pod is redirected to this proxy (`outrigger capture apply`): it listens where the rules lead, and is not
    /// ready before it has met itself there.
    #[arg(long, conflicts_with_all = ["gateway", "inbound_listen"])]
    pub captured: bool,
    /// How often a captured proxy looks whether the rules are still there.
    #[arg(long, value_parser = seconds, default_value = "30s", value_name = "SECONDS")]
    pub capture_check: Duration,
    /// The address others reach this proxy at. Captured, by default, the first one of the interfaces.
    #[arg(long, value_name = "IP", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    pub pod_address: IpAddr,
    /// Where the app's own calls arrive: redirected, or with this as their HTTP proxy; repeatable. Default: port 15001 of the
    /// pod address; captured, of loopback.
    #[arg(long, value_name = "ADDR:PORT")]
    pub outbound: Vec<SocketAddr>,
    /// Where redirected calls to the app arrive; repeatable. Default: port 15006 of the pod address; captured, of all addresses.
    #[arg(long, value_name = "ADDR:PORT")]
    pub inbound: Vec<SocketAddr>,
    /// Listen on each declared port of the workload at the pod address: for apps whose traffic is not redirected.
    #[arg(long)]
    pub inbound_listen: bool,
    /// Stands for a service: what connects there goes to HOST:PORT; repeatable.
    #[arg(long, value_name = "ADDR:PORT=HOST:PORT")]
    pub service_address: Vec<ServiceAddress>,
    /// Admin port; a loopback address or the pod address. Default: pod address, port 15000; captured, 127.0.0.1.
    #[arg(long, value_name = "ADDR:PORT")]
    pub admin: Option<SocketAddr>,
    /// Metrics and health. Default: pod address, port 15020; captured, all addresses.
    #[arg(long, value_name = "ADDR:PORT")]
    pub metrics: Option<SocketAddr>,
    /// The app's probes, which the metrics port answers for by making them: a JSON object from a path, /app-health/CONTAINER/readyz,
    /// to what to do, in Kubernetes' words. Written by injection.
    #[arg(long, value_name = "JSON", env = "OUTRIGGER_APP_PROBES", hide_env_values = true)]
    pub app_probes: Option<AppProbes>,
    /// Added to gateway ports below 1024, where those cannot be bound.
    #[arg(long, default_value_t = 0)]
    pub low_port_offset: u16,
    /// Threads that carry traffic. Default: the CPU limit rounded up, at most 2.
    #[arg(long)]
    pub workers: Option<usize>,
    /// The certificate this proxy proves itself with, PEM, leaf first; followed as it changes. Without one it speaks plaintext.
    #[arg(long, value_name = "FILE", requires = "identity_key", requires = "trust_bundle")]
    pub identity_cert: Option<PathBuf>,
    /// The certificate's private key, PEM.
    #[arg(long, value_name = "FILE", requires = "identity_cert")]
    pub identity_key: Option<PathBuf>,
    /// The roots that are believed, PEM; followed as they change.
    #[arg(long, value_name = "FILE", requires = "identity_cert")]
    pub trust_bundle: Option<PathBuf>,
    /// How long callers may need to hear that this instance leaves.
    #[arg(long, value_parser = seconds, default_value = "5s")]
    pub drain_window: Duration,
    /// From the first signal to the end.
    #[arg(long, value_parser = seconds, default_value = "25s")]
    pub drain_deadline: Duration,
}

impl Options {
    /// What the proxy is and where it listens.
    pub fn setup(&self) -> anyhow::Result<Setup> {
        let own = match &self.gateway {
            Some(name) => {
                Own::Gateway { namespace: self.namespace.as_str().into(), name: name.as_str().into() }
            }
            None => Own::Sidecar,
        };
        let sidecar = self.gateway.is_none();
        let mut setup = Setup::new(own);
        setup.workers = self.workers;
        let pod_address = self.pod_address()?;
        let mut at = Listening::beside(pod_address);
        if self.captured {
            at = Listening::captured(has_ipv6());
            let given = (!self.pod_address.is_loopback()).then_some(self.pod_address);
            let addresses = Addresses::OfInterfaces { given };
            setup.captured = Some(Captured { addresses, every: self.capture_check });
        }
        setup.admin = self.admin.unwrap_or(at.admin);
        anyhow::ensure!(
            setup.admin.ip().is_loopback() || setup.admin.ip() == pod_address,
            "--admin {}: anyone who reaches it may stop this proxy; a loopback address or the pod's own is accepted",
            setup.admin
        );
        setup.metrics = self.metrics.unwrap_or(at.metrics);
        setup.app_probes = self.app_probes.clone().unwrap_or_default();
        setup.pod_address = pod_address;
        setup.low_port_offset = self.low_port_offset;
        setup.drain = Timing { window: self.drain_window, deadline: self.drain_deadline };
        setup.identity = self.identity();
        if sidecar {
            self.workload.as_ref().context("--workload or --gateway is needed")?;
            setup.outbound = given_or(&self.outbound, at.outbound);
            setup.inbound = given_or(&self.inbound, at.inbound);
            setup.inbound_listen = self.inbound_listen.then_some(self.pod_address);
            let pair = |address: &ServiceAddress| (address.listen, address.service.clone());
            setup.service_addresses = self.service_address.iter().map(pair).collect();
        } else {
            setup.gateway = vec![self.pod_address];
        }
        Ok(setup)
    }

    /// Files before the control plane: whoever gives both has an authority of his own.
    fn identity(&self) -> Option<Provision> {
        if let (Some(certificate), Some(key), Some(trust_bundle)) =
            (self.identity_cert.clone(), self.identity_key.clone(), self.trust_bundle.clone())
        {
            return Some(Provision::Files(Files { certificate, key, trust_bundle }));
        }
        let owner = match (&self.gateway, &self.workload) {
            (Some(name), _) => format!("gateway {}/{name}", self.namespace),
            (None, workload) => format!("workload {}/{}", self.namespace, workload.as_deref()?),
        };
        Some(Provision::Authority(Authority {
            addresses: self.control_addresses(),
            secure: self.secure()?,
            kept: Kept::new(self.identity_dir.clone(), owner),
        }))
    }

    fn control_addresses(&self) -> Vec<Arc<str>> {
        self.control.iter().map(|address| address.as_str().into()).collect()
    }

    fn secure(&self) -> Option<Secure> {
        Some(Secure { roots: self.control_root.clone()?, token: self.token.clone() })
    }

    fn pod_address(&self) -> anyhow::Result<IpAddr> {
        if !self.captured || !self.pod_address.is_loopback() {
            return Ok(self.pod_address);
        }
        let pod = Addresses::OfInterfaces { given: None }.now().context("listing the pod's addresses")?;
        Ok(pod.first().unwrap_or(self.pod_address))
    }

    /// Where its configuration comes from, and the copy it starts from. Called on the background runtime.
    pub fn supply(&self, shared: &Shared) -> anyhow::Result<(Source, Option<Cache>)> {
        let (role, subscriber) = match (&self.gateway, &self.workload) {
            (Some(name), _) => (
                Role::Gateway { namespace: self.namespace.as_str().into(), name: name.as_str().into() },
                Subscriber::gateway(&self.namespace, name),
            ),
            (None, Some(name)) => (
                Role::Sidecar { namespace: self.namespace.as_str().into(), workload: name.as_str().into() },
                Subscriber::sidecar(&self.namespace, name),
            ),
            (None, None) => anyhow::bail!("--workload or --gateway is needed"),
        };
        let instance = format!("{:016x}", rand::rng().random::<u64>());
        let node = Node { instance: Some(instance.into()), ..Node::new(role, Some(self.pod_address()?)) };
        let cache = self.state_dir.as_ref().map(|directory| {
            Cache::open(directory, &node.id())
                .with_context(|| format!("nothing can be kept in {}", directory.display()))
        });
        let source = if self.control.is_empty() {
            Source::files(self.manifests.clone(), subscriber).context("watching the manifests")?
        } else {
            let secure = self.secure().map(|secure| (secure, shared.identity.clone()));
            let dial = Dial { dns: shared.dns.clone(), secure };
            Source::control_plane(self.control_addresses(), &node, shared.mesh.clone(), dial)?
        };
        Ok((source, cache.transpose()?))
    }
}

fn given_or(given: &[SocketAddr], default: Vec<SocketAddr>) -> Vec<SocketAddr> {
    if given.is_empty() { default } else { given.to_vec() }
}

/// Where a sidecar listens if nothing else is said.
#[derive(Debug)]
struct Listening {
    outbound: Vec<SocketAddr>,
    inbound: Vec<SocketAddr>,
    admin: SocketAddr,
    metrics: SocketAddr,
}

impl Listening {
    fn beside(pod: IpAddr) -> Self {
        let at = |port| SocketAddr::new(pod, port);
        Self { outbound: vec![at(15001)], inbound: vec![at(15006)], admin: at(15000), metrics: at(15020) }
    }

    /// Where the rules lead: what the pod itself sends comes to loopback, what others send to the address of an interface.
    fn captured(ipv6: bool) -> Self {
        let (mut outbound, mut inbound): (Vec<SocketAddr>, Vec<SocketAddr>) =
            (vec![(Ipv4Addr::LOCALHOST, 15001).into()], vec![(Ipv4Addr::UNSPECIFIED, 15006).into()]);
        let mut all = IpAddr::from(Ipv4Addr::UNSPECIFIED);
        if ipv6 {
            outbound.push((Ipv6Addr::LOCALHOST, 15001).into());
            inbound.push((Ipv6Addr::UNSPECIFIED, 15006).into());
            // Of both families.
            all = Ipv6Addr::UNSPECIFIED.into();
        }
        Self { outbound, inbound, admin: (Ipv4Addr::LOCALHOST, 15000).into(), metrics: (all, 15020).into() }
    }
}

/// A loopback address that stands for one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAddress {
    pub listen: SocketAddr,
    pub service: DestinationName,
}

impl FromStr for ServiceAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (listen, service) = text.split_once('=').ok_or("not ADDR:PORT=HOST:PORT")?;
        Ok(Self {
            listen: listen.parse().map_err(|_| format!("{listen:?} is not ADDR:PORT"))?,
            service: service.parse().map_err(|error| format!("{error}"))?,
        })
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration in seconds, such as 5s");
    let number: u32 = text.strip_suffix('s').unwrap_or(text).parse().map_err(|_| wrong())?;
    if number > 86_400 {
        return Err(format!("{text} is more than a day"));
    }
    Ok(Duration::from_secs(number.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_addresses_and_durations_are_read_or_refused() {
        let parsed: ServiceAddress = "127.64.1.9:80=reviews.default.svc.cluster.local:9080".parse().unwrap();
        assert_eq!(parsed.listen, "127.64.1.9:80".parse().unwrap());
        assert_eq!(parsed.service.to_string(), "reviews.default.svc.cluster.local:9080");
        for wrong in ["127.64.1.9:80", "x=reviews:80", "127.64.1.9:80=reviews"] {
            assert!(wrong.parse::<ServiceAddress>().is_err(), "{wrong}");
        }
        assert_eq!(seconds("5s"), Ok(Duration::from_secs(5)));
        assert!(seconds("5m").is_err() && seconds("90000").is_err());
    }

    #[derive(Debug, clap::Parser)]
    struct Cli {
        #[command(flatten)]
        options: Options,
    }

    fn setup(flags: &str) -> anyhow::Result<Setup> {
        let line = format!("proxy --manifests dir {flags}");
        <Cli as clap::Parser>::try_parse_from(line.split(' '))?.options.setup()
    }

    #[test]
    fn a_captured_proxy_listens_where_the_rules_lead() {
        let setup = setup("--workload w --captured").unwrap();
        assert!(setup.outbound.iter().all(|at| at.ip().is_loopback() && at.port() == 15001));
        assert!(setup.inbound.iter().all(|at| at.ip().is_unspecified() && at.port() == 15006));
        let families = if has_ipv6() { 2 } else { 1 };
        assert_eq!((setup.outbound.len(), setup.inbound.len()), (families, families));
        assert_eq!(setup.admin, "127.0.0.1:15000".parse().unwrap());
        assert!(setup.metrics.ip().is_unspecified() && setup.metrics.port() == 15020);
        assert_eq!(setup.captured.unwrap().every, Duration::from_secs(30));
    }

    #[test]
    fn admin_is_for_the_pod_alone() {
        for (flags, want) in [
            ("--workload w", Ok("127.0.0.1:15000")),
            ("--workload w --pod-address 192.0.2.7", Ok("192.0.2.7:15000")),
            ("--workload w --pod-address 192.0.2.7 --admin [::1]:1", Ok("[::1]:1")),
            (
                "--workload w --pod-address 192.0.2.7 --admin 192.0.2.8:15000",
                Err("--admin 192.0.2.8:15000: "),
            ),
            ("--workload w --admin 0.0.0.0:15000", Err("--admin 0.0.0.0:15000: ")),
            ("--workload w --captured --admin [::]:15000", Err("--admin [::]:15000: ")),
            ("--gateway g --captured", Err("error: the argument")),
        ] {
            match (setup(flags), want) {
                (Ok(setup), Ok(at)) => assert_eq!(setup.admin.to_string(), at, "{flags}"),
                (Err(error), Err(why)) => assert!(error.to_string().starts_with(why), "{flags}: {error}"),
                (got, want) => panic!("{flags}: {want:?}, not {:?}", got.map(|setup| setup.admin)),
            }
        }
    }
}
