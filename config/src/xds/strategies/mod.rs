//! Generated model values of every kind, for property tests: everything a resolver may make, corners included (no backend,
//! no weight, odd bytes in header values), and nothing the model rules out.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, StatusCode};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;

use crate::model::*;

mod access;
mod clusters;
mod faults;
mod limits;
mod listeners;
mod routes;
mod secrets;

use self::access::{access, call_match, peer_match, shared, spiffe_id};
use self::clusters::{adaptive, cluster, endpoints, hash, route_caps};
use self::faults::faults;
use self::limits::limits;
pub(crate) use self::listeners::destination;
use self::listeners::{gateway, inbound};
pub(crate) use self::routes::route_table;
use self::routes::{header_name, path, some_name};
use self::secrets::{secret, trust_bundle};

pub(crate) fn resource() -> impl Strategy<Value = Resource> {
    // Each boxed: on the stack of a test there is room for one of them, not for all.
    prop_oneof![
        destination().prop_map(|d| Resource::Listener(Listener::Destination(d))).boxed(),
        inbound().prop_map(|i| Resource::Listener(Listener::Inbound(i))).boxed(),
        gateway().prop_map(|g| Resource::Listener(Listener::Gateway(g))).boxed(),
        route_table().prop_map(Resource::RouteTable).boxed(),
        cluster().prop_map(Resource::Cluster).boxed(),
        endpoints().prop_map(Resource::Endpoints).boxed(),
        secret().prop_map(Resource::Secret).boxed(),
        trust_bundle().prop_map(Resource::TrustBundle).boxed(),
    ]
}

fn word() -> impl Strategy<Value = String> {
    "[a-z]([-a-z0-9]{0,8}[a-z0-9])?"
}

fn name() -> impl Strategy<Value = Arc<str>> {
    word().prop_map(Into::into)
}

/// Any text a field may hold.
fn text() -> impl Strategy<Value = Arc<str>> {
    "[ -~é☃]{0,12}".prop_map(Into::into)
}

fn origin() -> impl Strategy<Value = Origin> {
    (word(), word(), word(), text())
        .prop_map(|(kind, namespace, name, field)| Origin::new(&kind, &namespace, &name, &field))
}

fn service() -> impl Strategy<Value = ServiceRef> {
    (word(), word()).prop_map(|(namespace, name)| ServiceRef::new(&namespace, &name))
}

fn port() -> impl Strategy<Value = u16> + Clone {
    1..=u16::MAX
}

fn socket() -> impl Strategy<Value = SocketAddr> {
    let ip = prop_oneof![
        any::<[u8; 4]>().prop_map(std::net::IpAddr::from),
        any::<[u8; 16]>().prop_map(std::net::IpAddr::from),
    ];
    (ip, port()).prop_map(SocketAddr::from)
}

fn destination_name() -> impl Strategy<Value = DestinationName> {
    prop_oneof![
        (word(), word(), port()).prop_map(
            |(a, b, port)| DestinationName::new(&format!("{a}.{b}"), port).expect("a name and a port")
        ),
        socket().prop_map(|address| DestinationName::ip(address.ip(), address.port())),
    ]
}

fn cluster_name() -> impl Strategy<Value = ClusterName> {
    (port(), word()).prop_map(|(port, host)| ClusterName::outbound(port, "", &host))
}

fn table_name() -> impl Strategy<Value = RouteTableName> {
    word().prop_map(|name| RouteTableName::new(format!("outbound|80|{name}")))
}

fn secret_name() -> impl Strategy<Value = SecretName> {
    (word(), word()).prop_map(|(namespace, name)| SecretName::new(format!("{namespace}/{name}")))
}

fn host_pattern() -> impl Strategy<Value = HostPattern> {
    prop_oneof![
        Just("*".to_owned()),
        word(),
        (word(), word()).prop_map(|(a, b)| format!("{a}.{b}")),
        (word(), word()).prop_map(|(a, b)| format!("*.{a}.{b}")),
        Just("[::1]".to_owned()),
    ]
    .prop_map(|text| HostPattern::parse(&text).expect("a pattern"))
}

fn weight() -> impl Strategy<Value = u32> {
    prop_oneof![3 => Just(1), 1 => Just(0), 2 => 0..=1_000_000u32]
}

fn duration() -> impl Strategy<Value = Duration> {
    prop_oneof![
        (1..100_000_000_000u64).prop_map(Duration::from_nanos),
        (1..100_000u64).prop_map(Duration::from_secs),
    ]
}

fn fraction() -> impl Strategy<Value = Fraction> {
    (0..=1_000_000u32).prop_map(|n| Fraction::new(n, 1_000_000).expect("at most one"))
}
