//! What has to run: the manifests of the directory as instances and gateways. Starts nothing.
//!
//! Follows the files like the control plane does: an object that broke keeps its last good version, so a typo ends no app.

use std::path::{Path, PathBuf};
use std::time::Duration;

use outrigger_config::manifest::gateway::ListenerProtocol;
use outrigger_config::manifest::workload::{self, ProbePort, ProbeScheme};
use outrigger_config::manifest::{Gateway, Manifest, Object, Service, Workload};
use outrigger_config::registry::{Registry, Store};
use outrigger_config::source::{Directory, Watch};
use tokio::sync::mpsc;

use super::output::OURSELVES;

/// Everything `up` runs, by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub instances: Vec<InstanceSpec>,
    pub gateways: Vec<GatewaySpec>,
    pub services: Vec<ServiceSpec>,
}

/// The plan as it is now, and where later ones arrive as long as the [`Watch`] lives.
pub fn watch(directories: &[PathBuf]) -> anyhow::Result<(Plan, mpsc::Receiver<Plan>, Watch)> {
    let mut source = Directory::new(directories);
    let files = source.read();
    let mut store = Store::new();
    let first = Plan::of(&store.update(&files));
    let (plans, receiver) = mpsc::channel(1);
    let mut last = first.clone();
    let watch = Watch::start(source, files, move |files| {
        let plan = Plan::of(&store.update(&files));
        if plan != last {
            last = plan.clone();
            // Waits while an earlier plan is being followed; the thread is the watch's own. Nobody listens: the mesh ends.
            let _ = plans.blocking_send(plan);
        }
    })?;
    Ok((first, receiver, watch))
}

impl Plan {
    pub fn of(registry: &Registry) -> Self {
        let mut plan = Self::default();
        for (key, object) in registry.objects() {
            match &object.manifest {
                Manifest::Workload(workload) => plan.instances.extend(instances(workload, object)),
                Manifest::Gateway(gateway) => plan.gateways.extend(gateway_spec(gateway, &key.namespace)),
                Manifest::Service(service) => {
                    plan.services.push(service_spec(service, &key.namespace, registry.cluster_domain()));
                }
                _ => {}
            }
        }
        plan
    }

    /// Length of the longest name that will stand before a line of the log.
    pub fn longest_name(&self) -> usize {
        let sidecars = self.instances.iter().map(|instance| instance.name.len() + ".proxy".len());
        sidecars
            .chain(self.gateways.iter().map(|gateway| gateway.name.len()))
            .chain([OURSELVES.len()])
            .max()
            .unwrap_or(0)
    }
}

/// One instance of a Workload that has a command.
#[derive(Clone, Debug, PartialEq)]
pub struct InstanceSpec {
    /// `TEMPLATE-N`
    pub name: String,
    pub namespace: String,
    /// Name of the Workload it was made from.
    pub template: String,
    pub labels: Vec<(String, String)>,
    pub service_account: String,
    pub zone: Option<String>,
    pub weight: u32,
    pub ports: Vec<PortSpec>,
    pub command: Vec<String>,
    pub environment: Vec<(String, String)>,
    pub working_directory: Option<PathBuf>,
    pub readiness: Option<ReadinessSpec>,
    pub grace: Duration,
}

