//! Where traffic comes in: destinations, inbound ports, gateways.

use super::*;

fn tcp_forward() -> impl Strategy<Value = TcpForward> {
    let backend =
        (cluster_name(), weight()).prop_map(|(cluster, weight)| WeightedCluster { cluster, weight });
    (vec(backend, 0..4), option::of(duration()), option::weighted(0.2, faults()))
        .prop_map(|(backends, idle, faults)| TcpForward { backends, idle, faults })
}

fn tls_routes() -> impl Strategy<Value = Vec<TlsRoute>> {
    let route = (host_pattern(), tcp_forward(), origin());
    vec(route.prop_map(|(sni, forward, origin)| TlsRoute { sni, forward, origin }), 0..4)
}

fn protocol() -> impl Strategy<Value = Protocol> {
    prop::sample::select(vec![
        Protocol::Detect,
        Protocol::Http,
        Protocol::Http2,
        Protocol::Tcp,
        Protocol::Tls,
    ])
}

pub(crate) fn destination() -> impl Strategy<Value = Destination> {
    let parts = (
        destination_name(),
        option::of(service()),
        protocol(),
        table_name(),
        tls_routes(),
        tcp_forward(),
        option::of(origin()),
    );
    parts.prop_map(|(name, service, protocol, routes, tls, tcp, origin)| Destination {
        name,
        service,
        protocol,
        routes,
        tls,
        tcp,
        origin,
    })
}

fn settings() -> impl Strategy<Value = ProxySettings> {
    let egress = prop::sample::select(vec![Egress::AllowAny, Egress::RegistryOnly]);
    let mode = prop::sample::select(vec![AccessLogMode::Off, AccessLogMode::Errors, AccessLogMode::All]);
    (egress, mode, fraction(), name(), duration()).prop_map(
        |(egress, mode, sampling, trust_domain, app_idle_timeout)| ProxySettings {
            egress,
            access_log: AccessLog { mode, sampling },
            trust_domain,
            app_idle_timeout,
        },
    )
}

pub(crate) fn inbound() -> impl Strategy<Value = Inbound> {
    let parts = (
        port(),
        protocol(),
        socket(),
        option::of(service()),
        mtls(),
        limits(),
        vec(faults(), 0..2),
        option::of(origin()),
    );
    let port = parts.prop_map(|(port, protocol, app, service, mtls, limits, faults, origin)| InboundPort {
        port,
        protocol,
        app,
        service,
        mtls,
        limits,
        faults,
        origin,
    });
    let workload = (name(), name(), name()).prop_map(|(namespace, name, service_account)| WorkloadRef {
        namespace,
        name,
        service_account,
    });
    (workload, vec(port, 0..4), mtls(), access().prop_map(Arc::new), settings()).prop_map(
        |(workload, ports, mtls, access, settings)| Inbound { workload, ports, mtls, access, settings },
    )
}

fn mtls() -> impl Strategy<Value = Mtls> {
    let modes = vec![MtlsMode::Strict, MtlsMode::Permissive, MtlsMode::Disabled];
    (prop::sample::select(modes), option::of(origin())).prop_map(|(mode, origin)| Mtls { mode, origin })
}

pub(crate) fn gateway() -> impl Strategy<Value = Gateway> {
    let protocol = prop_oneof![
        table_name().prop_map(|routes| GatewayProtocol::Http { routes }),
        (vec(secret_name(), 0..3), table_name())
            .prop_map(|(certificates, routes)| GatewayProtocol::Https { certificates, routes }),
        tcp_forward().prop_map(|forward| GatewayProtocol::Tcp { forward }),
        tls_routes().prop_map(|routes| GatewayProtocol::TlsPassthrough { routes }),
        (vec(secret_name(), 0..3), tcp_forward())
            .prop_map(|(certificates, forward)| GatewayProtocol::TlsTerminate { certificates, forward }),
    ];
    let listener = (name(), host_pattern(), protocol, origin())
        .prop_map(|(name, hostname, protocol, origin)| GatewayListener { name, hostname, protocol, origin });
    let ports = btree_map(port(), vec(listener, 0..4), 0..4).prop_map(|ports| {
        ports.into_iter().map(|(port, listeners)| GatewayPort { port, listeners }).collect()
    });
    (name(), name(), ports, settings()).prop_map(|(namespace, name, ports, settings)| Gateway {
        namespace,
        name,
        ports,
        settings,
    })
}
