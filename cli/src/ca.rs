//! `outrigger ca`: the roots of the mesh, seen and replaced.
//!
//! Works on the directory a control plane keeps its CA in, running or not: control planes look at it every second.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use comfy_table::{ContentArrangement, presets};
use outrigger_config::manifest::mesh::CertificateSettings;
use outrigger_config::xds::Role;
use outrigger_control::ca::{
    Authority, CaStore, Caller, Directory, NotNow, Phase, State, Step, TokenSigner, certificate, fingerprint,
    x509,
};
use serde::Serialize;

use crate::output::{Format, print};
use crate::up::socket;

/// The certification authority of the mesh: see it, replace its root, take in another.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// What is believed, what signs, until when, and how far a rotation is.
    Show {
        #[command(flatten)]
        at: At,
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Replace the root. Without --phase the control plane takes the later steps by itself when it is time.
    RotateRoot {
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        pace: Pace,
        /// Take one step by hand: `add` the new root, let it `sign`, `remove` the old one.
        #[arg(long, value_enum)]
        phase: Option<PhaseArg>,
        /// Take the step although connections may break for it.
        #[arg(long, requires = "phase")]
        force: bool,
    },
    /// Take in a CA made elsewhere: the first one, a new intermediate of the root there is, or a new root, which begins a rotation.
    Import {
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        pace: Pace,
        /// PEM: what signs first, what signed that, up to the root, which has to be among them.
        #[arg(long, value_name = "FILE")]
        cert: PathBuf,
        /// PEM: the key of the first certificate.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
    },
    /// Sign a token for one proxy, to standard output: for proxies that neither `outrigger up` nor Kubernetes gives one.
    Token {
        /// The key the control plane knows (its --token-key; token.key in its --ca-dir).
        #[arg(long, value_name = "FILE")]
        token_key: PathBuf,
        #[arg(long, default_value = "default")]
        namespace: String,
        /// The Workload the proxy stands beside.
        #[arg(long, required_unless_present = "gateway", conflicts_with = "gateway")]
        workload: Option<String>,
        /// The Gateway the proxy is.
        #[arg(long)]
        gateway: Option<String>,
        /// Whose certificate it may have.
        #[arg(long, default_value = "default")]
        service_account: String,
        /// How long it is good for.
        #[arg(long, value_parser = duration, default_value = "1h")]
        life: Duration,
    },
    /// Write the roots that are believed, as PEM, to standard output.
    ExportRoot {
        #[command(flatten)]
        at: At,
    },
}

#[derive(Debug, clap::Args)]
struct At {
    /// Where the control plane keeps its CA. Default: where that of the mesh does which `outrigger up` runs.
    #[arg(long, value_name = "DIR")]
    ca_dir: Option<PathBuf>,
    /// Second byte of the loopback network of that mesh, where several run.
    #[arg(long, conflicts_with = "ca_dir")]
    network: Option<u8>,
}

