//! The life of one instance: its sidecar, its app, and what the mesh is told of them.
//!
//! Order up: address published as not ready → sidecar → app → ready. Order down: draining published and heard by the callers →
//! sidecar drains → app ends → sidecar ends → address gone. So no caller is ever sent to an app that is not there.

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::environment::{self, ServiceAddress};
use super::kept::Kept;
use super::output::Log;
use super::overlay::{Entry, Overlay, State};
use super::plan::{AppPort, InstanceSpec, Probe, ReadinessSpec, ServiceSpec};
use super::process::Spec;
use super::readiness::{Check, Standing};

/// How long the callers get to hear that an instance drains: they read it within 200 ms of its being written.
const HEARD: Duration = Duration::from_secs(1);
/// Between that and the app's SIGTERM: what was on its way arrives, and is answered with `Connection: close` or GOAWAY.
const ON_ITS_WAY: Duration = Duration::from_millis(300);
/// What a sidecar gets to end after its app.
const SIDECAR_GRACE: Duration = Duration::from_secs(5);

/// What `outrigger status` and the table show of an instance.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    pub namespace: String,
    pub workload: String,
    pub name: String,
    pub state: String,
    pub address: String,
    pub ports: Vec<u16>,
    pub pid: Option<i32>,
    pub sidecar_pid: Option<i32>,
    pub restarts: u32,
    /// Admin of its sidecar.
    pub admin: String,
    /// Metrics and health of its sidecar.
    pub metrics: String,
}

/// Everything an instance needs from the mesh around it.
#[derive(Clone, Debug)]
pub struct Surroundings {
    pub overlay: Overlay,
    /// What every proxy of the mesh reads: the user's manifests, and the instances.
    pub sources: Vec<PathBuf>,
    pub log: Log,
    /// First on PATH of every app, so that it finds `outrigger`.
    pub path: std::ffi::OsString,
    pub low_ports_bindable: bool,
}

impl Surroundings {
    /// As a proxy takes them.
    pub fn source_arguments(&self) -> impl Iterator<Item = String> {
        self.sources.iter().flat_map(|source| ["--manifests".into(), source.display().to_string()])
    }
}

/// The addresses of one instance.
#[derive(Clone, Debug)]
pub struct Addresses {
    pub pod: Ipv4Addr,
    pub app: Ipv4Addr,
    pub services: Vec<(ServiceSpec, Vec<ServiceAddress>)>,
}

#[derive(Debug)]
pub struct Instance {
    pub spec: InstanceSpec,
    report: Rc<RefCell<Report>>,
    commands: mpsc::Sender<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Instance {
    pub fn start(spec: InstanceSpec, addresses: Addresses, around: Surroundings) -> anyhow::Result<Self> {
        let app_ports = app_ports(&spec)?;
        let entry = around.overlay.entry(&spec, addresses.pod, addresses.app);
        entry.write(State::NotReady, &app_ports)?;
        let report = Rc::new(RefCell::new(Report {
            namespace: spec.namespace.clone(),
            workload: spec.template.clone(),
            name: spec.name.clone(),
            state: "Starting".into(),
            address: addresses.pod.to_string(),
            ports: spec.ports.iter().map(|port| port.port).collect(),
            pid: None,
            sidecar_pid: None,
            restarts: 0,
            admin: format!("http://{}:15000", addresses.pod),
            metrics: format!("http://{}:15020/metrics", addresses.pod),
        }));
        let (commands, stop) = mpsc::channel(1);
        let life = Life {
            spec: spec.clone(),
            addresses,
            around,
            app_ports,
            entry,
            report: report.clone(),
            published: State::NotReady,
        };
        let task = tokio::task::spawn_local(life.run(stop));
        Ok(Self { spec, report, commands, task })
    }

    pub fn report(&self) -> Report {
        self.report.borrow().clone()
    }

    /// Drains and ends it.
    pub async fn stop(self) {
        let (done, finished) = oneshot::channel();
        if self.commands.send(done).await.is_ok() {
            let _ = finished.await;
        }
        let _ = self.task.await;
    }
}

struct Life {
    spec: InstanceSpec,
    addresses: Addresses,
    around: Surroundings,
    app_ports: Vec<u16>,
    entry: Entry,
    report: Rc<RefCell<Report>>,
    published: State,
}

impl Life {
    async fn run(mut self, mut stop: mpsc::Receiver<oneshot::Sender<()>>) {
        let log = self.around.log.clone();
        let mut sidecar = Kept::start(self.sidecar(), self.sidecar_standing(), log.clone());
        let mut app: Option<Kept> = None;
        let done = loop {
            // The app's first call finds its sidecar.
            if app.is_none() && sidecar.condition().ready {
                let standing = Standing::new(Check::new(&self.spec, self.addresses.app, &self.app_ports));
                app = Some(Kept::start(self.app(), standing, log.clone()));
            }
            self.publish(&sidecar, app.as_ref());
            tokio::select! {
                () = sidecar.changed() => {}
                () = changed(app.as_mut()) => {}
                done = stop.recv() => break done,
            }
        };
        self.drain(sidecar, app).await;
        if let Some(done) = done {
            let _ = done.send(());
        }
    }

