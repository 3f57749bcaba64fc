//! The running mesh: the control plane, and instances and gateways brought in line with the plan.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, bail};

use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::children::{Addresses, Children};
use super::control::{Control, ControlReport, Ear};
use super::environment;
use super::instance::{Instance, Report, Surroundings, proxy_standing};
use super::kept::Kept;
use super::network::Network;
use super::output::Log;
use super::overlay::Overlay;
use super::plan::{GatewaySpec, InstanceSpec, Plan};
use super::tokens::Tokens;

/// What a restarted instance gets to become ready before the next one goes.
const RESTART: Duration = Duration::from_secs(60);

/// What a gateway gets to end after SIGTERM.
const GATEWAY_GRACE: Duration = Duration::from_secs(30);

/// Shared by the tasks of the main thread; no borrow of a cell is held over an await.
#[derive(Debug)]
pub struct Mesh {
    network: RefCell<Network>,
    directories: Vec<PathBuf>,
    plan: RefCell<Plan>,
    around: Surroundings,
    /// `None` once it was ended.
    control: RefCell<Option<Control>>,
    instances: RefCell<BTreeMap<String, Rc<Instance>>>,
    gateways: RefCell<BTreeMap<String, Gateway>>,
    /// Held by whoever starts and ends things; reports need not wait for it.
    changing: tokio::sync::Mutex<()>,
    /// Whether it is to end: nobody waits for anything to become ready then.
    ending: watch::Sender<bool>,
}

#[derive(Debug)]
struct Gateway {
    spec: GatewaySpec,
    address: Ipv4Addr,
    kept: Kept,
}

/// What `outrigger status` shows of a gateway.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GatewayReport {
    pub namespace: String,
    pub name: String,
    pub state: String,
    /// Why it is not ready.
    pub reason: Option<String>,
    pub restarts: u32,
    pub urls: Vec<String>,
    pub pid: Option<i32>,
    pub admin: String,
    pub metrics: String,
}

/// All of it, as the command socket answers it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MeshReport {
    pub network: String,
    /// Where sockets, instances and what proxies keep are.
    pub run_dir: PathBuf,
    /// Whether that is on a memory-backed file system; only there proxies keep their keys.
    pub in_memory: bool,
    pub directories: Vec<PathBuf>,
    pub pid: u32,
    pub control: Option<ControlReport>,
    pub workloads: Vec<Report>,
    pub gateways: Vec<GatewayReport>,
}

impl MeshReport {
    pub fn settled(&self) -> bool {
        self.control.as_ref().is_some_and(|control| control.state == "Ready")
            && self.workloads.iter().all(|workload| workload.state == "Ready")
            && self.gateways.iter().all(|gateway| gateway.state == "Ready")
    }

    /// `NAMESPACE/NAME` and admin URL of each sidecar and gateway.
    pub fn proxies(&self) -> impl Iterator<Item = (String, &str)> {
        let workloads = self.workloads.iter().map(|one| (&one.namespace, &one.name, &one.admin));
        let gateways = self.gateways.iter().map(|one| (&one.namespace, &one.name, &one.admin));
        workloads
            .chain(gateways)
            .map(|(namespace, name, admin)| (format!("{namespace}/{name}"), admin.as_str()))
    }
}

