//! The instances `up` started, as `Workload` objects in a directory the control plane reads beside the user's.
//!
//! Owns their addresses and states on disk. The source is the only thing `up` and those who read it share, so either may die
//! and come back.

use std::cell::Cell;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use outrigger_control::file::replace;
use serde_json::{Value, json};

use super::plan::InstanceSpec;

/// What the mesh is told of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Ready,
    NotReady,
    Draining,
}

impl State {
    pub fn word(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::NotReady => "NotReady",
            Self::Draining => "Draining",
        }
    }
}

/// The directory of instance objects of one mesh.
#[derive(Clone, Debug)]
pub struct Overlay {
    directory: PathBuf,
}

impl Overlay {
    /// Starts empty: instances of an earlier run of this network are gone.
    pub fn create(directory: &Path) -> anyhow::Result<Self> {
        if directory.exists() {
            fs::remove_dir_all(directory).with_context(|| format!("clearing {}", directory.display()))?;
        }
        fs::create_dir_all(directory).with_context(|| format!("creating {}", directory.display()))?;
        Ok(Self { directory: directory.to_owned() })
    }

    pub fn entry(&self, spec: &InstanceSpec, pod: Ipv4Addr, app: Ipv4Addr) -> Entry {
        Entry {
            spec: spec.clone(),
            pod,
            app,
            // Generations of one object never go back, also not when an instance of the same name is started again.
            generation: Cell::new(now_millis()),
            path: self.directory.join(format!("{}.{}.json", spec.namespace, spec.name)),
        }
    }
}

/// The object of one started instance.
#[derive(Debug)]
pub struct Entry {
    spec: InstanceSpec,
    pod: Ipv4Addr,
    app: Ipv4Addr,
    generation: Cell<u64>,
    path: PathBuf,
}

impl Entry {
    /// `app_ports` are the ports the app listens on, in the order of the instance's ports. Returns the generation of what was written.
    pub fn write(&self, state: State, app_ports: &[u16]) -> anyhow::Result<u64> {
        self.generation.set(self.generation.get() + 1);
        let text = serde_json::to_vec_pretty(&self.object(state, app_ports))?;
        replace(&self.path, 0o644, &text).with_context(|| format!("writing {}", self.path.display()))?;
        Ok(self.generation.get())
    }

    fn object(&self, state: State, app_ports: &[u16]) -> Value {
        let spec = &self.spec;
        let mut labels: serde_json::Map<String, Value> =
            spec.labels.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        labels.insert("outrigger.dev/workload".into(), json!(spec.template));
        let ports: Vec<Value> = spec
            .ports
            .iter()
            .zip(app_ports)
            .map(|(port, app_port)| {
                let mut out = json!({"port": port.port, "appPort": app_port});
                if let Some(name) = &port.name {
                    out["name"] = json!(name);
                }
                if let Some(protocol) = &port.app_protocol {
                    out["appProtocol"] = json!(protocol);
                }
                out
            })
            .collect();
        let mut out = json!({
            "apiVersion": "outrigger.dev/v1alpha1",
            "kind": "Workload",
            "metadata": {
                "name": spec.name,
                "namespace": spec.namespace,
                "labels": labels,
                // It has a sidecar with a certificate: callers speak mTLS with it, and nothing else.
                "annotations": {"outrigger.dev/meshed": "true"},
                "generation": self.generation.get(),
            },
            "spec": {
                "serviceAccount": spec.service_account,
                "address": self.pod.to_string(),
                "appAddress": self.app.to_string(),
                "ports": ports,
            },
            "status": {"state": state.word()},
        });
        if let Some(zone) = &spec.zone {
            out["spec"]["zone"] = json!(zone);
        }
        if spec.weight != 1 {
            out["spec"]["weight"] = json!(spec.weight);
        }
        out
    }
}

/// Dead: the endpoint goes at once.
impl Drop for Entry {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn now_millis() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX / 2))
}
