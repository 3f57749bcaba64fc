//! Connections arrive.
//!
//! Owns the accept loop and the choice of the worker that gets a connection. The kernel spreads connections by a hash of their addresses,
//! so a few long ones may all fall to one worker: a connection goes, before its first byte is read, to the worker with the fewest open ones
//! when the difference is 2 or more. Never reads a byte.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// What every worker knows of the others.
#[derive(Clone, Debug)]
pub struct Lanes<T>(Arc<[Lane<T>]>);

#[derive(Debug)]
struct Lane<T> {
    open: Arc<AtomicUsize>,
    handed: mpsc::Sender<Handed<T>>,
}

/// An accepted connection on its way to another worker.
#[derive(Debug)]
pub struct Handed<T> {
    stream: std::net::TcpStream,
    peer: SocketAddr,
    listener: T,
    open: Open,
}

/// A connection with the worker it was given to.
#[derive(Debug)]
pub struct Accepted<T> {
    pub stream: TcpStream,
    pub peer: SocketAddr,
    /// What the listening socket is for.
    pub listener: T,
    pub open: Open,
}

/// Counts a connection for its worker until it is dropped.
#[derive(Debug)]
pub struct Open(Arc<AtomicUsize>);

/// Connections on their way to one worker; when that many wait, their accepter keeps the next ones.
const HANDED: usize = 256;

impl<T> Lanes<T> {
    /// One lane for each worker, with the end that the worker receives from.
    pub fn new(workers: usize) -> (Self, Vec<mpsc::Receiver<Handed<T>>>) {
        let (lanes, receivers) = (0..workers)
            .map(|_| {
                let (handed, receiver) = mpsc::channel(HANDED);
                (Lane { open: Arc::default(), handed }, receiver)
            })
            .unzip::<_, _, Vec<_>, _>();
        (Self(lanes.into()), receivers)
    }

    /// Connections now open, of all workers.
    pub fn open(&self) -> usize {
        self.0.iter().map(|lane| lane.open.load(Ordering::Relaxed)).sum()
    }

    /// The connection, if it is to stay with worker `own`.
    fn place(&self, own: usize, stream: TcpStream, peer: SocketAddr, listener: T) -> Option<Accepted<T>> {
        let open = |lane: usize| self.0[lane].open.load(Ordering::Relaxed);
        let least = (0..self.0.len()).min_by_key(|lane| open(*lane)).unwrap_or(own);
        let stays = open(own) < open(least) + 2;
        let room = if stays { None } else { self.0[least].handed.try_reserve().ok() };
        let Some(room) = room else {
            let open = Open::count(&self.0[own].open);
            return Some(Accepted { stream, peer, listener, open });
        };
        match stream.into_std() {
            Ok(stream) => {
                room.send(Handed { stream, peer, listener, open: Open::count(&self.0[least].open) })
            }
            Err(error) => tracing::warn!(%error, "a connection could not be handed to another worker"),
        }
        None
    }
}

