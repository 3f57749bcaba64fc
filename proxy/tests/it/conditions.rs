//! Each failure a retry policy can name, made by a real endpoint: healed where it is named, passed on where it is not.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt;
use outrigger_config::model::{HeaderMatch, Retry, RetryOn, StringMatch, Timeouts, UpstreamHttp};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::harness::*;
use super::retries::suppressed;

/// What becomes of the first request; the second one is answered.
#[derive(Clone, Copy, Debug)]
enum First {
    Status(u16),
    /// 200, with a field the policy may know.
    Field,
    /// Read, then reset.
    Reset,
    /// REFUSED_STREAM.
    Refused,
    /// Read, and not answered.
    Silence,
}

async fn failing(first: First) -> (SocketAddr, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let at = match first {
        First::Status(_) | First::Field => {
            app(move |_| {
                let is_first = counted.fetch_add(1, Ordering::Relaxed) == 0;
                async move {
                    let mut response = Response::new(text("fine"));
                    match first {
                        First::Status(code) if is_first => {
                            *response.status_mut() = StatusCode::from_u16(code).unwrap();
                        }
                        First::Field if is_first => {
                            response.headers_mut().insert("x-again", HeaderValue::from_static("please"));
                        }
                        _ => {}
                    }
                    response
                }
            })
            .await
        }
        First::Reset | First::Silence => {
            bytes_app(move |mut stream: TcpStream| {
                let counted = counted.clone();
                async move {
                    let mut head = [0; 4096];
                    while stream.read(&mut head).await.is_ok_and(|count| count > 0) {
                        match (counted.fetch_add(1, Ordering::Relaxed), first) {
                            (0, First::Reset) => return stream.set_zero_linger().unwrap(),
                            (0, _) => continue,
                            _ => {}
                        }
                        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfine";
                        stream.write_all(answer).await.unwrap();
                    }
                }
            })
            .await
        }
        First::Refused => {
            http2(move |number, _, respond| {
                counted.fetch_add(1, Ordering::Relaxed);
                if number == 0 {
                    respond.send_reset(h2::Reason::REFUSED_STREAM);
                } else {
                    let mut body = respond.send_response(Response::new(()), false).unwrap();
                    body.send_data(Bytes::from_static(b"fine"), true).unwrap();
                }
            })
            .await
        }
    };
    (at, asked)
}

type Connection = h2::server::Connection<TcpStream, Bytes>;
type Respond = h2::server::SendResponse<Bytes>;

/// An app on the codec itself; `serve` gets the number of the request, of all connections.
async fn http2(serve: impl Fn(usize, &mut Connection, &mut Respond) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind((LOOPBACK, 0)).await.expect("a port");
    let at = listener.local_addr().expect("bound");
    let (serve, number) = (Arc::new(serve), Arc::new(AtomicUsize::new(0)));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (serve, number) = (serve.clone(), number.clone());
            tokio::spawn(async move {
                let mut connection: Connection = h2::server::handshake(stream).await.expect("HTTP/2");
                while let Some(Ok((_request, mut respond))) = connection.accept().await {
                    serve(number.fetch_add(1, Ordering::Relaxed), &mut connection, &mut respond);
                }
            });
        }
    });
    at
}

fn on(conditions: &[RetryOn]) -> Retry {
    Retry { on: conditions.to_vec(), ..Retry::default() }
}

