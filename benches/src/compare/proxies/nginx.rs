//! nginx as Debian has it. To apps, and between two hops, it speaks HTTP/1.1 whatever its clients speak.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use super::Place;
use crate::compare::backend::{self, PROGRAM};
use crate::compare::certificates::CALLEE;
use crate::compare::scenario::{Http, Setting};

/// `place` says where it stands; it listens there on port 8080.
pub fn command(place: &Place<'_>, setting: Setting) -> anyhow::Result<Command> {
    let folder = place.folder()?;
    let shown = folder.display().to_string();
    let certificates = place.certificates;
    let leaf = |leaf: &crate::compare::certificates::Leaf, prefix: &str| {
        format!(
            "{prefix}_certificate {};\n{prefix}_certificate_key {};\n",
            leaf.certificate.display(),
            leaf.key.display()
        )
    };
    let mut server = format!("listen {}", place.listen);
    if place.serves_tls() {
        server.push_str(" ssl");
    }
    if setting.http == Http::Two {
        server.push_str(" http2");
    }
    server.push_str(";\n");
    if place.serves_tls() {
        server.push_str("ssl_protocols TLSv1.3;\nssl_session_cache shared:bench:10m;\n");
        server.push_str(&leaf(&certificates.callee, "ssl"));
    }
    if place.wants_certificate() {
        let root = certificates.root.display();
        server.push_str(&format!("ssl_client_certificate {root};\nssl_verify_client on;\n"));
    }
    let mut upstreams = String::new();
    let mut upstream = |name: &str, to: SocketAddr| {
        upstreams.push_str(&format!(
            "upstream {name} {{ server {to}; keepalive 256; keepalive_requests 1000000000; keepalive_timeout 1h; }}\n"
        ));
    };
    let to = match place.next {
        Some(next) => next,
        None => backend::address(place.ground, Http::One),
    };
    upstream("app", to);
    for other in 0..setting.others {
        upstream(&format!("other{other}"), to);
        server.push_str(&format!("location /other{other} {{ proxy_pass http://other{other}; }}\n"));
    }
    let scheme = if place.next.is_some() { "https" } else { "http" };
    let mut location = format!(
        "proxy_pass {scheme}://app;\nproxy_http_version 1.1;\nproxy_set_header Connection \"\";\nproxy_set_header Host $host;\n\
         proxy_max_temp_file_size 0;\n"
    );
    if place.next.is_some() {
        location.push_str(&leaf(&certificates.caller, "proxy_ssl"));
        location.push_str(&format!(
            "proxy_ssl_trusted_certificate {};\nproxy_ssl_verify on;\nproxy_ssl_name {CALLEE};\nproxy_ssl_server_name on;\n\
             proxy_ssl_protocols TLSv1.3;\n",
            certificates.root.display()
        ));
    }
    let text = format!(
        "{}http {{\n{}{upstreams}server {{\n{server}location / {{\n{location}}}\n}}\n}}\n",
        backend::preamble(&shown),
        backend::http(&shown)
    );
    let file = folder.join("nginx.conf");
    fs::write(&file, text)?;
    let mut command = place.pinned(PROGRAM.as_ref());
    command.arg("-c").arg(file);
    Ok(command)
}
