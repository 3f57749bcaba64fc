//! WebSocket frames on the wire (RFC 6455 §5.2).
//!
//! Refuses what a peer must not send: reserved bits, unknown opcodes, a wrong mask bit, lengths not written the short
//! way, long or fragmented control frames. Memory grows with the bytes that came, not with the length announced.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Opcode {
    fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xa => Self::Pong,
            _ => return None,
        })
    }

    const fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0x0,
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xa,
        }
    }

    pub const fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The last frame of its message.
    pub fin: bool,
    pub opcode: Opcode,
    pub payload: Bytes,
}

/// Who sends: clients mask, servers must not (RFC 6455 §5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    Server,
    #[cfg(test)]
    Client {
        mask: [u8; 4],
    },
}

#[derive(Debug)]
pub enum FrameError {
    /// The stream ended within a frame, or broke.
    Gone,
    /// What the peer did; answered with close code 1002.
    Protocol(&'static str),
    /// A payload over the limit; answered with close code 1009.
    TooBig,
}

impl From<io::Error> for FrameError {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

/// The next frame, its payload unmasked; `None` where the stream ended between frames.
pub async fn read<R: AsyncRead + Unpin>(
    reader: &mut R,
    masked: bool,
    limit: usize,
) -> Result<Option<Frame>, FrameError> {
    let first = match reader.read_u8().await {
        Ok(first) => first,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let second = reader.read_u8().await?;
    if first & 0x70 != 0 {
        return Err(FrameError::Protocol("a reserved bit is set and no extension was agreed on"));
    }
    let (fin, opcode) = (first & 0x80 != 0, Opcode::from_bits(first & 0x0f));
    let opcode = opcode.ok_or(FrameError::Protocol("unknown opcode"))?;
    if (second & 0x80 != 0) != masked {
        return Err(FrameError::Protocol("a client's frame is masked and a server's is not"));
    }
    let length = match second & 0x7f {
        short @ 0..=125 => u64::from(short),
        126 => u64::from(reader.read_u16().await?),
        _ => reader.read_u64().await?,
    };
    let shortest = match second & 0x7f {
        126 => length > 125,
        127 => length > u64::from(u16::MAX) && length >> 63 == 0,
        _ => true,
    };
    if !shortest {
        return Err(FrameError::Protocol("a length is written in its shortest form"));
    }
    if opcode.is_control() && (!fin || length > 125) {
        return Err(FrameError::Protocol("a control frame is whole and has at most 125 bytes"));
    }
    let length = usize::try_from(length).ok().filter(|&length| length <= limit).ok_or(FrameError::TooBig)?;
    let mut mask = [0; 4];
    if masked {
        reader.read_exact(&mut mask).await?;
    }
    let mut payload = BytesMut::new();
    let mut rest = reader.take(length as u64);
    while payload.len() < length {
        payload.reserve((length - payload.len()).min(READ_AHEAD));
        if rest.read_buf(&mut payload).await? == 0 {
            return Err(FrameError::Gone);
        }
    }
    apply(mask, &mut payload);
    Ok(Some(Frame { fin, opcode, payload: payload.freeze() }))
}

/// Writes one frame and flushes it.
pub async fn write<W: AsyncWrite + Unpin>(writer: &mut W, sender: Sender, frame: &Frame) -> io::Result<()> {
    let mut head = BytesMut::with_capacity(14);
    head.extend_from_slice(&[u8::from(frame.fin) << 7 | frame.opcode.bits()]);
    let mask_bit = if sender == Sender::Server { 0 } else { 0x80 };
    let length = frame.payload.len();
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ 0..=125), _) => head.extend_from_slice(&[mask_bit | short]),
        (_, Ok(medium)) => {
            head.extend_from_slice(&[mask_bit | 126]);
            head.extend_from_slice(&medium.to_be_bytes());
        }
        _ => {
            head.extend_from_slice(&[mask_bit | 127]);
            head.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    let payload = match sender {
        Sender::Server => frame.payload.clone(),
        #[cfg(test)]
        Sender::Client { mask } => {
            head.extend_from_slice(&mask);
            let mut masked = BytesMut::from(&frame.payload[..]);
            apply(mask, &mut masked);
            masked.freeze()
        }
    };
    writer.write_all_buf(&mut head.chain(payload)).await?;
    writer.flush().await
}

fn apply(mask: [u8; 4], payload: &mut [u8]) {
    // Eight bytes at a time; a block starts on a multiple of the mask's length.
    let wide = u64::from_ne_bytes([mask, mask].concat().try_into().expect("twice four bytes are eight"));
    let mut blocks = payload.chunks_exact_mut(8);
    for block in &mut blocks {
        let bytes: &mut [u8; 8] = block.try_into().expect("chunks of eight");
        *bytes = (u64::from_ne_bytes(*bytes) ^ wide).to_ne_bytes();
    }
    for (byte, key) in blocks.into_remainder().iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

const READ_AHEAD: usize = 64 * 1024;
