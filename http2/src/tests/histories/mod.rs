//! Whole connections against the h2 crate: our server with its client, our client with its server.
//!
//! Whatever happens in which order, each message comes whole, in order and once, or its stream ends with a code that somebody gave; nothing stalls; and
//! when all streams are over the connection holds none, both windows are what the frames on the wire make them, and a body larger than any of
//! them still passes both ways.

mod ends;
mod plan;
mod run;
mod sides;
mod wire;

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use self::ends::{ours_asks, ours_serves, theirs_asks, theirs_serves};
use self::plan::{End, Exchange, History, any_history};
use self::run::{Record, Run};
use self::wire::{Near, Wire};
use crate::client;
use crate::core::Core;

/// Nothing is left of the streams that were, and the windows are those that the peer has from what it was told.
fn at_rest(core: &Core, wire: &Wire, history: &History) {
    let windows = wire.windows();
    assert_eq!((core.streams.keys().len(), core.open), (0, 0), "streams");
    assert!(core.accepted.is_empty() && core.partial.is_none() && core.ended.is_none());
    assert_eq!(core.outlet.waiting(), 0);
    assert_eq!(core.receive_window, windows.receive, "what the peer may send");
    assert_eq!(core.send_window, windows.send, "what we may send");
    let whole = core.receive_window + i64::from(core.taken);
    assert_eq!(whole, i64::from(history.ours.connection_window), "our window is whole again");
    assert_eq!(core.lent, 0, "and no more than that");
    assert_eq!(core.faults, 0, "nobody broke the protocol");
}

/// Runs until all exchanges are over, or, where the connection is to end, until it has.
async fn play(history: History, ours_is_client: bool) {
    let mut exchanges = history.exchanges.clone();
    exchanges.push(Exchange::large());
    let large = exchanges.len() - 1;
    let records = RefCell::new(exchanges.iter().map(|_| Record::default()).collect());
    let run = Rc::new(Run { exchanges, records, beside: RefCell::default() });
    let near = Near::default();
    let wire = Wire::new(near.clone(), history.seed, history.theirs.table);
    let (far, theirs) = tokio::io::duplex(50_000);
    let begun = Instant::now();
    let carried = wire.clone();
    let cut = match history.end {
        Some((at, End::Cut)) => begun + Duration::from_millis(at),
        _ => begun + FOREVER,
    };
    spawn_local(async move {
        let _ = tokio::time::timeout_at(cut, carried.carry(far, ours_is_client)).await;
        carried.cut();
    });
    let (opener, shared) = if ours_is_client {
        theirs_serves(theirs, &history, &run, begun);
        ours_asks(near, &history, &run)
    } else {
        let shared = ours_serves(near, &history, &run, begun);
        (theirs_asks(theirs, &history, begun).await, shared)
    };
    let mut tasks = Vec::new();
    for nth in 0..large {
        tasks.push(spawn_local(ask(opener.clone(), run.clone(), nth)));
    }
    for task in tasks {
        task.await.expect("what is wrong was said");
    }
    let end = history.end.map(|(_, end)| end);
    if end.is_none() {
        ask(opener.clone(), run.clone(), large).await;
        sleep(Duration::from_secs(1)).await;
        run.settle().await;
        at_rest(&shared.borrow(), &wire, &history);
        run.check(None);
        return;
    }
    drop(opener);
    sleep_until(begun + Duration::from_secs(1)).await;
    while shared.borrow().ended.is_none() {
        sleep(Duration::from_millis(1)).await;
    }
    // Handlers see the end, too.
    sleep(Duration::from_secs(1)).await;
    run.settle().await;
    let core = shared.borrow();
    assert_eq!((core.streams.keys().len(), core.open), (0, 0), "streams");
    drop(core);
    run.records.borrow_mut().pop();
    run.check(end);
}

/// What opens streams.
#[derive(Clone)]
enum Opener {
    Ours(client::Sender),
    Theirs(h2::client::SendRequest<Bytes>),
}

async fn ask(opener: Opener, run: Rc<Run>, nth: usize) {
    sleep(Duration::from_millis(run.exchanges[nth].begins)).await;
    let (request, end) = run.request(nth);
    match opener {
        Opener::Ours(mut sender) => {
            if poll_fn(|cx| sender.poll_ready(cx)).await.is_err() {
                return;
            }
            let (send, mut recv) = sender.send(request.method(), request.uri(), None, request.headers(), end);
            drop(sender);
            let response = async {
                let response = poll_fn(|cx| recv.poll_response(cx)).await?;
                Ok(response.map(|()| recv))
            };
            run.ask(nth, send, response).await;
        }
        Opener::Theirs(sender) => {
            let Ok(mut sender) = sender.ready().await else { return };
            let Ok((response, send)) = sender.send_request(request, end) else { return };
            drop(sender);
            run.ask(nth, send, async { Ok(response.await?) }).await;
        }
    }
}

const FOREVER: Duration = Duration::from_secs(100_000);
/// Nothing takes nearly as long by the clock of the test, which goes on when nobody has anything to do.
const STALLED: Duration = Duration::from_secs(3_600);

fn run(history: History, ours_is_client: bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime");
    let played = async { timeout(STALLED, play(history, ours_is_client)).await };
    LocalSet::new().block_on(&runtime, played).expect("something stalls");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn our_server_and_their_client(history in any_history()) {
        run(history, false);
    }

    #[test]
    fn our_client_and_their_server(history in any_history()) {
        run(history, true);
    }
}