impl Mesh {
    pub fn start(network: Network, directories: Vec<PathBuf>, log: Log) -> anyhow::Result<Self> {
        let instances_dir = network.run_dir().join("instances");
        let overlay = Overlay::create(&instances_dir)?;
        // Copies of an earlier run of this network are of no use: addresses are others.
        match std::fs::remove_dir_all(network.state_dir()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("clearing {}", network.state_dir().display()));
            }
            _ => {}
        }
        let sources = directories.iter().chain([&instances_dir]).cloned().collect();
        let tokens = Rc::new(Tokens::open(&network.ca_dir())?);
        tokio::task::spawn_local({
            let (tokens, log) = (tokens.clone(), log.clone());
            async move { tokens.keep_fresh(log).await }
        });
        let children = Rc::new(Children::new(&network, sources, tokens));
        let control = Control::start(&network, &children, log.clone());
        let around = Surroundings { overlay, children, ear: Ear::of(network.control()), log };
        Ok(Self {
            network: RefCell::new(network),
            directories,
            plan: RefCell::default(),
            around,
            control: RefCell::new(Some(control)),
            instances: RefCell::default(),
            gateways: RefCell::default(),
            changing: tokio::sync::Mutex::new(()),
            ending: watch::Sender::new(false),
        })
    }

    /// Until the control plane answers for the first time: before that no proxy could know anything.
    pub async fn control_ready(&self) {
        while !self.control.borrow().as_ref().is_some_and(Control::is_ready) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Starts what is new, ends what is gone, restarts what changed. One thing that cannot be started stops nothing else.
    pub async fn follow(&self, plan: Plan) {
        let _changing = self.changing.lock().await;
        let gone: Vec<Rc<Instance>> = self
            .instances
            .borrow()
            .values()
            .filter(|running| !plan.instances.contains(&running.spec))
            .cloned()
            .collect();
        for instance in &gone {
            self.around.log.say(&format!("{} ends: its manifest is gone or changed", instance.spec.name));
        }
        let gateways_gone: Vec<Gateway> = self
            .gateways
            .borrow_mut()
            .extract_if(.., |_, running| !plan.gateways.contains(&running.spec))
            .map(|(_, gateway)| gateway)
            .collect();
        join_all(gateways_gone.into_iter().map(|gateway| gateway.stop(&self.around.children))).await;
        join_all(gone.iter().map(|instance| instance.stop())).await;
        // They are listed until they have ended.
        self.instances.borrow_mut().retain(|_, running| !gone.iter().any(|gone| Rc::ptr_eq(gone, running)));
        self.plan.replace(plan.clone());
        if plan.instances.is_empty() && plan.gateways.is_empty() {
            self.around.log.say(
                "nothing to run yet: no Workload with a command and no Gateway of class outrigger that can be used; waiting for changes",
            );
        }
        for spec in plan.instances {
            if !self.instances.borrow().contains_key(&key(&spec)) {
                let name = spec.name.clone();
                if let Err(error) = self.start_instance(spec) {
                    self.around.log.say(&format!("{name} cannot be started: {error:#}"));
                }
            }
        }
        for spec in plan.gateways {
            if !self.gateways.borrow().contains_key(&gateway_key(&spec)) {
                self.start_gateway(spec);
            }
        }
    }

    /// Every instance of a workload (or one, by its own name), one at a time, each ready before the next one goes. Names the restarted ones.
    pub async fn restart(
        &self,
        workload: &str,
        mut progress: impl FnMut(&str),
    ) -> anyhow::Result<Vec<String>> {
        let _changing = self.changing.lock().await;
        let chosen: Vec<Rc<Instance>> = self
            .instances
            .borrow()
            .values()
            .filter(|running| running.spec.template == workload || running.spec.name == workload)
            .cloned()
            .collect();
        if chosen.is_empty() {
            let known: BTreeSet<String> =
                self.instances.borrow().values().map(|running| running.spec.template.clone()).collect();
            bail!(
                "no workload or instance is called {workload:?}; there are {}",
                known.into_iter().collect::<Vec<_>>().join(", ")
            );
        }
        let mut restarted = Vec::new();
        for running in chosen {
            let spec = &running.spec;
            if !self.around.ear.is_there().await {
                bail!(
                    "the control plane is away, without which nothing could take the place of {}; it was left alone",
                    spec.name
                );
            }
            progress(&format!("{}: draining", spec.name));
            running.stop().await;
            let started = self.start_instance(spec.clone()).with_context(|| spec.name.clone())?;
            let mut ending = self.ending.subscribe();
            let in_time = tokio::select! {
                ready = tokio::time::timeout(RESTART, started.ready()) => ready.is_ok(),
                _ = ending.wait_for(|ending| *ending) => bail!("the mesh ends"),
            };
            if !in_time {
                let Report { state, reason, .. } = started.report();
                bail!(
                    "{} did not become ready within {RESTART:?} ({state}{}); the remaining instances were left alone",
                    spec.name,
                    reason.map(|reason| format!(": {reason}")).unwrap_or_default(),
                );
            }
            progress(&format!("{}: ready", spec.name));
            restarted.push(spec.name.clone());
        }
        Ok(restarted)
    }

    pub fn report(&self) -> MeshReport {
        let network = self.network.borrow();
        MeshReport {
            network: format!("127.{}.0.0/16", network.control().octets()[1]),
            run_dir: network.run_dir().to_owned(),
            in_memory: network.is_in_memory(),
            directories: self.directories.clone(),
            pid: std::process::id(),
            control: self.control.borrow().as_ref().map(Control::report),
            workloads: self.instances.borrow().values().map(|instance| instance.report()).collect(),
            gateways: self
                .gateways
                .borrow()
                .values()
                .map(|gateway| gateway.report(&self.around.children))
                .collect(),
        }
    }

    /// Gateways first, so that nothing new comes in; then all instances at once; the control plane, which tells callers of it, last.
    pub async fn stop(&self) {
        self.ending.send_replace(true);
        let _changing = self.changing.lock().await;
        let gateways = self.gateways.take();
        join_all(gateways.into_values().map(|gateway| gateway.stop(&self.around.children))).await;
        let instances: Vec<_> = self.instances.borrow().values().cloned().collect();
        join_all(instances.iter().map(|instance| instance.stop())).await;
        let control = self.control.take();
        if let Some(control) = control {
            control.stop().await;
        }
    }

    fn start_instance(&self, spec: InstanceSpec) -> anyhow::Result<Rc<Instance>> {
        let addresses = self.addresses(&spec)?;
        let instance = Rc::new(Instance::start(spec, addresses, self.around.clone())?);
        self.instances.borrow_mut().insert(key(&instance.spec), instance.clone());
        Ok(instance)
    }

    fn addresses(&self, spec: &InstanceSpec) -> anyhow::Result<Addresses> {
        let mut network = self.network.borrow_mut();
        let (pod, app) = (network.next()?, network.next()?);
        let services = environment::service_addresses(
            &self.plan.borrow().services,
            &spec.namespace,
            || network.next(),
            |port| self.around.children.offered_port(port),
        )?;
        Ok(Addresses { pod, app, services })
    }

    fn start_gateway(&self, spec: GatewaySpec) {
        let address = match self.network.borrow_mut().next() {
            Ok(address) => address,
            Err(error) => return self.around.log.say(&format!("{} cannot be started: {error:#}", spec.name)),
        };
        if let Err(error) = self.around.children.admit_gateway(&spec, address) {
            return self.around.log.say(&format!("{} cannot be started: {error:#}", spec.name));
        }
        let process = self.around.children.gateway(&spec, address);
        let kept = Kept::start(process, proxy_standing(address), self.around.log.clone());
        self.gateways.borrow_mut().insert(gateway_key(&spec), Gateway { spec, address, kept });
    }
}

impl Gateway {
    async fn stop(self, children: &Children) {
        self.kept.stop(GATEWAY_GRACE).await;
        children.dismiss(self.address);
    }

    fn report(&self, children: &Children) -> GatewayReport {
        let condition = self.kept.condition();
        let urls = self.spec.ports.iter().map(|(port, protocol)| {
            let scheme = match protocol.as_str() {
                "HTTP" => "http",
                "HTTPS" => "https",
                "TLS" => "tls",
                _ => "tcp",
            };
            format!("{scheme}://{}:{}", self.address, children.offered_port(*port))
        });
        GatewayReport {
            namespace: self.spec.namespace.clone(),
            name: self.spec.name.clone(),
            state: condition.word().into(),
            reason: condition.why.map(|why| why.to_string()),
            restarts: condition.restarts,
            urls: urls.collect(),
            pid: condition.pid,
            admin: format!("http://{}:15000", self.address),
            metrics: format!("http://{}:15020/metrics", self.address),
        }
    }
}

fn key(spec: &InstanceSpec) -> String {
    format!("{}/{}", spec.namespace, spec.name)
}

fn gateway_key(spec: &GatewaySpec) -> String {
    format!("{}/{}", spec.namespace, spec.name)
}
