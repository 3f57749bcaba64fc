//! `gateway|NAMESPACE/NAME`: all ports of a gateway in one listener, told apart by `destination_port`.

use super::super::at::{At, Unsupported};
use super::super::pb::{self, listener as proto};
use super::super::{fields, own};
use super::chain::{Chain, Content, forward, unsaid};
use super::{Parts, TLS_INSPECTOR, any_address, inspector};
use crate::model::{
    Gateway, GatewayListener, GatewayPort, GatewayProtocol, HostPattern, Origin, ProxySettings, SecretName,
    TcpForward, TlsRoute,
};

pub(super) fn encode(gateway: &Gateway) -> proto::Listener {
    let mut addresses = gateway.ports.iter().map(|port| any_address(port.port));
    let own = own::Gateway {
        settings: Some((&gateway.settings).into()),
        ports: gateway
            .ports
            .iter()
            .map(|port| own::GatewayPort {
                port: port.port.into(),
                listeners: port.listeners.iter().map(own_listener).collect(),
            })
            .collect(),
    };
    proto::Listener {
        name: Gateway::resource_name(&gateway.namespace, &gateway.name),
        address: addresses.next().flatten(),
        additional_addresses: addresses
            .map(|address| proto::AdditionalAddress { address, ..Default::default() })
            .collect(),
        traffic_direction: pb::core::TrafficDirection::Outbound as i32,
        filter_chains: gateway.ports.iter().flat_map(chains).map(Chain::into_message).collect(),
        listener_filters: vec![inspector(TLS_INSPECTOR)],
        metadata: own::metadata(&own),
        ..Default::default()
    }
}

fn own_listener(listener: &GatewayListener) -> own::GatewayListener {
    let mut message = own::GatewayListener {
        name: listener.name.to_string(),
        hostname: listener.hostname.to_string(),
        origin: Some((&listener.origin).into()),
        ..Default::default()
    };
    let protocol = match &listener.protocol {
        GatewayProtocol::Http { routes } => {
            message.routes = routes.to_string();
            own::GatewayProtocol::Http
        }
        GatewayProtocol::Https { .. } => own::GatewayProtocol::Https,
        GatewayProtocol::Tcp { forward } => {
            message.forward = unsaid(forward);
            own::GatewayProtocol::Tcp
        }
        GatewayProtocol::TlsPassthrough { routes } => {
            message.tls = routes
                .iter()
                .map(|route| own::TlsRoute {
                    origin: Some((&route.origin).into()),
                    forward: unsaid(&route.forward),
                })
                .collect();
            own::GatewayProtocol::TlsPassthrough
        }
        GatewayProtocol::TlsTerminate { forward, .. } => {
            message.forward = unsaid(forward);
            own::GatewayProtocol::TlsTerminate
        }
    };
    message.protocol = protocol as i32;
    message
}

fn chains(port: &GatewayPort) -> Vec<Chain> {
    let mut chains = Vec::new();
    // Envoy sees no Host before it has chosen a chain: of several plain HTTP listeners it gets the least specific one.
    let plain = port
        .listeners
        .iter()
        .filter(|listener| matches!(listener.protocol, GatewayProtocol::Http { .. }))
        .min_by_key(|listener| listener.hostname.specificity());
    for listener in &port.listeners {
        let mut add = |content, sni: Option<&HostPattern>, certificates: Option<&Vec<SecretName>>| {
            let chain = Chain::new(format!("{}|{}|{}", port.port, listener.name, chains.len()), content);
            let chain = match sni {
                Some(sni) => chain.for_sni(sni),
                None => chain,
            };
            chains.push(Chain { port: Some(port.port), certificates: certificates.cloned(), ..chain });
        };
        match &listener.protocol {
            GatewayProtocol::Http { routes } => {
                if plain.is_some_and(|plain| std::ptr::eq(plain, listener)) {
                    add(Content::Http(routes.clone()), None, None);
                }
            }
            GatewayProtocol::Https { certificates, routes } => {
                add(Content::Http(routes.clone()), Some(&listener.hostname), Some(certificates));
            }
            GatewayProtocol::Tcp { forward } => add(Content::Tcp(forward.clone()), None, None),
            GatewayProtocol::TlsPassthrough { routes } => {
                for route in routes {
                    add(Content::Tcp(route.forward.clone()), Some(&route.sni), None);
                }
            }
            GatewayProtocol::TlsTerminate { certificates, forward } => {
                add(Content::Tcp(forward.clone()), Some(&listener.hostname), Some(certificates));
            }
        }
    }
    chains
}

