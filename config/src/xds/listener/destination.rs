//! `outbound|HOST:PORT`: what one address an app asks for means.
//!
//! TLS by server name first, then HTTP, then the rest by `default_filter_chain`, as Envoy tries them.

use super::super::at::{At, Unsupported};
use super::super::pb::{self, listener as proto};
use super::super::{fields, own};
use super::chain::{Chain, Content, forward, unsaid};
use super::{HTTP_INSPECTOR, Parts, TLS_INSPECTOR, inspector};
use crate::model::{
    Destination, DestinationName, HostPattern, Origin, Protocol, RouteTableName, TcpForward, TlsRoute,
};

pub(super) fn encode(destination: &Destination) -> proto::Listener {
    let mut chains: Vec<_> = destination
        .tls
        .iter()
        .enumerate()
        .map(|(i, route)| {
            Chain::new(format!("tls|{i}"), Content::Tcp(route.forward.clone())).for_sni(&route.sni)
        })
        .collect();
    let speaks_http = matches!(destination.protocol, Protocol::Http | Protocol::Http2 | Protocol::Detect);
    if speaks_http {
        let mut http = Chain::new("http", Content::Http(destination.routes.clone()));
        http.sniffed_http = destination.protocol == Protocol::Detect;
        chains.push(http);
    }
    let mut filters = Vec::new();
    if !destination.tls.is_empty() {
        filters.push(inspector(TLS_INSPECTOR));
    }
    if destination.protocol == Protocol::Detect {
        filters.push(inspector(HTTP_INSPECTOR));
    }
    let own = own::Destination {
        service: destination.service.as_ref().map(Into::into),
        protocol: own::Protocol::from(destination.protocol) as i32,
        routes: (!speaks_http).then(|| destination.routes.to_string()),
        origin: destination.origin.as_ref().map(Into::into),
        tls: destination
            .tls
            .iter()
            .map(|route| own::TlsRoute {
                origin: Some((&route.origin).into()),
                forward: unsaid(&route.forward),
            })
            .collect(),
        tcp: unsaid(&destination.tcp),
    };
    proto::Listener {
        name: destination.name.resource_name(),
        // Of a name, only the client that asked knows an address.
        address: destination
            .name
            .as_ip()
            .and_then(|ip| fields::address(&ip.to_string(), destination.name.port())),
        // Reached through the outbound port's original destination, never opened itself.
        bind_to_port: fields::bool_value(false),
        traffic_direction: pb::core::TrafficDirection::Outbound as i32,
        filter_chains: chains.into_iter().map(Chain::into_message).collect(),
        default_filter_chain: Some(Chain::new("tcp", Content::Tcp(destination.tcp.clone())).into_message()),
        listener_filters: filters,
        metadata: own::metadata(&own),
        ..Default::default()
    }
}

/// Without our metadata: an HTTP connection manager for all makes the protocol HTTP, one for what looks like HTTP makes it
/// detected, a TCP proxy alone makes it TCP, and an API listener (what gRPC clients get) is HTTP.
pub(super) fn decode(name: DestinationName, parts: Parts) -> Result<Destination, Unsupported> {
    let at = At::ROOT;
    let own: Option<own::Destination> = own::unpack(parts.metadata, &at)?;
    let mut found = Found::default();
    for (i, chain) in parts.filter_chains.into_iter().enumerate() {
        let at = at.index("filter_chains", i);
        found.add(Chain::from_message(chain, &at)?, name.port(), &at)?;
    }
    if let Some(chain) = parts.default_filter_chain {
        let at = at.field("default_filter_chain");
        found.add_default(Chain::from_message(chain, &at)?, &at)?;
    }
    if let Some(api) = parts.api_listener {
        let at = at.field("api_listener");
        let any = api.api_listener.ok_or_else(|| at.field("api_listener").missing())?;
        let filter = proto::Filter {
            config_type: Some(proto::filter::ConfigType::TypedConfig(any)),
            ..Default::default()
        };
        let chain = proto::FilterChain { filters: vec![filter], ..Default::default() };
        found.add(Chain::from_message(chain, &at)?, name.port(), &at)?;
    }
    let resource_name = name.resource_name();
    let Some(own) = own else {
        return Ok(Destination {
            protocol: found.protocol(),
            routes: found.routes.unwrap_or_else(|| resource_name.as_str().into()),
            tls: found
                .tls
                .into_iter()
                .map(|(sni, forward, i)| TlsRoute {
                    sni,
                    forward,
                    origin: Origin::new("Listener", "", &resource_name, &format!("filter_chains[{i}]")),
                })
                .collect(),
            tcp: found.tcp.unwrap_or_default(),
            service: None,
            origin: None,
            name,
        });
    };
    let metadata = at.field("metadata");
    let own_at = own::at(&metadata);
    if own.tls.len() != found.tls.len() {
        return Err(own_at.field("tls").refuse("has not as many entries as there are TLS filter chains"));
    }
    let mut tls = Vec::with_capacity(own.tls.len());
    for (i, ((sni, said, _), route)) in found.tls.into_iter().zip(own.tls).enumerate() {
        let at = own_at.index("tls", i);
        tls.push(TlsRoute {
            sni,
            forward: route.forward.map(|own| forward(own, &at.field("forward"))).unwrap_or(Ok(said))?,
            origin: route.origin.ok_or_else(|| at.field("origin").missing())?.into(),
        });
    }
    Ok(Destination {
        service: own.service.map(Into::into),
        protocol: own::enumeration::<own::Protocol, _>(own.protocol, &own_at.field("protocol"))?,
        routes: match own.routes.map(RouteTableName::new).or(found.routes) {
            Some(routes) => routes,
            None => return Err(own_at.field("routes").missing()),
        },
        tls,
        tcp: own
            .tcp
            .map(|own| forward(own, &own_at.field("tcp")))
            .unwrap_or_else(|| Ok(found.tcp.unwrap_or_default()))?,
        origin: own.origin.map(Into::into),
        name,
    })
}

