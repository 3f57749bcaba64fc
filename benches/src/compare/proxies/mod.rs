//! The proxies that are compared, each started with a configuration that says the same in its own words.
//!
//! One worker each, all on one core ([`PROXY_CPU`]); whoever loads them and the app behind them have the other.

mod envoy;
mod haproxy;
mod nginx;
mod ours;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context;

use super::backend;
use super::certificates::Certificates;
use super::scenario::{Hops, Http, Setting};
use crate::ground::{Ground, Process, Resident};

pub const PROXY_CPU: usize = 0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proxy {
    Ours,
    OursInUse,
    /// HTTP/1.1 between its sidecars carried over HTTP/2.
    OursOverH2,
    OursOverH2InUse,
    Envoy,
    EnvoyMesh,
    Nginx,
    Haproxy,
    HaproxyFeatures,
}

/// In the order of the table.
pub const PROXIES: [Proxy; 9] = [
    Proxy::Ours,
    Proxy::OursInUse,
    Proxy::OursOverH2,
    Proxy::OursOverH2InUse,
    Proxy::Haproxy,
    Proxy::HaproxyFeatures,
    Proxy::Nginx,
    Proxy::Envoy,
    Proxy::EnvoyMesh,
];

/// Those that no package puts in its place.
#[derive(Clone, Debug)]
pub struct Built {
    pub ours: PathBuf,
    pub envoy: PathBuf,
}

impl Proxy {
    pub fn is_ours(self) -> bool {
        matches!(self, Self::Ours | Self::OursInUse | Self::OursOverH2 | Self::OursOverH2InUse)
    }

    /// Whether there is anything in it that another one of ours has not.
    pub fn has(self, setting: Setting) -> bool {
        let over_h2 = matches!(self, Self::OursOverH2 | Self::OursOverH2InUse);
        !over_h2 || setting.hops == Hops::Two && setting.http == Http::One
    }

    /// On the command line, and in the JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::OursInUse => "ours-in-use",
            Self::OursOverH2 => "ours-over-h2",
            Self::OursOverH2InUse => "ours-over-h2-in-use",
            Self::Envoy => "envoy",
            Self::EnvoyMesh => "envoy-mesh",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::HaproxyFeatures => "haproxy-features",
        }
    }

    pub fn program(self, built: &Built) -> PathBuf {
        match self {
            Self::Ours | Self::OursInUse | Self::OursOverH2 | Self::OursOverH2InUse => built.ours.clone(),
            Self::Envoy | Self::EnvoyMesh => built.envoy.clone(),
            Self::Nginx => backend::PROGRAM.into(),
            Self::Haproxy | Self::HaproxyFeatures => haproxy::PROGRAM.into(),
        }
    }

    /// What it says of its version, in one line.
    pub fn version(self, built: &Built) -> anyhow::Result<String> {
        let flag = match self {
            Self::Nginx | Self::Haproxy | Self::HaproxyFeatures => "-v",
            _ => "--version",
        };
        let program = self.program(built);
        let said = Command::new(&program).arg(flag).output();
        let said = said.with_context(|| format!("starting {}", program.display()))?;
        let text = [said.stdout, said.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        Ok(text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().trim().to_owned())
    }

    /// The ALPN token by which a client with TLS says what is inside.
    pub fn alpn(self, setting: Setting) -> &'static str {
        match self {
            _ if self.is_ours() && setting.hops == Hops::Callee => "istio-http/1.1",
            _ => "http/1.1",
        }
    }

    /// Starts as many instances as the setting has hops, and waits until each listens.
    pub async fn start(
        self,
        ground: &Ground,
        certificates: &Certificates,
        built: &Built,
        setting: Setting,
    ) -> anyhow::Result<Running> {
        // Each proxy has a pair of addresses.
        let order = PROXIES.iter().position(|proxy| *proxy == self).unwrap_or_default() as u8;
        let near: SocketAddr = (ground.ip(10 + 2 * order), 8080).into();
        let far: SocketAddr = (ground.ip(11 + 2 * order), 8080).into();
        let mut places = Vec::new();
        match setting.hops {
            Hops::Two => {
                places.push((far, None, format!("{}-callee", self.name())));
                places.push((near, Some(far), format!("{}-caller", self.name())));
            }
            _ => places.push((near, None, self.name().to_owned())),
        }
        let mut processes = Vec::new();
        for (listen, next, name) in places {
            let place = Place { ground, certificates, listen, next, hops: setting.hops, name: &name };
            let mut command = match self {
                Self::Ours | Self::OursInUse | Self::OursOverH2 | Self::OursOverH2InUse => {
                    ours::command(self, &built.ours, &place, setting)?
                }
                Self::Envoy => envoy::command(&built.envoy, &place, setting, false)?,
                Self::EnvoyMesh => envoy::command(&built.envoy, &place, setting, true)?,
                Self::Nginx => nginx::command(&place, setting)?,
                Self::Haproxy => haproxy::command(&place, setting, false)?,
                Self::HaproxyFeatures => haproxy::command(&place, setting, true)?,
            };
            let process = ground.start(&mut command, &name)?;
            process.listens(listen).await.with_context(|| name.clone())?;
            processes.push(process);
        }
        Ok(Running { proxy: self, processes, at: near })
    }
}

/// Where one instance stands.
pub struct Place<'a> {
    pub ground: &'a Ground,
    pub certificates: &'a Certificates,
    pub listen: SocketAddr,
    /// The next hop; without one the app is next.
    pub next: Option<SocketAddr>,
    hops: Hops,
    name: &'a str,
}

impl Place<'_> {
    fn folder(&self) -> anyhow::Result<PathBuf> {
        let folder = self.ground.path(self.name);
        fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// A command that will run on the proxies' core.
    fn pinned(&self, program: &Path) -> Command {
        let mut command = Command::new("taskset");
        command.args(["--cpu-list", &PROXY_CPU.to_string()]).arg(program);
        command
    }

    fn serves_tls(&self) -> bool {
        match self.hops {
            Hops::One => false,
            Hops::OneTls | Hops::Callee => true,
            Hops::Two => self.next.is_none(),
        }
    }

    fn wants_certificate(&self) -> bool {
        self.serves_tls() && self.hops != Hops::OneTls
    }
}

/// A proxy that can be called.
pub struct Running {
    pub proxy: Proxy,
    pub at: SocketAddr,
    processes: Vec<Process>,
}

impl Running {
    /// CPU time of all its instances so far, user and system.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        self.processes.iter().map(Process::cpu).sum()
    }

    /// What its instances keep in memory, together.
    pub fn resident(&self) -> anyhow::Result<Resident> {
        let mut sum = Resident { all: 0.0, own: 0.0 };
        for process in &self.processes {
            let one = process.resident()?;
            sum = Resident { all: sum.all + one.all, own: sum.own + one.own };
        }
        Ok(sum)
    }

    /// What its instances said, for a report of what went wrong.
    pub fn log_text(&self) -> String {
        let ends = self.processes.iter().map(|process| {
            let text = process.log_text();
            let from = text.len().saturating_sub(2_000);
            text.get(from..).unwrap_or(&text).to_owned()
        });
        ends.collect::<Vec<_>>().join("\n")
    }
}

/// Whether this proxy speaks HTTP/1.1 on legs where the setting says HTTP/2.
pub fn falls_back(proxy: Proxy, setting: Setting) -> bool {
    proxy == Proxy::Nginx && setting.http == Http::Two
}
