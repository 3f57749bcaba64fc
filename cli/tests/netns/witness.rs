//! A server that tells its clients whom they dialled and where they ended.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    thread::JoinHandle,
};

use socket2::{Domain, SockRef, Socket, Type};

use crate::network::Namespace;

/// Listens on one port of a namespace, on all addresses of both families, until dropped. Answers HTTP with
/// `PORT for DESTINATION` to a client that was redirected, and `PORT direct` to one that dialled it.
#[derive(Debug)]
pub struct Witness {
    listeners: Vec<TcpListener>,
    threads: Vec<JoinHandle<()>>,
}

impl Witness {
    pub fn new(namespace: &Namespace, port: u16) -> Self {
        let addresses = [(Ipv4Addr::UNSPECIFIED, port).into(), (Ipv6Addr::UNSPECIFIED, port).into()];
        let listeners: Vec<_> = namespace.enter(|| addresses.map(listen)).into();
        let threads = listeners.iter().map(|each| each.try_clone().expect("a descriptor is free"));
        let threads = threads.map(|listener| std::thread::spawn(move || serve(&listener, port))).collect();
        Self { listeners, threads }
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        for listener in &self.listeners {
            // Wakes the thread out of accept.
            let _ = SockRef::from(listener).shutdown(Shutdown::Both);
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// The body of the answer on a connection that asks nothing.
pub fn read_answer(mut stream: TcpStream) -> String {
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("the witness reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the witness answers");
    answer.split_once("\r\n\r\n").expect("the answer has a head").1.to_owned()
}

fn listen(address: SocketAddr) -> TcpListener {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
    socket.set_reuse_address(true).expect("a new socket");
    if address.is_ipv6() {
        socket.set_only_v6(true).expect("a new socket");
    }
    socket.bind(&address.into()).expect("the port is free in a new namespace");
    socket.listen(128).expect("a bound socket");
    socket.into()
}

fn serve(listener: &TcpListener, port: u16) {
    while let Ok((mut stream, _)) = listener.accept() {
        let answer = match dialled(&stream) {
            Some(destination) => format!("{port} for {destination}"),
            None => format!("{port} direct"),
        };
        let mut request = [0; 4096];
        let head =
            format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", answer.len());
        // A client that went away has had its say.
        let _ = stream.read(&mut request).and_then(|_| stream.write_all((head + &answer).as_bytes()));
    }
}

/// Where a redirected client wanted to go. `None` if it came here of its own accord.
fn dialled(stream: &TcpStream) -> Option<SocketAddr> {
    let socket = SockRef::from(stream);
    let local = stream.local_addr().expect("a connected socket");
    let original = if local.is_ipv4() { socket.original_dst_v4() } else { socket.original_dst_v6() };
    // Without any rule in the namespace the kernel has no record of the connection.
    let original = original.ok()?.as_socket()?;
    (original != local).then_some(original)
}
