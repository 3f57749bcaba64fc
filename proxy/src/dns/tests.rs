use std::cell::{Cell, RefCell};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;

use hickory_resolver::config::{ConnectionConfig, NameServerConfig};
use hickory_resolver::proto::op::{Message, MessageType, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA};
use hickory_resolver::proto::rr::{RData, Record, RecordType};
use tokio::net::UdpSocket;

use super::*;

/// A name server that knows one set of addresses for every name.
pub(crate) struct Server {
    pub addresses: RefCell<Vec<IpAddr>>,
    pub ttl: Cell<u32>,
    pub code: Cell<ResponseCode>,
    pub queries: Cell<usize>,
    pub address: SocketAddr,
}

impl Server {
    pub(crate) async fn start(addresses: &[&str]) -> Rc<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port is free");
        let server = Rc::new(Self {
            addresses: RefCell::new(addresses.iter().map(|a| a.parse().expect("an address")).collect()),
            ttl: Cell::new(60),
            code: Cell::new(ResponseCode::NoError),
            queries: Cell::new(0),
            address: socket.local_addr().expect("it is bound"),
        });
        let serving = Rc::clone(&server);
        tokio::task::spawn_local(async move {
            let mut packet = [0; 1500];
            loop {
                let (length, from) = socket.recv_from(&mut packet).await.expect("it receives");
                let query = Message::from_vec(&packet[..length]).expect("a DNS message");
                let answer = serving.answer(&query).to_vec().expect("it can be encoded");
                socket.send_to(&answer, from).await.expect("it sends");
            }
        });
        server
    }

    fn answer(&self, query: &Message) -> Message {
        self.queries.set(self.queries.get() + 1);
        let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
        answer.metadata.message_type = MessageType::Response;
        answer.metadata.response_code = self.code.get();
        for question in &query.queries {
            for address in self.addresses.borrow().iter() {
                let data = match (address, question.query_type()) {
                    (IpAddr::V4(v4), RecordType::A) => RData::A(A(*v4)),
                    (IpAddr::V6(v6), RecordType::AAAA) => RData::AAAA(AAAA(*v6)),
                    _ => continue,
                };
                if self.code.get() == ResponseCode::NoError {
                    answer.add_answer(Record::from_rdata(question.name().clone(), self.ttl.get(), data));
                }
            }
            answer.add_query(question.clone());
        }
        answer
    }

    pub(crate) fn resolver(&self) -> Arc<Resolver> {
        let mut connection = ConnectionConfig::udp();
        connection.port = self.address.port();
        let server = NameServerConfig::new(self.address.ip(), true, vec![connection]);
        let mut options = ResolverOpts::default();
        options.attempts = 1;
        options.timeout = Duration::from_millis(500);
        Resolver::with(ResolverConfig::from_parts(None, vec![], vec![server]), options, Handle::current())
    }
}

#[tokio::test(flavor = "local")]
async fn both_families_are_found_and_kept_for_their_ttl() {
    let server = Server::start(&["127.0.0.7", "::7"]).await;
    let resolver = server.resolver();
    for _ in 0..5 {
        let addresses = resolver.addresses("db.example.com").await.expect("it is known");
        assert_eq!(
            &addresses[..],
            [IpAddr::from(Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 7)), Ipv4Addr::new(127, 0, 0, 7).into()]
        );
    }
    assert_eq!(server.queries.get(), 2, "one for each family");
}

#[tokio::test(flavor = "local")]
async fn a_changed_answer_is_seen_when_the_ttl_is_over() {
    let server = Server::start(&["127.0.0.7"]).await;
    server.ttl.set(0);
    let resolver = server.resolver();
    assert_eq!(resolver.addresses("db.example.com").await.expect("known")[0], IpAddr::from([127, 0, 0, 7]));
    server.addresses.borrow_mut()[0] = [127, 0, 0, 8].into();
    assert_eq!(resolver.addresses("db.example.com").await.expect("known")[0], IpAddr::from([127, 0, 0, 8]));
}

#[tokio::test(flavor = "local")]
async fn the_last_good_answer_stands_in_for_a_broken_server_and_not_for_a_gone_name() {
    let server = Server::start(&["127.0.0.7"]).await;
    server.ttl.set(0);
    let resolver = server.resolver();
    resolver.addresses("db.example.com").await.expect("known");
    server.code.set(ResponseCode::ServFail);
    assert_eq!(resolver.addresses("db.example.com").await.expect("known")[0], IpAddr::from([127, 0, 0, 7]));
    server.code.set(ResponseCode::NXDomain);
    let failure = resolver.addresses("db.example.com").await.expect_err("it is gone");
    assert_eq!(failure.reason, Reason::DnsFailed);
    assert!(failure.to_string().contains("db.example.com"), "{failure}");
    server.code.set(ResponseCode::ServFail);
    resolver.addresses("db.example.com").await.expect_err("nothing is remembered of it");
}

#[tokio::test(flavor = "local")]
async fn an_address_is_its_own_answer() {
    let server = Server::start(&[]).await;
    let resolver = server.resolver();
    assert_eq!(resolver.addresses("127.0.0.9").await.expect("known")[0], IpAddr::from([127, 0, 0, 9]));
    assert_eq!(server.queries.get(), 0);
}
