//! The ground a measurement stands on: a folder of manifests, a loopback network of its own, and the real programs as child
//! processes, which end when it is dropped.

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::RngExt;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::client;

/// For what is sure to come; only a defect takes longer.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The programs that are measured.
#[derive(Clone, Debug, clap::Args)]
pub struct Programs {
    /// Of the control plane, and of whole meshes.
    #[arg(long, value_name = "FILE")]
    pub outrigger: PathBuf,
    /// Of sidecars and gateways.
    #[arg(long, value_name = "FILE")]
    pub proxy: PathBuf,
    /// The proxy as built with the `quick` profile, in a tenth of the time of what is shipped: for development.
    #[arg(long, global = true)]
    pub quick: bool,
}

pub struct Ground {
    programs: Programs,
    folder: TempDir,
    /// The first three bytes of its addresses.
    network: [u8; 3],
}

impl Ground {
    pub fn new(programs: &Programs) -> anyhow::Result<Self> {
        for program in [&programs.outrigger, &programs.proxy] {
            ensure!(program.is_file(), "{} is no program", program.display());
        }
        let mut rng = rand::rng();
        // `outrigger up` takes 127.64 to 127.127.
        let network = [127, rng.random_range(128..=254), rng.random_range(0..=255)];
        // A proxy keeps its key nowhere but in memory.
        let memory = Path::new("/dev/shm");
        let under = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let folder = tempfile::Builder::new().prefix("outrigger-bench").tempdir_in(under)?;
        fs::create_dir(folder.path().join("manifests"))?;
        Ok(Self { programs: programs.clone(), folder, network })
    }

