//! Uploads that are refused before they were read, over the one connection that the callers of a sidecar share (requirements 2.6, 2.8).

use bytes::Bytes;
use http::Response;
use http_body::Frame;
use http_body_util::BodyExt;
use outrigger_config::model::UpstreamHttp;
use parking_lot::Mutex;

use super::*;

/// How many are refused, so many of them at a time. Of most something comes after the stream is over, which the codec counts over the life of a connection: at its
/// default of 1,024 it would end this one. (At the 16,384 that a sidecar allows it was seen to end before 24,000 uploads.)
const UPLOADS: usize = 3_600;
const AT_A_TIME: usize = 60;

async fn upload(mut client: Http2) -> u16 {
    let (send, body) = frames();
    let rest = tokio::spawn(async move {
        // Within the window of a stream, so that nobody has to say that he goes on reading.
        for _ in 0..40 {
            if send.send(Frame::data(Bytes::from_static(&[b'x'; 1024]))).await.is_err() {
                return;
            }
        }
    });
    let answer = client.send(Request::post("http://s/").body(body).expect("valid")).await.status().as_u16();
    rest.await.expect("no panic");
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_refused_early_cost_other_callers_nothing() {
    let (said, body) = frames();
    let body = Arc::new(Mutex::new(Some(body)));
    let app = app(move |_| {
        // The first one who asks gets what is said here, all others a word.
        let body = body.lock().take().unwrap_or_else(|| text("ok"));
        async move { Response::new(body) }
    })
    .await;
    let spec = "rateLimit: {limits: [{name: uploads, requests: 1, per: 24h, match: [{methods: [POST]}]}]}";
    let callee = Callee::start(app, app, spec).await;
    let caller = caller(&[Service::new("s:80", &[callee.http]).http(UpstreamHttp::Http2)]);
    let mut other = Http2::connect(caller.outbound[0]).await;
    let stream = other.send(Request::get("http://s/").body(text("")).expect("valid")).await;
    assert_eq!(stream.status(), 200);
    let mut stream = stream.into_body();

    let one = Http2::connect(caller.outbound[0]).await;
    let first = upload(one.clone()).await;
    assert_eq!(first, 200, "the one that is allowed");
    for _ in 0..UPLOADS / AT_A_TIME {
        let uploads: Vec<_> = (0..AT_A_TIME).map(|_| tokio::spawn(upload(one.clone()))).collect();
        for refused in uploads {
            assert_eq!(refused.await.expect("an answer"), 429);
        }
        // The other caller's stream goes on, and so do its calls.
        said.send(Frame::data(Bytes::from_static(b"still here"))).await.expect("it is read");
        let frame = within("the stream goes on", stream.frame()).await.expect("it has not ended");
        assert_eq!(frame.expect("it was not cut").into_data().expect("data"), "still here");
        assert_eq!(other.get("http://s/").await.status, 200);
    }
    drop(said);
    let rest = within("the stream's own end", stream.collect()).await.expect("it was not cut");
    assert!(rest.to_bytes().is_empty());
    assert_eq!(callee.metric("outrigger_connections_opened_total", &["direction=\"inbound\""]).await, 1);
}
