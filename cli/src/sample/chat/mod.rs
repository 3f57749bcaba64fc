//! `chat`: a small gRPC service with all four kinds of calls, and a client that makes them.
//!
//! The messages are those of `docs/examples/grpc/chat.proto`, written by hand so that no protoc is needed.

mod client;
mod dial;
mod messages;
mod rooms;
mod server;
mod wiring;

#[cfg(test)]
mod tests;

/// A gRPC chat: the server, or a client that makes every kind of call
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    side: Side,
}

#[derive(Debug, clap::Subcommand)]
enum Side {
    Server(server::Args),
    Client(client::Args),
}

pub async fn run(args: Args) -> anyhow::Result<()> {
    match args.side {
        Side::Server(args) => server::run(args).await,
        Side::Client(args) => client::run(args).await,
    }
}

/// The usual port of gRPC examples.
const PORT: u16 = 50051;

/// How every path begins: the service's full name.
const SERVICE: &str = "/chat.v1.Chat/";
