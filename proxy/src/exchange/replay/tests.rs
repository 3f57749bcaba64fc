use std::collections::VecDeque;

use http_body_util::BodyExt;
use proptest::prelude::*;

use super::*;

/// Frames that come one at a time.
struct Frames(VecDeque<Bytes>);

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Poll::Ready(self.0.pop_front().map(|data| Ok(Frame::data(data))))
    }
}

fn replay(frames: &[Vec<u8>]) -> Replay {
    let frames = frames.iter().map(|frame| Bytes::copy_from_slice(frame)).collect();
    Replay::new(Body::wrapped(Frames(frames)), &Rc::default())
}

async fn read(body: &mut Body, most: usize) -> Vec<u8> {
    let mut read = Vec::new();
    for _ in 0..most {
        let Some(frame) = body.frame().await else { break };
        read.extend_from_slice(frame.expect("it is the current attempt").data_ref().expect("data"));
    }
    read
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

proptest! {
    /// Attempts that stop anywhere, or whose connection is exchanged anywhere, never change what the last one sends.
    #[test]
    fn the_last_attempt_sends_every_byte_once(
        frames in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..20), 0..12),
        stops in proptest::collection::vec((0..14usize, any::<bool>()), 0..5),
        released_at in 0..14usize,
    ) {
        let whole: Vec<u8> = frames.concat();
        block_on(async {
            let replay = replay(&frames);
            for (stop, rewinds) in stops {
                let mut body = replay.again().expect("it is small");
                read(&mut body, stop).await;
                if rewinds {
                    assert!(body.rewind());
                    let again = read(&mut body, stop).await;
                    assert!(whole.starts_with(&again));
                }
            }
            let mut body = replay.again().expect("it is small");
            let mut sent = read(&mut body, released_at).await;
            // The answer is on its way to the caller: nothing more is kept.
            drop(replay);
            sent.extend(read(&mut body, usize::MAX).await);
            assert_eq!(sent, whole);
        });
    }
}

#[test]
fn an_attempt_that_was_given_up_reads_nothing_more() {
    block_on(async {
        let replay = replay(&[vec![1], vec![2]]);
        let mut first = replay.again().unwrap();
        assert_eq!(read(&mut first, 1).await, [1]);
        let mut second = replay.again().unwrap();
        assert!(first.frame().await.unwrap().is_err());
        assert!(!first.rewind());
        assert_eq!(read(&mut second, 9).await, [1, 2]);
    });
}

#[test]
fn too_much_is_not_kept_and_goes_on_all_the_same() {
    block_on(async {
        let frames: Vec<Vec<u8>> = (0..9).map(|n| vec![n; 10_000]).collect();
        let replay = replay(&frames);
        let mut body = replay.again().unwrap();
        let first = read(&mut body, 3).await;
        assert!(replay.is_whole());
        let rest = read(&mut body, usize::MAX).await;
        assert!(!replay.is_whole() && replay.again().is_none());
        assert_eq!([first, rest].concat(), frames.concat());
    });
}

#[test]
fn two_attempts_read_side_by_side_what_has_come_whole() {
    block_on(async {
        let replay = replay(&[vec![1], vec![2], vec![3]]);
        let mut first = replay.again().unwrap();
        assert_eq!(read(&mut first, 2).await, [1, 2]);
        assert!(replay.beside().is_none(), "the first one is still reading");
        assert_eq!(read(&mut first, 9).await, [3]);
        let mut second = replay.beside().unwrap();
        assert_eq!(read(&mut second, 1).await, [1]);
        assert!(first.rewind());
        assert_eq!(read(&mut first, 2).await, [1, 2]);
        // One of them is answered, and the other one given up.
        drop((replay, first));
        assert_eq!(read(&mut second, 9).await, [2, 3]);
    });
}

#[test]
fn another_attempt_ends_those_side_by_side() {
    block_on(async {
        let replay = replay(&[vec![1], vec![2]]);
        let mut first = replay.again().unwrap();
        read(&mut first, 9).await;
        let mut second = replay.beside().unwrap();
        let mut third = replay.again().unwrap();
        assert!(second.frame().await.unwrap().is_err() && !first.rewind());
        assert_eq!(read(&mut third, 9).await, [1, 2]);
    });
}