#[derive(Clone, Debug, PartialEq)]
pub struct PortSpec {
    pub name: Option<String>,
    pub port: u16,
    pub app_port: AppPort,
    pub app_protocol: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum AppPort {
    Fixed(u16),
    /// A free one is chosen at each start.
    Auto,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ReadinessSpec {
    pub probe: Probe,
    pub period: Duration,
    pub initial_delay: Duration,
    pub timeout: Duration,
    pub failure_threshold: u32,
    pub success_threshold: u32,
}

/// Ports are the workload's own, as its Service sees them.
#[derive(Clone, Debug, PartialEq)]
pub enum Probe {
    Http { path: String, headers: Vec<(String, String)>, port: u16 },
    Tcp { port: u16 },
}

#[derive(Clone, Debug, PartialEq)]
pub struct GatewaySpec {
    pub name: String,
    pub namespace: String,
    /// `(port, protocol)` of its listeners, each port once.
    pub ports: Vec<(u16, String)>,
}

/// A Service as the apps of its namespace are told of it.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceSpec {
    pub name: String,
    pub namespace: String,
    pub host: String,
    /// `(port name, port)`, in the order of the manifest.
    pub ports: Vec<(Option<String>, u16)>,
}

fn instances(workload: &Workload, object: &Object) -> Vec<InstanceSpec> {
    let spec = &workload.spec;
    if workload.is_instance() || spec.command.is_empty() {
        return Vec::new();
    }
    let template = object.key.name.to_string();
    let ports: Vec<PortSpec> = spec
        .ports
        .iter()
        .map(|port| PortSpec {
            name: port.name.as_ref().map(|name| name.to_string()),
            port: port.port.get(),
            app_port: port.app_port().map_or(AppPort::Auto, |port| AppPort::Fixed(port.get())),
            app_protocol: port.app_protocol.as_ref().map(|protocol| protocol.to_string()),
        })
        .collect();
    let folder = Path::new(&*object.source.file).parent().map(Path::to_path_buf);
    let working_directory = match &spec.working_directory {
        Some(directory) => Some(folder.unwrap_or_default().join(directory)),
        None => folder,
    };
    let one = |n: u8| InstanceSpec {
        name: format!("{template}-{n}"),
        namespace: object.key.namespace.to_string(),
        template: template.clone(),
        labels: workload
            .metadata
            .labels
            .iter()
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .collect(),
        service_account: spec.service_account.to_string(),
        zone: spec.zone.as_ref().map(|zone| zone.to_string()),
        weight: spec.weight.get(),
        ports: ports.clone(),
        command: spec.command.clone(),
        environment: spec
            .env
            .iter()
            .map(|variable| (variable.name.to_string(), variable.value.clone()))
            .collect(),
        working_directory: working_directory.clone(),
        readiness: spec.readiness.as_ref().map(|readiness| readiness_spec(readiness, &ports)),
        grace: Duration::from_secs(spec.termination_grace_period_seconds.get().into()),
    };
    (0..spec.replicas.get()).map(one).collect()
}

fn readiness_spec(readiness: &workload::Readiness, ports: &[PortSpec]) -> ReadinessSpec {
    // A named port is one of the workload's: the manifest was refused otherwise.
    let number = |port: &ProbePort| match port {
        ProbePort::Number(port) => port.get(),
        ProbePort::Name(name) => {
            ports.iter().find(|port| port.name.as_deref() == Some(name.as_str())).map_or(0, |port| port.port)
        }
    };
    let seconds = |value: u32| Duration::from_secs(value.into());
    ReadinessSpec {
        probe: match &readiness.probe {
            workload::Probe::HttpGet(get) => match get.scheme {
                ProbeScheme::Http => Probe::Http {
                    path: get.path.clone(),
                    headers: get
                        .http_headers
                        .iter()
                        .map(|header| (header.name.to_string(), header.value.to_string()))
                        .collect(),
                    port: number(&get.port),
                },
                // Kubernetes does not verify the certificate either: that the app accepts is what such a probe says.
                ProbeScheme::Https => Probe::Tcp { port: number(&get.port) },
            },
            workload::Probe::TcpSocket(socket) => Probe::Tcp { port: number(&socket.port) },
        },
        period: seconds(readiness.period_seconds.get()),
        initial_delay: seconds(readiness.initial_delay_seconds),
        timeout: seconds(readiness.timeout_seconds.get()),
        failure_threshold: readiness.failure_threshold.get().into(),
        success_threshold: readiness.success_threshold.get().into(),
    }
}

fn gateway_spec(gateway: &Gateway, namespace: &str) -> Option<GatewaySpec> {
    if gateway.spec.gateway_class_name.as_str() != "outrigger" {
        return None;
    }
    let mut ports: Vec<(u16, String)> = Vec::new();
    for listener in &gateway.spec.listeners {
        if !ports.iter().any(|(port, _)| *port == listener.port.get()) {
            let protocol = match listener.protocol {
                ListenerProtocol::Http => "HTTP",
                ListenerProtocol::Https => "HTTPS",
                ListenerProtocol::Tls => "TLS",
                ListenerProtocol::Tcp | ListenerProtocol::Udp => "TCP",
            };
            ports.push((listener.port.get(), protocol.to_owned()));
        }
    }
    Some(GatewaySpec { name: gateway.metadata.name.to_string(), namespace: namespace.to_owned(), ports })
}

fn service_spec(service: &Service, namespace: &str, domain: &str) -> ServiceSpec {
    let name = service.metadata.name.to_string();
    ServiceSpec {
        host: format!("{name}.{namespace}.svc.{domain}"),
        name,
        namespace: namespace.to_owned(),
        ports: service
            .spec
            .ports
            .iter()
            .map(|port| (port.name.as_ref().map(|name| name.to_string()), port.port.get()))
            .collect(),
    }
}
