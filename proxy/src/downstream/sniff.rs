//! Finding out what a connection carries, by what was declared, by its first bytes, or by who speaks first.
//!
//! Owns the waiting. A protocol in which the server speaks first looks like silence of the client: after 100 ms of it on a port nobody declared
//! anything for, the endpoint is dialled, and whoever speaks first decides. Server-first is remembered by destination; silence alone is not,
//! because a client that connects early and asks later is silent, too.

use std::collections::HashMap;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::{Bytes, BytesMut};
use outrigger_config::model::{DestinationName, Protocol};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{Instant, timeout};

use super::detect::{Spoken, spoken};
use super::patience::HEAD;
use super::replay::Replay;
use super::tcp::Dialled;

/// A connection whose protocol is known.
#[derive(Debug)]
pub struct Opening<T> {
    pub spoken: Spoken,
    pub io: Replay<T>,
    /// The connection to the endpoint, where finding out opened one; what it said is read again, too.
    pub dialled: Option<Box<Replay<Dialled>>>,
}

/// Looks into a connection without knowing where it leads: one that is a proxy's. `None` where nothing came.
pub async fn look<T: AsyncRead + Unpin>(mut io: T) -> Option<Opening<T>> {
    let mut bytes = BytesMut::new();
    let spoken = timeout(HEAD, read(&mut io, &mut bytes)).await.ok()??;
    Some(opening(spoken, bytes, io, None))
}

/// `known_first`: the server of this destination spoke first before. `None` where the client left, or said nothing in time.
pub async fn find<T, D>(
    mut io: T,
    declared: Protocol,
    destination: Option<(&ServerFirst, &DestinationName)>,
    dial: impl FnOnce() -> D,
) -> Option<Opening<T>>
where
    T: AsyncRead + Unpin,
    D: Future<Output = Option<Dialled>>,
{
    let mut bytes = BytesMut::new();
    match declared {
        Protocol::Tcp => return Some(opening(Spoken::Opaque, bytes, io, None)),
        Protocol::Http | Protocol::Http2 => {
            let spoken = timeout(HEAD, read(&mut io, &mut bytes)).await.ok()??;
            // The codec says what is wrong with it.
            let spoken = if spoken == Spoken::Opaque { Spoken::Http1 } else { spoken };
            return Some(opening(spoken, bytes, io, None));
        }
        Protocol::Tls => {
            let spoken = timeout(HEAD, read(&mut io, &mut bytes)).await.ok()??;
            let tls = matches!(spoken, Spoken::Tls { .. });
            return Some(opening(if tls { spoken } else { Spoken::Opaque }, bytes, io, None));
        }
        Protocol::Detect => {}
    }
    if destination.is_some_and(|(memory, name)| memory.recalls(name)) {
        return Some(opening(Spoken::Opaque, bytes, io, None));
    }
    match timeout(SILENCE, read(&mut io, &mut bytes)).await {
        Ok(spoken) => return Some(opening(spoken?, bytes, io, None)),
        // It has begun to speak and only needs to go on.
        Err(_) if !bytes.is_empty() => {
            let spoken = timeout(HEAD, read(&mut io, &mut bytes)).await.ok()??;
            return Some(opening(spoken, bytes, io, None));
        }
        Err(_) => {}
    }
    let begun = Instant::now();
    let Some(mut dialled) = dial().await else {
        // Nobody there to speak: the client's bytes decide, and what they are for will be refused in their own words.
        let spoken = timeout(HEAD, read(&mut io, &mut bytes)).await.ok()??;
        return Some(opening(spoken, bytes, io, None));
    };
    let mut first = BytesMut::new();
    let left = (ENOUGH - SILENCE).saturating_sub(begun.elapsed());
    tokio::select! {
        biased;
        spoken = read(&mut io, &mut bytes) => {
            let spoken = spoken?;
            // What is not HTTP goes over the connection that stands already.
            let dialled = (spoken == Spoken::Opaque).then(|| Box::new(Replay::new(first.freeze(), dialled)));
            Some(opening(spoken, bytes, io, dialled))
        }
        count = dialled.read_buf(&mut first) => {
            if let (Ok(1..), Some((memory, name))) = (count, destination) {
                memory.remember(name);
            }
            let dialled = Box::new(Replay::new(first.freeze(), dialled));
            Some(opening(Spoken::Opaque, bytes, io, Some(dialled)))
        }
        () = tokio::time::sleep(left) => {
            let dialled = Box::new(Replay::new(Bytes::new(), dialled));
            Some(opening(Spoken::Opaque, bytes, io, Some(dialled)))
        }
    }
}

