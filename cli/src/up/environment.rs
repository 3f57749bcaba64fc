//! What an app is told of the mesh: its own address, the proxy, and an address for each Service of its namespace.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddrV4};

use super::plan::ServiceSpec;

/// At most this many Services get an address of their own, by name; the proxy variables reach the rest.
pub const SERVICE_ADDRESSES: usize = 256;

/// One socket of a service address: the sidecar listens on `listen` for `host:port`.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceAddress {
    pub listen: SocketAddrV4,
    pub host: String,
    pub port: u16,
}

impl ServiceAddress {
    /// As `outrigger proxy --service-address` takes it.
    pub fn argument(&self) -> String {
        format!("{}={}:{}", self.listen, self.host, self.port)
    }
}

/// Gives each Service of the namespace one address. `port` turns a Service's port into one that can be bound here.
pub fn service_addresses(
    services: &[ServiceSpec],
    namespace: &str,
    mut next: impl FnMut() -> anyhow::Result<Ipv4Addr>,
    port: impl Fn(u16) -> u16,
) -> anyhow::Result<Vec<(ServiceSpec, Vec<ServiceAddress>)>> {
    services
        .iter()
        .filter(|service| service.namespace == namespace)
        .take(SERVICE_ADDRESSES)
        .map(|service| {
            let address = next()?;
            let sockets = service
                .ports
                .iter()
                .map(|(_, number)| ServiceAddress {
                    listen: SocketAddrV4::new(address, port(*number)),
                    host: service.host.clone(),
                    port: *number,
                })
                .collect();
            Ok((service.clone(), sockets))
        })
        .collect()
}

/// The variables of one app. `proxy` is its sidecar's outbound listener; `listen` where the app itself shall listen.
pub fn variables(
    listen: SocketAddrV4,
    proxy: SocketAddrV4,
    addresses: &[(ServiceSpec, Vec<ServiceAddress>)],
) -> Vec<(String, OsString)> {
    let mut variables: Vec<(String, String)> =
        vec![("HOST".into(), listen.ip().to_string()), ("PORT".into(), listen.port().to_string())];
    let proxy_url = format!("http://{proxy}");
    for name in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "grpc_proxy"] {
        variables.push((name.into(), proxy_url.clone()));
    }
    // Node's own http client reads the variables above only when told to.
    variables.push(("NODE_USE_ENV_PROXY".into(), "1".into()));
    for name in ["no_proxy", "NO_PROXY"] {
        variables.push((name.into(), "localhost,127.0.0.1,::1".into()));
    }
    for (service, sockets) in addresses {
        variables.extend(kubernetes_variables(service, sockets));
    }
    variables.into_iter().map(|(name, value)| (name, value.into())).collect()
}

/// The names Kubernetes gives: `REVIEWS_SERVICE_HOST`, `REVIEWS_SERVICE_PORT`, `REVIEWS_SERVICE_PORT_HTTP`.
fn kubernetes_variables(service: &ServiceSpec, sockets: &[ServiceAddress]) -> Vec<(String, String)> {
    let prefix = variable_name(&service.name);
    let Some(first) = sockets.first() else { return Vec::new() };
    let mut variables = vec![
        (format!("{prefix}_SERVICE_HOST"), first.listen.ip().to_string()),
        (format!("{prefix}_SERVICE_PORT"), first.listen.port().to_string()),
    ];
    for ((name, _), socket) in service.ports.iter().zip(sockets) {
        if let Some(name) = name {
            variables.push((
                format!("{prefix}_SERVICE_PORT_{}", variable_name(name)),
                socket.listen.port().to_string(),
            ));
        }
    }
    variables
}

fn variable_name(name: &str) -> String {
    name.to_ascii_uppercase().replace(['-', '.'], "_")
}

/// `$(HOST)` and `$(PORT)` in an argument, like Kubernetes expands variables in `command`; `$$(HOST)` stays `$(HOST)`.
pub fn expand(argument: &str, variables: &[(String, OsString)]) -> String {
    let mut out = String::with_capacity(argument.len());
    let mut rest = argument;
    while let Some(at) = rest.find("$(") {
        if rest[..at].ends_with('$') {
            out.push_str(&rest[..at]);
            out.push('(');
            rest = &rest[at + 2..];
            continue;
        }
        out.push_str(&rest[..at]);
        let Some(end) = rest[at..].find(')') else { break };
        let name = &rest[at + 2..at + end];
        match variables.iter().find(|(known, _)| known == name) {
            Some((_, value)) => out.push_str(&value.to_string_lossy()),
            None => out.push_str(&rest[at..=at + end]),
        }
        rest = &rest[at + end + 1..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_expanded_like_kubernetes_does() {
        let variables = vec![("HOST".into(), "127.64.1.2".into()), ("PORT".into(), "9080".into())];
        for (given, want) in [
            ("--bind=$(HOST):$(PORT)", "--bind=127.64.1.2:9080"),
            ("$(UNKNOWN)", "$(UNKNOWN)"),
            ("$$(HOST)", "$(HOST)"),
            ("$(HOST", "$(HOST"),
            ("cost: $5", "cost: $5"),
        ] {
            assert_eq!(expand(given, &variables), want, "{given}");
        }
    }

    #[test]
    fn services_of_the_namespace_get_kubernetes_names() {
        let service = |name: &str, namespace: &str| ServiceSpec {
            name: name.into(),
            namespace: namespace.into(),
            host: format!("{name}.{namespace}.svc.cluster.local"),
            ports: vec![(Some("http".into()), 80), (Some("grpc-web".into()), 9090)],
        };
        let services = [service("my-app", "default"), service("other", "elsewhere")];
        let addresses = service_addresses(
            &services,
            "default",
            || Ok(Ipv4Addr::new(127, 64, 1, 9)),
            |port| {
                if port < 1024 { 10_000 + port } else { port }
            },
        )
        .expect("addresses");
        let sidecar = SocketAddrV4::new(Ipv4Addr::new(127, 64, 1, 1), 15001);
        let variables = variables(SocketAddrV4::new(Ipv4Addr::new(127, 64, 1, 2), 8080), sidecar, &addresses);
        let of = |name: &str| {
            variables
                .iter()
                .find(|(known, _)| known == name)
                .map(|(_, value)| value.to_string_lossy().into_owned())
        };
        assert_eq!(of("MY_APP_SERVICE_HOST").as_deref(), Some("127.64.1.9"));
        assert_eq!(of("MY_APP_SERVICE_PORT").as_deref(), Some("10080"));
        assert_eq!(of("MY_APP_SERVICE_PORT_GRPC_WEB").as_deref(), Some("9090"));
        assert_eq!(of("OTHER_SERVICE_HOST"), None);
        assert_eq!(of("http_proxy").as_deref(), Some("http://127.64.1.1:15001"));
        assert_eq!(addresses[0].1[0].argument(), "127.64.1.9:10080=my-app.default.svc.cluster.local:80");
    }
}