#[derive(Debug, clap::Args)]
struct Pace {
    /// How long everybody has, at the least, to hear of a step before the next.
    #[arg(long, value_parser = duration, default_value = "10m")]
    settle: Duration,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum PhaseArg {
    Add,
    Sign,
    Remove,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match args.command {
            Command::Show { at, output } => show(&at, output).await,
            Command::RotateRoot { at, pace, phase, force } => rotate(&at, &pace, phase, force).await,
            Command::Import { at, pace, cert, key } => import(&at, &pace, &cert, &key).await,
            Command::Token { token_key, namespace, workload, gateway, service_account, life } => {
                let namespace = namespace.into();
                let role = match (workload, gateway) {
                    (Some(workload), _) => Role::Sidecar { namespace, workload: workload.into() },
                    (None, Some(name)) => Role::Gateway { namespace, name: name.into() },
                    (None, None) => bail!("--workload or --gateway is needed"),
                };
                let caller = Caller { role, service_account: service_account.into() };
                println!("{}", TokenSigner::existing(&token_key)?.sign(&caller, life)?);
                Ok(())
            }
            Command::ExportRoot { at } => export(&at).await,
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

/// As people and scripts read it; no key.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    roots: Vec<RootReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rotation: Option<RotationReport>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct RootReport {
    id: String,
    subject: String,
    /// SHA-256 of the certificate.
    fingerprint: String,
    expires: String,
    signs: bool,
    /// Of what signs below the root; absent where the root itself does.
    #[serde(skip_serializing_if = "Option::is_none")]
    intermediate_expires: Option<String>,
    /// Whether new intermediates can be made here.
    has_root_key: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct RotationReport {
    to: String,
    phase: &'static str,
    automatic: bool,
    /// What comes next, and when at the earliest.
    next: String,
}

async fn show(at: &At, output: Format) -> anyhow::Result<()> {
    let (_, stored) = at.load().await?;
    let report = Report::of(&stored, SystemTime::now())?;
    print(output, &report, |report| {
        let mut table = comfy_table::Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(["ROOT", "SIGNS", "EXPIRES", "INTERMEDIATE EXPIRES", "ROOT KEY", "SHA-256"]);
        for root in &report.roots {
            table.add_row([
                root.subject.as_str(),
                if root.signs { "yes" } else { "no" },
                &root.expires,
                root.intermediate_expires.as_deref().unwrap_or("-"),
                if root.has_root_key { "here" } else { "elsewhere" },
                &root.fingerprint[..16],
            ]);
        }
        let rotation = report.rotation.as_ref().map(|rotation| {
            format!("\n\nRotation to {}: {}. Next: {}", rotation.to, rotation.phase, rotation.next)
        });
        format!("{table}{}", rotation.unwrap_or_default())
    })
}

impl Report {
    fn of(state: &State, now: SystemTime) -> anyhow::Result<Self> {
        let signing = &state.signing()?.id;
        let root = |authority: &Authority| -> anyhow::Result<RootReport> {
            let root = authority.root_certificate()?;
            let first = authority.chain.first().map(|pem| certificate(pem)).transpose()?;
            Ok(RootReport {
                id: authority.id.clone(),
                subject: x509::parse(&root)?.subject().to_string(),
                fingerprint: fingerprint(&root),
                expires: at_time(x509::not_after(&root)?),
                signs: authority.id == *signing,
                intermediate_expires: first.map(|first| x509::not_after(&first).map(at_time)).transpose()?,
                has_root_key: authority.root_key.is_some(),
            })
        };
        let rotation = state.rotation().map(|rotation| {
            let (phase, step, outcome) = match rotation.phase {
                Phase::Added => {
                    ("the new root is believed, the old one signs", "sign", state.sign(false, now))
                }
                Phase::Signing => {
                    ("the new root signs, the old one is believed", "remove", state.remove(false, now))
                }
            };
            let when = match outcome {
                Ok(_) => "now".to_owned(),
                Err(NotNow::Unheard(seconds) | NotNow::InUse(seconds)) => {
                    format!("in {}", spoken(Duration::from_secs(seconds)))
                }
                Err(other) => other.to_string(),
            };
            let by = if rotation.automatic { "by the control plane" } else { "by hand" };
            RotationReport {
                to: rotation.to.clone(),
                phase,
                automatic: rotation.automatic,
                next: format!("{step}, {when} at the earliest, {by}"),
            }
        });
        Ok(Self { roots: state.authorities().iter().map(root).collect::<Result<_, _>>()?, rotation })
    }
}

async fn rotate(at: &At, pace: &Pace, phase: Option<PhaseArg>, force: bool) -> anyhow::Result<()> {
    let now = SystemTime::now();
    let step = match phase {
        None | Some(PhaseArg::Add) => Step::Add,
        Some(PhaseArg::Sign) => Step::Sign,
        Some(PhaseArg::Remove) => Step::Remove,
    };
    let new = Authority::make(now)?;
    let next = at
        .change(|state| {
            Ok(match step {
                Step::Add => state.add(new.clone(), pace.settle, phase.is_none(), now)?,
                Step::Sign => state.sign(force, now)?,
                Step::Remove => state.remove(force, now)?,
            })
        })
        .await?;
    tell(&next, step, now);
    Ok(())
}

async fn import(at: &At, pace: &Pace, cert: &PathBuf, key: &PathBuf) -> anyhow::Result<()> {
    let now = SystemTime::now();
    let read =
        |path: &PathBuf| std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()));
    let given = Authority::given(&read(cert)?, &read(key)?, now)
        .with_context(|| format!("{} with {}", cert.display(), key.display()))?;
    let path = at.path().await?;
    let store = Directory::open(&path)?;
    if store.load().await?.is_none() {
        let state = State::new(given, CertificateSettings::default().lifetime.get());
        if !store.replace(None, &state).await? {
            bail!("somebody else has just made a CA in {}", path.display());
        }
        println!("It is the CA of {} from now on.", path.display());
        return Ok(());
    }
    let mut begun = false;
    let next = at
        .change(|state| {
            let same_root = state.with_issuer(given.clone());
            begun = same_root.is_none();
            Ok(match same_root {
                Some(next) => next,
                None => state.add(given.clone(), pace.settle, true, now)?,
            })
        })
        .await?;
    if begun {
        tell(&next, Step::Add, now);
    } else {
        println!("Its root is believed already: it signs for that from now on.");
    }
    Ok(())
}

async fn export(at: &At) -> anyhow::Result<()> {
    let (_, state) = at.load().await?;
    let pem: String = state.roots()?.iter().map(|root| root.pem()).collect();
    std::io::stdout().write_all(pem.as_bytes())?;
    Ok(())
}

fn tell(next: &State, step: Step, now: SystemTime) {
    match step {
        Step::Add => println!("The new root is believed. The old one signs until everybody has heard of it."),
        Step::Sign => println!("The new root signs. The old one is believed while certificates of it live."),
        Step::Remove => println!("The old root is believed no longer. The rotation is over."),
    }
    if let Some(rotation) = Report::of(next, now).ok().and_then(|report| report.rotation) {
        println!("Next: {}.", rotation.next);
    }
}

impl At {
    async fn path(&self) -> anyhow::Result<PathBuf> {
        if let Some(path) = &self.ca_dir {
            return Ok(path.clone());
        }
        let run_dir = socket::choose(self.network, None).await.context("--ca-dir is not given")?;
        let mesh = socket::status(&run_dir).await?;
        mesh.control.map(|control| control.ca_dir).context("the mesh is ending")
    }

