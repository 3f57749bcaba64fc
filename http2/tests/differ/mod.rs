//! The same frames to the h2 crate's server and to ours, one at a time, and every difference explained.
//!
//! Ours may be stricter for a reason that docs/http2.md has; it never takes a request that h2 does not take, and reads what both take in the same way. Frames of
//! streams that are over are another matter: ours reads over them, h2 may not. Behind the first difference in what becomes of the connection nothing
//! is compared. [`endure`] looks at ours alone, and at what it holds. Shared by the test beside it and by the fuzz target.

mod endure;
mod sides;

pub use endure::endure;
pub use sides::HELLO;
use sides::{Ours, Theirs};

/// A frame as it is fed. Its length is what it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

const ACK: u8 = 0x1;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const HAS_PRIORITY: u8 = 0x20;

impl Frame {
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = (self.payload.len() as u32).to_be_bytes()[1..].to_vec();
        bytes.extend([self.kind, self.flags]);
        bytes.extend(self.stream.to_be_bytes());
        bytes.extend_from_slice(&self.payload);
        bytes
    }

    /// Frames of arbitrary bytes: a head of few bytes each, so that most of what comes out is nearly sound.
    pub fn all(mut bytes: &[u8]) -> Vec<Self> {
        let mut frames = Vec::new();
        while let [kind, flags, stream, length, rest @ ..] = bytes
            && frames.len() < 64
        {
            // Streams 0 to 11, most of them a client's.
            let stream = [0, 1, 1, 1, 3, 3, 3, 5, 5, 7, 9, 2, 11, 0][usize::from(*stream) % 14];
            let length = usize::from(*length).min(rest.len());
            let (payload, more) = rest.split_at(length);
            frames.push(Self { kind: kind % 11, flags: *flags, stream, payload: payload.to_vec() });
            bytes = more;
        }
        frames
    }

    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// What differs, or a complaint that nothing explains it.
pub fn compare(frames: &[Frame]) -> Result<&'static str, String> {
    let (mut ours, mut theirs) = (Ours::new(), Theirs::new());
    let mut streams = Streams::default();
    let mut differs = "the same";
    for (at, frame) in frames.iter().enumerate() {
        let bytes = frame.bytes();
        ours.feed(&bytes, frame.stream);
        theirs.feed(&bytes);
        let complaint = |what: &str| {
            let (ours, theirs) = (ours.describe(), theirs.describe());
            Err(format!("{what}, at {at}\n{frame:?}\nof {frames:#?}\nours: {ours}\nh2: {theirs}"))
        };
        if streams.depends_on_itself(frame) {
            // h2 ends the stream and leaves its block out, so that its table is another one from then on.
            return Ok("ours does not mind what a stream depends on");
        }
        match (ours.gone(), theirs.gone()) {
            (None, None) => {}
            (Some(ours), Some(theirs)) if ours == theirs => return Ok("both end the connection"),
            (Some(_), Some(_)) => return Ok("both end the connection, by other words"),
            (None, Some(_)) => {
                return match streams.lenient(frame, ours.resets()) {
                    Some(why) => Ok(why),
                    None => complaint("ours goes on where h2 does not"),
                };
            }
            (Some(_), None) => {
                return match streams.strict(frame, theirs.resets()) {
                    Some(why) => Ok(why),
                    None => complaint("h2 goes on where ours does not"),
                };
            }
        }
        for id in theirs.resets() {
            if ours.requests().contains_key(id) && !theirs.requests().contains_key(id) && !streams.is_off(*id)
            {
                return complaint("ours took a request that h2 refused");
            }
        }
        streams.note(frame, ours.resets(), theirs.resets());
        if streams.block.is_some_and(|(stream, _)| theirs.resets().contains(&stream)) {
            return Ok("h2 forgets the block of a stream that it reset");
        }
        if frame.kind == GOAWAY {
            return Ok("the client leaves");
        }
        for (id, mine) in ours.requests() {
            let Some(their) = theirs.requests().get(id) else {
                if streams.is_off(*id) {
                    continue;
                }
                return complaint("ours took a request that h2 did not take");
            };
            if mine.line != their.line || mine.fields != their.fields {
                return complaint("the heads differ");
            }
            if !streams.is_off(*id)
                && (&mine.body, &mine.trailers, mine.whole) != (&their.body, &their.trailers, their.whole)
            {
                return complaint("the bodies differ");
            }
        }
        for id in theirs.requests().keys() {
            if !ours.requests().contains_key(id) {
                if !ours.resets().contains(id) && !ours.answers().contains(id) && !streams.is_off(*id) {
                    return complaint("ours says nothing of a request that h2 took");
                }
                differs = "ours is stricter with a request";
            }
        }
    }
    Ok(differs)
}

