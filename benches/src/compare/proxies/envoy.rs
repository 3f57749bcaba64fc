//! Envoy: bare, which is its router alone, and with the filters a mesh gives its sidecars.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::Place;
use crate::compare::backend;
use crate::compare::certificates::{CALLEE, Leaf};
use crate::compare::scenario::{Http, Setting};

pub fn command(program: &Path, place: &Place<'_>, setting: Setting, mesh: bool) -> anyhow::Result<Command> {
    let folder = place.folder()?;
    let file = folder.join("envoy.json");
    fs::write(&file, serde_json::to_vec_pretty(&config(place, setting, mesh))?)?;
    let mut command = place.pinned(program);
    command.args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "error", "--config-path"]);
    command.arg(file);
    Ok(command)
}

fn config(place: &Place<'_>, setting: Setting, mesh: bool) -> Value {
    let to = match place.next {
        Some(next) => next,
        None => backend::address(place.ground, setting.http),
    };
    let mut routes = Vec::new();
    let mut clusters = vec![cluster("app", to, place, setting.http, mesh)];
    for other in 0..setting.others {
        let name = format!("other{other}");
        routes.push(route(&format!("/{name}"), &name, mesh));
        clusters.push(cluster(&name, to, place, setting.http, mesh));
    }
    routes.push(route("/", "app", mesh));
    let mut manager = json!({
        "@type": ty("extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "in",
        "codec_type": match setting.http { Http::One => "HTTP1", Http::Two => "HTTP2" },
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": filters(mesh),
    });
    if mesh {
        manager["access_log"] = json!([{
            "name": "log",
            "filter": {"runtime_filter": {"runtime_key": "log", "percent_sampled": {"numerator": 1}}},
            "typed_config": {"@type": ty("extensions.access_loggers.stream.v3.StdoutAccessLog")},
        }]);
    }
    let mut chain = json!({"filters": [{"name": "http", "typed_config": manager}]});
    if place.serves_tls() {
        let mut tls = json!({
            "@type": ty("extensions.transport_sockets.tls.v3.DownstreamTlsContext"),
            "common_tls_context": tls_of(&place.certificates.callee, setting.http),
        });
        if place.wants_certificate() {
            tls["require_client_certificate"] = true.into();
            tls["common_tls_context"]["validation_context"] =
                json!({"trusted_ca": {"filename": place.certificates.root}});
        }
        chain["transport_socket"] = json!({"name": "tls", "typed_config": tls});
    }
    let listener = json!({"name": "in", "address": address(place.listen), "filter_chains": [chain]});
    json!({"static_resources": {"listeners": [listener], "clusters": clusters}})
}

fn route(prefix: &str, cluster: &str, mesh: bool) -> Value {
    let mut forward = json!({"cluster": cluster, "timeout": "0s"});
    if mesh {
        forward["timeout"] = "15s".into();
        forward["retry_policy"] = json!({
            "retry_on": "gateway-error,connect-failure,reset,refused-stream", "num_retries": 2, "per_try_timeout": "5s",
        });
    }
    json!({"match": {"prefix": prefix}, "route": forward})
}

fn filters(mesh: bool) -> Value {
    let filter = |name: &str, path: &str, mut config: Value| {
        config["@type"] = ty(path).into();
        json!({"name": format!("envoy.filters.http.{name}"), "typed_config": config})
    };
    let router = filter("router", "extensions.filters.http.router.v3.Router", json!({}));
    if !mesh {
        return json!([router]);
    }
    let allowed = json!({
        "permissions": [{"and_rules": {"rules": [
            {"or_rules": {"rules": [method("GET"), method("POST")]}},
            {"not_rule": {"url_path": {"path": {"prefix": "/admin"}}}},
        ]}}],
        "principals": [{"direct_remote_ip": {"address_prefix": "127.0.0.0", "prefix_len": 8}}],
    });
    json!([
        filter(
            "rbac",
            "extensions.filters.http.rbac.v3.RBAC",
            json!({"rules": {"action": "ALLOW", "policies": {"allowed": allowed}}})
        ),
        filter(
            "fault",
            "extensions.filters.http.fault.v3.HTTPFault",
            json!({"abort": {"http_status": 503, "percentage": {"numerator": 0}}})
        ),
        filter(
            "local_ratelimit",
            "extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
            json!({
                "stat_prefix": "limit",
                "token_bucket": {"max_tokens": 100_000_000, "tokens_per_fill": 100_000_000, "fill_interval": "1s"},
                "filter_enabled": {"runtime_key": "limit", "default_value": {"numerator": 100}},
                "filter_enforced": {"runtime_key": "enforce", "default_value": {"numerator": 100}},
            })
        ),
        router,
    ])
}

fn method(name: &str) -> Value {
    json!({"header": {"name": ":method", "string_match": {"exact": name}}})
}

fn cluster(name: &str, to: SocketAddr, place: &Place<'_>, http: Http, mesh: bool) -> Value {
    let endpoint = json!({"endpoint": {"address": address(to)}});
    let version = match http {
        Http::One => "http_protocol_options",
        Http::Two => "http2_protocol_options",
    };
    let mut cluster = json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": ty("extensions.upstreams.http.v3.HttpProtocolOptions"),
            "explicit_http_config": {version: {}},
        }},
    });
    if mesh {
        cluster["circuit_breakers"] = json!({"thresholds": [{
            "max_connections": 2_000, "max_pending_requests": 2_000, "max_requests": 10_000, "max_retries": 100,
        }]});
        cluster["outlier_detection"] = json!({"enforcing_consecutive_gateway_failure": 100});
    }
    if place.next.is_some() {
        let mut tls = json!({
            "@type": ty("extensions.transport_sockets.tls.v3.UpstreamTlsContext"),
            "sni": CALLEE,
            "common_tls_context": tls_of(&place.certificates.caller, http),
        });
        tls["common_tls_context"]["validation_context"] = json!({
            "trusted_ca": {"filename": place.certificates.root},
            "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": CALLEE}}],
        });
        cluster["transport_socket"] = json!({"name": "tls", "typed_config": tls});
    }
    cluster
}

fn tls_of(leaf: &Leaf, http: Http) -> Value {
    json!({
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        "tls_certificates": [{"certificate_chain": {"filename": leaf.certificate}, "private_key": {"filename": leaf.key}}],
        "alpn_protocols": [match http { Http::One => "http/1.1", Http::Two => "h2" }],
    })
}

fn address(of: SocketAddr) -> Value {
    json!({"socket_address": {"address": of.ip().to_string(), "port_value": of.port()}})
}

fn ty(path: &str) -> String {
    format!("type.googleapis.com/envoy.{path}")
}
