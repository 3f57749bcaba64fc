//! Whole proxies over real loopback sockets: scripted apps behind them, real codecs and plain bytes in front.

mod access;
mod admin;
mod balancing;
mod basics;
mod breaking;
mod bytes;
mod conditions;
mod deadlines;
mod destinations;
mod failing;
mod faults;
mod floods;
mod goaways;
mod grpc;
mod harness;
mod hedges;
mod http1;
mod identity;
mod interim;
mod limits;
mod ports;
mod replays;
mod retries;
mod routes;
mod shedding;
mod tunnels;