/// What the filter chains say.
#[derive(Default)]
struct Found {
    /// With the index of its chain.
    tls: Vec<(HostPattern, TcpForward, usize)>,
    routes: Option<RouteTableName>,
    sniffed: bool,
    tcp: Option<TcpForward>,
    chains: usize,
}

impl Found {
    fn add(&mut self, chain: Chain, port: u16, at: &At<'_>) -> Result<(), Unsupported> {
        let index = self.chains;
        self.chains += 1;
        if chain.certificates.is_some() {
            return Err(at.field("transport_socket").refuse("TLS of an app is not opened on its way out"));
        }
        if chain.port.is_some_and(|chosen| chosen != port) {
            return Err(at.field("filter_chain_match").field("destination_port").unsupported());
        }
        if chain.tls {
            let forward = match chain.content {
                Content::Tcp(forward) => forward,
                Content::Close => TcpForward::default(),
                _ => return Err(at.field("filters").refuse("HTTP inside TLS of an app is not supported")),
            };
            let names = if chain.sni.is_empty() { vec![HostPattern::Any] } else { chain.sni };
            self.tls.extend(names.into_iter().map(|sni| (sni, forward.clone(), index)));
            return Ok(());
        }
        match chain.content {
            Content::Http(_) if self.routes.is_some() => {
                Err(at.refuse("a second HTTP connection manager is not supported"))
            }
            Content::Http(routes) => {
                self.routes = Some(routes);
                self.sniffed = chain.sniffed_http;
                Ok(())
            }
            Content::HttpInline(_) => {
                Err(at.field("filters").refuse("an inline route_config is not supported here; use rds"))
            }
            Content::Tcp(_) | Content::Close if chain.sniffed_http => {
                Err(at.field("filter_chain_match").field("application_protocols").unsupported())
            }
            Content::Tcp(forward) => self.set_tcp(forward, at),
            Content::Close => self.set_tcp(TcpForward::default(), at),
        }
    }

    fn add_default(&mut self, chain: Chain, at: &At<'_>) -> Result<(), Unsupported> {
        match chain.content {
            Content::Tcp(forward) => self.set_tcp(forward, at),
            Content::Close => self.set_tcp(TcpForward::default(), at),
            _ => Err(at.field("filters").refuse("HTTP belongs into filter_chains")),
        }
    }

    fn set_tcp(&mut self, forward: TcpForward, at: &At<'_>) -> Result<(), Unsupported> {
        match self.tcp.replace(forward) {
            None => Ok(()),
            Some(_) => Err(at.refuse("a second filter chain for all other connections")),
        }
    }

    fn protocol(&self) -> Protocol {
        match (&self.routes, self.sniffed, &self.tcp) {
            (Some(_), true, _) => Protocol::Detect,
            (Some(_), false, _) => Protocol::Http,
            (None, _, None) if !self.tls.is_empty() => Protocol::Tls,
            (None, _, _) => Protocol::Tcp,
        }
    }
}
