//! Every promise with a time in it, measured at the promise itself.
//!
//! A drill is one function in a file here; it makes its ground, provokes the event and returns a [`Row`] for each promise it
//! touches. To add one: write the function, and name it in [`DRILLS`].

mod detection;
mod edits;
mod endpoints;
mod first_use;
mod harm;
mod leaves;
mod leaving;
mod revoking;
mod starting;

use std::net::IpAddr;
use std::pin::Pin;
use std::time::Duration;

use anyhow::{Context, ensure};
use comfy_table::Table;
use serde_json::Value;

use crate::ground::Programs;

/// Check every promise with a time in it
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only these drills; without any, all of them.
    names: Vec<String>,
    /// How often each is done; the slowest counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

/// What a drill found of one promise.
#[derive(Clone, Debug)]
pub struct Row {
    /// In words, the same in every round.
    pub promise: &'static str,
    /// The promise.
    pub within: Duration,
    pub measured: Duration,
}

/// A name, and what measures.
type Drill = (&'static str, fn(&Programs) -> Measuring<'_>);
type Measuring<'a> = Pin<Box<dyn Future<Output = anyhow::Result<Vec<Row>>> + 'a>>;

/// In the order of a mesh's life.
const DRILLS: [Drill; 12] = [
    ("start", |programs| Box::pin(starting::start(programs))),
    ("disk-copy", |programs| Box::pin(starting::disk_copy(programs))),
    ("first-use", |programs| Box::pin(first_use::run(programs))),
    ("weight", |programs| Box::pin(edits::weight(programs))),
    ("endpoint-moves", |programs| Box::pin(edits::endpoint_moves(programs))),
    ("endpoint-dies", |programs| Box::pin(endpoints::dies(programs))),
    ("none-ready", |programs| Box::pin(endpoints::none_ready(programs))),
    ("detection", |programs| Box::pin(detection::run(programs))),
    ("leaves", |programs| Box::pin(leaves::run(programs))),
    ("harm", |programs| Box::pin(harm::run(programs))),
    ("revoked", |programs| Box::pin(revoking::run(programs))),
    ("drain", |programs| Box::pin(leaving::run(programs))),
];

pub async fn run(programs: &Programs, args: Args) -> anyhow::Result<bool> {
    for name in &args.names {
        let known = DRILLS.map(|(known, _)| known);
        ensure!(known.contains(&name.as_str()), "no drill {name}; there are {}", known.join(", "));
    }
    let chosen = DRILLS
        .into_iter()
        .filter(|(name, _)| args.names.is_empty() || args.names.iter().any(|chosen| chosen == name));
    let mut table = Table::new();
    table.set_header(["drill", "promise", "within", "measured", ""]);
    let mut all_met = true;
    for (name, drill) in chosen {
        let mut slowest: Vec<Row> = Vec::new();
        for round in 1..=args.rounds.max(1) {
            eprintln!("{name}: round {round}");
            for row in drill(programs).await.with_context(|| format!("drill {name}"))? {
                match slowest.iter_mut().find(|known| known.promise == row.promise) {
                    Some(known) => known.measured = known.measured.max(row.measured),
                    None => slowest.push(row),
                }
            }
        }
        for row in slowest {
            let met = row.measured <= row.within;
            all_met &= met;
            table.add_row([
                name.to_owned(),
                row.promise.to_owned(),
                milliseconds(row.within),
                milliseconds(row.measured),
                if met { "met" } else { "NOT MET" }.to_owned(),
            ]);
        }
    }
    println!("{table}");
    Ok(all_met)
}

/// Where an instance is reached, by `outrigger status`.
fn address(status: &Value, instance: &str) -> anyhow::Result<IpAddr> {
    let workloads = status["workloads"].as_array().context("no workloads")?;
    let found = workloads.iter().find(|one| one["name"] == instance);
    let address = found.and_then(|one| one["address"].as_str()).with_context(|| format!("no {instance}"))?;
    Ok(address.parse()?)
}

fn milliseconds(time: Duration) -> String {
    format!("{:.0} ms", (time.as_secs_f64() * 1_000.0).ceil())
}
