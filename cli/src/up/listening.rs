//! Where the processes of a group listen, as the operating system knows it: to tell an app that is not reachable where it is instead.
//!
//! Reads /proc only. What cannot be read (a process of another user) is left out.

use std::collections::HashSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The TCP addresses that processes of this group listen on, each once.
pub fn addresses(group: i32) -> Vec<SocketAddr> {
    let sockets = sockets_of(group);
    let mut found: Vec<SocketAddr> = ["/proc/self/net/tcp", "/proc/self/net/tcp6"]
        .into_iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| table.lines().filter_map(listener).collect::<Vec<_>>())
        .filter(|(_, inode)| sockets.contains(inode))
        .map(|(address, _)| address)
        .collect();
    found.sort();
    found.dedup();
    found
}

/// Inodes of the sockets that processes of the group have open.
fn sockets_of(group: i32) -> HashSet<u64> {
    let Ok(processes) = fs::read_dir("/proc") else { return HashSet::new() };
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| group_of(*pid) == Some(group))
        .filter_map(|pid| fs::read_dir(format!("/proc/{pid}/fd")).ok())
        .flatten()
        .filter_map(|descriptor| {
            let target = fs::read_link(descriptor.ok()?.path()).ok()?;
            target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
        })
        .collect()
}

fn group_of(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // `PID (NAME) STATE PPID PGRP`; a name may contain anything.
    stat.rsplit_once(") ")?.1.split(' ').nth(2)?.parse().ok()
}

/// Address and inode of a line of /proc/net/tcp or tcp6 (proc(5)), if it is of a listening socket.
fn listener(line: &str) -> Option<(SocketAddr, u64)> {
    let mut fields = line.split_whitespace().skip(1);
    let (local, _remote, state) = (fields.next()?, fields.next()?, fields.next()?);
    if state != "0A" {
        return None;
    }
    let inode = fields.nth(5)?.parse().ok()?;
    let (address, port) = local.split_once(':')?;
    Some((SocketAddr::new(ip(address)?, u16::from_str_radix(port, 16).ok()?), inode))
}

/// Words of 32 bits in the machine's byte order, in hexadecimal.
fn ip(hex: &str) -> Option<IpAddr> {
    let words: Vec<[u8; 4]> = (0..hex.len() / 8)
        .map(|n| u32::from_str_radix(hex.get(n * 8..n * 8 + 8)?, 16).ok().map(u32::to_ne_bytes))
        .collect::<Option<_>>()?;
    match words.as_slice() {
        [word] => Some(Ipv4Addr::from(*word).into()),
        [_, _, _, _] => {
            let bytes: [u8; 16] = words.concat().try_into().ok()?;
            Some(Ipv6Addr::from(bytes).to_canonical())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn our_own_listeners_are_found_and_closed_ones_are_not() {
        let group = nix::unistd::getpgrp().as_raw();
        let open = [
            TcpListener::bind("127.0.0.1:0").expect("a port"),
            TcpListener::bind("0.0.0.0:0").expect("a port"),
        ]
        .map(|listener| (listener.local_addr().expect("bound"), listener));
        let found = addresses(group);
        for (address, _) in &open {
            assert!(found.contains(address), "{address} is not among {found:?}");
        }
        let closed = open.map(|(address, _)| address);
        let found = addresses(group);
        assert!(closed.iter().all(|address| !found.contains(address)), "{closed:?} are among {found:?}");
    }

    #[test]
    fn lines_of_the_kernel_are_read() {
        let line = "   2: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1 x";
        let (address, inode) = listener(line).expect("a listener");
        assert_eq!((address.port(), inode), (8080, 4711));
        if cfg!(target_endian = "little") {
            assert_eq!(address.ip(), IpAddr::from([127, 0, 0, 1]));
            assert_eq!(ip("00000000000000000000000001000000"), Some(Ipv6Addr::LOCALHOST.into()));
        }
        assert_eq!(listener(&line.replace(" 0A ", " 01 ")), None, "not listening");
        assert_eq!(listener("sl local_address rem_address st"), None);
    }
}
