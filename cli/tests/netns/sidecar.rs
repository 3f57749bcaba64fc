//! A captured mesh in pods: real sidecars under their own user, apps beside them, and rules loaded by `outrigger capture`.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use tokio::time::Instant;

use crate::network::{Namespace, Network, Pod};

pub const PROXY: u32 = 1337;
pub const APP: u32 = 1000;
pub const OUTRIGGER: &str = env!("CARGO_BIN_EXE_outrigger");

/// A generous deadline for whatever is awaited: only a failing test meets it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How the rules are loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    Nft,
    Iptables,
}

/// Two pods of the mesh, `client` and `echo`, and one beside it. Service `echo` is 10.96.0.10 and fd96::10, and `echo6` (the same app
/// by its pod's IPv6 address) is 10.96.0.11 and fd96::11; none of their ports is declared to speak anything.
#[derive(Debug)]
pub struct Mesh {
    pub client: Pod,
    pub echo: Pod,
    pub outside: Pod,
    processes: Vec<Process>,
    tool: Tool,
    folder: tempfile::TempDir,
    _network: Network,
}

/// Ended when dropped.
#[derive(Debug)]
struct Process {
    child: Child,
    name: String,
}

impl Mesh {
    /// Pods and manifests; nothing runs yet and nothing is captured. `None` where such tests are to be skipped.
    pub fn new(test: &str, tool: Tool) -> Option<Self> {
        let network = Network::new(test)?;
        let (client, echo, outside) = (network.pod(), network.pod(), network.pod());
        let folder = tempfile::Builder::new().prefix("outrigger-netns").tempdir().expect("a folder");
        // The sidecars read it under another user.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("our own folder");
        let mesh = Self { client, echo, outside, processes: vec![], tool, folder, _network: network };
        mesh.write("mesh.yaml", &mesh.manifests());
        Some(mesh)
    }

    /// Captures both pods, starts the apps and their sidecars, and waits until the sidecars are ready.
    pub fn running(test: &str, tool: Tool) -> Option<Self> {
        let mut mesh = Self::new(test, tool)?;
        for pod in [&mesh.client, &mesh.echo] {
            mesh.capture(pod, &["apply"]);
        }
        mesh.start_echo();
        mesh.start_sidecar("client");
        mesh.start_sidecar("echo");
        for pod in [&mesh.client, &mesh.echo] {
            mesh.await_ready(pod);
        }
        Some(mesh)
    }

    /// The app listens on its pod's IPv4 address alone, as some do: only a sidecar that calls it from a loopback address gets there.
    pub fn start_echo(&mut self) {
        let host = self.echo.v4.to_string();
        self.start("echo-app", "echo", APP, &["sample", "echo", "--host", &host, "--port", "8080"]);
        let at = SocketAddr::from((self.echo.v4, 8080));
        self.await_that("the app listens", || self.echo.namespace.enter(|| TcpStream::connect(at).is_ok()));
    }

    pub fn start_sidecar(&mut self, workload: &str) {
        let manifests = self.folder.path().display().to_string();
        let args =
            ["proxy", "--manifests", &manifests, "--workload", workload, "--captured", "--capture-check=1s"];
        self.start(&format!("{workload}-sidecar"), workload, PROXY, &args);
    }

    /// Starts a part of this program in a pod.
    pub fn start(&mut self, name: &str, pod: &str, uid: u32, args: &[&str]) {
        let log = fs::File::create(self.log(name)).expect("a log");
        let pod = if pod == "client" { &self.client } else { &self.echo };
        let child = pod
            .namespace
            .command_as(uid, OUTRIGGER)
            .args(args)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a descriptor is free"))
            .stderr(log)
            .spawn()
            .expect("nsenter starts");
        self.processes.push(Process { child, name: name.to_owned() });
    }

