//! What the processes of a mesh are started with: every argument and variable of the control plane, sidecars, gateways and apps.
//!
//! Owns nothing that runs; `kept` starts what is described here.

use std::ffi::OsString;
use std::fs::DirBuilder;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::Context;
use outrigger_config::xds::Role;
use outrigger_control::ca::{Caller, Directory};

use super::control::{API_PORT, METRICS_PORT, SECURE_PORT};
use super::environment::{self, ServiceAddress};
use super::network::Network;
use super::plan::{GatewaySpec, InstanceSpec, ServiceSpec};
use super::process::Spec;
use super::tokens::Tokens;

/// A port below 1024 that an ordinary user cannot bind is offered this much higher.
const LOW_PORT_OFFSET: u16 = 10_000;

/// The variable that says how much our own processes log.
const LOG_LEVEL: &str = "OUTRIGGER_LOG";

/// What all of them have in common.
#[derive(Clone, Debug)]
pub struct Children {
    control: Ipv4Addr,
    /// What the control plane reads: the user's manifests, and the instances.
    sources: Vec<PathBuf>,
    /// One folder a proxy below it: its token, its certificate, the copy of its configuration.
    state: PathBuf,
    /// Of the control plane.
    ca: PathBuf,
    tokens: Rc<Tokens>,
    low_ports_bindable: bool,
    /// First on PATH of every app is our own folder, so that it finds `outrigger`.
    path: OsString,
}

/// The addresses of one instance.
#[derive(Clone, Debug)]
pub struct Addresses {
    pub pod: Ipv4Addr,
    pub app: Ipv4Addr,
    pub services: Vec<(ServiceSpec, Vec<ServiceAddress>)>,
}

impl Children {
    pub fn new(network: &Network, sources: Vec<PathBuf>, tokens: Rc<Tokens>) -> Self {
        Self {
            control: network.control(),
            sources,
            state: network.state_dir(),
            ca: network.ca_dir(),
            tokens,
            low_ports_bindable: low_ports_bindable(network.control()),
            path: path_with_ourselves(),
        }
    }

    pub fn control(&self) -> Spec {
        let mut arguments = vec![
            "control".into(),
            "--address".into(),
            self.control.to_string(),
            // A gateway's certificates with their keys are configuration, too: nobody else on this machine is told any.
            "--no-plaintext".into(),
            "--metrics-port".into(),
            METRICS_PORT.to_string(),
            "--api-port".into(),
            API_PORT.to_string(),
            "--ca-dir".into(),
            self.ca.display().to_string(),
            "--xds-tls".into(),
            SocketAddrV4::new(self.control, SECURE_PORT).to_string(),
            "--experiments".into(),
            self.state.join("experiments.json").display().to_string(),
        ];
        for source in &self.sources {
            arguments.extend(["--manifests".into(), source.display().to_string()]);
        }
        ourselves("control", arguments)
    }

    pub fn sidecar(&self, spec: &InstanceSpec, addresses: &Addresses) -> Spec {
        let mut arguments = vec!["proxy".into(), "--workload".into(), spec.name.clone()];
        arguments.extend(self.proxy(&spec.namespace, addresses.pod));
        arguments.push("--inbound-listen".into());
        // The callers have heard before the drain begins: `up` waited for their word.
        arguments.extend(["--drain-window".into(), "0s".into()]);
        for (_, sockets) in &addresses.services {
            for socket in sockets {
                arguments.extend(["--service-address".into(), socket.argument()]);
            }
        }
        ourselves(&format!("{}.proxy", spec.name), arguments)
    }

    pub fn gateway(&self, spec: &GatewaySpec, address: Ipv4Addr) -> Spec {
        let mut arguments = vec!["gateway".into(), "--gateway".into(), spec.name.clone()];
        arguments.extend(self.proxy(&spec.namespace, address));
        arguments.extend(["--drain-window".into(), "1s".into()]);
        if !self.low_ports_bindable {
            arguments.extend(["--low-port-offset".into(), LOW_PORT_OFFSET.to_string()]);
        }
        ourselves(&spec.name, arguments)
    }

    /// What a sidecar and a gateway are both told: who they are and how they prove it, whom they ask and by what they know it, and where they
    /// keep what they got.
    fn proxy(&self, namespace: &str, pod: Ipv4Addr) -> [String; 16] {
        let (state, roots) = (self.state_dir(pod), Directory::roots_in(&self.ca));
        [
            "--namespace".into(),
            namespace.into(),
            "--pod-address".into(),
            pod.to_string(),
            "--control".into(),
            SocketAddrV4::new(self.control, SECURE_PORT).to_string(),
            "--control-root".into(),
            roots.display().to_string(),
            "--token".into(),
            token_in(&state).display().to_string(),
            "--identity-dir".into(),
            state.display().to_string(),
            "--state-dir".into(),
            state.display().to_string(),
            "--workers".into(),
            "1".into(),
        ]
    }