/// How long a client may be silent before the endpoint is asked (design.md 2.2).
const SILENCE: Duration = Duration::from_millis(100);

/// From accepting on; then the connection is carried without knowing what it is.
const ENOUGH: Duration = Duration::from_secs(1);

fn opening<T>(spoken: Spoken, bytes: BytesMut, io: T, dialled: Option<Box<Replay<Dialled>>>) -> Opening<T> {
    Opening { spoken, io: Replay::new(bytes.freeze(), io), dialled }
}

/// Reads until it is clear what is spoken. `None` where the client ended without a word. May be dropped and begun again: what was read is in `bytes`.
async fn read<T: AsyncRead + Unpin>(io: &mut T, bytes: &mut BytesMut) -> Option<Spoken> {
    loop {
        if let Some(spoken) = spoken(bytes) {
            return Some(spoken);
        }
        if bytes.capacity() - bytes.len() < FIRST_READ / 2 {
            bytes.reserve(FIRST_READ);
        }
        match io.read_buf(bytes).await {
            Ok(0) if bytes.is_empty() => return None,
            Ok(0) => return Some(Spoken::Opaque),
            Ok(_) => {}
            Err(_) => return None,
        }
    }
}

/// Holds the usual head, and a ClientHello without a post-quantum key share.
const FIRST_READ: usize = 2048;

/// Destinations whose server was heard to speak first. Shared by all workers: what one of them waited for, the others need not. Read without
/// a lock; written once a destination in ten minutes.
#[derive(Debug, Default)]
pub struct ServerFirst(ArcSwap<HashMap<DestinationName, Instant>>);

impl ServerFirst {
    fn recalls(&self, name: &DestinationName) -> bool {
        self.0.load().get(name).is_some_and(|when| when.elapsed() < REMEMBERED)
    }

    fn remember(&self, name: &DestinationName) {
        self.0.rcu(|heard| {
            let mut heard = HashMap::clone(heard);
            if heard.len() >= MOST_REMEMBERED {
                heard.retain(|_, when| when.elapsed() < REMEMBERED);
            }
            if heard.len() < MOST_REMEMBERED || heard.contains_key(name) {
                heard.insert(name.clone(), Instant::now());
            }
            heard
        });
    }
}

/// design.md 2.2.
const REMEMBERED: Duration = Duration::from_secs(10 * 60);
const MOST_REMEMBERED: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_speaks_first_is_remembered_for_ten_minutes_and_by_no_more_than_fit() {
        let memory = ServerFirst::default();
        let name = |n: usize| DestinationName::new(&format!("s{n}"), 25).expect("a name");
        for n in 0..=MOST_REMEMBERED {
            memory.remember(&name(n));
        }
        assert!(memory.recalls(&name(0)) && memory.recalls(&name(MOST_REMEMBERED - 1)));
        assert!(!memory.recalls(&name(MOST_REMEMBERED)), "no room for one more");
        tokio::time::advance(REMEMBERED / 2).await;
        memory.remember(&name(0));
        tokio::time::advance(REMEMBERED / 2).await;
        assert!(memory.recalls(&name(0)), "heard again in between");
        assert!(!memory.recalls(&name(1)));
        memory.remember(&name(MOST_REMEMBERED));
        assert!(memory.recalls(&name(MOST_REMEMBERED)), "those of long ago made room");
    }
}