    fn publish(&mut self, sidecar: &Kept, app: Option<&Kept>) {
        let (proxy, app) = (sidecar.condition(), app.map(Kept::condition));
        let ready = proxy.ready && app.is_some_and(|app| app.ready);
        let state = if ready { State::Ready } else { State::NotReady };
        {
            let mut report = self.report.borrow_mut();
            report.sidecar_pid = proxy.pid;
            report.pid = app.and_then(|app| app.pid);
            report.restarts = app.map_or(0, |app| app.restarts);
            report.state = match (ready, app) {
                (true, _) => "Ready",
                (false, Some(app)) if app.pid.is_none() => "Restarting",
                (false, _) if report.restarts == 0 => "Starting",
                (false, _) => "NotReady",
            }
            .into();
        }
        if state != self.published {
            match self.entry.write(state, &self.app_ports) {
                Ok(()) => self.published = state,
                Err(error) => self.around.log.say(&format!("{}: {error:#}", self.spec.name)),
            }
        }
    }

    async fn drain(self, sidecar: Kept, app: Option<Kept>) {
        self.report.borrow_mut().state = "Draining".into();
        if self.published == State::Ready {
            match self.entry.write(State::Draining, &self.app_ports) {
                Ok(()) => tokio::time::sleep(HEARD).await,
                Err(error) => self.around.log.say(&format!("{}: {error:#}", self.spec.name)),
            }
            let admin = SocketAddr::from((self.addresses.pod, 15000));
            if let Err(error) = crate::http::post(admin, "/drain", Duration::from_secs(1)).await {
                self.around.log.say(&format!("{}: draining its sidecar: {error:#}", self.spec.name));
            }
            tokio::time::sleep(ON_ITS_WAY).await;
        }
        if let Some(app) = app {
            app.stop(self.spec.grace).await;
        }
        sidecar.stop(SIDECAR_GRACE).await;
        self.report.borrow_mut().state = "Stopped".into();
    }

    fn sidecar(&self) -> Spec {
        let (pod, spec) = (self.addresses.pod, &self.spec);
        let mut arguments: Vec<String> = vec![
            "proxy".into(),
            "--namespace".into(),
            spec.namespace.clone(),
            "--workload".into(),
            spec.name.clone(),
            "--pod-address".into(),
            pod.to_string(),
            "--inbound-listen".into(),
            "--workers".into(),
            "1".into(),
            "--drain-window".into(),
            "1s".into(),
        ];
        arguments.extend(self.around.source_arguments());
        for (_, sockets) in &self.addresses.services {
            for socket in sockets {
                arguments.extend(["--service-address".into(), socket.argument()]);
            }
        }
        Spec {
            name: format!("{}.proxy", spec.name),
            program: own_program(),
            arguments,
            environment: Vec::new(),
            working_directory: None,
        }
    }

    fn sidecar_standing(&self) -> Standing {
        proxy_standing(self.addresses.pod)
    }

    fn app(&self) -> Spec {
        let listen = SocketAddrV4::new(self.addresses.app, self.app_ports.first().copied().unwrap_or(0));
        let proxy = SocketAddrV4::new(self.addresses.pod, 15001);
        let mut environment = environment::variables(listen, proxy, &self.addresses.services);
        environment.push(("PATH".into(), self.around.path.clone()));
        // As Kubernetes manifests usually hand them down.
        environment.push(("POD_NAME".into(), self.spec.name.clone().into()));
        environment.push(("POD_NAMESPACE".into(), self.spec.namespace.clone().into()));
        environment.push(("POD_IP".into(), self.addresses.pod.to_string().into()));
        for (name, value) in &self.spec.environment {
            let value = environment::expand(value, &environment);
            environment.push((name.clone(), value.into()));
        }
        let mut words = self.spec.command.iter().map(|word| environment::expand(word, &environment));
        let program = words.next().unwrap_or_default();
        Spec {
            name: self.spec.name.clone(),
            program: program.into(),
            arguments: words.collect(),
            environment,
            working_directory: self.spec.working_directory.clone(),
        }
    }
}

async fn changed(app: Option<&mut Kept>) {
    match app {
        Some(app) => app.changed().await,
        None => std::future::pending().await,
    }
}

/// Ready as the proxy itself says.
pub fn proxy_standing(pod: Ipv4Addr) -> Standing {
    let settings = ReadinessSpec {
        probe: Probe::Http { path: "/healthz/ready".into(), headers: Vec::new(), port: 15020 },
        period: Duration::from_secs(1),
        initial_delay: Duration::ZERO,
        timeout: Duration::from_secs(1),
        failure_threshold: 3,
        success_threshold: 1,
    };
    Standing::new(Check::of(pod, settings))
}

/// This very program, whatever became of its file since.
pub fn own_program() -> std::ffi::OsString {
    std::env::current_exe().map_or_else(|_| "outrigger".into(), |path| path.into_os_string())
}

/// Where the app is to listen, in the order of its ports.
fn app_ports(spec: &InstanceSpec) -> anyhow::Result<Vec<u16>> {
    spec.ports
        .iter()
        .map(|port| match port.app_port {
            AppPort::Fixed(number) => Ok(number),
            // Free on every address: apps that cannot be told an address bind the wildcard.
            AppPort::Auto => TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))
                .and_then(|listener| listener.local_addr())
                .map(|address| address.port())
                .context("looking for a free port"),
        })
        .collect()
}
