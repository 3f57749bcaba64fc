//! What happens to requests and their answers.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_abort_hits_the_user_it_is_meant_for_until_the_file_is_gone() {
    for status in [500, 555] {
        let (at, asked) = counting().await;
        let fault = format!(
            "fault: {{faults: [{{name: jason, match: [{{headers: [{{name: end-user, value: jason}}]}}], abort: {{httpStatus: {status}}}}}]}}"
        );
        let mesh = Mesh::caller(at, at, &fault).await;
        let mut client = mesh.client().await;
        let hit = Answer::read(client.send(of_user("jason")).await).await;
        assert_eq!((hit.status, hit.reason()), (status, "fault_abort"));
        assert!(hit.body.contains("fault default/p jason of TrafficPolicy/default/p"), "{}", hit.body);
        assert_eq!(asked.load(Ordering::Relaxed), 0, "the app hears nothing of it");
        assert_eq!(Answer::read(client.send(of_user("mary")).await).await.status, 200);
        assert_eq!(mesh.done("kind=\"abort\"").await, 1);
        let labels = format!("code=\"{status}\"");
        assert_eq!(counted(&mesh.running, "outrigger_requests_total", &labels).await, 1);
        std::fs::remove_file(mesh.manifests.path().join("policy.yaml")).expect("it is there");
        within("the file's end", async {
            while Answer::read(client.send(of_user("jason")).await).await.status != 200 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delay_holds_up_and_is_bounded_by_the_request_s_own_time() {
    let (at, asked) = counting().await;
    let slow = "fault: {faults: [{match: [{methods: [GET]}], delay: {fixed: 300ms}}]}";
    let mesh = Mesh::caller(at, at, slow).await;
    let begun = Instant::now();
    assert_eq!(statuses(&mesh, 1).await, [200]);
    assert!(begun.elapsed() >= Duration::from_millis(300), "{:?}", begun.elapsed());

    let slower = "fault: {faults: [{delay: {fixed: 1h}}]}, timeout: {request: 100ms}";
    let mesh = Mesh::caller(at, at, slower).await;
    let answer = mesh.client().await.get("http://s/", "s").await;
    assert_eq!((answer.status, answer.reason()), (504, "request_timeout"));
    assert_eq!(asked.load(Ordering::Relaxed), 1, "it was never sent");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_seed_hits_the_same_requests() {
    let (at, _) = counting().await;
    let seeded =
        |seed: u64| format!("fault: {{seed: {seed}, faults: [{{percent: 30, abort: {{httpStatus: 503}}}}]}}");
    let first = statuses(&Mesh::caller(at, at, &seeded(7)).await, 200).await;
    let again = statuses(&Mesh::caller(at, at, &seeded(7)).await, 200).await;
    let other = statuses(&Mesh::caller(at, at, &seeded(8)).await, 200).await;
    assert_eq!(first, again);
    assert_ne!(first, other);
    let hit = first.iter().filter(|status| **status == 503).count();
    assert!((30..=90).contains(&hit), "{hit} of 200 at 30 %");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_is_one_over_either_version() {
    let (app, asked) = counting().await;
    let reset = "fault: {faults: [{match: [{paths: [{value: /bad}]}], abort: {reset: {}}}]}";
    let mesh = Mesh::caller(app, app, reset).await;
    let mut stream = TcpStream::connect(mesh.http).await.expect("it listens");
    stream.write_all(b"GET http://s/bad HTTP/1.1\r\nhost: s\r\n\r\n").await.expect("it reads");
    let mut said = Vec::new();
    let ended = within("the end", stream.read_to_end(&mut said)).await;
    assert!(said.is_empty(), "{ended:?}: {}", String::from_utf8_lossy(&said));

    let mut client = Http2::connect(mesh.http).await;
    let request = || Request::get("http://s/bad").body(text("")).expect("valid");
    assert!(client.try_send(request()).await.is_err(), "its stream is reset");
    assert_eq!(client.get("http://s/good").await.status, 200, "and no other");
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    assert_eq!(mesh.done("kind=\"reset\"").await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grpc_call_is_told_by_a_status_and_nothing_else() {
    let (app, asked) = counting().await;
    let fault = "fault: {faults: [{match: [{paths: [{value: /http}]}], abort: {httpStatus: 403}}, {abort: {grpcStatus: DATA_LOSS}}]}";
    let mesh = Mesh::caller(app, app, fault).await;
    let mut client = Http2::connect(mesh.http).await;
    let call = |path: &str| {
        let request = Request::post(format!("http://s{path}")).header("content-type", "application/grpc");
        request.header("te", "trailers").body(text("")).expect("valid")
    };
    // What HTTP has a status for is said in gRPC's words, too.
    for (path, status) in [("/pkg.Service/Method", "15"), ("/http/Method", "7")] {
        let answer = Answer::read(client.send(call(path)).await).await;
        assert_eq!((answer.status, answer.header("grpc-status")), (200, status), "{path}");
        assert_eq!(answer.header("content-type"), "application/grpc");
        assert!(
            answer.header("grpc-message").starts_with("fault_abort"),
            "{}",
            answer.header("grpc-message")
        );
        assert_eq!((answer.body.as_str(), answer.trailers), ("", None), "trailers-only");
    }
    assert_eq!(client.get("http://s/").await.status, 200, "it is no call");
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_come_slowly_or_break_off() {
    let app = app(|_| async { Response::new(text(vec![b'x'; 3_000])) }).await;
    let fault = "fault: {faults: [{match: [{paths: [{value: /slow}]}], throttle: {bytesPerSecond: 5000}}, \
                 {match: [{paths: [{value: /cut}]}], cut: {afterBytes: 1000}}, {match: [{paths: [{value: /long}]}], cut: {afterBytes: 3000}}]}";
    let mesh = Mesh::caller(app, app, fault).await;
    let begun = Instant::now();
    assert_eq!(mesh.client().await.get("http://s/slow", "s").await.body.len(), 3_000);
    assert!(begun.elapsed() >= Duration::from_millis(600), "{:?}", begun.elapsed());
    assert_eq!(mesh.client().await.get("http://s/long", "s").await.body.len(), 3_000, "it came whole");

    for http2 in [false, true] {
        let request = Request::get("http://s/cut").header("host", "s").body(text("")).expect("valid");
        let response = match http2 {
            false => mesh.client().await.send(request).await,
            true => Http2::connect(mesh.http).await.send(request).await,
        };
        assert_eq!(response.status(), 200);
        let (mut body, mut read) = (response.into_body(), 0);
        let broken = within("the end", async {
            loop {
                match body.frame().await {
                    Some(Ok(frame)) => read += frame.data_ref().map_or(0, bytes::Bytes::len),
                    Some(Err(_)) => return true,
                    None => return false,
                }
            }
        });
        assert!(broken.await, "it has no proper end");
        assert_eq!(read, 1_000, "HTTP/2: {http2}");
    }
    let told = counted(&mesh.running, "outrigger_requests_total", "reason=\"fault_cut\"").await;
    assert_eq!(told, 2, "not the endpoint's doing");
}

/// An app that answers gRPC calls with an OK in their trailers, or without body, and everything else with text.
async fn calling() -> SocketAddr {
    app(|request: Request<hyper::body::Incoming>| async move {
        let path = request.uri().path().to_owned();
        if !path.starts_with("/call") {
            return Response::new(text("well"));
        }
        let response = Response::builder().header("content-type", "application/grpc");
        if path.ends_with("only") {
            let response = response.header("grpc-status", "5").header("grpc-message", "none");
            return response.body(text("")).expect("valid");
        }
        let (sender, body) = frames();
        tokio::spawn(async move {
            let trailers = [("grpc-status", "0"), ("x-sum-bin", "AAEC")].map(|(name, value)| {
                (http::HeaderName::from_static(name), http::HeaderValue::from_static(value))
            });
            let _ = sender.send(http_body::Frame::data("answer".into())).await;
            let _ = sender.send(http_body::Frame::trailers(trailers.into_iter().collect())).await;
        });
        response.body(body).expect("valid")
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trailers_arrive_and_say_nothing_anybody_understands() {
    let app = calling().await;
    let call = |path: &str| {
        let request = Request::post(format!("http://s{path}")).header("content-type", "application/grpc");
        request.header("te", "trailers").body(text("")).expect("valid")
    };
    for at in ["Caller", "CallerBehindRetries"] {
        let spec = format!(
            "circuitBreaker: {{ejection: {{consecutiveErrors: 2}}}}, fault: {{at: {at}, faults: [{{corruptTrailers: {{}}}}]}}"
        );
        let mesh = Mesh::caller(app, app, &spec).await;
        let mut client = Http2::connect(mesh.http).await;
        for _ in 0..5 {
            let answer = Answer::read(client.send(call("/call")).await).await;
            let trailers = answer.trailers.as_ref().expect("they are still there");
            assert_eq!((answer.status, answer.body.as_str()), (200, "answer"), "{at}");
            assert!(
                trailers["grpc-status"].to_str().expect("a text").parse::<u16>().is_err(),
                "{trailers:?}"
            );
            assert_ne!(trailers["x-sum-bin"], "AAEC");
        }
        let only = Answer::read(client.send(call("/call/only")).await).await;
        assert!(only.header("grpc-status").parse::<u16>().is_err(), "{only:?}");
        assert_ne!(only.header("grpc-message"), "none");
        assert_eq!(client.get("http://s/").await.body, "well", "without trailers there is nothing to break");
        // Those without trailers of a kind are hit, too, and nothing comes of it.
        assert_eq!(mesh.done("kind=\"trailers\"").await, 7, "{at}");
        let told = counted(&mesh.running, "outrigger_requests_total", "reason=\"fault_trailers\"").await;
        assert!(told >= 5, "{at}: {told}");
        assert_eq!(
            counted(&mesh.running, "outrigger_ejections_total", "").await,
            0,
            "nobody is blamed for it"
        );
    }

    // Callers do not blame the endpoint for what its proxy broke.
    let callee = Mesh::callee(app, app, "fault: {at: Callee, faults: [{corruptTrailers: {}}]}").await;
    let spec = "circuitBreaker: {ejection: {consecutiveErrors: 2, errors: Server}}, retry: {attempts: 0}";
    let caller = Mesh::caller(callee.http, callee.tcp, spec).await;
    let mut client = Http2::connect(caller.http).await;
    for _ in 0..10 {
        let answer = Answer::read(client.send(call("/call")).await).await;
        let trailers = answer.trailers.as_ref().expect("they are still there");
        assert!(trailers["grpc-status"].to_str().expect("a text").parse::<u16>().is_err(), "{trailers:?}");
    }
    assert_eq!(counted(&caller.running, "outrigger_ejections_total", "").await, 0);
}
