//! One exchange through a whole proxy of this process. Client and app are blocking sockets with buffers of their own: what is allocated is the
//! proxy's. Their few instructions and system calls are counted with it.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Parser;
use outrigger_proxy::app::{self, Running};
use outrigger_proxy::options::Options;
use tempfile::TempDir;

/// Allocations expected at most; 4.0 were measured in November 2026, and none may be added unseen.
pub const MOST: f64 = 5.0;

/// A gateway with one worker, before an app that answers 1 KiB, and a connection to it.
pub struct Through {
    client: TcpStream,
    buffer: Vec<u8>,
    _running: Running,
    _folder: TempDir,
}

#[derive(Debug, Parser)]
struct Command {
    #[command(flatten)]
    options: Options,
}

impl Through {
    pub fn start() -> anyhow::Result<Self> {
        Self::with(1, "")
    }

    /// The app has so many endpoints, at 127.0.0.1 and the addresses behind it; `policies` are manifests.
    pub fn with(endpoints: u8, policies: &str) -> anyhow::Result<Self> {
        let mut failed = None;
        let through = Self::run(|at, app, _| {
            let addresses: Vec<_> = (1..=endpoints).map(|n| Ipv4Addr::new(127, 0, 0, n)).collect();
            for address in &addresses[1..] {
                match TcpListener::bind((*address, app.port())) {
                    Ok(listener) => serve(listener),
                    Err(error) => failed = Some(error),
                }
            }
            let mesh = mesh(at.port(), &addresses, app.port()) + "---\n" + policies;
            (mesh, vec!["--gateway".to_owned(), "front".to_owned()])
        });
        match failed {
            Some(error) => Err(error).context("an endpoint of the app"),
            None => through,
        }
    }

