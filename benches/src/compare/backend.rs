//! The app behind every proxy: nginx, because it answers sooner than anything of ours would, in both versions of HTTP.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::process::Command;

use anyhow::Context;

use super::scenario::{Body, Http};
use crate::ground::{Ground, Process};

pub struct Backend {
    /// Ends with it.
    _process: Process,
}

/// Of the ground.
const HOST: u8 = 3;

impl Backend {
    pub async fn start(ground: &Ground) -> anyhow::Result<Self> {
        let folder = ground.path("app");
        fs::create_dir_all(&folder)?;
        File::create(folder.join("1m"))?.set_len(Body::Large.answered())?;
        let small = "x".repeat(Body::Small.answered() as usize);
        let text = format!(
            "{preamble}\
             http {{\n{http}\
             open_file_cache max=10;\n\
             sendfile on;\n\
             server {{ listen {one}; root {root}; location = /1k {{ return 200 {small}; }} }}\n\
             server {{ listen {two} http2; root {root}; location = /1k {{ return 200 {small}; }} }}\n\
             }}\n",
            preamble = preamble(&folder.display().to_string()),
            http = http(&folder.display().to_string()),
            one = address(ground, Http::One),
            two = address(ground, Http::Two),
            root = folder.display(),
        );
        let file = folder.join("nginx.conf");
        fs::write(&file, text)?;
        let process = ground.start(Command::new(PROGRAM).arg("-c").arg(&file), "app")?;
        process.listens(address(ground, Http::Two)).await.context("the app")?;
        Ok(Self { _process: process })
    }
}

/// Where it speaks this version of HTTP.
pub fn address(ground: &Ground, http: Http) -> SocketAddr {
    let port = match http {
        Http::One => 8001,
        Http::Two => 8002,
    };
    (ground.ip(HOST), port).into()
}

/// As Debian installs it.
pub const PROGRAM: &str = "/usr/sbin/nginx";

/// For one process that stays in the foreground, and ends when it is killed.
pub fn preamble(folder: &str) -> String {
    format!(
        "worker_processes 1;\nmaster_process off;\ndaemon off;\n\
         pid {folder}/nginx.pid;\nerror_log {folder}/error.log;\n\
         events {{ worker_connections 12000; }}\n"
    )
}

/// No log, no end to keep-alive, and all its files in one folder.
pub fn http(folder: &str) -> String {
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|what| format!("{what}_temp_path {folder}/{what};\n"))
        .collect();
    format!("access_log off;\nkeepalive_requests 1000000000;\nkeepalive_timeout 1h;\n{temporary}")
}
