//! Heads: their spelling, their versions, and what comes before the last of them.

use super::scene::Step::{End, Send, Shut, Until};
use super::scene::same_both_ways;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_order_and_reason_are_what_they_were() {
    let (asked, answer) = same_both_ways(
        &[
            Send("GET /a?b=%2f&c HTTP/1.1\r\nX-Z: 1\r\nHOST: app:80\r\nX-request-ID: r\r\nSOAPAction: \"x\"\r\nx-z: 2\r\nX-Z: 3\r\n\r\n"),
            Until("\r\n\r\nok"),
        ],
        &[
            Send("HTTP/1.1 200 Quite Fine\r\nSET-COOKIE: a=1\r\nX-b: 1\r\nsEt-cookie: b=2\r\nContent-LENGTH: 2\r\n\r\nok"),
            End,
        ],
    )
    .await;
    let want = "GET /a?b=%2f&c HTTP/1.1\r\nX-Z: 1\r\nHOST: app:80\r\nX-request-ID: r\r\nSOAPAction: \"x\"\r\nx-z: 2\r\nX-Z: 3\r\n";
    assert!(asked.starts_with(want), "{asked}");
    let want = "HTTP/1.1 200 Quite Fine\r\nSET-COOKIE: a=1\r\nX-b: 1\r\nsEt-cookie: b=2\r\nContent-LENGTH: 2\r\n\r\nok";
    assert_eq!(answer, want);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn to_close_is_each_hops_own_business() {
    // The client's.
    let (asked, answer) = same_both_ways(
        &[Send("GET / HTTP/1.1\r\nHost: app:80\r\nX-Request-Id: r\r\nX-Hop: 1\r\nConnection: close, x-hop\r\n\r\n"), End],
        &[Send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nKeep-Alive: timeout=5\r\n\r\nok"), End],
    )
    .await;
    assert!(!asked.to_ascii_lowercase().contains("connection:") && !asked.contains("X-Hop"), "{asked}");
    assert!(answer.contains("Connection: close\r\n") && answer.ends_with("ok"), "{answer}");
    assert!(!answer.contains("Keep-Alive"), "{answer}");
    // The app's: the client goes on.
    let (_, answer) = same_both_ways(
        &[
            Send("GET / HTTP/1.1\r\nHost: app:80\r\nX-Request-Id: r\r\n\r\n"),
            Until("\r\n\r\nok"),
            Send("GET /nowhere HTTP/1.1\r\nHost: other:80\r\nConnection: close\r\n\r\n"),
            End,
        ],
        &[Send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"), Shut, End],
    )
    .await;
    assert!(!answer.split("ok").next().unwrap_or_default().contains("close"), "{answer}");
    assert!(answer.matches("HTTP/1.1 ").count() == 2, "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_before_the_answer_comes_in_order() {
    let (asked, answer) = same_both_ways(
        &[
            Send("POST / HTTP/1.1\r\nHost: app:80\r\nX-Request-Id: r\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"),
            Until("HTTP/1.1 100 Continue\r\n\r\n"),
            Send("body"),
            Until("\r\n\r\nok"),
        ],
        &[
            Until("\r\n\r\nbody"),
            Send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLINK: </a>\r\n\r\n"),
            Send("HTTP/1.1 102 Working\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
            End,
        ],
    )
    .await;
    assert!(asked.ends_with("\r\n\r\nbody") && !asked.contains("Expect"), "{asked}");
    let want = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLINK: </a>\r\n\r\nHTTP/1.1 102 Working\r\n\r\nHTTP/1.1 200 OK\r\n";
    assert!(answer.starts_with(want), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_1_0_is_answered_as_it_asks() {
    let (asked, answer) = same_both_ways(
        &[Send("GET / HTTP/1.0\r\nHost: app:80\r\nX-Request-Id: r\r\n\r\n"), End],
        &[Send("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"), End],
    )
    .await;
    assert!(asked.starts_with("GET / HTTP/1.1\r\n"), "{asked}");
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n") && answer.ends_with("\r\n\r\nok"), "{answer}");
    assert!(!answer.contains("chunked"), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_of_http_1_0_is_understood() {
    let (_, answer) = same_both_ways(
        &[Send("GET / HTTP/1.1\r\nHost: app:80\r\nX-Request-Id: r\r\n\r\n"), Until("\r\n0\r\n\r\n")],
        &[Send("HTTP/1.0 200 OK\r\nX-Old: 1\r\n\r\nto the end"), Shut, End],
    )
    .await;
    assert!(answer.contains("X-Old: 1\r\n") && answer.contains("to the end"), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_without_a_body_have_none() {
    const CLOSE: &str = "Host: app:80\r\nX-Request-Id: r\r\nConnection: close\r\n\r\n";
    for (ask, say) in [
        (Send("HEAD / HTTP/1.1\r\n"), Send("HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n")),
        (Send("GET / HTTP/1.1\r\n"), Send("HTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n")),
        (
            Send("GET / HTTP/1.1\r\n"),
            Send("HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nContent-Length: 9\r\n\r\n"),
        ),
    ] {
        let client = vec![ask, Send(CLOSE), End].leak();
        let (_, answer) = same_both_ways(client, vec![say, End].leak()).await;
        assert!(answer.ends_with("\r\n\r\n") && !answer.contains("chunked"), "{answer}");
    }
}