    /// `outrigger capture` in a pod, with this mesh's tool.
    #[track_caller]
    pub fn capture(&self, pod: &Pod, args: &[&str]) {
        let mut command = pod.namespace.command(OUTRIGGER);
        command.arg("capture").args(args);
        if args[0] == "apply" {
            command.arg(match self.tool {
                Tool::Nft => "--backend=nft",
                Tool::Iptables => "--backend=iptables",
            });
        }
        let output = command.output().expect("nsenter starts");
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    pub fn flush(&self, pod: &Pod, ipv6: bool, chain: &str) {
        match self.tool {
            Tool::Nft => {
                let family = if ipv6 { "ip6" } else { "ip" };
                pod.namespace.run("nft", &["flush", "chain", family, "outrigger", chain])
            }
            Tool::Iptables => {
                let program = if ipv6 { "ip6tables-nft" } else { "iptables-nft" };
                let chain = format!("OUTRIGGER_{}", chain.to_uppercase());
                pod.namespace.run(program, &["-t", "nat", "-F", &chain])
            }
        };
    }

    /// Adds or replaces a file among the manifests.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.folder.path().join(name);
        fs::write(&path, text).expect("written");
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).expect("our own file");
    }

    #[track_caller]
    pub fn await_ready(&self, pod: &Pod) {
        self.await_readiness(pod, |readiness| readiness == "ready\n");
    }

    /// Waits until what `/healthz/ready` says is as wanted.
    #[track_caller]
    pub fn await_readiness(&self, pod: &Pod, wanted: impl Fn(&str) -> bool) {
        let mut last = String::new();
        let begun = Instant::now();
        while !wanted(&last) {
            assert!(begun.elapsed() < PATIENCE, "still {last:?}\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(20));
            last = get(&pod.namespace, (pod.v4, 15020).into(), "/healthz/ready").unwrap_or_default();
        }
    }

    #[track_caller]
    pub fn await_that(&self, what: &str, mut condition: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !condition() {
            assert!(begun.elapsed() < PATIENCE, "not seen within {PATIENCE:?}: {what}\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The sum of a metric's samples with all of `labels`, at a pod's sidecar.
    #[track_caller]
    pub fn metric(&self, pod: &Pod, name: &str, labels: &[&str]) -> f64 {
        let at = (pod.v4, 15020).into();
        let page =
            get(&pod.namespace, at, "/metrics").unwrap_or_else(|| panic!("no metrics\n{}", self.logs()));
        page.lines()
            .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])))
            .filter(|line| labels.iter().all(|label| line.contains(label)))
            .map(|line| {
                line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()).expect("a number")
            })
            .sum()
    }

    /// How many requests the sidecars of both pods saw of a service: as the caller's and as the callee's.
    #[track_caller]
    pub fn requests(&self, caller: &Pod, service: &str) -> (f64, f64) {
        let seen = |pod, direction: &str, service: &str| {
            let (direction, service) =
                (format!("direction=\"{direction}\""), format!("service=\"{service}.default\""));
            self.metric(pod, "outrigger_requests_total", &[&direction, &service])
        };
        // A port that several Services select is the first one's at the callee.
        (seen(caller, "outbound", service), seen(&self.echo, "inbound", "echo"))
    }

    pub fn logs(&self) -> String {
        let log = |process: &Process| {
            let text = fs::read_to_string(self.log(&process.name)).unwrap_or_default();
            format!("--- {}\n{text}", process.name)
        };
        self.processes.iter().map(log).collect()
    }

    pub fn log(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.log"))
    }

    fn manifests(&self) -> String {
        let (client, echo, echo6) = (self.client.v4, self.echo.v4, self.echo.v6);
        format!(
            r#"
apiVersion: v1
kind: Service
metadata: {{name: echo}}
spec:
  clusterIP: 10.96.0.10
  clusterIPs: [10.96.0.10, "fd96::10"]
  selector: {{app: echo}}
  ports: [{{name: web, port: 80, targetPort: 8080}}, {{name: chat, port: 50051}}, {{name: greeter, port: 7000}}]
---
apiVersion: v1
kind: Service
metadata: {{name: echo6}}
spec:
  clusterIP: 10.96.0.11
  clusterIPs: [10.96.0.11, "fd96::11"]
  selector: {{app: echo6}}
  ports: [{{name: web, port: 80, targetPort: 8080}}]
---
apiVersion: outrigger.dev/v1alpha1
kind: Workload
metadata: {{name: echo, labels: {{app: echo}}}}
spec:
  address: {echo}
  appAddress: {echo}
  ports: [{{name: web, port: 8080}}, {{name: chat, port: 50051}}, {{name: greeter, port: 7000}}]
---
apiVersion: outrigger.dev/v1alpha1
kind: Workload
metadata: {{name: echo6, labels: {{app: echo6}}}}
spec:
  address: "{echo6}"
  ports: [{{name: web, port: 8080}}]
---
apiVersion: outrigger.dev/v1alpha1
kind: Workload
metadata: {{name: client, labels: {{app: client}}}}
spec:
  address: {client}
  ports: [{{port: 9999}}]
"#
        )
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What an unmodified curl of the app gets: its exit code and the body.
pub fn curl(from: &Namespace, args: &[&str]) -> (i32, String) {
    let mut curl: Command = from.command_as(APP, "curl");
    curl.args(["--silent", "--show-error", "--max-time", "30", "--noproxy", "*"]).args(args);
    let Output { status, stdout, stderr } = curl.output().expect("nsenter starts");
    let text = [stdout, stderr].concat();
    (status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned())
}

/// The body of an answer; `None` where nobody answers.
pub fn get(from: &Namespace, at: SocketAddr, path: &str) -> Option<String> {
    let stream = from.enter(|| TcpStream::connect(at)).ok()?;
    let answer = say(stream, format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())?;
    Some(answer.split_once("\r\n\r\n")?.1.to_owned())
}

/// All that comes back for some bytes.
pub fn say(mut stream: TcpStream, bytes: &[u8]) -> Option<String> {
    stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
    stream.write_all(bytes).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// The Service's addresses, and the port as text in a URL.
pub fn service(last: u8) -> [IpAddr; 2] {
    [Ipv4Addr::new(10, 96, 0, last).into(), format!("fd96::{last}").parse().expect("an address")]
}
