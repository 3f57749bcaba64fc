//! `Workload`: an app instance outside Kubernetes, or the template `outrigger up` starts instances from.
//!
//! A Workload without an address is a template. `up` writes each instance it has started as another Workload, with
//! `address`, the label `outrigger.dev/workload: TEMPLATE` and `status.state`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::{Check, Findings};
use super::field::IntOrString;
use super::metadata::Metadata;
use super::path::FieldPath;
use super::value::{AppProtocol, EnvName, Ip, Label, LabelValue, Name, Port, number_value};

mod readiness;

pub use readiness::{
    HttpGet, Probe, ProbeCount, ProbeHeader, ProbePort, ProbeScheme, ProbeSeconds, Readiness, TcpSocket,
};

/// On an instance that `outrigger up` started: the name of its template.
pub const TEMPLATE_LABEL: &str = "outrigger.dev/workload";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    pub metadata: Metadata,
    pub spec: WorkloadSpec,
    /// Written by whoever runs the instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<WorkloadStatus>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkloadSpec {
    /// With the namespace it makes the SPIFFE id. Default `default`.
    #[serde(default = "default_account")]
    pub service_account: Name,
    /// How many instances `outrigger up` starts. Default 1.
    #[serde(default)]
    pub replicas: Replicas,
    /// Where an instance is reached. Absent in templates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Ip>,
    /// Where the app itself listens, as its sidecar sees it. Default 127.0.0.1.
    #[serde(default = "loopback")]
    pub app_address: Ip,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<WorkloadPort>,
    /// What `outrigger up` starts: program and arguments. `$(HOST)` and `$(PORT)` stand for where
    /// it has to listen. Empty: nothing is started.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Of the command, beside what it inherits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<EnvVar>,
    /// Of the command; relative to the manifest's own directory, which is also the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_directory: Option<String>,
    /// Absent: ready as soon as its first port accepts connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readiness: Option<Readiness>,
    /// From the first signal to the last. Default 30.
    #[serde(default)]
    pub termination_grace_period_seconds: GraceSeconds,
    /// `topology.kubernetes.io/zone`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<LabelValue>,
    /// Share of requests relative to other instances. Default 1.
    #[serde(default)]
    pub weight: InstanceWeight,
}

fn default_account() -> Name {
    Name::try_from("default").expect("a name")
}

fn loopback() -> Ip {
    Ip::from(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST))
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkloadPort {
    /// Required where there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Label>,
    /// As callers see it.
    pub port: Port,
    /// Where the app listens. Default: `port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_port: Option<AppPort>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_protocol: Option<AppProtocol>,
}

