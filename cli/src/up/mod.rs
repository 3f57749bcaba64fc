//! `outrigger up DIR`: a whole mesh on this machine, as ordinary processes of an ordinary user.
//!
//! Owns which processes run and in which order they start and end. What the mesh does is not known here: the control plane reads the
//! same manifests, and `up` adds, in a directory of its own, the addresses and states of the instances it started.
//!
//! `plan` (what has to run) → `mesh` (what runs) → `instance` (one app with its sidecar) → `kept` (one process) → `process`;
//! `children` says what each is started with.
//! All of it runs on the main thread: the parent-death signal of a child is sent when the thread that forked it ends.

mod children;
mod control;
mod environment;
mod instance;
mod kept;
mod listening;
mod mesh;
mod network;
mod output;
mod overlay;
mod plan;
mod process;
mod readiness;
pub mod socket;
mod table;
mod tokens;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::runtime::{Builder, LocalOptions};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;

pub use mesh::MeshReport;
pub use table::{table, trimmed};

use mesh::Mesh;
use network::Network;
use output::Log;
use socket::{Answer, Asked, Request};

use crate::output::Format;
use crate::status;

/// Run the mesh a directory of manifests describes: control plane, apps, sidecars and gateways.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Directories (or files) of manifests.
    #[arg(required = true)]
    manifests: Vec<PathBuf>,
    /// Second byte of the loopback network, 64 to 127; by default the first free one.
    #[arg(long, value_parser = clap::value_parser!(u8).range(64..=127))]
    network: Option<u8>,
    /// Return when everything is ready and go on in the background; `outrigger down` ends it.
    #[arg(long)]
    detach: bool,
    /// How long --detach waits for everything to be ready.
    #[arg(long, default_value = "60", value_name = "SECONDS")]
    timeout: u64,
    /// Set by --detach for the process it leaves behind.
    #[arg(long, hide = true)]
    detached: bool,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut directories = Vec::new();
    for path in &args.manifests {
        directories.push(path.canonicalize().with_context(|| format!("reading {}", path.display()))?);
    }
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    if args.detach {
        return runtime.block_on(detach(&args, directories));
    }
    if args.detached {
        nix::unistd::setsid().context("leaving the terminal")?;
    }
    runtime.block_on(attend(&args, directories))
}

/// Runs the mesh until it is told to end.
async fn attend(args: &Args, directories: Vec<PathBuf>) -> anyhow::Result<ExitCode> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let network = Network::take(&network::run_root()?, args.network)?;
    let run_dir = network.run_dir().to_owned();
    let (first, mut plans, _watch) = plan::watch(&directories)?;
    let log = Log::new(first.longest_name());
    let (asked, mut requests) = mpsc::channel(8);
    socket::serve(&run_dir, asked)?;
    let mesh = Rc::new(Mesh::start(network, directories, log.clone())?);
    log.say(&format!("{}, state in {}", mesh.report().network, run_dir.display()));
    tokio::task::spawn_local({
        let mesh = mesh.clone();
        async move {
            mesh.control_ready().await;
            mesh.follow(first).await;
            while let Some(plan) = plans.recv().await {
                mesh.follow(plan).await;
            }
        }
    });
    let announcing = tokio::task::spawn_local(announce(mesh.clone(), log.clone()));
    let down = loop {
        tokio::select! {
            _ = interrupt.recv() => break None,
            _ = terminate.recv() => break None,
            asked = requests.recv() => match asked {
                Some(Asked { request: Request::Down, answers }) => break Some(answers),
                Some(asked) => { tokio::task::spawn_local(answer(mesh.clone(), asked)); }
                None => bail!("the command socket is gone"),
            },
        }
    };
    announcing.abort();
    log.say("draining everything; once more ends it at once");
    tokio::select! {
        () = mesh.stop() => {}
        _ = interrupt.recv() => log.say("ending at once"),
        _ = terminate.recv() => log.say("ending at once"),
    }
    let _ = std::fs::remove_file(run_dir.join(socket::NAME));
    if let Some(answers) = down {
        let _ = answers.send(Answer::Done("the mesh is down".into())).await;
        drop(answers);
        // The line leaves before the process does.
        tokio::task::yield_now().await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(ExitCode::SUCCESS)
}

