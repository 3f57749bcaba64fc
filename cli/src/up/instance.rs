//! The life of one instance: its sidecar, its app, and what the mesh is told of them.
//!
//! Order up: address published as not ready → sidecar → app → ready. Order down: draining published and acknowledged by the callers'
//! proxies → sidecar drains → app ends → sidecar ends → address gone. So no caller is ever sent to an app that is not there.

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::children::{Addresses, Children};
use super::control::Ear;
use super::kept::Kept;
use super::output::Log;
use super::overlay::{Entry, Overlay, State};
use super::plan::{AppPort, InstanceSpec, Probe, ReadinessSpec};
use super::readiness::{Check, Standing};

/// Between the begin of the sidecar's drain and the app's SIGTERM, at most: what was on its way arrives and is answered. A stream
/// that goes on is the app's to end.
const ON_ITS_WAY: Duration = Duration::from_secs(1);
/// What a sidecar gets to end after its app: the last answers are on their way to slow readers.
const SIDECAR_GRACE: Duration = Duration::from_secs(5);

/// What `outrigger status` and the table show of an instance.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    pub namespace: String,
    pub workload: String,
    pub name: String,
    pub state: String,
    /// Why it is not ready.
    pub reason: Option<String>,
    pub address: String,
    pub ports: Vec<u16>,
    pub pid: Option<i32>,
    pub sidecar_pid: Option<i32>,
    /// Of the app.
    pub restarts: u32,
    pub sidecar_restarts: u32,
    /// Admin of its sidecar.
    pub admin: String,
    /// Metrics and health of its sidecar.
    pub metrics: String,
}

/// Everything an instance needs from the mesh around it.
#[derive(Clone, Debug)]
pub struct Surroundings {
    pub overlay: Overlay,
    pub children: Rc<Children>,
    pub ear: Ear,
    pub log: Log,
}

#[derive(Debug)]
pub struct Instance {
    pub spec: InstanceSpec,
    report: Rc<RefCell<Report>>,
    commands: mpsc::Sender<oneshot::Sender<()>>,
}

impl Instance {
    pub fn start(spec: InstanceSpec, addresses: Addresses, around: Surroundings) -> anyhow::Result<Self> {
        let app_ports = app_ports(&spec)?;
        around.children.admit_sidecar(&spec, addresses.pod)?;
        let entry = around.overlay.entry(&spec, addresses.pod, addresses.app);
        entry.write(State::NotReady, &app_ports)?;
        let report = Rc::new(RefCell::new(Report {
            namespace: spec.namespace.clone(),
            workload: spec.template.clone(),
            name: spec.name.clone(),
            state: "Starting".into(),
            reason: None,
            address: addresses.pod.to_string(),
            ports: spec.ports.iter().map(|port| port.port).collect(),
            pid: None,
            sidecar_pid: None,
            restarts: 0,
            sidecar_restarts: 0,
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
        tokio::task::spawn_local(life.run(stop));
        Ok(Self { spec, report, commands })
    }

    pub fn report(&self) -> Report {
        self.report.borrow().clone()
    }

    pub async fn ready(&self) {
        while self.report.borrow().state != "Ready" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Drains and ends it; afterwards its name is free.
    pub async fn stop(&self) {
        let (done, finished) = oneshot::channel();
        if self.commands.send(done).await.is_ok() {
            let _ = finished.await;
        }
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
        let mut sidecar = Kept::start(
            self.around.children.sidecar(&self.spec, &self.addresses),
            proxy_standing(self.addresses.pod),
            log.clone(),
        );
        let mut app: Option<Kept> = None;
        let done = loop {
            // The app's first call finds its sidecar.
            if app.is_none() && sidecar.condition().ready {
                let standing = Standing::new(Check::new(&self.spec, self.addresses.app, &self.app_ports));
                let spec = self.around.children.app(&self.spec, &self.addresses, &self.app_ports);
                app = Some(Kept::start(spec, standing, log.clone()));
            }
            self.publish(&sidecar, app.as_ref());
            tokio::select! {
                () = sidecar.changed() => {}
                () = changed(app.as_mut()) => {}
                done = stop.recv() => break done,
            }
        };
        self.drain(sidecar, app).await;
        // Takes its object away, before the next one of this name may be written.
        drop(self);
        if let Some(done) = done {
            let _ = done.send(());
        }
    }

    fn publish(&mut self, sidecar: &Kept, app: Option<&Kept>) {
        let (proxy, app) = (sidecar.condition(), app.map(Kept::condition).unwrap_or_default());
        let state = if proxy.ready && app.ready { State::Ready } else { State::NotReady };
        {
            let mut report = self.report.borrow_mut();
            (report.pid, report.restarts) = (app.pid, app.restarts);
            (report.sidecar_pid, report.sidecar_restarts) = (proxy.pid, proxy.restarts);
            (report.state, report.reason) = if proxy.ready {
                (app.word().into(), app.why.map(|why| why.to_string()))
            } else {
                (proxy.word().into(), proxy.why.map(|why| format!("its sidecar: {why}")))
            };
        }
        if state != self.published {
            match self.entry.write(state, &self.app_ports) {
                Ok(_) => self.published = state,
                Err(error) => self.around.log.say(&format!("{}: {error:#}", self.spec.name)),
            }
        }
    }

    async fn drain(&self, sidecar: Kept, app: Option<Kept>) {
        let (spec, log) = (&self.spec, &self.around.log);
        self.report.borrow_mut().state = "Draining".into();
        if self.published == State::Ready {
            if let Err(error) = self.be_heard_draining().await {
                // They learn it from a closed port.
                log.say(&format!("{}: not all callers know that it drains: {error:#}", spec.name));
            }
            if let Err(error) = drain_sidecar(SocketAddr::from((self.addresses.pod, 15000))).await {
                log.say(&format!("{}: draining its sidecar: {error:#}", spec.name));
            }
        }
        if let Some(app) = app {
            app.stop(spec.grace).await;
        }
        sidecar.stop(SIDECAR_GRACE).await;
        self.around.children.dismiss(self.addresses.pod);
        self.report.borrow_mut().state = "Stopped".into();
    }

    async fn be_heard_draining(&self) -> anyhow::Result<()> {
        let generation = self.entry.write(State::Draining, &self.app_ports)?;
        self.around.ear.heard("Workload", &self.spec.namespace, &self.spec.name, generation).await
    }
}

/// Begins the drain of a sidecar and waits, for a while, until it is quiet.
async fn drain_sidecar(admin: SocketAddr) -> anyhow::Result<()> {
    #[derive(Deserialize)]
    struct Info {
        phase: String,
    }
    let deadline = Instant::now() + ON_ITS_WAY;
    crate::http::post(admin, "/drain", ON_ITS_WAY).await?;
    while Instant::now() < deadline {
        let (_, body) = crate::http::get(admin, "/server_info", &[], ON_ITS_WAY).await?;
        if serde_json::from_slice::<Info>(&body)?.phase == "Ended" {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
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
