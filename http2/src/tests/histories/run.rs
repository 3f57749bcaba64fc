//! The exchanges of a history, whoever carries them: what each side sends and has to receive, and what became of it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{sleep, timeout};

use super::plan::{self, End, Exchange, Message, Reset};
use super::sides::{Broken, Receives, Sends};

/// What became of one direction of an exchange, at both ends.
#[derive(Debug, Default)]
struct Way {
    sent: Option<Result<(), Broken>>,
    /// How often a head came.
    heads: u32,
    bytes: usize,
    received: Option<Result<(), Broken>>,
}

#[derive(Debug, Default)]
pub struct Record {
    /// A stream was opened for it.
    opened: bool,
    request: Way,
    response: Way,
}

pub struct Run {
    pub exchanges: Vec<Exchange>,
    pub records: RefCell<Vec<Record>>,
    /// What runs beside; a panic there is one here.
    pub beside: RefCell<Vec<JoinHandle<()>>>,
}

type Fields = BTreeMap<String, Vec<(Vec<u8>, bool)>>;

/// `sensitive`: whoever received them says which of them are.
fn fields(headers: &HeaderMap, sensitive: bool) -> Fields {
    let mut fields = Fields::new();
    for (name, value) in headers.iter().filter(|(name, _)| *name != http::header::DATE) {
        let value = (value.as_bytes().to_vec(), sensitive && value.is_sensitive());
        fields.entry(name.to_string()).or_default().push(value);
    }
    fields
}

fn headers(fields: &[plan::Field]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value, sensitive) in fields {
        let mut value = HeaderValue::try_from(value).expect("a value");
        value.set_sensitive(*sensitive);
        headers.append(HeaderName::try_from(name).expect("a name"), value);
    }
    headers
}

fn head(message: &Message) -> HeaderMap {
    let mut headers = headers(&message.fields);
    if message.announced {
        headers.insert(http::header::CONTENT_LENGTH, message.length().into());
    }
    headers
}

/// What is at `at` in the body of an exchange.
fn byte(nth: usize, request: bool, at: usize) -> u8 {
    (at ^ (at >> 8) ^ (nth * 31) ^ (usize::from(request) * 77)) as u8
}

impl Run {
    pub fn beside(&self, task: impl Future<Output = ()> + 'static) {
        self.beside.borrow_mut().push(spawn_local(task));
    }

    /// What panicked beside, if something did.
    pub async fn settle(&self) {
        for task in self.beside.take() {
            if task.is_finished() {
                task.await.expect("nothing panics");
            }
        }
    }

    fn message(&self, nth: usize, request: bool) -> &Message {
        if request { &self.exchanges[nth].request } else { &self.exchanges[nth].response }
    }

    fn way<T>(&self, nth: usize, request: bool, f: impl FnOnce(&mut Way) -> T) -> T {
        let record = &mut self.records.borrow_mut()[nth];
        f(if request { &mut record.request } else { &mut record.response })
    }

    /// Sends what comes behind the head; gives the stream up when the plan says so.
    async fn send(&self, nth: usize, request: bool, send: &mut impl Sends) {
        let reset = self.exchanges[nth].reset.filter(|reset| reset.by_client == request);
        let sent = match reset {
            Some(Reset { after, code, .. }) => {
                let sent = timeout(Duration::from_millis(after), self.send_all(nth, request, send)).await;
                send.reset(code);
                sent.unwrap_or(Err(Broken::Reset(code)))
            }
            None => self.send_all(nth, request, send).await,
        };
        self.way(nth, request, |way| way.sent = Some(sent));
    }

    async fn send_all(&self, nth: usize, request: bool, send: &mut impl Sends) -> Result<(), Broken> {
        let message = self.message(nth, request);
        if message.is_head() {
            return Ok(());
        }
        let mut at = 0;
        for (n, piece) in message.pieces.iter().enumerate() {
            sleep(Duration::from_millis(message.pause)).await;
            let data: Bytes = (at..at + piece).map(|at| byte(nth, request, at)).collect();
            at += piece;
            let last = n + 1 == message.pieces.len() && message.trailers.is_none();
            send.data(data, last).await?;
        }
        match &message.trailers {
            Some(trailers) => send.trailers(headers(trailers)),
            None => Ok(()),
        }
    }

    async fn receive<R: Receives>(&self, nth: usize, request: bool, head: &HeaderMap, recv: &mut R) {
        let message = self.message(nth, request);
        let mut want = self::head(message);
        if request {
            want.insert("x-nth", nth.into());
        }
        assert_eq!(fields(head, R::SENSITIVE), fields(&want, R::SENSITIVE), "the head of {nth}");
        self.way(nth, request, |way| way.heads += 1);
        let received = self.receive_all(nth, request, recv).await;
        self.way(nth, request, |way| way.received = received);
    }

