//! Experiments (`fault` of TrafficPolicies) as the control plane knows them: since when each is in force, and which somebody stopped.
//!
//! Owns what no manifest says and late joiners have to be told: a proxy that starts in the middle of an experiment ends it with the others, and does not begin one again that was
//! stopped. What is remembered is of a policy and what its `fault` says: changed, or gone and back, it begins anew. In a file it survives a restart of the
//! control plane, else it does not. Never decides what a proxy does with a call.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use outrigger_config::model::{Faults, GatewayProtocol, Listener, Resource};
use outrigger_config::registry::Registry;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::file;

/// What proxies are told beyond the manifests.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Standing(BTreeMap<String, Known>);

/// One policy's experiment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Known {
    /// Hash of what it says.
    content: String,
    /// Milliseconds since 1970.
    pub since: u64,
    /// When it was stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<u64>,
}

#[derive(Debug)]
pub struct Experiments {
    file: Option<PathBuf>,
    standing: Mutex<Arc<Standing>>,
}

impl Experiments {
    /// Takes up what was remembered. A file that cannot be read is an error: an experiment that was stopped must not begin again unseen.
    pub fn open(file: Option<&Path>) -> io::Result<Self> {
        let standing = match file.map(std::fs::read) {
            Some(Ok(bytes)) => {
                let known = serde_json::from_slice(&bytes).map_err(|error| {
                    let path = file.unwrap_or(Path::new("")).display();
                    io::Error::new(io::ErrorKind::InvalidData, format!("{path}: {error}"))
                })?;
                Standing(known)
            }
            Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => Standing::default(),
        };
        Ok(Self { file: file.map(Path::to_owned), standing: Mutex::new(Arc::new(standing)) })
    }

    pub fn standing(&self) -> Arc<Standing> {
        self.standing.lock().clone()
    }

    /// Whether what is stopped stays so across a restart.
    pub fn is_kept(&self) -> bool {
        self.file.is_some()
    }

    /// Brings it in step with the manifests.
    pub fn follow(&self, registry: &Registry) -> Arc<Standing> {
        let now = now();
        self.change(|standing| {
            let before = std::mem::take(&mut standing.0);
            for faults in registry.experiments() {
                let (policy, content) = (faults.policy(), content(faults));
                let known = before.get(&policy).filter(|known| known.content == content).cloned();
                standing.0.insert(policy, known.unwrap_or(Known { content, since: now, stopped: None }));
            }
        })
    }

    /// Stops one policy's experiment, or all there are. Returns those that were not stopped before; an error where it could not be written down, in which case they
    /// are stopped all the same.
    pub fn stop(&self, policy: Option<&str>) -> (Vec<String>, io::Result<()>) {
        let (now, mut stopped) = (now(), Vec::new());
        let mut written = Ok(());
        let mut standing = self.standing.lock();
        let mut changed = Standing::clone(&standing);
        for (name, known) in &mut changed.0 {
            if policy.is_none_or(|policy| policy == name) && known.stopped.is_none() {
                known.stopped = Some(now);
                stopped.push(name.clone());
            }
        }
        if !stopped.is_empty() {
            written = self.write(&changed);
            *standing = Arc::new(changed);
        }
        (stopped, written)
    }

    fn change(&self, change: impl FnOnce(&mut Standing)) -> Arc<Standing> {
        let mut standing = self.standing.lock();
        let mut changed = Standing::clone(&standing);
        change(&mut changed);
        if changed != **standing {
            if let Err(error) = self.write(&changed) {
                tracing::error!(%error, "which experiments run cannot be written down");
            }
            *standing = Arc::new(changed);
        }
        standing.clone()
    }

    fn write(&self, standing: &Standing) -> io::Result<()> {
        let Some(path) = &self.file else { return Ok(()) };
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        file::replace(path, 0o644, &serde_json::to_vec_pretty(&standing.0).map_err(io::Error::other)?)
    }
}

impl Standing {
    pub fn of(&self, policy: &str) -> Option<&Known> {
        self.0.get(policy)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&String, &Known)> {
        self.0.iter()
    }

    /// Says in a resource what the manifests it was made of do not: when its experiments began; and takes out those that were stopped.
    pub fn tell(&self, resource: &mut Resource) {
        if self.0.is_empty() {
            return;
        }
        match resource {
            Resource::RouteTable(table) => {
                for route in table.hosts.iter_mut().flat_map(|host| &mut host.routes) {
                    self.tell_one(&mut route.faults);
                }
            }
            Resource::Listener(Listener::Destination(destination)) => {
                self.tell_one(&mut destination.tcp.faults);
                for route in &mut destination.tls {
                    self.tell_one(&mut route.forward.faults);
                }
            }
            Resource::Listener(Listener::Inbound(inbound)) => {
                for port in &mut inbound.ports {
                    let told =
                        std::mem::take(&mut port.faults).into_iter().filter_map(|faults| self.told(faults));
                    port.faults = told.collect();
                }
            }
            Resource::Listener(Listener::Gateway(gateway)) => {
                for listener in gateway.ports.iter_mut().flat_map(|port| &mut port.listeners) {
                    match &mut listener.protocol {
                        GatewayProtocol::Tcp { forward } | GatewayProtocol::TlsTerminate { forward, .. } => {
                            self.tell_one(&mut forward.faults);
                        }
                        GatewayProtocol::TlsPassthrough { routes } => {
                            routes.iter_mut().for_each(|route| self.tell_one(&mut route.forward.faults));
                        }
                        GatewayProtocol::Http { .. } | GatewayProtocol::Https { .. } => {}
                    }
                }
            }
            Resource::Cluster(_)
            | Resource::Endpoints(_)
            | Resource::Secret(_)
            | Resource::TrustBundle(_) => {}
        }
    }

