//! The proxy variables: which hosts are called through which proxy.

use anyhow::{Context, bail};
use http::Uri;
use http::uri::Authority;

#[derive(Debug)]
pub struct Proxies {
    proxy: Option<Authority>,
    except: NoProxy,
}

impl Proxies {
    /// From the values of a `http_proxy` and a `no_proxy` variable; an empty one is as good as none.
    pub fn new(proxy: Option<&str>, no_proxy: Option<&str>) -> anyhow::Result<Self> {
        let proxy = proxy.filter(|value| !value.is_empty()).map(proxy_authority).transpose()?;
        Ok(Self { proxy, except: NoProxy::new(no_proxy.unwrap_or_default()) })
    }

    /// The proxy to call `authority` through, if any.
    pub fn for_host(&self, authority: &Authority) -> Option<&Authority> {
        self.proxy.as_ref().filter(|_| !self.except.covers(authority))
    }
}

/// `http://HOST:PORT`, `HOST:PORT`, or either with a trailing slash.
fn proxy_authority(value: &str) -> anyhow::Result<Authority> {
    let uri: Uri = if value.contains("://") { value.parse() } else { format!("http://{value}").parse() }
        .with_context(|| format!("http_proxy: {value:?} is not an address"))?;
    match (uri.scheme_str(), uri.authority()) {
        (Some("http"), Some(authority)) if !authority.as_str().contains('@') => Ok(authority.clone()),
        _ => bail!("http_proxy: {value:?} is not of the form http://HOST:PORT"),
    }
}

/// Hosts that are called directly: `*`, or names (each with all names below it) and addresses, optionally with a port.
#[derive(Debug)]
struct NoProxy(Vec<String>);

impl NoProxy {
    fn new(list: &str) -> Self {
        let entry =
            |entry: &str| entry.trim().trim_start_matches("*.").trim_start_matches('.').to_ascii_lowercase();
        Self(list.split(',').map(entry).filter(|entry| !entry.is_empty()).collect())
    }

    fn covers(&self, authority: &Authority) -> bool {
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let port = authority.port_u16().unwrap_or(80);
        self.0.iter().any(|entry| {
            // An IPv6 address has colons but no port here.
            let (name, wanted) = match entry.rsplit_once(':') {
                Some((name, wanted)) if !name.contains(':') => (name, wanted.parse().ok()),
                _ => (entry.as_str(), None),
            };
            let below = host.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
            entry == "*" || (below && wanted.is_none_or(|wanted: u16| wanted == port))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_proxy_covers_names_and_what_is_below_them() {
        for (list, host, covered) in [
            ("localhost,127.0.0.1,::1", "localhost:80", true),
            ("localhost,127.0.0.1,::1", "127.0.0.1:9080", true),
            ("localhost,127.0.0.1,::1", "[::1]:9080", true),
            ("localhost,127.0.0.1,::1", "reviews:9080", false),
            ("example.com", "a.example.com", true),
            (".example.com", "a.example.com", true),
            ("*.example.com", "a.example.com", true),
            ("example.com", "badexample.com", false /* whole labels */),
            ("example.com:81", "example.com:81", true),
            ("example.com:81", "example.com", false),
            (" Example.COM , x", "EXAMPLE.com", true),
            ("*", "anything", true),
            ("", "anything", false),
            (",,", "anything", false),
        ] {
            assert_eq!(NoProxy::new(list).covers(&host.parse().unwrap()), covered, "{list:?} on {host}");
        }
    }

    #[test]
    fn a_proxy_that_is_no_http_address_is_refused() {
        for value in ["https://a:1", "http://", "http://user:secret@a:1", "a b"] {
            assert!(Proxies::new(Some(value), None).is_err(), "{value}");
        }
        for value in ["a:1", "http://a:1", "http://[::1]:15001/", ""] {
            assert!(Proxies::new(Some(value), None).is_ok(), "{value}");
        }
    }
}
