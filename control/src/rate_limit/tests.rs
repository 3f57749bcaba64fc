use std::net::SocketAddr;
use std::time::Duration;

use outrigger_config::xds::pb::ratelimit::rate_limit_service_client::RateLimitServiceClient;
use outrigger_config::xds::pb::ratelimit_descriptor::rate_limit_descriptor::{Entry, RateLimitOverride};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tonic::Code as GrpcCode;
use tonic::transport::Channel;

use super::store::{Memory, Redis};
use super::*;
use server::Redis as Server;

#[path = "../../../cli/tests/support/peers.rs"]
mod peers;
#[path = "../../../proxy/tests/it/ports.rs"]
mod ports;
#[path = "../../tests/support/redis.rs"]
mod server;

fn ask(limit: u32, unit: u64, hits: i64) -> Ask {
    Ask { limit, unit, hits }
}

#[test]
fn nothing_is_allowed_twice_at_the_edge_of_a_unit() {
    let memory = Memory::default();
    let take = |now, hits| memory.take(&[("k".into(), ask(100, 1_000, hits))], now)[0];
    assert!(take(999, 100).fits, "all of it at the end of a unit");
    assert!(!take(1_000, 1).fits, "a millisecond later, in another");
    assert_eq!(take(1_500, 50).remaining, 0, "half of it is half a unit ago");
    assert!(!take(1_500, 1).fits);
    assert_eq!(take(1_500, -10).remaining, 10, "given back");
    assert_eq!(take(1_500, 10), window::Answer { fits: true, remaining: 0, reset: 500 });
    assert_eq!(take(10_000, 1).remaining, 99);
    assert!(!take(10_000, 101).fits, "more than there ever is");
}

/// A refusal says when what was asked for will be there: then it is, and not much earlier.
#[test]
fn a_refusal_says_when_to_come_back() {
    for seed in 0..500 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let limit = [1, 7, 300, 100_000][rng.random_range(0..4)];
        let unit = [1_000, 60_000][rng.random_range(0..2)];
        let memory = Memory::default();
        let take = |now, hits| memory.take(&[("k".into(), ask(limit, unit, hits))], now)[0];
        let mut now = rng.random_range(0..unit);
        for _ in 0..40 {
            now += rng.random_range(0..unit / 4);
            let hits = rng.random_range(1..=i64::from(limit));
            let answer = take(now, hits);
            if answer.fits {
                continue;
            }
            assert!((1..=2 * unit).contains(&answer.reset), "seed {seed}: {answer:?}");
            if answer.reset > unit / 1_000 + 1 {
                assert!(!take(now + answer.reset - unit / 1_000 - 1, hits).fits, "seed {seed}: sooner");
            }
            now += answer.reset;
            assert!(take(now, hits).fits, "seed {seed}: {hits} of {limit} are not there after {answer:?}");
        }
        assert_eq!(take(now, i64::from(limit) + 1).reset, unit - now % unit, "what there never is");
    }
}

#[test]
fn an_even_load_gets_the_limit_and_no_more() {
    let memory = Memory::default();
    let admitted =
        (0..10_000).step_by(2).filter(|now| memory.take(&[("k".into(), ask(300, 1_000, 1))], *now)[0].fits);
    let admitted = admitted.count();
    assert!((2_850..=3_150).contains(&admitted), "{admitted} in ten seconds of 300");
}

#[test]
fn what_one_key_refuses_no_other_has_counted() {
    let memory = Memory::default();
    let both = [("narrow".to_owned(), ask(1, 1_000, 1)), ("wide".to_owned(), ask(100, 1_000, 1))];
    assert!(memory.take(&both, 0).iter().all(|answer| answer.fits));
    let refused = memory.take(&both, 1);
    assert_eq!(refused.iter().map(|answer| answer.fits).collect::<Vec<_>>(), [false, true]);
    assert_eq!(memory.take(&both[1..], 2)[0].remaining, 98);
}

#[test]
fn memory_is_bounded_and_forgets_what_is_over() {
    let memory = Memory::default();
    let take = |key: u32, now| memory.take(&[(key.to_string(), ask(5, 1_000, 1))], now)[0].fits;
    assert_eq!((0..110_000).filter(|key| take(*key, 0)).count(), 100_000 + 5, "the last ones share one");
    assert_eq!((0..10).filter(|_| take(7, 1)).count(), 4, "none was forgotten");
    assert!(take(200_000, 5_000) && take(200_001, 5_000), "there is room again");
}

fn redis(server: &Server) -> Redis {
    match Store::redis(&server.url()).expect("a valid URL") {
        Store::Redis(redis) => redis,
        Store::Memory(_) => unreachable!("asked for Redis"),
    }
}

/// Waits for a connection, which is made when it is first used.
async fn counted(redis: &Redis, asks: &[(String, Ask)], now: u64) -> Vec<window::Answer> {
    for _ in 0..100 {
        match redis.take(asks, now).await {
            Ok(answers) => return answers,
            Err(error) => println!("again: {error}"),
        }
    }
    panic!("Redis does not count");
}