    /// What the proxy of an instance needs to be there before it starts.
    pub fn admit_sidecar(&self, spec: &InstanceSpec, pod: Ipv4Addr) -> anyhow::Result<()> {
        let role =
            Role::Sidecar { namespace: spec.namespace.as_str().into(), workload: spec.name.as_str().into() };
        self.admit(role, &spec.service_account, pod)
    }

    /// The same for a gateway, whose service account has its name.
    pub fn admit_gateway(&self, spec: &GatewaySpec, address: Ipv4Addr) -> anyhow::Result<()> {
        let role =
            Role::Gateway { namespace: spec.namespace.as_str().into(), name: spec.name.as_str().into() };
        self.admit(role, &spec.name, address)
    }

    fn admit(&self, role: Role, service_account: &str, pod: Ipv4Addr) -> anyhow::Result<()> {
        let state = self.state_dir(pod);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&state)
            .with_context(|| format!("creating {}", state.display()))?;
        self.tokens.hand_out(token_in(&state), Caller { role, service_account: service_account.into() })
    }

    /// Once the proxy at this address has ended: what was its own is of no use to anybody else.
    pub fn dismiss(&self, pod: Ipv4Addr) {
        let state = self.state_dir(pod);
        self.tokens.withdraw(&token_in(&state));
        let _ = std::fs::remove_dir_all(state);
    }

    /// Where the proxy at this address keeps what is its own. Addresses are given out once, so nobody finds another's.
    fn state_dir(&self, pod: Ipv4Addr) -> PathBuf {
        self.state.join(pod.to_string())
    }

    /// `app_ports` in the order of the instance's ports.
    pub fn app(&self, spec: &InstanceSpec, addresses: &Addresses, app_ports: &[u16]) -> Spec {
        let listen = SocketAddrV4::new(addresses.app, app_ports.first().copied().unwrap_or(0));
        let proxy = SocketAddrV4::new(addresses.pod, 15001);
        let mut environment = environment::variables(listen, proxy, &addresses.services);
        environment.push(("PATH".into(), self.path.clone()));
        // As Kubernetes manifests usually hand them down.
        environment.push(("POD_NAME".into(), spec.name.clone().into()));
        environment.push(("POD_NAMESPACE".into(), spec.namespace.clone().into()));
        environment.push(("POD_IP".into(), addresses.pod.to_string().into()));
        for (name, value) in &spec.environment {
            let value = environment::expand(value, &environment);
            environment.push((name.clone(), value.into()));
        }
        let mut words = spec.command.iter().map(|word| environment::expand(word, &environment));
        let program = words.next().unwrap_or_default();
        Spec {
            name: spec.name.clone(),
            program: program.into(),
            arguments: words.collect(),
            environment,
            working_directory: spec.working_directory.clone(),
            advice_in_use: format!(
                "an app has to listen at $(HOST) and $(PORT) alone; one that listens on every address needs \
                 `appPort: auto` or another number in spec.ports of Workload {}/{}",
                spec.namespace, spec.template
            ),
        }
    }

    /// The port at which this machine's user can bind what a manifest calls `port`.
    pub fn offered_port(&self, port: u16) -> u16 {
        if port < 1024 && !self.low_ports_bindable { LOW_PORT_OFFSET + port } else { port }
    }
}

fn token_in(state: &Path) -> PathBuf {
    state.join("token")
}

/// This very program in another role.
fn ourselves(name: &str, arguments: Vec<String>) -> Spec {
    let program = std::env::current_exe().map_or_else(|_| "outrigger".into(), |path| path.into_os_string());
    let mut environment = Vec::new();
    if std::env::var_os(LOG_LEVEL).is_none() {
        // What they do when all is well, `up` and `outrigger status` tell more briefly; whom a sidecar refuses, and by which rule, only it can say.
        let level = "warn,outrigger_control::source=info,outrigger_proxy::policy::access=info";
        environment.push((LOG_LEVEL.into(), level.into()));
    }
    Spec {
        name: name.into(),
        program,
        arguments,
        environment,
        working_directory: None,
        advice_in_use: "another program on this machine has it".into(),
    }
}

/// Root may, and so may anyone where `net.ipv4.ip_unprivileged_port_start` is lowered: trying tells.
fn low_ports_bindable(address: Ipv4Addr) -> bool {
    std::net::TcpListener::bind((address, 80)).is_ok()
}

/// Our own folder first: `command: [outrigger, …]` finds this very program.
fn path_with_ourselves() -> OsString {
    let mut path = std::env::current_exe()
        .ok()
        .and_then(|program| program.parent().map(|folder: &Path| folder.as_os_str().to_owned()))
        .unwrap_or_default();
    if let Some(inherited) = std::env::var_os("PATH") {
        if !path.is_empty() {
            path.push(":");
        }
        path.push(inherited);
    }
    path
}