fn service(at: SocketAddr, http: UpstreamHttp, retry: Option<Retry>, per_try: Option<Duration>) -> Service {
    let service = Service::new("app:80", &[at]).http(http);
    let mut rule = route("/", &service.cluster());
    rule.retry = retry.map(Arc::new);
    rule.timeouts = Timeouts { backend_request: per_try, ..Timeouts::default() };
    service.routes(vec![rule])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_condition_heals_its_failure_and_no_other() {
    use RetryOn::{GatewayError, Internal, RefusedStream, Reset, ServerError};
    let statuses = Retry { statuses: vec![StatusCode::CONFLICT], ..on(&[]) };
    let again =
        HeaderMatch { name: HeaderName::from_static("x-again"), value: StringMatch::Exact("please".into()) };
    let fields = Retry { headers: vec![again], ..on(&[]) };
    let slow = Some(Duration::from_millis(200));
    for (first, retry, status) in [
        (First::Status(500), on(&[ServerError]), 200),
        (First::Status(501), on(&[ServerError]), 200),
        (First::Status(503), on(&[ServerError]), 200),
        (First::Status(500), on(&[GatewayError, Reset]), 500),
        (First::Status(502), on(&[GatewayError]), 200),
        (First::Status(503), on(&[GatewayError]), 200),
        (First::Status(504), on(&[GatewayError]), 200),
        (First::Status(503), on(&[Reset]), 503),
        (First::Status(409), statuses.clone(), 200),
        (First::Status(404), statuses, 404),
        (First::Field, fields, 200),
        (First::Reset, on(&[Reset]), 200),
        (First::Reset, on(&[GatewayError]), 200), // It would become a 502.
        (First::Reset, on(&[ServerError]), 200),
        (First::Reset, on(&[RefusedStream, Internal]), 502),
        (First::Silence, on(&[GatewayError]), 200), // 504
        (First::Silence, on(&[Reset]), 504),
    ] {
        let (at, asked) = failing(first).await;
        let per_try = matches!(first, First::Silence).then_some(slow).flatten();
        let caller = caller(&[service(at, UpstreamHttp::AsReceived, Some(retry.clone()), per_try)]);
        let answer = Http1::connect(caller.outbound[0]).await.get("http://app/", "app").await;
        assert_eq!(answer.status, status, "{first:?} with {:?}: {answer:?}", retry.on);
        let attempts = if status == 200 { 2 } else { 1 };
        assert_eq!(asked.load(Ordering::Relaxed), attempts, "{first:?} with {:?}", retry.on);
    }
}

/// design.md section 5: what certainly was not processed is sent again without a policy, whatever its method, and with a policy, too, unless
/// that allows no attempt at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_not_processed_is_sent_again_unless_nothing_may_be() {
    let never = Retry { attempts: 0, ..Retry::default() };
    for (retry, healed) in [(None, true), (Some(on(&[RetryOn::Internal])), true), (Some(never), false)] {
        let (at, _) = failing(First::Refused).await;
        let refused = caller(&[service(at, UpstreamHttp::Http2, retry.clone(), None)]);
        let request = Request::post("http://app/").header("host", "app").body(text("paid once")).unwrap();
        let response = Http1::connect(refused.outbound[0]).await.send(request).await;
        assert_eq!(response.status() == 200, healed, "{retry:?}");
        // Nothing listens at the one, and the other is asked.
        let (gone, (at, asked)) =
            (SocketAddr::from((LOOPBACK, ports::free())), failing(First::Status(200)).await);
        let service = service(at, UpstreamHttp::AsReceived, retry.clone(), None);
        let caller = caller(&[Service { endpoints: vec![gone, at], ..service }]);
        let mut client = Http1::connect(caller.outbound[0]).await;
        let mut failed = 0;
        for _ in 0..20 {
            let request = Request::post("http://app/").header("host", "app").body(text("paid once")).unwrap();
            let answer = Answer::read(client.send(request).await).await;
            failed += usize::from(answer.status != 200);
        }
        assert_eq!(failed == 0, healed, "{failed} failed with {retry:?}");
        assert_eq!(asked.load(Ordering::Relaxed), 20 - failed, "each arrived once");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_grpc_status_is_healed_where_it_is_named() {
    let statuses = [
        (RetryOn::Cancelled, "1"),
        (RetryOn::DeadlineExceeded, "4"),
        (RetryOn::ResourceExhausted, "8"),
        (RetryOn::Internal, "13"),
        (RetryOn::Unavailable, "14"),
    ];
    for (named, _) in statuses {
        for (_, code) in statuses {
            for in_trailers in [false, true] {
                let at = grpc_failing(code, in_trailers, None).await;
                let caller = caller(&[service(at, UpstreamHttp::Http2, Some(on(&[named])), None)]);
                let healed = named.grpc_status() == code.parse().ok();
                let ended = call(&caller, &[]).await;
                let want = if healed { "0" } else { code };
                assert_eq!(ended, want, "{named:?} named, {code} came, in trailers: {in_trailers}");
            }
        }
    }
}

/// gRPC A6: a pushback is obeyed, and a negative one (or nonsense) forbids another attempt.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pushback_is_obeyed() {
    for (pushback, status) in [("10", "0"), ("-1", "14"), ("soon", "14"), ("600000", "14")] {
        for in_trailers in [false, true] {
            let at = grpc_failing("14", in_trailers, Some(pushback)).await;
            let retry = on(&[RetryOn::Unavailable]);
            let caller = caller(&[service(at, UpstreamHttp::Http2, Some(retry), None)]);
            assert_eq!(call(&caller, &[]).await, status, "{pushback}, in trailers: {in_trailers}");
            let forbidden = u64::from(status != "0");
            assert_eq!(suppressed(&caller, "retry_after").await, forbidden, "{pushback}");
        }
    }
}

/// What the hop before repeats already is not multiplied here, unless the policy asks for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_is_not_retried_unless_asked_for() {
    for (of_retries, status) in [(false, "14"), (true, "0")] {
        let at = grpc_failing("14", false, None).await;
        let retry = Retry { of_retries, ..on(&[RetryOn::Unavailable]) };
        let caller = caller(&[service(at, UpstreamHttp::Http2, Some(retry), None)]);
        assert_eq!(call(&caller, &[("x-outrigger-attempt", "2")]).await, status);
        assert_eq!(suppressed(&caller, "retry_of_retry").await, u64::from(!of_retries));
    }
}

