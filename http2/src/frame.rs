//! Frames on the wire (RFC 9113 §4, §6): their heads, and how each kind that we send is written.
//!
//! Never knows a stream's state.

use crate::error::Code;

pub const HEAD: usize = 9;
/// The largest payload we take, which is the least that everybody has to (§4.2), and the largest we send.
pub const MAX_FRAME: usize = 16 * 1024;
/// The largest flow-control window (§6.9.1).
pub const MAX_WINDOW: i64 = (1 << 31) - 1;
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PUSH_PROMISE: u8 = 5;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

pub mod flag {
    pub const ACK: u8 = 0x1;
    pub const END_STREAM: u8 = 0x1;
    pub const END_HEADERS: u8 = 0x4;
    pub const PADDED: u8 = 0x8;
    pub const PRIORITY: u8 = 0x20;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub length: usize,
    pub kind: u8,
    pub flags: u8,
    /// Without the reserved bit.
    pub stream: u32,
}

impl Head {
    /// `None` until all of it is here.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let head: &[u8; HEAD] = bytes.first_chunk()?;
        Some(Self {
            length: u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize,
            kind: head[3],
            flags: head[4],
            stream: number(&head[5..]),
        })
    }

    pub fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    pub fn bytes(self) -> [u8; HEAD] {
        let length = (self.length as u32).to_be_bytes();
        let stream = self.stream.to_be_bytes();
        [length[1], length[2], length[3], self.kind, self.flags, stream[0], stream[1], stream[2], stream[3]]
    }
}

/// 31 bits; `bytes` has four at least.
pub fn number(bytes: &[u8]) -> u32 {
    bits(bytes) & 0x7fff_ffff
}

pub fn bits(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// A frame of four bytes: RST_STREAM and WINDOW_UPDATE.
fn four(kind: u8, stream: u32, value: u32) -> [u8; HEAD + 4] {
    let mut frame = [0; HEAD + 4];
    frame[..HEAD].copy_from_slice(&Head { length: 4, kind, flags: 0, stream }.bytes());
    frame[HEAD..].copy_from_slice(&value.to_be_bytes());
    frame
}

pub fn reset(stream: u32, code: Code) -> [u8; HEAD + 4] {
    four(kind::RST_STREAM, stream, code.0)
}

pub fn window_update(stream: u32, by: u32) -> [u8; HEAD + 4] {
    four(kind::WINDOW_UPDATE, stream, by)
}

/// A frame of eight bytes, of the connection: PING and GOAWAY.
fn eight(kind: u8, flags: u8, payload: [u8; 8]) -> [u8; HEAD + 8] {
    let mut frame = [0; HEAD + 8];
    frame[..HEAD].copy_from_slice(&Head { length: 8, kind, flags, stream: 0 }.bytes());
    frame[HEAD..].copy_from_slice(&payload);
    frame
}

pub fn ping(ack: bool, payload: [u8; 8]) -> [u8; HEAD + 8] {
    eight(kind::PING, if ack { flag::ACK } else { 0 }, payload)
}

pub fn go_away(last: u32, code: Code) -> [u8; HEAD + 8] {
    let mut payload = [0; 8];
    payload[..4].copy_from_slice(&last.to_be_bytes());
    payload[4..].copy_from_slice(&code.0.to_be_bytes());
    eight(kind::GOAWAY, 0, payload)
}

pub fn settings(values: &[(u16, u32)]) -> Vec<u8> {
    let head = Head { length: 6 * values.len(), kind: kind::SETTINGS, flags: 0, stream: 0 };
    let mut frame = head.bytes().to_vec();
    for (id, value) in values {
        frame.extend_from_slice(&id.to_be_bytes());
        frame.extend_from_slice(&value.to_be_bytes());
    }
    frame
}

pub fn settings_ack() -> [u8; HEAD] {
    Head { length: 0, kind: kind::SETTINGS, flags: flag::ACK, stream: 0 }.bytes()
}

/// The payload of a DATA or HEADERS frame without its padding and priority; `None` where they are longer than it (§6.1, §6.2).
pub fn unpadded(head: Head, payload: &[u8]) -> Option<std::ops::Range<usize>> {
    let (mut start, mut end) = (0, payload.len());
    if head.has(flag::PADDED) {
        let padding = usize::from(*payload.first()?);
        start = 1;
        end = end.checked_sub(padding)?;
    }
    if head.kind == kind::HEADERS && head.has(flag::PRIORITY) {
        start += 5;
    }
    (start <= end).then_some(start..end)
}
