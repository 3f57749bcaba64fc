//! The app's probes, which come from outside the mesh and are made from within.
//!
//! A kubelet has no identity, so under Strict an app cannot be probed. Injection leads its probes here (`/app-health/CONTAINER/readyz`,
//! `livez`, `startupz`) and hands over what each one was; asked for one, the proxy makes that call itself, as the kubelet would have:
//! to the pod's own address, past the redirection. Only the calls that were handed over can be made, whoever asks.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{HeaderMap, Method, StatusCode, header};
use serde::Deserialize;
use tokio::net::{TcpSocket, TcpStream};

use super::answer::{Answer, plain};

mod grpc;
mod http_get;
#[cfg(test)]
mod tests;

use grpc::Grpc;
use http_get::HttpGet;

/// By the path that is asked for; read from JSON, as injection writes it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AppProbes(Arc<BTreeMap<String, Probe>>);

/// One call, and how long its answer may take.
#[derive(Clone, Debug, PartialEq)]
struct Probe {
    call: Call,
    /// Default 1 s, Kubernetes' own; at most an hour.
    timeout: Duration,
}

#[derive(Clone, Debug, PartialEq)]
enum Call {
    HttpGet(HttpGet),
    /// Connecting is all there is to it.
    TcpSocket(u16),
    Grpc(Grpc),
}

/// A failed probe, in words for the pod's events.
type Failed = String;

impl AppProbes {
    /// The answer to a request for a probe; `None` if it is for none.
    pub(super) async fn answer(&self, asked: &Parts, pod: IpAddr) -> Option<Answer> {
        let probe = self.0.get(asked.uri.path())?;
        if asked.method != Method::GET && asked.method != Method::HEAD {
            return Some(plain(StatusCode::METHOD_NOT_ALLOWED, "a probe is asked for by GET\n"));
        }
        Some(match tokio::time::timeout(probe.timeout, probe.call.make(pod, &asked.headers)).await {
            Ok(Ok(())) => plain(StatusCode::OK, "ok\n"),
            Ok(Err(failed)) => plain(StatusCode::SERVICE_UNAVAILABLE, format!("{failed}\n")),
            Err(_) => plain(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("the app did not answer within {:?}\n", probe.timeout),
            ),
        })
    }
}

impl Call {
    async fn make(&self, pod: IpAddr, asked: &HeaderMap) -> Result<(), Failed> {
        let port = match self {
            Self::HttpGet(get) => get.port,
            Self::TcpSocket(port) => *port,
            Self::Grpc(grpc) => grpc.port,
        };
        let address = SocketAddr::new(pod, port);
        let stream =
            connect(address).await.map_err(|error| format!("cannot connect to {address}: {error}"))?;
        match self {
            Self::HttpGet(get) => get.make(stream, address, asked.get(header::USER_AGENT)).await,
            Self::TcpSocket(_) => Ok(()),
            Self::Grpc(grpc) => grpc.make(stream, address).await,
        }
    }
}

/// From a loopback address: by that the redirection knows what the proxy hands to its own app.
async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let (socket, source): (_, IpAddr) = match address.ip() {
        IpAddr::V4(_) => (TcpSocket::new_v4()?, Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(_) => (TcpSocket::new_v6()?, Ipv6Addr::LOCALHOST.into()),
    };
    socket.bind((source, 0).into())?;
    socket.connect(address).await
}

impl FromStr for AppProbes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let raw: BTreeMap<String, RawProbe> =
            serde_json::from_str(text).map_err(|error| error.to_string())?;
        let probe = |(path, raw): (String, RawProbe)| {
            let probe = Probe::try_from(raw).map_err(|error| format!("{path}: {error}"))?;
            if !path.starts_with(PREFIX) {
                return Err(format!("{path:?} does not begin with {PREFIX}"));
            }
            Ok((path, probe))
        };
        Ok(Self(Arc::new(raw.into_iter().map(probe).collect::<Result<_, String>>()?)))
    }
}

const PREFIX: &str = "/app-health/";

/// Kubernetes' names.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawProbe {
    http_get: Option<http_get::Raw>,
    tcp_socket: Option<RawTcpSocket>,
    grpc: Option<grpc::Raw>,
    #[serde(default = "default_timeout")]
    timeout_seconds: u16,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawTcpSocket {
    port: u16,
    #[serde(default)]
    host: String,
}

fn default_timeout() -> u16 {
    1
}

impl TryFrom<RawProbe> for Probe {
    type Error = String;

    fn try_from(raw: RawProbe) -> Result<Self, String> {
        let call = match (raw.http_get, raw.tcp_socket, raw.grpc) {
            (Some(get), None, None) => Call::HttpGet(get.try_into()?),
            (None, Some(socket), None) => {
                here(&socket.host)?;
                Call::TcpSocket(socket.port)
            }
            (None, None, Some(grpc)) => Call::Grpc(grpc.try_into()?),
            _ => return Err("there must be one of httpGet, tcpSocket and grpc".to_owned()),
        };
        if !(1..=3600).contains(&raw.timeout_seconds) {
            return Err(format!("timeoutSeconds: {} is not 1 to 3600", raw.timeout_seconds));
        }
        Ok(Self { call, timeout: Duration::from_secs(raw.timeout_seconds.into()) })
    }
}

/// What asks another host is no probe of this pod.
fn here(host: &str) -> Result<(), String> {
    if host.is_empty() { Ok(()) } else { Err(format!("host: {host:?} is not this pod")) }
}
