//! Where a redirected connection was going before a rule of the kernel sent it here.

use std::net::SocketAddr;

use socket2::SockRef;
use tokio::net::TcpStream;

/// `None` where the connection was made to us: nothing redirected it.
///
/// Without connection tracking the kernel answers with an error, with it but without redirection with our own address: both mean "direct",
/// and the second, taken for a destination, would make us call ourselves for ever.
pub fn original_dst(stream: &TcpStream) -> Option<SocketAddr> {
    let local = stream.local_addr().ok()?;
    let socket = SockRef::from(stream);
    // An IPv4 connection accepted by an IPv6 socket has an IPv4-mapped address and is tracked as IPv4.
    let original = match local.ip().to_canonical() {
        std::net::IpAddr::V4(_) => socket.original_dst_v4(),
        std::net::IpAddr::V6(_) => socket.original_dst_v6(),
    };
    let original = canonical(original.ok()?.as_socket()?);
    (original != canonical(local)).then_some(original)
}

pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_direct_connection_has_no_other_destination() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = tokio::net::TcpListener::bind(address).await else {
                eprintln!("skipped: {address} cannot be bound here");
                continue;
            };
            let at = listener.local_addr().unwrap();
            let (client, accepted) = tokio::join!(TcpStream::connect(at), listener.accept());
            assert_eq!(original_dst(&accepted.unwrap().0), None, "{at}");
            drop(client);
        }
    }
}
