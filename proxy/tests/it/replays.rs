//! Bodies that are sent more than once arrive byte for byte, whatever happens to the attempts before.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::Frame;
use outrigger_config::model::{Backoff, Fraction, Retry, RetryBudget, RetryMethods, RetryOn, UpstreamHttp};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::net::TcpListener;

use super::harness::*;

/// What an endpoint does with one attempt.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// Says that it did nothing with it, after having read so many bytes.
    Refuse(usize),
    /// Breaks it off after so many bytes.
    Reset(usize),
    /// Reads it, so many bytes at a time, and answers with what it got.
    Serve(usize),
}

/// The attempts to come, and what was read of each.
#[derive(Debug, Default)]
struct Script {
    fates: Vec<Fate>,
    read: Vec<Vec<u8>>,
}

async fn endpoint(script: Arc<Mutex<Script>>) -> SocketAddr {
    let listener = TcpListener::bind((LOOPBACK, 0)).await.expect("a port");
    let at = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let script = script.clone();
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
                while let Some(Ok((request, respond))) = connection.accept().await {
                    tokio::spawn(attempt(request, respond, script.clone()));
                }
            });
        }
    });
    at
}

async fn attempt(
    request: Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    script: Arc<Mutex<Script>>,
) {
    let (number, fate) = {
        let mut script = script.lock();
        script.read.push(Vec::new());
        let number = script.read.len() - 1;
        (number, script.fates.get(number).copied().unwrap_or(Fate::Serve(usize::MAX)))
    };
    let (most, code) = match fate {
        Fate::Refuse(most) => (most, Some(h2::Reason::REFUSED_STREAM)),
        Fate::Reset(most) => (most, Some(h2::Reason::INTERNAL_ERROR)),
        Fate::Serve(_) => (usize::MAX, None),
    };
    let mut body = request.into_body();
    let mut read = 0;
    while read < most {
        let Some(Ok(data)) = body.data().await else { break };
        read += data.len();
        script.lock().read[number].extend_from_slice(&data);
        let mut left = data.len();
        let step = if let Fate::Serve(step) = fate { step } else { usize::MAX };
        while left > 0 {
            let now = left.min(step);
            // Room is given back little by little: the body goes in drops.
            let _ = body.flow_control().release_capacity(now);
            left -= now;
            tokio::task::yield_now().await;
        }
    }
    if let Some(code) = code {
        return respond.send_reset(code);
    }
    let got = script.lock().read[number].clone();
    if let Ok(mut stream) = respond.send_response(Response::new(()), false) {
        let _ = stream.send_data(got.len().to_string().into(), true);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_copy_of_a_body_is_the_body() {
    let script = Arc::new(Mutex::new(Script::default()));
    let service = Service::new("app:80", &[endpoint(script.clone()).await]).http(UpstreamHttp::Http2);
    let mut rule = route("/", &service.cluster());
    rule.retry = Some(Arc::new(Retry {
        on: vec![RetryOn::Reset, RetryOn::RefusedStream],
        methods: RetryMethods::Listed(vec![Method::POST]),
        backoff: Backoff { base: Duration::from_millis(1), max: Duration::from_millis(1) },
        budget: RetryBudget { share: Fraction::ALL, per_second: 1_000, ..RetryBudget::default() },
        ..Retry::default()
    }));
    let caller = caller(&[service.routes(vec![rule])]);
    let mut http2 = Http2::connect(caller.outbound[0]).await;
    for seed in 0..300 {
        let mut rng = StdRng::seed_from_u64(seed);
        let size = match rng.random_range(0..4) {
            0 => rng.random_range(0..64),
            1 => rng.random_range(0..100_000),
            _ => rng.random_range(0..60_000),
        };
        let body: Vec<u8> = (0..size).map(|_| rng.random()).collect();
        let fates = (0..rng.random_range(0..3)).map(|_| {
            let most = rng.random_range(0..size + 1);
            if rng.random() { Fate::Refuse(most) } else { Fate::Reset(most) }
        });
        let mut fates: Vec<Fate> = fates.collect();
        fates.push(Fate::Serve(rng.random_range(1_000..40_000)));
        let failures = fates.len() - 1;
        *script.lock() = Script { fates: fates.clone(), read: Vec::new() };

        let (send, frames) = frames();
        let mut pieces = Vec::new();
        let mut rest = Bytes::from(body.clone());
        while !rest.is_empty() {
            pieces.push(rest.split_to(rng.random_range(1..20_000).min(rest.len())));
        }
        let pauses: Vec<bool> = pieces.iter().map(|_| rng.random_ratio(1, 8)).collect();
        tokio::spawn(async move {
            for (piece, pause) in pieces.into_iter().zip(pauses) {
                if pause {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                if send.send(Frame::data(piece)).await.is_err() {
                    return;
                }
            }
        });
        let request = Request::post("http://app/").header("host", "app").body(frames).expect("valid");
        let response = if seed % 2 == 0 {
            http2.send(request).await
        } else {
            Http1::connect(caller.outbound[0]).await.send(request).await
        };
        let answer = Answer::read(response).await;

        let case = format!("seed {seed}: {size} bytes, {fates:?}: {} {}", answer.status, answer.body);
        let script = script.lock();
        for read in &script.read {
            assert!(body.starts_with(read), "{case}: an attempt read other bytes, {} of them", read.len());
        }
        if answer.status == 200 {
            assert_eq!(answer.body, size.to_string(), "{case}");
            assert_eq!(script.read.len(), failures + 1, "{case}");
            assert!(script.read.last() == Some(&body), "{case}");
        } else {
            assert!(size > 60_000 && failures > 0, "{case}");
        }
    }
}