    /// `proxy` says, of where it is to listen, the app's address and a folder, the manifests and what else is on its command line.
    pub fn run(
        proxy: impl FnOnce(SocketAddr, SocketAddr, &Path) -> (String, Vec<String>),
    ) -> anyhow::Result<Self> {
        let app = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = app.local_addr()?;
        serve(app);
        let at = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let folder = tempfile::tempdir()?;
        let manifests = folder.path().join("manifests");
        fs::create_dir(&manifests)?;
        let (mesh, arguments) = proxy(at, address, folder.path());
        fs::write(manifests.join("mesh.yaml"), mesh)?;
        let manifests = manifests.display().to_string();
        let line = ["proxy", "--workers", "1", "--manifests", &manifests].map(str::to_owned);
        let line = line.into_iter().chain(arguments);
        let options = Command::try_parse_from(line)?.options;
        let mut setup = options.setup()?;
        // Of no use here; the usual ports may be somebody else's.
        setup.admin = (Ipv4Addr::LOCALHOST, 0).into();
        setup.metrics = (Ipv4Addr::LOCALHOST, 0).into();
        setup.outbound.iter_mut().chain(&mut setup.inbound).for_each(|address| address.set_port(0));
        let running = app::start(setup, |shared| options.supply(shared))?;
        let mut client = None;
        for _ in 0..1_000 {
            client = TcpStream::connect(at).ok();
            if client.is_some() {
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
        let client = client.context("the proxy does not listen")?;
        client.set_nodelay(true)?;
        Ok(Self { client, buffer: vec![0; 4096], _running: running, _folder: folder })
    }

    pub fn once(&mut self) -> anyhow::Result<()> {
        get(&mut self.client, &mut self.buffer)
    }

    /// Connections at rest, each after one exchange.
    pub fn open(&self, connections: usize) -> anyhow::Result<Vec<TcpStream>> {
        let (at, mut buffer) = (self.client.peer_addr()?, vec![0; 4096]);
        let one = |_| {
            let mut client = TcpStream::connect(at)?;
            get(&mut client, &mut buffer)?;
            Ok(client)
        };
        (0..connections).map(one).collect()
    }
}

/// How often the worker of the proxy started last came back from waiting for something to do, as the kernel counts it.
pub fn wakeups() -> anyhow::Result<u64> {
    let tasks = fs::read_dir("/proc/self/task")?.collect::<Result<Vec<_>, _>>()?;
    let is_worker =
        |task: &Path| fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == "worker-0");
    let workers = tasks.iter().map(|task| task.path()).filter(|task| is_worker(task));
    let newest = workers.max_by_key(|task| task.file_name()?.to_str()?.parse::<u32>().ok());
    let status = fs::read_to_string(newest.context("there is no worker")?.join("status"))?;
    let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    Ok(count.context("the kernel does not say")?.trim().parse()?)
}

/// One request, and its whole answer.
fn get(client: &mut (impl Read + Write), buffer: &mut [u8]) -> anyhow::Result<()> {
    client.write_all(REQUEST)?;
    let mut filled = 0;
    loop {
        let read = client.read(&mut buffer[filled..])?;
        ensure!(read > 0, "closed");
        filled += read;
        let answer = &buffer[..filled];
        ensure!(!b"HTTP/1.1 200".iter().zip(answer).any(|(want, got)| want != got), "not a 200");
        if let Some(head) = answer.windows(4).position(|window| window == b"\r\n\r\n")
            && filled == head + 4 + 1024
        {
            return Ok(());
        }
    }
}

const REQUEST: &[u8] = b"GET /1k HTTP/1.1\r\nhost: example.com\r\nuser-agent: bench\r\naccept: */*\r\n\r\n";

fn serve(app: TcpListener) {
    thread::spawn(move || {
        while let Ok((stream, _)) = app.accept() {
            thread::spawn(move || answer(stream));
        }
    });
}

fn answer(mut stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let mut whole = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 1024\r\n\r\n".to_vec();
    whole.extend([b'x'; 1024]);
    let (mut buffer, mut filled) = (vec![0; 4096], 0);
    loop {
        match stream.read(&mut buffer[filled..]) {
            Ok(read) if read > 0 => filled += read,
            _ => return,
        }
        if buffer[..filled].ends_with(b"\r\n\r\n") {
            filled = 0;
            if stream.write_all(&whole).is_err() {
                return;
            }
        }
    }
}

fn mesh(port: u16, apps: &[Ipv4Addr], app_port: u16) -> String {
    let endpoints: Vec<_> = apps.iter().map(|app| format!("{{addresses: [\"{app}\"]}}")).collect();
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\n\
         kind: Gateway\n\
         metadata: {{name: front}}\n\
         spec: {{gatewayClassName: outrigger, listeners: [{{name: web, port: {port}, protocol: HTTP}}]}}\n\
         ---\n\
         apiVersion: gateway.networking.k8s.io/v1\n\
         kind: HTTPRoute\n\
         metadata: {{name: front}}\n\
         spec: {{parentRefs: [{{name: front}}], rules: [{{backendRefs: [{{name: app, port: 80}}]}}]}}\n\
         ---\n\
         apiVersion: v1\n\
         kind: Service\n\
         metadata: {{name: app}}\n\
         spec: {{ports: [{{name: http, port: 80}}]}}\n\
         ---\n\
         apiVersion: discovery.k8s.io/v1\n\
         kind: EndpointSlice\n\
         metadata: {{name: app-1, labels: {{kubernetes.io/service-name: app}}}}\n\
         addressType: IPv4\n\
         endpoints: [{}]\n\
         ports: [{{name: http, port: {app_port}}}]\n",
        endpoints.join(", "),
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rcgen::{
        BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
    };
    use rustls::client::Resumption;
    use rustls::pki_types::{PrivateKeyDer, ServerName};
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;
    use crate::{ALLOCATOR, alone};

    const CONNECTIONS: usize = 100;

    /// A callee's sidecar, and what its caller connects with.
    fn callee() -> (Through, Arc<ClientConfig>) {
        let key = || KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root_key = key();
        let root = params.self_signed(&root_key).unwrap();
        let issuer = Issuer::new(params, root_key);
        let leaf = |name: &str| {
            let (key, mut params) = (key(), CertificateParams::new(vec![format!("{name}.test")]).unwrap());
            let id = format!("spiffe://cluster.local/ns/default/sa/{name}");
            params.subject_alt_names.push(SanType::URI(id.as_str().try_into().unwrap()));
            params.extended_key_usages =
                vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
            (params.signed_by(&key, &issuer).unwrap(), key)
        };
        let (caller, callee) = (leaf("caller"), leaf("callee"));
        let through = Through::run(|at, app, folder| {
            let mut line = vec!["--workload".to_owned(), "callee".to_owned(), "--inbound-listen".to_owned()];
            line.extend(["--pod-address".to_owned(), at.ip().to_string()]);
            for (option, pem) in [
                ("--identity-cert", callee.0.pem()),
                ("--identity-key", callee.1.serialize_pem()),
                ("--trust-bundle", root.pem()),
            ] {
                let file = folder.join(&option[2..]);
                fs::write(&file, pem).unwrap();
                line.extend([option.to_owned(), file.display().to_string()]);
            }
            (sidecar(at, app), line)
        })
        .unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(root.der().clone()).unwrap();
        let builder =
            ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                .with_protocol_versions(&[&rustls::version::TLS13])
                .unwrap()
                .with_root_certificates(roots);
        let own = PrivateKeyDer::try_from(caller.1.serialize_der()).unwrap();
        let mut config = builder.with_client_auth_cert(vec![caller.0.der().clone()], own).unwrap();
        config.alpn_protocols = vec![b"istio-http/1.1".to_vec()];
        config.resumption = Resumption::disabled();
        (through, Arc::new(config))
    }

    fn sidecar(at: SocketAddr, app: SocketAddr) -> String {
        format!(
            "apiVersion: outrigger.dev/v1alpha1\n\
             kind: Workload\n\
             metadata: {{name: callee, labels: {{app: app}}}}\n\
             spec:\n  serviceAccount: callee\n  address: \"{}\"\n  appAddress: \"{}\"\n  \
             ports: [{{name: http, port: {}, appPort: {}}}]\n",
            at.ip(),
            app.ip(),
            at.port(),
            app.port(),
        )
    }

    /// The preface and empty SETTINGS of a client, and GET / on stream 1: indexed fields, and the authority `a` (RFC 9113 §3.4, RFC 7541 §6).
    const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\
        \x00\x00\x00\x04\x00\x00\x00\x00\x00\
        \x00\x00\x06\x01\x05\x00\x00\x00\x01\x82\x86\x84\x41\x01a";

    /// Reads frames until one of stream 1 ends it.
    fn get_http2(client: &mut TcpStream, buffer: &mut [u8]) -> anyhow::Result<()> {
        client.write_all(HTTP2)?;
        loop {
            client.read_exact(&mut buffer[..9])?;
            let length = usize::from(buffer[1]) << 8 | usize::from(buffer[2]);
            let (kind, ends, stream) = (buffer[3], buffer[4] & 1 == 1, buffer[8]);
            client.read_exact(&mut buffer[..length])?;
            ensure!(kind != 3 && kind != 7, "reset or goodbye");
            if stream == 1 && ends {
                return Ok(());
            }
        }
    }

    /// Bytes from the allocator that each open connection holds at rest after its first answer; the kernel's are not among them.
    fn held(through: &Through, get: impl Fn(&mut TcpStream, &mut [u8]) -> anyhow::Result<()>) -> f64 {
        let at = through.client.peer_addr().unwrap();
        let mut buffer = vec![0; 64 * 1024];
        let mut open = Vec::with_capacity(2 * CONNECTIONS);
        let mut more = || {
            let mut client = TcpStream::connect(at).unwrap();
            get(&mut client, &mut buffer).unwrap();
            open.push(client);
        };
        // What the first ones cost once is not theirs.
        (0..CONNECTIONS).for_each(|_| more());
        let before = at_rest();
        (0..CONNECTIONS).for_each(|_| more());
        (at_rest() - before) as f64 / CONNECTIONS as f64
    }

    /// Bytes held by the whole process, once nothing has been given back or taken for a second: a proxy of another test may still be ending.
    fn at_rest() -> isize {
        let held = || {
            let all = ALLOCATOR.stats();
            all.bytes_allocated as isize - all.bytes_deallocated as isize
        };
        let (mut last, mut same) = (held(), 0);
        for _ in 0..600 {
            thread::sleep(Duration::from_millis(100));
            let now = held();
            // What the bookkeeping has in hand comes and goes.
            same = if now.abs_diff(last) < 2048 { same + 1 } else { 0 };
            last = now;
            if same == 10 {
                return now;
            }
        }
        panic!("still changing after a minute");
    }

    /// As measured in November 2026 (1,513, 4,390 and 9,546), and half of that again. In debug builds futures are larger than in what is shipped.
    #[test]
    fn an_idle_connection_holds_little() {
        let _alone = alone();
        let gateway = Through::start().unwrap();
        let (http1, http2) = (held(&gateway, get), held(&gateway, get_http2));
        let (callee, config) = callee();
        let mtls = held(&callee, |client, buffer| {
            let name = ServerName::try_from("callee.test").expect("a name");
            // Dropped without a word, so that only the proxy's side is held.
            let mut tls = ClientConnection::new(config.clone(), name)?;
            get(&mut rustls::Stream::new(&mut tls, client), buffer)
        });
        println!("bytes an idle connection: HTTP/1.1 {http1:.0}, mTLS {mtls:.0}, HTTP/2 {http2:.0}");
        assert!((100.0..2_270.0).contains(&http1), "HTTP/1.1: {http1}");
        assert!((100.0..6_590.0).contains(&http2), "HTTP/2: {http2}");
        assert!((100.0..14_300.0).contains(&mtls), "mTLS: {mtls}");
    }

    /// A request is one reason to wake up, its answer the other: no timer, no channel between tasks, no other thread. Fewer where one comes
    /// before the worker rests; bookkeeping, twice a second, is not its.
    #[test]
    fn an_exchange_wakes_its_worker_twice() {
        const EXCHANGES: u64 = 1_000;
        let _alone = alone();
        let mut through = Through::start().unwrap();
        for _ in 0..10 {
            through.once().unwrap();
        }
        let before = wakeups().unwrap();
        for _ in 0..EXCHANGES {
            through.once().unwrap();
        }
        let each = (wakeups().unwrap() - before) as f64 / EXCHANGES as f64;
        println!("wake-ups an exchange: {each:.2}");
        assert!(each > 0.0 && each <= 2.5, "{each}");
    }
}
