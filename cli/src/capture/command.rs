//! The command line of `outrigger capture`, and which tool does the work.

use std::{net::IpAddr, path::Path, process::ExitCode};

use anyhow::{Context, Result, bail};
use clap::{Subcommand, ValueEnum, value_parser};
use ipnet::IpNet;
use serde::Serialize;

use super::{
    iptables::Iptables,
    loaded::{Loaded, Present},
    nft::Nft,
    rules::{Capture, Family},
};

/// Redirect a pod's TCP traffic to the proxy beside it
///
/// Works on the network namespace it is started in and needs CAP_NET_ADMIN there, as an init container has it.
/// Never run it on a host's own network.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Load the rules, in place of any that were loaded before
    Apply(Apply),
    /// Delete our rules and no others
    Remove,
    /// Print the rules that are loaded; exit status 1 if they are missing or incomplete
    Show(Show),
}

#[derive(Debug, clap::Args)]
struct Apply {
    /// User id the proxy runs under; its own connections are not redirected
    #[arg(long, value_name = "UID", default_value_t = 1337, value_parser = value_parser!(u32).range(1..=MAX_UID))]
    proxy_uid: u32,
    /// Ports of the pod that are reached directly, besides 15000 and 15020
    #[arg(long, value_name = "PORT,...", value_delimiter = ',', value_parser = value_parser!(u16).range(1..))]
    exclude_inbound_ports: Vec<u16>,
    /// Destination ports that are dialled directly
    #[arg(long, value_name = "PORT,...", value_delimiter = ',', value_parser = value_parser!(u16).range(1..))]
    exclude_outbound_ports: Vec<u16>,
    /// Destinations that are dialled directly: addresses or CIDRs of either family
    #[arg(long, value_name = "CIDR,...", value_delimiter = ',', value_parser = cidr)]
    exclude_outbound_cidrs: Vec<IpNet>,
    /// Whether IPv6 is redirected: wherever the kernel has it, or never
    #[arg(long, value_enum, default_value_t = Ipv6::Auto)]
    ipv6: Ipv6,
    /// The tool that loads the rules; `auto` takes nftables where it works, else iptables
    #[arg(long, value_enum, default_value_t = Choice::Auto)]
    backend: Choice,
    /// Print what would be loaded and load nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, clap::Args)]
struct Show {
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Ipv6 {
    Auto,
    Off,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Choice {
    Auto,
    Nft,
    Iptables,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Table,
    Json,
    Yaml,
}

pub fn run(args: Args) -> Result<ExitCode> {
    // Without it nft lists nothing and calls that a success.
    if !may_administer_network()? {
        bail!(
            "needs CAP_NET_ADMIN in this network namespace: run as root, or give the init container that capability"
        );
    }
    match args.action {
        Action::Apply(args) => apply(args),
        Action::Remove => remove(),
        Action::Show(args) => show(args.output),
    }
}

fn apply(args: Apply) -> Result<ExitCode> {
    let choice = args.backend;
    let dry_run = args.dry_run;
    let capture = args.capture();
    let mut backends = Backend::find();
    let chosen = backends.take(choice)?;
    if dry_run {
        print!("{}", chosen.script(&capture)?);
        return Ok(ExitCode::SUCCESS);
    }
    chosen.apply(&capture)?;
    // What another tool loaded earlier would stand beside the new rules. It goes last: at no moment is there none.
    for other in backends.usable {
        other.remove()?;
    }
    let families = capture.families().iter().map(|family| family.name()).collect::<Vec<_>>();
    println!("captured {} with {}", families.join(" and "), chosen.name());
    Ok(ExitCode::SUCCESS)
}

fn remove() -> Result<ExitCode> {
    let mut removed = vec![];
    for backend in Backend::find().at_least_one()? {
        if backend.remove()? {
            removed.push(backend.name());
        }
    }
    match removed.as_slice() {
        [] => println!("nothing was captured"),
        tools => println!("removed the rules of {}", tools.join(" and ")),
    }
    Ok(ExitCode::SUCCESS)
}

fn show(format: Format) -> Result<ExitCode> {
    let mut loaded = vec![];
    for backend in Backend::find().at_least_one()? {
        loaded.extend(backend.loaded()?);
    }
    let rows = rows(&loaded);
    match format {
        Format::Table => print!("{}", table(&rows, &loaded)),
        Format::Json => println!("{}", serde_json::to_string_pretty(&rows)?),
        Format::Yaml => print!("{}", serde_yaml::to_string(&rows)?),
    }
    let fine = !loaded.is_empty() && loaded.iter().all(|each| each.present.is_whole());
    Ok(if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Apply {
    fn capture(self) -> Capture {
        // The kernel has this directory exactly when it speaks IPv6.
        let ipv6 = matches!(self.ipv6, Ipv6::Auto) && Path::new("/proc/sys/net/ipv6").is_dir();
        Capture {
            proxy_uid: self.proxy_uid,
            exclude_inbound_ports: self.exclude_inbound_ports.into_iter().collect(),
            exclude_outbound_ports: self.exclude_outbound_ports.into_iter().collect(),
            exclude_outbound_cidrs: IpNet::aggregate(&self.exclude_outbound_cidrs),
            ipv6,
        }
    }
}

/// A way to load rules that works on this machine.
#[derive(Debug)]
enum Backend {
    Nft(Nft),
    Iptables(Iptables),
}

impl Backend {
    /// Everything installed, in order of preference.
    fn find() -> Backends {
        let nft = Nft::find().map(|nft| nft.map(Self::Nft));
        let iptables = Iptables::find().into_iter().map(|iptables| iptables.map(Self::Iptables));
        let mut found = Backends { usable: vec![], problems: vec![] };
        for each in nft.into_iter().chain(iptables) {
            match each {
                Ok(backend) => found.usable.push(backend),
                Err(problem) => found.problems.push(problem),
            }
        }
        found
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Nft(_) => "nft",
            Self::Iptables(iptables) => iptables.name(),
        }
    }

    fn is(&self, choice: Choice) -> bool {
        match choice {
            Choice::Auto => true,
            Choice::Nft => matches!(self, Self::Nft(_)),
            Choice::Iptables => matches!(self, Self::Iptables(_)),
        }
    }

    fn apply(&self, capture: &Capture) -> Result<()> {
        match self {
            Self::Nft(nft) => nft.apply(capture),
            Self::Iptables(iptables) => iptables.apply(capture),
        }
    }

    fn script(&self, capture: &Capture) -> Result<String> {
        match self {
            Self::Nft(nft) => nft.script(capture),
            Self::Iptables(iptables) => {
                let scripts = iptables.scripts(capture)?;
                Ok(scripts.iter().map(|(family, script)| format!("# {}\n{script}", family.name())).collect())
            }
        }
    }

    fn remove(&self) -> Result<bool> {
        match self {
            Self::Nft(nft) => nft.remove(),
            Self::Iptables(iptables) => iptables.remove(),
        }
    }

    fn loaded(&self) -> Result<Vec<Loaded>> {
        match self {
            Self::Nft(nft) => nft.loaded(),
            Self::Iptables(iptables) => iptables.loaded(),
        }
    }
}

/// What was found, and why the rest of what is installed does not work.
#[derive(Debug)]
struct Backends {
    usable: Vec<Backend>,
    problems: Vec<anyhow::Error>,
}

impl Backends {
    /// Takes the first that fits the choice.
    fn take(&mut self, choice: Choice) -> Result<Backend> {
        match self.usable.iter().position(|backend| backend.is(choice)) {
            Some(at) => Ok(self.usable.remove(at)),
            None => Err(self.nothing()),
        }
    }

    fn at_least_one(self) -> Result<Vec<Backend>> {
        if self.usable.is_empty() {
            return Err(self.nothing());
        }
        Ok(self.usable)
    }

    fn nothing(&self) -> anyhow::Error {
        let mut text = String::from(
            "no tool to load rules with works here (looked on PATH for nft and iptables-restore)",
        );
        for problem in &self.problems {
            text.push_str(&format!("\n  {problem:#}"));
        }
        anyhow::anyhow!(text)
    }
}

/// One family in a listing; a family that nothing captures has a row, too.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row<'a> {
    family: &'static str,
    tool: Option<&'static str>,
    #[serde(flatten)]
    present: Present,
    rules: &'a str,
}

fn rows(loaded: &[Loaded]) -> Vec<Row<'_>> {
    let mut rows = vec![];
    for family in Family::ALL {
        let found = loaded.iter().filter(|each| each.family == family);
        rows.extend(found.map(|each| Row {
            family: family.name(),
            tool: Some(each.tool),
            present: each.present,
            rules: &each.rules,
        }));
        if rows.last().is_none_or(|row| row.family != family.name()) {
            rows.push(Row { family: family.name(), tool: None, present: Present::default(), rules: "" });
        }
    }
    rows
}

fn table(rows: &[Row<'_>], loaded: &[Loaded]) -> String {
    let mark = |part: bool| if part { "yes" } else { "no" };
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["FAMILY", "TOOL", "CANARY", "OUTBOUND", "INBOUND", "SELF-CALLS"]);
    for row in rows {
        let Present { canary, outbound, inbound, self_calls } = row.present;
        let tool = row.tool.unwrap_or("-");
        table.add_row([row.family, tool, mark(canary), mark(outbound), mark(inbound), mark(self_calls)]);
    }
    let mut text = format!("{}\n", table.trim_fmt());
    for each in loaded {
        text.push_str(&format!("\n{}", each.rules));
    }
    text
}

/// A CIDR, or a single address.
fn cidr(text: &str) -> Result<IpNet> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.into());
    }
    let Ok(cidr) = text.parse::<IpNet>() else {
        bail!("is neither an address nor a CIDR, such as 10.0.0.0/8 or fd00::/8");
    };
    Ok(cidr.trunc())
}

/// Whether this process holds CAP_NET_ADMIN, which is bit 12 of the effective set (capabilities(7)).
fn may_administer_network() -> Result<bool> {
    let status =
        std::fs::read_to_string("/proc/self/status").context("cannot read this process's capabilities")?;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.context("/proc/self/status names no capabilities")?;
    let effective =
        u64::from_str_radix(effective.trim(), 16).context("/proc/self/status: CapEff is no number")?;
    Ok(effective & (1 << 12) != 0)
}

/// The largest user id; the value above it means "no user".
const MAX_UID: i64 = u32::MAX as i64 - 1;