    fn tell_one(&self, faults: &mut Option<Arc<Faults>>) {
        *faults = faults.take().and_then(|faults| self.told(faults));
    }

    /// `None`: it was stopped.
    fn told(&self, mut faults: Arc<Faults>) -> Option<Arc<Faults>> {
        let Some(known) = self.of(&faults.policy()) else { return Some(faults) };
        if known.stopped.is_some() {
            return None;
        }
        // Of no use to an experiment without an end, which would only differ from one control plane to the next.
        if faults.active_for.is_some() {
            Arc::make_mut(&mut faults).since = Some(known.since);
        }
        Some(faults)
    }
}

/// When one of these runs out; milliseconds since 1970.
pub fn until(faults: &Faults, known: &Known) -> Option<u64> {
    let active = u64::try_from(faults.active_for?.as_millis()).unwrap_or(u64::MAX);
    Some(known.since.saturating_add(active))
}

/// Milliseconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// Of what it says: equal in every process, and across restarts.
fn content(faults: &Faults) -> String {
    outrigger_config::model::Version::of(faults).to_string()
}

#[cfg(test)]
mod tests {
    use outrigger_config::model::ResourceKind;
    use outrigger_config::registry::Store;
    use outrigger_config::resolve::Subscriber;

    use super::*;

    fn registry(fault: &str) -> Arc<Registry> {
        let text = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: s}}\nspec: {{ports: [{{port: 80, appProtocol: http}}]}}\n---\n\
             apiVersion: outrigger.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: p}}\n\
             spec: {{targetRefs: [{{kind: Service, name: s}}], timeout: {{}}, {fault}}}\n"
        );
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("a.yaml"), text).expect("it can be written");
        let files = outrigger_config::source::Directory::new(&[directory.path().to_owned()]).read();
        Store::new().update(&files)
    }

    /// What a caller is told.
    fn told(registry: &Registry, standing: &Standing) -> Option<Arc<Faults>> {
        let who = Subscriber::sidecar("default", "web");
        let name = "outbound|80|s.default.svc.cluster.local";
        let mut resource = registry.resolve(&who, ResourceKind::RouteTable, name).expect("a table");
        standing.tell(&mut resource);
        let Resource::RouteTable(table) = resource else { panic!("a table") };
        table.hosts[0].routes[0].faults.clone()
    }

    const FAULT: &str = "fault: {activeFor: 1h, faults: [{refuse: {}}]}";

    #[test]
    fn proxies_are_told_when_it_began_and_nothing_once_it_is_stopped() {
        let (registry, experiments) = (registry(FAULT), Experiments::open(None).expect("new"));
        let standing = experiments.follow(&registry);
        let since = told(&registry, &standing).expect("in force").since.expect("since when");
        assert!(now() - since < 60_000);
        assert_eq!(experiments.follow(&registry), standing, "it goes on");

        assert_eq!(experiments.stop(Some("default/other")).0, [""; 0]);
        assert_eq!(experiments.stop(None).0, ["default/p"]);
        assert_eq!(experiments.stop(None).0, [""; 0], "once");
        assert_eq!(told(&registry, &experiments.standing()), None);
    }

    #[test]
    fn one_that_changed_or_came_back_begins_anew() {
        let (first, experiments) = (registry(FAULT), Experiments::open(None).expect("new"));
        experiments.follow(&first);
        experiments.stop(None).1.expect("nothing to write");
        assert_eq!(told(&first, &experiments.follow(&first)), None);
        let changed = registry("fault: {activeFor: 2h, faults: [{refuse: {}}]}");
        assert!(told(&changed, &experiments.follow(&changed)).is_some(), "another experiment");
        experiments.stop(None).1.expect("nothing to write");
        experiments.follow(&registry("retry: {}"));
        assert!(told(&changed, &experiments.follow(&changed)).is_some(), "gone and back");
    }

    #[test]
    fn what_is_written_down_survives_and_what_cannot_be_read_is_an_error() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("experiments.json");
        let registry = registry(FAULT);
        let before = Experiments::open(Some(&file)).expect("new");
        before.follow(&registry);
        before.stop(None).1.expect("it can be written");
        let after = Experiments::open(Some(&file)).expect("as it was");
        assert_eq!(told(&registry, &after.follow(&registry)), None);
        assert!(after.is_kept());
        std::fs::write(&file, "{").expect("it can be written");
        Experiments::open(Some(&file)).expect_err("half a file");
    }
}