    /// `None`: who reads did not want all of it.
    async fn receive_all<R: Receives>(
        &self,
        nth: usize,
        request: bool,
        recv: &mut R,
    ) -> Option<Result<(), Broken>> {
        let message = self.message(nth, request);
        let mut at = 0;
        loop {
            sleep(Duration::from_millis(message.reading.pause)).await;
            if message.reading.stops.is_some_and(|stops| at >= stops) {
                return None;
            }
            match recv.data().await {
                Some(Ok(data)) => {
                    let want = |n: usize| byte(nth, request, at + n);
                    assert!(
                        data.iter().enumerate().all(|(n, byte)| *byte == want(n)),
                        "the body of {nth} at {at}"
                    );
                    at += data.len();
                    self.way(nth, request, |way| way.bytes = at);
                    assert!(at <= message.length(), "{nth}: {at} bytes");
                    recv.release(data.len());
                }
                Some(Err(error)) => return Some(Err(error)),
                None => break,
            }
        }
        let trailers = match recv.trailers().await {
            Ok(trailers) => trailers.unwrap_or_default(),
            Err(error) => return Some(Err(error)),
        };
        assert_eq!(at, message.length(), "an end of {nth}");
        let want = headers(message.trailers.as_deref().unwrap_or_default());
        assert_eq!(fields(&trailers, R::SENSITIVE), fields(&want, R::SENSITIVE), "the trailers of {nth}");
        Some(Ok(()))
    }

    /// The server's half of an exchange.
    pub async fn answer<S: Sends, R: Receives>(
        &self,
        request: Request<()>,
        mut recv: R,
        respond: impl FnOnce(Response<()>, bool) -> Result<S, Broken>,
    ) {
        let nth: usize = request.headers()["x-nth"].to_str().expect("text").parse().expect("a number");
        assert_eq!(request.uri().path(), format!("/{nth}"));
        let exchange = &self.exchanges[nth];
        let receive = async {
            self.receive(nth, true, request.headers(), &mut recv).await;
            drop(recv);
        };
        let send = async {
            let mut response = Response::new(());
            *response.headers_mut() = head(&exchange.response);
            match respond(response, exchange.response.is_head()) {
                Ok(mut send) => self.send(nth, false, &mut send).await,
                Err(error) => self.way(nth, false, |way| way.sent = Some(Err(error))),
            }
        };
        if exchange.early {
            tokio::join!(receive, send);
        } else {
            receive.await;
            send.await;
        }
    }

    /// The client's half, from where its stream is open.
    pub async fn ask<S: Sends, R: Receives>(
        &self,
        nth: usize,
        mut send: S,
        response: impl Future<Output = Result<Response<R>, Broken>>,
    ) {
        self.records.borrow_mut()[nth].opened = true;
        let sending = async {
            self.send(nth, true, &mut send).await;
            send
        };
        let receiving = async {
            match response.await {
                Ok(response) => {
                    let (head, mut recv) = response.into_parts();
                    self.receive(nth, false, &head.headers, &mut recv).await;
                }
                Err(error) => self.way(nth, false, |way| way.received = Some(Err(error))),
            }
        };
        tokio::join!(sending, receiving);
    }

    pub fn request(&self, nth: usize) -> (Request<()>, bool) {
        let message = &self.exchanges[nth].request;
        let mut request = Request::post(format!("http://app.test/{nth}")).body(()).expect("valid");
        *request.headers_mut() = head(message);
        request.headers_mut().insert("x-nth", nth.into());
        (request, message.is_head())
    }

    /// `end`: how the connection ended with streams under way.
    pub fn check(&self, end: Option<End>) {
        for (nth, (record, exchange)) in self.records.borrow().iter().zip(&self.exchanges).enumerate() {
            let say = || format!("{nth} of a connection that ends by {end:?}: {exchange:?}: {record:?}");
            let Record { opened, request, response } = record;
            assert!(request.heads <= 1 && response.heads <= 1, "once: {}", say());
            assert!(*opened || request.heads == 0, "{}", say());
            assert!(*opened || end.is_some(), "each is opened: {}", say());
            if end == Some(End::Cut) || !opened {
                continue;
            }
            let unseen = request.heads == 0;
            // Opened, but not yet on its way when the server said that it goes: told so, and it can be sent elsewhere.
            if unseen && end == Some(End::Leave) && response.received == Some(Err(Broken::GoneAway)) {
                continue;
            }
            for (way, message) in [(request, &exchange.request), (response, &exchange.response)] {
                if exchange.is_calm() {
                    assert_eq!((way.sent, way.received), (Some(Ok(())), Some(Ok(()))), "{}", say());
                    continue;
                }
                for ended in [way.sent, way.received].into_iter().flatten() {
                    match ended {
                        Ok(()) | Err(Broken::Otherwise) => {}
                        Err(Broken::GoneAway) => panic!("{}", say()),
                        // Given up by the plan, or by letting go of what is not wanted.
                        Err(Broken::Reset(code)) => {
                            let planned = exchange.reset.map(|reset| reset.code);
                            assert!([Some(0), Some(8), planned].contains(&Some(code)), "{}", say());
                        }
                    }
                }
                let whole = way.received == Some(Ok(()));
                assert!(!whole || way.bytes == message.length(), "{}", say());
            }
        }
    }
}