impl Open {
    fn count(open: &Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Ordering::Relaxed);
        Self(open.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<T> Handed<T> {
    /// Fails where the worker's runtime cannot watch the socket.
    pub fn accept(self) -> io::Result<Accepted<T>> {
        let Self { stream, peer, listener, open } = self;
        Ok(Accepted { stream: TcpStream::from_std(stream)?, peer, listener, open })
    }
}

/// Accepts until `closed` is done, and then what waits already. `serve` gets what stays with this worker.
pub async fn accept<T: Clone>(
    socket: TcpListener,
    listener: T,
    lanes: Lanes<T>,
    own: usize,
    closed: impl Future<Output = ()>,
    mut serve: impl FnMut(Accepted<T>),
) {
    let mut closed = pin!(closed);
    let mut place = |stream, peer| {
        if let Some(accepted) = lanes.place(own, stream, peer, listener.clone()) {
            serve(accepted);
        }
    };
    let mut pause = SHORTEST_PAUSE;
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            () = closed.as_mut() => {
                waiting(socket).for_each(|(stream, peer)| place(stream, peer));
                return;
            }
        };
        match accepted {
            Ok((stream, peer)) => {
                pause = SHORTEST_PAUSE;
                place(stream, peer);
            }
            Err(error) if concerns_one_connection(&error) => {}
            Err(error) => {
                // Mostly no file descriptor is left. The connection stays in the queue and the socket stays readable:
                // without a pause this loop would spin.
                tracing::warn!(%error, "cannot accept; trying again in {pause:?}");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

/// What the kernel accepted for us before the socket closes, which would reset it: its clients may have sent requests by now.
fn waiting(socket: TcpListener) -> impl Iterator<Item = (TcpStream, SocketAddr)> {
    let socket = socket.into_std().ok();
    let next = move || {
        let (stream, peer) = socket.as_ref()?.accept().ok()?;
        stream.set_nonblocking(true).ok()?;
        Some((TcpStream::from_std(stream).ok()?, peer))
    };
    std::iter::from_fn(next).take(QUEUE)
}

/// More than these cannot have waited; who comes on top came too late.
const QUEUE: usize = super::listen::BACKLOG as usize;

/// accept(2), "Error handling": these are pending errors of the connection, not of the listening socket.
fn concerns_one_connection(error: &io::Error) -> bool {
    let Some(code) = error.raw_os_error() else { return false };
    matches!(
        Errno::from_raw(code),
        Errno::ECONNABORTED
            | Errno::EINTR
            | Errno::ENETDOWN
            | Errno::EPROTO
            | Errno::ENOPROTOOPT
            | Errno::EHOSTDOWN
            | Errno::ENONET
            | Errno::EHOSTUNREACH
            | Errno::EOPNOTSUPP
            | Errno::ENETUNREACH
            | Errno::EPERM // a firewall rule
    )
}

const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    async fn connection(listener: &TcpListener) -> (TcpStream, TcpStream, SocketAddr) {
        let at = listener.local_addr().unwrap();
        let (client, accepted) = tokio::join!(TcpStream::connect(at), listener.accept());
        let (server, peer) = accepted.unwrap();
        (client.unwrap(), server, peer)
    }

    #[tokio::test]
    async fn a_connection_goes_to_the_worker_with_fewer_once_the_difference_is_two() {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (lanes, mut receivers) = Lanes::new(2);
        let (mut kept, mut handed, mut clients) = (Vec::new(), Vec::new(), Vec::new());
        // All arrive at worker 0; 1 has none, so the third is handed over, then every second one.
        for number in 0..8 {
            let (client, stream, peer) = connection(&socket).await;
            clients.push(client);
            match lanes.place(0, stream, peer, number) {
                Some(accepted) => kept.push(accepted),
                None => handed.push(receivers[1].try_recv().unwrap().accept().unwrap()),
            }
            assert!(kept.len().abs_diff(handed.len()) <= 2);
        }
        assert_eq!((kept.len(), handed.len(), lanes.open()), (5, 3, 8));
        kept.truncate(1);
        let (_client, stream, peer) = connection(&socket).await;
        assert!(lanes.place(0, stream, peer, 8).is_some(), "what ended makes room");
        assert_eq!(lanes.open(), 4);
    }

    #[tokio::test]
    async fn what_waits_when_a_socket_closes_is_served_and_what_comes_later_refused() {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = socket.local_addr().unwrap();
        let mut clients = Vec::new();
        for _ in 0..20 {
            // In the queue, and not accepted: nobody does yet.
            clients.push(TcpStream::connect(at).await.unwrap());
        }
        let (lanes, _receivers) = Lanes::new(1);
        let mut served = Vec::new();
        accept(socket, (), lanes, 0, async {}, |accepted| served.push(accepted)).await;
        assert_eq!(served.len(), 20);
        let refused = TcpStream::connect(at).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn a_full_lane_is_not_waited_for() {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (lanes, receivers) = Lanes::new(2);
        drop(receivers);
        let mut kept = Vec::new();
        for _ in 0..4 {
            let (_client, stream, peer) = connection(&socket).await;
            kept.extend(lanes.place(0, stream, peer, ()));
        }
        assert_eq!(kept.len(), 4);
    }
}
