//! `inbound`: the ports of one workload, as Envoy would serve them behind redirection to 15006, each to the cluster
//! `inbound|PORT||`.

use std::sync::Arc;

use super::super::at::{At, Unsupported};
use super::super::pb::{self, listener as proto};
use super::super::{access, faults, fields, limits, own};
use super::chain::{Chain, Content};
use super::{HTTP_INSPECTOR, ORIGINAL_DST, Parts, any_address, inspector};
use crate::model::{
    Action, Backend, BackendTarget, ClusterName, Forward, HostPattern, Inbound, InboundPort, Listener,
    Origin, PathMatch, Protocol, Route, RouteMatch, RouteTable, RouteTableName, TcpForward, Timeouts,
    VirtualHost, WeightedCluster,
};

/// Where redirected inbound connections arrive (Istio's port).
const INBOUND_PORT: u16 = 15006;

pub(super) fn encode(inbound: &Inbound) -> proto::Listener {
    let own = own::Inbound {
        workload: Some((&inbound.workload).into()),
        ports: inbound
            .ports
            .iter()
            .map(|port| own::InboundPort {
                port: port.port.into(),
                protocol: own::Protocol::from(port.protocol) as i32,
                app: port.app.to_string(),
                service: port.service.as_ref().map(Into::into),
                origin: port.origin.as_ref().map(Into::into),
                mtls: Some((&port.mtls).into()),
                limits: limits::encode(&port.limits),
                faults: port.faults.iter().map(|faults| faults::encode(faults)).collect(),
            })
            .collect(),
        settings: Some((&inbound.settings).into()),
        mtls: Some((&inbound.mtls).into()),
        access: Some(access::encode(&inbound.access)),
    };
    proto::Listener {
        name: Listener::INBOUND.into(),
        address: any_address(INBOUND_PORT),
        traffic_direction: pb::core::TrafficDirection::Inbound as i32,
        filter_chains: inbound.ports.iter().flat_map(chains).map(Chain::into_message).collect(),
        listener_filters: vec![inspector(ORIGINAL_DST), inspector(HTTP_INSPECTOR)],
        metadata: own::metadata(&own),
        ..Default::default()
    }
}

fn chains(port: &InboundPort) -> Vec<Chain> {
    let cluster = ClusterName::inbound(port.port);
    let http = || Chain {
        port: Some(port.port),
        sniffed_http: port.protocol == Protocol::Detect,
        ..Chain::new(format!("{}|http", port.port), Content::HttpInline(to_app(&cluster)))
    };
    let tcp = || Chain {
        port: Some(port.port),
        ..Chain::new(
            format!("{}|tcp", port.port),
            Content::Tcp(TcpForward {
                backends: vec![WeightedCluster { cluster: cluster.clone(), weight: 1 }],
                idle: None,
                faults: None,
            }),
        )
    };
    match port.protocol {
        Protocol::Http | Protocol::Http2 => vec![http()],
        Protocol::Tcp | Protocol::Tls => vec![tcp()],
        Protocol::Detect => vec![http(), tcp()],
    }
}

/// Every request to the app.
fn to_app(cluster: &ClusterName) -> RouteTable {
    let backend = Backend {
        target: BackendTarget::Cluster(cluster.clone()),
        weight: 1,
        request_headers: Default::default(),
        response_headers: Default::default(),
        rewrite: None,
    };
    let route = Route {
        name: "default".into(),
        origin: Origin::new("Listener", "", Listener::INBOUND, ""),
        matches: RouteMatch { path: PathMatch::prefix("/"), method: None, headers: vec![], query: vec![] },
        request_headers: Default::default(),
        response_headers: Default::default(),
        cors: None,
        mirrors: vec![],
        timeouts: Timeouts::default(),
        retry: None,
        caps: None,
        faults: None,
        hash: vec![],
        action: Action::Forward(Forward { backends: vec![backend], rewrite: Default::default() }),
    };
    RouteTable {
        name: RouteTableName::new(cluster.as_str()),
        hosts: vec![VirtualHost { domains: vec![HostPattern::Any], routes: vec![route] }],
    }
}

/// Who the workload is and where its app listens, Envoy's messages leave to the bootstrap and to static clusters: without
/// our metadata an inbound listener means nothing to our proxy.
pub(super) fn decode(parts: Parts) -> Result<Inbound, Unsupported> {
    let at = At::ROOT;
    let metadata = at.field("metadata");
    let own_at = own::at(&metadata);
    let own: own::Inbound = own::unpack(parts.metadata, &at)?.ok_or_else(|| own_at.missing())?;
    let mut ports = Vec::with_capacity(own.ports.len());
    for (i, port) in own.ports.into_iter().enumerate() {
        let at = own_at.index("ports", i);
        ports.push(InboundPort {
            port: fields::port(port.port, &at.field("port"))?,
            protocol: own::enumeration::<own::Protocol, _>(port.protocol, &at.field("protocol"))?,
            app: port
                .app
                .parse()
                .map_err(|_| at.field("app").refuse(format!("{:?} is not IP:PORT", port.app)))?,
            service: port.service.map(Into::into),
            mtls: own::Mtls::into_model(port.mtls, &at.field("mtls"))?,
            limits: limits::decode(port.limits, &at.field("limits"))?,
            faults: port
                .faults
                .into_iter()
                .enumerate()
                .map(|(i, own)| faults::decode(own, &at.index("faults", i)).map(Arc::new))
                .collect::<Result<_, _>>()?,
            origin: port.origin.map(Into::into),
        });
    }
    // The chains only say again what the ports say; but what they ask for beyond our words must not be lost in silence.
    for (i, chain) in parts.filter_chains.into_iter().enumerate() {
        let at = at.index("filter_chains", i);
        let chain = Chain::from_message(chain, &at)?;
        if !ports.iter().any(|port| Some(port.port) == chain.port) || chain.certificates.is_some() {
            return Err(at.refuse(format!("belongs to none of the ports of {own_at}")));
        }
    }
    if parts.default_filter_chain.is_some() {
        return Err(at.field("default_filter_chain").unsupported());
    }
    let settings = own.settings.ok_or_else(|| own_at.field("settings").missing())?;
    Ok(Inbound {
        workload: own.workload.ok_or_else(|| own_at.field("workload").missing())?.into(),
        ports,
        mtls: own::Mtls::into_model(own.mtls, &own_at.field("mtls"))?,
        access: access::decode(own.access, &own_at.field("access"))?.into(),
        settings: settings.into_model(&own_at.field("settings"))?,
    })
}