pub(super) fn decode(namespace: &str, name: &str, parts: Parts) -> Result<Gateway, Unsupported> {
    let at = At::ROOT;
    let own: Option<own::Gateway> = own::unpack(parts.metadata, &at)?;
    if parts.default_filter_chain.is_some() {
        return Err(at.field("default_filter_chain").unsupported());
    }
    if parts.api_listener.is_some() {
        return Err(at.field("api_listener").unsupported());
    }
    let mut chains = Vec::with_capacity(parts.filter_chains.len());
    for (i, chain) in parts.filter_chains.into_iter().enumerate() {
        chains.push(Chain::from_message(chain, &at.index("filter_chains", i))?);
    }
    let (ports, settings) = match own {
        Some(own) => {
            let metadata = at.field("metadata");
            let own_at = own::at(&metadata);
            let settings = own.settings.ok_or_else(|| own_at.field("settings").missing())?;
            (ours(own.ports, chains, &own_at)?, settings.into_model(&own_at.field("settings"))?)
        }
        None => {
            let port = match parts.address {
                // With several addresses, a chain has to say which of their ports it is for.
                Some(_) if !parts.additional_addresses.is_empty() => None,
                Some(address) => Some(fields::host_and_port(Some(address), &at.field("address"))?.1),
                None => None,
            };
            let resource = Gateway::resource_name(namespace, name);
            (foreign(chains, port, &resource)?, ProxySettings::default())
        }
    };
    Ok(Gateway { namespace: namespace.into(), name: name.into(), ports, settings })
}

/// The listeners our metadata names, each with the chains that follow.
fn ours(
    own: Vec<own::GatewayPort>,
    chains: Vec<Chain>,
    at: &At<'_>,
) -> Result<Vec<GatewayPort>, Unsupported> {
    let mut ports = Vec::with_capacity(own.len());
    let mut chains = chains.into_iter();
    for (i, port) in own.into_iter().enumerate() {
        let at = at.index("ports", i);
        let number = fields::port(port.port, &at.field("port"))?;
        let mut listeners = Vec::with_capacity(port.listeners.len());
        for (i, listener) in port.listeners.into_iter().enumerate() {
            listeners.push(our_listener(listener, &mut chains, &at.index("listeners", i))?);
        }
        // The chain of the port's plain HTTP listeners stands among the others; its routes are known from the metadata.
        ports.push(GatewayPort { port: number, listeners });
    }
    match chains.find(|chain| !plain_http(chain)) {
        None => Ok(ports),
        Some(chain) => Err(at.field("ports").refuse(format!("names no listener for chain {:?}", chain.name))),
    }
}

fn plain_http(chain: &Chain) -> bool {
    chain.certificates.is_none() && !chain.tls && matches!(chain.content, Content::Http(_))
}

fn our_listener(
    own: own::GatewayListener,
    chains: &mut impl Iterator<Item = Chain>,
    at: &At<'_>,
) -> Result<GatewayListener, Unsupported> {
    let hostname = HostPattern::parse(&own.hostname)
        .ok_or_else(|| at.field("hostname").refuse(format!("{:?} is not a host pattern", own.hostname)))?;
    let mut next = || chains.find(|chain| !plain_http(chain)).ok_or_else(|| at.refuse("has no filter chain"));
    let mismatch = || at.field("protocol").refuse("its filter chain is of another kind");
    let kind = own::GatewayProtocol::try_from(own.protocol)
        .map_err(|_| at.field("protocol").refuse(format!("{} is not known", own.protocol)))?;
    let protocol = match kind {
        own::GatewayProtocol::Http => {
            if own.routes.is_empty() {
                return Err(at.field("routes").missing());
            }
            GatewayProtocol::Http { routes: own.routes.as_str().into() }
        }
        own::GatewayProtocol::Https => match next()? {
            Chain { content: Content::Http(routes), certificates: Some(certificates), .. } => {
                GatewayProtocol::Https { certificates, routes }
            }
            _ => return Err(mismatch()),
        },
        own::GatewayProtocol::Tcp => {
            GatewayProtocol::Tcp { forward: tcp_forward(next()?, own.forward, at, mismatch)?.1 }
        }
        own::GatewayProtocol::TlsTerminate => {
            let (certificates, forward) = tcp_forward(next()?, own.forward, at, mismatch)?;
            GatewayProtocol::TlsTerminate { certificates: certificates.ok_or_else(mismatch)?, forward }
        }
        own::GatewayProtocol::TlsPassthrough => {
            let mut routes = Vec::with_capacity(own.tls.len().min(1024));
            for (i, route) in own.tls.into_iter().enumerate() {
                let at = at.index("tls", i);
                let mut chain = next()?;
                let sni = chain.sni.pop().unwrap_or(HostPattern::Any);
                routes.push(TlsRoute {
                    sni,
                    forward: tcp_forward(chain, route.forward, &at, mismatch)?.1,
                    origin: route.origin.ok_or_else(|| at.field("origin").missing())?.into(),
                });
            }
            GatewayProtocol::TlsPassthrough { routes }
        }
    };
    Ok(GatewayListener {
        name: own.name.into(),
        hostname,
        protocol,
        origin: own.origin.ok_or_else(|| at.field("origin").missing())?.into(),
    })
}