/// A call to an app that fails the first one.
async fn grpc_failing(code: &'static str, in_trailers: bool, pushback: Option<&'static str>) -> SocketAddr {
    let asked = AtomicUsize::new(0);
    app(move |_| {
        let first = asked.fetch_add(1, Ordering::Relaxed) == 0;
        async move {
            let mut status = HeaderMap::new();
            status.insert("grpc-status", HeaderValue::from_static(if first { code } else { "0" }));
            if let Some(pushback) = pushback.filter(|_| first) {
                status.insert("grpc-retry-pushback-ms", HeaderValue::from_static(pushback));
            }
            let mut response = if !first {
                Response::new(with_trailers("message".into(), status))
            } else if in_trailers {
                let (send, body) = frames();
                tokio::spawn(async move { send.send(Frame::trailers(status)).await });
                Response::new(body)
            } else {
                let mut response = Response::new(text(""));
                response.headers_mut().extend(status);
                response
            };
            response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
            response
        }
    })
    .await
}

/// Calls `app` once; the status the call ended with.
async fn call(caller: &outrigger_proxy::app::Running, headers: &[(&str, &str)]) -> String {
    let request = Request::post("http://app/pkg.Service/Method").header("content-type", "application/grpc");
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let response =
        Http2::connect(caller.outbound[0]).await.send(request.body(text("request")).unwrap()).await;
    let only = response.headers().get("grpc-status").cloned();
    let body = within("the whole answer", response.into_body().collect()).await.unwrap();
    let status = only.or_else(|| body.trailers().and_then(|trailers| trailers.get("grpc-status").cloned()));
    status.expect("a call ends with a status").to_str().unwrap().to_owned()
}

/// Requirements 2.6: what an app that goes away now and then leaves out, or refuses, is no caller's business.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_that_goes_away_and_refuses_now_and_then_fails_no_call() {
    let at = http2(|number, connection, respond| {
        // Seldom enough that no call meets it in all of its attempts.
        if number % 150 == 7 {
            return respond.send_reset(h2::Reason::REFUSED_STREAM);
        }
        let mut body = respond.send_response(Response::new(()), false).expect("it is open");
        body.send_data(Bytes::from_static(b"fine"), true).expect("it is open");
        if number % 100 == 99 {
            connection.graceful_shutdown();
        }
    })
    .await;
    let caller = caller(&[service(at, UpstreamHttp::Http2, None, None)]);
    let client = Http2::connect(caller.outbound[0]).await;
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let mut client = client.clone();
        calls.spawn(async move {
            for number in 0..50 {
                let request = Request::post("http://app/").body(text(number.to_string())).unwrap();
                let answer = Answer::read(client.send(request).await).await;
                assert_eq!((answer.status, answer.body.as_str()), (200, "fine"), "{answer:?}");
            }
        });
    }
    while let Some(done) = calls.join_next().await {
        done.expect("no call failed");
    }
}
