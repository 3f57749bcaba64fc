//! HAProxy as Debian has it: bare, and with about what ours does for a user.

use std::fmt::Write;
use std::fs;
use std::process::Command;

use super::Place;
use crate::compare::backend;
use crate::compare::certificates::CALLEE;
use crate::compare::scenario::{Http, Setting};

pub const PROGRAM: &str = "/usr/sbin/haproxy";

pub fn command(place: &Place<'_>, setting: Setting, features: bool) -> anyhow::Result<Command> {
    let folder = place.folder()?;
    let certificates = place.certificates;
    let h2 = setting.http == Http::Two;
    let mut bind = format!("bind {}", place.listen);
    if place.serves_tls() {
        let alpn = if h2 { "h2" } else { "http/1.1" };
        write!(bind, " ssl crt {} alpn {alpn}", certificates.callee.both.display())?;
        if place.wants_certificate() {
            write!(bind, " ca-file {} verify required", certificates.root.display())?;
        }
    } else if h2 {
        bind.push_str(" proto h2");
    }
    let mut server = match place.next {
        Some(next) => {
            let alpn = if h2 { "h2" } else { "http/1.1" };
            format!(
                "server app {next} ssl crt {} ca-file {} verify required sni str({CALLEE}) alpn {alpn}",
                certificates.caller.both.display(),
                certificates.root.display(),
            )
        }
        None if h2 => format!("server app {} proto h2", backend::address(place.ground, Http::Two)),
        None => format!("server app {}", backend::address(place.ground, Http::One)),
    };
    if features {
        server.push_str(BREAKER);
    }
    let mut backends = format!("backend app\n  {server}\n");
    for other in 0..setting.others {
        write!(backends, "backend other{other}\n  {server}\n")?;
    }
    let choices: String = (0..setting.others)
        .map(|other| format!("  use_backend other{other} if {{ path_beg /other{other} }}\n"))
        .collect();
    let (log, retry, rules) = match features {
        true => ("  log stdout format raw sample 1:100 local0\n", RETRY, RULES),
        false => ("", "", ""),
    };
    let text = format!(
        "global\n  nbthread 1\n  maxconn 8000\n  tune.ssl.cachesize 20000\n\
         {log}\
         \x20 ssl-default-bind-options ssl-min-ver TLSv1.3\n  ssl-default-server-options ssl-min-ver TLSv1.3\n\
         defaults\n  mode http\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n  http-reuse always\n{retry}\
         frontend in\n  {bind}\n{rules}{choices}  default_backend app\n{backends}"
    );
    let file = folder.join("haproxy.cfg");
    fs::write(&file, text)?;
    let mut command = place.pinned(PROGRAM.as_ref());
    command.arg("-db").arg("-f").arg(file);
    Ok(command)
}

/// A cap, and a server that fails ten times in a row is left alone until its check succeeds.
const BREAKER: &str = " maxconn 2000 check inter 10s observe layer7 error-limit 10 on-error mark-down";

const RETRY: &str = "  retries 2\n  retry-on conn-failure empty-response 502 503 504\n";

/// Who may call what, a limit on each address's rate that is never reached, and one answer of a hundred in the log.
const RULES: &str = "  log global\n  option httplog\n\
    \x20 stick-table type ip size 100k expire 1m store http_req_rate(10s)\n\
    \x20 http-request track-sc0 src\n\
    \x20 http-request deny deny_status 429 if { sc_http_req_rate(0) gt 100000000 }\n\
    \x20 acl loopback src 127.0.0.0/8\n\
    \x20 acl read method GET POST\n\
    \x20 acl admin path_beg /admin\n\
    \x20 http-request deny if admin\n\
    \x20 http-request deny unless loopback read\n";