    async fn load(&self) -> anyhow::Result<(Directory, State)> {
        let path = self.path().await?;
        // Not made by looking at it.
        if !path.is_dir() {
            bail!("{} is not a directory", path.display());
        }
        let store = Directory::open(&path)?;
        let stored = store.load().await?.with_context(|| format!("there is no CA in {}", path.display()))?;
        Ok((store, stored.state))
    }

    /// Makes `next` of what there is, again if somebody else was faster.
    async fn change(&self, mut next: impl FnMut(&State) -> anyhow::Result<State>) -> anyhow::Result<State> {
        for _ in 0..TRIES {
            let (store, _) = self.load().await?;
            let Some(stored) = store.load().await? else { continue };
            let state = next(&stored.state)?;
            if store.replace(Some(&stored.revision), &state).await? {
                return Ok(state);
            }
        }
        bail!("others keep changing the CA; try again");
    }
}

/// Control planes change the state once in months, and in a rotation in minutes.
const TRIES: usize = 5;

fn duration(text: &str) -> Result<Duration, String> {
    let duration = outrigger_config::manifest::value::Duration::try_from(text);
    duration.map(Duration::from).map_err(|error| error.to_string())
}

fn spoken(duration: Duration) -> String {
    let minutes = duration.as_secs().div_ceil(60);
    match duration.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        120..7_200 => format!("{minutes} min"),
        seconds => format!("{} h", seconds.div_ceil(3_600)),
    }
}

/// RFC 3339, UTC.
fn at_time(at: SystemTime) -> String {
    time::OffsetDateTime::from(at)
        .format(&time::format_description::well_known::Rfc3339)
        .unwrap_or_else(|_| "?".to_owned())
}
