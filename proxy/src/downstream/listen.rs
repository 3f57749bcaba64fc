//! Listening sockets: bound before any worker starts, one for each worker on the same address.
//!
//! Owns socket options and the check that nobody else has the address. `SO_REUSEPORT` lets any process of the same user join, in silence
//! and for half of the connections, so the address is first bound without it.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::TcpStream;

use crate::socket;

/// Waiting connections the kernel holds for one socket; bounded again by `net.core.somaxconn`.
pub(super) const BACKLOG: i32 = 4096;

/// `count` sockets on one address; port 0 chooses a port, the same for all.
pub fn bind(address: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    let named =
        |error: io::Error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"));
    if count == 1 {
        return Ok(vec![listening(address, false).map_err(named)?]);
    }
    if address.port() != 0 {
        drop(listening(address, false).map_err(named)?);
    }
    let first = listening(address, true).map_err(named)?;
    let address = first.local_addr()?;
    let mut sockets = vec![first];
    for _ in 1..count {
        sockets.push(listening(address, true).map_err(named)?);
    }
    Ok(sockets)
}

fn listening(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // IPv4 has sockets of its own.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    // Accepted connections inherit these.
    socket::set_options(&SockRef::from(&socket))?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Makes closing a connection a reset: its peer learns that what it sent was not taken.
pub fn reset_on_close(stream: &TcpStream) {
    // An error says that the connection is gone already.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_of_one_address_share_a_port_that_nobody_else_gets() {
        let sockets = bind("127.0.0.1:0".parse().unwrap(), 3).unwrap();
        let address = sockets[0].local_addr().unwrap();
        assert!(sockets.iter().all(|socket| socket.local_addr().unwrap() == address));
        for count in [1, 2] {
            let error = bind(address, count).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
            assert!(error.to_string().contains(&address.to_string()), "{error}");
        }
    }

    #[tokio::test]
    async fn accepted_connections_have_the_options() {
        let listener = bind("127.0.0.1:0".parse().unwrap(), 1).unwrap().remove(0);
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let socket = SockRef::from(&accepted);
        assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(8));
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(socket::UNANSWERED));
        drop(client);
    }
}
