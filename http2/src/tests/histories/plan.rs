//! What happens in a history, decided before it begins.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::Limits;

#[derive(Clone, Debug)]
pub struct History {
    pub ours: Limits,
    pub theirs: Theirs,
    pub exchanges: Vec<Exchange>,
    pub end: Option<(u64, End)>,
    /// Of what the wire does.
    pub seed: u64,
}

/// What the h2 crate's side announces.
#[derive(Clone, Debug)]
pub struct Theirs {
    pub stream_window: u32,
    pub connection_window: u32,
    pub streams: u32,
    pub table: u32,
    /// The windows of streams from a moment on, in milliseconds; the last one is the largest.
    pub windows: Vec<(u64, u32)>,
}

/// How a connection ends with streams under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The server goes away in order.
    Leave,
    /// There is no wire any more.
    Cut,
}

#[derive(Clone, Debug)]
pub struct Exchange {
    /// Milliseconds.
    pub begins: u64,
    pub request: Message,
    pub response: Message,
    /// The server answers while the request still comes.
    pub early: bool,
    pub reset: Option<Reset>,
}

/// A side gives a stream up so many milliseconds after it began.
#[derive(Clone, Copy, Debug)]
pub struct Reset {
    pub by_client: bool,
    pub after: u64,
    pub code: u32,
}

#[derive(Clone, Debug)]
pub struct Message {
    pub fields: Vec<Field>,
    pub pieces: Vec<usize>,
    /// Milliseconds between two pieces.
    pub pause: u64,
    pub trailers: Option<Vec<Field>>,
    /// Says its length.
    pub announced: bool,
    pub reading: Reading,
}

#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// Milliseconds before each piece.
    pub pause: u64,
    /// Who reads lets go of it after as many bytes.
    pub stops: Option<usize>,
}

pub type Field = (String, String, bool);

impl Message {
    pub fn length(&self) -> usize {
        self.pieces.iter().sum()
    }

    /// Its head is all of it.
    pub fn is_head(&self) -> bool {
        self.pieces.is_empty() && self.trailers.is_none()
    }
}

impl Exchange {
    /// Nobody does anything but send and read all of it.
    pub fn is_calm(&self) -> bool {
        let read = |message: &Message| message.reading.stops.is_none();
        self.reset.is_none() && read(&self.request) && read(&self.response)
    }

    /// Larger than any window: windows that are not whole do not let it through.
    pub fn large() -> Self {
        let message = Message {
            fields: Vec::new(),
            pieces: vec![100_000; 5],
            pause: 0,
            trailers: None,
            announced: true,
            reading: Reading { pause: 0, stops: None },
        };
        Self { begins: 0, request: message.clone(), response: message, early: true, reset: None }
    }
}

pub fn any_history() -> impl Strategy<Value = History> {
    let end = prop_oneof![
        3 => Just(None),
        1 => (0..60u64, Just(End::Leave)).prop_map(Some),
        1 => (0..60u64, Just(End::Cut)).prop_map(Some),
    ];
    (ours(), theirs(), vec(exchange(), 1..16), end, any::<u64>())
        .prop_map(|(ours, theirs, exchanges, end, seed)| History { ours, theirs, exchanges, end, seed })
}

fn ours() -> impl Strategy<Value = Limits> {
    let lent = prop_oneof![Just(0), 1..1_000_000u32];
    (65_535..200_000u32, 65_535..400_000u32, lent, 1..20u32).prop_map(
        |(stream_window, connection_window, lent, streams)| Limits {
            stream_window,
            connection_window,
            lent,
            streams,
            unseen_resets: usize::MAX,
            ..super::super::LIMITS
        },
    )
}

fn theirs() -> impl Strategy<Value = Theirs> {
    let window = || prop_oneof![500..5_000u32, 5_000..200_000u32];
    let first = prop_oneof![1 => Just(0), 4 => window()];
    let table = prop_oneof![Just(0), 0..200u32, Just(4096), Just(65_536)];
    let windows = (vec((0..40u64, window()), 0..4), 40_000..200_000u32);
    (first, 65_535..200_000u32, 1..20u32, table, windows).prop_map(
        |(stream_window, connection_window, streams, table, (mut windows, last))| {
            windows.sort();
            // The h2 crate (0.4.20) does not open a window again that it made smaller when most of it was used up and all of that released, so the
            // last one is larger than any before.
            let most = windows.iter().map(|(_, window)| *window).max().unwrap_or_default().max(stream_window);
            windows.push((50, last + most));
            Theirs { stream_window, connection_window, streams, table, windows }
        },
    )
}

fn exchange() -> impl Strategy<Value = Exchange> {
    let reset = (any::<bool>(), 0..30u64, prop_oneof![Just(0), Just(2), Just(8), Just(0xb), Just(77)])
        .prop_map(|(by_client, after, code)| Reset { by_client, after, code });
    let reset = prop_oneof![4 => Just(None), 1 => reset.prop_map(Some)];
    (0..40u64, message(), message(), any::<bool>(), reset).prop_map(
        |(begins, request, response, early, reset)| Exchange { begins, request, response, early, reset },
    )
}

fn message() -> impl Strategy<Value = Message> {
    let piece = prop_oneof![3 => 1..2_000usize, 2 => 2_000..20_000usize, 1 => 20_000..70_000usize];
    let reading = prop_oneof![
        8 => (0..4u64).prop_map(|pause| Reading { pause, stops: None }),
        1 => (0..4u64, 0..60_000usize).prop_map(|(pause, stops)| Reading { pause, stops: Some(stops) }),
    ];
    let parts = (vec(field(), 0..12), vec(piece, 0..7), 0..4u64);
    (parts, option::of(vec(field(), 0..4)), any::<bool>(), reading).prop_map(
        |((fields, pieces, pause), trailers, announced, reading)| Message {
            fields,
            pieces,
            pause,
            trailers,
            announced,
            reading,
        },
    )
}

fn field() -> impl Strategy<Value = Field> {
    let name = prop_oneof![
        3 => prop::sample::select(vec!["x-a", "x-b", "cookie", "user-agent", "te-st", "x-request-id", "traceparent"])
            .prop_map(str::to_owned),
        1 => "x-[a-z]{1,12}",
    ];
    let value = prop_oneof![
        8 => "[!-~]{0,30}",
        2 => "[a-c]{1,2}",
        1 => (100..9_000usize).prop_map(|length| "v".repeat(length)),
    ];
    // Always the same for a name: the h2 crate writes a secret that it wrote openly before by its index.
    (name, value).prop_map(|(name, value)| {
        let sensitive = name == "x-b" || name.ends_with('s');
        (name, value, sensitive)
    })
}
