//! The RFC's examples, each half's rules, and what both halves promise together.

mod decoding;
mod encoding;
mod huffman;
mod rfc;

use bytes::Bytes;

use super::{DecodeError, Decoder, Field, Limits, Name, Outcome};

const UNLIMITED: Limits = Limits { max_list_size: usize::MAX, max_fields: usize::MAX };

fn decode(decoder: &mut Decoder, block: &Bytes) -> Result<(Vec<Field>, Outcome), DecodeError> {
    let mut fields = Vec::new();
    let outcome = decoder.decode(block, UNLIMITED, |field| fields.push(field))?;
    Ok((fields, outcome))
}

/// What the dynamic table holds, from the newest on, and what it counts: seen as a peer would, by asking for one index after the other.
fn table(decoder: &mut Decoder) -> (Vec<(String, String)>, usize) {
    let (mut entries, mut size) = (Vec::new(), 0);
    for index in 62.. {
        let mut block = bytes::BytesMut::new();
        super::integer::write(&mut block, 0x80, 7, index);
        match decode(decoder, &block.freeze()) {
            Ok((fields, outcome)) => {
                entries.extend(fields.iter().map(text));
                size += outcome.list_size;
            }
            Err(error) => {
                assert_eq!(error, DecodeError::Index);
                break;
            }
        }
    }
    (entries, size)
}

/// A field as the text it stands for.
fn text(field: &Field) -> (String, String) {
    let bytes = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    let value = match field {
        Field::Authority(value) | Field::Path(value) | Field::Protocol(value) | Field::Scheme(value) => {
            bytes(value)
        }
        Field::Method(method) => method.to_string(),
        Field::Status(status) => status.as_str().to_owned(),
        Field::Header(_, value) => bytes(value.as_bytes()),
        Field::Malformed(_) => "(malformed)".to_owned(),
    };
    let name = match field.name() {
        Name::Authority => ":authority".to_owned(),
        Name::Method => ":method".to_owned(),
        Name::Path => ":path".to_owned(),
        Name::Protocol => ":protocol".to_owned(),
        Name::Scheme => ":scheme".to_owned(),
        Name::Status => ":status".to_owned(),
        Name::Header(name) => name.as_str().to_owned(),
        Name::Invalid => "(invalid)".to_owned(),
    };
    (name, value)
}

fn hex(digits: &str) -> Bytes {
    let digits: Vec<u8> = digits.bytes().filter(|digit| !digit.is_ascii_whitespace()).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16).expect("hexadecimal"))
        .collect()
}
