//! Why a stream or a connection ended, and the codes that say so on the wire.

use std::fmt;
use std::io;
use std::sync::Arc;

/// An error code of RFC 9113 §7, known or not.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Code(pub u32);

impl Code {
    pub const NO_ERROR: Self = Self(0x0);
    pub const PROTOCOL_ERROR: Self = Self(0x1);
    pub const INTERNAL_ERROR: Self = Self(0x2);
    pub const FLOW_CONTROL_ERROR: Self = Self(0x3);
    pub const STREAM_CLOSED: Self = Self(0x5);
    pub const FRAME_SIZE_ERROR: Self = Self(0x6);
    pub const REFUSED_STREAM: Self = Self(0x7);
    pub const CANCEL: Self = Self(0x8);
    pub const COMPRESSION_ERROR: Self = Self(0x9);
    pub const ENHANCE_YOUR_CALM: Self = Self(0xb);

    fn name(self) -> Option<&'static str> {
        let names = [
            "NO_ERROR",
            "PROTOCOL_ERROR",
            "INTERNAL_ERROR",
            "FLOW_CONTROL_ERROR",
            "SETTINGS_TIMEOUT",
            "STREAM_CLOSED",
            "FRAME_SIZE_ERROR",
            "REFUSED_STREAM",
            "CANCEL",
            "COMPRESSION_ERROR",
            "CONNECT_ERROR",
            "ENHANCE_YOUR_CALM",
            "INADEQUATE_SECURITY",
            "HTTP_1_1_REQUIRED",
        ];
        names.get(self.0 as usize).copied()
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "error code {:#x}", self.0),
        }
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How a stream ended before its end, or its connection under it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The peer reset the stream.
    #[error("the peer reset the stream: {0}")]
    Reset(Code),
    /// We reset the stream: what the peer sent breaks the protocol, or its owner gave it up.
    #[error("the stream was reset: {0}")]
    Refused(Code),
    /// The peer went away and will not process the stream (RFC 9113 §6.8).
    #[error("the peer goes away without looking at the stream: {0}")]
    GoneAway(Code),
    /// What the peer sent breaks the protocol of the whole connection.
    #[error("the connection broke the protocol: {0}, {1}")]
    Connection(Code, &'static str),
    #[error("the connection failed: {0}")]
    Io(Arc<io::Error>),
    /// It ended the connection, or we did.
    #[error("the connection is closed")]
    Closed,
}

impl Error {
    /// Whether the peer certainly did nothing with the stream (RFC 9113 §6.8, §8.7).
    pub fn is_unprocessed(&self) -> bool {
        matches!(self, Self::GoneAway(_) | Self::Reset(Code::REFUSED_STREAM))
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}