async fn answer(mesh: Rc<Mesh>, asked: Asked) {
    let answer = match asked.request {
        Request::Status | Request::Down => Answer::Status(Box::new(mesh.report())),
        Request::Restart { workload } => {
            let answers = asked.answers.clone();
            let progress = |text: &str| {
                // A reader that does not read loses progress, never the answer.
                let _ = answers.try_send(Answer::Progress(text.into()));
            };
            match mesh.restart(&workload, progress).await {
                Ok(names) => Answer::Done(format!("restarted {}", names.join(", "))),
                Err(error) => Answer::Failed(format!("{error:#}")),
            }
        }
    };
    let _ = asked.answers.send(answer).await;
}

/// Shows the table once everything is ready, and again whenever that is so after it was not.
async fn announce(mesh: Rc<Mesh>, log: Log) {
    let mut shown = String::new();
    loop {
        let report = mesh.report();
        if report.settled() && !(report.workloads.is_empty() && report.gateways.is_empty()) {
            let text = table(&report);
            if text != shown {
                log.say(&text);
                shown = text;
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Starts the same command in the background and waits until it says that everything is ready.
async fn detach(args: &Args, directories: Vec<PathBuf>) -> anyhow::Result<ExitCode> {
    let root = network::run_root()?;
    remove_old_logs(&root);
    // Of a name that cannot be another's until it can be named after the process that writes it.
    let begun = root.join(format!("starting-{}.log", std::process::id()));
    let log = std::fs::File::create(&begun).with_context(|| format!("creating {}", begun.display()))?;
    let mut command = std::process::Command::new(std::env::current_exe()?);
    command.arg("up").arg("--detached").args(&directories);
    if let Some(network) = args.network {
        command.args(["--network", &network.to_string()]);
    }
    let mut child =
        command.stdin(std::process::Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
    let log_path = log_of(&root, child.id());
    std::fs::rename(&begun, &log_path).with_context(|| format!("creating {}", log_path.display()))?;
    let deadline = Instant::now() + Duration::from_secs(args.timeout);
    let mut found = None;
    loop {
        if let Some(status) = child.try_wait()? {
            eprint!("{}", std::fs::read_to_string(&log_path).unwrap_or_default());
            let _ = std::fs::remove_file(&log_path);
            bail!("the mesh ended: {status}");
        }
        for run_dir in socket::running()? {
            let Ok(Answer::Status(report)) = socket::ask(&run_dir, &Request::Status, |_| {}).await else {
                continue;
            };
            if report.pid != child.id() {
                continue;
            }
            if report.settled() && !(report.workloads.is_empty() && report.gateways.is_empty()) {
                println!("{}", table(&report));
                println!("log: {}", log_path.display());
                return Ok(ExitCode::SUCCESS);
            }
            found = Some(run_dir);
        }
        if Instant::now() >= deadline {
            if let Some(run_dir) = found {
                // Says what is missing.
                status::show(&run_dir, Format::Table).await?;
            }
            eprintln!(
                "outrigger: not everything is ready after {} s; it goes on in the background (`outrigger status`, `outrigger down`). Log: {}",
                args.timeout,
                log_path.display()
            );
            return Ok(ExitCode::FAILURE);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn log_of(root: &Path, pid: u32) -> PathBuf {
    root.join(format!("up-{pid}.log"))
}

/// Logs of meshes in the background that have ended, which were kept for whoever asks why.
fn remove_old_logs(root: &Path) {
    let Ok(entries) = std::fs::read_dir(root) else { return };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        let pid = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.strip_prefix("up-")?.strip_suffix(".log")?.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            let _ = std::fs::remove_file(path);
        }
    }
}
