//! `outrigger sample …`: the apps of `docs/examples`, and what tests and demos call.
//!
//! Ordinary apps on purpose: they know nothing of the mesh but the proxy variables every HTTP client knows. They share
//! how they listen and stop (`listen`), how they call others (`client`) and what they pass on (`headers`).

use std::process::ExitCode;

use clap::Subcommand;

mod body;
mod bookinfo;
mod chat;
mod client;
mod echo;
#[cfg(test)]
mod examples;
mod headers;
mod listen;

/// Run one of the sample apps of docs/examples
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    app: App,
}

#[derive(Debug, Subcommand)]
enum App {
    Productpage(bookinfo::productpage::Args),
    Details(bookinfo::details::Args),
    Reviews(bookinfo::reviews::Args),
    Ratings(bookinfo::ratings::Args),
    Echo(echo::Args),
    Chat(chat::Args),
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    // One thread: a sample is one small app instance, and many of them share a laptop.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        match args.app {
            App::Productpage(args) => bookinfo::productpage::run(args).await,
            App::Details(args) => bookinfo::details::run(args).await,
            App::Reviews(args) => bookinfo::reviews::run(args).await,
            App::Ratings(args) => bookinfo::ratings::run(args).await,
            App::Echo(args) => echo::run(args).await,
            App::Chat(args) => chat::run(args).await,
        }
    });
    // What is still open after the drain is cut; a blocked name lookup must not hold the process either.
    runtime.shutdown_background();
    result.map(|()| ExitCode::SUCCESS)
}