/// Where an app listens for a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "IntOrString", into = "IntOrString")]
pub enum AppPort {
    Number(Port),
    /// `outrigger up` finds a free one and hands it to the command as `PORT`.
    Auto,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EnvVar {
    pub name: EnvName,
    #[serde(default)]
    pub value: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WorkloadStatus {
    pub state: WorkloadState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum WorkloadState {
    Ready,
    NotReady,
    /// Finishing what it has; gets nothing new.
    Draining,
}

number_value! {
    /// Instances of a template.
    Replicas(u8), "a number of replicas (0 to 64)", 0..=64
}

number_value! {
    /// Share of requests relative to others.
    InstanceWeight(u32), "a weight (1 to 1000000)", 1..=1_000_000
}

impl Default for InstanceWeight {
    fn default() -> InstanceWeight {
        InstanceWeight(1)
    }
}

number_value! {
    /// Seconds.
    GraceSeconds(u32), "a number of seconds (0 to 86400)", 0..=86_400
}

impl Default for Replicas {
    fn default() -> Replicas {
        Replicas(1)
    }
}

impl Default for GraceSeconds {
    fn default() -> GraceSeconds {
        GraceSeconds(30)
    }
}

impl Workload {
    /// Whether this is one instance that can be reached, not a template.
    pub fn is_instance(&self) -> bool {
        self.spec.address.is_some()
    }

    /// What its state is; an instance that nobody watches counts as ready.
    pub fn state(&self) -> WorkloadState {
        self.status.map_or(WorkloadState::Ready, |status| status.state)
    }

    /// The template this instance was started from.
    pub fn template(&self) -> Option<&str> {
        self.metadata.label(TEMPLATE_LABEL)
    }
}

impl WorkloadPort {
    /// Where the app listens; `None` where that is found out at start.
    pub fn app_port(&self) -> Option<Port> {
        match self.app_port {
            Some(AppPort::Number(port)) => Some(port),
            Some(AppPort::Auto) => None,
            None => Some(self.port),
        }
    }
}

impl Check for Workload {
    fn check(&self, at: &FieldPath, findings: &mut Findings) {
        let spec = at.key("spec");
        let ports = spec.key("ports");
        findings.at_most(&ports, self.spec.ports.len(), 64);
        findings.unique(&ports, &self.spec.ports, "name", |port| port.name.clone());
        findings.unique(&ports, &self.spec.ports, "port", |port| Some(port.port));
        if self.spec.ports.len() > 1 {
            for (i, port) in self.spec.ports.iter().enumerate().filter(|(_, port)| port.name.is_none()) {
                let text = format!("port {} needs a name, since there are several", port.port);
                findings.error(ports.index(i).key("name"), text);
            }
        }
        findings.unique(&spec.key("env"), &self.spec.env, "name", |var| Some(var.name.clone()));
        for (i, text) in self.spec.command.iter().enumerate() {
            if text.contains('\0') {
                findings.error(spec.key("command").index(i), "a NUL cannot be handed to a program");
            }
        }
        for (i, var) in self.spec.env.iter().enumerate().filter(|(_, var)| var.value.contains('\0')) {
            let text = format!("a NUL cannot be handed to a program, as {} does", var.name);
            findings.error(spec.key("env").index(i).key("value"), text);
        }
        if self.spec.command.first().is_some_and(|program| program.is_empty()) {
            findings.error(spec.key("command").index(0), "the program is missing");
        }
        if self.is_instance() {
            // Ports were found out when it was started.
            for (i, _) in
                self.spec.ports.iter().enumerate().filter(|(_, p)| p.app_port == Some(AppPort::Auto))
            {
                let text = "`auto` is for templates; an instance with an address says which port its app has";
                findings.error(ports.index(i).key("appPort"), text);
            }
        } else if self.spec.command.is_empty() {
            let text = "is required, and missing; without an address and a command there is nothing to reach or start";
            findings.error(spec.key("address"), text);
        }
        if let Some(readiness) = &self.spec.readiness {
            self.check_readiness(readiness, &spec.key("readiness"), findings);
        }
    }
}

impl Workload {
    fn check_readiness(&self, readiness: &Readiness, at: &FieldPath, findings: &mut Findings) {
        let (member, port) = match &readiness.probe {
            Probe::HttpGet(get) => {
                let fits = get.path.starts_with('/') && get.path.bytes().all(|b| b.is_ascii_graphic());
                if !fits {
                    let text = format!("{:?} is not a path (beginning with /, printable ASCII)", get.path);
                    findings.error(at.key("httpGet").key("path"), text);
                }
                ("httpGet", &get.port)
            }
            Probe::TcpSocket(socket) => ("tcpSocket", &socket.port),
        };
        let known = match port {
            ProbePort::Number(number) => {
                self.spec.ports.iter().any(|p| p.port == *number || p.app_port() == Some(*number))
            }
            ProbePort::Name(name) => self.spec.ports.iter().any(|p| p.name.as_ref() == Some(name)),
        };
        if !known {
            let text = match port {
                ProbePort::Number(number) => format!("{number} is not one of the workload's ports"),
                ProbePort::Name(name) => format!("{name} is not the name of one of the workload's ports"),
            };
            findings.error(at.key(member).key("port"), text);
        }
    }
}

impl JsonSchema for AppPort {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "AppPort".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "anyOf": [
            { "type": "integer", "minimum": 1, "maximum": 65535 },
            { "const": "auto" },
        ] })
    }
}

impl TryFrom<IntOrString> for AppPort {
    type Error = String;

    fn try_from(raw: IntOrString) -> Result<AppPort, String> {
        match raw {
            IntOrString::Int(n) => u64::try_from(n)
                .ok()
                .and_then(|n| Port::try_from(n).ok())
                .map(AppPort::Number)
                .ok_or_else(|| format!("{n} is not {}, or auto", Port::ACCEPTED)),
            IntOrString::String(text) if text == "auto" => Ok(AppPort::Auto),
            IntOrString::String(text) => Err(format!("{text:?} is not {}, or auto", Port::ACCEPTED)),
        }
    }
}

impl From<AppPort> for IntOrString {
    fn from(typed: AppPort) -> IntOrString {
        match typed {
            AppPort::Number(port) => IntOrString::Int(i32::from(port.get())),
            AppPort::Auto => IntOrString::String("auto".to_owned()),
        }
    }
}
