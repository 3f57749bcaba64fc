//! Ports for those who have to be told theirs, before they listen.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// Below what kernels give to connections by themselves (32768 and up, ip(7)), which take a port from one moment to the next.
const FIRST: u16 = 16_384;
const COUNT: u16 = 16_000;

/// A port of 127.0.0.1 that nobody listens on and that no connection is given. No two calls of a process get the same one, and
/// processes begin far from each other.
pub fn free() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = (std::process::id() % 250) as u16 * 64;
    (0..COUNT)
        .map(|_| FIRST + (start + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT) % COUNT)
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .expect("one of many is free")
}