    /// Address `host` of the network; 1 is the control plane's.
    pub fn ip(&self, host: u8) -> IpAddr {
        let [a, b, c] = self.network;
        Ipv4Addr::new(a, b, c, host).into()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Renamed into place, as an editor does. Returns the moment at which it was there.
    pub fn write(&self, name: &str, text: &str) -> anyhow::Result<Instant> {
        let path = self.path("manifests").join(name);
        let new = path.with_extension("new~");
        fs::write(&new, text).with_context(|| format!("writing {}", new.display()))?;
        fs::rename(&new, &path).with_context(|| format!("writing {}", path.display()))?;
        Ok(Instant::now())
    }

    /// A control plane over the manifests, the mesh's authority as well, once it can be asked.
    pub async fn control(&self) -> anyhow::Result<Process> {
        let mut command = Command::new(&self.programs.outrigger);
        command.arg("control").arg("--manifests").arg(self.path("manifests"));
        command.args(["--address", &self.ip(1).to_string(), "--no-plaintext"]);
        command.arg("--ca-dir").arg(self.path("ca"));
        let process = self.start(&mut command, "control")?;
        process.listens((self.ip(1), ADS_PORT).into()).await?;
        Ok(process)
    }

    /// The arguments of a sidecar at address `host`, which asks the control plane for everything, its certificate as well. The control
    /// plane has to have been there: it made what signs the sidecar's token.
    pub fn sidecar(&self, workload: &str, host: u8) -> anyhow::Result<Command> {
        let (ca, token) = (self.path("ca"), self.path(&format!("{workload}.token")));
        let mut sign = self.outrigger();
        sign.args(["ca", "token", "--workload", workload, "--service-account", "default", "--token-key"]);
        let signed = sign.arg(ca.join("token.key")).output().context("signing a token")?;
        ensure!(signed.status.success(), "no token: {}", String::from_utf8_lossy(&signed.stderr));
        fs::write(&token, signed.stdout)?;
        let mut command = Command::new(&self.programs.proxy);
        command.args(["--control", &SocketAddr::from((self.ip(1), ADS_PORT)).to_string(), "--control-root"]);
        command.arg(ca.join("roots.pem")).arg("--token").arg(token);
        command.args(["--workload", workload, "--pod-address", &self.ip(host).to_string()]);
        Ok(command)
    }

    /// A sidecar as [`Self::sidecar`] describes it, once it says that it is ready.
    pub async fn ready_sidecar(&self, workload: &str, host: u8) -> anyhow::Result<Process> {
        self.start_ready(&mut self.sidecar(workload, host)?, workload, host).await
    }

    /// Starts the proxy that is to be at `host`, and waits until it says that it is ready.
    pub async fn start_ready(&self, command: &mut Command, name: &str, host: u8) -> anyhow::Result<Process> {
        let process = self.start(command, name)?;
        self.ready(&process, host).await?;
        Ok(process)
    }

    /// Waits until the proxy at `host` says that it is ready.
    pub async fn ready(&self, process: &Process, host: u8) -> anyhow::Result<()> {
        let health: SocketAddr = (self.ip(host), METRICS_PORT).into();
        let begun = Instant::now();
        loop {
            if let Ok(200) = client::get(health, "/healthz/ready").await.map(|(status, _)| status) {
                return Ok(());
            }
            process.check(begun, "is not ready")?;
            sleep(Duration::from_millis(2)).await;
        }
    }

    /// `outrigger up` over the manifests, once everything is ready. It takes a network of its own.
    pub async fn up(&self) -> anyhow::Result<Up<'_>> {
        let mut command = self.outrigger();
        command.arg("up").arg(self.path("manifests"));
        let up = Up { ground: self, process: self.start(&mut command, "up")? };
        let begun = Instant::now();
        loop {
            let ready = |list: &Value| {
                let all = |list: &Vec<Value>| list.iter().all(|one| one["state"] == "Ready");
                list.as_array().is_some_and(|list| !list.is_empty() && all(list))
            };
            match up.status().await {
                Ok(status) if ready(&status["workloads"]) && ready(&status["gateways"]) => return Ok(up),
                _ => up.process.check(begun, "is not ready")?,
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    fn outrigger(&self) -> Command {
        let mut command = Command::new(&self.programs.outrigger);
        command.env("XDG_RUNTIME_DIR", self.folder.path());
        command
    }

    /// Where the app of the sidecar at `host` sends its requests, as to an HTTP proxy.
    pub fn outbound(&self, host: u8) -> SocketAddr {
        (self.ip(host), 15001).into()
    }

    pub fn admin(&self, host: u8) -> SocketAddr {
        (self.ip(host), 15000).into()
    }

    pub fn start(&self, command: &mut Command, name: &str) -> anyhow::Result<Process> {
        let log = self.path(&format!("{name}.log"));
        let file = File::create(&log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        Ok(Process { child, log })
    }
}

/// A mesh that `outrigger up` runs; ended in good order when dropped.
pub struct Up<'g> {
    ground: &'g Ground,
    process: Process,
}

impl Up<'_> {
    /// `outrigger status -o json`
    pub async fn status(&self) -> anyhow::Result<Value> {
        let output = self.ground.outrigger().args(["status", "-o", "json"]).output()?;
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}

impl Drop for Up<'_> {
    fn drop(&mut self) {
        // Its children end with it, but only their end in good order frees everything else; an error says that it is gone.
        let _ = self.process.signal(Signal::SIGTERM);
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE && matches!(self.process.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

const ADS_PORT: u16 = 15012;
const METRICS_PORT: u16 = 15020;

/// A child process; killed when dropped.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        Ok(kill(Pid::from_raw(self.child.id() as i32), signal)?)
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> anyhow::Result<()> {
        let begun = Instant::now();
        while self.child.try_wait()?.is_none() {
            if begun.elapsed() > PATIENCE {
                bail!("it does not end\n{}", self.log_text());
            }
            sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    /// What it keeps in memory now.
    pub fn resident(&self) -> anyhow::Result<Resident> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let kb = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<f64>().ok());
            kb.map(|kb| kb / 1024.0).with_context(|| format!("no {name} in /proc/PID/status"))
        };
        Ok(Resident { all: field("VmRSS")?, own: field("RssAnon")? })
    }

    /// CPU time of all its threads so far, user and system, as the scheduler counts it (proc(5), schedstat).
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        let mut sum = Duration::ZERO;
        for thread in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let file = thread?.path().join("schedstat");
            let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
            let on_cpu = text.split(' ').next().and_then(|nanoseconds| nanoseconds.parse().ok());
            sum += Duration::from_nanos(on_cpu.with_context(|| format!("{}: {text:?}", file.display()))?);
        }
        Ok(sum)
    }

    pub fn log_text(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub async fn listens(&self, address: SocketAddr) -> anyhow::Result<()> {
        let begun = Instant::now();
        while TcpStream::connect(address).await.is_err() {
            self.check(begun, "does not listen")?;
            sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    fn check(&self, begun: Instant, problem: &str) -> anyhow::Result<()> {
        let gone = !Path::new(&format!("/proc/{}/exe", self.child.id())).exists();
        ensure!(!gone && begun.elapsed() < PATIENCE, "a program {problem}\n{}", self.log_text());
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // An error says that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Resident memory in MiB.
#[derive(Clone, Copy, Debug)]
pub struct Resident {
    /// All of it (VmRSS), the program's pages shared with its siblings included.
    pub all: f64,
    /// What the process alone has (RssAnon).
    pub own: f64,
}
