//! SETTINGS (RFC 9113 §6.5): ours, and what the peer's mean for us.

use crate::error::Code;
use crate::frame::{self, MAX_FRAME, MAX_WINDOW};
use crate::hpack;

mod id {
    pub const HEADER_TABLE_SIZE: u16 = 1;
    pub const ENABLE_PUSH: u16 = 2;
    pub const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub const INITIAL_WINDOW_SIZE: u16 = 4;
    pub const MAX_FRAME_SIZE: u16 = 5;
    pub const MAX_HEADER_LIST_SIZE: u16 = 6;
    /// RFC 8441 §3.
    pub const ENABLE_CONNECT_PROTOCOL: u16 = 8;
}

/// What a connection allows its peer.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of bodies that may be under way to us: of each stream, 65535 at least, and of all together.
    pub stream_window: u32,
    pub connection_window: u32,
    /// Bytes beyond that, while streams that nobody reads hold most of it: the others' go on. 0 where all streams are of one client, who harms himself alone.
    pub lent: u32,
    /// Streams the peer may have open at a time. Beyond that they are refused.
    pub streams: u32,
    /// Bytes of a header section, as RFC 9113 §6.5.2 counts them.
    pub header_list: usize,
    /// Streams the peer may open and reset before anybody looked at them, before its connection is ended (CVE-2023-44487).
    pub unseen_resets: usize,
    /// Streams that may break the protocol, over the life of a connection, before all of it is ended (CVE-2025-8671).
    pub faulty_streams: usize,
    /// Frames of one turn that bring nothing and cost nothing to send, before the connection is ended: PING, SETTINGS, PRIORITY, DATA without any, updates of
    /// windows that were not used, what is refused or unknown (CVE-2019-9512, -9513, -9515, -9518).
    pub idle_frames: usize,
}

impl Limits {
    pub fn frame(&self, server: bool) -> Vec<u8> {
        let mut values = vec![
            (id::INITIAL_WINDOW_SIZE, self.stream_window),
            (id::MAX_HEADER_LIST_SIZE, u32::try_from(self.header_list).unwrap_or(u32::MAX)),
        ];
        if server {
            values.push((id::MAX_CONCURRENT_STREAMS, self.streams));
            values.push((id::ENABLE_CONNECT_PROTOCOL, 1));
        } else {
            values.push((id::ENABLE_PUSH, 0));
        }
        frame::settings(&values)
    }
}

/// The peer's, as far as they concern us.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    pub stream_window: i64,
    pub max_frame: usize,
    /// None are allowed before it said so: what it would refuse is not sent.
    pub streams: usize,
    pub extended_connect: bool,
    pub table: usize,
}

impl Default for Peer {
    fn default() -> Self {
        Self {
            stream_window: 65_535,
            max_frame: MAX_FRAME,
            streams: 0,
            extended_connect: false,
            table: hpack::DEFAULT_TABLE_SIZE,
        }
    }
}

impl Peer {
    /// Takes the payload of a SETTINGS frame. `first`: before that, nothing was known.
    pub fn apply(&mut self, payload: &[u8], first: bool, client: bool) -> Result<(), (Code, &'static str)> {
        if first {
            self.streams = usize::MAX;
        }
        for setting in payload.chunks_exact(6) {
            let value = frame::bits(&setting[2..]);
            match u16::from_be_bytes([setting[0], setting[1]]) {
                id::HEADER_TABLE_SIZE => self.table = value as usize,
                id::ENABLE_PUSH if value > 1 || (client && value == 1) => {
                    return Err((Code::PROTOCOL_ERROR, "ENABLE_PUSH is out of range"));
                }
                id::MAX_CONCURRENT_STREAMS => self.streams = value as usize,
                id::INITIAL_WINDOW_SIZE if i64::from(value) > MAX_WINDOW => {
                    return Err((Code::FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE is out of range"));
                }
                id::INITIAL_WINDOW_SIZE => self.stream_window = i64::from(value),
                id::MAX_FRAME_SIZE if !(16_384..=16_777_215).contains(&value) => {
                    return Err((Code::PROTOCOL_ERROR, "MAX_FRAME_SIZE is out of range"));
                }
                id::MAX_FRAME_SIZE => self.max_frame = (value as usize).min(MAX_FRAME),
                id::ENABLE_CONNECT_PROTOCOL if value > 1 => {
                    return Err((Code::PROTOCOL_ERROR, "ENABLE_CONNECT_PROTOCOL is out of range"));
                }
                id::ENABLE_CONNECT_PROTOCOL => self.extended_connect = value == 1,
                // Unknown ones mean nothing to us (§6.5.2). What the peer takes of a header section is advice.
                _ => {}
            }
        }
        Ok(())
    }
}