type Terminated = (Option<Vec<SecretName>>, TcpForward);

fn tcp_forward(
    chain: Chain,
    own: Option<own::TcpForward>,
    at: &At<'_>,
    mismatch: impl Fn() -> Unsupported,
) -> Result<Terminated, Unsupported> {
    let said = match chain.content {
        Content::Tcp(forward) => forward,
        Content::Close => TcpForward::default(),
        Content::Http(_) | Content::HttpInline(_) => return Err(mismatch()),
    };
    let forward = own.map(|own| forward(own, &at.field("forward"))).unwrap_or(Ok(said))?;
    Ok((chain.certificates, forward))
}

/// Another control plane's gateway: each chain is a listener, for each of its server names.
fn foreign(
    chains: Vec<Chain>,
    default_port: Option<u16>,
    resource: &str,
) -> Result<Vec<GatewayPort>, Unsupported> {
    let mut ports: Vec<GatewayPort> = Vec::new();
    for (i, chain) in chains.into_iter().enumerate() {
        let at = At::ROOT.index("filter_chains", i);
        let number = chain
            .port
            .or(default_port)
            .ok_or_else(|| at.field("filter_chain_match").field("destination_port").missing())?;
        if chain.sniffed_http {
            return Err(at.field("filter_chain_match").field("application_protocols").unsupported());
        }
        let origin = Origin::new("Listener", "", resource, &format!("filter_chains[{i}]"));
        let names = if chain.sni.is_empty() { vec![HostPattern::Any] } else { chain.sni };
        let port = match ports.iter_mut().position(|port| port.port == number) {
            Some(known) => &mut ports[known],
            None => {
                ports.push(GatewayPort { port: number, listeners: Vec::new() });
                let last = ports.len() - 1;
                &mut ports[last]
            }
        };
        for (j, hostname) in names.into_iter().enumerate() {
            let protocol = match (&chain.content, &chain.certificates, chain.tls) {
                (Content::HttpInline(_), ..) => {
                    return Err(at
                        .field("filters")
                        .refuse("an inline route_config is not supported here; use rds"));
                }
                (Content::Http(routes), Some(certificates), _) => {
                    GatewayProtocol::Https { certificates: certificates.clone(), routes: routes.clone() }
                }
                (Content::Http(_), None, true) => {
                    return Err(at.field("transport_socket").refuse("missing, and the chain matches TLS"));
                }
                (Content::Http(routes), None, false) => GatewayProtocol::Http { routes: routes.clone() },
                (content, Some(certificates), _) => GatewayProtocol::TlsTerminate {
                    certificates: certificates.clone(),
                    forward: tcp_content(content),
                },
                (content, None, true) => GatewayProtocol::TlsPassthrough {
                    routes: vec![TlsRoute {
                        sni: hostname.clone(),
                        forward: tcp_content(content),
                        origin: origin.clone(),
                    }],
                },
                (content, None, false) => GatewayProtocol::Tcp { forward: tcp_content(content) },
            };
            let name = if chain.name.is_empty() { format!("{i}|{j}") } else { format!("{}|{j}", chain.name) };
            port.listeners.push(GatewayListener {
                name: name.into(),
                hostname,
                protocol,
                origin: origin.clone(),
            });
        }
    }
    for port in &mut ports {
        port.listeners.sort_by_key(|listener| std::cmp::Reverse(listener.hostname.specificity()));
    }
    Ok(ports)
}

fn tcp_content(content: &Content) -> TcpForward {
    match content {
        Content::Tcp(forward) => forward.clone(),
        _ => TcpForward::default(),
    }
}
