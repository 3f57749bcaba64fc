use std::task::{Context, Waker};

use proptest::prelude::*;

use super::*;
use crate::spare::Spare;

/// All data, the trailers, and what is left behind the body; fed in pieces that end at `cuts`.
type Read = (Vec<u8>, Vec<(String, String)>, Vec<u8>, bool);

fn read(framing: Framing, bytes: &[u8], cuts: &[usize], ends: bool) -> Result<Read, Refusal> {
    let (mut decoder, mut input, spare) = (Decoder::new(framing), Input::default(), Spare::new());
    let (mut data, mut trailers, mut over) = (Vec::new(), Vec::new(), false);
    let mut cuts: Vec<_> = cuts.iter().map(|cut| (*cut).min(bytes.len())).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    let mut pieces: Vec<_> = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();
    if ends {
        pieces.push(&[]);
    }
    for (at, mut piece) in pieces.into_iter().enumerate() {
        let ends = ends && piece.is_empty() && at + 1 == cuts.len();
        while !piece.is_empty() || ends && !input.ended {
            let mut cx = Context::from_waker(Waker::noop());
            assert!(input.poll_fill(&mut piece, &mut cx, &spare, 0).is_ready());
        }
        while !over {
            match decoder.next(&mut input, 1024)? {
                Piece::Data(piece) => data.extend_from_slice(&piece),
                Piece::Trailers(map) => trailers.extend(
                    map.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())),
                ),
                Piece::End => over = true,
                Piece::More => break,
            }
        }
    }
    Ok((data, trailers, input.bytes().to_vec(), over))
}

fn chunked(bytes: &str) -> Result<Read, Refusal> {
    read(Framing::Chunked, bytes.as_bytes(), &[], false)
}

#[test]
fn chunks_are_read_to_their_end_and_no_further() {
    for (bytes, data) in [
        ("0\r\n\r\nrest", ""),
        ("5\r\nhello\r\n0\r\n\r\nrest", "hello"),
        ("3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\nrest", "hello"),
        ("005\r\nhello\r\n000\r\n\r\nrest", "hello"),
        ("5   \r\nhello\r\n0\r\n\r\nrest", "hello"),
        ("5;a=b;c=\"d\"\r\nhello\r\n0;x\r\n\r\nrest", "hello"),
        ("A\r\n0123456789\r\n0\r\n\r\nrest", "0123456789"),
        ("a\r\n0123456789\r\n0\r\n\r\nrest", "0123456789"),
    ] {
        let want = (data.as_bytes().to_vec(), vec![], b"rest".to_vec(), true);
        assert_eq!(chunked(bytes), Ok(want), "{bytes:?}");
    }
    let (data, trailers, rest, over) =
        chunked("1\r\nx\r\n0\r\nX-Sum: 42\r\nContent-Length: 7\r\nHost: b\r\n\r\nrest").unwrap();
    assert_eq!((data, rest, over), (b"x".to_vec(), b"rest".to_vec(), true));
    assert_eq!(trailers, [("x-sum".to_owned(), "42".to_owned())], "what frames or routes is no trailer");
}

#[test]
fn what_is_no_chunk_is_refused() {
    for (bytes, want) in [
        ("\r\n", Refusal::ChunkSize),
        ("x\r\n", Refusal::ChunkSize),
        ("-1\r\n", Refusal::ChunkSize),
        ("+1\r\n", Refusal::ChunkSize),
        ("0x1\r\n", Refusal::ChunkSize),
        (" 1\r\n", Refusal::ChunkSize),
        ("1 1\r\n", Refusal::ChunkSize),
        ("1\nx", Refusal::ChunkSize),
        ("1\rx", Refusal::ChunkSize),
        ("ffffffffffffffff\r\n", Refusal::ChunkSize),
        ("10000000000000000\r\n", Refusal::ChunkSize),
        // A reader to whom the line ends at LF sees a chunk of 0x46 bytes less.
        ("2;\nxx\r\n46\r\n", Refusal::ChunkExtension),
        ("2;a\rb\r\n", Refusal::ChunkSize),
        ("2;a\0\r\n", Refusal::ChunkExtension),
        ("1\r\nxx\r\n", Refusal::ChunkEnd),
        ("1\r\nx\n", Refusal::ChunkEnd),
        ("1\r\nx\rx", Refusal::ChunkEnd),
        ("0\r\nA b: c\r\n\r\n", Refusal::Trailers),
        ("0\r\nA: b\nC: d\r\n\r\n", Refusal::LineEnd),
    ] {
        assert_eq!(chunked(bytes).err(), Some(want), "{bytes:?}");
    }
    let long = format!("1;{}", "x".repeat(20_000));
    assert_eq!(chunked(&long).err(), Some(Refusal::ChunkExtension));
    let each = format!("1;{}\r\nx\r\n", "x".repeat(1000)).repeat(20);
    assert_eq!(chunked(&each).err(), Some(Refusal::ChunkExtension), "all together");
    let trailers = format!("0\r\nA: {}\r\n", "x".repeat(2000));
    assert_eq!(chunked(&trailers).err(), Some(Refusal::TrailersTooLarge));
}

#[test]
fn other_bodies_end_with_their_length_or_the_connection() {
    let length = read(Framing::Length(5), b"hellorest", &[], false).unwrap();
    assert_eq!(length, (b"hello".to_vec(), vec![], b"rest".to_vec(), true));
    let short = read(Framing::Length(5), b"hel", &[], true).unwrap();
    assert!(!short.3, "it waits for more");
    let close = read(Framing::UntilClose, b"hello", &[2], true).unwrap();
    assert_eq!(close, (b"hello".to_vec(), vec![], vec![], true));
    let open = read(Framing::UntilClose, b"hello", &[], false).unwrap();
    assert!(!open.3);
}

proptest! {
    #[test]
    fn any_split_gives_the_same_body(
        chunks in prop::collection::vec((prop::collection::vec(any::<u8>(), 1..40), "(;[a-z=]{0,8})?"), 0..6),
        trailers in prop::collection::vec("X-[a-z]{1,5}: [a-z]{0,5}", 0..3),
        cuts in prop::collection::vec(0usize..400, 0..12),
    ) {
        let mut bytes = Vec::new();
        for (data, extension) in &chunks {
            bytes.extend_from_slice(format!("{:x}{extension}\r\n", data.len()).as_bytes());
            bytes.extend_from_slice(data);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"0\r\n");
        for line in &trailers {
            bytes.extend_from_slice(format!("{line}\r\n").as_bytes());
        }
        bytes.extend_from_slice(b"\r\nrest");
        let got = read(Framing::Chunked, &bytes, &cuts, false).unwrap();
        let data: Vec<u8> = chunks.into_iter().flat_map(|(data, _)| data).collect();
        prop_assert_eq!(&got.0, &data);
        prop_assert_eq!(got.1.len(), trailers.len());
        prop_assert_eq!(&got.2, b"rest");
        prop_assert!(got.3);
    }

    #[test]
    fn any_bytes_are_chunks_or_refused(bytes in "[0-9a-f;\r\n xX:]{0,80}", cuts in prop::collection::vec(0usize..80, 0..6)) {
        let once = read(Framing::Chunked, bytes.as_bytes(), &[], false);
        prop_assert_eq!(read(Framing::Chunked, bytes.as_bytes(), &cuts, false), once);
    }
}