/// What the frames so far made of the streams.
#[derive(Debug, Default)]
struct Streams {
    highest: u32,
    open: Vec<u32>,
    /// Over by their sender's word, or somebody's reset: no frame of them means anything.
    over: Vec<u32>,
    /// A header block that is not whole.
    block: Option<(u32, u8)>,
}

impl Streams {
    fn note(&mut self, frame: &Frame, ours: &[u32], theirs: &[u32]) {
        let id = frame.stream;
        let (id, flags, whole) = match frame.kind {
            HEADERS if frame.has(END_HEADERS) => (id, frame.flags, true),
            HEADERS => {
                self.block = Some((id, frame.flags));
                (id, frame.flags, false)
            }
            CONTINUATION if frame.has(END_HEADERS) => {
                let (id, flags) = self.block.take().unwrap_or_default();
                (id, flags, true)
            }
            DATA => (id, frame.flags, true),
            RST_STREAM => {
                self.over.push(id);
                (id, 0, false)
            }
            _ => (id, 0, false),
        };
        if whole && frame.kind != DATA && id > self.highest {
            self.highest = id;
            self.open.push(id);
        }
        if whole && flags & END_STREAM != 0 {
            self.over.push(id);
        }
        self.over.extend(ours.iter().chain(theirs));
    }

    fn is_over(&self, id: u32) -> bool {
        self.over.contains(&id) || (id % 2 == 1 && id <= self.highest && !self.open.contains(&id))
    }

    /// Reset by somebody: the two need not have read the same of it.
    fn is_off(&self, id: u32) -> bool {
        self.over.contains(&id)
    }

    /// By the priority of its HEADERS, which RFC 9113 has none of.
    fn depends_on_itself(&self, frame: &Frame) -> bool {
        let at = usize::from(frame.has(PADDED));
        frame.kind == HEADERS
            && frame.has(HAS_PRIORITY)
            && frame
                .payload
                .get(at..at + 4)
                .is_some_and(|to| u32::from_be_bytes([to[0] & 0x7f, to[1], to[2], to[3]]) == frame.stream)
    }

    /// Why ours may go on.
    fn lenient(&self, frame: &Frame, ours: &[u32]) -> Option<&'static str> {
        let stream = self.block.map_or(frame.stream, |(stream, _)| stream);
        match frame.kind {
            HEADERS | CONTINUATION if !frame.has(END_HEADERS) => {
                Some("ours looks into a block when it is whole")
            }
            DATA | HEADERS | CONTINUATION | RST_STREAM | WINDOW_UPDATE | PRIORITY if self.is_over(stream) => {
                Some("ours reads over what comes of streams that are over")
            }
            SETTINGS if frame.has(ACK) => Some("ours reads over acknowledgements of nothing"),
            // A stream error, and nothing to end (RFC 9113 §6.3).
            PRIORITY if frame.payload.len() != 5 => Some("ours reads over PRIORITY of a wrong size"),
            _ if ours.contains(&stream) => Some("ours ends the stream alone"),
            _ => None,
        }
    }

    /// Why ours may end it.
    fn strict(&self, frame: &Frame, theirs: &[u32]) -> Option<&'static str> {
        let even = frame.stream.is_multiple_of(2);
        match frame.kind {
            // RFC 9113 §6.2.
            kind if self.block.is_some() && kind != CONTINUATION => Some("h2 lets a block be interrupted"),
            // Each fragment of a block begins as a block does to it (RFC 7541 §4.2).
            CONTINUATION => Some("h2 reads a block in pieces"),
            // §8.4.
            PUSH_PROMISE => Some("h2 reads over PUSH_PROMISE"),
            // §5.1.1.
            HEADERS if even => Some("h2 ends the stream alone, which is none of a client"),
            // By its PRIORITY, or by what is malformed.
            _ if theirs.contains(&frame.stream) && frame.stream > self.highest => {
                Some("h2 reset a stream that nobody opened")
            }
            _ => None,
        }
    }
}