#[tokio::test]
async fn redis_counts_as_memory_does() {
    if !peers::present("redis_counts_as_memory_does", &["redis-server"]) {
        return;
    }
    let server = Server::start(ports::free()).await;
    let (redis, memory) = (redis(&server), Memory::default());
    for seed in 0..20 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let unit = [1_000, 60_000, 365 * 24 * 3_600_000][rng.random_range(0..3)];
        let mut now = 1_700_000_000_000 + rng.random_range(0..unit);
        for step in 0..100 {
            now += rng.random_range(0..unit / 5);
            let one = |n: u32, rng: &mut SmallRng| {
                let limit = [3, 50, u32::MAX][n as usize % 3];
                let hits = if rng.random_range(0..5) == 0 {
                    -rng.random_range(1..4)
                } else {
                    rng.random_range(1..9)
                };
                (format!("{seed}-{n}"), ask(limit, unit, hits))
            };
            let asks: Vec<_> = (0..rng.random_range(1..4)).map(|n| one(n, &mut rng)).collect();
            let want = memory.take(&asks, now);
            assert_eq!(counted(&redis, &asks, now).await, want, "seed {seed}, step {step}: {asks:?}");
        }
    }
}

#[tokio::test]
async fn three_servers_share_one_limit() {
    if !peers::present("three_servers_share_one_limit", &["redis-server"]) {
        return;
    }
    let server = Server::start(ports::free()).await;
    let stores = [redis(&server), redis(&server), redis(&server)];
    let asks = [("shared".to_owned(), ask(300, 1_000, 1))];
    let mut admitted = 0;
    for now in (1_000_000..1_005_000).step_by(5) {
        let [a, b, c] = stores.each_ref().map(|store| counted(store, &asks, now));
        let (a, b, c) = tokio::join!(a, b, c);
        admitted += [a, b, c].iter().filter(|answers| answers[0].fits).count();
    }
    assert!((1_425..=1_575).contains(&admitted), "{admitted} in five seconds of 300");
}

async fn client(store: Store) -> RateLimitServiceClient<Channel> {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let at: SocketAddr = listener.local_addr().expect("bound");
    tokio::spawn(serve(listener, None, store, std::future::pending()));
    RateLimitServiceClient::connect(format!("http://{at}")).await.expect("it listens")
}

fn call(entries: &[(&str, &str)], limit: Option<(u32, RateLimitUnit)>) -> RateLimitRequest {
    let entry = |(key, value): &(&str, &str)| Entry { key: (*key).into(), value: (*value).into() };
    let limit = limit.map(|(limit, unit)| RateLimitOverride { requests_per_unit: limit, unit: unit as i32 });
    let descriptor = RateLimitDescriptor {
        entries: entries.iter().map(entry).collect(),
        limit,
        ..RateLimitDescriptor::default()
    };
    RateLimitRequest { domain: "d".into(), descriptors: vec![descriptor], hits_addend: 0 }
}

#[tokio::test]
async fn the_call_is_answered_by_the_limit_it_carries() {
    let mut client = client(Store::memory()).await;
    let hourly = Some((2, RateLimitUnit::Hour));
    let mut codes = Vec::new();
    for _ in 0..3 {
        let answer =
            client.should_rate_limit(call(&[("a", "b")], hourly)).await.expect("an answer").into_inner();
        codes.push((answer.overall_code(), answer.statuses[0].limit_remaining));
        let limit = answer.statuses[0].current_limit.as_ref().expect("it is limited");
        assert_eq!((limit.requests_per_unit, limit.unit()), (2, rate_limit::Unit::Hour));
        // A refused call waits until what was taken in this hour weighs less in the next one.
        assert!(answer.statuses[0].duration_until_reset.is_some_and(|reset| reset.seconds < 2 * 3_600));
    }
    assert_eq!(codes, [(Code::Ok, 1), (Code::Ok, 0), (Code::OverLimit, 0)]);
    for other in [call(&[("ab", "")], hourly), call(&[("a", "c")], hourly), call(&[("a", "b")], None)] {
        let answer = client.should_rate_limit(other).await.expect("an answer").into_inner();
        assert_eq!(answer.overall_code(), Code::Ok);
    }
    let unknown = call(&[("a", "b")], Some((2, RateLimitUnit::Unknown)));
    let many = RateLimitRequest { descriptors: vec![RateLimitDescriptor::default(); 65], ..call(&[], None) };
    for wrong in [RateLimitRequest::default(), unknown, many] {
        let refused = client.should_rate_limit(wrong).await.expect_err("it is refused");
        assert_eq!(refused.code(), GrpcCode::InvalidArgument);
    }
}

#[tokio::test]
async fn redis_may_go_and_come_back() {
    if !peers::present("redis_may_go_and_come_back", &["redis-server"]) {
        return;
    }
    let server = Server::start(ports::free()).await;
    let (port, url) = (server.port, server.url());
    let mut client = client(Store::redis(&url).expect("a valid URL")).await;
    let daily = || call(&[("a", "b")], Some((1_000, RateLimitUnit::Day)));
    let until = async |client: &mut RateLimitServiceClient<Channel>, want: GrpcCode| {
        for _ in 0..200 {
            let got =
                client.should_rate_limit(daily()).await.map_or_else(|status| status.code(), |_| GrpcCode::Ok);
            if got == want {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("it does not answer {want:?}");
    };
    until(&mut client, GrpcCode::Ok).await;
    drop(server);
    until(&mut client, GrpcCode::Unavailable).await;
    let _server = Server::start(port).await;
    until(&mut client, GrpcCode::Ok).await;
}
